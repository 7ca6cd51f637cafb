"""An index through kills, full disks, second writers, other embedders, damage and hostile files."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError, FirsthandError, StoreError
from firsthand.retrieval.store.sqlite_index import open_index
from index_tiny import HEADER, lines, unit
from index_writer import version
from thorough import repetitions

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
WRITER = [sys.executable, str(Path(__file__).with_name("index_writer.py"))]


def documents(count: int, **options: Any) -> list[Any]:
    return [lines(f"d{n}", [f"fox {n}\n", f"hen {n}\n"], seed=n, meta={"n": n}, **options) for n in range(count)]


def test_the_folder_of_an_index_is_made_and_a_file_in_its_place_is_a_sentence(tmp_path: Path) -> None:
    with open_index(tmp_path / "new" / "deep" / "a.index", HEADER) as index:
        assert len(index) == 0
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"the folder of .* cannot be made"):
        open_index(tmp_path / "file" / "a.index", HEADER)
    with pytest.raises(StoreError, match="no index at"):
        open_index(tmp_path / "none" / "a.index")
    assert not (tmp_path / "none").exists()


# -- kills --


def killed_after(path: Path, seed: int, wait_s: float) -> list[str]:
    """What a writer had said when it was killed, that long after it began to write."""
    writer = subprocess.Popen([*WRITER, str(path), str(seed)], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    timer = threading.Timer(wait_s, writer.kill)
    timer.start()
    said = writer.stdout.read().splitlines()
    timer.join()
    writer.wait()
    return said


def kill_often(path: Path, kills: int) -> int:
    """Kill a writer at random moments; what it acknowledged must be there each time. Returns how much that was."""
    rng, held, acknowledged = random.Random(7), dict[int, str](), 0
    for seed in range(kills):
        said = killed_after(path, seed, rng.uniform(0.0, 0.4))
        begun: tuple[int, str] | None = None
        for line in said:
            word, number, state = (line + " . .").split()[:3]
            if not number.isdigit() or not (state == "gone" or state.isdigit()):
                continue  # the last line may be cut short
            begun = (int(number), state) if word == "begin" else None
            if word in ("put", "delete"):
                held[int(number)] = state
                acknowledged += 1
        with open_index(path) as index:
            hashes = index.hashes()
            assert index.verify() == []
            for number in range(40):
                possible = {held.get(number, "gone")} | ({begun[1]} if begun and begun[0] == number else set())
                versions = {
                    None if state == "gone" else version(number, int(state)).document.sha256 for state in possible
                }
                assert hashes.get(f"d{number}") in versions, f"d{number} after {seed + 1} kills"
            for number in {number for number, state in held.items()} | ({begun[0]} if begun else set()):
                there = f"d{number}" in hashes
                held[number] = str(index.document(f"d{number}").meta["version"]) if there else "gone"
    return acknowledged


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_when_the_writer_is_killed(tmp_path: Path) -> None:
    assert kill_often(tmp_path / "x.index", 2) > 0


@pytest.mark.slow
def test_kills_at_any_moment_lose_nothing(tmp_path: Path) -> None:
    assert kill_often(tmp_path / "x.index", repetitions(30, 12)) > repetitions(100, 40)


# -- full disks and other writers --


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.getuid() != 0 or not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system can only be mounted by root")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_keeps_what_was_stored_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    with small_disk(folder, "2m"):
        ballast = folder / "ballast"
        ballast.write_bytes(b"x" * 900_000)
        with open_index(folder / "x.index", HEADER) as index:
            stored = []
            with pytest.raises(StoreError, match=r"is full .* make room, then index again"):
                for each in documents(5000):
                    index.put([each])
                    stored.append(each.document.id)
            assert len(stored) > 3 and set(stored) <= set(index.hashes())
            assert index.search_terms("fox", 3, {}) and index.verify() == []
            ballast.unlink()
            assert index.put([lines("later", ["owl\n"])]).added == ("later",)
            assert index.verify() == []


@pytest.mark.slow
def test_a_second_writer_is_told_who_writes_and_readers_go_on(tmp_path: Path) -> None:
    path = tmp_path / "x.index"
    first, second = open_index(path, HEADER), open_index(path, HEADER)
    first.put(documents(3))
    refused: list[str] = []

    def slowly() -> Iterator[Any]:
        yield lines("during", ["owl\n"])
        with pytest.raises(StoreError) as error:
            second.put(documents(1))
        refused.append(str(error.value))
        with pytest.raises(StoreError):
            second.delete(["d0"])
        assert [hit.chunk.document for hit in second.search_terms("owl", 3, {})] == ["during"]
        yield lines("last", ["goose\n"])

    assert first.put(slowly()).added == ("during", "last")
    assert f"is being written by process {os.getpid()} on" in refused[0] and "wait for it or end it" in refused[0]
    assert second.put([lines("then", ["hen\n"])]).added == ("then",)
    assert [hit.chunk.document for hit in first.search_terms("hen", 9, {"document": "then"})] == ["then"]


def test_a_thread_searches_while_another_waits_for_its_next_document(tmp_path: Path) -> None:
    index = open_index(tmp_path / "x.index", HEADER)
    found: list[int] = []

    def slowly() -> Iterator[Any]:
        yield from documents(2)
        thread = threading.Thread(target=lambda: found.append(len(index.search_terms("fox", 9, {}))), daemon=True)
        thread.start()
        thread.join(20)
        yield lines("last", ["fox\n"])

    assert len(index.put(slowly()).added) == 3 and found == [2]


def test_an_error_in_the_callers_documents_ends_the_claim(tmp_path: Path) -> None:
    index, other = open_index(tmp_path / "x.index", HEADER), open_index(tmp_path / "x.index")

    def broken() -> Iterator[Any]:
        yield from documents(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.put(broken())
    assert [*index.hashes()] == ["d0", "d1"] and other.put([lines("e", ["x\n"])]).added == ("e",)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_a_connection_of_its_own(tmp_path: Path) -> None:
    index = open_index(tmp_path / "x.index", HEADER)
    index.put(documents(3))
    code = (
        "import os, sys\n"
        "from firsthand.retrieval.store.sqlite_index import open_index\n"
        "index = open_index(sys.argv[1])\n"
        "if (child := os.fork()) == 0:\n"
        "    os._exit(0 if index.delete(['d0']) == ('d0',) and len(index) == 4 else 1)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(index.search_terms('fox', 9, {})))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(index.path)], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.stdout == "0 2\n", done.stderr


# -- other embedders --


def test_another_embedder_or_chunker_is_refused_with_the_difference(tmp_path: Path) -> None:
    path = tmp_path / "x.index"
    open_index(path, HEADER).close()
    for change in ({"fingerprint": "other"}, {"dimension": 7}, {"chunker": "pages"}, {"query_prefix": "q: "},
                   {"document_prefix": "d: "}):  # fmt: skip
        [(name, value)] = change.items()
        with pytest.raises(ConfigError) as error:
            open_index(path, replace(HEADER, **change))
        assert f"{name} {getattr(HEADER, name)!r} (now {value!r})" in str(error.value) and "reindex" in str(error.value)
    assert open_index(path, replace(HEADER, embedder="/models/tiny")).header == HEADER


WIDER = replace(HEADER, embedder="wide", fingerprint="fingerprint-of-wide", dimension=40)


def embedding(dimension: int) -> Callable[[Any], Any]:
    """Vectors that depend on the text alone."""
    return lambda texts: np.vstack([unit(1, sum(map(ord, text)), dimension) for text in texts])


def test_reembedding_swaps_all_vectors_at_once(tmp_path: Path) -> None:
    index, reader = open_index(tmp_path / "x.index", HEADER), open_index(tmp_path / "x.index", HEADER)
    index.put(documents(20))
    query = index.vectors([index.chunks("d3")[0].id])[0]
    seen: list[int] = []

    def embed(texts: Any) -> Any:
        assert reader.search_vectors(query, 1, {})[0].chunk.document == "d3", "the old vectors serve until the swap"
        seen.append(len(texts))
        return embedding(40)(texts)

    assert index.reembed(WIDER, embed, batch_size=16) == 40 and seen == [16, 16, 8]
    assert index.header == WIDER and index.verify() == []
    wide = embedding(40)(["fox 3\n"])[0]
    assert index.search_vectors(wide, 1, {})[0].chunk.text == "fox 3\n"
    for ask in (lambda: reader.search_vectors(query, 1, {}), lambda: reader.put(documents(1)),
                lambda: reader.search_terms("fox", 1, {})):  # fmt: skip
        with pytest.raises(StoreError, match="was re-embedded by another process: open it again"):
            ask()
    with pytest.raises(ConfigError, match="fingerprint"):
        open_index(tmp_path / "x.index", HEADER)
    assert index.put([lines("new", ["owl\n"], vectors=unit(1, 5, 40))]).added == ("new",)


def test_a_reembedding_that_was_ended_goes_on(tmp_path: Path) -> None:
    index = open_index(tmp_path / "x.index", HEADER)
    index.put(documents(10))
    calls = 0

    def dies(texts: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return embedding(40)(texts)

    with pytest.raises(KeyboardInterrupt):
        index.reembed(WIDER, dies, batch_size=4)
    assert index.header == HEADER and index.verify() == [] and index.search_vectors(unit(1, 0)[0], 3, {})
    index.delete(["d0"])
    index.put([lines("new", ["owl\n"], seed=3)])
    assert index.reembed(WIDER, embedding(40), batch_size=4) == 13  # of 20, 8 were done, 2 deleted, 1 added
    assert index.verify() == [] and len(index) == 19
    assert index.reembed(replace(WIDER, fingerprint="third"), embedding(40)) == 19


def test_reembedding_refuses_what_is_no_vector_and_another_chunker(tmp_path: Path) -> None:
    index = open_index(tmp_path / "x.index", HEADER)
    index.put(documents(2))
    for embed in (lambda texts: embedding(40)(texts)[:1], lambda texts: 2 * embedding(40)(texts),
                  lambda texts: 0 * embedding(40)(texts)):  # fmt: skip
        with pytest.raises(ConfigError):
            index.reembed(WIDER, embed)
    with pytest.raises(ConfigError, match="index the documents again"):
        index.reembed(replace(WIDER, chunker="pages"), embedding(40))
    assert index.header == HEADER and index.verify() == []
    terms_alone = replace(HEADER, embedder="", fingerprint="", dimension=0)
    assert index.reembed(terms_alone, embedding(40)) == 0 and index.search_terms("fox", 2, {})
    assert index.reembed(HEADER, embedding(HEADER.dimension)) == 4 and index.verify() == []


# -- damage --

TAMPERED = {
    "text": "UPDATE documents SET text = x'789c4bcc0200012c00c4' WHERE id = 'd1'",
    "span": "UPDATE chunks SET start = 1 WHERE rowid = 2",
    "chunk text": "UPDATE chunks SET text = 'wrong' WHERE rowid = 2",
    "chunk id": "UPDATE chunks SET id = 'abc' WHERE rowid = 2",
    "words": "UPDATE chunks SET words = x'0100000001000000' WHERE rowid = 2",
    "length": "UPDATE chunks SET length = 9 WHERE rowid = 2",
    "hash": "UPDATE chunks SET text_hash = x'00' WHERE rowid = 2",
    "meta": "UPDATE metas SET json = '{\"n\": 77}' WHERE rowid = 2",
    "field": "DELETE FROM fields WHERE value = 1",
    "chunk": "DELETE FROM chunks WHERE rowid = 2",
    "document": "DELETE FROM documents WHERE id = 'd1'",
    "title": "UPDATE documents SET title = 'T' WHERE id = 'd1'",
    "terms": "INSERT INTO terms (terms, rowid, text) VALUES ('delete', 2, 'hen 0')",
    "other terms": "INSERT INTO terms (rowid, text) VALUES (2, 'zebra')",
    "no vector": "DELETE FROM vectors_0 WHERE chunk = 2",
    "short vector": "UPDATE vectors_0 SET vector = x'0000' WHERE chunk = 2",
    "zero vector": "UPDATE vectors_0 SET vector = zeroblob(48) WHERE chunk = 2",
    "long vector": "UPDATE vectors_0 SET vector = (SELECT replace(hex(vector), '', '') FROM vectors_0) WHERE chunk = 2",
    "infinite vector": "UPDATE vectors_0 SET vector = x'" + "007c" * 24 + "' WHERE chunk = 2",
    "vector": "INSERT INTO vectors_1 (chunk, vector) VALUES (999, x'00')",
    "parent": "UPDATE chunks SET parent = 'nobody' WHERE rowid = 2",
    "heading": "UPDATE chunks SET heading = 'H' WHERE rowid = 2",
}


@pytest.mark.slow
@pytest.mark.parametrize("what", TAMPERED)
def test_verify_finds(tmp_path: Path, what: str) -> None:
    index = open_index(tmp_path / "x.index", HEADER)
    index.put(documents(4))
    assert index.verify() == []
    index.close()
    base = sqlite3.connect(tmp_path / "x.index")
    assert base.execute(TAMPERED[what]).rowcount != 0
    base.commit()
    base.close()
    for read_only in (False, True):
        index = open_index(tmp_path / "x.index", read_only=read_only)
        found = index.verify()
        assert found and all(each.endswith(".") for each in found)
        with suppress(FirsthandError):
            index.search_terms("fox hen", 9, {"n": 0})
        with suppress(FirsthandError):
            index.search_vectors(unit(1, 0)[0], 9, {})
        index.close()


@pytest.mark.slow
def test_a_flipped_byte_is_an_answer_or_a_sentence(tmp_path: Path) -> None:
    good = tmp_path / "good.index"
    index = open_index(good, HEADER)
    index.put(documents(12))
    index.close()
    raw, rng = good.read_bytes(), random.Random(1)
    for number in range(30):
        path = tmp_path / f"{number}.index"
        changed = bytearray(raw)
        for _ in range(rng.choice((1, 1, 8))):
            changed[rng.randrange(100 if number < 10 else len(raw))] = rng.randrange(256)
        path.write_bytes(changed[: rng.randrange(len(raw))] if number % 10 == 9 else changed)
        try:
            with open_index(path) as index:
                index.search_terms("fox hen", 50, {"n": {"min": 3}})
                index.search_vectors(unit(1, 0)[0], 50, {})
                index.hashes()
                index.document("d5")
                index.chunks("d5")
                index.verify()
                index.put([lines("new", ["owl\n"])])
                index.delete(["d3"])
        except FirsthandError:
            continue


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("CREATE TRIGGER evil AFTER INSERT ON documents BEGIN DELETE FROM chunks; END", "tables are not those"),
        ("CREATE VIEW evil AS SELECT 1", "tables are not those"),
        ("DROP TABLE words", "tables are not those"),
        ("DROP INDEX chunks_by_meta", "tables are not those"),
        (
            "PRAGMA user_version = 5",
            "has schema version 5, and this firsthand knows 4: open it with the firsthand that",
        ),
        (
            "PRAGMA user_version = 0",
            "has schema version 0, and this firsthand knows 4: open it with the firsthand that",
        ),
        ("PRAGMA application_id = 1", "is a SQLite file and is no index"),
        ("DELETE FROM header", "no header"),
    ],
)
def test_a_foreign_schema_is_refused(tmp_path: Path, script: str, said: str) -> None:
    path = tmp_path / "x.index"
    open_index(path, HEADER).close()
    base = sqlite3.connect(path)
    base.executescript(script)
    base.close()
    with pytest.raises(StoreError, match=said):
        open_index(path)


def test_what_is_no_index_is_refused_and_left_alone(tmp_path: Path) -> None:
    notes, folder, foreign = tmp_path / "notes.txt", tmp_path / "folder", tmp_path / "foreign.sqlite"
    notes.write_text("somebody else's notes " * 100)
    folder.mkdir()
    base = sqlite3.connect(foreign)
    base.execute("CREATE TABLE mine (x)")
    base.commit()
    base.close()
    for path, said in ((notes, "is no index"), (folder, "is a folder"), (foreign, "is no index")):
        for header in (None, HEADER):
            with pytest.raises(StoreError, match=said):
                open_index(path, header)
    assert notes.read_text().startswith("somebody else's notes") and not [*folder.iterdir()]
    assert sqlite3.connect(foreign).execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]
    for options in ({}, {"read_only": True}, {"header": HEADER, "read_only": True}):
        with pytest.raises(StoreError, match="no index at"):
            open_index(tmp_path / "missing", **options)
    assert not (tmp_path / "missing").exists()


def test_a_forged_journal_deletes_nothing(tmp_path: Path) -> None:
    path, victim = tmp_path / "x.index", tmp_path / "victim"
    open_index(path, HEADER).close()
    victim.write_text("precious")
    name = str(victim).encode()
    journal = Path(f"{path}-journal")
    magic = bytes.fromhex("d9d505f920a163d7")
    tail = name + len(name).to_bytes(4, "big") + sum(name).to_bytes(4, "big") + magic
    journal.write_bytes(magic + b"\0" * 504 + tail)
    with pytest.raises(StoreError, match="names a file that SQLite would delete"):
        open_index(path)
    assert victim.read_text() == "precious"


def test_a_reader_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.index"
    with open_index(path, HEADER) as index:
        index.put(documents(2))
    before = path.read_bytes()
    with open_index(path, read_only=True) as reader:
        assert reader.search_terms("fox", 3, {}) and reader.verify() == []
        for write in (lambda: reader.put(documents(1)), lambda: reader.delete(["d0"]),
                      lambda: reader.reembed(WIDER, embedding(40))):  # fmt: skip
            with pytest.raises(StoreError, match="opened to be read"):
                write()
    assert path.read_bytes() == before


def test_a_closed_index_is_a_sentence(tmp_path: Path) -> None:
    index = open_index(tmp_path / "x.index", HEADER)
    index.close()
    for ask in (index.hashes, lambda: index.put(documents(1)), lambda: index.search_terms("fox", 1, {})):
        with pytest.raises(StoreError, match="open it again"):
            ask()


@pytest.mark.slow
def test_another_processs_documents_are_found_by_the_next_search(tmp_path: Path) -> None:
    path = tmp_path / "x.index"
    here, there = open_index(path, HEADER), open_index(path, HEADER)
    here.put(documents(30))
    assert len(there.search_terms("fox", 99, {})) == 30
    for n in range(12):
        here.put([lines(f"new{n}", [f"fox new {n}\n"], seed=n)])
        found = there.search_terms("new", 99, {})
        assert len(found) == n + 1 and len(there.search_vectors(unit(1, 0)[0], 999, {})) == 61 + n
    here.delete([f"d{n}" for n in range(25)])
    assert len(there.search_terms("fox", 99, {})) == 17
    assert len(there.search_vectors(unit(1, 0)[0], 999, {"n": {"min": 0}})) == 10


@pytest.mark.slow
def test_writers_take_turns_without_losing_documents(tmp_path: Path) -> None:
    path = tmp_path / "x.index"
    open_index(path, HEADER).close()
    code = (
        "import sys\n"
        "from firsthand.errors import StoreError\n"
        "from firsthand.retrieval.store.sqlite_index import open_index\n"
        "from index_tiny import lines\n"
        "index, done = open_index(sys.argv[1]), 0\n"
        "while done < 15:\n"
        "    try:\n"
        "        done += len(index.put([lines(f'{sys.argv[2]}{done}', ['fox\\n'])]).added)\n"
        "    except StoreError as error:\n"
        "        assert 'is being written by' in str(error), error\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(path), name], stderr=subprocess.PIPE, env=ENVIRONMENT)
        for name in "ab"
    ]
    for writer in writers:
        assert writer.communicate()[1] == b""
    with open_index(path) as index:
        assert len(index) == 30 and index.verify() == []
