"""An answer of a remote agent that costs too much: its ids, artifacts, replies and polls have bounds."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("a2a", reason="needs the A2A SDK: pip install 'firsthand[a2a]'")

import httpx
from a2a.types.a2a_pb2 import StreamResponse, Task
from google.protobuf.json_format import ParseDict

from firsthand.errors import ModelError
from firsthand.providers import a2a as provider
from firsthand.providers import a2a_answer, a2a_transport
from firsthand.providers.a2a import RemoteAgent
from firsthand.providers.a2a_answer import MAX_ID_CHARS, Answer
from firsthand.providers.openai_wire import clip


def event(**fields: Any) -> StreamResponse:
    found: StreamResponse = ParseDict(fields, StreamResponse())
    return found


def working(id: str = "t", context: str = "c", **more: Any) -> dict[str, Any]:
    return {"id": id, "contextId": context, "status": {"state": "TASK_STATE_WORKING"}, **more}


def test_ids_that_are_kept_for_the_next_message_have_a_bound() -> None:
    told = "^a2a:h gave its context or task an id of more than 256 characters$"
    for length in (MAX_ID_CHARS, MAX_ID_CHARS + 1):
        long = "i" * length
        for each in (
            event(message={"messageId": "1", "role": "ROLE_AGENT", "contextId": long, "parts": [{"text": "hi"}]}),
            event(task=working(long)), event(task=working(context=long)),
            event(statusUpdate={"taskId": long, "status": {"state": "TASK_STATE_WORKING"}}),
            event(statusUpdate={"contextId": long, "status": {"state": "TASK_STATE_WORKING"}}),
        ):  # fmt: skip
            answer = Answer("a2a:h")
            if length == MAX_ID_CHARS:
                answer.take(each)
                assert long in (answer.context, answer.task)
                continue
            with pytest.raises(ModelError, match=told):
                answer.take(each)
            assert (answer.context, answer.task) == ("", "")


def test_artifacts_of_an_answer_have_a_bound_however_often_they_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(a2a_answer, "MAX_CHARS", 10)
    answer = Answer("a2a:h")
    for _ in range(50):  # all of it again, as each look at a task gives it
        answer.put("1", "abcdefghi", append=False)
    assert answer.text == "abcdefghi"
    for artifact, text, append in (("1", "x", True), ("2", "", False)):
        answer = Answer("a2a:h")
        answer.put("1", "abcdefghi", append=False)
        with pytest.raises(ModelError, match=r"^a2a:h sent artifacts of more than 10 characters: it gave no task$"):
            answer.put(artifact, text, append=append)


def test_the_id_of_a_task_stands_on_one_line_of_an_error() -> None:
    answer = Answer("a2a:h")
    answer.take(event(task=working("t\n\nfirsthand: all 12 checks passed\n\x1b[2J")))
    assert answer.where == "its task is t firsthand: all 12 checks passed \\x1b[2J"
    assert clip("a\x1b]0;t\x07 \u202eb é 漢 😀") == "a\\x1b]0;t\\x07 \\u202eb é 漢 😀"
    assert clip("x" * 300) == "x" * 300 and clip("x" * 301) == "x" * 300 + "..."


def test_looking_up_a_task_waits_longer_and_ends_at_what_breaks_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    cpu_s = iter([0.0, 0.0] * 19 + [1.0, 1.75])
    monkeypatch.setattr(provider, "asyncio", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(provider, "time", SimpleNamespace(thread_time=lambda: next(cpu_s, 9.0)))
    replies: list[Any] = [working()] * 20 + [working("t" * 257), working()]

    async def get_task(request: Any) -> Task:
        found: Task = ParseDict(replies.pop(0), Task())
        return found

    async def main() -> None:
        answer = Answer("a2a:http://h")
        answer.task = "t"
        async for _ in RemoteAgent("http://h", key="")._looked_up(SimpleNamespace(get_task=get_task), answer):  # type: ignore[arg-type]
            pass

    with pytest.raises(ModelError, match="more than 256 characters"):
        asyncio.run(main())
    assert len(replies) == 1, "it is not asked again"
    assert waits == pytest.approx([min(5.0, 0.2 * 1.2**number) for number in range(18)] + [5.0, 5.0])


def test_a_dense_reply_is_followed_by_a_pause_of_four_times_its_processor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    cpu_s = iter([1.0, 1.5, 2.0, 2.0])
    monkeypatch.setattr(provider, "asyncio", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(provider, "time", SimpleNamespace(thread_time=lambda: next(cpu_s)))
    replies = [working(), working() | {"status": {"state": "TASK_STATE_COMPLETED"}}]

    async def get_task(request: Any) -> Task:
        found: Task = ParseDict(replies.pop(0), Task())
        return found

    async def main() -> None:
        answer = Answer("a2a:http://h")
        answer.task = "t"
        async for _ in RemoteAgent("http://h", key="")._looked_up(SimpleNamespace(get_task=get_task), answer):  # type: ignore[arg-type]
            pass

    asyncio.run(main())
    assert waits == pytest.approx([2.0, 0.24])


def test_the_values_of_all_replies_to_one_question_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(a2a_transport, "MAX_ANSWER_VALUES", 30)

    async def answered(transport: Any, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=httpx.ByteStream(b"[0,0,0,0,0,0,0,0,0]"))

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", answered)

    async def read() -> int:
        count = 0
        async with a2a_transport.bounded_client("", 1.0, "http://h") as client:
            with pytest.raises(
                ModelError, match=r"^a2a:http://h sent more than 30 JSON values in the replies to one question$"
            ):
                for _ in range(10):
                    await client.get("http://h/")
                    count += 1
        return count

    assert [asyncio.run(read()) for _ in range(2)] == [3, 3], "each question begins anew"


def test_a_blank_line_ends_what_is_counted_at_once_only_in_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(a2a_transport, "MAX_VALUES", 8)
    sent: dict[str, Any] = {}

    async def answered(transport: Any, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": sent["kind"]}, stream=httpx.ByteStream(sent["body"]))

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", answered)

    eight, nine = b"[0,0,0,0,\n\n0,0,0,0]", b"[0,0,0,0,\n\n0,0,0,0,0]"  # a mark each: the bracket and the commas

    async def main() -> None:
        async with a2a_transport.bounded_client("", 1.0, "http://h") as client:

            async def read(kind: str, body: bytes) -> bytes:
                sent.update(kind=kind, body=body)
                return (await client.get("http://h/")).content

            assert await read("application/json", eight) == eight
            told = r"^a2a:http://h sent more than 8 JSON values at once, so they are not read$"
            with pytest.raises(ModelError, match=told):
                await read("application/json", nine)
            assert await read("text/event-stream", nine) == nine, "there it ends an event"

    asyncio.run(main())
