"""Attempts that are started from the Studio: a prompt put to models, and a stored attempt continued or made again.

Each trial is a run like any other. Only models that were named when the Studio was started answer, and of a stored run only
patterns, tools, guards and benchmarks of this package or of installed ones are made again: a run's folder may come from
anyone, and it may name files of Python.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool

from firsthand.agent import Agent
from firsthand.benchmark import NamedSetting, Setting
from firsthand.errors import ConfigError, FirsthandError, UnknownName
from firsthand.loop.approval import Approval, Decision
from firsthand.message import Json
from firsthand.model import Sampling
from firsthand.rollout import Place
from firsthand.runs import store
from firsthand.runs.execute import execute
from firsthand.runs.forking import Fork, fork
from firsthand.runs.run_folder import Run
from firsthand.studio.answer_checks import Check, check_scorers, misfit
from firsthand.task import Task
from firsthand.tool import Tool
from firsthand.trace import Trace

_Coming = Callable[[], Awaitable[None]]
PLAYGROUND = "playground"
"""The benchmark name of prompts that are put to models here."""
MOST_UNDER_WAY = 8
MAX_PROMPT_CHARS = 100_000
MAX_EPOCHS = 16
MAX_TOKENS = 32_768
REPLAY_WAIT_S = 20.0
"""A replay asks no model: its page waits this long for it, and shows the run of one that takes longer."""


@dataclass(frozen=True)
class PlaygroundTrial:
    """A trial: models, and either a prompt or a message of a stored attempt."""

    models: tuple[str, ...]
    prompt: str = ""
    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    alternatives: int | None = None
    """Alternatives of each token to record, with their log-probs, so that answers can be coloured by them."""
    seed: int | None = None
    epochs: int = 1
    """Attempts of each model at a prompt."""
    run: str = ""
    attempt: str = ""
    at: int = 0
    """The message to continue from."""
    say: str = ""
    """A message to insert after it; the model then answers."""
    is_plain: bool = False
    """True to leave the attempt's own pattern and let the model answer the conversation as it stands."""

    def __post_init__(self) -> None:
        if not self.models:
            raise ConfigError("no model was chosen: choose one or more")
        if not self.attempt and not self.prompt.strip():
            raise ConfigError("the prompt is empty: write a question")
        if len(self.prompt) + len(self.say) + len(self.system or "") > MAX_PROMPT_CHARS:
            raise ConfigError(f"the prompt has more than {MAX_PROMPT_CHARS:,} characters")
        if not 1 <= self.epochs <= MAX_EPOCHS:
            raise ConfigError(f"epochs is {self.epochs}: give 1 to {MAX_EPOCHS}")
        if self.max_tokens is not None and not 1 <= self.max_tokens <= MAX_TOKENS:
            raise ConfigError(f"max_tokens is {self.max_tokens}: give 1 to {MAX_TOKENS:,}")


@dataclass(frozen=True)
class _ForkPlace(Place):
    """The place of a fork, which is not that of its task and agent."""

    own_id: str = ""

    @cached_property
    def id(self) -> str:
        """As `Fork.place`."""
        return self.own_id


class Playground:
    """Starts trials, and keeps what went wrong with them."""

    def __init__(self, home: Path, agents: Mapping[str, Agent]):
        self.home = home
        self.agents = dict(agents)
        self.problems: dict[str, str] = {}
        """Run -> why its trial ended early."""
        self._work: dict[asyncio.Task[None], str] = {}
        self._making = 0

    async def start(self, trial: PlaygroundTrial, parents: Run | None = None) -> str:
        """Starts a trial; returns the id of its run. ConfigError or UnknownName if it cannot be made."""
        with self._one_more():
            models = [self._agent(name) for name in dict.fromkeys(trial.models)]
            if trial.attempt:
                assert parents is not None
                run, coming = await run_in_threadpool(self._forks, trial, models, parents)
            else:
                run, coming = await run_in_threadpool(self._prompted, trial, models)
            self._begin(run, coming)
        return run.id

    async def start_tasks(
        self,
        name: str,
        tasks: Sequence[Task],
        models: Sequence[str],
        check: Check,
        prompt: tuple[str, int, str] | None = None,
    ) -> str:
        """Puts a data set to models; returns the id of the run.

        ConfigError if no model was chosen, or for a check that would score every answer to a task 0.

        `prompt` is name, version and text of a system message.
        """
        if not models:
            raise ConfigError("no model was chosen: choose one or more")
        agents = [self._agent(each) for each in models]
        if (odd := await run_in_threadpool(misfit, check, tasks)) is not None:  # seconds for a large data set
            raise ConfigError(
                f"the check {check} accepts no answer to the task {odd.id[:60]!r}, not its own reference either: choose "
                "another check, or none, or take the task out"
            )
        about: Json = {"data_set": name, "models": list(models), "check": check}
        if prompt is not None:
            agents = [replace(each, system=prompt[2]) for each in agents]
            about |= {"prompt": prompt[0], "prompt_version": prompt[1]}
        setting = NamedSetting(name, check_scorers(check))
        places = [Place(agent, setting, task) for agent in agents for task in tasks]
        with self._one_more():
            run = await run_in_threadpool(store.create, self.home, about, "data-set", command=())
            self._begin(run, lambda: execute(run, places, pieces=True))
        return run.id

    async def replay(self, parents: Run, attempt: str) -> tuple[str, str]:
        """Makes a stored attempt again from its recorded replies; returns its run and place, after REPLAY_WAIT_S at most.

        ConfigError if it cannot be replayed.
        """
        with self._one_more():
            run, place, coming = await run_in_threadpool(self._replayed, parents, attempt)
            work = self._begin(run, coming)
        await asyncio.wait([work], timeout=REPLAY_WAIT_S)
        return run.id, place.id

    async def settled(self) -> None:
        """Wait until no trial is under way."""
        await asyncio.gather(*self._work, return_exceptions=True)

    async def stop(self) -> None:
        """End what is under way; its runs are interrupted."""
        for task in self._work:
            task.cancel()
        await self.settled()

    @contextmanager
    def _one_more(self) -> Iterator[None]:
        """Counts a trial as under way while it is made in a thread; ConfigError if there are too many."""
        if len(self._work) + self._making >= MOST_UNDER_WAY:
            raise ConfigError(f"{MOST_UNDER_WAY} trials are under way: wait for one of them to end")
        self._making += 1
        try:
            yield
        finally:
            self._making -= 1

    def _begin(self, run: Run, work: _Coming) -> asyncio.Task[None]:
        task = asyncio.create_task(self._carry_out(run, work))
        self._work[task] = run.id
        task.add_done_callback(lambda done: self._work.pop(done, None))
        return task

    def _agent(self, name: str) -> Agent:
        found = self.agents.get(name)
        if found is None:
            known = ", ".join(self.agents) or "none; start the Studio with --model"
            raise UnknownName(f"no model {name[:80]!r} was named when the Studio was started: there is {known}")
        return found

    def _replayed(self, parents: Run, attempt: str) -> tuple[Run, Place, _Coming]:
        """A run for a stored attempt made again, its place, and its work."""
        from firsthand.studio.attempt_replay import replay_of

        parent = parents.trace(attempt)
        place = replay_of(parents, parent)
        about: Json = {PLAYGROUND: {"replays": True, "run": parents.id, "attempt": parent.place}}
        run = store.create(self.home, about, f"replay-{parent.benchmark}", command=())
        return run, place, lambda: execute(run, [place], seed=parent.seed)

    def _prompted(self, trial: PlaygroundTrial, agents: Sequence[Agent]) -> tuple[Run, _Coming]:
        """A run for a prompt, and its work."""
        from firsthand.arena.blind_battles import prompt_task

        task = prompt_task(trial.prompt)
        chosen = [replace(each, system=trial.system, sampling=_sampling(trial, each.sampling)) for each in agents]
        setting = NamedSetting(PLAYGROUND)
        places = [Place(agent, setting, task, epoch) for agent in chosen for epoch in range(trial.epochs)]
        run = store.create(self.home, {PLAYGROUND: _described(trial)}, PLAYGROUND, command=())

        async def work() -> None:
            await execute(run, places, seed=trial.seed or 0, pieces=True)

        return run, work

    def _forks(self, trial: PlaygroundTrial, agents: Sequence[Agent], parents: Run) -> tuple[Run, _Coming]:
        """A run for forks of an attempt, one for each model, and its work."""
        parent = parents.trace(trial.attempt)
        task = parents.task(parent.benchmark, parent.task_id)
        if task is None:
            raise ConfigError(
                f"run {parents.id} does not hold the task of this attempt, so it cannot be attempted again"
            )
        made = [forked(trial, agent, parents, parent) for agent in agents]
        forks = [
            (Fork(parent, trial.at, agent, trial.say or None, trial.seed, parents.id), setting)
            for agent, setting in made
        ]
        run = store.create(self.home, {PLAYGROUND: _described(trial)}, f"fork-{parent.benchmark}", command=())
        run.add_tasks(parent.benchmark, [task])
        for agent, _ in made:
            run.add_agent(agent.name, agent.to_json())
        run.plan(len(forks))

        async def work() -> None:
            with run.working():
                for what, setting in forks:
                    place = _ForkPlace(what.agent, setting, task, parent.epoch, what.place)
                    listener = None if parent.protected else run.feed.listener(place, pieces=True)
                    trace = await fork(
                        what, task, benchmark=setting, journal=run.journal(what.place), listener=listener
                    )
                    run.append(trace)

        return run, work

    async def _carry_out(self, run: Run, work: _Coming) -> None:
        try:
            await work()
        except FirsthandError as error:
            self.problems[run.id] = str(error)
            while len(self.problems) > 100:
                self.problems.pop(next(iter(self.problems)))
        except Exception as error:  # the page must hear of it, whatever it is
            self.problems[run.id] = f"{type(error).__name__}: {error}"
            print(f"A trial of the Studio failed: {error!r}", file=sys.stderr)
        finally:
            run.close()


def forked(trial: PlaygroundTrial, agent: Agent, parents: Run, parent: Trace) -> tuple[Agent, Setting]:
    """The agent that continues an attempt and the setting that scores it.

    Of a run of `firsthand run` the agent has the pattern, tools and guards of the parent, and its benchmark's scorers; of
    any other run the model answers the conversation, and nothing is scored.
    """
    from firsthand.experiment.foreign_settings import expect_installed
    from firsthand.experiment.forked_agents import base_settings, find_benchmark, forked_agent, forked_settings

    sampling = _sampling(trial, agent.sampling)
    try:
        settings = base_settings(parents)
    except ConfigError:
        plain = replace(agent, system=_system(trial, parent), sampling=sampling)
        return plain, NamedSetting(parent.benchmark)
    expect_installed(
        {"benchmark": settings.benchmarks, "pattern": settings.pattern, "tool": settings.tools, "guard": settings.guard}
        | ({"memory": (settings.memory,)} if settings.memory else {})
    )
    changed = forked_settings(
        settings, parent, pattern="reply" if trial.is_plain else None, model=agent.name, say=trial.say or None,
        changes={"system": trial.system, "temperature": trial.temperature, "max_tokens": trial.max_tokens},
    )  # fmt: skip
    made = forked_agent(changed, parent, [agent.model])
    is_same = made.name == parent.agent_name and parent.agent.get("model") == agent.model.name
    name = made.name if is_same else f"{made.name.partition('@')[0]}@{agent.name}"
    rules = {name: rule for name, rule in made.approval.rules.items() if rule != "allow"}
    approval = Approval({"external": "ask", **rules}, ask=_nobody)
    return replace(made, name=name, approval=approval), find_benchmark(changed, parent)


async def _nobody(tool: Tool, arguments: Json) -> Decision:
    """The decision on a call that a person would be asked about: the browser asks nobody."""
    return Decision(False, "nobody", f"{tool.name} needs approval ({tool.effect}), and the Studio asks nobody")


def _sampling(trial: PlaygroundTrial, own: Sampling) -> Sampling:
    given: dict[str, Any] = {
        "temperature": trial.temperature,
        "max_tokens": trial.max_tokens,
        "top_logprobs": trial.alternatives,
    }
    return replace(own, **{name: value for name, value in given.items() if value is not None})


def _system(trial: PlaygroundTrial, parent: Trace) -> str | None:
    if trial.system is not None:
        return trial.system
    system = parent.agent.get("system")
    return str(system) if system is not None else None


def _described(trial: PlaygroundTrial) -> Json:
    """The trial as the run's config keeps it, without what was not given: a temperature of 0 was."""
    given = {name: value for name, value in vars(trial).items() if value is not None and value is not False}
    return {name: value for name, value in given.items() if value not in ("", ()) and (trial.attempt or name != "at")}
