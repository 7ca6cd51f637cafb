"""Saves a trained model, its adapter merged, as a GGUF file with the vocabulary of the model it was trained from."""

from __future__ import annotations

from pathlib import Path

from firsthand.nn.decoder import Decoder
from firsthand.nn.gguf_writer import save_gguf
from firsthand.tokens.spm import UNUSED
from firsthand.tokens.vocab_export import vocabulary_metadata
from firsthand.train.adapters.lora_training import merged


def export_gguf(model: Decoder, path: Path | str, *, dtype: str = "F16", tokenizer: Path | str | None = None) -> None:
    """Writes the model, merged, to a .gguf file; `tokenizer` is a .gguf file or a folder with tokenizer.json.

    Without a tokenizer the file serves `weights.load` and the engine, but neither `firsthand serve` nor llama.cpp.
    """
    vocabulary = {} if tokenizer is None else vocabulary_metadata(tokenizer)
    tokens, kinds = (vocabulary.get(f"tokenizer.ggml.{key}") for key in ("tokens", "token_type"))
    if (
        tokens is not None and kinds is not None
    ):  # rows of the embedding without a token, as llama.cpp's converter has them
        missing = range(len(tokens), model.architecture.vocab_size)
        vocabulary |= {
            "tokenizer.ggml.tokens": [*tokens, *(f"[PAD{id}]" for id in missing)],
            "tokenizer.ggml.token_type": [*kinds, *(UNUSED for _ in missing)],
        }
    save_gguf(merged(model), path, dtype=dtype, vocabulary=vocabulary)
