"""Index, graph and vote files of strangers: every value that a column, a header or a cell can hold is data or a sentence."""

from __future__ import annotations

import json
import resource
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from firsthand.arena.vote_files import read_votes
from firsthand.errors import ConfigError, DataError, ModelError, StoreError
from firsthand.retrieval.graph.graph_extraction import joined
from firsthand.retrieval.graph.graph_file import GraphFile
from firsthand.retrieval.graph.knowledge_graph import Extraction
from firsthand.retrieval.store.filter_conditions import check_filter
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.retrieval.store.term_postings import TermPostings
from index_tiny import HEADER, lines, unit


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("index") / "x.index"
    with open_index(path, HEADER) as index:
        index.put([lines("a", ["cats purr\n", "dogs bark\n"], vectors=unit(2, 1), meta={"n": 1})])
    return path


def changed(whole: Path, folder: Path, *statements: str) -> Path:
    path = folder / "x.index"
    shutil.copy(whole, path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    return path


def used(path: Path) -> list[int]:
    with open_index(path, read_only=True) as index:
        return [
            len(index.search_terms("cats", 3, {})),
            len(index.search_vectors(unit(1, 2)[0], 3, {})),
            len(index.search_terms("cats", 3, {"n": 1})),
        ]


FORGED_ACTIVE = (
    "0 v ON 1 WHERE c.number > ? AND (WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT 1) --"
)


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE header SET active = '{FORGED_ACTIVE}'",
        "UPDATE header SET active = 2",
        "UPDATE header SET dimension = 'x'",
        "UPDATE header SET dimension = 4.5",
        "UPDATE header SET dimension = -1",
        "UPDATE header SET dimension = 65537",
        "UPDATE header SET revision = 'x'",
        "UPDATE header SET removals = x'00'",
        "UPDATE header SET chunker = x'00'",
        "UPDATE header SET query_prefix = hex(zeroblob(5001))",
    ],
)
def test_a_header_that_no_index_has_is_refused(whole: Path, tmp_path: Path, statement: str) -> None:
    with pytest.raises(StoreError, match="its header has a value that no index has"):
        used(changed(whole, tmp_path, statement))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE chunks SET id = CAST(number AS BLOB)",
        "UPDATE chunks SET words = 'text'",
        "UPDATE chunks SET length = 'x'",
        "UPDATE chunks SET document = 'x'",
        "UPDATE fields SET meta = 'x'",
    ],
)
def test_a_value_of_another_type_is_damage(whole: Path, tmp_path: Path, statement: str) -> None:
    with pytest.raises(StoreError, match="is damaged"):
        used(changed(whole, tmp_path, statement))


@pytest.mark.parametrize("column", ["id", "title"])
def test_names_of_documents_that_are_no_text_are_damage(whole: Path, tmp_path: Path, column: str) -> None:
    with (
        open_index(changed(whole, tmp_path, f"UPDATE documents SET {column} = x'ff00'"), read_only=True) as index,
        pytest.raises(StoreError, match="is damaged"),
    ):
        index.title("a") if column == "title" else index.hashes()


def test_words_that_are_no_text_are_found_by_a_recount(whole: Path, tmp_path: Path) -> None:
    path = changed(whole, tmp_path, "UPDATE words SET word = x'ff00' WHERE number = 1")
    with open_index(path, read_only=True) as index:
        assert any("FTS5 and the chunks differ" in fault for fault in index.verify())


def test_numbers_that_we_did_not_give_take_no_memory(whole: Path, tmp_path: Path) -> None:
    """A word of the number 4e9 had places made for all numbers below it: 32 GB for an index of 100 kB."""
    far = 4_000_000_000
    path = changed(
        whole,
        tmp_path,
        f"UPDATE words SET number = number + {far}",
        f"UPDATE metas SET number = number + {far}",
        f"UPDATE fields SET meta = meta + {far}",
        f"UPDATE chunks SET meta = meta + {far}",
        "UPDATE chunks SET words = x'01286bee01000000'",
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    used(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_postings_of_far_numbers_score_as_those_of_near_ones() -> None:
    def scored(numbers: list[list[int]]) -> list[np.ndarray]:
        postings = TermPostings()
        blobs = [
            np.array([[number, 1 + place] for number in row], dtype="<u4").tobytes()
            for place, row in enumerate(numbers)
        ]
        postings.append([4, 5, 6], blobs, 2**32 - 1)
        postings.join()
        alive = np.ones(3, dtype=np.bool_)
        return [
            postings.scores([(number, 1)], alive, 3) for number in sorted({each for row in numbers for each in row})
        ]

    near, far = scored([[1, 2], [2, 3], [3]]), scored([[1, 2_000], [2_000, 4_000_000_000], [4_000_000_000]])
    np.testing.assert_array_equal(near, far)
    assert np.any(near)


def test_negative_metas_match_their_filter(whole: Path, tmp_path: Path) -> None:
    path = changed(
        whole, tmp_path, "UPDATE metas SET number = -5", "UPDATE fields SET meta = -5", "UPDATE chunks SET meta = -5"
    )
    assert used(path) == [1, 2, 1]
    with open_index(path, read_only=True) as index:
        assert index.search_terms("cats", 3, {"n": 2}) == []


def test_a_filter_that_is_no_object_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="an object of fields and conditions was expected"):
        check_filter(["n"])  # type: ignore[arg-type]


# -- graphs --


@pytest.mark.parametrize("strength", [float("nan"), "nan", 10**400, None, [1]])
def test_a_strength_that_is_no_number_fails_its_chunk(strength: object) -> None:
    relation = {"source": "A", "target": "B", "description": "d", "strength": strength}
    with pytest.raises(ModelError, match="not of the schema"):
        joined("c", [{"entities": [], "relations": [relation]}], ["t"])


def test_a_stored_weight_that_is_no_number_is_refused() -> None:
    body = json.loads('{"entities": [], "relations": [["A", "B", "d", NaN]]}')
    with pytest.raises(ValueError, match="no number"):
        Extraction.from_json("c", body)


@pytest.mark.parametrize(
    "statements",
    [
        ["DROP TABLE texts", "CREATE TABLE texts (key TEXT PRIMARY KEY, body TEXT AS (hex(zeroblob(1000))))"],
        ["ALTER TABLE meta ADD COLUMN more TEXT AS (hex(zeroblob(1000)))"],
        ["CREATE VIEW seen AS SELECT 1"],
        ["CREATE TRIGGER cleared AFTER INSERT ON texts BEGIN DELETE FROM texts; END"],
        ["DROP TABLE vectors"],
    ],
)
def test_a_graph_with_tables_that_are_not_ours_is_refused(tmp_path: Path, statements: list[str]) -> None:
    path = tmp_path / "g"
    GraphFile(path, create=True).close()
    GraphFile(path).close()
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="that firsthand did not make"):
        GraphFile(path)


@pytest.mark.parametrize("vector", ["x'010203'", "'text'"])
def test_a_vector_of_a_graph_that_is_none_is_damage(tmp_path: Path, vector: str) -> None:
    path = tmp_path / "g"
    GraphFile(path, create=True).close()
    connection = sqlite3.connect(path)
    connection.execute(f"INSERT INTO vectors VALUES ('k', {vector})")
    connection.commit()
    connection.close()
    graph = GraphFile(path)
    with pytest.raises(StoreError, match="a vector cannot be read"):
        graph.vectors(["k"])
    graph.close()


# -- votes --

VOTE = {"model_a": "m", "model_b": "n", "winner": "model_a"}
RATED = {"generator_1": "m", "generator_2": "n"}
HUGE = 10**400


@pytest.mark.parametrize(
    ("rows", "style"),
    [
        ([{**RATED, "preference": HUGE}], ()),
        ([{**RATED, "preference": 1}, RATED], ()),
        ([VOTE, {"model_a": "m", "model_b": "n"}], ()),
        ([{**VOTE, "len_a": HUGE, "len_b": 1}], ("length",)),
        ([{**VOTE, "conv_metadata": {"bold_count_a": {"x": "y"}, "bold_count_b": 2}}], ("bold",)),
        ([{**VOTE, "conv_metadata": {"bold_count_a": {"x": [1]}, "bold_count_b": None}}], ("bold",)),
    ],
)
def test_a_vote_that_cannot_be_read_names_its_row(tmp_path: Path, rows: list[object], style: tuple[str, ...]) -> None:
    path = tmp_path / "votes.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=r"votes\.json, item \d"):
        read_votes(path, style=style)


@pytest.mark.slow
def test_a_heading_of_many_columns_takes_linear_time(tmp_path: Path) -> None:
    """300,000 columns were compared pair by pair, which took hours."""
    path = tmp_path / "votes.csv"
    path.write_text(",".join(f"c{number}" for number in range(300_000)) + "\n1\n")
    with pytest.raises(DataError, match="1 cells, and the header has 300000"):
        read_votes(path)
