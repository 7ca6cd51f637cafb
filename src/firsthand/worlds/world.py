"""A world: state that an agent acts on, by text actions or by native tool calls, for a limited number of rounds.

A world file writes a class that fits `World`; `WorldEnvironment` is the `benchmark.Environment` around it, which counts
rounds and invalid actions and says why the attempt ended. An agent gets either the one tool `act(action)`, whose argument is
an action in the paper's grammar, or a native tool for each of the world's moves. Where the world lists its admissible
actions, they are the `enum` of that argument; where it has a regular expression, that is its `pattern`. Once it is over, a
world offers no tools.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any, Literal, NamedTuple, Protocol

from firsthand.errors import ConfigError, ToolError
from firsthand.loop.max_wait import max_wait_s
from firsthand.message import Json
from firsthand.tool import Tool, tool_from_function

ACT = "act"
"""The name of the tool that takes a text action; the pattern `thought_action` calls it."""
MAX_ACTION_CHARS = 20_000
MAX_NUMBER = 10.0**100
"""A number of an action is within ±this, so that a world and its scorers can compute with it."""
LOOP = 3
"""An action and its observation that come this many times in a row are a loop."""
Actions = Literal["text", "native"]
Ending = Literal["invalid action", "loop", "limit", "wrong end"]


class InvalidAction(ToolError):
    """An action outside the world's grammar or not possible now. The message helps: it says what is expected."""


class RefusedAction(str):
    """The observation of an action that was not possible, in the paper's own words: it counts as invalid and is no error."""

    __slots__ = ()


class WorldCall(NamedTuple):
    """A text action as a call of one of the world's moves."""

    name: str
    arguments: Json


class World(Protocol):
    """State of one attempt, and the moves that change it. A reset (`open`) takes at most 20 ms where nothing is started."""

    @property
    def moves(self) -> Sequence[Callable[..., Awaitable[str]]]:
        """Async functions with typed arguments and docstrings, as native tools are made of; each returns an observation.

        They raise InvalidAction for what cannot be done now.
        """

    @property
    def ending(self) -> str | None:
        """The reason why it is over, such as `won`, `answered` or `lost`; None while it goes on."""

    @property
    def form(self) -> str | None:
        """A regular expression that every text action matches from end to end (Rust's syntax); None if there is none."""

    async def open(self) -> None:
        """Make the first state."""

    async def close(self) -> None:
        """Let go of everything, whatever happened."""

    def read(self, action: str) -> WorldCall:
        """The move that a text action means; InvalidAction if it means none."""

    def admissible(self) -> Sequence[str] | None:
        """The text actions that are possible now, in a fixed order; None if they cannot be listed."""

    def render(self) -> str:
        """The state as text, for people."""

    async def result(self) -> Json:
        """The part of the state that the scorers read."""

    def optimal(self) -> str:
        """The next text action of a player that knows the world's secret and wins."""

    def random(self, rng: Random) -> str:
        """A text action drawn from the grammar without looking at the state, for the random player."""


class WorldEnvironment:
    """The `benchmark.Environment` around a World: one attempt of at most `rounds` actions, invalid ones included."""

    def __init__(self, world: World, *, rounds: int, actions: Actions = "text"):
        if rounds < 1 or actions not in ("text", "native"):
            raise ConfigError(f"rounds is {rounds} and actions {actions!r}: give 1 round or more, and text or native")
        self.world, self.limit, self.actions = world, rounds, actions
        self.rounds = self.invalid_actions = self.longest_loop = 0
        self._in_a_row = 0
        self._last: tuple[str, str] | None = None
        self._made: tuple[Tool, ...] = ()
        self._names: tuple[str, ...] = ()

    @property
    def max_wait_s(self) -> float | None:
        """The world's own; see `ToolSource`."""
        return max_wait_s(self.world)

    def ready(self) -> None:
        """FirsthandError if the world cannot be opened on this machine; a world says so by a `ready` of its own."""
        if (ready := getattr(self.world, "ready", None)) is not None:
            ready()

    @property
    def ended(self) -> str | None:
        """The reason why no further action is taken: the world's ending, or `rounds`; None while it goes on."""
        return self.world.ending or ("rounds" if self.rounds >= self.limit else None)

    @property
    def version(self) -> object:
        """A value that changes when the tools do."""
        if (ended := self.ended) is not None:
            return ended
        if self.actions == "native":
            return tuple(move.__name__ for move in self.world.moves)
        listed = self.world.admissible()
        return self.world.form if listed is None else tuple(listed)

    @property
    def tools(self) -> Sequence[Tool]:
        """The tool `act`, or the native tools; none once the world is over."""
        if self.ended is not None:
            return ()
        moves = self.world.moves if self.actions == "native" else (self._act,)
        if (names := tuple(move.__name__ for move in moves)) != self._names:  # a world may get further moves
            self._names, self._made = names, tuple(self._tool(move) for move in moves)
        if self.actions == "native":
            return self._made
        examples = getattr(self.world, "examples", ())
        return (_narrowed(self._made[0], self.world.admissible(), self.world.form, examples),)

    async def open(self) -> None:
        """Make the first state."""
        await self.world.open()

    async def close(self) -> None:
        """Let go of everything."""
        await self.world.close()

    async def final_state(self) -> Json:
        """Rounds, invalid actions, the longest run of one repeated action, why it ended, and the world's result.

        `ended` is `stopped` if the agent stopped although the world went on.
        """
        result = await self.world.result()  # first, as a world may see only then that it has ended
        return {
            "rounds": self.rounds,
            "limit": self.limit,
            "invalid_actions": self.invalid_actions,
            "longest_loop": self.longest_loop,
            "ended": self.ended or "stopped",
            "result": result,
        }

    async def act(self, action: str) -> str:
        """The observation of a text action. It costs a round even if it is invalid, which is an InvalidAction."""
        return await self._round(action, lambda: self._read_and_call(action))

    async def _read_and_call(self, action: str) -> str:
        if len(action) > MAX_ACTION_CHARS:
            raise InvalidAction(f"the action has {len(action)} characters: at most {MAX_ACTION_CHARS} are read")
        name, arguments = self.world.read(action)
        check_sizes(arguments)
        move = next(move for move in self.world.moves if move.__name__ == name)
        return await move(**arguments)

    async def _round(self, action: str, play: Callable[[], Awaitable[str]]) -> str:
        """The observation of one round, counted."""
        if (ended := self.ended) is not None:
            raise ToolError(f"the task is over ({ended}): no further action is taken")
        self.rounds += 1
        try:
            observation = await play()
        except InvalidAction as error:
            self.invalid_actions += 1
            self._count_repeats(action, str(error))
            raise InvalidAction(f"{error}{self._told_end()}") from None
        self.invalid_actions += isinstance(observation, RefusedAction)
        self._count_repeats(action, observation)
        return observation + self._told_end()

    def _told_end(self) -> str:
        ended = self.ended
        return "" if ended is None else f"\n[the task is over: {ended}]"

    def _count_repeats(self, action: str, observation: str) -> None:
        self._in_a_row = self._in_a_row + 1 if self._last == (action, observation) else 1
        self._last = (action, observation)
        self.longest_loop = max(self.longest_loop, self._in_a_row)

    async def _act(self, action: str) -> str:
        """Act in the world; returns what is observed.

        Args:
            action: One action in the grammar that the task describes.
        """
        return await self.act(action)

    def _tool(self, move: Callable[..., Awaitable[str]]) -> Tool:
        """A tool that plays one round. A call whose arguments do not fit its schema is refused before, and costs none."""
        made = tool_from_function(move, effect="write", name=ACT if move == self._act else None, timeout_s=300.0)
        if move == self._act:
            return made

        async def counted(**arguments: object) -> str:
            return await self._round(f"{made.name} {_shown(arguments)}", lambda: _sized(move, arguments))

        return replace(made, function=counted)


def check_sizes(arguments: Mapping[str, Any]) -> None:
    """InvalidAction for a number beyond ±MAX_NUMBER, an infinite one or a NaN, anywhere in the arguments of a call."""
    for name, given in arguments.items():
        left = [given]
        while left:
            value = left.pop()
            if isinstance(value, dict):
                left += value.values()
            elif isinstance(value, list | tuple | set):
                left += value
            elif isinstance(value, int | float) and not -MAX_NUMBER <= value <= MAX_NUMBER:
                raise InvalidAction(f"{name} has a number beyond ±1e100, or none: give one that the task can mean")


def _shown(arguments: Mapping[str, object]) -> str:
    """The arguments as a text that tells equal calls; a number of more digits than are written is no text."""
    try:
        return str(arguments)
    except ValueError:
        return "a number of too many digits"


async def _sized(move: Callable[..., Awaitable[str]], arguments: Mapping[str, Any]) -> str:
    check_sizes(arguments)
    return await move(**arguments)


def _narrowed(act: Tool, listed: Sequence[str] | None, form: str | None, examples: Sequence[str]) -> Tool:
    """The tool with the admissible actions in its schema. They guide; what is possible is decided by the world.

    `examples`, which a world may have, are actions of other tasks; `react` shows them in its worked turns.
    """
    extra: Json = {"enum": list(listed)} if listed else {"pattern": form} if form else {}
    extra |= {"examples": list(examples)} if examples else {}
    if not extra:
        return act
    schema = act.spec.parameters
    action = {**schema["properties"]["action"], **extra}
    return replace(act, spec=replace(act.spec, parameters={**schema, "properties": {"action": action}}))


def failure_reason(state: Json, stop_reason: str = "done") -> Ending:
    """Why an attempt that did not win ended, from its final state and its stop reason: the first of these that fits.

    `loop`: one action and its observation came `LOOP` times in a row; `invalid action`: half of the actions or more were
    invalid; `limit`: rounds, turns, tokens or seconds ran out; `wrong end`: it answered or ended wrongly, or the agent
    stopped.
    """
    rounds = state.get("rounds", 0)
    ended = state.get("ended")
    if ended == "looped" or (state.get("longest_loop", 0) >= LOOP and ended in ("rounds", "turns", "stopped")):
        return "loop"
    if rounds and 2 * state.get("invalid_actions", 0) >= rounds:
        return "invalid action"
    return "limit" if ended in ("rounds", "turns") or stop_reason not in ("done", "guard") else "wrong end"
