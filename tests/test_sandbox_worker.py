"""The worker inside the sandbox and the check of an answer, each function in this process or a fork of it."""

from __future__ import annotations

import atexit
import decimal
import fractions
import json
import os
import re
import signal
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from firsthand.sandbox.programs import checker, inside, keeping, passed_values, worker, write_rules

PROGRAMS = Path(inside.__file__).parent
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the program inside is for Linux")


def forked(work: Callable[[], object], stdin: str = "") -> tuple[int, str, str]:
    """Exit status, output and errors of work in a process of its own."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin.encode())
        given.seek(0)
        pid = os.fork()
        if pid == 0:
            try:
                for number, file in enumerate((given, out, err)):
                    os.dup2(file.fileno(), number)
                sys.stdin, sys.stdout, sys.stderr = (
                    open(number, mode, closefd=False)  # noqa: SIM115
                    for number, mode in enumerate("rww")
                )
                atexit._clear()  # what this process would do at its end
                work()
            except BaseException as error:
                sys.stderr.write(f"{type(error).__name__}: {error}\n")
                sys.stderr.flush()
                os._exit(1)
            finally:
                os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        for file in (out, err):
            file.seek(0)
        return status, out.read().decode(), err.read().decode()


# -- checks --


def test_passed_values_go_between_the_processes_as_they_are() -> None:
    values: list[Any] = [
        None, True, False, 0, -5, 10**100, -(10**100), 10**99, 1.5, "é", [1, [2, None]], (1, "a"), {1, 2}, frozenset((1,)),
        {"a": 1, 2: (3,), None: [b"x"]}, b"\0\xff", bytearray(b"\0\xff"), range(1, 9, 2), 1 + 2j, decimal.Decimal("1.50"),
        fractions.Fraction(1, 3), [], (), {},
        [10**100, 1], {(1, 2): {3}}, [True, 1.0, "x", None],
    ]  # fmt: skip
    for value in values:
        back = passed_values.decode(json.loads(json.dumps(passed_values.encode(value))))
        assert back == value and type(back) is type(value) and repr(back) == repr(value)
    assert passed_values.encode([1, 2]) == {"list": [1, 2]} and passed_values.encode(10**100) == {"int": hex(10**100)}
    assert passed_values.encode(bytearray(b"a")) == {"bytearray": "61"} and passed_values.encode({1: 2}) == {
        "dict": [[1, 2]]
    }

    class Own(str):
        __slots__ = ()

    assert type(passed_values.encode(Own("x"))) is str
    for lazy in (
        map(str, [1]),
        iter_of([1]),
        reversed([1]),
        zip([1], [2], strict=True),
        enumerate("a"),
        filter(None, [1]),
    ):
        assert list(passed_values.encode(lazy)) == ["iterator"]
    assert list(passed_values.decode({"iterator": [1, {"tuple": [2]}]})) == [1, (2,)]
    large = 10**100
    for lazy, held in (
        (zip("ab", [1, large], strict=True), [("a", 1), ("b", large)]),
        (enumerate([{3}, b"x"]), [(0, {3}), (1, b"x")]),
        (map(complex, [1]), [1 + 0j]),
        (filter(None, [(), (0,)]), [(0,)]),
        (reversed([(1,), "z"]), ["z", (1,)]),
        (iter_of([(1, (2,))]), [(1, (2,))]),
        (iter_of([]), []),
    ):
        back = passed_values.decode(json.loads(json.dumps(passed_values.encode(lazy))))
        assert iter(back) is back and list(back) == held
    [[inner]] = passed_values.decode(passed_values.encode(iter_of([[iter_of([(7,)])]])))
    assert list(inner) == [(7,)]
    for view, held in (
        ({"k": [1, None]}.items(), [("k", [1, None])]),
        ({(1, 2): 0}.keys(), [(1, 2)]),
        ({0: [(5,)]}.values(), [[(5,)]]),
    ):
        back = passed_values.decode(json.loads(json.dumps(passed_values.encode(view))))
        assert type(back) is type(view) and list(back) == held and len(back) == 1
    for wrong, said in (
        (
            lambda: passed_values.encode(object()),
            "a object is no plain value: return numbers, text, lists, tuples, sets or dicts",
        ),
        (lambda: passed_values.decode([1]), "a bare list is not what encode writes"),
        (lambda: passed_values.decode({"odd": 1}), "'odd' is no kind of value"),
    ):
        with pytest.raises(TypeError, match=said):
            wrong()
    assert passed_values.scalars([1, "a", None, 2.0]) and not passed_values.scalars([1, []])
    assert not passed_values.scalars([10**100])
    assert passed_values.scalars([True]) and passed_values.scalars([]) and not passed_values.scalars([Own("x")])
    lists, dicts, sets = [1, 2], {"a": 1}, {1}
    for mine, theirs in (
        (lists, [3]),
        (dicts, {"b": 2}),
        (sets, {2}),
        ((1,), (2,)),
        (lists, (9,)),
        (5, 6),
        (sets, [7]),
    ):
        passed_values.update(mine, theirs)
    assert (lists, dicts, sets) == ([3], {"b": 2}, {2})


def iter_of(values: list[Any]) -> Iterator[Any]:
    yield from values


def test_the_names_that_tests_use_and_nobody_defines_are_the_answers() -> None:
    tests = """
import os.path as p, sys
from math import sqrt as root, pi
def helper(a, *b, c=1, **d): return a + b + c + d + outer
class Kind: field = value
for i, (j, k) in pairs: total = i + j + k
try: run()
except ValueError as wrong: print(wrong, len(x), p, sys, root, pi, given)
assert [z for z in zs] and (lambda q: q)(1) and helper and Kind and total
"""
    assert checker.free_names(tests, {"given": 1}) == {"outer", "value", "pairs", "run", "x", "zs"}


def test_an_answer_is_called_in_a_process_of_its_own(capsys: Any) -> None:
    answer = """
def add(a, b=1): return a + b
def grow(items, table): items.append(1); table["k"] = 2; return (len(items), items)
def fails(): raise KeyError("no")
def stops(): raise StopIteration
class Odd(Exception): pass
def odd(): raise Odd("x" * 600)
def thing(): return object()
def leaves(): raise SystemExit
class Own(ValueError): pass
class Mixed(Odd, Own, KeyError): pass
class Lazy(StopIteration): pass
class LookupError(ValueError): pass
def own(): raise Own("no")
def named(): raise LookupError("n")
def undecoded(): b"\\xff".decode()
def several(): raise ExceptionGroup("x", [Own()])
def lazy(): raise Lazy("a")
def mixed(): raise Mixed("k")
if __name__ == "__main__": add = None
"""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        checker.serve(theirs, answer)
    theirs.close()
    remote = checker.AnswerProcess(ours)
    checker.send(ours, {})
    assert remote.expect("load") == {}
    items, table = [0], {"j": 1}
    assert (remote.function("add")(2), remote.function("add")("a", b="b")) == (3, "ab")
    assert remote.function("grow")(items, table) == (2, [0, 1]) and (items, table) == ([0, 1], {"j": 1, "k": 2})
    for name, kind, said in (
        ("fails", KeyError, "'no'"), ("stops", RuntimeError, "StopIteration: "), ("odd", Exception, "^x{500}"),
        ("thing", TypeError, "is no plain value"), ("none", AttributeError, "has no attribute 'none'"),
        ("own", ValueError, "^no$"), ("named", ValueError, "^n$"),
        ("undecoded", UnicodeError, "^'utf-8'"), ("lazy", RuntimeError, "^Lazy: a$"),
        ("several", RuntimeError, "^ExceptionGroup: x"), ("mixed", ValueError, "^'k'$"),  # the first of two
        ("leaves", RuntimeError, "SystemExit: "),
    ):  # fmt: skip
        with pytest.raises(kind, match=said):
            remote.function(name)()
    with pytest.raises(RuntimeError, match="add: the answer's process ended"):
        remote.expect("add")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    ours.close()
    one, two = socket.socketpair()
    one.sendall(b"\0\0\0\x02{}ab")
    assert checker.receive(two) == {} and checker.exactly(two, 2) == b"ab"
    one.sendall(b"\0\0\0\x09{")
    one.close()
    assert checker.receive(two) is None and checker.receive(two) is None
    two.close()


@pytest.mark.slow
def test_tests_pass_only_with_their_last_line(tmp_path: Path) -> None:
    def checked(answer: str, tests: str, setup: str = "", names: Any = ()) -> tuple[int, str, str]:
        (tmp_path / "answer.py").write_text(answer)

        def work() -> None:
            os.chdir(tmp_path)
            checker.main()

        return forked(work, json.dumps({"tests": tests, "setup": setup, "names": list(names), "proof": "PROOF"}))

    answer = "def f(x): return x + 1\ndef max(x): return 7\nprint('noise')"
    assert checked(answer, "assert f(k) == 3; print('said')", "k = 2") == (0, "said\nPROOF", "")
    assert checked(answer, "assert max([1]) == 7", names=["max"]) == (0, "PROOF", "")
    assert checked(answer, "assert max([1]) == 7")[0] == 1
    assert checked(answer, "assert f(1) == 3")[1:] == ("", "AssertionError: \n")
    ended = "RuntimeError: the tests ended the process before their last line\n"
    assert checked(answer, "raise SystemExit(0)") == (1, "", ended)
    assert checked("1 / 0", "f(1)")[2] == "ZeroDivisionError: division by zero\n"


# -- the worker --


def ran(code: str, kind: str = "python", stdin: str = "") -> tuple[int, str, str]:
    """What a process of the worker's ends with."""
    return forked(lambda: worker.run_python(code, "<code>", kind, ["/extra"]), stdin)


@pytest.mark.slow
def test_code_runs_as_the_interpreter_would_run_it() -> None:
    code = """
import sys, atexit, threading
atexit.register(print, "exit")
threading.Thread(target=lambda: print("thread")).start()
print(__name__, sys.argv, sys.path[:2], input(), "\\ud800")
"""
    status, said, errors = ran(code, stdin="in\n")
    first = "__main__ ['<code>'] ['/tmp/work', '/extra'] in \\ud800"
    assert (status, sorted(said.splitlines()), errors) == (0, sorted([first, "thread", "exit"]), "")
    assert said.endswith("exit\n")
    assert ran("import sys; print(sys.path[0])", "program") == (0, "/extra\n", "")
    status, _, errors = ran("def f():\n    1 / 0\nf()")
    assert status == 1 and re.sub(r"^ *[~^]+\n", "", errors, flags=re.MULTILINE) == (  # Python 3.13 marks calls too
        'Traceback (most recent call last):\n  File "<code>", line 3, in <module>\n    f()\n'
        '  File "<code>", line 2, in f\n    1 / 0\nZeroDivisionError: division by zero\n'
    )
    assert ran("raise SystemExit('said')") == (1, "", "said\n") and ran("raise SystemExit(300)")[0] == 300 & 255
    assert ran("x = 3\nx * 2\nNone", "cell") == (0, "", "") and ran("x = 3\nx * 2", "cell") == (0, "6\n", "")
    assert ran("'a'", "cell") == (0, "'a'\n", "") and ran("", "cell") == (0, "", "") and ran("6 * 7") == (0, "", "")
    assert ran("import atexit; atexit.register(lambda: 1 / 0)")[0] == 0
    assert [worker.exit_status(code) for code in (None, 0, 3, 256, -1, True)] == [0, 0, 3, 0, 255, 1]
    assert [worker.as_bytes(text) for text in ("é", "\udcff", "\ud800")] == [b"\xc3\xa9", b"\xff", b"\xed\xa0\x80"]


def test_lines_of_proc_are_added_and_requests_are_read_whole(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("RssAnon:\t  12 kB\nRssFile: 5 kB\nRssShmem: 3 kB\n")
    names = (b"RssAnon:", b"RssShmem:")
    assert worker.fields(str(tmp_path / "status"), names) == 15 * 1024
    assert worker.fields(str(tmp_path / "none"), names) == 0
    (tmp_path / "status").write_text("RssAnon: many kB\n")
    assert worker.fields(str(tmp_path / "status"), names) == 0
    one, two = socket.socketpair()
    one.sendall(b"\0\0\0\x03abcd")
    assert worker.receive(two) == b"abc" and worker.exactly(two, 1) == b"d"
    one.close()
    with pytest.raises(EOFError, match="the caller went away"):
        worker.exactly(two, 1)
    two.close()
    found = os.statvfs(tmp_path)
    assert abs(worker.files_in(str(tmp_path)) - (found.f_files - found.f_ffree)) < 5_000
    with pytest.raises(OSError, match="mount x: "):
        worker.check(-1, "mount x")


def watched(child: Callable[[int], object], *, leave: bool = False, **limits: Any) -> dict[str, Any]:
    """The report on a child that plays init; with `leave` the caller is gone."""
    job, theirs = socket.socketpair()
    told, tell = os.pipe()
    init = os.fork()
    if init == 0:
        for each in (job, theirs):
            each.close()
        child(tell)
        os._exit(0)
    os.close(tell)
    if leave:
        theirs.close()
    began = time.monotonic()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(worker, "give_way", lambda pids, ours: pids)  # here they are all processes of this machine
            return worker.watch(job, told, init, {"wall_s": 20.0, "memory_bytes": 1 << 50} | limits, began, None)
    finally:
        job.close()
        theirs.close()
        os.close(told)


@pytest.mark.slow
def test_the_end_of_a_run_is_told_by_its_cause() -> None:
    def sleeps(tell: int) -> None:
        time.sleep(20)

    def ends(tell: int) -> None:
        os.write(tell, worker._ENDED.pack(7 << 8, 1 << 30, 1.25))

    def breaks(tell: int) -> None:
        os.write(tell, b"OSError: no more room")
        os._exit(1)

    report = watched(ends)
    assert (report["killed"], report["status"], report["cpu_s"], report["peak_bytes"]) == (None, 7 << 8, 1.25, 1 << 40)
    assert [watched(sleeps, wall_s=0.03)[key] for key in ("killed", "status")] == ["timeout", None]
    assert watched(sleeps, leave=True)["killed"] == "stopped" and watched(sleeps, memory_bytes=1)["killed"] == "memory"
    assert watched(breaks)["broken"] == "OSError: no more room" and "broken" not in watched(sleeps, wall_s=0.03)
    assert watched(lambda tell: os.kill(os.getpid(), signal.SIGKILL))["killed"] == "memory"
    assert watched(lambda tell: os._exit(3))["broken"] == f"init ended with wait status {3 << 8}"
    assert watched(ends)["peak_bytes"] > 0


def test_processes_have_the_limits_that_they_are_given() -> None:
    def limited() -> None:
        import resource

        limits = {"memory_bytes": 1 << 40, "cpu_s": 2.5, "file_bytes": 1_000, "open_files": 50, "processes": 40}
        worker.limit(limits)
        found = {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in (
            "AS", "CPU", "FSIZE", "NOFILE", "NPROC", "CORE", "MEMLOCK", "MSGQUEUE")}  # fmt: skip
        assert found == {
            "AS": (1 << 40,) * 2, "CPU": (3, 4), "FSIZE": (1_000,) * 2, "NOFILE": (50,) * 2, "NPROC": (42,) * 2,
            "CORE": (1, 1),
            "MEMLOCK": (0, 0), "MSGQUEUE": (0, 0),
        }, found  # fmt: skip
        worker.limit(limits | {"open_files": 90, "cpu_s": 0.2})
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (50, 50)
        assert resource.getrlimit(resource.RLIMIT_CPU) == (1, 2)

    assert forked(limited) == (0, "", "")


def test_parts_of_the_store_are_bound_at_their_places_the_stores_own_last(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store = str(tmp_path / "store")
    folders = [store, "/root", "/home"]
    keeping.make(store, folders)
    assert [stat.S_IMODE(Path(keeping.part(store, n)).stat().st_mode) for n in range(3)] == [0o755, 0o700, 0o755]
    bound: list[tuple[str, ...]] = []
    had_shm = Path("/tmp/shm").exists()
    within = tmp_path / "python"
    within.mkdir()
    try:
        keeping.show(
            lambda source, target, kind, flags: bound.append((source, target, kind, str(flags))),
            store,
            folders,
            [str(within)],
        )
    finally:
        if not had_shm:
            Path("/tmp/shm").rmdir()
    assert bound == [(f"{store}/{n}", folders[n], "none", "4096") for n in (1, 2, 0)], (
        "what is there already is not bound again"
    )


def test_files_are_opened_to_write_only_in_the_folders_that_are_allowed(tmp_path: Path) -> None:
    for name in ("in", "also", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text("x")

    def confined() -> None:
        worker.prctl(38, 1)  # no new privileges, which Landlock asks for
        write_rules.allow_only([str(tmp_path / "in"), str(tmp_path / "also")])
        for name in ("in", "also"):
            (tmp_path / name / "f").write_text("y")
        (tmp_path / "in" / "f").rename(tmp_path / "also" / "g")
        assert (tmp_path / "out" / "f").read_text() == "x"
        try:
            (tmp_path / "out" / "f").write_text("y")
            raise AssertionError("it was written")
        except PermissionError:
            pass

    if write_rules.supported():
        assert forked(confined) == (0, "", "")
        assert (tmp_path / "also" / "g").read_text() == "y"
    else:
        assert forked(confined)[2].startswith("OSError: ")
