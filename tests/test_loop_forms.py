"""Forms and questions to the letter: fields, their bounds and defaults, and what a person at the terminal is shown."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.loop.approval import (
    MAX_LINE,
    Approval,
    AskPerson,
    Decision,
    _on_a_line,
    _share,
    _without_gaps,
    approval_key,
    explained,
    form_question,
    kind_of,
    parse_rules,
    question,
)
from firsthand.loop.form import (
    MAX_ANSWER,
    MAX_TITLE,
    FormField,
    checked_answers,
    fields_from_json,
    fields_to_json,
    form_fields,
    form_schema,
)
from firsthand.tool import tool
from typed_terminal import Typed


@tool(effect="irreversible")
def send(text: str, to: list[str]) -> str:
    """Send a text."""
    return "sent"


def wrong(function: Any, *args: Any) -> str:
    with pytest.raises(ValueError) as refused:
        function(*args)
    return str(refused.value)


def test_a_field_is_shown_with_its_kind_its_choices_and_what_an_empty_answer_means() -> None:
    for field, shown in (
        (FormField("a", "string"), "a (string; may be left empty)"),
        (FormField("a", "integer", required=True), "a (integer)"),
        (FormField("a", "boolean", "Meal", True, default=False), "Meal (yes or no; empty for False)"),
        (FormField("a", "number", default=0), "a (number; empty for 0; may be left empty)"),
        (FormField("a", "array", choices=("x", "y")), "a (several, with commas between: x, y; may be left empty)"),
        (FormField("a", "string", required=True, choices=("x",), default="x"), "a (string: x; empty for 'x')"),
    ):
        assert field.shown() == shown


def test_a_typed_text_is_read_by_the_kind_of_its_field() -> None:
    text, flag, several = (FormField("f", kind) for kind in ("string", "boolean", "array"))
    assert text.parse("  a b ") == "a b" and text.parse(" ") is None
    assert wrong(FormField("f", "string", required=True).parse, " ") == "it must be given"
    for default in (0, False, "", 2.5):
        assert FormField("f", "number", required=True, default=default).parse("") == default
    assert [flag.parse(each) for each in ("YES", "y", "True", "No", "n", "FALSE")] == [True] * 3 + [False] * 3
    assert wrong(flag.parse, "maybe") == "'maybe' is neither yes nor no"
    assert several.parse(" a, b,,c ,") == ["a", "b", "c"]
    whole, number = FormField("f", "integer"), FormField("f", "number")
    assert (whole.parse("-5"), number.parse("1.5"), type(number.parse("2"))) == (-5, 1.5, int)
    assert wrong(whole.parse, "5.0") == "'5.0' is no integer: write it in digits, such as 1000"
    assert wrong(number.parse, "inf") == "'inf' is no number: write it in digits, such as 1.5"
    assert wrong(whole.parse, "1" + "0" * 399) == "it is no number that can be kept"
    choices = FormField("f", "array", choices=("x", "y"))
    assert choices.parse("y,x") == ["y", "x"] and wrong(choices.parse, "x,z") == "'z' is none of x, y"
    assert wrong(FormField("f", "string", choices=("x",)).parse, "X") == "'X' is none of x"


def test_bounds_are_of_a_number_of_characters_or_of_choices() -> None:
    for kind, values in (
        ("integer", [1, 2, 4, 5]),
        ("number", [1.9, 2.0, 4.0, 4.1]),
        ("string", ["a", "ab", "abcd", "abcde"]),
        ("array", [["abcde"], ["a", "b"], ["a"] * 4, ["a"] * 5]),
    ):
        field = FormField("f", kind, least=2, most=4)
        assert [field.check(values[1]), field.check(values[2])] == values[1:3]
        assert wrong(field.check, values[0]) == "2 or more was expected"
        assert wrong(field.check, values[3]) == "4 or less was expected"
    zero = FormField("f", "number", least=0, most=0)
    assert zero.check(0) == 0 and wrong(zero.check, -0.5) == "0 or more was expected"
    assert wrong(zero.check, 0.5) == "0 or less was expected"


def test_an_answer_in_json_has_the_type_of_its_field() -> None:
    whole = FormField("f", "integer")
    assert whole.check(3.0) == 3 and type(whole.check(3.0)) is int and FormField("f", "number").check(3) == 3
    assert FormField("f", "boolean").check(False) is False
    for kind, value, said in (
        ("integer", 3.5, "'3.5' is no integer"),
        ("integer", True, "'True' is no integer"),
        ("number", True, "'True' is no number"),
        ("number", "1x", "'1x' is no number"),
        ("boolean", 1, "'1' is no boolean"),
        ("string", ["a"], "\"['a']\" is no string"),
        ("string", None, "'None' is no string"),
        ("array", "a", "'a' is no array"),
        ("integer", "x" * 101, f"{'x' * 100!r} is no integer"),
        ("array", [1] * 99, f"[{'1, ' * 33} is no list of texts"),
        ("array", ["a", 1], "['a', 1] is no list of texts"),
        ("number", math.nan, "nan is no number that can be kept"),
        ("string", "x" * 4001, "it has more than 4,000 characters"),
        ("array", ["x" * 4000, "y"], "it has more than 4,000 characters"),
    ):
        assert wrong(FormField("f", kind).check, value) == said
    assert len(FormField("f", "string").check("x" * 4000)) == 4000


def test_fields_are_written_as_schemas_and_read_again() -> None:
    fields = (
        FormField("n", "integer", "How many", True, (), 0, 0, 5),
        FormField("s", "string", "", False, ("x", "y"), None, 1, 9),
        FormField("a", "array", "", True, ("p",), ["p"], 1, 2),
        FormField("l", "array"),
        FormField("b", "boolean", default=False),
    )
    schema = {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "description": "How many", "minimum": 0, "maximum": 5, "default": 0},
            "s": {"type": "string", "enum": ["x", "y"], "minLength": 1, "maxLength": 9},
            "a": {
                "type": "array",
                "items": {"type": "string", "enum": ["p"]},
                "minItems": 1,
                "maxItems": 2,
                "default": ["p"],
            },
            "l": {"type": "array", "items": {"type": "string"}},
            "b": {"type": "boolean", "default": False},
        },
        "required": ["n", "a"],
    }
    assert form_schema(fields) == schema and form_fields(schema) == fields
    for kind in ("string", "array"):
        (told,) = (FormField("t", kind, choices=("x", "y"), titles=("X", "")).schema(),)
        titled = [{"const": "x", "title": "X"}, {"const": "y"}]
        assert (told["items"]["anyOf"] if kind == "array" else told["oneOf"]) == titled
    assert form_schema(fields[3:4]) == {"type": "object", "properties": {"l": fields[3].schema()}}
    assert fields_from_json(fields_to_json(fields)) == fields


def test_what_is_no_field_of_a_schema_is_left_out() -> None:
    one = {"oneOf": [{"const": "x", "title": "X"}, {"title": "no"}, 5, {"const": 7}]}
    assert form_fields({"properties": {"f": {"type": "string", **one}}})[0].choices == ("x", "7")
    many = {"type": "array", "items": {"anyOf": [{"const": "y"}]}}
    assert form_fields({"properties": {"f": many}})[0].choices == ("y",)
    read = form_fields(
        {
            "properties": {
                "a": {"type": "string", "title": "T", "enum": ["x", 5], "default": "z"},
                "b": {"type": "object"},
                "c": 5,
                "d": {"type": "integer", "description": 5, "title": "T", "minimum": "1", "maximum": math.inf},
                "e": {"type": "number", "description": "D", "title": "T", "minimum": 10**400, "maxLength": 3},
                "f": {"type": "array", "items": 5, "minimum": 1, "default": "x"},
                "g": {"type": "string", "default": "", "maxLength": 0},
            },
            "required": ["b", "d", 5, "x"],
        }
    )
    assert read == (
        FormField("a", "string", "T", False, ("x",)),
        FormField("d", "integer", "", True),
        FormField("e", "number", "D"),
        FormField("f", "array"),
        FormField("g", "string", default="", most=0),
    )
    for schema in ({}, {"properties": []}, {"properties": None, "required": "a"}):
        assert form_fields(schema) == ()
    assert not form_fields({"properties": {"a": {"type": "string"}}, "required": "a"})[0].required
    crowd = {f"f{at}": {"type": "string" if at != 3 else "null"} for at in range(30)}
    assert [each.name for each in form_fields({"properties": crowd})] == [f"f{at}" for at in range(25) if at != 3]


def test_a_field_with_a_default_may_be_left_out_and_a_needed_one_without_may_not() -> None:
    fields = (
        FormField("n", "integer", "Bags", True, default=0),
        FormField("b", "boolean", default=False),
        FormField("s", "string", required=True),
        FormField("o", "number"),
    )
    assert checked_answers(fields, {"s": "x"}) == {"n": 0, "b": False, "s": "x"}
    assert checked_answers(fields, {"s": "x", "n": None, "b": True, "o": 0}) == {"n": 0, "b": True, "s": "x", "o": 0}
    for answers, said in (
        ({"n": 1}, "the form needs s (s (string)), and no answer gives it"),
        ({"s": None}, "the form needs s (s (string)), and no answer gives it"),
        ({"s": "x", "z": 1, "y": 1}, "the form has no field 'z': it has n, b, s, o"),
        ({"s": "x", "n": "1.0"}, "the answer to n does not fit: '1.0' is no integer"),
    ):
        with pytest.raises(ConfigError) as refused:
            checked_answers(fields, answers)
        assert str(refused.value) == said
    with pytest.raises(ConfigError, match=r"^the form has no field 'z': it has none$"):
        checked_answers((), {"z": 1})


def test_a_question_tells_tool_effect_arguments_and_reason() -> None:
    arguments = {"text": "a\nb\u200b", "to": ["é"]}
    plain = 'send (irreversible): Send a text.\n  text: a\n    b\\u200b\n  to: ["é"]\n'
    assert question(send, arguments) == f"{plain}Run send (irreversible)?"
    with explained("it is\nodd"):
        assert question(send, arguments) == f"{plain}  why you are asked: it is\n    odd\nRun send (irreversible)?"
    assert question(send, {}) == "send (irreversible): Send a text.\nRun send (irreversible)?"
    fields = (FormField("n", "integer"), FormField("b", "boolean", "B\x07"))
    assert form_question(send, "m\nn", fields) == (
        "Send a text.\n  m\n    n\n  n: n (integer; may be left empty)\n  b: B\\x07 (yes or no; may be left empty)\n"
        "Fill it in?"
    )
    assert approval_key("0:1", send, {"b": 1, "a": 2}) == approval_key("0:1", send, {"a": 2, "b": 1})
    assert approval_key("0:1", send, {})[0] == "0:1 approval" and approval_key("0:1", send, {}) != approval_key(
        "0:1", send, {"a": 1}
    )


def test_room_is_shared_and_a_line_is_cut_in_its_middle() -> None:
    for sizes, room, most in (
        ([], 9, 0),
        ([5, 5], 10, 5),
        ([20, 1, 20], 21, 10),
        ([7], 7, 7),
        ([8], 7, 7),
        ([9, 1, 3], 11, 7),
    ):
        assert _share(sizes, room) == most
    assert MAX_LINE == 1000 and _on_a_line("a \n\tb\x07 ") == "a b\\x07" and _on_a_line("x" * 1000) == "x" * 1000
    assert _on_a_line("x" * 500 + "-" + "y" * 500) == f"{'x' * 500} [... 1 characters ...] {'y' * 500}"
    gaps = {39: " " * 39, 40: " [40 spaces] "}
    assert {size: _without_gaps(f"a{' ' * size}b")[1:-1] for size in gaps} == gaps
    tabs = {4: "\t" * 4, 5: " [5 spaces] "}
    assert {size: _without_gaps("a" + "\t" * size + "b")[1:-1] for size in tabs} == tabs
    blank = {4: "\n" * 4, 5: "\n[4 blank lines]\n", 7: "\n[6 blank lines]\n"}
    assert {size: _without_gaps("a" + "\n" * size + "b")[1:-1] for size in blank} == blank


class Offered(Typed):
    """A terminal that keeps what it offered."""

    offers: list[tuple[str, ...]]
    here = True

    def is_there(self) -> bool:
        return self.here

    async def choose(self, question: str, answers: Sequence[str]) -> str:
        self.offers = [*getattr(self, "offers", []), tuple(answers)]
        return await super().choose(question, answers)


def test_a_person_decides_on_one_call_or_always_unless_it_has_a_reason_of_its_own() -> None:
    terminal = Offered("yes", "no", "always", "no", "")
    ask = AskPerson(terminal)

    def decided(about: str = "") -> Decision:
        with explained(about):
            return asyncio.run(ask(send, {"text": "x"}))

    no = Decision(False, "terminal", "the person asked did not approve this call of send")
    yes = Decision(True, "terminal")
    assert [decided() for _ in range(4)] == [yes, no, yes, Decision(True, "terminal", "always")] and ask.always == {
        kind_of(send)
    }
    assert decided("why") == no and terminal.offers == [("yes", "no", "always")] * 3 + [("yes", "no")]
    assert decided() == Decision(True, "terminal", "always")
    terminal.here = False
    assert decided("why") == Decision(
        False, "nobody", "send needs approval (irreversible), and there is no terminal to ask at"
    )
    ask.always.clear()
    assert decided().by == "nobody" and asyncio.run(decline(ask)) is None


async def decline(ask: AskPerson) -> Any:
    return await ask.fill(send, "m", ())


def test_a_form_is_filled_in_line_by_line_with_three_tries_each() -> None:
    fields = (
        FormField("n", "integer", "Bags\n(all)", True),
        FormField("o", "string"),
        FormField("b", "boolean", default=False),
    )

    def filled(*lines: Any) -> tuple[Any, str]:
        terminal = Typed(*lines)
        found = asyncio.run(AskPerson(terminal).fill(send, "one\ntwo", fields))
        return found, terminal.sink.getvalue()  # type: ignore[attr-defined]

    begin = "Send a text.\n  one\n    two\nAnswer it?\n"
    bags = "  Bags (all) (integer):\n"
    rest = "  o (string; may be left empty):\n  b (yes or no; empty for False; may be left empty):\n"
    assert filled("yes", "2", "", "") == ({"n": 2, "b": False}, begin + bags + rest)
    assert filled("yes", "", "x", "3", "o", "yes")[0] == {"n": 3, "o": "o", "b": True}
    tries = f"{bags}  it must be given\n{bags}  'x' is no integer: write it in digits, such as 1000\n{bags}"
    assert filled("yes", "", "x", "3", "o", "yes")[1] == begin + tries + rest
    assert filled("yes", "", "", "") == (None, begin + f"{bags}  it must be given\n" * 3)
    assert filled("no") == (None, begin) and filled("yes", None) == (None, begin + bags)


def test_a_form_without_a_person_takes_its_defaults_with_leave() -> None:
    asked: list[Any] = []

    def ask(allowed: bool) -> Any:
        async def decide(tool: Any, arguments: Any) -> Decision:
            asked.append(arguments)
            return Decision(allowed, "me")

        return decide

    def filled(allowed: bool, *fields: FormField, **rules: Any) -> Any:
        return asyncio.run(Approval(rules, ask=ask(allowed)).fill(send, "m", fields))

    one, other = FormField("n", "integer", required=True, default=0), FormField("s", "string")
    assert filled(True, one, other) == {"n": 0} and asked == [{"message": "m", "answers": {"n": 0}}]
    assert filled(False, one) is None and len(asked) == 2
    assert filled(True, one, FormField("r", "string", required=True)) is None and len(asked) == 2
    assert filled(True, one, send="deny") is None and len(asked) == 2
    assert filled(True, one, irreversible="allow") == {"n": 0}
    for verdict, hint in (("alow", " did you mean 'allow'?"), ("xyz", "")):
        rules: Any = {"send": verdict}
        with pytest.raises(ConfigError) as refused:
            Approval(rules)
        assert str(refused.value) == f"the approval of 'send' is {verdict!r};{hint} allow, ask or deny was expected"
    assert Approval({"a": "ask"}) == Approval({"a": "ask"}, ask=ask(True)) and isinstance(Approval().ask, AskPerson)


def test_a_call_is_decided_by_its_rule_and_rules_are_read_from_words() -> None:
    asked: list[Any] = []

    async def ask(tool: Any, arguments: Any) -> Decision:
        asked.append((tool.name, arguments))
        return Decision(True, "me", "fine")

    def decided(**rules: Any) -> Decision:
        return asyncio.run(Approval(rules, ask=ask).decide(send, {"text": "x"}))

    assert decided(send="allow") == Decision(True, "rule") and decided(irreversible="allow") == Decision(True, "rule")
    assert decided(send="deny") == Decision(False, "rule", "send is not allowed here") and asked == []
    assert decided() == Decision(True, "me", "fine") == decided(send="ask", irreversible="deny")
    assert asked == [("send", {"text": "x"})] * 2
    assert parse_rules([" external = ask ", " deny ", "shell=allow"]) == {
        "external": "ask", "irreversible": "deny", "shell": "allow",
    }  # fmt: skip
    for words, wrong_ in ((["a=ask", "a=deny"], "a=deny"), (["=ask"], "=ask"), (["ask", "deny"], "deny")):
        with pytest.raises(ConfigError) as refused:
            parse_rules(words)
        said = f"approve has {wrong_!r}: give each tool or effect once, as in external=ask,shell=deny"
        assert str(refused.value) == said


def test_a_typed_text_beyond_its_most_characters_is_refused_after_its_blanks_are_gone() -> None:
    text = FormField("a", "string", default="d", most=MAX_ANSWER)
    assert text.parse("  " + "x" * MAX_ANSWER + " ") == "x" * MAX_ANSWER == text.check("x" * MAX_ANSWER)
    assert wrong(text.parse, "x" * (MAX_ANSWER + 1)) == f"it has more than {MAX_ANSWER:,} characters"
    assert text.parse(" " * (MAX_ANSWER + 1)) == "d" and text.parse(" " * MAX_ANSWER + "é ") == "é"
    assert wrong(text.check, "x" * (MAX_ANSWER + 1)) == f"it has more than {MAX_ANSWER:,} characters"
    several = FormField("a", "array", least=0, most=0)
    assert several.parse(" , ,") == [] and wrong(several.parse, "x, y") == "0 or less was expected"


def test_choices_are_of_texts_and_a_number_that_has_some_can_be_given_all_the_same() -> None:
    options = [{"const": 1, "title": "one"}, {"const": 2}]
    fields = form_fields({
        "properties": {
            "n": {"type": "integer", "oneOf": options, "default": 2}, "x": {"type": "number", "anyOf": options},
            "b": {"type": "boolean", "oneOf": [{"const": True}]}, "s": {"type": "string", "oneOf": options},
            "l": {"type": "array", "enum": ["no"], "items": {"enum": ["u", 3, "v"]}},
        }
    })  # fmt: skip
    assert fields == (
        FormField("n", "integer", default=2), FormField("x", "number"), FormField("b", "boolean"),
        FormField("s", "string", choices=("1", "2"), titles=("one", "")), FormField("l", "array", choices=("u", "v")),
    )  # fmt: skip
    assert checked_answers(fields, {"n": 1, "x": 2.0, "s": "2", "l": ["v"]}) == {"n": 1, "x": 2.0, "s": "2", "l": ["v"]}
    assert [fields[0].parse("1"), fields[0].parse(""), fields[1].parse("1")] == [1, 2, 1.0]
    assert (
        wrong(fields[3].parse, "3") == "'3' is none of 1, 2"
        and wrong(fields[4].check, ["u", "3"]) == "'3' is none of u, v"
    )


def test_a_choice_is_shown_with_its_title_and_keeps_it_on_the_way() -> None:
    deeds = [{"const": "a1", "title": "Delete \n everything" + "!" * 300}, {"const": "b2", "title": "b2"}]
    schema = {
        "properties": {
            "deed": {"type": "string", "oneOf": deeds},
            "many": {"type": "array", "items": {"anyOf": deeds}},
            "named": {"type": "string", "enum": ["x", "a,b"], "enumNames": ["First", "Second"]},
            "short": {"type": "string", "enum": ["x", "y"], "enumNames": ["First"]},
            "plain": {"type": "string", "enum": ["x", "y"]},
        }
    }
    fields = form_fields(schema)
    title = "Delete everything" + "!" * (MAX_TITLE - len("Delete \n everything"))
    assert [each.titles for each in fields] == [(title, ""), (title, ""), ("First", "Second"), (), ()]
    assert fields[0].shown() == f"deed (string: a1 ({title}), b2; may be left empty)"
    typed = 'named (the number of one: 1 "x" (First), 2 "a,b" (Second); may be left empty)'
    assert fields[2].shown(typed=True) == typed and fields[0].parse("b2") == "b2"
    assert form_fields(form_schema(fields)) == fields, "another program can show them"
    assert fields_from_json(fields_to_json(fields)) == fields
    old = [{key: value for key, value in each.items() if key != "titles"} for each in fields_to_json(fields[4:])]
    assert fields_from_json(old) == fields[4:], "as they were stored before"


def test_a_field_that_may_be_null_is_a_field() -> None:
    either = {"anyOf": [{"type": "integer", "minimum": 2}, {"type": "null"}], "default": None, "title": "Bags"}
    fields = form_fields({
        "properties": {
            "bags": either, "seat": {"type": ["string", "null"]}, "text": {"type": ["string", "integer"]},
            "two": {"anyOf": [{"type": "string"}, {"type": "integer"}]}, "none": {"anyOf": [{"type": "null"}]},
        }
    })  # fmt: skip
    assert fields == (FormField("bags", "integer", "Bags", least=2), FormField("seat", "string"))
    assert wrong(fields[0].check, 1) == "2 or more was expected" and checked_answers(fields, {}) == {}


def test_a_field_that_is_null_or_one_constant_has_that_choice_and_its_own_title() -> None:
    null = {"type": "null"}
    for schema in (
        {"anyOf": [{"const": "a", "type": "string"}, null]},
        {"oneOf": [null, {"enum": ["a"], "type": "string", "title": "inner"}]},
        {"type": "string", "const": "a"}, {"type": ["string", "null"], "enum": ["a", None]},
        {"type": ["string", "null"], "oneOf": [{"const": "a"}, {"const": None, "title": "none"}]},
    ):  # fmt: skip
        assert form_fields({"properties": {"f": {"title": "F", **schema}}}) == (
            FormField("f", "string", "F", choices=("a",)),
        )
    assert form_fields({"properties": {"f": {"anyOf": [{"type": "integer"}, {"type": "string"}, null]}}}) == ()
