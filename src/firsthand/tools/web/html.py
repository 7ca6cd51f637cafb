"""HTML as the text a reader sees: blocks on lines of their own, links with their targets, without scripts and styles.

Elements that say themselves that they are hidden (`hidden`, `style`, a closed `dialog`) are left out; style sheets and
scripts, which hide and show more, are not read. Raised digits are `10^6`, struck text is `~~900~~`.

The standard library's `html.parser` takes minutes over 60 kB of `<a <a <a ...`, so tags are found by a scanner of our own,
which never looks at a character more than a few times. It builds no tree and corrects no mistakes: it is for reading.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from collections import Counter
from itertools import accumulate, islice
from string import ascii_lowercase, ascii_uppercase
from urllib.parse import urljoin

from firsthand.system.raised_text import Level, mark_between

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
_VOID = re.compile("area|base|br|col|embed|hr|img|input|link|meta|param|source|track|wbr")
_ENDED_BY = {
    "li": ("li",), "dt": ("dt", "dd"), "dd": ("dt", "dd"), "option": ("option",), "optgroup": ("option", "optgroup"),
    "td": ("td", "th"), "th": ("td", "th"), "tr": ("td", "th", "tr"),
    "tbody": ("td", "th", "tr", "thead", "tbody"), "tfoot": ("td", "th", "tr", "thead", "tbody"),
}  # fmt: skip
"""Elements whose end tag may be missing, by the one that begins behind them; a block ends a paragraph too."""
_ATTRIBUTE = re.compile(r"([^\s\"'>/=]++)(?:\s*+=\s*+(\"[^\"]*+\"|'[^']*+'|[^\s>\"']++))?+")
_TABLE = re.compile("caption|table|tbody|td|tfoot|th|thead|tr")
_MAX_DEPTH = 200
"""Open elements among which the beginning of one that ends is looked for."""
_MAY_HIDE = re.compile("hidden|style", re.IGNORECASE)
_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
_ZERO = re.compile(r"0*+(?:\.0*+)?+(?:[a-z]{1,4}|%)?+")
_LEVELS: dict[str, Level] = {"sup": "^", "sub": "_"}
_STRUCK = ("s", "del", "strike")
_MAX_CHARS = 1_000_000
"""The most characters of a page that are read."""
_MAX_TAG = 4_000
_MAX_URL = 500


def to_text(source: str, base: str = "") -> str:
    """The readable text of a page; `base` is its address, for links that are relative."""
    return _Reader(source[:_MAX_CHARS], base).read()


def to_placed_text(source: str, *, is_xml: bool = False) -> tuple[str, list[tuple[int, int]], int]:
    """The readable text of a whole page, where its lines come from (offset in the text, offset in the source), and how many
    characters were left out as hidden. In XML `<p/>` is an element without content, and in HTML its beginning.
    """
    reader = _Reader(source, "", is_xml=is_xml)
    reader.collect()
    return *reader.placed(), reader.hidden


class _Reader:
    def __init__(self, source: str, base: str, *, is_xml: bool = False):
        self.source = source
        self.is_xml = is_xml
        self.open: list[str] = []
        """Names of the elements that are open, outermost first."""
        self.opened: Counter[str] = Counter()
        self.hidden_from = 0
        """Number of open elements from the outermost hidden one on; 0 if none is hidden."""
        self.hidden = 0
        """Characters of hidden text."""
        self.last = ""
        """The character that was written last."""
        self.level: Level | None = None
        """The level of the words that come next, where it is another one than that of those before."""
        self.written = self.written_before = 0
        """Number of text pieces written: in all, and before the raised or lowered text being read."""
        self.struck: list[tuple[int, int]] = []
        """(number of the piece, pieces of words before it) of each mark where struck text begins."""
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
        if self.nest(name, attributes, closes=closes):
            return end
        if name in _LEVELS:
            self.level = _LEVELS[name] if not closes else "" if self.written > self.written_before else None
            self.written_before = self.written
        elif name in _STRUCK:
            self.strike(closes=closes)
        if name == "pre":
            self.in_pre = max(0, self.in_pre + (-1 if closes else 1))
        if name == "a":
            self.link("" if closes else attributes)
        elif name == "li" and not closes:
            self.mark("\n- ")
        elif name in ("td", "th") and closes:
            self.mark(" | ")
        elif re.fullmatch("h[1-6]", name) and not closes:
            self.mark("\n\n" + "#" * int(name[1]) + " ")
        elif _BLOCKS.fullmatch(name):
            self.mark("\n")
        return end

    def nest(self, name: str, attributes: str, *, closes: bool) -> bool:
        """Note that an element begins or ends; returns True if it is hidden."""
        was_hidden = bool(self.hidden_from)
        if closes:
            for _ in range(self.depth(name)):
                self.close()
            return was_hidden
        ended = (*_ENDED_BY.get(name, ()), *(("p",) if _BLOCKS.fullmatch(name) else ()))
        while self.open and self.open[-1] in ended:
            self.close()
        is_closed = _VOID.fullmatch(name) is not None or (self.is_xml and attributes.endswith("/"))
        if not is_closed:
            self.open.append(name)
            self.opened[name] += 1
            if not self.hidden_from and _is_hidden(name, attributes):
                self.hidden_from = len(self.open)
        return bool(self.hidden_from)

    def depth(self, name: str) -> int:
        """Number of open elements that an end tag closes; 0 if its element was opened outside the current block or cell."""
        if self.opened[name]:
            for count, each in enumerate(islice(reversed(self.open), _MAX_DEPTH), 1):
                if each == name:
                    return count
                if not _TABLE.fullmatch(name) and _TABLE.fullmatch(each):
                    return 0
                if not _TABLE.fullmatch(name) and not _BLOCKS.fullmatch(name) and _BLOCKS.fullmatch(each):
                    return 0
        return 0

    def close(self) -> None:
        """End the innermost element."""
        if len(self.open) == self.hidden_from:
            self.hidden_from = 0
        self.opened[self.open.pop()] -= 1

    def strike(self, *, closes: bool) -> None:
        """Write the mark of struck text, or take the first one back if there is no such text."""
        if not closes:
            self.struck.append((len(self.pieces), self.written))
            self.mark("~~")
        elif self.struck:
            piece, written = self.struck.pop()
            if written == self.written:
                self.pieces[piece] = ""
            else:
                self.mark("~~")

    def mark(self, text: str) -> None:
        """Write what stands between blocks or cells."""
        self.pieces.append(text)
        self.last = ""

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
        text = text if self.in_pre else re.sub(r"[ \t\r\n\f\xa0]+", " ", text)
        if self.hidden_from:
            self.hidden += len(text.strip())
            return
        if text and self.level is not None:
            text = mark_between(self.last, text[0], self.level) + text
            self.level = None
        if text:
            self.written, self.last = self.written + 1, text[-1]
        self.pieces.append(text)

    def after(self, mark: str, at: int) -> int:
        found = self.source.find(mark, at)
        return len(self.source) if found < 0 else found + len(mark)


def _is_hidden(name: str, attributes: str) -> bool:
    """True if an element says itself that it is not shown. What a click opens, such as a tab's panel, is read."""
    if name in ("html", "body") or (name != "dialog" and not _MAY_HIDE.search(attributes)):
        return False
    given: dict[str, str] = {}
    for found in _ATTRIBUTE.finditer(attributes):
        given.setdefault(found[1].lower(), _unescaped((found[2] or "").strip("\"'")).strip().lower())
    if given.get("role") == "tabpanel":
        return False
    if given.get("hidden", "until-found") != "until-found" or (name == "dialog" and "open" not in given):
        return True
    style: dict[str, str] = {}
    for declared in _COMMENT.sub("", given.get("style", "")).split(";"):
        key, _, value = declared.partition(":")
        style[key.strip()] = value.partition("!")[0].strip()
    return (
        style.get("display") == "none"
        or style.get("visibility") in ("hidden", "collapse")
        or any(_ZERO.fullmatch(style.get(key, "1")) is not None for key in ("font-size", "opacity"))
    )


def _unescaped(text: str) -> str:
    return _ENTITY.sub(lambda found: html.unescape(found.group()), text)
