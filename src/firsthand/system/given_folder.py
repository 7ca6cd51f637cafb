"""Lists the files of a folder that a user names, which may be somebody else's, with links to files of the user in it."""

from __future__ import annotations

import logging
from pathlib import Path

logger = logging.getLogger("firsthand")


def files_below(folder: Path, pattern: str = "*") -> list[Path]:
    """The ordinary files below a folder whose names match, sorted; those that a link leads out of it are left out.

    A warning tells how many are left out.
    """
    found = sorted(each for each in folder.rglob(pattern) if each.is_file())
    outside = {each for each in found if each.is_symlink() and leads_out(each, folder)}
    if outside:
        logger.warning(
            "%s: %d of %d files are links to files outside of the folder and are left out, such as %s; "
            "put copies in their place to have them read",
            folder, len(outside), len(found), min(outside).relative_to(folder),
        )  # fmt: skip
    return [each for each in found if each not in outside]


def leads_out(path: Path, folder: Path) -> bool:
    """True for a path outside of the folder, by its name or through links.

    A folder of the hub's cache (`snapshots/REVISION`) is one with the `blobs` beside it, which its links lead to.
    """
    real, inside = path.resolve(), folder.resolve()
    cached = [each.parent.parent / "blobs" for each in (inside, *inside.parents) if each.parent.name == "snapshots"]
    return not any(real.is_relative_to(each) for each in (inside, *cached))
