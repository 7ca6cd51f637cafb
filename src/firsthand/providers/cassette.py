"""A Model that replays recorded replies and raises CassetteMiss for any other request.

Recordings are keyed by the prompt's text and tool calls alone, so that transcripts from anywhere can be replayed:
published logs, or our own traces (`recorded`). Equal prompts get their replies in the order of the recording. Tokens are
counted in words.
"""

from __future__ import annotations

import difflib
import errno
import hashlib
import io
import json
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice, pairwise, zip_longest
from pathlib import Path
from typing import cast, get_args

from firsthand.errors import ConfigError, ModelError
from firsthand.message import Json, Message, ToolCall, assistant, canonical
from firsthand.model import CallDelta, Completion, Delta, FinishReason, Prompt, Sampling, Scored, ToolSpec, Usage
from firsthand.system.json_values import values_in_text
from firsthand.system.ordinary_file import read_bounded
from firsthand.trace import Trace

Reply = str | Json
"""A text, or an object with `text` and one or both of `tool_calls`, a list of `id`, `name` and `arguments`, and
`finish_reason`, why the reply ended. Without one it ended by itself."""
Recordings = Mapping[str, Sequence[Reply]]
"""Prompt, as `prompt_text` writes it -> its replies, in order."""
_MAX_BYTES, _MAX_VALUES = 1 << 28, 2_000_000
_NEAREST_OF, _NEAREST_CHARS = 4000, 8_000_000
_COMPARED_CHARS, _COMPARED_LINES = 20_000, 200
"""Characters and lines of a request and a recorded prompt that a diff covers, from the first line that differs."""
_SHOWN_CHARS = 300


class CassetteMiss(ModelError):
    """A request that was not recorded, or not as often."""


def open_model(text: str) -> Cassette:
    """Returns the model named `cassette:FILE.jsonl`: each line has a `prompt` and its `replies`."""
    path = Path(text)
    recordings: dict[str, list[Reply]] = {}
    values = 0
    try:
        raw = read_bounded(path, _MAX_BYTES)
        with io.TextIOWrapper(
            io.BytesIO(raw), encoding="utf-8"
        ) as lines:  # not splitlines, which parts a text at U+2028 too
            for line in lines:
                values += values_in_text(line, _MAX_VALUES - values, few=0)
                if values > _MAX_VALUES:
                    raise ConfigError(
                        f"the cassette {text!r} holds more than {_MAX_VALUES:,} JSON values: record fewer attempts"
                    )
                body = json.loads(line)
                if not isinstance(body, dict) or not {"prompt", "replies"} <= body.keys():
                    raise ConfigError(
                        f"the cassette {text!r} has a line without prompt and replies: {line.rstrip()[:60]!r}"
                    )
                prompt, replies = body["prompt"], body["replies"]
                if not _is_text(prompt):
                    raise ConfigError(
                        f"the cassette {text!r} has a prompt that is no text: {line.rstrip()[:60]!r}; write "
                        '{"prompt": "...", "replies": ["...", "..."]} on each line'
                    )
                if not isinstance(replies, list) or not all(_is_text(reply) or _is_object(reply) for reply in replies):
                    raise ConfigError(
                        f"the cassette {text!r} has replies that are no list of texts: {line.rstrip()[:60]!r}; write "
                        '{"prompt": "...", "replies": ["...", "..."]}, or for a reply with tool calls '
                        '{"text": "...", "tool_calls": [{"id": "...", "name": "...", "arguments": {}}]}, and for one that '
                        'was cut or filtered {"text": "...", "finish_reason": "length"}, or "content_filter", on each line'
                    )
                read = [reply if isinstance(reply, dict) else str(reply) for reply in replies]
                recordings.setdefault(str(prompt), []).extend(read)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise ConfigError(
                f"{text} is larger than {_MAX_BYTES >> 20} MiB: record fewer attempts in one file"
            ) from None
        raise ConfigError(f"the cassette {text!r} cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"the cassette {text!r} is not lines of prompt and replies: {error!r:.100}") from None
    return Cassette(recordings, name=f"cassette:{text}")


def _is_text(value: object) -> bool:
    """True for a text, or a number that stands for its digits."""
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _is_object(value: object) -> bool:
    """True for a reply with tool calls, with the reason why it ended, or with both, as `recorded` writes it."""
    match value:
        case {"text": str(), "finish_reason": reason, **others}:
            is_known = isinstance(reason, str) and reason in get_args(FinishReason)
            return is_known and ("tool_calls" not in others or _are_calls(others["tool_calls"]))
        case {"text": str(), "tool_calls": calls}:
            return _are_calls(calls)
    return False


def _are_calls(value: object) -> bool:
    match value:
        case [_, *_] as calls:
            return all(map(_is_call, calls))
    return False


def _is_call(value: object) -> bool:
    match value:
        case {"id": str(), "name": str(), "arguments": dict(), **others}:
            return isinstance(others.get("invalid"), str | None)
    return False


class Cassette:
    """A Model that replays `recordings`. Each reply is given once, also over a run that is interrupted and resumed."""

    is_ordered = True

    def __init__(self, recordings: Recordings, *, name: str = "cassette"):
        if not name.startswith("cassette"):
            raise ConfigError(f"a cassette is named {name!r}: its name must begin with 'cassette'")
        self.name = name
        self._recordings = {prompt: tuple(replies) for prompt, replies in recordings.items()}
        written = canonical({prompt: list(replies) for prompt, replies in self._recordings.items()})
        digest = hashlib.sha256(written.encode("utf-8", "surrogatepass"))
        self.fingerprint = f"cassette-{digest.hexdigest()[:16]}"
        ends = accumulate(map(len, self._recordings.values()), initial=0)
        self._indices = {
            prompt: range(*ends_of) for prompt, ends_of in zip(self._recordings, pairwise(ends), strict=True)
        }
        """Prompt -> the indices of its replies, counted over the whole recording in its order."""
        self._held = sum(map(len, self._recordings.values()))
        self._next: dict[str, int] = {}
        """Prompt -> the index before which all its replies are given; none for a prompt that was not asked."""
        self._given: set[int] = set()

    @property
    def unplayed(self) -> int:
        """Number of recorded replies not yet given."""
        return self._held - len(self._given)

    def skip_replies(self, given: Collection[int]) -> None:
        """Give none of the replies of these indices, counted over the whole recording in its order."""
        self._given |= {index for index in given if 0 <= index < self._held}

    async def complete(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = (), n: int = 1
    ) -> list[Completion]:
        """Returns the next `n` replies recorded for the prompt; CassetteMiss if there are fewer."""
        text = prompt_text(prompt)
        indices = self._indices.get(text, range(0))
        rest = range(self._next.get(text, indices.start), indices.stop)
        free = list(islice((index for index in rest if index not in self._given), n))
        if len(free) < n:
            raise self._miss(text, n)
        completions: list[Completion] = []
        for index in free:
            reply = self._recordings[text][index - indices.start]
            message = _message(reply)
            usage = Usage(0 if completions else len(text.split()), 0, len(_said(message).split()))
            completions.append(Completion(message, _reason(reply), usage, reply_index=index))
            self._next[text] = index + 1
        self._given.update(free)
        return completions

    async def stream(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = ()
    ) -> AsyncIterator[Delta]:
        """Yields the next reply: its text in one piece, then its tool calls."""
        (completion,) = await self.complete(prompt, sampling, tools=tools)
        yield Delta(completion.message.text, None if completion.message.tool_calls else completion)
        for at, call in enumerate(completion.message.tool_calls):
            yield Delta("", call=CallDelta(at, call.id, call.name, json.dumps(call.arguments, ensure_ascii=False)))
        if completion.message.tool_calls:
            yield Delta("", completion)

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> Scored:
        """Raises CassetteMiss: likelihoods are not recorded."""
        raise CassetteMiss(f"{self.name} holds replies and no likelihoods: use a pattern that generates")

    async def count_tokens(
        self, prompt: Prompt, tools: Sequence[ToolSpec] = (), continuations: Sequence[str] = ()
    ) -> int:
        """Returns the words of a prompt."""
        return len(prompt_text(prompt).split())

    def _miss(self, text: str, n: int) -> CassetteMiss:
        if text in self._recordings:
            indices = self._indices[text]
            played = sum(index in self._given for index in indices)
            return CassetteMiss(
                f"{self.name} holds {len(indices)} replies to this, {played} are played and {n} asked:\n{text[-300:]}"
            )
        near = nearest_recorded(text, self._recordings)
        if near is None:
            return CassetteMiss(f"{self.name} is empty, and was asked:\n{text[-300:]}")
        return CassetteMiss(
            f"{self.name} does not hold this request; the nearest differs so:\n" + "\n".join(_differences(near, text))
        )


def prompt_text(prompt: Prompt) -> str:
    """Returns a prompt as recordings are keyed: the text of a plain prompt or a single user message, else roles, texts
    and tool calls, without the calls' ids."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1 and prompt[0].role == "user":
        return prompt[0].text
    return "\n".join(f"[{message.role}]\n{_said(message)}" for message in prompt)


def _said(message: Message) -> str:
    """The message's text, and a line for each of its tool calls."""
    calls = [
        f"[call] {call.name} {canonical(call.arguments) if call.invalid is None else call.invalid}"
        for call in message.tool_calls
    ]
    return "\n".join([*([message.text] if message.text else []), *calls])


def _message(reply: Reply) -> Message:
    """The message of a recorded reply."""
    if isinstance(reply, str):
        return assistant(reply)
    calls = reply.get("tool_calls", ())
    return assistant(
        reply["text"], *(ToolCall(call["id"], call["name"], call["arguments"], call.get("invalid")) for call in calls)
    )


def _reason(reply: Reply) -> FinishReason:
    """Why a recorded reply ended."""
    if isinstance(reply, str):
        return "stop"
    return cast(FinishReason, reply.get("finish_reason", "tool_calls" if reply.get("tool_calls") else "stop"))


def _reply(message: Message, reason: object) -> Reply:
    """The message as recordings hold it: its text, or an object if it has tool calls, was cut or was filtered."""
    ended: Json = {"finish_reason": reason} if reason in ("length", "content_filter") else {}
    if not message.tool_calls:
        return {"text": message.text} | ended if ended else message.text
    calls = [
        {"id": call.id, "name": call.name, "arguments": call.arguments}
        | ({} if call.invalid is None else {"invalid": call.invalid})
        for call in message.tool_calls
    ]
    return {"text": message.text, "tool_calls": calls} | ended


def _differences(near: str, asked: str) -> list[str]:
    """The first lines of what differs, from the first line that does; it takes time by the first `_COMPARED_CHARS`."""
    differs = _first_difference(near, asked)
    start = max(asked.rfind("\n", 0, differs) + 1, differs - _SHOWN_CHARS // 2)
    ours, theirs = (text[start : start + _COMPARED_CHARS].splitlines()[:_COMPARED_LINES] for text in (asked, near))
    before = asked[max(0, start - _SHOWN_CHARS) : start].splitlines()[-1:]
    compared = difflib.unified_diff(before + theirs, before + ours, "nearest recorded", "asked", lineterm="", n=1)
    shown = islice((line for line in compared if not line.startswith("@@")), 40)
    return [line if len(line) <= _SHOWN_CHARS else f"{line[:_SHOWN_CHARS]}..." for line in shown]


def _first_difference(one: str, other: str) -> int:
    """The number of characters at the beginning that are the same, found by halves."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def nearest_recorded(text: str, recorded: Iterable[str]) -> str | None:
    """Returns the recorded prompt most similar to the text, by shared lines and by the end of the text."""
    lines = _lines(text)

    def likeness(other: str) -> tuple[float, float]:
        theirs = _lines(other)
        shared = len(lines & theirs) / max(1, len(lines | theirs))
        return shared, difflib.SequenceMatcher(None, text[-80:], other[-80:], autojunk=False).quick_ratio()

    return max(_first_of(recorded), key=likeness, default=None)


def _first_of(recorded: Iterable[str]) -> Iterator[str]:
    """The first prompts, as many as can be compared within a moment."""
    left = _NEAREST_CHARS
    for each in islice(recorded, _NEAREST_OF):
        yield each
        left -= min(len(each), 2 * _COMPARED_CHARS)
        if left < 0:
            return


def _lines(text: str) -> set[str]:
    """The lines of a text, of a long one those of its beginning and end."""
    if len(text) <= 2 * _COMPARED_CHARS:
        return set(text.splitlines())
    return set(text[:_COMPARED_CHARS].splitlines()) | set(text[-_COMPARED_CHARS:].splitlines())


def recorded(traces: Iterable[Trace]) -> dict[str, list[Reply]]:
    """Returns the prompts and replies of attempts; a reply with tool calls is an object, and one that was cut or filtered.
    Write each as a line for `cassette:FILE.jsonl`."""
    found: dict[str, list[Reply]] = {}
    for trace in traces:
        for call in trace.calls:
            if call.kind == "generate" and call.nodes:
                reasons = call.detail.get("finish_reasons") or ()  # traces from elsewhere may have none
                ended = zip_longest(call.nodes, reasons[: len(call.nodes)])
                replies = [_reply(trace.nodes[node].message, reason) for node, reason in ended]
                found.setdefault(prompt_text(trace.messages(call.at)), []).extend(replies)
    return found
