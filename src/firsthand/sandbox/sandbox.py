"""Untrusted code runs here and nowhere else: Python or a shell command in, an Outcome out.

    async with Sandbox() as sandbox:
        outcome = await sandbox.python("print(6 * 7)")

Every run is fresh: nothing that one leaves can be seen by the next, unless the sandbox is given a workspace to keep.
What isolates it is the tier: bubblewrap where it is installed, otherwise Docker (with gVisor's runtime if Docker has it).
Where there is none, the code is not run.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import secrets
import shutil
import signal
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol

from firsthand.errors import ConfigError, SandboxError
from firsthand.sandbox import bubblewrap, container, monty
from firsthand.sandbox.bubblewrap import Report, SandboxRun
from firsthand.sandbox.bwrap_command import WORKSPACE
from firsthand.sandbox.memory_share import machine_share
from firsthand.sandbox.sandbox_limits import RunLimits, Workspace

Tier = Literal["bubblewrap", "gvisor", "docker", "monty"]
Ended = Literal["done", "error", "timeout", "memory", "output", "killed"]
PACKAGES = "FIRSTHAND_SANDBOX_PACKAGES"
"""Names virtual environments, or folders to import from, that the shared sandbox shows to the code it runs."""
INSTALL = "install it (Debian, Ubuntu: apt install bubblewrap; Fedora: dnf install bubblewrap; macOS: Docker)"


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run."""

    ended: Ended
    """`done`: exit status 0. `error`: another exit status, or an exception. `timeout`, `memory`, `output`: that limit was
    reached. `killed`: a signal ended it, which it may have sent itself."""
    exit_status: int | None
    """0 to 255, or the negative number of the signal, or None if it was stopped from outside."""
    stdout: str
    stderr: str
    wall_s: float
    cpu_s: float | None
    peak_bytes: int | None
    """Memory at its highest, as sampled, and at least that of the largest process."""
    tier: Tier

    @property
    def ok(self) -> bool:
        """True if it ended by itself with exit status 0."""
        return self.ended == "done"


def joined_streams(stdout: str, stderr: str) -> str:
    """stdout, and stderr below it on lines of its own, so that no word or number of one goes on in the other."""
    between = "\n" if stdout and stderr and not stdout.endswith("\n") else ""
    return f"{stdout}{between}{stderr}"


class SandboxRunner(Protocol):
    """Carries out one run at a time."""

    @property
    def alive(self) -> bool:
        """True if it can take a run."""

    def run(self, run: SandboxRun) -> Report:
        """Carry it out, blocking."""

    def close(self) -> None:
        """Leave nothing behind."""


class Sandbox:
    """Runs untrusted code. Workers start when first needed and stay warm until it is closed."""

    def __init__(
        self,
        limits: RunLimits | None = None,
        *,
        workers: int | None = None,
        packages: Sequence[str | Path] = (),
        tier: Literal["bubblewrap", "gvisor", "docker"] | None = None,
        workspace: Workspace | None = None,
    ):
        """`workers` runs go on at once (one for each processor); `packages` are folders that may be read and imported.

        A virtual environment among `packages` stands for its `site-packages`. What such a folder's native libraries need
        beside it is not shown, and its `.pth` files are not read. With a `workspace` runs go one at a time, and shell
        commands begin in that folder, which they may change. It lives in the worker: if that is lost, so is the workspace,
        and each further run is a SandboxError.
        """
        self.limits = limits or RunLimits()
        self.tier: Tier = tier or available()
        folders = [site_packages(Path(package)) for package in packages]
        self._folder = WORKSPACE if workspace else ""
        self._begin = "/" if workspace and workspace.folders else ""  # ~ may be gone, where /tmp is kept
        if workspace and self.tier != "bubblewrap":
            raise SandboxError(f"a workspace needs bubblewrap, and the tier is {self.tier}: {INSTALL}")
        base = [workspace.base] if workspace and workspace.base else []
        for folder in [*folders, *base]:
            if not folder.is_dir():
                raise ConfigError(f"packages names {str(folder)!r}, which is no folder: give one such as site-packages")
            if os.geteuid() == 0 and folder.stat().st_mode & 0o005 != 0o005:
                raise ConfigError(
                    f"{str(folder)!r} is closed to other users, and under root code runs as nobody: chmod o+rx it"
                )
        self._pool = _Pool(self.tier, folders, 1 if workspace else workers or os.cpu_count() or 1, workspace)
        self._finalizer = weakref.finalize(self, self._pool.close)

    async def python(
        self,
        code: str,
        *,
        stdin: str = "",
        files: Mapping[str, str] | None = None,
        limits: RunLimits | None = None,
        cell: bool = False,
        pure: bool = False,
        ours: bool = False,
        name: str = "<python>",
    ) -> Outcome:
        """Runs Python code as `__main__`; `cell` prints the value of a last expression, as a notebook does.

        `ours` says that the code is a trusted program that works on untrusted files: it imports none of them.

        `pure` says that the code only computes: it is tried on the Monty interpreter first, where that is installed, and
        whatever does not end well there is run again on CPython, whose result counts.
        """
        kind = "program" if ours else "cell" if cell else "python"
        run = SandboxRun(kind, code, limits or self.limits, stdin, checked(files or {}), name, self._begin)
        tried = await _on_monty(run) if pure and not stdin and not files else None
        return tried or await self._carry_out(run)

    async def shell(
        self,
        command: str,
        *,
        stdin: str = "",
        files: Mapping[str, str] | None = None,
        limits: RunLimits | None = None,
    ) -> Outcome:
        """Runs a command by `sh` in an empty folder that is deleted afterwards, or in the workspace.

        `files` lie in the folder `~`, which is the empty one.
        """
        run = SandboxRun("shell", command, limits or self.limits, stdin, checked(files or {}), folder=self._folder)
        return await self._carry_out(run)

    async def check(
        self,
        answer: str,
        tests: str,
        *,
        setup: str = "",
        names: Sequence[str] = (),
        load_s: float | None = None,
        limits: RunLimits | None = None,
    ) -> Outcome:
        """Runs `tests`, which raise if the code of `answer` is wrong; `done` says that all passed.

        The two run in processes apart, with only plain values between them, so an answer can fail its tests but not change,
        read or end them. `setup` is what the tests need besides the answer; what they use and nobody defines is the
        answer's, and so are `names`, even if Python has them too: a function, a plain value, or a NameError if it has none.
        `load_s` limits the seconds until the answer's last statement, before the tests call it.
        """
        proof = secrets.token_hex(32)
        given = json.dumps({"tests": tests, "setup": setup, "names": list(names), "load_s": load_s, "proof": proof})
        run = SandboxRun("check", "", limits or self.limits, given, {"answer.py": answer}, "<tests>")
        return _proved(await self._carry_out(run), proof)

    async def _carry_out(self, run: SandboxRun) -> Outcome:
        future = self._pool.submit(run)
        running = asyncio.wrap_future(future)
        try:
            return outcome_of(await asyncio.shield(running), run, self.tier)
        except asyncio.CancelledError:
            run.stop()
            future.cancel()
            await asyncio.wait([running])
            with suppress(BaseException):
                running.exception()
            raise

    def close(self) -> None:
        """Stop all runs and workers; no process is left when this returns."""
        self._finalizer()

    async def __aenter__(self) -> Sandbox:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Pool:
    """Threads, each of which holds a warm runner while it carries out a run. It does not know its Sandbox, which may be
    collected while it lives."""

    def __init__(self, tier: Tier, packages: list[Path], size: int, workspace: Workspace | None = None):
        self.tier, self.packages, self.workspace = tier, packages, workspace
        self.opened = False
        self.lock = threading.Lock()
        self.idle: list[SandboxRunner] = []
        self.running: set[SandboxRun] = set()
        self.closing = threading.Event()
        # A worker dies with the thread that started it (PR_SET_PDEATHSIG), so the threads must live as long as the pool.
        self.executor = ThreadPoolExecutor(size, thread_name_prefix="firsthand-sandbox")

    def submit(self, run: SandboxRun) -> Any:
        """The future of a run's report."""
        with self.lock:
            if self.closing.is_set():
                raise SandboxError("this sandbox is closed: open another one")
            return self.executor.submit(self.carry_out, run)

    def carry_out(self, run: SandboxRun) -> Report:
        with self.lock:
            if self.closing.is_set():
                raise SandboxError("this sandbox was closed before the code was run")
            self.running.add(run)
            runner = self.idle.pop() if self.idle else None
        try:
            if runner is None or not runner.alive:  # the second: it died while it was idle
                if runner is not None:
                    runner.close()
                runner = self.open()
            share = (
                machine_share().take(run.limits.memory_bytes, lambda: run.stopped)
                if run.kind == "check"
                else nullcontext()
            )
            with share:
                report = runner.run(run)
        except BaseException:
            if runner is not None:
                runner.close()
            raise
        finally:
            with self.lock:
                self.running.discard(run)
        with self.lock:
            if not self.closing.is_set():
                self.idle.append(runner)
                return report
        runner.close()
        return report

    def open(self) -> SandboxRunner:
        if self.workspace is not None and self.opened:
            raise SandboxError("the worker that held this workspace is gone, and the workspace with it: begin again")
        self.opened = True
        if self.tier == "bubblewrap":
            return bubblewrap.WarmWorker(self.packages, self.workspace)
        return container.Container(gvisor=self.tier == "gvisor", packages=self.packages)

    def close(self) -> None:
        with self.lock:
            self.closing.set()
            idle, self.idle = self.idle, []
            for run in self.running:
                run.stop()
        for runner in idle:
            runner.close()
        self.executor.shutdown(wait=threading.current_thread() not in self.executor._threads, cancel_futures=True)


def _proved(outcome: Outcome, proof: str) -> Outcome:
    """The outcome of a check: `done` only where the tests' process wrote the proof, which is taken out of its output."""
    before, found, after = outcome.stdout.rpartition(proof)
    if found:
        return replace(outcome, stdout=before + after)
    if outcome.ended != "done":
        return outcome
    return replace(outcome, ended="error", stderr=f"{outcome.stderr}the tests did not run to their last line\n")


async def _on_monty(run: SandboxRun) -> Outcome | None:
    tried = await monty.attempt(run)
    return None if tried is None else Outcome("done", 0, tried.stdout, "", tried.wall_s, None, None, "monty")


def available() -> Tier:
    """The strongest tier that is usable here; SandboxError saying what to install if there is none."""
    if sys.platform == "linux" and shutil.which("bwrap"):
        return "bubblewrap"
    runtimes = container.runtimes()
    if "runsc" in runtimes:
        return "gvisor"
    if runtimes:
        return "docker"
    raise SandboxError(
        f"untrusted code is not run without a sandbox, and neither bwrap nor a running Docker was found: {INSTALL}"
    )


@functools.cache
def _shared(pid: int, packages: tuple[Path, ...]) -> Sandbox:
    return Sandbox(packages=packages)


def shared_sandbox() -> Sandbox:
    """The sandbox that the tools and scorers of this process share; it is closed when the process ends.

    Its code may import from what `FIRSTHAND_SANDBOX_PACKAGES` names: virtual environments or folders, with `:` between.
    """
    return _shared(os.getpid(), shared_packages())  # a forked child must not talk to the workers of its parent


def shared_packages() -> tuple[Path, ...]:
    """The folders that code in the shared sandbox may import from, besides the standard library."""
    named = os.environ.get(PACKAGES, "").split(os.pathsep)
    return tuple(site_packages(Path(each).expanduser()) for each in named if each)


def offers(module: str, folders: Sequence[Path]) -> bool:
    """True if code in a sandbox with these folders can import a module of that top-level name, by its files."""
    if module in sys.stdlib_module_names:
        return True
    found = (each for folder in folders for each in (folder / module, *folder.glob(f"{module}.*")))
    return any(each.is_dir() or each.suffix in (".py", ".so") for each in found)


def site_packages(folder: Path) -> Path:
    """The folder itself, or the packages of the virtual environment that it is; ConfigError if that is of another Python."""
    if not (folder / "pyvenv.cfg").is_file():
        return folder
    mine = f"python{sys.version_info.major}.{sys.version_info.minor}"
    found = folder / "lib" / mine / "site-packages"
    if not found.is_dir():
        others = ", ".join(sorted(each.name for each in (folder / "lib").glob("python*"))) or "none"
        raise ConfigError(
            f"the virtual environment {str(folder)!r} is of {others}: make one with {mine}, which runs here"
        )
    return found


def checked(files: Mapping[str, str]) -> dict[str, str]:
    """The files, if each name stays inside the scratch folder."""
    for name in files:
        path = PurePosixPath(name)
        if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name:
            raise ConfigError(f"a file is named {name!r}: give a path inside the folder, such as data/input.txt")
    return dict(files)


def outcome_of(report: Report, run: SandboxRun, tier: Tier) -> Outcome:
    """A report as an Outcome: why it ended, and its output as text."""
    body = report.body
    status = None if body["status"] is None else os.waitstatus_to_exitcode(body["status"])
    stderr = report.stderr.decode("utf-8", "replace")
    ended: Ended = "done" if status == 0 else "error"
    if report.flooded:
        ended = "output"
    elif body["killed"] in ("timeout", "memory"):
        ended = body["killed"]
    elif body["killed"] == "stopped":
        raise SandboxError("the sandbox was closed while the code ran")
    elif status is not None and status < 0:
        used_up = status == -signal.SIGKILL and (body["cpu_s"] or 0.0) >= run.limits.cpu_s
        ended = "timeout" if used_up or status == -signal.SIGXCPU else "killed"
    elif status == 1 and stderr.rstrip().rpartition("\n")[2].startswith("MemoryError"):
        ended = "memory"
    return Outcome(
        ended=ended,
        exit_status=status,
        stdout=report.stdout.decode("utf-8", "replace"),
        stderr=stderr,
        wall_s=body["wall_s"],
        cpu_s=body["cpu_s"],
        peak_bytes=body["peak_bytes"],
        tier=tier,
    )
