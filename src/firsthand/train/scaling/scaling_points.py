"""Points to fit a scaling law to: parameters, training tokens and final loss of each run, read from a CSV file."""

# P points

from __future__ import annotations

import csv
import errno
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from firsthand.errors import DataError, reason_of
from firsthand.system.headed_csv import HeadedCsv
from firsthand.system.new_file import write_new
from firsthand.system.ordinary_file import read_bounded
from firsthand.system.plurals import count_of

Floats = npt.NDArray[np.float64]
COLUMNS = {
    "parameters": ("parameters", "params", "n", "model size"),
    "tokens": ("tokens", "d", "training tokens"),
    "flops": ("flops", "c", "compute", "training flop", "training flops"),
    "loss": ("loss", "final loss"),
}
"""Headings that are read, whatever their case. Tokens may follow from FLOPs: D = C / 6N."""
FLOPS_PER_PARAMETER_AND_TOKEN = 6
MAX_BYTES = 1 << 26
MAX_POINTS = 10_000
"""A fit takes the time of its points times some 5,000 starts and evaluations."""


@dataclass(frozen=True, eq=False)
class ScalingPoints:
    """Runs, each a model trained to the end of its schedule."""

    parameters: Floats
    """P"""
    tokens: Floats
    """P"""
    loss: Floats
    """P: in nats per token, or in any unit that is the same for all."""

    def __post_init__(self) -> None:
        arrays = [np.asarray(getattr(self, name), dtype=np.float64) for name in ("parameters", "tokens", "loss")]
        if len({array.shape for array in arrays}) != 1 or arrays[0].ndim != 1:
            raise DataError(
                f"points of shapes {[array.shape for array in arrays]} came: give one number of each for each run"
            )
        if len(arrays[0]) > MAX_POINTS:
            raise DataError(f"{len(arrays[0]):,} points came: give {MAX_POINTS:,} at most, as by thinning out curves")
        if not all((np.isfinite(array) & (array > 0)).all() for array in arrays):
            raise DataError(
                "a point has a parameter count, tokens or a loss that is not a number above 0: leave it out"
            )
        for name, array in zip(("parameters", "tokens", "loss"), arrays, strict=True):
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def flops(self) -> Floats:
        """Training compute, 6 N D: P."""
        return FLOPS_PER_PARAMETER_AND_TOKEN * self.parameters * self.tokens

    def take(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> ScalingPoints:
        """The points of these rows, repeated where a row is."""
        return ScalingPoints(self.parameters[rows], self.tokens[rows], self.loss[rows])

    def without_highest(self, count: int) -> ScalingPoints:
        """All but the points of the highest losses, as Besiroglu et al. (2024) leave out five."""
        if not 0 <= count < len(self):
            raise DataError(
                f"drop is {count} and there are {count_of(len(self), 'point')}: leave some to fit, as with 0"
            )
        return self.take(np.sort(np.argsort(self.loss, kind="stable")[: len(self) - count]))


def read_points(path: Path | str) -> ScalingPoints:
    """Reads a CSV file with a heading and a row for each run; DataError names the line of what is wrong."""
    path = Path(path)
    try:
        raw = read_bounded(path, MAX_BYTES)
        with io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8-sig", newline="") as file:
            reader = HeadedCsv(file)
            names = _columns(path, reader.fieldnames)
            rows = [_row(path, number, row, names) for number, row in enumerate(islice(reader, MAX_POINTS + 1), 2)]
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise DataError(f"{path} is larger than {MAX_BYTES} bytes: too large for points of a scaling law") from None
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no CSV file: {reason_of(error)}") from None
    if len(rows) > MAX_POINTS:
        raise DataError(
            f"{path} has more than {MAX_POINTS:,} points: give fewer, as by thinning out the training curves"
        )
    if not rows:
        raise DataError(f"{path} has no points: give a heading and a row for each run")
    return ScalingPoints(*np.array(rows).T)


def write_points(points: ScalingPoints, path: Path | str) -> None:
    """Writes the points as a CSV file that `read_points` reads."""
    file = StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(("parameters", "tokens", "flops", "loss"))
    columns = (points.parameters, points.tokens, points.flops, points.loss)
    writer.writerows([f"{value:.10g}" for value in row] for row in zip(*columns, strict=True))
    write_new(Path(path), file.getvalue())


def _columns(path: Path, headings: object) -> dict[str, str]:
    """The file's own heading of each quantity."""
    given = {str(each).strip().lower(): str(each) for each in headings}  # type: ignore[attr-defined]
    found = {
        quantity: given[known[0]]
        for quantity, names in COLUMNS.items()
        if (known := [name for name in names if name in given])
    }
    if not {"parameters", "loss"} <= found.keys() or not {"tokens", "flops"} & found.keys():
        shown = ", ".join(list(given)[:10]) or "none"
        raise DataError(f"{path} has the columns {shown[:200]}: expected parameters, loss, and tokens or flops")
    return found


def _row(path: Path, line: int, row: Mapping[str, str | None], names: Mapping[str, str]) -> tuple[float, float, float]:
    numbers = {}
    for quantity, heading in names.items():
        text = row.get(heading) or ""
        try:
            numbers[quantity] = float(text)
        except ValueError:
            numbers[quantity] = math.nan
        if not (math.isfinite(numbers[quantity]) and numbers[quantity] > 0):
            raise DataError(f"{path}:{line}: {heading} is {text[:40]!r}: expected a number above 0")
    parameters = numbers["parameters"]
    tokens = numbers.get("tokens") or numbers["flops"] / (FLOPS_PER_PARAMETER_AND_TOKEN * parameters)
    return parameters, tokens, numbers["loss"]
