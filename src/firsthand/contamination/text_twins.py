"""Fresh twins of tasks: the same text with other numbers, or other names, that no training set holds.

A model that never saw an item finds its twin as likely; one that learned it does not. Numbers and names are drawn from the
other items of the benchmark, so that twins are of one kind with their items, and from a list where it has too few. A number
keeps its digits' count and its commas; equal numbers, and equal names, have equal new ones.

New numbers do not add up: a model that calculates, or knows the fact, prefers the right answer to the twin's without having
seen the item. `without_answers` leaves answers out, for tests that no reference model controls.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from firsthand.loop.concurrency import derive_seed
from firsthand.scorers.reference_answers import right_answer
from firsthand.task import Task

FEWEST = 4
"""Numbers or names of the benchmark below which they come from a list."""
_NUMBER = re.compile(r"(?<!\d)\d{1,3}(?:,\d{3})+(?![\d,])|\d+")
"""Digits, with the commas between thousands."""
_NAMES = (
    ("Ada", "Ben", "Clara", "Daniel", "Emma", "Frank", "Grace", "Henry", "Irene", "Jack", "Karen", "Leo", "Maria", "Noah",
     "Olivia", "Peter", "Rosa", "Sam", "Tina", "Victor", "James", "John", "Mary", "Robert", "Linda", "Michael", "Sarah",
     "David", "Anna", "Tom", "Jane", "Mark", "Lucy", "Paul", "Laura", "Natalia", "Weng", "Betty", "Julie", "Alexis"),
    ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    ("January", "February", "March", "April", "June", "July", "August", "September", "October", "November", "December"),
    ("apples", "books", "coins", "stamps", "pens", "shells", "marbles", "cards", "eggs", "cookies", "flowers", "stickers"),
)  # fmt: skip
_KIND = {name: kind for kind in _NAMES for name in kind}
_WORD = re.compile(r"\b(" + "|".join(_KIND) + r")\b")


@dataclass(frozen=True)
class TwinWords:
    """The numbers and names that twins are made of."""

    numbers: Mapping[int, tuple[str, ...]]
    """Digits -> the distinct numbers of so many digits in the benchmark."""
    names: frozenset[str]

    @staticmethod
    def of(texts: Sequence[str]) -> TwinWords:
        """The numbers and names in some texts."""
        numbers: dict[int, set[str]] = {}
        for text in texts:
            for found in _NUMBER.findall(text):
                digits = found.replace(",", "")
                numbers.setdefault(len(digits), set()).add(digits)
        names = frozenset(word for text in texts for word in _WORD.findall(text))
        return TwinWords({size: tuple(sorted(each)) for size, each in numbers.items()}, names)

    def number(self, old: str, rng: Random, taken: Collection[str] = ()) -> str:
        """Another number of as many digits, none of those taken while there are others."""
        others = [each for each in self.numbers.get(len(old), ()) if each != old]
        if len(others) >= FEWEST and (free := [each for each in others if each not in taken]):
            return rng.choice(free)
        made = ""
        for _ in range(8):
            first = "0" if old[0] == "0" and len(old) > 1 else rng.choice("123456789")
            made = first + "".join(rng.choice("0123456789") for _ in old[1:])
            if made != old and made not in taken:
                break
        return made

    def name(self, old: str, taken: Collection[str], rng: Random) -> str:
        """Another name of the same kind; itself if all are taken."""
        kind = [each for each in _KIND[old] if each != old and each not in taken]
        own = [each for each in kind if each in self.names]
        return rng.choice(own if len(own) >= FEWEST else kind or [old])


def twin_text(text: str, words: TwinWords, rng: Random) -> str | None:
    """The text with other numbers and names; None if it holds none, so that it has no twin."""
    present = set(_WORD.findall(text))
    digits = dict.fromkeys(found.replace(",", "") for found in _NUMBER.findall(text))
    for _ in range(8):
        chosen: dict[str, str] = {}
        for name in sorted(present):
            chosen[name] = words.name(name, present | set(chosen.values()), rng)
        numbers: dict[str, str] = {}
        for old in digits:
            numbers[old] = words.number(old, rng, numbers.values())
        numbered = _NUMBER.sub(lambda found, new=numbers: _with_commas(found.group(), new), text)  # type: ignore[misc]
        twin = _WORD.sub(lambda found, new=chosen: new[found.group()], numbered)  # type: ignore[misc]
        if twin != text:
            return twin
    return None


def _with_commas(old: str, new: Mapping[str, str]) -> str:
    """The new number of an old one, with a comma wherever the old one has it."""
    digits = iter(new[old.replace(",", "")])
    return "".join(each if each == "," else next(digits) for each in old)


def without_answers(tasks: Sequence[Task]) -> list[Task]:
    """The tasks as questions: without secrets, and without choices where these hold numbers or names.

    A twin asks for another answer, in whatever words the old one is: `twelve` and `yes` too.
    """
    return [replace(task, secret={}, choices=() if _is_replaced(task.choices) else task.choices) for task in tasks]


def _is_replaced(texts: Sequence[str]) -> bool:
    return any(_NUMBER.search(text) or _WORD.search(text) for text in texts)


def twins_of(tasks: Sequence[Task], seed: int) -> dict[str, str]:
    """Task id -> the text of its twin, of the tasks that have one.

    For a test without a reference model give `without_answers(tasks)`, here and to the test.
    """
    words = TwinWords.of([task_text(task) for task in tasks])
    found = {task.id: twin_text(task_text(task), words, Random(derive_seed("twin", seed, task.id))) for task in tasks}
    return {id: text for id, text in found.items() if text is not None}


def task_text(task: Task) -> str:
    """The text that a training set would hold: the prompt, its choices, and the reference answer where there is one."""
    answer = _answer(task)
    return f"{task.question}\n{answer}" if answer else task.question


def _answer(task: Task) -> str:
    """The text of the worked solution, or else of the answer; empty if there is none."""
    answer = task.secret.get("solution") or task.secret.get("answer")
    if answer is None:
        answer = right_answer(task)
    return answer if isinstance(answer, str) else ""
