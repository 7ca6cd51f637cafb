"""Holds a conversation with a person, built on Contexts: questions, answers, forks, undo, and a Trace as its record.

Each named branch is a Context, so a fork copies nothing and recomputes nothing. Context handles tools, approvals, budgets,
retries and the record. An interrupted answer stays in the conversation as far as it had come.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import replace
from datetime import UTC, datetime

from firsthand.agent import Agent
from firsthand.benchmark import NamedSetting
from firsthand.context import Context, open_context
from firsthand.errors import ConfigError, FirsthandError, LimitExceeded, unknown
from firsthand.guard import watches
from firsthand.loop.attempt import Attempt
from firsthand.loop.borders import Borders
from firsthand.loop.budget import Budget
from firsthand.loop.concurrency import Branch, enter_branch
from firsthand.loop.journal import MemoryJournal
from firsthand.loop.listener import Began, Listener, Piece, Step
from firsthand.loop.open_sources import SourceKeeper
from firsthand.message import Message, Text, ToolCall, ToolResult, canonical
from firsthand.model import Usage
from firsthand.rollout import Place
from firsthand.system.request_owner import set_owner
from firsthand.task import Task
from firsthand.trace import Call, Node, Origin, Trace, new_trace_id

MAIN = "main"
"""The branch that a conversation begins on."""
BENCHMARK = "chat"
"""The benchmark name in the traces of conversations."""


class Dialogue:
    """A conversation of an agent with a person. `listener` receives each step of an answer.

    With `origin`, it goes on where that trace stood, under the branches that it had. The agent's tool sources are opened by
    the first question, and closed by `close`.
    """

    def __init__(
        self,
        agent: Agent,
        *,
        seed: int = 0,
        listener: Listener | None = None,
        origin: Trace | None = None,
        run: str = "",
    ):
        self.agent = agent
        self._sources = SourceKeeper(agent.make_sources())
        self.seed = seed
        self.branches: dict[str, Context] = {}
        self.current = MAIN
        self._listener = listener
        self._has_sources = False
        self._streamed: dict[str, list[str]] = {}
        self._answering_s = 0.0
        self._attempt = Attempt(agent, agent.own_tools, MemoryJournal(), seed, self._hear)
        self._budget = Budget(agent.limits)
        self._effects = Branch()
        self._began = time.perf_counter()
        self._started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._origin: Origin | None = None
        key = canonical([agent.to_json(), seed, self._started_at, time.time_ns()])
        self._id = new_trace_id()
        self._task = Task(hashlib.sha256(key.encode()).hexdigest()[:8], "a conversation")
        self._attempt.task = self._task
        if origin is None:
            self.branches[MAIN] = open_context(self._attempt, self._budget)
        else:
            self._resume(origin, run)

    # -- where it stands --

    @property
    def context(self) -> Context:
        """The Context of the current branch."""
        return self.branches[self.current]

    @property
    def place(self) -> Place:
        """The conversation as a place to attempt."""
        return Place(self.agent, NamedSetting(BENCHMARK), self._task)

    @property
    def calls(self) -> list[Call]:
        """Every call so far, the newest last."""
        return self._attempt.calls

    @property
    def usage(self) -> Usage:
        """Tokens and money so far."""
        return sum((call.usage for call in self.calls), Usage())

    # -- going on --

    async def ask(self, text: str, *, max_steps: int = 8) -> str:
        """The answer to a question, after at most `max_steps` rounds of tool calls.

        A cancelled answer stays as far as it had come, as does one for which there was no time left; one that failed leaves
        the conversation as it was before.
        """
        seconds, began = self.agent.limits.seconds, time.perf_counter()
        left_s = None if seconds is None else seconds - self._answering_s
        if left_s is not None and left_s <= 0:
            raise LimitExceeded("seconds", f"time budget exhausted: the {seconds:g} seconds for answers are over")
        try:
            async with asyncio.timeout(left_s) as timer:
                with set_owner(f"conversation {self._task.id}"):
                    return await self._ask(text, max_steps)
        except TimeoutError:
            if timer.expired():
                raise LimitExceeded(
                    "seconds",
                    f"time budget exhausted: the {seconds:g} seconds for answers were over before this one ended",
                ) from None
            raise
        finally:
            self._answering_s += time.perf_counter() - began

    async def close(self) -> None:
        """Close the tool sources that a question opened; a later question cannot be asked."""
        await self._sources.close()

    async def _ask(self, text: str, max_steps: int) -> str:
        await self._sources.open()
        if self._sources.sources and not self._has_sources:
            self._attempt.use(self._sources.sources)
            self._has_sources = True
        enter_branch(self._effects)
        before = self.context
        ctx = self._stand(before.say(text))
        try:
            for step in range(max_steps + 1):
                self._streamed.clear()
                asked, ctx = ctx, self._stand(await self._answer(ctx, with_tools=step < max_steps))
                if not ctx.last.tool_calls:
                    await self._check_answer(asked)
                    break
                for result in await ctx.call_all(ctx.last.tool_calls):
                    ctx = self._stand(ctx.say(result))
        except asyncio.CancelledError:
            self._break_off(before)
            raise
        except FirsthandError:
            self._stand(before)
            raise
        return self.context.text

    async def _answer(self, ctx: Context, *, with_tools: bool) -> Context:
        return await ctx.generate(tools=ctx.tools if with_tools else ())

    async def _check_answer(self, asked: Context) -> None:
        """Take the answer to `asked` across the border `answer`; only then is it streamed, where a guard watches it."""
        if not self._watches_answers:
            return
        ctx = self.context
        borders = Borders(self._attempt, self._effects.next_effect(), ctx.node, self._budget)
        answer = await borders.answer(ctx.text)
        if answer != ctx.text:
            self._stand(asked.say(Message("assistant", (Text(answer),))))
        if self._listener is not None:
            self._listener(Piece(borders.effect, answer))

    @property
    def _watches_answers(self) -> bool:
        return watches(self.agent.guards, "answer")

    def _break_off(self, before: Context) -> None:
        """Keep what had come of an answer; where nothing had, the question is taken back."""
        ctx = self.context
        ctx.note("broken_off")
        open_calls = _open_calls(ctx.messages)
        for call in open_calls:
            ctx = ctx.say(ToolResult(call.id, call.name, "Error: it was broken off by the person", is_error=True))
        streamed = "".join(piece for pieces in self._streamed.values() for piece in pieces)
        if not open_calls and streamed.strip() and not self._watches_answers:
            ctx = ctx.say(Message("assistant", (Text(streamed),)))
        self._stand(before if ctx.last.role == "user" else ctx)

    def _stand(self, ctx: Context) -> Context:
        self.branches[self.current] = ctx
        return ctx

    def _hear(self, step: Step) -> None:
        match step:
            case Began(id, "generate"):
                self._streamed[id] = []
            case Piece(id, text):
                self._streamed[id].append(text)
                if self._watches_answers:  # it may not be shown yet
                    return
            case Call():
                self._streamed.pop(step.id, None)
        if self._listener is not None:
            self._listener(step)

    def use(self, agent: Agent) -> None:
        """Go on with another agent. What was said stays, as text where another model sampled it."""
        attempt = self._attempt
        if agent.model.fingerprint != self.agent.model.fingerprint:
            attempt.nodes[:] = [Node(node.parent, replace(node.message, sampled=None)) for node in attempt.nodes]
        self.agent = attempt.agent = agent
        self.branches = {name: replace(ctx, sampling=agent.sampling, lease=None) for name, ctx in self.branches.items()}
        self.context.note("model", name=agent.model.name)

    # -- branches --

    def clear(self, name: str) -> None:
        """Begin anew on a branch of that name; the others stay."""
        self.fork(name)
        self._stand(open_context(self._attempt, self._budget))

    def fork(self, name: str) -> None:
        """Begin a branch here and stand on it."""
        if name in self.branches:
            raise ConfigError(f"there is a branch {name!r} already: give another name, or /switch to it")
        self.context.branch(name)
        self.branches[name] = self.context
        self.current = name

    def free_name(self) -> str:
        """A name that no branch has."""
        number = len(self.branches) + 1
        while f"branch-{number}" in self.branches:
            number += 1
        return f"branch-{number}"

    def switch(self, name: str) -> None:
        """Stand on another branch."""
        if name not in self.branches:
            raise unknown("branch", name, list(self.branches), see="/branches")
        self.current = name

    def undo(self) -> str | None:
        """Take back the last question and all that followed it; the question, or None if there is none."""
        nodes, node = self._attempt.nodes, self.context.node
        while node is not None and nodes[node].message.role != "user":
            node = nodes[node].parent
        if node is None:
            return None
        self._stand(replace(self.context, node=nodes[node].parent))
        return nodes[node].message.text

    # -- the record --

    def trace(self) -> Trace:
        """The conversation as a Trace, with every branch; it goes on afterwards."""
        last = next((message for message in reversed(self.context.messages) if message.role == "assistant"), None)
        return Trace(
            id=self._id,
            place=self.place.id,
            benchmark=BENCHMARK,
            task_id=self._task.id,
            agent=self.agent.to_json(),
            epoch=0,
            seed=self.seed,
            started_at=self._started_at,
            duration_s=round(time.perf_counter() - self._began, 6),
            nodes=tuple(self._attempt.nodes),
            calls=tuple(self._attempt.calls),
            events=tuple(self._attempt.events),
            tools=tuple(self._attempt.tool_specs),
            answer=None if last is None else last.text,
            final_state={
                "branches": {name: ctx.node for name, ctx in self.branches.items()},
                "current": self.current,
            },
            origin=self._origin,
        )

    def _resume(self, trace: Trace, run: str) -> None:
        """Take over the messages of a trace. Their tokens go along only if the same model sampled them."""
        attempt = self._attempt
        same = trace.agent.get("fingerprint") == self.agent.model.fingerprint
        attempt.nodes = [
            node if same else Node(node.parent, replace(node.message, sampled=None)) for node in trace.nodes
        ]
        kept = trace.final_state.get("branches")
        last = len(trace.nodes) - 1 if trace.nodes else None
        places = _branches(kept, len(trace.nodes)) or {MAIN: last}
        start = Context(attempt, self._budget, self.agent.sampling)
        self.branches = {name: replace(start, node=node) for name, node in places.items()}
        current = trace.final_state.get("current")
        self.current = current if current in self.branches else next(iter(self.branches))
        for name, ctx in list(self.branches.items()):
            for call in _open_calls(ctx.messages):
                ctx = ctx.say(ToolResult(call.id, call.name, "Error: it has no result", is_error=True))
            self.branches[name] = ctx
        self._origin = None if self.context.node is None else Origin(trace.id, self.context.node, run)


def _branches(kept: object, count: int) -> dict[str, int | None]:
    """The names of branches and the places of messages that a trace kept; none where it kept anything else."""
    if not isinstance(kept, dict):
        return {}
    fits = all(node is None or (type(node) is int and 0 <= node < count) for node in kept.values())
    return dict(kept) if fits else {}


def _open_calls(messages: tuple[Message, ...]) -> list[ToolCall]:
    """The tool calls of the last answer that no result has followed."""
    calls: list[ToolCall] = []
    for message in messages:
        if message.tool_calls:
            calls = list(message.tool_calls)
        for part in message.parts:
            if isinstance(part, ToolResult) and calls:
                calls.pop(0)
    return calls
