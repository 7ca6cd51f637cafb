"""Remove documents from an index, with their chunks, terms and vectors; their files stay as they are.

What is removed is overwritten, its words too, so that the index can be handed on. An unfinished index of `firsthand rag
reindex` that lies beside it loses them as well."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from firsthand.errors import ConfigError, UnknownName, nearest
from firsthand.system.terminal import console

EXAMPLES = """
firsthand rag delete notes/old.md --index docs
"""


@dataclass(frozen=True)
class Config:
    """The documents, and the index."""

    documents: tuple[str, ...] = field(default=(), metadata={"positional": True})
    """Ids of documents, as `firsthand rag status --documents` lists them."""
    index: Path = Path()
    """The folder that was indexed, or the index's file."""

    def __post_init__(self) -> None:
        if not self.documents:
            raise ConfigError("delete needs a document's id, as in: firsthand rag delete notes/old.md --index docs")


def run(config: Config) -> int:
    """Remove them all, or none if one is not there."""
    from firsthand.retrieval.corpus import check_index, index_file
    from firsthand.retrieval.reindex import delete_unfinished
    from firsthand.retrieval.store.sqlite_index import open_index

    check_index(config.index)
    path = index_file(config.index)
    with closing(open_index(path)) as index:
        known = index.hashes()
        for each in config.documents:
            if each not in known:
                close = nearest(each, known)
                hint = f"did you mean {close!r}?" if close else "`firsthand rag status --documents` lists them"
                raise UnknownName(f"no document {each[:200]!r} in the index; {hint}")
        delete_unfinished(path, config.documents)  # first: if that fails, the same command can be given again
        for each in index.delete(config.documents):
            console().print(f"removed {each}", markup=False, soft_wrap=True)
        index.overwrite_deleted()
    return 0
