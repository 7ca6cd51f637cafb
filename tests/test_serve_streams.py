"""Streams on their way out: whole events, whatever the client's HTTP and however slowly it reads; and the bench's load."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from serve import goodput
from serve_load import poisson_trace, trace_lengths

from engine_tiny import tiny_engine
from firsthand.engine.core.engine_thread import EngineWorker, OutputQueue, deliver
from firsthand.engine.core.outputs import Output
from firsthand.engine.core.sequence import Request
from firsthand.errors import ModelError
from firsthand.model import Sampling
from firsthand.providers.scripted import Scripted
from firsthand.serve.http.replies import EventForm, event, long_event, reply
from served import Running, serving

ANSWER = 'One "quoted" word, a line\nand ü, \x00, \u2028, \ud83d at last. ' * 40


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with serving(Scripted(lambda messages, sampling, index: ANSWER, name="scripted"), name='de"mo') as found:
        yield found


def asked(version: str = "1.1", path: str = "/v1/chat/completions", **fields: Any) -> bytes:
    body = json.dumps({"messages": [{"role": "user", "content": "Hi"}], "stream": True, **fields}).encode()
    head = f"POST {path} HTTP/{version}\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def unchunked(body: bytes) -> bytes:
    """The content of a body in chunks. Fails unless each chunk is as long as it says and an empty one ends it."""
    found = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        found, end, body = found + body[:length], body[length : length + 2], body[length + 2 :]
        assert end == b"\r\n"
        if length == 0:
            assert body == b""
            return found


def events(stream: bytes) -> list[Any]:
    *found, last, nothing = stream.decode().split("\n\n")
    assert (last, nothing) == ("data: [DONE]", "")
    return [json.loads(each.removeprefix("data: ")) for each in found]


def text(found: list[Any]) -> str:
    return "".join(each["choices"][0]["delta"].get("content") or "" for each in found if each["choices"])


def test_a_stream_is_whole_in_chunks_and_without_them(running: Running) -> None:
    head, _, body = running.raw(asked()).partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head.lower()
    chunked = events(unchunked(body))
    head, _, body = running.raw(asked("1.0")).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert text(chunked) == text(events(body)) == ANSWER.replace("\ud83d", "?")


@pytest.mark.slow
def test_a_client_that_reads_slowly_gets_every_event() -> None:
    with (
        serving(Scripted(["word " * 30_000], name="scripted"), name="demo") as running,
        running.connect() as connection,
    ):
        connection.sendall(asked(max_tokens=4096))
        found = b""
        while piece := connection.recv(4096):  # far less at a time than the server could send
            found += piece
    assert text(events(unchunked(found.partition(b"\r\n\r\n")[2]))).startswith("word " * 1000)


def test_events_have_no_line_end_in_their_json_for_readers_that_split_text_as_python_does() -> None:
    text = "a\u2028b\u2029c\x85d"
    form = EventForm({"said": EventForm.GAP})
    for made in (event({"said": text}), form.event(text), asyncio.run(long_event({"said": text}))):
        assert len(made.decode().splitlines()) == 2, "as httpx's iter_lines does"
        assert json.loads(made.removeprefix(b"data: ")) == {"said": text}
    assert json.loads(reply({"said": text}).content) == {"said": text}


@pytest.mark.parametrize("piece", ["", "word", 'a "quote" \\ and\n', "ü \u2028 \ud800", EventForm.GAP])
def test_an_event_with_its_rest_encoded_before_is_the_same(piece: str) -> None:
    def body(content: str) -> Any:
        return {"model": 'a "name"', "choices": [{"delta": {"content": content}, "finish_reason": None}], "usage": None}

    assert EventForm(body(EventForm.GAP)).event(piece) == event(body(piece))


def test_all_outputs_of_a_step_wake_a_loop_once() -> None:
    class Counting(asyncio.SelectorEventLoop):
        woken = 0

        def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
            self.woken += 1
            return super().call_soon_threadsafe(callback, *args, context=context)

    async def ask(worker: EngineWorker) -> int:
        request = Request((1, 2, 3), Sampling(max_tokens=12, ignore_eos=True), n=8)
        return sum([len(output.token_ids) async for output in worker.submit(request)])

    with EngineWorker(tiny_engine()) as worker, asyncio.Runner(loop_factory=Counting) as runner:
        assert runner.run(ask(worker)) == 96
        loop = runner.get_loop()
        assert isinstance(loop, Counting) and 12 <= loop.woken < 48


def test_outputs_that_wait_come_in_order_and_an_error_after_them() -> None:
    async def main() -> None:
        inbox = OutputQueue()
        outputs = [Output(1, 0, (token,), (-1.0,), True) for token in range(3)]
        thread = threading.Thread(
            target=lambda: deliver([*((inbox, each) for each in outputs), (inbox, ModelError("it broke"))])
        )
        thread.start()
        assert await inbox.get() == outputs
        with pytest.raises(ModelError, match="it broke"):
            await inbox.get()
        thread.join()

    asyncio.run(main())


def test_an_inbox_whose_loop_is_gone_is_told_of() -> None:
    async def make() -> OutputQueue:
        return OutputQueue()

    inbox = asyncio.run(make())
    assert deliver([(inbox, ModelError("late"))]) == [inbox]


def test_the_load_has_the_traces_lengths_and_the_rate_that_was_asked_for() -> None:
    lengths = trace_lengths()
    assert len(lengths) == 256 and sorted(context for context, _ in lengths)[128] in range(900, 1100)
    trace = poisson_trace(4, 500, seed=2, scale=4, system_words=150)
    assert trace == poisson_trace(4, 500, seed=2, scale=4, system_words=150)
    assert 1850 < len(trace) < 2150 and all(a.at_s < b.at_s for a, b in pairwise(trace))
    mean = sum(answer for _, answer in lengths) / len(lengths) / 4
    assert abs(sum(chat.max_tokens for chat in trace) / len(trace) - mean) < 0.1 * mean


def test_goodput_is_the_best_rates_and_a_rate_that_a_round_did_not_reach_counts_as_none() -> None:
    rounds = [
        {"rates": {"1.0": {"goodput": 1.0}, "2.0": {"goodput": 1.8}}},
        {"rates": {"1.0": {"goodput": 1.0}}},
    ]
    assert goodput(rounds) == (1.0, "1.0")
    assert goodput(rounds[:1]) == (1.8, "2.0")
