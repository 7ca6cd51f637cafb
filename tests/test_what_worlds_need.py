"""What worlds need of the machine and of a user's folder, and the sentence that says what is missing."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.errors import ConfigError, DataError, MissingExtra, SandboxError
from firsthand.sandbox.sandbox_limits import RunLimits
from firsthand.worlds import function_turns
from firsthand.worlds.aquawar.aquawar_world import _parsed
from firsthand.worlds.browsing import devtools, mind2web
from firsthand.worlds.browsing.devtools import PROFILE, _remove_abandoned
from firsthand.worlds.browsing.miniwob_pages import kinds_in, pages_folder
from firsthand.worlds.database import mariadb_engine
from firsthand.worlds.database.mariadb_engine import MariadbServer, _program
from firsthand.worlds.shell import os_items
from firsthand.worlds.shell.os_items import OsItem, Script, read_items
from firsthand.worlds.shell.spare_boxes import PATH, SpareBoxes
from firsthand.worlds.world import WorldEnvironment


def bash(code: str) -> Script:
    return Script("bash", code)


@pytest.mark.parametrize(
    ("reason", "parts"),
    [
        (None, {"init": (bash("mkdir /root/a; echo x > /tmp/a; touch /home/b"),), "start": "cd /data"}),
        (None, {"init": (bash("cat /etc/passwd; chmod 755 /opt/bin/a; echo > /dev/null"),)}),
        (None, {"init": (Script("python", "open('/etc/x'); '> /etc/x'"),), "start": "(sleep 9 &) ; true"}),
        ("users", {"init": (bash("ls"), bash("useradd ann"))}), ("users", {"start": "sudo ls"}),
        ("users", {"check": (None, bash("su - ann"))}), ("users", {"example": bash("groupadd g")}),
        (None, {"example": bash("resudo; su ann; visudo")}),
        ("packages", {"check": (bash("apt-get install x"),)}), ("packages", {"example": bash("apt update")}),
        ("users", {"example": bash("apt update; adduser x")}),
        ("background processes", {"start": "sleep 99 & "}), (None, {"init": (bash("sleep 99 &"),)}),
        ("system folders", {"init": (bash("x"), bash("echo a > /etc/motd"))}),
        ("system folders", {"init": (bash("mkdir -p /usr/x"),)}), ("system folders", {"init": (bash('touch "/x"'),)}),
        ("system folders", {"init": (bash("chmod 700 /var/log"),)}),
        ("background processes", {"start": "y &", "init": (bash("touch /x"),)}), (None, {"start": "touch /x"}),
        ("its own solution fails here",
         {"description": "' \"Find out how many groups with an index not greater than 70. x"}),
        (None, {"description": "Now find out how many groups with an index not greater than 70."}),
    ],
)  # fmt: skip
def test_an_item_of_the_shell_says_what_the_sandbox_lacks_for_it(reason: str | None, parts: dict[str, Any]) -> None:
    assert OsItem("i", **{"description": "d", **parts}).why_not_here() == reason


def test_the_items_of_a_folder_come_in_the_papers_order_and_files_that_are_none_are_named(tmp_path: Path) -> None:
    told = f"{tmp_path} holds no data/{{}}: give AgentBench's os_interaction"
    for split, missing in (("dev", "dev.json"), ("standard", "1 to data/7")):
        with pytest.raises(DataError) as error:
            list(read_items(tmp_path, split))
        assert str(error.value) == told.format(missing)
    row = {"description": "d", "evaluation": {"match": "m"}}
    for name, body in (("2/b.json", row), ("2/a.json", [row, row]), ("1/z.json", [row]), ("8/a.json", [row]),
                       ("1/x.txt", [row]), ("dev.json", [row])):  # fmt: skip
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(body))
    assert [each.id for each in read_items(tmp_path, "standard")] == [
        "std-001-z-00000", "std-002-a-00000", "std-002-a-00001", "std-002-b-00000",
    ]  # fmt: skip
    assert [each.id for each in read_items(tmp_path, "dev")] == ["dev-001-dev-00000"]
    first = tmp_path / "data" / "1" / "z.json"
    first.write_text("[{}]")
    with pytest.raises(DataError, match=rf"^{first}, item 1: an object with a description was expected, not '\{{\}}'$"):
        list(read_items(tmp_path, "standard"))
    first.write_text("{")
    with pytest.raises(DataError, match=rf"^{first} is no JSON: Expecting property name"):
        list(read_items(tmp_path, "standard"))
    first.write_bytes(b"\xff")
    with pytest.raises(DataError, match=rf"^{first}: {first} cannot be read: "):
        list(read_items(tmp_path, "standard"))


def test_a_file_of_exactly_the_largest_size_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_text('["é"]')
    monkeypatch.setattr(os_items, "MAX_FILE_BYTES", path.stat().st_size)
    assert os_items._loaded(path) == ["é"]
    monkeypatch.setattr(os_items, "MAX_FILE_BYTES", path.stat().st_size - 1)
    with pytest.raises(DataError, match=rf"^w: {path} is larger than 0 MiB$"):
        os_items._text(path, "w")
    sessions = tmp_path / "b.json"
    sessions.write_text(json.dumps([{"confirmed_task": "t"}]))
    monkeypatch.setattr(mind2web, "MAX_FILE_BYTES", sessions.stat().st_size)
    assert mind2web._records(sessions) == [{"confirmed_task": "t"}]
    monkeypatch.setattr(mind2web, "MAX_FILE_BYTES", sessions.stat().st_size - 1)
    with pytest.raises(DataError, match=rf"^{sessions} is larger than 0 GiB: it is no file of Mind2Web$"):
        mind2web._records(sessions)
    monkeypatch.undo()
    for body in ({}, [3], [{"confirmed_task": "t"}, {}]):
        sessions.write_text(json.dumps(body))
        with pytest.raises(DataError, match=r"a list of sessions with `confirmed_task` and `actions` was expected$"):
            mind2web._records(sessions)
    with pytest.raises(DataError, match=rf"^{tmp_path / 'c'} cannot be read as JSON: "):
        mind2web._records(tmp_path / "c")


def test_a_server_needs_both_of_its_programs_and_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if _program("mariadbd") is None:
        for name in ("mariadb-install-db", "mariadbd"):
            with pytest.raises(SandboxError) as error:
                MariadbServer().ready()
            assert str(error.value) == (
                "the engine mariadb needs MariaDB's server: apt install mariadb-server, or use engine=sqlite"
            )
            program = tmp_path / name
            program.write_text("")
            program.chmod(0o755)
    for name in ("mariadb-install-db", "mariadbd"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    for lacking in ("mariadb-install-db", "mariadbd"):
        with monkeypatch.context() as patched:
            found = {
                name: None if name == lacking else str(tmp_path / name) for name in ("mariadb-install-db", "mariadbd")
            }
            patched.setattr(mariadb_engine, "_program", found.get)
            with pytest.raises(SandboxError, match="apt install mariadb-server"):
                MariadbServer().ready()
    assert _program("mariadbd") == str(tmp_path / "mariadbd"), "the PATH comes before the system's folders"
    monkeypatch.setitem(sys.modules, "pymysql", SimpleNamespace(__spec__=SimpleNamespace()))
    MariadbServer().ready()
    monkeypatch.delitem(sys.modules, "pymysql")
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [])
    with pytest.raises(MissingExtra, match=r"the engine mariadb needs pymysql|pymysql.*mysql"):
        MariadbServer().ready()


def test_the_pages_of_miniwob_come_from_a_users_folder_or_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=rf"^{tmp_path} has no core/core\.js: give the folder html of MiniWoB\+\+$"):
        pages_folder(str(tmp_path))
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "core.js").write_text("")
    assert pages_folder(str(tmp_path)) == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert pages_folder(f"~/{tmp_path.name}") == tmp_path
    (tmp_path / "miniwob").mkdir()
    for name in ("b.html", "a.html", "c.txt"):
        (tmp_path / "miniwob" / name).write_text("")
    assert kinds_in(tmp_path) == ["a", "b"]
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path), "elsewhere"])
    monkeypatch.setitem(sys.modules, "miniwob", SimpleNamespace(__spec__=spec))
    assert pages_folder("") == tmp_path / "html"
    for locations in ([], None):
        spec.submodule_search_locations = locations
        with pytest.raises(MissingExtra, match=r"miniwob"):
            pages_folder("")


def test_the_simulators_of_functions_are_asked_for_by_the_name_of_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def found(name: str) -> object:
        asked.append(name)
        return object()

    monkeypatch.setattr(function_turns, "_module", found)
    function_turns.ready()
    assert asked == list(function_turns.MODULES.values()) and len(asked) == 8

    def missing(name: str) -> object:
        if name == "vehicle_control":
            raise ModuleNotFoundError("no", name="mpmath")
        return object()

    monkeypatch.setattr(function_turns, "_module", missing)
    world = function_turns.FunctionTurnsWorld(function_turns.TurnTask("t", ("do",), (), {}, (), ((),)), {})
    for ready in (function_turns.ready, world.ready, WorldEnvironment(world, rounds=1).ready):
        with pytest.raises(ConfigError) as error:
            ready()
        assert str(error.value) == (
            "BFCL's simulators need pip install --no-deps bfcl-eval and pip install mpmath (mpmath is missing)"
        )
    assert WorldEnvironment(SimpleNamespace(), rounds=1).ready() is None  # type: ignore[arg-type, func-returns-value]


def test_a_spare_sandbox_has_its_folder_limits_and_path() -> None:
    limits = RunLimits(wall_s=7)
    box = SpareBoxes("/w", limits)._made()
    assert (box.folder, box.limits) == ("/w", limits)
    assert box.environment == {"HOME": "/root", "PATH": PATH, "USER": "root"}
    workspace = box._sandbox._pool.workspace
    assert workspace is not None and workspace.size_bytes == 2**28 and "/w" in workspace.folders


def test_only_old_profiles_of_our_own_that_nobody_holds_are_removed(tmp_path: Path) -> None:
    import fcntl

    def profile(name: str, age_s: float) -> Path:
        path = tmp_path / name
        path.mkdir()
        (path / "file").write_text("x")
        then = path.stat().st_mtime - age_s
        os.utime(path, (then, then))
        return path

    old, young = profile(f"{PROFILE}old", 61), profile(f"{PROFILE}young", 30)
    held, other = profile(f"{PROFILE}held", 999), profile("other-old", 999)
    plain = tmp_path / f"{PROFILE}file"
    plain.write_text("x")
    os.utime(plain, (0, 0))
    lock = os.open(held, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _remove_abandoned(tmp_path)
        links = Path("/proc/self/fd")
        if links.is_dir():
            names = []
            for link in links.iterdir():
                with contextlib.suppress(OSError):
                    names.append(str(link.readlink()))
            assert [each for each in names if each.startswith(str(tmp_path))] == [str(held)], "no folder is left open"
    finally:
        os.close(lock)
    assert [each.exists() for each in (old, young, held, other, plain)] == [False, True, True, True, True]
    _remove_abandoned(tmp_path)
    assert not held.exists() and young.exists()


def test_a_program_is_started_with_the_two_ends_and_its_own_group(tmp_path: Path) -> None:
    program = tmp_path / "p"
    program.write_text(
        f"#!{sys.executable} -IS\nimport os, sys\n"
        "os.write(4, repr((os.read(3, 9), sys.argv[1:], os.getpgrp() == os.getpid(), sys.stdin.read())).encode())\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    given, heard = os.pipe(), os.pipe()
    os.write(given[1], b"ask")
    pid = devtools._spawned([str(program), "--a", "b"], given[0], heard[1])
    assert os.waitpid(pid, 0) == (pid, 0) and devtools._reaped(pid)
    assert os.read(heard[0], 999).decode() == "(b'ask', ['--a', 'b'], True, '')"
    os.close(given[1])
    assert os.read(heard[0], 9) == b"", "no other end of the pipe is open"
    os.close(heard[0])
    with pytest.raises(FileNotFoundError):
        given, heard = os.pipe(), os.pipe()
        devtools._spawned([str(tmp_path / "none")], given[0], heard[1])
    for end in (given[1], heard[0]):
        os.close(end)


def test_a_move_may_be_written_with_either_quote() -> None:
    assert _parsed('{"a": "it\'s"}') == {"a": "it's"} and _parsed("{'a': 1}") == {"a": 1}
    assert _parsed("{'a': 'it's'}") is None and _parsed("") is None and _parsed("[" * 100_000) is None
