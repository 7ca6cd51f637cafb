"""One answer of a remote agent over a client that is told its events: asked, followed, given up and cancelled."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest
from a2a.types.a2a_pb2 import CancelTaskRequest, GetTaskRequest, Role, SendMessageRequest, StreamResponse, Task
from google.protobuf.json_format import ParseDict

from firsthand.errors import ModelError, Unreachable
from firsthand.message import assistant, user
from firsthand.model import Completion, Delta, Sampling, Usage
from firsthand.providers import a2a as provider
from firsthand.providers.a2a import RemoteAgent


def status(state: str) -> StreamResponse:
    update = {"status": {"state": f"TASK_STATE_{state}"}, "taskId": "t1", "contextId": "c1"}
    return ParseDict({"statusUpdate": update}, StreamResponse())


def chunk(text: str, *, append: bool = False) -> StreamResponse:
    artifact = {"artifactId": "a", "parts": [{"text": text}]}
    return ParseDict({"artifactUpdate": {"taskId": "t1", "artifact": artifact, "append": append}}, StreamResponse())


class Client:
    """Gives its events, or raises the error among them; waits for a number of seconds, and at the end if it is told to."""

    streams = True

    def __init__(self, *events: Any, wait_s: float = 0.0, task: Task | None = None) -> None:
        self.events, self.wait_s, self.task = events, wait_s, task
        self.asked: list[SendMessageRequest] = []
        self.cancelled: list[str] = []
        self.looked_up: list[str] = []

    async def send_message(self, request: SendMessageRequest) -> Any:
        self.asked.append(request)
        for each in self.events:
            await asyncio.sleep(each if isinstance(each, float) else 0)
            if isinstance(each, float):
                continue
            if isinstance(each, BaseException):
                raise each
            yield each
        await asyncio.sleep(self.wait_s)

    async def get_task(self, request: GetTaskRequest) -> Any:
        self.looked_up.append(request.id)
        return self.task

    async def cancel_task(self, request: CancelTaskRequest) -> None:
        self.cancelled.append(request.id)


class Told(RemoteAgent):
    """A remote agent whose client is given."""

    def __init__(self, client: Client, **options: Any) -> None:
        super().__init__("http://host", key="", **options)
        self.client = client
        self.https: list[httpx.AsyncClient] = []

    async def _connected(self, http: httpx.AsyncClient) -> Any:
        self.https.append(http)
        return self.client, self.client.streams


def streamed(agent: RemoteAgent, prompt: Any) -> list[Delta]:
    async def main() -> list[Delta]:
        return [delta async for delta in agent.stream(prompt, Sampling())]

    return asyncio.run(main())


def refused(client: Client, kind: type[Exception] = ModelError) -> str:
    with pytest.raises(kind) as raised:
        streamed(Told(client), "Hi")
    assert type(raised.value) is kind
    return str(raised.value)


def test_a_message_is_sent_with_its_context_and_read_until_it_is_settled() -> None:
    client = Client(
        status("WORKING"), chunk("He"), chunk("llo", append=True), status("COMPLETED"), chunk("never"), wait_s=9
    )
    agent = Told(client)
    found = streamed(agent, [user("Hi")])
    assert "".join(each.text for each in found) == "Hello" and found[-1].completion == Completion(
        assistant("Hello"), "stop", Usage()
    )
    (request,) = client.asked
    message = request.message
    assert (message.role, [each.text for each in message.parts], message.context_id, message.task_id) == (
        Role.ROLE_USER, ["Hi"], "", "",
    )  # fmt: skip
    assert len(message.message_id) == 24 and client.cancelled == [] == client.looked_up and agent.https[0].is_closed
    client.events = (status("INPUT_REQUIRED"),)
    streamed(agent, [user("Hi"), assistant("Hello"), user("more")])
    assert (client.asked[1].message.context_id, client.asked[1].message.task_id) == ("c1", "")
    assert client.asked[1].message.message_id != message.message_id
    streamed(agent, [user("Hi"), assistant("Hello"), user("more"), assistant(""), user("yes")])
    assert (client.asked[2].message.context_id, client.asked[2].message.task_id) == ("c1", "t1")
    said = {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "done"}]}
    client.events = (ParseDict({"message": said}, StreamResponse()),)
    talk = [user("Hi"), assistant("Hello"), user("more"), assistant(""), user("yes"), assistant(""), user("again")]
    assert streamed(agent, talk)[-1].completion == Completion(assistant("done"), "stop", Usage())
    streamed(agent, [*talk, assistant("done"), user("on")])
    assert client.asked[-1].message.context_id == "c1", "a message that names no context is of the one it was asked in"


def test_an_answer_that_breaks_off_is_looked_up_by_its_task_or_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider, "_POLL_S", 0.001)
    whole = {"id": "t1", "contextId": "c1", "status": {"state": "TASK_STATE_COMPLETED"}}
    task = ParseDict({**whole, "artifacts": [{"artifactId": "a", "parts": [{"text": "all of it"}]}]}, Task())
    for end in ((OSError("gone"),), ()):
        client = Client(status("WORKING"), chunk("all"), *end, task=task)
        assert streamed(Told(client), "Hi")[-1].completion == Completion(assistant("all of it"), "stop", Usage())
        assert client.looked_up == ["t1"] and client.cancelled == []
    assert refused(Client(OSError("gone"))) == (
        "a2a:http://host broke off or broke the protocol (OSError: gone): see on its side what was done"
    )
    refusal = RuntimeError("outer")
    refusal.__cause__ = httpx.ConnectError("no")
    assert refused(Client(refusal), Unreachable) == (
        "a2a:http://host could not be asked (RuntimeError: outer): check that it runs, and its address"
    )
    assert refused(Client()) == "a2a:http://host ended its answer without saying anything: ask it again"


def test_an_answer_that_nobody_waits_for_is_cancelled() -> None:
    broken = Client(status("WORKING"), ModelError("too much"))
    assert refused(broken) == "too much" and broken.cancelled == ["t1"]
    unknown = Client(ModelError("too much"))
    assert refused(unknown) == "too much" and unknown.cancelled == []
    late = Client(status("WORKING"), wait_s=9)
    with pytest.raises(ModelError, match=r"^a2a:http://host gave no answer within 0\.05 s: its task is t1$"):
        streamed(Told(late, timeout_s=0.05), "Hi")
    assert late.cancelled == ["t1"]
    left = Client(chunk("some"), status("WORKING"), wait_s=9)

    async def first() -> Delta:
        stream: Any = Told(left).stream("Hi", Sampling())
        found = await anext(stream)
        await stream.aclose()
        return found  # type: ignore[no-any-return]

    assert asyncio.run(first()) == Delta("some") and left.cancelled == ["t1"]


def test_an_agent_that_does_not_stream_is_asked_for_a_task_at_once_which_is_followed_and_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    working = ParseDict(
        {"task": {"id": "t1", "contextId": "c1", "status": {"state": "TASK_STATE_WORKING"}}}, StreamResponse()
    )
    done = {"id": "t1", "contextId": "c1", "status": {"state": "TASK_STATE_COMPLETED"}}
    whole = ParseDict({**done, "artifacts": [{"artifactId": "a", "parts": [{"text": "all of it"}]}]}, Task())
    client = Client(working, task=whole)
    client.streams = False
    assert streamed(Told(client), "Hi")[-1].completion == Completion(assistant("all of it"), "stop", Usage())
    assert [each.configuration.return_immediately for each in client.asked] == [True] and client.looked_up == ["t1"]
    streams = Client(status("COMPLETED"))
    streamed(Told(streams), "Hi")
    assert [each.configuration.return_immediately for each in streams.asked] == [False]

    slow = Client(working, task=working.task)
    slow.streams = False
    began = time.monotonic()
    with pytest.raises(ModelError, match=r"no answer within 0\.2 s: its task is t1"):
        streamed(Told(slow, timeout_s=0.2), "Hi")
    assert slow.cancelled == ["t1"] and 4 <= len(slow.looked_up) <= 8 and time.monotonic() - began < 5

    # a task that asked is told by the id that it has, and its answer is waited for: it may be in its old state still
    asks = Client(status("INPUT_REQUIRED"))
    asks.streams = False
    agent = Told(asks)
    streamed(agent, [user("Hi")])
    asks.events, asks.wait_s = (), 9.0
    agent._timeout_s = 0.05
    with pytest.raises(ModelError, match=r"no answer within 0\.05 s: its task is t1"):
        streamed(agent, [user("Hi"), assistant(""), user("yes")])
    assert [each.configuration.return_immediately for each in asks.asked] == [True, False] and asks.cancelled == ["t1"]
    (kept,) = agent._threads.values()
    assert list(kept) == [("c1", "")], "asking again goes on in the context, and not in the task that ended"
    asks.events, agent = (status("INPUT_REQUIRED"),), Told(asks)
    streamed(agent, [user("Hi")])
    asks.events, asks.cancelled = (OSError("gone"),), []
    with pytest.raises(ModelError, match="broke off"):
        streamed(agent, [user("Hi"), assistant(""), user("yes")])
    assert asks.cancelled == [], "what broke off is not cancelled: it waits for the answer still"


def test_a_replaced_artifact_is_the_answer_and_comes_after_what_was_shown() -> None:
    client = Client(chunk("Hel"), 0.01, chunk("Bye"), 0.01, chunk(", all", append=True), status("COMPLETED"))
    found = streamed(Told(client), "Hi")
    assert [each.text for each in found] == ["Hel", "\n\nBye, all", ""]
    assert found[-1] == Delta("", Completion(assistant("Bye, all"), "stop", Usage()), is_revised=True)
    said = {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "done"}]}
    update = {"status": {"state": "TASK_STATE_COMPLETED", "message": said}, "taskId": "t1", "contextId": "c1"}
    only = Client(status("WORKING"), ParseDict({"statusUpdate": update}, StreamResponse()))
    assert [each.text for each in streamed(Told(only), "Hi")] == ["done", ""]
    assert [each.text for each in streamed(Told(Client(status("COMPLETED"))), "Hi")] == [""]


def test_an_answer_that_failed_is_told_with_its_state_and_reason() -> None:
    def failed(state: str, text: str) -> str:
        said = {"message": {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": text}]}} if text else {}
        update = {"status": {"state": f"TASK_STATE_{state}", **said}, "taskId": "t1", "contextId": "c1"}
        client = Client(ParseDict({"statusUpdate": update}, StreamResponse()))
        agent = Told(client)
        with pytest.raises(ModelError) as raised:
            streamed(agent, [user("Hi")])
        assert type(raised.value) is ModelError and client.cancelled == [] and not agent._threads
        return str(raised.value)

    assert failed("FAILED", "no money") == "a2a:http://host ended with failed: no money"
    assert failed("AUTH_REQUIRED", "") == "a2a:http://host ended with auth required: it gives no reason"
    assert failed("REJECTED", "x" * 501) == f"a2a:http://host ended with rejected: {'x' * 500}..."
    assert failed("CANCELED", "") == "a2a:http://host ended with canceled: it gives no reason"


def test_several_answers_are_tasks_of_their_own() -> None:
    client = Client(chunk("a"), status("COMPLETED"))
    found = asyncio.run(Told(client).complete("Hi", Sampling(), n=3))
    assert found == [Completion(assistant("a"), "stop", Usage())] * 3 and len(client.asked) == 3
    assert len({each.message.message_id for each in client.asked}) == 3
    assert asyncio.run(Told(client).complete("Hi", Sampling())) == found[:1]
    assert asyncio.run(Told(client).complete("Hi", Sampling(), n=0)) == []
