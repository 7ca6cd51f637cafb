"""Sandboxed program that compares an answer's outputs with a reference solution's (EvalPlus, Liu et al., 2023).

Its text is sent as the setup of `Sandbox.check`, so it is standard library only and imports nothing of ours. The reference
runs in the tests' process, so an answer sees neither the reference nor its outputs. The rules are those of EvalPlus 0.3:
outputs are equal, or close where floats or a tolerance are expected, and a few problems have their own rules.
"""

from __future__ import annotations

import copy
import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

MIN_LIMIT_S = 4.0
LIMIT_FACTOR = 4.0
WAIT_S = 60.0
"""Seconds for all inputs together, beside what slow references and large outputs add. EvalPlus has 60 s in all."""
LARGE = 1000
RELATIVE = 1e-7
NAMES = {"inf": math.inf, "nan": math.nan, "set": set, "__builtins__": {}}


def compare_outputs(answer: Callable[..., Any], name: str, reference: str, inputs: str, atol: float, rule: str) -> None:
    """Call `answer` on every input; AssertionError or TimeoutError on the first output that is wrong or late.

    `reference` is code that defines the right function `name`, and `inputs` the source of a list of argument lists.
    `rule` is one of `equal`, `root`, `set`, `not_none`, `any`, `zero_or_equal`, `pyramid`, `digits`.
    """
    cases = eval(inputs, dict(NAMES))
    namespace: dict[str, Any] = {"__name__": "reference"}
    with _undisturbed():
        exec(compile(reference, "<reference>", "exec", dont_inherit=True), namespace)
    signal.signal(signal.SIGALRM, _late)
    left_s = WAIT_S
    for index, case in enumerate(cases):
        began = (
            time.process_time()
        )  # the answer can stop this process, or load the machine: the clock on the wall runs on
        with _undisturbed():
            expected = namespace[name](*copy.deepcopy(case))
        reference_s, transfer_s = LIMIT_FACTOR * (time.process_time() - began), LIMIT_FACTOR * passing_s(expected)
        left_s += reference_s + transfer_s
        limit_s = max(MIN_LIMIT_S, reference_s) + transfer_s
        called = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, min(limit_s, left_s))
        try:
            output = _called(answer, case, rule)
        except TimeoutError:
            late = (
                f"no output within {limit_s:.1f} s" if limit_s <= left_s else "the time for all inputs together is over"
            )
            raise TimeoutError(f"input {index}, {_short(case)}: {late}") from None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        left_s = max(0.001, left_s - (time.perf_counter() - called))  # 0 would be no limit
        if atol == 0 and rule != "root" and floats(expected):
            atol = 1e-6  # as in EvalPlus, also for the inputs after this one
        if not right(output, expected, case, atol, rule):
            raise AssertionError(f"input {index}, {_short(case)}: gave {_short(output)}, not {_short(expected)}")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold back signals that raise an error: an answer may send them, and a reference catch the error and go on wrong."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def passing_s(output: Any) -> float:
    """Return the seconds that a large output takes between the two processes, to be added to the limit; 0 if small."""
    if not isinstance(output, list | tuple | set | dict) or len(output) < LARGE:
        return 0.0
    import passed_values  # type: ignore[import-not-found]  # of the program that runs this one

    began = time.process_time()
    with suppress(TypeError):
        passed_values.decode(json.loads(json.dumps(passed_values.encode(output))))
    return time.process_time() - began


def _called(answer: Callable[..., Any], case: list[Any], rule: str) -> Any:
    try:
        return answer(*copy.deepcopy(case))
    except TypeError as error:
        if rule == "not_none" and "is no plain value" in str(error):  # such as a match: it is not None
            return ...
        raise


def right(output: Any, expected: Any, case: list[Any], atol: float, rule: str) -> bool:
    """Return whether the output is right by its problem's rule. An output that cannot be compared is wrong."""
    try:
        return _judged(output, expected, case, atol, rule)
    except Exception:
        return False


def _judged(output: Any, expected: Any, case: list[Any], atol: float, rule: str) -> bool:
    if rule == "root":  # HumanEval/32: any root of the polynomial; where the reference finds none, its output
        value = sum(factor * math.pow(output, power) for power, factor in enumerate(case[0]))
        return bool(abs(value) <= atol or output == expected)
    same: bool
    if rule == "set":
        same = set(output) == set(expected)
    elif rule == "not_none":
        same = output == (expected is not None) if isinstance(output, bool) else (expected is None) == (output is None)
    else:
        same = bool(output == expected)
    if rule == "any":  # Mbpp/164: the data's own outputs are unreliable
        return True
    if rule == "zero_or_equal":
        same = same or output == 0
    elif rule == "pyramid":
        same = same or abs(output - _pyramid(*case)) <= atol
    elif rule == "digits":
        same = same or output == _digits(*case)
    if same or atol == 0:
        return same
    if rule == "not_none":
        expected = expected is not None
    return type(output) is type(expected) and close(output, expected, atol)


def close(output: Any, expected: Any, atol: float) -> bool:
    """Return whether numbers, or sequences of them, are equal within `atol` and a relative 1e-7.

    Inside the outermost, a tuple is as good as a list, as in EvalPlus.
    """
    if isinstance(expected, list | tuple):
        # A dict, a set, bytes or text has a length and items too.
        return (
            isinstance(output, list | tuple | range)
            and len(output) == len(expected)
            and all(close(a, b, atol) for a, b in zip(output, expected, strict=True))
        )
    if output == expected:
        return True
    return bool(abs(output - expected) <= atol + RELATIVE * abs(expected) < math.inf)


def floats(value: Any) -> bool:
    """Return whether this is a float, or a list or tuple of floats alone."""
    if isinstance(value, list | tuple) and value:
        return all(isinstance(each, float) for each in value)
    return isinstance(value, float)


def _pyramid(base: float, height: float) -> int:
    """Solve Mbpp/581 with the height of the pyramid instead of its sides."""
    return round(base**2 + 2 * base * math.sqrt((base / 2) ** 2 + height**2))


def _digits(first: int, second: int) -> int:
    """Solve Mbpp/558 with the shorter number padded with zeros."""
    width = max(len(str(first)), len(str(second)))
    return sum(abs(int(a) - int(b)) for a, b in zip(str(first).zfill(width), str(second).zfill(width), strict=True))


def _late(number: int, frame: FrameType | None) -> None:
    raise TimeoutError


def _short(value: Any) -> str:
    if isinstance(value, int) and abs(value) >= 10**100:
        return "a number of more than 100 digits"
    try:
        text = repr(value)
    except Exception:
        text = f"a {type(value).__name__}"
    return text if len(text) <= 120 else text[:117] + "..."
