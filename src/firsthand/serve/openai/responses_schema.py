"""The body of /v1/responses, and the same request as a chat."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from firsthand.message import Json
from firsthand.serve.http.refusals import bad
from firsthand.serve.openai.request_schema import MAX_INT, MAX_MESSAGES, MAX_TOOLS, Content, Name, Wire

MetadataKey = Annotated[str, Field(max_length=64)]
MetadataText = Annotated[str, Field(max_length=512)]


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
    store: bool | None = None
    """Whether the response is kept; it is unless this is false."""
    previous_response_id: Annotated[str, Field(max_length=128)] | None = None
    """The kept response that this one goes on from: its conversation comes first. Its instructions do not go along."""
    metadata: Annotated[dict[MetadataKey, MetadataText], Field(max_length=16)] | None = None
    user: Annotated[str, Field(max_length=128)] | None = None
    reasoning: None = None
    stream_options: None = None
    prompt: None = None


def items(wanted: ResponsesRequest) -> tuple[Item, ...]:
    """The input as items."""
    if isinstance(wanted.input, str):
        return (Item(role="user", content=wanted.input),)
    return tuple(wanted.input)


def as_chat(wanted: ResponsesRequest) -> Json:
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
