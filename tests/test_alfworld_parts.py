"""ALFWorld's game files fact by fact, and the whole of what a small house allows, shows and asks for."""

import asyncio
import json
from dataclasses import replace

import pytest

from firsthand.errors import ConfigError, DataError
from firsthand.worlds.household import alfworld_games
from firsthand.worlds.household.alfworld_games import (
    _facts,
    _house,
    _kind,
    _numbered,
    listed_games,
    parse_pddl,
    read_game,
)
from firsthand.worlds.household.house import House, HouseGame, HouseGoal, Receptacle, Thing, listed, parse_household
from firsthand.worlds.household.house_player import house_solution
from firsthand.worlds.household.household_world import HouseholdWorld
from firsthand.worlds.world import InvalidAction, RefusedAction

FACTS = {
    "receptacletype": [("c2", "CabinetType"), ("c1", "CabinetType"), ("s1", "SinkBasinType"), ("odd",)],
    "objecttype": [
        ("k", "KnifeType"),
        ("m2", "MugType"),
        ("m1", "MugType"),
        ("b", "ButterKnifeType"),
        ("far", "MugType"),
    ],
    "inreceptacle": [("m2", "c2"), ("m1", "s1"), ("k", "c1"), ("b", "c1"), ("ghost", "c1"), ("far", "nowhere")],
    "openable": [("c1",), ("c2",), ()],
    "opened": [("c2",)],
    "pickupable": [("m1",), ("k",), ("b",)],
    "cleanable": [("m1",), ("ghost",), ("m2", "x")],
    "heatable": [("m1",), ("m2",)],
    "coolable": [("m2",)],
    "toggleable": [("b",)],
    "sliceable": [("k",)],
    "receptacleatlocation": [("c1", "loc1"), ("c2", "loc1")],
    "cancontain": [("CabinetType", "MugType"), ("CabinetType", "KnifeType"), ("SinkBasinType", "MugType")],
}


def test_a_house_is_made_of_the_facts_of_its_problem():
    goal = HouseGoal("pick_two_obj", "mug", "cabinet", 2)
    assert _house("g/t", "put two mug in cabinet.", FACTS, goal) == House(
        "g/t",
        "put two mug in cabinet.",
        (
            Receptacle("cabinet 1", "cabinet", True, False, "", "loc1"),
            Receptacle("cabinet 2", "cabinet", True, True, "", "loc1"),
            Receptacle("sinkbasin 1", "sinkbasin", False, False, "", ""),
        ),
        (
            Thing("butterknife 1", "butterknife", "cabinet 1", frozenset({"use", "cut"})),
            Thing("knife 1", "knife", "cabinet 1", frozenset({"slice", "cut"})),
            Thing("mug 1", "mug", "sinkbasin 1", frozenset({"clean", "heat"})),
            Thing("mug 2", "mug", "cabinet 2", frozenset({"heat", "cool", "fixed"})),
        ),
        goal,
        {"cabinet": frozenset({"mug", "knife"}), "sinkbasin": frozenset({"mug"})},
    )
    with pytest.raises(DataError, match=r"^g/t: there is no plate in a receptacle, so the task cannot be done$"):
        _house("g/t", "", FACTS, HouseGoal("pick_and_place", "plate", "cabinet"))
    assert _numbered({"z": "mug", "a": "cup", "b": "mug"}) == {"a": "cup 1", "b": "mug 1", "z": "mug 2"}
    assert [_kind(each) for each in ("MugType", "mug", "TypeTypeX")] == ["mug", "mug", "typetypex"]


def test_pddl_is_read_without_its_comments_and_its_parentheses_must_match():
    assert parse_pddl("(a (b; (c\n d)() e)\n", "w") == ["a", ["b", "d"], [], "e"]
    assert parse_pddl(" word ", "w") == "word"
    deep = "(" * 39 + ")" * 39
    assert str(parse_pddl(deep, "w")).count("[") == 39
    for text, told in (
        ("(" + deep + ")", "w: parentheses are nested deeper than 40"),
        ("(a))(", "w: there is a closing parenthesis too many"),
        ("(a) (b)", "w: one PDDL expression with matching parentheses was expected"),
        ("(a", "w: one PDDL expression with matching parentheses was expected"),
        ("; all", "w: one PDDL expression with matching parentheses was expected"),
    ):
        with pytest.raises(DataError) as refused:
            parse_pddl(text, "w")
        assert str(refused.value) == told
    init = [":init", ["On", "a", "B"], "word", [], ["on", "c"], ["at", ["x"]], ["Far"]]
    assert _facts(["define", [":goal"], [], init], "w") == {"on": [("a", "B"), ("c",)], "far": [()]}
    for none in ("text", ["define", [":goal"]]):
        with pytest.raises(DataError, match=r"^w: the problem has no \(:init \.\.\.\)$"):
            _facts(none, "w")


def test_a_game_file_gives_the_goal_of_its_folder(tmp_path, monkeypatch):
    def written(folder: str, body: object) -> object:
        path = tmp_path / folder / "trial_7" / "game.tw-pddl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body if isinstance(body, str) else json.dumps(body), encoding="utf-8")
        return path

    problem = "(define (:init (receptacletype d DeskType) (objecttype p PenType) (inreceptacle p d) (pickupable p)))"
    for folder, goal, task in (
        ("pick_two_obj_and_place-Pen-None-Desk-1", HouseGoal("pick_two_obj", "pen", "desk", 2), "put two pen in desk."),
        ("look_at_obj_in_light-Pen-None-Lamp-308", HouseGoal("look_at_obj", "pen", "lamp"), "look at pen under the lamp."),
        ("pick_cool_then_place_in_recep-Pen-None-Desk-1", HouseGoal("pick_cool_then_place", "pen", "desk"),
         "put a cool pen in desk."),
    ):  # fmt: skip
        desk, pen = Receptacle("desk 1", "desk"), Thing("pen 1", "pen", "desk 1")
        assert read_game(written(folder, {"pddl_problem": problem})) == House(
            f"{folder}/trial_7", task, (desk,), (pen,), goal, {}
        )
    good = "pick_and_place_simple-Pen-None-Desk-1"
    for folder, body, told in (
        ("pick_and_place_simple-Pen-None-Desk", {"pddl_problem": problem},
         "lies in 'pick_and_place_simple-Pen-None-Desk': TYPE-OBJECT-None-RECEPTACLE-SCENE of a known type was expected"),
        ("look_at_obj_in_light-Pen-None-Desk-1-2", {"pddl_problem": problem},
         "lies in 'look_at_obj_in_light-Pen-None-Desk-1-2': TYPE-OBJECT-None-RECEPTACLE-SCENE of a known type was expected"),
        ("dance-Pen-None-Desk-1", {"pddl_problem": problem},
         "lies in 'dance-Pen-None-Desk-1': TYPE-OBJECT-None-RECEPTACLE-SCENE of a known type was expected"),
        (good, [], "has no text `pddl_problem`: a game file of ALFWorld (json_2.1.1) was expected"),
        (good, {"pddl_problem": 3}, "has no text `pddl_problem`: a game file of ALFWorld (json_2.1.1) was expected"),
    ):  # fmt: skip
        path = written(folder, body)
        with pytest.raises(DataError) as refused:
            read_game(path)
        assert str(refused.value) == f"{path} {told}"
    with pytest.raises(DataError, match=r"game\.tw-pddl cannot be read as a JSON game of ALFWorld: "):
        read_game(written(good, "{"))
    monkeypatch.setattr(alfworld_games, "MAX_GAME_BYTES", 2 << 20)
    with pytest.raises(DataError, match=r"game\.tw-pddl is larger than 2 MiB: it is no ALFWorld game$"):
        read_game(written(good, " " * ((2 << 20) + 1)))
    fits = json.dumps({"pddl_problem": problem}).ljust(2 << 20)
    assert read_game(written(good, fits)).task == "put a pen in desk."


def test_a_list_of_games_gives_each_path_in_order_and_none_outside_the_folder(tmp_path):
    lists = tmp_path / "standard.json"
    lists.write_text(json.dumps({"b": ["z/1", "é/2"], "a": [], "c": ["a..b"]}), encoding="utf-8")
    assert list(listed_games(lists)) == ["z/1", "é/2", "a..b"]
    for body, told in (
        ("[]", ": an object of lists of game files was expected, as AgentBench publishes it"),
        ('{"a": ["x"], "b": "y"}', ": an object of lists of game files was expected, as AgentBench publishes it"),
        ('{"a": ["x/../y"]}', ": 'x/../y' is no path below ALFWorld's folder"),
        ('{"a": ["/x"]}', ": '/x' is no path below ALFWorld's folder"),
        ('{"a": [4]}', ": 4 is no path below ALFWorld's folder"),
    ):
        lists.write_text(body)
        with pytest.raises(DataError) as refused:
            list(listed_games(lists))
        assert str(refused.value) == f"{lists}{told}"


def house(**changes: object) -> House:
    made = House(
        "h",
        "put a clean mug in shelf.",
        (
            Receptacle("cabinet 1", "cabinet", True, False, "kitchen"),
            Receptacle("sinkbasin 1", "sinkbasin", False, False, "kitchen", "wet"),
            Receptacle("shelf 1", "shelf", False, False, "hall", "wet"),
            Receptacle("box 1", "box", True, True),
        ),
        (
            Thing("mug 1", "mug", "cabinet 1", frozenset({"clean", "heat"})),
            Thing("mug 2", "mug", "box 1", frozenset({"clean"})),
            Thing("knife 1", "knife", "shelf 1", frozenset({"cut"})),
            Thing("apple 1", "apple", "sinkbasin 1", frozenset({"slice", "clean"})),
            Thing("lamp 1", "lamp", "shelf 1", frozenset({"use", "fixed"})),
        ),
        HouseGoal("pick_clean_then_place", "mug", "shelf"),
        {"shelf": frozenset({"mug", "knife"})},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_what_is_admissible_is_listed_in_order_at_each_step():
    game = HouseGame(house())
    assert game.admissible() == [
        "go to cabinet 1", "go to sinkbasin 1", "go to shelf 1", "go to box 1", "inventory", "look",
    ]  # fmt: skip
    game.act("go to shelf 1")
    assert game.admissible() == [
        "go to cabinet 1", "go to box 1", "take apple 1 from sinkbasin 1", "examine apple 1", "examine sinkbasin 1",
        "take knife 1 from shelf 1", "examine knife 1", "use lamp 1", "examine lamp 1", "examine shelf 1", "inventory",
        "look",
    ]  # fmt: skip
    game.act("take knife 1 from shelf 1")
    assert game.admissible() == [
        "go to cabinet 1", "go to box 1", "slice apple 1 with knife 1", "examine apple 1", "examine sinkbasin 1",
        "put knife 1 in/on sinkbasin 1", "use lamp 1", "examine lamp 1", "examine shelf 1", "put knife 1 in/on shelf 1",
        "examine knife 1", "inventory", "look",
    ]  # fmt: skip
    assert game.act("slice apple 1 with knife 1") == "You sliced the apple 1 with the knife 1."
    assert "slice apple 1 with knife 1" not in game.admissible()
    game.act("put knife 1 in shelf 1")
    game.act("take apple 1 from sinkbasin 1")
    assert [each for each in game.admissible() if "apple" in each] == [
        "put apple 1 in/on sinkbasin 1", "clean apple 1 with sinkbasin 1", "examine apple 1"
    ]  # fmt: skip
    game.act("go to cabinet 1")
    assert game.admissible() == [
        "go to sinkbasin 1", "go to shelf 1", "go to box 1", "open cabinet 1", "examine cabinet 1", "examine apple 1",
        "inventory", "look",
    ]  # fmt: skip
    game.act("open cabinet 1")
    assert game.admissible()[3:6] == ["close cabinet 1", "examine mug 1", "examine cabinet 1"]
    assert game.render() == (
        "[kitchen]\n *cabinet 1: mug 1\n  sinkbasin 1: -\n[hall]\n  shelf 1: lamp 1, knife 1\n[room]\n  box 1: mug 2\n"
        "in hand: apple 1 (sliced)"
    )
    game.act("close cabinet 1")
    assert game.render().splitlines()[1] == " *cabinet 1 (closed): mug 1"
    assert (game.steps, game.refused) == (8, 0)


def test_the_plan_takes_what_is_in_hand_first_and_washes_only_what_is_not_clean():
    game = HouseGame(house())
    washed = ["go to sinkbasin 1", "clean mug 1 with sinkbasin 1", "put mug 1 in/on shelf 1"]
    assert house_solution(game) == ["go to cabinet 1", "open cabinet 1", "take mug 1 from cabinet 1", *washed]
    for action in ("go to box 1", "take mug 2 from box 1"):
        game.act(action)
    plan = ["go to sinkbasin 1", "clean mug 2 with sinkbasin 1", "put mug 2 in/on shelf 1"]
    assert house_solution(game) == plan
    for action in plan[:2]:
        game.act(action)
    assert house_solution(game) == plan[2:]
    game.act(plan[2])
    assert game.is_won
    assert house_solution(game) == []
    other = HouseGame(house())
    for action in ("go to sinkbasin 1", "take apple 1 from sinkbasin 1"):
        other.act(action)
    assert house_solution(other)[:2] == ["put apple 1 in/on sinkbasin 1", "go to cabinet 1"]
    two = HouseGame(house(goal=HouseGoal("pick_two_obj", "mug", "shelf", 2)))
    assert house_solution(two) == [
        "go to cabinet 1", "open cabinet 1", "take mug 1 from cabinet 1", "go to shelf 1", "put mug 1 in/on shelf 1",
        "go to box 1", "take mug 2 from box 1", "go to shelf 1", "put mug 2 in/on shelf 1",
    ]  # fmt: skip
    both = house(goal=HouseGoal("pick_two_obj", "mug", "shelf", 2))
    shut = HouseGame(replace(both, things=tuple(replace(each, place="cabinet 1") for each in both.things)))
    assert house_solution(shut) == [  # a cabinet is opened once
        "go to cabinet 1", "open cabinet 1", "take mug 1 from cabinet 1", "go to shelf 1", "put mug 1 in/on shelf 1",
        "go to cabinet 1", "take mug 2 from cabinet 1", "go to shelf 1", "put mug 2 in/on shelf 1",
    ]  # fmt: skip
    assert shut.opened == {"box 1"}
    light = HouseGame(house(goal=HouseGoal("look_at_obj", "apple", "lamp")))
    assert house_solution(light) == ["go to sinkbasin 1", "take apple 1 from sinkbasin 1", "use lamp 1"]
    for goal, told in (
        (HouseGoal("look_at_obj", "apple", "torch"), "house h has no torch or no apple: it cannot be solved"),
        (HouseGoal("look_at_obj", "pear", "lamp"), "house h has no lamp or no pear: it cannot be solved"),
        (HouseGoal("pick_and_place", "apple", "desk"), "house h has no desk or too few apple: it cannot be solved"),
        (HouseGoal("pick_two_obj", "apple", "box", 2), "house h has no box or too few apple: it cannot be solved"),
        (HouseGoal("pick_and_place", "lamp", "box"), "house h has no box or too few lamp: it cannot be solved"),
    ):
        with pytest.raises(ConfigError) as refused:
            house_solution(HouseGame(house(goal=goal)))
        assert str(refused.value) == told


def test_heat_drives_out_cold_and_cold_drives_out_heat_but_neither_makes_dirty():
    places = tuple(Receptacle(f"{kind} 1", kind, spot="here") for kind in ("microwave", "fridge", "sinkbasin"))
    egg = Thing("egg 1", "egg", "fridge 1", frozenset({"clean", "heat", "cool"}))
    game = HouseGame(house(receptacles=places, things=(egg,)))
    for action in ("go to fridge 1", "take egg 1 from fridge 1", "clean egg 1 with sinkbasin 1"):
        game.act(action)
    for verb, place, state, seen in (
        ("heat", "microwave", {"clean", "hot"}, "hot and clean"),
        ("cool", "fridge", {"clean", "cool"}, "cool and clean"),
        ("heat", "microwave", {"clean", "hot"}, "hot and clean"),
        ("clean", "sinkbasin", {"clean", "hot"}, "hot and clean"),
    ):
        assert game.act(f"{verb} egg 1 with {place} 1") == f"You {verb} the egg 1 using the {place} 1."
        assert game.states["egg 1"] == state
        assert game.act("examine egg 1") == f"This is a {seen} egg 1."
    assert game.act("heat egg 1 with fridge 1") == "Nothing happens."
    assert (game.refused, game.steps) == (1, 12)


def test_each_move_of_the_world_is_the_text_action_of_its_name():
    world = HouseholdWorld(house(), explain=True)

    async def played() -> list[str]:
        await world.open()
        return [
            await world.look(), await world.go_to("cabinet 1"), await world.open_receptacle("cabinet 1"),
            await world.take("mug 1", "cabinet 1"), await world.close_receptacle("cabinet 1"), await world.inventory(),
            await world.heat("mug 1", "sinkbasin 1"), await world.go_to("sinkbasin 1"),
            await world.clean("mug 1", "sinkbasin 1"), await world.examine("mug 1"), await world.use("lamp 1"),
            await world.slice("apple 1", "mug 1"), await world.cool("mug 1", "sinkbasin 1"), await world.think("x" * 300),
            await world.put("mug 1", "shelf 1"),
        ]  # fmt: skip

    said = asyncio.run(played())
    needs = "Nothing happens. (to {} something, hold it at a {}; not everything can be)"
    assert said == [
        "You are in the middle of a room. Looking quickly around you, you see a cabinet 1, a sinkbasin 1, a shelf 1, "
        "and a box 1.",
        "You arrive at cabinet 1. The cabinet 1 is closed.",
        "You open the cabinet 1. The cabinet 1 is open. In it, you see a mug 1.",
        "You pick up the mug 1 from the cabinet 1.", "You close the cabinet 1.", "You are carrying: a mug 1.",
        needs.format("heat", "microwave"),
        "You arrive at sinkbasin 1. On the sinkbasin 1, you see a apple 1.",
        "You clean the mug 1 using the sinkbasin 1.", "This is a clean mug 1.", "You turn on the lamp 1.",
        "Nothing happens. (hold a knife, and be where the thing to slice is)", needs.format("cool", "fridge"), "OK.",
        "You put the mug 1 in/on the shelf 1.",
    ]  # fmt: skip
    assert [number for number, each in enumerate(said) if isinstance(each, RefusedAction)] == [6, 11, 12]
    assert asyncio.run(world.result()) == {"won": True, "refused": 3}
    assert (world.ending, world.optimal()) == ("won", "look")
    assert world.render().splitlines()[0] == "task: put a clean mug in shelf."
    assert [move.__name__ for move in world.moves] == [
        "go_to", "open_receptacle", "close_receptacle", "take", "put", "use", "clean", "heat", "cool", "slice", "examine",
        "look", "inventory", "think",
    ]  # fmt: skip
    for move in world.moves:  # the names of the arguments are those that a text action gives
        names = [each for each in move.__annotations__ if each != "return"]
        text = {"take": "take a from b", "put": "put a in/on b", "think": "think: a"}.get(move.__name__)
        verb = move.__name__.removesuffix("_receptacle").replace("_", " ")
        call = world.read(text or f"{verb} {' with '.join('ab'[: len(names)])}".strip())
        assert (call.name, list(call.arguments)) == (move.__name__, names)
    with pytest.raises(
        InvalidAction, match=r"^Nothing happens\. Write one command: go to, open, close, take \.\.\. from"
    ):
        world.read("dance")
    assert parse_household(" Think:  I see ") == ("think", {"thought": "I see"})
    assert listed(["a 1", "b 2"], "the ") == "the a 1, and the b 2"


def test_no_more_things_are_carried_than_are_needed_beside_those_that_are_there():
    both = house()
    spare = tuple(Thing(f"mug {n}", "mug", "box 1", frozenset({"clean"})) for n in range(1, 6))

    def plan(count: int, at_the_shelf: int, kind: str = "pick_and_place") -> list[str]:
        mugs = tuple(replace(each, place="shelf 1") if n < at_the_shelf else each for n, each in enumerate(spare))
        return house_solution(HouseGame(replace(both, things=mugs, goal=HouseGoal(kind, "mug", "shelf", count))))

    def carried(*numbers: int) -> list[str]:
        steps: list[str] = []
        for n in numbers:
            steps += ["go to box 1", f"take mug {n} from box 1", "go to shelf 1", f"put mug {n} in/on shelf 1"]
        return steps

    assert plan(1, 0) == carried(1) and plan(2, 0, "pick_two_obj") == carried(1, 2)
    assert plan(2, 1, "pick_two_obj") == carried(2) and plan(2, 2, "pick_two_obj") == []
    for there in (1, 2, 3, 4, 5):
        assert plan(1, there) == [], there
    assert plan(2, 3, "pick_two_obj") == []
