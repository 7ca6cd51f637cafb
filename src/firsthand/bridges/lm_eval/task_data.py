"""Finds files of the user that a task file of somebody else names as its data, before the harness loads them.

Paths are looked up where `datasets` does: in the current folder. Names of the hub, and addresses of the web, are no files.
"""

from __future__ import annotations

import re
from pathlib import Path

from firsthand.bridges.lm_eval.task_files import with_includes
from firsthand.bridges.lm_eval.task_yaml import leaves
from firsthand.errors import ConfigError
from firsthand.system.given_folder import leads_out

_REMOTE = ("https://", "http://", "hf://")
_PATTERN = re.compile(r"[*?\[{]")


def expect_own_data(path: Path, allowed: str = "") -> None:
    """ConfigError if a task file, or one that it includes, names data outside of its folder and the one that is allowed."""
    folders = [path.resolve().parent, *([Path(allowed).expanduser()] if allowed else [])]
    for file in with_includes(path):
        for named in (str(leaf.value) for leaf in leaves(file) if leaf.is_data and isinstance(leaf.value, str)):
            if (found := _local(named)) is not None and all(_leads_out(found, each) for each in folders):
                raise ConfigError(
                    f"{file.name} names the data {named[:200]!r}, outside of its folder, and is not read: if you want it "
                    f"sent to the model, allow its folder as in lm_eval:task={path.name}:data=FOLDER"
                )


def _local(named: str) -> Path | None:
    """The path of a file or folder here that the text may name, up to its first wildcard; None for any other text."""
    if named.startswith(_REMOTE) and "::" not in named:
        return None
    if "://" in named or "::" in named:
        return Path("/")  # file://, or an archive of one: a path in another form
    path = Path(_PATTERN.split(named)[0] if _PATTERN.search(named) else named).expanduser()
    if _PATTERN.search(named) and not named[: len(str(path)) + 1].endswith("/"):
        path = path.parent
    is_path = path.is_absolute() or ".." in path.parts or named.startswith(("~", "."))
    try:
        return path if is_path or (path != Path() and path.exists()) or _PATTERN.search(named) else None
    except (OSError, ValueError):  # longer than any name, or with a zero byte
        return None


def _leads_out(path: Path, folder: Path) -> bool:
    if leads_out(path, folder):
        return True
    return path.is_dir() and any(each.is_symlink() and leads_out(each, folder) for each in path.rglob("*"))
