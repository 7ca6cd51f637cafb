"""A task, tools with declarations, and a view that records what it was asked, for tests of policies."""

from __future__ import annotations

import asyncio
from typing import Any

from firsthand.declaration import Declaration
from firsthand.guard import AttemptView
from firsthand.loop.approval import Decision
from firsthand.message import assistant, user
from firsthand.providers.scripted import Scripted
from firsthand.safety.policy import explanation, rehearsal
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


def explained(case: Any, asked: Any) -> str:
    """All that an approver reads of a call and these rulings."""
    return f"{explanation(case, asked)}\n{asyncio.run(rehearsal(case))}".strip()


class Asked:
    """A view whose person and model answer as they are told, and which records what it was asked."""

    def __init__(self, *says, decides=None, task=TASK, calls=(), tools=(send, inbox, bare), most=None):
        self.model, self.approved, self.journal, self.claims = Scripted(list(says)), [], [], []
        self.decides, self.most = decides, most
        self.view = AttemptView(task, "a", None, (), tuple(calls), tools, self.ask, self.once, self.approve, self.claim)

    async def ask(self, prompt, model, sampling):
        return (await self.model.complete(prompt, sampling))[0]

    async def once(self, request, action):
        self.journal.append(request)
        return await action()

    async def approve(self, tool, arguments, about):
        self.approved.append((tool.name, arguments, about))
        if isinstance(self.decides, Exception):
            raise self.decides
        return self.decides or Decision(False, "ann", "ann says no")

    async def claim(self, key, most, amount=1, item=""):
        self.claims.append((key, most, amount, item))
        return self.most != key
