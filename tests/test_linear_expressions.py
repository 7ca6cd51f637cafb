"""Each regular expression of the package takes linear time on long texts made to slow it down."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest

import firsthand
from firsthand.safety.rules.case import _parted
from slow_expressions import Expression, expressions, slow_text

BOUNDED = {
    "scorers/mathematics/": "an answer has at most 500 characters there",
    "providers/openai_errors.py: //": "an address is shown with at most 100 characters",
    "worlds/office/office_attacks.py: also call": "the text of an attack of ours, on one line",
    "retrieval/graph/noun_phrases.py: [.!?:;": "the three characters before a phrase",
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
        (r"(?m)^\W*x", "search"),  # line ends alone: `^` matches anew at each
        (r"(?ms)^.*x", "search"),
        (r"\s*x", "search"),  # a run of blanks is tried from each of its places
        (r"a.*?b.*?c", "findall"),
        (r"x[ \t]*y?[ \t]*$", "fullmatch"),
    ],
)
def test_a_slow_expression_is_found_and_its_linear_form_is_not(pattern: str, way: str) -> None:
    assert slow_text(Expression("", pattern, 0, way))
    linear = {
        r"(?m)^\W*x": r"(?m)^[^\w\n]*+x",
        r"(?ms)^.*x": r"(?m)^.*x",
        r"\s*x": r"(?<!\s)\s*x",
        r"a.*?b.*?c": r"ab?c",
        r"x[ \t]*y?[ \t]*$": r"x(?:[ \t]*y)?[ \t]*$",
    }
    assert not slow_text(Expression("", linear[pattern], 0, way))


def test_marked_documents_are_parted_as_an_expression_would() -> None:
    marked = re.compile(r"<untrusted from=[^>]*>\n.*?\n</untrusted>", re.DOTALL)
    random, parts = Random(0), ("<untrusted from=", '"a"', ">", "\n", "</untrusted>", "x", "\n</untrusted>", ">\n")
    for _ in range(20_000):
        text = "".join(random.choice(parts) for _ in range(random.randrange(14)))
        assert _parted(text) == (marked.sub(" ", text), marked.findall(text)), text
