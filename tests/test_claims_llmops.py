"""The claims about RAG and fine-tuning, and about serving: what is asked of their models, and the arithmetic after it."""

import time
from random import Random

import torch

from claims_planted import PLANTED
from firsthand.claims import fact_arms, fact_models, generated_tokens
from firsthand.claims.claim import POINTS, Measurement
from firsthand.claims.fact_arms import closed_book
from firsthand.claims.fact_language import VALUES, changed, facts_of, people, question, sentence
from firsthand.claims.fact_models import Sample
from firsthand.claims.lab import Lab, paired
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
from firsthand.stats.intervals import proportion_interval


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


class Told:
    """A reader and its tuned copies: each answers as a table of what it was asked says, and notes it."""

    def __init__(self, monkeypatch, replies):
        self.replies, self.asked, self.trained = replies, [], []
        monkeypatch.setattr(fact_models, "reader", lambda lab: self.weights(f"reader {lab.seed}"))
        monkeypatch.setattr(fact_models, "tuned", self.tuned)
        monkeypatch.setattr(fact_arms, "answers", self.answers)

    def weights(self, name):
        return Weights(name)

    def tuned(self, lab, samples, *, steps):
        self.trained.append((list(samples), steps))
        return Weights(f"tuned {len(self.trained)}")

    def answers(self, model, prompts, words):
        self.asked.append((model, [" ".join(prompt.split()) for prompt in prompts], words))
        return [self.replies(len(self.asked) - 1, at) for at in range(len(prompts))]


class Weights(str):
    def parameters(self):
        return [torch.zeros(3, 5), torch.zeros(7)]


def sentences(facts, asked):
    return [sentence(*each, facts[each]) for each in asked]


def questions(asked):
    return [question(*each) for each in asked]


def test_a_specialist_is_trained_on_codes_and_the_reader_is_shown_three(tmp_path, monkeypatch):
    monkeypatch.setattr(fine_tuning_specialises, "PEOPLE", 3)
    monkeypatch.setattr(fine_tuning_specialises, "HELD", 2)
    codes = dict(zip(VALUES, Random("codes-6").sample(VALUES, len(VALUES)), strict=True))
    persons = people(5, 6)
    trained, held = facts_of(persons[:3], Random("task-6-0")), facts_of(persons[3:], Random("task-6-1"))
    asked = list(held)
    right = [codes[held[each]] for each in asked]
    plain = [held[each] for each in asked]
    wrong = next(value for value in VALUES if value not in {*right, *plain})
    counts = {0: (right, 3), 1: (right, 6), 2: (plain, 7), 3: (plain, 1)}
    told = Told(monkeypatch, lambda call, at: f"{counts[call][0][at]} ." if at < counts[call][1] else f"{wrong} .")
    gain = paired([1.0] * 6 + [0.0] * 2, [1.0] * 3 + [0.0] * 5)
    assert fine_tuning_specialises.measure(Lab(6, tmp_path)) == Measurement(
        gain.difference,
        "right codes, fine-tuned less shown by examples; both with the passage",
        gain.low,
        gain.high,
        8,
        columns=("arm", "the task", "the plain question"),
        rows=(("RAG, three examples", 3 / 8, 7 / 8), ("fine-tuned", 6 / 8, 1 / 8)),
    )
    samples = [Sample(f"so {sentence(*each, v)} {question(*each)}", f"{codes[v]} .") for each, v in trained.items()]
    assert told.trained == [(samples, 100)]
    shown = " ".join(f"{each.prompt} {each.answer}" for each in samples[:3])
    passages = [f"{one} {other}" for one, other in zip(sentences(held, asked), questions(asked), strict=True)]
    assert told.asked == [
        ("reader 6", [f"{shown} so {each}" for each in passages], 1), ("tuned 1", [f"so {each}" for each in passages], 1),
        ("reader 6", passages, 1), ("tuned 1", passages, 1),
    ]  # fmt: skip


def test_a_format_is_trained_or_shown_by_two_examples(tmp_path, monkeypatch):
    monkeypatch.setattr(fine_tuning_style, "PEOPLE", 2)
    persons = people(4, 7)
    trained, held = facts_of(persons[:2], Random("style-7-0")), facts_of(persons[2:], Random("style-7-1"))
    asked = list(held)
    formed, others = f"so {VALUES[3]} !", (f"so {VALUES[3]} .", "so so !", f"{VALUES[3]} ! so", "")
    told = Told(monkeypatch, lambda call, at: formed if at < (1, 3, 7)[call] else others[at % 4])
    gain = paired([1.0] * 7 + [0.0], [1.0] * 3 + [0.0] * 5)
    assert fine_tuning_style.measure(Lab(7, tmp_path)) == Measurement(
        gain.difference,
        "answers in the format, fine-tuned less RAG with two examples of it",
        gain.low,
        gain.high,
        8,
        columns=("arm", "in the format"),
        rows=(("RAG, no example", 1 / 8), ("RAG, two examples", 3 / 8), ("fine-tuned", 7 / 8)),
    )
    assert told.trained == [(closed_book(trained, "so {} !"), 100)]
    first = list(trained.items())[:2]
    shown = " ".join(f"{sentence(*each, v)} {question(*each)} so {v} !" for each, v in first)
    passages = [f"{one} {other}" for one, other in zip(sentences(held, asked), questions(asked), strict=True)]
    assert told.asked == [
        ("reader 7", passages, 3), ("reader 7", [f"{shown} {each}" for each in passages], 3),
        ("tuned 1", questions(asked), 3),
    ]  # fmt: skip


def test_a_sentence_is_quoted_if_it_stands_in_the_passage_of_its_question(tmp_path, monkeypatch):
    monkeypatch.setattr(rag_cites, "PEOPLE", 2)
    before = facts_of(people(2, 8), Random("cites-8"))
    now = changed(before, 0.5, Random("cites-change-8"))
    asked = list(now)
    told = Told(monkeypatch, lambda call, at: now[asked[at]] if at < (7, 2)[call] else "none")
    one, other = [1.0] * 7 + [0.0], [1.0] * 2 + [0.0] * 6
    gain = paired(one, other)
    assert rag_cites.measure(Lab(8, tmp_path)) == Measurement(
        gain.difference,
        "answers whose sentence stands in a document, RAG less the fine-tuned model with a search afterwards",
        gain.low,
        gain.high,
        8,
        columns=("arm", "right", "quotation resolves"),
        rows=(("RAG, the passage shown", 7 / 8, 7 / 8), ("fine-tuned, a search afterwards", 2 / 8, 2 / 8)),
    )
    assert told.trained == [(closed_book(before), 100)]
    passages = [f"{one} {other}" for one, other in zip(sentences(now, asked), questions(asked), strict=True)]
    assert told.asked == [("reader 8", passages, 1), ("tuned 1", questions(asked), 1)]


def test_changed_and_unchanged_facts_are_asked_of_four_arms(tmp_path, monkeypatch):
    monkeypatch.setattr(rag_is_fresh, "PEOPLE", 3)
    before = facts_of(people(3, 9), Random("fresh-9"))
    after = changed(before, 0.5, Random("change-9"))
    new, same = ([each for each in after if (after[each] != before[each]) == moved] for moved in (True, False))
    assert (len(new), len(same)) == (8, 4)
    counts = (0, 4, 7, 3, 2, 1, 8, 0)
    told = Told(monkeypatch, lambda call, at: (
        f"{after[(new, same)[call % 2][at]]} ." if at < counts[call] else "none ."
    ))  # fmt: skip
    gain = paired([1.0] * 7 + [0.0], [1.0] * 2 + [0.0] * 6)
    assert rag_is_fresh.measure(Lab(9, tmp_path)) == Measurement(
        gain.difference,
        "right answers on changed facts, RAG with its index updated less the fine-tuned model as it was",
        gain.low,
        gain.high,
        8,
        columns=("arm", "changed facts", "unchanged facts"),
        rows=(
            ("RAG, index not updated", 0.0, 1.0), ("RAG, index updated", 7 / 8, 3 / 4),
            ("fine-tuned, not trained again", 2 / 8, 1 / 4), ("fine-tuned again", 1.0, 0.0),
        ),
    )  # fmt: skip
    assert told.trained == [(closed_book(before), 100), (closed_book(after), 100)]

    def shown(facts, asked):
        return [f"{one} {other}" for one, other in zip(sentences(facts, asked), questions(asked), strict=True)]

    assert told.asked == [
        ("reader 9", shown(before, new), 1), ("reader 9", shown(before, same), 1), ("reader 9", shown(after, new), 1),
        ("reader 9", shown(after, same), 1), ("tuned 1", questions(new), 1), ("tuned 1", questions(same), 1),
        ("tuned 2", questions(new), 1), ("tuned 2", questions(same), 1),
    ]  # fmt: skip


def test_a_size_is_asked_for_so_many_facts_at_most(tmp_path, monkeypatch):
    monkeypatch.setattr(rag_size_unlimited, "PEOPLE", (1, 3))
    monkeypatch.setattr(rag_size_unlimited, "ASKED", 6)
    sizes = []
    for count in (1, 3):
        rng = Random(f"size-2-{count}")
        facts = facts_of(people(count, 2), rng)
        sizes.append((facts, rng.sample(list(facts), min(6, len(facts)))))
    counts = (4, 3, 5, 2)

    def reply(call, at):
        facts, asked = sizes[call // 2]
        return f"{facts[asked[at]]} ." if at < counts[call] else "none ."

    told = Told(monkeypatch, reply)
    assert rag_size_unlimited.measure(Lab(2, tmp_path)) == Measurement(
        1 / 3,
        "right answers of the fine-tuned model of 22 weights at 12 facts",
        *proportion_interval(2, 6),
        6,
        columns=("facts", "RAG", "fine-tuned"),
        rows=(("4", 1.0, 0.75), ("12", 5 / 6, 2 / 6)),
        curves={"RAG": [(4.0, 1.0), (12.0, 5 / 6)], "fine-tuned": [(4.0, 0.75), (12.0, 2 / 6)]},
        axes=("facts", "right answers"),
    )
    assert told.trained == [(closed_book(facts), 100) for facts, _ in sizes]
    assert [(model, len(prompts)) for model, prompts, _ in told.asked] == [
        ("reader 2", 4), ("tuned 1", 4), ("reader 2", 6), ("tuned 2", 6),
    ]  # fmt: skip
    assert told.asked[3][1] == questions(sizes[1][1])
