"""A run's folder may come from anyone: opening, listing and resuming it changes nothing outside and runs nothing in it."""

from __future__ import annotations

import os
import sqlite3
import struct
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, StoreError, ToolError, UnknownName
from firsthand.experiment.experiment import Experiment
from firsthand.experiment.settings import RunSettings
from firsthand.retrieval.tools.search import search
from firsthand.runs.database import checksum, put
from firsthand.runs.index import INDEX
from firsthand.runs.integrity import SEALED, seal
from firsthand.runs.run_names import DATABASE, LOCK
from firsthand.runs.store import Run, create, list_runs, open_run
from firsthand.stats.stored_figures import own_figures
from firsthand.system.home_seal import KEY
from firsthand.system.lock import holder, is_held
from firsthand.system.sqlite_journal import forged_journal
from firsthand.task import Task
from firsthand.tools.files import files
from firsthand.tools.sql import sql
from firsthand.trace import Event, Score, Trace

PAGE, SECTOR = 4096, 512
MAGIC = bytes.fromhex("d9d505f920a163d7")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run that was closed."""
    with create(tmp_path, {"seed": 1}, "given") as run:
        run.append(Trace("a", "b", "t", {"name": "a"}, 0, 0, "", 0.0, answer="x", scores=(Score("s", 0.0),)))
        run.finish("done")
    return run.path


def forge_journal(database: Path, victim: Path) -> Path:
    """A rollback journal that SQLite rolls back, and then deletes the file whose name it holds."""
    content = database.read_bytes()
    page, nonce = content[:PAGE], 1234
    header = MAGIC + struct.pack(">IIIII", 1, nonce, len(content) // PAGE, SECTOR, PAGE)
    check = (nonce + sum(page[at] for at in range(PAGE - 200, 0, -200))) & 0xFFFFFFFF
    record = struct.pack(">I", 1) + page + struct.pack(">I", check)
    name = os.fsencode(victim)
    named = struct.pack(">I", 0x40000000 // PAGE + 1) + name + struct.pack(">II", len(name), sum(name)) + MAGIC
    journal = database.with_name(f"{database.name}-journal")
    journal.write_bytes(header.ljust(SECTOR, b"\0") + record + named)
    return journal


def test_a_journal_that_names_a_file_to_be_deleted_is_not_read(folder: Path, tmp_path: Path) -> None:
    victim = tmp_path / "letters.txt"
    victim.write_text("dear")
    journal = forge_journal(folder / DATABASE, victim)
    (tmp_path / "runs" / INDEX).unlink()
    (info,) = list_runs(tmp_path)
    assert info.problem is not None and "would delete" in info.problem
    with pytest.raises(StoreError, match="delete the journal to read the run"):
        open_run("last", tmp_path)
    assert victim.read_text() == "dear"
    journal.unlink()
    with open_run("last", tmp_path) as run:
        assert len(list(run.traces())) == 1
    forge_journal(folder / DATABASE, victim)
    linked = tmp_path / "linked.sqlite"  # SQLite looks for the journal where the link leads
    linked.symlink_to(folder / DATABASE)
    assert forged_journal(linked) == journal
    with sqlite3.connect(folder / DATABASE) as raw:  # the forgery is real: SQLite itself deletes the file
        raw.execute("SELECT count(*) FROM sqlite_master").fetchone()
    assert not victim.exists()


@pytest.mark.slow
def test_the_same_journal_beside_an_index_or_a_database_of_a_tool_deletes_nothing(folder: Path, tmp_path: Path) -> None:
    victim = tmp_path / "letters.txt"
    victim.write_text("dear")
    list_runs(tmp_path)
    forge_journal(tmp_path / "runs" / INDEX, victim)
    assert [info.problem for info in list_runs(tmp_path)] == [None] and victim.exists()
    forge_journal(folder / DATABASE, victim)
    for tool in sql(str(folder / DATABASE), write=True):
        with pytest.raises(ToolError, match="would delete"):
            tool.function(*["DELETE FROM run"][: tool.name != "sql_schema"])
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "a.txt").write_text("words")
    search(str(documents), index=str(tmp_path / "kept"))
    forge_journal(tmp_path / "kept", victim)
    with pytest.raises(ConfigError, match="would delete"):
        search(str(documents), index=str(tmp_path / "kept"))
    assert victim.exists()


def test_a_journal_without_a_name_or_no_journal_at_all_is_no_forgery(tmp_path: Path) -> None:
    database, journal = tmp_path / "a.sqlite", tmp_path / "a.sqlite-journal"
    assert forged_journal(database) is None
    for content in (b"", b"short", MAGIC + b"\0" * 600):
        journal.write_bytes(content)
        assert forged_journal(database) is None
    journal.write_bytes(b"x" + MAGIC)
    assert forged_journal(database) == journal
    journal.unlink()
    os.mkfifo(journal)  # looking must not wait
    assert forged_journal(database) == journal


TRIGGER = "AFTER INSERT ON traces BEGIN UPDATE traces SET score = 1 WHERE seq = NEW.seq; END"


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, name, table, statement",
    [
        ("trigger", "sqlite_x", "traces", TRIGGER),
        ("trigger", "raise", "traces", TRIGGER),
        ("view", "sqlite_v", "sqlite_v", "AS SELECT 1"),
    ],
)
@pytest.mark.parametrize("version", [None, 1])
def test_triggers_and_views_of_any_name_are_refused_before_anything_is_written(
    folder: Path, kind: str, name: str, table: str, statement: str, version: int | None
) -> None:
    """Names that begin with `sqlite_` are SQLite's own, but a file may give them to a trigger, which then changes scores."""
    with sqlite3.connect(folder / DATABASE) as raw:
        raw.execute("PRAGMA writable_schema = ON")
        words = f"CREATE {kind} {name} {statement}"
        raw.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, 0, ?)", (kind, name, table, words))
        if version is not None:
            raw.execute(f"PRAGMA user_version = {version}")
    raw.close()
    before = (folder / DATABASE).read_bytes()
    with pytest.raises(StoreError, match="triggers or views"):
        open_run(str(folder), folder.parent.parent)
    assert (folder / DATABASE).read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "table, column, value",
    [
        ("traces", "score", "\x1b]0;x\x07"),
        ("traces", "score", float("inf")),
        ("traces", "agent", b"\xff"),
        ("traces", "cost_usd", 1e308),
        ("traces", "tokens", 1e308),
        ("traces", "duration_s", "1 s"),
        ("run", "planned", "many"),
        ("tasks", "cluster", b"x"),
        ("agents", "name", b"x"),
    ],
)
def test_a_value_that_is_not_of_its_columns_type_spoils_no_list(
    folder: Path, tmp_path: Path, table: str, column: str, value: object
) -> None:
    """A text among the scores ended `firsthand runs` with a TypeError, and with it the list of all other runs."""
    with open_run(str(folder), tmp_path) as run:
        run.add_tasks("b", [Task("t", "?")])
        run.add_agent("a", {"name": "a"})
        with run.database.write() as connection:
            assert connection.execute(f"UPDATE {table} SET {column} = ?", (value,)).rowcount == 1
            if table in SEALED:
                seal(connection, table, "true")
    (tmp_path / "runs" / INDEX).unlink(missing_ok=True)
    (info,) = list_runs(tmp_path)
    assert info.problem is not None and "of another type than their columns" in info.problem
    with open_run(str(folder), tmp_path) as run, pytest.raises(StoreError, match=f"rows in its {table}"):
        run.check()


def test_a_table_of_a_name_that_sqlite_keeps_for_itself_is_refused(folder: Path) -> None:
    with sqlite3.connect(folder / DATABASE) as raw:
        raw.execute("PRAGMA writable_schema = ON")
        words = "CREATE TABLE sqlite_x (a CHECK (length(a) > 1))"
        page = raw.execute("SELECT rootpage FROM sqlite_master WHERE name = 'preferences'").fetchone()[0]
        raw.execute("INSERT INTO sqlite_master VALUES ('table', 'sqlite_x', 'sqlite_x', ?, ?)", (page, words))
    raw.close()
    with pytest.raises(StoreError, match="tables are not those"):
        open_run(str(folder), folder.parent.parent)


@pytest.mark.slow
def test_links_and_pipes_in_place_of_a_lock_and_its_notes_change_nothing_and_hold_nobody_up(folder: Path) -> None:
    victim = folder.parent / "keys"
    victim.write_text("mine")
    note = folder / f"{LOCK}.holder"
    note.with_name(f"{note.name}.new").symlink_to(victim)
    with open_run(str(folder), folder.parent.parent) as run, run.claimed():
        assert str(os.getpid()) in note.read_text()
    assert victim.read_text() == "mine"
    os.mkfifo(note)
    assert holder(folder / LOCK) == "another process, which left no note of itself"
    (folder / LOCK).unlink()
    os.mkfifo(folder / LOCK)
    assert is_held(folder / LOCK) is False
    refused(run)
    (folder / LOCK).unlink()
    (folder / LOCK).symlink_to(folder.parent / "made")
    refused(run)
    assert not (folder.parent / "made").exists()


def refused(run: Run) -> None:
    with pytest.raises(StoreError, match="cannot be written"), run.claimed():
        raise AssertionError("claimed")


EVIL = "from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "spec",
    [
        "{file}",
        "{file}:evil",
        "inspect:task={file}",
        "inspect:task={folder}",
        "inspect:task={file}@evil",
        "lm_eval:task=x:trust=true",
        "lm_eval:task=x:include={folder}",
        "{folder}/x.toml",
        "./evil.py",
        "arithmetic:data=../evil",
    ],
)
def test_looking_at_a_run_of_somebody_else_loads_no_file_that_it_names(tmp_path: Path, spec: str) -> None:
    """The figures of a run were computed by the benchmark that it names: a Python file ran when its summary was shown."""
    (tmp_path / "evil.py").write_text(EVIL)
    text = spec.format(file=tmp_path / "evil.py", folder=tmp_path)
    with create(tmp_path / "theirs", {"seed": 1}, "given") as run:
        foreign = run.about | {"figures": {"b": text}, "figures_seal": "0" * 64}
    for about in (foreign, {key: foreign[key] for key in foreign if key != "figures_seal"}):
        with open_run(str(run.path), tmp_path) as theirs:
            replace_about(theirs, about)
        with open_run(str(run.path), tmp_path) as theirs:
            told: list[str] = []
            assert own_figures(told.append, theirs) == {}
            assert len(told) == 1 and "was not made in this data home" in told[0]
    assert not (tmp_path / "evil.ran").exists()


def test_a_run_made_here_loads_the_file_that_computes_its_figures_until_another_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    (tmp_path / "evil.py").write_text(EVIL + "from firsthand.benchmarks.arithmetic import arithmetic as evil\n")
    (tmp_path / "other.py").write_text(EVIL)
    with create(tmp_path, {}, "own", figures={"arithmetic": str(tmp_path / "evil.py")}) as run:
        told: list[str] = []
        own_figures(told.append, run)
        assert told == [] and (tmp_path / "evil.ran").exists()
        replace_about(run, run.about | {"figures": {"arithmetic": str(tmp_path / "other.py")}})
    assert (tmp_path / KEY).stat().st_mode & 0o077 == 0
    with open_run("last", tmp_path) as run:
        own_figures(told.append, run)
        assert len(told) == 1 and not (tmp_path / "other.ran").exists()
        replace_about(run, run.about | {"figures": ["x"]})
    with open_run("last", tmp_path) as run, pytest.raises(StoreError, match="figures are not specs"):
        own_figures(told.append, run)


def replace_about(run: Run, about: dict[str, object]) -> None:
    with run.database.write() as connection:
        connection.execute("UPDATE run SET about = ?", (put(connection, about),))
        seal(connection, "run", "true")


def test_an_index_that_holds_infinity_is_made_again(folder: Path, tmp_path: Path) -> None:
    assert len(list_runs(tmp_path)) == 1
    with sqlite3.connect(tmp_path / "runs" / INDEX) as raw:
        raw.create_function("checksum", -1, checksum)
        raw.execute("UPDATE runs SET tokens = 9e999")
        columns = "id, files, updated_at, created_at, status, done, planned, errors, tokens, scores, about"
        raw.execute(f"UPDATE runs SET digest = checksum({columns})")
    raw.close()
    assert [info.tokens for info in list_runs(tmp_path)] == [0]


def test_a_score_whose_detail_is_a_text_is_damage_and_no_attribute_error(folder: Path, tmp_path: Path) -> None:
    with open_run(str(folder), tmp_path) as run:
        body = run.database.get(run.database.read("SELECT body FROM traces")[0][0])
        body["scores"][0]["detail"] = "\x1b]0;x\x07"
        with run.database.write() as connection:
            connection.execute("UPDATE traces SET body = ?", (put(connection, body),))
            seal(connection, "traces", "true")
    with open_run(str(folder), tmp_path) as run, pytest.raises(StoreError, match="damaged"):
        run.samples("b")


@pytest.mark.slow
@pytest.mark.parametrize("part", ["config", "protocols", "reducers", "command"])
@pytest.mark.parametrize("value", [None, "text", 5, [["a"]], {"a": 1}])
def test_a_part_of_the_description_that_is_another_value_is_damage(folder: Path, part: str, value: object) -> None:
    """`protocols` as a text ended `firsthand show` with an AttributeError."""
    right = list if part == "command" else dict
    with open_run(folder, folder.parent) as run:
        replace_about(run, run.about | {part: value})
    with open_run(folder, folder.parent) as run:
        if isinstance(value, right):
            assert run.about[part] == value and run.reducer("b")
        else:
            with pytest.raises(StoreError, match="a part of it is another value"):
                run.protocols  # noqa: B018


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str, Path]:
    """A run from another data home: its folder, its attempt, and the file of ours that its tools would write."""
    ours = tmp_path / "home of ours"
    ours.mkdir()
    (ours / "profile").write_text("theirs")
    overwrite = next(each for each in files(str(ours), write=True) if each.name == "overwrite_file")
    assert overwrite.declares is not None and overwrite.declares.undo is not None
    before = overwrite.declares.undo.capture({"path": "profile"})
    (ours / "profile").write_text("mine")
    evil = tmp_path / "evil.py"
    evil.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nasync def evil(task, ctx):\n    return ''\n")
    detail = {"call": "0", "tool": "overwrite_file", "arguments": {"path": "profile", "text": ""}, "before": before}
    event = Event("guard", 0.0, {"rule": "undoable", "detail": detail, "at": None})
    settings = RunSettings(
        ("arithmetic",), pattern=(f"{evil}:evil",), tools=(f"files:{ours}:write=true",), model=("scripted",)
    )
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "theirs"))
    with create(tmp_path / "theirs", settings.to_json(), "given") as run:
        name = settings.pattern[0]
        trace = Trace("a1", "arithmetic", "t", {"name": name, "model": "scripted"}, 0, 0, "", 0.0, events=(event,))
        run.append(trace)
        run.finish("done")
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "mine"))
    return run.path, trace.id, ours / "profile"


@pytest.mark.slow
@pytest.mark.parametrize(
    "words, kind",
    [
        (["rollback", "RUN", "TRACE"], "tool"),
        (["fork", "RUN", "TRACE", "--at", "0"], "pattern"),
        (["run", "--resume", "RUN"], "pattern"),
        (["run", "--replay", "RUN"], "pattern"),
    ],
)
def test_a_run_from_another_home_loads_no_file_and_no_tool_that_it_names(
    foreign: tuple[Path, str, Path], cli: Any, words: list[str], kind: str
) -> None:
    run, trace, profile = foreign
    code, _, said = cli(*[{"RUN": str(run), "TRACE": trace}.get(word, word) for word in words])
    assert code == 2 and f"names the {kind} " in said and "--trust" in said
    assert profile.read_text() == "mine" and not (run.parents[2] / "ran").exists()


def test_an_experiment_of_a_run_from_another_home_loads_what_is_given_anew_or_trusted(
    foreign: tuple[Path, str, Path],
) -> None:
    run, _, _ = foreign
    for given in ({}, {"tools": ()}, {"pattern": ("direct",)}):
        with open_run(run, run.parent) as opened, pytest.raises(ConfigError, match="was made elsewhere and names the"):
            Experiment.from_run(opened, **given)
    assert not (run.parents[2] / "ran").exists()
    with open_run(run, run.parent) as opened:
        for given, trust in (({"pattern": ("direct",), "tools": ()}, False), ({}, True)):
            with pytest.raises(
                UnknownName, match="no model 'scripted'"
            ):  # what was made elsewhere is none of its errors
                Experiment.from_run(opened, trust=trust, **given)


def test_a_run_from_another_home_that_is_trusted_is_rolled_back(foreign: tuple[Path, str, Path], cli: Any) -> None:
    run, trace, profile = foreign
    code, said, _ = cli("rollback", str(run), trace, "--trust")
    assert code == 0 and "restored" in said and profile.read_text() == "theirs"
