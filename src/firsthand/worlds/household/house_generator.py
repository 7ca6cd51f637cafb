"""Generates houses for ALFWorld's six types of task, the same for a seed on any machine, at three levels of difficulty.

| level | rooms | receptacles | closed receptacles | other objects |
|---|---|---|---|---|
| 1 | one | about 6 | none but appliances | few |
| 2 | one | about 14 | some | as in ALFWorld |
| 3 | two to four | 25 and more | most | many, of the wanted kinds' look-alikes too |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from firsthand.loop.concurrency import derive_seed
from firsthand.worlds.household.house import GOAL_KINDS, GoalKind, House, HouseGoal, Receptacle, Thing

HOUSE_VERSION = 1
"""Goes up when the same seed gives other houses."""
HOUSE_LEVELS = (1, 2, 3)
ROOMS: Mapping[str, Mapping[str, tuple[int, int, int]]] = {
    "kitchen": {
        "cabinet": (1, 4, 6),
        "countertop": (1, 2, 3),
        "drawer": (0, 2, 4),
        "diningtable": (1, 1, 1),
        "fridge": (1, 1, 1),
        "garbagecan": (0, 1, 1),
        "microwave": (1, 1, 1),
        "sinkbasin": (1, 1, 1),
        "stoveburner": (0, 2, 4),
    },
    "bedroom": {
        "bed": (1, 1, 1),
        "desk": (1, 1, 2),
        "drawer": (1, 4, 6),
        "dresser": (1, 1, 1),
        "garbagecan": (0, 1, 1),
        "shelf": (1, 3, 5),
        "sidetable": (1, 2, 2),
    },
    "bathroom": {
        "bathtubbasin": (0, 1, 1),
        "cabinet": (1, 4, 4),
        "countertop": (1, 1, 1),
        "garbagecan": (1, 1, 1),
        "shelf": (1, 2, 2),
        "sinkbasin": (1, 1, 2),
        "toilet": (1, 1, 1),
    },
    "livingroom": {
        "armchair": (1, 1, 2),
        "coffeetable": (1, 1, 1),
        "drawer": (0, 3, 4),
        "garbagecan": (0, 1, 1),
        "shelf": (1, 2, 4),
        "sidetable": (1, 2, 3),
        "sofa": (1, 1, 1),
    },
}
"""Room -> kind of receptacle -> its number at each level."""
OPENABLE = frozenset({"cabinet", "drawer", "fridge", "microwave"})
FOOD = ("apple", "bread", "egg", "lettuce", "potato", "tomato")
DISHES = ("bowl", "cup", "mug", "plate")
TOOLS = ("butterknife", "fork", "knife", "pan", "pot", "spatula", "spoon")
SMALL = ("alarmclock", "book", "cd", "cellphone", "creditcard", "keychain", "laptop", "pen", "pencil", "watch")
WASHING = ("candle", "cloth", "soapbar", "soapbottle", "spraybottle", "toiletpaper")
KINDS_OF: Mapping[str, tuple[str, ...]] = {
    "kitchen": (*FOOD, *DISHES, *TOOLS, "peppershaker", "saltshaker"),
    "bedroom": SMALL,
    "bathroom": WASHING,
    "livingroom": (*SMALL, "newspaper", "remotecontrol", "statue"),
}
CLEANABLE = frozenset({*FOOD, *DISHES, *TOOLS, "cloth", "soapbar"}) - {"bread"}
HEATABLE = frozenset({"apple", "bread", "cup", "egg", "mug", "plate", "potato", "tomato"})
COOLABLE = frozenset({*FOOD, *DISHES, "pan", "pot"})
ACCEPTS: Mapping[str, frozenset[str]] = {
    "fridge": frozenset({*FOOD, *DISHES, "pan", "pot"}),
    "microwave": HEATABLE | {"bowl"},
    "sinkbasin": CLEANABLE,
    "bathtubbasin": frozenset({"cloth", "soapbar"}),
    "stoveburner": frozenset({"pan", "pot"}),
    "toilet": frozenset(WASHING),
}
"""Kinds of receptacle that hold only some kinds of object."""
_FITTING: Mapping[GoalKind, tuple[str, frozenset[str] | None]] = {
    "pick_clean_then_place": ("kitchen", CLEANABLE),
    "pick_heat_then_place": ("kitchen", HEATABLE),
    "pick_cool_then_place": ("kitchen", COOLABLE),
    "look_at_obj": ("bedroom", None),
}
"""Type of task -> the room it needs, and the kinds of object it can be about; None for any of the room."""
_WORDS: Mapping[GoalKind, tuple[str, ...]] = {
    "pick_and_place": ("put a {thing} in {place}.", "put some {thing} on {place}."),
    "pick_clean_then_place": ("put a clean {thing} in {place}.", "clean some {thing} and put it in {place}."),
    "pick_heat_then_place": ("put a hot {thing} in {place}.", "heat some {thing} and put it in {place}."),
    "pick_cool_then_place": ("put a cool {thing} in {place}.", "cool some {thing} and put it in {place}."),
    "look_at_obj": ("look at {thing} under the {place}.", "examine the {thing} with the {place}."),
    "pick_two_obj": ("put two {thing} in {place}.", "find two {thing} and put them in {place}."),
}


def make_house(seed: int, index: int, level: int) -> House:
    """House number `index` of a seed; the types of task take turns."""
    rng = Random(derive_seed("household", HOUSE_VERSION, seed, index, level))
    kind = GOAL_KINDS[index % len(GOAL_KINDS)]
    rooms = _rooms(rng, kind, level)
    receptacles = _receptacles(rng, rooms, level)
    goal = _goal(rng, kind, rooms[0], receptacles)
    things = _things(rng, rooms, receptacles, goal, level)
    task = rng.choice(_WORDS[kind]).format(thing=goal.thing, place=goal.receptacle)
    return House(f"seed{seed}-level{level}-{index:04d}", task, receptacles, things, goal, ACCEPTS)


def _rooms(rng: Random, kind: GoalKind, level: int) -> list[str]:
    """The rooms; the task's own comes first."""
    own = _FITTING[kind][0] if kind in _FITTING else rng.choice(sorted(ROOMS))
    others = [room for room in sorted(ROOMS) if room != own]
    return [own, *(rng.sample(others, rng.randint(1, 3)) if level == 3 else [])]


def _receptacles(rng: Random, rooms: Sequence[str], level: int) -> tuple[Receptacle, ...]:
    numbers: dict[str, int] = {}
    found = []
    for room in rooms:
        for kind, counts in ROOMS[room].items():
            for _ in range(counts[level - 1]):
                numbers[kind] = numbers.get(kind, 0) + 1
                openable = kind in OPENABLE
                stands_open = openable and kind in ("cabinet", "drawer") and (level == 1 or rng.random() < 0.2)
                found.append(Receptacle(f"{kind} {numbers[kind]}", kind, openable, stands_open, room))
    return tuple(found)


def _goal(rng: Random, kind: GoalKind, room: str, receptacles: Sequence[Receptacle]) -> HouseGoal:
    fitting = _FITTING.get(kind, (room, None))[1]
    thing = rng.choice(sorted(each for each in KINDS_OF[room] if fitting is None or each in fitting))
    if kind == "look_at_obj":
        return HouseGoal(kind, thing, "desklamp")
    places = sorted({r.kind for r in receptacles if r.room == room and _holds(r, thing)} - {"sinkbasin", "microwave"})
    return HouseGoal(kind, thing, rng.choice(places), 2 if kind == "pick_two_obj" else 1)


def _things(
    rng: Random, rooms: Sequence[str], receptacles: Sequence[Receptacle], goal: HouseGoal, level: int
) -> tuple[Thing, ...]:
    """The wanted objects, outside of the receptacles that the goal names, and others anywhere."""
    numbers: dict[str, int] = {}
    found: list[Thing] = []

    def add(kind: str, places: Sequence[Receptacle]) -> None:
        numbers[kind] = numbers.get(kind, 0) + 1
        found.append(Thing(f"{kind} {numbers[kind]}", kind, rng.choice(places).name, abilities_of(kind)))

    own = [each for each in receptacles if each.room == rooms[0] and each.kind != goal.receptacle]
    spare = 1 if level == 1 else rng.randint(0, 1)
    for _ in range(goal.count + spare):
        add(goal.thing, [each for each in own if _holds(each, goal.thing)])
    if goal.kind == "look_at_obj":
        add("desklamp", [each for each in receptacles if each.kind in ("desk", "sidetable", "dresser")])
    for room in rooms:
        here = [each for each in receptacles if each.room == room]
        for kind in KINDS_OF[room]:
            if kind != goal.thing and rng.random() < (0.3, 0.6, 0.9)[level - 1]:
                for _ in range(rng.randint(1, level)):
                    add(kind, [each for each in here if _holds(each, kind)])
    rng.shuffle(found)
    return tuple(found)


def _holds(receptacle: Receptacle, kind: str) -> bool:
    return receptacle.kind not in ACCEPTS or kind in ACCEPTS[receptacle.kind]


def abilities_of(kind: str) -> frozenset[str]:
    """Actions that are possible on objects of a kind; see `Thing.abilities`."""
    able = {
        "clean": kind in CLEANABLE,
        "heat": kind in HEATABLE,
        "cool": kind in COOLABLE,
        "use": kind == "desklamp",
        "fixed": kind == "desklamp",
        "slice": kind in ("apple", "bread", "lettuce", "potato", "tomato"),
        "cut": kind in ("knife", "butterknife"),
    }
    return frozenset(name for name, holds in able.items() if holds)
