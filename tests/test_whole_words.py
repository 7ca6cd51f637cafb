"""Words and numbers are found in a text as wholes, and not as the tail or the beginning of another value."""

import pytest

from cpu_time import at_most_cpu_s
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


def test_a_dotted_name_keeps_its_noughts():
    for text, wanted in (
        ("192.168.1.10", "192.168.1.1"), ("10.0.0.100", "10.0.0.1"), ("v1.2.30", "v1.2.3"), ("section 4.2.10", "4.2.1"),
        ("see 1.10.x", "1.1"), ("Python 3.10 has it", "Python 3.1"),
        ("python 3.10", "Python 3.1"),
        ("It is 4.2.10", "4.2.1"), ("VERSION 3.10", "3.1"), ("versions 3.10", "3.1"), ("CUDA 12.10", "CUDA 12.1"),
        ("ver. 3.10", "3.1"), ("sections 3.10", "3.1"), ("chapter 3.10", "3.1"), ("clause 3.10", "3.1"),
        ("Python 3.1", "Python 3.10"), ("version 3.10", "3.1"), ("§ 3.10", "3.1"),
        ("§3.10", "3.1"), ("It is **Python 3.10**", "Python 3.1"), ("It is Llama-3.10", "Llama-3.1"),
        ("It came in Version 3.10", "3.1"), ("v3.1.0", "v3.1"),
    ):  # fmt: skip
        assert not has_words(text, wanted), (text, wanted)
    for text, wanted in (
        ("192.168.1.10.", "192.168.1.10"), ("It is in Python 3.10.", "3.10"), ("Python 3.10", "python 3.10"),
        ("section 4.2.10", "4.2.10"), ("§ 3.10", "3.10"),
    ):  # fmt: skip
        assert has_words(text, wanted), (text, wanted)


def test_the_noughts_of_an_amount_do_not_count():
    for text, wanted in (
        ("It costs 3.50.", "3.5"), ("It costs $3.50", "$3.5"), ("About 3.50 m", "3.5"), ("It is Euro 3.50", "3.5"),
        ("a pH of 7.40", "7.4"), ("USD 3.50", "USD 3.5"), ("x = 2.50", "x = 2.5"), ("Total: 3.50", "3.5"),
        ("3.5", "3.50"),
        ("Rs.3.50", "3.5"), ("1:23.450", "1:23.45"), ("It is Web 2.0", "Web 2"), ("Llama 2", "Llama 2.0"),
        ("1.50.Next", "1.5"),
        ("In Paris, 3.50 m", "3.5"), ("It is Python 3.1, at 3.10", "3.1"), ("Python 3.10 at 3.10", "Python 3.10"),
        ("Net Pay 1250.50", "1250.5"), ("Net Pay 1250.5", "1250.50"), ("the winner was Biles 15.80", "15.8"),
        ("at Tesla 250.00 and Apple 150.50", "150.5"), ("In March 2.50 and in April 3.50", "3.5"),
        ("My Answer 3.50", "3.5"), ("They paid Ksh 12.50", "12.5"), ("it releases 3.50 kJ", "3.5"),
        ("the final figure 3.50", "3.5"), ("Table 3.0", "3"), ("It is in Python 3.10.", "3.1"),
    ):  # fmt: skip
        assert has_words(text, wanted), (text, wanted)


def test_the_minus_of_a_grade_or_an_ion_makes_another_one():
    for text, wanted in (
        ("A-", "A"), ("rated A- or better", "A"), ("AB-", "AB"), ("BBB-", "BBB"), ("**A-**", "A"), ("A−", "A"),
        ("A‑", "A"), ("(A–)", "A"), ("A- and B+", "A"), ("A-.", "A"), ("It is $B^-$", "B"), ("| A- |", "A"),
        ("A-\nGood work", "A"), ("(A-)", "A"), ("CC-", "CC"), ("A-", "$A$"),
        ("A", "A-"), ("A+", "A-"), ("Cl", "Cl-"), ("Cl", "Cl⁻"), ("A-level", "A-"), ("BBB", "BBB-"), ("A - because", "A-"),
        ("NO3", "NO3-"), ("A->B", "A-"), ("A--b", "A-"),
    ):  # fmt: skip
        assert not has_words(text, wanted), (text, wanted)
    for text, wanted in (
        ("rated A-.", "A-"), ("A−", "A-"), ("A‑", "a-"), ("A‐", "A-"), ("BBB‑ it is", "BBB-"), ("A minus", "A-"),
        ("A-minus", "A-"), ("A–", "A-"), ("A- because", "A-"),
        ("Cl⁻", "Cl-"), ("Cl-", "Cl⁻"), ("$\\text{Cl}^-$", "Cl-"), ("\\mathrm{Cl^-}", "Cl-"), ("Cl^{-}", "Cl-"),
        ("Cl^{1-}", "Cl-"), ("O⁻", "O-"), ("NO3-", "NO3-"), ("Cl-", "$Cl^-$"), ("OH^-", "OH-"),
    ):  # fmt: skip
        assert has_words(text, wanted), (text, wanted)


def test_a_hyphen_behind_any_other_word_is_a_dash():
    for text, wanted in (
        ("US- and UK-based", "US"), ("B- and T-cells", "B"), ("A-, B- and C-type", "A"), ("A: 5", "A"),
        ("A--because", "A"), ("A - because", "A"), ("A – because", "A"), ("A– because", "A"), ("A- because", "A"),
        ("A – **Paris**", "A"), ("A - (Paris)", "A"), ("A->B", "A"), ("US-based", "US"), ("word- and", "word"), ("A-b", "A"),
        ("no- it is", "no"), ("Yes- it is.", "yes"), ("Yes-", "Yes"), ("USA-", "USA"), ("Tom- 24", "Tom"), ("UK- US", "UK"),
        ("one- as well as two-way", "one"), ("a-, b", "A"), ("Cl-", "Cl"), ("No", "No"), ("grade A-", "grade A"),
        ("non‑Jewish", "Jewish"),
    ):  # fmt: skip
        assert has_words(text, wanted), (text, wanted)


def test_the_parts_of_a_difference_that_is_worked_out_are_operands():
    for text, wanted in (
        ("24 - 1 = 23", "24"), ("25-1=24", "1"), ("24−1 = 23", "24"), ("$24 - $1 = $23", "24"), ("2.5 - 1.5 = 1", "2.5"),
        ("0.3 - 0.1 = 0.2", "0.3"),
    ):  # fmt: skip
        assert not has_words(text, wanted), (text, wanted)
    for text, wanted in (
        ("25 - 1 = 24", "24"), ("24−1", "24"), ("1914−1918", "1914"), ("1914−1918", "1918"), ("18−24 years", "18"),
        ("pp. 10−24", "10"), ("10 − 12 hours", "12"), ("5−10%", "10%"), ("between 1939 − 1945", "1945"),
        ("1990-1995 = five years", "1990"), ("1990-1995 = 5 years", "1990"), ("Page 10-12 = intro", "12"),
        ("2024-05-04 = 1", "04"), ("1939 - 1945", "1945"), ("1939-1945", "1939"), ("24 - 1 = 23.5", "24"),
    ):  # fmt: skip
        assert has_words(text, wanted), (text, wanted)


def test_texts_without_blanks_are_found_by_characters():
    for text, wanted in (
        ("答案是东京。", "东京"), ("東京です", "東京"), ("답: 東京", "東京"), ("是Paris。", "Paris"),
        ("答案是24个", "24"),
        ("第24回", "24"), ("24，万", "万"), ("インドの首都", "インド"), ("2020年5月4日", "5月4日"),
        ("五十个", "五十"), ("三菱UFJ", "三菱"),
        ("𠮷野家です", "𠮷野家"), ("佐々木です", "佐々木"), ("共24，一共", "24"), ("ひらがな", "らが"),
        ("重量是 24 千克", "24"), ("24千克", "24"), ("功率24千瓦", "24"),
        ("24 百分点", "24"), ("24百分点", "24"),
        *((f"24{each}", "24") for each in ("千米", "千卡", "千赫", "千帕", "千伏", "千安", "千焦", "千升", "千牛")),
        ("24千欧", "24"), ("24千字节", "24"),
        *((f"24{each}", "24") for each in ("百帕", "兆字节", "兆比特", "兆帕", "兆瓦", "兆赫", "兆焦", "兆伏", "兆欧")),
        ("24 万元", "24"), ("第十 24 号", "24"), ("一百东京", "东京"), ("东京千人", "东京"),
        ("百分之五", "五"), ("百分之24", "24"), ("24分", "24"),
    ):  # fmt: skip
        assert has_words(text, wanted), (text, wanted)
    for text, wanted in (
        ("一二三", "二"), ("二〇二四", "二四"), ("24万", "24"), ("3万5000", "5000"), ("五十", "五"),
        ("24千円", "24"), ("24百万", "24"), ("24兆円", "24"), ("24亿", "24"), ("24億", "24"),
        ("三分之一", "一"), ("三分之一", "三"), ("百分之五", "百"), ("3分之1", "3"),
        *((f"24{each}人", "24") for each in "十百千万萬億亿兆"), *((f"3{each}24", "24") for each in "十百千万萬億亿兆"),
        ("二十五", "五"), ("十一月", "一月"), ("二点五", "二"),
        ("负24", "24"), ("負五", "五"), ("インドネシア", "インド"), ("ｲﾝﾄﾞﾈｼｱ", "ｲﾝﾄﾞ"), ("東京", "京都"),
        ("24东京", "4东京"),
        ("Parisの", "Par"), ("24th回", "24"),
    ):  # fmt: skip
        assert not has_words(text, wanted), (text, wanted)


def test_each_character_without_blanks_ends_a_word_of_letters():
    for each in "東々〇ひアｱ㐂𠮷﨑":
        assert has_words(f"A{each}", "A") and has_words(f"{each}A", "A"), each
    assert not has_words("Un-American", "American")


def test_texts_of_names_minuses_and_numerals_take_time_in_proportion():
    for text in (
        "at Python 3.10 " * 1_000,
        "A-, " * 3_000,
        "24 - " * 2_500,
        "24 - 1 = " * 1_500,
        "A- \n" * 3_000,
        "十" * 12_000,
        "ア" * 12_000,
        "東" * 12_000,
    ):
        with at_most_cpu_s(3):
            assert has_words(text, "3.1") == ("3.10" in text) and not has_words(text, "A 24 十")


def test_words_are_compared_composed() -> None:
    assert has_words("in Zu\u0308rich", "Z\u00fcrich") and has_words("in Z\u00fcrich", "Zu\u0308rich")
