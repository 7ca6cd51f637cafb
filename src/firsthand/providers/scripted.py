"""A Model with scripted replies, for tests and demos: public, deterministic, without torch.

Tokens are words: a prompt costs its whitespace-separated words, and an answer is cut after `max_tokens` words. The name
always begins with `scripted`, so that it is never taken for a real model.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from firsthand.errors import ConfigError, ModelError, TransientError, reason_of
from firsthand.message import Message, Text, ToolCall, assistant, canonical, user
from firsthand.model import (
    CallDelta,
    Completion,
    Delta,
    FinishReason,
    Likelihood,
    Prompt,
    Sampling,
    Scored,
    ToolSpec,
    Usage,
)
from firsthand.providers.output_validation import check

Reply = str | Message
Replies = Sequence[Reply] | Mapping[str, Reply] | Callable[[Sequence[Message], Sampling, int], Reply]
"""A list gives its replies in order, also over a run that is interrupted and resumed; a mapping the reply of the first key
that the last message contains, or matches as a regular expression (`""` matches all); a function gets the messages, the
sampling and the index of the answer."""

_MAX_SCRIPT_BYTES = 1 << 24


@dataclass(frozen=True)
class ScriptedRequest:
    """A request that a Scripted model received."""

    prompt: Prompt
    sampling: Sampling | None
    """None for a scoring request."""
    tools: tuple[ToolSpec, ...] = ()
    n: int = 1
    continuations: tuple[str, ...] = ()


def open_model(text: str) -> Scripted:
    """Returns the model named `scripted:echo` (answers with the question) or `scripted:FILE.json`.

    The file has a list of replies, or an object of patterns and replies. A reply is a string, or an object with `text`
    and `tool_calls`, a list of `name` and `arguments`.
    """
    if text == "echo":
        return Scripted(lambda messages, sampling, index: messages[-1].text if messages else "", name="scripted:echo")
    if not text.endswith(".json"):
        raise ConfigError(
            f"scripted:{text} names no script: give scripted:echo, or scripted:FILE.json with a list of replies or an "
            "object of pattern and reply"
        )
    path = Path(text)
    try:
        with path.open("rb") as file:  # of the user, who may give a pipe
            content = file.read(_MAX_SCRIPT_BYTES + 1)
        body = json.loads(content.decode()) if len(content) <= _MAX_SCRIPT_BYTES else None
    except (OSError, UnicodeEncodeError) as error:
        raise ConfigError(
            f"the script {text!r} cannot be read ({reason_of(error)}): give the path of a JSON file with a list of "
            "replies or an object of pattern and reply"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the script {text!r} is not valid JSON: {reason_of(error)}") from None
    if isinstance(body, list):
        return Scripted([_reply_from_json(each, text) for each in body], name=f"scripted:{text}")
    if isinstance(body, dict):
        return Scripted({key: _reply_from_json(each, text) for key, each in body.items()}, name=f"scripted:{text}")
    raise ConfigError(f"the script {text!r} should hold a list or an object of at most {_MAX_SCRIPT_BYTES} bytes")


class Scripted:
    """A Model that answers from `replies` and records its requests in `asked`.

    A reply that does not match the request's grammar raises ModelError. `score` returns the log-prob of a continuation
    after a prompt; without it, each word's probability is a hash of the text up to it, between 0 and 1. A continuation
    is greedy if its probability (that of each word) exceeds one half. The first `failures` requests raise
    TransientError, every request raises `error` if given, and every request takes `delay_s` seconds.
    """

    def __init__(
        self,
        replies: Replies = (),
        *,
        score: Callable[[str, str], float] | None = None,
        name: str = "scripted",
        fingerprint: str | None = None,
        failures: int = 0,
        error: ModelError | None = None,
        delay_s: float = 0.0,
    ):
        if not name.startswith("scripted"):
            raise ConfigError(f"a scripted model is named {name!r}: its name must begin with 'scripted'")
        if isinstance(replies, str):
            raise ConfigError("replies is one string: give a list of replies, a mapping or a function")
        self.name = name
        self.fingerprint = fingerprint or f"scripted-{_digest(_described(replies), _described(score))}"
        self.asked: list[ScriptedRequest] = []
        self._replies = replies
        self._score = score
        self._failures = failures
        self._error = error
        self._delay_s = delay_s
        self._used = 0

    @property
    def is_ordered(self) -> bool:
        """True if the script is a list of replies."""
        return not isinstance(self._replies, Mapping) and not callable(self._replies) and len(self._replies) > 0

    def skip_replies(self, given: Collection[int]) -> None:
        """Go on after the last of these replies of the list; one before it that was refused is not given again either."""
        self._used = max([self._used, *(index + 1 for index in given)])

    async def complete(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = (), n: int = 1
    ) -> list[Completion]:
        """Returns `n` answers from the script."""
        await self._take(ScriptedRequest(prompt, sampling, tuple(tools), n))
        messages = _messages(prompt)
        words = sum(_count(message.text) for message in messages)
        first = self._used
        replies = [self._reply(messages, sampling, index) for index in range(n)]
        completions = [_completion(reply, sampling, words if i == 0 else 0) for i, reply in enumerate(replies)]
        if self.is_ordered:
            completions = [replace(each, reply_index=first + i) for i, each in enumerate(completions)]
        await check(self.name, completions, sampling, tools)
        return completions

    async def stream(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = ()
    ) -> AsyncIterator[Delta]:
        """Yields one answer from the script, word by word, then its tool calls."""
        (completion,) = await self.complete(prompt, sampling, tools=tools)
        for piece in _pieces(completion.message.text):
            yield Delta(piece)
        for index, call in enumerate(completion.message.tool_calls):
            yield Delta("", call=CallDelta(index, call.id, call.name))
            yield Delta("", call=CallDelta(index, arguments=json.dumps(call.arguments, ensure_ascii=False)))
        yield Delta("", completion)

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> Scored:
        """Returns the likelihood of each continuation, by the given function or by hash."""
        await self._take(ScriptedRequest(prompt, None, continuations=tuple(continuations)))
        text = prompt if isinstance(prompt, str) else "\n".join(message.text for message in prompt)
        likelihoods = tuple(self._likelihood(text, each) for each in continuations)
        return Scored(likelihoods, Usage(_count(text) + sum(each.num_tokens for each in likelihoods)))

    async def count_tokens(
        self, prompt: Prompt, tools: Sequence[ToolSpec] = (), continuations: Sequence[str] = ()
    ) -> int:
        """Returns the words of a prompt and its continuations; tools cost nothing."""
        return sum(_count(message.text) for message in _messages(prompt)) + sum(map(_count, continuations))

    async def _take(self, asked: ScriptedRequest) -> None:
        self.asked.append(asked)
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        if self._failures > 0:
            self._failures -= 1
            raise TransientError(f"{self.name} was told to fail; {self._failures} more failures follow")
        if self._error is not None:
            raise self._error

    def _reply(self, messages: Sequence[Message], sampling: Sampling, index: int) -> Message:
        reply = self._find(messages, sampling, index)
        return assistant(reply) if isinstance(reply, str) else reply

    def _find(self, messages: Sequence[Message], sampling: Sampling, index: int) -> Reply:
        replies = self._replies
        if callable(replies):
            return replies(messages, sampling, index)
        last = messages[-1].text if messages else ""
        if isinstance(replies, Mapping):
            for key, reply in replies.items():
                if key in last or _matches(key, last):
                    return reply
            raise ModelError(f"{self.name} has no reply to {last[:80]!r}: its patterns are {', '.join(replies)[:200]}")
        self._used += 1
        if self._used > len(replies):
            has = "1 reply" if len(replies) == 1 else f"{len(replies)} replies"
            raise ModelError(f"{self.name} has {has} and was asked for one more: {last[:80]!r}")
        return replies[self._used - 1]

    def _likelihood(self, prompt: str, continuation: str) -> Likelihood:
        words = _count(continuation)
        if self._score is not None:
            logprob = self._score(prompt, continuation)
            return Likelihood(continuation, logprob, words, logprob > math.log(0.5))
        pieces = _pieces(continuation)
        each = [_chance(prompt + "".join(pieces[: end + 1])) for end in range(len(pieces))]
        return Likelihood(continuation, sum(map(math.log, each)), words, all(chance > 0.5 for chance in each))


def _completion(reply: Message, sampling: Sampling, prompt_tokens: int) -> Completion:
    """Returns the reply as an answer, cut at stop strings and after max_tokens words."""
    text, reason = reply.text, "tool_calls" if reply.tool_calls else "stop"
    cuts = [(text.index(stop), stop) for stop in sampling.stop if stop in text]
    end, stopped = min(cuts) if cuts else (len(text), None)
    shown = text[:end]
    pieces = _pieces(shown)
    words = _count(shown)
    if words > sampling.max_tokens:
        shown, words, reason = "".join(pieces[: sampling.max_tokens]).rstrip(), sampling.max_tokens, "length"
    if shown != text:
        reply = Message(reply.role, (Text(shown), *(reply.tool_calls if reason != "length" else ())), reply.sampled)
    words += sum(_count(canonical(call.arguments)) for call in reply.tool_calls)
    finish: FinishReason = "length" if reason == "length" else "tool_calls" if reply.tool_calls else "stop"
    usage = Usage(prompt_tokens, 0, words)
    return Completion(reply, finish, usage, stop_string=stopped if finish == "stop" else None)


def _messages(prompt: Prompt) -> Sequence[Message]:
    return (user(prompt),) if isinstance(prompt, str) else prompt


def _count(text: str) -> int:
    return len(text.split())


def _pieces(text: str) -> list[str]:
    """Returns the words of a text, each with the whitespace around it."""
    return re.findall(r"^\s*\S+\s*|\S+\s*", text) or ([text] if text else [])


def _matches(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return False


def _chance(text: str) -> float:
    """Returns a number strictly between 0 and 1 that depends on the text alone."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).digest()
    return (int.from_bytes(digest, "big") + 0.5) / 2**48


def _digest(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _described(thing: Any) -> str:
    """Returns a script as text: data by content, a function by name (give `fingerprint` if that is not enough)."""
    if thing is None or callable(thing):
        return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"
    pairs = thing.items() if isinstance(thing, Mapping) else enumerate(thing)
    return canonical([[key, reply if isinstance(reply, str) else reply.to_json()] for key, reply in pairs])


def _reply_from_json(body: Any, source: str) -> Reply:
    match body:
        case str():
            return body
        case {"text": str()} | {"tool_calls": list()}:
            text, calls = body.get("text", ""), body.get("tool_calls", [])
            if isinstance(text, str) and isinstance(calls, list):
                return assistant(text, *(_call(index, call, source) for index, call in enumerate(calls)))
    raise ConfigError(
        f"a reply in {source!r} is {body!r:.120}: a string or an object with text and tool_calls was expected"
    )


def _call(index: int, body: Any, source: str) -> ToolCall:
    match body:
        case {"name": str(name), "arguments": dict(arguments)}:
            return ToolCall(f"call_{index}", name, arguments)
    raise ConfigError(f"a tool call in {source!r} is {body!r:.120}: an object with name and arguments was expected")
