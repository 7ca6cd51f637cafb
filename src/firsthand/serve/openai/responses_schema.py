"""The schema of /v1/responses, and its conversion to a chat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from firsthand.message import Json
from firsthand.serve.http.refusals import bad
from firsthand.serve.openai.request_schema import (
    MAX_INT,
    MAX_MESSAGES,
    MAX_TOOLS,
    Content,
    LabelFields,
    Name,
    Returned,
    TextPart,
    Wire,
)


class ReasoningPart(Returned):
    """A piece of reasoning."""

    type: Literal["reasoning_text"]
    text: str


class ResponseItem(Returned):
    """A message, a call, its output, or reasoning; its type decides its fields."""

    type: Literal["message", "function_call", "function_call_output", "reasoning"] = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: Content | Annotated[list[ReasoningPart], Field(fail_fast=True, max_length=64)] | None = None
    id: str | None = None
    status: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | None = None
    summary: Annotated[list[Any], Field(fail_fast=True, max_length=0)] | None = None
    encrypted_content: None = None
    phase: None = None


class Function(Wire):
    """A tool, without the `function` object of chats."""

    type: Literal["function"]
    name: Name
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None


class FunctionChoice(Wire):
    """The tool that must be called."""

    type: Literal["function"]
    name: str


class Format(Wire):
    """The format of the text."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: Json | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextOptions(Wire):
    """The object around the format."""

    format: Format | None = None
    verbosity: None = None


class ReasoningOptions(Wire):
    """Length of the reasoning: low, medium or high."""

    effort: Annotated[str, Field(max_length=64)] | None = None
    summary: None = None
    generate_summary: None = None


class ResponsesRequest(LabelFields):
    """A turn to answer."""

    model: Annotated[str, Field(max_length=512)] | None = None
    input: str | Annotated[list[ResponseItem], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=MAX_INT)] | None = None
    temperature: Annotated[float, Field(ge=0, lt=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stream: bool | None = None
    tools: Annotated[list[Function], Field(fail_fast=True, max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | FunctionChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    store: bool | None = None
    """The response is stored unless this is false."""
    previous_response_id: Annotated[str, Field(max_length=128)] | None = None
    """The stored response that this one continues. Its conversation comes first; its instructions are not carried over."""
    user: Annotated[str, Field(max_length=128)] | None = None
    reasoning: ReasoningOptions | None = None
    stream_options: None = None
    prompt: None = None


def items(body: ResponsesRequest) -> tuple[ResponseItem, ...]:
    """The input as items."""
    if isinstance(body.input, str):
        return (ResponseItem(role="user", content=body.input),)
    return tuple(body.input)


_NAMES = {
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
    "response_format.json_schema": "text.format",
}
"""Fields of a chat and of /v1/responses; those of messages and tools stand at places that a request decides."""


def as_chat(body: ResponsesRequest) -> tuple[Json, dict[str, str]]:
    """The same request as a chat, and the names here of the chat's fields, for refusals."""
    names = dict(_NAMES)
    chat: Json = {"messages": _messages(body, names)}
    for place in range(len(body.tools or ())):
        names[f"tools.{place}.function"] = f"tools.{place}"
    fields = dict(body)
    for field in ("model", "max_output_tokens", "temperature", "top_p", "stream", "parallel_tool_calls", "user"):
        if (value := fields[field]) is not None:
            chat["max_completion_tokens" if field == "max_output_tokens" else field] = value
    if body.reasoning is not None and body.reasoning.effort is not None:
        chat["reasoning_effort"] = body.reasoning.effort
    if body.tools:
        shown = [tool.model_dump(exclude={"type"}, exclude_none=True) for tool in body.tools]
        chat["tools"] = [{"type": "function", "function": tool} for tool in shown]
    if isinstance(body.tool_choice, FunctionChoice):
        chat["tool_choice"] = {"type": "function", "function": {"name": body.tool_choice.name}}
    elif body.tool_choice is not None:
        chat["tool_choice"] = body.tool_choice
    form = body.text.format if body.text else None
    if form is not None and form.type != "text":
        chat["response_format"] = {"type": form.type}
        if form.type == "json_schema":
            chat["response_format"]["json_schema"] = {"name": form.name or "answer", "schema": form.schema_}
    return chat, names


def _messages(body: ResponsesRequest, names: dict[str, str]) -> list[Json]:
    """The conversation as messages of a chat: reasoning and calls become part of the assistant's turn.

    `names` gets the names here of their fields.
    """
    messages: list[Json] = [{"role": "system", "content": body.instructions}] if body.instructions else []
    if isinstance(body.input, str):
        return [*messages, {"role": "user", "content": body.input}]

    def turn() -> Json:
        if not messages or messages[-1]["role"] != "assistant":
            messages.append({"role": "assistant", "content": ""})
        return messages[-1]

    for place, item in enumerate(body.input):
        where = f"input.{place}"
        match item.type:
            case "message":
                text = _text(item, where)
                if item.role is None:
                    raise bad(f"{where}.role is missing", f"{where}.role")
                waits = bool(messages) and messages[-1]["role"] == "assistant" and not messages[-1]["content"]
                if item.role == "assistant" and waits and "tool_calls" not in messages[-1]:
                    messages[-1]["content"] = text
                else:
                    names[f"messages.{len(messages)}"] = where
                    messages.append({"role": item.role, "content": text})
            case "reasoning":
                messages.append({"role": "assistant", "content": "", "reasoning_content": _text(item, where)})
            case "function_call":
                if not (item.call_id and item.name):
                    raise bad(f"{where} is a call without call_id or name", where)
                function = {"name": item.name, "arguments": item.arguments or ""}
                call = {"id": item.call_id, "type": "function", "function": function}
                turn().setdefault("tool_calls", []).append(call)
            case "function_call_output":
                if item.call_id is None or item.output is None:
                    raise bad(f"{where} is an output without call_id or output", where)
                names[f"messages.{len(messages)}.tool_call_id"] = f"{where}.call_id"
                messages.append({"role": "tool", "tool_call_id": item.call_id, "content": item.output})
    return messages


def _text(item: ResponseItem, where: str) -> str:
    if item.content is None:
        raise bad(f"{where}.content is missing: give a text", f"{where}.content")
    return _text_of(item.content)


def joined(item: ResponseItem) -> ResponseItem:
    """The item with one text in place of the parts of its content."""
    return item if item.content is None else item.model_copy(update={"content": _text_of(item.content)})


def _text_of(content: str | Sequence[TextPart | ReasoningPart]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)
