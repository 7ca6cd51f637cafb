"""Reads DOCX: paragraphs, headings as `#` lines, lists, tables, formulas on one line, footnotes and endnotes. Deleted and
hidden text is left out, and headers, footers, comments, diagrams, charts and embedded documents are named in a remark.

Struck text stands between `~~`, and raised digits are `10^3`, by the format itself or that of a style; `10(2)` has small
text above it. Hidden is what has the format itself; styles that hide are not looked up.

A place is a paragraph, counted from 1, because pages exist only once Word has laid the text out.
"""

from __future__ import annotations

import re
from contextlib import suppress

from firsthand.errors import DataError
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.documents.clean_text import clean, clean_line
from firsthand.retrieval.documents.docx_parts import unread_parts
from firsthand.retrieval.documents.file_content import (
    MAX_TITLE_CHARS,
    FileContent,
    ReadSettings,
    first_heading,
    hidden_text_note,
)
from firsthand.retrieval.documents.symbol_fonts import UNKNOWN, symbol
from firsthand.retrieval.documents.zip_parts import ZipParts, parse_xml
from firsthand.system.formula_text import (
    CELLS,
    DEGREE_AND_ROOT,
    FRACTION,
    LOWERED,
    LOWERED_RAISED,
    RAISED,
    ROWS,
    SIGN_WITH_LIMITS,
    WORDS,
    FormulaText,
    bracketed,
)
from firsthand.system.plurals import count_of
from firsthand.system.raised_text import Level, mark_between

_HEADING = re.compile(r"(?:heading|titre|überschrift|título|titolo)\s*([1-9])", re.IGNORECASE)
_SIGNS = {"tab": "\t", "ptab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
_LEFT_OUT = ("del", "moveFrom", "Fallback")
"""Deleted and moved text, and what stands for a text box in older versions of Word, which is there twice."""

_FORMATS = ("vanish", "strike", "dstrike", "vertAlign", "position")
_FORMATS_OF_STYLES = ("strike", "dstrike", "vertAlign", "position")
_MAX_BASES = 20
"""Styles that are based on one another."""
_SEEN_HALF_POINTS = 4
"""Text that is moved up or down by less stands on its line."""
_OTHER_FORMATS = ("pPr", "rPrChange", "tcPrChange", "trPrChange")
_MAX_COLUMNS = 100
"""Columns of a row up to which cells that span several are followed by empty ones."""
_OFF = ("0", "false", "off")
_OF_FIELDS = ("altChunk", "ddList", "listEntry", "result", "instrText", "fldChar")
_MAX_INSTRUCTION = 1000
_LEVELS: dict[str, Level] = {"superscript": "^", "subscript": "_"}
_FORMULAS = {
    "f": FRACTION, "sSup": RAISED, "sSub": LOWERED, "sSubSup": LOWERED_RAISED, "limLow": LOWERED, "limUpp": RAISED,
    "rad": DEGREE_AND_ROOT, "nary": SIGN_WITH_LIMITS, "sPre": SIGN_WITH_LIMITS, "func": WORDS, "eqArr": ROWS, "m": ROWS,
    "mr": CELLS, "d": bracketed("(", "|", ")"),
}  # fmt: skip
_FORMULA_PARTS = ("num", "den", "e", "sub", "sup", "lim", "deg", "fName", "mr")


def read_docx(data: bytes, name: str, settings: ReadSettings) -> FileContent:
    """The text of the body and the notes. DataError for bombs, encrypted files and damaged ones."""
    parts = ZipParts(data, "DOCX")
    styles = _Styles(parts.read("word/styles.xml")) if "word/styles.xml" in parts.names else None
    body = _Body(styles.levels if styles else {}, styles)
    body.read(parts.read("word/document.xml"))
    notes: list[str] = []
    for part in ("word/footnotes.xml", "word/endnotes.xml"):
        if part in parts.names:
            try:
                body.read(parts.read(part))
            except DataError as error:
                notes.append(str(error))
    if body.unknown_symbols:
        notes.append(f"{count_of(body.unknown_symbols, 'symbol')} of other fonts than Symbol, read as {UNKNOWN}")
    text, places, dropped = clean("".join(body.written), body.places)
    title = ""
    if "docProps/core.xml" in parts.names:
        with suppress(DataError):
            title = _Properties(parts.read("docProps/core.xml")).title
    if body.embedded:
        notes.append(f"{count_of(body.embedded, 'embedded document')} (altChunk) not read")
    if body.equations:
        notes.append(f"{count_of(body.equations, 'formula')} of EQ fields not read")
    notes += unread_parts(parts)
    document = Document(name, text, title or first_heading(text), meta={"kind": "docx"}, locations=places)
    return FileContent((document,), tuple(notes + dropped + hidden_text_note(body.hidden)))


class _Styles:
    """The heading level of each paragraph style, and the formats of styles."""

    def __init__(self, data: bytes):
        self.levels: dict[str, int] = {}
        self._style = ""
        self._own: dict[str, dict[str, str]] = {}
        self._bases: dict[str, str] = {}
        self._merged: dict[str, dict[str, str]] = {}
        self._other_formats = 0
        """Open elements whose formats are not a style's own: its paragraphs' marks, or those of a table's first row."""
        parse_xml(data, self._start, self._end, lambda words: None)

    def formats(self, style: str) -> dict[str, str]:
        """The formats of a style, by their names, those of the styles it is based on included."""
        if style not in self._merged:
            self._merged[style] = self._merge(style)
        return self._merged[style]

    def _merge(self, style: str) -> dict[str, str]:
        chain = [style]
        while len(chain) < _MAX_BASES and (base := self._bases.get(chain[-1])) is not None:
            chain.append(base)
        merged: dict[str, str] = {}
        for each in reversed(chain):
            merged |= self._own.get(each, {})
        return merged

    def _end(self, name: str) -> None:
        self._other_formats -= name in ("pPr", "tblStylePr")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._other_formats += name in ("pPr", "tblStylePr")
        if name == "style":
            self._style = attributes.get("styleId", "")
        elif name == "basedOn" and self._style:
            self._bases[self._style] = attributes.get("val", "")
        elif name in _FORMATS_OF_STYLES and self._style and not self._other_formats:
            self._own.setdefault(self._style, {})[name] = attributes.get("val", "true")
        elif name == "name" and self._style:
            value = attributes.get("val", "")
            if found := _HEADING.match(value):
                self.levels[self._style] = int(found[1])
            elif value.lower() == "title":
                self.levels[self._style] = 1
        elif name == "outlineLvl" and self._style and (level := attributes.get("val", "")) in tuple("012345678"):
            self.levels.setdefault(self._style, int(level) + 1)


class _Properties:
    """The title among the document's properties."""

    def __init__(self, data: bytes):
        self._inside, self._words = False, ""
        parse_xml(data, self._start, self._end, self._add)
        self.title = clean_line(self._words)[:MAX_TITLE_CHARS]

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._inside = name == "title"

    def _end(self, name: str) -> None:
        self._inside = False

    def _add(self, words: str) -> None:
        if self._inside:
            self._words += words[: 10 * MAX_TITLE_CHARS]


class _Body:
    """The paragraphs of parts that are read one after the other."""

    def __init__(self, levels: dict[str, int], styles: _Styles | None = None):
        self.levels = levels
        self._styles = styles
        self.written: list[str] = []
        self.places: list[Location] = []
        self._length = self._paragraphs = 0
        self._begin()
        self._cells: list[list[list[str]]] = []
        """The texts of each cell of the open rows, innermost last."""
        self._spanned: list[int] = []
        """Columns that the last cell of each open row spans beyond its own."""
        self._around: list[tuple[list[str], int, bool, bool, FormulaText, dict[str, str], Level]] = []
        """The paragraphs around the one that is read: a text box has paragraphs inside of one."""
        self._in_text = self._left_out = 0
        self._formats: list[dict[str, str]] = []
        """The formats of each open run: hidden, struck, raised or lowered. Runs nest where one holds a text box."""
        self._formats_of_style: list[dict[str, str]] = []
        """Those of the style of each open run."""
        self._other_formats = 0
        """Open elements whose formats are not a run's own: its paragraph's, or those of an earlier revision."""
        self._elements: list[str] = []
        """The open elements of a formula, from its own on."""
        self._signs: dict[str, str] = {}
        """The brackets of a formula's delimiters, or the sign of its sum or integral."""
        self.hidden = 0
        """Characters of hidden text."""
        self.unknown_symbols = self.embedded = self.equations = 0
        self._small: list[int] = []
        """Number of the piece with which each open small text, which stands above another text, begins."""
        self._small_text = ""
        self._choices: list[str] = []
        """The entries of an old drop-down field."""
        self._chosen = 0
        self._fields: list[str] = []
        """The instructions of each open field, their beginnings."""
        self._in_instruction = False

    def read(self, data: bytes) -> None:
        self._cells, self._spanned, self._in_text, self._left_out = [], [], 0, 0
        self._formats, self._other_formats, self._elements = [], 0, []
        self._formats_of_style, self._small, self._fields, self._in_instruction = [], [], [], False
        parse_xml(data, self._start, self._end, self._add)

    def _begin(self) -> None:
        self._runs: list[str] = []
        self._level = 0
        self._is_item = False
        self._is_struck = False
        self._level_of_run: Level = ""
        self._formats_of_paragraph: dict[str, str] = {}
        self._formula = FormulaText(self._runs)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if (self._elements or name == "oMath") and not self._left_out and name not in _LEFT_OUT:
            self._start_in_formula(name, attributes.get("val"))
        if name == "t":
            self._in_text += 1
        elif name == "r":
            self._formats.append({})
            self._formats_of_style.append({})
        elif name == "rPr" and self._formats and ("baseline" in attributes or "strike" in attributes):
            self._format_drawn(attributes.get("baseline", ""), attributes.get("strike", "noStrike"))
        elif name == "rStyle" and self._formats and not self._other_formats and self._styles:
            self._formats_of_style[-1] = self._styles.formats(attributes.get("val", ""))
        elif name in _OTHER_FORMATS:
            self._other_formats += 1
        elif name in _FORMATS and self._formats and not self._other_formats:
            self._formats[-1][name] = attributes.get("val", "true")
        elif name == "p":
            self._around.append(
                (self._runs, self._level, self._is_item, self._is_struck, self._formula, self._formats_of_paragraph,
                 self._level_of_run)
            )  # fmt: skip
            self._begin()
        elif name == "pStyle":
            style = attributes.get("val", "")
            found = re.fullmatch(r"[Hh]eading\s?([1-9])", style)
            self._level = self.levels.get(style) or (int(found[1]) if found else 0)
            self._formats_of_paragraph = self._styles.formats(style) if self._styles else {}
        elif name == "outlineLvl" and (level := attributes.get("val", "")) in tuple("012345678"):
            self._level = int(level) + 1
        elif name == "numPr":
            self._is_item = True
        elif name in _SIGNS and not self._left_out:
            self._runs.append(_SIGNS[name])
        elif name == "sym" and not self._left_out:
            self._symbol(attributes.get("font", ""), attributes.get("char", ""))
        elif name == "rt":
            self._small.append(len(self._runs))
        elif not self._left_out and name in _OF_FIELDS:
            self._start_of_field(name, attributes)
        elif name in _LEFT_OUT:
            self._left_out += 1
        elif name == "tr":
            self._cells.append([])
            self._spanned.append(0)
        elif name == "tc" and self._cells:
            self._end_cell()
            self._cells[-1].append([])
        elif name in ("gridSpan", "gridBefore") and self._cells and not self._other_formats:
            self._span(name, attributes.get("val", "")[:5])

    def _start_of_field(self, name: str, attributes: dict[str, str]) -> None:
        value = attributes.get("val", "")
        if name == "altChunk":
            self.embedded += 1
        elif name == "ddList":
            self._choices, self._chosen = [], 0
        elif name == "listEntry":
            self._choices.append(value)
        elif name == "result":
            self._chosen = int(value) if re.fullmatch("[0-9]{1,4}", value) else 0
        elif name == "instrText":
            self._in_instruction = True
        elif attributes.get("fldCharType") == "begin":
            self._fields.append("")
        elif attributes.get("fldCharType") == "end" and self._fields:
            self.equations += self._fields.pop().split()[:1] in (["EQ"], ["eq"])

    def _format_drawn(self, baseline: str, strike: str) -> None:
        """Note the formats of a run of a drawing, whose baseline is moved by thousandths of a percent."""
        if re.fullmatch("-?[1-9][0-9]{0,6}", baseline):
            self._formats[-1]["vertAlign"] = "subscript" if baseline.startswith("-") else "superscript"
        if strike != "noStrike":
            self._formats[-1]["strike"] = "true"

    def _start_in_formula(self, name: str, value: str | None) -> None:
        if self._is_part(name):
            if name == "e" and self._elements[-1] in ("rad", "nary"):
                self._formula.skip()
            self._formula.start_part()
        self._elements.append(name)
        if name in _FORMULAS:
            self._formula.start(_FORMULAS[name])
        elif name in ("dPr", "naryPr"):
            self._signs = {}
        elif name in ("begChr", "sepChr", "endChr", "chr"):
            self._signs[name] = value or ""

    def _end_in_formula(self, name: str) -> None:
        self._elements.pop()
        if name in _FORMULAS:
            self._formula.end()
        elif name == "dPr" and self._elements[-1:] == ["d"]:
            beginning, between, ending = (
                self._signs.get(key, usual) for key, usual in (("begChr", "("), ("sepChr", "|"), ("endChr", ")"))
            )
            self._formula.reshape(bracketed(beginning, between, ending))
        elif name == "naryPr":
            self._runs.append(self._signs.get("chr", "∫"))
        if self._is_part(name):
            self._formula.end_part()

    def _is_part(self, name: str) -> bool:
        """True if an element that begins or ended is a part of the formula around it."""
        return name in _FORMULA_PARTS and bool(self._elements) and self._elements[-1] in _FORMULAS

    def _end(self, name: str) -> None:
        if self._elements and not self._left_out:
            self._end_in_formula(name)
        if name == "t":
            self._in_text -= 1
        elif name in _LEFT_OUT:
            self._left_out -= 1
        elif name == "r" and self._formats:
            self._formats.pop()
            self._formats_of_style.pop()
        elif name == "rt" and self._small:
            begun = self._small.pop()
            self._small_text = "".join(self._runs[begun:])
            del self._runs[begun:]
        elif name == "ruby" and self._small_text.strip():
            self._runs.append(f"({self._small_text.strip()})")
            self._small_text = ""
        elif name == "instrText":
            self._in_instruction = False
        elif name == "ddList" and not self._left_out and 0 <= self._chosen < len(self._choices):
            self._write_words(self._choices[self._chosen])
        elif name in _OTHER_FORMATS:
            self._other_formats -= 1
        elif name == "p":
            self._paragraph()
            around = self._around.pop()
            self._runs, self._level, self._is_item, self._is_struck, self._formula = around[:5]
            self._formats_of_paragraph, self._level_of_run = around[5:]
        elif name == "tr" and self._cells:
            self._end_cell()
            self._spanned.pop()
            row = " | ".join(" ".join(" ".join(cell).split()) for cell in self._cells.pop())
            if row.replace("|", "").strip():
                if self._cells and self._cells[-1]:
                    self._cells[-1][-1].append(row)
                else:
                    self._write(f"| {row} |\n")
        elif name == "tbl" and not self._cells:
            self._write("\n")

    def _span(self, name: str, value: str) -> None:
        """Note the columns that a cell spans, or that a row leaves out before its first cell."""
        columns = int(value) if value.isascii() and value.isdigit() else 0
        if name == "gridSpan":
            self._spanned[-1] = max(0, columns - 1)
        else:
            self._cells[-1] += [[] for _ in range(min(columns, _MAX_COLUMNS) - len(self._cells[-1]))]

    def _end_cell(self) -> None:
        """Put empty cells in the place of the columns that the last cell spans."""
        row = self._cells[-1]
        row += [[] for _ in range(min(self._spanned[-1], _MAX_COLUMNS - len(row)))]
        self._spanned[-1] = 0

    def _symbol(self, font: str, code: str) -> None:
        sign = symbol(font, code)
        hidden = self.hidden
        self._write_words(sign)
        if sign == UNKNOWN and hidden == self.hidden:
            self.unknown_symbols += 1

    def _add(self, words: str) -> None:
        if self._in_text and not self._left_out:
            self._write_words(words)
        elif self._in_instruction and self._fields and len(self._fields[-1]) < _MAX_INSTRUCTION:
            self._fields[-1] += words

    def _write_words(self, words: str) -> None:
        own, of_style = (self._formats[-1], self._formats_of_style[-1]) if self._formats else ({}, {})
        formats = self._formats_of_paragraph | of_style | own
        if formats.get("vanish", "0") not in _OFF:
            self.hidden += len(words)
            return
        is_struck = any(formats.get(name, "0") not in _OFF for name in ("strike", "dstrike"))
        if is_struck != self._is_struck:
            self._runs.append("~~")
        if gap := self._formula.gap(words):
            self._runs.append(gap)
        level = _LEVELS.get(formats.get("vertAlign", ""), "") or _moved(formats.get("position", ""))
        if level != self._level_of_run and self._runs:
            self._runs.append(mark_between(self._runs[-1][-1:], words[:1], level))
        self._is_struck, self._level_of_run = is_struck, level
        self._runs.append(words)

    def _paragraph(self) -> None:
        self._paragraphs += 1
        text = "".join([*self._runs, "~~"] if self._is_struck else self._runs).strip()
        if not text:
            return
        if self._cells and self._cells[-1]:
            self._cells[-1][-1].append(text)
            return
        self.places.append(Location(self._length, "paragraph", str(self._paragraphs)))
        if self._level:
            self._write(f"{'#' * min(self._level, 6)} {' '.join(text.split())}\n\n")
        else:
            self._write(f"- {text}\n" if self._is_item else f"{text}\n\n")

    def _write(self, text: str) -> None:
        self.written.append(text)
        self._length += len(text)


def _moved(half_points: str) -> Level:
    """The level of text that is moved up by so much, or down by a negative number."""
    moved = int(half_points) if re.fullmatch("-?[0-9]{1,5}", half_points) else 0
    return "" if abs(moved) < _SEEN_HALF_POINTS else "^" if moved > 0 else "_"
