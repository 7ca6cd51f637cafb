"""Show what an index holds: documents by kind, chunks, the model and the chunker it was made with."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

from firsthand.system.terminal import console, print_as_json, print_table

EXAMPLES = """
firsthand rag status docs
firsthand rag status docs --documents
firsthand rag status library.index --json
"""


@dataclass(frozen=True)
class Config:
    """The index."""

    index: Path = field(default=Path(), metadata={"positional": True})
    """The folder that was indexed, or the index's file."""
    documents: bool = False
    """List every document with its title and source."""
    json: bool = False
    """Print JSON for programs."""


def run(config: Config) -> int:
    """Print the counts and the header."""
    from firsthand.retrieval.chunk_index import outlines
    from firsthand.retrieval.corpus import check_index, index_file
    from firsthand.retrieval.reindex import unfinished_path
    from firsthand.retrieval.store.sqlite_index import open_index

    check_index(config.index)
    path = index_file(config.index)
    with closing(open_index(path, read_only=True)) as index:
        header = index.header
        kinds: Counter[str] = Counter()
        listed: list[tuple[str, str, str]] = []  # texts are not read
        for each in outlines(index):
            kinds[str(each.meta.get("kind", ""))] += 1
            if config.documents or config.json:
                listed.append((each.id, each.title, each.source))
        chunks = len(index)
    size = path.stat().st_size
    unfinished = unfinished_path(path)
    if config.json:
        print_as_json(
            {
                "index": str(path),
                "bytes": size,
                "documents": [dict(zip(("id", "title", "source"), each, strict=True)) for each in listed],
                "chunks": chunks,
                "kinds": kinds,
                "header": asdict(header),
                "unfinished": str(unfinished) if unfinished.exists() else None,
            }
        )
        return 0
    if config.documents:
        print_table(f"documents in {path}", ["id", "title", "source"], [list(each) for each in listed])
    embedder = (
        f"{header.embedder}, {header.dimension} dimensions ({header.fingerprint})"
        if header.embedder
        else "none: terms alone"
    )
    rows = [
        ["documents", f"{kinds.total()} ({', '.join(f'{count} {kind}' for kind, count in kinds.most_common())})"],
        ["chunks", str(chunks)],
        ["size", f"{size / 1e6:.1f} MB"],
        ["model", embedder],
        ["chunker", header.chunker],
    ]
    for name in ("query_prefix", "document_prefix"):
        if value := getattr(header, name):
            rows.append([name.replace("_", " "), repr(value)])
    if unfinished.exists():
        told = (
            f"{unfinished} of a reindex that runs or was interrupted: its command goes on with it, or remove the file"
        )
        rows.append(["unfinished", told])
    out = console()
    for name, value in rows:
        out.print(f"{name:<10} {value}", markup=False, soft_wrap=True)
    return 0
