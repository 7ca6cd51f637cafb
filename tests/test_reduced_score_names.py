"""A score that is reduced from several attempts is named so, and is not ranked with scores that are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from firsthand.boards.board_spec import BoardSpec
from firsthand.boards.make_board import make_board
from firsthand.boards.read_results import read_results
from firsthand.commands import gate
from firsthand.commands import summary as command
from firsthand.errors import ConfigError
from firsthand.runs.epoch_reducer import reduced_name
from firsthand.runs.store import Run, create
from firsthand.stats.run_summary import summary
from firsthand.stats.task_scores import reducers_in_words
from firsthand.task import Task
from firsthand.trace import Score, Trace


def stored(home: Path, name: str, epochs: int, reduce: str = "", config: Any = None) -> Run:
    run = create(home, (config or {}) | ({"reduce": reduce} if reduce else {}), name, reducers={"other": "median"})
    for benchmark in ("b", "other"):
        run.add_tasks(benchmark, [Task(f"t{n}", f"question {n}", metadata={"level": n % 2}) for n in range(6)])
    run.add_agent(name, {"name": name})
    for benchmark in ("b", "other"):
        for n in range(6):
            for epoch in range(epochs):
                scores = (Score("exact", float((n + epoch) % 2)),)
                key = f"{benchmark}-{n}-{epoch}"
                run.append(Trace(key, benchmark, f"t{n}", {"name": name}, epoch, 0, "", 1.0, scores=scores))
    return run


def columns(home: Path, *runs: Run) -> dict[str, list[str]]:
    made = make_board(read_results([run.path for run in runs], home), BoardSpec())
    return {section.title: [line.model for line in section.lines] for section in made.sections}


@pytest.mark.parametrize(
    ("reducer", "attempts", "expected"),
    [("mean", 8, "s"), ("", 8, "s"), ("max", 8, "s (max of 8)"), ("max", 2, "s (max of 2)"), ("max", 1, "s"),
     ("majority", 1, "s"), ("pass_at_2", 8, "s (pass_at_2)"), ("pass_hat_2", 4, "s (pass_hat_2)"),
     ("at_least_2", 4, "s (at_least_2 of 4)"), ("at_least_1", 1, "s (at_least_1 of 1)")],
)  # fmt: skip
def test_the_name_has_the_reducer_and_the_attempts_that_it_grows_with(
    reducer: str, attempts: int, expected: str
) -> None:
    assert reduced_name("s", reducer, attempts) == expected


def test_the_best_of_several_attempts_is_in_no_column_with_single_ones(tmp_path: Path) -> None:
    best, again = stored(tmp_path, "best", 2, "max"), stored(tmp_path, "again", 2, "max")
    plain, more = stored(tmp_path, "plain", 1), stored(tmp_path, "more", 3, "max")
    found = columns(tmp_path, best, plain, again, more)
    assert found["b [exact (max of 2)]"] == ["again", "best"] or found["b [exact (max of 2)]"] == ["best", "again"]
    assert found["b [exact]"] == ["plain"] and found["b [exact (max of 3)]"] == ["more"]
    assert columns(tmp_path, plain, stored(tmp_path, "mean", 4))["b"]
    with pytest.raises(ConfigError, match=r"2 metrics, 'exact \(max of 2\)', 'exact', which are not mixed"):
        make_board(read_results([best.path, plain.path], tmp_path), BoardSpec(rule="weighted"))


def test_the_reducer_that_a_benchmark_declares_is_named_too(tmp_path: Path) -> None:
    results = read_results([stored(tmp_path, "one", 3).path], tmp_path)
    assert [key.metric for key in results.columns()] == ["exact", "exact (median of 3)"]


def test_attempts_are_those_planned(tmp_path: Path) -> None:
    run = stored(tmp_path, "one", 2, "max", {"epochs": 5})
    assert run.epochs() == {"b": 5, "other": 5} and reducers_in_words(run)["b"] == "max of 5"
    assert stored(tmp_path, "two", 2, config={"epochs": True}).epochs() == {"b": 2, "other": 2}


def test_the_summary_says_how_epochs_are_reduced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    best, plain = stored(tmp_path, "best", 2, "max"), stored(tmp_path, "plain", 2)
    assert [(line.benchmark, line.reduce) for line in summary(best)] == [("b", "max of 2"), ("other", "max of 2")]
    assert [line.to_json()["reduce"] for line in summary(plain)] == ["mean", "median of 2"]
    assert [line.reduce for line in summary(plain, reduce="pass_at_1")] == ["pass_at_1", "pass_at_1"]
    assert command.main(command.Config(str(best.path))) == 0
    assert capsys.readouterr().out.count("The attempts at a task are reduced by max of 2.") == 2
    assert command.main(command.Config(str(plain.path))) == 0
    assert capsys.readouterr().out.count("are reduced by") == 1
    assert command.main(command.Config(str(best.path), by=("level",))) == 0
    assert "b: the attempts at a task are reduced by max of 2." in capsys.readouterr().out


def test_a_gate_says_how_epochs_are_reduced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    best, told = str(stored(tmp_path, "a", 2, "max").path), "the attempts at a task are reduced by max on both sides"
    gate.main(gate.Config(best, best))
    assert capsys.readouterr().out.count(told) == 2
    gate.main(gate.Config(best, best, reduce="mean", json=True))
    assert [check["reduce"] for check in json.loads(capsys.readouterr().out)["checks"]] == ["mean", "mean"]
    plain = str(stored(tmp_path, "a", 2).path)
    gate.main(gate.Config(plain, best, json=True))
    assert [check["reduce"] for check in json.loads(capsys.readouterr().out)["checks"]] == ["mean", "median"]
