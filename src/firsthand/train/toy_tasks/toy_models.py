"""A fresh model of about 100,000 parameters with a tokenizer of given pieces."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.decoder import Decoder, initialise
from firsthand.tokens import pretrained
from firsthand.tokens.tokenizer import Tokenizer

END, START = "<end>", "<start>"
STD = 0.1
"""Deviation of fresh weights: 1 / sqrt(hidden size), near enough; with GPT-2's 0.02 a model this small learns slowly."""


def toy_model(pieces: Sequence[str], *, seed: int, context: int, layers: int = 2) -> tuple[Decoder, Tokenizer]:
    """A decoder of width 64 and a tokenizer whose tokens are an end, a start, and the pieces; both are new.

    A piece is a character or a word; the beginnings of words are pieces too. Prompts reach the model as they are.
    """
    pieces = list(
        dict.fromkeys(piece[:size] for piece in pieces for size in range(1, len(piece) + 1))
        | dict.fromkeys(char for piece in pieces for char in piece)
    )
    tokenizer = _tokenizer(pieces)
    architecture = Architecture(
        family="llama",
        vocab_size=len(pieces) + 2,
        hidden_size=64,
        intermediate_size=192,
        num_layers=layers,
        num_heads=4,
        num_kv_heads=4,
        head_dim=16,
        max_position=context,
        norm_eps=1e-5,
        windows=(None,) * layers,
        ropes=(Rope(),) * layers,
        tie_embeddings=False,
    )
    return initialise(Decoder(architecture), seed=seed, std=STD), tokenizer


def _tokenizer(pieces: Sequence[str]) -> Tokenizer:
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Library

    words = [each.replace(" ", "Ġ") for each in pieces]  # a space as byte-level BPE writes it
    vocabulary = {each: id for id, each in enumerate([END, START, *words])}
    merges = [(word[:-1], word[-1]) for word in words if len(word) > 1]
    library = Library(models.BPE(vocabulary, merges))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens([AddedToken(END, special=True), AddedToken(START, special=True)])
    config = {
        "eos_token": END,
        "bos_token": START,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": "{{ messages[-1]['content'] }}",
    }
    with TemporaryDirectory() as folder:
        library.save(str(Path(folder) / "tokenizer.json"))
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        return pretrained.load(Path(folder))
