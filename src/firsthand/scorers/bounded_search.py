"""Searches with regular expressions that come from data, such as keywords of IFEval, within a bound of processor time.

An expression whose work is small whatever the text holds is searched here; any other in a process of its own, which the
kernel ends when its time is up. Python's `re` may otherwise take hours, and no signal ends it.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import subprocess
import sys
import threading
from contextlib import suppress
from functools import cache
from typing import NamedTuple

from firsthand.errors import DataError

LIMIT_S = 2.0
"""Processor time of one search."""
WALL_S = 60.0
"""Wall time in seconds to wait for an answer; a busy machine may need much of it."""
MAX_STEPS = 10**7
"""Work of a search that is done here."""
_CHILD = """
import json, re, signal, sys
for line in sys.stdin:
    pattern, text, flags, most, limit_s = json.loads(line)
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    compiled, count, last = re.compile(pattern, flags), 0, None
    for match in compiled.finditer(text):
        count, last = count + 1, (match.group(1) if compiled.groups else match.group()) or ""
        if count == most:
            break
    signal.setitimer(signal.ITIMER_PROF, 0)
    print(json.dumps([count, last]), flush=True)
"""


class Found(NamedTuple):
    """The result of a search."""

    times: int
    """Matches that do not overlap."""
    last: str | None
    """The first group of the last match, or the match of an expression without groups."""


def search(pattern: str, text: str, *, flags: int = 0, most: int | None = None) -> Found:
    """Return the matches of a regular expression, at most `most` of them; DataError if it takes more than LIMIT_S.

    Raises re.error if it is no regular expression.
    """
    compiled = re.compile(pattern, flags)
    if not is_small(pattern, len(text)):
        return _searcher(os.getpid()).search(pattern, text, int(flags), most)
    count, last = 0, None
    for match in compiled.finditer(text):
        count, last = count + 1, (match.group(1) if compiled.groups else match.group()) or ""
        if count == most:
            break
    return Found(count, last)


def is_small(pattern: str, chars: int) -> bool:
    """Return whether an expression takes at most MAX_STEPS on any text of that length, by what its signs may mean."""
    if re.search(r"[)}?*+]\s*[*+{?]|\\[1-9]|\(\?(?:P[=>]|\(|[a-zA-Z]*x)", pattern):
        return False  # what is repeated may itself be read in several ways
    repeats, choices = (sum(map(pattern.count, signs)) for signs in ("*+{", "?|"))
    return repeats + choices < 20 and (chars + 1) ** (1 + repeats) * int(2**choices) <= MAX_STEPS


class _Searcher:
    """A process that searches, one request after another; it is started again when it was ended."""

    def __init__(self) -> None:
        self._lock, self._process = threading.Lock(), self._start()

    def search(self, pattern: str, text: str, flags: int, most: int | None) -> Found:
        with self._lock:
            if self._process.poll() is not None:
                self._process = self._start()
            process = self._process
            assert process.stdin is not None and process.stdout is not None
            late = threading.Timer(WALL_S, process.kill)
            late.start()
            try:
                process.stdin.write(json.dumps([pattern, text, flags, most, LIMIT_S]) + "\n")
                process.stdin.flush()
                answer = process.stdout.readline()
            except BrokenPipeError:
                answer = ""
            finally:
                late.cancel()
            if not answer.endswith("\n"):
                self.close()
                raise DataError(
                    f"the expression {pattern[:60]!r} did not finish within {LIMIT_S:.0f} s of processor time on a text of "
                    f"{len(text):,} characters: write it without repeats inside repeats"
                )
            return Found(*json.loads(answer))

    def close(self) -> None:
        """End the process; another search starts it again."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    @staticmethod
    def _start() -> subprocess.Popen[str]:
        command = [sys.executable, "-I", "-S", "-c", _CHILD]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, encoding="ascii", env={})


@cache
def _searcher(owner: int) -> _Searcher:
    """Return the searching process of the process with that id, so that one that was forked has its own."""
    searcher = _Searcher()
    atexit.register(searcher.close)
    return searcher
