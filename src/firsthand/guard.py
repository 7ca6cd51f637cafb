"""A guard stands at the borders of an attempt: it passes, replaces or blocks prompts, calls, results and answers.

A guard has a method for each border it watches and needs no base class; a border without a method lets everything pass:

    class NoShell:
        def call(self, view, tool, arguments):
            if tool.name == "shell":
                return GuardVerdict.blocked("no_shell", "the shell is off limits")
            return GuardVerdict.passed("no_shell")

Each method, sync or async, is given a read-only `AttemptView` first and returns a `GuardVerdict`. A guard decides from
what it is given and keeps no state of its own. What it asks or looks up elsewhere goes through the view, which journals it:
a resumed attempt gets the same verdicts and repeats nothing. An exception in a guard ends the attempt with an error.
`loop/borders.py` applies guards and records their verdicts.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from firsthand.errors import ConfigError
from firsthand.loop.approval import Decision
from firsthand.message import Json, Message, ToolResult
from firsthand.model import Completion, Model, Prompt, Sampling
from firsthand.task import Task
from firsthand.tool import Tool
from firsthand.trace import Call

Border = Literal["prompt", "call", "result", "answer"]
BORDERS: tuple[Border, ...] = get_args(Border)


@dataclass(frozen=True)
class GuardVerdict:
    """A guard's decision at one border, with the name of the rule that made it."""

    rule: str
    action: Literal["pass", "replace", "block"] = "pass"
    value: Any = None
    """The replacement: messages, arguments, a ToolResult or an answer, as the border takes them."""
    reason: str = ""
    """Recorded, and told to the model where a call or a result is blocked."""
    detail: Json = field(default_factory=dict)
    """Recorded beside the reason, unless the task is protected: labels, witnesses, states. The model does not see it."""

    @staticmethod
    def passed(rule: str, reason: str = "", detail: Json | None = None) -> GuardVerdict:
        """Lets the value pass. With a reason it is recorded as an event, without one only counted."""
        return GuardVerdict(rule, reason=reason, detail=detail or {})

    @staticmethod
    def replaced(rule: str, value: Any, reason: str = "", detail: Json | None = None) -> GuardVerdict:
        """Puts another value in its place."""
        return GuardVerdict(rule, "replace", value, reason, detail or {})

    @staticmethod
    def blocked(rule: str, reason: str, detail: Json | None = None) -> GuardVerdict:
        """Stops the value: the model reads of a blocked call or result, a blocked prompt or answer ends the attempt."""
        return GuardVerdict(rule, "block", reason=reason, detail=detail or {})


async def _nobody(tool: Tool, arguments: Json, about: str) -> Decision:
    return Decision(False, "nobody", f"{tool.name} needs approval, and there is nobody to ask")


async def _none_left(key: str, most: float, amount: float = 1, item: str = "") -> bool:
    return False


class Claim(Protocol):
    """Takes a part of a limited permission."""

    def __call__(self, key: str, most: float, amount: float = 1, item: str = "") -> Awaitable[bool]:
        """True if it was granted."""


@dataclass(frozen=True)
class AttemptView:
    """An attempt as a guard sees it. Nothing in it depends on how fast other branches run. Do not change what it holds."""

    task: Task
    """Without its secret."""
    agent: str
    """The agent's name."""
    node: int | None
    """Index of the node the conversation ends at; None before the first message."""
    messages: tuple[Message, ...]
    """The conversation so far, as it was said; earlier replacements are not in it."""
    calls: tuple[Call, ...]
    """The calls that had ended before this one began, in order; those of branches that run beside it are left out."""
    tools: tuple[Tool, ...]
    """The tools there are, by name."""
    ask_model: Callable[[Prompt, Model | None, Sampling], Awaitable[Completion]] = field(repr=False)
    journalled: Callable[[Json, Callable[[], Awaitable[Json]]], Awaitable[Json]] = field(repr=False)
    approve: Callable[[Tool, Json, str], Awaitable[Decision]] = field(default=_nobody, repr=False)
    """Asks whoever approves the agent's calls, with a text on why; journalled, and not asked again before the call runs."""
    claim: Claim = field(default=_none_left, repr=False)
    """True while what the effects of the attempt claim of this key is at most `most`, whichever branches they are in.

    Each claims `amount`, by default 1; or an `item`, which counts once however often it is claimed. Journalled.
    """

    async def ask(self, prompt: Prompt, *, model: Model | None = None, sampling: Sampling | None = None) -> Completion:
        """The answer of a model, the agent's unless another is given. It is journalled, and charged to the attempt.

        By default greedily and in at most 64 tokens. Guards do not see what a guard asks. LimitExceeded if the attempt's
        budget does not cover `sampling.max_tokens`.
        """
        return await self.ask_model(prompt, model, sampling or Sampling(max_tokens=64))

    async def once(self, request: Json, action: Callable[[], Awaitable[Json]]) -> Json:
        """The JSON object that `action` gives for `request`, journalled: a resumed attempt does not run it again."""
        return await self.journalled(request, action)


GuardDecision = GuardVerdict | Awaitable[GuardVerdict]


@runtime_checkable
class PromptGuard(Protocol):
    """Watches the messages that are about to be sent to a model. A text prompt comes as one user message."""

    def prompt(self, view: AttemptView, messages: tuple[Message, ...], /) -> GuardDecision:
        """The verdict on a prompt; a replacement is the messages to send."""


@runtime_checkable
class CallGuard(Protocol):
    """Watches tool calls before they are approved and run."""

    def call(self, view: AttemptView, tool: Tool, arguments: Json, /) -> GuardDecision:
        """The verdict on a call; a replacement is the arguments to call the tool with."""


@runtime_checkable
class ResultGuard(Protocol):
    """Watches what tools give back, failures included, before the model reads it."""

    def result(self, view: AttemptView, tool: Tool, result: ToolResult, /) -> GuardDecision:
        """The verdict on a result; a replacement is the ToolResult the model reads."""


@runtime_checkable
class AnswerGuard(Protocol):
    """Watches the answer that a pattern returns."""

    def answer(self, view: AttemptView, answer: str, /) -> GuardDecision:
        """The verdict on an answer; a replacement is the answer to score."""


Guard = PromptGuard | CallGuard | ResultGuard | AnswerGuard
"""Anything with a method for at least one border."""


def watches(guards: Sequence[object], border: Border) -> bool:
    """True if one of the guards has a method for the border, and does not name others alone in a tuple `borders`."""
    return any(callable(getattr(each, border, None)) and border in _named(each) for each in guards)


def _named(guard: object) -> tuple[object, ...]:
    """The borders that a guard names; all, where its `borders` is anything else."""
    named = getattr(guard, "borders", None)
    return named if isinstance(named, tuple) and set(named) <= set(BORDERS) else BORDERS


_PARAMETERS: dict[str, tuple[str, ...]] = {
    "prompt": ("view", "messages"),
    "call": ("view", "tool", "arguments"),
    "result": ("view", "tool", "result"),
    "answer": ("view", "answer"),
}


def marks_results(guard: object) -> bool:
    """True for a guard with `marks_results = True`: its `result` only marks the text for the model, and replaces nothing.

    It comes after the other guards, and they, policies and plans go on reading the text without its marks.
    """
    return bool(getattr(guard, "marks_results", False))


def guard_name(guard: object) -> str:
    """The guard's name: its own `name`, or its class's, with the options of a dataclass: `redact:pattern=SECRET`."""
    name = str(getattr(guard, "name", type(guard).__name__))
    if not dataclasses.is_dataclass(guard):
        return name
    given = {each.name: getattr(guard, each.name) for each in dataclasses.fields(guard) if each.repr and each.init}
    defaults = {each.name: each.default for each in dataclasses.fields(guard)}
    return name + "".join(f":{key}={_shown(value)}" for key, value in given.items() if value != defaults[key])


def check_guard(guard: Any) -> None:
    """ConfigError if the object watches no border, or has a border method with the wrong parameters."""
    name = type(guard).__name__
    methods = {border: getattr(guard, border, None) for border in BORDERS}
    if not any(map(callable, methods.values())) or isinstance(guard, type):
        raise ConfigError(
            f"the guard {name} watches no border: give it a method named {', '.join(BORDERS[:-1])} or answer"
        )
    for border, method in methods.items():
        if not callable(method):
            continue
        wanted = _PARAMETERS[border]
        try:
            inspect.signature(method).bind(*wanted)
        except TypeError:
            raise ConfigError(
                f"{name}.{border} must take ({', '.join(wanted)}) and return a GuardVerdict: see docs/guards.md"
            ) from None


def _shown(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
