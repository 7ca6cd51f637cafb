"""Schemas of somebody else, applied: what each keyword says, what is passed over, what is too long or elsewhere."""

from __future__ import annotations

from threading import Thread
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

from jsonschema import SchemaError
from referencing.exceptions import Unresolvable

from firsthand.errors import ToolError
from firsthand.model import ToolSpec
from firsthand.tools.mcp import bounded_schema
from firsthand.tools.mcp.bounded_schema import BoundedValidator, ResultValidator, TooManySteps
from firsthand.tools.mcp.definitions import ArgumentChecker, ToolDefinition, UnusableDefinition, spec_of
from firsthand.tools.mcp.server_declaration import ServerDeclaration
from loopback import serve

LONG = [*range(1_100)]
"""Compared each with each, 60,500 steps."""
DIALECTS = (
    "http://json-schema.org/draft-04/schema#", "http://json-schema.org/draft-07/schema#",
    "https://json-schema.org/draft/2019-09/schema", "https://json-schema.org/draft/2020-12/schema",
)  # fmt: skip


def problems(schema: Any, value: Any) -> list[tuple[str, list[Any]]]:
    return [(error.message, list(error.absolute_path)) for error in BoundedValidator(schema).iter_errors(value)]


def said(schema: Any, value: Any) -> list[str]:
    return [message for message, _ in problems(schema, value)]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_subschema_that_names_a_dialect_is_counted_wherever_it_stands(dialect: str) -> None:
    inner = {"$schema": dialect, "uniqueItems": True}
    places: list[tuple[Any, Any]] = [
        (inner, LONG),
        ({"properties": {"a": inner}}, {"a": LONG}),
        ({"additionalProperties": inner}, {"a": LONG}),
        ({"items": inner}, [LONG]),
        ({"prefixItems": [{}, inner]}, [1, LONG]),
        ({"anyOf": [{"type": "string"}, inner]}, LONG),
        ({"allOf": [inner]}, LONG),
        ({"oneOf": [{"$defs": {"x": {}}, "allOf": [{"allOf": [inner]}]}]}, LONG),
        ({"$defs": {"a": inner}, "$ref": "#/$defs/a"}, LONG),
        ({"not": inner}, LONG),
        ({"if": inner, "then": {}}, LONG),
        ({"contains": inner}, [LONG]),
        ({"dependentSchemas": {"a": {"properties": {"a": inner}}}}, {"a": LONG}),
    ]
    for schema, value in places:
        kept = repr(schema)
        with pytest.raises(TooManySteps):
            said(schema, value)
        assert list(ResultValidator(schema).iter_errors(value)) == []
        assert repr(schema) == kept, "the caller's schema is its own"
    assert said({"anyOf": [{**inner, "type": "integer"}]}, "x") == ["'x' is not valid under any of the given schemas"]
    older = {"allOf": [{"$schema": DIALECTS[0], "minimum": 3, "const": 2}]}
    assert said(older, 2) == ["2 is less than the minimum of 3"] and len(said(older, 1)) == 2, "a const is applied"


def test_a_property_may_be_called_as_the_keyword_that_names_a_dialect() -> None:
    shut = {"properties": {"$schema": False}}
    assert said(shut, {"$schema": "x"}) == ["False schema does not allow 'x'"] and said(shut, {}) == []
    listed = {"items": {"properties": {"$schema": {"maxLength": 2}}}}
    assert problems(listed, [{"$schema": "ab"}, {"$schema": "abc"}]) == [("'abc' is too long", [1, "$schema"])]
    held = {"const": {"$schema": DIALECTS[0], "a": 1}}
    assert said(held, {"$schema": DIALECTS[0], "a": 1}) == [] and len(said(held, {"a": 1})) == 1, "a value is no schema"


def test_each_keyword_applies_but_those_that_search() -> None:
    wrong: list[tuple[Any, Any]] = [
        ({"type": "integer"}, "x"), ({"enum": [1]}, 2), ({"const": 1}, 2), ({"minimum": 1}, 0), ({"maximum": 1}, 2),
        ({"exclusiveMinimum": 1}, 1), ({"exclusiveMaximum": 1}, 1), ({"multipleOf": 2}, 3), ({"minLength": 2}, "a"),
        ({"maxLength": 1}, "ab"), ({"minItems": 1}, []), ({"maxItems": 0}, [1]), ({"uniqueItems": True}, [1, 1]),
        ({"minProperties": 1}, {}), ({"maxProperties": 0}, {"a": 1}), ({"required": ["a"]}, {}), ({"not": {}}, 1),
        ({"items": False}, [1]), ({"prefixItems": [False]}, [1]), ({"contains": {"const": 1}}, [2]),
        ({"propertyNames": {"maxLength": 1}}, {"ab": 1}), ({"dependentRequired": {"a": ["b"]}}, {"a": 1}),
        ({"dependentSchemas": {"a": False}}, {"a": 1}), ({"if": True, "then": False}, 1), ({"if": False, "else": False}, 1),
        ({"anyOf": [False]}, 1), ({"oneOf": [True, True]}, 1), ({"allOf": [False]}, 1),
        ({"additionalProperties": False}, {"a": 1}),
        ({"$defs": {"a": False}, "$ref": "#/$defs/a"}, 1),
        ({"$defs": {"a": {"$dynamicAnchor": "x", "type": "null"}}, "$dynamicRef": "#x"}, 1), (False, 1),
    ]  # fmt: skip
    assert [len(said(schema, value)) for schema, value in wrong] == [1] * len(wrong)
    passed: list[tuple[Any, Any]] = [
        ({"pattern": "^b$"}, "c"), ({"format": "date"}, "x"), ({"patternProperties": {"a": False}}, {"a": 1}),
        ({"unevaluatedProperties": False}, {"a": 1}), ({"unevaluatedItems": False}, [1]),
        ({"patternProperties": {"^a": {"type": "integer"}}, "additionalProperties": False}, {"a": "x", "b": 1}),
        ({"patternProperties": {}, "additionalProperties": {"type": "integer"}}, {"b": "x"}),
        ({"allOf": [{"pattern": "(a+)+$"}]}, "a" * 16 + "b"), (True, 1), ({}, 1), ({"additionalProperties": False}, "x"),
        ({"additionalProperties": False}, {}), ({"additionalProperties": {}}, {"a": 1}),
    ]  # fmt: skip
    assert [said(schema, value) for schema, value in passed] == [[]] * len(passed)


def test_properties_that_no_schema_names_are_told_by_name_or_checked_by_their_own() -> None:
    names = [f"name-{number:03}" for number in range(40)]
    (told,) = said({"additionalProperties": False}, dict.fromkeys(names, 1))
    assert told == f"Additional properties are not allowed ({', '.join(map(repr, names))[:200]})"
    shut = {"properties": {"a": {"type": "string"}}, "additionalProperties": False}
    assert problems(shut, {"b": 1, "a": 2, "c": 3}) == [
        ("2 is not of type 'string'", ["a"]), ("Additional properties are not allowed ('b', 'c')", []),
    ]  # fmt: skip
    typed = {"properties": {"a": {}}, "additionalProperties": {"items": {"type": "integer"}}}
    assert problems({"items": typed}, [{"a": ["x"]}, {"b": [1, "y"], "c": ["z"]}]) == [
        ("'y' is not of type 'integer'", [1, "b", 1]), ("'z' is not of type 'integer'", [1, "c", 0]),
    ]  # fmt: skip


def test_what_is_no_schema_is_told_by_its_first_fault() -> None:
    for schema, fault in (
        ({"minimum": "x"}, "'x' is not of type 'number'"),
        ({"required": "a"}, "'a' is not of type 'array'"),
        ({"properties": {"a": 5}}, "5 is not of type 'object', 'boolean'"),
        ({"required": ["a", "a"]}, "['a', 'a'] has non-unique elements"),
        (5, "5 is not of type 'object', 'boolean'"),
        ({"$anchor": "1"}, f"'1' does not match {'^[A-Za-z_][-A-Za-z0-9._]*$'!r}"),
        ({"items": {"anyOf": [{}, {"$schema": DIALECTS[0], "maximum": None}]}}, "None is not of type 'number'"),
        ([{}], "[{}] is not of type 'object', 'boolean'"),
        ({"$schema": DIALECTS[0], "exclusiveMinimum": True}, "True is not of type 'number'"),
    ):
        for kind in (BoundedValidator, ResultValidator, BoundedValidator):  # the second time it is known
            with pytest.raises(SchemaError) as told:
                kind(schema)
            assert told.value.message == fault
    with pytest.raises(UnusableDefinition) as refused:
        ArgumentChecker(ToolSpec("t", "", {"properties": {"a": {"minLength": "y" * 200}}}))
    assert str(refused.value) == f"its schema is no JSON schema: {repr('y' * 200)[:120]}"


def test_references_stay_in_the_schema() -> None:
    for to in ("http://h.example/s.json", "#/$defs/none", "other"):
        with pytest.raises(Unresolvable):
            said({"properties": {"a": {"$ref": to}}}, {"a": {"type": 5}})
        assert said({"properties": {"a": {"$ref": to}}}, {"b": 1}) == []
    with serve() as site:
        site.files["/s.json"] = b'{"type": "integer"}'
        with pytest.raises(Unresolvable):
            said({"$ref": f"{site.url}/s.json"}, "x")
        assert site.asked == [], "nothing is fetched"
    tree = {"$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}, "$ref": "#/$defs/t"}
    assert problems(tree, [[], [[1]]]) == [("1 is not of type 'array'", [1, 0, 0])]
    with pytest.raises(ToolError, match=r"^t has a schema that cannot be applied: RecursionError$"):
        ArgumentChecker(ToolSpec("t", "", {"properties": {}, "$ref": "#"}))({})


def nested(depth: int, kind: str) -> Any:
    schema: Any = {"type": "integer"}
    for _ in range(depth):
        schema = {kind: [schema] if kind == "allOf" else schema}
    return schema


@pytest.mark.parametrize("kind", ["not", "items", "allOf"])
def test_a_schema_that_is_too_deep_is_left_for_results(kind: str) -> None:
    for depth in (500, 1_000, 20_000):  # too deep to be walked through, or even to be written as JSON
        deep = ResultValidator(nested(depth, kind))
        assert list(deep.iter_errors("x")) == [] == list(deep.iter_errors(1))
    assert len(list(ResultValidator({"allOf": [nested(2, "allOf")]}).iter_errors("x"))) == 1


@pytest.mark.slow
def test_a_schema_that_takes_too_long_to_read_is_refused_or_left(monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = {"properties": {"a": {"type": [[], *range(1_800)]}}}  # of names that are to differ, each with each
    with pytest.raises(TooManySteps):
        BoundedValidator(hostile)
    with pytest.raises(UnusableDefinition, match=r"^its schema takes too long to read$"):
        ArgumentChecker(spec_of(ToolDefinition("t", "", hostile, {}), ServerDeclaration("s", command="serve")))
    assert list(ResultValidator(hostile).iter_errors({"a": 1})) == []
    wide = {"properties": {f"w{number}": {"minimum": number} for number in range(40)}}
    BoundedValidator(wide)
    taken = bounded_schema._spent.steps
    assert 40 * 20 < taken < 40 * 40, "each schema within is read"
    for most, is_read in ((taken, True), (taken - 1, False)):
        bounded_schema._fault.cache_clear()
        monkeypatch.setattr(bounded_schema, "MAX_READING_STEPS", most)
        assert len(list(ResultValidator(wide).iter_errors({"w3": 1}))) == is_read
    bounded_schema._fault.cache_clear()
    with pytest.raises(TooManySteps):
        BoundedValidator(wide)
    monkeypatch.undo()
    bounded_schema._fault.cache_clear()
    check = ArgumentChecker(ToolSpec("t", "", {"properties": {"few": {"uniqueItems": True}}}))
    assert check({"few": [*range(900)]}) == {"few": [*range(900)]}
    with pytest.raises(ToolError, match=r"^t has a schema that takes too long to apply to these arguments$"):
        check({"few": LONG})


def test_steps_are_those_of_one_check_in_each_thread() -> None:
    def steps(schema: Any, value: Any) -> int:
        assert said(schema, value) == []
        return int(bounded_schema._spent.steps)

    numbers = [*range(30)]
    assert steps({"enum": numbers[:9]}, 1) == 1 and steps({"enum": numbers[:10]}, 1) == 2
    assert steps({"enum": numbers}, 29) == 4 == steps({"const": numbers}, numbers)
    assert steps({"uniqueItems": True}, numbers) == 1 + 7 + 45
    assert steps({"uniqueItems": True}, [*map(str, numbers)]) == 1 + 7
    assert steps({"uniqueItems": True}, [*map(str, numbers[1:]), 0]) == 1 + 7 + 45, "one that is no text is enough"
    assert steps({"uniqueItems": True}, dict.fromkeys("ab", 1)) == 1 == steps({"uniqueItems": True}, "ab" * 50)
    assert steps({"pattern": "a", "format": "date", "title": "T"}, "b") == 0
    assert steps({"properties": {"a": {"type": "integer"}}, "additionalProperties": False}, {"a": 1}) == 3
    assert steps({"additionalProperties": {"type": "integer"}}, {"a": 1, "b": 2}) == 3
    found: list[Any] = []
    shared = BoundedValidator({"uniqueItems": True})
    list(shared.iter_errors(LONG[:900]))
    other = Thread(target=lambda: found.append(list(shared.iter_errors(LONG[:900]))))
    other.start()
    other.join()
    assert found == [[]]
    running = shared.iter_errors([1, 1])
    assert bounded_schema._spent.steps == 40_726, "a check begins where its first error is asked for"
    assert next(running).message == "[1, 1] has non-unique elements" and bounded_schema._spent.steps == 2
