"""Remembers of recent answers what clients do not send back: their sampled tokens, and an endpoint's reasoning.

Clients send a conversation back as text. Encoded again, it often gives other tokens than were sampled, and nothing after the
first difference is found in the cache. So the ids of an answer are kept under a hash of their owner (the client, its user,
its cache salt, and the model), the conversation before it, and its own text and calls; the next turn gets them back. Answers
that were cut by a stop string or stop token, hold control tokens, or are shown without their reasoning, are left out: their
tokens hold more than the text that comes back.

Of a model behind an endpoint the reasoning blocks are kept too, with their signatures: Gemini refuses a function call
without its own. An answer with calls is known by the ids that the server gave them, whatever the client changed before it
(a clock in the system message, a history cut short), as long as the calls say the same; one without calls in the same way
as tokens. The client's ids of the calls stay.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from firsthand.message import Message, Part, Reasoning, Sampled, Text, ToolCall, canonical
from firsthand.serve.openai.choices import mark_of

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
    marks: tuple[str, ...] = ()
    """Of the calls among the parts, in order, by which the answer is known; none for an answer known by its conversation."""
    names: tuple[bytes, ...] = ()
    """The further keys that lead to the answer."""

    def added_to(self, message: Message) -> Message:
        """The message as its client sent it, with what is kept."""
        calls = iter(message.tool_calls)
        parts = tuple(next(calls) if isinstance(part, ToolCall) else part for part in self.parts) or message.parts
        sampled = Sampled(tuple(self.token_ids), tuple(self.logprobs)) if self.token_ids else None
        return replace(message, parts=parts, sampled=sampled)

    def reasons_in(self, message: Message) -> Message | None:
        """The message with the reasoning; None if it has a call that the answer has not, or has otherwise.

        Calls may be left out, and the text may be another: it stands where the answer's stood, else at the end.
        """
        given = {mark_of(call.id): call for call in message.tool_calls}
        made = [part for part in self.parts if isinstance(part, ToolCall)]
        same = [mark for mark, call in zip(self.marks, made, strict=True) if _says(given.get(mark)) == _says(call)]
        if same != [mark_of(call.id) for call in message.tool_calls]:
            return None
        texts = [part for part in self.parts if isinstance(part, Text)]
        if "".join(each.text for each in texts) != message.text:
            texts = [Text(message.text), *(Text("") for _ in texts[1:])]
        marks, words = iter(self.marks), iter(texts)
        parts: list[Part] = []
        for part in self.parts:
            if isinstance(part, ToolCall):
                parts += [given[mark] for mark in [next(marks)] if mark in given]
            else:
                parts.append(next(words) if isinstance(part, Text) else part)
        return replace(message, parts=(*parts, *(each for each in words if each.text)), sampled=None)


class SampledTurns:
    """The tokens and reasoning of a bounded number of answers, the least recent forgotten first. For one event loop."""

    def __init__(self, *, max_answers: int = MAX_ANSWERS, max_tokens: int = MAX_TOKENS, max_bytes: int = MAX_BYTES):
        self._max_answers, self._max_tokens, self._max_bytes = max_answers, max_tokens, max_bytes
        self._known: OrderedDict[bytes, _Kept] = OrderedDict()
        self._names: dict[bytes, bytes] = {}
        """Keys of answers in `_known`, by other keys that lead to them."""
        self._num_tokens = self._num_bytes = 0

    def __len__(self) -> int:
        return len(self._known)

    def remember(self, owner: str, conversation: Sequence[Message], answer: Message, marks: Sequence[str] = ()) -> None:
        """Keep the tokens and the reasoning of an answer to a conversation. `marks` are those of its calls' ids."""
        sampled = answer.sampled or Sampled((), ())
        reasons = any(isinstance(part, Reasoning) for part in answer.parts)
        if not sampled.token_ids and not reasons:
            return
        key = _after(owner, conversation)
        key = _step(key, answer)
        names: tuple[bytes, ...] = ()
        if reasons and marks:
            names = (key, *(_of_call(owner, mark) for mark in marks[1:]))
            key = _of_call(owner, marks[0])
        if key not in self._known:
            size = len(canonical(replace(answer, sampled=None).to_json())) if reasons else 0
            parts = answer.parts if reasons else ()
            size += sum(map(len, marks)) if names else 0
            ids, logprobs = array("i", sampled.token_ids), array("d", sampled.logprobs)
            self._known[key] = _Kept(ids, logprobs, parts, size, tuple(marks) if names else (), names)
            self._names |= dict.fromkeys(names, key)
            self._num_tokens += len(sampled.token_ids)
            self._num_bytes += size
        while (
            len(self._known) > self._max_answers
            or self._num_tokens > self._max_tokens
            or self._num_bytes > self._max_bytes
        ):
            key, kept = self._known.popitem(last=False)
            for name in kept.names:
                if self._names.get(name) == key:
                    del self._names[name]
            self._num_tokens -= len(kept.token_ids)
            self._num_bytes -= kept.num_bytes

    def recall(self, owner: str, conversation: Sequence[Message]) -> list[Message]:
        """The conversation, with what is kept of its assistant turns."""
        key = _after(owner, ())
        turns = []
        for message in conversation:
            key = _step(key, message)
            turns.append(self._whole(owner, key, message) if message.role == "assistant" else message)
        return turns

    def _whole(self, owner: str, key: bytes, message: Message) -> Message:
        """An assistant turn with what is kept of it: by its calls' ids, else by the conversation that the key stands for."""
        calls = message.tool_calls
        named = self._find(_of_call(owner, mark_of(calls[0].id))) if calls else None
        if named is not None and not named.token_ids and (found := named.reasons_in(message)) is not None:
            return found
        known = self._find(key)
        return message if known is None else known.added_to(message)

    def _find(self, key: bytes) -> _Kept | None:
        key = self._names.get(key, key)
        if (known := self._known.get(key)) is not None:
            self._known.move_to_end(key)
        return known


def _after(owner: str, conversation: Sequence[Message]) -> bytes:
    key = hashlib.sha256(owner.encode("utf-8", "surrogatepass")).digest()
    for message in conversation:
        key = _step(key, message)
    return key


def _of_call(owner: str, mark: str) -> bytes:
    return hashlib.sha256(canonical(["call", owner, mark]).encode("utf-8", "surrogatepass")).digest()


def _says(call: ToolCall | None) -> tuple[object, ...]:
    return () if call is None else (call.name, call.arguments, call.invalid)


def _step(key: bytes, message: Message) -> bytes:
    """A hash of a conversation and one more message. The ids of calls do not count: clients change them."""
    calls = [[call.name, call.arguments, call.invalid] for call in message.tool_calls]
    text = canonical([message.role, message.text, calls])
    return hashlib.sha256(key + text.encode("utf-8", "surrogatepass")).digest()
