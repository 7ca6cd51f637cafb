"""A sign, factor, size or stroke counts whatever wraps what it changes: emphasis, quotes, brackets, bars, LaTeX."""

import pytest

from firsthand.patterns.parts.answers import extract_answer, parse_number
from firsthand.patterns.parts.boxes import boxed_answer
from firsthand.patterns.parts.wrappers import unwrapped
from firsthand.scorers.contained import best_subspan_em, contains_value, string_match_all
from firsthand.scorers.match import same_number, same_words
from firsthand.scorers.symbolic import boxed
from firsthand.scorers.text import f1
from firsthand.scorers.whole_words import has_words
from made_traces import trace
from opened_context import asks

MINUS_FIVE = ("-**5**", "−**5**", "-`5`", "-*5*", "-_5_", "-(5)", "-[5]", "-{5}", '-"5"', "-'5'", r"-\(5\)",
"-( 5)", "-|5|",
              "**-**5", "`-`5", "(-)5", "(−)5", "[-]5", "(-) 5", "-**`5`**", '"-"5', "_-_5",
              "-\\left(5\\right)", r"-\,5")  # fmt: skip


@pytest.mark.parametrize("text", MINUS_FIVE)
def test_a_minus_before_a_wrapped_number_counts(text):
    assert not same_words(text, "5") and same_words(text, "-5"), unwrapped(text)
    assert not has_words(text, "5") and has_words(text, "-5"), unwrapped(text)
    assert not same_number(text, "5") and parse_number(text) in (None, -5)


def test_signs_beside_wrapped_letters_and_words_make_other_texts():
    for text, plain in (
        ("-**x**", "x"), ("-`x`", "x"), ('-"x"', "x"), ("-(x)", "x"), ("-|x|", "x"), ("|x|", "x"), ("|-5|",
        "-5"), ("-pi", "pi"),
        ("-infinity", "infinity"), ("-sqrt(2)", "sqrt(2)"), ("-ln 2", "ln 2"), ("-(a+b)", "a+b"), ("-(a+b)", "-a+b"),
        ("-(-5)", "-5"), ("-xy", "xy"), ("-true", "true"), ("!valid", "valid"), ("~true", "true"),
        ("¬valid", "valid"),
        ("**A**-", "A"), ("**A**+", "A"), ("(A)+", "A"), ("`C`++", "C"), ("A*", "A"), ("f'(x)", "f(x)"),
        ("f''(x)", "f'(x)"),
        ("f’(x)", "f(x)"), ("**1**.5", "15"), ("**x**-**y**", "xy"), ("~~Paris~~", "Paris"), ("-well", "well"),
    ):  # fmt: skip
        assert not same_words(text, plain) and not same_words(plain, text), (text, unwrapped(text))
        assert same_words(text, text) or text == "~~Paris~~", text


def test_wrappers_without_a_sign_beside_them_change_nothing():
    for text, plain in (
        ("**Paris**", "Paris"), ("- **Paris**", "Paris"), ("*5*", "5"), ("'Vitamin A'", "Vitamin A"),
        ("(5)", "5"), ("|5|", "5"),
        ("[x]", "x"), ("`x`", "x"), ("he'll", "hell"), ("- A", "A"), ("O'Brien", "OBrien"), ("**New**-York",
        "New York"),
        ("(R)-butanol", "Rbutanol"), ("-Paris\n-Rome", "Paris Rome"), ("“A”", "A"), ("~5", "5"), ("5!",
        "5"), ("\\(x\\)", "x"),
        ("Wow!", "wow"), ("a|b|c", "a|b|c"), ("2**3", "2**3"), ("the *Iliad*, (1,000)", "Iliad 1000"),
        ("+5 (five)", "5 five"),
    ):  # fmt: skip
        assert same_words(text, plain) and same_words(plain, text), (text, unwrapped(text))


def test_a_text_contains_no_word_or_number_with_a_sign_or_stroke_against_it():
    for text, word in (
        ("5\u0336", "5"), ("5\u0338", "5"), ("5\u20e0", "5"), ("5\u20dd", "5"), ("x\u0304", "x"),
        ("2\u20df4242", "24242"),
        ("~~24~~ 25", "24"), ("±5", "5"), ("≠5", "5"), ("<**5**", "5"), ("x >5", "5"), ("-x", "x"), ("so -pi", "pi"),
        ("-sqrt(2)", "sqrt(2)"), ("-East", "East"), ("Answer: -ln 2", "ln 2"), ("-(a+b)", "a+b"), ("-|x|",
        "x"), ("!valid", "valid"),
        ("~true", "true"), ("f'(x)", "f(x)"), ("**A**+", "A"), ("**A**-", "A"), ("A*", "A"), ("2(5)", "5"),
        ("x", "-x"),
    ):  # fmt: skip
        assert not has_words(text, word) and (has_words(text, text) or "~~" in text), (text, word)
    for text, word in (
        ("-Paris\n-Rome", "Paris"), ("Paris -- or Rome", "Rome"), ("It is `24`.", "24"), ("\"24\"", "24"),
        ("('24')", "24"),
        ("5\ufe0f\u20e3", "5"), ("<b>5</b>", "5"), ("<5>", "5"), ("> 5", "5"), (">5", "5"), ("so => 5",
        "5"), ("~24 km", "24"),
        ("≈24", "24"), ("well-known", "known"), ("a ~ b", "b"), ("Ha!Paris", "Paris"), ("the students' A",
        "A"), ("A- Paris", "A"),
        ("'Vitamin A'", "A"), ("plan A's end", "A"), ("see (5)", "5"), ("in 2020 (24 men)", "24"),
        ("e\u0301té", "été"),
        ("x ->5", "5"), ("[5](https://a.b)", "5"), ("**24** and *25*", "25"),
    ):  # fmt: skip
        assert has_words(text, word), (text, word, unwrapped(text))


FACTORS = (r"2(\boxed{5})", r"$2[\boxed{5}]$", r"$2\left(\boxed{5}\right)$",
r"$2 \left( \boxed{5} \right)$", r"$2 (\boxed{5})$",
           r"-1(\boxed{5})", r"(-1)(\boxed{5})", r"$\frac12(\boxed{5})$", r"$-|\boxed{5}|$",
           r"\text{-}\boxed{5}", "$-$\n$\\boxed{5}$",
           r"\boxed{5}\,000", r"\boxed{5} 000", r"\boxed{5}\mathrm{k}", r"$(-)\boxed{5}$",
           r"$3\{\boxed{5}\}$", r"$-2\boxed{5}$",
           r"$3\boxed{5}$")  # fmt: skip


@pytest.mark.parametrize("text", FACTORS)
def test_a_factor_sign_or_size_around_a_box_counts_in_every_reader(text):
    def value(answer):
        return boxed(asks("Find x.", secret={"answer": "5"}), trace("a", answer=answer)).value

    assert value(text) == 0.0, boxed_answer(text)
    number = extract_answer(text, asks("Find x.", hint="a number"))
    assert not same_number(number or "", "5") and not same_number(number or "", "35"), number
    words = extract_answer(text, asks("Find x."))
    assert not same_words(words or "", "5"), words


def test_brackets_bars_and_units_without_a_factor_leave_a_box_as_it_is():
    for text in (r"(a) \boxed{5}", r"the sum (\boxed{5})", r"Question 3 (\boxed{5})", r"$x = (\boxed{5})$",
    r"[\boxed{5}]",
                 r"| 2 | \boxed{5} |", r"\boxed{5}[1]", r"\boxed{5}\,\text{kg}", r"\boxed{5}\,\mathrm{K}",
                 r"$|\boxed{5}|$",
                 "8 -\n\\boxed{5}", "- \n\\boxed{5}", r"$n = 3$ (\boxed{5})"):  # fmt: skip
        assert boxed(asks("Find x.", secret={"answer": "5"}), trace("a", answer=text)).value == 1.0, boxed_answer(text)
    assert boxed(asks("Find x.", secret={"answer": "-5"}), trace("a", answer=r"$|\boxed{-5}|$")).value == 0.0
    assert boxed(asks("Find x.", secret={"answer": "-5"}), trace("a", answer=r"| \boxed{-5} |")).value == 1.0
    assert extract_answer(r"So \boxed{Paris}.", asks("Where?")) == "Paris"


def test_a_reference_that_squads_rule_empties_is_compared_as_it_is_written():
    for reference in ("A", "The", "+"):
        for answer in ("", "-", "!!!", "I do not know", "an"):
            assert f1(answer, reference) == 0.0
            given = trace("a", answer=answer)
            assert best_subspan_em(asks("?", secret={"answer": reference}), given).value == 0.0
        assert f1(reference, reference) == 1.0
        given = trace("a", answer=f"{reference}\nmore")
        assert best_subspan_em(asks("?", secret={"answer": reference}), given).value == 1.0
    assert f1("", "") == 1.0 and f1("the", "") == 1.0 and f1("a cat", "cat") == 1.0
    for scorer in (contains_value, string_match_all, best_subspan_em):
        assert scorer(asks("?", secret={"answer": ""}), trace("a", answer="wrong")).value == 0.0


def test_unwrapping_takes_time_by_the_length():
    for text in ("-(" * 3_000, "'x " * 3_000, "**" * 3_000, "-|5" * 3_000, "`" * 3_000, "~~a" * 3_000, "[-" * 3_000):
        assert not has_words(unwrapped(text), "24")
