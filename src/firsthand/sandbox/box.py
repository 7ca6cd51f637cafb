"""A small machine for one attempt: commands as argument lists, files as bytes, and folders that persist between commands.

    async with Box() as box:
        await box.write("a.py", b"print(6 * 7)")
        outcome = await box.exec(["python3", "a.py"])

It is a sandbox with a workspace (`sandbox.py`): the system is read-only, there is no network, and no process outlives its
command. What is done to files is done inside, by the user that commands run as, so no path and no link leads out. When it
is closed, everything in it is gone. It needs bubblewrap.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import os
import signal
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

from firsthand.errors import SandboxError
from firsthand.message import Json
from firsthand.sandbox.sandbox import Outcome, Sandbox
from firsthand.sandbox.sandbox_limits import RunLimits, Workspace

FOLDER = "/workspace"
"""The working directory of commands."""
KEPT = (
    "/root",
    "/tmp",
    "/home",
    "/app",
    "/workspace",
    "/work",
    "/data",
    "/mnt",
    "/srv",
    "/opt",
    "/var/tmp",
    "/testbed",
)
"""The folders that can be written to, besides those a Box is given."""
LIMITS = RunLimits(
    wall_s=600,
    cpu_s=600,
    memory_bytes=2 * 2**30,
    processes=256,
    open_files=1024,
    file_bytes=512 * 2**20,
    output_bytes=10 * 2**20,
)
"""Limits of one command."""
MAX_READ = 100 * 2**20
MAX_KEPT = 4 * 2**20
"""The most bytes of a compressed `snapshot`."""


class Box:
    """The machine. Commands and file operations run one at a time, in the order of the requests."""

    def __init__(
        self,
        *,
        folder: str = FOLDER,
        folders: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        limits: RunLimits = LIMITS,
        size_bytes: int = 2**30,
        packages: Sequence[str | Path] = (),
    ):
        """Commands begin in `folder`. `folders` are kept besides `KEPT`, and `packages` can be imported and read."""
        self.folder, self.limits = folder, limits
        self.environment = {"HOME": "/root", **(environment or {})}
        self.kept = outermost([*KEPT, folder, *folders])
        workspace = Workspace(size_bytes=size_bytes, folders=self.kept)
        self._sandbox = Sandbox(limits, packages=packages, tier="bubblewrap", workspace=workspace)
        self._gate = asyncio.Lock()

    async def exec(
        self,
        words: Sequence[str],
        *,
        stdin: bytes = b"",
        folder: str = "",
        environment: Mapping[str, str] | None = None,
        wall_s: float | None = None,
        output_bytes: int | None = None,
    ) -> Outcome:
        """Runs a command given as a list of arguments, without a shell.

        Exit status 127 says that there is no such program, and 126 that it or the folder could not be used, as in a shell.
        """
        limits = self.limits
        if wall_s is not None:
            limits = replace(limits, wall_s=min(max(wall_s, 0.01), limits.wall_s))
        if output_bytes is not None:
            limits = replace(limits, output_bytes=output_bytes)
        given = {
            "words": list(words),
            "folder": self._at(folder),
            "environment": {**self.environment, **(environment or {})},
        }
        return await self._run("exec", given, stdin, limits)

    async def read(self, path: str, *, most: int = MAX_READ) -> bytes:
        """The content of an ordinary file; OSError if it cannot be read, ValueError if it is longer than `most`."""
        limits = replace(self.limits, output_bytes=max(2**20, 2 * most))
        head, _, body = (await self._told("read", {"path": self._at(path), "most": most}, b"", limits, path)).partition(
            ":"
        )
        if head == "long":
            raise ValueError(f"{path!r} has {body} bytes: at most {most} are read")
        return _decoded(body, most)

    async def write(self, path: str, content: bytes) -> None:
        """Put the content into a file, made with the folders on its way if it is not there; OSError if that fails."""
        await self._told("write", {"path": self._at(path)}, content, self.limits, path)

    async def seen(self) -> Json:
        """The files in the kept folders now, by path, for `snapshot` to compare with."""
        return dict(json.loads(await self._told("seen", {"folders": list(self.kept)}, b"", self._wide(), "")))

    async def snapshot(self, since: Json, *, most: int = MAX_KEPT) -> str:
        """The changes in the kept folders, as text; ValueError if they exceed `most` bytes."""
        given = {"folders": list(self.kept), "most": most}
        said = await self._told("snapshot", given, json.dumps(since).encode(), self._wide(), "")
        head, _, body = said.partition(":")
        if head == "long":
            raise ValueError(f"what was left in the sandbox is more than {most} bytes, compressed")
        return body

    async def restore(self, snapshot: str) -> None:
        """Make the changes that a snapshot holds."""
        await self._told("restore", {"folders": list(self.kept)}, snapshot.encode(), self._wide(), "")

    async def close(self) -> None:
        """End it, and everything in it."""
        await asyncio.to_thread(self._sandbox.close)

    async def __aenter__(self) -> Box:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _at(self, path: str) -> str:
        return f"{PurePosixPath(self.folder) / path}" if path else self.folder

    def _wide(self) -> RunLimits:
        return replace(self.limits, output_bytes=64 * 2**20)

    async def _run(self, do: str, given: Json, stdin: bytes, limits: RunLimits) -> Outcome:
        text = json.dumps([do, given])  # ASCII: what no encoding knows is escaped in it
        code = f"import box_inside\nbox_inside.main({text!r})\n"  # the worker has it
        async with self._gate:
            text = stdin.decode("utf-8", "surrogateescape")
            return await self._sandbox.python(code, stdin=text, limits=limits, ours=True)

    async def _told(self, do: str, given: Json, stdin: bytes, limits: RunLimits, path: str) -> str:
        """The result of a function of `box_inside.py`; OSError if it failed with one."""
        outcome = await self._run(do, given, stdin, limits)
        head, _, body = outcome.stdout.partition(" ")
        if outcome.ok and head == "ok":
            return body
        if outcome.ok and head == "errno" and body.isdecimal() and len(body) < 6:
            raise OSError(int(body), os.strerror(int(body)), path)
        if outcome.ended in ("timeout", "memory", "output"):
            raise OSError(errno.EIO, f"not done within the limit: {outcome.ended}", path)
        words = outcome.stderr.strip().rpartition("\n")[2][:200]
        raise SandboxError(f"the sandbox could not {do} {path!r}: {words or outcome.ended}")


def exit_status(outcome: Outcome) -> int:
    """The exit status as in a shell: 128 plus the signal that ended it, 137 if a limit did."""
    if outcome.exit_status is None:
        return 128 + signal.SIGKILL
    return outcome.exit_status if outcome.exit_status >= 0 else 128 - outcome.exit_status


def outermost(folders: Sequence[str]) -> tuple[str, ...]:
    """The outermost of the folders, in order."""
    clean = list(dict.fromkeys(str(PurePosixPath(folder)) for folder in folders))
    return tuple(
        each for each in clean if not any(each != other and Path(each).is_relative_to(other) for other in clean)
    )


def _decoded(body: str, most: int) -> bytes:
    """The content that the sandbox sent, which may be a program's own; SandboxError if it is longer than `most` bytes."""
    unpacker, found = zlib.decompressobj(), b""
    with suppress(ValueError, zlib.error):
        found = unpacker.decompress(base64.b64decode(body, validate=True), most + 1)
    if not unpacker.eof or len(found) > most:
        raise SandboxError("the sandbox said what it should not: a file could not be read")
    return found
