"""Tasks and webhooks of the A2A door as they are kept, without a wire."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from a2a.server.agent_execution import AgentExecutor
from a2a.server.context import ServerCallContext
from a2a.types.a2a_pb2 import (
    ListTasksRequest,
    Message,
    Part,
    Role,
    SendMessageRequest,
    Task,
    TaskPushNotificationConfig,
    TaskState,
)
from a2a.utils.errors import InternalError, InvalidParamsError

from firsthand.serve.a2a.a2a_handler import MAX_ID_CHARS, MAX_PARTS, A2AHandler, ClientUser, go_on_all
from firsthand.serve.a2a.agent_card import CardFacts, make_card
from firsthand.serve.a2a.sqlite_tasks import SqlitePushConfigs, SqliteTaskStore
from firsthand.serve.a2a.webhooks import WebhookSender, check_webhook
from firsthand.serve.agents.session_store import SessionStore
from firsthand.tools.web.addresses import parse_rules
from served_agent import Desk, clerk


def context(name: str) -> ServerCallContext:
    return ServerCallContext(user=ClientUser(name))


def task(id: str, state: int, at_s: int, *, about: str = "c") -> Task:
    made = Task(id=id, context_id=about)
    made.status.state = state
    if at_s:
        made.status.timestamp.FromSeconds(at_s)
    return made


WORKING, WAITING, DONE = (
    TaskState.TASK_STATE_WORKING,
    TaskState.TASK_STATE_INPUT_REQUIRED,
    TaskState.TASK_STATE_COMPLETED,
)


def test_tasks_are_listed_by_client_the_last_changed_first_a_page_at_a_time(tmp_path: Path) -> None:
    tasks = SqliteTaskStore(SessionStore(tmp_path, create=True).database)

    async def listed(**fields: Any) -> Any:
        after = fields.pop("after", None)
        request = ListTasksRequest(**fields)
        if after is not None:
            request.status_timestamp_after.FromSeconds(after)
        return await tasks.list(request, context("ann"))

    async def run() -> None:
        for made in (
            task("a", WORKING, 10),
            task("b", DONE, 30),
            task("c", WORKING, 20, about="d"),
            task("e", WORKING, 30),
        ):
            await tasks.save(made, context("ann"))
        await tasks.save(task("x", WORKING, 40), context("bob"))
        whole = await listed()
        assert [each.id for each in whole.tasks] == ["e", "b", "c", "a"]
        assert (whole.total_size, whole.page_size, whole.next_page_token) == (4, 50, "")
        assert [each.id for each in (await listed(context_id="d")).tasks] == ["c"]
        assert [each.id for each in (await listed(status=DONE)).tasks] == ["b"]
        assert [each.id for each in (await listed(after=20)).tasks] == ["e", "b", "c"]
        pages, token = [], ""
        for _ in range(3):
            page = await listed(page_size=2, page_token=token)
            pages.append(([each.id for each in page.tasks], page.total_size, page.page_size))
            token = page.next_page_token
            if not token:
                break
        assert pages == [(["e", "b"], 4, 2), (["c", "a"], 4, 2)]
        assert (await listed(page_size=4)).next_page_token == "" and (await listed(page_size=3)).next_page_token
        with pytest.raises(InvalidParamsError, match="Invalid page token: none"):
            await listed(page_token="none")
        again = task("a", WAITING, 50)
        await tasks.save(again, context("ann"))
        assert [each.id for each in (await listed()).tasks] == ["a", "e", "b", "c"]
        assert {id: owner for id, (owner, _) in tasks.open_tasks().items()} == {
            "a": "ann", "c": "ann", "e": "ann", "x": "bob",
        }  # fmt: skip
        assert tasks.open_tasks()["a"][1] == again
        assert (tasks.owner_of("x"), tasks.owner_of("z")) == ("bob", None)
        await tasks.delete("x", context("ann"))
        assert tasks.owner_of("x") == "bob"
        await tasks.delete("x", context("bob"))
        assert tasks.owner_of("x") is None
        for state in (TaskState.TASK_STATE_FAILED, TaskState.TASK_STATE_REJECTED, TaskState.TASK_STATE_CANCELED):
            await tasks.save(task(f"s{state}", state, 0), context("ann"))
        assert set(tasks.open_tasks()) == {"a", "c", "e"}

    asyncio.run(run())


@pytest.mark.parametrize("has_index", [True, False], ids=["by the index", "sorted"])
def test_tasks_of_one_time_are_on_one_page_each_the_largest_id_first(tmp_path: Path, has_index: bool) -> None:
    database = SessionStore(tmp_path, create=True).database
    tasks = SqliteTaskStore(database)
    if not has_index:
        with database.write() as connection:
            connection.execute("DROP INDEX wire_tasks_by_owner")

    async def run() -> None:
        times = {"m": 20, "a": 20, "z": 20, "k": 20, "late": 30, "b": 20, "old": 10, "none": 0}
        for id, at_s in times.items():
            await tasks.save(task(id, WORKING, at_s, about="cd"[at_s == 10]), context("ann"))
        order = ["late", "z", "m", "k", "b", "a", "old", "none"]
        for size in range(1, 9):
            pages, token = [], ""
            while not pages or token:
                page = await tasks.list(ListTasksRequest(page_size=size, page_token=token), context("ann"))
                assert (page.total_size, page.page_size) == (8, size)
                pages.append([each.id for each in page.tasks])
                token = page.next_page_token
            assert pages == [order[at : at + size] for at in range(0, 8, size)]
        first = await tasks.list(ListTasksRequest(page_size=3, context_id="c"), context("ann"))
        rest = await tasks.list(
            ListTasksRequest(page_size=5, context_id="c", page_token=first.next_page_token), context("ann")
        )
        assert [each.id for each in (*first.tasks, *rest.tasks)] == [each for each in order if each != "old"]
        assert (first.total_size, rest.total_size, rest.next_page_token) == (7, 7, "")
        other = await tasks.list(ListTasksRequest(page_token=first.next_page_token), context("bob"))
        assert (list(other.tasks), other.total_size, other.page_size) == ([], 0, 50)

    asyncio.run(run())


def test_webhooks_are_kept_by_client_and_events_in_order(tmp_path: Path) -> None:
    configs = SqlitePushConfigs(SessionStore(tmp_path, create=True).database)

    def hook(id: str, url: str) -> TaskPushNotificationConfig:
        return TaskPushNotificationConfig(id=id, url=url)

    async def run() -> None:
        for who, where, id in (("ann", "t", "1"), ("ann", "t", "2"), ("bob", "t", "1"), ("ann", "u", "1")):
            kept = await configs.set_info(where, hook(id, f"http://{who}{where}{id}"), context(who))
            assert (kept.task_id, kept.id) == (where, id)
        await configs.set_info("t", hook("1", "http://new"), context("ann"))

        async def urls(who: str) -> list[str]:
            return sorted(each.url for each in await configs.get_info("t", context(who)))

        assert await urls("ann") == ["http://annt2", "http://new"] and await urls("bob") == ["http://bobt1"]
        assert len(await configs.get_info_for_dispatch("t")) == 3
        await configs.delete_info("t", context("ann"), "1")
        await configs.delete_info("t", context("ann"), "9")
        assert await urls("ann") == ["http://annt2"] and await urls("bob") == ["http://bobt1"]
        await configs.delete_info("t", context("ann"))
        assert await urls("ann") == [] and await urls("bob") == ["http://bobt1"]
        assert len(await configs.get_info_for_dispatch("u")) == 1

    asyncio.run(run())
    for where, body in (("u", b"1"), ("t", b"2"), ("u", b"3")):
        configs.queue(where, body)
    assert configs.queued_tasks() == ["u", "t"] and configs.first_queued("v") is None
    place, body = configs.first_queued("u") or (0, b"")
    assert body == b"1"
    configs.sent(place)
    assert configs.first_queued("u") == (place + 2, b"3") and configs.queued_tasks() == ["t", "u"]


def test_an_event_is_kept_until_every_webhook_of_its_task_was_called(tmp_path: Path) -> None:
    configs = SqlitePushConfigs(SessionStore(tmp_path, create=True).database)
    failures: list[tuple[str, str]] = []

    async def run() -> None:
        asked, go = asyncio.Event(), asyncio.Event()

        async def resolver(host: str, port: int) -> list[str]:
            asked.set()
            await go.wait()
            return ["10.0.0.1"]

        def sender() -> WebhookSender:
            return WebhookSender(
                configs, parse_rules("", "80"), resolver=resolver, on_failure=lambda *told: failures.append(told)
            )

        first = sender()
        await first.send_notification("t", task("t", WORKING, 5))
        assert configs.queued_tasks() == [], "nobody is told of it"
        hook = TaskPushNotificationConfig(id="1", task_id="t", url="http://in.example/")
        await configs.set_info("t", hook, context("ann"))
        await first.send_notification("t", task("t", WORKING, 5))
        await first.send_notification("t", task("t", DONE, 6))
        await asyncio.wait_for(asked.wait(), 10)
        await first.aclose()
        assert configs.queued_tasks() == ["t"] and failures == [], (
            "what was being sent is sent again by the next server"
        )
        place, body = configs.first_queued("t") or (0, b"")
        assert b"WORKING" in body and b"COMPLETED" not in body
        second = sender()
        second.go_on()
        second.go_on()
        go.set()
        for _ in range(400):
            if not configs.queued_tasks():
                break
            await asyncio.sleep(0.005)
        await second.aclose()
        assert configs.first_queued("t") is None and place == 1

    asyncio.run(run())
    assert [each[0] for each in failures] == ["t", "t"] and all(
        "10.0.0.1" in why or "in.example" in why for _, why in failures
    )


@pytest.mark.parametrize(
    "url, token, said",
    [
        ("http://93.184.216.34/", "x" * 4096, None),
        ("https://93.184.216.34/", "", None),
        ("http://93.184.216.34:8080/", "", "port 8080 may not be used: 80, 443 may"),
        ("http://127.0.0.1/", "", "the push notification URL was refused"),
        ("ftp://93.184.216.34/", "", "the push notification URL was refused"),
        ("http://unknown.test/", "", None),
        ("http://93.184.216.34/", "x" * 4097, "printable ASCII"),
        ("http://93.184.216.34/", "a\x7f", "printable ASCII"),
    ],
)
def test_a_webhook_has_a_public_address_an_allowed_port_and_plain_headers(
    url: str, token: str, said: str | None
) -> None:
    async def resolver(host: str, port: int) -> list[str]:
        from firsthand.errors import ToolError

        raise ToolError(f"the host {host} is not known: look at its name")

    async def run(**fields: str) -> None:
        config = TaskPushNotificationConfig(url=url, token=token)
        for name, value in fields.items():
            setattr(config.authentication, name, value)
        await check_webhook(config, parse_rules("", "80+443"), resolver)

    if said is None:
        asyncio.run(run(scheme="Bearer", credentials="x"))
        for field in ("scheme", "credentials"):
            with pytest.raises(InvalidParamsError, match="printable ASCII"):
                asyncio.run(run(**{field: "é"}))
    else:
        with pytest.raises(InvalidParamsError, match=said):
            asyncio.run(run())


class Noted(AgentExecutor):
    """An executor that notes the tasks it is given."""

    def __init__(self) -> None:
        self.tasks: list[str] = []
        self.following: set[str] = set()

    async def execute(self, context: Any, event_queue: Any) -> None:
        self.tasks.append(f"{context.task_id}/{context.context_id}/{context.call_context.user.user_name}")
        self.following.discard(context.task_id)

    async def cancel(self, context: Any, event_queue: Any) -> None:
        raise NotImplementedError


def handler_of(folder: Path, executor: Noted) -> A2AHandler:
    card = make_card(clerk(Desk()), "http://x", CardFacts())
    database = SessionStore(folder, create=True).database
    return A2AHandler(executor, database, card, card, parse_rules("", "80"), following=executor.following)


def test_after_a_restart_tasks_go_on_that_wait_for_nobody(tmp_path: Path) -> None:
    executor = Noted()
    handler = handler_of(tmp_path, executor)

    async def run() -> None:
        for id, state, owner in (
            ("a", WORKING, "ann"), ("b", WAITING, "ann"), ("c", TaskState.TASK_STATE_AUTH_REQUIRED, "ann"),
            ("d", DONE, "ann"),
            ("e", TaskState.TASK_STATE_SUBMITTED, "bob"),
        ):  # fmt: skip
            await handler.tasks.save(task(id, state, 5, about=f"in {id}"), context(owner))
        executor.following.add("f")
        await handler.tasks.save(task("f", WORKING, 5), context("bob"))
        handler.webhooks.queue("z", b"{}")
        await go_on_all(handler)
        await handler.go_on("nobody's")
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert handler.webhooks.queued_tasks() == [], "what webhooks were not told is sent"
        await handler.close()

    asyncio.run(run())
    assert sorted(executor.tasks) == ["a/in a/ann", "e/in e/bob"]


def test_a_handler_that_is_told_of_no_others_follows_its_own_tasks_once(tmp_path: Path) -> None:
    executor, card = Noted(), make_card(clerk(Desk()), "http://x", CardFacts())
    handler = A2AHandler(executor, SessionStore(tmp_path, create=True).database, card, card, parse_rules("", "80"))

    async def run() -> None:
        await handler.tasks.save(task("a", WORKING, 5, about="in a"), context("ann"))
        await handler.go_on("a")
        await handler.go_on("a")
        for _ in range(20):
            await asyncio.sleep(0.001)
        await handler.close()

    asyncio.run(run())
    assert executor.tasks == ["a/in a/ann"], "the second time it was followed already"


def test_a_message_is_bounded_and_gets_the_context_of_its_task(tmp_path: Path) -> None:
    handler = handler_of(tmp_path, Noted())

    def params(parts: int = 1, **fields: str) -> SendMessageRequest:
        return SendMessageRequest(message=Message(role=Role.ROLE_USER, parts=[Part(text="x")] * parts, **fields))

    async def run() -> None:
        await handler.tasks.save(task("a", WORKING, 5, about="mine"), context("ann"))
        full = {name: "x" * MAX_ID_CHARS for name in ("message_id", "context_id")}
        await handler._check(params(MAX_PARTS, **full), context("ann"))
        for wrong, said in (
            (params(MAX_PARTS + 1), f"the message has {MAX_PARTS + 1} parts: at most 256 are taken"),
            *((params(**{name: "x" * 257}), f"{name} has more than 256 characters")
              for name in ("message_id", "task_id", "context_id")),
        ):  # fmt: skip
            with pytest.raises(InvalidParamsError, match=said):
                await handler._check(wrong, context("ann"))
        for fields, expected, who in (
            ({"task_id": "a"}, "mine", "ann"), ({"task_id": "a"}, "", "bob"), ({"task_id": "z"}, "", "ann"),
            ({"task_id": "a", "context_id": "own"}, "own", "ann"), ({}, "", "ann"),
        ):  # fmt: skip
            made = params(**fields)
            await handler._check(made, context(who))
            assert made.message.context_id == expected
        hooked = params()
        hooked.configuration.task_push_notification_config.url = "http://127.0.0.1/"
        with pytest.raises(InvalidParamsError, match="refused"):
            await handler._check(hooked, context("ann"))

    asyncio.run(run())


@pytest.mark.parametrize(("year", "count"), [(1, 2), (1677, 2), (2000, 0), (9999, 0)])
def test_tasks_are_listed_after_any_time_of_the_protocol(tmp_path: Path, year: int, count: int) -> None:
    tasks, asked = SqliteTaskStore(SessionStore(tmp_path, create=True).database), ListTasksRequest()
    asked.status_timestamp_after.FromJsonString(f"{year:04}-01-01T00:00:00Z")

    async def run() -> None:
        for id in ("a", "b"):
            await tasks.save(task(id, WORKING, 10), context("ann"))
        assert (await tasks.list(asked, context("ann"))).total_size == count

    asyncio.run(run())


def test_a_client_is_told_nothing_of_the_file_of_tasks_and_the_log_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = SessionStore(tmp_path, create=True).database
    tasks, webhooks = SqliteTaskStore(database), SqlitePushConfigs(database)
    with database.write() as connection:
        for table in ("wire_tasks", "push_configs"):
            connection.execute(f"DROP TABLE {table}")
    hook = TaskPushNotificationConfig(url="https://example.com")
    for call in (
        lambda: tasks.get("a", context("ann")),
        lambda: tasks.save(task("a", WORKING, 10), context("ann")),
        lambda: webhooks.get_info("a", context("ann")),
        lambda: webhooks.set_info("a", hook, context("ann")),
    ):
        caplog.clear()
        with pytest.raises(InternalError) as refused:
            asyncio.run(call())
        assert str(refused.value) == "the server cannot read or keep its tasks now: try again later"
        assert str(tmp_path) in caplog.text
