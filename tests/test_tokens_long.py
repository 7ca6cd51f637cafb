"""Texts longer than a model's context: refused before they are encoded, and encoded without Python's lock."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from array import array
from collections.abc import Callable
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from firsthand.errors import ModelFileError, PromptTooLong
from firsthand.message import user
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.tokens.tokenizer import TextRun, Tokenizer

CONTEXT = 4096
HOSTILE = {
    "digits": "7" * (4 << 20),
    "spaces": " " * (4 << 20),
    "one letter": "x" * (4 << 20),
    "letters of four bytes": "\U0001f600" * (1 << 20),
    "combining marks": "\u0301" * (1 << 20),
    "text, then digits": "a word " * 2000 + "7" * (4 << 20),
    "half surrogates": "\ud800" * (1 << 20),
}


def description() -> dict[str, object]:
    """Every byte is a token, and each digit is cut off, as SmolLM2 does."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    rust = tokenizers.Tokenizer(models.BPE({letter: place for place, letter in enumerate(alphabet)}, []))
    rust.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    rust.decoder = decoders.ByteLevel()
    found: dict[str, object] = json.loads(rust.to_str())
    return found


class CountingTokenizer(Tokenizer):
    """A tokenizer that counts the characters that it encodes."""

    encoded = 0

    def _encode_plain(self, text: str, place: Any) -> array[int]:
        self.encoded += len(text)
        return super()._encode_plain(text, place)


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_text_beyond_the_context_is_refused_after_little_more_than_a_context(name: str) -> None:
    tokenizer = CountingTokenizer(description())
    with pytest.raises(PromptTooLong, match="4096 tokens, the model's context"):
        tokenizer.encode(HOSTILE[name], most=CONTEXT)
    assert CONTEXT / 4 <= tokenizer.encoded <= 8 * CONTEXT
    chat = ChatTemplate(tokenizer, "{{ messages[0].content }}", max_tokens=CONTEXT)
    before = tokenizer.encoded
    with pytest.raises(PromptTooLong):
        chat.encode([user(HOSTILE[name])])
    assert tokenizer.encoded - before <= 8 * CONTEXT


@pytest.mark.slow
def test_many_short_messages_are_refused_after_a_context_of_tokens() -> None:
    added = [{"id": 256, "content": "<|end|>", "special": True, "lstrip": False, "rstrip": False, "normalized": False,
              "single_word": False}]  # fmt: skip
    tokenizer = CountingTokenizer(description() | {"added_tokens": added})
    chat = ChatTemplate(tokenizer, "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}", max_tokens=CONTEXT)
    with pytest.raises(PromptTooLong, match="more than 4096 tokens"):
        chat.encode([user("ten letter")] * 5000)
    assert tokenizer.encoded <= CONTEXT + 10


@pytest.mark.parametrize("text", ["<" * (4 << 20), "<|" * (2 << 20), "<|im_star" * (1 << 12), "<|im_start|>" * 10_000])
def test_looking_for_special_tokens_takes_one_pass(text: str) -> None:
    names = ["<|im_start|>", "<|im_end|>", "<|im|>", "<|im", *(f"<|reserved_{number}|>" for number in range(256))]
    added = [{"id": 256 + place, "content": name, "special": True, "lstrip": False, "rstrip": False, "normalized": False,
              "single_word": False} for place, name in enumerate(names)]  # fmt: skip
    tokenizer = Tokenizer(description() | {"added_tokens": added})
    calls = 0

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "c_call"

    sys.setprofile(note)
    try:
        found = list(tokenizer.find_special(text))
    finally:
        sys.setprofile(None)
    longest = "<|im_start|>" if "<|im_start|>" in text else "<|im"
    assert [token.content for _, token in found] == [longest] * text.count(longest)
    assert [at for at, _ in found] == [match.start() for match in re.finditer(re.escape(longest), text)]
    assert calls <= 4 * len(found) + 10, "places that begin like a token cost no call"


@pytest.mark.slow
def test_special_tokens_that_begin_with_each_other_are_found_or_refused_with_a_sentence() -> None:
    def with_names(names: list[str]) -> Tokenizer:
        added = [{"id": 256 + place, "content": name, "special": True, "lstrip": False, "rstrip": False,
                  "normalized": False, "single_word": False} for place, name in enumerate(names)]  # fmt: skip
        return Tokenizer(description() | {"added_tokens": added})

    nested = with_names(["€" * size for size in range(1, 32)] + ["a.b", "ab"])
    found = [token.content for _, token in nested.find_special("€" * 40 + "a.b ab axb")]
    assert found == ["€" * 31, "€" * 9, "a.b", "ab"]
    assert [token.content for _, token in with_names(["€" * 512]).find_special("€" * 513)] == ["€" * 512]
    with pytest.raises(ModelFileError, match="begin with each other"):
        with_names(["€" * size for size in range(1, 513)])


@pytest.mark.slow
def test_a_text_that_fits_is_never_refused() -> None:
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=2000, show_progress=False)
    words = [f"{first}{second}ation" for first in "abcdefghijklm" for second in ("nomin", "destin", "transform")]
    trained.train_from_iterator([" ".join(words)] * 3, trainer)
    tokenizer = Tokenizer(json.loads(trained.to_str()))
    text = " ".join(words[place % len(words)] for place in range(20_000))
    ids = tokenizer.encode(text)
    assert len(text) > 8 * len(ids), "it has more than four bytes a token, so it is looked at"
    assert tokenizer.encode(text, most=len(ids)) == ids
    with pytest.raises(PromptTooLong):
        tokenizer.encode(text, most=len(ids) // 2)


def test_long_and_short_texts_have_the_same_ids_by_either_call_of_the_library() -> None:
    tokenizer = Tokenizer(description())
    text = "Ünïcode 12 and \U0001f600, then more.\n" * 200
    assert tokenizer.encode(text) == tokenizer._rust.encode(text, add_special_tokens=False).ids
    pieces = [TextRun(text, False), TextRun("tail", True)]
    assert tokenizer.encode_runs(pieces) == tokenizer._rust.encode(text + "tail", add_special_tokens=False).ids


def beats_during(work: Callable[[], object]) -> int:
    """How often this thread runs while another one works."""
    worker = threading.Thread(target=work)
    worker.start()
    beats = 0
    while worker.is_alive():
        time.sleep(0.002)
        beats += 1
    return beats


@pytest.mark.slow
def test_other_threads_run_while_a_long_text_is_encoded() -> None:
    tokenizer = Tokenizer(description())
    assert beats_during(lambda: tokenizer.encode("7" * 300_000)) > 10
