"""Scores received traces by any scorer or judge, a sample of them, once they are complete.

A trace counts as complete when its root has come and nothing has arrived for a while. The sample is drawn by the
trace's id, so the same traces are taken by every scorer and after every restart.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

from firsthand.benchmark import Scorer
from firsthand.errors import ConfigError
from firsthand.ingest.as_trace import question_of, trace_of
from firsthand.ingest.sent_scores import EVENT
from firsthand.ingest.trace_store import TraceStore
from firsthand.loop.journal import MemoryJournal
from firsthand.rollout import named_apart, verdict
from firsthand.task import Task

SETTLED_S = 10.0
"""A trace to which nothing was added for so long is complete."""
BACK_S = 86_400.0
"""Traces that arrived so long before are scored too, as after a restart."""
_MOST = 50


@dataclass(frozen=True)
class Evaluation:
    """The scorers of received traces."""

    scorers: tuple[tuple[str, Scorer], ...]
    """As typed, and the function."""
    share: float = 1.0
    """The share of traces that are scored, 0 to 1."""
    settled_s: float = SETTLED_S

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"sample is {self.share}: give a share of the traces above 0 and up to 1")
        by_name: dict[str, str] = {}
        for text, scorer in self.scorers:
            name = score_name(scorer)
            if name in by_name:
                raise ConfigError(
                    f"score has {by_name[name]!r} and {text!r}, whose scores have one name, {name!r}: give one of them,"
                    " or wrap the other in a function of another name (FILE.py:function)"
                )
            by_name[name] = text

    async def score_some(self, store: TraceStore, *, now_s: float | None = None) -> int:
        """Score up to _MOST traces by each scorer; returns the number of scores that were kept."""
        now = time.time() if now_s is None else now_s
        kept = 0
        for text, scorer in self.scorers:
            name = score_name(scorer)
            for trace in self._due(store, name, now):
                await self._score(store, trace, name, text, scorer)
                kept += 1
        return kept

    def _due(self, store: TraceStore, name: str, now: float) -> Sequence[str]:
        """Complete traces of the sample without this score, the oldest first."""
        rows = store.database.read(
            "SELECT trace FROM traces WHERE name_rank = 0 AND arrived_s BETWEEN ? AND ? AND NOT EXISTS"
            " (SELECT 1 FROM scores WHERE scores.trace = traces.trace AND scores.name = ? AND scores.scorer <> ?)"
            " ORDER BY arrived_s",
            (now - BACK_S, now - self.settled_s, name, EVENT),
        )
        return [trace for (trace,) in rows if is_sampled(trace, self.share)][:_MOST]

    async def _score(self, store: TraceStore, trace: str, name: str, text: str, scorer: Scorer) -> None:
        spans = store.spans(trace)
        if not spans:  # removed meanwhile
            return
        record = trace_of(trace, spans)
        task = Task(trace, question_of(spans), secret={"answer": ""})
        try:
            found, *further = named_apart(await verdict(scorer, task, record, MemoryJournal()))
        except Exception as error:  # a scorer of one's own may raise anything; the others go on
            store.add_score(trace, name, text, None, f"{type(error).__name__}: {error}"[:500])
            return
        for as_, each in (*((f"{name}.{part.name}", part) for part in further), (name, found)):
            store.add_score(trace, as_, text, None if each.failed else float(each.value), each.failure, each.detail)


def score_name(scorer: Scorer) -> str:
    """The name of a scorer's scores."""
    return str(getattr(scorer, "name", getattr(scorer, "__name__", "score")))


def is_sampled(trace: str, share: float) -> bool:
    """True for this share of all ids, decided by the id alone."""
    return int.from_bytes(hashlib.sha256(trace.encode()).digest()[:8], "big") < share * 2**64
