"""The elements of a page of Mind2Web in short, by their `backend_node_id`.

`html.parser` takes minutes over 80 kB of `<a <a <a ...`, so tags are found by a scanner of our own, in time linear in the
page. An element's words are places in the page, read for the elements that are asked for. Not included: scripts, which
Mind2Web's `cleaned_html` does not have.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

MAX_SNIPPET = 160
SHOWN = (
    "aria_label",
    "aria_description",
    "title",
    "placeholder",
    "name",
    "value",
    "alt",
    "role",
    "type",
    "label",
    "option_selected",
)
_VOID = frozenset({"input", "img", "br", "hr", "meta", "link"})
_OPENS = re.compile(r"<(?:(!--)|[!?]|(/?)([a-zA-Z][^\s/>]*+))")
_ATTRIBUTES = re.compile(r"((?:[^>\"']++|\"[^\"]*+\"|'[^']*+')*+)>")
_ATTRIBUTE = re.compile(r"([^\s=/>\"']++)(?:\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\s\"'>]*+)))?+")


@dataclass(slots=True)
class _Element:
    tag: str
    shown: str
    first: int
    """Its first text, by number."""
    end: int | None = None
    """The number of the first text after it; None if it is not closed."""


class PageElements(Mapping[str, str]):
    """`backend_node_id` -> the element in short, `<tag attributes> text`."""

    def __init__(self, page: str):
        self._page = page
        self._texts: list[tuple[int, int]] = []
        """Where the texts between tags are."""
        self._found: dict[str, _Element] = {}
        self._open: list[tuple[str, _Element | None]] = []
        self._names: Counter[str] = Counter()
        """How many elements of each tag are open."""
        self._scan()

    def __getitem__(self, id: str) -> str:
        element = self._found[id]
        words: list[str] = []
        length = 0
        for begin, end in self._texts[element.first : element.end]:
            if length >= MAX_SNIPPET:
                break
            words.append(_plain(self._page[begin:end]))
            length += len(words[-1]) + 1
        return f"<{element.tag}{element.shown}> {' '.join(words)}"[:MAX_SNIPPET].strip()

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __contains__(self, id: object) -> bool:
        return id in self._found

    def _scan(self) -> None:
        page, at, is_quoted = self._page, 0, True
        while (opens := _OPENS.search(page, at)) is not None:
            self._text(at, opens.start())
            attributes = _ATTRIBUTES.match(page, opens.end()) if opens[3] and is_quoted else None
            if opens[3] and attributes is None:
                is_quoted = False  # some quote has no end: looking for it again at each tag would take the square
            after = "-->" if opens[1] else ">"
            closes = page.find(after, opens.end()) if attributes is None else attributes.end(1)
            if closes < 0:
                return
            at = closes + len(after)
            if opens[3]:
                self._tag(opens[3].lower(), page[opens.end() : closes], closes=bool(opens[2]))
        self._text(at, len(page))

    def _text(self, begin: int, end: int) -> None:
        if self._page[begin:end].strip():
            self._texts.append((begin, end))

    def _tag(self, tag: str, attributes: str, *, closes: bool) -> None:
        if closes:
            self._close(tag)
            return
        given: dict[str, str] = {}
        for found in _ATTRIBUTE.finditer(attributes):
            if (name := found[1].lower()) in SHOWN or name == "backend_node_id":
                given[name] = _plain(next((each for each in found.groups()[1:] if each is not None), ""))
        element = None
        if id := given.get("backend_node_id", ""):
            words = [given[key] for key in SHOWN if given.get(key)]
            element = _Element(tag, f" {' '.join(words)}" if words else "", len(self._texts))
            self._found[id] = element
        if tag in _VOID:
            if element is not None:
                element.end = element.first
            return
        self._open.append((tag, element))
        self._names[tag] += 1
        if attributes.endswith("/"):
            self._close(tag)

    def _close(self, tag: str) -> None:
        """Close the innermost element of a tag and what is open in it; a tag of which none is open is passed over."""
        while self._names[tag]:
            name, element = self._open.pop()
            self._names[name] -= 1
            if element is not None:
                element.end = len(self._texts)
            if name == tag:
                return


def _plain(text: str) -> str:
    """The first characters of a text, with its references resolved and each white space one blank."""
    return " ".join(html.unescape(" ".join(text.split())[: 10 * MAX_SNIPPET]).split())[:MAX_SNIPPET]
