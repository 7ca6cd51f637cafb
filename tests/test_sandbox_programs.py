"""The programs that run inside the sandbox, each function in this process: repositories and boxes."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.sandbox.programs import box_inside, inside

PROGRAMS = Path(inside.__file__).parent
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the program inside is for Linux")


# -- a repository --


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "testbed"
    (made / "sub").mkdir(parents=True)
    (made / "a.txt").write_text("one\ntwo\nthree\n")
    (made / "sub" / "b.txt").write_text("")
    return made


def problem(work: Any, *args: Any) -> str:
    with pytest.raises(inside.Problem) as error:
        work(*args)
    return str(error.value)


def test_files_of_a_repository_are_viewed_within_their_limits(root: Path) -> None:
    top = str(root)
    assert inside.do_view(top, ".", 1, 9, 99) == "a.txt\nsub/" and inside.do_view(top, "sub", 1, 9, 99) == "b.txt"
    assert inside.do_view(top, "a.txt", 1, 2, 14) == "     1\tone\n     2\ttwo\n[2 more lines]"
    assert inside.do_view(top, "a.txt", 3, 9, 99) == "     3\tthree\n     4\t"
    assert inside.do_view(top, "a.txt", 4, 1, 99) == "     4\t"
    assert inside.do_view(top, "a.txt", 5, 1, 99) == "(there are 4 lines)"
    assert problem(inside.do_view, top, "a.txt", 1, 9, 13) == "'a.txt' has 14 bytes: at most 13 can be read"
    (root / "empty").mkdir()
    assert inside.do_view(top, "empty", 1, 9, 99) == "(the folder is empty)"
    for number in range(501):
        (root / "empty" / f"{number:03}").touch()
    assert inside.do_view(top, "empty", 1, 9, 99).splitlines()[-2:] == ["499", "[and 1 more]"]
    (root / "empty" / "500").unlink()
    assert inside.do_view(top, "empty", 1, 9, 99).splitlines()[-1] == "499"
    (root / "wide").write_text("x" * 2_001 + "\n" + ("y" * 1_000 + "\n") * 20)
    shown = inside.do_view(top, "wide", 1, 99, 99_999).splitlines()
    # 2,009 bytes of the first line and 1,008 of each other one, up to 14,000
    assert shown[0] == f"     1\t{'x' * 2_000}" and len(shown) == 13 and shown[-1] == "[10 more lines]"
    (root / "long").write_text("z" * 20_000)
    assert inside.do_view(top, "long", 1, 9, 99_999) == f"     1\t{'z' * 2_000}", "the first line is always shown"
    (root / "bytes").write_bytes(b"\xff")
    for path, said in (
        ("none", "'none' is no file: view the folder to see what is there"),
        ("bytes", "'bytes' is no UTF-8 text"),
        ("../x", f"'../x' is not inside {top}: give a path relative to it"),
        (f"{top}x", f"'{top}x' is not inside {top}: give a path relative to it"),
    ):
        assert problem(inside.do_view, top, path, 1, 9, 99) == said
    (root / "out").symlink_to("/etc")
    assert "is not inside" in problem(inside.do_view, top, "out/passwd", 1, 9, 99)
    assert inside.within(top, ".") == top and inside.within(top, f"{top}/sub/../a.txt") == f"{top}/a.txt"


def test_a_folder_is_no_file_to_read_or_to_edit(root: Path) -> None:
    top = str(root)
    (root / "to_sub").symlink_to(root / "sub")
    (root / "to_a").symlink_to(root / "a.txt")
    (root / "nowhere").symlink_to(root / "nothing")
    for path in ("sub", ".", "", top, "to_sub", "sub/../sub", "none", "a.txt/x", "nowhere"):
        said = f"{path!r} is no file: view the folder to see what is there"
        assert problem(inside.read_text, top, path, 99) == said == problem(inside.do_edit, top, path, "t", "x", 99)
    assert inside.read_text(top, "to_a", 14) == (f"{top}/a.txt", "one\ntwo\nthree\n"), "a link is followed to its file"
    assert inside.read_text(top, f"{top}/sub/../a.txt", 15) == (f"{top}/a.txt", "one\ntwo\nthree\n")
    assert problem(inside.read_text, top, "to_a", 13) == "'to_a' has 14 bytes: at most 13 can be read"
    (root / "void").touch()
    assert inside.read_text(top, "void", 0) == (f"{top}/void", "")
    (root / "bytes").write_bytes(b"a\xff")
    assert problem(inside.read_text, top, "bytes", 2) == "'bytes' is no UTF-8 text"
    os.mkfifo(root / "pipe")
    assert problem(inside.read_text, top, "pipe", 9) == "'pipe' is no file: view the folder to see what is there"


def test_files_of_a_repository_are_edited_once_and_created_once(root: Path) -> None:
    top = str(root)
    (root / "crlf").write_bytes(b"a\r\nb\r\n")
    assert inside.do_edit(top, "crlf", "a\r\n", "c\r\n", 99) == "crlf has been edited"
    assert (root / "crlf").read_bytes() == b"c\r\nb\r\n"
    more = "give more of the text around it"
    assert problem(inside.do_edit, top, "a.txt", "t", "x", 99) == f"old occurs 2 times in 'a.txt': {more}"
    again = "old occurs 0 times in 'a.txt': read the file again, and give text from it"
    assert (
        problem(inside.do_edit, top, "a.txt", "zzz", "x", 99)
        == again
        == problem(inside.do_edit, top, "a.txt", "", "x", 99)
    )
    assert inside.do_create(top, "new/deep/é.txt", "é\r\n") == "new/deep/é.txt has been written: 3 characters"
    assert (root / "new/deep/é.txt").read_bytes() == b"\xc3\xa9\r\n"
    (root / "dangling").symlink_to(root / "nothing")
    for path in ("a.txt", "sub"):
        assert problem(inside.do_create, top, path, "x") == f"{path!r} is there already: edit it"
    request = {"do": "view", "with": {"root": top, "path": "none", "start": 1, "lines": 1, "most": 1}}
    for body, answer in (
        (request, {"problem": "'none' is no file: view the folder to see what is there"}),
        (request | {"do": "create", "with": {"root": top, "path": "a.txt/x", "text": ""}}, {"problem": "File exists"}),
        (
            request | {"do": "create", "with": {"root": top, "path": "ok", "text": ""}},
            {"result": "ok has been written: 0 characters"},
        ),
    ):
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(PROGRAMS / "inside.py")],
            input=json.dumps(body),
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout) == answer


def test_a_diff_holds_text_and_names_what_a_patch_cannot_express(root: Path, tmp_path: Path) -> None:
    base, top = str(tmp_path / "base"), str(root)
    names = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a"}
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run(
            ["git", *words], cwd=root, check=True, env={**os.environ, **names, "GIT_CONFIG_GLOBAL": os.devnull}
        )
    shutil.move(root / ".git", base)
    subprocess.run(["git", f"--git-dir={base}", "config", "core.bare", "false"], check=True)

    def diff(most_bytes: int = 10_000, most_files: int = 9) -> Any:
        try:
            return inside.do_diff(base, top, most_bytes, most_files)
        finally:
            shutil.rmtree(f"/tmp/diff-{os.getpid()}", ignore_errors=True)

    assert diff() == {"diff": "", "left_out": [], "num_left_out": 0}
    (root / "a.txt").write_text("one\nTWO\nthree\n")
    (root / "sub" / "b.txt").unlink()
    (root / "new [1].txt").write_text("é\n")
    patch = {
        "a.txt": "diff --git a/a.txt b/a.txt\n--- a/a.txt\n+++ b/a.txt\n@@ -1,3 +1,3 @@\n one\n-two\n+TWO\n three\n",
        "new": "diff --git a/new [1].txt b/new [1].txt\nnew file mode 100644\n--- /dev/null\n+++ b/new [1].txt\n"
               "@@ -0,0 +1 @@\n+é\n",
        "b.txt": "diff --git a/sub/b.txt b/sub/b.txt\ndeleted file mode 100644\n",
    }  # fmt: skip

    def plain(text: str) -> list[str]:
        return [line.rstrip() for line in text.splitlines() if not line.startswith("index ")]

    found = diff()
    assert plain(found["diff"]) == plain("".join(patch.values())) and found["num_left_out"] == 0
    size = len(found["diff"].encode())
    assert diff(size)["left_out"] == [] and diff(size - 1)["left_out"] == [["sub/b.txt", "too long"]]
    one, other, last = (f"diff --git{each}".encode() for each in found["diff"].split("diff --git")[1:])
    less = diff(len(one) + len(other) - 1)
    assert less == {"diff": (one + last).decode(), "left_out": [["new [1].txt", "too long"]], "num_left_out": 1}
    assert diff(most_files=3)["left_out"] == [] and diff(most_files=2)["left_out"] == [["sub/b.txt", "too many files"]]
    (root / "bin").write_bytes(b"\0\1")
    (root / "latin").write_bytes(b"caf\xe9\n")
    (root / "link").symlink_to("a.txt")
    (root / "run.sh").write_text("x\n")
    (root / "run.sh").chmod(0o755)
    whole = diff(most_files=4)
    assert whole["left_out"] == [["bin", "binary"], ["latin", "no UTF-8 text"], ["link", "no ordinary file"]]
    assert whole["num_left_out"] == 3 and "new file mode 100755" in whole["diff"]
    assert problem(inside.git, "no-such-command").startswith(
        "git no-such-command: git: 'no-such-command' is not a git command"
    )


# -- a box --


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Gives bytes on standard input."""

    def feed(raw: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(raw)))

    return feed


def unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))


def test_a_box_reads_and_writes_ordinary_files_alone(tmp_path: Path, fed: Any, capsys: Any) -> None:
    file = tmp_path / "deep" / "f"
    fed(b"first and longer")
    assert box_inside.do_write(str(file)) == "" and file.read_bytes() == b"first and longer"
    assert stat.S_IMODE(file.stat().st_mode) & 0o600 == 0o600
    file.chmod(0o640)
    fed(b"x" * (1 << 20) + b"y")
    box_inside.do_write(str(file))
    assert file.read_bytes() == b"x" * (1 << 20) + b"y" and stat.S_IMODE(file.stat().st_mode) == 0o640
    size = (1 << 20) + 1
    head, _, body = box_inside.do_read(str(file), size).partition(":")
    assert head == "whole" and unpacked(body) == file.read_bytes()
    assert box_inside.do_read(str(file), size - 1) == f"long:{size}"
    os.mkfifo(tmp_path / "pipe")
    for path, number in ((tmp_path, 21), (tmp_path / "pipe", 22), (tmp_path / "none", 2)):
        with pytest.raises(OSError) as error:
            box_inside.do_read(str(path), 9)
        assert error.value.errno == number

    def said(do: str, **given: Any) -> str:
        box_inside.main(json.dumps([do, given]))
        return str(capsys.readouterr().out)

    assert said("read", path=str(file), most=1) == f"ok long:{size}"
    assert said("read", path=str(tmp_path / "no"), most=1) == "errno 2"
    assert said("read", path="a\0b", most=1) == "errno 22"
    assert said("seen", folders=[str(tmp_path / "deep")]).startswith('ok {"/')


def test_what_changed_in_a_box_is_kept_and_put_back(tmp_path: Path, fed: Any) -> None:
    top = tmp_path / "box"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "same").write_text("same")
    (top / "a" / "same").chmod(0o644)
    (top / "gone").mkdir()
    (top / "gone" / "f").write_text("x")
    (top / "was_file").write_text("x")
    (top / "was_folder").mkdir()
    (top / "link").symlink_to("a/same")
    (top / "a").chmod(0o750)
    folders = [str(top)]
    before = json.loads(box_inside.do_seen(folders))
    names = ("a", "gone", "link", "was_file", "was_folder", "a/b", "a/same", "gone/f")
    assert list(before) == [f"{top}/{name}" for name in names], "those above before those below"
    sha = "0967115f2813a3541eaef77de9d9d5773f1c0c04314b0bbfe4ff3b3b1c55b5d5"
    assert before[f"{top}/a/same"] == ["file", 0o644, sha]
    assert (before[f"{top}/a"], before[f"{top}/link"]) == (["folder", 0o750, ""], ["link", 0, "a/same"])
    (top / "a" / "b" / "new").write_bytes(b"\xff new")
    (top / "a" / "b" / "new").chmod(0o755)
    shutil.rmtree(top / "gone")
    (top / "was_file").unlink()
    (top / "was_file").mkdir()
    (top / "was_folder").rmdir()
    (top / "was_folder").write_text("now")
    (top / "link").unlink()
    (top / "link").symlink_to("elsewhere")
    (top / "a").chmod(0o700)
    os.mkfifo(top / "pipe")
    after = {path: box_inside.marks(path) for path in box_inside.everything(folders)}
    assert after.pop(f"{top}/pipe") == ["other", 0, ""]

    def snapshot(most: int) -> str:
        fed(json.dumps(before).encode())
        return box_inside.do_snapshot(folders, most)

    whole = snapshot(10_000)
    kept = json.loads(unpacked(whole.removeprefix("whole:")))
    assert kept["gone"] == [f"{top}/gone/f", f"{top}/gone"]
    assert {path: (kind, base64.b64decode(content)) for path, (kind, _, _), content in kept["changed"]} == {
        f"{top}/a": ("folder", b""), f"{top}/a/b/new": ("file", b"\xff new"), f"{top}/was_file": ("folder", b""),
        f"{top}/was_folder": ("file", b"now"), f"{top}/link": ("link", b""),
    }  # fmt: skip
    size = len(whole.removeprefix("whole:"))
    assert snapshot(size) == whole and snapshot(size * 3 // 4 - 3) == "long:" and snapshot(0) == "long:"
    shutil.rmtree(top)
    for name in ("a/b", "gone", "was_folder"):
        (top / name).mkdir(parents=True)
    for name in ("a/same", "gone/f", "was_file", "a/b/new"):
        (top / name).write_text("same" if name == "a/same" else "x")
    (top / "link").symlink_to("leads nowhere")
    fed(whole.removeprefix("whole:").encode())
    assert box_inside.do_restore(folders) == ""
    restored = {path: box_inside.marks(path) for path in box_inside.everything(folders)}
    assert {path: mark for path, mark in restored.items() if path != f"{top}/a/same"} == {
        path: mark for path, mark in after.items() if path != f"{top}/a/same"
    }
    (top / "a" / "big").write_bytes(bytes(16 * 100 + 1))
    assert snapshot(100) == "long:"


def test_a_new_file_of_a_box_is_for_all_to_read_and_for_its_user_to_write(tmp_path: Path, fed: Any) -> None:
    fed(b"x")
    before = os.umask(0)
    try:
        box_inside.do_write(str(tmp_path / "é" / "new"))
    finally:
        os.umask(before)
    assert oct((tmp_path / "é" / "new").stat().st_mode) == oct(stat.S_IFREG | 0o644)


def test_a_folder_that_may_not_be_read_hides_no_other() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        top = Path(folder)
        for name in ("a", "b", "c"):
            (top / name).mkdir()
            (top / name / "f").write_text("")
            (top / name).chmod(0o755)
        top.chmod(0o755)
        (top / "b").chmod(0o700)
        nobody = os.geteuid() == 0
        if nobody:
            os.seteuid(65534)
        else:
            (top / "b").chmod(0)
        try:
            found = [path.removeprefix(f"{folder}/") for path in box_inside.everything([folder])]
        finally:
            if nobody:
                os.seteuid(0)
            (top / "b").chmod(0o700)
        assert found == ["a", "b", "c", "a/f", "c/f"]
        assert [path.removeprefix(f"{folder}/") for path in box_inside.everything([f"{folder}/a", f"{folder}/c"])] == [
            "a/f",
            "c/f",
        ]


def test_what_is_mounted_in_a_folder_is_not_listed_with_it_but_may_be_a_folder_of_its_own() -> None:
    own, names = os.lstat("/").st_dev, sorted(map(str, Path("/").iterdir()))
    kept = [path for path in names if os.lstat(path).st_dev == own or not stat.S_ISDIR(os.lstat(path).st_mode)]
    found = box_inside.everything(["/"])
    assert [next(found) for _ in kept] == kept and "/proc" not in kept
    assert next(box_inside.everything(["/proc"])) == "/proc/1", "each folder is on a device of its own"


def test_a_command_of_a_box_has_its_folder_and_variables(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("")

    def ran(words: list[str], folder: str = str(tmp_path), **environment: str) -> tuple[int, str, str]:
        given = json.dumps(["exec", {"words": words, "folder": folder, "environment": environment}])
        code = f"import sys; sys.path.insert(0, {str(PROGRAMS)!r}); import box_inside; box_inside.main({given!r})"
        done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    assert ran(["sh", "-c", "echo $PWD $A; exit 3"], A="b c") == (3, f"{tmp_path} b c\n", "")
    assert ran(["no-such-program"]) == (127, "", "no-such-program: No such file or directory\n")
    assert ran(["./text"]) == (126, "", "./text: Permission denied\n")
    assert ran(["true"], folder="/none") == (126, "", "/none: No such file or directory\n")
