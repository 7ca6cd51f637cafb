"""Checks predicted inputs and outputs of a function by running it in the sandbox, as CRUXEval does (Gu et al., 2024).

A task's `secret` holds `code` (which defines `f`), `output` (the source of a value) and `predict`: `input` or `output`. The
model's expression is evaluated in its own process, and only its value reaches the function.
"""

from __future__ import annotations

from firsthand.benchmark import needing
from firsthand.errors import DataError
from firsthand.sandbox.sandbox import available, shared_sandbox
from firsthand.scorers.code import LIMITS, reason
from firsthand.task import Task
from firsthand.trace import Score, Trace

_ARGUMENTS = "def f(*args, **named):\n    return [list(args), named]\n"


@needing(available)
async def assertion_holds(task: Task, trace: Trace) -> Score:
    """Score 1 if the predicted output is the function's, or the function returns its output for the predicted input."""
    secret = task.secret
    if secret.get("predict") not in ("input", "output"):
        raise DataError(f"task {task.id} predicts {secret.get('predict')!r}: input or output was expected")
    written = predicted(trace.answer or "", secret["predict"])
    answer, tests = assertion_program(written, secret["predict"], secret["output"])
    outcome = await shared_sandbox().check(answer, tests, setup=secret["code"], names=("given",), limits=LIMITS)
    return Score("assertion_holds", float(outcome.ok), {"predicted": written[:200], **reason(outcome)})


def assertion_program(written: str, predict: str, output: str) -> tuple[str, str]:
    """Return the code that gives the predicted value, and the test of it."""
    given = f"def given():\n    return (\n{written}\n)\n"
    if predict == "output":
        return given, f"assert ({output}) == given()\n"
    return _ARGUMENTS + given, f"args, named = given()\nassert ({output}) == f(*args, **named)\n"


def predicted(text: str, what: str) -> str:
    """Return the expression in an answer such as `assert f(17) == 17`: the text after `==`, or the call before it."""
    text = text.split("[ANSWER]")[1] if "[ANSWER]" in text else text
    text = text.split("[/ANSWER]")[0]
    parts = text.split("==")
    if what == "output":
        return parts[1 if len(parts) > 1 else 0].strip()
    return parts[0].split("assert")[-1].strip()
