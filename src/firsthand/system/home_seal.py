"""Seals texts with a key of this data home, to tell what was written here from what somebody else has written.

A run's folder may come from anyone. What it names to be loaded, a Python file among it, is believed if its seal is ours,
and so are the decisions of persons and guards in its journal, and the states that a rollback puts back.
"""

from __future__ import annotations

import hmac
import os
import secrets
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Literal

from firsthand.system.home import data_home

KEY = "seal.key"
_BYTES = 32
SealedKind = Literal["run", "figures", "recipe", "sweep", "decision", "undo", "autoencoder"]
"""The kinds of sealed text. A seal made for one kind does not hold for another."""
_ONCE_WITHOUT_KIND = ("run", "figures", "recipe", "sweep")


def seal_of(text: str, kind: SealedKind) -> str:
    """Return the seal of the text as JSON of this kind: an HMAC-SHA-256 under the key of this data home.

    The key is made at the first use.
    """
    return _hmac(f"{kind}\0{text}")


def is_ours(text: str, seal: object, kind: SealedKind) -> bool:
    """Return whether the seal is that of the text, of this kind, under the key of this data home.

    Seals made before 0.14 name no kind and are good for any that there was; no JSON begins as a text with its kind does.
    """
    if not isinstance(seal, str):
        return False
    shown = seal.encode("utf-8", "replace")
    made = [seal_of(text, kind), *([_hmac(text)] if kind in _ONCE_WITHOUT_KIND else [])]
    return any(hmac.compare_digest(each.encode(), shown) for each in made)


def _hmac(text: str) -> str:
    return hmac.new(_known_key(data_home() / KEY), text.encode("utf-8", "surrogatepass"), "sha256").hexdigest()


def _known_key(path: Path) -> bytes:
    """The key, which is read once a process unless its file is another one."""
    try:
        status = path.stat()
    except OSError:
        return _key(path)
    return _read_key(path, status.st_ino, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _read_key(path: Path, *version: int) -> bytes:
    return _key(path)


@lru_cache(maxsize=8)
def _own_key(path: Path) -> bytes:
    """A key for a home that keeps none: what this process has sealed holds until it ends."""
    return secrets.token_bytes(_BYTES)


def _key(path: Path) -> bytes:
    """The key, or one that nobody else has where none can be kept."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{KEY}.{os.getpid()}.{secrets.token_hex(4)}")
        if not path.exists():
            handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(_BYTES))
            with suppress(FileExistsError):
                os.link(beside, path)  # the first of several processes
            beside.unlink()
        key = path.read_bytes()
        if len(key) == _BYTES:
            return key
    return _own_key(path)
