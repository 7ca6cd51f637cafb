"""Signs that `normalised` keeps because they make another value or name, and those it ignores as SQuAD's rule does."""

from firsthand.scorers.match import normalise, normalised, same_words
from firsthand.scorers.text import f1
from firsthand.task import Task
from firsthand.trace import Trace


def test_a_sign_that_makes_another_value_or_name_counts():
    for one, other in (
        ("5", "-5"), ("15", "1.5"), (".5", "5"), ("34", "3/4"), ("530", "5:30"), ("23", "2^3"), ("5²", "52"),
        ("1½", "11/2"),
        ("53", "5-3"), ("1,5", "15"), ("<5", "5"), ("x<5", "x5"), ("x^2", "x2"), ("- 5", "5"), ("-$5", "5"),
        ("2*3", "23"),
        ("A", "A+"), ("an A-", "A+"), ("C", "C++"), ("C", "C#"), ("AB-", "AB+"), ("A", "An"), ("a", "the"), ("+", "-"),
        ("51", "5+1"), ("51", "5=1"),
        ("51", "5|1"), ("51", "5;1"), ("51", "(5)(1)"), ("51", "5)(1"), ("51", "5?1"), ("51", "5%1"),
        ("ab", "a-b"), ("ab", "a+b"), ("ab", "a*b"), ("x5", "x=5"), ("x", "-x"), ("inf", "-inf"), ("∞", "-∞"),
        ("A", "!A"),
        ("A", "~A"), ("A", "¬A"), ("15", "１．５"), ("A", "Ａ＋"), ("", ""), ("", "."), ("?", "!"), ("A", ""),
    ):  # fmt: skip
        assert not same_words(one, other) and not same_words(other, one), (one, other)
    for dash in "-−‐‑–—－":
        assert same_words(f"{dash}5", "-5") and not same_words(f"{dash}5", "5"), dash


def test_signs_of_writing_are_ignored():
    for one, other in (
        ("the Eiffel tower.", "Eiffel Tower"), ("a", "A"), ("A.", "A"), ("**A**", "a"), ("A+", "an a+"),
        ("1,000", "$1000"),
        ("1,234,567", "1234567"), ("5%", "5"), ("well-known", "wellknown"), ("B-52", "B52"), ("U.S.", "US"), ("5.", "5"),
        ("5!", "5"), ("(5)", "5"), ('"5"', "5"), ("1990–95", "1990-95"), ("don't", "dont"), ("C++.", "C++"), ("_x_", "x"),
        ("H₂O", "H2O"), ("Saint–Denis", "saint-denis"), ("#5", "5"), ("?", "?"), ("- A", "A"),
        ("T-shirt", "tshirt"), ("R&B", "RB"), ("e-mail", "email"), ("~5", "5"),
        ("(a)", "a"), ("A!", "A"), ("-well", "well"), ("ＡＢＣ", "abc"),
    ):  # fmt: skip
        assert same_words(one, other) and same_words(other, one), (one, other)
    assert normalise("1.5") == "15", "the form of SQuAD, which token_f1 compares, stays as published"


def test_the_scorer_tells_them_apart():
    trace = Trace("t", "b", "1", {"name": "a"}, 0, 0, "", 0.0, nodes=(), calls=(), answer="5")
    assert normalised(Task("1", "?", secret={"answer": "-5"}), trace).value == 0.0
    assert normalised(Task("1", "?", secret={"answer": "5."}), trace).value == 1.0


def test_intervals_and_operators_beside_numbers_are_other_values():
    for one, other in (
        ("[0,1)", "[0,1]"), ("(0,1]", "[0,1]"), ("(-∞, 3]", "(-∞, 3)"), ("]0,1[", "[0,1]"),
        ("[0;1)", "[0;1]"),
        ("(-inf, 3]", "(-inf, 3)"), ("(0, infinity)", "[0, infinity)"), ("[0,2π)", "[0,2π]"), ("$[a,b)$", "[a,b]."),
        ("[1,000, 2,000)", "[1,000, 2,000]"), ("]0,1]", "[0,1["), ("]0,1[", "[0,1)"),
        ("x+10", "x10"), ("pi/2", "pi2"), ("x=50", "x50"), ("2/pi", "2pi"), ("10+pi", "10pi"), ("50=x", "50x"),
        ("O(n)", "O(n!)"), ("-y x+10", "-y x10"),
    ):  # fmt: skip
        assert not same_words(one, other) and not same_words(other, one), (one, other)
    for one, other in (
        ("]0,1[", "(0,1)"), ("[0,1[", "[0,1)"), ("(3,4)", "3,4"), ("0,1", "[0,1]"), ("0,1", "[0,1)"),
        ("(1990, 1995)", "[1990, 1995]"), ("Paris [1, 2]", "Paris (1, 2)"), ("x in [0, 1)", "x in [0, 1]"),
        ("[1, 2) and [3]", "[1, 2] and [3]"), ("HTTP/2", "HTTP2"), ("x/50 km", "x50 km"), ("*sin*2", "sin2"),
        ("B*12*", "B12"), ("the 24/7 O(n!)", "24/7 O(n)"),
        ("(Paris, France)", "[Paris, France]"),
        ("[A, B]", "(A, B)"), ("[1]", "(1)"), ("COVID-19", "COVID19"), ("2*pi", "2pi"), ("and/or", "andor"),
        ("(plan B!)", "plan B"), ("f(5, 6)", "f[5, 6]"),
    ):  # fmt: skip
        assert same_words(one, other) and same_words(other, one), (one, other)


def test_punctuation_of_any_script_is_ignored():
    for one, other in (
        ("北京。", "北京"), ("「東京」", "東京"), ("¿Madrid?", "Madrid"), ("القاهرة؟", "القاهرة"),
        ("दिल्ली।", "दिल्ली"), ("•Paris", "Paris"),
        ("Paris、", "Paris"), ("“Paris”", "Paris"), ("Paris…", "Paris"),
    ):  # fmt: skip
        assert same_words(one, other) and same_words(other, one), (one, other)
    assert f1("“Paris”", "Paris") == 0, "SQuAD's F1 is as published"
    for one, other in (
        ("5‰", "5"), ("5‱", "5"), ("f‴", "f"), ("⌈x⌉", "x"),
        ("1⎟2", "12"), ("3′", "3″"), ("f′", "f"), ("a·b", "ab"), ("⌊x⌋", "x"), ("⌈x⌉", "⌊x⌋"), ("1、2", "12"),
        ("1\U0010fff02", "12"),
        ("1\U000e00202", "12"),
    ):  # fmt: skip
        assert not same_words(one, other) and not same_words(other, one), (one, other)
