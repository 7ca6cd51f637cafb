"""`LoRAConfig`: the adapter that a recipe trains. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from firsthand.errors import ConfigError

MAX_RANK = 4096


@dataclass(frozen=True)
class LoRAConfig:
    """A low-rank adapter of a model's matrices."""

    kind: Literal["lora", "dora"] = "lora"
    """`lora` adds a product of two thin matrices (Hu et al., 2021); `dora` trains row lengths too (Liu et al., 2024)."""
    rank: int = 16
    """Rows of A: trainable parameters grow with it."""
    alpha: float = 32.0
    """The product is multiplied by alpha / rank."""
    rank_stabilised: bool = False
    """Multiply by alpha / sqrt(rank), so that high ranks learn as fast (rsLoRA, Kalajdzievski, 2023)."""
    dropout: float = 0.0
    """Share of the adapter's inputs that a training step leaves out."""
    targets: tuple[str, ...] = ("all",)
    """Matrices to adapt: `all` of the layers, or names such as `q_proj`, `layers.3.mlp.up_proj` or an untied `lm_head`."""
    init: Literal["kaiming", "gaussian"] = "kaiming"
    """A begins uniform in 1 / sqrt(inputs), as PEFT's does, or normal with standard deviation 1 / rank; B begins at 0."""
    base: Literal["kept", "nf4", "int4"] = "kept"
    """The frozen weights: as they were loaded, or rounded to 4 bits (QLoRA, Dettmers et al., 2023)."""
    seed: int = 0
    """Draws A."""

    def __post_init__(self) -> None:
        checks = [
            ("kind", self.kind in ("lora", "dora"), "lora or dora"),
            ("rank", 1 <= self.rank <= MAX_RANK, f"1 to {MAX_RANK}"),
            ("alpha", math.isfinite(self.alpha) and self.alpha > 0, "a number above 0"),
            ("dropout", 0 <= self.dropout < 1, "0 or more and below 1"),
            ("targets", bool(self.targets), "`all`, or names of matrices"),
            ("init", self.init in ("kaiming", "gaussian"), "kaiming or gaussian"),
            ("base", self.base in ("kept", "nf4", "int4"), "kept, nf4 or int4"),
        ]
        for field, good, expected in checks:
            if not good:
                raise ConfigError(f"{field} of the adapter is {getattr(self, field)!r}: expected {expected}")

    @property
    def scale(self) -> float:
        """The factor of B A."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)
