"""Finds links that lead out of a model's folder, by which a stranger's could show a file of this machine as its own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from firsthand.errors import ModelFileError
from firsthand.system.given_folder import leads_out


def links_out(path: Path, folder: Path | None = None) -> bool:
    """True for a file that a link leads out of the model's folder, unless to the blobs beside it in the hub's cache.

    The folder is the file's own if none is given.
    """
    return leads_out(path, folder or path.parent)


def refuse_link_out(path: Path, folder: Path | None = None) -> None:
    """Raise ModelFileError for a file that `links_out`: a stranger's model could show a file of this machine as its own."""
    if links_out(path, folder):
        raise ModelFileError(
            f"{path} is a link to {path.resolve()}, outside of the model's folder, and is not followed: put a copy of the "
            "file in its place if it belongs to the model"
        )


def own_files(folder: Path, names: Iterable[str]) -> list[Path]:
    """The files of these names in a model folder, to be copied into another; ModelFileError if one `links_out`."""
    found = [path for name in names if (path := folder / name).is_file()]
    for path in found:
        refuse_link_out(path, folder)
    return found
