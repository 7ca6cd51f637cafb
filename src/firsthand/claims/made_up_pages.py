"""An index over the pages of a made-up town, which no model has read, and questions about them: for claims about RAG."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.closed_world import make_tasks, make_world
from firsthand.claims.lab import Lab
from firsthand.scorers.contained import contains_value
from firsthand.task import Task


def page_questions(seed: int, count: int, hops: int = 1) -> Benchmark:
    """`count` questions of `closed_world`; right is an answer that contains the name, so that a sentence may be one."""

    def tasks(drawn: int) -> list[Task]:
        return make_tasks(seed, (hops,), count)

    return Benchmark("made_up_pages", tasks, (contains_value,))


def page_index(lab: Lab) -> Path:
    """An index of the pages for search by words, made once a seed in the lab's folder."""
    path = lab.folder / f"pages-{lab.seed}.index"
    if not path.exists():
        lab.folder.mkdir(parents=True, exist_ok=True)
        unfinished = lab.folder / f"pages-{lab.seed}-{os.getpid()}.index"
        put_pages(unfinished, {name: facts["page"] for name, facts in make_world(lab.seed).items()})
        unfinished.replace(path)
    return path


def put_pages(path: Path, pages: Mapping[str, str]) -> None:
    """Puts pages into the index at a path, each as one passage; a page of the same name is replaced."""
    from firsthand.retrieval.chunk import Chunk
    from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
    from firsthand.retrieval.document import Document
    from firsthand.retrieval.store.sqlite_index import open_index

    index = open_index(path, IndexHeader("", "", 0, "whole"))
    try:
        index.put([IndexedDocument(Document(n, t), [Chunk(n, 0, len(t), t)], None) for n, t in pages.items()])
    finally:
        index.close()
