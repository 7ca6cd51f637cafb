"""Reads one of a few labels from a reply that no grammar held: the reply has to be the label, or to open or close with it.

`written_label` is for replies that are asked for once more where it finds none; `stated_label` for those that are not.

A judge quotes what it judges, so that a label somewhere in its text may be the answer's and not its own. A reply that names
two labels is therefore none, and so is one whose label stands in the middle of a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_MARKS = r"[*_`\s]*"
_HEADING = (
    r"(?:(?:my |the )?(?:final |overall )?(?:verdict|rating|score|judge?ment)(?: is)?(?: a)?(?: tie)?[\s*_`]*:?)?"
)
_GOES_ON = r"(?:$|[,;:!(\u2013\u2014]|\.(?!\w)|\s-\s)"


def written_label(text: str, labels: Sequence[str]) -> str | None:
    """The one label that a reply names, if the reply is that label, its first line opens with it or its last line is it.

    The case of letters counts only where labels differ by it. A thought before the reply is passed over.
    """
    named, lines, flags = _named(text, labels)
    if named is None:
        return None
    begun = _begun(named)
    readings = [(rf"{begun}{_GOES_ON}", lines[0]), (rf"{begun}[.!]?{_MARKS}$", lines[-1])]
    if len(lines) == 1:
        readings.append((rf"[\"'\u201c]{_form(named)}[.!]?[\"'\u201d][.!]?$", lines[0]))
    return named if any(re.match(pattern, line, flags) for pattern, line in readings) else None


def stated_label(text: str, labels: Sequence[str]) -> str | None:
    """The one label that a reply names, if `written_label` reads it or a line opens or ends with it: `A is better: [[A]]`.

    A line that ends with a label in quotes, or behind "not", does not count.
    """
    if (written := written_label(text, labels)) is not None:
        return written
    named, lines, flags = _named(text, labels)
    if named is None:
        return None
    ended = rf"(?<![\"'\u201c\u2018])(?<!not ){_form(named)}[.!)]*{_MARKS}$"
    states = any(re.match(_begun(named), line, flags) or re.search(ended, line, flags) for line in lines)
    return named if states else None


def _named(text: str, labels: Sequence[str]) -> tuple[str | None, list[str], re.RegexFlag]:
    """The one label in a reply behind its thought, None unless it is one; its lines; the flags of expressions for labels."""
    said = _THOUGHT.sub("", text, count=1)
    cased = len({label.casefold() for label in labels}) < len(labels)
    flags = re.NOFLAG if cased else re.IGNORECASE
    named = [label for label in labels if re.search(_form(label), said, flags)]
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return (named[0] if len(named) == 1 and lines else None), lines, flags


def _begun(label: str) -> str:
    """The label at the beginning of a line, perhaps behind a heading, as an expression."""
    return rf"{_MARKS}(?i:{_HEADING}){_MARKS}{_form(label)}{_MARKS}"


def _form(label: str) -> str:
    """The label as an expression that finds it in no longer word or number."""
    before = r"(?<![\w-])" if label[:1].isalnum() else ""
    after = r"(?!\w|['\u2019-]\w|[.,]\d)" if label[-1:].isalnum() else ""
    return f"{before}{re.escape(label)}{after}"
