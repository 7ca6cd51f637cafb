"""The log of a rollback: a line before and after each restore, so that one that was killed goes on where it stood.

It lies in the run's folder, which may come from anyone: it is opened as an ordinary file and no other, its size is bounded,
and lines without a seal of this data home say nothing.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import BinaryIO, Literal

from firsthand.errors import StoreError
from firsthand.message import canonical
from firsthand.safety.undo.undo_point import UndoPoint
from firsthand.system.home_seal import is_ours, seal_of
from firsthand.system.ordinary_file import open_ordinary

MAX_LOG_BYTES = 16 << 20
MAX_LINE_BYTES = 4_096
"""A longer line is none of ours."""


class RollbackLog:
    """The progress of one rollback in a file, a JSON line each, on the disk before it is acted on."""

    def __init__(self, path: Path):
        self.path = path
        self.states: dict[str, str] = {}
        if path.is_symlink():  # the folder of a run may come from anyone, and the log is written to
            raise StoreError(f"{path} is a link: remove it")
        if not path.exists():
            return
        try:
            with open_ordinary(path) as file:
                self._read(file)
        except OSError as error:
            raise StoreError(f"{path} cannot be read ({error.strerror or error}): remove it") from None

    def _read(self, file: BinaryIO) -> None:
        if os.fstat(file.fileno()).st_size > MAX_LOG_BYTES:
            raise StoreError(f"{self.path} has more than {MAX_LOG_BYTES >> 20} MiB, so it is no log of ours: remove it")
        for line in file.read(MAX_LOG_BYTES).splitlines():
            if len(line) > MAX_LINE_BYTES:
                continue
            try:
                entry = json.loads(line)
                call, state, seal = entry["call"], entry["state"], entry["seal"]
            except (ValueError, KeyError, TypeError, RecursionError):
                continue  # a line that was cut off when the process was killed
            if isinstance(call, str) and isinstance(state, str) and is_ours(self._sealed(call, state), seal, "undo"):
                self.states[call] = state

    def note(self, point: UndoPoint, state: Literal["began", "done"]) -> None:
        """Records the state of a point; on the disk when this returns."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(self.path, flags, 0o666), "r+b", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            is_cut = size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"
            file.write(f"{chr(10) * is_cut}{self.line(point.effect, state)}\n".encode())
            os.fsync(file.fileno())
        self.states[point.effect] = state

    def line(self, call: str, state: str) -> str:
        """The line that says so, with its seal."""
        return json.dumps({"call": call, "state": state, "seal": seal_of(self._sealed(call, state), "undo")})

    def _sealed(self, call: str, state: str) -> str:
        return canonical(["log", self.path.name, call, state])
