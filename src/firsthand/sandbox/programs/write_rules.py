"""Keeps a run from writing anywhere but in its own folders, by Landlock. Runs inside the sandbox; standard library only.

The rest is read-only already, but for /proc/self: there a run could make itself a worse choice than the worker's own
processes when the kernel ends something for lack of memory. Before Linux 5.19, or where Landlock is off, nothing is done.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
_ASK_VERSION, _PATH_BENEATH = 1, 1
_WRITE, _MOVE = 1 << 1, 1 << 13
"""LANDLOCK_ACCESS_FS_WRITE_FILE and REFER; without the second, files could not be moved between folders."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def supported() -> bool:
    """True if this kernel knows both rules."""
    return _call(_CREATE, None, 0, _ASK_VERSION) >= 2


def allow_only(folders: Iterable[str]) -> None:
    """From here on this process and its children open files to write only in these folders."""
    ruleset = _checked(_CREATE, struct.pack("=Q", _WRITE | _MOVE), 8, 0)
    for folder in folders:
        handle = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        _checked(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", _WRITE | _MOVE, handle), 0)
        os.close(handle)
    _checked(_RESTRICT, ruleset, 0)
    os.close(ruleset)


def _checked(number: int, *values: int | bytes | None) -> int:
    result = _call(number, *values)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"landlock call {number}: {os.strerror(ctypes.get_errno())}")
    return result


def _call(number: int, *values: int | bytes | None) -> int:
    words = [ctypes.c_long(value) if isinstance(value, int) else ctypes.c_char_p(value) for value in values]
    return int(_libc.syscall(ctypes.c_long(number), *words))
