"""Plan a comparison: tasks and attempts needed for an effect, or the minimum detectable effect of a stored run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from firsthand.config import confidence, refuse_given, share
from firsthand.errors import ConfigError, unknown
from firsthand.message import Json
from firsthand.runs import store
from firsthand.runs.epoch_reducer import epoch_reducer
from firsthand.runs.pairing import scores_of
from firsthand.runs.run_folder import Run
from firsthand.stats.comparison_design import Design, from_one, from_pair
from firsthand.stats.power_analysis import LARGEST_EFFECT, check_effect
from firsthand.system.home import data_home
from firsthand.system.plurals import count_of
from firsthand.system.terminal import console, print_as_json, print_table

EXAMPLES = """
firsthand power last --effect 2%                            # from a baseline run
firsthand power last --agent cot --against direct           # from two agents that were measured together
firsthand power --disagreement 15% --effect 2%              # two 0/1 scores that differ on 15 % of the tasks
firsthand power --between-sd 0.3 --within-sd 0.4 --effect 2% --tasks 500
"""

MAX_EPOCHS = 10**12
"""The most attempts per task of a plan."""
ONE_ATTEMPT = """\
With one attempt per task the variance within tasks is unknown: run with `--epochs 4` to estimate it."""


@dataclass(frozen=True)
class Config:
    """Variances, from a run or stated, and the effect to detect."""

    run: str | None = field(default=None, metadata={"positional": True})
    """A run to estimate the variances from."""
    effect: str = "5%"
    """The effect to detect: a difference of mean scores."""
    agent: str | None = None
    """The run's agent to take the variance from; without it, each agent."""
    against: str | None = None
    """A second agent of the run: their correlation is measured instead of assumed."""
    benchmark: str | None = None
    """Only this benchmark of the run."""
    score: str | None = None
    """A score by name; the benchmark's first one by default."""
    correlation: float = 0.5
    """Assumed correlation of the scores of a second, unmeasured agent with the first one's."""
    disagreement: str | None = None
    """Without a run: the share of tasks on which one of two 0/1 scores is right and the other wrong."""
    between_sd: float | None = None
    """Without a run: the standard deviation over tasks of the difference of the two agents' own means."""
    within_sd: float = 0.0
    """Without a run: the standard deviation of attempts at one task."""
    tasks: int | None = None
    """Number of tasks; by default those of the run."""
    epochs: tuple[str, ...] = ("1", "2", "4", "8")
    """Attempts per task to plan for."""
    confidence: str = "95%"
    """Confidence level of the comparison."""
    strata: str | None = None
    """Key of the tasks' metadata, or column of own data, whose groups are fixed, such as subject."""
    power: str = "80%"
    """Probability of detecting the effect if it is real."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        stated = self.disagreement is not None or self.between_sd is not None
        if (self.run is None) != stated:
            raise ConfigError("give a run to plan from, or --disagreement or --between-sd without one")
        if self.disagreement is not None and self.between_sd is not None:
            raise ConfigError("disagreement and between_sd do not go together: one follows from the other")
        if not all(0 <= sd <= LARGEST_EFFECT for sd in (self.between_sd or 0.0, self.within_sd)):
            raise ConfigError(
                f"between_sd {self.between_sd}, within_sd {self.within_sd}: give 0 or more, {LARGEST_EFFECT:g} at most"
            )
        if self.against is not None and self.agent is None:
            raise ConfigError(f"against is {self.against!r}: name with --agent the agent to compare with it")
        if self.tasks is not None and self.tasks < 1:
            raise ConfigError(f"tasks is {self.tasks}: give 1 or more")
        if share(self.effect, "effect") <= 0:
            raise ConfigError(f"effect is {self.effect!r}: give a difference above 0, such as 2%")
        check_effect(share(self.effect, "effect"))
        if not 0.5 < share(self.power, "power") < 1:
            raise ConfigError(f"power is {self.power!r}: give a share above 50% and below 100%, such as 80%")
        too_long = any(len(each) > 99 for each in self.epochs)  # int refuses thousands of digits
        if not self.epochs or not all(each.isdecimal() and (too_long or int(each) > 0) for each in self.epochs):
            raise ConfigError(f"epochs is {','.join(self.epochs)}: give whole numbers from 1 on, such as 1,2,4")
        if too_long or any(int(each) > MAX_EPOCHS for each in self.epochs):
            raise ConfigError(f"epochs has a number of more than {MAX_EPOCHS:,}: attempts per task, give smaller ones")
        confidence(self.confidence)


class PowerPlan(NamedTuple):
    """A design, and the number of tasks for it."""

    title: str
    design: Design
    tasks: int | None


def main(config: Config) -> int:
    """Print the plans."""
    refuse_unused(config)
    found = list(plans(config))
    if not found:
        raise ConfigError(f"{config.run} has no scores to plan from: name a run of `firsthand run`")
    if config.json:
        print_as_json([to_json(plan, config) for plan in found])
        return 0
    for plan in found:
        print_plan(plan, config)
    return 0


def refuse_unused(config: Config) -> None:
    """ConfigError for flags that have no effect on the plan that was asked for."""
    of_run = {"agent", "against", "benchmark", "score", "strata", "correlation"}
    if config.run is not None:
        refuse_given(config, {"within_sd"}, "a run tells it: leave it out")
        if config.against is not None:
            refuse_given(config, {"correlation"}, "--against measures it: leave out one of the two")
    else:
        refuse_given(config, of_run, "it is for a run: name one, or leave it out")
    if config.disagreement is not None:
        told = "two 0/1 scores that disagree are of one attempt per task: use --between-sd for several"
        refuse_given(config, {"within_sd", "epochs"}, told)


def plans(config: Config) -> Iterator[PowerPlan]:
    """The plan from stated variances, or one for each benchmark and agent of the run."""
    levels = {"confidence": confidence(config.confidence), "power": share(config.power, "power")}
    if config.run is not None:
        with store.open_run(config.run, data_home()) as run:
            yield from run_plans(config, run, levels)
    elif config.disagreement is not None:
        part = share(config.disagreement, "disagreement")
        if not 0 < part <= 1:
            raise ConfigError(f"disagreement is {config.disagreement!r}: give a share above 0, such as 15%")
        if part < share(config.effect, "effect"):
            raise ConfigError(
                f"disagreement is {config.disagreement} and effect {config.effect}: two 0/1 scores differ by no more than "
                "the share of tasks on which they disagree, so give a smaller effect or a larger disagreement"
            )
        yield PowerPlan(
            "two 0/1 scores", Design(part, None, part, f"disagreeing on {part:.1%}", **levels), config.tasks
        )
    else:
        assert config.between_sd is not None
        basis = f"sd {config.between_sd:g} between tasks, {config.within_sd:g} within"
        within = (config.within_sd**2, config.within_sd**2)
        yield PowerPlan("two agents", Design(config.between_sd**2, within, None, basis, **levels), config.tasks)


def run_plans(config: Config, run: Run, levels: dict[str, float]) -> Iterator[PowerPlan]:
    """The plans from a run's own scores. An attempt without a score counts as 0."""
    found = scores_of([run], score=config.score, error_value=0.0, reduce="mean")
    if config.benchmark is not None and config.benchmark not in found:
        raise unknown("benchmark", config.benchmark, found, see=f"firsthand show {run.id}")
    agents, clusters = {agent for each in found.values() for agent in each}, run.clusters(config.strata)
    for name in (config.agent, config.against):
        if name is not None and name not in agents:
            raise unknown("agent", name, agents, see=f"firsthand show {run.id}")
    for benchmark, by_agent in found.items():
        reducer = run.reducer(benchmark)
        mean = f"; of the mean of attempts, not of {reducer}" if epoch_reducer(reducer) else ""
        for agent, scores in by_agent.items():
            if benchmark != (config.benchmark or benchmark) or agent != (config.agent or agent):
                continue
            if config.against is None:
                design = from_one(scores, config.correlation, clusters.get(benchmark), **levels)
                yield PowerPlan(f"{benchmark}: another agent vs. {agent}{mean}", design, config.tasks or len(scores))
            elif config.against in by_agent:
                other = by_agent[config.against]
                tasks = config.tasks or len(scores.keys() & other.keys())
                design = from_pair(scores, other, clusters.get(benchmark), **levels)
                yield PowerPlan(f"{benchmark}: {agent} vs. {config.against}{mean}", design, tasks)


def print_plan(plan: PowerPlan, config: Config) -> None:
    """Print a row for each number of attempts per task."""
    effect = share(config.effect, "effect")
    rows = []
    for epochs in map(int, config.epochs):
        tasks, mde = plan.design.tasks(effect, epochs), plan.tasks and plan.design.effect(plan.tasks, epochs)
        if tasks is not None:
            rows.append([str(epochs), f"{tasks:,}", "-" if mde is None else f"{mde:.2%}"])
    known = f"min. detectable effect, {count_of(plan.tasks, 'task', ',')}" if plan.tasks else "min. detectable effect"
    print_table(plan.title, ["attempts per task", f"tasks for {effect:.2%}", known], rows)
    out = console()
    out.print(
        f"from {plan.design.basis}; {config.confidence} confidence, {config.power} power", markup=False, soft_wrap=True
    )
    if plan.design.disagreement is not None and plan.design.disagreement < effect:
        out.print(
            f"An effect of {effect:.2%} needs disagreement on {effect:.2%} of the tasks or more: it is planned with that.",
            soft_wrap=True,
            markup=False,
        )
    if plan.design.within is None:
        out.print(ONE_ATTEMPT, soft_wrap=True)
    elif plan.tasks:
        out.print(_attempts_in_words(plan, effect), soft_wrap=True)


def to_json(plan: PowerPlan, config: Config) -> Json:
    """The plan as a JSON object."""
    effect, design = share(config.effect, "effect"), plan.design
    return {
        "title": plan.title,
        "basis": design.basis,
        "effect": effect,
        "between": design.between,
        "within": design.within,
        "disagreement": design.disagreement,
        "design_effect": design.design_effect,
        "tasks": plan.tasks,
        "plans": [
            {
                "epochs": epochs,
                "tasks_needed": design.tasks(effect, epochs),
                "smallest_effect": design.effect(plan.tasks, epochs) if plan.tasks else None,
            }
            for epochs in map(int, config.epochs)
        ],
        "epochs_needed": design.epochs(effect, plan.tasks) if plan.tasks else None,
    }


def _attempts_in_words(plan: PowerPlan, effect: float) -> str:
    assert plan.tasks is not None
    needed = plan.design.epochs(effect, plan.tasks)
    tasks = f"On {count_of(plan.tasks, 'task', ',')}"
    if needed is None:
        return f"{tasks} no number of attempts detects {effect:.2%}: the tasks themselves vary too much."
    return f"{tasks} {count_of(needed, 'attempt')} per task detect{'s' if needed == 1 else ''} {effect:.2%}."
