"""Places of a prompt that a perturbation leaves as they are, because the right answer hangs on their letters.

Those are code, identifiers, formulas, words and lines of what an answer is checked by (tests, inputs, keywords), and an
answer that is made of the prompt's own words. The row of data that a task was made of holds its question too, which is no
check. Meaning is not read: a word that decides the answer without standing in it is
not known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Set
from typing import Any

from firsthand.perturbations.formula_places import formula_places
from firsthand.task import Task

REFERENCES = ("answer", "answers", "reference", "solution")
"""The secrets that are texts of a right answer."""
TARGETS = (*REFERENCES, "target")
"""Those, and the right answer of another harness, which scores by data of its own: it is never renamed."""
ROWS = ("columns", "doc", "metadata")
"""The secrets that are the row of data which the task was made of: its question stands there too, and is no check."""
_ASKED = 0.75
"""A text of a row is part of the question if more than one word, and this share of its words, stand in the prompt."""
_WORD = re.compile(r"\w+")
_QUOTED = re.compile(r'"[^"\n]+"|`[^`\n]+`|“[^“”\n]+”')
_CODE_LINE = re.compile(r"[ \t]*(?:assert |def \w|class \w+[:(]|import \w|from [\w.]+ import |return |>>> |@\w)")
Place = tuple[int, int]


def code_places(text: str) -> list[Place]:
    """Blocks between fences, with them, an open one to the end; and lines of Python with the indented ones below them."""
    places: list[Place] = []
    at = 0
    is_fenced = is_code = False
    for line in text.splitlines(keepends=True):
        is_fence = line.lstrip().startswith(("```", "~~~"))
        is_code = bool(_CODE_LINE.match(line)) or (is_code and line[:1] in " \t\r\n")
        if is_fenced or is_fence or is_code:
            places.append((at, at + len(line)))
        is_fenced = is_fenced != is_fence
        at += len(line)
    return places


def checked_places(task: Task) -> list[Place]:
    """Code, identifiers, formulas, and words, lines and quotations of a prompt that tests or other secrets may hold."""
    prompt = task.prompt
    answers = {each.strip() for each in texts_of([task.choices, *(task.secret.get(key) for key in TARGETS)])}
    checks = list(texts_of(check_values(task, TARGETS, answers)))
    known = {word for text in checks for word in _WORD.findall(text)}
    places = code_places(prompt) + formula_places(prompt)
    places += [each.span() for each in _WORD.finditer(prompt) if each[0] in known or _is_identifier(each[0])]
    if checks:
        places += [each.span() for each in _QUOTED.finditer(prompt)]
    lines = {line for text in checks for line in text.splitlines()}
    at = 0
    for line in prompt.splitlines(keepends=True):
        if line.strip() and line.rstrip("\r\n") in lines:
            places.append((at, at + len(line)))
        at += len(line)
    for text in {each.strip() for each in checks} - {""}:
        if (at := prompt.find(text)) >= 0:
            places.append((at, at + len(text)))
    return places


def check_values(task: Task, known: Collection[str] = REFERENCES, answers: Collection[str] = ()) -> list[Any]:
    """The secrets that a check may read.

    Args:
        task: Its secrets are read.
        known: The names of secrets that are left out, being texts of a right answer.
        answers: Texts that are left out of the row which the task was made of, as are those of its question.
    """
    values = [value for key, value in task.secret.items() if key not in (*known, *ROWS)]
    words = {word.casefold() for word in _WORD.findall(task.prompt)}
    for row in (task.secret.get(key) for key in ROWS):
        parts = list(row.values()) if isinstance(row, Mapping) else [row]
        held = texts_of([part for part in parts if not (isinstance(part, str) and _is_asked(part, task.prompt, words))])
        values += [text for text in held if text.strip() not in answers]
    return values


def _is_asked(text: str, prompt: str, words: Set[str]) -> bool:
    """True for a text of a row that the prompt was made of: the whole prompt, or words that nearly all stand in it."""
    own = [word.casefold() for word in _WORD.findall(text)]
    return text.strip() == prompt.strip() or (len(own) > 1 and sum(each in words for each in own) >= _ASKED * len(own))


def answer_words(task: Task) -> frozenset[str]:
    """The words of right answers that are made of the prompt's own words; none where an answer is one of the choices."""
    if task.choices:
        return frozenset()
    own = {word.casefold() for word in _WORD.findall(task.prompt)}
    answers = [_WORD.findall(each) for each in texts_of([task.secret.get(key) for key in TARGETS])]
    return frozenset(word for words in answers if {each.casefold() for each in words} <= own for word in words)


def word_places(text: str, words: frozenset[str]) -> list[Place]:
    """The places of these words in a text, in any case."""
    folded = {each.casefold() for each in words}
    return [each.span() for each in _WORD.finditer(text) if each[0].casefold() in folded]


def lost_words(old: str, new: str, words: frozenset[str]) -> frozenset[str]:
    """Those of the words that stand in the old text, in their case, and not in the new one."""
    return words & set(_WORD.findall(old)) - set(_WORD.findall(new))


def changed_between(text: str, places: list[Place], change: Callable[[str], str]) -> str:
    """The text, changed in each part between the places; all of it at once where there are none."""
    made: list[str] = []
    at = 0
    for start, end in sorted(places):
        if start > at:
            made.append(change(text[at:start]))
        if end > at:
            made.append(text[max(start, at) : end])
            at = end
    rest = text[at:]
    return "".join([*made, change(rest) if rest else ""])


def _is_identifier(word: str) -> bool:
    """True for letters with digits or underscores among them, as in keys and names of functions."""
    return any(map(str.isalpha, word)) and any(each.isdecimal() or each == "_" for each in word)


def texts_of(value: Any) -> Iterator[str]:
    """The strings of JSON data."""
    pending = [value]
    while pending:
        match pending.pop():
            case str() as text:
                yield text
            case list() | tuple() as many:
                pending += many
            case Mapping() as table:
                pending += [*table, *table.values()]
