"""A file that is written has its place, and nothing that a link in a stranger's folder leads to."""

from __future__ import annotations

import ast
import os
import stat
from pathlib import Path

import pytest

import firsthand
from firsthand.system.new_file import write_new

WRITES = {"write_text", "write_bytes"}
OWN = (
    "sandbox/memory_cgroup.py",  # files of the kernel
    "worlds/browsing/devtools.py", "claims/patterns/a2a_across_frameworks.py", "claims/benchmarks/contamination_found.py",
    "train/toy_tasks/toy_models.py",  # new temporary folders
    "reading/entry_documents.py", "reading/tour_progress.py", "hub/content_hash.py", "hub/hf_repository.py",
    "tools/mcp/approved_definitions.py", "benchmarks/sources/datasets.py", "measure/machine_speeds.py",
    "measure/measurements.py",
    "studio/compiled_templates.py", "commands/rag_decide.py", "claims/fact_language.py", "claims/scripted_rag.py",
    "claims/architecture/training_stages.py",  # the user's own home and caches
    "nn/weights.py", "nn/encoder_decoder_weights.py", "nn/calibrated_rounding.py", "train/bpe.py",
    "train/vocabulary.py", "train/adapters/save_adapter.py", "train/recipes/toy_bookkeeper.py", 
    "retrieval/store/ann_file.py",
)  # fmt: skip
"""What writes by name all the same: new folders, and files that stand beside weights of the user's own."""


def test_a_link_is_replaced_and_what_it_leads_to_is_left(tmp_path: Path) -> None:
    mine, page = tmp_path / "mine.txt", tmp_path / "page.html"
    mine.write_text("my notes")
    for target in (mine, tmp_path / "new"):
        page.unlink(missing_ok=True)
        page.symlink_to(target)
        write_new(page, "<p>é")
        assert not page.is_symlink() and page.read_bytes() == "<p>é".encode()
    assert mine.read_text() == "my notes" and not (tmp_path / "new").exists()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["mine.txt", "page.html"]


def test_a_file_is_replaced_whole_with_its_mode_or_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("before")
    path.chmod(0o640)
    write_new(path, b"after")
    assert path.read_bytes() == b"after" and stat.S_IMODE(path.stat().st_mode) == 0o640
    with pytest.raises(UnicodeEncodeError):
        write_new(path, "\ud800")
    write_new(path, "\ud800", errors="backslashreplace")
    assert path.read_text() == "\\ud800"
    umask = os.umask(0o027)
    try:
        write_new(tmp_path / "fresh", "")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "fresh").stat().st_mode) == 0o640
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_new(tmp_path / "folder", "x")
    with pytest.raises(FileNotFoundError):
        write_new(tmp_path / "none" / "a", "x")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a", "folder", "fresh"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device is Linux's")
def test_a_device_is_written_to_and_stays_one(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/dev/null")
    write_new(tmp_path / "out", "x")
    assert (tmp_path / "out").is_symlink()
    with pytest.raises(OSError, match="No space left"):
        write_new(Path("/dev/full"), "x")
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


def test_files_of_folders_that_may_be_a_strangers_are_written_by_it() -> None:
    root = Path(firsthand.__file__).parent
    found = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if any(name in path.read_text("utf-8") for name in WRITES)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in WRITES
    }
    assert found - set(OWN) == set()
    assert set(OWN) - found == set()
