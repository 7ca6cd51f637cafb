"""RAG patterns over three short documents under a scripted model: what each searches for, and how often."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.claims.lab import Lab
from firsthand.loop.concurrency import run_sync
from firsthand.message import Message
from firsthand.model import Sampling
from firsthand.providers.scripted import Scripted
from firsthand.retrieval.rag_effect import retrievals
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.trace import Trace

TEXTS = {
    "mill.md": "The mill was built in 1871.\nIt burned down in 1902.\nThe owner was Ana Karel.\n",
    "karel.md": "Ana Karel was born in Tesk.\nAna Karel had two sons.\n",
    "tesk.md": "Tesk lies in Norland.\nTesk has 12 bridges.\n",
}
QUESTION = "When was the mill built?"


def answered(
    lab: Lab,
    pattern: str,
    replies: Mapping[str, str],
    *,
    score: Callable[[str, str], float] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Trace:
    """The attempt of a RAG pattern at QUESTION; `replies` are by a word of the last message, `""` for any other.

    `settings` are options of the pattern besides its index.
    """

    def reply(messages: Sequence[Message], sampling: Sampling, index: int) -> str:
        said = messages[-1].text
        return next(text for key, text in replies.items() if key in said)

    model = Scripted(reply, name="scripted:reader", score=score or (lambda prompt, word: -1.0))
    function, _ = catalog.pattern(pattern)
    options: dict[str, Any] = {"index": str(_index(lab)), **(settings or {})}
    trace = run_sync(rollout(Agent(pattern, model, function, options), Task("1", QUESTION), seed=lab.seed))
    if trace.error is not None:
        raise AssertionError(trace.error.message)
    return trace


def searches(trace: Trace) -> list[str]:
    """The queries of an attempt, in order."""
    return [str(query) for call, _ in retrievals(trace) for query in _queries(call.detail) if query]


def _queries(detail: Mapping[str, Any]) -> list[Any]:
    given = detail.get("arguments") or detail.get("request") or {}
    found = given.get("queries") or given.get("query") or detail.get("query") or ""
    return list(found) if isinstance(found, list | tuple) else [found]


def _index(lab: Lab) -> Path:
    """An index of the texts with vectors, made once in the lab's folder."""
    index = lab.folder / "mill.index"
    if not index.exists():
        lab.path("minilm")
        folder = lab.folder / "mill"
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in TEXTS.items():
            (folder / name).write_text(text, encoding="utf-8")
        unfinished = lab.folder / f"mill-{os.getpid()}.index"
        run_sync(_filled(folder, unfinished))
        unfinished.replace(index)
    return index


async def _filled(folder: Path, path: Path) -> None:
    from firsthand.providers.local_embedder import open_embedder
    from firsthand.retrieval.chunk_index import IndexHeader
    from firsthand.retrieval.chunking.chunkers import open_chunker
    from firsthand.retrieval.ingest import ingest
    from firsthand.retrieval.store.sqlite_index import open_index

    embedder, chunker = open_embedder("minilm"), open_chunker("auto")
    dimension = len((await embedder.embed(["dimension"]))[0])
    index = open_index(path, IndexHeader("minilm", embedder.fingerprint, dimension, chunker.text))
    try:
        await ingest(folder, index, embedder, chunker.chunk)
    finally:
        index.close()
