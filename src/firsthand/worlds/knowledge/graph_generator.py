"""Generates a knowledge graph in Freebase's terms and questions about it, the same for a seed on any machine.

Films, people, cities, countries, teams and books with their relations in both directions, numbers and dates. A question
is a program over AgentBench's functions whose words are put together from those of its relations. Level 1 follows one
relation; level 2 follows two, or intersects two sets; level 3 does both, or ends in the largest, the smallest, or a
count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from random import Random
from typing import NamedTuple

from firsthand.loop.concurrency import derive_seed
from firsthand.worlds.knowledge.graph_relations import ATTRIBUTES, RELATIONS
from firsthand.worlds.knowledge.triples import EXPECTED_TYPE, NAME, Triple, TripleStore, extreme

GRAPH_VERSION = 2
"""Goes up when the same seed gives another graph or other questions."""
GRAPH_LEVELS = (1, 2, 3)
SIZES: Mapping[str, int] = {
    "film.film": 160,
    "people.person": 120,
    "film.film_genre": 10,
    "location.citytown": 48,
    "location.country": 10,
    "sports.sports_team": 40,
    "book.book": 80,
}
"""Type -> number of entities."""
LEAST_RELATIONS = 12
"""Level 1 asks about entities with so many relations or more, so that a relation drawn at chance is seldom the right one."""


_SYLLABLES = ("ba", "bel", "cor", "da", "den", "fa", "gor", "hal", "ila", "jo", "kar", "lin", "mo", "nor", "ola", "pe")
_MORE = ("ra", "ros", "sa", "ster", "ti", "tor", "ula", "va", "ven", "wil", "xan", "yor", "za", "zin")
_NOUNS = (
    "Harbour",
    "Winter",
    "Lantern",
    "Orchard",
    "Mirror",
    "Voyage",
    "Garden",
    "Silence",
    "Letter",
    "River",
    "Clock",
)


class GraphQuestion(NamedTuple):
    """A question, the entities it names, the functions that answer it, and the answer."""

    question: str
    entities: Mapping[str, str]
    """Name -> id."""
    actions: tuple[str, ...]
    answer: tuple[str, ...]
    """Ids, sorted; or one number as text."""
    shape: str


@lru_cache(maxsize=4)
def make_graph(seed: int) -> TripleStore:
    """The graph of a seed, which must not be changed."""
    rng = Random(derive_seed("knowledge graph", GRAPH_VERSION, seed))
    store = TripleStore()
    store.add(_triples(rng))
    return store


def _triples(rng: Random) -> list[Triple]:
    taken: set[str] = set()
    ids: dict[str, list[str]] = {}
    found: list[Triple] = []
    for kind, count in SIZES.items():
        ids[kind] = []
        for _ in range(count):
            id, name = _new(taken, partial(_machine_id, rng)), _new(taken, partial(_name, rng, kind))
            ids[kind].append(id)
            found += [Triple(id, NAME, name, True), Triple(id, "type.object.type", kind)]
    for relation in RELATIONS:
        found += [Triple(relation.name, EXPECTED_TYPE, relation.object)]
        found += [Triple(relation.reverse, EXPECTED_TYPE, relation.subject)]
        for subject in ids[relation.subject]:
            others = [each for each in ids[relation.object] if each != subject]
            for target in rng.sample(others, rng.randint(1, relation.most)):
                found += [Triple(subject, relation.name, target), Triple(target, relation.reverse, subject)]
    for kind, attributes in ATTRIBUTES.items():
        for attribute, (_, _, low, high) in attributes.items():
            for id in ids[kind]:
                value = str(rng.randint(low, high))
                if "date" in attribute or "founded" in attribute:
                    value = f"{value}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
                found.append(Triple(id, attribute, value, True))
    return found


def _new(taken: set[str], make: Callable[[], str]) -> str:
    while True:
        made = make()
        if made.casefold() not in taken:
            taken.add(made.casefold())
            return made


def _machine_id(rng: Random) -> str:
    return "m.0" + "".join(rng.choice("bcdfghjklmnpqrstvwxyz0123456789_") for _ in range(5))


def _name(rng: Random, kind: str) -> str:
    def word() -> str:
        parts = (rng.choice(_SYLLABLES), rng.choice(_MORE), rng.choice(("", "", rng.choice(_MORE))))
        return "".join(parts).capitalize()

    if kind == "people.person":
        return f"{word()} {word()}"
    if kind in ("film.film", "book.book"):
        return f"The {word()} {rng.choice(_NOUNS)}" if kind == "film.film" else f"{rng.choice(_NOUNS)} of {word()}"
    return {"location.country": f"{word()}ia", "sports.sports_team": f"{word()} {word()}s"}.get(kind, word())


class _Hop(NamedTuple):
    relation: str
    words: str
    subject: str
    object: str


_HOPS = tuple(_Hop(r.name, r.words, r.subject, r.object) for r in RELATIONS) + tuple(
    _Hop(r.reverse, r.reverse_words, r.object, r.subject) for r in RELATIONS
)


class _Part(NamedTuple):
    """A set of entities as a question describes it: words, functions with variables from `#first`, and members."""

    words: str
    actions: tuple[str, ...]
    kind: str
    members: frozenset[str]
    entity: tuple[str, str]
    variables: int


def make_question(seed: int, index: int, level: int, about: str = "") -> GraphQuestion:
    """The question number `index` of a level about the graph of a seed, beginning at an entity of the type `about`."""
    graph, rng = make_graph(seed), Random(derive_seed("graph question", GRAPH_VERSION, seed, index, level))
    shape = {1: ("hop",), 2: ("chain", "both"), 3: ("chain and hop", "largest", "smallest", "count")}[level]
    wanted = shape[index % len(shape)]
    while True:
        if made := _try(graph, rng, wanted, about):
            return made


def _try(graph: TripleStore, rng: Random, shape: str, about: str) -> GraphQuestion | None:
    """A question of that shape, or None if this draw gives none with a clear answer."""
    hops = 1 if shape in ("hop", "both") or (shape != "chain" and rng.random() < 0.4) else 2
    first = _part(graph, rng, hops, 0)
    if first is None or not first.members or (about and first.entity[0] not in _entities(graph, about)):
        return None
    if shape == "hop" and len(graph.relations([first.entity[0]])) < LEAST_RELATIONS:
        return None
    part = first
    entities = [first.entity]
    if shape in ("both", "chain and hop"):
        start = first.variables
        second = _part(graph, rng, 1, start, into=first.kind, holding=rng.choice(sorted(first.members)))
        if second is None or second.entity == first.entity:
            return None
        both = first.members & second.members
        if not both or both == first.members or both == second.members:
            return None
        end = start + second.variables
        actions = (*first.actions, *second.actions, f"intersection(#{start - 1}, #{end - 1})")
        part = _Part(
            f"{first.words} that are also among {second.words}", actions, first.kind, both, first.entity, end + 1
        )
        entities.append(second.entity)
    if len(part.members) > 12 and shape in ("hop", "chain", "both", "chain and hop"):
        return None
    named = {name: id for id, name in entities}
    last = part.variables - 1
    if shape == "count":
        if len(part.members) < 2:
            return None
        actions = (*part.actions, f"count(#{last})", f"Final Answer: #{last + 1}")
        return GraphQuestion(f"How many are {part.words}?", named, actions, (str(len(part.members)),), shape)
    if shape in ("largest", "smallest"):
        return _superlative(graph, rng, part, named, shape)
    actions = (*part.actions, f"Final Answer: #{last}")
    return GraphQuestion(f"Which are {part.words}?", named, actions, tuple(sorted(part.members)), shape)


def _superlative(
    graph: TripleStore, rng: Random, part: _Part, named: Mapping[str, str], shape: str
) -> GraphQuestion | None:
    if part.kind not in ATTRIBUTES or len(part.members) < 2:
        return None
    attribute = rng.choice(sorted(ATTRIBUTES[part.kind]))
    best = extreme(graph.values(part.members, attribute), largest=shape == "largest")
    if len(best) != 1:
        return None
    words, last = ATTRIBUTES[part.kind][attribute][0 if shape == "largest" else 1], part.variables - 1
    verb = "argmax" if shape == "largest" else "argmin"
    more = (f"get_attributes(#{last})", f"{verb}(#{last}, {attribute})", f"Final Answer: #{last + 1}")
    noun = attribute.rpartition(".")[2].replace("_", " ")
    question = f"Of {part.words}, which is {words} by {noun}?"
    return GraphQuestion(question, named, (*part.actions, *more), tuple(best), shape)


def _part(graph: TripleStore, rng: Random, hops: int, first: int, into: str = "", holding: str = "") -> _Part | None:
    """A set reached by `hops` relations from an entity; `into` a type, and with a member, if they are given."""
    last = rng.choice([hop for hop in _HOPS if not into or hop.object == into])
    chain: Sequence[_Hop] = [last]
    if hops == 2:
        before = [hop for hop in _HOPS if hop.object == last.subject and not _undoes(hop, last)]
        if not before:
            return None
        chain = [rng.choice(before), last]
    if holding:
        back = next(hop for hop in _HOPS if _undoes(hop, last))
        starts: Sequence[str] = sorted(graph.neighbors([holding], back.relation))
    else:
        starts = sorted(_entities(graph, chain[0].subject))
    if not starts:
        return None
    start = rng.choice(starts)
    words, members, actions, at = graph.name(start), frozenset({start}), list[str](), start
    for number, hop in enumerate(chain):
        members = graph.neighbors(members, hop.relation)
        words = hop.words.format(words)
        actions += [f"get_relations({at})", f"get_neighbors({at}, {hop.relation})"]
        at = f"#{first + number}"
    return _Part(words, tuple(actions), last.object, members, (start, graph.name(start)), len(chain))


def _undoes(one: _Hop, other: _Hop) -> bool:
    return any({one.relation, other.relation} == {r.name, r.reverse} for r in RELATIONS)


def _entities(graph: TripleStore, kind: str) -> frozenset[str]:
    relation = next(r for r in RELATIONS if kind in (r.subject, r.object))
    return graph.subjects(relation.name if kind == relation.subject else relation.reverse)
