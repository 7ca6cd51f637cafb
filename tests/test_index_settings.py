"""The settings of an ingest: where its index lies, what a new one has, and what differs from one that is there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from firsthand.errors import ConfigError, DownloadError
from firsthand.retrieval import index_settings
from firsthand.retrieval.chunk_index import IndexHeader
from firsthand.retrieval.chunking.chunkers import open_chunker
from firsthand.retrieval.index_settings import Asked, Prepared, expect_same, fresh, index_path, prepare
from firsthand.retrieval.marginal.beam_search import beam_search, top_tokens
from firsthand.retrieval.marginal.marginal_answer import MarginalSettings
from firsthand.retrieval.marginal.marginal_decoding import mixture
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.retrieval.store.vector_rows import VectorRows


class Letters:
    """An embedder of three numbers."""

    fingerprint = "letters-1"

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        return [[float(len(text)), 1.0, 0.0] for text in texts]


def test_an_index_lies_in_the_one_folder_it_was_made_of(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "a.txt").write_text("a")
    docs, file = tmp_path / "docs", tmp_path / "a.txt"
    name = index_path([docs], None).name
    assert index_path([docs], None) == docs / name == index_path([file, docs], docs)
    assert index_path([file], tmp_path / "b.index") == tmp_path / "b.index"
    with pytest.raises(ConfigError, match=r"no folder or file '.*away': give the folder whose files are to be indexed"):
        index_path([tmp_path / "away"], None)
    for sources in ([file], [docs, docs], [], [tmp_path / "away", docs]):
        with pytest.raises(ConfigError, match="of files or several folders, give --index PATH"):
            index_path(sources, None)


def prepared(path: Path, **asked: str) -> Prepared:
    return asyncio.run(prepare(path, Asked(**asked)))


def test_a_new_index_has_the_prefixes_of_its_models_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(index_settings, "_opened", lambda model, told: opened.append(model) or Letters())
    auto = open_chunker("auto", lambda texts: []).text
    query = "Represent this sentence for searching relevant passages: "
    for model, given, prefixes in (
        ("e5-small", {}, ("query: ", "passage: ")), ("hub/E5-base", {}, ("query: ", "passage: ")),
        ("bge-m3", {}, (query, "")),
        ("bgelike", {}, ("", "")), ("e5", {"query_prefix": "", "document_prefix": "d"}, ("", "d")),
        ("e5", {"query_prefix": "q"}, ("q", "passage: ")),
        ("e5", {"query_prefix": ""}, ("", "passage: ")), ("e5", {"document_prefix": ""}, ("query: ", "")),
        ("e5", {"query_prefix": "", "document_prefix": ""}, ("", "")), ("e5x", {"document_prefix": "d"}, ("", "d")),
        ("bge", {"query_prefix": ""}, ("", "")), ("x/BGE-e5", {"document_prefix": ""}, ("query: ", "")),
    ):  # fmt: skip
        found = prepared(tmp_path / "new.index", model=model, **given)
        assert found.header == IndexHeader(model, "letters-1", 3, auto, *prefixes) and found.note == ""
    assert prepared(tmp_path / "new.index").header.embedder == "minilm" and opened[-1] == "minilm"
    bare = prepared(tmp_path / "new.index", model="none", chunker="recursive:size=50:overlap=9")
    assert (bare.embedder, bare.note, bare.header) == (
        None,
        "",
        IndexHeader("", "", 0, open_chunker("recursive:size=50:overlap=9").text),
    )
    assert len(opened) == 13 and not (tmp_path / "new.index").exists()

    def away(model: str, told: object) -> Letters:
        raise DownloadError("no network")

    monkeypatch.setattr(index_settings, "_opened", away)
    terms = asyncio.run(fresh(Asked()))
    assert terms.embedder is None and terms.header.dimension == 0
    assert terms.note == "no embedder is at hand, so the index has terms alone (no network)"
    with pytest.raises(DownloadError):
        asyncio.run(fresh(Asked(model="minilm")))
    terms.close()


def test_an_index_that_is_there_decides_and_what_differs_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_settings, "_opened", lambda model, told: Letters())
    chunker = open_chunker("recursive:size=60:overlap=9").text
    terms, vectors = IndexHeader("", "", 0, chunker), IndexHeader("small", "letters-1", 3, chunker, "q: ", "")
    for name, header in (("terms", terms), ("vectors", vectors)):
        open_index(tmp_path / name, header).close()
    assert prepared(tmp_path / "terms").header == terms and prepared(tmp_path / "terms").embedder is None
    found = prepared(
        tmp_path / "vectors", chunker="recursive:size=60:overlap=9", query_prefix="q: ", document_prefix=""
    )
    assert found.header == vectors and isinstance(found.embedder, Letters)
    for name, asked, told in (
        ("terms", {"model": "small"}, "the embedding model of {} is none, and letters-1 was given: leave it out, or change"),
        ("vectors", {"model": "none"}, "the embedding model of {} is small (letters-1), and none was given"),
        ("vectors", {"chunker": "recursive:size=61:overlap=9"}, f"the chunker of {{}} is {chunker}, and "),
        ("vectors", {"query_prefix": ""}, "the query prefix of {} is q: , and none was given"),
        ("vectors", {"document_prefix": "d: "}, "the document prefix of {} is none, and d:  was given"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            prepared(tmp_path / name, **asked)
        assert str(caught.value).startswith(told.format(tmp_path / name))
        assert str(caught.value).endswith(f"`firsthand rag reindex {tmp_path / name}`")
    expect_same(tmp_path, vectors, replace(vectors, embedder="other", dimension=9))


def test_the_best_tokens_are_taken_in_order_with_ties_by_number() -> None:
    scores = np.array([-2.0, -1.0, -np.inf, -1.0, -3.0])
    assert [top_tokens(scores, count) for count in (1, 2, 3, 9)] == [[1], [1, 3], [1, 3, 0], [1, 3, 0, 4]]
    assert top_tokens(np.full(3, -np.inf), 1) == top_tokens(np.full(3, -np.inf), 2) == []
    mixed = mixture([np.log([0.5, 0.5, 1e-300]), np.log([0.25, 0.75, 1e-300])], [np.log(0.25), np.log(0.75)])
    assert np.exp(mixed[:2]) == pytest.approx([0.3125, 0.6875])
    with np.errstate(divide="ignore"):
        assert mixture([np.log([1.0, 0.0])] * 2, [np.log(0.5)] * 2).tolist() == pytest.approx([0.0, -np.inf])
    assert MarginalSettings("rag_token", (-1.0, -2.0), 5).to_json() == {
        "decoder": "rag_token", "document_logprobs": [-1.0, -2.0], "max_tokens": 5, "beams": 1, "decoding": "thorough",
    }  # fmt: skip


def test_a_beam_search_finds_the_most_probable_answers_where_it_is_wide_enough() -> None:
    table = {0: [0.5, 0.38, 0.12], 1: [0.11, 0.2, 0.69]}  # by the number of ones before; 2 ends

    async def next_tokens(ids: tuple[int, ...]) -> np.ndarray:
        return np.log(table[min(ids.count(1), 1)])

    every = {}
    for ids in ((2,), *((a, 2) for a in (0, 1)), *((a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1, 2))):
        p = 1.0
        for place, token in enumerate(ids):
            p *= table[min(ids[:place].count(1), 1)][token]
        every[ids] = p
    expected = sorted(every, key=lambda ids: -every[ids])
    found = asyncio.run(beam_search(next_tokens, end_ids=[2], max_tokens=3, beams=15))
    assert [each.ids for each in found] == expected and expected[0] == (1, 2)
    assert [each.logprob for each in found] == pytest.approx([np.log(every[each.ids]) for each in found])
    assert all(
        each.is_ended == (each.ids[-1] == 2) and sum(each.logprobs) == pytest.approx(each.logprob) for each in found
    )
    (greedy,) = asyncio.run(beam_search(next_tokens, end_ids=[2], max_tokens=3))
    assert greedy.ids == (0, 0, 0) and not greedy.is_ended


def test_rows_of_bytes_hold_vectors_within_half_a_step_and_keep_the_best(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 5)).astype("<f2")
    rows[3] = 0
    whole, one_by_one = VectorRows(5), VectorRows(5)
    whole.append([row.tobytes() for row in rows])
    for row in rows:
        one_by_one.append([row.tobytes()])
    everyone = np.arange(40)
    near = whole.approximate(everyone)
    assert near.tolist() == one_by_one.approximate(everyone).tolist()
    wide = rows.astype(np.float32)
    assert (np.abs(near - wide) <= np.abs(wide).max(axis=1, keepdims=True) / 127 / 2 + 1e-6).all() and not near[3].any()
    query = rng.normal(size=5).astype(np.float32)
    best = set(np.argsort(-(wide @ query), kind="stable")[:4].tolist())
    found = whole.candidates(query, 4, everyone)
    assert best <= set(found.tolist()) and len(found) < 40
    assert whole.candidates(query, 4, np.array([7, 9])).tolist() == [7, 9]
    for wrong in ([None], [b"\0" * 8], [np.array([1, 2, 3, 4, np.inf], "<f2").tobytes()]):
        with pytest.raises(ValueError, match=r"a chunk's vector (is missing|has values that are not finite)"):
            whole.append(wrong)
