"""Small schedulers of the tests, without a model: sequences that wait or run, and a clock that only a test moves."""

from __future__ import annotations

from typing import Any

from firsthand.engine.core.scheduler import Scheduler
from firsthand.engine.core.sequence import Sequence
from firsthand.engine.core.step_plan import StepPlan
from firsthand.engine.memory.blocks import BlockPool


class Clock:
    """Time that only a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def scheduler(num_blocks: int = 16, *, size: int = 4, tokens: int = 12, most: int = 5, **more: Any) -> Scheduler:
    return Scheduler(BlockPool(num_blocks, size), max_batch_tokens=tokens, max_sequences=most, clock=Clock(), **more)


def sequence(id: int, count: int = 6, first: int | None = None, prompt: int | None = None, **fields: Any) -> Sequence:
    """Tokens are `first`, first + 1 and so on: texts of different ids share nothing unless they begin alike."""
    begin = 100 * id if first is None else first
    return Sequence(id, 0, list(range(begin, begin + count)), count if prompt is None else prompt, **fields)


def running(s: Scheduler, id: int, count: int = 6, computed: int | None = None, **fields: Any) -> Sequence:
    """A sequence that runs, with the blocks of its computed tokens (all but the last)."""
    made = sequence(id, count, **fields)
    made.arrived_s = s.clock()
    s._start(made)
    made.num_computed = count - 1 if computed is None else computed
    assert s.pool.extend(made.table, 0, made.num_computed) == []
    return made


def spans(plan: StepPlan) -> list[tuple[int, int, int]]:
    return [(chunk.sequence.request_id, chunk.start, chunk.end) for chunk in plan.chunks]
