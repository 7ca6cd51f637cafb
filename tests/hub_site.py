"""A hub on this machine with its folder of models, for tests of downloads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loopback import Site, serve

COMMIT = "c" * 40
BODY = b"0123456789"


def sha(body: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(body).hexdigest()


def use_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep models below this folder, with no hub, token or offline mode set."""
    monkeypatch.setenv("FIRSTHAND_HOME", str(home))
    for name in ("HF_TOKEN", "HF_ENDPOINT", "FIRSTHAND_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return home


@contextmanager
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server on this machine in place of the hub."""
    with serve() as here:
        monkeypatch.setenv("HF_ENDPOINT", here.url)
        yield here


def tree(folder: Path) -> dict[str, bytes]:
    """The files below a folder, by their paths there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
