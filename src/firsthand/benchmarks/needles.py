"""Needle in a haystack: one sentence with a number, at each depth of texts of each length (after Kamradt, 2023).

The haystack is generated from the seed (pages about people, towns and companies of a made-up world), or RULER's noise, or
Paul Graham's essays if the user has them. Each cell of depth and length has the same number of tasks, each with its own
haystack, key and number. The table is `firsthand summary last --by depth,length`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, lru_cache, partial
from itertools import cycle, islice, repeat
from random import Random
from typing import NamedTuple

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.long_context.haystack import NOISE, Essays, essays, sentences, world
from firsthand.benchmarks.long_context.lengths import LazyTasks, Meter, largest, meter, parse_lengths
from firsthand.benchmarks.protocols.protocol import Item, Protocol, choose, fill, make_task, whole
from firsthand.errors import ConfigError
from firsthand.loop.concurrency import derive_seed
from firsthand.scorers.contained import string_match_all
from firsthand.task import Task

NEEDLE = "The number of the locker in {key} is {value}."
TOKENS = 32
PROTOCOLS = {
    "chat": Protocol(
        "no published number: the text, then the question, as a message in the model's own chat template",
        query="Read the following text. Afterwards you will be asked about one sentence of it.\n\n{context}\n\n"
        "What is the number of the locker in {key}? Answer with the number only.",
        scorers=(string_match_all,),
        continuation=None,
        chat=True,
        max_tokens=TOKENS,
    ),
    "base": Protocol(
        "no published number: the text, then the beginning of the hidden sentence, continued",
        query="Read the following text. Afterwards you will be asked about one sentence of it.\n\n{context}\n\n"
        "Question: What is the number of the locker in {key}?\nAnswer: The number of the locker in {key} is",
        scorers=(string_match_all,),
        continuation=None,
        stop=("\n",),
        max_tokens=TOKENS,
    ),
}
DEPTHS = "0,25,50,75,100"
HAYSTACKS = ("world", "noise", "essays")


class NeedleCell(NamedTuple):
    """One task: its length in tokens, its number there, and the needle's depth in percent."""

    length: int
    number: int
    depth: int


def needles(
    *,
    protocol: str = "",
    lengths: str = "512,1k,2k,4k",
    depths: str = DEPTHS,
    samples: int = 10,
    haystack: str = "world",
    count: str = "",
    data: str = "",
) -> Benchmark:
    """Return the benchmark: `samples` tasks per cell of `lengths` and `depths` (percent of the text before the needle).

    A length covers the whole prompt (without the chat template) and the answer's 32 tokens. `count` names the counter: a
    model, whose tokenizer is used, or `words*1.4`. `haystack` is `world`, `noise` or `essays` (in `data`).
    """
    name, chosen = choose("needles", PROTOCOLS, protocol)
    spans, percents, counted = parse_lengths(lengths), parse_depths(depths), meter(count)
    if not 1 <= samples <= 1_000:
        raise ConfigError(f"samples is {samples}: give 1 to 1,000 tasks per cell")
    if haystack not in HAYSTACKS:
        raise ConfigError(f"haystack is {haystack!r}: give one of {', '.join(HAYSTACKS)}")
    if data and haystack != "essays":
        raise ConfigError(f"data is {data!r}, and the haystack {haystack} is generated: give haystack=essays with it")
    found = essays(data, "or give haystack=world, which needs nothing") if haystack == "essays" else None
    # Longest and deepest first: the text before a needle is then a prefix of one computed already.
    cells = [
        NeedleCell(length, number, depth)
        for number in range(samples)
        for length in reversed(spans)
        for depth in reversed(percents)
    ]
    return Benchmark(
        name=name,
        tasks=lambda seed: LazyTasks(
            cells, partial(_task, chosen, NeedleTexts(counted, haystack, found, spans[-1], seed))
        ),
        scorers=chosen.scorers,
        description="One sentence with a number, at each depth of texts of each length (after Kamradt, 2023).",
        protocol=(
            f"{samples} tasks per cell; depths {', '.join(map(str, percents))} %; lengths {', '.join(map(str, spans))} "
            f"in {counted.unit}; haystack {found.origin if found else haystack}; {chosen.describe()}"
        ),
        licence="(c) Paul Graham (the haystack)" if found else "none needed: generated",
        options={
            "lengths": lengths,
            "depths": depths,
            "samples": samples,
            "haystack": haystack,
            "count": counted.unit,
        },
    )


def parse_depths(text: str) -> tuple[int, ...]:
    """Parse depths such as `0,50,100`, in percent."""
    parts = [each.strip() for each in text.split(",")]
    if not all(re.fullmatch(r"\d{1,3}", each) and int(each) <= 100 for each in parts):
        raise ConfigError(f"depths is {text!r}: give percents from 0 to 100, such as {DEPTHS}")
    return tuple(sorted({int(each) for each in parts}))


class HiddenNeedle(NamedTuple):
    """Shared by all cells of one task number: the sentences, the key, and the value to find."""

    haystack: tuple[str, ...]
    key: str
    value: str


class NeedleTexts:
    """Texts of a seed. Cells of one task number share their text: short haystacks are prefixes of long ones."""

    def __init__(self, counted: Meter, haystack: str, found: Essays | None, longest: int, seed: int):
        self.counted, self.haystack, self.found, self.longest, self.seed = counted, haystack, found, longest, seed
        self.hidden = lru_cache(maxsize=4)(self._hidden)
        self.size = lru_cache(maxsize=64)(self._size)

    def fields(self, cell: NeedleCell, query: str) -> tuple[dict[str, str], int]:
        """Return the fields of the cell's prompt, and its length in tokens, the answer's included."""
        size = self.size(cell.length, cell.number, query)
        while (found := self._measured(cell, size, query))[1] > cell.length and size > 1:
            size -= 1  # a needle at another depth may cost another token
        return found

    def _measured(self, cell: NeedleCell, size: int, query: str) -> tuple[dict[str, str], int]:
        haystack, key, value = self.hidden(cell.number)
        at = round(size * cell.depth / 100)
        parts = [*haystack[:at], fill(NEEDLE, {"key": key, "value": value}), *haystack[at:size]]
        fields = {"context": " ".join(parts), "key": key}
        return fields, self.counted.measure(fill(query, fields)) + TOKENS

    def _size(self, length: int, number: int, query: str) -> int:
        """Return the number of sentences that fit."""
        most, cell = len(self.hidden(number).haystack), NeedleCell(length, number, 100)
        fits = lambda size: size <= most and self._measured(cell, size, query)[1] <= length  # noqa: E731
        found = largest(fits, 1, max(2, length // 24))
        if found is None:
            raise ConfigError(
                f"a needle with its question does not fit {length} tokens: it takes {self._measured(cell, 1, query)[1]}, "
                "the answer's included; give longer lengths"
            )
        return found

    def _hidden(self, number: int) -> HiddenNeedle:
        rng = Random(derive_seed("needles", self.seed, number))
        key = (
            "".join(map(rng.choice, ("BDFGKLMNPRSTVZ", "aeiou", "lmnrst", "aeiou"))) + "wick"
        )  # an ending that no name of a world has
        value, most = str(rng.randint(10**6, 10**7 - 1)), self.longest // 4
        return HiddenNeedle(tuple(self._sentences(rng, most)), key, value)

    def _sentences(self, rng: Random, most: int) -> Iterator[str]:
        if self.haystack == "noise":
            return repeat(NOISE, most)
        if self.found is None:
            return islice(world(rng.randrange(10**6)), most)
        parts = split(self.found)
        return islice(cycle(parts), first := rng.randrange(len(parts)), first + most)


@cache
def split(found: Essays) -> tuple[str, ...]:
    """Return the sentences of the essays."""
    return tuple(sentences(" ".join(found.words)))


def _task(protocol: Protocol, grid: NeedleTexts, cell: NeedleCell) -> Task:
    """Return the Task of a cell."""
    fields, tokens = grid.fields(cell, protocol.query)
    _, key, value = grid.hidden(cell.number)
    item = Item(
        f"needle-{cell.length}-{cell.depth:03d}-{cell.number:03d}",
        {"question": f"What is the number of the locker in {key}?", **fields},
        secret={"answers": [value]},
        metadata={
            "length": cell.length,
            "depth": cell.depth,
            "tokens": tokens,
            "cluster": f"haystack-{cell.number}",
        },
    )
    return whole(make_task(item, protocol))
