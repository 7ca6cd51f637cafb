"""A reference solution, and the clock of the tests, that an answer tries to disturb."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("the programs are those of Linux", allow_module_level=True)

from firsthand.sandbox.programs import checker
from firsthand.sandbox.sandbox import Outcome, Sandbox
from firsthand.sandbox.sandbox_limits import RunLimits
from firsthand.scorers.programs import oracle
from firsthand.scorers.programs.oracle import compare_outputs
from namespaces import WHY_NOT

needs_bwrap = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))

REFERENCE = """
import os, signal
def f(number):
    try:
        signal.raise_signal(number)
        return "right"
    except BaseException:
        return None
"""


@pytest.mark.parametrize(("number", "error"), [(signal.SIGALRM, TimeoutError), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_while_the_reference_runs_does_not_change_what_is_expected(
    number: signal.Signals, error: type[BaseException]
) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.getsignal(signal.SIGALRM)
    try:
        with pytest.raises(error):
            compare_outputs(lambda _: None, "f", REFERENCE, f"[[{int(number)}]]", 0, "equal")
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before[0], "and Ctrl-C works afterwards"
    finally:
        signal.signal(signal.SIGALRM, before[1])


CAUGHT = """
def ref(x):
    try:
        for i in range(100_000): x += i
        return x
    except BaseException: return None
"""
SENT = """
import os, time
TESTS = os.getppid()
def f(x):
    if os.fork() == 0:
        time.sleep(0.002)
        try: os.kill(TESTS, {number})
        finally: os._exit(0)
"""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(workers=1) as made:
        yield made


def checked(sandbox: Sandbox, answer: str, tests: str, setup: str = "", load_s: float | None = None) -> Outcome:
    limits = RunLimits(wall_s=20)
    return asyncio.run(sandbox.check(answer, tests, setup=setup, names=("f",), load_s=load_s, limits=limits))


@needs_bwrap
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGALRM, signal.SIGSTOP])
def test_no_signal_of_an_answer_is_an_exception_in_the_tests(sandbox: Sandbox, number: signal.Signals) -> None:
    answer = SENT.format(number=int(number))
    outcome = checked(
        sandbox, answer, "f(0)\nfor n in range(9): assert ref(n) is not None\nassert f(1) == ref(0)", CAUGHT
    )
    assert outcome.ended in ("error", "killed") and outcome.wall_s < 10, outcome


def test_an_interrupt_ends_the_tests_process_where_landlock_does_not_hold_it_back(tmp_path: Path) -> None:
    (tmp_path / "answer.py").write_text("f = abs")
    tests = "import os\ntry: os.kill(os.getpid(), 2)\nexcept BaseException: pass\nassert f(1) == 1"
    given = {"tests": tests, "setup": "", "names": ["f"], "proof": "PROOF"}
    program = f"import runpy, sys; sys.path.insert(0, {str(Path(checker.__file__).parent)!r}); "
    command = [sys.executable, "-I", "-c", f"{program}runpy.run_path({checker.__file__!r}, run_name='__main__')"]
    ended = subprocess.run(command, input=json.dumps(given), cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (-signal.SIGINT, "")


@needs_bwrap
def test_an_answer_may_signal_itself_and_its_children_and_move_files(sandbox: Sandbox) -> None:
    answer = """
import os, signal, time
def f(x):
    child = os.fork()
    if child == 0: time.sleep(60)
    os.kill(child, signal.SIGTERM)
    status = os.waitpid(child, 0)[1]
    os.mkdir("a"), os.mkdir("b"), open("a/file", "w").close(), os.rename("a/file", "b/file")
    try: signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt: return [status, os.listdir("b")]
"""
    assert checked(sandbox, answer, "assert f(1) == [15, ['file']]").ok


@needs_bwrap
def test_an_answer_that_does_nothing_while_it_loads_is_ended_and_one_that_computes_a_table_is_not(
    sandbox: Sandbox,
) -> None:
    outcome = checked(sandbox, "import time\ntime.sleep(60)\ndef f(x): return x", "assert f(1) == 1", load_s=0.1)
    assert outcome.ended == "error" and "the answer did not load within 0.1 s" in outcome.stderr
    table = "TABLE = [n * n for n in range(10_000)]\ndef f(x): return TABLE[x]"
    assert checked(sandbox, table, "import time\ntime.sleep(0.1)\nassert f(9) == 81", load_s=30).ok


def test_the_time_of_all_inputs_together_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(n: int) -> int:
        time.sleep(0.02)
        return n

    before = signal.getsignal(signal.SIGALRM)
    monkeypatch.setattr(oracle, "WAIT_S", 0.1)
    inputs = repr([[n] for n in range(100)])
    try:
        with pytest.raises(TimeoutError, match="the time for all inputs together is over"):
            compare_outputs(slow, "f", "def f(n): return n", inputs, 0, "equal")
    finally:
        signal.signal(signal.SIGALRM, before)


def test_the_limit_of_an_input_does_not_grow_with_the_time_that_the_reference_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = signal.getsignal(signal.SIGALRM)
    monkeypatch.setattr(oracle, "MIN_LIMIT_S", 0.05)
    stopped = "import time\ndef f(n):\n    time.sleep(0.1)\n    return n"
    try:
        with pytest.raises(TimeoutError, match=r"no output within 0\.[01] s"):
            compare_outputs(lambda n: time.sleep(5), "f", stopped, "[[1]]", 0, "equal")
    finally:
        signal.signal(signal.SIGALRM, before)


def test_no_alarm_is_left_when_the_answer_has_loaded() -> None:
    before = signal.getsignal(signal.SIGALRM)
    try:
        with checker.ends_within(60):
            assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
        left = signal.getitimer(signal.ITIMER_REAL)[0], signal.getsignal(signal.SIGALRM)
        assert left == (0, signal.SIG_DFL)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
