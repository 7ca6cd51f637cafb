"""Counts what a training step keeps in memory: trainable and frozen parameters, gradients, optimizer state."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from firsthand.nn.nf4 import FourBitLinear
from firsthand.nn.quant import BlockLinear, DenseLinear

ADAMW_BYTES = 8
"""Of each trainable parameter: two float32 moments."""


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes that a model's training keeps, activations apart."""

    trainable: int
    """Parameters that are trained."""
    frozen: int
    """Parameters that are not."""
    weight_bytes: int
    """Of all weights, quantised ones in their own form."""
    gradient_bytes: int
    optimizer_bytes: int
    """AdamW: two float32 moments of each trainable parameter."""

    @property
    def trainable_share(self) -> float:
        """Trainable parameters as a share of all."""
        return self.trainable / (self.trainable + self.frozen)

    @property
    def trained_bytes(self) -> int:
        """Gradients and optimizer state: what grows with the trainable parameters."""
        return self.gradient_bytes + self.optimizer_bytes

    def __str__(self) -> str:
        total = self.weight_bytes + self.trained_bytes
        return (
            f"{self.trainable:,} of {self.trainable + self.frozen:,} parameters are trained ({self.trainable_share:.1%}); "
            f"weights {_megabytes(self.weight_bytes)}, gradients and optimizer {_megabytes(self.trained_bytes)}, "
            f"together {_megabytes(total)}"
        )


def training_memory(model: nn.Module) -> TrainingMemory:
    """Counts a model's parameters and the memory of training it with AdamW; a tied matrix counts once."""
    trainable = frozen = weight_bytes = gradient_bytes = 0
    for parameter in model.parameters():
        weight_bytes += parameter.nbytes
        if parameter.requires_grad:
            trainable += parameter.numel()
            gradient_bytes += parameter.nbytes
        else:
            frozen += parameter.numel()
    weight_bytes += sum(buffer.nbytes for buffer in model.buffers())
    for module in model.modules():
        if isinstance(module, BlockLinear | DenseLinear):
            weight_bytes += module.tiles.memory.nbytes + (0 if module.bias is None else module.bias.nbytes)
        if isinstance(module, BlockLinear | DenseLinear | FourBitLinear):
            frozen += module.in_features * module.out_features
    return TrainingMemory(trainable, frozen, weight_bytes, gradient_bytes, trainable * ADAMW_BYTES)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.2f} MB"
