"""Keeps templates compiled where Python keeps compiled modules, so that a first page does not wait for the compiler.

A file beside the templates, in `__pycache__` or under PYTHONPYCACHEPREFIX, is trusted as the package's own modules are.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib.util import cache_from_source
from pathlib import Path

import jinja2
from jinja2.bccache import Bucket, BytecodeCache

from firsthand import __version__

_MADE_BY = f"firsthand {__version__}, jinja2 {jinja2.__version__}\n".encode()


class CompiledTemplates(BytecodeCache):
    """The compiled templates of a folder. What cannot be read or written is compiled anew."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load_bytecode(self, bucket: Bucket) -> None:
        """Fill the bucket if its template was compiled by these versions and is as it was."""
        try:
            made_by, _, code = self._place(bucket).read_bytes().partition(b"\n")
            if made_by + b"\n" == _MADE_BY:
                bucket.bytecode_from_string(code)  # checks the template's SHA-1, and Python's version
        except Exception:  # a damaged file fails in many ways, and the template is there
            bucket.reset()

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Write the bucket, all at once."""
        if sys.dont_write_bytecode:
            return
        place = self._place(bucket)
        half = place.with_name(f"{place.name}.{os.getpid()}")
        with suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            half.write_bytes(_MADE_BY + bucket.bytecode_to_string())
            half.replace(place)

    def _place(self, bucket: Bucket) -> Path:
        return Path(cache_from_source(str(self._folder / f"{bucket.key}.html")))
