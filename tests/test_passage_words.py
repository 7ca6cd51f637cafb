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
        ("Take 2 tablets daily", "Take 1/2 tablets daily with water."),
        ("The dose is ¾ tablet", "The dose is ½ tablet a day."),
        ("The cup holds 1 litre", "The cup holds 1 ½ litre."),
        ("The culture has 10 cells", "The culture has 10^6 cells per plate."),
        ("The culture has 6 cells", "The culture has 10^6 cells per plate."),
        ("The price is 50 EUR", "The price is 1.500,50 EUR for members."),
        ("The train leaves at 30 from Oslo", "The train leaves at 12:30 from Oslo."),
        ("The room holds 500 people", "The room holds 1 500 people."),
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


@pytest.mark.parametrize(
    ("quote", "passage"),
    [
        ("2 tablet daily", "He takes 1/2 tablet daily."),
        ("the dose is 10", "So the dose is 10^6 cells."),
        ("the dose is 10", "So the dose is 10⁻⁶ mol."),
        ("the dose is 5", "So the dose is 5 × 10^3 units."),
        ("15 is used here", "A ratio of 3:15 is used here."),
        ("500 mg daily", "He takes 1 500 mg daily."),
        ("½ cup of it", "He drinks 1 ½ cup of it."),
        ("6 per second", "The rate is 1e-6 per second."),
        ("toxic substance", "It is a non-toxic substance."),
        ("toxic substance", "It is a non\u2011toxic substance."),
        ("The drug is non", "The drug is non-toxic."),
    ],
)
def test_a_quotation_that_cuts_a_fraction_power_time_or_hyphenated_word_is_in_no_passage(
    quote: str, passage: str
) -> None:
    assert find_quote(passage, quote) is None and find_quote(f"{passage} {quote}.", quote)


def test_a_quotation_may_end_at_ranges_dates_units_and_hyphens_where_a_line_ends() -> None:
    for passage, quote in (
        ("Doses of 3-5 mg/10 mL daily", "10 mL daily"),
        ("Signed on 12/05/2020 in Oslo", "2020 in Oslo"),
        ("It grew by 5% of the whole", "It grew by 5"),
        ("He takes 2×500 mg daily", "500 mg daily"),
        ("A well-\nknown fact of it", "known fact of it"),
        ("A plan--works then", "works then"),
        ("The GPT-4 model of it", "4 model of it"),
        ("A 5-year plan of it", "year plan of it"),
        ("Read and/or write it", "write it"),
    ):
        assert find_quote(passage, quote)


def test_fractions_powers_times_and_thousands_are_one_number_in_each_notation() -> None:
    for text, number in (
        ("1/2 1⁄2 ½", "1/2"),
        ("1½ 1\u202f½ 1\u00a01/2", "1 1/2"),
        ("-½ −1/2", "-1/2"),
        ("10⁶ 10^6 10^{6} 10^+6", "10^6"),
        ("10⁻⁶ 10^-6 10^{-6} 10^(−6)", "10^-6"),
        ("5×10³ 5 × 10^3 5x10^3 5·10^3", "5×10^3"),
        ("12:30", "12:30"),
        ("1/1,000 1/1000", "1/1000"),
        ("1.500,50 1,500.50 1500,50 1500.50", "1500.50"),
        ("1.234.567,8", "1234567.8"),
    ):
        assert set(whole_words(text)) == {number}
    assert whole_words("½ cup, 1 ½ cups, 1 1/2 cups") == ["1/2", "cup", "1 1/2", "cups", "1 1/2", "cups"]
    assert whole_words("1 500 people, 12 345 678,5 pieces") == ["1500", "people", "12345678.5", "pieces"]
    assert whole_words("1e-6 2E+5 1,2,3/4 1.500 0.500,5 1.500,2.5") == [
        "1e-6", "2e+5", "1", "2", "3/4", "1.500", "0.500", "5", "1.500", "2.5"
    ]  # fmt: skip


def test_dates_years_rows_and_products_are_several_numbers() -> None:
    assert whole_words("12/05/2020 12/05/20 05/2020 2019/20 2020-05-12") == [
        "12", "05", "2020", "12", "05", "20", "05", "2020", "2019", "20", "2020", "05", "12"
    ]  # fmt: skip
    assert whole_words("1 2 345 6 | 12 345 99 | in 2019 500 | 2019 1/2") == [
        "1", "2", "345", "6", "12", "345", "99", "in", "2019", "500", "2019", "1/2"
    ]  # fmt: skip
    assert whole_words("2×500 2 × 10 km/h 1/2 3/4 1 5000") == [
        "2", "500", "2", "10", "km", "h", "1/2", "3/4", "1", "5000"
    ]  # fmt: skip
    assert whole_words("non-toxic 5 3/4, 5 1 500 mg") == ["non", "toxic", "5 3/4", "5", "1", "500", "mg"]


def test_a_label_or_a_column_of_a_table_is_no_part_of_thousands() -> None:
    for text in ("Table 1 500 people", "see table 1 500 people", "May 1 500 people", "Fig. 1 500 people"):
        assert whole_words(text)[-3:] == ["1", "500", "people"] and find_quote(text, "500 people")
    assert whole_words("Table of 1 500, Mayor 1 500") == ["table", "of", "1500", "mayor", "1500"]
    for other in ("Year 2020 2021", "Loss 15 10", "Sales 45 1,200"):
        for table in (f"{other}\nCosts 12 340 \nTea 45 120", f"Tea 45 120\nCosts 12 340\n{other}"):
            assert "120" in whole_words(table) and "340" in whole_words(table)
            assert find_quote(table, "Costs 12") and supported("Tea was 120", table)
    for whole in (
        "Oslo 700 000\nTea 45 120",
        "Year 2020 2021\n\nTea 45 120",
        "We add 1 1/2 or 45 120",
        "5 12 or 45 120.",
    ):
        assert "45120" in whole_words(whole), whole


def test_thousands_that_no_column_holds_are_whole_in_a_table() -> None:
    assert whole_words("Loss 15 10\nOslo 700 000") == ["loss", "15", "10", "oslo", "700000"]


def test_numbers_of_many_parts_take_linear_time() -> None:
    start = time.process_time()
    for part in ("1 ", "100 ", "1/", "1:", "1^", "1 ½", "1×10", "1.500,", "10⁶", "a-", "1e-", "1 1/2 ", "1,", "111"):
        whole_words(part * (10_000 // len(part)))
        is_whole(part * (10_000 // len(part)), 2_001, 2_003)
    assert time.process_time() - start < 4


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
    assert whole_words("$-5 -₹500 **-5** *-5* 10^-5 (-5)") == ["-5", "-500", "-5", "-5", "10^-5", "-5"]
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


def test_a_number_is_alike_with_its_unit_behind_a_blank_or_not_and_of_one_value() -> None:
    for one, other in (
        ("It weighs 70 kg", "It weighs 70kg."),
        ("Its speed is 120 km/h", "Its speed: 120km/h."),
        ("It has 8 GB", "It has 8GB."),
        ("Take 2.5 mg daily", "Take 2.5mg daily."),
        ("It cost $1", "It cost $1.00."),
        ("The score was 10", "The score was 10.0."),
        ("It is -5", "It is -5.00."),
        ("It leaves at 7:30", "It leaves at 07:30."),
        ("16 GB", "16GB."),
        ("It needs 5 V and 2 A", "It needs 5V and 2A."),
        ("It is 5 m long", "It is 5m long."),
        ("It lasts 3 h", "It lasts 3h."),
        ("It takes 5 ms at 60 fps", "It takes 5ms at 60fps."),
        ("It is 5 µm wide", "It is 5µm wide."),
        ("It weighs 5 kgs after 3 mins", "It weighs 5kg after 3min."),
        ("It weighs 5 kg after 3 min", "It weighs 5kgs after 3mins."),
        ("It has 12 km² and 3 m2", "It has 12km² and 3m2."),
        ("It weighs 9 lbs in 2 hrs", "It weighs 9lbs in 2hrs."),
        ("It weighs 9 lbs in 2 hrs", "It weighs 9lb in 2hr."),
    ):
        assert supported(one, other) and supported(other.rstrip("."), f"{one}."), one
    for claim, passage in (
        ("Take 500mg daily", "Take 500mcg daily."),
        ("It weighs 7 kg", "It weighs 70kg."),
        ("Python 3.1 is needed", "Python 3.10 is needed."),
        ("Room 4 is open", "Room 4B is open."),
        ("It cost 10", "It cost 1.00."),
        ("It costs 3 euros", "It costs 3.10 euros."),
        ("It is 17:30", "It is 07:30."),
        ("Use 1.2 of it", "Use 1.2.0 of it."),
        ("It earned $5", "It earned $5m."),
        ("It is 5 kg", "It is -5kg."),
        ("It weighs 70 pounds", "It weighs 70kg."),
        ("It is 5 m wide", "It is 5mm wide."),
        ("It takes 5m", "It takes 5ms."),
        ("It earned 5 more", "It earned 5m."),
        ("Room 4 is big", "Room 4B is big."),
    ):
        assert not supported(claim, passage), claim
