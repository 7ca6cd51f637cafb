"""Reads votes from tables: public arenas' columns, pairwise judgements, and one's own CSV or JSONL.

Known layouts: model_a, model_b and winner (Chatbot Arena's 33k and 140k, MT-Bench, PandaLM), winner_model_a, winner_model_b
and winner_tie (the 55k competition), generator_1, generator_2 and preference (AlpacaEval). The voter is the first of the
columns judge, voter, user_id, evaluation_session_id and annotator that names one in any row; a row that names none has a
voter of its own, and so with questions. A vote is known by its `id`, or by its voter and its time (timestamp, tstamp, when,
time or created_at). An `id` that stands with several voters, questions or pairs of models is the question's: no vote is
known by it, while other ids of the file are votes'. An empty cell is no voter or question of its own there.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firsthand.arena.battle_table import BattleTable
from firsthand.benchmarks.sources.tables import SUFFIXES as SUFFIXES
from firsthand.benchmarks.sources.tables import TableRow, read_table
from firsthand.errors import ConfigError, DataError
from firsthand.message import Json
from firsthand.system.ordinary_file import open_ordinary
from firsthand.system.spreadsheet_cells import text_of_cell

VOTERS = ("judge", "voter", "user_id", "evaluation_session_id", "annotator")
STYLES = ("length", "headers", "lists", "bold")
QUESTIONS = ("question_id", "instruction_idx", "question", "prompt")
TIMES = ("timestamp", "tstamp", "when", "time", "created_at")
VERDICTS = ("winner", "winner_model_a", "winner_model_b", "winner_tie", "preference")
BATTLE = (*VOTERS, *QUESTIONS, "model_a", "model_b", "generator_1", "generator_2")
_WINNERS = {"model_a": "a", "model_b": "b", "a": "a", "b": "b", "tie": "tie"} | dict.fromkeys(
    ("both_bad", "tie (bothbad)", "bothbad"), "both_bad"
)
"""Spellings of a winner, and what each means."""
_HEADER = re.compile(r"^#{1,6}\s", re.MULTILINE)
_LIST = re.compile(r"^[^\S\n]*(?:[-*+]|\d+[.)])\s", re.MULTILINE)
_BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")


@dataclass(frozen=True)
class VoteFile:
    """The battles of a file, and what was left out."""

    battles: BattleTable
    duplicates: int
    """Rows that repeat another vote, where its id, or its voter and time, say which vote it is."""
    filtered: int
    """Rows that the conditions left out."""
    void: int = 0
    """Votes that do not count, because an answer named its model."""
    anonymous: int = 0
    """Votes without a voter, in a table that names voters; each has a voter of its own."""


def read_votes(path: Path, *, where: Mapping[str, str] | None = None, style: Sequence[str] = ()) -> VoteFile:
    """Reads the votes of a table.

    Args:
        path: A .csv, .tsv, .jsonl or .json file.
        where: Column -> the value that a row must have, compared as text.
        style: Covariates to read, of `STYLES`: the difference (a - b) / (a + b) of the two answers' counts, divided by its
            standard deviation over all battles.

    Raises:
        DataError: A file or row that cannot be read, with its line.
        ConfigError: A column or style that is not there.
    """
    rows = read_table(path)
    columns = rows[0].columns
    for name in where or {}:
        if name not in columns:
            raise ConfigError(f"{path} has no column {name!r}: it has {', '.join(map(str, columns))[:300]}")
    kept = [row for row in rows if all(str(row.columns.get(key)) == value for key, value in (where or {}).items())]
    if not kept:
        raise ConfigError(f"no row of {path} has {', '.join(f'{k}={v}' for k, v in (where or {}).items())}")
    first, second, verdict = _layout(columns, path)
    distinct = _distinct(kept, verdict)
    distinct = [_without_apostrophes(row) for row in distinct] if path.suffix.lower() == ".csv" else distinct
    voters, questions = _filled(distinct, VOTERS), _filled(distinct, QUESTIONS)
    battles = BattleTable.from_columns(
        [_name(row, first) for row in distinct],
        [_other_name(row, second, first) for row in distinct],
        [verdict(row) for row in distinct],
        voters=voters,
        questions=questions,
        covariates={name: _style_differences(distinct, name, path).tolist() for name in style},
    )
    anonymous = sum(isinstance(each, int) for each in voters or ())
    return VoteFile(battles, len(kept) - len(distinct), len(rows) - len(kept), anonymous=anonymous)


def holds_votes(path: Path) -> bool:
    """True if the table at `path` has the columns of votes; DataError if it cannot be read at all."""
    if path.suffix.lower() == ".json" and path.is_file():
        with open_ordinary(path) as file:
            if file.read(64).lstrip()[:1] == b"{":
                return False  # an object: a file of results
    columns = read_table(path)[0].columns
    pairs = ({"model_a", "model_b"}, {"generator_1", "generator_2", "preference"})
    return any(names <= set(columns) for names in pairs)


def _distinct(rows: list[TableRow], verdict: Callable[[TableRow], str]) -> list[TableRow]:
    """The rows without repetitions.

    A row with a vote's id, or with its voter and time, is one vote however often it stands there; DataError if it has an id,
    or a voter, time and question, and two verdicts. Others may be equal votes of different people, or of one judge asked
    again, and all stay: that they share a question says nothing.
    """
    found: dict[str | int, TableRow] = {}
    of_questions = _ids_of_questions(rows)
    for place, row in enumerate(rows):
        first = found.setdefault(_vote_of(row, place, of_questions), row)
        if first is not row and verdict(first) != verdict(row):
            raise DataError(
                f"{first.where} and {row.where} are one vote with two verdicts: keep the row that counts, give each vote "
                "its own id, or name the id's column question_id if it is the question's"
            )
    return list(found.values())


def _ids_of_questions(rows: list[TableRow]) -> set[str]:
    """The ids, as text, that stand with two voters, questions or pairs of models; an empty cell is neither."""
    seen: dict[tuple[str, str], str] = {}
    found = set[str]()
    for row in rows:
        if _has(row, ("id",)):
            known = _as_text(row.columns["id"])
            for name in filter(partial(_is_filled, row), BATTLE):
                value = _as_text(row.columns[name])
                if seen.setdefault((known, name), value) != value:
                    found.add(known)
    return found


def _vote_of(row: TableRow, place: int, of_questions: Set[str]) -> str | int:
    """The columns beside the verdict as text, if they say which vote the row is; else its place.

    With an id its time is no part of it: a vote that was corrected, or written twice, may have two. Nor are its voter and
    question, which may be left empty in one copy, and are the same where they are not. Without one the verdict
    is a part of it if no question is named: one voter may have judged a pair twice on one day.
    """
    has_id = _has(row, ("id",)) and _as_text(row.columns["id"]) not in of_questions
    if not has_id and not (_has(row, VOTERS) and _has(row, TIMES)):
        return place
    beside = {*TIMES, *VERDICTS, *BATTLE} if has_id else {*VERDICTS} if _has(row, QUESTIONS) else set[str]()
    return _as_text({name: value for name, value in row.columns.items() if name not in beside})


def _has(row: TableRow, names: Sequence[str]) -> bool:
    return any(_is_filled(row, name) for name in names)


def _as_text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _filled(rows: Sequence[TableRow], names: Sequence[str]) -> list[str | int] | None:
    """The first of the columns that is filled in any row, as text; where it is empty, the row's place, which no other has.

    None if all of them are empty everywhere: people who left a cell empty are not one person.
    """
    column = next((name for name in names if any(_is_filled(row, name) for row in rows)), None)
    if column is None:
        return None
    return [str(row.columns[column]) if _is_filled(row, column) else place for place, row in enumerate(rows)]


def _is_filled(row: TableRow, column: str) -> bool:
    """True if a cell holds something: null, NaN and blanks are nothing, the voter 0 is somebody."""
    value = row.columns.get(column)
    return bool(value.strip()) if isinstance(value, str) else value is not None and value == value


def _layout(columns: Json, path: Path) -> tuple[str, str, Callable[[TableRow], str]]:
    """The columns of the two models, and the reader of a row's winner."""
    if "generator_1" in columns and "generator_2" in columns and "preference" in columns:
        return "generator_1", "generator_2", _from_preference
    if "model_a" in columns and "model_b" in columns:
        if "winner" in columns:
            return "model_a", "model_b", _from_winner
        if all(f"winner_{each}" in columns for each in ("model_a", "model_b", "tie")):
            return "model_a", "model_b", _from_flags
    raise DataError(
        f"{path} holds no votes: it has the columns {', '.join(map(str, columns))[:200]}, and model_a, model_b and winner "
        "or generator_1, generator_2 and preference, were expected"
    )


def _name(row: TableRow, column: str) -> str:
    name = row.columns.get(column)
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"{row.where}: {column} is {name!r:.60}: give the model's name")
    return name.strip()


def _other_name(row: TableRow, column: str, first: str) -> str:
    name = _name(row, column)
    if name == _name(row, first):
        raise DataError(f"{row.where}: a battle of {name!r:.60} against itself: give two different models")
    return name


def _without_apostrophes(row: TableRow) -> TableRow:
    """The row as it was before `write_votes` kept its cells from being read as formulas."""
    return TableRow({name: text_of_cell(cell) for name, cell in row.columns.items()}, row.where)


def _from_winner(row: TableRow) -> str:
    winner = row.columns.get("winner")
    if not isinstance(winner, str) or winner not in _WINNERS:
        raise DataError(f"{row.where}: the winner is {winner!r:.60}: one of {', '.join(_WINNERS)} was expected")
    return _WINNERS[winner]


def _from_flags(row: TableRow) -> str:
    flags = {each: str(row.columns.get(f"winner_{each}")) for each in ("model_a", "model_b", "tie")}
    chosen = [each for each, flag in flags.items() if flag in ("1", "1.0", "True")]
    if len(chosen) != 1 or not all(flag in ("0", "1", "0.0", "1.0", "True", "False") for flag in flags.values()):
        raise DataError(
            f"{row.where}: exactly one of winner_model_a, winner_model_b and winner_tie must be 1, not {flags}"
        )
    return chosen[0]


def _from_preference(row: TableRow) -> str:
    try:
        value = float(given := row.columns.get("preference"))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        value = np.nan
    if not 1 <= value <= 2:
        raise DataError(f"{row.where}: the preference is {given!r:.60}: a number from 1 (first) to 2 (second)")
    return "tie" if value == 1.5 else "a" if value < 1.5 else "b"


def _style_differences(rows: list[TableRow], style: str, path: Path) -> NDArray[np.float64]:
    """Shape (N): (a - b) / (a + b) of the two answers, 0 where neither has any, over its standard deviation."""
    if style not in STYLES:
        raise ConfigError(f"style is {style!r:.60}: give {', '.join(STYLES)}")
    counts = np.array([_style_counts(row, style) for row in rows], np.float64)
    return scaled_differences(counts, f"the answers of {path}", style)


def scaled_differences(counts: NDArray[np.float64], whose: str, style: str) -> NDArray[np.float64]:
    """Shape (N): (a - b) / (a + b) of N pairs, 0 where both are 0, over its deviation; ConfigError if all are equal."""
    total = counts.sum(1)
    difference: NDArray[np.float64] = np.divide(
        counts[:, 0] - counts[:, 1], total, out=np.zeros(len(counts)), where=total > 0
    )
    if not len(difference) or difference.min() == difference.max():  # the deviation of equal ones may be rounding noise
        alike = "never differ" if not difference.any() else "differ by the same share each time"
        raise ConfigError(f"{whose} {alike} in {style}: leave it out of style")
    return difference / float(difference.std())


def _style_counts(row: TableRow, style: str) -> tuple[float, float]:
    columns = row.columns
    found: list[Any] = []
    try:
        if style == "length":
            pairs = (("len_a", "len_b"), ("len_1", "len_2"), ("length_a", "length_b"))
            found = next(([columns[a], columns[b]] for a, b in pairs if a in columns and b in columns), [])
        if not found and isinstance(about := columns.get("conv_metadata"), dict):
            key = {"length": "sum_assistant_{}_tokens", "headers": "header_count_{}", "lists": "list_count_{}"}
            found = [about.get(key.get(style, "bold_count_{}").format(side)) for side in "ab"]
            found = [sum(each.values()) if isinstance(each, dict) else each for each in found]
        if not found and "conversation_a" in columns and "conversation_b" in columns:
            found = [style_count(_answers(columns[f"conversation_{side}"]), style) for side in "ab"]
        first, second = (float(each) for each in found)
    except (TypeError, ValueError, OverflowError):
        first = second = np.nan
    if not (first >= 0 and second >= 0 and first + second < np.inf):
        raise DataError(
            f"{row.where}: nothing tells the {style} of both answers: len_a and len_b, conv_metadata, or conversation_a and "
            "conversation_b were expected"
        )
    return first, second


def _answers(conversation: Any) -> str:
    if isinstance(conversation, str):
        return conversation
    if not isinstance(conversation, list):
        return ""
    texts = [turn.get("content") for turn in conversation if isinstance(turn, dict) and turn.get("role") == "assistant"]
    return "\n".join(text for text in texts if isinstance(text, str))


def style_count(text: str, style: str) -> int:
    """The amount of a style in a text: characters, Markdown headers, list items, or bold spans."""
    if style == "length":
        return len(text)
    return len({"headers": _HEADER, "lists": _LIST, "bold": _BOLD}[style].findall(text))


def voter_shares(battles: BattleTable) -> Counter[int]:
    """Votes by voter's number; empty where no voters are named."""
    return Counter() if battles.voters is None else Counter(battles.voters.tolist())
