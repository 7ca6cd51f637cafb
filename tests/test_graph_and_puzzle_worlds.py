"""The knowledge graph's functions and store, and the puzzle's host and game, on small cases that tell every branch apart."""

import asyncio
import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import pytest

from firsthand.errors import DataError
from firsthand.message import assistant
from firsthand.providers.scripted import Scripted
from firsthand.task import Task
from firsthand.worlds.knowledge import triples
from firsthand.worlds.knowledge.graph_world import MAX_SHOWN, GraphWorld, answer_f1
from firsthand.worlds.knowledge.triples import (
    BATCH,
    NAME,
    Triple,
    TripleStore,
    extreme,
    open_graph,
    read_triples,
    sort_key,
)
from firsthand.worlds.puzzles.puzzle import Puzzle, read_puzzle
from firsthand.worlds.puzzles.puzzle_judge import (
    ModelHost,
    RuleHost,
    content_words,
    is_negated,
    verdict_by_rules,
)
from firsthand.worlds.puzzles.puzzle_world import MAX_QUESTION, PuzzleWorld
from firsthand.worlds.world import InvalidAction

ROWS = (
    Triple("m.ann", NAME, "Ann Lee", True),
    Triple("m.ann", "people.person.parents", "m.bob"),
    Triple("m.ann", "people.person.parents", "m.cy"),
    Triple("m.ann", "people.person.height", "1.7", True),
    Triple("m.ann", "common.topic.notes", "m.bob"),
    Triple("m.bob", NAME, "Bob", True),
    Triple("m.bob", "people.person.height", "1.9", True),
    Triple("m.bob", "people.person.height", "1.2", True),
    Triple("m.bob", "people.person.motto", "never 3 give up", True),
    Triple("m.bob", "people.person.born_in", "m.rome"),
    Triple("m.cy", "people.person.height", "1.8", True),
    Triple("m.cy", "people.person.employer", "m.firm"),
    Triple("people.person.parents", "type.property.expected_type", "people.person"),
    Triple("people.person.born_in", "type.property.expected_type", "location.city"),
)


def graph_world() -> GraphWorld:
    store = TripleStore()
    store.add(ROWS)
    task = Task("t", "Which?", metadata={"entities": {"Ann": "m.ann"}}, secret={"actions": ["a", "b"]})
    world = GraphWorld(store, task)
    asyncio.run(world.open())
    return world


def refused(made: object) -> str:
    with pytest.raises(InvalidAction) as error:
        asyncio.run(made)  # type: ignore[arg-type]
    return str(error.value)


def test_a_walk_through_the_graph_makes_typed_variables_and_lists_what_can_follow():
    world, do = graph_world(), asyncio.run
    assert world.admissible() == ["get_relations(m.ann)"] and world.render() == "Which?"
    assert refused(world.get_neighbors("m.ann", "people.person.parents")) == (
        "people.person.parents is no listed relation of m.ann; its relations are not listed yet: get_relations first"
    )
    assert do(world.get_relations(" m.ann ")) == "[people.person.parents]"
    assert refused(world.get_neighbors("m.ann", "people.person.height")) == (
        "people.person.height is no listed relation of m.ann; its relations are [people.person.parents]"
    )
    assert refused(world.get_relations("m.eve")) == (
        "the graph has no entity m.eve: use the question's entities or a variable #n"
    )
    assert refused(world.count("#0")) == "'#0' is no variable: there are none yet"
    assert do(world.get_neighbors("m.ann", "people.person.parents")) == (
        "Variable #0, which are instances of people.person"
    )
    assert do(world.get_relations("#0")) == "[people.person.born_in, people.person.employer]"
    assert do(world.get_neighbors("0", "people.person.born_in")) == "Variable #1, which are instances of location.city"
    assert do(world.get_neighbors("#0", "people.person.employer")) == "Variable #2, which are instances of common.topic"
    assert refused(world.intersection("#0", "#1")) == (
        "#0 is of type people.person and #1 of location.city: they must have the same type"
    )
    assert do(world.intersection("#1", "#2")) == "Variable #3, which are instances of location.city"
    assert refused(world.argmax("#0", "people.person.height")) == (
        "people.person.height is no listed attribute of #0; its attributes are not listed yet: get_attributes first"
    )
    assert do(world.get_attributes("#0")) == "[people.person.height]"
    assert refused(world.argmin("#0", "people.person.motto")) == (
        "people.person.motto is no listed attribute of #0; its attributes are [people.person.height]"
    )
    assert do(world.argmax("#0", "people.person.height")) == "Variable #4, which are instances of people.person"
    do(world.argmin("#0", "people.person.height"))
    assert world.variables[4].members == world.variables[5].members == {"m.bob"}  # 1.9 and 1.2 are both his
    assert do(world.count("#3")) == "Variable #6, which is a number."
    assert do(world.intersection("#4", "#0")) == "Variable #7, which are instances of people.person"
    assert refused(world.count("#6")) == "#6 is a number: it can only be the final answer"
    assert refused(world.count("#8")) == "'#8' is no variable: there are #0 to #7"
    assert refused(world.count("x")) == "'x' is no variable: there are #0 to #7"
    assert world.admissible() == [
        *(f"get_relations(#{n})" for n in (1, 2, 3, 4, 5, 7)),
        "get_neighbors(m.ann, people.person.parents)", "get_neighbors(#0, people.person.born_in)",
        "get_neighbors(#0, people.person.employer)",
        "intersection(#0, #4)", "intersection(#0, #5)", "intersection(#0, #7)", "count(#0)",
        "intersection(#1, #3)", "get_attributes(#1)", "count(#1)", "get_attributes(#2)", "count(#2)",
        "get_attributes(#3)", "count(#3)", "intersection(#4, #5)", "intersection(#4, #7)", "get_attributes(#4)",
        "count(#4)", "intersection(#5, #7)", "get_attributes(#5)", "count(#5)", "get_attributes(#7)", "count(#7)",
        "argmax(#0, people.person.height)", "argmin(#0, people.person.height)",
        *(f"Final Answer: #{n}" for n in range(8)),
    ]  # fmt: skip
    assert world.random(Random(4)) in world.admissible()
    assert world.render().split("\n")[:3] == [
        "Which?", "#0 people.person (2): Bob, m.cy", "#1 location.city (1): m.rome",
    ]  # fmt: skip
    assert world.render().split("\n")[7] == "#6 type.int: 0"
    assert do(world.result()) == {"answer": [], "names": [], "size": 0, "hits": 0} and world.ending is None
    assert do(world.final_answer("6")) == "The answer is #6." and world.ending == "answered"
    assert do(world.result()) == {"answer": ["0"], "names": [], "size": 1, "hits": 0}
    do(world.final_answer("#0"))
    assert do(world.result()) == {"answer": ["m.bob", "m.cy"], "names": ["Bob", "m.cy"], "size": 2, "hits": 0}
    assert [world.optimal(), world.optimal()] == ["a", "b"]


def test_a_text_action_names_its_function_and_as_many_arguments_as_it_takes():
    world = graph_world()
    for text, call in [
        ("get_neighbors( #0 , a.b )", ("get_neighbors", {"variable": "#0", "relation": "a.b"})),
        ("intersection(#1,#2)", ("intersection", {"first": "#1", "second": "#2"})),
        ("argmin(#1, x)", ("argmin", {"variable": "#1", "attribute": "x"})),
        ("argmax(#1, x)", ("argmax", {"variable": "#1", "attribute": "x"})),
        (" count(#3)\n", ("count", {"variable": "#3"})),
        ("final_answer(#2)", ("final_answer", {"variable": "#2"})),
        ("FINAL ANSWER: 12", ("final_answer", {"variable": "12"})),
    ]:
        assert world.read(text) == call
    for text, said in [
        ("count(#1, #2)", "count takes 1 arguments, variable: '#1, #2' came"),
        ("intersection(#1, )", "intersection takes 2 arguments, first and second: '#1,' came"),
        ("drop(#1)", "'drop(#1)' is no action: write one of get_relations, get_neighbors"),
        ("count #1", "is no action"),
    ]:
        with pytest.raises(InvalidAction) as error:
            world.read(text)
        assert said in str(error.value)


def test_more_relations_than_are_shown_are_counted_and_f1_is_by_sizes():
    store = TripleStore()
    store.add(Triple("m.a", f"r.{n:04d}", f"m.x{n}") for n in range(MAX_SHOWN + 2))
    world = GraphWorld(store, Task("t", "?", metadata={"entities": {"A": "m.a"}}))
    asyncio.run(world.open())
    said = asyncio.run(world.get_relations("m.a"))
    assert said.startswith("[r.0000, r.0001") and said.endswith("r.0299, and 2 more]")
    assert answer_f1(1, 2, 3) == pytest.approx(2 / 5)
    assert answer_f1(0, 0, 1) == answer_f1(0, 0, 0) == answer_f1(0, 1, 1) == 0.0 and answer_f1(1, 1, 1) == 1.0


def test_a_store_asks_for_more_entities_than_fit_in_one_statement():
    store = TripleStore()
    many = [f"m.{n:05d}" for n in range(2 * BATCH + 1)]
    store.add(Triple(each, "r.to", f"{each}x") for each in many)
    store.add([Triple(many[-1], "r.last", "m.end"), Triple(many[0], "r.size", "7", True), Triple("m.z", "r.to", "m.q")])
    assert len(store) == 2 * BATCH + 4 and store.relations(many) == ["r.last", "r.to"]
    assert store.neighbors(many, "r.to") == {f"{each}x" for each in many} and store.neighbors([], "r.to") == frozenset()
    assert store.attributes(many) == ["r.size"] and store.values(many, "r.size") == {many[0]: ["7"]}
    store.add([Triple(many[0], "type.size", "8", True), Triple("m.z", NAME, "m.q"), Triple("m.z", NAME, "Zed", True)])
    assert store.attributes(many) == ["r.size"] and store.name("m.z") == "Zed", (
        "what is the database's own is not shown"
    )
    assert store.neighbors([many[0]], "r.size") == frozenset() and store.subjects("r.last") == {many[-1]}
    assert store.knows("m.z") and not store.knows("m.q") and store.range_of("r.to") == "" and store.name("m.y") == "m.y"
    store.close()


def test_numbers_order_by_value_years_as_dates_and_other_texts_not_at_all():
    assert sort_key("10") == (0, 10.0) and sort_key("-2.5e1") == (0, -25.0) and sort_key("+3") == (0, 3.0)
    assert sort_key("1984") == (0, 1984.0) and sort_key("1984-05") == (1, "1984-05")
    assert sort_key("1984-05-01T10:00") == (1, "1984-05-01T10:00") and sort_key("19840") == (0, 19840.0)
    assert sort_key("1984-5") is None and sort_key("ten") is None and sort_key("1.") is None
    years = {"a": ["1990"], "b": ["1990-01-02"], "c": ["1989-12-31", "text"], "d": ["x"]}
    assert extreme(years, largest=True) == {"b"} and extreme(years, largest=False) == {"c"}
    assert extreme({"a": ["9"], "b": ["10"], "c": ["10.0"]}, largest=True) == {"b", "c"}
    assert extreme({"a": ["0800"], "b": ["1500-01-01"]}, largest=True) == {"b"}, "a year of three digits"
    assert extreme({"a": ["5", "1"], "b": ["2", "4"]}, largest=False) == {"a"}
    assert extreme({"a": ["5", "2"], "b": ["1", "6"]}, largest=False) == {"b"}
    assert extreme({"a": ["x"]}, largest=True) == extreme({}, largest=False) == frozenset()


def test_n_triples_are_read_with_names_in_english_alone_and_the_first_wrong_line_is_named(tmp_path: Path):
    ns = "http://rdf.freebase.com/ns/"
    lines = [
        "# a comment", "",
        f"<{ns}m.1>\t<{ns}{NAME}>\t\"Sa\\\"id \\\\ so\"@en\t.",
        f'<{ns}m.1> <{ns}{NAME}> "Gesagt"@de .', f'<{ns}m.1> <{ns}{NAME}> "wir@en"@de .',
        f'<{ns}m.1> <{ns}a.b> "1990-01-01"^^<http://www.w3.org/2001/XMLSchema#date> .',
        f'<{ns}m.1> <{ns}a.text> "Hallo"@de .',
        f"<{ns}m.1> <{ns}a.c> <{ns}m.2> .",
        "m.1 a.d m.3",
    ]  # fmt: skip
    path = tmp_path / "graph.nt"
    path.write_text("\n".join(lines))
    wanted = [
        Triple("m.1", NAME, 'Sa"id \\ so', True), Triple("m.1", "a.b", "1990-01-01", True),
        Triple("m.1", "a.text", "Hallo", True), Triple("m.1", "a.c", "m.2"), Triple("m.1", "a.d", "m.3"),
    ]  # fmt: skip
    assert list(read_triples(path)) == wanted
    packed = tmp_path / "graph.nt.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert list(read_triples(packed)) == wanted
    for wrong in ("m.1 a.b", 'm.1 a.b "open .', "m.1 a.b two words ."):
        path.write_text(f"{lines[6]}\n\n{wrong}\n")
        with pytest.raises(DataError, match=r"graph.nt, line 3 is no triple `subject relation object \.`"):
            list(read_triples(path))
    with pytest.raises(DataError, match="there is no graph at"):
        open_graph(tmp_path / "none.nt")


def test_an_index_is_built_once_and_again_after_the_file_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    path = tmp_path / "g.nt"
    path.write_text("m.1 a.b m.2 .\n")
    store = open_graph(path)
    assert len(store) == 1 and store.neighbors(["m.1"], "a.b") == {"m.2"}
    store.close()
    again = open_graph(path)
    assert len(again) == 1
    again.close()
    assert len(list((tmp_path / "home" / "cache" / "graphs").iterdir())) == 1
    path.write_text("m.1 a.b m.2 .\nm.1 a.b m.33 .\n")
    newer = open_graph(path)
    assert len(newer) == 2
    newer.close()
    path.write_text("m.1 a.b m.2 .\nno\n")
    with pytest.raises(DataError, match="line 2"):
        open_graph(path)
    assert len(list((tmp_path / "home" / "cache" / "graphs").iterdir())) == 2  # nothing half-built stays
    path.write_text("m.1 a.b m.4 .\n")

    def stopped(path: Path) -> Iterator[Triple]:
        yield Triple("m.1", "a.b", "m.2")
        raise KeyboardInterrupt

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(triples, "read_triples", stopped)
        open_graph(path)
    assert len(list((tmp_path / "home" / "cache" / "graphs").iterdir())) == 2
    newest = open_graph(path)
    assert newest.neighbors(["m.1"], "a.b") == {"m.4"}
    newest.close()


PUZZLE = Puzzle(
    "A man enters a bar and asks for water. The barman draws a gun.",
    "The man had hiccups; the shock cured them, so he thanked the barman and left.",
    ("The barman draws a gun", "The man asks for water"),
    ("The man had hiccups.", "The gun was no threat but a cure", "The shock cured the hiccups"),
)


def test_a_row_becomes_a_puzzle_with_key_points_without_bullets():
    row = [" Story ", "Truth", "1. first\n- second\n\n", "12、 third\n• fourth\n* fifth\n2024 was cold", "more"]
    made = read_puzzle(row, "file, row 3")
    assert made == Puzzle("Story", "Truth", ("first", "second"), ("third", "fourth", "fifth", "2024 was cold"))
    assert Puzzle.from_json(made.to_json()) == made
    for wrong in (row[:3], [*row[:2], " ", row[3]]):
        with pytest.raises(DataError, match="file, row 3: story, answer, story keys and answer keys were expected"):
            read_puzzle(wrong, "file, row 3")


def test_words_are_stemmed_function_words_left_out_and_denials_counted():
    assert content_words("The cured man's Boxes were glassy; passing carried 12 cities") == {
        "cur", "man", "box", "glassy", "pass", "carr", "12", "cit",
    }  # fmt: skip
    assert content_words("is it so") == frozenset() and content_words("一个男人") == {"一个", "个男", "男人"}
    assert content_words("水") == {"水"} and content_words("boss makes make") == {"boss", "mak"}
    assert [is_negated(text) for text in ("He did not", "He isn't not", "Never", "He knots", "不 没", "没有")] == [
        True, False, True, False, False, True,
    ]  # fmt: skip


def test_a_host_by_rules_says_yes_no_or_irrelevant_by_shares_of_words():
    """Of the words {man, hiccup}: all are in the first point; a denial turns the verdict."""
    for question, verdict in [
        ("Did the man have hiccups?", "yes"),
        ("Did the man not have hiccups?", "no"),
        ("Was the gun a threat?", "no"),  # the point denies it
        ("Was the gun no threat?", "yes"),
        ("Is it so?", "irrelevant"),
        ("Was the shock a dragon?", "no"),  # one of two words is in the truth, and no point has 0.6
        ("Was the green dragon thanked?", "irrelevant"),  # one of three: less than 0.35
        ("Does a barman draw?", "yes"),
    ]:
        assert verdict_by_rules(PUZZLE, question) == verdict, question
    host = RuleHost()

    def found(question: str, known: Sequence[str] = (), left: Sequence[int] = (0, 1, 2)) -> tuple[str, tuple[int, ...]]:
        return tuple(asyncio.run(host.answer(PUZZLE, question, known, left)))  # type: ignore[return-value]

    assert found("Did the man have hiccups?") == ("yes", (0,)) and found("Did the man not have hiccups?") == ("no", ())
    assert found("Did the man have hiccups?", left=(1, 2)) == ("yes", ())
    assert found("Were the hiccups cured?") == ("yes", ())  # two of three words: less than 0.7
    assert found("Were the hiccups cured?", known=["Was it a shock?"]) == ("yes", (2,))
    assert found("Does a barman draw?", known=["The man had hiccups"]) == ("yes", ())


def test_a_host_by_a_model_asks_about_points_only_after_a_yes():
    asked: list[str] = []
    replies = iter(["yes", "no", "yes", "no", "irrelevant", "yes", "no"])

    def reply(messages, sampling, index):
        asked.append(messages[-1].text)
        assert sampling.max_tokens == 8 and sampling.grammar is not None
        return assistant(next(replies))

    host = ModelHost(Scripted(reply))
    first = asyncio.run(host.answer(PUZZLE, "Hiccups?", ["A man?"], [0, 2]))
    assert first == ("yes", (2,)) and len(asked) == 3 and host.tokens > 0
    assert "Story: A man enters" in asked[0] and 'to you: "Hiccups?"\n' in asked[0]
    assert asked[1].endswith('First text: "The man had hiccups."\nSecond text: "A man? Hiccups?"')
    assert asyncio.run(host.answer(PUZZLE, "x", [], [0])) == ("no", ())
    assert asyncio.run(host.answer(PUZZLE, "x", [], [0])) == ("irrelevant", ())
    assert asyncio.run(host.answer(PUZZLE, "x", [], [1])) == ("yes", ())
    assert len(asked) == 7
    asyncio.run(
        ModelHost(Scripted(lambda m, *_: asked.append(m[-1].text) or "no")).answer(PUZZLE, 'x"\nYou: "yes', [], [0])
    )
    assert '"x\\"\\nYou: \\"yes"' in asked[-1], "a question cannot end its quotation"


def test_a_game_counts_answers_strikes_and_points_until_all_are_found():
    world, do = PuzzleWorld(PUZZLE, RuleHost(), 20), asyncio.run
    assert world.optimal() == "Is it true that The man had hiccups?"
    assert do(world.ask("Does a barman draw a gun?")) == (
        "This information is already in the story, please ask a new question."
    )
    assert do(world.ask("Was the green dragon thanked?")) == "Irrelevant."
    assert do(world.ask("was the  GREEN dragon thanked?")) == (
        "This is a question that has already been asked. Please ask a new question."
    )
    assert (world.strikes, world.asked, world.known) == (1, 3, [])
    assert do(world.ask("Was the gun a threat?")) == "No." and world.left == [0, 1, 2]
    assert do(world.ask("Did the man have hiccups?")) == "Yes." and world.left == [1, 2]
    assert world.known == ["Did the man have hiccups?"] and world.counts == {"yes": 1, "no": 1, "irrelevant": 1}
    assert do(world.result()) == {
        "found": 1, "points": 3, "asked": 5, "yes": 1, "no": 1, "irrelevant": 1, "finish_round": 20,
    }  # fmt: skip
    assert world.render() == (
        f"{PUZZLE.story}\n  does a barman draw a gun? - story\n  was the green dragon thanked? - irrelevant\n"
        "  was the gun a threat? - no\n  did the man have hiccups? - yes\n1 of 3 points found"
    )
    assert refused(world.ask("Another  story, please?")).startswith(
        "the game goes on with this story: ask one question"
    )
    assert world.strikes == 3 and world.ending is None
    assert refused(world.ask("Why did he leave?")).startswith("make a guess of your own: ")
    assert world.strikes == 5 and world.ending == "aborted"
    quick = PuzzleWorld(PUZZLE, RuleHost(), 20)
    for count in range(1, 4):
        assert quick.ending is None
        assert do(quick.ask(quick.optimal())) == "Yes."
        assert len(quick.left) <= 3 - count
    assert quick.ending == "won" and do(quick.result())["finish_round"] == 3


def test_a_question_is_the_first_line_with_words_up_to_the_limit():
    world = PuzzleWorld(PUZZLE, RuleHost(), 20)
    assert world.read("\n  Is he ill? \nIs he old?") == ("ask", {"question": "Is he ill?"})
    longest = "a" * (MAX_QUESTION - 1) + "?"
    assert world.read(longest) == ("ask", {"question": longest})
    for text in ("", " \n", "is it so", longest + "?"):
        with pytest.raises(InvalidAction, match=r"is no question: ask one question"):
            world.read(text)
    drawn = world.random(Random(1))
    assert drawn.startswith("Is it because of ") and set(drawn[17:-1].split()) <= {
        word.strip(".") for word in PUZZLE.story.split()
    }
    chinese = PuzzleWorld(Puzzle("男人走进酒吧", "t", ("k",), ("a",)), RuleHost(), 5)
    assert chinese.random(Random(1)).removeprefix("Is it because of ").rstrip("?").split()[0] in "男人走进酒吧"
    assert PuzzleWorld(Puzzle("s", "t", (), ("真的。",)), RuleHost(), 5).optimal() == "Is it true that 真的?"
