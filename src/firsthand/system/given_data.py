"""Tells data of a benchmark's own folder from files that a stranger's benchmark only names, or links to.

A benchmark, and a folder of data, may be somebody else's: a path out of it, or a link, would send a private file of the user
to a model as a question. `$FIRSTHAND_DATA` and our own data folder are the user's, and their links are followed.
"""

from __future__ import annotations

import os
from pathlib import Path

from firsthand.errors import DataError
from firsthand.system.given_folder import leads_out
from firsthand.system.home import data_home


def held(path: Path, folder: Path) -> Path:
    """Returns the path of a file of a data folder; DataError if it leads out of a folder that is not the user's own."""
    if leads_out(path, folder) and not is_own(folder):
        raise DataError(
            f"{path} leads to {path.resolve()}, outside of the folder {folder}, and is not read: put a copy in its "
            "place, or set FIRSTHAND_DATA to the folder if it is your own"
        )
    return path


def is_own(folder: Path) -> bool:
    """True for `$FIRSTHAND_DATA`, our data folder, and folders below them: their links were made by the user."""
    outside = os.environ.get("FIRSTHAND_DATA")
    own = [*([Path(outside).expanduser()] if outside else []), data_home() / "data"]
    return any(_is_below(folder, each) for each in own)


def named_data(path: Path, named: str, allowed: str) -> Path:
    """Returns the table that a benchmark's file names, beside or below it, or in the folder that the user allows.

    DataError if it is anywhere else, by its name or through a link.
    """
    table = path.parent / named
    if leads_out(table, path.parent) and not (allowed and not leads_out(table, Path(allowed).expanduser())):
        raise DataError(
            f"{path} names the data {named!r}, which is {table.resolve()}, outside of its folder, and is not read: if you "
            f"want it sent to the model, allow its folder as in {path}:data={table.resolve().parent}"
        )
    return table


def _is_below(folder: Path, root: Path) -> bool:
    is_named_so = (Path.cwd() / folder).is_relative_to(Path.cwd() / root) and ".." not in folder.parts
    return is_named_so or not leads_out(folder, root)
