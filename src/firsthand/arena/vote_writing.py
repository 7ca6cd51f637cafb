"""Writes a run's votes in the layouts of the public sets: Chatbot Arena's, and the 55k competition's."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from firsthand.arena.battle_table import question_name
from firsthand.arena.blind_reasks import is_reask
from firsthand.errors import ConfigError
from firsthand.message import Json, canonical
from firsthand.preference import Preference
from firsthand.runs.store import Run
from firsthand.system.new_file import write_new
from firsthand.system.spreadsheet_cells import plain_cell

Layout = Literal["arena", "55k"]
_WINNERS = {"a": "model_a", "b": "model_b", "tie": "tie", "both_bad": "both_bad"}


def vote_rows(run: Run, layout: Layout = "arena") -> list[Json]:
    """The votes that count, a row each, with id, question, voter and time; blind re-asks and void votes are left out.

    The id is the vote's own and the same whenever the run is written, so that votes of one voter and time stay apart.
    `arena` has a winner (model_a, model_b, tie, both_bad), as Chatbot Arena's 140k; `55k` has a column for each outcome,
    where both_bad is a tie.
    """
    attempts = {trace.id: (trace.agent_name, trace.benchmark) for trace in run.traces()}
    rows: list[Json] = []
    for each, known in _with_ids(run.preferences()):
        if (each.detail or {}).get("void") or is_reask(each):
            continue
        if each.a not in attempts or each.b not in attempts:
            raise ConfigError(
                f"a vote of run {run.id} names an attempt that it does not hold: is it a part of another?"
            )
        (first, benchmark), (second, _) = attempts[each.a], attempts[each.b]
        question = question_name(benchmark, each.task_id)
        row: Json = {"id": known, "question_id": question, "model_a": first, "model_b": second}
        if layout == "arena":
            row["winner"] = _WINNERS[each.winner]
        else:
            verdict = "tie" if each.winner == "both_bad" else _WINNERS[each.winner].removeprefix("model_")
            row |= {
                f"winner_{name}": int(verdict == name.removeprefix("model_")) for name in ("model_a", "model_b", "tie")
            }
        rows.append(row | {"judge": each.by, "timestamp": each.when or ""})
    return rows


def _with_ids(votes: Sequence[Preference]) -> Iterator[tuple[Preference, str]]:
    """Each vote with its id: a digest of what was judged, by whom, when, and of how many such votes came before it."""
    before = Counter[str]()
    for each in votes:
        about = canonical([each.task_id, each.a, each.b, each.by, each.when])
        yield each, hashlib.sha256(f"{about}{before[about]}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
        before[about] += 1


def write_votes(run: Run, path: Path, layout: Layout = "arena") -> int:
    """Writes the votes to a .csv or .jsonl file, which `read_votes` reads; returns how many there are.

    In a .csv file a name that a spreadsheet would read as a formula is written after an apostrophe.
    """
    if path.suffix not in (".csv", ".jsonl"):
        raise ConfigError(f"{path} ends in {path.suffix or 'nothing'}: votes are written as .csv or .jsonl")
    rows = vote_rows(run, layout)
    if not rows:
        raise ConfigError(f"run {run.id} holds no votes that count: `firsthand arena MODEL MODEL` makes some")
    file = io.StringIO()
    if path.suffix == ".jsonl":
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows({name: plain_cell(value) for name, value in row.items()} for row in rows)
    try:
        write_new(path, file.getvalue())
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from None
    return len(rows)
