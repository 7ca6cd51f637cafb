"""Sums of a run's scores, computed inside SQLite: a million attempts take about a second, and no trace is read.

The sums are enough for means and intervals (`stats/run_summary.py`). The first score of each attempt has a column, and so
has every score given later. An attempt without a score counts as 0 and is counted apart; one whose judge gave no verdict, or
that nobody rated under a name of people's scores (`NOTE`), is in no mean. They know no reducer of epochs but the mean, and
no figures: `stats.agent_scores` has the run's scores.
`Run.totals` and `Run.task_means` are the ways in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from firsthand.loop.attempt import cost_of, is_call
from firsthand.model import Usage
from firsthand.runs.attempts import body_of, own_scores, score_of
from firsthand.runs.database import Database, plain
from firsthand.trace import NOTE

_SUPERSEDED = (
    "SELECT old.seq FROM (SELECT attempt, max(try) AS last FROM traces WHERE try > 1 GROUP BY attempt) AS retried"
    " JOIN traces AS old ON old.attempt = retried.attempt AND old.try < retried.last"
)


def _by_task(name: str | None) -> str:
    """The query for one agent's tasks at one benchmark, by their first score or by one given later under `:name`.

    `value` is what an attempt counts as: nothing if it is one of `:unjudged`, or has no score of a name that people give.
    """
    kept = f"FROM traces WHERE benchmark = :benchmark AND agent = :agent AND seq NOT IN ({_SUPERSEDED})"
    score, rated = "score", name is not None and name.startswith(NOTE)
    if name is not None:
        later = "SELECT value FROM scores WHERE attempt = traces.attempt AND try = traces.try AND name = :name"
        score = f"({later} ORDER BY seq DESC LIMIT 1) AS score"
    kept = (
        "FROM (SELECT *, CASE WHEN score IS NOT NULL THEN score"
        f" WHEN {'0' if rated else '1'} AND seq NOT IN (SELECT value FROM json_each(:unjudged)) THEN 0 END AS value"
        f" FROM (SELECT seq, task, error, tokens, cost_usd, duration_s, {score} {kept}))"
    )
    return (
        "SELECT task, avg(value) AS mean, count(*) AS attempts, count(value) AS epochs, count(score) AS scored,"
        " sum((value - :shift) * (value - :shift)) AS squares,"
        " sum(score <> 0 AND score <> 1) AS others,"
        f" {'sum(score IS NULL AND error IS NULL)' if rated else '0'} AS unrated,"
        " sum(tokens) AS tokens, sum(cost_usd) AS usd, sum(duration_s) AS seconds"
        f" {kept} GROUP BY task"
    )


def _sums(name: str | None) -> str:
    return (
        "SELECT count(mean), sum(attempts), sum(scored), sum(mean), sum((mean - :shift) * (mean - :shift)), min(mean),"
        " max(mean), sum(mean <> 0 AND mean <> 1), sum(squares - epochs * (mean - :shift) * (mean - :shift)),"
        " sum(1.0 / epochs), sum(coalesce(others, 0)), sum(tokens), sum(usd), sum(seconds),"
        " sum(attempts - epochs), sum(unrated), sum(mean - :shift)"
        f" FROM ({_by_task(name)})"
    )


def _by_cluster(name: str | None) -> str:
    return (
        f"SELECT sum(mean), count(*) FROM ({_by_task(name)}) AS each LEFT JOIN tasks ON tasks.benchmark = :benchmark"
        " AND tasks.task = each.task WHERE mean IS NOT NULL GROUP BY coalesce('in ' || cluster, 'alone ' || each.task)"
    )


@dataclass(frozen=True)
class Totals:
    """The sums of one agent on one benchmark. `means` are those of tasks over their attempts.

    With no task, all sums of means and squares say nothing: each attempt is `unjudged`.
    """

    benchmark: str
    agent: str
    tasks: int
    """Tasks with an attempt that is not `unjudged`."""
    attempts: int
    scored: int
    """Attempts that have a score; of the others but for the `unrated`, the attempt or its scoring failed."""
    sum_means: float | None
    """None if it is not a number."""
    squares_between: float
    """The squared deviations of the tasks' means from their mean, added up."""
    lowest: float
    highest: float
    fractions: int
    """Tasks whose mean is neither 0 nor 1."""
    squares_within: float
    """The squared deviations of attempts from their task's mean, added up."""
    inverse_epochs: float
    """1 / counted attempts of each task, added up."""
    others: int
    """Scores that are neither 0 nor 1."""
    tokens: int
    cost_usd: float
    seconds: float
    clusters: tuple[tuple[float, int], ...] = ()
    """For each cluster the sum of its tasks' means, and their number; empty if no two tasks share one."""
    unjudged: int = 0
    """Attempts whose judge gave no verdict, or that nobody rated: no mean counts them."""
    unrated: int = 0
    """Those of them that ended without an error and were rated by nobody."""

    @property
    def counted(self) -> int:
        """The attempts that the means are of."""
        return self.attempts - self.unjudged

    @property
    def errors(self) -> int:
        """The attempts that failed, or whose scoring did."""
        return self.attempts - self.scored - self.unrated


@dataclass(frozen=True)
class ScoreMean:
    """The score of one agent on one benchmark: the mean over tasks, or the figure that the run's table has in its place."""

    benchmark: str
    agent: str
    mean: float | None
    """None where it is no mean of attempts, for it has a reducer or is a figure: `stats.agent_scores` computes it."""
    tasks: int


@dataclass(frozen=True)
class TaskMean:
    """The mean score of one agent's attempts at one task."""

    benchmark: str
    agent: str
    task: str
    mean: float | None
    """An attempt without a score counts as 0. None if each is `unjudged`."""
    attempts: int
    scored: int
    binary: bool
    """True if each attempt scored 0 or 1."""
    unjudged: int = 0
    """Attempts whose judge gave no verdict, or that nobody rated: the mean does not count them."""
    unrated: int = 0
    """Those of them that ended without an error and were rated by nobody."""

    @property
    def counted(self) -> int:
        """The attempts that the mean is of."""
        return self.attempts - self.unjudged

    @property
    def errors(self) -> int:
        """The attempts that failed, or whose scoring did."""
        return self.attempts - self.scored - self.unrated


def task_means(database: Database) -> list[TaskMean]:
    """The mean of each agent on each task, in the order of `pairs`, of the scores that `totals` sums up."""
    found = []
    for benchmark, agent, name in _counted(database, None):
        sql = (
            "SELECT task, mean, attempts, scored, coalesce(others, 0) = 0, attempts - epochs, unrated"
            f" FROM ({_by_task(name)})"
        )
        rows = database.read(sql, _asked(database, benchmark, agent, name))
        found += [
            TaskMean(benchmark, agent, task, mean, attempts, scored, bool(binary), unjudged, unrated)
            for task, mean, attempts, scored, binary, unjudged, unrated in rows
        ]
    return found


def score_means(found: Sequence[Totals]) -> tuple[ScoreMean, ...]:
    """The mean of each agent on each benchmark that was scored; none where they have no sum (inf and -inf)."""
    scored = {each.benchmark for each in found if each.scored}
    return tuple(
        ScoreMean(each.benchmark, each.agent, each.sum_means / each.tasks, each.tasks)
        for each in found
        if each.sum_means is not None and each.benchmark in scored
    )


def totals(database: Database, name: str | None = None) -> list[Totals]:
    """The sums of each agent on each benchmark, in the order of `pairs`.

    They are of the attempts' own first score, or of the one given later under a name. Where no attempt has one of its own,
    the first that was given later stands in.
    """
    read = database.read
    clustered = {str(name) for (name,) in read("SELECT DISTINCT benchmark FROM tasks WHERE cluster IS NOT NULL")}
    found = []
    for benchmark, agent, which in _counted(database, name):
        asked = _asked(database, benchmark, agent, which)
        *sums, unjudged, unrated, deviations = read(_sums(which), asked)[0]
        if not sums[0]:
            sums[4:] = [each or 0.0 for each in sums[4:]]
        else:
            sums[4] = _squares(sums[4], deviations, sums[0])
        shared = _clusters(read(_by_cluster(which), asked)) if benchmark in clustered else ()
        found.append(replace(Totals(benchmark, agent, *sums), clusters=shared, unjudged=unjudged, unrated=unrated))
    return found


def _counted(database: Database, name: str | None) -> list[tuple[str, str, str | None]]:
    """Each benchmark and agent with the name of the later score that counts there; None for the attempts' own first.

    People's ratings stand in on a benchmark where no agent has scores of its own: beside those, an agent that failed
    everywhere has 0.
    """
    if name is not None:
        return [(*pair, name) for pair in pairs(database)]
    found, bare = pairs(database), _never_scored(database)
    first = database.read("SELECT name FROM scores GROUP BY name ORDER BY min(seq) LIMIT 1")
    if not first:
        return [(*pair, NOTE if pair[0] in bare else None) for pair in found]
    own = (
        "SELECT 1 FROM traces WHERE benchmark = ? AND agent = ? AND score IS NOT NULL"
        f" AND seq NOT IN ({_SUPERSEDED}) LIMIT 1"
    )
    later = str(first[0][0])
    having = {pair for pair in found if database.read(own, pair)}
    scored = {benchmark for benchmark, _ in having} if later.startswith(NOTE) else set()
    names = {pair: None if pair in having or pair[0] in scored else later for pair in found}
    return [(*pair, NOTE if pair[0] in bare else which) for pair, which in names.items()]


def _never_scored(database: Database) -> set[str]:
    """The benchmarks where attempts ended well and none has a score: of its own, failed or not, or given later.

    They count as those of a rating that nobody gave. Where every attempt failed, a scorer may have been meant to run.
    """
    names = dict.fromkeys(benchmark for benchmark, _ in pairs(database))
    return {name for name in names if not _has_scores(database, name)}


def _has_scores(database: Database, benchmark: str) -> bool:
    """True if an attempt at the benchmark has a score, or if none ended well."""
    scored = "SELECT 1 FROM traces WHERE benchmark = ? AND score IS NOT NULL LIMIT 1"
    later = (
        "SELECT 1 FROM scores JOIN traces ON traces.attempt = scores.attempt AND traces.try = scores.try"
        " WHERE benchmark = ? LIMIT 1"
    )
    if database.read(scored, (benchmark,)) or database.read(later, (benchmark,)):
        return True
    rows = database.read(
        "SELECT numbers, body FROM traces WHERE benchmark = ? AND error IS NULL AND score IS NULL", (benchmark,)
    )
    return not rows or any(own_scores(database, *stored) for stored in rows)


def _asked(database: Database, benchmark: str, agent: str, name: str | None) -> dict[str, Any]:
    """The parameters of the queries. Squares are summed about `shift`, one of the scores, so large ones keep digits."""
    asked = {"benchmark": benchmark, "agent": agent, "name": None if name is None else plain(name)}
    some = (
        "SELECT score FROM traces WHERE benchmark = :benchmark AND agent = :agent AND score IS NOT NULL LIMIT 1"
        if name is None
        else "SELECT value FROM scores JOIN traces ON traces.attempt = scores.attempt AND traces.try = scores.try"
        " WHERE name = :name AND benchmark = :benchmark AND agent = :agent AND value IS NOT NULL LIMIT 1"
    )
    rows = database.read(some, asked)
    return asked | {"shift": rows[0][0] if rows else 0.0, "unjudged": json.dumps(_unjudged(database, asked))}


def _unjudged(database: Database, asked: dict[str, Any]) -> list[int]:
    """The rows of the attempts whose judge gave no verdict for the score that is asked for."""
    own = (
        "SELECT seq, numbers, body FROM traces WHERE benchmark = :benchmark AND agent = :agent AND score IS NULL"
        " AND error IS NULL"
    )
    later = (
        "SELECT traces.seq, scores.numbers, scores.body FROM scores JOIN traces ON traces.attempt = scores.attempt"
        " AND traces.try = scores.try WHERE name = :name AND value IS NULL AND error IS NULL AND benchmark = :benchmark"
        " AND agent = :agent AND NOT EXISTS (SELECT 1 FROM scores AS newer WHERE newer.attempt = scores.attempt"
        " AND newer.try = scores.try AND newer.name = scores.name AND newer.seq > scores.seq)"
    )
    if asked["name"] is not None:
        return [seq for seq, *stored in database.read(later, asked) if score_of(database, *stored).unjudged]
    found = ((seq, own_scores(database, *stored)) for seq, *stored in database.read(own, asked))
    return [seq for seq, scores in found if scores and scores[0].unjudged]


def _squares(squares: float | None, deviations: float | None, count: int) -> float:
    """The squares about the mean, from those about another number; infinite where they have no sum."""
    return math.inf if squares is None or deviations is None else squares - deviations * deviations / count


def pairs(database: Database) -> list[tuple[str, str]]:
    """Each benchmark, by name, with each of its agents, in the order in which the run first met them."""
    order = {str(name): rank for rank, (name,) in enumerate(database.read("SELECT name FROM agents ORDER BY rowid"))}
    found = _agents(database)
    first = {name: place for place, name in enumerate(dict.fromkeys(benchmark for benchmark, _ in found))}
    return sorted(found, key=lambda pair: (first[pair[0]], order.get(pair[1], len(order)), pair[1]))


def _agents(database: Database) -> list[tuple[str, str]]:
    """Each benchmark and agent there is, found by skipping through the index from one to the next."""
    pairs: list[tuple[str, str]] = []
    sql = "SELECT benchmark, agent FROM traces WHERE (benchmark, agent) > (?, ?) ORDER BY benchmark, agent LIMIT 1"
    last: tuple[Any, ...] = ("", "")
    while rows := database.read(sql, last):
        last = rows[0]
        pairs.append((str(last[0]), str(last[1])))
    return pairs


def _clusters(rows: list[tuple[Any, ...]]) -> tuple[tuple[float, int], ...]:
    return tuple((float(total), int(count)) for total, count in rows) if any(count > 1 for _, count in rows) else ()


def spent(database: Database) -> tuple[Usage, int]:
    """The cost of finished attempts and their judges, every try: tokens (as prompt tokens), money, number of calls."""
    sql = "SELECT coalesce(sum(tokens), 0), coalesce(sum(cost_usd), 0.0), coalesce(sum(calls), 0) FROM traces"
    tokens, cost_usd, num_calls = database.read(sql)[0]
    judges = (
        "SELECT reply FROM effects WHERE effect LIKE 'scorer %|%' AND attempt IN (SELECT attempt FROM traces)"
        " GROUP BY attempt, effect, request"
    )
    replies = [body_of(database, digest) for (digest,) in database.read(judges)]
    usage = Usage(prompt_tokens=tokens, cost_usd=cost_usd)
    for reply in replies:
        judged = cost_of(reply)
        usage += Usage(prompt_tokens=judged.total_tokens, cost_usd=judged.cost_usd)
    return usage, num_calls + len(replies)


@dataclass(frozen=True)
class Interrupted:
    """The cost of an attempt's calls, its judges' too, that its journal holds and no trace."""

    usage: Usage
    calls: int
    highest_usd: float
    """The highest cost of one of them."""


def interrupted(database: Database) -> dict[str, Interrupted]:
    """The costs of attempts without a trace, by the ids of their places; an answer that was asked for anew counts too."""
    sql = (
        "SELECT attempt, effect, request, reply FROM effects WHERE attempt IN (SELECT DISTINCT attempt FROM effects"
        " WHERE attempt NOT LIKE '%/%' AND attempt NOT IN (SELECT attempt FROM traces))"
    )
    costs: dict[str, list[Usage]] = {}
    calls: dict[str, set[tuple[str, str]]] = {}
    for attempt, effect, request, digest in database.read(sql):
        if is_call(reply := body_of(database, digest)):
            costs.setdefault(attempt, []).append(cost_of(reply))
            calls.setdefault(attempt, set()).add((effect, request))
    return {
        attempt: Interrupted(sum(paid, Usage()), len(calls[attempt]), max(each.cost_usd for each in paid))
        for attempt, paid in costs.items()
    }
