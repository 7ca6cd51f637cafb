"""Pairs of a chosen and a rejected answer, from the JSONL lines that preference training reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from firsthand.errors import DataError
from firsthand.interp.steering import Answered, Pair
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.tokens.tokenizer import Tokenizer
from firsthand.train.preference_data import read_comparisons
from firsthand.train.streams import Stream


def read_pairs(file: Path, tokenizer: Tokenizer, context: int) -> list[Pair]:
    """The best and the worst answer of each line. DataError, with file and line, for a line that holds no comparison."""
    read = read_comparisons(file, tokenizer, ChatTemplate(tokenizer, tokenizer.chat_template), context=context)
    found = []
    for streams in read.comparisons:
        if len(streams) < 2:
            raise DataError(f"{file} has answers that are judged alone: expected lines with `chosen` and `rejected`")
        found.append(Pair(_answered(streams[0]), _answered(streams[-1])))  # the best comes first
    return found


def distinct(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs, of equal ones the first, in their order: one that came twice could be trained on and held out."""
    found: dict[tuple[tuple[int, ...], tuple[int, ...]], Pair] = {}
    for pair in pairs:
        found.setdefault((tuple(pair.chosen.ids), tuple(pair.rejected.ids)), pair)
    return list(found.values())


def _answered(stream: Stream) -> Answered:
    assert stream.ce is not None
    return Answered(stream.ids.tolist(), int(stream.ce.argmax()))
