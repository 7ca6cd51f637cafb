"""The handlers of MCP tasks called one by one, in both revisions, without a wire."""

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

from firsthand.errors import ToolError
from firsthand.serve.mcp.exchange import ParkedExchange
from firsthand.serve.mcp.older_tasks import OFFERED, RELATED, OlderTasks, _whole
from firsthand.serve.mcp.running_call import RunningCall
from firsthand.serve.mcp.served_tool import ServedTool, failed, text_result
from firsthand.serve.mcp.server_tasks import (
    MAX_OWN_TASKS,
    MAX_TASKS,
    ServerTask,
    ServerTasks,
    TaskIdParams,
    TaskUpdateParams,
    declares_tasks,
    expect_name_header,
    expect_tasks,
)
from firsthand.serve.mcp.task_file import TaskFile, TaskRow, _row
from mcp_contexts import ASK, MODERN, OLDER, OLDEST, Session, chose, context

NO_TASK = (-32602, "there is no such task: it may be too old, or the server began anew", None)


async def told(work: Any) -> tuple[int, str, Any]:
    """Code, message and data of the error that a handler answers with."""
    with pytest.raises(MCPError) as caught:
        await work
    return caught.value.error.code, caught.value.error.message, caught.value.error.data


def about(id: str) -> TaskIdParams:
    return TaskIdParams(taskId=id)  # type: ignore[call-arg]


def call_of(work: Any, id: str = "") -> RunningCall:
    return RunningCall("t", work, ParkedExchange(None, {"elicitation": {}}, {}), id)


def asking(id: str, *keys: str) -> RunningCall:
    """A call that asks for these, one after the other, and answers with the words it got."""
    exchange = ParkedExchange(None, {"elicitation": {}}, {})

    async def work() -> Any:
        return text_result(" ".join([(await exchange.ask(key, ASK)).content["w"] for key in keys]))

    return RunningCall("t", work(), exchange, id)


async def says(text: str) -> Any:
    return text_result(text)


# -- 2026-07-28 --


def test_a_client_of_the_newer_revision_that_declared_the_extension_knows_tasks() -> None:
    for version, tasks, expected in (
        (MODERN, True, True), (MODERN, False, False), ("2027-01-01", True, True), (OLDER, True, False),
        (OLDEST, True, False),
    ):  # fmt: skip
        ctx = context(version, tasks=tasks)
        assert declares_tasks(ctx) is expected
        if expected:
            expect_tasks(ctx)
        else:
            with pytest.raises(MCPError, match="needs a client with the Tasks extension"):
                expect_tasks(ctx)
    expect_name_header(context(), "1")
    expect_name_header(context(name="1"), "1")
    for ctx in (context(name="2"), context(client="ann")):
        with pytest.raises(MCPError, match="is not the taskId of the request") as caught:
            expect_name_header(ctx, "1")
        assert caught.value.error.code == types.HEADER_MISMATCH


def test_a_task_is_polled_answered_and_cancelled_by_its_own_client_alone(tmp_path: Path) -> None:
    async def main() -> None:
        tasks = ServerTasks(TaskFile(tmp_path))
        file = tasks.file
        assert file is not None
        task = tasks.begin(asking("1", "a", "b"), "ann", "ask", {"q": 1})
        kept = file.find("1")
        assert kept is not None and 3590 < kept.expires - time.time() <= 3600
        assert replace(kept, expires=0.0) == TaskRow(
            "1", "ann", "ask", {"q": 1}, {"elicitation": {}}, {}, "", "working", None, task.created, task.updated, 0.0
        )
        ann, bob, blind = (
            context(client="ann", name="1", tasks=True), context(client="bob", name="1", tasks=True),
            context(client="ann", name="1"),
        )  # fmt: skip
        await task.call.settled()
        state = await tasks.get(ann, about("1"))
        assert (state["taskId"], state["status"], list(state["inputRequests"])) == ("1", "input_required", ["a"])
        answers: Any = {"a": {"action": "accept", "content": {"w": "x"}}, "b": {"action": "accept"}, "c": {"odd": 1}}
        update = TaskUpdateParams(taskId="1", inputResponses=answers)  # type: ignore[call-arg]
        for handler, params in ((tasks.get, about("1")), (tasks.update, update), (tasks.cancel, about("1"))):
            assert await told(handler(bob, params)) == NO_TASK  # type: ignore[operator]
            assert (await told(handler(blind, params)))[0] == types.MISSING_REQUIRED_CLIENT_CAPABILITY  # type: ignore[operator]
            other = context(client="ann", name="2", tasks=True)
            assert (await told(handler(other, params)))[0] == types.HEADER_MISMATCH  # type: ignore[operator]
        assert list(task.call.exchange.pending) == ["a"]
        assert await tasks.update(ann, update) == {}
        assert list(task.call.exchange.pending) == ["b"], "an answer to what was not asked yet is not kept"
        row = file.find("1")
        assert row is not None and row.answers == {"a": answers["a"]}
        state = await tasks.get(ann, about("1"))
        assert state["lastUpdatedAt"] == task.updated and list(state["inputRequests"]) == ["b"]
        assert await tasks.cancel(ann, about("1")) == {} and task.is_over
        state = await tasks.get(ann, about("1"))
        assert state == {"taskId": "1", "status": "cancelled", "createdAt": task.created, "lastUpdatedAt": task.updated,
                         "ttlMs": 3_600_000, "pollIntervalMs": 500}  # fmt: skip
        row = file.find("1")
        assert row is not None and (row.status, row.outcome) == ("cancelled", None)
        assert await tasks.cancel(ann, about("1")) == {} and await tasks.update(ann, update) == {}
        done = tasks.begin(call_of(says("fine"), "2"), None, "ask", {})
        await done.call.task
        free = context(tasks=True)
        assert (await tasks.get(free, about("2")))["result"] == {
            "content": [{"type": "text", "text": "fine"}],
            "resultType": "complete",
        } | {key: value for key, value in done.end()[1].items() if key != "content"}  # type: ignore[union-attr]
        tasks.tasks.clear()
        row = file.find("2")
        assert row is not None and row.status == "completed" and (await tasks.get(free, about("2")))["taskId"] == "2"
        assert await tasks.update(free, TaskUpdateParams(taskId="2", inputResponses={})) == {}  # type: ignore[call-arg]
        assert await tasks.cancel(free, about("2")) == {} and await told(tasks.get(free, about("3"))) == NO_TASK
        await tasks.close()
        assert tasks.file is None

    asyncio.run(main())


def test_a_task_that_ends_with_its_server_stays_open_in_the_file(tmp_path: Path) -> None:
    async def main() -> None:
        tasks = ServerTasks(TaskFile(tmp_path))
        running = tasks.begin(call_of(asyncio.sleep(9), "run"), "ann", "t", {})
        running.call.exchange.keep("note 1")
        over = tasks.begin(call_of(says("x"), "over"), "ann", "t", {})
        assert (running.call.exchange.task, over.call.exchange.task) == ("run", "over")
        await over.call.task
        await tasks.close()
        assert running.is_over and not running.is_kept and over.is_kept

    asyncio.run(main())
    file = TaskFile(tmp_path)
    rows = {id: file.find(id) for id in ("run", "over")}
    assert {id: (row.status, row.note) for id, row in rows.items() if row} == {
        "run": ("working", "note 1"), "over": ("completed", ""),
    }  # fmt: skip
    file.close()
    given = ("1", None, "t", '{"a": 1}', '{"d": 2}', '{"e": 3}', "n", "failed", '{"m": 4}', "c", "u", 5)
    assert _row(*given) == TaskRow(  # type: ignore[arg-type]
        "1", None, "t", {"a": 1}, {"d": 2}, {"e": 3}, "n", "failed", {"m": 4}, "c", "u", 5.0
    )


def test_tasks_that_are_over_make_room_for_others_and_those_that_run_do_not(tmp_path: Path) -> None:
    async def main() -> None:
        tasks = ServerTasks(TaskFile(tmp_path))
        file = tasks.file
        assert file is not None

        def begin(owner: str | None, id: str, work: Any = None) -> ServerTask:
            return tasks.begin(call_of(work or asyncio.sleep(60), id), owner, "t", {})

        old, kept, done, bobs = (begin("ann", "old"), begin("bob", "kept"), begin("ann", "done", says("x")),
                                 begin("bob", "bobs", says("x")))  # fmt: skip
        await asyncio.wait({done.call.task, bobs.call.task})
        old.until = time.monotonic() - 0.5
        kept.until = time.monotonic() + 5.0
        begin(None, "new")
        assert list(tasks.tasks) == ["kept", "done", "bobs", "new"] and file.find("old") is None
        await asyncio.wait({old.call.task})
        assert old.call.task.cancelled() and file.find("kept") is not None
        call = done.call
        for at in range(MAX_OWN_TASKS - 1):  # in memory alone: their ends are not asked for
            tasks.tasks[f"a{at}"] = ServerTask(call_of(asyncio.sleep(60), f"a{at}"), "ann")
        begin("bob", "b")
        assert "done" in tasks.tasks, "another client's limit is not this one's"
        begin("ann", "last")
        assert "done" not in tasks.tasks and "bobs" in tasks.tasks and file.find("done") is None and call.task.done()
        refused = call_of(asyncio.sleep(60), "c")
        with pytest.raises(MCPError, match=r"^250 tasks of yours are under way, which is the limit: try later"):
            tasks.begin(refused, "ann", "t", {})
        refused.task.cancel()
        count = len(tasks.tasks)
        for at in range(MAX_TASKS - count):
            tasks.tasks[f"n{at}"] = ServerTask(call, None)
        begin(None, "one more")
        assert (
            "bobs" not in tasks.tasks and len(tasks.tasks) == MAX_TASKS and f"n{MAX_TASKS - count - 1}" in tasks.tasks
        )
        assert "n0" in tasks.tasks, "the oldest that is over makes room, and no other"
        tasks.tasks.update({id: kept for id, task in tasks.tasks.items() if task.is_over})
        refused = call_of(asyncio.sleep(60), "d")
        with pytest.raises(MCPError, match=r"^1000 tasks are under way, which is the limit: try later"):
            tasks.begin(refused, None, "t", {})
        refused.task.cancel()
        for task in tasks.tasks.values():
            task.call.task.cancel()
        tasks.tasks.clear()
        await tasks.close()

    asyncio.run(main())


# -- 2025-11-25 --


def older() -> tuple[OlderTasks, ServerTasks]:
    async def run(arguments: Any, exchange: Any) -> Any:
        if arguments.get("text") == "wrong":
            return failed("own")
        words = [(await exchange.ask(key, ASK)).content["w"] for key in arguments.get("text", "").split()]
        return f"{exchange.client} {' '.join(words)}"

    async def prepare(arguments: Any, exchange: Any) -> Any:
        return {"text": (await exchange.ask("first", ASK)).content["w"]}

    def check(arguments: Any) -> None:
        if arguments.get("text") == 0:
            raise ToolError("no zero")

    shape = {"type": "object", "properties": {"text": {"type": "string"}}}
    may = ServedTool("may", "", shape, run, as_task="may")
    known = {"may": may, "never": replace(may, name="never", as_task="never"),
             "must": replace(may, name="must", as_task="must", prepare=prepare),
             "checked": replace(may, name="checked", check=check)}  # fmt: skip
    tasks = ServerTasks()
    return OlderTasks(tasks, known.get), tasks


def call(name: str, text: Any = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "arguments": {} if text is None else {"text": text}, "task": {}, **more}


def test_the_older_revision_is_told_of_tasks_and_its_calls_become_some() -> None:
    handlers, tasks = older()

    async def next_one(ctx: Any) -> Any:
        return {"protocolVersion": ctx.protocol_version, "capabilities": {"tools": {}}, "seen": ctx.method}

    async def passed(version: str, method: str, params: Any = None) -> Any:
        return await handlers.middleware(context(version, method=method, params=params, client="ann"), next_one)

    async def main() -> None:
        for version, capabilities in (
            (OLDER, {"tools": {}, "tasks": OFFERED}), (OLDEST, {"tools": {}}), (MODERN, {"tools": {}}),
        ):  # fmt: skip
            hello = await passed(version, "initialize")
            assert hello == {"protocolVersion": version, "capabilities": capabilities, "seen": "initialize"}
        assert OFFERED == {"cancel": {}, "requests": {"tools": {"call": {}}}}
        for version, method, params in (
            (MODERN, "tools/call", call("may")), (OLDEST, "tools/call", call("may")), (OLDER, "tools/list", call("may")),
            (OLDER, "tools/call", {"name": "may"}), (OLDER, "tools/call", {"name": "may", "task": None}),
            (OLDER, "ping", None),
        ):  # fmt: skip
            assert (await passed(version, method, params))["seen"] == method
        assert tasks.tasks == {}
        begun = await passed(OLDER, "tools/call", call("may"))
        ((id, task),) = tasks.tasks.items()
        assert begun == {"task": {"taskId": id, "status": "working", "createdAt": task.created,
                                  "lastUpdatedAt": task.updated, "ttl": 3_600_000, "pollInterval": 500}}  # fmt: skip
        assert task.owner == "ann" and task.call.exchange.declared == {"elicitation": {}}
        await task.call.task
        ann, bob = context(OLDER, client="ann"), context(OLDER, client="bob")
        assert await told(handlers.get(bob, about(id))) == NO_TASK
        assert await told(handlers.cancel(bob, about(id))) == NO_TASK
        assert await told(handlers.result(bob, about(id))) == NO_TASK
        assert (await handlers.get(ann, about(id)))["status"] == "completed"
        assert "result" not in await handlers.get(ann, about(id))
        result = await handlers.result(ann, about(id))
        assert result["content"] == [{"type": "text", "text": "ann "}] and result["_meta"] == {RELATED: {"taskId": id}}
        assert await told(handlers.cancel(ann, about(id))) == (
            -32602, "the task is completed: only one that runs is cancelled", None,
        )  # fmt: skip
        for params, expected in (
            (call("none"), (-32602, "there is no tool 'none'", None)),
            (call("never"), (-32601, "never is quick and becomes no task: call it without one", None)),
            (call("may", 3), (-32602, "may cannot take these arguments: text: 3 is not of type 'string'", None)),
            (call("checked", 0), (-32602, "no zero", None)),
        ):
            assert await told(passed(OLDER, "tools/call", params)) == expected
        assert list(tasks.tasks) == [id]
        (waits,) = [await passed(OLDER, "tools/call", call("may", "a"))]
        other = waits["task"]["taskId"]
        await tasks.tasks[other].call.settled()
        assert (await handlers.get(ann, about(other)))["status"] == "input_required"
        assert (await handlers.cancel(ann, about(other)))["status"] == "cancelled"
        assert await told(handlers.result(ann, about(other))) == (
            -32602,
            "the task was cancelled, and has no result",
            None,
        )
        await tasks.close()

    asyncio.run(main())


def test_a_result_of_the_older_revision_passes_the_questions_on_until_the_task_is_over() -> None:
    handlers, tasks = older()

    async def main() -> None:
        ann = context(OLDER, chose(w="a b"), chose(w="one"), chose(w="two"), client="ann")
        begun = await handlers._begin(ann, types.CallToolRequestParams(name="must", arguments={"text": "x"}))
        id = begun["task"]["taskId"]
        result = await handlers.result(ann, about(id))
        assert result["content"][0]["text"] == "ann one two"
        session: Session = ann.session  # type: ignore[assignment]
        assert [(kind, related) for _, kind, related in session.sent] == [(types.ElicitResult, 7)] * 3
        wire = session.sent[0][0].model_dump(by_alias=True, mode="json", exclude_none=True)
        assert wire["method"] == "elicitation/create" and wire["params"]["message"] == "Which?"
        assert wire["params"]["_meta"] == {RELATED: {"taskId": id}}
        wrong = await handlers._begin(ann, types.CallToolRequestParams(name="may", arguments={"text": "wrong"}))
        result = await handlers.result(ann, about(wrong["task"]["taskId"]))
        assert result["isError"] is True and result["content"][0]["text"] == "own"

        mute = context(OLDER, MCPError(-9, "I do not answer", [3]), client="ann")
        waits = (await handlers._begin(mute, types.CallToolRequestParams(name="may", arguments={"text": "a"})))["task"]
        assert await told(handlers.result(mute, about(waits["taskId"]))) == (-9, "I do not answer", [3])
        task = tasks.tasks[waits["taskId"]]
        assert not task.is_over and list(task.call.exchange.pending) == ["a"], "the task itself goes on"

        async def broken() -> Any:
            raise MCPError(-11, "own error", {"k": 1})

        lost = tasks.begin(call_of(broken(), "lost"), "ann", "t", {})
        await asyncio.wait({lost.call.task})
        assert await told(handlers.result(ann, about("lost"))) == (-11, "own error", {"k": 1})
        with_meta = text_result("m")
        with_meta.meta = {"mine": 1}

        async def noted() -> Any:
            return with_meta

        tasks.begin(call_of(noted(), "meta"), "ann", "t", {})
        assert (await handlers.result(ann, about("meta")))["_meta"] == {"mine": 1, RELATED: {"taskId": "meta"}}
        await tasks.close()

    asyncio.run(main())


def test_a_question_that_is_answered_in_another_way_is_asked_no_longer() -> None:
    handlers, tasks = older()

    async def main() -> None:
        ann = context(OLDER, client="ann")
        sent: list[str] = []
        cancelled: list[str] = []

        async def never(request: Any, kind: Any, metadata: Any = None) -> Any:
            sent.append(request.params.message)
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.append(request.params.message)
                raise

        ann.session.send_request = never  # type: ignore[method-assign]
        task = tasks.begin(asking("1", "a", "b"), "ann", "t", {})
        passing = asyncio.create_task(handlers._pass_on(ann, task))
        for key, count in (("a", 1), ("b", 2)):
            while len(sent) < count:
                await asyncio.sleep(0.001)
            assert len(cancelled) == count - 1
            tasks.bring(task, {key: chose(w=key)})
        await passing
        await asyncio.sleep(0)
        assert task.call.task.result().content[0].text == "a b" and len(cancelled) == 2 == len(sent)
        await tasks.close()

    asyncio.run(main())

    async def run(arguments: Any, exchange: Any) -> str:
        return str(arguments)

    async def prepare(arguments: Any, exchange: Any) -> Any:
        return {"more": arguments["n"] + 1}

    plain = ServedTool("t", "", {}, run)
    whole: list[Any] = [asyncio.run(_whole(tool, {"n": 1}, ParkedExchange(None, {}, {}))).content[0]
                        for tool in (plain, replace(plain, prepare=prepare))]  # fmt: skip
    assert [each.text for each in whole] == ["{'n': 1}", "{'more': 2}"]
