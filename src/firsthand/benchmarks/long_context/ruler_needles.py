"""RULER's eight needle tasks: sentences with a key and a value, hidden in noise, in essays, or among other needles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Literal
from uuid import UUID

from firsthand.benchmarks.long_context.haystack import NOISE, Essays, sentences
from firsthand.benchmarks.long_context.ruler_sample import NIAH, RulerSample, SampleGenerator, SampleKey, word_list
from firsthand.benchmarks.protocols.protocol import fill

NEEDLE = "One of the special magic {type_needle_v} for {key} is: {value}."
DEPTHS = tuple(round(100 * step / 39) for step in range(40))
"""The 40 depths, in percent, at which needles are inserted in essays."""
Kind = Literal["words", "numbers", "uuids"]


@dataclass(frozen=True)
class NeedleTask:
    """One of the eight tasks: its haystack, the kinds of keys and values, and the numbers hidden and queried."""

    haystack: Literal["noise", "essay", "needle"] = "essay"
    keys: Kind = "words"
    values: Kind = "numbers"
    num_keys: int = 1
    num_values: int = 1
    num_queries: int = 1


NEEDLES: Mapping[str, NeedleTask] = {
    "niah_single_1": NeedleTask("noise"),
    "niah_single_2": NeedleTask(),
    "niah_single_3": NeedleTask(values="uuids"),
    "niah_multikey_1": NeedleTask(num_keys=4),
    "niah_multikey_2": NeedleTask("needle"),
    "niah_multikey_3": NeedleTask("needle", keys="uuids", values="uuids"),
    "niah_multivalue": NeedleTask(num_values=4),
    "niah_multiquery": NeedleTask(num_keys=4, num_queries=4),
}


def needle_generator(kind: NeedleTask, wrap: str, essays: Callable[[], Essays] | None) -> SampleGenerator:
    """Return the generator of one task; `wrap` is the model template. Without essays, noise takes their place."""
    haystack = "noise" if kind.haystack == "essay" and essays is None else kind.haystack
    made = partial(_sample, kind, haystack, wrap, essays)
    units = {"noise": "sentences of noise", "essay": "words of the essays", "needle": "other needles"}
    return SampleGenerator(made, NIAH.tokens, units[haystack], kind.num_keys * kind.num_values, category="retrieval")


def _sample(
    kind: NeedleTask,
    haystack: str,
    wrap: str,
    essays: Callable[[], Essays] | None,
    size: int,
    rng: Random,
    draw: SampleKey,
) -> RulerSample:
    keys = [_draw(kind.keys, rng) for _ in range(kind.num_keys)]
    values = [[_draw(kind.values, rng) for _ in range(kind.num_values)] for _ in keys]
    hidden = [_needle(kind, key, value) for key, each in zip(keys, values, strict=True) for value in each]
    rng.shuffle(hidden)
    if haystack == "essay":
        assert essays is not None
        context = _among(sentences(essays().first(size)), hidden, rng)
    else:
        lines = [NOISE if haystack == "noise" else _distractor(kind, rng) for _ in range(size)]
        for at, needle in zip(sorted(rng.sample(range(size), len(hidden)), reverse=True), hidden, strict=True):
            lines.insert(at, needle)
        context = "\n".join(lines)
    queried = rng.sample(range(len(keys)), kind.num_queries)
    queries = [keys[each] for each in queried]
    query = ", ".join(queries[:-1]) + ", and " + queries[-1] if len(queries) > 1 else queries[0]
    one = kind.num_queries * kind.num_values == 1
    fields = {
        "type_needle_v": kind.values.removesuffix("s") if one else kind.values,
        "context": context,
        "query": query,
    }
    task, prefix = (_singular(text) if one else text for text in (wrap.replace("{task}", NIAH.task), NIAH.prefix))
    depth = round(10 * context.index(hidden[0]) / len(context)) * 10 if len(hidden) == 1 else None
    answers = tuple(value for each in queried for value in values[each])
    return RulerSample(fill(task, fields), fill(prefix, fields), answers, depth)


def _among(parts: list[str], hidden: list[str], rng: Random) -> str:
    """Return the sentences with the needles inserted, each at its own depth."""
    cuts = [0, *sorted(int(len(parts) * depth / 100) for depth in rng.sample(DEPTHS, len(hidden))), len(parts)]
    pieces: list[str] = []
    for index in range(1, len(cuts)):
        pieces.append(" ".join(parts[cuts[index - 1] : cuts[index]]))
        pieces += hidden[index - 1 : index]
    return " ".join(pieces)


def _singular(template: str) -> str:
    """Return the template in the singular, by RULER's four replacements, for a single queried value."""
    for many, one in (("Some", "A"), ("are all", "is"), ("are", "is"), ("answers", "answer")):
        template = template.replace(many, one)
    return template


def _needle(kind: NeedleTask, key: str, value: str) -> str:
    return fill(NEEDLE, {"type_needle_v": kind.values, "key": key, "value": value})


def _distractor(kind: NeedleTask, rng: Random) -> str:
    return _needle(kind, _draw(kind.keys, rng), _draw(kind.values, rng))


def _draw(kind: Kind, rng: Random) -> str:
    match kind:
        case "numbers":
            return str(rng.randint(10**6, 10**7 - 1))
        case "words":
            return f"{rng.choice(word_list('adjective'))}-{rng.choice(word_list('noun'))}"
        case "uuids":
            return str(UUID(int=rng.getrandbits(128), version=4))
