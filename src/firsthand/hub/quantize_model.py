"""Quantises a model on disk, with its vocabulary, to a GGUF file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from firsthand.nn.gguf_quantizer import Quantised, quantise_model
from firsthand.tokens.vocab_export import vocabulary_metadata


def quantize_file(
    source: Path, path: Path, file_type: str, *, told: Callable[[int, int], None] | None = None
) -> Quantised:
    """Writes the model at `source` (a .gguf file or a folder) to `path` in a type such as `Q4_K_M`; see `quantise_model`."""
    return quantise_model(source, path, file_type, vocabulary=vocabulary_metadata, told=told)
