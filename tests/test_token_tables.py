"""Vocabularies and their tables as whole values: GGUF, SentencePiece, tiktoken, the normaliser, and what is refused."""

from __future__ import annotations

import base64
import math
import struct
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ModelFileError
from firsthand.tokens import charsmap, spm, tiktoken_ranks
from firsthand.tokens.charsmap import read_table, replacer
from firsthand.tokens.gguf_vocab import adds_bos, description
from firsthand.tokens.pretokenizers import GPT2, LLAMA3, QWEN2, pre_tokenizer
from firsthand.tokens.pretrained import from_metadata, load, read_description
from firsthand.tokens.recommended_sampling import FOLDER, GGUF, recommended
from firsthand.tokens.text_growth import MAX_ADDED, MAX_FACTOR, _growth, check_growth
from firsthand.tokens.tiktoken_ranks import Encoding, check_ranks, encoding_of, is_rank_file, read_ranks
from firsthand.tokens.token_bytes import character_of_byte
from firsthand.tokens.tokenizer import Tokenizer
from firsthand.tokens.vocab_export import _expressions, _pre_tokenizer_name, _tokens


def refused(call: Any, *arguments: Any) -> str:
    with pytest.raises(ModelFileError) as found:
        call(*arguments)
    return str(found.value)


# -- GGUF --

BYTES = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": ["a", "b", "ab", "<s>", "Ġ"],
    "tokenizer.ggml.merges": ["a b"],
}


def test_a_byte_level_vocabulary_of_a_gguf_is_a_whole_description():
    kinds = [1, 1, 1, 3, 4]
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    for pre, normalizer, ignores in (("qwen2", {"type": "NFC"}, False), ("llama-bpe", None, True), (None, None, False)):
        given = BYTES | {"tokenizer.ggml.token_type": kinds} | ({"tokenizer.ggml.pre": pre} if pre else {})
        assert description(given, "F") == {
            "version": "1.0", "normalizer": normalizer, "pre_tokenizer": pre_tokenizer(pre or "default"),
            "added_tokens": [{"id": 3, "content": "<s>", "special": True, **added},
                             {"id": 4, "content": "Ġ", "special": False, **added}],
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {"type": "BPE", "byte_fallback": False, "ignore_merges": ignores, "merges": [["a", "b"]],
                      "vocab": {"a": 0, "b": 1, "ab": 2, "<s>": 3, "Ġ": 4}},
        }  # fmt: skip
    assert description(BYTES, "F")["added_tokens"] == []
    for change, said in (
        ({"tokenizer.ggml.model": "bert"}, "F has a vocabulary of kind 'bert'; 'gpt2' (byte-level BPE) and "
         "'llama' (SentencePiece) are supported: give the model's folder with tokenizer.json instead"),
        ({"tokenizer.ggml.tokens": []}, "F has an empty vocabulary (tokenizer.ggml.tokens)"),
        ({"tokenizer.ggml.tokens": None}, "F has an empty vocabulary (tokenizer.ggml.tokens)"),
        ({"tokenizer.ggml.tokens": ["a", 1]}, "F: tokenizer.ggml.tokens should be an array of str values"),
        ({"tokenizer.ggml.tokens": ["a", "a"]}, "F: a token occurs twice in the vocabulary"),
        ({"tokenizer.ggml.token_type": [1]}, "F: tokenizer.ggml.token_type has 1 values for a vocabulary of 5 tokens"),
        ({"tokenizer.ggml.token_type": [1] * 6}, "F: tokenizer.ggml.token_type has 6 values for a vocabulary of 5 tokens"),
        ({"tokenizer.ggml.token_type": [True] * 5}, "F: tokenizer.ggml.token_type should be an array of int values"),
        ({"tokenizer.ggml.merges": None}, "F: a byte-level vocabulary needs tokenizer.ggml.merges, which is missing"),
        ({"tokenizer.ggml.merges": ["a a"]}, "F: the merge 'a a' names a token that is not in the vocabulary"),
        ({"tokenizer.ggml.merges": ["ab"]}, "F: the merge 'ab' names a token that is not in the vocabulary"),
        ({"tokenizer.ggml.merges": ["a "]}, "F: the merge 'a ' names a token that is not in the vocabulary"),
        ({"tokenizer.ggml.model": "llama"}, "F: a SentencePiece vocabulary needs tokenizer.ggml.scores, which is missing"),
    ):  # fmt: skip
        assert refused(description, BYTES | change, "F") == said
    assert description(BYTES | {"tokenizer.ggml.merges": []}, "F")["model"]["merges"] == []
    told = refused(description, BYTES | {"tokenizer.ggml.pre": "lama-bpe"}, "F")
    assert told.startswith(
        "the GGUF names the pre-tokenizer 'lama-bpe', which is not known here (nearest known: llama-bpe): its"
    )
    for given, wanted in (
        ({"tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.model": "llama"}, False),
        ({"tokenizer.ggml.model": "llama"}, True),
        ({"tokenizer.ggml.add_bos_token": True}, True), ({"tokenizer.ggml.pre": "tekken"}, True),
        ({"tokenizer.ggml.pre": "chameleon"}, True),
        ({"tokenizer.ggml.pre": "qwen2"}, False), ({}, False), ({"tokenizer.ggml.add_bos_token": 1}, False),
    ):  # fmt: skip
        assert adds_bos(given) is wanted, given


def test_the_metadata_of_a_gguf_has_up_to_three_ends_settings_and_a_template(tmp_path: Path):
    ids = {"bos": 3, "eos": 4, "eot": 1, "eom": 0}
    given: dict[str, Any] = {f"tokenizer.ggml.{name}_token_id": id for name, id in ids.items()}
    more = {"tokenizer.chat_template": "T", "general.sampling.temp": 0.5, "tokenizer.ggml.add_bos_token": True}
    found = from_metadata(BYTES | given | more, source="F")
    assert (found.bos_id, found.eos_id, found.eos_ids, found.add_bos) == (3, 4, {4, 1, 0}, True)
    assert (found.chat_template, found.recommended, found.encode("ab")) == ("T", {"temperature": 0.5}, [2])
    bare = from_metadata(BYTES)
    assert (bare.bos_id, bare.eos_id, bare.eos_ids, bare.chat_template, bare.recommended) == (
        None,
        None,
        set(),
        None,
        {},
    )
    assert refused(from_metadata, BYTES | {"tokenizer.ggml.eom_token_id": 5}) == (
        "GGUF: the eos token id is 5, outside the vocabulary of 5 tokens"
    )
    (tmp_path / "x.GGUF").write_bytes(b"no")
    assert "holds no tokenizer" not in refused(load, str(tmp_path / "x.GGUF"))


# -- SentencePiece --


def test_a_sentencepiece_vocabulary_is_a_whole_description():
    texts, kinds = ["<unk>", "a", "b", "ab", "▁x", "<0x0A>", "", "cab"], [2, 1, 1, 1, 4, 6, 3, 1]
    scores = [0.0, -1.0, -2.0, -0.5, 0.0, 0.0, 0.0, -9.0]
    made = spm.description(spm.Pieces(texts, scores, kinds, True, collapses=True), "F")
    assert [(each["id"], each["content"], each["special"]) for each in made["added_tokens"]] == [
        (0, "<unk>", True), (4, " x", False),
    ]  # fmt: skip
    assert made["model"] == {
        "type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "merges": [["a", "b"]],
        "vocab": {"<unk>": 0, "a": 1, "b": 2, "ab": 3, " x": 4, "<0x0A>": 5, "": 6, "cab": 7},
    }  # fmt: skip
    assert [step.get("content", step.get("prepend")) for step in made["normalizer"]["normalizers"]] == [
        "",
        " ",
        "▁",
        "▁",
    ]
    assert made["decoder"]["decoders"][-1] == {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    plain = spm.description(spm.Pieces(texts, scores, kinds, False), "F")
    assert len(plain["normalizer"]["normalizers"]) == 1 and plain["decoder"]["decoders"][-1] == {"type": "Fuse"}
    uni = spm.description(spm.Pieces(texts, scores, [*kinds[:7], 5], True, unigram=True), "F")["model"]
    never = 10 * -2.0 - 100
    assert uni == {
        "type": "Unigram", "unk_id": 0, "byte_fallback": True,
        "vocab": [["<unk>", 0.0], ["a", -1.0], ["b", -2.0], ["ab", -0.5], [" x", 0.0], ["<0x0A>", never], ["", 0.0],
                  ["cab", never]],
    }  # fmt: skip
    near = spm.Pieces(["<unk>", "a", "<0x0A>"], [0.0, -0.5, 0.0], [2, 1, 6], True, unigram=True)
    assert spm.description(near, "F")["model"]["vocab"][2] == ["<0x0A>", 10 * -0.5 - 100]
    none = spm.Pieces(["<unk>", "a"], [0.0, 3.0], [2, 5], True, unigram=True)
    assert spm.description(none, "F")["model"]["vocab"][1] == ["a", -100.0], "no piece is normal"
    ranked = spm.description(
        spm.Pieces(["a", "b", "aa", "bb", "aab", "aabb", "bbb"], [0, 0, -3, -1, -2, -2, -2], [1] * 7, False), "F"
    )
    assert ranked["model"]["merges"] == [  # by score, then by the ids of the parts
        ["b", "b"], ["b", "bb"], ["aa", "b"], ["aa", "bb"], ["bb", "b"], ["aab", "b"], ["a", "a"],
    ]  # fmt: skip
    for pieces, said in (
        (spm.Pieces(["a", "a"], [0, 0], [1, 1], True), "F: a token occurs twice in the vocabulary"),
        (
            spm.Pieces(["a"], [0], [1], True, unigram=True),
            "F: a Unigram vocabulary needs a piece for unknown text, and has none",
        ),
        (spm.Pieces(["a"], [math.inf], [2], True, unigram=True), "F: a token score is not a number"),
        (spm.Pieces(["a"], [math.nan], [1], True), "F: a token score is not a number"),
        (spm.Pieces(["a" * 4097], [0], [1], True), "F: the vocabulary's tokens are too long for any real tokenizer"),
    ):
        assert refused(spm.description, pieces, "F") == said
    assert spm.description(spm.Pieces(["a" * 4096], [0], [1], True), "F")["model"]["merges"] == []
    marked = ["<▁u>", "<｜a▁b｜>", "▁▁", "▁n", "▁x", "<0x20>"]
    kept = spm.description(spm.Pieces(marked, [0.0] * 6, [2, 3, 4, 1, 5, 6], False), "F")
    assert list(kept["model"]["vocab"]) == ["<▁u>", "<｜a▁b｜>", "  ", "▁n", "▁x", "<0x20>"], (
        "a blank only for a user's own"
    )
    assert [(each["id"], each["content"], each["special"]) for each in kept["added_tokens"]] == [
        (0, "<▁u>", True), (1, "<｜a▁b｜>", True), (2, "  ", False),
    ]  # fmt: skip


def field(number: int, value: bytes | int | float) -> bytes:
    if isinstance(value, float):
        return bytes([number << 3 | 5]) + struct.pack("<f", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    made = b""
    while value > 127:
        made, value = made + bytes([value & 127 | 128]), value >> 7
    return made + bytes([value])


def test_a_tokenizer_model_is_read_field_by_field(tmp_path: Path):
    path = tmp_path / "tokenizer.model"
    pieces = field(1, field(1, "é".encode()) + field(2, -1.5) + field(3, 4)) + field(1, field(1, b"b"))
    path.write_bytes(pieces + bytes([9 << 3 | 1]) + bytes(8))
    assert spm.read_model(path) == spm.Pieces(["é", "b"], [-1.5, 0.0], [4, 1], True, unigram=True, collapses=True)
    path.write_bytes(pieces + field(2, field(3, 2)) + field(3, field(2, b"table") + field(3, 0) + field(4, 0)))
    assert spm.read_model(path) == spm.Pieces(["é", "b"], [-1.5, 0.0], [4, 1], False, False, b"table", False)
    for extra in (field(2, field(3, 3)), field(2, field(24, 1)), field(3, field(5, 0)), field(3, field(2, 1))):
        path.write_bytes(pieces + extra)
        assert "or marks spaces in its own way: BPE (2) and Unigram (1) are read" in refused(spm.read_model, path)
    path.write_bytes(b"")
    assert refused(spm.read_model, path) == f"{path} holds no pieces: it is no SentencePiece model, or cut short"
    path.write_bytes(pieces[:-1])
    assert refused(spm.read_model, path) == f"{path}: a field of 3 bytes goes past the end: the file is cut or corrupt"
    for broken, at in ((bytes([1 << 3 | 3]), 1), (bytes([8 | 5, 0, 0, 0]), 1), (bytes([8]), 1), (b"\x80" * 11, 10)):
        path.write_bytes(broken)
        assert refused(spm.read_model, path) == f"{path} is not a SentencePiece model: its protobuf breaks at byte {at}"
    path.write_bytes(field(1, field(1, b"\xff")))
    assert refused(spm.read_model, path) == f"{path}: a piece has no text in UTF-8"
    assert refused(spm.read_model, tmp_path / "no") == f"{tmp_path / 'no'} cannot be read: No such file or directory"


def test_the_table_of_a_model_is_applied_to_texts_and_part_of_what_it_is(tmp_path: Path):
    pieces = [("<unk>", 2), ("<s>", 3), ("a", 1), ("A", 1), ("aA", 1), ("▁", 1), ("e", 1), ("é", 1)]
    body = b"".join(field(1, field(1, text.encode()) + field(2, -1.0) + field(3, kind)) for text, kind in pieces)
    body += field(2, field(3, 2))
    table = trie(("A", "a"), ("é", "e"))
    models = []
    for name, given in (("with", field(2, table)), ("without", b"")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.model").write_bytes(body + field(3, given + field(3, 0) + field(4, 0)))
        models.append(load(tmp_path / name / "tokenizer.model"))
    assert [each.encode("Aaé A") for each in models] == [[2, 2, 6, 5, 2], [3, 2, 7, 5, 3]]
    assert [each.settings().get("table") for each in models] == [base64.b64encode(table).decode(), None]
    assert models[0].settings()["description"] == models[1].settings()["description"]
    assert models[0].fingerprint != models[1].fingerprint, "the same text has other ids"
    assert models[0].decode([3, 5, 2]) == "A a" and models[0].decode([5, 2]) == " a"
    (tmp_path / "tokenizer.model").write_bytes(body + field(3, field(3, 1)))
    spaced = load(tmp_path)
    assert spaced.encode("a") == [5, 2] and [spaced.decode(each) for each in ([5, 2], [2, 5, 5], [5, 5], [])] == [
        "a", "a  ", " ", "",
    ]  # fmt: skip
    again = Tokenizer(**models[0].settings())
    assert again.encode("Aaé A") == [2, 2, 6, 5, 2] and read_description(tmp_path / "with")["model"]["vocab"]["A"] == 3


# -- tiktoken --


def ranks(*more: bytes) -> dict[bytes, int]:
    return {bytes([byte]): byte for byte in range(256)} | {token: 256 + place for place, token in enumerate(more)}


def test_a_rank_file_is_read_line_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "cl100k_base.tiktoken"
    lines = [base64.b64encode(token) + b" %d" % rank for token, rank in ranks(b"ab").items()]
    path.write_bytes(b"\n".join(lines) + b"\n\n")
    assert read_ranks(path) == ranks(b"ab") and is_rank_file(path)
    for line, said in (
        (b"YWI= x", "line 258: b'YWI= x' is no token in base64 and its rank"),
        (b"!! 3", "line 258: b'!! 3' is no"),
        (b" 300", "line 258: b' 300' is no"), (b"YWM= 1234567890", "line 258: b'YWM= 1234567890' is no"),
        (b"YWI= 300", "line 258: the token b'ab' comes twice"),
    ):  # fmt: skip
        path.write_bytes(b"\n".join([*lines, line]))
        assert refused(read_ranks, path).startswith(f"{path}, {said}")
    path.write_bytes(b"\n".join([*lines, base64.b64encode(b"x" * 1024) + b" 123456789"]))
    assert len(read_ranks(path)) == 258
    size = path.stat().st_size
    monkeypatch.setattr(tiktoken_ranks, "_MAX_FILE_BYTES", size)
    assert len(read_ranks(path)) == 258
    monkeypatch.setattr(tiktoken_ranks, "_MAX_FILE_BYTES", size - 1)
    assert refused(read_ranks, path) == f"{path} has more than {size - 1} bytes, too many for a file of ranks"
    path.write_bytes(b"\n".join(lines[2:]))
    assert refused(read_ranks, path) == f"{path} has no token for 2 of the 256 bytes, such as 0x00: it may be cut short"
    assert refused(check_ranks, ranks() | {b"ab": 7}, "F") == "F: two tokens have one rank"
    for text, wanted in ((b"YQ== 0\n", True), (b"YQ==\n", False), (b"a b\n", False), (b"", False)):
        path.write_bytes(text)
        assert is_rank_file(path) is wanted
    assert not is_rank_file(tmp_path / "none")
    assert (
        encoding_of(Path("x/qwen.tiktoken")).expression == QWEN2
        and encoding_of(Path("tokenizer.model")).expression == LLAMA3
    )
    assert refused(encoding_of, Path("x/other.tiktoken")).startswith(
        "other.tiktoken holds ranks, but nothing says how its texts are cut: name it as one of gpt2.tiktoken, "
    )
    llama = tiktoken_ranks.ENCODINGS["tokenizer"].special
    assert (llama["<|begin_of_text|>"], llama["<|python_tag|>"], llama["<|reserved_special_token_2|>"]) == (
        128000,
        128010,
        128011,
    )
    assert len(llama) == 256 and max(llama.values()) == 128255 == llama["<|reserved_special_token_246|>"]


def test_ranks_become_merges_in_their_order(monkeypatch: pytest.MonkeyPatch):
    made = tiktoken_ranks.description(
        ranks(b"ab", b" a", b" ab"), Encoding("X", {"<e>": 300, "<t>": 256, "<d>": 299}), "F"
    )
    total = 256 + 2 + 2 + 3
    monkeypatch.setattr("firsthand.tokens.token_merges.MAX_SPLITS", total)
    assert tiktoken_ranks.description(ranks(b"ab", b" a", b" ab"), Encoding("X", {}), "F")["added_tokens"] == []
    monkeypatch.setattr("firsthand.tokens.token_merges.MAX_SPLITS", total - 1)
    told = refused(tiktoken_ranks.description, ranks(b"ab", b" a", b" ab"), Encoding("X", {}), "F")
    assert told == "F: the vocabulary's tokens are too long for any real tokenizer"
    letters = character_of_byte()
    space = letters[32]
    assert made["model"]["merges"] == [["a", "b"], [space, "a"], [space, "ab"], [space + "a", "b"]]
    vocab = made["model"]["vocab"]
    assert (vocab["ab"], vocab[space + "ab"], vocab["<e>"], vocab["<d>"]) == (256, 258, 300, 299) and "<t>" not in vocab
    assert [(each["id"], each["content"]) for each in made["added_tokens"]] == [(299, "<d>"), (300, "<e>")]
    assert (
        made["pre_tokenizer"]["pretokenizers"][0]["pattern"] == {"Regex": "X"}
        and made["model"]["ignore_merges"] is True
    )


# -- the normaliser --


def trie(*pairs: tuple[str, str]) -> bytes:
    """A table for keys of one byte or two: the root at 0 with offset 256, a child at 256 ^ byte, its own at 768 ^ byte."""
    units, texts = [0] * 1024, b""
    units[0] = 256 << 10
    for place, (key, new) in enumerate(pairs):
        first, *second = key.encode()
        child = 256 ^ first
        if second:
            units[child] = first | (child ^ 768) << 10
            first, child = second[0], 768 ^ second[0]
        value = 512 + place
        units[child] = first | 1 << 8 | (child ^ value) << 10
        units[value] = 1 << 31 | len(texts)
        texts += new.encode() + b"\0"
    return struct.pack("<I", 4096) + struct.pack("<1024I", *units) + texts


def far(pairs: tuple[tuple[str, str], ...]) -> bytes:
    """A table whose offsets are given in 256 units, as those of large ones are: the root's is 1, a child's more."""
    units, texts = [0] * 4096, b""
    units[0] = 1 << 10 | 1 << 9
    for place, (key, new) in enumerate(pairs):
        first, *second = key.encode()
        child = 256 ^ first
        if second:
            units[child] = first | 1 << 9 | 2 << 10  # its own are at 512 further
            first, child = second[0], child ^ 512 ^ second[0]
        value = child ^ 256 * (4 + place)
        units[child] = first | 1 << 8 | 1 << 9 | (4 + place) << 10
        units[value] = 1 << 31 | len(texts)
        texts += new.encode() + b"\0"
    return struct.pack("<I", 4 * 4096) + struct.pack("<4096I", *units) + texts


def test_a_table_s_replacements_are_read_out_and_the_longest_is_made():
    table = trie(("A", "a"), ("!", ""), ("z", "zé"), ("é", "e"))
    assert read_table(table, "F") == {"A": "a", "!": "", "z": "zé", "é": "e"} and read_table(bytes(4), "F") == {}
    assert read_table(far((("A", "one"), ("é", "two"), ("z", "three"))), "F") == {"A": "one", "é": "two", "z": "three"}
    for wrong in (b"", b"\1\0\0", struct.pack("<I", 8) + bytes(7), struct.pack("<I", 6) + bytes(8)):
        assert refused(read_table, wrong, "F") == "F: the normaliser's table is cut short"
    outside = struct.pack("<1024I", *(256 << 10, *(0,) * 320, 65 | 1 << 8 | (321 ^ 4096) << 10, *(0,) * 702))
    assert read_table(struct.pack("<I", 4096) + outside, "F") == {}, "a value outside of the table is none"
    assert refused(read_table, table[:-1], "F") == "F: the normaliser's table points past its end"
    assert refused(read_table, trie(("a", "x" * 65)), "F") == "F: the normaliser's table makes 65 characters of 'a'"
    assert read_table(trie(("a", "x" * 64)), "F")["a"] == "x" * 64
    replace = replacer({"a": "1", "ab": "2", "abc": "3", "c": "", "é": "e"})
    assert replace("abcab aé xc") == "32 1e x" and replace("xyz") == "xyz" and replace("") == ""
    assert replacer({})("a") == "a" and replacer({"ab": "c"})("aab a") == "ac a"
    assert replacer({"abc": "1", "ab": "2"})("ababc") == "21" and replacer({"ab": "2", "abc": "1"})("ababc") == "21"
    assert replacer({"abc": "1", "ab": "2"})("abab") == "22" and replacer({"a": "1"})("aaa") == "111"
    assert charsmap._MAX_GROWTH == 64


def test_steps_that_make_a_text_longer_are_bounded_together():
    for step, wanted in (
        ({"type": "Replace", "pattern": {"String": "ab"}, "content": "12345"}, (3, 0)),
        ({"type": "Replace", "pattern": {"String": "ab"}, "content": ""}, (1, 0)),
        ({"type": "Replace", "pattern": {"String": ""}, "content": "123"}, (4, 3)),
        ({"type": "Replace", "pattern": {"Regex": "a+"}, "content": "123"}, (3, 0)),
        ({"type": "Replace", "pattern": {"Regex": "a+"}, "content": ""}, (1, 0)),
        ({"type": "Replace", "pattern": {"Regex": "a*"}, "content": "123"}, (4, 3)),
        ({"type": "Prepend", "prepend": "▁▁"}, (1, 2)), ({"type": "ByteLevel"}, (2, 1)), ({"type": "NFC"}, (1, 0)),
        ({"type": "Precompiled", "precompiled_charsmap": base64.b64encode(bytes(4) + b"a\0bcd\0").decode()}, (3, 0)),
        ({"type": "Precompiled", "precompiled_charsmap": "!"}, (1, 0)),
    ):  # fmt: skip
        assert _growth(step, "here") == wanted, step
    assert (MAX_FACTOR, MAX_ADDED) == (256, 16_384)

    def longer(*contents: str) -> dict[str, Any]:
        steps = [{"type": "Replace", "pattern": {"String": "a"}, "content": each} for each in contents]
        return {"normalizer": {"type": "Sequence", "normalizers": steps}, "pre_tokenizer": None}

    check_growth(longer("x" * 16, "x" * 16), "F")
    assert "F: the tokenizer's normalizer may make a text more than 256 times as long" in refused(
        check_growth, longer("x" * 16, "x" * 17), "F"
    )
    check_growth({"normalizer": {"type": "Prepend", "prepend": "x" * 16_384}}, "F")
    refused(check_growth, {"normalizer": {"type": "Prepend", "prepend": "x" * 16_385}}, "F")
    two = [{"type": "Prepend", "prepend": "x" * 8192}, {"type": "Replace", "pattern": {"String": "x"}, "content": "yy"}]
    check_growth({"normalizer": {"type": "Sequence", "normalizers": two}}, "F")
    refused(
        check_growth,
        {"normalizer": {"type": "Sequence", "normalizers": [*two, {"type": "Prepend", "prepend": "z"}]}},
        "F",
    )


# -- what travels to GGUF, and what files recommend --


def test_a_tokenizer_json_has_a_name_in_gguf_or_is_refused(tmp_path: Path):
    def split(expression: str) -> dict[str, Any]:
        return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}

    last = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    whole = {"type": "ByteLevel", "add_prefix_space": False}
    assert _expressions(whole) == (GPT2,) and _expressions({"pretokenizers": [split("a"), last]}) == ("a",)
    digits = {"type": "Digits", "individual_digits": True}
    assert _expressions({"pretokenizers": [digits, whole]}) == (r"\p{N}", GPT2)
    for other in (
        None,
        {"type": "Whitespace"},
        {**whole, "add_prefix_space": True},
        {"pretokenizers": [{"type": "Digits"}, last]},
    ):
        assert _expressions(other) is None

    def name(pre: Any, normalizer: Any = None, ignores: bool = False) -> str:
        made = {"pre_tokenizer": pre, "normalizer": normalizer, "model": {"ignore_merges": ignores}}
        return _pre_tokenizer_name(made, tmp_path)

    assert name({"pretokenizers": [split(QWEN2), last]}) == "stablelm2"
    assert name({"pretokenizers": [split(QWEN2), last]}, {"type": "NFC"}) == "qwen2"
    assert name({"pretokenizers": [split(QWEN2), last]}, {"normalizers": [{"type": "NFC"}]}) == "qwen2"
    assert name({"pretokenizers": [split(LLAMA3), last]}, ignores=True) == "llama3"
    assert name({"pretokenizers": [split(LLAMA3), last]}) == "dbrx" and name(whole) == "gpt-2"
    kept = f"{tmp_path} has a tokenizer that GGUF cannot express ({{}}): save safetensors beside its files"
    assert refused(name, whole, {"type": "NFKC"}) == kept.format("its normalizer or pre-tokenizer has no name in GGUF")
    assert refused(name, whole, None, True) == kept.format("its pre-tokenizer has no name in GGUF")
    vocab = {"model": {"vocab": {"b": 1, "a": 0}}, "added_tokens": [
        {"id": 2, "content": "<s>", "special": True}, {"id": 3, "content": "<u>", "special": False}]}  # fmt: skip
    assert _tokens(vocab, tmp_path) == (["a", "b", "<s>", "<u>"], [1, 1, 3, 4])
    assert _tokens({"model": {"vocab": {"a": 0}}, "added_tokens": None}, tmp_path) == (["a"], [1])
    assert refused(_tokens, {"model": {"vocab": {"a": 0, "b": 2}}}, tmp_path) == kept.format("its ids have gaps")


def test_recommended_settings_are_those_a_sampling_takes():
    given = {"temperature": 0.6, "top_p": 1.5, "top_k": 20.9, "min_p": True, "repetition_penalty": math.nan,
             "max_new_tokens": 64.0, "other": 1}  # fmt: skip
    found = recommended(given, FOLDER)
    assert found == {"temperature": 0.6, "top_k": 20, "max_tokens": 64} and isinstance(found["top_k"], int)
    assert recommended({"general.sampling.temp": 1, "general.sampling.top_k": "5"}, GGUF) == {"temperature": 1}
    assert (
        recommended({"temperature": 0.6}, GGUF)
        == {}
        == recommended({"top_k": -1.0, "temperature": -1}, {"temperature": "temperature"})
    )
