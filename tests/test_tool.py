import asyncio
import functools
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Literal

import pytest
from pydantic import Field, create_model

from firsthand.errors import ConfigError, ToolError
from firsthand.tool import tool, tool_from_function


class Colour(Enum):
    RED = "red"


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


def test_a_generator_runs_to_its_end_and_its_items_are_the_result():
    done = []

    def steps(n: int) -> Iterator[int]:
        for i in range(n):
            done.append(i)
            yield i

    async def later(n: int) -> AsyncIterator[int]:
        for i in range(n):
            await asyncio.sleep(0)
            done.append(i)
            yield i

    async def handed(n: int) -> AsyncIterator[int]:
        return later(n)

    async def lazy(n: int) -> Iterator[int]:
        return steps(n)

    for function in (steps, later, handed, lazy):
        made = tool_from_function(function, effect="external")
        assert asyncio.run(made({"n": 3})) == "[0, 1, 2]" and done == [0, 1, 2]
        assert asyncio.run(made({"n": 0})) == "[]"
        done.clear()


def test_a_generator_without_an_end_is_stopped(monkeypatch):
    monkeypatch.setattr("firsthand.tool.MAX_ITEMS", 5)
    closed = []

    async def later(n: int) -> AsyncIterator[int]:
        try:
            for i in range(n):
                yield i
        finally:
            closed.append(n)

    def steps(n: int) -> Iterator[int]:
        yield from range(n)

    for function in (later, steps):
        made = tool_from_function(function, effect="read")
        assert asyncio.run(made({"n": 5})) == "[0, 1, 2, 3, 4]"
        with pytest.raises(ToolError, match="it gives more than"):
            asyncio.run(made({"n": 6}))
    assert closed == [5, 6]


def test_values_that_json_has_no_type_for_are_data():
    @dataclass
    class Point:
        x: int
        colour: Colour

    def where() -> Point:
        return Point(1, Colour.RED)

    def many() -> set[str]:
        return {"b", "a"}

    assert asyncio.run(tool_from_function(where, effect="read")({})) == '{"x": 1, "colour": "red"}'

    def red() -> Colour:
        return Colour.RED

    assert asyncio.run(tool_from_function(many, effect="read")({})) == '["a", "b"]'

    def thing() -> object:
        return [object()]

    assert asyncio.run(tool_from_function(red, effect="read")({})) == "red"

    def odd_keys() -> dict[object, object]:
        return {(1, 2): 3, Colour.RED: {"inner": map(str, range(3))}, None: 1}

    assert asyncio.run(tool_from_function(thing, effect="read")({})) == '["<object object>"]'
    found = asyncio.run(tool_from_function(odd_keys, effect="read")({}))
    assert found == '{"(1, 2)": 3, "red": {"inner": ["0", "1", "2"]}, "null": 1}'


def test_objects_and_partial_functions_are_tools_and_odd_types_are_told():
    class Adder:
        """Adds."""

        def __call__(self, a: int, b: int = 2) -> int:
            return a + b

    made = tool_from_function(Adder(), effect="read", name="adder")
    assert made.spec.description == "Adds." and asyncio.run(made({"a": 1})) == "3"
    assert tool_from_function(Adder(), effect="read").name == "Adder"

    def scaled(a: int, by: int) -> int:
        """Scales."""
        return a * by

    half = tool_from_function(functools.partial(scaled, by=10), effect="read")
    assert (half.name, half.spec.description, asyncio.run(half({"a": 4}))) == ("scaled", "Scales.", "40")
    assert half.spec.parameters["properties"].keys() == {"a"}, "a model neither sees nor changes what is bound"
    with pytest.raises(ToolError, match="by: Extra inputs"):
        asyncio.run(half({"a": 4, "by": 2}))

    def odd(a: object()) -> int:  # type: ignore[valid-type]
        return 0

    def hidden(_a: int) -> int:
        return _a

    def unknown(a: "Nowhere") -> int:  # type: ignore[name-defined]  # noqa: F821
        return 0

    for function, said in (
        (odd, "tool 'odd': its arguments make no schema"),
        (hidden, "tool 'hidden': its arguments make no schema"),
        (unknown, "tool 'unknown': an annotation names what is not there"),
    ):
        with pytest.raises(ConfigError, match=said):
            tool_from_function(function, effect="read")


def test_a_field_as_default_gives_its_default_limits_and_description():
    def pay(to: str, amount: float = Field(10.0, ge=0, le=100), note: str = Field("none", description="Why.")) -> str:
        """Pay.

        Args:
            amount: Euros.
            note: Not shown.
        """
        return f"{amount} to {to}: {note}"

    paid = tool_from_function(pay, effect="external")
    properties = paid.spec.parameters["properties"]
    assert properties["amount"] == {
        "default": 10.0,
        "description": "Euros.",
        "maximum": 100,
        "minimum": 0,
        "type": "number",
    }
    assert properties["note"] == {"default": "none", "description": "Why.", "type": "string"}
    assert paid.spec.parameters["required"] == ["to"]
    assert paid.validate({"to": "ada"}) == {"to": "ada", "amount": 10.0, "note": "none"}
    for wrong in (-0.5, 100.5):
        with pytest.raises(ToolError, match="amount"):
            paid.validate({"to": "ada", "amount": wrong})


@pytest.mark.parametrize("name", ["model_config", "model_dump"])
def test_an_argument_that_a_model_of_pydantic_has_is_refused(name):
    made = {}
    exec(f"def configure({name}: str = 'a', n: int = 1) -> str:\n    return {name}", made)
    with pytest.raises(ConfigError, match=f"^tool 'configure': its arguments make no schema: .*{name}"):
        tool_from_function(made["configure"], effect="read")


@pytest.mark.parametrize("name", ["json", "schema", "copy", "validate", "dict", "register"])
def test_an_argument_may_have_the_name_of_an_attribute_of_pydantic_models(name):
    made = {"Field": Field}
    exec(
        f"def a({name}: int, n: int = 1) -> str:\n    'A.\\n\\n    Args:\\n        {name}: Told.'\n    return {name}",
        made,
    )
    exec(f"def b({name}: int = Field(3, ge=2)) -> str:\n    return {name}", made)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second = (tool_from_function(made[each], effect="read") for each in "ab")
    assert first.spec.parameters["properties"][name] == {"description": "Told.", "type": "integer"}
    assert first.spec.parameters["required"] == [name]
    assert first.read({name: "4"}) == {name: 4} and asyncio.run(first({name: 4})) == "4"
    assert first.validate({name: 4}) == {name: 4, "n": 1}
    assert second.spec.parameters["properties"][name] == {"default": 3, "minimum": 2, "type": "integer"}
    assert asyncio.run(second({})) == "3"
    for wrong in ({name: 1}, {f"argument {name}": 3}):
        with pytest.raises(ToolError, match=rf"\({'argument ' * (name not in wrong)}{name}: "):
            second.validate(wrong)


def test_limits_that_do_not_fit_their_type_are_refused():
    def wait(days: int = Field(5, ge="soon")) -> str:
        return ""

    with pytest.raises(ConfigError, match=r"^tool 'wait': its arguments make no schema: "):
        tool_from_function(wait, effect="read")
