"""The rank of a benchmark's canary string among random ones: an exact test of whether filtering failed.

Only identifiers are drawn anew, GUIDs or else runs of hexadecimal digits: beside words whose letters a to f are drawn, any
model finds the words more probable.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

import numpy as np

from firsthand.contamination.leak_evidence import Evidence, not_finite
from firsthand.loop.concurrency import derive_seed
from firsthand.model import Model

OTHERS = 199
ASKS = "Is the benchmark's canary more probable than random strings of its form?"
LIMITS = (
    "Only says whether documents with the canary were kept out; copies of the items without it are not seen. The canary "
    "must have been drawn at random: one that a person made up is more probable than random ones to any model."
)
REGULAR = 1e-4
"""Chance of a random identifier to be as regular as one that is not tested."""
_DIGITS = "0123456789abcdef"
_VERSION, _VARIANT = 14, 19
"""Places of a GUID that tell its version: they are the same in all GUIDs of a kind, and are kept."""
_GUID = re.compile(r"(?<![0-9A-Za-z])[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}(?![0-9A-Za-z])")
_HEX = re.compile(r"(?<![0-9A-Za-z])[0-9A-Fa-f]{8,}+(?![0-9A-Za-z])")


async def canary_evidence(
    model: Model, canary: str, *, before: str = "", others: int = OTHERS, seed: int = 0
) -> Evidence:
    """The test with `others` random strings, in which the canary's GUIDs, or else its runs of 8 or more hexadecimal digits
    with a digit and a letter among them, are drawn anew; not run if it has none.

    The p-value is (1 + those at least as probable) / (1 + others), exact for a model that never saw the canary.

    Args:
        model: Any model that scores continuations.
        canary: The identifier, such as a GUID, alone or in its sentence.
        before: The text that stands before it, the same for all.
        others: How many random strings.
        seed: Of the random strings.
    """
    places = _identifiers(canary)
    if not places:
        told = (
            f"not run: {canary[:40]!r} has no identifier to vary: give the canary's GUID, or one of 8 or more hexadecimal "
            "digits"
        )
        return Evidence("canary", ASKS, detail=told, limits=LIMITS)
    if regular := next((canary[place] for place in places if is_regular(canary[place])), ""):
        told = f"not run: {regular!r} repeats or counts as no random identifier does: any model finds it more "
        told += "probable than those"
        return Evidence("canary", ASKS, detail=told, limits=LIMITS)
    rng = Random(derive_seed("canary", seed, canary))
    strings = [canary, *(_like(canary, places, rng) for _ in range(others))]
    start = len(canary[: places[0].start].rstrip())
    scored = await model.score(before + canary[:start] or "\n", [each[start:] for each in strings])
    own, *rest = [each.logprob for each in scored.likelihoods]
    if not np.isfinite([own, *rest]).all():
        return not_finite("canary", ASKS, LIMITS)
    above = sum(each >= own for each in rest)
    told = f"rank {above + 1} of {others + 1}"
    return Evidence(
        "canary", ASKS, (others - above) / others, (1 + above) / (1 + others), others + 1, told, limits=LIMITS
    )


def _identifiers(canary: str) -> list[slice]:
    """The places of its GUIDs, or else of its runs of hexadecimal digits that are no word and no number."""
    found = list(_GUID.finditer(canary)) or [
        each for each in _HEX.finditer(canary) if not each[0].isdecimal() and not each[0].isalpha()
    ]
    return [slice(*each.span()) for each in found]


def is_regular(identifier: str) -> bool:
    """True if digits repeat or count, side by side or at a distance, in a run that few random identifiers have.

    Such are 12345678, deadbeefdeadbeef and 1a2b3c4d; the chance of a random one is below REGULAR.
    """
    values = [int(char, 16) for char in identifier if char != "-"]
    size = len(values)
    longest = places = 0
    for distance in range(1, size // 2 + 1):
        for step in (-1, 0, 1):
            run = 0
            for first, second in zip(values, values[distance:], strict=False):
                run = run + 1 if second - first == step else 0
                longest = max(longest, run)
            places += size - distance
    return places * 16.0**-longest < REGULAR


def _like(canary: str, places: Sequence[slice], rng: Random) -> str:
    """The canary with other digits at these places, in capitals where the identifier is."""
    made = list(canary)
    for place in places:
        old = canary[place]
        kept = (_VERSION, _VARIANT) if "-" in old else ()
        for at, char in enumerate(old):
            if char != "-" and at not in kept:
                digit = rng.choice(_DIGITS)
                made[place.start + at] = digit.upper() if old.isupper() else digit
    return "".join(made)
