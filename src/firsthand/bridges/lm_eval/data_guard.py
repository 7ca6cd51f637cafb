"""Refuses files of the user where `datasets` finds those of a task, whatever named them.

`task_data` reads the task files, so that a person is told before anything is loaded; a README.md or .huggingface.yaml in a
folder of data, or in a data set of the hub, names files too. Here is the place that no spelling passes by.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from firsthand.errors import ConfigError
from firsthand.system.given_folder import leads_out

_allowed: ContextVar[Sequence[Path] | None] = ContextVar("allowed", default=None)
_REMOTE = ("https", "http", "hf")
_ARCHIVES = ("zip", "tar", "gzip", "bz2", "xz", "lz4", "zstd")


@contextlib.contextmanager
def data_below(folders: Sequence[Path] | None) -> Iterator[None]:
    """Let `datasets` find files in these folders and on the web alone; None lets it find any."""
    _guard()
    token = _allowed.set(folders)
    try:
        yield
    finally:
        _allowed.reset(token)


def expect_below(found: str, folders: Sequence[Path]) -> None:
    """ConfigError for a file of this machine outside of the folders; a part of an archive is where the archive is."""
    *parts, place = found.split("::")
    is_remote = "://" in place and place.partition("://")[0] in _REMOTE
    is_below = "://" not in place and not all(leads_out(Path(place), each) for each in folders)
    if not (is_remote or is_below) or any(each.partition("://")[0] not in _ARCHIVES for each in parts):
        raise ConfigError(
            f"the task's data is {found[:200]!r}, outside of its folder, and is not read: if you want it sent to the model, "
            "allow its folder as in lm_eval:task=FILE:data=FOLDER"
        )


def _guard() -> None:
    """Put the question behind the library's own search, once; an AttributeError if the library has it no more."""
    data_files = importlib.import_module("datasets.data_files")
    plain = data_files.resolve_pattern
    if getattr(plain, "is_guarded", False):
        return

    def guarded(pattern: str, base_path: str, *args: Any, **options: Any) -> list[str]:
        found: list[str] = plain(pattern, base_path, *args, **options)
        if (folders := _allowed.get()) is not None:
            for each in found:
                expect_below(each, folders)
        return found

    guarded.is_guarded = True  # type: ignore[attr-defined]
    data_files.resolve_pattern = guarded  # type: ignore[attr-defined]
