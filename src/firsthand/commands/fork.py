"""Continue a stored attempt from any of its steps, with another pattern, model, prompt, sampling or limits."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING

from firsthand.benchmark import Benchmark
from firsthand.config import build
from firsthand.errors import ConfigError
from firsthand.experiment.foreign_settings import expect_own, named_by
from firsthand.experiment.forked_agents import CHANGES, base_settings, find_benchmark, forked_agent, forked_settings
from firsthand.experiment.kept_code import scorer_digests
from firsthand.experiment.settings import RunSettings
from firsthand.loop.protection import shareable
from firsthand.message import Json
from firsthand.rollout import Place
from firsthand.runs import store
from firsthand.runs.forking import Fork, fork
from firsthand.show.live_tree import watching
from firsthand.show.trace_tree import show
from firsthand.system import interruption
from firsthand.system.home import data_home
from firsthand.system.terminal import complain, console, one_line, print_as_json
from firsthand.trace import Trace

if TYPE_CHECKING:
    from firsthand.runs.run_folder import Run

EXAMPLES = """
firsthand show last 3fa9                               # numbers the steps of an attempt
firsthand fork last 3fa9 --at 4                        # repeat from step 4, unchanged
firsthand fork last 3fa9 --at 4 --temperature 1 --seed 1
firsthand fork last 3fa9 --at 4 --say "Check that with the calculator."
firsthand fork last 3fa9 --at 0 --pattern cot --model hf:Qwen/Qwen2.5-0.5B-Instruct
firsthand fork --resume                                # finish a fork that was interrupted
"""


@dataclass(frozen=True)
class Config:
    """The attempt to fork, the step, and the changes."""

    trace: tuple[str, ...] = field(default=(), metadata={"positional": True})
    """An attempt as `firsthand show` takes it: RUN TRACE, or TRACE alone for one of the last run."""
    at: int | None = None
    """The step to continue from: the number of a message, as `firsthand show` prints it."""
    say: str | None = None
    """A user message to insert after that step; the model then answers, unless a pattern is named."""
    pattern: str | None = None
    """Another pattern, with its options; it starts from the conversation at that step."""
    model: str | None = None
    """Another model."""
    tools: tuple[str, ...] | None = None
    """Other tools."""
    system: str | None = None
    """Another system message."""
    seed: int | None = None
    """Another seed, for different samples from that step on."""
    temperature: float | None = None
    """Another sampling temperature."""
    max_tokens: int | None = None
    """Another limit on the new tokens of one answer."""
    budget_tokens: int | None = None
    """Tokens that the whole attempt may use, including what the parent used up to the step."""
    budget_calls: int | None = None
    """Calls that it may make."""
    budget_seconds: float | None = None
    """Seconds that it may take from now on."""
    budget_usd: float | None = None
    """Money that it may cost."""
    resume: str | None = field(default=None, metadata={"bare": "last"})
    """Finish a fork that was interrupted, repeating nothing: its run's id, or nothing for the last run."""
    trust: bool = False
    """Load what the settings of a run from elsewhere name, files of Python among it; look at them first."""
    watch: bool = False
    """Show the attempt as a tree while it runs."""
    json: bool = False
    """Print the new trace as JSON for programs."""

    def __post_init__(self) -> None:
        if self.watch and self.json:
            raise ConfigError("watch and json do not go together: one is for people, the other for programs")
        if self.resume is not None:
            others = [each.name for each in fields(self) if each.name not in ("resume", "trust", "watch", "json")]
            if any(getattr(self, name) not in (None, ()) for name in others):
                raise ConfigError("resume finishes a fork as it was begun: leave the other settings out")
            return
        if not 1 <= len(self.trace) <= 2:
            raise ConfigError("name an attempt: firsthand fork RUN TRACE --at STEP; `firsthand runs last` lists them")
        if self.at is None:
            raise ConfigError(
                f"no step was given: add --at STEP; `firsthand show {shlex.join(self.trace)}` numbers the steps"
            )


@dataclass(frozen=True)
class ForkOrigin:
    """Parent and changes of a fork, as its run stores them beside its settings."""

    run: str
    """The folder of the parent's run."""
    trace: str
    at: int
    say: str | None
    seed: int | None


def main(config: Config) -> int:
    """Make the fork, show it, and print how it compares to its parent."""
    if config.resume is not None:
        run = store.open_run(config.resume, data_home())
        origin, settings = origin_of(run), base_settings(run)
        expect_own(run, {**named_by(settings), "parent": origin.run}, trust=config.trust)
        with store.open_run(origin.run, data_home()) as parents:
            parent = parents.trace(origin.trace)
    else:
        where, which = config.trace if len(config.trace) == 2 else ("last", config.trace[0])
        with store.open_run(where, data_home()) as parents:
            parent = parents.trace(which)
            origin = ForkOrigin(str(parents.path), parent.id, config.at or 0, config.say, config.seed)
            base = base_settings(parents)
            expect_own(
                parents, {"benchmark": base.benchmarks}, trust=config.trust
            )  # each is loaded to find the parent's
            settings = forked_settings(
                base, parent, pattern=config.pattern, model=config.model, say=config.say,
                changes={name: getattr(config, name) for name in CHANGES},
            )  # fmt: skip
            given = {"pattern": config.pattern, "model": config.model, "tool": config.tools}
            foreign = {kind: texts for kind, texts in named_by(settings).items() if given.get(kind) is None}
            expect_own(parents, foreign, trust=config.trust)
        run = None
    if config.watch and parent.protected is not None:
        raise ConfigError(f"watch would print what must not be printed ({parent.protected}): leave it out")
    what = Fork(parent, origin.at, forked_agent(settings, parent), origin.say, origin.seed, _name(origin.run))
    benchmark = find_benchmark(settings, parent)
    with run or create(settings, origin, benchmark) as run:
        try:
            trace = carry_out(run, what, benchmark, watch=config.watch)
        except KeyboardInterrupt:
            complain(f"interrupted: `firsthand fork --resume {run.id}` finishes it")
            return 130
        if config.json:
            print_as_json(shareable(trace).to_json())
        else:
            print_results(run, what, trace)
    return 3 if trace.error else 0


def origin_of(run: Run) -> ForkOrigin:
    """The origin of the fork that this run holds; ConfigError if the run is no fork."""
    if "fork" not in run.config:
        raise ConfigError(f"{run.id} is no fork: `firsthand run --resume {run.id}` finishes it")
    return build(ForkOrigin, run.config["fork"])


def create(settings: RunSettings, origin: ForkOrigin, benchmark: Benchmark) -> Run:
    """A new run that will hold the fork."""
    body: Json = {"settings": settings.stored(), "fork": asdict(origin)}
    hint = f"fork-{settings.benchmarks[0].partition(':')[0]}"
    protocols, scorers = {benchmark.name: benchmark.protocol}, scorer_digests([benchmark])
    return store.create(data_home(), body, hint, protocols=protocols, scorers=scorers)


def carry_out(run: Run, what: Fork, benchmark: Benchmark, *, watch: bool = False) -> Trace:
    """Run the fork; returns its trace, which the run has stored."""
    with store.open_run(_folder(run), data_home()) as parents:
        task = parents.tasks()[what.parent.benchmark, what.parent.task_id]
    run.add_tasks(benchmark.name, [task])
    run.add_agent(what.agent.name, what.agent.to_json())
    with run.working(), watching() as watcher:
        if what.place in run.done():
            return run.trace(what.place)
        listener = watcher.listener(Place(what.agent, benchmark, task, what.parent.epoch)) if watch else None
        trace = interruption.run(
            fork(what, task, benchmark=benchmark, journal=run.journal(what.place), listener=listener)
        )
        run.append(trace)
    return trace


def print_results(run: Run, what: Fork, trace: Trace) -> None:
    """Print the new attempt, and the outcomes of parent and fork."""
    show(trace)
    out = console()
    out.print()
    for name, each in (("parent", what.parent), ("fork", trace)):
        out.print(f"{name:<9}{outcome(each)}", soft_wrap=True, markup=False)
    outside = {tool.name for tool in what.agent.own_tools if tool.effect in ("external", "irreversible")}
    made = (call.detail["name"] for call in trace.calls if call.kind == "tool" and not call.replayed)
    if again := sorted(outside.intersection(made)):
        out.print(f"note     {', '.join(again)} were called again: the fork is an attempt of its own", markup=False)
    agents = f"--agent-a {_word(what.parent.agent_name)} --agent-b {_word(trace.agent_name)}"
    out.print(f"show     firsthand show {run.id} {trace.place[:8]}", soft_wrap=True, markup=False)
    out.print(f"compare  firsthand compare {what.run} {run.id} {agents}", soft_wrap=True, markup=False)


def outcome(trace: Trace) -> str:
    """Answer, scores and new tokens in one line; replayed calls count no tokens."""
    new = sum(call.usage.total_tokens for call in trace.calls if not call.replayed)
    scores = "".join(f", {score.name} {score.value:g}" for score in trace.scores)
    end = f"{trace.error.kind}: {trace.error.message}" if trace.error else trace.stop_reason
    trace = shareable(trace)
    return one_line(f"{trace.agent_name}: {trace.answer!r:.80} ({end}){scores}, {new} new tokens")


def _folder(run: Run) -> str:
    return origin_of(run).run


def _name(folder: str) -> str:
    return folder.rstrip("/").rpartition("/")[2]


def _word(text: str) -> str:
    import shlex

    return shlex.quote(text)
