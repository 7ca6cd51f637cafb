"""A statement that the words before it do not assert, or that what follows takes back, does not stand."""

import time

import pytest

from firsthand.patterns.parts.taken_back import asserts, taken_back

TAKEN_BACK = (
    "\n\nWait, I made a mistake: 6", ".\n\nHmm, let me recheck: 2*3", "\nCorrection: 6", "\nHmm, actually C is right.",
    "\nWait, 3", "\nBut in fact 3", "\nI take that back: C", "\nEdit: C", "\nRevised: C", "\nOh no, C!", ". No.", "? No, 6",
    ". Rejected.", ", but the true value is 6.", " is what a beginner would say", ", a naive reader would say.",
    ". That's wrong.", ". It should have been 6", "\nOn second thought, 6", "\nThat is not right", "\nActually 6", "\nNo: 6",
)  # fmt: skip
STANDS = (
    "", ".", "\n\nExplanation: 2+3=5.", "\n\nCheck: 6 - 1 = 5 ✓", ", actually", " apples. No apples are left.",
    "\n\nLet me verify: 5-3=2", "\nNo further steps are needed.", " as expected.", ", and that is not wrong",
    "\nThe correct amount was asked.", " because 2 and 3 are 5", ". So it waits.", "\nUpdates follow.",
)  # fmt: skip
NOT_ASSERTED = (
    "Is ", "I doubt ", "The wrong ", "Note that a common wrong ", "A common mistake: ", "It is 6.\n(Your ", "not ",
    "If there were no tax, ", "It might seem ", "Some say ", "It is C, while a hasty ", "Runner-up ", "C (my first ",
)  # fmt: skip
ASSERTED = (
    "", "So ", "The ", "Therefore, the final ", "This is not hard, so ", "I made a mistake earlier; ", "My ", "The correct ",
    "If x = 3, then ", "Because it is green, ", "I'm sure ", "Is it? Yes, the ", "Here is the final ", "**Final ",
)  # fmt: skip


@pytest.mark.parametrize("after", TAKEN_BACK)
def test_a_statement_is_taken_back_by_what_follows(after):
    assert taken_back(after) is not None


@pytest.mark.parametrize("after", STANDS)
def test_a_statement_stands_where_what_follows_explains_or_ends(after):
    assert taken_back(after) is None


def test_the_first_words_that_take_a_statement_back_are_where_it_ends():
    for after, rest in (
        (", but the true value is 6. Wait, 7", "but the true value is 6. Wait, 7"),
        ("\nHmm, 7. Wait, 8", "Hmm, 7. Wait, 8"),
        (" is what a beginner would say. It is 6", "beginner would say. It is 6"),
    ):
        at = taken_back(after)
        assert at is not None and after[at:] == rest
    assert taken_back(" hmm, fine") is None, "a sigh in the sentence of the statement"


def test_words_before_a_statement_assert_it_or_do_not():
    assert [each for each in NOT_ASSERTED if asserts(each)] == []
    assert [each for each in ASSERTED if not asserts(each)] == []


def test_hostile_texts_are_read_in_time_that_goes_with_their_length():
    began = time.process_time()
    for piece in ("\n", "wait ", "but ", "hmm", "no", "a.", "if were ", " ", "is what ", "*_", "had "):
        taken_back("x" + piece * 20_000), asserts(piece * 20_000)
    assert time.process_time() - began < 10, "a quadratic search takes minutes"
