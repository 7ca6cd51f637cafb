"""Time limits of a streamed answer: one for each piece of it, and one for the whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from firsthand.errors import ModelError
from firsthand.providers.openai_errors import Endpoint

SECONDS_PER_TOKEN = 5.0
"""The whole answer has this for each token that was asked for, beside the time of one piece: a large model on a small CPU
needs two."""


class StreamLimits:
    """Counts the time that is spent waiting for a stream; the reader's own time between two events is not counted."""

    def __init__(self, faults: Endpoint, max_tokens: int):
        """`faults` has the time of one piece, and `max_tokens` is what was asked for."""
        self._faults = faults
        self._max_tokens = max_tokens
        self._piece_s = faults.timeout_s
        self._whole_s = faults.timeout_s + SECONDS_PER_TOKEN * max_tokens

    @asynccontextmanager
    async def waiting(self) -> AsyncGenerator[None, None]:
        """The time inside counts. TimeoutError once it is over, which `timed_out` words."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(min(self._piece_s, self._whole_s)):
                yield
        finally:
            took = clock() - began
            self._piece_s -= took
            self._whole_s -= took

    def timed_out(self) -> ModelError:
        """Returns the error for the limit that was reached: another try may help where a piece was late."""
        if self._whole_s < self._piece_s:
            return self._faults.too_long(self._max_tokens)
        return self._faults.too_slow()

    def renew(self) -> None:
        """Give the next piece its whole time: this one brought the answer further."""
        self._piece_s = self._faults.timeout_s
