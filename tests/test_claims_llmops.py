"""The claims about RAG and fine-tuning, and about serving: what is asked of their models, and the arithmetic after it."""

import time
from random import Random

from claims_planted import PLANTED
from firsthand.claims import fact_arms, fact_models, generated_tokens
from firsthand.claims.claim import POINTS, Measurement
from firsthand.claims.fact_arms import closed_book
from firsthand.claims.fact_language import changed, facts_of, people
from firsthand.claims.lab import Lab
from firsthand.claims.llmops import (
    batching_throughput,
    fine_tuning_specialises,
    fine_tuning_style,
    rag_cites,
    rag_is_fresh,
    rag_size_unlimited,
    rag_update_cost,
    when_to_use_which,
)


class Clock:
    """CPU seconds that go on by a quarter at each look, and by what is added."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 0.25
        return self.now


def test_reasons_are_told_by_their_own_judges_and_each_counts(tmp_path, monkeypatch):
    lab, labs = Lab(3, tmp_path), []
    reasons = {
        "docs change often: freshness": (rag_is_fresh, 1),
        "docs change often: cost to update": (rag_update_cost, 0),
        "need citations": (rag_cites, 2),
        "broad knowledge base": (rag_size_unlimited, 1),
        "consistent format": (fine_tuning_style, 0),
        "specialized domain": (fine_tuning_specialises, 1),
    }
    rows = []
    for reason, (claim, at) in reasons.items():
        given = Measurement(**PLANTED[claim.__name__.rpartition(".")[2]][at][0])
        monkeypatch.setattr(claim, "measure", lambda lab, given=given: labs.append(lab) or given)
        rows.append((reason, *claim.judge(given)))
    assert [POINTS[word] for _, word, _ in rows] == [0.5, 1.0, 0.0, 0.5, 1.0, 0.5]
    assert when_to_use_which.measure(lab) == Measurement(
        3.5,
        "reasons for the recommendation that hold here, one in part as half",
        n=6,
        columns=("reason", "verdict", "why"),
        rows=tuple(rows),
    )
    assert labs == [lab] * 6


def test_throughput_is_of_all_tokens_by_the_requests_that_are_sent_together(monkeypatch):
    clock, asked = Clock(), []

    def generated(model, prompts, tokens, **settings):
        asked.append((list(prompts), tokens, settings))
        clock.now += 0.25 + len(prompts) / 2
        return [tuple(range(tokens))] * len(prompts), 99

    monkeypatch.setattr(generated_tokens, "generated", generated)
    monkeypatch.setattr(batching_throughput, "WIDTHS", (1, 3, 5))
    with monkeypatch.context() as patched:
        patched.setattr(time, "process_time", clock)
        found = batching_throughput.measure(Lab(2))
    # A call takes a quarter and half a second a request; the clock's own quarter is counted once a width.
    times = [5 * 0.75 + 0.25, 2 * 0.25 + 5 / 2 + 0.25, 0.25 + 5 / 2 + 0.25]
    rates = [5 * 24 / each for each in times]
    assert found == Measurement(
        rates[2] / rates[0],
        "tokens per CPU second with 5 requests at a time over one at a time",
        columns=("requests at a time", "tokens per CPU second"),
        rows=(("1", rates[0]), ("3", rates[1]), ("5", rates[2])),
        curves={"our engine": [(1.0, rates[0]), (3.0, rates[1]), (5.0, rates[2])]},
        axes=("requests at a time", "tokens per CPU second"),
    )
    prompts = [tuple((17 * i + j) % 128 for j in range(24)) for i in range(5)]
    parts = [prompts[:1], *([each] for each in prompts), prompts[:3], prompts[3:], prompts]
    assert asked == [(part, 24 if at else 4, {}) for at, part in enumerate(parts)], "the first call only warms up"


def test_training_goes_on_in_pieces_until_19_of_20_are_right_or_the_most_steps(tmp_path, monkeypatch):
    """Thirty-two facts; after each piece of training so many are right: 16 and 31, then 32, then 30 for ever."""
    right, trainings, clock = iter((16, 31, 32, 30, 30, 30)), [], Clock()
    monkeypatch.setattr(rag_update_cost, "PEOPLE", 8)
    monkeypatch.setattr(rag_update_cost, "MOST_STEPS", 60)
    first = facts_of(people(8, 4), Random("cost-4"))
    model = {}

    def tuned(lab, samples, *, steps):
        assert (lab.seed, samples, steps) == (4, closed_book(first), 100)
        return model

    def train(trained, samples, *, steps, seed):
        assert trained is model
        model.update((each.prompt, each.answer) for each in samples)
        trainings.append((samples, steps, seed))
        clock.now += 5

    def answers(asked, prompts, words):
        known = next(right)
        return [asked[prompt] if at < known else "none ." for at, prompt in enumerate(prompts)]

    monkeypatch.setattr(fact_models, "tuned", tuned)
    monkeypatch.setattr(fact_models, "train", train)
    monkeypatch.setattr(fact_arms, "answers", answers)
    with monkeypatch.context() as patched:
        patched.setattr(time, "process_time", clock)
        found = rag_update_cost.measure(Lab(4, tmp_path))
    facts, wanted = first, []
    for repeat, pieces in enumerate((2, 1, 3)):
        facts = changed(facts, 0.125, Random(f"cost-4-{repeat}"))
        wanted += [(closed_book(facts), 20, 4 + 20 * piece) for piece in range(pieces)]
    assert trainings == wanted
    indexed = [row[1] for row in found.rows]
    assert found == rag_update_cost._measured(
        [
            ("1", indexed[0], 2 * 5.25, 40.0, 31 / 32),
            ("2", indexed[1], 5.25, 20.0, 1.0),
            ("3", indexed[2], 3 * 5.25, 60.0, 30 / 32),
        ]
    )
    assert all(0 < each < 5 for each in indexed), "the index's seconds are its own"


def test_the_ratio_of_costs_is_the_median_between_the_least_and_the_most():
    rows = [("1", 2.0, 14.0, 20.0, 0.96), ("2", 0.5, 1.0, 40.0, 0.97), ("3", 4.0, 12.0, 60.0, 0.9)]
    assert rag_update_cost._measured(rows) == Measurement(
        3.0,
        "CPU seconds of training over those of the index; the median of three changes, with the least and the most",
        2.0,
        7.0,
        3,
        columns=("change", "index, s", "training, s", "steps", "right after it"),
        rows=tuple(rows),
    )
