"""The schema of /v1/messages, and its conversion to a chat.

Not included: images, documents, tools that run on the server, and answers that the request begins.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from pydantic import Field

from firsthand.message import Json, canonical
from firsthand.serve.http.refusals import bad
from firsthand.serve.openai.request_schema import MAX_INT, MAX_MESSAGES, MAX_TOOLS, Name, Returned, Wire

Empty = Annotated[list[Any], Field(fail_fast=True, max_length=0)]


class CacheControl(Wire):
    """A mark for a cache. It changes nothing: every prompt is looked up in the prefix cache."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class TextBlock(Returned):
    """A block of text."""

    type: Literal["text"]
    text: str
    cache_control: CacheControl | None = None
    citations: Empty | None = None


Texts = str | Annotated[list[TextBlock], Field(fail_fast=True, max_length=MAX_MESSAGES)]


class Block(Returned):
    """A block of a message; its type decides its fields."""

    type: Literal["text", "thinking", "tool_use", "tool_result"]
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    id: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    name: Annotated[str, Field(max_length=256)] | None = None
    input: Json | None = None
    tool_use_id: str | None = None
    content: Texts | None = None
    is_error: bool | None = None
    cache_control: CacheControl | None = None
    citations: Empty | None = None


_REQUIRED = {
    "text": ("text",),
    "thinking": ("thinking",),
    "tool_use": ("id", "name", "input"),
    "tool_result": ("tool_use_id",),
}
_OPTIONAL = {"text": ("citations",), "thinking": ("signature",), "tool_use": (), "tool_result": ("content", "is_error")}
_ROLES = {"thinking": "assistant", "tool_use": "assistant", "tool_result": "user"}
"""The only role that may have blocks of a type."""


class Turn(Returned):
    """A message of the conversation."""

    role: Literal["user", "assistant", "system"]
    content: str | Annotated[list[Block], Field(fail_fast=True, max_length=MAX_MESSAGES)]


class CustomTool(Wire):
    """A tool that the client runs."""

    type: Literal["custom"] | None = None
    name: Name
    description: str | None = None
    input_schema: Json
    strict: bool | None = None
    cache_control: CacheControl | None = None
    eager_input_streaming: bool | None = None
    """It changes nothing: arguments are always streamed as they are written."""
    defer_loading: Literal[False] | None = None
    input_examples: Empty | None = None


class ToolChoice(Wire):
    """The calls that the model may or must make."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Wire):
    """The model's reasoning. `enabled` is read to be refused: no budget ends a thought."""

    type: Literal["adaptive", "disabled", "enabled"]
    budget_tokens: int | None = None
    display: Literal["summarized"] | None = None


class OutputFormat(Wire):
    """The schema of the answer."""

    type: Literal["json_schema"]
    schema_: Json = Field(alias="schema")


class OutputConfig(Wire):
    """The form of the answer."""

    format: OutputFormat | None = None
    effort: Literal["high"] | None = None


class Metadata(Wire):
    """The client's own user."""

    user_id: Annotated[str, Field(max_length=1024)] | None = None


class CountRequest(Wire):
    """A prompt whose tokens are counted."""

    model: Annotated[str, Field(max_length=512)]
    messages: Annotated[list[Turn], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)]
    system: Texts | None = None
    tools: Annotated[list[CustomTool], Field(fail_fast=True, max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = None
    chat_template_kwargs: Annotated[dict[str, Any], Field(max_length=16)] | None = None
    """Not Anthropic's: as in a chat."""


class MessagesRequest(CountRequest):
    """A message to answer. Bounds of the numbers are those of a chat."""

    max_tokens: Annotated[int, Field(ge=1, le=MAX_INT)]
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    metadata: Metadata | None = None
    seed: int | None = None
    """Not Anthropic's: as in a chat."""
    cache_salt: str | None = None
    """Not Anthropic's: as in a chat."""


_SAME = ("model", "max_tokens", "temperature", "top_p", "top_k", "stream", "seed", "cache_salt", "chat_template_kwargs")
"""Fields that a chat has too."""


_NAMES = {
    "stop": "stop_sequences",
    "user": "metadata.user_id",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "response_format": "output_config.format",
    "response_format.json_schema": "output_config.format",
}
"""Fields of a chat and of /v1/messages; those of messages and tools stand at places that a request decides."""


def as_chat(body: CountRequest) -> tuple[Json, dict[str, str]]:
    """The same request as a chat, and the names here of the chat's fields, for refusals."""
    fields, names = dict(body), dict(_NAMES)
    chat: Json = {name: fields[name] for name in _SAME if fields.get(name) is not None}
    system = _system(body)
    begin = [] if system is None else [system]
    chat["messages"] = begin + _messages(body, names, len(begin))
    if body.tools:
        for place in range(len(body.tools)):
            names |= {
                f"tools.{place}.function": f"tools.{place}",
                f"tools.{place}.function.parameters": f"tools.{place}.input_schema",
            }
        chat["tools"] = [{"type": "function", "function": _function(tool)} for tool in body.tools]
    if body.tool_choice is not None:
        chat |= _choice(body.tool_choice)
    if body.output_config is not None and body.output_config.format is not None:
        schema = {"name": "answer", "schema": body.output_config.format.schema_}
        chat["response_format"] = {"type": "json_schema", "json_schema": schema}
    if isinstance(body, MessagesRequest):
        if body.stop_sequences:
            chat["stop"] = body.stop_sequences
        if body.metadata is not None and body.metadata.user_id is not None:
            chat["user"] = hashlib.sha256(body.metadata.user_id.encode("utf-8", "surrogatepass")).hexdigest()
    return chat, names


def _function(tool: CustomTool) -> Json:
    function: Json = {"name": tool.name, "parameters": tool.input_schema}
    optional = {"description": tool.description, "strict": tool.strict}
    return function | {name: value for name, value in optional.items() if value is not None}


def _choice(choice: ToolChoice) -> Json:
    if (choice.type == "tool") != (choice.name is not None):
        raise bad("tool_choice.name goes with the type tool, and no other", "tool_choice.name")
    named = {"type": "function", "function": {"name": choice.name}}
    kinds: dict[str, Any] = {"auto": "auto", "any": "required", "none": "none", "tool": named}
    return {"tool_choice": kinds[choice.type], "parallel_tool_calls": not choice.disable_parallel_tool_use}


def _system(body: CountRequest) -> Json | None:
    text = _joined(body.system)
    return {"role": "system", "content": text} if text else None


def _joined(content: Texts | None) -> str:
    """The text of blocks: each is a paragraph of its own."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n\n".join(block.text for block in content)


def _messages(body: CountRequest, names: dict[str, str], before: int) -> list[Json]:
    """The conversation as messages of a chat. Turns of one role in a row are one, and results are messages of their own.

    `names` gets the names here of their fields, whose first is the chat's message `before`.
    """
    messages: list[Json] = []
    for place, turn in enumerate(body.messages):
        blocks = [Block(type="text", text=turn.content)] if isinstance(turn.content, str) else turn.content
        if not blocks:
            raise bad(f"messages.{place}.content is empty: give a text", f"messages.{place}.content")
        for number, block in enumerate(blocks):
            where = f"messages.{place}.content.{number}"
            _check(block, turn.role, where)
            if block.type == "tool_result":
                text = _joined(block.content)
                shown = f"Error: {text}" if block.is_error and not text.startswith("Error: ") else text
                theirs = f"messages.{before + len(messages)}"
                names |= {theirs: where, f"{theirs}.tool_call_id": f"{where}.tool_use_id"}
                messages.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": shown})
                continue
            if not messages or messages[-1]["role"] != turn.role:
                names[f"messages.{before + len(messages)}"] = f"messages.{place}"
                messages.append({"role": turn.role})
            if block.type == "tool_use":
                called = len(messages[-1].get("tool_calls", ()))
                theirs = f"messages.{before + len(messages) - 1}.tool_calls.{called}"
                names |= {theirs: where, f"{theirs}.function": where, f"{theirs}.function.arguments": f"{where}.input"}
            _add(messages[-1], block)
    if messages[-1]["role"] == "assistant":
        place = len(body.messages) - 1
        raise bad(f"messages.{place} is the assistant's, and an answer that is begun is not continued: end with a "
                  "user's message", "messages")  # fmt: skip
    for message in messages:
        if message["role"] == "assistant":
            message.setdefault("content", "")
    return messages


def _check(block: Block, role: str, where: str) -> None:
    """Refuse fields that a block of this type does not have, and blocks that this role does not have."""
    if _ROLES.get(block.type, role) != role:
        raise bad(f"{where} is a {block.type} of the {role}: only the {_ROLES[block.type]} has such blocks", where)
    present = {name for name, value in block if value is not None} - {"type", "cache_control"}
    required = _REQUIRED[block.type]
    for name in required:
        if name not in present:
            raise bad(f"{where}.{name} is missing: a block of type {block.type} has it", f"{where}.{name}")
    for name in sorted(present.difference(required, _OPTIONAL[block.type])):
        raise bad(f"{where}.{name} does not belong to a block of type {block.type}", f"{where}.{name}")


def _add(message: Json, block: Block) -> None:
    """Add a block to the chat's message."""
    match block.type:
        case "text":
            message["content"] = f"{message['content']}\n\n{block.text}" if "content" in message else block.text
        case "thinking":
            message["reasoning_content"] = message.get("reasoning_content", "") + (block.thinking or "")
        case _:
            function = {"name": block.name, "arguments": canonical(block.input)}
            message.setdefault("tool_calls", []).append({"id": block.id, "type": "function", "function": function})
