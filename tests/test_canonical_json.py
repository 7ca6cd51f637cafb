"""JSON is written anew as its schema's grammar writes it, and endpoints' answers that fit a schema are taken as they are."""

import asyncio
import json
from typing import Any

import pytest

from firsthand.errors import GrammarIgnored, GrammarUnchecked
from firsthand.grammar import json_schema, lark, regex
from firsthand.message import user
from firsthand.model import Sampling
from firsthand.providers.scripted import Scripted
from firsthand.tokens.canonical_json import MAX_EXPONENT, canonical_json, plain_json
from firsthand.tokens.grammar_checks import GrammarChecks, accepts
from firsthand.tokens.isolated_grammar import GrammarLimits

INTEGER = {"type": "integer"}


def written(text: str, schema: Any) -> str:
    return canonical_json(text, json.dumps(schema))


def closed(*names: str, **more: Any) -> dict[str, Any]:
    properties = dict.fromkeys(names, INTEGER) | more
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def union(*branches: Any) -> dict[str, Any]:
    return {"anyOf": list(branches)}


FIRST, SECOND = closed("b", "a", kind={"const": "first"}), closed("a", "b", kind={"const": "second"})
TREE = {
    "$id": "https://x.example/tree",
    "$defs": {
        "a/b~c": union(closed("n"), closed("l", "r", l={"$ref": "#/$defs/a~1b~0c"}, r={"$ref": "#/$defs/a%7E1b~0c"}))
    },
    "$ref": "#/$defs/a~1b~0c",
}
"""A schema that refers to itself, with and without percent-encoding."""


@pytest.mark.parametrize(
    ("schema", "text", "expected"),
    [
        (True, '{"b":1,"a":[ ]}', '{"b": 1, "a": []}'),
        (closed("a", "b"), '{"b":1,"a":2}', '{"a": 2, "b": 1}'),
        ({"properties": {"a": {}}, "required": ["z", "y"]}, '{"q":1,"x":1,"y":1,"z":1,"a":1}',
         '{"a": 1, "z": 1, "y": 1, "q": 1, "x": 1}'),
        ({"allOf": [closed("c", "b")], "properties": {"a": {}, "b": {}}}, '{"a":1,"b":1,"c":1}', '{"c": 1, "b": 1, "a": 1}'),
        ({"items": closed("b", "a")}, '[{"a":1,"b":2},3]', '[{"b": 2, "a": 1}, 3]'),
        ({"prefixItems": [closed("b", "a")], "items": closed("a", "b")}, '[{"a":1,"b":2},{"b":1,"a":2}]',
         '[{"b": 2, "a": 1}, {"a": 2, "b": 1}]'),
        ({"properties": {"o": closed("b", "a")}, "additionalProperties": closed("a", "b")},
         '{"p":{"b":1,"a":2},"o":{"a":1,"b":2}}', '{"o": {"b": 2, "a": 1}, "p": {"a": 2, "b": 1}}'),
        ({"patternProperties": {"^p": closed("b", "a")}}, '{"p":{"a":1,"b":2}}', '{"p": {"b": 2, "a": 1}}'),
        ({"enum": [{"b": 1.0, "a": [2, {"d": 3, "c": 4}]}]}, '{"a":[2,{"c":4.0,"d":3}],"b":1}',
         '{"b": 1, "a": [2, {"d": 3, "c": 4}]}'),
        ({"const": {"b": 1, "a": 2}}, '{"a":2,"b":1}', '{"b": 1, "a": 2}'),
        ({"$defs": {"p": closed("b", "a")}, "$ref": "#/$defs/p"}, '{"a":1,"b":2}', '{"b": 2, "a": 1}'),
        ({"$defs": {"p": [closed("b", "a")]}, "items": {"$ref": "#/$defs/p/0"}}, '[{"a":1,"b":2}]', '[{"b": 2, "a": 1}]'),
        ({"$defs": {"p": [closed("b", "a")]}, "$ref": "#/$defs/p/1"}, '{"a":1,"b":2}', '{"a": 1, "b": 2}'),
        ({"$id": "s", "$defs": {"p": closed("b", "a")}, "$ref": "s#/$defs/p"}, '{"a":1,"b":2}', '{"b": 2, "a": 1}'),
        ({"$id": "s", "$defs": {"p": closed("b", "a")}, "$ref": "t#/$defs/p"}, '{"a":1,"b":2}', '{"a": 1, "b": 2}'),
        ({"$ref": "#", "properties": {"b": {}, "a": {"$ref": "#"}}}, '{"a":{"a":1,"b":2},"b":2}',
         '{"b": 2, "a": {"b": 2, "a": 1}}'),
        (TREE, '{"r":{"r":{"n":1},"l":{"n":2}},"l":{"n":1.0}}', '{"l": {"n": 1}, "r": {"l": {"n": 2}, "r": {"n": 1}}}'),
    ],
)  # fmt: skip
def test_properties_come_in_the_order_of_the_schema_that_the_value_has(schema, text, expected):
    assert written(text, schema) == expected


@pytest.mark.parametrize(
    ("other", "this", "value"),
    [
        ({"kind": {"const": "x"}}, {"kind": {"const": 1}}, "1.0"),
        ({"kind": {"const": "1"}}, {"kind": {"const": 1}}, "1"),
        ({"kind": {"const": True}}, {"kind": {"const": 1}}, "1"),
        ({"kind": {"enum": ["x", "y"]}}, {"kind": {"enum": ["z", "first"]}}, '"first"'),
        ({"kind": {"type": "string"}}, {"kind": {"type": ["number", "null"]}}, "1.5"),
        ({"kind": {"type": "integer"}}, {"kind": {"type": "number"}}, "1.5"),
        ({"kind": {"type": "string"}}, {"kind": {"type": "integer"}}, "1e2"),
        ({"kind": {"type": "string"}}, {"kind": {"type": "number"}}, "1"),
        ({"kind": {"type": "null"}}, {"kind": {"type": ["boolean", "number"]}}, "1e2"),
        ({"kind": {"type": "array"}}, {"kind": {"type": "null"}}, "null"),
        ({"kind": {"type": "integer"}}, {"kind": {"type": "boolean"}}, "true"),
        ({"kind": {"type": "object"}}, {"kind": {"type": "array"}}, "[]"),
        ({"kind": {"type": "array"}}, {"kind": {"type": "object"}}, "{}"),
        ({"kind": {"type": "object"}}, {"kind": {"type": "string"}}, '"x"'),
        ({"kind": closed("y")}, {"kind": closed("x")}, '{"x": 1}'),
        ({"kind": union(closed("y"), {"const": 3})}, {"kind": union({"const": 3}, closed("x"))}, '{"x": 1}'),
    ],
)
def test_where_branches_disagree_the_order_is_that_of_the_first_that_allows_the_value(other, this, value):
    one, two = closed("b", "a", **other), closed("a", "b", **this)
    canonical = {"1.0": "1", "1e2": "100"}.get(value, value)
    for keyword in ("anyOf", "oneOf"):
        for branches in ([one, two], [two, one]):
            found = written(f'{{"b": 1, "kind": {value}, "a": 2}}', {keyword: branches})
            assert found == f'{{"a": 2, "b": 1, "kind": {canonical}}}'
    both = {"anyOf": [closed("b", "a"), closed("a", "b")]}
    assert written('{"a": 2, "b": 1}', both) == '{"b": 1, "a": 2}'


def test_every_part_of_all_of_counts_whatever_it_says_of_the_value():
    assert written('{"a": 1, "b": 2}', {"allOf": [closed("b", "x"), closed("a")]}) == '{"b": 2, "a": 1}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e2", "100"), ("100.0", "100"), ("1.50", "1.5"), ("-0", "0"), ("-0.0e9", "0"), ("0e999999", "0"), ("1200", "1200"),
        ("-15E-1", "-1.5"), ("1e-7", "0.0000001"), (f"0.1{'0' * 40}1", f"0.1{'0' * 40}1"), ("1" * 40, "1" * 40),
        ("1e401", "1e401"), ("1e-401", "1e-401"),
        (f"1e{MAX_EXPONENT}", "1" + "0" * MAX_EXPONENT), ("1e99999999999999999999", "1e99999999999999999999"),
        (r'"\u00e9\ud83d\udca5\/\u0041\u000a\u0001\u007f"', r'"é💥/A\n\u0001\u007f"'), ('"\x7f"', r'"\u007f"'),
        (r'{"\u00e9": "\u00e9"}', '{"é": "é"}'), (" null\n", "null"), ("[true,false]", "[true, false]"),
    ],
)  # fmt: skip
def test_numbers_are_plain_and_characters_are_themselves(text, expected):
    assert written(text, {}) == expected


@pytest.mark.parametrize(
    "text", ["", "{", '{"a": 1, "a": 1}', '[{"a": 1, "\\u0061": 2}]', "NaN", "[-Infinity]", "1 2", "01", "'a'"]
)
def test_what_is_no_json_value_is_not_written(text):
    with pytest.raises(ValueError, match=r"."):
        written(text, {})


VERDICT = closed(
    verdict={"enum": ["Québec", "other"]}, share={"type": "number", "minimum": 0, "maximum": 1}, note={"type": "string"}
)


@pytest.mark.parametrize("stop", [(), ("\n\n",)])
def test_an_answer_of_an_endpoint_that_fits_its_schema_is_taken_as_the_endpoint_wrote_it(stop):
    good = {"note": "é", "share": 0.5, "verdict": "Québec"}
    spelled = [
        json.dumps(good),
        json.dumps(good, ensure_ascii=False, indent=2),
        json.dumps(good).replace("0.5", "5e-1"),
    ]
    bad = [
        json.dumps(good | more)
        for more in ({"verdict": "x"}, {"share": 2}, {"share": "0.5"}, {"more": 1}, {"note": None})
    ]
    bad += [
        json.dumps({"note": "é", "share": 0.5}),
        spelled[0][:-1] + ', "note": "é"}',
        "[" + spelled[0] + "]",
        "{" + spelled[0],
    ]
    sampling = Sampling(grammar=json_schema(VERDICT), stop=stop)

    async def answered(text: str) -> str:
        return (await Scripted([text]).complete([user("q")], sampling))[0].message.text

    for text in spelled:
        assert asyncio.run(answered(text)) == text
    for text in bad:
        with pytest.raises(GrammarIgnored):
            asyncio.run(answered(text))


def test_only_a_whole_json_value_is_read_as_a_value_and_other_grammars_read_letters():
    grammar = json_schema(closed("a", "b"))
    assert accepts(grammar, '{"b": 1, "a": 2}') and accepts(grammar, '{"b": 1, "a": 2}', whole=False)
    assert not accepts(grammar, '{"b": 1, ', whole=False) and accepts(grammar, '{"a": 1, ', whole=False)
    assert not accepts(json_schema({"type": "integer", "minimum": 10}), "1.0"), "nor is the beginning of another value"
    assert not accepts(json_schema({"type": "string"}), r'"\ud800"'), "half a surrogate is no text"
    assert not accepts(regex('"é"'), r'"\u00e9"') and not accepts(lark(f"start: %json {json.dumps(FIRST)}"), '{"a": 1}')
    assert accepts(json_schema(union(FIRST, SECOND)), '{"kind": "second", "b": 1, "a": 2.0}')
    assert not accepts(json_schema(union(FIRST, SECOND)), '{"kind": "third", "b": 1, "a": 2}')


def test_a_value_is_written_anew_within_the_limits_of_a_check_in_another_process():
    quick = GrammarChecks(limits=GrammarLimits(step_s=0.3, rest_s=0.0))
    fills = GrammarChecks(limits=GrammarLimits(step_s=20.0, memory_bytes=20 << 20, rest_s=0.0))
    grammar = json_schema({"type": "string"})
    for checks in (quick, fills):
        assert checks.accepts(grammar, r'"\u00e9"')
    with pytest.raises(GrammarUnchecked, match=r"takes more than 0\.3 s for one text"):
        quick.accepts(grammar, json.dumps([{"b": 1}] * 100_000))
    with pytest.raises(GrammarUnchecked, match="needs more than 20 MiB of memory"):
        fills.accepts(grammar, "[" + "[], " * 5_000_000 + "[]]")
    assert not accepts(grammar, "[" * 100_000) and not accepts(grammar, "[" * 900 + "]" * 900)


AMOUNT = {"type": "object", "properties": {"amount": {"type": "integer", "maximum": 100}}, "required": ["amount"]}


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        r'{"amount": 1, "\u0061mount": 1000000}', r'{"\u0061mount": 1000000}', r'{"\u0061mount": "DROP", "amount": 1}',
        r'{"amount": 1, "amo\u0075nt": 1}', '{"amount": 1, "b": 2, "b": 3}', '{"amount": 1, "b": [{"c": 2, "c": 3}]}',
    ],
)  # fmt: skip
def test_a_key_is_the_property_that_it_names_however_it_is_spelled(text: str, whole: bool):
    assert not accepts(json_schema(AMOUNT), text, whole=whole)


def test_a_beginning_is_read_with_its_keys_as_they_are_meant():
    grammar = json_schema(AMOUNT)
    assert not accepts(grammar, r'{"\u0061mount": 1000000, ', whole=False)
    assert accepts(grammar, r'{"\u0061mount": 10, "b\n\u00e9": "x\"', whole=False) and accepts(grammar, "", whole=False)
    assert not accepts(grammar, "") and accepts(grammar, r'{"amount": 1, "b": "\u0062\u007f\"\/"}')
    assert accepts(grammar, f'{{"amount": 1, "b": {"1" * 5000}}}'), "a number of any length, as before"


def test_an_answer_that_fits_a_later_branch_as_it_is_written_fits():
    small = closed("b", "a") | {"properties": {"b": {"type": "integer", "maximum": 9}, "a": INTEGER}}
    assert accepts(json_schema(union(small, closed("a", "b"))), '{"a": 1, "b": 50}')
    assert accepts(json_schema(union(small, closed("a", "b"))), r'{"\u0061": 1, "b": 50}')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r'{ "\u0061": 1.50,"b" : "\u00e9\n\"\\\/\u007f\u0001"}', '{ "a": 1.50,"b" : "é\\n\\"\\\\/\\u007f\\u0001"}'),
        (r'["a", "\u0061", "\\u0061", "\\"]', r'["a", "a", "\\u0061", "\\"]'),
        (r'{"a": "\u0061", "\u00', r'{"a": "a", "\u00'), (r'"\q"', r'"\q"'), ('{"a":1}', '{"a":1}'), ("", ""),
        ('"\\n\n"', '"\\n\n"'),
    ],
)  # fmt: skip
def test_escapes_are_written_as_the_characters_they_mean(text: str, expected: str):
    assert plain_json(text) == expected


def test_an_escape_between_strings_is_no_json():
    text = r'{"amount"\u003a1, "b"\u003a"c"}'
    assert plain_json(text) == text
    assert not accepts(json_schema({"type": "object"}), r'{"b"\u003a"c"}')


def test_a_long_beginning_with_quotes_is_read_in_linear_time():
    text = '{"a": "' + r"\"b\" " * 100_000
    for end in ("", "\\", r"\u00"):
        assert plain_json(text + end) == text + end


def test_a_key_that_comes_twice_behind_a_long_number_is_found():
    text = f'{{"amount": 1, "b": {"1" * 5000}, "c": 1, "c": 2}}'
    assert not accepts(json_schema(AMOUNT), text)
    with pytest.raises(ValueError, match="a key comes twice"):
        plain_json(text)
