"""Exports the curves of a run: CSV, TensorBoard's event files, or a folder that `wandb sync` uploads.

Values, steps and times are those of the run; fractions in TensorBoard's files have 7 digits, of a float32. TensorBoard and
Weights & Biases need their packages (the extra `track`).
"""

from __future__ import annotations

import csv
import math
import struct
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from firsthand.errors import ConfigError, StoreError
from firsthand.runs.track import Track
from firsthand.runs.wandb_files import OWN_NAMES, has_ended
from firsthand.system.spreadsheet_cells import plain_cell

WRITTEN_S = 60.0
"""The longest wait for W&B to write a run, in seconds."""


def export_csv(track: Track, target: Path, names: Sequence[str] = ()) -> int:
    """Write a CSV file of metric, step, value and time (seconds since 1970); returns the number of values.

    A name that a spreadsheet would read as a formula is written after an apostrophe.
    """
    count = 0
    with target.open("x", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["metric", "step", "value", "time"])
        for curve in track.curves(names):
            name = plain_cell(curve.name)
            for step, value, at in zip(curve.steps, curve.values, curve.at, strict=True):
                writer.writerow([name, step, repr(value), f"{at:.3f}"])
                count += 1
    return count


def export_tensorboard(track: Track, target: Path, names: Sequence[str] = ()) -> int:
    """Write an event file that TensorBoard reads into a new folder; returns the number of values.

    A curve with a value that float32 cannot represent, such as a count above 2^24 or 1e39, is written as tensors of doubles.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_SCALAR, Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.types_pb2 import DT_DOUBLE
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        raise _missing("TensorBoard's files") from None
    target.mkdir(parents=True)
    writer, count = EventFileWriter(str(target)), 0
    try:
        for curve in track.curves(names):
            is_double = not all(map(_is_float32, curve.values))
            about = SummaryMetadata(data_class=DATA_CLASS_SCALAR)
            about.plugin_data.plugin_name = "scalars"
            for step, value, at in zip(curve.steps, curve.values, curve.at, strict=True):
                if is_double:
                    tensor = TensorProto(dtype=DT_DOUBLE, tensor_content=struct.pack("<d", value))
                    scalar = Summary(value=[Summary.Value(tag=curve.name, tensor=tensor, metadata=about)])
                else:
                    scalar = Summary(value=[Summary.Value(tag=curve.name, simple_value=value)])
                writer.add_event(Event(wall_time=at, step=step, summary=scalar))
                count += 1
    finally:
        writer.close()
    return count


def _is_float32(value: float) -> bool:
    """True if float32 represents the number: a whole one exactly, a fraction to 7 digits."""
    if not math.isfinite(value):
        return True
    try:
        near = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return False
    return bool(near == value or (not value.is_integer() and abs(near - value) <= 2**-24 * abs(value)))


def export_wandb(track: Track, target: Path, names: Sequence[str] = ()) -> int:
    """Write an offline run of Weights & Biases into a new folder, for `wandb sync`; returns the number of values.

    Nothing is sent. Steps go in growing order, as W&B takes no others. ConfigError for a metric with one of W&B's own names.
    """
    try:
        import wandb
    except ImportError:
        raise _missing("an offline run of Weights & Biases") from None
    by_step: dict[int, dict[str, float]] = defaultdict(dict)
    for curve in track.curves(names):
        if curve.name in OWN_NAMES:
            raise ConfigError(f"W&B writes {curve.name!r} itself: name the other metrics with --metric")
        for step, value in zip(curve.steps, curve.values, strict=True):
            by_step[step][curve.name] = value
    target.mkdir(parents=True)
    quiet = wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True, disable_git=True)
    config = {key: value for key, value in track.run.config.items() if isinstance(value, str | int | float | bool)}
    run = wandb.init(
        mode="offline", dir=str(target), project="firsthand", name=track.run.id, config=config, settings=quiet
    )
    for step in sorted(by_step):
        run.log(by_step[step], step=step)
    run.finish()
    _await_end(target)
    return sum(map(len, by_step.values()))


def _await_end(folder: Path) -> None:
    """Wait for W&B's own process to write the end of the run: on a busy machine `finish` returns before."""
    until = time.monotonic() + WRITTEN_S
    while True:
        logs = list((folder / "wandb").glob("offline-run-*/run-*.wandb"))
        if logs and all(map(has_ended, logs)):
            return
        if time.monotonic() > until:
            raise StoreError(f"W&B has not written the whole run to {folder} within {WRITTEN_S:g} s")
        time.sleep(0.02)


FORMATS: dict[str, Callable[[Track, Path, Sequence[str]], int]] = {
    "csv": export_csv,
    "tensorboard": export_tensorboard,
    "wandb": export_wandb,
}


def export(track: Track, form: str, target: Path, names: Sequence[str] = ()) -> int:
    """Write the curves of these metrics, or of all, to a new file or folder; returns the number of values.

    `form` is one of FORMATS.
    """
    if form not in FORMATS:
        raise ConfigError(f"{form!r:.60} is no format: give one of {', '.join(FORMATS)}")
    if target.exists():
        raise ConfigError(f"{target} is there already: give a new name")
    try:
        return FORMATS[form](track, target, names)
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {error.strerror or error}") from None


def _missing(what: str) -> ConfigError:
    return ConfigError(f"{what} need a package that is not installed: pip install 'firsthand[track]'")
