"""Reads the output of a span: the messages in it, in any provider's layout, or the one text that it is.

A list of names, a table or a verdict is no list of messages: it is one answer, its JSON, from which nothing is lost.
"""

from __future__ import annotations

import json
from typing import Any

from firsthand.ingest.dialects.span_facts import MAX_MESSAGES, ROLES, one_message, parsed, shown
from firsthand.message import Json, Message, Text

_CONTENT = {"content", "parts", "blocks"}
_BESIDE_CONTENT = {"index", "finish_reason", "refusal", "annotations", "tool_calls"}
"""Fields of a message without a role."""
_PARTS = {
    "text", "output_text", "reasoning", "thinking", "tool_call", "tool_use", "function_call", "tool_call_response",
    "tool_result", "function_call_output",
}  # fmt: skip
_OF_COMPLETION = {"generation_info", "finish_reason", "logprobs"}
"""Fields beside the text of a completion."""
_HOLDERS = ("messages", "output", "choices", "generations")
_ASKED = {"input", "question", "query", "prompt", "history", "chat_history"}
"""Keys under which a chain gives back what it was asked."""
_EVIDENCE = {
    "context", "sources", "source_documents", "documents", "source_nodes", "retrieved_documents", "citations",
    "intermediate_steps",
}  # fmt: skip
"""Keys under which it gives what its answer rests on."""
_SAID = {"output", "answer", "response", "result", "text", "message", "content", "completion"}
"""Keys under which it gives its answer."""


def answers_in(value: Any, *, of_model: bool = False) -> list[Message]:
    """The messages of an output; one that is none is a single answer, as it came or as JSON.

    Of a chain's `{"query": ..., "result": ...}`, what it was asked and one text, the text is the answer, also beside
    its sources. What a model wrote (`of_model`) may be JSON, and stays it.
    """
    if value in (None, ""):
        return []
    found = parsed(value)
    said = _messages(found)
    if not said:
        text = _only(found) if isinstance(found, dict) and not of_model else None
        said = [Message("assistant", (Text(text if isinstance(text, str) else shown(value)),))]
    return [Message("assistant", each.parts) if each.role == "user" else each for each in said]


def unquoted(value: Any) -> Any:
    """The text that a value is in JSON, as in `"Rome"` with its quotation marks; any other value as it is."""
    if not isinstance(value, str) or not value[:1] == value[-1:] == '"':
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _messages(value: Any) -> list[Message]:
    """The messages of a list, of an object that holds a list of them, or of one message; empty for anything else."""
    if isinstance(value, dict):
        for name in _HOLDERS:
            if isinstance(value.get(name), list) and (said := _messages(value[name])):
                return said
        if _is_message(value) or _is_bare(value):
            return [_message(value)]
        only = _only(value)
        return [_message(only)] if _is_message(only) else []
    if isinstance(value, list) and value and isinstance(value[0], list):  # LangChain: a list of conversations
        value = value[0]
    if not isinstance(value, list) or not value:
        return []
    if all(_is_part(each) and "role" not in each for each in value):
        return [one_message({"role": "assistant", "content": value})]
    if all(_is_message(each) or _is_part(each) for each in value):  # OpenAI's responses have both
        return [_message(each) for each in value[-MAX_MESSAGES:]]
    return []


def _is_message(body: Any) -> bool:
    """True for a message of a named role, a choice that holds one, and a completion."""
    if not isinstance(body, dict):
        return False
    if isinstance(body.get("message"), dict):
        body = body["message"]
        if _is_bare(body):
            return True
    if "lc" in body:
        return isinstance(body.get("kwargs"), dict)
    if isinstance(body.get("text"), str) and body.keys() & _OF_COMPLETION:
        return True
    role = str(body.get("role") or body.get("type")).lower().removesuffix("messagechunk")
    data = body.get("data")
    has_content = bool(body.keys() & (_CONTENT | {"tool_calls"})) or (isinstance(data, dict) and "content" in data)
    return role in ROLES and has_content


def _is_bare(body: Json) -> bool:
    """True for a message that names no role, and is nothing else."""
    return bool(body.keys() & _CONTENT) and body.keys() <= _CONTENT | _BESIDE_CONTENT


def _is_part(body: Any) -> bool:
    return isinstance(body, dict) and body.get("type") in _PARTS


def _message(body: Json) -> Message:
    if _is_part(body) and "role" not in body:
        body = {"role": "assistant", "content": [body]}
    elif (
        isinstance(body.get("text"), str) and body.keys() & _OF_COMPLETION and not isinstance(body.get("message"), dict)
    ):
        body = {"role": "assistant", "content": body["text"]}
    return one_message(body)


def _only(value: Json) -> Any:
    """The answer in an object whose other fields hold the question, and what the answer rests on, alone; or else None."""
    left = [name for name in value if name not in _ASKED | _EVIDENCE]
    return value[left[0]] if len(left) == 1 and left[0] in _SAID else None
