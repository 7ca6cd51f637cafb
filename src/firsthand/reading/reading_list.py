"""The reading list: an entry for each paper, idea, benchmark, board and blog, with links to module, page and command.

The entries are TOML files in `entries/`, one for each section of the list. Titles are those of the list; summaries are ours.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from firsthand.errors import DataError, UnknownName, nearest, unknown
from firsthand.message import Json

SECTIONS = ("papers", "internals", "patterns", "benchmarks", "leaderboards", "blogs", "safety", "production")
"""The sections in the order of the list; each is a file in `entries/`."""
_FOLDER = Path(__file__).parent / "entries"
_ARXIV = re.compile(r"\d{4}\.\d{4,5}")


@dataclass(frozen=True)
class ReadingEntry:
    """One row of the list."""

    id: str
    section: str
    """Its file in `entries/`, one of SECTIONS."""
    title: str
    """The title in the list."""
    summary: str
    """One sentence."""
    modules: tuple[str, ...]
    """Modules that implement it, below `firsthand`."""
    docs: tuple[str, ...]
    """Pages below `docs/`, with anchors, as in `engine.md#scheduling`."""
    command: str
    """A command line that shows it."""
    authors: str = ""
    year: int = 0
    venue: str = ""
    arxiv: str = ""
    doi: str = ""
    url: str = ""
    names: tuple[str, ...] = ()
    """Things of the catalog, as in `pattern:react`; boards too."""
    claims: tuple[str, ...] = ()
    """Claims that test it, as `firsthand claims` names them."""
    group: str = ""
    """Heading within the section."""
    part_of: str = ""
    """The id of the author of a text that the list names as a must-read."""
    gap: str = ""
    """One sentence on what of it is not implemented."""

    @property
    def link(self) -> str:
        """The address of the source; empty if the list's row is a rule of thumb without one."""
        if self.arxiv:
            return f"https://arxiv.org/abs/{self.arxiv}"
        return f"https://doi.org/{self.doi}" if self.doi else self.url

    @property
    def source(self) -> str:
        """Authors, year and venue, as far as they are known."""
        return ", ".join(each for each in (self.authors, str(self.year or ""), self.venue) if each)

    def to_json(self) -> Json:
        """The entry as a JSON object."""
        return asdict(self) | {"link": self.link}


@cache
def reading_list() -> tuple[ReadingEntry, ...]:
    """All entries, in the order of the list."""
    return checked_entries([entry for section in SECTIONS for entry in _section(section)])


def checked_entries(entries: Sequence[ReadingEntry]) -> tuple[ReadingEntry, ...]:
    """The entries. DataError if two have the same id, or one is part of an entry that is not among them."""
    seen: set[str] = set()
    for entry in entries:
        if entry.id in seen:
            raise DataError(f"two entries of the reading list have the id {entry.id!r}: give one another id")
        seen.add(entry.id)
    if lost := next((entry for entry in entries if entry.part_of and entry.part_of not in seen), None):
        raise DataError(f"the entry {lost.id!r} is part of {lost.part_of!r}, which is no entry")
    return tuple(entries)


@cache
def section_titles() -> dict[str, str]:
    """Section -> its title."""
    return {section: str(_read(section)["title"]) for section in SECTIONS}


def entry_named(text: str) -> ReadingEntry:
    """The entry of an id, arXiv id, DOI or title. UnknownName, with the nearest one, if there is none."""
    found = next((entry for entry in reading_list() if entry.id == text), None)
    if found is not None:
        return found
    arxiv = _ARXIV.search(text)
    wanted = " ".join(text.casefold().split())
    for entry in reading_list():
        if (arxiv and entry.arxiv == arxiv[0]) or (entry.doi and wanted.endswith(entry.doi.casefold())):
            return entry
        if entry.title.casefold() == wanted:
            return entry
    titles = {entry.title.casefold(): entry.id for entry in reading_list()}
    ids = [entry.id for entry in reading_list()]
    if nearest(text, ids) is None and (close := nearest(wanted, titles)):
        raise UnknownName(f"no paper {text[:80]!r}; did you mean {titles[close]!r}? `firsthand papers` shows all")
    raise unknown("paper", text[:80], ids, see="firsthand papers")


def parts_of(entry: ReadingEntry) -> tuple[ReadingEntry, ...]:
    """The must-reads of an author's entry."""
    return tuple(each for each in reading_list() if each.part_of == entry.id)


def _section(section: str) -> list[ReadingEntry]:
    rows = _read(section).get("entry", [])
    return [_entry(section, row) for row in rows]


def _read(section: str) -> dict[str, Any]:
    return tomllib.loads((_FOLDER / f"{section}.toml").read_text(encoding="utf-8"))


def _entry(section: str, row: Mapping[str, Any]) -> ReadingEntry:
    known = {each.name for each in fields(ReadingEntry)} - {"section"}
    if extra := set(row) - known:
        raise DataError(f"{section}.toml: {row.get('id')!r} has the unknown field {min(extra)!r}")
    given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    return ReadingEntry(section=section, **given)
