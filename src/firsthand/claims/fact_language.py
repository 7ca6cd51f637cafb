"""A toy language of facts for the claims on RAG and fine-tuning: people, four relations, a value for each, as documents.

`bador vellum drives flab .` is a sentence, and a document. Every word is one token, so that a small model trained here
(`fact_models.py`) and the retrieval room read the same texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from random import Random

RELATIONS = ("livesin", "worksas", "eats", "drives")
MARKS = ("?", ".", "so", "!")
"""The question's mark, the end of an answer, and the two words of the format that is trained or shown."""
FIRST = [
    a + b
    for a, b in product(("ba", "do", "ke", "li", "mu", "pa", "ro", "su"), ("dor", "fen", "gil", "han", "jov", "kur"))
]
LAST = [
    a + b
    for a, b in product(
        ("ta", "ve", "wi", "xo", "yu", "za", "ne", "qua"), ("bbet", "ckal", "ddin", "ffos", "ggar", "llum")
    )
]
VALUES = tuple(
    a + b
    for a, b in product(
        ("br", "cl", "dr", "fl", "gr", "pl", "st", "tr"), ("ab", "ec", "id", "of", "ug", "am", "en", "ix")
    )
)
WORDS = ("", *RELATIONS, *MARKS, *FIRST, *LAST, *VALUES)
IDS = {word: at for at, word in enumerate(WORDS)}

Person = tuple[str, str]
Facts = Mapping[tuple[Person, str], str]
"""(person, relation) -> value."""


def people(count: int, seed: int) -> list[Person]:
    """Different people, by first and last name."""
    return Random(f"people-{seed}").sample(list(product(FIRST, LAST)), count)


def facts_of(persons: Iterable[Person], rng: Random) -> dict[tuple[Person, str], str]:
    """A value for each person and relation; the four of a person differ."""
    return {(person, r): v for person in persons for r, v in zip(RELATIONS, rng.sample(VALUES, 4), strict=True)}


def changed(facts: Facts, share: float, rng: Random) -> dict[tuple[Person, str], str]:
    """The facts with new values for a share of the people, all four of each."""
    persons = list(dict.fromkeys(person for person, _ in facts))
    made = dict(facts)
    for person in rng.sample(persons, round(share * len(persons))):
        taken = {facts[person, r] for r in RELATIONS}
        made |= {
            (person, r): v for r, v in zip(RELATIONS, rng.sample([v for v in VALUES if v not in taken], 4), strict=True)
        }
    return made


def sentence(person: Person, relation: str, value: str) -> str:
    """One fact as a sentence."""
    return f"{' '.join(person)} {relation} {value} ."


def question(person: Person, relation: str) -> str:
    """The question for one fact."""
    return f"? {' '.join(person)} {relation}"


def encoded(text: str) -> list[int]:
    """Token ids of a text, one a word."""
    return [IDS[word] for word in text.split()]


def write_documents(folder: Path, facts: Facts) -> None:
    """A file for each fact; those that say the same already are left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for (person, relation), value in facts.items():
        path, text = folder / f"{'-'.join(person)}-{relation}.txt", sentence(person, relation, value) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
