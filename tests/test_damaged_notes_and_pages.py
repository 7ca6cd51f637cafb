"""A lock's note and a file of tasks that cannot be read, and the length of a page of a definition that changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from firsthand.errors import DataError
from firsthand.system import lock
from firsthand.tools.mcp.definition_changes import MOST, questions
from firsthand.worlds.tau import tau_tasks


@pytest.mark.parametrize(
    "note", ['{"pid": null, "host": "h", "since": "s"}', "[" * 100_000, "[]", "7", '{"pid": 1}', "{", "\udcff"]
)
def test_a_note_of_another_form_is_no_note(tmp_path: Path, note: str) -> None:
    path = lock._note(tmp_path / "a")
    path.write_bytes(note.encode("utf-8", "surrogateescape"))
    assert lock._noted(tmp_path / "a") is None
    path.write_text('{"pid": 7, "host": "h", "since": "s"}')
    assert lock._noted(tmp_path / "a") == (7, "h", "s")


def test_a_file_of_tau_that_is_no_utf_8_is_a_sentence(tmp_path: Path) -> None:
    (path := tmp_path / "tasks.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(DataError, match=r"tasks\.json cannot be read: "):
        tau_tasks._contents(path)


def test_a_page_of_a_change_has_its_line_ends_counted() -> None:
    shortest = questions({"p": {"was": "", "is": ""}}) or [""]
    assert shortest == [""], "what did not change is not asked about"
    first, second = questions({"p": {"was": "a", "is": "b"}})[0].split("\n")
    wide = MOST - len(second) - 1 - len(first) + 1  # so many letters fill a page with both lines
    assert [len(page) for page in questions({"p": {"was": "a" * wide, "is": "b"}})] == [MOST]
    assert len(questions({"p": {"was": "a" * (wide + 1), "is": "b"}})) == 2
