"""Reducers of several attempts at a task, beside Inspect's own, and in every table that shows scores."""

from __future__ import annotations

import importlib.util
import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from firsthand.benchmark import Benchmark
from firsthand.cli import main
from firsthand.errors import ConfigError
from firsthand.experiment.settings import RunSettings
from firsthand.runs.epoch_reducer import NAMES, check_epochs, epoch_reducer, reduced
from firsthand.runs.pairing import compare, scores_of
from firsthand.runs.store import Run, create
from firsthand.show.board import caveats, leaderboard, reducers_of
from firsthand.stats.run_summary import summary
from firsthand.task import Task
from firsthand.trace import Failure, Score, Trace

SCORES = [[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [0.5, 0.5, 1.0, 0.0]]


def reduce(name: str, values: list[float]) -> float:
    found = epoch_reducer(name)
    assert found is not None
    return found(values)


def test_each_reducer_by_its_definition() -> None:
    assert [reduce("max", each) for each in SCORES] == [1, 1, 1, 0, 1]
    assert [reduce("median", each) for each in SCORES] == [0.5, 0, 1, 0, 0.5]
    assert [reduce("mode", each) for each in SCORES] == [1, 0, 1, 0, 0.5]  # the earliest of several
    assert [reduce("majority", each) for each in SCORES] == [reduce("mode", each) for each in SCORES]
    assert [reduce("at_least_2", each) for each in SCORES] == [1, 0, 1, 0, 0]
    assert [reduce("at_least_1", each) for each in SCORES] == [1, 1, 1, 0, 1]
    assert [reduce("pass_at_2", each) for each in SCORES] == pytest.approx([5 / 6, 1 / 2, 1, 0, 1 / 2])
    assert [reduce("pass_at_1", each) for each in SCORES] == pytest.approx([0.5, 0.25, 1, 0, 0.25])
    assert epoch_reducer("mean") is None and epoch_reducer("") is None


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("inspect_ai") is None, reason="inspect_ai is not installed")
@pytest.mark.parametrize("name", ["median", "max", "mode", "pass_at_1", "pass_at_3", "at_least_1", "at_least_3"])
def test_reducers_are_inspects(name: str) -> None:
    from inspect_ai.scorer import Score as Theirs
    from inspect_ai.scorer._reducer.registry import create_reducers

    (theirs,) = create_reducers(name) or []
    for values in product((0.0, 1.0), repeat=4):
        expected = theirs([Theirs(value=value) for value in values]).value
        assert reduce(name, list(values)) == pytest.approx(expected), values


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pass_at_k", "^reduce is 'pass_at_k': give a number for k from 1 to 999999, as in pass_at_2$"),
        ("pass_hat_k", "^reduce is 'pass_hat_k': give a number for k from 1 to 999999, as in pass_hat_2$"),
        ("at_least_k", "^reduce is 'at_least_k': give a number for k from 1 to 999999, as in at_least_2$"),
        ("pass_at", "^reduce is 'pass_at': give a number for k"),
        ("at_least_0", "^reduce is 'at_least_0': give a number for k"),
        ("pass_at_1000000", "^reduce is 'pass_at_1000000': give a number for k"),
        ("medain", "did you mean 'median'"),
        ("pass@2", "did you mean 'pass_at_2'"),
    ],
)
def test_an_unknown_reducer_is_refused_in_words(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        epoch_reducer(name)


def test_every_name_that_is_told_works() -> None:
    for name in NAMES:
        assert name == "mean" or epoch_reducer(name) is not None


def test_more_attempts_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match="a task has 2 scored attempts"):
        reduce("pass_at_3", [1.0, 0.0])
    assert reduce("pass_at_2", [1.0, 0.0]) == 1 and reduce("at_least_2", [1.0, 0.0]) == 0
    with pytest.raises(ConfigError, match="give --epochs 3 or more"):
        check_epochs("at_least_3", 2)
    check_epochs("at_least_3", 3)
    with pytest.raises(ConfigError, match="there are 1 epochs"):
        RunSettings(reduce="pass_at_2")
    assert reduced({"a": [1.0, 0.0], "b": []}, "max") == {"a": [1.0], "b": []}
    assert reduced({"a": [1.0, 0.0]}, "mean") == {"a": [1.0, 0.0]}


def test_a_task_with_fewer_attempts_than_the_reducer_needs_has_no_score_where_others_have_them() -> None:
    several = {"a": [1.0, 0.0, 1.0], "b": [1.0, 0.0], "c": []}
    assert reduced(several, "pass_at_3") == {"a": [1.0], "b": [], "c": []}
    assert reduced(several, "at_least_2") == {"a": [1.0], "b": [0.0], "c": []}
    with pytest.raises(ConfigError, match="reduce is pass_at_4, and a task has 3 scored attempts"):
        reduced(several, "pass_at_4")
    assert reduced({"c": []}, "pass_at_4") == {"c": []}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    return tmp_path


def made(home: Path, better: float = 0.0, **about: Any) -> Run:
    """Five tasks with four attempts each by two agents, stored out of order, one of which failed."""
    run = create(home, {"seed": 0, **about.pop("config", {})}, "sums", **about)
    run.add_tasks("sums", [Task(f"t{n}", "?") for n in range(5)])
    for agent in ("ada", "zoe"):
        run.add_agent(agent, {"name": agent})
        for epoch in (2, 0, 3, 1):
            for task, values in enumerate(SCORES):
                value = min(1.0, values[epoch] + (better if agent == "zoe" else 0.0))
                failed = task == 3 and epoch == 1
                scores = () if failed else (Score("part", value),)
                error = Failure("ModelError", "gone") if failed else None
                key = f"{agent}-{task}-{epoch}"
                run.append(
                    Trace(key, "sums", f"t{task}", {"name": agent}, epoch, 0, "", 1.0, scores=scores, error=error)
                )
    return run


def test_an_agent_of_which_no_scoring_worked_counts_as_errors(home: Path) -> None:
    """As 0 where its scorer failed; where its judge gave no verdict it has no score, with and without a reducer."""
    run = create(home, {}, "some")
    for agent, failure in (("ada", None), ("bob", "the judge is away"), ("cat", "the scorer broke")):
        for epoch in (0, 1):
            scores = (Score("part", 0.5, failure=failure, unjudged=agent == "bob"),)
            run.append(Trace(f"{agent}{epoch}", "sums", "t0", {"name": agent}, epoch, 0, "", 1.0, scores=scores))
    for reduce in ("max", None):
        ada, bob, cat = sorted(summary(run, reduce=reduce), key=lambda line: line.agent)
        assert ada.score.value == 0.5 and ada.score.n == 1
        assert (bob.agent, bob.score.n, bob.errors) == ("bob", 0, 2) and math.isnan(bob.score.value)
        assert (cat.agent, cat.score.value, cat.score.n, cat.errors) == ("cat", 0.0, 1, 2)


@pytest.mark.parametrize("lost", ["a score", "the last attempts"])
def test_the_gate_counts_what_a_reducer_lacks_as_gaps(home: Path, capsys: Any, lost: str) -> None:
    """The candidate's t0 has 3 scores of 4, or 2 attempts of 4: an error by default, left out, or an attempt counts as 0."""
    runs = []
    for is_whole in (True, False):
        run = create(home, {}, "sums")
        run.add_tasks("sums", [Task(f"t{n}", "?") for n in range(2)])
        run.add_agent("ada", {"name": "ada"})
        for task in range(2):
            for epoch in range(4):
                is_lost = not is_whole and task == 0 and (epoch > 1 if lost == "the last attempts" else epoch == 3)
                scores = () if is_lost else (Score("right", float(epoch < 3)),)
                key = f"{task}-{epoch}"
                if scores or lost == "a score":
                    run.append(Trace(key, "sums", f"t{task}", {"name": "ada"}, epoch, 0, "", 1.0, scores=scores))
        runs.append(run)
    words = ["gate", runs[0].id, runs[1].id, "--reduce", "pass_at_4", "--json"]
    count = 1 if lost == "a score" else 2
    for errors, code, tasks in (("fail", 1, 1), ("drop", 4, 1), ("zero", 4, 2 if lost == "a score" else 1)):
        assert main([*words, "--errors", errors]) == code
        (check,) = json.loads(capsys.readouterr().out)["checks"]
        told = f"errors: {count} attempt{'s' if count > 1 else ''} of the candidate without a score"
        assert (check["reason"] == told) == (errors == "fail")
        assert check["tasks"] == tasks
    found = compare(*runs, reduce="pass_at_4")
    assert [pair.task_id for pair in found.pairs] == ["t1"] and found.only_a == (("sums", "t0"),)
    assert found.unscored == ({"sums": 0}, {"sums": count})
    assert scores_of(runs[1:], reduce="pass_at_4") == {"sums": {"ada": {"t1": (1.0,)}}}
    assert scores_of(runs[1:], reduce="at_least_2") == {"sums": {"ada": {"t0": (1.0,), "t1": (1.0,)}}}
    assert main([*words[:4], "pass_at_5"]) == 2 and "a task has 4 scored attempts" in capsys.readouterr().err


def test_tables_summary_comparison_and_gate_show_the_reduced_scores(home: Path, capsys: Any) -> None:
    run = made(home, 0.5)
    expected = {"mode": 2.5 / 5, "max": 4 / 5, "at_least_2": 2 / 5, "pass_at_2": (5 / 6 + 1 / 2 + 1 + 1 / 2) / 5}
    for name, mean in expected.items():
        (board,) = leaderboard(run.summaries(), reducers=reducers_of(run, name))
        row = board.row("ada")
        assert row is not None and row.score.value == pytest.approx(mean) and row.score.n == 5
        assert any(f"reduced by {name}" in each for each in caveats(board)) and board.to_json()["reduce"] == name
        line = next(each for each in summary(run, reduce=name) if each.agent == "ada")
        assert (line.score.low, line.score.high) == pytest.approx((row.score.low, row.score.high))
        for command, value in (
            ("summary", lambda found: found[0]["score"]["value"]),
            ("show", lambda found: next(each for each in found[0]["rows"] if each["agent"] == "ada")["score"]["value"]),
        ):
            assert main([command, run.id, "--reduce", name, "--json"]) == 0
            assert value(json.loads(capsys.readouterr().out)) == pytest.approx(mean)
    assert main(["compare", run.id, run.id, "--agent-a", "ada", "--agent-b", "zoe", "--reduce", "max", "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)[0]
    assert compared["benchmarks"]["sums"]["difference"] == pytest.approx(0.1)  # the fifth task alone: 0 -> 0.5
    assert {each["task"]: each["b"] for each in compared["tasks"]}["t3"] == 0.5
    assert main(["compare", run.id, "--reduce", "max", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["difference"] == pytest.approx(0.1)
    words = ["gate", run.id, run.id, "--agent-a", "zoe", "--agent-b", "ada", "--errors", "zero", "--json"]
    main([*words, "--reduce", "max"])
    (check,) = json.loads(capsys.readouterr().out)["checks"]
    assert (check["baseline"], check["candidate"], check["tasks"]) == (pytest.approx(0.9), pytest.approx(0.8), 5)
    assert check["worse_tasks"] == ["t3: 0.5 -> 0"] and check["flaky"]
    assert main([*words, "--reduce", "maximum"]) == 2 and "did you mean 'max'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_and_a_benchmark_name_their_own_reducer_and_the_flag_goes_first(home: Path, capsys: Any) -> None:
    declared = made(home, reducers={"sums": "max"})
    asked = made(home, reducers={"sums": "max"}, config={"reduce": "at_least_2"})
    assert (declared.reducer("sums"), asked.reducer("sums"), asked.reducer("sums", "mean")) == (
        "max",
        "at_least_2",
        "mean",
    )
    assert declared.reducer("other") == made(home).reducer("sums") == "mean"
    for run, mean in ((declared, 0.8), (asked, 0.4)):
        assert summary(run)[0].score.value == pytest.approx(mean)
        assert main(["show", run.id, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)[0]["rows"][0]["score"]["value"] == pytest.approx(mean)
    plain = summary(made(home))[0].score
    assert summary(declared, reduce="mean")[0].score == plain and plain.value == pytest.approx(
        (0.5 + 0.25 + 1 + 0.5) / 5
    )


def test_pass_at_k_is_still_shown_for_every_k_of_a_reduced_run(home: Path) -> None:
    run = create(home, {}, "sums", reducers={"sums": "max"})
    for epoch, value in enumerate((1.0, 0.0, 1.0, 0.0, 0.0)):
        run.append(Trace(f"a{epoch}", "sums", "t", {"name": "a"}, epoch, 0, "", 1.0, scores=(Score("right", value),)))
    (board,) = leaderboard(run.summaries(), reducers=reducers_of(run))
    found = board.rows[0].secondary
    assert {*found} == {f"pass{sign}{k}" for sign in "@^" for k in (2, 3, 4, 5)}
    assert found["pass@2"].value == pytest.approx(1 - 3 / 10) and found["pass@5"].value == 1


def test_a_benchmark_of_ones_own_declares_reducer_and_strata_in_its_file(
    home: Path, tmp_path: Path, capsys: Any
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    rows = [{"q": f"What is {n}+1?", "a": str(n + 1), "subject": "odd" if n % 2 else "even"} for n in range(4)]
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "own.toml").write_text(
        'data = "rows.json"\nprompt = "{q}"\ntarget = "{a}"\nstratum = "{subject}"\nreduce = "at_least_2"\n'
    )
    (folder / "says.json").write_text(
        json.dumps({"What is 0": "1", "What is 1": "2", "What is 2": "9", "What is 3": "9"})
    )
    words = ["run", str(folder / "own.toml"), "--model", f"scripted:{folder}/says.json", "--json"]
    assert main(words) == 2 and "at_least_2, and there are 1 epochs" in capsys.readouterr().err
    assert main([*words, "--epochs", "2"]) == 0
    body = json.loads(capsys.readouterr().out)
    (board,) = body["boards"]
    assert board["reduce"] == "at_least_2" and board["rows"][0]["score"]["value"] == 0.5
    assert board["rows"][0]["score"]["method"].startswith("stratified")
    assert main(["run", str(folder / "own.toml"), "--model", "scripted:none", "--reduce", "max1"]) == 2
    assert Benchmark("b", lambda seed: (), ()).reduce == ""


@pytest.mark.parametrize("command", ["run", "show", "summary", "compare", "gate"])
def test_the_help_of_each_command_names_every_reducer(command: str, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    told = capsys.readouterr().out
    assert [name for name in NAMES if name not in told] == ["majority"]  # another name of mode
