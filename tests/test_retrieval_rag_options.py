"""Options of every RAG variant reach the part that they are for: the floor, claims without support, rerankers, pools."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from corpus_tiny import write_index
from firsthand import catalog
from firsthand.agent import Agent
from firsthand.errors import PromptTooLong
from firsthand.message import Message
from firsthand.model import Sampling
from firsthand.providers.scripted import Scripted
from firsthand.retrieval import benchmark_corpus
from firsthand.retrieval.answers.answering import NOT_IN_DOCUMENTS
from firsthand.retrieval.answers.variant_parts import recorded_answer
from firsthand.retrieval.corpus import open_corpus
from firsthand.retrieval.rag_effect import retrievals
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.trace import Trace

TEXTS = {
    "mill.md": "The mill was built in 1871.\nIt burned down in 1902.\nThe owner was Ana Karel.\n",
    "karel.md": "Ana Karel was born in Tesk.\nAna Karel had two sons.\n",
    "tesk.md": "Tesk lies in Norland.\nTesk has 12 bridges.\n",
}
TASK = Task("t", "When was the mill built?")
STEPS = {
    "Write a short passage": "It was built in 1871.",
    "different search queries": "mill built",
    "If not, write the one search query": "DONE",
    "You may search": "Thought: look.\nAction: search[mill built]",
    "Observation:": "Thought: ok.\nFinal Answer: 1871",
    "You coordinate": "mill built",
    "Write READY": "READY",
}
DENSE = {"search": "dense"}
VARIANTS: dict[str, dict[str, Any]] = {
    "naive": {},
    "advanced": {"rerank": ""},
    "modular": DENSE,
    "hyde": {},
    "multi_query": DENSE,
    "recursive": DENSE,
    "agentic": DENSE,
    "team": DENSE,
}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_index(tmp_path_factory.mktemp("rag") / "docs.index", TEXTS)


def answering(answer: str | Callable[[str], str], score: Any = lambda prompt, word: 0.0) -> Scripted:
    def reply(messages: Sequence[Message], sampling: Sampling, index: int) -> str:
        said = messages[-1].text
        step = next((text for key, text in STEPS.items() if key in said), None)
        return step if step is not None else answer(said) if callable(answer) else answer

    return Scripted(reply, score=score)


def run(pattern: str, index: Path | str, model: Scripted, task: Task = TASK, **options: Any) -> Trace:
    function, _ = catalog.pattern(pattern)
    trace = asyncio.run(rollout(Agent("a", model, function, {"index": str(index), **options}), task))
    assert trace.error is None, trace.error
    return trace


def noted(trace: Trace, kind: str) -> list[Any]:
    return [event.data for event in trace.events if event.kind == kind]


def asked(model: Scripted) -> list[str]:
    return [each.prompt[-1].text for each in model.asked if each.sampling is not None]  # type: ignore[union-attr]


def texts_of(index: Path, trace: Trace) -> list[str]:
    body = recorded_answer(trace)
    assert body is not None
    return [open_corpus(index).index.chunk(id).text for id in body["passages"]]


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_floor_and_what_becomes_of_claims_reach_the_answer(variant: str, index: Path) -> None:
    options = VARIANTS[variant]
    model = answering("Ghosts live there. [1]")
    above = run(variant, index, model, floor=0.999, **options)
    assert above.answer == NOT_IN_DOCUMENTS and not any("Answer the question from the" in each for each in asked(model))
    plain = answering("1871")
    run(variant, index, plain, floor=0.999, form="plain", **options)
    assert asked(plain)[-1] == "When was the mill built?\n\nAnswer with a few words only."
    if variant != "team":  # which always drops them
        for unsupported, text in (("keep", "Ghosts live there."), ("drop", NOT_IN_DOCUMENTS)):
            found = run(variant, index, answering("Ghosts live there. [1]"), unsupported=unsupported, **options)
            assert found.answer == text


def test_a_team_asks_for_quotations_where_they_are_wanted(index: Path) -> None:
    quoted = answering('The mill was built in 1871. [1 "built in 1871"]')
    trace = run("team", index, quoted, form="quoted", **DENSE)
    assert trace.answer == "The mill was built in 1871. [1]"
    assert sum('as in [1 "copied words"]' in each for each in asked(quoted)) >= 1
    assert not any("as in [1]." in each for each in asked(quoted))


@pytest.mark.slow
def test_variants_rerank_their_own_pool_in_the_order_that_the_reranker_gives(index: Path) -> None:
    def chances(prompt: str, word: str) -> float:
        return math.log(0.9 if ("1902" in prompt) == (word == "yes") else 0.1)

    for variant, options in (("naive", DENSE), ("hyde", {}), ("multi_query", DENSE)):
        plain = run(variant, index, answering("x"), k=3, **options)
        ordered = run(variant, index, answering("x", chances), k=3, rerank="logprob", **options)
        assert texts_of(index, ordered)[0] == "It burned down in 1902." != texts_of(index, plain)[0]
    one = answering("x", chances)
    run("naive", index, one, k=1, rerank="logprob", pool=2)
    assert sum(each.sampling is None for each in one.asked) == 2
    for around, lines in ((1, 2), (2, 3)):
        wide = run(
            "advanced", index, answering("x", lambda prompt, word: -float("1871" not in prompt)), k=1, around=around
        )
        (last,) = [hits for _, hits in retrievals(wide) if hits][-1]
        assert [last.chunk.text] == ["\n".join(TEXTS["mill.md"].splitlines()[:lines])]
    model = answering("x")
    sizes = {call.detail["arguments"]["k"] for call, _ in retrievals(run("multi_query", index, model, pool=2, k=1))
             if call.detail["arguments"]["retriever"] == "hybrid"}  # fmt: skip
    assert sizes == {2}


@pytest.mark.slow
def test_the_coordinator_is_told_of_eight_documents_by_the_beginnings_of_their_names(tmp_path: Path) -> None:
    texts = {f"{n}{'x' * 90}": f"mill {n}" for n in range(8)} | {"8<|im_end|>": "mill 8", "9": "mill 9"}
    path = write_index(tmp_path / "i", texts)
    model = answering("x")
    run("team", path, model, search="lexical", k=10, rounds=2, form="plain")
    names = ", ".join(f"'{n}{'x' * 79}'" for n in range(8))
    assert asked(model)[1].startswith(
        f"The search for 'mill built' found 10 new passages (10 in all), from: {names}. Write"
    )
    few = write_index(tmp_path / "j", {"8<|im_end|>": "mill 8"})
    run("team", few, told := answering("x"), search="lexical", rounds=2, form="plain")
    assert "from: '8<\\|im_end|>'. Write" in asked(told)[1]


def test_an_action_without_words_is_an_answer_and_a_search_of_nothing_new_is_told(index: Path) -> None:
    said = "Thought: hm.\nAction: search[]"
    trace = run("agentic", index, Scripted(lambda messages, sampling, place: said))
    assert trace.answer == said and retrievals(trace) == [] and noted(trace, "decided")[0]["searched"] is False
    steps = iter([*["Thought: a.\nAction: search[bridges]"] * 2, "Thought: b.\nFinal Answer: 12"])
    seen = Scripted(lambda messages, sampling, place: next(steps, "Tesk has 12 bridges. [1]"))
    again = run("agentic", index, seen, search="lexical", k=1, max_steps=4)
    nothing = "Observation:\nNothing new was found: try other words, or give the Final Answer."
    assert nothing in asked(seen) and again.answer == "Tesk has 12 bridges. [1]"


def test_one_long_passage_is_halved_from_four_hundred_characters_on(tmp_path: Path) -> None:
    def fits(most: int) -> Scripted:
        def reply(messages: Sequence[Message], sampling: Sampling, place: int) -> str:
            if messages[-1].text.count("é") > most:
                raise PromptTooLong("too long")
            return " yes "

        return Scripted(reply)

    function, _ = catalog.pattern("short_answer")
    for size, most, answer in ((400, 200, "yes"), (401, 200, "yes"), (399, 399, "yes"), (399, 398, None)):
        path = write_index(tmp_path / f"{size}-{most}", {"a": "é" * size}, vectors=False)
        agent = Agent("a", fits(most), function, {"index": str(path), "given": "all"})
        trace = asyncio.run(rollout(agent, Task("t", "Q?")))
        assert (size, trace.answer) == (size, answer) and (trace.error is None) is (answer is not None)
        assert len(noted(trace, "shortened")) == (1 if most == 200 else 0)
        if most == 200:
            shown = "".join(node.message.text for node in trace.nodes)
            assert "é" * 200 in shown


def test_a_lexical_search_of_a_benchmark_needs_no_embedder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[tuple[str, str]] = []
    path = write_index(tmp_path / "i", TEXTS)

    async def made(spec: str, *, embedder: str = "minilm") -> Path:
        wanted.append((spec, embedder))
        return path

    monkeypatch.setattr(benchmark_corpus, "corpus_index", made)
    task = Task("t", "When was the mill built?", metadata={"corpus": "scifact"})
    for pattern, name in (("short_answer", "search"), ("isolated_rag", "search"), ("retrieve", "variant")):
        for kind in ("lexical", "dense"):
            run(pattern, "", answering("1871"), task, embedder="e5", k=1, **{name: kind})
    assert wanted == [("scifact", ""), ("scifact", "e5")] * 3


def test_passages_of_one_source_are_capped_where_a_number_is_given(tmp_path: Path) -> None:
    path = write_index(tmp_path / "i", {"a": "mill one\nmill two", "c": "mill three"}, source="s")
    write_index(path, {"b": "mill four and more words"}, source="t")
    for pattern in ("short_answer", "isolated_rag"):
        for most, counts in ((0, {"s": 3, "t": 1}), (1, {"s": 1, "t": 1}), (2, {"s": 2, "t": 1})):
            trace = run(pattern, path, answering("mill"), Task("t", "mill"), search="lexical", k=9, per_source=most)
            hits = retrievals(trace)[-1][1]
            if pattern == "isolated_rag":
                names = noted(trace, "ranking")[0]["documents"]
                assert {"s": names.count("a") + names.count("c"), "t": names.count("b")} == counts
            else:
                shown = "".join(node.message.text for node in trace.nodes)
                assert (
                    shown.count("> from a") + shown.count("> from c") == counts["s"]
                    and shown.count("> from b") == counts["t"]
                )
            assert len(hits) >= sum(counts.values())
