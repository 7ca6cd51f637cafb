"""Clients of vendors' SDKs that are told what to answer, and keep what they were asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.errors import ModelError
from firsthand.model import Delta, Sampling
from firsthand.providers.endpoint_clients import LoopClients, opened_replies

PLAIN = Sampling(max_tokens=5, temperature=0.0)
STREAM = {"content-type": "Text/Event-Stream; charset=utf-8"}


class Reply:
    """A response of HTTP; numbers among its bodies are seconds to wait."""

    def __init__(self, *bodies: Any, headers: dict[str, str] | None = None) -> None:
        self.pieces = [each if isinstance(each, bytes | float) else json.dumps(each).encode() for each in bodies]
        self.content, self.headers, self.closed = (
            b"".join(each for each in self.pieces if isinstance(each, bytes)), headers or {}, 0,
        )  # fmt: skip

    async def aiter_bytes(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, float):
                await asyncio.sleep(piece)
            else:
                yield piece if self.headers.get("raw") else b"data: " + piece + b"\n\n"

    async def aclose(self) -> None:
        self.closed += 1


class Client:
    """Keeps its requests; answers with the next reply, or raises it."""

    def __init__(self, *replies: Any) -> None:
        self.replies, self.asked = list(replies), list[Any]()

    async def post(self, path: str, *, cast_to: Any, body: Any, **more: Any) -> Any:
        return await self.answer((path, body, more))

    async def get(self, path: str, *, cast_to: Any) -> Any:
        return await self.answer((path, None, {}))

    async def answer(self, asked: Any) -> Any:
        self.asked.append(asked)
        reply = self.replies.pop(0)
        if isinstance(reply, float):
            await asyncio.sleep(reply)
        if isinstance(reply, Exception):
            raise reply
        return reply


def over(model: Any, *replies: Any) -> Any:
    """The model over a client that is told what to answer."""
    model.client = Client(*replies)

    async def close() -> None: ...

    model._clients = LoopClients(lambda: (model.client, close))
    return model


def said(work: Any, kind: type[Exception] = ModelError) -> str:
    with pytest.raises(kind) as raised:
        asyncio.run(work)
    assert type(raised.value) is kind, raised.value
    return str(raised.value)


async def streamed(model: Any, prompt: Any, sampling: Sampling = PLAIN, **more: Any) -> list[Delta]:
    return [each async for each in model.stream(prompt, sampling, **more)]


def status(code: int, body: Any, sdk: Any, http: Any) -> Exception:
    """The SDK's error for a status."""
    response = http.Response(code, request=http.Request("POST", "http://h"), headers={"retry-after": "7"})
    return sdk.APIStatusError("no", response=response, body=body)  # type: ignore[no-any-return]


class Dumped:
    """A reply of Google's SDK."""

    def __init__(self, body: Any) -> None:
        self.body = body

    def model_dump(self, **given: Any) -> Any:
        assert given == {"mode": "json", "by_alias": True, "exclude_none": True, "exclude": {"sdk_http_response"}}
        return self.body


def told_google(*replies: Any, **given: Any) -> Any:
    """A model of Google's over a client that is told what to answer."""
    from firsthand.providers.google import GoogleModel

    model = over(GoogleModel("m", "http://h", api_key="k3y", **given), *replies)
    client, model.reply = model.client, Reply()

    async def generate(**asked: Any) -> Any:
        return Dumped(await client.answer((asked,)))

    async def generate_stream(**asked: Any) -> Any:
        bodies = await client.answer((asked,))
        opened = opened_replies.get()
        assert opened is not None
        opened.append(model.reply)

        async def chunks() -> AsyncIterator[Any]:
            for body in bodies:
                if isinstance(body, Exception):
                    raise body
                if isinstance(body, float):
                    await asyncio.sleep(body)
                    continue
                yield Dumped(body)

        return chunks()

    client.aio = SimpleNamespace(
        models=SimpleNamespace(generate_content=generate, generate_content_stream=generate_stream)
    )
    return model
