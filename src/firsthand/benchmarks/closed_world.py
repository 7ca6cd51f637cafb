"""Questions about a small made-up world with searchable pages: no model has read them, so only a search can answer.

People are born in towns and work for companies; towns lie in countries, on rivers, and have mayors; companies have founders
and seats. One page answers a one-hop question; a two-hop question needs the page that the first one leads to. Everything is
generated from a seed: the benchmark needs no data and cannot be contaminated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from firsthand.benchmark import Benchmark
from firsthand.errors import ConfigError, nearest
from firsthand.loop.concurrency import derive_seed
from firsthand.message import Json
from firsthand.scorers.match import exact, normalised
from firsthand.system.plurals import count_of
from firsthand.task import Task
from firsthand.tool import Tool, tool

PEOPLE, TOWNS, COMPANIES, COUNTRIES, RIVERS = 120, 40, 30, 8, 15
_ONSETS = (*"bdfghjklmnprstvz", "br", "dr", "gr", "kr", "sk", "st", "tr", "vl")
_VOWELS = (*"aeiou", "ai", "ei", "ou")
_CODAS = (*"lmnrs", "th", "nd", "rk", "st")
_JOBS = ["a baker", "a painter", "a pilot", "a teacher", "a surgeon", "a cellist", "a weaver", "a geologist"]

ONE_HOP: Mapping[str, tuple[str, str]] = {
    "In which town was {} born?": ("person", "born"),
    "Which company does {} work for?": ("person", "company"),
    "In which country is the town of {}?": ("town", "country"),
    "Which river flows through the town of {}?": ("town", "river"),
    "Who founded the company {}?": ("company", "founder"),
}
"""Question template -> (kind of the thing it names, fact it asks for)."""
ONE_HOP_QUESTIONS = 2 * PEOPLE + 2 * TOWNS + COMPANIES
TWO_HOPS: Mapping[str, tuple[str, str, str]] = {
    "In which country is the town where {} was born?": ("person", "born", "country"),
    "Which river flows through the town where {} was born?": ("person", "born", "river"),
    "Who is the mayor of the town where {} was born?": ("person", "born", "mayor"),
    "Who founded the company that {} works for?": ("person", "company", "founder"),
    "In which town is the seat of the company that {} works for?": ("person", "company", "seat"),
}
Facts = Mapping[str, Mapping[str, str]]
"""Name of a thing -> its facts, `kind` and `page` included."""


def closed_world(*, hops: str = "1-2", tasks: int = 200, search: bool = True) -> Benchmark:
    """Return the benchmark: `tasks` questions, alternating between the `hops`; without `search` there is no search tool."""
    chosen = {"1": (1,), "2": (2,), "1-2": (1, 2)}.get(hops)
    most = min(400, ONE_HOP_QUESTIONS) if chosen == (1,) else 400
    if chosen is None or not 1 <= tasks <= most:
        raise ConfigError(f"hops is {hops!r} and tasks {tasks}: give hops 1, 2 or 1-2, and 1 to {most} tasks")
    return Benchmark(
        name="closed_world",
        tasks=lambda seed: make_tasks(seed, chosen, tasks),
        scorers=(normalised, exact),
        description="Generated questions of one and two hops about a made-up world, with a search tool.",
        protocol=f"generated: hops {hops}, {count_of(tasks, 'task')}, search {'on' if search else 'off'}; 0-shot; "
        "the name must match",
        licence="none needed: generated",
        environment=(lambda task: WorldPages(make_world(task.metadata["world"]))) if search else None,
        options={"hops": hops, "tasks": tasks, "search": search},
    )


@dataclass(frozen=True)
class WorldPages:
    """Environment with a world's pages and the tool that finds them; it has no state."""

    facts: Facts

    @property
    def tools(self) -> Sequence[Tool]:
        """The search tool."""

        @tool(effect="read")
        def search(query: str) -> str:
            """The page about a person, town or company.

            Args:
                query: The name.
            """
            return find_page(self.facts, query)

        return (search,)

    async def open(self) -> None:
        """Do nothing: there is no state."""

    async def final_state(self) -> Json:
        """Return no state."""
        return {}

    async def close(self) -> None:
        """Do nothing: there is no state."""


def find_page(facts: Facts, query: str) -> str:
    """Return the page of that name, or of the one name that the query contains; else suggest the most similar name."""
    wanted = " ".join(query[:200].casefold().split())
    named = [name for name in facts if name.casefold() == wanted] or [
        name for name in facts if name.casefold() in wanted
    ]
    if len(named) == 1:
        return facts[named[0]]["page"]
    close = nearest(" ".join(query[:200].split()).title(), facts)
    return f"There is no page {query[:200]!r}." + (f" Similar: {close}." if close else "")


@lru_cache(maxsize=8)
def make_world(seed: int) -> Facts:
    """Return the world of a seed, the same on any machine."""
    rng = Random(derive_seed("closed_world", seed))
    taken: set[str] = set()
    countries, rivers = (_names(rng, count, taken, ending) for count, ending in ((COUNTRIES, "ia"), (RIVERS, "")))
    towns, companies = (_names(rng, count, taken, ending) for count, ending in ((TOWNS, ""), (COMPANIES, " Works")))
    people = [
        f"{first} {last}" for first, last in zip(*(_names(rng, PEOPLE, taken, "") for _ in range(2)), strict=True)
    ]
    facts: dict[str, dict[str, str]] = {}
    for name in towns:
        known = {"country": rng.choice(countries), "river": rng.choice(rivers), "mayor": rng.choice(people)}
        page = "{name} is a town in {country}. The river {river} flows through {name}. The mayor of {name} is {mayor}."
        facts[name] = {"kind": "town", **known, "page": page.format(name=name, **known)}
    for name in companies:
        known = {"founder": rng.choice(people), "seat": rng.choice(towns)}
        page = "{name} is a company that was founded by {founder}. Its seat is in {seat}."
        facts[name] = {"kind": "company", **known, "page": page.format(name=name, **known)}
    for name in people:
        known = {"born": rng.choice(towns), "company": rng.choice(companies)}
        page = "{name} is {job} who was born in {born} and works for {company}."
        facts[name] = {"kind": "person", **known, "page": page.format(name=name, job=rng.choice(_JOBS), **known)}
    return facts


def make_tasks(seed: int, hops: Sequence[int], count: int) -> list[Task]:
    """Return `count` distinct questions about the world of the seed."""
    facts = make_world(seed)
    questions: dict[int, list[tuple[str, str]]] = {1: [], 2: []}
    for question, (kind, fact) in ONE_HOP.items():
        questions[1] += [(question.format(name), known[fact]) for name, known in facts.items() if known["kind"] == kind]
    for question, (kind, first, then) in TWO_HOPS.items():
        questions[2] += [
            (question.format(n), facts[known[first]][then]) for n, known in facts.items() if known["kind"] == kind
        ]
    made = []
    for number, found in questions.items():
        Random(derive_seed("closed_world questions", seed, number)).shuffle(found)
    for index in range(count):
        number, place = hops[index % len(hops)], index // len(hops)
        question, answer = questions[number][place]
        facts_of = {"hops": number, "world": seed}
        made.append(
            Task(
                f"seed{seed}-hops{number}-{place:04d}",
                question,
                hint="a name",
                metadata=facts_of,
                secret={"answer": answer},
            )
        )
    return made


def _names(rng: Random, count: int, taken: set[str], ending: str) -> list[str]:
    """Return new distinct names, none of which is a prefix of another."""
    made: list[str] = []
    while len(made) < count:
        name = "".join(rng.choice(part) for part in (_ONSETS, _VOWELS, _ONSETS, _VOWELS, _CODAS)).capitalize()
        if not any(name.startswith(other) or other.startswith(name) for other in taken):
            taken.add(name)
            made.append(name + ending)
    return made
