"""Slots for the turns of a served agent: who is next, how many one client has, and those that are given up."""

from __future__ import annotations

import asyncio
from pathlib import Path

from firsthand.serve.agents.agent_doors import opened_sessions
from firsthand.serve.agents.served_sessions import ServedSessions
from firsthand.serve.agents.session_settings import SessionSettings
from firsthand.serve.agents.turn_slots import TurnSlots
from served_agent import Desk, clerk


class Turns:
    """Turns that last until they are ended by name."""

    def __init__(self, slots: TurnSlots):
        self.slots, self.begun = slots, list[str]()
        self._ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, *names: str) -> list[str]:
        """Ask for turns, each named OWNER and a digit; those that have begun so far."""
        for name in names:
            self._ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._turn(name))
        return await self.now()

    async def end(self, *names: str) -> list[str]:
        for name in names:
            self._ends[name].set()
            await self.tasks[name]
        return await self.now()

    async def now(self) -> list[str]:
        for _ in range(5):
            await asyncio.sleep(0)
        begun, self.begun = self.begun, []
        return begun

    async def _turn(self, name: str) -> None:
        async with self.slots.taken(name[:-1]):
            self.begun.append(name)
            await self._ends[name].wait()


def test_a_free_slot_goes_to_the_client_with_the_fewest_turns_under_way() -> None:
    async def main() -> None:
        turns = Turns(TurnSlots(3))
        assert await turns.ask("ann1", "ann2", "ann3", "ann4", "ann5") == ["ann1", "ann2", "ann3"]
        assert await turns.ask("bob1", "bob2", "cat1") == []
        assert await turns.end("ann2") == ["bob1"], "the first of those who have none"
        assert await turns.end("ann1") == ["cat1"]
        assert await turns.end("cat1") == ["ann4"], "one each of ann and bob: ann was served longer ago"
        assert await turns.end("ann3") == ["bob2"], "one each again: now it is bob"
        assert await turns.end("bob1", "bob2") == ["ann5"] and await turns.end("ann4", "ann5") == []
        assert not turns.slots._under_way and not turns.slots._waiting

    asyncio.run(main())


def test_fewer_turns_under_way_come_before_a_longer_wait() -> None:
    async def main() -> None:
        turns = Turns(TurnSlots(4))
        assert await turns.ask("ann1", "ann2", "bob1", "cat1", "ann3", "bob2") == ["ann1", "ann2", "bob1", "cat1"]
        assert await turns.end("cat1") == ["bob2"], "ann was served longer ago, and has two"
        assert await turns.end("ann1", "bob1") == ["ann3"] and await turns.end("ann2", "ann3", "bob2") == []

    asyncio.run(main())


def test_clients_with_equal_turns_take_turns_and_one_clients_turns_keep_their_order() -> None:
    async def main() -> None:
        turns = Turns(TurnSlots(1))
        assert await turns.ask("ann1", "ann2", "ann3", "bob1", "bob2", "cat1") == ["ann1"]
        order = ["ann1"]
        while len(order) < 6:
            order += await turns.end(order[-1])
        assert order == ["ann1", "bob1", "cat1", "ann2", "bob2", "ann3"]

    asyncio.run(main())


def test_clients_who_ask_again_as_soon_as_they_are_served_do_not_pass_one_who_waits() -> None:
    async def main() -> None:
        turns = Turns(TurnSlots(1))
        assert await turns.ask("ann1", "ann2", "bob1", "cat1") == ["ann1"]
        assert await turns.end("ann1") == ["bob1"] and await turns.end("bob1") == ["cat1"]
        assert await turns.ask("bob2") == [] and await turns.end("cat1") == ["ann2"]
        assert await turns.ask("cat2") == [] and await turns.end("ann2") == ["bob2"]
        assert await turns.end("bob2") == ["cat2"] and await turns.end("cat2") == []

    asyncio.run(main())


def test_a_turn_that_is_given_up_while_it_waits_takes_no_slot_and_one_at_its_turn_gives_it_back() -> None:
    async def main() -> None:
        turns = Turns(TurnSlots(1))
        assert await turns.ask("ann1", "bob1", "cat1", "dan1") == ["ann1"]
        turns.tasks["bob1"].cancel()
        assert await turns.now() == [] and set(turns.slots._waiting) == {"cat", "dan"}
        turns._ends["ann1"].set()
        while turns.slots._under_way["cat"] == 0:
            await asyncio.sleep(0)
        turns.tasks["cat1"].cancel()  # it has its slot, and has not gone on yet
        assert await turns.now() == ["dan1"]
        assert await turns.end("dan1") == [] and turns.slots._under_way.total() == 0

    asyncio.run(main())


def test_with_several_clients_one_slot_in_eight_is_kept_from_any_one_of_them() -> None:
    async def main() -> None:
        for most, clients, own in ((8, 2, 7), (8, 1, 8), (8, 0, 8), (7, 2, 7), (1, 9, 1), (16, 2, 14)):
            slots = TurnSlots(most)
            slots.share(clients)
            turns = Turns(slots)
            assert len(await turns.ask(*(f"ann{chr(97 + n)}" for n in range(20)))) == own, (most, clients)
            assert await turns.ask("bob1") == (["bob1"] if own < most else [])
            for task in turns.tasks.values():
                task.cancel()

    asyncio.run(main())


def test_the_hello_of_a_client_comes_before_the_many_turns_that_another_one_asked_for(tmp_path: Path) -> None:
    desk = Desk()

    async def use(sessions: ServedSessions) -> None:
        begun: list[str] = []
        sessions.on_begin.append(lambda turn: begun.append(turn.context))
        sessions.submit("ann", "wait", context="a0")
        while not desk.waiting.is_set():
            await asyncio.sleep(0.001)
        for number in range(1, 6):
            sessions.submit("ann", "hi", context=f"a{number}")
        await asyncio.sleep(0)
        hello = sessions.submit("bob", "hello", context="b")
        await asyncio.sleep(0.01)
        desk.go.set()
        assert (await sessions.settled(hello.id)).answer == "You said hello, after 0 others."
        assert begun[:2] == ["a0", "b"]

    async def main() -> None:
        with opened_sessions(clerk(desk), tmp_path, tmp_path / "s", SessionSettings(max_turns=1), seed=40) as sessions:
            async with sessions.running():
                await use(sessions)

    asyncio.run(main())
