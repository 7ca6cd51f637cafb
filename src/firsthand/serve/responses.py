"""POST /v1/responses: the common subset, as a chat. Nothing is stored: a conversation is sent whole each time."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from pydantic import Field

from firsthand.message import Json
from firsthand.model import Completion, Usage
from firsthand.serve.chat import Job, apart, deltas, gathered, remember, splitter, understood
from firsthand.serve.choices import arguments, call_ids
from firsthand.serve.door import Asked, Door
from firsthand.serve.refusals import Refusal, bad
from firsthand.serve.replies import Events, Reply, event, reply
from firsthand.serve.wire import MAX_INT, MAX_MESSAGES, MAX_TOOLS, ChatRequest, Content, Name, Wire, read


class ThoughtPart(Wire):
    """A piece of a thought."""

    type: Literal["reasoning_text"]
    text: str


class Item(Wire):
    """A message, a call, its output, or a thought. Which fields it has depends on its type."""

    type: Literal["message", "function_call", "function_call_output", "reasoning"] = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: Content | Annotated[list[ThoughtPart], Field(max_length=64)] | None = None
    id: str | None = None
    status: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | None = None
    summary: Annotated[list[Any], Field(max_length=0)] | None = None
    encrypted_content: None = None
    phase: None = None


class Function(Wire):
    """A tool, without the object around it that chats have."""

    type: Literal["function"]
    name: Name
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None


class NamedFunction(Wire):
    """The tool that must be called."""

    type: Literal["function"]
    name: str


class Format(Wire):
    """What the text must look like."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: Json | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextOptions(Wire):
    """Around the format."""

    format: Format | None = None
    verbosity: None = None


class ResponsesRequest(Wire):
    """A turn to answer."""

    model: Annotated[str, Field(max_length=512)] | None = None
    input: str | Annotated[list[Item], Field(min_length=1, max_length=MAX_MESSAGES)]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=MAX_INT)] | None = None
    temperature: Annotated[float, Field(ge=0, lt=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stream: bool | None = None
    tools: Annotated[list[Function], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    user: Annotated[str, Field(max_length=128)] | None = None
    reasoning: None = None
    stream_options: None = None
    prompt: None = None


async def responses(door: Door, asked: Asked) -> Reply | Events:
    """The model's turn, whole or as a stream of events."""
    wanted = read(ResponsesRequest, asked.json())
    job = await understood(door, asked, read(ChatRequest, _as_chat(wanted)))
    if wanted.stream:
        return await Events.begin(door, asked, _events(door, asked, wanted, job), done=False)
    (found,) = await gathered(door, asked, job)
    thought, words = apart(door, job, found.text, found.whole)
    return reply(_response(door, asked, wanted, _output(asked, found.whole, thought, words), found.whole))


def _as_chat(wanted: ResponsesRequest) -> Json:
    """The same request as a chat."""
    body: Json = {"messages": _messages(wanted)}
    names = {"max_output_tokens": "max_completion_tokens"}
    for field in ("model", "max_output_tokens", "temperature", "top_p", "stream", "parallel_tool_calls", "user"):
        if (value := getattr(wanted, field)) is not None:
            body[names.get(field, field)] = value
    if wanted.tools:
        shown = [tool.model_dump(exclude={"type"}, exclude_none=True) for tool in wanted.tools]
        body["tools"] = [{"type": "function", "function": tool} for tool in shown]
    if isinstance(wanted.tool_choice, NamedFunction):
        body["tool_choice"] = {"type": "function", "function": {"name": wanted.tool_choice.name}}
    elif wanted.tool_choice is not None:
        body["tool_choice"] = wanted.tool_choice
    form = wanted.text.format if wanted.text else None
    if form is not None and form.type != "text":
        body["response_format"] = {"type": form.type}
        if form.type == "json_schema":
            body["response_format"]["json_schema"] = {"name": form.name or "answer", "schema": form.schema_}
    return body


def _messages(wanted: ResponsesRequest) -> list[Json]:
    """The conversation as a chat's messages: a thought and calls belong to the assistant's turn that they stand in."""
    found: list[Json] = [{"role": "system", "content": wanted.instructions}] if wanted.instructions else []
    if isinstance(wanted.input, str):
        return [*found, {"role": "user", "content": wanted.input}]

    def turn() -> Json:
        if not found or found[-1]["role"] != "assistant":
            found.append({"role": "assistant", "content": ""})
        return found[-1]

    for place, item in enumerate(wanted.input):
        where = f"input.{place}"
        match item.type:
            case "message":
                text = _text(item, where)
                if item.role is None:
                    raise bad(f"{where}.role is missing", f"{where}.role")
                waits = bool(found) and found[-1]["role"] == "assistant" and not found[-1]["content"]
                if item.role == "assistant" and waits and "tool_calls" not in found[-1]:
                    found[-1]["content"] = text
                else:
                    found.append({"role": item.role, "content": text})
            case "reasoning":
                found.append({"role": "assistant", "content": "", "reasoning_content": _text(item, where)})
            case "function_call":
                if not (item.call_id and item.name):
                    raise bad(f"{where} is a call without call_id or name", where)
                function = {"name": item.name, "arguments": item.arguments or ""}
                call = {"id": item.call_id, "type": "function", "function": function}
                turn().setdefault("tool_calls", []).append(call)
            case "function_call_output":
                if item.call_id is None or item.output is None:
                    raise bad(f"{where} is an output without call_id or output", where)
                found.append({"role": "tool", "tool_call_id": item.call_id, "content": item.output})
    return found


def _text(item: Item, where: str) -> str:
    if item.content is None:
        raise bad(f"{where}.content is missing: give a text", f"{where}.content")
    return item.content if isinstance(item.content, str) else "".join(part.text for part in item.content)


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
        "previous_response_id": None,
        "store": False,
        "temperature": 1.0 if wanted.temperature is None else wanted.temperature,
        "text": shown.get("text", {"format": {"type": "text"}}),
        "tool_choice": shown.get("tool_choice", "auto"),
        "tools": shown.get("tools", []),
        "top_p": 1.0 if wanted.top_p is None else wanted.top_p,
        "truncation": "disabled",
        "usage": None if completion is None else _usage(completion.usage),
        "metadata": {},
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
                shown += split.finish(completion.message.text if completion.message.tool_calls else None)
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
    whole = _response(door, asked, wanted, output, completion)
    last = "response.incomplete" if whole["status"] == "incomplete" else "response.completed"
    yield tell(last, response=whole)
