"""The tables that a compiled step takes, and the names of their columns. Importing this needs no numba.

A NamedTuple as argument from Python costs about 1 us a call, since numba looks up its class each time; a plain tuple costs
0.1 us. So `decoder_step` is called with plain tuples of a table's fields and makes the NamedTuple inside, for nothing.
"""

# N packed tokens, M wanted rows, D hidden, F intermediate, L layers, H query heads, G kv heads, K head_dim, V vocabulary
# S adapters, P pieces of their rows, r rank, T tasks of attention, W windows

from __future__ import annotations

from typing import Any, NamedTuple


class ModelShape(NamedTuple):
    """Sizes and settings of a model: integers, which come to a kernel as one array, then float32 factors as another."""

    num_layers: int
    width: int
    """D"""
    inner: int
    """F"""
    num_heads: int
    num_kv_heads: int
    head_dim: int
    block_size: int
    """Slots of a block of the cache."""
    activation: int
    has_dense: int
    """1 if any matrix is of floats or any row has an adapter: then products read rows that are not rounded."""
    eps: Any
    attention_scale: Any
    embed_scale: Any


class Weights(NamedTuple):
    """A model's weights and angles, flat or by address."""

    matrices: Any
    """`DenseTiles.entry` or `Tiles.entry` of each matrix: L 7 5."""
    columns: Any
    """Offset of each matrix's outputs in the row of its product: 7."""
    places: Any
    """Offset of each norm and bias in `vectors`, -1 for none; the last row has the final norm first: L + 1, 13."""
    vectors: Any
    embed: Any
    """V D"""
    layers: Any
    """Window (0 is none), index of the window's plan, beginning of the angles: L 3."""
    cos: Any
    sin: Any


class Batch(NamedTuple):
    """The tokens of a step, and its attention work."""

    ids: Any
    """N"""
    positions: Any
    """N"""
    places: Any
    """Slot of each row, block * block_size + offset, for each kind of layers: 1 or 2, N."""
    tables: Any
    """Block tables of all chunks."""
    plans: Any
    """For each window its tasks (first, the one after the last) and its merged rows (the same): W 4."""
    tasks: Any
    """T 6, of all windows."""
    members: Any
    slots: Any
    """For each window: W N."""
    merged: Any
    wanted: Any
    """M"""


class CacheTables(NamedTuple):
    """The cache of all layers."""

    spans: Any
    """For each layer its row of `Batch.places`, its first block, and the one after its last: L 3."""
    keys: Any
    values: Any
    key_scales: Any
    value_scales: Any


class Adapted(NamedTuple):
    """The rows with adapters, and memory for what they add."""

    pieces: Any
    """First row, the one after the last, and which adapter: P 3."""
    entries: Any
    """`DenseTiles.entry` of A and of B for each matrix, an address of 0 where one is unchanged; the last row is the head's:
    L + 1, S 7 2 5. In `head` and `adapt` those of one layer: S 7 2 5."""
    rank: int
    """The highest, as whole tiles."""
    low: Any
    """3 N r"""
    lift: Any
    """3 N LIFT"""


class WorkingMemory(NamedTuple):
    """Working memory of a step."""

    stream: Any
    """The residual stream: N D."""
    rest: Any
    """Inputs of dense products."""
    rounded: Any
    """Inputs of blockwise products; empty where there are only dense ones."""
    wide: Any
    """Outputs of products."""
    partials: Any
    """Records of split attention."""


class Product(NamedTuple):
    """Matrices that multiply the same rows, side by side."""

    matrices: Any
    """The entries of a layer: 7 5."""
    columns: Any
    first: int
    last: int
    """The one after the last."""


class Inputs(NamedTuple):
    """Rows that enter a product: dense matrices take `rest`, `stride` apart, blockwise ones `rounded`."""

    rest: Any
    stride: int
    rounded: Any


class Outputs(NamedTuple):
    """Rows that leave a product, `stride` apart."""

    values: Any
    stride: int


class Norms(NamedTuple):
    """Vectors that a phase applies to rows, each by its place in `vectors`, -1 for none."""

    vectors: Any
    bias: int
    out_norm: int
    norm: int
    eps: Any


MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The matrices that the step computes, in the order of its tables."""
Q, K, V, O, GATE, UP, DOWN = range(7)  # noqa: E741
ADDRESS, KIND, TILES = range(3)
"""The first columns of an entry of a matrix."""
NORMS = ("attention_norm", "attention_out_norm", "mlp_norm", "mlp_out_norm", "q_norm", "k_norm")
"""The norms that the step computes, in the order of `Weights.places`; biases follow, in the order of the matrices."""
ATTENTION_NORM, ATTENTION_OUT_NORM, MLP_NORM, MLP_OUT_NORM, Q_NORM, K_NORM = range(6)
Q_BIAS, K_BIAS, V_BIAS, O_BIAS, GATE_BIAS, UP_BIAS, DOWN_BIAS = range(6, 13)
WINDOW, PLAN, ANGLES = range(3)
"""Columns of `Weights.layers`."""
FIRST_TASK, LAST_TASK, FIRST_MERGED, LAST_MERGED = range(4)
"""Columns of `Batch.plans`."""
LAYER_KIND, FIRST_BLOCK, LAST_BLOCK = range(3)
"""Columns of `CacheTables.spans`."""
FIRST_ROW, LAST_ROW, ADAPTER = range(3)
"""Columns of `Adapted.pieces`."""
