"""Joins the pieces of a model's streamed answer into its text: chunks of OpenAI and LangChain, events of Anthropic."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from firsthand.message import Json

_EVENTS = (
    "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop",
    "ping", "text", "thinking", "signature", "citation",
)  # fmt: skip
"""Anthropic's; the last four are its SDK's own, which repeat what the others said."""
_CALLS = ("tool_use", "server_tool_use", "input_json_delta", "function_call", "custom_tool_call")


class Piece(NamedTuple):
    """Addition of one item of a stream to the answer."""

    text: str = ""
    ended: str = ""
    """Why the answer ended, in the provider's word."""
    is_joinable: bool = True
    """False of a call of a tool, or of one of several answers."""


class StreamedAnswer:
    """The answer whose pieces are the items of a stream, if all of them are."""

    def __init__(self, most_chars: int) -> None:
        self._most = most_chars
        self._texts: list[str] = []
        self._num_chars = 0
        self._num_pieces = self._num_others = 0
        self._is_joinable = True
        self.ended = ""
        """Why it ended; empty where the stream does not say it."""

    @property
    def is_open(self) -> bool:
        """True while an item may still be one of its pieces."""
        return self._is_joinable and not self._num_others

    @property
    def is_whole(self) -> bool:
        """True if all items were pieces of one answer in words."""
        return self.is_open and self._num_pieces > 0

    @property
    def is_broken(self) -> bool:
        """True if items were pieces of an answer that cannot be joined."""
        return self._num_pieces > 0 and not self.is_open

    def add(self, shown: str | None) -> None:
        """Take an item as JSON; None for a text, which is no piece."""
        found = piece_of(shown) if shown is not None and self.is_open else None
        if found is None:
            self._num_others += 1
            return
        self._num_pieces += 1
        self._is_joinable = found.is_joinable
        self.ended = found.ended or self.ended
        if found.text and self._num_chars <= self._most:
            self._texts.append(found.text[: self._most + 1])
            self._num_chars += len(found.text)

    def text(self) -> str:
        """The texts of its pieces."""
        return "".join(self._texts)


def piece_of(shown: str) -> Piece | None:
    """Return the addition of a stream's item, as JSON, to an answer; None if it is no piece of one."""
    if shown[:1] != "{":
        return None
    try:
        body = json.loads(shown)
    except (ValueError, RecursionError):
        return None
    kind = body.get("type")
    if body.get("object") in ("chat.completion.chunk", "text_completion"):
        return _of_choices(body.get("choices") or [])
    if kind in _EVENTS and "role" not in body and "content" not in body:
        return _of_event(body)
    if isinstance(kind, str) and kind.startswith("response."):
        return _of_response(kind, body)
    if isinstance(kind, str) and kind.endswith("MessageChunk"):
        return _of_langchain(body)
    return None


def _of_choices(choices: Any) -> Piece:
    if not isinstance(choices, list) or not all(isinstance(each, dict) for each in choices):
        return Piece(is_joinable=False)
    if not choices:  # the usage at the end
        return Piece()
    one: Json = choices[0]
    delta = _object(one, "delta") or {"content": one.get("text")}
    alone = (
        len(choices) == 1 and not one.get("index") and not delta.get("tool_calls") and not delta.get("function_call")
    )
    return Piece(_word(delta.get("content")) or _word(delta.get("refusal")), _word(one.get("finish_reason")), alone)


def _of_event(body: Json) -> Piece:
    delta = _object(body, "delta")
    block = _object(body, "content_block")
    is_words = delta.get("type") not in _CALLS and block.get("type") not in _CALLS
    if body["type"] == "content_block_delta":
        return Piece(_word(delta.get("text")), "", is_words)
    return Piece("", _word(delta.get("stop_reason")), is_words)


def _of_response(kind: str, body: Json) -> Piece:
    item = _object(body, "item")
    whole = _object(body, "response")
    details = _object(whole, "incomplete_details")
    said = _word(body.get("delta")) if kind in ("response.output_text.delta", "response.refusal.delta") else ""
    return Piece(said, _word(details.get("reason")), item.get("type") not in _CALLS)


def _of_langchain(body: Json) -> Piece:
    about = _object(body, "response_metadata")
    content = body.get("content")
    is_words = isinstance(content, str) and not body.get("tool_call_chunks") and not body.get("tool_calls")
    return Piece(_word(content), _word(about.get("finish_reason") or about.get("stop_reason")), is_words)


def _object(body: Json, name: str) -> Json:
    found = body.get(name)
    return found if isinstance(found, dict) else {}


def _word(value: Any) -> str:
    return value if isinstance(value, str) else ""
