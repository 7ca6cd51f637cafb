"""Mistakes in the values that arguments hold, and in listed values, are corrected where there is one way to read them."""

import json
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Base64Bytes, BaseModel, BeforeValidator, Field

from firsthand.errors import ToolError
from firsthand.tool import tool
from firsthand.tool_arguments import repaired_within


class Addr(BaseModel):
    street: str
    zip: str
    floor: int = 0
    note: str | None = None


class Cat(BaseModel):
    kind: Literal["cat"]
    name: str


class Dog(BaseModel):
    kind: Literal["dog"]
    name: int


class Person(BaseModel):
    addr: Addr
    friends: list["Person"] = []


class Upload(BaseModel):
    body: Base64Bytes
    name: str
    tags: str | list[str] = ""


def read_as(annotation, value):
    """What a tool with one argument of that type gets, or the error that the model is told."""

    @tool(effect="read")
    def take(a: annotation) -> str:
        return ""

    try:
        return take.validate({"a": value})["a"], take.read({"a": value})["a"]
    except ToolError as error:
        return str(error)


@pytest.mark.parametrize(
    ("annotation", "value", "got"),
    [
        (Literal[1, 2], "1", 1), (Literal[1, 2], " 2 ", 2), (Literal[True, False], "True", True), (Literal[1, "a"], "1", 1),
        (Literal["1", "2"], 1, "1"), (list[Literal[1, 2]], ["1", 2], [1, 2]), (dict[str, Literal[1]], {"x": "1"}, {"x": 1}),
        (tuple[Literal["1"], Literal[1]], [1, "1"], ("1", 1)), (Literal[1, 2] | None, "2", 2), (Literal[-1], "-1", -1),
        (Literal["1", 2], 1, "1"), (Literal["1", 1], "1", "1"),
        (tuple[Literal["1", 1], Literal[2]], ["1", "2"], ("1", 2)), (tuple[Literal[7], ...], ["7", "7"], (7, 7)),
    ],
)  # fmt: skip
def test_one_of_the_listed_values_may_be_written_as_a_string_or_number(annotation, value, got):
    found = read_as(annotation, value)[0]
    assert found == got and repr(found) == repr(got)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Literal[1, 2], "3"), (Literal[1, 2], "1.0"), (Literal[True, False], "yes"), (Literal["a", "b"], "A"),
        (Literal["true"], True), (Literal[1, True], "x"), (list[int], "1,2"),
        (Literal["5"] | int, "x"), (Literal["1", 1], 1.5),
        (date, 20240101), (list[date], [20240101]), (list[str], [True]), (list[Path], [5]),
        (dict[str, int], {"x": None}), (tuple[Literal[1], int], ["1"]),
        (Upload, {"body": "aGk=", "name": "x", "tags": 5}),
    ],
)  # fmt: skip
def test_a_value_with_no_or_two_readings_is_refused(annotation, value):
    assert "it takes a: " in read_as(annotation, value)


def test_mistakes_within_objects_and_lists_are_corrected_too():
    addr = {"street": "s", "zip": "12345"}
    for given in (
        addr | {"zip": 12345}, json.dumps(addr), addr | {"floor": None}, addr | {"floor": "0"}, addr | {"note": None},
        addr | {"zip": 12345, "floor": None},
    ):  # fmt: skip
        for value in ({"addr": given}, json.dumps({"addr": given}), {"addr": addr, "friends": [{"addr": given}]}):
            got, seen = read_as(Person, value)
            assert (got.friends or [got])[0].addr == got.addr == Addr(**addr), value
            assert seen["addr"]["zip"] == "12345"
    got, _ = read_as(Person, {"addr": addr, "friends": json.dumps([{"addr": json.dumps(addr)}])})
    assert got.friends[0].addr == Addr(**addr)
    assert read_as(Addr, addr | {"note": 5})[0].note == "5"
    sent = {"body": "aGk=", "name": 5}
    assert read_as(Upload, sent)[1] == sent | {"name": "5"}, "as a guard sees it"
    assert read_as(dict[str, Addr], {"x": addr | {"zip": 1}})[0]["x"].zip == "1"
    assert read_as(list[Cat | Dog], [{"kind": "dog", "name": "7"}])[0][0].name == 7
    for wrong in (addr | {"zip": None}, addr | {"zip": True}, addr | {"floor": "x"}, "s, 12345", {"zip": 1}):
        assert "it takes a: object" in read_as(Person, {"addr": wrong})
    twice = '{"street": "s", "zip": "1", "zip": "2"}'
    assert read_as(Person, {"addr": twice}) == (
        "the argument 'a.addr' is ambiguous: the key 'zip' comes twice in one object: write it once"
    )


class Fish(BaseModel):
    kind: Literal["fish", "eel"]
    name: int | None = None
    fins: list[int] = []


def test_an_alternative_that_says_its_kind_is_corrected_as_that_kind():
    for union in (Cat | Dog | Fish, Annotated[Cat | Dog | Fish, Field(discriminator="kind")]):
        assert read_as(union, {"kind": "cat", "name": 5}) == (Cat(kind="cat", name="5"), {"kind": "cat", "name": "5"})
        assert read_as(list[union], [{"kind": "eel", "name": None, "fins": "[1]"}])[0][0].fins == [1]
        assert read_as(union, {"kind": "eel", "fins": None})[0] == Fish(kind="eel")
        assert read_as(union, json.dumps({"kind": "cat", "name": 5}))[0] == Cat(kind="cat", name="5")
        for wrong in ({"kind": "cow", "name": 5}, {"name": 5}, {"kind": "cat", "name": None}):
            assert "it takes a: " in read_as(union, wrong)


def test_what_the_tool_takes_as_it_is_stays_as_it_is():
    for annotation, value in (
        (Cat | dict[str, Any], {"kind": "cat", "name": 5}), (dict[str, Any], {"x": "[1]", "y": None}), (Any, ["1"]),
        (list[str] | str, '["a"]'), (Literal[1] | str, "1"), (Annotated[list[int], BeforeValidator(lambda x: x)], [1]),
    ):  # fmt: skip
        assert read_as(annotation, value)[0] == value


def test_deep_values_and_schemas_in_a_circle_are_read_in_bounds():
    value: Any = {"addr": {"street": "s", "zip": 1}}
    for _ in range(60):
        value = {"addr": {"street": "s", "zip": 1}, "friends": [value]}
    assert "it takes a: object" in read_as(Person, value), "too deep to be repaired"
    circle = {
        "properties": {"a": {"$ref": "#/$defs/A"}},
        "$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}], "items": 5}},
    }
    assert repaired_within({"a": [[1, "x"]], "b": None}, circle) == {"a": [[1, "x"]], "b": None}
    odd = {
        "properties": {"a": {"type": "object", "properties": {"x": True}, "required": 5, "enum": 7, "prefixItems": {}}}
    }
    assert repaired_within({"a": {"x": None, "y": 1}}, odd) == {"a": {"x": None, "y": 1}}
