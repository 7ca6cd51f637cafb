"""Writes a tiny model and an autoencoder of it into a data home, with features that were gathered on made-up sums."""

from __future__ import annotations

from pathlib import Path

import pytest

from firsthand.interp.feature_files import write_features
from firsthand.interp.opened_sae import OpenedSae
from firsthand.interp.saes.sae_files import SavedSae, save_sae
from firsthand.interp.saes.sae_kinds import sae_of
from firsthand.interp.saes.sae_run import SaeRun, write_run
from firsthand.nn import weights
from tiny import write_model


def autoencoder_of(home: Path) -> None:
    """Puts an autoencoder with features, texts and a tiny model into the data home."""
    site, model, texts = "blocks.0.resid.post", write_model(home / "model"), home / "texts"
    texts.mkdir()
    for number in range(3):
        (texts / f"{number}.txt").write_text(f"What is {number} + 30? The answer is {number + 30}. " * 60)
    width = weights.load(model).architecture.hidden_size
    folder = save_sae(SavedSae(sae_of("topk", width, 48, k=4), str(model), site), home / "saes" / "small")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIRSTHAND_HOME", str(home))  # whose seal the settings have
        write_run(SaeRun(str(model), site, texts=(str(texts),), context=64, held_out_texts=4), folder)
        write_features(OpenedSae(folder, pieces=8, shown=False).dashboard(count=5, ablate=1, steer=0), folder)
