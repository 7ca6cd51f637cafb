"""Index the reading list, this package's documentation and your own PDFs of papers, to ask them questions.

PDF needs `pip install 'firsthand[rag]'`. Run it again after a change: only what changed is read. A file that cannot be read
is named, the others are indexed, and the exit code is 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from firsthand.errors import ConfigError

EXAMPLES = """
firsthand papers index                        # a minute or two: MiniLM embeds some 2,000 passages
firsthand papers index --pdfs papers          # with a folder of PDFs
firsthand papers index --model none           # terms alone, in some seconds
"""
UNREAD = ("*.png", "*.svg", "*.css")


@dataclass(frozen=True)
class Config:
    """The documents and the index."""

    pdfs: Path | None = None
    """A folder with PDFs, or other documents, of the papers."""
    docs: Path | None = None
    """The folder of this package's documentation, where it is not beside the installation."""
    index: Path | None = None
    """The index's file; by default one in the data home."""
    model: str | None = None
    """The embedder: minilm, a model's folder, or none for terms alone; minilm for a new index."""
    parse_seconds: float = 60.0
    """The longest that the parser of a PDF may take."""
    json: bool = False
    """Print the receipt as JSON for programs."""


def run(config: Config) -> int:
    """Write the entries, and bring the index up to date."""
    from firsthand.commands import rag_index
    from firsthand.reading.entry_documents import LEFT_OUT, docs_folder, list_folder, list_index, write_entries

    docs = config.docs or docs_folder()
    if not (docs / "glossary.md").is_file():
        raise ConfigError(f"{docs} is not the folder of the documentation: it has no glossary.md")
    if config.pdfs is not None and not config.pdfs.is_dir():
        raise ConfigError(f"{config.pdfs} is no folder: give the folder with the PDFs")
    index = config.index or list_index()
    index.parent.mkdir(parents=True, exist_ok=True)
    write_entries(list_folder())
    sources = [str(list_folder()), str(docs), *([str(config.pdfs)] if config.pdfs else [])]
    asked = rag_index.Config(
        tuple(sources), index=index, model=config.model, exclude=(*LEFT_OUT, *UNREAD),
        parse_seconds=config.parse_seconds, json=config.json,
    )  # fmt: skip
    return rag_index.run(asked)
