"""An index's file: what is refused, in which words, and what is left when something fails between two steps."""

from __future__ import annotations

import json
import sqlite3
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.store import document_rows as rows_of
from firsthand.retrieval.store.filter_conditions import (
    BOOLEAN,
    NESTED,
    NULL,
    NUMBER,
    TEXT,
    canonical,
    condition_sql,
    ends,
    excluded,
    field_of,
    matches,
)
from firsthand.retrieval.store.header_row import MAX_SETTING_CHARS
from firsthand.retrieval.store.sqlite_index import open_index
from index_tiny import HEADER, TERMS_ONLY, lines, unit


def refusal(document: Document, chunks: Any, vectors: Any, header: IndexHeader = HEADER) -> str:
    with pytest.raises(ConfigError) as raised:
        rows_of.prepared(IndexedDocument(document, chunks, vectors), header)
    return str(raised.value)


def test_a_document_that_does_not_fit_is_told_what_is_wrong_with_it() -> None:
    document = Document("d", "abcdef")
    first, other = Chunk("d", 0, 3, "abc"), Chunk("d", 3, 6, "def")
    one = unit(1, 0)
    assert (
        refusal(document, [first, first], unit(2, 0)) == "two chunks of 'd' have one span and text: give each span once"
    )
    assert refusal(document, [Chunk("e", 0, 3, "abc")], one) == (
        "a chunk of 'e' was given with the document 'd': give its own"
    )
    for chunk in (Chunk("d", 1, 3, "abc"), Chunk("d", 3, 2, ""), Chunk("d", -3, 6, "def")):
        assert refusal(document, [chunk], one) == (
            f"the chunk {chunk.start}..{chunk.end} of 'd' is not the document's text there: chunk it again"
        )
    assert refusal(document, [replace(first, parent=other.id)], one) == (
        "a chunk of 'd' has a parent that is none of its chunks: give the parent too"
    )
    assert rows_of.prepared(
        IndexedDocument(document, [Chunk("d", 6, 6, ""), first], unit(2, 0)), HEADER
    ).searchable == (
        True,
        True,
    )
    assert refusal(document, [first], None) == (
        "'d' comes with no vectors, and its chunks need (1, 24): embed each chunk's indexed_text"
    )
    assert refusal(document, [first], unit(2, 0)).startswith(
        "'d' comes with vectors of shape (2, 24), and its chunks need (1,"
    )
    for wrong in (unit(1, 0, 23), unit(1, 0, 25), one[0], one[None], unit(3, 0)):
        assert refusal(document, [first], wrong) == (
            f"'d' comes with vectors of shape {wrong.shape}, and its chunks need (1, 24): embed each chunk's indexed_text"
        )
    assert refusal(document, [], one) == (
        "'d' comes with vectors of shape (1, 24), and its chunks need (0, 24): embed each chunk's indexed_text"
    )
    assert rows_of.prepared(IndexedDocument(document, [], unit(0, 0)), HEADER).blobs == ()
    assert refusal(document, [first], one, TERMS_ONLY) == (
        "vectors were given for 'd', and this index has terms alone: make one with an embedder"
    )
    assert refusal(document, [first, other], np.stack([one[0], one[0] * 1.25])) == (
        "a vector of 'd' has the length 1.25: divide vectors by their Euclidean length"
    )
    assert refusal(document, [first, other], np.stack([one[0], one[0] * 0])) == (
        f"the chunk {other.start}..{other.end} of 'd', {other.text.strip()!r}, has a vector of zeros, by which nothing is "
        "found: let the embedder give each text a vector of Euclidean length 1"
    )
    for words in ("---", " \n", "★"):
        wordless = [Chunk("d", 0, len(words), words), Chunk("d", len(words), len(words) + 3, "abc")]
        zero = np.stack([one[0] * 0, one[0]])
        ready = rows_of.prepared(IndexedDocument(Document("d", words + "abc"), wordless, zero), HEADER)
        assert ready.searchable == (False, True), "a text without words has no meaning to be found by"
    headed = Chunk("d", 0, 3, "---", "Heading")
    assert "has a vector of zeros" in refusal(Document("d", "---"), [headed], one * 0)
    for scale, fits in ((1.0049, True), (0.9951, True), (1.0052, False), (0.9948, False), (0.0, True)):
        try:
            rows_of.checked_lengths(one * np.float32(scale), "'d'", zeros=True)
            assert fits, scale
        except ConfigError:
            assert not fits, scale
    with pytest.raises(ConfigError, match=r"^a vector of a text has the length 0:"):
        rows_of.checked_lengths(one * 0, "a text", zeros=False)
    assert refusal(replace(document, meta={"x": {1: 2}}), [first], one).startswith("the meta of 'd': ")


def test_a_documents_columns_are_what_is_read_back_and_every_value_counts_in_its_digest() -> None:
    meta = {"b": [1, None], "a": "é"}
    places = (Location(0, "page", "1"), Location(2, "row", "7"))
    document = Document("d\udc80", "abcdef", "T", "/s", meta, places)
    parent = Chunk(document.id, 0, 6, "abcdef", "H", None, {"n": 1})
    child = Chunk(document.id, 1, 3, "bc", "", parent.id)
    vectors = np.stack([np.zeros(24, np.float32), unit(1, 4)[0]])
    ready = rows_of.prepared(IndexedDocument(document, [parent, child], vectors), HEADER)
    assert ready.searchable == (False, True)
    id, title, source, sha256, digest, stored_meta, locations, text = ready.columns
    assert (id, title, source, sha256) == ("d\udc80".encode("utf-8", "surrogatepass"), "T", "/s", document.sha256)
    assert json.loads(stored_meta) == meta and json.loads(locations) == [[0, "page", "1"], [2, "row", "7"]]
    assert zlib.decompress(text) == b"abcdef" and len(digest) == 16
    assert [np.frombuffer(blob, "<f2").tolist() for blob in ready.blobs] == vectors.astype("<f2").tolist()
    assert rows_of.read_document((id, text, title, source, stored_meta, locations, sha256)) == document
    with pytest.raises(ValueError, match="another hash than it was stored under"):
        rows_of.read_document((id, text, title, source, stored_meta, locations, "0" * 64))
    with pytest.raises(ValueError, match="cut short"):
        rows_of.read_document((id, text[:-3], title, source, stored_meta, locations, sha256))
    digests = {
        rows_of.digest_of(one, chunks, searchable)
        for one, chunks, searchable in (
            (document, [parent, child], (False, True)),
            (replace(document, text="abcdeg"), [parent, child], (False, True)),
            (replace(document, title="U"), [parent, child], (False, True)),
            (replace(document, source="/t"), [parent, child], (False, True)),
            (replace(document, meta={}), [parent, child], (False, True)),
            (replace(document, locations=places[:1]), [parent, child], (False, True)),
            (replace(document, locations=(places[0], Location(3, "row", "7"))), [parent, child], (False, True)),
            (replace(document, locations=(places[0], Location(2, "page", "7"))), [parent, child], (False, True)),
            (replace(document, locations=(places[0], Location(2, "row", "8"))), [parent, child], (False, True)),
            (document, [child, parent], (False, True)),
            (document, [parent, child], (True, True)),
            (document, [replace(parent, heading="G"), child], (False, True)),
            (document, [replace(parent, meta={"n": 2}), child], (False, True)),
            (document, [parent, replace(child, parent=None)], (False, True)),
        )
    }
    assert len(digests) == 14 and digest in digests
    swapped = replace(document, meta={"a": "é", "b": [1, None]})
    assert rows_of.digest_of(swapped, [parent, child], (False, True)) == digest, "the order of keys is no difference"
    bare = rows_of.prepared(IndexedDocument(document, [parent, child], None), TERMS_ONLY)
    assert bare.searchable == (False, True) and bare.blobs == (), "without vectors, a parent is not searched"
    assert rows_of.plain_text("a\udc80b") == "a?b" and rows_of.indexed_text_of(b"H", "t") == "H\nt"


def test_values_of_filters_are_of_one_kind_where_they_are_equal() -> None:
    big = 2**63
    values = (None, False, True, 0, 1.0, -2.5, big - 1, -big, float(big), "é", [2.0, "a"], {"b": 1, "a": {}})
    assert [field_of(each) for each in values] == [
        (NULL, 0), (BOOLEAN, 0), (BOOLEAN, 1), (NUMBER, 0), (NUMBER, 1), (NUMBER, -2.5), (NUMBER, big - 1), (NUMBER, -big),
        (NUMBER, float(big)), (TEXT, "é".encode()), (NESTED, b'[2,"a"]'), (NESTED, b'{"a":{},"b":1}'),
    ]  # fmt: skip
    assert (
        isinstance(field_of(1.0)[1], int) and isinstance(field_of(big)[1], float) and isinstance(field_of(-big)[1], int)
    )
    assert canonical({"b": (1.0, True), "a": None}) == '{"a":null,"b":[1,true]}'
    for value, said in (
        (10**400, r"is too large: give it as a string"),
        (float("nan"), "the number nan is no JSON: give a finite one"),
        ({1: 2}, r"an object of the keys \[1\] is no JSON: keys must be strings"),
        ({"a": {1, 2}}, r"is no JSON \(a set\): use strings, numbers, lists and objects"),
    ):
        with pytest.raises(ConfigError, match=said):
            field_of(value)


def test_a_condition_is_sql_on_kind_and_value() -> None:
    assert condition_sql(3) == ("kind = ? AND value = ?", [NUMBER, 3])
    assert condition_sql([]) == ("0", [])
    assert condition_sql(["a", 1, "b", True]) == (
        "(kind = ? AND value IN (?, ?)) OR (kind = ? AND value IN (?)) OR (kind = ? AND value IN (?))",
        [TEXT, b"a", b"b", NUMBER, 1, BOOLEAN, 1],
    )
    assert condition_sql({"min": 1, "max": 2}) == ("kind = ? AND value >= ? AND value <= ?", [NUMBER, 1, 2])
    assert condition_sql({"max": "z"}) == ("kind = ? AND value <= ?", [TEXT, b"z"])
    assert condition_sql({"min": 0}) == ("kind = ? AND value >= ?", [NUMBER, 0])
    assert (
        ends({"max": 0}) == (None, (NUMBER, 0)) and excluded({"not": None}) == (None,) and excluded({"min": 1}) is None
    )
    for wrong in ({}, {"least": 1}, {"min": 1, "least": 2}):
        with pytest.raises(ConfigError, match='is not known: give a value, a list, "min" and "max", or "not"'):
            ends(wrong)
    for wrong in ({"min": 1, "max": "z"}, {"min": True}, {"max": None}, {"min": [1]}):
        with pytest.raises(ConfigError, match="has no order: give two numbers or two strings"):
            ends(wrong)
    with pytest.raises(ConfigError, match='has more than "not": give one of them a filter of its own'):
        excluded({"not": 1, "min": 2})
    for check, wrong in (
        (ends, {"least": "z" * 999}),
        (ends, {"min": "z" * 999, "max": 1}),
        (excluded, {"not": "z" * 999, "min": 2}),
    ):
        with pytest.raises(ConfigError) as told:
            check(wrong)  # type: ignore[operator]
        assert 250 < len(str(told.value)) < 320, "a long value is quoted in part"


def test_the_predicate_of_a_filter_holds_at_the_ends_of_a_range_and_not_beside_them() -> None:
    meta, own = {"n": 2, "t": "b", "x": None, "title": "of the meta"}, {"document": "d", "title": "T", "source": ""}
    true = ({}, {"n": 2.0}, {"n": {"min": 2}}, {"n": {"max": 2}}, {"n": {"min": 1, "max": 3}},
            {"t": {"min": "b", "max": "b"}}, {"x": None}, {"x": [None]}, {"y": {"not": None}},
            {"y": {"not": {"min": 1}}}, {"title": "T"}, {"n": [1, 2]},
            {"n": {"not": {"not": 2}}}, {"n": 2, "t": "b"})  # fmt: skip
    false = ({"n": {"min": 3}}, {"n": {"max": 1}}, {"n": {"min": "a"}}, {"y": None}, {"y": []}, {"n": []},
             {"n": {"not": 2}}, {"title": "of the meta"}, {"n": 2, "t": "c"}, {"n": 1, "t": "b"},
             {"y": {"max": 9}}, {"t": {"max": "a"}})  # fmt: skip
    assert [matches(where, meta, own) for where in true] == [True] * len(true)
    assert [matches(where, meta, own) for where in false] == [False] * len(false)


# -- the file --


def test_an_error_within_a_reading_ends_its_transaction_and_a_reading_within_one_is_part_of_it(tmp_path: Path) -> None:
    with open_index(tmp_path / "a.index", HEADER) as index:
        file = index._file
        with pytest.raises(KeyError), file.reading():
            raise KeyError("of the caller")
        assert not file._connection.in_transaction
        with file.reading() as outer:
            with file.reading() as inner:
                assert inner is outer
            assert outer.in_transaction, "the outer one goes on"
        assert not file._connection.in_transaction
        index.put([lines("a", ["fox\n"])])
        assert [each.chunk.document for each in index.search_terms("fox", 1, {})] == ["a"]


def test_a_transaction_that_fails_leaves_nothing_and_one_that_succeeds_is_a_revision(tmp_path: Path) -> None:
    with open_index(tmp_path / "a.index", HEADER) as index:
        file = index._file

        def header() -> tuple[int, int]:
            with file.reading() as connection:
                found: tuple[int, int] = connection.execute("SELECT revision, removals FROM header").fetchone()
                return found

        before = header()
        with pytest.raises(KeyError), file.writing(), file.transaction() as connection:
            connection.execute("UPDATE header SET removals = 77")
            raise KeyError
        assert not file._connection.in_transaction and header()[1] == before[1]
        assert not file._writing, "the claim is given back"
        now = header()
        with file.writing(), file.writing():
            with file.transaction() as connection:
                connection.execute("UPDATE header SET removals = 5")
            assert file._writing
        assert header() == (now[0] + 2, 5), "a revision for the transaction, and one that syncs"
        synchronous = file._connection.execute("PRAGMA synchronous").fetchone()[0]
        assert synchronous == 1, "NORMAL between the blocks"


def test_messages_say_which_file_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "a.index"

    def said(act: Any, kind: type[Exception] = StoreError) -> str:
        with pytest.raises(kind) as raised:
            act()
        assert type(raised.value) is kind
        return str(raised.value)

    assert said(lambda: open_index(tmp_path)) == f"{tmp_path} is a folder: give the path of an index's file in it"
    assert said(lambda: open_index(path)) == (
        f"no index at {path}: make one with `firsthand rag index`, or give another path"
    )
    assert said(lambda: open_index(path, HEADER, read_only=True)) == (
        f"no index at {path}: open it without read_only to make it"
    )
    assert not path.exists()
    assert "an index in memory needs a header" in said(lambda: open_index(":memory:"), ConfigError)
    memory = open_index(":memory:", HEADER, read_only=False)
    assert memory.path is None and memory._file.name == ":memory:"
    for dimension in (-1, 65_537):
        assert said(lambda d=dimension: open_index(":memory:", replace(HEADER, dimension=d)), ConfigError) == (
            f"the dimension is {dimension}: give that of the embedder, or 0 for terms alone"
        )
    assert open_index(":memory:", replace(HEADER, dimension=65_536)).header.dimension == 65_536
    open_index(path, HEADER).close()
    reader = open_index(path, read_only=True)
    assert said(lambda: reader.put([lines("a", ["x"])])) == (
        f"{path} was opened to be read: open it again without read_only to write"
    )
    assert open_index(path, HEADER, read_only=True).header == HEADER
    other = replace(HEADER, fingerprint="other", chunker="pages", embedder="new name")
    assert said(lambda: open_index(path, other), ConfigError) == (
        f"{path} was made with fingerprint 'fingerprint-of-tiny' (now 'other'), chunker 'lines' (now 'pages'): use what it "
        "was made with, or make it again with `firsthand rag reindex`"
    )
    assert open_index(path, replace(HEADER, embedder="new name")).header == HEADER
    with open_index(path, HEADER) as index:
        index.put([lines("guide.md", ["fox\n"])])
        assert said(lambda: index.document("guide.mb"), UnknownName) == (
            f"no document 'guide.mb' in {path}; did you mean 'guide.md'?"
        )
        assert said(lambda: index.document("zzz"), UnknownName) == f"no document 'zzz' in {path}"
        assert said(lambda: index.chunk("x" * 70), UnknownName) == (
            f"no chunk '{'x' * 64}' in {path}: its document may have changed; search again"
        )
        known = index.chunks("guide.md")[0].id
        assert said(lambda: index.vectors([known, "nope"]), UnknownName) == f"no vector of the chunk 'nope' in {path}"
        assert said(lambda: index.search_vectors(np.ones(3, np.float32), 1, {}), ConfigError) == (
            f"the vector has the shape (3,), and {path} has (24,): embed the query with 'tiny'"
        )
        for wrong in (np.nan, np.inf):
            assert said(lambda w=wrong: index.search_vectors(np.full(24, w, np.float32), 1, {}), ConfigError) == (
                "the vector has values that are not finite: check the embedder"
            )
        assert said(lambda: index.reembed(HEADER, lambda texts: unit(1, 0), batch_size=0), ConfigError) == (
            "batch_size is 0: give 1 or more"
        )
        assert said(lambda: index.reembed(replace(HEADER, chunker="p"), lambda texts: unit(1, 0)), ConfigError) == (
            f"{path} was chunked by 'lines' and the header says 'p': re-embedding keeps chunks, so index the documents "
            "again to change them"
        )
        assert said(lambda: index.reembed(replace(HEADER, fingerprint="f"), lambda texts: unit(2, 0)), ConfigError) == (
            "the embedder gave vectors of shape (2, 24) for 1 texts: expected (1, 24)"
        )
    terms = open_index(":memory:", TERMS_ONLY)
    assert said(lambda: terms.search_vectors(np.ones(3, np.float32), 1, {}), ConfigError) == (
        ":memory: has terms alone: search by terms, or index with an embedder"
    )
    assert said(lambda: memory.build_ann(), ConfigError) == (
        ":memory: has no vectors in a file: an approximate side file needs both"
    )
    assert memory.needs_ann() is False and memory.ann_report() is None


def test_sqlites_errors_become_sentences_by_their_kind(tmp_path: Path) -> None:
    index = open_index(tmp_path / "a.index", HEADER)
    path, explain = tmp_path / "a.index", index._file._explained

    def error(name: str, text: str = "as SQLite says", kind: type[sqlite3.Error] = sqlite3.OperationalError) -> str:
        made = kind(text)
        if name:
            made.sqlite_errorname = name
        return str(explain(made))

    assert error("SQLITE_FULL") == (
        f"the disk of {tmp_path} is full (as SQLite says). The documents stored before are kept: make room, then index "
        "again, which goes on where it ended"
    )
    for name in ("SQLITE_READONLY_DBMOVED", "SQLITE_CANTOPEN", "SQLITE_PERM"):
        assert error(name) == (
            f"{path} cannot be written (as SQLite says): make its folder writable, or use another path"
        )
    for name in ("SQLITE_BUSY_SNAPSHOT", "SQLITE_LOCKED"):
        assert error(name) == (
            f"{path} is in use by another process and stayed so for 10 s: wait for it or end it, then try again"
        )
    assert error("SQLITE_NOTADB") == (
        f"{path} is no index, or its beginning is damaged: give another path, or remove it"
    )
    assert (
        error("SQLITE_IOERR_READ")
        == f"{path} cannot be read or written (as SQLite says): check the disk, then try again"
    )
    if Path("/proc").is_dir():  # a disk without room
        index._file.path = Path("/proc/a.index")
        for name in ("SQLITE_IOERR_WRITE", "SQLITE_FULL"):
            assert error(name).startswith(
                "the disk of /proc is full (as SQLite says). The documents stored before are kept"
            )
        assert error("SQLITE_CANTOPEN").startswith(f"{path} cannot be written (")
        index._file.path = path
    assert error("SQLITE_ERROR", "no such module: fts5").endswith("was built without FTS5: use another")
    assert error("", "closed", sqlite3.ProgrammingError) == f"{path} cannot be used (closed): open it again"
    assert error("SQLITE_CORRUPT") == (
        f"{path} is damaged: as SQLite says. Restore it from a copy, or delete it and index the documents again"
    )
    assert str(index._file._busy("process 7")) == (
        f"{path} is being written by process 7: wait for it or end it, then try again"
    )
    index.close()


@pytest.mark.parametrize(
    ("change", "sound"),
    [
        ("UPDATE header SET embedder = '{long}'", True),
        ("UPDATE header SET embedder = '{long}x'", False),
        ("UPDATE header SET query_prefix = x'00'", False),
        ("UPDATE header SET active = 2", False),
        ("UPDATE header SET active = 1", True),
        ("UPDATE header SET dimension = -1", False),
        ("UPDATE header SET dimension = 65536", True),
        ("UPDATE header SET dimension = 65537", False),
        ("UPDATE header SET revision = 'x'", False),
        ("UPDATE header SET removals = 1.5", False),
    ],
)
def test_a_header_with_a_value_that_no_index_has_is_damage(tmp_path: Path, change: str, sound: bool) -> None:
    path = tmp_path / "a.index"
    open_index(path, HEADER).close()
    base = sqlite3.connect(path)
    base.execute(change.replace("{long}", "x" * MAX_SETTING_CHARS))
    base.commit()
    base.close()
    if sound:
        open_index(path).close()
    else:
        with pytest.raises(StoreError, match=r"^the index is damaged: its header has a value that no index has"):
            open_index(path)
