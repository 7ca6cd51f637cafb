"""`SweepConfig`: the sizes, lengths and source of a sweep. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from firsthand.errors import ConfigError


@dataclass(frozen=True)
class SweepConfig:
    """A sweep of small decoders."""

    widths: tuple[int, ...] = (8, 16, 32, 64)
    """Hidden sizes, multiples of 8."""
    tokens: tuple[int, ...] = (16_384, 32_768, 65_536, 131_072, 262_144)
    """Training tokens of each size's points."""
    layers: int = 2
    context: int = 64
    """Tokens of a text."""
    texts: int = 16
    """Texts of a step."""
    eval_texts: int = 512
    """Held-out texts, the same for all points."""
    learning_rate: float = 5e-3
    seed: int = 0

    def __post_init__(self) -> None:
        step = self.texts * self.context
        checks = [
            ("widths", len(set(self.widths)) >= 2, "two or more sizes"),
            ("widths", all(width >= 8 and width % 8 == 0 for width in self.widths), "multiples of 8"),
            ("tokens", len(set(self.tokens)) >= 2, "two or more lengths"),
            ("tokens", all(each >= 5 * step for each in self.tokens), f"5 steps of {step} tokens or more"),
            ("layers", self.layers >= 1, "1 or more"),
            ("context", self.context >= 2, "2 or more"),
            ("texts", self.texts >= 1 and self.eval_texts >= 1, "1 or more, of eval_texts too"),
            ("learning_rate", 0 < self.learning_rate < 1, "above 0 and below 1"),
        ]
        for field, good, expected in checks:
            if not good:
                raise ConfigError(f"{field} of the sweep is {getattr(self, field)}: expected {expected}")
