"""Multiple-choice workload: few-shot examples shared by all questions, and choices scored after each.

Prefixes and choices are random token ids with the lengths of five-shot ARC-Easy. All questions are queued at once, as
an evaluation does. Not included: tokenisation and accuracy.
"""

from __future__ import annotations

import time
from random import Random

from firsthand.engine.core.engine import Engine
from firsthand.measure.workloads import Ids, Metric, Workload, WorkloadSizes, raise_errors, random_ids

Question = tuple[Ids, tuple[Ids, ...]]
"""The prefix, and the choices."""


def scoring(sizes: WorkloadSizes, *, vocab: int) -> Workload[Engine]:
    """Multiple choice after shared examples, for a model with this vocabulary size."""

    def measure(engine: Engine, seed: int) -> list[float]:
        items = questions(sizes, vocab=vocab, seed=seed)
        before = engine.stats().prefill_tokens
        started = time.perf_counter()
        score_all(engine, items)
        seconds = time.perf_counter() - started
        return [len(items) / seconds, engine.stats().prefill_tokens - before]

    # lengths are the same whatever the seed
    shape = questions(sizes, vocab=vocab, seed=0)
    alone = sum(len(prefix) + len(choice) - 1 for prefix, choices in shape for choice in choices)
    shortest, longest_question = sizes.question_tokens
    figures = (
        Metric(
            "5-shot choices",
            "tasks/s",
            f"{sizes.tasks} questions of {shortest}-{longest_question} tokens after {sizes.examples} shared ones, "
            f"{sizes.choices} choices scored for each",
        ),
        Metric("5-shot choices: prompt tokens computed", "tokens", f"{alone:,} if nothing were shared"),
    )
    positions = sizes.examples + sum(
        len(prefix) - sizes.examples + len(choice) for prefix, choices in shape for choice in choices
    )
    longest = max(len(prefix) + len(choice) for prefix, choices in shape for choice in choices)
    return Workload(figures, positions, longest, measure)


def questions(sizes: WorkloadSizes, *, vocab: int, seed: int) -> list[Question]:
    """Returns the questions of a round: ids depend on the seed, lengths do not."""
    random, lengths = Random(f"questions {seed}"), Random("lengths of questions")
    examples = random_ids(random, sizes.examples, vocab)
    found = []
    for _ in range(sizes.tasks):
        question = random_ids(random, lengths.randint(*sizes.question_tokens), vocab)
        choices = tuple(random_ids(random, lengths.randint(*sizes.choice_tokens), vocab) for _ in range(sizes.choices))
        found.append((examples + question, choices))
    return found


def score_all(engine: Engine, items: list[Question]) -> list[list[float]]:
    """Returns the log-prob of each choice of each question. Steps until all are done."""
    places = {engine.add_score(prefix, choices): place for place, (prefix, choices) in enumerate(items)}
    found = [[0.0] * len(choices) for _, choices in items]
    while engine.has_work:
        for output in raise_errors(engine.step()):
            found[places[output.request_id]][output.index] = sum(output.logprobs)
    return found
