"""POST /v1/completions: texts continued as they are, with echo and log-probs, as evaluation harnesses use it."""

from __future__ import annotations

import asyncio
import codecs
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple, cast

from firsthand.loop.concurrency import group
from firsthand.message import Json
from firsthand.model import Completion, Delta, Sampling, TokenRating, Usage
from firsthand.serve.http.refusals import Refusal, bad
from firsthand.serve.http.replies import Events, Reply, event, reply
from firsthand.serve.models.served_model import Asked, Door
from firsthand.serve.openai import request_parsing
from firsthand.serve.openai.chat_completions import rated
from firsthand.serve.openai.choices import LEAST, Gathered, total, usage_json
from firsthand.serve.openai.request_schema import CompletionRequest, read

DEFAULT_TOKENS = 16
"""As at OpenAI."""
PROMPTS_PER_ANSWER = 16
"""All prompts of a request together may have so many times the answers that one may have."""
_END = object()
Prompts = list[str | list[int]]


class Token(NamedTuple):
    """A token with its log-prob; the first of a prompt has none."""

    raw: bytes
    logprob: float | None
    top: Sequence[tuple[str, float]]


async def completions(door: Door, asked: Asked) -> Reply | Events:
    """The continuations of one text or several, whole or as a stream."""
    wanted = read(CompletionRequest, asked.json())
    door = door.of(wanted.model)
    door.the_model(wanted.model)
    prompts = _prompts(wanted)
    if (field := request_parsing.needs_tokens(wanted)) is not None:
        door.token_model(field)
    for prompt in prompts:
        if isinstance(prompt, list):
            door.token_model("prompt")
            door.check_ids(prompt, "prompt")
            if not prompt:
                raise bad("a prompt has no tokens: give one or more", "prompt")
    most = len(prompts) * (wanted.n or 1)
    if most > PROMPTS_PER_ANSWER * asked.client.limits.max_answers:
        raise bad(f"the request asks for {most} answers: send fewer prompts at a time", "prompt", "invalid_value")
    top = wanted.logprobs or 0
    sampling = request_parsing.sampling(
        wanted,
        asked.client.limits,
        max_tokens=DEFAULT_TOKENS if wanted.max_tokens is None else wanted.max_tokens,
        top_logprobs=top,
        form=request_parsing.structure(wanted),
    )
    door.check_sampling(sampling)
    asked.notes |= {"stream": bool(wanted.stream), "prompts": len(prompts)}
    if door.settings.log_texts:
        asked.notes["prompt"] = prompts
    if wanted.max_tokens == 0 and not wanted.echo:
        raise bad("max_tokens is 0 and echo is not set, so there is nothing to answer", "max_tokens")
    if wanted.stream:
        return await Events.begin(door, asked, _events(door, asked, wanted, prompts, sampling))
    answered = await group(_answer(door, asked, wanted, prompt, sampling) for prompt in prompts)
    choices, usage = [], Usage()
    for found, cost in answered:
        choices += found
        usage += cost
    for index, choice in enumerate(choices):
        choice["index"] = index
    return reply({**_head(door, asked), "choices": choices, "usage": usage_json(usage)})


def _prompts(wanted: CompletionRequest) -> Prompts:
    prompt = wanted.prompt
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt[0], int):
        return [prompt]
    return cast(Prompts, list(prompt))


async def _answer(
    door: Door, asked: Asked, wanted: CompletionRequest, prompt: str | list[int], sampling: Sampling
) -> tuple[list[Json], Usage]:
    """The choices of one prompt, and what they cost."""
    echoed = await _echo(door, asked, wanted, prompt, sampling)
    if wanted.max_tokens == 0:
        choice = _choice(wanted, echoed.text, echoed.tokens, "length")
        found = [dict(choice) for _ in range(wanted.n or 1)]
        usage = Usage(len(echoed.ids))
    else:
        answers = [Gathered() for _ in range(wanted.n or 1)]
        async with aclosing(_deltas(door, asked, wanted, prompt, sampling)) as deltas:
            async for delta in deltas:
                answers[delta.index].add(delta)
        found = [
            {
                **_choice(
                    wanted,
                    echoed.text + each.text,
                    [*echoed.tokens, *_tokens(door, wanted, each)],
                    each.whole.finish_reason,
                ),
                **({"token_ids": each.token_ids} if wanted.return_token_ids else {}),
            }
            for each in answers
        ]
        usage = total([each.whole for each in answers])
    if wanted.prompt_logprobs is not None:
        ids = await _ids(door, prompt)
        told = await rated(door, asked, ids, wanted.prompt_logprobs, wanted.cache_salt)
        for choice in found:
            choice["prompt_logprobs"] = told
    return found, usage


def _deltas(
    door: Door, asked: Asked, wanted: CompletionRequest, prompt: str | list[int], sampling: Sampling
) -> AsyncGenerator[Delta, None]:
    user, priority = wanted.user or "", wanted.priority or 0
    more = door.options(asked, wanted.cache_salt)
    return door.answers(asked, prompt, sampling, n=wanted.n or 1, priority=priority, user=user, **more)


class _Echo(NamedTuple):
    text: str
    ids: list[int]
    tokens: list[Token]


async def _echo(
    door: Door, asked: Asked, wanted: CompletionRequest, prompt: str | list[int], sampling: Sampling
) -> _Echo:
    """The prompt as a part of the answer; nothing where it is not asked for."""
    if not wanted.echo:
        return _Echo("", [], [])
    if wanted.logprobs is None and isinstance(prompt, str) and wanted.max_tokens != 0:
        return _Echo(prompt, [], [])
    model = door.token_model("echo")
    ids = await _ids(door, prompt)
    text = prompt if isinstance(prompt, str) else await model.detokenize(ids)
    if wanted.logprobs is None:
        return _Echo(text, ids, [])
    more = door.options(asked, wanted.cache_salt)
    ratings = await model.rate(ids, sampling.top_logprobs, priority=wanted.priority or 0, run=asked.client.name, **more)
    first = Token(model.spell(ids[:1])[0], None, ())
    return _Echo(text, ids, [first, *(_rated(door, rating) for rating in ratings)])


def _rated(door: Door, rating: TokenRating) -> Token:
    model = door.token_model("logprobs")
    raw, *tops = model.spell([rating.token_id, *(token for token, _ in rating.top)])
    pairs = zip(tops, rating.top, strict=True)
    return Token(raw, rating.logprob, [(text.decode("utf-8", "replace"), logprob) for text, (_, logprob) in pairs])


async def _ids(door: Door, prompt: str | list[int]) -> list[int]:
    return await door.token_model("prompt").tokenize(prompt) if isinstance(prompt, str) else list(prompt)


def _tokens(door: Door, wanted: CompletionRequest, found: Gathered | Delta) -> list[Token]:
    """The tokens of an answer, if their log-probs were asked for."""
    if wanted.logprobs is None:
        return []
    ids = list(found.token_ids)
    if isinstance(found, Gathered) and (sampled := found.whole.message.sampled) is not None:
        ids = ids[: len(sampled.token_ids)]
    tops = list(found.top_logprobs) or [()] * len(ids)
    raws = door.token_model("logprobs").spell(ids)
    return [Token(raw, found.logprobs[i], tops[i]) for i, raw in enumerate(raws)]


def _choice(wanted: CompletionRequest, text: str, tokens: Sequence[Token], reason: str | None, offset: int = 0) -> Json:
    logprobs = None if wanted.logprobs is None else _logprobs(tokens, wanted.logprobs, offset)
    return {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": reason}


def _logprobs(tokens: Sequence[Token], top: int, offset: int) -> Json:
    """The older shape of log-probs: lists side by side."""
    offsets, decoder, at = [], codecs.getincrementaldecoder("utf-8")("replace"), offset
    for token in tokens:
        offsets.append(at)
        at += len(decoder.decode(token.raw))
    tops: list[Json | None] = []
    for token in tokens:
        best = {text: max(logprob, LEAST) for text, logprob in reversed(token.top)}
        if token.logprob is not None and top:
            best.setdefault(token.raw.decode("utf-8", "replace"), max(token.logprob, LEAST))
        tops.append(None if token.logprob is None else best)
    return {
        "tokens": [token.raw.decode("utf-8", "replace") for token in tokens],
        "token_logprobs": [None if token.logprob is None else max(token.logprob, LEAST) for token in tokens],
        "top_logprobs": tops if top else None,
        "text_offset": offsets,
    }


async def _events(
    door: Door, asked: Asked, wanted: CompletionRequest, prompts: Prompts, sampling: Sampling
) -> AsyncGenerator[bytes, None]:
    """The events of a stream; the choices of several prompts come as they come."""
    if wanted.max_tokens == 0 or wanted.prompt_logprobs is not None:
        raise bad("what is known of the prompt does not come in a stream: set stream to false", "stream")
    head, n = _head(door, asked), wanted.n or 1
    options = wanted.stream_options
    with_usage = options is not None and bool(options.include_usage)
    tail: Json = {"usage": None} if with_usage else {}
    ended: list[Completion] = []
    lengths: dict[int, int] = {}

    def chunk(index: int, text: str, tokens: Sequence[Token], reason: str | None, **more: Any) -> bytes:
        choice = _choice(wanted, text, tokens, reason, lengths.get(index, 0))
        lengths[index] = lengths.get(index, 0) + len(text)
        return event({**head, "choices": [{**choice, "index": index, **more}], **tail})

    for place, prompt in enumerate(prompts):
        if wanted.echo:
            echoed = await _echo(door, asked, wanted, prompt, sampling)
            for index in range(place * n, place * n + n):
                yield chunk(index, echoed.text, echoed.tokens, None)
    async with aclosing(merged([_deltas(door, asked, wanted, prompt, sampling) for prompt in prompts])) as deltas:
        async for place, delta in deltas:
            index = place * n + delta.index
            if delta.completion is not None:
                ended.append(delta.completion)
                yield chunk(index, delta.text, [], delta.completion.finish_reason)
            elif delta.text or (wanted.logprobs is not None and delta.token_ids):
                more = {"token_ids": list(delta.token_ids)} if wanted.return_token_ids else {}
                yield chunk(index, delta.text, _tokens(door, wanted, delta), None, **more)
    if len(ended) < n * len(prompts):
        raise Refusal(502, "the model ended without an answer")
    if with_usage:
        yield event({**head, "choices": [], "usage": usage_json(total(ended))})


async def merged(sources: Sequence[AsyncGenerator[Delta, None]]) -> AsyncGenerator[tuple[int, Delta], None]:
    """What several iterators give, as it comes, with the place of the one it came from. Closing it closes them all."""
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


def _head(door: Door, asked: Asked) -> Json:
    return {
        "id": f"cmpl-{asked.id}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": door.name,
        "system_fingerprint": door.system_fingerprint,
    }
