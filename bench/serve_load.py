"""The load of bench/serve.py: chats of a real trace's lengths that arrive at random, and a client that costs little."""

from __future__ import annotations

import asyncio
import csv
import json
import random
import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path

TEXT = (
    "time year people way day man thing woman life child world school state family student group country problem hand part "
    "place case week company system program question work number night point home water room mother area money story fact "
    "month lot right study book eye job word business issue side kind head house service friend father power hour game line"
)
WORDS = TEXT.split()
"""Each is one token in the vocabularies measured here, so that a length in words is about one in tokens."""
LENGTHS = Path(__file__).with_name("azure_conversations_2023.csv")
_TEXT = re.compile(rb'"(?:content|reasoning_content)": ?"(?!")')
"""A piece of an answer that holds text."""


@dataclass(frozen=True)
class Chat:
    """One request of the trace."""

    at_s: float
    question: str
    max_tokens: int


@dataclass(frozen=True)
class Result:
    """What a client saw of one answer."""

    first_s: float
    between_s: float
    """Between two pieces of text, on average."""
    tokens: int
    """Pieces of text."""
    whole_s: float
    error: str = ""
    late_s: float = 0.0
    """How long after its moment the request was sent: the client's own lag."""

    def is_good(self, ttft_s: float, itl_s: float) -> bool:
        """Whether it came within both limits."""
        return not self.error and self.first_s <= ttft_s and self.between_s <= itl_s


def words(rng: random.Random, count: int) -> str:
    """A text of so many words."""
    return " ".join(rng.choice(WORDS) for _ in range(count))


def trace_lengths() -> list[tuple[int, int]]:
    """Tokens of context and of answer of each request in Azure's sample."""
    lines = [line for line in LENGTHS.read_text().splitlines() if not line.startswith("#")]
    return [(int(row["context_tokens"]), int(row["generated_tokens"])) for row in csv.DictReader(lines)]


def poisson_trace(rate: float, seconds: float, seed: int, *, scale: float, system_words: int) -> list[Chat]:
    """Chats that arrive at random, `rate` a second, their lengths drawn from the trace and divided by `scale`.

    The shared system prompt is a part of each context, and the question is the rest, of four words at least.
    """
    rng, at, found, lengths = random.Random(seed), 0.0, [], trace_lengths()
    while (at := at + rng.expovariate(rate)) < seconds:
        context, answer = rng.choice(lengths)
        question = words(rng, max(4, round(context / scale) - system_words))
        found.append(Chat(at, question, max(2, round(answer / scale))))
    return found


class Client:
    """Asks a server for streamed chats over plain sockets. `more` are further fields of each request."""

    def __init__(self, port: int, model: str, system: str, more: dict | None = None):
        self.port, self.model, self.system, self.more = port, model, system, more or {}

    async def ask(self, question: str, max_tokens: int, *, system: str | None = None) -> Result:
        """One streamed answer."""
        body = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": system or self.system},
                {"role": "user", "content": question},
            ],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            **self.more,
        }
        data = json.dumps(body).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
        begun = time.perf_counter()
        times: list[float] = []
        writer = None
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
            writer.write(head.encode() + data)
            status = await reader.readline()
            is_whole = False
            while line := await reader.readline():
                if line.startswith(b"data: {"):
                    if _TEXT.search(line):
                        times.append(time.perf_counter() - begun)
                elif line.startswith(b"data: [DONE]"):
                    is_whole = True
        except (OSError, ValueError) as error:
            return Result(0, 0, 0, time.perf_counter() - begun, f"{type(error).__name__}: {error}")
        finally:
            if writer is not None:
                writer.close()
        whole = time.perf_counter() - begun
        if b" 200 " not in status or not is_whole or not times:
            return Result(0, 0, len(times), whole, status.decode("latin-1").strip() or "no answer")
        between = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
        return Result(times[0], between, len(times), whole)

    async def replay(self, trace: list[Chat], patience_s: float) -> list[Result]:
        """Every chat at its moment, whatever became of those before. So long after the last one all are given up."""
        begun = time.perf_counter()

        async def one(chat: Chat) -> Result:
            await asyncio.sleep(max(0.0, chat.at_s - (time.perf_counter() - begun)))
            late = time.perf_counter() - begun - chat.at_s
            try:
                left = trace[-1].at_s + patience_s - (time.perf_counter() - begun)
                found = await asyncio.wait_for(self.ask(chat.question, chat.max_tokens), max(0.0, left))
            except TimeoutError:
                found = Result(0, 0, 0, 0, "given up")
            return Result(found.first_s, found.between_s, found.tokens, found.whole_s, found.error, late)

        return list(await asyncio.gather(*(one(chat) for chat in trace)))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
