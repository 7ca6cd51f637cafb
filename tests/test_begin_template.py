"""Vocabularies trained here and saved tokenizers: transformers puts the same tokens before a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from firsthand.tokens import pretrained
from firsthand.tokens.tokenizer import Tokenizer
from firsthand.train.bpe import train_tokenizer
from firsthand.train.model_folder import save_model
from firsthand.train.vocabulary import train_vocabulary
from train_tiny import model

TEXTS = ["def add(a, b):\n    return a + b\n" * 6, "naive cafe 12345\n" * 3, "for i in range(10):\n    print(i)\n" * 3]
PROMPT = "def add(a): return 10"
SPECIALS = ("<s: 1>", "</s>")


def made(kind: str, folder: Path) -> Tokenizer:
    if kind == "own":
        return train_tokenizer(TEXTS, folder, vocab_size=300)
    return train_vocabulary(TEXTS, folder, kind=kind, vocab_size=300, special=SPECIALS)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["own", "bpe", "unigram", "wordpiece"])
def test_transformers_reads_the_ids_of_encode_prompt_from_a_trained_vocabulary(kind: str, tmp_path: Path) -> None:
    ours, theirs = made(kind, tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(PROMPT).input_ids == ours.encode_prompt(PROMPT) == [ours.bos_id, *ours.encode(PROMPT)]
    assert theirs(PROMPT, "print").input_ids == [*ours.encode_prompt(PROMPT), *ours.encode_prompt("print")]
    assert theirs.encode(PROMPT, add_special_tokens=False) == ours.encode(PROMPT)
    assert theirs("").input_ids == ours.encode_prompt("") == [ours.bos_id]
    file = tmp_path / "tokenizer.json"
    old = json.loads(file.read_text()) | {"post_processor": None}
    file.write_text(json.dumps(old))
    before = pretrained.load(tmp_path)
    assert before.encode_prompt(PROMPT) == ours.encode_prompt(PROMPT) and before.fingerprint == ours.fingerprint


@pytest.mark.parametrize("add_bos", [True, False])
def test_a_folder_saved_without_its_base_begins_texts_as_the_tokenizer_does(add_bos: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings: dict[str, Any] = made("own", tmp_path / "old").settings()
    ours = Tokenizer(**settings | {"add_bos": add_bos})
    saved = save_model(model(), ours, tmp_path / "new")
    (saved / "config.json").unlink()  # transformers checks it first, and takes no 6 heads of 32
    assert AutoTokenizer.from_pretrained(saved)(PROMPT).input_ids == ours.encode_prompt(PROMPT)
    again = pretrained.load(saved)
    assert again.encode_prompt(PROMPT) == ours.encode_prompt(PROMPT) and again.add_bos is add_bos
