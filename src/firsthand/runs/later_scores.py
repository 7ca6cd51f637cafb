"""Scores that attempts of a run were given after they had ended, by name. `Run` in `run_folder.py` is what others use."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict

from firsthand.errors import StoreError
from firsthand.runs.attempt_summary import pack_score, without_words
from firsthand.runs.attempts import expect_number, read_score
from firsthand.runs.database import Database, plain, put
from firsthand.runs.integrity import seal
from firsthand.runs.stored_journal import now
from firsthand.trace import Score, Trace

VERSION = ", file "
"""Stands in the words for a scorer between it and the version of its file, which may change under one name."""


def insert_score(
    connection: sqlite3.Connection, run_id: str, trace: Trace, number: int, name: str, scorer: str, score: Score
) -> None:
    """Add a score that this try was given by a scorer; StoreError if another scorer has given scores of that name."""
    kept = connection.execute(
        "SELECT scorer FROM scores WHERE name = :name AND scorer <> :scorer"
        " AND substr(scorer, 1, length(:plain) + length(:mark)) <> :plain || :mark AND scorer <> :plain LIMIT 1",
        {"name": plain(name), "scorer": plain(scorer), "plain": plain(unversioned(scorer)), "mark": VERSION},
    ).fetchone()
    if kept is not None:
        raise StoreError(
            f"run {run_id} has scores named {name!r} already, given by {kept[0]}: "
            "give the new ones another name, as in --as NAME"
        )
    expect_number(trace.place, f"score {name[:200]}", None if score.failed else score.value)
    values = (
        plain(trace.place), number, plain(name), plain(scorer), None if score.failed else score.value,
        put(connection, asdict(score), exact=False), now(), pack_score(without_words(score, trace.protected is not None)),
    )  # fmt: skip
    cursor = connection.execute(
        "INSERT INTO scores (attempt, try, name, scorer, value, body, at, numbers) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        values,
    )
    seal(connection, "scores", "seq = ?", (cursor.lastrowid,))


def last_score(database: Database, place: str, number: int, name: str) -> Score | None:
    """The last score of that name that the try of that number was given; None if there is none."""
    rows = database.read(
        "SELECT body FROM scores WHERE attempt = ? AND try = ? AND name = ? ORDER BY seq DESC LIMIT 1",
        (plain(place), number, plain(name)),
    )
    return read_score(database, rows[0][0]) if rows else None


def score_names(database: Database) -> dict[str, str]:
    """The names, each with its scorer in words, of a version of its file the last one's."""
    last = "SELECT name, min(seq) AS first, max(seq) AS last FROM scores GROUP BY name"
    rows = database.read(
        f"SELECT scores.name, scorer FROM ({last}) AS ends JOIN scores ON seq = ends.last ORDER BY ends.first"
    )
    return {str(name): str(scorer) for name, scorer in rows}


def scored(database: Database, name: str, scorer: str | None = None) -> dict[tuple[str, int], bool]:
    """The places and tries that have a score of that name -> True if the last one did not fail.

    With `scorer` without those whose last one is of another version of its file; words without a version are any.
    """
    rows = database.read("SELECT attempt, try, value, scorer FROM scores WHERE name = ? ORDER BY seq", (plain(name),))
    last = {(str(attempt), int(number)): (value is not None, str(by)) for attempt, number, value, by in rows}
    return {
        place: succeeded for place, (succeeded, by) in last.items() if scorer is None or by in (scorer, unversioned(by))
    }


def unversioned(scorer: str) -> str:
    """The words for a scorer without the version of its file."""
    return scorer.partition(VERSION)[0]


def with_scores(database: Database, trace: Trace, number: int) -> Trace:
    """The trace with its later scores after its own."""
    rows = database.read(
        "SELECT name, body FROM scores WHERE attempt = ? AND try = ? ORDER BY seq", (plain(trace.place), number)
    )
    if not rows:
        return trace
    later = {str(name): read_score(database, body) for name, body in rows}
    return trace.scored((*trace.scores, *later.values()))
