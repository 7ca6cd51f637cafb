"""Feedback on an answer, and the signature of an evaluator that gives it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from firsthand.context import Context
from firsthand.task import Task


@dataclass(frozen=True)
class Feedback:
    """A verdict on an answer, and a reason that the model may read."""

    passed: bool
    text: str


Evaluator = Callable[[Task, Context, str], Awaitable[Feedback]]
"""`async def evaluate(task, ctx, answer) -> Feedback`."""
