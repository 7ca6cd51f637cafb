"""Pair runs, or agents, task by task: what got better, what got worse, and whether that can be chance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from firsthand.config import confidence
from firsthand.errors import ConfigError, unknown
from firsthand.evals.corpus import Corpus, corpora
from firsthand.evals.diff import MAX_SAMPLES, Only, Sample, page, samples, terminal_text
from firsthand.evals.multiplicity import Correction, all_pairs, difference
from firsthand.evals.stats import PairedDifference, Scores, judged
from firsthand.home import data_home
from firsthand.message import Json
from firsthand.runs import store
from firsthand.runs.compare import Comparison, Pair, compare, scores_of
from firsthand.runs.flaky import Flaky, flaky
from firsthand.runs.store import Run
from firsthand.terminal import console, print_table
from firsthand.trace import Trace

EXAMPLES = """
firsthand compare 2026-11-25-0148 last                      # each agent that both runs have
firsthand compare last last --agent-a direct --agent-b cot  # two agents of one run
firsthand compare last                                      # every two agents of one run, Holm-corrected
firsthand compare A B C --correct bh                        # every two agents of several runs
firsthand compare A B --diff --only worse --html diff.html
firsthand compare A B --benchmark gsm8k --score strict --json
"""


@dataclass(frozen=True)
class Config:
    """What to compare. B is compared to A: a positive difference means that B is better."""

    runs: tuple[str, ...] = field(metadata={"positional": True})
    """A and B; or one run, or three and more, whose agents are all compared with each other."""
    agent_a: str | None = None
    """The agent of A; without it, each agent that both runs have."""
    agent_b: str | None = None
    """The agent of B; without it, the one named like that of A."""
    benchmark: str | None = None
    """This benchmark alone."""
    score: str | None = None
    """A score by name; the benchmark's first one by default."""
    errors: Literal["zero", "drop"] = "zero"
    """Attempts without a score count as 0, or are left out; they are counted either way."""
    confidence: str = "95%"
    """How sure the intervals and the verdicts are."""
    correct: Correction = "holm"
    """Where every two agents are compared: holm, bh (the share of false verdicts among those found), or none."""
    diff: bool = False
    """Show what both answered, side by side, with the words that differ."""
    only: Only = "changed"
    """With --diff or --html: samples whose score changed, got worse, got better, or all."""
    html: Path | None = None
    """Write the samples side by side into this HTML file."""
    flaky: bool = False
    """List the tasks whose repeated attempts disagree, or that flip between two runs of one agent and seed."""
    limit: int = 10
    """At most this many tasks that changed, samples and flaky tasks."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ConfigError(f"limit is {self.limit}: give 1 or more")
        if len(self.runs) != 2 and (self.agent_a or self.agent_b or self.diff or self.html or self.flaky):
            raise ConfigError(
                f"runs is {' '.join(self.runs)}: agent-a, agent-b, diff, html and flaky are for two runs, A and B"
            )
        confidence(self.confidence)


def main(config: Config) -> int:
    """Compare and print."""
    if len(config.runs) != 2:
        return compare_pairwise(config)
    with (
        store.open_run(config.runs[0], data_home()) as run_a,
        store.open_run(config.runs[1], data_home()) as run_b,
    ):
        comparisons = compare_all(config, run_a, run_b)
        if config.html is not None:
            write_page(config, comparisons, run_a, run_b)
        level = confidence(config.confidence)
        errors = config.errors == "zero"
        results = [
            by_benchmark(each, level, corpora_of(each, run_a, run_b, config.score, errors=errors))
            for each in comparisons
        ]
        if config.json:
            bodies = [to_json(each, found) for each, found in zip(comparisons, results, strict=True)]
            print(json.dumps(bodies, indent=2, ensure_ascii=False))
            return 0
        for comparison, found in zip(comparisons, results, strict=True):
            print_comparison(comparison, found, config)
            if config.flaky:
                print_flaky(flaky(comparison), config.limit)
            if config.diff:
                print_samples(comparison, run_a, run_b, config)
    return 0


def compare_all(config: Config, run_a: Run, run_b: Run) -> list[Comparison]:
    """A comparison for the agents that were named, or for each that both runs have."""
    having = benchmarks_with(config.score, run_a, run_b)
    if config.benchmark is not None and config.benchmark not in having:
        raise unknown("benchmark", config.benchmark, having, see=f"firsthand show {run_a.id}")
    found = [
        compare(
            run_a,
            run_b,
            agent_a=a,
            agent_b=b,
            benchmark=config.benchmark,
            score=config.score,
            error_value=0.0 if config.errors == "zero" else None,
        )
        for a, b in shared_agents(config.agent_a, config.agent_b, run_a, run_b)
    ]
    return [replace(each, pairs=tuple(pair for pair in each.pairs if pair.benchmark in having)) for each in found]


def shared_agents(
    agent_a: str | None, agent_b: str | None, run_a: Run, run_b: Run
) -> Sequence[tuple[str | None, str | None]]:
    """The two agents that were named, or each that both runs have, with itself."""
    if agent_a is not None or agent_b is not None:
        return [(agent_a, agent_b)]
    shared = [name for name in run_a.agents() if name in run_b.agents()]
    if not shared:
        known = f"{', '.join(run_a.agents())} and {', '.join(run_b.agents())}"
        raise ConfigError(f"the runs have no agent in common ({known}): name them with --agent-a and --agent-b")
    return [(name, name) for name in shared]


def benchmarks_with(score: str | None, *runs: Run) -> set[str]:
    """The benchmarks whose attempts have that score: elsewhere its absence says nothing, and must not count as 0."""
    if score is None:
        return {row.benchmark for run in runs for row in run.rows()}
    names = {(trace.benchmark, each.name) for run in runs for trace in run.traces() for each in trace.scores}
    if score not in {name for _, name in names}:
        raise unknown("score", score, {name for _, name in names}, see=f"firsthand show {runs[0].id}")
    return {benchmark for benchmark, name in names if name == score}


def compare_pairwise(config: Config) -> int:
    """Every two agents of the runs, corrected for how many pairs there are, and print."""
    opened: dict[Path, Run] = {}
    for ref in config.runs:
        run = store.open_run(ref, data_home())
        opened.setdefault(run.path, run)
    runs, error_value = list(opened.values()), 0.0 if config.errors == "zero" else None
    having = benchmarks_with(config.score, *runs)
    if config.benchmark is not None and config.benchmark not in having:
        raise unknown("benchmark", config.benchmark, having, see=f"firsthand show {runs[0].id}")
    chosen = {config.benchmark} if config.benchmark is not None else having
    clusters = {name: each for run in reversed(runs) for name, each in run.clusters().items()}
    results = {
        benchmark: all_pairs(
            corpora_in(runs, benchmark, agents, config) or agents,
            config.correct,
            confidence(config.confidence),
            clusters.get(benchmark),
        )
        for benchmark, agents in scores_of(runs, score=config.score, error_value=error_value).items()
        if benchmark in chosen
    }
    for run in runs:
        run.close()
    if not any(results.values()):
        raise ConfigError("there is one agent only: every two agents are compared, so name runs that have several")
    if config.json:
        body = [
            {"benchmark": name, "a": a, "b": b} | found.to_json()
            for name, pairs in results.items()
            for (a, b), found in pairs.items()
        ]
        print(json.dumps(body, indent=2, ensure_ascii=False))
        return 0
    for name, pairs in results.items():
        print_pairs(name, pairs, config)
    return 0


def corpora_in(
    runs: Sequence[Run], benchmark: str, agents: Mapping[str, Scores], config: Config
) -> dict[str, Corpus] | None:
    """The agents' shares of a figure of the corpus, named and with the tasks as in `agents`; None if there is none."""
    found: dict[str, list[Trace]] = {}
    for run in runs:
        for name in run.agents():
            key = name if len(runs) == 1 else f"{run.id}/{name}"
            first = next(run.traces(benchmark=benchmark, agent=name), None)
            if key not in agents or first is None:
                continue
            if first.error is None and not any(score.corpus for score in first.scores):
                return None
            traces = run.traces(benchmark=benchmark, agent=name)
            found[key] = [trace for trace in traces if trace.task_id in agents[key]]
    return corpora({key: found[key] for key in agents}, config.score, errors=config.errors == "zero")


def corpora_of(
    comparison: Comparison, run_a: Run, run_b: Run, score: str | None, *, errors: bool
) -> dict[str, tuple[Corpus, Corpus]]:
    """The paired tasks' shares of the benchmarks whose score is a figure of the corpus: of A, and of B."""
    found: dict[str, tuple[Corpus, Corpus]] = {}
    sides = [(run_a, comparison.a.removeprefix(f"{run_a.id}/")), (run_b, comparison.b.removeprefix(f"{run_b.id}/"))]
    for benchmark in dict.fromkeys(pair.benchmark for pair in comparison.pairs):
        first = next(run_a.traces(benchmark=benchmark, agent=sides[0][1]))
        if not any(score.corpus for score in first.scores) and first.error is None:
            continue  # so that the bodies of a large run are not read for nothing
        paired = {pair.task_id for pair in comparison.pairs if pair.benchmark == benchmark}
        traces = {
            side: [trace for trace in run.traces(benchmark=benchmark, agent=agent) if trace.task_id in paired]
            for side, (run, agent) in zip("ab", sides, strict=True)
        }
        if both := corpora(traces, score, errors=errors):
            found[benchmark] = both["a"], both["b"]
    return found


def by_benchmark(
    comparison: Comparison, level: float, figures: Mapping[str, tuple[Corpus, Corpus]]
) -> dict[str, PairedDifference]:
    """How B differs from A on each benchmark: in the mean, or in the figure of the corpus that `figures` holds."""
    found: dict[str, list[Pair]] = {}
    for pair in comparison.pairs:
        found.setdefault(pair.benchmark, []).append(pair)
    return {
        name: judged(
            difference(
                figures[name][1] if name in figures else {p.task_id: p.b.values for p in pairs},
                figures[name][0] if name in figures else {p.task_id: p.a.values for p in pairs},
                comparison.clusters.get(name),
            ),
            level,
        )
        for name, pairs in found.items()
    }


def print_comparison(comparison: Comparison, results: Mapping[str, PairedDifference], config: Config) -> None:
    """A table of benchmarks, then the tasks that changed, and what was left out."""
    rows = [[name, str(found.n), *_cells(found)] for name, found in results.items()]
    print_table(f"{comparison.b} against {comparison.a}", ["benchmark", "tasks", *_header(config)], rows)
    out = console()
    for name, found in results.items():
        if found.verdict == "cannot tell" and found.detectable < 1:
            out.print(
                f"{name}: a true difference below {found.detectable:.3f} would often have been missed", markup=False
            )
    changed = [*comparison.tasks("worse"), *comparison.tasks("better")]
    if changed:
        cells = [
            [
                f"{p.benchmark}/{p.task_id}",
                f"{p.a.value:g}",
                f"{p.b.value:g}",
                p.a.trace_ids[0][:8],
                p.b.trace_ids[0][:8],
            ]
            for p in changed[: config.limit]
        ]
        print_table(f"tasks that changed ({len(changed)})", ["task", "a", "b", "trace in a", "trace in b"], cells)
    treated = "count as 0" if config.errors == "zero" else "are left out"
    for side, counts in zip("ab", comparison.unscored, strict=True):
        if sum(counts.values()):
            out.print(f"{sum(counts.values())} attempts of {side} have no score and {treated}", markup=False)
    for what, keys in (
        ("only in a", comparison.only_a),
        ("only in b", comparison.only_b),
        ("not paired, for the task itself changed", comparison.changed),
    ):
        if keys:
            out.print(f"{len(keys)} tasks {what}: {', '.join(task for _, task in keys[:5])}", markup=False)


def print_pairs(benchmark: str, pairs: dict[tuple[str, str], PairedDifference], config: Config) -> None:
    """A table of every two agents."""
    rows = [[b, a, str(found.n), *_cells(found)] for (a, b), found in pairs.items()]
    print_table(f"{benchmark}: every two agents", ["agent", "against", "tasks", *_header(config)], rows)
    if config.correct != "none" and len(pairs) > 1:
        method = {"holm": "Holm", "bh": "Benjamini and Hochberg"}[config.correct]
        console().print(f"Intervals and p-values are corrected for {len(pairs)} comparisons ({method}).", markup=False)


def print_flaky(found: list[Flaky], limit: int) -> None:
    """A table of the tasks that are not settled."""
    rows = [[f"{f.benchmark}/{f.task_id}", f.where, " ".join(f"{v:g}" for v in f.values)] for f in found[:limit]]
    print_table(f"flaky tasks ({len(found)})", ["task", "in", "scores"], rows)


def print_samples(comparison: Comparison, run_a: Run, run_b: Run, config: Config) -> None:
    """The samples, side by side."""
    out = console()
    for number, sample in enumerate(samples(comparison, run_a, run_b, config.only, config.score)):
        if number == config.limit:
            out.print("there are more: --limit shows them, and --html writes them into a file")
            return
        out.print(terminal_text(sample, out.width), soft_wrap=True)


def write_page(config: Config, comparisons: Sequence[Comparison], run_a: Run, run_b: Run) -> None:
    """Write the HTML file."""
    assert config.html is not None
    shown: list[Sample] = []
    for comparison in comparisons:
        for sample in samples(comparison, run_a, run_b, config.only, config.score):
            if len(shown) > MAX_SAMPLES:
                break
            shown.append(sample)
    counts = [(change, sum(len(each.tasks(change)) for each in comparisons)) for change in ("worse", "better", "same")]
    title = "; ".join(f"{each.b} against {each.a}" for each in comparisons)
    write(config.html, page(title, shown, counts))


def write(path: Path, text: str) -> None:
    """Write a file that was asked for; one that cannot be written is a setting that cannot work."""
    try:
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ConfigError(f"cannot write {str(path)!r}: {error.strerror or error}") from None


def to_json(comparison: Comparison, results: Mapping[str, PairedDifference]) -> Json:
    """The comparison as a JSON object."""
    return {
        "a": comparison.a,
        "b": comparison.b,
        "benchmarks": {name: found.to_json() for name, found in results.items()},
        "tasks": [
            {"benchmark": p.benchmark, "task": p.task_id, "a": p.a.value, "b": p.b.value, "change": p.change}
            for p in comparison.pairs
        ],
        "only_a": [list(key) for key in comparison.only_a],
        "only_b": [list(key) for key in comparison.only_b],
        "changed": [list(key) for key in comparison.changed],
        "unscored": {"a": dict(comparison.unscored[0]), "b": dict(comparison.unscored[1])},
        "flaky": [{"task": f.task_id, "where": f.where, "values": list(f.values)} for f in flaky(comparison)],
    }


def _header(config: Config) -> list[str]:
    return [f"difference ({config.confidence.replace('%', ' %')})", "p", "better / worse / same", "verdict"]


def _cells(found: PairedDifference) -> list[str]:
    return [
        f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]",
        "<0.001" if found.p_value < 0.001 else f"{found.p_value:.3f}",
        f"{found.better} / {found.worse} / {found.same}",
        found.verdict,
    ]
