"""IPO: DPO with a squared loss, which wants a margin and no more."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand.train.preference_settings import PreferenceSettings

if TYPE_CHECKING:
    from torch import Tensor

    from firsthand.train.preference_training import PairNumbers

EXAMPLES = "firsthand train ipo pairs.jsonl --model MODEL --lr 3e-4 --steps 300"


@dataclass(frozen=True)
class Config:
    """Identity preference optimisation (Azar et al., 2023, arXiv:2310.12036)."""

    data: str = field(default="", metadata={"positional": True})
    """JSONL with `prompt`, `chosen` and `rejected`."""
    beta: float = 0.1
    """The paper's tau: the margin of log-ratios that is wanted is 1 / (2 beta)."""
    per_token: bool = False
    """Divide each log-ratio by its answer's length first, as TRL does; the paper sums."""
    training: PreferenceSettings = field(default_factory=PreferenceSettings)


def loss(pairs: PairNumbers, config: Config) -> Tensor:
    """Equation 17: (log-ratio of the chosen answer - log-ratio of the rejected one - 1 / (2 beta))^2."""
    from firsthand.train.losses.pair_losses import ipo_loss

    chosen, rejected = pairs.ratios
    if config.per_token:
        chosen, rejected = chosen / pairs.chosen_length, rejected / pairs.rejected_length
    return ipo_loss(chosen, rejected, beta=config.beta)


def ipo(config: Config) -> Path:
    """Trains the model; returns its folder."""
    from firsthand.train.preference_training import train_preferences

    return train_preferences(config.data, config.training, lambda pairs: loss(pairs, config), recipe="ipo")
