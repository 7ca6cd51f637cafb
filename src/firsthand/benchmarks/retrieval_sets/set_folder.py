"""The folder of a judged set: given by the user, in `$FIRSTHAND_DATA`, or among the data that was fetched."""

from __future__ import annotations

import os
from pathlib import Path

from firsthand.errors import DataError
from firsthand.system.given_data import held
from firsthand.system.home import data_home

PLACES: dict[str, str] = {
    "scifact": "https://public.ukp.informatik.tu-darmstadt.de/thakur/BEIR/datasets/scifact.zip",
    "cranfield": "https://github.com/oussbenk/cranfield-trec-dataset",
}
"""Set -> where its files are published."""


def set_folder(name: str, data: str = "") -> Path:
    """Returns the first folder that is there: `data` or NAME in it, retrieval/NAME or NAME in `$FIRSTHAND_DATA`, our data.

    DataError, which says where the files are published, if none is.
    """
    if data:
        given = Path(data).expanduser()
        tried = [given / name, given / "retrieval" / name, given]
    else:
        outside = os.environ.get("FIRSTHAND_DATA")
        roots = [*([Path(outside).expanduser()] if outside else []), data_home() / "data"]
        tried = [root / each for root in roots for each in (f"retrieval/{name}", name)]
    found = next((folder.resolve() for folder in tried if folder.is_dir()), None)
    if found is None:
        raise DataError(
            f"{name} is not on this machine: unpack {PLACES.get(name, 'its files')} into "
            f"{data_home() / 'data' / 'retrieval' / name}, or give data=FOLDER"
        )
    return found


def corpus_name(name: str, data: str) -> str:
    """Returns the set's corpus as tasks name it: a benchmark, with the folder if the user gave one."""
    if not data:
        return name
    escaped = str(set_folder(name, data)).replace(":", "\\:")
    return f"{name}:data={escaped}"


def file_in(folder: Path, *names: str) -> Path:
    """Returns the first of these files that is in the folder; DataError if none is."""
    found = next((folder / each for each in names if (folder / each).is_file()), None)
    if found is None:
        raise DataError(f"{folder} has no {' and no '.join(names)}")
    return held(found, folder)
