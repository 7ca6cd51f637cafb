"""One line in the terminal that follows a training run: loss, speed, gradient norm, time left. No torch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO


class LiveLine:
    """Shows the newest metrics; a sink for `fit`. Without a terminal, about twenty lines over the run."""

    def __init__(self, steps: int, sink: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic):
        """For a run of so many steps, on standard error by default."""
        self.steps = steps
        self.sink = sys.stderr if sink is None else sink
        self._clock = clock
        self._first: tuple[int, float] | None = None
        self._shown_at = float("-inf")

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Show these metrics, on a terminal at most ten times a second."""
        now, is_last, is_terminal = self._clock(), step >= self.steps, self.sink.isatty()
        self._first = (step, now) if self._first is None else self._first
        is_due = now - self._shown_at >= 0.1 if is_terminal else step % max(1, self.steps // 20) == 0
        if not (is_due or is_last or "held_out_loss" in metrics):
            return
        self._shown_at = now
        done = step - self._first[0]
        left_s = (now - self._first[1]) / done * (self.steps - step) if done else None
        text = line_of(metrics, step, self.steps, left_s)
        self.sink.write(f"\r\x1b[K{text}" if is_terminal else f"{text}\n")
        if is_terminal and (is_last or "held_out_loss" in metrics):
            self.sink.write("\n")
        self.sink.flush()


def line_of(metrics: Mapping[str, float], step: int, steps: int, left_s: float | None) -> str:
    """The metrics as one line."""
    words = [f"step {step}/{steps}", f"loss {metrics.get('loss', float('nan')):.4f}"]
    for name, label, form in (
        ("held_out_loss", "held-out loss", ".4f"),
        ("bits_per_byte", "bits per byte", ".4f"),
        ("reward", "reward", ".3f"),
        ("answer_tokens", "tokens/answer", ".1f"),
        ("sampler_gap", "sampler gap", ".1e"),
        ("pair_accuracy", "pairs in order", ".2f"),
        ("held_out_pair_accuracy", "of those held out", ".2f"),
        ("grad_norm", "gradient norm", ".2f"),
        ("lr", "lr", ".2e"),
        ("tokens_per_s", "tokens/s", ",.0f"),
    ):
        if name in metrics:
            words.append(f"{label} {metrics[name]:{form}}")
    if left_s is not None and step < steps:
        words.append(f"{_duration(left_s)} left")
    return "  ".join(words)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
