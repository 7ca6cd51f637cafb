"""The sandboxes of an Inspect sample, for one attempt: opened before the pattern, at hand for tools, solvers and scorers.

Inspect's own code reads the sample's files, runs its set-up script and sets what `sandbox()` looks for, so its solvers and
scorers find the same files as our patterns' tools. A sample that asks for `docker` or `local` gets our sandbox, unless
Docker is installed, where Inspect's own provider is used, or the option `sandbox` says otherwise; other providers (`k8s`,
`modal`) are used as they are. Nothing runs with the user's own rights, as in Inspect's `local`, unless `sandbox=local` asks.

The sandboxes stay open until the sample's scorers have looked into them. What changed in our own is kept with the trace,
so that the attempt can be scored again from disk; other providers' sandboxes are gone when the attempt ends.
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
from firsthand.bridges.inspect.sandbox_requirements import Bare, demanded
from firsthand.errors import ConfigError, SandboxError, ToolError
from firsthand.message import Json
from firsthand.sandbox.box import Box
from firsthand.task import Task
from firsthand.tool import Tool, tool
from firsthand.tools.python import shortened

TOOL_S = 120
"""What one call of a pattern's tool may take."""
STATE = "sandbox"


def placed(theirs: Any, samples: Sequence[Any], task: str, wanted: str) -> dict[str, Any]:
    """The sandbox of each sample that asks for one, by its id, as Inspect's specification; ConfigError if it cannot be had.

    `wanted` names another provider for all of them, which then follows their configuration as far as it can.
    """
    from inspect_ai._eval.loader import resolve_task_sandbox
    from inspect_ai._eval.task.util import task_run_dir

    import firsthand.bridges.inspect.sandbox_registry  # noqa: F401  # whether or not our entry points are installed

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
    """The task's sandbox with the sample's own configuration, as Inspect layers them."""
    from inspect_ai.util import SandboxEnvironmentSpec

    own = sample.sandbox
    if whole is None or own is None:
        return whole or own
    same = own.config is not None and own.type == whole.type
    return SandboxEnvironmentSpec(whole.type, own.config) if same else whole


def _provided(spec: Any, folder: str, wanted: str, whose: str) -> Any:
    """The specification with the provider that is used here."""
    from inspect_ai.util import SandboxEnvironmentSpec
    from inspect_ai.util._sandbox.registry import registry_has_sandboxenv

    config = spec.config
    if isinstance(config, str) and Path(folder, config).exists():
        config = str(Path(folder, config).absolute())
    kind = wanted or _usual(spec.type)
    if not registry_has_sandboxenv(kind):
        raise ConfigError(f"{whose} is to run in the sandbox {kind!r}, and Inspect knows no provider of that name")
    if kind != NAME:
        return SandboxEnvironmentSpec(kind, config)
    try:
        demanded(config, whatever=wanted == NAME)
    except ConfigError as error:
        raise ConfigError(f"{whose} cannot run here: {error}") from None
    return SandboxEnvironmentSpec(NAME, Bare(config) if wanted == NAME and config else config)


def _usual(kind: str) -> str:
    if kind == "docker" and shutil.which("docker"):
        return kind
    return NAME if kind in ("docker", "local") else kind


class Sandboxes:
    """The environment of an attempt. A sample without a sandbox has an empty one."""

    def __init__(self, task: Task, theirs: Any, sample: Any, spec: Any):
        self.task, self.theirs, self.sample, self.spec = task, theirs, sample, spec
        self.boxes: dict[str, Box] = {}
        self.seen: dict[str, Json] = {}
        self._open = AsyncExitStack()
        self._to_be_scored = False

    async def open(self) -> None:
        """Open them, with the sample's files, and run its set-up script; SandboxError if that fails."""
        _here.set(None)
        if self.spec is None:
            return
        try:
            environments = await self._open.enter_async_context(_entered(self.theirs, self.sample, self.spec))
        except Exception as error:
            raise SandboxError(
                f"the sandbox of the sample {self.sample.id!r} could not be made ready: {error}"
            ) from error
        self.boxes = boxes(environments)
        self.seen = {name: await box.seen() for name, box in self.boxes.items()}
        _here.set(self)

    async def final_state(self) -> Json:
        """`sandbox`: for each of our own, what has changed in it, or why that is not kept."""
        if self.spec is None:
            return {}
        left: Json = {}
        for name, box in self.boxes.items():
            try:
                left[name] = {"changes": await box.snapshot(self.seen[name])}
            except (ValueError, OSError, SandboxError) as error:
                left[name] = {"not_kept": str(error)}
        self._to_be_scored = True  # nothing is awaited between this and the scorers, so they will close what is open
        return {STATE: left}

    async def close(self) -> None:
        """Close them, unless the scorers are still to look into them: they close them."""
        if not self._to_be_scored:
            await self.end()

    async def end(self) -> None:
        """Leave nothing behind."""
        if _here.get() is self:
            _here.set(None)
        await self._open.aclose()

    @property
    def tools(self) -> Sequence[Tool]:
        """shell, python, read_file and write_file, in the sample's default sandbox."""
        return () if self.spec is None else _tools()


_here: ContextVar[Sandboxes | None] = ContextVar("sandboxes", default=None)
"""Those of the attempt that runs in this asyncio task, between its pattern and its scorers."""


@asynccontextmanager
async def looked_into(theirs: Any, sample: Any, spec: Any, task: Task, final_state: Json) -> AsyncIterator[None]:
    """The sandboxes as an attempt left them, where scorers find them: the attempt's own, or made again from its trace."""
    here = _here.get()
    if here is None or here.task.id != task.id:
        here = await _again(Sandboxes(task, theirs, sample, spec), final_state)
    try:
        yield
    finally:
        await here.end()


async def _again(sandboxes: Sandboxes, final_state: Json) -> Sandboxes:
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
    """The sandboxes by name, as Inspect opens them for a sample. Each attempt is a run of its own for the provider."""
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

    async def told(words: list[str]) -> str:
        with _sentences():
            result = await sandbox().exec(words, timeout=TOOL_S, timeout_retry=False)
        said = shortened(result.stdout + result.stderr) or "(no output)"
        return said if result.success else f"{said}\n[exit status {result.returncode}]"

    @tool(effect="write", timeout_s=TOOL_S + 60)
    async def shell(command: str) -> str:
        """What a shell command prints, and its exit status. Files that it leaves are kept.

        Args:
            command: A command line, such as: ls -la; cat notes.txt
        """
        return await told(["sh", "-c", command])

    @tool(effect="write", timeout_s=TOOL_S + 60)
    async def python(code: str) -> str:
        """What a Python program prints. Files that it leaves are kept, variables are not: print what you want to see.

        Args:
            code: Python 3 source text, several lines if need be.
        """
        return await told(["python3", "-c", code])

    @tool(effect="read", timeout_s=TOOL_S + 60)
    async def read_file(path: str) -> str:
        """The text of a file.

        Args:
            path: The file, relative to the folder where commands begin, or from the root.
        """
        with _sentences():
            return shortened(await sandbox().read_file(path))

    @tool(effect="write", timeout_s=TOOL_S + 60)
    async def write_file(path: str, text: str) -> str:
        """Write a file, whole, and the folders on its way; what it held before is lost.

        Args:
            path: The file, relative to the folder where commands begin, or from the root.
            text: What it shall hold.
        """
        with _sentences():
            await sandbox().write_file(path, text)
        return f"{path} has been written: {len(text)} characters"

    return (shell, python, read_file, write_file)


@contextlib.contextmanager
def _sentences() -> Any:
    """What a sandbox refuses, as a ToolError for the model."""
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
