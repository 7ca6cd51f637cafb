"""Comparisons of answers as training data: JSONL lines to streams, chosen and rejected, ranked, or judged alone.

Lines have `prompt`, `chosen` and `rejected`; or `prompt` and `answers`, the best first; or `prompt`, `completion` and
`label` (true or false). Prompt and answers are all texts, or all lists of messages in OpenAI's format. Two published layouts
are read as they come, gzipped or not: hh-rlhf's whole dialogues ("Human: ... Assistant: ..."), and UltraFeedback's lists of
messages that include the prompt, binarised or with scored completions (`preference_layouts.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from firsthand.errors import DataError
from firsthand.message import Json
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.tokens.tokenizer import Tokenizer
from firsthand.train.conversations import TooLong, conversation_of, encode_conversation
from firsthand.train.documents import json_lines
from firsthand.train.preference_layouts import as_comparison, ranked_answers
from firsthand.train.streams import Stream

Encode = Callable[[Json, str], Stream]
Kind = Literal["pair", "ranking", "single"]
"""Of a line: a chosen and a rejected answer, ranked answers, or an answer that is judged alone."""

_KINDS: dict[Kind, tuple[str, str]] = {
    "pair": ("a chosen and a rejected answer", "`chosen` and `rejected`"),
    "ranking": ("ranked answers", "`answers`"),
    "single": ("an answer that is judged alone", "`completion` and `label`"),
}
"""The content of each kind of line, and its fields beside `prompt`."""


class ReadComparisons(NamedTuple):
    """The comparisons of a file."""

    comparisons: list[list[Stream]]
    num_skipped: int
    """Lines left out because an answer is longer than the context, or two are the same tokens within it."""
    num_undecided: int
    """Lines of a published layout in which no answer is preferred to another, or whose dialogues part before the end."""


def read_comparisons(
    path: Path, tokenizer: Tokenizer, chat: ChatTemplate, *, context: int, too_long: TooLong = "skip",
    kinds: Collection[Kind] = tuple(_KINDS),
) -> ReadComparisons:  # fmt: skip
    """The comparisons of a JSONL file, each a list of streams with `pair` and `label`, and how many lines were left out.

    Labels are 1 for chosen or desirable, -1 for rejected or undesirable, and for K ranked answers K for the best to 1. The
    weights `ce` are 1 for the tokens of answers: of an answer judged alone after a prompt of messages, those of all its
    assistant turns; of compared answers, which are alike up to their last message, those of the last. DataError, with file
    and line, for a bad line or one of another kind than `kinds`, or if nothing is left.
    """

    def encode(line: Json, where: str, *, last_only: bool) -> Stream:
        return encode_conversation(conversation_of(line, where), tokenizer, chat, last_only=last_only)

    found: list[list[Stream]] = []
    num_skipped = num_undecided = 0
    for given, where in json_lines(path):
        body = as_comparison(given, where)
        if body is None:
            num_undecided += 1
            continue
        _expect_kind(body, where, kinds)
        encoded = partial(encode, last_only=not _counts_whole(body))
        streams = [_cut(stream, context, too_long, where) for stream in _comparison(body, where, encoded)]
        kept = [replace(stream, pair=len(found)) for stream in streams if stream is not None]
        if len(kept) < len(streams) or len({stream.ids.tobytes() for stream in kept}) < len(kept):
            num_skipped += 1
            continue
        found.append(kept)
    if not found:
        left_out = f"{num_skipped} are longer, or alike within it"
        if num_undecided:
            left_out += f"; in {num_undecided} no answer is preferred, or the dialogues part before their last message"
        raise DataError(f"{path} has no comparison within a context of {context} tokens ({left_out})")
    return ReadComparisons(found, num_skipped, num_undecided)


def _expect_kind(body: Json, where: str, kinds: Collection[Kind]) -> None:
    kind = _kind_of(body)
    if kind is not None and kind not in kinds:
        fields = " or with ".join(each for other, (_, each) in _KINDS.items() if other in kinds)
        raise DataError(f"{where} has {_KINDS[kind][0]}, which this recipe does not take: give lines with {fields}")


def _kind_of(body: Json) -> Kind | None:
    """The kind of a line in our own layout; None if it has none."""
    if "chosen" in body or "rejected" in body:
        return "pair"
    if "answers" in body:
        return "ranking"
    return "single" if "label" in body else None


def _counts_whole(body: Json) -> bool:
    """True for an answer judged alone whose first message is known, so that all of its assistant turns are the answer."""
    return _kind_of(body) == "single" and isinstance(body.get("prompt"), list)


def _comparison(body: Json, where: str, encode: Encode) -> list[Stream]:
    kind = _kind_of(body)
    if kind == "pair":
        answers, labels = [body.get("chosen"), body.get("rejected")], [1.0, -1.0]
        if answers[0] == answers[1]:
            raise DataError(f"{where}: `chosen` and `rejected` are equal: nothing is preferred, so leave the line out")
    elif kind == "ranking":
        answers = ranked_answers(body, where)
        labels = [float(len(answers) - rank) for rank in range(len(answers))]
    elif kind == "single":
        if not isinstance(body["label"], bool):
            raise DataError(f"{where}: its label is {body['label']!r}: expected true or false")
        answers, labels = [body.get("completion")], [1.0 if body["label"] else -1.0]
    else:
        raise DataError(
            f"{where} has the fields {', '.join(map(str, list(body)[:6])) or '(none)'}: expected `prompt` with `chosen` and "
            "`rejected`, with `answers`, or with `completion` and `label`"
        )
    return [
        replace(encode(_line(body, answer, where), where), pair=0, label=label)
        for answer, label in zip(answers, labels, strict=True)
    ]


def _line(body: Json, answer: Any, where: str) -> Json:
    """Prompt and one answer as a line of `conversations`."""
    tools = {"tools": body["tools"]} if "tools" in body else {}
    if answer is None:
        raise DataError(f"{where}: an answer is missing: expected both `chosen` and `rejected`, or `completion`")
    if "prompt" not in body and isinstance(answer, list):
        return {"messages": answer, **tools}
    return {"prompt": body.get("prompt"), "completion": answer, **tools}


def _cut(stream: Stream, context: int, too_long: TooLong, where: str) -> Stream | None:
    """The stream within the context; None if it is to be skipped, or if nothing that counts is left."""
    if len(stream) <= context:
        return stream
    if too_long == "refuse":
        raise DataError(f"{where} has {len(stream)} tokens, and the context is {context}: shorten or cut it")
    assert stream.ce is not None
    if too_long == "skip" or not stream.ce[:context].any():
        return None
    return replace(stream, ids=stream.ids[:context], ce=stream.ce[:context])


def mismatched(rows: Sequence[Stream], *, context: int) -> list[Stream]:
    """Each row's prompt with the answer of the next row of another prompt, as KTO's baseline wants them.

    (arXiv:2402.01306, section 4.1.) An answer that goes beyond the context of so many tokens after that prompt is passed
    over, and a prompt that no answer fits is left out. Empty if all rows have one prompt.
    """
    found, prompts, starts = [], list(map(prompt_of, rows)), [_start_of(row) for row in rows]
    for at, row in enumerate(rows):
        others = (each % len(rows) for each in range(at + 1, at + len(rows)))
        room = context - starts[at]
        next_at = next(
            (each for each in others if prompts[each] != prompts[at] and len(rows[each]) - starts[each] <= room), None
        )
        if next_at is None:
            continue
        other = rows[next_at]
        assert other.ce is not None
        start, begin = starts[at], starts[next_at]
        ids = np.concatenate([row.ids[:start], other.ids[begin:]])
        found.append(Stream(ids, ce=np.concatenate([np.zeros(start, np.float32), other.ce[begin:]])))
    return found


def prompt_of(row: Stream) -> bytes:
    """The ids before the answer of a row, as something to compare by."""
    return row.ids[: _start_of(row)].tobytes()


def _start_of(row: Stream) -> int:
    """The place of the first token of a row's answer."""
    assert row.ce is not None
    return int(row.ce.argmax())
