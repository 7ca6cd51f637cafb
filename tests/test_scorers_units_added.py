"""Words and signs that an answer adds to its reference: units that the question allows, none that change the value."""

import pytest

from firsthand.scorers.mathematics.high_precision import near
from firsthand.scorers.mathematics.quantities import may_be_added
from firsthand.scorers.symbolic import boxed, comparison
from firsthand.task import Task
from firsthand.trace import Trace


def right(answer: str, reference: str, question: str = "?") -> bool:
    trace = Trace("t", "b", "1", {"name": "a"}, 0, 0, "", 0.0, nodes=(), calls=(), answer=rf"so \boxed{{{answer}}}")
    return boxed(Task("1", question, secret={"answer": reference}), trace).value == 1.0


@pytest.mark.parametrize(
    "added",
    [
        r"\text{ million}",
        " thousand",
        r"\text{ dozen}",
        r"\text{ pi}",
        r"\text{ squared}",
        r"\text{ over two}",
        r"\text{k}",
        r"\text{ factorial}",
        r"\text{ or maybe six}",
        r"\text{ (wrong)}",
        r"\approx 999",
        r"\text{ in base two}",
        r"\text{ halves}",
        r"\text{ to }7",
        r"\text{ bananas}",
        r"^\circ",
        r"\%",
        r"\text{ cubed}",
        r"\text{ minus one}",
    ],
)
def test_words_and_signs_that_change_a_value_are_wrong(added):
    for reference in ("9", r"\frac{14}{3}", "x+1"):
        assert not right(reference + added, reference)
    assert not right(r"\text{not }x=5", "x=5") and not right(r"\text{minus }5", "5")
    if added not in (r"^\circ", r"\%", r"\text{k}", r"\text{ bananas}"):
        assert not comparison("9" + added, "9")[0], "nor where the question is not known"


def test_units_that_the_question_allows_may_be_added():
    for answer, reference, question in (
        (r"5\text{ cm}", "5", "How long is it?"),
        (r"5\text{ cm}", "5", "How many centimeters?"),
        ("5 ways", "5", "?"),
        (r"12\text{ square units}", "12", "?"),
        (r"5\text{ bananas}", "5", "How many bananas?"),
        (r"30^\circ", "30", "the angle x"),
        (r"30^\circ", "30", "in degrees"),
        (r"20\%", "20", "What percent?"),
        (r"20\%", "20", r"Find $x\%$ of 3"),
        (r"\$5", "5", "It costs \\$3."),
        (r"5\text{ m}", "5", r"50 cm by 2 m; in m"),
        (r"5\text{ miles per hour}", "5", "?"),
        (r"5\text{ mph}", "5", "20 miles"),
        (r"5\text{ cm}^2", "5", "the area"),
        (r"5\text{ cm}^2", "5", "Area of it?"),
        (r"5\text{ cubic cm}", "5", "VOLUME of it?"),
        (r"5\text{ pages per day}", "5", "At what Rate does he read pages a day?"),
        (r"50\%", r"\frac12", "?"),
        (r"x=\frac{10}{3}\approx 3.33", r"\frac{10}{3}", "?"),
        (r"2\pi\approx 6.28", r"2\pi", "?"),
        (r"5\text{ million}", "5000000", "?"),
        (r"\$2.5\text{ million}", "2,500,000", r"How many \$?"),
    ):
        assert right(answer, reference, question), (answer, question)
    for answer, reference in (
        ("5", r"5\text{ bananas}"),
        ("30", r"30^\circ"),
        ("20", r"20\%"),
        ("5", r"\$5"),
        ("5", "5 cm"),
    ):
        assert right(answer, reference), "a unit of the reference may be left out"


def test_a_unit_of_another_size_than_the_question_asks_for_may_not():
    assert not right(r"5\text{ cm}", "5", "How many feet?") and right(r"5\text{ ft}", "5", "How many feet?")
    assert not right("5 cents", "5", "How many dollars?") and not right(r"5\text{ radians}", "5", "in degrees")
    assert not right(r"5^\circ", "5", "the angle in radians") and right(r"5\text{ radians}", "5", "in radians")
    assert not right(r"5\text{ inches}", "5", "How many feet are in a mile?")
    assert right(r"5\text{ inches}", "5", "a side of 5 in")


def test_a_bare_unit_of_the_reference_is_no_leave_to_add_any_words():
    assert not right(r"5\text{ bananas}", r"5\text{ units}") and right(r"5\text{ cm}", r"5\text{ units}")


def test_an_approximation_is_within_a_tenth():
    assert near(["num", "10"], ["num", "11"]) and not near(["num", "10"], ["num", "11.01"])
    assert not near(["num", "10"], ["num", "-10"]) and not near(["var", "x"], ["num", "1"])


def test_dashes_of_unicode_are_minus():
    for dash in "‐‑‒–—―−➖－":
        assert right(f"{dash}5", "-5") and not right(f"{dash}5", "5"), dash


def test_a_time_is_no_fraction_unless_the_question_speaks_of_a_ratio():
    for answer, reference in (
        ("10:30", r"\frac13"),
        (r"\frac{1}{3}", "10:30"),
        ("x=10:30", "1/3"),
        ("9:45", "0.2"),
        ("24:00", r"\infty"),
    ):
        assert comparison(answer, reference, "The answer is: when does the 9:15 start?") == (False, "text")
        assert not comparison(answer, reference)[0]
    for answer, reference in (
        ("10:30", "10:30"),
        ("10:30", "1:3"),
        ("1:3", "10:30"),
        ("3:4", r"\frac34"),
        ("10 : 30", "10:30"),
        ("2:65", r"\frac{2}{65}"),
    ):
        assert comparison(answer, reference, "What is the ratio?")[0], answer
    for question in (
        "What is the ratio of boys to girls?",
        "What are the odds?",
        "Find $a:b$.",
        "In what proportion?",
        "On which Scale?",
    ):
        assert comparison("10:30", r"\frac13", question)[0]


@pytest.mark.parametrize(
    ("question", "right", "wrong"),
    [
        ("What is the distance in meters between the two trees?", "m meters metres", "km feet cm miles ft kilometers"),
        ("What is the mass in grams?", "g grams", "kg mg pounds"),
        ("What is the distance, in kilometers?", "km kilometers", "m feet"),
        ("What is the height in feet of its $m$ floors?", "feet ft", "km inches"),
        (r"A pole is $5\text{ m}$ high. How long is its shadow?", "m meters", "km feet"),
        ("A pole is 5 m high. How long is its shadow?", "m meters", "km feet"),
        ("If $5 m + g = 20$, how long is the road?", "m km feet g kg", ""),
        ("How long in minutes?", "minutes min", "hours seconds"),
    ],
)
def test_a_unit_of_the_measure_that_the_question_names_otherwise_is_wrong(question: str, right: str, wrong: str):
    assert [each for each in right.split() if not may_be_added(each, question)] == []
    assert [each for each in wrong.split() if may_be_added(each, question)] == []


@pytest.mark.parametrize(
    "names",
    [
        ("g", "gm", "gms", "grams"),
        ("m", "meters", "metres"),
        ("s", "sec", "seconds"),
        ("h", "hr", "hours"),
        ("in", "inches"),
        ("min", "minutes"),
        ("kg", "kgs", "kilograms"),
        ("cm", "cms", "centimeters"),
        ("mm", "mms", "millimeters"),
        ("km", "kms", "kilometers"),
        ("yd", "yds", "yards"),
        ("oz", "ounces"),
        ("l", "L", "liters", "litres"),
        ("ml", "mL", "milliliters"),
        ("V", "V"),
        ("m/s", "meters per second"),
        ("m^2", "square meters"),
    ],
)
def test_a_unit_has_its_letters_and_its_names_in_text_or_not(names):
    for written in names:
        for meant in names:
            reference = rf"12\text{{ {meant}}}" if "^" not in meant else r"12\text{ m}^2"
            for answer in (f"12 {written}", f"12{written}", rf"12\text{{ {written}}}"):
                if (written, meant) not in (("m^2", "m^2"), ("V", "V")) or "text" not in answer:
                    assert comparison(answer, reference, "What is it?")[0], (answer, reference)
                assert not comparison(answer.replace("12", "13"), reference, "What is it?")[0]
        assert (
            not comparison(f"12 {written}", r"12\text{ days}", "?")[0]
            and not comparison(f"12 {written}", "12 x", "?")[0]
        )


def test_letters_are_variables_where_the_reference_has_no_such_unit():
    assert not comparison("12 g", "12", "How many grams?")[0] and not comparison("12 m", r"12\text{ g}", "?")[0]
    assert not comparison("12 m", r"12\text{ units}", "Solve for m.")[0]
    assert not comparison("12 s", r"12\text{ m}", "?")[0] and not comparison("12 g", r"12\%", "?")[0]
    assert not comparison("2gm", "2mg", "in terms of m and g")[0] and comparison("2 g m", "2 m g", "?")[0]
    assert comparison(r"h \cdot 5\text{ m}", r"5h\text{ m}", "?")[0]
    assert comparison(r"\pm 3 g, 5 g", r"\pm 3\text{ g}, 5\text{ grams}", "?")[0]
    assert comparison(r"5h\text{ hours}", r"h \cdot 5\text{ hours}", "?")[0], "a variable may be a letter of the unit"
    assert comparison("(3 g, 5 m)", r"(3\text{ g}, 5\text{ m})", "?")[0]
