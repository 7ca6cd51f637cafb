"""What stands directly against a box belongs to its value; a unit, a reason or a bullet does not."""

import pytest

from firsthand.patterns.parts.answers import _is_otherwise, extract_answer, parse_number
from firsthand.patterns.parts.boxes import boxed_answer, last_boxed, line_of_box
from firsthand.scorers.symbolic import boxed, minerva
from made_traces import trace
from opened_context import asks

FIVE = (
    r"\boxed{5}", r"$\boxed{5}$.", r"\[\boxed{5}\]", r"$$\boxed{5}$$", r"x = \boxed{5}", r"$x=\boxed{5}$",
    r"\boxed{5}!", r"- \boxed{5}", r"- $\boxed{5}$", r"* **\boxed{5}**", r"the answer is\boxed{5}", r"so - \boxed{5}",
    r"answer – \boxed{5}", r"\boxed{5} cm", r"\boxed{5}\text{ cm}^2", r"$\boxed{5}\%$", r"$\boxed{5}^\circ$",
    r"$\boxed{5}m$", r"\boxed{5} - so it fits", r"\boxed{5} -- done", r"$\boxed{5}-\text{digit}$",
    r"\boxed{5}, as 3 + 2 = 5", r"\boxed{5} and 9", r"7. $\boxed{5}$", r"Question 3 \boxed{5}", r"for a $\boxed{5}$",
    r"\text{Total: }\boxed{5}", r"\text{Case 1}\boxed{5}", r"{\color{red}\boxed{5}}", r"\displaystyle\boxed{5}",
    r"\begin{aligned}\boxed{5}\end{aligned}", r"$3!=\boxed{5}$", r"$x + \boxed{5} = 8$", r"$4x+\boxed{5}=13$",
    r"$\implies\boxed{5}$", r"$n\equiv\boxed{5}\pmod{7}$", r"x \in \boxed{5}", r"at most $\boxed{5}$",
    r"\boxed{5}\frac{\text{m}}{\text{s}}", r"\boxed{5}&\text{added}", r"-2 + 7 = \boxed{5}", r"R$\boxed{5}",
    r"6\n\boxed{5}", "8 -\n\\boxed{5}", r"$-\boxed{-5}$",
)  # fmt: skip
NO_FIVE = (
    r"-\boxed{ 5 }", r"\boxed{ 5 } million",
    r"-\boxed{5}", r"$x=-\boxed{5}$", r"$- \boxed{5}$", r"is −$\boxed{5}$", r"–\boxed{5}", r"minus \boxed{5}",
    r"Negative $\boxed{5}$", r"$\text{minus }\boxed{5}$", r"$-{\boxed{5}}$", r"$-\mathbf{\boxed{5}}$",
    r"$-\left(\boxed{5}\right)$", r"$-(\boxed{5})$", r"\boxed{5} million", r"$\boxed{5}$ thousand",
    r"\boxed{5}\text{ dozen}", r"\boxed{5}k", r"$\boxed{5}$k", r"\boxed{5}{,}000", r"\boxed{5},000", r"\boxed{5}00",
    r"\boxed{5}.5", r"\boxed{5}:30", r"3\boxed{5}", r"$3\,\boxed{5}$", r"$x\boxed{5}$", r"\frac{1}{2}\boxed{5}",
    r"$2\times\boxed{5}$", r"$2+ \boxed{5}$", r"$\sqrt{\boxed{5}}$", r"\sqrt[3]{\boxed{5}}", r"\frac{\boxed{5}}{2}",
    r"\frac{1}{\boxed{5}}", r"$2^{\boxed{5}}$", r"\pm\boxed{5}", r"$\boxed{5}!$", r"$\boxed{5}! + 1$", r"\boxed{5}^2",
    r"\boxed{5}^{2}", r"\boxed{5}²", r"\boxed{5}\cdot 2", r"\boxed{5}/2", r"$\boxed{5}-3$", r"$\boxed{5}-\frac12$",
    r"$\boxed{5}x$", r"$\boxed{5}\pi$", r"$\boxed{5}(2)$", r"the answer is not \boxed{5}", r"it isn't $\boxed{5}$",
    r"9-\boxed{5}", r"\sqrt[" + "n" * 40 + r"]\boxed{5}",
)  # fmt: skip


def _score(text, prompt="Find x.", answer="5"):
    return boxed(asks(prompt, secret={"answer": answer}), trace("a", answer=text)).value


@pytest.mark.parametrize("text", FIVE)
def test_a_box_among_other_words_is_its_content(text):
    assert _score(text) == 1.0, boxed_answer(text)


@pytest.mark.parametrize("text", NO_FIVE)
def test_a_sign_a_factor_or_a_scale_against_the_box_makes_another_value(text):
    assert _score(text) == 0.0, boxed_answer(text)


def test_what_stands_against_a_box_is_right_where_it_is_meant():
    for text, answer in (
        (r"$x=-\boxed{9}$", "-9"), (r"$-\boxed{\frac{1}{2}}$", "-0.5"), (r"-\boxed{x+1}", "-x-1"), (r"5-\boxed{2}", "3"),
        (r"\boxed{5} million", "5000000"), (r"\boxed{2}\text{ dozen}", "24"), (r"\boxed{5}{,}000", "5000"),
        (r"\boxed{5}^2", "25"),
        (r"2\cdot\boxed{x}", "2x"), (r"$\boxed{3}\pi$", r"3\pi"), (r"$\boxed{3}/4$", "0.75"), (r"-1\boxed{5}", "-15"),
    ):  # fmt: skip
        assert (text, _score(text, answer=answer)) == (text, 0.0 if "15" in answer else 1.0)


def test_a_question_for_millions_or_for_a_coefficient_takes_them_from_the_box():
    assert _score(r"\boxed{5} million", "How many million people live there?") == 1.0
    assert _score(r"\boxed{5} million", "What is it, in millions?") == 1.0
    assert _score(r"\boxed{5} million", "How many people? Not in thousands.") == 0.0
    assert _score(r"$\boxed{5}x^3$", "What is the Coefficient of $x^3$?") == 1.0
    assert _score(r"-\boxed{5}x^3", "What is the coefficient of $x^3$?") == 0.0


def test_minerva_takes_the_box_with_its_line_too():
    for said, value in ((r"$\boxed{5}$", 1.0), (r"$x=\boxed{5}$", 1.0), (r"$-\boxed{5}$", 0.0), (r"\boxed{5} million", 0.0),
                        (r"3\boxed{5}", 0.0)):  # fmt: skip
        text = f"Final Answer: The final answer is {said}. I hope it is correct."
        assert minerva(asks("Find x.", secret={"answer": "5"}), trace("a", answer=text)).value == value


def test_a_box_that_does_not_end_or_is_empty_has_no_line():
    assert boxed_answer("no box") is None and boxed_answer(r"-\boxed{5") is None and boxed_answer(r"-\boxed{}") == ""
    assert line_of_box(r"a\boxed{5}b", 9, "5") == ("a", "b") and line_of_box(r"a\boxed{5}b", 9, "6") == ("", "")
    assert line_of_box(r"a\boxed{5 b", 9, "5") == ("", "") and line_of_box(r"a\boxed{ 5 }b", 11, "5") == ("a", "b")
    assert last_boxed(r"\boxed{1}\boxed{a{b}}") == "a{b}"


def test_an_or_between_two_boxes_counts_in_the_sentence_of_the_second_alone():
    for before, otherwise in (
        (r"\boxed{3} or ", True), (r"\boxed{3} OR so, checked: ", True), (r"\boxed{3}. Or ", True),
        (r"It is 2. \boxed{3} or ", True), (r"\boxed{3} or so. Checked: ", False), (r"\boxed{3} or.", False),
        (r"or \boxed{3}, ", False), (r"\boxed{3} for ", False), ("\\boxed{3} or\n", False), ("3 or ", False),
    ):  # fmt: skip
        assert (before, _is_otherwise(before)) == (before, otherwise)
    task = asks(hint="an expression")
    assert extract_answer(r"\boxed{3} or so. Checked: \boxed{4}", task) == "4"
    assert extract_answer(r"\boxed{3} or \boxed{4}", task) == "4"


NUMBERS = (
    r"$\therefore \boxed{5}$", r"$\implies\boxed{5}$", r"$\Rightarrow \boxed{5}$", r"$2+3\equiv\boxed{5}\pmod 7$",
    r"&= \boxed{5}.\end{align*}", r"\begin{aligned}x&=\boxed{5}\end{aligned}", r"\boxed{5}\tag{1}",
    r"$\boxed{5}\blacksquare$", r"{\large\boxed{5}}", r"at most $\boxed{5}$ pencils", r"At least $\boxed{5}$",
    r"- $\boxed{5}$", r"$2!\times 3!=\boxed{5}$", r"\[x = \boxed{5}.\](See 3.)",
)  # fmt: skip


@pytest.mark.parametrize("text", NUMBERS)
def test_a_number_in_a_box_is_read_among_the_commands_of_a_derivation(text):
    assert parse_number(extract_answer(text, asks(hint="a number")) or "") == 5
