"""Filters, sorts and counts received traces by SQL over their summaries, and groups them by session, user or day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from firsthand.errors import ConfigError
from firsthand.ingest.trace_store import TraceStore
from firsthand.ingest.trace_summary import COLUMNS, TraceSummary, summaries_of
from firsthand.runs.database import plain
from firsthand.studio.found_page import FoundPage
from firsthand.studio.typed_filter import Kind, Term, parse_filter, without_case

PAGE = 100
FIELDS: dict[str, Kind] = {
    "id": "text",
    "name": "text",
    "service": "text",
    "model": "text",
    "session": "text",
    "user": "text",
    "tag": "text",
    "day": "text",
    "input": "text",
    "output": "text",
    "spans": "number",
    "errors": "number",
    "tokens": "number",
    "cost": "number",
    "seconds": "number",
    "redactions": "number",
    "score.": "number",
}
FACETS = ("service", "model", "name", "user", "session")
FLAGS = {"has": ("error", "root", "session", "user", "score", "redaction")}
_TOKENS = "(prompt_tokens + completion_tokens)"
_SUM_OF_TOKENS = f"cast(total({_TOKENS}) AS INTEGER)"  # SQLite's `sum` of integers beyond 64 bits is an error
_SECONDS = "(max(0, last_ns - first_ns) / 1e9)"
_DAY = "date(first_ns / 1000000000, 'unixepoch')"
_COLUMNS = {
    "name": "name", "service": "service", "model": "models", "session": "session", "user": "user", "input": "input",
    "output": "output", "spans": "num_spans", "errors": "num_errors", "tokens": _TOKENS, "cost": "cost_usd",
    "seconds": _SECONDS, "day": _DAY, "redactions": "redactions", "started": "first_ns", "changed": "changed",
}  # fmt: skip
_DAY_NS = 86_400_000_000_000
SORTABLE = ("started", "changed", "spans", "errors", "tokens", "cost", "seconds")
_SCORE = "(SELECT value FROM scores WHERE scores.trace = traces.trace AND scores.name = ? ORDER BY seq DESC LIMIT 1)"
_EACH_MODEL = (
    "several AS (SELECT models, count(*) AS n FROM found WHERE models <> '' GROUP BY 1), each_model AS (SELECT value, n FROM"
    """ several, json_each('[' || replace(json_quote(trim(models, '|')), '|', '","') || ']'))"""
)
"""Each model of each trace in `found`: the names between bars, read as a list in JSON."""
_LIKE = r"LIKE ? ESCAPE '\'"
_FLAG_SQL = {
    "has:error": "num_errors > 0",
    "has:root": "name_rank = 0",
    "has:session": "session <> ''",
    "has:user": "user <> ''",
    "has:score": "EXISTS (SELECT 1 FROM scores WHERE scores.trace = traces.trace)",
    "has:redaction": "redactions > 0",
}


@dataclass(frozen=True)
class GroupRow:
    """The traces of one session or user together."""

    name: str
    num_traces: int
    num_errors: int
    tokens: int
    cost_usd: float
    first_ns: int
    last_ns: int
    other: int
    """The number of users of a session, or of sessions of a user."""


@dataclass(frozen=True)
class DayRow:
    """The traces that began on one day, by UTC."""

    day: str
    """As in 2026-11-28."""
    num_traces: int
    num_errors: int
    tokens: int
    cost_usd: float
    median_s: float
    p95_s: float


@dataclass(frozen=True)
class IncomingQuery:
    """The traces to list: a filter, and a column to sort by, with a minus for the highest first."""

    terms: tuple[Term, ...] = ()
    sort: str = "-started"

    @staticmethod
    def parse(text: str, sort: str = "") -> IncomingQuery:
        """The query of a filter as typed and a column; ConfigError if either is not understood."""
        if sort and sort.removeprefix("-") not in SORTABLE:
            raise ConfigError(f"traces cannot be sorted by {sort[:40]!r}: they can by {', '.join(SORTABLE)}")
        return IncomingQuery(parse_filter(text, FIELDS, FLAGS), sort or "-started")

    def page(self, store: TraceStore, start: int = 0, limit: int = PAGE) -> FoundPage[TraceSummary]:
        """A page of the traces that are found."""
        where, values = self._where()
        total = store.database.read(f"SELECT count(*) FROM traces WHERE {where}", values)[0][0]
        sql = f"SELECT {', '.join(COLUMNS)} FROM traces WHERE {where} ORDER BY {self._order()} LIMIT ? OFFSET ?"
        rows = store.database.read(sql, (*values, limit, max(0, start)))
        return FoundPage(tuple(summaries_of(rows)), total, max(0, start))

    def beside(self, store: TraceStore, one: TraceSummary) -> tuple[str | None, str | None]:
        """The traces before and after one of those that are found, as they are sorted."""
        where, values = self._where()
        name, descending = self.sort.removeprefix("-"), self.sort.startswith("-")
        column = _COLUMNS[name]
        own = store.database.read(f"SELECT {column} FROM traces WHERE trace = ?", (one.trace,))
        if not own:
            return None, None
        found = []
        for is_before in (True, False):
            sign, order = ("<", "DESC") if is_before != descending else (">", "ASC")
            sql = (
                f"SELECT trace FROM traces WHERE {where} AND ({column}, trace) {sign} (?, ?)"
                f" ORDER BY {column} {order}, trace {order} LIMIT 1"
            )
            rows = store.database.read(sql, (*values, own[0][0], one.trace))
            found.append(rows[0][0] if rows else None)
        return found[0], found[1]

    def facets(self, store: TraceStore, most: int = 20) -> dict[str, list[tuple[str, int]]]:
        """Field -> its values with the number of traces of each, of all that are found, the most frequent first."""
        where, values = self._where()
        counted = " UNION ALL ".join(
            f"SELECT * FROM (SELECT '{field}', {field}, count(*) AS n FROM found WHERE {field} <> ''"
            f" GROUP BY 2 ORDER BY n DESC, 2 LIMIT {most:d})"
            for field in FACETS
            if field != "model"
        )  # the filter is applied once, not once for each field
        columns = ", ".join((*FACETS, "models"))
        sql = (
            f"WITH found AS MATERIALIZED (SELECT {columns} FROM traces WHERE {where}), {_EACH_MODEL} {counted} UNION ALL"
            " SELECT * FROM (SELECT 'model', value, sum(n) AS n FROM each_model GROUP BY 2"
            f" ORDER BY n DESC, 2 LIMIT {most:d})"
        )
        found: dict[str, list[tuple[str, int]]] = {field: [] for field in FACETS}
        for field, value, count in store.database.read(sql, values):
            found[field].append((str(value), int(count)))
        return found

    def groups(self, store: TraceStore, by: str, start: int = 0, limit: int = PAGE) -> list[GroupRow]:
        """The sessions or users of the traces that are found, those with the newest trace first."""
        where, values = self._where()
        other = "user" if by == "session" else "session"
        sql = (
            f"SELECT {by}, count(*), sum(num_errors > 0), {_SUM_OF_TOKENS}, sum(cost_usd), min(first_ns), max(last_ns),"
            f" count(DISTINCT nullif({other}, '')) FROM traces WHERE {where} AND {by} <> '' GROUP BY 1"
            " ORDER BY max(first_ns) DESC, 1 LIMIT ? OFFSET ?"
        )
        return [GroupRow(*row) for row in store.database.read(sql, (*values, limit, max(0, start)))]

    def days(self, store: TraceStore, start: int = 0, limit: int = PAGE) -> list[DayRow]:
        """The days of the traces that are found, the newest first; percentiles of their durations by nearest rank."""
        where, values = self._where()
        sql = (
            f"WITH found AS (SELECT first_ns / {_DAY_NS} AS day, num_errors > 0 AS failed, {_TOKENS} AS tokens, cost_usd,"
            f" max(0, last_ns - first_ns) / 1e9 AS took FROM traces WHERE {where} AND first_ns <= last_ns),"
            " ranked AS (SELECT *, row_number() OVER (PARTITION BY day ORDER BY took) AS place,"
            " count(*) OVER (PARTITION BY day) AS number FROM found)"
            " SELECT date(day * 86400, 'unixepoch'), count(*), sum(failed), cast(total(tokens) AS INTEGER), sum(cost_usd),"
            " max(took) FILTER (WHERE place = (number + 1) / 2), max(took) FILTER (WHERE place = (95 * number + 99) / 100)"
            " FROM ranked GROUP BY day ORDER BY day DESC LIMIT ? OFFSET ?"
        )
        return [DayRow(*row) for row in store.database.read(sql, (*values, limit, max(0, start)))]

    def _order(self) -> str:
        name, direction = self.sort.removeprefix("-"), "DESC" if self.sort.startswith("-") else "ASC"
        return f"{_COLUMNS[name]} {direction}, trace {direction}"

    def _where(self) -> tuple[str, tuple[Any, ...]]:
        clauses: list[str] = ["1"]
        values: list[Any] = []
        for term in self.terms:
            clause, its = _condition(term)
            clauses.append(f"NOT ({clause})" if term.is_negated else clause)
            values += its
        return " AND ".join(clauses), tuple(values)


def _condition(term: Term) -> tuple[str, Sequence[Any]]:
    if not term.field:
        names = ("name", "input", "output", "service", "models", "session", "user")
        parts, words = zip(*(_holds(name, term.value) for name in names), strict=True)
        return f"({' OR '.join(parts)})", words
    if term.field in FLAGS:
        return _FLAG_SQL[f"{term.field}:{term.value}"], []
    if term.field == "id":
        word = plain(term.value.lower())
        return "(trace >= ? AND trace < ?)", [word, word + "\U0010ffff"]
    if term.field == "tag" or (term.field == "model" and term.value):
        listed, word = without_case("tags" if term.field == "tag" else "models", term.value.replace("|", " "))
        return f"instr({listed}, ?)", [f"|{word}|" if term.operator == "=" else word]
    operator = "=" if term.operator == ":" else term.operator
    if term.field.startswith("score."):
        name = plain(term.field.removeprefix("score."))
        return f"{_SCORE} {operator} ?", [name, term.number]  # NULL fulfils nothing, negated or not
    if FIELDS[term.field] == "number":
        return f"{_COLUMNS[term.field]} {operator} ?", [term.number]
    if term.operator == "=":
        column, word = without_case(_COLUMNS[term.field], term.value)
        return f"{column} = ?", [word]
    condition, word = _holds(_COLUMNS[term.field], term.value)
    return condition, [word]


def _holds(column: str, word: str) -> tuple[str, str]:
    """The condition that a column holds a word in any case, and its value; LIKE is twice as fast as `instr(lower(...))`."""
    if not word.isascii():  # LIKE knows the case of ASCII alone
        column, word = without_case(column, word)
        return f"instr({column}, ?)", word
    word = word.lower()
    for sign in "\\%_":
        word = word.replace(sign, f"\\{sign}")
    return f"{column} {_LIKE}", f"%{word}%"
