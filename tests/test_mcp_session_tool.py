"""The tool `ask` of a served agent over MCP: turns of sessions, approvals asked of the client, calls that go on as tasks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import mcp_types as types
from mcp import MCPError

from firsthand.errors import ConfigError, UnknownName
from firsthand.loop.form import FormField
from firsthand.serve.agents.agent_doors import opened_sessions
from firsthand.serve.agents.served_sessions import ServedSessions
from firsthand.serve.agents.session_settings import SessionSettings
from firsthand.serve.mcp.agent_offer import approval_request
from firsthand.serve.mcp.exchange import ParkedExchange
from firsthand.serve.mcp.mcp_server import McpServer
from firsthand.serve.mcp.running_call import RunningCall
from firsthand.serve.mcp.server_tasks import ServerTask
from firsthand.serve.mcp.session_door import _answered, _no_longer_pending, session_door, session_server, session_tool
from firsthand.serve.mcp.task_file import TASKS_FILE, TaskFile
from mcp_contexts import NO, YES, Heard, said
from served_agent import Desk, clerk


def in_sessions(folder: Path, desk: Desk, use: Any) -> Any:
    async def main() -> Any:
        with opened_sessions(clerk(desk), folder, folder / "s", SessionSettings(poll_s=0.01)) as sessions:
            async with sessions.running():
                return await use(sessions, session_tool(sessions))

    return asyncio.run(main())


def about(result: Any) -> dict[str, str]:
    found: dict[str, str] = result.meta["org.firsthand/session"]
    return found


def test_a_call_is_a_turn_of_its_clients_session_and_its_approvals_are_asked(tmp_path: Path) -> None:
    desk = Desk()

    async def use(sessions: ServedSessions, tool: Any) -> None:
        assert (tool.name, tool.description, tool.as_task, tool.resumes) == (
            "ask", "Asks the agent clerk (scripted:clerk), and returns its answer.", "may", True,
        )  # fmt: skip
        assert session_tool(sessions, "Clerks.").description == "Clerks."
        door = session_door(sessions, "127.0.0.1")
        assert door.lifespan is not None and (sessions.run.path / TASKS_FILE).is_file(), "its tasks outlive it"
        async with door.lifespan():
            pass
        assert tool.annotations == types.ToolAnnotations(read_only_hint=False, open_world_hint=True)
        assert tool.schema["required"] == ["question"] and list(tool.schema["properties"]) == ["question", "session"]
        hello = Heard(client="ann")
        first = await tool.run({"question": "hi", "session": "mine"}, hello)
        assert said(first) == "You said hi, after 0 others." and hello.told == [(1, None, "asks the model")]
        assert about(first) == {"session": "mine", "turn": about(first)["turn"], "state": "completed"}
        second = await tool.run({"question": "yo", "session": "mine"}, Heard(client="ann"))
        other = await tool.run({"question": "yo", "session": "mine"}, Heard(client="bob"))
        fresh = await tool.run({"question": "yo"}, Heard())
        assert [said(each) for each in (second, other, fresh)] == [
            "You said yo, after 1 others.", "You said yo, after 0 others.", "You said yo, after 0 others.",
        ]  # fmt: skip
        assert len(about(fresh)["session"]) == 16
        owners = [(row.owner, row.context) for row in sessions.store.sessions()]
        assert owners == [("ann", "mine"), ("bob", "mine"), ("", about(fresh)["session"])]

        asking = Heard(NO, YES, client="ann")
        paid = await tool.run({"question": "pay 5 and 6", "session": "p"}, asking)
        assert desk.paid == [6] and about(paid)["state"] == "completed"
        pending = [key.removeprefix("approval ") for key, _ in asking.asked]
        kept = [sessions.store.approval(id) for id in pending]
        assert [(each.state, each.answered_by, each.arguments) for each in kept] == [
            ("denied", "client", {"amount": 5}), ("allowed", "client", {"amount": 6}),
        ]  # fmt: skip
        assert [request for _, request in asking.asked] == [approval_request("pay", each.question) for each in kept]
        assert "calls pay" in [message for _, _, message in asking.told]
        assert [count for count, _, _ in asking.told] == list(range(1, len(asking.told) + 1))

        class Deaf(Heard):
            async def progress(self, *given: Any) -> None:
                await super().progress(*given)
                raise RuntimeError("the stream is closed")

        deaf = Deaf(YES, client="ann")
        heard = await tool.run({"question": "pay 7", "session": "d"}, deaf)
        assert said(heard) == "Done: paid 7" and desk.paid == [6, 7]
        assert deaf.told == [(at + 1, None, each) for at, each in enumerate(message for _, _, message in deaf.told)]
        assert {"asks the model", "calls pay"} == {message for _, _, message in deaf.told}

        wrong = await tool.run({"question": "x" * 1_000_001}, Heard())
        assert said(wrong) == "error: the message has 1,000,001 characters: at most 1,000,000 are taken"

    in_sessions(tmp_path, desk, use)


@pytest.mark.slow
def test_a_question_without_an_answer_leaves_the_turn_open_and_a_task_finds_its_turn_again(tmp_path: Path) -> None:
    desk = Desk()

    async def use(sessions: ServedSessions, tool: Any) -> None:
        for at, exchange in enumerate((
            Heard(asks=False), Heard(types.ElicitResult(action="cancel")), Heard(MCPError(-1, "gone")),
        )):  # fmt: skip
            left = await tool.run({"question": "pay 5", "session": f"c{at}"}, exchange)
            (asked,) = sessions.store.pending(about(left)["turn"])
            assert about(left) == {"session": f"c{at}", "turn": asked.turn, "state": "input_required",
                                   "approvals": asked.id}  # fmt: skip
            assert said(left) == (
                f"The turn waits for approval ({asked.id}): `firsthand sessions` or POST /approvals/ID answers it, "
                f"and a call with session='c{at}' goes on after it."
            )
        again = await tool.run({"question": "pay 5", "session": "t"}, Heard(asks=False, task="77"))
        assert about(again)["turn"] == "mcp-77"
        same = await tool.run({"question": "not asked", "session": "u"}, Heard(YES, task="77"))
        assert said(same) == "Done: paid 5" and about(same) == {"session": "t", "turn": "mcp-77", "state": "completed"}
        assert sessions.store.find_session("", "u") is None

        async def never() -> Any:
            (asked,) = sessions.store.pending(elsewhere)
            sessions.answer(asked.id, True, by="boss")
            await _no_longer_pending(sessions, asked)
            await asyncio.sleep(60)

        elsewhere = "mcp-88"
        waiting = await tool.run({"question": "pay 9", "session": "e"}, Heard(never, task="88"))
        assert said(waiting) == "Done: paid 9" and desk.paid == [5, 9]

        waits = Heard(task="99")
        running = asyncio.ensure_future(tool.run({"question": "wait", "session": "w"}, waits))
        while not desk.waiting.is_set():
            await asyncio.sleep(0.001)
        for cancelled, state in ((False, "working"), (True, "canceled")):
            waits.is_cancelled = cancelled
            running.cancel()
            await asyncio.wait({running})
            assert running.cancelled() and sessions.store.turn("mcp-99").state == state
            running = asyncio.ensure_future(tool.run({"question": "wait"}, waits))
            await asyncio.sleep(0.01)
        assert said(await running) == "error: clerk gave no answer: canceled"

    in_sessions(tmp_path, desk, use)


def test_a_form_is_filled_in_by_the_clients_user_and_a_question_goes_where_it_is_answered_first(tmp_path: Path) -> None:
    field = FormField("n", "integer", required=True)

    async def main() -> None:
        with opened_sessions(clerk(Desk()), tmp_path, tmp_path / "s", SessionSettings(poll_s=0.005)) as sessions:
            sessions._closing = True  # nothing is attempted here
            store = sessions.store
            turn = store.add_turn(store.open_session("ann", "c").id, "q", id="t")
            numbers = iter(range(99))

            def asked(form: bool = True) -> Any:
                return store.asked(
                    turn.id, f":{next(numbers)}", "fill", "read", {}, "How many?", (field,) if form else None
                )

            def result(action: Any, **content: Any) -> types.ElicitResult:
                return types.ElicitResult(action=action, content=content or None)

            for form, answer, told, state, kept in (
                (True, result("accept", n=4), True, "allowed", {"n": 4}),
                (True, result("decline", n=4), True, "denied", None), (True, result("cancel"), False, "pending", None),
                (False, result("accept"), True, "denied", None), (False, result("cancel"), False, "pending", None),
                (False, result("accept", approve=True), True, "allowed", None),
                (False, result("decline", approve=True), True, "denied", None),
                (False, MCPError(-1, "no"), False, "pending", None),
            ):  # fmt: skip
                question = asked(form)
                exchange = Heard(answer)
                assert await _answered(sessions, question, "ann", exchange) is told
                found = store.approval(question.id)
                assert (found.state, found.content, found.answered_by) == (state, kept, "client" if told else "")
                ((key, request),) = exchange.asked
                assert key == f"approval {question.id}"
                assert request == approval_request("fill", "How many?", (field,) if form else None)
            await asyncio.sleep(0)
            assert len(asyncio.all_tasks()) == 1, "nobody looks for another's answer any more"
            wrong = asked()
            with pytest.raises(ConfigError):
                await _answered(sessions, wrong, "ann", Heard(result("accept", n="x")))
            with pytest.raises(UnknownName):
                await _answered(sessions, wrong, "bob", Heard(result("accept", n=1)))
            assert store.approval(wrong.id).state == "pending"

            ended: list[bool] = []

            async def never() -> Any:
                try:
                    await asyncio.sleep(60)
                finally:
                    ended.append(True)

            elsewhere = asyncio.ensure_future(_answered(sessions, wrong, "ann", Heard(never)))
            await asyncio.sleep(0.01)
            assert not elsewhere.done()
            store.answer(wrong.id, False, by="boss")
            assert await elsewhere is True and store.approval(wrong.id).answered_by == "boss"
            await asyncio.sleep(0)
            assert ended == [True] and len(asyncio.all_tasks()) == 1, "the client is asked no longer"
            late = asked(False)
            store.move("t", "canceled")
            await _no_longer_pending(sessions, late)
            assert await _answered(sessions, late, "ann", Heard(never)) is True, "its turn is over"

    asyncio.run(main())


def begun(server: McpServer, question: str, session: str, owner: str | None = "ann", **declared: Any) -> ServerTask:
    """The task of a call of `ask`."""
    given = {"question": question, "session": session}
    exchange = ParkedExchange(None, declared, {}, client=owner)
    tool = server._tools["ask"]
    call = RunningCall("ask", tool.result(given, exchange), exchange)
    return server.tasks.begin(call, owner, "ask", given)


async def over(task: ServerTask) -> Any:
    """The state of a task once it is over."""
    while not task.is_over:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0)
    return task.state()


def bytes_of(sessions: ServedSessions) -> bytes:
    """All that the file of tasks, and the log beside it, hold."""
    return b"".join(each.read_bytes() for each in sessions.run.path.glob(f"{TASKS_FILE}*"))


def door_of(sessions: ServedSessions) -> tuple[McpServer, TaskFile]:
    server = session_server(sessions)
    assert server.tasks.file is not None
    return server, server.tasks.file


def test_a_task_goes_with_its_session_and_no_other_one_does(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions, tool: Any) -> None:
        server, file = door_of(sessions)
        tasks = server.tasks
        mine, kept, bobs = (
            begun(server, "hi", "mine"),
            begun(server, "hi", "kept"),
            begun(server, "hi", "mine", "bob"),
        )
        for task in (mine, kept, bobs):
            assert (await over(task))["result"]["content"][0]["text"] == "You said hi, after 0 others."
        await asyncio.to_thread(sessions.kept.delete, "ann", "mine")
        assert [id for (id,) in file._database.read("SELECT id FROM tasks ORDER BY rowid")] == [
            kept.call.id,
            bobs.call.id,
        ]
        for id in (mine.call.id, "never"):
            with pytest.raises(MCPError, match="there is no such task"):
                tasks.find("ann", id)
        for owner, task in (("ann", kept), ("bob", bobs)):
            assert tasks.find(owner, task.call.id).state()["status"] == "completed"  # type: ignore[union-attr]
        await server.close()

        again, file = door_of(sessions)
        assert again.tasks.find("ann", kept.call.id).outcome["content"][0]["text"].startswith("You")  # type: ignore
        sessions.kept.on_delete.clear()  # as if the server was killed in between, or another process deleted it
        sessions.kept.delete("ann", "kept")
        with pytest.raises(MCPError, match="there is no such task"):
            again.tasks.find("ann", kept.call.id)
        await again.close()
        await asyncio.to_thread(sessions.kept.delete, "bob", "mine")  # the server of tasks is closed

    in_sessions(tmp_path, Desk(), use)


def test_a_task_whose_session_is_deleted_before_its_end_is_kept_leaves_nothing(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions, tool: Any) -> None:
        server, file = door_of(sessions)
        sessions.kept.on_delete.clear()
        task = begun(server, "pay 5", "s", elicitation={})
        while not task.call.exchange.pending:
            await asyncio.sleep(0.001)
        await sessions.cancel(f"mcp-{task.call.id}", "ann")
        sessions.kept.delete("ann", "s")
        while not task.is_over:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        assert file.find(task.call.id) is None and file.unfinished() == []
        with pytest.raises(MCPError, match="there is no such task"):
            server.tasks.find("ann", task.call.id)
        await server.close()

    in_sessions(tmp_path, Desk(), use)


def test_what_a_task_asks_and_answers_is_kept_once_and_not_held_in_memory(tmp_path: Path) -> None:
    question = "😀" * 40_000

    async def use(sessions: ServedSessions, tool: Any) -> None:
        server, file = door_of(sessions)
        task = begun(server, question, "s", elicitation={})
        row = file.find(task.call.id)
        assert row is not None and (row.arguments, row.note, row.declared) == (
            {},
            f"mcp-{task.call.id}",
            {"elicitation": {}},
        )
        state = await over(task)
        assert state["result"]["content"][0]["text"] == f"You said {question}, after 0 others."
        assert state["result"]["_meta"]["org.firsthand/session"]["session"] == "s"
        row = file.find(task.call.id)
        assert row is not None and (row.status, row.outcome) == ("completed", None)
        assert len(bytes_of(sessions)) < 100_000 and task.call.task.result() is None
        assert task.call.exchange.declared == {}, "nor what the client declared"
        waits = begun(server, "pay 5", "w")  # its client cannot ask its user
        told = (await over(waits))["result"]["content"][0]["text"]
        (asked,) = sessions.store.pending()
        assert told.startswith(f"The turn waits for approval ({asked.id})")
        sessions.answer(asked.id, True, owner="ann", by="client")
        await sessions.settled(f"mcp-{waits.call.id}")
        assert waits.state()["result"]["content"][0]["text"] == told, "the result of a task stays what it was"
        await server.close()

    in_sessions(tmp_path, Desk(), use)


def test_tasks_count_for_the_bytes_of_their_client_and_a_refused_one_keeps_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        settings = SessionSettings(poll_s=0.01, kept_bytes=60_000)
        with opened_sessions(clerk(Desk()), tmp_path, tmp_path / "s", settings) as sessions:
            async with sessions.running():
                server, file = door_of(sessions)
                first = begun(server, "hi", "a", sampling={"x": "é" * 20_000})
                assert (await over(first))["status"] == "completed"
                assert 40_000 < file.size_bytes("ann") < 41_000 and file.size_bytes("bob") == 0
                second = begun(server, "hi", "b", sampling={"x": "é" * 20_000})
                assert not (await over(second))["result"].get("isError")
                third = begun(server, "z" * 50_000, "c", sampling={"x": "é" * 20_000})
                result = (await over(third))["result"]
                assert result["isError"] and "your sessions and tasks take 8" in result["content"][0]["text"]
                assert sessions.store.find_session("ann", "c") is None and file.size_bytes("ann") < 82_000
                assert b"zzzz" not in bytes_of(sessions)
                assert not (await over(begun(server, "hi", "a", "bob")))["result"].get("isError")
                half = begun(server, "y" * 20_000, "b", "bob", sampling={"x": "é" * 12_000})
                assert not (await over(half))["result"].get("isError")
                assert (await over(begun(server, "hi", "b", "bob")))["result"]["isError"], "sessions and tasks together"
                nameless = begun(server, "hi", "n", None, sampling={"x": "e" * 70_000})
                assert not (await over(nameless))["result"].get("isError") and file.size_bytes(None) > 70_000
                assert (await over(begun(server, "hi", "n", None)))["result"]["isError"]
                await asyncio.to_thread(sessions.kept.delete, "ann", "a")
                await asyncio.to_thread(sessions.kept.delete, "ann", "b")
                assert not (await over(begun(server, "hi", "d")))["result"].get("isError"), "there is room again"
                await server.close()

    asyncio.run(main())


def test_a_task_under_way_goes_on_in_the_next_server_without_its_question(tmp_path: Path) -> None:
    desk = Desk()

    async def first(sessions: ServedSessions, tool: Any) -> str:
        server, _ = door_of(sessions)
        task = begun(server, "pay 5", "s", elicitation={})
        while not task.call.exchange.pending:
            await asyncio.sleep(0.001)
        await server.close()
        return task.call.id

    async def second(sessions: ServedSessions, tool: Any) -> None:
        server, _ = door_of(sessions)
        server.resume()
        task = server.tasks.find("ann", task_id)
        assert isinstance(task, ServerTask)
        while not task.call.exchange.pending:
            await asyncio.sleep(0.001)
        server.tasks.bring(task, dict.fromkeys(task.call.requests(), YES))
        assert (await over(task))["result"]["content"][0]["text"] == "Done: paid 5" and desk.paid == [5]
        await server.close()

    task_id = in_sessions(tmp_path, desk, first)
    in_sessions(tmp_path, desk, second)
