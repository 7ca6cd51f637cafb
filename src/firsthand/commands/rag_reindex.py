"""Make an index anew with another model or chunker, from the documents it holds, and swap it in when it is complete.

The old index is searched until then. Interrupted, the same command goes on where it ended.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand.system import interruption
from firsthand.system.plurals import count_of
from firsthand.system.terminal import complain, console, progress

if TYPE_CHECKING:
    from firsthand.retrieval.reindex import Reindexed

EXAMPLES = """
firsthand rag reindex docs --model minilm                # vectors for an index of terms alone
firsthand rag reindex docs --chunker sentences:size=500
"""


@dataclass(frozen=True)
class Config:
    """The index, and what is to change."""

    index: Path = field(default=Path(), metadata={"positional": True})
    """The folder that was indexed, or the index's file."""
    model: str | None = None
    """The embedder, or none for terms alone; by default the index's own."""
    chunker: str | None = None
    """The chunker with its options; by default the index's own."""
    query_prefix: str | None = None
    """Put before a query when it is embedded; by default the index's own with its own model."""
    document_prefix: str | None = None
    """Put before a chunk when it is embedded; by default the index's own with its own model."""


def run(config: Config) -> int:
    """Make the new index, and print what it took."""
    from firsthand.retrieval.corpus import check_index, index_file

    check_index(config.index)
    path = index_file(config.index)
    try:
        made = interruption.run(_made(config, path))
    except KeyboardInterrupt:
        complain("interrupted: the index is as it was, and the same command goes on with the new one")
        return 130
    words = f"{count_of(made.documents, 'document')}, {count_of(made.chunks, 'chunk')}"
    vectors = f"; vectors: {made.embedded} computed, {made.reused} there already" if made.embedded + made.reused else ""
    console().print(f"{path} was made anew: {words}{vectors}", markup=False, soft_wrap=True)
    return 0


async def _made(config: Config, path: Path) -> Reindexed:
    from firsthand.retrieval.index_settings import NONE, Asked, fresh
    from firsthand.retrieval.reindex import reindex
    from firsthand.retrieval.store.sqlite_index import open_index
    from firsthand.retrieval.stored_model import expect_chosen

    with closing(open_index(path, read_only=True)) as index:
        stored = index.header
    if config.model is None:
        expect_chosen(path, stored.embedder)
    keeps_model = config.model in (None, stored.embedder or NONE)
    asked = Asked(
        config.model or stored.embedder or NONE,
        config.chunker or stored.chunker,
        stored.query_prefix if config.query_prefix is None and keeps_model else config.query_prefix,
        stored.document_prefix if config.document_prefix is None and keeps_model else config.document_prefix,
    )
    with progress("the embedder", None, unit="bytes") as fetched:
        prepared = await fresh(asked, fetched)
    with closing(prepared), progress(f"making {path} anew", None) as update:
        return await reindex(path, prepared, lambda done, total: update(done, total))
