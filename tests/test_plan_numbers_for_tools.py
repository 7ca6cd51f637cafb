"""A number that a tool stated in text reaches the next tool as its schema takes numbers, in lists and objects too."""

import asyncio
from dataclasses import replace
from typing import Literal

import pytest

from firsthand import Agent, Task
from firsthand.patterns.plan_mode import plan_mode
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.safety.plans.plan_number import StatedNumber, decoded, fitted
from firsthand.tool import tool

LINE = {"type": "object", "properties": {"price": {"type": "number"}, "code": {"type": "string"}}}


@pytest.mark.parametrize(("text", "schema", "found"), [
    ("1.10", {"type": "number"}, 1.1), ("1.10", {"type": "string"}, "1.10"), ("42", {"type": "integer"}, 42),
    ("12345678901234567", {"type": "integer"}, 12345678901234567), ("1e23", {"type": "integer"}, 10**23),
    ("42", {"type": "number"}, 42), ("1e5", {"type": "number"}, 1e5), (" 4.0\n", {"type": "integer"}, 4),
    ("1.5", {"type": "integer"}, 1.5), ("42", {"type": ["integer", "null"]}, 42), ("42", {"type": "boolean"}, "42"),
    ("42", {"anyOf": [{"type": "integer"}, {"type": "null"}]}, 42), ("42", {"type": ["integer", "string"]}, "42"),
    ("42", {"oneOf": [{"type": "string"}, {"type": "number"}]}, "42"), ("42", {"allOf": [{"type": "number"}]}, 42),
    ("42", {}, "42"), ("42", None, "42"), ("42", {"$ref": "#/$defs/n"}, 42), ("42", {"$ref": "#/definitions/t"}, "42"),
    ("42", {"oneOf": [{"$ref": "#/$defs/n"}]}, 42), ("42", {"$ref": "#/title/t"}, "42"),
    ("42", {"$ref": "#/$defs/round"}, "42"), ("42", {"$ref": 3, "anyOf": 3}, "42"), ("42", {"$ref": "#/$defs/no"}, "42"),
])  # fmt: skip
def test_a_stated_number_is_what_the_schema_takes(text, schema, found):
    whole = {
        "$defs": {"n": {"type": "number"}, "round": {"anyOf": [{"$ref": "#/$defs/round"}] * 2}},
        "title": "text",
        "definitions": {"t": {"type": "string"}},
    }
    given = fitted(StatedNumber(text), schema, whole)
    assert given == found and type(given) is type(found)


@pytest.mark.parametrize(("value", "schema", "found"), [
    ([StatedNumber("1.10"), "2", 3], {"type": "array", "items": {"type": "number"}}, [1.1, "2", 3]),
    ([StatedNumber("1.10")], {"type": "array"}, ["1.10"]), ([StatedNumber("1")], {"items": True}, ["1"]),
    ({"price": StatedNumber("1"), "code": StatedNumber("2"), "x": StatedNumber("3")}, LINE,
     {"price": 1, "code": "2", "x": "3"}),
    ({"x": StatedNumber("3")}, {"additionalProperties": {"type": "number"}}, {"x": 3}),
    ({"x": StatedNumber("3")}, {"properties": 3, "additionalProperties": False}, {"x": "3"}),
    ([{"price": StatedNumber("1.50")}], {"items": {"anyOf": [{"properties": {"x": {}}}, LINE]}}, [{"price": 1.5}]),
])  # fmt: skip
def test_stated_numbers_in_lists_and_objects_are_what_the_schema_takes(value, schema, found):
    assert fitted(value, schema, {}) == found


def test_tools_that_do_not_convert_get_numbers_and_a_payment_keeps_its_key():
    given = []

    @tool(effect="external")
    def pay(to: str, amount: float, rate: Literal[1, 2], parts: list[float], codes: list[str]) -> str:
        """Pay."""
        given.append((to, amount, rate, parts, codes))
        raise RuntimeError

    def strictly(arguments):
        assert [type(each) for each in (arguments["amount"], *arguments["parts"])] == [float, float]
        assert type(arguments["to"]) is type(arguments["codes"][0]) is str
        return pay.validate(arguments)

    @tool(effect="read")
    def price() -> str:
        """Return the price."""
        return "1.10"

    @tool(effect="read")
    def rate() -> str:
        """Return the rate."""
        return "2"

    plan = "```\np = price()\nanswer(pay(to=p, amount=p, rate=rate(), parts=[p], codes=[p]))\n```"
    agent = Agent("p", Scripted([plan] * 2), plan_mode, {"retries": 1}, (replace(pay, validate=strictly), price, rate))
    answer = asyncio.run(rollout(agent, Task("1", "Pay."))).answer
    assert given == [("1.10", 1.1, 2, [1.1], ["1.10"])] and "pay may have taken effect" in answer


def test_infinite_numbers_within_a_result_stay_texts():
    assert decoded('{"a": 1e999, "b": [-1e999, 1.5]}') == {"a": "1e999", "b": ["-1e999", 1.5]}
