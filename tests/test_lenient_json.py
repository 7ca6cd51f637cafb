"""The streaming reader of near-JSON against json and ast, at its bounds, and with as little held back as can be."""

from __future__ import annotations

import ast
import json

import pytest

from firsthand.tokens.calls.call_parser import parse
from firsthand.tokens.calls.lenient_json import MAX_DEPTH, MAX_HELD, MAX_WORD, Reader


def read(text: str, *, final: bool = True) -> tuple[str, int, bool, bool]:
    """The JSON that was read, how far, and whether the value is complete or broken."""
    reader = Reader()
    at = reader.feed(text, 0, final)
    return "".join(piece.json for piece in reader.drain()), at, reader.done, reader.broken


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, -2.5e3, true, null, "x\\u00e9\\n\\"\\/"], "b": {}}',
        "[]",
        "[[], {}, [0]]",
        '"\\ud83d\\ude42"',
        '{"": ""}',
    ],
)
def test_json_is_read_as_json(text: str) -> None:
    made, at, done, broken = read(text + " rest")
    assert json.loads(made) == json.loads(text) and (at, done, broken) == (len(text), True, False)


@pytest.mark.parametrize(
    "text",
    ["{'a': (1, 2,), 'b': None}", "[True, False, 1_000, .5, 5., +3]", "'''it's\n\"so\"'''", "['\\'', \"'\", '\\x41']"],
)
def test_python_is_read_as_python(text: str) -> None:
    made, at, done, _ = read(text)
    expected = json.loads(json.dumps(ast.literal_eval(text)))  # tuples are lists
    assert json.loads(made) == expected and (at, done) == (len(text), True)


@pytest.mark.parametrize(
    "text", ["[1 2]", "[nan]", "[a]", "{1: 2}", "[1}", "{a b: 1}", "[01]", "[1__0]", "[,]", "{'a' = 1}"]
)
def test_what_is_ambiguous_is_broken(text: str) -> None:
    assert read(text)[2] is False


@pytest.mark.parametrize(
    "text",
    [
        "(5)",
        "[1, (2), ('a')]",
        "('long '\n)",
        "((1), ((2,)), (), [(3)], {'a': (4)})",
        "((5,))",
        "(1, 2)",
        "[({'a': 1})]",
    ],
)
def test_a_bracket_around_one_value_is_that_value_however_it_is_cut(text: str) -> None:
    expected = json.loads(json.dumps(ast.literal_eval(text)))
    for cut in range(len(text)):
        reader = Reader()
        at = reader.feed(text[:cut], 0, False)
        pieces = reader.drain()
        assert reader.feed(text, at, True) == len(text) and reader.done
        pieces += reader.drain()
        assert json.loads("".join(piece.json for piece in pieces)) == expected
        opened = [piece.depth for piece in pieces if piece.kind == "begin"]
        assert opened == sorted_depths(expected) and pieces[-1] == ("end", 0, "", "")
    assert read("(1 2)")[2] is False and read("(1", final=True)[2] is False


def sorted_depths(value: object, depth: int = 0) -> list[int]:
    """The number of brackets around each value, in the order in which they begin."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [depth, *(each for part in inner for each in sorted_depths(part, depth + 1))]


def test_brackets_that_may_be_around_one_value_are_bounded_exactly() -> None:
    assert json.loads(read("(" * MAX_HELD + "5" + ")" * MAX_HELD)[0]) == 5
    assert read("(" * (MAX_HELD + 1) + "5" + ")" * (MAX_HELD + 1))[2] is False
    told = "(1, " * 20 + "2" + ")" * 20
    assert json.loads(read(told)[0]) == json.loads(json.dumps(ast.literal_eval(told))), "with a comma they are lists"


def test_an_unclosed_bracket_around_one_value_is_closed_as_that_value() -> None:
    for text, value in (("(5", 5), ("[(5", [5]), ("(5,", [5]), ("(", [])):
        reader = Reader()
        reader.feed(text, 0, True)
        assert reader.close() and json.loads("".join(piece.json for piece in reader.drain())) == value


@pytest.mark.parametrize(
    "literal",
    [
        r"'\101\0\18\1234'",
        r"'\a\v'",
        r"'\N{EM DASH}\N{em dash}x\N{CJK UNIFIED IDEOGRAPH-4E00}'",
        r"'\U0001f642\U0010ffff'",
    ],
)
def test_a_call_in_python_has_pythons_escapes_and_json_has_not(literal: str) -> None:
    for cut in range(len(literal)):
        reader, call = Reader(call=True, positional=("a",)), f"{literal})"
        at = reader.feed(call[:cut], 0, False)
        assert reader.feed(call, at, True) == len(call) and reader.done
        assert json.loads("".join(piece.json for piece in reader.drain())) == {"a": ast.literal_eval(literal)}
    assert json.loads(read(literal)[0]) == literal[1:-1], "unknown escapes are kept"


@pytest.mark.parametrize("kept", [r"\8", r"\q", r"\N", r"\N{NO SUCH}", r"\N{EM DASH", r"\U0001f64", r"\U00110000"])
def test_what_python_does_not_know_either_is_kept_as_written(kept: str) -> None:
    (call,) = parse(f"<tool_call>\nf(a='{kept}')\n</tool_call>")[1]
    assert call.arguments == {"a": kept}


def test_nesting_and_words_are_bounded_exactly() -> None:
    assert read("[" * MAX_DEPTH + "]" * MAX_DEPTH)[2] and read("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))[3]
    assert read("[" + "1" * MAX_WORD + "]")[2] and read("[" + "1" * (MAX_WORD + 1) + "]")[3]
    assert json.loads(read("{" + "a" * MAX_WORD + ": 1}")[0]) == {"a" * MAX_WORD: 1}


def test_only_what_may_still_change_is_held_back() -> None:
    assert read('"\\u00e', final=False)[1] == 1 and read('"\\u00zz', final=False)[1] == 7  # no digits can follow a z
    assert json.loads(read('"\\u00zz"')[0]) == "\\u00zz"
    assert read('"a\\', final=False)[1] == 2 and read("12", final=False)[1] == 0 and read("12", final=True)[2]
    assert read("''", final=False)[1] == 0 and read("''", final=True)[2] and read("'a'", final=False)[2]
    assert read("'''a''", final=False)[1] == 4 and read("'''a'b", final=False)[1] == 6


def test_a_value_that_lacks_only_brackets_is_closed() -> None:
    for text, closed in (("[1, {'a': 2", True), ("[1,", True), ("{'a'", False), ("{'a':", False), ("['b", False)):
        reader = Reader()
        reader.feed(text, 0, True)
        assert reader.close() is closed
    reader = Reader()
    reader.feed("[1, {'a': 2", 0, True)
    assert reader.close() and json.loads("".join(piece.json for piece in reader.drain())) == [1, {"a": 2}]


def test_a_calls_unnamed_arguments_get_the_names_of_their_places() -> None:
    for text, made in (
        ("1, b=2)", {"a": 1, "b": 2}),
        ("1, 2)", {"a": 1, "b": 2}),
        (")", {}),
        ("b=1, a=2)", {"a": 2, "b": 1}),
    ):
        reader = Reader(call=True, positional=("a", "b"))
        reader.feed(text, 0, True)
        assert reader.done and json.loads("".join(piece.json for piece in reader.drain())) == made
    for text in ("1, 2, 3)", "b=1, 2)", "b={'x': 1}, 2)", "'a': 1)"):
        reader = Reader(call=True, positional=("a", "b"))
        reader.feed(text, 0, True)
        assert reader.broken


@pytest.mark.parametrize(
    ("body", "name", "arguments"),
    [
        ('{"name": "f", "name": "g", "arguments": {"a": 1}}', "f", {"a": 1}),
        ('{"name": "f", "arguments": {"a": 1}, "arguments": {"a": 2}}', "f", {"a": 1}),
        (
            '{"name": "f", "arguments": {"name": "g", "x": [{"arguments": 1}]}}',
            "f",
            {"name": "g", "x": [{"arguments": 1}]},
        ),
        ('{"name": "f"}', "f", {}),
        ('{"name": "f", "arguments": null}', "f", {}),
        ('{"name": "f", "arguments": " "}', "f", {}),
        ('{"name": "f", "arguments": "{\\"a\\": 1}"}', "f", {"a": 1}),
        ('{"function": {"name": "f", "arguments": {"a": 1}}}', "f", {"a": 1}),
        ('{"function": {"arguments": {"a": 1}}, "name": "f"}', "f", {"a": 1}),
    ],
)
def test_the_first_name_and_the_first_arguments_are_the_calls(
    body: str, name: str, arguments: dict[str, object]
) -> None:
    text, (call,) = parse(f"<tool_call>{body}</tool_call>")
    assert (text, call.name, call.arguments, call.invalid) == ("", name, arguments, None)


@pytest.mark.parametrize("key", ["type", "id", "index", "tool_call_id"])
@pytest.mark.parametrize("place", range(3))
def test_a_call_may_have_keys_beside_its_name_and_arguments(key: str, place: int) -> None:
    parts = ['"name": "f"', '"arguments": {"a": 1}']
    parts.insert(place, f'"{key}": 0')
    words, calls = parse("{" + ", ".join(parts) + "}")
    assert words == "" and [(call.name, call.arguments) for call in calls] == [("f", {"a": 1})]
    other = "{" + ", ".join(parts).replace(f'"{key}"', '"title"') + "}"
    words, calls = parse(other)
    assert (words, calls) == ((other, ()) if place < 2 else ("", calls)) and len(calls) == (place == 2)


def test_a_constant_or_a_number_is_no_key_and_what_only_resembles_one_is() -> None:
    for word in ("true", "false", "null", "True", "False", "None", "1", "-1", ".5", "1e3", "-a", "a.b", "+", "1a"):
        assert read(f"{{{word}: 1}}") == ("{", 1, False, True), word
        assert read(f"{{a: 1, {word}: 2}}") == ('{"a": 1', 7, False, True), word
    for word in ("TRUE", "none", "nil", "NaN", "Infinity", "e5", "true_", "None-1", "é", "_", "a1"):
        assert read(f"{{{word}: null}}") == (f'{{"{word}": null}}', len(word) + 8, True, False), word
        assert read(f"[{word}]") == ("[", 1, False, True), word
    for word, value in (("true", True), ("None", None), ("3", 3)):
        reader = Reader(call=True, positional=("a", "b"))
        assert reader.feed(f"{word}, b={word})", 0, False) == 2 * len(word) + 5
        assert json.loads("".join(piece.json for piece in reader.drain())) == {"a": value, "b": value}
        named = Reader(call=True, positional=("a",))
        assert named.feed(f"{word}=1)", 0, False) == len(word) and named.broken, "a value cannot be assigned to"


@pytest.mark.parametrize(
    ("word", "made"),
    [
        ("1e308", "1e308"), ("-1e308", "-1e308"), ("9" * 400, "9" * 400), ("1e5", "1e5"), ("-0", "-0"),
        ("+1", "1"), ("+0", "0"), ("1_000", "1000"), ("+1_0", "10"), ("5.", "5.0"), (".5", "0.5"), ("-.5", "-0.5"),
        ("1_0.5", "10.5"), ("+1e5", "100000.0"), (".9e308", "9e+307"), ("+" + "9" * 309, "9" * 309),
        ("+" + "9" * (MAX_WORD - 1), "9" * (MAX_WORD - 1)), ("1_" + "0" * 400, "1" + "0" * 400),
    ],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_a_number_of_python_is_the_same_number_of_json(word: str, made: str) -> None:
    assert read(f"[{word}]") == (f"[{made}]", len(word) + 2, True, False)
    assert json.loads(made) == ast.literal_eval(word)


@pytest.mark.parametrize(
    "word",
    ["1e309", "-1e309", ".9e999", "-.9e999", "+9e999", "9.e999", "1_0.e999", ".", "+", "+.", "e5", "-", "1__0", "1_"],
)
def test_a_number_that_is_not_finite_or_has_no_digits_is_none(word: str) -> None:
    made, _, done, broken = read(f"[{word}]")
    assert (made, done, broken) == ("[", False, True)
