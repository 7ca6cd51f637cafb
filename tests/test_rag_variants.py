"""Every variant as a pattern: what it asks and searches, options refused before the run, its budget, failures handled."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from corpus_tiny import write_index
from firsthand import catalog
from firsthand.agent import Agent
from firsthand.errors import ConfigError
from firsthand.loop.budget import Limits
from firsthand.loop.journal import MemoryJournal
from firsthand.message import Message
from firsthand.model import Sampling
from firsthand.providers.scripted import Scripted
from firsthand.retrieval.answers.answering import NOT_IN_DOCUMENTS
from firsthand.retrieval.answers.variant_parts import recorded_answer
from firsthand.retrieval.rag_effect import retrievals
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.trace import Trace

VARIANTS = ("naive", "advanced", "modular", "hyde", "multi_query", "recursive", "agentic", "team")
TEXTS = {
    "mill.md": "The mill was built in 1871.\nIt burned down in 1902.\nThe owner was Ana Karel.\n",
    "karel.md": "Ana Karel was born in Tesk.\nAna Karel had two sons.\n",
    "tesk.md": "Tesk lies in Norland.\nTesk has 12 bridges.\n",
}
TASK = Task("t", "When was the mill built?")
CITED = "The mill was built in 1871. [1]"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_index(tmp_path_factory.mktemp("rag") / "docs.index", TEXTS)


@pytest.fixture(scope="module")
def words_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_index(tmp_path_factory.mktemp("rag") / "words.index", TEXTS, vectors=False)


def answering(*others: tuple[str, str], answer: str | Callable[[str], str] = CITED) -> Scripted:
    """A model that answers from passages, and gives each of `others` where the last message holds its key."""

    def reply(messages: Sequence[Message], sampling: Sampling, index: int) -> str:
        said = messages[-1].text
        for key, text in others:
            if key in said:
                return text
        return answer(said) if callable(answer) else answer

    return Scripted(reply, score=lambda prompt, word: math.log(0.9 if ("1871" in prompt) == (word == "yes") else 0.1))


def run(
    pattern: str, index: Path, model: Scripted, task: Task = TASK, *, journal=None, limits=None, **options
) -> Trace:
    function, _ = catalog.pattern(pattern)
    agent = Agent("a", model, function, {"index": str(index), **options}, limits=limits or Limits())
    return asyncio.run(rollout(agent, task, journal=journal))


def passages(trace: Trace) -> list[str]:
    _, hits = [found for found in retrievals(trace) if found[1]][-1]
    return [hit.chunk.text for hit in hits]


def kinds(trace: Trace) -> list[str]:
    return [call.kind for call in trace.calls]


SCRIPTS: dict[str, tuple[tuple[str, str], ...]] = {
    "hyde": (("Write a short passage", "It was built in 1871."),),
    "multi_query": (("different search queries", "mill built\nyear of the mill"),),
    "recursive": (("If not, write the one search query", "DONE"),),
    "agentic": (
        ("You may search", "Thought: look.\nAction: search[mill built]"),
        ("Observation:", "Thought: ok.\nFinal Answer: 1871"),
    ),
    "team": (("You coordinate", "mill built"), ("Write READY", "READY")),
}  # fmt: skip


def model_of(variant: str, **more) -> Scripted:
    return answering(*SCRIPTS.get(variant, ()), **more)


# -- all variants --


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_is_found_by_name_and_answers_with_a_checked_citation(variant, index):
    def citing(said: str) -> str:
        return "The mill was built in 1871. " + "".join(f"[{n}]" for n in range(1, 9) if f"<passage {n} " in said)

    trace = run(variant, index, model_of(variant, answer=citing))
    assert trace.error is None, trace.error
    body = recorded_answer(trace)
    assert "The mill was built in 1871." in [each["quote"] for each in body["citations"]]
    assert trace.answer == body["text"] and body["in_documents"]


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_resumed_variant_asks_and_searches_nothing_again(variant, index):
    journal, model = MemoryJournal(), model_of(variant)
    first = run(variant, index, model, journal=journal)
    silent = Scripted(fingerprint=model.fingerprint)
    again = run(variant, index, silent, journal=journal)
    assert again.answer == first.answer and silent.asked == []
    assert all(call.replayed for call in again.calls) and [c.id for c in again.calls] == [c.id for c in first.calls]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_bad_path_and_bad_options_are_refused_when_the_agent_is_made(variant, index, tmp_path):
    function, _ = catalog.pattern(variant)

    def made(**options) -> Agent:
        return Agent("a", Scripted(), function, options)

    for path in (str(tmp_path / "none"), "", str(tmp_path)):
        with pytest.raises(ConfigError, match="firsthand rag index"):
            made(index=path)
    with pytest.raises(ConfigError, match="no index"):
        made()
    good = {"index": str(index)}
    for bad, match in (
        ({"k": 0}, "k is 0"),
        ({"form": "long"}, "form is 'long'"),
        ({"search": "magic"}, "search is 'magic'"),
    ):
        if set(bad) <= set(catalog.options("pattern", variant)):
            with pytest.raises(ConfigError, match=match):
                made(**good, **bad)
    assert made(**good).name == "a"


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_budget_of_calls_ends_a_variant(variant, index):
    trace = run(variant, index, model_of(variant), limits=Limits(calls=2))
    assert trace.stop_reason == "calls" and len(trace.calls) <= 3


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_plain_answer_has_no_citations_and_fits_the_task(variant, index):
    task = Task("t", "When was the mill built?", hint="a number")
    trace = run(variant, index, model_of(variant, answer="In the year 1871."), task)
    assert trace.answer == "1871", trace.error


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_documents_stand_in_no_system_message(variant, index):
    model = model_of(variant)
    function, _ = catalog.pattern(variant)
    agent = Agent("a", model, function, {"index": str(index)}, system="Be brief.")
    asyncio.run(rollout(agent, TASK))
    for asked in model.asked:
        assert all("built in 1871" not in message.text for message in asked.prompt if message.role == "system")


# -- one by one --


def test_naive_searches_once_and_asks_once(index):
    trace = run("naive", index, answering(), k=2)
    assert kinds(trace) == ["tool", "tool", "generate"] and len(passages(trace)) == 2
    assert retrievals(trace)[0][0].detail["arguments"]["retriever"] == "dense"


def test_naive_without_vectors_says_what_to_do_or_searches_terms(words_only):
    with pytest.raises(ConfigError, match="search its terms"):
        run("naive", words_only, answering())
    assert run("naive", words_only, answering(), search="lexical").error is None
    assert run("naive", words_only, answering(), search="hybrid").error is None


def test_advanced_scores_the_pool_and_widens_the_best(index):
    trace = run("advanced", index, answering(), k=1, pool=4)
    assert kinds(trace).count("score") == 4
    assert passages(trace) == ["The mill was built in 1871.\nIt burned down in 1902."]


def test_hyde_embeds_what_the_model_made_up(index):
    model = answering(("Write a short passage", "Tesk lies in Norland."))
    trace = run("hyde", index, model, k=1, n=3)
    assert passages(trace) == ["Tesk lies in Norland."]
    assert model.asked[0].n == 3


def test_multi_query_searches_every_rewriting(index):
    trace = run("multi_query", index, model_of("multi_query"), n=2)
    asked = [call.detail["arguments"]["query"] for call, _ in retrievals(trace)][:3]
    assert asked == ["When was the mill built?", "mill built", "year of the mill"]


@pytest.mark.slow
@pytest.mark.parametrize("rewrite", ["none", "hyde", "multi_query", "step_back"])
@pytest.mark.parametrize("order", ["none", "rerank", "mmr"])
@pytest.mark.parametrize("cap", ["none", "per_source", "distinct"])
def test_modular_composes_its_stages(rewrite, order, cap, index):
    model = answering(("Write a short passage", "built 1871"), ("search queries", "mill"), ("more general", "mills"))
    trace = run("modular", index, model, rewrite=rewrite, order=order, cap=cap, widen="neighbours", k=2)
    assert trace.error is None and recorded_answer(trace)["passages"]


def test_modular_refuses_stages_that_are_not_there_or_do_not_fit(index):
    function, _ = catalog.pattern("modular")
    for bad, match in (
        ({"order": "best"}, "order is 'best'"),
        ({"rewrite": "hyde", "search": "lexical"}, "HyDE searches by vectors"),
    ):
        with pytest.raises(ConfigError, match=match):
            Agent("a", Scripted(), function, {"index": str(index), **bad})


def test_recursive_follows_from_one_document_to_the_next(index):
    steps = iter(["Where was Ana Karel born?", "What lies where Tesk is?", "DONE"])
    model = answering(
        answer=lambda said: next(steps) if "one search query" in said else "Tesk lies in Norland. [1][2][3][4][5]"
    )
    task = Task("t", "In which country was the owner of the mill born?")
    trace = run("recursive", index, model, task, k=1, search="lexical", rounds=3)
    (queries,) = [event.data["queries"] for event in trace.events if event.kind == "queries"]
    assert queries == [task.question, "Where was Ana Karel born?", "What lies where Tesk is?"]
    assert [each["quote"] for each in recorded_answer(trace)["citations"]] == ["Tesk lies in Norland."]


def test_recursive_ends_when_a_query_comes_back_or_nothing_new_is_found(index):
    model = answering(("one search query", "when was the MILL built?"))
    trace = run("recursive", index, model, rounds=5)
    assert len([call for call, hits in retrievals(trace) if hits]) == 1
    endless = iter(range(99))
    model = answering(answer=lambda said: f"query {next(endless)} mill" if "one search query" in said else CITED)
    trace = run("recursive", index, model, rounds=50, k=9, search="lexical")
    assert len([call for call, hits in retrievals(trace) if hits]) <= 3
    empty = run("recursive", index, answering(), Task("t", "xyzzy"), search="lexical")
    assert empty.answer == NOT_IN_DOCUMENTS and "generate" not in kinds(empty)


def test_agentic_decides_when_to_search(index):
    trace = run("agentic", index, model_of("agentic"))
    assert len(retrievals(trace)) == 2 and recorded_answer(trace)["citations"]
    known = run("agentic", index, answering(("You may search", "Thought: I know.\nFinal Answer: Paris")))
    assert (known.answer, retrievals(known)) == ("Paris", [])
    assert [event.data["searched"] for event in known.events if event.kind == "decided"] == [False]


def test_agentic_is_told_that_nothing_new_was_found_and_ends_after_its_steps(index):
    model = answering(
        ("You may search", "Thought: a.\nAction: search[mill]"), ("Observation:", "Thought: a.\nAction: search[mill]")
    )
    trace = run("agentic", index, model, max_steps=3, search="lexical")
    told = [node.message.text for node in trace.nodes if node.message.text.startswith("Observation")]
    assert len(told) == 3 and "Nothing new" in told[-1] and "<passage 1 " in told[0]
    nothing = answering(("You may search", "Action: search[xyzzy]"), ("Observation:", "Action: search[xyzzy]"))
    assert run("agentic", index, nothing, max_steps=2, search="lexical").answer == NOT_IN_DOCUMENTS


def test_the_team_plans_searches_and_reasons_in_three_branches(index):
    trace = run("team", index, model_of("team"))
    assert [event.data["name"] for event in trace.events if event.kind == "branch"] == [
        "coordinator",
        "retrieval",
        "reasoning",
    ]
    assert trace.answer == CITED


def test_a_coordinator_that_loops_is_cut_off(index):
    model = answering(("You coordinate", "mill built"), ("Write READY", "Mill   BUILT"))
    trace = run("team", index, model, rounds=9)
    assert [event.kind for event in trace.events].count("coordinator_loops") == 1
    assert len([call for call, hits in retrievals(trace) if hits]) == 1 and trace.answer == CITED


def test_a_coordinator_that_is_never_content_ends_after_its_rounds(index):
    numbers = iter(range(99))
    model = answering(answer=lambda said: f"mill {next(numbers)}" if "coordinate" in said or "READY" in said else CITED)
    trace = run("team", index, model, rounds=3)
    assert len([call for call, hits in retrievals(trace) if call.detail["arguments"]["retriever"] == "hybrid"]) == 3
    assert trace.answer == CITED


def test_a_coordinator_that_is_ready_before_any_search_has_the_question_searched(index):
    model = answering(("You coordinate", "READY"), ("Write READY", "READY"))
    trace = run("team", index, model)
    assert retrievals(trace)[0][0].detail["arguments"]["query"] == TASK.question and trace.answer == CITED


def test_retrieval_that_finds_nothing_ends_without_reasoning(index):
    queries = iter(["xyzzy", "plugh", "frotz"])
    model = answering(answer=lambda said: next(queries))
    trace = run("team", index, model, search="lexical")
    assert trace.answer == NOT_IN_DOCUMENTS and not recorded_answer(trace)["in_documents"]
    assert [event.data["queries"] for event in trace.events if event.kind == "nothing_found"] == [
        ["xyzzy", "plugh", "frotz"]
    ]
    assert not any("Answer the question from the passages" in node.message.text for node in trace.nodes)
    assert "found 0 new passages (0 in all), from: none" in "".join(node.message.text for node in trace.nodes)


def test_reasoning_that_ignores_the_evidence_is_asked_again_and_then_stripped(index):
    drafts = iter([f"{CITED} Ghosts live there. [1]", CITED])
    better = answering(*SCRIPTS["team"], answer=lambda said: next(drafts))
    trace = run("team", index, better)
    assert trace.answer == CITED
    assert [event.data["claims"] for event in trace.events if event.kind == "reasoning_ignores"] == [
        ["Ghosts live there."]
    ]
    stubborn = answering(*SCRIPTS["team"], answer=f"{CITED} Ghosts live there. [1]")
    assert run("team", index, stubborn).answer == CITED
    empty = answering(*SCRIPTS["team"], answer="Ghosts live there. [1]")
    assert run("team", index, empty).answer == NOT_IN_DOCUMENTS


def test_the_coordinator_reads_no_passage(index):
    model = model_of("team")
    run("team", index, model)
    read = [asked.prompt for asked in model.asked if any("You coordinate" in message.text for message in asked.prompt)]
    assert read and all("1871" not in message.text for prompt in read for message in prompt)


def test_variants_compose_with_other_patterns(index):
    function, options = catalog.pattern(f"self_consistency(naive:index={index}:form=plain):samples=3")
    trace = asyncio.run(rollout(Agent("a", answering(answer="1871"), function, options), TASK))
    assert trace.answer == "1871" and len(retrievals(trace)) == 6
    assert isinstance(function, partial)
