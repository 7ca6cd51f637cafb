"""The table of a database task in MariaDB: a server of our own for the run, a database and a user for each attempt.

The server listens on a Unix socket in a temporary folder, nowhere else. An attempt's user may use its own database alone: no
files, no other tables, no settings of the server. A statement ends after `QUERY_S`; a server that died is started again for
the next attempt.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import secrets
import shutil
import subprocess
import tempfile
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from firsthand.errors import MissingExtra, SandboxError, reason_of
from firsthand.worlds.database.table_items import TableItem

QUERY_S = 5.0
START_S = 30.0
_SERVER, _INSTALL = "mariadbd", "mariadb-install-db"


class MariadbServer:
    """A MariaDB server of Debian's `mariadb-server-core`, started when it is first used and stopped with the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._failed: str | None = None

    def ready(self) -> None:
        """SandboxError or MissingExtra if the server or its driver is not installed."""
        if _program(_SERVER) is None or _program(_INSTALL) is None:
            raise SandboxError(
                "the engine mariadb needs MariaDB's server: apt install mariadb-server, or use engine=sqlite"
            )
        if find_spec("pymysql") is None:
            raise MissingExtra("pymysql", "mysql", "the engine mariadb")

    @property
    def socket(self) -> str:
        """The path of the server's socket; starts the server if it does not run."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
            assert self._folder is not None
            return str(Path(self._folder.name) / "socket")

    @property
    def pid(self) -> int | None:
        """The server's process, if it was started."""
        return None if self._process is None else self._process.pid

    def stop(self) -> None:
        """Stop the server and delete its files."""
        with self._lock:
            self._stop()

    def _start(self) -> None:
        self._stop()
        if self._failed is not None:  # it will not start for the next attempt either
            raise SandboxError(self._failed)
        self.ready()
        self._folder = tempfile.TemporaryDirectory(prefix="firsthand-mariadb-", ignore_cleanup_errors=True)
        atexit.register(self.stop)
        data, socket = Path(self._folder.name) / "data", Path(self._folder.name) / "socket"
        empty, log = Path(self._folder.name) / "empty", Path(self._folder.name) / "log"
        empty.mkdir()
        as_root = ["--user=root"] if os.geteuid() == 0 else []
        done = subprocess.run(
            [_found(_INSTALL), "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal",
             "--skip-test-db", *as_root],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START_S,
        )  # fmt: skip
        if done.returncode:
            raise SandboxError(f"MariaDB's data folder cannot be made: {(done.stderr or done.stdout)[-300:].strip()}")
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [_found(_SERVER), "--no-defaults", f"--datadir={data}", f"--socket={socket}", "--skip-networking", *as_root,
                 f"--secure-file-priv={empty}", "--local-infile=0", "--innodb-buffer-pool-size=32M", "--skip-log-bin",
                 f"--max-statement-time={QUERY_S:g}", "--sql-mode=", "--max-user-connections=4", f"--pid-file={data}/pid"],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        ends_s = time.monotonic() + START_S
        while not socket.exists():
            if self._process.poll() is not None or time.monotonic() > ends_s:
                said = log.read_text(errors="replace").strip()[-200:]
                self._stop()
                self._failed = f"{_SERVER} did not start within {START_S:g} s: {said or 'it said nothing'}"
                raise SandboxError(self._failed)
            time.sleep(0.02)

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


class MariadbEngine:
    """A database of one attempt, made and dropped by the server's root; the agent's statements run as its own user."""

    def __init__(self, item: TableItem, server: MariadbServer):
        self.item, self.server = item, server
        self.name = f"w_{secrets.token_hex(8)}"
        self._password = secrets.token_hex(16)
        self._agent: Any = None

    def ready(self) -> None:
        """SandboxError or MissingExtra if the server or its driver is not installed."""
        self.server.ready()

    async def open(self) -> None:
        """Make the database, its user and the table."""
        await asyncio.to_thread(self._open)

    async def execute(self, statement: str) -> str:
        """The reply in the form of MySQL's Python driver."""
        return await asyncio.to_thread(self._execute, statement)

    async def cells(self) -> list[list[str | None]] | None:
        """All rows of the item's table."""
        return await asyncio.to_thread(self._cells)

    async def close(self) -> None:
        """Drop the database and its user."""
        await asyncio.to_thread(self._close)

    def _open(self) -> None:
        item = self.item
        columns = ", ".join(f"{_quoted(name)} TEXT" for name in item.columns)
        places = ", ".join(["%s"] * len(item.columns))
        with self._root() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {self.name} CHARACTER SET utf8mb4 COLLATE utf8mb4_uca1400_ai_ci")
            cursor.execute(f"CREATE USER {self.name}@localhost IDENTIFIED BY '{self._password}'")
            cursor.execute(f"GRANT ALL ON {self.name}.* TO {self.name}@localhost")
            cursor.execute(f"CREATE TABLE {self.name}.{_quoted(item.table)} ({columns})".replace("%", "%%"), ())
            insert = f"INSERT INTO {self.name}.{_quoted(item.table)} VALUES ({places})"
            for row in item.rows:
                cursor.execute(insert.replace("%", "%%").replace("%%s", "%s"), row)
            connection.commit()

    def _execute(self, statement: str) -> str:
        import pymysql

        try:
            if self._agent is None:
                self._agent = self._connect(self.name, self._password, database=self.name)
            with self._agent.cursor() as cursor:
                cursor.execute(statement)
                reply = str(list(cursor.fetchmany(1000))) if cursor.description else "[]"
            self._agent.commit()
        except (pymysql.Error, ValueError, OSError) as error:
            if not isinstance(error, pymysql.ProgrammingError | pymysql.DataError | pymysql.IntegrityError):
                self._hang_up()
            return f"{reason_of(error)}"
        return reply

    def _cells(self) -> list[list[str | None]] | None:
        import pymysql

        names = ", ".join(map(_quoted, self.item.columns))
        try:
            with self._root() as connection, connection.cursor() as cursor:
                cursor.execute(f"SELECT {names} FROM {self.name}.{_quoted(self.item.table)}")
                return [[None if cell is None else str(cell) for cell in row] for row in cursor.fetchall()]
        except (pymysql.Error, OSError):
            return None

    def _close(self) -> None:
        import pymysql

        self._hang_up()
        try:
            with self._root() as connection, connection.cursor() as cursor:
                cursor.execute(f"DROP DATABASE IF EXISTS {self.name}")
                cursor.execute(f"DROP USER IF EXISTS {self.name}@localhost")
        except (pymysql.Error, OSError, SandboxError):  # the server died: its folder goes with it
            return

    def _hang_up(self) -> None:
        if self._agent is not None:
            self._agent.close() if self._agent.open else None
            self._agent = None

    def _root(self) -> Any:
        return self._connect("root", "")

    def _connect(self, user: str, password: str, **more: Any) -> Any:
        import pymysql

        return pymysql.connect(
            unix_socket=self.server.socket, user=user, password=password, charset="utf8mb4", connect_timeout=10,
            read_timeout=QUERY_S + 5, write_timeout=QUERY_S + 5, local_infile=False, **more,
        )  # fmt: skip


def _program(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/bin"]))


def _found(name: str) -> str:
    found = _program(name)
    assert found is not None
    return found


def _quoted(name: str) -> str:
    name = name.strip() or "(no name)"  # MySQL has no empty names
    return "`" + name.replace("`", "``") + "`"
