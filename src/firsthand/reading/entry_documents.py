"""The reading list and this package's documentation as documents of an index."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from firsthand.errors import ConfigError
from firsthand.reading.reading_list import ReadingEntry, parts_of, reading_list, section_titles
from firsthand.retrieval.chunking.chunkers import open_chunker
from firsthand.retrieval.document import Document
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.system.home import data_home

LIST = "list"
"""The folder name of the entries in an index, and so the beginning of their ids."""
DOCS = "docs"
"""The folder name of the documentation."""
LEFT_OUT = ("reading-list.md", "reading-questions.md", "tour.md", "claims-measured.md", "reference/*")
"""Pages that repeat the list or what it is asked, and pages that are made from docstrings."""
PASSAGES = "markdown:size=800:overlap=0"
"""The chunker of passages; they do not overlap, so that each sentence is in one of them."""
_PACKAGED = Path(__file__).parent / DOCS
_CHECKOUT = Path(__file__).parents[3] / DOCS


def rendered(entry: ReadingEntry) -> str:
    """The entry as a page of Markdown, as it is indexed and shown."""
    lines = [f"# {entry.title}", "", entry.summary, ""]
    lines += [f"{label}: {value}" for label, value in _facts(entry) if value]
    if entry.gap:
        lines += ["", f"Not implemented: {entry.gap}"]
    return "\n".join(lines) + "\n"


def write_entries(folder: Path) -> None:
    """Writes a Markdown file for each entry into a folder, and removes those of entries that are gone."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {f"{entry.id}.md": rendered(entry) for entry in reading_list()}
    for path in folder.glob("*.md"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def docs_folder(folders: Sequence[Path] = (_PACKAGED, _CHECKOUT)) -> Path:
    """The folder of this package's documentation: in the installed package, or in the checkout it is imported from.

    ConfigError if neither has it.
    """
    for folder in folders:
        if (folder / "glossary.md").is_file():
            return folder
    raise ConfigError(
        "the documentation is not beside this installation: install the package from its wheel or a checkout, or give "
        "the folder with --docs"
    )


def passages(docs: Path | None = None) -> list[Document]:
    """Entries and documentation cut into passages, each a document `list/ID.md:LINE` or `docs/PAGE.md:LINE`."""
    chunk = open_chunker(PASSAGES).chunk
    made: list[Document] = []
    for document in [*_entries(), *_pages(docs or docs_folder())]:
        for piece in chunk(document):
            line = document.location(piece.start).label
            made.append(Document(f"{document.id}:{line}", piece.text, piece.heading, document.id))
    return made


def list_folder() -> Path:
    """The folder in the data home that the entries are written to before they are indexed."""
    return data_home() / "reading" / LIST


def list_index() -> Path:
    """The index that `firsthand papers index` makes unless it is told another."""
    return data_home() / "reading" / "papers.index"


def check_list_index(path: Path) -> None:
    """ConfigError if there is no index at the path, or one of other documents than the list."""
    if not path.exists():
        raise ConfigError(f"no index at {path}: `firsthand papers index` makes it, in a minute or two")
    with closing(open_index(path, read_only=True)) as index:
        if not any(id.startswith(f"{LIST}/") for id in index.hashes()):
            raise ConfigError(
                f"{path} is an index of other documents and holds no entry of the list: ask it by `firsthand rag ask`, or "
                "leave --index out"
            )


def page_of(passage: str) -> str:
    """The document that a passage is part of."""
    return passage.rpartition(":")[0]


def _entries() -> list[Document]:
    return [Document(f"{LIST}/{entry.id}.md", rendered(entry), meta={"kind": "markdown"}) for entry in reading_list()]


def _pages(folder: Path) -> list[Document]:
    return [
        Document(f"{DOCS}/{path.relative_to(folder).as_posix()}", path.read_text("utf-8"), meta={"kind": "markdown"})
        for path in page_files(folder)
    ]


def page_files(docs: Path | None = None) -> list[Path]:
    """The pages of the documentation but the reference, which is made from the code."""
    folder = docs or docs_folder()
    names = {path: path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.md"))}
    return [path for path, name in names.items() if name not in LEFT_OUT and not name.startswith("reference/")]


def _facts(entry: ReadingEntry) -> list[tuple[str, str]]:
    return [
        ("Source", entry.source),
        ("Address", entry.link),
        ("Section", " > ".join(each for each in (section_titles()[entry.section], entry.group) if each)),
        ("Must-reads", "; ".join(each.title for each in parts_of(entry))),
        ("Names", ", ".join(each.replace(":", " ") for each in entry.names)),
        ("Code", ", ".join(f"src/firsthand/{each.replace('.', '/')}.py" for each in entry.modules)),
        ("Documentation", ", ".join(f"docs/{each}" for each in entry.docs)),
        ("Command", entry.command),
        ("Claims", ", ".join(entry.claims)),
    ]
