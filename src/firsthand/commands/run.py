"""Run benchmarks: every agent (model x pattern) attempts every task, and a leaderboard says what each bought and cost."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.budget import Limits
from firsthand.config import build
from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.model import Model, Sampling
from firsthand.rollout import Place
from firsthand.terminal import console, progress
from firsthand.trace import Trace

if TYPE_CHECKING:
    from firsthand.runs.store import Run

EXAMPLES = """
firsthand run arithmetic
firsthand run arithmetic gsm8k --model smollm2 --pattern direct,cot,self_consistency:samples=8 --limit 50
firsthand run gsm8k --model openai:llama3.2@http://localhost:11434/v1 --pattern react --budget-tokens 4000
firsthand run my_benchmark.py --pattern my_pattern.py,direct --epochs 3 --seed 7
firsthand run arithmetic --pattern cot --resume          # finish what an interrupted run left
firsthand run --replay last                              # the same run from its recorded replies, without the model
"""


@dataclass(frozen=True)
class Config:
    """What to run. The flag is the field name."""

    benchmarks: tuple[str, ...] = field(default=(), metadata={"positional": True})
    """Benchmarks: names, or Python files of your own; `firsthand list benchmarks` shows the names."""
    model: tuple[str, ...] = ("smollm2",)
    """Models: a known name, a .gguf file, a folder, hf:ORG/NAME, or openai:NAME@URL."""
    pattern: tuple[str, ...] = ("direct",)
    """Patterns with their options, such as cot,self_consistency:samples=16. The first one is the baseline."""
    tools: tuple[str, ...] = ("calculator",)
    """Tools that patterns may call."""
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
    concurrency: int = 16
    """Attempts under way at a time."""
    resume: str | None = field(default=None, metadata={"bare": "last"})
    """Finish a run that was interrupted, repeating nothing: a run's id, or nothing for the last one."""
    retry_errors: bool = False
    """With --resume: attempt again what ended with an error."""
    replay: str | None = None
    """Answer from the replies recorded in this run, without the model; a request that it does not hold is an error."""
    name: str | None = None
    """A word for the run's id."""
    json: bool = False
    """Print the leaderboard as JSON for programs."""

    def __post_init__(self) -> None:
        for name in ("limit", "epochs", "concurrency", "max_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}: give 1 or more")
        if self.retry_errors and self.resume is None:
            raise ConfigError("retry_errors goes with resume: say which run, as in --resume last --retry-errors")
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
            if key in ("benchmarks", "json", "resume", "retry_errors") or value == getattr(Config, key, None):
                continue
            words += [f"--{key.replace('_', '-')}", ",".join(value) if isinstance(value, tuple) else str(value)]
        return shlex.join(words)


def main(config: Config) -> int:
    """Run, print the leaderboard, say where everything is."""
    run, config = open_or_create(config)
    traces, interrupted = perform(run, config)
    if config.json:
        print_json(run, traces)
    else:
        print_results(run, config, traces)
    if interrupted:
        return 130
    return 3 if any(trace.error for trace in traces) else 0


def open_or_create(config: Config) -> tuple[Run, Config]:
    """The run to write, and the settings it is run with: a resumed run keeps those it was begun with."""
    from firsthand.home import data_home
    from firsthand.runs import store

    if config.resume:
        run = store.open_run(config.resume, data_home())
        saved = settings_of(run)
        for key, default in _DEFAULTS.items():
            asked, begun = getattr(config, key), getattr(saved, key)
            if asked not in (default, begun):
                raise ConfigError(
                    f"{run.id} was begun with {key} {','.join(begun)}, not {','.join(asked)}: "
                    "resume it with the same settings, or leave them out"
                )
        return run, replace(saved, json=config.json, resume=run.id, retry_errors=config.retry_errors)
    if config.replay:
        source = store.open_run(config.replay, data_home())
        saved = settings_of(source)
        config = replace(saved, json=config.json, replay=str(source.path), resume=None)
    hint = config.name or "-".join(catalog.parse_spec(name).name.rsplit("/", 1)[-1] for name in config.benchmarks)
    return store.create(data_home(), asdict(config), hint, command=[config.command()]), config


_DEFAULTS: dict[str, tuple[str, ...]] = {"benchmarks": (), "model": ("smollm2",), "pattern": ("direct",)}


def settings_of(run: Run) -> Config:
    """The settings a run was begun with."""
    return build(Config, run.config)


def perform(run: Run, config: Config) -> tuple[list[Trace], bool]:
    """All traces of the run once it has gone on to its end, and whether it was interrupted."""
    from firsthand.runs.execute import execute

    benchmarks = [catalog.benchmark(text) for text in config.benchmarks]
    agents = make_agents(config, open_models(config))
    places = make_places(config, agents, benchmarks)
    interrupted = False
    done = len(run.done())
    with progress(", ".join(each.name for each in benchmarks), len(places), shown=not config.json) as update:

        def on_trace(trace: Trace) -> None:
            nonlocal done
            done += 1
            update(min(done, len(places)), note=f"{trace.agent_name} {trace.task_id}")

        update(done)
        try:
            asyncio.run(
                execute(
                    run,
                    places,
                    seed=config.seed,
                    concurrency=config.concurrency,
                    on_trace=on_trace,
                    redo_errors=config.retry_errors,
                )
            )
        except KeyboardInterrupt:
            interrupted = True
    order = {place.id: index for index, place in enumerate(places)}
    traces = sorted(run.traces(), key=lambda trace: order.get(trace.id, len(order)))
    return traces, interrupted


def open_models(config: Config) -> list[Model]:
    """The models by name, answering from the store where the config says replay."""
    if config.replay is None:
        return [catalog.model(name) for name in config.model]
    from firsthand.home import data_home
    from firsthand.providers.cached import Replay
    from firsthand.runs import store

    source = store.open_run(config.replay, data_home())
    fingerprints = {trace.agent["model"]: trace.agent["fingerprint"] for trace in source.traces()}
    return [Replay(source, name=name, fingerprint=fingerprints.get(name, "")) for name in config.model]


def make_agents(config: Config, models: Sequence[Model]) -> list[Agent]:
    """An agent for each model and pattern, named after the pattern, and after the model too if there are several."""
    sampling = Sampling(max_tokens=config.max_tokens, temperature=config.temperature)
    limits = Limits(
        tokens=config.budget_tokens,
        calls=config.budget_calls,
        seconds=config.budget_seconds,
        cost_usd=config.budget_usd,
    )
    tools = tuple(catalog.tool(name) for name in config.tools)
    agents = []
    for model in models:
        for text in config.pattern:
            pattern, options = catalog.pattern(text)
            name = text if len(models) == 1 else f"{text}@{model.name}"
            agents.append(Agent(name, model, pattern, options, tools, sampling, config.system, limits=limits))
    names = [agent.name for agent in agents]
    if len(set(names)) < len(names):
        raise ConfigError(f"the agents {', '.join(names)} are not all different: name each model and pattern once")
    return agents


def make_places(config: Config, agents: Sequence[Agent], benchmarks: Sequence[Benchmark]) -> list[Place]:
    """Every attempt of the run, task by task, so that an interrupted run can be compared as far as it went."""
    return [
        Place(agent, benchmark, task, epoch)
        for benchmark in benchmarks
        for epoch in range(config.epochs)
        for task in list(benchmark.tasks(config.seed))[: config.limit]
        for agent in agents
    ]


def print_results(run: Run, config: Config, traces: Sequence[Trace]) -> None:
    """The leaderboard, the report, and the commands that show more."""
    from firsthand.evals.leaderboard import leaderboard, render

    out = console()
    if not traces:
        out.print("No attempt has finished.")
    else:
        boards = leaderboard(traces)
        out.print(render(boards))
        report = write_report(run, config, traces)
        out.print(f"report   {report}", soft_wrap=True, markup=False)
        worst = next((trace for trace in traces if trace.error), traces[-1])
        out.print(f"traces   {run.path}", soft_wrap=True, markup=False)
        out.print(f"show     firsthand show {run.id} {worst.id[:8]}", soft_wrap=True, markup=False)
    out.print(f"again    {config.command()}", soft_wrap=True, markup=False)
    expected = run.status
    if expected == "interrupted":
        out.print(f"finish   firsthand run --resume {run.id}", soft_wrap=True, markup=False)
    failed = [trace for trace in traces if trace.error]
    if failed and failed[0].error:
        first = failed[0].error
        print(f"firsthand: {len(failed)} of {len(traces)} attempts failed, the first with {first.kind}: {first.message}",
              file=sys.stderr)  # fmt: skip


def print_json(run: Run, traces: Sequence[Trace]) -> None:
    """The leaderboard as one JSON object."""
    from firsthand.evals.leaderboard import leaderboard

    body: Json = {"run": run.id, "path": str(run.path), "status": run.status}
    body["boards"] = [board.to_json() for board in leaderboard(traces)] if traces else []
    print(json.dumps(body, indent=2, ensure_ascii=False))


def write_report(run: Run, config: Config, traces: Sequence[Trace]) -> str:
    """The path of the HTML report, written into the run's folder."""
    from firsthand.evals.leaderboard import leaderboard
    from firsthand.evals.report import report_html

    html = report_html(
        leaderboard(traces),
        title=f"{', '.join(config.benchmarks)} with {', '.join(config.model)}",
        command=config.command(),
        machine=run.about["machine"],
        run_path=str(run.path),
        traces=traces,
    )
    path = run.path / "report.html"
    path.write_text(html, encoding="utf-8")
    return str(path)
