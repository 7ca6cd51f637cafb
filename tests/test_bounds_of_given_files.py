"""Small files of strangers whose tables, rows, lines or voters would fill memory."""

import gzip
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from firsthand.arena import vote_checks
from firsthand.arena.battle_table import BattleTable
from firsthand.arena.vote_checks import checked_votes, suspect_voters
from firsthand.boards.board_columns import MAX_COLUMNS, MAX_MODELS, board_columns
from firsthand.boards.board_results import MAX_CELLS, BoardResult, ColumnKey, ItemScores, ResultSet, merged_items
from firsthand.boards.board_spec import BoardSpec
from firsthand.boards.make_board import make_board
from firsthand.boards.result_file import read_result_file, write_result_file
from firsthand.contamination import corpus_texts
from firsthand.contamination.corpus_texts import pieces
from firsthand.contamination.ngram_overlap import CorpusIndex
from firsthand.errors import ConfigError, DataError
from firsthand.train import documents
from firsthand.train.documents import json_lines, read_documents

KEY = ColumnKey("b", "", "")


def many(number: int) -> ResultSet:
    return ResultSet(tuple(BoardResult(f"m{i}", "b", 0.5) for i in range(number)))


def part(models: int, tasks: int, name: str) -> ItemScores:
    scores = np.zeros((models, tasks), np.float32)
    return ItemScores(
        KEY, tuple(f"{name}{i}" for i in range(models)), tuple(f"{name}{i}" for i in range(tasks)), scores
    )


@pytest.mark.slow
def test_a_board_of_more_models_than_are_compared_is_refused_before_any_table():
    for rule in ("each", "weighted", "borda"):
        with pytest.raises(
            ConfigError, match=r"10,001 models, and a board ranks 10,000 at most: choose some with --models"
        ):
            make_board(many(MAX_MODELS + 1), BoardSpec(rule=rule))
    columns, _ = board_columns(many(MAX_MODELS), BoardSpec(), protocols={}, metrics={})
    assert len(columns[0].cells) == MAX_MODELS


def test_a_board_of_more_columns_than_are_compared_is_refused():
    def columns(number: int) -> ResultSet:
        return ResultSet(tuple(BoardResult("m", f"b{i}", 0.5) for i in range(number)))

    with pytest.raises(ConfigError, match=r"2,001 columns, and a board has 2,000 at most: list the benchmarks"):
        board_columns(columns(MAX_COLUMNS + 1), BoardSpec(), protocols={}, metrics={})
    assert len(board_columns(columns(MAX_COLUMNS), BoardSpec(), protocols={}, metrics={})[0]) == MAX_COLUMNS


def test_the_covariance_of_some_models_is_that_part_of_all():
    scores = np.array([[0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1]], np.float32)
    items = ItemScores(KEY, ("a", "b", "c"), ("1", "2", "3", "4"), scores)
    assert items.covariance([2, 0]) == pytest.approx(items.covariance()[np.ix_([2, 0], [2, 0])])


def test_two_small_parts_of_one_column_make_no_table_of_gigabytes():
    side = int(MAX_CELLS**0.5) + 1
    with pytest.raises(DataError, match=r"b has 4,474 models and 4,474 items in all its files, 20,016,676 cells"):
        merged_items([part(side, 1, "x"), part(1, side, "y")])
    [merged] = merged_items([part(3, 1, "x"), part(1, 3, "y")])
    assert merged.scores.shape == (4, 4)


def test_rows_of_a_result_file_are_no_larger_than_the_file(tmp_path: Path):
    path = tmp_path / "r.results"
    write_result_file(path, ResultSet.of([], [part(20, 300, "x")]))
    assert [each.models for each in read_result_file(path) if isinstance(each, ItemScores)] == [part(20, 1, "x").models]
    blank = len(json.dumps(BoardResult("", "b", 0.5).to_json()))
    write_result_file(path, ResultSet((BoardResult("m" * (16_957 - blank), "b", 0.5),)))  # all but 600 bytes elsewhere
    page = 4096
    with closing(sqlite3.connect(path)) as connection, connection:
        roots = dict(connection.execute("SELECT name, rootpage FROM sqlite_master"))
    raw = bytearray(path.read_bytes())
    leaf = (roots["results"] - 1) * page
    count = int.from_bytes(raw[leaf + 3 : leaf + 5])
    first = raw[leaf + 8 : leaf + 10]
    raw[leaf + 3 : leaf + 5] = (count + 60).to_bytes(2)  # 60 cells more, all of them the first one
    raw[leaf + 8 + 2 * count : leaf + 8 + 2 * (count + 60)] = first * 60
    path.write_bytes(raw)
    with pytest.raises(DataError, match="its rows are larger than the file: import the results again"):
        list(read_result_file(path))


def test_values_of_a_result_file_are_counted_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "r.results"
    write_result_file(path, ResultSet.of([], [part(2, 300, "x")]))
    monkeypatch.setattr("firsthand.benchmarks.sources.tables.MAX_VALUES", 300)
    with pytest.raises(DataError, match="more than 300 JSON values"):
        list(read_result_file(path))


def test_values_of_a_line_are_counted_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "t.jsonl.gz"
    for module in (documents, corpus_texts):
        monkeypatch.setattr(module, "MAX_LINE_VALUES", 50)
    path.write_bytes(gzip.compress(b'{"text": "' + b"a, [b], {c}, " * 99 + b'"}\n{"text": [' + b"{}," * 60 + b"{}]}\n"))
    lines = json_lines(path)
    assert next(lines)[0]["text"].count("c") == 99, "marks inside of a text are none"
    with pytest.raises(DataError, match=r"gz:2 holds more than 50 JSON values"):
        next(lines)
    with pytest.raises(DataError, match="line 2: more than 50 JSON values"):
        list(pieces(path))
    path.write_bytes(gzip.compress(b'{"text": "one", "of": [' + b"1," * 48 + b"1]}"))  # 49 commas, two brackets
    for read in (json_lines, pieces):
        with pytest.raises(DataError, match="more than 50"):
            list(read(path))
    path.write_bytes(gzip.compress(b'{"text": "one", "of": [' + b"1," * 47 + b"1]}"))
    assert [body["text"] for body, _ in json_lines(path)] == ["one"]
    assert list(pieces(path)) == [b"one"]


def test_a_document_is_bounded_once_unpacked(tmp_path: Path):
    path = tmp_path / "t.txt.gz"
    path.write_bytes(gzip.compress("é\n\r\n".encode() * 25))
    assert documents._text_of(path, 125) == "é\n\r\n" * 25
    assert [each.text for each in read_documents([tmp_path])] == ["é\n\r\n" * 25]
    with pytest.raises(DataError, match=r"is a text of more than 124 bytes: split it"):
        documents._text_of(path, 124)
    (tmp_path / "bad.txt").write_bytes(b"a\nb\xff")
    with pytest.raises(DataError, match=r"not UTF-8 text \(byte 3\)"):
        documents._text_of(tmp_path / "bad.txt")


def battles(voters: list[int]) -> BattleTable:
    number = len(voters)
    a, b = np.arange(number, dtype=np.int32) % 3, (np.arange(number, dtype=np.int32) + 1) % 3
    outcome = np.arange(number, dtype=np.int8) % 2
    return BattleTable(("x", "y", "z"), a, b, outcome, voters=np.array(voters, np.int32))


def test_votes_of_many_voters_are_sorted_once():
    votes = battles([2, 0, 1, 0, 2, 2, *range(3, 20_003)])
    found = vote_checks._by_voter(votes)
    assert sum(len(rows) for rows in found.values()) == len(votes), "each vote is held once"
    assert [found[0].tolist(), found[1].tolist(), found[2].tolist()] == [[1, 3], [2], [0, 4, 5]]
    assert suspect_voters(votes) == []
    assert len(checked_votes(votes, cap=1)) == 20_003
    assert vote_checks._by_voter(battles([])) == {}


def test_an_index_of_a_corpus_of_another_form_is_one_sentence(tmp_path: Path):
    (tmp_path / "corpus.txt").write_text("one two three four five six seven eight nine ten eleven twelve thirteen")
    folder = tmp_path / "index"
    built = CorpusIndex.build(tmp_path / "corpus.txt", folder)
    about, bits = (folder / "index.json").read_text(), np.array(built.bits)
    for text in (
        about.replace('"grams": ', '"grams": 1e999, "x": '),
        "[" * 100_000,
        "[]",
        '"x"',
        "{}",
        "{",
        "9" * 5000,
    ):
        (folder / "index.json").write_text(text)
        with pytest.raises(DataError, match="is no index of a corpus, or is damaged"):
            CorpusIndex(folder)
    (folder / "index.json").write_text(about)
    for odd in (np.array(1, np.uint64), bits.reshape(2, -1), bits[:0], bits[:3], bits.astype(np.int64)):
        np.save(folder / "bits.npy", odd)
        with pytest.raises(DataError, match="of another form"):
            CorpusIndex(folder)
    with (folder / "bits.npy").open("wb") as file:
        np.savez(file, bits)
    with pytest.raises(DataError, match="is no index of a corpus, or is damaged"):
        CorpusIndex(folder)
    np.save(folder / "bits.npy", bits)
    assert CorpusIndex(folder).grams == built.grams
