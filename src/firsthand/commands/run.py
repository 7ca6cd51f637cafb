"""Run benchmarks: every agent (model x pattern) attempts every task; the leaderboard shows what each bought and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from firsthand.commands.print_run import Results, print_json, print_results
from firsthand.config import given_in
from firsthand.errors import ConfigError, TooManyFailures
from firsthand.experiment.equal_budget import Fitted
from firsthand.experiment.experiment import Experiment, other_setting
from firsthand.experiment.foreign_settings import expect_own, named_by
from firsthand.experiment.settings import RunSettings, stored_settings
from firsthand.message import Json
from firsthand.runs import store
from firsthand.runs.attempt_summary import AttemptSummary, summaries_of
from firsthand.runs.run_folder import Run
from firsthand.show.board import attempts_of, misnamed_text, other_names_of
from firsthand.system import interruption
from firsthand.system.address_secrets import without_secrets_in
from firsthand.system.home import data_home
from firsthand.system.plurals import count_of
from firsthand.system.terminal import complain, console, one_line, progress
from firsthand.telemetry.otlp_export import check_telemetry
from firsthand.trace import Trace

EXAMPLES = """
firsthand run arithmetic
firsthand run arithmetic gsm8k --model smollm2 --pattern direct,cot,self_consistency:samples=8 --limit 50
firsthand run gsm8k --model ollama:llama3.2 --pattern react --budget-tokens 4000
firsthand run gsm8k --pattern react --tools calculator,files:notes,sql:shop.db --approve external=ask
firsthand run gsm8k --pattern react --tools fetch --guard redact:pattern=sk-[a-z0-9]+
firsthand run gsm8k --pattern direct,cot,self_consistency,react --equal-budget    # the same tokens for each pattern
firsthand run my_benchmark.py --pattern my_pattern.py,direct --epochs 3 --seed 7
firsthand run arithmetic --pattern cot --resume          # finish what an interrupted run left
firsthand run gsm8k --pattern react --limit 1 --watch    # see its steps while they happen
firsthand run gsm8k --model openai:llama3.2@http://gpu1:8000/v1 --on ray --workers 4    # on a cluster's machines
firsthand run --replay last                              # the same run from its recorded replies, without the model
"""

_SCORER = (
    'a scorer belongs to the data: write it in its TOML file, as in scorer = "f1" (`firsthand list scorers` shows all);'
    " `firsthand score` scores a stored run again"
)
_PROMPT = 'a prompt belongs to the data: write it in its TOML file, as in prompt = "{question}"'
ELSEWHERE = {"--scorer": _SCORER, "--score": _SCORER, "--metric": _SCORER, "--prompt": _PROMPT, "--template": _PROMPT}
"""Flags of other tools, and where their setting is here."""


@dataclass(frozen=True)
class Config(RunSettings):
    """Settings of the run, and what to show of it. The flag is the field name."""

    ELSEWHERE: ClassVar[Mapping[str, str]] = ELSEWHERE
    watch: bool = False
    """Show each attempt as a tree while it runs, one at a time."""
    otel: bool = False
    """Send each attempt to an OpenTelemetry collector; setting $OTEL_EXPORTER_OTLP_ENDPOINT is enough."""
    resume: str | None = field(default=None, metadata={"bare": "last"})
    """Finish an interrupted run, repeating nothing: a run's id, or nothing for the last one."""
    trust: bool = False
    """With --resume or --replay: load what a run from elsewhere names, files of Python among it; look at it first."""
    retry_errors: bool = False
    """With --resume: attempt again what ended with an error."""
    fail_fast: int | None = None
    """End the run after this many failed attempts in a row; by default after 5 that reached no server; 0: never."""
    json: bool = False
    """Print the leaderboard as JSON for programs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.retry_errors and self.resume is None:
            raise ConfigError("retry_errors goes with resume: name the run, as in --resume last --retry-errors")
        if self.trust and not (self.resume or self.replay):
            raise ConfigError("trust is for runs from elsewhere: it goes with --resume or --replay")
        if self.fail_fast is not None and self.fail_fast < 0:
            raise ConfigError(f"fail_fast is {self.fail_fast}: give the number of failures, or 0 for no such end")
        if self.watch and self.json:
            raise ConfigError("watch and json do not go together: one is for people, the other for programs")
        if self.watch and self.on is not None:
            raise ConfigError("watch and on do not go together: leave out --on to watch here")
        if self.resume and self.replay:
            raise ConfigError("resume and replay do not go together: resume finishes a run, replay repeats one")
        if not (self.benchmarks or self.resume or self.replay):
            raise ConfigError(
                "no benchmark was named: try `firsthand run arithmetic`; `firsthand list benchmarks` shows all"
            )

    def settings(self) -> RunSettings:
        """The settings without the display flags."""
        return RunSettings(**self.to_json())


def main(config: Config) -> int:
    """Make the experiment, run it, and print the leaderboard and where everything is."""
    check_telemetry(config.otel)
    run, settings = open_or_configure(config)
    experiment = Experiment.from_settings(settings, show_progress=not config.json)
    try:
        interruption.run(ready(experiment, run, shown=not config.json))
    except KeyboardInterrupt:
        complain("interrupted while the model was loaded: nothing has been run")
        return 130
    if run is None:
        try:
            experiment = interruption.run(equalised(experiment, config))
        except KeyboardInterrupt:
            complain("interrupted while the budgets were measured: nothing else has been run")
            return 130
    with run or experiment.create() as run:  # only now, so that a mistyped name leaves no run behind
        try:
            interruption.run(attempt(experiment, run, config))
            interrupted, stopped = False, ""
        except KeyboardInterrupt:
            interrupted, stopped = True, ""
        except TooManyFailures as error:
            interrupted, stopped = False, str(error)
        places = {place.id: index for index, place in enumerate(experiment.places())}
        made = attempts_of(run, experiment.figures)
        attempts = sorted(made, key=lambda each: places.get(each.place, len(places)))
        results = Results(run, experiment.current_settings, attempts, experiment.protocols, experiment.figures)
        (print_json if config.json else print_results)(results)
        failures = report_failures(attempts)
        if stopped:
            complain(stopped)
            return 3
        if interrupted:
            done = f"{len(attempts)} of {count_of(len(places), 'attempt')}"
            complain(f"interrupted with {done} done: `firsthand run --resume {run.id}` finishes them")
            return 130
    return 3 if failures else 0


def open_or_configure(config: Config) -> tuple[Run | None, RunSettings]:
    """The run to resume, if any, and its settings; for a replay the recorded run's settings with what the flags change."""
    asked = changed_flags(config)
    if config.resume:
        run = store.open_run(config.resume, data_home())
        run.expect_idle()
        saved = stored_settings(run)
        expect_own(run, named_by(saved), trust=config.trust)
        concurrency = asked.pop("concurrency", saved.concurrency)
        on, workers = asked.pop("on", None), asked.pop("workers", None)
        for name, value in asked.items():
            if without_secrets_in(value) != without_secrets_in(getattr(saved, name)):
                raise other_setting(run, name, getattr(saved, name), value)
        return run, replace(saved, **asked, concurrency=concurrency, on=on, workers=workers)
    if config.replay:
        with store.open_run(config.replay, data_home()) as source:
            saved = stored_settings(source)
            asked_for = replace(saved, **asked | {"replay": str(source.path)})
            kept = {kind: texts for kind, texts in named_by(asked_for).items() if texts == named_by(saved)[kind]}
            for asks_nobody in ("approval", "replay"):  # nothing outside is called, and this run is the one replayed
                kept.pop(asks_nobody, None)
            expect_own(source, kept, trust=config.trust)
            return None, asked_for
    return None, config.settings()


def changed_flags(config: Config) -> Json:
    """The settings that were given, at their defaults too."""
    return {name: value for name, value in config.to_json().items() if name in given_in(config)}


async def ready(experiment: Experiment, run: Run | None, *, shown: bool) -> None:
    """Load the models, so that one that cannot be loaded leaves no run behind."""
    names = ", ".join(dict.fromkeys(agent.model.name for agent in experiment.agents))
    with progress(f"loading {names}", None, shown=shown) as update:
        if not all(getattr(agent.model, "is_alive", True) for agent in experiment.agents):
            update(0)
        await experiment.make_ready(run)


async def equalised(experiment: Experiment, config: Config) -> Experiment:
    """The experiment with an equal budget met, and the chosen values printed; itself where none is asked for."""

    async def measure(variants: Experiment, run: Run) -> None:
        await attempt(variants, run, replace(config, watch=False, retry_errors=False))

    def print_fitted(run: Run, budget: float, fitted: Sequence[Fitted]) -> None:
        if not config.json:
            chosen = "; ".join(f"{each.pattern}{'' if each.knob else ' (unchanged)'}" for each in fitted)
            where = f"measured on {count_of(run.config['limit'], 'task')} of each benchmark in {run.id}"
            console().print(
                f"budget    {budget:,.0f} tokens an attempt, {where}: {chosen}", soft_wrap=True, markup=False
            )

    return await experiment.equalised(measure, print_fitted)


async def attempt(experiment: Experiment, run: Run, config: Config) -> None:
    """Attempt what the run is missing, with a progress bar or the attempts' trees on the terminal."""
    from firsthand.show.live_totals import LiveTotals
    from firsthand.show.live_tree import watching

    places = experiment.places()
    secret = next((place.task.protected for place in places if place.task.protected), None)
    if config.watch and secret is not None:
        raise ConfigError(f"watch would print what must not be printed ({secret}): leave it out")
    done, totals = len(run.done()), LiveTotals()
    label = ", ".join(dict.fromkeys(place.benchmark.name for place in places))
    asks = experiment.asks_person  # a question and a live display would write over each other
    with (
        progress(label, len(places), shown=not (config.json or config.watch or asks)) as update,
        watching(in_place=not asks) as watch,
    ):

        def on_trace(trace: Trace) -> None:
            nonlocal done
            done += 1
            if config.watch:
                watch.ended(trace)
            update(min(done, len(places)), note=one_line(totals.add(trace)))

        update(done)
        await (replace(experiment, concurrency=1) if config.watch else experiment).attempt_async(
            run,
            on_trace=on_trace,
            listener=watch.listener if config.watch else lambda place: None,
            on_notice=complain,
            otel=config.otel,
            redo_errors=config.retry_errors,
            fail_fast=config.fail_fast,
        )


def report_failures(attempts: Sequence[Trace | AttemptSummary]) -> bool:
    """Print the first attempt that failed and the first that could not be scored; True if there is either.

    So are attempts whose score has another name than the first of their benchmark.
    """
    made = summaries_of(attempts)
    failed = [each.error for each in made if each.error is not None]
    if failed:
        complain(f"{len(failed)} of {count_of(len(made), 'attempt')} failed, the first with {failed[0]}")
    unscored = [score for each in made for score in each.scores[:1] if score.failed]
    if unscored:
        why = f"the first by {unscored[0].name}: {unscored[0].failure}"
        complain(f"{len(unscored)} of {count_of(len(made), 'attempt')} could not be scored, {why}")
    misnamed = [misnamed_text(metric, names) for metric, names in other_names_of(made).items()]
    for text in misnamed:
        complain(text)
    return bool(failed or unscored or misnamed)
