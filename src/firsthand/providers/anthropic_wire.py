"""Converts requests to, and replies from, Anthropic's Messages API (version 2026-10-21).

Plain data in and out, no network. A reply is untrusted: any content becomes a Completion or a ModelError. Reasoning is kept
with its signature, and goes back unchanged. Not included: images, documents, citations, and tools that run on the server.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any

from firsthand.errors import ConfigError
from firsthand.message import Json, Message, Part, Reasoning, Text, ToolCall, ToolResult
from firsthand.model import CallDelta, Completion, Sampling, ToolSpec, Usage
from firsthand.providers.demanded_calls import demands_calls
from firsthand.providers.finish_reasons import finish_reason
from firsthand.providers.openai_wire import (
    CallReader,
    Unreadable,
    arguments_text,
    check_number_of_calls,
    clean,
)
from firsthand.providers.reported_usage import count, json_object

_THINKING = ("thinking", "redacted_thinking")
_PROMPT = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
"""The counts that are those of the prompt together."""
SUPPORTED = ("max_tokens", "temperature", "seed", "stop", "tool_choice", "parallel_tool_calls", "strict_tools")
"""Settings that a request may have. Temperature and seed have no field: the API samples as the model's makers set it."""


def request(
    model: str, conversation: Sequence[Message], sampling: Sampling, tools: Sequence[ToolSpec], *, stream: bool
) -> Json:
    """Returns the body of a request for one answer."""
    if blank := [stop for stop in sampling.stop if not stop.strip()]:
        raise ConfigError(f"the stop string {blank[0]!r} is white space, which Anthropic's API refuses: leave it out")
    opening = list(takewhile(lambda message: message.role == "system", conversation))
    body: Json = {
        "model": model,
        "max_tokens": sampling.max_tokens,
        "messages": messages(conversation[len(opening) :]),
    }
    if system := "\n\n".join(message.text for message in opening if message.text):
        body["system"] = system
    must_call = demands_calls(sampling, tools)
    if tools:
        body["tools"] = [_tool(spec, is_strict=spec.name in sampling.strict_tools) for spec in tools]
        if must_call or not sampling.parallel_tool_calls:
            body["tool_choice"] = _choice(sampling)
    elif called := {call.name: None for message in conversation for call in message.tool_calls}:
        # Calls in a conversation need their tools beside it, also where no more may follow.
        body["tools"] = [{"name": name, "input_schema": {"type": "object"}} for name in called]
        body["tool_choice"] = {"type": "none"}
    if sampling.stop:
        body["stop_sequences"] = list(sampling.stop)
    if sampling.grammar is not None:
        schema = sampling.grammar.parsed()
        if isinstance(schema, bool):
            schema = {} if schema else {"not": {}}
        body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    if stream:
        body["stream"] = True
    return body


def _tool(spec: ToolSpec, *, is_strict: bool) -> Json:
    body = {"name": spec.name, "description": spec.description, "input_schema": spec.parameters}
    return {**body, "strict": True} if is_strict else body


def _choice(sampling: Sampling) -> Json:
    kinds: dict[str, Json] = {"auto": {"type": "auto"}, "required": {"type": "any"}}
    choice = kinds.get(sampling.tool_choice, {"type": "tool", "name": sampling.tool_choice})
    return choice if sampling.parallel_tool_calls else {**choice, "disable_parallel_tool_use": True}


def messages(conversation: Iterable[Message]) -> list[Json]:
    """Returns the `messages` field. Turns of one role in a row are one turn; an empty one is none."""
    turns: list[Json] = []
    for message in conversation:
        role = "user" if message.role == "tool" else message.role
        if not (blocks := [block for part in message.parts if (block := _block(part, role)) is not None]):
            continue
        if turns and turns[-1]["role"] == role and role != "system":
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    for turn in turns:  # results answer the calls before them, so they come first
        turn["content"].sort(key=lambda block: turn["role"] == "user" and block["type"] != "tool_result")
    if turns and turns[-1]["role"] == "assistant" and turns[-1]["content"][-1]["type"] == "text":
        last = turns[-1]["content"][-1]
        last["text"] = last["text"].rstrip()  # white space at the end of an answer to go on with is refused
    return turns


def _block(part: Part, role: str) -> Json | None:
    match part:
        case Text(text):
            return {"type": "text", "text": text} if text.strip() else None
        case ToolCall(id, name, arguments):  # broken arguments are sent as {}: the tool's result quotes them
            return {"type": "tool_use", "id": id, "name": name, "input": arguments}
        case ToolResult(call_id, _, content, is_error):
            block: Json = {"type": "tool_result", "tool_use_id": call_id, "content": content}
            return block | {"is_error": True} if is_error else block
        case Reasoning(_, state):
            return state if role == "assistant" and state.get("type") in _THINKING else None


def read_completion(body: Json) -> Completion:
    """Returns the answer in a reply."""
    blocks = body.get("content")
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise Unreadable(
            "its reply holds no content but ", ", ".join(body), ": check that it speaks Anthropic's API", 80
        )
    reader = CallReader()
    parts = [part for i, block in enumerate(blocks) if (part := _part(block, i, reader)) is not None]
    calls = any(isinstance(part, ToolCall) for part in parts)
    has_answer = any(isinstance(part, Text | ToolCall) for part in parts)
    if not has_answer:
        parts.append(Text(""))
    stopped = body.get("stop_sequence")
    return Completion(
        message=Message("assistant", tuple(parts)),
        finish_reason=finish_reason(
            body.get("stop_reason"), has_answer=has_answer, calls=calls, error=body.get("error")
        ),
        usage=read_usage(body.get("usage")),
        stop_string=clean(stopped) if isinstance(stopped, str) else None,
    )


def read_usage(body: Any) -> Usage:
    """Returns the token counts of a reply; missing or invalid ones are 0. What the cache read or took is of the prompt."""
    body = json_object(body)
    read, written = count(body.get("cache_read_input_tokens")), count(body.get("cache_creation_input_tokens"))
    return Usage(
        count(body.get("input_tokens")) + read + written,
        read,
        count(body.get("output_tokens")),
        cache_write_tokens=written,
    )


def _part(block: Json, position: int, reader: CallReader) -> Part | None:
    kind = block.get("type")
    if kind == "text":
        text = block.get("text")
        return Text(clean(text)) if isinstance(text, str) and text else None
    if kind == "tool_use":
        return reader.read(
            {"id": block.get("id"), "function": {"name": block.get("name"), "arguments": block.get("input")}}, position
        )
    if kind in _THINKING:
        text = block.get("thinking")
        state = {key: clean(value) for key, value in block.items() if isinstance(value, str)}
        return Reasoning(clean(text) if isinstance(text, str) else "", state)
    return None  # a block of a tool that runs on the server, which was not asked for


class MessageStream:
    """Assembles an answer from the events of a stream."""

    def __init__(self) -> None:
        self.finished = False
        self._blocks: dict[int, Json] = {}
        self._written: dict[int, dict[str, list[str]]] = {}
        """The pieces of each block's fields, joined at the end: joining each time takes the square of their number."""
        self._keys: dict[int, int] = {}
        """The key of a block whose index had a block before: some gateways give each block the index 0."""
        self._next_key = 0
        self._calls: list[int] = []
        """The keys of the blocks that are tool calls, in order."""
        self._usage: Json = {}
        self._stop: Any = None
        self._stop_sequence: Any = None
        self._pieces: list[CallDelta] = []

    def add(self, event: Json) -> str:
        """Returns the text that an event adds."""
        kind, index = event.get("type"), count(event.get("index"))
        if kind == "message_start":
            self._count(json_object(event.get("message")).get("usage"))
        elif kind == "content_block_start":
            block = dict(json_object(event.get("content_block")))
            if self._keys.get(index, index) in self._blocks:
                self._keys[index] = self._next_key
            index = self._keys.get(index, index)
            self._keep(index, block)
            if block.get("type") == "tool_use":
                self._note_call(index)
                block["input"] = block.get("input") or ""  # it comes as pieces of JSON, or from some gateways whole
                name = block.get("name")
                if isinstance(name, str) and name:
                    self._pieces.append(CallDelta(self._place(index), str(block.get("id") or f"call_{index}"), name))
            text = block.get("text")
            return clean(text) if block.get("type") == "text" and isinstance(text, str) else ""
        elif kind == "content_block_delta":
            return self._add_delta(self._keys.get(index, index), json_object(event.get("delta")))
        elif kind == "content_block_stop":
            self._show_whole(self._keys.get(index, index))
        elif kind == "message_delta":
            self._count(event.get("usage"))
            delta = json_object(event.get("delta"))
            self._stop = delta.get("stop_reason") or self._stop
            self._stop_sequence = delta.get("stop_sequence") or self._stop_sequence
        elif kind == "message_stop":
            self.finished = True
        return ""

    def take_calls(self) -> list[CallDelta]:
        """Returns the pieces of tool calls since the last call."""
        pieces, self._pieces = self._pieces, []
        return pieces

    @property
    def usage(self) -> Usage:
        """The usage that the endpoint has reported for the answer so far."""
        return read_usage(self._usage)

    def completion(self) -> Completion:
        """Returns the whole answer."""
        blocks = [block | self._joined(index) for index, block in sorted(self._blocks.items())]
        ended = {"stop_reason": self._stop, "stop_sequence": self._stop_sequence}
        return read_completion({"content": blocks, **ended, "usage": self._usage})

    def _count(self, usage: Any) -> None:
        """Take over the counts that an event states. They only grow: some gateways leave some out at the end or state 0.

        Those of the prompt are one count: a later event may divide it otherwise between the cache and the rest.
        """
        stated = self._usage | {key: count(value) for key, value in json_object(usage).items() if value is not None}
        before, after = read_usage(self._usage), read_usage(stated)
        if after.prompt_tokens < before.prompt_tokens:
            stated |= {key: self._usage.get(key, 0) for key in _PROMPT}
        self._usage = stated | {"output_tokens": max(before.completion_tokens, after.completion_tokens)}

    def _add_delta(self, index: int, delta: Json) -> str:
        if index not in self._blocks:
            self._keep(index, {"type": "text", "text": ""})
        block = self._blocks[index]
        for kind, field, into in (
            ("text_delta", "text", "text"),
            ("input_json_delta", "partial_json", "input"),
            ("thinking_delta", "thinking", "thinking"),
            ("signature_delta", "signature", "signature"),
        ):
            piece = delta.get(field)
            if delta.get("type") != kind or not isinstance(piece, str) or (into == "input" and not piece):
                continue
            written = self._written.setdefault(index, {})
            if into not in written:
                so_far = block.get(into)
                written[into] = [so_far if isinstance(so_far, str) and into != "input" else ""]
            written[into].append(piece)
            if kind == "input_json_delta" and block.get("type") == "tool_use":
                self._pieces.append(CallDelta(self._place(index), arguments=piece))
            return clean(piece) if kind == "text_delta" else ""
        return ""

    def _show_whole(self, index: int) -> None:
        """Show the arguments of a call that came whole, where no pieces have replaced them."""
        block = self._blocks.get(index, {})
        if block.get("type") == "tool_use" and block["input"] and "input" not in self._written.get(index, {}):
            self._pieces.append(CallDelta(self._place(index), arguments=arguments_text(block["input"])))

    def _place(self, index: int) -> int:
        """Returns the number of a call within the answer."""
        return bisect_left(self._calls, index)

    def _keep(self, key: int, block: Json) -> None:
        self._blocks[key] = block
        self._next_key = max(self._next_key, key + 1)

    def _note_call(self, key: int) -> None:
        check_number_of_calls(len(self._calls))
        self._calls.insert(self._place(key), key)

    def _joined(self, index: int) -> Json:
        return {field: "".join(pieces) for field, pieces in self._written.get(index, {}).items()}
