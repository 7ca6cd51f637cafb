"""Limits of a client and of the server, and what is checked before an address is opened."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from firsthand.errors import ConfigError


@dataclass(frozen=True)
class ClientLimits:
    """Limits of one client; those of the server hold for clients without their own in the file of keys."""

    concurrency: int = 1024
    """Maximum concurrent requests of one client."""
    max_tokens: int = 4096
    """Maximum new tokens of one answer, and the default where a chat gives no number."""
    max_answers: int = 16
    """Maximum answers to one prompt (`n`); all prompts of a request together may have sixteen times as many."""
    body_bytes: int = 4 << 20
    """Largest request body, in bytes."""
    request_s: float = 600.0
    """Seconds from the whole request to the end of its answer."""
    tokens_per_minute: int = 0
    """Maximum tokens of prompts and answers in any minute; 0 is no limit."""
    min_priority: int = 0
    """Lowest `priority` that a request with a key may give: a lower one goes before all others."""

    def __post_init__(self) -> None:
        if not isinstance(self.tokens_per_minute, int) or self.tokens_per_minute < 0:
            raise ConfigError(
                f"tokens_per_minute is {self.tokens_per_minute!r}: give a whole number, or 0 for no limit"
            )
        if not isinstance(self.min_priority, int) or isinstance(self.min_priority, bool):
            raise ConfigError(f"min_priority is {self.min_priority!r}: give a whole number, such as -10")
        for name, number in self._whole().items():
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise ConfigError(f"{name} is {number!r}: give a whole number from 1")
        if not isinstance(self.request_s, int | float) or not 0 < self.request_s < 1e6:
            raise ConfigError(f"request_s is {self.request_s!r}: give a number of seconds above 0")

    def _whole(self) -> dict[str, int]:
        return {
            "concurrency": self.concurrency,
            "max_tokens": self.max_tokens,
            "max_answers": self.max_answers,
            "body_bytes": self.body_bytes,
        }


@dataclass(frozen=True)
class AdmissionSettings:
    """Limits of the server, whoever the client is."""

    max_requests: int = 2048
    """Maximum requests in progress, waiting ones included; more get 429 with Retry-After."""
    body_s: float = 30.0
    """Seconds that a client may take to send its headers, and its body."""
    stall_s: float = 60.0
    """Seconds that a client may leave its answer unread before it is dropped."""
    drain_s: float = 60.0
    """Seconds that requests under way may take to end after SIGTERM."""
    allow_host: tuple[str, ...] = ()
    """Accepted values of the Host header. By default any, but without keys only those of loopback (DNS rebinding)."""

    def __post_init__(self) -> None:
        if self.max_requests < 1:
            raise ConfigError(f"max_requests is {self.max_requests}: give 1 or more")
        for name, seconds in {"body_s": self.body_s, "stall_s": self.stall_s, "drain_s": self.drain_s}.items():
            if not 0 < seconds < 1e6:
                raise ConfigError(f"{name} is {seconds!r}: give a number of seconds above 0")


def is_loopback(host: str) -> bool:
    """True if only programs of this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_binding(host: str, has_keys: bool) -> None:
    """Raise ConfigError if other machines could reach a server without API keys."""
    if not has_keys and not is_loopback(host):
        raise ConfigError(
            f"host is {host!r}, which others can reach, and there are no API keys: give --keys FILE.toml or set "
            "FIRSTHAND_API_KEY, or leave the host at 127.0.0.1"
        )
