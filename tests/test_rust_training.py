"""Vocabularies trained on words of any length: the length is bounded, what is saved is as before, and signals are heard."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.train import bpe, vocabulary
from firsthand.train.rust_training import MAX_WORD, train
from firsthand.train.vocabulary import train_vocabulary


class Seen:
    """A tokenizer that keeps what it was trained on, in words."""

    def __init__(self, pre_tokenizer: Any):
        self.pre_tokenizer = pre_tokenizer
        self.words: list[str] = []

    def train_from_iterator(self, texts: Any, trainer: Any) -> None:
        for text in texts:
            self.words += [word for word, _ in self.pre_tokenizer.pre_tokenize_str(text)]


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece", "own"])
def test_no_word_that_is_trained_on_is_longer_than_the_bound(kind: str) -> None:
    made = {
        "bpe": lambda: vocabulary._bpe(300, "llama-3", ("<s>",)),
        "unigram": lambda: vocabulary._unigram(300, ("<s>",)),
        "wordpiece": lambda: vocabulary._wordpiece(300, ("<s>",)),
        "own": lambda: vocabulary._bpe(300, "gpt-2", ("<s>",)),
    }
    own = made[kind]()[0].pre_tokenizer
    seen = Seen(own)
    texts = ["ab" * 2000, " " * 1000 + "a", "é" * 700, "!" * 999, "\n" * 500, "1" * 800, "one two, three"]
    train(seen, texts, None)
    assert max(map(len, seen.words)) == MAX_WORD and seen.pre_tokenizer is own
    short = Seen(own)
    train(short, texts[-1:], None)
    assert short.words == [word for word, _ in own.pre_tokenize_str(texts[-1])]
    whole = Seen(own)
    train(whole, texts[:1], None, words=False)
    assert len(whole.words) == 1


def test_what_is_saved_cuts_words_as_before(tmp_path: Path) -> None:
    texts = ["low lower lowest " * 30, "ab" * 600]
    train_vocabulary(texts, tmp_path / "v", vocab_size=300)
    bpe.train_tokenizer(texts, tmp_path / "t", vocab_size=300)
    for name in ("v", "t"):
        saved = json.loads((tmp_path / name / "tokenizer.json").read_text())["pre_tokenizer"]
        assert [each["type"] for each in saved["pretokenizers"]] == (
            ["Split", "ByteLevel"] if name == "v" else ["Digits", "ByteLevel"]
        )
        assert str(MAX_WORD) not in json.dumps(saved)


def test_ctrl_c_ends_a_training_that_does_not_hear_it(tmp_path: Path) -> None:
    done = threading.Event()

    def texts() -> Iterator[str]:
        yield "some words " * 9
        os.kill(os.getpid(), signal.SIGINT)
        done.wait(60)

    try:
        with pytest.raises(KeyboardInterrupt):
            train_vocabulary(texts(), tmp_path / "v", vocab_size=300)
    finally:
        done.set()
    assert not (tmp_path / "v").exists()


def test_an_error_of_a_reader_comes_out_as_it_is(tmp_path: Path) -> None:
    def texts() -> Iterator[str]:
        yield "some words"
        raise ConfigError("no text in UTF-8")

    with pytest.raises(ConfigError, match="no text in UTF-8"):
        train_vocabulary(texts(), tmp_path / "v", vocab_size=300)
