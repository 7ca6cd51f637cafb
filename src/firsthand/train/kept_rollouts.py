"""Finished rollouts on disk, so that a run that was killed in the middle of a batch makes none of them again.

Each round of rollouts is a file of JSON lines: first the digest of the weights that sample, then a line for each finished
attempt. A file of other weights is not read, a line that was cut short is dropped. What was under way is made again with the
same seeds. Files of rounds that a checkpoint covers are removed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from firsthand.errors import StoreError
from firsthand.system.new_file import write_new
from firsthand.trace import Trace
from firsthand.train.processes import rank


class KeptRollouts:
    """The finished rollouts of the rounds since the last checkpoint, in a folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._file: Path | None = None

    def begin(self, label: str, number: int, weights: str) -> dict[str, Trace]:
        """Open the file of a round; returns the attempts that it holds by place, those of all processes.

        `label` tells rounds of training from evaluations. StoreError if the folder cannot be written.
        """
        name = f"{label}-{number:06d}"
        found: dict[str, Trace] = {}
        for file in sorted(self.folder.glob(f"{name}-*.jsonl")):
            found |= self._read(file, weights) if file.is_file() else {}
        self._file = self.folder / f"{name}-{rank()}.jsonl"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self._file.is_file() or not self._is_of(self._file, weights):
                write_new(self._file, json.dumps({"weights": weights}) + "\n")
        except OSError as error:
            raise self._full(error) from None
        return found

    def add(self, trace: Trace) -> None:
        """Keep a finished attempt of the round. It survives `kill -9` once this returns."""
        assert self._file is not None, "no round was begun"
        line = json.dumps(trace.to_json(), ensure_ascii=False, separators=(",", ":")) + "\n"
        try:
            with self._file.open("ab") as file:
                file.write(line.encode("utf-8", "surrogatepass"))
        except OSError as error:
            raise self._full(error) from None

    def drop_before(self, label: str, number: int) -> None:
        """Remove this process's files of earlier rounds."""
        for file in self.folder.glob(f"{label}-*-{rank()}.jsonl"):
            if int(file.name.split("-")[-2]) < number:
                file.unlink(missing_ok=True)

    def _is_of(self, file: Path, weights: str) -> bool:
        """True if the file is of these weights and ends with a whole line; one that was cut is mended."""
        with file.open("r+b") as opened:
            raw = opened.read()
            whole = raw[: raw.rfind(b"\n") + 1]
            if len(whole) < len(raw):
                os.ftruncate(opened.fileno(), len(whole))
        return _header(whole) == weights

    def _read(self, file: Path, weights: str) -> dict[str, Trace]:
        raw = file.read_bytes()
        if _header(raw) != weights:
            return {}
        lines = raw[: raw.rfind(b"\n") + 1].splitlines()[1:]
        traces = [Trace.from_json(json.loads(line.decode("utf-8", "surrogatepass"))) for line in lines]
        return {trace.place: trace for trace in traces}

    def _full(self, error: OSError) -> StoreError:
        return StoreError(
            f"a finished rollout could not be kept in {self.folder} ({error.strerror or error}): make room and resume"
        )


def _header(raw: bytes) -> str | None:
    try:
        return str(json.loads(raw.partition(b"\n")[0])["weights"])
    except (ValueError, KeyError, TypeError):
        return None
