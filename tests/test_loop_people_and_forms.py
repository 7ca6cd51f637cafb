"""What a person is shown and asked, and the fields of forms with their answers, on small cases."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.loop.approval import (
    MAX_SHOWN,
    Approval,
    AskPerson,
    Decision,
    _on_a_line,
    _shortened,
    check_rules,
    explained,
    form_question,
    kind_of,
    question,
)
from firsthand.loop.form import (
    MAX_FIELDS,
    FormField,
    checked_answers,
    fields_from_json,
    fields_to_json,
    form_fields,
    form_schema,
)
from firsthand.tool import tool
from typed_terminal import Typed


@tool(effect="external")
def send(text: str) -> str:
    """Send a text."""
    return f"sent {text}"


@tool(effect="read")
def find(text: str) -> str:
    """Find a text."""
    return text


def test_a_persons_always_is_of_one_tool_and_not_of_a_reason() -> None:
    ask = AskPerson(Typed("always", "no", "yes"))
    ask.terminal.is_there = lambda: True  # type: ignore[method-assign]
    assert asyncio.run(ask(send, {"text": "x"})) == Decision(True, "terminal") and ask.always == {kind_of(send)}
    refused = asyncio.run(ask(find, {"text": "x"}))
    assert refused == Decision(False, "terminal", "the person asked did not approve this call of find")
    with explained("it spends money"):
        assert "  why you are asked: it spends money" in question(send, {"text": "x"}).split("\n")
        assert asyncio.run(ask(send, {"text": "x"})) == Decision(True, "terminal"), "it was asked again"
    assert question(send, {"text": "x\ny", "n": 1}).split("\n") == [
        "send (external): Send a text.", "  text: x", "    y", "  n: 1", "Run send (external)?",
    ]  # fmt: skip
    odd = replace(send, spec=replace(send.spec, name="s\x1b[2J", description="Send\x07 a\u202e \x9btext."))
    hidden = {"te\x1bxt": "a\x08\x7f", "n\u3164": {"k\u200b": ["\x7f", "\x85"]}}
    with explained("pay\x1b[8m it"):
        assert question(odd, hidden).split("\n") == [
            "s\\x1b[2J (external): Send\\x07 a\\u202e \\x9btext.",
            '  "te\\x1bxt": a\\x08\\x7f',
            '  "n\\u3164": {"k\\u200b":["\\x7f","\\x85"]}',
            "  why you are asked: pay\\x1b[8m it", "Run s\\x1b[2J (external)?",
        ]  # fmt: skip
    fields = (FormField("n\x1b", "string", "How\x07?", choices=("a\u202e",)), FormField("b\x9b", "boolean"))
    assert form_question(odd, "fill\x1b", fields).split("\n") == [
        "Send\\x07 a\\u202e \\x9btext.", "  fill\\x1b", '  "n\\x1b": How\\x07? (string: a\\u202e; may be left empty)',
        '  "b\\x9b": b\\x9b (yes or no; may be left empty)', "Fill it in?",
    ]  # fmt: skip
    terminal = Typed("yes", "z\x1b", "a\u202e", "no")
    assert asyncio.run(AskPerson(terminal).fill(odd, "fill\x1b\nin", fields)) == {"n\x1b": "a\u202e", "b\x9b": False}
    asked = "  How\\x07? (string: a\\u202e; may be left empty):"
    assert terminal.sink.getvalue().split("\n") == [  # type: ignore[attr-defined]
        "Send\\x07 a\\u202e \\x9btext.", "  fill\\x1b", "    in", "Answer it?", asked,
        "  'z\\x1b' is none of a\\u202e", asked, "  b\\x9b (yes or no; may be left empty):", "",
    ]  # fmt: skip
    away = Typed("yes", "a\u202e", "no")
    away.is_there = lambda: False  # type: ignore[method-assign]
    assert asyncio.run(AskPerson(away).fill(odd, "fill", fields)) is None and away.sink.getvalue() == ""  # type: ignore[attr-defined]
    nobody = asyncio.run(AskPerson(away)(send, {"text": "x"}))
    assert nobody == Decision(False, "nobody", "send needs approval (external), and there is no terminal to ask at")
    fields = (FormField("n", "integer", "How many?"), FormField("s", "string", required=True))
    assert form_question(send, "fill\nthis\x07", fields).split("\n") == [
        "Send a text.", "  fill", "    this\\x07", "  n: How many? (integer; may be left empty)", "  s: s (string)",
        "Fill it in?",
    ]  # fmt: skip


def test_long_texts_are_shown_by_their_ends_with_what_is_left_out() -> None:
    assert _shortened("abc\nd", 5, 2) == "abc\nd"
    assert _shortened("abcdef", 5, 2) == ("ab [... 2 of 6 characters in 1 lines are not shown ...] ef")
    assert _shortened("\n".join("abcdefg"), 99, 6) == (
        "[13 characters in 7 lines, of which 3 in the middle are not shown]\na\nb\nc\n"
        "[... 3 characters are not shown here ...]\ne\nf\ng"
    )
    asked = question(send, {"a": "x" * 5000, "b": "y" * 10, "c": [1, "é"]}).split("\n")
    assert asked[1] == "  a: [5,000 characters in 1 lines, of which 1,018 in the middle are not shown]", "18 are taken"
    assert asked[2] == "    " + "x" * 1991 and asked[5:7] == ["  b: yyyyyyyyyy", '  c: [1,"é"]']
    crowded = question(send, {f"a{n}": "x" * 401 for n in range(10)})
    assert crowded.count("[401 characters in 1 lines, of which 1 in the middle are not shown]") == 10, "400 at least"
    tall = question(send, {"a": "l\n" * 99, "b": "1\n2"})
    assert "[198 characters in 100 lines, of which 85 in the middle are not shown]" in tall, (
        "58 lines are left to it: 29 of 57 characters, 29 of 56"
    )
    long = "x" * (MAX_SHOWN + 1)
    terminal = Typed("yes", "7", "")
    fields = (FormField("n", "integer", required=True), FormField("s", "string"))
    assert asyncio.run(AskPerson(terminal).fill(send, long, fields)) == {"n": 7}
    assert asyncio.run(AskPerson(Typed(None)).fill(send, "m", fields)) is None, "the input has ended"
    shown = terminal.sink.getvalue()  # type: ignore[attr-defined]
    assert shown.startswith(
        "Send a text.\n  [4,001 characters in 1 lines, of which 1 in the middle are not shown]\n    xxx"
    )
    check_rules({"external": "ask", "find": "deny", "read": "allow"}, [find])
    for name, hint in (("fnd", " did you mean 'find'?"), ("zzz", "")):
        with pytest.raises(ConfigError) as refused:
            check_rules({"read": "ask", name: "ask"}, [find])
        assert str(refused.value) == (
            f"approve names {name!r}, no tool and no effect;{hint} there are read, write, external, irreversible, find"
        )


def test_answers_are_checked_field_by_field_and_defaults_stand_in() -> None:
    fields = (
        FormField("n", "integer", "Number", True, least=2, most=4), FormField("s", "string", default="d"),
        FormField("b", "boolean"), FormField("c", "array", choices=("x", "y"), required=True, default=["x"]),
    )  # fmt: skip
    assert checked_answers(fields, {"n": 2.0, "b": False}) == {"n": 2, "s": "d", "b": False, "c": ["x"]}
    assert checked_answers(fields, {"n": 4, "s": None, "c": ["y"]}) == {"n": 4, "s": "d", "c": ["y"]}
    shares = (*fields, FormField("m", "integer", default=5.0), FormField("x", "number", default=0))
    for answers, text in (
        ({"n": 3.0, "x": 2.0}, '{"n": 3, "s": "d", "c": ["x"], "m": 5, "x": 2.0}'),
        ({"x": 2, "m": -0.0, "b": None, "n": 4, "s": ""}, '{"n": 4, "s": "", "c": ["x"], "m": 0, "x": 2}'),
        ({"c": [], "n": 2, "b": True}, '{"n": 2, "s": "d", "b": true, "c": [], "m": 5, "x": 0}'),
    ):
        assert json.dumps(checked_answers(shares, answers)) == text, (
            "whole numbers for what is whole, in the form's order"
        )
    for answers, said in (
        ({"n": 5}, "the answer to n does not fit: 4 or less was expected"),
        ({"n": 1}, "the answer to n does not fit: 2 or more was expected"),
        ({"n": True}, "the answer to n does not fit: 'True' is no integer"),
        ({"n": 2, "c": ["z"]}, "the answer to c does not fit: 'z' is none of x, y"),
        ({}, "the form needs n (Number (integer)), and no answer gives it"),
        ({"n": 2, "z": 1}, "the form has no field 'z': it has n, s, b, c"),
    ):
        with pytest.raises(ConfigError) as refused:
            checked_answers(fields, answers)
        assert str(refused.value) == said
    with pytest.raises(ConfigError, match="the form has no field 'z': it has none"):
        checked_answers((), {"z": 1})
    assert checked_answers((), {}) == {}
    long = "n" * 90 + "end" * 10
    names = [f"{number:0>99}" for number in range(12)]
    many = [FormField(name, "string") for name in names]
    for asked, answers, said in (
        (many, {long: 1, "z": 2}, f"the form has no field {long[:100]!r}: it has {', '.join(names)[:1000]}"),
        ([FormField(long, "integer")], {long: "x"}, f"the answer to {long[:100]} does not fit: 'x' is no integer"),
        (
            [FormField(long, "string", "t" * 999, required=True)], {long: None},
            f"the form needs {long[:100]} ({'t' * 999} ), and no answer gives it",
        ),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            checked_answers(asked, answers)
        assert str(refused.value) == said


def test_a_schema_gives_its_fields_with_defaults_that_are_nothing_much() -> None:
    schema: Any = {
        "required": [{}, "s", 3, ["b"]], "properties": {
            "s": {"type": "string", "default": "", "minLength": 0, "maxLength": 9, "title": "T", "enum": ["", "a", 1]},
            "b": {"type": "boolean", "default": False, "title": "T", "description": "D", "minimum": 2},
            "i": {"type": "integer", "default": 0, "minimum": 0, "maximum": 5, "title": 4},
            "n": {"type": "number", "default": 9, "maximum": 5, "minimum": "x"},
            "o": {"type": "object"}, "x": 3, "l": {"type": "array", "default": ["v"], "maxItems": 2, "minItems": 1,
            "items": {"anyOf": [{"const": "v"}, {"const": 7}, {"title": "w"}, "z"]}},
        },
    }  # fmt: skip
    fields = form_fields(schema)
    assert fields == (
        FormField("s", "string", "T", True, ("", "a"), "", 0, 9), FormField("b", "boolean", "D", default=False, least=2),
        FormField("i", "integer", default=0, least=0, most=5), FormField("n", "number", most=5),
        FormField("l", "array", choices=("v", "7"), default=["v"], least=1, most=2),
    )  # fmt: skip
    assert checked_answers(fields, {}) == {"s": "", "b": False, "i": 0, "l": ["v"]}
    for default, read in ((3.0, "3"), (3, "3"), (3.5, "None"), (True, "None"), ("3", "3"), ("3.0", "None")):
        assert repr(form_fields({"properties": {"i": {"type": "integer", "default": default}}})[0].default) == read
    again = {"type": "object", "properties": {each.name: each.schema() for each in fields}, "required": ["s"]}
    assert form_schema(fields) == again and again["properties"]["i"] == {  # type: ignore[index]
        "type": "integer", "minimum": 0, "maximum": 5, "default": 0,
    }  # fmt: skip
    assert fields_from_json(json.loads(json.dumps(fields_to_json(fields)))) == fields and form_fields({}) == ()
    many = {"properties": {str(n): {"type": "string"} for n in range(MAX_FIELDS + 2)}}
    assert [each.name for each in form_fields(many)] == [str(n) for n in range(MAX_FIELDS)]


def test_a_reason_holds_within_its_block_and_the_one_around_it_comes_back_however_it_ends() -> None:
    def why() -> str:
        (line,) = [line for line in question(find, {}).split("\n")[1:] if not line.startswith("Run ")] or [""]
        return line.removeprefix("  why you are asked: ")

    assert why() == ""
    with explained("outer"):
        with explained("inner"):
            assert why() == "inner"
        assert why() == "outer"
        with pytest.raises(ZeroDivisionError), explained("broken"):
            assert why() == "broken"
            raise ZeroDivisionError
        assert why() == "outer"
        with explained(""):
            assert why() == ""
        assert why() == "outer"

        async def cancelled() -> None:
            with explained("late"):
                await asyncio.sleep(0)
                raise asyncio.CancelledError

        async def main() -> None:
            with pytest.raises(asyncio.CancelledError):
                await cancelled()
            assert why() == "outer"

        asyncio.run(main())
    assert why() == ""
    with pytest.raises(KeyError), explained("last"):
        raise KeyError
    assert why() == ""
    ask = AskPerson(Typed("no"))
    ask.always = {"send"}
    with pytest.raises(ZeroDivisionError), explained("broken"):
        raise ZeroDivisionError
    assert asyncio.run(ask(send, {})) == Decision(True, "terminal", "always"), "no reason is left"


def test_each_rule_has_a_verdict_and_names_a_tool_or_an_effect_to_the_letter() -> None:
    good: dict[str, Any] = {"send": "allow", "read": "ask", "write": "deny"}
    assert Approval(good).rules == good and Approval({}).rules == {}
    for verdict, hint in (("alow", " did you mean 'allow'?"), ("Deny", " did you mean 'deny'?"), ("", ""), (None, "")):
        for before in (0, 1, 3):
            rules: Any = dict(list(good.items())[:before]) | {"find": verdict, "last": "ask"}
            with pytest.raises(ConfigError) as refused:
                Approval(rules)
            assert str(refused.value) == (
                f"the approval of 'find' is {verdict!r};{hint} allow, ask or deny was expected"
            )
    check_rules({}, [])
    check_rules({"read": "ask", "write": "ask", "external": "ask", "irreversible": "ask"}, [])
    check_rules(good | {"find": "ask"}, (each for each in (send, find)))
    for name, hint in (
        ("Send", " did you mean 'send'?"), ("FIND", ""), ("Read", " did you mean 'read'?"),
        (" send", " did you mean 'send'?"), ("", ""), ("sen", " did you mean 'send'?"), ("qqq", ""),
    ):  # fmt: skip
        for before in (0, 1, 3):
            with pytest.raises(ConfigError) as refused:
                check_rules(dict(list(good.items())[:before]) | {name: "ask"}, (each for each in (send, find)))
            known = "read, write, external, irreversible, send, find"
            assert str(refused.value) == f"approve names {name!r}, no tool and no effect;{hint} there are {known}"
    with pytest.raises(
        ConfigError, match=r"'send', no tool and no effect; there are read, write, external, irreversible$"
    ):
        check_rules({"send": "ask"}, [])


def test_what_is_left_out_of_a_line_is_counted_as_it_is_shown() -> None:
    for text, shown in (
        ("a" + " " * 500 + "x" * 998, "a " + "x" * 998), ("x" * 1000, "x" * 1000), (" \n\t" * 400, ""), ("", ""),
        ("a" + " \n" * 500 + "x" * 999, f"a {'x' * 498} [... 1 characters ...] {'x' * 500}"),
        ("\x07" + "x" * 997, f"\\x07{'x' * 496} [... 1 characters ...] {'x' * 500}"),
        (" " * 9 + "x" * 600 + "  " + "y" * 2400 + " ", f"{'x' * 500} [... 2,001 characters ...] {'y' * 500}"),
    ):  # fmt: skip
        assert _on_a_line(text) == shown
