"""A graph without a model: noun phrases that occur together in chunks, as FastGraphRAG and LazyGraphRAG build theirs.

Phrases are found by rules of spelling alone, for English and languages written alike: runs of capitalised words are names,
and runs of two or three other words between stop words are terms. There is no tagger, so some terms are not noun phrases;
a phrase must occur in `min_frequency` chunks to count. Two phrases of one chunk are joined by an edge, weighted by how
much more often they meet than chance has it (normalised pointwise mutual information times probability); edges below the
`min_edge_percentile` are left out.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from firsthand.errors import ConfigError
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.graph.knowledge_graph import (
    ExtractedEntity,
    Extraction,
    KnowledgeGraph,
    Relation,
    merge,
)

NAME, TERM = "name", "term"
MAX_PHRASES = 200
"""Phrases of one chunk; the most frequent in it are kept, so that a long chunk does not make a million edges."""
_WORD = re.compile(r"[^\W\d_][\w’'-]*[\w]|[^\W\d_]")
_BREAK = re.compile(r"[^\w\s’'-]|\n\s*\n")
_SENTENCE_END = re.compile(r"[.!?:;\n\"“”(]\s*$")
_LINKS = frozenset(["of", "the", "de", "la", "von", "van"])
_STOP = frozenset(
    """a about above after again against all almost also although always am among an and another any anything are around as
    at away back be became because become been before began behind being below between both but by called came can
    cannot come could day did do does doing done down during each either else even ever every few first for found from
    gave get give given go goes going gone good got great had has have having he her here hers herself him himself his
    how however i if in indeed instead into is it its itself just keep kept knew know known last left less let like
    little long look looked made make many may me might mine more most much must my myself near never new next no nor
    not nothing now of off often old on once one only or other others our ours out over own perhaps put quite rather
    really right said same saw say says see seemed seen she should since so some something soon still such take taken
    tell than that the their theirs them themselves then there these they thing things think this those though thought
    three through thus time to together told too took toward two under until up upon us use used very want was way we
    well went were what whatever when where whether which while who whole whom whose why will with within without would
    yes yet you your yours""".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class NounPhraseSettings:
    """The phrases and edges that count; the defaults are FastGraphRAG's."""

    min_frequency: int = 2
    """Chunks that a phrase must occur in."""
    min_edge_percentile: float = 40.0
    """Edges whose weight is below this percentile are left out."""
    max_words: int = 3
    """The most words of a term; names are as long as they are."""

    def __post_init__(self) -> None:
        if self.min_frequency < 1 or not 0 <= self.min_edge_percentile <= 100 or self.max_words < 2:
            raise ConfigError(
                f"min_frequency is {self.min_frequency}, min_edge_percentile {self.min_edge_percentile} and max_words "
                f"{self.max_words}: give from 1, from 0 to 100, and from 2"
            )


def noun_phrases(chunk: Chunk, settings: NounPhraseSettings | None = None) -> Extraction:
    """The names and terms of a chunk as entities without descriptions."""
    settings = settings or NounPhraseSettings()
    counts: Counter[tuple[str, str]] = Counter()
    text, start = chunk.indexed_text, 0
    for stretch in [*_BREAK.finditer(text), None]:
        end = len(text) if stretch is None else stretch.start()
        begins_sentence = start == 0 or bool(_SENTENCE_END.search(text[max(0, start - 3) : start]))
        counts.update(_phrases_of(text[start:end], begins_sentence, settings.max_words))
        start = end if stretch is None else stretch.end()
    kept = sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:MAX_PHRASES]
    return Extraction(chunk.id, tuple(ExtractedEntity(name, kind) for (name, kind), _ in kept))


def _phrases_of(text: str, begins_sentence: bool, max_words: int) -> list[tuple[str, str]]:
    """The (phrase, kind) of a stretch of text without punctuation."""
    found: list[tuple[str, str]] = []
    words = _WORD.findall(text)
    place = 0
    while place < len(words):
        end = _name_end(words, place)
        if end > place:
            run = words[place:end]
            # One capitalised word that begins a sentence is a name only if it is no common word in another place.
            if not (len(run) == 1 and (run[0].lower() in _STOP or (place == 0 and begins_sentence))):
                found.append((" ".join(run), NAME))
            place = end
            continue
        end = place
        while end < len(words) and not words[end][0].isupper() and words[end].lower() not in _STOP:
            end += 1
        run = words[place:end]
        if 2 <= len(run) <= max_words and not any(word.endswith("ly") for word in run):
            found.append((" ".join(run).lower(), TERM))
        place = max(end, place + 1)
    return found


def _name_end(words: Sequence[str], first: int) -> int:
    """The end of the run of capitalised words at a place, with small words such as "of" between two of them."""
    end = place = first
    while place < len(words):
        if words[place][0].isupper() and not (end == first and words[place].lower() in _STOP):
            place += 1
            end = place
        elif end == place > first and words[place] in _LINKS:
            place += 1
        else:
            break
    return end


def phrase_graph(extractions: Sequence[Extraction], settings: NounPhraseSettings | None = None) -> KnowledgeGraph:
    """The graph of phrases that occur in enough chunks, joined where they occur together."""
    settings = settings or NounPhraseSettings()
    whole = merge(extractions)
    chunks_of = {name: {chunk for each in same for chunk in each.chunks} for name, same in whole.by_name.items()}
    kept = {name for name, chunks in chunks_of.items() if len(chunks) >= settings.min_frequency}
    total = max(1, len(extractions))
    together: dict[tuple[str, str], list[str]] = {}
    in_chunk: dict[str, list[str]] = {}
    for name in sorted(kept):
        for chunk in sorted(chunks_of[name]):
            in_chunk.setdefault(chunk, []).append(name)
    for extraction in extractions:
        for pair in combinations(in_chunk.get(extraction.chunk, ()), 2):
            together.setdefault(pair, []).append(extraction.chunk)
    weights: dict[tuple[str, str], float] = {}
    for (a, b), chunks in together.items():
        met = len(chunks) / total
        chance = len(chunks_of[a]) / total * len(chunks_of[b]) / total
        weights[a, b] = met * math.log(met / chance) if met > chance else 0.0
    least = _percentile(sorted(weights.values()), settings.min_edge_percentile)
    relations = tuple(
        Relation(a, b, (), weight, tuple(together[a, b]))
        for (a, b), weight in sorted(weights.items())
        if weight > 0 and weight >= least
    )
    entities = tuple(each for each in whole.entities if each.name in kept)
    return replace(whole, entities=entities, relations=relations)


def _percentile(ordered: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the values lie, by linear interpolation; 0 for none."""
    if not ordered:
        return 0.0
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
