"""Trains a byte-level BPE tokenizer and writes it as a folder that `tokens.pretrained.load` reads.

The library `tokenizers` does the training (Sennrich et al., 2016, arXiv:1508.07909, on bytes as in GPT-2). Digits are
tokens of their own, so that numbers are read the same way wherever they stand. Every text can be encoded: all 256 bytes
are in the vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from firsthand.errors import ConfigError
from firsthand.system.new_file import replacing, write_new
from firsthand.system.own_file import expect_own_tree
from firsthand.tokens import pretrained
from firsthand.tokens.templates.template_messages import CHATML
from firsthand.tokens.tokenizer import Tokenizer
from firsthand.train.rust_training import tokenizer_json, train

END_OF_TEXT, TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = (END_OF_TEXT, TURN, END_OF_TURN)


def train_tokenizer(
    texts: Iterable[str], folder: Path, *, vocab_size: int = 4096, across_words: bool = False
) -> Tokenizer:
    """Writes tokenizer.json and tokenizer_config.json into a folder and returns the Tokenizer.

    The vocabulary has at most `vocab_size` tokens: 3 special ones (end of text, and ChatML's two), 256 bytes, and merges as
    far as the texts give any. A text begins and ends with `<|endoftext|>`. With `across_words` a token may hold several
    words, so that sentences that always recur take few. ConfigError for a size below 259.
    """
    if vocab_size < 256 + len(SPECIAL):
        raise ConfigError(f"vocab_size is {vocab_size}: expected {256 + len(SPECIAL)} or more, for all bytes")
    rust: Any = tokenizers.Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not across_words),
        ]
    )
    rust.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    train(rust, texts, trainer, words=not across_words)
    expect_own_tree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "tokenizer.json") as part:
        write_new(part, tokenizer_json(rust, END_OF_TEXT))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "add_bos_token": True,
        "chat_template": CHATML,
        "clean_up_tokenization_spaces": False,
    }
    write_new(folder / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")
    return pretrained.load(folder)
