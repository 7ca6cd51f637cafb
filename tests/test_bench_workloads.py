"""The workloads that `firsthand bench` runs, on a tiny real engine: what they count is what the engine did."""

import math
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import pytest
import torch

from engine_tiny import VOCAB, tiny_engine, tiny_model
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.outputs import Output
from firsthand.engine.core.sequence import Request
from firsthand.errors import ModelError
from firsthand.measure import agent_workloads as agents
from firsthand.measure import choice_workload, embedding_documents, workloads
from firsthand.measure.agent_workloads import agent_workloads, answers, likelihoods, tree_of_thoughts
from firsthand.measure.attention_bench import Shape, attention_workload, branches
from firsthand.measure.choice_workload import questions, score_all, scoring
from firsthand.measure.embedding_documents import documents
from firsthand.measure.workloads import (
    QUICK,
    KVWaste,
    ServingJob,
    WorkloadSizes,
    raise_errors,
    random_ids,
    rate,
    run,
    serving,
    serving_jobs,
    weights_read,
)
from firsthand.model import Sampling
from firsthand.nn.matrices import num_parameters

TINY = replace(QUICK, prefill=48, streams=(1, 4), long=160, short=32, prefix=64, branches=4, context=20)


def test_jobs_are_the_same_for_a_seed_and_have_the_same_shape_for_all() -> None:
    first, again, other = (serving_jobs(WorkloadSizes(), vocab=49_152, seed=seed) for seed in (1, 1, 2))
    assert first == again and list(first) == ["prefill 512", "decode 1", "decode 8", "decode 32", "32 chats"]
    for name, job in first.items():
        assert job.prompts != other[name].prompts
        assert [len(prompt) for prompt in job.prompts] == [len(prompt) for prompt in other[name].prompts]
        assert job.max_tokens == other[name].max_tokens
        assert all(0 < token < 49_152 for prompt in job.prompts for token in prompt)
    chats = first["32 chats"]
    assert all(50 <= len(prompt) <= 300 for prompt in chats.prompts) and len(chats.prompts) == 32
    assert all(64 <= new <= 128 for new in chats.max_tokens)
    assert chats.positions == sum(map(len, chats.prompts)) + sum(chats.max_tokens)


def test_a_run_counts_every_token_once() -> None:
    engine = tiny_engine(max_batch_tokens=72)
    job = ServingJob("", ((5, 6, 7), (8,) * 70, (9, 10)), (4, 6, 2))
    timing = run(engine, job)
    assert timing.output_tokens == 12 == engine.stats().decode_tokens + len(job.prompts)
    assert 0 < timing.first_s <= timing.total_s and 0 < timing.decode_tokens < 12
    assert engine.stats().prefill_tokens == 75


def test_decoding_is_timed_without_its_prompts() -> None:
    engine = tiny_engine()
    job = serving_jobs(TINY, vocab=VOCAB, seed=0)["decode 4"]
    assert rate(engine, job) > 0
    assert engine.stats().cached_tokens >= 4 * 16  # the second time, prompts come from the prefix tree


def test_every_workload_gives_a_value_for_each_figure_and_gives_its_memory_back() -> None:
    engine = tiny_engine(max_batch_tokens=128)
    known = serving(TINY, vocab=VOCAB) + agent_workloads(TINY, vocab=VOCAB, context=256)
    known += [attention_workload(TINY), scoring(TINY, vocab=VOCAB)]
    for workload in known:
        values = workload.measure(engine, 1)
        assert len(values) == len(workload.figures) and all(math.isfinite(value) for value in values), workload.name
        assert workload.longest <= 256
    names = [figure.name for workload in known for figure in workload.figures]
    assert len(set(names)) == len(names)
    assert engine.stats().used_blocks == 0
    engine.pool.check()


def test_a_shared_prefix_is_computed_once() -> None:
    engine = tiny_engine(max_batch_tokens=128)
    workload = next(w for w in agent_workloads(TINY, vocab=VOCAB, context=256) if w.name.startswith("shared prefix"))
    computed = dict(zip([f.name for f in workload.figures], workload.measure(engine, 0), strict=True))
    assert computed["shared prefix: prompt tokens computed"] == TINY.prefix + TINY.branches * TINY.suffix


def test_what_is_allocated_and_not_used_is_counted_after_each_step() -> None:
    engine = tiny_engine()
    waste = KVWaste()
    assert waste.percent == 0 and engine.pool.block_size == 16
    run(engine, ServingJob("", ((5,) * 20, tuple(range(8, 24))), (3, 3)), after_step=lambda: waste.look(engine))
    # after the first step 20 tokens lie in 2 blocks and 16 in 1, after the second 21 and 17 in 2 each; then both have ended
    assert (waste.used, waste.allocated) == (36 + 38, 48 + 64)
    assert waste.percent == pytest.approx(100 * (1 - 74 / 112))


def test_what_a_window_gave_back_is_neither_allocated_nor_used() -> None:
    engine = Engine(
        tiny_model(window=16, only_windows=True),
        EngineConfig(kv_memory_bytes=1 << 20, max_batch_tokens=32, max_sequences=8),
    )
    waste = KVWaste()
    engine.add(Request(tuple(range(5, 69)), Sampling(max_tokens=2)))
    while engine.has_work:
        waste.look(engine)
        engine.step()
    assert 0 < waste.used <= waste.allocated < 64 + 16


def test_choices_are_scored_as_one_by_one_and_share_their_examples() -> None:
    engine = tiny_engine(max_batch_tokens=128)
    asked = questions(TINY, vocab=VOCAB, seed=1)
    again = questions(TINY, vocab=VOCAB, seed=2)
    assert [len(prefix) for prefix, _ in asked] == [len(prefix) for prefix, _ in again] and asked != again
    found = score_all(engine, asked)
    prefix, choices = asked[3]
    assert found[3] == [sum(each.logprobs) for each in tiny_engine().score(prefix, choices)]
    own = sum(len(prefix) - TINY.examples + sum(len(choice) - 1 for choice in choices) for prefix, choices in asked)
    assert engine.stats().prefill_tokens == TINY.examples + own
    assert len(asked) == TINY.tasks and all(len(choices) == TINY.choices for _, choices in asked)


@pytest.mark.parametrize("shape", [Shape(6, 2, 16), Shape(4, 4, 32)])
def test_attention_that_is_timed_agrees_with_the_usual_way(shape: Shape) -> None:
    case = branches(shape, 1, torch.float32, count=4, shared=48, own=16)
    ours = case.ours()
    theirs = case.gather()()[:, :, 0]
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_documents_have_the_same_lengths_in_each_round() -> None:
    first, again, other = (documents(TINY, seed=seed) for seed in (1, 1, 2))
    lengths = [len(text.split()) for text in first]
    assert first == again != other and lengths == [len(text.split()) for text in other]
    assert len(first) == TINY.documents and TINY.words[0] <= min(lengths) < max(lengths) <= TINY.words[1]


def test_a_second_turn_computes_nothing_twice() -> None:
    workload = next(w for w in agent_workloads(TINY, vocab=VOCAB, context=256) if w.name.startswith("second turn"))
    assert [workload.measure(tiny_engine(), seed)[0] for seed in range(3)] == [0, 0, 0]


def test_a_tree_of_thoughts_is_the_same_each_time_and_is_counted_right() -> None:
    counts = []
    for _ in range(2):
        engine = tiny_engine(max_batch_tokens=128)
        alone = tree_of_thoughts(engine, TINY, vocab=VOCAB, seed=3)
        counts.append((alone, engine.stats().prefill_tokens, engine.stats().decode_tokens))
    assert counts[0] == counts[1]
    sizes, depth = TINY, TINY.problem
    expected, states = 0, 1
    for _ in range(sizes.steps):
        candidates = states * sizes.proposals
        expected += candidates * depth + candidates * (depth + sizes.thought + sizes.question)
        depth, states = depth + sizes.thought, sizes.breadth
    alone, computed, _ = counts[0]
    assert alone == expected
    candidates = sizes.proposals * (1 + (sizes.steps - 1) * sizes.breadth)
    assert sizes.problem + candidates * sizes.question <= computed < alone / 3


def test_answers_and_likelihoods_belong_to_their_prompts() -> None:
    prompts = [(5, 6, 7), (8, 9), (10, 11, 12, 13)]
    together = answers(tiny_engine(), [Request(prompt, Sampling(max_tokens=5)) for prompt in prompts])
    for prompt, found in zip(prompts, together, strict=True):
        [[(alone, logprob)]] = answers(tiny_engine(), [Request(prompt, Sampling(max_tokens=5))])
        assert found == [(alone, logprob)] and len(alone) == 5
    scores = likelihoods(tiny_engine(), prompts, (20,))
    assert scores == [tiny_engine().score(prompt, [[20]])[0].logprobs[0] for prompt in prompts]


def test_an_answer_that_fails_is_not_timed() -> None:
    with pytest.raises(ModelError, match="broken"):
        raise_errors([Output(0, 0, (), (), False, error=ModelError("broken"))])


@pytest.mark.parametrize("tied", [True, False])
def test_a_step_reads_all_weights_but_the_table_of_embeddings(tied: bool) -> None:
    model = tiny_model(tied=tied)
    a = model.architecture
    norms = a.hidden_size * (2 * a.num_layers + 1)
    table = 0 if tied else a.vocab_size * a.hidden_size
    expected = num_parameters(a) - norms - table
    for settings, each in ((EngineConfig(weights="float32"), 4), (EngineConfig(weights="float16"), 2)):
        engine = Engine(tiny_model(tied=tied), replace(settings, kv_memory_bytes=1 << 20))
        assert weights_read(engine) == (expected, each * expected)


def test_blockwise_weights_count_with_their_scales() -> None:
    engine = Engine(tiny_model(), EngineConfig(weights="int8", kv_memory_bytes=1 << 20))
    parameters, size_bytes = weights_read(engine)
    assert 8.5 / 8 * parameters == size_bytes


def clock(*seconds: float) -> SimpleNamespace:
    """A clock that shows these seconds, one after another; without any, one second more at each look."""
    return SimpleNamespace(perf_counter=(iter(seconds) if seconds else count()).__next__)


def test_a_prompt_is_timed_to_its_first_token_and_decoding_from_there_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workloads, "time", clock())  # so that a step takes one second
    jobs = serving_jobs(TINY, vocab=VOCAB, seed=0)
    assert rate(tiny_engine(max_batch_tokens=128), jobs["prefill 48"]) == TINY.prefill
    decode = jobs["decode 4"]
    assert decode.max_tokens == (TINY.new_tokens + 1,) * 4  # the first token comes with the prompt
    assert rate(tiny_engine(max_batch_tokens=128), decode) == 4


def test_prompts_are_made_of_ids_away_from_both_ends_of_the_vocabulary() -> None:
    found = random_ids(workloads.Random(0), 2_000, 80)
    assert (len(found), min(found), max(found)) == (2_000, 10, 69)


def test_choices_are_rated_by_question_and_say_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice_workload, "time", clock(10, 12))
    workload = scoring(TINY, vocab=VOCAB)
    asked = questions(TINY, vocab=VOCAB, seed=0)
    assert workload.measure(tiny_engine(max_batch_tokens=128), 0)[0] == TINY.tasks / 2
    pairs = [(prefix, choice) for prefix, choices in asked for choice in choices]
    computed = sum(len(prefix) + len(choice) - 1 for prefix, choice in pairs)  # nothing follows the last token
    assert workload.figures[1].meaning == f"{computed:,} if nothing were shared"
    own = sum(len(prefix) - TINY.examples + len(choice) for prefix, choice in pairs)
    assert workload.positions == TINY.examples + own
    assert workload.longest == max(len(prefix) + len(choice) for prefix, choice in pairs)


@pytest.mark.parametrize(("context", "long", "short"), [(256, 160, 32), (100, 87, 32), (30, 17, 17)])
def test_a_long_context_and_its_answer_fit_the_models(context: int, long: int, short: int) -> None:
    workload = agent_workloads(TINY, vocab=VOCAB, context=context)[0]
    assert [each.name for each in workload.figures] == [
        f"decode at {long} / at {short}", f"decode at {short}", f"decode at {long}"
    ]  # fmt: skip
    answer = TINY.new_tokens + 1
    assert (workload.longest, workload.positions) == (long + answer, long + answer + short + answer)


def test_branches_of_a_prefix_are_rated_with_and_without_their_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workloads, "time", clock())
    monkeypatch.setattr(agents, "time", clock(0, 20))
    workload = agent_workloads(TINY, vocab=VOCAB, context=256)[1]
    decoded, output, _ = workload.measure(tiny_engine(max_batch_tokens=128), 0)
    assert (decoded, output) == (TINY.branches, TINY.branches * (TINY.suffix + 1) / 20)
    alone = TINY.prefix + TINY.branches * (TINY.prefix + TINY.suffix)
    assert workload.figures[2].meaning == f"{alone} if nothing were shared"
    each = 2 * TINY.suffix + 1  # a branch's own tokens and its answer
    assert (workload.positions, workload.longest) == (TINY.prefix + TINY.branches * each, TINY.prefix + each)


def test_each_step_of_a_tree_of_thoughts_draws_anew_and_keeps_the_likeliest(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[Request]] = []

    def answer(engine: Engine, requests: list[Request]) -> list[list[tuple[tuple[int, ...], float]]]:
        asked.append(requests)
        return [[((10 * len(asked) + place,), 0.0) for place in range(request.n)] for request in requests]

    monkeypatch.setattr(agents, "answers", answer)
    values = {thought: -abs(thought - 12.0) for thought in range(100)}  # the thought 12 is the likeliest
    monkeypatch.setattr(agents, "likelihoods", lambda engine, prefixes, verdict: [
        values[prefix[TINY.problem]] for prefix in prefixes
    ])  # fmt: skip
    tree_of_thoughts(tiny_engine(), TINY, vocab=VOCAB, seed=7)
    assert [request.sampling.seed for requests in asked for request in requests] == [7, 8, 8]
    assert [request.prompt[-1] for request in asked[1]] == [12, 11]  # of equal ones the first


def test_texts_embedded_are_rated_by_text_and_by_all_their_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_documents, "time", clock(1, 5))
    embedder = SimpleNamespace(embed=lambda texts: SimpleNamespace(num_tokens=[3] * len(texts)))
    workload = embedding_documents.embedding(TINY)
    assert workload.measure(embedder, 0) == [TINY.documents / 4, 3 * TINY.documents / 4]
