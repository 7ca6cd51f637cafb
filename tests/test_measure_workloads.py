"""Each workload's figures by hand: a clock whose n-th reading is n squared, a tiny engine, and sizes that all differ."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine_tiny import VOCAB, tiny_engine
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.sequence import Request
from firsthand.kernels.attention.paged_attention import Pages
from firsthand.measure import (
    agent_workloads,
    attention_bench,
    choice_workload,
    embedding_documents,
    machine_speeds,
    workloads,
)
from firsthand.measure.agent_workloads import answers, likelihoods
from firsthand.measure.attention_bench import BLOCK, Case, Shape, alone, branches, prompt
from firsthand.measure.choice_workload import questions, score_all
from firsthand.measure.workloads import (
    QUICK,
    KVWaste,
    Metric,
    ServingJob,
    Timing,
    Workload,
    WorkloadSizes,
    random_ids,
    rate,
    run,
    serving,
    serving_jobs,
)
from firsthand.model import Sampling

SIZES = WorkloadSizes(
    prefill=40,
    context=20,
    new_tokens=5,
    streams=(1, 3),
    chats=4,
    chat_prompt=(6, 9),
    chat_answer=(3, 5),
    short=17,
    long=70,
    prefix=33,
    branches=3,
    suffix=7,
    turn=21,
    answer=6,
    next_turn=11,
    breadth=2,
    steps=3,
    proposals=4,
    problem=19,
    thought=5,
    question=8,
    examples=50,
    tasks=3,
    question_tokens=(5, 8),
    choices=2,
    choice_tokens=(2, 4),
    documents=6,
    words=(3, 9),
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """All workloads read 1, 4, 9 ... seconds; a call begins anew."""
    readings = itertools.count(1)

    def again() -> None:
        nonlocal readings
        readings = itertools.count(1)

    fake = SimpleNamespace(perf_counter=lambda: float(next(readings) ** 2))
    for module in (agent_workloads, choice_workload, embedding_documents, machine_speeds, workloads):
        monkeypatch.setattr(module, "time", fake)
    return again


def used_engine() -> Engine:
    """An engine that has computed other prompts before."""
    engine = tiny_engine()
    engine.add(Request((95,) * 9, Sampling(max_tokens=2)))
    while engine.has_work:
        engine.step()
    return engine


def figures(workload: Workload[Any]) -> list[tuple[str, str, str]]:
    return [(each.name, each.unit, each.meaning) for each in workload.figures]


def test_a_run_is_timed_from_its_start_to_the_first_tokens_of_all_and_to_its_end(clock: Callable[[], None]) -> None:
    looked: list[int] = []
    job = ServingJob("", ((5, 6, 7), (8,) * 70, (9, 10)), (4, 6, 2))
    engine = tiny_engine(max_batch_tokens=72)
    # the first step computes 3 + 69 tokens; the second the last of the long prompt and the third one, and decodes the first
    timing = run(engine, job, after_step=lambda: looked.append(1))
    assert timing == Timing(9 - 1, 64 - 1, 12, 12 - 4) and timing.decode_s == 64 - 9 and len(looked) == 7
    assert job.positions == 75 + 12 and job.longest == 76
    assert ServingJob("", ((1, 2), (3,)), (2, 4)).longest == 5
    assert job.to_json() == {"name": "", "prompts": [[5, 6, 7], [8] * 70, [9, 10]], "max_tokens": [4, 6, 2]}
    clock()
    assert run(engine, ServingJob("", (), ())) == Timing(0, 0, 0, 0)


def test_the_rate_of_a_job_is_that_of_its_kind(clock: Callable[[], None]) -> None:
    jobs = serving_jobs(SIZES, vocab=VOCAB, seed=3)
    assert list(jobs) == ["prefill 40", "decode 1", "decode 3", "4 chats"]
    assert [job.max_tokens for job in jobs.values()][:3] == [(2,), (6,), (6, 6, 6)]
    assert [len(each) for each in jobs["decode 3"].prompts] == [20] * 3 and len(jobs["prefill 40"].prompts[0]) == 40
    assert rate(tiny_engine(), jobs["prefill 40"]) == 40 / (4 - 1)
    clock()
    # readings 1 and 2 belong to the prompts, 3 to the start, 4 to the first tokens, 9 to the end
    assert rate(tiny_engine(), jobs["decode 3"]) == 3 * 5 / (81 - 16)
    clock()
    chats = jobs["4 chats"]
    steps = max(chats.max_tokens)
    assert rate(tiny_engine(), chats) == sum(chats.max_tokens) / ((steps + 1) ** 2 - 1)
    clock()
    looked: list[int] = []
    rate(tiny_engine(), jobs["decode 1"], after_step=lambda: looked.append(1))
    assert len(looked) == 6  # the prompts' own step is not looked at


def test_serving_jobs_draw_ids_by_the_seed_and_lengths_by_none() -> None:
    ids = random_ids(Random("x"), 2000, 80)
    assert (min(ids), max(ids)) == (10, 69) and ids[:3] == random_ids(Random("x"), 3, 80)
    lengths = Random("lengths of chats")
    shapes = [(lengths.randint(6, 9), lengths.randint(3, 5)) for _ in range(4)]
    random = Random("serving 7")
    drawn = [random_ids(random, count, VOCAB) for count in (40, 20, 20, 20, 20, *(length for length, _ in shapes))]
    jobs = serving_jobs(SIZES, vocab=VOCAB, seed=7)
    assert [each for job in jobs.values() for each in job.prompts] == drawn
    assert jobs["4 chats"].max_tokens == tuple(new for _, new in shapes)


def test_serving_workloads_say_what_they_are_and_what_they_need(clock: Callable[[], None]) -> None:
    prefill, one, three, chats = serving(SIZES, vocab=VOCAB)
    assert figures(prefill) == [
        ("prefill 40", "tokens/s", "a prompt of 40 tokens, until the first token of its answer")
    ]
    said = "{} at a time, each after 20 tokens, which are not in the time"
    assert figures(one) == [("decode 1", "tokens/s", said.format(1))]
    assert figures(three) == [("decode 3", "tokens/s", said.format(3))]
    assert figures(chats) == [
        (
            "4 chats",
            "tokens/s",
            "answers of 3-5 tokens to prompts of 6-9, all arriving at once, prompts included in the time",
        ),
        ("4 chats: KV waste", "%", "KV cache that is allocated and not used, at the ends of all steps"),
    ]
    job = serving_jobs(SIZES, vocab=VOCAB, seed=0)["4 chats"]
    assert [(each.positions, each.longest) for each in (prefill, one, three)] == [(42, 42), (26, 26), (78, 26)]
    assert (chats.positions, chats.longest, chats.name) == (job.positions, job.longest, "4 chats")
    assert not any(each.needs_kernels for each in (prefill, chats))
    assert prefill.measure(tiny_engine(), 5) == [40 / 3]
    clock()
    warm = tiny_engine()
    rounds = [prefill.measure(warm, seed) for seed in (5, 6)]
    assert warm.stats().prefill_tokens == 80  # prompts of their own: no round finds those of another in the cache
    assert len(rounds) == 2
    clock()
    engine, waste = tiny_engine(), KVWaste()
    seeded = serving_jobs(SIZES, vocab=VOCAB, seed=5)["4 chats"]
    expected = rate(engine, seeded, after_step=lambda: waste.look(engine))
    clock()
    assert chats.measure(tiny_engine(), 5) == [expected, waste.percent] and 0 < waste.percent < 100


def test_each_round_of_a_serving_workload_has_prompts_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []

    def noted(engine: Engine, job: ServingJob, **more: Any) -> float:
        sent.append(job.prompts)
        return 1.0

    monkeypatch.setattr(workloads, "rate", noted)
    for each in serving(SIZES, vocab=VOCAB):
        sent.clear()
        for seed in (1, 2):
            each.measure(tiny_engine(), seed)
        assert sent == [serving_jobs(SIZES, vocab=VOCAB, seed=seed)[each.name].prompts for seed in (1, 2)]
        assert sent[0] != sent[1]


def test_a_token_after_a_long_context_is_compared_with_one_after_a_short_one(clock: Callable[[], None]) -> None:
    long, shared, turn, tree = agent_workloads.agent_workloads(SIZES, vocab=VOCAB, context=256)
    assert figures(long) == [
        ("decode at 70 / at 17", "x", "cost of a token after the long context against the short one"),
        ("decode at 17", "ms/token", "one answer at a time"),
        ("decode at 70", "ms/token", "one answer at a time"),
    ]
    # new_tokens + 1 steps each: readings 1 to 7, and 8 to 14
    short_ms, long_ms = 1000 * (49 - 4) / 5, 1000 * (196 - 81) / 5
    assert long.measure(tiny_engine(), 0) == [long_ms / short_ms, short_ms, long_ms]
    assert (long.positions, long.longest) == (70 + 6 + 17 + 6, 76)
    for context, names in ((60, "decode at 54 / at 17"), (20, "decode at 14 / at 14"), (76, "decode at 70 / at 17")):
        assert agent_workloads.agent_workloads(SIZES, vocab=VOCAB, context=context)[0].name == names
    assert [each.name for each in (shared, turn, tree)] == [
        "shared prefix: decode",
        "second turn: old tokens computed again",
        "tree of thoughts: saved",
    ]


def test_branches_of_a_prefix_are_timed_with_and_without_it(clock: Callable[[], None]) -> None:
    _, shared, _, _ = agent_workloads.agent_workloads(SIZES, vocab=VOCAB, context=256)
    # readings: 1 start, 2 and 3 the prefix, 4 the start of the branches, 5 to 12 their 8 steps, 13 the end
    assert shared.measure(used_engine(), 2) == [3 * 7 / (144 - 25), 3 * 8 / (169 - 1), 33 + 3 * 7]
    assert figures(shared) == [
        ("shared prefix: decode", "tokens/s", "3 answers at a time, each after 33 shared tokens and 7 of its own"),
        ("shared prefix: output", "tokens/s", "the same, with the prompts in the time"),
        ("shared prefix: prompt tokens computed", "tokens", f"{33 + 3 * 40} if nothing were shared"),
    ]
    assert (shared.positions, shared.longest) == (33 + 3 * (7 + 8), 33 + 7 + 8)


def test_a_second_turn_is_its_old_tokens_and_the_new_ones(clock: Callable[[], None]) -> None:
    turn = agent_workloads.agent_workloads(SIZES, vocab=VOCAB, context=256)[2]
    engine = used_engine()
    assert turn.measure(engine, 4) == [0, 1000 * (4 - 1)]
    assert engine.stats().prefill_tokens == 9 + 21 + 12 and engine.stats().decode_tokens == 1 + 5 + 1
    assert figures(turn) == [
        ("second turn: old tokens computed again", "tokens", "of 38 in its prompt, 11 are new"),
        ("second turn: time to first token", "ms", "nothing else being served"),
    ]
    assert (turn.positions, turn.longest) == (40, 40)


class Recorded:
    """An engine, and what it was asked for."""

    def __init__(self) -> None:
        self.engine, self.requests, self.scored = used_engine(), list[Request](), list[Any]()

    def add(self, request: Request) -> int:
        self.requests.append(request)
        return self.engine.add(request)

    def add_score(self, prefix: Any, choices: Any) -> int:
        self.scored.append((prefix, choices))
        return self.engine.add_score(prefix, choices)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


def test_a_tree_of_thoughts_goes_on_from_the_likeliest_thoughts(clock: Callable[[], None]) -> None:
    tree = agent_workloads.agent_workloads(SIZES, vocab=VOCAB, context=256)[3]
    engine: Any = Recorded()
    saved, computed, alone_tokens, seconds = tree.measure(engine, 3)
    # proposals: 1, 2 and 2 states of 19, 24 and 29 tokens; each thought is valued after a question of 8
    expected = 4 * (19 + (24 + 8)) + 8 * (24 + (29 + 8)) + 8 * (29 + (34 + 8))
    assert (alone_tokens, computed) == (expected, engine.engine.stats().prefill_tokens - 9)
    assert saved == expected / computed and seconds == 4 - 1
    random = Random("tree 3")
    question, verdict, problem = (random_ids(random, count, VOCAB) for count in (8, 1, 19))
    states = [problem]
    for step, (begin, count) in enumerate(((0, 1), (1, 2), (3, 2))):
        asked = engine.requests[begin : begin + count]
        assert [each.prompt for each in asked] == states
        assert all(each.sampling == Sampling(max_tokens=5, temperature=0.8, seed=3 + step) for each in asked)
        assert [each.n for each in asked] == [4] * count
        found = answers(tiny_engine(max_batch_tokens=256), asked)
        thoughts = [state + ids for state, group in zip(states, found, strict=True) for ids, _ in group]
        values = likelihoods(tiny_engine(max_batch_tokens=256), [each + question for each in thoughts], verdict)
        ranked = sorted(zip(values, thoughts, strict=True), key=lambda pair: -pair[0])
        states = [thought for _, thought in ranked[:2]]
    assert all(choices == [verdict] and prefix[-8:] == question for prefix, choices in engine.scored)
    assert figures(tree) == [
        (
            "tree of thoughts: saved",
            "x",
            "prompt tokens of a server without forks against ours; b=2, 3 steps, 4 proposals a state, each valued",
        ),
        ("tree of thoughts: prompt tokens computed", "tokens", "counted by the engine"),
        ("tree of thoughts: without forks", "tokens", "if each proposal and each value computed its whole prompt"),
        ("tree of thoughts: time", "s", "of the whole search"),
    ]
    depth = 19 + 3 * 5 + 8 + 1
    assert (tree.positions, tree.longest) == (19 + 8 * (depth - 19), depth)


def test_choices_are_counted_as_tasks_and_their_tokens_once(clock: Callable[[], None]) -> None:
    workload = choice_workload.scoring(SIZES, vocab=VOCAB)
    random, lengths = Random("questions 2"), Random("lengths of questions")
    examples = random_ids(random, 50, VOCAB)
    drawn = []
    for _ in range(3):
        question = random_ids(random, lengths.randint(5, 8), VOCAB)
        drawn.append((examples + question, tuple(random_ids(random, lengths.randint(2, 4), VOCAB) for _ in range(2))))
    assert questions(SIZES, vocab=VOCAB, seed=2) == drawn
    own = sum(len(prefix) - 50 + sum(len(each) - 1 for each in choices) for prefix, choices in drawn)
    assert workload.measure(used_engine(), 2) == [3 / (4 - 1), 50 + own]
    apart = [(len(prefix), len(each)) for prefix, choices in drawn for each in choices]
    assert figures(workload) == [
        (
            "5-shot choices",
            "tasks/s",
            "3 questions of 5-8 tokens after 50 shared ones, 2 choices scored for each",
        ),
        (
            "5-shot choices: prompt tokens computed",
            "tokens",
            f"{sum(prefix + each - 1 for prefix, each in apart):,} if nothing were shared",
        ),
    ]
    assert workload.positions == 50 + sum(prefix - 50 + each for prefix, each in apart)
    assert workload.longest == max(prefix + each for prefix, each in apart)
    scores = score_all(tiny_engine(), drawn)
    for (prefix, choices), found in zip(drawn, scores, strict=True):
        assert found == pytest.approx([sum(each.logprobs) for each in tiny_engine().score(prefix, choices)])


def test_documents_are_common_words_and_count_as_texts_and_tokens(clock: Callable[[], None]) -> None:
    texts: list[str] = []

    def embed(given: list[str]) -> SimpleNamespace:
        texts.extend(given)
        return SimpleNamespace(num_tokens=[len(each.split()) + 2 for each in given])

    workload = embedding_documents.embedding(SIZES)
    model: Any = SimpleNamespace(embed=embed)
    lengths, random = Random("lengths of documents"), Random("documents 5")
    words = embedding_documents._COMMON.split()
    assert workload.measure(model, 5) == [6 / 3, sum(len(each.split()) + 2 for each in texts) / 3]
    assert texts == [" ".join(random.choices(words, k=lengths.randint(3, 9))) for _ in range(6)]
    assert figures(workload) == [
        ("embeddings", "texts/s", "6 documents of 3-9 words, tokenised in the time"),
        ("embeddings: tokens", "tokens/s", "the same, in tokens"),
    ]
    assert (workload.positions, workload.longest) == (0, 0)


def usual(case: Case, place: int) -> torch.Tensor:
    """Attention of one sequence's new rows over its pages, by softmax."""
    table, (start, end) = case.tables[place], case.spans[place]
    first = sum(each_end - each_start for each_start, each_end in case.spans[:place])
    rows = slice(first, first + end - start)
    keys, values = (
        pages[table].transpose(0, 1).flatten(1, 2)[:, :end]
        for pages in (case.pages.keys.transpose(2, 3), case.pages.values)
    )
    group = case.shape.heads // case.shape.kv_heads
    keys, values = keys.repeat_interleave(group, 0), values.repeat_interleave(group, 0)
    scores = torch.einsum("qhd,hkd->hqk", case.q[rows], keys) * case.shape.dim**-0.5
    hidden = torch.arange(end)[None] > torch.arange(start, end)[:, None]
    return torch.einsum("hqk,hkd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), values)


def test_attention_that_is_timed_is_attention_over_the_pages_of_each_sequence() -> None:
    shape = Shape(6, 2, 16)
    assert shape.scale == 0.25 and BLOCK == 16
    unequal = Case(shape, [[0, 1, 2], [3, 1], [4]], [(33, 34), (20, 21), (7, 8)], torch.float32, 1)
    for case in (unequal, prompt(shape, 1, torch.float32, 32)):
        ours = case.ours()
        expected = torch.cat([usual(case, place) for place in range(len(case.spans))])
        assert torch.allclose(ours, expected, atol=1e-5) and ours.shape == case.q.shape
    assert torch.allclose(unequal.gather()()[:, :, 0], unequal.ours(), atol=1e-5)
    assert unequal.operations == 4 * (34 + 21 + 8) * 6 * 16
    whole = prompt(shape, 1, torch.float32, 32)
    assert whole.operations == 4 * sum(range(1, 33)) * 6 * 16 and whole.spans == [(0, 32)] and len(whole.tables[0]) == 2
    apart, forked = alone(shape, 1, torch.float32, 3, 48), branches(shape, 1, torch.float32, 3, 32, 16)
    assert apart.spans == [(47, 48)] * 3 and forked.spans == [(47, 48)] * 3
    assert sorted(block for table in apart.tables for block in table) == list(range(9))
    assert len({*map(tuple, apart.tables)}) == 3 and {len(table) for table in apart.tables + forked.tables} == {3}
    assert len({tuple(table[:2]) for table in forked.tables}) == 1
    assert {block for table in forked.tables for block in table} == set(range(5))


def test_what_no_sequence_has_written_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = Pages.empty

    def poisoned(*sizes: Any) -> Pages:
        made = empty(*sizes)
        for each in (made.keys, made.values):
            each.fill_(torch.nan)  # as memory may be that nobody wrote
        return made

    monkeypatch.setattr(Pages, "empty", poisoned)
    case = Case(Shape(2, 1, 4), [[0, 2]], [(18, 19)], torch.float32, 1)
    for each in (case.pages.keys, case.pages.values):
        assert not each.isnan().any() and int((each != 0).sum()) == 18 * 4, "one head of 4 numbers at 18 positions"


def test_contiguous_attention_is_causal_for_a_prompt_and_padded_to_the_longest() -> None:
    shape = Shape(6, 2, 16)
    for case in (prompt(shape, 1, torch.float32, 32), Case(shape, [[0, 1], [2]], [(20, 21), (8, 9)], torch.float32, 1)):
        count, longest = len(case.spans), max(end for _, end in case.spans)
        new = len(case.q) // count
        torch.manual_seed(1)
        call = case.contiguous()
        torch.manual_seed(1)
        k, v = (torch.randn(count, 2, longest, 16).repeat_interleave(3, 1) for _ in range(2))
        q = case.q.reshape(count, new, 6, 16).transpose(1, 2)
        scores = q @ k.transpose(2, 3) / 4
        if new > 1:
            scores = scores.masked_fill(torch.ones(new, longest).triu(1) > 0, -torch.inf)
        assert torch.allclose(call(), scores.softmax(-1) @ v, atol=1e-5)


def test_attention_saved_is_their_best_time_by_ours(clock: Callable[[], None]) -> None:
    workload = attention_bench.attention_workload(replace(SIZES, prefix=33, suffix=16))
    # a call takes 4-1, 16-9 and 36-25 seconds of ours, then 64-49 and more of theirs
    assert workload.measure(tiny_engine(), 0) == [15 / 3, 3000]
    assert figures(workload) == [
        (
            "shared prefix: attention saved",
            "x",
            "3 branches after 48 shared tokens, one layer: gathering pages and SDPA against ours",
        ),
        ("shared prefix: attention", "ms", "ours, of one layer in float32 and one step"),
    ]
    assert (workload.positions, workload.longest, workload.needs_kernels) == (0, 0, True)


def test_a_quick_run_is_smaller_in_every_size() -> None:
    whole = WorkloadSizes()
    smaller = [name for name, value in vars(QUICK).items() if value != getattr(whole, name)]
    assert set(vars(whole)) - set(smaller) == {"streams", "choices", "choice_tokens"}
    assert all(getattr(QUICK, name) < getattr(whole, name) for name in smaller)
    assert Workload((Metric("a", "", ""), Metric("b", "", "")), 0, 0, lambda *_: ()).name == "a"
