"""Citation: a quotation found word for word in a document, with the hash, the span and the place that prove it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

from firsthand.errors import UnknownName
from firsthand.message import Json
from firsthand.retrieval.answers.evidence import unescaped
from firsthand.retrieval.answers.passage_words import is_whole
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import ChunkIndex
from firsthand.retrieval.corpus import Corpus
from firsthand.retrieval.document import Document
from firsthand.retrieval.retriever import Hit
from firsthand.system.abbreviations import ends_sentence
from firsthand.system.sentence_ends import SENTENCE_END

QuoteMatch = Literal["exact", "normalised", "chosen"]
"""`exact`: the model's quotation stands in the passage letter for letter; `normalised`: but for case and white space;
`chosen`: the model named the passage, and the quotation is the passage's sentence that shares most words with the claim."""
MIN_QUOTE_CHARS = 8
"""A shorter quotation is found anywhere and proves nothing."""


@dataclass(frozen=True)
class Citation:
    """A span of a document that an answer rests on: `quote` is exactly `document.text[start:end]`."""

    number: int
    """Its number in the answer, from 1."""
    document: str
    """The id of the document."""
    sha256: str
    """The hash of the document's text; empty if the index no longer holds the document with the passage at its span."""
    start: int
    end: int
    quote: str
    source: str
    """The path or URL that the document was read from."""
    label: str
    """The place as a reader looks it up: `guide.md:12` or `paper.pdf, page 3`."""
    match: QuoteMatch

    def to_json(self) -> Json:
        """The citation as a JSON object."""
        return asdict(self)


class HitPlace(NamedTuple):
    """The place of a hit in its document, if the document as it is now has the hit's text at its span.

    Of a document that was indexed again since, or a passage that a guard rewrote, hash and line would be those of another
    text: `sha256` is empty, `line` 0, and there are no marks. Of a document that was removed `source` is empty too.
    """

    sha256: str
    source: str
    line: int
    """The line of the hit's first character, from 1."""
    marks: tuple[tuple[int, str, str], ...]
    """(start, kind, label) of the document's places up to the hit's end, from the one that holds its start."""


class QuoteSpan(NamedTuple):
    """A quotation found in a text."""

    start: int
    end: int
    match: QuoteMatch


async def locate(corpus: Corpus, hits: Sequence[Hit]) -> list[HitPlace]:
    """The place of each hit, in one read of the corpus."""
    spans = [[hit.chunk.document, hit.chunk.start, hit.chunk.end] for hit in hits]

    async def act(passed: Json) -> Sequence[Json]:
        return await corpus.ask(
            lambda index: [_place(index, hit.chunk) | {"hit": number} for number, hit in enumerate(hits)]
        )

    items = await corpus.items("locate", {"query": "", "k": len(hits), "spans": spans}, act)
    found = {
        item.get("hit", number): HitPlace(
            item["sha256"],
            item["source"],
            item["line"],
            tuple((start, kind, label) for start, kind, label in item["marks"]),
        )
        for number, item in enumerate(items)
    }
    return [found.get(number, HitPlace("", "", 0, ())) for number in range(len(hits))]  # a guard may withhold a place


def _place(index: ChunkIndex, chunk: Chunk) -> Json:
    try:
        document = index.document(chunk.document)
    except UnknownName:  # it was removed after it was found
        return {"text": "", "sha256": "", "source": "", "line": 0, "marks": []}
    if document.text[chunk.start : chunk.end] != chunk.text:  # it was indexed again, or a guard rewrote the passage
        return {"text": "", "sha256": "", "source": document.source, "line": 0, "marks": []}
    first = document.location(chunk.start)
    marks = [place for place in document.locations if first.start <= place.start < chunk.end]
    line = document.text.count("\n", 0, chunk.start) + 1
    listed = [[mark.start, mark.kind, mark.label] for mark in marks]
    return {"text": "", "sha256": document.sha256, "source": document.source, "line": line, "marks": listed}


def label_of(hit: Hit, place: HitPlace, start: int) -> str:
    """The place of a character of the hit's document, as a reader looks it up."""
    id = hit.chunk.document
    marks = [mark for mark in place.marks if mark[0] <= start]
    if marks and marks[-1][1] != "line":
        _, kind, label = marks[-1]
        return f"{id}, {label}" if kind == "heading" else f"{id}, {kind} {label}"
    if marks:
        return f"{id}:{marks[-1][2]}"
    if not place.line:
        return id
    return f"{id}:{place.line + hit.chunk.text.count(chr(10), 0, max(0, start - hit.chunk.start))}"


def find_quote(text: str, quote: str) -> QuoteSpan | None:
    """The span of a quotation in a text: letter for letter, else but for case, white space and the form of quotation
    marks; never by likeness.

    None if it is not there, has fewer than 8 characters, or begins or ends within a word or number of the text.
    """
    quote = quote.strip()
    if len(quote) < MIN_QUOTE_CHARS:
        return None
    for form in dict.fromkeys((quote, unescaped(quote))):
        for start in _places(text, form):
            if is_whole(text, start, start + len(form)):
                return QuoteSpan(start, start + len(form), "exact")
    folded, places = _folded(text)
    wanted = _folded(unescaped(quote))[0].strip()
    for place in _places(folded, wanted):
        start, end = places[place], places[place + len(wanted) - 1] + 1
        if is_whole(text, start, end):
            return QuoteSpan(start, end, "normalised")
    return None


def _places(text: str, part: str) -> Iterator[int]:
    """The places at which a part, if it is not empty, stands in a text, in order."""
    start = text.find(part) if part else -1
    while start >= 0:
        yield start
        start = text.find(part, start + 1)


_STRAIGHT = str.maketrans("‘’‚‛“”„‟", "''''" + 4 * '"')


def _folded(text: str) -> tuple[str, list[int]]:
    """The text in lower case with single spaces, none behind a word's hyphen, and straight quotation marks; and for each of
    its characters the one it comes from."""
    letters: list[str] = []
    places: list[int] = []
    for place, letter in enumerate(text):
        forms = " " if letter.isspace() else letter.translate(_STRAIGHT).casefold()
        before = letters[-2:]
        if forms == " " and before and (before[-1] == " " or (before[-1] == "-" and before[0].isalpha())):
            continue  # a line may end behind the hyphen of a word
        letters += forms
        places += [place] * len(forms)
    return "".join(letters), places


def holds(citation: Citation, document: Document) -> bool:
    """True if the citation's quotation stands in the document at its span, and the document is the one that was cited."""
    return citation.sha256 == document.sha256 and document.text[citation.start : citation.end] == citation.quote != ""


_BOUNDARY = re.compile(
    r"(?P<latin>(?<=[.!?])(?<!^\d\.)(?<!\n\d\.)(?<!\n\d\d\.)[\"')\]”]*+(?P<cited>(?:\[\d{1,4}\])*+)(?=\s))"  # no row's
    rf"|{SENTENCE_END}(?:\[\d{{1,4}}\])*+"
    r"|\n(?=[ \t]*(?:\n|[-*+#|>] ?|\d{1,3}[.)] |```))"  # before an empty line, a heading, or a row of a list or table
    r"|(?<=\|)[ \t]*\n"
)
_GAP = re.compile(r"\s*+")


def sentences(text: str) -> list[tuple[int, int]]:
    """The spans of the sentences of a text, without the white space around them. A wrapped line goes on; rows of lists and
    tables, headings and paragraphs end; abbreviations and initials end none. References such as `[1]` belong to the
    sentence before them."""
    found = []
    start = 0
    for end in [*_ends(text), len(text)]:
        first, last = start, end
        while first < last and text[first].isspace():
            first += 1
        while last > first and text[last - 1].isspace():
            last -= 1
        if first < last:
            found.append((first, last))
        start = end
    return found


def _ends(text: str) -> Iterator[int]:
    """The places behind the sentences of a text, but for the last."""
    begun = 0
    is_cased = not text.islower()
    for match in _BOUNDARY.finditer(text):
        if match["latin"] is not None and text[match.start() - 1] == "." and not match["cited"]:
            after = _GAP.match(text, match.end())
            if after is not None and not ends_sentence(text, begun, match.start() - 1, after.end(), is_cased=is_cased):
                continue
        begun = match.end()
        yield begun
