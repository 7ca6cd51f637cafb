"""Learning-rate schedules: pure functions of the step, from 1, that give a factor of the peak rate. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from firsthand.errors import ConfigError


@dataclass(frozen=True)
class ScheduleSettings:
    """The learning rate over the run."""

    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    """After the warm-up: a cosine, constant with a linear decay at the end (WSD), or constant."""
    warmup_steps: int = 0
    """Steps in which the rate rises linearly to its peak; -1 is a twentieth of the run."""
    decay_steps: int = 0
    """WSD: steps of the final decay; 0 is a fifth of the run."""
    final_lr: float = 0.1
    """The rate of the last step, as a fraction of the peak (0.1: Chinchilla)."""

    def __post_init__(self) -> None:
        for name, good, expected in (
            ("warmup_steps", self.warmup_steps >= -1, "0 or more, or -1"),
            ("decay_steps", self.decay_steps >= 0, "0 or more"),
            ("final_lr", 0 <= self.final_lr <= 1, "from 0 to 1"),
        ):
            if not good:
                raise ConfigError(f"{name} is {getattr(self, name)}: expected {expected}")

    def over(self, steps: int) -> Callable[[int], float]:
        """The schedule of a run of so many steps. ConfigError if warm-up and decay take more."""
        decay = self.decay_steps or max(1, steps // 5)
        rise = steps // 20 if self.warmup_steps < 0 else self.warmup_steps
        needed = rise + (decay if self.schedule == "wsd" else 0)
        if needed > steps:
            raise ConfigError(
                f"the schedule's warm-up and decay take {needed} of {steps} steps: give fewer, or more steps"
            )
        if self.schedule == "constant":
            return lambda step: warmup(step, rise)
        if self.schedule == "wsd":
            return lambda step: wsd(step, steps, warmup_steps=rise, decay_steps=decay, final=self.final_lr)
        return lambda step: cosine(step, steps, warmup_steps=rise, final=self.final_lr)


def warmup(step: int, warmup_steps: int) -> float:
    """Rises linearly to 1 at step `warmup_steps`, and stays there."""
    return min(1.0, step / warmup_steps) if warmup_steps else 1.0


def cosine(step: int, steps: int, *, warmup_steps: int = 0, final: float = 0.1) -> float:
    """Warm-up, then half a cosine to `final` at the last step (Loshchilov and Hutter, 2017, arXiv:1608.03983, eq. 5)."""
    if step <= warmup_steps:
        return warmup(step, warmup_steps)
    progress = min(1.0, (step - warmup_steps) / (steps - warmup_steps))
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


def wsd(step: int, steps: int, *, warmup_steps: int = 0, decay_steps: int = 1, final: float = 0.1) -> float:
    """Warm-up, constant, then linear to `final` in the last `decay_steps` (Hu et al., 2024, arXiv:2404.06395).

    A checkpoint of the stable stretch can be trained on or decayed at any length.
    """
    left = max(0, steps - step)
    return min(warmup(step, warmup_steps), final + (1 - final) * min(1.0, left / decay_steps))
