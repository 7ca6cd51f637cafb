"""A file that is written has its place, and nothing that a link in a stranger's folder leads to."""

from __future__ import annotations

import ast
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

import firsthand
from firsthand.errors import StoreError
from firsthand.system.new_file import copy_new, replacing, write_new

WRITERS = {
    "write_text", "write_bytes", "save_file", "save_pretrained", "serialize_file", "savez", "savez_compressed",
    "savetxt", "tofile", "savefig", "to_csv", "to_json_file", "to_parquet", "write_index", "copyfile", "copy2", "copytree",
    "extractall",
}  # fmt: skip
"""Calls that write a file of a name that they are given, and follow a link there."""
OF_MODULES = {
    "torch.save",
    "np.save",
    "numpy.save",
    "rust.save",
    "library.save",
    "shutil.copy",
    "shutil.move",
    "pickle.dump",
}
OPENS = re.compile(r"open\(.*['\"][rwabt+]+['\"]")
FRESH = {
    "system/new_file.py": "the file that does it",
    "sandbox/memory_cgroup.py": "files of the kernel",
    "sandbox/bubblewrap.py": "memory", "sandbox/bwrap_command.py": "memory",
    "sandbox/programs/worker.py": "in the sandbox", "sandbox/programs/box_inside.py": "in the sandbox",
    "sandbox/programs/inside.py": "in the sandbox",
    **dict.fromkeys(("worlds/browsing/devtools.py", "worlds/database/mariadb_engine.py", "memories/keeping/cut_file.py",
                     "claims/patterns/a2a_across_frameworks.py", "claims/benchmarks/contamination_found.py",
                     "train/toy_tasks/toy_models.py", "studio/demo_home.py"), "a new temporary folder"),
    **dict.fromkeys(("train/checkpoints.py", "train/sweep.py"), "a folder that was just made"),
    **dict.fromkeys(("reading/entry_documents.py", "reading/tour_progress.py", "hub/content_hash.py", "hub/wheel.py",
                     "hub/hf_repository.py", "tools/mcp/approved_definitions.py", "benchmarks/sources/datasets.py",
                     "measure/machine_speeds.py", "measure/measurements.py", "studio/compiled_templates.py",
                     "commands/rag_decide.py", "claims/fact_language.py", "claims/scripted_rag.py",
                     "claims/architecture/training_stages.py"), "the user's own home and caches"),
}  # fmt: skip
"""Files that write by name all the same, and the reason for which no stranger's link can be there."""


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


def test_a_file_in_a_links_place_is_as_private_as_any_new_one_and_a_long_name_is_no_fault(tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        for name, write in (
            ("a", lambda path: write_new(path, "x")),
            ("b", lambda path: copy_new(tmp_path / "a", path)),
        ):
            (tmp_path / name).symlink_to("nowhere")
            write(tmp_path / name)
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o640
    finally:
        os.umask(umask)
    write_new(tmp_path / ("n" * 255), "x")
    assert (tmp_path / ("n" * 255)).read_text() == "x"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device is Linux's")
def test_a_device_is_written_to_and_stays_one(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/dev/null")
    write_new(tmp_path / "out", "x")
    assert (tmp_path / "out").is_symlink()
    with pytest.raises(OSError, match="No space left"):
        write_new(Path("/dev/full"), "x")
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


def test_a_library_that_writes_by_name_follows_no_link_in_the_place_or_beside_it(tmp_path: Path) -> None:
    mine, place = tmp_path / "mine", tmp_path / "weights"
    mine.write_text("my notes")
    place.symlink_to(mine)
    (tmp_path / "weights.part").symlink_to(mine)
    with replacing(place) as part:
        part.write_text("1 2")
    assert not place.is_symlink() and place.read_text() == "1 2" and mine.read_text() == "my notes"
    place.chmod(0o640)
    (tmp_path / "weights.part").write_text("what a killed process left")
    copy_new(mine, place)
    assert place.read_text() == "my notes" and stat.S_IMODE(place.stat().st_mode) == 0o640
    with pytest.raises(ZeroDivisionError), replacing(place) as part:
        part.write_text("half")
        raise ZeroDivisionError
    assert place.read_text() == "my notes"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["mine", "weights"]


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="the device is there on POSIX")
def test_a_library_writes_to_no_device_and_through_no_link_to_one(tmp_path: Path) -> None:
    with (
        pytest.raises(StoreError, match="/dev/null is no ordinary file: give another"),
        replacing(Path("/dev/null")),
    ):
        pass
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    (tmp_path / "a").symlink_to("/dev/null")
    with replacing(tmp_path / "a") as part:
        part.write_text("1")
    assert not (tmp_path / "a").is_symlink() and (tmp_path / "a").read_text() == "1"


def test_files_of_folders_that_may_be_a_strangers_are_written_through_no_link() -> None:
    root = Path(firsthand.__file__).parent
    found = {path.relative_to(root).as_posix() for path in root.rglob("*.py") if by_name(path.read_text("utf-8"))}
    assert found - FRESH.keys() == set(), "write by system/new_file.py, or say why no link can be there"
    assert FRESH.keys() - found == set()


@pytest.mark.parametrize("line", [
    "path.write_text('a')", "save_file(state, path)", "torch.save(state, path)", "shutil.copyfile(a, b)", "open(path, 'w')",
    "rust.save(str(folder / 'tokenizer.json'))", "np.savez(path, a=a)", "path.open('ab')", "path.open(mode='r+')",
    "write = path.write_bytes", "with replacing(a):\n    pass\nsave_file(state, a)", "with replacing(a) as b: np.save(a, x)",
])  # fmt: skip
def test_a_writer_by_name_is_seen(line: str) -> None:
    assert by_name(line)


@pytest.mark.parametrize("line", [
    "path.open()", "path.open('rb')", "path.open('x')", "open(path, encoding='w')", "run.save(model)",
    "with replacing(a) as b:\n    save_file(state, b)", "with replacing(a) as b, b.open('wb') as c: np.savez(c)",
    "with replacing(a) as b: rust.save(str(b))",
])  # fmt: skip
def test_readers_new_files_and_files_that_replace_are_none(line: str) -> None:
    assert not by_name(line)


def by_name(source: str) -> bool:
    """True if a source writes a file by a name that is not what `replacing` gave."""
    if not any(name in source for name in (*WRITERS, *OF_MODULES)) and not OPENS.search(source):
        return False  # most files, without parsing them
    tree = ast.parse(source)
    inside = {id(node) for each in ast.walk(tree) if isinstance(each, ast.With) for node in _given(each)}
    return any(_is_writer(node) for node in ast.walk(tree) if id(node) not in inside)


def _given(block: ast.With) -> Iterator[ast.AST]:
    """The calls within a `with` that write to a file that `replacing` gave, or to one opened there."""
    names = set[str]()
    for item in block.items:
        called = ast.unparse(item.context_expr.func) if isinstance(item.context_expr, ast.Call) else ""
        if called in ("replacing", *(f"{name}.open" for name in names)) and isinstance(item.optional_vars, ast.Name):
            names.add(item.optional_vars.id)
    for node in ast.walk(block):
        writes = isinstance(node, ast.Call) and _is_writer(node)
        if writes and any(isinstance(each, ast.Name) and each.id in names for each in ast.walk(node)):
            yield from ast.walk(node)


def _is_writer(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr in ("write_text", "write_bytes")
    if not isinstance(node, ast.Call):
        return False
    called = ast.unparse(node.func)
    name = called.rpartition(".")[2]
    if name in ("open", "fdopen") and called != "os.fdopen":
        modes = [*node.args[:2], *(each.value for each in node.keywords if each.arg == "mode")]
        texts = [each.value for each in modes if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        return any(set(text) <= set("rwabt+") and set(text) & set("wa+") for text in texts)
    return name in WRITERS or called in OF_MODULES
