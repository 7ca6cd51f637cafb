"""Reads of a corpus inside an attempt: recorded, budgeted, guarded, and made once."""

from __future__ import annotations

import asyncio

import pytest

from corpus_tiny import tiny_corpus
from firsthand.agent import Agent
from firsthand.context import Context
from firsthand.guard import GuardVerdict
from firsthand.loop.approval import Approval
from firsthand.loop.budget import Limits
from firsthand.loop.journal import MemoryJournal
from firsthand.providers.scripted import Scripted
from firsthand.retrieval.corpus import Corpus, as_one
from firsthand.retrieval.hit_json import hit_from_json, hit_to_json
from firsthand.retrieval.rag_effect import effect_of, retrievals
from firsthand.retrieval.retriever import Query
from firsthand.retrieval.retrievers.fusion import fuse
from firsthand.retrieval.retrievers.searches import dense, hybrid, lexical
from firsthand.retrieval.writer import writer_of
from firsthand.rollout import rollout
from firsthand.runs.forking import Kept, kept_calls
from firsthand.safety.policy import CallPolicy
from firsthand.task import Task
from firsthand.trace import Trace

TEXTS = {"cats.txt": "the cat sat on the mat\nthe key is sk-12345 here\n", "dogs.txt": "the dog ran\na log\n"}
TASK = Task("t", "the cat sat")


def agent_of(pattern, **more) -> Agent:
    return Agent("a", Scripted(["done"] * 9), pattern, **more)


def search_of(corpus: Corpus, k: int = 2, make=lexical):
    async def pattern(task: Task, ctx: Context) -> str:
        hits = await make(corpus.through(effect_of(ctx, "documents in notes")))(Query(task.question), k)
        return " | ".join(hit.chunk.text for hit in hits)

    return pattern


def run(agent: Agent, **more) -> Trace:
    return asyncio.run(rollout(agent, TASK, **more))


def test_a_search_is_one_call_of_retrieve_with_its_hits():
    corpus = tiny_corpus(TEXTS)
    trace = run(agent_of(search_of(corpus)))
    ((call, hits),) = retrievals(trace)
    assert (call.detail["name"], call.detail["origin"]) == ("retrieve", "documents in notes")
    assert call.detail["arguments"] == {"retriever": "lexical", "query": "the cat sat", "k": 2}
    assert [hit.chunk.text for hit in hits] == trace.answer.split(" | ")
    assert [step.retriever for step in hits[0].trail] == ["lexical"] and hits[0].trail[0].rank == 1


def test_a_resumed_attempt_does_not_search_again():
    corpus, journal = tiny_corpus(TEXTS), MemoryJournal()
    first = run(agent_of(search_of(corpus)), journal=journal)
    searched = len(corpus.index.searches)
    again = run(agent_of(search_of(corpus)), journal=journal)
    assert (again.answer, len(corpus.index.searches)) == (first.answer, searched)
    assert again.calls[0].replayed and not first.calls[0].replayed
    assert again.calls[0].detail == first.calls[0].detail


def test_a_fork_finds_the_hits_in_its_parents_trace():
    corpus = tiny_corpus(TEXTS)

    async def pattern(task: Task, ctx: Context) -> str:
        hits = await lexical(corpus.through(effect_of(ctx)))(Query(task.question), 1)
        return (await ctx.say(hits[0].chunk.text).generate()).text

    parent = run(agent_of(pattern))
    kept = kept_calls(parent, len(parent.nodes) - 1)
    searched = len(corpus.index.searches)
    again = run(agent_of(pattern), journal=Kept(MemoryJournal(), parent, kept))
    assert len(corpus.index.searches) == searched and again.answer == parent.answer


def test_a_search_is_charged_as_one_call():
    trace = run(agent_of(search_of(tiny_corpus(TEXTS)), limits=Limits(calls=1)))
    assert trace.error is None and trace.answer

    async def twice(task: Task, ctx: Context) -> str:
        for _ in range(2):
            await lexical(corpus.through(effect_of(ctx)))(Query(task.question), 1)
        return "done"

    corpus = tiny_corpus(TEXTS)
    assert run(agent_of(twice, limits=Limits(calls=1))).stop_reason == "calls"
    assert len(corpus.index.searches) == 1


class Withholds:
    def result(self, view, tool, result):
        if "sk-" in result.content:
            return GuardVerdict.blocked("secrets", "holds a key")
        return GuardVerdict.passed("secrets")


class Redacts:
    def result(self, view, tool, result):
        from dataclasses import replace

        assert result.origin == "documents in notes" and tool.name == "retrieve"
        return GuardVerdict.replaced("words", replace(result, content=result.content.replace("cat", "[animal]")))


class Adds:
    def result(self, view, tool, result):
        from dataclasses import replace

        return GuardVerdict.replaced("adds", replace(result, content=result.content + "!"))


def test_a_fork_does_not_guard_again_what_its_parents_pattern_read():
    corpus = tiny_corpus(TEXTS)

    async def pattern(task: Task, ctx: Context) -> str:
        hits = await lexical(corpus.through(effect_of(ctx)))(Query(task.question), 1)
        return (await ctx.say(hits[0].chunk.text).generate()).text

    parent = run(agent_of(pattern, guard=Adds()))
    kept = kept_calls(parent, len(parent.nodes) - 1)
    again = run(agent_of(pattern, guard=Adds()), journal=Kept(MemoryJournal(), parent, kept))
    assert [trace.nodes[0].message.text for trace in (parent, again)] == ["the cat sat on the mat!"] * 2


class NoSearch:
    def call(self, view, tool, arguments):
        return GuardVerdict.blocked("no_search", f"no search for {arguments['query']}")


class OtherQuery:
    def call(self, view, tool, arguments):
        return GuardVerdict.replaced("rewrite", arguments | {"query": "dog"})


def test_a_guard_withholds_one_hit_and_the_others_stay():
    corpus = tiny_corpus(TEXTS)
    trace = run(agent_of(search_of(corpus, k=9), guard=Withholds()))
    assert "sk-" not in trace.answer and "the cat sat on the mat" in trace.answer
    assert [event.kind for event in trace.events].count("withheld") == 1
    assert "sk-" not in str(trace.calls)


def test_the_policy_guard_lets_a_pattern_search():
    trace = run(agent_of(search_of(tiny_corpus(TEXTS)), guard=CallPolicy()))
    assert "the cat sat on the mat" in trace.answer and trace.calls[0].error is None


def test_a_guard_rewrites_the_text_of_a_hit():
    corpus = tiny_corpus(TEXTS)
    assert "[animal] sat" in run(agent_of(search_of(corpus), guard=Redacts())).answer


def test_a_guard_refuses_a_query_and_nothing_is_found():
    corpus = tiny_corpus(TEXTS)
    journal = MemoryJournal()
    for _ in range(2):  # the second time from the journal
        trace = run(agent_of(search_of(corpus), guard=NoSearch()), journal=journal)
        assert trace.answer == "" and trace.error is None
        assert "no search for the cat sat" in trace.calls[0].error
    assert corpus.index.searches == []


@pytest.mark.parametrize("make", [lexical, dense, hybrid])
def test_a_guard_changes_the_query(make):
    corpus = tiny_corpus(TEXTS)
    assert "the dog ran" in run(agent_of(search_of(corpus, 1, make), guard=OtherQuery())).answer


def test_approval_denies_a_search_and_a_replay_says_so_too():
    corpus, journal = tiny_corpus(TEXTS), MemoryJournal()
    for _ in range(2):
        trace = run(agent_of(search_of(corpus), approval=Approval({"retrieve": "deny"})), journal=journal)
        assert trace.answer == "" and trace.calls[0].detail["is_error"]
    assert corpus.index.searches == []


def test_as_one_records_one_call_with_the_hits_that_come_out():
    corpus = tiny_corpus(TEXTS)

    def both(corpus: Corpus):
        return as_one(corpus, "both", fuse(dense(corpus), lexical(corpus)))

    trace = run(agent_of(search_of(corpus, 1, both)))
    ((call, hits),) = retrievals(trace)
    assert call.detail["arguments"]["retriever"] == "both" and len(hits) == 1
    assert [step.retriever for step in hits[0].trail] == ["dense", "lexical", "rrf"]
    plain = run(agent_of(search_of(corpus, 1, lambda c: fuse(dense(c), lexical(c)))))
    assert len(retrievals(plain)) == 2 and plain.answer == trace.answer


def test_a_model_is_not_asked_within_a_read():
    corpus = tiny_corpus(TEXTS)

    async def pattern(task: Task, ctx: Context) -> str:
        async def asks(query: Query, k: int):
            await writer_of(ctx).write("rewrite this")
            return []

        await as_one(corpus.through(effect_of(ctx)), "bad", asks)(Query("x"), 1)
        return ""

    assert "put as_one around" in run(agent_of(pattern)).error.message


def test_branches_record_their_searches_apart():
    corpus = tiny_corpus(TEXTS)

    async def pattern(task: Task, ctx: Context) -> str:
        found = lexical(corpus.through(effect_of(ctx)))
        lists = await ctx.group(found(Query(text), 1) for text in ("cat", "dog"))
        return " | ".join(hit.chunk.text for hits in lists for hit in hits)

    journal = MemoryJournal()
    first = run(agent_of(pattern), journal=journal)
    assert {call.id for call in first.calls} == {"0.0:0", "0.1:0"}
    assert run(agent_of(pattern), journal=journal).answer == first.answer == "the cat sat on the mat | the dog ran"


def test_hits_survive_json_with_trail_and_place():
    corpus = tiny_corpus(TEXTS, year=1999)
    hits = asyncio.run(hybrid(corpus)(Query("the cat"), 3))
    assert [hit_from_json(hit_to_json(hit)) for hit in hits] == list(hits)
