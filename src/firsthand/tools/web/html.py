"""HTML as the text a reader sees: blocks on lines of their own, links with their targets, without scripts and styles.

The standard library's `html.parser` takes minutes over 60 kB of `<a <a <a ...`, so tags are found by a scanner of our own,
which never looks at a character more than a few times. It builds no tree and corrects no mistakes: it is for reading.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from itertools import accumulate
from string import ascii_lowercase, ascii_uppercase
from urllib.parse import urljoin

_BLOCKS = re.compile(
    r"address|article|aside|blockquote|body|br|caption|center|dd|details|div|dl|dt|fieldset|figcaption|figure|footer|form|h[1-6]|"
    r"header|hr|html|legend|li|main|nav|ol|option|p|pre|section|summary|table|tbody|tfoot|thead|title|tr|ul"
)
_SILENT = re.compile("script|style|noscript|template|svg|math|iframe|object|canvas|head")
"""Elements whose content is not shown; of the head the title is."""
_TAG = re.compile(r"</?([a-zA-Z][a-zA-Z0-9-]{0,30})((?:[^>\"']++|\"[^\"]*+\"|'[^']*+')*+)>")
_HREF = re.compile(r"\shref\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s>]+))", re.IGNORECASE)
_ENTITY = re.compile(r"&#(?:[xX][0-9a-fA-F]{1,8}|[0-9]{1,8});?|&[a-zA-Z][a-zA-Z0-9]{1,31};")
_SIGNS = re.compile(r"<+")
_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)
"""Keeps every place where it is, as `str.lower` does not for a letter such as İ."""
_MAX_CHARS = 1_000_000
"""The most characters of a page that are read."""
_MAX_TAG = 4_000
_MAX_URL = 500


def to_text(source: str, base: str = "") -> str:
    """The readable text of a page; `base` is its address, for links that are relative."""
    return _Reader(source[:_MAX_CHARS], base).read()


def to_placed_text(source: str) -> tuple[str, list[tuple[int, int]]]:
    """The readable text of a whole page, and where its lines come from: (offset in the text, offset in the source)."""
    reader = _Reader(source, "")
    reader.collect()
    return reader.placed()


class _Reader:
    def __init__(self, source: str, base: str):
        self.source = source
        self.lower = source.translate(_LOWER)
        self.base = base
        self.pieces: list[str] = []
        self.href = ""
        self.in_pre = 0
        self.had_head = False
        self.origins: list[tuple[int, int]] = []
        """(number of the piece, offset in the source) where words and marks begin."""

    def read(self) -> str:
        self.collect()
        lines = (line.strip() for line in "".join(self.pieces).split("\n"))
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()

    def collect(self) -> None:
        at = 0
        while (opens := self.source.find("<", at)) >= 0:
            self.placed_words(at, opens)
            self.origins.append((len(self.pieces), opens))
            at = self.markup(opens)
        self.placed_words(at, len(self.source))

    def placed_words(self, at: int, end: int) -> None:
        """Write words and their origin; in a `pre` each line has its own."""
        text = self.source[at:end]
        for piece in (text.splitlines(keepends=True) if self.in_pre else []) or [text]:
            self.origins.append((len(self.pieces), at))
            self.words(piece)
            at += len(piece)

    def placed(self) -> tuple[str, list[tuple[int, int]]]:
        """The text that `read` gives, and the origin of each line."""
        starts = [0, *accumulate(map(len, self.pieces))]
        raw_starts = [starts[piece] for piece, _ in self.origins]
        lines: list[str] = []
        places: list[tuple[int, int]] = []
        raw_at = length = 0
        begins: dict[int, int] = {}
        """The offset of an origin, found once however many lines it has."""
        for raw in "".join(self.pieces).split("\n"):
            line = raw.strip()
            if line or (lines and lines[-1]):
                if line:
                    number = bisect_right(raw_starts, raw_at + len(raw) - len(raw.lstrip())) - 1
                    if number not in begins:
                        begins[number] = self._origin(number)
                    places.append((length, begins[number]))
                lines.append(line)
                length += len(line) + 1
            raw_at += len(raw) + 1
        return "\n".join(lines).strip(), places

    def _origin(self, number: int) -> int:
        """The offset in the source of the words or the mark of an origin, behind the white space before them."""
        start = self.origins[number][1]
        end = self.origins[number + 1][1] if number + 1 < len(self.origins) else len(self.source)
        return end - len(self.source[start:end].lstrip())

    def markup(self, at: int) -> int:
        """The index after the markup that begins with `<` here."""
        if self.source.startswith("<!--", at):
            return self.after("-->", at + 4)
        if self.source.startswith(("<!", "<?"), at):
            return self.after(">", at)
        tag = _TAG.match(self.source, at, at + _MAX_TAG)
        if tag is None:
            if self.source[at + 1 : at + 2].isalpha() or self.source.startswith("</", at):
                return self.after(">", at)
            end = at + len(_SIGNS.match(self.source, at).group())  # type: ignore[union-attr]
            self.words(self.source[at:end])
            return end
        return self.tag(tag.group(1).lower(), tag.group(2), tag.end(), closes=self.source[at + 1] == "/")

    def tag(self, name: str, attributes: str, end: int, *, closes: bool) -> int:
        """Handle a tag; returns the index to continue at."""
        if _SILENT.fullmatch(name) and not closes and not attributes.endswith("/"):
            if name == "head":
                return end if self.had_head else self.head(end)
            close = self.lower.find(f"</{name}", end)
            return len(self.source) if close < 0 else self.after(">", close)
        if name == "pre":
            self.in_pre = max(0, self.in_pre + (-1 if closes else 1))
        if name == "a":
            self.link("" if closes else attributes)
        elif name == "li" and not closes:
            self.pieces.append("\n- ")
        elif name in ("td", "th") and closes:
            self.pieces.append(" | ")
        elif re.fullmatch("h[1-6]", name) and not closes:
            self.pieces.append("\n\n" + "#" * int(name[1]) + " ")
        elif _BLOCKS.fullmatch(name):
            self.pieces.append("\n")
        return end

    def head(self, start: int) -> int:
        """Show the title; the head ends at `</head>`, or where the body begins."""
        self.had_head = True
        ends = [found for each in ("</head", "<body") if (found := self.lower.find(each, start)) >= 0]
        end = min(ends, default=start)
        title = self.lower.find("<title", start, end)
        if title >= 0:
            shown, close = self.lower.find(">", title, end), self.lower.find("</title", title, end)
            if 0 <= shown < close:
                self.words(self.source[shown + 1 : close])
                self.pieces.append("\n\n")
        return end

    def link(self, attributes: str) -> None:
        """Write the target of the link that ends here, and remember the next one's."""
        if self.href:
            self.pieces.append(f" ({self.href})")
        found = _HREF.search(" " + attributes)
        url = next((each for each in found.groups() if each is not None), "").strip() if found else ""
        url = _unescaped(url) if url and not url.startswith("#") else ""
        try:
            url = urljoin(self.base, url) if url and len(url) <= _MAX_URL else ""
        except ValueError:
            url = ""
        self.href = url if len(url) <= _MAX_URL and url.startswith(("http://", "https://", "/")) else ""

    def words(self, text: str) -> None:
        """Write words; what would be white space on a page is one space."""
        text = _unescaped(text)
        self.pieces.append(text if self.in_pre else re.sub(r"[ \t\r\n\f\xa0]+", " ", text))

    def after(self, mark: str, at: int) -> int:
        found = self.source.find(mark, at)
        return len(self.source) if found < 0 else found + len(mark)


def _unescaped(text: str) -> str:
    return _ENTITY.sub(lambda found: html.unescape(found.group()), text)
