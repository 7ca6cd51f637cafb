"""Games of ALFWorld and TextWorld from their files, calls written as JSON, and the scores of attempts in worlds."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.errors import DataError
from firsthand.trace import Event, Trace
from firsthand.worlds.household.alfworld_games import MAX_DEPTH, MAX_GAME_BYTES, listed_games, parse_pddl, read_game
from firsthand.worlds.household.house import House, HouseGoal, Receptacle, Thing
from firsthand.worlds.json_calls import read_call, unfenced
from firsthand.worlds.outcomes import reason_of, world_result, world_score
from firsthand.worlds.textworld_game import TextWorldGame
from firsthand.worlds.world import InvalidAction, RefusedAction, WorldCall

PROBLEM = """(define (problem plan_1) (:domain alfred) ; (:init (no))
 (:init
  (receptacleType Cab_2 CabinetType) (receptacleType Cab_1 CabinetType) (openable Cab_2) (openable Cab_1) (OPENED Cab_1)
  (receptacleAtLocation Cab_1 loc_7) (receptacleType Table_1 DiningTableType) (receptacleAtLocation Table_1 loc_9)
  (objectType Mug_9 MugType) (inReceptacle Mug_9 Cab_2) (cleanable Mug_9) (heatable Mug_9) (pickupable Mug_9)
  (objectType Mug_2 MugType) (inReceptacle Mug_2 Table_1) (coolable Mug_2)
  (objectType Knife_1 ButterKnifeType) (inReceptacle Knife_1 Table_1) (pickupable Knife_1)
  (objectType Lamp_1 DeskLampType) (inReceptacle Lamp_1 Table_1) (toggleable Lamp_1)
  (objectType Apple_1 AppleType) (inReceptacle Apple_1 Cab_1) (sliceable Apple_1) (pickupable Apple_1)
  (objectType Lost_1 AppleType) (inReceptacle Lost_1 Nowhere_1)
  (cleanable Mug_2 twice) (cleanable) ((odd) Mug_2)
  (canContain DiningTableType MugType) (canContain DiningTableType AppleType) (canContain CabinetType MugType))
 (:goal (and)))"""


def game(root: Path, name: str, problem: object = PROBLEM) -> Path:
    path = root / name / "trial_1" / "game.tw-pddl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"pddl_problem": problem}))
    return path


def test_a_game_of_alfworld_is_the_house_that_its_facts_tell(tmp_path: Path) -> None:
    found = read_game(game(tmp_path, "pick_two_obj_and_place-Mug-None-DiningTable-3"))
    assert found == House(
        "pick_two_obj_and_place-Mug-None-DiningTable-3/trial_1", "put two mug in diningtable.",
        (Receptacle("cabinet 1", "cabinet", True, True, "", "loc_7"), Receptacle("cabinet 2", "cabinet", True),
         Receptacle("diningtable 1", "diningtable", False, False, "", "loc_9")),
        (Thing("apple 1", "apple", "cabinet 1", frozenset({"slice"})),
         Thing("butterknife 1", "butterknife", "diningtable 1", frozenset({"cut"})),
         Thing("desklamp 1", "desklamp", "diningtable 1", frozenset({"use", "fixed"})),
         Thing("mug 1", "mug", "diningtable 1", frozenset({"cool", "fixed"})),
         Thing("mug 2", "mug", "cabinet 2", frozenset({"clean", "heat"}))),
        HouseGoal("pick_two_obj", "mug", "diningtable", 2),
        {"diningtable": frozenset({"mug", "apple"}), "cabinet": frozenset({"mug"})},
    )  # fmt: skip
    for name, kind, task in (
        ("pick_and_place_simple", "pick_and_place", "put a mug in cabinet."),
        ("pick_clean_then_place_in_recep", "pick_clean_then_place", "put a clean mug in cabinet."),
        ("pick_heat_then_place_in_recep", "pick_heat_then_place", "put a hot mug in cabinet."),
        ("pick_cool_then_place_in_recep", "pick_cool_then_place", "put a cool mug in cabinet."),
        ("look_at_obj_in_light", "look_at_obj", "look at mug under the cabinet."),
    ):
        house = read_game(game(tmp_path, f"{name}-Mug-None-Cabinet-1"))
        assert (house.goal.kind, house.task, house.goal.count) == (kind, task, 1)


def test_what_is_no_game_is_told_in_one_sentence(tmp_path: Path) -> None:
    name = "pick_and_place_simple-Mug-None-Cabinet-1"
    for folder, problem, told in (
        (name, 5, "has no text `pddl_problem`"), ("x-Mug-None-Cabinet-1", PROBLEM, "lies in 'x-Mug-None-Cabinet-1'"),
        ("pick_and_place_simple-Mug-None-Cabinet", PROBLEM, "TYPE-OBJECT-None-RECEPTACLE-SCENE"),
        ("pick_and_place_simple-Pan-None-Cabinet-1", PROBLEM, "there is no pan in a receptacle"),
        (name, "(define (:goal))", "the problem has no"), (name, "(a", "one PDDL expression"), (name, "(a) (b)", "one PDDL"),
        (name, "", "one PDDL"), (name, "(a))", "a closing parenthesis too many"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=told):
            read_game(game(tmp_path, folder, problem))
    path = game(tmp_path, name)
    path.write_text("[]")
    with pytest.raises(DataError, match="has no text"):
        read_game(path)
    for text in ("{", "\udcff"):
        path.write_text(text, errors="surrogateescape")
        with pytest.raises(DataError, match="cannot be read as a JSON game"):
            read_game(path)
    path.write_bytes(b" " * (MAX_GAME_BYTES + 1))
    with pytest.raises(DataError, match="is larger than 8 MiB"):
        read_game(path)
    assert parse_pddl("(a (B c) ; d)\n ())", "w") == ["a", ["B", "c"], []] and parse_pddl("a", "w") == "a"
    deepest = MAX_DEPTH - 1
    assert parse_pddl("(" * deepest + ")" * deepest, "w")
    with pytest.raises(DataError, match="w: parentheses are nested deeper than 40"):
        parse_pddl("(" * MAX_DEPTH + ")" * MAX_DEPTH, "w")
    lists = tmp_path / "list.json"
    lists.write_text(json.dumps({"a": ["x/1", "y..z/2"], "b": ["x/3"]}))
    assert list(listed_games(lists)) == ["x/1", "y..z/2", "x/3"]
    for body in ({"a": ["/etc/passwd"]}, {"a": ["x/../y"]}, {"a": [3]}, {"a": "x"}, ["x"]):
        lists.write_text(json.dumps(body))
        with pytest.raises(DataError, match=r"list\.json: "):
            list(listed_games(lists))


# -- TextWorld --


class Game:
    """A game that a player walks through by lines."""

    def __init__(self) -> None:
        self.closed, self.given = 0, []  # type: ignore[var-annotated]

    def step(self, words: str) -> Any:
        self.given.append(words)
        feedback = f"You {words}.\n\n\n> -= Attic =-0/1"
        won = words == "open box"
        return state(feedback=feedback, won=won, lost=words == "burn box", score=1 if won else None), 0, won

    def close(self) -> None:
        self.closed += 1


class GameState(SimpleNamespace):
    """Facts of a game, as attributes and by `get`."""

    def get(self, name: str) -> Any:
        return getattr(self, name, None)


def state(**more: Any) -> Any:
    plain = {"won": False, "lost": False, "score": 0, "max_score": 3, "description": " An attic. ", "inventory": "A key.\n",
             "admissible_commands": ["open box", "go east"], "policy_commands": ["go east", "open box"]}  # fmt: skip
    return GameState(**{**plain, **more})


def test_a_game_of_textworld_is_played_by_commands_and_tells_its_end() -> None:
    world = TextWorldGame(Path("none.z8"))
    unopened = {"won": False, "score": 0, "max_score": 0}
    assert world.ending is None and world.admissible() == () and asyncio.run(world.result()) == unopened
    asyncio.run(world.close())
    game = Game()
    world._game, world._state, world._seen = game, state(), "An attic."

    def told(text: str) -> str:
        return asyncio.run(world.command(text))

    assert world.admissible() == ["go east", "open box"] and world.optimal() == "go east"
    assert world.render() == "An attic.\nA key." and {world.random(Random(n)) for n in range(9)} == set(
        world.admissible()
    )
    went = told("  go \n east ")
    assert went == "You go east." and type(went) is str and game.given == ["go east"] and world.ending is None
    refused = told("sing")
    assert isinstance(refused, RefusedAction) and str(refused) == "You sing."
    assert world.render() == "You sing.\nAn attic.\nA key."
    for wrong in ("", " \n", "x" * 201, "a\x1bb"):
        with pytest.raises(InvalidAction, match="is no command: write one"):
            told(wrong)
    assert told("x" * 200).startswith("You xxx") and len(game.given) == 3
    told("burn box")
    assert world.ending == "lost"
    step = game.step
    moves = iter([["drop lamp"], ["take lamp"], ["drop lamp"]])

    def changing(words: str) -> Any:
        made, score, done = step(words)
        made.admissible_commands = next(moves)
        return made, score, done

    game.step = changing  # type: ignore[method-assign]
    world._state = state(admissible_commands=["take lamp"])
    for words, is_refused in (("take lamp", False), ("take lamp", True), ("take lamp", False)):
        assert isinstance(told(words), RefusedAction) is is_refused, "by what was possible before it"
    game.step = step  # type: ignore[method-assign]
    told("open box")
    assert world.ending == "won" and asyncio.run(world.result()) == {"won": True, "score": 1, "max_score": 3}
    assert world.read("open  it") == WorldCall("command", {"text": "open  it"})
    world._state = state(policy_commands=[])
    assert world.optimal() == "look"
    asyncio.run(world.close()), asyncio.run(world.close())
    assert game.closed == 1


# -- calls as JSON --


async def pay(to: str, amount: int, notes: list[str] | None = None) -> str:
    return ""


async def wait() -> str:
    return ""


def test_a_call_in_json_names_its_tool_and_fits_its_arguments() -> None:
    def read(body: Any) -> WorldCall:
        return read_call(body if isinstance(body, str) else json.dumps(body), (pay, wait))

    assert read({"name": "pay", "arguments": {"to": "Ann", "amount": 3}}) == WorldCall(
        "pay", {"to": "Ann", "amount": 3}
    )
    assert read({"name": "wait"}) == WorldCall("wait", {}) == read({"name": "wait", "kwargs": {}})
    kept = {"to": "é", "amount": 3, "notes": ["x"]}
    assert read({"name": "pay", "kwargs": kept}) == WorldCall("pay", kept)
    for body, said in (
        ("{", "the action is no JSON (Expecting property name"), ([1], "the action is no JSON object but a list: write one"),
        ({"name": "fly"}, "there is no tool 'fly': there are pay, wait"), ({}, "there is no tool 'None'"),
        ({"name": "wait", "arguments": [1]}, "the arguments of wait are a JSON list: an object was expected"),
        ({"name": "wait", "arguments": {"x": 1}}, "the arguments do not fit wait: got an unexpected keyword argument 'x'"),
        ({"name": "pay", "arguments": {"to": "A"}}, "the arguments do not fit pay: missing a required argument: 'amount'"),
        ({"name": "pay", "arguments": {"to": 5, "amount": 1}}, "the argument to of pay is a JSON int: str was expected"),
        ({"name": "pay", "arguments": {"to": "A", "amount": "1"}}, "the argument amount of pay is a JSON str: int was"),
        ({"name": "pay", "arguments": {"to": "A", "amount": 1, "notes": {}}}, "the argument notes of pay is a JSON dict"),
    ):  # fmt: skip
        with pytest.raises(InvalidAction) as wrong:
            read(body)
        assert str(wrong.value).startswith(said), str(wrong.value)
    for action, text in (
        (' {"a": 1}\n', '{"a": 1}'), ("```json\n{}\n```", "{}"), ("```\n{}```", "{}"), ("``````", ""), ("`````", "`````"),
        ("```json {}", "```json {}"), ("{}\n```", "{}\n```"),
    ):  # fmt: skip
        assert unfenced(action) == text


def test_a_score_below_one_says_why_the_attempt_ended() -> None:
    def ended(stop: str = "done", events: tuple[Event, ...] = (), **state: Any) -> Trace:
        whole = {
            "rounds": 4,
            "invalid_actions": 0,
            "longest_loop": 0,
            "ended": "stopped",
            "result": {"won": True},
            **state,
        }
        return Trace("t", "b", "t", {"name": "a"}, 0, 0, "", 0.0, events=events, stop_reason=stop, final_state=whole)  # type: ignore[arg-type]

    steps = (Event("max_steps", 0.0, {}),)
    assert reason_of(ended()) == "wrong end" and reason_of(ended(events=steps)) == "limit"
    assert (
        reason_of(ended(events=steps, ended="answered")) == "wrong end" and reason_of(ended(stop="tokens")) == "limit"
    )
    assert reason_of(ended(events=(Event("retry", 0.0, {}),))) == "wrong end"
    full, part = (
        world_score("s", 1, ended(), kind="k"),
        world_score("s", 0.5, ended(rounds=7, invalid_actions=2), kind="k"),
    )
    assert (full.name, full.value, full.detail) == ("s", 1.0, {"rounds": 4, "invalid_actions": 0, "kind": "k"})
    assert part.value == 0.5 and part.detail["rounds"] == 7 and part.detail["invalid_actions"] == 2
    assert part.detail["reason"] == reason_of(ended(rounds=7, invalid_actions=2))
    assert world_score("s", 0.0, ended(), reason="own").detail["reason"] == "own"
    assert world_result(ended()) == {"won": True} and world_result(ended(result=[1])) == {}
