"""Offline use: with `FIRSTHAND_OFFLINE` or `HF_HUB_OFFLINE` set nothing is fetched; what is missing is an error at once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from urllib.parse import urlsplit

from firsthand.errors import DownloadError

VARIABLES = ("FIRSTHAND_OFFLINE", "HF_HUB_OFFLINE")
_here: ContextVar[bool] = ContextVar("offline", default=False)


def is_offline() -> bool:
    """True if nothing may be fetched: a variable is set to anything but 0, false or no, or `offline()` is entered."""
    return _here.get() or any(os.environ.get(name, "").lower() not in ("", "0", "false", "no") for name in VARIABLES)


@contextmanager
def offline() -> Iterator[None]:
    """Have nothing fetched within the block, in this thread or task."""
    token = _here.set(True)
    try:
        yield
    finally:
        _here.reset(token)


def expect_online(url: str, what: str, instead: str) -> None:
    """Raise DownloadError if `what` would be fetched from another machine while offline; `instead` says what to do."""
    if is_offline() and not is_local(urlsplit(url).hostname or ""):
        raise DownloadError(f"{what} is not on this machine, and nothing is fetched while offline: {instead}")


def is_local(host: str) -> bool:
    """True for the names and addresses of this machine's loopback."""
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None
