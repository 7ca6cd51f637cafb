"""The models that a training run reads and leaves as they are: a resumed run knows them again by digests of their files.

sources.json in the run's folder holds a digest for each role: the base model, an adapter to begin with, a teacher, a reward
model. A file is read whole once and its hash cached (`hub.content_hash`), so that a start costs a look at size and time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from firsthand.errors import ConfigError, StoreError, reason_of
from firsthand.hub.content_hash import content_hash
from firsthand.message import Json
from firsthand.system.new_file import write_new
from firsthand.system.own_file import read_own_json

SOURCES = "sources.json"


def weight_files(path: Path) -> list[Path]:
    """The files that decide a model's weights: the .gguf file, or config.json and the safetensors of a folder."""
    if path.is_file():
        return [path]
    found = [path / "config.json", *sorted(path.glob("*.safetensors"))]
    return [file for file in found if file.is_file()]


def files_digest(files: Iterable[Path]) -> str:
    """A hash of what is in files, whatever their names. ModelFileError if one cannot be read."""
    return hashlib.sha256("|".join(map(content_hash, files)).encode()).hexdigest()


def expect_same_model(folder: Path, role: str, path: Path, files: Sequence[Path], *, is_begun: bool) -> None:
    """Keep the digest of a model's files in a run's folder. ConfigError if the run is begun and had others in this role.

    A begun run that kept none, as before 0.23, keeps it from now on. StoreError if sources.json cannot be read or written.
    """
    kept = folder / SOURCES
    known, digest = _known(kept), files_digest(files)
    if is_begun and known.get(role, digest) != digest:
        raise ConfigError(
            f"the {role} {path} is not what the run in {folder} began with: put it back as it was, or begin the run anew in "
            "another folder"
        )
    try:
        write_new(kept, json.dumps({**known, role: digest}, indent=2) + "\n")
    except OSError as error:
        raise StoreError(f"{kept} cannot be written ({reason_of(error)}): make room, then try again") from None


def _known(kept: Path) -> Json:
    """The digests that were kept, by role."""
    try:
        return dict(read_own_json(kept))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(
            f"{kept} cannot be read ({reason_of(error)}): remove it if the models that the run began with are what they were"
        ) from None
