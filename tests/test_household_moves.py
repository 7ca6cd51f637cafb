"""The native moves of a household: each is its text action, and what is refused is told so."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dealt_random import Dealt
from firsthand.worlds.household.house import House, HouseGoal, Receptacle, Thing
from firsthand.worlds.household.household_world import HouseholdWorld
from firsthand.worlds.world import InvalidAction, RefusedAction, WorldCall

ABLE = frozenset({"clean", "heat", "cool"})
HOUSE = House(
    "h", "put a clean mug in drawer.",
    (Receptacle("drawer 1", "drawer", True, False), Receptacle("sinkbasin 1", "sinkbasin"), Receptacle("shelf 1", "shelf")),
    (Thing("mug 1", "mug", "shelf 1", ABLE), Thing("plate 1", "plate", "shelf 1", ABLE)),
    HouseGoal("pick_clean_then_place", "mug", "drawer"),
)  # fmt: skip


class Echo:
    """A game that answers with the action, or that nothing happens."""

    def __init__(self, refuses: bool = False) -> None:
        self.refuses = refuses

    def act(self, action: str) -> str:
        return f"Nothing happens. ({action})" if self.refuses else action


def test_each_move_is_the_text_action_with_its_words_in_their_places() -> None:
    world = HouseholdWorld(HOUSE)
    texts = {
        "go_to": "go to b", "open_receptacle": "open b", "close_receptacle": "close b", "take": "take a from b",
        "put": "put a in/on b", "use": "use a", "clean": "clean a with b", "heat": "heat a with b", "cool": "cool a with b",
        "slice": "slice a with k", "examine": "examine n", "look": "look", "inventory": "inventory", "think": "think: t",
    }  # fmt: skip
    assert [move.__name__ for move in world.moves] == list(texts)
    words = {"thing": "a", "receptacle": "b", "knife": "k", "name": "n", "thought": "t"}
    for refuses in (False, True):
        world.game = Echo(refuses)  # type: ignore[assignment]
        for move in world.moves:
            names = [name for name in words if name in move.__annotations__]
            found = asyncio.run(move(**{name: words[name] for name in names}))
            text = texts[move.__name__]
            assert found == (f"Nothing happens. ({text})" if refuses else text)
            assert isinstance(found, RefusedAction) is refuses
    world.game = Echo()  # type: ignore[assignment]
    assert asyncio.run(world.think("x" * 101)) == f"think: {'x' * 100}"


def test_a_game_is_played_to_its_end_by_the_plan_and_begins_anew() -> None:
    world: Any = HouseholdWorld(HOUSE, explain=True)
    asyncio.run(world.open())
    assert world.render().startswith("task: put a clean mug in drawer.\n[room]\n") and world.form is None
    done = []
    while world.ending is None:
        action = world.optimal()
        done.append(action)
        call = world.read(action)
        asyncio.run(next(each for each in world.moves if each.__name__ == call.name)(**call.arguments))
    assert done == [
        "go to shelf 1", "take mug 1 from shelf 1", "go to sinkbasin 1", "clean mug 1 with sinkbasin 1", "go to drawer 1",
        "open drawer 1", "put mug 1 in/on drawer 1",
    ]  # fmt: skip
    assert world.ending == "won" and world.optimal() == "look"
    assert asyncio.run(world.result()) == {"won": True, "refused": 0}
    told = asyncio.run(world.open_receptacle("drawer 1"))
    assert told.startswith("Nothing happens. (") and isinstance(told, RefusedAction)
    assert asyncio.run(world.result()) == {"won": True, "refused": 1}
    listed = world.admissible()
    assert world.random(Dealt(1)) == listed[1] and listed[-2:] == ["inventory", "look"]
    with pytest.raises(InvalidAction) as error:
        world.read("dance")
    assert str(error.value) == (
        "Nothing happens. Write one command: go to, open, close, take ... from, put ... in/on, use, clean, heat, cool or "
        "slice ... with, examine, look, inventory"
    )
    assert world.read("Move Mug 1 to drawer 1.") == WorldCall("put", {"thing": "mug 1", "receptacle": "drawer 1"})
    asyncio.run(world.close())
    asyncio.run(world.open())
    assert asyncio.run(world.result()) == {"won": False, "refused": 0} and world.optimal() == "go to shelf 1"
