"""SIGTERM ends a command as Ctrl-C does: what is done is kept, child processes end, and the command says how to go on."""

from __future__ import annotations

import signal
import threading

_received: list[int] = []


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


def _terminate(number: int, frame: object) -> None:
    _received.append(number)
    signal.raise_signal(signal.SIGINT)  # for whoever handles that now: Python, or asyncio, which cancels the main task
