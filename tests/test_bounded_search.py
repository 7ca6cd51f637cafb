"""Regular expressions of data: what they find, and that none of them holds an evaluation."""

import json
import re

import pytest

from firsthand.errors import DataError
from firsthand.message import assistant
from firsthand.scorers import bounded_search
from firsthand.scorers.bounded_search import Found, is_small, search
from firsthand.scorers.familiar import regex
from firsthand.scorers.instructions import follows
from firsthand.task import Task
from firsthand.trace import Node, Trace

ENDLESS = ("(?:.|.)*0x", "(a+)+$", "(a|aa)+$", ".*.*.*.*.*.*x", "(?:a?){30}b" * 3, r"(a*)*\1b", "(?x)(?:a | a) *b")


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(bounded_search, "LIMIT_S", 0.05)


def answered(text: str) -> Trace:
    return Trace(
        "t", "b", "1", {"name": "a"}, 0, 0, "", 0.0, nodes=(Node(None, assistant(text)),), calls=(), answer=text
    )


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ENDLESS)
def test_an_expression_that_never_ends_is_ended(pattern, short):
    assert not is_small(pattern, 70)
    try:
        assert search(pattern, "a" * 2_000 + "!").times == 0
    except DataError as error:
        assert "did not finish" in str(error) and "2,001 characters" in str(error)


def test_the_next_search_is_answered(short):
    with pytest.raises(DataError, match="write it without repeats inside repeats"):
        search("(a+)+$", "a" * 60 + "!")
    assert search(r"(\w+) (\w+)+", "ab cd, ef gh") == Found(2, "ef")


def test_both_ways_to_search_find_the_same(monkeypatch):
    cases = [
        (r"\bCat\b", "cat, CAT catalog", re.IGNORECASE),
        ("x(.)?", "x xa", 0),
        ("a*", "baa", 0),
        ("é\ud800", "é\ud800", 0),
        ("^p", "p\np", re.MULTILINE),
        ("z", "", 0),
        ("[(]a[)]", "(a)", 0),
        ("", "ab", 0),
    ]
    here = [search(pattern, text, flags=flags) for pattern, text, flags in cases]
    assert [each.times for each in here] == [2, 2, 3, 1, 2, 0, 1, 3] and here[0].last == "CAT" and here[1].last == "a"
    monkeypatch.setattr(bounded_search, "MAX_STEPS", 0)
    assert [search(pattern, text, flags=flags) for pattern, text, flags in cases] == here
    assert search("a", "aaa", most=2).times == 2 and json.dumps(search("a", "aaa", most=1)) == '[1, "a"]'


def test_ordinary_expressions_are_searched_here():
    for pattern in ("word", r"\bword\b", "co-op", "P.S.", r"Answer: (\w+)", "a|b", "colou?r", r"\$5\.00", r"\d\d"):
        assert is_small(pattern, 2_000), pattern
    assert is_small("word", 100_000) and not is_small(r"a+", 100_000) and not is_small("a+b+", 2_000)
    assert is_small("", 10**7 - 1) and not is_small("", 10**7), "the bound itself"


def test_the_scorer_regex_refuses_an_endless_target(short):
    with pytest.raises(DataError, match="did not finish"):
        regex()(Task("1", "?", secret={"answer": "(?:.|.)*0x"}), answered("an ordinary answer " * 4))


@pytest.mark.parametrize(
    ("instruction", "arguments"),
    [
        ("keywords:existence", {"keywords": ["(?:.|.)*0x"]}),
        ("keywords:frequency", {"keyword": "(?:.|.)*0x", "frequency": 1, "relation": "at least"}),
        ("keywords:forbidden_words", {"forbidden_words": ["(?:.|.)*0x"]}),
        ("detectable_content:postscript", {"postscript_marker": "(?:.|.)*0x"}),
        ("detectable_format:multiple_sections", {"section_spliter": "(?:.|.)*0x", "num_sections": 1}),
    ],
)
def test_ifeval_refuses_an_endless_keyword(instruction, arguments, short):
    with pytest.raises(DataError, match="did not finish"):
        follows("an ordinary answer " * 4, instruction, arguments)


def test_expressions_of_users_score_as_before():
    for pattern, text, right in (
        (r"(?i)answer\s*[:=]\s*(\w+)", "ANSWER : B\nanswer = A", 1.0),
        (r"\((\w)\)", "(B) (A)", 1.0),
        ("x", "y", 0.0),
    ):
        assert regex(pattern=pattern)(Task("1", "?", secret={"answer": "a"}), answered(text)).value == right
    assert regex()(Task("1", "?", secret={"answer": r"^\d+ (cat|dog)s?$"}), answered("12 cats")).value == 1.0
    assert follows(
        "Section 1 a\nSection 2 b",
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
    )
