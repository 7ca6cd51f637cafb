"""A task of an MCP server polled to its end, and what the connection says of errors, changed lists and running calls."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import httpx2
import mcp_types as types
from mcp import MCPError

from firsthand.errors import OutcomeUnknown, StoreError, ToolError
from firsthand.loop.calling import CallPosition, caller
from firsthand.tools.mcp import remote_tasks
from firsthand.tools.mcp.connection import McpConnection, _validator_of
from firsthand.tools.mcp.remote_tasks import CreatedTask, TasksOfServer, _wait
from firsthand.tools.mcp.server_declaration import ServerDeclaration
from firsthand.tools.mcp.server_requests import RequestAnswers

SERVER = ServerDeclaration("peer", command="x", roots=("/",))
TEXT = {"content": [{"type": "text", "text": "done"}]}
ROOTS = {"method": "roots/list"}


class Session:
    """A session whose server gives these states of a task, one after the other."""

    def __init__(self, *states: dict[str, Any]) -> None:
        self.states = list(states)
        self.sent: list[Any] = []

    async def send_request(self, request: Any, kind: Any) -> Any:
        self.sent.append((request.method, request.params.model_dump(by_alias=True, mode="json", exclude_none=True)))
        if kind is types.EmptyResult:
            return types.EmptyResult()
        return kind.model_validate({"taskId": "t1", **self.states.pop(0)})


def followed(*states: dict[str, Any], cancel_after_s: float | None = None) -> tuple[Any, list[Any]]:
    """The result of the task, or its error, and what was sent."""

    async def main() -> tuple[Any, list[Any]]:
        session = Session(*states)
        answers = RequestAnswers(SERVER, caller)
        created = CreatedTask.model_validate({"resultType": "task", "taskId": "t1", "pollIntervalMs": 1})
        following = TasksOfServer(answers)._follow(created, SimpleNamespace(session=session))  # type: ignore[arg-type]
        try:
            async with asyncio.timeout(cancel_after_s):
                result: Any = await following
        except (OutcomeUnknown, TimeoutError, ValueError) as error:
            result = error
        await asyncio.gather(*answers._sending)
        await asyncio.sleep(0)
        assert answers._sending == set()
        return result, session.sent

    return asyncio.run(main())


GET = ("tasks/get", {"taskId": "t1"})
CANCEL = ("tasks/cancel", {"taskId": "t1"})


def test_a_task_is_asked_for_until_it_has_ended() -> None:
    working = {"status": "working", "pollIntervalMs": 1}
    result, sent = followed(working, working, {"status": "completed", "result": TEXT})
    assert result.content[0].text == "done" and sent == [GET] * 3, "one that ended is not cancelled"
    result, sent = followed({"status": "failed", "error": {"code": 7, "message": "no"}})
    assert (str(result), sent) == ("MCP server peer failed its task (code 7): no", [GET])
    result, _ = followed({"status": "failed"})
    failed = f"MCP server peer failed its task (code {types.INTERNAL_ERROR}): "
    assert str(result) == f"{failed}the task failed without a reason"
    for said, reason in (({"statusMessage": "by hand"}, "by hand"), ({}, "no reason")):
        result, sent = followed({"status": "cancelled", **said})
        assert str(result) == f"{failed}the task was cancelled: {reason}" and sent == [GET]
    result, _ = followed({"status": "failed", "error": {"code": types.INVALID_PARAMS, "message": "m" * 2_001}})
    assert type(result) is OutcomeUnknown, "the server had begun, whatever it says later"
    assert str(result) == f"MCP server peer failed its task (code {types.INVALID_PARAMS}): {'m' * 2_000}"
    result, sent = followed({"status": "input_required", "inputRequests": {"k" * 257: ROOTS}})
    assert type(result) is OutcomeUnknown and "under a key of more than 256" in str(result) and sent == [GET, CANCEL]


def test_each_question_of_a_task_is_answered_once() -> None:
    asks = {"status": "input_required", "pollIntervalMs": 1, "inputRequests": {"a": ROOTS}}
    more = asks | {"inputRequests": {"a": ROOTS, "b": ROOTS}}
    result, sent = followed(asks, asks, more, {"status": "completed", "result": TEXT})
    reply = {"roots": [{"uri": "file:///", "name": ""}]}
    assert result.content[0].text == "done"
    assert [each for each in sent if each[0] != "tasks/get"] == [
        ("tasks/update", {"taskId": "t1", "inputResponses": {key: reply}}) for key in ("a", "b")
    ]
    refused, sent = followed(asks | {"inputRequests": {"a": {"method": "no/such"}}})
    assert isinstance(refused, ValueError) and sent == [GET, CANCEL]


def test_a_call_that_is_given_up_cancels_its_task() -> None:
    result, sent = followed({"status": "working", "pollIntervalMs": 5_000}, cancel_after_s=0.02)
    assert isinstance(result, TimeoutError) and sent == [GET, CANCEL]


def test_what_the_connection_says_of_an_error() -> None:
    made = McpConnection(SERVER)
    grouped = ExceptionGroup("two", [ExceptionGroup("one", [OSError("no route\nat all")]), ValueError("x")])
    assert {
        made._reason(error) for error in (OSError("no route\nat all"), grouped, httpx2.ConnectError("no route at all"))
    } == {"MCP server peer cannot be reached: no route at all"}
    assert made._reason(ValueError("v" * 501)) == f"MCP server peer broke the protocol: {'v' * 500}"
    assert made._reason(KeyError()) == "MCP server peer broke the protocol: KeyError"
    assert made._reason(ToolError("as it is")) == "as it is"

    def told(code: int, message: str) -> str:
        return asyncio.run(made._told(MCPError(code, message)))

    assert told(-5, "m" * 2_001) == f"MCP server peer failed the request (code -5): {'m' * 2_000}"
    assert told(types.INVALID_PARAMS, "no") == "MCP server peer refused the request (code -32602): no"
    assert (
        told(types.CONNECTION_CLOSED, "other")
        == f"MCP server peer failed the request (code {types.CONNECTION_CLOSED}): other"
    )
    assert not made._dead.is_set()
    assert told(types.CONNECTION_CLOSED, "Connection Closed") == "MCP server peer closed the connection"
    assert made._dead.is_set()
    assert made.ending() == "MCP server peer is not connected" and made._words() == ""
    made._failure = StoreError("the approvals are damaged")
    assert made.ending() == "the approvals are damaged"
    with pytest.raises(RuntimeError, match="Invalid schema for tool t: "):
        _validator_of("t", {"type": 5})
    assert list(_validator_of("t", {"type": "integer"}).iter_errors(1)) == []


def test_lists_that_changed_are_noted_and_calls_are_told_apart() -> None:
    made = McpConnection(SERVER)

    async def heard(*messages: Any) -> None:
        for each in messages:
            await made._heard(each)

    asyncio.run(
        heard(types.ToolListChangedNotification(), types.PromptListChangedNotification(), "other", ValueError())
    )
    assert made.changed == {"tools", "prompts"}
    asyncio.run(heard(types.ResourceListChangedNotification()))
    assert made.changed == {"tools", "prompts", "resources"}
    assert made._current() is None
    one, other = (SimpleNamespace(context=SimpleNamespace(attempt=each)) for each in ("one", "other"))
    made.calls += [one, SimpleNamespace(context=one.context)]  # type: ignore[list-item]
    assert made._current() is one, "the oldest of one attempt"
    made.calls.append(other)  # type: ignore[arg-type]
    assert made._current() is None, "of two attempts it may be either's"
    del made.calls[:2]
    assert made._current() is other


def test_answers_reach_the_server_in_the_names_of_the_protocol() -> None:
    class Answers:
        def __init__(self) -> None:
            self.asked: list[Any] = []

        async def dispatch(self, request: Any) -> Any:
            self.asked.append(request)
            if request.method == "roots/list":
                return types.ListRootsResult(roots=[])
            if request.params.max_tokens == 1:
                return types.ErrorData(code=-9, message="not now")
            text = types.TextContent(type="text", text="é")
            return types.CreateMessageResult(role="assistant", content=text, model="m", stop_reason="maxTokens")

    async def sent(most: int) -> tuple[list[Any], list[Any]]:
        answers, session = Answers(), Session()
        message = {"role": "user", "content": {"type": "text", "text": "q"}}
        asked = {"method": "sampling/createMessage", "params": {"messages": [message], "maxTokens": most}}
        following = TasksOfServer(answers)  # type: ignore[arg-type]
        context: Any = SimpleNamespace(session=session)
        try:
            await following._answer(context, "t7", {"first": ROOTS, "second": asked})
        except MCPError as error:
            session.sent.append((error.error.code, error.error.message))
        return session.sent, [each.method for each in answers.asked]

    said = {"role": "assistant", "content": {"type": "text", "text": "é"}, "model": "m", "stopReason": "maxTokens"}
    ((method, params),), asked = asyncio.run(sent(5))
    assert method == "tasks/update" and asked == ["roots/list", "sampling/createMessage"]
    assert params == {"taskId": "t7", "inputResponses": {"first": {"roots": []}, "second": said}}
    assert asyncio.run(sent(1)) == ([(-9, "not now")], asked), "of several answers none is sent"


def test_a_task_is_asked_for_as_often_as_it_said_last_and_no_question_of_it_is_answered_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(remote_tasks, "asyncio", SimpleNamespace(sleep=sleep))

    def asks(*keys: str, **more: Any) -> dict[str, Any]:
        return {"status": "input_required", "inputRequests": dict.fromkeys(keys, ROOTS), **more}

    result, sent = followed(
        {"status": "working"}, asks("a", pollIntervalMs=40), asks("b"), asks("a", pollIntervalMs=90_000),
        asks("b", "c", "a"), {"status": "input_required", "inputRequests": None, "pollIntervalMs": 0},
        {"status": "completed", "result": TEXT},
    )  # fmt: skip
    assert result.content[0].text == "done" and waits == [0.02, 0.04, 0.04, 5.0, 5.0, 0.02]
    answered = [list(params["inputResponses"]) for method, params in sent if method == "tasks/update"]
    assert answered == [["a"], ["b"], ["c"]]
    assert [_wait(None), _wait(None, 3.0), _wait(0), _wait(20.5), _wait(5_000.5)] == [0.2, 3.0, 0.02, 0.0205, 5.0]
    result, _ = followed({"status": "completed", "result": None})
    assert isinstance(result, ValueError), "a result without content is none"


def test_a_call_that_ends_is_no_longer_running_whichever_began_first() -> None:
    async def main() -> None:
        made = McpConnection(SERVER)
        made._client = "client"  # type: ignore[assignment]
        ends = {name: asyncio.Event() for name in ("one", "two", "three")}
        context = SimpleNamespace(attempt="one")
        places = {name: CallPosition(context, name, None, None) for name in ends}  # type: ignore[arg-type]

        async def under(name: str) -> str:
            async def send(client: Any) -> str:
                await ends[name].wait()
                return f"{client} {name}"

            with places[name].active():
                return await made.request(send)

        running = {name: asyncio.create_task(under(name)) for name in ends}
        await asyncio.sleep(0.001)
        assert made.calls == [*places.values()]
        _, two, three = places.values()
        for name, left in (("one", [two, three]), ("three", [two]), ("two", [])):
            ends[name].set()
            assert await running[name] == f"client {name}" and made.calls == left
            assert made._current() is (left[0] if left else None)

    asyncio.run(main())
