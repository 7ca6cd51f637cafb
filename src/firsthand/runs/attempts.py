"""Reads and writes the attempts in a run's file: rows, summaries and traces. `Run` in `run_folder.py` is what others use.

Rows are read page by page, so that a run of any size can be gone through and a slow reader holds no transaction open.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from firsthand.errors import DataError, UnknownName, unknown
from firsthand.message import Json
from firsthand.model import Usage
from firsthand.runs.attempt_summary import AttemptSummary, pack_numbers, unpack_numbers, unpack_score
from firsthand.runs.database import Database, PackedBody, plain, put, put_packed
from firsthand.runs.integrity import seal
from firsthand.trace import MAX_NUMBER, Score, Trace

T = TypeVar("T")
_PAGE = 200
_SUMMARY_PAGE = 2000
_MAX_MATCHES = 20
"""Attempts that an ambiguous name is looked up among; an error names fewer."""
_MAX_NEAR = 1000
"""Attempts among which a near match of an unknown name is looked for."""
_NAME = "benchmark || '/' || task || '/' || agent || '/' || epoch"
"""As in the index `traces_by_name`."""
_IS_LATEST = "NOT EXISTS (SELECT 1 FROM traces later WHERE later.attempt = traces.attempt AND later.try > traces.try)"
LATEST = f"{_IS_LATEST} AND (:benchmark IS NULL OR benchmark = :benchmark) AND (:agent IS NULL OR agent = :agent)"
LOOKUPS = (
    ("id = :ref AND id <> attempt",),
    (f"attempt = :ref AND {_IS_LATEST}",),
    (f"{_NAME} = :ref AND {_IS_LATEST}",),
    ("id >= :ref AND id < :end AND id <> attempt", f"attempt >= :ref AND attempt < :end AND {_IS_LATEST}"),
    (f"{_NAME} >= :folder AND {_NAME} < :folder_end AND {_IS_LATEST}",),
)
"""The searches for a reference to an attempt, each in an index; the first that finds anything counts.

Before 0.7.0 an attempt had its place for an id: it is found by its place, as the latest try.
"""


@dataclass(frozen=True)
class TraceRow:
    """An attempt in a list."""

    id: str
    place: str
    benchmark: str
    task_id: str
    agent: str
    epoch: int
    score: float | None
    """The value of the first score; None if the attempt, or the scoring of it, failed."""
    stop_reason: str
    error: str | None
    num_calls: int
    tokens: int
    cost_usd: float
    duration_s: float

    @property
    def name(self) -> str:
        """Its name, as `Run.trace` takes it: benchmark/task/agent/epoch."""
        return f"{self.benchmark}/{self.task_id}/{self.agent}/{self.epoch}"


def insert_trace(connection: sqlite3.Connection, trace: Trace, body: PackedBody | None = None) -> None:
    """Add a finished attempt, as the next try of its place; `body` is its JSON, where it was packed before."""
    summary, place = AttemptSummary.of(trace), plain(trace.place)
    usage = summary.usage
    numbers = {"score": trace.value(), "tokens": usage.total_tokens, "cost": usage.cost_usd, "time": trace.duration_s}
    for name, value in numbers.items():
        expect_number(trace.place, name, value)
    columns = (
        plain(trace.id), plain(trace.benchmark), plain(trace.task_id), plain(trace.agent_name), trace.epoch,
        trace.value(), plain(trace.stop_reason),
        None if summary.error is None else plain(summary.error),
        len(trace.calls), usage.total_tokens, usage.cost_usd, trace.duration_s, trace.version,
        put(connection, trace.to_json(), exact=False) if body is None else put_packed(connection, body),
        pack_numbers(summary),
    )  # fmt: skip
    cursor = connection.execute(
        "INSERT INTO traces (attempt, try, id, benchmark, task, agent, epoch, score, stop_reason, error, calls,"
        " tokens, cost_usd, duration_s, version, body, numbers)"
        " SELECT ?, coalesce(max(try), 0) + 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM traces WHERE attempt = ?",
        (place, *columns, place),
    )
    seal(connection, "traces", "seq = ?", (cursor.lastrowid,))


def expect_number(place: str, name: str, value: float | None) -> None:
    """DataError for a number with which the run would count as damaged when it is read."""
    if value is not None and abs(value) > MAX_NUMBER:
        raise DataError(
            f"the {name} of {place[:200]} is {'infinite' if value in (math.inf, -math.inf) else 'beyond its range'}: "
            f"a number up to {MAX_NUMBER:g} was expected, so correct what gives it"
        )


def latest_rows(database: Database, benchmark: str | None, agent: str | None) -> Iterator[tuple[TraceRow, int, Any]]:
    """The latest try of each attempt in the order they were finished: its row, its number, and its body's digest."""
    columns = (
        "try, body, id, attempt, benchmark, task, agent, epoch, score, stop_reason, error, calls, tokens, cost_usd,"
        " duration_s"
    )
    for number, body, *rest in _latest(database, columns, benchmark, agent, _PAGE):
        yield TraceRow(*rest), number, body


def summaries(database: Database, benchmark: str | None, agent: str | None) -> Iterator[AttemptSummary]:
    """The summary of the latest try of each attempt in the order they were finished, with the scores given later.

    Of a run that was made before 0.7.0 the traces are decoded.
    """
    later = _later_scores(database)
    columns = "try, body, numbers, id, attempt, benchmark, task, agent, epoch, stop_reason, error, calls"
    columns += ", cost_usd, duration_s"
    for number, body, numbers, *rest in _latest(database, columns, benchmark, agent, _SUMMARY_PAGE):
        id, place, its_benchmark, task, its_agent, epoch, stop_reason, error, num_calls, cost_usd, duration_s = rest
        if numbers is None:
            summary = AttemptSummary.of(read_trace(database, body))
        else:
            (prompt, cached, completion), critical_s, scores, unreported = parsed(database, unpack_numbers, numbers)
            usage = Usage(prompt, cached, completion, cost_usd)
            summary = AttemptSummary(
                id, place, its_benchmark, task, its_agent, epoch, stop_reason, error, num_calls, usage, duration_s,
                critical_s, scores, unreported,
            )  # fmt: skip
        found = later.get((place, number))
        yield summary.scored((*summary.scores, *found.values())) if found else summary


def _latest(
    database: Database, columns: str, benchmark: str | None, agent: str | None, page: int
) -> Iterator[list[Any]]:
    sql = f"SELECT seq, {columns} FROM traces WHERE seq > :after AND {LATEST} ORDER BY seq LIMIT {page}"
    after = -1 << 63
    while rows := database.read(sql, filters(benchmark, agent) | {"after": after}):
        for _, *rest in rows:
            yield rest
        after = rows[-1][0]


def _later_scores(database: Database) -> dict[tuple[str, int], dict[str, Score]]:
    """(attempt, try) -> name -> the last score given later under it."""
    found: dict[tuple[str, int], dict[str, Score]] = {}
    rows = database.read("SELECT attempt, try, name, numbers, body FROM scores ORDER BY seq")
    for place, number, name, numbers, body in rows:
        found.setdefault((place, number), {})[name] = score_of(database, numbers, body)
    return found


def score_of(database: Database, numbers: Any, body: Any) -> Score:
    """A score given later, from its stored numbers; from its body where it was given before there were such."""
    return parsed(database, unpack_score, numbers) if numbers is not None else read_score(database, body)


def own_scores(database: Database, numbers: Any, body: Any) -> tuple[Score, ...]:
    """An attempt's own scores, from its stored numbers; from its trace where it was made before there were such."""
    if numbers is None:
        return AttemptSummary.of(read_trace(database, body)).scores
    return parsed(database, unpack_numbers, numbers)[2]


def find(database: Database, ref: str, run_id: str) -> tuple[str, int]:
    """The place and the try of the attempt that `ref` names.

    It is an id, a place, benchmark/task/agent/epoch, a unique beginning of an id or a place, or the first parts of such a
    name. UnknownName if there is none, or if there are several: it lists them.
    """
    text = plain(ref)
    folder = text.rstrip("/") + "/"
    values = {"ref": text, "end": text + _LAST, "folder": folder, "folder_end": folder + _LAST}
    for conditions in LOOKUPS if text else ():
        matches = {row.id: row for condition in conditions for row in _matches(database, condition, values)}
        if len(matches) == 1:
            (match,) = matches.values()
            return match.place, match.number
        if matches:
            few = ", ".join(f"{row.name} ({row.id})" for row in list(matches.values())[:4])
            count = f"{len(matches)}" if len(matches) < _MAX_MATCHES else f"{_MAX_MATCHES} or more"
            raise UnknownName(f"{ref!r} names {count} attempts, such as {few}: give more of it")
    near = database.read(f"SELECT {_NAME}, id, attempt FROM traces LIMIT {_MAX_NEAR}")
    raise unknown("attempt", ref, [each for row in near for each in row], see=f"firsthand runs {run_id}")


class _Match(NamedTuple):
    id: str
    place: str
    number: int
    name: str


def _matches(database: Database, condition: str, values: dict[str, Any]) -> list[_Match]:
    return [_Match(*row) for row in database.read(match_sql(condition), values)]


def match_sql(condition: str) -> str:
    """The query for one of LOOKUPS."""
    return f"SELECT id, attempt, try, {_NAME} FROM traces WHERE {condition} LIMIT {_MAX_MATCHES}"


_LAST = "\U0010ffff"
"""Sorts after whatever may follow a beginning."""


def trace_body(database: Database, place: str, number: int) -> Json:
    """A try of an attempt as it is stored."""
    rows = database.read("SELECT body FROM traces WHERE attempt = ? AND try = ?", (place, number))
    return body_of(database, rows[0][0])


def read_trace(database: Database, digest: Any) -> Trace:
    """The trace in the body of that digest."""
    return read_as(database, _trace_from_json, digest)


def read_score(database: Database, digest: Any) -> Score:
    """The score in the body of that digest."""
    return read_as(database, lambda body: Score(**body), digest)


def read_as(database: Database, from_json: Callable[[Json], T], digest: Any) -> T:
    """Parse the body of that digest with `from_json`."""
    return parsed(database, from_json, body_of(database, digest))


def parsed(database: Database, parse: Callable[[Any], T], stored: Any) -> T:
    """Parse a stored value with `parse`; StoreError if it is malformed."""
    try:
        return parse(stored)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError) as error:
        raise database.damaged(f"a record is not what was expected: {error!r}") from None


def body_of(database: Database, digest: Any) -> Json:
    """The JSON object of that digest."""
    body = database.get(digest)
    if not isinstance(body, dict):
        raise database.damaged("a body is not a JSON object")
    return body


def is_tree(trace: Trace) -> bool:
    """True if each message comes after its parent: in a circle, walking up to the first message would never end."""
    return all(node.parent is None or 0 <= node.parent < index for index, node in enumerate(trace.nodes))


def filters(benchmark: str | None, agent: str | None) -> dict[str, Any]:
    """The parameters of LATEST."""
    return {
        "benchmark": None if benchmark is None else plain(benchmark),
        "agent": None if agent is None else plain(agent),
    }


def _trace_from_json(body: Json) -> Trace:
    trace = Trace.from_json(body)
    if not is_tree(trace):
        raise ValueError("a message's parent does not come before it")
    return trace


def has_figure(database: Database, benchmark: str, score_names: Iterable[str]) -> bool:
    """True if the first score at the benchmark is a share of a figure, such as BLEU of a corpus."""
    for place in samples(database, benchmark, score_names)[:1]:
        own = database.read("SELECT numbers, body FROM traces WHERE attempt = ? ORDER BY try DESC LIMIT 1", (place,))
        later = database.read("SELECT numbers, body FROM scores WHERE attempt = ? ORDER BY seq LIMIT 1", (place,))
        first = [*own_scores(database, *own[0]), *(score_of(database, *each) for each in later)][:1]
        return any(each.corpus is not None for each in first)
    return False


def harms(database: Database) -> list[str]:
    """The benchmarks whose attempts have a score of harm as the first of their own: lower is better there."""
    found = []
    following, benchmark = "SELECT min(benchmark) FROM traces WHERE benchmark > ?", ""
    while (benchmark := database.read(following, (benchmark,))[0][0]) is not None:  # a search for each, no scan
        for place in samples(database, benchmark, ()):
            own = database.read(
                "SELECT numbers, body FROM traces WHERE attempt = ? ORDER BY try DESC LIMIT 1", (place,)
            )
            found += [str(benchmark) for each in own_scores(database, *own[0])[:1] if each.is_harm]
    return found


def samples(database: Database, benchmark: str, score_names: Iterable[str]) -> list[str]:
    """The places of an attempt at the benchmark that has a score of its own, and of one with each score given later."""
    own = f"SELECT attempt FROM traces WHERE benchmark = ? AND score IS NOT NULL AND {_IS_LATEST} LIMIT 1"
    later = (
        "SELECT traces.attempt FROM scores JOIN traces ON traces.attempt = scores.attempt AND traces.try = scores.try"
        f" WHERE benchmark = ? AND name = ? AND value IS NOT NULL AND {_IS_LATEST} LIMIT 1"
    )
    queries = [(own, (plain(benchmark),)), *((later, (plain(benchmark), plain(name))) for name in score_names)]
    return list(dict.fromkeys(str(place) for sql, values in queries for (place,) in database.read(sql, values)))
