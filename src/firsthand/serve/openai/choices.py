"""Parts of OpenAI's answers that chats and completions share."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from firsthand.message import Json, ToolCall, canonical
from firsthand.model import Completion, Delta, Usage
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.models.served_models import ServedModel

LEAST = -9999.0
"""Stands for a log-prob of minus infinity, which JSON does not have."""


@dataclass
class WholeAnswer:
    """One answer, put together from its pieces."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[tuple[tuple[str, float], ...]] = field(default_factory=list)
    calls: dict[int, str] = field(default_factory=dict)
    """The arguments of calls that came in pieces, by place."""
    completion: Completion | None = None
    top_ids: list[tuple[int, ...]] = field(default_factory=list)

    def add(self, delta: Delta) -> None:
        """Add a piece."""
        self.text += delta.text
        self.token_ids += delta.token_ids
        self.logprobs += delta.logprobs
        self.top_logprobs += delta.top_logprobs
        self.top_ids += delta.top_ids
        if delta.call is not None:
            self.calls[delta.call.index] = self.calls.get(delta.call.index, "") + delta.call.arguments
        self.completion = delta.completion or self.completion
        if delta.is_revised and delta.completion is not None:
            self.text = delta.completion.message.text

    def arguments(self) -> list[str]:
        """The arguments of each call as a string; of one that was cut, what came of them, as in a stream."""
        is_cut = self.whole.finish_reason in ("stop", "length", "content_filter")
        return [
            self.calls[at] if is_cut and call.invalid is not None and at in self.calls else arguments(call)
            for at, call in enumerate(self.whole.message.tool_calls)
        ]

    @property
    def whole(self) -> Completion:
        """The completion; a Refusal if the model ended without one."""
        if self.completion is None:
            raise Refusal(502, "the model ended without an answer")
        return self.completion


def usage_json(usage: Usage) -> Json:
    """The counts as OpenAI's `usage`."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def total(completions: Sequence[Completion]) -> Usage:
    """The sum of the answers' usage."""
    return sum((each.usage for each in completions), Usage())


def alternatives(served: ServedModel, answer: WholeAnswer | Delta) -> list[list[tuple[bytes, float]]]:
    """The alternatives of each token of an answer by their exact bytes; none for each if they were not asked for."""
    spell = served.token_model("logprobs").spell
    found = [[(text.encode("utf-8", "replace"), each) for text, each in top] for top in answer.top_logprobs]
    if answer.top_ids:
        pairs = zip(answer.top_ids, found, strict=True)
        found = [[(raw, each) for raw, (_, each) in zip(spell(ids), top, strict=True)] for ids, top in pairs]
    return found or [[] for _ in answer.token_ids]


def chat_logprobs(served: ServedModel, answer: WholeAnswer | Delta) -> Json:
    """The `logprobs` of a chat's choice."""
    tokens = served.token_model("logprobs").spell(answer.token_ids)
    content = [
        {**_token(raw, logprob), "top_logprobs": [_token(*each) for each in best]}
        for raw, logprob, best in zip(tokens, answer.logprobs, alternatives(served, answer), strict=True)
    ]
    return {"content": content, "refusal": None}


def _token(raw: bytes, logprob: float) -> Json:
    return {"token": raw.decode("utf-8", "replace"), "logprob": max(logprob, LEAST), "bytes": list(raw)}


def calls_json(answer: WholeAnswer, marks: Sequence[str]) -> list[Json]:
    """The tool calls of an answer, by their marks. Broken arguments are passed on as they came."""
    return [
        {"id": call_id(mark), "type": "function", "function": {"name": call.name, "arguments": text}}
        for call, text, mark in zip(answer.whole.message.tool_calls, answer.arguments(), marks, strict=True)
    ]


def arguments(call: ToolCall) -> str:
    """The arguments of a call that came whole, as a string."""
    return call.invalid if call.invalid is not None else canonical(call.arguments)


class CallMarks:
    """Random marks for the calls of one request's answers: a model's own ids start again with every answer."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, int], str] = {}

    def of(self, place: int, answer: int = 0) -> str:
        """The mark of a call by its place in its answer: 24 hexadecimal digits."""
        return self._made.setdefault((answer, place), secrets.token_hex(12))

    def first(self, count: int, answer: int = 0) -> list[str]:
        """The marks of an answer's first calls."""
        return [self.of(place, answer) for place in range(count)]


def call_id(mark: str) -> str:
    """The id of the call of this mark."""
    return f"call_{mark}"


def mark_of(id: str) -> str:
    """The mark in the id of a call, as any of the server's protocols gave it."""
    return id.rpartition("_")[2]
