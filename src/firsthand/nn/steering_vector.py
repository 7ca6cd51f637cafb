"""A steering vector: a direction that is added to one site's activations at every token, in one safetensors file."""

# D hidden

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from firsthand.errors import ConfigError
from firsthand.nn.direction_file import Direction, is_file, read_direction, write_direction

FORMAT = "firsthand.steering.1"
_BY = "firsthand interp steer --out FILE"


@dataclass(frozen=True, eq=False)
class SteeringVector:
    """A direction and how strongly it is added."""

    site: str
    """An activation of D values a token, such as blocks.8.resid.post."""
    direction: Tensor
    """D."""
    strength: float = 1.0
    name: str = "steering"

    def __post_init__(self) -> None:
        if not math.isfinite(self.strength):
            raise ConfigError(f"the strength of a steering vector is {self.strength}: give a finite number")
        if self.direction.isfinite().all() and not (self.strength * self.direction.float()).isfinite().all():
            raise ConfigError(
                f"the strength {self.strength:g} of {self.name} is more than float32 can hold: give a smaller one"
            )

    def added(self, values: Tensor) -> Tensor:
        """The activations with the vector. ConfigError if they have another width."""
        if values.shape[-1] != len(self.direction):
            raise ConfigError(
                f"the steering vector {self.name} has {len(self.direction)} values, and {self.site} of this model has "
                f"{values.shape[-1]}: make one for this model with `{_BY}`"
            )
        return values + self.strength * self.direction.to(values.device, values.dtype)

    @property
    def digest(self) -> str:
        """Hash of all that it changes, 16 hex digits."""
        parts = [self.site.encode(), repr(self.strength).encode(), self.direction.float().cpu().numpy().tobytes()]
        return hashlib.sha256(b"|".join(parts)).hexdigest()[:16]


def write_steering(vector: SteeringVector, file: Path) -> None:
    """Writes the file; `+steer:FILE` after a model's name reads it."""
    numbers = {"strength": vector.strength}
    write_direction(file, FORMAT, Direction(vector.site, vector.direction, vector.name, numbers))


def read_steering(text: str) -> SteeringVector:
    """Reads `FILE` of `write_steering`, or `FILE@STRENGTH`, where the file's own strength is multiplied by that.

    ConfigError if the file is missing or the strength is no number, ModelFileError for another kind of file.
    """
    file, at, times = text.rpartition("@")
    if not at or is_file(Path(text)):
        file, times = text, "1"
    try:
        factor = float(times)
    except ValueError:
        raise ConfigError(f"the strength {times!r} of a steering vector is no number: write FILE@0.5") from None
    found = read_direction(file, FORMAT, "steering vector", _BY, ("strength",))
    return SteeringVector(found.site, found.values, factor * found.numbers["strength"], found.name)
