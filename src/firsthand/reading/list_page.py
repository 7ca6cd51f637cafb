"""Renders docs/reading-list.md: the map from the reading list to the code, by section."""

from __future__ import annotations

from firsthand.reading.reading_list import SECTIONS, ReadingEntry, reading_list, section_titles

HEAD = """\
# The reading list

From the list to the code: each row of the reading list with the files that implement it, the page about it, a command that
shows it, the claims that test it (`firsthand claims run NAME`), and what of it is missing. `firsthand papers show ID` prints
a row, `firsthand papers WORDS` finds rows, and `firsthand papers ask "..."` [answers questions](reading-questions.md) from
the list, these pages and your own PDFs. A newcomer takes [the tour](tour.md) first.

```bash
firsthand papers flash attention
firsthand papers show 2205.14135
```

`firsthand papers --page` prints this page from the files in `src/firsthand/reading/entries/`. A test checks that every row
of the list has an entry, and that each entry's modules import, its pages and headings exist, its command parses, its names
are in the catalog, and its claims are known to `firsthand claims`.
"""


def list_page() -> str:
    """The page as Markdown."""
    parts = [HEAD]
    for section in SECTIONS:
        parts.append(f"\n## {section_titles()[section]}\n")
        chosen = [each for each in reading_list() if each.section == section]
        for group, entries in _groups(chosen).items():
            if group:
                parts.append(f"\n### {group}\n")
            parts.append("\n| entry | in one sentence | code | pages | command | claims |\n|---|---|---|---|---|---|\n")
            parts += [_row(entry) for entry in entries]
    return "".join(parts)


def _groups(entries: list[ReadingEntry]) -> dict[str, list[ReadingEntry]]:
    groups: dict[str, list[ReadingEntry]] = {}
    for entry in entries:
        groups.setdefault(entry.group, []).append(entry)
    return groups


def _row(entry: ReadingEntry) -> str:
    title = f"[{_cell(entry.title)}]({entry.link})" if entry.link else _cell(entry.title)
    source = f" ({_cell(entry.source)})" if entry.source else ""
    name = f"{title}{source}, `{entry.id}`"
    said = _cell(entry.summary) + (f" *Missing: {_cell(entry.gap)}*" if entry.gap else "")
    code = ", ".join(f"`{each.replace('.', '/')}.py`" for each in entry.modules)
    pages = ", ".join(f"[{each.removesuffix('.md').replace('.md#', ': ')}]({each})" for each in entry.docs)
    claims = ", ".join(f"`{each}`" for each in entry.claims)
    return f"| {name} | {said} | {code} | {pages} | `{_cell(entry.command)}` | {claims} |\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
