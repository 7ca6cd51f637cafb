"""Formulas as text on one line, written as their elements begin and end: `(a+b)/2`, `10^3`, `x_1`, `√(a+b)`.

Readers of MathML and of Word's formulas say what each element is; this module writes the marks between the parts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_WHOLE = re.compile(r"[^\W\d_]*\d*(?:[.,]\d+)*|\([^()]*\)")
"""A part that needs no brackets: a word, a number, or one that has them. A product such as `2x` does."""
_MAX_PIECES = 8
"""A part of more pieces stands in brackets without a look at them."""


@dataclass(frozen=True)
class FormulaShape:
    """The signs around and between the parts of a formula's element."""

    marks: tuple[str, ...]
    """The mark before each part; the last one is also before all that follow."""
    grouped: bool = True
    """True if a part of several signs stands in brackets."""
    end: str = ""
    apart: bool = False
    """True if a space keeps the element from the word or number before it."""


FRACTION = FormulaShape(("", "/"), apart=True)
RAISED = FormulaShape(("", "^"))
LOWERED = FormulaShape(("", "_"))
LOWERED_RAISED = FormulaShape(("", "_", "^"))
ROOT = FormulaShape(("√",), apart=True)
ROOT_OF_DEGREE = FormulaShape(("", "^(1/"), end=")", apart=True)
DEGREE_AND_ROOT = FormulaShape(("^", "√"), apart=True)
SIGN_WITH_LIMITS = FormulaShape(("_", "^", " "))
WORDS = FormulaShape(("", " "), grouped=False)
ROWS = FormulaShape(("", "; "), grouped=False, apart=True)
CELLS = FormulaShape(("", ", "), grouped=False)


def bracketed(opening: str, between: str, closing: str) -> FormulaShape:
    """Parts in brackets, with a mark between them."""
    return FormulaShape((opening, between), grouped=False, end=closing)


class FormulaText:
    """Writes the marks of open elements into a list of pieces, to which its owner appends the words."""

    def __init__(self, pieces: list[str]):
        self._pieces = pieces
        self._shapes: list[tuple[FormulaShape, int]] = []
        """Each open element and the number of its parts so far."""
        self._parts: list[int] = []
        """Number of the piece with which each open part begins."""
        self._ended_at = -1
        """Number of pieces when an element or part ended last."""

    def start(self, shape: FormulaShape) -> None:
        """An element begins."""
        if shape.apart and self._last().isalnum():
            self._pieces.append(" ")
        self._shapes.append((shape, 0))

    def reshape(self, shape: FormulaShape) -> None:
        """Set the kind of the innermost element, where it is known only after the element begins."""
        self._shapes[-1] = shape, self._shapes[-1][1]

    def skip(self) -> None:
        """The part that comes next is the last one of its shape, whichever the element lacks."""
        shape, _ = self._shapes[-1]
        self._shapes[-1] = shape, len(shape.marks) - 1

    def end(self) -> None:
        """The innermost element ends."""
        shape, parts = self._shapes.pop()
        if parts and shape.end:
            self._pieces.append(shape.end)
        self._ended_at = len(self._pieces)

    def start_part(self) -> None:
        """A part of the innermost element begins."""
        shape, parts = self._shapes[-1]
        self._shapes[-1] = shape, parts + 1
        self._pieces.append(shape.marks[min(parts, len(shape.marks) - 1)])
        self._pieces.append("(" if shape.grouped else "")
        self._parts.append(len(self._pieces) - 1)

    def end_part(self) -> None:
        """The innermost part ends; an empty one leaves no mark."""
        start = self._parts.pop()
        if self._shapes[-1][0].grouped:
            count = len(self._pieces) - start - 1
            text = "".join(self._pieces[start + 1 :]).strip() if count <= _MAX_PIECES else None
            if text is not None and _WHOLE.fullmatch(text):
                self._pieces[start] = ""
                if not text and not self._shapes[-1][0].end:
                    self._pieces[start - 1] = ""
            else:
                self._pieces.append(")")
        self._ended_at = len(self._pieces)

    def part(self) -> None:
        """A word or number that comes next does not go on with the one before."""
        self._ended_at = len(self._pieces)

    def gap(self, words: str) -> str:
        """A space, if the words that come next would go on with the number or word that an element ended with."""
        is_next = self._ended_at == len(self._pieces) and words[:1].isalnum()
        return " " if is_next and (self._last().isalnum() or self._last() == ")") else ""

    def _last(self) -> str:
        """The last character of the pieces, of which the very last may be empty."""
        return next((piece[-1] for piece in reversed(self._pieces[-_MAX_PIECES:]) if piece), "")
