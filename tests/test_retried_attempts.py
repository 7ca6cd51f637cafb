"""Attempts that were made again after an error are counted, and every table says so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from firsthand.boards.read_results import read_results
from firsthand.commands import compare as compare_command
from firsthand.commands import gate as gate_command
from firsthand.commands import show as show_command
from firsthand.commands import summary as summary_command
from firsthand.runs.retried_attempts import Retried, retried_text
from firsthand.runs.store import Run, create
from firsthand.stats.run_summary import summary
from firsthand.studio.views.run_views import boards_of
from firsthand.task import Task
from firsthand.trace import Failure, Score, Trace

TOLD = "Made again after an error, up to 3 times: 2 attempts of flaky"


@dataclass
class Stored:
    run: Run
    count: int = 0

    def attempt(self, agent: str, task: int, value: float | None, epoch: int = 0) -> None:
        """One more try; None is an error."""
        self.count += 1
        scores = () if value is None else (Score("exact", value),)
        failed = Failure("ValueError", "not confident") if value is None else None
        key = f"k{self.count}"
        place = f"b/t{task}/{agent}/{epoch}"
        trace = Trace(
            key, "b", f"t{task}", {"name": agent}, epoch, 0, "", 1.0, scores=scores, error=failed, place=place
        )
        self.run.append(trace)


def stored(home: Path, name: str = "r", *, again: bool = True) -> Run:
    run = create(home, {}, name)
    run.add_tasks("b", [Task(f"t{n}", f"question {n}") for n in range(4)])
    made = Stored(run)
    for agent in ("flaky", "sound"):
        run.add_agent(agent, {"name": agent})
        for n in range(4):
            made.attempt(agent, n, 1.0 if agent == "sound" or n > 1 or not again else None)
    for n, tries in ((0, 3), (1, 1)) if again else ():
        for left in reversed(range(tries)):
            made.attempt("flaky", n, None if left else 1.0)
    return run


def test_tries_after_an_error_are_counted_and_others_are_not(tmp_path: Path) -> None:
    run = stored(tmp_path)
    assert run.retried() == {("b", "flaky"): Retried(2, 3)}
    assert stored(tmp_path, "once", again=False).retried() == {}
    Stored(run, 50).attempt("sound", 0, 0.0)  # a second try of what did not fail
    assert run.retried() == {("b", "flaky"): Retried(2, 3)}
    Stored(run, 60).attempt("sound", 2, None)
    assert run.retried() == {("b", "flaky"): Retried(2, 3)}, "a failure that nothing came after"
    Stored(run, 70).attempt("sound", 2, 1.0)
    assert run.retried()["b", "sound"] == Retried(1, 1)


def test_the_sentence() -> None:
    best = " Where errors depend on the answer, the score is that of the best try."
    assert retried_text({}) == retried_text({"a": Retried()}) == ""
    assert (
        retried_text({"a": Retried(1, 1), "b": Retried()}) == f"Made again after an error, once: 1 attempt of a.{best}"
    )
    assert retried_text({"a": Retried(1, 2)}).startswith("Made again after an error, up to 2 times: ")
    told = "Made again after an error, up to 4 times: 2 attempts of a, 1 attempt of b."
    assert retried_text({"a": Retried(2, 2), "b": Retried(1, 4)}) == told + best


def test_show_summary_and_the_studio_say_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    run, plain = stored(tmp_path), stored(tmp_path, "plain", again=False)
    for each, count in ((run, 1), (plain, 0)):
        assert show_command.main(show_command.Config(str(each.path))) == 0
        assert " ".join(capsys.readouterr().out.split()).count(TOLD) == count
        assert summary_command.main(summary_command.Config(str(each.path))) == 0
        assert capsys.readouterr().out.count(TOLD) == count
    assert show_command.main(show_command.Config(str(run.path), json=True)) == 0
    (board,) = json.loads(capsys.readouterr().out)
    assert {row["agent"]: row["retried"] for row in board["rows"]} == {
        "flaky": {"attempts": 2, "most": 3}, "sound": {"attempts": 0, "most": 0},
    }  # fmt: skip
    (made,), _ = boards_of(run)
    assert [each for each in made.to_json()["caveats"] if TOLD in each]
    assert [line.to_json()["retried"]["attempts"] for line in summary(run)] == [2, 0]


def test_another_benchmark_of_the_agent_has_none(tmp_path: Path) -> None:
    run = stored(tmp_path)
    run.add_tasks("c", [Task("t0", "?")])
    run.append(Trace("c", "c", "t0", {"name": "flaky"}, 0, 0, "", 1.0, scores=(Score("exact", 1.0),), place="c/t0"))
    boards, _ = boards_of(run)
    found = {each.benchmark: row.retried for each in boards for row in each.rows if row.agent == "flaky"}
    assert found == {"b": Retried(2, 3), "c": Retried()}
    assert {line.benchmark: line.retried.attempts for line in summary(run) if line.agent == "flaky"} == {"b": 2, "c": 0}
    assert [each[:2] for each in read_results([run.path], tmp_path).remarks] == ["b,"]


def test_boards_comparisons_and_gates_say_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    run, plain = stored(tmp_path), stored(tmp_path, "plain", again=False)
    remarks = read_results([run.path, plain.path], tmp_path).remarks
    assert [each for each in remarks if each.startswith(f"b, {run.id}: {TOLD}.")] == list(remarks)
    sides = (str(plain.path), str(run.path))
    assert compare_command.main(compare_command.Config(sides)) == 0
    told = f"Made again after an error, up to 3 times: 2 attempts of {run.id}/flaky at b."
    assert capsys.readouterr().out.count(told) == 1
    assert compare_command.main(compare_command.Config(sides, json=True)) == 0
    flaky = next(each for each in json.loads(capsys.readouterr().out) if each["b"].endswith("flaky"))
    assert flaky["retried"] == {"a": {}, "b": {"b": {"attempts": 2, "most": 3}}}
    gate_command.main(gate_command.Config(*sides))
    assert capsys.readouterr().out.count("up to 3 times: 2 attempts of the candidate. Where errors") == 1
    gate_command.main(gate_command.Config(*sides, json=True))
    check = next(each for each in json.loads(capsys.readouterr().out)["checks"] if each["agent"] == "flaky")
    assert check["retried"]["candidate"]["attempts"] == 2 and check["retried"]["baseline"]["most"] == 0
