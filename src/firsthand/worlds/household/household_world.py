"""The household game as a World: ALFWorld's text actions, and the same actions as native tools."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import Random

from firsthand.message import Json
from firsthand.worlds.household.house import NOTHING, House, HouseGame, parse_household
from firsthand.worlds.household.house_player import house_solution
from firsthand.worlds.world import InvalidAction, RefusedAction, WorldCall

INSTRUCTIONS = """You are in a house and do a task by short text commands, one in a turn. The commands are:
go to RECEPTACLE | open RECEPTACLE | close RECEPTACLE | take OBJECT from RECEPTACLE | put OBJECT in/on RECEPTACLE |
use OBJECT | clean OBJECT with RECEPTACLE | heat OBJECT with RECEPTACLE | cool OBJECT with RECEPTACLE |
slice OBJECT with OBJECT | examine OBJECT or RECEPTACLE | look | inventory
Objects and receptacles are named with their number, such as mug 1 and cabinet 3. You carry one object at a time, and see
what a receptacle holds when you are at it and it is open. "Nothing happens." means that the command was not possible.

"""


class HouseholdWorld:
    """A game in a house. `World` describes the interface."""

    examples = ("go to shelf 1", "take mug 1 from shelf 1")

    def __init__(self, house: House, *, explain: bool = False) -> None:
        """A house; with `explain` a refused action is answered with its reason too."""
        self.house, self.explain = house, explain

    async def open(self) -> None:
        """Begin the game."""
        self.game = HouseGame(self.house, explain=self.explain)

    async def close(self) -> None:
        """Nothing is held."""

    @property
    def ending(self) -> str | None:
        """`won` once the goal holds."""
        return "won" if self.game.is_won else None

    @property
    def form(self) -> str | None:
        """None: the admissible actions are listed."""
        return None

    @property
    def moves(self) -> Sequence[Callable[..., Awaitable[str]]]:
        """ALFWorld's actions."""
        return (
            self.go_to,
            self.open_receptacle,
            self.close_receptacle,
            self.take,
            self.put,
            self.use,
            self.clean,
            self.heat,
            self.cool,
            self.slice,
            self.examine,
            self.look,
            self.inventory,
            self.think,
        )

    def read(self, action: str) -> WorldCall:
        """The move that a text action means."""
        found = parse_household(action)
        if found is None:
            raise InvalidAction(
                f"{NOTHING} Write one command: go to, open, close, take ... from, put ... in/on, use, clean, heat, cool or "
                "slice ... with, examine, look, inventory"
            )
        return WorldCall(*found)

    def admissible(self) -> Sequence[str]:
        """The actions that are possible now."""
        return self.game.admissible()

    def render(self) -> str:
        """The task, and the whole house."""
        return f"task: {self.house.task}\n{self.game.render()}"

    async def result(self) -> Json:
        """If the goal holds, and how many actions were refused."""
        return {"won": self.game.is_won, "refused": self.game.refused}

    def optimal(self) -> str:
        """The next action of a plan that is made anew from where the game stands."""
        return next(iter(house_solution(self.game)), "look")

    def random(self, rng: Random) -> str:
        """One of the actions that are possible now."""
        return rng.choice(self.admissible())

    def _act(self, action: str) -> str:
        observed = self.game.act(action)
        return RefusedAction(observed) if observed.startswith(NOTHING) else observed

    async def go_to(self, receptacle: str) -> str:
        """Walk to a receptacle; says what is seen there.

        Args:
            receptacle: Its name and number, such as cabinet 3.
        """
        return self._act(f"go to {receptacle}")

    async def open_receptacle(self, receptacle: str) -> str:
        """Open the receptacle where you are.

        Args:
            receptacle: Its name and number.
        """
        return self._act(f"open {receptacle}")

    async def close_receptacle(self, receptacle: str) -> str:
        """Close the receptacle where you are.

        Args:
            receptacle: Its name and number.
        """
        return self._act(f"close {receptacle}")

    async def take(self, thing: str, receptacle: str) -> str:
        """Take an object; you can carry one.

        Args:
            thing: The object's name and number.
            receptacle: The receptacle where you are, which holds it.
        """
        return self._act(f"take {thing} from {receptacle}")

    async def put(self, thing: str, receptacle: str) -> str:
        """Put the object that you carry in or on a receptacle.

        Args:
            thing: The object's name and number.
            receptacle: The receptacle where you are.
        """
        return self._act(f"put {thing} in/on {receptacle}")

    async def use(self, thing: str) -> str:
        """Switch a lamp on or off.

        Args:
            thing: The lamp's name and number.
        """
        return self._act(f"use {thing}")

    async def clean(self, thing: str, receptacle: str) -> str:
        """Clean the object that you carry.

        Args:
            thing: The object's name and number.
            receptacle: A sinkbasin where you are.
        """
        return self._act(f"clean {thing} with {receptacle}")

    async def heat(self, thing: str, receptacle: str) -> str:
        """Heat the object that you carry.

        Args:
            thing: The object's name and number.
            receptacle: A microwave where you are.
        """
        return self._act(f"heat {thing} with {receptacle}")

    async def cool(self, thing: str, receptacle: str) -> str:
        """Cool the object that you carry.

        Args:
            thing: The object's name and number.
            receptacle: A fridge where you are.
        """
        return self._act(f"cool {thing} with {receptacle}")

    async def slice(self, thing: str, knife: str) -> str:
        """Slice an object that you see with the knife that you carry.

        Args:
            thing: The object's name and number.
            knife: The knife's name and number.
        """
        return self._act(f"slice {thing} with {knife}")

    async def examine(self, name: str) -> str:
        """Look at an object or a receptacle closely.

        Args:
            name: Its name and number.
        """
        return self._act(f"examine {name}")

    async def look(self) -> str:
        """Look around."""
        return self._act("look")

    async def inventory(self) -> str:
        """Say what you carry."""
        return self._act("inventory")

    async def think(self, thought: str) -> str:
        """Think, which changes nothing.

        Args:
            thought: Any text.
        """
        return self._act(f"think: {thought[:100]}")
