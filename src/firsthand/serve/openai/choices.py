"""Answers in OpenAI's shape: the parts that chats and completions share."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from firsthand.message import Json, ToolCall, canonical
from firsthand.model import Completion, Delta, Usage
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.models.served_model import Door

LEAST = -9999.0
"""What stands for a log-prob of minus infinity, which JSON cannot say."""


@dataclass
class Gathered:
    """One answer, put together from its pieces."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[tuple[tuple[str, float], ...]] = field(default_factory=list)
    completion: Completion | None = None

    def add(self, delta: Delta) -> None:
        """Take in a piece."""
        self.text += delta.text
        self.token_ids += delta.token_ids
        self.logprobs += delta.logprobs
        self.top_logprobs += delta.top_logprobs
        self.completion = delta.completion or self.completion

    @property
    def whole(self) -> Completion:
        """The answer. Refused if the model ended without one."""
        if self.completion is None:
            raise Refusal(502, "the model ended without an answer")
        return self.completion


def usage_json(usage: Usage) -> Json:
    """The counts."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def total(completions: Sequence[Completion]) -> Usage:
    """What several answers cost together."""
    return sum((each.usage for each in completions), Usage())


def chat_logprobs(
    door: Door, ids: Sequence[int], logprobs: Sequence[float], top: Sequence[Sequence[tuple[str, float]]]
) -> Json:
    """The `logprobs` of a chat's choice."""
    tokens = door.token_model("logprobs").spell(ids)
    tops = top or [()] * len(ids)
    content = [
        {**_token(raw, logprob), "top_logprobs": [_token(text.encode("utf-8", "replace"), each) for text, each in best]}
        for raw, logprob, best in zip(tokens, logprobs, tops, strict=True)
    ]
    return {"content": content, "refusal": None}


def _token(raw: bytes, logprob: float) -> Json:
    return {"token": raw.decode("utf-8", "replace"), "logprob": max(logprob, LEAST), "bytes": list(raw)}


def calls_json(calls: Sequence[ToolCall], ids: Sequence[str]) -> list[Json]:
    """Tool calls as an answer holds them. Broken arguments are given as they came."""
    return [
        {"id": id, "type": "function", "function": {"name": call.name, "arguments": arguments(call)}}
        for call, id in zip(calls, ids, strict=True)
    ]


def arguments(call: ToolCall) -> str:
    """The arguments of a call as text."""
    return call.invalid if call.invalid is not None else canonical(call.arguments)


def call_ids(calls: Sequence[ToolCall]) -> list[str]:
    """Ids for calls that no other answer has: a model's own start again with every answer."""
    return [call_id() for _ in calls]


def call_id() -> str:
    """An id for a call that no other answer has."""
    return f"call_{secrets.token_hex(12)}"
