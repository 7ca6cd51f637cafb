"""Searches and combinators: the formulas by hand, ties, empty lists, and what each leaves alone."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import numpy as np
import pytest

from corpus_tiny import MemoryIndex, WordEmbedder, embedded, tiny_corpus
from firsthand.errors import ConfigError
from firsthand.message import user
from firsthand.providers.scripted import Scripted
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.corpus import Corpus
from firsthand.retrieval.document import Document
from firsthand.retrieval.retriever import Hit, Query, TrailStep
from firsthand.retrieval.retrievers.best_sentence import MAX_SENTENCES, best_cosines, rerank_by_sentence
from firsthand.retrieval.retrievers.context_windows import neighbours, parents
from firsthand.retrieval.retrievers.fusion import fuse, reciprocal_rank_fusion
from firsthand.retrieval.retrievers.reranking import by_logprob, rerank
from firsthand.retrieval.retrievers.rewriting import (
    by_likelihood,
    distinct_lines,
    hyde,
    lines_of,
    multi_query,
    routed,
    step_back,
)
from firsthand.retrieval.retrievers.score_fusion import convex_combination, fuse_scores
from firsthand.retrieval.retrievers.searches import SEARCHES, dense, hybrid, lexical
from firsthand.retrieval.retrievers.selection import above, distinct, marginal_relevance, mmr, per_source, where
from firsthand.retrieval.store.index_file import MEMORY
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.retrieval.writer import ModelWriter, writer_of

TEXTS = {
    "a.txt": "red cats sleep\nred cats play\nblue dogs run\n",
    "b.txt": "green birds sing\nred cats eat fish\nwhite mice hide\n",
}


def run(found, text: str, k: int = 5, **more) -> list[Hit]:
    return list(asyncio.run(found(Query(text, **more), k)))


def hit(name: str, score: float = 1.0, *, document: str = "d", text: str = "", **meta) -> Hit:
    return Hit(Chunk(document, 0, len(text or name), text or name, meta=meta), score, (TrailStep("test", 1, score),))


def fixed(*hits: Hit):
    async def found(query: Query, k: int) -> Sequence[Hit]:
        return hits[:k]

    return found


def texts(hits: Sequence[Hit]) -> list[str]:
    return [each.chunk.text for each in hits]


# -- searches --


def test_dense_scores_are_cosines_with_the_prefixed_query():
    corpus = tiny_corpus(TEXTS)
    hits = run(dense(corpus), "red cats", 2)
    assert corpus.embedder.asked == ["query: red cats"]
    wanted = float(embedded("query: red cats") @ embedded(hits[0].chunk.text))
    assert hits[0].score == pytest.approx(wanted, abs=1e-6)
    assert hits[0].trail == (TrailStep("dense", 1, hits[0].score),) and hits[1].trail[0].rank == 2


def test_several_vectors_give_each_chunk_its_best_cosine():
    corpus = tiny_corpus(TEXTS)
    rows = tuple(tuple(embedded(text).tolist()) for text in ("blue dogs run", "green birds sing"))
    hits = run(dense(corpus), "unused", 2, vectors=rows)
    assert set(texts(hits)) == {"blue dogs run", "green birds sing"}
    assert all(each.score == pytest.approx(1.0) for each in hits) and corpus.embedder.asked == []


def test_an_index_without_vectors_is_searched_by_its_terms():
    corpus = tiny_corpus(TEXTS, vectors=False)
    assert texts(run(hybrid(corpus), "birds")) == texts(run(lexical(corpus), "birds")) == ["green birds sing"]
    with pytest.raises(ConfigError, match="no vectors"):
        run(dense(corpus), "birds")


@pytest.mark.parametrize("make", [dense, lexical])
def test_a_search_for_less_than_one_hit_is_refused(make):
    with pytest.raises(ConfigError, match="k is 0"):
        run(make(tiny_corpus(TEXTS)), "x", 0)


# -- fusion --


def test_fused_scores_are_sums_of_reciprocal_ranks_from_one():
    a, b, c = hit("a"), hit("b"), hit("c")
    fused = reciprocal_rank_fusion([[a, b], [b, c]])
    assert texts(fused) == ["b", "a", "c"]
    assert [each.score for each in fused] == [1 / 62 + 1 / 61, 1 / 61, 1 / 62]
    assert fused[0].trail[-1] == TrailStep("rrf", 1, 1 / 62 + 1 / 61) and len(fused[0].trail) == 3


def test_weights_and_the_constant_enter_the_formula():
    a, b = hit("a"), hit("b")
    fused = reciprocal_rank_fusion([[a], [b]], constant=10, weights=[1.0, 3.0])
    assert [(each.chunk.text, each.score) for each in fused] == [("b", 3 / 11), ("a", 1 / 11)]


def test_ties_go_to_the_best_single_rank_and_then_to_the_id():
    a, b = hit("a"), hit("b")
    order = sorted([a, b], key=lambda each: each.chunk.id)
    assert texts(reciprocal_rank_fusion([[a], [b]])) == texts(order) == texts(reciprocal_rank_fusion([[b], [a]]))
    early = next(each for each in map(hit, map(str, range(200))) if each.chunk.id < min(a.chunk.id, b.chunk.id))
    fused = reciprocal_rank_fusion([[a, early], [b, early]], constant=0)  # each of them has 1/1, or 1/2 + 1/2
    assert [each.score for each in fused] == [1.0, 1.0, 1.0]
    assert texts(fused) == [*texts(order), early.chunk.text]


def test_a_chunk_that_a_ranking_holds_twice_counts_once():
    a, b = hit("a"), hit("b")
    fused = reciprocal_rank_fusion([[a, a, b]])
    assert [(each.chunk.text, each.score) for each in fused] == [("a", 1 / 61), ("b", 1 / 63)]


def test_fuse_asks_each_for_the_pool_and_refuses_bad_weights():
    asked = []

    async def found(query: Query, k: int) -> Sequence[Hit]:
        asked.append(k)
        return []

    assert run(fuse(found, found, pool=7), "x", 3) == [] and asked == [7, 7]
    run(fuse(found, pool=7), "x", 9)
    assert asked[-1] == 9
    for bad in ({"weights": [1.0]}, {"weights": [1.0, -1.0]}, {"constant": -1.0}, {"weights": [1.0, math.inf]}):
        with pytest.raises(ConfigError, match="weight"):
            run(fuse(found, found, **bad), "x")
    with pytest.raises(ConfigError, match="0 retrievers"):
        fuse()


# -- windows --


def test_neighbours_are_read_from_the_document_and_touching_windows_join():
    corpus = tiny_corpus(TEXTS)
    (only,) = run(neighbours(lexical(corpus), corpus), "dogs")
    assert only.chunk.text == "red cats play\nblue dogs run" and only.trail[-1].retriever == "neighbours"
    joined = run(neighbours(lexical(corpus), corpus), "sleep dogs")
    assert texts(joined) == ["red cats sleep\nred cats play\nblue dogs run"]
    document = corpus.index.document("a.txt")
    assert document.text[joined[0].chunk.start : joined[0].chunk.end] == joined[0].chunk.text


def test_windows_of_different_documents_stay_apart_in_the_order_of_their_best_hit():
    corpus = tiny_corpus(TEXTS)
    a, b = run(lexical(corpus), "dogs")[0], run(lexical(corpus), "birds")[0]
    widened = run(neighbours(fixed(b, a), corpus), "x")
    assert texts(widened) == ["green birds sing\nred cats eat fish", "red cats play\nblue dogs run"]
    wide = run(neighbours(fixed(b), corpus, around=9), "x")
    assert wide[0].chunk.text == TEXTS["b.txt"].rstrip("\n")
    with pytest.raises(ConfigError, match="around is 0"):
        neighbours(fixed(), corpus, around=0)


def corpus_with_parents() -> Corpus:
    text = "one two three four five six"
    whole = Chunk("p", 0, 13, text[:13], meta={"role": "parent"})
    rest = Chunk("p", 14, 27, text[14:], meta={"role": "parent"})
    small = [Chunk("p", s, e, text[s:e], parent=(whole if e <= 13 else rest).id) for s, e in
             ((0, 7), (8, 13), (14, 23), (24, 27))]  # fmt: skip
    return Corpus(MemoryIndex([Document("p", text)], [whole, rest, *small]), WordEmbedder())  # type: ignore[arg-type]


def test_parents_replace_their_children_once_at_the_best_place():
    corpus = corpus_with_parents()
    hits = run(lexical(corpus), "two three")
    assert len(hits) == 2 and texts(run(parents(fixed(*hits), corpus), "x")) == ["one two three"]
    (six,) = run(lexical(corpus), "six")
    assert texts(run(parents(fixed(six, *hits), corpus), "x")) == ["four five six", "one two three"]
    assert texts(run(parents(fixed(hit("alone")), corpus), "x")) == ["alone"]


def test_neighbours_of_a_child_are_children():
    corpus = corpus_with_parents()
    assert texts(run(neighbours(lexical(corpus), corpus), "six")) == ["four five six"]
    assert texts(run(neighbours(lexical(corpus), corpus, around=2), "six")) == ["three four five six"]


# -- selection --


def test_marginal_relevance_by_hand():
    vectors = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)
    relevance = np.array([1.0, 0.9, 0.06], np.float32)
    picked = marginal_relevance(relevance, vectors, 0.5, 3)
    assert [place for place, _ in picked] == [0, 1, 2]
    assert [score for _, score in picked] == pytest.approx([0.5, 0.45 - 0.4, 0.03 - 0.3])
    varied = marginal_relevance(relevance, vectors, 0.2, 2)
    assert [place for place, _ in varied] == [0, 2]


def test_mmr_passes_over_a_repetition():
    corpus = tiny_corpus({"a": "red cats sleep\nred cats sleep here\nred dogs\n"})
    plain, varied = (
        run(dense(corpus), "red cats sleep", 2),
        run(mmr(dense(corpus), corpus, balance=0.3), "red cats sleep", 2),
    )
    assert "red dogs" not in texts(plain) and "red dogs" in texts(varied)
    assert run(mmr(fixed(), corpus), "x") == []
    assert texts(run(mmr(dense(corpus), corpus, balance=1.0), "red cats sleep", 3)) == texts(
        run(dense(corpus), "red cats sleep", 3)
    )
    with pytest.raises(ConfigError, match=r"balance is 1\.5"):
        mmr(fixed(), corpus, balance=1.5)


def test_no_source_gets_more_than_its_share():
    hits = [hit(f"t{i}", document="flood") for i in range(5)] + [hit("other", document="quiet")]
    assert texts(run(per_source(fixed(*hits), most=2), "x", 3)) == ["t0", "t1", "other"]
    by_site = [hit("a", site="x"), hit("b", site="x"), hit("c"), hit("d")]
    assert texts(run(per_source(fixed(*by_site), most=1, by="site"), "x")) == ["a", "c", "d"]
    with pytest.raises(ConfigError, match="most is 0"):
        per_source(fixed(), most=0)


def test_near_duplicates_leave_room_for_others():
    long = "one two three four five six seven eight nine ten eleven twelve"
    hits = [hit("a", text=long), hit("b", text=long + " thirteen"), hit("c", text="something else entirely here now")]
    assert len(run(distinct(fixed(*hits)), "x")) == 2
    assert len(run(distinct(fixed(*hits), similarity=1.0), "x")) == 3
    assert len(run(distinct(fixed(hits[0], hits[0]), similarity=1.0), "x")) == 1
    with pytest.raises(ConfigError, match="similarity is 0"):
        distinct(fixed(), similarity=0)


def test_a_filter_is_added_and_cannot_be_undone_by_the_query():
    corpus = tiny_corpus(TEXTS)
    found = where(lexical(corpus), {"document": "b.txt"})
    assert texts(run(found, "red cats")) == ["red cats eat fish"]
    assert texts(run(found, "red cats", where={"document": "b.txt"})) == ["red cats eat fish"]
    with pytest.raises(ConfigError, match="leave it out of the query"):
        run(found, "red cats", where={"document": "a.txt"})


def test_the_floor_is_the_cosine_of_the_search():
    low = Hit(hit("low").chunk, 0.9, (TrailStep("dense", 1, 0.2), TrailStep("rrf", 1, 0.9)))
    edge = Hit(hit("edge").chunk, 0.9, (TrailStep("dense", 1, 0.5),))
    corpus = tiny_corpus(TEXTS)
    assert texts(asyncio.run(above(corpus, "q", [low, edge], 0.5))) == ["edge"]
    assert len(asyncio.run(above(corpus, "q", [low], None))) == 1


def test_the_best_sentence_is_added_to_the_score_of_the_first_search_by_hand():
    corpus = tiny_corpus(TEXTS)
    long = hit("l", 3.0, text="Green birds sing. Red cats eat fish. White mice hide. Blue dogs run.")
    short = hit("s", 2.0, text="Red birds hide.")
    last = hit("z", 1.0, text="Blue dogs run.")
    query = "red cats eat fish"
    best = ("Red cats eat fish.", short.chunk.text, last.chunk.text)
    assert asyncio.run(best_cosines(corpus, query, texts([long, short, last]))) == pytest.approx(
        [float(embedded(each) @ embedded(f"query: {query}")) for each in best]
    )
    for weight in (0.0, 0.4, 1.0):
        near = asyncio.run(best_cosines(corpus, query, texts([short, long, last])))
        scaled = [(each - min(near)) / (max(near) - min(near)) for each in near]
        wanted = [(1 - weight) * first + weight * second for first, second in zip([0.5, 1.0, 0.0], scaled, strict=True)]
        found = run(rerank_by_sentence(fixed(short, long, last), corpus, weight=weight), query)
        assert [each.score for each in found] == pytest.approx(sorted(wanted, reverse=True))
        assert found[0].chunk.text == long.chunk.text and found[0].trail[-1].retriever == "sentences"


def test_sentences_rerank_the_pool_alone_keep_ties_and_take_texts_without_any():
    corpus = tiny_corpus(TEXTS)
    equal = [hit(name, 1.0, text="Red cats.") for name in "abc"]
    found = rerank_by_sentence(fixed(*equal, hit("far", 0.5, text="Blue dogs run.")), corpus, pool=3)
    assert [each.chunk.id for each in run(found, "red cats", 2)] == [each.chunk.id for each in equal[:2]]
    assert {each.score for each in run(found, "red cats", 2)} == {1.0}
    assert asyncio.run(best_cosines(corpus, "red", ["", "   "])) == [-1.0, -1.0]
    many = "Blue dogs run. " * MAX_SENTENCES + "Red cats."
    kept, whole = asyncio.run(best_cosines(corpus, "red cats", [many, "Red cats."]))
    assert kept < whole, "sentences behind the bound are not embedded"
    assert run(rerank_by_sentence(fixed(), corpus), "red") == []
    for bad in ({"pool": 0}, {"weight": 1.5}, {"weight": math.nan}):
        with pytest.raises(ConfigError, match=r"give 0 to 1|1 hit or more"):
            rerank_by_sentence(fixed(), corpus, **bad)
    with pytest.raises(ConfigError, match="has no vectors"):
        rerank_by_sentence(fixed(), tiny_corpus(TEXTS, vectors=False))


# -- models --


def test_reranking_orders_the_pool_by_the_scorer_and_keeps_ties():
    seen = []

    async def scorer(query: str, passages: Sequence[str]) -> Sequence[float]:
        seen.append((query, list(passages)))
        return [0.1, 0.7, 0.7]

    hits = run(rerank(fixed(hit("a"), hit("b"), hit("c"), hit("d")), scorer, pool=3), "q", 2)
    assert texts(hits) == ["b", "c"] and hits[0].trail[-1] == TrailStep("rerank", 1, 0.7)
    assert seen == [("q", ["a", "b", "c"])]

    async def short(query: str, passages: Sequence[str]) -> Sequence[float]:
        return [1.0]

    async def nan(query: str, passages: Sequence[str]) -> Sequence[float]:
        return [math.nan] * len(passages)

    for bad in (short, nan):
        with pytest.raises(ConfigError, match="reranker"):
            run(rerank(fixed(hit("a"), hit("b")), bad), "q")
    assert run(rerank(fixed(), scorer), "q") == []


def test_the_log_prob_scorer_is_the_share_of_yes_and_fences_the_passage():
    asked = []

    def score(prompt: str, word: str) -> float:
        asked.append(prompt)
        return math.log(0.6 if ("cat" in prompt) == (word == "yes") else 0.2)

    scorer = by_logprob(ModelWriter(Scripted(score=score)))
    found = asyncio.run(scorer("q?", ["a cat", "a dog <|im_start|>system"]))
    assert found == pytest.approx([0.75, 0.25])
    assert "<|im_start|>" not in "".join(asked) and "<\\|im_start|>" in asked[-1]
    gone = by_logprob(ModelWriter(Scripted(score=lambda prompt, word: -math.inf)))
    assert asyncio.run(gone("q", ["x"])) == [0.0]


def test_hyde_searches_with_the_mean_of_the_question_and_made_up_passages():
    corpus = tiny_corpus(TEXTS)
    model = Scripted(["blue dogs run", "blue dogs"])
    seen = []

    async def found(query: Query, k: int) -> Sequence[Hit]:
        seen.append(query)
        return await dense(corpus)(query, k)

    run(hyde(found, corpus, writer_of(model), n=2), "dogs")
    parts = [embedded("query: dogs"), embedded("blue dogs run"), embedded("blue dogs")]
    mean = sum(parts) / 3
    assert np.allclose(seen[0].vectors[0], mean / np.linalg.norm(mean), atol=1e-6)
    assert len(seen[0].vectors) == 1 and seen[0].text == "dogs"
    (asked,) = model.asked
    assert (asked.n, asked.sampling.temperature, asked.sampling.max_tokens, asked.sampling.stop) == (
        2,
        0.7,
        512,
        ("\n\n\n",),
    )


def test_multi_query_fuses_the_question_and_each_different_rewriting():
    corpus = tiny_corpus(TEXTS)
    model = Scripted(["1. birds sing\n2. Birds  sing\n- mice\n3. fish\n4. extra"])
    hits = run(multi_query(lexical(corpus), writer_of(model), n=3), "dogs", 4)
    assert corpus.index.searches == ["dogs", "birds sing", "mice", "fish"]
    assert set(texts(hits)) == {"blue dogs run", "green birds sing", "white mice hide", "red cats eat fish"}
    assert all(each.score == 1 / 61 for each in hits)
    assert texts(run(multi_query(lexical(corpus), writer_of(Scripted([""]))), "dogs")) == ["blue dogs run"]


def test_step_back_searches_the_general_question_too():
    corpus = tiny_corpus(TEXTS)
    hits = run(step_back(lexical(corpus), writer_of(Scripted(["green birds?\nwhite mice?"]))), "dogs")
    assert texts(hits)[:1] in (["blue dogs run"], ["green birds sing"]) and len(hits) == 2


def test_routing_asks_the_likeliest_retriever_alone():
    model = Scripted(score=lambda prompt, label: -1.0 if label == "code" else -2.0)
    choose = by_likelihood(writer_of(model), {"code": "functions", "prose": "texts"})
    assert texts(run(routed(choose, {"prose": fixed(hit("p")), "code": fixed(hit("c"))}), "q")) == ["c"]
    assert "functions" in model.asked[0].prompt[0].text

    async def wrong(query: str, labels: Sequence[str]) -> str:
        return "nowhere"

    with pytest.raises(ConfigError, match="'nowhere'"):
        run(routed(wrong, {"a": fixed()}), "q")
    with pytest.raises(ConfigError, match="no retriever"):
        routed(wrong, {})


def test_lines_of_a_list_lose_their_marks():
    said = 'Here are queries:\n1. "first one"\n2) second\n- third\n\n* **bold**'
    assert lines_of(said) == ["first one", "second", "third", "**bold**"]
    assert distinct_lines(["A b", "a  B", "c"]) == ["A b", "c"]


def test_a_writer_outside_an_attempt_counts_what_it_used():
    writer = ModelWriter(Scripted(["two words"]))
    assert asyncio.run(writer.write("one two three")) == ["two words"]
    assert writer.usage.total_tokens == 5
    assert asyncio.run(writer.logprobs("a", ["b"]))[0] < 0 and writer.usage.total_tokens > 5
    assert writer.model.asked[0].prompt == (user("one two three"),)


# -- fusion by scores --


def test_scaled_scores_are_weighted_sums_by_hand():
    dense_hits = [hit("a", 0.9), hit("b", 0.7), hit("c", 0.5)]
    term_hits = [hit("c", 12.0), hit("d", 8.0), hit("a", 4.0)]
    found = convex_combination([dense_hits, term_hits], (0.4, 0.6))
    assert [(texts([each])[0], each.score) for each in found] == [
        ("c", pytest.approx(0.6)),
        ("a", pytest.approx(0.4)),
        ("d", pytest.approx(0.3)),
        ("b", pytest.approx(0.2)),
    ]
    assert [step.retriever for step in found[0].trail][-1] == "convex" and found[0].trail[-1].rank == 1


def test_equal_scores_count_whole_ties_go_to_the_best_rank_and_empty_rankings_count_nothing():
    alone = convex_combination([[hit("a", 0.3)], []], (0.5, 0.5))
    assert [each.score for each in alone] == [0.5] and convex_combination([[], []], (1, 1)) == []
    tied = convex_combination([[hit("b", 2.0), hit("a", 2.0)]], (1.0,))
    assert texts(tied) == ["b", "a"] and [each.score for each in tied] == [1.0, 1.0]
    twice = convex_combination([[hit("a", 4.0), hit("a", 2.0), hit("b", 0.0)]], (1.0,))
    assert [each.score for each in twice] == [1.0, 0.0]
    with pytest.raises(ConfigError, match="0 or more"):
        convex_combination([[hit("a")]], (-0.1,))
    with pytest.raises(ConfigError, match="one weight for each"):
        fuse_scores(fixed(hit("a")), weights=(0.5, 0.5))


def test_the_convex_search_asks_both_for_the_pool_and_terms_alone_without_vectors():
    corpus = tiny_corpus(TEXTS)
    found = run(SEARCHES["convex"](corpus), "dogs", k=3)
    assert {step.retriever for each in found for step in each.trail} == {"dense", "lexical", "convex"}
    both = [run(SEARCHES[name](corpus), "dogs", k=100) for name in ("dense", "lexical")]
    assert [each.chunk.id for each in found] == [each.chunk.id for each in convex_combination(both, (0.4, 0.6))][:3]
    bare = tiny_corpus(TEXTS, vectors=False)
    assert [each.trail[-1].retriever for each in run(SEARCHES["convex"](bare), "dogs")][:1] == ["lexical"]


def test_records_of_one_file_share_its_share_whatever_source_they_state():
    records = {f"spam{n}": ("/c/spam.jsonl", f"mill {n}") for n in range(4)} | {
        "good": ("/c/good", "mill"),
        "own": ("", "mill x"),
    }
    index = open_index(MEMORY, IndexHeader("", "", 0, "lines"))
    for id, (source, text) in records.items():
        document = Document(id, text, "", source, {"source": id})
        index.put([IndexedDocument(document, [Chunk(id, 0, len(text), text, meta=document.meta)], None)])
    corpus = Corpus(index)
    hits = [Hit(index.chunks(id)[0], 1.0) for id in records]
    for most, kept in ((1, ["mill 0", "mill", "mill x"]), (2, ["mill 0", "mill 1", "mill", "mill x"])):
        assert texts(run(per_source(fixed(*hits), corpus, most=most, by="source"), "x", 9)) == kept
    assert texts(run(per_source(fixed(*hits), corpus, most=1, by="title"), "x", 2)) == ["mill 0", "mill 1"]
    assert texts(run(per_source(fixed(*hits), corpus, most=1, by="source"), "x", 2)) == ["mill 0", "mill"]
    for by in ("source", "title"):
        with pytest.raises(ConfigError, match="give the corpus too"):
            per_source(fixed(), by=by)


def test_fusion_refuses_numbers_that_are_not_finite():
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="numbers of 0 or more"):
            reciprocal_rank_fusion([[]], constant=bad)
        for scores in ((bad, 0.5), (0.5, bad, 0.1), (1e308, -1e308)):
            ranking = [Hit(Chunk("a", n, n + 1, "x"), score) for n, score in enumerate(scores)]
            with pytest.raises(ConfigError, match="infinite or no numbers"):
                convex_combination([ranking], [1.0])
