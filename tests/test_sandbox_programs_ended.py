"""Programs inside the sandbox, each call in a process that ends with it: how they begin, complain, and end."""

from __future__ import annotations

import gc
import io
import json
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("the programs are those of Linux", allow_module_level=True)

from firsthand.sandbox import seccomp
from firsthand.sandbox.programs import worker
from forked_process import forked


def python(code: str, kind: str = "python", out: str = "", path: list[str] | None = None) -> tuple[int, str, str]:
    return forked(lambda: worker.run_python(code, "<code>", kind, path or []), out=out)


# -- the worker --


@pytest.mark.slow
def test_a_program_ends_as_an_interpreter_does_whatever_fails_at_its_end() -> None:
    full = "/dev/full"
    assert python("print('x')", out=full)[0] == 120, "what it printed could not be written"
    assert python("print('x'); raise SystemExit(3)", out=full)[0] == 3 and python("pass", out=full) == (0, "", "")
    said = python("import atexit\natexit.register(print, 'last')\nprint('first')\nraise SystemExit(4)")
    assert said == (4, "first\nlast\n", "")
    waits = "import threading, time\ndef late():\n    time.sleep(0.03)\n    print('thread')\n"
    waits += "threading.Thread(target=late).start()\nprint('main')"
    assert python(waits) == (0, "main\nthread\n", "")
    assert python(f"import atexit\natexit.register(print, 'last')\n{waits}") == (0, "main\nthread\nlast\n", ""), (
        "what was registered is called when the threads have ended"
    )
    assert python("import atexit\natexit.register(lambda: 1 / 0)\nraise SystemExit(5)")[0] == 5
    fails = "import threading\nthreading._register_atexit(lambda: 1 / 0)\nprint('x')\nraise SystemExit({})"
    for status in (0, 3):
        found, said, errors = python(fails.format(status))
        assert (found, said) == (status, "x\n") and errors.endswith("ZeroDivisionError: division by zero\n"), (
            "as Python's"
        )
        silent = (
            f"import os, sys\nos.dup2(os.open('{full}', os.O_WRONLY), 2)\nsys.stderr.write('x')\nsys.exit({status})"
        )
        assert python(silent) == (status or 1, "", ""), "what it has to say of its errors could not be written"
    for code in (
        "sys.stdout = None; print('x')",
        "sys.stdout.close()",
        "del sys.stdout",
        "sys.stderr = None",
        "sys.stderr.close()",
    ):
        assert python(f"import sys; {code}") == (0, "", ""), code
    status, said, errors = python("import sys\nprint('kept')\nsys.stdout = None\n1 / 0")
    assert (status, said) == (1, "kept\n") and errors.endswith("ZeroDivisionError: division by zero\n")
    assert python("import io, sys\nprint('a')\nsys.stdout = io.StringIO()\nprint('b')") == (0, "a\n", "")
    swaps = "import atexit, io, sys\nprint('a')\nreal = sys.stdout\nsys.stdout = io.StringIO()\n"
    assert python(swaps + "atexit.register(lambda: setattr(sys, 'stdout', real))") == (0, "a\n", "")
    assert python("raise KeyboardInterrupt")[2].endswith("KeyboardInterrupt\n")
    for code, status, words in (
        ("None", 0, ""),
        ("''", 1, "\n"),
        ("0", 0, ""),
        ("257", 1, ""),
        ("-1", 255, ""),
        ("'é'", 1, "é\n"),
    ):
        assert python(f"raise SystemExit({code})") == (status, "", words), code


@pytest.mark.slow
def test_a_traceback_names_the_frames_of_the_code_alone_and_what_it_cannot_show() -> None:
    head = "Traceback (most recent call last):\n"
    lines = python(
        "def f():\n    return undefined\ntry:\n    f()\nexcept NameError as why:\n    raise KeyError('é') from why"
    )[2]
    cause, _, last = lines.partition("\nThe above exception was the direct cause of the following exception:\n\n")
    assert cause.startswith(f'{head}  File "<code>", line 4, in <module>\n    f()\n') and "worker.py" not in lines
    assert last == f"{head}  File \"<code>\", line 6, in <module>\n    raise KeyError('é') from why\nKeyError: 'é'\n"
    deep = python("def f(n):\n    g(n - 1)\ndef g(n):\n    f(n) if n else 1 / 0\nf(13)")[2]
    steps = [
        '  File "<code>", line 2, in f',
        "    g(n - 1)",
        '  File "<code>", line 4, in g',
        "    f(n) if n else 1 / 0",
    ]
    shown = [line for line in deep.splitlines() if line.strip(" ~^")]
    assert shown == [head.strip(), *steps * 10, "ZeroDivisionError: division by zero"], "the last 20 frames"
    start = ['  File "<code>", line 5, in <module>', "    f(9)"]
    for depth, frames in ((9, [*start, *steps * 9]), (10, steps * 10)):
        code = f"def f(n):\n    g(n - 1)\ndef g(n):\n    f(n) if n else 1 / 0\nf({depth})"
        said = [line for line in python(code)[2].splitlines() if line.strip(" ~^")]
        assert said == [head.strip(), *frames, "ZeroDivisionError: division by zero"]
    assert python("class E(Exception):\n    def __str__(self): raise SystemExit(9)\nraise E")[2].endswith(
        "    raise E\nE: <exception str() failed>\n"
    )
    assert python("class E(Exception):\n    __module__ = 5\nraise E")[2].endswith("E\n")
    order = python("import sys\nsys.stderr = sys.stdout\nprint('first')\n1 / 0")
    assert order[0] == 1 and order[1].startswith("first\nTraceback") and order[2] == ""
    assert python("import sys\nprint('x')\nsys.stderr.close()\n1 / 0") == (1, "x\n", "ZeroDivisionError\n")
    wrong = (1, "", '  File "<code>", line 1\n    def (\n        ^\nSyntaxError: invalid syntax\n')
    assert python("def (", "cell") == python("def (") == wrong, "no frame of the library that reads it"


@pytest.mark.slow
@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN])
def test_an_interrupt_raises_and_garbage_is_collected_whatever_was_set_before(before: signal.Handlers) -> None:
    def ran(code: str, kind: str) -> tuple[int, str, str]:
        def work() -> None:
            signal.signal(signal.SIGINT, before)
            gc.disable()
            worker.run_python(code, "<code>", kind, [])

        return forked(work)

    interrupt = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nfor _ in range(10**6): pass"
    caught = f"try:\n    {interrupt.replace(chr(10), chr(10) + '    ')}\nexcept KeyboardInterrupt: print('stopped')"
    for kind in ("python", "program", "cell"):
        assert ran(caught, kind) == (0, "stopped\n", ""), kind
        status, said, errors = ran(f"print('x')\n{interrupt}\nprint('y')", kind)
        assert (status, said) == (1, "x\n") and errors.endswith("\nKeyboardInterrupt\n"), kind
        assert ran("import gc\nprint(gc.isenabled())", kind) == (0, "True\n", ""), kind


@pytest.mark.slow
def test_each_kind_of_run_has_its_own_way() -> None:
    def executed(code: str, kind: str) -> tuple[int, str, str]:
        return forked(
            lambda: os._exit((sys.stdout.flush(), worker.execute(code, "<n>", {}, kind), sys.stdout.flush())[1])
        )

    assert [executed("print(6)\n7", kind)[:2] for kind in ("python", "program", "cell")] == [
        (0, "6\n"), (0, "6\n"), (0, "6\n7\n"),
    ]  # fmt: skip
    sent = {"other": "said = 'checked'", "checker": "from other import said\ndef main(): print(said, __name__)"}
    assert executed(json.dumps(sent), "check") == (0, "checked checker\n", "")
    assert executed(json.dumps({"checker": "def main(): raise SystemExit(6)"}), "check")[0] == 6
    for kind in ("python", "cell"):
        assert executed("def f(x: int): pass\nprint(f.__annotations__)", kind)[1] == "{'x': <class 'int'>}\n"
    assert executed("def f(): f.x: int = 1\n(lambda: 1).__annotations__", "cell")[1] == "{}\n"
    space: dict[str, Any] = {"x": 5}
    out = io.StringIO()
    kept, sys.stdout = sys.stdout, out
    try:
        for code in ("y = x + 1\ny * 2", "None", "z = 1", "", "'é'", "y\nw = 3", "if y: x"):
            worker.execute_cell(code, "<n>", space)
    finally:
        sys.stdout = kept
    assert out.getvalue() == "12\n'é'\n" and (space["y"], space["z"], space["w"]) == (6, 1, 3)

    for kind, first in (("check", "/p"), ("program", "/p"), ("python", "/tmp/work"), ("cell", "/tmp/work")):
        code = "import sys\ndef main(): print(sys.path[0])\nif __name__ == '__main__': main()"
        code = json.dumps({"checker": code}) if kind == "check" else code
        assert python(code, kind, path=["/p"]) == (0, f"{first}\n", ""), kind

    def module() -> None:
        made = worker.checking(json.dumps({"checker": "value = __name__, __builtins__ is not None"}))
        assert made is sys.modules["checker"] and made.value == ("checker", True)
        assert worker.checking("") is made

    assert forked(module) == (0, "", "")


def test_a_process_gives_up_its_rights_and_takes_its_filter() -> None:
    code = seccomp.program(os.uname().machine) or b""

    def confined() -> None:
        worker.prctl(worker._SET_NO_NEW_PRIVS, 1)
        worker.confine(code, [])
        lines = Path("/proc/self/status").read_text().splitlines()
        found = dict(line.split(":\t", 1) for line in lines)
        score = Path("/proc/self/oom_score_adj").read_text()
        print(found["CapEff"], found["CapPrm"], found["CapInh"], found["NoNewPrivs"], found["Seccomp"], score, end="")
        print(worker._libc.prctl(3, 0, 0, 0, 0))  # PR_GET_DUMPABLE

    zero = "0" * 16
    assert forked(confined) == (0, f"{zero} {zero} {zero} 1 {2 if code else 0} 1000\n1\n", "")
    with pytest.raises(OSError, match=r"^\[Errno 22\] prctl 9999: Invalid argument$"):
        worker.prctl(9999, 1)
    worker.check(0, "nothing")

    def undumpable() -> None:
        worker.prctl(worker._SET_DUMPABLE, 0)
        assert worker._libc.prctl(3, 0, 0, 0, 0) == 0
        worker.prctl(worker._SET_DEATH_SIGNAL, signal.SIGKILL)

    assert forked(undumpable) == (0, "", "")


def test_limits_of_a_process_are_rounded_up_and_never_above_what_it_has() -> None:
    names = ("AS", "CPU", "FSIZE", "NOFILE", "NPROC", "CORE", "SIGPENDING", "MSGQUEUE", "MEMLOCK")

    def limited() -> None:
        for name, most in (("SIGPENDING", 400), ("FSIZE", 900), ("MSGQUEUE", 5)):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most - 1, most))
        worker.limit({"memory_bytes": 1 << 41, "cpu_s": 3.0, "file_bytes": 1_000, "open_files": 51, "processes": 40})
        print(json.dumps([resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in names]))

    status, said, errors = forked(limited)
    assert (status, errors) == (0, "") and dict(zip(names, json.loads(said), strict=True)) == {
        "AS": [1 << 41] * 2, "CPU": [3, 4], "FSIZE": [900, 900], "NOFILE": [51, 51], "NPROC": [42, 42], "CORE": [1, 1],
        "SIGPENDING": [400, 400], "MSGQUEUE": [0, 0], "MEMLOCK": [0, 0],
    }  # fmt: skip


@pytest.mark.slow
def test_small_parts_of_the_worker(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("longer")
    worker.write(str(file), "é!")
    assert file.read_text() == "é!ger", "a file of the kernel is not cut"
    with pytest.raises(FileNotFoundError):
        worker.write(str(tmp_path / "none"), "x")
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError):
        worker.write("/dev/full", "x")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    reading, writing = os.pipe()
    threading.Thread(target=worker.feed, args=(writing, b"\xc3\xa9\xff" * 40_000)).start()
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"\xc3\xa9\xff" * 40_000, "and it is closed"
    reading, writing = os.pipe()
    os.close(reading)
    worker.feed(writing, b"x")  # nobody reads
    with pytest.raises(OSError):
        os.fstat(writing)
    for fd, buffered in ((1, False), (2, True)):
        made = worker.writer(fd)
        assert (made.encoding, made.errors, made.line_buffering, made.fileno()) == (
            "utf-8",
            "backslashreplace",
            buffered,
            fd,
        )
        made.detach()

    def started(request: dict[str, Any], path: list[str]) -> tuple[int, str, str]:
        os.environ.pop("PYTHONPATH", None)

        def begun_in_the_background() -> None:
            for number in (signal.SIGHUP, signal.SIGQUIT):
                signal.signal(number, signal.SIG_IGN)
            worker.start({"path": path}, {"name": "<n>", **request})

        return forked(begun_in_the_background)

    shell = {"kind": "shell", "code": "echo $PYTHONPATH; grep SigIgn /proc/self/status; exit 7"}
    assert started(shell, ["/a", "/b"]) == (7, "/a:/b\nSigIgn:\t0000000000000000\n", "")
    assert started(shell, [])[1].startswith("\nSigIgn")
    ignored = "import signal as s; print(*(s.getsignal(each) == s.SIG_DFL for each in (s.SIGHUP, s.SIGQUIT)))"
    assert started({"kind": "python", "code": ignored}, [])[1] == "True True\n"
    for code, why in (("a\0b", "embedded null byte"), ("x" * (1 << 22), "Argument list too long")):
        assert started({"kind": "shell", "code": code}, []) == (126, "", f"the command could not be run: {why}\n")
    assert (
        started({"kind": "cell", "code": "import sys\nsys.path[:3]"}, ["/a", "/b"])[1] == "['/tmp/work', '/a', '/b']\n"
    )
    assert started({"kind": "program", "code": "import sys\nprint(sys.path[:2], sys.argv)"}, ["/a", "/b"])[1] == (
        "['/a', '/b'] ['<n>']\n"
    )


@pytest.mark.slow
def test_a_run_that_was_killed_has_the_time_and_memory_of_its_init(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[set[int], int]] = []

    def memory_of(ours: set[int], enough: int) -> int:
        asked.append((ours, enough))
        return 5

    monkeypatch.setattr(worker, "memory_of", memory_of)  # here it would count all that this machine runs

    def watched(child: Callable[[int], object], wall_s: float) -> dict[str, Any]:
        job, theirs = socket.socketpair()
        told, tell = os.pipe()
        init = os.fork()
        if init == 0:
            child(tell)
            os._exit(3)
        os.close(tell)
        try:
            return worker.watch(job, told, init, {"wall_s": wall_s, "memory_bytes": 77}, time.monotonic(), None)
        finally:
            job.close()
            theirs.close()
            os.close(told)

    def busy(tell: int) -> None:
        until = time.process_time() + 0.04
        while time.process_time() < until:
            os.urandom(1 << 18)  # the kernel's time
        time.sleep(20)

    report = watched(busy, 0.4)
    assert (report["killed"], report["status"]) == ("timeout", None) and 0.03 < report["cpu_s"] < 0.4
    assert report["peak_bytes"] > 4 << 20, "kibibytes, of the largest process"
    assert asked and all(ours > {1, os.getppid(), os.getpid()} and (len(ours), most) == (4, 77) for ours, most in asked)
    assert watched(lambda tell: os.write(tell, b"w" * 4_000), 20)["broken"] == "w" * 4_000
    assert watched(lambda tell: None, 20)["broken"] == f"init ended with wait status {3 << 8}"


def test_a_run_that_cannot_begin_is_reported_as_broken_and_its_supervisor_ends_well() -> None:
    def reported(raw: bytes) -> tuple[int, str, str, bytes]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(raw)
            ours.shutdown(socket.SHUT_WR)
            ended = forked(lambda: worker.supervise({}, theirs.fileno()))
            theirs.close()  # where nothing was sent, the connection is over
            return *ended, ours.recv(9999)

    why = "JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
    for raw, broken in (
        (b"\0\0\0\x01{", why),
        (b"\0\0\0\x03{}", "EOFError: the caller went away"),
        (b"\0\0", "EOFError: the caller went away"),
        (b"", "EOFError: the caller went away"),
    ):
        assert reported(raw) == (0, "", "", json.dumps({"broken": broken}).encode())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "no room"), "OSError: [Errno 28] no room"), (EOFError(), "EOFError: "),
        (MemoryError(), "MemoryError: "), (KeyError("limits"), "KeyError: 'limits'"),
        (KeyboardInterrupt(), "KeyboardInterrupt: "), (SystemExit(3), "SystemExit: 3"),
    ],
)  # fmt: skip
def test_whatever_ends_a_supervision_is_reported_and_so_is_what_it_returned(
    error: BaseException, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def supervised(*parts: Any) -> dict[str, Any]:
        given.append(parts)
        if parts[0] == {"fails": True}:
            raise error
        return {"config": parts[0], "streams": parts[2], "job": parts[1].fileno()}

    monkeypatch.setattr(worker, "supervised", supervised)

    def reported(config: dict[str, Any], *, gone: bool = False) -> tuple[int, str, str, bytes]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            if gone:
                ours.shutdown(socket.SHUT_RDWR)
            ended = forked(lambda: worker.supervise(config, theirs.fileno(), 7, 8))
            number = theirs.fileno()
            theirs.close()
            said = b"" if gone else ours.recv(9999)
            return *ended, said.replace(b'"job": %d' % number, b'"job": 0')

    assert reported({"fails": True}) == (0, "", "", json.dumps({"broken": told}).encode())
    whole = {"config": {"a": 1}, "streams": [7, 8], "job": 0}
    assert reported({"a": 1}) == (0, "", "", json.dumps(whole).encode())
    assert reported({"fails": True}, gone=True) == reported({}, gone=True) == (0, "", "", b""), (
        "nobody listens any more"
    )
    assert given == [], "it was done in the process that ended"
