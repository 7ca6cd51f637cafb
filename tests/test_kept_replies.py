"""Of several requests of one call only those that failed are sent again, and every paid reply is used or charged once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.context import Context
from firsthand.errors import ModelError, TransientError
from firsthand.loop.budget import Limits
from firsthand.loop.concurrency import Retry
from firsthand.loop.journal import MemoryJournal
from firsthand.loop.kept_replies import KeptReplies, kept_replies
from firsthand.message import Json
from firsthand.model import Sampling, Usage, lost_usage
from firsthand.providers.endpoint_clients import together
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.trace import Trace
from test_lost_usage_of_providers import GOOD, ONE, body, made

AT_ONCE = Retry(attempts=3, first_wait_s=0.0)


async def five(task: Task, ctx: Context) -> str:
    return "".join(each.text for each in await ctx.say("q").sample(5))


async def scored(task: Task, ctx: Context) -> str:
    return str(len(await ctx.score([" a", " b", " c", " d"], prompt="the")))


def attempt(
    vendor: str, pattern: Any, reply: Callable[[int, Json], Json | int], times: int = 1, **limits: Any
) -> tuple[Trace, int]:
    """The trace of an attempt that is made so many times from one journal, and how many requests it sent.

    `reply` gives each a body, or the status of a fault.
    """

    async def main() -> tuple[Trace, int]:
        number = 0

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal number
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            asked = json.loads(await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0])))
            number += 1
            given = reply(number, asked)
            status, sent = (given, b'{"error": {"message": "slow"}}') if isinstance(given, int) else (200, b"")
            sent = sent or json.dumps(given).encode()
            line = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(sent)}\r\n"
            writer.write(line.encode() + b"connection: close\r\n\r\n" + sent)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            model = made(vendor, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            agent = Agent("a", model, pattern, retry=AT_ONCE, limits=Limits(**limits), sampling=Sampling(max_tokens=60))
            journal = MemoryJournal()
            for _ in range(times):
                trace = await rollout(agent, Task("t", "q"), journal=journal)
        return trace, number

    return asyncio.run(main())


@pytest.mark.parametrize("vendor", GOOD)
def test_only_the_answers_that_failed_are_asked_for_again(vendor: str) -> None:
    def reply(number: int, asked: Json) -> Json | int:
        return 429 if number in (2, 4, 6) else body(vendor, GOOD[vendor], str(number))

    trace, requests = attempt(vendor, five, reply)
    assert trace.error is None and requests == 5 + 3 and sorted(trace.answer or "") == list("13578")
    assert trace.usage == ONE + ONE + ONE + ONE + ONE


@pytest.mark.parametrize("vendor", GOOD)
def test_answers_of_a_call_that_fails_in_the_end_are_charged_once(vendor: str) -> None:
    def reply(number: int, asked: Json) -> Json | int:
        return body(vendor, GOOD[vendor]) if number in (1, 2, 3) else 429

    trace, requests = attempt(vendor, five, reply)
    assert trace.error is not None and requests == 5 + 2 + 2
    assert trace.usage == ONE + ONE + ONE


def test_a_call_of_which_some_requests_failed_is_replayed_with_its_answers_and_cost() -> None:
    def reply(number: int, asked: Json) -> Json | int:
        return 429 if number in (1, 3, 6) else body("openai", GOOD["openai"], str(number))

    trace, requests = attempt("openai", five, reply, times=3, tokens=1000)
    assert trace.error is None and requests == 5 + 3 and sorted(trace.answer or "") == list("24578")
    assert trace.usage == ONE + ONE + ONE + ONE + ONE


def test_answers_are_charged_once_if_a_fault_that_does_not_pass_ends_the_call() -> None:
    replies: list[Any] = [0, body("anthropic", "end_turn"), 429, body("anthropic", "end_turn"), 429, 429, 400]
    trace, _ = attempt("anthropic", five, lambda number, asked: replies[min(number, 6)])
    assert trace.error is not None and trace.usage == ONE + ONE


def test_only_the_choices_that_failed_are_scored_again() -> None:
    def reply(number: int, asked: Json) -> Json | int:
        text = asked["prompt"]
        logprobs = {
            "tokens": ["the", text[3:], "x"],
            "token_logprobs": [None, -1.0, -2.0],
            "text_offset": [0, 3, len(text)],
        }
        choice = {"text": f"{text}x", "finish_reason": "length", "logprobs": logprobs | {"top_logprobs": None}}
        return (
            503 if number in (2, 3, 5) else {"choices": [choice], "usage": {"prompt_tokens": 2, "completion_tokens": 1}}
        )

    trace, requests = attempt("openai", scored, reply)
    assert trace.error is None and trace.answer == "4" and requests == 4 + 3
    assert trace.usage == Usage(8, 0, 4)


class Requests:
    """Requests that wait so many seconds and then fail with an error, once, or give their number."""

    def __init__(self, *waits: float, errors: dict[int, ModelError]):
        self.waits, self.errors, self.sent = waits, errors, list[int]()

    async def ask(self, number: int) -> int:
        self.sent.append(number)
        await asyncio.sleep(self.waits[number])
        if error := self.errors.pop(number, None):
            raise error
        return number

    async def all(self) -> list[int]:
        return await together(self.ask, range(len(self.waits)), lambda number: Usage(10**number))


def test_the_next_try_waits_as_long_as_the_request_that_has_to_wait_longest() -> None:
    errors: dict[int, ModelError] = {0: TransientError("0", 1.0), 1: TransientError("1", 7.0), 2: TransientError("2")}
    errors[0].usage, errors[1].usage = Usage(0, 0, 1), Usage(0, 0, 2)

    async def main() -> None:
        requests = Requests(0, 0, 0, 0.01, errors=errors)
        with kept_replies() as kept:
            with pytest.raises(TransientError) as error:
                await requests.all()
            assert error.value.retry_after_s == 7.0 and lost_usage(error.value) == Usage(0, 0, 3)
            assert kept.usage == Usage(1000)
            assert await requests.all() == [0, 1, 2, 3] and kept.usage == Usage()
        assert requests.sent == [0, 1, 2, 3, 0, 1, 2]

    asyncio.run(main())


def test_a_fault_that_does_not_pass_and_a_call_without_retries_end_the_others_at_once() -> None:
    async def main() -> None:
        with pytest.raises(ModelError) as error:
            await Requests(0, 0.01, 30, errors={1: TransientError("no")}).all()
        assert lost_usage(error.value) == Usage(1)
        with kept_replies() as kept:
            with pytest.raises(ModelError) as error:
                await Requests(0, 0.01, 30, 0, errors={1: ModelError("no"), 3: TransientError("slow")}).all()
            assert str(error.value) == "no" and kept.usage == Usage(1) and lost_usage(error.value) == Usage()

    asyncio.run(main())


def test_a_kept_reply_answers_one_equal_request_and_no_other() -> None:
    kept = KeptReplies()
    kept.keep({"seed": 1}, "a", Usage(1))
    kept.keep({"seed": 1}, None, Usage(2))
    assert kept.take({"seed": 2}) is None
    assert kept.take({"seed": 1}) == ("a",) and kept.usage == Usage(2)
    assert kept.take({"seed": 1}) == (None,) and kept.take({"seed": 1}) is None
