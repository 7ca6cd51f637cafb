"""Lists attempts of a run by a typed filter, sorted and page by page, inside SQLite: no trace is decoded.

The latest try of each attempt counts, as everywhere. Numbers are those that the run keeps beside each trace.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from firsthand.errors import ConfigError
from firsthand.runs.attempts import TraceRow, body_of, harms
from firsthand.runs.database import Database, plain
from firsthand.studio.found_page import FoundPage
from firsthand.studio.typed_filter import Kind, Term, holds, parse_filter, without_case, written_term

PAGE = 100
FIELDS: dict[str, Kind] = {
    "benchmark": "text",
    "task": "text",
    "agent": "text",
    "model": "text",
    "error": "text",
    "stop": "text",
    "id": "text",
    "score": "number",
    "score.": "number",
    "tokens": "number",
    "calls": "number",
    "seconds": "number",
    "cost": "number",
    "epoch": "number",
}
FLAGS = {"has": ("error", "score", "limit", "note"), "is": ("right", "wrong", "failed")}
_COLUMNS = {
    "benchmark": "benchmark",
    "task": "task",
    "agent": "agent",
    "error": "error",
    "stop": "stop_reason",
    "score": "score",
    "tokens": "tokens",
    "calls": "calls",
    "seconds": "duration_s",
    "cost": "cost_usd",
    "epoch": "epoch",
}
SORTABLE = ("finished", *(name for name in _COLUMNS if name != "error"))
_LATEST = "NOT EXISTS (SELECT 1 FROM traces later WHERE later.attempt = traces.attempt AND later.try > traces.try)"
_LATER_SCORE = (
    "(SELECT value FROM scores WHERE scores.attempt = traces.attempt AND scores.try = traces.try AND name = ?"
    " ORDER BY seq DESC LIMIT 1)"
)
_FLAG_SQL = {
    "has:error": "error IS NOT NULL",
    "has:score": "score IS NOT NULL",
    "has:limit": "stop_reason NOT IN ('done', 'error')",
    "has:note": "EXISTS (SELECT 1 FROM scores WHERE scores.attempt = traces.attempt AND name >= 'note.' AND name < 'note/')",
    "is:failed": "error IS NOT NULL",
}
_IS_RIGHT = "CASE WHEN benchmark IN (SELECT value FROM json_each(?)) THEN score <= 0 ELSE score >= 1 END"
"""As `Score.is_right`; its parameter lists the benchmarks whose score is one of harm."""
_RESULT = (
    f"CASE WHEN error IS NOT NULL THEN 'failed' ELSE CASE {_IS_RIGHT} WHEN 1 THEN 'right' WHEN 0 THEN 'wrong' END END"
)


@dataclass(frozen=True)
class AttemptQuery:
    """The attempts to list: a filter, and a column to sort by, with a minus for the highest first."""

    terms: tuple[Term, ...] = ()
    sort: str = "finished"

    @staticmethod
    def parse(text: str, sort: str = "") -> AttemptQuery:
        """The query of a filter as typed and a column; ConfigError if either is not understood."""
        if sort and sort.removeprefix("-") not in SORTABLE:
            raise ConfigError(f"attempts cannot be sorted by {sort[:40]!r}: they can by {', '.join(SORTABLE)}")
        return AttemptQuery(parse_filter(text, FIELDS, FLAGS), sort or "finished")

    def page(self, database: Database, start: int = 0, limit: int = PAGE) -> FoundPage[TraceRow]:
        """A page of the attempts that are found."""
        where, values = self._where(database)
        columns = (
            "id, attempt, benchmark, task, agent, epoch, score, stop_reason, error, calls, tokens, cost_usd, duration_s"
        )
        total = database.read(f"SELECT count(*) FROM traces WHERE {where}", values)[0][0]
        sql = f"SELECT {columns} FROM traces WHERE {where} ORDER BY {self._order()} LIMIT ? OFFSET ?"
        rows = database.read(sql, (*values, limit, max(0, start)))
        return FoundPage(tuple(TraceRow(*row) for row in rows), total, max(0, start))

    def beside(self, database: Database, place: str) -> tuple[str | None, str | None]:
        """The places of the attempts before and after one of those that are found, as they are sorted."""
        where, values = self._where(database)
        sql = (
            f"SELECT before, after FROM (SELECT attempt, lag(attempt) OVER w AS before, lead(attempt) OVER w AS after"
            f" FROM traces WHERE {where} WINDOW w AS (ORDER BY {self._order()})) WHERE attempt = ?"
        )
        found = database.read(sql, (*values, plain(place)))
        return (found[0][0], found[0][1]) if found else (None, None)

    def facets(self, database: Database, most: int = 30) -> dict[str, list[tuple[str, int]]]:
        """Field -> its values with the number of attempts of each, of all that are found, the most frequent first."""
        where, values = self._where(database)
        found = {}
        for field, column in (("benchmark", "benchmark"), ("agent", "agent"), ("is", _RESULT), ("stop", "stop_reason")):
            sql = f"SELECT {column}, count(*) AS n FROM traces WHERE {where} GROUP BY 1 ORDER BY n DESC, 1 LIMIT ?"
            lower = [json.dumps(harms(database))] if column == _RESULT else []
            rows = database.read(sql, (*lower, *values, most))
            found[field] = [(str(value), int(count)) for value, count in rows if value is not None]
        return found

    def _order(self) -> str:
        name, descending = self.sort.removeprefix("-"), self.sort.startswith("-")
        if name == "finished":
            return "seq DESC" if descending else "seq"
        column = _COLUMNS[name]
        return f"{column} IS NULL, {column}{' DESC' if descending else ''}, seq"

    def _where(self, database: Database) -> tuple[str, tuple[Any, ...]]:
        clauses: list[str] = [_LATEST]
        values: list[Any] = []
        for term in self.terms:
            if term.field == "model":
                clause, its = _of_model(term, database)
            elif term.field == "is" and term.value != "failed":
                clause = f"({_IS_RIGHT} = {int(term.value == 'right')} AND error IS NULL)"
                its = [json.dumps(harms(database))]
            else:
                clause, its = _condition(term)
            if term.field in FLAGS:
                clause = f"coalesce({clause}, 0)"  # what has no score is not wrong: NOT of NULL would leave it out
            clauses.append(f"NOT ({clause})" if term.is_negated else clause)
            values += its
        return " AND ".join(clauses), tuple(values)


def _of_model(term: Term, database: Database) -> tuple[str, Sequence[Any]]:
    """The attempts of those agents whose model the term names."""
    agents = [(name, body_of(database, body)) for name, body in database.read("SELECT name, body FROM agents")]
    named = replace(term, is_negated=False)
    found = [name for name, agent in agents if holds(named, str(agent.get("model", "")))]
    return f"agent IN ({', '.join('?' * len(found))})", found


def _condition(term: Term) -> tuple[str, Sequence[Any]]:
    if not term.field:
        columns, words = zip(
            *(without_case(f"coalesce({name}, '')", term.value) for name in ("benchmark", "task", "agent", "error")),
            strict=True,
        )
        return f"({' OR '.join(f'instr({column}, ?)' for column in columns)})", words
    if term.field in FLAGS:
        return _FLAG_SQL[f"{term.field}:{term.value}"], []
    if term.field == "id":
        end = plain(term.value) + "\U0010ffff"
        return "((id >= ? AND id < ?) OR (attempt >= ? AND attempt < ?))", [plain(term.value), end] * 2
    if term.field.startswith("score."):
        operator = "=" if term.operator == ":" else term.operator
        return f"{_LATER_SCORE} {operator} ?", [plain(term.field.removeprefix("score.")), term.number]
    column = _COLUMNS[term.field]
    if FIELDS[term.field] == "number":
        operator = "=" if term.operator == ":" else term.operator
        return f"{column} {operator} ?", [term.number]  # NULL fulfils nothing, negated or not
    column, word = without_case(f"coalesce({column}, '')", term.value)
    return f"{column} = ?" if term.operator == "=" else f"instr({column}, ?)", [word]


def shown_filter(terms: Mapping[str, str]) -> str:
    """A filter of `field=value` terms, each value quoted where it needs to be."""
    return " ".join(written_term(field, value) for field, value in terms.items())
