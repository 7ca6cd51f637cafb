"""Offline use: with `FIRSTHAND_OFFLINE` or `HF_HUB_OFFLINE` set nothing is fetched; what is missing is an error at once."""

from __future__ import annotations

import importlib
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from firsthand.errors import DownloadError

HUB = "https://huggingface.co"
WAIT_S = 3.0
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


def reaches_hub() -> bool:
    """True if the Hugging Face hub, or `$HF_ENDPOINT`, takes a connection in a few seconds, or there is a proxy to ask."""
    hub = urlsplit(os.environ.get("HF_ENDPOINT") or HUB)
    if getproxies():
        return True
    try:
        socket.create_connection(
            (hub.hostname or "", hub.port or (80 if hub.scheme == "http" else 443)), WAIT_S
        ).close()
    except (OSError, ValueError):
        return False
    return True


@contextmanager
def libraries_offline() -> Iterator[None]:
    """Have `datasets` and `huggingface_hub` read their cache alone within the block.

    Without it they try a hub that cannot be reached six times, for 23 s, before they look there.
    """
    names = [name for name in ("huggingface_hub.constants", "datasets.config") if find_spec(name.partition(".")[0])]
    modules: list[Any] = [importlib.import_module(name) for name in names]
    before = [module.HF_HUB_OFFLINE for module in modules]
    try:
        for module in modules:
            module.HF_HUB_OFFLINE = True
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value
