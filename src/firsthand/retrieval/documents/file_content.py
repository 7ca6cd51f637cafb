"""FileContent: the documents that one file holds, with remarks; and the settings of reading."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from firsthand.errors import ConfigError, DataError
from firsthand.retrieval.document import Document
from firsthand.system.plurals import count_of


@dataclass(frozen=True)
class ReadSettings:
    """Limits of reading, and the fields of tables and JSON."""

    max_file_bytes: int = 100_000_000
    """Larger files are not read."""
    parse_seconds: float = 60.0
    """The longest that one file may be parsed, in a process of its own."""
    parse_memory_bytes: int = 2_000_000_000
    """The most memory of that process."""
    text_field: str | None = None
    """The field of a JSON document's text; by default the first of text, contents, content and body."""
    title_field: str | None = None
    """The field or column of the title; by default title, in JSON alone."""
    id_field: str | None = None
    """The field of a JSON document's id; by default the first of id and _id, else the number of the line."""

    def __post_init__(self) -> None:
        if self.max_file_bytes < 1:
            raise ConfigError(f"max_file_bytes is {self.max_file_bytes}: give 1 or more")
        if not 0 < self.parse_seconds <= 3600:
            raise ConfigError(f"parse_seconds is {self.parse_seconds:g}: give more than 0, and at most 3600")
        if self.parse_memory_bytes < 100_000_000:
            raise ConfigError(
                f"parse_memory_bytes is {self.parse_memory_bytes}: give at least 100000000, for the parser itself"
            )

    @property
    def fields(self) -> str:
        """The settings on which the text depends, as one text."""
        given = {"text": self.text_field, "title": self.title_field, "id": self.id_field}
        return ",".join(f"{key}={value}" for key, value in given.items() if value is not None)


@dataclass(frozen=True)
class FileContent:
    """The documents of a file."""

    documents: tuple[Document, ...]
    notes: tuple[str, ...] = ()
    """Remarks, such as the encoding that was guessed."""
    failed: tuple[tuple[str, str], ...] = ()
    """(id, reason) of each part that could not be read, while others could, such as a line of a JSONL file."""


class NoTextField(DataError):
    """A JSONL file of records of which none has a text, such as a log: in a folder it is left out, with a note."""


Reader = Callable[[bytes, str, ReadSettings], FileContent]
"""Reads the bytes of a file whose path below the indexed folder is the second argument. DataError if it cannot be read."""
MAX_TITLE_CHARS = 200


def first_heading(text: str) -> str:
    """The first `#` heading of a text's beginning, or nothing."""
    for line in text[:20_000].split("\n"):
        if line.lstrip().startswith("#") and (title := line.strip().lstrip("#").strip()):
            return title[:MAX_TITLE_CHARS]
    return ""


def hidden_text_note(chars: int) -> list[str]:
    """The remark on text that was left out since a reader does not see it, if there was any."""
    return [f"text that a reader does not see was left out: {count_of(chars, 'character', ',')}"] if chars else []
