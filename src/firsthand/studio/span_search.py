"""Finds the spans whose contents hold some words: messages, arguments, results, errors and data, whatever the case."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from firsthand.errors import ConfigError
from firsthand.ingest.incoming_span import StoredSpan
from firsthand.message import Json

MAX_WORDS_CHARS = 500


def refs_holding(body: Json, words: str) -> list[str]:
    """The calls and events of an attempt as JSON that hold the words, as `call:N` and `event:N`.

    A message counts for the call that made it; one that no call made, for the first call that was asked with it.
    """
    word = _checked(words)
    nodes, calls = body["nodes"], body["calls"]
    owner = {node: number for number, call in enumerate(calls) for node in call["nodes"]}
    for number, call in enumerate(calls):
        at = call["at"]
        while at is not None and at not in owner and 0 <= at < len(nodes):
            owner[at] = number
            at = nodes[at]["parent"]
    found = {owner[node] for node in owner if 0 <= node < len(nodes) and _holds(nodes[node]["message"], word)}
    found |= {number for number, call in enumerate(calls) if _holds((call["detail"], call["error"]), word)}
    events = [number for number, event in enumerate(body["events"]) if _holds(event["data"], word)]
    return [f"call:{number}" for number in sorted(found)] + [f"event:{number}" for number in events]


def spans_holding(spans: Sequence[StoredSpan], words: str) -> list[str]:
    """The spans of a received trace that hold the words, as `span:N`."""
    word = _checked(words)
    return [
        f"span:{number}"
        for number, each in enumerate(spans)
        if _holds((each.span.name, each.span.error, each.span.body()), word)
    ]


def _checked(words: str) -> str:
    if len(words) > MAX_WORDS_CHARS:
        raise ConfigError(f"the search has {len(words):,} characters: at most {MAX_WORDS_CHARS} are read")
    return words.strip().lower()


def _holds(value: object, word: str) -> bool:
    return any(word in text.lower() for text in _texts(value))


def _texts(value: Any) -> Iterator[str]:
    """The texts within a value, without the names of its parts."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict):
            waiting += each.values()
        elif isinstance(each, list | tuple):
            waiting += each
