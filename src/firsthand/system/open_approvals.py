"""Approvals of calls that are made once, which this data home keeps from the answer until the call is made.

A run's folder may be put back from a copy, or have been in anybody's hands: its entry of a call that was made may be gone,
with the yes to it still there. So such a yes counts while a file of its id lies here, which goes before the call is made.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from firsthand.errors import StoreError
from firsthand.system.home import data_home

FOLDER = "open-approvals"


def open_approval(id: str) -> None:
    """Let the approval of this id count for one call; where the home cannot be written it counts for none."""
    with suppress(OSError):
        path = _path(id)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))


def is_open(id: str) -> bool:
    """True if the approval of this id was given under this home, and no call was made with it."""
    return _path(id).is_file()


def close_approval(id: str) -> bool:
    """Use the approval up; False if it was used before. StoreError if it cannot be: the call must not be made."""
    path = _path(id)
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise StoreError(
            f"{path} cannot be removed ({error.strerror}), so the call would be approved twice: make its folder writable"
        ) from None
    with suppress(OSError):  # a power cut does not bring it back; folders of Windows cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return True


def _path(id: str) -> Path:
    return data_home() / FOLDER / hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()
