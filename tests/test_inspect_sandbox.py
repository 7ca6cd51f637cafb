"""Our sandbox as a sandbox of Inspect: its own conformance checks, what it refuses, and what attackers find in it."""

import asyncio
import importlib.util
import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.errors import ConfigError
from firsthand.message import ToolCall, assistant
from firsthand.patterns.direct import direct
from firsthand.patterns.inspect_solver import inspect_solver
from firsthand.patterns.react import react
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place, rollouts
from firsthand.trace import Trace
from namespaces import WHY_NOT

if importlib.util.find_spec("inspect_ai") is None:
    pytest.skip("needs pip install 'firsthand[inspect]'", allow_module_level=True)

from inspect_ai.util import OutputLimitExceededError, SandboxUserUnsupportedError
from inspect_ai.util._sandbox import self_check

from firsthand.providers.inspect_demands import Bare, demanded
from firsthand.providers.inspect_sandbox import sandbox_environment

needs_bwrap = pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")
Ours = sandbox_environment()
OTHER_USERS = {"test_exec_as_user"}
"""The one check that we do not pass: the sandbox has no root, and says so with SandboxUserUnsupportedError."""
CHECKS = [name for name in self_check.__all__ if name not in OTHER_USERS]
WAITING = {name for name in CHECKS if "timeout" in name}


async def opened(config=None):
    environments = await Ours.sample_init("task", config, {})
    return next(iter(environments.values()))


async def closed(environment) -> None:
    await Ours.sample_cleanup("task", None, {"default": environment}, False)


@needs_bwrap
@pytest.mark.parametrize(
    "names", [[name for name in CHECKS if name not in WAITING], pytest.param(sorted(WAITING), marks=pytest.mark.slow)]
)
def test_inspects_own_checks_of_a_sandbox_pass(names) -> None:
    async def main() -> None:
        environment = await opened()
        failed = {}
        for name in names:
            try:
                await getattr(self_check, name)(environment)
            except Exception as error:
                failed[name] = repr(error)
        await closed(environment)
        assert failed == {}

    assert names
    asyncio.run(main())


# -- tasks --

TASKS = Path(__file__).parent / "inspect_boxes.py"


def attempts(benchmark, model, pattern) -> list:
    async def main():
        places = [Place(Agent("agent", model, pattern), benchmark, task) for task in benchmark.tasks(0)]
        return sorted([trace async for trace in rollouts(places)], key=lambda trace: trace.task_id)

    return asyncio.run(main())


def scores(trace) -> dict:
    assert trace.error is None, trace.error
    assert not any(score.failed for score in trace.scores), trace.scores
    return {score.name: score.value for score in trace.scores}


def adding(name: str):
    """A model that adds with the tool of this name, in one call, then answers."""

    def reply(messages, sampling, index):
        if messages[-1].role == "tool":
            return f"The sum is {messages[-1].text.strip()}"
        return assistant("", ToolCall("c1", name, {"command": "echo $(($(paste -sd+ numbers.txt))) | tee answer.txt"}))

    return Scripted(reply)


acting = partial(react, native=True)


@needs_bwrap
@pytest.mark.parametrize("kind", ["docker", "local", "firsthand"])
def test_patterns_tools_solvers_tools_and_scorers_see_the_same_files(kind: str) -> None:
    benchmark = catalog.benchmark(f"inspect:task={TASKS}@adding:args=kind={kind}")
    assert "in the sandbox firsthand" in benchmark.protocol
    for pattern, name in ((acting, "shell"), (inspect_solver, "bash")):
        (trace,) = attempts(benchmark, adding(name), pattern)
        assert scores(trace) == {"left_behind": 1.0, "includes": 1.0}
        assert trace.scores[0].detail["inspect"]["explanation"] == "42\n5\nready\n"
    (idle,) = attempts(benchmark, Scripted(["no idea"]), direct)
    assert scores(idle) == {"left_behind": 0.0, "includes": 0.0}


@needs_bwrap
def test_an_attempt_is_scored_again_from_its_trace_alone() -> None:
    spec = f"inspect:task={TASKS}@adding"
    (trace,) = attempts(catalog.benchmark(spec), adding("shell"), acting)
    fresh = catalog.benchmark(spec)
    kept = Trace.from_json(json.loads(json.dumps(trace.to_json())))
    found = asyncio.run(fresh.scorers[0](fresh.tasks(0)[0], kept))
    assert [(score.name, score.value, score.detail) for score in found] == [
        (score.name, score.value, score.detail) for score in trace.scores
    ]
    lost = replace(kept, final_state={"sandbox": {"default": {"not_kept": "too large"}}})
    with pytest.raises(ConfigError, match="the sandbox of add was not kept: too large"):
        asyncio.run(fresh.scorers[0](fresh.tasks(0)[0], lost))


@needs_bwrap
def test_samples_with_and_without_a_sandbox_stand_side_by_side_and_all_sandboxes_are_closed() -> None:
    before = _workers()
    traces = attempts(catalog.benchmark(f"inspect:task={TASKS}@mixed"), Scripted(["42", "42"]), direct)
    assert [scores(trace) for trace in traces] == [{"includes": 1.0}] * 2
    assert set(traces[0].final_state["sandbox"]["default"]) == {"changes"} and traces[1].final_state == {}
    assert _workers() <= before


def _workers() -> set[int]:
    """The bubblewrap processes that this process has started."""
    return {
        int(stat.parent.name)
        for stat in Path("/proc").glob("[0-9]*/stat")
        if (words := _words(stat)) and words[1] == "(bwrap)" and int(words[3]) == os.getpid()
    }


def _words(stat: Path) -> list[str]:
    try:
        return stat.read_text().split()
    except OSError:
        return []


@needs_bwrap
def test_services_of_a_compose_file_are_sandboxes_by_name_with_what_their_dockerfiles_say() -> None:
    (trace,) = attempts(catalog.benchmark(f"inspect:task={TASKS}@two"), Scripted([]), inspect_solver)
    assert scores(trace) == {"includes": 1.0}
    assert trace.answer == "/app/alice\nalice\ngood day\nk\nalice\n/srv/bob\ndear bob\nbob\n"


@needs_bwrap
def test_a_set_up_script_that_fails_is_an_error_of_the_attempt() -> None:
    (trace,) = attempts(catalog.benchmark(f"inspect:task={TASKS}@failing"), Scripted([]), direct)
    assert trace.error is not None and "no such luck" in trace.error.message and trace.scores == ()
