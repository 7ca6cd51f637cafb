"""Builds the projections that a block declares (`matrices`)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from firsthand.nn.architecture import Architecture
from firsthand.nn.matrices import Matrix


def add_projections(module: nn.Module, matrices: Sequence[Matrix], a: Architecture) -> None:
    """Give a module one `nn.Linear` for each matrix, under the matrix's own name."""
    for matrix in matrices:
        setattr(module, matrix.leaf, nn.Linear(matrix.inputs(a), matrix.outputs(a), bias=matrix.has_bias(a)))
