"""A reference solution that an answer tries to disturb by signals while it computes what is expected."""

from __future__ import annotations

import signal
import sys

import pytest

if sys.platform != "linux":
    pytest.skip("the programs are those of Linux", allow_module_level=True)

from firsthand.scorers.programs.oracle import compare_outputs

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
