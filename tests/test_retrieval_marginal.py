"""RAG-Token and RAG-Sequence equal brute-force enumeration over all answers, and plain decoding with one document."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine_tiny import plain_logprobs, tiny_model
from firsthand.agent import Agent
from firsthand.context import Context
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.engine_thread import EngineWorker
from firsthand.errors import ConfigError, PromptTooLong
from firsthand.loop.budget import Limits
from firsthand.loop.journal import MemoryJournal
from firsthand.message import assistant, user
from firsthand.model import Completion, Usage
from firsthand.providers.local import Local
from firsthand.providers.scripted import Scripted
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.corpus import close_corpora
from firsthand.retrieval.document import Document
from firsthand.retrieval.marginal.beam_search import Floats, beam_search, top_tokens
from firsthand.retrieval.marginal.document_prior import document_logprobs, log_sum
from firsthand.retrieval.marginal.marginal_answer import MarginalSettings, decode_marginal
from firsthand.retrieval.marginal.marginal_decoding import mixture, rag_sequence_decoding, rag_token_decoding
from firsthand.retrieval.rag.rag_sequence import rag_sequence
from firsthand.retrieval.rag.rag_token import rag_token
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.rollout import rollout
from firsthand.sampling import Sampling
from firsthand.task import Task
from firsthand.trace import Trace
from tiny import write_model

VOCAB, LENGTH, END = 7, 3, 2
PROMPTS = ((1, 3, 5), (4, 4, 1, 6), (6, 0))
SCORES = (0.9, 0.2, 0.5)


def every_answer() -> Iterator[tuple[int, ...]]:
    """All answers of at most LENGTH tokens: those that end, and those that are cut."""
    for length in range(1, LENGTH + 1):
        for ids in itertools.product(range(VOCAB), repeat=length):
            if END not in ids[:-1] and (ids[-1] == END or length == LENGTH):
                yield ids


MODEL = tiny_model(3, vocab_size=VOCAB)


@cache
def plain(prompt: tuple[int, ...]) -> Floats:
    return plain_logprobs(MODEL, list(prompt))[-1].double().numpy()


@cache
def conditional(z: int, ids: tuple[int, ...]) -> float:
    return float(sum(plain((*PROMPTS[z], *ids[:place]))[token] for place, token in enumerate(ids)))


def of_sequence(ids: tuple[int, ...]) -> float:
    return log_sum([prior + conditional(z, ids) for z, prior in enumerate(document_logprobs(SCORES))])


def of_token(ids: tuple[int, ...]) -> float:
    weights = np.exp(document_logprobs(SCORES))
    return sum(
        math.log(sum(weight * math.exp(plain((*PROMPTS[z], *ids[:i]))[t]) for z, weight in enumerate(weights)))
        for i, t in enumerate(ids)
    )


def by_engine(work: Callable[[Callable[..., Any], Callable[..., Any]], Any]) -> Any:
    """Run `work` with the two functions of a decoder, computed by the real engine on the same weights."""

    async def run() -> Any:
        config = EngineConfig(kv_memory_bytes=1 << 21, kv_cache="float32", weights="float32", threads=1)
        with EngineWorker(Engine(tiny_model(3, vocab_size=VOCAB), config)) as worker:

            async def next_of(z: int, ids: tuple[int, ...]) -> Floats:
                (found,) = await worker.score([*PROMPTS[z], *ids], [[0]], distribution=True)
                assert found.distribution is not None
                return found.distribution

            async def answer(z: int, ids: tuple[int, ...]) -> float:
                (found,) = await worker.score(list(PROMPTS[z]), [list(ids)])
                return sum(found.logprobs)

            return await work(next_of, answer)

    return asyncio.run(run())


@pytest.mark.slow
@pytest.mark.parametrize("beams", [1, 2, 400])
def test_rag_token_equals_brute_force_on_the_engine(beams: int) -> None:
    found = by_engine(
        lambda next_of, _: rag_token_decoding(
            next_of, document_logprobs(SCORES), end_ids=[END], max_tokens=LENGTH, beams=beams
        )
    )
    for each in found:
        assert each.logprob == pytest.approx(of_token(each.ids), abs=1e-5)
        assert sum(each.logprobs) == pytest.approx(each.logprob, abs=1e-9)
    if beams == 400:
        ranked = sorted(((of_token(ids), ids) for ids in every_answer()), reverse=True)
        assert found[0].ids == ranked[0][1] and len(found) == min(400, len(ranked))
        assert sum(math.exp(each.logprob) for each in found) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("decoding", ["thorough", "fast"])
def test_rag_sequence_equals_brute_force_on_the_engine(decoding: Any) -> None:
    prior = document_logprobs(SCORES)
    search = partial(rag_sequence_decoding, end_ids=[END], max_tokens=LENGTH, decoding=decoding)
    found = by_engine(lambda next_of, answer: search(next_of, answer, prior, beams=400))
    ranked = sorted(((of_sequence(ids), ids) for ids in every_answer()), reverse=True)
    assert [each.ids for each in found[:5]] == [ids for _, ids in ranked[:5]]
    for each in found:  # beams this wide hold every answer, so fast and thorough agree
        assert each.logprob == pytest.approx(of_sequence(each.ids), abs=1e-5)
    assert sum(math.exp(each.logprob) for each in found) == pytest.approx(1.0, abs=1e-4)


def test_thorough_decoding_scores_under_every_document_and_fast_only_where_it_was_in_the_beam() -> None:
    prior = document_logprobs(SCORES)
    search = partial(rag_sequence_decoding, end_ids=[END], max_tokens=LENGTH, beams=1)
    thorough = by_engine(lambda next_of, answer: search(next_of, answer, prior))
    fast = by_engine(lambda next_of, answer: search(next_of, answer, prior, decoding="fast"))
    assert {each.ids for each in thorough} == {each.ids for each in fast} and len(fast) > 1
    for each in thorough:
        assert each.logprob == pytest.approx(of_sequence(each.ids), abs=1e-5)
    by_ids = {each.ids: each.logprob for each in fast}
    assert all(by_ids[each.ids] < each.logprob - 1e-6 for each in thorough)
    assert [each.logprob for each in fast] == sorted(by_ids.values(), reverse=True)


def test_the_two_models_differ_where_documents_disagree() -> None:
    assert any(abs(of_token(ids) - of_sequence(ids)) > 1e-3 for ids in every_answer())


def test_one_document_is_plain_beam_search() -> None:
    async def next_of(z: int, ids: tuple[int, ...]) -> Floats:
        return plain((*PROMPTS[z], *ids))

    async def answer(z: int, ids: tuple[int, ...]) -> float:
        raise AssertionError("every candidate is in the only beam")

    async def work() -> tuple[Any, ...]:
        common: dict[str, Any] = {"end_ids": [END], "max_tokens": LENGTH, "beams": 3}
        return (
            await beam_search(lambda ids: next_of(0, ids), **common),
            await rag_token_decoding(next_of, [0.0], **common),
            await rag_sequence_decoding(next_of, answer, [0.0], **common),
        )

    alone, token, sequence = asyncio.run(work())
    assert [each.ids for each in alone] == [each.ids for each in token] == [each.ids for each in sequence]
    for found in (token, sequence):
        assert [each.logprob for each in found] == pytest.approx([each.logprob for each in alone], abs=1e-12)


def test_beams_go_on_while_an_open_one_may_still_win() -> None:
    """An ended answer of probability .3 does not stop a beam that reaches .36."""
    table = {(): [0.4, 0.3, 0.3], (0,): [0.05, 0.9, 0.05]}

    async def next_tokens(ids: tuple[int, ...]) -> Floats:
        return np.log(table.get(ids, [1 / 3] * 3))

    found = asyncio.run(beam_search(next_tokens, end_ids=[1], max_tokens=5, beams=1))
    assert found[0].ids == (0, 1) and found[0].logprob == pytest.approx(math.log(0.36))


def test_an_ended_answer_does_not_take_a_beam_from_an_open_one() -> None:
    """The two most probable first tokens end; with two beams both others must still be followed."""
    table = {(): [0.35, 0.15, 0.3, 0.2], (3,): [0.0, 1.0, 0.0, 0.0]}

    async def next_tokens(ids: tuple[int, ...]) -> Floats:
        with np.errstate(divide="ignore"):
            return np.log(table.get(ids, [0.25] * 4))

    found = asyncio.run(beam_search(next_tokens, end_ids=[0, 1], max_tokens=3, beams=2))
    assert [each.ids for each in found] == [(0,), (3, 1)]


def test_document_probabilities_are_a_softmax_of_the_scores() -> None:
    assert np.exp(document_logprobs([1.0, 1.0])) == pytest.approx([0.5, 0.5])
    assert np.exp(document_logprobs([math.log(3), 0.0])) == pytest.approx([0.75, 0.25])
    assert np.exp(document_logprobs([0.5, 0.0], scale=2.0)) == pytest.approx(np.exp(document_logprobs([1.0, 0.0])))
    assert np.exp(document_logprobs([-5000.0, -5001.0])) == pytest.approx([1 / (1 + 1 / math.e), 1 / (1 + math.e)])
    for scores, scale in (([], 1.0), ([math.nan], 1.0), ([1.0], math.inf)):
        with pytest.raises(ConfigError):
            document_logprobs(scores, scale=scale)


def test_a_token_impossible_under_every_document_stays_impossible() -> None:
    with np.errstate(divide="ignore"):
        first, second = np.log([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])
    mixed = mixture([first, second], np.log([0.4, 0.6]).tolist())
    assert np.exp(mixed) == pytest.approx([0.2, 0.8, 0.0]) and mixed[2] == -np.inf
    assert top_tokens(mixed, 3) == [1, 0] and top_tokens(np.log([0.25] * 4), 2) == [0, 1]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    config = EngineConfig(kv_memory_bytes=8 << 20, threads=1, weights="float32", kv_cache="float32")
    model = Local(write_model(tmp_path_factory.mktemp("m")), name="tiny", config=config)
    yield model
    model.close()


@pytest.mark.slow
def test_next_logprobs_are_the_whole_distribution(local: Local) -> None:
    async def both() -> tuple[Floats, list[float]]:
        ids = await local.tokenize("What is 12")
        return await local.next_logprobs(ids), [(await local.rate([*ids, token]))[-1].logprob for token in (0, 7, 250)]

    whole, some = asyncio.run(both())
    assert whole.ndim == 1 and np.exp(whole).sum() == pytest.approx(1.0, abs=1e-5)
    assert [whole[0], whole[7], whole[250]] == pytest.approx(some, abs=1e-6)


def test_one_prompt_decodes_as_the_model_itself_does(local: Local) -> None:
    prompt = [user("What is 12 + 30?")]
    plain_answer = asyncio.run(local.complete(prompt, Sampling(max_tokens=12)))[0]
    for kind in ("rag_token", "rag_sequence"):
        settings = MarginalSettings(kind, (0.0,), max_tokens=12)
        found = asyncio.run(decode_marginal(settings, local, [prompt]))
        assert found.message.text == plain_answer.message.text and found.finish_reason == plain_answer.finish_reason
        assert plain_answer.message.sampled is not None
        whole = sum(plain_answer.message.sampled.logprobs)
        assert sum(token[0][1] for token in found.top_logprobs) == pytest.approx(whole, abs=1e-4)


def test_a_prompt_without_room_for_the_answer_is_refused(local: Local) -> None:
    settings = MarginalSettings("rag_token", (0.0,), max_tokens=500)
    with pytest.raises(PromptTooLong, match="smaller chunks"):
        asyncio.run(decode_marginal(settings, local, ["What is 12 + 30? " * 10]))


async def marginal(task: Task, ctx: Context) -> str:
    positions = [ctx.say(f"{task.prompt} {word}") for word in ("one", "two")]
    settings = MarginalSettings("rag_token", (math.log(0.5),) * 2, max_tokens=5)
    decoded = await ctx.decode(partial(decode_marginal, settings), positions, settings.to_json(), max_tokens=5)
    return decoded.text


def test_a_resumed_attempt_does_not_decode_again(local: Local) -> None:
    journal = MemoryJournal()
    first = asyncio.run(rollout(Agent("a", local, marginal), Task("1", "sum"), journal=journal))
    assert first.error is None and first.answer is not None
    (call,) = first.calls
    assert call.usage.prompt_tokens > 10 and len(call.detail["top_logprobs"][0]) == 5
    silent = Scripted(fingerprint=local.fingerprint)
    again = asyncio.run(rollout(Agent("a", silent, marginal), Task("1", "sum"), journal=journal))
    assert again.answer == first.answer and again.calls[0].detail == call.detail and silent.asked == []


def test_raw_prompts_take_the_place_of_the_conversations(local: Local) -> None:
    settings = MarginalSettings("rag_token", (math.log(0.5),) * 2, max_tokens=5)
    texts = ["12 + 30 =", "The sum is"]

    async def raw(task: Task, ctx: Context) -> str:
        positions = [ctx.say("one"), ctx.say("two")]
        step = partial(decode_marginal, settings)
        decoded = await ctx.decode(step, positions, settings.to_json(), max_tokens=5, prompts=texts)
        return decoded.text

    expected = asyncio.run(decode_marginal(settings, local, texts))
    trace = asyncio.run(rollout(Agent("a", local, raw), Task("1", "sum")))
    assert trace.error is None and trace.answer == expected.message.text
    assert trace.calls[0].usage.prompt_tokens == expected.usage.prompt_tokens


def test_a_model_without_distributions_is_refused_and_a_budget_holds(local: Local) -> None:
    refused = asyncio.run(rollout(Agent("a", Scripted(["x"]), marginal), Task("1", "sum")))
    assert refused.error is not None and "use a local model" in refused.error.message
    spent = asyncio.run(rollout(Agent("a", local, marginal, limits=Limits(tokens=20)), Task("1", "sum")))
    assert spent.stop_reason == "tokens" and spent.calls == ()


def test_decoding_reserves_its_answer_for_each_of_its_prompts(local: Local) -> None:
    prompts = [len(asyncio.run(local.tokenize([user(f"sum {word}")]))) for word in ("one", "two")]
    least = sum(prompts) + 2 * 5
    for tokens, stop_reason in ((least, "done"), (least - 1, "tokens")):
        trace = asyncio.run(rollout(Agent("a", local, marginal, limits=Limits(tokens=tokens)), Task("1", "sum")))
        assert (trace.stop_reason, len(trace.calls)) == (stop_reason, int(stop_reason == "done"))


def test_a_decoder_that_reports_no_usage_is_charged_an_estimate_where_a_budget_counts(local: Local) -> None:
    async def silent(model: Any, prompts: Any) -> Completion:
        return Completion(assistant("y" * 100), "stop", Usage(cost_usd=0.5))

    async def decodes(task: Task, ctx: Context) -> str:
        positions = [ctx.say("sum one"), ctx.say("sum two")]
        return (await ctx.decode(silent, positions, {"decoder": "silent"}, max_tokens=5)).text

    size = sum(len(asyncio.run(local.tokenize([user(f"sum {word}")]))) for word in ("one", "two"))
    for tokens, usage in ((5_000, Usage(size, 0, 25, 0.5)), (None, Usage(cost_usd=0.5))):
        agent = Agent("a", local, decodes, limits=Limits(tokens=tokens))
        (call,) = asyncio.run(rollout(agent, Task("1", "sum"))).calls
        assert call.usage == usage and call.detail.get("usage_estimated", False) == (tokens is not None)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    made = open_index(tmp_path / "i", IndexHeader("", "", 0, "whole"))
    texts = {"a": "The sum of 12 and 30 is 42.", "b": "The sum is small.", "c": "It rains."}
    made.put([IndexedDocument(Document(id, text), [Chunk(id, 0, len(text), text)], None) for id, text in texts.items()])
    made.close()
    yield str(tmp_path / "i")
    close_corpora()


def asked_of(local: Local, pattern: Any, question: str, **options: Any) -> Trace:
    async def run(task: Task, ctx: Context) -> str:
        return str(await pattern(task, ctx, search="lexical", max_tokens=6, **options))

    return asyncio.run(rollout(Agent("a", local, run), Task("1", question)))


@pytest.mark.slow
@pytest.mark.parametrize("pattern", [rag_token, rag_sequence])
def test_the_patterns_marginalise_over_the_passages_of_a_search(local: Local, index: str, pattern: Any) -> None:
    trace = asked_of(local, pattern, "What is the sum of 12 and 30?", index=index, beams=2)
    assert trace.error is None, trace.error
    (probabilities,) = [event.data for event in trace.events if event.kind == "document_probabilities"]
    search, *_, decoded = trace.calls
    scores = [item["score"] for item in search.detail["items"]]
    expected = np.exp(scores) / np.exp(scores).sum()
    assert probabilities["probabilities"] == pytest.approx(expected.tolist(), abs=1e-6) and len(scores) == 2
    prompts = [node.message for node in trace.nodes if "Use the passage" in node.message.text]
    assert len(prompts) == 2 and all(message.role == "user" and "<passage 1 " in message.text for message in prompts)
    assert decoded.detail["decoding"]["decoder"] == pattern.__name__
    assert decoded.detail["decoding"]["document_logprobs"] == pytest.approx(np.log(expected).tolist())
    sharp = asked_of(local, pattern, "What is the sum of 12 and 30?", index=index, scale=100.0)
    (event,) = [event.data for event in sharp.events if event.kind == "document_probabilities"]
    assert event["probabilities"][0] > 0.99


def test_nothing_found_is_not_decoded(local: Local, index: str) -> None:
    trace = asked_of(local, rag_token, "xyzzy", index=index)
    assert trace.answer == "Not in the documents." and [call.kind for call in trace.calls] == ["tool"]


def test_options_that_cannot_be_are_refused(local: Local, index: str) -> None:
    for pattern, options in ((rag_sequence, {"decoding": "quick"}), (rag_token, {"beams": 0}), (rag_token, {"k": 0})):
        trace = asked_of(local, pattern, "q", **({"index": index} | options))
        assert trace.error is not None and trace.error.kind == "ConfigError"
