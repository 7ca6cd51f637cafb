"""Compiles cheap grammars with llguidance in this process, in bounds.

A grammar is untrusted input. One that is known to be cheap (`grammar_cost.py`) is compiled here, on a thread with a large
stack, since llguidance recurses and a chain of a few thousand rules overflows an ordinary one. Any other one is compiled,
and later followed, in a process of its own (`isolated_grammar.py`); texts from elsewhere are checked there always
(`grammar_checks.py`). Importing this module imports neither torch nor, until a
grammar is compiled, llguidance.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from firsthand.errors import ConfigError, TransientError
from firsthand.grammar import Grammar
from firsthand.tokens.llguidance_grammar import matcher_of

T = TypeVar("T")

MAX_READ_S = 20.0
_CHEAP_STATES = 16_000
"""Of an automaton in this process, about 32 MB at most; people's schemas were seen to need less than 2,000."""
_STACK_BYTES = 1 << 29
_MAX_READERS = 4
_STACK_LOCK = threading.Lock()
_READERS = threading.BoundedSemaphore(_MAX_READERS)


def read(grammar: Grammar, vocab: Any, *, forcing: bool = True) -> Any:
    """Returns the matcher of a cheap grammar, compiled in this process; see `llguidance_grammar.matcher_of`."""
    return in_bounds(
        lambda: matcher_of(grammar, vocab, forcing=forcing, states=_CHEAP_STATES),
        f"the {grammar.kind} grammar",
    )


def in_bounds(build: Callable[[], T], what: str, *, most_s: float = MAX_READ_S) -> T:
    """Returns the result of compiling untrusted input, on a large stack and in bounded time."""
    if not _READERS.acquire(timeout=most_s):
        raise TransientError(f"{what} waited {most_s:g} s for {_MAX_READERS} others that are being compiled: try again")
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(build())
        except BaseException as error:  # a Rust panic is not an Exception
            future.set_exception(error)
        finally:
            _READERS.release()

    try:
        with _STACK_LOCK:
            before = threading.stack_size(_STACK_BYTES)
            try:
                threading.Thread(target=run, name="firsthand-grammar", daemon=True).start()
            finally:
                threading.stack_size(before)
    except RuntimeError as error:
        _READERS.release()
        raise TransientError(
            f"{what} cannot be compiled now: no memory for a thread with a large stack ({error})"
        ) from None
    try:
        return future.result(most_s)
    except TimeoutError:
        raise ConfigError(f"{what} takes more than {most_s:g} s to compile: make it simpler") from None
    except (ConfigError, KeyboardInterrupt, SystemExit):
        raise
    except ImportError:
        raise
    except BaseException as error:
        raise ConfigError(f"{what} cannot be compiled: {str(error)[:300]}") from None
