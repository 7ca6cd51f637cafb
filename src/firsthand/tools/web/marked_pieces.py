"""The text of a page in pieces, with the marks that keep apart what it draws apart: raised, struck and small text, blocks.

An element's marks are those of its tag and of its own `style`, so that both read alike.
"""

from __future__ import annotations

from dataclasses import dataclass

from firsthand.system.raised_text import Level, mark_between
from firsthand.tools.web.inline_style import level_of, stands_apart, strikes, style_of
from firsthand.tools.web.page_tags import attributes_of

LEVELS: dict[str, Level] = {"sup": "^", "sub": "_"}
STRUCK = ("s", "del", "strike")
_BRACKETS = "([{\u300a\u3008\u3010\u3014\uff08\uff3b"


@dataclass
class _Styled:
    """An open element whose text is marked."""

    depth: int
    """Its number among the open elements, from 1."""
    marks: tuple[str, str]
    """The signs before and behind its words."""
    level: Level
    level_before: Level | None
    written_before: int
    is_apart: bool
    is_begun: bool = False


class MarkedPieces:
    """Words and marks in the order of the page."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.last = ""
        """The character that was written last."""
        self._level: Level | None = None
        """The level of the words that come next, where it is another one than that of those before."""
        self._written = self._written_before = 0
        """Number of text pieces written: in all, and before the raised or lowered text being read."""
        self._struck: list[tuple[int, int]] = []
        """(number of the piece, pieces of words before it) of each mark where struck text begins."""
        self._styled: list[_Styled] = []
        self._begun = 0
        """Number of the styled elements, outermost first, whose words have begun."""
        self._struck_by_style = 0
        """Number of open elements that are marked as struck."""
        self._is_apart = False
        """True if a space keeps the words that come next from those before."""

    def mark(self, text: str) -> None:
        """Write what stands between blocks or cells."""
        self.pieces.append(text)
        self.last = ""

    def words(self, text: str) -> int:
        """Write words, which are not empty, with the marks before them; returns the number of their piece."""
        if self._begun < len(self._styled) and not text.isspace():
            for each in self._styled[self._begun :]:
                each.is_begun = True
                if each.marks[0]:
                    self.mark(each.marks[0])
            self._begun = len(self._styled)
        if self._is_apart and self.last.strip() and not text[0].isspace():
            self.mark(" ")
        self._is_apart = False
        if self._level is not None:
            text = mark_between(self.last, text[0], self._level) + text
            self._level = None
        self._written, self.last = self._written + 1, text[-1]
        self.pieces.append(text)
        return len(self.pieces) - 1

    def keep_apart(self) -> None:
        """Keep the words that come next from those before."""
        self._is_apart = True

    def change_level(self, name: str, *, closes: bool) -> None:
        """Raise or lower what follows the tag of a `sup` or `sub`, or end that."""
        self._level = LEVELS[name] if not closes else "" if self._written > self._written_before else None
        self._written_before = self._written

    def strike(self, *, closes: bool) -> None:
        """Write the mark of struck text, or take the first one back if there is no such text."""
        if not closes:
            self._struck.append((len(self.pieces), self._written))
            self.mark("~~")
        elif self._struck:
            piece, written = self._struck.pop()
            if written == self._written:
                self.pieces[piece] = ""
            else:
                self.mark("~~")

    def start(self, name: str, attributes: str, depth: int, *, is_block: bool, is_struck: bool, in_svg: bool) -> None:
        """Begin an element that is shown; its marks are written with its first words. `is_struck`: by the tags around."""
        may_mark = in_svg or "style" in attributes.lower()
        style = style_of(attributes_of(attributes), in_svg=in_svg) if may_mark else {}
        marks, level = ("", ""), level_of(style) if not (is_block or name in LEVELS) else ""
        if name == "rt" and self.last not in tuple(_BRACKETS):
            marks = ("(", ")")
        if strikes(style) and not is_struck and not self._struck_by_style:
            marks = ("~~", "~~")
        is_apart = stands_apart(style) and not is_block
        if marks[0] or level or is_apart:
            self._struck_by_style += marks[0] == "~~"
            self._styled.append(_Styled(depth, marks, level, self._level, self._written, is_apart))
            self._level = level or self._level
            self._is_apart |= is_apart

    def end(self, depth: int) -> None:
        """End the open element of this number."""
        if not self._styled or self._styled[-1].depth != depth:
            return
        ended = self._styled.pop()
        self._struck_by_style -= ended.marks[0] == "~~"
        self._begun = min(self._begun, len(self._styled))
        if ended.is_begun and ended.marks[1]:
            self.mark(ended.marks[1])
        if ended.level:
            self._level = "" if self._written > ended.written_before else ended.level_before
        self._is_apart |= ended.is_apart
