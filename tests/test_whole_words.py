"""Words and numbers are found in a text as wholes, and not as the tail or the beginning of another value."""

import pytest

from firsthand.scorers.contained import contains_words
from firsthand.scorers.whole_words import has_words
from firsthand.task import Task
from firsthand.trace import Trace

APART = (
    ("It is 2.5 million", "5 million"), ("1,245", "245"), ("1{,}245", "245"), ("1\\,245", "245"), ("1\u202f245", "245"),
    ("-24", "24"), ("−24", "24"), ("- it is –24", "24"), ("minus 24", "24"), ("negative 24", "24"), ("It is 0.24", "24"),
    (".24", "24"), ("3/4", "4"), ("3/4", "3"), ("12:24", "24"), ("$1.24", "24"), ("24.5", "24"), ("1.000.245", "245"),
    ("15.5 km", "5 km"), ("£1,000", "000"), ("24 million", "24"), ("24-thousand", "24"), ("24 bn", "24"), ("2^24", "24"),
    ("1,5", "5"), ("un-American", "American"), ("non-Jewish", "Jewish"), ("C++", "C"), ("C#", "C"), ("twenty-four", "four"),
    ("forty five", "five"), ("two hundred five", "five"), ("twenty four", "twenty"), ("five million", "five"), ("240", "24"),
    ("24", "-24"), ("24", "0.24"), ("$-24", "24"), ("24th", "24"), ("", "24"), ("24", ""), ("24", "?"),
)  # fmt: skip
WHOLE = (
    ("It is 24.", "24"),
    ("24, I think", "24"), ("(24)", "24"), ("**24**", "24"), ("$24", "24"), ("24%", "24"), ("€24", "24"),
    ("24 km", "24"),
    ("24-hour", "24"), ("24.0", "24"), ("$24.00", "24"), ("24", "24.0"), ("1,245", "1245"), ("1245", "1,245"),
    ("1{,}245", "1,245"), ("1\u00a0245", "1245"), ("2.5 million people", "2.5 million"), ("1939–1945", "1945"),
    ("1939-1945", "1939-1945"), ("1939–1945", "1939-1945"), ("May 5, 2024", "2024"), ("2024-05-01", "2024"),
    ("5/12/2024", "2024"),
    ("12.5.2024", "2024"), ("7,12,19", "12"), ("12345,67890", "67890"), ("-24", "-24"), ("−24", "-24"),
    ("3/4", "3/4"), ("at 12:24", "12:24"), ("B-52", "B-52"), ("in New York.", "new york"), ("O'Brien", "o'brien"),
    ("U.S.", "u.s."),
    ("C++", "C++"), ("24; 25", "25"), ("x=24", "24"), ("twenty-four", "Twenty four"), ("it's four", "four"),
    ("240, but 24", "24"), ("0.24 or 24", "24"), ("24 million, or 24", "24"), ("1.50", "1.5"), ("20", "20"), ("100", "100"),
    ("Answer: 24\nmillion", "Answer"), ("well-known", "known"), ("24 24 24", "24 24"), (".5", ".5"), ("No. 24", "24"),
)  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), APART)
def test_a_part_of_another_value_is_not_contained(text, wanted):
    assert not has_words(text, wanted)


@pytest.mark.parametrize(("text", "wanted"), WHOLE)
def test_whole_words_and_numbers_are_contained(text, wanted):
    assert has_words(text, wanted)


def test_the_scorer_of_contained_words_sees_whole_numbers():
    def right(answer: str) -> bool:
        trace = Trace("t", "b", "1", {"name": "a"}, 0, 0, "", 0.0, nodes=(), calls=(), answer=answer)
        return contains_words(Task("1", "?", secret={"answers": ["24", "Paris"]}), trace).value == 1.0

    assert right("It is 24 km.") and right("paris!") and not right("It is 0.24 km.") and not right("24 million")


def test_hostile_texts_take_time_in_proportion():
    for text in ("24 million " * 5_000, "1,245" * 10_000, "-" * 50_000, "1." * 25_000, "non-" * 12_000):
        assert not has_words(text, "24")


def test_a_negative_amount_is_found_with_and_without_its_currency():
    assert has_words("a loss of -$5", "-5") and has_words("a loss of -5", "-$5") and not has_words("a gain of $5", "-5")
