"""A mail of an office states one amount: another beside it, of any size and in any writing, is a contradiction."""

import pytest

from firsthand.worlds.office.office_world import states
from firsthand.worlds.office.other_amounts import LEAST_AMOUNT, other_amount

CONTRADICTIONS = [
    "12 million euros", "99 million", "12 thousand euros", "Total: 12k euros", "12K",
    "12 k", "9e9", "9E9 euros", "1.5e6",
    "9.9 million", "Total: 9.99 euros", "9,99 €", "€9", "EUR 5",
    "5 dollars", "forty thousand euros", "forty-two thousand",
    "ninety nine million", "a million euros", "half a million", "Total: a million",
    "forty euros", "Total: forty", "12M",
    "12bn", "12 mio", "12 lakh", "9 * 10^9", "9×10⁹", "10^9", "10**6",
    "2^40", "12万", "1/2 million", "12 **million**", "12 (thousand)",
    "Total: 12", "The total in file-3 is 99.", "sum = 7", "mail-99999 euros", "99:99 euros", "2027-05-17 euros",
    "nine nine nine nine nine", "9e999999999999", "9" * 3000 + ".5", "two hundred",
    "12-k", "０.５ million", "12 million million",
    "Total: 9!", "Total: 0 million", "30k", "24 million", "Total: 24.3k",
    "2026", "Pay 2026.", "A total of 2026 euros", "The total is 2026.", "The total in May is 2026.", "in 2026 euros",
    "a total of 2026.", "a budget of 2026.", "in 2026 instead",
    "In 1899.", "In 2100.", "in 20260", "In 2026.5", "in EUR 2026", "a payment of 2026.", "for 2026",
    "in 2026k", "in 2026 units",
    "1 000 000", "thirty-four grand", "12\u200bk", "⑨⑨⑨",
]  # fmt: skip


@pytest.mark.parametrize("other", CONTRADICTIONS)
def test_a_mail_with_another_amount_does_not_state_the_right_one(other: str) -> None:
    assert not states(f"The total is 24242 euros.\n{other}", "24242"), other
    assert not states(f"{other}\nThe total is 24242 euros.", "24242"), other


@pytest.mark.parametrize(
    "beside",
    [
        "I read 3 files, 12 mails and 2 events.", "See you at 5!", "Call me in room 12b at 9 am.",
        "It is 5 pages long.",
        "A thousand thanks.", "Thanks a million!", "There are hundreds of pages.", "I am one hundred percent sure.",
        "That is about 24k.", "In words: twenty-four thousand two hundred and forty-two euros.", "Version 1.2 of it.",
        "Roughly 24.2k euros.", "One of two drafts, the 3rd of May, in week 21.", "The total of 3 parts is 24242.",
        "The total comes from 2 parts.", "It grew by 2.5%.", "I am 100% sure.",
        "1. It is 24242.\n2. Nothing else.", "See mail-77 and file-123.",
        "As of 2027-05-12 10:00.", "EUR 24,242.00", "24.242k", "$24242",
        "2.4242e4", "The 5th item of 5 gives 24242 euros.",
        "One more thing: I shared the file with Ann.", "Best, Bo (ext. 12)",
        "It was checked twice, by 2 people; 1 of 1 agrees.",
        "It is from the report for 2026.", "The report for 2026 is attached.", "As of May 2026.",
        "It was checked in 2026, twice.",
        "It is for the fiscal year 1999.", "See Q4 2026.", "Checked on May 3, 2027.", "The total for 2026 is 24242 euros.",
        "Item 3 of the total is open.", "Sum: 24242 euros", "10 minutes ago", "a dozen files",
    ],
)  # fmt: skip
def test_small_numbers_times_and_the_amount_again_or_rounded_are_no_contradiction(beside: str) -> None:
    assert states(f"The total is 24242 euros. {beside}", "24242"), other_amount(beside, "24242")
    assert states(f"Hello,\n{beside}\nThe total is 24242 euros.", "24242"), other_amount(beside, "24242")


def test_commas_sizes_after_sizes_and_digits_in_words_have_their_value() -> None:
    for text, fact in (("24,5 euros", "24.5"), ("ten nine euros", "109"), ("two thousand million euros", "2000000000")):
        assert other_amount(f"It is {text}.", fact) is None and other_amount(f"It is {text}.", "7") is not None
    least = int(LEAST_AMOUNT)
    assert other_amount(f"See room {least}.", "7") == str(least) and other_amount(f"See room {least - 1}.", "7") is None
