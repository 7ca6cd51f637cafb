"""Signs that `normalised` keeps because they make another value or name, and those it ignores as SQuAD's rule does."""

from firsthand.scorers.match import normalise, normalised, same_words
from firsthand.task import Task
from firsthand.trace import Trace


def test_a_sign_that_makes_another_value_or_name_counts():
    for one, other in (
        ("5", "-5"), ("15", "1.5"), (".5", "5"), ("34", "3/4"), ("530", "5:30"), ("23", "2^3"), ("5²", "52"), ("1½", "11/2"),
        ("53", "5-3"), ("1,5", "15"), ("<5", "5"), ("x<5", "x5"), ("x^2", "x2"), ("- 5", "5"), ("-$5", "5"), ("2*3", "23"),
        ("A", "A+"), ("an A-", "A+"), ("C", "C++"), ("C", "C#"), ("AB-", "AB+"), ("A", "An"), ("a", "the"), ("+", "-"),
        ("51", "5+1"), ("51", "5=1"),
        ("51", "5|1"), ("51", "5;1"), ("51", "(5)(1)"), ("51", "5)(1"), ("51", "5?1"), ("51", "5%1"),
        ("ab", "a-b"), ("ab", "a+b"), ("ab", "a*b"), ("x5", "x=5"), ("x", "-x"), ("inf", "-inf"), ("∞", "-∞"), ("A", "!A"),
        ("A", "~A"), ("A", "¬A"), ("", ""), ("", "."), ("?", "!"), ("A", ""),
    ):  # fmt: skip
        assert not same_words(one, other) and not same_words(other, one), (one, other)
    for dash in "-−‐‑–—－":
        assert same_words(f"{dash}5", "-5") and not same_words(f"{dash}5", "5"), dash


def test_signs_of_writing_are_ignored():
    for one, other in (
        ("the Eiffel tower.", "Eiffel Tower"), ("a", "A"), ("A.", "A"), ("**A**", "a"), ("A+", "an a+"), ("1,000", "$1000"),
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
