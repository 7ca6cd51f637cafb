"""Vocabularies of strangers: merges, protobuf fields and JSON values are counted before they take the memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from firsthand.errors import ModelFileError
from firsthand.formats import model_files
from firsthand.tokens import spm, token_merges
from firsthand.tokens.pretrained import load
from firsthand.tokens.tiktoken_ranks import Encoding, description
from firsthand.tokens.token_merges import TokenMerges

BYTES = {bytes([byte]): byte for byte in range(256)}


def runs(letters: bytes, longest: int) -> dict[bytes, int]:
    """The ranks of all bytes, and of runs of each letter."""
    made = [bytes([letter]) * length for letter in letters for length in range(2, longest + 1)]
    return BYTES | {token: 256 + index for index, token in enumerate(made)}


def test_merges_are_all_pairs_in_order() -> None:
    found = TokenMerges({"a": 5, "b": 1, "ab": 2, "ba": 3, "aba": 4}, "F")
    assert found.of("aba") == [(2, 5), (5, 3)] and found.of("ab") == [(5, 1)] and found.of("a") == []


def test_a_vocabulary_of_runs_is_refused_before_its_merges_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_merges, "MAX_MERGE_LETTERS", 40_000)
    assert len(description(runs(b"q", 40), Encoding("X", {}), "F")["model"]["merges"]) == 780  # 21,320 letters
    for ranks in (runs(b"q", 60), runs(b"qw", 40)):
        with pytest.raises(
            ModelFileError, match=r"^F: its tokens are made of each other in more than 1048576 ways, or in"
        ):
            description(ranks, Encoding("X", {}), "F")


@pytest.mark.parametrize(("bound", "most"), [("MAX_MERGES", 3), ("MAX_MERGE_LETTERS", 8), ("MAX_SPLIT_LETTERS", 14),
                                             ("MAX_SPLITS", 6), ("MAX_TOKEN", 3)])  # fmt: skip
def test_what_a_sentencepiece_vocabulary_may_be_made_of(monkeypatch: pytest.MonkeyPatch, bound: str, most: int) -> None:
    pieces = spm.Pieces(["x", "xx", "xxx"], [0.0, 0.0, 0.0], [spm.NORMAL] * 3, add_prefix=False)
    monkeypatch.setattr(token_merges, bound, most)
    merges = spm.description(pieces, "F")["model"]["merges"]
    assert merges == [["x", "x"], ["x", "xx"], ["xx", "x"]]
    monkeypatch.setattr(token_merges, bound, most - 1)
    with pytest.raises(ModelFileError, match=r"real model|real tokenizer"):
        spm.description(pieces, "F")


def test_a_vocabulary_of_many_scripts_keeps_its_merges() -> None:
    """As large ones are made: 20,000 tokens, each of two others, and runs of up to 128 blanks."""
    pairs = {bytes([33 + a % 90, 33 + b % 90]) for a in range(90) for b in range(90)}
    threes = {pair + bytes([97 + index % 20]) for index, pair in enumerate(sorted(pairs))}
    made = [*(b" " * length for length in range(2, 129)), *sorted(pairs), *sorted(threes)]
    merges = description(BYTES | {t: 256 + i for i, t in enumerate(made)}, Encoding("X", {}), "F")["model"]["merges"]
    assert len(merges) > 20_000


def test_fields_and_pieces_of_a_sentencepiece_model_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tokenizer.model"
    piece = b"\x0a\x03\x0a\x01"
    file.write_bytes(piece + b"a" + piece + b"b" + b"\x12\x02\x18\x02")
    monkeypatch.setattr(spm, "_MAX_FIELDS", 6)
    monkeypatch.setattr(spm, "MAX_TOKENS", 2)
    assert spm.read_model(file).texts == ["a", "b"]
    monkeypatch.setattr(spm, "_MAX_FIELDS", 5)
    with pytest.raises(ModelFileError, match="has more than 5 fields, too many for a SentencePiece model"):
        load(tmp_path)
    monkeypatch.setattr(spm, "_MAX_FIELDS", 6)
    monkeypatch.setattr(spm, "MAX_TOKENS", 1)
    with pytest.raises(ModelFileError, match="the tokenizer has 2 tokens: expected at most 1, as in"):
        load(tmp_path)


def test_json_values_of_a_model_folder_are_counted_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text('{"x": [' + ",".join(["{}"] * 9) + '], "y": "[,,,,,,,,,,,,,,,,,,,,,,,,"}')
    monkeypatch.setattr(model_files, "MAX_JSON_VALUES", 20)
    assert model_files.read_json(file)["x"] == [{}] * 9
    monkeypatch.setattr(model_files, "MAX_JSON_VALUES", 19)
    monkeypatch.setattr("json.loads", lambda *_, **__: pytest.fail("it was decoded"))
    with pytest.raises(ModelFileError, match="holds more than 19 JSON values, too many for a model's file"):
        load(tmp_path)
