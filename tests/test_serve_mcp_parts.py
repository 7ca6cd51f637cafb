"""Calls over MCP without a wire: task rows, states, questions, answers and steps."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mcp_types as types
import pytest
from mcp import MCPError

from firsthand.errors import ConfigError
from firsthand.loop.form import FormField
from firsthand.loop.listener import Began
from firsthand.serve.agents.question_subjects import QuestionSubjects
from firsthand.serve.mcp import server_tasks
from firsthand.serve.mcp.agent_offer import AskClient, ProgressOfSteps, approval_request, is_approved
from firsthand.serve.mcp.exchange import ParkedExchange, expect_capability, result_type
from firsthand.serve.mcp.older_tasks import _older
from firsthand.serve.mcp.running_call import RunningCall
from firsthand.serve.mcp.served_tool import ServedTool, text_result
from firsthand.serve.mcp.server_tasks import ServerTask, ServerTasks, _answers, row_state
from firsthand.serve.mcp.task_file import TaskFile, TaskRow
from served_agent import Desk

ASK = types.ElicitRequest(
    params=types.ElicitRequestFormParams(message="Which?", requested_schema={"type": "object", "properties": {}})
)


YES = types.ElicitResult(action="accept", content={"approve": True})


def row(id: str, **more: Any) -> TaskRow:
    return replace(
        TaskRow(
            id, "ann", "ask", {"a": 1}, {"elicitation": {}}, {}, "n", "working", None, "t0", "t1", time.time() + 60
        ),
        **more,
    )


def test_a_task_is_kept_whole_until_it_ends_expires_or_is_forgotten(tmp_path: Path) -> None:
    file = TaskFile(tmp_path)
    first, second = row("1"), row("2", owner=None, tool="run", answers={"k": 1})
    file.add(first)
    file.add(second)
    assert file.find("1") == first and file.find("3") is None and file.unfinished() == [first, second]
    file.add_answers("2", {"k": 2, "l": {"x": 3}})
    file.add_answers("9", {"k": 2})
    file.keep_note("1", "run 7")
    file.end("2", "failed", {"code": 5}, "t9")
    file.end("2", "completed", {}, "t10")
    ended = file.find("2")
    assert ended is not None and 590 < ended.expires - time.time() <= 600, "its end can be read for a while"
    assert ended == replace(
        second,
        answers={"k": 2, "l": {"x": 3}},
        status="failed",
        outcome={"code": 5},
        updated_at="t9",
        expires=ended.expires,
    )
    assert file.unfinished() == [replace(first, note="run 7")]
    file.end("1", "cancelled", None, "t3")
    found = file.find("1")
    assert found is not None and (found.status, found.outcome) == ("cancelled", None) and file.unfinished() == []
    file.add(row("old", expires=time.time() - 1))
    assert file.find("old") is None and file.unfinished() == []
    file.add(row("4"))
    assert file._database.read("SELECT count(*) FROM tasks WHERE id = 'old'")[0][0] == 0, "what is too old goes"
    file.forget("4")
    assert file.find("4") is None and file.find("2") is not None
    file.close()


def test_the_state_of_a_kept_task_has_its_result_or_its_error() -> None:
    head = {"taskId": "1", "createdAt": "t0", "lastUpdatedAt": "t1", "ttlMs": 3_600_000, "pollIntervalMs": 500}
    for status, outcome, more in (
        ("completed", {"content": []}, {"result": {"content": []}}),
        ("completed", None, {"result": {}}),
        ("failed", {"message": "m", "code": 1}, {"statusMessage": "m", "error": {"message": "m", "code": 1}}),
        ("failed", None, {"statusMessage": "the tool failed for a reason of its own", "error": {}}),
        ("cancelled", None, {}),
    ):
        assert row_state(row("1", status=status, outcome=outcome)) == head | {"status": status} | more
    state = head | {"status": "failed", "statusMessage": "m", "error": {}}
    assert _older(state) == {
        "taskId": "1", "status": "failed", "statusMessage": "m", "createdAt": "t0", "lastUpdatedAt": "t1", "ttl": 3_600_000,
        "pollInterval": 500,
    }  # fmt: skip


def test_a_running_task_tells_its_requests_its_progress_and_its_end() -> None:
    async def main() -> None:
        exchange = ParkedExchange(None, {"elicitation": {}}, {})

        async def work() -> Any:
            await exchange.progress(1, 4, "one")
            answer = await exchange.ask("k", ASK)
            return text_result(str(answer.content))

        call = RunningCall("t", work(), exchange, "id-1")
        tasks = ServerTasks()
        task = tasks.begin(call, "ann", "t", {})
        assert task.seed() == {
            "resultType": "task", "taskId": "id-1", "status": "working", "createdAt": task.created,
            "lastUpdatedAt": task.updated, "ttlMs": 3_600_000, "pollIntervalMs": 500,
        }  # fmt: skip
        assert task.created == task.updated and task.created.endswith("Z") and len(task.created) == 24
        await call.settled()
        state = task.state()
        assert (state["status"], state["statusMessage"]) == ("input_required", "1/4 one")
        assert state["inputRequests"]["k"]["params"]["message"] == "Which?"
        with pytest.raises(MCPError, match="there is no such task"):
            tasks.find("bob", "id-1")
        tasks.bring(task, {"other": YES})
        assert task.state()["status"] == "input_required"
        tasks.bring(task, {"k": YES})
        await call.task
        assert tasks.find("ann", "id-1") is task
        ended = task.state()
        assert ended["status"] == "completed" and ended["result"]["content"][0]["text"] == "{'approve': True}"
        assert "inputRequests" not in ended and task.state() == ended, "the time of a change stands"

        async def broken(error: Exception) -> Any:
            raise error

        for error, message, code in (
            (MCPError(-7, "own"), "own", -7),
            (KeyError("x"), "the tool failed for a reason of its own", -32603),
        ):
            lost = ServerTask(RunningCall("t", broken(error), ParkedExchange(None, {}, {})), None, "t0")
            await asyncio.wait({lost.call.task})
            assert lost.state()["error"] == {"code": code, "message": message} and lost.created == "t0"
        stopped = tasks.begin(RunningCall("t", asyncio.sleep(9), ParkedExchange(None, {}, {})), None, "t", {})
        await tasks.end(stopped)
        assert stopped.state()["status"] == "cancelled" and stopped.call.exchange.is_cancelled
        assert stopped.end() == ("cancelled", None)
        await tasks.close()

    asyncio.run(main())


def test_tasks_of_another_process_go_on_where_their_tool_can(tmp_path: Path) -> None:
    file = TaskFile(tmp_path)
    given = {"k": {"action": "accept", "content": {"approve": True}}, "bad": {"x": 1}}
    for made in (row("1", answers=given), row("2", tool="gone"), row("3", tool="plain"), row("4", status="completed")):
        file.add(made)
    seen: list[Any] = []

    async def run(arguments: Any, exchange: Any) -> str:
        answer = await exchange.ask("k", ASK)
        exchange.keep("later")
        seen.append((arguments, exchange.task, exchange.note, exchange.client, answer.content))
        return "done"

    async def main() -> None:
        tasks = ServerTasks(file)
        shape: Any = {"type": "object"}
        tasks.resume(
            {"ask": ServedTool("ask", "", shape, run, resumes=True), "plain": ServedTool("plain", "", shape, run)}
        )
        assert list(tasks.tasks) == ["1"] and tasks.tasks["1"].created == "t0"
        await tasks.tasks["1"].call.task
        await asyncio.sleep(0)
        kept = file.find("1")
        assert kept is not None and (kept.status, kept.note) == ("completed", "later")
        for id, tool in (("2", "gone"), ("3", "plain")):
            lost = file.find(id)
            assert lost is not None and lost.status == "failed" and lost.outcome == {
                "code": -32603, "message": f"the server was stopped while {tool} ran: call it again",
            }  # fmt: skip
        assert isinstance(tasks.find("ann", "2"), TaskRow)
        await tasks.close()

    asyncio.run(asyncio.wait_for(main(), 5))
    assert seen == [({"a": 1}, "1", "later", "ann", {"approve": True})]
    assert list(_answers(given)) == ["k"]


def test_a_question_of_a_call_has_a_key_of_its_own_and_an_answer_that_fits() -> None:
    async def main() -> None:
        notes: list[str] = []
        exchange = ParkedExchange(None, {"elicitation": {}}, {"a+": YES, "b": "no result"}, client="ann")
        exchange.on_note = notes.append
        exchange.keep("n")
        assert (exchange.note, notes, exchange.client) == ("n", ["n"], "ann")
        assert exchange.can("elicitation") and not exchange.can("roots")
        first = asyncio.ensure_future(exchange.ask("a", ASK))
        await asyncio.sleep(0)
        assert await exchange.ask("a", ASK) is YES, "the second has the key a+, whose answer came with the call"
        third, other = (asyncio.ensure_future(exchange.ask(key, ASK)) for key in ("a", "b"))
        await asyncio.sleep(0)
        assert list(exchange.pending) == ["a", "a++", "b"]
        exchange.bring({"a": types.ListRootsResult(roots=[]), "x": YES})
        assert list(exchange.pending) == ["a", "a++", "b"]
        no = types.ElicitResult(action="decline")
        exchange.bring({"a++": no, "a": YES})
        assert await first is YES and await third is no and list(exchange.pending) == ["b"]
        other.cancel()
        await asyncio.wait({other})
        assert exchange.pending == {} and exchange.moved.is_set()
        with pytest.raises(MCPError, match="a client with the capability roots") as caught:
            await exchange.ask("r", types.ListRootsRequest())
        assert caught.value.error.data == {"requiredCapabilities": {"roots": {}}}
        for done, total, message, status in ((1, None, "", "1"), (2.5, 4, "half", "2.5/4 half"), (0, 3, "", "0/3")):
            await exchange.progress(done, total, message)
            assert exchange.status == status

    asyncio.run(main())
    assert result_type(ASK) is types.ElicitResult and result_type(types.ListRootsRequest()) is types.ListRootsResult
    expect_capability({"elicitation": {}}, ASK)


def test_a_call_is_settled_when_it_is_over_or_has_asked_for_all() -> None:
    async def main() -> None:
        exchange = ParkedExchange(None, {"elicitation": {}}, {})

        async def work() -> list[Any]:
            return await asyncio.gather(exchange.ask("a", ASK), exchange.ask("b", ASK))

        call = RunningCall("t", work(), exchange)
        await call.settled()
        assert list(call.requests()) == ["a", "b"] and not call.task.done() and len(call.id) == 24
        exchange.bring({"a": YES, "b": YES})
        await call.settled()
        assert call.task.done() and call.requests() == {}

    asyncio.run(main())


class Client:
    """An exchange whose client gives these answers."""

    def __init__(self, *answers: Any, can: bool = True):
        self.answers, self._can = list(answers), can
        self.asked: list[tuple[str, Any]] = []
        self.told: list[Any] = []

    def can(self, capability: str) -> bool:
        return self._can and capability == "elicitation"

    async def ask(self, key: str, request: Any) -> Any:
        self.asked.append((key, request))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def progress(self, *told: Any) -> None:
        self.told.append(told)


def test_a_user_approves_by_an_explicit_yes_and_fills_in_what_fits() -> None:
    tool = Desk().tools()[0]
    fields = (FormField("n", "integer", required=True), FormField("w", "string", default="x"))

    def decided(*answers: Any, can: bool = True) -> Any:
        client = Client(*answers, can=can)
        return asyncio.run(AskClient(client, QuestionSubjects())(tool, {"amount": 5})), client  # type: ignore[arg-type]

    yes, client = decided(YES)
    assert (yes.allowed, yes.by, yes.reason) == (True, "client", "")
    ((key, request),) = client.asked
    assert key.startswith("approval  pay 1 ") and "pay" in request.params.message
    assert request.params.requested_schema["required"] == ["approve"]
    for answer in (
        types.ElicitResult(action="accept", content={"approve": False}), types.ElicitResult(action="accept"),
        types.ElicitResult(action="decline", content={"approve": True}), types.ElicitResult(action="cancel"),
    ):  # fmt: skip
        no, _ = decided(answer)
        assert (no.allowed, no.by, no.reason) == (False, "client", "the user did not approve this call of pay")
        assert not is_approved(answer)
    for content in ({"approve": "yes"}, {"approve": 1}, {"approved": True}, {}):
        assert not is_approved(types.ElicitResult(action="accept", content=content)), content
    assert is_approved(YES) and not is_approved(types.ElicitResult(action="decline", content={"approve": True}))
    lost, _ = decided(MCPError(-1, "gone"))
    assert (lost.allowed, lost.by, lost.reason) == (False, "client", "the client did not answer: gone")
    mute, _ = decided(can=False)
    assert (mute.allowed, mute.by) == (False, "nobody") and mute.reason.startswith("pay needs approval")

    def filled(*answers: Any, can: bool = True) -> Any:
        asking = AskClient(Client(*answers, can=can), QuestionSubjects())  # type: ignore[arg-type]
        return asyncio.run(asking.fill(tool, "Q", fields))

    accept = types.ElicitResult(action="accept", content={"n": 3})
    assert (
        filled(accept) == {"n": 3, "w": "x"} and filled(types.ElicitResult(action="decline", content={"n": 3})) is None
    )
    assert filled(MCPError(-1, "gone")) is None and filled(can=False) is None
    with pytest.raises(ConfigError):
        filled(types.ElicitResult(action="accept", content={}))
    schema = approval_request("pay", "Q", fields).params.requested_schema
    assert list(schema["properties"]) == ["n", "w"] and schema["required"] == ["n"]


def test_steps_are_told_in_order_and_none_is_lost_with_a_client_that_left() -> None:
    class Leaving(Client):
        async def progress(self, *told: Any) -> None:
            await super().progress(*told)
            raise ConnectionError("gone")

    client = Leaving()

    async def main() -> None:
        steps = ProgressOfSteps(client, QuestionSubjects())  # type: ignore[arg-type]
        named = {"name": "pay"}  # it is told once guards have passed its arguments
        for step in (
            Began("0:0", "generate", 0),
            Began("0:1", "tool", 0, named),
            Began("0:1", "tool", 0, named | {"arguments": {}}),
            "other",
        ):
            steps(step)  # type: ignore[arg-type]
        telling = asyncio.create_task(steps.tell())
        await asyncio.sleep(0.001)
        telling.cancel()

    asyncio.run(main())
    assert client.told == [(1, None, "asks the model"), (2, None, "calls pay")]


def test_tasks_make_room_where_they_are_too_old_or_over_and_none_that_runs_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_tasks, "MAX_TASKS", 4)
    monkeypatch.setattr(server_tasks, "MAX_OWN_TASKS", 3)
    gone: list[str] = []
    tasks = ServerTasks(SimpleNamespace(forget=lambda id: gone.append(f"file {id}")))  # type: ignore[arg-type]

    def left(owner: str | None, *rows: str) -> str:
        """What is left of tasks such as `a:ann:over`; a state is `runs`, `over` or `old`."""
        gone.clear()
        tasks.tasks.clear()
        for row in rows:
            id, whose, state = row.split(":")
            work = SimpleNamespace(cancel=lambda id=id: gone.append(f"end {id}"))
            until = time.monotonic() + (-1 if state == "old" else 60)
            made = SimpleNamespace(
                owner=whose or None, is_over=state == "over", until=until, call=SimpleNamespace(task=work)
            )
            tasks.tasks[id] = made  # type: ignore[assignment]
        try:
            tasks._forget_old(owner)
        except MCPError as error:
            return error.error.message
        return "".join(tasks.tasks)

    assert left("ann", "a:ann:over", "b::over", "c:bob:runs") == "abc" and gone == []
    assert left("ann", "a:bob:old", "b:ann:runs", "c::old") == "b" and gone == ["end a", "file a", "end c", "file c"]
    assert left("dan", "a:ann:runs", "b:bob:over", "c:ann:over", "d:cat:runs") == "acd" and gone == ["end b", "file b"]
    assert left(None, "a::runs", "b::over", "c::over", "d:cat:runs") == "acd"
    assert left("dan", *(f"{id}:{id}:runs" for id in "abcd")) == "4 tasks are under way, which is the limit: try later"
    assert left("ann", "a:ann:runs", "b:ann:over", "c:ann:over") == "ac" and gone == ["end b", "file b"]
    assert left("bob", "a:ann:runs", "b:ann:over", "c:ann:over") == "abc", "another has room"
    own = "3 tasks of yours are under way, which is the limit: try later"
    assert left("ann", *(f"{id}:ann:runs" for id in "abc")) == own and gone == []
    assert left("ann", "z:bob:old", "a:ann:runs", "b:ann:runs", "c:ann:over") == "ab", (
        "another's leaves no room of one's own"
    )
    assert left("ann", "z:ann:old", "a:ann:runs", "b:ann:over") == "ab", "what is dropped leaves room"
    assert left(None, *(f"{id}::runs" for id in "abc")) == "abc", "who has no key has the server's limit alone"
