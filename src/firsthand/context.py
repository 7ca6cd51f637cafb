"""What a pattern may touch: a Context says where a conversation stands and what may be done next.

A Context is a value. `ctx.say(...)` and `await ctx.generate()` return new Contexts, so a branch is an assignment, and going
back is using the old name. Budgets, retries, guards, the journal and the record all happen in here: no pattern knows of them
and none can forget them.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from typing import Any, Literal, TypeVar

from firsthand import concurrency
from firsthand.agent import Agent
from firsthand.budget import Budget, Limits
from firsthand.concurrency import current_branch, derive_seed
from firsthand.errors import (
    ConfigError,
    FirsthandError,
    LimitExceeded,
    ModelError,
    ToolError,
    TransientError,
    nearest,
)
from firsthand.message import Json, Message, Role, Text, ToolCall, ToolResult, canonical
from firsthand.model import Completion, Likelihood, Prompt, Sampling, Scored, ToolSpec, Usage, request_key
from firsthand.tool import Tool, marked, read_arguments, usage
from firsthand.trace import Added, Began, Call, CallKind, Event, Journal, Listener, Node, Piece, Step, as_json

T = TypeVar("T")
BranchStatus = Literal["open", "kept", "pruned", "done", "failed"]

MAX_CALLS = 128
"""Tool calls of one message that are run."""


class Attempt:
    """The record of an attempt while it runs. Patterns do not see it: they see Contexts, which write to it."""

    def __init__(
        self, agent: Agent, tools: Iterable[Tool], journal: Journal, seed: int, listener: Listener | None = None
    ):
        self.agent = agent
        self.tools = {tool.name: tool for tool in tools}
        self.journal = journal
        self.seed = seed
        self.listener = listener
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
        self.tell(Added(len(self.nodes) - 1, self.nodes[-1]))
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
        self.tell(self.events[-1])

    def record(self, kind: CallKind, effect: str, at: int | None, started_s: float, request: str, **rest: Any) -> None:
        """Record a call that has just ended."""
        duration_s = round(self.elapsed_s() - started_s, 6)
        self.calls.append(Call(effect, kind, at, started_s, duration_s, request, **rest))
        self.tell(self.calls[-1])

    def tell(self, step: Step) -> None:
        """Tell the listener, if there is one. One that fails is reported to the event loop and not told again."""
        if self.listener is None:
            return
        try:
            self.listener(step)
        except Exception as error:
            self.listener = None
            what = {"message": "the listener of an attempt failed and is told no more", "exception": error}
            asyncio.get_running_loop().call_exception_handler(what)

    def paid(self) -> tuple[int, int]:
        """The tokens and calls that an interrupted try of this attempt has paid for, by its journal."""
        replies = [reply for reply in self.journal.replies() if not _CALLS.isdisjoint(reply)]
        return sum(cost_of(reply).total_tokens for reply in replies), len(replies)

    async def complete(
        self, effect: str, prompt: Prompt, sampling: Sampling, specs: Sequence[ToolSpec], n: int
    ) -> list[Completion]:
        """The model's answers. A single one is streamed if somebody listens."""
        model = self.agent.model
        if self.listener is None or n > 1:
            return await model.complete(prompt, sampling, tools=specs, n=n)
        completion: Completion | None = None
        deltas = model.stream(prompt, sampling, tools=specs)
        try:
            async for delta in deltas:
                completion = delta.completion or completion
                if delta.text:
                    self.tell(Piece(effect, delta.text))
        finally:
            if isinstance(deltas, AsyncGenerator):
                await deltas.aclose()
        if completion is None:
            raise ModelError(f"{model.name} ended its stream without an answer: the last piece must carry it")
        return [completion]

    async def reply(self, effect: str, request: str, ask: Callable[[], Awaitable[Json]], recorded: Json | None) -> Json:
        """The reply to a request to the model: the `recorded` one, or a new one.

        A new reply is recorded before it is acknowledged. Passing faults are tried again and noted.
        """
        if recorded is not None:
            return recorded

        def on_retry(attempt: int, error: TransientError, wait_s: float) -> None:
            self.note("retry", attempt=attempt, error=str(error), wait_s=round(wait_s, 3))

        reply = await concurrency.with_retries(ask, self.agent.retry, on_retry=on_retry)
        await self.keep(effect, request, reply)
        return reply

    async def keep(self, effect: str, request: str, reply: Json) -> None:
        """Record a reply; what has returned from here survives `kill -9`."""
        self.journal.record(effect, request, reply)
        await self.journal.settled()


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
    def alternatives(self) -> list[list[tuple[str, float]]]:
        """For each token of the last answer its most probable alternatives as (text, log-prob); none unless asked for."""
        for call in reversed(self.attempt.calls):
            if self.node in call.nodes and "top_logprobs" in call.detail:
                found = call.detail["top_logprobs"][call.nodes.index(self.node)]
                return [[(text, logprob) for text, logprob in token] for token in found]
        return []

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
        if kind == "branch":  # names repeat where a pattern leads several of a kind, and their places do not
            data.setdefault("path", current_branch().path)
        self.attempt.note(kind, **data)

    def branch(self, name: str, status: BranchStatus = "open", *, score: float | None = None, text: str = "") -> None:
        """Record what became of a named branch that starts here: a sub-agent, a sample, a thought kept or pruned."""
        self.note("branch", name=name, at=self.node, status=status, score=score, text=text[:200])

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
        seed = derive_seed(attempt.seed, effect) if sampling.seed is None else sampling.seed
        sampling = replace(sampling, seed=seed)
        specs = [tool.spec for tool in sorted(tools, key=lambda tool: tool.name)]

        def key(sampling: Sampling) -> str:
            return request_key(attempt.agent.model.fingerprint, asked, sampling, specs, n)

        sampling, recorded, granted = self._granted(effect, sampling, n, key)
        request = key(sampling)
        usage = Usage()
        leases: list[object] = [None] * n

        async def ask() -> Json:
            attempt.tell(Began(effect, "generate", self.node, {"n": n}))
            completions = await attempt.complete(effect, asked, sampling, specs, n)
            leases[:] = [completion.lease for completion in completions]
            return {"completions": [completion.to_json() for completion in completions]}

        try:
            async with self._in_time():
                body = await attempt.reply(effect, request, ask, recorded)
            completions = [Completion.from_json(each) for each in body["completions"]]
            usage = sum((completion.usage for completion in completions), usage)
        except FirsthandError as error:
            attempt.record("generate", effect, self.node, started_s, request, error=str(error))
            raise
        finally:
            self._pay(granted, usage)
        nodes = tuple(attempt.add_node(self.node, completion.message) for completion in completions)
        detail: Json = {
            "finish_reasons": [completion.finish_reason for completion in completions],
            "sampling": sampling.to_json(),
            "tools": [spec.name for spec in specs],
        }
        if sampling.top_logprobs:
            detail["top_logprobs"] = [
                [[list(pair) for pair in token] for token in completion.top_logprobs] for completion in completions
            ]
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
            replayed=recorded is not None,
        )
        return [replace(self, node=node, lease=lease) for node, lease in zip(nodes, leases, strict=True)]

    async def score(self, continuations: Sequence[str], *, prompt: str | None = None) -> list[Likelihood]:
        """The likelihood of each continuation, after the conversation or after `prompt` as it is."""
        attempt, effect = self.attempt, current_branch().next_effect()
        started_s = attempt.elapsed_s()
        asked: Prompt = await self._prompt() if prompt is None else prompt
        model = attempt.agent.model
        request = request_key(model.fingerprint, asked, continuations=continuations)
        recorded = attempt.journal.find(effect, request)
        granted = self.budget.reserve(1, current_branch().depth) if recorded is None else None
        usage = Usage()

        async def ask() -> Json:
            attempt.tell(Began(effect, "score", self.node))
            return (await model.score(asked, continuations)).to_json()

        try:
            async with self._in_time():
                body = await attempt.reply(effect, request, ask, recorded)
            scored = Scored.from_json(body)
            usage = scored.usage
        except FirsthandError as error:
            attempt.record("score", effect, self.node, started_s, request, error=str(error))
            raise
        finally:
            self._pay(granted, usage)
        detail = {"prompt": prompt, "likelihoods": body["likelihoods"]}
        replayed = recorded is not None
        attempt.record("score", effect, self.node, started_s, request, usage=usage, detail=detail, replayed=replayed)
        return list(scored.likelihoods)

    async def call(self, call: ToolCall) -> ToolResult:
        """The result of a tool call, to be said to the model with `ctx.say(result)`. A failure is a result that says so."""
        return await self._call(call, current_branch().next_effect(), current_branch().depth)

    async def call_all(self, calls: Sequence[ToolCall], *, at_once: int = 8) -> list[ToolResult]:
        """The results of all calls of a message, in order. A call that fails or hangs leaves its siblings alone.

        Calls that only read run together, `at_once` of them at a time; every other call waits for those before it and runs
        alone. What goes beyond `MAX_CALLS` is answered without being run.
        """
        branch = current_branch()
        gate = asyncio.Semaphore(max(1, at_once))
        within = [(call, branch.next_effect()) for call in calls[:MAX_CALLS]]

        async def one(call: ToolCall, effect: str) -> ToolResult:
            async with gate:
                return await self._call(call, effect, branch.depth)

        results: list[ToolResult] = []
        for together, stretch in groupby(within, key=lambda placed: self._only_reads(placed[0])):
            if together:
                results += await self.group([one(call, effect) for call, effect in stretch])
            else:
                results += [await one(call, effect) for call, effect in stretch]
        if len(calls) > MAX_CALLS:
            self.note("too_many_calls", asked=len(calls), run=MAX_CALLS)
            text = f"Error: not run, for the message made {len(calls)} calls: make at most {MAX_CALLS} at a time"
            results += [ToolResult(call.id, call.name, text, is_error=True) for call in calls[MAX_CALLS:]]
        return results

    def _only_reads(self, call: ToolCall) -> bool:
        tool = self.attempt.tools.get(call.name)
        return tool is None or tool.effect == "read"

    async def _call(self, call: ToolCall, effect: str, depth: int) -> ToolResult:
        attempt = self.attempt
        started_s = attempt.elapsed_s()
        request = tool_request(call)
        recorded = attempt.journal.find(effect, request)
        granted = self.budget.reserve(1, depth) if recorded is None else None
        detail: Json = {"name": call.name, "arguments": call.arguments}
        error: str | None = "it was broken off before it had a result"
        attempt.tell(Began(effect, "tool", self.node, dict(detail)))
        try:
            async with self._in_time():
                result = await self._run_tool(call, effect, request, recorded)
            detail |= {"result": result.content, "is_error": result.is_error}
            detail |= {"origin": result.origin} if result.origin is not None else {}
            error = result.content if result.is_error else None
        finally:
            self._pay(granted, Usage())
            replayed = recorded is not None
            attempt.record("tool", effect, self.node, started_s, request, detail=detail, error=error, replayed=replayed)
        return result

    def _granted(
        self, effect: str, asked: Sampling, n: int, key: Callable[[Sampling], str]
    ) -> tuple[Sampling, Json | None, int | None]:
        """The sampling that the budget allows, the recorded reply if there is one, or else the tokens reserved.

        What a budget has left depends on which branch came first, so a grant of less than was asked is recorded too: the
        reply that was given under it is found again whatever comes first when the attempt is resumed.
        """
        journal, request = self.attempt.journal, key(asked)
        recorded = journal.find(effect, request)
        if recorded is not None:
            return asked, recorded, None
        if (earlier := journal.find(effect, f"{_GRANTED}:{request}")) is not None:
            reduced = replace(asked, max_tokens=earlier[_GRANTED])
            if (recorded := journal.find(effect, key(reduced))) is not None:
                return reduced, recorded, None
        granted = self.budget.reserve(n * asked.max_tokens, current_branch().depth, least=n)
        if granted // n >= asked.max_tokens:
            return asked, None, granted
        journal.record(effect, f"{_GRANTED}:{request}", {_GRANTED: granted // n})
        return replace(asked, max_tokens=granted // n), None, granted

    def _pay(self, granted: int | None, usage: Usage) -> None:
        """Charge the budget; a replayed call, for which nothing was granted, as it was charged when it was made."""
        if granted is None:
            self.budget.repay(usage)
        else:
            self.budget.charge(granted, usage)

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
        attempt, tool = self.attempt, self.attempt.tools.get(call.name)
        if tool is None:
            return _refused(call, _no_tool(call.name, attempt.tools))
        arguments = call.arguments if call.invalid is None else read_arguments(call.invalid)
        if arguments is None:
            text = f"the arguments of {call.name} are not valid JSON: {(call.invalid or '')[:200]}"
            return _refused(call, f"{text}: write an object, {usage(tool)}")
        outside = tool.effect in ("external", "irreversible")
        if recorded is not None and "content" in recorded and tool.effect != "write":
            origin = recorded.get("origin")
            return _shown(ToolResult(call.id, call.name, recorded["content"], recorded["is_error"], origin))
        if recorded is not None and outside:
            # The journal holds the intent but no result: the process died in between, so it may have happened.
            return _refused(
                call, f"{call.name} was interrupted while it ran; it may have taken effect, so it is not repeated"
            )
        try:
            result = await self._run_approved(tool, call, arguments, effect, request)
        except ToolError as error:
            result = _refused(call, str(error))
        if recorded is not None and not (result.is_error or recorded.get("is_error", True)):
            # It ran again to rebuild the attempt's world. What the model was told stands, times in it included, so that the
            # replies that followed are found in the journal too.
            return _shown(ToolResult(call.id, call.name, recorded["content"], False, recorded.get("origin")))
        entry: Json = {"content": result.content, "is_error": result.is_error}
        await attempt.keep(effect, request, entry if result.origin is None else entry | {"origin": result.origin})
        return _shown(result)

    async def _run_approved(self, tool: Tool, call: ToolCall, given: Json, effect: str, request: str) -> ToolResult:
        """The tool's result, if the guard and the approval let the call pass."""
        attempt, guard = self.attempt, self.attempt.agent.guard
        arguments = given if guard is None else await guard.call(tool, given)
        tool.validate(arguments)  # nobody is asked about a call that cannot be
        await self._approve(tool, arguments, effect)
        if tool.effect in ("external", "irreversible"):
            await attempt.keep(effect, request, {"started": True})
        try:
            result = ToolResult(call.id, call.name, await tool(arguments), origin=tool.origin)
        except ToolError as error:
            result = replace(_refused(call, str(error)), origin=tool.origin)
        return result if guard is None or result.is_error else await guard.result(tool, result)

    async def _approve(self, tool: Tool, arguments: Json, effect: str) -> None:
        """ToolError if the call may not run. What was decided is kept, so that a resumed attempt does not ask again."""
        attempt, approval = self.attempt, self.attempt.agent.approval
        verdict = approval.verdict(tool)
        if verdict == "allow":
            return
        effect, request = f"{effect} approval", request_key("approval", canonical([tool.name, arguments]))
        decided = attempt.journal.find(effect, request) if verdict == "ask" else None
        if decided is None:
            decided = asdict(await approval.decide(tool, arguments))
            if verdict == "ask" and decided["by"] != "nobody":
                await attempt.keep(effect, request, decided)
        self.note("approval", tool=tool.name, arguments=arguments, effect=tool.effect, **decided)
        if not decided["allowed"]:
            raise ToolError(f"{tool.name} was not run: {decided['reason'] or 'it was not approved'}")


def _refused(call: ToolCall, text: str) -> ToolResult:
    return ToolResult(call.id, call.name, f"Error: {text}", is_error=True)


def _shown(result: ToolResult) -> ToolResult:
    """The result as the model reads it: what comes from outside stands between marks."""
    if result.origin is None or result.is_error:
        return result
    return replace(result, content=marked(result.content, result.origin))


def _no_tool(name: str, tools: Iterable[str]) -> str:
    """What a model is told that calls a tool there is not."""
    known = sorted(tools)
    close = nearest(name, known) or nearest(name.rsplit(".", 1)[-1].lower(), known)
    hint = f" did you mean {close!r}?" if close else ""
    return f"no tool {name[:64]!r};{hint} there are {', '.join(known) or 'none'}"


_CALLS = frozenset({"completions", "likelihoods", "started", "content"})
"""What a call leaves in the journal; there are other records beside them."""
_GRANTED = "granted"
"""Marks the journal's record of what a budget allowed, where that was less than was asked."""


def cost_of(reply: Json) -> Usage:
    """What a recorded reply cost: a generation's, a scoring's, or nothing."""
    if "completions" in reply:
        return sum((Usage(**each["usage"]) for each in reply["completions"]), Usage())
    return Usage(**reply.get("usage", {}))


def tool_request(call: ToolCall) -> str:
    """The address of a tool's result in a journal: as `request_key` for what a model is asked."""
    return request_key("tool", canonical([call.name, call.arguments, call.invalid]))


def open_context(attempt: Attempt, budget: Budget, conversation: Sequence[Message] = ()) -> Context:
    """The Context an attempt begins with: after the agent's system message, if it has one, and the task's conversation.

    The agent's system message takes the place of the task's: templates show one.
    """
    ctx = Context(attempt, budget, attempt.agent.sampling)
    if attempt.agent.system is not None:
        ctx = ctx.say(attempt.agent.system, "system")
        if conversation and conversation[0].role == "system":
            conversation = conversation[1:]
    for message in conversation:
        ctx = ctx.say(message)
    return ctx
