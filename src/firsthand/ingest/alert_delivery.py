"""Delivers alerts: a line of JSON in a file, or a POST to a webhook at an address that may be reached.

The rules for addresses are those of webhooks of A2A: public addresses alone unless others are allowed, checked when the
connection is opened, and redirects are not followed. What calls webhooks is imported for one alone: it takes a quarter of
the Studio's start.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from firsthand.errors import ConfigError, StoreError, ToolError
from firsthand.ingest.alert_rules import Alert
from firsthand.tools.web.addresses import Resolver, Rules, read_host, resolve


def check_target(target: str, rules: Rules) -> None:
    """ConfigError for a target that is neither a file in a folder that is there nor an address that may be called."""
    if not target.startswith(("http://", "https://")):
        if not Path(target).absolute().parent.is_dir():
            raise ConfigError(f"alert_to is {target!r}: give a file in a folder that is there, or http(s)://...")
        return
    from firsthand.tools.fetch import read_url

    try:
        url = read_url(target)
        read_host(url.host)
        port = url.port or (443 if url.scheme == "https" else 80)
        rules.check_port(port)
    except ToolError as error:
        raise ConfigError(f"alert_to was refused: {error}") from None


async def deliver(alert: Alert, target: str, rules: Rules, resolver: Resolver = resolve) -> str:
    """Deliver an alert; returns an empty text, or why it could not be delivered."""
    line = json.dumps(alert.to_json(), ensure_ascii=True)
    if not target.startswith(("http://", "https://")):
        try:
            _append(Path(target), line)
        except OSError as error:
            return f"{target} cannot be written: {error.strerror or error}"
        return ""
    from firsthand.tools.web.webhook import call_webhook

    try:
        return await call_webhook(target, line.encode(), rules, resolver)
    except StoreError as error:
        return str(error)


def _append(path: Path, line: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, f"{line}\n".encode())
        os.fsync(file)
    finally:
        os.close(file)
