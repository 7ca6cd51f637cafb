"""Facts told, changed and withdrawn over many sessions, with distractors; questions about now and about then.

Everything is generated from a seed. People have attributes; a session tells some facts, changes or withdraws others, and
says much besides. A question asks for a value as of the last session, or as of an earlier day; one about something that was
withdrawn, or was not told yet, is answered `unknown`. The pattern `attend` goes through the sessions:

    firsthand run sessions --model sim:sessions --pattern attend --memory semantic:extract=true
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from functools import lru_cache, partial
from random import Random
from typing import NamedTuple

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.long_context.lengths import LazyTasks
from firsthand.errors import ConfigError
from firsthand.loop.concurrency import derive_seed
from firsthand.message import Json
from firsthand.scorers.held_value import held_value
from firsthand.scorers.match import normalised
from firsthand.system.plurals import count_of
from firsthand.task import Task

VERSION = 1
"""Goes up when the same seed gives other tasks."""
UNKNOWN = "unknown"
ATTRIBUTES = ("home town", "employer", "favourite tea", "car", "dentist", "landlord", "violin teacher", "sailing club")
_FIRST = ("Anna", "Boris", "Clara", "David", "Elena", "Felix", "Greta", "Henry", "Irene", "Jonas", "Karla", "Louis")
_LAST = ("Abel", "Brandt", "Castell", "Dorn", "Engel", "Fabre", "Grimm", "Hagen", "Ilves", "Jansen", "Keller", "Lund")
_SYLLABLES = ("ba", "do", "fe", "gu", "ka", "li", "mo", "na", "pe", "ri", "so", "tu", "va", "we", "zo")
_SMALL_TALK = (
    "The weather was mild, and the market was open until six.",
    "I read half of a book about bridges and liked the drawings.",
    "The train was late again, so there was time for a second coffee.",
    "Somebody asked about the {attribute} of {name}, and nobody knew.",
    "My neighbour repaired the fence and painted it green.",
    "{name} told a long story about a ferry and a lost umbrella.",
)
_START = date(2026, 1, 5)


class ToldFact(NamedTuple):
    """A fact told in a session; no value if it was withdrawn."""

    session: int
    name: str
    attribute: str
    value: str | None
    before: str | None
    """The value that held before."""


class SessionHistory(NamedTuple):
    """All sessions of a seed, and the facts in them."""

    sessions: tuple[Json, ...]
    facts: tuple[ToldFact, ...]


class SessionSettings(NamedTuple):
    """The settings of a history."""

    sessions: int
    facts: int
    distractors: int
    people: int


def sessions(
    *, sessions: int = 20, facts: int = 4, distractors: int = 6, people: int = 6, questions: int = 40, then: int = 50
) -> Benchmark:
    """Return the benchmark: `questions` about `sessions` sessions, each with `facts` facts and `distractors` other
    sentences.

    `then` percent of the questions ask about an earlier day.
    """
    if not (1 <= sessions <= 5_000 and 1 <= facts <= 50 and 0 <= distractors <= 500 and 1 <= people <= len(_FIRST)):
        raise ConfigError(
            f"sessions is {sessions}, facts {facts}, distractors {distractors} and people {people}: give 1 "
            f"to 5,000 sessions, "
            f"1 to 50 facts, 0 to 500 distractors and 1 to {len(_FIRST)} people"
        )
    if not (1 <= questions <= 10_000 and 0 <= then <= 100):
        raise ConfigError(f"questions is {questions} and then {then}: give 1 to 10,000 questions and 0 to 100 percent")
    settings = SessionSettings(sessions, facts, distractors, people)
    return Benchmark(
        name="sessions",
        tasks=lambda seed: LazyTasks(range(questions), partial(_task, settings, then, seed)),
        scorers=(held_value, normalised),
        description="Facts told, changed and withdrawn over many sessions; questions about now and about then.",
        protocol=f"version {VERSION}, generated: {count_of(sessions, 'session')} of {facts} facts and {distractors} "
        f"distractors about {people} people; {then} % of {count_of(questions, 'question')} about an "
        f"earlier day; the pattern "
        "attend; the value must be named, and no other value of the same attribute",
        licence="none needed: generated",
        options={"version": VERSION, **settings._asdict(), "questions": questions, "then": then},
    )


@lru_cache(maxsize=4)
def make_history(settings: SessionSettings, seed: int) -> SessionHistory:
    """Return the sessions of a seed, the same on any machine."""
    rng = Random(derive_seed("sessions", VERSION, seed, *settings))
    names = [f"{first} {last}" for first, last in zip(_FIRST, rng.sample(_LAST, len(_LAST)), strict=True)]
    names = names[: settings.people]
    held: dict[tuple[str, str], str] = {}
    used: set[str] = set()
    told: list[ToldFact] = []
    made: list[Json] = []
    for number in range(settings.sessions):
        lines = []
        keys = [(name, attribute) for name in names for attribute in ATTRIBUTES]
        for key in rng.sample(keys, min(settings.facts, len(keys))):
            before = held.get(key)
            withdrawn = before is not None and rng.random() < 0.2
            value = None if withdrawn else _value(rng, used)
            told.append(ToldFact(number, *key, value, before))
            lines.append(_line(told[-1]))
            if value is None:
                del held[key]
            else:
                held[key] = value
        for _ in range(settings.distractors):
            talk = rng.choice(_SMALL_TALK)
            name, attribute = rng.choice(names), rng.choice(ATTRIBUTES)
            lines.append(talk.replace("{name}", name).replace("{attribute}", attribute))
        rng.shuffle(lines)
        messages = [{"role": "user", "content": line} for line in lines]
        made.append({"time": day_of(number), "messages": messages})
    return SessionHistory(tuple(made), tuple(told))


def day_of(session: int) -> str:
    """Return the date of a session: they are three days apart."""
    return (_START + timedelta(days=3 * session)).isoformat()


def held_at(history: SessionHistory, name: str, attribute: str, session: int) -> str | None:
    """Return the value that held after a session; None if there was none."""
    past = [f for f in history.facts if (f.name, f.attribute) == (name, attribute) and f.session <= session]
    return past[-1].value if past else None


def _line(fact: ToldFact) -> str:
    if fact.value is None:
        return f"The {fact.attribute} of {fact.name} is no longer {fact.before}."
    return f"The {fact.attribute} of {fact.name} is {fact.value}{' now' if fact.before else ''}."


def _value(rng: Random, used: set[str]) -> str:
    while True:
        name = "".join(rng.choice(_SYLLABLES) for _ in range(3)).capitalize()
        if name not in used:
            used.add(name)
            return name


def _task(settings: SessionSettings, then: int, seed: int, number: int) -> Task:
    """Return a question about a fact that was told, as of the end or of a day before it."""
    history = make_history(settings, seed)
    rng = Random(derive_seed("sessions question", VERSION, seed, *settings, number))
    fact = rng.choice(history.facts)
    about_then = (number * then) // 100 != ((number + 1) * then) // 100
    last = settings.sessions - 1
    session = rng.randrange(settings.sessions) if about_then else last
    value = held_at(history, fact.name, fact.attribute, session)
    when = f" on {day_of(session)}" if about_then else ""
    others = {f.value for f in history.facts if (f.name, f.attribute) == (fact.name, fact.attribute)} - {value, None}
    kind = ("then" if about_then else "now") + ("" if value else ", unknown")
    metadata: Mapping[str, object] = {"sessions": history.sessions, "asks": kind, "cluster": f"seed{seed}"}
    return Task(
        f"seed{seed}-{number:04d}",
        f"What {'was' if about_then else 'is'} the {fact.attribute} of {fact.name}{when}?",
        hint=f"the value, or {UNKNOWN}",
        metadata=metadata,
        sampling={"max_tokens": 24, "temperature": 0.0},
        secret={"answer": value or UNKNOWN, "wrong": sorted(map(str, others))},
    )
