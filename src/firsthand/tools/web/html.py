"""HTML as the text a reader sees: blocks on lines of their own, links with their targets, without scripts and styles.

Elements that say themselves that they are hidden (`hidden`, `style`, a closed `dialog`) or that no browser draws are left
out; style sheets and scripts, which hide and show more, are not read. Raised digits are `10^6` and struck text is `~~900~~`,
by tag or `style`; `10(2)` has small text above it. MathML is text on one line, and a field its value. Of SVG the texts are
read, and of templates those that are a shadow root. Where a tag or comment never ends, what follows is left out, as in a
browser.

The standard library's `html.parser` takes minutes over 60 kB of `<a <a <a ...`, so tags are found by a scanner of our own,
which never looks at a character more than a few times. It builds no tree and corrects no mistakes: it is for reading.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate, islice
from string import ascii_lowercase, ascii_uppercase

from firsthand.system.formula_text import FormulaText
from firsthand.tools.web.hidden_elements import is_drawn_again, is_hidden, is_pixel
from firsthand.tools.web.marked_pieces import LEVELS, STRUCK, MarkedPieces
from firsthand.tools.web.mathml_parts import MATHML_PARTS
from firsthand.tools.web.open_elements import BLOCKS, END_ALONE, PARTS_ENDED_BY, TABLE, ended_by, is_beyond
from firsthand.tools.web.page_addresses import PageAddresses, is_written
from firsthand.tools.web.page_tags import address_in, attributes_of, begins_tag, shown_value, tag_at, unescaped_text
from firsthand.tools.web.table_columns import TableColumns
from firsthand.tools.web.xml_pages import CDATA, CDATA_END, holds_cdata

_SILENT = re.compile("script|style|noscript|noembed|noframes|template|iframe|object|canvas|head")
"""Elements whose content is not shown; of the head the title is."""
_NESTED = ("template", "object", "canvas")
"""Those that may stand in one of their own name."""
_HEAD_END = re.compile(r"</head(?=[ \t\r\n\f/>])|<body(?=[ \t\r\n\f/>])")
_COMMENT_END = re.compile("--!?>")
_EMPTY_COMMENT = re.compile("<!---?>")
_SIGNS = re.compile(r"<+")
_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)
"""Keeps every place where it is, as `str.lower` does not for a letter such as İ."""
_VOID = re.compile("area|base|br|col|embed|frame|hr|img|input|link|meta|param|source|track|wbr")
_INVISIBLE_SIGNS = str.maketrans({"\u2061": " ", "\u2062": "", "\u2063": "", "\u2064": " "})
"""Signs of formulas that are not shown: a function's application, and a product, comma or sum."""
_SHOWN_IN_SVG = ("text", "foreignobject")
_DRAWN = {"svg": _SHOWN_IN_SVG, "math": ("mtext",)}
"""Elements that end where a block of HTML begins, unless it is in one of these parts of them."""
_TOOLTIPS = ("title", "desc")
_DOCTYPE_CHARS = 5000
_MAX_DEPTH = 200
"""Open elements among which the beginning of one that ends is looked for."""
_FRAMES = ("iframe", "frame")
_MAX_WITHIN = 3  # pages that frames hold in one another
_CELLS = ("td", "th")
_PLACED = re.compile(r"(?<![^ \t\r\n\f])d?[xy]=")
_MAX_CHARS = 1_000_000
"""The most characters of a page that are read."""


def to_text(source: str, base: str = "", *, as_fetched: bool = False, is_xml: bool = False) -> str:
    """The readable text of a page; `base` is its address, for links that are relative. Of a page of more than 1,000,000
    characters only these are read, and the last line says so. `as_fetched`: as a browser without scripts shows it, with what
    is in `noscript` and in frames (`srcdoc`), and `frame (ADDRESS)` for other frames. `is_xml`: see `to_placed_text`.
    """
    text = _Reader(source[:_MAX_CHARS], base, is_xml=is_xml, as_fetched=as_fetched).read()
    return f"{text}\n[only the first {_MAX_CHARS:,} characters of the page were read]" if source[_MAX_CHARS:] else text


def to_placed_text(source: str, *, is_xml: bool = False) -> tuple[str, list[tuple[int, int]], int]:
    """The readable text of a whole page, where its lines come from (offset in the text, offset in the source), and how many
    characters were left out as hidden. In XML `<p/>` is an element without content, and in HTML its beginning.
    """
    reader = _Reader(source, "", is_xml=is_xml)
    reader.collect()
    return *reader.placed(), reader.hidden


class _Reader:
    def __init__(self, source: str, base: str, *, is_xml: bool = False, as_fetched: bool = False, within: int = 0):
        self.source = source
        self.is_xml, self.as_fetched, self.within = is_xml, as_fetched, within
        self.open: list[str] = []
        """Names of the elements that are open, outermost first."""
        self.opened: Counter[str] = Counter()
        self.hidden_from = 0
        """Number of open elements from the outermost hidden one on; 0 if none is hidden."""
        self.hidden = 0
        """Characters of hidden text."""
        self.lower = source.translate(_LOWER)
        self.out = MarkedPieces()
        self.pieces = self.out.pieces
        self.addresses = PageAddresses(base, self.pieces)
        self.formula = FormulaText(self.pieces)
        self.follows_math = False
        """True behind a formula, until words follow."""
        self.href = ""
        self.preformatted: set[int] = set()
        """Numbers of the pieces of words in a `pre`."""
        self.columns = TableColumns()
        self.gaps: list[int] = []
        """Empty cells behind each open cell that is shown."""
        self.in_quirks_mode = "<!doctype" not in self.lower[:_DOCTYPE_CHARS]
        self.had_head = False
        self.origins: list[tuple[int, int]] = []
        """(number of the piece, offset in the source) where words and marks begin."""

    def read(self) -> str:
        self.collect()
        return "\n".join(line for line, _ in self.lines()).strip("\n")

    def lines(self) -> Iterator[tuple[str, int]]:
        """The lines of the text, and where the words of each begin in the pieces; of blank ones that follow each other the
        first. Lines of a `pre` keep their indentation, and all blank ones.
        """
        starts = [0, *accumulate(map(len, self.pieces))]
        raw_at, last, was_preformatted = 0, "", False
        for raw in "".join(self.pieces).split("\n"):
            is_preformatted = bisect_right(starts, raw_at) - 1 in self.preformatted
            line = raw.rstrip() if is_preformatted else raw.strip()
            if line or last or (is_preformatted and was_preformatted):
                yield line, raw_at + len(raw) - len(raw.lstrip())
            last, was_preformatted = line, is_preformatted
            raw_at += len(raw) + 1

    def collect(self) -> None:
        at = 0
        while (opens := self.source.find("<", at)) >= 0:
            self.placed_words(at, opens)
            self.origins.append((len(self.pieces), opens))
            at = self.markup(opens)
        self.placed_words(at, len(self.source))
        self.addresses.finish()

    def placed_words(self, at: int, end: int, *, as_it_is: bool = False) -> None:
        """Write words and their origin; in a `pre` each line has its own. `as_it_is`: `&amp;` is no entity."""
        text = self.source[at:end]
        for piece in (text.splitlines(keepends=True) if self.opened["pre"] else []) or [text]:
            self.origins.append((len(self.pieces), at))
            self.words(piece if as_it_is else unescaped_text(piece))
            at += len(piece)

    def placed(self) -> tuple[str, list[tuple[int, int]]]:
        """The text that `read` gives, and the origin of each line."""
        starts = [0, *accumulate(map(len, self.pieces))]
        raw_starts = [starts[piece] for piece, _ in self.origins]
        lines: list[str] = []
        places: list[tuple[int, int]] = []
        length = 0
        begins: dict[int, int] = {}
        """The offset of an origin, found once however many lines it has."""
        for line, words_at in self.lines():
            if line:
                number = bisect_right(raw_starts, words_at) - 1
                if number not in begins:
                    begins[number] = self._origin(number)
                places.append((length, begins[number]))
            if line or lines:
                lines.append(line)
                length += len(line) + 1
        return "\n".join(lines).strip("\n"), places

    def _origin(self, number: int) -> int:
        """The offset in the source of the words or the mark of an origin, behind the white space before them."""
        start = self.origins[number][1]
        end = self.origins[number + 1][1] if number + 1 < len(self.origins) else len(self.source)
        return end - len(self.source[start:end].lstrip())

    def markup(self, at: int) -> int:
        """The index after the markup that begins with `<` here."""
        if self.source.startswith("<!--", at):
            end = self.comment_end(at)
            return end if end <= len(self.source) else self.unseen(at + 4)
        if self.source.startswith(CDATA, at) and holds_cdata(self.open, self.opened, is_xml=self.is_xml):
            ends = self.source.find(CDATA_END, at)
            self.placed_words(at + len(CDATA), ends if ends >= 0 else len(self.source), as_it_is=True)
            return self.after(CDATA_END, at)
        if self.source.startswith(("<!", "<?"), at):
            return self.after(">", at)
        tag = tag_at(self.source, at)
        if tag is None:
            if begins_tag(self.source, at):
                return self.unseen(at)
            if self.source.startswith("</", at):
                return self.after(">", at)
            end = at + len(_SIGNS.match(self.source, at).group())  # type: ignore[union-attr]
            self.words(self.source[at:end])
            return end
        return self.tag(tag.group(1).lower(), tag.group(2), tag.end(), closes=self.source[at + 1] == "/")

    def comment_end(self, at: int) -> int:
        """The index behind the comment that begins here; beyond the page if it never ends."""
        found = _EMPTY_COMMENT.match(self.source, at) or _COMMENT_END.search(self.source, at + 4)
        return found.end() if found else len(self.source) + 1

    def unseen(self, at: int) -> int:
        """Count the rest of the page as hidden, from a tag or comment on that never ends."""
        self.hidden += len(self.source[at:].strip())
        return len(self.source)

    def tag(self, name: str, attributes: str, end: int, *, closes: bool) -> int:
        """Handle a tag; returns the index to continue at."""
        if self.as_fetched and name in _FRAMES and not closes:
            self.frame(name, attributes)
        if (
            not closes
            and self.is_silent(name, attributes)
            and not (attributes.endswith("/") and self.may_close_itself(name))
        ):
            if name == "head":
                return end if self.had_head else self.head(end)
            after = self.behind(name, end)
            if attributes.endswith("/"):  # its writer meant it to end here, so what a browser leaves out is counted
                self.hidden += len(self.source[end:after].strip())
            return after
        if name == "base" and not (closes or self.opened["svg"] or self.opened["math"]):
            self.addresses.take_base(address_in(attributes))
        if self.nest(name, attributes, closes=closes):
            return end
        if self.opened["svg"] and (name == "text" or (name == "tspan" and _PLACED.search(attributes))):
            self.out.mark("\n" if name == "text" else " ")
        if name == "mspace":
            self.formula.part()
        if name in LEVELS:
            self.out.change_level(name, closes=closes)
        elif name in STRUCK:
            self.out.strike(closes=closes)
        if name == "input" and (value := shown_value(attributes)):
            self.out.keep_apart()
            self.words(value)
            self.out.keep_apart()
        if name == "a":
            self.link("" if closes else attributes)
        elif name == "li" and not closes:
            self.out.mark("\n- ")
        elif re.fullmatch("h[1-6]", name) and not closes:
            self.out.mark("\n\n" + "#" * int(name[1]) + " ")
        elif BLOCKS.fullmatch(name) and not (self.opened["svg"] and name in _TOOLTIPS):
            self.out.mark("\n")
        return end

    def is_silent(self, name: str, attributes: str) -> bool:
        """True if the content of an element that begins is not shown."""
        if name == "template" and not self.is_xml:
            return attributes_of(attributes).get("shadowrootmode") not in ("open", "closed")
        if name == "noscript" and self.as_fetched:
            return False
        return _SILENT.fullmatch(name) is not None or (name.startswith("annotation") and self.opened["math"] > 0)

    def frame(self, name: str, attributes: str) -> None:
        """Write the page that a frame holds, or its address: none of those of a pixel, which only count visitors."""
        if self.hidden_from or self.opened["svg"] or is_hidden(name, attributes) or is_pixel(name, attributes):
            return
        held = address_in(attributes, "srcdoc") if name == "iframe" and self.within < _MAX_WITHIN else ""
        text = _Reader(held, self.addresses.base, as_fetched=True, within=self.within + 1).read() if held else ""
        if text:
            self.preformatted.add(len(self.pieces) + 1)
            self.pieces += ["\n", text, "\n"]
        elif is_written(url := address_in(attributes, "src")):
            self.addresses.write("\nframe (", url, ")\n")
        self.out.last = ""

    def behind(self, name: str, at: int) -> int:
        """The index behind the end tag of an element that is not shown; one of the same name in it has its own."""
        within = 1
        section = rf"|{re.escape(CDATA.lower())}" if self.is_xml else ""
        tags = re.compile(rf"<(/?){re.escape(name)}(?=[ \t\r\n\f/>]){section}")
        while found := tags.search(self.lower, at):
            at = found.end() if found[1] is not None else self.after(CDATA_END, found.end())
            within += 0 if found[1] is None else -1 if found[1] else 1 if name in _NESTED else 0
            if not within:
                return self.after(">", found.end())
        return len(self.source)

    def nest(self, name: str, attributes: str, *, closes: bool) -> bool:
        """Note that an element begins or ends; returns True if it is hidden."""
        was_hidden = bool(self.hidden_from)
        if name in ("html", "body"):
            return was_hidden  # their tags end nothing that is open
        is_stray = self.is_stray(name)
        if is_stray and was_hidden:
            return True
        if closes:
            depth = self.depth(name)
            ends_shown = 0 < len(self.open) - depth + 1 < self.hidden_from and depth > 0
            for _ in range(depth):
                self.close()
            return was_hidden and not ends_shown
        if not (self.is_xml and was_hidden):  # in XML only end tags end an element
            ended = ended_by(name, in_quirks_mode=self.in_quirks_mode)
            while self.open and self.open[-1] in ended:
                self.close()
            for _ in range(self.parts_ended_by(name)):
                self.close()
        for each, shown in () if self.is_xml and was_hidden else _DRAWN.items():
            is_drawn = self.opened[each] and not any(self.opened[inner] for inner in shown)
            if is_drawn and BLOCKS.fullmatch(name) and name not in _TOOLTIPS:
                for _ in range(self.depth(each)):
                    self.close()
        if self.is_part():
            self.formula.start_part()
        if self.is_formula(name):
            self.formula.start(MATHML_PARTS[name])
            if name == "msqrt":
                self.formula.start_part()
        self.open.append(name)
        self.opened[name] += 1
        in_svg = self.opened["svg"] > 0
        if not (self.hidden_from or is_stray) and (
            is_hidden(name, attributes, in_svg=in_svg) or (self.follows_math and is_drawn_again(attributes))
        ):
            self.hidden_from = len(self.open)
        elif not self.hidden_from:
            is_block = BLOCKS.fullmatch(name) is not None or TABLE.fullmatch(name) is not None
            is_struck = any(self.opened[each] for each in STRUCK)
            self.out.start(name, attributes, len(self.open), is_block=is_block, is_struck=is_struck, in_svg=in_svg)
        is_now_hidden = bool(self.hidden_from)
        if not is_now_hidden and TABLE.fullmatch(name):
            self.table_part(name, attributes)
        if _VOID.fullmatch(name) or (attributes.endswith("/") and self.may_close_itself(name)):
            self.close()
        return is_now_hidden

    def may_close_itself(self, name: str) -> bool:
        """True where `<name/>` is an element without content; elsewhere in HTML it is its beginning."""
        return bool(self.is_xml or name in ("svg", "math") or self.opened["svg"] or self.opened["math"])

    def table_part(self, name: str, attributes: str) -> None:
        """Begin a part of a table; empty cells stand where cells of rows above reach into this one."""
        if name == "table":
            self.columns.start_table()
        elif name == "tr":
            self.columns.start_row()
        elif name in _CELLS:
            given = attributes_of(attributes) if "span" in attributes.lower() else {}
            before, behind = self.columns.cell(given.get("colspan", ""), given.get("rowspan", ""))
            self.gaps.append(behind)
            if before:
                self.out.mark(" | " * before)
        elif name != "caption":
            self.columns.start_rows()

    def is_stray(self, name: str) -> bool:
        """True for a part of no table, which in HTML is no element."""
        return bool(TABLE.fullmatch(name)) and name != "table" and not (self.opened["table"] or self.is_xml)

    def parts_ended_by(self, name: str) -> int:
        """Number of open elements that end where a part of a table begins: other parts of it, and what is in them."""
        ended, count = PARTS_ENDED_BY.get(name, ()), 0
        if any(self.opened[each] for each in ended):
            for at, each in enumerate(islice(reversed(self.open), _MAX_DEPTH), 1):
                if each in ("table", "template"):
                    break
                if each in ended:
                    count = at
        return count

    def is_formula(self, name: str) -> bool:
        """True for an element of MathML that has parts, such as a fraction."""
        return name in MATHML_PARTS and self.opened["math"] > 0

    def is_part(self) -> bool:
        """True if an element that begins or ended is a part of a formula; all that is in a square root is one part."""
        return bool(self.open) and self.open[-1] != "msqrt" and self.is_formula(self.open[-1])

    def is_in_shown_svg(self) -> bool:
        """True in a text of an SVG, or the HTML that it holds."""
        return any(self.opened[each] for each in _SHOWN_IN_SVG)

    def depth(self, name: str) -> int:
        """Number of open elements that an end tag closes; 0 if its element was opened outside the current block or cell."""
        if self.opened[name]:
            is_near = name != "svg" or self.opened["title"] > 0 or self.is_in_shown_svg()
            for count, each in enumerate(islice(reversed(self.open), _MAX_DEPTH if is_near else None), 1):
                if each == name:
                    return count
                if is_beyond(name, each) or (name == "form" and self.is_hidden_within(count)):
                    return 0
        return 0

    def is_hidden_within(self, count: int) -> bool:
        """True if the outermost hidden element is the open one of this number, counted from the innermost, and no paragraph
        or item: the end tag of a form around it does not end it.
        """
        return self.hidden_from == len(self.open) - count + 1 and self.open[-count] not in END_ALONE

    def close(self) -> None:
        """End the innermost element."""
        name = self.open[-1]
        self.out.end(len(self.open))
        if name in _CELLS and not self.hidden_from:
            self.out.mark(" | " * (1 + self.gaps.pop()))
        elif name == "table" and not self.hidden_from:
            self.columns.end_table()
        if len(self.open) == self.hidden_from:
            self.hidden_from = 0
        self.opened[self.open.pop()] -= 1
        if name == "math":
            self.follows_math = True
        if self.is_formula(name):
            if name == "msqrt":
                self.formula.end_part()
            self.formula.end()
        if self.is_part():
            self.formula.end_part()

    def head(self, start: int) -> int:
        """Show the title; the head ends at `</head>`, or where the body begins."""
        self.had_head = True
        found = _HEAD_END.search(self.lower, start)
        end = found.start() if found else start
        if self.lower.find("<base", start, end) >= 0:
            self.take_base(start, end)
        title = self.lower.find("<title", start, end)
        if title >= 0:
            shown, close = self.lower.find(">", title, end), self.lower.find("</title", title, end)
            if 0 <= shown < close:
                self.words(unescaped_text(self.source[shown + 1 : close]))
                self.pieces.append("\n\n")
        return end

    def take_base(self, at: int, end: int) -> None:
        """Take the address of the first `base` of the head, if it is in no comment, script, title or the like."""
        while (at := self.source.find("<", at, end)) >= 0 and not self.addresses.has_base:
            tag = tag_at(self.source, at)
            if tag is None and self.source.startswith("<!--", at):
                at = self.comment_end(at)
            elif tag is None and begins_tag(self.source, at):
                return
            elif tag is None or self.source[at + 1] == "/":
                at += 2
            else:
                name = tag.group(1).lower()
                if name == "base":
                    self.addresses.take_base(address_in(tag.group(2)))
                at = self.behind(name, tag.end()) if name == "title" or _SILENT.fullmatch(name) else tag.end()

    def link(self, attributes: str) -> None:
        """Write the target of the link that ends here, and remember the next one's."""
        if self.href:
            self.addresses.write(" (", self.href, ")")
        url = address_in(attributes)
        self.href = url if is_written(url) else ""

    def words(self, text: str) -> None:
        """Write words; what would be white space on a page is one space."""
        text = text if self.opened["pre"] else re.sub(r"[ \t\r\n\f\xa0]+", " ", text)
        if self.hidden_from or (self.opened["svg"] and not self.is_in_shown_svg()):
            self.hidden += len(text.strip()) if self.hidden_from or self.open[-1] not in _TOOLTIPS else 0
            return
        if self.opened["rp"] and (len(text.strip()) > 1 or text.strip().isalnum()):
            self.hidden += len(text.strip())  # brackets of small text above other text are kept, and no more
            return
        if self.opened["math"]:
            text = (text if self.open[-1] == "mtext" else text.strip()).translate(_INVISIBLE_SIGNS)
        if not text:
            return
        self.follows_math = self.follows_math and text.isspace()
        if gap := self.formula.gap(text):
            self.pieces.append(gap)
        written = self.out.words(text)
        if self.opened["pre"]:
            self.preformatted.add(written)

    def after(self, mark: str, at: int) -> int:
        found = self.source.find(mark, at)
        return len(self.source) if found < 0 else found + len(mark)
