"""Read a folder into an index, or bring its index up to date; what could not be read is named.

Text, Markdown, HTML, code, CSV, JSONL, DOCX, EPUB and notebooks are read as they are; PDF, and text that is not UTF-8, need
`pip install 'firsthand[rag]'`. The exit code is 3 if a file failed; the others are in the index.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections import defaultdict
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from firsthand.errors import ConfigError
from firsthand.retrieval.chunk_index import IndexHeader, IngestReceipt
from firsthand.system import interruption
from firsthand.system.plurals import count_of
from firsthand.system.terminal import complain, console, one_line, print_as_json, progress

if TYPE_CHECKING:
    from firsthand.retrieval.store.sqlite_index import SqliteIndex

EXAMPLES = """
firsthand rag index docs                                # then: firsthand rag ask "..." --index docs
firsthand rag index docs --model none                   # terms alone: no model is needed
firsthand rag index papers notes --index library.index  # several folders
firsthand rag index docs --include '*.md' --exclude 'drafts/*'
firsthand rag index docs --chunker recursive:size=600:overlap=60
firsthand rag index build-2/docs --index i.db --moved-from build-1/docs  # a folder that was made anew elsewhere
firsthand rag index docs --ann yes                      # the approximate side file at any size
firsthand rag index corpus.jsonl --index corpus.index --text-field abstract
"""


@dataclass(frozen=True)
class Config:
    """The folder, the index, and the settings of a new one."""

    sources: tuple[str, ...] = field(default=(), metadata={"positional": True})
    """Folders or files."""
    index: Path | None = None
    """The index's file; of one folder, .firsthand-index inside it."""
    model: str | None = None
    """The embedder: minilm, a model's folder, or none for terms alone; by default the index's own, minilm for a new one."""
    chunker: str | None = None
    """The chunker with its options; by default the index's own, auto for a new one. `firsthand list chunkers` shows all."""
    include: tuple[str, ...] = field(default=(), metadata={"repeated": True})
    """Only files that a pattern fits, such as '*.md'; may be given again."""
    exclude: tuple[str, ...] = field(default=(), metadata={"repeated": True})
    """No files that a pattern fits; may be given again."""
    text_field: str | None = None
    """The field of a JSON document's text; by default text, contents, content or body."""
    title_field: str | None = None
    """The field of a JSON document's title, or the column of a table's titles."""
    id_field: str | None = None
    """The field of a JSON document's id; by default id, _id, or the number of its line."""
    max_file_bytes: int = 100_000_000
    """Larger files fail."""
    parse_seconds: float = 60.0
    """The longest that the parser of a PDF, DOCX or EPUB may take."""
    query_prefix: str | None = None
    """Put before a query when it is embedded; E5 and BGE models have theirs by default."""
    document_prefix: str | None = None
    """Put before a chunk when it is embedded."""
    ann: Literal["auto", "yes", "no"] = "auto"
    """The approximate side file, which searches use from a million chunks on: made where it is needed and faiss is installed
    (auto), made now, or not made."""
    moved_from: tuple[str, ...] = field(default=(), metadata={"repeated": True})
    """A folder that is gone, and whose files are in the given one now: they replace its documents, however many of them
    changed; what it had and the given one lacks is removed. May be given again."""
    keep_removed: bool = False
    """Keep documents whose files are gone."""
    json: bool = False
    """Print the receipt as JSON for programs."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("index needs a folder, as in: firsthand rag index docs")


def run(config: Config) -> int:
    """Bring the index up to date and print the receipt."""
    from firsthand.retrieval.index_settings import index_path

    sources = [Path(each) for each in config.sources]
    path = index_path(sources, config.index)
    done: list[str] = []
    try:
        header, receipt, chunks, note = interruption.run(_index(config, sources, path, done))
    except KeyboardInterrupt:
        complain(f"interrupted{''.join(done[-1:])}: the same command goes on with the rest")
        return 130
    if config.json:
        body = asdict(receipt) | {"index": str(path), "chunks": chunks, "header": asdict(header), "note": note}
        body |= {key: [list(each) for each in body[key]] for key in ("failed", "notes")}
        print_as_json(body)
    else:
        if note:
            later = (
                ""
                if header.embedder
                else f"; `firsthand rag reindex {shlex.quote(str(path))} --model {_MODEL}` adds vectors later"
            )
            complain(f"{note}{later}")
        _print(receipt, header, chunks, path)
    return 3 if receipt.failed else 0


_MODEL = "minilm"


async def _index(
    config: Config, sources: list[Path], path: Path, done: list[str]
) -> tuple[IndexHeader, IngestReceipt, int, str]:
    """The header, the receipt, the number of chunks, and a note; `done` gets what an interruption would say."""
    from firsthand.retrieval.corpus import INDEX_NAME
    from firsthand.retrieval.documents.file_content import ReadSettings
    from firsthand.retrieval.documents.folder_files import FolderFilter, expect_files
    from firsthand.retrieval.index_settings import Asked, prepare
    from firsthand.retrieval.ingest import IngestProgress, index_files, ingest
    from firsthand.retrieval.store.sqlite_index import open_index

    asked = Asked(config.model, config.chunker, config.query_prefix, config.document_prefix)
    chosen = FolderFilter(config.include, config.exclude)
    settings = ReadSettings(
        config.max_file_bytes, config.parse_seconds, text_field=config.text_field, title_field=config.title_field,
        id_field=config.id_field,
    )  # fmt: skip
    own_files = [each for at in (path, *(source / INDEX_NAME for source in sources)) for each in index_files(at)]
    if not path.exists():
        expect_files(sources, chosen, own_files)
    with progress("the embedder", None, unit="bytes", shown=not config.json) as fetched:
        prepared = await prepare(path, asked, fetched)
    with (
        closing(prepared),
        closing(open_index(path, prepared.header)) as index,
        progress(f"indexing {', '.join(config.sources)}", None, unit="bytes", shown=not config.json) as update,
    ):

        def tell(state: IngestProgress) -> None:
            update(
                state.bytes_done, state.total_bytes, f"{state.files}/{state.total_files} files, {state.chunks} chunks"
            )
            told = count_of(state.documents, "document")
            done[:] = [f" with {told} of {count_of(state.total_files, 'file')} in {path}"]

        def tell_renewed(chunks: int, total: int) -> None:
            done[:] = [
                f" with the words of {chunks} of {count_of(total, 'chunk')} of an older version renewed in {path}"
            ]
            renewing(chunks, total, "")

        if index.needs_renewal():
            with progress(
                "renewing the words of an older index", None, unit="chunks", shown=not config.json
            ) as renewing:
                await asyncio.to_thread(index.renew_words, tell_renewed)
        receipt = await ingest(
            [*sources], index, prepared.embedder, prepared.chunk, settings=settings, chosen=chosen,
            own_files=own_files, moved_from=[Path(each) for each in config.moved_from], on_progress=tell,
            removes=not config.keep_removed,
        )  # fmt: skip
        note = await asyncio.to_thread(_build_ann, index, config.ann)
        return prepared.header, receipt, len(index), prepared.note or note


def _build_ann(index: SqliteIndex, wanted: str) -> str:
    """Make the approximate side file where it is wanted; returns what a person should know, or nothing."""
    from firsthand.errors import MissingExtra

    if wanted == "yes":
        index.build_ann()
    elif wanted == "auto" and index.needs_ann():
        try:
            index.build_ann()
        except MissingExtra as error:
            return f"searches are exact and take time with so many chunks: {error}"
    return ""


def _print(receipt: IngestReceipt, header: IndexHeader, chunks: int, path: Path) -> None:
    out = console()
    counts = {
        "added": receipt.added, "updated": receipt.updated, "unchanged": receipt.unchanged, "removed": receipt.removed,
        "failed": receipt.failed,
    }  # fmt: skip
    said = ", ".join(f"{len(ids)} {what}" for what, ids in counts.items() if ids) or "nothing to index"
    out.print(f"documents: {said}", markup=False, soft_wrap=True)
    if header.embedder and (receipt.embedded or receipt.reused):
        out.print(f"vectors: {receipt.embedded} computed, {receipt.reused} there already", markup=False, soft_wrap=True)
    _print_grouped("notes", receipt.notes)
    _print_grouped("failed", receipt.failed)
    kind = f"{header.embedder}, {header.dimension} dimensions" if header.embedder else "terms alone"
    out.print(f"index: {path} ({count_of(chunks, 'chunk')}, {kind}, {header.chunker})", markup=False, soft_wrap=True)
    sys.stdout.flush()


def _print_grouped(title: str, pairs: tuple[tuple[str, str], ...]) -> None:
    """Print reasons, each with the files it holds for."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name, reason in pairs:
        groups[reason].append(name)
    out = console()
    for reason, names in groups.items():
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        out.print(one_line(f"{title}: {', '.join(names[:5])}{more}: {reason}"), markup=False, soft_wrap=True)
