"""Numbers of texts in plans: what may mean two numbers is none."""

import asyncio

import pytest

from firsthand.patterns.plan_mode import _typed
from firsthand.safety.plans.labelled import Labelled
from firsthand.safety.plans.plan_interpreter import PlanRun
from firsthand.safety.plans.plan_number import as_number
from firsthand.safety.plans.plan_program import PlanError, parse_plan


@pytest.mark.parametrize(("text", "number"), [
    ("12.50", 12.5), (" 7 ", 7), ("-0.5", -0.5), ("+3", 3), (".5", 0.5), ("5.", 5), ("1e3", 1000), ("2.5E-1", 0.25),
    ("1e+2", 100), ("1000000", 1e6), ("007", 7), ("1,250.00", 1250), ("-12,345.5", -12345.5), ("1,000,000", 1e6),
    ("1,234,567.8", 1234567.8), ("+123,456,789", 123456789),
])  # fmt: skip
def test_a_number_with_one_reading_is_read(text, number):
    assert as_number(text) == _typed(text, "number") == number


@pytest.mark.parametrize("text", [
    "12,50", "0,5", "1.234,56", "1,5", "1,000", "12,345", "1,2,3", "1,00,000", "1234,567.8", "0,123.5", "1,000,00",
    "1,000.", "1,,000.5", "nan", "inf", "-Infinity", "1e999", "1_0", "٣", "1 000", "", ".", "e5", "1e", "1.2.3", "12.50 EUR",
    "$12", "--1", "1,000,000e3", "0x10",
])  # fmt: skip
def test_a_text_with_two_readings_or_none_is_no_number(text):
    with pytest.raises(ValueError, match=r"^no (finite )?number"):
        as_number(text)
    if text:
        with pytest.raises(PlanError, match=r"^a reader's answer was no number$"):
            _typed(text, "number")


def test_a_number_of_a_plan_is_read_in_the_same_way():
    async def none(*given):
        raise AssertionError

    def run(text):
        return asyncio.run(PlanRun(none, none, {}).run(parse_plan(text, {})))

    assert run('answer(number("12.5") + number(2) + number(0.5))').value == 15.0
    for text in ("12,50", "nan", "1_0"):
        with pytest.raises(PlanError, match="line 1: ValueError"):
            run(f'answer(number("{text}"))')
    with pytest.raises(PlanError, match="line 1: TypeError"):
        run("answer(number([1]))")
    for value in (float("inf"), float("nan")):
        with pytest.raises(ValueError, match=r"^no finite number$"):
            as_number(value)
    assert isinstance(run("answer(number(2))"), Labelled)
