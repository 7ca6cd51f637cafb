"""A house and ALFWorld's text game in it (Shridhar et al., ICLR 2021).

The rules are those of ALFWorld's `alfred.pddl`: one object in hand at a time; a closed receptacle must be opened before
something is taken or put; clean with a sink basin, heat with a microwave, cool with a fridge, each while the object is held.
An action that is not possible is answered by "Nothing happens." and still counts as a step.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

GoalKind = Literal[
    "pick_and_place",
    "pick_clean_then_place",
    "pick_heat_then_place",
    "pick_cool_then_place",
    "look_at_obj",
    "pick_two_obj",
]
GOAL_KINDS: tuple[GoalKind, ...] = (
    "pick_and_place",
    "pick_clean_then_place",
    "pick_heat_then_place",
    "pick_cool_then_place",
    "look_at_obj",
    "pick_two_obj",
)
"""ALFWorld's six types of task, by AgentBench's names."""
NOTHING = "Nothing happens."
CHANGES: Mapping[str, tuple[str, str]] = {
    "clean": ("sinkbasin", "clean"),
    "heat": ("microwave", "hot"),
    "cool": ("fridge", "cool"),
}
"""Verb -> the kind of receptacle it needs, and the state it leaves."""
NEEDED_STATE: Mapping[GoalKind, str] = {
    "pick_clean_then_place": "clean",
    "pick_heat_then_place": "hot",
    "pick_cool_then_place": "cool",
}
MAX_ACTION_CHARS = 200
"""Longer actions are no action of this game."""
_ACTIONS: tuple[tuple[str, tuple[str, ...], re.Pattern[str]], ...] = (
    ("go_to", ("receptacle",), re.compile(r"go to (.+)")),
    ("open_receptacle", ("receptacle",), re.compile(r"open (.+)")),
    ("close_receptacle", ("receptacle",), re.compile(r"close (.+)")),
    ("take", ("thing", "receptacle"), re.compile(r"take (.+) from (.+)")),
    ("put", ("thing", "receptacle"), re.compile(r"(?:put|move) (.+?) (?:in/on|in|on|into|to) (.+)")),
    ("use", ("thing",), re.compile(r"use (.+)")),
    ("clean", ("thing", "receptacle"), re.compile(r"clean (.+) with (.+)")),
    ("heat", ("thing", "receptacle"), re.compile(r"heat (.+) with (.+)")),
    ("cool", ("thing", "receptacle"), re.compile(r"cool (.+) with (.+)")),
    ("slice", ("thing", "knife"), re.compile(r"slice (.+) with (.+)")),
    ("examine", ("name",), re.compile(r"examine (.+)")),
    ("look", (), re.compile(r"look")),
    ("inventory", (), re.compile(r"inventory")),
)
"""Name of an action, its arguments, and its text."""


def parse_household(action: str) -> tuple[str, dict[str, str]] | None:
    """The name and the arguments of a text action; None if it is outside the grammar."""
    action = " ".join(action[: MAX_ACTION_CHARS + 1].split())
    if len(action) > MAX_ACTION_CHARS:
        return None
    if action.lower().startswith("think:"):
        return "think", {"thought": action[len("think:") :].strip()}
    for name, arguments, form in _ACTIONS:
        if found := form.fullmatch(action.lower().rstrip(".")):
            return name, dict(zip(arguments, found.groups(), strict=True))
    return None


@dataclass(frozen=True)
class Receptacle:
    """A place that holds objects, such as `cabinet 3`."""

    name: str
    kind: str
    openable: bool = False
    opened: bool = False
    room: str = ""
    """The room it stands in, for people; the agent walks between any two receptacles in one action, as in ALFWorld."""
    spot: str = ""
    """The location to stand at, which close receptacles share; empty for one of its own."""

    @property
    def location(self) -> str:
        """The location to stand at."""
        return self.spot or self.name


@dataclass(frozen=True)
class Thing:
    """An object, such as `apple 1`, and the receptacle it begins in."""

    name: str
    kind: str
    place: str
    abilities: frozenset[str] = frozenset()
    """Of `clean`, `heat`, `cool`, `use` (a lamp), `slice` (can be sliced), `cut` (a knife) and `fixed` (cannot be taken)."""


@dataclass(frozen=True)
class HouseGoal:
    """The goal: `count` objects of a kind in or on one receptacle of a kind, in the state of the type."""

    kind: GoalKind
    thing: str
    receptacle: str
    """A kind of receptacle; of a lamp for `look_at_obj`."""
    count: int = 1


@dataclass(frozen=True)
class House:
    """All that a game begins with."""

    id: str
    task: str
    """The task in ALFWorld's words, such as `put a clean mug in cabinet.`"""
    receptacles: tuple[Receptacle, ...]
    things: tuple[Thing, ...]
    goal: HouseGoal
    accepts: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Kind of receptacle -> kinds of object that it can hold; a kind without an entry holds anything."""


class HouseGame:
    """A game in a house: `act` with a line of text; `is_won` once the goal holds."""

    def __init__(self, house: House, *, explain: bool = False) -> None:
        """Begin in the middle of the room. With `explain` a refused action is followed by its reason in parentheses."""
        self.house, self.explain = house, explain
        self.at = ""
        """The location where the agent stands; empty in the middle of the room."""
        self.steps = self.refused = 0
        self.places = {thing.name: thing.place for thing in house.things}
        self.states: dict[str, set[str]] = {thing.name: set() for thing in house.things}
        self.opened = {each.name for each in house.receptacles if each.opened}
        self._receptacles = {each.name: each for each in house.receptacles}
        self._things = {each.name: each for each in house.things}

    @property
    def opening(self) -> str:
        """The first observation: the receptacles, and the task."""
        return f"{self._look()}\nYour task is to: {self.house.task}"

    @property
    def reached(self) -> list[Receptacle]:
        """The receptacles at the agent's location."""
        return [each for each in self.house.receptacles if each.location == self.at]

    @property
    def held(self) -> str | None:
        """The object in hand."""
        return next((name for name, place in self.places.items() if place == "hand"), None)

    @property
    def is_won(self) -> bool:
        """True once the goal holds."""
        goal = self.house.goal
        mine = [each.name for each in self.house.things if each.kind == goal.thing]
        if goal.kind == "look_at_obj":
            lamps = [e.name for e in self.house.things if e.kind == goal.receptacle and "used" in self.states[e.name]]
            return self.held in mine and any(each.name == self.places[lamp] for each in self.reached for lamp in lamps)
        needed = NEEDED_STATE.get(goal.kind)
        for receptacle in self.house.receptacles:
            here = [name for name in mine if self.places[name] == receptacle.name]
            done = [name for name in here if needed is None or needed in self.states[name]]
            if receptacle.kind == goal.receptacle and len(done) >= goal.count:
                return True
        return False

    def act(self, action: str) -> str:
        """The observation after an action; one that cannot be done changes nothing."""
        self.steps += 1
        found = parse_household(action)
        if found is None:
            return self._refuse("that is no action of this game")
        name, given = found
        if name in ("clean", "heat", "cool"):
            return self._change(name, *given.values())
        return str(getattr(self, f"_{name}")(*given.values()))

    def admissible(self) -> list[str]:
        """The actions that are possible now, in a fixed order."""
        found = [f"go to {each.name}" for each in self.house.receptacles if each.location != self.at]
        for here in self.reached:
            if here.openable:
                found.append(f"close {here.name}" if here.name in self.opened else f"open {here.name}")
            for name in self._seen_in(here):
                if self.held is None and "fixed" not in self._things[name].abilities:
                    found.append(f"take {name} from {here.name}")
                found += [f"use {name}"] * ("use" in self._things[name].abilities)
                found += [f"slice {name} with {self.held}"] * self._can_slice(name, self.held)
                found.append(f"examine {name}")
            found.append(f"examine {here.name}")
            if self.held is not None:
                found += [f"put {self.held} in/on {here.name}"] * self._can_put(self.held, here)
                for verb, (kind, _) in CHANGES.items():
                    able = verb in self._things[self.held].abilities and here.kind == kind
                    found += [f"{verb} {self.held} with {here.name}"] * able
        if self.held is not None:
            found.append(f"examine {self.held}")
        return [*found, "inventory", "look"]

    def render(self) -> str:
        """The whole house as a person may want to see it: rooms, receptacles, and what lies in them."""
        lines, room = [], None
        for each in self.house.receptacles:
            if each.room != room:
                room = each.room
                lines.append(f"[{room or 'room'}]")
            mark = "*" if each.location == self.at else " "
            shut = " (closed)" if each.openable and each.name not in self.opened else ""
            inside = ", ".join(self._described(name) for name in self._in(each.name)) or "-"
            lines.append(f" {mark}{each.name}{shut}: {inside}")
        return "\n".join([*lines, f"in hand: {self._described(self.held) if self.held else 'nothing'}"])

    def _described(self, name: str) -> str:
        states = ", ".join(sorted(self.states[name]))
        return f"{name} ({states})" if states else name

    def _refuse(self, reason: str) -> str:
        self.refused += 1
        return f"{NOTHING} ({reason})" if self.explain else NOTHING

    def _in(self, receptacle: str) -> list[str]:
        return [name for name, place in self.places.items() if place == receptacle]

    def _is_shut(self, receptacle: Receptacle) -> bool:
        return receptacle.openable and receptacle.name not in self.opened

    def _seen_in(self, receptacle: Receptacle) -> list[str]:
        return [] if self._is_shut(receptacle) else self._in(receptacle.name)

    def _visible(self) -> list[str]:
        return [name for each in self.reached for name in self._seen_in(each)]

    def _can_put(self, name: str, receptacle: Receptacle) -> bool:
        accepted = self.house.accepts.get(receptacle.kind)
        return not self._is_shut(receptacle) and (accepted is None or self._things[name].kind in accepted)

    def _can_slice(self, name: str, knife: str | None) -> bool:
        cuts = knife is not None and "cut" in self._things[knife].abilities
        return cuts and "slice" in self._things[name].abilities and "sliced" not in self.states[name]

    def _go_to(self, name: str) -> str:
        there = self._receptacles.get(name)
        if there is None or there.location == self.at:
            return self._refuse(f"there is no {name} to go to" if there is None else f"you stand at {name}")
        self.at = there.location
        return f"You arrive at {name}. {self._contents(there)}"

    def _open_receptacle(self, name: str) -> str:
        here = self._here(name)
        if here is None or not self._is_shut(here):
            return self._refuse(
                f"you cannot open {name} from here" if here is None else f"{name} cannot be opened further"
            )
        self.opened.add(name)
        return f"You open the {name}. {self._contents(here)}"

    def _close_receptacle(self, name: str) -> str:
        here = self._here(name)
        if here is None or not here.openable or name not in self.opened:
            return self._refuse(f"{name} is not an open receptacle where you are")
        self.opened.discard(name)
        return f"You close the {name}."

    def _take(self, name: str, receptacle: str) -> str:
        here = self._here(receptacle)
        if here is None or name not in self._seen_in(here):
            return self._refuse(f"you see no {name} at {receptacle}")
        if self.held is not None or "fixed" in self._things[name].abilities:
            return self._refuse(f"you hold {self.held}" if self.held else f"{name} cannot be taken")
        self.places[name] = "hand"
        return f"You pick up the {name} from the {receptacle}."

    def _put(self, name: str, receptacle: str) -> str:
        here = self._here(receptacle)
        if self.held != name or here is None:
            return self._refuse(f"you do not hold {name}" if self.held != name else f"you are not at {receptacle}")
        if not self._can_put(name, here):
            return self._refuse(
                f"{receptacle} is closed" if self._is_shut(here) else f"{receptacle} cannot hold {name}"
            )
        del self.places[name]
        self.places[name] = receptacle
        return f"You put the {name} in/on the {receptacle}."

    def _use(self, name: str) -> str:
        if name not in self._visible() or "use" not in self._things[name].abilities:
            return self._refuse(f"there is no {name} here that can be switched on")
        state = self.states[name]
        state.add("used")
        state.symmetric_difference_update({"on"})
        return f"You turn {'on' if 'on' in state else 'off'} the {name}."

    def _change(self, verb: str, name: str, receptacle: str) -> str:
        here, (kind, state) = self._here(receptacle), CHANGES[verb]
        if self.held != name or here is None or here.kind != kind or verb not in self._things[name].abilities:
            return self._refuse(f"to {verb} something, hold it at a {kind}; not everything can be")
        self.states[name] -= {"hot", "cool"} if verb in ("heat", "cool") else set()
        self.states[name].add(state)
        return f"You {verb} the {name} using the {receptacle}."

    def _slice(self, name: str, knife: str) -> str:
        if name not in self._visible() or self.held != knife or not self._can_slice(name, knife):
            return self._refuse("hold a knife, and be where the thing to slice is")
        self.states[name].add("sliced")
        return f"You sliced the {name} with the {knife}."

    def _examine(self, name: str) -> str:
        if (here := self._here(name)) is not None:
            return self._contents(here)
        if name != self.held and name not in self._visible():
            return self._refuse(f"you see no {name}")
        able, states = self._things[name].abilities, self.states[name]
        if "use" in able:
            return f"This {name} is {'on' if 'on' in states else 'off'}."
        words: list[str] = [word for word in ("hot", "cool", "clean") if word in states]
        words = ["cold"] if words == ["cool"] and "sliced" not in states else words
        described = " ".join([" and ".join(words), *(["sliced"] if "sliced" in states else [])]).strip()
        return f"This is a {described} {name}." if described else f"There's nothing special about {name}."

    def _think(self, thought: str) -> str:
        return "OK."

    def _here(self, name: str) -> Receptacle | None:
        found = self._receptacles.get(name)
        return found if found is not None and found.location == self.at else None

    def _contents(self, receptacle: Receptacle) -> str:
        if self._is_shut(receptacle):
            return f"The {receptacle.name} is closed."
        seen = listed(self._in(receptacle.name))
        if receptacle.openable:
            return f"The {receptacle.name} is open. In it, you see {seen}."
        return f"On the {receptacle.name}, you see {seen}."

    def _look(self) -> str:
        if self.at:
            facing = listed((each.name for each in self.reached), "")
            return f"You are facing the {facing}. Next to it, you see nothing."
        seen = listed(each.name for each in self.house.receptacles)
        return f"You are in the middle of a room. Looking quickly around you, you see {seen}."

    def _inventory(self) -> str:
        return f"You are carrying: a {self.held}." if self.held else "You are not carrying anything."


def listed(names: Iterable[str], article: str = "a ") -> str:
    """`a mug 1, and a plate 2`, as ALFWorld lists things; `nothing` if there are none."""
    each: Sequence[str] = [f"{article}{name}" for name in names]
    if not each:
        return "nothing"
    return each[0] if len(each) == 1 else ", ".join(each[:-1]) + f", and {each[-1]}"
