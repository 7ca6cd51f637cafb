"""The container tiers, for machines without bubblewrap: each run is a `docker run`, with gVisor's kernel if Docker has it.

Slower than bubblewrap (a container starts for every run) and the same from outside. The image must have Python; set
`FIRSTHAND_SANDBOX_IMAGE` to use another one.
"""

from __future__ import annotations

import functools
import json
import os
import selectors
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from firsthand.errors import SandboxError
from firsthand.sandbox.bubblewrap import Report, SandboxRun
from firsthand.sandbox.programs.worker import as_bytes

IMAGE = f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"
START_S = 60.0
"""The most seconds that a container may take to start; they do not count for the run."""
GRACE_S = 5.0
"""The most seconds that its program may take to end when all has been said."""
REMOVE_S = 60.0


@functools.cache
def runtimes() -> frozenset[str]:
    """The runtimes of a Docker that answers; none if there is no Docker."""
    if shutil.which("docker") is None:
        return frozenset()
    command = ["docker", "info", "--format", "{{json .Runtimes}}"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=20, check=True)
        found = json.loads(done.stdout)
        return frozenset(found) if isinstance(found, dict) else frozenset()  # `null` where its daemon does not run
    except (OSError, subprocess.SubprocessError, ValueError):
        return frozenset()


def remove(docker: str, name: str) -> None:
    """End a container and remove it; SandboxError if docker does not answer."""
    try:
        subprocess.run([docker, "rm", "--force", name], capture_output=True, timeout=REMOVE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        raise SandboxError(
            f"{Path(docker).name} does not answer, and the container {name} may still run: remove it when it does"
        ) from None


class Container:
    """A runner that starts a container for each run."""

    alive = True

    def __init__(self, *, gvisor: bool = False, packages: Sequence[Path] = (), docker: str = "docker"):
        self.gvisor, self.packages, self.docker = gvisor, [package.resolve() for package in packages], docker

    def run(self, run: SandboxRun) -> Report:
        """Carry out a run, blocking; the container is gone when this returns."""
        name = f"firsthand-{uuid.uuid4().hex[:16]}"
        stopping, stop = socket.socketpair()
        run.socket = stop
        code = run.code
        if run.kind == "check":
            folder = Path(__file__).parent / "programs"
            names = ("passed_values", "told_errors", "checker")  # in the order in which they import each other
            code = json.dumps({name: (folder / f"{name}.py").read_text(encoding="utf-8") for name in names})
        request = {"kind": run.kind, "code": code, "files": run.files, "name": run.name, "limits": asdict(run.limits)}
        body = json.dumps(request).encode()
        new = subprocess.PIPE
        try:
            process = subprocess.Popen(self.command(run, name), stdin=new, stdout=new, stderr=new)
        except OSError as error:
            run.socket = None
            stopping.close()
            stop.close()
            raise SandboxError(f"docker does not start: {error.strerror or error}") from None
        try:
            if run.stopped:
                run.stop()
            return self._follow(run, process, stopping, len(body).to_bytes(4, "big") + body + as_bytes(run.stdin))
        finally:
            run.socket = None
            stopping.close()
            stop.close()
            try:
                remove(self.docker, name)
            finally:
                process.kill()
                process.wait()
                for pipe in (process.stdin, process.stdout, process.stderr):
                    assert pipe is not None
                    pipe.close()

    def command(self, run: SandboxRun, name: str) -> list[str]:
        """The command that starts the container: no network, no capabilities, read-only, bounded, as nobody."""
        limits = run.limits
        scratch = (
            f"/tmp:rw,nosuid,nodev,exec,mode=1777,size={limits.scratch_bytes},nr_inodes={limits.scratch_files + 4}"
        )
        command = [self.docker, "run", "--rm", "--interactive", "--init", "--name", name, "--pull", "missing"]
        command += ["--runtime", "runsc"] if self.gvisor else []
        command += ["--network", "none", "--ipc", "private", "--read-only", "--tmpfs", scratch, "--user", "65534:65534"]
        command += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--hostname", "sandbox"]
        command += ["--memory", str(limits.memory_bytes), "--memory-swap", str(limits.memory_bytes)]
        command += ["--pids-limit", str(limits.processes + 2), "--ulimit", f"nofile={limits.open_files}"]
        command += ["--ulimit", f"fsize={limits.file_bytes}", "--ulimit", "core=1"]
        command += ["--env", "HOME=/tmp/work", "--env", "PYTHONHASHSEED=0", "--env", "MALLOC_ARENA_MAX=1"]
        for number, package in enumerate(self.packages):
            command += ["--volume", f"{package}:/packages/{number}:ro"]
        source = (Path(__file__).parent / "programs" / "worker.py").read_text(encoding="utf-8")
        config = json.dumps({"once": True, "path": [f"/packages/{number}" for number in range(len(self.packages))]})
        image = os.environ.get("FIRSTHAND_SANDBOX_IMAGE", IMAGE)
        return [*command, image, "python3", "-I", "-S", "-B", "-X", "utf8", "-c", source, config]

    def close(self) -> None:
        """Nothing: no container outlives its run."""

    def _follow(
        self, run: SandboxRun, process: subprocess.Popen[bytes], stopping: socket.socket, request: bytes
    ) -> Report:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        began = time.monotonic()
        try:
            process.stdin.write(request)
            process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended already, and says why
        out, err = process.stdout.fileno(), process.stderr.fileno()
        received = {out: bytearray(), err: bytearray()}
        killed, flooded = None, False
        with selectors.DefaultSelector() as selector:
            for fileobj in (out, err, stopping):
                selector.register(fileobj, selectors.EVENT_READ)
            while len(selector.get_map()) > 1 and not killed and not flooded:
                # The wall clock proper runs inside; this one only catches a container that does not answer.
                left_s = began + START_S + run.limits.wall_s + GRACE_S - time.monotonic()
                ready = selector.select(max(0.0, left_s))
                killed = None if ready else "timeout"
                for key, _ in ready:
                    if key.fileobj is stopping:
                        killed = "stopped"
                        break
                    chunk = os.read(key.fd, 65536)
                    received[key.fd] += chunk
                    if not chunk:
                        selector.unregister(key.fileobj)
                    elif len(received[key.fd]) > run.limits.output_bytes:
                        del received[key.fd][run.limits.output_bytes :]
                        flooded = True
        status = None
        if not killed and not flooded:
            try:
                status = process.wait(GRACE_S)
            except subprocess.TimeoutExpired:  # it has said all, and does not end
                killed = "timeout"
        return self._report(bytes(received[out]), bytes(received[err]), flooded, killed, status, began)

    @staticmethod
    def _report(out: bytes, err: bytes, flooded: bool, killed: str | None, status: int | None, began: float) -> Report:
        if status in (125, 126, 127) and not out:  # docker's own: it could not start the container
            raise SandboxError(f"docker could not run the code: {err[-500:].decode(errors='replace').strip()}")
        if status == 124:  # what the program inside gives when the time is up
            killed, status = "timeout", None
        if status is not None:
            status = status - 128 if status > 128 else status << 8  # above 128 it tells a signal
        body = {"killed": killed, "status": status, "cpu_s": None, "peak_bytes": None}
        return Report(out, err, flooded, body | {"wall_s": time.monotonic() - began})
