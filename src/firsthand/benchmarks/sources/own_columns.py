"""Names the columns that scorers read from the rows of a user's own table, and checks what they hold.

A column that a scorer cannot read, or by which every answer would be right or wrong, is refused before anything is run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from keyword import iskeyword

from firsthand.benchmarks.sources.tables import TableRow
from firsthand.errors import DataError
from firsthand.sandbox.sandbox import PACKAGES, offers, shared_packages
from firsthand.scorers.choice import true_choices
from firsthand.scorers.expected_calls import check_calls
from firsthand.scorers.instructions import check_all
from firsthand.scorers.ranking import relevances
from firsthand.scorers.runnable_tests import imported, runnable_tests, unit_cases

NEEDS: Mapping[str, tuple[str, ...]] = {
    "locomo_f1": ("category",),
    "assertion_holds": ("code", "output", "predict"),
    "cruxeval_assertion": ("code", "output", "predict"),
    "passes_tests": ("tests",),
    "passes_unit_tests": ("tests",),
    "base": ("solution", "entry_point", "inputs", "atol", "rule"),
    "plus": ("solution", "entry_point", "inputs", "extra_inputs", "atol", "rule"),
    "function_calls": ("calls",),
    "leaderboard_calls": ("calls",),
    "human_agreement": ("votes",),
    "majority_agreement": ("votes",),
    "prompt_strict": ("instructions",),
    "prompt_loose": ("instructions",),
    "instruction_strict": ("instructions",),
    "instruction_loose": ("instructions",),
    "mc2": ("true",),
    "mmlu_pro_tiger": ("options",),
    "resolved": ("test_patch", "eval_script", "log_parser"),
    **dict.fromkeys(
        (
            "average_precision",
            "ndcg",
            "ndcg_at_10",
            "precision_at_10",
            "recall_at_10",
            "recall_at_100",
            "recall_at_5",
            "reciprocal_rank_at_10",
        ),
        ("judgements",),
    ),
    **dict.fromkeys(("attack_success", "right_answer"), ("planted",)),
    "planted_share": ("planted_documents",),
    "bitext_weighted_f1": ("place",),
    "cluster_v_measure": ("labels",),
    "cosine_spearman": ("similarity",),
    "few_shot_accuracy": ("label",),
    "max_ap": ("similar",),
    "reranked_average_precision": ("positive",),
    "summary_spearman": ("ratings",),
}
"""Scorer -> the columns, besides the target, that it reads from each row."""
MAY_HAVE: Mapping[str, tuple[str, ...]] = {
    "passes_tests": ("entry_point",),
    "passes_unit_tests": ("solution", "entry_point", "before"),
    **dict.fromkeys(("bleu", "chrf", "rouge_l", "token_f1"), ("references",)),
}
"""Scorer -> the columns that it reads from the rows where they are not missing."""


def columns_of(scorer: str, row: TableRow) -> tuple[str, ...]:
    """The columns, besides the target, that the scorer reads from this row."""
    optional = MAY_HAVE.get(scorer, ())
    found = (each for each in optional if not is_missing(row.columns.get(each)))
    # a column of texts named so is a text among others
    return (*NEEDS.get(scorer, ()), *(x for x in found if x != "references" or isinstance(row.columns[x], list)))


def check_columns(scorer: str, row: TableRow, choices: int) -> None:
    """Raise DataError, with the row's place, if it lacks a column that the scorer reads, or one holds what it cannot read.

    Args:
        choices: Number of the row's choices; 0 if it has none.
    """
    for column in columns_of(scorer, row):
        value = row.columns.get(column)
        if is_missing(value):
            known = ", ".join(row.columns)
            raise DataError(f"{row.where}: the scorer {scorer} needs the column {column!r}; there are {known}")
        try:
            if column == "true":
                true_choices(value, choices)
            elif column == "tests":
                read_tests(scorer, row)
            elif column in CHECKS:
                CHECKS[column](value)
        except ValueError as error:
            raise DataError(f"{row.where}: the column {column!r}: {error}") from None


def read_tests(scorer: str, row: TableRow) -> str:
    """Return the program of the row's tests; ValueError if no answer could fail them, or the sandbox cannot run them."""
    tests, name = row.columns["tests"], row.columns.get("entry_point")
    if scorer == "passes_unit_tests":
        program = unit_cases(tests)
    else:
        program = runnable_tests(tests, "" if is_missing(name) else str(name))
    folders = shared_packages()
    lacking = sorted(each for each in imported(program) if not offers(each, folders))
    if lacking:
        raise ValueError(
            f"the tests import {', '.join(lacking[:5])}, which the sandbox lacks: set {PACKAGES} to a virtual environment "
            "that has it"
        )
    return program


def is_missing(value: object) -> bool:
    """Return True for null, an empty cell, and a float that is no finite number: NaN is how pandas writes a missing cell."""
    return value in (None, "") or (isinstance(value, float) and not math.isfinite(value))


def _text(value: object) -> None:
    if not isinstance(value, str):
        raise ValueError(f"a text was expected, not {value!r:.60}")


def _name(value: object) -> None:
    if not (isinstance(value, str) and value.isidentifier()) or iskeyword(value):
        raise ValueError(f"the name of a function, such as solve, was expected, not {value!r:.60}")


def _written(value: object) -> None:
    if not isinstance(value, str | int | float):
        raise ValueError(f"a text or a number was expected, not {value!r:.60}")


def _whole(least: int, most: int | None = None) -> Callable[[object], None]:
    """Return the check of a whole number, which a CSV holds as text."""

    def check(value: object) -> None:
        try:
            number = int(value) if isinstance(value, str | int) else None
        except ValueError:
            number = None
        if number is None or number < least or (most is not None and number > most):
            span = f"from {least} to {most}" if most is not None else f"of at least {least}"
            raise ValueError(f"a whole number {span} was expected, not {value!r:.60}")

    return check


def _number(value: object) -> None:
    try:
        finite = isinstance(value, str | int | float) and math.isfinite(float(value))
    except (ValueError, OverflowError):
        finite = False
    if not finite:
        raise ValueError(f"a number was expected, not {value!r:.60}")


def _list_of(check: Callable[[object], None]) -> Callable[[object], None]:
    """Return the check of a list that is not empty and whose parts hold; a cell of a CSV is none."""

    def check_list(value: object) -> None:
        if not isinstance(value, list) or not value:
            raise ValueError(f'a list such as ["a", "b"] was expected, in .jsonl or .json, not {value!r:.60}')
        for each in value:
            check(each)

    return check_list


CHECKS: Mapping[str, Callable[[object], object]] = {
    "before": _text,
    "calls": check_calls,
    "category": _whole(1, 5),
    "code": _text,
    "entry_point": _name,
    "eval_script": _text,
    "instructions": check_all,
    "judgements": relevances,
    "label": _written,
    "labels": _list_of(_written),
    "options": _whole(1),
    "output": _text,
    "place": _whole(0),
    "planted": _text,
    "planted_documents": _list_of(_text),
    "positive": _list_of(_written),
    "ratings": _list_of(_number),
    "references": _list_of(_text),
    "similar": _whole(0, 1),
    "similarity": _number,
    "solution": _text,
    "test_patch": _text,
}
"""Column -> its check, which raises ValueError; `true` is checked beside the number of choices, `tests` beside its row."""
