"""A model of Anthropic's, by its own Messages API and official SDK: `anthropic:NAME`, or `anthropic:NAME@URL`.

Without `@` the address is ANTHROPIC_BASE_URL, or Anthropic's, and the key ANTHROPIC_API_KEY (or ANTHROPIC_AUTH_TOKEN). The
key goes to no address that a name gives, unless it is Anthropic's: a proxy that needs it is set in ANTHROPIC_BASE_URL. Each
call is one try: transient faults raise TransientError, which the loop retries. The API has no temperature, no seed and no
log-probs: answers are sampled as the model's makers set it. Not included: prices, prompt caching on request, and images.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from operator import attrgetter
from typing import Any, TypeVar
from urllib.parse import urlsplit

from firsthand.errors import ConfigError, MissingExtra, ModelError, TransientError
from firsthand.message import Json
from firsthand.model import Completion, Delta, Prompt, Sampling, Scored, ToolSpec
from firsthand.providers import anthropic_wire as wire
from firsthand.providers.endpoint_clients import (
    MAX_REPLY_BYTES,
    LoopClients,
    bounded_client,
    environment_headers,
    paid,
    together,
)
from firsthand.providers.endpoint_secrets import endpoint_secrets
from firsthand.providers.openai_errors import Endpoint, checked_key, shown_address, split_address
from firsthand.providers.openai_wire import parse, says_something, sendable
from firsthand.providers.output_validation import check
from firsthand.providers.reported_usage import json_object
from firsthand.providers.sse_events import is_cut_short, sse_data
from firsthand.providers.stream_limits import StreamLimits
from firsthand.providers.supported_settings import check_conversation, check_supported, no_scores
from firsthand.system import trace_context

T = TypeVar("T")
_ANTHROPIC = "https://api.anthropic.com"
_KEY, _TOKEN, _URL = "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"
_HINT = "without /v1, such as https://api.anthropic.com"


def open_model(rest: str) -> AnthropicModel:
    """Returns the model named `anthropic:MODEL@BASE_URL` or `anthropic:MODEL`; ConfigError for any other form. No request
    is made yet."""
    return AnthropicModel(*split_address("anthropic", rest, "https://HOST"))


class AnthropicModel:
    """A model behind Anthropic's Messages API. It can be used from several event loops, also in sequence."""

    call_settings = ("tool_choice", "parallel_tool_calls", "strict_tools")
    """The settings of a Sampling about calls that its requests have a field for."""
    unsent_settings = ("temperature", "seed")
    """The settings of a Sampling that it takes and does not send: a server refuses them where a client states them."""

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = 600.0,
        max_reply_bytes: int = MAX_REPLY_BYTES,
    ):
        """`timeout_s` is for a whole answer, or for each piece of a stream, which has 5 s more for each token of
        `max_tokens` as a whole. `api_key` goes to `base_url`, wherever it is."""
        try:
            self._sdk: Any = importlib.import_module("anthropic")
            self._http: Any = importlib.import_module("httpx2")
        except ImportError:
            raise MissingExtra("anthropic", "anthropic", f"the model 'anthropic:{model}'") from None
        if not model or not model.isprintable():
            raise ConfigError(f"{model!r} names no model: give anthropic:MODEL, such as anthropic:claude-opus-5-5")
        if not timeout_s > 0 or not max_reply_bytes > 0:
            raise ConfigError(f"timeout_s is {timeout_s} and max_reply_bytes {max_reply_bytes}: give numbers above 0")
        self._model = model
        self._base_url = (base_url or os.environ.get(_URL) or _ANTHROPIC).strip().rstrip("/").removesuffix("/v1")
        self._address = shown_address(self._base_url)
        self._named = base_url is not None
        official = urlsplit(self._address).hostname == "api.anthropic.com" and self._base_url.startswith("https://")
        self._trusted = official or not self._named
        known = os.environ.get(_KEY) or os.environ.get(_TOKEN) or ""
        key = api_key or (known if self._trusted else "")
        self._key = checked_key(key.strip(), required=official, variable=_KEY, provider="anthropic")
        secrets = endpoint_secrets(self._key, self._base_url, "ANTHROPIC_CUSTOM_HEADERS")
        self._faults = Endpoint(self.name, model, secrets, timeout_s, _KEY, _HINT)
        self._timeout_s = timeout_s
        self._max_reply_bytes = max_reply_bytes
        self._clients = LoopClients(self._open_client)

    @property
    def name(self) -> str:
        """The name a user gave, without a password in its URL."""
        return f"anthropic:{self._model}@{self._address}" if self._named else f"anthropic:{self._model}"

    @property
    def fingerprint(self) -> str:
        """The URL and the model's name; the model behind them may change unnoticed."""
        return f"anthropic:{self._model}@{self._address}"

    def check_request(self, sampling: Sampling, *, chats: bool = True, scores: bool = False) -> None:
        """ConfigError for an agent's settings, or a kind of task, that the API has no field for."""
        check_supported(self.name, sampling, wire.SUPPORTED)
        if sampling.temperature not in (0, 1):
            raise ConfigError(
                f"temperature is {sampling.temperature:g}, and {self.name} takes none: its API samples as the model's "
                "makers set it, so leave --temperature out"
            )
        if scores:
            raise ConfigError(no_scores(self.name))
        if not chats:
            check_conversation(self.name, "")

    async def complete(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = (), n: int = 1
    ) -> list[Completion]:
        """Returns `n` answers to one prompt, each from a request of its own, whose prompt is charged."""
        body = self._body(prompt, sampling, tools, stream=False)
        completions = await together(self._complete, [body] * n, attrgetter("usage"))
        await check(self.name, completions, sampling, tools)
        return completions

    async def stream(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = ()
    ) -> AsyncGenerator[Delta, None]:
        """Yields one answer, piece by piece; the last, empty piece has the Completion. Closing it closes the
        connection."""
        answer = wire.MessageStream()
        limits = StreamLimits(self._faults, sampling.max_tokens)
        body = self._body(prompt, sampling, tools, stream=True)
        begun = False
        with paid(lambda: answer.usage):
            async with aclosing(self._events(body, limits)) as events:
                async for event in events:
                    if event.get("type") == "error":
                        raise self._reported(event, begun=begun)
                    begun = begun or event.get("type") == "content_block_delta"
                    if text := self._read(partial(answer.add, event)):
                        yield Delta(text)
                    for call in answer.take_calls():
                        yield Delta("", call=call)
            if not answer.finished:
                raise TransientError(f"{self.name} broke off in the middle of an answer: try again")
            completion = self._read(answer.completion)
        await check(self.name, [completion], sampling, tools)
        yield Delta("", completion)

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> Scored:
        """ModelError, at which patterns ask in words instead: the API gives no log-probs."""
        raise ModelError(no_scores(self.name))

    # -- requests --

    def _body(self, prompt: Prompt, sampling: Sampling, tools: Sequence[ToolSpec], *, stream: bool) -> Json:
        check_conversation(self.name, prompt)
        check_supported(self.name, sampling, wire.SUPPORTED)
        assert not isinstance(prompt, str)
        return sendable(wire.request(self._model, prompt, sampling, tools, stream=stream))

    async def _complete(self, body: Json) -> Completion:
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._send(body, stream=False)
        except TimeoutError:
            raise self._faults.too_slow() from None
        reply = self._parse(response.content)
        with paid(lambda: wire.read_usage(reply.get("usage"))):
            if reply.get("type") == "error":
                raise self._reported(reply)
            return self._read(lambda: wire.read_completion(reply))

    async def _events(self, body: Json, limits: StreamLimits) -> AsyncGenerator[Json, None]:
        """Yields the JSON objects of a stream."""
        response = None
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._send(body, stream=True)
            kind = response.headers.get("content-type", "no content type")
            if "text/event-stream" not in kind.lower():
                raise self._faults.no_stream(kind, "check its address")
            async with aclosing(sse_data(response.aiter_bytes())) as events:
                while True:
                    async with limits.waiting():
                        event = await self._next(events)
                    if event is None:
                        return
                    if says_something(event.get("delta")) or says_something(event.get("content_block")):
                        limits.renew()
                    yield event
        except TimeoutError:
            raise limits.timed_out() from None
        finally:
            if response is not None:
                await response.aclose()

    async def _next(self, events: AsyncGenerator[str, None]) -> Json | None:
        """Returns the next event but pings, which count as no answer; None at the end."""
        while True:
            try:
                data = await anext(events, None)
            except Exception as error:
                raise self._faults.unreachable(error) from None
            if data is None or is_cut_short(data):
                return None
            if (event := self._parse(data)).get("type") != "ping":
                return event

    async def _send(self, body: Json, *, stream: bool) -> Any:
        """Returns the HTTP response, by way of the SDK. Any failure raises ModelError."""
        client = await self._clients.current()
        try:
            kwargs: Json = {"stream": True, "stream_cls": self._sdk.AsyncStream[Any]} if stream else {}
            if (parent := trace_context.current()) is not None:
                kwargs["options"] = {"headers": {"traceparent": parent.header}}
            return await client.post("/v1/messages", cast_to=self._http.Response, body=body, **kwargs)
        except self._sdk.APIStatusError as error:
            raise self._faults.status(error.status_code, self._spelled(error.body), error.response.headers) from None
        except Exception as error:
            raise self._faults.unreachable(error) from None

    def _reported(self, event: Json, *, begun: bool = False) -> ModelError:
        """Returns the error in a stream, or under a status of success, by the status that its type stands for."""
        error = json_object(event.get("error"))
        if (status := _STATUSES.get(str(error.get("type")))) is not None:
            return self._faults.status(status, error, {})
        return self._faults.reported(event, begun=begun)

    def _spelled(self, body: Any) -> Any:
        return json_object(body).get("error") or body

    def _read(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except ModelError as error:
            raise self._faults.garbled(error) from None

    def _parse(self, raw: bytes | str) -> Json:
        try:
            return parse(raw, _HINT)
        except ModelError as error:
            raise self._faults.garbled(error) from None

    def _open_client(self) -> tuple[Any, Callable[[], Awaitable[None]]]:
        """Returns a client and what closes it. No redirect is followed: the key stays at its address."""
        connections = bounded_client(
            self._http,
            timeout_s=self._timeout_s,
            max_reply_bytes=self._max_reply_bytes,
            follow_redirects=False,
            unsent_headers=() if self._trusted else environment_headers("ANTHROPIC_CUSTOM_HEADERS"),
        )
        client = self._sdk.AsyncAnthropic(
            api_key=self._key or "none",
            base_url=self._base_url,
            max_retries=0,
            http_client=connections,
            open_telemetry=False,
        )
        return client, client.close


_STATUSES = {
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""Types of errors -> the status they are sent with where there is one."""
