"""Numbers stated in LaTeX, Markdown and equations: read with what stands beside them, or no number."""

import time

import pytest

from firsthand.patterns.parts.answers import extract_answer, last_number, parse_number
from firsthand.patterns.parts.equations import right_side
from firsthand.patterns.parts.plain_values import plain_values
from opened_context import asks

QUESTION = asks("How many are there? What is a+b?", hint="a number")
PHRASES = {
    '5': (
        r"so \boxed{5} and 9", r"$\boxed{5}$ and the rest is 9",
        "Answer: 5, half of the apples", "Answer: 5 (base 10)", "Answer: 5, actually",
        r"So the answer is $\boxed{5}$.", r"$3+2=\boxed{5}$", r"Therefore $x = \boxed{5}$ apples.",
        r"he has \boxed{5} apples left in 3 boxes.", r"$x + \boxed{5} = 8$",
        r"Thus the answer is $\boxed{5}$, since 2 + 3 = 5.", r"\boxed{5} is obtained by adding 2 and 3.",
        r"Thus $x=\boxed{5}$ and $y=3$.", r"**\boxed{5}**", r"\[\boxed{5}\]", r"$$\boxed{5}$$",
        r"The answer is \boxed{5 \text{ apples}}.", r"\boxed{\text{5 apples}}", r"\boxed{\text{5}}",
        r"\boxed{\mathbf{5}}", r"\boxed{\$5}", r"\boxed{\$5.00}", r"\boxed{5\%}", r"\boxed{5^\circ}", r"\boxed{x=5}",
        r"\boxed{3+2=5}", r"\boxed{a+b=5}", r"$a + b = \boxed{5}$", r"$2x = \boxed{5}$", r"$7 - 2 = \boxed{5}$",
        r"= \boxed{5}", r"Answer: \boxed{5}", "Answer: $5$ apples", r"The answer is $\text{5}$.",
        "The answer is **5** apples.", "The answer is **5 apples**.", "**The answer is 5**.",
        "**The answer is 5 apples.**", "The answer is _5_.", "The answer is __5__ dollars", "The answer is <b>5</b>.",
        "The answer is **$5**.", r"The answer is **\$5.00**", r"The answer is \(5\).", r"The answer is \(x = 5\).",
        "The answer is 5 (five).", "The answer is 5 (in dollars).", "The total cost = $5",
        "Answer: Total cost = 3 + 2 = $5", "Answer: 5 m - 2 m + 2 m = 5 m", "Answer: Speed × time = 5",
        "Answer: cost of a pen = 5", "Answer: Team B = 5", "Answer: f(3) = 5", "Answer: P(X = 3) = 5",
        "Answer: x_1 = 5", "Answer: half of 10 = 5", "Answer: 10 / 2 = 5", r"Answer: \frac{10}{2} = 5",
        r"Answer: \sqrt{25} = 5", "Answer: 2x = 10, x = 5", "Answer: 2x = 10, so x = 5", "Answer: 2x = 10 → x = 5",
        "Answer: a + b = 5", "Answer: A = lw = 5", "Answer: n = 10 - 5 = 5", "The answer is that he has 5.",
        "The answer is not hard: 5", "The answer, not surprisingly, is 5", "The answer is ≈ 5",
        "The answer is about 5", "The answer is exactly 5.", "The answer is 5, which is 3 + 2.",
        "The answer is 5 pairs of socks", "The answer is 5 to the nearest whole number", "The answer is 5 scores",
        "The answer is 5✓", "The answer is ✅ 5", "The answer is 5 😀", "The answer is 5 — because 3 + 2",
        "The answer is 5... ", "The answer is 5.", "The answer is 5 kg/m^3", "The answer is 5 kg·m",
        "The answer is 5 m2", "The answer is 5m2", "The answer is 5 cm^{2}", r"The answer is $5\ \mathrm{cm}$",
        r"The answer is $5\,\text{cm}^2$", r"The answer is $5~\text{m/s}$", "The answer is '5'", "The answer is “5”",
        "The answer is: “5 apples”", "- Answer: 5", "* The answer is 5", "> The answer is 5", "#### 5", "#### $5",
        "#### 5 apples", "#### **5**", r"So 3+2=<<3+2=5>>5\n#### 5", "So she has 5 left", "so it is 5.",
        "It costs $5 per box", "Total: 5", "Total: $5.00", "3 x 2 - 1 = 5", "so the total is 12 - 7 = **5** apples.",
        "so x = $5$.", "Answer: 5 of them", "Answer: he needs 5 more days", "Answer: 5 hours (300 minutes)",
        r"#### $\boxed{5}$", r"\boxed{ 5 }", r"Total $= \boxed{5}$ dollars.", r"1. First, 3. Then $\boxed{5}$",
        r"The value is $\boxed{5}$ (see 3).", "\\boxed{5}\n1. see above",
    ),
    '5000': (
        "Answer: 5,000", "Answer: $5,000", "Answer: $5{,}000$", r"Answer: \$5{,}000", r"\boxed{5{,}000}",
        r"\boxed{5,\!000}", r"\boxed{5\,000}", r"\boxed{5\;000}", r"\boxed{5~000}", r"\boxed{5\text{ thousand}}",
        "Answer: $5$ thousand", "Answer: **5** thousand", "Answer: `5` thousand", "Answer: **5**,000",
        "Answer: (5) thousand", "Answer: {5} thousand", r"\boxed{5} thousand", r"$\boxed{5}$ thousand",
        r"**\boxed{5}** thousand", r"\boxed{5\mathrm{\ thousand}}", r"\boxed{5\textbf{ thousand}}",
        "**The answer is 5** thousand", "Answer: <b>5</b> thousand", r"#### \boxed{5} thousand",
    ),
    '500': (
        r"\boxed{5}00",
    ),
    '5000000': (
        "Answer: $5$ million", r"\boxed{5\text{ million}}",
    ),
    '60': (
        r"\boxed{5\text{ dozen}}", r"Answer: $5\text{ dozen}$ eggs",
    ),
    '-5': (
        r"-\boxed{5}", r"$x = -\boxed{5}$", r"\boxed{-5}", "Answer: -**5**", "Answer: **-5**", "Answer: $-5$",
        "Answer: −5", r"-\boxed{ 5 }", r"-$\boxed{5}$",
    ),
    '5/2': (
        r"\boxed{2\frac{1}{2}}", r"\boxed{2\tfrac12}", "Answer: 2 1/2",
    ),
    '-1/2': (
        r"\boxed{-\frac{1}{2}}",
    ),
    '1/2': (
        r"\boxed{\frac12}", r"so $\boxed{\frac{1}{2}}$.",
    ),
    '1234567': (
        r"\boxed{1\,234\,567}",
    ),
    '6': (
        "The answer is 5. The answer is 6.", "Answer: ~~5~~ 6", "Answer: <del>5</del> 6",
    ),
    None: (
        r"$\boxed{5}$k", r"\boxed{5} and a half", r"\boxed{5} feet 6 inches",
        r"\boxed{5\mathrm{k}}", r"\boxed{\text{minus }5}", r"Answer: $\text{minus }5$", "Answer: minus **5**",
        "Answer: (minus) 5", r"\boxed{\text{not }5}", r"\boxed{5\quad6}", r"\boxed{5}\cdot 2", r"2\times\boxed{5}",
        r"\sqrt{\boxed{5}}", r"\boxed{5}k", r"\boxed{5}, 6", r"\boxed{5}!", r"\boxed{5}{,}00",
        r"\boxed{0.\overline{5}}", r"\boxed{2x=5}", r"\boxed{x-3=5}", r"\boxed{x^2 = 5}", r"\boxed{-x = 5}",
        r"\boxed{\sqrt{x}=5}", r"\boxed{\frac{x}{2}=5}", r"\boxed{\sin x = 5}", "Answer: 2x = 5",
        "Answer: 2x=5, so 2.5", "Answer: x - 3 = 5", "Answer: twice the answer = 5", "Answer: 10 =/= 5",
        r"Answer: x \neq 5", "Answer: 2θ = 5", "Answer: not exactly 5", "Answer: not equal to 5",
        "Answer: anything but 5", "Answer: far from 5", "Answer: nowhere near 5", "Answer: twice as much as 5",
        "Answer: 5 dozens", "Answer: 5 tens", "Answer: 5 (thousand)", "Answer: 5 (in thousands)",
        "Answer: 5 (base 7)", "Answer: 5 in base 7", "Answer: 5 in binary", "Answer: 5 to the power of 2",
        "Answer: 5 to the third", "Answer: 5 times a thousand", "Answer: 5C2", "Answer: 5x6", "Answer: 5 R2",
        "Answer: 5h30", "Answer: 5 with a remainder of 2", "Answer: 5 with three zeros",
        "Answer: 5 followed by three zeros", "Answer: 5 and itself", "Answer: 5 minutes, half", "Answer: 5̅",
        "Answer: !5", "Answer: 5?? Actually 6", r"Answer: 5\overline{5}", "Answer: 5_8", "Answer: *5*6",
        "Answer: 5**2", "Answer: 5¬",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "number"), [(text, number) for number, texts in PHRASES.items() for text in texts])
def test_a_stated_number_is_read_with_what_stands_beside_it(text, number):
    found = parse_number(extract_answer(text, QUESTION) or "")
    assert (None if found is None else str(found)) == number


@pytest.mark.parametrize("text", PHRASES[None])
def test_a_text_that_goes_on_is_no_number_to_a_scorer_either(text):
    if "boxed" not in text and text.startswith("Answer: "):
        assert parse_number(text.removeprefix("Answer: ")) is None


def test_an_equation_states_its_right_side_for_a_name_for_numbers_or_for_what_is_asked():
    assert right_side("x = 5") == " 5" and right_side("3 + 2 = 5") == " 5" and right_side("5") == "5"
    assert right_side("2x = 5") is None and right_side("2x = 5", "Find $2x$.") == " 5"
    assert right_side("2x = 5", "Solve $2x = 5$.") is None and right_side("a + b = 5", "What is a+b?") == " 5"
    assert (
        right_side("2m + 3m = 5m") == " 5m" and right_side("2m + 3m = 5") is None and right_side("10 != 5") == "10 != 5"
    )


def test_wrappers_and_emphasis_are_taken_off_and_operators_stay():
    for text, plain in (
        (r"5{,}000\text{ km}", "5000 km"), (r"\mathbf{\text{5}}", "5"), ("**5** million", "5 million"), ("2**3", "2**3"),
        ("a*b*c", "a*b*c"), ("x_1 + y_2", "x_1 + y_2"), ("5 * 3 * 2", "5 * 3 * 2"), ("R$5 and $6$", "R$5 and $6"),
        (r"\frac{1}{2}", r"\frac{1}{2}"), ("x^{2}", "x^{2}"), ("{5} km", "5 km"), ("*5* km", "5 km"), ("", ""),
        (r"1,2\,345", "1,2345"), (r"12\,34", "12 34"), (r"5 \ne 6", "5 ≠ 6"), ("`5`00", "500"), ("~~5~~ 6", " 6"),
    ):  # fmt: skip
        assert (text, plain_values(text)) == (text, plain)
    assert last_number("so $5{,}000$") == "5000"


def test_hostile_texts_are_read_in_time_that_goes_with_their_length():
    began = time.process_time()
    for piece in ("*", "_5", "{5", "~~", "<del>", "\\text{", "$", "**5", "5**,", "=x", "-\\boxed{5}", "not a "):
        extract_answer("Answer: " + piece * (20_000 // len(piece)), QUESTION)
    assert time.process_time() - began < 20, "a quadratic search takes minutes"
