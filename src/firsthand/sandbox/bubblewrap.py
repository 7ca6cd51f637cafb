"""The bubblewrap tier: a warm worker inside `bwrap` namespaces, and the protocol to it.

What the worker sees: the system's programs and libraries and this Python, read-only; a /proc of its own; five harmless
devices; and nothing else of the machine, no network, no capabilities. See `worker.py` for what happens inside.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import selectors
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from firsthand.errors import SandboxError
from firsthand.message import Json
from firsthand.sandbox import seccomp
from firsthand.sandbox.memory_cgroup import open_cgroup
from firsthand.sandbox.programs.worker import as_bytes
from firsthand.sandbox.sandbox_limits import RunLimits, Workspace

WORKSPACE = "/testbed"
START_S = 30.0
LEAVE_S = 1.0
GRACE_S = 5.0
"""A worker that has not reported this long after a run's time was up is replaced; the run has timed out."""
_ETC = {
    "passwd": "sandbox:x:1000:1000::/tmp/work:/bin/sh\n",
    "group": "sandbox:x:1000:\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}


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
            command = [*self._bwrap(packages, data, workspace), "--", *_program(packages, workspace)]
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
        try:
            try:
                socket.send_fds(self._control, [b"run"], [theirs.fileno(), *given])
                theirs.close()
                while given:
                    os.close(given.pop())
                run.socket = job
                if run.stopped:  # it was stopped before it could be reached
                    run.stop()
                return self._with_kills(self._follow(run, job, out, err), kills)
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
                f"the sandbox's worker died (its memory limit cannot be set: {error}): run it again"
            ) from None

    def _with_kills(self, report: Report, before: int) -> Report:
        """The report, if the kernel has killed something for the memory limit: of a run that ended for it."""
        if self._cgroup is None or report.body["killed"] or self._cgroup.kills() == before:
            return report
        return replace(report, body=report.body | {"killed": "memory"})

    def _leave_cgroup(self) -> None:
        if self._cgroup is not None:
            self._cgroup.close()

    def _follow(self, run: SandboxRun, job: socket.socket, out: int, err: int) -> Report:
        """Send the request; read output, no more than is allowed, until both pipes and the report have ended."""
        deadline = time.monotonic() + run.limits.wall_s + GRACE_S
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
                    self.close()
                    late = {"killed": "timeout", "status": None, "cpu_s": None, "peak_bytes": None}
                    return Report(
                        bytes(received[out]),
                        bytes(received[err]),
                        flooded,
                        late | {"wall_s": run.limits.wall_s + GRACE_S},
                    )
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
        body = _parsed(bytes(received[job.fileno()]), run)
        return Report(bytes(received[out]), bytes(received[err]), flooded, body)

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

    @staticmethod
    def _bwrap(packages: Sequence[Path], data: list[int], workspace: Workspace | None) -> list[str]:
        """The command that opens the namespaces; `data` receives descriptors that must be passed on."""
        root = os.geteuid() == 0
        # As root there is no user namespace here: the worker becomes nobody, so that its processes are counted.
        command = [shutil.which("bwrap") or "bwrap"]
        command += ["--cap-drop", "ALL"]
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_SYS_ADMIN"] if root else []
        command += [] if root else ["--unshare-user", "--uid", "1000", "--gid", "1000"]
        command += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
        command += ["--hostname", "sandbox", "--die-with-parent", "--new-session", "--clearenv"]
        for name, value in _environment().items():
            command += ["--setenv", name, value]
        command += _system() + _python()
        for number, package in enumerate(packages):
            command += _shown(package.resolve(), Path(f"/packages/{number}"))
        if workspace is not None:
            command += _shown(workspace.base.resolve(), Path("/base")) if workspace.base is not None else []
            command += ["--perms", "1777", "--size", str(workspace.size_bytes), "--tmpfs", WORKSPACE]
            for folder in kept(workspace):
                command += [*_made(Path(folder)), "--dir", folder]
        for name, text in _ETC.items():
            reading, writing = os.pipe()
            os.write(writing, text.encode())
            os.close(writing)
            data.append(reading)
            command += ["--perms", "0644", "--ro-bind-data", str(reading), f"/etc/{name}"]
        for name in ("worker.py", "checker.py", "keeping.py"):
            command += ["--ro-bind", str(Path(__file__).parent / "programs" / name), f"/{name}"]
        return [*command, "--dir", "/tmp", "--proc", "/proc", *_devices(), "--remount-ro", "/", "--chdir", "/"]


def _readable(text: str) -> int:
    """A descriptor to read the text from. No process of the sandbox holds what is in it before the code reads it."""
    if not text:
        return os.open(os.devnull, os.O_RDONLY)
    memory = os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(as_bytes(text))
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
        return os.open(f"/proc/self/fd/{memory}", os.O_RDONLY)
    finally:
        os.close(memory)


def _program(packages: Sequence[Path], workspace: Workspace | None) -> list[str]:
    filter_code = seccomp.program(platform.machine())
    config = {
        "become_nobody": os.geteuid() == 0,
        "seccomp": (filter_code or b"").hex(),
        "path": [f"/packages/{number}" for number in range(len(packages))],
        "workspace": None if workspace is None else [WORKSPACE, workspace.files, kept(workspace), _prefixes()],
    }
    python = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    return [str(python), "-I", "-S", "-B", "-X", "utf8", "/worker.py", json.dumps(config)]


def kept(workspace: Workspace) -> list[str]:
    """The folders that are kept at their own places, the workspace's own among them; none if it is that one alone."""
    return list(dict.fromkeys([*workspace.folders, WORKSPACE])) if workspace.folders else []


def _environment() -> dict[str, str]:
    path = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
    return {
        "PATH": f"{sys.base_prefix}/bin:{path}",
        "HOME": "/tmp/work",
        "TMPDIR": "/tmp",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "USER": "sandbox",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _system() -> list[str]:
    """The system's programs and libraries, laid out as they are here."""
    binds = ["--ro-bind", "/usr", "/usr", "--dir", "/etc"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            binds += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            binds += ["--ro-bind", str(path), str(path)]
    binds += ["--symlink", "../usr/lib/os-release", "/etc/os-release"] if Path("/usr/lib/os-release").exists() else []
    for name in ("ld.so.cache", "alternatives"):
        binds += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    return binds


def _python() -> list[str]:
    """This Python's own installation, where it is not part of the system. A virtual environment stays outside."""
    prefix = Path(sys.base_prefix).resolve()
    if prefix == Path("/usr") or Path("/usr") in prefix.parents:
        return []
    if prefix in (Path("/"), Path.home()) or Path("/tmp") in prefix.parents:
        raise SandboxError(
            f"Python is installed in {prefix}, which cannot be shown: use one from /usr or a folder of its own"
        )
    binds = _shown(prefix, prefix)
    if str(prefix) != sys.base_prefix:
        binds += _shown(prefix, Path(sys.base_prefix))
    return binds + (_shown(Path("/nix/store"), Path("/nix/store")) if str(prefix).startswith("/nix/") else [])


def _prefixes() -> list[str]:
    """The folders where this Python is installed, outside the system's."""
    places = {str(Path(sys.base_prefix).resolve()), sys.base_prefix}
    return sorted(place for place in places if Path("/usr") not in (Path(place), *Path(place).parents))


def _shown(folder: Path, place: Path) -> list[str]:
    """A folder, read-only; the folders above it are made by name, since bwrap's own are closed to other users."""
    return [*_made(place), "--ro-bind", str(folder), str(place)]


def _made(place: Path) -> list[str]:
    """The bwrap options that make the folders above a path."""
    return [part for parent in reversed(place.parents[:-1]) for part in ("--dir", str(parent))]


def _devices() -> list[str]:
    """No terminal, no disks, no shared memory but the run's own."""
    binds = ["--tmpfs", "/dev"]
    for name in ("null", "zero", "full", "random", "urandom"):
        binds += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    links = {"/proc/self/fd": "fd", "fd/0": "stdin", "fd/1": "stdout", "fd/2": "stderr", "/tmp/shm": "shm"}
    for target, name in links.items():
        binds += ["--symlink", target, f"/dev/{name}"]
    return [*binds, "--remount-ro", "/dev"]


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
