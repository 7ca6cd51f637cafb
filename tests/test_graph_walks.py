"""A walk through a graph of a dozen triples with whole replies, and tau-bench's tasks as they are read from a file."""

import asyncio
import json
from random import Random
from typing import Any

import pytest

from firsthand.errors import DataError
from firsthand.task import Task
from firsthand.worlds.knowledge import graph_world
from firsthand.worlds.knowledge.graph_world import GraphWorld, answer_f1
from firsthand.worlds.knowledge.triples import EXPECTED_TYPE, NAME, Triple, TripleStore
from firsthand.worlds.tau.tau_tasks import TauTask, domain_folder, read_tables, read_tasks
from firsthand.worlds.world import InvalidAction, WorldCall


def store() -> TripleStore:
    made = TripleStore()
    made.add(
        [
            Triple("m.0ann", NAME, "Ann", True), Triple("m.0bob", NAME, "Bob", True), Triple("m.0cy", NAME, "Cy", True),
            Triple("m.0ann", "people.friend", "m.0bob"), Triple("m.0ann", "people.friend", "m.0cy"),
            Triple("m.0ann", "people.boss", "m.0cy"), Triple("m.0bob", "people.pet", "m.0rex"),
            Triple("m.0bob", "people.age", "31", True), Triple("m.0cy", "people.age", "9", True),
            Triple("m.0ann", "type.object.type", "people.person"),
            Triple("people.friend", EXPECTED_TYPE, "people.person"), Triple("people.boss", EXPECTED_TYPE, "people.person"),
        ]
    )  # fmt: skip
    return made


ACTIONS = ["get_relations(m.0ann)", "Final Answer: #0"]
TASK = Task(
    "q",
    "Who?",
    metadata={"entities": {"Ann": "m.0ann"}, "question": "Who is it?"},
    secret={"actions": ACTIONS, "answer": ["m.0cy", "m.0rex", "2"]},
)


def test_a_walk_lists_what_can_follow_after_each_step_and_names_what_is_found():
    world = GraphWorld(store(), TASK)

    def said(text: str) -> str:
        call = world.read(text)
        return asyncio.run(next(each for each in world.moves if each.__name__ == call.name)(**call.arguments))

    asyncio.run(world.open())
    assert world.admissible() == ["get_relations(m.0ann)"]
    assert asyncio.run(world.result()) == {"answer": [], "names": [], "size": 0, "hits": 0}
    assert said("get_relations(m.0ann)") == "[people.boss, people.friend]"
    assert world.admissible() == ["get_neighbors(m.0ann, people.boss)", "get_neighbors(m.0ann, people.friend)"]
    assert said("get_neighbors(m.0ann, people.friend)") == "Variable #0, which are instances of people.person"
    assert said("get_neighbors( m.0ann ,people.boss )") == "Variable #1, which are instances of people.person"
    assert said("get_relations(#00)") == "[people.pet]"
    assert said("get_neighbors(0, people.pet)") == "Variable #2, which are instances of common.topic"
    assert said("get_attributes(#0)") == "[people.age]"
    assert world.admissible() == [
        "get_relations(#1)", "get_relations(#2)", "get_neighbors(m.0ann, people.boss)",
        "get_neighbors(m.0ann, people.friend)", "get_neighbors(#0, people.pet)", "intersection(#0, #1)", "count(#0)",
        "get_attributes(#1)", "count(#1)",
        "get_attributes(#2)", "count(#2)", "argmax(#0, people.age)", "argmin(#0, people.age)", "Final Answer: #0",
        "Final Answer: #1", "Final Answer: #2",
    ]  # fmt: skip
    assert said("argmax(#0, people.age)") == "Variable #3, which are instances of people.person"
    assert said("argmin(#0, people.age)") == "Variable #4, which are instances of people.person"
    assert said("intersection(#0, #1)") == "Variable #5, which are instances of people.person"
    assert said("intersection(#0, #2)") == "Variable #6, which are instances of people.person"
    assert said("count(#0)") == "Variable #7, which is a number."
    members = [sorted(each.members) for each in world.variables]
    assert members == [["m.0bob", "m.0cy"], ["m.0cy"], ["m.0rex"], ["m.0bob"], ["m.0cy"], ["m.0cy"], [], []]
    assert world.render().splitlines() == [
        "Who is it?", "#0 people.person (2): Bob, Cy", "#1 people.person (1): Cy", "#2 common.topic (1): m.0rex",
        "#3 people.person (1): Bob", "#4 people.person (1): Cy", "#5 people.person (1): Cy", "#6 people.person (0): ",
        "#7 type.int: 2",
    ]  # fmt: skip
    listed = world.admissible()
    assert "count(#7)" not in listed and "get_relations(#7)" not in listed
    assert listed[-1] == "Final Answer: #7"
    for text, told in (
        ("get_neighbors(m.0ann, people.pet)",
         "people.pet is no listed relation of m.0ann; its relations are [people.boss, people.friend]"),
        ("get_neighbors(#1, people.pet)",
         "people.pet is no listed relation of #1; its relations are not listed yet: get_relations first"),
        ("argmax(#1, people.age)",
         "people.age is no listed attribute of #1; its attributes are not listed yet: get_attributes first"),
        ("argmin(#0, people.pet)", "people.pet is no listed attribute of #0; its attributes are [people.age]"),
        ("count(#8)", "'#8' is no variable: there are #0 to #7"),
        ("count(#7)", "#7 is a number: it can only be the final answer"),
        ("get_relations(m.0zoe)", "the graph has no entity m.0zoe: use the question's entities or a variable #n"),
        ("get_neighbors(#1)", "get_neighbors takes 2 arguments, variable and relation: '#1' came"),
        ("count(#1, #2)", "count takes 1 arguments, variable: '#1, #2' came"),
    ):  # fmt: skip
        with pytest.raises(InvalidAction) as refused:
            said(text)
        assert str(refused.value) == told
    assert len(world.variables) == 8
    assert said("Final Answer: #0") == "The answer is #0."
    assert asyncio.run(world.result()) == {"answer": ["m.0bob", "m.0cy"], "names": ["Bob", "Cy"], "size": 2, "hits": 1}
    assert said("Final Answer: #7") == "The answer is #7."
    counted = {"answer": ["2"], "names": [], "size": 1, "hits": 1}
    assert (asyncio.run(world.result()), world.ending) == (counted, "answered")
    assert [world.optimal(), world.optimal()] == ACTIONS
    assert world.random(Random(2)) in world.admissible()
    asyncio.run(world.open())
    assert (world.ending, world.variables, world.optimal()) == (None, [], ACTIONS[0])
    with pytest.raises(InvalidAction, match=r"^'#0' is no variable: there are none yet$"):
        said("count(#0)")


def test_entities_are_offered_by_their_ids_and_long_or_numerous_names_are_cut():
    entities = {"Zed": "m.0bob", "Cy": "m.0ann", "A": "m.0cy"}
    world = GraphWorld(store(), Task("q", "Who then?", metadata={"entities": entities}, secret={"actions": []}))
    asyncio.run(world.open())
    assert world.admissible() == [f"get_relations({each})" for each in ("m.0ann", "m.0bob", "m.0cy")]
    assert world.render() == "Who then?", "the prompt, where the question does not stand by itself"
    variable = graph_world.GraphVariable
    world._add(variable("a.b", frozenset(f"m.{number:02}" for number in range(11))))
    names = ", ".join(f"m.{number:02}" for number in range(10))
    assert world.render() == f"Who then?\n#0 a.b (11): {names}"
    assert asyncio.run(world.count(" #0 ")) == "Variable #1, which is a number."
    assert world.variables.pop() == variable("type.int", frozenset(), 11) and len(world.graph) == 12
    world._attributes["#0"] = world._relations["#0"] = ["x"]
    for made, told in (
        (world.argmax("#0", "y" * 81), f"{'y' * 80} is no listed attribute of #0; its attributes are [x]"),
        (world.get_neighbors("#0", "y" * 81), f"{'y' * 80} is no listed relation of #0; its relations are [x]"),
        (world.count("z" * 41), f"'{'z' * 40}' is no variable: there are #0 to #0"),
        (world.get_relations("m." + "z" * 41),
         f"the graph has no entity m.{'z' * 38}: use the question's entities or a variable #n"),
        (world.count("#1"), "'#1' is no variable: there are #0 to #0"),
    ):  # fmt: skip
        with pytest.raises(InvalidAction) as refused:
            asyncio.run(made)
        assert str(refused.value) == told
    world.variables[0] = variable("a.b", frozenset(f"m.{number:04}" for number in range(1001)))
    asyncio.run(world.final_answer("0"))
    result = asyncio.run(world.result())
    assert (len(result["answer"]), result["answer"][-1]) == (1000, "m.0999")
    assert (result["size"], result["hits"]) == (1001, 0), "all of them count"
    assert result["names"] == result["answer"][:20] and world.ending == "answered"
    with pytest.raises(InvalidAction, match=r"is no action: write one of get_relations, .*, count with its arguments"):
        world.read("final_answer(#0) now")
    assert world.read("count ( #0 )") == WorldCall("count", {"variable": "#0"})
    with pytest.raises(InvalidAction, match=r"^intersection takes 2 arguments, first and second: '#0,' came$"):
        world.read("intersection(#0, )")


def test_two_types_do_not_meet_and_too_many_entities_are_refused(monkeypatch):
    world = GraphWorld(store(), TASK)
    asyncio.run(world.open())
    monkeypatch.setattr(graph_world, "MAX_MEMBERS", 2)
    variable = graph_world.GraphVariable
    world._add(variable("a.b", frozenset("xy")))
    world._add(variable("a.c", frozenset("yz")))
    told = r"^#0 is of type a\.b and #1 of a\.c: they must have the same type$"
    with pytest.raises(InvalidAction, match=told):
        asyncio.run(world.intersection("#0", "#1"))
    with pytest.raises(InvalidAction, match=r"^that are more than 2 entities: choose a narrower relation$"):
        world._add(variable("a.b", frozenset("xyz")))
    assert len(world.variables) == 2
    assert [answer_f1(*counts, 2) for counts in ((2, 2), (1, 1), (1, 3), (0, 0), (0, 1))] == [
        1.0, 2 / 3, 2 / 5, 0.0, 0.0,
    ]  # fmt: skip
    for text in (" final answer: #12 ", "Final_Answer(#12)"):
        assert world.read(text) == WorldCall("final_answer", {"variable": "#12"})


TASKS = """
from x import Task, Action
tasks = [
    Task(annotator="a", user_id="ann_1", instruction="You are Ànn.",
         actions=[Action(name="f", kwargs={"a": [1, None]}), Action(name="g", kwargs={})], outputs=["7", 5]),
    Task(user_id="bob", instruction="B", actions=[]),
]
"""


def test_the_tasks_of_a_file_are_read_without_running_it(tmp_path):
    path = tmp_path / "tasks_test.py"

    def read(text: str) -> Any:
        path.write_text(text, encoding="utf-8")
        return read_tasks(path)

    assert read(TASKS) == [
        TauTask("ann_1", "You are Ànn.", (("f", {"a": [1, None]}), ("g", {})), ("7", "5")), TauTask("bob", "B", (), ())
    ]  # fmt: skip
    given = "instruction='i', actions=[])"
    nested = f"def f():\n    return [Task(user_id='u', {given}]\nTask(user_id='v', {given}"
    assert [each.user_id for each in read(nested)] == ["u", "v"]  # in the order of the lines
    no_action = ", line 1: an action is no Action(name=..., kwargs=...)"
    for text, told in (
        ("x = 1", " holds no Task(...): a file such as tau-bench's tasks_test.py was expected"),
        ("\nTask(user_id='u', instruction='i')", ", line 2: the task has no list of actions"),
        ("Task(user_id='u', instruction='i', actions=[3])", no_action),
        ("Task(user_id='u', instruction='i', actions=[Other(name='f', kwargs={})])", no_action),
        ("Task(user_id='u', instruction='i', actions=[Action(name='f')])", no_action),
        ("Task(user_id='u', instruction='i', actions=[Action(name=4, kwargs={})])", no_action),
        ("Task(user_id=3, instruction='i', actions=[])", ", line 1: the task has no text user_id and instruction"),
        ("Task(user_id='u', actions=[])", ", line 1: the task has no text user_id and instruction"),
        ("Task(user_id=exit(), instruction='i', actions=[])",
         ", line 1: a value is no literal: it would have to be run, and is not"),
    ):  # fmt: skip
        with pytest.raises(DataError) as refused:
            read(text)
        assert str(refused.value) == f"{path}{told}"
    with pytest.raises(DataError, match=r"tasks_test\.py is no Python file of tau-bench's tasks: "):
        read("Task(")
    with pytest.raises(DataError, match=r"none\.py cannot be read: "):
        read_tasks(tmp_path / "none.py")


def test_a_domain_is_found_in_each_of_its_places_and_its_tables_are_objects_of_records(tmp_path):
    for place in ("", "tau_bench/envs/retail", "agents/tau_bench/retail", "retail"):  # each goes before the last
        folder = tmp_path / place
        (folder / "data").mkdir(parents=True)
        (folder / "wiki.md").write_text("x")
        if place:
            assert domain_folder(tmp_path, "retail") != folder
        (folder / "data" / "users.json").write_text("{}")
        assert domain_folder(tmp_path, "retail") == folder
    with pytest.raises(DataError, match=r"^there is no airline/wiki\.md and airline/data/users\.json in "):
        domain_folder(tmp_path / "data", "airline")
    data = tmp_path / "data"
    for name in ("orders", "products"):
        (data / f"{name}.json").write_text(json.dumps({name: {"é": 1}}, ensure_ascii=False), encoding="utf-8")
    assert read_tables(tmp_path, "retail") == {
        "users": {}, "orders": {"orders": {"é": 1}}, "products": {"products": {"é": 1}}
    }  # fmt: skip
    read_tables.cache_clear()
    (data / "users.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match=r"users\.json: an object of records was expected$"):
        read_tables(tmp_path, "retail")
    (data / "users.json").write_text("{")
    with pytest.raises(DataError, match=r"users\.json is not JSON: "):
        read_tables(tmp_path, "retail")
