"""Opens an Inspect sample's sandboxes for one attempt: before the pattern starts, for tools, solvers and scorers alike.

Inspect's own code copies the sample's files, runs its setup script and sets the context that `sandbox()` reads, so its
solvers and scorers see the same files as our patterns' tools. A sample that asks for `docker` or `local` gets our sandbox,
unless Docker is installed (then Inspect's own provider is used) or the option `sandbox` names another; other providers
(`k8s`, `modal`) are used as they are. Nothing runs with the user's own rights, as Inspect's `local` does, unless
`sandbox=local` asks for it.

The sandboxes stay open until the sample's scorers have run. Changes in our own sandboxes are kept in the trace, so that the
attempt can be scored again from disk; other providers' sandboxes are gone when the attempt ends.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from firsthand.bridges.inspect.sandbox_provider import NAME, boxes
from firsthand.bridges.inspect.sandbox_requirements import LenientConfig, required_sandboxes
from firsthand.errors import ConfigError, SandboxError, ToolError
from firsthand.message import Json
from firsthand.sandbox.box import Box
from firsthand.sandbox.sandbox import joined_streams
from firsthand.task import Task
from firsthand.tool import Tool, tool
from firsthand.tools.python import shortened

TOOL_S = 120
"""Time limit of one tool call."""
STATE = "sandbox"


def sandbox_specs(theirs: Any, samples: Sequence[Any], task: str, wanted: str) -> dict[str, Any]:
    """Return Inspect's sandbox specification of each sample that needs one, by id; ConfigError if we cannot provide it.

    `wanted` names another provider for all samples, which then follows their configuration as far as it can.
    """
    from inspect_ai._eval.loader import resolve_task_sandbox
    from inspect_ai._eval.task.util import task_run_dir

    import firsthand.bridges.inspect.sandbox_registry  # noqa: F401  # registers ours even without installed entry points

    if not any(sample.sandbox or theirs.sandbox for sample in samples):
        return {}
    whole = resolve_task_sandbox(theirs, None)
    found = {}
    for sample in samples:
        spec = _layered(whole, sample)
        if spec is not None:
            found[str(sample.id)] = _provided(
                spec, task_run_dir(theirs), wanted, f"the sample {sample.id!r} of {task!r}"
            )
    return found


def _layered(whole: Any, sample: Any) -> Any:
    """Return the task's sandbox with the sample's own configuration, layered as Inspect does it."""
    from inspect_ai.util import SandboxEnvironmentSpec

    own = sample.sandbox
    if whole is None or own is None:
        return whole or own
    same = own.config is not None and own.type == whole.type
    return SandboxEnvironmentSpec(whole.type, own.config) if same else whole


def _provided(spec: Any, folder: str, wanted: str, sample_name: str) -> Any:
    """Return the specification with the provider to be used here and an absolute path to its configuration."""
    from inspect_ai.util import SandboxEnvironmentSpec
    from inspect_ai.util._sandbox.registry import registry_has_sandboxenv

    config = spec.config
    if isinstance(config, str) and Path(folder, config).exists():
        config = str(Path(folder, config).absolute())
    kind = wanted or _default_provider(spec.type)
    if not registry_has_sandboxenv(kind):
        raise ConfigError(f"{sample_name} needs the sandbox {kind!r}, but Inspect knows no such provider: install it")
    if kind != NAME:
        return SandboxEnvironmentSpec(kind, config)
    try:
        required_sandboxes(config, lenient=wanted == NAME)
    except ConfigError as error:
        raise ConfigError(f"{sample_name} cannot run here: {error}") from None
    return SandboxEnvironmentSpec(NAME, LenientConfig(config) if wanted == NAME and config else config)


def _default_provider(kind: str) -> str:
    if kind == "docker" and shutil.which("docker"):
        return kind
    return NAME if kind in ("docker", "local") else kind


class Sandboxes:
    """The Environment of one attempt at a sample; empty for a sample without a sandbox."""

    def __init__(self, task: Task, theirs: Any, sample: Any, spec: Any):
        self.task, self.theirs, self.sample, self.spec = task, theirs, sample, spec
        self.boxes: dict[str, Box] = {}
        self.seen: dict[str, Json] = {}
        self._open = AsyncExitStack()
        self._to_be_scored = False

    async def open(self) -> None:
        """Open the sandboxes, copy the sample's files and run its setup script; SandboxError if that fails."""
        _here.set(None)
        if self.spec is None:
            return
        try:
            environments = await self._open.enter_async_context(_entered(self.theirs, self.sample, self.spec))
        except Exception as error:
            raise SandboxError(f"the sandbox of the sample {self.sample.id!r} could not be set up: {error}") from error
        self.boxes = boxes(environments)
        self.seen = {name: await box.seen() for name, box in self.boxes.items()}
        _here.set(self)

    async def final_state(self) -> Json:
        """Return under `sandbox`, for each of our own sandboxes, the changed files or the reason they are not kept."""
        if self.spec is None:
            return {}
        left: Json = {}
        for name, box in self.boxes.items():
            try:
                left[name] = {"changes": await box.snapshot(self.seen[name])}
            except (ValueError, OSError, SandboxError) as error:
                left[name] = {"not_kept": str(error)}
        self._to_be_scored = True  # nothing is awaited between this and the scorers, so they will close the sandboxes
        return {STATE: left}

    async def close(self) -> None:
        """Close the sandboxes, unless scorers still need them, which then close them."""
        if not self._to_be_scored:
            await self.end()

    async def end(self) -> None:
        """Close the sandboxes for good."""
        if _here.get() is self:
            _here.set(None)
        await self._open.aclose()

    @property
    def tools(self) -> Sequence[Tool]:
        """Tools shell, python, read_file and write_file, which act in the sample's default sandbox."""
        return () if self.spec is None else _tools()


_here: ContextVar[Sandboxes | None] = ContextVar("sandboxes", default=None)
"""Sandboxes of the attempt that runs in this asyncio task, from its pattern to its scorers."""


@asynccontextmanager
async def sandboxes_for_scoring(
    theirs: Any, sample: Any, spec: Any, task: Task, final_state: Json
) -> AsyncIterator[None]:
    """Give scorers the sandboxes as the attempt left them: its own, or new ones restored from its trace."""
    here = _here.get()
    if here is None or here.task.id != task.id:
        here = await _reopened(Sandboxes(task, theirs, sample, spec), final_state)
    try:
        yield
    finally:
        await here.end()


async def _reopened(sandboxes: Sandboxes, final_state: Json) -> Sandboxes:
    left = final_state.get(STATE, {})
    lost = next((each["not_kept"] for each in left.values() if "not_kept" in each), None)
    if lost is not None or not left:
        raise ConfigError(f"the sandbox of {sandboxes.task.id} was not kept: {lost or 'it was not one of ours'}")
    await sandboxes.open()
    try:
        for name, box in sandboxes.boxes.items():
            await box.restore(left[name]["changes"])
    except BaseException:
        await sandboxes.end()
        raise
    return sandboxes


@asynccontextmanager
async def _entered(theirs: Any, sample: Any, spec: Any) -> AsyncIterator[dict[str, Any]]:
    """Open a sample's sandboxes through Inspect and yield them by name. The provider sees each attempt as a run."""
    from inspect_ai._eval.task.sandbox import sandboxenv_context
    from inspect_ai.log._transcript import Transcript, init_transcript
    from inspect_ai.util._sandbox.context import sandbox_environments_context_var
    from inspect_ai.util._sandbox.registry import registry_find_sandboxenv

    init_transcript(Transcript())
    provider: Any = registry_find_sandboxenv(spec.type)
    async with AsyncExitStack() as stack:
        await provider.task_init(theirs.name, spec.config)
        stack.push_async_callback(provider.task_cleanup, theirs.name, spec.config, True)
        resolved = sample.model_copy(update={"sandbox": None})
        await stack.enter_async_context(sandboxenv_context(theirs.name, spec, None, True, resolved))
        yield dict(sandbox_environments_context_var.get())


def _tools() -> Sequence[Tool]:
    from inspect_ai.util import sandbox

    async def output_of(words: list[str]) -> str:
        with _as_tool_errors():
            result = await sandbox().exec(words, timeout=TOOL_S, timeout_retry=False)
        output = shortened(joined_streams(result.stdout, result.stderr)) or "(no output)"
        return output if result.success else f"{output}\n[exit status {result.returncode}]"

    @tool(effect="write", timeout_s=TOOL_S + 60)
    async def shell(command: str) -> str:
        """What a shell command prints, and its exit status. Files that it leaves are kept.

        Args:
            command: A command line, such as: ls -la; cat notes.txt
        """
        return await output_of(["sh", "-c", command])

    @tool(effect="write", timeout_s=TOOL_S + 60)
    async def python(code: str) -> str:
        """What a Python program prints. Files that it leaves are kept, variables are not: print what you want to see.

        Args:
            code: Python 3 source text, several lines if need be.
        """
        return await output_of(["python3", "-c", code])

    @tool(effect="read", timeout_s=TOOL_S + 60)
    async def read_file(path: str) -> str:
        """The text of a file.

        Args:
            path: The file, relative to the folder where commands begin, or from the root.
        """
        with _as_tool_errors():
            return shortened(await sandbox().read_file(path))

    @tool(effect="write", timeout_s=TOOL_S + 60)
    async def write_file(path: str, text: str) -> str:
        """Write a file, whole, and the folders on its way; what it held before is lost.

        Args:
            path: The file, relative to the folder where commands begin, or from the root.
            text: What it shall hold.
        """
        with _as_tool_errors():
            await sandbox().write_file(path, text)
        return f"{path} has been written: {len(text)} characters"

    return (shell, python, read_file, write_file)


@contextlib.contextmanager
def _as_tool_errors() -> Any:
    """Turn a sandbox's errors into ToolErrors for the model."""
    from inspect_ai.util import OutputLimitExceededError

    try:
        yield
    except UnicodeDecodeError:
        raise ToolError("it is no UTF-8 text") from None
    except TimeoutError:
        raise ToolError(f"it did not finish within {TOOL_S} s and was stopped") from None
    except OutputLimitExceededError as error:
        raise ToolError(f"it printed or holds too much: more than {error.limit_str}") from None
    except OSError as error:
        raise ToolError(f"{error.strerror or error}: {error.filename or ''}".rstrip(": ")) from None
