"""MessageBus: publish/subscribe over topics, each message delivered to every group at least once.

A group is one subscriber, or several that share the work. A message that was fetched is leased: if it is not acknowledged in
time it is delivered again, and after `max_deliveries` it becomes a dead letter, which is kept apart with its reason. A group
that lags too far behind holds publishers back, instead of growing the file without end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from firsthand.errors import ConfigError, FirsthandError

MAX_PAYLOAD_CHARS = 1_000_000
MAX_LEASE_S = 315_360_000.0
"""The longest lease: ten years, which each store can count."""
MOST_AT = 253_402_300_800.0
"""The year 10000: a time from there on is another program's mistake."""


class BusFull(FirsthandError):
    """A message that was not taken, because a group of subscribers lags too far behind."""


@dataclass(frozen=True)
class BusMessage:
    """A message as it was published."""

    offset: int
    """Its place among all messages: growing, never used twice."""
    topic: str
    payload: str
    sender: str
    at: float
    """Seconds since 1970."""


@dataclass(frozen=True)
class Delivery:
    """A message for a group, which has to acknowledge it."""

    message: BusMessage
    count: int
    """Number of deliveries so far, this one included: above 1 once a lease has expired or a subscriber returned it."""


@dataclass(frozen=True)
class DeadLetter:
    """A message that a group could not handle."""

    message: BusMessage
    group: str
    count: int
    reason: str


class MessageBus(Protocol):
    """A bus. Its methods may be called by many threads and processes at a time."""

    def publish(self, topic: str, payloads: Sequence[str], *, sender: str = "", once: str | None = None) -> list[int]:
        """Keep messages in order, all or none; returns their offsets.

        `once` names the publication: a second one of the name adds nothing and returns the first one's offsets. BusFull if a
        group that wants the topic lags behind by more than the bus allows.
        """
        ...

    def subscribe(self, group: str, pattern: str, *, after: int | None = None) -> None:
        """Make a group for the topics of a pattern; one that exists keeps its place.

        `after` is the offset to begin behind, 0 for all that is kept; None begins with what is published from now on. With a
        number, a group that exists goes back or forward to it, and what it was delivered before is delivered again.
        """
        ...

    def fetch(self, group: str, limit: int = 100, *, lease_s: float = 30.0) -> list[Delivery]:
        """The next messages for a group, the oldest first: new ones, and those whose lease ran out."""
        ...

    def acknowledge(self, group: str, offsets: Sequence[int]) -> int:
        """Say that messages were handled; returns how many of them were still waiting for that."""
        ...

    def let_go(self, group: str, offset: int, reason: str = "") -> None:
        """Give a message back, to be delivered again at once, or to become a dead letter."""
        ...

    def replay(self, pattern: str, after: int = 0, limit: int = 1000) -> list[BusMessage]:
        """The messages of a pattern behind an offset, in order, whatever any group has done."""
        ...

    def dead_letters(self, group: str) -> list[DeadLetter]:
        """The messages that the group could not handle, the oldest first."""
        ...

    def lag(self, group: str) -> int:
        """The messages that the group has not acknowledged."""
        ...


def check_payloads(payloads: Sequence[str]) -> None:
    """ConfigError for a message that is too long; none of its publication is kept then."""
    if too_long := next((each for each in payloads if len(each) > MAX_PAYLOAD_CHARS), None):
        raise ConfigError(f"a message has {len(too_long):,} characters: at most {MAX_PAYLOAD_CHARS:,} are kept")


def check_bounds(**bounds: int) -> None:
    """ConfigError for a bound below 1."""
    for name, value in bounds.items():
        if value < 1:
            raise ConfigError(f"{name} is {value}: give 1 or more")


def check_fetch(limit: int, lease_s: float) -> None:
    """ConfigError for a limit below 1, and for a lease that is no number of seconds or longer than ten years."""
    check_bounds(limit=limit)
    if not -MAX_LEASE_S <= lease_s <= MAX_LEASE_S:
        raise ConfigError(f"lease_s is {lease_s}: give a number of seconds, at most {MAX_LEASE_S:,.0f}")


def is_time(at: float) -> bool:
    """True for seconds from 1970 to the year 9999, which `datetime` can show."""
    return 0 <= at < MOST_AT
