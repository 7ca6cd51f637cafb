"""The cost of a grammar by its text, part by part; and vocabularies as GGUF writes them, and a normaliser's table."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ModelFileError
from firsthand.grammar import Grammar
from firsthand.tokens import gguf_vocab, grammar_cost
from firsthand.tokens.charsmap import read_table, replacer
from firsthand.tokens.grammar_cost import MAX_COST, MAX_COUNT, NotCheap, is_cheap
from firsthand.tokens.pretokenizers import EXPRESSIONS, GPT2
from firsthand.tokens.vocab_export import vocabulary_metadata


def cost(schema: Any) -> int | None:
    """The cost of a schema; None if it is not known to be cheap."""
    try:
        return grammar_cost._whole_schema_cost(schema)
    except NotCheap:
        return None


def test_each_part_of_a_schema_costs_what_it_takes() -> None:
    costs: list[tuple[Any, int | None]] = [
        (True, 1), ({}, 1), (3, None), ({"title": "a long title", "description": "x"}, 1),
        ({"type": "string"}, 2), ({"type": "string", "minLength": 0, "maxLength": 1000}, 4),
        ({"type": "string", "maxLength": 1001}, None), ({"type": "string", "minLength": -1}, None),
        ({"type": "string", "maxLength": True}, None), ({"type": "array", "minItems": 1, "maxItems": 9}, 4),
        ({"type": "number", "minimum": 1e15, "maximum": -1e15}, 62), ({"type": "number", "minimum": 1.1e15}, None),
        ({"exclusiveMinimum": 1, "exclusiveMaximum": 2.5}, 61), ({"minimum": True}, None),
        ({"minimum": -1e15, "exclusiveMaximum": -2}, 61), ({"minimum": -1.1e15}, None), ({"exclusiveMaximum": -1e300}, None),
        ({"maximum": 10**15}, 31), ({"maximum": 10**15 + 1}, None), ({"minimum": "1"}, None), ({"minimum": 0}, 31),
        ({"multipleOf": 1000}, 1001), ({"multipleOf": 1001}, None), ({"multipleOf": 0}, None), ({"multipleOf": 2.5}, None),
        ({"properties": {"ab": True, "c": {"type": "null"}}}, 1 + 2 + 1 + 1 + 2), ({"properties": []}, None),
        ({"required": ["abc", 3]}, 1 + 3 + 1), ({"required": "abc"}, None),
        ({"items": {"type": "null"}}, 1 + 2), ({"additionalProperties": False}, 2),
        ({"prefixItems": [True, {"type": "null"}]}, 1 + 1 + 2), ({"prefixItems": {}}, None),
        ({"pattern": "a{3}"}, 1 + 4), ({"pattern": "a{3}", "type": "string"}, 1 + 4),
        ({"pattern": "a{3}", "maxLength": 3}, None), ({"pattern": 3}, None), ({"pattern": "a{1000}"}, 1 + 7),
        ({"pattern": "a{1001}"}, None), ({"pattern": "a{0001000}"}, None),
        ({"format": "date"}, 101), ({"format": 1}, None), ({"enum": ["ab", 1]}, 1 + len('["ab", 1]')), ({"const": "abc"}, 6),
        ({"const": 1, "enum": [1]}, None), ({"anyOf": [True, {"type": "null"}]}, 1 + 1 + 2), ({"anyOf": {}}, None),
        ({"anyOf": [True], "type": "null"}, None), ({"allOf": [{"type": "null"}]}, 1 + 2), ({"allOf": [True, True]}, None),
        ({"allOf": []}, None), ({"$ref": "#/$defs/a"}, 2), ({"$ref": "#/definitions/a"}, 2), ({"$ref": "#/$defs/a/b"}, None),
        ({"$ref": "#/other/a"}, None), ({"$ref": 3}, None), ({"$ref": "#/$defs/a", "type": "null"}, None),
        ({"$defs": {"a": True}, "definitions": {"bc": True}, "$ref": "#/$defs/a"}, 1 + 2 + 3 + 1),
        ({"x-guidance": {"lenient": True}, "type": "null"}, 2), ({"x-guidance": {"other": 1}}, None),
        ({"x-guidance": 3}, None), ({"patternProperties": {}}, None), ({"not": {}}, None), ({"uniqueItems": True}, None),
    ]  # fmt: skip
    assert [(schema, cost(schema)) for schema, _ in costs] == costs


def test_multiples_of_a_schema_multiply() -> None:
    def with_multiples(*numbers: int) -> dict[str, Any]:
        return {"prefixItems": [{"multipleOf": each} for each in numbers]}

    assert cost(with_multiples(10, 10, 10)) == 1 + 3 * 11 and cost(with_multiples(10, 10, 11)) is None
    assert cost({"anyOf": [{"properties": {"a": {"multipleOf": 500}}}, {"multipleOf": 3}]}) is None
    assert MAX_COUNT == 1000


def test_a_grammar_is_cheap_up_to_its_most_cost() -> None:
    assert is_cheap(Grammar("regex", "a" * MAX_COST)) and not is_cheap(Grammar("regex", "a" * (MAX_COST + 1)))
    for size, cheap in ((MAX_COST, True), (MAX_COST + 1, False)):
        assert is_cheap(Grammar("choice", json.dumps(["a" * (size - 4)]))) is cheap
    blanks = json.dumps({"description": " " * 60_000, "type": "null"})
    assert is_cheap(Grammar("json_schema", blanks))
    assert not is_cheap(Grammar("json_schema", json.dumps({"description": " " * 66_000})))
    deep: Any = True
    for _ in range(3000):
        deep = {"items": deep}
    with pytest.raises((NotCheap, RecursionError)):
        grammar_cost._schema_cost(deep)


def lark(text: str) -> int | None:
    try:
        return grammar_cost._lark_cost(text)
    except NotCheap:
        return None


def test_rules_of_lark_cost_a_character_each_but_for_blanks_and_comments() -> None:
    costs = {
        "": 0, "a: b": 3, "a: b // a comment\n# another": 3, 'a: "x y"': 2 + 5, r'a: "\"\u0041"': 2 + 10, "a: /b+/": 2 + 4,
        "a: b~3": None, "a: b & c": None, "%ignore x": 2, "a: b{12}": 3 + 1 + 2 + 1, "a: b{1000}": 3 + 1 + 4 + 1,
        "a: b{1001}": None, "a: /b{1001}/": None, 'a: %json {"type": "null"} b': 2 + 2 + 1, "a: %json {": None,
        "a: %json 3": None, "%other": None, 'a: "x': None, "a::b": None, "a ::= b": 7, "a ::= b%": None, "a ::= b&c": None,
        "a ::= b{1001}": None,
    }  # fmt: skip
    assert {text: lark(text) for text in costs} == costs


def trie(texts: dict[bytes, int]) -> list[int]:
    """A double array of one-byte keys: the root at 0, a node for each key, and a leaf behind it."""
    units = [1 << 10] + [0] * 1023
    for number, (key, value) in enumerate(texts.items()):
        (label,) = key
        node, leaf = 1 ^ label, 512 + number
        units[node] = (node ^ leaf) << 10 | 1 << 8 | label
        units[leaf] = 0x80000000 | value
    return units


def table(units: list[int], texts: bytes) -> bytes:
    return struct.pack("<I", 4 * len(units)) + struct.pack(f"<{len(units)}I", *units) + texts


def test_a_normalisers_table_is_read_out_to_its_ends() -> None:
    texts = b"one\0" + "zwölf".encode() + b"\0\0"
    units = trie({b"a": 0, b"b": 4, b"c": len(texts) - 1, b"\xff": 0})
    found = read_table(table(units, texts), "here")
    assert found == {"a": "one", "b": "zwölf", "c": ""}, "a key that is no UTF-8 replaces nothing"
    assert read_table(struct.pack("<I", 0), "here") == {}
    for wrong in (b"\0\0\0", struct.pack("<I", 3) + bytes(3), struct.pack("<I", 8) + bytes(4)):
        with pytest.raises(ModelFileError, match="is cut short"):
            read_table(wrong, "here")
    for at in (len(texts), len(texts) + 1):
        with pytest.raises(ModelFileError, match="points past its end"):
            read_table(table(trie({b"a": at}), texts), "here")
    assert len(read_table(table(trie({b"a": 0}), b"x" * 64 + b"\0"), "here")["a"]) == 64
    with pytest.raises(ModelFileError, match="makes 65 characters of 'a'"):
        read_table(table(trie({b"a": 0}), b"x" * 65 + b"\0"), "here")
    loop = trie({})
    for label in range(1, 256):
        loop[1 ^ label] = (1 ^ label ^ 1) << 10 | label  # each node leads to the root's children again
    with pytest.raises(ModelFileError, match="has no end"):
        read_table(table(loop, texts), "here")


def test_the_longest_replacement_at_each_place_is_made_and_the_rest_stays() -> None:
    swap = replacer({"ab": "1", "a": "2", "abcd": "3", "]": "4"})
    assert [swap(text) for text in ("xabcdx", "abc", "aab", "abab]", "", "xyz", "abcab")] == [
        "x3x", "1c", "21", "114", "", "xyz", "1c1",
    ]  # fmt: skip
    assert replacer({})("ab") == "ab"


BYTES: dict[str, Any] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
CUTS, PREFIXED = BYTES | {"use_regex": True}, BYTES | {"use_regex": True, "add_prefix_space": True}


def folder(path: Path, **changes: Any) -> Path:
    """A folder with a byte-level tokenizer.json of a few tokens."""
    tokens = ["a", "b", "ab", "<|mine|>", "<|end|>"]
    body: dict[str, Any] = {
        "version": "1.0", "normalizer": None,
        "added_tokens": [
            {"id": 3, "content": "<|mine|>", "special": False, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False},
            {"id": 4, "content": "<|end|>", "special": True, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False},
        ],
        "pre_tokenizer": CUTS,
        "decoder": PREFIXED,
        "model": {"type": "BPE", "vocab": {text: id for id, text in enumerate(tokens[:3])}, "merges": [["a", "b"]]},
    }  # fmt: skip
    path.mkdir()
    (path / "tokenizer.json").write_text(json.dumps(body | changes))
    (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>", "chat_template": "{{ 1 }}"}))
    return path


def test_a_vocabulary_is_written_as_gguf_reads_it(tmp_path: Path) -> None:
    made = vocabulary_metadata(folder(tmp_path / "one"))
    assert made == {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": next(name for name, known in EXPRESSIONS.items() if known == (GPT2,)),
        "tokenizer.ggml.tokens": ["a", "b", "ab", "<|mine|>", "<|end|>"],
        "tokenizer.ggml.token_type": [1, 1, 1, 4, 3],
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.eos_token_id": 4,
        "tokenizer.chat_template": "{{ 1 }}",
    }
    back = gguf_vocab.description(made, "here")
    assert back["model"]["merges"] == [["a", "b"]] and back["model"]["vocab"]["<|end|>"] == 4
    assert [(each["id"], each["special"]) for each in back["added_tokens"]] == [(3, False), (4, True)]
    digits = {"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": True}, CUTS,
    ]}  # fmt: skip
    name = vocabulary_metadata(folder(tmp_path / "digits", pre_tokenizer=digits))["tokenizer.ggml.pre"]
    assert EXPRESSIONS[name] == (r"\p{N}", GPT2)
    wrong: dict[str, dict[str, Any]] = {
        "its normalizer or pre-tokenizer has no name": {"normalizer": {"type": "NFKC"}},
        "its normalizer or pre-tokenizer": {"pre_tokenizer": PREFIXED},
        "its pre-tokenizer has no name": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "x"}, "behavior": "Isolated", "invert": False},
            BYTES]}},
    }  # fmt: skip
    for number, (said, change) in enumerate(wrong.items()):
        with pytest.raises(ModelFileError, match=said):
            vocabulary_metadata(folder(tmp_path / f"wrong{number}", **change))


@pytest.mark.parametrize("count", [4095, 4096, 4097, 8193])
def test_a_normalisers_table_of_many_nodes_on_a_level_has_the_same_keys(count: int) -> None:
    """Keys of three bytes, of which the first two are all different: as many nodes on the second level."""
    texts, last = ["one", "two", "three"], 1 << 16
    units = np.zeros(last + 256, dtype=np.int64)
    units[0] = 256 << 10
    expected: dict[str, str] = {}
    for number in range(count):
        first, second = number // 100 + 1, number % 100 + 1
        begin, behind = 256 ^ first, 256 * (first + 1)
        units[begin] = (begin ^ behind) << 10 | first
        middle, end = behind ^ second, (1 << 15) + number
        units[middle] = (middle ^ end ^ ord("x")) << 10 | second
        units[end] = (end ^ (last + number % 3)) << 10 | 1 << 8 | ord("x")
        expected[f"{chr(first)}{chr(second)}x"] = texts[number % 3]
    for number, at in enumerate((0, 4, 8)):
        units[last + number] = 0x80000000 | at
    assert read_table(table(units.tolist(), b"one\0two\0three\0"), "here") == expected
