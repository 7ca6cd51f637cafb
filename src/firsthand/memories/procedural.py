"""Procedural memory: worked examples and skills learnt from successful traces, chosen by the task.

A skill is the question, the calls that led to the answer, and the answer. Of several successes at one task the shortest is
kept: fewest calls, then fewest tokens. Failed attempts, and those without a score, teach nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from firsthand.context import Context
from firsthand.memories.episodic import question_digest, question_of, steps_of
from firsthand.memories.keeping.conversation_window import shortened, shown_items, without_thoughts
from firsthand.memories.keeping.fenced_items import bounded_origins, origins_in, origins_of
from firsthand.memories.keeping.item_file import ItemFile
from firsthand.memories.keeping.item_vectors import ItemVectors
from firsthand.memories.keeping.opened_file import bounds_of, opened_file, vectors_of
from firsthand.memories.keeping.stored_memory import KeepingPolicy, StoredMemory
from firsthand.memory import Lifetime, MemoryItem
from firsthand.message import Json
from firsthand.task import Task
from firsthand.trace import Trace

NOTE = "Worked examples of earlier tasks like this one:"
MAX_ANSWER_CHARS = 2_000


def skill_of(trace: Trace, threshold: float = 1.0) -> MemoryItem | None:
    """The skill that an attempt shows: None unless its first score reaches the threshold and it may be published.

    A score of harm says of no attempt that it solved its task, and gives none.
    """
    score = trace.attempt_scores[0] if trace.attempt_scores else None
    asked = question_of(trace)
    if score is None or score.failure or score.is_harm or score.value < threshold:
        return None
    if not asked or trace.protected is not None:
        return None
    lines = [f"Task: {asked}", *steps_of(trace)]
    lines.append(f"Answer: {shortened(without_thoughts(trace.answer or ''), MAX_ANSWER_CHARS)}")
    calls = len(trace.calls)
    provenance: Json = {
        "skill": question_digest(trace),
        "trace": trace.id,
        "benchmark": trace.benchmark,
        "task": trace.task_id,
        "score": score.value,
        "calls": calls,
        "confidence": 1.0 / (1.0 + calls + trace.usage.completion_tokens / 1e6),
        "time": 0,
    }
    if origin := bounded_origins([*origins_of([node.message for node in trace.nodes]), *origins_in(trace.calls)]):
        provenance["origin"] = origin
    return MemoryItem.of("\n".join(lines), provenance)


def _skill_key(item: MemoryItem) -> str | None:
    """One skill for each question; of equal times the more confident holds, which is the shorter."""
    skill = item.provenance.get("skill")
    return None if skill is None else str(skill)


class ProceduralMemory(StoredMemory):
    """Skills. Its snapshots are plain StoredMemories."""

    def __init__(
        self,
        policy: KeepingPolicy,
        file: ItemFile | None = None,
        *,
        owner: str = "",
        lifetime: Lifetime = "agent",
        vectors: ItemVectors | None = None,
        shown: int = 2,
        threshold: float = 1.0,
    ):
        super().__init__(policy, file, owner=owner, lifetime=lifetime, vectors=vectors)
        self.shown, self.threshold = shown, threshold

    async def brief(self, ctx: Context, task: Task) -> Context:
        """The Context after the skills that fit the task, if there are any."""
        items = await ctx.recall(task.prompt, k=self.shown) if self.shown else []
        return ctx.say(shown_items(items, NOTE)) if items else ctx

    def learn(self, trace: Trace) -> Sequence[MemoryItem]:
        """The skill of a successful attempt."""
        skill = skill_of(trace, self.threshold)
        return () if skill is None else (skill,)


def procedural(
    file: str = "",
    *,
    owner: str = "",
    lifetime: Lifetime = "agent",
    shown: int = 2,
    threshold: float = 1.0,
    vectors: str = "",
    max_items: int = 10_000,
    max_mb: int = 256,
) -> ProceduralMemory:
    """Skills of one `owner`, in a `file` or in this process; the `shown` most like the task open each attempt.

    An attempt teaches one if its first score reaches the `threshold`. Beyond `max_items` or `max_mb` the oldest are deleted.
    `vectors` names an embedding model, such as `minilm`: items are then found by their meaning too.
    """
    policy = KeepingPolicy("procedural", _skill_key, bounds=bounds_of(max_items, max_mb))
    return ProceduralMemory(
        policy,
        opened_file(file),
        owner=owner,
        lifetime=lifetime,
        vectors=vectors_of(vectors),
        shown=shown,
        threshold=threshold,
    )
