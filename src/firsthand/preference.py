"""A preference between two attempts at a task. Arena votes, pairwise judges and DPO share it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, get_args

from firsthand.errors import ConfigError
from firsthand.message import Json

Winner = Literal["a", "b", "tie", "both_bad"]


@dataclass(frozen=True)
class Preference:
    """A preference between two attempts at a task: an arena vote, a pairwise judgement or a DPO pair."""

    task_id: str
    a: str
    """Id of the first trace."""
    b: str
    """Id of the second trace."""
    winner: Winner
    """`both_bad`: neither attempt is good enough to learn from, which a tie does not say."""
    by: str
    """The voter or judge, such as `human:ada` or `judge:smollm2`."""
    when: str | None = None
    """UTC, ISO 8601; None in rows that were kept before 0.7."""
    detail: Json | None = None
    """More about the decision, such as a judge's protocol."""

    def __post_init__(self) -> None:
        if self.winner not in get_args(Winner):
            raise ConfigError(f"winner is {self.winner!r:.60}: give one of {', '.join(get_args(Winner))}")
        if self.when is not None and not _is_utc(self.when):
            raise ConfigError(f"when is {self.when!r:.60}: give UTC in ISO 8601, such as 2026-01-31T10:00:00+00:00")

    def to_json(self) -> Json:
        """The preference as a JSON object; fields that are not set are left out."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @staticmethod
    def from_json(body: Json) -> Preference:
        """The preference that `to_json` wrote."""
        return Preference(**body)


def utc_now() -> str:
    """The time now: UTC, ISO 8601, in milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _is_utc(text: str) -> bool:
    try:
        offset = datetime.fromisoformat(text).utcoffset()
    except (TypeError, ValueError):
        return False
    return offset is not None and not offset
