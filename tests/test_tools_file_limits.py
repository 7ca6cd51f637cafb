"""Files under a root at the limits of what is listed, shown, searched, edited and written, and the facts of their tools."""

from __future__ import annotations

import difflib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from answering_server import refused
from firsthand.declaration import Declaration
from firsthand.errors import ToolError
from firsthand.system.bounded_matcher import BoundedMatcher
from firsthand.tools import files as module
from firsthand.tools.files import Files, _Search, files
from firsthand.tools.folders.file_change import MAX_COMPARED, MAX_LINE_PAIRS, rehearsed_change
from firsthand.tools.folders.rooted import Rooted


def shown_change(rooted: Rooted, path: str, text: str) -> str:
    return str(rehearsed_change(rooted, path, text.encode()))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    made.mkdir()
    return made


@pytest.fixture
def folder(root: Path) -> Files:
    return Files(Rooted(str(root)))


def test_the_tools_of_a_folder_have_effects_by_what_outlives_the_attempt(root: Path) -> None:
    def facts(**given: Any) -> list[tuple[Any, ...]]:
        return [(each.name, each.effect, each.origin, each.declares) for each in files(str(root), **given)]

    reads = Declaration(paths=("path",), readers="user")
    reading = [(name, "read", "files in root", reads) for name in ("list_files", "read_file", "find_files")]
    writes = Declaration(("path",), paths=("path",), readers="user", clean=True)
    effects = {"write_file": "external", "edit_file": "external", "overwrite_file": "irreversible"}
    assert facts() == facts(scratch=True) == reading
    assert facts(write=True) == [*reading, *((name, effect, None, writes) for name, effect in effects.items())]
    assert facts(write=True, scratch=True) == [*reading, *((name, "write", None, writes) for name in effects)]
    *_, write, edit, over = files(str(root), write=True)
    assert write.declares is not None and edit.declares is not None and over.declares is not None
    assert (write.declares.dry_run, edit.declares.dry_run) == (None, None)
    assert None not in (write.declares.undo, edit.declares.undo, over.declares.undo)
    (root / "a").write_text("one\n")
    assert over.declares.dry_run is not None
    shown = over.declares.dry_run({"path": "a", "text": "two\n"})
    assert "-one" in str(shown) and "+two" in str(shown) and (root / "a").read_text() == "one\n"


def test_a_folder_is_listed_in_order_up_to_a_number_of_entries(
    folder: Files, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert folder.list_files() == "(the folder is empty)"
    for name, size in (("b", 3), ("a\nz", 0), ("é", 12)):
        (root / name).write_bytes(b"x" * size)
    (root / "C").mkdir()
    (root / "l").symlink_to("b")
    os.mkfifo(root / "p")
    lines = ["C/", "a\\nz  0 bytes", "b  3 bytes", "l  (a link)", "p  (a pipe)", "é  12 bytes"]
    assert folder.list_files().split("\n") == lines
    monkeypatch.setattr(module, "MAX_ENTRIES", 6)
    assert folder.list_files(".").split("\n") == lines
    monkeypatch.setattr(module, "MAX_ENTRIES", 4)
    assert folder.list_files("./").split("\n") == [*lines[:4], "[and 2 more]"]
    assert folder.list_files("C") == "(the folder is empty)"
    with folder.rooted.folder(".") as opened:
        assert module._entry(opened, "none") == "none  (gone)"


def test_a_page_holds_the_lines_that_are_wanted_and_fit(
    folder: Files, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CHARS", 110)
    first, fits, over = "a" * 59 + "\n", "b" * 49 + "\n", "b" * 50 + "\n"
    (root / "a").write_text(first + fits)
    assert folder.read_file("a") == first + fits
    (root / "a").write_text(first + over)
    assert folder.read_file("a") == first + "[there is more: go on with start=2]"
    assert folder.read_file("a", 2) == over and folder.read_file("a", 3) == "(the file has 2 lines)"
    (root / "a").write_text("é" * 109 + "\n" + "é" * 110 + "\nend")
    assert folder.read_file("a", 1, 1) == "é" * 109 + "\n[there is more: go on with start=2]"
    assert folder.read_file("a", 2, 1) == "é" * 10 + " [the line goes on]\n[there is more: go on with start=3]"
    assert folder.read_file("a", 2) == "é" * 10 + " [the line goes on]\nend" and folder.read_file("a", 3, 1) == "end"
    monkeypatch.setattr(module, "_PIECE", 16)
    (root / "a").write_text("0123456789abcde\n0123456789abcdef\nx\n")
    assert folder.read_file("a", 1, 1).startswith("0123456789abcde\n[there")
    assert folder.read_file("a", 2, 2) == "0123456789 [the line goes on]\nx\n"
    (root / "a").write_text("0123456789abcdef")
    assert folder.read_file("a") == "0123456789abcdef", "a piece that ends the file has nothing after it"
    (root / "a").write_bytes(b"\xff\n")
    assert folder.read_file("a") == "�\n"
    (root / "a").write_bytes(b"")
    assert folder.read_file("a") == folder.read_file("a", 7) == "(the file is empty)"
    for start, lines in ((0, 1), (1, 0), (-1, 5)):
        said = f"start is {start} and lines is {lines}: give 1 or more"
        assert refused(folder.read_file, "a", start, lines) == said


def test_what_holds_a_zero_byte_among_its_first_is_no_text(folder: Files, root: Path) -> None:
    (root / "a").write_bytes(b"x" * 8191 + b"\0")
    assert refused(folder.read_file, "a") == "'a' is no UTF-8 text (8192 bytes of something else): it is not shown"
    (root / "a").write_bytes(b"y" * 8191 + b"\n\0")
    assert folder.read_file("a") == "y" * 8191 + "\n\0"


def test_files_are_found_by_name_and_text_within_the_folder_asked_for(folder: Files, root: Path) -> None:
    (root / "d" / "e").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / "d" / "link").symlink_to("e")
    for path, text in (
        (".git/x.py", "needle"), ("d/b.py", "no\n\n  STRASSE straße " + "n" * 300 + "\n"), ("d/e/c.txt", "Straße"),
        ("a.py", "strasse\r\nstrasse"), ("z.PY", "\0strasse"), ("d/late", "a\n\0strasse\n"),
    ):  # fmt: skip
        (root / path).write_text(text)
    assert folder.find_files() == "a.py\nd/b.py\nd/e/c.txt\nd/late\nz.PY"
    assert folder.find_files("*.py") == "a.py\nd/b.py" and folder.find_files("*.txt", path="./d/") == "d/e/c.txt"
    assert folder.find_files("**/*.py") == "a.py\nd/b.py" and folder.find_files("**/**/c.*", path="d") == "d/e/c.txt"
    for names in ("d/*.py", "**/d/*.py", "/a.py", "*.py/"):
        told = "and a name holds no /: give the folder as path, and names such as *.py"
        assert refused(folder.find_files, names) == f"names is {names.removeprefix('**/')!r}, {told}"
    assert folder.find_files("[", "x") == "(nothing was found)" == folder.find_files("*.p")
    long = "STRASSE straße " + "n" * 185
    assert folder.find_files(text="StRasse").split("\n") == [
        "a.py:1: strasse", "a.py:2: strasse", f"d/b.py:3: {long}", "d/e/c.txt:1: Straße",
        "d/late:2: " + module.printable("\0strasse"),
    ]  # fmt: skip
    assert folder.find_files("*.txt", "straße", "d/e") == "d/e/c.txt:1: Straße"


def test_a_search_ends_at_each_of_its_limits_and_says_so(
    folder: Files, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        (root / name).write_text("xx\nx\n")
    much = "[stopped when so much was searched: look in a smaller folder, or for something rarer]"
    lines = [f"{name}:{at}: {'x' * (3 - at)}" for name in "abc" for at in (1, 2)]

    def searched(text: str = "x", **limits: Any) -> tuple[list[str], list[str]]:
        search = _Search("*", text, **limits)
        with folder.rooted.folder(".") as opened:
            search.look_into(opened, "", 0)
        return search.found, search.notes

    assert searched() == (lines, []) and searched(files=3) == (lines, [])
    assert searched(files=2) == (lines[:4], [much]) and searched(files=1) == (lines[:2], [much])
    assert searched("", files=2) == (["a", "b"], [much]) and searched("", files=3) == (["a", "b", "c"], [])
    assert searched("", files=0) == ([], [much]) == searched(ends_s=0.0)
    assert searched(size_bytes=4) == (lines[:2], [much]) and searched(size_bytes=3) == (lines[:1], [much])
    assert searched(size_bytes=15) == (lines, []) == searched(size_bytes=16)
    monkeypatch.setattr(module, "MAX_ENTRIES", 3)
    found = "[stopped when 3 were found: look in a smaller folder, or for something rarer]"
    assert searched() == (lines[:3], [found]) and searched("", files=3)[1] == []
    assert folder.find_files(text="x").split("\n") == [*lines[:3], found]
    monkeypatch.setattr(module, "MAX_DEPTH", 1)
    (root / "d" / "e" / "f").mkdir(parents=True)
    for path in ("d/g", "d/e/h", "d/e/f/i"):
        (root / path).write_text("deep")
    assert folder.find_files(text="dee") == "d/g:1: deep"


def test_an_edit_takes_the_text_as_it_is_or_with_the_files_line_ends(folder: Files, root: Path) -> None:
    file = root / "a"

    def edited(before: bytes, old: str, new: str) -> bytes:
        file.write_bytes(before)
        file.chmod(0o640)
        assert folder.edit_file("a", old, new) == "a has been edited" and file.stat().st_mode & 0o777 == 0o640
        return file.read_bytes()

    assert edited(b"a b\n", "a", "c\n") == b"c\n b\n"
    assert edited(b"a\r\nb\r\nc\r\n", "a\nb", "x\ny\r\nz") == b"x\r\ny\r\nz\r\nc\r\n"
    assert edited(b"a\r\nb\r\n", "a", "x\ny") == b"x\r\ny\r\nb\r\n", "the file's line ends are those of new lines too"
    assert edited(b"a\r\nb\r\n", "a\r\nb", "x\ny") == b"x\r\ny\r\n", "found as it is too"
    assert edited(b"a\r\nb\nc\r\n", "a\nb", "x\ny") == b"x\r\ny\nc\r\n", "found with the other line ends"
    assert edited(b"a\r\nb\r\n", "\nb", "x") == b"ax\r\n", "a line end is taken whole"
    assert edited(b"a\r\nb\n", "a", "x\ny") == b"x\ny\r\nb\n", "of two kinds of line ends none is the file's"
    assert edited(b"a", "a", "x\ny") == b"x\ny"
    assert edited(b"a\nb\r\n", "a\nb", "x\ny") == b"x\ny\r\n"
    assert edited("é\n".encode(), "é", "") == b"\n"


def test_an_edit_is_refused_where_it_is_not_clear_or_would_spoil_the_file(
    folder: Files, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = root / "a"

    def told(text: str | bytes, old: str) -> str:
        before = text if isinstance(text, bytes) else text.encode()
        file.write_bytes(before)
        said = refused(folder.edit_file, "a", old, "new")
        assert file.read_bytes() == before
        return said

    read = "read the file, and give text from it"
    assert told("xyx", "x") == "old occurs 2 times in 'a': give more of the text around it"
    overlapping = "old occurs more than once in 'a', overlapping itself: give more of the text around it"
    assert told("aaa", "aa") == told("-aaa-", "aa") == told("\n\n\n", "\n\n") == overlapping
    assert told("xyx", "") == f"old occurs 0 times in 'a': {read}" == told("", "x")
    near = "the nearest line is 'total = 10'; read the file again"
    assert told("a\ntotal = 10\n", "\n \ntotal = 11\na") == f"old occurs 0 times in 'a': {near}"
    line = "k" * 150 + "l" * 50
    assert told(line + "m" * 800, line + "o" * 800) == (
        f"old occurs 0 times in 'a': the nearest line is {line!r}; read the file again"
    )
    assert told("z\n" * 50_000 + "total = 10", "total = 11").endswith(read), "the beginning of the file is looked at"
    assert told(b"a\xff", "a") == "'a' is not UTF-8 text: editing it would spoil it"
    monkeypatch.setattr(module, "MAX_BYTES", 8)
    assert told("é" * 4 + "x", "x") == "'a' has 9 bytes: at most 8 can be edited"
    file.write_text("é" * 4)
    assert refused(folder.edit_file, "a", "éééé", "ééééx") == "the text has 9 bytes: at most 8 can be written"
    assert folder.edit_file("a", "éééé", "x" * 8) == "a has been edited" and file.read_text() == "x" * 8


def test_an_edit_is_not_written_over_what_somebody_wrote_meanwhile(root: Path) -> None:
    class Raced(Rooted):
        @contextmanager
        def open(self, path: str, *, follow: bool = True) -> Iterator[BinaryIO]:
            with super().open(path, follow=follow) as file:
                yield file
            (root / path).write_text("theirs")

    (root / "a").write_text("one")
    said = refused(Files(Raced(str(root))).edit_file, "a", "one", "two")
    assert said == "'a' has been changed by somebody else in the meantime: read it again"
    assert (root / "a").read_text() == "theirs" and [each.name for each in root.iterdir()] == ["a"]


def test_what_is_written_is_counted_in_characters_and_bounded_in_bytes(
    folder: Files, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert folder.write_file("d/a", "é" * 3) == "d/a has been written: 3 characters"
    assert refused(folder.write_file, "d/a", "x") == "'d/a' is there already"
    half = r"the text has '\ud800' at character 2, which is half of a character: write the whole one"
    for write in (folder.write_file, folder.overwrite_file):
        assert refused(write, "half", "é\ud800") == half and not (root / "half").exists()
    assert refused(folder.edit_file, "d/a", "ééé", "é\ud800") == half and (root / "d" / "a").read_text() == "é" * 3
    monkeypatch.setattr(module, "MAX_BYTES", 4)
    assert folder.overwrite_file("b", "éé") == "b has been overwritten: 2 characters"
    for write in (folder.write_file, folder.overwrite_file):
        assert refused(write, "c", "ééx") == "the text has 5 bytes: at most 4 can be written"
    assert sorted(each.name for each in root.iterdir()) == ["b", "d"]


def test_what_cannot_be_opened_is_left_out_of_a_search_and_what_comes_after_it_is_not(
    folder: Files, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("a", "b/in", "c", "d/gone/in", "d/in", "e"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("x")
    entered, opened = module.enter, module.open_file

    def enter(at: int, name: str) -> int:
        if name in ("b", "gone"):
            raise PermissionError(13, "Permission denied")
        return entered(at, name)

    def open_file(at: int, name: str, path: str) -> Any:
        if name == "c":
            raise ToolError(f"{path} is swapped")
        return opened(at, name, path)

    monkeypatch.setattr(module, "enter", enter)
    monkeypatch.setattr(module, "open_file", open_file)
    assert folder.find_files(text="X") == "a:1: x\nd/in:1: x\ne:1: x"
    assert folder.find_files() == "a\nc\nd/in\ne", "of a file that is only named nothing is opened"


def test_what_is_found_is_told_by_the_path_under_which_it_can_be_read(folder: Files, root: Path) -> None:
    (root / "d" / "e").mkdir(parents=True)
    (root / "d" / "e" / "f").write_text("x\n")
    (root / "link").symlink_to("d/e")
    for path, told in (
        (".", "d/e/f"), ("", "d/e/f"), ("./", "d/e/f"), (str(root), "d/e/f"), (f"{root}/", "d/e/f"),
        ("d", "d/e/f"), (".//d/", "d/e/f"), ("./d/./e", "d/e/f"), (f"{root}/d//e/", "d/e/f"), (f"{root}/./d", "d/e/f"),
        ("d/../d", "d/../d/e/f"), ("link", "link/f"), ("./link/", "link/f"),
    ):  # fmt: skip
        found = folder.find_files(path=path)
        assert found.split("\n")[0] == told and folder.read_file(found.split("\n")[0]) == "x\n", path
        assert folder.find_files(text="X", path=path).split("\n")[0] == f"{told}:1: x"
    assert folder.rooted.relative(f"{root}/a/") == "a" and folder.rooted.relative("/".join(["."] * 3)) == ""


@pytest.mark.slow
def test_texts_made_to_slow_the_comparison_are_told_by_their_size(root: Path) -> None:
    rooted = Rooted(root)
    (root / "a").write_text("head\n" + "".join(f"{n % 101}\n" for n in range(40_000)) + "foot\n")
    hostile = "head\n" + "".join(f"{-n % 101 + 200}é\n" for n in range(30_000)) + "foot\n"
    was, now = sum(len(str(n % 101)) + 1 for n in range(40_000)), 30_000 * 6
    assert shown_change(rooted, "a", hostile) == (
        f"from line 2 of a on, 40000 lines ({was:,} bytes) would be replaced by 30000 lines ({now:,} bytes)"
    )
    one = (root / "a").read_text().replace("foot", "x\nfoot")
    assert shown_change(rooted, "a", one) == "--- a\n+++ a\n@@ -40001,2 +40001,3 @@\n 3\n+x\n foot"
    (root / "a").write_text("x\n" * (MAX_COMPARED - 198))
    shown = shown_change(rooted, "a", "y\nx\n" * 99)  # cubic without a bound on pairs: 2.8 s
    assert (
        shown.startswith("[this is not the whole change: 37")
        and "]\n--- a\n+++ a\n@@ -" in shown
        and MAX_LINE_PAIRS == 2_000_000
    )
    assert BoundedMatcher("xxx", "yxyx", 5).get_opcodes() == [("replace", 0, 3, 0, 4)]
    assert shown_change(rooted, "a", "y\n" * 199) == (
        "from line 1 of a on, 3802 lines (7,604 bytes) would be replaced by 199 lines (398 bytes)"
    )


def test_a_shown_change_is_the_unified_difference(root: Path) -> None:
    rooted, draw = Rooted(root), random.Random(1)
    for _ in range(100):
        old, new = ([draw.choice("abcdefgh") for _ in range(draw.randrange(9))] for _ in range(2))
        (root / "a").write_text("".join(f"{line}\n" for line in old))
        shown = shown_change(rooted, "a", "".join(f"{line}\n" for line in new)).split("\n")
        if old == new:
            assert shown == ["nothing would change"]
            continue
        assert [x[1:] for x in shown[2:] if x[0] == "-"] != [x[1:] for x in shown[2:] if x[0] == "+"]
        begin = 0
        while begin < min(len(old), len(new)) and old[begin] == new[begin]:
            begin += 1
        if begin < 2 and old[-1:] != new[-1:]:  # nothing is cut: as difflib writes it
            assert shown == list(difflib.unified_diff(old, new, "a", "a", lineterm="", n=1))
