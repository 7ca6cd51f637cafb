"""Converts messages to the dicts that chat templates read, and to text where a template lacks a feature.

The dicts have OpenAI's format. A template without a system role gets the system text in the next user turn; one without
tools gets them described in the system prompt as in Hermes (NousResearch), with calls and results in tags. A model
without a template uses ChatML, or plain text if its vocabulary has no ChatML.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import takewhile

from firsthand.message import Json, Message, Reasoning, Role, Text, ToolCall, ToolResult
from firsthand.model import ToolSpec
from firsthand.tokens.calls.thought_text import CLOSE, OPEN, ThoughtText

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN = (
    "{{ bos_token if add_bos else '' }}{% for message in messages %}{% if message.role == 'system' %}{{ message.content }}"
    "{{ '\n\n' }}{% else %}{{ message.role | capitalize }}: {{ message.content }}{{ '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""For base models: `User: ...` and `Assistant: ...` lines after the system text."""


_REASONING = ("reasoning_content", "reasoning", "thinking")
"""The fields that templates read reasoning from: Qwen3's the first, gpt-oss's the last."""


def to_dicts(message: Message, *, short_ids: bool = False, reasoning: bool = False, apart: bool = False) -> list[Json]:
    """Returns a message in OpenAI's format: one dict, or one per tool result.

    `short_ids` makes call ids of 9 characters. With `reasoning` its reasoning is in each field that templates read; with
    `apart` so is the thought that an assistant's text begins with, which is not in the content then.
    """
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    rest = "".join(part.text for part in message.parts if isinstance(part, Text))
    dicts: list[Json] = []
    if message.tool_calls or rest or not results:
        dicts.append({"role": message.role, "content": rest})
    if reasoning and (thought := "".join(part.text for part in message.parts if isinstance(part, Reasoning))):
        dicts[0] |= dict.fromkeys(_REASONING, thought)
    if apart and message.role == "assistant" and dicts:
        dicts[0] |= _thought_apart(rest, bool(message.tool_calls))
    if message.tool_calls:
        dicts[0]["tool_calls"] = [_call(call, short_ids) for call in message.tool_calls]
    for result in results:
        dicts.append(
            {
                "role": "tool",
                "content": result.content,
                "name": result.name,
                "tool_call_id": _short(result.call_id) if short_ids else result.call_id,
            }
        )
    return dicts


def _thought_apart(text: str, calls: bool) -> Json:
    """Returns the content and the thought of an assistant's text; before a call the whole text is the thought."""
    follower = ThoughtText()
    tagged, rest = map("".join, zip(follower.feed(text), follower.finish(), strict=True))
    thought = tagged.strip().removeprefix(OPEN).removesuffix(CLOSE).strip("\n")
    if not thought:
        return {"content": rest.lstrip("\n") if tagged.strip() else text}
    rest = rest.lstrip("\n")
    if calls and rest.strip():
        thought, rest = f"{thought}\n\n{rest}", ""
    return {"content": rest} | dict.fromkeys(_REASONING, thought)


def with_one_call_each(groups: Sequence[list[Json]], sampled: Sequence[bool]) -> list[list[Json]]:
    """Returns the dicts of messages, each call of one that was not sampled here in a dict of its own before its result.

    Harmony's template renders the first call of a message, and takes a result for that of the call before it.
    """
    split = [list(group) for group in groups]
    for at, group in enumerate(split):
        calls = group[0].get("tool_calls", []) if group else []
        if len(calls) < 2 or sampled[at]:
            continue
        following = list(takewhile(lambda later: later and later[0]["role"] == "tool", split[at + 1 :]))
        parts: list[Json] = []
        for place, call in enumerate(calls):
            head = {"role": "assistant", "content": ""} if place else group[0]
            parts.append({**head, "tool_calls": [call]})
            for later in following:
                parts += [each for each in later if each.get("tool_call_id") == call["id"]]
                later[:] = [each for each in later if each.get("tool_call_id") != call["id"]]
        split[at] = parts
    return split


def with_tools_in_text(messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[Message]:
    """Returns the conversation with tools, calls and results written in Hermes's tags, one message for each message.

    Only a system message that describes the tools may be added in front.
    """
    tagged = [_with_tags(message) for message in messages]
    if not tools:
        return tagged
    section = _tools_section(tools)
    if tagged and tagged[0].role == "system":
        return [Message("system", (Text(f"{tagged[0].text}\n\n{section}"),)), *tagged[1:]]
    return [Message("system", (Text(section),)), *tagged]


def with_system_folded(messages: Sequence[Message]) -> list[Message | None]:
    """Returns the conversation with system text moved to the next user turn; None marks a message moved away."""
    folded: list[Message | None] = []
    waiting: list[str] = []
    for message in messages:
        if message.role == "system":
            waiting.append(message.text)
            folded.append(None)
        elif waiting and message.role == "user":
            folded.append(Message("user", (Text("\n\n".join([*waiting, message.text])),)))
            waiting = []
        else:
            folded.append(message)
    if waiting and folded:  # no user turn follows: the text becomes one
        folded[-1 if folded[-1] is None else folded.index(None)] = Message("user", (Text("\n\n".join(waiting)),))
    return folded


def digests(messages: Sequence[Message], seed: bytes) -> Iterator[bytes]:
    """Yields, for each prefix of the conversation from the empty one on, a hash of all that decides its ids."""
    digest = hashlib.sha256(seed).digest()
    yield digest
    for message in messages:
        body = Message(message.role, message.parts).to_json()
        if message.sampled is not None and message.is_as_sampled:
            body["ids"] = message.sampled.token_ids
        text = json.dumps(body, sort_keys=True).encode()
        digest = hashlib.sha256(digest + text).digest()
        yield digest


def _with_tags(message: Message) -> Message:
    pieces: list[str] = []
    role: Role = "user" if message.role == "tool" else message.role
    for part in message.parts:
        match part:
            case Text(text):
                pieces.append(text)
            case ToolCall(_, name, arguments, invalid):
                body = (
                    invalid
                    if invalid is not None
                    else json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
                )
                pieces.append(f"<tool_call>\n{body}\n</tool_call>")
            case ToolResult(content=content):
                pieces.append(f"<tool_response>\n{content}\n</tool_response>")
    return Message(role, (*(part for part in message.parts if isinstance(part, Reasoning)), Text("\n".join(pieces))))


def _tools_section(tools: Sequence[ToolSpec]) -> str:
    schemas = "\n".join(json.dumps(tool.to_json(), ensure_ascii=False) for tool in tools)
    return (
        "You may call one or more functions to help with the user's request. Their JSON schemas are within "
        f"<tools></tools>:\n<tools>\n{schemas}\n</tools>\n\n"
        "To call a function, reply with its name and arguments as a JSON object within <tool_call></tool_call>:\n"
        '<tool_call>\n{"name": "<function name>", "arguments": {<its arguments>}}\n</tool_call>'
    )


def _call(call: ToolCall, short_ids: bool) -> Json:
    arguments: object = call.arguments if call.invalid is None else {"invalid": call.invalid}
    return {
        "type": "function",
        "id": _short(call.id) if short_ids else call.id,
        "function": {"name": call.name, "arguments": arguments},
    }


def _short(id: str) -> str:
    """Returns nine letters and digits, as Mistral's templates require."""
    return hashlib.sha256(id.encode("utf-8", "replace")).hexdigest()[:9]
