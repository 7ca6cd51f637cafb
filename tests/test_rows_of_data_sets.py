"""Rows of data sets: pages of the hub, files in their order, documents of requests, tables, and what is wrong with them."""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from benchmark_rows import refused
from firsthand.benchmarks.sources import datasets
from firsthand.benchmarks.sources.datasets import Rows, Source
from firsthand.benchmarks.sources.tables import TableRow, decoded, parse_table, read_table
from firsthand.errors import DataError, DownloadError, FirsthandError
from firsthand.hub.offline import offline
from firsthand.system.packed_text import unpacked_gzip

SOURCE = Source("math/sums.jsonl", 3, "MIT", "some/sums", "main", "test", lambda row: {"a": row["n"] + 1})


def paged(status: int, body: bytes | Exception) -> httpx.Client:
    """A client of a hub that answers every request so."""

    def handle(request: httpx.Request) -> httpx.Response:
        if isinstance(body, Exception):
            raise body
        return httpx.Response(status, content=body, headers={"asked": str(request.url)})

    return httpx.Client(transport=httpx.MockTransport(handle))


def page(status: int = 200, body: bytes | Exception = b"{}") -> Any:
    with paged(status, body) as client:
        return datasets._page(client, "http://hub/rows", {"offset": "0"}, SOURCE)


def test_a_page_of_the_hub_is_an_object_or_an_error_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    hint = "check the connection, or give data=FOLDER that holds math/sums.jsonl"
    assert page(body=b'{"rows": [1], "x": {}}') == {"rows": [1], "x": {}}
    for status in (401, 403):
        told = (
            f"some/sums: the hub answered {status}: agree to the set's terms on its page there, and set HF_TOKEN; "
            f"or give "
            "data=FOLDER that holds math/sums.jsonl"
        )
        assert refused(DownloadError, page, status) == told
    for status in (402, 404, 201, 503):
        assert refused(DownloadError, page, status) == f"some/sums: the hub answered {status}; {hint}"
    for body in (b"[]", b'"a"', b"3", b"null"):
        assert refused(DownloadError, page, 200, body) == f"some/sums: the hub's answer is not a JSON object; {hint}"
    told = refused(DownloadError, page, 200, b"{")
    assert told.startswith("some/sums: JSONDecodeError from the hub (Expecting property") and told.endswith(f"; {hint}")
    told = refused(DownloadError, page, 200, httpx.ConnectError("no route"))
    assert told == f"some/sums: ConnectError from the hub (no route); {hint}"
    assert "nested too deep" in refused(DownloadError, page, 200, b"[" * 100_000)
    told = "some/sums: the hub's answer is no page of rows: it "
    assert refused(DownloadError, page, 200, b"[" * 2_000_001) == f"{told}sent more than 2,000,000 JSON values"
    monkeypatch.setattr(datasets, "MAX_PAGE_BYTES", 1 << 20)
    exact = b'{"a": "' + b"x" * ((1 << 20) - 9) + b'"}'
    assert len(exact) == 1 << 20 and page(body=exact)["a"][:2] == "xx"
    assert refused(DownloadError, page, 200, exact + b" ") == f"{told}sent more than 1048576 bytes"


@contextmanager
def hub(*pages: Any) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A hub on this machine that answers with these pages in turn, and the queries and tokens that came."""
    left, asked = list(pages), []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            token = self.headers.get("Authorization")
            asked.append({**dict(parse_qsl(urlsplit(self.path).query)), **({"token": token} if token else {})})
            raw = json.dumps(left.pop(0)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/rows", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def rows(*numbers: int, at: int = 0, total: Any = 3, **more: Any) -> dict[str, Any]:
    """A page of rows from row `at` on."""
    found = [
        {"row_idx": place, "row": {"n": number}, "truncated_cells": []} for place, number in enumerate(numbers, at)
    ]
    return {"rows": found, "num_rows_total": total, "partial": False, **more}


def test_a_set_is_fetched_page_by_page_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "secret")
    path = tmp_path / "data" / "math" / "sums.jsonl"
    with hub(rows(5, 6), rows(7, at=2)) as (url, asked):
        assert datasets.fetch(SOURCE, url=url) == path
        assert path.read_text() == '{"a": 6}\n{"a": 7}\n{"a": 8}\n' and [
            each.name for each in path.parent.iterdir()
        ] == [path.name]
        assert datasets.fetch(SOURCE, url=url) == path
    about = {"dataset": "some/sums", "config": "main", "split": "test", "length": "100"}
    assert asked == [{**about, "offset": "0"}, {**about, "offset": "2"}]
    with hub(rows(1), rows(2, 3, at=1)) as (url, asked):
        assert datasets.fetch_unkept(SOURCE, url=url, page_rows=7) == ({"a": 2}, {"a": 3}, {"a": 4})
    token = {"length": "7", "token": "Bearer secret"}
    assert asked == [{**about, "offset": "0", **token}, {**about, "offset": "1", **token}]
    assert refused(DataError, datasets.fetch, replace(SOURCE, path="math/none.jsonl", dataset="")) == (
        "math/none.jsonl is neither on this machine nor on the hub: put it in a folder and give data=FOLDER"
    )
    with offline():
        assert refused(DownloadError, datasets.fetch, replace(SOURCE, path="math/other.jsonl")) == (
            "math/other.jsonl is not on this machine, and nothing is fetched while offline: give data=FOLDER "
            "that holds it, or "
            "fetch some/sums with a network"
        )


def test_pages_without_rows_of_the_expected_form_are_refused_with_their_place() -> None:
    no_page = "some/sums: the hub's answer at row {} is not a page of rows; try again later"
    columns = "some/sums on the hub, row {}: {!r}: not the expected columns"
    cases = [
        ([rows(1, 2), rows()], no_page.format(2)),
        ([{"rows": [{"row": {"n": 1}}, {"n": 2}], "num_rows_total": 2}], no_page.format(0)),
        ([{"rows": [{"row": {"n": 1}}], "num_rows_total": "2"}], no_page.format(0)),
        ([rows(1, total=31)], no_page.format(0)),
        ([rows(1), rows(1, at=1) | {"rows": [{"row_idx": 1, "row": {"m": 1}}]}], columns.format(1, KeyError("n"))),
        ([rows(1) | {"rows": [{"row_idx": 0, "row": [1]}]}], "not the expected columns"),
    ]
    whole = rows(1, total=30), rows(*range(29), at=1, total=30)
    with hub(*(page for pages, _ in cases for page in pages), *whole) as (url, _):
        for _, told in cases:
            assert refused(FirsthandError, lambda: list(datasets._hub_rows(SOURCE, url))).endswith(told)
        assert len(list(datasets._hub_rows(SOURCE, url))) == 30


def test_a_page_of_other_rows_than_were_asked_for_is_refused_and_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    first, cut = rows(5, 6), rows(5, 6, 7)
    cut["rows"][2]["truncated_cells"] = ["n"]
    unnumbered = rows(5)
    del unnumbered["rows"][0]["row_idx"]
    other, many = "holds other rows than were asked for", "holds more rows than there should be"
    cases: list[tuple[list[dict[str, Any]], int, str]] = [
        ([first, first], 2, many),  # a cache that ignores the offset
        ([rows(5), rows(5)], 1, other),
        ([rows(5, at=1)], 0, other),
        ([rows(5, 6) | {"rows": first["rows"][::-1]}], 0, other),
        ([unnumbered], 0, other),
        ([rows(*range(8), total=30)], 0, many),  # 7 were asked for
        ([rows(5, 6, total=1)], 0, many),
        ([first, rows(7, at=2, total=4)], 2, "says that the set has 4 rows, and an earlier one said 3"),
        ([first, rows(7, at=2, total=True)], 2, "is not a page of rows"),
        ([rows(5, total=True)], 0, "is not a page of rows"),
        ([rows(5, 6, 7, partial=True)], 0, "is of a part of the set"),
        ([cut], 0, "has cells whose ends are left off"),
    ]
    for pages, row, told in cases:
        with hub(*pages) as (url, _):
            said = refused(DownloadError, lambda url=url: list(datasets._hub_rows(SOURCE, url, page_rows=7)))
            assert said == f"some/sums: the hub's answer at row {row} {told}; try again later"
    with hub(rows(5, 6), rows(5)) as (url, _):
        refused(DownloadError, lambda: datasets.fetch(SOURCE, url=url))
    assert not list(tmp_path.rglob("*.jsonl*"))
    with hub(rows(*range(7), total=8), rows(7, at=7, total=8)) as (url, _):
        assert len(list(datasets._hub_rows(SOURCE, url, page_rows=7))) == 8


def test_rows_come_from_the_first_place_that_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    for place, number in (("given/math", 1), ("env", 2), ("home/data/math", 3)):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "sums.jsonl").write_text(f'{{"a": {number}}}\n' * number)
    monkeypatch.setenv("FIRSTHAND_DATA", str(tmp_path / "env"))
    given = datasets.load(SOURCE, str(tmp_path / "given"))
    raw = b'{"a": 1}\n'
    path = tmp_path / "given" / "math" / "sums.jsonl"
    assert given == Rows(({"a": 1},), "data folder, 1 of 3 items", path, hashlib.sha256(raw).hexdigest())
    assert datasets.load(SOURCE).origin == "$FIRSTHAND_DATA, 2 of 3 items"
    assert datasets.load(SOURCE, "hub").origin == "Hugging Face hub, some/sums, 3 items"
    monkeypatch.setenv("FIRSTHAND_DATA", str(tmp_path))
    assert datasets.load(SOURCE).origin == "Hugging Face hub, some/sums, 3 items"
    assert refused(DataError, datasets.load, SOURCE, "packaged") == (
        "no slice of sums.jsonl is packaged: give data=FOLDER, or data=hub to fetch it"
    )
    packaged = replace(SOURCE, path="x/gsm8k_train.jsonl", rows=10**6)
    found = datasets.load(packaged, "packaged")
    assert found.origin == f"packaged slice, {len(found.rows):,} of 1,000,000 items"
    assert datasets.load(replace(packaged, rows=len(found.rows))).origin == f"packaged, {len(found.rows):,} items"
    assert datasets.located("sums.jsonl", "", "a") is None and datasets.located("sums.jsonl", "hub") is None
    assert datasets.located("a", "packaged") is None
    monkeypatch.setenv("FIRSTHAND_DATA", str(tmp_path / "env"))
    assert datasets.located("b/none.jsonl", "", "c/sums.jsonl") == tmp_path / "env" / "sums.jsonl"
    assert datasets.located("sums.jsonl", "hub") is None


def test_a_file_is_found_by_path_before_name_and_plain_before_packed(tmp_path: Path) -> None:
    for name in ("b.jsonl.gz", "m/b.jsonl.gz", "c.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert datasets.find(tmp_path, "m/b.jsonl", "c.jsonl") == tmp_path / "m" / "b.jsonl.gz"
    assert datasets.find(tmp_path, "n/b.jsonl", "c.jsonl") == tmp_path / "b.jsonl.gz"
    assert datasets.find(tmp_path, "n/d.jsonl", "x/c.jsonl") == tmp_path / "c.jsonl"
    (tmp_path / "b.jsonl").write_bytes(b"x")
    assert datasets.find(tmp_path, "n/b.jsonl") == tmp_path / "b.jsonl" and datasets.find(tmp_path, "m") is None
    assert datasets.in_folder(tmp_path / "c.jsonl", "data", "b.jsonl") == tmp_path / "c.jsonl"
    told = f"data is {str(tmp_path)!r}, which has "
    assert refused(DataError, datasets.in_folder, tmp_path, "data", "d.x") == told + "no d.x: put the file there"
    assert refused(DataError, datasets.in_folder, tmp_path, "data", "q/d.x", "e", "e") == (
        told + "neither q/d.x nor e nor d.x: put the file there"
    )


def test_packed_and_plain_rows_are_read_with_their_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        {"doc": {"q": 1}, "request": 0, "doc_id": 7},
        {"doc": {"q": 1}, "request": 1, "doc_id": 7},
        {"doc": {"q": 9}, "request": 0, "doc_id": 1_000_000},
        {"doc": {"q": 2}, "request": 0, "doc_id": 999_999},
        {"doc": {"q": 3}, "request": 0, "doc_id": "x"},
    ]
    path = tmp_path / "r.jsonl.gz"
    path.write_bytes(datasets.packed([json.dumps(line) for line in lines]))
    found = datasets.read(path, SOURCE, "here")
    assert (found.rows, found.lines) == (({"q": 1}, {"q": 2}, {"q": 3}), (1, 4, 5))
    assert [found.where(index) for index in range(3)] == [f"{path}, line {line}" for line in (1, 4, 5)]
    assert (
        datasets.packed(["a", "é"]) == datasets.packed(["a", "é"]) and gzip.decompress(datasets.packed(["a"])) == b"a\n"
    )
    assert datasets._documents(({"doc": {}, "request": 1}, {"doc": {}})) == (
        (),
        ({"doc": {}, "request": 1}, {"doc": {}}),
    )
    assert datasets._documents(({"doc": 1, "request": 1},))[0] == () and datasets._documents(()) == ((), ())
    plain = tmp_path / "p.jsonl"
    for raw, told in (
        (b'{"a": 1}\n\n{"a": 2}\n', f"{plain}, line 2: not JSON: ''"),
        (b'{"a": 1}\n{"a": 2}\n[3]', f"{plain}, line 3: a JSON object was expected, not '[3]'"),
        (b" \n ", f"{plain} has no rows: is it truncated?"),
        (b'{"a": "\xff"}', f"{plain} is not UTF-8 text (byte 7): give a .jsonl file"),
        (b"x" * 70, f"{plain}, line 1: not JSON: {'x' * 60!r}"),
    ):
        plain.write_bytes(raw)
        assert refused(DataError, datasets.read, plain, SOURCE, "") == told
    plain.write_bytes(b'{"a": 1}\n' * 1500)
    assert datasets.read(plain, SOURCE, "o").origin == "o, 1,500 items"
    assert datasets.read(plain, replace(SOURCE, rows=1501), "o").origin == "o, 1,500 of 1,501 items"
    plain.write_bytes(b'{"a": 1}')
    assert datasets.read(plain, replace(SOURCE, rows=1), "o").origin == "o, 1 item"
    monkeypatch.setattr(datasets, "MAX_BYTES", 1 << 20)
    packed = gzip.compress(b"y" * (1 << 20))
    assert len(unpacked_gzip(packed, path, 1 << 20)) == 1 << 20
    assert refused(DataError, unpacked_gzip, gzip.compress(b"y" * ((1 << 20) + 1)), path, 1 << 20) == (
        f"{path} unpacks to more than 1 MiB: is it the right file?"
    )
    for raw in (packed[:-9], b"no gzip", b""):
        told = f"{path} is not a complete gzip file: fetch it again"
        assert refused(DataError, unpacked_gzip, raw, path, 1 << 20) == told
    plain.write_bytes(b"z" * (1 << 20))
    assert len(datasets.contents(plain)) == 1 << 20
    plain.write_bytes(b"z" * ((1 << 20) + 1))
    assert refused(DataError, datasets.contents, plain) == f"{plain} is larger than 1 MiB: is it the right file?"
    missing = tmp_path / "none"
    assert refused(DataError, datasets.contents, missing) == f"{missing} cannot be read: No such file or directory"


def test_a_text_field_is_a_text_with_letters() -> None:
    assert datasets.text_field({"a": " x "}, "a", "w") == " x "
    for found in (" \n", "", 3, None, ["a"]):
        told = f"w: the field 'a' holds {str(found)!r}, and text was expected"
        assert refused(DataError, datasets.text_field, {"a": found}, "a", "w") == told
    told = "w: the field 'b' is missing, and text was expected"
    assert refused(DataError, datasets.text_field, {"a": "x"}, "b", "w") == told


def test_tables_of_each_layout_have_the_place_where_a_row_ends() -> None:
    path = Path("t.csv")
    assert parse_table(' a ,b\n1,"x\ny"\n\n,\n', path, ".csv") == [
        TableRow({"a": "1", "b": "x\ny"}, "t.csv, line 3"), TableRow({"a": "", "b": ""}, "t.csv, line 5"),
    ]  # fmt: skip
    assert parse_table("a\tb\n1,2\t3\n", Path("t.tsv"), ".tsv") == [TableRow({"a": "1,2", "b": "3"}, "t.tsv, line 2")]
    assert parse_table('{"a": 1}\n \n{"b": [2]}', path, ".jsonl") == [
        TableRow({"a": 1}, "t.csv, line 1"), TableRow({"b": [2]}, "t.csv, line 3"),
    ]  # fmt: skip
    assert parse_table('[{"a": 1}, {"b": 2}]', path, ".json")[1] == TableRow({"b": 2}, "t.csv, item 2")
    own_name = "t.csv, line 1: each column needs its own name, not {}"
    for text, suffix, told in (
        ("", ".csv", "t.csv holds no rows: is it truncated, or only a header?"),
        ("a,b\n", ".csv", "t.csv holds no rows: is it truncated, or only a header?"),
        (" ", ".json", "t.csv holds no rows: is it truncated, or only a header?"),
        ("b,a,b,a,c\n", ".csv", own_name.format("a, b")),
        ("a, \n", ".csv", own_name.format("an empty one")),
        ("a,b\n1,2\n3,4,5\n", ".csv", "t.csv, line 3: 3 cells, and the header has 2: is a quote or a comma missing?"),
        ("a,b\n1,2\n3\n", ".csv", "t.csv, line 3: 1 cells, and the header has 2: is a quote or a comma missing?"),
        ("a;b\n1;2\n", ".csv", "t.csv has semicolons between its columns: save it with commas, or with tabs as .tsv"),
        ("a\tb\n1\t2\n", ".csv", "t.csv has tabs between its columns: save it with commas, or with tabs as .tsv"),
        ('{"a": 1}\n{', ".jsonl", "t.csv, line 2 (the last line: is the file cut short?): not JSON: '{'"),
        ('{\n{"a": 1}', ".jsonl", "t.csv, line 1: not JSON: '{'"),
        ('{"a": 1}\n[1]', ".jsonl", "t.csv, line 2: an object of columns was expected, not [1]"),
        ('{"a": 1}', ".json", "t.csv: a list of objects was expected, not {'a': 1}"),
        ("[{}, 2]", ".json", "t.csv, item 2: an object of columns was expected, not 2"),
        ("[", ".json", "t.csv (is the file cut short?): not JSON: '['"),
    ):
        assert refused(DataError, parse_table, text, path, suffix) == told
    assert refused(DataError, parse_table, 'a\n"b', path, ".csv") == (
        "t.csv, line 2: unexpected end of data: is a quote not closed, or the file cut short?"
    )
    assert len(parse_table("a;b\n1\n", Path("t.tsv"), ".tsv")) == len(parse_table("a;b,c\n1,2\n", path, ".csv")) == 1
    told = "t.txt: a file .csv, .tsv, .jsonl, .json was expected"
    assert refused(DataError, read_table, Path("t.txt")) == told


def test_bytes_are_decoded_by_their_mark_or_as_is_said() -> None:
    path = Path("t.csv")
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert decoded("é\n".encode(encoding), path) == "é\n"
    assert decoded("é".encode("utf-16-be"), path, "utf-16-be") == decoded(b"\xe9", path, "latin-1") == "é"
    assert refused(DataError, decoded, b"a", path, "latin-l") == (
        "encoding is 'latin-l', which Python does not know: give another, such as latin-1"
    )
    assert refused(DataError, decoded, b"a\nb\n\xe9", path) == (
        "t.csv, line 3: byte 4 is not utf-8: save the file as UTF-8, or say which encoding it has, such as encoding = "
        '"latin-1"'
    )
    assert refused(DataError, decoded, b"a\0", path) == (
        "t.csv has zero bytes: it is not text, or needs an encoding, such as utf-16-le"
    )
