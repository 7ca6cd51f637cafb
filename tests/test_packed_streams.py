"""Packed lines that unpack to far more than texts do, lines that are blank, and lines of too many JSON values."""

from __future__ import annotations

import gzip
import json
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firsthand.benchmarks.retrieval_sets.beir_folder import json_rows
from firsthand.commands import memory, rag_decide, rag_label
from firsthand.contamination.corpus_texts import pieces
from firsthand.errors import DataError
from firsthand.system import json_values, packed_stream
from firsthand.train.documents import json_lines, read_documents
from firsthand.worlds.knowledge.triples import read_triples

ROW = {"_id": "1", "text": "one"}
PACKED: dict[str, Callable[[Path], Any]] = {
    "train": json_lines,
    "contamination": pieces,
    "beir": lambda path: json_rows(path, 1 << 30),
    "triples": read_triples,
}


@pytest.mark.parametrize("name", PACKED)
def test_what_unpacks_to_a_hundred_times_its_size_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_stream, "FREE_BYTES", 1 << 16)
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(gzip.compress(b"#" + b" " * 99 + b"\n" if name == "triples" else b"\n" * 99, 9) * 9)
    list(PACKED[name](path))
    path.write_bytes(gzip.compress((b"#" if name == "triples" else b"") + b"\n" * 300_000))
    with pytest.raises(DataError, match=r"t.jsonl.gz unpacks to more than 0 MiB, 100 times its size: unpack it"):
        list(PACKED[name](path))


@pytest.mark.parametrize("name", ["train", "contamination", "beir"])
def test_blank_lines_are_passed_a_million_at_a_time(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_stream, "MAX_BLANK_LINES", 3)
    path, row = tmp_path / "t.jsonl", json.dumps(ROW)
    path.write_text(f"\n\n\n{row}\n\n \n\n{row}\n\n\n\n")
    assert (
        b"".join(PACKED[name](path)) == b"one\n1\n\xff\none\n1"
        if name == "contamination"
        else len([*PACKED[name](path)]) == 2
    )
    path.write_text(f"{row}\n\n\n\n\n{row}\n")
    with pytest.raises(DataError, match=r"t.jsonl has more than 3 blank lines after line 1: remove them"):
        list(PACKED[name](path))


def test_texts_of_an_ordinary_packed_file_are_read_whole_also_through_a_pipe(tmp_path: Path) -> None:
    rows = [{"text": f"text {each} " * 40} for each in range(3000)]
    packed = gzip.compress("".join(f"{json.dumps(each)}\n" for each in rows).encode())
    (tmp_path / "t.jsonl.gz").write_bytes(packed)
    os.mkfifo(tmp_path / "pipe.jsonl.gz")
    writer = threading.Thread(target=(tmp_path / "pipe.jsonl.gz").write_bytes, args=(packed,), daemon=True)
    writer.start()
    for name in ("t", "pipe"):
        assert [body for body, _ in json_lines(tmp_path / f"{name}.jsonl.gz")] == rows
    (tmp_path / "one.txt.gz").write_bytes(gzip.compress("é".encode() * 300_000))
    assert [len(each.text) for each in read_documents([tmp_path / "one.txt.gz"])] == [300_000]
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[:-9])
    with pytest.raises(DataError, match=r"cut.jsonl.gz is no whole gzip file"):
        list(json_lines(tmp_path / "cut.jsonl.gz"))


def test_values_of_a_line_given_to_a_command_are_counted_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.jsonl"
    row = {"question": "q, [r], {s}", "answer": "a", "instruction": "i", "output": "o"}
    good, bad = json.dumps(row), json.dumps({**row, "more": [[]] * 9})
    monkeypatch.setattr(json_values, "MAX_LINE_VALUES", 8)
    path.write_text(f"{good}\n\u2028\n{good}\n")
    assert [number for number, _ in memory._lines(path)] == [1, 3]
    assert [each.question for each in rag_decide.read_questions(path)] == [row["question"]] * 2
    assert rag_label._pair(good) == ("i", "o")
    path.write_text(f"{good}\n{bad}\n")
    told = "it holds more than 8 JSON values: one record a line was expected"
    for read in (lambda: list(memory._lines(path)), lambda: rag_decide.read_questions(path)):
        with pytest.raises(DataError, match=f"t.jsonl, line 2: {told}"):
            read()
    with pytest.raises(DataError, match=told):
        rag_label._pair(bad)


def test_values_are_counted_in_pieces_and_no_further_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = json.dumps([{"a, [b": 'c{ "d" \\', "e": [1, 2]}] * 50).encode()
    for size in (7, 64, 1 << 20):
        monkeypatch.setattr(json_values, "_AT_ONCE", size)
        assert json_values.values_in(raw, 251) == 50 * 2 + 49 + 1 + 50 + 50 == 250
    monkeypatch.setattr(json_values, "_AT_ONCE", 64)
    assert 40 < json_values.values_in(raw, 40) < 60


def test_a_packed_file_is_measured_whole_and_not_by_the_piece_that_was_read_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_stream, "FREE_BYTES", 0)
    monkeypatch.setattr(packed_stream, "MOST_A_BYTE", 2)
    path, raw = tmp_path / "t.gz", random.Random(1).randbytes(1 << 20)
    path.write_bytes(gzip.compress(raw, 1))
    with path.open("rb") as file, packed_stream.open_gzip(file, path) as opened:
        assert opened.read() == raw
