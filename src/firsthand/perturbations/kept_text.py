"""Places of a prompt that a perturbation leaves as they are, because the right answer hangs on their letters.

Those are code, identifiers, formulas, words and lines of what an answer is checked by (tests, inputs, keywords), and an
answer that is made of the prompt's own words. Meaning is not read: a word that decides the answer without standing in it is
not known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from firsthand.perturbations.formula_places import formula_places
from firsthand.task import Task

REFERENCES = ("answer", "answers", "reference", "solution")
"""The secrets that are texts of a right answer."""
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
    checks = list(texts_of([value for key, value in task.secret.items() if key not in REFERENCES]))
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


def answer_words(task: Task) -> frozenset[str]:
    """The words of right answers that are made of the prompt's own words; none where an answer is one of the choices."""
    if task.choices:
        return frozenset()
    own = {word.casefold() for word in _WORD.findall(task.prompt)}
    answers = [_WORD.findall(each) for each in texts_of([task.secret.get(key) for key in REFERENCES])]
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
