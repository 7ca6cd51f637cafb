"""AgentBench's database world: the paper's grammar, answers and hashes; statements that hang, drop or break out."""

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.benchmarks.agentbench_db import agentbench_db
from firsthand.errors import ConfigError, DataError, FirsthandError
from firsthand.patterns.thought_action import thought_action
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.trace import Trace
from firsthand.worlds.database.database_world import DatabaseWorld, SqliteEngine, read_answer
from firsthand.worlds.database.mariadb_engine import MariadbEngine, MariadbServer
from firsthand.worlds.database.mysql_dialect import for_sqlite
from firsthand.worlds.database.table_items import TableItem, is_right, read_item, table_md5
from firsthand.worlds.players import play
from thorough import THOROUGH

SHARED = Path(os.environ.get("FIRSTHAND_DATA") or Path(__file__).parents[2] / "shared" / "data")
REAL = SHARED / "agents" / "agentbench" / "dbbench" / "standard.jsonl"
TABLE = {
    "table_name": "Ferry Times",
    "table_info": {
        "columns": [{"name": "Port", "type": "TEXT"}, {"name": "Crossings #", "type": "INT"}],
        "rows": [["Holm", "12"], ["Tesk", "7"], ["Åkra", "7"]],
    },
}
ROWS = [
    {"description": "How many ports are there?", "label": ["3"], "type": ["counting"], "table": TABLE},
    {"description": "Which ports have 7 crossings?", "label": ["Tesk", "Åkra"], "type": ["other"], "table": TABLE},
    {
        "description": "Tesk has 8 crossings now.",
        "label": ["UPDATE `Ferry Times` SET `Crossings #` = '8' WHERE Port = 'tesk'"],
        "type": ["UPDATE"],
        "table": TABLE,
        "answer_md5": f"[('{table_md5([('Holm', '12'), ('Tesk', '8'), ('Åkra', '7')])}',)]",
    },
]


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with three items of our own."""
    folder = tmp_path_factory.mktemp("items")
    (folder / "standard.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(folder)


@pytest.fixture(scope="module")
def ferries(items: str) -> Benchmark:
    """The benchmark on them."""
    return agentbench_db(data=items)


def attempt(benchmark: Benchmark, task: int, *replies: str) -> Trace:
    agent = Agent("a", Scripted([f"Thought: I see.\nAction: {reply}" for reply in replies]), thought_action,
                  {"constrained": False})  # fmt: skip
    return asyncio.run(rollout(agent, benchmark.tasks(0)[task], benchmark=benchmark))


def sql(statement: str) -> str:
    return f"Operation\n```sql\n{statement}\n```"


def told(trace: Trace) -> list[str]:
    return [call.detail["result"] for call in trace.calls if call.kind == "tool"]


def test_a_question_is_answered_and_the_reply_has_the_form_of_the_papers_driver(ferries: Benchmark):
    trace = attempt(ferries, 0, sql("SELECT COUNT(*) FROM `Ferry Times`;"), 'Answer\nFinal Answer: ["3.0"]')
    assert told(trace)[0] == "[('3',)]" and trace.value() == 1
    assert trace.final_state["ended"] == "answered" and trace.scores[0].detail["kind"] == "counting"
    assert attempt(ferries, 0, 'Answer\nFinal Answer: ["4"]').value() == 0
    assert attempt(ferries, 1, "Answer\nFinal Answer: ['Åkra', 'Tesk']").value() == 1
    assert attempt(ferries, 1, "Answer\nFinal Answer: ['Tesk']").value() == 0


def test_a_change_is_judged_by_the_table_whatever_is_answered(ferries: Benchmark):
    change = "UPDATE `Ferry Times` SET `Crossings #` = 8 WHERE `Crossings #` = '7' AND Port LIKE 'T%'"
    assert attempt(ferries, 2, sql(change), 'Answer\nFinal Answer: ["whatever"]').value() == 1
    missed = attempt(ferries, 2, sql(change.replace("AND", "OR")), "Answer\nFinal Answer: []")
    assert missed.value() == 0 and missed.scores[0].detail["reason"] == "wrong end"


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE `Ferry Times`",
        "DELETE FROM `Ferry Times`",
        "ATTACH 'other.sqlite' AS other",
        "SELECT 1; DROP TABLE `Ferry Times`",
        "SELEKT *",
        "ВЫБРАТЬ * ИЗ таблицы",
        "SELECT load_extension('/tmp/x.so')",
        "CREATE TABLE t AS SELECT randomblob(100000000)",
    ],
)
def test_a_statement_that_breaks_things_is_answered_and_the_next_task_starts_clean(ferries: Benchmark, statement: str):
    trace = attempt(ferries, 2, sql(statement), "Answer\nFinal Answer: []")
    assert trace.error is None and trace.value() == 0 and told(trace)[0]
    after = attempt(ferries, 0, sql("SELECT COUNT(*) FROM `Ferry Times`"), 'Answer\nFinal Answer: ["3"]')
    assert told(after)[0] == "[('3',)]"


@pytest.mark.slow
def test_a_statement_that_never_ends_is_stopped_and_the_next_one_runs():
    item = TableItem("other", "t", ("a",), (("1",),), ("1",))

    async def try_it() -> tuple[str, str, object]:
        engine = SqliteEngine(item, query_s=0.3)
        await engine.open()
        try:
            endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT COUNT(*) FROM c"
            first = await engine.execute(endless)
            second = await engine.execute("SELECT a FROM t")
            await engine.execute("DROP TABLE t")
            await engine.execute(f"CREATE VIEW t AS {endless.replace('COUNT(*)', 'x AS a')}")
            return first, second, await engine.cells()
        finally:
            await engine.close()
            assert engine._folder is not None and not Path(engine._folder.name).exists()

    first, second, cells = asyncio.run(try_it())
    assert "did not end within 0.3 s" in first and second == "[('1',)]" and cells is None


def test_a_long_reply_is_cut_as_in_the_paper(ferries: Benchmark):
    trace = attempt(ferries, 0, sql("SELECT printf('%.900c', 'x')"), "Answer\nFinal Answer: []")
    assert told(trace)[0].endswith("[TRUNCATED]") and len(told(trace)[0]) == 811


@pytest.mark.parametrize("action", ["Operation", "Operation\nSELECT 1", "Answer", "Answer: 3", "Drop it", "", "Ответ"])
def test_an_action_outside_the_grammar_is_told_the_grammar(ferries: Benchmark, action: str):
    trace = attempt(ferries, 0, action, 'Answer\nFinal Answer: ["3"]')
    assert trace.final_state["invalid_actions"] == 1 and trace.value() == 1
    assert "write Action: Operation" in told(trace)[0]


def test_the_answer_is_not_counted_among_the_rounds(items: str):
    short = agentbench_db(data=items, rounds=2)
    assert attempt(short, 0, sql("SELECT 1"), sql("SELECT 2"), 'Answer\nFinal Answer: ["3"]').value() == 1
    trace = attempt(short, 0, sql("SELECT 1"), sql("SELECT 2"), sql("SELECT 3"))
    assert trace.final_state["ended"] == "rounds" and trace.final_state["rounds"] == 3
    assert trace.scores[0].detail["reason"] == "limit"


def test_the_form_is_the_grammar_that_the_reader_reads(ferries: Benchmark):
    import re

    assert re.fullmatch(DatabaseWorld.form, sql("SELECT 1")) and re.fullmatch(
        DatabaseWorld.form, "Answer\nFinal Answer: []"
    )
    assert not re.fullmatch(DatabaseWorld.form, "Operation SELECT 1")


@pytest.mark.parametrize(
    ("answer", "label", "right"),
    [
        (["12"], ["12.0"], True),
        ([12], ["12"], True),
        (["12.004"], ["12"], False),
        (["holm"], ["Holm"], False),
        (["b", "a", "a"], ["a", "b"], True),
        (["a"], ["a", "b"], False),
        ([], ["a"], False),
        ([["a"], "b"], ["a", "b"], False),
        (["nan"], ["nan"], False),
    ],
)
def test_answers_are_compared_by_the_papers_rule(answer: list[object], label: list[str], right: bool):
    assert is_right(answer, label) is right


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (' ["a", "b"]', ["a", "b"]),
        (" a, b", ["a, b"]),
        ("12", [12]),
        ("'Holm'\nThat is all.", ["Holm"]),
        ("[1, 'x'] because", ["[1, 'x'] because"]),
        ("[" * 5000, ["[" * 5000]),
        ("", [""]),
    ],
)
def test_a_final_answer_is_read_as_python_or_as_it_is(text: str, answer: list[object]):
    assert read_answer(text) == answer


@pytest.mark.parametrize(
    ("mysql", "sqlite"),
    [
        (r"SELECT 'it\'s\n'", "SELECT 'it''s\n'"),
        (r"SELECT '\\', 'a''b'", r"SELECT '\', 'a''b'"),
        (r"SELECT 'a\'\'b', '\'''', '''\''", "SELECT 'a''''b', '''''', ''''''"),
        ("SELECT 'a\\\nb'", "SELECT 'a\nb'"),
        ("SELECT * FROM 1952_Prix WHERE 10e3 = 0x1f", "SELECT * FROM `1952_Prix` WHERE 10e3 = 0x1f"),
        ("SELECT a -- all\nFROM t # x", "SELECT a  \nFROM t  "),
        ('SELECT "1952_x", `2nd`', 'SELECT "1952_x", `2nd`'),
        ("SHOW TABLES;", "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"),
        ("DESCRIBE `a b`", "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'a b' COLLATE NOCASE"),
        ("SELECT 'unclosed", "SELECT 'unclosed"),
    ],
)
def test_mysqls_own_notation_is_rewritten(mysql: str, sqlite: str):
    assert for_sqlite(mysql) == sqlite


NAMED = ("Film Table", "Title", "Genre", r"Height\nft", "Home won")
DOUBLE_QUOTED = [
    # with a backslash: a text, unless it is a name of the table
    (r'SELECT "it\'s", "a\nb\\", "say \"hi\" ""you""", "\q"', "SELECT 'it''s', 'a\nb\\', 'say \"hi\" \"you\"', 'q'"),
    (r'SELECT "height\nFT", "x\ty" FROM t', "SELECT \"height\\nFT\", 'x\ty' FROM t"),
    ('SELECT "a""b", "Title", "x y"', 'SELECT "a""b", "Title", "x y"'),
    # names in backquotes: what is compared is a text
    ('SELECT `a` FROM t WHERE `b` = "Title" AND `c`<> "Home won"',
     "SELECT `a` FROM t WHERE `b` = 'Title' AND `c`<> 'Home won'"),
    ("UPDATE `t` SET `a` = \"Title\", `b`=\"it''s\" WHERE `c` >= \"x\" OR `d` <\"y\"",
     "UPDATE `t` SET `a` = 'Title', `b`='it''''s' WHERE `c` >= 'x' OR `d` <'y'"),
    ('SELECT `a` WHERE `a` like /* = */ "Home won" AND `b` IN ("Title", "x") AND "Genre"',
     "SELECT `a` WHERE `a` like   'Home won' AND `b` IN ('Title', 'x') AND \"Genre\""),
    ('SELECT `a` AS "n", ("b") FROM "Film Table" GROUP BY "n" HAVING "n" > 3 ORDER BY "n"',) * 2,
    # names without quotes: the same, but for names that need them
    ('SELECT * FROM t WHERE Genre = "Title" AND x IN ("Genre", "Title")',
     "SELECT * FROM t WHERE Genre = 'Title' AND x IN ('Genre', 'Title')"),
    ('SELECT * FROM t WHERE x = "Home won" AND y = "2nd"',) * 2,
    # names in double quotes: names
    ('SELECT "Title" FROM t WHERE "Genre" = "Title"',) * 2,
    ('UPDATE "Film Table" SET Genre = "Title"',) * 2,
    # minus and minus, or a comment
    ("SELECT 5--3, a--b, (1)--(2), `a`--`b`, '7'--'2', 1--.5",
     "SELECT 5- -3, a- -b, (1)- -(2), `a`- -`b`, '7'- -'2', 1- -.5"),
    ("SELECT 1 --one\n, 2-- two\n, 3; --end", "SELECT 1  \n, 2 \n, 3;  "), ("SELECT 1--", "SELECT 1 "),
    ("SELECT 1;--x", "SELECT 1; "), ('SELECT "--x", "open -- \\" --', 'SELECT "--x", "open -- \\" --'),
]  # fmt: skip


@pytest.mark.parametrize(("mysql", "sqlite"), DOUBLE_QUOTED)
def test_double_quotes_hold_texts_where_mysql_means_them_and_names_where_sqlite_does(mysql: str, sqlite: str):
    assert for_sqlite(mysql, NAMED) == sqlite


def test_a_change_in_mysqls_double_quotes_is_the_one_that_mysql_makes():
    rows = (("Total", "Nation"), ("Peru", "1"))
    item = TableItem("UPDATE", "Medals", ("Nation", r"Gold\nSilver"), rows, ("x",))

    async def after(*statements: str) -> list[list[str | None]] | None:
        engine = SqliteEngine(item)
        await engine.open()
        try:
            for each in statements:
                await engine.execute(each)
            return await engine.cells()
        finally:
            await engine.close()

    changes = (
        'UPDATE Medals SET Nation = "Nation" WHERE Nation = "Total"',
        r'UPDATE Medals SET "Gold\nSilver" = "Peru\'s \"own\"" WHERE `Nation` = "Peru"',
    )
    assert asyncio.run(after(*changes)) == [["Nation", "Nation"], ["Peru", 'Peru\'s "own"']]


def test_a_column_compares_as_text_with_a_number_and_as_a_number_once_zero_is_added():
    """As `docs/worlds.md` says."""

    async def found(*conditions: str) -> list[str]:
        engine = SqliteEngine(TableItem("counting", "T", ("Name", "Score"), (("a", "900"), ("b", "50")), ("1",)))
        await engine.open()
        try:
            return [await engine.execute(f"SELECT Name FROM T WHERE {each}") for each in conditions]
        finally:
            await engine.close()

    both, one = "[('a',), ('b',)]", "[('a',)]"
    assert asyncio.run(found("Score > 100", "Score + 0 > 100", "Score = 900")) == [both, one, one]


def test_a_comment_ends_with_its_line_in_an_agents_statement_and_in_the_published_one():
    wanted = [["Ann", "1"], ["Bob", "9"]]
    for statement in (
        "UPDATE t SET n = '9' -- new\nWHERE name = 'Bob'",
        "UPDATE t SET n = '9' # new\nWHERE name = 'Bob'",
        "-- Bob has 9\nUPDATE t\nSET n = '9'\nWHERE name = 'Bob' -- done",
    ):
        item = TableItem("UPDATE", "t", ("name", "n"), (("Ann", "1"), ("Bob", "2")), (statement,), table_md5(wanted))

        async def ended(item: TableItem = item) -> object:
            world = DatabaseWorld(item, SqliteEngine(item), SqliteEngine(item))
            await world.open()
            try:
                call = world.read(world.optimal())
                assert call.name == "execute_sql"
                await world.execute_sql(**call.arguments)
                return await world.result(), await world.engine.cells()
            finally:
                await world.close()

        result, cells = asyncio.run(ended())
        assert cells == wanted and result["md5"] == item.md5 and result["exact"], statement


def test_a_text_without_mysqls_notation_stays_as_it_is():
    for text in ("SELECT a, b FROM t WHERE c >= 1.5e3 AND d != 'x'", "(((", "ВЫБРАТЬ 1;", "", "\x00"):
        assert for_sqlite(text) == text


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("table", [], "the field 'table'"),
        ("type", "counting", "the field 'type'"),
        ("label", None, "the field 'label'"),
        ("answer_md5", None, "the field 'answer_md5'"),
        ("description", "", "the field 'description'"),
        (
            "table",
            {"table_name": "t", "table_info": {"columns": [{"name": "a"}], "rows": [["1", "2"]]}},
            "lists of 1 cells",
        ),
        ("table", {"table_name": "t", "table_info": {"columns": [{"name": "a"}] * 2, "rows": []}}, "different names"),
    ],
)
def test_a_bad_item_is_named_by_line_and_field(tmp_path: Path, field: str, value: object, message: str):
    (tmp_path / "standard.jsonl").write_text(json.dumps(ROWS[2] | {field: value}))
    with pytest.raises(DataError, match=message) as error:
        agentbench_db(data=str(tmp_path))
    assert "line 1" in str(error.value)


def test_the_hash_is_that_of_mysqls_query_computed_by_hand():
    # printf a,b | md5sum | cut -c1-5; the same of c; both sorted and joined by a comma, through md5sum
    assert table_md5([("c",), ("a", None, "b")]) == "735a884f6654b59bf5392f2135e1065d"
    assert table_md5([("a", "b"), ("c",)]) == table_md5([("c",), ("a", "b")]) != table_md5([("b", "a"), ("c",)])


def test_options_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="give dev or standard"):
        agentbench_db(split="test")  # type: ignore[arg-type]


@pytest.mark.parametrize("actions", ["text", "native"])
def test_the_optimal_player_solves_items_by_text_and_by_native_calls(items: str, actions: str):
    benchmark = agentbench_db(data=items, actions=actions)  # type: ignore[arg-type]
    assert [asyncio.run(play(benchmark, task, "optimal")).value() for task in benchmark.tasks(0)[1:]] == [1, 1]


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_file(), reason="AgentBench's items are not here")
def test_the_published_hashes_are_reproduced_by_the_published_statements():
    benchmark = agentbench_db(data=str(REAL))
    writes = [task for task in benchmark.tasks(0) if task.metadata["stratum"] != "SELECT"]
    every = 5 if THOROUGH else 15
    asked = [task for at, task in enumerate(writes) if at % every == 0 or task.id in ("standard-206", "standard-225")]

    async def all_of_them() -> list[str]:
        gate = asyncio.Semaphore(8)

        async def one(task: Task) -> str | None:
            async with gate:
                trace = await play(benchmark, task, "optimal")
                return None if trace.value() == 1 else trace.task_id

        found = await asyncio.gather(*map(one, asked))
        return [each for each in found if each is not None]

    least = 40 if THOROUGH else 14
    # 206 finds Montréal by Montreal, as MySQL's collation does and SQLite's does not; 225's hash fits no engine.
    assert len(writes) == 200 and len(asked) >= least and asyncio.run(all_of_them()) == ["standard-206", "standard-225"]


def _mariadb_is_here() -> bool:
    try:
        MariadbServer().ready()
    except FirsthandError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.skipif(not _mariadb_is_here(), reason="MariaDB and pymysql are not installed")
def test_mariadb_gives_the_same_ends_and_a_server_that_died_is_started_again():
    item = read_item(ROWS[2], "here")
    server = MariadbServer()

    async def try_it() -> None:
        first = MariadbEngine(item, server)
        await first.open()
        assert "8" in item.label[0] and await first.execute(item.label[0]) == "[]"
        cells = await first.cells()
        assert cells is not None and table_md5(cells) == item.md5
        assert "denied" in await first.execute("CREATE DATABASE mine")
        assert "denied" in await first.execute("SELECT 1 INTO OUTFILE '/tmp/worlds-out'")
        assert server.pid is not None
        os.killpg(server.pid, signal.SIGKILL)
        assert await first.execute("SELECT 1") != "[(1,)]"
        await first.close()
        second = MariadbEngine(item, server)
        await second.open()
        assert await second.execute("SELECT COUNT(*) FROM `Ferry Times`") == "[(3,)]"
        await second.close()

    try:
        asyncio.run(try_it())
    finally:
        pid = server.pid
        server.stop()
    assert server.pid is None and not Path(f"/proc/{pid}/exe").exists()
