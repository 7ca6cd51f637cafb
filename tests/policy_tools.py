"""A task and tools with declarations, for tests of policies."""

from __future__ import annotations

from typing import Any

from firsthand.declaration import Declaration
from firsthand.message import assistant, user
from firsthand.task import Task
from firsthand.tool import Tool, tool

TASK = Task("t1", "Write to bob@home.org.", conversation=(user("Hello."), assistant("Hi.")))


@tool(effect="external", declares=Declaration(("to",), recipients=("to",), rate=3, spends=("fee",)))
def send(to: list[str], body: str = "", fee: float = 0) -> str:
    """Send a mail."""
    return "sent"


@tool(effect="read", origin="the inbox", declares=Declaration(trusts=("id",), readers="user"))
def inbox(limit: int = 5) -> str:
    """Return the mails."""
    return '{"id": "13", "body": "x"}'


@tool(effect="external")
def bare(x: str) -> str:
    """Do something."""
    return x


def erasing(dry_run: Any) -> Tool:
    """A tool that erases, with this rehearsal."""

    @tool(effect="irreversible", declares=Declaration(("path",), paths=("path",), dry_run=dry_run))
    def erase(path: str) -> str:
        """Erase a file."""
        return ""

    return erase
