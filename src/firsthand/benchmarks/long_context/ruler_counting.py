"""RULER's tasks that need the whole text: variable tracking (vt) and the most common words (cwe, fwe)."""

from __future__ import annotations

import json
import math
import os
import string
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random

from firsthand.benchmarks.long_context.haystack import NOISE
from firsthand.benchmarks.long_context.lengths import largest
from firsthand.benchmarks.long_context.ruler_sample import (
    CWE,
    FWE,
    VT,
    RulerSample,
    SampleGenerator,
    SampleKey,
    word_list,
)
from firsthand.benchmarks.protocols.protocol import fill
from firsthand.benchmarks.sources.datasets import contents, find
from firsthand.errors import DataError

HOPS = 4
EXAMPLE_TOKENS = 500
"""Most tokens of vt's worked example, which is as long as this allows."""
COMMON = 10
SHORT = 4096
"""Length in tokens below which cwe repeats its words less often, as published."""
CODE_LENGTH = 6
ENGLISH_WORDS = "english_words.json"


def variable_tracking(wrap: str, measure: Callable[[str], int]) -> SampleGenerator:
    """Return vt's generator: one chain of five variables, in order among noise, after a worked example with other names."""

    @cache
    def noises() -> int:
        fits = lambda size: measure(_chain(size, Random(0), 3, "12345")[0]) <= EXAMPLE_TOKENS  # noqa: E731
        return largest(fits, HOPS + 1, 8) or HOPS + 1

    def make(size: int, rng: Random, draw: SampleKey) -> RulerSample:
        shown, shown_names = _chain(noises(), rng, 3, str(rng.randrange(10_000, 99_999)))
        example = f"{shown} {' '.join(shown_names)}\n"
        value = str(rng.randrange(10_000, 99_999))
        text, names = _chain(size, rng, 5, value)
        prefix = fill(VT.prefix, {"num_v": str(HOPS + 1), "query": value})
        before, after = wrap.split("{task}")
        return RulerSample(f"{before}{example}\n{text.removesuffix(prefix)}{after}", prefix, tuple(names))

    return SampleGenerator(make, VT.tokens, "sentences of noise", HOPS + 1, category="multi-hop tracing")


def _chain(size: int, rng: Random, letters: int, value: str) -> tuple[str, list[str]]:
    """Return a problem, answer prefix included, and the names of its variables."""
    names: list[str] = []
    while len(names) < HOPS + 1:
        name = "".join(rng.choices(string.ascii_uppercase, k=letters))
        names += [name] if name not in names else []
    assignments = [f"VAR {names[0]} = {value}"]
    assignments += [f"VAR {name} = VAR {before} " for before, name in pairwise(names)]
    lines = [NOISE] * size
    for passed, (at, line) in enumerate(
        zip(sorted(rng.sample(range(size), len(assignments))), assignments, strict=True)
    ):
        lines.insert(at + passed, line)
    fields = {"context": "\n".join(lines), "query": value, "num_v": str(HOPS + 1)}
    return fill(VT.task + VT.prefix, fields), names


def common_words(wrap: str, data: str) -> SampleGenerator:
    """Return cwe's generator: a numbered list with ten words 30 times and the others 3 times, after one worked example."""

    def make(size: int, rng: Random, draw: SampleKey) -> RulerSample:
        example, often, seldom = (20, 3, 1) if draw.length < SHORT else (40, 10, 3)
        shown, common = _list(word_pool(example, data), example, often, seldom, rng)
        template = wrap.replace("{task}", CWE.task)
        worked = fill(template, {"context": shown}) + CWE.prefix + " " + _numbered(common)
        often, seldom = (6, 1) if draw.length < SHORT else (30, 3)
        shown, common = _list(word_pool(size, data), size, often, seldom, rng)
        return RulerSample(f"{worked}\n{fill(template, {'context': shown})}", CWE.prefix, tuple(common))

    return SampleGenerator(make, CWE.tokens, "different words", 2 * COMMON, category="aggregation")


def word_pool(count: int, data: str = "") -> tuple[str, ...]:
    """Return at least `count` distinct words: wonderwords', or if more are needed, those of RULER's english_words.json."""
    pool = _wonderwords()
    if count <= len(pool):
        return pool
    root = Path(data or os.environ.get("FIRSTHAND_DATA") or ".").expanduser()
    path = find(root, f"longctx/{ENGLISH_WORDS}") if root.is_dir() else None
    if path is None:
        raise DataError(
            f"cwe needs {count:,} different words at this length, and wonderwords has {len(pool):,}: give data=FOLDER with "
            f"{ENGLISH_WORDS} of NVIDIA/RULER, or shorter lengths"
        )
    more = _english(path)
    if count > len(more):
        raise DataError(
            f"{path} holds {len(more):,} words, and cwe needs {count:,} at this length: give shorter lengths"
        )
    return more


@cache
def _wonderwords() -> tuple[str, ...]:
    return tuple(sorted({*word_list("noun"), *word_list("adjective"), *word_list("verb")}))


@cache
def _english(path: Path) -> tuple[str, ...]:
    try:
        body = json.loads(contents(path))
        return tuple(dict.fromkeys(map(str, body.values())))
    except (ValueError, RecursionError, AttributeError):
        raise DataError(f"{path} is not a JSON object of words: fetch it from NVIDIA/RULER again") from None


def _list(pool: tuple[str, ...], size: int, often: int, seldom: int, rng: Random) -> tuple[str, list[str]]:
    words = rng.sample(pool, size)
    common, others = words[:COMMON], words[COMMON:]
    listed = common * often + others * seldom
    rng.shuffle(listed)
    return _numbered(listed), common


def _numbered(words: list[str]) -> str:
    return " ".join(f"{number}. {word}" for number, word in enumerate(words, 1))


def frequent_words(wrap: str) -> SampleGenerator:
    """Return fwe's generator: coded words with frequencies that fall with rank squared; the first, dots, does not count."""

    def make(size: int, rng: Random, draw: SampleKey) -> RulerSample:
        codes: set[str] = set()
        while len(codes) < (draw.length - FWE.tokens) // 50:
            codes.add("".join(rng.choices(string.ascii_lowercase, k=CODE_LENGTH)))
        ranked = sorted(codes)
        rng.shuffle(ranked)
        ranked[0] = "..."
        counts = (int(size * rank**-2.0 / (math.pi**2 / 6)) for rank in range(1, len(ranked) + 1))
        words = [word for word, count in zip(ranked, counts, strict=True) for _ in range(count)]
        rng.shuffle(words)
        return RulerSample(
            fill(wrap.replace("{task}", FWE.task), {"context": " ".join(words)}), FWE.prefix, tuple(ranked[1:4])
        )

    return SampleGenerator(make, FWE.tokens, "coded words", 50, category="aggregation")
