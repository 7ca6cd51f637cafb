"""A workspace with a repository at one commit, in the bubblewrap sandbox or a container.

Both look the same from inside: the working copy is `/testbed`, the commit as it was is kept apart from it, and files that
come with a command lie in `/tmp/work`. In the sandbox the working copy is in memory, the system is read-only and there is no
network. A container is one of a task's own image, whose system the command may change; it is gone with the place.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from firsthand.errors import DataError, SandboxError, ToolError
from firsthand.loop.concurrency import in_thread
from firsthand.message import Json
from firsthand.sandbox.container import remove
from firsthand.sandbox.git_repository import CONFIG
from firsthand.sandbox.sandbox import Ended, Outcome, Sandbox, checked
from firsthand.sandbox.sandbox_limits import RunLimits, Workspace

ROOT = "/testbed"
START_S = 3600.0
"""An image of some gigabytes may have to be fetched first."""
ENDING_S = 30.0
_IMAGE = re.compile(
    r"(?:[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]+)?/)?"
    r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[A-Za-z0-9]+:[0-9a-f]{32,128})?"
)
"""The name of an image, as its specification has it: no option of docker's, and no transport of podman's (`dir:/path`)."""
_INSIDE = Path(__file__).parent / "programs" / "inside.py"


class Workplace(Protocol):
    """Runs commands, one at a time, in `/testbed`."""

    base: str
    """The git folder of the commit as it was, apart from the working copy."""

    async def shell(
        self, command: str, *, stdin: str = "", files: Mapping[str, str] | None = None, limits: RunLimits | None = None
    ) -> Outcome:
        """The outcome of a command; `files` lie in `/tmp/work`."""

    async def close(self) -> None:
        """Leave nothing behind."""


class SandboxPlace:
    """A workplace in the sandbox."""

    base = "/base"

    def __init__(self, repository: Path, *, packages: Sequence[str | Path] = (), limits: RunLimits | None = None):
        self._sandbox = Sandbox(
            limits,
            packages=packages,
            tier="bubblewrap" if shutil.which("bwrap") else None,
            workspace=Workspace(repository),
        )
        self._gate = asyncio.Lock()

    async def open(self) -> None:
        """Check the commit out; SandboxError if that fails."""
        made = await self.shell(_CHECK_OUT, limits=RunLimits(wall_s=120, cpu_s=120, memory_bytes=2**31))
        if not made.ok:
            raise SandboxError(f"the repository could not be checked out in the sandbox: {_last_words(made)}")

    async def shell(
        self, command: str, *, stdin: str = "", files: Mapping[str, str] | None = None, limits: RunLimits | None = None
    ) -> Outcome:
        """The outcome of a command."""
        given = {".gitconfig": CONFIG, **(files or {})}
        async with self._gate:
            return await self._sandbox.shell(command, stdin=stdin, files=given, limits=limits)

    async def close(self) -> None:
        """End the sandbox, and with it the working copy."""
        await asyncio.to_thread(self._sandbox.close)


_CHECK_OUT = """set -e
cp -r /base .git
rm -f .git/shallow.lock
git config core.bare false
git reset --quiet --hard HEAD
"""


class ContainerPlace:
    """A workplace in a container of an image that holds the repository in `/testbed`, by `docker` or `podman`.

    The container lives as long as the pipe that we hold to it, so it goes when we do, `kill -9` included.
    """

    base = "/firsthand.git"

    def __init__(self, image: str, *, network: bool = False, limits: RunLimits | None = None, engine: str = ""):
        expect_image_name(image)
        self.image, self.network, self.limits = image, network, limits or RunLimits()
        self.engine = engine or container_engine()
        self.name = f"firsthand-{uuid.uuid4().hex[:16]}"
        self._process: subprocess.Popen[bytes] | None = None
        self._gate = asyncio.Lock()

    def command(self) -> list[str]:
        """The command that starts the container: no capabilities, no new privileges, bounded; the network only if asked."""
        limits = self.limits
        command = [self.engine, "run", "--rm", "--interactive", "--init", "--name", self.name, "--pull", "missing"]
        command += [] if self.network else ["--network", "none"]
        command += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--hostname", "testbed"]
        command += ["--memory", str(limits.memory_bytes), "--memory-swap", str(limits.memory_bytes)]
        command += ["--pids-limit", str(limits.processes), "--ulimit", "core=0", "--workdir", ROOT]
        return [*command, self.image, "sh", "-c", "echo ready; exec cat"]

    async def open(self) -> None:
        """Start the container and keep its commit apart; SandboxError if it does not start."""
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(self.command(), stdin=pipe, stdout=pipe, stderr=pipe)
        except OSError as error:
            raise SandboxError(f"{self.engine} does not start: {error.strerror or error}") from None
        try:
            async with asyncio.timeout(START_S):
                said = await in_thread(self._process.stdout.readline)  # type: ignore[union-attr]
        except TimeoutError:
            said = b""
        if said != b"ready\n":
            self._process.kill()
            assert self._process.stderr is not None
            words = (await in_thread(self._process.stderr.read))[-500:].decode("utf-8", "replace").strip()
            raise SandboxError(f"no container of {self.image} starts: {words or 'it said nothing'}")
        kept = await self.shell(_KEEP, limits=RunLimits(wall_s=600))
        if not kept.ok:
            raise SandboxError(f"the image {self.image} holds no repository in {ROOT}: {_last_words(kept)}")

    async def shell(
        self, command: str, *, stdin: str = "", files: Mapping[str, str] | None = None, limits: RunLimits | None = None
    ) -> Outcome:
        """The outcome of a command, run by bash with the image's conda environment, if it has one."""
        async with self._gate:
            for name, text in checked(files or {}).items():
                place = f'mkdir -p "$(dirname "/tmp/work/{name}")" && cat > "/tmp/work/{name}"'
                written = await self._exec(["sh", "-c", place], text, RunLimits(wall_s=120))
                if not written.ok:
                    raise SandboxError(f"a file could not be put into the container: {_last_words(written)}")
            bound = limits or self.limits
            wall = ["timeout", "--kill-after=5", f"{bound.wall_s:g}"]
            return await self._exec([*wall, "bash", "-c", _CONDA + command], stdin, bound)

    async def _exec(self, words: list[str], stdin: str, limits: RunLimits) -> Outcome:
        stopping = asyncio.Event()
        try:
            return await in_thread(lambda: self._run(words, stdin.encode("utf-8", "surrogateescape"), limits, stopping))
        except asyncio.CancelledError:
            stopping.set()
            raise

    def _run(self, words: list[str], stdin: bytes, limits: RunLimits, stopping: asyncio.Event) -> Outcome:
        """Run a command in the container, blocking; no more of its output is kept than is allowed."""
        import selectors

        if self._process is None or self._process.poll() is not None:
            raise SandboxError(f"the container of {self.image} is gone: begin again")
        command = [self.engine, "exec", "--interactive", "--workdir", ROOT, self.name, *words]
        pipe, began = subprocess.PIPE, time.monotonic()
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
            assert process.stdin is not None and process.stdout is not None and process.stderr is not None
            out, err, given = process.stdout.fileno(), process.stderr.fileno(), process.stdin.fileno()
            os.set_blocking(given, False)
            received, left, ended = {out: bytearray(), err: bytearray()}, memoryview(stdin), ""
            with selectors.DefaultSelector() as selector:
                for fd in (out, err):
                    selector.register(fd, selectors.EVENT_READ)
                selector.register(given, selectors.EVENT_WRITE)
                while selector.get_map() and not ended:
                    for key, _ in selector.select(0.1):
                        if key.fd == given:
                            left = left[_written(given, left) :]
                            if not left:
                                selector.unregister(given)
                                process.stdin.close()
                            continue
                        chunk = os.read(key.fd, 65536)
                        received[key.fd] += chunk
                        if not chunk:
                            selector.unregister(key.fd)
                        elif len(received[key.fd]) > limits.output_bytes:
                            del received[key.fd][limits.output_bytes :]
                            ended = "output"
                    if stopping.is_set():
                        ended = "killed"
                    if time.monotonic() - began > limits.wall_s + ENDING_S:
                        ended = "timeout"
            if ended:
                process.kill()
            status = process.wait()
        return self._outcome(received[out], received[err], ended, status, time.monotonic() - began)

    @staticmethod
    def _outcome(out: bytearray, err: bytearray, ended: str, status: int, wall_s: float) -> Outcome:
        ending: Ended = "done" if status == 0 else "error"
        if ended:
            ending = ended  # type: ignore[assignment]
        elif status in (124, 137):
            ending = "timeout" if status == 124 else "killed"
        stdout, stderr = (each.decode("utf-8", "replace") for each in (bytes(out), bytes(err)))
        return Outcome(ending, None if ended else status, stdout, stderr, wall_s, None, None, "docker")

    async def close(self) -> None:
        """Remove the container."""
        await in_thread(self._close)

    def _close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            remove(self.engine, self.name)
        finally:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


_KEEP = f"""set -e
cp -r {ROOT}/.git {ContainerPlace.base}
keep() {{
  git --git-dir={ContainerPlace.base} --work-tree={ROOT} -c safe.directory='*' -c core.hooksPath=/dev/null -c gc.auto=0 \\
    -c user.name=base -c user.email=base -c commit.gpgsign=false "$@"
}}
keep add --all .
keep commit --quiet --no-verify --allow-empty --message base
"""
"""Images hold changes that were never committed, made when they were built: they are part of the base, not of the patch."""
_CONDA = (
    "if [ -f /opt/miniconda3/bin/activate ]; then . /opt/miniconda3/bin/activate; conda activate testbed; fi "
    ">/dev/null 2>&1\n"
)


def expect_image_name(image: str) -> None:
    """DataError if a text is no name of a container image."""
    if len(image) > 500 or not _IMAGE.fullmatch(image):
        raise DataError(f"the image is {image[:80]!r}: a name such as ghcr.io/owner/name:tag was expected")


def container_engine() -> str:
    """`docker` or `podman`, whichever is installed; SandboxError if neither is."""
    found = shutil.which("docker") or shutil.which("podman")
    if found is None:
        raise SandboxError(
            "this task runs in its own image, and neither docker nor podman was found: install one of them"
        )
    return found


async def work(place: Workplace, do: str, **given: Any) -> Any:
    """The result of one of the functions of `inside.py`, run in the place; ToolError with what it found wrong."""
    request = json.dumps({"do": do, "with": {"root": ROOT, **given}})
    limits = RunLimits(
        wall_s=120, cpu_s=120, memory_bytes=2**31, output_bytes=8 * 2**20, scratch_bytes=2**29, scratch_files=200_000
    )
    files = {"inside.py": _INSIDE.read_text(encoding="utf-8")}
    outcome = await place.shell("exec python3 -I /tmp/work/inside.py", stdin=request, files=files, limits=limits)
    try:
        answer: Json = json.loads(outcome.stdout)
    except ValueError:
        raise ToolError(f"the working copy could not be read: {_last_words(outcome)}") from None
    if "problem" in answer:
        raise ToolError(str(answer["problem"])[:2000])
    return answer["result"]


def _last_words(outcome: Outcome) -> str:
    words = outcome.stderr.strip().rpartition("\n")[2][:300]
    return words or f"it ended with {outcome.ended}, status {outcome.exit_status}"


def _written(fd: int, data: memoryview) -> int:
    try:
        return os.write(fd, data[:65536]) if data else 0
    except BlockingIOError:
        return 0
    except OSError:  # it does not read any more
        return len(data)
