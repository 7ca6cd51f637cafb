"""Reads an answer that is the last line of a text, and nothing else: for runs with `--answers last_line`.

`stated_choice` and the readers of `answers` take an answer out of prose as people write it, and a phrase that they do not
know may be read wrongly. This form can be said in one sentence, like the strict filters of lm-evaluation-harness.
"""

from __future__ import annotations

import re

from firsthand.task import Task

_STATEMENT = re.compile(
    r"(?:.*[.!?][ \t]+)?(?:(?:so|thus|therefore|hence),?[ \t]+)?(?:(?:the|my)[ \t]+)?(?:(?:final|correct)[ \t]+)?"
    r"answer(?:[ \t]+is|[ \t]*:)(?:[ \t]*:)?[ \t]*(?P<given>\S.*)"
    r"|####[ \t]*(?P<hashes>\S.*)|(?P<box>\\boxed\{.*\})|(?P<alone>\S.*)",
    re.IGNORECASE,
)
_MARKUP = ("**", "__", "$", "`", "*", '"')
_BOX = re.compile(r"\\boxed\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}")
_NUMBER = re.compile(r"[-−]?\$?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:/\d+)?%?", re.ASCII)
_LETTER = re.compile(r"\(?([A-Za-z])\)?(?:[.:)]?[ \t]+(?P<text>.+))?")


def last_line_answer(text: str, task: Task, *, is_number: bool) -> str | None:
    """Returns the answer that the last line of `text` is, or None.

    The line is the answer alone, or ends in `answer: X`, `the answer is X`, `#### X` or `\\boxed{X}`, with a full stop or in
    bold. X is a letter of the choices, a choice, or both; a number with no word or unit beside it; or any other text.
    """
    line = text.rstrip().rpartition("\n")[2].strip()
    found = _STATEMENT.fullmatch(_bare(line))
    if found is None:
        return None
    given = _bare(found["given"] or found["hashes"] or found["box"] or found["alone"])
    if box := _BOX.fullmatch(given):
        given = _bare(box[1])
    if task.choices:
        return _choice(given, task)
    if is_number:
        return given.replace("−", "-") if _NUMBER.fullmatch(given) else None
    return given or None


def _bare(text: str) -> str:
    """The text without markup around the whole of it, and without a full stop at its end."""
    for _ in range(4):
        text = text.strip().removesuffix(".").strip()
        for mark in _MARKUP:
            if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark):
                text = text[len(mark) : -len(mark)]
    return text


def _choice(given: str, task: Task) -> str | None:
    """The letter of the choice that `given` is, by its letter, its text, or both of one choice."""
    texts = [_bare(choice) for choice in task.choices]
    same = {letter for letter, text in zip(task.letters, texts, strict=True) if text == given}
    found = _LETTER.fullmatch(given)
    if found is not None and (letter := found[1].upper()) in task.letters:
        text = found["text"]
        if text is None or _bare(text) == texts[task.letters.index(letter)]:
            same.add(letter)
    return same.pop() if len(same) == 1 else None
