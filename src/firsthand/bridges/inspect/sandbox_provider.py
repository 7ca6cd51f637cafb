"""Sandbox provider for Inspect, for `inspect eval task.py --sandbox firsthand` and the samples of `inspect:task=...`.

One Box per service of the compose file, or one named `default`. Requirements of a compose file or Dockerfile that we cannot
meet are refused by name before anything runs (`sandbox_requirements.py`). Also refused: users other than the one that
commands run as, and processes that outlive their command, which some of Inspect's tools need (`bash_session`, `computer`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from firsthand.bridges.inspect.sandbox_requirements import RequiredSandbox, required_sandboxes
from firsthand.errors import ConfigError, SandboxError
from firsthand.sandbox.box import LIMITS, Box, exit_status
from firsthand.sandbox.sandbox import Outcome, joined_streams, shared_packages

NAME = "firsthand"
USERS = ("", "sandbox", "1000")


@lru_cache(maxsize=1)
def sandbox_environment() -> Any:
    """Define and return the SandboxEnvironment class; imports Inspect."""
    from inspect_ai.util import (
        ExecResult,
        OutputLimitExceededError,
        SandboxEnvironment,
        SandboxEnvironmentLimits,
        SandboxUserUnsupportedError,
    )
    from inspect_ai.util._sandbox.compose import COMPOSE_FILES, DOCKERFILE
    from inspect_ai.util._sandbox.environment import SandboxUnavailableError

    class FirsthandSandbox(SandboxEnvironment):  # type: ignore[misc]
        """A Box behind Inspect's sandbox interface."""

        def __init__(self, box: Box) -> None:
            super().__init__()
            self.box = box

        @classmethod
        def config_files(cls) -> list[str]:
            """Return the names of files that configure a sandbox."""
            return [*COMPOSE_FILES, DOCKERFILE]

        @classmethod
        def is_docker_compatible(cls) -> bool:
            """True: compose files and Dockerfiles are read."""
            return True

        @classmethod
        async def sample_init(cls, task_name: str, config: Any, metadata: dict[str, str]) -> dict[str, Any]:
            """Open a sample's environments, the default one first."""
            opened: dict[str, Any] = {}
            try:
                for service in required_sandboxes(config):
                    opened[service.name] = cls(await open_box(service))
            except BaseException:
                await cls.sample_cleanup(task_name, config, opened, True)
                raise
            return opened

        @classmethod
        async def sample_cleanup(cls, task_name: str, config: Any, environments: Any, interrupted: bool) -> None:
            """Close the environments and delete their files."""
            for environment in environments.values():
                await environment.as_type(cls).box.close()

        async def exec(
            self,
            cmd: list[str],
            input: str | bytes | None = None,
            cwd: str | None = None,
            env: dict[str, str] | None = None,
            user: str | None = None,
            timeout: int | None = None,
            timeout_retry: bool = True,
            concurrency: bool = True,
        ) -> Any:
            """Run a command; arguments, result and errors are Inspect's."""
            if (user or "") not in USERS:
                raise SandboxUserUnsupportedError(f"commands run as the user 'sandbox' here, not as {user!r}")
            stdin = input.encode("utf-8", "surrogateescape") if isinstance(input, str) else input or b""
            most = SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE
            with _unavailable():
                outcome = await self.box.exec(
                    cmd, stdin=stdin, folder=cwd or "", environment=env, wall_s=timeout, output_bytes=most
                )
            if outcome.ended == "timeout":
                late = TimeoutError(f"the command did not end within {_seconds(outcome, timeout)} s")
                late.truncated_output = joined_streams(outcome.stdout, outcome.stderr)  # type: ignore[attr-defined]
                raise late
            if outcome.ended == "output":
                raise OutputLimitExceededError(
                    limit_str=SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE_STR,
                    truncated_output=outcome.stdout or outcome.stderr,
                )
            status = exit_status(outcome)
            if status == 126 and "permission denied" in outcome.stderr.lower():
                raise PermissionError(outcome.stderr.strip()[-300:])
            why = "\nthe command used too much memory, or made too many files" if outcome.ended == "memory" else ""
            return ExecResult(outcome.ok, status, outcome.stdout, outcome.stderr + why)

        async def write_file(self, file: str, contents: str | bytes) -> None:
            """Write a file."""
            raw = contents.encode("utf-8", "surrogateescape") if isinstance(contents, str) else contents
            with _unavailable():
                await self.box.write(file, raw)

        async def read_file(self, file: str, text: bool = True) -> Any:
            """Return the content of a file; text keeps its line endings."""
            try:
                with _unavailable():
                    raw = await self.box.read(file, most=SandboxEnvironmentLimits.MAX_READ_FILE_SIZE)
            except ValueError:
                raise OutputLimitExceededError(
                    limit_str=SandboxEnvironmentLimits.MAX_READ_FILE_SIZE_STR, truncated_output=None
                ) from None
            return raw.decode("utf-8") if text else raw

        async def exec_remote(self, cmd: list[str], options: Any = None, *, stream: bool = True) -> Any:
            """Refuse: it would start a server in the sandbox that outlives the command."""
            raise NotImplementedError(
                f"{cmd[0] if cmd else 'it'} would keep running in the sandbox, where no process outlives its command: "
                "run it in Docker, with sandbox=docker"
            )

        def default_polling_interval(self) -> float:
            """Return the seconds between two polls of a service."""
            return 0.2

    @contextlib.contextmanager
    def _unavailable() -> Any:
        try:
            yield
        except SandboxError as error:
            raise SandboxUnavailableError(str(error)) from error

    return FirsthandSandbox


async def open_box(service: RequiredSandbox) -> Box:
    """Open a service's Box and carry out the steps of its Dockerfile; ConfigError if one of its commands fails."""
    limits = replace(LIMITS, memory_bytes=service.memory_bytes or LIMITS.memory_bytes)
    box = Box(
        folder=service.folder,
        folders=service.folders,
        environment=service.environment,
        limits=limits,
        packages=shared_packages(),
    )
    try:
        for step in service.steps:
            for path, content, executable in step.files:
                await box.write(path, content)
                if executable:
                    await box.exec(["chmod", "+x", path])
            if step.command:
                made = await box.exec(["sh", "-c", step.command], folder=step.folder, environment=step.environment)
                if not made.ok:
                    reason = made.stderr.strip().rpartition("\n")[2][:200] or made.ended
                    raise ConfigError(f"{service.source}: RUN {step.command[:100]} fails in the sandbox: {reason}")
    except BaseException:
        await box.close()
        raise
    return box


def _seconds(outcome: Outcome, timeout: int | None) -> str:
    return f"{outcome.wall_s if timeout is None else timeout:g}"


def boxes(environments: Mapping[str, Any]) -> dict[str, Box]:
    """Return our Boxes among a sample's sandboxes, by name, out of the wrappers with which Inspect records their use."""
    found = {name: getattr(each, "_sandbox", each) for name, each in environments.items()}
    return {name: each.box for name, each in found.items() if isinstance(getattr(each, "box", None), Box)}
