"""Sandboxes of an Inspect sample by a provider of its own: files, set-up, the tools of our patterns, and the end."""

from __future__ import annotations

import asyncio
import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.errors import ConfigError, SandboxError, ToolError
from firsthand.task import Task

if importlib.util.find_spec("inspect_ai") is None:
    pytest.skip("needs pip install 'firsthand[inspect]'", allow_module_level=True)

from inspect_ai.dataset import Sample
from inspect_ai.util import ExecResult, SandboxEnvironment, SandboxEnvironmentSpec, sandboxenv

from firsthand.bridges.inspect.sample_sandboxes import Sandboxes, sandboxes_for_scoring

TOLD: list[Any] = []
FAULTS = {"state": RuntimeError("not started"), "lookup": KeyError("image"), "ours": ConfigError("no such kind")}
"""What the provider raises, by the sandbox's configuration."""


@sandboxenv(name="recorded_box")
class RecordedBox(SandboxEnvironment):
    """A sandbox that keeps files in memory, and tells what was done with it."""

    def __init__(self, name: str) -> None:
        self.name, self.files = name, dict[str, str]()

    @classmethod
    async def task_init(cls, task_name: str, config: Any) -> None:
        TOLD.append(("task begins", task_name, config))

    @classmethod
    async def sample_init(cls, task_name: str, config: Any, metadata: Any) -> dict[str, SandboxEnvironment]:
        if config == "broken":
            raise OSError("no room")
        if config in FAULTS:
            raise FAULTS[config]
        return {"default": cls("default"), "db": cls("db")}

    @classmethod
    async def sample_cleanup(cls, task_name: str, config: Any, environments: Any, interrupted: bool) -> None:
        TOLD.append(("sample ends", sorted(environments)))

    @classmethod
    async def task_cleanup(cls, task_name: str, config: Any, cleanup: bool) -> None:
        TOLD.append(("task ends", task_name, config, cleanup))

    async def exec(self, cmd: list[str], *args: Any, **more: Any) -> Any:
        TOLD.append((self.name, cmd, more.get("timeout")))
        if cmd[-1] == "slow":
            raise TimeoutError
        failed = cmd[-1] == "exit 3"
        return ExecResult(
            not failed, 3 if failed else 0, "" if cmd[-1] == "true" else f"out of {cmd[-1]}\n", "err" * failed
        )

    async def write_file(self, file: str, contents: Any) -> None:
        self.files[file] = contents if isinstance(contents, str) else contents.decode()

    async def read_file(self, file: str, text: bool = True) -> Any:
        if file not in self.files:
            raise FileNotFoundError(2, "No such file", file)
        return self.files[file]


def sandboxes(config: str = "config", id: str = "s") -> Sandboxes:
    sample = Sample(input="Q", id=id, files={"a.txt": "hi", "db:b.txt": "there"})
    spec = SandboxEnvironmentSpec("recorded_box", config)
    return Sandboxes(Task(id, "Q"), SimpleNamespace(name="the task"), sample, spec)


def test_tools_act_in_the_default_sandbox_and_tell_errors_as_text() -> None:
    TOLD.clear()

    async def whole() -> dict[str, Any]:
        mine = sandboxes()
        await mine.open()
        tools = {tool.name: tool for tool in mine.tools}
        effects = {name: (tool.effect, tool.timeout_s) for name, tool in tools.items()}
        assert effects == {name: ("read" if name == "read_file" else "write", 180) for name in
                           ("shell", "python", "read_file", "write_file")}  # fmt: skip

        async def call(name: str, **arguments: Any) -> Any:
            try:
                return await tools[name].function(**arguments)
            except ToolError as error:
                return f"refused: {error}"

        said = {
            "given": await call("read_file", path="a.txt"), "other": await call("read_file", path="b.txt"),
            "shell": await call("shell", command="ls"), "quiet": await call("shell", command="true"),
            "failed": await call("shell", command="exit 3"), "slow": await call("python", code="slow"),
            "python": await call("python", code="print(1)"), "write": await call("write_file", path="n.txt", text="né\n"),
            "written": await call("read_file", path="n.txt"), "long": await call("shell", command="x" * 100_000),
        }  # fmt: skip
        assert await mine.final_state() == {"sandbox": {}}
        await mine.close()
        assert ("sample ends", ["db", "default"]) not in TOLD  # the scorers still need it
        async with sandboxes_for_scoring(mine.theirs, mine.sample, mine.spec, mine.task, {}):
            assert ("sample ends", ["db", "default"]) not in TOLD
        return said

    said = asyncio.run(whole())
    assert len(said.pop("long")) < 50_000
    assert said == {
        "given": "hi", "other": "refused: No such file: b.txt", "shell": "out of ls", "quiet": "(no output)",
        "failed": "out of exit 3\nerr\n[exit status 3]", "slow": "refused: it did not finish within 120 s and was stopped",
        "python": "out of print(1)", "write": "n.txt has been written: 3 characters", "written": "né",
    }  # fmt: skip
    assert TOLD[0] == ("task begins", "the task", "config")
    assert TOLD[-2:] == [("sample ends", ["db", "default"]), ("task ends", "the task", "config", True)]
    commands = [each for each in TOLD if each[0] in ("default", "db") and each[1][0] in ("sh", "python3")]
    assert commands[:2] == [("default", ["sh", "-c", "ls"], 120), ("default", ["sh", "-c", "true"], 120)]
    assert ("default", ["python3", "-c", "print(1)"], 120) in commands


def test_scorers_get_the_sandboxes_of_their_own_attempt_alone() -> None:
    async def one_after_the_other() -> None:
        one, two, three = (sandboxes(id=id) for id in ("one", "two", "three"))
        for each in (one, two):
            await each.open()
        await one.end()
        async with sandboxes_for_scoring(two.theirs, two.sample, two.spec, two.task, {}):
            pass  # those of `two` are still there
        await three.open()
        await Sandboxes(three.task, three.theirs, three.sample, None).open()
        with pytest.raises(ConfigError, match="the sandbox of three was not kept: it was not one of ours"):
            async with sandboxes_for_scoring(three.theirs, three.sample, three.spec, three.task, {}):
                pass
        await three.end()

    TOLD.clear()
    asyncio.run(one_after_the_other())
    assert [each[0] for each in TOLD].count("task ends") == 3


def test_sandboxes_are_closed_though_a_scorer_raises_or_is_cancelled() -> None:
    async def scored(error: BaseException) -> None:
        mine = sandboxes()
        await mine.open()
        await mine.final_state()
        await mine.close()
        TOLD.clear()
        with pytest.raises(type(error)) as raised:
            async with sandboxes_for_scoring(mine.theirs, mine.sample, mine.spec, mine.task, {}):
                raise error
        assert raised.value is error
        assert TOLD == [("sample ends", ["db", "default"]), ("task ends", "the task", "config", True)]
        with pytest.raises(ConfigError, match="the sandbox of s was not kept: it was not one of ours"):
            async with sandboxes_for_scoring(mine.theirs, mine.sample, mine.spec, mine.task, {}):
                TOLD.append("scored in what was closed")
        await mine.end()
        assert len(TOLD) == 2, "closed once"

    for error in (ValueError("no verdict"), asyncio.CancelledError(), KeyboardInterrupt()):
        asyncio.run(scored(error))


def test_each_of_our_sandboxes_leaves_its_changes_or_why_they_are_not_kept() -> None:
    class Left:
        """A Box that gives what changed since it was seen, or fails."""

        def __init__(self, error: Exception | None = None):
            self.error = error

        async def snapshot(self, seen: Any) -> Any:
            if self.error is not None:
                raise self.error
            return {"since": seen}

    mine = sandboxes()
    errors = {"full": OSError(28, "no room"), "large": ValueError("1 GiB"), "gone": SandboxError("it ended")}
    mine.boxes = {"a": Left(), **{name: Left(error) for name, error in errors.items()}, "b": Left()}  # type: ignore[dict-item]
    mine.seen = {name: {"files": name} for name in mine.boxes}
    assert asyncio.run(mine.final_state()) == {"sandbox": {
        "a": {"changes": {"since": {"files": "a"}}}, "full": {"not_kept": "[Errno 28] no room"},
        "large": {"not_kept": "1 GiB"}, "gone": {"not_kept": "it ended"}, "b": {"changes": {"since": {"files": "b"}}},
    }}  # fmt: skip


def test_what_cannot_be_opened_or_kept_is_told_and_everything_is_closed() -> None:
    TOLD.clear()

    async def broken() -> None:
        with pytest.raises(SandboxError, match="the sandbox of the sample 's' could not be set up: no room"):
            await sandboxes("broken").open()

    async def lost() -> None:
        mine = sandboxes()
        with pytest.raises(ConfigError, match="the sandbox of s was not kept: it was not one of ours"):
            async with sandboxes_for_scoring(mine.theirs, mine.sample, mine.spec, mine.task, {"sandbox": {}}):
                pass

    async def failed() -> None:
        mine = sandboxes()
        await mine.open()
        await mine.close()  # an attempt without a final state is not scored

    asyncio.run(broken())
    assert [each[0] for each in TOLD] == ["task begins", "task ends"]
    TOLD.clear()
    asyncio.run(lost())
    assert TOLD == []
    asyncio.run(failed())
    assert [each[0] for each in TOLD if each[0] not in ("default", "db")] == ["task begins", "sample ends", "task ends"]


@pytest.mark.parametrize("config", FAULTS)
def test_whatever_a_provider_raises_while_it_is_set_up_is_told_as_the_samples_sandbox(config: str) -> None:
    TOLD.clear()

    async def opened() -> None:
        before, mine = sandboxes(id="before"), sandboxes(config, "x")
        await before.open()
        with pytest.raises(SandboxError) as error:
            await mine.open()
        assert str(error.value) == f"the sandbox of the sample 'x' could not be set up: {FAULTS[config]}"
        assert error.value.__cause__ is FAULTS[config] and (mine.boxes, mine.seen) == ({}, {})
        with pytest.raises(ConfigError, match="the sandbox of before was not kept"):  # those of `mine` were to come
            async with sandboxes_for_scoring(before.theirs, before.sample, before.spec, before.task, {}):
                pass
        await mine.close()
        await before.close()

    asyncio.run(opened())
    assert [each[:2] for each in TOLD if each[0] not in ("default", "db")] == [
        ("task begins", "the task"), ("task begins", "the task"), ("task ends", "the task"),
        ("sample ends", ["db", "default"]), ("task ends", "the task"),
    ]  # fmt: skip
