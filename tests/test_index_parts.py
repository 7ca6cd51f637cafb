"""Postings, fused rankings, headers and lookups of an index by arithmetic done in the test."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError, StoreError
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.document import Document
from firsthand.retrieval.retriever import Hit, TrailStep
from firsthand.retrieval.retrievers.fusion import reciprocal_rank_fusion
from firsthand.retrieval.retrievers.score_fusion import convex_combination
from firsthand.retrieval.store.header_row import refuse_other_header
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.retrieval.store.term_postings import TermPostings

# -- postings --


def pairs(counts: dict[int, int]) -> bytes:
    return np.array([each for pair in counts.items() for each in pair], "<u4").tobytes()


ROWS: list[dict[int, int]] = [{1: 2, 3: 1}, {3: 4}, {}, {1: 1, 2: 1, 3: 1}, {2: 5}]


def expected(words: list[tuple[int, int]], alive: list[int]) -> list[float]:
    """BM25 of each row by the module's formula."""
    lengths = [sum(row.values()) for row in ROWS]
    mean = sum(lengths[row] for row in alive) / len(alive)
    scores = [0.0] * len(ROWS)
    for word, times in words:
        holding = sum(word in ROWS[row] for row in alive)
        weight = times * math.log(1 + (len(alive) - holding + 0.5) / (holding + 0.5))
        for row, counts in enumerate(ROWS):
            if word in counts:
                scores[row] += weight * counts[word] / (counts[word] + 1.2 * (0.25 + 0.75 * lengths[row] / mean))
    return scores


@pytest.mark.parametrize("cuts", [(5,), (1, 2, 3, 4, 5), (2, 5)])
def test_scores_of_postings_are_bm25_however_they_were_appended(cuts: tuple[int, ...]) -> None:
    made, first = TermPostings(), 0
    for last in cuts:
        part = ROWS[first:last]
        made.append([sum(row.values()) for row in part], [pairs(row) for row in part], 3)
        made.join()
        first = last
    assert made.lengths.tolist() == [3, 4, 0, 3, 5]
    everything = np.ones(5, bool)
    for words in ([(1, 1)], [(3, 2), (2, 1)], [(9, 1)], []):
        assert made.scores(words, everything, 5) == pytest.approx(expected(words, [0, 1, 2, 3, 4]))
    some = np.array([True, False, True, True, False])
    assert made.scores([(3, 1), (2, 2)], some, 3)[[0, 2, 3]] == pytest.approx(
        np.array(expected([(3, 1), (2, 2)], [0, 2, 3]))[[0, 2, 3]]
    )


def test_many_segments_are_merged_and_hold_what_they_held() -> None:
    made = TermPostings()
    rows = [{1: n % 3 + 1, n + 2: 2} for n in range(12)]
    for n, row in enumerate(rows):
        made.append([sum(row.values())], [pairs(row)], 20)
        made.join()
        assert len(made._segments) <= 8, n
    assert sum(len(each.rows) for each in made._segments) == 24
    counts = np.zeros(12, int)
    for each in made._segments:
        first, last = each.bounds(1)
        counts[each.rows[first:last]] = each.counts[first:last]
        assert each.bounds(99) == (0, 0) == each.bounds(0)
    assert counts.tolist() == [row[1] for row in rows]
    sparse = TermPostings()
    sparse.append([3, 1], [pairs({4_000_000: 2, 7: 1}), pairs({4_000_000: 1})], 4_000_000)
    sparse.join()
    (segment,) = sparse._segments
    assert (
        segment.words.tolist() == [7, 4_000_000] and segment.bounds(4_000_000) == (1, 3) and segment.bounds(7) == (0, 1)
    )
    assert segment.rows.tolist() == [0, 0, 1] and segment.counts.tolist() == [1, 2, 1]
    with pytest.raises(ValueError, match="a word that the table of words does not know"):
        sparse.append([1], [pairs({6: 1})], 5)
    sparse.append([1], [pairs({5: 1})], 5)  # the last one is known


# -- fused rankings --


def hits(name: str, *scored: tuple[str, float]) -> list[Hit]:
    return [
        Hit(Chunk(id, 0, 1, id), score, (TrailStep(name, rank, score),)) for rank, (id, score) in enumerate(scored, 1)
    ]


def told(found: list[Hit]) -> list[tuple[str, float]]:
    return [(hit.chunk.document, hit.score) for hit in found]


def test_ranks_are_fused_with_weights_and_a_repeated_hit_counts_once() -> None:
    one, two = hits("x", ("a", 9), ("b", 8), ("a", 7), ("c", 6)), hits("y", ("c", 3), ("b", 2))
    found = reciprocal_rank_fusion([one, two], constant=10, weights=[1, 3])
    assert told(found) == [
        ("c", pytest.approx(1 / 14 + 3 / 11)), ("b", pytest.approx(1 / 12 + 3 / 12)), ("a", pytest.approx(1 / 11)),
    ]  # fmt: skip
    assert found[1].trail == (TrailStep("x", 2, 8), TrailStep("y", 2, 2), TrailStep("rrf", 2, found[1].score))
    assert told(reciprocal_rank_fusion([one]))[0] == ("a", pytest.approx(1 / 61)) and reciprocal_rank_fusion([]) == []
    # equal scores: the best single rank, then the chunk's id
    even = reciprocal_rank_fusion([hits("x", ("d", 1)), hits("y", ("e", 1))])
    assert [hit.chunk.id for hit in even] == sorted(hit.chunk.id for hit in even)
    ties = reciprocal_rank_fusion([hits("x", ("f", 1), ("g", 1)), hits("y", ("h", 1), ("g", 1))], weights=[0, 0])
    assert ties[-1].chunk.document == "g" and [hit.score for hit in ties] == [0, 0, 0]
    for bad in ({"constant": -1.0}, {"weights": [-1.0]}, {"weights": [math.inf]}, {"weights": [math.nan]}):
        with pytest.raises(ConfigError, match=r"the constant is .* and the weights are .*: give numbers of 0 or more"):
            reciprocal_rank_fusion([one], **bad)  # type: ignore[arg-type]


def test_scaled_scores_are_added_by_weight_and_equal_ones_are_whole() -> None:
    one, two = hits("x", ("a", 10), ("b", 5), ("c", 2)), hits("y", ("c", -1), ("b", -1))
    found = convex_combination([one, two], [0.4, 0.6])
    assert told(found) == [
        ("b", pytest.approx(0.4 * 3 / 8 + 0.6)), ("c", pytest.approx(0.6)), ("a", pytest.approx(0.4)),
    ]  # fmt: skip
    assert found[0].trail == (TrailStep("x", 2, 5), TrailStep("y", 2, -1), TrailStep("convex", 1, found[0].score))
    assert told(convex_combination([hits("x", ("a", 0.0)), []], [0.5, 0.5])) == [("a", 0.5)]
    assert told(convex_combination([hits("x", ("a", 4), ("b", 2), ("a", 3))], [1.0])) == [("a", 1.0), ("b", 0.0)]
    with pytest.raises(ConfigError, match=r"the weights are \[0\.5, -0\.5\]: give numbers of 0 or more"):
        convex_combination([one, two], [0.5, -0.5])


# -- headers and lookups --


def test_a_header_is_refused_by_what_differs_but_for_the_embedder_s_name() -> None:
    stored = IndexHeader("m", "f", 3, "lines", "q: ", "p: ")
    refuse_other_header("i", stored, IndexHeader("other", "f", 3, "lines", "q: ", "p: "))
    with pytest.raises(ConfigError) as caught:
        refuse_other_header("i", stored, IndexHeader("m", "g", 3, "c" * 90, "q: ", ""))
    assert str(caught.value) == (
        f"i was made with fingerprint 'f' (now 'g'), chunker 'lines' (now '{'c' * 79}), document_prefix 'p: ' (now ''): use "
        "what it was made with, or make it again with `firsthand rag reindex`"
    )


def test_a_dimension_is_within_what_an_index_may_have(tmp_path: Path) -> None:
    for number, dimension in enumerate((0, 65_536)):
        open_index(tmp_path / str(number), IndexHeader("m", "f", dimension, "lines")).close()
    for dimension in (-1, 65_537):
        with pytest.raises(
            ConfigError, match=f"the dimension is {dimension}: give that of the embedder, or 0 for terms"
        ):
            open_index(tmp_path / "none", IndexHeader("m", "f", dimension, "lines"))
    with pytest.raises((ConfigError, StoreError)):
        open_index(tmp_path / "nothing", None)


def test_a_filter_of_many_values_is_read_in_parts(tmp_path: Path) -> None:
    index = open_index(tmp_path / "i", IndexHeader("", "", 0, "lines"))
    for n in range(7):
        document = Document(f"d{n}", "mill", title=f"T{n}", meta={"n": n, "even": n % 2 == 0})
        index.put([IndexedDocument(document, [Chunk(document.id, 0, 4, "mill", meta=document.meta)], None)])

    def found(**where: Any) -> list[int]:
        return sorted(int(hit.chunk.document[1:]) for hit in index.search_terms("mill", 9, where))

    many = [*range(100, 10_500), 2, 6]
    assert found(n=many) == [2, 6] and found(n={"not": many}) == [0, 1, 3, 4, 5] and found(n=many[:-1]) == [2]
    assert found(n=[]) == [] and found(n={"min": 2, "max": 4}) == [2, 3, 4] and found(n={"min": 5}) == [5, 6]
    assert found(n={"max": 1}, document=["d1", "d2"]) == [1] and found(title="T3") == [3] and found(none=1) == []
    assert found(none={"not": 1}) == [*range(7)] and found(document={"not": "d0"}, n={"max": 2}) == [1, 2]
    assert found(even=True) == [0, 2, 4, 6] and found(even=False, n={"not": [1, 3]}) == [5]
    index.delete(["d2"])
    assert found(n=many) == [6], "what was kept for a filter goes with a change"
    for n in range(70):
        assert found(n=n) == ([n] if n < 7 and n != 2 else [])
    assert found(n=many) == [6]
    index.close()


def test_titles_and_chunks_of_all_words_are_looked_up_in_their_order(tmp_path: Path) -> None:
    index = open_index(tmp_path / "i", IndexHeader("", "", 0, "lines"))
    texts = {"z": "old mills stand", "a": "the mill was old", "m": "an older mill stood", "b": "windmill old"}
    titles = {"z": "The Mill", "a": "the mill", "m": "The Mills", "b": "THE MILL"}
    for id, text in texts.items():
        index.put([IndexedDocument(Document(id, text, titles[id]), [Chunk(id, 0, len(text), text)], None)])
    assert (
        index.titled("the MILL") == ["z", "a", "b"]
        and index.titled("mill") == []
        and index.titled("The Mills") == ["m"]
    )

    def found(*words: str, limit: int = 9) -> list[str]:
        return [chunk.document for chunk in index.chunks_with(words, limit=limit)]

    assert found("mill", "old") == ["z", "a", "m"], "of the last word any beginning"
    assert found("old", "mill") == ["z", "a"] and found("old", "mill", limit=1) == ["z"]
    assert found("stand") == ["z"] and found("old") == ["z", "a", "m", "b"] and found("mil") == ["z", "a", "m"]
    assert found("mil", "old") == [] == found("nothing") == found() == found("--")
    index.close()
