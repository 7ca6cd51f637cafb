"""A terminal for tests of questions to a person: what is typed is given, and what is shown is kept."""

from __future__ import annotations

import io
from collections.abc import Sequence

from firsthand.system.terminal import Terminal


class Typed(Terminal):
    """A terminal at which these lines are typed."""

    def __init__(self, *lines: str) -> None:
        super().__init__(io.StringIO(), io.StringIO())
        self.lines = iter(lines)

    def is_there(self) -> bool:
        return True

    async def ask(self, question: str) -> str | None:
        self.sink.write(f"{question}\n")
        return next(self.lines)

    async def choose(self, question: str, answers: Sequence[str]) -> str:
        return await self.ask(question) or ""
