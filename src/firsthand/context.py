"""A Context: a position in a conversation, and everything a pattern may do from there.

A Context is a value. `ctx.say(...)` and `await ctx.generate()` return new Contexts, so a branch is an assignment, and going
back is using the old name. Budgets, retries, guards, the journal and the record all happen in here: no pattern knows of them
and none can forget them.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Literal, TypeVar, cast

from firsthand.errors import ConfigError
from firsthand.loop import concurrency
from firsthand.loop.answer_time import one_answer
from firsthand.loop.attempt import Attempt as Attempt
from firsthand.loop.budget import Budget, Limits
from firsthand.loop.calling import calling
from firsthand.loop.concurrency import current_branch
from firsthand.loop.consultation import Ask, run_consultation
from firsthand.loop.memory_calls import forget_item, recall_items, remember_text, remember_texts
from firsthand.loop.model_calls import Decoding, decode_answer, sample_answers, score_continuations
from firsthand.loop.open_call import OpenCall
from firsthand.loop.private_texts import READERS
from firsthand.loop.prompt_size import prompt_size, size_key
from firsthand.loop.read_origins import origins_read
from firsthand.loop.tool_call import run_call
from firsthand.loop.tool_call import tool_request as tool_request
from firsthand.loop.world_model import ASKED
from firsthand.memory import MemoryItem, hook
from firsthand.message import Json, Message, Role, Text, ToolCall, ToolResult
from firsthand.model import Likelihood, Sampling, Usage
from firsthand.system.said_text import said_text
from firsthand.task import Task
from firsthand.tool import Tool

T = TypeVar("T")
BranchStatus = Literal["open", "kept", "pruned", "done", "failed"]
MAX_ANSWERS = 100_000
"""At most so many answers are sampled after one prompt."""
MAX_CALLS = 128
"""The most tool calls of one message that are run."""


@dataclass(frozen=True)
class Context:
    """A position in a conversation. Every method that adds a message returns a new Context."""

    attempt: Attempt
    budget: Budget
    sampling: Sampling
    node: int | None = None
    deadline_s: float = math.inf
    """The end of the time that `within` allows, in seconds since the attempt began."""
    lease: object = field(default=None, compare=False, repr=False)
    """Pins the conversation up to the last answer in the model's prefix cache, for as long as this Context lives."""
    fitted: bool = field(default=False, compare=False, repr=False)
    """True if the agent's memory must not shorten the conversation, for it has done so or is doing it."""

    # -- the conversation --

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far."""
        return self.attempt.conversation(self.node)

    @property
    def last(self) -> Message:
        """The last message. AssertionError before the first one."""
        assert self.node is not None, "this Context has no message yet"
        return self.attempt.nodes[self.node].message

    @property
    def text(self) -> str:
        """The text of the last message."""
        return self.last.text

    @property
    def said(self) -> str:
        """The text of the last message behind the `<think>` it may begin with: what patterns act on and pass on."""
        return said_text(self.last.text)

    @property
    def origins(self) -> list[str]:
        """The sources outside the attempt whose content it has read by now, as text or by a sub-agent too."""
        branch = current_branch()
        return origins_read(self.attempt, self.node, f"{branch.path}:{branch.effects}")

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
        """The tools available now, by name: the agent's, its sources' and the environment's."""
        self.attempt.refresh_tools()
        return tuple(self.attempt.tools[name] for name in sorted(self.attempt.tools))

    def say(self, content: str | Message | ToolResult, role: Role = "user") -> Context:
        """The Context after a message: text of `role`, a whole Message, or a tool's result."""
        match content:
            case str():
                message = Message(role, (Text(content),))
            case ToolResult():
                message = Message("tool", (content,))
            case _:
                message = content
        return replace(self, node=self.attempt.add_node(self.node, message))

    def restarted(self, messages: Iterable[Message] = ()) -> Context:
        """A Context that begins anew with these messages, in the same trace and under the same limits."""
        ctx = replace(self, node=None, lease=None)
        for message in messages:
            ctx = ctx.say(message)
        return ctx

    async def within_window(self, tools: Sequence[Tool] = ()) -> Context:
        """The Context after the agent's memory shortened the conversation, if it keeps a window; `sample` begins with it."""
        fit = hook(self.attempt.agent.memory, "fit")
        return self if fit is None else cast(Context, await fit(self, tools))

    async def briefed(self, task: Task) -> Context:
        """The Context after what the agent's memory says about a task; every attempt begins with it."""
        brief = hook(self.attempt.agent.memory, "brief")
        return self if brief is None else cast(Context, await brief(self, task))

    async def hear(self, text: str, **provenance: Any) -> None:
        """Have the agent's memory take in something that was said: as its kind does, or else as it is."""
        if (hear := hook(self.attempt.agent.memory, "hear")) is not None:
            await hear(self, text, provenance)
        else:
            await self.remember(text, **provenance)

    async def tokens(self, tools: Sequence[Tool] = (), *, messages: Sequence[Message] | None = None) -> int:
        """The tokens of the conversation so far, or of `messages`, with these tools' schemas, as the model counts them."""
        model, journal = self.attempt.agent.model, self.attempt.journal
        specs = [tool.spec for tool in sorted(tools, key=lambda tool: tool.name)]
        counted = self.messages if messages is None else tuple(messages)
        key = size_key(model.fingerprint, counted, specs, ())
        if (known := journal.find("size", key)) is not None:
            return int(known["size"])
        size = await prompt_size(model, counted, specs, ())
        journal.record("size", key, {"size": size})
        return size

    def note(self, kind: str, /, **data: Any) -> None:
        """Records an event in the trace: a pruned branch, a vote, anything worth showing."""
        if kind == "branch":  # names repeat where a pattern leads several of a kind, and their places do not
            data.setdefault("path", current_branch().path)
        self.attempt.note(kind, **data)

    def branch(self, name: str, status: BranchStatus = "open", *, score: float | None = None, text: str = "") -> None:
        """Records the status of a named branch that starts here: a sub-agent, a sample, a thought kept or pruned."""
        self.note("branch", name=name, at=self.node, status=status, score=score, text=text[:200])

    def within(self, limits: Limits) -> Context:
        """The same Context with a child budget; its seconds count from now."""
        deadline_s = self.deadline_s
        if limits.seconds is not None:
            deadline_s = min(deadline_s, self.attempt.elapsed_s() + limits.seconds)
        return replace(self, budget=Budget(limits, self.budget), deadline_s=deadline_s)

    def sampled(self, **changes: Any) -> Context:
        """The same Context with other sampling settings, such as `temperature=0.7`."""
        return replace(self, sampling=replace(self.sampling, **changes))

    async def group(self, coroutines: Iterable[Awaitable[T]]) -> list[T]:
        """Runs several branches concurrently; their results in order. See `concurrency.group`."""
        return await concurrency.group(coroutines)

    # -- effects --

    async def generate(self, *, tools: Sequence[Tool] = (), prompt: str | None = None, **changes: Any) -> Context:
        """The Context after the model's answer; `changes` are sampling settings for this answer alone."""
        return (await self.sample(1, tools=tools, prompt=prompt, **changes))[0]

    async def sample(
        self, n: int, *, tools: Sequence[Tool] = (), prompt: str | None = None, **changes: Any
    ) -> list[Context]:
        """`n` Contexts, one after each sampled answer; their common prompt is computed once.

        The answers continue the conversation, or the raw text `prompt`, as a protocol fixes it.
        """
        if n < 1:
            raise ConfigError(f"n is {n}: ask for 1 answer or more")
        if n > MAX_ANSWERS:
            raise ConfigError(f"n is {n}: ask for at most {MAX_ANSWERS:,} answers")
        if prompt is None and not self.fitted and hook(self.attempt.agent.memory, "fit") is not None:
            shorter = replace(await self.within_window(tools), fitted=True)
            return [replace(each, fitted=False) for each in await shorter.sample(n, tools=tools, **changes)]
        call = self._open_call()
        wanted = replace(self.sampling, **changes) if changes else self.sampling
        specs = [tool.spec for tool in sorted(tools, key=lambda tool: tool.name)]
        answers = await sample_answers(call, wanted, specs, n, prompt)
        return [replace(self, node=node, lease=lease) for node, lease in answers]

    async def score(self, continuations: Sequence[str], *, prompt: str | None = None) -> list[Likelihood]:
        """The likelihood of each continuation, after the conversation or after the raw text `prompt`."""
        return await score_continuations(self._open_call(), continuations, prompt)

    async def decode(
        self,
        decoding: Decoding,
        positions: Sequence[Context],
        settings: Json,
        *,
        max_tokens: int,
        prompts: Sequence[str] | None = None,
    ) -> Context:
        """The Context after one answer that `decoding` computes from the prompts of several positions together.

        Used by decoders outside the engine, such as RAG-Token, which mixes distributions given several prompts.
        `settings` name the decoder and all that decides its answer besides the prompts. With `prompts`, the positions'
        conversations are replaced by raw texts. ConfigError if the model gives no distributions.
        """
        at = [each.node for each in positions]
        node = await decode_answer(self._open_call(), decoding, at, settings, self.sampling, max_tokens, prompts)
        return replace(self, node=node)

    async def call(self, call: ToolCall) -> ToolResult:
        """The result of a tool call, to be added with `ctx.say(result)`. A failure is a result with `is_error`."""
        effect = current_branch().next_effect()
        return await self._call(call, effect, current_branch().depth, as_of=effect)

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
                return await self._call(call, effect, branch.depth, as_of=within[0][1])

        results: list[ToolResult] = []
        with one_answer():
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

    async def consult(self, tool: Tool, arguments: Json, ask: Ask) -> list[Json]:
        """The items that a source outside the attempt gives for `arguments`: JSON objects, each with a "text".

        One effect, recorded as a call of `tool`, which describes the source and need not be among the agent's tools. `ask`
        runs once: a resumed, replayed or forked attempt finds the items in its journal. Each item passes the guards
        whole, as a result of `tool`; one that is withheld is left out. A refused call gives no items.
        """
        opened, attempt = self._open_call(), self.attempt
        request = tool_request(ToolCall("", tool.name, arguments))
        recorded = opened.find(request)
        granted = opened.reserve() if recorded is None else None
        detail: Json = {"name": tool.name, "arguments": arguments}
        error: str | None = "it was broken off before it had a result"
        opened.begin_tool(tool.name, arguments)
        try:
            async with opened.in_time():
                found = await run_consultation(
                    attempt, tool, arguments, ask, borders=opened.borders(), request=request, recorded=recorded
                )
            shown = found.refusal or "\n\n".join(str(item["text"]) for item in found.items)
            detail |= {"arguments": found.arguments, "result": shown, "is_error": found.refusal is not None}
            detail |= {"clients": found.told} if attempt.agent.guards and found.told is not None else {}
            detail |= {"items": found.items} | ({"origin": tool.origin} if tool.origin is not None else {})
            error = found.refusal
        finally:
            opened.pay(granted, Usage())
            opened.record("tool", request, detail=detail, error=error, replayed=recorded is not None)
        return found.items

    async def remember(self, text: str, **provenance: Any) -> str:
        """Write a text to the agent's memory; returns its id. What branches beside this one write is not seen here.

        `provenance` (JSON values) is kept with it, beside the attempt and the effect that wrote it. Without an `origin` in
        it the text bears all of `origins`; give `origin=[]` for words that come from nowhere else.
        """
        return await remember_text(self._open_call(), text, provenance)

    async def remember_all(self, entries: Sequence[tuple[str, Json]]) -> list[str]:
        """Write several texts, each with its provenance, as one effect; returns their ids in order."""
        return await remember_texts(self._open_call(), entries) if entries else []

    async def recall(self, query: str, *, k: int = 5, **how: Any) -> list[MemoryItem]:
        """At most `k` items of the agent's memory that fit a query, best first.

        `how` are further keywords (JSON values) of the memory's search, such as `at="2026-03-01"` of the kinds in
        `memories/`: the answer as of that day. ConfigError if the memory does not take them.
        """
        if k < 1:
            raise ConfigError(f"recall was asked for k={k} items: ask for 1 or more")
        return await recall_items(self._open_call(), query, k, how)

    async def forget(self, id: str) -> None:
        """Drop an item from the agent's memory; an id that is not there is no error."""
        await forget_item(self._open_call(), id)

    def _only_reads(self, call: ToolCall) -> bool:
        tool = self.attempt.tools.get(call.name)
        return tool is None or tool.effect == "read"

    async def _call(self, call: ToolCall, effect: str, depth: int, *, as_of: str) -> ToolResult:
        attempt = self.attempt
        attempt.refresh_tools()
        opened = self._open_call(effect, depth)
        request = tool_request(call)
        recorded = opened.find(request)
        granted = opened.reserve() if recorded is None else None
        detail: Json = {"name": call.name, "arguments": call.arguments}
        error: str | None = "it was broken off before it had a result"
        opened.begin_tool(call.name, call.arguments, is_known=call.name in attempt.tools)
        try:
            async with opened.in_time():
                borders = opened.borders(as_of)
                with calling(self, effect) as within:
                    ran = await run_call(
                        attempt, call, borders=borders, request=request, recorded=recorded, detail=detail
                    )
            result, arguments, told = ran
            detail |= {"arguments": arguments, "result": result.content, "is_error": result.is_error}
            detail |= {"clients": told} if result.is_error and attempt.agent.guards and told is not None else {}
            detail |= {"origin": result.origin} if result.origin is not None else {}
            detail |= {"plain": result.plain} if result.plain is not None else {}
            detail |= {READERS: "user"} if result.is_private or attempt.is_private(call.name) else {}
            detail |= {ASKED: within.asked} if within.asked else {}
            error = result.content if result.is_error else None
            if not result.is_error:
                detail.pop("ran", None)  # the result says so
        finally:
            opened.pay(granted, Usage())
            opened.record("tool", request, detail=detail, error=error, replayed=recorded is not None)
        return result

    def _open_call(self, effect: str | None = None, depth: int | None = None) -> OpenCall:
        """A call from here: the branch's next one, or one whose id was drawn before."""
        branch = current_branch()
        effect = branch.next_effect() if effect is None else effect
        depth = branch.depth if depth is None else depth
        return OpenCall(self.attempt, self.budget, self.node, self.deadline_s, effect, depth)


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
