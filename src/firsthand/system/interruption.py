"""SIGTERM ends a command as Ctrl-C does: what is done is kept, child processes end, and the command says how to go on.

Neither waits for threads in the end, such as one that loads a model, and a second signal does not wait for anything.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import NoReturn

SAME_SIGNAL_S = 0.5
"""`timeout` and service managers send one SIGTERM twice, to the process and to its group."""
_received: list[float] = []
"""When SIGTERM came."""


def install() -> None:
    """Turn SIGTERM into SIGINT in this process, unless something else handles it already."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)


def terminated() -> bool:
    """True if the process was told to end by SIGTERM, so that a KeyboardInterrupt is not a person's."""
    return bool(_received)


def exit_at_once() -> None:
    """Let the next Ctrl-C or SIGTERM end the process, which may be waiting for a thread that loads a model."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def leave(code: int) -> NoReturn:
    """End the process of an interrupted command, without waiting for threads, whose work nobody wants any more.

    What the command had to keep is kept by now. A signal that comes while exit handlers run ends it at once.
    """
    exit_at_once()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _terminate(number: int, frame: object) -> None:
    now = time.monotonic()
    _received.append(now)
    if len(_received) == 1:
        signal.raise_signal(
            signal.SIGINT
        )  # for whoever handles that now: Python, or asyncio, which cancels the main task
    elif now - _received[0] >= SAME_SIGNAL_S:  # it will not wait any longer
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
