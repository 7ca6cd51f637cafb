"""Model files that are small and describe much: tensors at the same place, and tokenizers that take long to encode with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from byte_tokens import description
from firsthand.errors import ModelFileError
from firsthand.formats.gguf_file import read_gguf
from firsthand.tokens.text_growth import (
    MAX_ADDED_CHARS,
    MAX_AFFIX,
    MAX_ALL_ADDED_CHARS,
    MAX_PIECE,
    MAX_WORD,
    check_added,
    check_model,
)
from firsthand.tokens.tokenizer import Tokenizer
from test_modelfile import container, tensor


def test_tensors_of_a_gguf_that_share_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    for offsets, other in ((0, 0), (0, 32), (32, 0), (0, 63)):
        path.write_bytes(container([], [tensor("a", (16,), 0, offsets), tensor("b", (16,), 0, other)], bytes(256)))
        with pytest.raises(ModelFileError, match="expected tensors that do not overlap"):
            read_gguf(path)
    many = [tensor(f"blk.{n}", (16,), 0, 0) for n in range(64)]
    path.write_bytes(container([], many, bytes(64)))
    with pytest.raises(ModelFileError, match="do not overlap"):
        read_gguf(path)
    for other in (64, 96):  # side by side, in either order, and with room between
        for named in ("a", "z"):
            path.write_bytes(container([], [tensor("b", (16,), 0, 0), tensor(named, (16,), 0, other)], bytes(256)))
            assert len(read_gguf(path).tensors) == 2


def of_model(**fields: Any) -> dict[str, Any]:
    return {"model": {"type": "BPE", "vocab": {}, **fields}}


@pytest.mark.parametrize(
    ("fields", "most", "told"),
    [
        ({"type": "WordPiece", "continuing_subword_prefix": "#"}, MAX_AFFIX, "its model's continuing_subword_prefix has"),
        ({"continuing_subword_prefix": "é"}, MAX_AFFIX, "its model's continuing_subword_prefix has"),
        ({"end_of_word_suffix": "/"}, MAX_AFFIX, "its model's end_of_word_suffix has"),
        ({"type": "Unigram", "vocab": "x"}, MAX_PIECE, "a piece of its vocabulary has"),
        ({"vocab": "x"}, MAX_PIECE, "a piece of its vocabulary has"),
        ({"type": "WordPiece", "max_input_chars_per_word": 1}, MAX_WORD, "its model's max_input_chars_per_word is"),
    ],
)  # fmt: skip
def test_a_tokenizer_whose_model_makes_encoding_a_text_slow_is_refused(
    fields: dict[str, Any], most: int, told: str
) -> None:
    def stretched(value: Any, factor: int) -> Any:
        if value == "x":
            return [["<unk>", 0.0], ["x" * factor, -1.0], ["y", -1.0]]
        return value if value in ("WordPiece", "Unigram") else value * factor

    check_model(of_model(**{name: stretched(value, most) for name, value in fields.items()}), "t")
    with pytest.raises(ModelFileError, match=told):
        check_model(of_model(**{name: stretched(value, most + 1) for name, value in fields.items()}), "t")


def test_fields_of_other_types_are_left_to_the_library() -> None:
    for fields in ({"continuing_subword_prefix": None}, {"end_of_word_suffix": 7}, {"max_input_chars_per_word": "x" * 99},
                   {"type": "Unigram", "vocab": [[], 1, [2], ["a" * 9]]}, {"type": "Unigram", "vocab": None}):  # fmt: skip
        check_model(of_model(**fields), "t")
    with pytest.raises(ModelFileError, match="max_input_chars_per_word is 1000000"):
        check_model(of_model(type="WordPiece", max_input_chars_per_word=10**400), "t")


def test_long_added_tokens_and_very_many_are_refused_before_anything_is_built_of_them() -> None:
    many = ["x" * MAX_ADDED_CHARS] * (MAX_ALL_ADDED_CHARS // MAX_ADDED_CHARS)
    check_added(many, "t")
    with pytest.raises(ModelFileError, match="t: its added tokens together have 1048577 characters: expected at most"):
        check_added([*many, "x"], "t")
    with pytest.raises(
        ModelFileError, match=f"t: an added token has 513 characters: expected at most {MAX_ADDED_CHARS}, as"
    ):
        check_added(["y", "x" * 513], "t")
    check_added([f"<custom_token_{n}>" for n in range(28_000)], "t")
    check_added([], "t")
    made = description()
    for special in (True, False):
        entry = made["added_tokens"][0] | {"id": 9999, "content": "a" * 1_000_000, "special": special}
        with pytest.raises(ModelFileError, match="an added token has 1000000 characters"):
            Tokenizer(made | {"added_tokens": [*made["added_tokens"], entry]})
    with pytest.raises(ModelFileError, match="continuing_subword_prefix has 4000000 characters"):
        Tokenizer(made | {"model": made["model"] | {"continuing_subword_prefix": "#" * 4_000_000}})
