"""Rarer notations of an answer are read as the usual one where the question or the other side says so, and only there."""

from __future__ import annotations

import pytest

from firsthand.scorers.mathematics.usual_notation import in_usual_notation
from firsthand.scorers.symbolic import comparison

CELSIUS, SPEED = "What is the temperature in degrees Celsius?", "What is the average speed in km/h?"
RATIO, REMAINDER = "What is the ratio of a to b?", "What is the remainder when 10 is divided by 7?"


@pytest.mark.parametrize(
    ("question", "answer", "reference", "same"),
    [
        (CELSIUS, r"20^\circ\text{C}", "20", True),
        (CELSIUS, r"-2.5^{\circ} C", "-2.5", True),
        (CELSIUS, "20 °C", "20", True),
        (CELSIUS, "20", r"20^\circ\mathrm{C}", True),
        (CELSIUS, r"20^\circ\text{C}", r"20\text{ degrees Celsius}", True),
        (r"Give it in $^\circ\text{C}$.", r"20^\circ\text{C}", "20", True),
        ("Give it in °F.", r"68^\circ\text{F}", "68", True),
        (CELSIUS, r"20^\circ\text{C}", r"20^\circ", True),
        (CELSIUS, r"20^\circ\text{C}", r"20^\circ C", True),
        (CELSIUS, r"20^\circ\text{C}", r"20\text{ degrees Fahrenheit}", False),
        (CELSIUS, r"21^\circ\text{C}", "20", False),
        (CELSIUS, r"20^\circ\text{F}", "20", False),
        ("Convert 68 degrees Fahrenheit to Celsius.", r"20^\circ\text{F}", "20", False),
        ("Convert 68 degrees Fahrenheit to Celsius.", r"20^\circ\text{C}", "20", True),
        ("It is $68^\\circ$F. What is it in degrees Celsius?", r"20^\circ\text{C}", "20", True),
        ("It is in Fahrenheit. What is it in Celsius?", r"20^\circ\text{C}", "20", False),
        ("What is the angle at C?", r"20^\circ C", "20", False),
        (SPEED, r"60\ \frac{\text{km}}{\text{h}}", "60", True),
        (SPEED, r"60\,\dfrac{\mathrm{km}}{\mathrm{h}}", "60", True),
        (SPEED, r"60\text{ km/h}", r"60\frac{\text{km}}{\text{h}}", True),
        (SPEED, r"60\frac{\text{miles}}{\text{hour}}", "60", False),
        ("What is g in m/s^2?", r"10\ \frac{\text{m}}{\text{s}^2}", "10", True),
        ("What is g in m/s^2?", r"10\ \frac{\text{m}}{\text{s}^3}", "10", False),
        (SPEED, r"61\frac{\text{km}}{\text{h}}", "60", False),
        ("How many km?", r"60\frac{\text{km}}{\text{h}}", "60", False),
        (RATIO, r"2\text{ to }3", "2:3", True),
        (RATIO, "4 to 6", "2:3", True),
        (RATIO, "2:3", r"2 \text{ to } 3", True),
        (RATIO, "2 to 3", r"\frac23", True),
        (RATIO, "3 to 2", "2:3", False),
        ("What is the ratio a to b to c?", r"2 \text{ to } 3 \text{ to } 4", "2:3:4", True),
        ("What is the ratio a to b to c?", r"2 \text{ to } 3 \text{ to } 5", "2:3:4", False),
        ("What are the odds?", "3 to 4", "3:4", True),
        ("The odds are 3:4. What is the probability of a loss?", "4 to 7", r"\frac47", False),
        ("What time was it?", "5 to 10", "5:10", False),
        ("By which final score, at odds of 5?", "2 to 3", "2-3", True),
        (REMAINDER, r"3 \pmod 7", "3", True),
        (REMAINDER, r"3\bmod{7}", "3", True),
        (REMAINDER, "3 (mod 7)", "3", True),
        (REMAINDER, "3", r"3 \pmod{7}", True),
        (REMAINDER, r"10 \pmod 7", "3", False),
        (REMAINDER, r"3 \pmod 5", "3", False),
        (REMAINDER.replace("7", "17"), r"3 \pmod 7", "3", False),
        ("Which of 3 and 7?", r"3 \pmod 7", "3", False),
        (REMAINDER, r"3 \pmod 7", "x", False),
        (REMAINDER, "3 (mod 7)", r"3 \pmod{7}", True),
        (REMAINDER, r"3\ (\text{mod } 7)", "3", True),
        ("What is the remainder when $7^{10}$ is divided by $5$?", r"4 \pmod 7", "4", False),
        ("What is the remainder when 7 is divided by 7.5?", r"7 \pmod 7", "7", False),
        ("What is the remainder when $n$ is divided by $7^2$?", r"3 \pmod 7", "3", False),
        ("Find the remainder when $N$ is divided by $1{,}000$.", r"4 \pmod{1000}", "4", True),
        ("Find the remainder when $N$ is divided by the prime $11$.", r"4 \pmod{11}", "4", True),
        (r"Solve $x \equiv 3^5 \pmod{7}$.", r"5 \pmod{7}", "5", True),
        (r"Find $3^5 \bmod 7$.", r"5 \pmod{7}", "5", True),
        ("What are the residues modulo 5 and modulo 7?", r"3 \pmod 5", r"3 \pmod 7", False),
        ("What are the residues modulo 5 and 7?", r"3 \pmod 5", r"3 \pmod 7", False),
    ],
)
def test_a_notation_is_read_as_the_usual_one(question: str, answer: str, reference: str, same: bool) -> None:
    assert comparison(answer, reference, question)[0] is same


def test_what_is_in_the_usual_notation_or_not_asked_for_comes_back_as_it_is() -> None:
    for text in (r"\boxed{ 2 }", "20^\\circ C", "2 to 3", "3 (mod 7)", r"\frac{\text{km}}{\text{h}}", "x" * 9_000):
        for question in (None, "What is it?"):
            assert in_usual_notation(text, "2:3", question) == text
    assert in_usual_notation("2 to 3", "9" * 9_000, RATIO) == "2 to 3"
