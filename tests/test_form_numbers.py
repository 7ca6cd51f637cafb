"""Numbers of forms keep their digits: as numbers, as text, and where a float may have lost some."""

from __future__ import annotations

from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.loop.form import FormField, checked_answers, form_fields

EXACT = 9007199254740993


def test_a_number_may_be_answered_as_text_and_keeps_every_digit() -> None:
    whole, number = FormField("n", "integer"), FormField("n", "number")
    for field in (whole, number):
        for given in (EXACT, str(EXACT), f"+{EXACT}"):
            value = checked_answers([field], {"n": given})["n"]
            assert value == EXACT and isinstance(value, int)
        assert field.parse(str(EXACT)) == EXACT and isinstance(field.parse(str(EXACT)), int)
        assert field.check("-7") == -7
    assert (number.check("0.25"), number.check("1e20"), number.check("1e23")) == (0.25, 1e20, 1e23)
    assert (number.check("-9007199254740992.0"), number.check("-9007199254740990.3")) == (
        -(2.0**53),
        -9007199254740990.0,
    )
    assert number.parse("3.14159265358979323846") == 3.141592653589793, "digits behind the point are rounded"
    assert (whole.check(9007199254740991.0), number.check(2.0)) == ((1 << 53) - 1, 2.0)
    assert form_fields({"properties": {"n": {"type": "integer", "default": EXACT}}})[0].default == EXACT


@pytest.mark.parametrize(
    ("kind", "given", "why"),
    [
        ("integer", float(1 << 53), "^9007199254740992 may have lost digits on the way: send it as text$"),
        ("integer", -1e20, "may have lost digits"),
        ("integer", "1.0", "'1.0' is no integer"),
        ("integer", "1e3", "is no integer"),
        ("integer", "seven", "'seven' is no integer"),
        ("integer", "", "is no integer"),
        ("number", "nan", "is no number"),
        ("number", "1e999", "no number that can be kept"),
        (
            "number",
            f"{EXACT}.5",
            r"^9007199254740993\.5 has more digits than can be kept with a fraction or an exponent$",
        ),
        ("number", f"-{EXACT}.5", "more digits than can be kept"),
        ("number", f"{EXACT}e0", "more digits than can be kept"),
        ("number", "9007199254740992.5", "more digits than can be kept"),
        ("boolean", "1", "is no boolean"),
    ],
)
def test_a_number_that_may_have_lost_digits_is_refused(kind: str, given: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        FormField("n", kind).check(given)
    with pytest.raises(ConfigError, match=r"^the answer to n does not fit: "):
        checked_answers([FormField("n", kind)], {"n": given})


def test_text_fields_keep_digits_as_text() -> None:
    assert FormField("n", "string").check(str(EXACT)) == str(EXACT)


def test_a_typed_number_is_written_as_one_that_is_sent() -> None:
    whole, number = FormField("n", "integer"), FormField("n", "number")
    for given, value in (("12", 12), (" -5 ", -5), ("+7", 7), ("١٢", 12), ("１２", 12)):
        assert whole.parse(given) == value == number.parse(given)
    for given, value in ((".5", 0.5), ("5.", 5.0), ("-1.25e2", -125.0), ("١.٥", 1.5)):
        assert number.parse(given) == value
    for given in ("1_000", "1,000", "1e3", "5.0", "0x10", "²", "one", "-", "1" * 401):
        with pytest.raises(ValueError, match=r"^'.{1,99} is no integer: write it in digits, such as 1000$"):
            whole.parse(given)
    for given in ("1_5", "1,5", "nan", "inf", "0x10", ".", "e5", "1e1000", "½"):
        with pytest.raises(ValueError, match=r"^'.{1,99} is no number: write it in digits, such as 1\.5$"):
            number.parse(given)
    with pytest.raises(ValueError, match="no number that can be kept"):
        number.parse("1e400")
