"""What the A2A door tells of a turn, event by event, and its handler, app and webhooks called directly."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("a2a", reason="needs the A2A SDK: pip install 'firsthand[a2a]'")

from a2a.server.agent_execution.context import RequestContext
from a2a.server.context import ServerCallContext
from a2a.server.tasks.task_updater import TaskUpdater
from a2a.types.a2a_pb2 import Task, TaskPushNotificationConfig, TaskState
from a2a.types.a2a_pb2 import TaskStatus as Status
from a2a.utils.errors import InvalidParamsError, TaskNotFoundError
from starlette.requests import Request

from a2a_turns import Events, asks, data, said, within
from answering_server import answer, served
from firsthand.loop.form import FormField
from firsthand.serve.a2a import turn_executor
from firsthand.serve.a2a.a2a_app import _Contexts, _Guarded
from firsthand.serve.a2a.a2a_door import a2a_door
from firsthand.serve.a2a.a2a_handler import A2AHandler, ClientUser
from firsthand.serve.a2a.a2a_settings import A2ASettings
from firsthand.serve.a2a.sqlite_tasks import SqlitePushConfigs
from firsthand.serve.a2a.turn_executor import _MOST_TOLD, TurnExecutor
from firsthand.serve.a2a.webhooks import WebhookSender
from firsthand.serve.admission.active_request import ActiveRequest, attach
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.admission.api_keys import Client
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.agents.served_sessions import ServedSessions
from firsthand.serve.agents.session_store import SessionStore
from firsthand.serve.http.listen_address import ListenAddress
from served_agent import Desk


def test_a_task_is_told_from_its_question_to_its_answer(tmp_path: Path) -> None:
    desk = Desk()

    async def use(sessions: ServedSessions, executor: TurnExecutor) -> None:
        async def told(context: RequestContext) -> Events:
            queue = Events()
            await executor.execute(context, queue)  # type: ignore[arg-type]
            assert executor.following == set()
            return queue

        first = await told(asks("t1", said("hi")))
        assert first.said == [
            ("task", "t1", "c", ["hi"]), ("working",),
            ("artifact", "answer", "answer", [("You said hi, after 0 others.", "text/plain")], True), ("completed",),
        ]  # fmt: skip
        paying = await told(asks("t2", said("pay 6")))
        (two,) = sessions.store.pending("t2")
        assert paying.said == [
            ("task", "t2", "c", ["pay 6"]), ("working",), ("working", 'pay({"amount":6})'), ("input_required", two.question),
        ]  # fmt: skip
        two_json = {"approval": two.id, "tool": "pay", "effect": "irreversible", "arguments": {"amount": 6.0}}
        assert paying.data == [two_json]
        one = sessions.store.asked("t2", ":9", "mail", "read", {"x": "y"}, "Mail?")
        unclear = await told(asks("t2", said("yes"), shown=[two.id, one.id]))
        assert unclear.said == [("input_required", "say yes or no, or send data with approval and allowed; this waits for "
                                 f"an answer: {two.id}: pay; {one.id}: mail")]  # fmt: skip
        one_json = {"approval": one.id, "tool": "mail", "effect": "read", "arguments": {"x": "y"}}
        assert unclear.data == [two_json, one_json] and sessions.store.turn("t2").state == "input_required"
        half = await told(asks("t2", data(approval=one.id, allowed=False), begun=True))
        assert half.said[-1] == ("input_required", two.question) and half.data == [two_json]
        assert (
            sessions.store.approval(one.id).answered_by == "ann" and sessions.store.approval(two.id).state == "pending"
        )
        done = await told(asks("t2", said("Yes."), shown=[two.id]))
        assert done.said[-1] == ("completed",) and desk.paid == [6]
        assert ("artifact", "answer", "answer", [("Done: paid 6", "text/plain")], True) in done.said
        assert (await told(asks("t2", said("yes"), begun=True))).said == [], "an end is told once"
        with pytest.raises(InvalidParamsError, match="there is a turn 't1' already"):
            await told(asks("t1", said("hi")))
        with pytest.raises(InvalidParamsError, match="the message says nothing: send text"):
            await told(asks("t3", said(" ")))
        assert executor.following == set()
        lost = await told(asks("lost", said("x"), begun=True))
        assert lost.said == [("failed", "the server was stopped before this began")]
        theirs = await told(asks("t2", said("x"), begun=True, owner="bob"))
        assert theirs.said == [("failed", "the server was stopped before this began")]
        again = TurnExecutor(sessions)
        queue = Events()
        await again.execute(asks("t1", begun=True, empty=True), queue)  # type: ignore[arg-type]
        assert [each[0] for each in queue.said] == ["artifact", "completed"], "after a restart it is told again"

    within(tmp_path, desk, use)


def test_a_form_that_does_not_fit_is_asked_again_with_the_reason(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions, executor: TurnExecutor) -> None:
        store = sessions.store
        turn = store.add_turn(store.open_session("ann", "c").id, "q", id="f")
        field = FormField("n", "integer", required=True)
        asked = store.asked(turn.id, ":0", "fill", "read", {}, "How many?", (field,))
        store.move("f", "input_required")
        queue = Events()
        await executor.execute(asks("f", data(approval=asked.id, content={"n": "x"}), shown=[asked.id]), queue)  # type: ignore[arg-type]
        ((state, text),) = queue.said
        assert state == "input_required" and text.endswith(
            f"; send data with approval, allowed and content. this waits for an answer: {asked.id}: fill"
        )
        assert queue.data[0]["schema"]["required"] == ["n"] and store.approval(asked.id).state == "pending"
        page = {"open": "https://x.example", "message": "Sign in"}
        store.answer(asked.id, False, by="x")
        signs = store.asked("f", ":1", "mail__elicitation", "read", page, "?", opens="https://x.example")
        queue = Events()
        await executor.execute(asks("f", said("perhaps"), shown=[signs.id]), queue)  # type: ignore[arg-type]
        assert queue.said == [("auth_required", "say yes or no, or send data with approval and allowed; "
                               f"this waits for an answer: {signs.id}: mail__elicitation")]  # fmt: skip

    within(tmp_path, Desk(), use)


def test_a_cancel_tells_what_became_of_the_turn(tmp_path: Path) -> None:
    desk = Desk()

    async def use(sessions: ServedSessions, executor: TurnExecutor) -> None:
        async def canceled(id: str, owner: str = "ann") -> list[Any]:
            queue = Events()
            await executor.cancel(asks(id, said("x"), begun=True, owner=owner), queue)  # type: ignore[arg-type]
            return queue.said

        sessions.submit("ann", "wait", context="c", id="w")
        while not desk.waiting.is_set():
            await asyncio.sleep(0.001)
        assert await canceled("w", "bob") == [("canceled",)] and not sessions.store.turn("w").is_over
        assert await canceled("w") == [("canceled",)] and sessions.store.turn("w").state == "canceled"
        await sessions.settled(sessions.submit("ann", "hi", context="c", id="h").id)
        assert [each[0] for each in await canceled("h")] == ["artifact", "completed"]
        assert await canceled("h") == [] and await canceled("none") == [("canceled",)]
        executor._told = dict.fromkeys(map(str, range(_MOST_TOLD)))
        await sessions.settled(sessions.submit("ann", "yo", context="c", id="y").id)
        await canceled("y")
        assert len(executor._told) == _MOST_TOLD == 10_000 and "0" not in executor._told and "y" in executor._told

    within(tmp_path, desk, use)


def test_every_answer_of_a_message_counts_also_behind_one_that_came_too_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn_executor, "_MOST_TOLD", 2)

    async def use(sessions: ServedSessions, executor: TurnExecutor) -> None:
        store, answer = sessions.store, sessions.answer
        store.add_turn(store.open_session("ann", "c").id, "q", id="two")
        one, two = (store.asked("two", f":{at}", "pay", "read", {}, "?") for at in range(2))
        store.move("two", "input_required")

        def late(approval: str, *given: Any, **named: Any) -> Any:
            if approval == one.id:
                store.answer(one.id, False, by="eve")
            return answer(approval, *given, **named)

        sessions.answer = late  # type: ignore[method-assign]
        message = asks("two", data(approval=one.id, allowed=True), data(approval=two.id, allowed=True)).message
        queue = Events()
        updater = TaskUpdater(queue, "two", "c")  # type: ignore[arg-type]
        assert (
            message is not None and await executor._answer(message, updater, "ann", "two", set()) and queue.said == []
        )
        told = [(store.approval(each.id).state, store.approval(each.id).answered_by) for each in (one, two)]
        assert told == [("denied", "eve"), ("allowed", "ann")]
        assert (await sessions.settled("two")).answer == "You said q, after 0 others."
        for id, kept in (("two", ["two"]), ("x", ["two", "x"]), ("y", ["x", "y"])):
            turn = replace(store.turn("two"), id=id)
            await executor._settle(TaskUpdater(queue, id, "c"), turn)  # type: ignore[arg-type]
            assert list(executor._told) == kept, "the last two ends are remembered"
        assert [each[0] for each in queue.said] == ["artifact", "completed"] * 3
        await executor._settle(TaskUpdater(queue, "two", "c"), store.turn("two"))  # type: ignore[arg-type]
        assert len(queue.said) == 8, "one that was forgotten is told again"

    within(tmp_path, Desk(), use)


# -- the handler and the app --


def test_a_door_follows_turns_that_go_on_without_a_request_and_names_webhooks_that_fail(tmp_path: Path) -> None:
    desk = Desk()

    async def use(sessions: ServedSessions, executor: TurnExecutor) -> None:
        door = a2a_door(sessions, Admission(), ListenAddress(), A2ASettings(webhook_ports="80"), url="http://in")
        (begun,) = sessions.on_begin
        bugs: list[str] = []
        sessions.on_bug = bugs.append
        handler: A2AHandler = _handler(begun)
        handler.sender.on_failure("t9", "it answers with status 500")
        assert bugs == ["the webhook of the task t9 was not called: it answers with status 500"]
        ann = ServerCallContext(user=ClientUser("ann"))
        kept = Task(id="t", context_id="c", status=Status(state=TaskState.TASK_STATE_SUBMITTED))
        assert door.lifespan is not None
        async with door.lifespan():
            await handler.tasks.save(kept, ann)
            other = await sessions.settled(sessions.submit("ann", "hi", context="d").id)
            await sessions.settled(sessions.submit("ann", "hi", context="c", id="t").id)
            for _ in range(200):
                found = await handler.tasks.get("t", ann)
                if found is not None and found.status.state == TaskState.TASK_STATE_COMPLETED:
                    break
                await asyncio.sleep(0.005)
            assert found is not None and found.artifacts[0].parts[0].text == "You said hi, after 0 others."
            assert await handler.tasks.get(other.id, ann) is None
        hook = TaskPushNotificationConfig(task_id="none", url="http://x.example")
        with pytest.raises(TaskNotFoundError):
            await handler.on_create_task_push_notification_config(hook, ann)
        with pytest.raises(InvalidParamsError, match="the push notification URL was refused"):
            await handler._reject_unsafe_push_url("http://127.0.0.1/")
        inner = TaskPushNotificationConfig(task_id="t", url="http://127.0.0.1/")
        with pytest.raises(InvalidParamsError, match="the push notification URL was refused"):
            await handler.on_create_task_push_notification_config(inner, ann)

    within(tmp_path, desk, use)


def test_a_door_leaves_a_turn_that_a_request_follows_to_that_request(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions, executor: TurnExecutor) -> None:
        door = a2a_door(sessions, Admission(), ListenAddress(), A2ASettings(), url="http://in")
        handler: A2AHandler = _handler(sessions.on_begin[0])
        followed: set[str] = handler.agent_executor.following  # type: ignore[attr-defined]
        ann = ServerCallContext(user=ClientUser("ann"))

        async def state(id: str) -> int:
            task = await handler.tasks.get(id, ann)
            assert task is not None
            return task.status.state

        async def completed(id: str) -> bool:
            for _ in range(200):
                if await state(id) == TaskState.TASK_STATE_COMPLETED:
                    return True
                await asyncio.sleep(0.005)
            return False

        assert door.lifespan is not None
        async with door.lifespan():
            for id in ("followed", "alone"):
                kept = Task(id=id, context_id=id, status=Status(state=TaskState.TASK_STATE_SUBMITTED))
                await handler.tasks.save(kept, ann)
            followed.add("followed")
            for id in ("followed", "alone"):
                await sessions.settled(sessions.submit("ann", "hi", context=id, id=id).id)
            assert await completed("alone") and await state("followed") == TaskState.TASK_STATE_SUBMITTED
            await handler.go_on("followed")
            assert followed == {"followed"} and await state("followed") == TaskState.TASK_STATE_SUBMITTED
            followed.clear()
            await handler.go_on("followed")
            assert await completed("followed")
            await handler.go_on("unknown")
            assert await handler.tasks.get("unknown", ann) is None

    within(tmp_path, Desk(), use)


def _handler(begun: Any) -> Any:
    cells = dict(zip(begun.__code__.co_freevars, begun.__closure__, strict=True))
    return cells["handler"].cell_contents


def test_the_sdk_gets_the_servers_client_and_the_answers_the_newer_type_only_where_it_is_asked_for() -> None:
    def scope(path: str, method: str = "POST", body: bytes = b"{}", kind: str | None = "application/json",
              **headers: str) -> dict[str, Any]:  # fmt: skip
        pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        made = {"type": "http", "path": path, "method": method, "headers": pairs}
        attach(made, ActiveRequest("r", Client("ann", ClientLimits()), path, kind, body))
        return made

    context = _Contexts().build(Request(scope("/a2a", a2a_extensions="x://1, x://2", more="m")))
    assert context.user.user_name == "ann" and context.user.is_authenticated
    assert context.requested_extensions == {"x://1", "x://2"}
    assert context.state == {"headers": {"a2a-extensions": "x://1, x://2", "more": "m"}}
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/a2a+json"), (b"x", b"y")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"passed"})

    guarded = _Guarded(app, "then")  # type: ignore[arg-type]
    card = "/.well-known/agent-card.json"
    for made, headers in (
        (scope("/a2a/rest/tasks", "GET"), {"content-type": "application/json", "x": "y"}),
        (
            scope("/a2a/rest/message:send", accept="application/a2a+json"),
            {"content-type": "application/a2a+json", "x": "y"},
        ),
        (scope("/a2a/rest/tasks/1:cancel", body=b"", kind=None), {"content-type": "application/json", "x": "y"}),
        (scope(card, "GET"), {"content-type": "application/a2a+json", "x": "y", "last-modified": "then"}),
        (
            scope(card, body=b"\xff", kind="text/plain"),
            {"content-type": "application/a2a+json", "x": "y", "last-modified": "then"},
        ),
        (scope("/a2a", "GET", b"\xff", "text/plain"), {"content-type": "application/json", "x": "y"}),
    ):
        sent.clear()
        asyncio.run(guarded(made, None, send))  # type: ignore[arg-type]
        assert sent[1]["body"] == b"passed", made
        assert {name.decode(): value.decode() for name, value in sent[0]["headers"]} == headers
    rest, rpc = "/a2a/rest/tasks", b'{"id": 1, "method": "%s", "params": %s}'
    for query, is_state in ((b"status=BAD", False), (b"a=b&status=TASK_STATE_WORKING&status=working", False),
                            (b"status=TASK_STATE_WORKING", True), (b"status=2", True), (b"status=", True),
                            (b"", True)):  # fmt: skip
        sent.clear()
        asyncio.run(guarded({**scope(rest, "GET"), "query_string": query}, None, send))  # type: ignore[arg-type]
        assert sent[0]["status"] == (200 if is_state else 400), query
        assert is_state or b"which is no state of a task: give one such as TASK_STATE_WORKING" in sent[1]["body"]
    for method, given, is_state in (
        (b"ListTasks", b'{"status": "BAD"}', False), (b"ListTasks", b'{"status": "TASK_STATE_WORKING"}', True),
        (b"ListTasks", b'{"status": 2}', True), (b"ListTasks", b"[1]", True), (b"ListTasks", b"{}", True),
        (b"GetTask", b'{"status": "BAD"}', True),
    ):  # fmt: skip
        sent.clear()
        asyncio.run(guarded(scope("/a2a", body=rpc % (method, given)), None, send))  # type: ignore[arg-type]
        assert (b"no state of a task" in sent[1]["body"]) is not is_state, (method, given)
    for id in (7, "x", None, [7]):
        sent.clear()
        body = json.dumps({"id": id, "method": "ListTasks", "params": {"status": "BAD" * 30}}).encode()
        asyncio.run(guarded(scope("/a2a", body=body), None, send))  # type: ignore[arg-type]
        told = json.loads(sent[1]["body"])
        assert (told["id"], told["error"]["code"]) == (None if id == [7] else id, -32602)
        assert told["error"]["message"].startswith(f"status is {('BAD' * 20)!r}, which is no state of a task: ")
    for made in (scope(f"{rest}/1", "GET"), scope(rest)):
        sent.clear()
        asyncio.run(guarded({**made, "query_string": b"status=BAD"}, None, send))  # type: ignore[arg-type]
        assert sent[1]["body"] == b"passed", "only a list is asked for by a state"
    sent.clear()
    asyncio.run(guarded(scope("/a2a", body=b"[]"), None, send))  # type: ignore[arg-type]
    assert sent[1]["body"] == b"passed", "the SDK refuses what is no request"
    for made in (scope("/a2a", body=b"", kind="text/plain"), scope("/a2a", kind=" TEXT/x ; a=b")):
        sent.clear()
        asyncio.run(guarded(made, None, send))  # type: ignore[arg-type]
        assert sent[0]["status"] == 415 and b"text/" in sent[1]["body"] and b"send application/json" in sent[1]["body"]


def test_a_webhook_gets_every_event_in_order_with_its_token_and_its_credentials(tmp_path: Path) -> None:
    database = SessionStore(tmp_path, create=True).database
    configs = SqlitePushConfigs(database)
    ann = ServerCallContext(user=ClientUser("ann"))
    failures: list[Any] = []

    async def work(port: int, rules: Any) -> list[str]:
        def hook(id: str, path: str, **more: Any) -> TaskPushNotificationConfig:
            return TaskPushNotificationConfig(id=id, url=f"http://127.0.0.1:{port}/{path}", **more)

        bearer = {"scheme": "Bearer", "credentials": "secret"}
        await configs.set_info("t", hook("1", "one", token="tok", authentication=bearer), ann)
        await configs.set_info("u", hook("2", "two", authentication={"scheme": "Bearer"}), ann)
        await configs.set_info("u", hook("4", "two", authentication={"credentials": "secret"}), ann)
        await configs.set_info("v", TaskPushNotificationConfig(id="3", url="http://127.0.0.1:1/"), ann)
        sender = WebhookSender(configs, rules, on_failure=lambda task, why: failures.append((task, why)))
        for id, state in (("t", TaskState.TASK_STATE_WORKING), ("t", TaskState.TASK_STATE_COMPLETED),
                          ("none", TaskState.TASK_STATE_WORKING), ("v", TaskState.TASK_STATE_WORKING)):  # fmt: skip
            await sender.send_notification(id, Task(id=id, context_id="c", status=Status(state=state)))
        assert configs.queued_tasks() == ["t", "v"] and sorted(sender._workers) == ["t", "v"]
        while sender._workers:
            await asyncio.sleep(0.002)
        configs.queue("u", b'{"left": 1}')
        sender.go_on()
        while sender._workers:
            await asyncio.sleep(0.002)
        await sender.aclose()
        return configs.queued_tasks()

    left, came = served([answer()], work)
    assert left == [] and [each.partition(" HTTP")[0] for each in came] == ["POST /one"] * 2 + ["POST /two"] * 2
    heads, bodies = zip(*(each.split("\r\n\r\n") for each in came), strict=True)
    assert [json.loads(each) for each in bodies] == [
        {"task": {"id": "t", "contextId": "c", "status": {"state": "TASK_STATE_WORKING"}}},
        {"task": {"id": "t", "contextId": "c", "status": {"state": "TASK_STATE_COMPLETED"}}},
        *[{"left": 1}] * 2,
    ]
    for head, has in zip(heads, (True, True, False, False), strict=True):
        assert "content-type: application/a2a+json" in head.lower()
        assert ("x-a2a-notification-token: tok\r\n" in f"{head}\r\n".lower()) is has
        assert ("authorization: Bearer secret\r\n" in f"{head}\r\n") is has and ("authorization" in head.lower()) is has
    ((task, why),) = failures
    assert task == "v" and "port 1 may not be used" in why
