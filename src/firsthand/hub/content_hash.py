"""The files that determine a model's answers, and their SHA-256 hashes, which are cached. No tensors here."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from firsthand.errors import ModelFileError
from firsthand.system.home import data_home
from firsthand.system.ordinary_file import open_ordinary


def model_files(path: Path) -> list[Path]:
    """Returns the files that determine a model's answers: the .gguf file, or a folder's JSON, templates and weights."""
    if path.is_file():
        return [path]
    suffixes = (".json", ".jinja", ".safetensors", ".model")
    files = sorted(file for file in path.iterdir() if file.suffix in suffixes) if path.is_dir() else []
    files += [file for file in [path / "additional_chat_templates" / "tool_use.jinja"] if files and file.is_file()]
    if not files:
        raise ModelFileError(f"{path} is neither a .gguf file nor a folder with a model in it")
    return files


def content_hash(file: Path) -> str:
    """Returns a file's SHA-256 in hex, cached under its path, size and modification time."""
    status = file.stat()
    key = hashlib.sha256(f"{file.resolve()}|{status.st_size}|{status.st_mtime_ns}".encode()).hexdigest()
    remembered = data_home() / "hashes" / key
    with suppress(OSError):
        known = remembered.read_text()
        if len(known) == 64:
            return known
    try:
        with open_ordinary(file) as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelFileError(f"{file} cannot be read: {error.strerror or error}") from None
    with suppress(OSError):
        remembered.parent.mkdir(parents=True, exist_ok=True)
        remembered.write_text(digest)
    return digest
