"""An equal budget measured in a run of its own, and the knobs that it turns."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from firsthand import Agent, Benchmark, Experiment, Task
from firsthand.experiment.equal_budget import Fitted, Knob, free_knob, knob_of
from firsthand.experiment.settings import RunSettings
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.runs.store import Run

AGENT = Agent("a", Scripted(["x"]), direct)
NAMED = RunSettings(("arithmetic:levels=1:tasks=2",), ("scripted:echo",), tools=("none",))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def made(home: Path) -> int:
    return len(list(home.glob("runs/*/run.sqlite")))


@pytest.mark.slow
def test_an_equal_budget_is_measured_on_a_few_tasks_in_a_run_of_its_own(home: Path) -> None:
    model = Scripted({"": "The answer is 12"})
    settings = replace(
        NAMED, pattern=("direct", "self_consistency:samples=2", "self_consistency"), equal_budget="auto", epochs=2, seed=3,
        max_tokens=9, name="mine",
    )  # fmt: skip
    asked: list[Any] = []
    told: list[Any] = []

    async def attempt(variants: Experiment, run: Run) -> None:
        asked.append((variants.limit, variants.epochs, variants.seed, variants.settings, run.path))
        await variants.attempt_async(run)

    def on_fitted(run: Run, budget: float, fitted: Sequence[Fitted]) -> None:
        costs: dict[str, list[int]] = {}
        for row in run.rows():
            costs.setdefault(row.agent, []).append(row.tokens)
        told.append((run.config, {name: fmean(each) for name, each in costs.items()}, budget, list(fitted)))

    experiment = Experiment.from_settings(settings, models=[model])
    found = asyncio.run(experiment.equalised(attempt, on_fitted))
    ((config, costs, budget, fitted),) = told
    assert (
        config["name"] == "calibration"
        and config["equal_budget"] is None
        and (config["epochs"], config["limit"]) == (1, 8)
    )
    assert {each[:3] for each in asked} == {(8, 1, 3)} and len({each[4] for each in asked}) == 1
    assert asked[0][3].pattern == settings.pattern and asked[0][3].max_tokens == 9
    assert budget == max(costs[name] for name in settings.pattern) == costs["self_consistency"]
    assert fitted == [
        Fitted("direct", None, None, costs["direct"]),
        Fitted("self_consistency:samples=2", None, None, costs["self_consistency:samples=2"]),
        Fitted("self_consistency:samples=8", "samples", 8, costs["self_consistency"]),
    ]
    assert found.current_settings == replace(
        settings, pattern=tuple(each.pattern for each in fitted), equal_budget=str(round(budget))
    )
    assert all(each.model is model for each in found.agents) and found.name == "mine" and made(home) == 1
    for limit, wanted in ((1, 1), (8, 8), (9, 8)):
        asked.clear()
        some = replace(settings, pattern=("self_consistency",), equal_budget="100", limit=limit)
        asyncio.run(Experiment.from_settings(some, models=[model]).equalised(attempt))
        assert {each[0] for each in asked} == {wanted} and len(asked) > 1, "its cost is far from the budget"
    runs = made(home)
    with store.open_run("last", home) as last:
        ref = str(last.path)
    for given in (
        replace(settings, equal_budget=None),
        replace(settings, equal_budget="100", pattern=("direct", "self_consistency:samples=2")),
        replace(settings, replay=ref, pattern=("direct", "self_consistency")),
    ):
        same = Experiment.from_settings(given, models=[model])
        assert asyncio.run(same.equalised(attempt)) is same
    by_hand = Experiment([Agent("a", model, direct)], Benchmark("b", lambda seed: [Task("t", "?")], ()))
    assert asyncio.run(by_hand.equalised()) is by_hand and made(home) == runs


def test_a_knob_is_the_first_whole_number_that_a_pattern_takes_of_those_that_are_known() -> None:
    async def several(
        task: Any, ctx: Any, *, max_steps: int = 5, rounds: bool = True, n: int = 3, samples: str = "2"
    ) -> str:
        return ""

    async def none(task: Any, ctx: Any, *, rounds: int | None = None, steps: int = 4) -> str:
        return ""

    assert knob_of(several) == ("n", 3) and knob_of(none) is None
    assert free_knob("self_consistency:samples=3") is None is free_knob("direct")
    assert free_knob("react:max_steps=2") is None
    found = free_knob("self_consistency:temperature=0.5")
    assert found == Knob("self_consistency:temperature=0.5", "samples", 8)
    assert found.at(3) == "self_consistency:temperature=0.5:samples=3"


def test_a_replay_and_an_experiment_without_an_equal_budget_are_themselves(home: Path) -> None:
    for settings in (NAMED, replace(NAMED, pattern=("self_consistency",), equal_budget="auto", replay="some run")):
        experiment = replace(Experiment.from_settings(NAMED), settings=settings)
        assert asyncio.run(experiment.equalised()) is experiment
    assert made(home) == 0


def test_a_benchmark_of_an_experiment_keeps_the_protocol_that_its_name_states() -> None:
    names = ("gsm8k@lm-eval-5shot-strict", "gsm8k@lm-eval-5shot-flexible")
    strict, flexible = (str(Experiment([AGENT], f"{name}:data=packaged").made_benchmarks[0].protocol) for name in names)
    assert strict != flexible


def test_eight_tasks_at_most_tell_what_a_pattern_costs(home: Path) -> None:
    limits: list[int | None] = []

    async def attempt(variants: Experiment, run: Run) -> None:
        limits.append(variants.limit)
        await variants.attempt_async(run)

    settings = replace(NAMED, pattern=("direct",), equal_budget="auto", limit=20)
    experiment = Experiment.from_settings(settings, models=[Scripted({"": "The answer is 12"})])
    found = asyncio.run(experiment.equalised(attempt))
    assert limits == [8] and found.limit == 20
    assert found.settings is not None and found.settings.token_budget
