"""Each of IFEval's instructions at its bounds, the scores over them, and what a wrong instruction is told."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from firsthand.errors import DataError, MissingExtra
from firsthand.scorers import instructions
from firsthand.scorers.instructions import (
    CONSTRAINED,
    VERIFIERS,
    check,
    count_sentences,
    follows,
    instruction_loose,
    instruction_strict,
    language,
    prompt_loose,
    prompt_strict,
    versions,
)
from firsthand.task import Task
from firsthand.trace import Trace

CASES: dict[str, list[tuple[dict[str, Any], list[str], list[str]]]] = {
    "keywords:existence": [({"keywords": ["sun", "moon"]}, ["SUN and moons"], ["sun", "mo on"])],
    "keywords:frequency": [
        ({"keyword": "a", "frequency": 2, "relation": "less than"}, ["A b"], ["a A"]),
        ({"keyword": "a", "frequency": 2, "relation": "at least"}, ["a A", "aaa"], ["a b"]),
    ],
    "keywords:forbidden_words": [({"forbidden_words": ["rock", "hat"]}, ["rocket chat"], ["a Rock", "my hat"])],
    "keywords:letter_frequency": [
        ({"letter": "O", "let_frequency": 2, "let_relation": "at least"}, ["oO"], ["o b"]),
        ({"letter": "o", "let_frequency": 2, "let_relation": "less than"}, ["O b"], ["oO"]),
    ],
    "length_constraints:number_sentences": [
        ({"num_sentences": 2, "relation": "at least"}, ["One. Two."], ["One."]),
        ({"num_sentences": 2, "relation": "less than"}, ["One."], ["One. Two."]),
    ],
    "length_constraints:number_paragraphs": [
        ({"num_paragraphs": 2}, ["a *** b", "*** a *** b"], ["a", "a *** b *** c", "a *** *** b"]),
    ],
    "length_constraints:number_words": [
        ({"num_words": 3, "relation": "at least"}, ["a b-c"], ["a b"]),
        ({"num_words": 3, "relation": "less than"}, ["a b"], ["a b c"]),
    ],
    "length_constraints:nth_paragraph_first_word": [
        (
            {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Go"},
            ["x\n\n go, on", 'x\n\n\'"Go" on'],
            ["go\n\nx", "x", "x\n\nGoing"],
        ),
        ({"num_paragraphs": 1, "nth_paragraph": 2, "first_word": "go"}, [], ["x\n\ngo", "x\n\n\n\ngo"]),
    ],
    "detectable_content:number_placeholders": [
        ({"num_placeholders": 2}, ["[a] [b]", "[a]\n[b] [c]"], ["[a]", "[a [b]", "[a\n]"])
    ],
    "detectable_content:postscript": [
        ({"postscript_marker": "P.S."}, ["x\nP.S. y", "p. s. y"], ["ps y"]),
        ({"postscript_marker": "P.P.S"}, ["P. P. S"], ["P.S."]),
    ],
    "detectable_format:number_bullet_lists": [
        ({"num_bullets": 2}, ["* a\n- b", "\n  - a\n-b"], ["* a", "* a\n- b\n- c", "**a**\n- b", "x * a\n- b"]),
    ],
    "detectable_format:constrained_response": [({}, [*CONSTRAINED, f"So: {CONSTRAINED[0]}"], ["My answer is Yes."])],
    "detectable_format:number_highlighted_sections": [
        ({"num_highlights": 2}, ["*a* *b*", "**a** **b**"], ["*a*", "* * *a*", "*a\nb* *c*"]),
        ({"num_highlights": 1}, ["**a**"], ["****", "a"]),
    ],
    "detectable_format:multiple_sections": [
        (
            {"section_spliter": "Part", "num_sections": 2},
            ["Part 1 a Part 2 b", "Part1 a Part2"],
            ["Part 1 a", "Part a Part b"],
        ),
    ],
    "detectable_format:json_format": [
        ({}, ['{"a": 1}', "```json\n[1]\n```", "```\n1```"], ["{a: 1}", "```js\n1\n```"])
    ],
    "detectable_format:title": [({}, ["<<A>>", "x <<<b>>> y"], ["<< >>", "<<a\n>>", "<a>", ">>a<<"])],
    "combination:two_responses": [
        ({}, ["a******b", "******a******b******"], ["a******a", "a", "a******b******c", "a************b"]),
    ],
    "combination:repeat_prompt": [({"prompt_to_repeat": " Say it "}, [" SAY IT now"], ["now say it"])],
    "startend:end_checker": [({"end_phrase": " The End "}, ['so "the END" \n', "THE END"], ["the end."])],
    "startend:quotation": [({}, [' "a" ', '""'], ['"', '"a', "'a'"])],
    "change_case:capital_word_frequency": [
        ({"capital_frequency": 2, "capital_relation": "at least"}, ["AB-C D e"], ["AB Cd"]),
        ({"capital_frequency": 2, "capital_relation": "less than"}, ["AB Cd"], ["A B"]),
    ],
    "punctuation:no_comma": [({}, ["a; b"], ["a, b"])],
}

FIRST, CAPITALS = "length_constraints:nth_paragraph_first_word", "change_case:capital_word_frequency"


def test_an_instruction_is_followed_up_to_its_bounds() -> None:
    for instruction, cases in CASES.items():
        for arguments, yes, no in cases:
            for text in yes:
                assert follows(text, instruction, {**arguments, "unused": None}), (instruction, text)
            for text in (*no, "", " \n"):
                assert not follows(text, instruction, arguments), (instruction, text)


def test_what_needs_a_language_is_all_that_is_left() -> None:
    assert set(VERIFIERS) - set(CASES) == {
        "language:response_language", "change_case:english_capital", "change_case:english_lowercase",
    }  # fmt: skip
    assert len(VERIFIERS) == 25
    assert not follows("Some Words", "change_case:english_capital", {}) and not follows(
        "Some", "change_case:english_lowercase", {}
    )


def test_sentences_end_before_what_is_no_small_letter_and_not_after_abbreviations() -> None:
    for text, count in (
        ("", 0),
        ("One", 1),
        ("One. Two", 2),
        ("One.Two", 1),
        ("One. two", 1),
        ("One?! (Two.) Three", 3),
        ("He met Dr. Who. 5 came", 2),
        ("A. B. C", 1),
        ("One.\n\nTwo.\n\n", 2),
        ('She said "No." Then', 2),
        ("e.g. This. That", 2),
        ("Wait... What", 2),
        ("  ", 0),
    ):
        assert count_sentences(text) == count, text


def test_scores_are_over_all_instructions_or_their_share_of_the_answer_or_its_versions() -> None:
    given = [["punctuation:no_comma", {}], ["startend:quotation", {}], ["keywords:existence", {"keywords": ["sun"]}]]
    task = Task("t", "?", secret={"instructions": given})

    def scored(answer: str | None) -> list[float]:
        made = Trace("1", "b", "t", {"name": "a"}, 0, 0, "", 0.0, answer=answer)
        scorers = (prompt_strict, prompt_loose, instruction_strict, instruction_loose)
        return [each(task, made).value for each in scorers]

    assert scored('"the sun"') == [1, 1, 1, 1] and scored(None) == [0, 0, 0, 0]
    assert scored('Sure, here:\n"the sun"') == pytest.approx([0, 1, 1 / 3, 1])
    assert scored("sun, moon") == pytest.approx([0, 0, 1 / 3, 1 / 3])
    made = Trace("1", "b", "t", {"name": "a"}, 0, 0, "", 0.0, answer='Sure, sun:\n"x"')
    followed = {"0 punctuation:no_comma": False, "1 startend:quotation": False, "2 keywords:existence": True}
    assert prompt_strict(task, made).detail == {"followed": followed}
    share = instruction_loose(task, made)
    assert share.detail["followed"] == {name: True for name in followed} and share.corpus is not None
    assert versions("*a*\nb\nc*") == ["*a*\nb\nc*", "b\nc*", "*a*\nb", "b", "a\nb\nc", "b\nc", "a\nb", "b"]
    whole, beyond = "x" * 99_995 + ", sun", "x" * 99_996 + ", sun"
    assert scored(whole) == pytest.approx([0, 0, 1 / 3, 1 / 3]) and scored(beyond) == [0, 0, 0, 0]
    for answer, held in ((whole, [False, False, True]), (beyond, [False] * 3), ("x" * 100_001, [False] * 3)):
        long = Trace("1", "b", "t", {"name": "a"}, 0, 0, "", 0.0, answer=answer)
        assert list(instruction_strict(task, long).detail["followed"].values()) == held, len(answer)


def test_an_instruction_that_cannot_be_is_told_with_its_place() -> None:
    check("punctuation:no_comma", {"unused": None}, "row 1")
    for name, arguments, said in (
        ("punctuation:none", {}, "row 1: 'punctuation:none' is not one of IFEval's 25 instructions"),
        ("punctuation:no_comma", {"x": 1}, "row 1: punctuation:no_comma cannot take {'x': 1}: "),
        (
            "keywords:frequency",
            {"keyword": "(", "frequency": 1, "relation": "at least"},
            "row 1: keywords:frequency cannot take ",
        ),
        (
            "length_constraints:number_words",
            {"num_words": 1, "relation": "more than"},
            "row 1: length_constraints:number_words cannot take {'num_words': 1, 'relation': 'more than'}: the relation is "
            "'more than', and 'less than' or 'at least' was expected",
        ),
    ):
        with pytest.raises(DataError) as refused:
            check(name, arguments, "row 1")
        assert str(refused.value).startswith(said)


def test_each_instruction_holds_at_its_limit_and_not_beyond_it() -> None:
    three = {"num_paragraphs": 3}
    for text, instruction, arguments, held in (
        ("Cats and dogs", "keywords:existence", {"keywords": ["dog", "CAT"]}, True),
        ("Cats", "keywords:existence", {"keywords": ["cat", "dog"]}, False),
        ("a A b", "keywords:frequency", {"keyword": "a", "frequency": 2, "relation": "at least"}, True),
        ("a A b", "keywords:frequency", {"keyword": "a", "frequency": 3, "relation": "at least"}, False),
        ("a A b", "keywords:frequency", {"keyword": "a", "frequency": 2, "relation": "less than"}, False),
        ("a A b", "keywords:frequency", {"keyword": "a", "frequency": 3, "relation": "less than"}, True),
        ("concat", "keywords:forbidden_words", {"forbidden_words": ["cat"]}, True),
        ("a Cat.", "keywords:forbidden_words", {"forbidden_words": ["dog", "cat"]}, False),
        ("eEx", "keywords:letter_frequency", {"letter": "E", "let_frequency": 2, "let_relation": "at least"}, True),
        ("eEx", "keywords:letter_frequency", {"letter": "e", "let_frequency": 2, "let_relation": "less than"}, False),
        ("One. Two! Three?", "length_constraints:number_sentences", {"num_sentences": 3, "relation": "at least"}, True),
        (
            "One. Two! Three?",
            "length_constraints:number_sentences",
            {"num_sentences": 3, "relation": "less than"},
            False,
        ),
        (
            "Dr. A. Smith came. He left",
            "length_constraints:number_sentences",
            {"num_sentences": 3, "relation": "less than"},
            True,
        ),
        ("a *** b *** c", "length_constraints:number_paragraphs", three, True),
        ("a *** *** c", "length_constraints:number_paragraphs", {"num_paragraphs": 2}, False),
        ("*** a *** b ***", "length_constraints:number_paragraphs", {"num_paragraphs": 2}, True),
        ("a b-c d", "length_constraints:number_words", {"num_words": 4, "relation": "at least"}, True),
        ("a b-c d", "length_constraints:number_words", {"num_words": 5, "relation": "at least"}, False),
        ("x\n\n'Yes', y\n\nz", FIRST, {**three, "nth_paragraph": 2, "first_word": "YES"}, True),
        ("x\n\ny\n\nYes", FIRST, {**three, "nth_paragraph": 3, "first_word": "yes"}, True),
        ("x\n\ny\n\nYes", FIRST, {**three, "nth_paragraph": 4, "first_word": "yes"}, False),
        ("x\n\ny", FIRST, {**three, "nth_paragraph": 1, "first_word": "x"}, False),
        ("[a] [b", "detectable_content:number_placeholders", {"num_placeholders": 1}, True),
        ("[a] [b\n]", "detectable_content:number_placeholders", {"num_placeholders": 2}, False),
        ("[[a]] [b]", "detectable_content:number_placeholders", {"num_placeholders": 2}, True),
        ("x\np. s. y", "detectable_content:postscript", {"postscript_marker": "P.S."}, True),
        ("x\nps y", "detectable_content:postscript", {"postscript_marker": "P.S."}, False),
        ("P.P.S y", "detectable_content:postscript", {"postscript_marker": "P.P.S"}, True),
        ("* a\n - b\n** c", "detectable_format:number_bullet_lists", {"num_bullets": 2}, True),
        ("* a\n* b\n- c", "detectable_format:number_bullet_lists", {"num_bullets": 2}, False),
        ("so My answer is no. ok", "detectable_format:constrained_response", {}, True),
        ("my answer is no.", "detectable_format:constrained_response", {}, False),
        ("*a* **b** * *", "detectable_format:number_highlighted_sections", {"num_highlights": 2}, True),
        ("*a* * *", "detectable_format:number_highlighted_sections", {"num_highlights": 2}, False),
        (
            "Part 1 x Part 2 y",
            "detectable_format:multiple_sections",
            {"section_spliter": "Part", "num_sections": 2},
            True,
        ),
        (
            "Part 1 x Part 2 y",
            "detectable_format:multiple_sections",
            {"section_spliter": "Part", "num_sections": 3},
            False,
        ),
        ("```json\n{}\n```", "detectable_format:json_format", {}, True),
        ("[1,]", "detectable_format:json_format", {}, False),
        ("x\n<<a>>", "detectable_format:title", {}, True),
        ("<< >>", "detectable_format:title", {}, False),
        (">> a <<", "detectable_format:title", {}, False),
        ("a ****** b", "combination:two_responses", {}, True),
        ("a ****** a", "combination:two_responses", {}, False),
        ("a ****** b ****** c", "combination:two_responses", {}, False),
        (" Do it. And so", "combination:repeat_prompt", {"prompt_to_repeat": "do IT. "}, True),
        ("So do it.", "combination:repeat_prompt", {"prompt_to_repeat": "do it."}, False),
        ('"It is THE END" ', "startend:end_checker", {"end_phrase": " the end"}, True),
        ("the end.", "startend:end_checker", {"end_phrase": "the end"}, False),
        (' "a" ', "startend:quotation", {}, True),
        ('"', "startend:quotation", {}, False),
        ('"a', "startend:quotation", {}, False),
        ("A-B CD ef", CAPITALS, {"capital_frequency": 2, "capital_relation": "at least"}, True),
        ("A-B CD ef", CAPITALS, {"capital_frequency": 2, "capital_relation": "less than"}, False),
        ("no stop", "punctuation:no_comma", {}, True),
        ("a, b", "punctuation:no_comma", {}, False),
        (" ", "punctuation:no_comma", {}, False),
        ("a b", "length_constraints:number_words", {"num_words": 2, "relation": "at least", "other": None}, True),
    ):
        assert instructions.follows(text, instruction, arguments) is held, (text, instruction)
    assert instructions.versions("*a*\nb\nc\n") == [
        "*a*\nb\nc\n", "b\nc", "*a*\nb\nc", "b\nc", "a\nb\nc\n", "b\nc", "a\nb\nc", "b\nc",
    ]  # fmt: skip


def test_wrong_arguments_are_told_whatever_they_break() -> None:
    for name, arguments, why in (
        ("keywords:existence", {"keywords": ["a{99999999999999999999}"]}, "the repetition number is too large"),
        ("keywords:forbidden_words", {"forbidden_words": ["a)"]}, "unbalanced parenthesis at position 3"),
        ("startend:end_checker", {"end": 5}, "<lambda>() got an unexpected keyword argument 'end'"),
        ("startend:end_checker", {"end_phrase": "a", "text": 5},
         "<lambda>() got multiple values for argument 'text'"),
        (FIRST, {"num_paragraphs": 1, "nth_paragraph": 0, "first_word": "a"},
         "nth_paragraph is 0, and paragraphs are counted from 1"),
        (FIRST, {"num_paragraphs": 1, "nth_paragraph": -1, "first_word": "a"},
         "nth_paragraph is -1, and paragraphs are counted from 1"),
    ):  # fmt: skip
        with pytest.raises(DataError) as refused:
            check(name, arguments, "row 7")
        assert str(refused.value) == f"row 7: {name} cannot take {arguments}: {why}"
    for name, arguments, wrong, why in (
        ("startend:end_checker", {"end_phrase": 5}, "end_phrase", "'5', and a text"),
        ("combination:repeat_prompt", {"prompt_to_repeat": ["a"]}, "prompt_to_repeat", "\"['a']\", and a text"),
        ("keywords:letter_frequency", {"letter": 1, "let_frequency": 1, "let_relation": "at least"},
         "letter", "'1', and a text"),
        ("keywords:existence", {"keywords": 5}, "keywords", "'5', and a list of texts"),
        ("length_constraints:number_words", {"num_words": "3", "relation": "at least"},
         "num_words", "'3', and a whole number"),
    ):  # fmt: skip
        with pytest.raises(DataError) as refused:
            check(name, arguments, "row 7")
        assert str(refused.value) == f"row 7: {wrong!r} of {name} is {why} was expected"
    with pytest.raises(DataError, match=r"^row 7: keywords:existence cannot take .*: maximum recursion depth exceeded"):
        check("keywords:existence", {"keywords": ["(" * 3_000 + ")" * 3_000]}, "row 7")
    check(FIRST, {"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "a"}, "row 7")
    check(FIRST, {"num_paragraphs": 1, "nth_paragraph": 9, "first_word": "a"}, "row 7")


def test_instructions_about_a_language_can_be_read_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langdetect", None)
    check("language:response_language", {"language": "de"}, "row 1")
    check("change_case:english_lowercase", {}, "row 1")
    with pytest.raises(DataError, match=r"^row 1: language:response_language cannot take {'lang': 'de'}: "):
        check("language:response_language", {"lang": "de"}, "row 1")
    for use in (lambda: language("A text."), lambda: follows("a text", "change_case:english_lowercase", {})):
        with pytest.raises(MissingExtra) as refused:
            use()
        assert str(refused.value) == (
            "detecting the language of an answer needs the package 'langdetect': pip install 'firsthand[text]'"
        )
    assert not follows(" ", "language:response_language", {"language": "de"}), "an empty text follows none"


@pytest.mark.slow
def test_a_text_without_letters_is_of_no_language_and_of_any() -> None:
    pytest.importorskip("langdetect", reason="langdetect is not installed")
    german = "Das ist ein ganz gewöhnlicher deutscher Satz über das Wetter von heute."
    english = "this is a quite ordinary english sentence about the weather of today."
    assert [language(text) for text in ("", " \n", "12 + 3 = 15!", german, english)] == [None, None, None, "de", "en"]
    for text, instruction, arguments, held in (
        ("12 + 3 = 15!", "language:response_language", {"language": "de"}, True),
        (german, "language:response_language", {"language": "de"}, True),
        (english, "language:response_language", {"language": "de"}, False),
        (english, "change_case:english_lowercase", {}, True),
        (english.capitalize(), "change_case:english_lowercase", {}, False),
        (german.lower(), "change_case:english_lowercase", {}, False),
        (english.upper(), "change_case:english_capital", {}, True),
        (english, "change_case:english_capital", {}, False),
        (german.upper(), "change_case:english_capital", {}, False),
        ("12 + 3", "change_case:english_capital", {}, False),
    ):
        assert follows(text, instruction, arguments) is held, (text, instruction)


def test_json_is_read_within_one_fence_and_refused_where_it_is_too_deep() -> None:
    for text, held in (
        ("[" * 100_000, False),
        ("[" * 100_000 + "]" * 100_000, False),
        ("[" * 50 + "]" * 50, True),
        (" ```JSON\n{}\n``` ", True),
        ("```Json {} ```", True),
        ("``` [1, 2]```", True),
        ("```json {}", True),
        ("{}\n```", True),
        ("``````json\n{}\n```", False),
        ("```jSON\n{}\n```", False),
        ("Here:\n```json\n{}\n```", False),
        ("{}{}", False),
        ("''", False),
        ('"a"', True),
        ("```", False),
    ):
        assert follows(text, "detectable_format:json_format", {}) is held, text[:30]
