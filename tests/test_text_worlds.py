"""Worlds played by text without a browser or a sandbox: the environment, players, the database's and the shell's actions."""

import asyncio
from pathlib import Path
from random import Random

import pytest

from firsthand.errors import ConfigError, ToolError
from firsthand.task import Task
from firsthand.worlds.database.database_world import DatabaseWorld, SqliteEngine, final_answer, operation, read_answer
from firsthand.worlds.database.table_items import TableItem, is_right, table_md5
from firsthand.worlds.players import next_action
from firsthand.worlds.shell.os_items import OsItem, Script
from firsthand.worlds.shell.shell_world import ShellWorld
from firsthand.worlds.world import MAX_ACTION_CHARS, InvalidAction, WorldEnvironment, _narrowed, failure_reason
from world_of_doors import Doors


def test_an_environment_counts_repeats_refusals_and_rounds_up_to_its_limit():
    environment = WorldEnvironment(Doors("blue", True), rounds=6)
    plain = environment.version
    assert plain == ("go red", "go green", "go blue")
    said = []
    for action in ("go red", "go red", "go green", "go green", "go green"):
        said.append(asyncio.run(environment.act(action)))
    assert environment.longest_loop == 3 and said == ["It is locked."] * 5
    with pytest.raises(InvalidAction, match=r"write go red, go green or go blue\n\[the task is over: rounds\]"):
        asyncio.run(environment.act("x" * 20 + " y"))
    state = asyncio.run(environment.final_state())
    assert state == {
        "rounds": 6, "limit": 6, "invalid_actions": 1, "longest_loop": 3, "ended": "rounds", "result": {"out": False},
    }  # fmt: skip
    assert environment.tools == () and environment.version == "rounds" and failure_reason(state) == "loop"
    with pytest.raises(ToolError, match=r"the task is over \(rounds\): no further action is taken"):
        asyncio.run(environment.act("go blue"))
    assert environment.rounds == 6
    early = WorldEnvironment(Doors("blue", False), rounds=3, actions="native")
    assert early.version == ("go",) and [tool.name for tool in early.tools] == ["go"]
    assert asyncio.run(early.final_state())["ended"] == "stopped"
    with pytest.raises(InvalidAction, match=f"{MAX_ACTION_CHARS + 1} characters: at most 20000 are read"):
        asyncio.run(early.act("x" * (MAX_ACTION_CHARS + 1)))
    for given in ({"rounds": 0}, {"rounds": 1, "actions": "free"}):
        with pytest.raises(ConfigError, match="give 1 round or more, and text or native"):
            WorldEnvironment(Doors("blue", True), **given)  # type: ignore[arg-type]


def test_reasons_of_failure_at_their_limits():
    def reason(ended: str = "answered", loop: int = 0, rounds: int = 4, invalid: int = 0, stop: str = "done") -> str:
        state = {"ended": ended, "longest_loop": loop, "rounds": rounds, "invalid_actions": invalid}
        return failure_reason(state, stop)

    assert [reason("rounds", loop=each) for each in (2, 3)] == ["limit", "loop"]
    assert reason("stopped", loop=3) == "loop" and reason("answered", loop=5) == "wrong end"
    assert [reason(invalid=each) for each in (1, 2)] == ["wrong end", "invalid action"]
    assert reason(rounds=0) == "wrong end" and reason(stop="tokens") == "limit" and reason(stop="guard") == "wrong end"
    assert reason("rounds", loop=3, invalid=4) == "loop" and failure_reason({}) == "wrong end"


def test_the_actions_schema_holds_what_is_listed_or_the_form_and_examples():
    act = WorldEnvironment(Doors("blue", False), rounds=3)._tool(WorldEnvironment(Doors("blue", False), rounds=3)._act)

    def held(listed: list[str] | None, form: str | None, examples: tuple[str, ...] = ()) -> dict[str, object]:
        schema = _narrowed(act, listed, form, examples).spec.parameters
        return {
            key: value for key, value in schema["properties"]["action"].items() if key not in ("type", "description")
        }

    assert held(["a"], "b+") == {"enum": ["a"]} and held([], "b+") == {"pattern": "b+"}
    assert held(None, None, ("c",)) == {"examples": ["c"]} and _narrowed(act, None, None, ()) is act
    assert held(["a"], None, ("c",)) == {"enum": ["a"], "examples": ["c"]}


def test_a_random_player_is_told_by_seed_and_task_and_others_are_refused():
    world = Doors("blue", True)
    task = Task("one", "x")
    first = [next_action("random", task, 3)(world, ()) for _ in range(2)]
    drawn = next_action("random", task, 3)
    many = [drawn(world, ()) for _ in range(40)]
    assert first[0] == first[1] == many[0] and set(many) == {"go red", "go green", "go blue"}
    other, later = (next_action("random", Task("two", "x"), 3), next_action("random", task, 4))
    assert [other(world, ()) for _ in range(40)] != many and [later(world, ()) for _ in range(40)] != many
    free = next_action("random", task, 3)
    assert "go pink" in {free(Doors("blue", False), ()) for _ in range(80)}
    assert next_action("optimal", task)(world, ()) == "go blue"
    with pytest.raises(ConfigError, match="the player is 'idle': actions come from optimal or random"):
        next_action("idle", task)


ROWS = tuple((str(n), f"name {n}" + "x" * (30 if n == 3 else 0)) for n in range(10))
ITEM = TableItem("counting", "my table", ("Id", "Full name"), ROWS, ("7",))


def test_a_database_world_renders_reads_types_and_draws():
    world = DatabaseWorld(ITEM, SqliteEngine(ITEM))
    lines = world.render().split("\n")
    assert lines[0] == "my table" and lines[1] == f"Id | {'Full name':<24}" and lines[2] == f"---+-{'-' * 24}"
    assert (
        lines[3] == f"0  | {'name 0':<24}" and lines[6] == f"3  | name 3{'x' * 18}" and lines[-1] == "... 2 more rows"
    )
    assert len(lines) == 12
    few = TableItem("counting", "t", ("a",), (("b",),) * 8, ("7",))
    assert "more rows" not in DatabaseWorld(few, SqliteEngine(few)).render()
    assert world.typed("answer: a , b") == "Answer\nFinal Answer: ['a', 'b']" == final_answer(["a", "b"])
    assert world.typed("SELECT 1\nFROM x") == "Operation\n```sql\nSELECT 1 FROM x\n```" == operation("SELECT 1\nFROM x")
    assert world.typed("Final Answer: x") == "Final Answer: x" and world.typed("Answer\nx") == "Answer\nx"
    assert world.read("  operation.\n```sql\n SELECT 1 \n```\n```sql\nDROP\n```") == (
        "execute_sql", {"statement": "SELECT 1"},
    )  # fmt: skip
    assert world.read("Answer\nFinal Answer: ['a']") == ("commit_final_answer", {"answers": ["a"]})
    assert world.read("Final Answer: 3") == ("commit_final_answer", {"answers": [3]})
    for action, said in (
        ("Operation", "the operation has no ```sql block"),
        ("Look\nFinal Answer: 1", "'look' is no action"),
    ):
        with pytest.raises(InvalidAction, match=said):
            world.read(action)
    assert world.optimal() == "Answer\nFinal Answer: ['7']"
    write = TableItem("INSERT", "t", ("a",), (), ("INSERT INTO t", "x"))
    writing = DatabaseWorld(write, SqliteEngine(write))
    assert writing.optimal() == operation("INSERT INTO t")
    writing.statements.append("INSERT INTO t")
    assert writing.optimal() == final_answer(["done"]) and asyncio.run(world.result())["md5"] is None
    rng = Random(0)
    drawn = {world.random(rng).split("\n")[-2 if n < 0 else 0] for n in range(40)}
    assert drawn == {"Operation", "Answer"}
    assert read_answer(" ['a', 2]\nmore") == ["a", 2] and read_answer("(1, 2)") == [1, 2] and read_answer("New York\nx") == [
        "New York"
    ]  # fmt: skip
    assert read_answer("['a',\n'b']") == ["a", "b"] and read_answer("'a'") == ["a"]
    assert asyncio.run(world.commit_final_answer(["a"])) == "The answer is taken." and world.ending == "answered"


@pytest.mark.slow
def test_a_sqlite_table_answers_changes_and_forgets():
    async def go() -> list[object]:
        engine = SqliteEngine(ITEM)
        await engine.open()
        said: list[object] = [
            await engine.execute("SELECT `Full name` FROM `my table` WHERE `Full name` = 'NAME 2'"),
            await engine.execute("UPDATE `my table` SET Id = 'z' WHERE Id > '7'"),
            await engine.execute("CREATE TABLE other (a)"), await engine.execute("SELEC"), (await engine.cells())[-1],  # type: ignore[index]
            await engine.execute("DROP TABLE `my table`"), await engine.cells(),
        ]  # fmt: skip
        folder = Path(engine._folder.name)  # type: ignore[union-attr]
        assert folder.is_dir()
        await engine.close()
        assert not folder.exists()
        return said

    said = asyncio.run(go())
    assert said[:3] == ["[('name 2',)]", "[] (2 rows changed)", "[]"] and "syntax error" in str(said[3])
    assert said[4] == ["z", "name 9"] and said[6] is None
    assert is_right(["3.0"], ["3"]) and not is_right(["3.01"], ["3"]) and is_right(["a", "b", "b"], ["b", "a"])
    assert not is_right(["a"], ["a", "b"]) and not is_right([["a"]], ["a", "b"]) and is_right([3], ["3"])
    assert table_md5([("a", None, "b")]) == table_md5([("a", "b")]) != table_md5([("b", "a")])
    assert table_md5([("a",), ("b",)]) == table_md5([("b",), ("a",)])


def test_a_shell_world_reads_types_solves_and_shows_without_a_sandbox():
    def world(**more: object) -> ShellWorld:
        return ShellWorld(OsItem("i", "d", **more))  # type: ignore[arg-type]

    one = world(match="5", example=Script("bash", "echo 5"))
    assert one.read(" Bash\n```bash\nls \n```\n```\npwd\n```") == ("bash", {"code": "ls \n\npwd"})
    assert one.read("Answer(a (b) c) d") == ("answer_question", {"answer": "a (b) c"}) and one.read("finish.") == (
        "finish",
        {},
    )
    for action in ("bash ls", "answer)(", "answer 5", "go"):
        with pytest.raises(InvalidAction, match="write Act: bash"):
            one.read(action)
    assert (
        one.typed("ls") == "bash\n\n```bash\nls\n```"
        and one.typed("Finish") == "Finish"
        and one.typed("answer(1)") == "answer(1)"
    )
    assert one.render() == "/root$" and one.optimal() == "bash\n\n```bash\necho 5\n```"
    one.commands, one.last_output = ["echo 5"], "warn\n6 \n"
    assert one.render() == "$ echo 5\nwarn\n6" and one.optimal() == "answer(5)"
    for more, wanted in [
        ({"check": (None,), "example": Script("bash", "x")}, "answer(6)"),
        ({"check": (Script("python", "import sys; sys.argv[1]"),)}, "answer(6)"),
        ({"check": (Script("bash", "echo $1"),)}, "finish"), ({"check": (Script("python", "1"),)}, "finish"),
    ]:  # fmt: skip
        solved = world(**more)
        solved.commands, solved.last_output = ["x"], "warn\n6 \n"
        assert solved.optimal() == wanted
    rng = Random(0)
    drawn = {world(match="1").random(rng) for _ in range(200)}
    assert {"finish", "answer(yes)", "bash\n\n```bash\nnproc\n```"} <= drawn
    with pytest.raises(InvalidAction, match="there is no code"):
        asyncio.run(one.bash(" \n"))
    assert asyncio.run(one.answer_question("7")) == "The answer is taken." and (one.answer, one.ending) == (
        "7",
        "answered",
    )
    assert asyncio.run(one._judge()) == (False, "compared with the expected answer")
    for more, answer, passed in (
        ({"match": "7"}, " 7\n", True),
        ({"regex": "^a+$"}, "aa", True),
        ({"regex": "b"}, "aa", False),
    ):
        judged = world(**more)
        judged.answer = answer
        assert asyncio.run(judged._judge())[0] is passed
