"""The work of applying a schema of somebody else: all that a keyword goes through is counted, and what is told is short."""

from __future__ import annotations

import time
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

from firsthand.tools.mcp import bounded_schema
from firsthand.tools.mcp.bounded_schema import MAX_FAULT, BoundedValidator, ResultValidator, TooManySteps

MANY: list[Any] = [0] * 2_000
NAMES = {str(number): 0 for number in range(2_000)}


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_schema, "MAX_STEPS", 5_000)


@pytest.mark.slow
@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize(
    ("one", "value"),
    [
        ({"items": {}}, MANY), ({"items": True}, MANY), ({"prefixItems": [{}], "items": {}}, MANY),
        ({"contains": True}, MANY), ({"additionalProperties": {}}, NAMES), ({"propertyNames": {}}, NAMES),
        ({"uniqueItems": True}, [*NAMES]), ({"uniqueItems": True}, [MANY]), ({"uniqueItems": True}, [{"a": MANY}] * 2),
    ],
)  # fmt: skip
def test_a_keyword_pays_for_each_element_or_name_that_it_goes_through(one: Any, value: Any) -> None:
    assert list(BoundedValidator({"properties": {"a": {"allOf": [one] * 3}}}).iter_errors({"b": value})) == []
    with pytest.raises(TooManySteps):
        list(BoundedValidator({"properties": {"a": {"allOf": [one] * 60}}}).iter_errors({"a": value}))


@pytest.mark.usefixtures("few_steps")
def test_a_keyword_pays_for_its_own_list_and_for_each_error() -> None:
    listed = [str(number) for number in range(200)]
    for keyword, value in (
        ({"required": listed}, NAMES), ({"properties": {key: {} for key in listed}}, {}), ({"enum": listed}, "0"),
        ({"const": [listed]}, [listed]), ({"enum": [[listed]]}, [listed]), ({"required": listed}, {}),
    ):  # fmt: skip
        schema = {"$defs": {"a": keyword}, "items": {"$ref": "#/$defs/a"}}
        missing = 600 if value == {} and "required" in keyword else 0
        assert len(list(BoundedValidator(schema).iter_errors([value] * 3))) == missing
        with pytest.raises(TooManySteps):
            list(BoundedValidator(schema).iter_errors([value] * 300))
    for length, fits in ((900, True), (200_000, False)):  # an error holds the value, and is written out first
        wrong = BoundedValidator({"anyOf": [{"type": "integer"}] * 30})
        if fits:
            assert len(list(wrong.iter_errors("x" * length))) == 1
            continue
        with pytest.raises(TooManySteps):
            list(wrong.iter_errors("x" * length))


@pytest.mark.slow
@pytest.mark.usefixtures("few_steps")
def test_references_that_are_searched_for_pay_for_the_schema() -> None:
    wide = {f"k{number}": {"type": "integer"} for number in range(400)}
    for found, to in (({"$anchor": "x"}, "#x"), ({"$dynamicAnchor": "x"}, "#x"), ({"$id": "b"}, "b")):
        schema = {"$id": "http://a.example/", "$defs": {"a": found, **wide}, "items": {"$ref": to}}
        assert list(BoundedValidator(schema).iter_errors([1] * 20)) == []
        with pytest.raises(TooManySteps):
            list(BoundedValidator(schema).iter_errors([1] * 80))
    pointed = {"$defs": {"a": {"type": "integer"}, **wide}, "items": {"$ref": "#/$defs/a"}}
    assert list(BoundedValidator(pointed).iter_errors([1] * 1_000)) == []


def test_a_check_ends_by_processor_time_too(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = BoundedValidator({"items": {"type": "string"}})
    monkeypatch.setattr(bounded_schema, "MAX_CPU_S", -1.0)
    with pytest.raises(TooManySteps):
        list(checked.iter_errors(["a"]))
    assert list(ResultValidator({"type": "string"}).iter_errors(1)) == []


def test_a_result_that_does_not_fit_is_told_in_one_sentence_however_large_it_is() -> None:
    value: Any = [0] * 100_000
    for _ in range(100):
        value = [value]
    began = time.process_time()
    (told,) = ResultValidator({"properties": {"a": {"type": "string"}}}).iter_errors({"a": value})
    assert str(told).startswith("a: [[[[[") and len(str(told)) == 303
    assert time.process_time() - began < 5, "written out whole it takes 5 s and more"
    (error,) = BoundedValidator({"type": "string"}).iter_errors(value)
    assert len(error.message) == MAX_FAULT
    (told,) = ResultValidator({"type": "object", "required": ["b"]}).iter_errors({})
    assert str(told) == "the result: 'b' is a required property"
    (told,) = ResultValidator({"properties": {"b": {"items": {"type": "integer"}}}}).iter_errors({"b": [1, "x", 2]})
    assert str(told) == "b.1: 'x' is not of type 'integer'"


@pytest.mark.slow
def test_ordinary_results_are_checked() -> None:
    record = {
        "type": "object", "required": ["id", "name"], "additionalProperties": False,
        "properties": {"id": {"type": "integer"}, "name": {"type": "string"}, "tags": {"uniqueItems": True}},
    }  # fmt: skip
    check = ResultValidator({"$defs": {"r": record}, "type": "array", "items": {"anyOf": [{"$ref": "#/$defs/r"}]}})
    rows = [{"id": number, "name": "n", "tags": ["a", "b"]} for number in range(2_000)]
    assert list(check.iter_errors(rows)) == []
    assert [str(each) for each in check.iter_errors([*rows, {"id": "x", "name": "n"}])] == [
        "2000.id: 'x' is not of type 'integer'"
    ]
    numbers = ResultValidator({"type": "array", "items": {"type": "number"}})
    assert len(list(numbers.iter_errors([0] * 30_000 + ["x"]))) == 1
