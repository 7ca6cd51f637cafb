"""Runs tests on code answers in the sandbox, and estimates pass@k and pass^k.

A task's `secret` holds `tests` (Python that raises if the answer is wrong), and may hold `setup` (code that the tests need
besides the answer) and `cpu_s` (seconds of CPU time; 5 by default). A run that fails or does not finish scores 0, with the
reason in the score's detail. A missing or broken sandbox is an error, not a 0: it says nothing about the answer.
"""

from __future__ import annotations

import ast
import math
import re
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from firsthand.benchmark import needing
from firsthand.errors import ConfigError, DataError
from firsthand.patterns.parts.fenced_code import fenced_code
from firsthand.patterns.parts.parsed_python import parsable
from firsthand.patterns.parts.python_source import BYTE_ORDER_MARK, joined_source, last_defining
from firsthand.sandbox.sandbox import Outcome, available, shared_sandbox
from firsthand.sandbox.sandbox_limits import RunLimits
from firsthand.task import Task
from firsthand.trace import Score, Trace

MAX_CHARS = 50_000
"""A longer completion follows the prompt as it is: whether it has to be indented is not tried."""
LIMITS = RunLimits(wall_s=10.0, cpu_s=5.0)
LANGUAGES = ("", "python", "py", "python3", "py3", "ipython", "ipython3")
"""The words after an opening fence that mean Python."""
STOPS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(")
"""Stop strings that end a completion, as in Chen et al. (2021)."""
MAX_STOPS = 20
"""The most stop strings of one answer at which a body without indent is tried."""
_STOP = re.compile("|".join(map(re.escape, STOPS)))
_FIRM_STOP = re.compile(r"\n(?:class |def |print\(|if __name__)")


@needing(available)
async def passes_tests(task: Task, trace: Trace) -> Score:
    """Score 1 if the code in the answer passes the task's tests in the sandbox."""
    tests = task.secret.get("tests")
    if not isinstance(tests, str):
        raise DataError(
            f"task {task.id} has no tests: secret['tests'] holds {str(tests)[:60]!r}, and code was expected"
        )
    prompt, entry_point = str(task.secret.get("prompt", "")), str(task.secret.get("entry_point", ""))
    code = answered_code(trace.answer or "", prompt, entry_point)
    setup, names = str(task.secret.get("setup", "")), (entry_point,) if entry_point else ()
    cpu_s = float(task.secret.get("cpu_s", LIMITS.cpu_s))
    limits = replace(LIMITS, cpu_s=cpu_s, wall_s=2 * cpu_s)
    outcome = await shared_sandbox().check(code, tests, setup=setup, names=names, limits=limits)
    return Score("passes_tests", float(outcome.ok), {"ended": outcome.ended, **reason(outcome)})


def answered_code(answer: str, prompt: str = "", entry_point: str = "") -> str:
    """Return the program in an answer: its fenced code, its text, or the prompt completed by it.

    Of several fenced blocks the last that defines `entry_point` counts, else the last that imports it. The prompt's code
    before that function (imports, helpers) comes before it, since an answer may use it.
    """
    answer = answer.removeprefix(BYTE_ORDER_MARK)
    blocks = [each.code.removeprefix(BYTE_ORDER_MARK) for each in fenced_code(answer) if each.language in LANGUAGES]
    found = last_defining(blocks or [answer], entry_point)
    code = (blocks or [answer])[-1] if found is None else found
    if found is not None or not prompt:
        return joined_source(preamble(prompt, entry_point), code)
    completion = _up_to_stop(code)
    if len(completion) > MAX_CHARS:
        return prompt + completion
    # Patterns strip answers, and chat models often dedent a body: the first candidate that is the function's body counts.
    bodies = (*_dedented(code), "    " + completion, textwrap.indent(completion, "    "))
    candidates = (prompt + each for each in ((completion, *bodies) if _has_code(completion) else bodies))
    return next((each for each in candidates if _ends_in_function(each, entry_point)), prompt + completion)


def preamble(prompt: str, entry_point: str) -> str:
    """Return a prompt's code before the requested function: imports and helpers."""
    found = re.search(rf"^(?:async )?def {re.escape(entry_point)}\b", prompt, re.MULTILINE) if entry_point else None
    return prompt[: found.start()] if found else ""


def reason(outcome: Outcome) -> dict[str, object]:
    """Return why a run did not pass, for the score's detail: the last line of stderr, and the resources used."""
    detail: dict[str, object] = {"wall_s": round(outcome.wall_s, 4), "tier": outcome.tier}
    if not outcome.ok:
        words = outcome.stderr.strip().rpartition("\n")[2][:300]
        detail["reason"] = words if outcome.ended == "error" and words else f"ended: {outcome.ended}"
    return detail


def parsed(code: str) -> ast.Module:
    """Parse a dataset's code without Python's warnings about it; raises as `ast.parse` does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(code)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Estimate pass@k, that one of `k` samples passes, from `c` of `n`: 1 - C(n-c, k) / C(n, k) (Chen et al., 2021)."""
    _check_counts(n, c, k)
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def pass_hat_k(n: int, c: int, k: int) -> float:
    """Estimate pass^k, that all of `k` samples pass, from `c` of `n`: C(c, k) / C(n, k) (Yao et al., 2024)."""
    _check_counts(n, c, k)
    return math.comb(c, k) / math.comb(n, k)


def _check_counts(n: int, c: int, k: int) -> None:
    if not (0 <= c <= n and 1 <= k <= n):
        raise ConfigError(
            f"{c} passes of {n} samples, k = {k}: 0 <= passes <= samples and 1 <= k <= samples was expected"
        )


def _ends_in_function(code: str, name: str) -> bool:
    last = _last_statement(code)
    return isinstance(last, ast.FunctionDef | ast.AsyncFunctionDef) and name in ("", last.name)


def _dedented(code: str) -> Iterator[str]:
    """Yield a body that has lost its indent, indented again: up to a stop string that nothing of it can run after.

    An `if` or a comment of such a body looks like a stop string. One that may end without `return` or `raise` goes on to
    the next class, function, `print` or `if __name__`, which few bodies have at their first level.
    """
    ends = [found.start() for found in islice(_STOP.finditer(code), MAX_STOPS)]
    bodies = (textwrap.indent(code[:end], "    ") for end in (*ends, len(code)))
    yield from islice((each for each in bodies if _never_goes_on(each)), 1)
    found = _FIRM_STOP.search(code)
    yield textwrap.indent(code[: found.start() if found else len(code)], "    ")


def _has_code(text: str) -> bool:
    return any(line.strip() and not line.lstrip().startswith("#") for line in text.split("\n"))


def _never_goes_on(body: str) -> bool:
    """Return whether a function's body is one, and its last statement always leaves it."""
    function = _last_statement(f"async def f():\n{body}")
    try:
        return isinstance(function, ast.AsyncFunctionDef) and _leaves(function.body[-1])
    except RecursionError:  # a thousand of `elif`
        return False


def _leaves(statement: ast.stmt) -> bool:
    """Return whether nothing after a statement can run."""
    match statement:
        case ast.Return() | ast.Raise():
            return True
        case ast.If(body=body, orelse=[*_, last]):
            return _leaves(body[-1]) and _leaves(last)
        case ast.While(test=ast.Constant(value=True)):
            return not any(isinstance(each, ast.Break) for each in ast.walk(statement))
        case ast.Try(body=body, handlers=handlers, orelse=others):
            return all(_leaves(each[-1]) for each in (others or body, *(handler.body for handler in handlers)))
    return False


def _last_statement(code: str) -> ast.stmt | None:
    try:
        body = ast.parse(parsable(code)).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return body[-1] if body else None


def _up_to_stop(completion: str) -> str:
    ends = [at for stop in STOPS if (at := completion.find(stop)) >= 0]
    return completion[: min(ends)] if ends else completion
