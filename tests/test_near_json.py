"""Near-JSON piece by piece and as whole values, costs of grammars by arithmetic, and bounds of compiling."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from firsthand.errors import ConfigError, TransientError
from firsthand.grammar import Grammar, choice, gbnf, json_schema, lark, regex
from firsthand.tokens import grammar_compiler
from firsthand.tokens.calls.lenient_json import MAX_DEPTH, MAX_WORD, JsonPiece, Reader, _scalar
from firsthand.tokens.grammar_checks import accepts
from firsthand.tokens.grammar_compiler import in_bounds
from firsthand.tokens.grammar_cost import (
    MAX_COST,
    NotCheap,
    _lark_cost,
    _schema_cost,
    _text_cost,
    _whole_schema_cost,
    is_cheap,
)
from firsthand.tokens.llguidance_grammar import _json_item, _unforced, lark_json, lark_text


def read(text: str, **given: Any) -> tuple[Any, str]:
    """The value and what follows it; the same letter by letter."""
    reader = Reader(**given)
    end = reader.feed(text, 0, True)
    assert reader.done and not reader.broken, text
    whole = "".join(step.json for step in reader.drain())
    slow, held, at = Reader(**given), "", 0
    for letter in text:
        held += letter
        at = slow.feed(held, at, False)
    slow.feed(held, at, True)
    assert "".join(step.json for step in slow.drain()) == whole, text
    return json.loads(whole), text[end:]


def broken(text: str, **given: Any) -> int:
    """Where reading stopped at what cannot be part of a value."""
    reader = Reader(**given)
    at = reader.feed(text, 0, True)
    assert reader.broken and not reader.done, text
    return at


def test_near_json_is_read_as_it_is_meant():
    for text, wanted in {
        ' {"a": 1, \'b\': [True, None, false], c_d: (1, 2,), } x': ({"a": 1, "b": [True, None, False], "c_d": [1, 2]}, " x"),
        "[]": ([], ""), "( )": ([], ""), "{}": ({}, ""), "'it''s'": ("it", "'s'"), '""': ("", ""),
        "''''a'b''''": ("'a'b", "'"),
        "'''a\nb'''": ("a\nb", ""), '"a\nb\tc"': ("a\nb\tc", ""), "'say \"hi\"'": ('say "hi"', ""), '"it\'s"': ("it's", ""),
        r'"\u00e9\x41\n\"\/\\"': ('éA\n"/\\', ""), r"'it\'s \d \uZ'": ("it's \\d \\uZ", ""), '"a\\\nb"': ("ab", ""),
        r'"\q"': ("\\q", ""),
        "1_000": (1000, ""), ".5": (0.5, ""), "5.": (5.0, ""), "+3": (3, ""), "-0": (0, ""), "1e3": (1000.0, ""),
        "-2.5E-1,": (-0.25, ","),
        "true]": (True, "]"), "null ": (None, " "), "12345678901234567890": (12345678901234567890, ""),
    }.items():  # fmt: skip
        assert read(text) == wanted, text
    for text, at in (("nope", 0), ("[1 2]", 3), ("{1: 2}", 1), ("{a 1}", 3), ("[1, , 2]", 4), ("[1}", 2), ("{'a': }",
    6), ("NaN", 0),
                     ("1e999", 0), ("[:", 1), ("{a = 1}", 3), ("]", 0), ("01", 0), ("1__0", 0), ("{'a' 'b'}", 5),
                     (",", 0), ("&", 0)):  # fmt: skip
        assert broken(text) == at, text


def test_a_call_s_arguments_have_names_by_word_or_by_place():
    given = {"call": True, "positional": ("x", "y")}
    assert read("1, y='b') rest", **given) == ({"x": 1, "y": "b"}, " rest") and read(")", **given) == ({}, "")
    assert read("[1], {'k': 2},)", **given) == ({"x": [1], "y": {"k": 2}}, "") and read("y=(1,))", **given) == (
        {"y": [1]},
        "",
    )
    for text, at in (("1, 2, 3)", 6), ("y=1, 2)", 5), ("x: 1)", 1), ("'x'=1)", 3), ("1]", 1), ("x=)", 2)):
        assert broken(text, **given) == at, text
    assert read('a="b")', call=True) == ({"a": "b"}, "") and broken("1)", call=True) == 0


def test_pieces_come_as_soon_as_they_are_certain():
    reader = Reader()
    assert reader.feed('{"a": ["x', 0, False) == 9
    assert reader.drain() == [
        JsonPiece("begin", 0, "{"), JsonPiece("key", 1, '"a": ', "a"), JsonPiece("begin", 1, "["), JsonPiece("begin",
        2, '"'),
        JsonPiece("more", 3 - 1, "x"),
    ]  # fmt: skip
    assert reader.feed('y", 12', 0, False) == 4 and [step.json for step in reader.drain()] == ['y"', ""]
    assert reader.feed("12]}", 0, False) == 4 and reader.done
    assert [(step.kind, step.depth, step.json) for step in reader.drain()] == [
        ("begin", 2, ", 12"), ("end", 2, ""), ("more", 1, "]"), ("end", 1, ""), ("more", 0, "}"), ("end", 0, ""),
    ]  # fmt: skip
    for text, closes in (
        ('{"a": [1', True),
        ('{"a": ', False),
        ('{"a"', False),
        ('["x', False),
        ("[1,", True),
        ("{", True),
        ("", False),
    ):
        cut = Reader()
        cut.feed(text, 0, True)
        assert cut.close() is closes and cut.done is closes, text
    deep = Reader()
    assert deep.feed("[" * (MAX_DEPTH + 1), 0, True) == MAX_DEPTH == 64 and deep.broken
    assert broken("1" * (MAX_WORD + 1)) == 0 and read("1" * MAX_WORD)[0] > 0
    assert [_scalar(word) for word in ("1e5", "1E400", "+.5e1", "1_0.5", ".", "e5", "-", "0_1", "True", "TRUE")] == [
        "1e5", None, "5.0", "10.5", None, None, None, None, "true", None,
    ]  # fmt: skip


# -- grammars --


def test_the_cost_of_a_schema_is_about_its_characters():
    for schema, cost in (
        (True, 1), ({}, 1), ({"type": "string", "title": "long " * 99}, 2), ({"enum": ["a", "bc"]}, 1 + len('["a", "bc"]')),
        ({"type": "object", "properties": {"ab": {}, "c": True}, "required": ["ab", 3]}, 1 + 1 + (2 + 1 + 1 + 1) + 3),
        ({"items": {"type": "string"}, "minItems": 0, "maxItems": 1000}, 1 + 2 + 2), ({"format": "date"}, 101),
        ({"pattern": "[a-z]{3}", "type": "string"}, 1 + 8), ({"minimum": -1e15, "maximum": 5}, 61), ({"multipleOf": 7}, 8),
        ({"$defs": {"x": True}, "$ref": "#/$defs/x"}, 1 + 2 + 1), ({"anyOf": [{}, True, {"type": "null"}]}, 1 + 1 + 1 + 2),
        ({"allOf": [{}]}, 2), ({"prefixItems": [{}, {}], "additionalProperties": False}, 1 + 2 + 1),
        ({"const": None}, 1 + 4),
        ({"x-guidance": {"lenient": True}}, 1),
    ):  # fmt: skip
        assert _schema_cost(schema) == cost, schema
    for schema in (
        3, None, {"not": {}}, {"allOf": [{}, {}]}, {"$ref": "#/$defs/x", "type": "string"}, {"$ref": "#/x"},
        {"$ref": "#/$defs/x/y"},
        {"pattern": "a", "maxLength": 3}, {"pattern": 3}, {"enum": [1], "minimum": 0}, {"patternProperties": {}},
        {"maxItems": 1001},
        {"minItems": -1}, {"minItems": True}, {"multipleOf": 1001}, {"multipleOf": 0}, {"multipleOf": 1.5},
        {"minimum": 1.1e15},
        {"properties": []}, {"required": "a"}, {"x-guidance": {"other": 1}}, {"x-guidance": 3}, {"anyOf": {}},
        {"pattern": "a{1001}"},
    ):  # fmt: skip
        with pytest.raises(NotCheap):
            _schema_cost(schema)
    many = {"properties": {"a": {"multipleOf": 10}, "b": {"items": {"multipleOf": 100}}}}
    assert _whole_schema_cost(many) > 0
    with pytest.raises(NotCheap):
        _whole_schema_cost({"prefixItems": [many, {"multipleOf": 2}]})


def test_the_cost_of_rules_is_their_characters_and_counts_are_bounded():
    assert _text_cost("a{1000}") == 7 and _lark_cost('s: "ab" /c+/\n') == 2 + 4 + 4 and _lark_cost("# note\n") == 0
    assert _lark_cost("s: a{1000}") == 2 + 1 + 1 + 4 + 1 and _lark_cost('s: %json {"type": "null"} "x"') == 2 + 2 + 3
    assert _lark_cost("s ::= a | b") == 11 and _lark_cost("%ignore /x/") == 1 + 3
    for text in ("a{1001}", "x" + "9" * 7):
        with pytest.raises(NotCheap):
            _text_cost(text)
    for text in (
        "s: a & b",
        "s: ~a",
        "s: a{1001}",
        "s: /a{1001}/",
        "a::b",
        "s ::= a & b",
        "s: %json {",
        "s: @x",
        "%other",
    ):
        with pytest.raises(NotCheap):
            _lark_cost(text)
    for grammar, cheap in (
        (regex("a" * MAX_COST), True), (regex("a" * (MAX_COST + 1)), False), (choice(["a", "b"]), True),
        (choice(["x" * (MAX_COST - 4)]), True), (choice(["x" * (MAX_COST - 3)]), False), (json_schema({"not": {}}), False),
        (json_schema({"type": "string"}), True), (lark('start: "a"'), True), (gbnf('root ::= "a"'), True),
        (lark("start: A & B"), False),
    ):  # fmt: skip
        assert is_cheap(grammar) is cheap, grammar
    deep: Any = {}
    for _ in range(400):
        deep = {"items": deep}
    assert isinstance(is_cheap(json_schema(deep)), bool) and MAX_COST == 8000


def test_texts_fit_a_grammar_whole_or_at_their_beginning():
    pick = choice(["yes", "no"])
    assert (
        accepts(pick, "yes")
        and not accepts(pick, "ye")
        and accepts(pick, "ye", whole=False)
        and not accepts(pick, "x", whole=False)
    )
    assert accepts(pick, "", whole=False) and not accepts(pick, "") and not accepts(pick, " yes")
    number = json_schema({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
    assert accepts(number, ' {"a" : 3}\n') and not accepts(number, '{"a": "x"}') and not accepts(number, '{"a": 3')
    assert accepts(number, '{"a": 3', whole=False)
    assert accepts(regex("a+"), "aa") and not accepts(regex("a+"), " aa") and not accepts(regex("a+"), "\ud800")
    assert accepts(regex("é"), "é") and not accepts(regex("ab"), "a") and accepts(regex("ab"), "a", whole=False)


def test_compiling_is_bounded_in_time_and_number(monkeypatch: pytest.MonkeyPatch):
    assert in_bounds(lambda: 3, "it") == 3

    def fails(error: BaseException) -> Any:
        def build() -> None:
            raise error

        return build

    for error, kind, said in (
        (ConfigError("own"), ConfigError, "own"), (ValueError("x" * 400), ConfigError,
        f"it cannot be compiled: {'x' * 300}"),
        (ImportError("lib"), ImportError, "lib"),
    ):  # fmt: skip
        with pytest.raises(kind) as found:
            in_bounds(fails(error), "it")
        assert str(found.value) == said
    import threading

    wait = threading.Event()
    with pytest.raises(ConfigError, match=r"^it takes more than 0\.01 s to compile: make it simpler$"):
        in_bounds(wait.wait, "it", most_s=0.01)
    taken = [grammar_compiler._READERS.acquire(blocking=False) for _ in range(3)]
    assert taken == [True] * 3
    with pytest.raises(TransientError, match=r"^it waited 0\.01 s for 4 others that are being compiled: try again$"):
        in_bounds(lambda: 3, "it", most_s=0.01)
    wait.set()
    for _ in taken:
        grammar_compiler._READERS.release()
    assert [in_bounds(lambda: 4, "it") for _ in range(6)] == [4] * 6


def test_schemas_and_texts_are_items_of_a_rule():
    layout = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    loose = {**layout, "lenient": True, "coerce_one_of": True}
    assert lark_json({"type": "null"}) == "%json " + json.dumps({"type": "null", "x-guidance": loose})
    assert lark_json(True) == "%json " + json.dumps({"anyOf": [{}], "x-guidance": loose})
    assert _json_item(False, {"lenient": False}) == "%json " + json.dumps(
        {"not": {}, "x-guidance": {**layout, "lenient": False}}
    )
    assert lark_text('é"\n') == '"é\\"\\n"'
    free = '%llguidance {"no_forcing": true}'
    assert _unforced("start: A") == f"{free}\nstart: A"
    body = {"grammars": [{"json_schema": {"type": "null"}}, {"lark_grammar": "start: B"}]}
    assert json.loads(_unforced(json.dumps(body))) == {
        "grammars": [{"lark_grammar": f'{free}\nstart: %json {{"type": "null"}}'}, {"lark_grammar": f"{free}\nstart: B"}]
    }  # fmt: skip
    assert isinstance(regex("a"), Grammar) and math.isfinite(1.0)
