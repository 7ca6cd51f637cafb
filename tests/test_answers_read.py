"""Answers, numbers, choices, lists, actions and code read from a model's text, at their edges and in their order."""

from fractions import Fraction

import pytest

from firsthand.patterns.code_act import parse_code
from firsthand.patterns.parts.actions import _unwrapped, arguments_of, parse_action, usage
from firsthand.patterns.parts.answers import (
    TAIL_CHARS,
    _fit,
    _fraction,
    extract_answer,
    last_number,
    normal_form,
    parse_number,
    wants_number,
)  # fmt: skip
from firsthand.patterns.parts.boxes import last_boxed
from firsthand.patterns.parts.fenced_code import CodeBlock, fenced_code, first_action
from firsthand.patterns.parts.list_items import listed
from firsthand.tool import tool
from opened_context import asks

NUMBER, FREE = asks(hint="an integer"), asks(hint="a word")
PICK = asks(choices=("red", "dark blue", "green"))


def test_an_answer_is_looked_for_in_the_documented_order():
    for text, task, answer in (
        ("\\boxed{1} #### 2\nThe answer is 3. 4", NUMBER, "2"), ("\\boxed{1} The answer is 3. 4", NUMBER, "1"),
        ("The answer is 3. Or 4", NUMBER, "3"), ("so 3 or 4", NUMBER, "4"), ("none", NUMBER, None),
        ("#### none\n\\boxed{x} and the answer is five, no: 7", NUMBER, "7"), ("#### 1\n#### 2", NUMBER, "2"),
        ("answer: 1\nanswer = 2\n", NUMBER, "2"), ("Final Answer: **8**", NUMBER, "8"), ("answer is:9", NUMBER, "9"),
        ("#### red.", FREE, "red"), ("\\boxed{a b}", FREE, "a b"), ("The answer is *red*.", FREE, "red"),
        ("red", FREE, None),
        ("####  \n\\boxed{ } the answer is x", FREE, "x"), ("the answers is x", FREE, None), ("answer is", FREE, None),
        ("The answer is (b).", PICK, "B"), ("The answer is dark  BLUE", PICK, "B"), ("answer: d", PICK, None),
        ("C or A.", PICK, None),
        ("#### A b", PICK, None), ("#### A.", PICK, "A"),
        ("\\boxed{green}", PICK, "C"), ("green", PICK, "C"), ("green or red", PICK, None),
    ):  # fmt: skip
        assert extract_answer(text, task) == answer, text
    for stated, answer in (
        ("(a)", "A"), ("a red one", None), ("ab", None), ("D", None), ("D, red", None), ("b)", "B"), ("'A'", "A"),
        ("b b", None),
    ):  # fmt: skip
        assert (stated, extract_answer(f"#### {stated}", PICK)) == (stated, answer)
    assert extract_answer(" 5 \n", asks(verbatim=True, hint="a number")) == " 5 \n"
    far = "#### red\n" + "so" * (TAIL_CHARS // 2 - 5) + "."
    assert len(far) == TAIL_CHARS and extract_answer(far, FREE) == "red" and extract_answer(far + ".", FREE) is None
    assert [wants_number(each) for each in (NUMBER, FREE, asks(), asks(hint="the number of them"),
        asks(hint="numbers"))] == [
        True, False, False, True, False,
    ]  # fmt: skip


def test_a_stated_answer_is_put_in_the_form_of_the_task():
    for stated, task, answer in (
        ("x = 2 = 12 cm", NUMBER, "12"), ("12 = twelve", NUMBER, "12"), ("$1,234.50", NUMBER, "1234.50"),
        ("\\frac{3}{4}", NUMBER, "3/4"),
        ("-½", NUMBER, "-1/2"), ("−5", NUMBER, "-5"), ("none", NUMBER, None), ("7.", NUMBER, "7"),
        ("**two words.**", FREE, "two words"), ("$x$", FREE, "x"), ("*.*", FREE, None),
        ("`a`", FREE, "a"),
    ):  # fmt: skip
        assert _fit(stated, task) == answer, stated


def test_a_letter_alone_or_the_one_choice_that_is_said():
    for text, letter in (
        ("B", "B"), ("(C) since B", None), ("A dog", None), ("A.", "A"), ("A, then", None), ("A\nx", "A"), ("(A)", "A"),
        ("A*", "A"), ("A dog. B", "B"), ("vitamin C's", None), ("B2", None), ("xB", None), ("it is dark blue.", "B"),
        ("red and dark blue", None), ("red, so C", "C"), ("D", None), ("DARK\nBLUE", "B"), ("b", "B"), ("", None),
    ):  # fmt: skip
        assert (text, extract_answer(text, PICK)) == (text, letter)
    nine = asks(choices=tuple("abcdefghi"))
    assert extract_answer("I think", nine) is None and extract_answer("it is I.", nine) == "I"
    assert extract_answer("X", asks(choices=(" ", "X."))) == "B", "a blank choice is never quoted"


def test_a_text_is_one_number_or_none():
    for text, number in (
        ("1,234.50", "2469/2"), ("12,34", None), ("1,23,456", "123456"), ("$5", "5"), ("15%", "15"), ("3/4", "3/4"),
        ("-1 1/2", "-3/2"),
        ("1 1/2", "3/2"), ("−1 1/2", "-3/2"), ("1 1/0", None), ("\\frac12", "1/2"), ("\\dfrac{-3}{6}", "-1/2"),
        ("½", "1/2"), ("1½", "3/2"),
        ("1.5 × 10^3", "1500"), ("2*10**-2", "1/50"), ("3 \\times 10^{2}", "300"), ("18 cm^2", "18"),
        ("18 m²", "18"), ("1 2", None),
        ("5!", None), ("5 != 6", None), ("- 5", "-5"), ("$- 5", "-5"), ("–5", "-5"), (".5", "1/2"), ("1e3", "1000"),
        ("1e-2", "1/100"),
        ("5/0", None), ("about 7 of them", "7"), ("none", None), ("", None), (" 8 ", "8"), ("1⁄4", "1/4"),
        ("-2.50", "-5/2"),
    ):  # fmt: skip
        found = parse_number(text)
        assert (None if found is None else str(found)) == number, text
    assert parse_number("9" * 320) == Fraction("9" * 320) and parse_number("9" * 321) is None
    assert parse_number("7" + "x" * 999) == 7 and parse_number("7" + "x" * 1000) is None
    assert [_fraction(text) for text in ("1e320", "1e321", "1e-321", "3/4", "x", "1/")] == [
        Fraction(10) ** 320,
        None,
        None,
        Fraction(3, 4),
        None,
        None,
    ]
    assert [normal_form(each) for each in ("$1,200.0", "2 km", "k 2", " .A  b. ", "0.50", "x" * 400)] == [
        "1200", "2 km", "k 2", "A b", "1/2", "x" * 400,
    ]  # fmt: skip


def test_a_mixed_number_has_the_sign_that_is_written_though_its_whole_part_is_nought():
    for text, number in (
        ("-0 1/2", "-1/2"), ("0 1/2", "1/2"), ("-1 1/2", "-3/2"), ("1 1/2", "3/2"), ("−0 3/4", "-3/4"), ("–2 1/4", "-9/4"),
        ("- 0 1/2", "-1/2"), ("-00 1/2", "-1/2"), ("0 0/5", "0"), ("-0 1/0", None), ("1 1/0", None), (" -3\t1/3 ", "-10/3"),
        ("-½", "-1/2"), ("-0½", "-1/2"), ("-1½", "-3/2"), ("1 1/2 1/2", None),
        ("9" * 20 + " 1/2", f"{2 * (10**20 - 1) + 1}/2"),
    ):  # fmt: skip
        found = parse_number(text)
        assert (text, None if found is None else str(found)) == (text, number)


def test_the_last_number_the_last_box_and_the_items_of_a_list():
    assert [last_number(text) for text in ("1 and 2.", "$1,200", "x", "3/4", "-5", "5 -")] == [
        "2",
        "1200",
        None,
        "3/4",
        "-5",
        "5",
    ]
    for text, content in (
        ("\\boxed{1}\\boxed{a{b}c} d", "a{b}c"),
        ("\\boxed{a{b}", None),
        ("boxed{1}", None),
        ("\\boxed{}", ""),
    ):
        assert last_boxed(text) == content
    text = "Plan:\n1. **one**\n 2) two \n- three\n* \n• four\nStep 5: five\n6.7 no\n7: seven\n- **eight\n9.nine"
    assert listed(text, 99) == ["one", "two", "three", "four", "five\n6.7 no", "seven", "eight", "nine"]
    assert listed(text, 2) == ["one", "two"] and listed("none\n1234. x", 9) == [] and listed(text, 0) == []
    assert listed(" " * (TAIL_CHARS - 4) + "\n- a", 9) == ["a"] and listed(" " * TAIL_CHARS + "\n- a", 9) == []


@tool(effect="read")
def one(place: str) -> str:
    """One."""
    return place


@tool(effect="read")
def two(a: int, b: int = 1) -> str:
    """Two."""
    return ""


@tool(effect="read")
def three(a: int, b: int) -> str:
    """Three."""
    return ""


@tool(effect="read")
def none() -> str:
    """None."""
    return ""


def test_actions_are_read_in_every_notation():
    for text, action in (
        ("Action: look[a b]", ("look", "a b")), ("action 2: look(a)", ("look", "a")),
        ("**Action:** `look: a`", ("look", "a")),
        ("Action: look a", ("look", "a")), ("Action: look[a", ("look", "a")), ("Action: look[a[0]]", ("look", "a[0]")),
        ("Action: look(a](b)", ("look", "a](b)")), ("Action: 'look'[x]", ("look", "x")), ("Action:", ("", "")),
        ("Action: [x]", ("", "")),
        ("Action: a[1]\nAction: b[2]", ("a", "1")), ("Final Answer: 5 \nAction: a[1]", ("final answer", "5")),
        ("Action: a[1]\nFinal Answer: 5", ("a", "1")), ("  * final answer : x", ("final answer", "x")),
        ("none", ("", "")),
        ("my Action: a[1]", ("", "")),
    ):  # fmt: skip
        assert parse_action(text) == action, text
    assert [_unwrapped(each, is_attached=True)[0] for each in ("", "[a", "(a)b)", ": a ", "a]", "[]", "]")] == [
        "",
        "a",
        "a)b",
        "a",
        "a]",
        "",
        "]",
    ]
    assert parse_action("Action: " + "n" * 65) == ("n" * 64, "n")


def test_arguments_are_an_object_or_the_one_that_is_needed():
    for made, given, found in (
        (one, "x y", {"place": "x y"}), (one, "place = 'x'", {"place": "x"}),
        (one, "places=x", {"place": "places=x"}), (one, "", "The input of one is empty: write one[place]"),
        (one, '{"place": "a"}', {"place": "a"}), (one, '{"move": 1}', {"place": '{"move": 1}'}), (one, "{}", {}),
        (one, "{bad", "The input of one is not valid JSON: write one[place]"), (none, "x", {}),
        (two, "5", {"a": "5"}), (two, "a=5", {"a": "5"}),
        (two, '{"b": 2}', {"b": 2}), (three, "5", 'three takes 2 arguments: write three[{"a": "...", "b": "..."}]'),
        (three, '{"a": 1}', {"a": 1}), (none, '{"x": 1}', {"x": 1}),
    ):  # fmt: skip
        assert arguments_of(made, given) == found, given
    assert [usage(each) for each in (one, two, three, none)] == [
        "one[place]", 'two[{"a": "...", "b": "..."}]', 'three[{"a": "...", "b": "..."}]', "none[]",
    ]  # fmt: skip


def test_code_is_found_between_fences_and_tags():
    text = "x\n```Python title\na\n```\n``` \nb\n\n```"
    assert fenced_code(text) == [
        CodeBlock("python", "a\n", 2, True), CodeBlock("", "b\n\n", text.index("``` \nb"), True),
    ]  # fmt: skip
    assert fenced_code("```\nopen\n") == [CodeBlock("", "open\n", 0, False)] and fenced_code("a ```\nb\n```") == []
    assert first_action("say\n  ```py\n\nx = 1\n\n  ```\nmore") == CodeBlock("python", "x = 1", 4, True)
    assert first_action("<EXECUTE>\nx\n</execute>") == CodeBlock("python", "x", 0, True)
    for other in ("```js\nx\n```\n", "```sh title\nx\n ```\n```c++\n```python\n```\n", "```x```\n"):
        assert first_action(f"{other}```python\ny\n```") == CodeBlock("python", "y", len(other), True), other
    assert first_action("```js\nx\n```") == CodeBlock("python", "", 8, False), "its end, as a block that is not closed"
    assert first_action("```js\nx") is None
    one = "```js\nx\n```\n"
    for rest in ("so", "```sh\nz", "```sh\nz\n```python\ny", "```sh\nz\n```\n```c\n```python\ny", "```sh\nz\n```",
                 "so\n```sh\nz\n```\nand\n```js\nx\n```"):  # fmt: skip
        assert first_action(f"{one}{rest}") == CodeBlock("python", "", 8, False), rest
        assert parse_code(f"{one}{rest}\nFinal Answer: 2") == ("", None)
    assert first_action("```js\n```python\ny") is None, "within a block that is open"
    assert first_action(f"{one}```sh\nz\n```\n```py\ny\n```") == CodeBlock("python", "y", len(one) + 12, True)
    assert first_action("```python\ny\n```\n```js\nx\n```") == CodeBlock("python", "y", 0, True)
    assert first_action("```python\nx") == CodeBlock("python", "", 0, False) and first_action("x") is None
    for said, found in (
        ("```\nx\n```\nFinal Answer: 1", ("x", None)), ("Final Answer: 1\n```\nx\n```", (None, "1\n```\nx\n```")),
        ("hm", (None, None)),
        ("final answer : **2", (None, "2")), ("```\nx", ("", None)), ("Final Answer:", (None, "")),
    ):  # fmt: skip
        assert parse_code(said) == found, said


@pytest.mark.parametrize("hint", ["a number", "integer", "the number, as an integer"])
def test_a_hint_that_speaks_of_a_number_wants_one(hint):
    assert wants_number(asks(hint=hint)) and extract_answer("so it is 5 or 6", asks(hint=hint)) == "6"


@pytest.mark.parametrize(("text", "found"), [
    ("1. a\n- b\n- c\n2. d\n- e", ["a\n- b\n- c", "d\n- e"]), ("- y\n- z\n1. a\n2. b", ["y", "z", "a", "b"]),
    ("1. a\n- b\n3. c", ["a", "b", "c"]), ("1. Plan:\n- a\n- b", ["Plan:", "a", "b"]),
    ("3. a\n- b\n4. c", ["a\n- b", "c"]), ("- a\n  1. x\n  2. y\n- b", ["a\n- x\n- y", "b"]),
])  # fmt: skip
def test_bullets_between_numbers_that_go_on_without_them_are_no_items(text, found):
    assert listed(text, 9) == found
