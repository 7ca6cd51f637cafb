"""Tells letters that are a word or a sequence (`HHT`, `was`, `ATG`) from a product of variables (`xy`)."""

from __future__ import annotations

import re

from firsthand.scorers.mathematics.latex_tokens import Tree

MAX_CHARS = 8_000
"""Characters at the end of a question that are looked at: it asks there."""
_SEQUENCE_ASKED = re.compile(
    r"\b(?:words?|spell(?:s|ed|ing)?|sequence of (?:tosses|flips|moves|letters|bases|steps)|outcomes?|codons?|dna|rna"
    r"|animals?|anagrams?|toss(?:es|ed)?|flips?|directions?|moves|channels)\b",
    re.IGNORECASE,
)
_LONE = re.compile(r"(?<![^\W\d_]|[\\'’])[^\W\d_](?![^\W\d_])")
_IN_MATHS = re.compile(r"\$([^$]{1,400})\$|\\\((.{1,400}?)\\\)|\\\[(.{1,400}?)\\\]", re.DOTALL)
_BESIDE_SIGN = re.compile(
    r"\b[a-z]{1,4}(?= ?[-=+*/^<>(])|(?<=[-=+*/^<>)]) ?[a-z]{1,4}\b|(?<=\d)[a-z]{1,4}\b", re.IGNORECASE
)
_FIGURE = re.compile(
    r"\b(?:[Tt]riangle|[Ss]egment|[Ll]ine|[Rr]ay|[Qq]uadrilateral|[Pp]arallelogram|[Tt]rapezoid|[Rr]hombus|[Rr]ectangle"
    r"|[Ss]quare|[Ss]ide|[Pp]entagon|[Hh]exagon|[Pp]olygon|[Dd]iagonal|[Cc]hord|[Aa]rc)s? ([A-Z]{2,8})\b"
)
_UNNAMED = frozenset("ABCDEFGHxyzeig")
_COMMAND = re.compile(r"\\(?:text(?:bf|it|rm)?\s?\{[^{}]{0,400}\}|[A-Za-z]{1,30})")


def letters_of(tree: Tree) -> list[str]:
    """Return the letters of a product of nothing but letters, in order; an empty list for anything else."""
    if tree[0] == "*" and len(tree) == 3:
        left, right = letters_of(tree[1]), letters_of(tree[2])
        return [*left, *right] if left and right else []
    return [tree[1]] if tree[0] in ("var", "const") and re.match(r"[A-Za-z](?:_|\Z)", tree[1]) else []


def are_numbers(letters: list[str], question: str | None) -> bool:
    """Return whether letters in a row are a product: the question gives each as a letter, or is not known.

    Labels (`A` to `H`, or those of a figure such as `triangle PQR`) and x, y, z, e, i, g need not be given.
    Letters are no numbers where one comes twice (`HHT`: the square of a number is written as one), and in a question of
    words or sequences only those in its mathematics are.
    """
    if question is None:
        return True
    question = question[-MAX_CHARS:]
    if len({*letters}) < len(letters):
        return False
    given = _in_mathematics(question)
    if not _SEQUENCE_ASKED.search(question):
        given |= {*_LONE.findall(question), *"".join(_FIGURE.findall(question)), *_UNNAMED}
    return {each[0] for each in letters} <= given


def _in_mathematics(question: str) -> set[str]:
    """Return the letters in the mathematics of a question, and in short words beside a sign such as `=` or a number."""
    maths = " ".join(_COMMAND.sub(" ", "".join(filter(None, each))) for each in _IN_MATHS.findall(question))
    return {*"".join(_BESIDE_SIGN.findall(question)), *maths}
