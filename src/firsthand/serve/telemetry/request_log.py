"""The request log: a line of JSON for each request. Prompts and answers are left out by default.

A log that cannot be written (full disk, closed pipe) loses lines and counts them; requests go on.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from firsthand.errors import ConfigError
from firsthand.serve.telemetry.metrics import Metrics


class RequestLog:
    """Writes to a file, to standard error (`-`), or nowhere (None)."""

    def __init__(self, target: Path | str | None, metrics: Metrics):
        self._metrics = metrics
        self._owned = False
        self._file: int | None = None
        if target is None:
            return
        if str(target) == "-":
            self._file = 2
            return
        try:
            self._file = os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"the log {str(target)!r} cannot be opened: {error.strerror or error}") from None
        self._owned = True

    def write(self, event: str, **fields: Any) -> None:
        """Add a line; fields that are None are left out."""
        if self._file is None:
            return
        body = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event}
        body |= {name: value for name, value in fields.items() if value is not None}
        line = json.dumps(body, default=str).encode() + b"\n"
        try:
            written = os.write(self._file, line)
            if written < len(line):
                raise OSError
        except OSError:
            self._metrics.log_failures += 1

    def close(self) -> None:
        """Close the file; standard error stays open."""
        if self._owned and self._file is not None:
            os.close(self._file)
        self._file = None
