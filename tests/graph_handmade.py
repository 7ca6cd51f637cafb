"""A graph made by hand, of three levels: every number of a search over it can be worked out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.document import Document
from firsthand.retrieval.graph.graph_file import GraphFile, graph_path
from firsthand.retrieval.graph.graph_state import leaf_chunks
from firsthand.retrieval.graph.knowledge_graph import ExtractedEntity, ExtractedRelation, Extraction
from firsthand.retrieval.store.sqlite_index import SqliteIndex, open_index

TEXTS = {"one": "Ann met Bob.", "two": "Bob met Cid.", "three": "Dora met Emil.", "four": "Ann paid Cid."}
FOUND = {
    "one": ((("Ann", "person", "first"), ("Bob", "person", "a baker")), (("Ann", "Bob", "met", 2.0),)),
    "two": ((("Bob", "person", "a baker of bread"), ("Cid", "person", "")), (("Cid", "Bob", "met", 3.0),)),
    "three": ((("Dora", "person", "rich"), ("Emil", "geo", "far")), (("Dora", "Emil", "met", 4.0),)),
    "four": (
        (("Ann", "person", "first"), ("Cid", "person", "")),
        (("Ann", "Cid", "paid", 1.0), ("Ann", "Zoe", "?", 9.0)),
    ),
}
COMMUNITIES = [  # id, level, parent, members
    [0, 0, None, ["ANN", "BOB", "CID"]],
    [1, 0, None, ["DORA", "EMIL"]],
    [2, 1, 0, ["ANN", "BOB"]],
    [3, 1, 0, ["CID"]],
    [4, 2, 2, ["BOB"]],
]
REPORTS = {0: ("All three", 5.0), 1: ("Two far", 7.0), 2: ("A pair", 5.0), 4: ("The baker", 1.0)}
"""Title and rating by community; 3 has none."""


def report_of(title: str, rating: float) -> dict[str, Any]:
    return {
        "title": title,
        "summary": f"about {title}",
        "rating": rating,
        "findings": [["it is so", ""], ["why", "because"]],
    }


def report_text(community: int) -> str:
    title, _ = REPORTS[community]
    return f"# {title}\nabout {title}\n- it is so\n- why: because"


def handmade(folder: Path, texts: Sequence[str] = tuple(TEXTS), *, dimension: int = 0) -> tuple[Path, SqliteIndex]:
    """The index at a path, open, with its graph beside it; with a dimension, chunks have vectors."""
    path = folder / "hand.index"
    named = "ones" if dimension else ""
    index = open_index(path, IndexHeader(named, named, dimension, "whole"))
    rows = np.eye(1, dimension, dtype=np.float32) if dimension else None
    receipt = index.put(
        [IndexedDocument(Document(id, text), [Chunk(id, 0, len(text), text)], rows) for id, text in TEXTS.items()]
    )
    assert not receipt.failed, receipt.failed
    file = GraphFile(graph_path(path), create=True)
    for chunk in leaf_chunks(index):
        if chunk.document in texts:
            entities, relations = FOUND[chunk.document]
            made = Extraction(
                chunk.id,
                tuple(ExtractedEntity(*each) for each in entities),
                tuple(ExtractedRelation(*each) for each in relations),
            )
            file.keep(chunk, made)
    file.put_meta("reader", {"extractor": "model", "model": "m", "types": [], "gleanings": 0})
    for id, (title, rating) in REPORTS.items():
        file.put_text(f"key {id}", json.dumps(report_of(title, rating)))
    file.put_meta(
        "built",
        {
            "extractor": "model", "author": "m", "summary_tokens": 500, "phrases": None, "largest_component": False,
            "communities": COMMUNITIES, "reports": {str(id): f"key {id}" for id in REPORTS},
        },
    )  # fmt: skip
    file.close()
    return path, index
