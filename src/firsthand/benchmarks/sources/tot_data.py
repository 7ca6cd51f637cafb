"""Loads the Tree of Thoughts paper's data from a folder of the user's or the package `tree-of-thoughts-llm`."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from firsthand.errors import DataError
from firsthand.system.given_data import held
from firsthand.system.ordinary_file import read_ordinary

PACKAGE = "tree-of-thoughts-llm"
MAX_BYTES = 16 * 2**20


@dataclass(frozen=True)
class PaperFile:
    """A file's text, with its origin."""

    text: str
    origin: str
    sha256: str


def find(names: tuple[str, ...], in_package: str, data: str) -> PaperFile | None:
    """Return the first of these files in the folder (or file) `data` or `$FIRSTHAND_DATA`; else the package's, or None."""
    if data:
        found = _in_folder(Path(data).expanduser(), names)
        if found is None:
            raise DataError(f"data is {data!r}, which has none of {', '.join(names)}: put the file there")
        return _read(found, "data folder")
    if folder := os.environ.get("FIRSTHAND_DATA"):
        found = _in_folder(Path(folder).expanduser(), names)
        if found is not None:
            return _read(found, "$FIRSTHAND_DATA")
    spec = importlib.util.find_spec("tot")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(place) / "data" / in_package).is_file():
            return _read(path, f"package {PACKAGE}")
    return None


@cache
def prompts(name: str) -> dict[str, str]:
    """Return the paper's prompts for a task, as its authors published them (MIT; see the head of each file)."""
    path = Path(__file__).parent.parent / "prompts" / f"{name}.toml"
    return {key: str(value) for key, value in tomllib.loads(path.read_text(encoding="utf-8")).items()}


def _in_folder(folder: Path, names: tuple[str, ...]) -> Path | None:
    if folder.is_file():
        return folder
    candidates = (folder / place / name for name in names for place in ("", "reasoning"))
    return next((held(path, folder) for path in candidates if path.is_file()), None)


def _read(path: Path, origin: str) -> PaperFile:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} is larger than {MAX_BYTES >> 20} MiB: is it the right file?")
        raw = read_ordinary(path, MAX_BYTES)
        return PaperFile(raw.decode("utf-8"), origin, hashlib.sha256(raw).hexdigest())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}): is it the right file?") from None
