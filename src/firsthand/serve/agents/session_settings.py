"""Limits of the sessions of a served agent."""

from __future__ import annotations

from dataclasses import dataclass

from firsthand.errors import ConfigError


@dataclass(frozen=True)
class SessionSettings:
    """Limits of the sessions of a served agent."""

    max_turns: int = 8
    """Most turns under way at a time; others wait."""
    open_turns: int = 64
    """Most turns of one client that are not over; more are refused."""
    poll_s: float = 0.5
    """Seconds between two looks for answers that another process gave."""

    def __post_init__(self) -> None:
        for name, value in {"max_turns": self.max_turns, "open_turns": self.open_turns}.items():
            if value < 1:
                raise ConfigError(f"{name} is {value}: give 1 or more")
        if not 0 < self.poll_s < 3600:
            raise ConfigError(f"poll_s is {self.poll_s!r}: give a number of seconds above 0")
