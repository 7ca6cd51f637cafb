"""Compares code answers with a reference solution on many inputs in the sandbox: EvalPlus's tests (Liu et al., 2023).

A task's `secret` holds `solution` (the reference's code), `entry_point`, `inputs` (for `base` and `plus` the source of
a list of argument lists), `atol` and `rule`; see `oracle.py`. It may hold `prompt`, the text that an answer completes.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from firsthand.benchmark import needing
from firsthand.errors import DataError
from firsthand.sandbox.sandbox import Outcome, Sandbox, available, shared_sandbox
from firsthand.sandbox.sandbox_limits import RunLimits
from firsthand.scorers.code import answered_code, reason
from firsthand.task import Task
from firsthand.trace import Score, Trace

LIMITS = RunLimits(wall_s=600.0, cpu_s=120.0, memory_bytes=4 * 2**30)
"""Limits for all inputs together, the reference's time included; each input has its own, max(4 s, 4 x the reference).

The slowest reference, Mbpp/599, needs about 50 s of CPU time, which takes minutes on a busy machine.
"""

LOAD_S = 30.0
"""Limit for the statements outside of functions, which run before the first input."""


@needing(available)
async def base(task: Task, trace: Trace) -> Score:
    """Score 1 if the answer's function equals the reference on every input of the original benchmark."""
    return await _scored("base", task, trace)


@needing(available)
async def plus(task: Task, trace: Trace) -> Score:
    """Score 1 if the answer's function equals the reference on the original and on EvalPlus's added inputs."""
    return await _scored("plus", task, trace)


async def _scored(which: str, task: Task, trace: Trace) -> Score:
    prompt, entry_point = str(task.secret.get("prompt", "")), str(task.secret.get("entry_point", ""))
    code = answered_code(trace.answer or "", prompt, entry_point)
    outcome = await check_against_reference(code, task, which, shared_sandbox())
    return Score(which, float(outcome.ok), {"ended": outcome.ended, **reason(outcome)})


async def check_against_reference(code: str, task: Task, which: str, sandbox: Sandbox) -> Outcome:
    """Run the code on the task's `base` inputs, or for `plus` on both kinds, and compare with the reference."""
    try:
        name, solution, inputs = (task.secret[key] for key in ("entry_point", "solution", "inputs"))
        cases = [inputs["base"], inputs["plus"]] if which == "plus" else [inputs["base"]]
    except (KeyError, TypeError) as error:
        raise DataError(f"task {task.id} has no {error} for the tests: use humaneval_plus or mbpp_plus") from None
    tests = "".join(
        f"_compare({name}, {name!r}, {solution!r}, {each!r}, {task.secret['atol']!r}, {task.secret['rule']!r})\n"
        for each in cases
    )
    return await sandbox.check(code, tests, setup=_setup(), names=(name,), load_s=LOAD_S, limits=LIMITS)


@cache
def _setup() -> str:
    """Return the oracle program bound to one name, so that its names cannot clash with an answer's."""
    text = (Path(__file__).parent / "programs" / "oracle.py").read_text(encoding="utf-8")
    names = "_compare = {'__name__': 'oracle'}"
    return f"{names}\nexec(compile({text!r}, 'oracle.py', 'exec'), _compare)\n_compare = _compare['compare_outputs']\n"
