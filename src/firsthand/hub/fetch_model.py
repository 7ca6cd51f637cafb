"""Fetches a model that is not on disk yet, with a progress bar on the terminal."""

from __future__ import annotations

import sys
from pathlib import Path

from firsthand.hub import model_lookup
from firsthand.system.terminal import complain, one_line, progress


def fetch_model(model: str, *, shown: bool = True) -> Path:
    """The file or folder of a model, pulled first if it is not on disk. Interrupted, it says what is kept; after a pull,
    which files could not be checked."""
    was_here = model_lookup.is_here(model)
    try:
        with progress(f"fetching {model}", None, unit="bytes", shown=shown) as update:
            path = model_lookup.resolve(model, on_progress=lambda done, total: update(done, total))
    except KeyboardInterrupt:
        if kept := model_lookup.partial_bytes(model):
            told = f"{kept / 1e6:.1f} MB of {one_line(model)} are kept: `firsthand models pull` goes on from there"
            print(f"\nfirsthand: {told}", file=sys.stderr, flush=True)
        raise
    if not was_here and (names := model_lookup.unverified_files(model)):
        few = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        complain(f"the hub states no hash of {few}, so damage would go unseen: pull from another mirror if you can")
    return path


def fetch_named(model: str, *, shown: bool = True) -> None:
    """Pull a known name or `hf:ORG/NAME` that is not on disk; any other model is left alone."""
    if model in model_lookup.KNOWN or model.startswith("hf:"):
        fetch_model(model, shown=shown)
