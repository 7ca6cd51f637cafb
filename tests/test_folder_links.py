"""Files and links below a folder: patterns with folders, names of any bytes, the index's own files, sizes at the limit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from firsthand.errors import ConfigError, DataError
from firsthand.retrieval.documents.folder_files import (
    FolderFile,
    FolderFilter,
    LeftOut,
    _matches,
    expect_files,
    read_bytes,
    shown,
    walk,
)


def test_a_link_is_noted_where_its_path_passes_the_patterns(tmp_path: Path) -> None:
    root = tmp_path / "r"
    (root / "sub" / "deep").mkdir(parents=True)
    for name in ("sub/x.md", "sub/deep/y.md", "sub/own.md", "sub/z.md", "top.md"):
        (root / name).write_text(name)
    (tmp_path / "r2").mkdir()
    for name, target in (("sub/in.md", "deep/y.md"), ("sub/out.md", "../../r2"), ("sub/lost.md", "none"), ("up.md", "sub"),
                         ("sub/loop.md", "loop.md"), ("here.md", ".")):  # fmt: skip
        (root / name).symlink_to(target)

    def walked(*include: str, exclude: tuple[str, ...] = ()) -> list[str]:
        own = frozenset({root / "sub/own.md"})
        found = list(walk(root, FolderFilter(include, exclude), own))
        assert all(isinstance(each, LeftOut) == (each.name in reasons) for each in found)
        assert all(reasons[each.name] == (each.reason, each.failed) for each in found if isinstance(each, LeftOut))
        return [each.name for each in found]

    reasons = {
        "sub/in.md": ("it is a link to sub/deep/y.md, which is read by that name", False),
        "sub/out.md": ("it is a link that leaves the folder: index its target, or copy it here", True),
        "sub/lost.md": ("it is a link to nothing", True), "sub/loop.md": ("it is a link to nothing", True),
        "up.md": ("it is a link to sub, which is read by that name", False),
        "here.md": ("it is a link to ., which is read by that name", False),
    }  # fmt: skip
    below = ["sub/in.md", "sub/loop.md", "sub/lost.md", "sub/out.md", "sub/x.md", "sub/z.md", "sub/deep/y.md"]
    assert walked() == ["here.md", "top.md", "up.md", *below] and walked("sub/*") == below
    assert walked("*.md", exclude=("sub/*",)) == ["here.md", "top.md", "up.md"] == walked(exclude=("sub/*", "*.txt"))
    assert walked("in.md", "sub/z.*") == ["sub/in.md", "sub/z.md"] and walked("/".join(["sub", "*", "y.md"])) == [
        below[-1]
    ]
    assert walked("*", exclude=("o*", "in.md", "l*.md", "here.md", "up.md", "z.md")) == [
        "top.md",
        "sub/x.md",
        "sub/deep/y.md",
    ]
    link = tmp_path / "folder-of-mine"
    link.symlink_to(root / "sub")
    with pytest.raises(ConfigError) as none:  # the index's file is named through the link
        expect_files([root / "sub"], FolderFilter(("own.md", "lost.md")), [link / "own.md"])
    assert str(none.value) == (
        f"{root / 'sub'}: no file there can be indexed (lost.md: it is a link to nothing): give a folder of documents, or "
        "other patterns"
    )
    with pytest.raises(ConfigError) as two:
        expect_files([tmp_path / "r2", tmp_path / "r2"], FolderFilter())
    place = str(tmp_path / "r2")
    assert (
        str(two.value)
        == f"{place}, {place}: no file there can be indexed: give a folder of documents, or other patterns"
    )
    expect_files([tmp_path / "r2", root], FolderFilter(("top.md",)))


def test_patterns_are_of_the_whole_path_or_without_a_slash_of_the_name_too() -> None:
    for globs, name, expected in (
        (("*.md",), "a/b.md", True), (("b.*",), "a/b.md", True), (("a/*",), "a/c/b.md", True),
        (("a/b.*",), "x/a/b.md", False),
        (("*/b.md",), "b.md", False), (("B.md",), "a/b.md", False), ((), "a", False),
        (("x", "a"), "a", True), (("a",), "a/b", False),
        (("[ab].md",), "q/a.md", True),
    ):  # fmt: skip
        assert _matches(globs, name) is expected, (globs, name)
    both = FolderFilter(("*.md", "c/*"), ("a/*", "*.tmp"))
    assert [both.takes(name) for name in ("b.md", "a/b.md", "c/x.py", "c/x.tmp", "d.py")] == [
        True,
        False,
        True,
        False,
        False,
    ]
    with pytest.raises(ConfigError, match=r"^'/a' is no pattern below the folder"):
        FolderFilter(("*.md", "/a"))


def test_a_name_of_any_bytes_is_shown_and_a_suffix_is_read_in_any_case(tmp_path: Path) -> None:
    raw = os.fsencode(str(tmp_path)) + b"/\xffa.MD"
    Path(os.fsdecode(raw)).write_text("x")
    (tmp_path / "B.Txt ").write_text("y")
    (tmp_path / "LICENSE").write_text("y")
    found = list(walk(tmp_path, FolderFilter()))
    assert [(each.name, isinstance(each, FolderFile) and each.format.name) for each in found] == [
        ("B.Txt ", False), ("LICENSE", "text"), ("\\xffa.MD", "markdown")
    ]  # fmt: skip
    assert isinstance(found[0], LeftOut) and found[0].reason == ".txt : not a kind that is read"
    assert shown("é\udcff") == "é\\xff" and isinstance(found[2], FolderFile) and os.fsencode(found[2].path) == raw


def test_bytes_are_read_up_to_the_most_of_an_ordinary_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"12345")
    assert [read_bytes(file, most)[0] for most in (5, 6)] == [b"12345"] * 2 and read_bytes(file, 5)[1].st_size == 5
    (tmp_path / "link").symlink_to("f")
    os.mkfifo(tmp_path / "pipe")
    for name, most, told in (
        ("f", 4, "it has 5 bytes, and at most 4 are read: divide it, or raise --max-file-bytes"),
        ("link", 9, "it cannot be read: Too many levels of symbolic links"),
        ("none", 9, "it cannot be read: No such file or directory"),
        ("pipe", 9, "it is no ordinary file any more"), (".", 9, "it is no ordinary file any more"),
    ):  # fmt: skip
        with pytest.raises(DataError) as error:
            read_bytes(tmp_path / name, most)
        assert str(error.value) == told
    grows = Path("/proc/self/status")  # of size 0, with bytes in it
    if grows.is_file():
        with pytest.raises(DataError, match=r"^it has 11 bytes, and at most 10 are read"):
            read_bytes(grows, 10)
