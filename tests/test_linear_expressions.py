"""Each regular expression of the package takes linear time on long texts made to slow it down."""

from __future__ import annotations

from pathlib import Path

import pytest

import firsthand
from slow_expressions import Expression, expressions, slow_text

BOUNDED = {
    "scorers/mathematics/": "an answer has at most 500 characters there",
    "worlds/household/house.py: ": "an action is matched from its beginning, and once",
}
"""Beginnings of places whose texts are short for another reason."""
PACKAGE = Path(firsthand.__file__).parent


@pytest.mark.timeout(180)
def test_every_expression_takes_linear_time() -> None:
    found = [each for each in expressions(PACKAGE) if not each.place.startswith(tuple(BOUNDED))]
    assert len(found) > 300
    slow = {each.place: text for each in found if (text := slow_text(each))}
    assert not slow


@pytest.mark.parametrize(
    ("pattern", "way"),
    [
        (r"\s*x", "search"),  # a run of blanks is tried from each of its places
        (r"a.*?b.*?c", "findall"),
        (r"x[ \t]*y?[ \t]*$", "fullmatch"),
    ],
)
def test_a_slow_expression_is_found_and_its_linear_form_is_not(pattern: str, way: str) -> None:
    assert slow_text(Expression("", pattern, 0, way))
    linear = {r"\s*x": r"(?<!\s)\s*x", r"a.*?b.*?c": r"ab?c", r"x[ \t]*y?[ \t]*$": r"x(?:[ \t]*y)?[ \t]*$"}
    assert not slow_text(Expression("", linear[pattern], 0, way))
