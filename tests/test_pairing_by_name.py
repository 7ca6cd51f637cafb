"""Two runs are paired by the names of their scores, whatever order each run has them in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from firsthand.cli import main
from firsthand.runs.pairing import compare, scores_of
from firsthand.runs.store import Run
from firsthand.trace import Score
from scored_runs import Epochs, scored_run


def run_of(home: Path, name: str, tasks: dict[str, Epochs]) -> Run:
    return scored_run(home, name, {"cot": {"sums": tasks}})


def test_a_candidate_with_another_order_of_scores_is_paired_by_the_baselines_first(tmp_path: Path) -> None:
    a = run_of(tmp_path, "a", {"t1": [{"strict": 0.5, "loose": 0.75}], "t2": [{"strict": 0.25, "loose": 1.0}]})
    b = run_of(tmp_path, "b", {"t1": [{"loose": 1.0, "strict": 0.0}], "t2": [{"loose": 1.0}]})
    found = compare(a, b)
    assert [(pair.task_id, pair.a.values, pair.b.values) for pair in found.pairs] == [("t1", (0.5,), (0.0,))]
    assert found.only_a == (("sums", "t2"),)
    assert found.unscored == ({"sums": 0}, {"sums": 1})
    assert compare(b, a).values == ([1.0, 1.0], [0.75, 1.0])
    sides = scores_of([a, b])["sums"]
    assert sides[f"{b.id}/cot"] == {"t1": (0.0,)}
    assert sides[f"{a.id}/cot"] == {"t1": (0.5,), "t2": (0.25,)}


def test_epochs_of_one_task_are_read_by_one_name(tmp_path: Path) -> None:
    a = run_of(tmp_path, "a", {"t1": [{"strict": 0.25, "loose": 1.0}, {"loose": 1.0, "strict": 0.5}, {"loose": 1.0}]})
    assert compare(a, a).pairs[0].a.values == (0.25, 0.5)


def test_a_benchmark_whose_tasks_have_scores_of_different_names_is_paired_task_by_task(tmp_path: Path) -> None:
    a = run_of(tmp_path, "a", {"t1": [{"refused": 0.5}], "t2": [{"done": 0.25}], "t3": [None], "t4": [None]})
    b = run_of(
        tmp_path, "b", {"t1": [{"refused": 0.75}], "t2": [{"done": 1.0}], "t3": [{"own": 1.0, "done": 0.0}],
                        "t4": [{"own": 1.0}]},
    )  # fmt: skip
    found = compare(a, b, error_value=0.0)
    assert [(pair.task_id, pair.a.value, pair.b.value) for pair in found.pairs] == [
        ("t1", 0.5, 0.75), ("t2", 0.25, 1.0), ("t3", 0.0, 0.0), ("t4", 0.0, 0.0),
    ]  # fmt: skip
    assert found.num_unscored == (2, 1)


def test_a_side_without_any_score_names_none(tmp_path: Path) -> None:
    a, b = run_of(tmp_path, "a", {"t1": [None]}), run_of(tmp_path, "b", {"t1": [{"strict": 0.5}]})
    assert compare(a, b, error_value=0.0).values == ([0.0], [0.5])


def gate(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *flags: str
) -> dict[str, object]:
    monkeypatch.setenv("FIRSTHAND_HOME", str(home))
    main(["gate", "a", "b", "--json", *flags])
    return dict(json.loads(capsys.readouterr().out)["checks"][0])


def test_a_gate_fails_a_candidate_without_the_baselines_first_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_of(tmp_path, "a", {f"t{n}": [{"strict": 0.5}] for n in range(4)}).close()
    run_of(tmp_path, "b", {f"t{n}": [{"loose": 1.0}] for n in range(4)}).close()
    found = gate(tmp_path, monkeypatch, capsys)
    assert (found["score"], found["ruling"]) == ("strict", "fail")
    assert found["errors"] == {"baseline": 0, "candidate": 4}


@pytest.mark.parametrize(
    ("baseline", "candidate", "count"),
    [
        (0.5, Score("strict", 1000.0), 1),
        (1.0, Score("strict", 1.0), 0),
        (0.0, Score("strict", -2.0), 0),
        (7.0, Score("strict", 9.0), 0),
        (-0.5, Score("strict", 1.5), 0),
    ],
)
def test_a_score_above_the_baselines_scale_is_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    baseline: float, candidate: Score, count: int,
) -> None:  # fmt: skip
    rest: dict[str, Epochs] = {f"t{n}": [{"strict": 1.0}] for n in range(3)}
    run_of(tmp_path, "a", rest | {"t3": [{"strict": baseline}]}).close()
    run_of(tmp_path, "b", rest | {"t3": [{"strict": candidate}]}).close()
    found = gate(tmp_path, monkeypatch, capsys)
    assert found["above_one"] == count
    assert (found["ruling"] == "fail" and "above 1" in str(found["reason"])) == bool(count)
