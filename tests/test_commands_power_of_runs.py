"""Plans of `firsthand power` from a run's own scores: whose, of which tasks, and with which settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from firsthand.commands import power
from firsthand.commands.power import Config, PowerPlan
from firsthand.errors import ConfigError, UnknownName
from firsthand.runs.store import Run
from scored_runs import scored_run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Agents ada and bob at sums, where bob tried two of three tasks, and ada alone at words."""
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    return scored_run(tmp_path, "made", {
        "ada": {"sums": {"s0": [{"x": 1.0, "y": 0.5}, {"x": 0.0, "y": 0.5}], "s1": [{"x": 1.0, "y": 0.25}], "s2": [None]},
                "words": {"w0": [{"x": 0.0, "y": 1.0}]}},
        "bob": {"sums": {"s0": [{"x": 0.0, "y": 0.75}], "s1": [{"x": 1.0, "y": 0.0}]}},
    })  # fmt: skip


LEVELS = {"confidence": 0.9, "power": 0.7}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the designs were made of."""
    told: list[Any] = []
    monkeypatch.setattr(power, "from_one", lambda *given, **more: told.append((given, more)) or "one")
    monkeypatch.setattr(power, "from_pair", lambda *given, **more: told.append((given, more)) or "pair")
    return told


def drawn(scores: Any) -> dict[str, list[float]]:
    return {task: [float(each) for each in values] for task, values in scores.items()}


def test_each_agent_of_each_benchmark_is_planned_from_alone(run: Run, asked: list[Any]) -> None:
    found = list(power.run_plans(Config(run.id, correlation=0.25), run, LEVELS))
    assert {(plan.title, plan.tasks) for plan in found} == {
        ("sums: another agent vs. ada", 3), ("sums: another agent vs. bob", 2), ("words: another agent vs. ada", 1),
    }  # fmt: skip
    by_size = {len(scores): (drawn(scores), correlation, more) for (scores, correlation, _), more in asked}
    # an attempt without a score counts as 0
    assert by_size[3] == ({"s0": [1.0, 0.0], "s1": [1.0], "s2": [0.0]}, 0.25, LEVELS)
    assert by_size[2] == ({"s0": [0.0], "s1": [1.0]}, 0.25, LEVELS) and by_size[1] == ({"w0": [0.0]}, 0.25, LEVELS)
    asked.clear()
    of = Config(run.id, agent="bob", score="y", tasks=9)
    assert list(power.run_plans(of, run, LEVELS)) == [PowerPlan("sums: another agent vs. bob", "one", 9)]  # type: ignore[arg-type]
    assert drawn(asked[0][0][0]) == {"s0": [0.75], "s1": [0.0]}
    only = list(power.run_plans(Config(run.id, benchmark="words"), run, LEVELS))
    assert [plan.title for plan in only] == ["words: another agent vs. ada"]


def test_two_agents_are_planned_from_where_both_were_measured(
    run: Run, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "clusters", lambda self, strata: {"sums": f"groups of {strata}"})
    both = Config(run.id, agent="ada", against="bob", strata="letter")
    assert list(power.run_plans(both, run, LEVELS)) == [PowerPlan("sums: ada vs. bob", "pair", 2)]  # type: ignore[arg-type]
    [((first, second, groups), more)] = asked
    assert list(drawn(first)) == ["s0", "s1", "s2"] and list(drawn(second)) == ["s0", "s1"]
    assert groups == "groups of letter" and more == LEVELS
    [plan] = power.run_plans(Config(run.id, agent="ada", against="bob", tasks=50), run, LEVELS)
    assert plan.tasks == 50


def test_names_that_the_run_does_not_have_are_refused(run: Run, asked: list[Any]) -> None:
    for given, told in (
        ({"benchmark": "sum"}, "no benchmark 'sum'; did you mean 'sums'"),
        ({"agent": "ad"}, "no agent 'ad'; did you mean 'ada'"),
        ({"agent": "ada", "against": "bo"}, "no agent 'bo'; did you mean 'bob'"),
    ):  # fmt: skip
        with pytest.raises(UnknownName, match=f"{told}.*firsthand show {run.id}"):
            list(power.run_plans(Config(run.id, **given), run, LEVELS))  # type: ignore[arg-type]
    for against in ("bob", ""):
        with pytest.raises(
            ConfigError, match=f"against is '{against}': name with --agent the agent to compare with it"
        ):
            Config(run.id, against=against)
    assert not asked


def test_stated_variances_become_a_design_at_the_levels_that_are_given() -> None:
    [plan] = power.plans(Config(disagreement="15%", effect="15%", confidence="90%", power="70%", tasks=8))
    design = plan.design
    assert (plan.title, plan.tasks) == ("two 0/1 scores", 8)
    assert (design.between, design.within, design.disagreement, design.basis) == (
        0.15,
        None,
        0.15,
        "disagreeing on 15.0%",
    )
    assert (design.confidence, design.power) == (0.9, 0.7)
    [plan] = power.plans(Config(between_sd=0.5, within_sd=0.25))
    assert (plan.title, plan.tasks, plan.design.between, plan.design.within) == (
        "two agents",
        None,
        0.25,
        (0.0625, 0.0625),
    )
    assert plan.design.basis == "sd 0.5 between tasks, 0.25 within" and plan.design.disagreement is None
    for given, told in (
        ({"disagreement": "0"}, "disagreement is '0': give a share above 0, such as 15%"),
        ({"disagreement": "101%"}, "disagreement is '101%'"),
        ({"disagreement": "4%", "effect": "5%"}, "disagreement is 4% and effect 5%: two 0/1 scores differ by no more than"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=told):
            list(power.plans(Config(**given)))  # type: ignore[arg-type]
    assert next(power.plans(Config(disagreement="100%"))).design.between == 1.0
