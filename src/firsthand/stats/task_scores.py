"""Scores of each task of a run as its tables count them: the run's first scores, or one given later, epochs reduced.

Totals (`Run.totals`) hold sums alone and so know no reducer but the mean; where a run has another, its table, its cells and
its boards read the tasks' scores here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from firsthand.runs.attempt_summary import AttemptSummary
from firsthand.runs.epoch_reducer import reduction
from firsthand.runs.pairing import scores_of
from firsthand.runs.run_folder import Run
from firsthand.stats.intervals import Scores
from firsthand.stats.metric_names import unstated_direction
from firsthand.trace import NOTE, Score


def reduced_benchmarks(run: Run, reduce: str | None = None) -> set[str]:
    """The benchmarks of a run whose epochs have a reducer other than the mean."""
    return {name for name, _ in run.pairs() if run.reducer(name, reduce) != "mean"}


def reducers_in_words(run: Run, reduce: str | None = None) -> dict[str, str]:
    """Each of the `reduced_benchmarks` -> its reducer, and of how many attempts where that matters: `max of 8`."""
    by_reducer = reduced_benchmarks(run, reduce)
    epochs = run.epochs() if by_reducer else {}
    return {name: reduction(run.reducer(name, reduce), epochs.get(name, 1)) for name in sorted(by_reducer)}


def harm_benchmarks(run: Run, score: str | None = None) -> set[str]:
    """The benchmarks whose first score, or the one of that name, is of harm: totals count attempts without it as 0."""
    return {
        name
        for name in run.benchmarks()
        for trace in run.samples(name)
        if (found := trace.score(score) if score else next(iter(trace.attempt_scores), None)) and found.is_harm
    }


def unstated_directions(*runs: Run, score: str | None = None) -> list[str]:
    """A sentence for each benchmark of the runs whose first score, or the one of that name, is lower-is-better by its name
    alone; see `unstated_direction`."""
    found: dict[tuple[str, str], list[Score]] = {}
    for run in runs:
        for benchmark in run.benchmarks():
            for trace in run.samples(benchmark):
                each = trace.score(score) if score else next(iter(trace.attempt_scores), None)
                if each is not None:
                    found.setdefault((benchmark, each.name), []).append(each)
    told = ((name, unstated_direction(name, (each.detail for each in scores))) for (_, name), scores in found.items())
    return list(dict.fromkeys(f"{text}." for _, text in told if text))


def task_scores(
    run: Run, benchmarks: Collection[str], *, score: str | None = None, reduce: str | None = None
) -> Mapping[tuple[str, str], Scores]:
    """Benchmark and agent -> task -> its scores: one of each attempt, or what the reducer makes of them.

    `score` names one given later. Without it they are the first scores, or, of an agent whose attempts have none of their
    own, the first that was given later, as in the totals. An attempt without a score counts as 0, and without a
    score of harm, or one that people give (`NOTE`), not at all.
    """
    later = score or next(iter(run.score_names()), None)
    pairs = [pair for pair in run.pairs() if pair[0] in benchmarks]
    having = {pair for pair in pairs if _has_own_score(run, *pair)}
    # an agent whose attempts all failed has the score of harm that others have, of which it has no attempt
    harms = {benchmark for benchmark, _ in having} & harm_benchmarks(run)
    if later is not None and later.startswith(NOTE):  # ratings do not stand in beside scores of the run's own
        harms |= {benchmark for benchmark, _ in having}
    names = {pair: score if pair in having or pair[0] in harms else later for pair in pairs}
    found = {
        name: scores_of([run], score=name, error_value=0.0, reduce=reduce) for name in dict.fromkeys(names.values())
    }
    return {
        (benchmark, agent): values
        for (benchmark, agent), name in names.items()
        if (values := found[name].get(benchmark, {}).get(agent))
    }


def scored_attempts(
    run: Run, name: str, *, benchmark: str | None = None, agent: str | None = None
) -> list[AttemptSummary]:
    """The attempts of a run with the score of that name alone, in the order they were finished; none if there is none.

    An attempt that ended in an error has no score and stands among them, so that it counts as 0. One that was not scored is
    left out, and so are the errors of an agent that was not scored, such as the one a pair judge compares the others with.
    """
    attempts = list(run.summaries(benchmark=benchmark, agent=agent))
    given = {(each.benchmark, each.agent_name) for each in attempts if each.score(name) is not None}
    sound = {(each.benchmark, each.agent_name) for each in attempts if each.error is None}
    found = []
    for each in attempts:
        score, pair = each.score(name), (each.benchmark, each.agent_name)
        if score is not None or (each.error is not None and given and (pair in given or pair not in sound)):
            found.append(each.scored(() if score is None else (score,)))
    return found


def _has_own_score(run: Run, benchmark: str, agent: str) -> bool:
    return any(row.score is not None for row in run.rows(benchmark=benchmark, agent=agent))
