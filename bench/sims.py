"""What search buys a model of stated errors, beside closed forms: `python bench/sims.py DATA` (sim).

`python bench/sims.py --coverage [NAME ...]` counts how often intervals hold the truth and gates err instead; see
`interval_coverage.py`.

The model is `providers/sim.py`, on the paper's 100 puzzles, ranks 901 to 1000, if DATA has them, else on generated ones.
Every figure is a share of attempts; two lines under each other are one setting measured and in theory.
"""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import interval_coverage
from interval_coverage import TABLES

from firsthand.agent import Agent, Pattern
from firsthand.benchmark import Benchmark
from firsthand.benchmarks.game24 import game24
from firsthand.context import Context
from firsthand.message import Message
from firsthand.model import Sampling
from firsthand.patterns.cot import cot
from firsthand.patterns.direct import direct
from firsthand.patterns.parts.feedback import Feedback
from firsthand.patterns.reflexion import reflexion
from firsthand.patterns.self_consistency import self_consistency
from firsthand.patterns.tot import tot
from firsthand.providers.scripted import Scripted
from firsthand.providers.sim import Errors, Sim, uniform
from firsthand.rollout import rollout
from firsthand.task import Task

SAMPLES = 21
COLUMNS: tuple[tuple[str, Pattern, dict[str, Any]], ...] = (
    ("IO", direct, {}),
    ("CoT", cot, {}),
    (f"SC-{SAMPLES}", self_consistency, {"samples": SAMPLES}),
    *((f"b={breadth}", tot, {"breadth": breadth}) for breadth in range(1, 6)),
)
TRIALS = (1, 2, 4, 8, 16)
VOTING = ((0.4, 5), (0.3, 3), (0.25, 3), (0.2, 3))


async def rate(benchmark: Benchmark, errors: Errors, pattern: Pattern, options: dict[str, Any], seeds: int) -> float:
    """The share of attempts whose answer is right; for a search, whose final states hold it."""
    agent = Agent("sim", Sim(errors), pattern, options)
    traces = [
        await rollout(agent, task, benchmark=benchmark, seed=seed)
        for seed in range(seeds)
        for task in benchmark.tasks(0)
    ]
    assert not [trace.error for trace in traces if trace.error]
    return sum(score.value for trace in traces for score in trace.scores if score.name == "any") / len(traces)


def majority(right: float, distractors: int, samples: int) -> float:
    """P(the right answer has the most votes), ties broken evenly: exact, distractor after distractor."""
    wrong = (1 - right) / distractors
    total = 0.0
    for votes in range(samples + 1):
        # (wrong votes so far, distractors with as many votes as the right answer) -> their weight; none may have more
        ways = {(0, 0): 1.0}
        for _ in range(distractors):
            longer: dict[tuple[int, int], float] = {}
            for (count, ties), weight in ways.items():
                for more in range(min(votes, samples - votes - count) + 1):
                    key = (count + more, ties + (more == votes))
                    longer[key] = longer.get(key, 0.0) + weight * wrong**more / math.factorial(more)
            ways = longer
        here = sum(weight / (ties + 1) for (count, ties), weight in ways.items() if count == samples - votes)
        total += math.factorial(samples) / math.factorial(votes) * right**votes * here
    return total


def kept(count: int, candidates: int, true: float, false: float) -> float:
    """P(the good one is among the `count` best), called sure with `true`, each other with `false`, ties at random."""
    total = 0.0
    for others in range(candidates):
        chance = math.comb(candidates - 1, others) * false**others * (1 - false) ** (candidates - 1 - others)
        if_sure = min(1, count / (others + 1))
        if_not = max(0, min(1, (count - others) / (candidates - others)))
        total += chance * (true * if_sure + (1 - true) * if_not)
    return total


def believer(beliefs: int, writes: float) -> Scripted:
    """A model that is right once the lessons on all its wrong beliefs are in sight. A reflection finds a missing lesson with
    probability `writes`, and is empty words otherwise."""

    def reply(messages: Sequence[Message], sampling: Sampling, index: int) -> str:
        text = messages[-1].text
        missing = [f"lesson {number}" for number in range(beliefs) if f"lesson {number}" not in text]
        if text.startswith("This problem was attempted"):
            return missing[0] if Random(sampling.seed).random() < writes else "I should try harder."
        return "wrong" if missing else "right"

    return Scripted(reply, name="scripted:believer", fingerprint=f"{beliefs} {writes}")


def believed(runs: int, *, beliefs: int, writes: float, trials: int = 8, false_positives: float = 0.0) -> float:
    """How often Reflexion with such a model ends right, where the evaluator passes a wrong answer that often."""

    async def evaluate(task: Task, ctx: Context, answer: str) -> Feedback:
        rng = Random(f"{ctx.attempt.seed} {len(ctx.attempt.events)}")
        return Feedback(answer == "right" or rng.random() < false_positives, "It failed.")

    options = {"pattern": direct, "trials": trials, "evaluate": evaluate}
    agent = Agent("sim", believer(beliefs, writes), reflexion, options)
    task = Task("1", "Open the lock.")
    answers = [asyncio.run(rollout(agent, task, seed=seed)).answer for seed in range(runs)]
    return answers.count("right") / runs


def corrected(writes: float, trials: int, false_positives: float) -> float:
    """P(one wrong belief is corrected within the trials, and no wrong answer passed before)."""
    survives = 1 - false_positives
    return sum(survives**trial * (1 - writes) ** (trial - 1) * writes for trial in range(1, trials))


def row(head: str, figures: Sequence[float | None]) -> str:
    """A line of the table."""
    return f"{head:12s}" + "".join(f"{'' if figure is None else f'{figure:.2f}':>7s}" for figure in figures)


def main(data: str, seeds: int, errors: Sequence[float]) -> None:
    """Print all tables."""
    benchmark = game24(data=data or "generated")
    print(f"game of 24, {benchmark.options['data']}, {seeds} seeds (sim)")
    print(f"{'error':12s}" + "".join(f"{name:>7s}" for name, _, _ in COLUMNS), flush=True)
    for setting in (*errors, None):
        profile = Errors() if setting is None else uniform(setting)
        measured = [asyncio.run(rate(benchmark, profile, pattern, options, seeds)) for _, pattern, options in COLUMNS]
        theory = [profile.direct, profile.cot, majority(profile.cot, profile.distractors, SAMPLES)]
        print(row("GPT-4's" if setting is None else f"{setting:g}", measured))
        print(row("  theory", theory), flush=True)
    print(
        f"\nself-consistency: share right by samples, {5 * seeds} seeds (sim), m wrong answers as likely as each other"
    )
    print(f"{'':12s}" + "".join(f"{samples:7d}" for samples in (1, 5, 11, 21, 41)))
    for right, distractors in VOTING:
        profile = replace(Errors(), cot=right, distractors=distractors)
        measured = [
            asyncio.run(rate(benchmark, profile, self_consistency, {"samples": samples}, 5 * seeds))
            for samples in (1, 5, 11, 21, 41)
        ]
        print(row(f"p={right} m={distractors}", measured))
        print(row("  theory", [majority(right, distractors, samples) for samples in (1, 5, 11, 21, 41)]), flush=True)
    print("\nReflexion with one wrong belief, a lesson in every second reflection (sim): share right by trials")
    print(f"{'':12s}" + "".join(f"{trials:7d}" for trials in TRIALS))
    for false_positives in (0.0, 0.16):
        shares = [
            believed(500 * seeds, beliefs=1, writes=0.5, trials=trials, false_positives=false_positives)
            for trials in TRIALS
        ]
        print(row(f"passes {false_positives:.0%}", shares))
        print(row("  theory", [corrected(0.5, trials, false_positives) for trials in TRIALS]), flush=True)
    print(row("4 beliefs", [believed(20, beliefs=4, writes=1.0, trials=trials) for trials in TRIALS]), "(memory of 3)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", default="", help="a folder with game24.csv")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--errors", type=float, nargs="*", default=(0.0, 0.05, 0.1, 0.2, 0.3, 0.4))
    parser.add_argument("--coverage", nargs="*", help=f"only intervals and gates: all tables, or {', '.join(TABLES)}")
    parser.add_argument(
        "--runs", type=int, default=2000, help="simulations of the tables of --coverage, or a share of them"
    )
    given = parser.parse_args()
    if given.coverage is not None:
        interval_coverage.main(given.coverage, given.runs)
        raise SystemExit(0)
    main(given.data, given.seeds, given.errors)
