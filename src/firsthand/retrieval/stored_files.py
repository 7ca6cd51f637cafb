"""The documents of an index by the files they were read from: which are here, gone, moved, or left out this time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.retrieval.chunk_index import ChunkIndex, outlines
from firsthand.retrieval.chunking.text_spans import FILE_META
from firsthand.retrieval.moved_folders import is_gone, moved_files, read_from


class StoredDocument(NamedTuple):
    """The stored facts of a document."""

    sha256: str
    source: str
    file: Json
    """The bytes it was read from: `sha256`, and `reader`, the format with its version and settings."""


@dataclass
class FilesRead:
    """The files of this ingest that were read so far."""

    hashes: dict[str, str] = field(default_factory=dict)
    """By path; empty for a file that could not be read."""
    whole: set[str] = field(default_factory=set)
    """The paths of files that were read without a failure."""
    moved: set[str] | None = None
    """The stored files of folders that moved to where they are read now; None until the other files are read."""


class StoredFiles:
    """The documents that an index has before an ingest, and the files that they were read from.

    Args:
        roots: The folders or files that are read now, resolved.
        moved_from: Folders that are said to have moved to them.
        takes: True for the path within a folder of a file that this ingest takes.
    """

    def __init__(self, roots: Set[Path], moved_from: Sequence[Path], takes: Callable[[str], bool]):
        self.roots, self.moved_from, self.takes = roots, moved_from, takes
        self.documents: dict[str, StoredDocument] = {}
        self.by_source: dict[str, list[str]] = {}
        """The ids of the documents of each file."""
        self.said: set[str] = set()
        """The stored files that are gone from the folders of `moved_from`."""

    def refuse_moved_from(self) -> None:
        """ConfigError if a folder of `moved_from` is there, or files are given in its place."""
        for folder in self.moved_from:
            if not is_gone(str(folder)):
                raise ConfigError(f"{folder} is there: --moved-from takes a folder that has moved or was deleted")
            if not all(root.is_dir() for root in self.roots):
                raise ConfigError(f"give the folder that {folder} moved to: --moved-from takes no files in its place")

    def read_index(self, index: ChunkIndex) -> list[Path]:
        """Read the documents of an index; returns the folders of `moved_from` that none of them was read from."""
        files: dict[str, Json] = {}
        for each in outlines(index):
            file = each.meta.get(FILE_META)
            mark = dict(file) if isinstance(file, dict) else {}
            mark = files.setdefault(f"{each.source}\0{mark}", mark)  # one for all documents of a file
            self.documents[each.id] = StoredDocument(each.sha256, each.source, mark)
            self.by_source.setdefault(each.source, []).append(each.id)
        unread = []
        for folder in self.moved_from:
            below = {source for source in self.by_source if Path(source).is_relative_to(folder)}
            self.said |= below
            unread += [] if below else [folder]
        return unread

    def below(self) -> Iterator[tuple[str, list[str]]]:
        """The stored files below the folders of this ingest, with their documents."""
        for source, ids in self.by_source.items():
            if self.is_below(source):
                yield source, ids

    def is_below(self, source: str) -> bool:
        """True if a file is below one of the folders of this ingest."""
        return any(Path(source).is_relative_to(root) for root in self.roots)

    def lost(self) -> int:
        """The number of documents that an ingest of an empty folder would remove."""
        sources = {*(source for source, _ in self.below()), *self.said}
        return sum(len(self.by_source[source]) for source in sources)

    def is_contested(self, id: str, source: str, read: FilesRead) -> bool:
        """True if the document of an id was read from a file elsewhere that is gone, of other bytes than the one at
        `source`, and not known to have moved here. Other documents, such as one of a URL, have no file."""
        known = self.documents.get(id)
        if known is None or not known.file or known.source == source or not is_gone(known.source):
            return False
        if self.is_below(known.source) or known.source in self.said or known.source in (read.moved or ()):
            return False
        return bool(known.file.get("sha256") != read.hashes[source])

    def moved(self, roots: Set[Path], read: FilesRead) -> set[str]:
        """The stored files of folders that moved to one of the roots, as they were named before."""
        files = {}
        for source, ids in self.by_source.items():
            first = next((id for id in ids if self.documents[id].file), "")
            files[source] = (first, self.documents[first].file["sha256"]) if first else ("", "")
        return moved_files(roots, files, read.hashes, self.takes)

    def gone(self, index_folders: Set[Path], read: FilesRead) -> set[str]:
        """The documents whose files are gone, those of a folder that moved with its index, or is said to, among them."""
        below = {source for source, _ in self.below()}
        moved = (self.moved(self.roots & index_folders, read) | self.said) - below
        ids = {id for source in below if is_gone(source) for id in self.by_source[source]}
        return ids | {id for source in moved for id in self.by_source[source] if not self.is_left_out(source, id, read)}

    def is_left_out(self, source: str, id: str, read: FilesRead) -> bool:
        """True if the file of a folder that moved is here, and was left out this time or could not be read whole."""
        places = [Path(source).relative_to(folder) for folder in read_from(Path(source), id)]
        here = [str(root / place) for root in self.roots for place in places]
        return any(path not in read.whole and not is_gone(path) for path in here)

    def not_read(self, read: FilesRead) -> Iterator[str]:
        """The documents of files below these folders that are there and were not read this time."""
        for source, ids in self.below():
            if source not in read.hashes and not is_gone(source):
                yield from (id for id in ids if self.documents[id].file)

    def left_out(self, read: FilesRead) -> Iterator[str]:
        """The documents of folders that are said to have moved whose files are here and were not read whole."""
        for source in sorted(self.said):
            yield from (id for id in self.by_source[source] if self.is_left_out(source, id, read))

    def elsewhere(self) -> Iterator[str]:
        """The documents of files that are not there and were in none of these folders."""
        here = {*(source for source, _ in self.below()), *self.said}
        for source, ids in self.by_source.items():
            if source and source not in here and is_gone(source):
                yield from (id for id in ids if self.documents[id].file)
