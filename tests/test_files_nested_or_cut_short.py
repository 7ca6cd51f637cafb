"""Files of benchmarks and results that are nested too deeply, or whose end is missing, are refused in one sentence."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark_rows import refused
from firsthand.benchmarks import ai_risk, bbh, bigcodebench, mmlu, poisoned_rag, pubmedqa
from firsthand.benchmarks.long_context import haystack, ruler_counting, ruler_qa
from firsthand.benchmarks.protocols import vote_sets
from firsthand.benchmarks.retrieval_sets import beir_folder
from firsthand.benchmarks.sources import bias_files, chat_histories, datasets, tables
from firsthand.benchmarks.swe import swe_tasks
from firsthand.boards.result_formats.inspect_logs import read_archive
from firsthand.errors import DataError
from firsthand.worlds.knowledge.triples import open_graph, read_triples

DEEP = "[" * 100_000
PARSER = "maximum recursion depth exceeded while decoding a JSON array from a unicode string"
SOURCE = datasets.Source("a.jsonl", 1, "", "", "", "", dict)
READERS: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "pubmedqa": ("ori_pqal.json", lambda path: pubmedqa.read_rows(str(path)), "{path} is no JSON: " + PARSER),
    "pubmedqa corpus": ("ori_pqal.json", lambda path: pubmedqa.corpus(data=str(path)), "{path} is no JSON: " + PARSER),
    "beir": ("corpus.jsonl", lambda path: beir_folder.read_corpus(path.parent), "{path}, line 1 is no JSON: " + PARSER),
    "words": ("words.json", lambda path: ruler_counting._english(path),
              "{path} is not a JSON object of words: fetch it from NVIDIA/RULER again"),
    "essays": ("PaulGrahamEssays.json", lambda path: haystack._from_json(path),
               "{path} is not a JSON object with a 'text': make it with RULER's download script"),
    "squad": ("squad.json", lambda path: ruler_qa.read_question_set("qa_1", str(path.parent)),
              "{path} is not JSON: fetch it again"),
    "hotpot": ("hotpotqa.json", lambda path: ruler_qa.read_question_set("qa_2", str(path.parent)),
               "{path} is not JSON: fetch it again"),
    "risks": ("s.jsonl", lambda path: ai_risk._read("s", str(path.parent)), "{path}, line 1 is no JSON: " + PARSER),
    "bigcodebench": ("b.json", lambda path: bigcodebench.read_rows(str(path)), "{path} is not JSON: is it truncated?"),
    "bbh": ("b.json", lambda path: bbh._items("b", path.read_bytes(), path, ""),
            "{path} is not a JSON object with 'examples': fetch it again"),
    "bias": ("b.json", lambda path: bias_files.bias_object("b.json", str(path.parent), "o"),
             "{path} is no JSON: is it cut short?"),
    "table": ("t.json", lambda path: list(tables.read_table(path)),
              f"{{path}} (is the file cut short?): not JSON: {DEEP[:60]!r}"),
    "table of lines": ("t.jsonl", lambda path: list(tables.read_table(path)),
                       f"{{path}}, line 1 (the last line: is the file cut short?): not JSON: {DEEP[:60]!r}"),
    "votes": ("v.json", lambda path: vote_sets.read_list(path), "{path} is neither a JSON list nor JSONL: " + PARSER),
    "poison": ("nq.json", lambda path: poisoned_rag.corpus(set="nq", data=str(path)), "{path} is no JSON: " + PARSER),
    "talks": ("c.json", lambda path: chat_histories.read_records(path), "{path} is not JSON: " + PARSER),
    "rows": ("a.jsonl", lambda path: datasets.read(path, SOURCE, "o"), f"{{path}}, line 1: not JSON: {DEEP[:60]!r}"),
    "tests": ("t.json", lambda path: swe_tasks._names(path.read_text(), "PASS_TO_PASS", "w"),
              "w: PASS_TO_PASS must be a list of names of tests, or such a list as JSON in a string"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("kind", READERS)
def test_what_is_nested_too_deeply_is_no_json(kind: str, tmp_path: Path) -> None:
    name, read, told = READERS[kind]
    path = tmp_path / name
    path.write_text(DEEP)
    assert refused(DataError, read, path) == told.format(path=path)


CUT = "Compressed file ended before the end-of-stream marker was reached"


def packed_wrongly(packed: bytes) -> dict[str, bytes]:
    """A gzip file without its end, with a broken body, with another sum, and one that is none."""
    return {
        CUT: packed[:-9],
        "Error -3 while decompressing data": packed[:10] + b"\xff" * 8 + packed[18:],
        "CRC check failed": packed[:-8] + b"\0\0\0\0" + packed[-4:],
        "Not a gzipped file": b"plain text",
    }


def test_a_packed_file_without_its_end_or_with_a_broken_body_cannot_be_read(tmp_path: Path) -> None:
    rows = b"".join(b'{"_id": "%d", "text": "x%d"}\n' % (each, each * each) for each in range(300))
    path = tmp_path / "corpus.jsonl.gz"
    path.write_bytes(gzip.compress(rows))
    assert len(beir_folder.read_corpus(tmp_path)) == 300
    readers: tuple[Callable[[], Any], ...] = (
        lambda: beir_folder.read_corpus(tmp_path),
        lambda: list(beir_folder.text_lines(path, 1 << 20)),
        lambda: list(beir_folder.json_rows(path, 1 << 20)),
        lambda: list(beir_folder._json_queries(path)),
    )
    for why, body in packed_wrongly(path.read_bytes()).items():
        path.write_bytes(body)
        for read in readers:
            assert refused(DataError, read).startswith(f"{path} cannot be read: {why}"), why
    (tmp_path / "folder.jsonl").mkdir()
    told = f"{tmp_path / 'folder.jsonl'} cannot be read: Is a directory"
    assert refused(DataError, lambda: list(beir_folder.text_lines(tmp_path / "folder.jsonl", 9))) == told


def test_a_packed_graph_without_its_end_or_with_a_broken_body_cannot_be_read(tmp_path: Path) -> None:
    ns = "http://rdf.freebase.com/ns/"
    lines = "".join(f"<{ns}m.{n}>\t<{ns}film.film.starring>\t<{ns}m.{n * n}>\t.\n" for n in range(300))
    path = tmp_path / "graph.nt.gz"
    path.write_bytes(gzip.compress(lines.encode()))
    assert len(list(read_triples(path))) == 300
    for why, body in packed_wrongly(path.read_bytes()).items():
        path.write_bytes(body)
        told = f"{path} cannot be read as N-Triples in Freebase's layout: {why}"
        assert refused(DataError, lambda: list(read_triples(path))).startswith(told), why
        assert refused(DataError, open_graph, path).startswith(told), why
    path.write_bytes(gzip.compress(b"\xff\xfe"))
    assert refused(DataError, lambda: list(read_triples(path))).startswith(
        f"{path} cannot be read as N-Triples in Freebase's layout: "
    )


def test_the_authors_archive_with_a_broken_member_is_no_complete_one(tmp_path: Path) -> None:
    path, text = tmp_path / "data.zip", "".join(f"Q{n},a,b,c,d,A\n" for n in range(200))
    with zipfile.ZipFile(made := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data/test/law_test.csv", text)
    whole = made.getvalue()
    assert len(list(mmlu._zipped(whole, path, "test"))) == 200
    start = whole.index(b"law_test.csv") + len("law_test.csv")
    for body in (whole[:-30], whole[:start] + b"\xff" * 8 + whole[start + 8 :], b"", whole[:start]):
        assert refused(DataError, lambda body=body: list(mmlu._zipped(body, path, "test"))).startswith(
            f"{path} is not a complete zip file of CSV files: "
        )


def test_packed_rows_without_their_end_are_fetched_again(tmp_path: Path) -> None:
    path, rows = tmp_path / "a.jsonl.gz", [{"n": each} for each in range(300)]
    whole = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
    path.write_bytes(whole)
    assert datasets.read(path, SOURCE, "o").rows == tuple(rows)
    for body in packed_wrongly(whole).values():
        path.write_bytes(body)
        told = f"{path} is not a complete gzip file: fetch it again"
        assert refused(DataError, datasets.read, path, SOURCE, "o") == told


def test_a_log_with_a_broken_locked_or_nested_member_is_not_readable() -> None:
    header = {"eval": {"task": "t", "model": "m"}, "more": list(range(300))}
    with zipfile.ZipFile(made := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", json.dumps(header))
        archive.writestr("samples/a.json", "{}")
    whole = made.getvalue()
    assert read_archive(whole, "w") == {**header, "samples": [{}]}
    with zipfile.ZipFile(nested := io.BytesIO(), "w") as archive:
        archive.writestr("header.json", DEEP)
    with zipfile.ZipFile(headless := io.BytesIO(), "w") as archive:
        archive.writestr("samples/a.json", "{}")
    locked = bytearray(whole)
    locked[6] |= 1
    locked[whole.index(b"PK\x01\x02") + 8] |= 1
    start = whole.index(b"header.json") + len("header.json")
    for body, why in (
        (whole[:start] + b"\xff" * 8 + whole[start + 8 :], "Error -3 while decompressing data"),
        (bytes(locked), "it is encrypted"),
        (nested.getvalue(), "it is nested too deep"),
        (headless.getvalue(), "no item named 'header.json'"),
        (whole[:-30], "File is not a zip file"),
        (b"", "File is not a zip file"),
    ):
        told = refused(DataError, read_archive, body, "w")
        assert told.startswith("w is no readable Inspect log (") and why in told, told
        assert told.endswith("): install firsthand[inspect], or convert it to JSON with `inspect log convert`")
