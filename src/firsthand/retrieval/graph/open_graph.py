"""The graph of a corpus, read once for a process and again when its file or its index changed."""

from __future__ import annotations

import shlex
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from firsthand.errors import ConfigError
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import Vectors
from firsthand.retrieval.corpus import Corpus, check_index, index_file
from firsthand.retrieval.graph.graph_file import GraphFile, graph_path
from firsthand.retrieval.graph.graph_state import GraphState, entity_key, load_state, vectors_fault

_lock = threading.Lock()
_open: dict[str, tuple[Any, OpenGraph]] = {}


@dataclass(frozen=True)
class OpenGraph:
    """A graph with the vectors of its entities by position; empty if it was built without an embedder."""

    state: GraphState
    vectors: dict[int, Vectors]


def check_graph(index: str) -> None:
    """ConfigError if there is no index, or no graph of it."""
    check_index(index)
    if not (path := graph_path(index_file(index))).is_file():
        raise ConfigError(f"no graph at {str(path)!r}: make one with `firsthand rag graph {shlex.quote(index)}`")


def open_graph(corpus: Corpus, index: str) -> OpenGraph:
    """The graph of a corpus that was opened from `index`. ConfigError if it tells of chunks that were removed."""
    check_graph(index)
    path = graph_path(index_file(index)).resolve()
    with _lock:
        seen = _stamp(path), _stamp(index_file(index).resolve())
        known = _open.get(str(path))
        if known is None or known[0] != seen:
            known = _open[str(path)] = (seen, _read(path, corpus))
        return known[1]


def _read(path: Path, corpus: Corpus) -> OpenGraph:
    file = GraphFile(path)
    try:
        state = load_state(file, corpus.index)
        if fault := vectors_fault(file, state.graph, corpus.index.header):
            raise ConfigError(f"the graph {path} is not searched: {fault}")
        keys = [entity_key(entity, corpus.index.header) for entity in state.graph.entities]
        stored = file.vectors(keys)
    finally:
        file.close()
    dimension = corpus.index.header.dimension
    vectors = {
        place: np.asarray(stored[key], np.float32)
        for place, key in enumerate(keys)
        if key in stored and len(stored[key]) == dimension
    }
    return OpenGraph(state, vectors)


def _stamp(path: Path) -> tuple[tuple[int, int], ...]:
    """Changes when a file, or the log of its database, does."""
    found = []
    for each in (path, path.with_name(path.name + "-wal")):
        status = each.stat() if each.exists() else None
        found.append((0, 0) if status is None else (status.st_mtime_ns, status.st_size))
    return tuple(found)


def chunks_of(corpus: Corpus, ids: list[str]) -> dict[str, Chunk]:
    """The chunks of these ids."""
    return {id: corpus.index.chunk(id) for id in ids}
