"""Recount everything in an index and print its faults; the exit code is 1 if there are any."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

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
    from firsthand.retrieval.store.sqlite_index import open_index

    check_index(config.index)
    path = index_file(config.index)
    with closing(open_index(path, read_only=True)) as index:
        faults = index.verify()
        documents, chunks = len(index.hashes()), len(index)
    for fault in faults:
        complain(fault)
    if not faults:
        counts = f"{count_of(documents, 'document')}, {count_of(chunks, 'chunk')}"
        console().print(f"{path} is sound: {counts}", markup=False, soft_wrap=True)
    return 1 if faults else 0
