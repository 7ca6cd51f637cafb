"""Questions about a small graph made by hand, draw by draw; and what every generated graph holds."""

from __future__ import annotations

import re
from collections import Counter
from random import Random
from typing import Any

import pytest

from firsthand.worlds.knowledge import graph_generator
from firsthand.worlds.knowledge.graph_generator import (
    _HOPS,
    SIZES,
    GraphQuestion,
    _entities,
    _new,
    _Part,
    _part,
    _superlative,
    _try,
)
from firsthand.worlds.knowledge.graph_relations import ATTRIBUTES, RELATIONS
from firsthand.worlds.knowledge.triples import EXPECTED_TYPE, NAME, Triple, TripleStore

DIRECTED, GENRE = "people.person.films_directed", "film.film_genre.films_in_this_genre"
RUNTIME = "film.film.runtime"


class Wants(Random):
    """Draws what is wanted, by place, by text or by a hop's relation, and keeps what it drew from."""

    def __init__(self, *wanted: Any, chance: float = 0.0) -> None:
        super().__init__(0)
        self.wanted, self.chance, self.from_ = list(wanted), chance, list[Any]()

    def choice(self, seq: Any) -> Any:
        self.from_.append(seq)
        wanted = self.wanted.pop(0)
        if isinstance(wanted, int):
            return seq[wanted]
        return next(each for each in seq if wanted in (each, getattr(each, "relation", None)))

    def random(self) -> float:
        return self.chance


@pytest.fixture(scope="module")
def graph() -> TripleStore:
    """Pam directed f1 and f2, Rob f3 alone, Kit 12 others, Liz 13; Pam, Kit and Liz have 12 relations, Rob has 11."""
    names = {"p1": "Pam", "p2": "Rob", "p3": "Kit", "p4": "Liz", "g1": "Western", "g2": "Noir", "g3": "Mime"}
    films = {"p1": ["f1", "f2"], "p2": ["f3"], "p3": [f"n{at:02}" for at in range(12)]}
    films["p4"] = [*films["p3"], "n12"]
    found = [Triple(id, NAME, name, True) for id, name in names.items()]
    for person, made in films.items():
        for film in made:
            found += [Triple(film, "film.film.directed_by", person), Triple(person, DIRECTED, film)]
        others = 10 if person == "p2" else 11
        found += [Triple(person, f"people.person.other{at}", "f1") for at in range(others)]
    for genre, made in {"g1": ["f1", "f2"], "g2": ["f2", "f3"], "g3": ["f1"]}.items():
        for film in made:
            found += [Triple(film, "film.film.genre", genre), Triple(genre, GENRE, film)]
    found += [Triple(film, RUNTIME, str(value), True) for film, value in (("f1", 100), ("f2", 150), ("f3", 90))]
    dates = {"f1": "1999-01-05", "f2": "1999-01-05"}
    found += [Triple(film, "film.film.initial_release_date", value, True) for film, value in dates.items()]
    store = TripleStore()
    store.add(found)
    return store


def test_a_part_follows_one_relation_or_two_from_an_entity_of_its_type(graph: TripleStore) -> None:
    rng = Wants(DIRECTED, "p1")
    by_pam = _Part(
        "the films directed by Pam", ("get_relations(p1)", f"get_neighbors(p1, {DIRECTED})"), "film.film",
        frozenset({"f1", "f2"}), ("p1", "Pam"), 1,
    )  # fmt: skip
    assert _part(graph, rng, 1, 4) == by_pam and rng.from_ == [list(_HOPS), ["p1", "p2", "p3", "p4"]]
    rng = Wants("film.film.genre", DIRECTED, "p2")
    assert _part(graph, rng, 2, 3) == _Part(
        "the genres of the films directed by Rob",
        ("get_relations(p2)", f"get_neighbors(p2, {DIRECTED})", "get_relations(#3)",
         "get_neighbors(#3, film.film.genre)"),
        "film.film_genre", frozenset({"g2"}), ("p2", "Rob"), 2,
    )  # fmt: skip
    before = {each.relation for each in rng.from_[1]}
    assert {each.object for each in rng.from_[1]} == {"film.film"} and GENRE not in before and DIRECTED in before
    rng = Wants(GENRE, "g2")
    assert _part(graph, rng, 1, 1, into="film.film", holding="f2") == _Part(
        "the films of the genre Noir", ("get_relations(g2)", f"get_neighbors(g2, {GENRE})"), "film.film",
        frozenset({"f2", "f3"}), ("g2", "Noir"), 1,
    )  # fmt: skip
    assert {each.object for each in rng.from_[0]} == {"film.film"} and rng.from_[1] == ["g1", "g2"]
    assert _part(graph, Wants("book.book.author"), 1, 0) is None, "there is no book"
    unnamed = _part(graph, Wants("film.film.directed_by", "n12"), 1, 0)
    assert unnamed is not None and (unnamed.words, unnamed.entity) == ("the directors of n12", ("n12", "n12"))
    assert _entities(graph, "film.film_genre") == {"g1", "g2", "g3"} and _entities(graph, "location.country") == set()


def test_a_question_of_one_relation_is_about_an_entity_with_twelve_and_has_twelve_answers_at_most(
    graph: TripleStore,
) -> None:
    actions = ("get_relations(p1)", f"get_neighbors(p1, {DIRECTED})")
    asked = "Which are the films directed by Pam?"
    hop = GraphQuestion(asked, {"Pam": "p1"}, (*actions, "Final Answer: #0"), ("f1", "f2"), "hop")
    for about in ("", "people.person"):
        assert _try(graph, Wants(DIRECTED, "p1"), "hop", about) == hop
    assert _try(graph, Wants(DIRECTED, "p1"), "hop", "film.film") is None
    assert _try(graph, Wants(DIRECTED, "p2"), "hop", "") is None, "11 relations are too few"
    twelve = _try(graph, Wants(DIRECTED, "p3"), "hop", "")
    assert twelve is not None and twelve.answer == tuple(f"n{at:02}" for at in range(12))
    assert _try(graph, Wants(DIRECTED, "p4"), "hop", "") is None
    assert _try(graph, Wants("people.person.films_written", "p1"), "hop", "") is None, "she wrote none"
    assert _try(graph, Wants("book.book.author"), "hop", "") is None, "there is no book"
    chain = _try(graph, Wants("film.film.genre", DIRECTED, "p1", chance=0.0), "chain", "")
    assert chain == GraphQuestion(
        "Which are the genres of the films directed by Pam?", {"Pam": "p1"},
        (*actions, "get_relations(#0)", "get_neighbors(#0, film.film.genre)", "Final Answer: #1"),
        ("g1", "g2", "g3"), "chain",
    )  # fmt: skip


def test_two_sets_meet_in_a_question_where_their_intersection_is_smaller_than_both(graph: TripleStore) -> None:
    rng = Wants(DIRECTED, "p1", "f2", GENRE, "g2", chance=0.0)
    words = "the films directed by Pam that are also among the films of the genre Noir"
    one = ("get_relations(p1)", f"get_neighbors(p1, {DIRECTED})")
    two = ("get_relations(g2)", f"get_neighbors(g2, {GENRE})")
    assert _try(graph, rng, "both", "") == GraphQuestion(
        f"Which are {words}?", {"Pam": "p1", "Noir": "g2"},
        (*one, *two, "intersection(#0, #1)", "Final Answer: #2"), ("f2",), "both",
    )  # fmt: skip
    assert rng.from_[2] == ["f1", "f2"] and {each.object for each in rng.from_[3]} == {"film.film"}
    assert rng.from_[4] == ["g1", "g2"], "f2 is of both genres"
    undone = (DIRECTED, "film.film.directed_by", "f2", "f1", GENRE, "g2")
    with pytest.raises(StopIteration):
        _try(graph, Wants(*undone, chance=0.4), "chain and hop", "")  # a relation is not followed back at once
    rng = Wants(GENRE, "g1", "f2", DIRECTED, "p1", chance=0.39)
    assert _try(graph, rng, "chain and hop", "") is None, "both sets are the same"
    assert _try(graph, Wants(GENRE, "g3", "f1", DIRECTED, "p1"), "both", "") is None, "it holds the whole first set"
    assert _try(graph, Wants(DIRECTED, "p1", "f1", GENRE, "g3"), "both", "") is None, "it holds the whole second set"
    assert _try(graph, Wants(DIRECTED, "p1", "f1", DIRECTED, "p1"), "both", "") is None, "one entity for both"
    again = _try(graph, Wants(GENRE, "g2", "f3", DIRECTED, "p2"), "both", "")
    assert again is None
    met = _try(graph, Wants(GENRE, "g2", "f2", DIRECTED, "p1", chance=0.1), "chain and hop", "")
    assert met is not None and met.entities == {"Noir": "g2", "Pam": "p1"} and met.shape == "chain and hop"
    assert met.actions == (*two, *one, "intersection(#0, #1)", "Final Answer: #2") and met.answer == ("f2",)


@pytest.mark.parametrize("shape", ["both", "chain and hop"])
def test_sets_meet_in_twelve_answers_at_most(shape: str) -> None:
    def asked(common: int) -> GraphQuestion | None:
        """Of a director and a genre that have so many films in common, and one each of its own."""
        found = [Triple("p", NAME, "Pam", True), Triple("g", NAME, "Noir", True)]
        films = [f"f{at:02}" for at in range(common)]
        for film in (*films, "own1"):
            found += [Triple("p", DIRECTED, film), Triple(film, "film.film.directed_by", "p")]
        for film in (*films, "own2"):
            found += [Triple("g", GENRE, film), Triple(film, "film.film.genre", "g")]
        store = TripleStore()
        store.add(found)
        return _try(store, Wants(DIRECTED, "p", "f00", GENRE, "g"), shape, "")

    assert asked(13) is None
    for common in (1, 12):
        made = asked(common)
        assert made is not None and made.answer == tuple(f"f{at:02}" for at in range(common))


def test_a_count_needs_two_members_and_a_superlative_one_best(graph: TripleStore) -> None:
    actions = ("get_relations(p1)", f"get_neighbors(p1, {DIRECTED})")
    count = _try(graph, Wants(DIRECTED, "p1", chance=0.39), "count", "")
    assert count == GraphQuestion(
        "How many are the films directed by Pam?", {"Pam": "p1"}, (*actions, "count(#0)", "Final Answer: #1"), ("2",),
        "count",
    )  # fmt: skip
    assert _try(graph, Wants(DIRECTED, "p2"), "count", "") is None
    many = _try(graph, Wants(DIRECTED, "p4"), "count", "")
    assert many is not None and many.answer == ("13",)
    far = _try(graph, Wants("film.film.genre", DIRECTED, "p1", chance=0.4), "count", "")
    assert far is not None and (far.actions[-2:], far.answer) == (("count(#1)", "Final Answer: #2"), ("3",))
    for shape, words, verb, best in (
        ("largest", "the longest", "argmax", "f2"),
        ("smallest", "the shortest", "argmin", "f1"),
    ):
        rng = Wants(DIRECTED, "p1", RUNTIME)
        assert _try(graph, rng, shape, "") == GraphQuestion(
            f"Of the films directed by Pam, which is {words} by runtime?", {"Pam": "p1"},
            (*actions, "get_attributes(#0)", f"{verb}(#0, {RUNTIME})", "Final Answer: #1"), (best,), shape,
        )  # fmt: skip
        assert rng.from_[2] == ["film.film.initial_release_date", RUNTIME]
    both_first = Wants(DIRECTED, "p1", "film.film.initial_release_date")
    assert _try(graph, both_first, "largest", "") is None, "both came out on one day"
    part = _Part("them", ("a",), "film.film", frozenset({"f1", "f3"}), ("x", "X"), 4)
    late = _superlative(graph, Wants("film.film.initial_release_date"), part, {"X": "x"}, "smallest")
    assert late == GraphQuestion(
        "Of them, which is the oldest by initial release date?", {"X": "x"},
        ("a", "get_attributes(#3)", "argmin(#3, film.film.initial_release_date)", "Final Answer: #4"), ("f1",),
        "smallest",
    )  # fmt: skip
    for other in (part._replace(kind="film.film_genre"), part._replace(members=frozenset({"f1"}))):
        assert _superlative(graph, Wants(RUNTIME), other, {}, "largest") is None


def test_names_have_a_form_for_each_type_and_none_comes_twice() -> None:
    def name(kind: str, *wanted: Any) -> str:
        return graph_generator._name(Wants(*wanted), kind)

    short, long = ("bel", "ra", "zin", 1), ("cor", "ven", "zin", 2)
    assert name("people.person", *short, *long) == "Belra Corvenzin"
    assert name("film.film", *short, "Clock") == "The Belra Clock"
    assert name("book.book", "River", *long) == "River of Corvenzin"
    words = [*("pe", "ti", "ra", 0), *short, *long, *("jo", "wil", "ra", 1)]  # for each of the other forms, in turn
    assert name("location.country", *words) == "Petiia" and name("sports.sports_team", *words) == "Belra Corvenzins"
    assert name("location.citytown", *words) == name("film.film_genre", *words) == "Jowil"
    taken, made = {"ada"}, iter(["Ada", "ADA", "Bea", "never"])
    assert _new(taken, lambda: next(made)) == "Bea" and taken == {"ada", "bea"}
    assert graph_generator._machine_id(Wants("b", "z", "_", "0", "9")) == "m.0bz_09"


def test_a_generated_graph_has_its_types_both_directions_and_values_within_their_ranges() -> None:
    found = graph_generator._triples(Random(5))
    kinds = {each.subject: each.object for each in found if each.relation == "type.object.type"}
    assert Counter(kinds.values()) == SIZES
    names = [each for each in found if each.relation == NAME]
    assert {each.subject for each in names} == set(kinds) and len({each.object for each in names}) == len(kinds)
    assert all(each.literal for each in names)
    by_relation: dict[str, list[Triple]] = {}
    for each in found:
        by_relation.setdefault(each.relation, []).append(each)
    expected = {each.subject: each.object for each in by_relation[EXPECTED_TYPE]}
    for relation in RELATIONS:
        assert (expected[relation.name], expected[relation.reverse]) == (relation.object, relation.subject)
        links = [(each.subject, each.object) for each in by_relation[relation.name]]
        assert {kinds[one] for one, _ in links} == {relation.subject}
        assert {kinds[other] for _, other in links} == {relation.object} and all(one != other for one, other in links)
        counts = list(Counter(one for one, _ in links).values())
        assert len(counts) == SIZES[relation.subject] and min(counts) == 1
        assert max(counts) == relation.most or SIZES[relation.subject] < 12
        back = sorted((each.object, each.subject) for each in by_relation[relation.reverse])
        assert back == sorted(links) and len(set(links)) == len(links)
    dated = {"film.film.initial_release_date", "people.person.date_of_birth", "sports.sports_team.founded"}
    for kind, attributes in ATTRIBUTES.items():
        for attribute, (_, _, low, high) in attributes.items():
            values = by_relation[attribute]
            assert [each.subject for each in values] == [id for id, own in kinds.items() if own == kind]
            form = r"(\d+)-(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])" if attribute in dated else r"(\d+)"
            read = [re.fullmatch(form, each.object) for each in values]
            assert all(each.literal for each in values)
            numbers = [int(each[1]) for each in read if each is not None]
            assert len(numbers) == len(values) and low <= min(numbers) < max(numbers) <= high
