"""Objects in arguments and results of recorded calls: by their fields, and marked where they have no text."""

from __future__ import annotations

import datetime
import json
import reprlib
import threading
from dataclasses import dataclass, field
from typing import Any

import attrs
import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, SecretStr, computed_field

from firsthand.ingest.incoming_span import CUT, IncomingSpan
from firsthand.ingest.recorded_values import MAX_VALUE_CHARS, GivenItems, shown_value
from firsthand.ingest.recording import ActiveSpan


@dataclass
class Answer:
    text: str
    key: str = field(default="hidden", repr=False)


@dataclass
class Private:
    key: str

    def __repr__(self) -> str:
        return "Private(...)"


@dataclass(repr=False)
class Unshown:
    key: str


class Reply(BaseModel):
    model_config = ConfigDict(extra="allow")
    answers: list[Answer]
    token: str = Field("hidden", repr=False)
    inner: str = Field("left out", exclude=True)
    secret: SecretStr = SecretStr("hidden")


class Quiet(BaseModel):
    key: str

    def __repr__(self) -> str:
        return "Quiet(...)"


class Words(RootModel[list[str]]): ...


@attrs.define
class Point:
    x: int
    key: str = attrs.field(default="hidden", repr=False)


class Told:
    def to_dict(self) -> dict[str, Any]:
        return {"page": Answer("é")}


class TableLike:
    def to_dict(self) -> dict[str, Any]:
        return {"every": "row"}

    def __repr__(self) -> str:
        return "a table"


class Promise:
    def __await__(self) -> Any:
        yield

    def __repr__(self) -> str:
        return "<Promise pending>"


class Failing:
    def to_dict(self, orient: str) -> dict[str, Any]:
        return {}


def test_objects_are_shown_by_the_fields_that_their_repr_would_show() -> None:
    long = "word " * 600 + "END"
    for value, text in (
        (Answer(long), f'{{"text": "{long}"}}'),
        (Reply(answers=[Answer("a")], more=1),
         '{"answers": [{"text": "a"}], "secret": "SecretStr(\'**********\')", "more": 1}'),
        ([Words(["a", "b"])], '[["a", "b"]]'),
        ({"at": Point(1)}, '{"at": {"x": 1}}'),
        (Told(), '{"page": {"text": "é"}}'),
        (TableLike(), '"a table"'),
        ([Private("hidden"), Quiet(key="hidden")], '["Private(...)", "Quiet(...)"]'),
        (datetime.date(2026, 12, 3), '"datetime.date(2026, 12, 3)"'),
    ):  # fmt: skip
        assert shown_value(value) == (text, True), value
    assert shown_value(Answer) == (f'"{Answer!r}"', True), "a class is no object of it"
    assert "hidden" not in shown_value([Unshown("hidden")]).text
    loop = Answer("x")
    loop.text = loop  # type: ignore[assignment]
    assert shown_value(loop) == ("Answer(text=...)", True)
    assert shown_value(Answer("x" * MAX_VALUE_CHARS)).text.endswith('xx"}'), "the span cuts it, and says so"


def test_a_result_that_is_told_by_its_address_alone_is_marked() -> None:
    async def later() -> None: ...

    coroutine = later()
    for value in (object(), [threading.Lock()], {"a": "Paris", "client": Failing()}, lambda: 1, coroutine, [Promise()]):
        assert not shown_value(value).is_told, value
    coroutine.close()
    for value in ("crash at 0x7f>", ["<b at 0x1>"], {"a": {1, 2}}, 1.5, None, [Private("x")]):
        assert shown_value(value).is_told, value
    assert shown_value("x").text == "x" and shown_value("x", as_json=True) == ('"x"', True)
    assert (
        not shown_value({(1, 2): 3, 4: object()}, as_json=True).text.startswith("{")
        and shown_value({(1, 2): 3}).is_told
    )
    items = GivenItems()
    items.add("a")
    assert items.shown() == ("a", True)
    items.add(object())
    items.add({"b": 1})
    assert not items.shown().is_told and json.loads(items.shown().text)[::2] == ["a", {"b": 1}]


@pytest.mark.parametrize("is_told", [True, False])
def test_what_is_not_told_is_named_beside_what_was_cut(is_told: bool) -> None:
    span = IncomingSpan("a", "b", "", "n", 1, 2)
    active = ActiveSpan(span, True, None)
    active.keep("input.value", "x" * (MAX_VALUE_CHARS + 1))
    active.keep("output.value", "<Stream>", is_told=is_told)
    assert span.attributes[CUT] == ("input.value" if is_told else "input.value output.value")
    active.keep("output.value", "said")
    assert span.attributes[CUT] == "input.value"


@dataclass
class Guarded:
    key: str

    @reprlib.recursive_repr()
    def __repr__(self) -> str:
        return "Guarded(...)"


@dataclass(repr=False)
class Longer(Answer):
    more: str = "hidden"


@attrs.define(repr=False)
class Farther(Point):
    more: str = "hidden"


class Masked(BaseModel):
    key: str
    other: str
    kind: str = "masked"
    names: list[str] = []

    def __repr_args__(self) -> Any:
        yield "key", "***"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def quoted(self) -> str:
        return f"'{self.key}'"


class Sum(BaseModel):
    one: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def two(self) -> int:
        return self.one + 1

    @computed_field(repr=False)  # type: ignore[prop-decorator]
    @property
    def three(self) -> str:
        return "hidden"


def test_what_the_author_of_a_class_hides_is_hidden_and_what_its_repr_computes_is_shown() -> None:
    made: dict[str, Any] = {}
    code = "from dataclasses import dataclass\n@dataclass\nclass Typed:\n key: str\n def __repr__(self): return 'Typed'"
    exec(code, made)  # as `python -c` does
    for value, text in (
        (Guarded("hidden"), '"Guarded(...)"'), (made["Typed"]("hidden"), '"Typed"'),
        (Longer("a"), '{"text": "a"}'), (Farther(1), '{"x": 1}'),
        (Masked(key="hidden", other="hidden"), '{"key": "***", "kind": "masked", "names": []}'),
        (Sum(one=1), '{"one": 1, "two": 2}'),
    ):  # fmt: skip
        assert shown_value(value) == (text, True), value
