"""Messages as the dicts that chat templates read, and as text where a template cannot say something.

The dicts have OpenAI's shape. A template without a system role gets the system's words in the next user turn; one that
does not know tools gets them described in the system prompt, the way of Hermes (NousResearch), with calls and results in
tags. Without any template a conversation is ChatML, or plain text where the vocabulary has no ChatML.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence

from firsthand.message import Json, Message, Role, Text, ToolCall, ToolResult
from firsthand.model import ToolSpec

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN = (
    "{{ bos_token if add_bos else '' }}{% for message in messages %}{% if message.role == 'system' %}{{ message.content }}"
    "{{ '\n\n' }}{% else %}{{ message.role | capitalize }}: {{ message.content }}{{ '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""For base models: `User: ...` and `Assistant: ...` lines, the system's words before them."""


def to_dicts(message: Message, *, short_ids: bool = False) -> list[Json]:
    """A message in OpenAI's shape: one dict, or one for each tool result. `short_ids` makes call ids of 9 characters."""
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    rest = "".join(part.text for part in message.parts if isinstance(part, Text))
    dicts: list[Json] = []
    if message.tool_calls or rest or not results:
        dicts.append({"role": message.role, "content": rest})
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


def with_tools_in_text(messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[Message]:
    """The conversation with tools, calls and results written out in Hermes's tags, message for message the same length.

    Only a system message may be added in front, where there was none to describe the tools in.
    """
    told = [_with_tags(message) for message in messages]
    if not tools:
        return told
    section = _tools_section(tools)
    if told and told[0].role == "system":
        return [Message("system", (Text(f"{told[0].text}\n\n{section}"),)), *told[1:]]
    return [Message("system", (Text(section),)), *told]


def with_system_folded(messages: Sequence[Message]) -> list[Message | None]:
    """The conversation with system words at the front of the next user turn; None stands for a message folded away."""
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
    if waiting and folded:  # no user turn follows: the words make one themselves
        folded[-1 if folded[-1] is None else folded.index(None)] = Message("user", (Text("\n\n".join(waiting)),))
    return folded


def digests(messages: Sequence[Message], seed: bytes) -> Iterator[bytes]:
    """For each prefix of the conversation, from the empty one on, a hash of all that decides its ids."""
    digest = hashlib.sha256(seed).digest()
    yield digest
    for message in messages:
        body = Message(message.role, message.parts).to_json()
        if message.sampled is not None:
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
    return Message(role, (Text("\n".join(pieces)),), message.sampled)


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
    """Nine letters and digits, as Mistral's templates insist."""
    return hashlib.sha256(id.encode("utf-8", "replace")).hexdigest()[:9]
