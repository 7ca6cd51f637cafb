"""A served agent over A2A 1.0, driven by the official SDK's client on three bindings, and as a Model of another agent."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from a2a.client import A2ACardResolver, Client, ClientConfig, ClientFactory
from a2a.client.client import ClientCallContext
from a2a.server.context import ServerCallContext
from a2a.types.a2a_pb2 import (
    CancelTaskRequest,
    DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest,
    GetTaskPushNotificationConfigRequest,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTasksRequest,
    Message,
    Part,
    Role,
    SendMessageRequest,
    StreamResponse,
    SubscribeToTaskRequest,
    TaskPushNotificationConfig,
    TaskState,
)
from a2a.types.a2a_pb2 import Task as A2ATask
from a2a.types.a2a_pb2_grpc import A2AServiceStub
from a2a.utils.errors import (
    A2AError,
    ContentTypeNotSupportedError,
    InvalidParamsError,
    TaskNotCancelableError,
    TaskNotFoundError,
)
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value

from firsthand.agent import Agent
from firsthand.errors import ConfigError
from firsthand.guard import GuardVerdict
from firsthand.loop.calling import caller
from firsthand.loop.concurrency import Retry
from firsthand.message import ToolCall
from firsthand.message import assistant as called
from firsthand.model import ToolSpec
from firsthand.patterns.direct import direct
from firsthand.patterns.orchestrate import orchestrate
from firsthand.patterns.react import react
from firsthand.providers.a2a import RemoteAgent
from firsthand.providers.agents import AgentsModel
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.runs.dialogue import Dialogue
from firsthand.serve.a2a.a2a_handler import ClientUser
from firsthand.serve.a2a.sqlite_tasks import SqlitePushConfigs
from firsthand.serve.a2a.webhooks import WebhookSender
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.admission.api_keys import Client as KeyedClient
from firsthand.serve.admission.api_keys import Keys
from firsthand.serve.agents.session_store import SessionStore
from firsthand.task import Task as Problem
from firsthand.tool import Tool, tool_from_function
from firsthand.tools.web.addresses import parse_rules
from served import until
from served_agent import Desk, RunningAgent, clerk, serving_agent

DONE, ASKS, CANCELED = (
    TaskState.TASK_STATE_COMPLETED,
    TaskState.TASK_STATE_INPUT_REQUIRED,
    TaskState.TASK_STATE_CANCELED,
)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def running(tmp_path: Path, desk: Desk) -> Iterator[RunningAgent]:
    with serving_agent(clerk(desk), tmp_path, grpc_port=0, webhook_allow="127.0.0.0/8", webhook_ports=PORTS) as found:
        yield found


PORTS = "+".join(map(str, range(1024, 65536)))


@asynccontextmanager
async def connected(url: str, binding: str = "JSONRPC", key: str = "", *, streaming: bool = True) -> Any:
    """The SDK's client of an agent."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(timeout=20, headers=headers) as http:
        config = ClientConfig(
            httpx_client=http,
            supported_protocol_bindings=[binding],
            streaming=streaming,
            grpc_channel_factory=grpc.aio.insecure_channel,
        )
        client = await ClientFactory(config).create_from_url(url)
        yield client
        if binding == "GRPC":
            await client.close()


def message(text: str = "", **fields: Any) -> SendMessageRequest:
    parts = fields.pop("parts", [Part(text=text)])
    return SendMessageRequest(
        message=Message(message_id=secrets.token_hex(8), role=Role.ROLE_USER, parts=parts, **fields)
    )


async def sent(client: Client, request: SendMessageRequest) -> list[StreamResponse]:
    return [event async for event in client.send_message(request)]


def states(events: list[StreamResponse]) -> list[str]:
    """The states that were told, without repetitions."""
    found: list[str] = []
    for event in events:
        kind = event.WhichOneof("payload")
        if kind in ("task", "status_update"):
            state = TaskState.Name((event.task if kind == "task" else event.status_update).status.state)[11:].lower()
            found += [state] if found[-1:] != [state] else []
    return found


def with_client(running: RunningAgent, work: Callable[[Client], Awaitable[Any]], *more: Any, **options: Any) -> Any:
    async def main() -> Any:
        async with connected(running.url, *more, **options) as client:
            return await work(client)

    return asyncio.run(main())


@pytest.mark.slow
@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON", "GRPC"])
def test_a_client_sends_streams_gets_lists_and_answers_on_each_binding(
    running: RunningAgent, desk: Desk, binding: str
) -> None:
    async def work(client: Client) -> None:
        events = await sent(client, message("hello"))
        assert states(events) == ["submitted", "working", "completed"]
        (artifact,) = [event.artifact_update for event in events if event.HasField("artifact_update")]
        assert artifact.artifact.parts[0].text == "You said hello, after 0 others."
        first = events[0].task
        asked = await sent(client, message("pay 5", context_id=first.context_id))
        assert states(asked) == ["submitted", "working", "input_required"] and desk.paid == []
        task = asked[0].task
        unclear = await sent(client, message("perhaps", task_id=task.id))
        assert states(unclear) == ["input_required"], "a question that was not answered is asked again"
        paid = await sent(client, message("yes", task_id=task.id))
        assert states(paid)[-1] == "completed" and desk.paid == [5]
        assert {event.status_update.context_id for event in paid if event.HasField("status_update")} == {
            first.context_id
        }
        got = await client.get_task(GetTaskRequest(id=task.id))
        assert got.artifacts[0].parts[0].text == "Done: paid 5" and [m.role for m in got.history][:1] == [
            Role.ROLE_USER
        ]
        assert len((await client.get_task(GetTaskRequest(id=task.id, history_length=1))).history) == 1
        listed = await client.list_tasks(ListTasksRequest(context_id=first.context_id))
        assert [each.id for each in listed.tasks] == [task.id, first.id] and listed.total_size == 2
        page = await client.list_tasks(ListTasksRequest(page_size=1))
        rest = await client.list_tasks(ListTasksRequest(page_size=1, page_token=page.next_page_token))
        assert [page.tasks[0].id, rest.tasks[0].id] == [task.id, first.id] and not rest.next_page_token
        extended = await client.get_extended_agent_card(GetExtendedAgentCardRequest())
        assert {skill.id for skill in extended.skills} == {"answer", "tool:pay", "tool:wait"}
        with pytest.raises(TaskNotFoundError):
            await client.get_task(GetTaskRequest(id="nobody"))
        with pytest.raises(TaskNotCancelableError):
            await client.cancel_task(CancelTaskRequest(id=task.id))

    with_client(running, work, binding)
    (session,) = running.sessions.store.sessions()
    trace = running.sessions.trace(session.id)
    assert trace is not None and len(trace.final_state["turns"]) == 2, "two tasks of one context are one trace"


@pytest.mark.slow
@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON", "GRPC"])
def test_a_task_is_cancelled_and_a_subscriber_sees_it_end(running: RunningAgent, desk: Desk, binding: str) -> None:
    async def work(client: Client) -> None:
        request = message("wait")
        request.configuration.return_immediately = True
        async with connected(running.url, binding, streaming=False) as plain:
            (begun,) = await sent(plain, request)
        task = begun.task
        assert task.status.state != DONE
        seen: list[StreamResponse] = []

        async def subscribe() -> None:
            async for event in client.subscribe(SubscribeToTaskRequest(id=task.id)):
                seen.append(event)

        subscriber = asyncio.create_task(subscribe())
        while not seen:
            await asyncio.sleep(0.005)
        await asyncio.to_thread(desk.waiting.wait, 10)
        canceled = await client.cancel_task(CancelTaskRequest(id=task.id))
        assert canceled.status.state == CANCELED
        await subscriber
        assert seen[0].task.id == task.id and states(seen)[-1] == "canceled"
        assert running.sessions.store.turn(task.id).state == "canceled"

    with_client(running, work, binding)
    (trace,) = running.sessions.run.traces()
    assert trace.stop_reason == "canceled" and [call.kind for call in trace.calls] == ["generate", "tool"]


@pytest.mark.slow
def test_an_approval_is_answered_by_data_and_elsewhere(running: RunningAgent, desk: Desk) -> None:
    async def work(client: Client) -> None:
        first, second = [(await sent(client, message(f"pay {n}")))[0].task for n in (1, 2)]
        (asked,) = running.sessions.store.pending(first.id)
        body = ParseDict({"approval": asked.id, "allowed": False}, Value())
        refused = await sent(client, message(task_id=first.id, parts=[Part(data=body)]))
        assert states(refused)[-1] == "completed"
        (asked,) = running.sessions.store.pending(second.id)
        assert running.sessions.store.answer(asked.id, True, by="shell")
        async with asyncio.timeout(20):
            while (await client.get_task(GetTaskRequest(id=second.id))).status.state != DONE:
                await asyncio.sleep(0.01)

    with_client(running, work)
    assert desk.paid == [2]


@pytest.mark.slow
def test_tasks_go_on_after_the_server_was_stopped(tmp_path: Path, desk: Desk) -> None:
    with serving_agent(clerk(desk), tmp_path) as running:

        async def begin(client: Client) -> list[str]:
            ids = []
            for text in ("wait", "pay 3"):
                request = message(text)
                request.configuration.return_immediately = True
                ids.append((await sent(client, request))[0].task.id)
            until(lambda: bool(running.sessions.store.pending(ids[1])))
            await asyncio.to_thread(desk.waiting.wait, 10)
            return ids

        waiting, parked = with_client(running, begin, streaming=False)
    with serving_agent(clerk(desk), tmp_path) as running:

        async def finish(client: Client) -> None:
            found = [event async for event in _subscribed(client, waiting, desk)]
            assert states(found)[-1] == "completed"
            assert (await client.get_task(GetTaskRequest(id=parked))).status.state == ASKS
            paid = await sent(client, message("yes", task_id=parked))
            assert states(paid)[-1] == "completed"

        with_client(running, finish)
    assert desk.paid == [3] and desk.waited == 2


async def _subscribed(client: Client, id: str, desk: Desk) -> Any:
    async for event in client.subscribe(SubscribeToTaskRequest(id=id)):
        yield event
        desk.go.set()


@pytest.mark.slow
def test_clients_see_only_their_own_tasks_contexts_and_webhooks(tmp_path: Path, desk: Desk) -> None:
    limits, keys = ClientLimits(), {"alice": "alice-key-0123456789", "bob": "bob-key-0123456789ab"}
    known = Keys(tuple(KeyedClient(name, limits, sha256(key.encode()).digest()) for name, key in keys.items()))
    with serving_agent(clerk(desk), tmp_path, keys=known, grpc_port=0) as running:

        async def main(binding: str) -> None:
            async with (
                connected(running.url, binding, keys["alice"]) as hers,
                connected(running.url, binding, keys["bob"]) as his,
            ):
                context = ClientCallContext()
                if binding == "GRPC":  # the SDK's HTTP client carries the key itself
                    context.service_parameters = {"authorization": f"Bearer {keys['alice']}"}
                events = [event async for event in hers.send_message(message("pay 8"), context=context)]
                asked = events[0].task
                if binding == "GRPC":
                    context.service_parameters = {"authorization": f"Bearer {keys['bob']}"}
                for attempt in (
                    his.get_task(GetTaskRequest(id=asked.id), context=context),
                    his.cancel_task(CancelTaskRequest(id=asked.id), context=context),
                    his.list_task_push_notification_configs(
                        ListTaskPushNotificationConfigsRequest(task_id=asked.id), context=context
                    ),
                ):
                    with pytest.raises(TaskNotFoundError):
                        await attempt
                with pytest.raises(TaskNotFoundError):
                    [event async for event in his.send_message(message("yes", task_id=asked.id), context=context)]
                with pytest.raises(TaskNotFoundError):
                    [event async for event in his.subscribe(SubscribeToTaskRequest(id=asked.id), context=context)]
                his_turn = [
                    event
                    async for event in his.send_message(message("hi", context_id=asked.context_id), context=context)
                ]
                assert states(his_turn)[-1] == "completed", "the same name of a context is another session"
                listed = await his.list_tasks(ListTasksRequest(context_id=asked.context_id), context=context)
                assert [each.id for each in listed.tasks] == [his_turn[0].task.id]

        for binding in ("JSONRPC", "GRPC"):
            asyncio.run(main(binding))
        assert desk.paid == []
        owners = {row.context: set() for row in running.sessions.store.sessions()}
        for row in running.sessions.store.sessions():
            owners[row.context].add(row.owner)
        assert all(found == {"alice", "bob"} for found in owners.values())
        assert httpx.post(running.url + "/a2a", json={}).status_code == 401
        card = httpx.get(running.url + "/.well-known/agent-card.json").json()
        address = next(each["url"] for each in card["supportedInterfaces"] if each["protocolBinding"] == "GRPC")
        right = ("authorization", f"Bearer {keys['alice']}")
        with grpc.insecure_channel(address) as channel:
            call = A2AServiceStub(channel).ListTasks
            assert not call(ListTasksRequest(context_id="x"), metadata=[right]).tasks
            for metadata, code in (
                ([], grpc.StatusCode.UNAUTHENTICATED),
                ([("authorization", "Bearer wrong-key-0123456789")], grpc.StatusCode.UNAUTHENTICATED),
                ([right, right], grpc.StatusCode.UNAUTHENTICATED),
                ([right, ("a2a-version", "9.0")], grpc.StatusCode.UNIMPLEMENTED),
            ):
                with pytest.raises(grpc.RpcError) as refused:
                    call(ListTasksRequest(), metadata=metadata)
                assert refused.value.code() == code
        card = httpx.get(running.url + "/.well-known/agent-card.json")
        assert card.status_code == 200 and "bearer" in card.json()["securitySchemes"]


@pytest.mark.slow
def test_a_webhook_is_told_of_each_event_with_its_token(running: RunningAgent, desk: Desk) -> None:
    with _hooks() as (url, calls):

        async def work(client: Client) -> None:
            task = (await sent(client, message("pay 1")))[0].task
            hook = TaskPushNotificationConfig(task_id=task.id, id="h", url=url, token="secret-token")
            hook.authentication.scheme, hook.authentication.credentials = "Bearer", "abc"
            await client.create_task_push_notification_config(hook)
            got = await client.get_task_push_notification_config(
                GetTaskPushNotificationConfigRequest(task_id=task.id, id="h")
            )
            assert got.url == url
            await sent(client, message("yes", task_id=task.id))
            until(lambda: any("TASK_STATE_COMPLETED" in body for _, body in calls))
            await client.delete_task_push_notification_config(
                DeleteTaskPushNotificationConfigRequest(task_id=task.id, id="h")
            )
            listed = await client.list_task_push_notification_configs(
                ListTaskPushNotificationConfigsRequest(task_id=task.id)
            )
            assert not listed.configs

        with_client(running, work)
        assert all(head["x-a2a-notification-token"] == "secret-token" for head, _ in calls)
        assert all(head["authorization"] == "Bearer abc" for head, _ in calls)


@contextmanager
def _hooks() -> Iterator[tuple[str, list[tuple[dict[str, str], str]]]]:
    calls: list[tuple[dict[str, str], str]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            calls.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/hook", calls
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_what_a_killed_server_had_not_sent_is_sent_by_the_next_in_order(tmp_path: Path) -> None:
    failures: list[str] = []
    with _hooks() as (url, calls):
        rules = parse_rules("127.0.0.0/8", PORTS)

        context = ServerCallContext(user=ClientUser("anyone"))

        async def main() -> None:
            store = SessionStore(tmp_path, create=True)
            configs = SqlitePushConfigs(store.database)
            await configs.set_info("t", TaskPushNotificationConfig(id="h", url=url), context)
            killed = WebhookSender(configs, rules)
            for number in range(3):
                await killed.send_notification("t", A2ATask(id="t", context_id=f"c{number}"))
            await killed.aclose()
            await asyncio.sleep(0)
            assert configs.queued_tasks() == ["t"]
            store.close()
            store = SessionStore(tmp_path)
            configs = SqlitePushConfigs(store.database)
            sender = WebhookSender(configs, rules)
            sender.on_failure = lambda task, why: failures.append(why)
            sender.go_on()
            while configs.queued_tasks():
                await asyncio.sleep(0.005)
            await sender.aclose()

        asyncio.run(main())
        told = [json.loads(body)["task"]["contextId"] for _, body in calls]
        assert list(dict.fromkeys(told)) == ["c0", "c1", "c2"] and told == sorted(told) and failures == []


PAGE = "https://portal.example/sign-in?id=7"


def portal() -> Tool:
    """A tool whose server asks the user to sign in on a page, as an MCP server does, each time that it is called."""

    def none() -> None:
        return None

    async def order() -> str:
        """Order what is asked for."""
        position = caller()
        assert position is not None
        spec = ToolSpec("portal__elicitation", "The portal asks you.", {"type": "object", "properties": {}})
        page = Tool(spec, "external", none, dict, origin="the portal", request="elicitation")
        asked = {"message": "Sign in to the portal.", "open": PAGE}
        decision = await position.context.attempt.agent.approval.ask(page, asked)
        return "ordered" if decision.allowed else "not signed in"

    return tool_from_function(order, effect="irreversible")


def orders(messages: Any, sampling: Any, index: int) -> Any:
    last = messages[-1]
    return last.parts[-1].content if last.role == "tool" else called("", ToolCall("c0", "order", {}))


@pytest.mark.slow
@pytest.mark.parametrize(("said", "answer"), [("yes", "ordered"), ("no", "not signed in")])
def test_leave_to_make_a_call_is_no_leave_to_sign_in_which_is_auth_required(
    tmp_path: Path, said: str, answer: str
) -> None:
    agent = Agent("buyer", Scripted(orders), react, {"native": True}, (portal(),))
    with serving_agent(agent, tmp_path) as running:

        async def work(client: Client) -> None:
            events = await sent(client, message("order one"))
            assert states(events)[-1] == "input_required"
            task = next(event.task for event in events if event.HasField("task"))
            events = await sent(client, message("yes", task_id=task.id))
            assert states(events)[-1] == "auth_required"
            status = (await client.get_task(GetTaskRequest(id=task.id))).status
            assert PAGE in status.message.parts[0].text and "Sign in to the portal." in status.message.parts[0].text
            again = await sent(client, message("hm", task_id=task.id))
            assert states(again)[-1] == "auth_required"
            events = await sent(client, message(said, task_id=task.id))
            assert states(events)[-1] == "completed"
            (artifact,) = (await client.get_task(GetTaskRequest(id=task.id))).artifacts
            assert artifact.parts[0].text == answer

        with_client(running, work)
        rows = running.sessions.store.database.read("SELECT tool, state FROM approvals ORDER BY rowid")
        assert rows == [("order", "allowed"), ("portal__elicitation", "allowed" if said == "yes" else "denied")]


@pytest.mark.slow
def test_a_question_that_a_guard_blocks_is_rejected_and_later_ones_are_not(tmp_path: Path) -> None:
    class NoSecrets:
        def prompt(self, view: Any, messages: Any) -> GuardVerdict:
            secret = "secret" in messages[-1].text
            return (
                GuardVerdict.blocked("no_secrets", "secrets are off limits")
                if secret
                else GuardVerdict.passed("no_secrets")
            )

        def answer(self, view: Any, text: str) -> GuardVerdict:
            bad = "forbidden" in text
            return GuardVerdict.blocked("no_words", "that is not said") if bad else GuardVerdict.passed("no_words")

    model = Scripted(lambda messages, *_: f"heard {messages[-1].text}")
    with serving_agent(Agent("careful", model, direct, guard=NoSecrets()), tmp_path) as running:

        async def work(client: Client) -> None:
            for text, state in (("a secret", "rejected"), ("hello", "completed"), ("forbidden", "failed")):
                events = await sent(client, message(text))
                assert states(events)[-1] == state
            assert "a guard of the agent refused the question" in str((await sent(client, message("secret")))[-1])

        with_client(running, work)
        found = running.sessions.store
        assert [turn.state for row in found.sessions() for turn in found.turns(row.id)].count("rejected") == 2
        assert found.unfinished() == [] and len(model.asked) == 2


def test_files_and_empty_messages_are_refused_before_a_task_begins(running: RunningAgent) -> None:
    async def work(client: Client) -> None:
        with pytest.raises(ContentTypeNotSupportedError, match="send text or data"):
            await sent(client, message(parts=[Part(raw=b"x", media_type="application/x-unknown")]))
        with pytest.raises(InvalidParamsError, match="says nothing"):
            await sent(client, message("  "))
        with pytest.raises(A2AError):
            await sent(client, message("x", context_id="c" * 300))

    with_client(running, work)
    assert running.sessions.store.sessions() == []


# -- a remote agent as a Model --


def test_a_remote_agent_is_a_contestant_in_an_attempt(running: RunningAgent) -> None:
    agent = Agent("remote", RemoteAgent(running.url), direct)
    trace = asyncio.run(rollout(agent, Problem("t", "What is 2 + 2?")))
    assert trace.error is None and trace.answer is not None and trace.answer.startswith("You said What is 2 + 2?")


def test_a_remote_agent_is_a_sub_agent_of_orchestrate(running: RunningAgent) -> None:
    replies = ["1. greet Ann\n2. greet Bob", "The answer is both"]
    model = AgentsModel(Scripted(replies), {"worker": RemoteAgent(running.url)})
    trace = asyncio.run(rollout(Agent("lead", model, orchestrate, {"workers": 2}), Problem("t", "Greet them.")))
    assert trace.error is None and trace.answer == "both"
    reports = trace.messages(trace.calls[-1].at)[-1].text
    assert "You said greet Ann" in reports and "You said greet Bob" in reports


@pytest.mark.slow
def test_a_conversation_goes_on_in_the_remote_context_and_answers_what_it_asks(
    running: RunningAgent, desk: Desk
) -> None:
    async def main() -> list[str]:
        talk = Dialogue(Agent("me", RemoteAgent(running.url), direct))
        return [await talk.ask(text) for text in ("hello", "pay 4", "yes", "thanks")]

    first, asked, paid, last = asyncio.run(main())
    assert first == "You said hello, after 0 others." and "pay (irreversible)" in asked
    assert paid == "Done: paid 4" and desk.paid == [4] and "after 2 others" in last
    assert len(running.sessions.store.sessions()) == 1


def test_a_remote_agent_that_is_no_longer_waited_for_is_cancelled(running: RunningAgent, desk: Desk) -> None:
    async def main() -> None:
        work = asyncio.create_task(rollout(Agent("remote", RemoteAgent(running.url), direct), Problem("t", "wait")))
        await asyncio.to_thread(desk.waiting.wait, 10)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)

    asyncio.run(main())
    until(lambda: [turn.state for turn in _turns(running)] == ["canceled"])


def _turns(running: RunningAgent) -> list[Any]:
    store = running.sessions.store
    return [turn for row in store.sessions() for turn in store.turns(row.id)]


@pytest.mark.slow
def test_a_card_is_signed_and_a_forged_one_is_refused(tmp_path: Path, desk: Desk) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)

    def public(each: ec.EllipticCurvePrivateKey) -> bytes:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return each.public_key().public_bytes(serialization.Encoding.PEM, form)

    with serving_agent(clerk(desk), tmp_path, card_key=tmp_path / "key.pem") as running:

        def answer(trusted: dict[str, bytes]) -> Any:
            agent = Agent("r", RemoteAgent(running.url, trusted=trusted), direct)
            return asyncio.run(rollout(agent, Problem("t", "hello")))

        assert answer({"firsthand": public(key)}).error is None
        for trusted in ({"firsthand": public(other)}, {"another": public(key)}, {}):
            trace = answer(trusted)
            assert trace.error is not None and "not signed by a key that you trust" in trace.error.message
    (tmp_path / "key.pem").write_text("no key")
    with (
        pytest.raises(ConfigError, match="holds no private key"),
        serving_agent(clerk(desk), tmp_path, card_key=tmp_path / "key.pem"),
    ):
        pass


def test_settings_that_a2a_has_no_field_for_are_refused() -> None:
    model = RemoteAgent("http://127.0.0.1:9")
    for url in ("ftp://x", "http://", "http://user:pass@host", "nothing"):
        with pytest.raises(ConfigError, match="write a2a:http"):
            RemoteAgent(url)
    with pytest.raises(ConfigError, match="log-probs"):
        asyncio.run(model.score("x", ["y"]))
    trace = asyncio.run(rollout(Agent("r", model, direct, retry=Retry(attempts=1)), Problem("t", "x")))
    assert trace.error is not None and trace.error.kind == "Unreachable"


def test_the_card_is_cached_and_says_what_there_is(running: RunningAgent) -> None:
    answer = httpx.get(running.url + "/.well-known/agent-card.json")
    assert answer.headers["cache-control"] == "public, max-age=300" and "last-modified" in answer.headers
    again = httpx.get(running.url + "/.well-known/agent-card.json", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304
    bindings = [each["protocolBinding"] for each in answer.json()["supportedInterfaces"]]
    assert bindings == ["JSONRPC", "HTTP+JSON", "GRPC"]

    async def card() -> str:
        async with httpx.AsyncClient() as http:
            return str((await A2ACardResolver(http, running.url).get_agent_card()).name)

    assert asyncio.run(card()) == "clerk"
