"""A Context: a position in a conversation, and everything a pattern may do from there.

A Context is a value. `ctx.say(...)` and `await ctx.generate()` return new Contexts, so a branch is an assignment, and going
back is using the old name. Budgets, retries, guards, the journal and the record all happen in here: no pattern knows of them
and none can forget them.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Literal, TypeVar, cast

from firsthand.errors import ConfigError, FirsthandError, LimitExceeded
from firsthand.loop import concurrency
from firsthand.loop.attempt import Attempt as Attempt
from firsthand.loop.attempt_memory import AttemptMemory, MemoryChange
from firsthand.loop.borders import Borders
from firsthand.loop.budget import Budget, Limits
from firsthand.loop.calling import calling
from firsthand.loop.concurrency import current_branch, derive_seed
from firsthand.loop.consultation import Ask, run_consultation
from firsthand.loop.listener import Began
from firsthand.loop.prompt_size import prompt_size, size_key
from firsthand.loop.tool_call import run_call
from firsthand.loop.tool_call import tool_request as tool_request
from firsthand.memory import MemoryItem, hook
from firsthand.message import Json, Message, Role, Text, ToolCall, ToolResult, canonical
from firsthand.model import (
    Completion,
    DistributionCapability,
    DistributionModel,
    Likelihood,
    Prompt,
    Sampling,
    Scored,
    ToolSpec,
    Usage,
    request_key,
)
from firsthand.task import Task
from firsthand.tool import Tool
from firsthand.trace import as_json

T = TypeVar("T")
BranchStatus = Literal["open", "kept", "pruned", "done", "failed"]

Decoding = Callable[[DistributionModel, Sequence[Prompt]], Awaitable[Completion]]
"""Computes one answer to several prompts together, step by step, from whole distributions of the model."""
MAX_CALLS = 128
"""The most tool calls of one message that are run."""
_GRANTED = "granted"
"""Key of the journal's record of a grant that was smaller than the request."""


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
        if prompt is None and not self.fitted and hook(self.attempt.agent.memory, "fit") is not None:
            shorter = replace(await self.within_window(tools), fitted=True)
            return [replace(each, fitted=False) for each in await shorter.sample(n, tools=tools, **changes)]
        attempt, effect = self.attempt, current_branch().next_effect()
        started_s = attempt.elapsed_s()
        sent = await self._borders(effect).prompt(prompt)
        asked = sent.prompt
        wanted = replace(self.sampling, **changes) if changes else self.sampling
        if wanted.seed is None:
            wanted = wanted.with_seed(derive_seed(attempt.seed, effect))
        specs = [tool.spec for tool in sorted(tools, key=lambda tool: tool.name)]

        def key(sampling: Sampling) -> str:
            return request_key(attempt.agent.model.fingerprint, asked, sampling, specs, n)

        request = key(wanted)
        sampling, recorded, granted, height = await self._granted(effect, asked, specs, wanted, n, request, key)
        request = request if sampling is wanted else key(sampling)
        usage = Usage()
        leases: list[object] = [None] * n

        async def ask() -> Json:
            attempt.has_begun = True
            attempt.tell(Began(effect, "generate", self.node, {"n": n}))
            completions = await attempt.complete(effect, asked, sampling, specs, n)
            leases[:] = [completion.lease for completion in completions]
            return attempt.to_reply(completions, self.node)

        try:
            async with self._in_time():
                body = await attempt.reply(effect, request, ask, recorded)
            completions = attempt.from_reply(body, self.node)
            usage = sum((completion.usage for completion in completions), usage)
            if sampling is not wanted and any(each.finish_reason == "length" for each in completions):
                self.budget.mark("tokens", height)
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
        detail |= sent.detail
        attempt.record_generation(
            effect,
            self.node,
            started_s,
            request,
            nodes=nodes,
            ids=completions[0].prompt_ids,
            specs=specs,
            usage=usage,
            detail=detail,
            replayed=recorded is not None,
        )
        return [replace(self, node=node, lease=lease) for node, lease in zip(nodes, leases, strict=True)]

    async def score(self, continuations: Sequence[str], *, prompt: str | None = None) -> list[Likelihood]:
        """The likelihood of each continuation, after the conversation or after the raw text `prompt`."""
        attempt, effect = self.attempt, current_branch().next_effect()
        started_s = attempt.elapsed_s()
        sent = await self._borders(effect).prompt(prompt)
        asked = sent.prompt
        model = attempt.agent.model
        request = request_key(model.fingerprint, asked, continuations=continuations)
        recorded = attempt.journal.find(effect, request)
        granted = None
        if recorded is None:
            async with self._turn():
                size = await self._size(effect, asked, continuations=continuations)
                granted = self.budget.reserve(max(1, size), current_branch().depth, least=max(1, size))
        usage = Usage()

        async def ask() -> Json:
            attempt.has_begun = True
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
        detail = {"prompt": None, "likelihoods": body["likelihoods"]} | sent.detail
        replayed = recorded is not None
        attempt.record("score", effect, self.node, started_s, request, usage=usage, detail=detail, replayed=replayed)
        return list(scored.likelihoods)

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
        attempt, effect = self.attempt, current_branch().next_effect()
        started_s = attempt.elapsed_s()
        model = attempt.agent.model
        texts = [None] * len(positions) if prompts is None else list(prompts)
        sent = [
            await replace(self, node=each.node)._borders(effect).prompt(text)
            for each, text in zip(positions, texts, strict=True)
        ]
        asked = [each.prompt for each in sent]
        keys = [request_key(model.fingerprint, each) for each in asked]
        request = request_key(model.fingerprint, canonical([settings | {"max_tokens": max_tokens}, keys]))
        recorded = attempt.journal.find(effect, request)
        if recorded is None and not isinstance(model, DistributionCapability):
            raise ConfigError(
                f"{model.name} gives no log-probs of the whole vocabulary, which {settings.get('decoder')} mixes: "
                "use a local model, such as smollm2"
            )
        granted = None
        if recorded is None:
            async with self._turn():
                size = sum([await self._size(effect, each) for each in asked])
                most = max(1, size + len(asked) * max_tokens)
                granted = self.budget.reserve(most, current_branch().depth, least=most)
        usage = Usage()

        async def ask() -> Json:
            attempt.has_begun = True
            attempt.tell(Began(effect, "generate", self.node, {"n": 1}))
            return attempt.to_reply([await decoding(cast(DistributionModel, model), asked)], self.node)

        try:
            async with self._in_time():
                body = await attempt.reply(effect, request, ask, recorded)
            (completion,) = attempt.from_reply(body, self.node)
            usage = completion.usage
        except FirsthandError as error:
            attempt.record("generate", effect, self.node, started_s, request, error=str(error))
            raise
        finally:
            self._pay(granted, usage)
        node = attempt.add_node(self.node, completion.message)
        places = [each.node for each in positions]
        detail: Json = {
            "finish_reasons": [completion.finish_reason],
            "sampling": self.sampling.to_json(),
            "tools": [],
            "decoding": settings,
            "positions": places,
            "prompts": [each.detail for each in sent],
        }
        if completion.top_logprobs:
            detail["top_logprobs"] = [[[list(pair) for pair in token] for token in completion.top_logprobs]]
        attempt.record("generate", effect, self.node, started_s, request, usage=usage, nodes=(node,),
                       detail=detail, replayed=recorded is not None)  # fmt: skip
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
        runs once: a resumed, replayed or forked attempt finds the items in its journal. Each text passes the guards as a
        result of `tool`; one that is withheld is left out. A refused call gives no items.
        """
        attempt, effect = self.attempt, current_branch().next_effect()
        started_s = attempt.elapsed_s()
        request = tool_request(ToolCall("", tool.name, arguments))
        recorded = attempt.journal.find(effect, request)
        granted = self.budget.reserve(1, current_branch().depth) if recorded is None else None
        attempt.has_begun = True
        detail: Json = {"name": tool.name, "arguments": arguments}
        error: str | None = "it was broken off before it had a result"
        attempt.tell(Began(effect, "tool", self.node, dict(detail)))
        try:
            async with self._in_time():
                found = await run_consultation(
                    attempt, tool, arguments, ask, borders=self._borders(effect), request=request, recorded=recorded
                )
            shown = found.refusal or "\n\n".join(str(item["text"]) for item in found.items)
            detail |= {"arguments": found.arguments, "result": shown, "is_error": found.refusal is not None}
            detail |= {"items": found.items} | ({"origin": tool.origin} if tool.origin is not None else {})
            error = found.refusal
        finally:
            self._pay(granted, Usage())
            replayed = recorded is not None
            attempt.record("tool", effect, self.node, started_s, request, detail=detail, error=error, replayed=replayed)
        return found.items

    async def remember(self, text: str, **provenance: Any) -> str:
        """Write a text to the agent's memory; returns its id. What branches beside this one write is not seen here.

        `provenance` (JSON values) is kept with it, beside the attempt and the effect that wrote it.
        """
        effect = current_branch().next_effect()
        origin = {} if self.attempt.memory is None else self.attempt.memory.origin
        item = MemoryItem.of(text, as_json({**provenance, **origin, "effect": effect}))
        change = MemoryChange(effect, current_branch().order(effect), item)
        detail: Json = {"operation": "remember", "item": item.to_json(), "order": list(change.order)}

        async def write(memory: AttemptMemory) -> str:
            memory.admit(item)
            return item.id

        return str(await self._remembered(effect, detail, write, change))

    async def remember_all(self, entries: Sequence[tuple[str, Json]]) -> list[str]:
        """Write several texts, each with its provenance, as one effect; returns their ids in order."""
        if not entries:
            return []
        effect = current_branch().next_effect()
        origin = {} if self.attempt.memory is None else self.attempt.memory.origin
        items = [MemoryItem.of(text, as_json({**given, **origin, "effect": effect})) for text, given in entries]
        order = current_branch().order(effect)
        changes = [MemoryChange(effect, (*order, place), item) for place, item in enumerate(items)]
        detail: Json = {"operation": "remember", "items": [item.to_json() for item in items], "order": list(order)}

        async def write(memory: AttemptMemory) -> list[str]:
            for item in items:
                memory.admit(item)
            return [item.id for item in items]

        return list(await self._remembered(effect, detail, write, *changes))

    async def recall(self, query: str, *, k: int = 5, **how: Any) -> list[MemoryItem]:
        """At most `k` items of the agent's memory that fit a query, best first.

        `how` are further keywords (JSON values) of the memory's search, such as `at="2026-03-01"` of the kinds in
        `memories/`: the answer as of that day. ConfigError if the memory does not take them.
        """
        if k < 1:
            raise ConfigError(f"recall was asked for k={k} items: ask for 1 or more")
        effect = current_branch().next_effect()
        filters = {"how": as_json(how)} if how else {}

        async def search(memory: AttemptMemory) -> list[Json]:
            seen = await memory.as_of(effect)
            try:
                found = await seen.search(query, k, **how)
            except TypeError as error:
                if not how:
                    raise
                raise ConfigError(f"this memory's search takes no {', '.join(how)}: {error}") from None
            return [item.to_json() for item in found]

        found = await self._remembered(effect, {"operation": "recall", "query": query, "k": k} | filters, search)
        return [MemoryItem(**item) for item in found]

    async def forget(self, id: str) -> None:
        """Drop an item from the agent's memory; an id that is not there is no error."""
        effect = current_branch().next_effect()
        change = MemoryChange(effect, current_branch().order(effect), None, id)

        async def drop(memory: AttemptMemory) -> None:
            return None

        await self._remembered(effect, {"operation": "forget", "id": id, "order": list(change.order)}, drop, change)

    async def _remembered(
        self,
        effect: str,
        detail: Json,
        act: Callable[[AttemptMemory], Awaitable[Any]],
        *changes: MemoryChange,
    ) -> Any:
        """The reply of a memory operation, from the journal if it is there. A change is then made again, in the snapshot."""
        attempt, memory = self.attempt, self.attempt.memory
        if memory is None:
            raise ConfigError(f"the agent {attempt.agent.name} has no memory: give it one, as in Agent(memory=notes())")
        started_s = attempt.elapsed_s()
        request = request_key("memory", canonical(detail))
        recorded = attempt.journal.find(effect, request)
        granted = self.budget.reserve(1, current_branch().depth) if recorded is None else None
        error: str | None = "it was broken off before it was done"
        try:
            async with self._in_time():
                if recorded is None:
                    await attempt.keep(effect, request, recorded_now := {"memory": await act(memory)})
                reply = (recorded_now if recorded is None else recorded)["memory"]
            memory.changes += changes
            detail, error = detail | {"reply": reply}, None
        finally:
            self._pay(granted, Usage())
            attempt.record("memory", effect, self.node, started_s, request, detail=detail, error=error,
                           replayed=recorded is not None)  # fmt: skip
        return reply

    def _only_reads(self, call: ToolCall) -> bool:
        tool = self.attempt.tools.get(call.name)
        return tool is None or tool.effect == "read"

    async def _call(self, call: ToolCall, effect: str, depth: int, *, as_of: str) -> ToolResult:
        attempt = self.attempt
        attempt.refresh_tools()
        started_s = attempt.elapsed_s()
        request = tool_request(call)
        recorded = attempt.journal.find(effect, request)
        granted = self.budget.reserve(1, depth) if recorded is None else None
        attempt.has_begun = True
        detail: Json = {"name": call.name, "arguments": call.arguments}
        error: str | None = "it was broken off before it had a result"
        attempt.tell(Began(effect, "tool", self.node, dict(detail)))
        try:
            async with self._in_time():
                borders = self._borders(effect, depth, as_of)
                with calling(self, effect):
                    ran = await run_call(attempt, call, borders=borders, request=request, recorded=recorded)
            result, arguments = ran
            detail |= {"arguments": arguments, "result": result.content, "is_error": result.is_error}
            detail |= {"origin": result.origin} if result.origin is not None else {}
            error = result.content if result.is_error else None
        finally:
            self._pay(granted, Usage())
            replayed = recorded is not None
            attempt.record("tool", effect, self.node, started_s, request, detail=detail, error=error, replayed=replayed)
        return result

    async def _granted(
        self,
        effect: str,
        prompt: Prompt,
        specs: Sequence[ToolSpec],
        asked: Sampling,
        n: int,
        request: str,
        key: Callable[[Sampling], str],
    ) -> tuple[Sampling, Json | None, int | None, int]:
        """The sampling the budget allows, the recorded reply or else the reserved tokens, and the budget that cut it.

        What a budget has left depends on which branch came first, so a grant of less than was asked is recorded too: the
        reply that was given under it is found again whatever comes first when the attempt is resumed.
        """
        journal = self.attempt.journal
        recorded = journal.find(effect, request)
        if recorded is not None:
            return asked, recorded, None, 0
        if (earlier := journal.find(effect, f"{_GRANTED}:{request}")) is not None:
            reduced = replace(asked, max_tokens=earlier[_GRANTED])
            if (recorded := journal.find(effect, key(reduced))) is not None:
                return reduced, recorded, None, earlier.get("height", 0)
        async with self._turn():
            size = await self._size(effect, prompt, specs)
            height = self.budget.tightest()
            granted = self.budget.reserve(size + n * asked.max_tokens, current_branch().depth, least=size + n)
        each = (granted - size) // n
        if each >= asked.max_tokens:
            return asked, None, granted, height
        journal.record(effect, f"{_GRANTED}:{request}", {_GRANTED: each, "height": height})
        return replace(asked, max_tokens=each), None, granted, height

    async def _size(
        self, effect: str, prompt: Prompt, specs: Sequence[ToolSpec] = (), continuations: Sequence[str] = ()
    ) -> int:
        """Tokens of a prompt, and of what is scored after it, where a budget counts tokens; else 0."""
        if not self.budget.counts_tokens:
            return 0
        model, journal = self.attempt.agent.model, self.attempt.journal
        key = size_key(model.fingerprint, prompt, specs, continuations)
        if (known := journal.find(effect, key)) is not None:
            return int(known["size"])
        size = await prompt_size(model, prompt, specs, continuations)
        journal.record(effect, key, {"size": size})
        return size

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Branches reserve tokens in the order in which they came, however long it takes to count each prompt."""
        if not self.budget.counts_tokens:
            yield
            return
        async with self.attempt.turn():
            yield

    def _pay(self, granted: int | None, usage: Usage) -> None:
        """Charge the budget; a replayed call, for which nothing was granted, as it was charged when it was made."""
        self.budget.pay(granted, usage)

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """Raises LimitExceeded if the block is not done by the deadline."""
        left_s = self.deadline_s - self.attempt.elapsed_s()
        try:
            async with asyncio.timeout(None if left_s == math.inf else left_s) as timer:
                yield
        except TimeoutError:
            if timer.expired():
                raise LimitExceeded("seconds", "the time for this part of the attempt is up") from None
            raise

    def _borders(self, effect: str, depth: int | None = None, as_of: str = "") -> Borders:
        """The agent's guards at this effect."""
        depth = current_branch().depth if depth is None else depth
        return Borders(self.attempt, effect, self.node, self.budget, depth, as_of)


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
