"""Repositories of strangers that would hold git up for ever, and what git leaves behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.errors import DataError
from firsthand.sandbox import bounded_process
from firsthand.sandbox.bounded_process import Unfinished, _ticks, run_bounded
from firsthand.sandbox.git_repository import commit_alone, expect_ordinary_files

PLAIN = {"PATH": "/usr/bin:/bin"}


def bounded(script: str, **bounds: float) -> subprocess.CompletedProcess[bytes]:
    whole = {"limit_s": 30.0, "max_bytes": 1000, "idle_s": 20.0} | bounds
    return run_bounded(["sh", "-c", script], stdin=b"given", environment=PLAIN, **whole)  # type: ignore[arg-type]


def test_a_pipe_or_a_socket_in_a_git_folder_is_refused_before_git_starts(tmp_path: Path) -> None:
    bare, copy = tmp_path / "bare", tmp_path / "copy"
    for repo, folder in ((bare, bare), (copy, copy / ".git")):
        (folder / "objects" / "info").mkdir(parents=True)
        (folder / "HEAD").write_text("ref: refs/heads/main\n")
        (folder / "linked").symlink_to("HEAD")
        (folder / "gone").symlink_to("nowhere")
        expect_ordinary_files(repo)
        for name in ("packed-refs", "objects/info/alternates"):
            os.mkfifo(folder / name)
            with pytest.raises(DataError, match=f"{name}' is a pipe, a socket or a device: a repository of ordinary"):
                commit_alone(repo, "a" * 40)
            (folder / name).unlink()
    (copy / ".git" / "refs").symlink_to("/dev/null")
    with pytest.raises(DataError, match="refs' is a pipe"):
        expect_ordinary_files(copy)
    os.mkfifo(copy / "pipe")
    (copy / ".git" / "refs").unlink()
    expect_ordinary_files(copy)


@pytest.mark.slow
def test_a_program_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for script, bounds, said in (
        (f"cat {tmp_path}/pipe & echo $! > {tmp_path}/pid; wait", {"idle_s": 0.1}, "did nothing for 0.1 s: a pipe or"),
        (f"cat {tmp_path}/pipe & echo $! > {tmp_path}/pid; wait", {"limit_s": 0.2}, "did not finish within 0.2 s"),
        (f"cat {tmp_path}/pipe & echo $! > {tmp_path}/pid; cat /dev/zero", {}, "printed more than 1,000 bytes"),
    ):
        with pytest.raises(Unfinished, match=said):
            bounded(script, **bounds)
        is_gone(int((tmp_path / "pid").read_text()))
    bounded(f"cat {tmp_path}/pipe & echo $! > {tmp_path}/pid")
    is_gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(
    ("ends_s", "bounds", "said"),
    [
        (1.9, {}, None),  # it was looked at after 1 s, and then again 1 s later
        (2.5, {}, "did nothing for 1 s: a pipe or a device among its files?"),
        (2.5, {"writes_s": 1.5}, None),
        (2.5, {"limit_s": 1.5}, "did not finish within 1.5 s"),
    ],
)
def test_a_program_is_ended_once_it_did_nothing_from_one_look_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends_s: float, bounds: dict[str, float], said: str | None
) -> None:
    class Program:
        """A program in a group of no processes, on a clock that only waiting moves."""

        pid, returncode, now_s = -1, None, 0.0

        def wait(self, step_s: float) -> None:
            self.now_s += step_s
            if self.now_s >= bounds.get("writes_s", ends_s):
                (tmp_path / "written").write_bytes(b"x")
            if self.now_s < ends_s:
                raise subprocess.TimeoutExpired("program", step_s)
            self.returncode = 0  # type: ignore[assignment]

    program: Any = Program()
    monkeypatch.setattr(bounded_process, "time", SimpleNamespace(monotonic=lambda: program.now_s))
    with pytest.raises(Unfinished, match=said) if said else nullcontext():
        bounded_process._wait(program, (), bounds.get("limit_s", 30.0), 1000, 1.0, tmp_path)
    assert (program.returncode is None) == bool(said)


def is_gone(pid: int) -> None:
    """Assert that a process has ended, or is ended and not yet reaped by its new parent."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return
    assert state in ("Z", "X") or "SIGKILL" in _pending(pid)


def _pending(pid: int) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd"))]
    return "SIGKILL" if any(mask & 1 << 8 for mask in masks) else ""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_program_at_work_is_not_idle() -> None:
    done = bounded("cat; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"given", b"err\n")
    busy = subprocess.Popen(["sh", "-c", "(while :; do :; done) & wait"], start_new_session=True)
    try:
        while not _ticks(busy.pid):  # of a child in its group
            assert busy.poll() is None
    finally:
        os.killpg(busy.pid, signal.SIGKILL)
        busy.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_the_work_of_a_program_is_what_it_did_itself_and_what_the_system_did_for_it() -> None:
    busy = subprocess.Popen(
        ["dd", "if=/dev/zero", "of=/dev/null", "bs=1"], stderr=subprocess.DEVNULL, start_new_session=True
    )

    def ticks() -> tuple[int, int]:
        user, system = Path(f"/proc/{busy.pid}/stat").read_text().split()[13:15]
        return int(user), int(system)

    try:
        while ticks()[1] < 2:  # hundredths of a second in the system
            assert busy.poll() is None
        os.killpg(busy.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, busy.pid, os.WSTOPPED)
        assert _ticks(busy.pid) == sum(ticks())
    finally:
        os.killpg(busy.pid, signal.SIGKILL)
        busy.wait()


def test_a_socket_is_no_ordinary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path / ".git")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("s")
        with pytest.raises(DataError, match="s' is a pipe, a socket"):
            expect_ordinary_files(tmp_path)
