"""Players of a small world, whole conversations at a time; and TextWorld's games over a small package in its place."""

import asyncio
import sys
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.benchmark import NamedSetting
from firsthand.errors import ConfigError, MissingExtra
from firsthand.loop.budget import Limits
from firsthand.message import Message
from firsthand.task import Task
from firsthand.trace import Trace
from firsthand.worlds import textworld_game
from firsthand.worlds.players import MAX_DRAWS, _readable, next_action, play
from firsthand.worlds.textworld_game import TextWorldGame, make_game
from firsthand.worlds.world import InvalidAction, RefusedAction, WorldCall, WorldEnvironment


class DoorWorld:
    """A world of doors 1 to 3; the second one wins."""

    form = None

    def __init__(self, listed: tuple[str, ...] | None = ("1", "2", "3")) -> None:
        self.listed, self.ending, self.tried = listed, None, list[int]()

    async def open(self) -> None:
        self.tried.clear()

    async def close(self) -> None:
        pass

    @property
    def moves(self) -> Any:
        return (self.door,)

    async def door(self, number: int) -> str:
        """Open a door.

        Args:
            number: Which.
        """
        self.tried.append(number)
        self.ending = "won" if number == 2 else None  # type: ignore[assignment]
        return f"Door {number}."

    def read(self, action: str) -> WorldCall:
        if not action.isdigit():
            raise InvalidAction("no number")
        return WorldCall("door", {"number": int(action)})

    def admissible(self) -> Any:
        return self.listed

    def render(self) -> str:
        return "doors"

    async def result(self) -> dict[str, object]:
        return {"tried": self.tried}

    def optimal(self) -> str:
        return "2" if self.tried else "3"

    def random(self, rng: Random) -> str:
        return f"free {rng.randrange(9)}"


TASK = Task("doors/1", "Open the right door.", metadata={"a": 1})


def played(player: Any, actions: str = "text", rounds: int = 4, listed: Any = ("1", "2", "3"), **more: Any) -> Any:
    made = WorldEnvironment(DoorWorld(listed), rounds=rounds, actions=actions)  # type: ignore[arg-type]
    trace = asyncio.run(play(NamedSetting("doors", (), lambda task: made), TASK, player, **more))
    return made, trace


def messages(trace: Trace) -> list[Message]:
    return [node.message for node in trace.nodes if node.message.role == "assistant"]


def test_the_optimal_player_plays_by_texts_with_a_thought_or_without():
    for options, opening in (({}, "Thought: I am the optimal player.\n"), ({"thought": False}, "")):
        made, trace = played("optimal", seed=5, limits=Limits(depth=7, calls=9), **options)
        assert made.world.tried == [3, 2]
        assert (made.rounds, made.ended) == (2, "won")
        texts = [each.text for each in messages(trace)]
        assert texts == [f"{opening}Action: 3", f"{opening}Action: 2"]
        assert (trace.agent["name"], trace.agent["pattern"], trace.seed) == ("optimal", "thought_action", 5)
        assert trace.agent["options"] == {"max_steps": 4, **({"thought": options.get("thought", True)})}
        assert (trace.agent["model"], trace.agent["fingerprint"]) == ("scripted:optimal", "scripted:optimal:5")
        assert (trace.agent["sampling"]["max_tokens"], trace.agent["limits"]) == (100_000, {"depth": 7, "calls": 9})
        assert trace.benchmark == "doors"


def test_the_player_of_native_calls_gives_the_read_call_and_then_says_that_it_is_done():
    made, trace = played("optimal", actions="native")
    assert made.world.tried == [3, 2]
    said = [each for each in messages(trace)]
    assert [(call.id, call.name, call.arguments) for each in said for call in each.tool_calls] == [
        ("call_0", "door", {"number": 3}), ("call_1", "door", {"number": 2})
    ]  # fmt: skip
    assert trace.agent["options"] == {"native": True, "max_steps": 5}
    assert trace.agent["pattern"] == "react"
    assert said[-1].text == "The answer is done."


def test_the_idle_player_acts_never_and_a_person_may_be_told_what_is_wrong():
    made, trace = played("idle", seed=6)
    assert trace.seed == 6
    assert (made.world.tried, made.rounds, trace.agent["name"], trace.answer) == ([], 0, "idle", "")
    answers = iter(["x", "1", "2"])
    made, trace = played(lambda world, messages: next(answers))
    assert (made.world.tried, made.rounds, made.invalid_actions, trace.agent["name"]) == ([1, 2], 3, 1, "person")
    assert trace.agent["options"] == {"max_steps": 4, "thought": True, "constrained": False}
    with pytest.raises(ConfigError, match=r"^bare is no world: a player needs one, such as agentbench_db$"):
        asyncio.run(play(NamedSetting("bare", ()), TASK, "optimal"))


def test_a_random_player_draws_by_its_seed_and_task_and_a_call_outside_the_grammar_is_drawn_again():
    for seed in (3, 4):
        made, _ = played("random", seed=seed, rounds=12, listed=("1", "3"))
        draw = next_action("random", TASK, seed)
        drawn_doors = [int(draw(DoorWorld(("1", "3")), ())) for _ in made.world.tried]
        assert made.world.tried == drawn_doors
        assert len(drawn_doors) == 12
    world = DoorWorld()
    drawn = [[draw(world, ()) for _ in range(12)] for draw in (next_action("random", TASK, seed) for seed in (0, 0, 1))]
    assert drawn[0] == drawn[1] != drawn[2]
    other = next_action("random", Task("doors/2", ""), 0)
    assert [other(world, ()) for _ in range(12)] != drawn[0]
    assert set(drawn[0]) == {"1", "2", "3"}
    assert next_action("random", TASK)(DoorWorld(None), ()).startswith("free ")
    assert next_action("random", TASK)(DoorWorld(()), ()).startswith("free ")
    assert next_action("optimal", TASK)(world, ()) == "3"
    with pytest.raises(ConfigError, match=r"^the player is 'idle': actions come from optimal or random$"):
        next_action("idle", TASK)
    count = iter(range(MAX_DRAWS * 3))
    last = {"from": MAX_DRAWS - 1}
    assert _readable(world, lambda *_: "7" if next(count) >= last["from"] else "x", ()) == WorldCall(
        "door", {"number": 7}
    )
    assert next(count) == MAX_DRAWS
    last["from"] = 2 * MAX_DRAWS + 1
    with pytest.raises(
        ConfigError, match=r"^the player gave 1000 actions outside the grammar: play it with text actions$"
    ):
        _readable(world, lambda *_: "7" if next(count) >= last["from"] else "x", ())


class GameState(SimpleNamespace):
    """Facts of a game, as attributes and by `get`."""

    def get(self, name):
        return getattr(self, name, None)


class SmallGame:
    """A running game of the small package."""

    def __init__(self, asked: dict[str, bool]) -> None:
        self.asked, self.stepped, self.closed = asked, list[str](), 0

    def state(self, feedback: str) -> SimpleNamespace:
        won = "take lamp" in self.stepped
        return GameState(
            admissible_commands=["look", "go east", "take lamp"], policy_commands=["take lamp", "look"], won=won,
            lost="jump" in self.stepped, score=len(self.stepped) or None, max_score=3, description=" A room. \n",
            inventory="A hat.\n", feedback=feedback,
        )  # fmt: skip

    def reset(self) -> SimpleNamespace:
        return self.state("intro")

    def step(self, words: str) -> tuple[SimpleNamespace, int, bool]:
        self.stepped.append(words)
        return self.state(f"\nYou {words}.\n\n\n> -= Room =-0/3"), 0, False

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    made = SimpleNamespace(made=[], started=[], fails=False)

    class GameOptions:
        pass

    def make(options: Any) -> None:
        made.made.append(
            (options.seeds, options.nb_rooms, options.nb_objects, options.quest_length, Path(options.path).name)
        )
        if made.fails:
            raise RuntimeError("no compiler " * 40)
        for ending in (".z8", ".json"):
            Path(options.path).with_suffix(ending).write_text(f"Find {options.nb_rooms}.")

    def start(path: str, asked: dict[str, bool]) -> SmallGame:
        made.started.append(path)
        return SmallGame(asked)

    made.GameOptions, made.make, made.start, made.EnvInfos = GameOptions, make, start, dict
    made.Game = SimpleNamespace(load=lambda path: SimpleNamespace(objective=Path(path).read_text()))
    monkeypatch.setitem(sys.modules, "textworld", made)
    monkeypatch.setattr(textworld_game, "data_home", lambda: tmp_path)
    return made


def test_a_game_is_made_once_from_its_seed_and_kept_with_its_objective(package, tmp_path):
    folder = tmp_path / "textworld"
    found = make_game(7, 12, 2)
    assert found == (folder / "v1-level2-seed7-0012.z8", "Find 4.")
    seed = Random("7 12 2").randrange(2**31)
    assert package.made == [(seed, 4, 8, 4, "v1-level2-seed7-0012.z8")]
    assert sorted(each.name for each in folder.iterdir()) == ["v1-level2-seed7-0012.json", "v1-level2-seed7-0012.z8"]
    assert make_game(7, 12, 2) == found
    assert len(package.made) == 1
    make_game(7, 12, 3)
    assert package.made[1] == (Random("7 12 3").randrange(2**31), 8, 14, 7, "v1-level3-seed7-0012.z8")
    package.fails = True
    with pytest.raises(ConfigError) as refused:
        make_game(1, 0, 1)
    told = ("no compiler " * 40)[:300]
    assert str(refused.value) == f"TextWorld cannot make game v1-level1-seed1-0000: {told}"
    assert len(list(folder.iterdir())) == 4


def test_a_command_is_given_in_its_plain_form_and_what_it_shows_is_told(package, tmp_path):
    world = TextWorldGame(tmp_path / "g.z8")
    assert (world.ending, world.admissible()) == (None, ())
    assert asyncio.run(world.result()) == {"won": False, "score": 0, "max_score": 0}
    asyncio.run(world.open())
    game = world._game
    assert package.started == [str(tmp_path / "g.z8")]
    assert game.asked == dict.fromkeys(
        ("admissible_commands", "policy_commands", "won", "lost", "score", "max_score", "description", "inventory"),
        True,
    )
    assert world.admissible() == ["go east", "look", "take lamp"]
    assert world.render() == "A room.\nA hat."
    assert asyncio.run(world.result()) == {"won": False, "score": 0, "max_score": 3}
    assert (world.optimal(), world.random(Random(1)) in world.admissible()) == ("take lamp", True)
    said = asyncio.run(world.command(" go \n east "))
    assert said == "You go east."
    assert not isinstance(said, RefusedAction)
    assert world.render() == "You go east.\nA room.\nA hat."
    assert isinstance(asyncio.run(world.command("dance")), RefusedAction)
    assert world.ending is None
    asyncio.run(world.command("jump"))
    assert world.ending == "lost"
    asyncio.run(world.command("take lamp"))
    assert world.ending == "won"
    assert asyncio.run(world.result()) == {"won": True, "score": 4, "max_score": 3}
    for text, told in (
        (" ", "'' (0 characters) is no command: write one, such as take lamp from table, at most 200 characters"),
        ("a" * 201, f"{'a' * 40!r} (201 characters) is no command: write one, such as take lamp from table, at most 200 "
         "characters"),
        ("a\x07b", "'a\\x07b' (3 characters) is no command: write one, such as take lamp from table, at most 200 "
         "characters"),
    ):  # fmt: skip
        with pytest.raises(InvalidAction) as refused:
            asyncio.run(world.command(text))
        assert str(refused.value) == told
    asyncio.run(world.command("a" * 200))
    assert len(game.stepped) == 5
    assert world.read("look") == WorldCall("command", {"text": "look"})
    asyncio.run(world.close())
    asyncio.run(world.close())
    assert game.closed == 1


def test_without_the_package_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "textworld", None)
    with pytest.raises(MissingExtra, match=r"textworld.*the benchmark textworld|the benchmark textworld.*textworld"):
        textworld_game.ready()
