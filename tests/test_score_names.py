"""Tests that attempts whose score has another name than the first of their benchmark are told of, and none else is."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.cli import main
from firsthand.show.board import other_names
from firsthand.trace import NOTE, Score

SCRIPT = """
from firsthand import Benchmark, Score, Task
def tasks(seed):
    return [Task(f"t{i}", f"q{i}", metadata={"topic": "ab"[i % 2]}) for i in range(4)]
def by_topic(task, trace):
    return Score(f"topic_{task.metadata['topic']}" if task.id != "t2" else "topic_a", 1.0)
def steady(task, trace):
    return (Score("steady", 1.0), Score(f"topic_{task.metadata['topic']}", 0.5))
def fails(task, trace):
    if task.id == "t1":
        raise ValueError("no")
    return Score("steady", 1.0)
def begins_ill(task, trace):
    if task.id == "t0":
        raise ValueError("no")
    return Score("steady", 1.0)
def ill(task, trace):
    raise ValueError("no")
def begun(): return Benchmark("begun", tasks, scorers=(begins_ill,), protocol="p")
def twice(): return Benchmark("twice", tasks, scorers=(ill, begins_ill), protocol="p")
def named(): return Benchmark("named", tasks, scorers=(by_topic,), protocol="p")
def good(): return Benchmark("good", tasks, scorers=(steady,), protocol="p")
def broken(): return Benchmark("broken", tasks, scorers=(fails,), protocol="p")
"""


def run(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, object], str]:
    (folder / "mine.py").write_text(SCRIPT)
    code = main(["run", f"mine.py:{name}", "--model", "scripted:echo", "--json"])
    said = capsys.readouterr()
    return code, json.loads(said.out), said.err


def test_scores_of_two_names_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    code, body, said = run(tmp_path, "named", capsys)
    text = "2 attempts without a score named topic_a counted as 0, with another one first: topic_b (2)"
    assert code == 3 and text in " ".join(said.split())
    [board] = body["boards"]  # type: ignore[misc]
    assert board["other_names"] == {"topic_b": 2} and any(text in each for each in board["caveats"])
    code, body, said = run(tmp_path, "good", capsys)
    [board] = body["boards"]  # type: ignore[misc]
    assert (code, board["other_names"]) == (0, {}) and "without a score" not in said
    code, body, said = run(tmp_path, "broken", capsys)
    [board] = body["boards"]  # type: ignore[misc]
    assert (code, board["other_names"]) == (3, {}) and "without a score" not in said

    code, body, said = run(tmp_path, "begun", capsys)
    [board] = body["boards"]  # type: ignore[misc]
    assert (code, board["metric"], board["other_names"]) == (3, "steady", {}) and "without a score" not in said
    code, body, said = run(tmp_path, "twice", capsys)
    [board] = body["boards"]  # type: ignore[misc]
    assert (code, board["metric"], board["other_names"]) == (3, "ill", {}) and "without a score" not in said


def test_scores_of_harm_and_of_people_are_left_out_of_means_and_not_told_of() -> None:
    def attempt(*scores: Score) -> Any:
        return SimpleNamespace(scores=scores)

    harm = Score("harm", 1.0, {"is_harm": True})
    found = other_names([attempt(Score("a", 1.0)), attempt(harm), attempt(Score(f"{NOTE}x", 1.0)), attempt()], "a")
    assert found == {}
    assert other_names([attempt(Score("b", 1.0), Score("a", 1.0)), attempt(Score("b", 1.0))], "a") == {"b": 1}
