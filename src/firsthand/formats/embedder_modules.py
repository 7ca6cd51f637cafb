"""Reads modules.json of sentence-transformers: the modules of an embedder, and the folders of their settings."""

from __future__ import annotations

import json
from pathlib import Path

from firsthand.errors import ModelFileError, reason_of
from firsthand.system.ordinary_file import open_ordinary

MODULES = "modules.json"
_MAX_BYTES = 1 << 16


def read_modules(folder: Path) -> list[tuple[str, str]]:
    """Return the kind and path of each module in a folder's modules.json; none if there is no such file.

    The path is relative to the folder, and empty for the folder itself. ModelFileError for a file that is no such list.
    """
    path = folder / MODULES
    if not path.is_file():
        return []
    try:
        with open_ordinary(path) as file:
            text = file.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            raise ValueError(f"it is larger than {_MAX_BYTES} bytes")
        return [(str(each["type"]).rsplit(".", 1)[-1], str(each["path"])) for each in json.loads(text.decode())]
    except (OSError, ValueError, RecursionError, TypeError, KeyError) as error:
        raise ModelFileError(f"{path} is no list of modules with a type and a path: {reason_of(error)[:200]}") from None
