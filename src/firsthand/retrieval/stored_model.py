"""Checks the name of an embedding model that an index holds: the index may be somebody else's."""

from __future__ import annotations

from pathlib import Path

from firsthand.errors import ConfigError
from firsthand.hub import model_lookup
from firsthand.providers.local_embedder import AT_BFLOAT16


def expect_chosen(index: Path, model: str) -> None:
    """ConfigError if an index's model would be downloaded from a repository that nobody here has named."""
    base = model.removesuffix(AT_BFLOAT16)
    if base.startswith("hf:") and not model_lookup.is_here(base):
        raise ConfigError(
            f"{index} names the model {base[:200]!r}, which is not on this machine, and a model that an index names is "
            f"not downloaded: if you trust it, `firsthand models pull {base[:200]}` does"
        )
