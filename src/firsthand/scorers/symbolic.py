"""Compares mathematical answers as a mathematician reads them: values, collections, equations, intervals, units and words.

An answer is parsed by our own grammar (`mathematics/latex.py`) into plain data, so no model output is ever run as code.
Rational numbers are compared exactly. Other expressions are evaluated in 60 digits by mpmath, at points drawn for their
variables, and are equal if they agree at all points to 40 digits (`mathematics/high_precision.py`).
"""

from __future__ import annotations

from firsthand.patterns.parts.boxes import boxed_answer
from firsthand.patterns.parts.equations import asks_for_left_side
from firsthand.scorers.mathematics.answer_text import MAX_CHARS, plain, spaceless, text_key
from firsthand.scorers.mathematics.asked_base import with_asked_base
from firsthand.scorers.mathematics.equality import same_trees
from firsthand.scorers.mathematics.latex import parse
from firsthand.scorers.mathematics.left_off_units import units_of
from firsthand.scorers.mathematics.matrix_products import is_cross_product
from firsthand.scorers.mathematics.quantities import bare_letters
from firsthand.scorers.mathematics.usual_notation import in_usual_notation
from firsthand.scorers.mathematics.written_forms import same_as_written
from firsthand.scorers.reference_answers import accepted_answers
from firsthand.scorers.whole_answer import whole_answer
from firsthand.task import Task
from firsthand.trace import Score, Trace

_MINERVA = "Final Answer: The final answer is"


def boxed(task: Task, trace: Trace) -> Score:
    """Score 1 if the content of the last `\\boxed{}`, or else a whole short answer, equals the reference mathematically.

    What stands directly against the box belongs to it: `-\\boxed{9}` is -9, and `\\boxed{5} million` is no 5.
    """
    text = whole_answer(trace)
    found = boxed_answer(text, task.prompt)
    return _score("boxed", found if found is not None else (text if len(text) <= 100 else None), task)


def minerva(task: Task, trace: Trace) -> Score:
    """Score 1 if the text after `Final Answer: The final answer is` equals the reference (Lewkowycz et al., 2022)."""
    _, found, rest = whole_answer(trace).partition(_MINERVA)
    return _score("minerva", rest.partition(". I hope it is correct")[0].partition("\n")[0] if found else None, task)


def same_answer(answer: str, reference: str) -> bool:
    """Return whether two answers are equal mathematically: `\\frac{1}{2}` and 0.5, `(1, 2)` and `(1,2)`, `x+1` and `1+x`."""
    return comparison(answer, reference)[0]


def comparison(answer: str, reference: str, question: str | None = None) -> tuple[bool, str]:
    """Return whether they are equal, and the method: `text`, `tree`, `numbers`, `points` or `unread`.

    The question tells which units an answer may add to its reference; without one, any words that change no value.
    An equation states its right side where its left side is one name, or what the question asks for.
    Times, dates and scores are compared as written: `10:30` is neither a third nor 5:15, unless the question speaks of a
    ratio. Letters in a row are a word, unless the question gives them as numbers, and products of matrices keep their order.
    """
    if len(answer) > 4 * MAX_CHARS or len(reference) > 4 * MAX_CHARS:
        return bool(answer.strip()) and answer.strip() == reference.strip(), "text"
    answer, reference = (
        in_usual_notation(each, other, question) for each, other in ((answer, reference), (reference, answer))
    )
    answer = with_asked_base(answer, reference, question)
    left, right = spaceless(plain(answer)), spaceless(plain(reference))
    if left == right:
        return bool(left), "text"
    if (same := same_as_written(answer, reference, question)) is not None:
        return same, "text"
    trees = parse(answer), parse(reference)
    if trees[0] is None or trees[1] is None:
        return bool(left and right) and text_key(answer) == text_key(reference), "unread"
    try:
        asked, cross = asks_for_left_side(answer, question), is_cross_product(reference, question)
        same, by = same_trees(trees[0], trees[1], question, asked=asked, cross=cross)
        read = None if same else parse(answer, bare_letters(units_of(trees[1])))
        if read is None or read == trees[0]:
            return same, by
        return same_trees(read, trees[1], question, asked=asked, cross=cross)  # `12 g` where the reference has grams
    except RecursionError:  # hundreds of factors in a row
        return False, "unread"


def _score(name: str, found: str | None, task: Task) -> Score:
    references = accepted_answers(task)
    if found is None:
        return Score(name, 0.0, {"found": None})
    compared = [comparison(found, each, task.prompt) for each in references]
    same, by = next((each for each in compared if each[0]), compared[0])
    return Score(name, float(same), {"found": found[:200], "by": by})
