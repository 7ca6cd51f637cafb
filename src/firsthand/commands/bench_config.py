"""The flags of `firsthand bench`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, fields
from typing import Literal

from firsthand.errors import ConfigError


@dataclass(frozen=True)
class Config:
    """The model, the number of rounds, and where results are written."""

    model: str = field(default="smollm2", metadata={"positional": True})
    """The model: a known name, a .gguf file, a folder, or hf:ORG/NAME."""
    rounds: int = 3
    """Rounds of measurements; the table gives medians and ranges."""
    seconds: float = 60
    """Seconds spent on one figure after which no new round of it begins."""
    device: str = "cpu"
    """Device of the model: cpu, cuda, cuda:N, or auto (CUDA if available)."""
    threads: int | None = None
    """Threads; by default one per core."""
    weights: Literal["auto", "int8", "float16", "float32"] = "auto"
    """Type of the weights in memory; auto is the file's own blocks, or else float16."""
    kv_cache: Literal["auto", "float32", "float16", "int8"] = "auto"
    """Type of the KV cache; auto is float16 where weights are rounded too."""
    only: tuple[str, ...] = ()
    """Only figures whose names contain one of these words."""
    quick: bool = False
    """One short round: checks that everything works; its numbers mean little."""
    out: str | None = None
    """Write the table to this Markdown file."""
    json: str | None = field(default=None, metadata={"bare": "-"})
    """Write JSON to this file; alone, print it in place of the table."""

    def __post_init__(self) -> None:
        checks = [
            ("rounds", self.rounds >= 1, "1 or more"),
            ("seconds", self.seconds >= 0, "0 or more"),
            ("threads", self.threads is None or 1 <= self.threads <= 1024, "1 to 1024"),
        ]
        for name, good, expected in checks:
            if not good:
                raise ConfigError(f"{name} is {getattr(self, name)}: give {expected}")

    @property
    def is_whole(self) -> bool:
        """True if all figures are measured with default settings, so that a planner may use the result."""
        return self == Config(self.model, self.rounds, self.seconds, out=self.out, json=self.json)

    def command(self) -> str:
        """The command line that gives this config."""
        words = ["firsthand", "bench", self.model]
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "model" or value == each.default or value == ():
                continue
            words.append("--" + each.name.replace("_", "-"))
            if value is not True:
                words.append(",".join(value) if isinstance(value, tuple) else str(value))
        return shlex.join(words)
