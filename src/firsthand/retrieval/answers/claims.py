"""The claims of a written answer: each sentence with what it cites, checked against the passages and numbered anew."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from firsthand.retrieval.answers.citations import (
    Citation,
    HitPlace,
    QuoteSpan,
    find_quote,
    label_of,
    sentences,
)
from firsthand.retrieval.answers.passage_words import whole_words
from firsthand.retrieval.retriever import Hit
from firsthand.retrieval.store.unspaced_words import has_unspaced
from firsthand.system.sentence_ends import SENTENCE_END

Unsupported = Literal["mark", "drop", "keep"]
"""`mark`: a claim without support is followed by UNSUPPORTED; `drop`: it is left out; `keep`: it stays as it is."""
UNSUPPORTED = "[unsupported]"
OVERLAP = 0.5
"""The share of a claim's content words that the passages it cites must hold."""
_REFERENCE = re.compile(
    r"\[\s*(?P<numbers>\d{1,4}(?:\s*+[,;]\s*+\d{1,4})*)(?:\s*+(?:[:,]\s*+)?[\"“](?P<quote>[^\"”\n]{1,2000})[\"”])?\s*\]"
)
_MARK = "\ue000"
_CLAIM_END = re.compile(
    rf"(?:(?P<point>(?<![.!?])[.!?]++[\"'”)]*+)|{SENTENCE_END})(?P<cited>(?:\s*{_MARK}\d+{_MARK})*+)"
    r"(?P<space>\s*)(?P<following>\S?)"
)
_OPENING = frozenset("\"'“(*„‚‘«¿¡「『")
_LETTER = re.compile(r"[^\W\d_]")
_STOP = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be been but by can did do does for from had has have he her his how i if in into is it its may "
        "more not of on or our she should so such than that the their them then there these they this those to was we were "
        "what when where which who why will with would you your",
    )
)


@dataclass(frozen=True)
class CheckedClaims:
    """An answer after the check of its claims."""

    text: str
    """Its citations numbered from 1 in order of appearance."""
    citations: tuple[Citation, ...]
    unsupported: tuple[str, ...]
    """The claims that no citation supports."""
    forged: int
    """References to passages that there are not, and quotations that stand in none."""


@dataclass(frozen=True)
class _Reference:
    numbers: tuple[int, ...]
    quote: str | None


def check_claims(
    text: str,
    hits: Sequence[Hit],
    places: Sequence[HitPlace],
    *,
    unsupported: Unsupported = "mark",
    overlap: float = OVERLAP,
) -> CheckedClaims:
    """Checks every sentence: it must cite a passage there is, whose quotation stands in it, or which holds its words.

    A claim is supported if a quotation of it was found, or if the passages that it cites hold `overlap` of its content words
    and every number in it. A claim that is repeated is given once.
    """
    references: list[_Reference] = []

    def marked(found: re.Match[str]) -> str:
        numbers = tuple(dict.fromkeys(int(each) for each in re.findall(r"\d+", found["numbers"])))
        references.append(_Reference(numbers, found["quote"]))
        return f"{_MARK}{len(references) - 1}{_MARK}"

    plain = _REFERENCE.sub(marked, text.replace(_MARK, ""))
    cited: dict[tuple[int, int, int], Citation] = {}
    lines: list[str] = []
    failed: list[str] = []
    forged = 0
    told: set[str] = set()
    for line in plain.split("\n"):
        parts: list[str] = []
        item = ""
        for claim in _claims(line):
            bare = _bare(claim)
            if not _LETTER.search(bare):  # the number of a list's item, or references read with their sentence
                item = f"{bare} "
                continue
            if (folded := " ".join(bare.casefold().split())) in told:
                continue
            told.add(folded)
            spans, bad = _spans(bare, claim, references, hits, overlap)
            forged += bad
            if spans:
                numbers = dict.fromkeys(_number(cited, place, span, hits, places) for place, span in spans)
                parts.append(f"{item}{bare} {''.join(f'[{number}]' for number in numbers)}")
            else:
                failed.append(bare)
                if unsupported != "drop":
                    parts.append(f"{item}{bare}" + (f" {UNSUPPORTED}" if unsupported == "mark" else ""))
            item = ""
        lines.append(" ".join(part for part in parts if part))
    whole = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    return CheckedClaims(whole, tuple(cited.values()), tuple(failed), forged)


def content_words(text: str) -> frozenset[str]:
    """The words of a text that carry its content, in lower case and without a plural's s; numbers are whole, and text of
    scripts without blanks is pairs of its letters."""
    return frozenset(
        word.rstrip("s") or word
        for word in whole_words(text)
        if word not in _STOP and (len(word) > 1 or word.isdigit() or has_unspaced(word))
    )


def best_sentence(claim: str, text: str) -> tuple[int, int] | None:
    """The span of the sentence that shares most content words with the claim, the shortest of equals; None if none does."""
    wanted = content_words(claim)
    rated = [
        (len(wanted & content_words(text[start:end])), start - end, -start, (start, end))
        for start, end in sentences(text)
    ]
    shared, _, _, span = max(rated, default=(0, 0, 0, (0, 0)))
    return span if shared else None


def _claims(line: str) -> Iterator[str]:
    """The sentences of a line, each with the references behind it.

    A Latin point ends one before white space, unless a small letter follows and no reference is between; the marks of
    other scripts always do.
    """
    start = place = 0
    while found := _CLAIM_END.search(line, place):
        end, following = found.end("cited"), found["following"]
        place = end
        begins = not following or following in _OPENING or (following.isalnum() and not following.islower())
        if found["point"] is None or found["cited"] or (begins and (found["space"] or not following)):
            yield line[start:end].strip()
            start = end
    yield line[start:].strip()


def _bare(claim: str) -> str:
    """The claim without its references."""
    return re.sub(rf"(?<!\s)\s*{_MARK}\d+{_MARK}", "", claim).strip()


def _spans(
    bare: str, claim: str, references: Sequence[_Reference], hits: Sequence[Hit], overlap: float
) -> tuple[list[tuple[int, QuoteSpan]], int]:
    """The quotations that support a claim, as (hit, span within it), and the number of references that are forged."""
    found: list[tuple[int, QuoteSpan]] = []
    named: list[int] = []
    forged = 0
    for place in re.findall(rf"{_MARK}(\d+){_MARK}", claim):
        reference = references[int(place)]
        known = [number - 1 for number in reference.numbers if 1 <= number <= len(hits)]
        forged += len(reference.numbers) - len(known)
        if reference.quote is None:
            named += known
            continue
        quoted = [
            (hit, span) for hit in known if (span := find_quote(hits[hit].chunk.text, reference.quote)) is not None
        ]
        forged += not quoted
        found += quoted
    if found or not named:
        return found, forged
    texts = [hits[hit].chunk.text for hit in named]
    wanted, held = content_words(bare), frozenset[str]().union(*(content_words(text) for text in texts))
    numbers = {word for word in wanted if any(letter.isdigit() for letter in word)}
    if not wanted or len(wanted & held) < overlap * len(wanted) or not numbers <= held:
        return [], forged
    shared = {hit: wanted & content_words(hits[hit].chunk.text) for hit in dict.fromkeys(named)}
    told: set[str] = set()
    for hit in sorted(shared, key=lambda hit: -len(shared[hit])):
        best = best_sentence(bare, hits[hit].chunk.text)
        if best is not None and not shared[hit] <= told:  # a passage that adds nothing is not cited
            told |= shared[hit]
            found.append((hit, QuoteSpan(best[0], best[1], "chosen")))
    return found, forged


def _number(
    cited: dict[tuple[int, int, int], Citation],
    hit: int,
    span: QuoteSpan,
    hits: Sequence[Hit],
    places: Sequence[HitPlace],
) -> int:
    """The number of a citation, which is made if it is new."""
    key = (hit, span.start, span.end)
    if key not in cited:
        chunk, place = hits[hit].chunk, places[hit]
        start = chunk.start + span.start
        cited[key] = Citation(
            number=len(cited) + 1,
            document=chunk.document,
            sha256=place.sha256,
            start=start,
            end=chunk.start + span.end,
            quote=chunk.text[span.start : span.end],
            source=place.source,
            label=label_of(hits[hit], place, start),
            match=span.match,
        )
    elif cited[key].match == "chosen" != span.match:
        cited[key] = replace(cited[key], match=span.match)
    return cited[key].number
