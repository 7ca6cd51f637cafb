"""Gives a running tool call its position in the attempt, so that what the tool asks for is recorded under the call.

A tool that is a client of another program may be asked by it for a completion, or for a decision of the user. It answers
from `caller()`: completions then spend the attempt's budget, and are journalled and traced like those of the pattern.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from firsthand.loop.concurrency import Branch, current_branch, enter_branch
from firsthand.message import Json


@dataclass
class CallBranch(Branch):
    """The effects of one tool call. Their names start with the call's own, so that those of the pattern do not shift."""

    call: str = ""
    """The name of the call's effect."""
    expected: str = ""
    """The effect that was shown in a dry run and approved."""
    asked: list[Json] = field(default_factory=list)
    """The replies that the tool's world got from a model of its own, as the journal keeps them."""
    is_private: bool = False
    """True once the tool has said that only the user may read what this call gives."""

    def next_effect(self) -> str:
        """The name of the next effect of the call, such as `0.3:1 request 0`."""
        name = f"{self.call} request {self.effects}"
        self.effects += 1
        return name


@dataclass(frozen=True)
class CallPosition:
    """The position from which a tool was called."""

    context: Any
    """The Context, without a conversation: what a tool asks the model begins with an empty one.

    The agent's memory does not shorten it, and so keeps none of it: it is not what the agent and its user said.
    """
    effect: str
    branch: CallBranch
    conversation: Any
    """The Context with its conversation, for tools that read it."""

    @contextmanager
    def active(self) -> Iterator[None]:
        """Makes this the `caller()` of the running task, which may be one that the tool's connection started."""
        mark = _caller.set(self)
        try:
            yield
        finally:
            _caller.reset(mark)

    def enter(self) -> None:
        """Record what the running task does from here on under the call."""
        enter_branch(self.branch)


_caller: ContextVar[CallPosition | None] = ContextVar("firsthand_caller", default=None)


def caller() -> CallPosition | None:
    """The call that the running code belongs to; None outside of one."""
    return _caller.get()


@contextmanager
def calling(context: Any, effect: str) -> Iterator[CallBranch]:
    """Marks the block as the call `effect` of an attempt, and gives the call's branch."""
    here = current_branch()
    # groups of a call are numbered far above those of the pattern, which they share the path with
    first_group = 1_000_000 + 1_000 * int(effect.partition(" ")[0].rpartition(":")[2])
    branch = CallBranch(here.path, here.depth, 0, first_group, here.place, here.name, effect)
    mark = _caller.set(CallPosition(replace(context, node=None, fitted=True), effect, branch, context))
    try:
        yield branch
    finally:
        _caller.reset(mark)


def expect_effect(effect: str) -> None:
    """Hold the running call to the effect of a dry run that was approved."""
    if (here := _caller.get()) is not None:
        here.branch.expected = effect


def give_private() -> None:
    """Mark what the running call gives as the user's alone, for a tool that declares `public` of what it gives as a rule."""
    if (here := _caller.get()) is not None:
        here.branch.is_private = True


def expected_effect() -> str:
    """The effect that the running call was approved for; empty where no dry run was shown."""
    here = _caller.get()
    return here.branch.expected if here is not None else ""
