"""The household world: ALFWorld's rules, generated houses, players, and ALFWorld's own game files."""

import asyncio
import hashlib
import json
import os
import re
from pathlib import Path
from random import Random

import pytest

from firsthand.agent import Agent
from firsthand.benchmarks.agentbench_hh import agentbench_hh
from firsthand.errors import ConfigError, DataError
from firsthand.patterns.thought_action import thought_action
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.worlds.household.alfworld_games import listed_games, parse_pddl, read_game
from firsthand.worlds.household.house import GOAL_KINDS, House, HouseGame, HouseGoal, Receptacle, Thing
from firsthand.worlds.household.house_generator import abilities_of, make_house
from firsthand.worlds.household.house_player import house_solution
from firsthand.worlds.players import play

SHARED = Path(os.environ.get("FIRSTHAND_DATA") or Path(__file__).parents[2] / "shared" / "data")
PROMPTS = SHARED / "agents" / "alfworld_3prompts.json"
KINDS = dict(zip(("put", "clean", "heat", "cool", "examine", "puttwo"), GOAL_KINDS, strict=True))


def kitchen(goal: HouseGoal, *things: Thing) -> House:
    places = [
        Receptacle("cabinet 1", "cabinet", openable=True),
        Receptacle("countertop 1", "countertop"),
        Receptacle("fridge 1", "fridge", openable=True),
        Receptacle("microwave 1", "microwave", openable=True),
        Receptacle("sinkbasin 1", "sinkbasin"),
    ]
    return House("k", "t", tuple(places), things, goal, {"microwave": frozenset({"mug"})})


def thing(name: str, place: str) -> Thing:
    kind = name.split()[0]
    return Thing(name, kind, place, abilities_of(kind))


def game(kind: str = "pick_and_place", **more: object) -> HouseGame:
    goal = HouseGoal(kind, "mug", "cabinet", 2 if kind == "pick_two_obj" else 1)  # type: ignore[arg-type]
    things = [thing("mug 1", "countertop 1"), thing("mug 2", "cabinet 1"), thing("knife 1", "countertop 1")]
    return HouseGame(kitchen(goal, *things, thing("apple 1", "countertop 1")), **more)  # type: ignore[arg-type]


def after(played: HouseGame, *actions: str) -> list[str]:
    return [played.act(action) for action in actions]


def test_what_cannot_be_done_answers_nothing_happens_and_changes_nothing():
    played = game()
    seen = after(
        played, "take mug 1 from countertop 1", "go to attic 1", "open countertop 1", "dance", "go to countertop 1",
        "go to countertop 1", "take mug 9 from countertop 1", "put mug 1 in/on countertop 1", "heat mug 1 with microwave 1",
        "take mug 1 from countertop 1", "take knife 1 from countertop 1", "go to cabinet 1", "put mug 1 in/on cabinet 1",
        "take mug 2 from cabinet 1", "clean mug 1 with cabinet 1", "examine mug 2",
    )  # fmt: skip
    refused = [index for index, each in enumerate(seen) if each == "Nothing happens."]
    assert refused == [0, 1, 2, 3, 5, 6, 7, 8, 10, 12, 13, 14, 15]
    assert played.refused == len(refused) and played.held == "mug 1" and played.steps == len(seen)


def test_receptacles_at_one_place_are_reached_together():
    close = (Receptacle("shelf 1", "shelf", spot="corner"), Receptacle("shelf 2", "shelf", spot="corner"))
    mug = thing("mug 1", "shelf 2")
    played = HouseGame(House("k", "t", close, (mug,), HouseGoal("pick_and_place", "mug", "shelf")))
    seen = after(played, "go to shelf 1", "go to shelf 2", "look", "take mug 1 from shelf 1", "take mug 1 from shelf 2")
    assert seen[1:] == [
        "Nothing happens.",
        "You are facing the shelf 1, and shelf 2. Next to it, you see nothing.",
        "Nothing happens.",
        "You pick up the mug 1 from the shelf 2.",
    ]


def test_a_refusal_is_explained_if_asked_for():
    played = game(explain=True)
    assert (
        after(played, "go to cabinet 1", "put mug 1 in/on cabinet 1")[1] == "Nothing happens. (you do not hold mug 1)"
    )


@pytest.mark.parametrize(
    ("kind", "verb", "place"),
    [
        ("pick_clean_then_place", "clean", "sinkbasin 1"),
        ("pick_heat_then_place", "heat", "microwave 1"),
        ("pick_cool_then_place", "cool", "fridge 1"),
    ],
)
def test_the_goal_needs_the_state_and_the_place_both(kind: str, verb: str, place: str):
    played = game(kind)
    take = ["go to countertop 1", "take mug 1 from countertop 1", "go to cabinet 1", "open cabinet 1"]
    after(played, *take, "put mug 1 in/on cabinet 1")
    assert not played.is_won
    seen = after(played, "take mug 1 from cabinet 1", f"go to {place}", f"{verb} mug 1 with {place}")
    assert seen[-1] == f"You {verb} the mug 1 using the {place}." and not played.is_won
    after(played, "go to cabinet 1", "put mug 1 in/on cabinet 1")
    assert played.is_won


def test_heat_undoes_cold_and_cold_undoes_heat():
    played = game("pick_heat_then_place")
    start = ["go to countertop 1", "take mug 1 from countertop 1", "go to microwave 1", "heat mug 1 with microwave 1"]
    seen = after(played, *start, "examine mug 1", "go to fridge 1", "cool mug 1 with fridge 1", "examine mug 1")
    assert (seen[4], seen[-1]) == ("This is a hot mug 1.", "This is a cold mug 1.")
    after(played, "go to cabinet 1", "open cabinet 1", "put mug 1 in/on cabinet 1")
    assert not played.is_won


def test_two_objects_must_lie_in_one_receptacle():
    played = game("pick_two_obj")
    assert not played.is_won
    after(played, "go to countertop 1", "take mug 1 from countertop 1", "go to cabinet 1", "open cabinet 1")
    assert not played.is_won
    after(played, "put mug 1 in/on cabinet 1")
    assert played.is_won


def test_an_object_is_looked_at_under_a_lamp_that_was_switched_on():
    goal = HouseGoal("look_at_obj", "mug", "desklamp")
    played = HouseGame(kitchen(goal, thing("mug 1", "countertop 1"), thing("desklamp 1", "sinkbasin 1")))
    after(played, "go to sinkbasin 1", "use desklamp 1")
    assert not played.is_won
    assert after(played, "take desklamp 1 from sinkbasin 1") == ["Nothing happens."]
    after(played, "go to countertop 1", "take mug 1 from countertop 1")
    assert not played.is_won
    after(played, "go to sinkbasin 1")
    assert played.is_won


def test_a_knife_in_hand_slices_and_a_receptacle_refuses_what_it_cannot_hold():
    played = game()
    seen = after(played, "go to countertop 1", "slice apple 1 with knife 1", "take knife 1 from countertop 1")
    assert seen[1] == "Nothing happens."
    seen = after(played, "go to microwave 1", "slice apple 1 with knife 1", "go to countertop 1", "examine apple 1")
    assert (seen[1], seen[3]) == ("Nothing happens.", "There's nothing special about apple 1.")
    seen = after(played, "slice apple 1 with knife 1", "slice apple 1 with knife 1", "examine apple 1")
    assert seen == ["You sliced the apple 1 with the knife 1.", "Nothing happens.", "This is a sliced apple 1."]
    assert (
        after(played, "go to microwave 1", "open microwave 1", "put knife 1 in/on microwave 1")[-1]
        == "Nothing happens."
    )


@pytest.mark.parametrize("level", [1, 2, 3])
def test_every_admissible_action_is_possible_and_no_other_is(level: int):
    played, rng = HouseGame(make_house(5, level, level)), Random(0)
    for _ in range(60):
        listed = played.admissible()
        refused = played.refused
        assert len(set(listed)) == len(listed)
        names = [*(each.name for each in played.house.receptacles), *(each.name for each in played.house.things)]
        for verb in ("open {}", "close {}", "use {}", "take {} from {}", "put {} in/on {}", "clean {} with {}"):
            guess = verb.format(rng.choice(names), played.at or "nowhere")
            if guess not in listed:
                assert played.act(guess) == "Nothing happens."
                refused += 1
        played.act(rng.choice(listed))
        assert played.refused == refused


def test_houses_are_equal_for_a_seed_to_the_byte():
    made = [repr(make_house(7, index, level)) for index in range(6) for level in (1, 2, 3)]
    assert made == [repr(make_house(7, index, level)) for index in range(6) for level in (1, 2, 3)]
    rendered = "\n".join(HouseGame(make_house(7, index, 2)).opening for index in range(6))
    assert hashlib.sha256(rendered.encode()).hexdigest()[:16] == "69e3ae10d88f4554"


def test_the_optimal_player_wins_every_house():
    for level in (1, 2, 3):
        for index in range(60):
            house = make_house(index, index, level)
            played = HouseGame(house)
            for action in house_solution(played):
                assert not played.is_won and action in played.admissible()
                played.act(action)
            assert played.is_won and played.steps <= 35


@pytest.mark.slow
def test_the_optimal_player_wins_from_any_state_that_random_actions_lead_to():
    for level in (1, 2, 3):
        for index in range(60):
            played, rng = HouseGame(make_house(index, index, level)), Random(index)
            while not played.is_won and played.steps < 30:
                played.act(rng.choice(played.admissible()))
            while not played.is_won and played.steps < 50:
                played.act(house_solution(played)[0])
            assert played.is_won and played.refused == 0, (level, index)


@pytest.mark.parametrize("actions", ["text", "native"])
def test_an_attempt_by_text_or_native_actions_scores_and_counts(actions: str):
    benchmark = agentbench_hh(tasks=6, actions=actions)  # type: ignore[arg-type]
    trace = asyncio.run(play(benchmark, benchmark.tasks(1)[4], "optimal", seed=1))
    assert trace.value() == 1 and trace.error is None and trace.final_state["ended"] == "won"
    assert trace.final_state["invalid_actions"] == 0 and trace.stop_reason == "done"


def test_refused_and_senseless_actions_are_counted_and_answered():
    benchmark = agentbench_hh(tasks=6, rounds=4)
    replies = ["Action: put mug 1 in/on sofa 9", "Action: иди домой", "Action: " + "x" * 100_000, "Action: look"]
    agent = Agent("a", Scripted(replies), thought_action, {"constrained": False})
    trace = asyncio.run(rollout(agent, benchmark.tasks(0)[0], benchmark=benchmark))
    seen = [call.detail["result"] for call in trace.calls if call.kind == "tool"]
    assert seen[0] == "Nothing happens." and "Write one command: go to" in seen[1] and "read" in seen[2]
    assert trace.final_state["invalid_actions"] == 3 and trace.final_state["ended"] == "rounds"
    assert trace.scores[0].detail["reason"] == "invalid action"


PROBLEM = """(define (problem plan_1) (:domain alfred)
 (:objects agent1 - agent)  ; and more
 (:init
  (receptacleType Cabinet_1 CabinetType) (openable Cabinet_1)
  (receptacleType Sink_1 SinkBasinType) (receptacleType Table_1 DiningTableType)
  (objectType Mug_9 MugType) (inReceptacle Mug_9 Cabinet_1) (cleanable Mug_9) (pickupable Mug_9)
  (objectType Mug_2 MugType) (inReceptacle Mug_2 Table_1) (cleanable Mug_2) (pickupable Mug_2)
  (canContain DiningTableType MugType) (canContain CabinetType MugType)
  (= (total-cost) 0))
 (:goal (and)))"""
NAME = "pick_clean_then_place_in_recep-Mug-None-DiningTable-3"


def write_game(root: Path, problem: object = PROBLEM, name: str = NAME) -> Path:
    path = root / "json_2.1.1" / "valid_unseen" / name / "trial_1" / "game.tw-pddl"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"pddl_domain": "", "grammar": "", "pddl_problem": problem}))
    return path


def test_alfworlds_games_are_read_played_and_listed(tmp_path: Path):
    path = write_game(tmp_path)
    house = read_game(path)
    assert house.task == "put a clean mug in diningtable." and len(house.receptacles) == 3
    assert [(each.name, each.place) for each in house.things] == [("mug 1", "diningtable 1"), ("mug 2", "cabinet 1")]
    benchmark = agentbench_hh(data=str(tmp_path))
    assert asyncio.run(play(benchmark, benchmark.tasks(0)[0], "optimal")).value() == 1
    lists = tmp_path / "standard.json"
    lists.write_text(json.dumps({"pick_clean_then_place": [str(path.relative_to(tmp_path))]}))
    assert len(agentbench_hh(data=str(tmp_path), lists=str(lists)).tasks(0)) == 1
    lists.write_text(json.dumps({"a": ["../../etc/passwd"]}))
    with pytest.raises(DataError, match="no path below"):
        list(listed_games(lists))


def test_games_that_alfworld_leaves_out_are_left_out_and_counted(tmp_path: Path):
    whole = write_game(tmp_path)
    for name in (NAME.replace("Mug", "AppleSliced"), "pick_and_place_with_movable_recep-Mug-Bowl-DiningTable-3"):
        write_game(tmp_path, name=name)
    for number, solvable in ((4, True), (5, False)):
        path = write_game(tmp_path, name=NAME.replace("-3", f"-{number}"))
        path.write_text(json.dumps({"pddl_problem": PROBLEM, "solvable": solvable}))
    benchmark = agentbench_hh(data=str(tmp_path))
    assert [task.id for task in benchmark.tasks(0)] == [f"{NAME}/trial_1", f"{NAME.replace('-3', '-4')}/trial_1"]
    assert "ALFWorld's games, 2 of valid_unseen, 3 left out as ALFWorld does; 35 rounds" in benchmark.protocol
    assert benchmark.options["tasks"] == 2
    lists = tmp_path / "standard.json"
    lists.write_text(json.dumps({"a": [str(whole.relative_to(tmp_path))]}))
    listed = agentbench_hh(data=str(tmp_path), lists=str(lists))
    assert f"ALFWorld's games, 1 of {lists}; 35 rounds" in listed.protocol
    lists.write_text(json.dumps({"a": [str(path.relative_to(tmp_path))]}))
    with pytest.raises(DataError, match=r"^the games of .*standard\.json are all of kinds that ALFWorld leaves out"):
        agentbench_hh(data=str(tmp_path), lists=str(lists))
    path.write_text("{")
    with pytest.raises(DataError, match="cannot be read as a JSON game"):
        agentbench_hh(data=str(tmp_path))


def test_broken_games_are_told_in_a_sentence(tmp_path: Path):
    for number, (problem, name, said) in enumerate(
        [
            (3, NAME, "pddl_problem"),
            ("(a", NAME, "matching parentheses"),
            ("a)", NAME, "too many"),
            ("(define)", NAME, r"no .:init"),
            (PROBLEM, "pick_up-Mug-None-Table-3", "known type"),
            (PROBLEM.replace("MugType", "CupType"), NAME, "no mug"),
            ("(" * 100 + ")" * 100, NAME, "deeper"),
        ]
    ):
        with pytest.raises(DataError, match=said):
            read_game(write_game(tmp_path / str(number), problem, name))
    with pytest.raises(DataError, match="alfworld-download"):
        agentbench_hh(data=str(tmp_path))
    with pytest.raises(ConfigError, match="level is 4"):
        agentbench_hh(level=4)
    assert parse_pddl("(a (b) ; c (\n d)", "x") == ["a", ["b"], "d"]


def told_house(text: str, kind: str) -> tuple[House, list[tuple[str, str]]]:
    """The house that a transcript of ALFWorld tells of, and its actions with their observations."""
    first, task, *rest = text.strip().splitlines()
    lines = [line.strip() for line in rest if line.strip()]
    steps = [
        (line.lstrip("> ").strip(), lines[index + 1] if index + 1 < len(lines) else "")
        for index, line in enumerate(lines)
        if line.startswith(">") and "think:" not in line
    ]
    places = re.findall(r"a ([a-z]+ \d+)", first)
    shut = {name for _, seen in steps for name in re.findall(r"The (\w+ \d+) is (?:closed|open)", seen)}
    inside: dict[str, str] = {}
    taken = set()
    for action, seen in steps:
        found = re.search(r"(?:On|In) (?:the (\w+ \d+)|it), you see (.*)", seen)
        where = (found and found[1]) or action.removeprefix("open ")
        for name in re.findall(r"a (\w+ \d+)", found[2]) if found else ():
            if name not in taken:
                inside.setdefault(name, where)
        if action.startswith("take "):
            taken.add(action.split(" from ")[0].removeprefix("take "))
    words = re.findall(r"[a-z]+", task.removeprefix("Your task is to: "))
    kinds = {name.split()[0] for name in inside}
    goal = HouseGoal(
        KINDS[kind],  # type: ignore[arg-type]
        next(word for word in words if word in kinds and word != "desklamp"),
        "desklamp" if kind == "examine" else words[-1],
        2 if kind == "puttwo" else 1,
    )
    able = frozenset({"clean", "heat", "cool"})
    things = [
        Thing(n, n.split()[0], p, frozenset({"use", "fixed"}) if n.startswith("desklamp") else able)
        for n, p in inside.items()
    ]
    spots, last = {}, ""
    for action, seen in steps:
        if action.startswith("go to "):
            name = action.removeprefix("go to ")
            spots |= {name: last, last: last} if seen == "Nothing happens." else {}
            last = name
    receptacles = [Receptacle(name, name.split()[0], name in shut, False, "", spots.get(name, "")) for name in places]
    return House("told", task, tuple(receptacles), tuple(things), goal), steps


def spread(observation: str) -> tuple[str, frozenset[str]]:
    """An observation without the order in which it lists things."""
    observation = re.sub(r"^You arrive at [^.]*\. ", "", observation)
    said, _, listed = observation.partition("you see ")
    return said, frozenset(re.findall(r"\w+ \d+", listed))


@pytest.mark.skipif(not PROMPTS.is_file(), reason="ReAct's transcripts of ALFWorld are not here")
def test_alfworlds_own_transcripts_are_repeated_word_for_word():
    replayed = 0
    for name, text in json.loads(PROMPTS.read_text()).items():
        house, steps = told_house(text, name.split("_")[1])
        played = HouseGame(house)
        for number, (action, seen) in enumerate(steps):
            assert not played.is_won, (name, action)
            place = action.removeprefix("open ") if action.startswith("open ") else action.rpartition(" from ")[2]
            if action.startswith(("open ", "take ")) and place != played.at:  # a line that the authors left out
                played.act(f"go to {place}")
            said = played.act(action)
            if seen and not seen.startswith(">") and number < len(steps):
                assert spread(said) == spread(seen), (name, action)
                replayed += 1
        assert played.is_won, name
    assert replayed > 250
