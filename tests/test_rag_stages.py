"""Stages and options of modular RAG and of Self-RAG: what each adds to a search, and what reaches the model."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from corpus_tiny import write_index
from firsthand import catalog
from firsthand.agent import Agent
from firsthand.context import Context
from firsthand.errors import ConfigError, ModelError, TransientError
from firsthand.message import Message
from firsthand.model import Sampling
from firsthand.providers.scripted import Scripted
from firsthand.retrieval.answers.variant_parts import recorded_answer
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.corpus import close_corpora
from firsthand.retrieval.rag import modular, rag_sequence, self_rag
from firsthand.retrieval.rag_effect import corpus_in, retrievals
from firsthand.retrieval.reflection.critique import CritiqueWeights
from firsthand.retrieval.writer import ContextWriter, ModelWriter, writer_of
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.trace import Trace

SAME = "the old mill stands here by the water"
TEXTS = {"a.md": f"mill first\nmill second\nmill third\n{SAME}\n", "b.md": f"{SAME}\nnothing else\n"}
TASK = Task("t", "mill")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield write_index(tmp_path_factory.mktemp("rag") / "docs.index", TEXTS)
    close_corpora()


def run(pattern: str, index: Path, model: Scripted, task: Task = TASK, **options: Any) -> Trace:
    function, _ = catalog.pattern(pattern)
    trace = asyncio.run(rollout(Agent("a", model, function, {"index": str(index), **options}), task))
    assert trace.error is None, trace.error
    return trace


def texts(index: Path, trace: Trace) -> list[str]:
    """The passages that the answer was written from, as the last prompt shows them."""
    said = [node.message.text for node in trace.nodes if "<passage 1 " in node.message.text][-1]
    return [
        line for line in said.splitlines() if line in {each for text in TEXTS.values() for each in text.splitlines()}
    ]


# -- modular --


@pytest.mark.slow
def test_each_stage_of_modular_rag_takes_its_part(index: Path):
    quiet = Scripted(lambda messages, sampling, place: "Not in the documents.")

    def passages(**options: Any) -> list[str]:
        return texts(index, run("modular", index, quiet, search="lexical", **options))

    everything = passages(k=9)
    assert sorted(everything) == sorted([*TEXTS["a.md"].splitlines(), SAME])
    assert len(passages(k=2)) == 2 and passages(k=2) == everything[:2]
    capped = passages(k=9, cap="per_source")
    assert len(capped) == 3 and capped[:2] == everything[:2], "two of a.md, and the one of b.md"
    assert sorted(passages(k=9, cap="distinct")) == sorted(TEXTS["a.md"].splitlines())
    widened = run("modular", index, quiet, search="lexical", k=1, widen="neighbours")
    assert len(texts(index, widened)) == 3
    assert [call.detail["arguments"]["retriever"] for call, _ in retrievals(widened)][:2] == ["lexical", "neighbours"]
    parent = run("modular", index, quiet, search="lexical", k=1, widen="parents")
    assert [call.detail["arguments"]["retriever"] for call, _ in retrievals(parent)][:2] == ["lexical", "parents"]


@pytest.mark.slow
def test_modular_rag_reranks_its_pool_and_searches_what_the_model_rewrites(index: Path):
    def reply(messages: Sequence[Message], sampling: Sampling, place: int) -> str:
        said = messages[-1].text
        return "water" if "more general question" in said else "third" if "search queries" in said else "No."

    def model() -> Scripted:
        return Scripted(
            reply, score=lambda prompt, word: math.log(0.9 if ("third" in prompt) == (word == "yes") else 0.1)
        )

    ranked = run("modular", index, model(), search="lexical", order="rerank", pool=5, k=1)
    assert texts(index, ranked) == ["mill third"] and [call.kind for call in ranked.calls].count("score") == 5
    one = run("modular", index, model(), search="lexical", order="rerank", pool=1, k=1)
    assert [call.kind for call in one.calls].count("score") == 1
    for rewrite, queries in (("step_back", ["mill", "water"]), ("multi_query", ["mill", "third"]), ("none", ["mill"])):
        trace = run("modular", index, model(), search="lexical", rewrite=rewrite, k=2)
        found = [call.detail["arguments"] for call, _ in retrievals(trace)]
        assert [each["query"] for each in found if each["retriever"] == "lexical"] == queries, rewrite
    varied = run("modular", index, model(), search="hybrid", order="mmr", pool=3, k=2)
    (mmr,) = [
        call.detail["arguments"] for call, _ in retrievals(varied) if call.detail["arguments"]["retriever"] == "mmr"
    ]
    assert mmr["k"] == 2 and len(mmr["hits"]) == 3
    made_up = run("modular", index, model(), rewrite="hyde", k=1)
    assert retrievals(made_up)[0][0].detail["arguments"]["vectors"] == 1


def test_options_of_stages_are_refused_with_what_was_expected(index: Path):
    for bad, told in (
        ({"rewrite": "x"}, "rewrite is 'x': none, hyde, multi_query, step_back was expected"),
        ({"order": "x"}, "order is 'x': none, rerank, mmr was expected"),
        ({"cap": "x"}, "cap is 'x': none, per_source, distinct was expected"),
        ({"widen": "x"}, "widen is 'x': none, neighbours, parents was expected"),
        ({"rewrite": "hyde", "search": "lexical"}, "rewrite is hyde and search is lexical: HyDE searches by vectors"),
        ({"pool": 0}, "pool is 0"),
    ):
        with pytest.raises(ConfigError, match=told):
            modular._check(**{"search": "hybrid", "index": str(index), **bad})
    modular._check(search="hybrid", rewrite="hyde", index=str(index))
    with pytest.raises(ConfigError, match="decoding is 'slow': thorough or fast was expected"):
        rag_sequence._check(decoding="slow", index=str(index))
    rag_sequence._check(decoding="fast", index=str(index))
    with pytest.raises(ConfigError, match="k is 0"):
        rag_sequence._check(decoding="fast", index=str(index), k=0)


# -- Self-RAG --


def chances(prompt: str, continuation: str) -> float:
    table = {"yes": 0.3, "no": 0.1, "relevant": 0.6, "irrelevant": 0.2, "fully": 0.5, "partially": 0.3, "not": 0.2}
    table |= {"1": 0.1, "2": 0.1, "3": 0.2, "4": 0.2, "5": 0.4}
    return math.log(table.get(continuation, 0.25 ** len(continuation.split())))


def writes(messages: Sequence[Message], sampling: Sampling, place: int) -> str:
    said = messages[-1].text
    return "Done." if "(nothing)" not in said else " It stands by the water. " if "water" in said else "It is first."


def test_self_rag_searches_the_question_with_the_last_segment_and_notes_each(index: Path):
    model = Scripted(writes, score=chances)
    trace = run("self_rag", index, model, search="lexical", k=2, retrieval="always", beam=1, segment_tokens=7)
    queries = [call.detail["arguments"] for call, hits in retrievals(trace) if hits and "k" in call.detail["arguments"]]
    found = [each["query"] for each in queries if each["retriever"] == "lexical"]
    (segment,) = [event.data for event in trace.events if event.kind == "self_rag_segment"]
    assert found == ["mill", f"mill {segment['text']}"] and {each["k"] for each in queries} == {2}
    assert segment["segment"] == 1 and segment["text"] in ("It stands by the water.", "It is first.")
    body = recorded_answer(trace)
    assert body is not None and [segment["passage"]] == body["passages"]
    written = [each for each in model.asked if each.sampling is not None]
    assert {each.sampling.max_tokens for each in written} == {7}
    assert all("\n" in each.sampling.stop for each in written)
    branches = [
        event.data for event in trace.events if event.kind == "branch" and event.data["name"].startswith("answer.")
    ]
    assert [(each["name"], each["status"], each["text"]) for each in branches] == [
        ("answer.0", "done", segment["text"])
    ]
    assert branches[0]["score"] == pytest.approx(segment["score"])
    two = run("self_rag", index, Scripted(writes, score=chances), search="lexical", k=3, retrieval="always", beam=2)
    named = [(event.data["name"], event.data["status"]) for event in two.events if event.kind == "branch"]
    assert [each for each in named if each[0].startswith("answer.")] == [("answer.0", "done"), ("answer.1", "pruned")]


def test_passages_are_wanted_above_the_threshold_or_as_the_mode_says():
    def wants(retrieval: Any, probability: float) -> bool:
        common = self_rag._Common("q", None, None, "lexical", 1, retrieval, 0.5, CritiqueWeights(), 9)  # type: ignore[arg-type]
        return common.wants(probability)

    assert [wants("adaptive", each) for each in (0.4, 0.5, 0.6)] == [False, False, True]
    assert [wants("always", each) for each in (0.0, 1.0)] == [True, True]
    assert [wants("never", each) for each in (0.0, 1.0)] == [False, False]


def test_a_segment_s_probability_is_the_geometric_mean_of_its_tokens():
    def after(*logprobs: float) -> Any:
        return SimpleNamespace(last=SimpleNamespace(sampled=SimpleNamespace(logprobs=logprobs)), text="said")

    def before(found: Any) -> Any:
        async def score(texts: list[str]) -> Any:
            assert texts == ["said"]
            if isinstance(found, Exception):
                raise found
            return [found]

        return SimpleNamespace(score=score)

    def probability(scored: Any, *logprobs: float) -> float:
        return asyncio.run(self_rag._probability(before(scored), after(*logprobs)))

    likely = SimpleNamespace(logprob=-3.0, num_tokens=2)
    assert probability(likely, -1.0, -2.0, -6.0) == pytest.approx(math.exp(-3.0))
    assert probability(likely) == pytest.approx(math.exp(-1.5))
    assert probability(SimpleNamespace(logprob=-3.0, num_tokens=0)) == pytest.approx(math.exp(-3.0))
    assert probability(ModelError("no scores")) == 0.0
    with pytest.raises(TransientError):
        probability(TransientError("later"))


def test_self_rag_refuses_options_at_their_limits(index: Path):
    given: dict[str, Any] = dict(threshold=0.5, w_rel=1.0, w_sup=1.0, w_use=1.0, k=1, beam=1, depth=1, segment_tokens=1,
                                 index=str(index), search="lexical")  # fmt: skip
    for good in ({}, {"threshold": 0}, {"threshold": 1}):
        self_rag._check(**{**given, **good})
    for bad, told in (
        ({"threshold": -0.01}, r"threshold is -0\.01: it is compared with a probability, so give 0 to 1"),
        ({"threshold": 1.01}, "threshold is 1.01"), ({"beam": 0}, "beam is 0"), ({"depth": 0}, "depth is 0"),
        ({"segment_tokens": 0}, "segment_tokens is 0"), ({"k": 0}, "k is 0"), ({"search": "x"}, "search is 'x'"),
        ({"index": ""}, "no index at ''"), ({"w_rel": math.inf}, "'relevance': inf"),
        ({"w_sup": -math.inf}, "'support': -inf"), ({"w_use": math.nan}, "'utility': nan"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=told):
            self_rag._check(**{**given, **bad})


# -- writers and reads --


def test_a_writer_of_a_model_counts_what_it_used_and_passes_settings_on():
    model = Scripted(lambda messages, sampling, place: f"a{place}", score=lambda prompt, word: -float(len(word)))
    made = writer_of(model)
    assert isinstance(made, ModelWriter)
    assert asyncio.run(made.write("one two", n=2, max_tokens=5)) == ["a0", "a1"]
    first = made.usage
    assert first.completion_tokens == 2 and model.asked[0].n == 2
    assert model.asked[0].sampling == Sampling(max_tokens=5)
    assert asyncio.run(made.logprobs("p", ["x", "yyy"])) == [-1.0, -3.0]
    assert made.usage.prompt_tokens > first.prompt_tokens and model.asked[1].continuations == ("x", "yyy")


def test_a_writer_of_an_attempt_goes_on_with_its_conversation_and_reads_name_their_corpus(index: Path):
    seen: list[Any] = []

    async def pattern(task: Task, ctx: Context) -> str:
        made = writer_of(ctx.say("before"))
        seen.append((isinstance(made, ContextWriter), await made.write("ask", n=2, max_tokens=3)))
        seen.append(await made.logprobs("which", ["x", "yy"]))
        corpus = corpus_in(ctx, str(index))
        hits = await corpus.read("mine", {"query": "q"}, lambda passed: _hits())
        return str(len(hits))

    async def _hits() -> Any:
        from firsthand.retrieval.retriever import Hit

        return [Hit(Chunk("d", 0, 1, "x"), 1.0)]

    model = Scripted(lambda messages, sampling, place: f"a{place}", score=lambda prompt, word: -float(len(word)))
    trace = asyncio.run(rollout(Agent("a", model, pattern), TASK))
    assert trace.error is None and trace.answer == "1" and seen == [(True, ["a0", "a1"]), [-1.0, -2.0]]
    assert [message.text for message in model.asked[0].prompt] == ["before", "ask"]
    ((call, hits),) = retrievals(trace)
    assert call.detail["origin"] == "documents in docs" and call.detail["arguments"] == {
        "retriever": "mine",
        "query": "q",
    }
    assert hits[0].chunk == Chunk("d", 0, 1, "x")
