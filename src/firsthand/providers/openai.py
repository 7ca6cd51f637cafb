"""Any OpenAI-compatible endpoint as a Model: vLLM, SGLang, Ollama, llama.cpp, and the clouds.

The name is `openai:MODEL@BASE_URL`, such as `openai:Qwen/Qwen3-8B@http://localhost:8000/v1`; without `@` the URL is
OPENAI_BASE_URL, or OpenAI's, and after it nothing but a URL is accepted. The key is OPENAI_API_KEY. Each call is one try:
transient faults raise TransientError, which the loop retries. A grammar is sent (a JSON schema as `response_format`, others
as vLLM's `structured_outputs`), and an answer that does not match it raises ModelError, since many servers ignore unknown
fields. Not included: prices, unless the endpoint reports them, and scoring after a conversation, since the endpoint's chat
template is unknown.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, aclosing
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import httpx

from firsthand.errors import ConfigError, MissingExtra, ModelError, PromptTooLong, TransientError
from firsthand.message import Json
from firsthand.model import (
    Completion,
    Delta,
    Likelihood,
    Prompt,
    Sampling,
    Scored,
    ToolSpec,
    Usage,
    add_lost_usage,
    lost_usage,
)
from firsthand.providers import openai_request
from firsthand.providers import openai_wire as wire
from firsthand.providers.endpoint_clients import (
    CONNECT_TIMEOUT_S,
    MAX_REPLY_BYTES,
    LoopClients,
    asked_values,
    bounded_client,
    environment_headers,
    paid,
    set_aside,
    together,
    usage_of,
)
from firsthand.providers.endpoint_secrets import endpoint_secrets
from firsthand.providers.finish_reasons import FailedAnswer
from firsthand.providers.openai_errors import Endpoint, checked_key, refuses_field, shown_address, split_address
from firsthand.providers.output_validation import check
from firsthand.providers.reported_usage import read_usage
from firsthand.providers.sse_events import is_cut_short, sse_data
from firsthand.providers.stream_limits import StreamLimits
from firsthand.system import trace_context

T = TypeVar("T")
_OPENAI = "https://api.openai.com/v1"
_MISTRALS = {"seed": "random_seed"}
"""OpenAI's fields that Mistral's API has under a name of its own."""


def open_model(rest: str) -> OpenAIModel:
    """Returns the model named `openai:MODEL@BASE_URL` or `openai:MODEL`; ConfigError for any other form. No request is
    made yet."""
    return OpenAIModel(*split_address("openai", rest, "http://HOST:PORT/v1"))


class _Ask(NamedTuple):
    """A request for `n` answers."""

    path: str
    body: Json
    n: int


class OpenAIModel:
    """A model behind an OpenAI-compatible endpoint. It can be used from several event loops, also in sequence."""

    call_settings = ("tool_choice", "parallel_tool_calls", "strict_tools")
    """The settings of a Sampling about calls that its requests have a field for."""

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = 600.0,
        return_token_ids: bool = False,
        max_reply_bytes: int = MAX_REPLY_BYTES,
    ):
        """`timeout_s` is for a whole answer, or for each piece of a stream, which has 5 s more for each token of
        `max_tokens` as a whole. `return_token_ids` requests token ids from vLLM."""
        try:
            self._sdk: Any = importlib.import_module("openai")
        except ImportError:
            raise MissingExtra("openai", "openai", f"the model 'openai:{model}'") from None
        if not model or not model.isprintable():
            raise ConfigError(f"{model!r} names no model: give openai:MODEL@BASE_URL, such as openai:llama3@{_OPENAI}")
        if not timeout_s > 0 or not max_reply_bytes > 0:
            raise ConfigError(f"timeout_s is {timeout_s} and max_reply_bytes {max_reply_bytes}: give numbers above 0")
        self._model = model
        self._base_url = (base_url or os.environ.get("OPENAI_BASE_URL") or _OPENAI).strip().rstrip("/")
        self._address = shown_address(self._base_url)
        host, own = urlsplit(self._address).hostname or "", os.environ.get("OPENAI_BASE_URL", "").strip().rstrip("/")
        is_theirs = host == "api.openai.com" or host.endswith(".api.openai.com")
        self._official = is_theirs or host.endswith(".openai.azure.com")
        self._is_mistral = host == "api.mistral.ai"
        self._key = checked_key((api_key or os.environ.get("OPENAI_API_KEY") or "").strip(), required=self._official)
        self._named = base_url is not None
        self._trusted = (
            not self._named or self._base_url == own or (is_theirs and self._base_url.startswith("https://"))
        )
        secrets = endpoint_secrets(self._key, self._base_url, "OPENAI_CUSTOM_HEADERS")
        self._faults = Endpoint(self.name, model, secrets, timeout_s)
        self._timeout_s = timeout_s
        self._token_ids = return_token_ids
        self._max_reply_bytes = max_reply_bytes
        self.unsent_settings: tuple[str, ...] = ()
        """Settings of a Sampling that its endpoint has refused to know: requests leave them out from then on."""
        self._clients = LoopClients(self._open_client)

    @property
    def name(self) -> str:
        """The name a user gave, without a password in its URL."""
        return f"openai:{self._model}@{self._address}" if self._named else f"openai:{self._model}"

    @property
    def fingerprint(self) -> str:
        """The URL and the model's name; the model behind them may change unnoticed."""
        return f"openai:{self._model}@{self._address}"

    async def complete(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = (), n: int = 1
    ) -> list[Completion]:
        """Returns `n` answers to one prompt. An endpoint that gives fewer at a time (Ollama) is asked again."""
        first = _Ask(_path(prompt), self._body(prompt, sampling, tools, n), n)
        (completions,) = await together(self._complete, [first], usage_of)
        if len(completions) < n:
            seeds = [None if sampling.seed is None else sampling.seed + i for i in range(len(completions), n)]
            bodies = [self._body(prompt, replace(sampling, seed=seed), tools, 1) for seed in seeds]
            try:
                more = await together(self._complete, [_Ask(first.path, body, 1) for body in bodies], usage_of)
            except BaseException as error:
                set_aside(error, self._complete, [(first, completions)], usage_of)
                raise
            completions = completions + [each[0] for each in more]
        await check(self.name, completions[:n], sampling, tools)
        return completions[:n]

    async def stream(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = ()
    ) -> AsyncGenerator[Delta, None]:
        """Yields one answer, piece by piece; the last, empty piece has the Completion. Closing it closes the
        connection."""
        body = self._body(prompt, sampling, tools, 1) | {"stream": True, "stream_options": {"include_usage": True}}
        answer = wire.StreamedAnswer()
        limits = StreamLimits(self._faults, sampling.max_tokens)
        begun = False
        with paid(lambda: answer.usage):
            async with aclosing(self._events(_path(prompt), body, limits)) as events:
                async for event in events:
                    if event.get("error"):
                        answer.add_usage(event)
                        raise self._faults.reported(event, begun=begun)
                    begun = begun or wire.brings_content(event)
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
        """Returns the likelihood of each continuation after a plain-text prompt, from the log-probs of an echoed
        prompt.

        A token that spans the prompt's end and the continuation's beginning is counted. ModelError if the endpoint does
        not echo with log-probs, or if its tokens do not spell the text.
        """
        if not isinstance(prompt, str):
            raise ModelError(
                f"{self.name} cannot score after a conversation, whose template only the endpoint knows: give the prompt as "
                "plain text, or use a local model"
            )
        texts = [(wire.clean(prompt), wire.clean(each)) for each in continuations]
        scored = await together(self._score, texts, lambda result: result[1])
        likelihoods = [replace(each, text=text) for (each, _), text in zip(scored, continuations, strict=True)]
        return Scored(tuple(likelihoods), sum((usage for _, usage in scored), Usage()))

    # -- requests --

    def _body(self, prompt: Prompt, sampling: Sampling, tools: Sequence[ToolSpec], n: int) -> Json:
        grammar = sampling.grammar
        if self._official and grammar is not None and (grammar.kind != "json_schema" or isinstance(prompt, str)):
            raise ConfigError(
                f"{self.name} takes JSON schemas after a conversation and no other grammar, but got a {grammar.kind} grammar"
                f"{' after plain text' if isinstance(prompt, str) else ''}: use a local model or vLLM for it"
            )
        limit = (
            "max_completion_tokens" if self._official else "max_tokens"
        )  # the only one OpenAI's reasoning models accept
        body = openai_request.request(self._model, prompt, sampling, tools, n, token_ids=self._token_ids, limit=limit)
        return {_MISTRALS.get(name, name): value for name, value in body.items()} if self._is_mistral else body

    async def _complete(self, ask: _Ask) -> list[Completion]:
        reply = await self._post(ask.path, ask.body)
        with _paid_by(reply):
            return self._read(lambda: wire.read_completions(reply, most=ask.n))

    def _read(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except ModelError as error:
            raise self._faults.garbled(error) from None

    async def _score(self, asked: tuple[str, str]) -> tuple[Likelihood, Usage]:
        prompt, continuation = asked
        if not continuation:
            return Likelihood("", 0.0, 0, True), Usage()
        # One token is requested, since 0 means "no limit" to some servers; it is not counted.
        options = {"max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
        try:
            body = await self._post("/completions", {"model": self._model, "prompt": prompt + continuation, **options})
        except ModelError as error:
            raise self._cannot_score(error) from None
        with _paid_by(body):
            try:
                return wire.read_likelihood(body, prompt, continuation), read_usage(body.get("usage"))
            except ModelError as error:
                raise self._cannot_score(error) from None

    def _cannot_score(self, error: ModelError) -> ModelError:
        """Returns the error of a scoring: with what it takes to score, unless it may pass or the prompt is too long."""
        if isinstance(error, FailedAnswer):
            return self._faults.garbled(error)
        if isinstance(error, TransientError | PromptTooLong):
            return error
        told = ModelError(
            f"{self.name} cannot score: {error}; scoring needs /completions with echo and log-probs, as vLLM has: serve "
            "the model with it, use a local model, or a pattern that generates"
        )
        add_lost_usage(told, lost_usage(error))
        return told

    async def _post(self, path: str, body: Json) -> Json:
        """Returns the endpoint's JSON reply."""
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._send(path, body, stream=False)
        except TimeoutError:
            raise self._faults.too_slow() from None
        reply = self._parse(response.content)
        if reply.get("error"):
            with _paid_by(reply):
                raise self._faults.reported(reply)
        return reply

    async def _events(self, path: str, body: Json, limits: StreamLimits) -> AsyncGenerator[Json, None]:
        """Yields the JSON objects of a stream."""
        response = None
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._send(path, body, stream=True)
            kind = response.headers.get("content-type", "no content type")
            if "text/event-stream" not in kind.lower():
                raise self._faults.no_stream(kind, "ask without streaming")
            async with aclosing(sse_data(response.aiter_bytes())) as events:
                while True:
                    async with limits.waiting():  # pings do not count as an answer
                        data = await self._next(events)
                    if data.strip() == "[DONE]" or is_cut_short(data):
                        return
                    event = self._parse(data)
                    if wire.brings_content(event):
                        limits.renew()
                    yield event
        except TimeoutError:
            raise limits.timed_out() from None
        finally:
            if response is not None:
                await response.aclose()

    async def _next(self, events: AsyncGenerator[str, None]) -> str:
        try:
            return await anext(events, "[DONE]")
        except Exception as error:
            raise self._faults.unreachable(error) from None

    async def _send(self, path: str, body: Json | None, *, stream: bool) -> Any:
        """Returns the HTTP response, by way of the SDK. Any failure raises ModelError."""
        client = await self._clients.current()
        if body is not None and self.unsent_settings:
            body = {name: value for name, value in body.items() if name not in self.unsent_settings}
        asked_values.set(openai_request.reply_values(body or {}))
        try:
            if body is None:
                return await client.get(path, cast_to=httpx.Response)
            kwargs: Json = {"stream": True, "stream_cls": self._sdk.AsyncStream[Any]} if stream else {}
            if (parent := trace_context.current()) is not None:
                kwargs["options"] = {"headers": {"traceparent": parent.header}}
            return await client.post(path, cast_to=httpx.Response, body=wire.sendable(body), **kwargs)
        except self._sdk.APIStatusError as error:
            if error.status_code == 404 and body is not None:
                raise await self._not_found(error) from None
            if "seed" in (body or {}) and refuses_field("seed", error.status_code, error.body):
                self.unsent_settings = ("seed",)
                return await self._send(path, body, stream=stream)
            raise self._faults.status(error.status_code, error.body, error.response.headers) from None
        except Exception as error:
            raise self._faults.unreachable(error) from None

    async def _not_found(self, error: Any) -> Exception:
        """Returns the error for a 404, with the models that the endpoint lists, if any."""
        known: list[str] = []
        try:
            async with asyncio.timeout(min(CONNECT_TIMEOUT_S, self._timeout_s)):
                known = wire.read_model_names(wire.parse((await self._send("/models", None, stream=False)).content))
        except (ModelError, TimeoutError):
            pass  # the 404 is what matters
        return self._faults.status(404, error.body, error.response.headers, known)

    def _parse(self, raw: bytes | str) -> Json:
        try:
            return wire.with_error(wire.parse(raw))
        except ModelError as error:
            raise self._faults.garbled(error) from None

    def _open_client(self) -> tuple[Any, Callable[[], Awaitable[None]]]:
        """Returns a client and what closes it."""
        connections = bounded_client(
            httpx,
            timeout_s=self._timeout_s,
            max_reply_bytes=self._max_reply_bytes,
            follow_redirects=True,
            unsent_headers=() if self._trusted else _account_headers(),
            only_origin=self._base_url,
        )
        key = self._key or "none"  # for local servers, which accept any key
        client = self._sdk.AsyncOpenAI(
            api_key=key,
            base_url=self._base_url,
            max_retries=0,
            http_client=connections,
            default_headers=None if self._trusted else {"Authorization": f"Bearer {key}"},
        )
        return client, client.close


def _account_headers() -> list[str]:
    """Returns the names of the headers that the SDK takes from the environment for OpenAI, all but the key's."""
    named = [name for name in environment_headers("OPENAI_CUSTOM_HEADERS") if name.lower() != "authorization"]
    return ["OpenAI-Organization", "OpenAI-Project", *named]


def _paid_by(reply: Json) -> AbstractContextManager[None]:
    """Adds the usage that a reply states to a ModelError of the block."""
    return paid(lambda: read_usage(reply.get("usage")))


def _path(prompt: Prompt) -> str:
    return "/completions" if isinstance(prompt, str) else "/chat/completions"
