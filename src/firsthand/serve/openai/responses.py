"""POST /v1/responses: the common subset, as a chat. Responses are stored for their clients, who may continue them."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from firsthand.message import Json
from firsthand.model import Completion, Usage
from firsthand.serve.admission.active_request import ActiveRequest
from firsthand.serve.http.refusals import in_names_of
from firsthand.serve.http.replies import Events, Reply, event, long_reply, reply
from firsthand.serve.openai.chat_completions import (
    ChatJob,
    chat_job,
    check_called,
    count_reasoning,
    deltas,
    gather_answers,
    remember,
    split_reasoning,
    splitter,
)
from firsthand.serve.openai.choices import CallMarks, WholeAnswer, call_id
from firsthand.serve.openai.openai_state import OpenAIState
from firsthand.serve.openai.request_schema import ChatRequest, read
from firsthand.serve.openai.responses_schema import ResponseItem, ResponsesRequest, as_chat, items
from firsthand.serve.openai.stored_responses import MAX_CONVERSATION_BYTES


async def responses(state: OpenAIState, request: ActiveRequest) -> Reply | Events:
    """The model's turn, whole or as a stream of events."""
    body = read(ResponsesRequest, request.json())
    if body.previous_response_id is not None:
        before = await state.responses.items(request.client.name, body.previous_response_id, "previous_response_id")
        body = body.model_copy(update={"input": [*before, *items(body)]})
    chat, names = as_chat(body)
    with in_names_of(names):
        job = await chat_job(state, request, read(ChatRequest, chat))
    if body.stream:
        return await Events.begin(request, _events(state, request, body, job), done=False)
    (answer,) = await gather_answers(state, request, job)
    reasoning, content = split_reasoning(job, answer.text)
    output = _output(request, answer, reasoning, content, job.marks)
    return await long_reply(await _finished(state, request, body, job, output, answer))


async def get_response(state: OpenAIState, request: ActiveRequest) -> Reply:
    """A stored response."""
    return Reply(await state.responses.response(request.client.name, request.path_params["id"]))


async def delete_response(state: OpenAIState, request: ActiveRequest) -> Reply:
    """Delete a stored response; those that continue it stay."""
    response_id = request.path_params["id"]
    state.responses.delete(request.client.name, response_id)
    return reply({"id": response_id, "object": "response", "deleted": True})


async def _finished(
    state: OpenAIState,
    request: ActiveRequest,
    body: ResponsesRequest,
    job: ChatJob,
    output: list[Json],
    answer: WholeAnswer,
) -> Json:
    """The whole response, stored unless the client or the server says no."""
    whole = _response(state, request, body, job, output, answer.whole, count_reasoning(job, answer.token_ids))
    if whole["store"]:
        conversation = (*items(body), *(ResponseItem.model_validate(item) for item in output))
        most = max(request.client.limits.body_bytes, MAX_CONVERSATION_BYTES)
        kept = await state.responses.keep(request.client.name, whole, conversation, max_conversation_bytes=most)
        whole["store"] = kept
    return whole


def _output(request: ActiveRequest, answer: WholeAnswer, reasoning: str, content: str, marks: CallMarks) -> list[Json]:
    """The items of an answer."""
    calls = answer.whole.message.tool_calls
    items: list[Json] = [_reasoning(request, reasoning)] if reasoning else []
    if content or not calls:
        items.append(_message(request, content, "completed" if calls else _status(answer.whole)))
    return [*items, *_calls(answer, marks)]


def _calls(answer: WholeAnswer, marks: CallMarks) -> list[Json]:
    """The items of an answer's calls."""
    return [
        _call(call_id(marks.of(at)), call.name, text, "completed" if call.invalid is None else _status(answer.whole))
        for at, (call, text) in enumerate(zip(answer.whole.message.tool_calls, answer.arguments(), strict=True))
    ]


_CUT_BY = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""The reasons of `incomplete_details`, by the finish reason of an answer that did not come to its end."""


def _status(completion: Completion) -> str:
    """The status of a response, and of the item that its end cut off."""
    return "incomplete" if completion.finish_reason in _CUT_BY else "completed"


def _reasoning(request: ActiveRequest, text: str) -> Json:
    content = [{"type": "reasoning_text", "text": text}]
    return {"type": "reasoning", "id": f"rs_{request.id}", "summary": [], "content": content}


def _message(request: ActiveRequest, text: str | None, status: str) -> Json:
    content = [] if text is None else [_part(text)]
    return {"type": "message", "id": f"msg_{request.id}", "role": "assistant", "status": status, "content": content}


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _call(id: str, name: str, text: str, status: str) -> Json:
    return {"type": "function_call", "id": f"fc_{id}", "call_id": id, "name": name, "arguments": text, "status": status}


def _response(
    state: OpenAIState,
    request: ActiveRequest,
    body: ResponsesRequest,
    job: ChatJob,
    output: list[Json],
    completion: Completion | None,
    reasoning_tokens: int = 0,
) -> Json:
    """The response object around the items; without a completion it is in progress."""
    status = "in_progress" if completion is None else _status(completion)
    cut_by = None if completion is None else _CUT_BY.get(completion.finish_reason)
    shown = body.model_dump(include={"text", "tool_choice", "tools"}, exclude_none=True, by_alias=True)
    return {
        "id": f"resp_{request.id}",
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "error": None,
        "incomplete_details": {"reason": cut_by} if cut_by else None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "model": job.served.name,
        "output": output,
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "store": body.store is not False and state.responses.max_responses > 0,
        "temperature": job.sampling.temperature,
        "text": shown.get("text", {"format": {"type": "text"}}),
        "tool_choice": shown.get("tool_choice", "auto"),
        "tools": shown.get("tools", []),
        "top_p": job.sampling.top_p,
        "truncation": "disabled",
        "usage": None if completion is None else _usage(completion.usage, reasoning_tokens),
        "metadata": body.metadata or {},
    }


def _usage(usage: Usage, reasoning_tokens: int) -> Json:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


async def _events(
    state: OpenAIState, request: ActiveRequest, body: ResponsesRequest, job: ChatJob
) -> AsyncGenerator[bytes, None]:
    """The events of a stream: items as they begin, grow and end, and the whole response at the end."""
    numbers = iter(range(1 << 60))
    output: list[Json] = []
    text = {"reasoning": "", "content": ""}
    opened: list[str] = []
    """Kinds of the items that have begun, in order."""

    def make(kind: str, **fields: Any) -> bytes:
        return event({"type": kind, "sequence_number": next(numbers), **fields}, kind)

    def begin(kind: str) -> list[bytes]:
        opened.append(kind)
        place = len(opened) - 1
        if kind == "reasoning":
            item = {**_reasoning(request, ""), "content": []}
            return [make("response.output_item.added", output_index=place, item=item)]
        where = {"item_id": f"msg_{request.id}", "output_index": place, "content_index": 0}
        return [
            make("response.output_item.added", output_index=place, item=_message(request, None, "in_progress")),
            make("response.content_part.added", **where, part=_part("")),
        ]

    def end(kind: str, status: str = "completed") -> list[bytes]:
        place, whole = len(output), text[kind]
        if kind == "reasoning":
            item = _reasoning(request, whole)
            output.append(item)
            where = {"item_id": item["id"], "output_index": place, "content_index": 0}
            done = make("response.reasoning_text.done", **where, text=whole)
            return [done, make("response.output_item.done", output_index=place, item=item)]
        item = _message(request, whole, status)
        output.append(item)
        where = {"item_id": item["id"], "output_index": place, "content_index": 0}
        return [
            make("response.output_text.done", **where, text=whole, logprobs=[]),
            make("response.content_part.done", **where, part=_part(whole)),
            make("response.output_item.done", output_index=place, item=item),
        ]

    def add(kind: str, piece: str) -> list[bytes]:
        events: list[bytes] = []
        if not opened or opened[-1] != kind:
            if opened:
                events += end(opened[-1])
            events += begin(kind)
        text[kind] += piece
        id, place = (f"rs_{request.id}" if kind == "reasoning" else f"msg_{request.id}"), len(opened) - 1
        name = "response.reasoning_text.delta" if kind == "reasoning" else "response.output_text.delta"
        more: Json = {} if kind == "reasoning" else {"logprobs": []}
        return [*events, make(name, item_id=id, output_index=place, content_index=0, delta=piece, **more)]

    split, answer = splitter(job), WholeAnswer()
    is_begun = False
    async with aclosing(deltas(state, request, job)) as pieces:
        async for each in pieces:
            if not is_begun:  # not before the model has taken it: until then a refusal has its own status
                is_begun = True
                begun = _response(state, request, body, job, [], None)
                yield make("response.created", response=begun)
                yield make("response.in_progress", response=begun)
            answer.add(each)
            shown = split.feed(each.text)
            if each.completion is not None:
                remember(state, request, job, each.completion)
                check_called(job, each.completion)
                shown += split.finish()
            for kind, piece in shown:
                for made in add(kind, piece):
                    yield made
    calls = _calls(answer, job.marks)
    if not opened and not calls:
        for made in begin("content"):
            yield made
    if opened:
        for made in end(opened[-1], "completed" if calls else _status(answer.whole)):
            yield made
    for item in calls:
        place, text_of_call = len(output), item["arguments"]
        output.append(item)
        where = {"item_id": item["id"], "output_index": place}
        begun_call = {**item, "arguments": "", "status": "in_progress"}
        yield make("response.output_item.added", output_index=place, item=begun_call)
        yield make("response.function_call_arguments.delta", **where, delta=text_of_call)
        yield make("response.function_call_arguments.done", **where, name=item["name"], arguments=text_of_call)
        yield make("response.output_item.done", output_index=place, item=item)
    whole = await _finished(state, request, body, job, output, answer)
    last = "response.incomplete" if whole["status"] == "incomplete" else "response.completed"
    yield make(last, response=whole)
