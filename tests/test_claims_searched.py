"""The indexes and scripted models of the claims on RAG, facts and costs: what is put in, searched, shown and counted."""

import time
from itertools import product
from pathlib import Path
from random import Random

import pytest

from firsthand.benchmarks.closed_world import make_tasks, make_world
from firsthand.claims import fact_arms, scripted_costs, scripted_rag
from firsthand.claims.claim import Measurement
from firsthand.claims.fact_arms import FactIndex, closed_book, correct, fact_index, read, recalled
from firsthand.claims.fact_language import FIRST, LAST, RELATIONS, VALUES, changed, facts_of, people, question, sentence
from firsthand.claims.fact_models import Sample
from firsthand.claims.lab import Lab
from firsthand.claims.made_up_pages import page_index, page_questions, put_pages
from firsthand.claims.scripted_rag import QUESTION, TEXTS, answered, searches
from firsthand.loop.concurrency import run_sync
from firsthand.loop.critical_path import critical_calls
from firsthand.message import user
from firsthand.providers import local_embedder
from firsthand.retrieval import corpus
from firsthand.retrieval.chunk_index import IndexHeader
from firsthand.retrieval.chunking.chunkers import open_chunker
from firsthand.retrieval.corpus import close_corpora, open_corpus
from firsthand.retrieval.retriever import Query
from firsthand.retrieval.retrievers.searches import lexical
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.scorers.contained import contains_value
from firsthand.trace import Call, Trace


def found(path, asked, k):
    """The texts of the best passages by words."""
    try:
        return [hit.chunk.text for hit in run_sync(lexical(open_corpus(path))(Query(asked), k))]
    finally:
        close_corpora()


def test_pages_are_passages_and_a_page_of_the_same_name_is_replaced(tmp_path):
    path = tmp_path / "a.index"
    put_pages(path, {"one": "The mill is red.", "two": "The bakery is blue."})
    put_pages(path, {"two": "The bakery is green.", "three": "A mill and a bakery."})
    assert found(path, "bakery", 5) == ["The bakery is green.", "A mill and a bakery."]
    assert found(path, "red mill", 1) == ["The mill is red."] and found(path, "blue", 5) == []
    index = open_index(path)
    try:
        (chunk,) = index.chunks("two")
        assert (chunk.document, chunk.start, chunk.end, len(index)) == ("two", 0, 20, 3)
        assert index.header == IndexHeader("", "", 0, "whole") and index.document("one").text == "The mill is red."
    finally:
        index.close()


def test_the_index_of_the_made_up_town_is_made_once_and_its_questions_are_those_of_its_seed(tmp_path):
    path = page_index(Lab(3, tmp_path / "no" / "l"))
    facts = make_world(3)
    town = next(iter(facts))
    assert path == tmp_path / "no" / "l" / "pages-3.index" and facts[town]["page"] in found(
        path, f"the river of {town}", 3
    )
    written = path.stat().st_mtime_ns
    assert page_index(Lab(3, tmp_path / "no" / "l")) == path and path.stat().st_mtime_ns == written
    assert [each.name for each in path.parent.iterdir() if each.suffix == ".index"] == ["pages-3.index"]
    one, two = page_questions(3, 4), page_questions(5, 2, hops=2)
    assert (one.name, one.scorers) == ("made_up_pages", (contains_value,))
    assert (one.tasks(77), two.tasks(0)) == (make_tasks(3, (1,), 4), make_tasks(5, (2,), 2))


def test_people_facts_and_their_changes_are_drawn_in_order():
    persons = people(5, 8)
    assert persons == Random("people-8").sample(list(product(FIRST, LAST)), 5)
    rng = Random(2)
    drawn = [rng.sample(VALUES, 4) for _ in persons]
    facts = facts_of(persons, Random(2))
    assert list(facts.items()) == [
        ((person, relation), values[at]) for person, values in zip(persons, drawn, strict=True)
        for at, relation in enumerate(RELATIONS)
    ]  # fmt: skip
    rng, wanted = Random(6), dict(facts)
    for person in rng.sample(persons, 4):  # 3.5 of five is rounded to even, and so is 2.5
        free = [value for value in VALUES if value not in {facts[person, r] for r in RELATIONS}]
        wanted |= {(person, r): value for r, value in zip(RELATIONS, rng.sample(free, 4), strict=True)}
    assert changed(facts, 0.7, Random(6)) == wanted and facts == facts_of(persons, Random(2))
    moved = {person for (person, r), value in changed(facts, 0.5, Random(6)).items() if value != facts[person, r]}
    assert len(moved) == 2 and len(wanted) == 20


FACTS = facts_of(people(3, 1), Random(1))
ASKED = list(FACTS)


def test_an_index_of_facts_is_brought_up_to_date_and_its_seconds_leave_out_the_writing(tmp_path, monkeypatch):
    clock, write = [0.0], fact_arms.write_documents

    def slow(folder, facts):
        clock[0] += 100
        write(folder, facts)

    def tick():
        clock[0] += 0.25
        return clock[0]

    monkeypatch.setattr(fact_arms, "write_documents", slow)
    index = FactIndex(tmp_path)
    assert (index.folder, index.path) == (tmp_path / "documents", tmp_path / "facts.index")
    with monkeypatch.context() as patched:
        patched.setattr(time, "process_time", tick)
        assert 0 < index.update(FACTS) < 50
    told = [sentence(*each, FACTS[each]) for each in ASKED]
    assert [hit.chunk.text.strip() for hit in index.search(ASKED[::-1])] == told[::-1] and index.search([]) == []
    now = FACTS | {ASKED[4]: "brab" if FACTS[ASKED[4]] != "brab" else "flix"}
    index.update(now)
    close_corpora()
    assert [hit.chunk.text.strip() for hit in index.search(ASKED[3:6])] == [
        told[3], sentence(*ASKED[4], now[ASKED[4]]), told[5],
    ]  # fmt: skip
    close_corpora()


def test_both_arms_ask_in_the_order_of_the_questions_and_the_folder_goes_with_the_index(monkeypatch):
    given = []
    monkeypatch.setattr(
        fact_arms, "answers", lambda *asked: given.append(asked) or [str(at) for at in range(len(asked[1]))]
    )
    closed = []
    monkeypatch.setattr(corpus, "close_corpora", lambda: closed.append(close_corpora()))
    with fact_index(FACTS) as index:
        folder = index.path.parent
        assert read("model", index, ASKED[1:3], before="so then", words=3) == ["0", "1"]
        read("other", index, ASKED[:1])
        assert index.path.exists()
    assert not folder.exists()
    with pytest.raises(KeyError), fact_index(FACTS) as index:
        folder = index.path.parent
        raise KeyError
    assert not folder.exists() and closed == [None, None], "its files are let go of, with an error or without"
    assert recalled("third", ASKED[2:4], words=2) == ["0", "1"] and recalled("fourth", ASKED[:1]) == ["0"]
    told = [sentence(*each, FACTS[each]) for each in ASKED]
    spoken = [(model, [" ".join(prompt.split()) for prompt in prompts], words) for model, prompts, words in given]
    assert spoken == [
        ("model", [f"so then {told[at]} {question(*ASKED[at])}" for at in (1, 2)], 3),
        ("other", [f"{told[0]} {question(*ASKED[0])}"], 1),
        ("third", [question(*each) for each in ASKED[2:4]], 2),
        ("fourth", [question(*ASKED[0])], 1),
    ]
    few = {each: FACTS[each] for each in ASKED[:2]}
    assert closed_book(few) == [Sample(question(*each), f"{value} .") for each, value in few.items()]
    assert closed_book(few, "so {} !") == [Sample(question(*each), f"so {value} !") for each, value in few.items()]
    right, wrong = FACTS[ASKED[0]], FACTS[ASKED[1]]
    texts = [f"{right} .", f"so {right}", "", right, wrong]
    assert correct(texts, [ASKED[0]] * 5, FACTS) == [1.0, 0.0, 0.0, 1.0, 0.0]


def test_the_three_texts_are_put_into_an_index_with_vectors_once(tmp_path, monkeypatch):
    class Embedder:
        fingerprint = "of the test"

        async def embed(self, texts, **more):
            return [[0.6, 0.0, 0.8] if "Karel had" in text else [0.0, 1.0, 0.0] for text in texts]

    asked = []
    monkeypatch.setattr(local_embedder, "open_embedder", lambda name: asked.append(name) or Embedder())

    class LabOfOne(Lab):
        def path(self, name):
            asked.append(f"path {name}")
            return Path(name)

    lab = LabOfOne(1, tmp_path / "lab")
    path = scripted_rag._index(lab)
    assert path == lab.folder / "mill.index" == scripted_rag._index(lab) and asked == ["path minilm", "minilm"]
    assert {each.name: each.read_text() for each in (lab.folder / "mill").iterdir()} == TEXTS
    assert [each.name for each in lab.folder.iterdir() if each.suffix == ".index"] == ["mill.index"]
    index = open_index(path)
    try:
        assert index.header == IndexHeader("minilm", "of the test", 3, open_chunker("auto").text)
        texts = {name: [chunk.text for chunk in index.chunks(name)] for name in index.hashes()}
        assert sorted("".join(each) for each in texts.values()) == sorted(text.strip() for text in TEXTS.values())
        (chunk,) = index.chunks(next(name for name in texts if "karel" in name))
        assert index.vectors([chunk.id])[0].tolist() == pytest.approx([0.6, 0.0, 0.8], abs=1e-3)
    finally:
        index.close()


def call(**detail):
    return Call("0:0", "tool", 0, 0.0, 0.0, "r", detail={"name": "retrieve", "items": [], **detail})


def test_searches_are_the_queries_of_reads_in_their_order():
    calls = [
        call(arguments={"query": "one", "k": 2}), call(arguments={"queries": ["two", "three"]}),
        call(request={"query": "four"}), call(query="five"), call(arguments={"k": 2}),
        call(arguments={"queries": [], "query": "six"}),
        call(arguments={"queries": ("seven", "")}), Call("0:1", "generate", 0, 0.0, 0.0, "r", detail={"query": "no"}),
        call(name="other", arguments={"query": "no"}), call(arguments={"query": "one"}),
    ]  # fmt: skip
    trace = Trace("1", "b", "1", {"name": "a"}, 0, 0, "", 0.0, calls=calls)
    assert searches(trace) == ["one", "two", "three", "four", "five", "six", "seven", "one"]


def test_a_pattern_is_asked_the_question_over_the_index_and_replies_go_by_the_first_word_that_is_there(tmp_path):
    lab = Lab(9, tmp_path)
    put_pages(tmp_path / "mill.index", {"a": "The mill was built in 1871.", "b": "A mill was sold.", "c": "No word."})
    replies = {"nothing of it": "never", "built in 1871": "It says 1871. [1]", "": "other"}
    trace = answered(lab, "naive", replies, settings={"search": "lexical", "k": 2})
    close_corpora()
    assert (trace.answer, trace.seed, trace.task_id, trace.agent["name"]) == ("It says 1871. [1]", 9, "1", "naive")
    assert searches(trace) == [QUESTION] and trace.nodes[-2].message.text.count("mill") >= 2
    assert answered(lab, "naive", {"": "other"}, settings={"search": "lexical"}).answer
    turns = {"You coordinate a team": "mill built", "The search for": "READY", "": "It says 1871. [1]"}
    trace = answered(lab, "team", turns, settings={"search": "lexical"})
    assert [node.message.text for node in trace.nodes if node.message.role == "assistant"] == list(turns.values())
    with pytest.raises(AssertionError, match="StopIteration"):
        answered(lab, "naive", {"not there": "x"}, settings={"search": "lexical"})
    close_corpora()


REPLIES = {
    ("Actions: one Action line", "Give a numbered list"): "1. Count the first boxes\n2. Count the other boxes\n3. Add them",
    ("An Action line", "How many step by step?"): f"Thought: {scripted_costs.THOUGHT}\nAction: calculator[3*4 + 2*5]",
    ("Actions: one Action line", "Observation: 22"): "Thought: I know it.\nFinal Answer: 22",
    ("Question", "Observation: think step by step"): "Thought: I know it.\nFinal Answer: 22",
    ("Question", "think step by step, or choose an Action"): f"{scripted_costs.THOUGHT} The answer is 22",
    ("sure or impossible", "SURE, likely or Impossible"): "sure",
    ("sure or impossible", "sure"): "The answer is 22",
    ("a numbered list, step by step", "impossible"): "The answer is 22",
    ("Observation", "How many?"): "The answer is 22",
}  # fmt: skip
"""First and last message -> the reply."""


def test_the_willing_model_replies_by_what_it_was_asked_last_and_acts_where_actions_were_explained():
    told = {said: scripted_costs._reply([user(said[0]), user("a"), user(said[1])], None, 0) for said in REPLIES}
    assert told == REPLIES
    assert scripted_costs._reply([user("An Action?")], None, 0).startswith("Thought: Three boxes")


def test_a_patterns_cost_is_its_tokens_over_those_of_a_plain_answer_with_its_calls(monkeypatch):
    made = []
    attempt = scripted_costs._attempt
    monkeypatch.setattr(scripted_costs, "_attempt", lambda *given: made.append((given, attempt(*given))) or made[-1][1])
    measured = scripted_costs.pattern_cost(Lab(6), "self_consistency", {"samples": 3})
    (first, plain), (second, voted) = made
    assert (first, second) == (("direct", {}, 6), ("self_consistency", {"samples": 3}, 6))
    tokens = [float(trace.usage.total_tokens) for trace in (plain, voted)]
    assert tokens[1] > 3 * tokens[0] and (plain.seed, plain.task_id) == (6, "1")
    assert measured == Measurement(
        tokens[1] / tokens[0],
        "tokens of `self_consistency` over those of one plain answer",
        columns=("pattern", "tokens", "calls", "calls in a row"),
        rows=(("direct", tokens[0], 1.0, 1.0), ("self_consistency", tokens[1], 1.0, float(critical_calls(voted)))),
    )
    assert scripted_costs.pattern_cost(Lab(6), "orchestrate").rows[1][2:] == (5.0, 3.0), "three workers at once"
    reacted = scripted_costs.pattern_cost(Lab(6), "react")
    assert reacted.rows[1][2:] == (2.0, 3.0), "two generations, and a tool between them"
    assert [call.detail.get("name") for call in made[-1][1].calls] == [None, "calculator", None]
