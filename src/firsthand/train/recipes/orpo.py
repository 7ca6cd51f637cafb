"""ORPO: fine-tuning on the chosen answer and an odds ratio against the rejected one, without a reference."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand.train.preference_settings import PreferenceSettings

if TYPE_CHECKING:
    from torch import Tensor

    from firsthand.train.preference_training import PairNumbers

EXAMPLES = "firsthand train orpo pairs.jsonl --model MODEL --lr 3e-4 --steps 300"


@dataclass(frozen=True)
class Config:
    """Odds ratio preference optimisation (Hong et al., 2024, arXiv:2403.07691)."""

    data: str = field(default="", metadata={"positional": True})
    """JSONL with `prompt`, `chosen` and `rejected`."""
    weight: float = 0.1
    """The paper's lambda: weight of the odds ratio."""
    training: PreferenceSettings = field(default_factory=PreferenceSettings)


def loss(pairs: PairNumbers, config: Config) -> Tensor:
    """Equation 6: the mean cross-entropy of the chosen answer's tokens, and the odds ratio (equation 7)."""
    from firsthand.train.losses.pair_losses import orpo_loss

    chosen, rejected = pairs.means
    return orpo_loss(chosen, rejected, weight=config.weight) - chosen


def orpo(config: Config) -> Path:
    """Trains the model; returns its folder."""
    from firsthand.train.preference_training import train_preferences

    return train_preferences(
        config.data, config.training, lambda pairs: loss(pairs, config), recipe="orpo", needs_reference=False
    )
