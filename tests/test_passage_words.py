"""Quotations and claims whose words or numbers differ from the passage's by a cut, a digit, a point or a sign."""

from __future__ import annotations

import time

import pytest

from firsthand.retrieval.answers.citations import HitPlace, find_quote
from firsthand.retrieval.answers.claims import check_claims
from firsthand.retrieval.answers.passage_words import is_whole, whole_words
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.retriever import Hit


def supported(claim: str, passage: str) -> bool:
    """True if a claim that cites the passage is supported by it."""
    hit = Hit(Chunk("d", 0, len(passage), passage), 1.0)
    return not check_claims(f"{claim} [1].", [hit], [HitPlace("x", "s", 1, ())]).unsupported


@pytest.mark.parametrize(
    ("claim", "passage"),
    [
        ("Revenue was 500 million in 2021", "Revenue was 1,500 million in 2021 for the group."),
        ("The rate of interest is 2.75 percent", "The rate of interest is 75.2 percent in the fund."),
        ("The temperature was 5 degrees in Oslo", "The temperature was \u22125 degrees in Oslo."),
        ("The margin rose by 3.5 percent in 2021", "The margin rose by 5 percent, 3 stores closed in 2021."),
    ],
)
def test_a_claim_with_another_number_is_not_supported(claim: str, passage: str) -> None:
    assert not supported(claim, passage) and supported(passage.rstrip("."), passage)


def test_numbers_are_whole_and_alike_if_their_value_is() -> None:
    assert whole_words("1,500 1500 1\u202f500 1’500 1,500.25 2,75 2.75 .5 75.2% 1.5mg v1.25") == [
        "1500", "1500", "1500", "1500", "1500.25", "2.75", "2.75", "0.5", "75.2", "1.5mg", "v1.25"
    ]  # fmt: skip
    assert whole_words("-5 (–5 −$5 3-5 2019–2021 GPT-4") == ["-5", "-5", "-5", "3", "5", "2019", "2021", "gpt", "4"]
    assert whole_words("1,2,3 2019,2020 5,3 stores. 7, 8. x.5") == [
        "1", "2", "3", "2019", "2020", "5.3", "stores", "7", "8", "x", "5"
    ]  # fmt: skip
    assert whole_words("किताब किला") != whole_words("कताब कील") and len(whole_words("किताब")) == 1
    assert whole_words("كِتَابٌ שָׁלוֹם") == whole_words("كتاب שלום")


@pytest.mark.parametrize(
    ("quote", "passage"),
    [
        ("5 mg of aspirin", "The daily dose is 15 mg of aspirin."),
        ("500 packs in May", "It sold 1,500 packs in May."),
        ("It sold 1,500", "It sold 1,500,000 packs."),
        ("the rate is 75", "So the rate is 75.2 percent."),
        ("5 degrees in Oslo", "It was -5 degrees in Oslo."),
        ("able to pay 500 USD", "He is unable to pay 500 USD."),
        ("to pay the aspirin tablet", "to pay the aspirin tablets"),
        ("The patient can", "The patient can't pay."),
        ("The patient can", "The patient can’t pay."),
        ("500 USD a day", "It pays $-500 USD a day."),
        ("case of tea", "The snake_case of tea."),
        ("snake of tea", "The big_snake of tea."),
        ("٥٠٠ من الشاي", "باع ١٬٥٠٠ من الشاي"),
        ("यह एक अच्छा कल", "यह एक अच्छा कला"),
    ],
)
def test_a_quotation_that_cuts_a_word_or_number_is_in_no_passage(quote: str, passage: str) -> None:
    assert find_quote(passage, quote) is None and find_quote(passage, quote.upper()) is None
    twice = f"{passage} {quote}."
    assert (found := find_quote(twice, quote)) and found.start == len(passage) + 1
    assert (found := find_quote(twice, f" {quote.replace(' ', '  ')}")) and found.start == len(passage) + 1


def test_a_quotation_of_whole_words_is_found_wherever_it_ends() -> None:
    for passage, quote in (
        ("Doses of 3-5 mg of aspirin.", "5 mg of aspirin"),
        ("他说东京是日本的首都之一。", "东京是日本的首都"),
        ("Take *two tablets* (daily), or 1.", "two tablets* (daily), or 1"),
        ("The l'eau est froide.", "eau est froide"),
        ("Ann's home is Oslo", "home is Oslo"),
        ("It is _two tablets daily_ then", "two tablets daily"),
        ("**3**-5 mg of aspirin", "5 mg of aspirin"),
        ("5€-10 packs of tea", "10 packs of tea"),
    ):
        assert (found := find_quote(passage, quote)) and passage[found.start : found.end] == quote
    assert is_whole("ab", 0, 2) and not is_whole("ab", 1, 2) and not is_whole("ab", 0, 1) and is_whole("a b", 2, 3)


def test_numbers_of_other_countries_and_notations_are_whole() -> None:
    assert whole_words("0,125 0.125 1,50,000 12,34,567 12,34,56 0,5,1") == [
        "0.125", "0.125", "150000", "1234567", "12", "34", "56", "0", "5", "1"
    ]  # fmt: skip
    assert whole_words("$-5 -₹500 **-5** *-5* 10^-5 (-5)") == ["-5", "-500", "-5", "-5", "10", "-5", "-5"]
    assert whole_words("5€-10€ **3**-5 *3*-5 5\"-10\" 5'-10' 3-.5") == [
        "5", "10", "3", "5", "3", "5", "5", "10", "5", "10", "3", "0.5"
    ]  # fmt: skip
    assert whole_words("١٬٥٠٠ ٢٫٥") == ["١٥٠٠", "٢.٥"]


def test_a_quotation_holds_with_other_quotation_marks_and_where_a_line_ends_in_a_word() -> None:
    for passage, quote, found_text in (
        ("He “can’t pay” now.", 'He "can\'t pay" now', "He “can’t pay” now"),
        ("‘the „plan‟ ‛works‚ now", "'the \"plan\" 'works' now", "‘the „plan‟ ‛works‚ now"),
        ("A well-\n  known fact.", "a well-known fact", "A well-\n  known fact"),
        ("A well-known fact.", "well- known fact", "well-known fact"),
        ("pre- and postwar", "Pre-  and postwar", "pre- and postwar"),
    ):
        assert (found := find_quote(passage, quote)) and passage[found.start : found.end] == found_text
    assert find_quote("It was 5- 10 degrees", "IT was 5-10 degrees") is None, "a letter is before it"
    assert find_quote("The plan - works", "The PLAN -works") is None


def test_a_short_quotation_at_thousands_of_places_takes_linear_time() -> None:
    start = time.process_time()
    assert find_quote("a" * 12_000, "a" * 8) is None and find_quote("ab " * 4_000 + "x", "b ab ab a") is None
    assert time.process_time() - start < 3
