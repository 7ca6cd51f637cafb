"""Refuses an experiment that cannot work, before its run is made: a tool, sandbox or task that an agent needs is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark, made_tasks
from firsthand.errors import ConfigError, FirsthandError
from firsthand.experiment.judged_index import check_judged_indexes
from firsthand.loop.pattern_options import check_task, follows_protocol, tools_needed
from firsthand.model import RequestChecker
from firsthand.task import Task


def tasks_of(benchmark: Benchmark, seed: int) -> Sequence[Task]:
    """The tasks of a benchmark; ConfigError if it has none, or two of one id."""
    tasks = made_tasks(benchmark, seed)
    if not tasks:
        raise ConfigError(f"the benchmark {benchmark.name} has no tasks: give it one or more")
    made = tasks if isinstance(tasks, list | tuple) else ()  # others make each task on access, and number them
    twice = next((id for id, times in Counter(task.id for task in made).items() if times > 1), None)
    if twice is not None:
        raise ConfigError(
            f"the benchmark {benchmark.name} has several tasks with the id {twice!r:.80}: give each an id of its own"
        )
    return tasks


def check_ready(agents: Sequence[Agent], benchmarks: Sequence[tuple[Benchmark, Sequence[Task]]]) -> None:
    """FirsthandError if a tool or a scorer cannot work on this machine, or an agent can attempt no task of a benchmark."""
    for agent in agents:
        for tool in agent.own_tools:
            if tool.ready is not None:
                tool.ready()
    for benchmark, tasks in benchmarks:
        for scorer in benchmark.scorers:
            if (ready := getattr(scorer, "ready", None)) is not None:
                ready()
        _check_environments(benchmark, tasks)
        check_judged_indexes(agents, benchmark, tasks)
        for agent in agents:
            _check_tools(agent, benchmark)
            _check_answers(agent, benchmark)
            _check_model(agent, tasks)
            _check_tasks(agent, tasks)


def _check_environments(benchmark: Benchmark, tasks: Sequence[Task]) -> None:
    """The error of the first task if the environment of none can be opened on this machine."""
    refused: FirsthandError | None = None
    for task in tasks if benchmark.environment is not None else ():
        assert benchmark.environment is not None
        try:
            ready = getattr(benchmark.environment(task), "ready", None)
            if ready is not None:
                ready()
            return
        except FirsthandError as error:
            refused = refused or error
        except Exception as error:
            text = f"the environment of {benchmark.name} failed with {type(error).__name__}: {error}"
            refused = refused or ConfigError(text)
    if refused is not None:
        raise refused


def _check_tools(agent: Agent, benchmark: Benchmark) -> None:
    """An environment or a source may bring a tool when it opens; without one, what is missing stays missing."""
    if benchmark.environment is not None or len(agent.own_tools) < len(agent.tools):
        return
    names = sorted(tool.name for tool in agent.own_tools)
    for tool, pattern in tools_needed(agent.pattern, agent.options).items():
        if tool not in names:
            known = ", ".join(names) or "none"
            raise ConfigError(
                f"{pattern} needs the tool {tool!r}, and the tools are {known}: give it, as in --tools {tool}"
            )


def _check_answers(agent: Agent, benchmark: Benchmark) -> None:
    """ConfigError if a tool of the agent reads a file in which the benchmark's answers stand."""
    for tool in agent.own_tools:
        with suppress(OSError, ValueError):  # most tools act on no file
            place = Path(tool.over).resolve(strict=True) if tool.over else None
            held = next((file for file in benchmark.files if place in (file.resolve(), *file.resolve().parents)), None)
            if held is not None:
                raise ConfigError(
                    f"{tool.name} of {agent.name} reads {held.name}, the data of {benchmark.name} with its answers, in "
                    f"{tool.over}: give it a place without that file"
                )


def _check_model(agent: Agent, tasks: Sequence[Task]) -> None:
    """ConfigError if the model's endpoint has no field for the agent's settings, or for what every task asks of it."""
    if not isinstance(agent.model, RequestChecker):
        return
    agent.model.check_request(agent.sampling)
    if not follows_protocol(agent.pattern, agent.options):
        return
    refused: FirsthandError | None = None
    for task in tasks:
        scores = bool(task.scored)
        try:
            agent.model.check_request(agent.sampling, chats=scores or task.context is None, scores=scores)
            return
        except FirsthandError as error:
            refused = refused or error
    if refused is not None:
        raise refused


def _check_tasks(agent: Agent, tasks: Sequence[Task]) -> None:
    refused: FirsthandError | None = None
    for task in tasks:
        try:
            check_task(agent.pattern, agent.options, task.public())
            return
        except FirsthandError as error:
            refused = refused or error
    if refused is not None:
        raise refused
