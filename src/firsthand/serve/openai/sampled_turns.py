"""Remembers the sampled tokens of recent answers, so that the next turn of a conversation finds them in the prefix cache.

Clients send a conversation back as text. Encoded again, it often gives other tokens than were sampled, and nothing after the
first difference is found in the cache. So the ids of an answer are kept under a hash of their owner (the client, its user,
its cache salt, and the model), the conversation before it, and its own text and calls; the next turn gets them back. Answers
that were cut by a stop string or stop token, hold control tokens, or are shown without their reasoning, are left out: their
tokens hold more than the text that comes back.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from firsthand.message import Message, Sampled, canonical

MAX_ANSWERS = 8192
MAX_TOKENS = 1 << 22


class SampledTurns:
    """The sampled tokens of a bounded number of answers, the least recent forgotten first. For one event loop."""

    def __init__(self, *, max_answers: int = MAX_ANSWERS, max_tokens: int = MAX_TOKENS):
        self._max_answers, self._max_tokens = max_answers, max_tokens
        self._known: OrderedDict[bytes, tuple[array[int], array[float]]] = OrderedDict()
        self._num_tokens = 0

    def __len__(self) -> int:
        return len(self._known)

    def remember(self, owner: str, conversation: Sequence[Message], answer: Message) -> None:
        """Keep the tokens of an answer to a conversation."""
        if answer.sampled is None or not answer.sampled.token_ids:
            return
        key = _after(owner, conversation)
        key = _step(key, answer)
        if key not in self._known:
            self._known[key] = array("i", answer.sampled.token_ids), array("d", answer.sampled.logprobs)
            self._num_tokens += len(answer.sampled.token_ids)
        while len(self._known) > self._max_answers or self._num_tokens > self._max_tokens:
            _, (ids, _) = self._known.popitem(last=False)
            self._num_tokens -= len(ids)

    def recall(self, owner: str, conversation: Sequence[Message]) -> list[Message]:
        """The conversation, with the sampled tokens of those assistant turns whose tokens are known."""
        key = _after(owner, ())
        turns = []
        for message in conversation:
            key = _step(key, message)
            if message.role == "assistant" and (known := self._known.get(key)) is not None:
                self._known.move_to_end(key)
                message = replace(message, sampled=Sampled(tuple(known[0]), tuple(known[1])))
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
