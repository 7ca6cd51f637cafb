"""Reads the channels of Harmony, the format of gpt-oss: an answer is several messages, each with a channel.

| message | is shown as |
|---|---|
| `<|channel|>analysis<|message|>` ... | the thought that the text begins with, between `<think>` and `</think>` |
| `<|channel|>final<|message|>` ..., `<|channel|>commentary<|message|>` ... | text |
| `<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>` ... | a tool call |

Channels are known by their tokens: text that spells one is text. `HarmonyText` reads tokens, `HarmonyCallStream` finds the
calls in the text that it wrote. An analysis after text or a call is left out.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import NamedTuple

from firsthand.message import Json, ToolCall
from firsthand.model import CallDelta
from firsthand.tokens.calls.call_source import CallSink
from firsthand.tokens.calls.thought_stream import ThoughtStream
from firsthand.tokens.calls.thought_text import CLOSE, OPEN
from firsthand.tokens.tokenizer import CHANNEL_TOKENS, Tokenizer
from firsthand.tool_arguments import loads_arguments

_CALL, _NAMED, _CALLED = "\ufdd0", "\ufdd1", "\ufdd2"
"""Stand before a call, behind its name, and behind its arguments: noncharacters, which the model's own text may not have."""
_NO_MARKS = str.maketrans(dict.fromkeys((_CALL, _NAMED, _CALLED), "\ufffd"))
_MARKS = re.compile(f"([{_CALL}{_NAMED}{_CALLED}])")
_TO = re.compile(r"(?:^|\s)to=(\S{1,256})")
_ROLES = ("assistant", "user")
"""Recipients that are no tools: a model that writes a tool's result itself addresses it to the assistant."""
_MAX_HEADER = 1024


class HarmonyPiece(NamedTuple):
    """Text of an answer, or what was put between its messages, in which no stop string is sought."""

    text: str
    is_mark: bool = False


class HarmonyText:
    """Turns the tokens of one answer, whose prompt ends with `<|start|>assistant`, into text.

    With `calls` a call is marked for `HarmonyCallStream`; without, it is text between `<tool_call>` tags. An answer that
    begins without a channel is text.
    """

    def __init__(self, tokenizer: Tokenizer, *, calls: bool = False) -> None:
        self._tokenizer = tokenizer
        self.marks_calls = calls
        self._names = {tokenizer.token_id(name): name for name in (*CHANNEL_TOKENS, "<|constrain|>")}
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._thought = ThoughtStream()
        self._is_thinking = self._has_text = False
        self._has_start = False  # the header begins with the name of the role
        self._role = self._channel = ""
        self._in_channel = False
        self._kind = ""  # of the message whose text comes: thought, text, call, or unshown

    def feed(self, token_id: int) -> list[HarmonyPiece]:
        """Returns the text that this token completes."""
        name = self._names.get(token_id)
        if name is None:
            return self._read(self._utf8.decode(self._tokenizer.visible_bytes(token_id)))
        pieces = self._flush()
        match name:
            case "<|message|>":
                return pieces if self._kind else pieces + self._begin_message()
            case "<|constrain|>":
                return pieces if self._kind else pieces + self._read(" ")
            case "<|channel|>":
                pieces += self._end_message() if self._kind or self._in_channel else []
                self._in_channel = True
            case _:
                pieces += self._end_message()
                self._has_start = name == "<|start|>"
        return pieces

    def finish(self) -> list[HarmonyPiece]:
        """Returns the text that was held back."""
        pieces = self._flush()
        if not (self._kind or self._in_channel or self._has_start) and not self._role.lstrip().startswith("to="):
            pieces += self._without_channel()
        if self._kind == "call" and self.marks_calls:  # whether it is whole, its arguments tell
            return pieces
        return pieces + self._end_message()

    def _flush(self) -> list[HarmonyPiece]:
        pieces = self._read(self._utf8.decode(b"", final=True))
        self._utf8.reset()
        return pieces

    def _read(self, text: str) -> list[HarmonyPiece]:
        if not text:
            return []
        if self._kind:
            return self._words(text)
        if self._in_channel:
            self._channel = (self._channel + text)[:_MAX_HEADER]
            return []
        self._role = (self._role + text)[:_MAX_HEADER]
        begun = self._role.lstrip()
        is_header = self._has_start or begun.startswith("to=") or "to=".startswith(begun)
        return [] if is_header else self._without_channel()

    def _without_channel(self) -> list[HarmonyPiece]:
        return [*self._begin("text"), *self._words(self._role)] if self._role else []

    def _words(self, text: str) -> list[HarmonyPiece]:
        text = text.translate(_NO_MARKS)
        if self._kind == "thought":
            text = self._thought.feed(text)
        return [HarmonyPiece(text)] if text and self._kind != "unshown" else []

    def _begin_message(self) -> list[HarmonyPiece]:
        to = _TO.search(self._role) or _TO.search(self._channel)
        if to is not None and to[1] not in _ROLES:
            return self._begin("call", to[1].removeprefix("functions.").translate(_NO_MARKS))
        return self._begin("thought" if self._channel.split()[:1] == ["analysis"] else "text")

    def _begin(self, kind: str, name: str = "") -> list[HarmonyPiece]:
        """Begin the text of a message."""
        if kind == "thought":
            self._kind = "unshown" if self._has_text else "thought"
            mark = "" if self._has_text else "\n\n" if self._is_thinking else f"{OPEN}\n"
            self._is_thinking = self._is_thinking or not self._has_text
            return [HarmonyPiece(mark, True)]
        mark = f"\n{CLOSE}\n\n" if self._is_thinking else "\n\n" if self._has_text and kind == "text" else ""
        self._kind, self._is_thinking, self._has_text = kind, False, True
        if kind == "call" and self.marks_calls:
            mark += f"{_CALL}{name}{_NAMED}"
        elif kind == "call":
            mark += f'<tool_call>\n{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": '
        return [HarmonyPiece(mark, True)]

    def _end_message(self) -> list[HarmonyPiece]:
        kind, self._kind = self._kind, ""
        self._role = self._channel = ""
        self._in_channel = self._has_start = False
        if kind == "thought":
            return [HarmonyPiece(self._thought.finish())]
        return [HarmonyPiece(_CALLED if self.marks_calls else "}\n</tool_call>", True)] if kind == "call" else []


def parse_harmony(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """Returns the text without its marked calls, and the calls, as `call_parser.parse` does."""
    stream = HarmonyCallStream()
    pieces = [*stream.feed(text), *stream.finish()]
    return "".join(piece for piece in pieces if isinstance(piece, str)), stream.calls


class HarmonyCallStream:
    """Removes the calls from the text of a HarmonyText that marks them, as `CallStream` does from other markup."""

    def __init__(self) -> None:
        self._sink = CallSink()
        self._name: str | None = None  # of the call that has begun
        self._arguments: list[str] | None = None

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The complete calls."""
        return tuple(self._sink.calls)

    def feed(self, text: str) -> list[str | CallDelta]:
        """Returns the text and call pieces that this piece makes certain."""
        for piece in _MARKS.split(text):
            match piece:
                case "\ufdd0":
                    self._name = ""
                case "\ufdd1":
                    self._sink.begin_call(self._name or "")
                    self._arguments = []
                case "\ufdd2":
                    self._end_call()
                case _ if self._arguments is not None:
                    self._arguments.append(piece)
                    if piece:
                        self._sink.add_arguments(piece)
                case _ if self._name is not None:
                    self._name += piece
                case _:
                    self._sink.add_text(piece)
        return self._sink.take()

    def finish(self) -> list[str | CallDelta]:
        """Returns the rest, at the end of the text."""
        if self._arguments is not None:
            self._end_call()
        if not self._sink.has_calls:
            return [piece for piece in ["".join([*map(str, self._sink.take()), *self._sink.blanks])] if piece]
        return self._sink.take()

    def _end_call(self) -> None:
        text = "".join(self._arguments or ()).strip()
        if not text:
            self._sink.add_arguments("{}")
        body = _object(text or "{}")
        self._sink.end_call(self._name or "", body or {}, text if body is None else None)
        self._name = self._arguments = None


def _object(text: str) -> Json | None:
    """Returns the arguments in a text; None if it is no JSON object."""
    try:
        body = loads_arguments(text)
        json.dumps(body, allow_nan=False)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None
