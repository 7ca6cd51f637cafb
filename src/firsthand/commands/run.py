"""Run benchmarks: every agent (model x pattern) attempts every task, and a leaderboard says what each bought and cost."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING

from firsthand import catalog
from firsthand.benchmark import Benchmark
from firsthand.commands.lineup import make_agents, make_places, may_ask
from firsthand.commands.results import print_json, print_results
from firsthand.config import build
from firsthand.errors import ConfigError
from firsthand.loop.approval import parse_rules
from firsthand.loop.protection import shareable
from firsthand.message import Json
from firsthand.rollout import Place
from firsthand.system.option_spec import parse_spec
from firsthand.system.terminal import complain, progress
from firsthand.trace import Trace

if TYPE_CHECKING:
    from firsthand.runs.store import Run

EXAMPLES = """
firsthand run arithmetic
firsthand run arithmetic gsm8k --model smollm2 --pattern direct,cot,self_consistency:samples=8 --limit 50
firsthand run gsm8k --model openai:llama3.2@http://localhost:11434/v1 --pattern react --budget-tokens 4000
firsthand run gsm8k --pattern react --tools calculator,files:notes,sql:shop.db --approve external=ask
firsthand run gsm8k --pattern direct,cot,self_consistency,react --equal-budget    # the same tokens for each pattern
firsthand run my_benchmark.py --pattern my_pattern.py,direct --epochs 3 --seed 7
firsthand run arithmetic --pattern cot --resume          # finish what an interrupted run left
firsthand run gsm8k --pattern react --limit 1 --watch    # see its steps while they happen
firsthand run gsm8k --model openai:llama3.2@http://gpu1:8000/v1 --on ray --workers 4    # on a cluster's machines
firsthand run --replay last                              # the same run from its recorded replies, without the model
"""


@dataclass(frozen=True)
class Config:
    """What to run. The flag is the field name."""

    benchmarks: tuple[str, ...] = field(default=(), metadata={"positional": True})
    """Benchmarks: names, or Python files of your own; `firsthand list benchmarks` shows the names."""
    model: tuple[str, ...] = ("smollm2",)
    """Models: a known name, a .gguf file, a folder, hf:ORG/NAME, or openai:NAME@URL."""
    device: str = "cpu"
    """Where models that run here are computed: cpu, cuda, cuda:N, or auto, which is CUDA where there is one."""
    pattern: tuple[str, ...] = ("direct",)
    """Patterns with their options, such as cot,self_consistency:samples=16. The first one is the baseline."""
    tools: tuple[str, ...] = ("calculator",)
    """Tools that patterns may call, with what they work on, such as calculator,files:notes,sql:shop.db,fetch."""
    approve: tuple[str, ...] = ()
    """Which calls run: allow, ask or deny by tool or effect, as in external=ask,fetch=deny; alone it is for irreversible."""
    limit: int | None = None
    """Only the first N tasks of each benchmark."""
    epochs: int = 1
    """How many times each agent attempts each task."""
    seed: int = 0
    """All randomness comes from this: the same seed gives the same tokens."""
    temperature: float = 0.0
    """Sampling temperature where the pattern sets none; 0 is greedy."""
    max_tokens: int = 256
    """At most this many new tokens in one answer."""
    system: str | None = None
    """A system message that opens every conversation."""
    budget_tokens: int | None = None
    """Tokens (prompt and completion) that one attempt may use, the same for every pattern."""
    budget_calls: int | None = None
    """Calls that one attempt may make."""
    budget_seconds: float | None = None
    """Seconds that one attempt may take."""
    budget_usd: float | None = None
    """Money that one attempt may cost."""
    equal_budget: str | None = field(default=None, metadata={"bare": "auto"})
    """Give each pattern about N tokens an attempt by its samples, breadth or steps; alone: what the dearest pattern uses."""
    concurrency: int = 16
    """Attempts under way at a time; on a cluster, on each of its workers."""
    on: str | None = None
    """Where attempts run: `ray` is the Ray cluster of this machine, `ray:HOST:PORT` another; without it, this process."""
    workers: int | None = None
    """With --on: this many workers; else one for each GPU that a model here can use, or for each machine."""
    watch: bool = False
    """Show each attempt as a tree while it runs, one at a time."""
    otel: bool = False
    """Send each attempt to an OpenTelemetry collector; $OTEL_EXPORTER_OTLP_ENDPOINT says where, and is enough."""
    resume: str | None = field(default=None, metadata={"bare": "last"})
    """Finish a run that was interrupted, repeating nothing: a run's id, or nothing for the last one."""
    retry_errors: bool = False
    """With --resume: attempt again what ended with an error."""
    replay: str | None = None
    """Answer from the replies recorded in this run, without the model or what lies outside; what it lacks is an error."""
    name: str | None = None
    """A word for the run's id."""
    json: bool = False
    """Print the leaderboard as JSON for programs."""

    def __post_init__(self) -> None:
        for name in ("limit", "epochs", "concurrency", "max_tokens", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}: give 1 or more")
        if self.equal_budget is not None:
            if self.equal_budget != "auto" and not (self.equal_budget.isdecimal() and int(self.equal_budget) > 0):
                raise ConfigError(
                    f"equal_budget is {self.equal_budget!r}: give a number of tokens, or nothing for what the dearest "
                    "pattern uses; a benchmark's name must not follow it"
                )
            if len(self.model) > 1 and self.equal_budget:
                raise ConfigError("equal_budget compares patterns, so name one model; run the next one by itself")
        for name in ("model", "pattern"):
            if not getattr(self, name):
                raise ConfigError(f"{name} is empty: name one or more, as in --{name} {_shown(getattr(Config, name))}")
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ConfigError(f"{name} is {_shown(getattr(self, name))}: name each one once")
        parse_rules(self.approve)
        if self.retry_errors and self.resume is None:
            raise ConfigError("retry_errors goes with resume: say which run, as in --resume last --retry-errors")
        if self.watch and self.json:
            raise ConfigError("watch and json do not go together: one is for eyes, the other for programs")
        if self.on is not None and self.on.split(":")[0] != "ray":
            raise ConfigError(f"on is {self.on!r}: give ray, or ray:HOST:PORT for a cluster elsewhere")
        if self.workers is not None and self.on is None:
            raise ConfigError("workers are those of a cluster: say which, as in --on ray --workers 8")
        for name in ("watch", "replay"):
            if self.on is not None and getattr(self, name):
                raise ConfigError(f"{name} and on do not go together: leave out --on to {name} here")
        if self.resume and self.replay:
            raise ConfigError("resume and replay do not go together: resume finishes a run, replay repeats one")
        if not (self.benchmarks or self.resume or self.replay):
            raise ConfigError(
                "no benchmark was named: try `firsthand run arithmetic`; `firsthand list benchmarks` shows all"
            )

    def command(self) -> str:
        """The command line that gives this config."""
        words = ["firsthand", "run", *self.benchmarks]
        for key, value in asdict(self).items():
            if key in ("benchmarks", "json", "resume", "retry_errors", "watch", "otel") or value == getattr(
                Config, key, None
            ):
                continue
            flag = f"--{key.replace('_', '-')}"
            words += [f"{flag}={value}"] if str(value).startswith("-") else [flag, _shown(value)]
        return shlex.join(words)


def main(config: Config) -> int:
    """Run, print the leaderboard, say where everything is."""
    begun, settings = open_or_configure(config)
    benchmarks = [catalog.benchmark(text) for text in settings.benchmarks]
    if settings.replay:
        from firsthand.commands.recorded import with_recorded_judges

        benchmarks = [with_recorded_judges(benchmark, settings.replay) for benchmark in benchmarks]
    agents = make_agents(settings)
    if settings.equal_budget and begun is None and settings.replay is None:
        from firsthand.commands.budgets import equalised

        try:
            settings = equalised(settings, benchmarks, agents[0].model)
        except KeyboardInterrupt:
            complain("interrupted while the budgets were measured: nothing else has been run")
            return 130
        agents = make_agents(settings, [agents[0].model])
    places = make_places(settings, agents, benchmarks)
    if settings.on is not None:
        from firsthand.commands.cluster import check

        check(settings, may_ask(places))
    protocols = {benchmark.name: benchmark.protocol for benchmark in benchmarks}
    figures = {benchmark.name: benchmark.figures for benchmark in benchmarks if benchmark.figures}
    with begun or create_run(settings, benchmarks) as run:  # only now, so that a mistyped name leaves no run behind
        interrupted = perform(run, settings, places, redo_errors=config.retry_errors)
        order = {place.id: index for index, place in enumerate(places)}
        traces = sorted(run.traces(), key=lambda trace: order.get(trace.place, len(order)))
        if config.json:
            print_json(run, settings, traces, protocols, figures)
        else:
            print_results(run, settings, traces, protocols, figures)
        failed = [error for trace in traces if (error := shareable(trace).error)]
        if failed:
            complain(
                f"{len(failed)} of {len(traces)} attempts failed, the first with {failed[0].kind}: {failed[0].message}"
            )
        unscored = [each for trace in traces for each in shareable(trace).scores[:1] if each.failed]
        if unscored:
            why = f"the first by {unscored[0].name}: {unscored[0].detail['scorer_failed']}"
            complain(f"{len(unscored)} of {len(traces)} attempts could not be scored, {why}")
        if interrupted:
            done = f"{len(traces)} of {len(order)}"
            complain(f"interrupted with {done} attempts done: `firsthand run --resume {run.id}` finishes them")
            return 130
    return 3 if failed or unscored else 0


def open_or_configure(config: Config) -> tuple[Run | None, Config]:
    """The run to go on with, if there is one, and the settings: those a run was begun with, and for a replay any change."""
    from firsthand.runs import store
    from firsthand.system.home import data_home

    if config.resume:
        run = store.open_run(config.resume, data_home())
        if run.status == "running":
            raise ConfigError(f"{run.id} is being run by another process: wait until it ends, or end it first")
        saved, asked = settings_of(run), given(config)
        concurrency = asked.pop("concurrency", saved.concurrency)
        on, workers = asked.pop("on", None), asked.pop("workers", None)
        for key, value in asked.items():
            if value != getattr(saved, key):
                raise ConfigError(
                    f"{run.id} was begun with {key} {_shown(getattr(saved, key))}, not {_shown(value)}: "
                    "resume it with the same settings, or leave them out"
                )
        how: Json = {"json": config.json, "watch": config.watch, "otel": config.otel, "concurrency": concurrency}
        return run, replace(saved, **how, on=on, workers=workers)
    if config.replay:
        with store.open_run(config.replay, data_home()) as source:
            saved = replace(settings_of(source), on=None, workers=None)
            how = {"json": config.json, "otel": config.otel}
            return None, replace(saved, **given(config), **how, replay=str(source.path))
    return None, config


def given(config: Config) -> Json:
    """The settings that differ from their defaults, but for those that say which run is meant and what is printed."""
    about = ("json", "resume", "retry_errors", "replay", "watch", "otel")
    values = {each.name: getattr(config, each.name) for each in fields(config) if each.name not in about}
    return {name: value for name, value in values.items() if value != getattr(Config, name)}


def settings_of(run: Run) -> Config:
    """The settings a run was begun with."""
    if "fork" in run.config:
        raise ConfigError(f"{run.id} is a fork: `firsthand fork --resume {run.id}` finishes it")
    if "chat" in run.config:
        raise ConfigError(f"{run.id} is a saved conversation: `firsthand chat --load {run.id}` goes on with it")
    return build_settings(run.config)


def build_settings(body: Json) -> Config:
    """The settings that a run has kept."""
    return build(Config, body)


def create_run(config: Config, benchmarks: Sequence[Benchmark]) -> Run:
    """A new run, named after its benchmarks."""
    from firsthand.runs import store
    from firsthand.system.home import data_home

    hint = config.name or "-".join(parse_spec(name).name.rsplit("/", 1)[-1] for name in config.benchmarks)
    made = zip(benchmarks, config.benchmarks, strict=True)
    figures = {benchmark.name: text for benchmark, text in made if benchmark.figures is not None}
    return store.create(data_home(), asdict(config), hint, command=[config.command()], figures=figures)


def perform(run: Run, config: Config, places: Sequence[Place], *, redo_errors: bool = False) -> bool:
    """Whether the run was interrupted before it had come to its end."""
    from firsthand.runs.execute import execute
    from firsthand.show.live_tree import watching
    from firsthand.telemetry.live_export import sending

    secret = next((place.task.protected for place in places if place.task.protected), None)
    if config.watch and secret is not None:
        raise ConfigError(f"watch would print what is not to be printed ({secret}): leave it out")
    done = len(run.done())
    label = ", ".join(dict.fromkeys(place.benchmark.name for place in places))
    asks = may_ask(places)  # a question and a live display would write over each other
    shown = not (config.json or config.watch or asks)
    with (
        progress(label, len(places), shown=shown) as update,
        watching(in_place=not asks) as watch,
        sending(run.id, asked=config.otel, on_problem=complain) as sender,
    ):

        def on_trace(trace: Trace) -> None:
            nonlocal done
            done += 1
            sender.ended(trace)
            if config.watch:
                watch.ended(trace)
            update(min(done, len(places)), note=f"{trace.agent_name} {trace.task_id}")

        update(done)
        try:
            if config.on is not None:
                from firsthand.commands.cluster import spread

                spread(run, config, places, on_trace, complain, redo_errors=redo_errors)
                return False
            asyncio.run(
                execute(
                    run,
                    places,
                    seed=config.seed,
                    concurrency=1 if config.watch else config.concurrency,
                    on_trace=on_trace,
                    redo_errors=redo_errors,
                    listener=sender.listeners(watch.listener if config.watch else lambda place: None),
                )
            )
        except KeyboardInterrupt:
            return True
    return False


def _shown(value: object) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)
