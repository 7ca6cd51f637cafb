"""Texts longer than a model's context: refused before they are encoded, and encoded without Python's lock."""

from __future__ import annotations

import json
import threading
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import PromptTooLong
from firsthand.message import user
from firsthand.providers.local import Local
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.tokens.tokenizer import TextRun, Tokenizer
from served import serving
from tiny import write_model

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

    def _encode_plain(self, text: str, continuing: bool) -> array[int]:
        self.encoded += len(text)
        return super()._encode_plain(text, continuing)


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


def test_other_threads_run_while_a_long_text_is_encoded() -> None:
    tokenizer = Tokenizer(description())
    assert beats_during(lambda: tokenizer.encode("7" * 300_000)) > 10


def test_routes_that_tokenise_refuse_what_is_longer_than_the_context(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", max_position=512)
    model = Local(folder, config=EngineConfig(kv_memory_bytes=1 << 22, threads=1))
    text = "7" * 1_000_000
    with serving(model, name="tiny") as running, httpx.Client(base_url=running.url, timeout=60) as http:
        bodies = {
            "/tokenize": {"prompt": text},
            "/v1/completions": {"prompt": text},
            "/v1/chat/completions": {"messages": [{"role": "user", "content": text}]},
            "/v1/responses": {"input": text},
        }
        for path, body in bodies.items():
            found = http.post(path, json=body)
            error = found.json()["error"]
            assert (found.status_code, error["code"]) == (400, "context_length_exceeded"), path
            assert "512" in error["message"] and len(error["message"]) < 300
        just = http.post("/tokenize", json={"prompt": "7" * 512})
        assert just.json()["count"] == 512
        over = http.post("/tokenize", json={"prompt": "7" * 513})
        assert over.status_code == 400 and "513 tokens" in over.json()["error"]["message"]
