"""Episodic memory: past attempts, made from their Traces, found by likeness to the task and by time.

An episode is the task as it was asked, what was called, the answer and the first score. The score of an old episode counts
for less: likeness is halved for each `half_life_days` that it is older than the newest one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from firsthand.context import Context
from firsthand.memories.keeping.conversation_window import shortened, shown_items, text_of, without_thoughts
from firsthand.memories.keeping.fenced_items import bounded_origins, origins_in, origins_of
from firsthand.memories.keeping.item_file import ItemFile
from firsthand.memories.keeping.item_vectors import ItemVectors
from firsthand.memories.keeping.opened_file import bounds_of, opened_file, vectors_of
from firsthand.memories.keeping.reading_tools import reading_tools
from firsthand.memories.keeping.stored_memory import KeepingPolicy, StoredMemory
from firsthand.memory import Lifetime, MemoryItem
from firsthand.message import Json, Message, canonical
from firsthand.task import Task
from firsthand.tool import Tool
from firsthand.trace import Trace

NOTE = "Earlier attempts at tasks like this one:"
MAX_TASK_CHARS, MAX_ANSWER_CHARS, MAX_STEPS = 2_000, 1_000, 20


def episode_of(trace: Trace) -> MemoryItem | None:
    """The episode of an attempt; None if it was asked nothing, or if its text must not be published."""
    asked = question_of(trace)
    if not asked or trace.protected is not None:
        return None
    score = trace.attempt_scores[0] if trace.attempt_scores else None
    outcome = "no score" if score is None or score.failure else f"{score.name} {score.value:g}"
    outcome += " (lower is better)" if score is not None and score.is_harm and not score.failure else ""
    ended = trace.error.kind if trace.error is not None else trace.stop_reason
    lines = [f"Task: {asked}", *steps_of(trace)]
    lines += [
        f"Answer: {shortened(without_thoughts(trace.answer or ''), MAX_ANSWER_CHARS)}",
        f"Outcome: {outcome}, {ended}",
    ]
    provenance: Json = {
        "trace": trace.id,
        "place": trace.place,
        "question": question_digest(trace),
        "benchmark": trace.benchmark,
        "task": trace.task_id,
        "agent": trace.agent_name,
        "time": trace.started_at,
        "score": None if score is None or score.failure else score.value,
        "ended": ended,
    }
    if origin := bounded_origins([*origins_of([node.message for node in trace.nodes]), *origins_in(trace.calls)]):
        provenance["origin"] = origin
    return MemoryItem.of("\n".join(lines), provenance)


def question_of(trace: Trace) -> str:
    """The last user message before the first answer, which holds the task; none of what a memory showed."""
    asked = _asked(trace)
    return shortened(asked[-1].text.strip(), MAX_TASK_CHARS) if asked else ""


def question_digest(trace: Trace) -> str:
    """A hash of the whole question with the conversation before it, 16 hex digits; system messages are no part of it."""
    *before, question = _asked(trace)
    said = "\0".join([*map(text_of, before), question.text.strip()])
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _asked(trace: Trace) -> list[Message]:
    """The conversation up to the question, which is the last; empty if nothing was asked."""
    asked = [call for call in trace.calls if call.kind in ("generate", "score")]
    answered = [
        call.at for call in asked if " " not in call.id
    ]  # the others were asked for by a tool, in its own words
    path = trace.path(answered[0]) if answered and answered[0] is not None else ()
    said = [trace.nodes[node].message for node in path]
    said = [each for each in said if each.role != "system" and not _is_from_memory(each)]
    while said and (said[-1].role != "user" or said[-1].text.startswith("Observation:")):
        said.pop()
    return said


def _is_from_memory(message: Message) -> bool:
    return message.role == "user" and message.text.startswith("From memory.")


def steps_of(trace: Trace) -> list[str]:
    """A line for each of the attempt's tool calls, in order, at most MAX_STEPS."""
    calls = [call for call in trace.calls if call.kind == "tool" and call.error is None]
    lines = [f"Step: {call.detail['name']} {canonical(call.detail['arguments'])[:300]}" for call in calls[:MAX_STEPS]]
    return lines if len(calls) <= MAX_STEPS else [*lines, f"and {len(calls) - MAX_STEPS} more"]


class EpisodicMemory(StoredMemory):
    """Episodes. Its snapshots are plain StoredMemories."""

    def __init__(
        self,
        policy: KeepingPolicy,
        file: ItemFile | None = None,
        *,
        owner: str = "",
        lifetime: Lifetime = "agent",
        vectors: ItemVectors | None = None,
        shown: int = 2,
        offer_tools: bool = False,
    ):
        super().__init__(policy, file, owner=owner, lifetime=lifetime, vectors=vectors)
        self.shown, self.offer_tools = shown, offer_tools

    async def brief(self, ctx: Context, task: Task) -> Context:
        """The Context after the episodes that fit the task, if there are any."""
        items = await ctx.recall(task.prompt, k=self.shown) if self.shown else []
        return ctx.say(shown_items(items, NOTE)) if items else ctx

    def learn(self, trace: Trace) -> Sequence[MemoryItem]:
        """The episode of a finished attempt, failed ones too."""
        episode = episode_of(trace)
        return () if episode is None else (episode,)

    def tools(self, ctx: Context) -> Sequence[Tool]:
        """With `offer_tools`: `memory_search` and `memory_read`."""
        return reading_tools(ctx) if self.offer_tools else ()


def _one_for_each_question(item: MemoryItem) -> str | None:
    """A resumed or repeated attempt at a task replaces the one before; another question of the same task id, such as the
    next turn of a session, does not."""
    place, question = (item.provenance.get(each) for each in ("place", "question"))
    return None if place is None else str(place) if question is None else f"{place}:{question}"


def episodic(
    file: str = "",
    *,
    owner: str = "",
    lifetime: Lifetime = "agent",
    shown: int = 2,
    half_life_days: float = 30.0,
    tools: bool = False,
    vectors: str = "",
    max_items: int = 10_000,
    max_mb: int = 256,
) -> EpisodicMemory:
    """Past attempts of one `owner`, in a `file` or in this process; the `shown` most like the task open each attempt.

    Likeness is halved for each `half_life_days` of age. Beyond `max_items` or `max_mb`, episodes of attempts that were
    repeated are deleted first, then the oldest.
    `vectors` names an embedding model, such as `minilm`: items are then found by their meaning too.
    """
    policy = KeepingPolicy(
        "episodic",
        _one_for_each_question,
        half_life_days=max(half_life_days, 1e-6),
        bounds=bounds_of(max_items, max_mb),
    )
    return EpisodicMemory(
        policy,
        opened_file(file),
        owner=owner,
        lifetime=lifetime,
        vectors=vectors_of(vectors),
        shown=shown,
        offer_tools=tools,
    )
