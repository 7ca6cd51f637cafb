"""Show the metrics of a run by step, follow them live, compare runs, export them, or import those of other trackers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from firsthand.config import refuse_given
from firsthand.errors import ConfigError, StoreError
from firsthand.runs import store
from firsthand.runs.track import Track
from firsthand.runs.track_export import export
from firsthand.runs.track_import import import_runs
from firsthand.show.curves import number, sparkline
from firsthand.system.home import data_home
from firsthand.system.new_file import write_new
from firsthand.system.plurals import count_of
from firsthand.system.terminal import console, print_as_json, print_table

POLL_S = 1.0

EXAMPLES = """
firsthand track last
firsthand track last --metric loss,reward
firsthand track last --follow                      # until the run ends
firsthand track 2026-11-25-0148 2026-11-26-1200    # runs beside each other: their last values
firsthand track last --html curves.html
firsthand track last --export csv --to curves.csv
firsthand track last --export tensorboard --to events
firsthand track --import runs/                     # TensorBoard, W&B offline, MLflow, trackio
firsthand track last --export wandb --to offline    # then: wandb sync offline/wandb/offline-run-*
"""


@dataclass(frozen=True)
class Config:
    """The runs to show, and how."""

    runs: tuple[str, ...] = field(default=("last",), metadata={"positional": True})
    """A run: its id, the beginning of it, its folder, or last. Several are compared."""
    metric: tuple[str, ...] = ()
    """Only these metrics."""
    follow: bool = False
    """Show new values as they come, until the run ends."""
    export: Literal["csv", "tensorboard", "wandb"] | None = None
    """Write the curves: csv, tensorboard, or wandb for an offline folder. Needs --to."""
    to: Path | None = None
    """The file or folder that --export writes."""
    import_: Path | None = None
    """Import runs of other trackers: TensorBoard's event files, W&B's offline folders, mlruns, trackio's databases."""
    html: Path | None = None
    """Write a page with curves, samples and files."""
    json: bool = False
    """Print JSON for programs: steps and values of each metric."""

    def __post_init__(self) -> None:
        if (self.export is None) != (self.to is None):
            raise ConfigError("--export and --to go together: --export csv --to curves.csv")
        if len(self.runs) > 1 and (self.follow or self.export or self.html):
            raise ConfigError("--follow, --export and --html take one run")
        if len(asked := [flag for flag, given in self._outputs() if given]) > 1:
            raise ConfigError(f"{' and '.join(asked)} do not go together: give them one at a time")

    def _outputs(self) -> list[tuple[str, bool]]:
        given = {"--import": self.import_, "--export": self.export, "--html": self.html}
        named = [(flag, value is not None) for flag, value in given.items()]
        return [*named, ("--follow", self.follow), ("--json", self.json and self.import_ is None)]


def main(config: Config) -> int:
    """Print, follow, compare, export or import."""
    if config.import_ is not None:
        refuse_given(config, {"runs", "metric", "json"}, "--import takes neither runs nor metrics, and prints no JSON")
        for id, count in import_runs(config.import_, data_home()):
            console().print(f"{count} values in run {id}", soft_wrap=True, markup=False)
        return 0
    if len(config.runs) > 1:
        return compare(config)
    with closing(store.open_run(config.runs[0], data_home())) as run:
        track = Track(run)
        names = chosen(track, config.metric)
        if config.export is not None and config.to is not None:
            count = export(track, config.export, config.to, names)
            console().print(
                f"{count} values of {count_of(len(names), 'metric')} in {config.to}", soft_wrap=True, markup=False
            )
        elif config.html is not None:
            write_page(track, config.html, names)
        elif config.json:
            curves = [track.curve(name) for name in names]
            print_as_json({"run": run.id, "status": run.status, "metrics": {
                curve.name: {"steps": curve.steps, "values": [_json(value) for value in curve.values]} for curve in curves
            }})  # fmt: skip
        elif config.follow:
            follow(track, config.metric)
        else:
            print_curves(track, names)
    return 0


def chosen(track: Track, wanted: Sequence[str]) -> tuple[str, ...]:
    """The metrics to show; ConfigError for one that the run does not have."""
    names = track.names()
    if missing := [name for name in wanted if name not in names]:
        raise ConfigError(
            f"{track.run.id} has no metric {missing[0]!r:.80}: it has {', '.join(names) if names else 'none'}"
        )
    return tuple(wanted) or names


def print_curves(track: Track, names: Sequence[str]) -> None:
    """Print a table of metrics, each with its sparkline."""
    rows = []
    for curve in map(track.curve, names):
        finite = [value for value in curve.values if abs(value) != float("inf") and value == value]
        low, high = (number(min(finite)), number(max(finite))) if finite else ("", "")
        rows.append([curve.name, sparkline(curve.values), number(curve.values[-1]), low, high, f"{curve.steps[-1]:,}"])
    if not rows:
        console().print(f"{track.run.id} has no metrics.", soft_wrap=True, markup=False)
        return
    header = ["metric", "curve", "last", "lowest", "highest", "at step"]
    print_table(f"{track.run.id} ({track.run.status})", header, rows, right=("last", "lowest", "highest", "at step"))


def compare(config: Config) -> int:
    """Print the last value of each metric in each run."""
    found: dict[str, dict[str, str]] = {}
    ids = []
    for ref in config.runs:
        with closing(store.open_run(ref, data_home())) as run:
            track = Track(run)
            ids.append(run.id)
            for name in chosen(track, config.metric):
                curve = track.curve(name)
                found.setdefault(name, {})[run.id] = number(curve.values[-1])
    if config.json:
        print_as_json(found)
    elif not found:
        console().print(f"{' and '.join(dict.fromkeys(ids))} have no metrics.", soft_wrap=True, markup=False)
    else:
        rows = [[name, *(values.get(id, "") for id in ids)] for name, values in sorted(found.items())]
        print_table("last values", ["metric", *ids], rows, right=ids)
    return 0


def follow(track: Track, wanted: Sequence[str]) -> None:
    """Print a line for each new step until the run ends; Ctrl-C stops looking, not the run."""
    shown = -1
    out = console()
    while True:
        status = track.run.status
        last = track.last_step()
        if last is not None and last > shown:
            shown = last
            values = [(curve.name, curve) for curve in map(track.curve, wanted or track.names()) if curve.steps]
            parts = [f"{name} {number(curve.values[-1])} {sparkline(curve.values, width=12)}" for name, curve in values]
            out.print(f"step {last:,}  " + "  ".join(parts), markup=False)
        if status != "running":
            return
        time.sleep(POLL_S)


def write_page(track: Track, target: Path, names: Sequence[str]) -> None:
    """Write the page of curves."""
    from firsthand.show.curves_page import curves_html

    try:
        write_new(target, curves_html(track, names))
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {error.strerror or error}") from None
    console().print(f"curves    {target}", soft_wrap=True, markup=False)


def _json(value: float) -> float | str:
    return value if abs(value) != float("inf") and value == value else str(value)
