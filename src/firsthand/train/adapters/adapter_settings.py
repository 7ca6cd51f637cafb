"""`AdapterSettings`: the part of a recipe's `Config` that asks for an adapter. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from firsthand.errors import ConfigError
from firsthand.train.adapters.lora_config import LoRAConfig


@dataclass(frozen=True)
class AdapterSettings:
    """Train all weights, or an adapter beside frozen ones."""

    adapter: Literal["none", "lora", "rslora", "dora"] = "none"
    """The adapter to train; none trains all weights. Adapters take about ten times the learning rate."""
    rank: int = 16
    """Rank of the adapter's matrices."""
    alpha: float = 32.0
    """The adapter's product is multiplied by alpha / rank; with rslora by alpha / sqrt(rank)."""
    dropout: float = 0.0
    """Share of the adapter's inputs that a training step leaves out."""
    targets: tuple[str, ...] = ("all",)
    """Matrices to adapt: all of the layers, or names such as q_proj,v_proj."""
    base_weights: Literal["kept", "nf4", "int4", "blocks"] = "kept"
    """The frozen weights: as floats, rounded to 4 bits (QLoRA), or in a GGUF file's own blocks."""
    begin_with: Path | None = None
    """Go on from the adapter of a run, or in a folder, in place of a fresh one; rank, scale and matrices are its own, and
    `adapter` and `targets`, if given, must be as it has them. With agents the folder holds one for each, by their names."""

    def __post_init__(self) -> None:
        self.config(0)
        for field in fields(AdapterSettings) if self.adapter == "none" else ():
            value = getattr(self, field.name)
            if value != field.default:
                shown = ",".join(value) if isinstance(value, tuple) else value
                raise ConfigError(
                    f"{field.name} is {shown}, and adapter is none: give --adapter lora, rslora or dora too"
                )

    def config(self, seed: int) -> LoRAConfig | None:
        """The adapter to put beside the model, None to train all weights."""
        if self.adapter == "none":
            return None
        return LoRAConfig(
            kind="dora" if self.adapter == "dora" else "lora",
            rank=self.rank,
            alpha=self.alpha,
            rank_stabilised=self.adapter == "rslora",
            dropout=self.dropout,
            targets=self.targets,
            base="kept" if self.base_weights == "blocks" else self.base_weights,
            seed=seed,
        )
