"""LoRA in a compiled step: out += (x A) B for the rows of each adapter.

Rows of one adapter are contiguous, and are cut into pieces. Rows are batch-invariant: both products are `float_products`',
whose sums have one order for any number of rows, and each row is added to once.
"""

# S adapters, P pieces, r rank
# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

from firsthand.kernels.jit import called
from firsthand.kernels.products.float_products import multiply_dense
from firsthand.kernels.step.row_ops import add_row
from firsthand.kernels.step.step_tables import ADAPTER, ADDRESS, FIRST_ROW, LAST_ROW, TILES
from firsthand.kernels.step.thread_team import done, take, wait
from firsthand.kernels.vectors import LANES

PIECE_ROWS = 16
"""Maximum rows of a piece."""
MATRICES = 3
"""Maximum matrices adapted in one phase."""
LIFT_TILES = 16
"""Tiles of 16 outputs that are computed before they are added."""
LIFT = LIFT_TILES * LANES


@called
def adapt(team: Any, phase: int, adapted: Any, entries: Any, product: Any, rows: int, x: Any, out: Any) -> None:
    """Add to the outputs of a product; an item is a piece of rows times a matrix. `entries` are those of the layer."""
    pieces, low, lift, rank = adapted.pieces, adapted.low, adapted.lift, adapted.rank
    matrices = product.last - product.first
    items = len(pieces) * matrices
    if items == 0:
        return
    while True:
        item = take(team, phase)
        if item >= items:
            break
        piece, which = item // matrices, product.first + item % matrices
        row, end, adapter = pieces[piece, FIRST_ROW], pieces[piece, LAST_ROW], pieces[piece, ADAPTER]
        inward, outward = entries[adapter, which, 0], entries[adapter, which, 1]
        if inward[ADDRESS] != 0:
            place = (which - product.first) * rows + row
            small, large = low[place * rank :], lift[place * LIFT :]
            source = x.rest[row * x.stride :]
            multiply_dense(inward, 0, inward[TILES], end - row, source, x.stride, small, 0, rank)
            tile = 0
            while tile < outward[TILES]:
                after = min(tile + LIFT_TILES, outward[TILES])
                multiply_dense(outward, tile, after, end - row, small, rank, large, -tile * LANES, LIFT)
                for r in range(end - row):
                    at = (row + r) * out.stride + product.columns[which] + tile * LANES
                    add_row(out.values, at, (after - tile) * LANES, large, r * LIFT)
                tile = after
        done(team, phase)
    wait(team, phase, items)
