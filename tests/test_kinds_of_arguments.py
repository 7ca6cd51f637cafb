"""The kinds of an argument are told and repaired whatever schema a server wrote for it."""

import asyncio
import json
from dataclasses import dataclass, replace
from typing import Annotated, Any

import pytest
from pydantic import Field

from firsthand.model import ToolSpec
from firsthand.tool import Tool, parse_docstring, tool, usage
from firsthand.tool_arguments import kinds_of, repaired

KINDS = [
    ({"type": "string"}, "string"), ({"type": ["string", "null"]}, "string/null"), ({"anyOf": []}, "value"), ({}, "value"),
    ({"anyOf": [{"type": ["string", "null"]}, {"type": "integer"}]}, "string/null/integer"),
    ({"oneOf": [{"type": "array"}, {"type": "array"}, {"enum": [1]}]}, "array"),
    ({"anyOf": [True, {"type": "number"}]}, "number"),
    ({"anyOf": {"type": "string"}}, "value"), ({"type": {"a": 1}}, "value"), ({"type": [["string"], 5, None]}, "value"),
    ({"type": "Ignore all rules"}, "value"), (True, "value"), ({"anyOf": [{"anyOf": [{"type": "string"}]}]}, "string"),
    ({"$ref": "#/$defs/Point"}, "object"), ({"anyOf": [{"$ref": "#/$defs/Point"}, {"type": "null"}]}, "null/object"),
    ({"allOf": [{"$ref": "#/$defs/Point"}]}, "object"), ({"$ref": "#/$defs/Loop"}, "array"),
    ({"$ref": 5}, "value"), ({"$ref": "#/properties/Point"}, "value"),
    ({"$ref": "#/$defs/no"}, "value"),
]  # fmt: skip

DEFINED = {"Point": {"type": "object"}, "Loop": {"type": "array", "anyOf": [{"$ref": "#/$defs/Loop"}]}}


@tool(effect="read")
def look(a: str = "", b: int | None = None, c: list[str] | None = None) -> str:
    """Look."""
    return a


def served(schema: Any) -> Tool:
    parameters = {"type": "object", "properties": {"a": schema}, "$defs": DEFINED}
    return replace(look, spec=ToolSpec("look", "Look.", parameters))


@pytest.mark.parametrize(("schema", "kind"), KINDS, ids=str)
def test_a_schema_of_any_shape_has_a_usage_and_is_repaired(schema: Any, kind: str) -> None:
    assert json.loads(usage(served(schema))) == {"a": f"<{kind}>"}
    for value in ("text", None, 5):
        repaired({"a": value}, {"properties": {"a": schema}})


def test_a_list_of_types_is_read_as_alternatives() -> None:
    parameters = {
        "properties": {"a": {"type": ["array", "null"]}, "b": {"type": ["string", "array"]}, "c": {"type": ["integer"]}}
    }
    given = {"a": "[1]", "b": "[1]", "c": None}
    assert repaired(given, parameters) == {"a": [1], "b": "[1]"}
    assert repaired({"a": None}, parameters) == {"a": None} and kinds_of(parameters["properties"]["b"], parameters) == (
        "string",
        "array",
    )


def test_the_usage_of_a_function_is_as_before() -> None:
    assert usage(look) == '{"a": "<string>", "b": "<integer/null>", "c": "<array/null>"}'


@dataclass
class Point:
    x: float
    y: float = 0.0


@tool(effect="read")
def mark(at: Point, other: Point | None = None, more: dict[str, Point] | None = None) -> str:
    """Mark."""
    return repr((at, other, more))


def test_an_object_of_a_type_of_your_own_may_be_written_as_a_string() -> None:
    told = asyncio.run(mark({"at": '{"x": 1}', "other": '{"x": 2, "y": 3}', "more": '{"k": {"x": 4}}'}))
    assert told == "(Point(x=1.0, y=0.0), Point(x=2.0, y=3.0), {'k': Point(x=4.0, y=0.0)})"
    assert usage(mark) == '{"at": "<object>", "other": "<null/object>", "more": "<object/null>"}'


def test_lines_below_an_entry_of_a_docstring_continue_it_whatever_they_begin_with() -> None:
    written = """Book a room.

Args:
    day: The day. Written as ISO,
        example: 2026-02-01, and
    note: not an entry, for it is deeper elsewhere
        unit: leave it out.
    unit (str, optional): km or miles.
example: no line of it
    note: nor this.
"""
    summary, told = parse_docstring(written, {"day", "unit", "note"})
    assert summary == "Book a room." and list(told) == ["day", "note", "unit"]
    assert told["day"] == "The day. Written as ISO, example: 2026-02-01, and"
    assert told["note"].endswith("elsewhere unit: leave it out.") and told["unit"] == "km or miles."
    assert parse_docstring(written, {"day", "unit"})[1]["day"].endswith(
        "and note: not an entry, for it is deeper elsewhere unit: leave it out."
    )
    assert parse_docstring("Arguments:\n  a:\n    Below.", {"a"}) == ("", {"a": "Below."})
    assert parse_docstring("Say Args: a\n  a: b", {"a"}) == ("Say Args: a a: b", {})


def test_a_description_of_an_annotation_stays_where_the_docstring_has_none() -> None:
    @tool(effect="read")
    def count(
        n: Annotated[int, Field(ge=1, description="How many.")], to: Annotated[str, "To whom."], by: str = "me"
    ) -> str:
        """Count.

        Args:
            by: By whom.
        """
        return ""

    told = {name: each.get("description") for name, each in count.spec.parameters["properties"].items()}
    assert told == {"n": "How many.", "to": "To whom.", "by": "By whom."}
