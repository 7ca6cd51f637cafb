"""Tests of integers in JSON schemas that a double does not hold: refused, or left out where schemas are read leniently."""

import json
from decimal import Decimal

import pytest

from firsthand import grammar
from firsthand.errors import ConfigError
from firsthand.tokens.grammar_checks import accepts
from firsthand.tokens.llguidance_grammar import byte_vocabulary, lark_json, matcher_of
from firsthand.tokens.schema_numbers import exact_schema

ID = 1234567890123456789


@pytest.mark.parametrize(
    ("schema", "keyword", "number"),
    [
        ({"const": ID}, "const", ID),
        ({"const": -ID}, "const", -ID),
        ({"const": [1, {"a": ID}]}, "const", ID),
        ({"enum": [7, ID, ID + 2]}, "enum", ID),
        ({"const": 10**20}, "const", 10**20),
        ({"minimum": 0, "multipleOf": 2**53 + 1}, "multipleOf", 2**53 + 1),
        ({"exclusiveMaximum": 10**400 + 1}, "exclusiveMaximum", 10**400 + 1),
        ({"type": "object", "properties": {"enum": {"items": {"anyOf": [{"multipleOf": ID}]}}}}, "multipleOf", ID),
        ({"$defs": {"default": {"const": ID}}}, "const", ID),
    ],
)
def test_an_integer_that_no_double_equals_is_refused(schema: dict[str, object], keyword: str, number: int) -> None:
    with pytest.raises(ConfigError) as raised:
        exact_schema(json.dumps(schema))
    assert str(raised.value) == (
        f"the schema's {keyword} has the number {str(number)[:40]}, which a grammar cannot follow exactly: "
        "give integers beyond 2^53 as strings"
    )


@pytest.mark.parametrize(
    "schema",
    [
        {"const": 2**53},
        {"const": 2**60},
        {"const": str(ID)},
        {"enum": [2**64 - 2**11, True]},
        {"minimum": 2**70},
        {"default": ID, "examples": [ID], "description": str(ID)},
        {"properties": {"const": {"type": "integer", "description": str(ID)}}},
        {"const": 0.30000000000000004},
    ],
)
def test_other_numbers_stand(schema: dict[str, object]) -> None:
    assert json.loads(exact_schema(json.dumps(schema))) == schema


def test_a_lenient_schema_requires_the_type_alone() -> None:
    def lenient(schema: object) -> object:
        return json.loads(exact_schema(json.dumps(schema), lenient=True))

    assert lenient({"const": ID}) == {"type": "integer"} == lenient({"enum": [1, ID]})
    assert lenient({"enum": ["a", ID]}) == {} == lenient({"enum": [True, ID]})
    assert lenient({"type": "integer", "multipleOf": ID, "maximum": 2**60}) == {"type": "integer", "maximum": 2**60}
    assert lenient({"type": ["integer", "null"], "const": ID}) == {"type": ["integer", "null"]}


def test_an_answer_is_never_forced_to_be_another_number() -> None:
    with pytest.raises(ConfigError, match="the schema's const has the number 1234567890123456789"):
        matcher_of(grammar.json_schema({"const": ID}), byte_vocabulary())
    for number in (ID, ID - 21):
        assert accepts(
            grammar.json_schema({"type": "object", "properties": {"id": {"const": ID}}}), json.dumps({"id": number})
        )
    assert not accepts(grammar.json_schema({"const": ID}), '"x"')
    assert str(ID) not in lark_json({"const": ID}) and "integer" in lark_json({"const": ID})


def test_an_integer_of_too_many_digits_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="the schema cannot be read"):
        exact_schema('{"const": ' + "1" * 5000 + "}")


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        (
            {"exclusiveMinimum": 0, "maximum": 0.5},
            ["0.5", "0.1", "0.000001", "5e-1", "0.50", "1e-3"],
            ["0", "0.0", "-0", "0e5", "0.51"],
        ),
        ({"exclusiveMinimum": 5, "maximum": 5.5}, ["5.5", "5.1", "5.000001"], ["5", "5.0", "5.51"]),
        ({"exclusiveMinimum": 5.0, "exclusiveMaximum": 5.5}, ["5.49", "5.1"], ["5", "5.0", "5.5"]),
        ({"minimum": -0.5, "exclusiveMaximum": 0}, ["-0.5", "-0.1"], ["0", "-0", "-0.0", "-0.51"]),
        ({"minimum": 4.5, "exclusiveMaximum": 5}, ["4.5", "4.9", "4.99"], ["5", "5.0"]),
        ({"minimum": 99999.5, "exclusiveMaximum": 100000}, ["99999.5", "99999.9"], ["100000", "100000.0"]),
        ({"exclusiveMinimum": 0, "maximum": 1e-9}, ["1e-9", "5e-10"], ["0", "2e-9"]),
        ({"exclusiveMinimum": 0, "maximum": 1e-13}, ["1e-13", "5e-14"], ["0", "2e-13"]),
        ({"minimum": 0, "maximum": 99.99}, ["99.9", "99.90", "99.99", "99", "0.5"], ["100", "99.991"]),
        ({"maximum": 1.251}, ["1.25", "1.2", "-7.125"], ["1.252", "1.26"]),
        ({"minimum": -1.25}, ["-1.2", "-1.25", "0.125"], ["-1.26", "-1.251"]),
        ({"exclusiveMinimum": 0, "maximum": 1}, ["1", "0.5"], ["0", "1.5"]),
        ({"exclusiveMinimum": 0}, ["0.5", "7"], ["0", "-1"]),
    ],
)
def test_numbers_near_their_bounds(schema: dict[str, object], right: list[str], wrong: list[str]) -> None:
    asked = grammar.json_schema(
        {"type": "object", "properties": {"x": {"type": "number", **schema}}, "required": ["x"]}
    )
    for text in [*right, *wrong]:
        assert accepts(asked, f'{{"x": {text}}}') == (text in right), text


def test_a_whole_bound_that_is_excluded_is_never_drawn() -> None:
    for schema, text in (
        ({"exclusiveMinimum": 0, "maximum": 0.5}, "0"),
        ({"minimum": -0.5, "exclusiveMaximum": 0}, "-0"),
        ({"exclusiveMinimum": 7, "exclusiveMaximum": 7.25}, "7"),
    ):
        matcher = matcher_of(grammar.json_schema({"type": "number", **schema}), byte_vocabulary(), forcing=False)
        assert matcher.try_consume_tokens(list(text.encode())) == len(text) and not matcher.is_accepting()


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "exclusiveMinimum": 0, "maximum": 0.5},
        {"exclusiveMinimum": 0, "maximum": 1},
        {"exclusiveMinimum": 0},
        {"exclusiveMinimum": 0.5, "maximum": 0.75},
        {"exclusiveMinimum": True, "minimum": 0, "maximum": 0.5},
    ],
)
def test_other_bounds_stand(schema: dict[str, object]) -> None:
    assert json.loads(exact_schema(json.dumps(schema))) == schema


def test_a_number_beyond_doubles_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="the schema has the number 1e999, which is beyond"):
        exact_schema('{"exclusiveMinimum": 0, "maximum": 1e999}')


def test_a_large_bound_is_moved_to_the_next_double() -> None:
    moved = json.loads(exact_schema('{"type": "number", "exclusiveMinimum": 1000000, "maximum": 1000000.5}'))
    assert moved == {"type": "number", "exclusiveMinimum": 1000000.0000000001, "maximum": 1000000.5}


@pytest.mark.parametrize(
    ("bounds", "drawn"),
    [
        ({"minimum": 4.5, "exclusiveMaximum": 5}, ["4.5", "4.9", "4.99"]),
        ({"exclusiveMinimum": -1, "maximum": -0.5}, ["-0.5", "-0.9", "-0.99"]),
        ({"exclusiveMinimum": 0, "maximum": 0.05}, ["0.05", "0.01", "0.000000000000001"]),
        ({"exclusiveMinimum": -5.5, "exclusiveMaximum": -5}, ["-5.4", "-5.01"]),
    ],
)
def test_numbers_near_an_excluded_whole_bound_are_drawn(bounds: dict[str, object], drawn: list[str]) -> None:
    asked = grammar.json_schema({"type": "number", **bounds})
    for text in drawn:
        matcher = matcher_of(asked, byte_vocabulary(), forcing=False)
        assert matcher.try_consume_tokens(list(text.encode())) == len(text) and matcher.is_accepting(), text


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [{"type": "number", "exclusiveMinimum": 0}, {"maximum": 0.5}]},
        {"$defs": {"p": {"type": "number", "exclusiveMinimum": 0}}, "$ref": "#/$defs/p", "maximum": 0.5},
        {"type": "number", "exclusiveMinimum": 0, "anyOf": [{"maximum": 0.25}, {"minimum": 0.4, "maximum": 0.5}]},
    ],
)
def test_a_whole_bound_is_excluded_where_the_other_one_stands_elsewhere(schema: dict[str, object]) -> None:
    asked = grammar.json_schema(schema)
    assert not accepts(asked, "0") and not accepts(asked, "0.0") and accepts(asked, "0.2")


@pytest.mark.parametrize(
    "bounds",
    [
        {"exclusiveMinimum": 0},
        {"exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"exclusiveMinimum": 0, "maximum": 1.75},
        {"minimum": -1.25},
        {"maximum": 1.251},
    ],
)
def test_fractions_are_accepted_in_any_spelling_and_place(bounds: dict[str, object]) -> None:
    properties = {"a": {"type": "integer"}, "x": {"type": "number", **bounds}}
    asked = grammar.json_schema({"type": "object", "properties": properties, "required": ["a", "x"]})
    sign = "-" if bounds in ({"minimum": -1.25}, {"maximum": 1.251}) else ""
    for number in ("0.5", "0.50", "5e-1"):
        assert accepts(asked, f'{{"x": {sign}{number}, "a": 1}}'), number
        assert accepts(asked, f'{{"a": 1, "x": {sign}{number}}}'), number


@pytest.mark.parametrize(
    ("keyword", "bound", "strict", "lenient"),
    [
        ("minimum", 2**53 + 1, 2**53 + 2, 2**53),
        ("exclusiveMinimum", 2**53 + 1, 2**53 + 2, 2**53),
        ("maximum", 2**63 - 1, 2**63 - 1024, 2**63),
        ("exclusiveMaximum", 2**53 + 3, 2**53 + 2, 2**53 + 4),
        ("maximum", -(2**53) - 1, -(2**53) - 2, -(2**53)),
        ("minimum", -(2**63) - 1, -(2**63), -(2**63) - 2048),
    ],
)
def test_a_bound_becomes_the_next_double_within_or_outside(keyword: str, bound: int, strict: int, lenient: int) -> None:
    source = json.dumps({"type": "integer", keyword: bound})
    assert json.loads(exact_schema(source)) == {"type": "integer", keyword: strict}
    assert json.loads(exact_schema(source, lenient=True)) == {"type": "integer", keyword: lenient}


def test_a_schema_with_the_bounds_of_a_64_bit_integer_is_followed() -> None:
    schema = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
    matcher = matcher_of(grammar.json_schema(schema), byte_vocabulary(), forcing=False)
    assert matcher.try_consume_tokens(list(b"9223372036854774784")) == 19 and matcher.is_accepting()
    assert accepts(grammar.json_schema(schema), "9223372036854775807")
    assert not accepts(grammar.json_schema(schema), "9223372036854775809")


@pytest.mark.parametrize("step", ["0.25", "0.125", "0.1", "0.05", "2.5", "3", "1e-3"])
def test_multiples_of_a_step_are_accepted_as_they_are_usually_written(step: str) -> None:
    steps = grammar.json_schema({"type": "number", "multipleOf": json.loads(step)})
    for text in ("0", "0.5", "0.25", "0.50", "1", "1.0", "1.5", "-0.5", "2.5", "0.1", "0.3", "7.50", "5", "0.375", "3"):
        assert accepts(steps, text) is (Decimal(text) % Decimal(step) == 0), (text, step)


@pytest.mark.parametrize(
    ("step", "bounds"),
    [
        ("0.25", {"exclusiveMinimum": 0}),
        ("0.25", {"exclusiveMinimum": 5, "exclusiveMaximum": 7.5}),
        ("0.125", {"exclusiveMinimum": 0, "minimum": -1, "maximum": 7.5}),
        ("0.01", {"minimum": -0.75, "maximum": 0.75}),
        ("0.1", {"maximum": 7.5, "exclusiveMinimum": 0.3}),
        ("0.25", {"minimum": -0.75}),
        ("0.75", {"exclusiveMinimum": -3, "maximum": 7.5}),
    ],
)
def test_multiples_within_bounds_are_accepted_as_they_are_usually_written(step: str, bounds: dict[str, float]) -> None:
    steps = grammar.json_schema({"type": "number", "multipleOf": json.loads(step), **bounds})
    low, over = bounds.get("minimum", -99), bounds.get("exclusiveMinimum", -99)
    high, under = bounds.get("maximum", 99), bounds.get("exclusiveMaximum", 99)
    for text in (
        "0",
        "0.25",
        "0.5",
        "0.75",
        "1.5",
        "0.3",
        "5",
        "5.25",
        "5.5",
        "7.5",
        "7.6",
        "7.25",
        "-0.75",
        "-3",
        "-2.25",
    ):
        fits = low <= float(text) <= high and over < float(text) < under and Decimal(text) % Decimal(step) == 0
        assert accepts(steps, text) is fits, text


def test_the_zeros_of_a_half_above_a_bound_of_minus_one_are_read() -> None:
    steps = grammar.json_schema({"type": "number", "multipleOf": 0.25, "minimum": -0.75})
    assert accepts(steps, "-0.5") and accepts(steps, "-0.75") and not accepts(steps, "-1")


def test_bounds_of_multiples_that_are_far_or_hold_nothing_stay() -> None:
    for schema in (
        {"multipleOf": 0.25, "maximum": 1e13},
        {"multipleOf": 0.75, "minimum": 0.5, "exclusiveMaximum": 0.75},
        {"type": "integer", "multipleOf": 0.5, "maximum": 3},
        {"multipleOf": 3, "exclusiveMinimum": 0},
    ):
        assert json.loads(exact_schema(json.dumps(schema))) == schema


@pytest.mark.parametrize("name", ["NaN", "Infinity", "-Infinity"])
def test_a_bound_that_is_no_number_of_json_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is no number of JSON"):
        exact_schema(f'{{"multipleOf": 0.25, "maximum": {name}}}')
