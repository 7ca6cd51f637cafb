"""Settings that recipes share, as dataclasses for their `Config`. No torch."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Literal

from firsthand.errors import ConfigError
from firsthand.nn.architecture import Architecture, Rope


def expect_range(config: object, *names: str, most: float | None = None) -> None:
    """ConfigError unless these settings are finite numbers from 0 to `most`; one that clips may be infinite."""
    for name in names:
        value = getattr(config, name)
        top = most if most is not None else math.inf if "clip" in name else sys.float_info.max
        if not 0 <= value <= top:  # NaN is in no range
            expected = f"from 0 to {most:g}" if most is not None else "a finite number" if value > 0 else "0 or more"
            raise ConfigError(f"{name} is {value}: expected {expected}")


@dataclass(frozen=True)
class LoopSettings:
    """The loop: steps, batches, seeds, checkpoints."""

    steps: int = 1000
    """Optimizer steps of the whole run; 0 where the recipe counts epochs."""
    micro_tokens: int = 4096
    """Tokens of one forward pass; smaller needs less memory and changes no result."""
    clip_norm: float = 1.0
    """Bound on the norm of the gradient; 0 is none."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the forward pass; weights and optimizer stay float32."""
    device: str = "cpu"
    """`cpu`, `cuda`, `cuda:N`, or `auto`."""
    seed: int = 0
    """Decides data order, fresh weights and all else that is drawn."""
    checkpoint_every: int = 100
    """Steps between checkpoints, or five minutes where that comes first; 0 saves none."""
    keep: int = 2
    """Checkpoints that are kept."""
    shard: bool = True
    """Under torchrun: spread weights, gradients and optimizer over the processes (FSDP2); false keeps a copy in each."""

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("micro_tokens", 1), ("clip_norm", 0), ("checkpoint_every", 0), ("keep", 1)):
            if not getattr(self, name) >= least:
                raise ConfigError(f"{name} is {getattr(self, name)}: expected {least} or more")


@dataclass(frozen=True)
class OptimizerSettings:
    """The optimizer and its rates."""

    optimizer: Literal["adamw", "muon"] = "adamw"
    """AdamW for all weights, or Muon for the matrices of blocks and AdamW for the rest."""
    lr: float = 1e-3
    """Peak learning rate; Muon's updates are scaled to the size of AdamW's, so both take the same."""
    beta1: float = 0.9
    """AdamW: decay of the mean of gradients."""
    beta2: float = 0.95
    """AdamW: decay of the mean of squared gradients (0.95 as in GPT-3)."""
    eps: float = 1e-8
    """AdamW: added to the root of the mean square."""
    momentum: float = 0.95
    """Muon: decay of the sum of gradients."""
    weight_decay: float = 0.1
    """Decoupled decay, of matrices only."""

    def __post_init__(self) -> None:
        for name, good, expected in (
            ("lr", 0 <= self.lr < 1e3, "0 or more"),
            ("beta1", 0 <= self.beta1 < 1, "from 0 to below 1"),
            ("beta2", 0 <= self.beta2 < 1, "from 0 to below 1"),
            ("momentum", 0 <= self.momentum < 1, "from 0 to below 1"),
            ("eps", 0 < self.eps < 1, "between 0 and 1"),
            ("weight_decay", 0 <= self.weight_decay < 1e3, "0 or more"),
        ):
            if not good:
                raise ConfigError(f"{name} is {getattr(self, name)}: expected {expected}")


@dataclass(frozen=True)
class ModelSettings:
    """The shape of a fresh model: pre-norm, SwiGLU, rotary positions, RMSNorm (the Llama family)."""

    layers: int = 4
    """Blocks."""
    hidden_size: int = 192
    """Width of the residual stream."""
    heads: int = 6
    """Attention heads."""
    kv_heads: int = 0
    """Heads of keys and values; 0 is as many as `heads`."""
    intermediate_size: int = 0
    """Width of the MLP; 0 is 8/3 of `hidden_size`, rounded up to a multiple of 32."""
    context: int = 256
    """Tokens that the model sees at most."""
    tie_embeddings: bool = True
    """The output head is the embedding matrix."""

    def __post_init__(self) -> None:
        for name in ("layers", "hidden_size", "heads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: expected 1 or more")
        if self.hidden_size % (2 * self.heads):
            raise ConfigError(f"hidden_size is {self.hidden_size}: expected a multiple of twice the {self.heads} heads")
        if self.context < 2:
            raise ConfigError(f"context is {self.context}: expected 2 or more")

    def architecture(self, vocab_size: int) -> Architecture:
        """The architecture with a vocabulary of this size. ConfigError if sizes do not fit."""
        return Architecture(
            family="llama",
            vocab_size=vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size or -(-self.hidden_size * 8 // 3 // 32) * 32,
            num_layers=self.layers,
            num_heads=self.heads,
            num_kv_heads=self.kv_heads or self.heads,
            head_dim=self.hidden_size // self.heads,
            max_position=self.context,
            norm_eps=1e-5,
            windows=(None,) * self.layers,
            ropes=(Rope(),) * self.layers,
            tie_embeddings=self.tie_embeddings,
        )
