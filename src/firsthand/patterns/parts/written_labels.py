"""Reads one of a few labels from a reply that no grammar held.

`written_label` is for replies that are asked for once more where it finds none: the reply has to be the label, or to open or
close with it. `stated_label` is for those that are not: a label within a sentence counts too, unless it is denied or quoted.

A judge quotes what it judges, so that a label somewhere in its text may be the answer's and not its own. A reply that names
two labels is therefore none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from firsthand.system.said_text import said_text

_MARKS = r"[*_`\t \xa0]*"
_HEADING = (
    r"(?:my |the )?(?:final |overall )?(?:verdict|rating|score|judge?ment)(?: is)?(?: a)?(?: tie)?"
    rf"{_MARKS}(?::{_MARKS})?"
)
_GOES_ON = r"(?:$|[,;:!(\u2013\u2014]|\.(?!\w)|\s-\s)"
_QUOTES = "\"'\u2018\u2019\u201c\u201d\u00ab\u00bb"
_BEFORE_CHARS = 200
"""So much of the text before a label is read for what it says of the label."""
_DENIED = re.compile(
    r"(?:\b(?:not|never|nor|neither|cannot|nobody|no one|hardly|rather than|instead of|ignor(?:e|es|ed|ing)|disregard\w*)"
    r"|n['\u2019]t)"
    r"(?: (?:a|an|the|that|this|it|its|is|be|been|as|for|to|with|in|me|my|i|would|will|can|could|say|think|believe|choose"
    r"|pick|select|prefer|give|call|vote|go|follow|accept|support|deserve|verdict|label|answer|winner|it['\u2019]s))*$"
)
"""The end of a text that denies the label behind it, such as "it isn't" or "nobody would say"."""
_QUOTED = re.compile(
    r"(?<!\bi )\b(?:says|said|saying|writes|wrote|writing|claims|claimed|claiming|contains|containing|quotes|quoting"
    r"|(?:end|start|begin|open|close)s with"
    r"|(?:ask|tell|want|instruct|urge|order|beg)(?:s|ed)?(?: \w+){0,3} to (?:write|say|print|output|reply|answer|end))"
    r"(?: (?:the|a|an|that|its|own|only|with|verdict|label|text|words?|line|phrase))*"
    r"[:,]?(?: ?[*_`]*[\"\u201c\u00ab][^\"\u201c\u201d\u00ab\u00bb]*)?$"
)
"""The end of a text that gives the label behind it as somebody's words, such as "the answer of B says"."""


def written_label(text: str, labels: Sequence[str]) -> str | None:
    """The one label that a reply names, if the reply is that label, its first line opens with it or its last line is it.

    The case of letters counts only where labels differ by it. A thought before the reply is passed over.
    """
    named, lines, flags = _named(text, labels)
    if named is None:
        return None
    begun = _begun(named)
    readings = [(rf"{begun}{_MARKS}{_GOES_ON}", lines[0]), (rf"{begun}{_MARKS}(?:[.!]{_MARKS})?$", lines[-1])]
    if len(lines) == 1:
        readings.append((rf"[\"'\u201c]{_form(named)}[.!]?[\"'\u201d][.!]?$", lines[0]))
    return named if any(re.match(pattern, line, flags) for pattern, line in readings) else None


def stated_label(text: str, labels: Sequence[str]) -> str | None:
    """The one label that a reply names, if it states it: `A is better: [[A]]`, or `I choose "[[A]]" because ...`.

    A label that is a word, such as `yes`, counts where a line opens or ends with it alone. None counts if it is denied
    ("it isn't [[A]]"), has a question mark, or is told to be in an answer ("B ends with [[B]]").
    """
    if (written := written_label(text, labels)) is not None:
        return written
    named, lines, flags = _named(text, labels)
    if named is None:
        return None
    form, said = _form(named), "\n".join(lines)
    if named[:1].isalnum():
        form = rf"(?m:^{_begun(named)}|{form}(?=[.!)*_`{_QUOTES}]*$))"
    questioned = re.compile(rf"[*_`{_QUOTES})]*\?")
    is_stated = False
    for found in re.finditer(form, said, flags):
        end = found.end()
        before = said[max(0, end - len(named) - _BEFORE_CHARS) : end - len(named)]
        if _DENIED.search(_plain(before.rpartition("\n")[2], f"*_`([{_QUOTES}")):
            return None
        is_quoted = _QUOTED.search(_plain(before, "*_`'\u2018\u2019")) is not None
        is_stated = is_stated or not (is_quoted or questioned.match(said, end))
    return named if is_stated else None


def _plain(text: str, marks: str) -> str:
    """The text in lower case, its blanks single, without marks and blanks at its end."""
    return " ".join(text.lower().split()).rstrip(f"{marks} ")


def _named(text: str, labels: Sequence[str]) -> tuple[str | None, list[str], re.RegexFlag]:
    """The one label in a reply behind its thought, None unless it is one; its lines; the flags of expressions for labels."""
    said = said_text(text)
    cased = len({label.casefold() for label in labels}) < len(labels)
    flags = re.NOFLAG if cased else re.IGNORECASE
    named = [label for label in labels if re.search(_form(label), said, flags)]
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return (named[0] if len(named) == 1 and lines else None), lines, flags


def _begun(label: str) -> str:
    """The label at the beginning of a line, perhaps behind a heading, as an expression."""
    return rf"{_MARKS}(?i:{_HEADING})?{_form(label)}"


def _form(label: str) -> str:
    """The label as an expression that finds it in no longer word or number."""
    before = r"(?<![\w-])" if label[:1].isalnum() else ""
    after = r"(?!\w|['\u2019-]\w|[.,]\d)" if label[-1:].isalnum() else ""
    return f"{before}{re.escape(label)}{after}"
