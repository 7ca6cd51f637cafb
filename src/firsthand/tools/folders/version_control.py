"""Recognises files of version control, whose settings name programs that run for whoever looks at the repository.

git also takes a folder without `.git` for a repository: one with `HEAD`, and `objects`, `refs` or `commondir` beside it.
Calls that run at once may each write a part, so no `HEAD` is written at all, and none of the rest beside one that is there.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata

SYSTEMS = {".git": "git", ".gitmodules": "git", ".hg": "Mercurial", ".sl": "Sapling", ".jj": "Jujutsu"}
_SHORT = re.compile(r"\.?(git|hg|sl|jj|gitmod|gi7eb[0-9a-f])~[0-9]+")
"""The second name of such a file on NTFS and FAT, of eight characters at most."""
_HEAD = "HEAD"
_BESIDE = ("objects", "refs", "commondir")
_SETTINGS = ("config", "hooks", "info", "commondir")
"""Beside `objects` and `refs`, which is all that the common folder of several work trees needs to have.

`config.worktree` is not among them: git reads it beside a `HEAD` alone.
"""


def owner(folder: int, name: str, *, is_last: bool) -> str | None:
    """The system that `name` in an open folder belongs to, or would belong to once it is written; None if there is none.

    `is_last` says that the name is the path's last: a file, and no folder on the way.
    """
    plain = _as_file_systems_read_it(name)
    if plain in SYSTEMS:
        return SYSTEMS[plain]
    if short := _SHORT.fullmatch(plain):
        return SYSTEMS.get(f".{short[1]}", "git")
    if plain in _SETTINGS and all(_is_there(folder, each) for each in ("objects", "refs")):
        return "git"
    if is_last and plain == _HEAD.casefold():
        return "git"
    if _is_file(folder, _HEAD) and (plain in _BESIDE or any(_is_there(folder, each) for each in _BESIDE)):
        return "git"
    return None


def _as_file_systems_read_it(name: str) -> str:
    """The name without case, characters that nobody sees, a stream after a colon, and blanks and dots at its end.

    Some file systems take such names for the same.
    """
    seen = "".join(each for each in name if unicodedata.category(each) != "Cf").casefold()
    return seen.partition(":")[0].rstrip(". ") or seen


def _is_file(folder: int, name: str) -> bool:
    """True for a file or a link."""
    try:
        return not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _is_there(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
