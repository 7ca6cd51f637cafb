"""The table of a database task in MariaDB: a server of our own for the run, a database and a user for each attempt.

The server listens on a Unix socket in a temporary folder, nowhere else, and writes in that folder alone
(`enclosed_command.py`). An attempt's user may use tables and views of its own database: no routines, triggers or events, no
other tables, no settings of the server. The server's root makes the table and drops database and user; it reads nothing that
an agent made. What is judged is read as the attempt's user.
A statement ends after `QUERY_S`, by the server or else by us; a server that died is started again for the next attempt.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from firsthand.errors import MissingExtra, SandboxError, reason_of
from firsthand.worlds.database.bounded_socket import BoundedSocket
from firsthand.worlds.database.enclosed_command import enclosed, give_away, process_options
from firsthand.worlds.database.table_items import TableItem

QUERY_S = 5.0
WAIT_S = QUERY_S + 1
"""The seconds after which a statement is ended by us, whatever limit its session has set."""
MAX_REPLY_BYTES = 4 * 2**20
MAX_TABLE_BYTES = 64 * 2**20
"""The most bytes of a table that is judged."""
MAX_DATABASE_BYTES = 256 * 2**20
"""The most bytes of an attempt's files: a database that has more after a statement is dropped."""
RIGHTS = (
    "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, REFERENCES, CREATE VIEW, SHOW VIEW, "
    "CREATE TEMPORARY TABLES, LOCK TABLES"
)
"""What an attempt's user may do in its database: nothing that others would run."""
_FULL = f"the database took more than {MAX_DATABASE_BYTES >> 20} MiB and was dropped"
_TABLE_TYPE = (
    "SELECT table_type FROM information_schema.tables WHERE table_schema = DATABASE() AND BINARY table_name = %s"
)
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
            return str(Path(self._folder.name) / "own" / "socket")

    @property
    def pid(self) -> int | None:
        """The server's process group, if it was started."""
        return None if self._process is None else self._process.pid

    def size_bytes(self, database: str) -> int:
        """The size of a database's files; 0 if the server does not run. Tables cannot be made elsewhere: links are off."""
        total = 0
        for path in Path(self._folder.name, "own", "data", database).glob("*") if self._folder is not None else ():
            with suppress(OSError):
                total += path.lstat().st_size
        return total

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
        own, empty, log = (Path(self._folder.name) / name for name in ("own", "empty", "log"))
        data, socket = own / "data", own / "socket"
        own.mkdir(mode=0o700)
        empty.mkdir()
        user = give_away(own)
        as_root = ["--user=root"] if os.geteuid() == 0 and user is None else []
        options = process_options(user, own)
        making = [_found(_INSTALL), "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal",
                  "--skip-test-db", "--force", *as_root]  # fmt: skip
        done = subprocess.run(
            enclosed(making, user, own, empty), capture_output=True, text=True, timeout=START_S, **options
        )
        if done.returncode:
            raise SandboxError(f"MariaDB's data folder cannot be made: {(done.stderr or done.stdout)[-300:].strip()}")
        serving = [_found(_SERVER), "--no-defaults", f"--datadir={data}", f"--socket={socket}", "--skip-networking",
                   *as_root, f"--secure-file-priv={empty}", "--local-infile=0", "--innodb-buffer-pool-size=32M",
                   f"--max-statement-time={QUERY_S:g}", "--sql-mode=", "--max-user-connections=4", f"--pid-file={data}/pid",
                   "--skip-log-bin", "--skip-symbolic-links", "--max-session-mem-used=256M",
                   "--maximum-max-session-mem-used=256M", "--maximum-max-heap-table-size=16M",
                   "--innodb-temp-data-file-path=ibtmp1:12M:autoextend:max:256M",
                   "--loose-max-tmp-total-space-usage=512M"]  # fmt: skip
        with log.open("wb") as out:
            self._process = subprocess.Popen(enclosed(serving, user, own, empty), stdout=out, stderr=out, **options)
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
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)  # bubblewrap stands between
            self._process.wait()
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


class MariadbEngine:
    """A database of one attempt, made and dropped by the server's root; all else runs as the attempt's own user."""

    def __init__(self, item: TableItem, server: MariadbServer):
        self.item, self.server = item, server
        self.name = f"w{secrets.token_hex(8)}"  # without _, which stands for any letter in a GRANT
        self._password = secrets.token_hex(16)
        self._agent: Any = None
        self._line: BoundedSocket | None = None
        self._full = False

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
        """All rows of the item's table, as text; None if it is gone, a view, or has far more rows than at first.

        Ends the agent's session, with its locks and variables.
        """
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
            cursor.execute(f"GRANT {RIGHTS} ON {self.name}.* TO {self.name}@localhost")
            cursor.execute(f"CREATE TABLE {self.name}.{_quoted(item.table)} ({columns})".replace("%", "%%"), ())
            insert = f"INSERT INTO {self.name}.{_quoted(item.table)} VALUES ({places})"
            for row in item.rows:
                cursor.execute(insert.replace("%", "%%").replace("%%s", "%s"), row)
            connection.commit()

    def _execute(self, statement: str) -> str:
        if self._full:
            return _FULL
        reply = self._replied(statement)
        if self.server.size_bytes(self.name) > MAX_DATABASE_BYTES:
            self._full = True
            self._close()
            return _FULL
        return reply

    def _replied(self, statement: str) -> str:
        import pymysql

        try:
            if self._agent is None:
                self._agent, self._line = self._own()
            assert self._line is not None
            self._line.allow(WAIT_S, MAX_REPLY_BYTES)
            with self._agent.cursor() as cursor:
                cursor.execute(statement)
                reply = str(list(cursor.fetchmany(1000))) if cursor.description else "[]"
            self._agent.commit()
        except (pymysql.Error, ValueError, OSError) as error:
            reached = self._line.reached if self._agent is not None and self._line is not None else ""
            if not isinstance(error, pymysql.ProgrammingError | pymysql.DataError | pymysql.IntegrityError):
                self._hang_up()
            if reached:
                self._as_root(f"KILL USER {self.name}@localhost")
            return reached or f"{reason_of(error)}"
        return reply

    def _cells(self) -> list[list[str | None]] | None:
        import pymysql

        self._hang_up()  # a lock of the agent's session would hold up the reading
        self._as_root(f"ALTER USER {self.name}@localhost IDENTIFIED BY '{self._password}'")  # it may have set another
        names = ", ".join(map(_quoted, self.item.columns))
        most = 10 * len(self.item.rows) + 1000
        try:
            connection, line = self._own()
            with connection, connection.cursor() as cursor:
                line.allow(WAIT_S, MAX_TABLE_BYTES)
                cursor.execute(_TABLE_TYPE, (_named(self.item.table),))
                if list(cursor.fetchall()) != [("BASE TABLE",)]:
                    return None
                cursor.execute(f"SELECT {names} FROM {_quoted(self.item.table)} LIMIT {most + 1}")
                rows = cursor.fetchall()
        except (pymysql.Error, OSError):
            return None
        return None if len(rows) > most else [[None if cell is None else str(cell) for cell in row] for row in rows]

    def _close(self) -> None:
        self._hang_up()
        user = f"{self.name}@localhost"
        self._as_root(f"KILL USER {user}", f"DROP USER IF EXISTS {user}", f"DROP DATABASE IF EXISTS {self.name}")

    def _as_root(self, *statements: str) -> None:
        """Run these, which name nothing that the agent made; nothing more if the server died: its folder goes with it."""
        import pymysql

        with suppress(pymysql.Error, OSError, SandboxError), self._root() as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def _hang_up(self) -> None:
        if self._agent is not None:
            self._agent.close() if self._agent.open else None
            self._agent = None

    def _root(self) -> Any:
        return self._connect("root", "", unix_socket=self.server.socket)

    def _own(self) -> tuple[Any, BoundedSocket]:
        """A new connection as the attempt's user, and the socket that bounds what is read from it."""
        line = BoundedSocket()
        try:
            line.allow(WAIT_S, MAX_REPLY_BYTES)
            line.connect(self.server.socket)
            connection = self._connect(self.name, self._password, database=self.name, defer_connect=True)
            connection.connect(line)
        except BaseException:
            line.close()
            raise
        return connection, line

    def _connect(self, user: str, password: str, **more: Any) -> Any:
        import pymysql

        return pymysql.connect(
            user=user, password=password, charset="utf8mb4", connect_timeout=10, read_timeout=QUERY_S + 5,
            write_timeout=QUERY_S + 5, local_infile=False, ssl_disabled=True, **more,
        )  # fmt: skip


def _program(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/bin"]))


def _found(name: str) -> str:
    found = _program(name)
    assert found is not None
    return found


def _named(name: str) -> str:
    return name.strip() or "(no name)"  # MySQL has no empty names


def _quoted(name: str) -> str:
    return "`" + _named(name).replace("`", "``") + "`"
