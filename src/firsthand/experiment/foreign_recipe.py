"""Checks what a training run from elsewhere would load, read and write, before any of it is.

Without trust a run may name what is installed, and files and folders within its own folder. Left out: the files that are
there, which `training_run.opened` looks at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from firsthand.experiment.foreign_settings import expect_nothing_of, unknown_names
from firsthand.message import Json
from firsthand.system.given_folder import leads_out

LOADED = {
    "benchmark": "benchmark", "pattern": "pattern", "tools": "tool",
    "model": "model", "teacher": "model", "sampler": "model",
}  # fmt: skip
"""Settings whose values are loaded -> the kind of their values. Every other text may be a path."""


def expect_beside(folder: Path, recipe: str, settings: Json) -> None:
    """ConfigError, which tells all of it, if a run names what is not installed, or a path outside of its folder."""
    found = unknown_names({"recipe": recipe})
    for name, text in _texts(settings):
        if kind := LOADED.get(name):
            found += unknown_names({kind: text})
        elif _leads_out(text, folder):
            found.append((name, text))
    expect_nothing_of(str(folder), found)


def _texts(settings: Json) -> Iterator[tuple[str, str]]:
    """Yields the name and text of each setting that is not empty, in whatever table or list."""
    waiting: list[tuple[str, Any]] = [("", settings)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            tables = [(str(key).rpartition(".")[2].replace("-", "_"), each) for key, each in value.items()]
            waiting += reversed(tables)
        elif isinstance(value, list):
            waiting += [(name, each if isinstance(each, dict | list) else str(each)) for each in reversed(value)]
        elif isinstance(value, str) and value:
            yield name, value


def _leads_out(text: str, folder: Path) -> bool:
    """True if a text, or one of those that commas divide it into, is an address, or a path that leaves the folder."""
    return any(_is_outside(each.strip(), folder) for each in {text, *text.split(",")} if each.strip())


def _is_outside(text: str, folder: Path) -> bool:
    if set(text) & set(":@~\\\0"):
        return True
    try:
        return ("/" in text or os.path.lexists(text)) and leads_out(Path(text), folder)
    except (OSError, ValueError, RuntimeError):  # too long for a path, or links in a circle
        return True
