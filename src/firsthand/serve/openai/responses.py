"""POST /v1/responses: the common subset, as a chat. Responses are kept for their clients, who may go on from them."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from firsthand.message import Json
from firsthand.model import Completion, Usage
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.http.replies import Events, Reply, event, reply
from firsthand.serve.models.served_model import Asked, Door
from firsthand.serve.openai.chat_completions import Job, apart, deltas, gathered, remember, splitter, understood
from firsthand.serve.openai.choices import arguments, call_ids
from firsthand.serve.openai.request_schema import ChatRequest, read
from firsthand.serve.openai.responses_schema import Item, ResponsesRequest, as_chat, items


async def responses(door: Door, asked: Asked) -> Reply | Events:
    """The model's turn, whole or as a stream of events."""
    wanted = read(ResponsesRequest, asked.json())
    door = door.of(wanted.model)
    if wanted.previous_response_id is not None:
        before = door.stored.find(asked.client.name, wanted.previous_response_id, "previous_response_id")
        wanted = wanted.model_copy(update={"input": [*before.items, *items(wanted)]})
    job = await understood(door, asked, read(ChatRequest, as_chat(wanted)))
    if wanted.stream:
        return await Events.begin(door, asked, _events(door, asked, wanted, job), done=False)
    (found,) = await gathered(door, asked, job)
    thought, words = apart(door, job, found.text)
    return reply(_kept(door, asked, wanted, _output(asked, found.whole, thought, words), found.whole))


async def get_response(door: Door, asked: Asked) -> Reply:
    """A response that was kept."""
    return reply(door.stored.find(asked.client.name, asked.path["id"]).response)


async def delete_response(door: Door, asked: Asked) -> Reply:
    """Forget a response that was kept; those that went on from it stay."""
    door.stored.delete(asked.client.name, asked.path["id"])
    return reply({"id": asked.path["id"], "object": "response", "deleted": True})


def _kept(door: Door, asked: Asked, wanted: ResponsesRequest, output: list[Json], completion: Completion) -> Json:
    """The whole response, kept if it may be."""
    whole = _response(door, asked, wanted, output, completion)
    if whole["store"]:
        said = (*items(wanted), *(Item.model_validate(item) for item in output))
        whole["store"] = door.stored.keep(asked.client.name, whole, said)
    return whole


def _output(asked: Asked, completion: Completion, thought: str, words: str) -> list[Json]:
    """The items of an answer."""
    calls = completion.message.tool_calls
    items: list[Json] = [_thought(asked, thought)] if thought else []
    if words or not calls:
        items.append(_message(asked, words, "completed"))
    for call, id in zip(calls, call_ids(calls), strict=True):
        items.append(_call(id, call.name, arguments(call), "completed"))
    return items


def _thought(asked: Asked, text: str) -> Json:
    content = [{"type": "reasoning_text", "text": text}]
    return {"type": "reasoning", "id": f"rs_{asked.id}", "summary": [], "content": content}


def _message(asked: Asked, text: str | None, status: str) -> Json:
    content = [] if text is None else [_part(text)]
    return {"type": "message", "id": f"msg_{asked.id}", "role": "assistant", "status": status, "content": content}


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _call(id: str, name: str, text: str, status: str) -> Json:
    return {"type": "function_call", "id": f"fc_{id}", "call_id": id, "name": name, "arguments": text, "status": status}


def _response(
    door: Door, asked: Asked, wanted: ResponsesRequest, output: list[Json], completion: Completion | None
) -> Json:
    """The object around the items; without a completion it is still under way."""
    cut = completion is not None and completion.finish_reason == "length"
    shown = wanted.model_dump(exclude_none=True, by_alias=True)
    return {
        "id": f"resp_{asked.id}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress" if completion is None else "incomplete" if cut else "completed",
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": wanted.instructions,
        "max_output_tokens": wanted.max_output_tokens,
        "model": door.name,
        "output": output,
        "parallel_tool_calls": wanted.parallel_tool_calls is not False,
        "previous_response_id": wanted.previous_response_id,
        "store": wanted.store is not False and door.stored.most > 0,
        "temperature": 1.0 if wanted.temperature is None else wanted.temperature,
        "text": shown.get("text", {"format": {"type": "text"}}),
        "tool_choice": shown.get("tool_choice", "auto"),
        "tools": shown.get("tools", []),
        "top_p": 1.0 if wanted.top_p is None else wanted.top_p,
        "truncation": "disabled",
        "usage": None if completion is None else _usage(completion.usage),
        "metadata": wanted.metadata or {},
    }


def _usage(usage: Usage) -> Json:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total_tokens,
    }


async def _events(door: Door, asked: Asked, wanted: ResponsesRequest, job: Job) -> AsyncGenerator[bytes, None]:
    """The events of a stream: what begins, what is added to it, what is done, and the whole at the end."""
    numbers = iter(range(1 << 60))
    output: list[Json] = []
    text = {"reasoning": "", "content": ""}
    opened: list[str] = []
    """Kinds of the items that were begun, in order."""

    def tell(kind: str, **fields: Any) -> bytes:
        return event({"type": kind, "sequence_number": next(numbers), **fields}, kind)

    def begin(kind: str) -> list[bytes]:
        opened.append(kind)
        place = len(opened) - 1
        if kind == "reasoning":
            item = {**_thought(asked, ""), "content": []}
            return [tell("response.output_item.added", output_index=place, item=item)]
        where = {"item_id": f"msg_{asked.id}", "output_index": place, "content_index": 0}
        return [
            tell("response.output_item.added", output_index=place, item=_message(asked, None, "in_progress")),
            tell("response.content_part.added", **where, part=_part("")),
        ]

    def end(kind: str) -> list[bytes]:
        place, said = len(output), text[kind]
        if kind == "reasoning":
            item = _thought(asked, said)
            output.append(item)
            where = {"item_id": item["id"], "output_index": place, "content_index": 0}
            done = tell("response.reasoning_text.done", **where, text=said)
            return [done, tell("response.output_item.done", output_index=place, item=item)]
        item = _message(asked, said, "completed")
        output.append(item)
        where = {"item_id": item["id"], "output_index": place, "content_index": 0}
        return [
            tell("response.output_text.done", **where, text=said, logprobs=[]),
            tell("response.content_part.done", **where, part=_part(said)),
            tell("response.output_item.done", output_index=place, item=item),
        ]

    def add(kind: str, piece: str) -> list[bytes]:
        events: list[bytes] = []
        if not opened or opened[-1] != kind:
            if opened:
                events += end(opened[-1])
            events += begin(kind)
        text[kind] += piece
        id, place = (f"rs_{asked.id}" if kind == "reasoning" else f"msg_{asked.id}"), len(opened) - 1
        name = "response.reasoning_text.delta" if kind == "reasoning" else "response.output_text.delta"
        more: Json = {} if kind == "reasoning" else {"logprobs": []}
        return [*events, tell(name, item_id=id, output_index=place, content_index=0, delta=piece, **more)]

    split = splitter(door, job)
    completion: Completion | None = None
    is_begun = False
    async with aclosing(deltas(door, asked, job)) as pieces:
        async for each in pieces:
            if not is_begun:  # not before the model has taken it: until then a refusal has its own status
                is_begun = True
                begun = _response(door, asked, wanted, [], None)
                yield tell("response.created", response=begun)
                yield tell("response.in_progress", response=begun)
            shown = split.feed(each.text)
            if each.completion is not None:
                completion = each.completion
                remember(door, asked, job, completion)
                shown += split.finish()
            for kind, piece in shown:
                for told in add(kind, piece):
                    yield told
    if completion is None:
        raise Refusal(502, "the model ended without an answer")
    calls = completion.message.tool_calls
    if not opened and not calls:
        for told in begin("content"):
            yield told
    if opened:
        for told in end(opened[-1]):
            yield told
    for call, id in zip(calls, call_ids(calls), strict=True):
        place, said = len(output), arguments(call)
        item = _call(id, call.name, said, "completed")
        output.append(item)
        where = {"item_id": item["id"], "output_index": place}
        yield tell("response.output_item.added", output_index=place, item=_call(id, call.name, "", "in_progress"))
        yield tell("response.function_call_arguments.delta", **where, delta=said)
        yield tell("response.function_call_arguments.done", **where, name=call.name, arguments=said)
        yield tell("response.output_item.done", output_index=place, item=item)
    whole = _kept(door, asked, wanted, output, completion)
    last = "response.incomplete" if whole["status"] == "incomplete" else "response.completed"
    yield tell(last, response=whole)
