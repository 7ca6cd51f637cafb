"""A run as the caller follows it: what goes to the worker, what comes back, and how it ends, with a thread as the worker."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("the sandbox is for Linux", allow_module_level=True)

from firsthand.errors import SandboxError
from firsthand.sandbox import bubblewrap
from firsthand.sandbox.bubblewrap import Report, SandboxRun, WarmWorker
from firsthand.sandbox.memory_cgroup import MemoryCgroup
from firsthand.sandbox.sandbox_limits import RunLimits

DONE = {"killed": None, "status": 3 << 8, "cpu_s": 0.5, "peak_bytes": 9, "wall_s": 1.5}


def warm_worker(script: str = "exit 0", cgroup: Path | None = None) -> tuple[WarmWorker, socket.socket]:
    """A worker whose process is a shell script, and the other end of its control socket."""
    made = WarmWorker.__new__(WarmWorker)
    made._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made._kept_bytes, made._cgroup = 0, None if cgroup is None else MemoryCgroup(cgroup, 2)
    made._process = subprocess.Popen(["sh", "-c", script], stderr=subprocess.PIPE)
    return made, theirs


class Served(threading.Thread):
    """Takes one run from the control socket and does what a supervisor does with it."""

    def __init__(self, control: socket.socket, does: Callable[[Served], bytes | None]) -> None:
        super().__init__(daemon=True)
        self.control, self.does = control, does
        self.request: dict[str, Any] = {}
        self.stdin = b""
        self.modes: list[int] = []
        self.start()

    def run(self) -> None:
        message, fds, _, _ = socket.recv_fds(self.control, 16, 4)
        assert message == b"run" and len(fds) == 4
        self.job, (stdin, self.out, self.err) = socket.socket(fileno=fds[0]), fds[1:]
        with os.fdopen(stdin, "rb") as file:
            self.stdin = file.read()
        head = self.job.recv(4, socket.MSG_WAITALL)
        if head:
            self.request = json.loads(self.job.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL))
        else:
            self.does = lambda served: b'{"broken": "EOFError: the caller went away"}'
        self.modes = [stat.S_IMODE(os.fstat(fd).st_mode) for fd in (self.out, self.err)]
        body = self.does(self)
        for fd in (self.out, self.err):
            os.close(fd)
        if body is not None:
            self.job.sendall(body)
        self.job.close()

    def stopped(self) -> bool:
        """True once the caller has shut its end."""
        self.job.settimeout(5)
        return self.job.recv(1) == b""


def writing(out: bytes = b"", err: bytes = b"", body: Any = DONE, *, until_stopped: bool = False) -> Any:
    def does(served: Served) -> bytes | None:
        os.write(served.out, out)
        os.write(served.err, err)
        assert not until_stopped or served.stopped()
        return None if body is None else json.dumps(body).encode()

    return does


LIMITS = RunLimits(output_bytes=5, wall_s=9)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def ran(does: Any, run: SandboxRun | None = None, **worker: Any) -> tuple[Report, Served]:
    made, control = warm_worker(**worker)
    before = open_files()
    served = Served(control, does)
    run = run or SandboxRun("python", "code", LIMITS)
    try:
        report = made.run(run)
        served.join(5)
        assert run.socket is None and made._control.fileno() != -1 and open_files() <= before
        return report, served
    finally:
        made.close()
        control.close()


def test_a_run_goes_to_the_worker_with_its_streams_and_its_report_comes_back() -> None:
    run = SandboxRun("shell", "code", LIMITS, "in\udcff", {"é": "x"}, "<n>", "/testbed")
    report, served = ran(writing(b"12345", b"abcde"), run)
    assert report == Report(b"12345", b"abcde", False, DONE), "as much as is allowed"
    assert served.stdin == b"in\xff" and served.modes == [0o622, 0o622]
    limits = served.request.pop("limits")
    assert limits["output_bytes"] == 5 and served.request == {
        "kind": "shell", "code": "code", "files": {"é": "x"}, "name": "<n>", "folder": "/testbed",
    }  # fmt: skip
    assert ran(writing(b"", b"\xff"))[0] == Report(b"", b"\xff", False, DONE)
    large = SandboxRun("python", "x" * 900_000, LIMITS)
    assert ran(writing(b"1"), large)[1].request["code"] == "x" * 900_000, "more than the socket takes at once"


def test_a_run_that_writes_more_than_is_allowed_is_stopped_and_its_output_cut() -> None:
    killed = {**DONE, "killed": "stopped", "status": None}
    assert ran(writing(b"123456", b"ab", killed, until_stopped=True))[0] == Report(b"12345", b"ab", True, killed)
    assert ran(writing(b"", b"abcdef", killed, until_stopped=True))[0] == Report(b"", b"abcde", True, killed)
    run = SandboxRun("python", "code", LIMITS)
    run.stop()
    nothing = {"killed": "stopped", "status": None, "cpu_s": 0.0, "wall_s": 0.0, "peak_bytes": 0}
    assert ran(writing(b"never"), run)[0] == Report(b"", b"", False, nothing), "before it was there"
    later = SandboxRun("python", "code", LIMITS)
    begun = writing(b"a", b"", killed, until_stopped=True)

    def stopped_amid(served: Served) -> bytes | None:
        later.stop()
        return begun(served)  # type: ignore[no-any-return]

    assert ran(stopped_amid, later)[0] == Report(b"a", b"", False, killed)


@pytest.mark.slow
def test_a_worker_that_ends_in_the_middle_is_closed_and_told(tmp_path: Path) -> None:
    def lost(does: Any, **worker: Any) -> str:
        made, control = warm_worker(**worker)
        before = open_files()
        served = Served(control, does)
        with pytest.raises(SandboxError) as error:
            made.run(SandboxRun("python", "code", LIMITS))
        served.join(5)
        control.close()
        assert made._control.fileno() == -1 and not made.alive and open_files() < before
        return str(error.value)

    assert lost(writing(b"a", body=None)) == "the sandbox's worker ended in the middle of a run: run it again"
    assert lost(writing(body={"broken": "why"})) == "the sandbox could not be set up: why"
    made, control = warm_worker()
    control.close()
    before = open_files()
    with pytest.raises(SandboxError, match=r"^the sandbox's worker died \(Broken pipe\): run it again$"):
        made.run(SandboxRun("python", "code", LIMITS))
    assert made._control.fileno() == -1 and open_files() == before - 2, "its socket and its stderr, and no pipe is left"
    for name, text in (("memory.max", ""), ("memory.current", "5"), ("memory.events", "oom_kill 2\n")):
        (tmp_path / name).write_text(text)

    def killing(served: Served) -> None:
        os.write(served.out, b"a")
        (tmp_path / "memory.events").write_text("oom_kill 3\n")

    made, control = warm_worker(cgroup=tmp_path)
    Served(control, killing)
    report = made.run(SandboxRun("python", "code", LIMITS))
    wall_s = report.body.pop("wall_s")
    none = {"killed": "memory", "status": None, "cpu_s": None, "peak_bytes": None}
    assert report == Report(b"a", b"", False, none) and 0 <= wall_s < 5, "the code's fault, not the sandbox's"
    assert made._control.fileno() == -1
    control.close()


def test_a_worker_that_does_not_report_in_time_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (bubblewrap.START_S, bubblewrap.LEAVE_S, bubblewrap.GRACE_S) == (30.0, 1.0, 30.0)
    monkeypatch.setattr(bubblewrap, "GRACE_S", 0.1)
    made, control = warm_worker("exec sleep 20")
    Served(control, lambda served: os.write(served.out, b"a") and served.stopped() and None)
    began = time.monotonic()
    report = made.run(SandboxRun("python", "code", RunLimits(wall_s=0.1)))
    assert 0.2 <= time.monotonic() - began < 2
    assert (report.stdout, report.flooded, report.body["killed"], report.body["status"]) == (
        b"a",
        False,
        "timeout",
        None,
    )
    assert report.body["wall_s"] >= 0.2 and made._process.returncode == -9 and made._control.fileno() == -1
    control.close()


def test_a_worker_is_ready_when_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap, "START_S", 0.1)
    monkeypatch.setattr(bubblewrap, "LEAVE_S", 0.05)
    made, control = warm_worker("exec sleep 20")
    control.send(b"ready")
    made._await_ready()
    assert made.alive and made._control.gettimeout() is None
    made.close()
    assert made._process.returncode == -9, "it did not leave by itself"
    control.close()
    tidy, control = warm_worker("exit 7")
    tidy._process.wait()
    tidy.close()
    assert tidy._process.returncode == 7
    control.close()
    for said, script, words in (
        (b"no", "echo first >&2; echo why >&2; exit 1", "first\nwhy"), (None, "exec sleep 20", "it said nothing"),
        (b"ready!", "exit 0", "it said nothing"), (b"no", "head -c 4009 /dev/zero | tr '\\0' e >&2", "e" * 4_000),
    ):  # fmt: skip
        made, control = warm_worker(script)
        if said is not None:
            made._process.wait()
            control.send(said)
        with pytest.raises(SandboxError) as error:
            made._await_ready()
        assert str(error.value) == f"the bubblewrap sandbox does not start here: {words}"
        assert made._control.fileno() == -1 and not made.alive
        control.close()


def followed(
    out: bytes,
    err: bytes,
    said: bytes,
    run: SandboxRun,
    *,
    kills: int = 0,
    cgroup: Path | None = None,
    ends: bool = True,
) -> tuple[Report, bytes, WarmWorker]:
    """What `_follow` makes of streams that hold these bytes already, and what it has sent; they do not end unless `ends`."""
    made, control = warm_worker(cgroup=cgroup)
    job, theirs = socket.socketpair()
    pipes = [os.pipe(), os.pipe()]
    run.socket = job
    theirs.sendall(said)
    if ends:
        theirs.shutdown(socket.SHUT_WR)
    for (_, writing), raw in zip(pipes, (out, err), strict=True):
        os.write(writing, raw)
        if ends:
            os.close(writing)
    try:
        report = made._follow(run, job, pipes[0][0], pipes[1][0], kills)
        job.close()
        sent = b""
        while piece := theirs.recv(1 << 20):
            sent += piece
        return report, sent, made
    finally:
        job.close()
        theirs.close()
        for reading, writing in pipes:
            for fd in (reading,) if ends else (reading, writing):
                os.close(fd)
        made.close()
        control.close()


def test_streams_are_followed_to_their_ends_and_cut_at_their_own_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryCgroup, "close", lambda self: None)  # a folder of files cannot be removed as one
    body = json.dumps(DONE).encode()

    def run() -> SandboxRun:
        return SandboxRun("cell", "é", LIMITS, files={"f": "x"})

    for out, err, kept, flooded in (
        (b"", b"", (b"", b""), False), (b"12345", b"abcde", (b"12345", b"abcde"), False),
        (b"123456", b"ab", (b"12345", b"ab"), True), (b"12", b"abcdefgh", (b"12", b"abcde"), True),
        (b"1" * 9_000, b"2" * 9_000, (b"11111", b"22222"), True),
    ):  # fmt: skip
        asked = run()
        report, sent, made = followed(out, err, body, asked)
        assert report == Report(*kept, flooded, DONE) and sent == asked.packed() and asked.stopped is flooded
        assert made._process.returncode == 0, "it was left to end by itself"
    with pytest.raises(SandboxError, match=r"^the sandbox's worker ended in the middle of a run: run it again$"):
        followed(b"a", b"", body[:-1], run())
    with pytest.raises(SandboxError, match=r"^the sandbox could not be set up: why$"):
        followed(b"a", b"", b'{"broken": "why"}', run())
    for name, text in (("memory.max", ""), ("memory.current", "5"), ("memory.events", "oom_kill 3\n")):
        (tmp_path / name).write_text(text)
    for kills in (3, 4):
        with pytest.raises(SandboxError, match="in the middle of a run"):
            followed(b"a", b"", b"", run(), kills=kills, cgroup=tmp_path)
    report, _, made = followed(b"1234", b"e", b"", run(), kills=2, cgroup=tmp_path)
    assert 0 <= report.body.pop("wall_s") < 5 and made._control.fileno() == -1
    killed = {"status": None, "cpu_s": None, "peak_bytes": None}
    assert report == Report(b"1234", b"e", False, {"killed": "memory", **killed})


def test_a_run_whose_worker_is_silent_is_followed_no_longer_than_its_time_and_grace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bubblewrap, "GRACE_S", 0.06)
    began = time.monotonic()
    report, _, made = followed(b"a", b"bc", b"{", SandboxRun("python", "x", RunLimits(wall_s=0.05)), ends=False)
    assert 0.11 <= time.monotonic() - began < 5 and 0.11 <= report.body["wall_s"] < 5
    assert (report.stdout, report.stderr, report.flooded) == (b"a", b"bc", False)
    assert (report.body["killed"], report.body["cpu_s"], report.body["peak_bytes"]) == ("timeout", None, None)
    assert made._control.fileno() == -1 and not made.alive


def test_output_is_read_while_a_long_request_is_still_on_its_way() -> None:
    made, control = warm_worker()
    job, theirs = socket.socketpair()
    (out, out_w), (err, err_w) = os.pipe(), os.pipe()
    run = SandboxRun("python", "x" * 900_000, RunLimits(output_bytes=400_000, wall_s=9))
    sent: list[bytes] = []

    def answers() -> None:
        with os.fdopen(out_w, "wb") as file:
            file.write(b"o" * 300_000)  # more than a pipe takes, before a byte of the request is read
        os.close(err_w)
        while sum(map(len, sent)) < len(run.packed()):
            sent.append(theirs.recv(1 << 16))
        theirs.sendall(json.dumps(DONE).encode())
        theirs.close()

    thread = threading.Thread(target=answers, daemon=True)
    thread.start()
    try:
        report = made._follow(run, job, out, err, 0)
        thread.join(5)
    finally:
        job.close()
        for fd in (out, err):
            os.close(fd)
        made.close()
        control.close()
    assert report == Report(b"o" * 300_000, b"", False, DONE) and b"".join(sent) == run.packed()


def test_a_worker_is_closed_when_a_run_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    worker, theirs = warm_worker()

    def interrupted(*_: Any) -> Report:
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "_follow", interrupted)
    with pytest.raises(KeyboardInterrupt):
        worker.run(SandboxRun("python", "1", RunLimits()))
    assert worker._control.fileno() == -1 and not worker.alive
    assert worker._process.stderr is not None and worker._process.stderr.closed
    theirs.close()
