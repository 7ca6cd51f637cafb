"""Counts the attempts that were made again after an error, and says so in a sentence.

The last try of an attempt is the one that counts. Where an error depends on the answer, as of an agent that raises when
it is not sure, that is a choice among tries, and the score is too high. `Run.retried` is the way in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from firsthand.message import Json
from firsthand.runs.database import Database
from firsthand.system.plurals import count_of


class Retried(NamedTuple):
    """The attempts of one agent at one benchmark that were made again after an error."""

    attempts: int = 0
    most: int = 0
    """The most times that one of them was made again."""

    def to_json(self) -> Json:
        """The counts as a JSON object."""
        return self._asdict()


NOT_RETRIED = Retried()


def retried(database: Database) -> dict[tuple[str, str], Retried]:
    """Benchmark and agent -> its attempts that were made again; those without one are left out."""
    sql = (
        "SELECT benchmark, agent, count(*), max(failures) FROM"
        " (SELECT last.benchmark, last.agent, count(old.error) AS failures"
        " FROM (SELECT attempt, max(try) AS number FROM traces WHERE try > 1 GROUP BY attempt) AS again"
        " JOIN traces AS last ON last.attempt = again.attempt AND last.try = again.number"
        " JOIN traces AS old ON old.attempt = again.attempt AND old.try < again.number"
        " GROUP BY last.attempt) WHERE failures GROUP BY benchmark, agent"
    )
    return {(str(name), str(agent)): Retried(count, most) for name, agent, count, most in database.read(sql)}


def retried_text(agents: Mapping[str, Retried]) -> str:
    """A sentence that names the agents whose attempts were made again; empty if there are none."""
    told = [f"{count_of(each.attempts, 'attempt')} of {name}" for name, each in agents.items() if each.attempts]
    if not told:
        return ""
    most = max(each.most for each in agents.values())
    often = "once" if most == 1 else f"up to {most} times"
    return (
        f"Made again after an error, {often}: {', '.join(told)}. "
        "Where errors depend on the answer, the score is that of the best try."
    )
