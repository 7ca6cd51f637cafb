"""POST /v1/chat/completions."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from firsthand.message import Json, Message
from firsthand.model import Completion, Delta, Sampling
from firsthand.serve.http.refusals import Refusal, bad
from firsthand.serve.http.replies import EventForm, Events, Reply, event, reply
from firsthand.serve.models.served_model import Asked, Door
from firsthand.serve.openai import request_parsing
from firsthand.serve.openai.choices import (
    Gathered,
    arguments,
    call_id,
    call_ids,
    calls_json,
    chat_logprobs,
    total,
    usage_json,
)
from firsthand.serve.openai.reasoning_split import Splitter
from firsthand.serve.openai.request_parsing import Tools
from firsthand.serve.openai.request_schema import ChatRequest, read


@dataclass(frozen=True)
class Job:
    """A chat that was understood."""

    wanted: ChatRequest
    messages: list[Message]
    sampling: Sampling
    tools: Tools
    thinking: bool
    """Whether the prompt ends with the beginning of a thought."""

    @property
    def n(self) -> int:
        """How many answers."""
        return self.wanted.n or 1


async def chat_completions(door: Door, asked: Asked) -> Reply | Events:
    """The answers to a chat, whole or as a stream."""
    wanted = read(ChatRequest, asked.json())
    door = door.of(wanted.model)
    job = await understood(door, asked, wanted)
    if wanted.stream:
        return await Events.begin(door, asked, _events(door, asked, job))
    found = await gathered(door, asked, job)
    body = {**_head(door, asked, "chat.completion"), "choices": [_choice(door, job, i, g) for i, g in enumerate(found)]}
    body["usage"] = usage_json(total([each.whole for each in found]))
    if wanted.prompt_logprobs is not None:
        body["prompt_logprobs"] = await prompt_logprobs(door, asked, job)
    return reply(body)


async def understood(door: Door, asked: Asked, wanted: ChatRequest) -> Job:
    """The job that a request describes. Refused if any of it cannot be done."""
    door.the_model(wanted.model)
    if (field := request_parsing.needs_tokens(wanted)) is not None:
        door.token_model(field)
    if wanted.top_logprobs is not None and not wanted.logprobs:
        raise bad("top_logprobs needs logprobs: set it to true", "top_logprobs")
    if wanted.stream and wanted.prompt_logprobs is not None:
        raise bad("prompt_logprobs do not come in a stream: set stream to false", "prompt_logprobs")
    if wanted.max_tokens == 0:
        raise bad("max_tokens is 0: a chat has an answer, so give 1 or more", "max_tokens")
    thinks = door.facts is not None and door.facts.thinks
    messages = door.spoken.recall(asked.client.name, request_parsing.messages(wanted.messages, thinks=thinks))
    tools = request_parsing.tools(wanted)
    form = request_parsing.structure(wanted)
    if form is not None and tools.specs:
        raise bad("response_format and tools cannot both rule the answer: set tool_choice to none", "response_format")
    form = form or request_parsing.calls_grammar(tools, door.facts)
    most = wanted.max_completion_tokens if wanted.max_completion_tokens is not None else wanted.max_tokens
    sampling = request_parsing.sampling(
        wanted, asked.client.limits, max_tokens=most, top_logprobs=wanted.top_logprobs or 0, form=form
    )
    door.check_sampling(sampling)
    asked.notes |= {"stream": bool(wanted.stream), "messages": len(messages)}
    if door.settings.log_texts:
        asked.notes["prompt"] = [message.to_json() for message in messages]
    return Job(wanted, messages, sampling, tools, thinks and await _ends_in_thought(door, messages, tools, wanted))


async def _ends_in_thought(door: Door, messages: Sequence[Message], tools: Tools, wanted: ChatRequest) -> bool:
    model = door.tokens
    assert model is not None
    tail = (await model.tokenize(messages, tools.specs, **told(wanted)))[-8:]
    return b"".join(model.spell(tail)).rstrip().endswith(b"<think>")


def told(wanted: ChatRequest) -> dict[str, Any]:
    """What the template is told besides the conversation, if anything."""
    return {"template": wanted.chat_template_kwargs} if wanted.chat_template_kwargs else {}


def deltas(door: Door, asked: Asked, job: Job) -> AsyncGenerator[Delta, None]:
    """The pieces of the answers."""
    wanted = job.wanted
    return door.answers(
        asked,
        job.messages,
        job.sampling,
        tools=job.tools.specs,
        n=job.n,
        priority=wanted.priority or 0,
        user=wanted.user or "",
        **door.options(asked, wanted.cache_salt, wanted.chat_template_kwargs),
    )


async def gathered(door: Door, asked: Asked, job: Job) -> list[Gathered]:
    """The whole answers."""
    found = [Gathered() for _ in range(job.n)]
    async with aclosing(deltas(door, asked, job)) as pieces:
        async for delta in pieces:
            found[delta.index].add(delta)
    for each in found:
        _check_called(job, each.whole)
        remember(door, asked, job, each.whole)
    if door.settings.log_texts:
        asked.notes["answers"] = [each.whole.message.to_json() for each in found]
    return found


def splitter(door: Door, job: Job) -> Splitter:
    """What takes an answer apart."""
    thinks = door.facts is not None and door.facts.thinks
    return Splitter(thinks=thinks, thinking=job.thinking)


def apart(door: Door, job: Job, text: str) -> tuple[str, str]:
    """The thoughts and the words of a whole answer."""
    split = splitter(door, job)
    pieces = [*split.feed(text), *split.finish()]
    return tuple("".join(p.text for p in pieces if p.kind == kind) for kind in ("reasoning", "content"))  # type: ignore[return-value]


def _choice(door: Door, job: Job, index: int, found: Gathered) -> Json:
    completion = found.whole
    calls = completion.message.tool_calls
    thought, words = apart(door, job, found.text)
    message: Json = {"role": "assistant", "content": words or (None if calls else ""), "refusal": None}
    if thought:
        message["reasoning_content"] = thought
    if calls:
        message["tool_calls"] = calls_json(calls, call_ids(calls))
    choice = {"index": index, "message": message, "logprobs": None, "finish_reason": completion.finish_reason}
    if job.wanted.logprobs:
        kept = len(completion.message.sampled.token_ids) if completion.message.sampled else 0
        ids, numbers, top = found.token_ids[:kept], found.logprobs[:kept], found.top_logprobs[:kept]
        choice["logprobs"] = chat_logprobs(door, ids, numbers, top)
    if job.wanted.return_token_ids:
        choice["token_ids"] = found.token_ids
    return choice


async def _events(door: Door, asked: Asked, job: Job) -> AsyncGenerator[bytes, None]:
    """The events of a stream."""
    head = _head(door, asked, "chat.completion.chunk")
    splits = [splitter(door, job) for _ in range(job.n)]
    ended: list[Completion] = []
    begun: set[int] = set()
    called: dict[tuple[int, int], str] = {}
    """The ids of calls that were begun, by answer and place."""
    options = job.wanted.stream_options
    with_usage = options is not None and bool(options.include_usage)
    tail = {"usage": None} if with_usage else {}

    def chunk(index: int, delta: Json, reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason, **more}
        return event({**head, "choices": [choice], **tail})

    forms: dict[tuple[int, str], EventForm] = {}
    """Of chunks that hold nothing but text, by answer and kind: most are such."""

    def piece(index: int, kind: str, text: str) -> bytes:
        if (form := forms.get((index, kind))) is None:
            choice = {"index": index, "delta": {kind: EventForm.GAP}, "logprobs": None, "finish_reason": None}
            form = forms[index, kind] = EventForm({**head, "choices": [choice], **tail})
        return form.event(text)

    async with aclosing(deltas(door, asked, job)) as pieces:
        async for each in pieces:
            index = each.index
            if index not in begun:
                begun.add(index)
                yield chunk(index, {"role": "assistant", "content": ""})
            more: Json = {}
            if job.wanted.logprobs and each.token_ids:
                more["logprobs"] = chat_logprobs(door, each.token_ids, each.logprobs, each.top_logprobs)
            if job.wanted.return_token_ids and each.token_ids:
                more["token_ids"] = list(each.token_ids)
            shown = splits[index].feed(each.text) if each.text else []
            for kind, text in shown:
                name = "content" if kind == "content" else "reasoning_content"
                yield chunk(index, {name: text}, **more) if more else piece(index, name, text)
                more = {}
            if more:
                yield chunk(index, {"content": ""}, **more)
            if (call := each.call) is not None:
                place = (index, call.index)
                head_of = {} if place in called else {"id": called.setdefault(place, call_id()), "type": "function"}
                function = {"arguments": call.arguments} | ({"name": call.name} if call.name else {})
                yield chunk(index, {"tool_calls": [{"index": call.index, **head_of, "function": function}]})
            if each.completion is not None:
                ended.append(each.completion)
                remember(door, asked, job, each.completion)
                _check_called(job, each.completion)
                calls = each.completion.message.tool_calls
                for kind, text in splits[index].finish():
                    yield chunk(index, {"content" if kind == "content" else "reasoning_content": text})
                for at, made in enumerate(calls):
                    if (index, at) not in called:
                        function = {"name": made.name, "arguments": arguments(made)}
                        told = {"index": at, "id": call_id(), "type": "function", "function": function}
                        yield chunk(index, {"tool_calls": [told]})
                yield chunk(index, {}, each.completion.finish_reason)
    if len(ended) < job.n:
        raise Refusal(502, "the model ended without an answer")
    if with_usage:
        yield event({**head, "choices": [], "usage": usage_json(total(ended))})


def remember(door: Door, asked: Asked, job: Job, completion: Completion) -> None:
    """Keep the tokens of an answer for the turn after it, if the client was shown all that they say."""
    message = completion.message
    thought = door.facts is not None and door.facts.thinks and "</think>" in message.text
    if not job.sampling.stop and not job.sampling.stop_ids and not thought:
        door.spoken.remember(asked.client.name, job.messages, message)


def _check_called(job: Job, completion: Completion) -> None:
    """Refuse an answer without the call that was demanded, which only a model that is not here can give."""
    calls = completion.message.tool_calls
    wrong = job.tools.choice != "required" and any(call.name != job.tools.choice for call in calls)
    if job.tools.must_call and completion.finish_reason != "length" and (not calls or wrong):
        raise Refusal(502, "the model did not make the call that tool_choice demands")


async def prompt_logprobs(door: Door, asked: Asked, job: Job) -> list[Json | None]:
    """How probable each token of the prompt was, as vLLM tells it: an object by token id, None for the first."""
    model = door.token_model("prompt_logprobs")
    ids = await model.tokenize(job.messages, job.tools.specs, **told(job.wanted))
    return await rated(door, asked, ids, job.wanted.prompt_logprobs or 0, job.wanted.cache_salt)


async def rated(door: Door, asked: Asked, ids: Sequence[int], top: int, salt: str | None) -> list[Json | None]:
    """vLLM's `prompt_logprobs` of ids."""
    model = door.token_model("prompt_logprobs")
    found: list[Json | None] = [None]
    for rating in await model.rate(ids, top, run=asked.client.name, **door.options(asked, salt)):
        ranked = {token: (logprob, rank) for rank, (token, logprob) in enumerate(rating.top, 1)}
        tokens = {rating.token_id: (rating.logprob, None), **ranked}
        spelled = model.spell(list(tokens))
        found.append(
            {
                str(token): {"logprob": logprob, "rank": rank, "decoded_token": raw.decode("utf-8", "replace")}
                for (token, (logprob, rank)), raw in zip(tokens.items(), spelled, strict=True)
            }
        )
    return found


def _head(door: Door, asked: Asked, kind: str) -> Json:
    return {
        "id": f"chatcmpl-{asked.id}",
        "object": kind,
        "created": int(time.time()),
        "model": door.name,
        "system_fingerprint": door.system_fingerprint,
    }
