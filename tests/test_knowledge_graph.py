"""The knowledge graph: its functions, generated questions, players, and graphs and questions from files."""

import asyncio
import gzip
import hashlib
import json
import os
from pathlib import Path
from random import Random

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.benchmarks.agentbench_kg import agentbench_kg
from firsthand.errors import ConfigError, DataError
from firsthand.patterns.thought_action import thought_action
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.trace import Trace
from firsthand.worlds.knowledge.graph_generator import LEAST_RELATIONS, RELATIONS, make_graph, make_question
from firsthand.worlds.knowledge.graph_world import GraphVariable, GraphWorld, answer_f1
from firsthand.worlds.knowledge.triples import Triple, TripleStore, extreme, open_graph, read_triples
from firsthand.worlds.players import play

SHARED = Path(os.environ.get("FIRSTHAND_DATA") or Path(__file__).parents[2] / "shared" / "data")
QUESTIONS = SHARED / "agents" / "agentbench" / "knowledgegraph" / "std.json"
NS = "http://rdf.freebase.com/ns/"


def attempt(benchmark: Benchmark, *actions: str, task: int = 0) -> tuple[Trace, list[str]]:
    """The trace of a scripted agent, and the observations."""
    replies = [f"Thought: t\nAction: {action}" for action in actions]
    agent = Agent("a", Scripted([*replies, "Action: stop"] * 1), thought_action, {"constrained": False})
    trace = asyncio.run(rollout(agent, benchmark.tasks(0)[task], benchmark=benchmark))
    return trace, [call.detail["result"] for call in trace.calls if call.kind == "tool"]


@pytest.fixture(scope="module")
def freebase(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a graph in Freebase's layout and two questions about it."""
    root = tmp_path_factory.mktemp("freebase")
    lines = [
        ("m.1", "film.film.directed_by", f"<{NS}m.2>"),
        ("m.1", "film.film.starring", f"<{NS}m.3>"),
        ("m.1", "film.film.starring", f"<{NS}m.4>"),
        ("m.2", "type.object.name", '"Ann \\"A\\" Lee"@en'),
        ("m.2", "type.object.name", '"Anne"@fr'),
        ("m.3", "people.person.height", '"1.71"^^<http://www.w3.org/2001/XMLSchema#float>'),
        ("m.4", "people.person.height", '"1.9"'),
        ("m.4", "people.person.quotation", '"12 Monkeys"@en'),
        ("m.1", "type.object.type", f"<{NS}film.film>"),
        ("film.film.starring", "type.property.expected_type", f"<{NS}people.person>"),
    ]
    text = "# a comment\n\n" + "".join(f"<{NS}{s}>\t<{NS}{p}>\t{o}\t.\n" for s, p, o in lines)
    (root / "graph.nt.gz").write_bytes(gzip.compress(text.encode()))
    record = {
        "question": "who is the tallest actor of it?",
        "qid": "1_x",
        "source": "x",
        "entities": {"It": "m.1"},
        "s_expression": "",
        "actions": [
            "get_relations(m.1)",
            "get_neighbors(m.1,film.film.starring)",
            "get_attributes(#0)",
            "argmax(#0,people.person.height)",
        ],
        "answer": [{"answer_type": "Entity", "answer_argument": "m.4", "entity_name": "Bo"}],
    }
    (root / "dev.json").write_text(json.dumps([record]))
    return root


def test_a_users_graph_is_read_once_and_answers_the_papers_questions(
    freebase: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    graph = freebase / "graph.nt.gz"
    store = open_graph(graph)
    assert len(store) == 9 and store.name("m.2") == 'Ann "A" Lee' and store.name("m.9") == "m.9"
    assert store.relations(["m.1"]) == ["film.film.directed_by", "film.film.starring"]
    assert store.attributes(["m.3", "m.4"]) == ["people.person.height"]
    kept = list((tmp_path / "cache" / "graphs").iterdir())
    assert [each.suffix for each in kept] == [".sqlite"]
    written = kept[0].stat().st_mtime_ns
    open_graph(graph).close()
    assert kept[0].stat().st_mtime_ns == written
    benchmark = agentbench_kg(split="dev", graph=str(graph), data=str(freebase))
    trace = asyncio.run(play(benchmark, benchmark.tasks(0)[0], "optimal"))
    assert trace.value() == 1 and trace.final_state["rounds"] == 5
    assert trace.final_state["result"]["answer"] == ["m.4"]


@pytest.mark.parametrize("line", ["<a> <b>", '<a> <b> "c', "<a> <b> c d e ."])
def test_a_line_that_is_no_triple_is_named_and_no_index_is_kept(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    (tmp_path / "g.nt").write_text(f"<a> <b> <c> .\n{line}\n")
    with pytest.raises(DataError, match="line 2 is no triple"):
        open_graph(tmp_path / "g.nt")
    assert list((tmp_path / "home" / "cache" / "graphs").iterdir()) == []
    (tmp_path / "broken.nt.gz").write_bytes(b"\x1f\x8bxxxx")
    with pytest.raises(DataError, match="cannot be read"):
        list(read_triples(tmp_path / "broken.nt.gz"))
    with pytest.raises(DataError, match="no graph at"):
        open_graph(tmp_path / "none.nt")


@pytest.mark.skipif(not QUESTIONS.is_file(), reason="AgentBench's questions are not here")
def test_the_papers_questions_say_that_they_need_the_graph():
    with pytest.raises(DataError, match=r"150 questions .* are about Freebase: give graph=FILE"):
        agentbench_kg(split="std", data=str(SHARED))


@pytest.mark.skipif(not QUESTIONS.is_file(), reason="AgentBench's questions are not here")
def test_every_function_of_the_papers_questions_is_in_the_grammar(freebase: Path):
    benchmark = agentbench_kg(split="std", graph=str(freebase / "graph.nt.gz"), data=str(SHARED))
    tasks = benchmark.tasks(0)
    assert len(tasks) == 150
    world = benchmark.environment(tasks[0]).world  # type: ignore[misc, union-attr]
    for task in tasks:
        for action in task.secret["actions"]:
            assert world.read(action).name


def test_questions_without_data_and_wrong_options_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FIRSTHAND_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"no std\.json in"):
        agentbench_kg(split="std", graph="g.nt")
    with pytest.raises(ConfigError, match="split is 'test'"):
        agentbench_kg(split="test")
    with pytest.raises(ConfigError, match="graph and data are for the paper's questions"):
        agentbench_kg(graph="g.nt")


def test_functions_need_what_was_listed_before_and_say_so():
    benchmark = agentbench_kg(level=2, tasks=2)
    task = benchmark.tasks(0)[0]
    first, second = task.secret["actions"][:2]
    trace, seen = attempt(
        benchmark, second, first, second, "get_neighbors(#0, no.such.relation)", "intersection(#0, #7)", "count(#0)",
        "intersection(#0, #1)", "argmax(#0, film.film.runtime)", "get_relations(m.0zzzzzzz)", "union(#0, #0)",
        "count(#0, #0)", "Final Answer: #9", "Final Answer: 1",
    )  # fmt: skip
    assert "get_relations first" in seen[0] and seen[1].startswith("[")
    assert seen[2].startswith("Variable #0, which are instances of ")
    assert "get_relations first" in seen[3] and "'#7' is no variable: there are #0 to #0" in seen[4]
    assert seen[5] == "Variable #1, which is a number." and "#1 is a number" in seen[6]
    assert "get_attributes first" in seen[7] and "no entity m.0zzzzzzz" in seen[8]
    assert "write one of get_relations" in seen[9] and "count takes 1 arguments" in seen[10]
    assert "'#9' is no variable" in seen[11] and seen[12].startswith("The answer is #1.")
    assert trace.final_state["invalid_actions"] == 9 and trace.value() == 0
    assert trace.scores[0].detail["reason"] == "invalid action"


def test_sets_of_two_types_do_not_intersect():
    graph = make_graph(0)
    film = sorted(graph.subjects("film.film.genre"))[0]
    benchmark = agentbench_kg()
    _, seen = attempt(
        benchmark, f"get_relations({film})", f"get_neighbors({film}, film.film.genre)",
        f"get_neighbors({film}, film.film.starring)", "intersection(#0, #1)",
    )  # fmt: skip
    assert "they must have the same type" in seen[3]


def test_the_largest_is_the_largest_and_dates_are_compared_as_dates():
    assert extreme({"a": ["9"], "b": ["10"], "c": ["-3"]}, largest=True) == {"b"}
    assert extreme({"a": ["9"], "b": ["10"], "c": ["-3"]}, largest=False) == {"c"}
    assert extreme({"a": ["2001-02-03"], "b": ["2001"], "c": ["2001-02-03"]}, largest=True) == {"a", "c"}
    assert extreme({"a": ["2001-02-03"], "b": ["2001"]}, largest=False) == {"b"}
    assert extreme({"a": ["text"], "b": []}, largest=True) == frozenset()


def test_f1_is_that_of_sets():
    assert answer_f1(1, 2, 2) == answer_f1(1, 1, 3) == 0.5 and answer_f1(1, 1, 1) == 1.0
    assert answer_f1(0, 0, 1) == answer_f1(0, 1, 1) == 0.0


def test_an_answer_of_more_entities_than_a_run_keeps_is_scored_whole():
    benchmark = agentbench_kg(level=1, tasks=1)
    ids = [f"m.{at:05}" for at in range(20_000)]

    def scored(given: list[str], wanted: list[str]) -> tuple[list[str], float, float]:
        task = Task("t", "", metadata={"entities": {}}, secret={"actions": [], "answer": wanted})
        world = GraphWorld(TripleStore(), task)
        asyncio.run(world.open())
        world.variables.append(GraphVariable("a.b", frozenset(given)))
        asyncio.run(world.final_answer("#0"))
        state = {"rounds": 1, "invalid_actions": 0, "longest_loop": 0, "ended": "answered"}
        trace = Trace(
            "t", "b", "t", {}, 0, 0, "", 0.0, answer="", final_state={**state, "result": asyncio.run(world.result())}
        )
        f1, exact = (scorer(task, trace) for scorer in benchmark.scorers)
        return trace.final_state["result"]["answer"], f1.value, exact.value

    assert scored(ids[:1500], ids[1499::-1]) == (ids[:1000], 1.0, 1.0)
    assert scored(ids, ids[:1000]) == (ids[:1000], pytest.approx(2000 / 21_000), 0.0)
    assert scored(ids[:1000], ids[:1001])[1:] == (pytest.approx(2000 / 2001), 0.0)
    assert scored(ids[:1001], ids[:1000])[1:] == (pytest.approx(2000 / 2001), 0.0)
    assert scored(ids[:2], [*ids[:2], ids[0]])[1:] == (1.0, 1.0), "an entity that the file has twice is one"


def test_every_relation_leads_back():
    graph = make_graph(3)
    for relation in RELATIONS:
        for subject in sorted(graph.subjects(relation.name))[:20]:
            for target in graph.neighbors([subject], relation.name):
                assert subject in graph.neighbors([target], relation.reverse)


@pytest.mark.slow
@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_optimal_player_is_right_and_questions_name_no_answer(level: int):
    benchmark = agentbench_kg(level=level, tasks=25)
    for task in benchmark.tasks(level):
        trace = asyncio.run(play(benchmark, task, "optimal", seed=level))
        assert trace.value() == 1 and trace.value("exact") == 1, task.id
        assert trace.final_state["rounds"] <= 15 and trace.final_state["invalid_actions"] == 0
        names = trace.final_state["result"]["names"]
        assert not set(names) & set(task.metadata["entities"])


def test_native_calls_do_the_same():
    benchmark = agentbench_kg(level=3, tasks=4, actions="native")
    traces = [asyncio.run(play(benchmark, task, "optimal")) for task in benchmark.tasks(0)]
    assert [trace.value() for trace in traces] == [1, 1, 1, 1]


def test_each_listed_action_is_possible():
    benchmark, rng = agentbench_kg(level=3, tasks=6), Random(0)

    async def wander(task: int) -> None:
        environment = benchmark.environment(benchmark.tasks(0)[task])  # type: ignore[misc]
        await environment.open()
        for _ in range(14):
            listed = [a for a in environment.world.admissible() if "Final" not in a]  # type: ignore[attr-defined]
            await environment.act(rng.choice(listed))  # type: ignore[attr-defined]
        assert environment.invalid_actions == 0  # type: ignore[attr-defined]

    for task in range(6):
        asyncio.run(wander(task))


def test_graph_and_questions_are_equal_for_a_seed_to_the_byte():
    made = [make_question(7, index, level) for index in range(8) for level in (1, 2, 3)]
    assert hashlib.sha256(repr(made).encode()).hexdigest()[:16] == "5ef654d2d70d5607"


def test_a_question_of_level_1_is_about_an_entity_with_many_relations_and_no_town_is_its_own_twin():
    graph = make_graph(7)
    for index in range(40):
        (entity,) = make_question(7, index, 1).entities.values()
        assert len(graph.relations([entity])) >= LEAST_RELATIONS
    twin = "location.citytown.twin_town"
    assert all(town not in graph.neighbors([town], twin) for town in graph.subjects(twin))


def test_many_entities_are_asked_in_batches():
    store = TripleStore()
    store.add(Triple(f"m.{n}", "a.b.c", f"m.{n + 1}") for n in range(1000))
    assert len(store.neighbors([f"m.{n}" for n in range(1000)], "a.b.c")) == 1000
    store.close()
