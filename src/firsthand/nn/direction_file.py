"""Files of one direction at one site of a model's activations: monitors (`activation_monitor.py`) and steering vectors."""

# D hidden

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats.safetensors_file import read_safetensors
from firsthand.system.new_file import replacing


def is_file(path: Path) -> bool:
    """True if a file is there; False for what cannot be a path, such as a name that is too long."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


class Direction(NamedTuple):
    """The content of a file."""

    site: str
    values: Tensor
    """D, float32."""
    name: str
    numbers: Mapping[str, float]


def write_direction(file: Path, format: str, found: Direction) -> None:
    """Writes a safetensors file with the direction, and the rest as its metadata."""
    from safetensors.torch import save_file

    if found.values.ndim != 1:
        raise ConfigError(
            f"the direction at {found.site} has the shape {tuple(found.values.shape)}: a file holds one vector, so give a "
            "site without heads"
        )
    facts = {"format": format, "site": found.site, "name": found.name}
    facts |= {name: repr(value) for name, value in found.numbers.items()}
    with replacing(file) as part:
        save_file({"direction": found.values.float().contiguous()}, part, metadata=facts)


def read_direction(file: Path | str, format: str, what: str, by: str, numbers: Sequence[str] = ()) -> Direction:
    """Reads a file of that format, with these numbers in its metadata.

    `what` is written there by the command `by`: ConfigError if the file is missing, ModelFileError if it is another.
    """
    from safetensors.torch import load_file

    file, give = Path(file), f"give a file that `{by}` wrote"
    if not is_file(file):
        raise ConfigError(f"no {what} {str(file)[:500]!r}: {give}")
    told = f"{file} is no {what}: {give}"
    facts = read_safetensors(file).metadata
    if facts.get("format") != format:
        raise ModelFileError(told)
    values = load_file(file).get("direction")
    values = None if values is None else values.float()  # what is used must be finite, and not only what is stored
    try:
        found = {name: float(facts[name]) for name in numbers}
    except (KeyError, ValueError):
        raise ModelFileError(told) from None
    if values is None or values.ndim != 1 or not len(values) or not values.isfinite().all() or not facts.get("site"):
        raise ModelFileError(told)
    return Direction(facts["site"], values, facts.get("name", what), found)
