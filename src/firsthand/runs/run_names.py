"""Names runs and finds their folders. Opens nothing; see `store.py`."""

from __future__ import annotations

import os
import re
import secrets
from datetime import datetime
from pathlib import Path

from firsthand.errors import StoreError, UnknownName, unknown

DATABASE = "run.sqlite"
LOCK = "lock"
MAKING = "making.lock"
"""Held while a run is made in a folder that others may know, so that one process makes it."""
KEPT = "conversation"
"""Name of the run of a conversation that was kept unasked; `last` passes over it."""
_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"


def new_run_id(created_at: datetime, name_hint: str) -> str:
    """A readable id that sorts by time, such as `2026-11-25-0148-arithmetic-k3f9`."""
    tail = "".join(secrets.choice(_LETTERS) for _ in range(4))
    return f"{created_at:%Y-%m-%d-%H%M}-{_slug(name_hint)}-{tail}"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:40].strip("-") or "run"


def run_ids(home: Path) -> list[str]:
    """The ids of all runs under `home`, oldest first (to the minute)."""
    try:
        folders = [*(home / "runs").iterdir()]  # `glob` finds nothing where it may not look
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StoreError(f"{home / 'runs'} cannot be read: {error.strerror}; check its permissions") from None
    return sorted(path.name for path in folders if path.name[0] != "." and os.path.lexists(path / DATABASE))


def find_run(ref: str, home: Path) -> Path:
    """The folder of the run that `ref` names: `last`, an id, a unique beginning or the last letters of one, a path, or the
    run name (`--name`) of one run.

    `last` is the newest run that is not a conversation kept unasked, or such a one if there is no other.
    """
    ids = run_ids(home)
    if ref == "last":
        ids = [each for each in ids if each[16:-5] != KEPT] or ids
        if not ids:
            raise UnknownName(f"there are no runs in {home / 'runs'} yet: `firsthand run` makes one")
        return max((home / "runs" / each for each in ids), key=lambda path: (path.name[:15], _made(path)))
    if ref in ids:
        return home / "runs" / ref
    if os.sep in ref or ref in (".", "..") or (ref and _holds_run(Path(ref))):
        return _at_path(Path(ref).expanduser())
    matching = [each for each in ids if ref and (each.startswith(ref) or each.endswith(f"-{ref}"))]
    if len(matching) == 1:
        return home / "runs" / matching[0]
    if matching:
        raise UnknownName(f"{ref!r} is the beginning of {len(matching)} runs ({_few(matching)}): give more of the id")
    named = [each for each in ids if re.search("[a-zA-Z0-9]", ref) and each[16:-5] == _slug(ref)]
    if len(named) == 1:
        return home / "runs" / named[0]
    if named:
        raise UnknownName(f"{len(named)} runs are named {ref!r} ({_few(named)}): give the id of one")
    raise unknown("run", ref, ["last", *ids], see="firsthand runs")


def _at_path(path: Path) -> Path:
    folder = path.parent if path.name == DATABASE else path
    if not _holds_run(folder):
        raise UnknownName(
            f"{str(folder)!r} is not the folder of a run: it has no {DATABASE}. `firsthand runs` shows all"
        )
    return folder.resolve()


def _holds_run(folder: Path) -> bool:
    try:
        return (folder / DATABASE).exists()
    except (OSError, ValueError):  # a name that is too long for a path, or has a NUL
        return False


def _made(path: Path) -> int:
    """When the folder's run was made, as far as the file system knows: for runs of one minute."""
    marker = path / LOCK  # made with the folder, never written again
    return (marker if marker.exists() else path / DATABASE).stat().st_mtime_ns


def _few(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
