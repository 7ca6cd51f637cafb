"""Recount everything in an index and print its faults; the exit code is 1 if there are any.

Where there is an approximate side file, its recall is measured and printed.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from firsthand.retrieval.store.ann_file import AnnReport
from firsthand.retrieval.store.index_search import ANN_ROWS
from firsthand.system.plurals import count_of
from firsthand.system.terminal import complain, console

EXAMPLES = """
firsthand rag verify docs
"""


@dataclass(frozen=True)
class Config:
    """The index."""

    index: Path = field(default=Path(), metadata={"positional": True})
    """The folder that was indexed, or the index's file."""


def run(config: Config) -> int:
    """Print a sentence for each fault."""
    from firsthand.retrieval.corpus import check_index, index_file
    from firsthand.retrieval.graph.graph_file import GraphFile, graph_path
    from firsthand.retrieval.graph.graph_state import verify_graph
    from firsthand.retrieval.store.sqlite_index import open_index

    check_index(config.index)
    path = index_file(config.index)
    with closing(open_index(path, read_only=True)) as index:
        faults = index.verify()
        if graph_path(path).is_file():
            with closing(GraphFile(graph_path(path))) as graph:
                faults += verify_graph(graph, index)
        documents, chunks = len(index.hashes()), len(index)
        ann = index.ann_report()
    for fault in faults:
        complain(fault)
    if not faults:
        counts = f"{count_of(documents, 'document')}, {count_of(chunks, 'chunk')}"
        console().print(f"{path} is sound: {counts}", markup=False, soft_wrap=True)
    if ann is not None:
        console().print(_told(ann), markup=False, soft_wrap=True)
    return 1 if faults else 0


def _told(ann: AnnReport) -> str:
    """The approximate side file in a sentence."""
    if find_spec("faiss") is None:
        return "approximate side file: not used, as faiss is not installed; pip install 'firsthand[ann]' adds it"
    if ann.recall is None:
        return (
            "approximate side file: not used, as it is of other chunks; `firsthand rag index DIR --ann yes` renews it"
        )
    used = "" if ann.chunks >= ANN_ROWS else f"; searches are exact below {ANN_ROWS:,} chunks and do not use it"
    return (
        f"approximate side file: {ann.covered:,} of {count_of(ann.chunks, 'chunk')}, recall@{ann.k} {ann.recall:.3f} "
        f"(nearest others of {count_of(ann.queries, 'stored vector')}){used}"
    )
