"""The attempts that a run keeps: their traces, every try of them, and the scores that they were given later.

Bodies are read one by one, so that a run of any size can be gone through. What else a run holds is in `store.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from firsthand.errors import StoreError, UnknownName, unknown
from firsthand.loop.attempt import cost_of
from firsthand.message import Json
from firsthand.model import Usage
from firsthand.runs.database import Database, plain, put
from firsthand.runs.stored_journal import now
from firsthand.trace import Score, Trace

T = TypeVar("T")
_PAGE = 200
LATEST = (
    "NOT EXISTS (SELECT 1 FROM traces later WHERE later.attempt = traces.attempt AND later.try > traces.try)"
    " AND (:benchmark IS NULL OR benchmark = :benchmark) AND (:agent IS NULL OR agent = :agent)"
)


@dataclass(frozen=True)
class TraceRow:
    """What a list shows of a trace, read without its body."""

    id: str
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
        """Its place, as `Run.trace` takes it: benchmark/task/agent/epoch."""
        return f"{self.benchmark}/{self.task_id}/{self.agent}/{self.epoch}"


class Attempts:
    """The attempts in a run's file."""

    def __init__(self, id: str, database: Database):
        self.id = id
        self.database = database

    # -- traces --

    def append(self, trace: Trace) -> None:
        """Keep a finished attempt. What in it is not JSON, such as a note of a pattern, is kept as text."""
        if not _is_tree(trace):
            raise StoreError(f"trace {trace.id} has a message whose parent does not come before it: it cannot be kept")
        key = plain(trace.id)
        usage = trace.usage
        with self.database.write() as connection:
            columns = (
                plain(trace.benchmark), plain(trace.task_id), plain(trace.agent_name), trace.epoch,
                trace.value(), plain(trace.stop_reason),
                plain(_in_a_line(trace)) if trace.error else None,
                len(trace.calls), usage.total_tokens, usage.cost_usd, trace.duration_s, trace.version,
                put(connection, trace.to_json(), exact=False),
            )  # fmt: skip
            connection.execute(
                "INSERT INTO traces (attempt, try, benchmark, task, agent, epoch, score, stop_reason, error, calls,"
                " tokens, cost_usd, duration_s, version, body)"
                " SELECT ?, coalesce(max(try), 0) + 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM traces WHERE attempt = ?",
                (key, *columns, key),
            )

    def traces(self, *, benchmark: str | None = None, agent: str | None = None) -> Iterator[Trace]:
        """The latest trace of each attempt, in the order they were finished; few of them are in memory at a time."""
        for trace, _ in self.tried(benchmark=benchmark, agent=agent):
            yield trace

    def tried(self, *, benchmark: str | None = None, agent: str | None = None) -> Iterator[tuple[Trace, int]]:
        """The same, each with the number of its try, from 1 on."""
        for row, number, body in self._latest(benchmark, agent):
            trace = self.read(_trace_from_json, body)
            if trace.id != row.id and plain(trace.id) != row.id:
                raise self.database.damaged("a trace is not the one its row says")
            yield self._with_scores(trace, number), number

    def samples(self, benchmark: str) -> list[Trace]:
        """A scored attempt at the benchmark, and one of each score given later: what kinds of scores there are."""
        own = "SELECT attempt FROM traces WHERE benchmark = ? AND score IS NOT NULL LIMIT 1"
        later = (
            "SELECT traces.attempt FROM scores JOIN traces ON traces.attempt = scores.attempt"
            " WHERE benchmark = ? AND name = ? AND value IS NOT NULL LIMIT 1"
        )
        asked = [(own, (plain(benchmark),)), *((later, (plain(benchmark), plain(n))) for n in self.score_names())]
        attempts = dict.fromkeys(str(id) for sql, given in asked for (id,) in self.database.read(sql, given))
        return [self.tries(id)[-1] for id in attempts]

    def rows(self, *, benchmark: str | None = None, agent: str | None = None) -> Iterator[TraceRow]:
        """What a list shows of the latest trace of each attempt, in the order they were finished."""
        return (row for row, _, _ in self._latest(benchmark, agent))

    def trace(self, ref: str) -> Trace:
        """The trace that `ref` names: a unique beginning of its id, or benchmark/task/agent/epoch, as far as needed."""
        rows = list(self.rows())
        wanted = plain(ref)
        names = [row.name for row in rows]
        matching = [row for row in rows if wanted in (row.id, row.name)]
        matching = matching or [row for row in rows if wanted and row.id.startswith(wanted)]
        matching = matching or [row for row in rows if wanted and row.name.startswith(wanted.rstrip("/") + "/")]
        if not matching:
            raise unknown("trace", ref, [*names, *(row.id for row in rows)], see=f"firsthand runs {self.id}")
        if len(matching) > 1:
            few = ", ".join(f"{row.name} ({row.id})" for row in matching[:3])
            raise UnknownName(f"{ref!r} names {len(matching)} traces, such as {few}: give more of it")
        return self.tries(matching[0].id)[-1]

    def tries(self, trace_id: str) -> list[Trace]:
        """All traces of one attempt, the first try first."""
        rows = self.database.read("SELECT try, body FROM traces WHERE attempt = ? ORDER BY try", (plain(trace_id),))
        return [self._with_scores(self.read(_trace_from_json, body), number) for number, body in rows]

    def done(self, *, errors: bool = True) -> set[str]:
        """The ids of the finished attempts; with `errors=False` without those whose latest try failed."""
        sql = f"SELECT attempt FROM traces WHERE {LATEST} AND (:errors OR error IS NULL)"
        return {str(attempt) for (attempt,) in self.database.read(sql, filters(None, None) | {"errors": errors})}

    def spent(self) -> tuple[Usage, int]:
        """What finished attempts and their judges cost, every try: tokens (as prompt tokens), money, and how many calls."""
        sql = "SELECT coalesce(sum(tokens), 0), coalesce(sum(cost_usd), 0.0), coalesce(sum(calls), 0) FROM traces"
        tokens, cost_usd, num_calls = self.database.read(sql)[0]
        judges = (
            "SELECT reply FROM effects WHERE effect LIKE 'scorer %|%' AND attempt IN (SELECT attempt FROM traces)"
            " GROUP BY attempt, effect, request"
        )
        replies = [self.body(digest) for (digest,) in self.database.read(judges)]
        usage = Usage(prompt_tokens=tokens, cost_usd=cost_usd)
        for reply in replies:
            judged = cost_of(reply)
            usage += Usage(prompt_tokens=judged.total_tokens, cost_usd=judged.cost_usd)
        return usage, num_calls + len(replies)

    # -- scores given later --

    def add_score(self, trace: Trace, number: int, name: str, scorer: str, score: Score) -> None:
        """Keep a score that the try of this number was given later, under a name; of several the last one counts.

        `scorer` says in words what gave it. Under one name there are scores of one scorer only: else it is a StoreError.
        """
        with self.database.write() as connection:
            kept = connection.execute(
                "SELECT scorer FROM scores WHERE name = ? AND scorer <> ? LIMIT 1", (plain(name), plain(scorer))
            ).fetchone()
            if kept is not None:
                raise StoreError(
                    f"run {self.id} has scores named {name!r} already, given by {kept[0]}: "
                    "give the new ones another name, as in --as NAME"
                )
            connection.execute(
                "INSERT INTO scores (attempt, try, name, scorer, value, body, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    plain(trace.id),
                    number,
                    plain(name),
                    plain(scorer),
                    None if score.failed else score.value,
                    put(connection, asdict(score), exact=False),
                    now(),
                ),
            )

    def score_names(self) -> dict[str, str]:
        """The names of scores given later, each with what gave them."""
        rows = self.database.read("SELECT name, scorer FROM scores GROUP BY name ORDER BY min(seq)")
        return {str(name): str(scorer) for name, scorer in rows}

    def scored(self, name: str) -> dict[tuple[str, int], bool]:
        """The attempts and tries that have a score of that name given later, and whether the last one is a score at all."""
        rows = self.database.read("SELECT attempt, try, value FROM scores WHERE name = ? ORDER BY seq", (plain(name),))
        return {(str(attempt), int(number)): value is not None for attempt, number, value in rows}

    def _with_scores(self, trace: Trace, number: int) -> Trace:
        """The trace with its later scores after its own."""
        rows = self.database.read(
            "SELECT name, body FROM scores WHERE attempt = ? AND try = ? ORDER BY seq", (plain(trace.id), number)
        )
        if not rows:
            return trace
        later = {str(name): self.read(lambda body: Score(**body), body) for name, body in rows}
        return trace.scored((*trace.scores, *later.values()))

    # -- inside --

    def _latest(self, benchmark: str | None, agent: str | None) -> Iterator[tuple[TraceRow, int, Any]]:
        """The rows page by page, so that a slow reader holds no transaction open."""
        sql = (
            "SELECT seq, try, attempt, benchmark, task, agent, epoch, score, stop_reason, error, calls, tokens, cost_usd,"
            f" duration_s, body FROM traces WHERE seq > :after AND {LATEST} ORDER BY seq LIMIT {_PAGE}"
        )
        after = -1 << 63
        while rows := self.database.read(sql, filters(benchmark, agent) | {"after": after}):
            for _, number, *columns, body in rows:
                yield TraceRow(*columns), number, body
            after = rows[-1][0]

    def read(self, from_json: Callable[[Json], T], digest: Any) -> T:
        body = self.body(digest)
        try:
            return from_json(body)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self.database.damaged(f"a record is not what was expected: {error!r}") from None

    def body(self, digest: Any) -> Json:
        body = self.database.get(digest)
        if not isinstance(body, dict):
            raise self.database.damaged("a body is not a JSON object")
        return body


def _in_a_line(trace: Trace) -> str:
    """The error for a list, which is kept as plain text: of a protected task its kind alone, for a message may quote."""
    assert trace.error is not None
    return trace.error.kind if trace.protected is not None else f"{trace.error.kind}: {trace.error.message}"


def _trace_from_json(body: Json) -> Trace:
    trace = Trace.from_json(body)
    if not _is_tree(trace):
        raise ValueError("a message's parent does not come before it")
    return trace


def _is_tree(trace: Trace) -> bool:
    """Whether each message comes after its parent: in a circle, walking up to the first message would never end."""
    return all(node.parent is None or 0 <= node.parent < index for index, node in enumerate(trace.nodes))


def filters(benchmark: str | None, agent: str | None) -> dict[str, Any]:
    return {
        "benchmark": None if benchmark is None else plain(benchmark),
        "agent": None if agent is None else plain(agent),
    }
