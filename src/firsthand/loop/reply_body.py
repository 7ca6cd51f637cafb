"""Replies to generations as journals and caches keep them: a prompt's token ids as what they add to an earlier reply.

A conversation of n turns has n prompts, each of which holds the one before. So a body holds only the ids that its prompt
adds, and the key of the request that it continues, under which any store finds the rest. A checksum guards against a store
whose earlier reply is another one than that of the time: then the ids are not known.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from firsthand.message import Json
from firsthand.model import Completion


@dataclass(frozen=True)
class Continued:
    """The request that a prompt continues, as token ids."""

    request: str
    """Its key."""
    sample: int
    """Index of its answer that is continued."""
    ids: Sequence[int]
    """Its prompt and that answer."""


def shared(ids: Sequence[int], earlier: Sequence[int]) -> int:
    """The number of ids at the beginning that are the same."""
    size = min(len(ids), len(earlier))
    if ids[:size] == earlier[:size]:
        return size
    return next(place for place in range(size) if ids[place] != earlier[place])


def to_body(completions: Sequence[Completion], continued: Continued | None = None) -> Json:
    """The answers to one prompt as a JSON object that holds the prompt's ids once, without what `continued` has."""
    ids = completions[0].prompt_ids if completions else None
    if ids is None:
        return {"completions": [each.to_json() for each in completions]}
    body: Json = {"completions": [replace(each, prompt_ids=None).to_json() for each in completions]}
    kept = 0 if continued is None else shared(ids, tuple(continued.ids))
    body["prompt"] = {"ids": list(ids[kept:]), "check": _checksum(ids)}
    if continued is not None and kept:
        body["prompt"] |= {"after": continued.request, "sample": continued.sample, "kept": kept}
    return body


def from_body(body: Json, earlier: Callable[[str, int], Sequence[int] | None]) -> list[Completion]:
    """The answers that `to_body` wrote. `earlier` gives the ids of a request's prompt and one of its answers, if known."""
    completions = [Completion.from_json(each) for each in body["completions"]]
    if (prompt := body.get("prompt")) is None:
        return completions
    base: Sequence[int] | None = ()
    if "after" in prompt:
        base = earlier(prompt["after"], prompt["sample"])
    if base is None:
        return completions
    whole = (*base[: prompt.get("kept", 0)], *prompt["ids"])
    if _checksum(whole) != prompt["check"]:
        return completions
    return [replace(each, prompt_ids=whole) for each in completions]


class ReplyChain:
    """The ids of a conversation, put together from the bodies of its replies: each costs only the ids that it adds."""

    def __init__(self, ids: Sequence[int] | None):
        """`ids` are those that the first body continues; None if they are not known."""
        self.ids = None if ids is None else array("q", ids)
        self._check = _checksum(ids or ())

    def go_on(self, body: Json, sample: int) -> None:
        """Take in the next body and one of its answers. The ids are None where they turn out to be others."""
        prompt = body.get("prompt")
        if self.ids is None or prompt is None:
            self.ids = None
            return
        if (kept := prompt.get("kept", 0)) < len(self.ids):
            del self.ids[kept:]
            self._check = _checksum(self.ids)
        self._add(prompt["ids"])
        sampled = None
        if self._check == prompt["check"] and 0 <= sample < len(body["completions"]):
            sampled = Completion.from_json(body["completions"][sample]).message.sampled
        if sampled is None:
            self.ids = None
        else:
            self._add(sampled.token_ids)

    def _add(self, ids: Sequence[int]) -> None:
        assert self.ids is not None
        more = array("q", ids)
        self.ids += more
        self._check = zlib.crc32(more.tobytes(), self._check)


def answered(completion: Completion) -> tuple[int, ...] | None:
    """The ids of a prompt and its answer; None if they are not known."""
    sampled = completion.message.sampled
    return None if completion.prompt_ids is None or sampled is None else completion.prompt_ids + sampled.token_ids


def _checksum(ids: Sequence[int]) -> int:
    return zlib.crc32(array("q", ids).tobytes())
