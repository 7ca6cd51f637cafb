"""Options of RAG variants that are passed on: forms, floors, unsupported claims, caps, the index of a benchmark."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from corpus_tiny import write_index
from firsthand import catalog
from firsthand.agent import Agent
from firsthand.providers.scripted import Scripted
from firsthand.retrieval import benchmark_corpus
from firsthand.retrieval.answers.answering import NOT_IN_DOCUMENTS
from firsthand.retrieval.answers.variant_parts import recorded_answer
from firsthand.retrieval.rag_effect import retrievals
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.trace import Trace
from test_rag_variants import TEXTS, VARIANTS, answering, model_of, run

GHOSTS = "Ghosts live there. [1]"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_index(tmp_path_factory.mktemp("rag") / "docs.index", TEXTS)


def asked_for_passages(trace: Trace) -> list[str]:
    return [node.message.text for node in trace.nodes if "Answer the question from the passages" in node.message.text]


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_option_of_an_answer_reaches_it(variant: str, index: Path):
    if variant != "team":  # which drops what nothing supports
        told = {kind: run(variant, index, model_of(variant, answer=GHOSTS), unsupported=kind).answer
                for kind in ("mark", "drop", "keep")}  # fmt: skip
        assert told["drop"] == NOT_IN_DOCUMENTS and told["mark"] == "Ghosts live there. [unsupported]"
        assert told["keep"] == "Ghosts live there."
    high = run(variant, index, model_of(variant), floor=2.0)
    assert high.answer == NOT_IN_DOCUMENTS and not asked_for_passages(high)
    low = run(variant, index, model_of(variant), floor=-2.0)
    assert recorded_answer(low)["passages"]  # type: ignore[index]
    quoted = asked_for_passages(run(variant, index, model_of(variant), form="quoted"))
    assert quoted and 'copied from it, as in [1 "copied words"]' in quoted[0]
    assert "copied words" not in asked_for_passages(low)[0]
    plain = run(variant, index, model_of(variant, answer="In 1871."), form="plain")
    body = recorded_answer(plain)
    assert body is not None and body["citations"] == [] and not asked_for_passages(plain)
    chosen = run(variant, index, model_of(variant), form="chosen")
    assert chosen.error is None and not asked_for_passages(chosen)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["modular", "recursive", "agentic", "team", "multi_query", "naive"])
def test_the_search_that_is_named_is_run(variant: str, index: Path):
    for search in ("lexical", "dense", "hybrid", "convex"):
        trace = run(variant, index, model_of(variant), search=search)
        assert retrievals(trace)[0][0].detail["arguments"]["retriever"] == search, trace.error


@pytest.mark.slow
def test_rewritings_pools_and_windows_have_the_sizes_that_were_asked_for(index: Path):
    model = model_of("multi_query")
    trace = run("multi_query", index, model, n=1, pool=3, k=1, search="lexical")
    found = [call.detail["arguments"] for call, _ in retrievals(trace) if "query" in call.detail["arguments"]][:2]
    assert [(each["query"], each["k"]) for each in found] == [("When was the mill built?", 3), ("mill built", 3)]
    assert model.asked[0].sampling is not None and model.asked[0].sampling.max_tokens == 64
    assert model.asked[0].prompt[-1].text.startswith("Write 1 different search queries")
    assert len(recorded_answer(trace)["passages"]) == 1  # type: ignore[index]
    made_up = model_of("hyde")
    run("hyde", index, made_up, n=3)
    assert made_up.asked[0].n == 3
    kinds = [call.kind for call in run("multi_query", index, model_of("multi_query"), rerank="logprob").calls]
    assert kinds.count("score") > 2 and "score" not in [call.kind for call in trace.calls]
    assert [call.kind for call in run("hyde", index, model_of("hyde"), rerank="logprob").calls].count("score") > 2
    wide, narrow = (run("advanced", index, model_of("advanced"), k=1, pool=2, around=n) for n in (2, 1))

    def shown(trace: Trace) -> str:
        return [hit.chunk.text for _, hits in retrievals(trace) for hit in hits if "1871" in hit.chunk.text][-1]

    assert shown(wide) == TEXTS["mill.md"].strip() and shown(narrow) == TEXTS["mill.md"].rpartition("\nThe owner")[0]
    assert [call.kind for call in wide.calls].count("score") == 2


def test_a_source_fills_no_more_than_its_share(tmp_path: Path):
    path = write_index(tmp_path / "i", {"a": "mill one", "b": "mill two", "c": "mill three"}, vectors=False, source="s")
    for pattern in ("isolated_rag", "short_answer"):
        for most, count in ((0, 3), (1, 1), (2, 2)):
            function, _ = catalog.pattern(pattern)
            options = {"index": str(path), "search": "lexical", "per_source": most, "k": 9}
            agent = Agent("a", answering(answer="one"), function, options)
            trace = asyncio.run(rollout(agent, Task("t", "mill")))
            (ranking,) = [event.data for event in trace.events if event.kind == "ranking"]
            assert len(ranking["documents"]) == count, (pattern, most)


def test_the_index_of_a_benchmark_has_vectors_only_where_they_are_searched(
    index: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[Any] = []

    async def made(spec: str, *, embedder: str = "minilm") -> Path:
        asked.append((spec, embedder))
        return index

    monkeypatch.setattr(benchmark_corpus, "corpus_index", made)
    task = Task("t", "When was the mill built?", metadata={"corpus": "tiny:n=3"})
    for pattern, name in (("retrieve", "variant"), ("isolated_rag", "search"), ("short_answer", "search")):
        for search, embedder in (("lexical", ""), ("dense", "e5"), ("hybrid", "e5")):
            asked.clear()
            function, _ = catalog.pattern(pattern)
            agent = Agent("a", answering(answer="1871"), function, {name: search, "embedder": "e5", "k": 2})
            trace = asyncio.run(rollout(agent, task))
            assert trace.error is None and asked == [("tiny:n=3", embedder)], (pattern, search)
            assert retrievals(trace)[0][0].detail["arguments"]["retriever"] == search
    none = asyncio.run(rollout(Agent("a", Scripted(), catalog.pattern("retrieve")[0]), Task("t9", "q")))
    assert none.error is not None and "task t9 names no corpus" in none.error.message
