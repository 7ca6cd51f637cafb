"""POST /v1/completions: texts continued as they are, with echo and log-probs, as evaluation harnesses use it."""

from __future__ import annotations

import asyncio
import codecs
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

from firsthand.loop.concurrency import group
from firsthand.message import Json
from firsthand.model import Completion, Delta, Sampling, TokenModel, TokenRating, Usage
from firsthand.serve.admission.active_request import ActiveRequest
from firsthand.serve.admission.metered_answers import charged
from firsthand.serve.http.refusals import Refusal, bad
from firsthand.serve.http.replies import Events, Reply, event, long_event, long_reply
from firsthand.serve.models.served_models import ServedModel
from firsthand.serve.openai import request_parsing
from firsthand.serve.openai.chat_completions import rate_prompt
from firsthand.serve.openai.choices import LEAST, WholeAnswer, alternatives, total, usage_json
from firsthand.serve.openai.logprob_cells import check_cells
from firsthand.serve.openai.openai_state import OpenAIState
from firsthand.serve.openai.request_schema import CompletionRequest, read

DEFAULT_TOKENS = 16
"""As at OpenAI."""
PROMPTS_PER_ANSWER = 16
"""All prompts of a request together may have this many times the answers that one may have."""
_END = object()
Prompts = list[str | list[int]]


class EchoedToken(NamedTuple):
    """A token with its log-prob; the first of a prompt has none."""

    raw: bytes
    logprob: float | None
    top: Sequence[tuple[bytes, float]]
    shown: bytes
    """The bytes that the text has of it: none of a special token."""


class CompletionJob(NamedTuple):
    """A completion request that was checked, and the model that answers it."""

    body: CompletionRequest
    served: ServedModel
    prompts: Prompts
    sampling: Sampling

    @property
    def n(self) -> int:
        """The number of answers to each prompt."""
        return self.body.n or 1


async def completions(state: OpenAIState, request: ActiveRequest) -> Reply | Events:
    """The continuations of one text or several, whole or as a stream."""
    job = _job(state, request, read(CompletionRequest, request.json()))
    await _check_cells(job)
    if job.body.stream:
        return await Events.begin(request, _events(state, request, job))
    answered = await group(_answer(state, request, job, place) for place in range(len(job.prompts)))
    choices, usage = [], Usage()
    for more, cost in answered:
        choices += more
        usage += cost
    for index, choice in enumerate(choices):
        choice["index"] = index
    return await long_reply({**_head(request, job), "choices": choices, "usage": usage_json(usage)})


async def _check_cells(job: CompletionJob) -> None:
    """Refuse a request for too many log-probs of its prompts, before anything is computed."""
    body = job.body
    echoed = body.logprobs + 1 if body.echo and body.logprobs is not None else 0
    each = echoed + (0 if body.prompt_logprobs is None else body.prompt_logprobs + 1)
    if each:
        lengths = [len(await _ids(job.served, prompt)) for prompt in job.prompts]
        check_cells(sum(lengths) * each * job.n, "logprobs" if echoed else "prompt_logprobs")


def _job(state: OpenAIState, request: ActiveRequest, body: CompletionRequest) -> CompletionJob:
    """The job that a request describes; a Refusal if any of it cannot be done."""
    served = state.models.find(body.model)
    prompts = _prompts(body)
    if (field := request_parsing.needs_tokens(body)) is not None:
        served.token_model(field)
    served.check_stated(dict(body))
    for prompt in prompts:
        if isinstance(prompt, list):
            served.token_model("prompt")
            served.check_ids(prompt, "prompt")
            if not prompt:
                raise bad("a prompt has no tokens: give one or more", "prompt")
    most = len(prompts) * (body.n or 1)
    if most > PROMPTS_PER_ANSWER * request.client.limits.max_answers:
        raise bad(f"the request asks for {most} answers: send fewer prompts at a time", "prompt", "invalid_value")
    sampling = request_parsing.sampling(
        body,
        request.client.limits,
        max_tokens=min(DEFAULT_TOKENS, request.client.limits.max_tokens)
        if body.max_tokens is None
        else body.max_tokens,
        top_logprobs=body.logprobs or 0,
        grammar=request_parsing.structure(body),
        facts=served.facts,
    )
    served.check_sampling(sampling)
    request.notes |= {"stream": bool(body.stream), "prompts": len(prompts)}
    if state.log_texts:
        request.notes["prompt"] = prompts
    if body.max_tokens == 0 and not body.echo:
        raise bad("max_tokens is 0 and echo is not set, so there is nothing to answer", "max_tokens")
    return CompletionJob(body, served, prompts, sampling)


def _prompts(body: CompletionRequest) -> Prompts:
    prompt = body.prompt
    if isinstance(prompt, str):
        return [prompt]
    ids = [each for each in prompt if isinstance(each, int)]
    return [ids] if ids else [each for each in prompt if not isinstance(each, int)]


async def _answer(
    state: OpenAIState, request: ActiveRequest, job: CompletionJob, place: int
) -> tuple[list[Json], Usage]:
    """The choices of the prompt at a place, and their usage."""
    body, served, prompt = job.body, job.served, job.prompts[place]
    echo = await _echo(state, request, job, prompt)
    if body.max_tokens == 0:
        choice = await asyncio.to_thread(_choice, body, echo.text, echo.tokens, "length")
        choices = [dict(choice) for _ in range(job.n)]
        usage = Usage(len(echo.ids))
    else:
        answers = [WholeAnswer() for _ in range(job.n)]
        async with aclosing(_deltas(state, request, job, place)) as deltas:
            async for delta in deltas:
                answers[delta.index].add(delta)
        choices = [
            {
                **await asyncio.to_thread(
                    _choice, body, echo.text + each.text, [*echo.tokens, *_tokens(job, each)], each.whole.finish_reason
                ),
                **(
                    {"token_ids": each.token_ids, "prompt_token_ids": list(each.whole.prompt_ids or ())}
                    if body.return_token_ids
                    else {}
                ),
            }
            for each in answers
        ]
        usage = total([each.whole for each in answers])
    if body.prompt_logprobs is not None:
        ids = await _ids(served, prompt)
        ratings = await rate_prompt(state, request, served, ids, body.prompt_logprobs, body.cache_salt)
        for choice in choices:
            choice["prompt_logprobs"] = ratings
    return choices, usage


def _deltas(state: OpenAIState, request: ActiveRequest, job: CompletionJob, place: int) -> AsyncGenerator[Delta, None]:
    return state.answers(
        request,
        job.served,
        job.prompts[place],
        job.sampling,
        n=job.n,
        priority=job.body.priority or 0,
        user=job.body.user or "",
        first=place * job.n,
        **state.options(request, job.served, job.body.cache_salt),
    )


class _Echo(NamedTuple):
    text: str
    ids: list[int]
    tokens: list[EchoedToken]


async def _echo(state: OpenAIState, request: ActiveRequest, job: CompletionJob, prompt: str | list[int]) -> _Echo:
    """The prompt as a part of the answer; empty without `echo`."""
    body, served = job.body, job.served
    if not body.echo:
        return _Echo("", [], [])
    if body.logprobs is None and isinstance(prompt, str) and body.max_tokens != 0:
        return _Echo(prompt, [], [])
    model = served.token_model("echo")
    ids = await _ids(served, prompt)
    text = prompt if isinstance(prompt, str) else await model.detokenize(ids)
    if body.logprobs is None:
        return _Echo(text, ids, [])
    with charged(state.admission, request.client, len(ids)):
        ratings = await model.rate(
            ids,
            job.sampling.top_logprobs,
            priority=body.priority or 0,
            run=request.client.name,
            **state.options(request, served, body.cache_salt),
        )
    shown = await asyncio.to_thread(_shown, served, ids, at_start=True)
    first = EchoedToken(model.spell(ids[:1])[0], None, (), shown[0])
    rest = await asyncio.to_thread(lambda: [_rated(model, *each) for each in zip(ratings, shown[1:], strict=True)])
    return _Echo(text, ids, [first, *rest])


def _shown(served: ServedModel, ids: Sequence[int], *, at_start: bool = False, special: bool = False) -> list[bytes]:
    """The bytes that a text has of each token; `special` ones only if asked for, and `at_start` without a first space."""
    facts = served.facts
    hidden = frozenset() if facts is None or special else frozenset(facts.hidden_ids)
    raws = served.token_model("logprobs").spell(ids)
    shown = [b"" if id in hidden else raw for id, raw in zip(ids, raws, strict=True)]
    first = next((place for place, raw in enumerate(shown) if raw), None)
    if at_start and facts is not None and facts.strips_space and first is not None:
        shown[first] = shown[first].removeprefix(b" ")
    return shown


def _rated(model: TokenModel, rating: TokenRating, shown: bytes) -> EchoedToken:
    raw, *tops = model.spell([rating.token_id, *(token for token, _ in rating.top)])
    best = [(top, each) for top, (_, each) in zip(tops, rating.top, strict=True)]
    return EchoedToken(raw, rating.logprob, best, shown)


async def _ids(served: ServedModel, prompt: str | list[int]) -> list[int]:
    return await served.token_model("prompt").tokenize(prompt) if isinstance(prompt, str) else list(prompt)


def _tokens(job: CompletionJob, answer: WholeAnswer | Delta) -> list[EchoedToken]:
    """The tokens of an answer with their log-probs; empty if the request does not want them."""
    if job.body.logprobs is None:
        return []
    raws = job.served.token_model("logprobs").spell(answer.token_ids)
    tops = alternatives(job.served, answer)
    shown = _shown(job.served, answer.token_ids, special=not job.sampling.skip_special_tokens)
    return [EchoedToken(*each) for each in zip(raws, answer.logprobs, tops, shown, strict=True)]


class _TextOffsets:
    """The places in a text at which its tokens begin, one token after the other."""

    def __init__(self) -> None:
        self._decoder, self._at = codecs.getincrementaldecoder("utf-8")("replace"), 0

    def next(self, raw: bytes) -> int:
        """The place of this token."""
        at = self._at
        self._at += len(self._decoder.decode(raw))
        return at


def _choice(
    body: CompletionRequest,
    text: str,
    tokens: Sequence[EchoedToken],
    reason: str | None,
    offsets: _TextOffsets | None = None,
) -> Json:
    logprobs = None if body.logprobs is None else _logprobs(tokens, body.logprobs, offsets or _TextOffsets())
    return {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": reason}


def _logprobs(tokens: Sequence[EchoedToken], top: int, offsets: _TextOffsets) -> Json:
    """The older shape of log-probs: lists side by side."""
    tops: list[Json | None] = []
    for token in tokens:
        best = {_spelled(raw): max(logprob, LEAST) for raw, logprob in reversed(token.top)}
        if token.logprob is not None and top:
            best.setdefault(_spelled(token.raw), max(token.logprob, LEAST))
        tops.append(None if token.logprob is None else best)
    return {
        "tokens": [_spelled(token.raw) for token in tokens],
        "token_logprobs": [None if token.logprob is None else max(token.logprob, LEAST) for token in tokens],
        "top_logprobs": tops if top else None,
        "text_offset": [offsets.next(token.shown) for token in tokens],
    }


def _spelled(raw: bytes) -> str:
    """The token as a string; a part of a character as OpenAI writes it: `bytes:\\xf0\\x9f`."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


async def _events(state: OpenAIState, request: ActiveRequest, job: CompletionJob) -> AsyncGenerator[bytes, None]:
    """The events of a stream; the choices of several prompts are mixed, as they come."""
    body, n = job.body, job.n
    if body.max_tokens == 0 or body.prompt_logprobs is not None:
        raise bad("what is known of the prompt does not come in a stream: set stream to false", "stream")
    head = _head(request, job)
    options = body.stream_options
    with_usage = options is not None and bool(options.include_usage)
    tail: Json = {"usage": None} if with_usage else {}
    ended: list[Completion] = []
    offsets: defaultdict[int, _TextOffsets] = defaultdict(_TextOffsets)

    def chunk(index: int, text: str, tokens: Sequence[EchoedToken], reason: str | None, **more: Any) -> Json:
        choice = _choice(body, text, tokens, reason, offsets[index])
        return {**head, "choices": [{**choice, "index": index, **more}], **tail}

    for place, prompt in enumerate(job.prompts):
        if body.echo:
            echo = await _echo(state, request, job, prompt)
            for index in range(place * n, place * n + n):
                yield await long_event(await asyncio.to_thread(chunk, index, echo.text, echo.tokens, None))
    async with aclosing(merged([_deltas(state, request, job, place) for place in range(len(job.prompts))])) as deltas:
        async for place, delta in deltas:
            index = place * n + delta.index
            if delta.completion is not None:
                ended.append(delta.completion)
                yield event(chunk(index, delta.text, [], delta.completion.finish_reason))
            elif delta.text or (delta.token_ids and (body.logprobs is not None or body.return_token_ids)):
                more = {"token_ids": list(delta.token_ids)} if body.return_token_ids else {}
                yield event(chunk(index, delta.text, _tokens(job, delta), None, **more))
    if len(ended) < n * len(job.prompts):
        raise Refusal(502, "the model ended without an answer")
    if with_usage:
        yield event({**head, "choices": [], "usage": usage_json(total(ended))})


async def merged(sources: Sequence[AsyncGenerator[Delta, None]]) -> AsyncGenerator[tuple[int, Delta], None]:
    """The items of several iterators as they come, each with the index of its iterator. Closing it closes them all."""
    queue: asyncio.Queue[Any] = asyncio.Queue(64)

    async def drain(place: int, source: AsyncGenerator[Delta, None]) -> None:
        async with aclosing(source):
            try:
                async for delta in source:
                    await queue.put((place, delta))
            except Exception as error:
                await queue.put(error)
        await queue.put(_END)

    tasks = [asyncio.create_task(drain(place, source)) for place, source in enumerate(sources)]
    left = len(tasks)
    try:
        while left:
            item = await queue.get()
            if item is _END:
                left -= 1
            elif isinstance(item, Exception):
                raise item
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _head(request: ActiveRequest, job: CompletionJob) -> Json:
    return {
        "id": f"cmpl-{request.id}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": job.served.name,
        "system_fingerprint": job.served.system_fingerprint,
    }
