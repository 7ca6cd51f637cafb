"""Plants small wrong changes one at a time, runs the tests that should notice, and prints which changes live.

    python bench/planted.py                        # every change in bench/planted.toml
    python bench/planted.py --room sandbox --room stats
    python bench/planted.py my_changes.toml --jobs 2

A change is a table in TOML: `file` (below src/firsthand), `old` (text that occurs once), `new`, and `tests` (files below
tests/, or pytest node ids). It is made in a copy of the checkout, so that the working tree is never touched. Without `tests`
the whole default suite runs. Tests that fail without any change say nothing, so each set runs once as it is first. The exit
status is 1 if a change lives, and 2 if one cannot be tried: the code it names is gone, or its tests fail anyway.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).parents[1]
Fate = Literal["caught", "lives", "cannot be planted", "its tests fail"]


def main() -> int:
    """Plant each change; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", nargs="?", type=Path, default=Path(__file__).with_suffix(".toml"))
    parser.add_argument("--room", action="append", default=[], help="only changes below this folder; repeatable")
    parser.add_argument("--jobs", type=int, default=1, help="changes tried at a time, each in a copy of its own")
    parser.add_argument(
        "--timeout-s", type=float, default=300.0, help="a test run that takes longer has caught its change"
    )
    args = parser.parse_args()
    changes: list[dict[str, Any]] = tomllib.loads(args.list.read_text(encoding="utf-8"))["change"]
    wanted = [each for each in changes if not args.room or room_of(each) in args.room]
    with ThreadPoolExecutor(args.jobs) as pool:
        sets = list(dict.fromkeys(tuple(each.get("tests", ())) for each in wanted))
        sound = dict(
            zip(sets, pool.map(lambda tests: fate_of(None, tests, args.timeout_s) == "lives", sets), strict=True)
        )
        fates = []

        def tried(change: dict[str, Any]) -> Fate:
            tests = tuple(change.get("tests", ()))
            return fate_of(change, tests, args.timeout_s) if sound[tests] else "its tests fail"

        for change, fate in zip(wanted, pool.map(tried, wanted), strict=True):
            fates.append(fate)
            told = f"{change['file']}: {first_line(change['old'])} -> {first_line(change['new'])}"
            print(f"{fate:<18} {told}", flush=True)
    print()
    for room in sorted({room_of(each) for each in wanted}):
        counts = Counter(fate for change, fate in zip(wanted, fates, strict=True) if room_of(change) == room)
        print(f"{room:<14} {counts['caught']} of {counts.total()} caught")
    return 2 if {"cannot be planted", "its tests fail"} & set(fates) else int("lives" in fates)


def room_of(change: dict[str, Any]) -> str:
    """The room that a change is in: the first folder of its file, or the file of a noun."""
    return Path(change["file"]).parts[0]


def fate_of(change: dict[str, Any] | None, tests: Sequence[str], timeout_s: float) -> Fate:
    """Whether these tests notice the change in a copy of the checkout; without a change it lives if they pass."""
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        copy = Path(folder) / "checkout"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", "__pycache__", ".venv", "site"))
        if change is not None:
            file = copy / "src" / "firsthand" / change["file"]
            text = file.read_text(encoding="utf-8") if file.is_file() else ""
            if text.count(change["old"]) != 1:
                return "cannot be planted"
            file.write_text(text.replace(change["old"], change["new"]), encoding="utf-8")
        return "lives" if passes(copy, tests, timeout_s) else "caught"


def passes(checkout: Path, tests: Sequence[str], timeout_s: float) -> bool:
    """Whether these tests of a checkout pass within the time."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{checkout / 'src'}:{checkout / 'bench'}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    environment.setdefault("FIRSTHAND_DATA", str(ROOT.parent / "shared" / "data"))
    files = [f"tests/{each}" for each in tests]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n0" if files else "-nauto", *files]
    try:
        done = subprocess.run(
            command, cwd=checkout, env=environment, capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def first_line(text: str) -> str:
    """The first line of a text, cut."""
    line = text.strip().split("\n")[0]
    return line if len(line) <= 60 else f"{line[:57]}..."


if __name__ == "__main__":
    sys.exit(main())
