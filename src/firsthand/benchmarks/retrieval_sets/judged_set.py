"""A judged set: documents, queries, and which documents are relevant to each query, as a Benchmark of retrieval.

A task is a query. It names its corpus in `metadata["corpus"]`, a benchmark with options, whose module has a function
`corpus` that returns the documents; patterns that retrieve index them once (`retrieval/benchmark_corpus.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from firsthand.benchmark import Benchmark
from firsthand.errors import DataError
from firsthand.retrieval.document import Document
from firsthand.scorers.ranking import RANKING_SCORERS
from firsthand.task import Task


@dataclass(frozen=True)
class JudgedSet:
    """Queries with judgements, and the ids of the documents they are about."""

    queries: Mapping[str, str]
    """Id -> text, of the judged queries alone, in the order of the file."""
    judgements: Mapping[str, Mapping[str, int]]
    """Query id -> document id -> relevance."""
    origin: str
    """The source it was read from, for the protocol."""
    left_out: int = 0
    """Queries that are judged and have no relevant document: trec_eval counts 0 for each of them."""


def check_judged(found: JudgedSet, documents: Sequence[Document] | None = None) -> None:
    """DataError if a judged query has no text, no query is left, or a relevant document is not in the corpus."""
    if not found.queries:
        raise DataError(f"{found.origin} has no judged query: are queries and judgements of the same set?")
    if documents is not None:
        ids = {each.id for each in documents}
        for query, judged in found.judgements.items():
            for id, relevance in judged.items():
                if relevance > 0 and id not in ids:
                    raise DataError(f"{found.origin}: document {id!r} is judged for query {query!r} and is not there")


def judged(queries: Mapping[str, str], judgements: Mapping[str, Mapping[str, int]], origin: str) -> JudgedSet:
    """Returns the queries that have a relevant document, with their judgements. DataError if one has no text.

    Queries without judgements are left out, as trec_eval leaves them out of its means; those whose judgements are all 0,
    which it counts as 0, are left out too, and counted.
    """
    relevant = {id: marks for id, marks in judgements.items() if any(mark > 0 for mark in marks.values())}
    if missing := next((id for id in relevant if not queries.get(id, "").strip()), None):
        raise DataError(f"{origin}: query {missing!r} has judgements and no text")
    kept = {id: text for id, text in queries.items() if id in relevant}
    return JudgedSet(kept, relevant, origin, left_out=len(judgements) - len(relevant))


def retrieval_benchmark(
    name: str,
    corpus: str,
    read: Callable[[], JudgedSet],
    *,
    description: str,
    protocol: str,
    licence: str,
    own_document: bool = True,
) -> Benchmark:
    """Returns the benchmark whose tasks are the set's queries; `corpus` names it for patterns that retrieve.

    Without `own_document`, a document that has the query's id and is not judged for it is left out of its rankings.
    """
    found = read()
    check_judged(found)
    tasks = [
        Task(
            id=f"query-{id}",
            prompt=text,
            metadata={"corpus": corpus},
            secret={
                "judgements": dict(found.judgements[id]),
                **({} if own_document or id in found.judgements[id] else {"left_out": [id]}),
            },
        )
        for id, text in found.queries.items()
    ]
    marks = sum(len(each) for each in found.judgements.values())
    left = f"; queries without a relevant document, left out: {found.left_out:,}" if found.left_out else ""
    return Benchmark(
        name=name,
        tasks=lambda seed: tasks,
        scorers=RANKING_SCORERS,
        description=description,
        protocol=f"{found.origin}; {len(tasks):,} queries, {marks:,} judgements{left}; {protocol}",
        licence=licence,
        options={"data": found.origin},
    )
