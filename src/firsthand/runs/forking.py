"""Forks an attempt: a new attempt that continues from any message, with another pattern, model, prompt, sampling or limits.

With the same pattern and no inserted message, the pattern runs again from the start: calls that had ended by the fork get
the parent's replies, and later calls are made anew. Otherwise the pattern starts in a Context at that message. In both ways
the parent's messages keep their token ids, so an engine computes no prefix twice.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from firsthand.agent import Agent
from firsthand.benchmark import Setting
from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.loop.journal import Journal, MemoryJournal, where_in
from firsthand.loop.listener import Listener
from firsthand.loop.private_texts import READERS
from firsthand.loop.reply_body import to_body
from firsthand.loop.world_model import world_replies
from firsthand.message import Json, Message, ToolCall, ToolResult, assistant, canonical
from firsthand.model import Completion, Usage
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.tool_calls import has_run
from firsthand.trace import Call, Origin, Trace


@dataclass(frozen=True)
class Fork:
    """The parent, the message to fork from, and the changes."""

    parent: Trace
    at: int
    """Index of the node that the new attempt continues from."""
    agent: Agent
    """The agent that continues."""
    say: str | None = None
    """A user message to insert after that node."""
    seed: int | None = None
    """Another seed than the parent's."""
    run: str = ""
    """The run that holds the parent."""

    def __post_init__(self) -> None:
        count = len(self.parent.nodes)
        if not 0 <= self.at < count:
            there = f"its steps are 0 to {count - 1}" if count else "it has no messages"
            raise ConfigError(f"trace {self.parent.id} has no step {self.at}: {there}")
        if not self.again and (open_calls := _unanswered(self.parent.messages(self.at))):
            raise ConfigError(
                f"at step {self.at} the result of {open_calls[0].name} is still to come: fork at a later step, "
                "after the results, or at an earlier one"
            )

    @property
    def place(self) -> str:
        """The place of the new attempt, `Trace.place`: 16 hex digits, the same in every process."""
        key = canonical([self.parent.id, self.run, self.at, self.agent.to_json(), self.say, self.seed])
        return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @property
    def again(self) -> bool:
        """True if the parent's own pattern runs again, with the parent's replies up to the fork."""
        return self.say is None and self.agent.to_json()["pattern"] == self.parent.agent.get("pattern")


async def fork(
    what: Fork,
    task: Task,
    *,
    benchmark: Setting | None = None,
    journal: Journal | None = None,
    listener: Listener | None = None,
) -> Trace:
    """The Trace of the new attempt, scored by the benchmark's scorers; its `origin` says where it came from.

    ConfigError if the parent's pattern runs again and does not reach the fork by the same calls.
    """
    kept = kept_calls(what.parent, what.at)
    journal = journal or MemoryJournal()
    trace = await rollout(
        what.agent if what.again else replace(what.agent, pattern=_beginning_at(what, kept)),
        task,
        benchmark=benchmark,
        epoch=what.parent.epoch,
        seed=what.parent.seed if what.seed is None else what.seed,
        journal=Kept(journal, what.parent, kept) if what.again else journal,
        listener=listener,
    )
    if what.again:
        _check_way(what.parent, trace, kept)
    return replace(
        trace, place=what.place, agent=what.agent.to_json(), origin=Origin(what.parent.id, what.at, what.run)
    )


def kept_calls(trace: Trace, at: int) -> dict[str, Call]:
    """The calls that had ended when the node `at` was there, by id; what was called from that node itself had not."""
    after = (call for call in trace.calls if call.nodes and min(call.nodes) > at)
    until_s = min((call.started_s + call.duration_s for call in after), default=float("inf"))

    def had_ended(call: Call) -> bool:
        if call.nodes:
            return min(call.nodes) <= at
        answered = call.kind in ("guard", "memory") and call.error is None
        has_reply = answered or call.kind == "tool" or "likelihoods" in call.detail  # a generation without nodes failed
        return has_reply and (call.at is None or call.at < at) and call.started_s < until_s

    return {call.id: call for call in trace.calls if had_ended(call)}


class Kept:
    """A Journal that also holds the replies a parent's calls had, whatever is asked at their places now.

    Only a tool must be asked for the same thing again. A trace may come from anyone, so it decides nothing: what a guard's
    model said holds where the call that it judged is kept too, and was asked the same; persons are asked again.
    """

    def __init__(self, own: Journal, parent: Trace, calls: Mapping[str, Call]):
        self.own = own
        self.calls = calls
        indices = {call.id: index for index, call in enumerate(parent.calls)}
        self.kept = {id: _reply(parent, call, indices[id]) for id, call in calls.items()}
        self.of_worlds: dict[str, Json] = {}
        for call in calls.values():
            if call.kind == "tool":
                self.of_worlds |= world_replies(call.id, call.detail)

    def where(self, effect: str) -> tuple[str, str]:
        """The place of this attempt, and the effect's name in its own journal."""
        return where_in(self.own, effect)

    def find(self, effect: str, request: str) -> Json | None:
        """The reply recorded for this effect in this attempt or in its parent, or None."""
        found = self.own.find(effect, request)
        if found is not None or effect not in self.kept:
            return self.of_worlds.get(effect) if found is None else found
        call = self.calls[effect]
        judged, of_guard, _ = effect.partition(" guard ")
        if (call.kind == "guard") != bool(of_guard) or (of_guard and judged not in self.kept):
            return None
        if effect.endswith(" approval"):
            return None
        return None if call.kind in ("tool", "guard") and call.request != request else self.kept[effect]

    def record(self, effect: str, request: str, reply: Json) -> None:
        """Keep the reply in this attempt's own journal."""
        self.own.record(effect, request, reply)

    async def settled(self) -> None:
        """Wait until this attempt's own journal has kept it all."""
        await self.own.settled()

    def replies(self, part: str = "") -> list[Json]:
        """The replies recorded in this attempt, and the parent's."""
        return [*self.own.replies(part), *(() if part else self.kept.values())]


def _reply(trace: Trace, call: Call, index: int) -> Json:
    """The journal entry of a call, rebuilt from the trace."""
    if call.kind == "tool":
        detail = call.detail
        if "result" not in detail:
            return {"started": True}
        if "items" in detail:
            refusal = {"refusal": detail["result"]} if detail["is_error"] else {}
            return {"items": detail["items"], "shown": True} | refusal
        others = {name: detail[name] for name in ("ran", "plain", READERS) if name in detail}
        return {"content": detail["result"], "is_error": detail["is_error"], "shown": True} | others
    if call.kind == "memory":
        return {"memory": call.detail["reply"]}
    if call.kind == "guard":
        completion = Completion(assistant(call.detail["answer"]), "stop", call.usage)
        return {"completions": [completion.to_json()]}
    if call.kind == "score":
        return {"likelihoods": call.detail["likelihoods"], "usage": call.usage.to_json()}
    reasons = call.detail["finish_reasons"]
    usages = (call.usage, *[Usage()] * len(call.nodes))
    ids = trace.prompt_ids(index)
    return to_body([
        Completion(trace.nodes[node].message, reason, usage, prompt_ids=ids)
        for node, reason, usage in zip(call.nodes, reasons, usages, strict=False)
    ])  # fmt: skip


def _beginning_at(what: Fork, kept: Mapping[str, Call]) -> Any:
    """The fork's pattern, begun where the parent's conversation stood and in the world as it was then."""
    messages = what.parent.messages(what.at)
    if what.agent.system is not None:  # the attempt begins with it anyway
        messages = tuple(message for message in messages if message.role != "system")

    @functools.wraps(what.agent.pattern)
    async def continued(task: Task, ctx: Context, **options: Any) -> str:
        await _rebuild(ctx, kept)
        left = messages
        if task.conversation:  # the attempt has begun with it, and the parent's messages hold it too
            lead = ctx.messages[:1] if what.agent.system is not None else ()
            begun = ctx.messages[len(lead) :]
            if begun == messages[: len(begun)]:
                left = messages[len(begun) :]
            else:
                ctx = ctx.restarted(lead)
        for message in left:
            ctx = ctx.say(message)
        return await what.agent.pattern(task, ctx if what.say is None else ctx.say(what.say), **options)

    return continued


async def _rebuild(ctx: Context, kept: Mapping[str, Call]) -> None:
    """Do again what the parent had done to the attempt's own world."""
    attempt = ctx.attempt
    writers = {tool.name for tool in ctx.tools if tool.effect == "write"}
    contained = {tool.name for tool in ctx.tools if attempt.is_contained(tool)}
    try:
        for call in kept.values():
            name = call.detail.get("name")
            if call.kind == "tool" and (name in writers or (name in contained and has_run(call))):
                attempt.redone = call.detail
                await ctx.call(ToolCall(call.id, call.detail["name"], call.detail["arguments"]))
    finally:
        attempt.redone = None


def _check_way(parent: Trace, trace: Trace, kept: Mapping[str, Call]) -> None:
    """ConfigError unless the fork made each kept call too, after the same messages."""
    made = {call.id: call for call in trace.calls}
    for id, call in kept.items():
        found = made.get(id)
        if call.kind == "guard":  # the fork may have other guards
            continue
        if found is None and (trace.error is not None or trace.stop_reason != "done"):
            continue
        if found is None or found.kind != call.kind or _words(trace, found.at) != _words(parent, call.at):
            raise ConfigError(
                f"the pattern did not come to the fork by the parent's way: its call {id} is another one now. Its code or "
                "its options have changed since; name a pattern to begin at that message instead"
            )


def _words(trace: Trace, at: int | None) -> list[tuple[str, str]]:
    """The messages up to a node, without system messages, which a fork may change."""
    return [(message.role, message.text) for message in trace.messages(at) if message.role != "system"]


def _unanswered(messages: tuple[Message, ...]) -> list[ToolCall]:
    """The tool calls that no result has followed yet."""
    answered = {part.call_id for message in messages for part in message.parts if isinstance(part, ToolResult)}
    return [call for message in messages for call in message.tool_calls if call.id not in answered]
