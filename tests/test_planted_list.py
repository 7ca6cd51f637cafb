"""The planted changes of `bench/planted.toml` can each be made in the sources as they are."""

from __future__ import annotations

import tomllib
from pathlib import Path

import firsthand

TESTS = Path(__file__).parent
PACKAGE = Path(firsthand.__file__).parent
CHANGES = tomllib.loads((TESTS.parent / "bench" / "planted.toml").read_text(encoding="utf-8"))["change"]


def test_every_planted_change_names_text_that_occurs_once() -> None:
    gone = [
        (each["file"], each["old"])
        for each in CHANGES
        if not (PACKAGE / each["file"]).is_file()
        or (PACKAGE / each["file"]).read_text(encoding="utf-8").count(each["old"]) != 1
    ]
    assert not gone, "mend `file` and `old` in bench/planted.toml, or drop the change"


def test_every_test_that_a_planted_change_names_exists() -> None:
    for name in {test for each in CHANGES for test in each.get("tests", ())}:
        file, *inside = name.split("::")
        text = (TESTS / file).read_text(encoding="utf-8")
        for part in inside:
            assert part.split("[")[0] in text, name
