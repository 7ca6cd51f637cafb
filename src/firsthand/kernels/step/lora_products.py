"""What LoRA adapters add to a step's products, for some rows each: out += (x A) B, compiled.

Rows of one adapter lie together, and are cut into pieces. A row's bits depend on the row and its adapter alone: both
products are `dense`'s, whose sums have one order for any number of rows, and each row is added to once.
"""

# S adapters, P pieces, r rank
# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

from firsthand.kernels.jit import called
from firsthand.kernels.products.float_products import multiply_dense
from firsthand.kernels.step.row_ops import add_row
from firsthand.kernels.step.thread_team import done, take, wait
from firsthand.kernels.vectors import LANES

PIECE_ROWS = 16
"""Rows of a piece at most."""
MATRICES = 3
"""Matrices that are adapted in one phase at most."""
LIFT_TILES = 16
"""Tiles of 16 outputs that are computed before they are added."""
LIFT = LIFT_TILES * LANES


@called
def adapt(
    team: Any, phase: int, pieces: Any, adapters: Any, columns: Any, first: int, last: int, rows: int, x: Any, stride: int,
    low: Any, rank: int, lift: Any, out: Any, out_stride: int,
) -> None:  # fmt: skip
    """Add to the products of some matrices, side by side in `out`; an item is a piece of rows times a matrix.

    `pieces`: first row, the one after the last, and which adapter, P 3. `adapters`: `DenseTiles.entry` of A and of B, S 7 2
    5, an address of 0 where a matrix is left alone. `low` and `lift` are working memory: 3 N r and 3 N LIFT.
    """
    matrices = last - first
    items = len(pieces) * matrices
    if items == 0:
        return
    while True:
        item = take(team, phase)
        if item >= items:
            break
        row, end, which = pieces[item // matrices, 0], pieces[item // matrices, 1], first + item % matrices
        inward, outward = (
            adapters[pieces[item // matrices, 2], which, 0],
            adapters[pieces[item // matrices, 2], which, 1],
        )
        if inward[0] != 0:
            place = (which - first) * rows + row
            small, large = low[place * rank :], lift[place * LIFT :]
            multiply_dense(inward, 0, inward[2], end - row, x[row * stride :], stride, small, 0, rank)
            tile = 0
            while tile < outward[2]:
                after = min(tile + LIFT_TILES, outward[2])
                multiply_dense(outward, tile, after, end - row, small, rank, large, -tile * LANES, LIFT)
                for r in range(end - row):
                    at = (row + r) * out_stride + columns[which] + tile * LANES
                    add_row(out, at, (after - tile) * LANES, large, r * LIFT)
                tile = after
        done(team, phase)
    wait(team, phase, items)
