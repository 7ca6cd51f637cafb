"""Answers with reflection tokens as training data: the generator of Self-RAG (Asai et al., 2023, §3.2.2).

A line has an `instruction` and an `output`, whose reflection tokens stand in the text as `[Relevant]` and so on, and whose
passages stand between `<paragraph>` and `</paragraph>`. Everything of the output counts but the passages, which the model
does not write.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from firsthand.errors import DataError
from firsthand.message import Json
from firsthand.retrieval.reflection.critique import END_PARAGRAPH, MARKS, PARAGRAPH
from firsthand.retrieval.reflection.token_reflections import SPELLED, raw_prompt
from firsthand.tokens.tokenizer import TextRun, Tokenizer
from firsthand.train.documents import json_lines
from firsthand.train.streams import Stream

_PARTS = re.compile("(" + "|".join(map(re.escape, sorted(SPELLED, key=len, reverse=True))) + ")")


@dataclass(frozen=True)
class ReflectedText:
    """One line of a data set."""

    source: str
    """File and line."""
    instruction: str
    output: str


def read_reflected(path: Path) -> list[ReflectedText]:
    """The lines of a JSONL file. DataError for one that lacks a field or a reflection token, or has an open passage."""
    found = [_line(body, where) for body, where in json_lines(path)]
    if not found:
        raise DataError(f"{path} has no line: make it by `firsthand rag label`")
    return found


def _line(body: Json, where: str) -> ReflectedText:
    instruction, output = body.get("instruction"), body.get("output")
    if not isinstance(instruction, str) or not isinstance(output, str) or not instruction.strip() or not output.strip():
        raise DataError(f"{where}: `instruction` and `output` must both be texts that are not empty")
    if not any(mark in output for mark in MARKS):
        raise DataError(f"{where}: the output has no reflection token, such as [Relevant]: label it first")
    depth = 0
    for part in _PARTS.split(output):
        depth += (part == PARAGRAPH) - (part == END_PARAGRAPH)
        if depth not in (0, 1):
            raise DataError(f"{where}: <paragraph> and </paragraph> do not come in pairs")
    if depth:
        raise DataError(f"{where}: a <paragraph> is not closed")
    return ReflectedText(where, instruction, output)


def encode_reflected(text: ReflectedText, tokenizer: Tokenizer) -> Stream:
    """The line as a stream: the prompt and the passages do not count, reflection tokens, words and the end do."""
    ids = tokenizer.encode_prompt(raw_prompt(text.instruction, ""))
    weights = [0.0] * len(ids)
    is_passage = False
    for part in filter(None, _PARTS.split(text.output)):
        is_mark = part in SPELLED
        is_passage |= part == PARAGRAPH
        new = tokenizer.encode_runs([TextRun(part, is_mark)], after=ids)
        ids += new
        weights += [0.0 if is_passage else 1.0] * len(new)
        is_passage &= part != END_PARAGRAPH
    if tokenizer.eos_id is not None:
        ids.append(tokenizer.eos_id)
        weights.append(1.0)
    return Stream(ids=np.asarray(ids), ce=np.asarray(weights, np.float32), source=text.source)
