import asyncio
import time
from typing import Literal

import pytest
from pydantic import create_model

from firsthand.errors import ConfigError, ToolError
from firsthand.tool import tool, tool_from_function


@tool(effect="read")
def weather(city: str, days: int = 1, unit: Literal["C", "F"] = "C") -> dict[str, object]:
    """Return the forecast for a city.

    It may be wrong.

    Args:
        city: The city's name,
            in English.
        days: How many days ahead.
    """
    return {"city": city, "days": days, "unit": unit}


def test_the_schema_comes_from_signature_and_docstring():
    assert weather.name == "weather"
    assert weather.spec.description == "Return the forecast for a city. It may be wrong."
    properties = weather.spec.parameters["properties"]
    assert properties["city"] == {"description": "The city's name, in English.", "type": "string"}
    assert properties["days"] == {"default": 1, "description": "How many days ahead.", "type": "integer"}
    assert properties["unit"]["enum"] == ["C", "F"]
    assert weather.spec.parameters["required"] == ["city"]


def test_a_schema_has_no_titles_but_the_fields_and_classes_of_that_name():
    made = create_model("title", title=(str, ...), pages=(int, 1))

    @tool(effect="read")
    def keep(book: made, title: str) -> str:  # type: ignore[valid-type]
        """Keep a book."""
        return title

    fields = {"title": {"type": "string"}, "pages": {"type": "integer", "default": 1}}
    assert keep.spec.parameters == {
        "$defs": {"title": {"properties": fields, "required": ["title"], "type": "object"}},
        "additionalProperties": False,
        "properties": {"book": {"$ref": "#/$defs/title"}, "title": {"type": "string"}},
        "required": ["book", "title"],
        "type": "object",
    }

    @tool(effect="read")
    def save(options: dict[str, str] = {"title": "A", "x": "b"}) -> str:  # noqa: B006
        """Save it."""
        return options["x"]

    assert save.spec.parameters["properties"]["options"]["default"] == {"title": "A", "x": "b"}


def test_numbers_that_a_model_writes_for_texts_are_texts():
    @tool(effect="read")
    def look(code: str, others: list[str] = []) -> str:  # noqa: B006
        """Look codes up."""
        return repr((code, others))

    assert asyncio.run(look({"code": 7, "others": [1, 2.5, "x"]})) == "('7', ['1', '2.5', 'x'])"


def test_arguments_are_checked_and_converted():
    assert asyncio.run(weather({"city": "Oslo", "days": "3"})) == '{"city": "Oslo", "days": 3, "unit": "C"}'


@pytest.mark.parametrize(
    "arguments", [{}, {"city": 1, "days": "many"}, {"city": "Oslo", "where": "x"}, {"city": "Oslo", "unit": "K"}]
)
def test_wrong_arguments_say_what_was_given_and_what_it_takes(arguments):
    with pytest.raises(
        ToolError, match=r"weather was called with .* it takes city: string, days: integer \(optional\)"
    ):
        asyncio.run(weather(arguments))


def test_a_failing_tool_is_a_tool_error():
    @tool(effect="read")
    def divide(a: float, b: float) -> float:
        """Divide."""
        return a / b

    with pytest.raises(ToolError, match="divide failed: ZeroDivisionError"):
        asyncio.run(divide({"a": 1, "b": 0}))


def test_a_slow_tool_is_stopped():
    async def dawdle() -> str:
        await asyncio.sleep(60)
        return "late"

    slow = tool_from_function(dawdle, effect="read", timeout_s=0.05)
    began = time.perf_counter()
    with pytest.raises(ToolError, match=r"did not finish within 0\.05 s"):
        asyncio.run(slow({}))
    assert time.perf_counter() - began < 30


def test_a_long_result_is_cut_and_says_so():
    @tool(effect="read")
    def shout() -> str:
        """Shout."""
        return "a" * 100_000

    result = asyncio.run(shout({}))
    assert len(result) < 17_000 and result.endswith("[cut after 16000 of 100000 characters]")


def test_functions_that_make_no_tool_are_refused():
    def bare(x):
        return x

    with pytest.raises(ConfigError, match="annotate the argument 'x'"):
        tool(effect="read")(bare)

    def many(*numbers: int) -> int:
        return sum(numbers)

    with pytest.raises(ConfigError, match="name each one"):
        tool(effect="read")(many)
    with pytest.raises(ConfigError, match="1 to 64 letters"):
        tool_from_function(many, effect="read", name="no spaces please")
