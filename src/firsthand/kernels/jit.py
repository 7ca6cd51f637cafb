"""Compiles kernels with numba, once per machine, with a disk cache that is invalidated by any change in this folder.

Numba's own cache compares only the file that a function is in, so a kernel that calls into a neighbour would go on running
the neighbour's old code after an edit or an upgrade. And it numbers its files and enters them in its index before it writes
them, so that of two processes that compile at the same time one may run the code of other types.

Functions that a factory makes need names of their own (`named`). numba's symbols are a function's qualified name, its
types and a number that counts up in each process; siblings of one name thus swap numbers between processes, and code from
the cache of one process would call its neighbour's sibling in another: floats read as halves, with numbers that are none.
Importing this file imports numba.
"""

# mypy: disallow-untyped-calls=False

from __future__ import annotations

import glob
import hashlib
import logging
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit, types
from numba.core.caching import IndexDataCacheFile

logger = logging.getLogger("firsthand")
_njit: Any = njit  # numba's annotations do not know all of its options


class CodeFiles(IndexDataCacheFile):
    """numba's cache files of a function, named by what is in them, and written before the index names them."""

    def __init__(self, cache_path: str, filename_base: str, source_stamp: Any):
        super().__init__(cache_path, filename_base, source_stamp)
        self._base = filename_base

    def load(self, key: Any) -> Any:
        """Returns the code for a key, or None; then it will be compiled, which is logged once per process."""
        found = super().load(key)
        if found is None:
            _tell_once()
        return found

    def _load_index(self) -> dict[Any, str]:
        """The index; empty if it names classes of another version of this folder, which cannot be unpickled."""
        try:
            found: dict[Any, str] = super()._load_index()
        except (AttributeError, ImportError):
            return {}
        return found

    def save(self, key: Any, data: Any) -> None:
        """Save the code for a key (types and processor), and delete stale code."""
        digest = hashlib.sha256(repr((self._version, self._source_stamp, key)).encode()).hexdigest()
        self._save_data(name := f"{self._base}.{digest[:24]}.nbc", data)
        known = {**self._load_index(), key: name}
        self._save_index(known)
        for file in Path(self._cache_path).glob(f"{glob.escape(self._base)}.*.nbc"):
            if file.name not in known.values():  # what another process is about to enter is compiled once more
                file.unlink(missing_ok=True)


@cache
def _tell_once() -> None:
    logger.info("compiling kernels for this machine: once, for about half a minute")


def kernel(function: Any) -> Any:
    """Compiles a function; it runs without the GIL, and integer division by zero does not raise."""
    _check_name(function)
    compiled = _compiled(function, cache=True)
    kept: Any = getattr(compiled, "_cache", None)
    if hasattr(kept, "_cache_file"):  # private to numba; without it the cache only notices less
        kept._cache_file = CodeFiles(kept._cache_path, kept._impl.filename_base, _stamp())
    return _for_any_number(compiled)


def _compiled(function: Any, cache: bool) -> Any:
    """numba's dispatcher; without a disk cache if no folder for one can be written, as for a user without a home."""
    options = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True, "_nrt": True}
    try:
        return _njit(cache=cache, **options)(function)
    except RuntimeError as error:
        if not cache or "no locator available" not in str(error):
            raise
    _tell_of_no_cache()
    return _compiled(function, cache=False)


@cache
def _tell_of_no_cache() -> None:
    logger.info(
        "compiled kernels cannot be kept, so every start compiles them for about half a minute: set NUMBA_CACHE_DIR to a "
        "folder of yours"
    )


def named(name: str) -> Any:
    """A decorator that gives a function made by a factory a unique name."""

    def rename(function: Any) -> Any:
        function.__name__ = function.__qualname__ = name
        return function

    return rename


def _check_name(function: Any) -> None:
    assert "<locals>" not in function.__qualname__, f"{function.__qualname__} needs a name of its own: see `named`"


def inlined(function: Any) -> Any:
    """A function that is inlined into the kernels that call it."""
    return _njit(inline="always", error_model="numpy")(function)


def called(function: Any) -> Any:
    """A function that kernels call, compiled once for all of them in a process. Python cannot call it.

    It cannot create arrays, so it does no reference counting: the counter of an array that all threads use would bounce
    between their cores.
    """
    return _called(function, makes_arrays=False)


def allocating(function: Any) -> Any:
    """As `called`, for a function that creates arrays."""
    return _called(function, makes_arrays=True)


def _called(function: Any, *, makes_arrays: bool) -> Any:
    _check_name(function)
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": makes_arrays}
    return _for_any_number(_njit(nogil=True, error_model="numpy", **options)(function))


def _for_any_number(compiled: Any) -> Any:
    """Compiles the function once per type; numba would compile it again for each constant argument."""
    template = compiled.get_call_template

    def without_literals(args: Any, kwargs: Any) -> Any:
        return template(
            [types.unliteral(kind) for kind in args], {k: types.unliteral(kind) for k, kind in kwargs.items()}
        )

    compiled.get_call_template = without_literals
    return compiled


def _stamp() -> tuple[tuple[str, int, int], ...]:
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)
