"""The worker's way from its start to a run, each step in a fork of this process that has the step's namespaces alone."""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("the programs are those of Linux", allow_module_level=True)

from firsthand.sandbox.programs import worker
from forked_process import forked
from namespaces import WHY_NOT

PROGRAMS = str(Path(worker.__file__).parent)
needs_namespaces = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
LIMITS = {"wall_s": 20.0, "memory_bytes": 1 << 40}


def status_of(*names: str) -> list[str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return [found[name].strip() for name in names]


def told(work: Callable[[], Any]) -> Any:
    """What work in a process of its own gives back as JSON."""
    status, said, errors = forked(lambda: print(json.dumps(work())))
    assert (status, errors) == (0, ""), errors
    return json.loads(said)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
@needs_namespaces
def test_root_becomes_one_user_without_groups_and_rights_and_sees_a_whole_proc() -> None:
    def became() -> Any:
        worker.check(worker._libc.unshare(worker._NEWNS), "unshare")
        worker.mount("none", "/", "none", 0x4000 | 0x40000)  # private, with all below
        os.setgroups([4242, 4243])
        worker.prctl(worker._SET_DUMPABLE, 0)
        mounts = len(Path("/proc/self/mountinfo").read_text().splitlines())
        worker.become(4321)
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        new = [line.split()[4:6] for line in lines[mounts:]]
        ids = [os.getresuid(), os.getresgid(), os.getgroups()]
        return [ids, status_of("CapEff", "CapPrm", "CapInh", "NoNewPrivs"), worker._libc.prctl(3, 0, 0, 0, 0), new]

    zero = "0" * 16
    options = "rw,nosuid,nodev,noexec,relatime"
    assert told(became) == [[[4321] * 3, [4321] * 3, []], [zero] * 3 + ["1"], 1, [["/proc", options]]]


def test_an_ordinary_user_stays_who_it_is_without_new_rights() -> None:
    def became() -> Any:
        worker.prctl(worker._SET_DUMPABLE, 0)
        before = [os.getresuid(), os.getresgid(), os.getgroups(), status_of("CapEff")]
        worker.become(None)
        after = [os.getresuid(), os.getresgid(), os.getgroups(), status_of("CapEff")]
        return [before == after, status_of("NoNewPrivs"), worker._libc.prctl(3, 0, 0, 0, 0)]

    assert told(became) == [True, ["1"], 1]


@pytest.mark.parametrize("box", [True, False])
def test_programs_are_imported_once_and_the_root_is_no_place_to_import_from(box: bool) -> None:
    names = ("box_inside", "checker", "keeping", "write_rules")

    def loaded() -> Any:
        for name in names:
            sys.modules.pop(name, None)
        sys.path[:] = [PROGRAMS, *sys.path]
        before = list(sys.path)
        worker.preload(box)
        return [sys.path == before, [name for name in names if name in sys.modules], "collections" in sys.modules]

    assert told(loaded) == [True, [name for name in names if box or name != "box_inside"], True]


@needs_namespaces
def test_a_run_has_a_user_a_network_and_folders_of_its_own() -> None:
    files = {"a/b/c.txt": "é", "a/d": "", "e": "\udcff\r\n", "f": "\ud800"}

    def inside() -> None:
        worker.enter_user_namespace()
        maps = [Path(f"/proc/self/{name}").read_text().split()[::2] for name in ("uid_map", "gid_map")]
        said: dict[str, Any] = {"user": [os.getuid(), os.getgid(), maps, Path("/proc/self/setgroups").read_text()]}
        child = os.fork()  # the pid namespace is that of children
        if child == 0:
            said["pid"] = os.getpid()
            worker.check(worker._libc.unshare(worker._NEWNS | worker._NEWIPC | worker._NEWNET), "unshare")
            names = ("tcp_rmem", "tcp_wmem")
            worker.open_network()
            said["buffers"] = [Path(f"/proc/sys/net/ipv4/{name}").read_text().split() for name in names]
            with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
                said["reached"] = True
            worker.mount("tmpfs", "/tmp", "tmpfs", worker._NOSUID | worker._NODEV, "size=1048576,mode=755")
            old = os.umask(0o022)
            worker.make_scratch(files)
            os.umask(old)
            found = sorted(Path("/tmp").rglob("*"))
            said["folders"] = {str(each): oct(each.stat().st_mode & 0o777) for each in found if each.is_dir()}
            said["files"] = {str(each): each.read_bytes().hex() for each in found if each.is_file()}
            print(json.dumps(said), flush=True)
            os._exit(0)
        os.waitpid(child, 0)

    status, out, errors = forked(inside)
    assert (status, errors) == (0, "")
    buffer = ["4096", "262144", "262144"]
    assert json.loads(out) == {
        "user": [1000, 1000, [["1000", "1"], ["1000", "1"]], "deny\n"],
        "pid": 1, "buffers": [buffer, buffer], "reached": True,
        "folders": {"/tmp/shm": "0o700", "/tmp/work": "0o700", "/tmp/work/a": "0o755", "/tmp/work/a/b": "0o755"},
        "files": {"/tmp/work/a/b/c.txt": "c3a9", "/tmp/work/a/d": "", "/tmp/work/e": "ff0d0a", "/tmp/work/f": "eda080"},
    }  # fmt: skip


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Supervises a run of which init does what it is given."""

    def supervised(
        init: Callable[[int], object], config: dict[str, Any], *, handed_over_s: float | None = None, **limits: float
    ) -> dict[str, Any]:
        """The report; with `handed_over_s` by a clock that stands still but while the request is received."""
        ours, theirs = socket.socketpair()
        request = {"limits": {**LIMITS, **limits}, "kind": "python"}
        raw = json.dumps(request).encode()
        reading, writing = os.pipe()

        def begun(given: Any, asked: Any, streams: Any, tell: int) -> None:
            if (given, asked, streams) != (config, request, (writing,)):
                os.write(tell, f"{given} {asked} {streams}".encode())
                os._exit(1)
            init(tell)
            os._exit(0)

        def supervise() -> None:
            ours.close()
            monkeypatch.setattr(worker, "become_init", begun)
            monkeypatch.setattr(worker, "memory_of", lambda ours, enough: 0 if enough == 1 << 40 else 1 << 50)
            if handed_over_s is not None:
                receive, clock = worker.receive, [5.0]

                def received(job: socket.socket) -> bytes:
                    clock[0] += handed_over_s
                    return receive(job)

                monkeypatch.setattr(worker, "receive", received)
                monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: clock[0]))
            counts = itertools.count(61)
            monkeypatch.setattr(worker, "files_in", lambda folder: next(counts) if folder == "/place" else 0)
            worker.supervise(config, theirs.fileno(), writing)

        ours.sendall(len(raw).to_bytes(4, "big") + raw)
        ended = forked(supervise)
        theirs.close()
        os.close(writing)
        with ours, os.fdopen(reading, "rb"):
            assert ended == (0, "", "")
            report: dict[str, Any] = json.loads(ours.recv(9999))
        return report

    return supervised


@needs_namespaces
def test_a_run_whose_init_ends_without_a_word_is_broken_at_once_and_no_timeout(
    reported: Callable[..., dict[str, Any]],
) -> None:
    gone = reported(lambda tell: os._exit(3), {}, wall_s=2.0)
    assert (gone["killed"], gone["status"]) == (None, None), "the pipe ends with init, which said nothing"
    assert gone["broken"] == f"init ended with wait status {3 << 8}" and gone["wall_s"] < 2


@pytest.mark.slow
@needs_namespaces
def test_the_supervisor_gives_the_limits_and_the_workspace_to_its_watch_and_the_seconds_to_its_report(
    reported: Callable[..., dict[str, Any]],
) -> None:
    def ends(tell: int) -> None:
        time.sleep(0.03)
        os.write(tell, worker._ENDED.pack(7 << 8, 1 << 25, 0.25))

    def waits(tell: int) -> None:
        time.sleep(9)

    report = reported(ends, {"workspace": None})
    assert 0.03 <= report.pop("wall_s") < 5
    assert report == {"killed": None, "status": 7 << 8, "cpu_s": 0.25, "peak_bytes": 1 << 35}
    late = reported(waits, {}, wall_s=0.1)
    assert (late["killed"], late["status"]) == ("timeout", None) and 0.1 <= late["wall_s"] < 5
    full = reported(waits, {"workspace": ["/place", 60, [], []]})
    assert (full["killed"], full["status"]) == ("memory", None) and full["wall_s"] < 5
    assert reported(waits, {"workspace": ["/elsewhere", 60, [], []]}, wall_s=0.1)["killed"] == "timeout"
    given = reported(ends, {}, handed_over_s=100.0)
    assert given == report | {"wall_s": 0.0}, "the run begins once the request is there"
    assert reported(lambda tell: os._exit(0), {}, wall_s=2.0)["broken"] == "init ended with wait status 0"
    broken = reported(lambda tell: os.write(tell, b"why"), {})
    assert broken["broken"] == "why" and broken["killed"] is None


@pytest.mark.slow
def test_what_a_program_reads_is_utf_8_and_other_bytes_are_replaced() -> None:
    def read(code: str, stdin: bytes) -> tuple[int, str, str]:
        return forked(lambda: worker.run_python(code, "<code>", "python", []), stdin)

    code = "import sys; print(ascii(sys.stdin.read()), sys.stdin is sys.__stdin__)"
    for given, found in (
        (b"", "''"),
        ("é\n".encode(), ascii("é\n")),
        (b"a\xffb\r\nc\rd", ascii("a\ufffdb\nc\nd")),
        (b"\xc3", ascii("\ufffd")),
        (b"\xed\xa0\x80", ascii("\ufffd" * 3)),
    ):
        assert read(code, given) == (0, f"{found} True\n", "")
    assert read("print([ascii(input()) for _ in range(2)])", b"\xfe\nx") == (
        0,
        f"{[ascii(chr(0xFFFD)), ascii('x')]}\n",
        "",
    )
    assert read("import sys; print(sys.stdin.buffer.read())", b"a\xff") == (0, "b'a\\xff'\n", "")
