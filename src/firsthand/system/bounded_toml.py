"""Reads TOML of anybody in bounded memory and time.

Python's reader takes memory with the square of a dotted key's parts (a key of 40 kB: 1.5 GB), and raises a plain ValueError
for a number of more digits than Python reads, and RecursionError for deep lists.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from firsthand.errors import reason_of

MAX_BYTES = 1 << 24
MAX_PARTS = 64
"""The most parts of a dotted key."""
_PART = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+"""
_DOTTED = re.compile(rf"(?:^|[\[{{{{,])[ \t]*+(?:{_PART}){{{MAX_PARTS}}}", re.MULTILINE)


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a text. tomllib.TOMLDecodeError, which is a ValueError, if it is none or beyond the bounds."""
    if len(text) > MAX_BYTES:
        raise tomllib.TOMLDecodeError(f"it has more than {MAX_BYTES:,} bytes")
    if _DOTTED.search(text):
        raise tomllib.TOMLDecodeError(f"it has a key of more than {MAX_PARTS} parts")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise tomllib.TOMLDecodeError(reason_of(error)) from None


def read_toml_file(path: Path) -> dict[str, Any]:
    """The tables of a file, which may be a pipe and begin with a byte-order mark.

    OSError, UnicodeDecodeError, or tomllib.TOMLDecodeError.
    """
    with path.open("rb") as file:
        return parse_toml(file.read(MAX_BYTES + 1).decode("utf-8-sig"))
