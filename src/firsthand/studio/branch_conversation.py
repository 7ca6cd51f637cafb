"""One branch of an attempt as a conversation: messages with their parts, calls and results, sampled tokens by log-prob."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from firsthand.message import Message, Reasoning, Text, ToolCall, ToolResult
from firsthand.show.trace_shape import marks
from firsthand.studio.token_colours import ColouredToken, logprob_step, tokens_of
from firsthand.trace import Trace

MAX_TEXT_CHARS = 20_000
"""Characters of one part that are sent; the rest is in the raw view."""
MAX_MESSAGES = 400
MAX_BRANCHES = 60
MAX_BARS = 400


@dataclass(frozen=True)
class Block:
    """A part of a message as it is shown."""

    kind: Literal["text", "reasoning", "call", "result"]
    text: str
    title: str = ""
    """The tool's name."""
    origin: str = ""
    """The source of an untrusted result."""
    is_error: bool = False
    left_out: int = 0
    """Characters that are not sent."""


@dataclass(frozen=True)
class Bar:
    """The log-prob of one sampled token, as a step from 0 (certain) to 4 (very unlikely)."""

    logprob: float
    step: int


@dataclass(frozen=True)
class Said:
    """A message of the conversation."""

    node: int
    role: str
    blocks: tuple[Block, ...]
    marks: tuple[str, ...] = ()
    """The notes of the pattern on it: kept, pruned, a value."""
    num_tokens: int = 0
    mean_logprob: float | None = None
    bars: tuple[Bar, ...] = ()
    tokens: tuple[ColouredToken, ...] = ()
    """Its tokens with their text, where their alternatives were recorded."""
    siblings: tuple[int, ...] = ()
    """The messages beside it, where the attempt forked; its own node among them."""


@dataclass(frozen=True)
class Conversation:
    """A branch from its first message to a leaf."""

    said: tuple[Said, ...]
    leaf: int | None
    leaves: tuple[int, ...]
    """The last message of each branch, up to MAX_BRANCHES."""
    num_leaves: int
    left_out: int = 0
    """Messages in the middle that are not sent."""
    leaf_of: Mapping[int, int] = field(default_factory=dict)
    """For each sibling the leaf that its branch leads to."""


def conversation(trace: Trace, leaf: int | None = None) -> Conversation:
    """The branch that ends at `leaf`, by default the one that holds the message made last.

    A leaf that is in the middle is followed to the end of its last branch.
    """
    children: dict[int | None, list[int]] = {}
    for index, node in enumerate(trace.nodes):
        children.setdefault(node.parent, []).append(index)
    leaves = [index for index in range(len(trace.nodes)) if index not in children]
    if leaf is None or not 0 <= leaf < len(trace.nodes):
        leaf = _last_made(trace)
    while leaf is not None and leaf in children:
        leaf = children[leaf][-1]
    path = trace.path(leaf)
    noted, _ = marks(trace)
    shown = path if len(path) <= MAX_MESSAGES else (*path[: MAX_MESSAGES // 2], *path[-MAX_MESSAGES // 2 :])
    said, leaf_of = [], {}
    for index in shown:
        siblings = tuple(children.get(trace.nodes[index].parent, ())) if len(leaves) > 1 else ()
        siblings = siblings[:MAX_BRANCHES] if len(siblings) > 1 else ()
        for sibling in siblings:
            leaf_of[sibling] = _down(sibling, children)
        told = tuple(str(mark) for mark in noted.get(index, ()))
        said.append(_said(index, trace.nodes[index].message, told, siblings, tokens_of(trace, index)))
    return Conversation(tuple(said), leaf, tuple(leaves[:MAX_BRANCHES]), len(leaves), len(path) - len(shown), leaf_of)


def message_blocks(message: Message, limit: int = MAX_TEXT_CHARS) -> tuple[Block, ...]:
    """The parts of a message; texts are cut at `limit`."""
    return tuple(_block(part, limit) for part in message.parts)


def _said(
    index: int,
    message: Message,
    told: tuple[str, ...],
    siblings: tuple[int, ...],
    tokens: tuple[ColouredToken, ...] = (),
) -> Said:
    logprobs = message.sampled.logprobs if message.sampled is not None else ()
    finite = [each for each in logprobs if math.isfinite(each)]
    return Said(
        index,
        message.role,
        message_blocks(message),
        told,
        len(logprobs),
        sum(finite) / len(finite) if finite else None,
        tuple(Bar(each, logprob_step(each)) for each in logprobs[:MAX_BARS]),
        tokens,
        siblings,
    )


def _block(part: object, limit: int) -> Block:
    if isinstance(part, Text):
        return _cut("text", part.text, limit)
    if isinstance(part, Reasoning):
        return _cut("reasoning", part.text, limit)
    if isinstance(part, ToolCall):
        said = part.invalid if part.invalid is not None else json.dumps(part.arguments, ensure_ascii=False, indent=1)
        return _cut("call", said, limit, title=part.name, is_error=part.invalid is not None)
    assert isinstance(part, ToolResult)
    return _cut("result", part.content, limit, title=part.name, origin=part.origin or "", is_error=part.is_error)


def _cut(
    kind: Literal["text", "reasoning", "call", "result"],
    text: str,
    limit: int,
    *,
    title: str = "",
    origin: str = "",
    is_error: bool = False,
) -> Block:
    return Block(kind, text[:limit], title[:200], origin[:400], is_error, max(0, len(text) - limit))


def _last_made(trace: Trace) -> int | None:
    """The message that was made last, by the calls; the last of the list without calls."""
    for call in reversed(trace.calls):
        if call.nodes:
            return call.nodes[-1]
    return len(trace.nodes) - 1 if trace.nodes else None


def _down(index: int, children: Mapping[int | None, list[int]]) -> int:
    while index in children:
        index = children[index][-1]
    return index
