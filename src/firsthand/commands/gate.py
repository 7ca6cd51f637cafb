"""Pass or fail a candidate run against a baseline run: no score may drop by more than allowed. For CI."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Literal

from firsthand.benchmark import Figure, Figures
from firsthand.commands.sides import benchmarks_with, complain_of_directions, paired_figures, shared_agents, write
from firsthand.config import confidence, share
from firsthand.errors import ConfigError, unknown
from firsthand.runs import store
from firsthand.runs.epoch_reducer import epoch_reducer
from firsthand.runs.flaky import flaky
from firsthand.runs.pairing import Comparison, compare
from firsthand.runs.retried_attempts import NOT_RETRIED
from firsthand.runs.run_folder import Run
from firsthand.show.gate_report import details, difference_text, junit, markdown, rate
from firsthand.stats.figure_stats import figure_value
from firsthand.stats.intervals import Scores, task_means
from firsthand.stats.multiple_comparisons import difference
from firsthand.stats.non_inferiority import Check, Gaps, rule, verdict
from firsthand.stats.stored_figures import first_score, own_figures
from firsthand.system.home import data_home
from firsthand.system.terminal import complain, console, print_as_json, print_table

EXAMPLES = """
firsthand gate BASELINE CANDIDATE --max-drop 1% --confidence 95%
firsthand gate BASELINE last --max-drop 1%,gsm8k=2%,gsm8k/strict=5% --score numeric,strict --junit gate.xml
firsthand gate last last --agent-a cot --agent-b my_prompt.py --inconclusive fail
"""
CODES = {"pass": 0, "fail": 1, "inconclusive": 4}


@dataclass(frozen=True)
class Config:
    """Runs and allowed drops. Exit code 0 is pass, 1 fail, 4 inconclusive."""

    baseline: str = field(metadata={"positional": True})
    """The baseline run."""
    candidate: str = field(metadata={"positional": True})
    """The candidate run."""
    max_drop: tuple[str, ...] = ("1%",)
    """Allowed drop, or rise where lower is better: for all scores, and for single ones as in 1%,gsm8k=2%,gsm8k/strict=5%."""
    confidence: str = "95%"
    """Confidence level of a pass or a fail."""
    inconclusive: Literal["report", "pass", "fail"] = "report"
    """Inconclusive data: exit code 4 (report), pass (laxer), or fail (stricter)."""
    errors: Literal["fail", "drop", "zero"] = "fail"
    """Attempts without a score fail the check (fail), are left out (drop), or count as 0 (zero; no verdict: left out)."""
    scorers: Literal["same", "any"] = "same"
    """Scores of another scorer in each run (another option, file or judge) fail the check (same), or are compared (any)."""
    agent_a: str | None = None
    """The agent of the baseline; without it each of its agents, and one that the candidate lacks fails as --errors says."""
    agent_b: str | None = None
    """The agent of the candidate; without it, the one named as the baseline's."""
    benchmark: tuple[str, ...] = ()
    """Only these benchmarks."""
    score: tuple[str, ...] = ()
    """Scores and figures by name, checked wherever they exist; by default each benchmark's first score."""
    strata: str | None = None
    """Key of the tasks' metadata, or column of own data, whose groups are fixed, such as subject: tests are stratified."""
    reduce: str | None = None
    """Reducer of a task's epochs: mean, median, max, mode, pass_at_2, pass_hat_2, at_least_2; by default the run's own."""
    junit: Path | None = None
    """Write the checks as JUnit XML into this file."""
    markdown: Path | None = None
    """Write the checks as Markdown into this file."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        confidence(self.confidence)
        epoch_reducer(self.reduce or "")
        allowed_drops(self.max_drop)
        if self.junit is not None and self.markdown is not None and self.junit.resolve() == self.markdown.resolve():
            raise ConfigError(f"junit and markdown are both {self.junit}: give each a file of its own")


def main(config: Config) -> int:
    """Check, print and write; returns the ruling's exit code."""
    with (
        store.open_run(config.baseline, data_home()) as baseline,
        store.open_run(config.candidate, data_home()) as candidate,
    ):
        for score in config.score or (None,):
            complain_of_directions(baseline, candidate, score=score)
        checks = rule(
            list(all_checks(config, baseline, candidate)),
            gaps_fail=config.errors == "fail",
            scorers_fail=config.scorers == "same",
        )
        name = f"{candidate.id} vs. {baseline.id}"
    if not checks:
        raise ConfigError("nothing to check: the baseline has no finished attempt on those benchmarks")
    ruling = verdict(checks, config.inconclusive)
    if config.junit:
        write(config.junit, junit(name, checks, config.inconclusive))
    if config.markdown:
        write(config.markdown, markdown(name, checks, ruling))
    if config.json:
        print_as_json({"ruling": ruling, "checks": [each.to_json() for each in checks]})
    else:
        print_checks(name, checks)
        console().print(f"gate: {ruling}", style={"pass": "bold green", "fail": "bold red"}.get(ruling, "bold yellow"))
    return CODES[ruling]


def allowed_drops(texts: tuple[str, ...]) -> dict[str, float]:
    """Name -> allowed drop; a name is a benchmark, benchmark/score, or empty for all others."""
    drops: dict[str, float] = {}
    for text in texts:
        name, _, amount = text.rpartition("=")
        drop = share(amount, "max_drop")
        if drop < 0:
            raise ConfigError(f"max_drop is {text!r}: a drop is 0 or more, such as 1%")
        if name in drops:
            raise ConfigError(f"max_drop is {','.join(texts)}: it gives two drops for {name or 'all scores'}")
        drops[name] = drop
    return {"": 0.01} | drops


def expect_percent(texts: tuple[str, ...], check: Check, scores: Iterable[float]) -> None:
    """ConfigError if a drop of 1 or more was written without a % for scores within 0 to 1, where it allows anything.

    Without a score on both sides nothing tells their scale, and the check says that there is none. If all are 0, or all
    are 1, they may be of another scale, such as points from 1 to 10, and nothing dropped: a remark asks for the % then.
    """
    names = (f"{check.benchmark}/{check.score}", check.benchmark, "")
    given = {name: amount for name, _, amount in (text.rpartition("=") for text in texts)}
    amount = next((given[name].strip() for name in names if name in given), "%")
    if check.max_drop < 1 or amount.endswith("%"):
        return
    known = set(scores)
    if known in ({0}, {1}):
        complain(
            f"max_drop is {amount}, and all scores of {check.benchmark}, {check.score} are {known.pop():g}: if they are "
            f"from 0 to 1, this allows any drop, so write {amount}%"
        )
    elif known and all(0 <= score <= 1 for score in known):
        raise ConfigError(
            f"max_drop is {amount}, which is {check.max_drop:.0%} and allows any drop of {check.benchmark}, {check.score}, "
            f"whose scores are from 0 to 1: write {amount}%, or {check.max_drop:.0%} if it is meant"
        )


def all_checks(config: Config, baseline: Run, candidate: Run) -> Iterator[Check]:
    """A check for each agent, benchmark and score or figure, without a ruling yet."""
    drops, level = allowed_drops(config.max_drop), confidence(config.confidence)
    own = own_figures(complain, baseline, candidate)
    scored = scores_to_check(config, baseline, candidate, own)
    check_names(config, drops, scored, baseline)
    for score, having in scored.items():
        for agent_a, agent_b in shared_agents(config.agent_a, config.agent_b, baseline, candidate):
            found = compare(
                baseline,
                candidate,
                agent_a=agent_a,
                agent_b=agent_b,
                score=next(iter(having.values())),
                error_value=0.0 if config.errors == "zero" else None,
                unmade_value=0.0 if config.errors == "zero" else None,
                strata=config.strata,
                reduce=config.reduce,
            )
            for benchmark in having:
                if not config.benchmark or benchmark in config.benchmark:
                    figures = paired_figures(found, benchmark, baseline, candidate, own, errors=config.errors == "zero")
                    made = make_check(found, benchmark, score, drops, level, figures.get(score))
                    if score not in figures:  # a figure is of all attempts
                        made = replace(made, reduce=baseline.reducer(benchmark, config.reduce))
                    expect_percent(config.max_drop, made, scores_of_sides(found, benchmark, figures.get(score)))
                    yield made
    if config.agent_a is None and config.agent_b is None:
        yield from checks_without_agent(config, baseline, candidate, scored, drops, level)


def checks_without_agent(
    config: Config,
    baseline: Run,
    candidate: Run,
    scored: Mapping[str, Mapping[str, str | None]],
    drops: Mapping[str, float],
    level: float,
) -> Iterator[Check]:
    """A check that has only this gap for each agent of the baseline that the candidate lacks, by what it attempted."""
    known = candidate.agents()
    tried = dict.fromkeys((row.benchmark, row.agent) for row in baseline.rows() if row.agent not in known)
    for score, having in scored.items():
        for benchmark, agent in tried:
            if benchmark in having and (not config.benchmark or benchmark in config.benchmark):
                drop, nothing = allowed_drop(drops, benchmark, score), difference({}, {}, None)
                yield Check(agent, benchmark, score, drop, nothing, level, "inconclusive", "", Gaps(no_agent=True))


def allowed_drop(drops: Mapping[str, float], benchmark: str, score: str) -> float:
    """The drop allowed for that score, or else for the benchmark, or for all."""
    return drops.get(f"{benchmark}/{score}", drops.get(benchmark, drops[""]))


def scores_to_check(
    config: Config, baseline: Run, candidate: Run, own: Mapping[str, Figures]
) -> dict[str, dict[str, str | None]]:
    """Score or figure -> the benchmarks that have it, each with the score to pair by; None is its first one."""
    if config.score:
        return {score: benchmarks_with(score, baseline, candidate, own=own) for score in config.score}
    found: dict[str, dict[str, str | None]] = {}
    for benchmark in benchmarks_with(None, baseline, candidate, own=own):
        found.setdefault(first_score(benchmark, baseline, candidate) or "no score", {})[benchmark] = None
    return found


def check_names(
    config: Config, drops: Mapping[str, float], scored: Mapping[str, Mapping[str, str | None]], baseline: Run
) -> None:
    """UnknownName for a benchmark or score that no run has: a gate with a mistyped name would pass everything."""
    known = {name for having in scored.values() for name in having}
    for name in config.benchmark:
        if name not in known:
            raise unknown("benchmark", name, known, see=f"firsthand show {baseline.id}")
    known |= {f"{name}/{score}" for score, having in scored.items() for name in having}
    for name in drops:
        if name and name not in known:
            raise unknown("checked benchmark or benchmark/score", name, known, see=f"firsthand show {baseline.id}")


def make_check(
    found: Comparison,
    benchmark: str,
    score: str,
    drops: Mapping[str, float],
    level: float,
    figures: tuple[Figure, Figure] | None = None,
) -> Check:
    """The check of one benchmark of a comparison: of mean scores, or of a figure of both runs."""
    pairs = [pair for pair in found.pairs if pair.benchmark == benchmark]
    values_a, values_b = ({p.task_id: p.a.drawn for p in pairs}, {p.task_id: p.b.drawn for p in pairs})
    sides = figures or (values_a, values_b)
    mean_a, mean_b = (figure_value(each) for each in figures) if figures else map(mean, (values_a, values_b))
    by_task = (figures[0].values, figures[1].values) if figures else (values_a, values_b)
    lower = figures[0].lower_is_better if figures else benchmark in found.harms
    name_a, name_b = (side.split("/", 1)[1] for side in (found.a, found.b))
    return Check(
        name_a if name_a == name_b else f"{name_b} vs. {name_a}",
        benchmark,
        score,
        allowed_drop(drops, benchmark, score),
        difference(sides[1], sides[0], found.clusters.get(benchmark), lower_is_better=lower),
        level,
        "inconclusive",
        "",
        gaps_of(found, benchmark),
        mean_a,
        mean_b,
        tuple(got_worse(*by_task, lower_is_better=lower)),
        tuple(each for each in flaky(found) if each.benchmark == benchmark),
        sum(name == benchmark for name, _ in found.evened),
        tuple(each for each in found.other_scorers if each.benchmark == benchmark),
        (found.retried[0].get(benchmark, NOT_RETRIED), found.retried[1].get(benchmark, NOT_RETRIED)),
    )


def scores_of_sides(found: Comparison, benchmark: str, figures: tuple[Figure, Figure] | None) -> Iterator[float]:
    """The scores of both sides on a benchmark, or their figures and what each task adds to them."""
    for figure in figures or ():
        yield figure_value(figure)
        yield from (value for values in figure.values.values() for value in values)
    for pair in found.pairs if figures is None else ():
        if pair.benchmark == benchmark:
            yield from (*pair.a.values, *pair.b.values)


def mean(values: Scores) -> float:
    """The mean over tasks of the mean over attempts; NaN of nothing."""
    means = task_means(values)
    return sum(means) / len(means) if means else float("nan")


def got_worse(a: Scores, b: Scores, *, lower_is_better: bool) -> list[str]:
    """The tasks on which B does worse than A, the largest difference first, as `task: a -> b`."""
    changes = [(fmean(b[task]) - fmean(a[task]), task) for task in a if task in b]
    losses = sorted((-change if lower_is_better else change, task) for change, task in changes)
    return [f"{task}: {fmean(a[task]):g} -> {fmean(b[task]):g}" for change, task in losses if change < 0]


def gaps_of(found: Comparison, benchmark: str) -> Gaps:
    """Missing, unscored and changed tasks of that benchmark, attempts not made, and scores beyond the baseline's scale."""
    pairs = [pair for pair in found.pairs if pair.benchmark == benchmark]
    is_share = all(0 <= value <= 1 for pair in pairs for value in pair.a.values)
    above_one = sum(value > 1 for pair in pairs for value in pair.b.values) if is_share else 0
    return Gaps(
        found.unscored[0].get(benchmark, 0),
        found.unscored[1].get(benchmark, 0),
        sum(name == benchmark for name, _ in found.missing),
        sum(name == benchmark for name, _ in found.changed),
        above_one,
        found.unmade[0].get(benchmark, 0),
        found.unmade[1].get(benchmark, 0),
    )


def print_checks(name: str, checks: list[Check]) -> None:
    """Print a table of the checks, then the details of those that did not pass."""
    header = ["benchmark", "score", "agent", "tasks", "baseline", "candidate", "difference", "ruling"]
    rows = [
        [
            each.benchmark,
            each.score,
            each.agent,
            str(each.differences.n),
            rate(each.baseline),
            rate(each.candidate),
            difference_text(each),
            each.ruling,
        ]
        for each in checks
    ]
    print_table(name, header, rows)
    out = console()
    for each in checks:
        out.print(f"{each.benchmark}, {each.score}, {each.agent}: {each.reason}", markup=False, soft_wrap=True)
        lines = details(each)
        for line in lines[:10]:
            out.print(f"  {line}", markup=False, soft_wrap=True)
        if len(lines) > 10:
            out.print(f"  and {len(lines) - 10} more: --markdown or --json lists them", markup=False)
