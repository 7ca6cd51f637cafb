"""MariaDB's server as a process of small programs in its place, and the statements that an attempt's engine sends."""

import os
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import SandboxError
from firsthand.worlds.database.mariadb_engine import MariadbEngine, MariadbServer, _program, _quoted
from firsthand.worlds.database.table_items import TableItem

INSTALL = """#!/bin/sh
printf '%s\\n' "$@" > {asked}/install
for each in "$@"; do case $each in --datadir=*) mkdir "${{each#--datadir=}}";; esac; done
"""
SERVE = """#!/bin/sh
printf '%s\\n' "$@" > {asked}/serve
echo x >> {asked}/starts
for each in "$@"; do case $each in --socket=*) : > "${{each#--socket=}}";; esac; done
exec sleep 60
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
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_a_server_starts_once_in_a_folder_of_its_own_and_leaves_nothing(tmp_path, monkeypatch):
    pytest.importorskip("pymysql")
    programs(tmp_path, monkeypatch, INSTALL, SERVE)
    assert _program("mariadbd") == str(tmp_path / "mariadbd")
    assert _program("no-such-program-of-firsthand") is None
    server = MariadbServer()
    assert server.pid is None
    try:
        socket = Path(server.socket)
        folder, pid = socket.parent, server.pid
        assert socket.name == "socket"
        assert folder.name.startswith("firsthand-mariadb-")
        assert sorted(each.name for each in folder.iterdir()) == ["data", "empty", "log", "socket"]
        root = ["--user=root"] if os.geteuid() == 0 else []
        assert (tmp_path / "install").read_text().splitlines() == [
            "--no-defaults", f"--datadir={folder}/data", "--auth-root-authentication-method=normal", "--skip-test-db", *root,
        ]  # fmt: skip
        assert (tmp_path / "serve").read_text().splitlines() == [
            "--no-defaults", f"--datadir={folder}/data", f"--socket={folder}/socket", "--skip-networking", *root,
            f"--secure-file-priv={folder}/empty", "--local-infile=0", "--innodb-buffer-pool-size=32M", "--skip-log-bin",
            "--max-statement-time=5", "--sql-mode=", "--max-user-connections=4", f"--pid-file={folder}/data/pid",
        ]  # fmt: skip
        assert server.socket == str(socket)
        assert server.pid == pid
        assert (tmp_path / "starts").read_text() == "x\n"
        server._process.kill()  # type: ignore[union-attr]
        server._process.wait()  # type: ignore[union-attr]
        monkeypatch.setattr(os, "geteuid", lambda: 1000 if root else 0)
        again = Path(server.socket)  # a server that died is started again, elsewhere
        for name in ("install", "serve"):
            assert ("--user=root" in (tmp_path / name).read_text().splitlines()) is not bool(root)
        assert again.parent != folder
        assert not folder.exists()
        assert server.pid not in (None, pid)
        assert (tmp_path / "starts").read_text() == "x\nx\n"
    finally:
        server.stop()
    assert server.pid is None
    assert not again.parent.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid or 0, 0)
    server.stop()


def test_a_server_that_does_not_start_says_why_and_is_not_tried_again(tmp_path, monkeypatch):
    pytest.importorskip("pymysql")
    programs(tmp_path, monkeypatch, INSTALL, FAIL)
    server = MariadbServer()
    told = f"mariadbd did not start within 30 s: {'0' * 189}7 no memory"
    for _ in range(2):
        with pytest.raises(SandboxError) as refused:
            _ = server.socket
        assert str(refused.value) == told
        assert (server.pid, server._folder) == (None, None)
    assert (tmp_path / "starts").read_text() == "x\n"
    programs(tmp_path, monkeypatch, INSTALL, "#!/bin/sh\nexit 0\n")
    with pytest.raises(SandboxError, match=r"^mariadbd did not start within 30 s: it said nothing$"):
        _ = MariadbServer().socket


def test_a_data_folder_that_cannot_be_made_is_told_by_the_end_of_what_was_said(tmp_path, monkeypatch):
    pytest.importorskip("pymysql")
    programs(tmp_path, monkeypatch, "#!/bin/sh\necho out; printf '%0400d' 8 >&2; exit 2\n", SERVE)
    server = MariadbServer()
    with pytest.raises(SandboxError) as refused:
        _ = server.socket
    assert str(refused.value) == f"MariaDB's data folder cannot be made: {'0' * 299}8"
    programs(tmp_path, monkeypatch, "#!/bin/sh\necho no room; exit 2\n", SERVE)
    with pytest.raises(SandboxError, match=r"^MariaDB's data folder cannot be made: no room$"):
        _ = server.socket
    assert not (tmp_path / "starts").exists()
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


ITEM = TableItem("UPDATE", "ta`ble", ("a %s", " b ", " "), (("1", "50%", "x"), ("2", "é", "")), ("UPDATE t",), "abc")


def test_a_table_is_made_with_every_row_in_a_database_of_its_own_and_dropped_with_its_user():
    engine = WiredEngine(ITEM, [])
    name, password = engine.name, engine._password
    assert (name[:2], len(name), len(password)) == ("w_", 18, 32)
    assert WiredEngine(ITEM, []).name != name
    engine._open()
    insert = f"INSERT INTO {name}.`ta``ble` VALUES (%s, %s, %s)"
    assert engine.callers == [("root", "", {})]
    assert engine.notes == [
        ("root", f"CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_uca1400_ai_ci"),
        ("root", f"CREATE USER {name}@localhost IDENTIFIED BY '{password}'"),
        ("root", f"GRANT ALL ON {name}.* TO {name}@localhost"),
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
        "close", ("root", f"DROP DATABASE IF EXISTS {name}"), ("root", f"DROP USER IF EXISTS {name}@localhost"), "left",
        "left",
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
    engine = WiredEngine(ITEM, [((1, None, "x"), ("", 2.5, "é")), pymysql.err.ProgrammingError(1146, "no table")])
    assert engine._cells() == [["1", None, "x"], ["", "2.5", "é"]]
    assert engine.callers == [("root", "", {})]
    assert engine.notes[0] == ("root", f"SELECT `a %s`, `b`, `(no name)` FROM {engine.name}.`ta``ble`")
    assert engine._cells() is None
    engine.answers.append(OSError("gone"))
    assert engine._cells() is None
