"""The Experiment: agents x benchmarks x epochs under one seed, carried out as a Run.

    run = Experiment([agent_a, agent_b], ["gsm8k"], limit=50).run()
    run = Experiment.from_settings(RunSettings(benchmarks=("gsm8k",), pattern=("direct", "cot"))).run()

Agents are given as objects, or made from names. Names are data: a Run stores them, so it can be resumed, replayed and spread
over a cluster from its folder alone. Objects are not: such a Run keeps a description of them, and whoever resumes it passes
the same agents again. Every finished attempt is kept whatever happens; resuming makes only those that are missing.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import fmean
from typing import Any, TypedDict, Unpack

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark, Figures
from firsthand.errors import ConfigError
from firsthand.experiment.equal_budget import Fitted, equalise, free_knob
from firsthand.experiment.foreign_settings import expect_own, named_by
from firsthand.experiment.judged_index import protocol_of
from firsthand.experiment.kept_code import agent_digests, scorer_digests
from firsthand.experiment.named_agents import ALLOW_ALL, make_agents, may_ask
from firsthand.experiment.own_files import check_unchanged, own_files
from firsthand.experiment.preflight import check_ready, tasks_of
from firsthand.experiment.recorded import as_recorded, recorded_models, with_recorded_judges
from firsthand.experiment.settings import MAX_EPOCHS, RunSettings, stored_settings, words_of
from firsthand.loop.budget import Budget, Limits
from firsthand.loop.concurrency import run_sync
from firsthand.loop.listener import Listener
from firsthand.loop.warm_up import make_ready
from firsthand.message import Json
from firsthand.model import Model
from firsthand.rollout import Place
from firsthand.runs import store
from firsthand.runs.epoch_reducer import check_epochs
from firsthand.runs.execute import execute
from firsthand.runs.run_folder import Run
from firsthand.system.address_secrets import without_secrets, without_secrets_in
from firsthand.system.home import data_home
from firsthand.system.option_spec import parse_spec
from firsthand.task import Task
from firsthand.telemetry.live_export import sending
from firsthand.telemetry.otlp_export import check_telemetry
from firsthand.trace import Trace

CALIBRATION_TASKS = 8
"""Tasks of each benchmark on which an equal budget measures what patterns cost."""
MAY_CHANGE = ("concurrency", "on", "workers", "name")
"""Settings that may differ when a run is resumed: they change no result."""


class RunOptions(TypedDict, total=False):
    """Keyword arguments of `Experiment.attempt_async`, where they are described."""

    on_trace: Callable[[Trace], None]
    listener: Callable[[Place], Listener | None]
    on_notice: Callable[[str], None]
    otel: bool
    redo_errors: bool
    fail_fast: int | None


def log_notice(text: str) -> None:
    """Log a sentence for the user, such as that a worker was lost."""
    logging.getLogger("firsthand").info("%s", text)


@dataclass(frozen=True)
class Experiment:
    """A question that is answered by a Run: these agents at these benchmarks, so many times, under one seed."""

    agents: Sequence[Agent]
    """Their names must differ."""
    benchmarks: Sequence[Benchmark | str] | Benchmark | str
    """Benchmarks, or names with options as on the command line: `"arithmetic:levels=1-2"`, `"my_benchmark.py"`."""
    epochs: int = 1
    """Attempts of each agent at each task."""
    seed: int = 0
    """Seed of all randomness: the same seed gives the same tokens."""
    limit: int | None = None
    """Only the first N tasks of each benchmark."""
    limits: Limits | None = None
    """For all attempts together; what one attempt may use is its agent's `limits`. Not for clusters."""
    concurrency: int = 16
    """Max concurrent attempts; on a cluster, per worker."""
    where: str | None = None
    """None is this process, `"ray"` this machine's Ray cluster, `"ray:HOST:PORT"` another."""
    workers: int | None = None
    """On a cluster: this many workers; by default one per GPU that a model can use, or one per machine."""
    name: str | None = None
    """Run name: a word that becomes part of the run's id."""
    settings: RunSettings | None = field(default=None, repr=False)
    """The names that the agents were made from; set by `from_settings`, not by hand."""
    _files: Mapping[str, Mapping[str, str]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Kind -> SHA-256 of each of the user's own files."""

    def __post_init__(self) -> None:
        named = self.benchmarks
        object.__setattr__(self, "benchmarks", (named,) if isinstance(named, str | Benchmark) else tuple(named))
        object.__setattr__(self, "agents", tuple(self.agents))
        object.__setattr__(self, "_files", self._own_files())  # now, when they are loaded
        if not self.agents:
            raise ConfigError("the experiment has no agents: give one or more, as in Experiment([agent], ...)")
        names = [agent.name for agent in self.agents]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"two agents are named {name!r}: give each agent a name of its own")
        if not self.benchmarks:
            raise ConfigError(
                "the experiment has no benchmarks: name one or more, as in Experiment(agents, ['arithmetic'])"
            )
        for each in ("epochs", "limit", "concurrency", "workers"):
            value = getattr(self, each)
            if value is not None and value < 1:
                raise ConfigError(f"{each} is {value}: give 1 or more")
        if self.epochs > MAX_EPOCHS:
            raise ConfigError(f"epochs is {self.epochs}: the most is {MAX_EPOCHS:,}, each an attempt at every task")
        if self.where is None:
            if self.workers is not None:
                raise ConfigError("workers are those of a cluster: name it, as in where='ray'")
            return
        if self.where.split(":")[0] != "ray":
            raise ConfigError(f"where is {self.where!r}: give 'ray', 'ray:HOST:PORT', or None for this process")
        if self.settings is None:
            raise ConfigError(
                f"where is {self.where!r}, and agents made in Python do not travel to a cluster: make them from names, "
                "as in Experiment.from_settings(RunSettings(..., on='ray'))"
            )
        if self.limits is not None:
            raise ConfigError(
                "limits and where do not go together: on a cluster, limit each attempt by its agent's limits"
            )

    # -- made from names --

    @classmethod
    def from_settings(
        cls, settings: RunSettings, *, models: Sequence[Model] | None = None, show_progress: bool = False
    ) -> Experiment:
        """The experiment that names describe. `models` are used instead of opening those of `settings`.

        A name that does not exist is an UnknownName, a clash a ConfigError; models are opened last. With `show_progress`
        a model that has to be fetched shows a progress bar on a terminal. With `settings.replay`, models, judges and tools
        that reach outside answer from that run.
        """
        benchmarks = settings.made_benchmarks()
        if settings.replay:
            benchmarks = [with_recorded_judges(benchmark, settings.replay) for benchmark in benchmarks]
        return cls(
            make_agents(settings, models, show_progress=show_progress),
            benchmarks,
            epochs=settings.epochs,
            seed=settings.seed,
            limit=settings.limit,
            concurrency=settings.concurrency,
            where=settings.on,
            workers=settings.workers,
            name=settings.name,
            settings=settings,
        )

    @classmethod
    def from_run(cls, run: Run | str, *, trust: bool = False, **changes: Any) -> Experiment:
        """The experiment that a run was created by, with `changes` to its settings; ConfigError if its agents had no names.

        It is carried out here, or on the cluster that `changes` name (`on="ray"`, `workers=2`), whatever the run states.
        ConfigError too for a run of another data home that names a file, a server or an address, which would be loaded:
        `trust` loads it. `Experiment.from_run("last").resume("last")` is what `firsthand run --resume` does.
        """
        if isinstance(run, str):
            with store.open_run(run, data_home()) as opened:
                return cls.from_run(opened, trust=trust, **changes)
        kept = stored_settings(run)
        settings = replace(kept, **changes)
        before = named_by(kept)
        expect_own(
            run, {kind: texts for kind, texts in named_by(settings).items() if texts == before[kind]}, trust=trust
        )
        return cls.from_settings(settings)

    # -- what is attempted --

    @cached_property
    def made_benchmarks(self) -> list[Benchmark]:
        """The benchmarks as objects; names are looked up once. UnknownName or ConfigError if that fails."""
        assert isinstance(self.benchmarks, tuple)
        return [catalog.benchmark(each) if isinstance(each, str) else each for each in self.benchmarks]

    @cached_property
    def made_tasks(self) -> list[Sequence[Task]]:
        """The tasks of each benchmark, up to the limit; they are generated or read once.

        ConfigError for a benchmark without tasks, or with two of one id, of which nothing would tell the attempts apart.
        """
        return [tasks_of(each, self.seed)[: self.limit] for each in self.made_benchmarks]

    def places(self) -> list[Place]:
        """Every attempt, task by task, so that an interrupted run can be compared as far as it got."""
        return [
            Place(agent, benchmark, task, epoch)
            for benchmark, tasks in zip(self.made_benchmarks, self.made_tasks, strict=True)
            for epoch in range(self.epochs)
            for task in tasks
            for agent in self.agents
        ]

    @property
    def protocols(self) -> dict[str, str]:
        """Benchmark -> how it is prompted and scored, without the secrets of addresses."""
        made = zip(self.made_benchmarks, self.made_tasks, strict=True)
        return {each.name: protocol_of(self.agents, each, tasks) for each, tasks in made}

    @property
    def figures(self) -> dict[str, Figures]:
        """Benchmark -> its figures of all attempts together, where it has any."""
        return {benchmark.name: benchmark.figures for benchmark in self.made_benchmarks if benchmark.figures}

    @property
    def asks_person(self) -> bool:
        """True if a person may be asked to approve a tool call."""
        return may_ask(self.agents)

    def config(self) -> Json:
        """The description that a Run stores, as JSON: the settings, or the names of agents made in Python."""
        if self.settings is not None:
            return self.current_settings.stored()
        return {
            "benchmarks": without_secrets_in(self._texts()),
            "agents": [agent.name for agent in self.agents],
            **self._own(),
        }

    @property
    def current_settings(self) -> RunSettings:
        """`settings` with what this experiment changes of them: epochs, seed, limit and where it runs."""
        assert self.settings is not None
        return replace(self.settings, **self._own())

    def _own(self) -> Json:
        """The fields that are settings too, by the settings' names."""
        return {
            "epochs": self.epochs,
            "seed": self.seed,
            "limit": self.limit,
            "concurrency": self.concurrency,
            "on": self.where,
            "workers": self.workers,
            "name": self.name,
        }

    def _texts(self) -> list[str]:
        if self.settings is not None:
            return list(self.settings.benchmarks)
        assert isinstance(self.benchmarks, tuple)
        return [each if isinstance(each, str) else each.name for each in self.benchmarks]

    def _own_files(self) -> Mapping[str, Mapping[str, str]]:
        if self.settings is not None:
            return own_files(named_by(self.settings))
        assert isinstance(self.benchmarks, tuple)
        return own_files({"benchmark": [each for each in self.benchmarks if isinstance(each, str)]})

    # -- carried out --

    def run(self, **options: Unpack[RunOptions]) -> Run:
        """Attempt everything; returns the finished Run, open. Not for async code.

        Interrupted with Ctrl-C it raises KeyboardInterrupt; what is done is kept, and `resume("last")` finishes it.
        """
        return run_sync(self.run_async(**options))

    async def run_async(self, **options: Unpack[RunOptions]) -> Run:
        """As `run`. Options and errors are those of `attempt_async`; an equal budget is measured first."""
        check_telemetry(options.get("otel", False))
        await self.make_ready()
        experiment = await self.equalised()
        run = experiment.create()
        try:
            await experiment.attempt_async(run, **options)
        except BaseException:
            run.close()
            raise
        return run

    def check_ready(self) -> None:
        """FirsthandError if a sandbox, a tool or a task that its agents need is missing; `create` asks."""
        check_ready(self.agents, list(zip(self.made_benchmarks, self.made_tasks, strict=True)))

    async def make_ready(self, run: Run | None = None) -> None:
        """As `check_ready`, and load the local models of what is to be attempted, or of what a run is missing.

        FirsthandError if a model cannot be loaded, ConfigError as in `create`. On a cluster nothing is loaded here.
        """
        if run is None:
            self._expect_names_once()
        if self.where is not None:
            return
        self.check_ready()
        done = set() if run is None else run.done()
        await make_ready(
            {id(place.agent.model): place.agent.model for place in self.places() if place.id not in done}.values()
        )

    def create(self) -> Run:
        """A new Run of this experiment in the data home, with nothing attempted yet; StoreError if there is no room.

        The first of an experiment's methods that needs its cluster: MissingExtra or ConfigError if that is not there.
        ConfigError too for two benchmarks of one name, whose attempts nothing would tell apart.
        """
        config = self.config()
        self._expect_names_once()
        if self.where is None:
            self.check_ready()
        else:
            self._check_cluster()
        texts = self._texts()
        hint = self.name or "-".join(parse_spec(text).name.rsplit("/", 1)[-1] for text in texts)
        made = zip(self.made_benchmarks, texts, strict=True)
        figures = {benchmark.name: without_secrets(text) for benchmark, text in made if benchmark.figures is not None}
        command = None if self.settings is None else [self.current_settings.command()]
        reducers = {each.name: each.reduce for each in self.made_benchmarks if each.reduce}
        for name in reducers.values():
            check_epochs(name, self.epochs)
        return store.create(
            data_home(), config, hint, command=command, figures=figures, protocols=self.protocols, reducers=reducers,
            files=self._files, scorers=scorer_digests(self.made_benchmarks), code=agent_digests(self.agents),
        )  # fmt: skip

    def _expect_names_once(self) -> None:
        for name, times in Counter(benchmark.name for benchmark in self.made_benchmarks).items():
            if times > 1:
                raise ConfigError(
                    f"{name} is given {times} times, and a run holds one attempt of each of its tasks under one protocol: "
                    "make a run for each"
                )

    def resume(self, run: Run | str, **options: Unpack[RunOptions]) -> Run:
        """Attempt what a run, open or named, is missing; returns it, open. Not for async code."""
        return run_sync(self.resume_async(run, **options))

    async def resume_async(self, run: Run | str, **options: Unpack[RunOptions]) -> Run:
        """As `resume`. Options and errors are those of `attempt_async`.

        ConfigError too if another process works on the run, or if it was created with other settings: another seed, other
        benchmarks. StoreError if an agent of the same name is another one.
        """
        opened = store.open_run(run, data_home()) if isinstance(run, str) else run
        opened.expect_idle()
        kept = opened.config
        if "fork" in kept or "chat" in kept:
            stored_settings(opened)  # which says how to go on with it
        for name, value in json.loads(json.dumps(self.config())).items():
            if name not in MAY_CHANGE and name in kept and without_secrets_in(kept[name]) != without_secrets_in(value):
                raise other_setting(opened, name, kept[name], value)
        await self.attempt_async(opened, **options)
        return opened

    async def attempt_async(
        self,
        run: Run,
        *,
        on_trace: Callable[[Trace], None] = lambda trace: None,
        listener: Callable[[Place], Listener | None] = lambda place: None,
        on_notice: Callable[[str], None] = log_notice,
        otel: bool = False,
        redo_errors: bool = False,
        fail_fast: int | None = None,
    ) -> None:
        """Attempt the places that the run has no trace of, and keep each trace when its attempt ends. Repeats nothing.

        `on_trace` is given each trace once it is kept. `listener` gives the listener of an attempt's steps, or None; it is
        unused on a cluster. `on_notice` is given sentences for the user. With `otel`, or $OTEL_EXPORTER_OTLP_ENDPOINT,
        attempts are sent to an OpenTelemetry collector. `redo_errors` attempts again what ended with an error.
        `fail_fast` is that of `runs.execute.execute`; on a cluster it is unused.

        ConfigError if something is left to attempt and a file of a benchmark or its scorer has changed since the run was
        begun; `on_notice` is given a sentence about patterns and tools. StoreError if the run cannot be written, or holds
        another task or agent of the same name; LimitExceeded when `limits` are used up. Cancelling is safe: what an
        unfinished attempt was answered is in its journal.
        """
        places = self.places()
        done = run.done(errors=not redo_errors)
        if any(place.id not in done for place in places):
            check_unchanged(run, self._files, done, on_notice)
        with sending(run.id, asked=otel, on_problem=on_notice) as sender:

            def keep(trace: Trace) -> None:
                sender.ended(trace)
                on_trace(trace)

            if self.where is not None:
                from firsthand.experiment.on_cluster import execute_on_cluster

                self._check_cluster()
                await execute_on_cluster(
                    run, self.current_settings, places, on_trace=keep, on_notice=on_notice, redo_errors=redo_errors
                )
                return
            kept = {id(agent): agent.named_as_in(run.agents()) for agent in self.agents}
            await execute(
                run,
                [replace(place, agent=kept[id(place.agent)]) for place in places],
                seed=self.seed,
                concurrency=self.concurrency,
                budget=None if self.limits is None else Budget(self.limits),
                on_trace=keep,
                redo_errors=redo_errors,
                fail_fast=fail_fast,
                listener=sender.listeners(listener),
            )

    def _check_cluster(self) -> None:
        from firsthand.experiment.on_cluster import check_cluster  # it starts subprocess and socket machinery

        check_cluster(self.current_settings, self.agents)

    # -- replays and equal budgets --

    def replaying(self, run: str) -> Experiment:
        """The experiment with models, judges and tools that reach outside answering from a recorded run.

        A request that the run has no reply to is an error of its attempt.
        """
        for agent in self.agents:
            if len(agent.own_tools) < len(agent.tools):
                raise ConfigError(
                    f"{agent.name} has tools that are opened for each attempt, and a replay opens nothing: "
                    "give the agent those tools as Tools, or none"
                )
        with store.open_run(run, data_home()) as source:
            ref = str(source.path)
        if self.settings is not None:
            return Experiment.from_settings(replace(self.current_settings, on=None, workers=None, replay=ref))
        agents = [
            replace(
                agent,
                model=recorded_models(ref, [agent.model.name])[0],
                tools=tuple(as_recorded(tool, ref) for tool in agent.own_tools),
                approval=ALLOW_ALL,
            )
            for agent in self.agents
        ]
        return replace(
            self, agents=agents, benchmarks=[with_recorded_judges(each, ref) for each in self.made_benchmarks]
        )

    async def equalised(
        self,
        attempt: Callable[[Experiment, Run], Awaitable[None]] | None = None,
        on_fitted: Callable[[Run, float, Sequence[Fitted]], None] = lambda run, budget, fitted: None,
    ) -> Experiment:
        """The experiment that meets `settings.equal_budget`: each pattern's knob is set so that attempts cost the same.

        Costs are measured on a few tasks, in a run of its own; `attempt` attempts what that run is missing, by default with
        `attempt_async`. `on_fitted` is given that run, the budget in tokens, and the value of each pattern. Returns the
        experiment itself if it has no equal budget, has no knob left to set, or is a replay.
        """
        settings = self.settings and self.current_settings
        if settings is None or settings.equal_budget is None or settings.replay:
            return self
        budget = settings.token_budget
        if budget is not None and not any(free_knob(text) for text in settings.pattern):
            return self
        models = [self.agents[0].model]
        limit = min(settings.limit or CALIBRATION_TASKS, CALIBRATION_TASKS)
        few = replace(settings, limit=limit, epochs=1, equal_budget=None, name="calibration")
        with Experiment.from_settings(few, models=models).create() as run:

            async def measure(patterns: Sequence[str]) -> dict[str, float]:
                variants = Experiment.from_settings(replace(few, pattern=tuple(patterns)), models=models)
                await (attempt(variants, run) if attempt else variants.attempt_async(run))
                ids = {place.id for place in variants.places()}
                costs: dict[str, list[int]] = {text: [] for text in patterns}
                for row in run.rows():
                    if row.place in ids:
                        costs[row.agent].append(row.tokens)
                return {text: fmean(tokens) for text, tokens in costs.items()}

            budget, fitted = await equalise(settings.pattern, budget, measure)
            on_fitted(run, budget, fitted)
        turned = replace(settings, pattern=tuple(each.pattern for each in fitted), equal_budget=str(round(budget)))
        return Experiment.from_settings(turned, models=models)


def other_setting(run: Run, name: str, kept: object, value: object) -> ConfigError:
    """The error for resuming a run with a setting that differs from the one it was created with."""
    return ConfigError(
        f"{run.id} was begun with {name} {words_of(kept)}, not {words_of(value)}: "
        "resume it with the same settings, or leave them out"
    )
