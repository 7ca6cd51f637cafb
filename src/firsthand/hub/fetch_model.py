"""Fetches a model that is not on disk yet, with a progress bar on the terminal."""

from __future__ import annotations

from pathlib import Path

from firsthand.hub import model_lookup
from firsthand.system.terminal import progress


def fetch_model(model: str, *, shown: bool = True) -> Path:
    """The file or folder of a model, pulled first if it is not on disk."""
    with progress(f"fetching {model}", None, unit="bytes", shown=shown) as update:
        path = model_lookup.resolve(model, on_progress=lambda done, total: update(done, total))
    return path


def fetch_named(model: str, *, shown: bool = True) -> None:
    """Pull a known name or `hf:ORG/NAME` that is not on disk; any other model is left alone."""
    if model in model_lookup.KNOWN or model.startswith("hf:"):
        fetch_model(model, shown=shown)
