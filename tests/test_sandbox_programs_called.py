"""The processes of a check, and the programs in a box, a repository and a store, each by single calls."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import linecache
import os
import shutil
import socket
import stat
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("the programs are those of Linux", allow_module_level=True)

from firsthand.sandbox.programs import box_inside, checker, inside, keeping, worker, write_rules
from forked_process import forked

# -- the check of an answer --


@pytest.mark.slow
def test_the_tests_process_has_nothing_of_the_answers_and_the_set_up_comes_first(tmp_path: Path) -> None:
    def checked(answer: str, tests: str, setup: str = "") -> tuple[int, str, str]:
        (tmp_path / "answer.py").write_text(answer)
        given = {"tests": tests, "setup": setup, "names": [], "proof": "PROOF"}

        def work() -> None:
            os.chdir(tmp_path)
            worker.execute_cell("import checker", "<n>", {}) if "checker" in sys.modules else None
            checker.main()

        return forked(work, json.dumps(given).encode())

    answer = f"""
import sys, os, ctypes
open({str(tmp_path / "loaded")!r}, "w").close()
def seen(): return [sys.path[0], __name__, sys.modules["__main__"].__name__, ctypes.CDLL(None).prctl(3), sys.stdin.read(),
    os.environ.get("PYTHONSAFEPATH")]
print("noise"); sys.stderr.write("noise")
"""
    setup = f"""
import os, sys, ctypes
assert not os.path.exists({str(tmp_path / "loaded")!r})
mine = [__name__, sys.get_int_max_str_digits(), ctypes.CDLL(None).prctl(3), {str(tmp_path)!r} in sys.path,
    *[os.environ[name] for name in ("PYTHONSAFEPATH", "PYTHONNOUSERSITE", "HOME")]]
"""
    tests = "print(seen()); print(mine)"
    status, said, errors = checked(answer, tests, setup)
    assert (status, errors) == (0, "") and said.splitlines() == [
        str([str(tmp_path), "answer", "answer", 0, "", None]),
        str(["__main__", 0, 0, False, "1", "1", "/nonexistent"]), "PROOF",
    ]  # fmt: skip
    assert checked("big = lambda: 10 ** 5000", "assert big() == 10 ** 5000")[:2] == (0, "PROOF")
    assert "<tests>" not in linecache.cache, "in its own process"
    answer = "from typing import List\ndef f(x: int): return f.__annotations__['x'] is int"
    tests = "def g(x: List[Kind]) -> None: return f(x)\nprint(g(1), h(1))"
    setup = "def h(x: List[Kind]): return sorted(h.__annotations__)"
    assert checked(answer, tests, setup) == (0, "True ['x']\nPROOF", ""), "an annotation may use a name of the answer's"
    assert checked("def f(): raise SystemExit(0)", "f()") == (99, "", "RuntimeError: SystemExit: 0\n")
    assert checked("raise SystemExit(0)", "1") == (99, "", "RuntimeError: SystemExit: 0\n")
    assert checked("import os; os._exit(0)", "1") == (
        99, "", "RuntimeError: the answer did not load: the answer's process ended\n",
    )  # fmt: skip


def test_a_name_is_the_answers_if_tests_use_it_and_nobody_defines_it() -> None:
    for tests, names in (
        ("import os.path\nos.path.join(a)", {"a"}), ("import os.path as p\nos, p", {"os"}),
        ("from x.y import z\nx, y, z", {"x", "y"}),
        ("from m import n as k\nn, k, m", {"n", "m"}), ("f(x=1, *y, **z)", {"f", "y", "z"}), ("a = b = c", {"c"}),
        ("a += 1\na", set()), ("print(len(a), max)", {"a"}), ("[i for i in r if i > k]", {"r", "k"}), ("given, other",
        {"other"}),
        ("def f(p, /, q=d, *r, s: t = 1, **u): return p, q, r, s, u, v", {"d", "t", "v"}), ("lambda a, *b: (a, b, c)",
        {"c"}),
        ("class A(B):\n    x = y\nA", {"B", "y"}), ("with o() as w: w", {"o"}),
        ("try: a\nexcept E as e: e\nexcept F: 1", {"a", "E", "F"}),
        ("for x, (y, *z) in p: x, y, z", {"p"}), ("(w := 1), w", set()), ("global g\ng", {"g"}), ("del d", set()),
        ("a.b.c[d]", {"a", "d"}),
        ("@deco\ndef f(): pass", {"deco"}), ("f'{a!r:{b}}'", {"a", "b"}), ("", set()), ("é(Ü)", {"é", "Ü"}),
    ):  # fmt: skip
        assert checker.free_names(tests, {"given": 1}) == names, tests


def test_an_answer_says_what_became_of_its_arguments_only_if_something_did() -> None:
    ours, theirs = socket.socketpair()
    answer = "def same(a, *, k): return k\ndef grow(a, b): a.append(b)"
    pid = os.fork()
    if pid == 0:
        ours.close()
        checker.serve(theirs, answer)
    theirs.close()
    told = []
    checker.send(ours, {})
    for name, args, kwargs in (
        ("same", [{"list": [1]}], [["k", {"tuple": [2]}]]),
        ("grow", [{"list": [1]}, 2], []),
        ("none", [], []),
    ):
        checker.send(ours, {"name": name, "args": {"tuple": args}, "kwargs": {"dict": kwargs}})
    ours.shutdown(socket.SHUT_WR)
    while (body := checker.receive(ours)) is not None:
        told.append(body)
    ours.close()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0 and told == [
        {}, {"value": {"tuple": [2]}}, {"value": None, "changes": [[0, {"list": [1, 2]}]]},
        {"error": {"class": "AttributeError", "text": "module 'answer' has no attribute 'none'",
                   "args": {"tuple": ["module 'answer' has no attribute 'none'"]}, ".name": "none"}},
    ]  # fmt: skip


def test_messages_between_the_processes_have_their_length_before_them() -> None:
    one, two = socket.socketpair()
    checker.send(one, {"é": [1]})
    assert two.recv(99) == b'\0\0\0\x0f{"\\u00e9": [1]}'
    checker.send(one, {})
    checker.send(one, {"b": None})
    assert [checker.receive(two), checker.receive(two)] == [{}, {"b": None}]
    remote = checker.AnswerProcess(two)
    for error, kind, said in (
        (["ValueError", "no"], ValueError, "no"), (["StopIteration", "x"], RuntimeError, "StopIteration: x"),
        (["StopAsyncIteration", "x"], RuntimeError, "StopAsyncIteration: x"), (["IndexError", "i"], IndexError, "i"),
        (["SystemExit", "1"], RuntimeError, "SystemExit: 1"),
        (["UnicodeDecodeError", "u"], RuntimeError, "UnicodeDecodeError: u"),
        (["UnicodeEncodeError", "u"], RuntimeError, "UnicodeEncodeError: u"),
        (["UnicodeTranslateError", "u"], RuntimeError, "UnicodeTranslateError: u"),
        (["KeyboardInterrupt", ""], RuntimeError, "KeyboardInterrupt: "),
        (["print", "p"], RuntimeError, "print: p"), (["Odd", "x"], RuntimeError, "Odd: x"),
        (["ValueError", 6], ValueError, "6"),
        (["BaseException", "b"], RuntimeError, "BaseException: b"), (["int", "i"], RuntimeError, "int: i"),
    ):  # fmt: skip
        checker.send(one, {"error": {"class": error[0], "text": error[1]}})
        with pytest.raises(Exception) as raised:
            remote.expect("w")
        assert type(raised.value) is kind and str(raised.value) == said, error
    mine, table = [3, 1], {"a": {1}}
    checker.send(one, {"value": {"tuple": [1, 2]}, "changes": [[0, {"list": [9]}], [1, {"dict": [["b", 2]]}]]})
    assert remote.function("f")(mine, table, 4, k=(1,)) == (1, 2) and (mine, table) == ([9], {"b": 2})
    assert checker.receive(one) == {
        "name": "f", "args": {"tuple": [{"list": [3, 1]}, {"dict": [["a", {"set": [1]}]]}, 4]},
        "kwargs": {"dict": [["k", {"tuple": [1]}]]},
    }  # fmt: skip
    one.sendall(b"ab")
    one.close()
    assert checker.exactly(two, 0) == b"" and checker.exactly(two, 3) is None
    with pytest.raises(RuntimeError, match=r"^w: the answer's process ended$"):
        remote.expect("w")
    two.close()
    left, right = socket.socketpair()
    left.sendall(b"unread")
    right.sendall(b"unread")
    right.close()  # with something unread: the other side's read is reset
    assert checker.exactly(left, 7) is None
    left.close()

    class Aborted:
        def recv(self, count: int) -> bytes:
            raise ConnectionAbortedError

    assert checker.exactly(Aborted(), 1) is None  # type: ignore[arg-type]


# -- a box and a repository --


def test_a_box_answers_ordinary_files_alone_and_marks_each_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, pipe = tmp_path / "f", tmp_path / "pipe"
    file.write_bytes(b"x" * ((1 << 20) + 3))
    file.chmod(0o6754)
    os.mkfifo(pipe, 0o600)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder").chmod(0o1751)
    (tmp_path / "link").symlink_to("nowhere/é")
    assert [box_inside.marks(str(path)) for path in (file, pipe, tmp_path / "folder", tmp_path / "link")] == [
        ["file", 0o6754, hashlib.sha256(b"x" * ((1 << 20) + 3)).hexdigest()], ["other", 0, ""], ["folder", 0o1751, ""],
        ["link", 0, "nowhere/é"],
    ]  # fmt: skip
    for path, number in ((tmp_path, 21), (pipe, 22), ("/dev/zero", 22), (file, 0)):
        handle = os.open(path, os.O_RDONLY | box_inside.OPEN)
        try:
            if number:
                with pytest.raises(OSError) as error:
                    box_inside.ordinary(handle)
                assert error.value.errno == number and isinstance(error.value, IsADirectoryError) is (number == 21)
            else:
                box_inside.ordinary(handle)
        finally:
            os.close(handle)
    with pytest.raises(OSError, match="Errno 22"):
        box_inside.do_read("/dev/zero", 9)
    closed = tmp_path / "closed"
    closed.write_text("secret")
    closed.chmod(0o200)
    os.utime(closed, ns=(1, 123_456_789))

    def refused(path: str, *mode: Any, **more: Any) -> Any:
        if str(path) == str(closed) and stat.S_IMODE(Path(path).stat().st_mode) == 0o200:
            raise PermissionError(13, "Permission denied")  # root may read it
        return io.open(path, *mode, **more)  # noqa: UP020

    monkeypatch.setattr(box_inside, "open", refused, raising=False)
    assert box_inside.marks(str(closed)) == ["file", 0o200, "123456789"]
    before = {path: box_inside.marks(path) for path in box_inside.everything([str(tmp_path)]) if path != str(closed)}

    class Given:
        buffer = io.BytesIO(json.dumps({**before, "/gone/a": [], "/gone": []}).encode())

    monkeypatch.setattr(sys, "stdin", Given)
    kept = box_inside.do_snapshot([str(tmp_path)], 9_999)
    assert json.loads(zlib.decompress(base64.b64decode(kept.removeprefix("whole:")))) == {
        "gone": ["/gone/a", "/gone"],
        "changed": [[str(closed), ["file", 0o200, "123456789"], base64.b64encode(b"secret").decode()]],
    }  # fmt: skip
    assert stat.S_IMODE(closed.stat().st_mode) == 0o200, "it is closed again"


def test_a_snapshot_is_put_back_over_whatever_lies_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top, elsewhere = tmp_path / "top", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("kept")
    for name in ("gone", "file", "to_link", "parent"):
        (top / name).mkdir(parents=True)
        (top / name / "x").write_text("old")
    for name in ("folder", "second"):
        (top / name).write_text("a file")
    for name in ("gone_link", "linked"):
        (top / name).symlink_to(elsewhere)
    modes = {"folder": 0o711, "folder/in": 0o700, "linked": 0o755, "parent": 0o500}
    content = {"folder/in/new": b"\xffnew", "file": b"file", "parent/x": b""}
    changed = [
        *([f"{top}/{name}", ["folder", mode, ""], ""] for name, mode in modes.items()),
        *([f"{top}/{name}", ["file", 0o640, "hash"], base64.b64encode(raw).decode()] for name, raw in content.items()),
        [f"{top}/to_link", ["link", 0, "no where/é"], ""], [f"{top}/second", ["link", 0, "file"], ""],
    ]  # fmt: skip
    gone = [f"{top}/gone/x", f"{top}/gone", f"{top}/gone_link", f"{top}/never"]
    raw = zlib.compress(json.dumps({"gone": gone, "changed": changed}).encode())

    class Given:
        buffer = io.BytesIO(base64.b64encode(raw))

    changes: list[str] = []
    chmod = os.chmod

    def kept(path: str, mode: int) -> None:
        changes.append(path.removeprefix(f"{top}/"))
        chmod(path, mode)

    monkeypatch.setattr(os, "chmod", kept)
    monkeypatch.setattr(sys, "stdin", Given)
    assert box_inside.do_restore([str(top)]) == ""
    found = {path.removeprefix(f"{top}/"): box_inside.marks(path)[:2] for path in box_inside.everything([str(top)])}
    assert found == {
        **{name: ["folder", mode] for name, mode in modes.items()}, **{name: ["file", 0o640] for name in content},
        "to_link": ["link", 0], "second": ["link", 0],
    }  # fmt: skip
    assert {name: (top / name).read_bytes() for name in content} == content
    assert changes == [*reversed(content), *reversed(modes)], "what lies in a folder before the folder is closed"
    assert (os.readlink(top / "to_link"), os.readlink(top / "second")) == ("no where/é", "file")  # noqa: PTH115
    assert not (top / "linked").is_symlink() and (elsewhere / "kept").read_text() == "kept", "links are not followed"


def test_a_diff_names_a_hundred_of_what_it_leaves_out_and_counts_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users").write_text("[diff]\n\tcontext = 0\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "users"))
    root, base = tmp_path / "root", tmp_path / "base"
    root.mkdir()
    (root / "first").write_text("a\nb\nc\n")
    (root / "turns").write_text("x")
    (root / "moved").write_text("same\n")
    who = {f"GIT_{role}_{what}": "a" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    script = "git init -q && git add . && git commit -qm 1 && mv .git ../base"
    script += " && git --git-dir=../base config core.bare false"
    environment = {**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull}
    subprocess.run(["sh", "-c", script], cwd=root, check=True, env=environment)

    def diff(most_files: int) -> Any:
        try:
            return inside.do_diff(str(base), str(root), 10_000, most_files)
        finally:
            shutil.rmtree(f"/tmp/diff-{os.getpid()}", ignore_errors=True)

    long = f"{'d' * 120}/{'é' * 100}"
    (root / long).parent.mkdir()
    for name in (long, *(f"n{number:03}" for number in range(99))):
        (root / name).write_text("y")
    (root / "turns").unlink()
    (root / "turns").symlink_to("first")
    many = diff(0)
    assert many["diff"] == "" and (len(many["left_out"]), many["num_left_out"]) == (100, 101)
    assert many["left_out"][:2] == [[long[:200], "too many files"], ["n000", "too many files"]]
    assert many["left_out"][99] == ["n098", "too many files"]
    for number in range(99):
        (root / f"n{number:03}").unlink()
    (root / long).unlink()
    (root / "first").chmod(0o755)
    one = diff(1)
    assert one == {
        "diff": "diff --git a/first b/first\nold mode 100644\nnew mode 100755\n", "left_out": [["turns", "too many files"]],
        "num_left_out": 1,
    }  # fmt: skip
    assert diff(2)["left_out"] == [["turns", "no ordinary file"]]
    (root / "first").write_text("a\nB\nc\n")
    (root / "moved").rename(root / "moved2")
    (root / "p*").write_text("1\n")
    (root / "pq").write_text("2\n")
    lines = [line for line in diff(9)["diff"].splitlines() if not line.startswith("index ")]
    added = ["new file mode 100644", "--- /dev/null"]
    assert lines == [
        "diff --git a/first b/first", "old mode 100644", "new mode 100755", "--- a/first", "+++ b/first", "@@ -1,3 +1,3 @@",
        " a", "-b", "+B", " c", "diff --git a/moved b/moved", "deleted file mode 100644", "--- a/moved", "+++ /dev/null",
        "@@ -1 +0,0 @@", "-same", "diff --git a/moved2 b/moved2", *added, "+++ b/moved2", "@@ -0,0 +1 @@", "+same",
        "diff --git a/p* b/p*", *added, "+++ b/p*", "@@ -0,0 +1 @@", "+1",
        "diff --git a/pq b/pq", *added, "+++ b/pq", "@@ -0,0 +1 @@", "+2",
    ], "each name stands for itself, and the user's settings for nothing"  # fmt: skip
    sha = hashlib.sha1(b"blob 2\0xy").hexdigest()
    assert inside.git("hash-object", "--stdin", data=b"xy") == f"{sha}\n".encode()
    with pytest.raises(inside.Problem) as told:
        inside.git("cat-file", "blob", "w" * 400)
    head, _, words = str(told.value).partition(": ")
    assert head == f"git {'w' * 40}" and words == "w" * 299 + "\n", "the last of what it says"


def test_a_request_to_the_program_in_a_repository_is_answered_once(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(do: str, **given: Any) -> Any:
        monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"do": do, "with": given})))
        inside.main()
        return json.loads(capsys.readouterr().out)

    root = os.path.realpath(tmp_path)
    assert asked("create", root=root, path="a/é", text="ü\n") == {"result": "a/é has been written: 2 characters"}
    assert asked("create", root=root, path="a/é", text="") == {"problem": "'a/é' is there already: edit it"}
    assert asked("create", root=root, path="a/é/x", text="") == {"problem": "File exists"}
    assert asked("view", root=root, path="a", start=1, lines=1, most=1) == {"result": "é"}
    with pytest.raises(KeyError):
        asked("none")


def test_parts_of_a_store_are_shown_though_something_else_lies_in_their_place(tmp_path: Path) -> None:
    store, within, gone = tmp_path / "store", tmp_path / "python", tmp_path / "gone"
    for folder in (store, within, gone):
        folder.mkdir()
    bound: list[tuple[str, str, str, int]] = []

    def mount(source: str, target: str, kind: str, flags: int) -> None:
        if target == "/kept":  # what lay within is covered now
            within.rename(tmp_path / "other")
            gone.rmdir()
            gone.write_text("a file of an earlier run")
        bound.append(
            (*(str(Path(each).readlink()) if "/fd/" in each else each for each in (source, target)), kind, flags)
        )

    before = len(list(Path("/proc/self/fd").iterdir()))
    had = Path("/tmp/shm").exists()
    keeping.show(mount, str(store), ["/kept"], [str(within), str(gone)])
    if not had:
        Path("/tmp/shm").rmdir()
    assert bound == [
        (f"{store}/0", "/kept", "none", 4096), (str(tmp_path / "other"), str(within), "none", 4096),
        (f"{gone} (deleted)", str(gone), "none", 4096),
    ]  # fmt: skip
    assert within.is_dir() and len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_rule_that_the_kernel_refuses_says_which_call_it_was() -> None:
    with pytest.raises(OSError, match=r"^\[Errno \d+\] landlock call 446: "):
        write_rules._checked(446, -1, 0)
    if write_rules.supported():
        ruleset = write_rules._checked(444, b"\x02\x20" + bytes(6), 8, 0)
        assert ruleset > 2
        os.close(ruleset)
        assert write_rules._call(444, None, 0, 1) >= 2

        def only() -> None:
            worker.prctl(38, 1)
            before = len(list(Path("/proc/self/fd").iterdir()))
            write_rules.allow_only(["/tmp", "/dev"])
            assert len(list(Path("/proc/self/fd").iterdir())) == before
            Path("/dev/null").write_text("x")
            try:
                Path("/proc/self/comm").write_text("x")
            except PermissionError:
                print("refused")

        assert forked(only) == (0, "refused\n", "")
