"""The bubblewrap tier: a warm worker inside `bwrap` namespaces, and the protocol to it.

What the worker sees: the system's programs and libraries and this Python, read-only; a /proc of its own; five harmless
devices; and nothing else of the machine, no network, no capabilities. See `worker.py` for what happens inside.
"""

from __future__ import annotations

import fcntl
import json
import os
import selectors
import socket
import struct
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from firsthand.errors import SandboxError, reason_of
from firsthand.message import Json
from firsthand.sandbox.bwrap_command import bwrap_command
from firsthand.sandbox.memory_cgroup import open_cgroup
from firsthand.sandbox.programs.worker import as_bytes
from firsthand.sandbox.sandbox_limits import RunLimits, Workspace

START_S = 30.0
LEAVE_S = 1.0
GRACE_S = 30.0
"""A worker that has not reported this long after a run's time was up is replaced, and a Box loses its folder with it."""


@dataclass(eq=False)
class SandboxRun:
    """One piece of code to run, and the means to stop it from another thread."""

    kind: str
    """`python`, `cell` (prints the value of its last expression), `shell`, `program` (Python of ours, which imports nothing
    from the scratch folder), or `check` (runs `checker.py`)."""
    code: str
    limits: RunLimits
    stdin: str = ""
    files: dict[str, str] = field(default_factory=dict)
    name: str = "<python>"
    folder: str = ""
    """The working directory of a shell command, if not the scratch folder."""
    stopped: bool = False
    socket: socket.socket | None = None

    def stop(self) -> None:
        """Kill what runs, or keep it from starting; safe from any thread, and more than once."""
        self.stopped = True
        if self.socket is not None:
            with suppress(OSError):  # it has ended already
                self.socket.shutdown(socket.SHUT_WR)

    def packed(self) -> bytes:
        """The request as the worker reads it."""
        body = {"kind": self.kind, "code": self.code, "files": self.files, "name": self.name, "folder": self.folder}
        raw = json.dumps(body | {"limits": asdict(self.limits)}).encode()
        return struct.pack("!I", len(raw)) + raw


@dataclass
class Report:
    """The outcome of a run."""

    stdout: bytes
    stderr: bytes
    flooded: bool
    """True if it was killed for writing more than allowed."""
    body: Json


class WarmWorker:
    """A warm worker process: one run at a time."""

    def __init__(self, packages: Sequence[Path] = (), workspace: Workspace | None = None):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control = ours
        self._kept_bytes = 0 if workspace is None else workspace.size_bytes
        self._cgroup = open_cgroup()
        data: list[int] = []
        try:
            command = bwrap_command(packages, workspace, data)
            command = command if self._cgroup is None else self._cgroup.entering(command)
            self._process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=data,
                env={},
            )
        except OSError as error:
            ours.close()
            self._leave_cgroup()
            raise SandboxError(f"bwrap does not start: {error.strerror or error}") from None
        except SandboxError:
            ours.close()
            self._leave_cgroup()
            raise
        finally:
            theirs.close()
            for fd in data:
                os.close(fd)
        self._await_ready()

    @property
    def pid(self) -> int:
        """The process id of bwrap, whose death ends everything inside."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """True if it can take a run."""
        return self._process.poll() is None

    def run(self, run: SandboxRun) -> Report:
        """Carry out a run, blocking; SandboxError if the sandbox itself failed. The worker is closed then."""
        kills = self._allow_memory(run.limits)
        job, theirs = socket.socketpair()
        out, out_w = os.pipe()
        err, err_w = os.pipe()
        given = [_readable(run.stdin), out_w, err_w]
        for fd in (out_w, err_w):  # as root the code is another user, who may open /dev/stdout to write
            os.fchmod(fd, 0o622)
        try:
            try:
                socket.send_fds(self._control, [b"run"], [theirs.fileno(), *given])
                theirs.close()
                while given:
                    os.close(given.pop())
                run.socket = job
                if run.stopped:  # it was stopped before it could be reached
                    run.stop()
                return self._with_kills(self._follow(run, job, out, err, kills), kills)
            except OSError as error:
                self.close()
                raise SandboxError(f"the sandbox's worker died ({error.strerror or error}): run it again") from None
            except BaseException:
                self.close()
                raise
        finally:
            run.socket = None
            job.close()
            theirs.close()
            for fd in (out, err, *given):
                os.close(fd)

    def _allow_memory(self, limits: RunLimits) -> int:
        """Bound the memory of what runs next, its files included; returns how often the bound has been met before."""
        if self._cgroup is None:
            return 0
        try:
            self._cgroup.allow(limits.memory_bytes + limits.scratch_bytes + self._kept_bytes)
            return self._cgroup.kills()
        except (OSError, ValueError) as error:
            self.close()
            raise SandboxError(
                f"the sandbox's worker died (its memory limit cannot be set: {reason_of(error)}): run it again"
            ) from None

    def _with_kills(self, report: Report, before: int) -> Report:
        """The report, if the kernel has killed something for the memory limit: of a run that ended for it."""
        if report.body["killed"] or not self._killed_since(before):
            return report
        return replace(report, body=report.body | {"killed": "memory"})

    def _killed_since(self, before: int) -> bool:
        """True if the kernel has killed something for the memory limit."""
        try:
            return self._cgroup is not None and self._cgroup.kills() > before
        except OSError:
            return False

    def _leave_cgroup(self) -> None:
        if self._cgroup is not None:
            self._cgroup.close()

    def _follow(self, run: SandboxRun, job: socket.socket, out: int, err: int, kills: int) -> Report:
        """Send the request; read output, no more than is allowed, until both pipes and the report have ended."""
        began = time.monotonic()
        deadline = began + run.limits.wall_s + GRACE_S
        request = memoryview(run.packed())
        received = {out: bytearray(), err: bytearray(), job.fileno(): bytearray()}
        flooded = False
        job.setblocking(False)
        with selectors.DefaultSelector() as selector:
            selector.register(job, selectors.EVENT_READ | selectors.EVENT_WRITE)
            selector.register(out, selectors.EVENT_READ)
            selector.register(err, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready and time.monotonic() >= deadline:
                    # What the code left keeps the supervisor busy: that is the code's fault, and the worker is replaced.
                    self._process.kill()
                    return self._replaced("timeout", began, received[out], received[err], flooded)
                for key, events in ready:
                    if events & selectors.EVENT_WRITE:
                        request = request[_send(job, request) :]
                        if not request:
                            selector.modify(job, selectors.EVENT_READ)
                    if events & selectors.EVENT_READ:
                        chunk = job.recv(65536) if key.fd == job.fileno() else os.read(key.fd, 65536)
                        received[key.fd] += chunk
                        if not chunk:
                            selector.unregister(key.fileobj)
                        elif key.fd != job.fileno() and len(received[key.fd]) > run.limits.output_bytes:
                            del received[key.fd][run.limits.output_bytes :]
                            flooded = True
                            run.stop()
        try:
            body = _parsed(bytes(received[job.fileno()]), run)
        except SandboxError:
            if not self._killed_since(kills):
                raise
            # The kernel killed a process of ours for memory that the code holds: that is the code's fault too.
            return self._replaced("memory", began, received[out], received[err], flooded)
        return Report(bytes(received[out]), bytes(received[err]), flooded, body)

    def _replaced(self, killed: str, began: float, out: bytearray, err: bytearray, flooded: bool) -> Report:
        """The report of a run that took the worker with it, which is closed."""
        self.close()
        body = {"killed": killed, "status": None, "cpu_s": None, "peak_bytes": None, "wall_s": time.monotonic() - began}
        return Report(bytes(out), bytes(err), flooded, body)

    def close(self) -> None:
        """End the worker and everything in it; nothing is left when this returns."""
        self._control.close()  # on which the zygote leaves, and bubblewrap after it, with nothing left for others to reap
        try:
            self._process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._leave_cgroup()

    def _await_ready(self) -> None:
        self._control.settimeout(START_S)
        try:
            ready = self._control.recv(16)
        except OSError:
            ready = b""
        self._control.settimeout(None)
        if ready != b"ready":
            self._process.kill()
            assert self._process.stderr is not None
            words = self._process.stderr.read(4000).decode(errors="replace").strip()
            self.close()
            raise SandboxError(f"the bubblewrap sandbox does not start here: {words or 'it said nothing'}")


def _readable(text: str) -> int:
    """A descriptor to read the text from. No process of the sandbox holds what is in it before the code reads it.

    Where there is none it is an empty file and not /dev/null, whose times and locks the code would share with the host.
    """
    memory = os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(as_bytes(text))
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
        return os.open(f"/proc/self/fd/{memory}", os.O_RDONLY)
    finally:
        os.close(memory)


def _send(job: socket.socket, request: memoryview) -> int:
    try:
        return job.send(request)
    except BlockingIOError:
        return 0
    except OSError:  # stopped, or the supervisor has gone: what it says, or does not say, comes by reading
        return len(request)


def _parsed(raw: bytes, run: SandboxRun) -> dict[str, Any]:
    try:
        body: dict[str, Any] = json.loads(raw)
    except ValueError:
        if run.stopped:  # before the request was whole
            return {"killed": "stopped", "status": None, "cpu_s": 0.0, "wall_s": 0.0, "peak_bytes": 0}
        raise SandboxError("the sandbox's worker ended in the middle of a run: run it again") from None
    if "broken" in body and run.stopped:  # the same
        return {"killed": "stopped", "status": None, "cpu_s": 0.0, "wall_s": 0.0, "peak_bytes": 0}
    if "broken" in body:
        raise SandboxError(f"the sandbox could not be set up: {body['broken']}")
    return body
