"""Model files of strangers hold no more tokens, merges, ids and tensors than real ones: they are counted first."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from byte_tokens import description
from firsthand.errors import ModelFileError
from firsthand.formats import gguf_file, safetensors_file
from firsthand.formats.gguf_file import read_gguf
from firsthand.formats.safetensors_file import read_safetensors
from firsthand.tokens import gguf_vocab, spm, text_growth, tiktoken_ranks, tokenizer
from firsthand.tokens.tokenizer import Tokenizer
from test_modelfile import container, pair, safetensors, tensor


def metadata(texts: list[str], kind: int, merges: list[str]) -> dict[str, Any]:
    names = {"model": "gpt2", "tokens": texts, "token_type": [kind] * len(texts), "merges": merges}
    return {f"tokenizer.ggml.{name}": value for name, value in names.items()}


def test_tensors_and_pairs_of_a_gguf_are_counted_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1,200,000 tensors of one byte in 46 MB took 12 s."""
    path = tmp_path / "a.gguf"
    pairs = [pair(f"k{n}", 0, b"\x07") for n in range(2)]
    path.write_bytes(container(pairs, [tensor(f"t{n}", (8,), 0, 32 * n) for n in range(3)], bytes(96)))
    monkeypatch.setattr(gguf_file, "MAX_TENSORS", 3)
    monkeypatch.setattr(gguf_file, "_MAX_PAIRS", 2)
    assert len(read_gguf(path).tensors) == 3 and len(read_gguf(path).metadata) == 2
    monkeypatch.setattr(gguf_file, "MAX_TENSORS", 2)
    monkeypatch.setattr(gguf_file, "_gguf_tensor", lambda header: pytest.fail("it was read"))
    with pytest.raises(
        ModelFileError, match=r"a\.gguf: the header has 3 tensors: expected at most 2, as in the file of"
    ):
        read_gguf(path)
    monkeypatch.setattr(gguf_file, "_MAX_PAIRS", 1)
    with pytest.raises(ModelFileError, match="the header has 2 metadata pairs: expected at most 1"):
        read_gguf(path)


def test_tensors_of_a_safetensors_file_are_counted_before_they_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    entries = {f"t{n}": {"dtype": "U8", "shape": [1], "data_offsets": [n, n + 1]} for n in range(3)}
    path.write_bytes(safetensors(entries | {"__metadata__": {"format": "pt"}}, bytes(3)))
    monkeypatch.setattr(safetensors_file, "MAX_TENSORS", 3)
    assert len(read_safetensors(path).tensors) == 3
    monkeypatch.setattr(safetensors_file, "MAX_TENSORS", 2)
    monkeypatch.setattr(safetensors_file, "_safetensor", lambda *given: pytest.fail("it was read"))
    with pytest.raises(ModelFileError, match="has 3 tensors: expected at most 2, as in the file of a real model"):
        read_safetensors(path)


def test_control_tokens_are_counted_before_their_entries_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000,000 control tokens in a GGUF of 31 MB took 1.2 GB before they were refused."""
    monkeypatch.setattr(text_growth, "MAX_ADDED_TOKENS", 3)
    assert len(spm.added_tokens(["a", "b", "c", "d"], [spm.CONTROL] * 3 + [spm.NORMAL], "F")) == 3
    with pytest.raises(
        ModelFileError, match=r"^F: the tokenizer has 4 added tokens: expected at most 3, as in that of"
    ):
        gguf_vocab.description(metadata(["a", "b", "c", "d"], spm.CONTROL, []), "F")
    pieces = spm.Pieces(["a", "b", "c", "d"], [0.0] * 4, [spm.USER_DEFINED] * 4, add_prefix=False)
    with pytest.raises(ModelFileError, match="the tokenizer has 4 added tokens"):
        spm.description(pieces, "F")
    monkeypatch.setattr(text_growth, "MAX_ALL_ADDED_CHARS", 5)
    with pytest.raises(ModelFileError, match="its added tokens together have 6 characters"):
        spm.added_tokens(["aa", "bb", "cc"], [spm.CONTROL] * 3, "F")


def test_tokens_and_merges_of_a_gguf_are_counted_and_merges_share_the_tokens_texts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = ["x" * 40, "y" * 40, "x" * 40 + "y" * 40]
    given = metadata(texts, spm.NORMAL, [f"{texts[0]} {texts[1]}"] * 4)
    monkeypatch.setattr(gguf_vocab, "MAX_TOKENS", 3)
    monkeypatch.setattr(gguf_vocab, "MAX_MERGES", 4)
    made = gguf_vocab.description(given, "F")["model"]["merges"]
    assert made == [[texts[0], texts[1]]] * 4
    assert all(left is texts[0] and right is texts[1] for left, right in made)
    monkeypatch.setattr(gguf_vocab, "MAX_MERGES", 3)
    with pytest.raises(ModelFileError, match=r"^F: the tokenizer has 4 merges: expected at most 3"):
        gguf_vocab.description(given, "F")
    monkeypatch.setattr(gguf_vocab, "MAX_TOKENS", 2)
    with pytest.raises(ModelFileError, match=r"^F: the tokenizer has 3 tokens: expected at most 2"):
        gguf_vocab.description(given, "F")


def test_tokens_merges_and_ids_of_a_tokenizer_json_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    made = description()
    size = Tokenizer(made).vocab_size
    far = made | {"added_tokens": [*made["added_tokens"], made["added_tokens"][0] | {"content": "<far>", "id": size}]}
    assert Tokenizer(far).vocab_size == size + 1
    monkeypatch.setattr(tokenizer, "MAX_TOKENS", size)
    with pytest.raises(
        ModelFileError, match=f"the tokenizer has {size + 1} places for ids: expected at most {size}, as"
    ):
        Tokenizer(far)
    assert Tokenizer(made).vocab_size == size
    for name, bound, value in (("tokens", "MAX_TOKENS", {"vocab": {"a": 0, "b": 1}}),
                               ("tokens", "MAX_TOKENS", {"type": "Unigram", "vocab": [["a", 0.0], ["b", 0.0]]}),
                               ("merges", "MAX_MERGES", {"vocab": {}, "merges": ["a b", "b a"]})):  # fmt: skip
        with monkeypatch.context() as patched:
            patched.setattr(text_growth, bound, 2)
            text_growth.check_model({"model": value}, "F")
            patched.setattr(text_growth, bound, 1)
            with pytest.raises(ModelFileError, match=f"^F: the tokenizer has 2 {name}: expected at most 1"):
                text_growth.check_model({"model": value}, "F")
    monkeypatch.setattr(tokenizer, "MAX_ADDED_TOKENS", len(made["added_tokens"]) - 1)
    with pytest.raises(ModelFileError, match=r"the tokenizer has .* added tokens: expected at most"):
        Tokenizer(made)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_lines_of_a_rank_file_are_counted_and_read_with_either_line_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    path = tmp_path / "gpt2.tiktoken"
    lines = [base64.b64encode(bytes([byte])) + b" %d" % byte for byte in range(256)]
    path.write_bytes(end.join([*lines, b"", b""]))
    monkeypatch.setattr(tiktoken_ranks, "MAX_TOKENS", 257)
    assert tiktoken_ranks.read_ranks(path) == {bytes([byte]): byte for byte in range(256)}
    monkeypatch.setattr(tiktoken_ranks, "MAX_TOKENS", 256)
    with pytest.raises(ModelFileError, match=r"gpt2\.tiktoken: the tokenizer has 257 lines: expected at most 256"):
        tiktoken_ranks.read_ranks(path)


def test_as_many_tokens_as_the_largest_real_models_have_are_taken() -> None:
    for count, most in ((901_629, text_growth.MAX_TOKENS), (514_906, text_growth.MAX_MERGES),
                        (70_000, text_growth.MAX_ADDED_TOKENS), (69_120, gguf_file.MAX_TENSORS)):  # fmt: skip
        text_growth.expect_count(count, most, "things", "F")
    text_growth.check_added([f"<|s_{n}|>" for n in range(65_536)], "F")
