"""`firsthand score` in this process: each scorer's own scores, progress, failures and an interruption."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.commands import print_run, score
from firsthand.experiment import rescore
from firsthand.experiment.rescore import Rescored
from firsthand.runs import store
from firsthand.trace import Score
from printed_tables import widen, words
from scored_runs import scored_run

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    widen(monkeypatch, print_run, score)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home [b]x"))
    return tmp_path / "home [b]x"


def test_each_scorer_gives_its_own_scores_within_what_was_asked(home: Path, cli: Cli) -> None:
    tries = {
        agent: {"sums": {"t1": [{"exact": 1.0}], "t2": [None]}, "more": {"u": [{"exact": 0.0}]}}
        for agent in ("bob", "ada")
    }
    with scored_run(home, "n", tries) as made:
        name = made.id
    code, out, _ = cli("score", name, "--with", "normalised,token_f1", "--agent", "bob", "--benchmark", "sums")
    told = words(out)
    assert code == 0 and told[0] == "sums: normalised, 2 tasks" and told[2].startswith("bob 0.00 ")
    ends = [f"scores {each!r} of {name}: 1 new, 0 kept, 0 failed, 1 attempt had ended in an error" for each in
            ("normalised", "token_f1")]  # fmt: skip
    assert [line for line in told if line.startswith("scores ")] == ends
    code, out, _ = cli("score", name, "--with", "normalised", "--json")
    body = json.loads(out)
    assert (body["scored"], body["kept"], body["skipped"], body["failed"], body["judge"]) == (3, 1, 2, 0, {})
    assert [(board["benchmark"], [row["agent"] for row in board["rows"]]) for board in body["boards"]] == [
        ("sums", ["bob", "ada"]), ("more", ["bob", "ada"])]  # fmt: skip
    code, out, _ = cli("score", name, "--with", "normalised", "--agent", "bob", "--benchmark", "more", "--as", "own")
    assert code == 0 and words(out)[0] == "more: own, 1 task"
    with store.open_run(name, home) as made:
        assert {key: value for key, value in made.score_names().items() if key != "exact"} == {
            "normalised": "normalised", "token_f1": "token_f1", "own": "normalised"}  # fmt: skip


def test_progress_of_scoring_counts_each_attempt(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    @contextmanager
    def progress(*given: Any, **more: Any) -> Iterator[Any]:
        told.append((*given, more))
        yield lambda done, note: told.append((done, note))

    monkeypatch.setattr(score, "progress", progress)
    tries = {"t1": [{"exact": 1.0}], "t2": [None]}
    with scored_run(home, "n", {"bob": {"sums": tries}, "ada": {"sums": tries}}) as made:
        name = made.id
    score.main(score.Config(name, ("normalised", "token_f1"), concurrency=1))
    score.main(score.Config(name, ("token_f1",), as_="x", agent="ada", json=True))
    each = [(1, "bob t1"), (2, "ada t1")]
    assert told == [
        ("normalised", 4, {"shown": True}), *each, ("token_f1", 4, {"shown": True}), *each,
        ("token_f1", 4, {"shown": False}), (1, "ada t1"),
    ]  # fmt: skip


def test_scores_that_failed_are_the_exit_status_and_an_interruption_is_told(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Score("j", 0.0, {}, failure="no\nverdict")
    worse = Score("j", 0.0, {}, failure="worse")
    tries = {
        "ada": {
            "sums": {
                "t1": [{"exact": 1.0, "j": broken}],
                "t2": [{"exact": 1.0}],
                "t3": [{"j": 0.5, "exact": 1.0}],
                "t4": [{"j": worse}],
            }
        }
    }
    with scored_run(home, "n", tries) as made:
        found = Rescored("j", 2, 1, 3, 4)
        config = score.Config(made.id, ("j",))
        assert score.reported(made, found, config)[1] == 2
        out = capsys.readouterr().out.splitlines()
        assert out[0] == "sums: j, 3 tasks"
        assert out[-3:] == [
            f"scores    'j' of {made.id}: 2 new, 1 kept, 3 failed, 4 attempts had ended in an error",
            "first error: no verdict", "retry     the same command with --retry-errors",
        ]  # fmt: skip
        assert score.reported(made, replace(found, name="none"), config)[1] == 0
        assert capsys.readouterr().out.splitlines()[0] == "No attempt has such a score."
        body, failed = score.reported(made, found, replace(config, json=True))
        assert failed == 2 and (body["run"], body["name"], body["scored"]) == (made.id, "j", 2)
        assert capsys.readouterr().out == "", "the command prints it, with those of its other scorers"
        assert score.reported(made, found, replace(config, agent="nobody"))[1] == 0
        name = made.id
    capsys.readouterr()
    counts = iter([({"name": "a"}, 1), ({"name": "b"}, 0), ({"name": "a"}, 0), ({"name": "b"}, 0), ({"name": "c"}, 0)])
    monkeypatch.setattr(score, "reported", lambda *given: next(counts))
    assert score.main(score.Config(name, ("token_f1", "normalised"))) == 3, "one that failed is enough"
    capsys.readouterr()
    assert score.main(score.Config(name, ("token_f1", "normalised"), json=True)) == 0
    assert json.loads(capsys.readouterr().out) == [{"name": "a"}, {"name": "b"}], "one JSON text of all scorers"
    assert score.main(score.Config(name, ("token_f1",), json=True)) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "c"}

    def interrupted(work: Any) -> Any:
        work.close()
        raise KeyboardInterrupt

    monkeypatch.setattr(score.interruption, "run", interrupted)
    assert score.main(score.Config(name, ("token_f1",))) == 130
    assert capsys.readouterr().err == "firsthand: interrupted; new scores are kept: the same command continues\n"


def test_every_flag_of_scoring_reaches_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    async def scored(run: Any, scorer: Any, **more: Any) -> Rescored:
        asked.append((run.id, more.pop("on_score") is not None, more))
        return Rescored(more["name"] or "n", 0, 0, 0, 0)

    monkeypatch.setattr(rescore, "rescore", scored)
    with scored_run(home, "n", {"ada": {"sums": {"t1": [{"exact": 1.0}]}}}) as made:
        name = made.id
    flags: dict[str, Any] = {"agent": "ada", "benchmark": "sums", "concurrency": 3}
    given = score.Config(name, ("token_f1",), as_="own", retry_errors=True, json=True, **flags)
    assert score.main(given) == 0
    assert score.main(score.Config(name, ("normalised",), json=True)) == 0
    judge: Any = SimpleNamespace(described="by its rubric")
    monkeypatch.setattr(score.catalog, "scorer", lambda text: judge)
    assert score.main(score.Config(name, ("own",), json=True)) == 0
    assert asked.pop()[2]["described"] == "", "a scorer that tells itself what it is is not named by its words"
    plain = {"name": "", "described": "normalised", "agent": None, "benchmark": None, "redo_errors": False}
    assert asked == [
        (name, True, {"name": "own", "described": "token_f1", "redo_errors": True, **flags}),
        (name, True, {**plain, "concurrency": score.Config.concurrency}),
    ]  # fmt: skip
