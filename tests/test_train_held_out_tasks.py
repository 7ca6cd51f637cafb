"""Tasks that reinforcement holds out: the last ones, and nothing that is trained on asks the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from firsthand.errors import ConfigError
from firsthand.train.reinforcement import _tasks
from firsthand.train.rollout_settings import RolloutSettings

ALIKE = """
from firsthand.benchmark import Benchmark
from firsthand.message import system
from firsthand.task import Task

class Room:
    tools = ()

def bench(tasks, environment=None):
    return Benchmark("own", lambda seed: [Task(str(i), *a, secret={"n": i}, **k) for i, (a, k) in enumerate(tasks)],
                     scorers=(), environment=environment)

def asked(*letters):
    return [((each,), {}) for each in letters]

def repeated():
    return bench(asked("a", "b", "a", "c", "d", "a", "d"))

def same():
    return bench(asked("a", "b", "a", "b"))

def rooms():
    return bench(asked("a", "b", "a", "a"), lambda task: Room())

def kinds():
    return bench([(("q",), {}), (("q", ("x", "y")), {}), (("q", ("y", "x")), {}), (("q",), {"context": "c"}),
                  (("q",), {"conversation": (system("s"),)}), (("q",), {"metadata": {"m": 1}}),
                  (("q",), {"requests": (("a", "b"),)}), (("q",), {"hint": "h"}), (("q",), {})])
"""


@pytest.mark.parametrize(
    ("name", "count", "trained_on", "told"),
    [
        ("repeated", 0, "0123456", ""), ("repeated", 1, "01235", "own: 1 task not trained on"),
        ("repeated", 2, "13", "own: 3 tasks not trained on"), ("repeated", 4, "1", "own: 2 tasks not trained on"),
        ("rooms", 1, "012", "own: 1 of 1 held-out tasks have a prompt that is trained on with other environments"),
        ("rooms", 3, "0", "own: 2 of 3 held-out tasks have a prompt"),
        ("kinds", 1, "123456", "own: 2 tasks not trained on, since a held-out task asks the same\n"
         "own: 1 of 1 held-out tasks have a prompt that is trained on with other metadata\n"),
    ],
)  # fmt: skip
def test_no_task_is_trained_on_that_asks_what_a_held_out_one_asks(
    name: str, count: int, trained_on: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "alike.py").write_text(ALIKE)
    _, tasks, held_out = _tasks(f"{tmp_path / 'alike.py'}:{name}", RolloutSettings(held_out=count, prompts=1), 0)
    everything = [str(at) for at in range({"repeated": 7, "rooms": 4, "kinds": 9}[name])]
    assert "".join(each.id for each in tasks) == trained_on
    assert [each.id for each in held_out] == everything[len(everything) - count :]
    shown = capsys.readouterr().out
    assert shown.startswith(told) and bool(shown) is bool(told)


def test_held_out_tasks_that_ask_all_there_is_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "alike.py").write_text(ALIKE)
    with pytest.raises(ConfigError) as refused:
        _tasks(f"{tmp_path / 'alike.py'}:same", RolloutSettings(held_out=2), 0)
    assert str(refused.value) == (
        "held_out is 2, and all other tasks of own ask what one of these asks (2 different questions): hold out fewer, or "
        "give a benchmark of more questions"
    )
    assert capsys.readouterr().out == ""
    _, tasks, _ = _tasks(f"{tmp_path / 'alike.py'}:same", RolloutSettings(held_out=1, prompts=3), 0)
    assert [each.id for each in tasks] == ["0", "2"]
    assert capsys.readouterr().out == (
        "own: 1 task not trained on, since a held-out task asks the same\n"
        "own has 2 tasks to train on, and prompts is 3: a round of rollouts asks at most 2\n"
    )
