"""The operations of the A2A door called as the SDK calls them: messages whole and streamed, cancels, webhooks, cards."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("a2a", reason="needs the A2A SDK: pip install 'firsthand[a2a]'")

from a2a.server.context import ServerCallContext
from a2a.types.a2a_pb2 import (
    AgentCard,
    CancelTaskRequest,
    GetExtendedAgentCardRequest,
    Message,
    Part,
    Role,
    SendMessageRequest,
    Task,
    TaskPushNotificationConfig,
    TaskState,
    TaskStatus,
)
from a2a.utils.errors import InvalidParamsError, TaskNotCancelableError, TaskNotFoundError
from google.protobuf.json_format import MessageToDict

from firsthand.serve.a2a.a2a_app import _refused, a2a_app, card_json
from firsthand.serve.a2a.a2a_door import a2a_door
from firsthand.serve.a2a.a2a_handler import A2AHandler, ClientUser
from firsthand.serve.a2a.a2a_settings import A2ASettings
from firsthand.serve.a2a.agent_card import CardFacts, extended_card, make_card
from firsthand.serve.a2a.grpc_door import GrpcDoor
from firsthand.serve.a2a.sqlite_tasks import MAX_WEBHOOKS, SqlitePushConfigs, SqliteTaskStore
from firsthand.serve.a2a.turn_executor import TurnExecutor
from firsthand.serve.a2a.webhooks import check_webhook
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.admission.api_keys import Client, Keys
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.agents.agent_doors import opened_sessions
from firsthand.serve.agents.served_sessions import ServedSessions
from firsthand.serve.agents.session_settings import SessionSettings
from firsthand.serve.agents.session_store import SessionStore
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.tools.web.addresses import parse_rules
from served_agent import Desk, clerk

ANN, BOB = (ServerCallContext(user=ClientUser(name)) for name in ("ann", "bob"))


async def resolver(host: str, port: int) -> list[str]:
    return {"in.example": ["10.0.0.7"]}.get(host, ["93.184.216.34"])


def within(folder: Path, desk: Desk, use: Callable[[ServedSessions, A2AHandler], Awaitable[Any]]) -> Any:
    """What `use` makes of the handler of an agent whose sessions run."""

    async def main() -> Any:
        agent = clerk(desk)
        with opened_sessions(agent, folder, folder / "s", SessionSettings(poll_s=0.01)) as sessions:
            async with sessions.running():
                executor = TurnExecutor(sessions)
                card = make_card(agent, "http://x", CardFacts())
                handler = A2AHandler(
                    executor, sessions.store.database, card, extended_card(card, agent), parse_rules("", "80"),
                    resolver=resolver, following=executor.following,
                )  # fmt: skip
                try:
                    return await use(sessions, handler)
                finally:
                    await handler.close()

    return asyncio.run(main())


def said(text: str, **fields: str) -> SendMessageRequest:
    return SendMessageRequest(message=Message(message_id="m", role=Role.ROLE_USER, parts=[Part(text=text)], **fields))


def state_of(task: Any) -> str:
    return TaskState.Name(task.status.state).removeprefix("TASK_STATE_").lower()


def test_a_message_begins_a_task_goes_on_with_it_and_belongs_to_its_context(tmp_path: Path) -> None:
    desk = Desk()

    async def use(sessions: ServedSessions, handler: A2AHandler) -> None:
        first: Any = await handler.on_message_send(said("hi", context_id="c"), ANN)
        assert state_of(first) == "completed" and first.context_id == "c"
        assert first.artifacts[0].parts[0].text == "You said hi, after 0 others."
        assert handler.tasks.owner_of(first.id) == "ann" and sessions.store.turn(first.id).owner == "ann"
        asks: Any = await handler.on_message_send(said("pay 5", context_id="c"), ANN)
        assert state_of(asks) == "input_required" and desk.paid == []
        with pytest.raises(TaskNotFoundError):
            await handler.on_message_send(said("yes", task_id=asks.id), BOB)
        paid: Any = await handler.on_message_send(said("yes", task_id=asks.id), ANN)
        assert (paid.id, paid.context_id, state_of(paid)) == (asks.id, "c", "completed") and desk.paid == [5]
        many = said("x")
        many.message.parts.extend([Part(text="y")] * 256)
        for refused in (handler.on_message_send(many, ANN), _all(handler.on_message_send_stream(many, ANN))):
            with pytest.raises(InvalidParamsError, match="the message has 257 parts: at most 256 are taken"):
                await refused
        events = await _all(handler.on_message_send_stream(said("yo", context_id="c"), ANN))
        kinds = [type(event).__name__ for event in events]
        assert kinds[0] == "Task" and kinds[-2:] == ["TaskArtifactUpdateEvent", "TaskStatusUpdateEvent"]
        assert events[-2].artifact.parts[0].text == "You said yo, after 2 others."

    within(tmp_path, desk, use)


async def _all(events: Any) -> list[Any]:
    return [event async for event in events]


def test_a_cancel_is_answered_by_what_became_of_the_task(tmp_path: Path) -> None:
    desk = Desk()

    async def use(sessions: ServedSessions, handler: A2AHandler) -> None:
        asks: Any = await handler.on_message_send(said("pay 5", context_id="c"), ANN)
        with pytest.raises(TaskNotFoundError):
            await handler.on_cancel_task(CancelTaskRequest(id=asks.id), BOB)
        task = await handler.on_cancel_task(CancelTaskRequest(id=asks.id), ANN)
        assert task is not None and (task.id, state_of(task)) == (asks.id, "canceled")
        assert sessions.store.turn(asks.id).state == "canceled"
        done: Any = await handler.on_message_send(said("hi", context_id="c"), ANN)
        for id, error in ((done.id, TaskNotCancelableError), ("none", TaskNotFoundError)):
            with pytest.raises(error):
                await handler.on_cancel_task(CancelTaskRequest(id=id), ANN)
        raced: Any = await handler.on_message_send(said("pay 6", context_id="d"), ANN)
        (asked,) = sessions.store.pending(raced.id)
        sessions.answer(asked.id, True, by="boss")
        await sessions.settled(raced.id)
        with pytest.raises(TaskNotCancelableError):  # it ended first, and the task did not know
            await handler.on_cancel_task(CancelTaskRequest(id=raced.id), ANN)
        assert desk.paid == [6]

    within(tmp_path, desk, use)


def test_a_task_that_cannot_be_gone_on_with_is_followed_by_nobody(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions, handler: A2AHandler) -> None:
        kept = Task(id="t", context_id="c", status=TaskStatus(state=TaskState.TASK_STATE_WORKING))
        await handler.tasks.save(kept, ANN)
        await handler.close()

        class Broken:
            async def get_or_create(self, *given: Any, **more: Any) -> Any:
                assert handler._following == {"t"}
                raise why

            async def aclose(self) -> None: ...

        handler._active_task_registry = Broken()  # type: ignore[assignment]
        for why in (RuntimeError("closed"), asyncio.CancelledError("cancelled")):
            with pytest.raises(type(why), match=str(why)):
                await handler.go_on("t")
            assert handler._following == set()
        handler._following.add("t")
        await handler.go_on("t")
        await handler.go_on("none")

    within(tmp_path, Desk(), use)


def test_webhooks_are_set_where_they_may_be_called_and_for_tasks_that_are_there(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions, handler: A2AHandler) -> None:
        done: Any = await handler.on_message_send(said("hi"), ANN)

        def hook(url: str, task: str = "") -> TaskPushNotificationConfig:
            return TaskPushNotificationConfig(task_id=task or done.id, id="w", url=url, token="t")

        kept = await handler.on_create_task_push_notification_config(hook("http://out.example/x"), ANN)
        assert (kept.task_id, kept.id, kept.url, kept.token) == (done.id, "w", "http://out.example/x", "t")
        assert (
            await handler.webhooks.get_info(done.id, ANN) == [kept]
            and await handler.webhooks.get_info(done.id, BOB) == []
        )
        other = hook("http://out.example/x", "no")
        for config, context, error in (
            (hook("http://in.example/x"), ANN, InvalidParamsError), (hook("https://out.example/x"), ANN, InvalidParamsError),
            (hook("http://out.example/x"), BOB, TaskNotFoundError), (other, ANN, TaskNotFoundError),
        ):  # fmt: skip
            with pytest.raises(error):
                await handler.on_create_task_push_notification_config(config, context)
        await handler._reject_unsafe_push_url("http://out.example/x")
        with pytest.raises(InvalidParamsError):
            await handler._reject_unsafe_push_url("http://in.example/x")
        begins = said("hi")
        begins.configuration.task_push_notification_config.url = "http://in.example/"
        with pytest.raises(InvalidParamsError):
            await handler._check(begins, ANN)

    within(tmp_path, Desk(), use)


def test_a_webhook_may_have_the_ports_and_hosts_of_the_rules_and_no_odd_headers() -> None:
    def check(url: str, rules: str = "", ports: str = "80+8443", **fields: Any) -> str:
        config = TaskPushNotificationConfig(url=url, token=fields.pop("token", ""))
        for name, value in fields.items():
            setattr(config.authentication, name, value)
        try:
            asyncio.run(check_webhook(config, parse_rules(rules, ports), resolver))
        except InvalidParamsError as error:
            return str(error)
        return ""

    assert (
        check("http://out.example/")
        == check("https://out.example:8443/x")
        == check("http://in.example/", "10.0.0.0/8")
        == ""
    )
    assert check("https://out.example/") == (
        "the push notification URL was refused: port 443 may not be used: 80, 8443 may"
    )
    assert check("https://out.example/", ports="443") == "" and "port 80 may not" in check(
        "http://out.example/", ports="443"
    )
    assert check("http://in.example/").startswith("the push notification URL was refused: ")
    odd = "token, scheme and credentials are printable ASCII of at most 4,096 characters"
    for fields, fine in (
        ({"token": "x" * 4096}, True), ({"token": "x" * 4097}, False), ({"scheme": "é"}, False),
        ({"credentials": "a\n"}, False), ({"credentials": "a b"}, True),
        ({"scheme": "Bearer", "credentials": "x" * 4096}, True),
    ):  # fmt: skip
        assert check("http://out.example/", **fields) == ("" if fine else odd)


def test_a_task_has_so_many_webhooks_of_each_client(tmp_path: Path) -> None:
    configs = SqlitePushConfigs(SessionStore(tmp_path, create=True).database)

    async def run() -> None:
        for at in range(MAX_WEBHOOKS):
            await configs.set_info("t", TaskPushNotificationConfig(id=str(at), url=f"http://x/{at}"), ANN)
        with pytest.raises(InvalidParamsError, match="the task has 16 webhooks: delete one first"):
            await configs.set_info("t", TaskPushNotificationConfig(id="more"), ANN)
        again = await configs.set_info("t", TaskPushNotificationConfig(id="3", url="http://y"), ANN)
        assert again.url == "http://y" and again.task_id == "t"
        await configs.set_info("u", TaskPushNotificationConfig(id="more"), ANN)
        unnamed = await configs.set_info("t", TaskPushNotificationConfig(url="http://z"), BOB)
        assert unnamed.id and len(await configs.get_info_for_dispatch("t")) == 17
        await configs.delete_info("t", BOB, "3")
        assert len(await configs.get_info("t", ANN)) == 16
        await configs.delete_info("t", ANN, "3")
        assert "3" not in [each.id for each in await configs.get_info("t", ANN)]
        await configs.delete_info("t", ANN)
        assert await configs.get_info("t", ANN) == [] and await configs.get_info("t", BOB) == [unnamed]
        assert len(await configs.get_info("u", ANN)) == 1

    asyncio.run(run())


def test_the_cards_of_a_door_name_grpc_need_a_key_and_are_signed(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    keys = Keys((Client("ann", ClientLimits(), b"x"),))
    cards: dict[str, list[AgentCard]] = {}
    with opened_sessions(clerk(Desk()), tmp_path, tmp_path / "s") as sessions:
        for name, settings, admission in (
            ("bare", A2ASettings(), Admission()),
            ("full", A2ASettings(grpc_port=4711, card_key=tmp_path / "key.pem", card_key_id="k1"), Admission(keys)),
        ):
            a2a_door(sessions, admission, ListenAddress("127.0.0.9"), settings, url="http://in", description="D.",
                     examples=("e",))  # fmt: skip
            begun: Any = sessions.on_begin[-1]
            cells = dict(zip(begun.__code__.co_freevars, begun.__closure__, strict=True))
            handler: A2AHandler = cells["handler"].cell_contents
            extended = asyncio.run(handler.on_get_extended_agent_card(GetExtendedAgentCardRequest(), ANN))
            cards[name] = [handler._agent_card, extended]
    for card in cards["bare"]:
        assert len(card.supported_interfaces) == 2 and not card.signatures and not card.security_schemes
    for card in cards["full"]:
        assert card.supported_interfaces[2].url == "127.0.0.9:4711" and len(card.signatures) == 1
        assert list(card.security_schemes) == ["bearer"] and card.description == "D."
    public, extended = cards["full"]
    assert [skill.name for skill in public.skills] == ["clerk"] and public.skills[0].examples == ["e"]
    assert [skill.name for skill in extended.skills] == ["clerk", "pay", "wait"]
    assert public.signatures[0].signature != extended.signatures[0].signature
    import base64
    import json

    protected = public.signatures[0].protected
    header = json.loads(base64.urlsafe_b64decode(protected + "=" * (-len(protected) % 4)))
    assert (header["alg"], header["kid"]) == ("ES256", "k1")
    assert json.loads(card_json(public))["name"] == MessageToDict(public)["name"] and "\n  " in card_json(public)
    for path, status, expected, code in (("/a2a", 400, 200, -32602), ("/a2a", 415, 415, -32602),
                                         ("/a2a/rest/tasks", 400, 400, 400), ("/a2a/rest/x", 415, 415, 415)):  # fmt: skip
        made = _refused(path, InvalidParamsError("no"), status)
        assert made.status == expected and json.loads(made.content)["error"]["code"] == code


@pytest.mark.parametrize("has_grpc", [True, False])
def test_grpc_is_open_and_the_handler_takes_tasks_as_long_as_the_app_lives(tmp_path: Path, has_grpc: bool) -> None:
    async def use(sessions: ServedSessions, handler: A2AHandler) -> None:
        address = ListenAddress()
        grpc = GrpcDoor(address, 0, Admission())
        port = grpc.open_port()
        waits = Task(id="t", context_id="c", status=TaskStatus(state=TaskState.TASK_STATE_WORKING))
        await handler.tasks.save(waits, ANN)
        app = a2a_app(handler, handler._agent_card, grpc=grpc if has_grpc else None)
        assert app.lifespan is not None

        def is_open() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex((address.host, port)) == 0

        closed: list[str] = []

        async def close() -> None:
            await A2AHandler.close(handler)
            closed.append("closed")

        handler.close = close  # type: ignore[method-assign]
        async with app.lifespan():
            assert is_open() is has_grpc
            for _ in range(200):
                found = await handler.tasks.get("t", ANN)
                if found is not None and state_of(found) == "failed":
                    break
                await asyncio.sleep(0.005)
            assert (
                found is not None and found.status.message.parts[0].text == "the server was stopped before this began"
            )
        assert not is_open() and closed == ["closed"]

    within(tmp_path, Desk(), use)


def test_a_kept_task_changes_for_its_own_client_until_it_is_over(tmp_path: Path) -> None:
    tasks = SqliteTaskStore(SessionStore(tmp_path, create=True).database)

    def task(state: Any, *texts: str) -> Task:
        made = Task(id="t", context_id="c", status=TaskStatus(state=state))
        made.history.extend([Message(message_id=text) for text in texts])
        return made

    async def kept() -> tuple[str, list[str]]:
        found = await tasks.get("t", ANN)
        assert found is not None
        return state_of(found), [each.message_id for each in found.history]

    async def main() -> None:
        await tasks.save(task(TaskState.TASK_STATE_WORKING, "a"), ANN)
        await tasks.save(task(TaskState.TASK_STATE_COMPLETED, "b"), BOB)
        assert await kept() == ("working", ["a"]) and await tasks.get("t", BOB) is None
        await tasks.save(task(TaskState.TASK_STATE_INPUT_REQUIRED, "c"), ANN)
        await tasks.save(task(TaskState.TASK_STATE_COMPLETED, "c", "d"), ANN)
        assert await kept() == ("completed", ["c", "d"]) and tasks.open_tasks() == {}
        for state in (TaskState.TASK_STATE_WORKING, TaskState.TASK_STATE_CANCELED):
            await tasks.save(task(state, "e"), ANN)
            assert await kept() == ("completed", ["c", "d"])
        await tasks.save(task(TaskState.TASK_STATE_COMPLETED, "f"), ANN)
        assert await kept() == ("completed", ["f"]), "the same state may say more"

    asyncio.run(main())
