"""What is planned is what is found: tasks and attempts from stated variances, and from runs that are stored."""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from firsthand.cli import main
from firsthand.errors import ConfigError
from firsthand.runs.store import Run, create
from firsthand.stats.comparison_design import Design, from_one, from_pair
from firsthand.stats.score_statistics import (
    Differences,
    epochs_needed,
    paired_spread,
    paired_tasks_needed,
    smallest_detectable,
    tasks_needed,
)
from firsthand.trace import Failure, Score, Trace


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    return tmp_path


def filled(home: Path, epochs: int) -> Run:
    """Two agents of equal skill whose tasks agree with each other."""
    rng = np.random.default_rng(3)
    ease = rng.beta(1, 1, 60)
    run = create(home, {}, "power")
    for agent in ("direct", "cot"):
        run.add_agent(agent, {"name": agent})
        for task in range(60):
            for epoch in range(epochs):
                error = Failure("ModelError", "gone") if (agent, task, epoch) == ("cot", 0, 0) else None
                scores = () if error else (Score("exact", float(rng.random() < ease[task])),)
                key = f"{agent}-{task}-{epoch}"
                run.append(
                    Trace(key, "sums", f"t{task}", {"name": agent}, epoch, 0, "", 1.0, scores=scores, error=error)
                )
    return run


def ask(capsys: Any, *words: str) -> list[dict[str, Any]]:
    assert main(["power", *words, "--json"]) == 0
    body: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return body


def test_the_formula_by_hand() -> None:
    # Miller (2024), section 5, with (1.9600 + 0.8416)^2 = 7.8489, omega^2 = 1/9 and sigma^2 = 1/6, to see 3 points
    assert tasks_needed(0.03, 1 / 9) == 969
    assert tasks_needed(0.03, 1 / 9, (1 / 6, 1 / 6)) == math.ceil(7.8489 * (1 / 9 + 1 / 3) / 0.0009)
    assert tasks_needed(0.03, 1 / 9, (1 / 6, 1 / 6), (10, 10)) == math.ceil(7.8489 * (1 / 9 + 1 / 30) / 0.0009)
    assert tasks_needed(0.03, 1 / 9, power=0.9) > 1200


def test_connor_and_miller_agree_where_effects_are_small() -> None:
    assert paired_tasks_needed(0.01, 0.2) == pytest.approx(tasks_needed(0.01, 0.2), rel=0.01)
    for effect, disagreement in ((0.02, 0.1), (0.1, 0.3), (0.3, 0.3)):
        n = paired_tasks_needed(effect, disagreement)
        assert smallest_detectable(n, disagreement=disagreement) <= effect * 1.0001
        assert smallest_detectable(n - 1, disagreement=disagreement) > effect * 0.9999


def test_tasks_attempts_and_effect_are_three_sides_of_one_formula() -> None:
    design = Design(0.04, (0.1, 0.1))
    n = design.tasks(0.05, 4)
    assert n is not None and design.effect(n, 4) == pytest.approx(0.05, rel=0.01)
    assert design.epochs(0.05, n) == 4 and design.epochs(0.05, n - 1) == 5
    assert epochs_needed(0.01, 100, 0.04, (0.1, 0.1)) is None
    one = Design(0.2, None)
    assert one.tasks(0.05, 2) is None and one.effect(100, 2) is None and one.epochs(0.05, 10) is None
    assert one.epochs(0.05, 700) == 1


def test_the_variance_of_a_difference_is_split_without_bias() -> None:
    rng = np.random.default_rng(5)
    between, within = [], []
    for _ in range(150):
        shared, taste = rng.normal(0, 1, 50), rng.normal(0, 0.3, 50)
        a = shared[:, None] + taste[:, None] + rng.normal(0, 0.5, (50, 3))
        b = shared[:, None] + rng.normal(0, 0.4, (50, 2))
        found = paired_spread({str(i): list(x) for i, x in enumerate(a)}, {str(i): list(x) for i, x in enumerate(b)})
        between.append(found.between)
        within.append(found.within)
    assert np.mean(between) == pytest.approx(0.09, abs=0.01)
    assert np.mean(within) == pytest.approx(0.41, abs=0.01)


def test_an_assumed_agent_is_planned_for_as_a_measured_one() -> None:
    rng = np.random.default_rng(6)
    ease = rng.beta(1, 1, 4000)
    a, b = ({str(i): [float(x)] for i, x in enumerate(rng.random(4000) < ease)} for _ in range(2))
    correlation = float(np.corrcoef([x for (x,) in a.values()], [x for (x,) in b.values()])[0, 1])
    measured, assumed = from_pair(a, b), from_one(a, correlation)
    assert measured.disagreement == pytest.approx(assumed.disagreement, abs=0.01)
    assert measured.tasks(0.05) == pytest.approx(assumed.tasks(0.05), rel=0.03)
    with pytest.raises(ConfigError, match="2 or more"):
        from_one({"a": [1.0]}, 0.5)
    with pytest.raises(ConfigError, match="in common"):
        from_pair({"a": [1.0]}, {"b": [1.0]})


def test_a_stored_run_is_planned_from(home: Path, capsys: Any) -> None:
    run = filled(home, 1)
    direct, cot = ask(capsys, run.id, "--effect", "10%")
    assert direct["title"] == "sums: another agent vs. direct" and direct["tasks"] == 60
    assert direct["within"] is None and direct["plans"][1]["tasks_needed"] is None
    assert 0.05 < direct["plans"][0]["smallest_effect"] < 0.4 and cot["plans"][0]["tasks_needed"] > 60
    [pair] = ask(capsys, run.id, "--agent", "cot", "--against", "direct")
    assert pair["disagreement"] == pytest.approx(pair["between"], abs=0.05)
    assert main(["power", run.id]) == 0
    assert "the variance within tasks is unknown" in capsys.readouterr().out


def test_attempts_buy_what_lies_within_tasks(home: Path, capsys: Any) -> None:
    run = filled(home, 4)
    [pair] = ask(capsys, run.id, "--agent", "cot", "--against", "direct", "--effect", "3%", "--epochs", "1,4,16")
    needed = [each["tasks_needed"] for each in pair["plans"]]
    assert needed[0] > needed[1] > needed[2] and pair["within"][0] == pytest.approx(1 / 6, abs=0.04)
    assert pair["between"] < 0.03  # they are equally good at each task
    assert main(["power", run.id, "--agent", "cot", "--effect", "1%"]) == 0
    assert "no number of attempts detects 1.00%" in capsys.readouterr().out


def test_stated_variances_are_planned_from(capsys: Any) -> None:
    [pair] = ask(capsys, "--disagreement", "15%", "--effect", "2%", "--tasks", "500")
    assert pair["plans"][0]["tasks_needed"] == paired_tasks_needed(0.02, 0.15)
    assert pair["plans"][0]["smallest_effect"] == pytest.approx(smallest_detectable(500, disagreement=0.15))
    [design] = ask(capsys, "--between-sd", "0.3", "--within-sd", "0.4", "--effect", "0.02", "--epochs", "3")
    assert design["plans"] == [
        {"epochs": 3, "tasks_needed": tasks_needed(0.02, 0.09, (0.16, 0.16), (3, 3)), "smallest_effect": None}
    ]
    assert main(["power", "--between-sd", "0.3", "--within-sd", "0.4", "--tasks", "2000"]) == 0
    assert "On 2,000 tasks 1 attempt per task detect" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "give a run to plan from, or --disagreement or --between-sd without one"),
        ("--disagreement 10% --between-sd 1", "do not go together"),
        ("--disagreement 0", "a share above 0"),
        ("--disagreement 3% --effect 5%", "a smaller effect or a larger disagreement"),
        ("--disagreement 4.9%", "a smaller effect or a larger disagreement"),
        ("--disagreement 10% --effect 0", "above 0"),
        ("--disagreement 10% --effect x", "a fraction was expected"),
        ("--disagreement 10% --power 40%", "above 50%"),
        ("--disagreement 10% --epochs 0", "whole numbers from 1 on"),
        ("--between-sd -1", "give 0 or more"),
        ("--between-sd nan --effect .1", "give 0 or more"),
        ("--between-sd 1 --within-sd inf --effect .1", "give 0 or more"),
        ("--disagreement 10% --tasks 0", "tasks is 0"),
        ("RUN --against cot", "name with --agent"),
        ("RUN --agent kot", "did you mean 'cot'"),
        ("RUN --benchmark summs", "did you mean 'sums'"),
        ("RUN --correlation 2", "from -1 to 1"),
    ],
)
def test_what_cannot_be_planned_is_refused(home: Path, capsys: Any, words: str, said: str) -> None:
    run = filled(home, 1) if "RUN" in words else None
    assert main(["power", *words.replace("RUN", run.id if run else "").replace("-sd -1", "-sd=-1").split()]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("binary", [True, False])
def test_a_plan_allows_for_clusters(binary: bool) -> None:
    rng = Random(4)
    a, b, clusters = {}, {}, {}
    for passage in range(40):
        base, shift = rng.random(), rng.choice([-0.4, 0.4])
        for question in range(5):
            task = f"{passage}-{question}"
            clusters[task] = f"passage {passage}"
            x, y = base, base + shift + rng.uniform(-0.1, 0.1)
            a[task], b[task] = ([float(x > 0.5)], [float(y > 0.5)]) if binary else ([x], [y])
    alone, together = from_pair(a, b), from_pair(a, b, clusters)
    assert alone.design_effect == 1 and 2 < together.design_effect < 6
    assert together.tasks(0.1) == pytest.approx(alone.tasks(0.1) * together.design_effect, abs=1)
    measured = Differences.between(a, b, clusters).error
    if not binary:
        assert together.effect(200) == pytest.approx(smallest_detectable(1, sd=measured), rel=1e-9)
    assert together.effect(200) > 1.4 * alone.effect(200) and "clusters multiplying the variance by" in together.basis
    one, clustered = from_one(a, 0.5), from_one(a, 0.5, clusters)
    assert clustered.design_effect > 2 and one.design_effect == 1
    assert from_pair(a, b, {task: task for task in a}) == alone  # each task its own cluster


def test_a_plan_against_another_agent_is_for_the_tasks_that_both_attempted(home: Path, capsys: Any) -> None:
    run = create(home, {}, "power")
    for agent, tasks in (("direct", range(12)), ("cot", range(4, 20))):
        run.add_agent(agent, {"name": agent})
        for task in tasks:
            for epoch in range(2):
                score = Score("exact", float((task + epoch + len(agent)) % 3 == 0))
                run.append(
                    Trace(
                        f"{agent}{task}-{epoch}",
                        "sums",
                        f"t{task}",
                        {"name": agent},
                        epoch,
                        0,
                        "",
                        1.0,
                        scores=(score,),
                    )
                )
    (both,) = ask(capsys, run.id, "--agent", "cot", "--against", "direct")
    assert both["tasks"] == 8 and "both measured on 8 tasks" in both["basis"]
    alone = {plan["title"]: plan["tasks"] for plan in ask(capsys, run.id)}
    assert sorted(alone.values()) == [12, 16]
    (one,) = ask(capsys, run.id, "--agent", "cot", "--benchmark", "sums")
    assert one["tasks"] == 16 and one["title"].endswith("cot")
    (planned,) = ask(capsys, run.id, "--agent", "cot", "--tasks", "30")
    assert planned["tasks"] == 30
