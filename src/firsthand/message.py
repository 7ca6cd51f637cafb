"""A Message, its parts, and for a sampled message its tokens.

A message is plain frozen data and survives `to_json` and `from_json` unchanged. It knows no chat template: the text
that a model sees is rendered in `tokens/templates/chat_template.py`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Literal

_SAME, _CERTAIN = "logprobs", "certain"
"""Stored for behaviour log-probs that are the model's own, and for those that are all 0."""
Role = Literal["system", "user", "assistant", "tool"]
Json = dict[str, Any]
"""A JSON object."""

ERROR = "Error: "
"""The begin of a failed call's result."""


@dataclass(frozen=True)
class Text:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class ToolCall:
    """A request, made by a model, to run a tool.

    `arguments` is the object that the model wrote. If its JSON was broken, `arguments` is empty and `invalid` holds the
    text as it came, so that the mistake can be shown to the model.
    """

    id: str
    name: str
    arguments: Json
    invalid: str | None = None


@dataclass(frozen=True)
class ToolResult:
    """A tool's output, as the model will read it; `is_error` marks a failure, which is data too.

    `origin` names the source of content from outside the attempt (the web, somebody's files): it is untrusted, and a model
    reads it between marks. None if the tool computed it.
    """

    call_id: str
    name: str
    content: str
    is_error: bool = False
    origin: str | None = None
    plain: str | None = field(default=None, compare=False, repr=False)
    """The content without a guard's marks between its words, for programs. None if there are none. Not stored."""
    is_private: bool = field(default=False, compare=False, repr=False)
    """True if the tool found that only the user may read this result, whatever it declares of all. Not stored."""


@dataclass(frozen=True)
class Reasoning:
    """A model's reasoning before its answer, as an endpoint returned it: no part of the answer's text.

    `state` is the endpoint's own block, signatures included, which goes back to it unchanged in the next turn; other models
    are not given it.
    """

    text: str
    state: Json


Part = Text | ToolCall | ToolResult | Reasoning


@dataclass(frozen=True)
class Sampled:
    """The tokens of a sampled message as the model chose them, the end-of-turn token included where one was sampled.

    They are kept and spliced into later prompts, never encoded again from text. Log-probs are natural logarithms, one for
    each token.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    behaviour_logprobs: tuple[float, ...] | None = None
    """Of the token under the distribution it was drawn from: after penalties, biases, temperature, cuts, token filters and
    the grammar. 0 for greedy decoding and for tokens that a grammar forces, which had no alternative. None if not known."""
    versions: tuple[int, ...] | None = None
    """The version of the weights that computed each token. None if not known."""
    adapter: str = field(default="", kw_only=True)
    """The agent whose own adapter sampled them, where agents of one attempt have an adapter each."""
    monitor: tuple[float, ...] | None = field(default=None, kw_only=True)
    """The score of each token by the model's activation monitor (`MODEL+monitor:FILE`); None without one."""
    born_as: str = field(default="", kw_only=True, compare=False, repr=False)
    """A digest of the message they were sampled as, which the first Message that holds them sets."""

    def to_json(self) -> Json:
        """The tokens as a JSON object. Behaviour log-probs that equal the model's own, or are all 0, are a word; versions
        are run-length coded, as (version, count)."""
        body: Json = {"token_ids": list(self.token_ids), "logprobs": list(self.logprobs)}
        if self.behaviour_logprobs is not None:
            body["behaviour_logprobs"] = _short(self.behaviour_logprobs, self.logprobs)
        if self.versions is not None:
            body["versions"] = [[version, len(list(run))] for version, run in groupby(self.versions)]
        if self.adapter:
            body["adapter"] = self.adapter
        if self.monitor is not None:
            body["monitor"] = list(self.monitor)
        return body

    @staticmethod
    def from_json(body: Json) -> Sampled:
        """The tokens that `to_json` wrote."""
        logprobs, behaviour, runs = tuple(body["logprobs"]), body.get("behaviour_logprobs"), body.get("versions")
        if behaviour == _SAME:
            behaviour = logprobs
        elif behaviour == _CERTAIN:
            behaviour = (0.0,) * len(logprobs)
        return Sampled(
            tuple(body["token_ids"]),
            logprobs,
            None if behaviour is None else tuple(behaviour),
            None if runs is None else tuple(version for version, count in runs for _ in range(count)),
            adapter=body.get("adapter", ""),
            monitor=tuple(body["monitor"]) if "monitor" in body else None,
        )


@dataclass(frozen=True)
class Message:
    """One turn: its role, its parts, and its tokens if they are known.

    An edited message has no tokens: whatever makes it (`edited`, `dataclasses.replace`), `sampled` is dropped where role or
    parts are not those it was sampled as.
    """

    role: Role
    parts: tuple[Part, ...]
    sampled: Sampled | None = None

    def __post_init__(self) -> None:
        if self.sampled is None:
            return
        if not self.sampled.born_as:
            object.__setattr__(self, "sampled", replace(self.sampled, born_as=self._digest()))
        elif not self.is_as_sampled:
            object.__setattr__(self, "sampled", None)

    @property
    def is_as_sampled(self) -> bool:
        """True if the message has tokens, and its parts still say what they were sampled as."""
        return self.sampled is not None and self.sampled.born_as == self._digest()

    def edited(self, *parts: Part) -> Message:
        """The message with other parts, and without its tokens unless the parts are equal."""
        return replace(self, parts=parts)

    def _digest(self) -> str:
        said = canonical([self.role, *map(_part_to_json, self.parts)])
        return hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    @property
    def text(self) -> str:
        """The text of the message: its Text parts and tool results, joined."""
        return "".join(
            part.text if isinstance(part, Text) else part.content
            for part in self.parts
            if isinstance(part, Text | ToolResult)
        )

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls among the parts."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))

    def to_json(self) -> Json:
        """The message as a JSON object."""
        body: Json = {"role": self.role, "parts": [_part_to_json(part) for part in self.parts]}
        if self.sampled is not None:
            body["sampled"] = self.sampled.to_json()
        return body

    @staticmethod
    def from_json(body: Json) -> Message:
        """The message that `to_json` wrote."""
        sampled = body.get("sampled")
        return Message(
            role=body["role"],
            parts=tuple(_part_from_json(part) for part in body["parts"]),
            sampled=Sampled.from_json(sampled) if sampled else None,
        )


def system(text: str) -> Message:
    """A system message with this text."""
    return Message("system", (Text(text),))


def user(text: str) -> Message:
    """A user message with this text."""
    return Message("user", (Text(text),))


def assistant(text: str, *calls: ToolCall) -> Message:
    """An assistant message with this text and these tool calls."""
    words: tuple[Part, ...] = (Text(text),) if text or not calls else ()
    return Message("assistant", words + calls)


def canonical(body: Any) -> str:
    """JSON with sorted keys and no spaces: equal data gives equal text, so that it can be hashed."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _short(behaviour: tuple[float, ...], logprobs: tuple[float, ...]) -> str | list[float]:
    if behaviour == logprobs:
        return _SAME
    return list(behaviour) if any(behaviour) else _CERTAIN


def _part_to_json(part: Part) -> Json:
    match part:
        case Text(text):
            return {"type": "text", "text": text}
        case ToolCall(id, name, arguments, invalid):
            body: Json = {"type": "tool_call", "id": id, "name": name, "arguments": arguments}
            return body if invalid is None else body | {"invalid": invalid}
        case ToolResult(call_id, name, content, is_error, origin):
            body = {"type": "tool_result", "call_id": call_id, "name": name, "content": content, "is_error": is_error}
            return body if origin is None else body | {"origin": origin}
        case Reasoning(text, state):
            return {"type": "reasoning", "text": text, "state": state}


def _part_from_json(body: Json) -> Part:
    match body["type"]:
        case "text":
            return Text(body["text"])
        case "tool_call":
            return ToolCall(body["id"], body["name"], body["arguments"], body.get("invalid"))
        case "tool_result":
            return ToolResult(body["call_id"], body["name"], body["content"], body["is_error"], body.get("origin"))
        case "reasoning":
            return Reasoning(body["text"], body["state"])
        case other:
            raise ValueError(
                f"no message part of type {other!r}: text, tool_call, tool_result or reasoning was expected"
            )
