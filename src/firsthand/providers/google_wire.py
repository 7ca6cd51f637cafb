"""Converts requests to, and replies from, Google's Gemini API (`generateContent`).

Plain data in and out, no network. A reply is untrusted: any content becomes a Completion or a ModelError. Thoughts are kept,
and so is each part's thought signature, which goes back with the part: Gemini refuses a function call without it. Not
included: images, audio, code that runs on the server, and several candidates in one reply.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any

from firsthand.message import Json, Message, Part, Reasoning, Text, ToolCall, ToolResult
from firsthand.model import CallDelta, Completion, Sampling, ToolSpec, Usage
from firsthand.providers.demanded_calls import demands_calls
from firsthand.providers.finish_reasons import finish_reason
from firsthand.providers.openai_wire import CallReader, Unreadable, clean, says_something
from firsthand.providers.reported_usage import count, json_object

_SIGNATURE = "thoughtSignature"
_USAGE = "usageMetadata"
SUPPORTED = (
    "max_tokens", "temperature", "top_k", "top_p", "presence_penalty", "frequency_penalty", "seed", "stop",
    "tool_choice", "strict_tools",
)  # fmt: skip
"""Settings that a request may have."""


def config(conversation: Sequence[Message], sampling: Sampling, tools: Sequence[ToolSpec]) -> Json:
    """Returns the SDK's config of a request for one answer: settings, tools and the opening system messages."""
    body: Json = {
        "max_output_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "automatic_function_calling": {"disable": True},
        "automatic_continuation": False,
    }
    if sampling.temperature > 0:
        body["top_p"] = sampling.top_p
    neutral = {"presence_penalty": 0, "frequency_penalty": 0, "top_k": 0}
    body |= {name: getattr(sampling, name) for name, none in neutral.items() if getattr(sampling, name) != none}
    if sampling.seed is not None:
        body["seed"] = sampling.seed % 2**31  # the field has 32 bits, signed
    if sampling.stop:
        body["stop_sequences"] = list(sampling.stop)
    if system := "\n\n".join(message.text for message in _opening(conversation) if message.text):
        body["system_instruction"] = system
    if tools:
        declared = [
            {"name": spec.name, "description": spec.description, "parametersJsonSchema": spec.parameters}
            for spec in tools
        ]
        body["tools"] = [{"function_declarations": declared}]
    if demands_calls(sampling, tools):
        named = {} if sampling.tool_choice == "required" else {"allowed_function_names": [sampling.tool_choice]}
        body["tool_config"] = {"function_calling_config": {"mode": "ANY", **named}}
    elif any(spec.name in sampling.strict_tools for spec in tools):
        body["tool_config"] = {"function_calling_config": {"mode": "VALIDATED"}}  # calls fit schemas; none is demanded
    if sampling.grammar is not None:
        schema = sampling.grammar.parsed()
        body["response_mime_type"] = "application/json"
        if schema is not True:
            body["response_json_schema"] = {"not": {}} if schema is False else schema
    return body


def contents(conversation: Sequence[Message]) -> list[Json]:
    """Returns the turns after the opening system messages. Turns of one role in a row are one turn; an empty one is none."""
    turns: list[Json] = []
    for message in conversation[len(_opening(conversation)) :]:
        role = "model" if message.role == "assistant" else "user"
        if not (parts := list(_parts(message.parts, is_model=role == "model"))):
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["parts"] += parts
        else:
            turns.append({"role": role, "parts": parts})
    return turns


def _opening(conversation: Sequence[Message]) -> list[Message]:
    return list(takewhile(lambda message: message.role == "system", conversation))


def _parts(parts: Iterable[Part], *, is_model: bool) -> Iterable[Json]:
    """Yields the parts of a turn, each with the signature that was kept before it."""
    signature: Json = {}
    for part in parts:
        match part:
            case Reasoning(_, state):
                signature = {_SIGNATURE: state[_SIGNATURE]} if is_model and _SIGNATURE in state else {}
                continue
            case Text(text):
                body: Json = {"text": text}
            case ToolCall(id, name, arguments):  # broken arguments are sent as {}: the tool's result quotes them
                body = {"functionCall": {"id": id, "name": name, "args": arguments}}
            case ToolResult(call_id, name, content, is_error):
                told = {"error" if is_error else "result": content}
                body = {"functionResponse": {"id": call_id, "name": name, "response": told}}
        if body != {"text": ""} or signature:
            yield body | signature
        signature = {}


def read_completion(body: Json) -> Completion:
    """Returns the answer in a reply, or in the joined chunks of a stream; FailedAnswer if its generation failed."""
    candidates = body.get("candidates")
    blocked = json_object(body.get("promptFeedback")).get("blockReason")
    if blocked and not candidates:
        return Completion(Message("assistant", (Text(""),)), "content_filter", read_usage(body.get(_USAGE)))
    if not isinstance(candidates, list) or not candidates or not isinstance(candidates[0], dict):
        raise Unreadable(
            "its reply holds no candidates but ", ", ".join(body), ": check that it speaks the Gemini API", 80
        )
    wired = json_object(candidates[0].get("content")).get("parts")
    parts: list[Part] = []
    reader = CallReader()
    for part in map(json_object, wired if isinstance(wired, list) else []):
        parts += _read_part(part, reader)
    calls = any(isinstance(part, ToolCall) for part in parts)
    has_answer = any(isinstance(part, Text | ToolCall) and part != Text("") for part in parts)
    if not any(isinstance(part, Text | ToolCall) for part in parts):
        parts.append(Text(""))
    given = "content_filter" if blocked else candidates[0].get("finishReason")  # blocked in the middle of a stream
    return Completion(
        message=Message("assistant", tuple(parts)),
        finish_reason=finish_reason(given, has_answer=has_answer, calls=calls, error=candidates[0].get("error")),
        usage=read_usage(body.get(_USAGE)),
    )


def read_usage(body: Any) -> Usage:
    """Returns the token counts of a reply; missing or invalid ones are 0. Thoughts are charged as tokens of the answer."""
    body = json_object(body)
    prompt = count(body.get("promptTokenCount")) + count(body.get("toolUsePromptTokenCount"))
    answer = count(body.get("candidatesTokenCount")) + count(body.get("thoughtsTokenCount"))
    return Usage(prompt, min(count(body.get("cachedContentTokenCount")), prompt), answer)


def _read_part(part: Json, reader: CallReader) -> list[Part]:
    text, call, signature = part.get("text"), part.get("functionCall"), part.get(_SIGNATURE)
    kept: Json = {_SIGNATURE: clean(signature)} if isinstance(signature, str) and signature else {}
    if part.get("thought") is True:
        return [Reasoning(clean(text) if isinstance(text, str) else "", kept)]
    found: list[Part] = [Reasoning("", kept)] if kept else []
    if isinstance(call, dict):
        found.append(_call(call, reader))
    elif isinstance(text, str) and (text or kept):
        found.append(Text(clean(text)))
    return found


def _call(call: Json, reader: CallReader) -> ToolCall:
    return reader.read({"id": call.get("id"), "function": {"name": call.get("name"), "arguments": call.get("args")}})


def brings_content(chunk: Json) -> bool:
    """True if a chunk of a stream has a part with text, a thought or a call; an end and counts are none."""
    candidates = chunk.get("candidates")
    said = [json_object(candidate).get("content") for candidate in candidates] if isinstance(candidates, list) else []
    parts = [json_object(content).get("parts") for content in said]
    return any(says_something(part) for each in parts if isinstance(each, list) for part in each)


class CandidateStream:
    """Assembles an answer from the chunks of a stream."""

    def __init__(self) -> None:
        self._parts: list[Json] = []
        self._texts: list[list[str]] = []
        """The pieces of each part's text, joined at the end: joining each time takes the square of their number."""
        self._calls = CallReader()
        self._body: Json = {}
        self._finish: Any = None
        self._pieces: list[CallDelta] = []

    @property
    def finished(self) -> bool:
        """True once a chunk has said why the answer ended, or that the prompt was refused."""
        blocked = json_object(self._body.get("promptFeedback")).get("blockReason")
        return self._finish is not None or bool(blocked)

    def add(self, chunk: Json) -> str:
        """Returns the text that a chunk adds."""
        counts = json_object(self._body.get(_USAGE)) | {
            key: value for key, value in json_object(chunk.get(_USAGE)).items() if value
        }  # some gateways leave some out at the end, or state zeros
        self._body |= {key: value for key, value in chunk.items() if key != "candidates" and value}
        if counts:
            self._body[_USAGE] = counts
        candidates = chunk.get("candidates")
        candidate = json_object(candidates[0]) if isinstance(candidates, list) and candidates else {}
        self._finish = candidate.get("finishReason") or self._finish
        parts = json_object(candidate.get("content")).get("parts")
        told = []
        for part in map(json_object, parts if isinstance(parts, list) else []):
            self._join(part)
            if part.get("thought") is True:
                continue
            if isinstance(part.get("functionCall"), dict):
                number = self._calls.number
                call = _call(part["functionCall"], self._calls)
                self._pieces.append(
                    CallDelta(number, call.id, call.name, json.dumps(call.arguments, ensure_ascii=False))
                )
            elif isinstance(part.get("text"), str):
                told.append(clean(part["text"]))
        return "".join(told)

    def take_calls(self) -> list[CallDelta]:
        """Returns the tool calls since the last call."""
        pieces, self._pieces = self._pieces, []
        return pieces

    @property
    def usage(self) -> Usage:
        """The usage that the endpoint has reported for the answer so far."""
        return read_usage(self._body.get(_USAGE))

    def completion(self) -> Completion:
        """Returns the whole answer."""
        if not self._parts and self._finish is None:
            return read_completion(self._body)
        parts = [
            part | ({"text": "".join(texts)} if texts else {})
            for part, texts in zip(self._parts, self._texts, strict=True)
        ]
        candidate = {"content": {"parts": parts}, "finishReason": self._finish}
        return read_completion(self._body | {"candidates": [candidate]})

    def _join(self, part: Json) -> None:
        """Add a part; text goes on in the text before it, unless that has its signature already."""
        last = self._parts[-1] if self._parts else {}
        text = part.get("text")
        goes_on = isinstance(last.get("text"), str)
        if isinstance(text, str) and goes_on and last.get("thought") == part.get("thought") and _SIGNATURE not in last:
            last |= part
            self._texts[-1].append(text)
        else:
            self._parts.append(dict(part))
            self._texts.append([text] if isinstance(text, str) else [])
