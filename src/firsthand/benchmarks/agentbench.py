"""AgentBench as a whole: its environments together, with the paper's overall score (Liu et al., 2023)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from firsthand import catalog
from firsthand.benchmark import Benchmark, Environment, Figure, ScorerResult
from firsthand.errors import ConfigError, FirsthandError, UnknownName, nearest
from firsthand.system.plurals import count_of
from firsthand.task import Task
from firsthand.trace import Score, Trace
from firsthand.worlds.world import Actions

if TYPE_CHECKING:
    from numpy.typing import NDArray

WEIGHTS: Mapping[str, float] = {
    "os": 10.8, "db": 13.0, "kg": 13.9, "dcg": 12.0, "ltp": 3.5, "hh": 13.0, "ws": 30.7, "wb": 11.6,
}  # fmt: skip
"""The paper's average score of all its models in each environment, in percent: a score is divided by it (table 2)."""
REAL_DATA = ("os", "db", "ltp")
"""The environments whose items are read from AgentBench's folder; the others are generated from the seed."""


def agentbench(
    *,
    split: Literal["dev", "standard"] = "standard",
    worlds: str = "all",
    each: int = 0,
    actions: Actions = "text",
    data: str = "",
) -> Benchmark:
    """Return the benchmark: the tasks of `agentbench_os`, `_db`, `_kg`, `_dcg`, `_ltp`, `_hh`, `_ws`, `_wb` that are there.

    `worlds` names some of them, such as `os+db`; one that is named must be there. `each` is the number of tasks of each,
    spread evenly over it; 0 takes all. `data` is a folder with AgentBench's files.
    """
    if each < 0:
        raise ConfigError(f"each is {each}: give the number of tasks of each environment, or 0 for all")
    found, missing = _found(_named(worlds), {"split": split, "actions": actions, "data": data}, must=worlds != "all")

    def tasks(seed: int) -> list[Task]:
        return [
            replace(task, id=f"{name}/{task.id}", metadata={**task.metadata, "stratum": name})
            for name, benchmark in found.items()
            for task in _spread(benchmark.tasks(seed), each)
        ]

    def score(task: Task, trace: Trace) -> Score:
        """The environment's own score, under one name."""
        name, own = _own(task)
        result = found[name].scorers[0](own, trace)
        first = _first(result)  # type: ignore[arg-type]
        return Score("score", first.value, {**first.detail, "world": name, "metric": first.name})

    def environment(task: Task) -> Environment:
        name, own = _own(task)
        make = found[name].environment
        assert make is not None
        return make(own)

    there = "; ".join(f"{name}: {benchmark.protocol}" for name, benchmark in found.items())
    left_out = "".join(f"; without {name}: {why}" for name, why in missing.items())
    return Benchmark(
        name="agentbench",
        tasks=tasks,
        scorers=(score,),
        description="AgentBench's environments together, with the paper's overall score.",
        protocol=f"overall: the mean of the environments' scores in percent, each divided by the paper's average of its "
        f"models; {count_of(len(found), 'environment')} of 8{left_out}. {there}",
        licence="Apache-2.0, and generated",
        environment=environment,
        figures=lambda traces: [overall(traces)],
        options={"split": split, "worlds": "+".join(found), "each": each, "actions": actions},
    )


def overall(traces: Sequence[Trace]) -> Figure:
    """The paper's overall score over the environments that the attempts are of; a failed attempt counts as 0."""
    import numpy as np

    values: dict[str, list[float]] = {}
    for trace in traces:
        values.setdefault(trace.task_id, []).append(trace.value("score") or 0.0)
    tasks = tuple(values)
    mean_T = np.array([sum(each) / len(each) for each in values.values()])
    names = sorted({task.partition("/")[0] for task in tasks} & WEIGHTS.keys())
    member_WT = np.array([[task.partition("/")[0] == name for task in tasks] for name in names], dtype=float)
    weight_W = np.array([100.0 / WEIGHTS[name] for name in names])

    def of(counts_DT: NDArray[Any]) -> NDArray[Any]:
        sums_DW = (counts_DT * mean_T) @ member_WT.T
        counts_DW = counts_DT @ member_WT.T
        shares_DW = np.divide(sums_DW, counts_DW, out=np.zeros_like(sums_DW), where=counts_DW > 0)
        scores_D: NDArray[Any] = (shares_DW * weight_W).mean(axis=1)
        return scores_D

    return Figure("overall", tasks, of, method="percentile")


def _named(worlds: str) -> list[str]:
    """The environments that a text names."""
    if worlds == "all":
        return list(WEIGHTS)
    names = [name.strip().removeprefix("agentbench_") for name in worlds.split("+")]
    for name in names:
        if name not in WEIGHTS:
            close = nearest(name, WEIGHTS)
            hint = f" did you mean {close!r}?" if close else ""
            raise UnknownName(f"no environment {name!r};{hint} there are {', '.join(WEIGHTS)}, joined by +")
    return list(dict.fromkeys(names))


def _found(
    names: Sequence[str], options: Mapping[str, str], *, must: bool
) -> tuple[dict[str, Benchmark], dict[str, str]]:
    """The environments that can be made, and why each other one cannot."""
    found: dict[str, Benchmark] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            if not catalog.is_ours("benchmark", f"agentbench_{name}"):
                raise ConfigError("this firsthand does not have it")
            make = catalog.find("benchmark", f"agentbench_{name}")
            taken = inspect.signature(make).parameters
            given = {key: value for key, value in options.items() if key in taken and value}
            if name not in REAL_DATA:
                given = {"actions": options["actions"]} if "actions" in taken else {}
            found[name] = make(**given)
        except FirsthandError as error:
            if must:
                raise
            missing[name] = str(error)
    if not found:
        raise ConfigError(f"no environment of AgentBench can be made here: {next(iter(missing.values()))}")
    return found, missing


def _spread(tasks: Sequence[Task], each: int) -> list[Task]:
    """`each` of the tasks, evenly spread; all for 0."""
    count = len(tasks)
    if not each or each >= count:
        return list(tasks)
    return [tasks[place * count // each] for place in range(each)]


def _own(task: Task) -> tuple[str, Task]:
    """The environment's name, and the task as it knows it."""
    name, _, id = task.id.partition("/")
    return name, replace(task, id=id)


def _first(result: ScorerResult | float) -> Score:
    if isinstance(result, Score):
        return result
    return result[0] if isinstance(result, tuple) else Score("score", float(result))
