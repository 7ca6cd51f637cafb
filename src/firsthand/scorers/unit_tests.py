"""Runs unittest cases on code answers in the sandbox, as BigCodeBench does (Zhuo et al., 2024).

A task's `secret` holds `tests` (a file with the class `TestCases`) and may hold `solution` (the reference), `before` (code
prepended to an answer), `entry_point` and `needs` (the modules that tests and prompt import). If the reference itself fails
here, say because a library is missing, the score is an error that says so: it tells nothing about the answer.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from firsthand.benchmark import needing
from firsthand.errors import DataError
from firsthand.patterns.parts.python_source import joined_source
from firsthand.sandbox.sandbox import PACKAGES, Outcome, Sandbox, available, shared_sandbox
from firsthand.sandbox.sandbox_limits import RunLimits
from firsthand.scorers.code import answered_code, reason
from firsthand.task import Task
from firsthand.trace import Score, Trace

LIMITS = RunLimits(
    wall_s=240.0,
    cpu_s=240.0,
    memory_bytes=8 * 2**30,
    processes=256,
    open_files=512,
    file_bytes=256 * 2**20,
    scratch_bytes=256 * 2**20,
)


PARTS = (
    "unit_cases", "unit_shared", "unit_libraries", "unit_operators", "unit_probes", "unit_values", "unit_runner",
)  # fmt: skip


@needing(available)
async def passes_unit_tests(task: Task, trace: Trace) -> Score:
    """Score 1 if the code in the answer passes all of the task's unittest cases in the sandbox."""
    prompt, entry_point = str(task.secret.get("prompt", "")), str(task.secret.get("entry_point", ""))
    code = answered_code(trace.answer or "", prompt, entry_point)
    sandbox = shared_sandbox()
    outcome = await run_unit_tests(code, task, sandbox)
    if not outcome.ok:
        await check_reference(task, sandbox)
    return Score("passes_unit_tests", float(outcome.ok), {"ended": outcome.ended, **reason(outcome)})


async def run_unit_tests(code: str, task: Task, sandbox: Sandbox) -> Outcome:
    """Run the task's tests on this code."""
    tests = task.secret.get("tests")
    if not isinstance(tests, str):
        raise DataError(f"task {task.id} has no tests: secret['tests'] holds {str(tests)[:60]!r}, code was expected")
    files = {"answer.py": joined_source(str(task.secret.get("before", "")), f"{code}\n")}
    return await sandbox.python(runner(), stdin=tests, files=files, limits=LIMITS, ours=True, name="<tests>")


async def check_reference(task: Task, sandbox: Sandbox) -> None:
    """Raise DataError with the reason if the task has a reference solution, and it does not pass here itself."""
    solution = str(task.secret.get("solution", ""))
    if not solution or (outcome := await run_unit_tests(solution, task, sandbox)).ok:
        return
    missing = await lacking(task.secret.get("needs", ()), sandbox)
    if missing:
        raise DataError(
            f"{task.id} needs {', '.join(missing)}, which the sandbox lacks: set {PACKAGES} to a virtual "
            "environment that has it"
        )
    words = reason(outcome)["reason"]
    raise DataError(f"{task.id} cannot be scored here: its reference solution fails in this sandbox ({words})")


async def lacking(modules: Iterable[str], sandbox: Sandbox) -> list[str]:
    """Return the modules that code in the sandbox cannot import."""
    code = (
        "import importlib.util, json, sys\n"
        "print(json.dumps([n for n in json.load(sys.stdin) if importlib.util.find_spec(n) is None]))"
    )
    outcome = await sandbox.python(code, stdin=json.dumps(sorted(modules)))
    return [str(name) for name in json.loads(outcome.stdout)] if outcome.ok else []


@cache
def runner() -> str:
    """Return the program that runs the cases: its files joined into one, since it imports nothing of ours in the sandbox."""
    folder = Path(__file__).parent / "programs"
    texts = [(folder / f"{name}.py").read_text(encoding="utf-8") for name in PARTS]
    return "from __future__ import annotations\n" + "".join(without_imports_of_ours(text) for text in texts)


def without_imports_of_ours(text: str) -> str:
    """Return a program without its imports from firsthand and `__future__`."""
    lines = text.splitlines(keepends=True)
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] in ("firsthand", "__future__"):
            at = slice(node.lineno - 1, node.end_lineno)
            lines[at] = [""] * len(lines[at])
    return "".join(lines)
