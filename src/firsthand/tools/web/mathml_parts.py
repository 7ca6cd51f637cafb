"""Elements of MathML that have parts, and the signs that stand between these on one line."""

from __future__ import annotations

from firsthand.system.formula_text import (
    CELLS,
    FRACTION,
    LOWERED,
    LOWERED_RAISED,
    RAISED,
    ROOT,
    ROOT_OF_DEGREE,
    ROWS,
    bracketed,
)

MATHML_PARTS = {
    "mfrac": FRACTION, "msup": RAISED, "mover": RAISED, "msub": LOWERED, "munder": LOWERED, "msubsup": LOWERED_RAISED,
    "munderover": LOWERED_RAISED, "mmultiscripts": LOWERED_RAISED, "msqrt": ROOT, "mroot": ROOT_OF_DEGREE, "mtable": ROWS,
    "mtr": CELLS, "mfenced": bracketed("(", ", ", ")"),
}  # fmt: skip
