"""Counts a text's length in tokens, and finds the largest text that fits a length.

A benchmark does not know the model that will attempt it, so an option names the counter: `count=MODEL` is that model's own
tokenizer (a .gguf file, a folder, a tokenizer.json, or a known model that is downloaded), `count=words*1.4` a rule of thumb
that needs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar, overload

from firsthand.errors import ConfigError
from firsthand.task import Task

WORDS = "words*1.4"
"""The default. A word is a run of letters, up to three digits, or one other sign, so numbers and uuids count as well."""
SHORTEST, LONGEST = 64, 4 * 2**20
_WORD = re.compile(r"[^\W\d_]+|\d{1,3}|[^\w\s]|_")
T = TypeVar("T")


@dataclass(frozen=True)
class Meter:
    """Counter of length: `measure(text)` returns a number of tokens."""

    measure: Callable[[str], int]
    unit: str
    """Description for the protocol: `tokens of smollm2`, or `words x 1.4`."""


@cache
def meter(count: str) -> Meter:
    """Return the Meter that an option names; ConfigError unless it is an available tokenizer or words times a factor."""
    count = count or WORDS
    if count.startswith("words"):
        factor = re.fullmatch(r"words(?:\*(\d{1,2}(?:\.\d{1,4})?))?", count)
        times = float(factor.group(1) or 1) if factor else 0.0
        if not 0.1 <= times <= 20:
            raise ConfigError(
                f"count is {count!r}: give words times a factor from 0.1 to 20, such as {WORDS}, or a model"
            )
        return Meter(lambda text: round(times * len(_WORD.findall(text))), f"estimated as words x {times:g}")
    from firsthand.hub import model_lookup
    from firsthand.tokens import pretrained

    path = model_lookup.locate(count) if count in model_lookup.KNOWN else Path(count).expanduser()
    if path is None:
        raise ConfigError(f"count is {count!r}, which is not downloaded: `firsthand models pull {count}` fetches it")
    if not path.exists():
        raise ConfigError(f"count is {count!r}, and there is no such file: give a .gguf, a folder, or {WORDS}")
    tokenizer = pretrained.load(path)
    name = count if count in model_lookup.KNOWN else path.name
    return Meter(lambda text: len(tokenizer.encode(text)), f"tokens of {name}")


def parse_lengths(text: str) -> tuple[int, ...]:
    """Parse lengths such as `4k,8k`, `512,1000` or `4k-128k`, in order; a range doubles, and k is 1,024."""
    found: list[int] = []
    for part in text.lower().split(","):
        low, dash, high = (each.strip() for each in part.partition("-"))
        first, last = _length(low, text), _length(high if dash else low, text)
        if first > last:
            raise ConfigError(f"lengths is {text!r}: begin a range with its shortest length, as in 4k-128k")
        while first <= last:
            found.append(first)
            first *= 2
    return tuple(sorted(set(found)))


def largest(fits: Callable[[int], bool], least: int, guess: int) -> int | None:
    """Return the largest size from `least` up that fits, or None; `fits` must be monotonic.

    The search doubles from the guess and then bisects, so it calls `fits` some twenty times whatever the guess.
    """
    if not fits(least):
        return None
    low, high = least, max(guess, least + 1)
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


class LazyTasks(Sequence[Task]):
    """Tasks that are made on access, so that a limited run makes no others: task i is `make(places[i])`."""

    def __init__(self, places: Sequence[T], make: Callable[[T], Task]):
        self._places, self._make = places, make

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> LazyTasks: ...
    def __getitem__(self, index: int | slice) -> Task | LazyTasks:
        if isinstance(index, slice):
            return LazyTasks(self._places[index], self._make)
        return self._make(self._places[index])

    def __iter__(self) -> Iterator[Task]:
        return map(self._make, self._places)


def _length(text: str, whole: str) -> int:
    found = re.fullmatch(r"(\d{1,7})(k?)", text)
    length = int(found.group(1)) * (1024 if found.group(2) else 1) if found else 0
    if not SHORTEST <= length <= LONGEST:
        raise ConfigError(f"lengths is {whole!r}: give lengths in tokens from {SHORTEST} on, such as 4k,8k or 4k-128k")
    return length
