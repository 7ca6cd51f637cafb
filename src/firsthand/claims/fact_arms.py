"""Facts in an index, and the two arms that answer from them: a reader with search, and a copy trained on the answers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from firsthand.claims.fact_language import Facts, Person, question, write_documents
from firsthand.claims.fact_models import Sample, answers
from firsthand.loop.concurrency import run_sync

if TYPE_CHECKING:
    from firsthand.nn.decoder import Decoder
    from firsthand.retrieval.retriever import Hit

Asked = Sequence[tuple[Person, str]]
"""Questions: a person and a relation each."""


class FactIndex:
    """The documents of facts, a file each, and their index of terms."""

    def __init__(self, folder: Path):
        self.folder = folder / "documents"
        self.path = folder / "facts.index"

    def update(self, facts: Facts) -> float:
        """Write the facts and bring the index up to date: CPU seconds of the index alone."""
        from firsthand.retrieval.chunk_index import IndexHeader
        from firsthand.retrieval.chunking.chunkers import open_chunker
        from firsthand.retrieval.ingest import ingest
        from firsthand.retrieval.store.sqlite_index import open_index

        write_documents(self.folder, facts)
        chunker, start = open_chunker("recursive"), time.process_time()
        index = open_index(self.path, IndexHeader("", "", 0, chunker.text))
        try:
            run_sync(ingest(self.folder, index, None, chunker.chunk))
        finally:
            index.close()
        return time.process_time() - start

    def search(self, asked: Asked) -> list[Hit]:
        """The best passage for each question, by BM25."""
        from firsthand.retrieval.corpus import open_corpus
        from firsthand.retrieval.retriever import Query
        from firsthand.retrieval.retrievers.searches import lexical

        found = lexical(open_corpus(self.path))

        async def all_of_them() -> list[Hit]:
            return [(await found(Query(question(*each)), 1))[0] for each in asked]

        return run_sync(all_of_them())


@contextmanager
def fact_index(facts: Facts) -> Iterator[FactIndex]:
    """An index of the facts in a folder that is removed afterwards."""
    from firsthand.retrieval.corpus import close_corpora

    with TemporaryDirectory() as folder:
        index = FactIndex(Path(folder))
        index.update(facts)
        try:
            yield index
        finally:
            close_corpora()


def read(model: Decoder, index: FactIndex, asked: Asked, *, before: str = "", words: int = 1) -> list[str]:
    """The RAG arm: an answer to each question from the passage that a search found, after a text such as examples."""
    hits = index.search(asked)
    prompts = [f"{before} {hit.chunk.text} {question(*each)}" for hit, each in zip(hits, asked, strict=True)]
    return answers(model, prompts, words)


def recalled(model: Decoder, asked: Asked, *, words: int = 1) -> list[str]:
    """The fine-tuning arm: an answer to each question without a passage."""
    return answers(model, [question(*each) for each in asked], words)


def closed_book(facts: Facts, form: str = "{} .") -> list[Sample]:
    """Questions with answers in a form, for training without passages."""
    return [Sample(question(*each), form.format(value)) for each, value in facts.items()]


def correct(given: Sequence[str], asked: Asked, facts: Facts) -> list[float]:
    """1 for each answer whose first word is the fact's value."""
    return [float(text.split()[0] == facts[each]) if text else 0.0 for text, each in zip(given, asked, strict=True)]
