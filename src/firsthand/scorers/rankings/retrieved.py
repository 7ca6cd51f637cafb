"""The documents that an attempt retrieved, read from its trace: their ranking, and the passages its answer was based on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from firsthand.message import Json
from firsthand.scorers.rankings.ranking_metrics import first_of_each
from firsthand.trace import Trace

RETRIEVE = "retrieve"
"""The name of the tool call that a read of an index is in traces (`retrieval/rag_effect.py`)."""
RECORD_FILES = (".jsonl", ".ndjson", ".json")
"""Files whose records are documents, named FILE:ID (`retrieval/documents/json_reader.py`)."""
RANKING = "ranking"
"""The event by which a pattern states its final ranking, where it puts several reads together."""


@dataclass(frozen=True)
class RetrievedPassage:
    """A passage that an attempt was given by a retrieval."""

    document: str
    text: str
    score: float


def passages(trace: Trace) -> list[RetrievedPassage]:
    """Returns the passages of all retrievals of an attempt, in order, each once; empty if it retrieved nothing."""
    found: dict[tuple[str, int, str], RetrievedPassage] = {}
    for call in trace.calls:
        if call.kind == "tool" and call.detail.get("name") == RETRIEVE and not call.error:
            for item in call.detail.get("items", ()):
                if "score" not in item:  # of a read that finds no passages, as of where a citation stands
                    continue
                passage = _passage(item)
                found.setdefault((passage.document, int(item.get("start", 0)), passage.text), passage)
    return list(found.values())


def ranking(trace: Trace) -> list[str]:
    """Returns the ids of retrieved documents, best first, each at the place of its best chunk.

    The last ranking that the pattern stated, in which equal scores rank by falling id, as in trec_eval; without one, the
    passages in the order in which they were retrieved.
    """
    stated = [event.data for event in trace.events if event.kind == RANKING]
    if stated:
        documents = [str(each) for each in stated[-1].get("documents", ())]
        return first_of_each(_with_ties_by_id(documents, stated[-1].get("scores")))
    return first_of_each(each.document for each in passages(trace))


def record_id(document: str) -> str:
    """Returns the id that a record has in its file: owl for `birds/corpus.jsonl:owl`; any other id as it is."""
    at = document.find(":")
    while at >= 0:
        if document[:at].lower().endswith(RECORD_FILES) and document[at + 1 :]:
            return document[at + 1 :]
        at = document.find(":", at + 1)
    return document


def _with_ties_by_id(documents: Sequence[str], scores: object) -> Sequence[str]:
    """The documents, neighbours of one score by falling id; as they are unless each has a score."""
    if not isinstance(scores, list) or len(scores) != len(documents):
        return documents
    places = groupby(range(len(documents)), key=scores.__getitem__)
    return [each for _, tied in places for each in sorted((documents[place] for place in tied), reverse=True)]


def _passage(item: Json) -> RetrievedPassage:
    heading, text = str(item.get("heading", "")), str(item.get("text", ""))
    return RetrievedPassage(str(item["document"]), f"{heading}\n{text}" if heading else text, float(item["score"]))
