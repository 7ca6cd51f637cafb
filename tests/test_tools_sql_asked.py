"""The request that a process for a statement gets, its limits, and what is told of each way that it can end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, ToolError
from firsthand.tools import sql as sql_tools
from firsthand.tools.databases import sql_process
from firsthand.tools.sql import SqlFile

PROGRAM = """import json, os, sys
request = json.load(sys.stdin)
flags = [sys.flags.isolated, sys.flags.no_site, sys.flags.utf8_mode]
print(json.dumps({"columns": ["a"], "rows": [["x"], ["y"]], "more": False, "count": -1, "request": request,
                  "set": sorted(set(os.environ) - {"LC_CTYPE"}), "flags": flags}))
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM, encoding="utf-8")
    monkeypatch.setattr(sql_tools, "_PROGRAM", path)
    return path


@pytest.fixture
def file(tmp_path: Path) -> SqlFile:
    path = tmp_path / "a b.db"
    path.touch()
    return SqlFile(path, query_s=2.5)


@pytest.mark.usefixtures("program")
def test_a_process_gets_the_whole_request_and_nothing_of_the_environment(file: SqlFile) -> None:
    plain = {
        "path": file.path.as_uri(), "write": False, "rehearse": False, "expected": None,
        "statement": "SELECT 'é'", "seconds": 2.5,
        "memory_bytes": 512 << 20, "max_rows": 200, "max_chars": 14_000, "max_cell": 500,
    }  # fmt: skip
    reply = file._run("SELECT 'é'")
    assert (reply["request"], reply["set"], reply["flags"]) == (plain, [], [1, 1, 1])
    more = file._run("SELECT 'é'", write=True, rehearse=True, max_rows=3, max_chars=40, max_cell=5)["request"]
    assert more == plain | {"write": True, "rehearse": True, "max_rows": 3, "max_chars": 40, "max_cell": 5}
    asked = file.reply("S", write=True, max_rows=3, max_cell=7)["request"]
    assert asked == plain | {"statement": "S", "write": True, "max_rows": 3, "max_chars": 21, "max_cell": 7}
    assert file.sql_query("Q") == "a\nx\ny" == file.sql_change("C")
    assert file.rehearsed({"statement": "R"}).endswith("\n> a\n> x\n> y")


@pytest.mark.slow
def test_each_end_of_a_process_is_told(program: Path, file: SqlFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_tools, "LEAVE_S", 0.15)
    slow = "the statement did not end within {} s: ask for less, or join on what is indexed"
    table = "import json; print(json.dumps({'error': 'no such table: boks', 'tables': ['books', 'x']}))"
    quick = SqlFile(file.path, query_s=0.05)
    for made, source, told in (
        (file, "import os; os.kill(os.getpid(), 24)", slow.format("2.5")),
        (file, "import os; os.kill(os.getpid(), 9)", "the statement needs more than 512 MiB of memory: ask for less"),
        (quick, "import time; time.sleep(5)", slow.format("0.05")),
        (file, table, "no such table 'boks'; did you mean 'books'?"),
        (file, 'print(\'{"error": "characters"}\')', "the statement holds characters that SQL cannot hold"),
    ):
        program.write_text(source, encoding="utf-8")
        with pytest.raises(ToolError) as raised:
            made._run("S")
        assert str(raised.value) == told
    program.write_text('print(\'{"columns": null, "rows": [], "more": false, "count": 1}\')', encoding="utf-8")
    assert (file.sql_change("C"), file.rehearsed({"statement": "R"})) == (
        "done: 1 row changed",
        "1 row would be changed",
    )
    with pytest.raises(ToolError, match=r"^this is no statement that gives rows: write a SELECT$"):
        file.sql_query("Q")
    program.write_text('print(\'{"columns": null, "rows": [], "more": false, "count": 0}\')', encoding="utf-8")
    assert (file.sql_change("C"), file.rehearsed({"statement": "R"})) == (
        "done: 0 rows changed",
        "0 rows would be changed",
    )
    program.write_text('print(\'{"columns": null, "rows": [], "more": false, "count": -1}\')', encoding="utf-8")
    assert (file.sql_change("C"), file.rehearsed({"statement": "R"})) == ("done", "no row would be changed")


def test_the_process_of_a_statement_is_limited_before_it_begins() -> None:
    source = (
        "import sys, resource, runpy; sys.modules['p'] = p = type(sys)('p'); p.__name__ = 'p'\n"
        "exec(open(sys.argv[1], encoding='utf-8').read(), p.__dict__)\n"
        "def shown(request):\n    if request.get('full'):\n        raise MemoryError\n"
        "    return [resource.getrlimit(getattr(resource, 'RLIMIT_' + name)) for name in ('CPU', 'AS', 'CORE')]\n"
        "p.carried_out = shown; p.main()"
    )

    def answered(**request: Any) -> Any:
        command = [sys.executable, "-I", "-S", "-c", source, str(Path(sql_process.__file__))]
        return json.loads(subprocess.run(command, input=json.dumps(request), capture_output=True, text=True).stdout)

    assert answered(seconds=2.5, memory_bytes=400 << 20) == [[3, 4], [400 << 20, 400 << 20], [0, 0]]
    assert answered(seconds=2.5, memory_bytes=400 << 20, full=True) == {"error": "out of memory"}


def test_a_schema_is_cut_beyond_its_length_and_not_at_it(file: SqlFile, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def shown(*statements: Any, more: bool = False) -> str:
        def run(statement: str, **given: Any) -> dict[str, Any]:
            asked.append(given)
            assert statement == "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type = 'index', name"
            return {"columns": ["sql"], "rows": [[each] for each in statements], "more": more, "count": -1}

        monkeypatch.setattr(file, "_run", run)
        return file.sql_schema()

    assert shown("x" * 13_999) == "x" * 13_999 + ";" and shown() == "(the database has no tables)"
    assert shown("x" * 14_000) == "x" * 14_000 + "\n[there is more]"
    assert shown("CREATE a\n(b)", "c\x1b", 5) == "CREATE a\n(b);\n" + sql_tools.printable("c\x1b") + ";\n5;"
    assert shown("a", more=True) == "a;\n[there is more]"
    assert asked[0] == {"max_rows": 10_000, "max_chars": 14_001, "max_cell": 14_000}
    for error, said in (
        ("cannot be opened: unable", "the database cannot be opened: unable"),
        (
            "not authorized",
            "this is not allowed here (not authorized): only the data of this database may be asked for",
        ),
        (
            "attempt to write a readonly database",
            "this is not allowed here (attempt to write a readonly database): only",
        ),
        ("no such table: x", "no such table 'x'; there are none"),
        ("no such column: x", "the statement failed: no such column: x"),
        ("e" * 501, f"the statement failed: {'e' * 500}"),
    ):
        assert file._told(error, ()).startswith(said)
    far = [*(f"zz{number}" for number in range(50)), "customers"]
    assert file._told("no such table: custommers", far) == "no such table 'custommers'; did you mean 'customers'?"
    names = [f"zz{number}" for number in range(51)]
    assert file._told("no such table: qqqq", names) == f"no such table 'qqqq'; there are {', '.join(names[:50])}"


def test_a_table_holds_the_rows_that_fit_and_tells_of_others() -> None:
    def table(*rows: Any, columns: Any = ("a\nb", "c|d"), more: bool = False) -> str:
        return sql_tools._table(
            {"columns": list(columns), "rows": [list(row) for row in rows], "more": more, "count": 0}
        )

    head, more = "a\\nb | c\\|d", "\n[there are more than these {} rows: ask for fewer, or count them]"
    assert table() == f"{head}\n(no rows)"
    assert table((None, "é\x1b"), ("", "1|2\n"), more=False) == (
        f"{head}\nNULL | {sql_tools.printable('é' + chr(27))}\n | 1\\|2\\n"
    )
    assert (
        table((None, "NULL"), ("'NULL'", "null"), columns=("NULL", "b")) == "NULL | b\nNULL | 'NULL'\n''NULL'' | null"
    )
    assert table((None, "x"), more=True) == f"{head}\nNULL | x{more.format(1)}"
    assert table(more=True) == head + more.format(0)
    wide = "y" * (4_663 - 1 - 4)  # 11 characters of the header, and three lines of 4,663 with their ends: 14,000
    assert table(*[("x", wide)] * 3) == "\n".join([head, *[f"x | {wide}"] * 3])
    assert table(*[("x", wide)] * 2, ("x", wide + "y"), ("x", "")) == f"{head}\nx | {wide}\nx | {wide}{more.format(2)}"
    assert table(*[("x", wide)] * 3, ("x", "")) == "\n".join([head, *[f"x | {wide}"] * 3]) + more.format(3)
    names = ["n" * 2_000] * 9
    assert table(["z"] * 9, columns=names) == " | ".join(names)[:15_000], "however many columns there are"


def test_a_database_is_found_in_the_home_and_behind_a_link_and_is_one_by_its_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "real.db").write_bytes(b"SQLite format 3\0" + bytes(9))
    (tmp_path / "link").symlink_to("real.db")
    for path in ("~/link", tmp_path / "link", tmp_path / "x" / ".." / "real.db"):
        assert SqlFile(path).path == (tmp_path / "real.db").resolve()
    assert (SqlFile("~/real.db").query_s, SqlFile("~/real.db", query_s=0.5).query_s) == (10.0, 0.5)
    for head in (b"SQLite format 3", b"SQLite format 4\0", b"\0"):
        (tmp_path / "other").write_bytes(head)
        with pytest.raises(ConfigError, match=r"^'~/other' is no SQLite database: give the path of one$"):
            SqlFile("~/other")
    with pytest.raises(ConfigError, match=r"^the database '~/none' cannot be read: No such file or directory$"):
        SqlFile("~/none")
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory$"):
        SqlFile(tmp_path)
