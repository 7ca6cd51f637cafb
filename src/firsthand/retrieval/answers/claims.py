"""The claims of a written answer: each sentence with what it cites, checked against the passages and numbered anew."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from typing import Literal

from firsthand.retrieval.answers.citations import (
    Citation,
    HitPlace,
    QuoteSpan,
    find_quote,
    label_of,
    sentences,
)
from firsthand.retrieval.answers.code_fences import AnswerPart, answer_parts
from firsthand.retrieval.answers.held_words import HeldWords, WantedWords
from firsthand.retrieval.answers.stated_quantities import Quantity
from firsthand.retrieval.retriever import Hit
from firsthand.system.abbreviations import ends_sentence
from firsthand.system.sentence_ends import SENTENCE_END

Unsupported = Literal["mark", "drop", "keep"]
"""`mark`: a claim without support is followed by UNSUPPORTED; `drop`: it is left out; `keep`: it stays as it is."""
UNSUPPORTED = "[unsupported]"
OVERLAP = 0.5
"""The share of a claim's content words that the passages it cites must hold."""
_REFERENCE = re.compile(
    r"\[\s*(?P<numbers>\d{1,4}(?:\s*+[,;]\s*+\d{1,4})*)(?:\s*+(?:[:,]\s*+)?[\"“](?P<quote>[^\"”\n]{1,2000})[\"”])?\s*\]"
)
_REFERENCE_OR_CODE = re.compile(rf"{_REFERENCE.pattern}|`[^`\n]++`")
_MARK = "\ue000"
_CLAIM_END = re.compile(
    rf"(?:(?P<point>(?<![.!?])[.!?]++[\"'”)]*+)|{SENTENCE_END})(?P<cited>(?:\s*{_MARK}\d+{_MARK})*+)"
    r"(?P<space>\s*)(?P<following>\S?)"
)
_CELL_END = re.compile(rf"{_MARK}\d++{_MARK}(?=\s*+\|)")
"""The last reference of a table's cell that ends with one."""
_OPENING = frozenset("\"'“(*„‚‘«¿¡「『")
_LETTER = re.compile(r"[^\W\d_]")
_WORD = re.compile(r"[^\W_]")
_WORD_OR_MARK = re.compile(rf"{_MARK}\d++{_MARK}|[^\W_]")
_ITEM_LEAD = re.compile(r"[\s>*+#(|-]*+\d{1,3}(?:\.\d{1,3})*+[.)][*_)]*+\s++(?=\S)")
"""The number of an item before its text, where no sentence ends behind it: `2) `, `**1.** `."""
_ITEM = re.compile(r"[\s>*+#(|-]*+(?:(?P<number>\d{1,3}(?:\.\d{1,3})*+)|[ivxIVX]{1,6}|[A-Za-z])[.)][*_)]*+")


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
    and every number in it. A number alone is a claim, unless it is that of a list's item. A claim that is repeated is given
    once, but for rows of tables. The rest of the text stays as it is, and with `keep` all of it but references.
    """
    references: list[_Reference] = []

    def marked(found: re.Match[str]) -> str:
        numbers = tuple(dict.fromkeys(int(each) for each in re.findall(r"\d+", found["numbers"])))
        references.append(_Reference(numbers, found["quote"]))
        return f"{_MARK}{len(references) - 1}{_MARK}"

    def marked_in(found: re.Match[str]) -> str:
        if found["numbers"] is not None:
            return marked(found)
        return _REFERENCE.sub(lambda each: each[0] if _is_index(each) else marked(each), found[0])

    passages = [_Passage(hit.chunk.text) for hit in hits]
    check = _Check(hits, places, references, unsupported, overlap, passages)
    for kind, parts in groupby(answer_parts(text.replace(_MARK, "")), key=lambda part: part.kind):
        if kind == "prose":
            for line in _REFERENCE_OR_CODE.sub(marked_in, "\n".join(part.text for part in parts)).split("\n"):
                check.add(line)
            continue
        for part in parts:
            if kind == "code":
                check.add_code(part)
            elif unsupported == "keep":
                check.add(part.text)
    return CheckedClaims(check.text(), tuple(check.cited.values()), tuple(check.failed), check.forged)


@dataclass
class _Check:
    """The lines of an answer, each as it is written but for its references, with numbers or a mark behind its claims."""

    hits: Sequence[Hit]
    places: Sequence[HitPlace]
    references: Sequence[_Reference]
    unsupported: Unsupported
    overlap: float
    passages: Sequence[_Passage]
    cited: dict[tuple[int, int, int], Citation] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    forged: int = 0
    _told: set[str] = field(default_factory=set)
    _lines: list[str] = field(default_factory=list)
    _has_claims: bool = False

    def text(self) -> str:
        """The answer; empty without a claim, unless all is kept."""
        if not self._has_claims and self.unsupported != "keep":
            return ""
        whole = "\n".join(self._lines).strip("\n").rstrip()
        return whole if whole.startswith(("    ", "\t")) else whole.lstrip()  # a first line may be indented code

    def add(self, line: str) -> None:
        """Checks a line. Of blank lines in a row the first stays."""
        shown = self._checked(line)
        before = self._lines[-1] if self._lines else ""
        if self.unsupported == "drop" and not before and not _WORD.search(shown):
            shown = ""  # a rule or a brace of what was dropped
        if shown or before:
            self._lines.append(shown)

    def add_code(self, part: AnswerPart) -> None:
        """Checks code as one claim: it must stand in a passage as a quotation does, cited or not."""
        code = part.code
        found = ((hit, find_quote(each.chunk.text, code)) for hit, each in enumerate(self.hits))
        hit, span = next(((hit, span) for hit, span in found if span is not None), (0, None))
        mark = ""
        if span is not None:
            mark = f"[{_number(self.cited, hit, span, self.hits, self.places)}]"
        elif _WORD.search(code):
            self.failed.append(code.strip())
            if self.unsupported == "drop":
                return
            mark = UNSUPPORTED if self.unsupported == "mark" else ""
        self._has_claims |= bool(_WORD.search(code))
        self._lines += [part.text, mark] if mark else [part.text]

    def _checked(self, line: str) -> str:
        shown = item = references = mark = ""
        is_whole = True
        last = max((found.start() for found in _WORD_OR_MARK.finditer(line) if found[0][0] != _MARK), default=-1)
        is_row = line.lstrip().startswith("|")
        for start, end in _cells(line) if is_row else _claims(line):
            claim = line[start:end]
            bare = _bare(claim)
            spaced = claim[: len(claim) - len(claim.lstrip())] + bare
            if not _WORD.search(bare) or (end <= last and _is_item(bare, is_first=not start)):
                item += spaced
                references += claim
                continue
            told, references = references + claim, ""
            is_again = self._is_again(bare)
            if is_again and self.unsupported != "keep" and not is_row:
                is_whole = False
                continue
            if (found := self._mark(bare, told, is_again)) is None:
                is_whole, item = False, re.sub(r"[^|]++", " ", item + spaced) if is_row else ""
                continue
            piece = item + spaced
            if not shown:
                piece = line[: len(line) - len(line.lstrip())] + piece.lstrip()
            elif mark and not piece[0].isspace():
                piece = f" {piece}"
            shown += piece + found
            mark, item = found, ""
        if is_whole or (shown and not _WORD.search(item)):
            shown += item
        self._has_claims |= bool(_WORD.search(shown))
        return shown.rstrip()

    def _is_again(self, bare: str) -> bool:
        """True if the claim was told before. A number alone may be told again."""
        folded = " ".join(bare.casefold().split())
        if folded in self._told:
            return True
        if _LETTER.search(bare):
            self._told.add(folded)
        return False

    def _mark(self, bare: str, claim: str, is_again: bool) -> str | None:
        """What goes behind a claim: the numbers of its citations, a mark, or nothing; None if it is dropped."""
        lead = _ITEM_LEAD.match(bare)
        spans, bad = _spans(
            bare[lead.end() if lead else 0 :], claim, self.references, self.hits, self.passages, self.overlap
        )
        self.forged += 0 if is_again else bad
        if spans:
            numbers = dict.fromkeys(_number(self.cited, place, span, self.hits, self.places) for place, span in spans)
            return " " + "".join(f"[{number}]" for number in numbers)
        if not is_again:
            self.failed.append(bare)
        if self.unsupported == "drop":
            return None
        return f" {UNSUPPORTED}" if self.unsupported == "mark" else ""


def _is_index(reference: re.Match[str]) -> bool:
    """True if what looks like a reference within code is an index, as in `a[0]`."""
    before = reference.string[max(0, reference.start() - 1) : reference.start()]
    return before.isalnum() or before in tuple("_)]")


def _is_item(bare: str, *, is_first: bool) -> bool:
    """True for the number of a list's item, or the letter or Roman number of one that begins its line."""
    found = _ITEM.fullmatch(bare)
    return found is not None and (is_first or found["number"] is not None)


def cited_by(text: str, number: int) -> str:
    """The text with a reference to passage `number` behind each of its claims; code has none, and is looked for anyway."""
    return "\n".join(
        _line_cited_by(part.text, number) if part.kind == "prose" else part.text for part in answer_parts(text)
    )


def _line_cited_by(line: str, number: int) -> str:
    parts = [line[start:end] for start, end in _claims(line)]
    ends = [f" [{number}]" if _WORD.search(part) and not _ITEM.fullmatch(part.strip()) else "" for part in parts]
    if not any(ends) and _WORD.search(line):
        ends[0] = f" [{number}]"  # a number alone
    return "".join(f"{part.rstrip()}{end}" if end else part for part, end in zip(parts, ends, strict=True))


class _Passage:
    """A passage with the words that it and its sentences hold, each read once."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def held(self) -> HeldWords:
        return HeldWords.of(self.text)

    @cached_property
    def sentences(self) -> list[tuple[tuple[int, int], HeldWords]]:
        return [((start, end), HeldWords.of(self.text[start:end])) for start, end in sentences(self.text)]

    def best_sentence(self, wanted: WantedWords) -> tuple[int, int] | None:
        """See `best_sentence`."""
        rated = [(len(held.shared(wanted)), start - end, -start, (start, end)) for (start, end), held in self.sentences]
        shared, _, _, span = max(rated, default=(0, 0, 0, (0, 0)))
        return span if shared else None


def best_sentence(claim: str, text: str) -> tuple[int, int] | None:
    """The span of the sentence that shares most content words with the claim, the shortest of equals; None if none does."""
    return _Passage(text).best_sentence(WantedWords.of(claim))


def _claims(line: str) -> Iterator[tuple[int, int]]:
    """The spans of a line's sentences, each with the references behind it and the white space before it.

    A Latin point ends one before white space, unless a small letter follows or it is an abbreviation's, and no reference is
    between; the marks of other scripts always do.
    """
    start = place = 0
    while found := _CLAIM_END.search(line, place):
        end, following = found.end("cited"), found["following"]
        place = end
        begins = not following or following in _OPENING or (following.isalnum() and not following.islower())
        if begins and found["point"] and found["point"][0] == "." and not found["cited"]:
            begins = ends_sentence(line, start, found.start("point"), found.start("following"))
        if found["point"] is None or found["cited"] or (begins and (found["space"] or not following)):
            yield start, end
            start = end
    yield start, len(line)


def _cells(line: str) -> Iterator[tuple[int, int]]:
    """The spans of a table row's claims: its sentences, and its cells that end with references of their own.

    Cells without one belong to the next that has one, and those at the end of a row to the last.
    """
    for start, end in _claims(line):
        for found in _CELL_END.finditer(line, start, end):
            rest = line[found.end() : end]
            if _MARK in rest or not _WORD.search(rest):
                yield start, found.end()
                start = found.end()
        if start < end:
            yield start, end


def _bare(claim: str) -> str:
    """The claim without its references."""
    return re.sub(rf"(?<!\s)\s*{_MARK}\d+{_MARK}", "", claim).strip()


def _spans(
    bare: str,
    claim: str,
    references: Sequence[_Reference],
    hits: Sequence[Hit],
    passages: Sequence[_Passage],
    overlap: float,
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
    wanted = WantedWords.of(bare)
    shared = {hit: passages[hit].held.shared(wanted) for hit in dict.fromkeys(named)}
    held = frozenset[str]().union(*shared.values())
    numbers = {word for word in wanted.words if any(letter.isdigit() for letter in word)}
    quantities = frozenset[Quantity]().union(*(passages[hit].held.quantities_of(wanted) for hit in shared))
    if not wanted.words or len(held) < overlap * len(wanted.words) or not numbers <= held:
        return [], forged
    if not quantities.issuperset(wanted.quantities.all):
        return [], forged
    told: set[str] = set()
    for hit in sorted(shared, key=lambda hit: -len(shared[hit])):
        best = passages[hit].best_sentence(wanted)
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
