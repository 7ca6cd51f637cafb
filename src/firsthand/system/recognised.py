"""Tells the server that the client of a request has shown who it is, from whatever room has checked it."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

RECOGNISED = "firsthand.recognised"
"""The key of ASGI's extensions; its value is called without arguments."""


def recognise(scope: MutableMapping[str, Any]) -> None:
    """Let the connection of a request count as one of a known client. Under another server this does nothing."""
    told = scope.get("extensions", {}).get(RECOGNISED)
    if told is not None:
        told()
