"""Units that are left off, or added, where they stand on parts of an answer; angles of functions in degrees."""

import pytest

from firsthand.scorers.mathematics.latex import parse
from firsthand.scorers.symbolic import comparison

SHAPES = (
    "{0}5{1}",
    "-5{1}",
    r"\pm 5{1}",
    "-5{1}, 135{1}",
    "5{1} or -5{1}",
    "x=-5{1}",
    r"x=\pm 5{1}",
    "(-30{1}, 30{1})",
    r"\{{-5{1}, 7{1}\}}",
    "[-5{1}, 7{1}]",
    r"-\frac{{5}}{{2}}{1}",
    r"\frac{{-5{1}}}{{2}}",
    "-2.5{1}",
    "20{1} < x < 30{1}",
    r"x \le -5{1}",
    "5{1} < x",
    r"30{1} \pm 5{1}",
)
UNITS = {
    r"^\circ": "Find the value in degrees.",
    r"^{\circ}": "What is the angle?",
    "°": "How many degrees?",
    r"\%": "By what percent does it change?",
    r"\text{ m}": "How many m?",
    r"\text{ degrees}": "Find the value in degrees.",
}


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_unit_may_be_left_off_and_added_in_every_shape(unit, shape):
    stated, bare = shape.format("", unit), shape.format("", "")
    assert comparison(bare, stated, UNITS[unit])[0], "left off"
    assert comparison(stated, bare, UNITS[unit])[0], "added where the question asks for it"
    other = bare.replace("5", "6").replace("30", "31")
    assert not comparison(other, stated, UNITS[unit])[0] and not comparison(stated, other, UNITS[unit])[0]
    if "-" in bare:
        assert not comparison(bare.replace("-", "", 1), stated, UNITS[unit])[0]


def test_a_unit_is_not_added_in_any_shape_where_the_question_asks_for_none():
    for unit in (r"^\circ", r"\%", r"\text{ bananas}"):
        for shape in SHAPES[1:]:
            assert not comparison(shape.format("", unit), shape.format("", ""), "Find it.")[0], (unit, shape)


def test_degrees_are_left_off_expressions_with_variables():
    question = "What is the angle, in degrees, in terms of x?"
    for stated, bare in (
        (r"180^\circ - 2x", "180-2x"),
        (r"90^\circ - x", "-x+90"),
        (r"(90-x)^\circ", "90-x"),
        (r"n\cdot 180^\circ", "180n"),
        (r"3n^\circ", "3n"),
        (r"\frac{360^\circ}{n}", "360/n"),
        (r"30^\circ + 360^\circ k", "30+360k"),
        (r"x + y = 90^\circ", "x+y=90"),
        (r"|x - 30^\circ| < 5^\circ", "|x-30|<5"),
    ):
        assert comparison(bare, stated, question)[0] and comparison(stated, bare, question)[0], stated
        assert not comparison(bare + "+1", stated, question)[0], stated
    assert comparison(r"\pi - 2x", r"180^\circ - 2x", question)[0], "the value of the degrees counts as before"
    assert comparison(r"-\frac{\pi}{6}", r"-30^\circ", question)[0]
    assert not comparison(r"90^\circ - x", "90-x", "Find it in radians.")[0]


def test_a_temperature_below_zero_is_a_number_of_its_scale():
    assert parse(r"-5^\circ\text{C}") == parse(r"-5\text{ C}") and parse(r"\pm 5^\circ\text{C}") == parse(
        r"\pm 5\text{ C}"
    )
    assert comparison("-5", r"-5^\circ\text{C}", "What is the temperature?")[0]
    assert not comparison("5", r"-5^\circ\text{C}", "What is the temperature?")[0]
    assert parse(r"5\% \text{ acid}") == ["quantity", ["percent", ["num", "5"]], "acid"]


def test_a_percent_sign_on_part_of_a_value_stays():
    question = "By what percent?"
    for stated, bare in (
        (r"5\% x", "5x"),
        (r"x + 5\%", "x+5"),
        (r"\frac{x}{5\%}", "x/5"),
        (r"\frac{5\%}{x}", "5/x"),
        (r"\sqrt{5\%}", r"\sqrt{5}"),
    ):
        assert not comparison(bare, stated, question)[0] and not comparison(stated, bare, question)[0], stated
    assert comparison("0.05x", r"5\% x", question)[0]
    assert comparison(r"\pm 0.5", r"\pm 0.5\%", question)[0]
    assert not comparison(r"\pm 0.5", r"\pm 0.5\%", "Find it.")[0], "a half is no half percent where none is asked for"


def test_several_units_are_not_left_off_together():
    assert comparison("(-5, 3)", r"(-5^\circ, 3\text{ m})", "Find it.")[0], (
        "values with their units are compared one by one"
    )
    assert comparison(r"x > 5\text{ m}", r"5\text{ m} < x", "It is 9 feet long.")[0], "the reference has the unit, too"
    assert not comparison("5 < x < 6", r"5\text{ m} < x < 6\text{ cm}", "How many m?")[0]
    assert comparison("5 < x < 6", r"5\text{ m} < x < 6\text{ meters}", "How many m?")[0]


def test_a_unit_after_a_sum_is_the_unit_of_all_of_it():
    for bare in (r"24+4\pi", r"2-\sqrt{3}", r"3 \pm 2\sqrt{2}"):
        assert comparison(bare + r"\text{ cm}", bare, "How long is it?")[0]
        assert not comparison(bare + r"\text{ cm}", bare, "How many m is it?")[0]
        assert not comparison(bare + r"\text{ bananas}", bare, "How long is it?")[0]


def test_a_unit_is_not_added_to_a_collection_as_a_whole():
    for bare in ("(1,3)", "[1,3]", r"\{1, 3\}", r"(0,1)\cup(2,3)", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"):
        assert not comparison(bare + r"\text{ m}", bare, "Find it in m.")[0], bare
    assert not comparison(r"3:1\%", "3:1", "Find the ratio as a percent.")[0]


def test_angles_of_functions_are_in_degrees_where_the_question_says_so():
    question = 'Enter a trigonometric function at an integer, such as "sin 7". (The angle is assumed to be in degrees.)'
    for stated, bare in (
        (r"\cos 58^\circ", r"\cos 58"),
        (r"\cos 58^\circ", r"\sin 32"),
        (r"2\cos 15^{\circ}", r"2 \cos(15)"),
        (r"\frac{1}{2}", r"\sin 30"),
        (r"\tan^2 20^\circ", r"\tan^2 20"),
        (r"n \tan \frac{180^\circ}{n}", r"n \tan \frac{180}{n}"),
        (r"\cos(x + 30^\circ)", r"\cos(x+30)"),
        (r"x = \cos 58^\circ", r"x = \cos 58"),
    ):
        assert comparison(bare, stated, question)[0] and comparison(stated, bare, question)[0], (stated, bare)
        for other in (None, "Find it.", "Find it in radians, not in degrees.", r"Find $\cos 3^\circ$.", "of degree 3"):
            assert not comparison(bare, stated, other)[0], (bare, other)
    for wrong in (r"\cos 57", r"\sin 58", "58", r"-\cos 58", r"\cos 58\%", r"\cos \frac{58\pi}{180} + 1"):
        assert not comparison(wrong, r"\cos 58^\circ", question)[0], wrong
    assert comparison(r"\cos \frac{58\pi}{180}", r"\cos 58^\circ", question)[0], "with pi it is in radians"
    assert comparison(r"\sin(\arctan 2) + \cos 60", r"\frac{2}{\sqrt 5} + \frac12", question)[0], (
        "an arc is an angle as it is"
    )
    assert comparison(r"\sin 30", r"\frac12", "It is measured in degree mode.")[0]
    assert comparison(r"\cos 60 + \cos \frac{\pi}{3}", "1", question)[0], "each angle by itself"
