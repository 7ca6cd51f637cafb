"""The rank of a benchmark's canary string among random ones: an exact test of whether filtering failed."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from firsthand.contamination.leak_evidence import Evidence
from firsthand.loop.concurrency import derive_seed
from firsthand.model import Model

OTHERS = 199
ASKS = "Is the benchmark's canary more probable than random strings of its form?"
LIMITS = "Only says whether documents with the canary were kept out; copies of the items without it are not seen."
_DIGITS = "0123456789abcdef"


async def canary_evidence(
    model: Model, canary: str, *, before: str = "", others: int = OTHERS, seed: int = 0
) -> Evidence:
    """The test with `others` random strings, in which each hexadecimal digit of the canary is drawn anew.

    The p-value is (1 + those at least as probable) / (1 + others), exact for a model that never saw the canary.

    Args:
        model: Any model that scores continuations.
        canary: The identifier, such as a GUID.
        before: The text that stands before it, the same for all.
        others: How many random strings.
        seed: Of the random strings.
    """
    if not any(char in _DIGITS for char in canary.casefold()):
        return Evidence(
            "canary", ASKS, detail=f"not run: {canary[:40]!r} has no hexadecimal digits to vary", limits=LIMITS
        )
    rng = Random(derive_seed("canary", seed, canary))
    strings = [canary, *(_like(canary, rng) for _ in range(others))]
    own, *rest = await _logprobs(model, before, strings)
    above = sum(each >= own for each in rest)
    told = f"rank {above + 1} of {others + 1}"
    return Evidence(
        "canary", ASKS, (others - above) / others, (1 + above) / (1 + others), others + 1, told, limits=LIMITS
    )


async def _logprobs(model: Model, before: str, strings: Sequence[str]) -> list[float]:
    scored = await model.score(before or "\n", list(strings))
    return [each.logprob for each in scored.likelihoods]


def _like(canary: str, rng: Random) -> str:
    made = [rng.choice(_DIGITS) if char.casefold() in _DIGITS else char for char in canary]
    return "".join(char.upper() if old.isupper() else char for char, old in zip(made, canary, strict=True))
