"""Limits of the sessions of a served agent."""

from __future__ import annotations

from dataclasses import dataclass

from firsthand.errors import ConfigError


@dataclass(frozen=True)
class SessionSettings:
    """Limits of the sessions of a served agent."""

    max_turns: int = 8
    """Maximum concurrent turns; others wait, and clients take turns."""
    open_turns: int = 64
    """Maximum unfinished turns of one client; more are refused."""
    kept_sessions: int = 100_000
    """Maximum kept sessions of one client; a new turn is refused beyond them until some are deleted."""
    kept_bytes: int = 1 << 30
    """Maximum bytes of the kept sessions and A2A tasks of one client."""
    session_bytes: int = 16 << 20
    """Maximum bytes of one session; a new turn of it is refused beyond them."""
    poll_s: float = 0.5
    """Seconds between checks for answers given in another process."""

    def __post_init__(self) -> None:
        for name in ("max_turns", "open_turns", "kept_sessions", "kept_bytes", "session_bytes"):
            value = getattr(self, name)
            if value < 1:
                raise ConfigError(f"{name} is {value}: give 1 or more")
        if not 0 < self.poll_s < 3600:
            raise ConfigError(f"poll_s is {self.poll_s!r}: give a number of seconds above 0")
