"""Saves a trained model, its adapter merged, as a GGUF file with the vocabulary of the model it was trained from."""

from __future__ import annotations

from pathlib import Path

from firsthand.nn.decoder import Decoder
from firsthand.nn.gguf_writer import save_gguf
from firsthand.tokens.vocab_export import vocabulary_metadata
from firsthand.train.adapters.lora_training import merged


def export_gguf(model: Decoder, path: Path | str, *, dtype: str = "F16", tokenizer: Path | str | None = None) -> None:
    """Writes the model, merged, to a .gguf file; `tokenizer` is a .gguf file or a folder with tokenizer.json.

    Without a tokenizer the file serves `weights.load` and the engine, but neither `firsthand serve` nor llama.cpp.
    """
    vocabulary = {} if tokenizer is None else vocabulary_metadata(tokenizer)
    save_gguf(merged(model), path, dtype=dtype, vocabulary=vocabulary)
