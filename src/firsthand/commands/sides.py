"""Agents, benchmarks, figures and differences of two runs, for `compare`, its pairwise form and `gate`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from firsthand.benchmark import Figure, Figures
from firsthand.errors import ConfigError, unknown
from firsthand.runs.pairing import Comparison
from firsthand.runs.run_folder import Run
from firsthand.stats.paired import PairedDifference
from firsthand.stats.stored_figures import stored_figures
from firsthand.stats.task_scores import unstated_directions
from firsthand.system.new_file import write_new
from firsthand.system.plurals import count_of
from firsthand.system.terminal import complain


def shared_agents(
    agent_a: str | None, agent_b: str | None, run_a: Run, run_b: Run
) -> Sequence[tuple[str | None, str | None]]:
    """The two named agents, or each agent in both runs paired with itself."""
    if agent_a is not None or agent_b is not None:
        return [(agent_a, agent_b)]
    shared = [name for name in run_a.agents() if name in run_b.agents()]
    if not shared:
        known = f"{', '.join(run_a.agents())} and {', '.join(run_b.agents())}"
        raise ConfigError(f"the runs have no agent in common ({known}): name them with --agent-a and --agent-b")
    return [(name, name) for name in shared]


def benchmarks_with(score: str | None, *runs: Run, own: Mapping[str, Figures]) -> dict[str, str | None]:
    """The benchmarks that have a score or figure of that name -> the score to pair by; None is a benchmark's first score.

    Other benchmarks are left out: without the score they must not count as 0. A figure alone is paired by the first score.
    """
    benchmarks = {row.benchmark for run in runs for row in run.rows()}
    if score is None:
        return dict.fromkeys(sorted(benchmarks))
    names = {(made.benchmark, each.name) for run in runs for made in run.summaries() for each in made.scores}
    found: dict[str, str | None] = {benchmark: score for benchmark, name in sorted(names) if name == score}
    if found:
        return found
    for benchmark in sorted(benchmarks):
        agents = {f"{run.id}/{agent}": (run, agent) for run in runs for agent in run.agents()}
        figures = stored_figures(agents, benchmark, own)
        names |= {(benchmark, name) for name in figures}
        found |= {benchmark: None} if score in figures else {}
    if not found:
        raise unknown("score", score, {name for _, name in names}, see=f"firsthand show {runs[0].id}")
    return found


def paired_figures(
    comparison: Comparison, benchmark: str, run_a: Run, run_b: Run, own: Mapping[str, Figures], *, errors: bool
) -> dict[str, tuple[Figure, Figure]]:
    """Name -> the figure of A and of B on the paired tasks of a benchmark."""
    named = {"a": (run_a, comparison.a), "b": (run_b, comparison.b)}
    sides = {side: (run, name.removeprefix(f"{run.id}/")) for side, (run, name) in named.items()}
    tasks = {pair.task_id for pair in comparison.pairs if pair.benchmark == benchmark}
    found = stored_figures(sides, benchmark, own, tasks={"a": tasks, "b": tasks}, errors=errors)
    return {name: (each["a"], each["b"]) for name, each in found.items() if len(each) == 2}


def difference_header(confidence: str) -> list[str]:
    """The columns of `difference_cells`."""
    return [f"difference ({confidence} CI)", "p", "better / worse / same", "verdict"]


def difference_cells(found: PairedDifference) -> list[str]:
    """A difference as cells of a table; no counts for a figure without values per task, `unknown` for one of NaN."""
    if found.n and math.isnan(found.difference):
        return ["unknown", "-", "-", "unknown"]
    counts = (found.better, found.worse, found.same)
    return [
        f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]",
        "<0.001" if found.p_value < 0.001 else f"{found.p_value:.3f}",
        " / ".join(map(str, counts)) if any(counts) else "-",
        found.verdict,
    ]


def complain_of_directions(*runs: Run, score: str | None = None) -> None:
    """Say on standard error of which scores lower is better by their name alone: the tables take higher for better."""
    for text in unstated_directions(*runs, score=score):
        complain(text)


def unmade_text(count: int, whose: str) -> str:
    """The number of attempts that a run was to make and has not made, as a sentence; `whose` is a run or a side."""
    return (
        f"{count_of(count, 'attempt')} of {whose} not made yet, so what hangs or takes long may be left out: let the run "
        "end if it goes on, or finish it with `firsthand run --resume`"
    )


def write(path: Path, text: str) -> None:
    """Write a file that a flag names; ConfigError if it cannot be written."""
    try:
        write_new(path, text, errors="backslashreplace")
    except OSError as error:
        raise ConfigError(f"cannot write {str(path)!r}: {error.strerror or error}") from None
