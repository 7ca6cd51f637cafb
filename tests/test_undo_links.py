"""Tests of rollback where a folder has become a link: no other file is written to."""

import asyncio
import base64
from pathlib import Path

import pytest

from firsthand.safety.undo.roll_back import RollbackLog, UndoPoint, roll_back, state_hash
from firsthand.tools.files import files


def changed(root: Path, path: str, text: str) -> UndoPoint:
    """A call that overwrote a file, as `--guard undoable` records it."""
    overwrite = {each.name: each for each in files(str(root), write=True)}["overwrite_file"]
    assert overwrite.declares is not None and overwrite.declares.undo is not None
    undo, arguments = overwrite.declares.undo, {"path": path, "text": text}
    before = undo.capture(arguments)
    asyncio.run(overwrite(arguments))
    return UndoPoint("0:1", 0, "overwrite_file", arguments, before, state_hash(undo.capture(arguments)))


def changed_before_0_20(real: Path, path: str) -> UndoPoint:
    """A call that overwrote the file behind a link, as it was recorded while links were followed."""
    states = [
        {"base64": base64.b64encode(text).decode(), "mode": 0o644, "behind": str(real)}
        for text in (b"old", b"precious")
    ]
    return UndoPoint("0:1", 0, "overwrite_file", {"path": path, "text": "precious"}, states[0], state_hash(states[1]))


def rolled_back(root: Path, point: UndoPoint) -> str:
    tools = {each.name: each for each in files(str(root), write=True)}
    (step,) = roll_back([point], tools, RollbackLog(root.parent / "log"))
    return step.outcome


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("d", "other"):
        (tmp_path / "root" / folder).mkdir(parents=True)
    (tmp_path / "root/other/f").write_text("precious")
    return tmp_path / "root"


@pytest.mark.parametrize("before", ["old", None])
def test_a_folder_that_became_a_link_is_kept(root: Path, before: str | None) -> None:
    if before is not None:
        (root / "d/f").write_text(before)
    point = changed(root, "d/f", "precious")
    (root / "d/f").unlink()
    (root / "d").rmdir()
    (root / "d").symlink_to("other")
    assert rolled_back(root, point) == "kept" and (root / "other/f").read_text() == "precious"


@pytest.mark.parametrize("target", ["d", "other"])
def test_what_was_written_through_a_link_before_0_20_is_kept(root: Path, target: str) -> None:
    for each in ("d/f", "other/f"):
        (root / each).write_text("precious")
    (root / "link").symlink_to(target)
    assert rolled_back(root, changed_before_0_20(Path("d/f"), "link/f")) == "kept"
    assert (root / "d/f").read_text() == (root / "other/f").read_text() == "precious"


def test_a_link_before_two_dots_that_leads_elsewhere_by_now_is_kept(root: Path) -> None:
    for each in ("deep/er", "wide/er"):
        (root / each).mkdir(parents=True)
    (root / "l").mkdir()
    point = changed(root, "l/../x.txt", "precious")
    (root / "x.txt").unlink()
    (root / "l").rmdir()
    (root / "l").symlink_to("wide/er")
    (root / "wide/x.txt").write_text("precious")
    assert rolled_back(root, point) == "kept" and (root / "wide/x.txt").read_text() == "precious"


@pytest.mark.parametrize("path", ["d/f", "./d/../d/f"])
def test_a_file_is_put_back_in_its_place(root: Path, path: str) -> None:
    (root / "d/f").write_text("old")
    point = changed(root, path, "new")
    assert rolled_back(root, point) == "restored" and (root / "d/f").read_text() == "old"
    assert point.before.keys() == {"base64", "mode"}
