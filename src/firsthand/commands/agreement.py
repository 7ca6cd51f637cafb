"""Print a judge's agreement with people, people's agreement with each other, and the judge's biases."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from firsthand.config import confidence
from firsthand.errors import ConfigError
from firsthand.runs import store
from firsthand.scorers.human_votes import judged_items
from firsthand.stats.intervals import Interval
from firsthand.stats.rater_agreement import Agreement, agreement
from firsthand.system.home import data_home
from firsthand.system.terminal import console, print_as_json, print_table

EXAMPLES = """
firsthand run judge_pandalm:sample=200 --model smollm2 --pattern judge
firsthand agreement last
firsthand agreement last --confidence 99% --json
"""

LEGEND = """\
with people: probability that the judge agrees with a random rater. decided: the same, ties left out.
kappa: Cohen's, with the majority. alpha: Krippendorff's, of the people alone and with the judge as one more rater.
first: probability that the judge prefers the answer shown first; 0.5 is no bias. length bias: how much more often the
longer answer wins with the judge than with people."""


@dataclass(frozen=True)
class Config:
    """The run to analyse."""

    run: str = field(default="last", metadata={"positional": True})
    """A run on a set of human votes, such as judge_pandalm: its id, the beginning of it, its folder, or last."""
    confidence: str = "95%"
    """Confidence level of the intervals."""
    json: bool = False
    """Print JSON for programs."""


def main(config: Config) -> int:
    """Print a table for each set of votes."""
    level = confidence(config.confidence)
    found: dict[tuple[str, str], tuple[Agreement, int]] = {}
    with store.open_run(config.run, data_home()) as run:
        tasks = run.tasks()
        sets = {benchmark for (benchmark, _), task in tasks.items() if "votes" in task.secret}
        for benchmark in dict.fromkeys(benchmark for benchmark, _ in tasks):
            for agent in run.agents() if benchmark in sets else ():
                items, missing = judged_items(tasks, run.traces(benchmark=benchmark, agent=agent))
                if items:
                    found[benchmark, agent] = agreement(items, level), missing
        if not found:
            raise ConfigError(
                f"run {run.id} holds no verdicts on answers that people have voted on: make one with "
                "`firsthand run judge_pandalm --pattern judge --model NAME`"
            )
    if config.json:
        body = [
            {"benchmark": benchmark, "agent": agent, "without_verdict": missing, **each.to_json()}
            for (benchmark, agent), (each, missing) in found.items()
        ]
        print_as_json(body)
        return 0
    for benchmark in dict.fromkeys(benchmark for benchmark, _ in found):
        columns = {agent: each for (name, agent), each in found.items() if name == benchmark}
        print_agreement(benchmark, columns, config.confidence)
    console().print(LEGEND, soft_wrap=True, markup=False)
    return 0


def print_agreement(benchmark: str, columns: dict[str, tuple[Agreement, int]], level: str) -> None:
    """Print a table with a column for each judge."""
    rows = [
        ["pairs, votes", *(f"{each.items}, {each.votes}" for each, _ in columns.values())],
        ["without a verdict", *(str(missing) for _, missing in columns.values())],
        *(
            [label, *(_shown(getattr(each, name)) for each, _ in columns.values())]
            for label, name in (
                ("with people", "with_humans"),
                ("people with people", "among_humans"),
                ("decided", "decided"),
                ("kappa", "kappa"),
                ("kappa of people (Fleiss)", "kappa_humans"),
                ("alpha of people", "alpha_humans"),
                ("alpha with the judge", "alpha_with_judge"),
                ("first", "first"),
                ("same in both orders", "consistent"),
                ("longer wins: judge", "longer_judge"),
                ("longer wins: people", "longer_humans"),
                ("length bias", "length_bias"),
            )
        ),
    ]
    print_table(f"{benchmark} ({level} CI, cluster bootstrap)", ["", *columns], rows)


def _shown(value: Interval | float | None) -> str:
    if value is None:
        return "-"
    number = value.value if isinstance(value, Interval) else value
    if math.isnan(number):
        return "undefined"
    if isinstance(value, Interval):
        return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"
    return f"{value:.3f}"
