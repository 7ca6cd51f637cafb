"""Remembers of recent answers what clients do not send back: their sampled tokens, and an endpoint's reasoning.

Clients send a conversation back as text. Encoded again, it often gives other tokens than were sampled, and nothing after the
first difference is found in the cache. So the ids of an answer are kept under a hash of their owner (the client, its user,
its cache salt, and the model), the conversation before it, and its own text and calls; the next turn gets them back. Answers
that were cut by a stop string or stop token, hold control tokens, or are shown without their reasoning, are left out: their
tokens hold more than the text that comes back.

Of a model behind an endpoint the reasoning blocks are kept in the same way, with their signatures: Gemini refuses a function
call without its own. The client's ids of the calls stay.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from firsthand.message import Message, Part, Reasoning, Sampled, ToolCall, canonical

MAX_ANSWERS = 8192
MAX_TOKENS = 1 << 22
MAX_BYTES = 1 << 26
"""Of answers with reasoning, as JSON."""


@dataclass(frozen=True)
class _Kept:
    """Token ids, log-probs and reasoning of one remembered answer."""

    token_ids: array[int]
    logprobs: array[float]
    parts: tuple[Part, ...]
    """All of its parts if there is reasoning among them, else none."""
    num_bytes: int
    """Of the parts."""

    def added_to(self, message: Message) -> Message:
        """The message as its client sent it, with what is kept."""
        calls = iter(message.tool_calls)
        parts = tuple(next(calls) if isinstance(part, ToolCall) else part for part in self.parts) or message.parts
        sampled = Sampled(tuple(self.token_ids), tuple(self.logprobs)) if self.token_ids else None
        return replace(message, parts=parts, sampled=sampled)


class SampledTurns:
    """The tokens and reasoning of a bounded number of answers, the least recent forgotten first. For one event loop."""

    def __init__(self, *, max_answers: int = MAX_ANSWERS, max_tokens: int = MAX_TOKENS, max_bytes: int = MAX_BYTES):
        self._max_answers, self._max_tokens, self._max_bytes = max_answers, max_tokens, max_bytes
        self._known: OrderedDict[bytes, _Kept] = OrderedDict()
        self._num_tokens = self._num_bytes = 0

    def __len__(self) -> int:
        return len(self._known)

    def remember(self, owner: str, conversation: Sequence[Message], answer: Message) -> None:
        """Keep the tokens and the reasoning of an answer to a conversation."""
        sampled = answer.sampled or Sampled((), ())
        reasons = any(isinstance(part, Reasoning) for part in answer.parts)
        if not sampled.token_ids and not reasons:
            return
        key = _after(owner, conversation)
        key = _step(key, answer)
        if key not in self._known:
            size = len(canonical(replace(answer, sampled=None).to_json())) if reasons else 0
            parts = answer.parts if reasons else ()
            self._known[key] = _Kept(array("i", sampled.token_ids), array("d", sampled.logprobs), parts, size)
            self._num_tokens += len(sampled.token_ids)
            self._num_bytes += size
        while (
            len(self._known) > self._max_answers
            or self._num_tokens > self._max_tokens
            or self._num_bytes > self._max_bytes
        ):
            _, kept = self._known.popitem(last=False)
            self._num_tokens -= len(kept.token_ids)
            self._num_bytes -= kept.num_bytes

    def recall(self, owner: str, conversation: Sequence[Message]) -> list[Message]:
        """The conversation, with what is kept of its assistant turns."""
        key = _after(owner, ())
        turns = []
        for message in conversation:
            key = _step(key, message)
            if message.role == "assistant" and (known := self._known.get(key)) is not None:
                self._known.move_to_end(key)
                message = known.added_to(message)
            turns.append(message)
        return turns


def _after(owner: str, conversation: Sequence[Message]) -> bytes:
    key = hashlib.sha256(owner.encode("utf-8", "surrogatepass")).digest()
    for message in conversation:
        key = _step(key, message)
    return key


def _step(key: bytes, message: Message) -> bytes:
    """A hash of a conversation and one more message. The ids of calls do not count: clients change them."""
    calls = [[call.name, call.arguments, call.invalid] for call in message.tool_calls]
    text = canonical([message.role, message.text, calls])
    return hashlib.sha256(key + text.encode("utf-8", "surrogatepass")).digest()
