"""BM25 of the index on SciFact's test claims (BEIR), against the published figure."""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
from pathlib import Path

import pytest

from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument
from firsthand.retrieval.document import Document
from firsthand.retrieval.store.sqlite_index import open_index
from index_tiny import TERMS_ONLY
from thorough import THOROUGH

SCIFACT = (
    Path(os.environ.get("FIRSTHAND_DATA") or Path(__file__).parents[2] / "shared" / "data") / "retrieval" / "scifact"
)


@pytest.mark.slow
@pytest.mark.skipif(not SCIFACT.is_dir(), reason="SciFact is not here")
@pytest.mark.skipif(not THOROUGH, reason="FIRSTHAND_THOROUGH alone runs it: tests/test_judged_sets.py has the figure")
def test_bm25_on_scifact_is_at_least_the_published_figure() -> None:
    """Anserini's flat BM25 has nDCG@10 .6789."""
    index = open_index(":memory:", TERMS_ONLY)
    with gzip.open(SCIFACT / "corpus.jsonl.gz", "rt") as file:
        bodies = [json.loads(line) for line in file]
    texts = [f"{body['title']}\n{body['text']}" for body in bodies]
    index.put(
        IndexedDocument(Document(str(body["_id"]), text), [Chunk(str(body["_id"]), 0, len(text), text)], None)
        for body, text in zip(bodies, texts, strict=True)
    )
    judged: dict[str, dict[str, int]] = {}
    for line in (SCIFACT / "qrels.test.trec").read_text().splitlines():
        query, _, document, grade = line.split()
        judged.setdefault(query, {})[document] = int(grade)
    with (SCIFACT / "queries.test.tsv").open() as file:
        queries = {row[0]: row[1] for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)}
    total = 0.0
    for query, grades in judged.items():
        found = [hit.chunk.document for hit in index.search_terms(queries[query], 10, {})]
        gain = sum(grades.get(id, 0) / math.log2(rank + 1) for rank, id in enumerate(found, 1))
        ideal = sum(
            grade / math.log2(rank + 1) for rank, grade in enumerate(sorted(grades.values(), reverse=True)[:10], 1)
        )
        total += gain / ideal
    assert len(judged) == 300 and index.verify() == []
    assert total / len(judged) >= 0.679
