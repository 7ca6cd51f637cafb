"""What is mounted over the host's folders, what the kernel's memory limit tells of a run, and what a Box asks for."""

from __future__ import annotations

import asyncio
import base64
import ctypes
import errno
import io
import json
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import SandboxError
from firsthand.sandbox.bubblewrap import Report, SandboxRun, WarmWorker
from firsthand.sandbox.memory_cgroup import SLACK_BYTES, MemoryCgroup
from firsthand.sandbox.sandbox import Outcome
from firsthand.sandbox.sandbox_limits import RunLimits

if sys.platform != "linux":
    pytest.skip("the programs are those of Linux", allow_module_level=True)

from firsthand.sandbox.box import LIMITS, Box
from firsthand.sandbox.programs import box_inside, host_layers

# -- layers over the host's folders --


class Kernel:
    """Takes the place of the C library: a mount here would be a mount of the machine that runs the tests."""

    def __init__(self, **results: int) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.results = results

    def __getattr__(self, name: str) -> Any:
        def call(*values: Any) -> int:
            plain = [value.value if isinstance(value, ctypes.c_ulong) else value for value in values]
            self.calls.append((name, *plain, str(Path.cwd())) if name == "mount" else (name, *plain))
            return self.results.get(name, 0)

        return call


def kernel(monkeypatch: pytest.MonkeyPatch, **results: int) -> Kernel:
    made = Kernel(**results)
    monkeypatch.setattr(host_layers, "_libc", made)
    return made


def test_a_folder_is_covered_by_a_layer_unless_it_holds_other_mounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place, asked = str(tmp_path), kernel(monkeypatch)
    host_layers.cover(place)
    raw = place.encode()
    assert asked.calls == [
        ("mount", b"layer", b"/tmp", b"overlay", 1 | 2 | 4, b"lowerdir=.:/tmp,redirect_dir=nofollow", place),
        ("umount2", raw, 2),
        ("mount", b"/tmp", raw, b"", 8192, b"", "/"),
    ]
    assert str(Path.cwd()) == "/"
    asked = kernel(monkeypatch)
    host_layers.cover("/dev" if os.path.ismount("/dev/shm") or os.path.ismount("/dev/pts") else "/")
    assert asked.calls == [], "other file systems are mounted inside it"
    asked = kernel(monkeypatch, mount=-1)
    ctypes.set_errno(errno.EPERM)
    with pytest.raises(OSError) as error:
        host_layers.cover(place)
    assert (error.value.errno, error.value.strerror) == (errno.EPERM, "Operation not permitted")
    assert [call[0] for call in asked.calls] == ["mount"] and str(Path.cwd()) == "/"


def test_only_mounts_inside_a_folder_keep_it_from_being_covered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "a é"
    place.mkdir()
    raw = os.fsencode(place)
    for point, covered in (
        (str(place), True), (f"{place}x", True), (f"{place}/in", False), (str(tmp_path), True), ("/", True),
        (f"/x{place}/y", True),
    ):  # fmt: skip
        line = os.fsencode(point).replace(b" ", b"\\040")  # as the kernel writes it
        told = b"1 0 0:1 /root /other rw - x y z\n2 1 0:2 / " + line + b" rw,relatime - tmpfs tmpfs rw\n"
        monkeypatch.setattr(host_layers, "open", lambda path, mode, told=told: io.BytesIO(told), raising=False)
        asked = kernel(monkeypatch)
        host_layers.cover(str(place))
        assert [call[0] for call in asked.calls] == (["mount", "umount2", "mount"] if covered else []), point
        assert not covered or asked.calls[1:] == [("umount2", raw, 2), ("mount", b"/tmp", raw, b"", 8192, b"", "/")]


def test_devices_are_made_anew_or_made_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spare = str(tmp_path)
    monkeypatch.setattr(host_layers, "SPARE", spare)
    monkeypatch.setattr(host_layers, "DEVICES", {"null": (1, 3), "zero": (1, 5), "full": (1, 7)})
    nodes: list[tuple[str, int, int]] = []

    def mknod(path: str, mode: int, device: int) -> None:
        nodes.append((path, mode, device))
        Path(path).touch(mode=0o600)

    monkeypatch.setattr(os, "mknod", mknod)  # few machines that run tests allow it
    asked, here = kernel(monkeypatch), str(Path.cwd())
    host_layers.make_devices()
    raw = spare.encode()
    assert asked.calls == [
        ("mount", b"tmpfs", raw, b"tmpfs", 2 | 8, b"mode=755", here),
        ("mount", b"tmpfs", raw, b"tmpfs", 1 | 2 | 8 | 32, b"", here),
        ("umount2", b"/dev", 2),
        ("mount", raw, b"/dev", b"", 8192, b"", here),
    ]
    numbers = {"null": 3, "zero": 5, "full": 7}
    assert nodes == [(f"{spare}/{name}", stat.S_IFCHR | 0o666, os.makedev(1, n)) for name, n in numbers.items()]
    assert all(stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 for name in numbers)
    links, made = (
        {path.name: path.readlink() for path in folder.iterdir() if path.is_symlink()}
        for folder in (Path("/dev"), tmp_path)
    )
    assert made == links != {}
    asked = kernel(monkeypatch)
    with pytest.raises(FileExistsError):
        host_layers.make_devices()
    assert [call[0] for call in asked.calls] == ["mount", "umount2"] and asked.calls[-1] == ("umount2", raw, 2)
    asked = kernel(monkeypatch)
    host_layers.keep_devices()
    flags = 1 | 2 | 8 | 32 | 4096
    assert asked.calls == [("mount", b"none", f"/dev/{name}".encode(), b"", flags, b"", here) for name in numbers]


def test_the_worker_begins_when_all_is_covered_and_without_capabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []

    def way(name: str, *fails: str) -> None:
        def carried_out(*given: str) -> None:
            done.append((name, *given))
            if name in fails or set(given) & set(fails):
                raise OSError(1, "")

        monkeypatch.setattr(host_layers, name, carried_out)

    def began(root: bool, *fails: str) -> list[Any]:
        done.clear()
        for name in ("cover", "make_devices", "keep_devices"):
            way(name, *fails)
        asked = kernel(monkeypatch)
        host_layers.main("settings", root, ["/a", "/b"])
        return [*done, *asked.calls]

    monkeypatch.setattr(os, "execv", lambda *given: done.append(given))
    monkeypatch.setattr(sys, "orig_argv", ["/python", "-I", "-S", "/host_layers.py", "settings", "root", "/a"])
    covers, worker = [("cover", "/a"), ("cover", "/b")], ("/python", ["/python", "-I", "-S", "/worker.py", "settings"])
    left = [("prctl", 47, 4, 0, 0, 0), ("capset", struct.pack("=II", 0x20080522, 0), bytes(24))]
    assert began(True) == [*covers, ("make_devices",), worker]
    assert began(True, "/a", "make_devices") == [*covers, ("make_devices",), ("keep_devices",), worker]
    assert began(False) == [*covers, ("keep_devices",), worker, *left]
    assert began(False, "keep_devices", "/b") == [*covers, ("keep_devices",), worker, *left]
    assert host_layers.DEVICES == {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9)}


# -- the kernel's memory limit --


def warm_worker(folder: Path | None, kept_bytes: int = 0) -> WarmWorker:
    """A worker whose process has ended already, with a cgroup whose files lie in a folder."""
    made = WarmWorker.__new__(WarmWorker)
    made._cgroup = None if folder is None else MemoryCgroup(folder, 2)
    made._control = socket.socketpair()[0]
    made._kept_bytes = kept_bytes
    made._process = subprocess.Popen(["true"], stderr=subprocess.PIPE)
    return made


@pytest.mark.slow
def test_a_run_for_which_the_kernel_killed_something_ended_for_its_memory(tmp_path: Path) -> None:
    plain = Report(b"out", b"err", False, {"killed": None, "status": 9, "cpu_s": 1.5, "peak_bytes": 7, "wall_s": 2.5})
    late = Report(b"", b"", True, {**plain.body, "killed": "timeout"})
    limits = RunLimits(memory_bytes=2**27, scratch_bytes=500, wall_s=1)
    without = warm_worker(None, 11)
    assert without._allow_memory(limits) == 0 and without._with_kills(plain, -1) is plain
    without.close()
    for name, text in (("memory.max", ""), ("memory.current", "1000\n"), ("memory.events", "oom 9\noom_kill 3\n")):
        (tmp_path / name).write_text(text)
    made = warm_worker(tmp_path, 11)
    assert made._allow_memory(limits) == 3
    assert int((tmp_path / "memory.max").read_text()) == 1000 + 2**27 + 500 + 11 + SLACK_BYTES
    assert made._with_kills(plain, 3) is plain and made._with_kills(late, 2) is late
    found = made._with_kills(plain, 2)
    assert found == Report(b"out", b"err", False, {**plain.body, "killed": "memory"}) and plain.body["killed"] is None
    (tmp_path / "memory.events").unlink()
    assert not made._killed_since(0) and made._with_kills(plain, 0) is plain
    (tmp_path / "memory.current").write_text("no")
    with pytest.raises(
        SandboxError, match=r"^the sandbox's worker died \(its memory limit cannot be set: .*run it again"
    ):
        made._allow_memory(limits)
    assert made._control.fileno() == -1 and made._process.stderr is not None and made._process.stderr.closed
    assert not made.alive and made.pid == made._process.pid


def test_a_cgroup_counts_kills_limits_and_is_removed(tmp_path: Path) -> None:
    one, two = MemoryCgroup(tmp_path / "one", 1), MemoryCgroup(tmp_path / "two", 2)
    names = [[file.name for file in (each.limit_file, each.usage_file, each.events_file)] for each in (one, two)]
    assert names == [
        ["memory.limit_in_bytes", "memory.usage_in_bytes", "memory.oom_control"],
        ["memory.max", "memory.current", "memory.events"],
    ]
    two.folder.mkdir()
    two.events_file.write_text("low 1\noom_group_kill 5\n")
    assert two.kills() == 0
    exact = 100 + 30 + SLACK_BYTES
    for used, limit in ((100, exact), (exact - 1, exact), (exact, exact + 30 + SLACK_BYTES)):
        two.usage_file.write_text(str(used))
        two.allow(30)
        assert (two.own_bytes, int(two.limit_file.read_text())) == (100, limit)
    procs = two.folder / "cgroup.procs"
    done = subprocess.run(two.entering(["printf", "%s-%s", "a b", "c"]), capture_output=True, check=True)
    assert done.stdout == b"a b-c" and procs.read_text().strip().isdecimal()
    for file in two.folder.iterdir():
        file.unlink()
    two.close()
    one.close()
    assert not two.folder.exists()


def test_a_worker_that_is_lost_with_its_run_is_closed_and_a_run_is_stopped_twice(tmp_path: Path) -> None:
    made = warm_worker(None)
    report = made._replaced("memory", 0.0, bytearray(b"o"), bytearray(b"e"), True)
    wall_s = report.body.pop("wall_s")
    assert report == Report(b"o", b"e", True, {"killed": "memory", "status": None, "cpu_s": None, "peak_bytes": None})
    assert wall_s > 0 and made._control.fileno() == -1
    run = SandboxRun("shell", "x", RunLimits(), files={"é": "ü"}, name="n", folder="/testbed")
    body = json.loads(run.packed()[4:])
    assert (body.pop("limits")["cpu_s"], body) == (
        10.0, {"kind": "shell", "code": "x", "files": {"é": "ü"}, "name": "n", "folder": "/testbed"},
    )  # fmt: skip
    ours, theirs = socket.socketpair()
    run.socket = ours
    run.stop()
    assert run.stopped and theirs.recv(9) == b""
    theirs.send(b"still")
    assert ours.recv(9) == b"still", "only our side is shut"
    theirs.close()
    ours.close()
    run.stop()


# -- boxes --


class Asked:
    """Takes the sandbox's place: keeps what it is asked, and answers as told."""

    def __init__(self) -> None:
        self.answers: list[Outcome] = []
        self.calls: list[tuple[Any, ...]] = []

    async def python(self, code: str, *, stdin: str, limits: RunLimits, ours: bool) -> Outcome:
        head, _, rest = code.partition("box_inside.main(")
        assert (head, rest[-2:], ours) == ("import box_inside\n", ")\n", True)
        do, given = json.loads(eval(rest[:-2]))
        self.calls.append((do, given, stdin, limits.output_bytes, limits.wall_s))
        return self.answers.pop(0)

    def close(self) -> None:
        self.calls.append(("close",))


def answer(stdout: str, ended: Any = "done", stderr: str = "") -> Outcome:
    return Outcome(ended, 0, stdout, stderr, 1.0, 1.0, 1, "bubblewrap")


@pytest.fixture
def box() -> tuple[Box, Asked]:
    made, asked = Box.__new__(Box), Asked()
    made.folder, made.limits, made.environment, made.kept = "/w", LIMITS, {"HOME": "/root", "A": "1"}, ("/w", "/x")
    made._sandbox, made._gate = asked, asyncio.Lock()  # type: ignore[assignment]
    return made, asked


def test_each_request_of_a_box_has_its_own_limits(box: tuple[Box, Asked]) -> None:
    made, asked = box
    packed = base64.b64encode(zlib.compress(b"\0raw")).decode()

    async def main() -> None:
        asked.answers = [answer("said")] * 5
        assert (await made.exec(["a", "é"], stdin=b"\xffin")).stdout == "said"
        await made.exec(["a"], folder="sub", environment={"A": "2", "B": "3"}, wall_s=0, output_bytes=9)
        await made.exec(["a"], wall_s=601)
        await made.exec(["a"], wall_s=599.5)
        asked.answers = [answer(f"ok whole:{packed}"), answer(f"ok whole:{packed}"), answer("ok long:12")]
        assert await made.read("f", most=2**20) == await made.read("/f", most=4) == b"\0raw"
        with pytest.raises(ValueError, match=r"^'f' has 12 bytes: at most 11 are read$"):
            await made.read("f", most=11)
        asked.answers = [answer("ok "), answer('ok {"/w/a": 1}'), answer("ok whole:abc:d"), answer("ok ")]
        await made.write("sub/f", b"\xff")
        assert await made.seen() == {"/w/a": 1}
        assert await made.snapshot({"/é": 2}, most=7) == "abc:d"
        await made.restore("text")
        asked.answers = [answer("ok long:")]
        with pytest.raises(ValueError, match="more than 8 bytes, compressed"):
            await made.snapshot({}, most=8)
        async with made as same:
            assert same is made

    asyncio.run(main())
    both, wide, kept = {"HOME": "/root", "A": "1"}, 64 * 2**20, ["/w", "/x"]
    plain, own = 10 * 2**20, {"HOME": "/root", "A": "2", "B": "3"}
    assert asked.calls == [
        ("exec", {"words": ["a", "é"], "folder": "/w", "environment": both}, "\udcffin", plain, 600),
        ("exec", {"words": ["a"], "folder": "/w/sub", "environment": own}, "", 9, 0.01),
        ("exec", {"words": ["a"], "folder": "/w", "environment": both}, "", plain, 600),
        ("exec", {"words": ["a"], "folder": "/w", "environment": both}, "", plain, 599.5),
        ("read", {"path": "/w/f", "most": 2**20}, "", 2**21, 600), ("read", {"path": "/f", "most": 4}, "", 2**20, 600),
        ("read", {"path": "/w/f", "most": 11}, "", 2**20, 600), ("write", {"path": "/w/sub/f"}, "\udcff", plain, 600),
        ("seen", {"folders": kept}, "", wide, 600),
        ("snapshot", {"folders": kept, "most": 7}, json.dumps({"/é": 2}), wide, 600),
        ("restore", {"folders": kept}, "text", wide, 600), ("snapshot", {"folders": kept, "most": 8}, "{}", wide, 600),
        ("close",),
    ]  # fmt: skip


def test_what_fails_in_a_box_is_told_by_its_kind(box: tuple[Box, Asked]) -> None:
    made, asked = box

    def failed(outcome: Outcome) -> Any:
        asked.answers = [outcome]
        with pytest.raises((OSError, SandboxError)) as error:
            asyncio.run(made.write("p", b""))
        value = error.value
        return (value.errno, value.strerror, value.filename) if isinstance(value, OSError) else str(value)

    assert failed(answer("errno 28")) == (28, "No space left on device", "p")
    for ended in ("timeout", "memory", "output"):
        assert failed(answer("ok ", ended)) == (errno.EIO, f"not done within the limit: {ended}", "p")
    for outcome, why in (
        (answer("ok ", "error"), "error"), (answer("errno x", stderr="a\n" + "b" * 201), "b" * 200),
        (answer(f"errno {10**20}"), "done"), (answer("errno " + "9" * 5_000), "done"),
        (answer("", "killed"), "killed"), (answer("errno 28", "error", "why\n"), "why"), (answer("huh"), "done"),
    ):  # fmt: skip
        assert failed(outcome) == f"the sandbox could not write 'p': {why}"


def test_a_snapshot_is_as_long_as_it_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fed:
        buffer: Any = None

    def snapshot(most: int) -> str:
        import io

        Fed.buffer = io.BytesIO(b"{}")
        monkeypatch.setattr(sys, "stdin", Fed)
        return box_inside.do_snapshot([str(tmp_path)], most)

    (tmp_path / "f").write_bytes(bytes(range(256)) * 3)
    whole = snapshot(5_000).removeprefix("whole:")
    assert len(whole) % 4 == 0 and 100 < len(whole) < 5_000
    exact = len(whole) * 3 // 4
    assert snapshot(exact) == f"whole:{whole}" and snapshot(exact - 1) == "long:", "base64 grows by a third"
    (tmp_path / "f").write_bytes(bytes(7_000))
    (tmp_path / "g").write_bytes(bytes(9_000))
    assert snapshot(1_000).startswith("whole:"), "16 times as much, uncompressed"
    (tmp_path / "g").write_bytes(bytes(9_001))
    assert snapshot(1_000) == "long:"


def test_a_command_of_a_box_begins_with_the_signals_of_a_shell() -> None:
    programs = Path(box_inside.__file__).parent
    given = json.dumps(
        ["exec", {"words": ["sh", "-c", "grep SigIgn /proc/self/status"], "folder": "/", "environment": {}}]
    )
    code = "import signal; [signal.signal(each, signal.SIG_IGN) for each in (signal.SIGHUP, signal.SIGQUIT)]; "
    code += f"import sys; sys.path.insert(0, {str(programs)!r}); import box_inside; box_inside.main({given!r})"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    ignored = int(done.stdout.split()[1], 16)
    reset = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGQUIT)
    assert not [each for each in reset if ignored >> (each - 1) & 1]
