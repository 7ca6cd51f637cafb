"""Digests of code: what decides a function's results changes them, and nothing else does."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from firsthand import catalog
from firsthand.system import described_code
from firsthand.system.described_code import code_digest, names_of, own_words

BEGUN = """
import re
from functools import cache
WORDS = {"right": 1.0}
LIMIT = 3
def helper(text):
    return text.strip()
def score(task, trace, low=0):
    return WORDS.get(helper(trace.answer), low) if LIMIT else low
class Rule:
    def __init__(self, least):
        self.least = least
    def __call__(self, task, trace):
        return self.at_least(trace)
    def at_least(self, trace):
        return len(trace.answer) >= self.least
def made(word):
    def inner(task, trace):
        return trace.answer == word
    return inner
short = lambda task, trace: len(trace.answer)
@cache
def kept(task, trace):
    return 1.0
def looped(task, trace):
    return looped(task, trace) if trace else 0
START = 1
STOPS = ("a", "b")
def begun(task, trace, low=START):
    return low + sum(each in STOPS for each in trace.answer)
PLACE = __file__
def placed(task, trace):
    return PLACE
"""


def load(folder: Path, text: str) -> Any:
    file = folder / "rules.py"
    file.write_text(text)
    spec = importlib.util.spec_from_file_location("rules_under_test", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


def digests(folder: Path, text: str) -> dict[str, str]:
    module = load(folder, text)
    things = {name: getattr(module, name) for name in ("score", "short", "kept", "looped", "placed", "begun")}
    things |= {"rule": module.Rule(2), "made": module.made("x"), "method": module.Rule(2).at_least}
    return {name: code_digest(each) for name, each in things.items()}


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ('trace.answer == word', 'word in trace.answer', "made"),
        ('"right": 1.0', '"right": 0.5', "score"),
        ("LIMIT = 3", "LIMIT = 0", "score"),
        ("text.strip()", "text", "score"),
        ("low=0", "low=1", "score"),
        (">= self.least", "> self.least", "rule method"),
        ("self.least = least", "self.least = least + 1", "rule method"),
        ("len(trace.answer)\n@", "2 * len(trace.answer)\n@", "short"),
        ("return 1.0", "return 0.0", "kept"),
        ("else 0\nSTART", "else 1\nSTART", "looped"),
        ("START = 1", "START = 2", "begun"),
        ('("a", "b")', '("a", "c")', "begun"),
    ],
)  # fmt: skip
def test_an_edit_changes_the_digests_of_what_it_decides_alone(tmp_path: Path, old: str, new: str, changed: str) -> None:
    assert old in BEGUN
    before, after = digests(tmp_path, BEGUN), digests(tmp_path, BEGUN.replace(old, new))
    assert {name for name in before if before[name] != after[name]} == set(changed.split())


def test_comments_docstrings_other_functions_and_folders_change_nothing(tmp_path: Path) -> None:
    before = digests(tmp_path, BEGUN)
    more = BEGUN.replace("def score(task, trace, low=0):", 'def score(task, trace, low=0):\n    """Told."""  # said')
    (tmp_path / "other").mkdir()
    assert digests(tmp_path / "other", "TASKS = [1, 2]\n" + more + "def new(task):\n    return TASKS\n") == before


def test_options_and_partials_count(tmp_path: Path) -> None:
    module = load(tmp_path, BEGUN)
    regex = [catalog.scorer(f"regex:pattern={pattern}") for pattern in ("a", "a", "b")]
    assert code_digest(regex[0]) == code_digest(regex[1]) != code_digest(regex[2])
    assert code_digest(module.Rule(2)) == code_digest(module.Rule(2)) != code_digest(module.Rule(3))
    assert code_digest(partial(module.score, low=1)) == code_digest(partial(module.score, low=1))
    assert code_digest(partial(module.score, low=1)) != code_digest(partial(module.score, low=2))
    assert code_digest([1]) != code_digest([1.0]) and code_digest([True]) != code_digest([1])
    assert code_digest({"a", "b"}) == code_digest({"b", "a"}) and code_digest(len) != code_digest(max)
    cycle: list[object] = []
    cycle.append(cycle)
    assert code_digest(cycle)


def test_words_and_names_are_those_of_the_command_line() -> None:
    regex = catalog.scorer("regex:pattern=([0-9]+)")
    assert (own_words(regex), names_of(regex)) == ("regex:pattern=([0-9]+)", ["regex"])
    assert names_of(catalog.scorer("ndcg:k=3")) == ["scorer", "ndcg"]
    assert own_words(catalog.scorer("exact")) == "exact"
    assert own_words(partial(catalog.scorer("exact"), low=1)) == "exact:low=1"


def test_a_judge_is_its_description() -> None:
    class Asking:
        name, described = "rubric", "judge A"

    other = Asking()
    other.described = "judge B"
    assert own_words(Asking()) == "judge A" and names_of(Asking())[0] == "rubric"
    assert code_digest(Asking()) == code_digest(Asking()) != code_digest(other)


def test_code_without_a_source_is_told_apart_too() -> None:
    made: dict[str, Any] = {}
    for name, value in (("a", 1), ("b", 1), ("c", 2)):
        exec(f"def score(task, trace): return {value}", scope := {"__name__": "nowhere"})
        made[name] = scope["score"]
    assert code_digest(made["a"]) == code_digest(made["b"]) != code_digest(made["c"])
    assert code_digest(cache(made["a"])) != code_digest(cache(made["c"]))


def test_only_what_the_user_wrote_is_read() -> None:
    assert [described_code._is_own(each) for each in (__file__, pytest.__file__, described_code.__file__, None)] == [
        True, False, False, False,
    ]  # fmt: skip
