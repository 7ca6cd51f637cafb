"""The approximate side file: high recall, exact where it does not apply, and never used for other rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from firsthand.errors import ConfigError
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
