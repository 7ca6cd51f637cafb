"""Results of `firsthand bench` for one model on one machine: as a table, as JSON, and saved for planners.

A result is written whole or not at all and carries its format's version.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from firsthand.errors import StoreError
from firsthand.measure.machine_speeds import Speeds
from firsthand.message import Json
from firsthand.system.home import data_home

_FORMAT = 1
DECODE = "decode 1"
"""The figure bounded by memory bandwidth."""
PREFILL = "prefill 512"
"""The figure bounded by matrix products."""
EMBEDDED = "embeddings"
EMBEDDED_TOKENS = "embeddings: tokens"
"""An encoder's figures, bounded by matrix products too."""


@dataclass(frozen=True)
class Measured:
    """A figure with its values, one per round."""

    name: str
    unit: str
    meaning: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median value."""
        return statistics.median(self.values)


@dataclass(frozen=True)
class BenchResult:
    """The result of one `firsthand bench`."""

    model: str
    """As the user named it."""
    path: str
    """Path of its file or folder."""
    date: str
    command: str
    machine: Json
    """The output of `Machine.to_json`."""
    machine_line: str
    speeds: Speeds
    weights: str
    """Format of the weights, such as float16."""
    weight_bytes: int
    """Bytes of weights read by one decode step, or by an encoder for one pack of texts."""
    parameters: int
    """Parameters used by one decode step, or by an encoder for each token."""
    prefill_gflop: float
    """10^9 operations for each token of a 512-token prompt, or of an encoder's documents."""
    figures: tuple[Measured, ...]
    left_out: tuple[str, ...] = ()
    """Sentences on what could not be measured, and why."""
    quick: bool = field(default=False)
    """True for a run too short for its numbers to mean much."""

    def figure(self, name: str) -> Measured | None:
        """Returns the figure of that name, or None."""
        return next((each for each in self.figures if each.name == name), None)

    @property
    def read_gb_s(self) -> float:
        """10^9 bytes of weights a second read by decoding one answer, in its best round; 0 if not measured."""
        return max(self._values(DECODE), default=0.0) * self.weight_bytes / 1e9

    @property
    def products_gop_s(self) -> float:
        """10^9 operations a second of a prompt, in its best round; 0 if not measured."""
        return max(self._values(PREFILL) + self._values(EMBEDDED_TOKENS), default=0.0) * self.prefill_gflop

    @property
    def is_encoder(self) -> bool:
        """True for a text encoder."""
        return self.figure(EMBEDDED) is not None

    @property
    def weights_line(self) -> str:
        """The weight format, in one sentence."""
        when = "for each pack of texts" if self.is_encoder else "in each step of decoding"
        return f"weights: {self.weights}, {self.weight_bytes / 1e6:,.1f} MB read {when}"

    def _values(self, name: str) -> tuple[float, ...]:
        figure = self.figure(name)
        return figure.values if figure else ()

    def to_json(self) -> Json:
        """Returns the result as a JSON object."""
        return {"version": _FORMAT, **asdict(self)}

    @staticmethod
    def from_json(body: Json) -> BenchResult:
        """Returns the result that `to_json` wrote; StoreError if the object is not one."""
        if not isinstance(body, dict) or body.get("version") != _FORMAT:
            raise StoreError(
                "this is not a result of `firsthand bench` in this version's format: run the command again"
            )
        values = {name: value for name, value in body.items() if name != "version"}
        try:
            figures = tuple(Measured(**{**each, "values": tuple(each["values"])}) for each in values.pop("figures"))
            typed = {"left_out": tuple(values["left_out"]), "speeds": Speeds(**values["speeds"]), "figures": figures}
            made = BenchResult(**{**values, **typed})
            made._check()
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise StoreError(
                f"this result of `firsthand bench` is damaged ({error!r}): run the command again"
            ) from None
        return made

    def _check(self) -> None:
        """Raise ValueError unless all fields that others use have the right types."""
        above_0 = (self.weight_bytes, self.parameters, self.prefill_gflop)
        values = [value for figure in self.figures for value in figure.values]
        texts = [self.model, self.path, self.date, self.weights, *(figure.name for figure in self.figures)]
        if not all(type(each) in (int, float) and math.isfinite(each) for each in (*above_0, *values)):
            raise ValueError("a number is not finite")
        if min(above_0) <= 0 or not all(figure.values for figure in self.figures):
            raise ValueError("a number is missing or not above 0")
        if not self.speeds.is_sound:
            raise ValueError("a speed is not a number above 0")
        if not all(isinstance(text, str) for text in texts) or not isinstance(self.machine, dict):
            raise ValueError("a text is missing")

    def markdown(self) -> str:
        """Returns the result as a Markdown document."""
        rows = [[each.name, f"{spread(each.values)} {each.unit}", each.meaning] for each in self.figures]
        lines = [
            f"# {self.model}",
            "",
            *(["A quick run: its numbers mean little.", ""] if self.quick else []),
            markdown_table(["figure", "median (range)", "what it is"], rows),
            "",
            *([*(f"- left out: {each}" for each in self.left_out), ""] if self.left_out else []),
            f"- command: `{self.command}`",
            f"- date: {self.date}",
            f"- machine: {self.machine_line}",
            f"- the machine {self.speeds.line()}",
            f"- {self.weights_line}",
        ]
        return "\n".join(lines) + "\n"


def spread(values: Sequence[float]) -> str:
    """Returns a median and its range as text: 42.1 (40.0-43.2)."""
    middle = number(statistics.median(values))
    return middle if min(values) == max(values) else f"{middle} ({number(min(values))}-{number(max(values))})"


def number(value: float) -> str:
    """Returns a number with about three digits: 1,204 or 42.1 or 0.853."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def save_result(result: BenchResult, *, home: Path | None = None) -> Path:
    """Save a result for planners, replacing the one of the same model on this machine."""
    name = hashlib.sha256(result.model.encode()).hexdigest()[:12]
    path = _folder(str(result.machine["key"]), home) / f"{name}.json"
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(result.to_json(), indent=2), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise StoreError(f"{path} could not be written: {error.strerror or error}") from None
    return path


def saved_results(machine_key: str, *, home: Path | None = None) -> list[BenchResult]:
    """Returns the saved results of a machine, newest first; invalid files are skipped."""
    found = []
    for path in _folder(machine_key, home).glob("*.json"):
        with suppress(OSError, ValueError, RecursionError, StoreError):
            found.append(BenchResult.from_json(json.loads(path.read_text(encoding="utf-8"))))
    return sorted(found, key=lambda result: result.date, reverse=True)


def _folder(machine_key: str, home: Path | None) -> Path:
    return (home or data_home()) / "bench" / machine_key
