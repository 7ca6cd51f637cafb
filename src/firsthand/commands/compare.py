"""Pair two runs, or two agents, task by task: what got better, what got worse, and whether that can be chance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from firsthand.errors import ConfigError, unknown
from firsthand.evals.stats import PairedDifference, paired_difference
from firsthand.home import data_home
from firsthand.message import Json
from firsthand.runs import store
from firsthand.runs.compare import Comparison, Pair, compare
from firsthand.runs.store import Run
from firsthand.terminal import console, print_table

EXAMPLES = """
firsthand compare 2026-11-25-0148 last                      # each agent that both runs have
firsthand compare last last --agent-a direct --agent-b cot  # two agents of one run
firsthand compare A B --benchmark gsm8k --score strict --json
"""


@dataclass(frozen=True)
class Config:
    """What to compare. B is compared to A: a positive difference means that B is better."""

    a: str = field(metadata={"positional": True})
    """The run to compare to."""
    b: str = field(metadata={"positional": True})
    """The run that is compared."""
    agent_a: str | None = None
    """The agent of A; without it, each agent that both runs have."""
    agent_b: str | None = None
    """The agent of B; without it, the one named like that of A."""
    benchmark: str | None = None
    """This benchmark alone."""
    score: str | None = None
    """A score by name; the benchmark's first one by default."""
    limit: int = 10
    """At most this many tasks that changed."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ConfigError(f"limit is {self.limit}: give 1 or more")


def main(config: Config) -> int:
    """Compare and print."""
    with store.open_run(config.a, data_home()) as run_a, store.open_run(config.b, data_home()) as run_b:
        comparisons = compare_all(config, run_a, run_b)
    if config.json:
        print(json.dumps([to_json(each) for each in comparisons], indent=2, ensure_ascii=False))
        return 0
    for comparison in comparisons:
        print_comparison(comparison, config.limit)
    return 0


def compare_all(config: Config, run_a: Run, run_b: Run) -> list[Comparison]:
    """A comparison for the agents that were named, or for each that both runs have. A failed attempt counts as 0."""
    pairs: Sequence[tuple[str | None, str | None]] = [(config.agent_a, config.agent_b)]
    if config.agent_a is None and config.agent_b is None:
        shared = [name for name in run_a.agents() if name in run_b.agents()]
        if not shared:
            known = f"{', '.join(run_a.agents())} and {', '.join(run_b.agents())}"
            raise ConfigError(f"the runs have no agent in common ({known}): name them with --agent-a and --agent-b")
        pairs = [(name, name) for name in shared]
    having = benchmarks_with(config.score, run_a, run_b)
    if config.benchmark is not None and config.benchmark not in having:
        raise unknown("benchmark", config.benchmark, having, see=f"firsthand show {run_a.id}")
    found = [
        compare(run_a, run_b, agent_a=a, agent_b=b, benchmark=config.benchmark, score=config.score, error_value=0.0)
        for a, b in pairs
    ]
    return [replace(each, pairs=tuple(pair for pair in each.pairs if pair.benchmark in having)) for each in found]


def benchmarks_with(score: str | None, *runs: Run) -> set[str]:
    """The benchmarks whose attempts have that score: elsewhere its absence says nothing, and must not count as 0."""
    if score is None:
        return {row.benchmark for run in runs for row in run.rows()}
    names = {(trace.benchmark, each.name) for run in runs for trace in run.traces() for each in trace.scores}
    if score not in {name for _, name in names}:
        raise unknown("score", score, {name for _, name in names}, see=f"firsthand show {runs[0].id}")
    return {benchmark for benchmark, name in names if name == score}


def by_benchmark(comparison: Comparison) -> dict[str, PairedDifference]:
    """How B differs from A on each benchmark."""
    found: dict[str, list[Pair]] = {}
    for pair in comparison.pairs:
        found.setdefault(pair.benchmark, []).append(pair)
    return {
        name: paired_difference({p.task_id: p.b.values for p in pairs}, {p.task_id: p.a.values for p in pairs})
        for name, pairs in found.items()
    }


def print_comparison(comparison: Comparison, limit: int) -> None:
    """A table of benchmarks, then the tasks that changed."""
    rows = [
        [
            name,
            str(found.n),
            f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]",
            f"{found.p_value:.3f}",
            f"{found.better} / {found.worse} / {found.same}",
            found.verdict,
        ]
        for name, found in by_benchmark(comparison).items()
    ]
    header = ["benchmark", "tasks", "difference (95 %)", "p", "better / worse / same", "verdict"]
    print_table(f"{comparison.b} against {comparison.a}", header, rows)
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
            for p in changed[:limit]
        ]
        print_table(f"tasks that changed ({len(changed)})", ["task", "a", "b", "trace in a", "trace in b"], cells)
    for what, keys in (
        ("only in a", comparison.only_a),
        ("only in b", comparison.only_b),
        ("not paired, for the task itself changed", comparison.changed),
    ):
        if keys:
            console().print(f"{len(keys)} tasks {what}: {', '.join(task for _, task in keys[:5])}", markup=False)


def to_json(comparison: Comparison) -> Json:
    """The comparison as a JSON object."""
    return {
        "a": comparison.a,
        "b": comparison.b,
        "benchmarks": {name: found.to_json() for name, found in by_benchmark(comparison).items()},
        "tasks": [
            {"benchmark": p.benchmark, "task": p.task_id, "a": p.a.value, "b": p.b.value, "change": p.change}
            for p in comparison.pairs
        ],
        "only_a": [list(key) for key in comparison.only_a],
        "only_b": [list(key) for key in comparison.only_b],
        "changed": [list(key) for key in comparison.changed],
    }
