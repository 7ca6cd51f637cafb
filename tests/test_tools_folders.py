"""Files under a root at the edges: what is refused and how it is told, modes, limits, captures and searches."""

from __future__ import annotations

import os
import re
import stat
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from firsthand.declaration import Declaration
from firsthand.errors import ConfigError, ToolError
from firsthand.tools.files import MAX_BYTES, MAX_ENTRIES, Files, _Search, files
from firsthand.tools.folders.file_change import rehearsed_change
from firsthand.tools.folders.file_undo import MAX_CAPTURED, content_of, file_undo
from firsthand.tools.folders.rooted import Rooted


def shown_change(rooted: Rooted, path: str, text: str) -> str:
    return str(rehearsed_change(rooted, path, text.encode()))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    inside = tmp_path / "root"
    (inside / "sub").mkdir(parents=True)
    (inside / "a").write_text("one\n")
    (inside / "sub" / "b").write_text("two\n")
    (inside / "to_b").symlink_to("sub/b")
    (inside / "to_sub").symlink_to("./sub/")
    (inside / "sub" / "up").symlink_to("../a")
    (inside / "out").symlink_to("../secret")
    (inside / "far").symlink_to("/etc")
    (inside / "gone").symlink_to("nothing")
    os.mkfifo(inside / "pipe")
    (tmp_path / "secret").write_text("secret")
    return inside


def refused(work: Any, *args: Any, **more: Any) -> str:
    with pytest.raises(ToolError) as error:
        work(*args, **more)
    return str(error.value)


def read(rooted: Rooted, path: str) -> str:
    with rooted.open(path) as file:
        return file.read().decode()


def test_paths_lead_to_files_inside_and_each_refusal_says_why(root: Path) -> None:
    rooted = Rooted(root)
    found = {
        "a": "one\n", "./sub//b": "two\n", "sub/../a": "one\n", "to_b": "two\n", "to_sub/b": "two\n", "sub/up": "one\n",
        "to_sub/up": "one\n", f"{root}/sub/b": "two\n", f"{root}/./a": "one\n", "sub/../sub/../a": "one\n",
    }  # fmt: skip
    assert {path: read(rooted, path) for path in found} == found
    circle = "is or holds a link that leads out of the folder, or in a circle"
    said = {
        "x": "'x' is not there: list the folder to see what is",
        "sub/x/y": "'sub/x/y' is not there: list the folder to see what is",
        "gone": "'gone' is not there: list the folder to see what is",
        "a/b": "'a/b' goes through something that is no folder",
        "sub": "'sub' is a folder: only ordinary files can be read",
        ".": "'.' is a folder: only ordinary files can be read",
        "": "'' is a folder: only ordinary files can be read",
        "sub/..": "'sub/..' is a folder: only ordinary files can be read",
        "pipe": "'pipe' is a pipe: only ordinary files can be read",
        "..": "'..' leads out of the folder: give a path inside it",
        "sub/../../secret": "'sub/../../secret' leads out of the folder: give a path inside it",
        "out": "'out' leads out of the folder: give a path inside it",
        "far/passwd": f"'far/passwd' {circle}",
        f"{root}/../secret": f"'{root}/../secret' is not inside the folder: give a path relative to it, such as 'notes.txt'",
        f"{root}/sub/../a": f"'{root}/sub/../a' is not inside the folder: give a path relative to it, such as 'notes.txt'",
        f"{root}x": f"'{root}x' is not inside the folder: give a path relative to it, such as 'notes.txt'",
        "a\0b": "'a\\x00b' is no path",
        "\ud800": "'\\ud800' is no path",
    }
    for path, sentence in said.items():
        assert refused(read, rooted, path).startswith(sentence), path
    assert refused(read, rooted, "n" * 256).endswith(" is too long a name")
    missing = "is not there: list the folder to see what is"
    assert refused(read, rooted, "d/" * 2_048) == f"'{'d/' * 100}' {missing}", "200 characters are shown"
    assert refused(read, rooted, "ab/" + "c" * 197) == f"'ab/{'c' * 197}' {missing}"
    assert refused(read, rooted, "d/" * 2_048 + "d") == f"'{'d/' * 40}' is no path"
    (root / "circle").symlink_to("circle")
    assert refused(read, rooted, "circle") == f"'circle' {circle}"
    with pytest.raises(ConfigError, match="is no folder: give one whose files"):
        Rooted(root / "a")


def test_files_are_written_whole_with_the_mode_that_they_had(root: Path) -> None:
    rooted = Rooted(root)
    umask = os.umask(0o027)
    try:
        rooted.create("new/deep/c", b"c")
        assert (root / "new/deep/c").read_bytes() == b"c" and stat.S_IMODE(
            (root / "new/deep/c").stat().st_mode
        ) == 0o640
        rooted.replace("fresh", b"f")
        assert stat.S_IMODE((root / "fresh").stat().st_mode) == 0o640
        (root / "a").chmod(0o4750)
        before = (root / "a").stat()
        rooted.replace("a", b"longer text", unless_changed_from=before)
        assert (root / "a").read_bytes() == b"longer text" and stat.S_IMODE((root / "a").stat().st_mode) == 0o750
        rooted.replace("sub/b", b"x", mode=0o600)
        assert stat.S_IMODE((root / "sub/b").stat().st_mode) == 0o600
    finally:
        os.umask(umask)
    changed = "'a' has been changed by somebody else in the meantime: read it again"
    assert refused(rooted.replace, "a", b"y", unless_changed_from=before) == changed
    now = (root / "a").stat()
    os.utime(root / "a", ns=(now.st_atime_ns, now.st_mtime_ns + 1))
    assert refused(rooted.replace, "a", b"y", unless_changed_from=now) == changed
    assert refused(rooted.replace, "none", b"y", unless_changed_from=now).startswith("'none' has been changed")
    for path in ("pipe", "sub"):
        assert refused(rooted.replace, path, b"y") == f"'{path}' is no ordinary file: it is not written to"
        assert refused(rooted.remove, path) == f"'{path}' is no ordinary file: it is not removed"
    assert refused(rooted.create, "a", b"y") == "'a' is there already"
    assert refused(rooted.create, ".", b"y") == "'.' is a folder: give the path of a file"
    assert refused(rooted.create, "a/b", b"y") == "'a/b' goes through something that is no folder"
    for path in (".git/x", "sub/.GIT/x", ".gitmodules", "sub/../.Git"):
        for work in (rooted.create, rooted.replace):
            assert (
                refused(work, path, b"y")
                == f"{path!r} belongs to git, or would: it is not written to; give another path"
            )
    rooted.create(".gitignore", b"z")
    assert refused(rooted.remove, ".git/x").endswith(
        "belongs to git, or would: it is not written to; give another path"
    )
    rooted.remove("sub/b")
    assert refused(rooted.remove, "sub/b").endswith("is not there: list the folder to see what is")
    left = sorted(path.name for path in root.rglob("*") if not path.is_symlink())
    assert left == sorted([".gitignore", "a", "c", "deep", "fresh", "new", "pipe", "sub"]), (
        "nothing half written is left"
    )


def test_what_is_half_written_is_removed_and_what_is_written_is_on_the_disk(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooted, synced = Rooted(root), []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
    rooted.create("new", b"12345")
    rooted.replace("a", b"123")
    assert synced == [5, 3], "the whole content, before anybody is told"
    before = sorted(path.name for path in root.iterdir())
    for error in (OSError(28, "No space left on device"), KeyboardInterrupt()):

        def fails(handle: int, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(os, "fsync", fails)
        for work, path in ((rooted.create, "half"), (rooted.replace, "a"), (rooted.replace, "half")):
            with pytest.raises((ToolError, KeyboardInterrupt)) as told:
                work(path, b"lost")
            if isinstance(error, OSError):
                assert str(told.value) == f"'{path}' cannot be opened: No space left on device"
    assert sorted(path.name for path in root.iterdir()) == before and (root / "a").read_bytes() == b"123"
    monkeypatch.undo()

    def refuses(*given: Any, **more: Any) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "replace", refuses)
    assert refused(rooted.replace, "a", b"lost") == "'a' cannot be opened: Operation not permitted"
    assert sorted(path.name for path in root.iterdir()) == before, "nothing lies beside it"


def test_the_state_of_a_file_is_captured_and_put_back(root: Path) -> None:
    rooted = Rooted(root)
    undo = file_undo(rooted)
    (root / "a").chmod(0o640)
    here, none = undo.capture({"path": "a"}), undo.capture({"path": "no/such"})
    assert (here, none) == ({"base64": "b25lCg==", "mode": 0o640}, None)
    rooted.replace("a", b"changed", mode=0o600)
    rooted.create("no/such", b"x")
    undo.restore({"path": "a"}, here)
    undo.restore({"path": "no/such"}, none)
    assert (root / "a").read_bytes() == b"one\n" and stat.S_IMODE((root / "a").stat().st_mode) == 0o640
    assert not (root / "no/such").exists() and undo.capture({"path": "a"}) == here
    for path in ("sub", "a/b", "..", "gone", "to_b"):
        assert refused(content_of, rooted, path)
    (root / "big").write_bytes(bytes(MAX_CAPTURED))
    assert len(content_of(rooted, "big")[0] or b"") == MAX_CAPTURED
    with (root / "big").open("ab") as file:
        file.write(b"x")
    assert refused(content_of, rooted, "big") == f"'big' has more than {MAX_CAPTURED} bytes: it could not be put back"
    assert shown_change(rooted, "a", "one\ntwo\n") == "--- a\n+++ a\n@@ -1 +1,2 @@\n one\n+two"
    assert shown_change(rooted, "new", "x\n") == "--- new\n+++ new\n@@ -0,0 +1 @@\n+x"
    assert shown_change(rooted, "a", "one\n") == "nothing would change"
    (root / "long").write_bytes(b"1\n2\n\xff\n4\n5\n")
    assert shown_change(rooted, "long", "1\n2\n3\n4\n5\n") == (
        "[shown as escapes: byte FF]\n--- long\n+++ long\n@@ -2,3 +2,3 @@\n 2\n-\\xff\n+3\n 4"
    )


@pytest.mark.slow
def test_the_tools_of_a_folder_declare_what_they_read_and_change(root: Path) -> None:
    def facts(**settings: Any) -> list[Any]:
        return [(each.name, each.effect, each.origin, each.declares) for each in files(str(root), **settings)]

    reads, origin = Declaration(paths=("path",), readers="user"), "files in root"
    reading = [(name, "read", origin, reads) for name in ("list_files", "read_file", "find_files")]
    writes = Declaration(("path",), paths=("path",), readers="user", clean=True)
    assert facts() == reading
    for scratch, effects in ((False, ("external", "external", "irreversible")), (True, ("write",) * 3)):
        named = zip(("write_file", "edit_file", "overwrite_file"), effects, strict=True)
        assert facts(write=True, scratch=scratch) == [
            *reading,
            *((name, effect, None, writes) for name, effect in named),
        ]
    made = {each.name: each.declares for each in files(str(root), write=True)}
    over, edit = made["overwrite_file"], made["edit_file"]
    assert over is not None and edit is not None and over.undo is not None and edit.undo is not None
    assert over.dry_run is not None and edit.dry_run is None
    assert over.dry_run({"path": "a", "text": "two\n"}) == "--- a\n+++ a\n@@ -1 +1 @@\n-one\n+two"


def test_edits_and_texts_are_bounded_and_tell_what_to_do(root: Path) -> None:
    tools = Files(Rooted(root))
    (root / "t").write_text("alpha\nbeta beta\n")
    read_again = "the nearest line is 'beta beta'; read the file again"
    for old, said in (
        ("beta", "old occurs 2 times in 't': give more of the text around it"),
        ("\n  \nbeta bet\nx", f"old occurs 0 times in 't': {read_again}"),
        ("zzz", "old occurs 0 times in 't': read the file, and give text from it"),
        ("", "old occurs 0 times in 't': read the file, and give text from it"),
    ):
        assert refused(tools.edit_file, "t", old, "x") == said
    assert tools.edit_file("t", "alpha\nbeta ", "gämma\n") == "t has been edited"
    assert (root / "t").read_text() == "gämma\nbeta\n"
    (root / "w").write_bytes(b"a\r\nb\r\n")
    tools.edit_file("w", "a\nb", "c\nd\r\ne")
    assert (root / "w").read_bytes() == b"c\r\nd\r\ne\r\n"
    assert tools.write_file("n", "gämma") == "n has been written: 5 characters"
    assert tools.overwrite_file("n", "ä") == "n has been overwritten: 1 characters"
    exact = "ä" * (MAX_BYTES // 2)
    tools.overwrite_file("n", exact)
    assert refused(tools.overwrite_file, "n", exact + "x") == (
        f"the text has {MAX_BYTES + 1} bytes: at most {MAX_BYTES} can be written"
    )
    with (root / "n").open("ab") as file:
        file.write(b"x")
    assert (
        refused(tools.edit_file, "n", "x", "y") == f"'n' has {MAX_BYTES + 1} bytes: at most {MAX_BYTES} can be edited"
    )
    (root / "n").write_bytes(b"x" + exact.encode()[2:] + b"z")
    assert tools.edit_file("n", "x", "y") and (root / "n").read_bytes()[:1] == b"y"
    assert refused(tools.read_file, "t", 0) == "start is 0 and lines is 1000: give 1 or more"
    assert refused(tools.read_file, "t", 1, 0) == "start is 1 and lines is 0: give 1 or more"


@pytest.mark.slow
def test_a_folder_is_listed_by_name_and_what_is_left_out_is_counted(root: Path) -> None:
    tools = Files(Rooted(root))
    (root / "odd\n\x1b").write_text("12345")
    assert tools.list_files() == (
        "a  4 bytes\nfar  (a link)\ngone  (a link)\nodd\\n\\x1b  5 bytes\nout  (a link)\npipe  (a pipe)\nsub/\n"
        "to_b  (a link)\nto_sub  (a link)"
    )
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        many, within = Path(folder, "many"), Files(Rooted(folder))
        many.mkdir()
        assert within.list_files("many") == "(the folder is empty)"
        for number in range(10_002):  # far more than are shown, and all of them counted
            os.mknod(many / f"{number:05}")
            if number == MAX_ENTRIES - 1:
                assert within.list_files("many").splitlines()[-1] == "00499  0 bytes"
        assert within.list_files("many").splitlines()[-2:] == ["00499  0 bytes", f"[and {10_002 - MAX_ENTRIES} more]"]
        assert within.find_files("1000?", path="many") == "many/10000\nmany/10001"
        stopped = "look in a smaller folder, or for something rarer]"
        found = within.find_files(path="./many/").splitlines()
        assert found[-2:] == ["many/00499", f"[stopped when {MAX_ENTRIES} were found: {stopped}"]


def test_a_search_names_lines_and_stops_where_it_has_searched_enough(root: Path) -> None:
    tools = Files(Rooted(root))
    (root / ".git").mkdir()
    (root / ".git" / "c").write_text("two")
    (root / "sub" / "c.py").write_text("x\n  STRASSE two \x1b\nTwo\n")
    (root / "bin").write_bytes(b"two\0")
    assert tools.find_files(text="TWO") == "sub/b:1: two\nsub/c.py:2: STRASSE two \\x1b\nsub/c.py:3: Two"
    assert tools.find_files("*.py", "straße", "sub/") == "sub/c.py:2: STRASSE two \\x1b"
    assert tools.find_files("*.txt") == "(nothing was found)" == tools.find_files("b", "zzz")
    assert tools.find_files("[ab]") == "a\nsub/b" and tools.find_files("B") == "(nothing was found)"
    deep = root
    for _ in range(33):
        deep = deep / "d"
        deep.mkdir()
        (deep / "deep").write_text("")
    assert len(tools.find_files("deep").splitlines()) == 32
    stopped = ["[stopped when so much was searched: look in a smaller folder, or for something rarer]"]
    for settings, found in (
        ({"files": 1}, 1),
        ({"files": 2}, 2),
        ({"size_bytes": 12}, 3),
        ({"size_bytes": 9}, 3),
        ({"size_bytes": 8}, 2),
        ({"ends_s": time.monotonic() - 1}, 0),
    ):
        (root / "few").mkdir(exist_ok=True)
        for name in "xyz":
            (root / "few" / name).write_text("two\n")
        (root / "few" / "last").mkdir(exist_ok=True)
        search = _Search("[xyz]", "two", **settings)
        with tools.rooted.folder("few") as folder:
            search.look_into(folder, "", 0)
        assert search.notes == stopped * (found < 3), settings
        assert re.findall(r"^(\w):1: two$", "\n".join(search.found), re.MULTILINE) == [*"xyz"[:found]], settings


def test_forty_links_lead_to_a_file_and_one_more_to_none(root: Path) -> None:
    (root / "l0").write_text("end")
    for number in range(1, 42):
        (root / f"l{number}").symlink_to(f"l{number - 1}")
    rooted = Rooted(root)
    with rooted.open("l40") as file:
        assert file.read() == b"end"
    with (
        pytest.raises(ToolError, match=r"^'l41' is or holds a link that leads out of the folder, or in a circle$"),
        rooted.open("l41"),
    ):
        pass
    with rooted.open("/".join([str(root), "l1"])) as file:
        assert file.read() == b"end"


def test_a_files_state_is_its_bytes_and_the_rights_that_anybody_may_give(root: Path) -> None:
    (root / "s").write_bytes(b"\0\xff")
    (root / "s").chmod(0o4751)
    undo = file_undo(Rooted(root))
    assert undo.capture({"path": "s"}) == {"base64": "AP8=", "mode": 0o751}
    assert undo.capture({"path": "none"}) is None is undo.capture({"path": "no/such"})
    undo.restore({"path": "s"}, {"base64": "QQ==", "mode": 0o640})
    assert (root / "s").read_bytes() == b"A" and (root / "s").stat().st_mode & 0o7777 == 0o640
    undo.restore({"path": "s"}, None)
    assert not (root / "s").exists()
    (root / "empty").touch(0o600)
    empty = undo.capture({"path": "empty"})
    assert empty == {"base64": "", "mode": 0o600}, "an empty file is one"
    (root / "empty").write_text("no longer")
    undo.restore({"path": "empty"}, empty)
    assert (root / "empty").read_bytes() == b"" and (root / "empty").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ToolError, match="is a folder"):
        undo.capture({"path": "."})


def test_a_file_is_put_back_with_the_mode_it_had_even_without_any_right(tmp_path: Path) -> None:
    rooted = Rooted(tmp_path)
    (tmp_path / "a").write_text("old")
    (tmp_path / "a").chmod(0o640)
    for mode, kept in ((None, 0o640), (0o600, 0o600), (None, 0o600), (0, 0)):
        rooted.replace("a", b"new", mode=mode)
        assert (tmp_path / "a").stat().st_mode & 0o7777 == kept
    assert [each.name for each in tmp_path.iterdir()] == ["a"]
