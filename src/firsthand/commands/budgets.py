"""What `firsthand run --equal-budget` does before it runs: measure what patterns cost, and turn their knobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from firsthand.benchmark import Benchmark
from firsthand.commands.lineup import make_agents, make_places
from firsthand.commands.results import budget_of
from firsthand.commands.run import Config, create_run, perform
from firsthand.experiment.equal_budget import equalise, free_knob
from firsthand.model import Model
from firsthand.system.terminal import console

CALIBRATION_TASKS = 8
"""Tasks of each benchmark on which the cost of patterns is measured."""


def equalised(config: Config, benchmarks: Sequence[Benchmark], model: Model) -> Config:
    """The config with each pattern's knob turned until an attempt costs the same, as measured in a run of its own."""
    budget = budget_of(config)
    if budget is not None and not any(free_knob(text) for text in config.pattern):
        return config
    few = replace(
        config, limit=min(config.limit or CALIBRATION_TASKS, CALIBRATION_TASKS), epochs=1, equal_budget=None, watch=False,
        name="calibration",
    )  # fmt: skip
    with create_run(few, benchmarks) as run:

        def measure(patterns: Sequence[str]) -> dict[str, float]:
            agents = make_agents(replace(few, pattern=tuple(patterns)), [model])
            places = make_places(few, agents, benchmarks)
            if perform(run, few, places):
                raise KeyboardInterrupt
            wanted = {place.id for place in places}
            costs: dict[str, list[int]] = {text: [] for text in patterns}
            for row in run.rows():
                if row.place in wanted:
                    costs[row.agent].append(row.tokens)
            return {text: fmean(tokens) for text, tokens in costs.items()}

        budget, fitted = equalise(config.pattern, budget, measure)
        if not config.json:
            chosen = "; ".join(f"{each.pattern}{'' if each.knob else ' as it is'}" for each in fitted)
            line = f"budget   {budget:,.0f} tokens an attempt, by {few.limit} tasks of each benchmark in {run.id}: {chosen}"
            console().print(line, soft_wrap=True, markup=False)
    return replace(config, pattern=tuple(each.pattern for each in fitted), equal_budget=str(round(budget)))
