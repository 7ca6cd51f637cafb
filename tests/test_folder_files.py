"""Walking a folder: the order, what is left out and why, and files that are no ordinary ones."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, DataError
from firsthand.retrieval.documents.folder_files import (
    FolderFile,
    FolderFilter,
    LeftOut,
    expect_files,
    read_bytes,
    shown,
    walk,
)


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("words")


def refused(act: Any, kind: type[Exception] = DataError) -> str:
    with pytest.raises(kind) as raised:
        act()
    return str(raised.value)


def names_of(root: Path, **filters: Sequence[str]) -> list[str]:
    return [each.name for each in walk(root, FolderFilter(**filters)) if isinstance(each, FolderFile)]


def left_out(root: Path) -> dict[str, tuple[str, bool]]:
    return {each.name: (each.reason, each.failed) for each in walk(root, FolderFilter()) if isinstance(each, LeftOut)}


def test_files_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    put(tmp_path, "b.md", "a/z.md", "a/b/c.md", "a.md", "Z.md")
    assert names_of(tmp_path) == ["Z.md", "a.md", "b.md", "a/z.md", "a/b/c.md"]
    assert names_of(tmp_path) == names_of(tmp_path)


def test_globs_choose_by_path_or_name(tmp_path: Path) -> None:
    put(tmp_path, "a.md", "b.txt", "x/a.md", "x/y/c.md", "x/y/d.txt")
    assert names_of(tmp_path, include=["*.md"]) == ["a.md", "x/a.md", "x/y/c.md"]
    assert names_of(tmp_path, include=["x/*"]) == ["x/a.md", "x/y/c.md", "x/y/d.txt"]
    assert names_of(tmp_path, exclude=["a.md"]) == ["b.txt", "x/y/c.md", "x/y/d.txt"]
    assert names_of(tmp_path, include=["*.md"], exclude=["x/y/*"]) == ["a.md", "x/a.md"]
    with pytest.raises(ConfigError, match="below the folder"):
        FolderFilter(include=["/abs/*"])


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    put(tmp_path, "a.md", ".git/x.md", "node_modules/x.md", "env/x.md", "photo.png", "noending", ".hidden.md")
    (tmp_path / "env/pyvenv.cfg").touch()
    found = left_out(tmp_path)
    assert found[".git/"] == ("hidden folders are left out", False)
    assert found["node_modules/"] == ("generated folders are left out", False)
    assert found["env/"][0] == "Python environments are left out"
    assert found["photo.png"] == (".png: not a kind that is read", False)
    assert found["noending"][0] == "files without an ending: not a kind that is read"
    assert names_of(tmp_path) == [".hidden.md", "a.md"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    put(root, "good.md", "sub/inner.md")
    put(tmp_path, "secret.md", "outside/other.md")
    (root / "leaves.md").symlink_to(tmp_path / "secret.md")
    (root / "away").symlink_to(tmp_path / "outside")
    (root / "inside.md").symlink_to("good.md")
    (root / "nowhere.md").symlink_to("missing")
    (root / "loop").symlink_to(root)
    (root / "self.md").symlink_to("self.md")
    assert names_of(root) == ["good.md", "sub/inner.md"]
    found = left_out(root)
    assert all("leaves the folder" in found[name][0] and found[name][1] for name in ("leaves.md", "away"))
    assert found["inside.md"] == ("it is a link to good.md, which is read by that name", False)
    assert found["nowhere.md"] == found["self.md"] == ("it is a link to nothing", True)
    assert not found["loop"][1]


def test_pipes_sockets_and_devices_fail_and_do_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket.txt")
        found = left_out(tmp_path)
    assert found == {"pipe.txt": ("it is a pipe", True), "socket.txt": ("it is a socket", True)}
    with pytest.raises(DataError, match="no ordinary file"):
        read_bytes(tmp_path / "pipe.txt", 100)
    assert [each for each in walk(Path("/dev/null"), FolderFilter()) if isinstance(each, LeftOut) and each.failed]


@pytest.mark.skipif(os.geteuid() == 0, reason="run by root, who reads every file")
def test_what_cannot_be_accessed_fails(tmp_path: Path) -> None:
    put(tmp_path, "a.md", "closed/b.md")
    (tmp_path / "a.md").chmod(0)
    (tmp_path / "closed").chmod(0)
    try:
        assert left_out(tmp_path)["closed"] == ("the folder cannot be read: Permission denied", True)
        with pytest.raises(DataError, match="Permission denied"):
            read_bytes(tmp_path / "a.md", 100)
    finally:
        (tmp_path / "closed").chmod(0o755)


def test_files_above_the_bound_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(DataError, match="1,073,741,824 bytes, and at most 1,000 are read"):
        read_bytes(tmp_path / "huge.txt", 1000)
    (tmp_path / "exact.txt").write_bytes(b"x" * 1000)
    assert len(read_bytes(tmp_path / "exact.txt", 1000)[0]) == 1000


def test_a_link_that_replaces_a_file_is_not_read(tmp_path: Path) -> None:
    put(tmp_path, "secret.md")
    (tmp_path / "a.md").symlink_to("secret.md")
    with pytest.raises(DataError, match="cannot be read"):
        read_bytes(tmp_path / "a.md", 100)


def test_names_that_are_no_utf_8_are_shown_by_escapes(tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.md")).write_text("words")
    except OSError:
        pytest.skip("this file system takes names in UTF-8 alone")
    assert names_of(tmp_path) == ["caf\\xe9.md"]


def test_names_of_different_bytes_are_never_shown_alike() -> None:
    names = [
        b"a\xff", b"a\\xff", b"a\\\\xff", b"a\n", b"a\\n", b"a\x85", b"a\xc2\x85", b"a\\x85", b"a\xe2\x80\xa8",
        b"a\\u2028", b"a\x7f",
    ]  # fmt: skip
    assert [shown(os.fsdecode(each)) for each in names] == [
        r"a\xff", r"a\\xff", r"a\\\\xff", r"a\n", r"a\\n", r"a\x85", r"a\u0085", r"a\\x85", r"a\u2028",
        r"a\\u2028", r"a\x7f"
    ]  # fmt: skip


def test_two_names_that_differ_in_an_escape_are_both_read(tmp_path: Path) -> None:
    try:
        for name in (b"/plan\xff.md", b"/plan\\xff.md"):
            Path(os.fsdecode(os.fsencode(tmp_path) + name)).write_text("words")
    except OSError:
        pytest.skip("this file system takes names in UTF-8 alone")
    assert sorted(names_of(tmp_path)) == [r"plan\\xff.md", r"plan\xff.md"]


def test_the_files_of_the_index_are_not_documents(tmp_path: Path) -> None:
    put(tmp_path, "a.md", "my.index.md")
    found = list(walk(tmp_path, FolderFilter(), frozenset([tmp_path / "my.index.md"])))
    assert [each.name for each in found] == ["a.md"]


def test_a_single_file_is_its_own_folder(tmp_path: Path) -> None:
    put(tmp_path, "a.md")
    assert names_of(tmp_path / "a.md") == ["a.md"]
    with pytest.raises(ConfigError, match="No such file"):
        names_of(tmp_path / "missing")


def test_a_folder_is_walked_in_order_and_everything_left_out_is_told(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("b.md", "a/c.md", "a/skip.bin", "z.md", ".own", "node_modules/x.md", "own.md"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "in.md").symlink_to(root / "a" / "c.md")
    (root / "out.md").symlink_to(tmp_path)
    (root / "none.md").symlink_to(root / "nothing")
    (root / "none.txt").symlink_to(root / "nothing")
    found = [*walk(root, FolderFilter(include=["*.md", "*.bin"]), frozenset([root / "own.md"]))]
    assert [each.name for each in found if isinstance(each, FolderFile)] == ["b.md", "z.md", "a/c.md"]
    assert [(each.path, each.size_bytes, each.format.name) for each in found if isinstance(each, FolderFile)][2] == (
        root / "a/c.md", 6, "markdown"
    )  # fmt: skip
    assert [each for each in found if isinstance(each, LeftOut)] == [
        LeftOut("in.md", "it is a link to a/c.md, which is read by that name", False),
        LeftOut("node_modules/", "generated folders are left out", False),
        LeftOut("none.md", "it is a link to nothing", True),
        LeftOut("out.md", "it is a link that leaves the folder: index its target, or copy it here", True),
        LeftOut("a/skip.bin", ".bin: not a kind that is read", False),
    ]
    assert [each.name for each in walk(root / "b.md", FolderFilter(include=["x"]))] == ["b.md"]
    assert refused(lambda: [*walk(root / "gone", FolderFilter())], ConfigError) == (
        f"no folder or file '{root / 'gone'}' can be read: No such file or directory"
    )


def test_a_folder_without_a_file_that_is_read_says_what_there_is(tmp_path: Path) -> None:
    for name in ("a.x", "b.x", "c.x", "d.x"):
        (tmp_path / name).touch()
    assert refused(lambda: expect_files([tmp_path], FolderFilter()), ConfigError) == (
        f"{tmp_path}: no file there can be indexed (a.x: .x: not a kind that is read; b.x: .x: not a kind that is read; "
        "c.x: .x: not a kind that is read; ...): give a folder of documents, or other patterns"
    )
    (tmp_path / "d.x").unlink()
    assert "; ..." not in refused(lambda: expect_files([tmp_path], FolderFilter()), ConfigError)
    (tmp_path / "e.md").touch()
    expect_files([tmp_path], FolderFilter())
    refused(lambda: expect_files([tmp_path], FolderFilter(), [tmp_path / "e.md"]), ConfigError)
    data, status = read_bytes(tmp_path / "e.md", 1)
    assert data == b"" and stat.S_ISREG(status.st_mode)
    (tmp_path / "e.md").write_bytes(b"12345")
    assert read_bytes(tmp_path / "e.md", 5)[0] == b"12345"
    assert refused(lambda: read_bytes(tmp_path / "e.md", 4)) == (
        "it has 5 bytes, and at most 4 are read: divide it, or raise --max-file-bytes"
    )
    assert refused(lambda: read_bytes(tmp_path / "none", 4)) == "it cannot be read: No such file or directory"
    assert refused(lambda: read_bytes(tmp_path, 4)) == "it is no ordinary file any more"
    for glob in ("", "/a"):
        refused(lambda g=glob: FolderFilter(exclude=[g]), ConfigError)
    chosen = FolderFilter(include=["notes/*", "*.md"], exclude=["b.md", "x/y.md"])
    names = ("notes/a.txt", "a/notes/b", "q/a.md", "q/b.md", "x/y.md", "q/x/y.md", "c.txt")
    assert [chosen.takes(name) for name in names] == [
        True, False, True, False, False, True, False
    ]  # fmt: skip


def test_a_name_is_one_line_and_letters_of_all_scripts_stay_as_they_are(tmp_path: Path) -> None:
    put(
        tmp_path,
        "a\nfailed: 0.txt",
        "b\x1b[1m\u2028.txt",
        "1.00\u202fPM \u3000.txt",
        "d/\U0001f469\u200d\U0001f680 \u00e9.md",
    )
    assert [each.name for each in walk(tmp_path, FolderFilter(), frozenset())] == [
        "1.00\u202fPM \u3000.txt", r"a\nfailed: 0.txt", r"b\x1b[1m\u2028.txt", "d/\U0001f469\u200d\U0001f680 \u00e9.md",
    ]  # fmt: skip
