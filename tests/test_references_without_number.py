"""Scorers that compare numbers, where the reference answer is none that they read."""

import re
from pathlib import Path
from typing import Any

import pytest

from firsthand.benchmarks.sources.own import read_benchmark
from firsthand.errors import ConfigError, DataError
from firsthand.message import assistant
from firsthand.scorers import match
from firsthand.studio.answer_checks import fitting_checks
from firsthand.task import Task
from firsthand.trace import Call, Node, Trace

SCORERS = {"numeric": match.numeric, "flexible": match.flexible, "strict": match.strict}
UNREAD = ("10^3", "1.5M", "4:00", "√2", "two", "5k", "-")


def attempt(answer: str) -> Trace:
    nodes = (Node(None, assistant(answer)),)
    calls = (Call(":0", "generate", None, 0.0, 0.0, "r", nodes=(0,)),)
    return Trace(
        "i", "b", "t", {"name": "a"}, 0, 0, "", 0.0, answer=answer.removeprefix("#### "), nodes=nodes, calls=calls
    )


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize("reference", UNREAD)
def test_a_reference_that_is_no_number_is_an_error_and_not_a_wrong_answer(name: str, reference: str) -> None:
    for secret in ({"answer": reference}, {"answers": [reference, "three"]}):
        for answer in (reference, "#### 5", ""):
            with pytest.raises(
                DataError,
                match=f"task t: the reference answer {re.escape(repr(reference))} is no number that {name} reads",
            ):
                SCORERS[name](Task("t", "?", secret=secret), attempt(answer))


@pytest.mark.parametrize("name", ["numeric", "flexible"])
def test_a_decimal_comma_is_no_number(name: str) -> None:
    with pytest.raises(DataError, match="'1,5' is no number"):
        SCORERS[name](Task("t", "?", secret={"answer": "1,5"}), attempt("1,5"))


@pytest.mark.parametrize("name", SCORERS)
def test_one_number_among_the_accepted_answers_is_enough(name: str) -> None:
    task = Task("t", "?", secret={"answers": ["seventy-two", "72"]})
    assert [SCORERS[name](task, attempt(f"#### {each}")).value for each in ("72", "71")] == [1, 0]


def test_numbers_in_other_forms_are_references_as_before() -> None:
    for reference in ("1,000", "$1000", "1000 km", "1000.0", "1e3", "2000/2", " 1000. "):
        task = Task("t", "?", secret={"answer": reference})
        assert match.numeric(task, attempt("1000")).value == match.flexible(task, attempt("so 1000")).value == 1, (
            reference
        )
    assert match.strict(Task("t", "?", secret={"answer": "1.5"}), attempt("#### 1.5")).value == 1
    for reference in ("1,000", "$1000", "-1000.", " 1000 "):
        sign = "-" if "-" in reference else ""
        assert match.strict(Task("t", "?", secret={"answer": reference}), attempt(f"#### {sign}1000")).value == 1


@pytest.mark.parametrize("reference", ["1000 km", "3/4", "1e3"])
def test_strict_reads_digits_alone(reference: str) -> None:
    with pytest.raises(DataError, match="no number that strict reads"):
        match.strict(Task("t", "?", secret={"answer": reference}), attempt(f"#### {reference}"))


def own(folder: Path, targets: list[str], more: str) -> Any:
    lines = ["q\ta", *(f"q{at}\t{each}" for at, each in enumerate(targets))]
    (folder / "rows.tsv").write_text("\n".join(lines) + "\n")
    (folder / "own.toml").write_text(f'data = "rows.tsv"\nprompt = "{{q}}"\ntarget = "{{a}}"\n{more}\n')
    return read_benchmark(folder / "own.toml")


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize("reference", UNREAD)
def test_an_own_table_with_such_a_target_is_refused_with_its_line(tmp_path: Path, name: str, reference: str) -> None:
    with pytest.raises(DataError, match=rf"rows\.tsv, line 3: the reference answer .* is no number that {name} reads"):
        own(tmp_path, ["5", reference, "6"], f'scorer = ["exact", "{name}"]')
    assert own(tmp_path, ["5", reference], 'scorer = ["exact"]').scorers


def test_targets_of_choices_are_no_numbers(tmp_path: Path) -> None:
    choices = 'choices = ["x {q}", "y {q}"]\n'
    assert own(tmp_path, ["A", "B"], choices + 'scorer = ["acc", "choice"]').scorers
    with pytest.raises(ConfigError, match="the scorer numeric compares numbers, and a right choice is a letter"):
        own(tmp_path, ["A", "B"], choices + 'scorer = ["acc", "numeric"]')


def test_the_studio_does_not_offer_such_a_check() -> None:
    assert fitting_checks([Task("t", "?", secret={"answer": "10^3"})]) == ["exact", "normalised", "none"]
