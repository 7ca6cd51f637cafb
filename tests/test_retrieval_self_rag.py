"""Self-RAG by hand-computed numbers, and each fault of the authors' code as a test that would catch it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.agent import Agent
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ConfigError, PromptTooLong
from firsthand.loop.journal import MemoryJournal
from firsthand.message import Message
from firsthand.providers.local import Local
from firsthand.providers.scripted import Scripted
from firsthand.retrieval import corpus
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.document import Document
from firsthand.retrieval.rag.self_rag import self_rag
from firsthand.retrieval.reflection.critique import (
    CONTINUE_EVIDENCE,
    FULLY,
    IRRELEVANT,
    MARKS,
    NO_RETRIEVAL,
    NO_SUPPORT,
    PARTIALLY,
    RELEVANCE_WORTH,
    RELEVANT,
    RETRIEVAL,
    SUPPORT_WORTH,
    UTILITIES,
    UTILITY_WORTH,
    Critique,
    CritiqueWeights,
    expected_worth,
    path_score,
    retrieval_probability,
    segment_score,
)
from firsthand.retrieval.reflection.segment_beam import Segment, SegmentPath, segment_beam
from firsthand.retrieval.reflection.token_reflections import (
    SPELLED,
    SegmentSettings,
    decode_segment,
    has_reflection_tokens,
    marked_off,
    raw_prompt,
    reading_of,
)
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.rollout import rollout
from firsthand.sampling import Sampling
from firsthand.task import Task
from firsthand.trace import Trace
from tiny import write_model


def logs(**probabilities: float) -> dict[str, float]:
    names = {"ret": RETRIEVAL, "no": NO_RETRIEVAL, "go_on": CONTINUE_EVIDENCE}
    return {names[name]: math.log(p) for name, p in probabilities.items()}


# -- the numbers --


def test_the_retrieval_ratio_is_of_probabilities_not_of_their_logs() -> None:
    """The authors' short-form script divides log-probs: .6 against .2 becomes log(.6) / (log(.6) + log(.2)) = .24."""
    assert retrieval_probability(logs(ret=0.6, no=0.2)) == pytest.approx(0.75)
    assert retrieval_probability(logs(ret=0.1, no=0.8)) == pytest.approx(1 / 9)
    of_logs = math.log(0.6) / (math.log(0.6) + math.log(0.2))
    assert of_logs == pytest.approx(0.241, abs=1e-3)


def test_continuing_with_the_evidence_counts_above_and_below_the_line() -> None:
    """The authors' long-form script adds it above alone: (.3 + .5) / (.3 + .2) = 1.6 is no probability."""
    assert retrieval_probability(logs(ret=0.3, no=0.2, go_on=0.5)) == pytest.approx(0.8)


def test_a_missing_token_has_probability_zero() -> None:
    """The authors' script takes -100 for its probability: .4 / (.4 - 100) is below 0."""
    assert expected_worth({RELEVANT: math.log(0.4)}, RELEVANCE_WORTH) == 1.0
    assert expected_worth({IRRELEVANT: math.log(0.4), RELEVANT: -math.inf}, RELEVANCE_WORTH) == 0.0
    assert expected_worth({}, RELEVANCE_WORTH) == 0.0
    assert expected_worth({RELEVANT: -5000.0, IRRELEVANT: -5000.0}, RELEVANCE_WORTH) == pytest.approx(0.5)


def test_support_and_utility_are_weighted_shares() -> None:
    support = {FULLY: math.log(0.3), PARTIALLY: math.log(0.2), NO_SUPPORT: math.log(0.1)}
    assert expected_worth(support, SUPPORT_WORTH) == pytest.approx((0.3 + 0.5 * 0.2) / 0.6)
    utility = dict(zip(UTILITIES, map(math.log, (0.1, 0.2, 0.3, 0.2, 0.2)), strict=True))
    assert expected_worth(utility, UTILITY_WORTH) == pytest.approx(-0.1 - 0.1 + 0 + 0.1 + 0.2)


def test_a_segments_score_is_the_papers_f() -> None:
    critique = Critique(relevance=0.9, support=0.4, utility=-0.5)
    assert segment_score(0.7, critique, CritiqueWeights()) == pytest.approx(0.7 + 0.9 + 0.4 - 0.25)
    assert segment_score(0.7, critique, CritiqueWeights(2, 0, 4)) == pytest.approx(0.7 + 1.8 - 2.0)
    assert segment_score(0.7, Critique(utility=1.0), CritiqueWeights()) == pytest.approx(1.2)


def test_a_product_of_scores_ranks_two_bad_segments_above_good_ones() -> None:
    good, bad = (1.1, 0.8), (-1.0, -2.0)
    assert path_score(bad, "product") > path_score(good, "product"), "why the mean is the default"
    assert path_score(good, "mean") == pytest.approx(0.95) and path_score(bad, "mean") == -1.5
    assert [path_score((), "mean"), path_score((), "product")] == [0.0, 0.0], "no segment is no good answer"
    assert [path_score((0.3,), "mean"), path_score((0.3,), "product")] == [0.3, 0.3]
    assert [path_score((0.5, 0.25, -2.0), "mean"), path_score((0.5, 0.25, -2.0), "product")] == [-1.25 / 3, -0.25]
    assert [path_score((0.0,), "mean"), path_score((0.0, 7.0), "product")] == [0.0, 0.0]
    assert path_score((1e16, 1.0, -1e16), "mean") == 1 / 3


# -- the beam --


async def all_of(waiting: Sequence[Any]) -> list[Any]:
    return [await each for each in waiting]


def search(tree: dict[str, list[tuple[str, float, bool]]], **options: Any) -> list[tuple[str, Any]]:
    async def expand(path: SegmentPath) -> Sequence[Segment]:
        return [Segment(text, score, is_last=is_last) for text, score, is_last in tree.get(path.text, [])]

    found = asyncio.run(segment_beam(expand, all_of, **options))
    return [(path.text, path.score(options.get("combine", "mean"))) for path in found]


TREE = {
    "": [("a", 1.0, False), ("b", 0.9, False), ("c", 0.8, False)],
    "a": [("x", 0.0, True), ("y", 0.2, True)],
    "b": [("z", 0.9, True)],
    "c": [("w", 9.0, True)],
}


def test_the_beam_keeps_the_best_and_may_turn_around() -> None:
    assert search(TREE, beam=1) == [("a y", pytest.approx(0.6))]
    assert search(TREE, beam=2) == [("b z", pytest.approx(0.9)), ("a y", pytest.approx(0.6))]
    assert search(TREE, beam=3)[0] == ("c w", pytest.approx(4.9))


def test_the_beam_ends_at_its_depth_and_when_all_have_ended() -> None:
    assert search(TREE, beam=3, depth=1) == [("a", 1.0), ("b", 0.9), ("c", 0.8)]
    endless = {"": [("a", 1.0, False)]} | {" ".join("a" * n): [("a", 1.0, False)] for n in range(1, 9)}
    assert search(endless, depth=4) == [("a a a a", 1.0)]


def test_an_ended_answer_competes_with_open_ones_and_an_empty_segment_ends() -> None:
    tree = {"": [("a", 1.0, True), ("b", 0.9, False)], "b": [("", 5.0, False), ("worse", 0.1, True)]}
    assert search(tree, beam=2) == [("a", 1.0), ("b", 0.9)]


def test_the_product_is_an_option() -> None:
    tree = {"": [("a", 2.0, False), ("b", 1.5, True)], "a": [("c", 0.5, True)]}
    assert search(tree, beam=2, combine="product") == [("b", 1.5), ("a c", 1.0)]
    assert search(tree, beam=2)[1] == ("a c", 1.25)


# -- the pattern with choices --

QUESTION = "Who designed the engine?"
PASSAGES = {"good": "Charles Babbage designed the engine.", "bad": "The engine is blue and was designed well."}


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    made = open_index(tmp_path / "i", IndexHeader("", "", 0, "whole"))
    made.put(
        [IndexedDocument(Document(id, text), [Chunk(id, 0, len(text), text)], None) for id, text in PASSAGES.items()]
    )
    made.close()
    yield str(tmp_path / "i")
    corpus.close_corpora()


def scorer(table: Callable[[str, str], float]) -> Callable[[str, str], float]:
    return lambda prompt, continuation: math.log(table(prompt, continuation))


def chances(prompt: str, continuation: str) -> float:
    """Probabilities of the four reflections, and of segments: a good passage gives a supported sentence."""
    good = "Babbage designed" in prompt.split("Question:")[0]
    if continuation in ("yes", "no"):
        return {"yes": 0.3, "no": 0.1}[continuation]
    if continuation in ("relevant", "irrelevant"):
        return (
            {"relevant": 0.6, "irrelevant": 0.2}[continuation]
            if good
            else {"relevant": 0.1, "irrelevant": 0.3}[continuation]
        )
    if continuation in ("fully", "partially", "not"):
        shares = (0.5, 0.3, 0.2) if good else (0.1, 0.2, 0.7)
        return dict(zip(("fully", "partially", "not"), shares, strict=True))[continuation]
    if continuation.isdigit():
        return {"1": 0.1, "2": 0.1, "3": 0.2, "4": 0.2, "5": 0.4}[continuation]
    return 0.25 ** len(continuation.split())  # each word of a segment has probability 1/4


def writes(messages: Sequence[Message], sampling: Sampling, index: int) -> str:
    last = messages[-1].text
    if "(nothing)" not in last:
        return "DONE"
    if "Babbage designed" in last:
        return "Charles Babbage designed it."
    return "It is blue." if "blue" in last else "Somebody did."


def ask(index: str, score: Any = chances, replies: Any = writes, journal: Any = None, **options: Any) -> Trace:
    async def pattern(task: Task, ctx: Any) -> str:
        return await self_rag(task, ctx, index=index, search="lexical", **options)

    model = replies if isinstance(replies, Scripted) else Scripted(replies, score=scorer(score), fingerprint="s")
    return asyncio.run(
        rollout(Agent("a", model, pattern), Task("t", QUESTION), **({"journal": journal} if journal else {}))
    )


def segments(trace: Trace) -> list[Any]:
    return [event.data for event in trace.events if event.kind == "self_rag_segment"]


def test_the_best_passage_wins_by_the_hand_computed_score(index: str) -> None:
    trace = ask(index, k=2)
    assert trace.error is None, trace.error
    assert trace.answer == "Charles Babbage designed it. [1]"
    (segment,) = segments(trace)
    utility = -0.1 - 0.05 + 0 + 0.1 + 0.4
    assert segment["relevance"] == pytest.approx(0.75) and segment["support"] == pytest.approx(0.65)
    assert segment["utility"] == pytest.approx(utility)
    assert segment["score"] == pytest.approx(0.25 + 0.75 + 0.65 + 0.5 * utility)
    branches = {
        event.data["text"]: event.data
        for event in trace.events
        if event.kind == "branch" and "answer" in event.data["name"]
    }
    assert branches["It is blue."]["score"] == pytest.approx(0.25 + 0.25 + 0.2 + 0.5 * utility)


def test_weights_are_used(index: str) -> None:
    """The authors' long-form script ignores its weights."""
    trace = ask(index, k=2, w_rel=-3.0, w_sup=0.0, w_use=0.0)
    assert trace.answer is not None and trace.answer.startswith("It is blue.")
    assert segments(trace)[0]["score"] == pytest.approx(0.25 - 3 * 0.25)


@pytest.mark.slow
@pytest.mark.parametrize(("threshold", "searches"), [(0.74, True), (0.76, False), (1.0, False), (0.0, True)])
def test_passages_are_retrieved_above_the_threshold(index: str, threshold: float, searches: bool) -> None:
    """p(yes) / (p(yes) + p(no)) = .75."""
    trace = ask(index, threshold=threshold)
    assert any(call.kind == "tool" for call in trace.calls) is searches
    assert trace.answer == ("Charles Babbage designed it. [1]" if searches else "Somebody did.")
    if not searches:
        (segment,) = segments(trace)
        assert segment["relevance"] is None and segment["score"] == pytest.approx(0.25 + 0.5 * 0.35)


def test_retrieval_can_be_forced_or_forbidden(index: str) -> None:
    always, never = ask(index, retrieval="always", threshold=1.0), ask(index, retrieval="never", threshold=0.0)
    assert always.answer == "Charles Babbage designed it. [1]" and never.answer == "Somebody did."
    assert not any("Would passages" in node.message.text for trace in (always, never) for node in trace.nodes)


def test_segments_go_on_until_the_model_is_done_or_at_the_depth(index: str) -> None:
    def endless(messages: Sequence[Message], sampling: Sampling, place: int) -> str:
        so_far = messages[-1].text.split("Answer so far: ")[1].split("\n")[0]
        return f"Sentence {so_far.count('Sentence')}."

    trace = ask(index, replies=endless, retrieval="never", depth=3)
    assert trace.answer == "Sentence 0. Sentence 1. Sentence 2." and len(segments(trace)) == 3


def test_a_resumed_attempt_asks_and_searches_nothing_again(index: str) -> None:
    journal = MemoryJournal()
    first = ask(index, journal=journal)
    silent = Scripted([], fingerprint="s")
    again = ask(index, replies=silent, journal=journal)
    assert again.answer == first.answer and silent.asked == []


def test_documents_stand_between_fences_in_the_users_turn(index: str) -> None:
    trace = ask(index)
    shown = [node.message for node in trace.nodes if "Babbage designed the" in node.message.text]
    assert shown and all(message.role == "user" and "<passage 1 " in message.text for message in shown)


@pytest.mark.parametrize("options", [{"threshold": 1.5}, {"beam": 0}, {"depth": 0}, {"w_use": math.nan}, {"k": 0}])
def test_options_that_cannot_be_are_refused(index: str, options: Any) -> None:
    trace = ask(index, **options)
    assert trace.error is not None and trace.error.kind == "ConfigError", trace.error


# -- reflection tokens, on a real engine --


@pytest.fixture(scope="module")
def reflecting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    folder = write_model(tmp_path_factory.mktemp("m"), specials=SPELLED, seed=5)
    config = EngineConfig(kv_memory_bytes=8 << 20, threads=1, weights="float32", kv_cache="float32")
    model = Local(folder, name="reflecting", config=config)
    asyncio.run(model.load())
    yield model
    model.close()


def test_marks_become_tokens_and_documents_cannot_write_them(reflecting: Local) -> None:
    async def both() -> tuple[list[int], list[int]]:
        prompt = raw_prompt("q", "[No Retrieval]", "text [Relevant] </paragraph>")
        return await reflecting.tokenize_marked(prompt, SPELLED), await reflecting.tokenize("[Relevant]")

    ids, plain = asyncio.run(both())
    counts = {mark: ids.count(reflecting.token_id(mark)) for mark in SPELLED}  # type: ignore[arg-type]
    assert {mark for mark, count in counts.items() if count} == {NO_RETRIEVAL, RETRIEVAL, "<paragraph>", "</paragraph>"}
    assert max(counts.values()) == 1 and reflecting.token_id(RELEVANT) not in plain
    assert has_reflection_tokens(reflecting) and not has_reflection_tokens(Scripted())
    assert marked_off("a [Utility:5]") == "a [\\Utility:5]"


@pytest.mark.parametrize("has_passage", [True, False])
def test_reflections_are_the_models_own_log_probs(reflecting: Local, has_passage: bool) -> None:
    prompt = raw_prompt("What is 12 + 30?", "", "The answer is 42." if has_passage else None)

    async def read() -> tuple[Any, list[int], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        made = await decode_segment(SegmentSettings(8, has_passage), reflecting, [prompt])
        ids = await reflecting.tokenize_marked(prompt, SPELLED)
        start, context = await reflecting.next_logprobs(ids), list(ids)
        ends = {reflecting.token_id(mark) for mark in (RETRIEVAL, NO_RETRIEVAL, CONTINUE_EVIDENCE)} | reflecting.end_ids
        for _ in range(8):
            token = int(np.argmax(await reflecting.next_logprobs(context)))
            if token in ends:
                break
            context.append(token)
        return made, context[len(ids) :], start, await reflecting.next_logprobs(context)

    made, written, start, end = asyncio.run(read())
    reading = reading_of(made.message.text, made.finish_reason, made.top_logprobs)
    assert made.usage.completion_tokens == len(written)
    by_id = {reflecting.token_id(mark): mark for mark in MARKS}
    if has_passage:
        assert reading.groups["relevance"] == {mark: start[reflecting.token_id(mark)] for mark in RELEVANCE_WORTH}
    elif not any(by_id.get(token) in RELEVANCE_WORTH for token in written):
        assert reading.groups["relevance"] == {}
    if not any(by_id.get(token) in SUPPORT_WORTH for token in written):
        assert reading.groups["support"] == pytest.approx(
            {mark: end[reflecting.token_id(mark)] for mark in SUPPORT_WORTH}
        )
    assert reading.groups["retrieval"] == pytest.approx(
        {mark: end[reflecting.token_id(mark)] for mark in (RETRIEVAL, NO_RETRIEVAL, CONTINUE_EVIDENCE)}
    )
    assert 0 < expected_worth(reading.groups["utility"], UTILITY_WORTH) + 1 < 2


def test_self_rag_runs_on_reflection_tokens_and_is_resumed(reflecting: Local, index: str) -> None:
    async def pattern(task: Task, ctx: Any) -> str:
        return await self_rag(task, ctx, index=index, search="lexical", k=2, depth=2, segment_tokens=6, threshold=0.0)

    journal = MemoryJournal()
    first = asyncio.run(rollout(Agent("a", reflecting, pattern), Task("t", QUESTION), journal=journal))
    assert first.error is None, first.error
    kinds = [call.detail.get("decoding", {}).get("decoder") for call in first.calls if call.kind == "generate"]
    assert kinds and set(kinds) == {"self_rag_segment"} and any(call.kind == "tool" for call in first.calls)
    again = asyncio.run(rollout(Agent("a", reflecting, pattern), Task("t", QUESTION), journal=journal))
    details = [{call.id: call.detail for call in trace.calls} for trace in (first, again)]
    assert again.answer == first.answer and details[0] == details[1]


def test_a_model_without_reflection_tokens_is_named(tmp_path: Path, reflecting: Local) -> None:
    plain = Local(write_model(tmp_path / "m"), name="plain", config=EngineConfig(kv_memory_bytes=1 << 22, threads=1))
    with pytest.raises(ConfigError, match="plain has no token"):
        asyncio.run(decode_segment(SegmentSettings(4), plain, ["q"]))
    plain.close()
    with pytest.raises(PromptTooLong, match="segment_tokens"):
        asyncio.run(decode_segment(SegmentSettings(600), reflecting, ["q"]))
