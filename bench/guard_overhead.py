"""Measures what the policy guard adds to a tool call, in processor time: `python bench/guard_overhead.py`."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from firsthand import Agent, Task
from firsthand.context import Context
from firsthand.declaration import Declaration
from firsthand.guard import AttemptView, Guard, GuardVerdict
from firsthand.message import Json, ToolCall
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.safety.policy import CallPolicy
from firsthand.tool import Tool, tool

ATTEMPTS, CALLS, ROUNDS = 60, 20, 8


@tool(effect="read", origin="the inbox", declares=Declaration(trusts=("id", "sender"), readers="user"))
async def inbox() -> str:
    """Return ten mails."""
    mails = [{"id": str(n), "sender": f"p{n}@home.org", "body": "word " * 60} for n in range(10)]
    return json.dumps(mails)


@tool(effect="write", declares=Declaration(("to",), recipients=("to",)))
async def send(to: str, body: str) -> str:
    """Send a mail."""
    return "sent"


async def session(task: Task, ctx: Context) -> str:
    """Reads and sends in turn."""
    for number in range(CALLS // 2):
        await ctx.call(ToolCall("read", "inbox", {}))
        await ctx.call(ToolCall("send", "send", {"to": f"p{number}@home.org", "body": f"hello {number}"}))
    return "done"


class PassesAll:
    """A guard that only says so."""

    def call(self, view: AttemptView, tool: Tool, arguments: Json) -> GuardVerdict:
        """Lets every call pass, as an event."""
        return GuardVerdict.passed("passes", "everything passes")


def cost_us(guard: Guard | None) -> float:
    """Microseconds of processor time for a call."""
    agent = Agent("a", Scripted([]), session, tools=(inbox, send), guard=guard)

    async def main() -> float:
        began = time.process_time()
        for _ in range(ATTEMPTS):
            trace = await rollout(agent, Task("1", "Write to everybody."))
            assert trace.answer == "done", trace.error
        return (time.process_time() - began) / ATTEMPTS / CALLS * 1e6

    return asyncio.run(main())


def main() -> None:
    """Print the least of the rounds for no guard, one that passes all, and the policy."""
    kinds: dict[str, Any] = {"no guard": None, "a guard that passes all": PassesAll(), "policy": CallPolicy()}
    cost_us(None)
    rounds = [{name: cost_us(guard) for name, guard in kinds.items()} for _ in range(ROUNDS)]
    for name in kinds:
        print(f"{name:<24}{min(each[name] for each in rounds):6.0f} us a call")


if __name__ == "__main__":
    main()
