"""Haystacks for needles: a repeated noise sentence, Paul Graham's essays, or pages about made-up worlds.

The essays are not ours to ship: they are read from a folder of the user's, as RULER's or the original needle test's download
scripts leave them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from firsthand.benchmarks.closed_world import make_world
from firsthand.benchmarks.sources.datasets import contents
from firsthand.errors import DataError
from firsthand.loop.concurrency import derive_seed
from firsthand.system.given_data import held

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
"""RULER's noise (Hsieh et al., 2024), after Mohtashami and Jaggi (2023)."""
ESSAYS_FILE = "PaulGrahamEssays.json"
ESSAYS_FOLDERS = ("paul_graham_essays", "PaulGrahamEssays")
MIN_WORDS = 100
_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[A-Z0-9])")


@dataclass(frozen=True)
class Essays:
    """The essays as one sequence of words, with their origin."""

    words: tuple[str, ...]
    origin: str
    sha256: str

    def first(self, count: int) -> str:
        """Return the first `count` words, starting over after the last one."""
        times, rest = divmod(count, len(self.words))
        return " ".join([*self.words * times, *self.words[:rest]])


def sentences(text: str) -> list[str]:
    """Split a text into sentences: each ends at . ! or ? before a space and a capital or digit."""
    parts, start = [], 0
    for found in _END.finditer(text):
        parts.append(text[start : found.end()].rstrip())
        start = found.end()
    return [*parts, text[start:]] if text[start:] else parts


def essays(data: str, without: str) -> Essays:
    """Read the essays from the folder or file `data`, or `$FIRSTHAND_DATA`; the DataError ends with the advice `without`."""
    root = Path(data or os.environ.get("FIRSTHAND_DATA") or ".").expanduser()
    places = [root] if root.is_file() else [root / part / ESSAYS_FILE for part in ("", "longctx")]
    for path in places:
        if path.is_file():
            return _from_json(path if path == root else held(path, root))
    for folder in (root / part / name for part in ("", "longctx") for name in ESSAYS_FOLDERS):
        if files := sorted(held(path, root) for path in folder.glob("*.txt")):
            return _words(" ".join(_text(path) for path in files), folder, b"\n".join(map(contents, files)))
    raise DataError(
        f"no essays of Paul Graham in {str(root)!r}: give data=FOLDER with {ESSAYS_FILE} (made by "
        "scripts/data/synthetic/json/download_paulgraham_essay.py of github.com/NVIDIA/RULER) or a folder "
        f"{ESSAYS_FOLDERS[0]} of .txt files; {without}"
    )


def world(seed: int) -> Iterator[str]:
    """Yield pages about made-up people, towns and companies without end; no training set contains them."""
    number = 0
    while True:
        pages = [each["page"] for each in make_world(derive_seed("haystack", seed, number)).values()]
        Random(derive_seed("haystack order", seed, number)).shuffle(pages)
        yield from pages
        number += 1


def _from_json(path: Path) -> Essays:
    raw = contents(path)
    try:
        text = json.loads(raw)["text"]
    except (ValueError, RecursionError, KeyError, TypeError):
        raise DataError(f"{path} is not a JSON object with a 'text': make it with RULER's download script") from None
    if not isinstance(text, str):
        raise DataError(f"{path}: 'text' is a {type(text).__name__}, not text: make it with RULER's download script")
    return _words(text, path, raw)


def _text(path: Path) -> str:
    try:
        return contents(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}): fetch it again") from None


def _words(text: str, path: Path, raw: bytes) -> Essays:
    words = tuple(text.split())
    if len(words) < MIN_WORDS:
        raise DataError(f"{path} holds {len(words)} words, and essays were expected: fetch them again")
    return Essays(words, f"essays of Paul Graham, {path.name}, {len(words):,} words", hashlib.sha256(raw).hexdigest())
