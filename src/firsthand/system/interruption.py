"""SIGTERM ends a command as Ctrl-C does: what is done is kept, child processes end, and the command says how to go on.

Neither waits for threads, such as one that loads a model or compiles kernels. A second signal waits for nothing but that
child processes are killed, and a third SIGTERM not for that. Where Ctrl-C is ignored, as in a command that a script began in
the background, it stays so, and SIGTERM ends the command all the same.
"""

from __future__ import annotations

import _thread
import asyncio
import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")
SAME_SIGNAL_S = 0.5
"""`timeout` and service managers send one SIGTERM twice, to the process and to its group."""
_received: list[float] = []
"""When SIGTERM came."""
_leaving = threading.Event()
_ends_by_leave = False
"""True in a process whose interrupted command ends with `leave`, as the command line's does."""
LOST_SIGNAL_S = 0.05
"""Seconds until a KeyboardInterrupt that Python dropped is raised again: the callback that dropped it has ended by then."""


class Runner:
    """An asyncio.Runner that, once interrupted, closes without waiting for the threads of `asyncio.to_thread`."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._threads = _Threads(thread_name_prefix="firsthand-asyncio")

    def __enter__(self) -> Runner:
        self._runner.__enter__()
        self._runner.get_loop().set_default_executor(self._threads)
        return self

    def __exit__(self, *details: object) -> None:
        self._runner.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine; KeyboardInterrupt if Ctrl-C cancelled it."""
        _leaving.clear()
        try:
            return self._runner.run(coroutine)
        except KeyboardInterrupt:
            self._threads.awaited = False
            if _ends_by_leave:
                _leaving.set()
            raise


class _Threads(ThreadPoolExecutor):
    awaited = True
    """False once nobody wants what the threads are doing."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait and self.awaited, cancel_futures=cancel_futures or not self.awaited)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`; interrupted, it does not wait for threads."""
    with Runner() as runner:
        return runner.run(coroutine)


def leaving() -> bool:
    """True once a command was interrupted and begins nothing else: no thread needs to be waited for any more."""
    return _leaving.is_set()


def install() -> None:
    """Turn SIGTERM into SIGINT in this process, unless something else handles it already; `leave` must end it."""
    global _ends_by_leave
    _ends_by_leave = True
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)
    if getattr(sys.unraisablehook, "__func__", None) is not _Dropped.__call__:
        sys.unraisablehook = _Dropped(sys.unraisablehook).__call__


class _Dropped:
    """Raises Ctrl-C again where Python dropped it, as it does in `__del__` and in callbacks of weak references."""

    def __init__(self, before: Callable[[Any], object]) -> None:
        self._before = before

    def __call__(self, dropped: Any) -> None:
        if dropped.exc_type is None or not issubclass(dropped.exc_type, KeyboardInterrupt):
            self._before(dropped)
            return
        again = threading.Timer(LOST_SIGNAL_S, _thread.interrupt_main)
        again.daemon = True
        again.start()


@contextmanager
def interruptible_programs() -> Iterator[None]:
    """Programs that are started within hear SIGINT where this process ignores it, which they would inherit."""
    ignores = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if not ignores or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _pass_over)  # a function is not inherited
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is _pass_over:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _pass_over(number: int, frame: object) -> None:
    """As SIG_IGN does."""


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
    _leaving.set()
    exit_at_once()
    atexit._run_exitfuncs()
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None if it was closed before the process started
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _terminate(number: int, frame: object) -> None:
    now = time.monotonic()
    _received.append(now)
    if len(_received) > 1:
        if now - _received[0] < SAME_SIGNAL_S:
            return
        signal.signal(number, signal.SIG_DFL)
    elif signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, _pass_over):
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.raise_signal(signal.SIGINT)  # for whoever handles that now: Python, or asyncio, which cancels the main task
