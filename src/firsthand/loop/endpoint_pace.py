"""The pace at which the attempts of a run ask one endpoint, after it has said that it was asked too often.

A refusal with a time to come back holds for all attempts: they wait until then, and fewer ask at a time. Each answer lets
a part of one more ask.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

SILENT_S = 120.0
"""An endpoint that has answered nobody for so long since its first refusal is not waited for beyond the tries of a call."""
JITTER = 0.25
"""At most this share of the time asked for is added to it, so that programs do not come back at once."""
MIN_WAIT_S = 0.05
"""The shortest wait after a refusal, where the endpoint asks for none."""


class Pace:
    """The pause that all who ask one endpoint keep, and how many may ask at a time; for one event loop."""

    def __init__(self) -> None:
        self._most = math.inf
        self._under_way = 0
        self._until_s = 0.0
        self._silent_since_s: float | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._rng = random.Random()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until one may ask; the block is a request under way."""
        try:
            await self._may_ask()
        except BaseException:
            self._wake()  # who was told to look again, and does not, leaves it to the next
            raise
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._wake()

    async def _may_ask(self) -> None:
        while True:
            if (left_s := self._until_s - _now()) > 0:
                await asyncio.sleep(left_s)
            elif self._under_way < self._most:
                return
            else:
                self._waiting.append(turn := asyncio.get_running_loop().create_future())
                await turn

    def _wake(self) -> None:
        """Let as many of those who wait for a turn look again as may ask, the first who came first."""
        free = self._most - self._under_way
        while self._waiting and free > 0:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                free -= 1

    def answered(self) -> None:
        """Note an answer: a part of one more may ask at a time."""
        self._silent_since_s = None
        if self._most < math.inf:
            self._most += 1 / self._most

    def refused(self, asked_s: float) -> float | None:
        """Note a refusal of a request under way; returns the seconds that all wait now.

        The first refusal after a pause halves how many may ask; those that were sent with it do not halve it again. None,
        and no pause, if the endpoint has refused all for SILENT_S: whoever waits for it then waits alone.
        """
        now = _now()
        if self._silent_since_s is None:
            self._silent_since_s = now
        if now - self._silent_since_s > SILENT_S:
            self._most, self._until_s = math.inf, now
            return None
        if now >= self._until_s:
            self._most = max(1.0, self._under_way // 2)
        wait_s = max(asked_s, MIN_WAIT_S) * (1 + JITTER * self._rng.random())
        self._until_s = max(self._until_s, now + wait_s)
        return wait_s


class Paces:
    """The paces of the models that attempts of one run ask."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._paces: dict[int, tuple[object, Pace]] = {}

    def of(self, model: object) -> Pace | None:
        """The pace of a model; None in another event loop than that of the run."""
        if asyncio.get_running_loop() is not self._loop:
            return None
        return self._paces.setdefault(id(model), (model, Pace()))[1]


_current: ContextVar[Paces | None] = ContextVar("firsthand_paces", default=None)


def share_paces(paces: Paces) -> None:
    """Make these the paces of the running task and of those it starts."""
    _current.set(paces)


def pace_of(model: object) -> Pace | None:
    """The pace of a model in this run; None outside of a run."""
    paces = _current.get()
    return None if paces is None else paces.of(model)


def _now() -> float:
    return asyncio.get_running_loop().time()
