"""Checks texts from elsewhere against grammars, in processes that are ended when a check takes too long.

Grammar and text come from strangers, and llguidance reads a whole text in one call, with Python's lock held: in the cube of
its length for an ambiguous grammar such as `s: s s | "a" | ""`. So nothing of it runs in this process, however small the
grammar is. Masks of local models are computed in `engine/decoding/constraint.py`.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache, partial
from threading import Lock, Thread
from typing import NamedTuple

from firsthand.errors import ConfigError, GrammarUnchecked
from firsthand.grammar import Grammar
from firsthand.tokens.isolated_grammar import GrammarLimits, GrammarProcesses, IsolatedMatcher

MAX_CHECKS = 4
"""Checks at once, as many as compile at once: none waits for a compiler."""
CHECK_LIMITS = GrammarLimits(step_s=2.0, rest_s=0.0)
"""`step_s` is the processor time to read one text: a million characters of JSON take about one second."""


class _Check(NamedTuple):
    """A check that waits for its turn."""

    future: Future[bool]
    run: Callable[[], bool]


class GrammarChecks:
    """Checks in turn: the owner with the fewest under way goes first, and none has all. Thread-safe.

    They have threads of their own: those of `asyncio.to_thread` are few, others need them, and an exit waits for them.
    """

    def __init__(self, count: int = MAX_CHECKS, limits: GrammarLimits = CHECK_LIMITS):
        self._count, self._most, self._num_threads = count, max(count - 1, 1), 0
        self._processes = GrammarProcesses(limits=limits)
        self._waiting: dict[str, deque[_Check]] = {}
        self._running: Counter[str] = Counter()
        self._lock = Lock()

    def accepts(self, grammar: Grammar, text: str, *, whole: bool = True, owner: str = "") -> bool:
        """Returns whether a text matches a grammar, or, if not `whole`, begins a text that does.

        JSON may contain whitespace, and schema keywords that a grammar cannot express are not checked. A whole JSON value
        may also have its keys in any order, characters as escapes, and numbers in any spelling, such as `1e2` for 100.
        What is read has characters as themselves, so a key is the property that it names, and none comes twice.
        ConfigError if the grammar cannot be compiled, GrammarUnchecked if the text cannot be read within the limits.
        """
        if grammar.kind == "choice":
            return any(option == text or (not whole and option.startswith(text)) for option in grammar.parsed())
        try:
            raw = text.strip().encode() if grammar.kind == "json_schema" else text.encode()
        except UnicodeEncodeError:
            return False
        matcher = self._processes.compile(grammar, flexible=True, owner=owner)
        try:
            if grammar.kind != "json_schema":
                return _reads(matcher, raw, whole, grammar.kind)
            plain = matcher.plain_json(raw)
            if raw and not plain:
                return False
            if _reads(matcher.deep_copy(), plain, whole, grammar.kind):
                return True
            written = matcher.canonical_json(plain)
            return written != b"" and _reads(matcher, written, whole, grammar.kind)
        except ConfigError as error:
            raise GrammarUnchecked(str(error)) from None

    def submit(self, owner: str, run: Callable[[], bool]) -> Future[bool]:
        """Returns the result to come of a check; cancelling it gives up its turn."""
        check = _Check(Future(), run)
        with self._lock:
            if self._num_threads < self._count:
                Thread(target=self._work, name="firsthand-checks", daemon=True).start()
                self._num_threads += 1
            self._waiting.setdefault(owner, deque()).append(check)
        return check.future

    def _work(self) -> None:
        """Run checks while an owner may have one more; who ends one takes the next."""
        while taken := self._take():
            owner, (future, run) = taken
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(run())
                except BaseException as error:
                    future.set_exception(error)
            with self._lock:
                self._running[owner] -= 1
                self._running += Counter()  # forgets owners that have none

    def _take(self) -> tuple[str, _Check] | None:
        with self._lock:
            ready = [owner for owner in self._waiting if self._running[owner] < self._most]
            if not ready:
                self._num_threads -= 1
                return None
            owner = min(ready, key=self._running.__getitem__)
            queue = self._waiting.pop(owner)
            check = queue.popleft()
            if queue:
                self._waiting[owner] = queue  # behind the others
            self._running[owner] += 1
            return owner, check


def _reads(matcher: IsolatedMatcher, raw: bytes, whole: bool, kind: str) -> bool:
    """Returns whether a matcher at the start of a text takes this one; moves it on."""
    fits = matcher.try_consume_bytes(raw) == len(raw)
    if matcher.is_error():  # a limit of llguidance; a text that does not fit is none
        reason = " ".join(matcher.get_error().replace("<non-verbose/>", "").split())[:200]
        raise GrammarUnchecked(f"the {kind} grammar is too complex to follow ({reason}): make it simpler")
    return bool(fits and (not whole or matcher.is_accepting()))


def accepts(grammar: Grammar, text: str, *, whole: bool = True) -> bool:
    """Returns whether a text matches a grammar, without waiting for a turn; see `GrammarChecks.accepts`."""
    return _shared(os.getpid()).accepts(grammar, text, whole=whole)


async def checked(grammar: Grammar, text: str, *, whole: bool = True, owner: str = "") -> bool:
    """Returns whether a text matches a grammar, once it is the owner's turn; see `GrammarChecks.accepts`."""
    checks = _shared(os.getpid())
    check = partial(checks.accepts, grammar, text, whole=whole, owner=owner)
    return await asyncio.wrap_future(checks.submit(owner, check))


@cache
def _shared(pid: int) -> GrammarChecks:
    """The checks of this process: after a fork it has others, since threads and sockets cannot be shared."""
    return GrammarChecks()
