"""The tables that the compiled kernels of attention take; see `step/step_tables` for their cost."""

# N packed rows, T tasks, C chunks, B blocks, G kv heads, K head_dim, S slots of a block, P K rounded up to whole vectors

from __future__ import annotations

from typing import Any, NamedTuple


class Heads(NamedTuple):
    """Shapes of attention and its cache."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    block_size: int


class KeyValues(NamedTuple):
    """The cache of one layer, flat; the scales are empty unless it is int8."""

    keys: Any
    """B G K S"""
    values: Any
    """B G S P"""
    key_scales: Any
    """B G S"""
    value_scales: Any
    """B G S"""


class RowView(NamedTuple):
    """Rows of an array: row i begins at values[start + i * stride]."""

    values: Any
    start: int
    stride: int


class Work(NamedTuple):
    """The work of one layer's attention (`work_split.plan`)."""

    tables: Any
    """The block tables of all chunks, one after another."""
    tasks: Any
    """T 6; its columns are below."""
    members: Any
    """The packed rows of the tasks."""
    positions: Any
    """The position of each packed row: N."""
    slots: Any
    """The record of a split row's segment s is at slots[row] + s: N."""


class SegmentBounds(NamedTuple):
    """The positions in a segment that each query of an item sees: from low to below high."""

    lows: Any
    highs: Any


TABLE, FIRST_SEGMENT, LAST_SEGMENT, FIRST_MEMBER, NUM_MEMBERS, IS_SPLIT = range(6)
"""Columns of a task; LAST_SEGMENT is the one after the last."""
