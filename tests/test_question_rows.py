"""No argument, text or choice of a question to a person passes for another one, or for a row of the question's own."""

from __future__ import annotations

from typing import Any

import pytest

from firsthand.loop.approval import explained, form_question, question
from firsthand.loop.form import FormField, fields_from_json, fields_to_json
from firsthand.model import ToolSpec
from firsthand.tool import Tool

PAY = Tool(
    ToolSpec("pay", "Pays.", {"type": "object"}), "irreversible", lambda **_: None, dict, over="https://h.example"
)


@pytest.mark.parametrize(
    "name",
    ["over", "Over", "OVER", " over", "over ", "o ver", "over: https://bank.example (verified)", "\u043ever", "0ver",
     "over_", "why you are asked", "why  you are\tasked", "why_you_are_asked", "Why-You-Are-Asked", "", "a b", 'x": 1'],
)  # fmt: skip
def test_no_argument_passes_for_a_row_of_the_questions_own(name: str) -> None:
    with explained("it spends money"):
        rows = question(PAY, {name: "safe"}).split("\n")
    assert [each for each in rows if each.startswith("  over:")] == ["  over: https://h.example"]
    assert [each for each in rows if each.startswith("  why you are asked:")] == [
        "  why you are asked: it spends money"
    ]
    (row,) = [each for each in rows if "safe" in each]
    assert row.startswith('  "') and row.endswith('": safe')
    assert '  "' in form_question(PAY, "Fill in", [FormField(name, "string")])


def test_plain_names_are_shown_as_they_are() -> None:
    for name in ("path", "user_id", "_x", "max-results", "a.b", "v2", "overwrite", "moreover", "camelCase"):
        assert f"\n  {name}: safe\n" in question(PAY, {name: "safe"})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (-1.5, "-1.5"),
        (1e22, "1e+22"),
        (True, "true"),
        (None, "null"),
        ({"a": 1}, '{"a":1}'),
        ([1], "[1]"),
        (1, " 1\n"),
    ],
)
def test_a_text_is_told_from_the_value_that_is_drawn_like_it(value: Any, text: str) -> None:
    assert "  n (text): " in question(PAY, {"n": text}) and "  n: " in question(PAY, {"n": value})
    assert '"n (text)": ' in question(PAY, {"n (text)": value}), "a name cannot say so itself"


def test_ordinary_texts_are_not_marked() -> None:
    for text in ("hello", "2 eggs", "2026-11-30", "1, 2", "truest", "None", "", "-", "a [1]", "1.2.3"):
        assert "(text)" not in question(PAY, {"n": text}), text


def test_choices_that_hold_a_comma_or_blanks_are_typed_as_their_numbers() -> None:
    choices = ("delete all, keep none", "delete all", "keep none")
    field = FormField("f", "array", choices=choices)
    listed = '1 "delete all, keep none", 2 "delete all", 3 "keep none"'
    assert field.shown(typed=True) == f"f (the numbers of several, with commas between: {listed}; may be left empty)"
    assert field.shown() == (
        'f (several, with commas between: "delete all, keep none", "delete all", "keep none"; may be left empty)'
    )
    assert field.parse("1") == [choices[0]] and field.parse(" 3, 1,") == [choices[2], choices[0]]
    for typed in ("delete all, keep none", "delete all", "0", "4", "1.0", "-1", "\u0661", "1 2"):
        with pytest.raises(ValueError, match="is no number of a choice: one from 1 to 3 was expected"):
            field.parse(typed)
    assert field.check(list(choices)) == list(choices), "an answer in JSON names them"
    assert fields_from_json(fields_to_json([field])) == (field,)
    one = FormField("f", "string", required=True, choices=("2", "a, b"))
    assert one.shown(typed=True) == 'f (the number of one: 1 "2", 2 "a, b")' and one.parse("2") == "a, b"
    for typed in ("1, 2", ","):
        with pytest.raises(ValueError, match="the number of one choice was expected"):
            one.parse(typed)
    for odd in (" a", "a ", "a\nb", "a  b", ""):
        assert FormField("f", "array", choices=("a", odd)).parse("2") == [odd]


def test_choices_that_differ_in_blanks_are_told_apart_however_a_door_folds_them() -> None:
    field = FormField("f", "string", choices=("keep  all", "keep all", "keep\u00a0all", "keep   all"))
    shown = [" ".join(each.split()) for each in field.shown(typed=True).split(", ")]
    assert len(shown) == len({each.partition(" ")[2] for each in shown}) == 4


def test_ordinary_choices_are_typed_as_they_are() -> None:
    field = FormField("f", "array", choices=("red", "dark blue", "7"))
    assert (
        field.shown(typed=True)
        == field.shown()
        == "f (several, with commas between: red, dark blue, 7; may be left empty)"
    )
    assert field.parse("dark blue, 7") == ["dark blue", "7"] and field.parse("red") == ["red"]
