"""Tasks that an earlier MCP server left in a file, read, gone on with and ended by the next one in both revisions."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import mcp_types as types
from mcp import MCPError

from firsthand.runs.database import Database
from firsthand.serve.mcp import server_tasks
from firsthand.serve.mcp.exchange import ParkedExchange
from firsthand.serve.mcp.mcp_server import McpServer, Offer
from firsthand.serve.mcp.older_tasks import RELATED, OlderTasks
from firsthand.serve.mcp.running_call import RunningCall
from firsthand.serve.mcp.served_tool import ServedTool
from firsthand.serve.mcp.server_tasks import ServerTask, ServerTasks, TaskIdParams, _answers, row_state
from firsthand.serve.mcp.task_file import SCHEMA, TASKS_FILE, TaskFile, TaskRow
from mcp_contexts import ASK, OLDER, context


def row(id: str, status: str = "working", outcome: Any = None, **more: Any) -> TaskRow:
    fields = {"owner": "ann", "tool": "ask", "arguments": {"n": id}, "declared": {"elicitation": {}}, "answers": {},
              "note": "", "status": status, "outcome": outcome, "created_at": f"c{id}", "updated_at": f"u{id}",
              "expires": time.time() + 60}  # fmt: skip
    return TaskRow(id, **(fields | more))  # type: ignore[arg-type]


def about(id: str) -> TaskIdParams:
    return TaskIdParams(taskId=id)  # type: ignore[call-arg]


def filed(folder: Path, *rows: TaskRow) -> TaskFile:
    file = TaskFile(folder)
    for each in rows:
        file.add(each)
        if each.outcome is not None or each.status != "working":
            with file._database.write() as connection:
                connection.execute("UPDATE tasks SET status = 'working' WHERE id = ?", (each.id,))
            file.end(each.id, each.status, each.outcome, each.updated_at)
    return file


def test_a_task_that_is_over_is_read_from_the_file_in_both_revisions(tmp_path: Path) -> None:
    result = {"content": [{"type": "text", "text": "x"}], "_meta": {"a": 1}}
    error = {"code": -7, "message": "own", "data": [1]}
    file = filed(tmp_path, row("1", "completed", result), row("2", "failed", error), row("3", "cancelled"))
    tasks = ServerTasks(file)
    older = OlderTasks(tasks, lambda name: None)
    new, old = context(client="ann", tasks=True), context(OLDER, client="ann")

    async def main() -> None:
        ids = {"taskId": "1", "createdAt": "c1", "lastUpdatedAt": "u1"}
        assert await tasks.get(context(client="ann", tasks=True, name="1"), about("1")) == {
            **ids, "status": "completed", "ttlMs": 3_600_000, "pollIntervalMs": 500, "result": result,
        }  # fmt: skip
        assert await older.get(old, about("1")) == {**ids, "status": "completed", "ttl": 3_600_000, "pollInterval": 500}
        assert (await older.get(old, about("2")))["statusMessage"] == "own"
        assert await older.result(old, about("1")) == result | {"_meta": {"a": 1, RELATED: {"taskId": "1"}}}
        for work, told in (
            (older.result(old, about("2")), (-7, "own", [1])),
            (older.result(old, about("3")), (-32602, "the task was cancelled, and has no result", None)),
            (older.cancel(old, about("2")), (-32602, "the task is failed: only one that runs is cancelled", None)),
            (
                older.get(context(OLDER, client="bob"), about("1")),
                (-32602, "there is no such task: it may be too old, or the server began anew", None),
            ),
        ):
            with pytest.raises(MCPError) as caught:
                await work
            assert (caught.value.error.code, caught.value.error.message, caught.value.error.data) == told
        named = context(client="ann", tasks=True, name="2")
        assert (await tasks.get(named, about("2")))["error"] == error and await tasks.cancel(named, about("2")) == {}
        assert row_state(file.find("2") or row("0"))["status"] == "failed"
        with pytest.raises(MCPError):
            await tasks.get(new, about("1"))  # it does not name the task in its header
        await tasks.close()

    asyncio.run(main())


def test_the_next_server_goes_on_with_each_task_under_its_own_arguments_answers_and_note(tmp_path: Path) -> None:
    yes = {"action": "accept", "content": {"w": "yes"}}
    file = filed(
        tmp_path, row("1", answers={"k": yes}, note="run 1"), row("2", owner=None, note="run 2"),
        row("3", "completed", {"content": []}), row("4", expires=time.time() - 1),
    )  # fmt: skip
    seen: list[Any] = []

    async def run(arguments: Any, exchange: Any) -> str:
        seen.append((arguments, exchange.task, exchange.note, exchange.client, exchange.can("elicitation")))
        exchange.keep(f"{exchange.note} again")
        return str((await exchange.ask("k", ASK)).content["w"])

    async def main() -> None:
        made = McpServer(Offer([ServedTool("ask", "", {}, run, resumes=True)]), file)
        made.resume()
        tasks = made.tasks.tasks
        assert list(tasks) == ["1", "2"] and [task.created for task in tasks.values()] == ["c1", "c2"]
        await tasks["1"].call.task
        await tasks["2"].call.settled()
        await asyncio.sleep(0)
        assert seen == [({"n": "1"}, "1", "run 1", "ann", True), ({"n": "2"}, "2", "run 2", None, True)]
        kept = [file.find(id) for id in ("1", "2")]
        assert [(each.status, each.note) for each in kept if each] == [
            ("completed", "run 1 again"),
            ("working", "run 2 again"),
        ]
        assert made.tasks.find("ann", "1").state()["result"]["content"][0]["text"] == "yes"  # type: ignore[union-attr]
        assert list(tasks["2"].state()["inputRequests"]) == ["k"]
        await made.close()

    asyncio.run(asyncio.wait_for(main(), 5))
    again = TaskFile(tmp_path)
    assert [each.id for each in again.unfinished()] == ["2"], "it goes on with the server after this one"
    again.close()


def test_answers_of_a_client_are_read_by_their_kind_and_others_left_out() -> None:
    given = {
        "form": {"action": "accept", "content": {"n": 1}}, "no": {"action": "decline"},
        "roots": {"roots": [{"uri": "file:///x"}]}, "odd": {"x": 1}, "text": "yes",
        "model": {"role": "assistant", "model": "m", "content": {"type": "text", "text": "t"}},
    }  # fmt: skip
    found = _answers(given)
    assert {key: type(value) for key, value in found.items()} == {
        "form": types.ElicitResult, "no": types.ElicitResult, "roots": types.ListRootsResult,
        "model": types.CreateMessageResult,
    }  # fmt: skip
    assert found["form"].content == {"n": 1} and found["no"].content is None and _answers({}) == {}


def test_an_end_is_kept_once_with_its_outcome_and_an_empty_one_is_one(tmp_path: Path) -> None:
    file = filed(tmp_path, *(row(id) for id in "abcd"))
    for id, outcome in (("a", {}), ("b", None), ("c", {"content": []})):
        file.end(id, "completed", outcome, f"e{id}")
        file.end(id, "failed", {"code": 1}, "later")
    file.end("none", "failed", {}, "later")
    assert [file.find(id) and vars(file.find(id)) for id in "abc"] == [
        vars(row(id, "completed", outcome, updated_at=f"e{id}", expires=file.find(id).expires))  # type: ignore[union-attr]
        for id, outcome in (("a", {}), ("b", None), ("c", {"content": []}))
    ]
    assert [each.id for each in file.unfinished()] == ["d"] and file.find("none") is None
    file.forget("d")
    assert file.unfinished() == [] and file.find("d") is None
    file.close()


def test_a_task_is_gone_once_its_time_is_over_and_answers_and_notes_are_added_to_its_own(tmp_path: Path) -> None:
    file = filed(tmp_path, row("old", expires=time.time() - 1), row("a", answers={"k": {"n": 1}}), row("b"))
    assert file.find("old") is None and [each.id for each in file.unfinished()] == ["a", "b"]
    assert [id for (id,) in file._database.read("SELECT id FROM tasks ORDER BY rowid")] == ["a", "b"], "it was dropped"
    file.add_answers("a", {"k": {"n": 2}, "m": {"n": 3}})
    file.add_answers("a", {})
    file.add_answers("none", {"k": {}})
    file.keep_note("a", "half way")
    found = {each.id: each for each in file.unfinished()}
    assert (found["a"].answers, found["a"].note) == ({"k": {"n": 2}, "m": {"n": 3}}, "half way")
    assert (found["b"].answers, found["b"].note, found["b"].declared) == ({}, "", {"elicitation": {}})
    file.close()


def test_tasks_that_are_over_and_too_old_are_dropped_at_the_start_and_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_tasks, "SWEEP_S", 0.01)
    past = time.time() - 1
    file = filed(tmp_path, row("new"), row("over", "completed", {}))

    def ids() -> list[str]:
        return [id for (id,) in file._database.read("SELECT id FROM tasks ORDER BY rowid")]

    def age(*old: str) -> None:
        with file._database.write() as connection:
            connection.executemany("UPDATE tasks SET expires = ? WHERE id = ?", [(past, id) for id in old])

    async def run(arguments: Any, exchange: Any) -> str:
        await asyncio.sleep(0 if arguments["n"] == "quick" else 60)
        return "done"

    async def main() -> None:
        age("new", "over")
        tasks = ServerTasks(file)
        tasks.resume({})
        assert ids() == [], "whether they had an end or not"
        tool = ServedTool("t", "", {}, run)

        def begun(kind: str) -> ServerTask:
            exchange = ParkedExchange(None, {}, {})
            return tasks.begin(RunningCall("t", tool.result({"n": kind}, exchange), exchange), None, "t", {})

        quick, late, slow = begun("quick"), begun("quick"), begun("slow")
        slow.until = late.until = time.monotonic() - 1
        age(late.call.id, slow.call.id)
        await asyncio.wait({quick.call.task, late.call.task})
        await asyncio.sleep(0.05)
        assert ids() == [each.call.id for each in (quick, late, slow)], "what ends late can be read, what runs goes on"
        found = tasks.find(None, late.call.id)
        assert isinstance(found, ServerTask) and found.state()["result"]["content"][0]["text"] == "done"
        assert late.until > time.monotonic() + 500 and found.call.task.result() is None, "it is read from the file"
        late.until = time.monotonic() - 1
        age(late.call.id)
        for _ in range(200):
            if late.call.id not in [*tasks.tasks, *ids()]:
                break
            await asyncio.sleep(0.01)
        assert list(tasks.tasks) == ids() == [quick.call.id, slow.call.id]
        await tasks.close()
        assert tasks._sweeping is not None and tasks._sweeping.cancelled()

    asyncio.run(asyncio.wait_for(main(), 10))


def test_a_file_of_an_earlier_version_is_read_and_counted(tmp_path: Path) -> None:
    first = Database(tmp_path / TASKS_FILE, create=True, schema=replace(SCHEMA, migrations=SCHEMA.migrations[:1]))
    with first.write() as connection:
        connection.execute(
            "INSERT INTO tasks VALUES ('1', 'ann', 't', '{}', '{}', '{}', '', 'completed', '{\"a\": 1}', 'c', 'u', ?)",
            (time.time() + 60,),
        )
    first.close()
    file = TaskFile(tmp_path)
    kept = file.find("1")
    assert kept is not None and kept.outcome == {"a": 1} and file.size_bytes("ann") == 14
    file.close()


def test_texts_of_a_task_are_kept_as_utf8_and_half_surrogates_too(tmp_path: Path) -> None:
    file = filed(
        tmp_path, row("1", arguments={"q": "é"}, declared={}), row("2", arguments={"q": "\ud800"}, declared={})
    )
    rows = file._database.read("SELECT arguments, size FROM tasks ORDER BY id")
    assert rows == [('{"q": "é"}', 15), ('{"q": "\\ud800"}', 19)]
    assert [each.arguments for each in file.unfinished()] == [{"q": "é"}, {"q": "\ud800"}]
    file.add_answers("1", {"k": "éé"})
    file.end("1", "completed", {"r": "é"}, "t")
    file.end("1", "failed", {"r": "é" * 99}, "t")
    assert file._database.read("SELECT size FROM tasks WHERE id = '1'") == [(15 + 11 + 11,)]
    file.close()


def test_a_client_whose_tasks_take_all_they_may_is_refused_and_its_call_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_tasks, "MAX_OWN_BYTES", 1000)
    ran: list[str] = []

    async def run(arguments: Any, exchange: Any) -> str:
        ran.append(exchange.client)
        return "done"

    async def main() -> None:
        tasks = ServerTasks(TaskFile(tmp_path))
        tool = ServedTool("t", "", {}, run)

        async def call(owner: str | None, size: int) -> None:
            exchange, given = ParkedExchange(None, {}, {}, client=owner), {"n": "x" * size}
            made = tasks.begin(RunningCall("t", tool.result(given, exchange), exchange), owner, "t", given)
            while not made.is_over:
                await asyncio.sleep(0)

        for owner in ("ann", None):
            ran.clear()
            for size in (500, 500):
                await call(owner, size)
            with pytest.raises(MCPError, match=r"your tasks of the last hour take 1,\d\d\d bytes, and may take 1,000"):
                await call(owner, 0)
            await asyncio.sleep(0.01)
            assert ran == [owner, owner]
        await call("bob", 500)
        monkeypatch.setattr(server_tasks, "MAX_OWN_TASKS", 0)
        ran.clear()
        with pytest.raises(MCPError, match="tasks of yours are under way"):
            await call("eve", 0)
        await asyncio.sleep(0.01)
        assert ran == [], "a call that is not taken is not made"
        await tasks.close()

    asyncio.run(main())
