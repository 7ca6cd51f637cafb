"""Reads ALFWorld's own games, `game.tw-pddl`, from the folder that `alfworld-download` fills.

The layout is ALFWorld's: `FOLDER/json_2.1.1/SPLIT/TYPE-OBJECT-None-RECEPTACLE-SCENE/TRIAL/game.tw-pddl`. A game is a JSON
object whose `pddl_problem` lists the objects and the facts at the beginning. The task and its goal are read from the name of
the folder; the words of the task are ALFWorld's first template. The file's Fast Downward domain is not run: `house.py` has
the same rules. ALFWorld numbers objects of a kind in random order at each start; here they are numbered by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from firsthand.errors import DataError, reason_of
from firsthand.message import Json
from firsthand.system.ordinary_file import read_ordinary_text
from firsthand.worlds.household.house import GoalKind, House, HouseGoal, Receptacle, Thing

GAME_FILE = "game.tw-pddl"
MAX_GAME_BYTES = 8 << 20
MAX_DEPTH = 40
_TYPES: Mapping[str, tuple[GoalKind, str]] = {
    "pick_and_place_simple": ("pick_and_place", "put a {thing} in {place}."),
    "pick_clean_then_place_in_recep": ("pick_clean_then_place", "put a clean {thing} in {place}."),
    "pick_heat_then_place_in_recep": ("pick_heat_then_place", "put a hot {thing} in {place}."),
    "pick_cool_then_place_in_recep": ("pick_cool_then_place", "put a cool {thing} in {place}."),
    "look_at_obj_in_light": ("look_at_obj", "look at {thing} under the {place}."),
    "pick_two_obj_and_place": ("pick_two_obj", "put two {thing} in {place}."),
}
_ABILITIES = {"cleanable": "clean", "heatable": "heat", "coolable": "cool", "toggleable": "use", "sliceable": "slice"}
Expression = str | list["Expression"]


def is_left_out(path: Path) -> bool:
    """True for a game that ALFWorld's own loader leaves out: of sliced things, with a receptacle that moves, or marked as
    one that cannot be solved. DataError if it is no game file."""
    name = path.parent.parent.name
    return "Sliced" in name or "movable" in name or _body(path).get("solvable") is False


def read_game(path: Path) -> House:
    """The household of one game file; DataError if it is not one."""
    problem = _body(path).get("pddl_problem")
    if not isinstance(problem, str):
        raise DataError(f"{path} has no text `pddl_problem`: a game file of ALFWorld (json_2.1.1) was expected")
    name = path.parent.parent.name
    parts = name.split("-")
    if len(parts) != 5 or parts[0] not in _TYPES:
        raise DataError(f"{path} lies in {name!r}: TYPE-OBJECT-None-RECEPTACLE-SCENE of a known type was expected")
    kind, words = _TYPES[parts[0]]
    thing, place = parts[1].lower(), parts[3].lower()
    goal = HouseGoal(kind, thing, place, 2 if kind == "pick_two_obj" else 1)
    facts = _facts(parse_pddl(problem, str(path)), str(path))
    return _house(f"{name}/{path.parent.name}", words.format(thing=thing, place=place), facts, goal)


def parse_pddl(text: str, where: str) -> Expression:
    """The nested lists of a PDDL text; comments are left out."""
    stack: list[list[Expression]] = [[]]
    for token in re.findall(r"[()]|[^\s()]+", re.sub(r";[^\n]*", "", text)):
        if token == "(":
            stack.append([])
            if len(stack) > MAX_DEPTH:
                raise DataError(f"{where}: parentheses are nested deeper than {MAX_DEPTH}")
        elif token == ")":
            if len(stack) == 1:
                raise DataError(f"{where}: there is a closing parenthesis too many")
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(token)
    if len(stack) != 1 or len(stack[0]) != 1:
        raise DataError(f"{where}: one PDDL expression with matching parentheses was expected")
    return stack[0][0]


def listed_games(lists: Path) -> Iterator[str]:
    """The games that a list of AgentBench's names, such as `standard.json`: paths below ALFWorld's folder."""
    try:
        body = json.loads(read_ordinary_text(lists, MAX_GAME_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{lists} cannot be read as JSON: {reason_of(error)[:200]}") from None
    if not isinstance(body, dict) or not all(isinstance(each, list) for each in body.values()):
        raise DataError(f"{lists}: an object of lists of game files was expected, as AgentBench publishes it")
    for games in body.values():
        for game in games:
            if not isinstance(game, str) or Path(game).is_absolute() or ".." in Path(game).parts:
                raise DataError(f"{lists}: {game!r:.80} is no path below ALFWorld's folder")
            yield game


def _body(path: Path) -> Json:
    """A game file's object, empty if it holds something else."""
    try:
        if path.stat().st_size > MAX_GAME_BYTES:
            raise DataError(f"{path} is larger than {MAX_GAME_BYTES >> 20} MiB: it is no ALFWorld game")
        body = json.loads(read_ordinary_text(path, MAX_GAME_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as a JSON game of ALFWorld: {reason_of(error)[:200]}") from None
    return body if isinstance(body, dict) else {}


def _facts(problem: Expression, where: str) -> dict[str, list[tuple[str, ...]]]:
    """The facts of `:init`, by predicate in lower case."""
    found: dict[str, list[tuple[str, ...]]] = {}
    parts = problem if isinstance(problem, list) else []
    init = next((part for part in parts if isinstance(part, list) and part and part[0] == ":init"), None)
    if init is None:
        raise DataError(f"{where}: the problem has no (:init ...)")
    for fact in init[1:]:
        if isinstance(fact, list) and fact and all(isinstance(word, str) for word in fact):
            head, *rest = (str(word) for word in fact)
            found.setdefault(head.lower(), []).append(tuple(rest))
    return found


def _house(id: str, task: str, facts: Mapping[str, list[tuple[str, ...]]], goal: HouseGoal) -> House:
    kinds = {name: _kind(kind) for name, kind in _pairs(facts, "receptacletype")}
    thing_kinds = {name: _kind(kind) for name, kind in _pairs(facts, "objecttype")}
    places = {thing: place for thing, place in _pairs(facts, "inreceptacle") if place in kinds and thing in thing_kinds}
    openable, opened, movable = (
        {each[0] for each in facts.get(p, ()) if each} for p in ("openable", "opened", "pickupable")
    )
    names, thing_names = _numbered(kinds), _numbered({name: thing_kinds[name] for name in places})
    able: dict[str, set[str]] = {name: set() for name in places}
    for predicate, ability in _ABILITIES.items():
        for fact in facts.get(predicate, ()):
            if len(fact) == 1 and fact[0] in able:
                able[fact[0]].add(ability)
    for name in places:
        able[name] |= {"fixed"} if name not in movable else set()
        able[name] |= {"cut"} if thing_kinds[name] in ("knife", "butterknife") else set()
    spots = dict(_pairs(facts, "receptacleatlocation"))
    accepts: dict[str, set[str]] = {}
    for receptacle, thing in _pairs(facts, "cancontain"):
        accepts.setdefault(_kind(receptacle), set()).add(_kind(thing))
    house = House(
        id,
        task,
        tuple(
            Receptacle(names[name], kind, name in openable, name in opened, "", spots.get(name, ""))
            for name, kind in sorted(kinds.items())
        ),
        tuple(
            Thing(thing_names[name], thing_kinds[name], names[place], frozenset(able[name]))
            for name, place in sorted(places.items())
        ),
        goal,
        {kind: frozenset(things) for kind, things in accepts.items()},
    )
    if not any(thing.kind == goal.thing for thing in house.things):
        raise DataError(f"{id}: there is no {goal.thing} in a receptacle, so the task cannot be done")
    return house


def _pairs(facts: Mapping[str, list[tuple[str, ...]]], predicate: str) -> list[tuple[str, str]]:
    """The facts of a predicate of two arguments."""
    return [(fact[0], fact[1]) for fact in facts.get(predicate, ()) if len(fact) == 2]


def _kind(type_name: str) -> str:
    return type_name.lower().removesuffix("type")


def _numbered(kinds: Mapping[str, str]) -> dict[str, str]:
    """PDDL name -> `kind number`, numbered in the order of the names."""
    counts: dict[str, int] = {}
    found = {}
    for name, kind in sorted(kinds.items()):
        counts[kind] = counts.get(kind, 0) + 1
        found[name] = f"{kind} {counts[kind]}"
    return found
