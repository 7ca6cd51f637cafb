"""What an agent's statements reach in a real MariaDB: their own tables, for so long and with so much, and nothing else."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import FirsthandError
from firsthand.worlds.database import mariadb_engine
from firsthand.worlds.database.database_world import DatabaseWorld
from firsthand.worlds.database.mariadb_engine import MariadbEngine, MariadbServer
from firsthand.worlds.database.table_items import TableItem, table_md5

RIGHT = [["1", "ann"], ["2", "bob"], ["3", "eve"]]
INSERT = "INSERT INTO t VALUES ('3', 'eve')"
ITEM = TableItem("INSERT", "t", ("id", "name"), (("1", "ann"), ("2", "bob")), (INSERT,), table_md5(RIGHT))


def _mariadb_is_here() -> bool:
    try:
        MariadbServer().ready()
    except FirsthandError:
        return False
    return True


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not _mariadb_is_here(), reason="MariaDB and pymysql are not installed"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[MariadbServer]:
    made = MariadbServer()
    yield made
    made.stop()


def attempt(server: MariadbServer, steps: Callable[[MariadbEngine], Awaitable[Any]]) -> Any:
    """What the steps give, with an engine whose table is made before and dropped after them."""

    async def with_engine() -> Any:
        engine = MariadbEngine(ITEM, server)
        await engine.open()
        try:
            return await steps(engine)
        finally:
            await engine.close()

    return asyncio.run(with_engine())


def test_the_ordinary_statements_of_a_task_run(server):
    async def steps(engine: MariadbEngine) -> None:
        for statement, reply in (
            (INSERT, "[]"),
            ("SELECT COUNT(*), '50%' FROM t", "[(3, '50%')]"),
            ("CREATE VIEW v AS SELECT name FROM t WHERE id > 1", "[]"),
            ("SELECT * FROM v ORDER BY name", "[('bob',), ('eve',)]"),
            ("CREATE TEMPORARY TABLE later AS SELECT * FROM t", "[]"),
            ("SELECT COUNT(*) FROM later", "[(3,)]"),
            ("CREATE INDEX i ON t (name(10))", "[]"),
            ("ALTER TABLE t ADD COLUMN more TEXT", "[]"),
            ("LOCK TABLES t WRITE", "[]"),
            ("UNLOCK TABLES", "[]"),
            ("DELETE FROM t WHERE id = 4", "[]"),
        ):
            assert await engine.execute(statement) == reply, statement
        cells = await engine.cells()
        assert cells is not None and sorted(cells) == RIGHT

    attempt(server, steps)


def test_what_an_agent_put_in_the_tables_place_is_neither_run_nor_judged(server):
    async def steps(engine: MariadbEngine) -> None:
        for statement in (
            "CREATE FUNCTION f() RETURNS TEXT RETURN 'x'",
            "CREATE PROCEDURE p() SELECT 1",
            "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET @a = 1",
            "CREATE EVENT e ON SCHEDULE EVERY 1 SECOND DO SELECT 1",
            "SET GLOBAL general_log = 1",
            f"CREATE DATABASE {engine.name[:3]}x{engine.name[4:]}",
        ):
            assert "denied" in await engine.execute(statement), statement
        assert await engine.execute("RENAME TABLE t TO t0") == "[]"
        assert await engine.cells() is None
        assert (
            await engine.execute("CREATE SQL SECURITY INVOKER VIEW t AS SELECT id, CURRENT_USER() AS name FROM t0")
            == "[]"
        )
        assert await engine.cells() is None, "a view is no table, whatever it gives"
        assert await engine.execute("CREATE TABLE `T` AS SELECT * FROM t0") == "[]"
        assert await engine.cells() is None
        assert await engine.execute("DROP VIEW t") == "[]"

    attempt(server, steps)


def test_the_table_is_read_as_the_attempts_user(server, monkeypatch):
    async def steps(engine: MariadbEngine) -> None:
        monkeypatch.setattr(mariadb_engine, "_TABLE_TYPE", "SELECT 'BASE TABLE' WHERE %s IS NOT NULL")
        await engine.execute("RENAME TABLE t TO t0")
        await engine.execute("CREATE SQL SECURITY INVOKER VIEW t AS SELECT 1 AS id, CURRENT_USER() AS name")
        assert await engine.cells() == [["1", f"{engine.name}@localhost"]]

    attempt(server, steps)


def test_one_attempt_changes_nothing_for_the_next(server):
    async def honest() -> tuple[bool, bool]:
        world = DatabaseWorld(ITEM, MariadbEngine(ITEM, server), MariadbEngine(ITEM, server))
        await world.open()
        await world.execute_sql(INSERT.replace("'", '"'))
        result = await world.result()
        await world.close()
        return result["md5"] == ITEM.md5, result["exact"]

    async def steps(engine: MariadbEngine) -> None:
        for statement in (
            "SET GLOBAL sql_mode = 'ANSI_QUOTES'",
            "SET sql_mode = 'ANSI_QUOTES'",
            "SET max_statement_time = 0",
            "BEGIN NOT ATOMIC SET GLOBAL sql_mode = 'ANSI_QUOTES'; END",
            "LOCK TABLES t WRITE",
        ):
            await engine.execute(statement)
        assert await honest() == (True, True)

    attempt(server, steps)
    assert asyncio.run(honest()) == (True, True)


def test_a_reply_of_any_size_and_a_session_without_a_limit_end_and_the_next_statement_runs(server):
    async def steps(engine: MariadbEngine) -> None:
        began = time.monotonic()
        large = "SET STATEMENT max_statement_time=0 FOR SELECT REPEAT('a', 1000000) FROM seq_1_to_100000"
        assert await engine.execute(large) == "the reply has more than 4,194,304 bytes: ask for less"
        assert time.monotonic() - began < 5
        wide = ", ".join(["REPEAT('a', 15000000)"] * 30)
        assert (await engine.execute(f"SELECT {wide}"))[:5] in ("the r", "there"), "one row of 450 MB"
        await engine.execute("SET max_statement_time=0")
        began = time.monotonic()
        assert await engine.execute("SELECT SLEEP(60)") == "there was no whole reply within 6 s: ask for less"
        assert time.monotonic() - began < 8
        assert await engine.execute("SELECT COUNT(*) FROM t") == "[(2,)]"
        running, ends_s = "SELECT COUNT(*) FROM information_schema.processlist", time.monotonic() + 20
        while await engine.execute(running) != "[(1,)]":
            assert time.monotonic() < ends_s, "what was given up is ended in the server too"
            await asyncio.sleep(0.1)
        assert len((await engine.execute("SELECT seq FROM seq_1_to_200000")).split("), (")) == 1000
        await engine.execute("INSERT INTO t SELECT seq, 'x' FROM seq_1_to_3000")
        assert await engine.cells() is None

    attempt(server, steps)


def test_the_memory_of_a_session_has_a_bound_that_the_session_cannot_lift(server):
    async def steps(engine: MariadbEngine) -> None:
        for name, bound in (("max_session_mem_used", 256 * 2**20), ("max_heap_table_size", 16 * 2**20)):
            await engine.execute(f"SET {name} = 100000000000")
            assert await engine.execute(f"SELECT @@{name}") == f"[({bound},)]"

    attempt(server, steps)


def test_the_servers_files_lie_in_its_folder_alone_which_a_user_of_its_own_owns(server):
    async def steps(engine: MariadbEngine) -> None:
        own = Path(server.socket).parent
        if os.geteuid() == 0 and own.stat().st_uid == 0:
            pytest.skip("root cannot become somebody else here")
        assert (own.stat().st_uid == os.geteuid()) is (os.geteuid() != 0)
        assert (own / "socket").stat().st_uid == (own / "data" / "ibdata1").stat().st_uid == own.stat().st_uid
        for engine_of_table in ("InnoDB", "MyISAM"):
            await engine.execute(
                f"CREATE TABLE {engine_of_table} (a INT) ENGINE={engine_of_table} DATA DIRECTORY='/var/tmp'"
            )
        assert not list(Path("/var/tmp").glob(f"{engine.name}*")) and not list(Path("/var/tmp").glob("MyISAM*"))
        assert sorted(each.name for each in own.iterdir()) == ["data", "socket"]

    attempt(server, steps)


def test_a_database_that_grows_without_end_is_dropped_and_its_files_are_gone(server, monkeypatch):
    monkeypatch.setattr(mariadb_engine, "MAX_DATABASE_BYTES", 20 * 2**20)

    async def steps(engine: MariadbEngine) -> None:
        own = Path(server.socket).parent
        told = await engine.execute("CREATE TABLE big AS SELECT seq, REPEAT('x', 60000) AS x FROM seq_1_to_500")
        assert told == mariadb_engine._FULL
        assert await engine.execute("SELECT 1") == mariadb_engine._FULL
        assert not (own / "data" / engine.name).exists()
        assert await engine.cells() is None

    attempt(server, steps)


def test_a_table_is_judged_whatever_the_agents_session_holds(server: MariadbServer) -> None:
    """A lock of the agent held up the reading until it counted as a table that is gone; so did a password of its own."""

    async def steps(engine: MariadbEngine) -> Any:
        first = await engine.cells()
        for held in (f"LOCK TABLES `{ITEM.table}` WRITE", "SET PASSWORD = PASSWORD('x')"):
            assert await engine.execute(held) == "[]"
            began_s = time.monotonic()
            assert await engine.cells() == first is not None, held
            assert time.monotonic() - began_s < 4
        assert await engine.execute("SELECT 1") == "[(1,)]", "a session goes on after it"
        return True

    assert attempt(server, steps)
