"""Search the reading list: each paper, idea, benchmark and blog with its code, page and command; ask it questions.

`firsthand papers WORDS` finds entries by their words; `papers show ID` prints one. `papers show` is
`commands/papers_show.py`, and so on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Literal

from firsthand.commands.subcommands import listed_subcommands, subcommand_of, subcommands_of
from firsthand.config import parse

EXAMPLES = """
firsthand papers                                    # all entries, by section
firsthand papers flash attention memory             # the entries with these words, best first
firsthand papers --section safety
firsthand papers show 2205.14135                    # by id, arXiv id, DOI or title
firsthand papers index --pdfs papers                # the list, our documentation, and your own copies of papers
firsthand papers ask "What is a Wilson interval?"   # answered from the index, with citations that were checked
"""
Section = Literal[
    "all", "papers", "internals", "patterns", "benchmarks", "leaderboards", "blogs", "safety", "production"
]


@dataclass(frozen=True)
class Config:
    """The words to look for."""

    query: tuple[str, ...] = field(default=(), metadata={"positional": True})
    """Words to look for, or a subcommand; none for all entries."""
    section: Section = "all"
    """Only entries of this section."""
    limit: int = 10
    """At most so many entries for a query; 0 for all."""
    page: bool = False
    """Print docs/reading-list.md, the map from the list to the code."""
    json: bool = False
    """Print JSON for programs."""


def dispatch(words: Sequence[str]) -> int:
    """Run a subcommand, or search for the words; returns the exit code."""
    if words and words[0] in subcommands():
        name, *rest = words
        module = subcommand(name)
        prog, about = f"firsthand papers {name}", module.__doc__ or ""
        code: int = module.run(parse(module.Config, rest, prog=prog, description=about, examples=module.EXAMPLES))
        return code
    about = listed_subcommands("papers", __doc__ or "")
    return main(parse(Config, words, prog="firsthand papers", description=about, examples=EXAMPLES))


def main(config: Config) -> int:
    """Print the entries that the words find, or all."""
    from firsthand.errors import ConfigError
    from firsthand.reading.list_page import list_page
    from firsthand.reading.reading_list import SECTIONS, parts_of, reading_list, section_titles
    from firsthand.system.terminal import console, print_as_json, print_prose, print_table

    if config.limit < 0:
        raise ConfigError(f"limit is {config.limit}: give 1 or more, or 0 for all")
    if config.page:
        print(list_page(), end="")
        return 0
    entries = [each for each in reading_list() if config.section in ("all", each.section)]
    query = " ".join(config.query).strip()
    if query:
        from firsthand.reading.entry_search import search_entries

        entries = search_entries(query, entries, config.limit or len(entries))
    if config.json:
        print_as_json([each.to_json() for each in entries])
        return 0
    header = ("id", "title", "source", "command")
    if query and not entries:
        console().print(f"no entry has a word of {query[:200]!r}: `firsthand papers` shows all", markup=False)
        return 0
    if query:
        print_table("", header, [(each.id, each.title, each.source, each.command) for each in entries])
    for section in () if query else SECTIONS:
        chosen = [each for each in entries if each.section == section and not each.part_of]
        rows = [(each.id, _titled(each.title, len(parts_of(each))), each.source, each.command) for each in chosen]
        if rows:
            print_table(section_titles()[section], header, rows)
    print_prose("`firsthand papers show ID` prints an entry: what it says, where it is implemented, what tests it.")
    return 0


def _titled(title: str, must_reads: int) -> str:
    return f"{title} ({must_reads} must-reads)" if must_reads else title


def subcommands() -> dict[str, str]:
    """Subcommand -> its one-line description, read without importing."""
    return subcommands_of("papers")


def subcommand(name: str) -> ModuleType:
    """The module of a subcommand; this one for any other word, which is looked for."""
    return subcommand_of("papers", name) if name in subcommands() else sys.modules[__name__]
