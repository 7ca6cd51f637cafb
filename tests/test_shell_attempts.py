"""The shell world over a box that answers from a list, spare boxes, and the items of AgentBench's files field by field."""

import asyncio
import json
import os
import threading
import zlib
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from firsthand.errors import ConfigError, DataError, SandboxError
from firsthand.sandbox.sandbox import Outcome
from firsthand.worlds.database import table_items
from firsthand.worlds.database.table_items import TableItem, is_right, read_item, table_md5
from firsthand.worlds.shell.os_items import OsItem, Script, _item, _moved, read_items
from firsthand.worlds.shell.shell_world import _SHELL, HOME, LIMITS, MAX_OUTPUT, ShellWorld, command
from firsthand.worlds.shell.spare_boxes import PATH, SpareBoxes
from firsthand.worlds.world import InvalidAction, WorldCall


def outcome(stdout: str = "", stderr: str = "", ended: str = "done", status: int | None = 0) -> Outcome:
    return Outcome(ended, status, stdout, stderr, 0.1, None, None, "none")  # type: ignore[arg-type]


class ListBox:
    """A box that notes its commands and answers from a list."""

    def __init__(self, *answers: Outcome, fails: bool = False) -> None:
        self.answers, self.fails = list(answers), fails
        self.said: list[tuple[tuple[str, ...], str]] = []
        self.closed = 0

    async def exec(self, words: Any, *, folder: str) -> Outcome:
        self.said.append((tuple(words), folder))
        if self.fails:
            raise SandboxError("no room")
        return self.answers.pop(0) if self.answers else outcome()

    async def close(self) -> None:
        self.closed += 1


class ListBoxes(SpareBoxes):
    """Boxes from a list."""

    def __init__(self, *boxes: ListBox, most: int = 3) -> None:
        super().__init__("/w", LIMITS, most)
        self.made, self.refilled = list(boxes), 0

    def refill(self) -> None:
        self.refilled += 1
        super().refill()

    def _made(self) -> Any:
        if not self.made:
            raise SandboxError("no box is left")
        return self.made.pop(0)


def opened(item: OsItem, *answers: Outcome) -> tuple[ShellWorld, ListBox]:
    box = ListBox(outcome(), *answers)  # the first makes /opt/bin
    return ShellWorld(item, ListBoxes(box)), box


def ran(item: OsItem, *answers: Outcome, do: Any = None) -> tuple[Any, ListBox, ShellWorld]:
    world, box = opened(item, *answers)

    async def attempt() -> Any:
        await world.open()
        await world.prepared()
        try:
            return await do(world) if do is not None else None
        finally:
            await world.close()

    return asyncio.run(attempt()), box, world


def test_a_command_that_is_cancelled_while_it_waits_leaves_the_world_to_the_next_one():
    async def attempt() -> tuple[str, str]:
        ready = asyncio.Event()

        class Slow(ListBox):
            async def exec(self, words: Any, *, folder: str) -> Outcome:
                await ready.wait()
                return await super().exec(words, folder=folder)

        box = Slow(outcome(), outcome("a\n"))
        world = ShellWorld(OsItem("i", "?"), ListBoxes(box))
        await world.open()
        first = asyncio.create_task(world.bash("echo 1"))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        ready.set()
        said = await world.bash("echo 2")
        await world.close()
        return said, str(world.ending)

    assert asyncio.run(attempt()) == ("The output of the OS:\na\n", "None")


def shell(code: str) -> tuple[tuple[str, ...], str]:
    return (("bash", "-c", _SHELL, "bash", code), "/")


def test_an_attempt_runs_the_items_scripts_in_order_before_the_first_command():
    item = OsItem("std-001", "?", (Script("bash", "echo $RANDOM"), Script("python", "print(1)")), "cd /data", match="1")
    _, box, world = ran(item)
    assert box.said[0] == (("mkdir", "-p", "/opt/bin"), "/")
    assert box.said[2:] == [(("python3", "-c", "print(1)"), HOME), shell("cd /data")]
    assert box.said[1] == (("bash", "-c", f"RANDOM={zlib.crc32(b'std-001') % 32768}\necho $RANDOM"), HOME)
    assert (box.closed, world.commands) == (1, [])
    failing = replace(item, start="")
    world, _ = opened(failing, outcome(ended="error", status=3), outcome(ended="timeout", status=None))

    async def attempt() -> str:
        await world.open()
        with pytest.raises(SandboxError) as refused:
            await world.bash("ls")
        await world.close()
        return str(refused.value)

    assert asyncio.run(attempt()) == "the script that prepares std-001 was stopped: timeout"
    assert world.ending == "sandbox failed"


def test_what_a_command_prints_is_told_cut_at_the_limit_and_with_the_reason_of_its_end():
    async def said(world: ShellWorld) -> list[str]:
        told = [await world.bash("c0")]
        assert world.render() == "$ c0\nout\nerr"
        assert world.boxes.refilled == 1  # type: ignore[attr-defined]
        told += [await world.bash(f"c{number}") for number in range(1, 6)]
        with pytest.raises(InvalidAction, match="there is no code: write Act: bash"):
            await world.bash(" \n")
        with pytest.raises(InvalidAction, match="the code holds a zero byte"):
            await world.bash("a\x00b")
        return told

    told, box, world = ran(
        OsItem("i", "?", match="1"), outcome("out", "err"), outcome(), outcome("x" * MAX_OUTPUT), outcome("y" * 801),
        outcome("z", ended="timeout"), outcome(ended="memory"), do=said,
    )  # fmt: skip
    assert told == [
        "The output of the OS:\nout\nerr", "The output of the OS is empty.", "The output of the OS:\n" + "x" * 800,
        "The output of the OS:\n" + "y" * 780 + "\n[truncated because the output is too long]",
        "The output of the OS:\nz\n[it did not end within 15 s and was stopped]",
        "The output of the OS:\n[it used too much memory or made too many files, and was stopped]",
    ]  # fmt: skip
    assert box.said[1:] == [shell(f"c{number}") for number in range(6)]
    assert world.commands == [f"c{number}" for number in range(6)]
    assert world.render().startswith("$ c5\n")
    assert ShellWorld(OsItem("i", "?", match="1")).render() == "/root$"


def test_what_a_command_printed_is_kept_whole_for_the_check_and_for_the_person_who_looks():
    async def act(world: ShellWorld) -> list[tuple[str, str]]:
        found = []
        for code in ("c0", "c1", "c2", "c3"):
            await world.bash(code)
            found.append((world.last_output, world.render()))
        return found

    long, tall = "x" * MAX_OUTPUT + "\n17\n", "y" * 3999 + "zz"
    told, _, _ = ran(
        OsItem("i", "?", match="1"), outcome(long[:-3], "17\n"), outcome(tall), outcome("a", ended="timeout"), outcome(),
        do=act,
    )  # fmt: skip
    assert told == [
        (long, f"$ c0\n{long.rstrip()}"), (tall, f"$ c1\n{tall[:4000]}"), ("a", "$ c2\na"), ("", "$ c3\n"),
    ]  # fmt: skip


def judged(item: OsItem, answer: str | None, *answers: Outcome) -> tuple[dict[str, Any], list[Any]]:
    async def end(world: ShellWorld) -> dict[str, Any]:
        if answer is None:
            assert await world.finish() == "It is finished." and world.ending == "finished"
        else:
            assert await world.answer_question(answer) == "The answer is taken." and world.ending == "answered"
        return await world.result()

    result, box, _ = ran(item, *answers, do=end)
    return result, box.said[1:]


def test_an_answer_is_judged_by_match_by_regex_or_by_all_checks_in_turn():
    exact, search = OsItem("i", "?", match="12"), OsItem("i", "?", regex=r"^1\d$")
    why = "compared with the expected answer"
    assert judged(exact, " 12\n")[0] == {"answer": " 12\n", "passed": True, "why": why, "commands": 0}
    assert judged(exact, "1")[0]["passed"] is judged(exact, None)[0]["passed"] is False
    assert judged(search, "17")[0]["passed"] is True
    assert judged(search, "7")[0] == {
        "answer": "7", "passed": False, "why": "compared with a regular expression", "commands": 0
    }  # fmt: skip
    checks = OsItem("i", "?", check=(None, Script("python", "p"), Script("bash", "b")), example=Script("bash", "ex"))
    passed, said = judged(checks, "A", outcome("one"), outcome("two"), outcome())
    assert (passed["passed"], passed["why"]) == (True, "all checks passed")
    assert said == [
        (("bash", "-c", "ex", "--", "A"), HOME), (("python3", "-c", "p", "A", "one"), HOME),
        (("bash", "-c", "b", "--", "A", "one", "two"), HOME),
    ]  # fmt: skip
    failed, said = judged(checks, None, outcome("one"), outcome("two", ended="error", status=4))
    assert failed == {"answer": None, "passed": False, "why": "check 2 of 3 ended with 4", "commands": 0}
    assert said[1] == (("python3", "-c", "p", "None", "one"), HOME)
    assert judged(checks, "A", outcome(ended="timeout", status=None))[0]["why"] == "check 1 of 3 ended with timeout"
    with pytest.raises(ConfigError, match=r"^the item i has no example, and its check uses one$"):
        judged(OsItem("i", "?", check=(None,)), "A")

    async def open_end(world: ShellWorld) -> Any:
        return await world.result()

    assert ran(exact, do=open_end)[0] == {"answer": None, "passed": False, "why": "it did not end", "commands": 0}


def test_the_published_solution_is_played_and_its_last_line_answered():
    item = OsItem("i", "?", check=(None,), example=Script("bash", "ex"))
    world = ShellWorld(item)
    assert world.optimal() == command("ex") == "bash\n\n```bash\nex\n```"
    world.commands, world.last_output = ["ex"], "warning\n42\n"
    assert world.optimal() == "answer(42)"
    world.item = replace(item, check=(Script("python", "import sys; sys.argv[1]"),))
    assert world.optimal() == "answer(42)"
    world.item = replace(item, check=(Script("bash", "test $1"),))
    assert world.optimal() == "finish"
    world.item = replace(item, match="7")
    assert world.optimal() == "answer(7)"
    assert world.render() == "$ ex\nwarning\n42"
    assert (world.typed("ls"), world.typed("Finish"), world.typed("answer(x)")) == (
        command("ls"),
        "Finish",
        "answer(x)",
    )
    assert {world.random(Random(seed)) for seed in range(60)} >= {command("pwd"), "finish", "answer(yes)"}
    reads = {
        "bash\n```bash\na\n```\nthen ```sh\nb \n```": WorldCall("bash", {"code": "a\n\nb "}),
        " Answer(f(x)) now": WorldCall("answer_question", {"answer": "f(x)"}),
        "FINISH it": WorldCall("finish", {}),
    }
    for text, call in reads.items():
        assert world.read(text) == call
    for text in ("bash ls", "answer)x(", "answer", "dance"):
        with pytest.raises(InvalidAction):
            world.read(text)


def test_spare_boxes_are_filled_up_to_one_less_than_were_taken_and_dropped_when_nobody_came():
    boxes = [ListBox() for _ in range(6)]
    pool = ListBoxes(*boxes, most=2)

    async def taken() -> Any:
        return await pool.take()

    assert asyncio.run(taken()) is boxes[0]
    assert boxes[0].said == [(("mkdir", "-p", "/opt/bin"), "/")]
    pool.refill()  # nothing after the first attempt
    assert (pool._filling, pool._spare) == (False, [])
    assert asyncio.run(taken()) is boxes[1]
    pool._fill()
    assert pool._spare == [boxes[2]]
    assert boxes[2].said == [(("mkdir", "-p", "/opt/bin"), "/")]
    assert asyncio.run(taken()) is boxes[2]
    pool._taken = 9
    pool._filling = True
    pool._fill()
    assert (pool._spare, pool._filling) == ([boxes[3], boxes[4]], False)
    pool._drop(8)
    assert len(pool._spare) == 2
    pool._drop(9)
    assert (pool._spare, boxes[3].closed, boxes[4].closed, boxes[2].closed) == ([], 1, 1, 0)
    pool._spare, pool._pid = [boxes[3]], -1  # a fork does not use its parent's
    assert asyncio.run(taken()) is boxes[5]
    assert pool._spare == []
    bad = ListBox(fails=True)
    pool.made = [bad]
    with pytest.raises(SandboxError, match="no room"):
        asyncio.run(taken())
    assert bad.closed == 1

    class Waiting(ListBox):
        async def exec(self, words: Any, *, folder: str) -> Outcome:
            raise asyncio.CancelledError  # the attempt ends while its box starts

    pool.made = [gone := Waiting()]
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(taken())
    assert gone.closed == 1
    pool._fill()  # none can be made: who needs one is told when it is taken
    assert not pool._filling
    for timer in [each for each in threading.enumerate() if isinstance(each, threading.Timer)]:
        if timer.function == pool._drop:
            timer.cancel()
    made = SpareBoxes("/w", LIMITS)._made()
    assert PATH.split(":")[0] == "/opt/bin"
    assert made is not None


def test_a_row_becomes_an_item_and_what_it_lacks_is_named(tmp_path):
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "make.sh").write_text("touch /usr/stock.log", "utf-8")
    row = {
        "description": "Look at /usr/stock.log", "create": {"init": [None, "echo /working", {"file": "make.sh"}]},
        "start": "cd /usr/local/bin/x", "example": "not this",
        "evaluation": {"check": [None, {"language": "python", "code": "p"}], "example": {"code": "ex"}},
    }  # fmt: skip
    item = _item(row, "id", scripts, "w")
    assert item == OsItem(
        "id", "Look at /data/stock.log",
        (Script("bash", "echo /data/working"), Script("bash", "touch /data/stock.log")), "cd /opt/bin/x", None, None,
        (None, Script("python", "p")), Script("bash", "ex"),
    )  # fmt: skip
    assert OsItem.from_json(json.loads(json.dumps(item.to_json()))) == item
    assert _item({"description": "d", "evaluation": {"match": 5}}, "i", scripts, "w") == OsItem("i", "d", match="5")
    regex = {"description": "d", "start": {"file": "make.sh"}, "evaluation": {"match": {"regex": "a+", "answer": None}}}
    assert _item(regex, "i", scripts, "w") == OsItem("i", "d", (), "touch /data/stock.log", None, "a+")
    own = {"description": "d", "example": "e", "evaluation": {"check": "one"}}
    assert _item(own, "i", scripts, "w") == OsItem(
        "i", "d", check=(Script("bash", "one"),), example=Script("bash", "e")
    )
    ok = {"match": "1"}
    for bad, told in (
        ([], "an object with a description was expected, not '[]'"),
        ({"description": 3}, "an object with a description was expected, not \"{'description': 3}\""),
        ({"description": "d", "evaluation": {"x": 1}}, "the evaluation holds neither match nor check: \"{'x': 1}\""),
        ({"description": "d", "evaluation": {"match": None}}, "there is nothing to compare an answer with"),
        ({"description": "d", "evaluation": {"check": [None]}}, "the check uses an example, and there is none"),
        ({"description": "d", "evaluation": ok, "create": {"init": 4}},
         "a script is '4': text, or an object with code or file, was expected"),
        ({"description": "d", "evaluation": ok, "create": {"init": {"code": "x", "language": "perl"}}},
         "a script is in 'perl': bash or python was expected"),
        ({"description": "d", "evaluation": ok, "create": {"init": {"file": "../x"}}},
         f"the script '../x' lies outside {scripts}"),
    ):  # fmt: skip
        with pytest.raises(DataError) as refused:
            _item(bad, "i", scripts, "w")
        assert str(refused.value) == f"w: {told}"
    with pytest.raises(DataError, match=r"^w: .*none\.sh cannot be read: "):
        _item({"description": "d", "evaluation": ok, "create": {"init": {"file": "none.sh"}}}, "i", scripts, "w")
    assert _moved("/usr/local/bin/a /working/usr/stock.log") == "/opt/bin/a /data/working/data/stock.log"
    for split, file, ids in (
        ("dev", "dev.json", ["dev-001-dev-00000", "dev-001-dev-00001"]),
        ("std", "3/b.json", ["std-003-b-00000", "std-003-b-00001"]),
    ):
        path = tmp_path / "data" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([{"description": "d", "evaluation": ok}] * 2))
        assert [each.id for each in read_items(tmp_path, split)] == ids


def test_a_script_file_lies_inside_its_folder_however_that_is_named(tmp_path, monkeypatch):
    (tmp_path / "scripts" / "in").mkdir(parents=True)
    (tmp_path / "scripts2").mkdir()
    for name in ("scripts/a.sh", "scripts/in/b.sh", "scripts2/c.sh", "d.sh"):
        (tmp_path / name).write_text(f"echo {name}", "utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "scripts")
    (tmp_path / "scripts" / "out.sh").symlink_to(tmp_path / "d.sh")
    monkeypatch.chdir(tmp_path)

    def read(folder, name):
        row = {"description": "d", "start": {"file": name}, "evaluation": {"match": "1"}}
        return _item(row, "i", folder, "w").start

    for folder in (
        tmp_path / "scripts",
        Path("scripts"),
        Path("./scripts2/../scripts"),
        Path("link"),
        tmp_path / "link",
    ):
        assert read(folder, "a.sh") == read(folder, "in/../a.sh") == "echo scripts/a.sh"
        assert read(folder, "in/b.sh") == "echo scripts/in/b.sh"
        assert read(folder, str(tmp_path / "scripts" / "a.sh")) == "echo scripts/a.sh"
        for name in ("../d.sh", "../scripts2/c.sh", "out.sh", str(tmp_path / "d.sh"), "..", "in/../../d.sh"):
            with pytest.raises(DataError) as refused:
                read(folder, name)
            assert str(refused.value) == f"w: the script {name!r} lies outside {folder}"
    for name, told in ((3, "'3'"), (None, "'None'"), (["a.sh"], "\"['a.sh']\""), ("a\0b", "'a\\x00b'")):
        for body in ({"file": name}, {"code": "x", "file": name}):
            row = {"description": "d", "start": body, "evaluation": {"match": "1"}}
            if isinstance(name, str) or "code" in body:
                with pytest.raises(DataError) as refused:
                    _item(row, "i", Path("scripts"), "w")
                assert str(refused.value) == f"w: the file of a script is {told}: the name of a file was expected"
    for name in ("none.sh", "in", "."):
        with pytest.raises(DataError, match=r"^w: .*scripts.* cannot be read: "):
            read(Path("scripts"), name)


def test_a_row_of_dbbench_becomes_a_table_and_what_it_lacks_is_named(monkeypatch):
    monkeypatch.setattr(table_items, "MAX_CELLS", 6)
    info = {"columns": [{"name": "a"}, {"name": "b"}], "rows": [[1, None], ["x", 2.5]]}
    row = {"type": ["counting", "other"], "table": {"table_name": "T", "table_info": info}, "label": [3, "y"]}
    assert read_item(row, "w") == TableItem("counting", "T", ("a", "b"), (("1", "None"), ("x", "2.5")), ("3", "y"))
    write = {**row, "type": ["UPDATE"], "answer_md5": "[('abc',)]"}
    assert read_item(write, "w").md5 == "abc"
    assert (read_item(write, "w").is_write, read_item(row, "w").is_write) == (True, False)
    assert read_item({**row, "answer_md5": "abc"}, "w").md5 == ""
    assert TableItem.from_json(json.loads(json.dumps(read_item(write, "w").to_json()))) == read_item(write, "w")

    def table(**changes: Any) -> dict[str, Any]:
        return {"table": {"table_name": "T", "table_info": {**info, **changes}}}

    lies = "which no item of dbbench does"
    for changes, told in (
        ({"type": []}, f"the field 'type' holds '[]', {lies}"), ({"type": [1]}, f"the field 'type' holds '[1]', {lies}"),
        ({"table": {"table_name": 1}}, f"the field 'table' holds \"{{'table_name': 1}}\", {lies}"),
        ({"label": []}, f"the field 'label' holds '[]', {lies}"),
        ({"type": ["INSERT"]}, f"the field 'answer_md5' holds 'None', {lies}"),
        (table(columns=3), "the table's columns are '3', and a list was expected"),
        (table(rows=None), "the table's rows are 'None', and a list was expected"),
        (table(columns=[]), "the columns are [], and different names were expected"),
        (table(columns=[{"name": "a"}, {"name": "a"}]), "the columns are ['a', 'a'], and different names were expected"),
        (table(columns=[{"name": "a"}, {}]), "the columns are ['a', None], and different names were expected"),
        (table(rows=[[1, 2], [1]]), "the rows are not lists of 2 cells, at most 6 in all"),
        (table(rows=[[1, 2]] * 4), "the rows are not lists of 2 cells, at most 6 in all"),
    ):  # fmt: skip
        with pytest.raises(DataError) as refused:
            read_item({**row, **changes}, "w")
        assert str(refused.value) == f"w: {told}"
    assert len(read_item({**row, **table(rows=[[1, 2]] * 3)}, "w").rows) == 3
    assert table_md5([("a", None), ("b", "c")]) == table_md5([("b", "c"), ("a",)]) != table_md5([("a", ""), ("b", "c")])
    rights = [
        is_right(given, label)
        for given, label in (
            (["1.0"], ["1"]), ([1], ["1.5"]), (["x"], ["x"]), (["x"], ["X"]), (["a", "b"], ["b", "a", "a"]),
            (["a"], ["a", "b"]),
            ([["a"]], ["a", "b"]), ([None], ["None"]),
        )
    ]  # fmt: skip
    assert rights == [True, False, True, False, True, False, False, False]


def test_a_fork_that_was_made_while_spare_boxes_were_started_starts_its_own():
    parents, *boxes = [ListBox() for _ in range(5)]
    pool = ListBoxes(*boxes, most=2)
    pool._spare, pool._filling, pool._pid, pool._taken = [parents], True, -1, 1
    assert asyncio.run(pool.take()) is boxes[0]
    assert (pool._spare, pool._filling, pool._pid, pool._taken) == ([], False, os.getpid(), 2)
    pool.refill()
    for thread in [each for each in threading.enumerate() if each.name == "spare sandboxes"]:
        thread.join(10)
    assert (pool._spare, pool._filling, parents.said, parents.closed) == ([boxes[1]], False, [], 0)
    pool._filling = True  # it is the same process now
    assert asyncio.run(pool.take()) is boxes[1]
    assert pool._filling
    for timer in [each for each in threading.enumerate() if isinstance(each, threading.Timer)]:
        if timer.function == pool._drop:
            timer.cancel()
