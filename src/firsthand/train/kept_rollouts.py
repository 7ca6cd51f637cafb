"""Finished rollouts on disk, so that a run that was killed in the middle of a batch makes none of them again.

Each round of rollouts is a file of JSON lines: first the digest of the weights that sample (those in training, and
the base beneath an adapter), then a line for each finished attempt. A file of other weights is not read, a line that was cut
short is dropped. What was under way is made again with the same seeds. Files of rounds that a checkpoint covers are removed.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from firsthand.errors import StoreError, reason_of
from firsthand.system.json_values import values_in
from firsthand.system.new_file import write_new
from firsthand.system.own_file import expect_own_tree, read_own
from firsthand.trace import Trace
from firsthand.train.processes import rank

MAX_BYTES = 1 << 30
_MAX_VALUES = 2_000_000


class KeptRollouts:
    """The finished rollouts of the rounds since the last checkpoint, in a folder."""

    def __init__(self, folder: Path, *, base: str = ""):
        """`base` is the digest of the frozen model beneath an adapter: rollouts over another one are not read."""
        self.folder = folder
        self.base = base
        self._file: Path | None = None

    def begin(self, label: str, number: int, weights: str) -> dict[str, Trace]:
        """Open the file of a round; returns the attempts that it holds by place, those of all processes.

        `label` tells rounds of training from evaluations. StoreError if the folder cannot be written, or holds links or
        what is no rollout.
        """
        name, weights = f"{label}-{number:06d}", f"{weights} {self.base}".strip()
        expect_own_tree(self.folder)
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
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(self._file, flags, 0o666), "ab") as file:
                file.write(line.encode("utf-8", "surrogatepass"))
        except OSError as error:
            raise self._full(error) from None

    def drop_before(self, label: str, number: int) -> None:
        """Remove this process's files of earlier rounds."""
        for file in self.folder.glob(f"{label}-*-{rank()}.jsonl"):
            found = re.fullmatch(rf"{re.escape(label)}-(\d{{6,18}})-\d+\.jsonl", file.name, re.ASCII)
            if found and int(found[1]) < number:
                file.unlink(missing_ok=True)

    def _is_of(self, file: Path, weights: str) -> bool:
        """True if the file is of these weights and ends with a whole line; one that was cut is mended."""
        raw = read_own(file, MAX_BYTES)
        if _header(raw) != weights:
            return False
        if size := len(raw) - raw.rfind(b"\n") - 1:
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "wb") as opened:
                opened.truncate(len(raw) - size)
        return True

    def _read(self, file: Path, weights: str) -> dict[str, Trace]:
        try:
            raw = read_own(file, MAX_BYTES)
            if _header(raw) != weights:
                return {}
            most = max(_MAX_VALUES, len(raw) // 4)  # of tokens and their log-probs, four bytes and more are a value
            if values_in(raw, most) > most:
                raise ValueError
            lines = raw[: raw.rfind(b"\n") + 1].splitlines()[1:]
            traces = [Trace.from_json(json.loads(line.decode("utf-8", "surrogatepass"))) for line in lines]
            return {trace.place: trace for trace in traces}
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            why = f": {reason_of(error)}" if isinstance(error, OSError) else ""
            raise StoreError(f"{file} does not hold rollouts of this run{why}; remove it and resume") from None

    def _full(self, error: OSError) -> StoreError:
        return StoreError(
            f"a finished rollout could not be kept in {self.folder} ({error.strerror or error}): make room and resume"
        )


def _header(raw: bytes) -> str | None:
    try:
        return str(json.loads(raw.partition(b"\n")[0])["weights"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
