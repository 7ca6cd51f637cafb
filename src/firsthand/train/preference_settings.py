"""Settings that the recipes of preference learning share. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from firsthand.errors import ConfigError
from firsthand.train.schedules import ScheduleSettings
from firsthand.train.settings import LoopSettings, OptimizerSettings


@dataclass(frozen=True)
class PreferenceSettings(LoopSettings, OptimizerSettings, ScheduleSettings):
    """Model, data size, loop, optimizer and schedule with the defaults of preference learning."""

    model: str = ""
    """The model to train: a folder or name of a model with float weights."""
    out: Path | None = None
    """Folder of the trained model; by default MODEL-RECIPE beside the model."""
    batch_size: int = 64
    """Comparisons of a step."""
    too_long: Literal["skip", "cut", "refuse"] = "skip"
    """What is done with a comparison longer than the context."""
    held_out: int = 0
    """The last so many comparisons are not trained on; their loss is not computed, but their accuracy is told at the end."""
    steps: int = 500
    """Optimizer steps of the whole run."""
    lr: float = 1e-6
    """Peak learning rate (1e-6: DPO; a model of 100,000 parameters takes 3e-4)."""
    weight_decay: float = 0.0
    """Decoupled decay, of matrices only."""
    beta2: float = 0.999
    """AdamW: decay of the mean of squared gradients."""
    schedule: Literal["cosine", "wsd", "constant"] = "constant"
    """After the warm-up: a cosine, constant with a linear decay at the end (WSD), or constant."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0 saves none."""

    def __post_init__(self) -> None:
        for part in (LoopSettings, OptimizerSettings, ScheduleSettings):
            part.__post_init__(self)
        if self.batch_size < 1 or self.held_out < 0:
            raise ConfigError(f"batch_size is {self.batch_size} and held_out {self.held_out}: expected 1 and 0 or more")
