"""A question that denies what it asks finds no point, by the host's rules."""

from __future__ import annotations

import pytest

from firsthand.worlds.puzzles.puzzle import Puzzle
from firsthand.worlds.puzzles.puzzle_judge import is_negated, verdict_by_rules

PUZZLE = Puzzle(
    "A man orders soup and dies.",
    "He ate his wife on an island.",
    ("A man orders albatross soup", "He wore a false beard"),
    ("The man was shipwrecked on an island", "The captain lied that it was albatross"),
)


@pytest.mark.parametrize(
    "frame",
    [
        "Is it false that {}?", "Was it a lie that {}?", "Is it wrong that {}?", "Is it untrue to say that {}?",
        "Is it a myth that {}?", "Would it be a mistake to think {}?", "Would you deny that {}?",
        "Is it impossible that {}?",
        "Is it incorrect if I say {}?", 'Is it "false" that {}?', "Is it not true that {}?",
    ],
)  # fmt: skip
def test_a_question_that_calls_its_fact_false_is_answered_no(frame: str) -> None:
    assert verdict_by_rules(PUZZLE, frame.format("the man was shipwrecked on an island")) == "no"


def test_a_question_that_states_its_fact_or_denies_it_twice_is_answered_yes() -> None:
    for question in (
        "Was the man shipwrecked on an island?",
        "Is it true that the man was shipwrecked on an island?",
        "Is it not false that the man was shipwrecked on an island?",
        "Was it a false beard that he wore?",
        "Did the captain lie that it was albatross?",
    ):
        assert verdict_by_rules(PUZZLE, question) == "yes", question


def test_denials_of_both_languages_are_seen_and_their_words_alone_are_none() -> None:
    for text in ("他吃了人是假的吗", "他并非船长", "He failed to eat", "Do you doubt that he ate?", "这是谎言吗"):
        assert is_negated(text), text
    for text in (
        "Did he lie in bed?",
        "Was the wrong man killed?",
        "Is it a false door?",
        "他是错过了船吗",
        "今天是假日吗",
        "a mistake",
    ):
        assert not is_negated(text), text
