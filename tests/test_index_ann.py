"""The approximate side file: high recall, exact where it does not apply, and never used for other rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedder_tiny import write_embedder
from firsthand.cli import main
from firsthand.errors import ConfigError
from firsthand.retrieval.store.ann_file import AnnFile
from firsthand.retrieval.store.search_rows import among
from firsthand.retrieval.store.sqlite_index import SqliteIndex, open_index
from index_tiny import HEADER, TERMS_ONLY, lines, unit

pytest.importorskip("faiss", reason="faiss is not installed")


def clustered(count: int, seed: int) -> np.ndarray:
    """Vectors around 60 centres, as texts have topics."""
    rows = unit(60, 1)[np.random.default_rng(seed).integers(60, size=count)] + 0.6 * unit(count, seed)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def index(tmp_path: Path) -> SqliteIndex:
    made = open_index(tmp_path / "x.index", HEADER)
    vectors = clustered(4000, 3)
    made.put([
        lines(f"d{n}", [f"text {n} {m}\n" for m in range(200)], vectors=vectors[200 * n : 200 * n + 200], meta={"n": n})
        for n in range(20)
    ])  # fmt: skip
    return made


def ids(index: SqliteIndex, query: np.ndarray, where: dict | None = None) -> list[str]:
    return [hit.chunk.id for hit in index.search_vectors(query, 10, where or {})]


def used(index: SqliteIndex) -> bool:
    return index._search._ann is not None and index._search._ann.covers(index._search._rows)


@pytest.mark.slow
def test_the_side_file_finds_nearly_all_and_filters_stay_exact(index: SqliteIndex, tmp_path: Path) -> None:
    queries = clustered(40, 9)
    exact = [ids(index, query) for query in queries]
    filtered = [ids(index, query, {"n": [1, 2]}) for query in queries]
    assert index.build_ann() == 4000 and (tmp_path / "x.index.ann").is_file()
    index._search.ann_rows = 1000
    found = [ids(index, query) for query in queries]
    assert used(index)
    assert sum(len({*a} & {*b}) for a, b in zip(exact, found, strict=True)) >= 0.9 * 400
    assert [ids(index, query, {"n": [1, 2]}) for query in queries] == filtered
    index._search.ann_rows = 1_000_000
    assert [ids(index, query) for query in queries] == exact


@pytest.mark.slow
def test_later_chunks_are_found_and_removed_ones_are_not(index: SqliteIndex) -> None:
    index.build_ann()
    index._search.ann_rows = 1000
    query = unit(1, 50)[0]
    gone = index.search_vectors(query, 1, {})[0].chunk.document
    index.put([lines("later", ["new\n"], vectors=query[None])])
    assert index.search_vectors(query, 1, {})[0].chunk.document == "later" and used(index)
    index.delete([gone])
    assert gone not in {hit.chunk.document for hit in index.search_vectors(query, 50, {})} and used(index)
    index.delete([f"d{n}" for n in range(10)])
    assert len(index.search_vectors(query, 50, {})) == 50 and not used(index)


@pytest.mark.slow
def test_a_side_file_of_other_rows_or_with_damage_is_not_used(index: SqliteIndex, tmp_path: Path) -> None:
    index.build_ann()
    query, path = unit(1, 50)[0], tmp_path / "x.index.ann"
    expected, raw = ids(index, query), path.read_bytes()
    for changed in (
        raw[:-1] + b"x",
        raw[:100],
        b"",
        raw[:300] + b"\xff" * 50 + raw[350:],
        b"firsthand-ann-1 x y z\n" * 20,
    ):
        path.write_bytes(changed)
        with open_index(tmp_path / "x.index") as again:
            again._search.ann_rows = 1000
            assert ids(again, query) == expected and not used(again)
    path.write_bytes(raw)
    with open_index(tmp_path / "x.index") as again:
        again._search.ann_rows = 1000
        assert ids(again, query) and used(again)
    with open_index(tmp_path / "y.index", HEADER) as other:
        other.put([lines(f"d{n}", [f"t{m}\n" for m in range(200)], seed=n) for n in range(20)])
        (tmp_path / "y.index.ann").write_bytes(raw)
        other._search.ann_rows = 1000
        assert ids(other, query) and not used(other)


def test_terms_alone_have_no_side_file(tmp_path: Path) -> None:
    for index in (open_index(tmp_path / "t.index", TERMS_ONLY), open_index(":memory:", HEADER)):
        with pytest.raises(ConfigError, match="no vectors in a file"):
            index.build_ann()


@pytest.mark.slow
def test_the_report_measures_recall_and_says_what_is_covered(index: SqliteIndex, tmp_path: Path) -> None:
    assert index.ann_report() is None
    index.build_ann()
    report = index.ann_report(queries=50)
    assert report is not None and report.recall is not None
    assert (report.covered, report.chunks, report.queries, report.k) == (4000, 4000, 50, 10)
    assert 0.85 <= report.recall <= 1
    index._search._ann._lists.nprobe = 1  # the file's own lists are measured, not those in memory
    assert index.ann_report(queries=50) == report
    index.put([lines("later", ["new\n"])])
    index.delete(["d0"])
    later = index.ann_report(queries=5)
    assert later is not None and (later.covered, later.chunks) == (3800, 3801)
    path = tmp_path / "x.index.ann"
    path.write_bytes(path.read_bytes()[:-1])
    broken = index.ann_report()
    assert broken is not None and (broken.covered, broken.recall) == (0, None)


@pytest.mark.slow
def test_recall_falls_where_the_lists_are_searched_less(index: SqliteIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    index.build_ann()
    full = index.ann_report(queries=30)
    exact = AnnFile.nearest
    monkeypatch.setattr(AnnFile, "nearest", lambda self, query, k: exact(self, query, k)[::3])
    fewer = index.ann_report(queries=30)
    assert full is not None and fewer is not None and full.recall is not None and fewer.recall is not None
    assert fewer.recall < 0.6 < full.recall
    index._search.ann_rows = 1000  # searches use it: recall is still told against exact ones
    assert index.ann_report(queries=30) == fewer
    codes = index._search._rows.vectors.approximate(np.arange(4000))
    monkeypatch.setattr(AnnFile, "nearest", lambda self, query, k: np.array([int((codes @ query).argmax())]))
    itself = index.ann_report(queries=30)
    assert itself is not None and itself.recall == 0, "a vector that finds itself alone finds no neighbour"


@pytest.mark.slow
def test_a_side_file_is_needed_by_a_large_index_that_has_grown(index: SqliteIndex) -> None:
    assert not index.needs_ann(), "4,000 chunks are searched exactly"
    index._search.ann_rows = 4000
    assert index.needs_ann()
    index.build_ann()
    assert not index.needs_ann()
    index.put([lines("some", [f"new {n}\n" for n in range(999)])])
    assert not index.needs_ann()
    index.put([lines("more", [f"newer {n}\n" for n in range(2)])])
    assert index.needs_ann(), "more than a fifth was stored later"


@pytest.mark.slow
def test_the_commands_build_and_measure_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_embedder(tmp_path / "model")
    docs = tmp_path / "docs"
    docs.mkdir()
    for n in range(60):
        (docs / f"{n}.txt").write_text(f"the cat sat on log {'a' * n}\n")
    assert main(["rag", "index", str(docs), "--model", str(folder)]) == 0
    assert not (docs / ".firsthand-index.ann").exists(), "a small index needs none"
    assert main(["rag", "index", str(docs), "--ann", "yes"]) == 0
    assert (docs / ".firsthand-index.ann").is_file()
    capsys.readouterr()
    assert main(["rag", "verify", str(docs)]) == 0
    told = capsys.readouterr().out
    assert "approximate side file: 60 of 60 chunks, recall@10 " in told and "do not use it" in told
    (docs / ".firsthand-index.ann").write_bytes(b"x")
    assert main(["rag", "verify", str(docs)]) == 0
    assert "side file: not used" in capsys.readouterr().out
    words = tmp_path / "words"
    words.mkdir()
    (words / "a.txt").write_text("a cat\n")
    assert main(["rag", "index", str(words), "--model", "none", "--ann", "yes"]) == 2
    assert "no vectors in a file" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Flat", "IVF4,Flat", "IVF4,SQ8"])
def test_a_side_file_of_another_kind_or_size_is_not_used(index: SqliteIndex, tmp_path: Path, kind: str) -> None:
    """A side file may come from anybody, with the right checksums: faiss would read any kind of index of its own."""
    import hashlib

    import faiss

    from firsthand.retrieval.store import ann_file

    query = clustered(1, 9)[0]
    exact = ids(index, query)
    rows = index._search._rows
    made = faiss.index_factory(24 if kind != "IVF4,SQ8" else 8, kind, faiss.METRIC_INNER_PRODUCT)
    points = np.random.default_rng(0).normal(size=(4000, made.d)).astype(np.float32)
    made.train(points)
    made.add(points)
    body = faiss.serialize_index(made).tobytes()
    head = ann_file._head(4000, rows.digest(4000), hashlib.sha256(body).hexdigest())
    (tmp_path / "x.index.ann").write_bytes(head + body)
    index._search.ann_rows = 1000
    assert ids(index, query) == exact and not used(index)


def test_rows_among_others_are_those_of_the_intersection():
    rng = np.random.default_rng(0)
    for _ in range(200):
        some, rows = (np.unique(rng.integers(0, 40, rng.integers(0, 30))) for _ in range(2))
        assert among(some, rows).tolist() == np.intersect1d(some, rows).tolist()


@pytest.mark.slow
def test_the_recall_of_candidates_that_are_the_nearest_is_one(
    index: SqliteIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.build_ann()
    vectors = clustered(4000, 3)
    lacking, asked = 0, set()

    def nearest(self: AnnFile, query: np.ndarray, k: int) -> np.ndarray:
        asked.add(k)
        return np.argsort(-(vectors @ np.asarray(query, np.float32).reshape(-1)), kind="stable")[lacking:k]

    monkeypatch.setattr(AnnFile, "nearest", nearest)
    for k in (1, 10):
        report = index.ann_report(queries=20, k=k)
        assert report is not None and (report.recall, report.queries, report.k) == (1.0, 20, k)
    assert asked == {2, 11}
    lacking = 2  # the vector itself, which does not count, and the one nearest to it
    report = index.ann_report(queries=20)
    assert report is not None and report.recall == 0.9
