"""Lists the files of a folder that a user names, which may be somebody else's, with links to files of the user in it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from firsthand.errors import DataError, reason_of

logger = logging.getLogger("firsthand")


def files_below(folder: Path, pattern: str = "*") -> list[Path]:
    """The ordinary files below a folder whose names match, sorted; those that a link leads out of it are left out.

    So are links to what nobody here may look at. A warning tells how many are left out. DataError where a folder does not
    let its files be looked at.
    """
    found, outside = [], set()
    for each in sorted(folder.rglob(pattern)):
        try:
            if not each.is_file():
                continue
        except OSError as error:
            if not each.is_symlink():
                told = f"{each} cannot be looked at ({reason_of(error)}): give a folder whose files you may read"
                raise DataError(told) from None
            outside.add(each)
        found.append(each)
    outside |= {each for each in found if each.is_symlink() and leads_out(each, folder)}
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
    real, inside = (Path(os.path.realpath(each)) for each in (path, folder))  # `resolve` raises for a link to itself
    cached = [each.parent.parent / "blobs" for each in (inside, *inside.parents) if each.parent.name == "snapshots"]
    return not any(real.is_relative_to(each) for each in (inside, *cached))
