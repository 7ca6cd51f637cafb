"""Pairs two agents, of one run or of two, task by task: which tasks got better, worse, or stayed the same.

The statistics of the paired values (intervals, tests) are in `stats/score_statistics.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Literal, NamedTuple, TypeVar

from firsthand.errors import ConfigError, unknown
from firsthand.runs.attempt_summary import AttemptSummary
from firsthand.runs.epoch_reducer import Reduce, epoch_reducer, grows_with_attempts, needed_of
from firsthand.runs.retried_attempts import Retried
from firsthand.runs.run_folder import Run
from firsthand.runs.scored_alike import OtherScorers, other_scorers, other_settings, same_code
from firsthand.runs.task_groups import common_groups, same_problem
from firsthand.runs.unmade_attempts import unmade
from firsthand.system.plurals import count_of
from firsthand.task import Task
from firsthand.trace import NOTE

T = TypeVar("T")
Key = tuple[str, str]
"""Benchmark and task id."""


@dataclass(frozen=True)
class Attempted:
    """The attempts of one agent at one task, its epochs together."""

    values: tuple[float, ...]
    """The score of each attempt that has one."""
    trace_ids: tuple[str, ...]
    num_unscored: int
    """Attempts that ended in an error, have no such score, whose scorer failed, or that a reducer lacks."""
    epochs: tuple[int, ...] = ()
    """The epoch of each of the values."""
    places: tuple[str, ...] = ()
    """`Trace.place` of each attempt, shorter to type than its id."""
    reduced: float | None = None
    """The score that its epochs are reduced to, where that is not their mean; see `Comparison.evened`."""
    num_unjudged: int = 0
    """Attempts whose judge gave no verdict, or that nobody rated, which are unscored and never count."""

    @property
    def value(self) -> float:
        """The score over the epochs: their mean, or as they are reduced."""
        return fmean(self.values) if self.reduced is None else self.reduced

    @property
    def drawn(self) -> tuple[float, ...]:
        """The scores for statistics: of each epoch, or the one they are reduced to."""
        return self.values if self.reduced is None else (self.reduced,)


@dataclass(frozen=True)
class Pair:
    """One task that both sides attempted."""

    benchmark: str
    task_id: str
    a: Attempted
    b: Attempted
    lower_is_better: bool = False
    """True for a score of harm (`Score.is_harm`)."""

    @property
    def change(self) -> Literal["better", "worse", "same"]:
        """The change from `a` to `b`."""
        if self.b.value == self.a.value:
            return "same"
        return "better" if (self.b.value > self.a.value) != self.lower_is_better else "worse"


@dataclass(frozen=True)
class Comparison:
    """Side `b` against side `a` on the tasks that both have scores for."""

    a: str
    b: str
    pairs: tuple[Pair, ...]
    only_a: tuple[Key, ...]
    """Tasks with a score on side `a` alone."""
    only_b: tuple[Key, ...]
    changed: tuple[Key, ...]
    """Tasks of one id that are not the same task in both runs; they are not paired."""
    missing: tuple[Key, ...] = ()
    """Tasks that side `a` attempted, and side `b` not at all."""
    unscored: tuple[Mapping[str, int], Mapping[str, int]] = ({}, {})
    """Attempts of each side that have no score, by benchmark, whether or not their task is paired."""
    unmade: tuple[Mapping[str, int], Mapping[str, int]] = ({}, {})
    """Attempts that each side's run was to make and has not made, by benchmark."""
    retried: tuple[Mapping[str, Retried], Mapping[str, Retried]] = ({}, {})
    """Attempts of each side that were made again after an error, by benchmark."""
    num_unjudged: tuple[int, int] = (0, 0)
    """Those among the unscored attempts of each side whose judge gave no verdict: they are left out."""
    evened: tuple[Key, ...] = ()
    """Tasks with more attempts on one side, of which only as many are reduced as the other has: `max` grows with them."""
    clusters: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Benchmark -> task id -> cluster; `TaskGroups` where tasks have strata too."""
    repeated: bool = False
    """True if both sides are the same agent under the same seed in two runs, of the same code, and the scorers are the same
    as far as is known: then a score that differs is flaky."""

    harms: frozenset[str] = frozenset()
    """The benchmarks whose score is one of harm: lower is better, and attempts without it are left out."""
    other_scorers: tuple[OtherScorers, ...] = ()
    """The scores that the two runs do not have from the same scorer, or perhaps not."""
    settings: tuple[str, ...] = ()
    """Differences of an agent of one name in the two runs, in words: `model: a and b`."""

    @property
    def values(self) -> tuple[list[float], list[float]]:
        """The paired scores, task by task: those of `a`, and those of `b`."""
        return [pair.a.value for pair in self.pairs], [pair.b.value for pair in self.pairs]

    def tasks(self, change: Literal["better", "worse", "same"]) -> list[Pair]:
        """The tasks on which `b` did so, the largest difference first."""
        chosen = [pair for pair in self.pairs if pair.change == change]
        return sorted(chosen, key=lambda pair: -abs(pair.b.value - pair.a.value))

    @property
    def num_unscored(self) -> tuple[int, int]:
        """Attempts of each side at the paired tasks that have no score: failures, which the values leave out."""
        return sum(pair.a.num_unscored for pair in self.pairs), sum(pair.b.num_unscored for pair in self.pairs)


def compare(
    run_a: Run,
    run_b: Run,
    *,
    agent_a: str | None = None,
    agent_b: str | None = None,
    benchmark: str | None = None,
    score: str | None = None,
    error_value: float | None = None,
    unmade_value: float | None = None,
    strata: str | None = None,
    reduce: str | None = None,
) -> Comparison:
    """The paired scores of two agents, or of one agent in two runs.

    Args:
        agent_a: May be left out where `run_a` has one agent only.
        agent_b: The same for `run_b`; if it has several, the one named like `agent_a`.
        benchmark: Compare on this benchmark alone.
        score: The name of a score; if left out, the one that is first in `run_a` at each task, by its name in both runs.
        error_value: What an attempt without a score counts as, such as 0; None leaves it out. One whose judge gave no
            verdict is left out whatever it is, and so is one without a score of harm (`Score.is_harm`).
        unmade_value: The same for attempts that a run was to make and has not made, at tasks that it has attempted.
        strata: The key of the tasks' metadata that tells their stratum; see `Run.clusters`.
        reduce: The name of a reducer of epochs; see `Run.reducer`.
    """
    name_a = _agent(run_a, agent_a)
    name_b = _agent(run_b, agent_b or (name_a if name_a in _agents(run_b) else None))
    names = _first_names([(run_a, name_a)], benchmark) if score is None else score
    plan_a = unmade(run_a)
    plan_b = plan_a if run_b is run_a else unmade(run_b)
    planned = (plan_a.epochs, plan_b.epochs) if unmade_value is not None else (0, 0)
    attempts = [_attempts(run, name, benchmark, names) for run, name in ((run_a, name_a), (run_b, name_b))]
    harms = _harms(attempts)
    tried_a, tried_b = (
        _tried(each, harms, error_value, reduce or run_a.reducer, epochs, unmade_value)
        for each, epochs in zip(attempts, planned, strict=True)
    )
    side_a, side_b = ({key: each for key, each in tried.items() if each.values} for tried in (tried_a, tried_b))
    changed = _changed(run_a, run_b)
    paired = [key for key in side_a if key in side_b and key not in changed]
    others = other_scorers(run_a, run_b, _read_scores(paired, names))
    pairs = []
    for key in paired:
        a, b = _evened([side_a[key], side_b[key]], reduce or run_a.reducer(key[0]))
        pairs.append(Pair(*key, a, b, lower_is_better=key[0] in harms))
    return Comparison(
        a=f"{run_a.id}/{name_a}",
        b=f"{run_b.id}/{name_b}",
        pairs=tuple(pairs),
        only_a=tuple(key for key in side_a if key not in side_b),
        only_b=tuple(key for key in side_b if key not in side_a),
        changed=tuple(key for key in side_a if key in side_b and key in changed),
        missing=tuple(key for key in tried_a if key not in tried_b),
        unscored=(_unscored(tried_a), _unscored(tried_b)),
        num_unjudged=(
            sum(each.num_unjudged for each in tried_a.values()),
            sum(each.num_unjudged for each in tried_b.values()),
        ),
        retried=(_of_agent(run_a.retried(), name_a, benchmark), _of_agent(run_b.retried(), name_b, benchmark)),
        unmade=(_of_agent(plan_a.counts, name_a, benchmark), _of_agent(plan_b.counts, name_b, benchmark)),
        evened=tuple(
            key
            for key in paired
            if grows_with_attempts(reduce or run_a.reducer(key[0]))
            and len(side_a[key].values) != len(side_b[key].values)
        ),
        clusters=common_groups(run_b.clusters(strata), run_a.clusters(strata)),
        repeated=_repeated(run_a, run_b, name_a, name_b) and not any(each.is_sure for each in others),
        harms=harms,
        other_scorers=others,
        settings=other_settings(run_a, run_b, name_a) if name_a == name_b else (),
    )


def scores_of(
    runs: Sequence[Run],
    *,
    score: str | None = None,
    error_value: float | None = None,
    reduce: str | None = None,
    even: bool = False,
) -> dict[str, dict[str, dict[str, tuple[float, ...]]]]:
    """Benchmark -> agent -> task -> values of its attempts, of all agents of the runs, for comparisons of every two.

    Epochs are reduced as asked, else as in the first run. With several runs an agent is named `run/agent`. A task that a
    later run has changed is left out of that run. Without `score`, each task's first score in the first run that has one
    is read of all agents, by its name. With `even`, a reducer that grows with the number of attempts is given as many of
    each agent's at a task as the agent with the fewest has, so that agents of different epochs can be compared.
    """
    names = _first_names([(run, agent) for run in runs for agent in _agents(run)], None) if score is None else score
    found: dict[str, dict[str, dict[str, Attempted]]] = {}
    tasks: dict[Key, Task] = {}
    attempts = {
        (place, agent): _attempts(run, agent, None, names) for place, run in enumerate(runs) for agent in _agents(run)
    }
    harms = _harms(attempts.values())
    for place, run in enumerate(runs):
        changed = {key for key, task in run.tasks().items() if not same_problem(tasks.setdefault(key, task), task)}
        for agent in _agents(run):
            name = agent if len(runs) == 1 else f"{run.id}/{agent}"
            tried = _tried(attempts.pop((place, agent)), harms, error_value, reduce or runs[0].reducer)
            for (benchmark, task), each in tried.items():
                if each.values and (benchmark, task) not in changed:
                    found.setdefault(benchmark, {}).setdefault(name, {})[task] = each
    for benchmark, agents in found.items() if even else ():
        for task in {task for by_task in agents.values() for task in by_task}:
            having = [by_task for by_task in agents.values() if task in by_task]
            sides = _evened([by_task[task] for by_task in having], reduce or runs[0].reducer(benchmark))
            for by_task, each in zip(having, sides, strict=True):
                by_task[task] = each
    return {
        benchmark: {name: {task: each.drawn for task, each in by_task.items()} for name, by_task in agents.items()}
        for benchmark, agents in found.items()
    }


def _agents(run: Run) -> list[str]:
    return list(run.agents()) or list(dict.fromkeys(row.agent for row in run.rows()))


def _agent(run: Run, name: str | None) -> str:
    agents = _agents(run)
    if name is None and len(agents) == 1:
        return agents[0]
    if name is None:
        known = ", ".join(agents) or "none yet"
        raise ConfigError(f"run {run.id} has {count_of(len(agents), 'agent')} ({known}): say which to compare")
    if name not in agents:
        raise unknown("agent", name, agents, see=f"firsthand show {run.id}")
    return name


class _FirstNames(NamedTuple):
    """The names of the first scores on one side, so that another side is read by the same names whatever its order."""

    of_task: Mapping[Key, str]
    of_benchmark: Mapping[str, frozenset[str]]
    never_scored: Collection[str] = frozenset()
    """The benchmarks at which attempts ended well and none has a score: they count nowhere."""

    def name(self, attempt: AttemptSummary) -> str | None:
        """The name of its task's score; where the task has none, of the attempt's first of a name that its benchmark has.

        Where the benchmark has people's ratings alone, an attempt without one has their name, as one that nobody rated.
        """
        name = self.of_task.get((attempt.benchmark, attempt.task_id))
        known = self.of_benchmark.get(attempt.benchmark)
        if attempt.benchmark in self.never_scored and not attempt.scores:
            return NOTE  # as a rating that nobody gave
        if name is None and known is not None:
            rating = next(iter(sorted(known)), "") if all(each.startswith(NOTE) for each in known) else ""
            name = next((each.name for each in attempt.scores if each.name in known), rating)
        return name


def _read_scores(tasks: Iterable[Key], names: str | _FirstNames) -> list[tuple[str, str]]:
    """The benchmarks of the tasks, each with the names of the scores that are read there."""
    found = dict.fromkeys(benchmark for benchmark, _ in tasks)
    if isinstance(names, str):
        return [(benchmark, names) for benchmark in found]
    return [(benchmark, name) for benchmark in found for name in sorted(names.of_benchmark.get(benchmark, ()))]


def _first_names(sides: Iterable[tuple[Run, str]], benchmark: str | None) -> _FirstNames:
    """The names on these runs' agents; the first side that has a score at a task names it."""
    of_task: dict[Key, str] = {}
    ended: set[str] = set()
    for run, agent in sides:
        for each in run.summaries(benchmark=benchmark, agent=agent):
            if each.error is None:
                ended.add(each.benchmark)
            if each.scores:
                of_task.setdefault((each.benchmark, each.task_id), each.scores[0].name)
    of_benchmark: dict[str, set[str]] = defaultdict(set)
    for (name, _), first in of_task.items():
        of_benchmark[name].add(first)
    known = {name: frozenset(firsts) for name, firsts in of_benchmark.items()}
    return _FirstNames(of_task, known, ended - known.keys())


def _attempts(
    run: Run, agent: str, benchmark: str | None, score: str | _FirstNames | None
) -> Mapping[Key, list[_Attempt]]:
    """The agent's attempts at each task, of those too that have no value."""
    attempts: dict[Key, list[_Attempt]] = defaultdict(list)
    for each in run.summaries(benchmark=benchmark, agent=agent):
        which = score.name(each) if isinstance(score, _FirstNames) else score
        tried = _Attempt(
            each.epoch, each.place, each.id, each.value(which), each.is_unjudged(which), each.is_harm(which)
        )
        attempts[each.benchmark, each.task_id].append(tried)
    return attempts


def _harms(sides: Iterable[Mapping[Key, list[_Attempt]]]) -> frozenset[str]:
    """The benchmarks at which any side has a score of harm."""
    return frozenset(name for side in sides for (name, _), tries in side.items() if any(each.is_harm for each in tries))


def _tried(
    attempts: Mapping[Key, list[_Attempt]],
    harms: Collection[str],
    error_value: float | None,
    reduce: str | Callable[[str], str],
    epochs: int = 0,
    unmade_value: float | None = None,
) -> Mapping[Key, Attempted]:
    """The attempts at each task with what they count as; each of `epochs` not made is `unmade_value`."""
    names = {name: reduce if isinstance(reduce, str) else reduce(name) for name, _ in attempts}
    counts: dict[str, list[int]] = defaultdict(list)
    for (name, _), tries in attempts.items():
        counts[name].append(sum(not each.is_unjudged for each in tries))
    reducers = {name: (epoch_reducer(each), needed_of(each, counts[name])) for name, each in names.items()}
    return {
        key: _attempted(
            tries,
            None if key[0] in harms else error_value,
            *reducers[key[0]],
            unmade=[
                (epoch, None if key[0] in harms else unmade_value)
                for epoch in sorted(set(range(epochs)) - {each.epoch for each in tries})
            ],
        )
        for key, tries in sorted(attempts.items())
    }


class _Attempt(NamedTuple):
    epoch: int
    place: str
    id: str
    value: float | None
    is_unjudged: bool = False
    is_harm: bool = False


def _attempted(
    attempts: list[_Attempt],
    error_value: float | None,
    reduce: Reduce | None,
    needed: int = 1,
    unmade: Sequence[tuple[int, float | None]] = (),
) -> Attempted:
    """The attempts at a task. Without as many values as the reducer needs it has none, and what it lacks is unscored.

    `unmade` are epochs without an attempt, and the value each counts as.
    """
    attempts = sorted(attempts, key=lambda each: (each.epoch, each.place))
    valued = [
        (each.epoch, error_value if each.value is None and not each.is_unjudged else each.value) for each in attempts
    ]
    valued = sorted([*valued, *unmade], key=lambda each: each[0])
    lacking = max(0, needed - len(valued))
    if sum(value is not None for _, value in valued) < needed:
        valued = []
    values = tuple(value for _, value in valued if value is not None)
    return Attempted(
        values=values,
        trace_ids=tuple(each.id for each in attempts),
        num_unscored=sum(each.value is None for each in attempts) + lacking,
        epochs=tuple(epoch for epoch, value in valued if value is not None),
        places=tuple(each.place for each in attempts),
        reduced=reduce(values) if reduce and values else None,
        num_unjudged=sum(each.is_unjudged for each in attempts),
    )


def _evened(sides: Sequence[Attempted], reducer: str) -> list[Attempted]:
    """The attempts of several sides at one task, reduced over as many of each as the side with the fewest has.

    Only for reducers whose score grows with the number of attempts: the others take all of them.
    """
    reduce, fewest = epoch_reducer(reducer), min(len(each.values) for each in sides)
    if reduce is None or not grows_with_attempts(reducer):
        return list(sides)
    return [replace(each, reduced=reduce(each.values[:fewest])) for each in sides]


def _of_agent(counts: Mapping[Key, T], agent: str, benchmark: str | None) -> dict[str, T]:
    """The counts of that agent by benchmark, or of one benchmark."""
    return {name: count for (name, its), count in counts.items() if its == agent and benchmark in (None, name)}


def _unscored(tried: Mapping[Key, Attempted]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for (benchmark, _), each in tried.items():
        counts[benchmark] += each.num_unscored
    return dict(counts)


def _repeated(run_a: Run, run_b: Run, name_a: str, name_b: str) -> bool:
    agents = run_a.agents().get(name_a), run_b.agents().get(name_b)
    seeds = run_a.config.get("seed", 0), run_b.config.get("seed", 0)
    if run_a.path == run_b.path or agents[0] is None or agents[0] != agents[1] or seeds[0] != seeds[1]:
        return False
    return same_code(run_a, run_b, name_a, name_b)


def _changed(run_a: Run, run_b: Run) -> set[Key]:
    if run_a.path == run_b.path:
        return set()
    tasks_a, tasks_b = run_a.tasks(), run_b.tasks()
    return {key for key, task in tasks_a.items() if key in tasks_b and not same_problem(tasks_b[key], task)}
