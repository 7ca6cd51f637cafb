"""TurnSlots: the turns of a served agent that may be under way at a time, handed out to its clients in turn.

A free slot goes to the client with the fewest turns under way, and of equals to the one that was served least recently, so
that a client who comes waits for one turn to end and not for all that another one has asked for before.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

_KEPT_OF = 8
"""Of so many slots one is kept from any one client where there are several."""


class TurnSlots:
    """Slots of one event loop."""

    def __init__(self, most: int):
        """`most` is the number of slots, and of one client's until `share` is called."""
        self.most = self.most_own = most
        self._under_way: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._served: dict[str, int] = {}
        """The number of each client's last slot; there are as many as keys. One that came back as if it had never been
        served would go before those who wait."""
        self._handed = 0

    def share(self, num_clients: int) -> None:
        """Keep one slot of eight free of any one client's turns, if there are others who may come."""
        self.most_own = self.most - self.most // _KEPT_OF if num_clients > 1 else self.most

    @asynccontextmanager
    async def taken(self, owner: str) -> AsyncGenerator[None, None]:
        """A slot for a turn of `owner`, from its turn to come until the end of the block."""
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(slot)
        self._hand_out()
        try:
            await slot
            yield
        finally:
            self._give_back(owner, slot)

    def _give_back(self, owner: str, slot: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(owner)
        if waiting is not None and slot in waiting:  # cancelled before its turn came
            waiting.remove(slot)
            if not waiting:
                del self._waiting[owner]
        else:
            self._under_way[owner] -= 1
        if not self._under_way[owner]:
            del self._under_way[owner]
        self._hand_out()

    def _hand_out(self) -> None:
        while self._under_way.total() < self.most:
            owners = [each for each in self._waiting if self._under_way[each] < self.most_own]
            if not owners:
                return
            owner = min(owners, key=lambda each: (self._under_way[each], self._served.get(each, 0)))
            waiting = self._waiting[owner]
            slot = waiting.popleft()
            if not waiting:
                del self._waiting[owner]
            self._handed += 1
            self._served[owner] = self._handed
            self._under_way[owner] += 1
            if not slot.done():  # else it was cancelled and gives its slot back at once
                slot.set_result(None)
