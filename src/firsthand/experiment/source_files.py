"""The user's own Python files that an experiment names, and a digest of each, so that a resumed run is of one version."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from firsthand.errors import ConfigError
from firsthand.runs.run_folder import Run
from firsthand.system.ordinary_file import read_ordinary

_BETWEEN = re.compile(r"[,:;=|()\[\]]")
"""Characters between the names and values of a setting, such as `cot`, `FILE.py:name` and `scorer=FILE.py`."""
JUDGING = "benchmark"
"""The kind of files that decide scores."""


def files_in(texts: Iterable[str]) -> list[Path]:
    """The Python files that are there and that texts name, each once."""
    words = (word.strip() for text in texts for word in _BETWEEN.split(text))
    return [Path(word) for word in dict.fromkeys(words) if word.endswith(".py") and Path(word).is_file()]


def digest_of(path: Path) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a file."""
    return hashlib.sha256(read_ordinary(path)).hexdigest()[:16]


def digests_of(named: Mapping[str, Iterable[str]]) -> dict[str, dict[str, str]]:
    """Kind -> file -> digest, for the files that settings name by kind; kinds without files are left out."""
    found = {kind: {str(path): digest_of(path) for path in files_in(texts)} for kind, texts in named.items()}
    return {kind: files for kind, files in found.items() if files}


def expect_unchanged(run: Run, now: Mapping[str, Mapping[str, str]], on_notice: Callable[[str], None]) -> None:
    """ConfigError if a benchmark's file was changed since the run was made; for other files `on_notice` is given a sentence.

    Runs of earlier versions noted no digests: nothing is compared.
    """
    before = run.about.get("sources")
    for kind, files in (before if isinstance(before, dict) else {}).items():
        for name, digest in files.items() if isinstance(files, dict) else ():
            if now.get(kind, {}).get(name, digest) == digest:
                continue
            if kind == JUDGING:
                raise ConfigError(
                    f"{name} was changed since {run.id} was begun, and its scores would be of two versions: start a new "
                    "run, put the file back, or score what is there again with `firsthand score`"
                )
            on_notice(f"{name} was changed since {run.id} was begun: attempts from here on are of the new {kind}")
