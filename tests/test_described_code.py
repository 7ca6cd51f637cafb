"""Digests of code: what decides a function's results changes them, and nothing else does."""

from __future__ import annotations

import importlib.util
import os
import subprocess
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
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    exec(
        compile(text, str(file), "exec"), vars(module)
    )  # not by its loader: bytecode of an edit in one second is stale
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


STATE = """
import os
from enum import Enum
from functools import cached_property
from os import environ
class Colour(Enum):
    RED = 1
    BLUE = 2
    @property
    def rank(self): return self.value
WARM = {Colour.RED, Colour.BLUE}
SEEN, CALLS, BIG = {}, 0, 10 ** 5000
MANY = set(map(str, range(60_000)))
STOPS = list({"a", "b", "c", "d"})
HERE = os.environ.get("PLACE_OF_TEST", "")
API_KEY = HERE + "1"
def helper(x): return x
def first(x): return helper(x)
def second(x): return helper(x) + 1
BOTH = {first, second}
def score(task, trace):
    global CALLS
    CALLS += 1
    SEEN[task] = BIG, STOPS, HERE, API_KEY, environ, WARM, MANY, BOTH
    return float(trace in STOPS)
def sum_of(task, trace):
    return SUM
class Rule:
    def __init__(self, least=1):
        self.least, self.memo, self.calls, self.last = least, {}, 0, None
    def __call__(self, task, trace):
        self.calls += 1
        self.memo[task] = self.last = trace
        return self.lazy
    def __contains__(self, x):
        return x == 1
    @cached_property
    def lazy(self):
        return self.least
rule = Rule()
def folded(task, trace, memo={}):
    return memo.setdefault(task, f"{trace['a']!r:>{10}} it's")
"""
IN_A_PROCESS = """
import sys
sys.path.insert(0, sys.argv[1])
import held
from firsthand.system.described_code import code_digest
print([code_digest(each) for each in (held.score, held.rule)])
"""


def test_digests_are_the_same_in_each_process_whatever_its_environment(tmp_path: Path) -> None:
    (tmp_path / "held.py").write_text(STATE.replace("SUM", "1"))
    found = {
        subprocess.run(
            [sys.executable, "-c", IN_A_PROCESS, str(tmp_path)], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PLACE_OF_TEST": seed},
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(found) == 1 and "unknown" not in found


def test_what_scorers_keep_while_they_work_is_no_part_of_their_digest(tmp_path: Path) -> None:
    module = load(tmp_path, STATE.replace("SUM", "1"))
    things = (module.score, module.rule, module.folded)
    before = [code_digest(each) for each in things]
    module.score("t", "a"), module.rule("t", "a"), module.folded("t", {"a": 1})
    assert [code_digest(each) for each in things] == before
    assert code_digest(module.Rule(2)) != before[1]


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("return self.least\nrule", "return 2\nrule", {"rule"}),
        ("x == 1", "x == 2", {"rule"}),
        ("RED = 1", "RED = 3", {"score"}),
        ("return self.value", "return 0", {"score"}),
        ("SEEN, CALLS", "CALLS, SEEN", {"score"}),
        ('"c", "d"', '"c", "e"', {"score"}),
        ("range(60_000)", "range(60_001)", {"score"}),
        ("!r:>", "!s:>", {"folded"}),
        ("helper(x) + 1", "helper(x) + 2", {"score"}),
        ("return SUM", "return 1" + " + 1" * 400, {"sum_of"}),
    ],
)
def test_edits_of_what_is_filled_or_written_at_length_are_seen(
    tmp_path: Path, old: str, new: str, changed: set[str]
) -> None:
    assert old in STATE
    found = []
    for text in (STATE, STATE.replace(old, new)):
        module = load(tmp_path, text)
        things = {name: getattr(module, name) for name in ("score", "rule", "folded", "sum_of")}
        found.append({name: code_digest(each) for name, each in things.items()})
    assert {name for name in found[0] if found[0][name] != found[1][name]} == changed


def test_no_secret_is_told_or_counts(tmp_path: Path) -> None:
    def made(api_key: str, least: int) -> Any:
        return lambda task, trace: (api_key, least)

    assert "sk-1" not in own_words(made("sk-1", 2)) and ":least=2" in own_words(made("sk-1", 2))
    assert code_digest(made("sk-1", 2)) == code_digest(made("sk-2", 2)) != code_digest(made("sk-1", 3))
    assert code_digest(str(tmp_path / "not" / "made")) == code_digest(str(tmp_path)) != code_digest("/no-such/a")
