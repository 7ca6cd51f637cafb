"""An event loop whose clock jumps to what it waits for, so that tests of time limits take no time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class _Jumping(selectors.DefaultSelector):
    """Passes the time that it is asked to wait without waiting; waits for what has no time."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            return super().select(None)
        self.now += max(0.0, timeout)
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    """The clock begins at 0. No thread or socket may be waited for beside a timer."""

    def __init__(self) -> None:
        self._selector_of_time = _Jumping()
        super().__init__(self._selector_of_time)

    def time(self) -> float:
        return self._selector_of_time.now


def run_by_the_clock(work: Coroutine[Any, Any, Any]) -> tuple[Any, float]:
    """What the work returns, or the error that it raises, and the seconds that it took by the loop's clock."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:

        async def timed() -> tuple[Any, float]:
            try:
                found = await work
            except Exception as error:
                found = error
            return found, asyncio.get_running_loop().time()

        return runner.run(timed())
