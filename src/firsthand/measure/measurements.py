"""Figures measured with one model on one machine: as a table, as JSON, and in our home where a planner finds them.

A result is written whole or not at all and carries its format's version. Left out: measuring (`workloads`, `machine`).
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

from firsthand._moved import old_names
from firsthand.errors import StoreError
from firsthand.measure.machine_speeds import Speeds
from firsthand.message import Json
from firsthand.system.home import data_home

_FORMAT = 1
DECODE = "decode 1"
"""The figure that the memory's speed bounds."""
PREFILL = "prefill 512"
"""The figure that the speed of products bounds."""
EMBEDDED = "embeddings"
EMBEDDED_TOKENS = "embeddings: tokens"
"""An encoder's figures; products bound them too."""


@dataclass(frozen=True)
class Measured:
    """A figure with its values, one a round."""

    name: str
    unit: str
    meaning: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)


@dataclass(frozen=True)
class Result:
    """What `firsthand bench` found."""

    model: str
    """As it was named."""
    path: str
    """Of its file or folder."""
    date: str
    command: str
    machine: Json
    """As `Machine.to_json` gives it."""
    machine_line: str
    speeds: Speeds
    weights: str
    """How the engine kept them, such as float16."""
    weight_bytes: int
    """That one step of decoding reads, or an encoder for the texts it computes together."""
    parameters: int
    """That one step of decoding uses, or an encoder for each token."""
    prefill_gflop: float
    """10^9 operations for each token of a 512-token prompt, or of an encoder's documents."""
    figures: tuple[Measured, ...]
    left_out: tuple[str, ...] = ()
    """Sentences on what could not be measured, and why."""
    quick: bool = field(default=False)
    """Too short a run for its numbers to mean much."""

    def figure(self, name: str) -> Measured | None:
        """The figure of that name."""
        return next((each for each in self.figures if each.name == name), None)

    @property
    def read_gb_s(self) -> float:
        """10^9 bytes of weights a second that decoding one answer read in its best round; 0 if that was not measured."""
        return max(self._values(DECODE), default=0.0) * self.weight_bytes / 1e9

    @property
    def products_gop_s(self) -> float:
        """10^9 operations a second that a prompt took in its best round; 0 if that was not measured."""
        return max(self._values(PREFILL) + self._values(EMBEDDED_TOKENS), default=0.0) * self.prefill_gflop

    @property
    def is_encoder(self) -> bool:
        """Whether the model turns texts into vectors."""
        return self.figure(EMBEDDED) is not None

    @property
    def weights_line(self) -> str:
        """How the weights were kept, for people."""
        when = "for each pack of texts" if self.is_encoder else "in each step of decoding"
        return f"weights: {self.weights}, {self.weight_bytes / 1e6:,.1f} MB read {when}"

    def _values(self, name: str) -> tuple[float, ...]:
        figure = self.figure(name)
        return figure.values if figure else ()

    def to_json(self) -> Json:
        """The result as a JSON object."""
        return {"version": _FORMAT, **asdict(self)}

    @staticmethod
    def from_json(body: Json) -> Result:
        """The result that `to_json` wrote; StoreError if it is none."""
        if not isinstance(body, dict) or body.get("version") != _FORMAT:
            raise StoreError("this is no result of `firsthand bench`, or one of another version: run the command again")
        values = {name: value for name, value in body.items() if name != "version"}
        try:
            figures = tuple(Measured(**{**each, "values": tuple(each["values"])}) for each in values.pop("figures"))
            typed = {"left_out": tuple(values["left_out"]), "speeds": Speeds(**values["speeds"]), "figures": figures}
            made = Result(**{**values, **typed})
            made._check()
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise StoreError(
                f"this is no sound result of `firsthand bench` ({error!r}): run the command again"
            ) from None
        return made

    def _check(self) -> None:
        """Raise ValueError unless what others reckon with and print is of its kind."""
        above_0 = (self.weight_bytes, self.parameters, self.prefill_gflop)
        values = [value for figure in self.figures for value in figure.values]
        texts = [self.model, self.path, self.date, self.weights, *(figure.name for figure in self.figures)]
        if not all(type(each) in (int, float) and math.isfinite(each) for each in (*above_0, *values)):
            raise ValueError("a number is none")
        if min(above_0) <= 0 or not all(figure.values for figure in self.figures):
            raise ValueError("a number is missing or not above 0")
        if not self.speeds.is_sound:
            raise ValueError("a speed is none")
        if not all(isinstance(text, str) for text in texts) or not isinstance(self.machine, dict):
            raise ValueError("a text is none")

    def markdown(self) -> str:
        """The result as a Markdown document."""
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
    """A median and its range, for people: 42.1 (40.0-43.2)."""
    middle = number(statistics.median(values))
    return middle if min(values) == max(values) else f"{middle} ({number(min(values))}-{number(max(values))})"


def number(value: float) -> str:
    """A number in three digits or so: 1,204 or 42.1 or 0.853."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def save_result(result: Result, *, home: Path | None = None) -> Path:
    """Write a result where planners look for it, in place of the one of the same model on this machine."""
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


def saved_results(machine_key: str, *, home: Path | None = None) -> list[Result]:
    """The results that were kept for a machine, the newest first; files that are no results are passed over."""
    found = []
    for path in _folder(machine_key, home).glob("*.json"):
        with suppress(OSError, ValueError, RecursionError, StoreError):
            found.append(Result.from_json(json.loads(path.read_text(encoding="utf-8"))))
    return sorted(found, key=lambda result: result.date, reverse=True)


def _folder(machine_key: str, home: Path | None) -> Path:
    return (home or data_home()) / "bench" / machine_key


__getattr__ = old_names(__name__, {"keep": "save_result", "kept": "saved_results"})
