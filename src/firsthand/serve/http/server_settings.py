"""How a server behaves: `Settings`, and what is checked before anything is opened."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from firsthand.errors import ConfigError


@dataclass(frozen=True)
class Limits:
    """What one client may ask for."""

    concurrency: int = 1024
    """Requests under way at a time."""
    max_tokens: int = 4096
    """New tokens of one answer; also what is taken where a chat does not say how many."""
    max_answers: int = 16
    """Answers to one prompt (`n`); all prompts of a request together may have sixteen times as many."""
    body_bytes: int = 4 << 20
    """Bytes of a request's body."""
    request_s: float = 600.0
    """Seconds from the whole request to the end of its answer."""
    tokens_per_minute: int = 0
    """Tokens of prompts and answers in any minute; who has had them waits. 0 is no limit."""

    def __post_init__(self) -> None:
        if not isinstance(self.tokens_per_minute, int) or self.tokens_per_minute < 0:
            raise ConfigError(
                f"tokens_per_minute is {self.tokens_per_minute!r}: give a whole number, or 0 for no limit"
            )
        for name in ("concurrency", "max_tokens", "max_answers", "body_bytes"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name} is {value!r}: give a whole number from 1")
        if not isinstance(self.request_s, int | float) or not 0 < self.request_s < 1e6:
            raise ConfigError(f"request_s is {self.request_s!r}: give a number of seconds above 0")


@dataclass(frozen=True)
class Settings:
    """How the server behaves, whoever asks."""

    limits: Limits = Limits()
    """For clients without limits of their own, and where there are no keys."""
    max_requests: int = 2048
    """Requests under way, waiting ones included; more get 429 with Retry-After."""
    body_s: float = 30.0
    """Seconds that a client may take to send its headers, and its body."""
    stall_s: float = 60.0
    """Seconds that a client may leave what it was sent unread; then its answers are dropped."""
    drain_s: float = 60.0
    """Seconds that answers under way may take to end after SIGTERM."""
    hosts: tuple[str, ...] = ()
    """Values of the Host header that are served; none: all. Without keys only loopback's own names are (DNS rebinding)."""
    stored_responses: int = 1024
    """Responses that are kept for each client, in memory, unless it sets store to false; 0 keeps none."""
    stored_bytes: int = 64 << 20
    """Bytes of them together, each with its conversation."""
    private_caches: bool = False
    """Clients share nothing of what is known of their prompts, so that no answer's speed tells what another one asked."""
    log_texts: bool = False
    """Write prompts and answers into the log too."""
    adapter_root: Path | None = None
    """The folder from which clients that may (`Client.load_adapters`) load adapters; None: nobody loads or unloads any."""

    def __post_init__(self) -> None:
        if self.adapter_root is not None and not self.adapter_root.is_dir():
            raise ConfigError(f"adapter_root is {str(self.adapter_root)!r}: give a folder that is there")
        if self.max_requests < 1:
            raise ConfigError(f"max_requests is {self.max_requests}: give 1 or more")
        for name in ("stored_responses", "stored_bytes"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)!r}: give 0 or more")
        for name in ("body_s", "stall_s", "drain_s"):
            if not 0 < getattr(self, name) < 1e6:
                raise ConfigError(f"{name} is {getattr(self, name)!r}: give a number of seconds above 0")


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_binding(host: str, has_keys: bool) -> None:
    """Raise ConfigError if others could reach a server that asks nobody for a key."""
    if not has_keys and not is_loopback(host):
        raise ConfigError(
            f"host is {host!r}, which others can reach, and there are no API keys: give --keys FILE.toml or set "
            "FIRSTHAND_API_KEY, or leave the host at 127.0.0.1"
        )
