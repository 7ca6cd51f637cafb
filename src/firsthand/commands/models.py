"""List, pull, inspect or remove models."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from firsthand.errors import ConfigError
from firsthand.providers import hub
from firsthand.terminal import progress

EXAMPLES = """
firsthand models
firsthand models pull smollm2
firsthand models inspect smollm2
firsthand models inspect path/to/model.gguf --json
firsthand models remove hf:HuggingFaceTB/SmolLM2-360M-Instruct
"""


@dataclass(frozen=True)
class Config:
    """What to do, and with which model."""

    action: Literal["list", "pull", "inspect", "remove"] = field(default="list", metadata={"positional": True})
    """list, pull, inspect or remove"""
    model: str | None = field(default=None, metadata={"positional": True})
    """The model: a known name or hf:ORG/NAME; for inspect also a file or folder."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        if self.action != "list" and self.model is None:
            raise ConfigError(f"{self.action} which model? For example: firsthand models {self.action} smollm2")


def main(config: Config) -> int:
    """Do it."""
    match config.action, config.model:
        case "pull", str(model):
            print(fetch(model, shown=not config.json))
        case "inspect", str(model):
            inspect(model, as_json=config.json)
        case "remove", str(model):
            print(f"removed {hub.remove(model)}")
        case _:
            list_models(as_json=config.json)
    return 0


def fetch(model: str, *, shown: bool = True) -> Path:
    """The file or folder of a model, pulled with a progress bar if it is not here yet."""
    with progress(f"fetching {model}", None, unit="bytes", shown=shown) as update:
        return hub.resolve(model, on_progress=lambda done, total: update(done, total))
