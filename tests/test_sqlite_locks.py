"""Reading a file never drops the locks that a SQLite connection of this process has on it."""

from __future__ import annotations

import ast
import asyncio
import fcntl
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import firsthand
from firsthand.errors import DataError, StoreError
from firsthand.experiment.rag_decision import FactChange, FactQuestion, changed_index
from firsthand.memories.keeping.cut_file import padded_copy, refuse_cut_short
from firsthand.memories.keeping.item_file import ItemFile
from firsthand.memory import MemoryItem
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.document import Document
from firsthand.retrieval.documents.folder_files import read_bytes
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.retrieval.tools.search import _is_index
from firsthand.system.bounded_sqlite import connect_bounded
from firsthand.system.new_file import copy_new
from firsthand.system.ordinary_file import open_ordinary, read_bounded, read_head, read_ordinary
from firsthand.system.own_file import read_own
from firsthand.system.sqlite_locks import _descriptors, opening
from firsthand.tools.files import files
from firsthand.tools.sql import SqlFile

LOCKED = 3
OTHER = f"""import fcntl, sys
for path in sys.argv[1:]:
    with open(path, "rb+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit({LOCKED})
"""


def is_locked(path: Path) -> bool:
    """True if another process finds the file locked."""
    return subprocess.run([sys.executable, "-I", "-S", "-c", OTHER, path], timeout=60).returncode == LOCKED


def descriptors(path: Path) -> int:
    """The descriptors that this process has of a file."""
    return sum(each.exists() and each.samefile(path) for each in Path("/dev/fd").iterdir())


def told(read: Callable[[], object]) -> str:
    try:
        return str(read())
    except (OSError, DataError, StoreError) as error:
        return str(error)


@pytest.fixture
def in_transaction(tmp_path: Path) -> Iterator[tuple[Path, sqlite3.Connection]]:
    """A database of two pages, of a program of its own, with a transaction open."""
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.commit()
        connection.execute("INSERT INTO t VALUES ('milk')")
        yield path, connection


def test_nothing_that_reads_a_database_drops_the_locks_of_a_transaction(in_transaction: Any, tmp_path: Path) -> None:
    path, connection = in_transaction
    in_use = "it is a SQLite database that is open in this process"
    for read in (
        lambda: read_ordinary(path), lambda: read_bounded(path), lambda: read_own(path, 1 << 20),
        lambda: read_bytes(path, 1 << 20), lambda: copy_new(path, tmp_path / "b.db"),
    ):  # fmt: skip
        assert in_use in told(read)
        assert in_use in told(read)
        assert is_locked(path)
    assert read_head(path, 16) == b"SQLite format 3\0" and read_head(path, 100)[16:18] == b"\x10\0"
    assert _is_index(path) and SqlFile(path).path == path
    refuse_cut_short(path)
    assert padded_copy(path, tmp_path.parent).read_bytes() == read_head(path, 1 << 20)
    assert is_locked(path)
    connection.commit()
    assert connection.execute("SELECT x FROM t").fetchall() == [("milk",)]


def told_by(tool: Any, arguments: dict[str, str]) -> str:
    try:
        return str(asyncio.run(tool(arguments)))
    except Exception as error:
        return str(error)


def test_two_owners_of_a_memory_and_a_search_beside_it_leave_the_log_to_the_process(tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    (tmp_path / "todo.txt").write_text("buy milk\n")
    ann = ItemFile(path)
    assert ann.put("ann", "semantic", MemoryItem("1", "milk"), None, None)
    shm = path.with_name("facts.db-shm")
    assert is_locked(path) and is_locked(shm)
    bob = ItemFile(path)
    assert is_locked(path) and is_locked(shm)
    tools = {each.name: each for each in files(str(tmp_path))}
    for _ in range(2):
        assert told_by(tools["find_files"], {"text": "milk"}) == "todo.txt:1: buy milk"
        for name in ("facts.db", "facts.db-shm"):
            assert "is open in this process" in told_by(tools["read_file"], {"path": name})
    assert is_locked(path) and is_locked(shm)
    look = (
        "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM items').fetchone()[0])"
    )
    for owner, file, count in (("bob", bob, "2"), ("ann", ann, "3")):
        assert file.put(owner, "semantic", MemoryItem(f"{owner} 2", "milk"), None, None)
        seen = subprocess.run([sys.executable, "-c", look, path], timeout=60, capture_output=True, text=True)
        assert seen.stdout.strip() == count
        assert path.with_name("facts.db-wal").exists(), "the other process took itself for the last one"
    ann.close()
    bob.close()


def test_a_database_opened_while_it_is_read_keeps_its_locks_and_the_descriptor_goes_with_the_connection(
    tmp_path: Path,
) -> None:
    for name, content in (("empty.db", b""), ("made.db", None)):
        path = tmp_path / name
        if content is None:
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("CREATE TABLE t (x)")
        else:
            path.write_bytes(content)
        file = open_ordinary(path)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            file.close()
            assert is_locked(path)
            for _ in range(2):
                if content is None:
                    with pytest.raises(OSError, match="open in this process"):
                        open_ordinary(path)
                else:  # SQLite has written nothing yet
                    assert read_ordinary(path) == b""
            assert is_locked(path) and descriptors(path) == 2, "one is kept, and one is SQLite's"
        assert read_ordinary(path) == path.read_bytes() and descriptors(path) == 0


def test_a_database_that_no_connection_has_open_is_read_as_any_file_and_by_several(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
    with open_ordinary(path) as one, open_ordinary(path) as two:
        assert one.read() == two.read() == path.read_bytes()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:  # with a number that was a reader's
        connection.execute("BEGIN IMMEDIATE")
        assert "open in this process" in told(lambda: read_ordinary(path)) and is_locked(path)
    assert read_ordinary(path) == path.read_bytes()
    log = tmp_path / "log"
    with log.open("ab") as written:
        for content in (b"", b"a\n"):
            written.write(content)
            written.flush()
            assert [read_ordinary(log) for _ in range(2)] == [content] * 2
            assert descriptors(log) == 1, "SQLite never opens a file for writing alone"
    with log.open("rb+") as written:
        assert [read_ordinary(log) for _ in range(2)] == [b"a\n"] * 2
    assert descriptors(path) == descriptors(log) == 0


def test_files_that_may_become_databases_are_read_again_and_again_with_one_descriptor_kept(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for content in (b"", bytes(64)):  # as a NamedTemporaryFile that is written later, or a memory map
        path.write_bytes(content)
        with path.open("rb+") as elsewhere:
            for _ in range(50):
                assert read_ordinary(path) == content
            assert descriptors(path) == 2
            with open_ordinary(path) as one, open_ordinary(path) as two:
                assert one.read() == two.read() == content
            elsewhere.write(b"new")
        assert read_ordinary(path) == b"new" + content[3:]
        (tmp_path / "b").touch()
        assert read_ordinary(tmp_path / "b") == b"" and descriptors(path) == 0


@pytest.mark.parametrize("listed", [[], ["1", "2", "0"], None])
def test_descriptors_that_no_folder_lists_are_looked_at_by_number(
    in_transaction: Any, monkeypatch: pytest.MonkeyPatch, listed: list[str] | None
) -> None:
    path, _ = in_transaction

    def missing(folder: object) -> list[str]:
        if listed is None:
            raise OSError
        return listed

    monkeypatch.setattr(os, "listdir", missing)
    with path.open("rb") as file:  # beyond 1,024
        high = fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, 1_100)
        assert high in _descriptors() and -1 not in _descriptors()
        os.close(high)
    with pytest.raises(OSError, match="open in this process"):
        read_ordinary(path)
    assert read_head(path, 16) == b"SQLite format 3\0"


def test_readers_of_one_database_in_several_threads_do_not_refuse_it_to_each_other(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: len(read_ordinary(path)), range(1_000))) == {path.stat().st_size}
    finally:
        sys.setswitchinterval(interval)
    assert descriptors(path) == 0


def test_no_connection_opens_its_file_between_a_look_and_a_close_and_a_fork_waits_for_it(tmp_path: Path) -> None:
    made: list[sqlite3.Connection] = []
    connecting = threading.Thread(
        target=lambda: made.append(connect_bounded(tmp_path / "a.db", "rwc", check_same_thread=False))
    )
    with opening:
        connecting.start()
        connecting.join(0.05)
        assert not made
    connecting.join()
    made[0].close()
    held = threading.Event()

    def hold() -> None:
        with opening:
            held.set()
            time.sleep(0.05)

    holding = threading.Thread(target=hold)
    holding.start()
    held.wait()
    child = os.fork()
    if not child:
        os._exit(0 if opening.acquire(timeout=1) else 1)
    holding.join()
    assert os.waitpid(child, 0)[1] == 0


def test_a_changed_copy_of_an_index_is_made_beside_those_who_have_it_open(tmp_path: Path) -> None:
    index, target = tmp_path / "a.sqlite", tmp_path / "b.sqlite"
    opened = open_index(index, IndexHeader("", "", 0, "sentences"))
    document = Document("d", "It is Oslo.")

    def chunks(document: Document) -> list[Chunk]:
        return [Chunk(document.id, 0, len(document.text), document.text)]

    opened.put([IndexedDocument(document, chunks(document), None)])
    change = FactChange(FactQuestion("q", "Where?", "Oslo"), "d", "Bern")
    asyncio.run(changed_index(index, target, [change], None, chunks))
    assert is_locked(index)
    copy = open_index(target)
    assert (opened.document("d").text, copy.document("d").text) == ("It is Oslo.", "It is Bern.")
    copy.close()
    opened.close()


OPENS = {
    "hub/download.py", "ingest/cold_segments.py", "system/open_approvals.py", "train/checkpoints.py",  # folders
    "worlds/browsing/devtools.py",  # a folder
    "sandbox/bubblewrap.py",  # memory
    "system/sqlite_journal.py",  # a journal, which SQLite does not lock
    "system/sqlite_locks.py",
}  # fmt: skip
"""Call os.open to read."""
COPIES = {"memories/keeping/cut_file.py"}  # a log, which SQLite does not lock
WRITES = ("O_WRONLY", "O_RDWR", "O_DIRECTORY", "O_PATH", "flags", "_FOLDER", "_NEW", "devnull")


def test_descriptors_to_read_with_and_copies_are_made_where_locks_are_minded() -> None:
    root = Path(firsthand.__file__).parent
    opens, copies = set(), set()
    for path in root.rglob("*.py"):
        name, program = path.relative_to(root).as_posix(), path.read_text("utf-8")
        if "/programs/" in name or not ("os.open" in program or "shutil.copy" in program):  # processes of their own
            continue
        calls = [ast.unparse(each) for each in ast.walk(ast.parse(program)) if isinstance(each, ast.Call)]
        opens |= {name for call in calls if call.startswith("os.open(") and not any(word in call for word in WRITES)}
        copies |= {name for call in calls if call.startswith("shutil.copy") and "copyfileobj" not in call}
    assert opens == OPENS - {"system/sqlite_locks.py"}, "read by firsthand.system.ordinary_file or open_beside_sqlite"
    assert copies == COPIES, "copy by firsthand.system.new_file"
