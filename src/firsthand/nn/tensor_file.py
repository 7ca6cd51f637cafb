"""Reads all tensors of a safetensors file that somebody else may have written."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from firsthand.errors import ModelFileError, reason_of
from firsthand.formats.safetensors_file import read_safetensors


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors by name; ModelFileError if it is no ordinary file, or its header does not account for all of it."""
    read_safetensors(path)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelFileError(f"{path} cannot be read: {reason_of(error)}") from None
