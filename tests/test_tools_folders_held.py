"""A folder's files byte by byte as they were given, links that come between two steps, and that nothing stays open."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from answering_server import refused
from firsthand.errors import ConfigError, ToolError
from firsthand.tools.files import MAX_CHARS, Files, files
from firsthand.tools.folders.file_change import rehearsed_change
from firsthand.tools.folders.file_undo import content_of, file_undo
from firsthand.tools.folders.rooted import Rooted, enter, kind_of, open_file


def shown_change(rooted: Rooted, path: str, text: str) -> str:
    return str(rehearsed_change(rooted, path, text.encode()))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    inside = tmp_path / "root"
    (inside / "sub").mkdir(parents=True)
    (inside / "a").write_text("one\n")
    (inside / "sub" / "b").write_text("two\n")
    (tmp_path / "secret").write_text("secret")
    return inside


def is_open(handle: int) -> bool:
    try:
        os.fstat(handle)
    except OSError:
        return False
    return True


def descriptors() -> set[str]:
    """The descriptors that this process holds, and that of this look at them."""
    return {each.name for each in Path("/proc/self/fd").iterdir()}


TEXTS = {
    "blank lines": "\n\n  indented\n\nend\n\n", "no end": "end", "spaces": "  \t", "a line end": "\n", "nothing": "",
    "dos": "a\r\nb\r\n", "mac": "a\rb", "mark": "\ufeffbom", "zero": "a\0b", "wide": "é🙂\u2028x\n",
}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_what_is_written_is_the_text_to_the_byte(root: Path, text: str) -> None:
    tools = Files(Rooted(root))
    assert tools.write_file("new/n", text) == f"new/n has been written: {len(text)} characters"
    assert (root / "new" / "n").read_bytes() == text.encode()
    assert tools.overwrite_file("a", text) == f"a has been overwritten: {len(text)} characters"
    assert tools.overwrite_file("fresh", text) == f"fresh has been overwritten: {len(text)} characters"
    assert (root / "a").read_bytes() == (root / "fresh").read_bytes() == text.encode()
    (root / "sub" / "b").write_bytes(b" <X> ")
    assert tools.edit_file("sub/b", "<X>", text) == "sub/b has been edited"
    assert (root / "sub" / "b").read_bytes() == b" " + text.encode() + b" "


def test_a_line_that_fills_a_page_is_shown_and_one_that_does_not_fit_is_cut(root: Path) -> None:
    read = Files(Rooted(root)).read_file
    full, cut = "x" * (MAX_CHARS - 1) + "\n", "x" * (MAX_CHARS - 100) + " [the line goes on]\n"
    for text, shown in (
        (full, full), (full[:-1] + "x", full[:-1] + "x"), ("x" + full, cut), (full[:-1] + "xx", cut),
        (full + "y", full + "[there is more: go on with start=2]"), ("\n" + full, "\n[there is more: go on with start=2]"),
        ("y" * 79 + "\n" + "x" + full, "y" * 79 + "\n" + cut), ("y" * 80 + "\n" + "x" + full, None),
    ):  # fmt: skip
        (root / "a").write_text(text)
        assert read("a") == (shown or "y" * 80 + "\n[there is more: go on with start=2]")
    (root / "a").write_text("y\n" + "x" + full + "z")
    assert read("a", 2) == cut + "z" and read("a", 2, 1) == cut + "[there is more: go on with start=3]"
    assert read("a", 3) == "z" and read("a", 4) == "(the file has 3 lines)" and read("a", 3, 1) == "z"


def test_what_an_overwrite_would_change_is_shown_to_whoever_is_asked(root: Path) -> None:
    rooted = Rooted(root)
    (root / "empty").touch()
    (root / "odd").write_bytes(b"\xff\n")
    none = "\\ No newline at end of file"
    ends = f"--- a\n+++ a\n@@ -1 +1 @@\n-one\n+one\n{none}"
    for path, text, shown in (
        ("a", "one\n", "nothing would change"), ("a", "one", ends),
        ("a", "one\r\n", "[every line end would change from LF to CRLF]"),
        ("empty", "", "nothing would change"),
        ("none", "", "a new file without text"), ("no/such", "", "a new file without text"),
        ("odd", "\ufffd\n", "[shown as escapes: byte FF]\n--- odd\n+++ odd\n@@ -1 +1 @@\n-\\xff\n+\ufffd"),
        ("empty", "\n", "--- empty\n+++ empty\n@@ -0,0 +1 @@\n+"),
        ("none", "x", "--- none\n+++ none\n@@ -0,0 +1 @@\n+x\n" + none),
        ("a", "", "--- a\n+++ a\n@@ -1 +0,0 @@\n-one"), ("sub/b", "2\n", "--- sub/b\n+++ sub/b\n@@ -1 +1 @@\n-two\n+2"),
        ("odd", "x\n", "[shown as escapes: byte FF]\n--- odd\n+++ odd\n@@ -1 +1 @@\n-\\xff\n+x"),
        ("a", "one\n\n", "--- a\n+++ a\n@@ -1 +1,2 @@\n one\n+"),
    ):  # fmt: skip
        assert shown_change(rooted, path, text) == shown
    *_, over = files(str(root), write=True)
    assert over.declares is not None and over.declares.dry_run is not None
    assert over.declares.dry_run({"path": "a", "text": "one"}) == ends
    assert refused(shown_change, rooted, "sub", "x") == "'sub' is a folder: only ordinary files can be read"
    assert (
        refused(shown_change, rooted, "../secret", "x") == "'../secret' leads out of the folder: give a path inside it"
    )
    assert sorted(each.name for each in root.iterdir()) == ["a", "empty", "odd", "sub"], "nothing was written"


def test_a_state_is_none_only_where_there_is_no_file(root: Path) -> None:
    rooted = Rooted(root)
    (root / "loose").symlink_to("nowhere")
    assert content_of(rooted, "none") == content_of(rooted, "no/such") == (None, 0)
    assert content_of(rooted, "a") == (b"one\n", (root / "a").stat().st_mode & 0o777)
    for path, said in (
        (
            "loose",
            "'loose' is or goes through a link to 'nowhere', "
            "and nothing is written through links: give the path of the file",
        ),
        ("sub", "'sub' is a folder: only ordinary files can be read"),
        ("a/b", "'a/b' goes through something that is no folder"),
        ("..", "'..' leads out of the folder: give a path inside it"),
    ):
        assert refused(content_of, rooted, path) == said
        assert refused(file_undo(rooted).capture, {"path": path}) == said
    undo = file_undo(rooted)
    assert refused(undo.restore, {"path": "none"}, None) == "'none' is not there: list the folder to see what is"
    undo.restore({"path": "deep/er/new"}, {"base64": "QQ==", "mode": 0o600})
    assert (root / "deep/er/new").read_bytes() == b"A" and (root / "deep/er/new").stat().st_mode & 0o777 == 0o600


class Raced(Rooted):
    """A folder in which something happens between finding a path's place and using it."""

    def __init__(self, root: Path, happens: Callable[[], Any]):
        super().__init__(root)
        self.happens = happens

    @contextmanager
    def place(self, path: str, *, make: bool = False, follow: bool = True) -> Iterator[tuple[int, str]]:
        with super().place(path, make=make, follow=follow) as found:
            self.happens()
            yield found


@pytest.mark.parametrize("target", ["sub/b", "../secret", "sub", "nowhere"])
def test_a_link_that_comes_between_is_neither_followed_nor_removed(root: Path, target: str) -> None:
    def swap() -> None:
        (root / "a").unlink(missing_ok=True)
        (root / "a").symlink_to(target)

    raced = Raced(root, swap)

    def read(path: str) -> None:
        with raced.open(path):
            raise AssertionError("opened")

    def enter_folder(path: str) -> None:
        with raced.folder(path):
            raise AssertionError("opened")

    def told(work: Callable[..., Any], *given: Any) -> str:
        (root / "a").unlink()
        return refused(work, "a", *given)

    assert told(raced.remove) == "'a' is no ordinary file: it is not removed"
    assert told(read) == "'a' is a link: only ordinary files can be read"
    assert told(raced.replace, b"x") == "'a' is no ordinary file: it is not written to"
    assert told(raced.create, b"x") == "'a' is there already"
    assert told(enter_folder) in (
        "'a' goes through something that is no folder", "'a' is a link that was changed while it was looked at",
    )  # fmt: skip
    assert (root / "a").readlink() == Path(target) and sorted(each.name for each in root.iterdir()) == ["a", "sub"]
    assert (root / "sub" / "b").read_text() == "two\n" and (root.parent / "secret").read_text() == "secret"
    with Rooted(root).folder(".") as folder:
        with pytest.raises(ToolError) as raised, open_file(folder, "a", "shown as"):
            pass
        assert str(raised.value) == "'shown as' is a link: only ordinary files can be read"
        with pytest.raises(OSError):
            enter(folder, "a")
        assert kind_of(os.stat("a", dir_fd=folder, follow_symlinks=False)) == "a link"


def test_a_file_that_goes_between_is_told_as_missing_and_one_that_comes_is_kept(root: Path) -> None:
    gone = Raced(root, lambda: (root / "a").unlink(missing_ok=True))
    missing = "'a' is not there: list the folder to see what is"
    assert refused(gone.remove, "a") == missing
    (root / "a").touch()
    assert content_of(gone, "a") == (None, 0)
    (root / "a").touch()
    before = (root / "a").stat()
    assert refused(gone.replace, "a", b"x", unless_changed_from=before) == (
        "'a' has been changed by somebody else in the meantime: read it again"
    )
    gone.replace("a", b"anew")
    assert (root / "a").read_bytes() == b"anew"
    comes = Raced(root, lambda: (root / "c").write_text("theirs"))
    assert refused(comes.create, "c", b"ours") == "'c' is there already" and (root / "c").read_text() == "theirs"
    assert sorted(each.name for each in root.iterdir()) == ["a", "c", "sub"]


def test_a_pipe_that_is_swapped_in_before_the_opening_is_not_read(root: Path) -> None:
    swaps = ["a"]

    def swap(event: str, given: Any) -> None:
        if event == "open" and swaps and given[0] == swaps[0]:
            swaps.clear()
            (root / "a").unlink()
            os.mkfifo(root / "a")

    sys.addaudithook(swap)  # it stays, and does nothing once `swaps` is empty
    opened: list[int] = []
    with Rooted(root).folder(".") as folder, pytest.raises(ToolError) as told, open_file(folder, "a", "x/a") as file:
        opened.append(file.fileno())
    assert str(told.value) == "'x/a' is no ordinary file" and not swaps and not opened


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open descriptors in /proc")
def test_an_error_while_something_is_open_closes_it(root: Path) -> None:
    rooted = Rooted(root)
    before = descriptors()
    held: list[int] = []
    with pytest.raises(KeyError), rooted.folder("sub") as folder:
        held.append(folder)
        assert os.stat("b", dir_fd=folder).st_size == 4
        raise KeyError
    with pytest.raises(KeyError), rooted.open("sub/b") as file:
        held.append(file.fileno())
        raise KeyError
    with pytest.raises(KeyError), rooted.place("sub/b") as (parent, name):
        held.append(parent)
        assert name == "b"
        raise KeyError
    with rooted.folder("sub/..") as folder, rooted.open("a") as file, rooted.place("sub/../sub") as (parent, name):
        held += [folder, file.fileno(), parent]
        assert name == "sub" and all(map(is_open, held[-3:])) and file.read() == b"one\n"
    assert not any(map(is_open, held))
    assert refused(rooted.replace, "sub", b"x") and refused(rooted.create, "a", b"x") and refused(rooted.remove, "x")
    assert refused(rooted.create, ".git/x", b"x") and refused(rooted.create, "sub/../..", b"x")
    rooted.create("n/e/w", b"x")
    rooted.replace("n/e/w", b"y")
    rooted.remove("n/e/w")
    Files(rooted).find_files(text="two")
    assert descriptors() == before


def test_a_root_is_a_folder_that_is_there_by_its_own_name_or_from_home(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root.parent / "link").symlink_to(root)
    monkeypatch.setenv("HOME", str(root.parent))
    monkeypatch.chdir(root)
    assert {Rooted(each).path for each in (root, str(root), "~/root", root.parent / "link", ".", "sub/..")} == {root}
    for missing in ("~/none", str(root / "a"), str(root / "none"), "~/root/a"):
        with pytest.raises(ConfigError) as told:
            Rooted(missing)
        assert str(told.value) == f"{missing!r} is no folder: give one whose files the tools may see"
    rooted = Rooted(root)
    assert [rooted.relative(each) for each in ("", ".", "sub//b/", str(root), f"{root}/sub/./b", "a/../b")] == [
        "", "", "sub/b", "", "sub/b", "a/../b",
    ]  # fmt: skip
    with rooted.place("") as (folder, name):
        assert name == "." and os.stat("sub/b", dir_fd=folder)
    with rooted.place("sub/none") as (folder, name):
        assert name == "none" and os.stat("b", dir_fd=folder)
