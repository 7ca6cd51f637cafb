"""BFCL's multi-turn tasks as a World: a user's requests come one after the other, and calls change simulated services.

The simulators and their data are those of the installed package `bfcl-eval`. A turn is over once the agent says something
in place of a call; then the services are compared with those of the task's own calls, and every result of these must have
been seen, as in the leaderboard's checker. Calls go to methods by name, where the leaderboard evaluates them as Python.
"""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import json
import typing
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any, NamedTuple

from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.system.given_data import held
from firsthand.system.ordinary_file import read_ordinary_text
from firsthand.worlds.json_calls import EXAMPLE, read_call, unfenced
from firsthand.worlds.service_bounds import MAX_STATE_CHARS, check_numbers, is_too_large, own_precision
from firsthand.worlds.world import MAX_ACTION_CHARS, InvalidAction, WorldCall

END_TURN = "end_turn"
MAX_STEPS = 20
"""Calls of one turn, or as many as the task's own; with one more the attempt is over. The leaderboard counts replies, which
may hold several."""
MODULES: Mapping[str, str] = {
    "GorillaFileSystem": "gorilla_file_system",
    "MathAPI": "math_api",
    "MessageAPI": "message_api",
    "TwitterAPI": "posting_api",
    "TicketAPI": "ticket_api",
    "TradingBot": "trading_bot",
    "TravelAPI": "travel_booking",
    "VehicleControlAPI": "vehicle_control",
}
"""A simulated service -> its module, and the file that describes its functions."""


class TurnTask(NamedTuple):
    """The turns of a user, the services with their first state, and the calls that do what each turn wants."""

    id: str
    turns: tuple[str, ...]
    services: tuple[str, ...]
    first_state: Json
    excluded: tuple[str, ...]
    calls: tuple[tuple[str, ...], ...]
    long: bool = False
    """With the services' long contents, for the category `long_context`."""
    later: Mapping[int, tuple[str, ...]] = MappingProxyType({})
    """The functions that come with a turn, by its number from 0, for the category `miss_func`."""

    def is_later(self, name: str) -> bool:
        """True for a function that is not there in the first turn."""
        return any(name in names for names in self.later.values())


def ready() -> None:
    """ConfigError if the simulators cannot be imported."""
    try:
        for module in MODULES.values():
            _module(module)
    except ImportError as error:
        raise ConfigError(
            f"BFCL's simulators need pip install --no-deps bfcl-eval and pip install mpmath ({error.name} is missing)"
        ) from None


def _module(name: str) -> Any:
    return importlib.import_module(f"bfcl_eval.eval_checker.multi_turn_eval.func_source_code.{name}")


def described_functions(task: TurnTask, folder: Path) -> dict[str, Json]:
    """The task's functions by name, as the files of `multi_turn_func_doc` describe them."""
    found = {}
    for service in task.services:
        for line in read_ordinary_text(held(folder / f"{MODULES[service]}.json", folder)).split("\n"):
            described = json.loads(line) if line.strip() else None
            if described is not None and described["name"] not in task.excluded:
                found[described["name"]] = described
    return found


def listed(functions: Iterable[Json]) -> str:
    """The descriptions of functions for an agent, one in a line."""
    return "\n".join(
        json.dumps({key: each[key] for key in ("name", "description", "parameters")}) for each in functions
    )


class Services:
    """The simulated services of one task. Results are texts, as the leaderboard writes them."""

    def __init__(self, task: TurnTask) -> None:
        """Services in their first state."""
        self.instances = {}
        for name in task.services:
            self.instances[name] = getattr(_module(MODULES[name]), name)()
            if hasattr(self.instances[name], "_load_scenario"):
                self.instances[name]._load_scenario(
                    copy.deepcopy(task.first_state.get(name, {})), long_context=task.long
                )

    def method(self, name: str) -> Callable[..., Any]:
        """The function of that name."""
        owner = next(each for each in self.instances.values() if hasattr(each, name))
        return getattr(owner, name)  # type: ignore[no-any-return]

    def call(self, name: str, given: Sequence[Any], arguments: Mapping[str, Any]) -> str:
        """The result of a call; its error as a text. Whole numbers become floats where the function wants them."""
        method = self.method(name)
        with own_precision():  # a result is written in the precision that the call has set
            try:
                bound = inspect.signature(method).bind(*given, **arguments).arguments
                hints = typing.get_type_hints(method)
                check_numbers(bound, hints)
                floats = {
                    key: float(bound[key]) for key in bound if hints.get(key) is float and isinstance(bound[key], int)
                }
                return _written(method(**{**bound, **floats}))
            except Exception as error:
                return f"Error during execution: {error}"

    def are_too_large(self) -> bool:
        """True if their state is beyond what is kept."""
        return is_too_large(self.instances.values())

    def run(self, call: str) -> str:
        """The result of a call that is written in Python with literal arguments."""
        name, given, arguments = parsed(call)
        return self.call(name, given, arguments)

    def equal(self, other: Services) -> bool:
        """True if the public attributes of all services are equal."""
        return all(
            getattr(self.instances[name], key, None) == value
            for name, instance in other.instances.items()
            for key, value in vars(instance).items()
            if not key.startswith("_")
        )


def _written(result: Any) -> str:
    """A result as the leaderboard writes it."""
    try:
        return json.dumps(result) if isinstance(result, dict) else str(result)
    except (TypeError, ValueError):
        return str(result)


def parsed(call: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Name, positional and named arguments of a call in Python."""
    body = ast.parse(call, mode="eval").body
    assert isinstance(body, ast.Call)
    assert isinstance(body.func, ast.Name)
    named = {str(each.arg): ast.literal_eval(each.value) for each in body.keywords}
    return body.func.id, [ast.literal_eval(each) for each in body.args], named


class FunctionTurnsWorld:
    """One task. `World` describes the interface. A text action is a call as JSON, and any other text ends the turn."""

    form = None

    def __init__(self, task: TurnTask, functions: Mapping[str, Json]) -> None:
        """A task, and its functions as they are described."""
        self.task, self.functions = task, functions
        self.ending: str | None = None
        self.moves: tuple[Callable[..., Awaitable[str]], ...] = ()

    def ready(self) -> None:
        """ConfigError if the simulators are missing."""
        ready()

    async def open(self) -> None:
        """Put the services into their first state, and copies for the task's own calls beside them."""
        self.services, self.wanted = Services(self.task), Services(self.task)
        self.turn, self.steps, self.passed = 0, 0, 0
        self.seen: Counter[str] = Counter()
        self.failed = ""
        self.last = ""
        self._left = list(self.task.calls[0])
        offered = (self._move(name) for name in self.functions if not self.task.is_later(name))
        self.moves = (*offered, self.end_turn)

    async def close(self) -> None:
        """Nothing is held."""

    def _move(self, name: str) -> Callable[..., Awaitable[str]]:
        """A function of the services as a move, with their signature and the description that the leaderboard gives."""
        method = self.services.method(name)
        described = self.functions[name]
        hints = {key: hint for key, hint in typing.get_type_hints(method).items() if key != "return"}
        parameters = [
            each.replace(annotation=hints.setdefault(each.name, str))
            for each in inspect.signature(method).parameters.values()
        ]

        async def move(**arguments: Any) -> str:
            return self._called(name, arguments)

        lines = [
            f"    {key}: {each.get('description', '')}" for key, each in described["parameters"]["properties"].items()
        ]
        move.__name__ = name
        move.__doc__ = "\n".join([described["description"], "", "Args:", *lines])
        move.__annotations__ = hints
        move.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return move

    def _called(self, name: str, arguments: Mapping[str, Any]) -> str:
        self.steps += 1
        if self.steps > (most := max(MAX_STEPS, len(self.task.calls[self.turn]))):
            self.ending = "too many calls in a turn"
            return f"The turn is over: {most} calls are made in one at most."
        if (chars := len(json.dumps(arguments, ensure_ascii=False))) > MAX_ACTION_CHARS:
            raise InvalidAction(
                f"the arguments of {name} have {chars:,} characters: at most {MAX_ACTION_CHARS:,} are read"
            )
        self.last = self.services.call(name, (), arguments)
        if self.services.are_too_large():
            self.ending = "too large a state"
            return f"The task is over: the services hold more than {MAX_STATE_CHARS:,} characters, or a folder holds itself."
        self.seen[self.last] += 1
        return self.last

    async def end_turn(self, message: str) -> str:
        """Tell the user that the request is done, or what is missing; returns the next request.

        Args:
            message: The message to the user.
        """
        self._check()
        self.turn, self.steps = self.turn + 1, 0
        if self.turn == len(self.task.turns):
            self.ending = "done"
            return "The user has no further request."
        self._left = list(self.task.calls[self.turn])
        come = self.task.later.get(self.turn, ())
        self.moves = (*self.moves[:-1], *map(self._move, come), self.end_turn)
        shown = listed(self.functions[name] for name in come)
        told = [f"There are more functions now:\n{shown}\nDo it now."] if come else []
        return "\n\n".join([*told, *filter(None, [self.task.turns[self.turn]])])

    def _check(self) -> None:
        """Compare services and results with those of the task's own calls; the first turn that differs is told."""
        calls = self.task.calls[self.turn]
        results = Counter(self.wanted.run(call) for call in calls)
        if self.failed:
            return
        if calls and not self.steps:
            self.failed = f"turn {self.turn + 1}: no call was made"
        elif calls and not self.services.equal(self.wanted):
            self.failed = f"turn {self.turn + 1}: the services are in another state"
        elif results - self.seen:
            self.failed = f"turn {self.turn + 1}: a result is missing"
        else:
            self.passed += 1

    def read(self, action: str) -> WorldCall:
        """The call that a JSON object means, or the end of the turn."""
        text = unfenced(action)
        if text.startswith("{"):
            return read_call(text, self.moves)
        if not text:
            raise InvalidAction(f"nothing was written: write {EXAMPLE} or a message to the user")
        return WorldCall(END_TURN, {"message": text})

    def admissible(self) -> Sequence[str] | None:
        """None: arguments are free."""
        return None

    def render(self) -> str:
        """The request of this turn, and the last result."""
        turn = min(self.turn, len(self.task.turns) - 1)
        return f"turn {turn + 1} of {len(self.task.turns)}: {self.task.turns[turn]}\n{self.last}"

    async def result(self) -> Json:
        """If all turns were right, how many were before the first that was not, and why that was not."""
        won = self.ending == "done" and not self.failed
        return {"won": won, "passed": self.passed, "turns": len(self.task.turns), "why": self.failed}

    def optimal(self) -> str:
        """The next of the task's own calls, and a message when the turn has no more."""
        if not self._left:
            return "It is done."
        name, given, named = parsed(self._left.pop(0))
        bound = inspect.signature(self.services.method(name)).bind(*given, **named)
        return json.dumps({"name": name, "arguments": bound.arguments})

    def random(self, rng: Random) -> str:
        """A function with words of the request, or the end of the turn."""
        move = rng.choice(self.moves)
        if move.__name__ == END_TURN:
            return "It is done."
        words = self.task.turns[self.turn].split() or ["x"]
        names = inspect.signature(move).parameters
        return json.dumps(
            {"name": move.__name__, "arguments": {name: rng.choice(words).strip("'\".,") for name in names}}
        )
