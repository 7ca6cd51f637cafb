"""Loads a model, and has it compute two tokens, before an attempt's clock begins.

The first tokens of a process are slow: compiled kernels are read or made. An endpoint elsewhere needs none of this.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import aclosing, suppress

from firsthand.model import Model, Sampling, TokenCapability

_TEXT = "The quick brown fox jumps over the lazy dog."
_APART = "warm-up"
"""Salt that keeps the prefix cache as it would be without."""


async def make_ready(models: Iterable[Model]) -> None:
    """Make each local model ready that is not loaded. FirsthandError if one cannot be loaded."""
    for model in models:
        if getattr(model, "is_alive", True):  # quicker than the check of a protocol, for each attempt asks
            continue
        if isinstance(model, TokenCapability):
            await model.load()
            with suppress(Exception):  # fails again, and is reported, in the first call
                sampling = Sampling(max_tokens=2, temperature=0)
                async with aclosing(model.stream_many(_TEXT, sampling, cache_salt=_APART)) as deltas:
                    async for _ in deltas:
                        pass


async def warm_up(models: Iterable[Model]) -> None:
    """As `make_ready`, but a model that cannot be loaded fails again, and is reported, in its first call."""
    for model in models:
        with suppress(Exception):
            await make_ready([model])
