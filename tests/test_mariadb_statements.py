"""MariaDB's server as a process of small programs in its place, and the statements that an attempt's engine sends."""

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import SandboxError
from firsthand.worlds.database import enclosed_command, mariadb_engine
from firsthand.worlds.database.bounded_socket import BoundedSocket
from firsthand.worlds.database.mariadb_engine import RIGHTS, MariadbEngine, MariadbServer, _program, _quoted
from firsthand.worlds.database.table_items import TableItem

INSTALL = """#!/bin/sh
printf '%s\\n' "$@" > {asked}/install
for each in "$@"; do case $each in --datadir=*) /bin/mkdir "${{each#--datadir=}}";; esac; done
"""
SERVE = """#!/bin/sh
printf '%s\\n' "$@" > {asked}/serve
echo x >> {asked}/starts
echo $$ > {asked}/pid
for each in "$@"; do case $each in --socket=*) : > "${{each#--socket=}}";; esac; done
exec /bin/sleep 60
"""
WRAP = """#!/bin/sh
echo "$*" >> {asked}/wrapped
while [ "$1" != -- ]; do shift; done
shift
"$@"
"""
FAIL = """#!/bin/sh
echo x >> {asked}/starts
printf '  %0250d no memory \\n' 7 >&2
exit 1
"""


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, install: str, serve: str) -> None:
    for name, text in (("mariadb-install-db", install), ("mariadbd", serve)):
        (folder / name).write_text(text.format(asked=folder))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))  # without bubblewrap: the programs write in their folder


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that any user may use."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


def test_a_server_starts_once_in_a_folder_of_its_own_and_leaves_nothing(shared, monkeypatch):
    pytest.importorskip("pymysql")
    programs(shared, monkeypatch, INSTALL, SERVE)
    assert _program("mariadbd") == str(shared / "mariadbd")
    assert _program("no-such-program-of-firsthand") is None
    server = MariadbServer()
    assert server.pid is None
    try:
        socket = Path(server.socket)
        own, folder, pid = socket.parent, socket.parent.parent, server.pid
        assert socket.name == "socket"
        assert folder.name.startswith("firsthand-mariadb-")
        assert sorted(each.name for each in folder.iterdir()) == ["empty", "log", "own"]
        assert sorted(each.name for each in own.iterdir()) == ["data", "socket"]
        assert own.stat().st_mode & 0o777 == 0o700
        user = own.stat().st_uid
        is_root = os.geteuid() == 0
        root = ["--user=root"] if user == 0 else []
        assert (user == os.geteuid()) is (not is_root or enclosed_command.own_id() is None)
        assert Path(f"/proc/{pid}").stat().st_uid == (own / "socket").stat().st_uid == user
        assert (shared / "install").read_text().splitlines() == [
            "--no-defaults", f"--datadir={own}/data", "--auth-root-authentication-method=normal", "--skip-test-db",
            "--force", *root,
        ]  # fmt: skip
        assert (shared / "serve").read_text().splitlines() == [
            "--no-defaults", f"--datadir={own}/data", f"--socket={own}/socket", "--skip-networking", *root,
            f"--secure-file-priv={folder}/empty", "--local-infile=0", "--innodb-buffer-pool-size=32M",
            "--max-statement-time=5", "--sql-mode=", "--max-user-connections=4", f"--pid-file={own}/data/pid",
            "--skip-log-bin", "--skip-symbolic-links", "--max-session-mem-used=256M", "--maximum-max-session-mem-used=256M",
            "--maximum-max-heap-table-size=16M", "--innodb-temp-data-file-path=ibtmp1:12M:autoextend:max:256M",
            "--loose-max-tmp-total-space-usage=512M",
        ]  # fmt: skip
        assert server.socket == str(socket)
        assert server.pid == pid
        assert (shared / "starts").read_text() == "x\n"
        server._process.kill()  # type: ignore[union-attr]
        server._process.wait()  # type: ignore[union-attr]
        monkeypatch.setattr(enclosed_command, "own_id", lambda: None)  # root that cannot become somebody else
        again = Path(server.socket)  # a server that died is started again, elsewhere
        for name in ("install", "serve"):
            assert ("--user=root" in (shared / name).read_text().splitlines()) is is_root
        assert again.parent.parent != folder
        assert not folder.exists()
        assert server.pid not in (None, pid)
        assert (shared / "starts").read_text() == "x\nx\n"
    finally:
        server.stop()
    assert server.pid is None
    assert not again.parent.parent.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid or 0, 0)
    server.stop()


def test_server_and_data_folder_are_made_in_bubblewrap_where_it_is_there(shared, monkeypatch):
    pytest.importorskip("pymysql")
    programs(shared, monkeypatch, INSTALL, SERVE)
    (shared / "bwrap").write_text(WRAP.format(asked=shared))
    (shared / "bwrap").chmod(0o755)
    server = MariadbServer()
    try:
        own = Path(server.socket).parent
        wrapped = (shared / "wrapped").read_text().splitlines()
        ran = [each.partition(" -- ")[2].split()[0] for each in wrapped]
        assert ran == ["/bin/sh", str(shared / "mariadb-install-db"), "/bin/sh", str(shared / "mariadbd")]
        for each in wrapped:
            assert f" --bind {own} {own} " in each and each.count(" --bind ") == 1
            assert f" --ro-bind {own.parent}/empty {own.parent}/empty " in each
            assert "--cap-drop ALL" in each and "--unshare-net" in each and "--unshare-pid" in each
    finally:
        server.stop()
    stat = Path("/proc", (shared / "pid").read_text().strip(), "stat")
    for _ in range(100):
        if not stat.exists() or ") Z" in stat.read_text():
            return
        time.sleep(0.02)
    pytest.fail("what the wrapper started goes on")


def test_a_server_that_does_not_start_says_why_and_is_not_tried_again(shared, monkeypatch):
    pytest.importorskip("pymysql")
    programs(shared, monkeypatch, INSTALL, FAIL)
    server = MariadbServer()
    told = f"mariadbd did not start within 30 s: {'0' * 189}7 no memory"
    for _ in range(2):
        with pytest.raises(SandboxError) as refused:
            _ = server.socket
        assert str(refused.value) == told
        assert (server.pid, server._folder) == (None, None)
    assert (shared / "starts").read_text() == "x\n"
    programs(shared, monkeypatch, INSTALL, "#!/bin/sh\nexit 0\n")
    with pytest.raises(SandboxError, match=r"^mariadbd did not start within 30 s: it said nothing$"):
        _ = MariadbServer().socket


def test_a_data_folder_that_cannot_be_made_is_told_by_the_end_of_what_was_said(shared, monkeypatch):
    pytest.importorskip("pymysql")
    programs(shared, monkeypatch, "#!/bin/sh\necho out; printf '%0400d' 8 >&2; exit 2\n", SERVE)
    server = MariadbServer()
    with pytest.raises(SandboxError) as refused:
        _ = server.socket
    assert str(refused.value) == f"MariaDB's data folder cannot be made: {'0' * 299}8"
    programs(shared, monkeypatch, "#!/bin/sh\necho no room; exit 2\n", SERVE)
    with pytest.raises(SandboxError, match=r"^MariaDB's data folder cannot be made: no room$"):
        _ = server.socket
    assert not (shared / "starts").exists()
    server.stop()


class Wire:
    """A connection and its cursor, which note what is sent and answer from a list."""

    def __init__(self, notes: list[Any], who: tuple[Any, ...], answers: list[Any]) -> None:
        self.notes, self.who, self.answers, self.open = notes, who, answers, True
        self.description: object = None

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *args: object) -> None:
        self.notes.append("left")

    def cursor(self) -> "Wire":
        return self

    def execute(self, statement: str, *given: object) -> None:
        statement.encode()  # as pymysql does before anything is sent
        self.notes.append((self.who[0], statement, *given))
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        self.description, self.found = answer, answer

    def fetchmany(self, most: int) -> object:
        self.notes.append(("at most", most))
        return self.found

    def fetchall(self) -> object:
        return self.found

    def commit(self) -> None:
        self.notes.append("commit")

    def close(self) -> None:
        self.open = False
        self.notes.append("close")


class WiredEngine(MariadbEngine):
    """The engine over wires in place of connections."""

    def __init__(self, item: TableItem, answers: list[Any]) -> None:
        super().__init__(item, MariadbServer())
        self.notes: list[Any] = []
        self.answers = answers
        self.callers: list[Any] = []

    def _connect(self, user: str, password: str, **more: Any) -> Any:
        if self.answers and isinstance(self.answers[0], SandboxError):
            raise self.answers.pop(0)
        self.callers.append((user, password, more))
        return Wire(self.notes, (user, password), self.answers)

    def _root(self) -> Any:
        return self._connect("root", "")

    def _own(self) -> tuple[Any, BoundedSocket]:
        self.line = BoundedSocket()
        return self._connect(self.name, self._password, database=self.name), self.line


ITEM = TableItem("UPDATE", "ta`ble", ("a %s", " b ", " "), (("1", "50%", "x"), ("2", "é", "")), ("UPDATE t",), "abc")


def test_a_table_is_made_with_every_row_in_a_database_of_its_own_and_dropped_with_its_user():
    engine = WiredEngine(ITEM, [])
    name, password = engine.name, engine._password
    assert (name[0], len(name), len(password)) == ("w", 17, 32)
    assert name.isalnum(), "an underscore in a GRANT stands for any letter"
    assert WiredEngine(ITEM, []).name != name
    engine._open()
    insert = f"INSERT INTO {name}.`ta``ble` VALUES (%s, %s, %s)"
    assert engine.callers == [("root", "", {})]
    assert engine.notes == [
        ("root", f"CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_uca1400_ai_ci"),
        ("root", f"CREATE USER {name}@localhost IDENTIFIED BY '{password}'"),
        ("root", f"GRANT {RIGHTS} ON {name}.* TO {name}@localhost"),
        ("root", f"CREATE TABLE {name}.`ta``ble` (`a %%s` TEXT, `b` TEXT, `(no name)` TEXT)", ()),
        ("root", insert, ("1", "50%", "x")),
        ("root", insert, ("2", "é", "")),
        "commit",
        "left",
        "left",
    ]
    engine.notes.clear()
    engine._agent = Wire(engine.notes, ("agent",), [])
    engine._close()
    assert engine.notes == [
        "close", ("root", f"KILL USER {name}@localhost"), ("root", f"DROP USER IF EXISTS {name}@localhost"),
        ("root", f"DROP DATABASE IF EXISTS {name}"), "left", "left",
    ]  # fmt: skip
    assert engine._agent is None
    engine.answers.append(SandboxError("it died"))
    engine._close()  # nobody is told: the folder is gone
    assert [_quoted(each) for each in ("a`b", " c ", "", "  ")] == ["`a``b`", "`c`", "`(no name)`", "`(no name)`"]


def test_the_agents_statements_are_answered_as_pymysql_does_and_only_a_lost_line_is_hung_up():
    pymysql = pytest.importorskip("pymysql")
    wrong = pymysql.err.ProgrammingError(1064, "near it")
    engine = WiredEngine(
        ITEM,
        [((1, "x"), (2, None)), None, (), wrong, pymysql.err.DataError(1, "d"), pymysql.err.IntegrityError(2, "i")],
    )
    who, sent = engine.name, lambda text: (engine.name, text)
    assert [engine._execute(f"S{number}") for number in range(6)] == [
        "[(1, 'x'), (2, None)]", "[]", "[]", "(1064, 'near it')", "(1, 'd')", "(2, 'i')"
    ]  # fmt: skip
    assert engine.callers == [(who, engine._password, {"database": who})]
    assert engine.notes == [
        sent("S0"), ("at most", 1000), "left", "commit", sent("S1"), "left", "commit", sent("S2"), "left", "commit",
        sent("S3"), "left", sent("S4"), "left", sent("S5"), "left",
    ]  # fmt: skip
    engine.notes.clear()
    first = engine._agent
    engine.answers += [pymysql.err.OperationalError(2006, "gone away"), None]
    assert engine._execute("S6") == "(2006, 'gone away')"
    assert engine._agent is None
    assert not first.open
    assert engine._execute("S7") == "[]"
    assert engine.notes == [sent("S6"), "left", "close", sent("S7"), "left", "commit"]
    assert len(engine.callers) == 2
    engine._agent.open = False
    engine.notes.clear()
    engine._hang_up()
    engine._hang_up()
    assert engine.notes == []  # one that is shut already is not shut again
    engine.answers.append(OSError("no socket"))
    assert engine._execute("S8") == "no socket"
    assert engine._agent is None
    engine.notes.clear()
    refused = "'utf-8' codec can't encode character '\\ud800' in position 8: surrogates not allowed"
    assert engine._execute("SELECT '\ud800'") == refused
    assert engine._agent is None
    engine.answers.append(ValueError("no such number"))
    assert engine._execute("S9") == "no such number"
    assert engine._agent is None
    assert engine.notes == ["left", "close", sent("S9"), "left", "close"]
    assert len(engine.callers) == 5
    engine.answers += [KeyError("a fault of ours")]
    with pytest.raises(KeyError):
        engine._execute("S10")


def test_the_cells_are_all_columns_as_text_and_none_when_the_table_is_gone():
    pymysql = pytest.importorskip("pymysql")
    table, rows = [("BASE TABLE",)], ((1, None, "x"), ("", 2.5, "é"))
    gone = pymysql.err.ProgrammingError(1146, "no table")
    engine = WiredEngine(ITEM, [None, table, rows, None, gone])
    engine._agent = Wire(engine.notes, ("agent",), [])
    assert engine._cells() == [["1", None, "x"], ["", "2.5", "é"]]
    who, password = engine.name, engine._password
    own = (who, password, {"database": who})
    assert engine.callers == [("root", "", {}), own], "what an agent made is not read as root"
    assert engine._agent is None
    assert engine.notes == [
        "close",  # the agent's session, with its locks
        ("root", f"ALTER USER {who}@localhost IDENTIFIED BY '{password}'"), "left", "left",
        (who, mariadb_engine._TABLE_TYPE, ("ta`ble",)),
        (who, "SELECT `a %s`, `b`, `(no name)` FROM `ta``ble` LIMIT 1021"), "left", "left",
    ]  # fmt: skip
    assert engine._cells() is None
    assert engine.answers == []
    engine.answers += [None, OSError("gone")]
    assert engine._cells() is None
    assert engine.answers == []
    engine.answers += [OSError("root is not heard"), table, rows]
    assert engine._cells() == [["1", None, "x"], ["", "2.5", "é"]], "the password is seldom another"


def test_a_table_with_more_rows_than_ten_times_its_own_and_a_thousand_or_that_is_a_view_has_no_cells():
    pytest.importorskip("pymysql")
    for count, there in ((1020, True), (1021, False)):
        cells = WiredEngine(ITEM, [None, [("BASE TABLE",)], [("x",)] * count])._cells()
        assert cells == ([["x"]] * count if there else None)
    for kind in ([("VIEW",)], [], [("BASE TABLE",), ("VIEW",)]):
        engine = WiredEngine(ITEM, [None, kind, [("x",)]])
        assert engine._cells() is None
        assert len(engine.answers) == 1, "it is not read"


def test_a_statement_that_reaches_a_bound_is_told_so_and_ended_by_the_servers_root(monkeypatch):
    pymysql = pytest.importorskip("pymysql")
    engine = WiredEngine(ITEM, [None, pymysql.err.OperationalError(2013, "Lost connection")])
    assert engine._execute("S0") == "[]"
    allowed: list[tuple[float, int]] = []
    monkeypatch.setattr(engine.line, "allow", lambda *given: allowed.append(given))
    engine.line.reached = "there was no whole reply within 6 s: ask for less"
    engine.notes.clear()
    assert engine._execute("S1") == "there was no whole reply within 6 s: ask for less"
    assert allowed == [(6.0, 4 * 2**20)]
    ended = ("root", f"KILL USER {engine.name}@localhost")
    assert engine.notes == [(engine.name, "S1"), "left", "close", ended, "left", "left"]
    engine.answers.append(pymysql.err.OperationalError(1045, "Access denied"))
    monkeypatch.setattr(engine, "_own", lambda: engine._connect("x", "y").execute("hello"))
    engine.notes.clear()
    assert engine._execute("S2") == "(1045, 'Access denied')", "the bound of an earlier connection is not told again"
    assert engine.notes == [("x", "hello")]


def test_a_database_that_grew_beyond_its_bound_is_dropped_and_no_statement_runs_any_more(monkeypatch):
    pytest.importorskip("pymysql")
    engine = WiredEngine(ITEM, [])
    size = mariadb_engine.MAX_DATABASE_BYTES
    monkeypatch.setattr(engine.server, "size_bytes", lambda name: size if name == engine.name else 0)
    assert engine._execute("S0") == "[]"
    size += 1
    for _ in range(2):
        assert engine._execute("S1") == "the database took more than 256 MiB and was dropped"
    sent = [each[1] for each in engine.notes if isinstance(each, tuple)]
    user = f"{engine.name}@localhost"
    assert sent == [
        "S0", "S1", f"KILL USER {user}", f"DROP USER IF EXISTS {user}", f"DROP DATABASE IF EXISTS {engine.name}"
    ]  # fmt: skip


def test_the_size_of_a_database_counts_all_of_its_files_and_no_others(tmp_path):
    server = MariadbServer()
    assert server.size_bytes("w1") == 0
    server._folder = tempfile.TemporaryDirectory(dir=tmp_path)
    own = Path(server._folder.name, "own")
    for folder, size in (("data/w1", 3), ("data/w12", 500)):
        (own / folder).mkdir(parents=True)
        (own / folder / "t.ibd").write_bytes(b"x" * size)
    (own / "data/w1/u.ibd").write_bytes(b"x" * 40)
    assert server.size_bytes("w1") == 43
    server.stop()


def test_no_right_of_an_attempt_makes_code_that_another_user_would_run():
    rights = {each.strip() for each in RIGHTS.split(",")}
    assert {"SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "CREATE VIEW"} <= rights
    assert not [
        each for each in rights if "ROUTINE" in each or each in ("ALL", "TRIGGER", "EVENT", "EXECUTE", "FILE", "SUPER")
    ]
