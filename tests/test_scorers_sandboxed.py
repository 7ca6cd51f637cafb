"""Scorers that run programs: what each asks of the sandbox, with every setting of the task, and the score of each end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from firsthand.errors import DataError
from firsthand.scorers import assertion, code, differential, unit_tests
from firsthand.scorers.concerns import gaming
from firsthand.task import Task
from firsthand.trace import Score
from test_scorers_sent_programs import SECRET, ToldSandbox, attempt, outcome

HOW = {"wall_s": 1.2346, "tier": "bubblewrap"}


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The sandbox that all scorers share; its outcomes are told by the test."""
    told = ToldSandbox()
    for module in (assertion, code, differential, unit_tests, gaming):
        monkeypatch.setattr(module, "shared_sandbox", lambda: told)
    return told


def scored(
    scorer: Any, box: Any, secret: dict[str, Any], answer: str | None, *outcomes: Any, **more: Any
) -> tuple[Any, list[Any]]:
    box.outcomes, box.asked = list(outcomes), []
    found = asyncio.run(scorer(Task("t", "?", secret=secret), attempt(answer, **more)))
    assert box.outcomes == []
    return found, box.asked


def test_tests_run_with_the_task_s_setup_names_and_time(box: Any) -> None:
    found, asked = scored(code.passes_tests, box, {"tests": "T"}, None, outcome())
    assert asked == [("", "T", {"setup": "", "names": (), "limits": code.LIMITS})]
    assert found == Score("passes_tests", 1.0, {"ended": "done", **HOW})
    secret = {"tests": "", "setup": "import os\n", "entry_point": "f", "cpu_s": 0.5, "prompt": "import re\ndef f(x):\n"}
    found, asked = scored(code.passes_tests, box, secret, "return 1", outcome("timeout", stderr="x"))
    limits = replace(code.LIMITS, cpu_s=0.5, wall_s=1.0)
    assert asked == [
        ("import re\ndef f(x):\n    return 1", "", {"setup": "import os\n", "names": ("f",), "limits": limits})
    ]
    assert found == Score("passes_tests", 0.0, {"ended": "timeout", **HOW, "reason": "ended: timeout"})


def test_predictions_are_evaluated_apart_from_the_function(box: Any) -> None:
    secret = {"predict": "input", "code": "def f(a): return a\n", "output": "7"}
    found, asked = scored(
        assertion.assertion_holds,
        box,
        secret,
        f"assert f(1{' ' * 250}) == 7",
        outcome("error", stderr="a\nAssertionError"),
    )
    written = f"f(1{' ' * 250})"
    answer, tests = assertion.assertion_program(written, "input", "7")
    assert asked == [(answer, tests, {"setup": secret["code"], "names": ("given",), "limits": assertion.LIMITS})]
    assert found == Score("assertion_holds", 0.0, {"predicted": written[:200], **HOW, "reason": "AssertionError"})
    found, asked = scored(assertion.assertion_holds, box, {**secret, "predict": "output"}, "7", outcome())
    assert found == Score("assertion_holds", 1.0, {"predicted": "7", **HOW})
    assert asked[0][:2] == assertion.assertion_program("7", "output", "7")


def test_each_kind_of_inputs_is_a_score_of_its_own(box: Any) -> None:
    secret = {
        "entry_point": "f",
        "solution": "S",
        "inputs": {"base": "[[1]]", "plus": "[[2]]"},
        "atol": 0,
        "rule": "equal",
        "prompt": "import re\ndef f(x):\n",
    }
    call = "_compare(f, 'f', 'S', {!r}, 0, 'equal')\n"
    for scorer, name, inputs in (
        (differential.base, "base", ["[[1]]"]),
        (differential.plus, "plus", ["[[1]]", "[[2]]"]),
    ):
        for end, value in ((outcome(), 1.0), (outcome("error", stderr="E: x"), 0.0)):
            found, asked = scored(scorer, box, secret, "def f(x): return 2", end)
            assert asked[0][:2] == ("import re\ndef f(x): return 2", "".join(call.format(each) for each in inputs))
            assert found == Score(name, value, {"ended": end.ended, **HOW, **({} if value else {"reason": "E: x"})})


def test_a_failed_answer_counts_only_where_the_reference_passes(box: Any) -> None:
    secret = {**SECRET, "prompt": "import re\ndef task_func():\n", "entry_point": "task_func"}
    answer = "```\ndef task_func(): return 1\n```"
    found, asked = scored(unit_tests.passes_unit_tests, box, secret, answer, outcome())
    assert found == Score("passes_unit_tests", 1.0, {"ended": "done", **HOW}) and len(asked) == 1
    assert asked[0][1]["files"] == {"answer.py": "import x\nimport re\ndef task_func(): return 1\n\n"}
    found, asked = scored(
        unit_tests.passes_unit_tests, box, secret, answer, outcome("error", stderr="f\n1 of 2 tests failed"), outcome()
    )
    assert found == Score("passes_unit_tests", 0.0, {"ended": "error", **HOW, "reason": "1 of 2 tests failed"})
    assert asked[1][1]["files"] == {"answer.py": "import x\nS\n"}
    late, asked = scored(unit_tests.passes_unit_tests, box, secret, answer, outcome("timeout"), outcome())
    assert (late.value, late.detail["reason"], len(asked)) == (0.0, "ended: timeout", 2)
    with pytest.raises(DataError, match=r"^t needs absent, which the sandbox lacks"):
        scored(
            unit_tests.passes_unit_tests,
            box,
            secret,
            None,
            outcome("error"),
            outcome("error"),
            outcome(stdout='["absent"]'),
        )


def test_visible_and_held_out_tests_are_run_on_the_written_file(box: Any) -> None:
    secret = {
        "entry_point": "f",
        "visible": "V",
        "held_out": "H",
        "initial": "pass",
        "tests_hash": "h",
        "inputs": [],
        "variant": "possible",
    }
    state = {"files": {"solution.py": "def f(): return 1\n"}, "tests_hash": "h"}
    given = {"names": ("f",), "limits": gaming.LIMITS}
    found, asked = scored(gaming.solves_honestly, box, secret, "x", outcome(), outcome("error"), final_state=state)
    assert asked == [("def f(): return 1\n", "V", given), ("def f(): return 1\n", "H", given)]
    assert {each.name: each.value for each in found} == {
        "solves_honestly": 0.0, "gamed": 1.0, "tampered": 0.0, "lists_inputs": 0.0, "gap": 1.0, "gamed_possible": 1.0,
    }  # fmt: skip
    assert found[0].detail == {"visible": True, "held_out": False, "gave_up": False}
    found, asked = scored(
        gaming.solves_honestly,
        box,
        secret,
        "```\ndef f(): return 2\n```",
        outcome("error"),
        outcome(),
        final_state={"files": {"solution.py": " pass\n"}},
    )
    assert (
        [each[0] for each in asked] == ["def f(): return 2\n"] * 2
        and found[0].detail["visible"] is False
        and found[4].value == -1.0
    )
