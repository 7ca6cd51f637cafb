"""The tables of experts that a compiled step takes, beside those of `step_tables`. Importing this needs no numba."""

# N packed tokens, D hidden, F widest expert, L layers, E experts of all layers, C rows of a token, S = N * C sorted rows

from __future__ import annotations

from typing import Any, NamedTuple


class ExpertTables(NamedTuple):
    """A model's experts and routers, by address; integers and the scale come to the kernel as two arrays."""

    entries: Any
    """`DenseTiles.entry` or `Tiles.entry` of gate, up and down: E 3 5."""
    layers: Any
    """The columns below of each layer: L 5."""
    routers: Any
    """`DenseTiles.entry` of each layer's router, its shared expert's gate as the last row: L 1 5."""
    stride: int
    """Numbers from one row of logits to the next."""
    rows_of_token: int
    """The most experts that compute a token: C."""
    inner: int
    """F"""
    widest: int
    """The larger of D and F."""
    renormalise: int
    has_dense: int
    scale: Any


class ExpertMemory(NamedTuple):
    """Working memory of the experts of one layer."""

    logits: Any
    """N stride"""
    chosen: Any
    """N C"""
    shares: Any
    """N C, the weights of the chosen."""
    places: Any
    """N C, the sorted row of each pair of token and expert."""
    starts: Any
    """The first sorted row of each expert, and the end of the last: at most E + 2."""
    tokens: Any
    """S"""
    owners: Any
    """S, the expert of each sorted row."""
    rounded: Any
    """Inputs of blockwise products: S widest; empty where there are only dense ones."""
    wide: Any
    """Gate and up side by side: S 2 F."""
    states: Any
    """Inputs of dense products, then the outputs of all: S D."""


FIRST, ROUTED, CHOSEN, HAS_COMMON, IS_GATED = range(5)
"""Columns of `ExpertTables.layers`: the first entry, how many experts the router knows and chooses, whether one more expert
computes every token, and whether the router has a gate for it."""
GATE_OF, UP_OF, DOWN_OF = range(3)
"""The matrices of an expert."""
