"""Fetches a model that is not on disk yet, with a progress bar on the terminal."""

from __future__ import annotations

import sys
from pathlib import Path

from firsthand.hub import model_lookup
from firsthand.system.terminal import one_line, progress


def fetch_model(model: str, *, shown: bool = True) -> Path:
    """The file or folder of a model, pulled first if it is not on disk. Interrupted, it says what is kept."""
    try:
        with progress(f"fetching {model}", None, unit="bytes", shown=shown) as update:
            return model_lookup.resolve(model, on_progress=lambda done, total: update(done, total))
    except KeyboardInterrupt:
        if kept := model_lookup.partial_bytes(model):
            told = f"{kept / 1e6:.1f} MB of {one_line(model)} are kept: `firsthand models pull` goes on from there"
            print(f"\nfirsthand: {told}", file=sys.stderr, flush=True)
        raise


def fetch_named(model: str, *, shown: bool = True) -> None:
    """Pull a known name or `hf:ORG/NAME` that is not on disk; any other model is left alone."""
    if model in model_lookup.KNOWN or model.startswith("hf:"):
        fetch_model(model, shown=shown)
