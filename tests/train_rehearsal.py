"""A run that trains nothing: it keeps what a recipe hands to `fit` and `save`, to be looked at."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from firsthand.config import build
from firsthand.nn.decoder import Decoder
from firsthand.tokens.tokenizer import Tokenizer
from firsthand.train.recipe_settings import LoopSettings
from firsthand.train.training_run import TrainingRun


class Rehearsal(TrainingRun):
    """Everything else is that of a real run, without a track."""

    def __init__(self, folder: Path, loop: LoopSettings, *, is_resumed: bool = False):
        super().__init__(folder, loop, None, is_resumed=is_resumed)
        folder.mkdir(parents=True, exist_ok=True)
        self.told: dict[str, Any] = {}
        self.saved: dict[str, Any] = {}

    def fit(self, model: Decoder, batches: Any, **told: Any) -> int:  # type: ignore[override]
        self.told = {"model": model, "batches": batches, **told}
        return 0

    def save(self, model: Decoder, tokenizer: Tokenizer, **told: Any) -> Path:  # type: ignore[override]
        self.saved = {"model": model, "tokenizer": tokenizer, **told}
        return self.folder / "model"


def rehearsed(recipe: str, folder: Path, **settings: Any) -> tuple[Any, Rehearsal, Any]:
    """The config of a recipe, the run after it, and what the recipe returned."""
    module = importlib.import_module(f"firsthand.train.recipes.{recipe}")
    config = build(module.Config, settings)
    run = Rehearsal(folder, config.loop)
    return config, run, getattr(module, recipe)(config, run)


def write_lines(path: Path, lines: Sequence[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path
