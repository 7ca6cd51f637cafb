"""A Gemini model of Google's, by its own API and official SDK: `google:NAME`, or `google:NAME@URL`.

Without `@` the address is GOOGLE_GEMINI_BASE_URL, or Google's, and the key GOOGLE_API_KEY (or GEMINI_API_KEY). The key goes
to no address that a name gives, unless it is Google's: a proxy that needs it is set in GOOGLE_GEMINI_BASE_URL. Each call is
one try: transient faults raise TransientError, which the loop retries. Not included: Vertex AI, log-probs, and prices.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from firsthand.errors import ConfigError, MissingExtra, ModelError, TransientError
from firsthand.message import Json
from firsthand.model import Completion, Delta, Prompt, Sampling, Scored, ToolSpec
from firsthand.providers import google_wire as wire
from firsthand.providers.endpoint_clients import (
    MAX_REPLY_BYTES,
    LoopClients,
    bounded_client,
    opened_replies,
    paid,
    together,
)
from firsthand.providers.endpoint_secrets import endpoint_secrets
from firsthand.providers.openai_errors import Endpoint, checked_key, shown_address, split_address
from firsthand.providers.openai_wire import Unreadable, clip, sendable
from firsthand.providers.output_validation import check
from firsthand.providers.reported_usage import json_object
from firsthand.providers.stream_limits import StreamLimits
from firsthand.providers.supported_settings import check_conversation, check_supported, no_scores
from firsthand.system import trace_context

T = TypeVar("T")
_GOOGLE = "https://generativelanguage.googleapis.com"
_KEYS, _URL = ("GOOGLE_API_KEY", "GEMINI_API_KEY"), "GOOGLE_GEMINI_BASE_URL"
_MAX_REPLY_VALUES = 500_000
"""The SDK makes an object of 600 bytes of each; a reply has no log-probs, and each chunk of a stream many tokens."""
_HINT = "without a version, such as https://generativelanguage.googleapis.com"


def open_model(rest: str) -> GoogleModel:
    """Returns the model named `google:MODEL@BASE_URL` or `google:MODEL`; ConfigError for any other form. No request is
    made yet."""
    return GoogleModel(*split_address("google", rest, "https://HOST"))


class GoogleModel:
    """A model behind the Gemini API. It can be used from several event loops, also in sequence."""

    call_settings = ("tool_choice", "strict_tools")
    """The settings of a Sampling about calls that its requests have a field for."""

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
            self._sdk: Any = importlib.import_module("google.genai")
        except ImportError:
            raise MissingExtra("google-genai", "google", f"the model 'google:{model}'") from None
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", model, re.ASCII) or ".." in model:
            raise ConfigError(f"{clip(model, 80)!r} names no model: give google:MODEL, such as google:gemini-3.8-flash")
        if not timeout_s > 0 or not max_reply_bytes > 0:
            raise ConfigError(f"timeout_s is {timeout_s} and max_reply_bytes {max_reply_bytes}: give numbers above 0")
        self._model = model
        self._base_url = (base_url or os.environ.get(_URL) or _GOOGLE).strip().rstrip("/")
        self._address = shown_address(self._base_url)
        self._named = base_url is not None
        host = urlsplit(self._address).hostname
        official = host == urlsplit(_GOOGLE).hostname and self._base_url.startswith("https://")
        known = next(filter(None, map(os.environ.get, _KEYS)), "") if official or not self._named else ""
        self._key = checked_key((api_key or known).strip(), required=official, variable=_KEYS[0], provider="google")
        secrets = endpoint_secrets(self._key, self._base_url)
        self._faults = Endpoint(self.name, model, secrets, timeout_s, _KEYS[0], _HINT)
        self._timeout_s = timeout_s
        self._max_reply_bytes = max_reply_bytes
        self._clients = LoopClients(self._open_client)

    @property
    def name(self) -> str:
        """The name a user gave, without a password in its URL."""
        return f"google:{self._model}@{self._address}" if self._named else f"google:{self._model}"

    @property
    def fingerprint(self) -> str:
        """The URL and the model's name; the model behind them may change unnoticed."""
        return f"google:{self._model}@{self._address}"

    def check_request(self, sampling: Sampling, *, chats: bool = True, scores: bool = False) -> None:
        """ConfigError for an agent's settings, or a kind of task, that the API has no field for."""
        check_supported(self.name, sampling, wire.SUPPORTED)
        if scores:
            raise ConfigError(no_scores(self.name))
        if not chats:
            check_conversation(self.name, "")

    async def complete(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = (), n: int = 1
    ) -> list[Completion]:
        """Returns `n` answers to one prompt, each from a request with a seed of its own, whose prompt is charged."""
        requests = [self._request(prompt, _seeded(sampling, i), tools) for i in range(n)]
        completions = await together(self._complete, requests, attrgetter("usage"))
        await check(self.name, completions, sampling, tools)
        return completions

    async def stream(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = ()
    ) -> AsyncGenerator[Delta, None]:
        """Yields one answer, piece by piece; the last, empty piece has the Completion. Closing it closes the
        connection."""
        answer = wire.CandidateStream()
        limits = StreamLimits(self._faults, sampling.max_tokens)
        request = self._request(prompt, sampling, tools)
        with paid(lambda: answer.usage):
            async with aclosing(self._chunks(request, limits)) as chunks:
                async for chunk in chunks:
                    if text := self._read(partial(answer.add, chunk)):
                        yield Delta(text)
                    for call in answer.take_calls():
                        yield Delta("", call=call)
            if not answer.finished:
                raise TransientError(f"{self.name} broke off in the middle of an answer: try again")
            completion = self._read(answer.completion)
        await check(self.name, [completion], sampling, tools)
        yield Delta("", completion)

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> Scored:
        """ModelError, at which patterns ask in words instead: the API gives no log-probs of given texts."""
        raise ModelError(no_scores(self.name))

    # -- requests --

    def _request(self, prompt: Prompt, sampling: Sampling, tools: Sequence[ToolSpec]) -> Json:
        """Returns the arguments of the SDK's call."""
        check_conversation(self.name, prompt)
        check_supported(self.name, sampling, wire.SUPPORTED)
        assert not isinstance(prompt, str)
        body = sendable({"contents": wire.contents(prompt), "config": wire.config(prompt, sampling, tools)})
        return {"model": self._model, **body}

    async def _complete(self, request: Json) -> Completion:
        client = await self._clients.current()
        try:
            async with asyncio.timeout(self._timeout_s):
                reply = _plain(await client.aio.models.generate_content(**_traced(request)))
        except TimeoutError:
            raise self._faults.too_slow() from None
        except Exception as error:
            raise self._failure(error) from None
        with paid(lambda: wire.read_usage(reply.get("usageMetadata"))):
            return self._read(lambda: wire.read_completion(reply))

    async def _chunks(self, request: Json, limits: StreamLimits) -> AsyncGenerator[Json, None]:
        """Yields the chunks of a stream as JSON objects."""
        client = await self._clients.current()
        replies: list[Any] = []
        opened_replies.set(replies)
        is_begun = False
        try:
            async with asyncio.timeout(self._timeout_s):
                chunks = await client.aio.models.generate_content_stream(**_traced(request))
            while True:
                async with limits.waiting():
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return
                plain = _plain(chunk)
                if wire.brings_content(plain):
                    limits.renew()
                yield plain
                is_begun = True
        except TimeoutError:
            raise limits.timed_out() from None
        except Exception as error:
            if is_begun and isinstance(error, self._sdk.errors.UnknownApiResponseError):
                return  # it was cut inside of a chunk
            raise self._failure(error) from None
        finally:
            for reply in replies:  # the SDK's own generators are left to be collected, and their connections open
                await reply.aclose()

    def _failure(self, error: Exception) -> ModelError:
        """Returns the error for whatever the SDK raised."""
        if isinstance(error, self._sdk.errors.UnknownApiResponseError):
            return self._faults.garbled(Unreadable("it sent what is no JSON (", str(error), "): check its address", 80))
        if isinstance(error, TypeError | AttributeError | KeyError):  # the SDK takes the types of a reply for granted
            told = f"it sent a reply of another form than the API's ({type(error).__name__}): check its address"
            return self._faults.garbled(ModelError(told))
        if not isinstance(error, self._sdk.errors.APIError):
            return self._faults.unreachable(error)
        details = error.details if isinstance(error.details, dict) else {}
        body = json_object(details.get("error")) or details
        status = error.code if type(error.code) is int and 300 <= error.code < 600 else 400
        if status == 400 and "API_KEY_INVALID" in str(body.get("details"))[:4000]:
            status = 401  # the API says 400 to a wrong key
        headers = dict(getattr(error.response, "headers", None) or {})
        if (wait := _retry_delay(body)) is not None:
            headers["retry-after"] = wait
        return self._faults.status(status, body, {key.lower(): value for key, value in headers.items()})

    def _read(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except ModelError as error:
            raise self._faults.garbled(error) from None

    def _open_client(self) -> tuple[Any, Callable[[], Awaitable[None]]]:
        """Returns a client and what closes it. No redirect is followed: the key stays at its address."""
        connections = bounded_client(
            httpx,
            timeout_s=self._timeout_s,
            max_reply_bytes=self._max_reply_bytes,
            max_reply_values=_MAX_REPLY_VALUES,
            follow_redirects=False,
        )
        unused = httpx.Client(trust_env=False)  # for calls that are not async; else the SDK makes one
        options = {
            "base_url": self._base_url,
            "httpx_async_client": connections,
            "httpx_client": unused,
            "retry_options": {"attempts": 1},
        }
        client = self._sdk.Client(enterprise=False, api_key=self._key or "none", http_options=options)

        async def close() -> None:
            unused.close()
            await connections.aclose()

        return client, close


def _traced(request: Json) -> Json:
    """Returns the request with the header of the current span."""
    if (parent := trace_context.current()) is None:
        return request
    return request | {"config": request["config"] | {"http_options": {"headers": {"traceparent": parent.header}}}}


def _plain(reply: Any) -> Json:
    """Returns the SDK's reply as the JSON object of the API."""
    body: Json = reply.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"sdk_http_response"})
    return body


def _seeded(sampling: Sampling, index: int) -> Sampling:
    return sampling if sampling.seed is None or not index else replace(sampling, seed=sampling.seed + index)


def _retry_delay(body: Json) -> str | None:
    """Returns the seconds of a RetryInfo among an error's details, such as `34s`."""
    details = body.get("details")
    for detail in map(json_object, details if isinstance(details, list) else []):
        delay = detail.get("retryDelay")
        if isinstance(delay, str) and (found := re.fullmatch(r"(\d{1,9}(?:\.\d+)?)s", delay)):
            return found[1]
    return None
