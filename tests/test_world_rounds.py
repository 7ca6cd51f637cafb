"""Rounds of a world without an agent: what is counted, told and offered; and the browsers that attempts share."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from firsthand.errors import ConfigError, ToolError
from firsthand.worlds.browsing.browser_pool import MAX_RUNNING, BrowserPool
from firsthand.worlds.world import (
    MAX_ACTION_CHARS,
    InvalidAction,
    RefusedAction,
    WorldCall,
    WorldEnvironment,
    failure_reason,
)


class Stairs:
    """A staircase: `step` says what it is told, `jump` is refused, and other words are no action."""

    examples: tuple[str, ...] = ()

    def __init__(self, listed: Sequence[str] | None = None, form: str | None = None) -> None:
        self.listed, self.form, self.ending, self.says = listed, form, None, list[str]()
        self.more: tuple[Any, ...] = ()
        self.is_open = False

    @property
    def moves(self) -> Any:
        return (self.step, self.jump, *self.more)

    async def step(self, number: int, foot: str = "left") -> str:
        """Take steps.

        Args:
            number: How many.
            foot: The first foot.
        """
        if number > 9:
            raise InvalidAction("too many")
        return self.says.pop(0) if self.says else f"{number} {foot}"

    async def jump(self) -> str:
        """Jump."""
        return RefusedAction("Nothing happens.")

    def read(self, action: str) -> WorldCall:
        if action.startswith("jump"):
            return WorldCall("jump", {})
        if not action.isdigit():
            raise InvalidAction("no number")
        return WorldCall("step", {"number": int(action)})

    def admissible(self) -> Sequence[str] | None:
        return self.listed

    async def open(self) -> None:
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False

    async def result(self) -> dict[str, Any]:
        return {"at": 3}


def played(made: WorldEnvironment, *actions: str) -> list[str]:
    """What is observed; an error with its kind before it."""

    async def one(action: str) -> str:
        try:
            return await made.act(action)
        except ToolError as error:
            return f"{type(error).__name__}: {error}"

    return [asyncio.run(one(action)) for action in actions]


def test_every_action_costs_a_round_and_the_last_one_is_told_so() -> None:
    made: Any = WorldEnvironment(Stairs(), rounds=4)  # type: ignore[arg-type]
    assert played(made, "1", "x") == ["1 left", "InvalidAction: no number"]
    assert (made.rounds, made.invalid_actions, made.ended) == (2, 1, None)
    assert played(made, "jump", "12") == ["Nothing happens.", "InvalidAction: too many\n[the task is over: rounds]"]
    assert (made.rounds, made.invalid_actions, made.ended) == (4, 3, "rounds")
    over = "ToolError: the task is over (rounds): no further action is taken"
    assert played(made, "1", "x") == [over, over] and (made.rounds, made.invalid_actions) == (4, 3)
    state = {"rounds": 4, "limit": 4, "invalid_actions": 3, "longest_loop": 1, "ended": "rounds", "result": {"at": 3}}
    assert asyncio.run(made.final_state()) == state
    won: Any = WorldEnvironment(Stairs(), rounds=1)  # type: ignore[arg-type]
    won.world.ending = "won"
    assert won.ended == "won" and played(won, "1") == ["ToolError: the task is over (won): no further action is taken"]
    assert asyncio.run(won.final_state())["ended"] == "won" and won.tools == ()
    stopped: Any = WorldEnvironment(Stairs(), rounds=3)  # type: ignore[arg-type]
    asyncio.run(stopped.open())
    assert stopped.world.is_open and asyncio.run(stopped.final_state())["ended"] == "stopped"
    asyncio.run(stopped.close())
    assert not stopped.world.is_open
    long: Any = WorldEnvironment(Stairs(), rounds=2)  # type: ignore[arg-type]
    jumps = "jump".ljust(MAX_ACTION_CHARS)
    told = f"InvalidAction: the action has {MAX_ACTION_CHARS + 1} characters: at most {MAX_ACTION_CHARS} are read"
    assert played(long, jumps, jumps + "!") == ["Nothing happens.", f"{told}\n[the task is over: rounds]"]
    for rounds, actions in ((0, "text"), (1, "both"), (-1, "native")):
        with pytest.raises(ConfigError) as error:
            WorldEnvironment(Stairs(), rounds=rounds, actions=actions)  # type: ignore[arg-type]
        assert str(error.value) == (
            f"rounds is {rounds} and actions {actions!r}: give 1 round or more, and text or native"
        )


def test_an_action_is_repeated_if_its_observation_is_the_same_too() -> None:
    made: Any = WorldEnvironment(Stairs(), rounds=20)  # type: ignore[arg-type]
    made.world.says = ["a", "a", "b", "b"]
    lengths = []
    for action in ("1", "1", "1", "2", "2", "2", "2", "x", "x", "x", "x", "y"):
        played(made, action)
        lengths.append((made._in_a_row, made.longest_loop))
    assert lengths == [
        (1, 1), (2, 2), (1, 2), (1, 2), (1, 2), (2, 2), (3, 3), (1, 3), (2, 3), (3, 3), (4, 4), (1, 4),
    ]  # fmt: skip


def test_the_tool_of_text_actions_shows_what_is_possible_now() -> None:
    world = Stairs(["1", "2"], "[0-9]+")
    made: Any = WorldEnvironment(world, rounds=2)  # type: ignore[arg-type]
    (tool,) = made.tools
    assert (tool.name, tool.effect, tool.timeout_s) == ("act", "write", 300.0)
    about = {"type": "string", "description": "One action in the grammar that the task describes."}
    assert tool.spec.parameters["properties"] == {"action": {**about, "enum": ["1", "2"]}}
    assert tool.spec.parameters["required"] == ["action"] and made.version == ("1", "2")
    for listed, form, examples, extra in (
        (None, "[0-9]+", (), {"pattern": "[0-9]+"}), ([], "[0-9]+", ("7",), {"pattern": "[0-9]+", "examples": ["7"]}),
        (["3"], None, ("7",), {"enum": ["3"], "examples": ["7"]}), (None, None, (), {}),
        (None, None, ("7",), {"examples": ["7"]}),
    ):  # fmt: skip
        world.listed, world.form, world.examples = listed, form, examples
        assert made.tools[0].spec.parameters["properties"] == {"action": {**about, **extra}}
        assert made.version == (form if listed is None else tuple(listed))
    assert asyncio.run(made.tools[0].function(action="3")) == "3 left" and made.rounds == 1
    assert asyncio.run(made.tools[0].function(action="4")).endswith("[the task is over: rounds]") and made.tools == ()
    assert made.version == "rounds"


def test_native_tools_are_the_worlds_moves_and_further_ones_as_they_come() -> None:
    world = Stairs(["1"], "x")
    made: Any = WorldEnvironment(world, rounds=9, actions="native")  # type: ignore[arg-type]
    step, jump = made.tools
    assert (step.name, jump.name, made.version) == ("step", "jump", ("step", "jump"))
    assert (step.effect, step.timeout_s) == ("write", 300.0) and made.tools is made.tools
    assert list(step.spec.parameters["properties"]) == ["number", "foot"]
    assert step.spec.parameters["required"] == ["number"] and "enum" not in str(step.spec.parameters)
    assert asyncio.run(step.function(number=2, foot="right")) == "2 right"
    assert made._last == ("step {'number': 2, 'foot': 'right'}", "2 right")
    assert asyncio.run(jump.function()) == "Nothing happens." and (made.rounds, made.invalid_actions) == (2, 1)

    async def rest() -> str:
        """Rest."""
        return "rested"

    world.more = (rest,)
    assert [each.name for each in made.tools] == ["step", "jump", "rest"] == list(made.version)
    assert asyncio.run(made.tools[2].function()) == "rested" and made.rounds == 3
    with pytest.raises(InvalidAction, match=r"^too many$"):
        asyncio.run(step.function(number=10))


def test_why_an_attempt_failed_is_the_first_reason_that_fits() -> None:
    def why(rounds: int, invalid: int, loop: int, ended: str, *stop: str) -> str:
        state = {"rounds": rounds, "invalid_actions": invalid, "longest_loop": loop, "ended": ended}
        return failure_reason(state, *stop)

    assert [why(6, 3, 3, ended) for ended in ("rounds", "stopped", "lost")] == ["loop", "loop", "invalid action"]
    assert [why(6, invalid, 2, "rounds") for invalid in (2, 3)] == ["limit", "invalid action"]
    assert [why(7, invalid, 2, "lost") for invalid in (3, 4)] == ["wrong end", "invalid action"]
    assert [why(1, 0, 1, "stopped", stop) for stop in ("done", "guard", "tokens")] == [
        "wrong end",
        "wrong end",
        "limit",
    ]
    assert why(0, 0, 0, "stopped") == "wrong end" == failure_reason({}) and why(1, 0, 1, "rounds") == "limit"


class Kept:
    """A browser that may fail to be cleaned."""

    def __init__(self, port: int, fails: bool = False) -> None:
        self.port, self.fails, self.said = port, fails, list[str]()

    def clean(self) -> None:
        self.said.append("clean")
        if self.fails:
            raise ConnectionError("gone")

    def quit(self) -> None:
        self.said.append("quit")
        if self.fails:
            raise OSError("gone")


def test_browsers_are_kept_cleaned_ended_and_closed_and_no_place_is_lost() -> None:
    made: list[Kept] = []

    def start(port: int) -> Any:
        if len(made) == 3:
            raise ConfigError("no Chromium")
        made.append(Kept(port, fails=len(made) == 1))
        return made[-1]

    pool: Any = BrowserPool(start)
    pool.close()
    assert pool._server is None, "nothing was started"
    first, second, third = pool.take(), pool.take(), pool.take()
    assert first.port == pool.server.port > 0 and pool._places._value == MAX_RUNNING - 3 == 1
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"^no Chromium$"):
            pool.take()
        assert pool._places._value == 1, "a browser that does not start takes no place"
    with pytest.raises(OSError, match=r"^gone$"):
        pool.give_back(second)
    assert second.said == ["clean", "quit"] and pool._places._value == 2 and pool._idle == []
    pool.give_back(first)
    pool.give_back(third)
    assert pool._idle == [first, third] and (first.said, pool._places._value) == (["clean"], 4)
    assert pool.take() is third and pool._idle == [first]
    pool.end(third)
    assert third.said == ["clean", "quit"] and pool._places._value == 4
    server = pool.server
    assert pool.server is server
    pool.close()
    assert first.said == ["clean", "quit"] and pool._idle == [] and pool._server is None
    with pytest.raises(OSError):
        server._server.socket.getsockname()
