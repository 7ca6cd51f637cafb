"""Tasks of MCP's older revision without a wire: how a client is asked while it waits, and how a task ends."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import mcp_types as types
from mcp import MCPError

from firsthand.errors import ToolError
from firsthand.serve.mcp.exchange import ParkedExchange
from firsthand.serve.mcp.older_tasks import OFFERED, RELATED, OlderTasks
from firsthand.serve.mcp.running_call import RunningCall
from firsthand.serve.mcp.served_tool import ServedTool, text_result
from firsthand.serve.mcp.server_tasks import ServerTask, ServerTasks, TaskIdParams
from firsthand.serve.mcp.task_file import TaskFile
from mcp_contexts import ASK, MODERN, OLDER, chose, context

SHAPE: Any = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def begun(tasks: ServerTasks, work: Any, *, owner: str | None = None) -> ServerTask:
    exchange = ParkedExchange(None, {"elicitation": {}}, {}, client=owner)
    return tasks.begin(RunningCall("t", work(exchange), exchange), owner, "t", {})


def about(task: ServerTask) -> TaskIdParams:
    return TaskIdParams(taskId=task.call.id)


async def refused(coming: Any) -> tuple[int, str]:
    with pytest.raises(MCPError) as told:
        await coming
    return told.value.error.code, told.value.error.message


def test_each_question_of_a_task_is_put_to_its_client_once_and_withdrawn_when_another_answers() -> None:
    async def both(exchange: ParkedExchange) -> types.CallToolResult:
        found = await asyncio.gather(*(exchange.ask(key, ASK) for key in ("one", "two", "three")))
        result = text_result(" ".join(str(each.content) for each in found))
        result.meta = {"k": "v"}
        return result

    async def main() -> None:
        tasks = ServerTasks()
        older, task = OlderTasks(tasks, lambda name: None), begun(tasks, both)
        asked: list[Any] = []
        withdrawn: list[int] = []
        go = [asyncio.Event() for _ in range(3)]

        async def send_request(request: Any, kind: Any, metadata: Any = None) -> Any:
            place = len(asked)
            asked.append((request.params.message, request.params.meta, kind, metadata.related_request_id))
            try:
                await go[place].wait()
            except asyncio.CancelledError:
                withdrawn.append(place)
                raise
            return chose(n=place)

        ctx = context(OLDER)
        ctx.session.send_request = send_request  # type: ignore[method-assign]
        waiting = asyncio.ensure_future(older.result(ctx, about(task)))

        async def settle() -> None:
            for _ in range(20):
                await asyncio.sleep(0)

        await settle()
        assert len(asked) == 3 and not waiting.done()
        go[0].set()
        await settle()
        assert len(asked) == 3 and withdrawn == [], "those that wait are not asked again"
        tasks.bring(task, {"three": chose(by="eve")})
        await settle()
        assert withdrawn == [2] and len(asked) == 3 and not waiting.done()
        go[1].set()
        result = await asyncio.wait_for(waiting, 10)
        assert result["content"] == [{"type": "text", "text": "{'n': 0} {'n': 1} {'by': 'eve'}"}]
        assert result["_meta"] == {"k": "v", RELATED: {"taskId": task.call.id}}
        for message, meta, kind, request_id in asked:
            assert (message, kind, request_id) == ("Which?", types.ElicitResult, 7)
            assert dict(meta)[RELATED] == {"taskId": task.call.id}
        await tasks.close()

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_question_without_parameters_is_put_with_the_id_of_its_task_alone() -> None:
    async def roots(exchange: ParkedExchange) -> types.CallToolResult:
        found = await exchange.ask("k", types.ListRootsRequest())
        return text_result(", ".join(str(each.uri) for each in found.roots))

    async def main() -> None:
        tasks, asked = ServerTasks(), []
        older = OlderTasks(tasks, lambda name: None)
        exchange = ParkedExchange(None, {"roots": {}}, {})
        task = tasks.begin(RunningCall("t", roots(exchange), exchange), None, "t", {})

        async def send_request(request: Any, kind: Any, metadata: Any = None) -> Any:
            asked.append((request.method, request.params.model_dump(by_alias=True, exclude_none=True), kind))
            return types.ListRootsResult(roots=[types.Root(uri="file:///x")])  # type: ignore[arg-type]

        ctx = context(OLDER)
        ctx.session.send_request = send_request  # type: ignore[method-assign]
        result = await older.result(ctx, about(task))
        assert result["content"] == [{"type": "text", "text": "file:///x"}]
        assert result["_meta"] == {RELATED: {"taskId": task.call.id}}
        assert asked == [("roots/list", {"_meta": {RELATED: {"taskId": task.call.id}}}, types.ListRootsResult)]
        await tasks.close()

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_client_that_leaves_is_asked_no_longer_and_a_questions_own_notes_are_kept() -> None:
    noted = types.ListRootsRequest(params=types.RequestParams.model_validate({"_meta": {"own": 1}}))

    async def work(exchange: ParkedExchange) -> types.CallToolResult:
        return text_result(str(await exchange.ask("k", noted)))

    async def main() -> None:
        tasks, asked, withdrawn = ServerTasks(), [], []
        exchange = ParkedExchange(None, {"roots": {}}, {})
        task = tasks.begin(RunningCall("t", work(exchange), exchange), None, "t", {})

        async def send_request(request: Any, kind: Any, metadata: Any = None) -> Any:
            asked.append(request.params.model_dump(by_alias=True, exclude_none=True))
            try:
                await asyncio.sleep(60)
            finally:
                withdrawn.append(request.method)

        ctx = context(OLDER)
        ctx.session.send_request = send_request  # type: ignore[method-assign]
        waiting = asyncio.ensure_future(OlderTasks(tasks, lambda name: None).result(ctx, about(task)))
        for _ in range(20):
            await asyncio.sleep(0)
        assert asked == [{"_meta": {"own": 1, RELATED: {"taskId": task.call.id}}}] and not withdrawn
        waiting.cancel()
        await asyncio.wait({waiting})
        await asyncio.sleep(0)
        assert withdrawn == ["roots/list"] and not task.is_over and list(task.call.requests()) == ["k"]
        await tasks.close()

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_client_that_cannot_answer_ends_its_own_request_and_not_the_task() -> None:
    async def work(exchange: ParkedExchange) -> types.CallToolResult:
        return text_result(str((await exchange.ask("one", ASK)).content))

    async def main() -> None:
        tasks = ServerTasks()
        older, task = OlderTasks(tasks, lambda name: None), begun(tasks, work)
        assert await refused(older.result(context(OLDER, MCPError(-1, "no user")), about(task))) == (-1, "no user")
        assert not task.is_over and list(task.call.requests()) == ["one"]
        again = await older.result(context(OLDER, chose(n=3)), about(task))
        assert again["content"][0]["text"] == "{'n': 3}" and again["_meta"] == {RELATED: {"taskId": task.call.id}}
        assert await older.result(context(OLDER), about(task)) == again, "it may be asked for again"
        await tasks.close()

    asyncio.run(asyncio.wait_for(main(), 20))


def test_the_state_the_end_and_the_cancel_of_a_task_are_told_in_the_older_names() -> None:
    async def forever(exchange: ParkedExchange) -> Any:
        await asyncio.Event().wait()

    async def broken(exchange: ParkedExchange) -> Any:
        raise MCPError(-7, "it broke", {"k": 1})

    async def main() -> None:
        tasks = ServerTasks()
        older = OlderTasks(tasks, lambda name: None)
        runs, fails = begun(tasks, forever), begun(tasks, broken, owner="ann")
        state = await older.get(context(OLDER), about(runs))
        assert state == {
            "taskId": runs.call.id, "status": "working", "createdAt": runs.created, "lastUpdatedAt": runs.updated,
            "ttl": 3_600_000, "pollInterval": 500,
        }  # fmt: skip
        runs.call.exchange.status = "half"
        assert (await older.get(context(OLDER), about(runs)))["statusMessage"] == "half"
        missing = (types.INVALID_PARAMS, "there is no such task: it may be too old, or the server began anew")
        for method in (older.get, older.cancel, older.result):
            assert await refused(method(context(OLDER, client="bob"), about(runs))) == missing
            assert await refused(method(context(OLDER), about(fails))) == missing, "each has its own"
        assert await refused(older.result(context(OLDER, client="ann"), about(fails))) == (-7, "it broke")
        failed = await older.get(context(OLDER, client="ann"), about(fails))
        assert (failed["status"], failed["statusMessage"]) == ("failed", "it broke") and "error" not in failed
        says = (types.INVALID_PARAMS, "the task is failed: only one that runs is cancelled")
        assert await refused(older.cancel(context(OLDER, client="ann"), about(fails))) == says
        assert (await older.cancel(context(OLDER), about(runs)))[
            "status"
        ] == "cancelled" and runs.call.exchange.is_cancelled
        says = (types.INVALID_PARAMS, "the task was cancelled, and has no result")
        assert await refused(older.result(context(OLDER), about(runs))) == says
        says = (types.INVALID_PARAMS, "the task is cancelled: only one that runs is cancelled")
        assert await refused(older.cancel(context(OLDER), about(runs))) == says
        await tasks.close()

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_call_becomes_a_task_where_its_revision_asks_for_one_and_its_tool_may() -> None:
    ran: list[Any] = []

    async def run(arguments: Any, exchange: Any) -> str:
        ran.append((arguments, exchange.client, exchange.can("elicitation")))
        return "ok"

    async def prepare(arguments: Any, exchange: Any) -> Any:
        if arguments["n"] < 0:
            raise ToolError("too few")
        return arguments | {"n": arguments["n"] + 1}

    tools = {
        name: ServedTool(name, "", SHAPE, run, as_task, prepare if name == "asks" else None)  # type: ignore[arg-type]
        for name, as_task in (("quick", "never"), ("slow", "may"), ("asks", "must"))
    }

    async def main() -> None:
        tasks = ServerTasks()
        older = OlderTasks(tasks, tools.get)

        async def others(ctx: Any) -> Any:
            return {"passed": ctx.method}

        async def asked(version: str = OLDER, *, method: str = "tools/call", **params: Any) -> Any:
            return await older.middleware(context(version, client="ann", method=method, params=params), others)

        called = {"name": "slow", "arguments": {"n": 1}}
        task: Any = {"task": {}}
        for version, method, more in ((OLDER, "tools/call", {}), (MODERN, "tools/call", task), (OLDER, "x", task)):
            assert await asked(version, method=method, **called, **more) == {"passed": method}
        made = await asked(**called, task={"ttl": 5})
        first = tasks.tasks[made["task"]["taskId"]]
        assert made["task"]["status"] == "working" and first.owner == "ann" and "ttlMs" not in made["task"]
        await first.call.task
        second = await asked(name="asks", arguments={"n": 4}, task={})
        await tasks.tasks[second["task"]["taskId"]].call.task
        assert ran == [({"n": 1}, "ann", True), ({"n": 5}, "ann", True)], "what it asks for first is part of the task"
        wrong = "take these arguments: arguments: 'n' is a required property"
        for params, says in (
            ({"name": "none" * 30}, (types.INVALID_PARAMS, f"there is no tool {('none' * 30)[:100]!r}")),
            ({"name": "quick", "arguments": {"n": 1}},
             (types.METHOD_NOT_FOUND, "quick is quick and becomes no task: call it without one")),
            ({"name": "slow"}, (types.INVALID_PARAMS, f"slow cannot {wrong}")),
        ):  # fmt: skip
            assert await refused(asked(**params, task={})) == says
        assert len(tasks.tasks) == 2

        async def hello(ctx: Any) -> Any:
            return {"protocolVersion": ctx.params["v"], "capabilities": {"tools": {}}}

        for version, told in ((OLDER, {"tools": {}, "tasks": OFFERED}), ("2025-06-18", {"tools": {}})):
            ctx = context(version, method="initialize", params={"v": version})
            assert (await older.middleware(ctx, hello))["capabilities"] == told
        ctx = context(OLDER, method="initialize")
        assert await older.middleware(ctx, lambda ctx: asyncio.sleep(0, SimpleNamespace(a=1))) == SimpleNamespace(a=1)
        await tasks.close()

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_task_that_its_client_cancelled_is_over_and_one_that_ends_with_the_server_goes_on(tmp_path: Path) -> None:
    async def forever(exchange: ParkedExchange) -> Any:
        await asyncio.Event().wait()

    async def main() -> None:
        file = TaskFile(tmp_path)
        tasks = ServerTasks(file)
        ended, left = begun(tasks, forever, owner="ann"), begun(tasks, forever, owner="ann")
        assert [row.id for row in file.unfinished()] == [ended.call.id, left.call.id]
        await tasks.end(ended)
        await asyncio.sleep(0)
        assert ended.is_kept and not left.is_kept and [row.id for row in file.unfinished()] == [left.call.id]
        row = file.find(ended.call.id)
        assert row is not None and (row.status, row.outcome, row.owner) == ("cancelled", None, "ann")
        await tasks.close()
        again = TaskFile(tmp_path)
        assert [row.id for row in again.unfinished()] == [left.call.id] and tasks.tasks == {} and tasks.file is None
        again.close()

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_call_that_was_answered_at_once_is_settled_by_its_next_question_or_its_end() -> None:
    async def work(exchange: ParkedExchange) -> Any:
        await exchange.ask("one", ASK)
        await asyncio.sleep(0.02)
        return await exchange.ask("two", ASK)

    async def main() -> None:
        exchange = ParkedExchange(None, {"elicitation": {}}, {}, client=None)
        call = RunningCall("t", work(exchange), exchange)
        settling = asyncio.ensure_future(call.settled())
        while not exchange.pending:
            await asyncio.sleep(0)
        exchange.bring({"one": chose(n=1)})
        await asyncio.wait_for(settling, 10)
        assert list(call.requests()) == ["two"] and not call.task.done(), "the first needs its client no more"
        exchange.bring({"two": chose(n=2)})
        await asyncio.wait_for(call.settled(), 10)
        assert call.task.done() and call.task.result() == chose(n=2)

    asyncio.run(asyncio.wait_for(main(), 20))
