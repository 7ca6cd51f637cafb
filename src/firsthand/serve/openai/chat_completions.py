"""POST /v1/chat/completions."""

from __future__ import annotations

import asyncio
import re
import time
from bisect import bisect_left
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

from firsthand.message import Json, Message, canonical
from firsthand.model import Completion, Delta, Sampling, TokenModel, TokenRating
from firsthand.serve.admission.active_request import ActiveRequest
from firsthand.serve.admission.metered_answers import charged
from firsthand.serve.http.refusals import Refusal, bad
from firsthand.serve.http.replies import EventForm, Events, Reply, event, long_reply
from firsthand.serve.models.served_models import ServedModel
from firsthand.serve.openai import request_parsing
from firsthand.serve.openai.choices import (
    CallMarks,
    WholeAnswer,
    arguments,
    call_id,
    calls_json,
    chat_logprobs,
    total,
    usage_json,
)
from firsthand.serve.openai.logprob_cells import check_cells
from firsthand.serve.openai.openai_state import OpenAIState
from firsthand.serve.openai.reasoning_split import ReasoningSplitter
from firsthand.serve.openai.request_parsing import Tools, template_options
from firsthand.serve.openai.request_schema import ChatRequest, read
from firsthand.tokens.calls.thought_text import CLOSE, OPEN

_ANALYSES = re.compile(
    rb"(?:(?:<\|start\|>assistant)?<\|channel\|>analysis(?![^<]*\sto=)[^<]*<\|message\|>.*?(?:<\|end\|>|\Z))+",
    re.DOTALL,
)
"""The messages of Harmony's analysis that an answer begins with. One to a tool is a call."""


@dataclass(frozen=True)
class ChatJob:
    """A chat request that was checked, and the model that answers it."""

    body: ChatRequest
    served: ServedModel
    messages: list[Message]
    sampling: Sampling
    tools: Tools
    starts_in_thought: bool
    """True if the prompt ends with the beginning of a thought."""
    marks: CallMarks = field(default_factory=CallMarks)
    """Of the ids by which the client knows the calls."""

    @property
    def n(self) -> int:
        """The number of answers."""
        return self.body.n or 1


async def chat_completions(state: OpenAIState, request: ActiveRequest) -> Reply | Events:
    """The answers to a chat, whole or as a stream."""
    job = await chat_job(state, request, read(ChatRequest, request.json()))
    if job.body.stream:
        return await Events.begin(request, _events(state, request, job))
    ids = await _prompt_ids(job)
    answers = await gather_answers(state, request, job)
    choices = [_choice(job, index, answer) for index, answer in enumerate(answers)]
    reply_body = {**_head(request, job, "chat.completion"), "choices": choices}
    reply_body["usage"] = usage_json(total([each.whole for each in answers]))
    if job.body.return_token_ids:
        reply_body["prompt_token_ids"] = list(answers[0].whole.prompt_ids or ())
    if job.body.prompt_logprobs is not None:
        reply_body["prompt_logprobs"] = await rate_prompt(
            state, request, job.served, ids, job.body.prompt_logprobs, job.body.cache_salt
        )
    return await long_reply(reply_body)


async def chat_job(state: OpenAIState, request: ActiveRequest, body: ChatRequest) -> ChatJob:
    """The job that a request describes; a Refusal if any of it cannot be done."""
    served = state.models.find(body.model)
    body = request_parsing.with_effort(body, served.facts)
    if (field := request_parsing.needs_tokens(body)) is not None:
        served.token_model(field)
    served.check_stated(dict(body))
    if body.top_logprobs is not None and not body.logprobs:
        raise bad("top_logprobs needs logprobs: set it to true", "top_logprobs")
    if body.stream and body.prompt_logprobs is not None:
        raise bad("prompt_logprobs do not come in a stream: set stream to false", "prompt_logprobs")
    if body.max_tokens == 0:
        raise bad("max_tokens is 0: a chat has an answer, so give 1 or more", "max_tokens")
    conversation = request_parsing.messages(body.messages, thinks=served.thinks)
    messages = state.sampled_turns.recall(turns_owner(request, served, body), conversation)
    tools = request_parsing.tools(body)
    grammar = request_parsing.structure(body, body.response_format)
    if grammar is not None and tools.specs:
        raise bad("response_format and tools cannot both rule the answer: set tool_choice to none", "response_format")
    grammar = grammar or request_parsing.calls_grammar(tools, served.facts)
    most = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    sampling = request_parsing.sampling(
        body,
        request.client.limits,
        max_tokens=most,
        top_logprobs=body.top_logprobs or 0,
        grammar=grammar,
        facts=served.facts,
    )
    served.check_sampling(sampling)
    if tools.specs:
        calls: dict[str, Any] = {"tool_choice": tools.choice, "parallel_tool_calls": tools.parallel}
        calls |= {"strict_tools": tools.strict}
        sampling = replace(sampling, **{name: calls[name] for name in served.call_settings})
    request.notes |= {"stream": bool(body.stream), "messages": len(messages)}
    if state.log_texts:
        request.notes["prompt"] = [message.to_json() for message in messages]
    starts_in_thought = (
        served.thinks and served.tokens is not None and await _ends_in_thought(served, messages, tools, body)
    )
    if starts_in_thought and grammar is not None and not grammar.closes_thought:
        sampling = replace(sampling, grammar=replace(grammar, after_thought=True))
    return ChatJob(body, served, messages, sampling, tools, starts_in_thought)


async def _ends_in_thought(served: ServedModel, messages: Sequence[Message], tools: Tools, body: ChatRequest) -> bool:
    model = served.tokens
    assert model is not None
    tail = (await model.tokenize(messages, tools.specs, **template_options(body.chat_template_kwargs)))[-8:]
    return b"".join(model.spell(tail)).rstrip().endswith(b"<think>")


def deltas(state: OpenAIState, request: ActiveRequest, job: ChatJob) -> AsyncGenerator[Delta, None]:
    """The pieces of the answers."""
    body = job.body
    return state.answers(
        request,
        job.served,
        job.messages,
        job.sampling,
        tools=job.tools.specs,
        n=job.n,
        priority=body.priority or 0,
        user=body.user or "",
        owner=turns_owner(request, job.served, body),
        **state.options(request, job.served, body.cache_salt, body.chat_template_kwargs),
    )


async def gather_answers(state: OpenAIState, request: ActiveRequest, job: ChatJob) -> list[WholeAnswer]:
    """The whole answers."""
    answers = [WholeAnswer() for _ in range(job.n)]
    async with aclosing(deltas(state, request, job)) as pieces:
        async for delta in pieces:
            answers[delta.index].add(delta)
    for index, each in enumerate(answers):
        check_called(job, each.whole)
        remember(state, request, job, each.whole, index)
    return answers


def splitter(job: ChatJob) -> ReasoningSplitter:
    """Splits one answer of the job into reasoning and content."""
    return ReasoningSplitter(thinks=job.served.thinks, starts_in_thought=job.starts_in_thought)


def split_reasoning(job: ChatJob, text: str) -> tuple[str, str]:
    """The reasoning and the content of a whole answer."""
    split = splitter(job)
    pieces = [*split.feed(text), *split.finish()]
    reasoning = "".join(piece.text for piece in pieces if piece.kind == "reasoning")
    return reasoning, "".join(piece.text for piece in pieces if piece.kind == "content")


def count_reasoning(job: ChatJob, token_ids: Sequence[int]) -> int:
    """The number of an answer's tokens up to the end of its thought; 0 for a model that does not tell its tokens."""
    model = job.served.tokens
    if not job.served.thinks or model is None:
        return 0
    spelled = model.spell(token_ids)
    text = b"".join(spelled)
    if (analyses := _ANALYSES.match(text)) is not None:
        end = analyses.end()
    elif job.starts_in_thought or text.lstrip().startswith(OPEN.encode()):
        at = text.find(CLOSE.encode())
        end = len(text) if at < 0 else at + len(CLOSE)
    else:
        return 0
    return min(bisect_left(list(accumulate(map(len, spelled))), end) + 1, len(spelled))


def _choice(job: ChatJob, index: int, answer: WholeAnswer) -> Json:
    completion = answer.whole
    calls = completion.message.tool_calls
    reasoning, content = split_reasoning(job, answer.text)
    message: Json = {"role": "assistant", "content": content or (None if calls else ""), "refusal": None}
    if reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = calls_json(answer, job.marks.first(len(calls), index))
    choice = {"index": index, "message": message, "logprobs": None, "finish_reason": completion.finish_reason}
    if job.body.logprobs:
        choice["logprobs"] = chat_logprobs(job.served, answer)
    if job.body.return_token_ids:
        choice["token_ids"] = answer.token_ids
    return choice


async def _events(state: OpenAIState, request: ActiveRequest, job: ChatJob) -> AsyncGenerator[bytes, None]:
    """The events of a stream."""
    head, body = _head(request, job, "chat.completion.chunk"), job.body
    splits = [splitter(job) for _ in range(job.n)]
    ended: list[Completion] = []
    begun: set[int] = set()
    called: set[tuple[int, int]] = set()
    """The calls that have begun, by answer and place."""
    options = body.stream_options
    with_usage = options is not None and bool(options.include_usage)
    tail = {"usage": None} if with_usage else {}

    def chunk(index: int, delta: Json, reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason, **more}
        return event({**head, "choices": [choice], **tail})

    forms: dict[tuple[int, str], EventForm] = {}
    """Forms of the chunks that hold nothing but text, by answer and kind: most are such."""

    def piece(index: int, kind: str, text: str) -> bytes:
        if (form := forms.get((index, kind))) is None:
            choice = {"index": index, "delta": {kind: EventForm.GAP}, "logprobs": None, "finish_reason": None}
            form = forms[index, kind] = EventForm({**head, "choices": [choice], **tail})
        return form.event(text)

    async with aclosing(deltas(state, request, job)) as pieces:
        async for each in pieces:
            index = each.index
            if index not in begun:
                begun.add(index)
                yield chunk(index, {"role": "assistant", "content": ""})
            more: Json = {}
            if body.logprobs and each.token_ids:
                more["logprobs"] = chat_logprobs(job.served, each)
            if body.return_token_ids and each.token_ids:
                more["token_ids"] = list(each.token_ids)
            shown = splits[index].feed(each.text) if each.text else []
            for kind, text in shown:
                name = "content" if kind == "content" else "reasoning_content"
                yield chunk(index, {name: text}, **more) if more else piece(index, name, text)
                more = {}
            if more:
                yield chunk(index, {"content": ""}, **more)
            if (call := each.call) is not None:
                check_number(job, call.index + 1)
                place = (index, call.index)
                made_id = call_id(job.marks.of(call.index, index))
                head_of = {} if place in called else {"id": made_id, "type": "function"}
                called.add(place)
                function = {"arguments": call.arguments} | ({"name": call.name} if call.name else {})
                yield chunk(index, {"tool_calls": [{"index": call.index, **head_of, "function": function}]})
            if each.completion is not None:
                ended.append(each.completion)
                remember(state, request, job, each.completion, index)
                check_called(job, each.completion)
                calls = each.completion.message.tool_calls
                for kind, text in splits[index].finish():
                    yield chunk(index, {"content" if kind == "content" else "reasoning_content": text})
                for at, made in enumerate(calls):
                    if (index, at) not in called:
                        function = {"name": made.name, "arguments": arguments(made)}
                        whole = {
                            "index": at,
                            "id": call_id(job.marks.of(at, index)),
                            "type": "function",
                            "function": function,
                        }
                        yield chunk(index, {"tool_calls": [whole]})
                yield chunk(index, {}, each.completion.finish_reason)
    if len(ended) < job.n:
        raise Refusal(502, "the model ended without an answer")
    if with_usage:
        yield event({**head, "choices": [], "usage": usage_json(total(ended))})


def remember(state: OpenAIState, request: ActiveRequest, job: ChatJob, completion: Completion, index: int = 0) -> None:
    """Keep an answer for the next turn: its reasoning, and its tokens if the client was shown all that they say."""
    message = completion.message
    has_reasoning = job.served.thinks and CLOSE in message.text
    if job.sampling.stop or job.sampling.stop_ids or has_reasoning or completion.has_control:
        message = replace(message, sampled=None)
    marks = job.marks.first(len(message.tool_calls), index)
    state.sampled_turns.remember(turns_owner(request, job.served, job.body), job.messages, message, marks)


def turns_owner(request: ActiveRequest, served: ServedModel, body: ChatRequest) -> str:
    """The owner of a conversation: of its sampled turns, and of what a remote agent keeps of it."""
    return canonical([request.client.name, served.name, body.user, body.cache_salt])


def check_called(job: ChatJob, completion: Completion) -> None:
    """Refuse an answer without the call that was required, and several calls where one was allowed.

    Only a model that does not run here can give one. An answer that was cut, by its length, a content filter or a stop
    string of the request, is as it is.
    """
    calls = completion.message.tool_calls
    wrong = job.tools.choice != "required" and any(call.name != job.tools.choice for call in calls)
    is_cut = completion.finish_reason in ("length", "content_filter") or completion.stop_string is not None
    if job.tools.must_call and not is_cut and (not calls or wrong):
        raise Refusal(502, "the model did not make the call that tool_choice demands")
    check_number(job, len(calls))


def check_number(job: ChatJob, num_calls: int) -> None:
    """Refuse several calls where one is allowed."""
    if num_calls > 1 and not job.tools.parallel:
        raise Refusal(502, "the model made several calls at once, and the request allows one")


async def _prompt_ids(job: ChatJob) -> list[int]:
    """The tokens of the prompt if their log-probs are asked for, else none; a Refusal if those are too many."""
    body = job.body
    if body.prompt_logprobs is None:
        return []
    model = job.served.token_model("prompt_logprobs")
    ids = await model.tokenize(job.messages, job.tools.specs, **template_options(body.chat_template_kwargs))
    check_cells(len(ids) * (body.prompt_logprobs + 1), "prompt_logprobs")
    return ids


async def rate_prompt(
    state: OpenAIState, request: ActiveRequest, served: ServedModel, ids: Sequence[int], top: int, salt: str | None
) -> list[Json | None]:
    """vLLM's `prompt_logprobs` of ids: an object by token id for each token, None for the first."""
    model = served.token_model("prompt_logprobs")
    with charged(state.admission, request.client, len(ids)):
        ratings = await model.rate(ids, top, run=request.client.name, **state.options(request, served, salt))
    return [None, *await asyncio.to_thread(lambda: [_rating_json(model, rating) for rating in ratings])]


def _rating_json(model: TokenModel, rating: TokenRating) -> Json:
    ranked = {token: (logprob, rank) for rank, (token, logprob) in enumerate(rating.top, 1)}
    tokens = {rating.token_id: (rating.logprob, None), **ranked}
    spelled = model.spell(list(tokens))
    return {
        str(token): {"logprob": logprob, "rank": rank, "decoded_token": raw.decode("utf-8", "replace")}
        for (token, (logprob, rank)), raw in zip(tokens.items(), spelled, strict=True)
    }


def _head(request: ActiveRequest, job: ChatJob, kind: str) -> Json:
    return {
        "id": f"chatcmpl-{request.id}",
        "object": kind,
        "created": int(time.time()),
        "model": job.served.name,
        "system_fingerprint": job.served.system_fingerprint,
    }
