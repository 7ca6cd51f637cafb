"""What a pattern may touch: a Context says where a conversation stands and what may be done next.

A Context is a value. `ctx.say(...)` and `await ctx.generate()` return new Contexts, so a branch is an assignment, and going
back is using the old name. Budgets, retries, guards, the journal and the record all happen in here: no pattern knows of them
and none can forget them.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from firsthand import concurrency
from firsthand.agent import Agent
from firsthand.budget import Budget, Limits
from firsthand.concurrency import current_branch, derive_seed
from firsthand.errors import ConfigError, FirsthandError, LimitExceeded, ToolError, TransientError, unknown
from firsthand.message import Json, Message, Role, Text, ToolCall, ToolResult, canonical
from firsthand.model import Completion, Likelihood, Prompt, Sampling, Scored, Usage, request_key
from firsthand.tool import Tool
from firsthand.trace import Call, CallKind, Event, Journal, Node, as_json

T = TypeVar("T")


class Attempt:
    """The record of an attempt while it runs. Patterns do not see it: they see Contexts, which write to it."""

    def __init__(self, agent: Agent, tools: Iterable[Tool], journal: Journal, seed: int):
        self.agent = agent
        self.tools = {tool.name: tool for tool in tools}
        self.journal = journal
        self.seed = seed
        self.nodes: list[Node] = []
        self.calls: list[Call] = []
        self.events: list[Event] = []
        self._began = time.perf_counter()

    def elapsed_s(self) -> float:
        """Seconds since the attempt began."""
        return round(time.perf_counter() - self._began, 6)

    def add_node(self, parent: int | None, message: Message) -> int:
        """The index of a new node that holds `message` under `parent`."""
        self.nodes.append(Node(parent, message))
        return len(self.nodes) - 1

    def conversation(self, node: int | None) -> tuple[Message, ...]:
        """The messages from the first one to `node`."""
        messages: list[Message] = []
        while node is not None:
            messages.append(self.nodes[node].message)
            node = self.nodes[node].parent
        return tuple(reversed(messages))

    def note(self, kind: str, /, **data: Any) -> None:
        """Record an event, with its data as it is now."""
        self.events.append(Event(kind, self.elapsed_s(), as_json(data)))

    def record(self, kind: CallKind, effect: str, at: int | None, started_s: float, request: str, **rest: Any) -> None:
        """Record a call that has just ended."""
        duration_s = round(self.elapsed_s() - started_s, 6)
        self.calls.append(Call(effect, kind, at, started_s, duration_s, request, **rest))

    async def reply(self, effect: str, request: str, ask: Callable[[], Awaitable[Json]]) -> tuple[Json, bool]:
        """The reply to a request to the model, and whether it was replayed from the journal.

        A new reply is recorded before it is acknowledged. Passing faults are tried again and noted.
        """
        recorded = self.journal.find(effect, request)
        if recorded is not None:
            return recorded, True

        def on_retry(attempt: int, error: TransientError, wait_s: float) -> None:
            self.note("retry", attempt=attempt, error=str(error), wait_s=round(wait_s, 3))

        reply = await concurrency.with_retries(ask, self.agent.retry, on_retry=on_retry)
        self.journal.record(effect, request, reply)
        return reply, False


@dataclass(frozen=True)
class Context:
    """Where a conversation stands, and what may be done next. Every method that adds something returns a new Context."""

    attempt: Attempt
    budget: Budget
    sampling: Sampling
    node: int | None = None
    deadline_s: float = math.inf
    """When the time of `within` is up, in seconds since the attempt began."""
    lease: object = field(default=None, compare=False, repr=False)
    """What keeps the conversation up to the last answer in the model's memory, for as long as this Context lives."""

    # -- what has been said --

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far."""
        return self.attempt.conversation(self.node)

    @property
    def last(self) -> Message:
        """The last message; there must be one."""
        assert self.node is not None, "nothing has been said in this Context yet"
        return self.attempt.nodes[self.node].message

    @property
    def text(self) -> str:
        """The words of the last message."""
        return self.last.text

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What may be called, in a fixed order: the agent's tools and the environment's."""
        return tuple(self.attempt.tools[name] for name in sorted(self.attempt.tools))

    def say(self, content: str | Message | ToolResult, role: Role = "user") -> Context:
        """The Context after a message: words of `role`, a whole Message, or a tool's result."""
        match content:
            case str():
                message = Message(role, (Text(content),))
            case ToolResult():
                message = Message("tool", (content,))
            case _:
                message = content
        return replace(self, node=self.attempt.add_node(self.node, message))

    def note(self, kind: str, /, **data: Any) -> None:
        """Record an event in the trace: a pruned branch, a vote, anything a reader will want to know."""
        self.attempt.note(kind, **data)

    def within(self, limits: Limits) -> Context:
        """The same Context with a budget of its own inside this one; its seconds begin now and bound the calls."""
        deadline_s = self.deadline_s
        if limits.seconds is not None:
            deadline_s = min(deadline_s, self.attempt.elapsed_s() + limits.seconds)
        return replace(self, budget=Budget(limits, self.budget), deadline_s=deadline_s)

    def sampled(self, **changes: Any) -> Context:
        """The same Context with other sampling settings, such as `temperature=0.7`."""
        return replace(self, sampling=replace(self.sampling, **changes))

    async def group(self, coroutines: Iterable[Awaitable[T]]) -> list[T]:
        """The results of several branches run together, in order; see `concurrency.group`."""
        return await concurrency.group(coroutines)

    # -- what can be done --

    async def generate(self, *, tools: Sequence[Tool] = (), prompt: str | None = None, **changes: Any) -> Context:
        """The Context after the model's answer; `changes` are sampling settings for this answer alone."""
        return (await self.sample(1, tools=tools, prompt=prompt, **changes))[0]

    async def sample(
        self, n: int, *, tools: Sequence[Tool] = (), prompt: str | None = None, **changes: Any
    ) -> list[Context]:
        """`n` Contexts, each after another answer of the model; their common prompt is computed once.

        The answers continue the conversation, or `prompt` as it is: the exact text that a protocol fixes.
        """
        if n < 1:
            raise ConfigError(f"{n} answers were asked for: ask for 1 or more")
        attempt, effect = self.attempt, current_branch().next_effect()
        started_s = attempt.elapsed_s()
        asked: Prompt = await self._prompt() if prompt is None else prompt
        sampling = replace(self.sampling, **changes)
        granted = self.budget.reserve(n * sampling.max_tokens, current_branch().depth, least=n)
        seed = derive_seed(attempt.seed, effect) if sampling.seed is None else sampling.seed
        sampling = replace(sampling, seed=seed, max_tokens=min(sampling.max_tokens, granted // n))
        specs = [tool.spec for tool in sorted(tools, key=lambda tool: tool.name)]
        model = attempt.agent.model
        request = request_key(model.fingerprint, asked, sampling, specs, n)
        usage = Usage()
        leases: list[object] = [None] * n

        async def ask() -> Json:
            completions = await model.complete(asked, sampling, tools=specs, n=n)
            leases[:] = [completion.lease for completion in completions]
            return {"completions": [completion.to_json() for completion in completions]}

        try:
            async with self._in_time():
                body, replayed = await attempt.reply(effect, request, ask)
            completions = [Completion.from_json(each) for each in body["completions"]]
            usage = sum((completion.usage for completion in completions), usage)
        except FirsthandError as error:
            attempt.record("generate", effect, self.node, started_s, request, error=str(error))
            raise
        finally:
            self.budget.charge(granted, usage)
        nodes = tuple(attempt.add_node(self.node, completion.message) for completion in completions)
        detail = {
            "finish_reasons": [completion.finish_reason for completion in completions],
            "sampling": sampling.to_json(),
            "tools": [spec.name for spec in specs],
        }
        if prompt is not None:
            detail["prompt"] = prompt
        attempt.record(
            "generate",
            effect,
            self.node,
            started_s,
            request,
            usage=usage,
            nodes=nodes,
            detail=detail,
            replayed=replayed,
        )
        return [replace(self, node=node, lease=lease) for node, lease in zip(nodes, leases, strict=True)]

    async def score(self, continuations: Sequence[str], *, prompt: str | None = None) -> list[Likelihood]:
        """The likelihood of each continuation, after the conversation or after `prompt` as it is."""
        attempt, effect = self.attempt, current_branch().next_effect()
        started_s = attempt.elapsed_s()
        asked: Prompt = await self._prompt() if prompt is None else prompt
        granted = self.budget.reserve(1, current_branch().depth)
        model = attempt.agent.model
        request = request_key(model.fingerprint, asked, continuations=continuations)
        usage = Usage()

        async def ask() -> Json:
            return (await model.score(asked, continuations)).to_json()

        try:
            async with self._in_time():
                body, replayed = await attempt.reply(effect, request, ask)
            scored = Scored.from_json(body)
            usage = scored.usage
        except FirsthandError as error:
            attempt.record("score", effect, self.node, started_s, request, error=str(error))
            raise
        finally:
            self.budget.charge(granted, usage)
        detail = {"prompt": prompt, "likelihoods": body["likelihoods"]}
        attempt.record("score", effect, self.node, started_s, request, usage=usage, detail=detail, replayed=replayed)
        return list(scored.likelihoods)

    async def call(self, call: ToolCall) -> ToolResult:
        """The result of a tool call, to be said to the model with `ctx.say(result)`. A failure is a result that says so."""
        attempt, effect = self.attempt, current_branch().next_effect()
        started_s = attempt.elapsed_s()
        granted = self.budget.reserve(1, current_branch().depth)
        request = tool_request(call)
        recorded = attempt.journal.find(effect, request)
        try:
            async with self._in_time():
                result = await self._run_tool(call, effect, request, recorded)
        finally:
            self.budget.charge(granted, Usage())
        detail = {"name": call.name, "arguments": call.arguments, "result": result.content, "is_error": result.is_error}
        error = result.content if result.is_error else None
        replayed = recorded is not None
        attempt.record("tool", effect, self.node, started_s, request, detail=detail, error=error, replayed=replayed)
        return result

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """LimitExceeded if the block is not done by the deadline."""
        left_s = self.deadline_s - self.attempt.elapsed_s()
        try:
            async with asyncio.timeout(None if left_s == math.inf else left_s) as timer:
                yield
        except TimeoutError:
            if timer.expired():
                raise LimitExceeded("seconds", "the time for this part of the attempt is up") from None
            raise

    async def _prompt(self) -> tuple[Message, ...]:
        guard = self.attempt.agent.guard
        return self.messages if guard is None else await guard.prompt(self.messages)

    async def _run_tool(self, call: ToolCall, effect: str, request: str, recorded: Json | None) -> ToolResult:
        """Run, replay or refuse. `recorded` is the journal's entry: the intent, then the result."""
        attempt, guard = self.attempt, self.attempt.agent.guard
        tool = attempt.tools.get(call.name)
        if tool is None:
            error = unknown("tool", call.name, attempt.tools, see="firsthand list tools")
            return ToolResult(call.id, call.name, f"Error: {error}", is_error=True)
        if call.invalid is not None:
            text = f"Error: the arguments of {call.name} are not valid JSON: {call.invalid[:200]}"
            return ToolResult(call.id, call.name, text, is_error=True)
        outside = tool.effect in ("external", "irreversible")
        if recorded is not None and "content" in recorded and tool.effect != "write":
            return ToolResult(call.id, call.name, recorded["content"], recorded["is_error"])
        if recorded is not None and outside:
            # The journal holds the intent but no result: the process died in between, so it may have happened.
            text = f"Error: {call.name} was interrupted while it ran; it may have taken effect, so it is not repeated"
            return ToolResult(call.id, call.name, text, is_error=True)
        if outside:
            attempt.journal.record(effect, request, {"started": True})
        try:
            arguments = call.arguments if guard is None else await guard.call(tool, call.arguments)
            result = ToolResult(call.id, call.name, await tool(arguments))
            result = result if guard is None else await guard.result(tool, result)
        except ToolError as error:
            result = ToolResult(call.id, call.name, f"Error: {error}", is_error=True)
        attempt.journal.record(effect, request, {"content": result.content, "is_error": result.is_error})
        return result


def tool_request(call: ToolCall) -> str:
    """The address of a tool's result in a journal: as `request_key` for what a model is asked."""
    return request_key("tool", canonical([call.name, call.arguments, call.invalid]))


def open_context(attempt: Attempt, budget: Budget) -> Context:
    """The Context an attempt begins with: empty, or after the agent's system message."""
    ctx = Context(attempt, budget, attempt.agent.sampling)
    return ctx if attempt.agent.system is None else ctx.say(attempt.agent.system, "system")
