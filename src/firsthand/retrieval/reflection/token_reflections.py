"""Self-RAG on a model with reflection tokens: a segment is decoded token by token, and each reflection is read from
log-probs.

Every group of reflections is read whole at the place where the model writes one of it, or, if it writes none, where the
segment ends, from the model's distribution over the vocabulary: no token can be missing from a list of the most probable
ones. The reading is kept in the Completion's `top_logprobs`, a group in the place of a token, so that a resumed attempt
finds it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from firsthand.errors import ConfigError, PromptTooLong
from firsthand.message import Json, assistant
from firsthand.model import Completion, DistributionModel, Prompt, Usage
from firsthand.retrieval.answers.evidence import escaped
from firsthand.retrieval.reflection.critique import (
    END_PARAGRAPH,
    MARKS,
    PARAGRAPH,
    RELEVANCE_WORTH,
    RETRIEVAL_WORTH,
    SUPPORT_WORTH,
    UTILITY_WORTH,
)

SPELLED = (*MARKS, PARAGRAPH, END_PARAGRAPH)
PROBABILITY = "p"
"""The name that the mean log-prob of a segment's tokens has among its readings."""
GROUPS: Mapping[str, Mapping[str, float]] = {
    "retrieval": RETRIEVAL_WORTH,
    "relevance": RELEVANCE_WORTH,
    "support": SUPPORT_WORTH,
    "utility": UTILITY_WORTH,
}


@dataclass(frozen=True)
class SegmentSettings:
    """Settings that decide a segment besides model and prompt."""

    max_tokens: int
    """0: only whether to retrieve is read."""
    has_passage: bool = False

    def to_json(self) -> Json:
        """The settings as a JSON object."""
        return {"decoder": "self_rag_segment", **vars(self)}


@dataclass(frozen=True)
class SegmentReading:
    """A segment with the log-probs of its reflections."""

    text: str
    mean_logprob: float
    groups: Mapping[str, Mapping[str, float]]
    """The log-probs of each group's tokens, by its name in GROUPS. `retrieval` is read at the end of the segment."""
    is_last: bool


def has_reflection_tokens(model: Any) -> bool:
    """True if each reflection token of the paper is one token of a loaded local model."""
    token_id = getattr(model, "token_id", None)
    return token_id is not None and all(token_id(mark) is not None for mark in MARKS)


def raw_prompt(question: str, written: str, passage: str | None = None) -> str:
    """The prompt of the paper's models: the instruction, what is written with its marks, and the next passage."""
    question = marked_off(question)
    shown = "" if passage is None else f"[Retrieval]{PARAGRAPH}{marked_off(passage)}{END_PARAGRAPH}"
    return f"### Instruction:\n{question}\n\n### Response:\n{written}{shown}"


def marked_off(text: str) -> str:
    """The text with reflection tokens and control tokens broken by a backslash, so that no document can write one."""
    for mark in SPELLED:
        text = text.replace(mark, f"{mark[0]}\\{mark[1:]}")
    return escaped(text)


async def decode_segment(settings: SegmentSettings, model: DistributionModel, prompts: Sequence[Prompt]) -> Completion:
    """The next segment after a raw prompt, greedily, as a Completion whose `top_logprobs` are the readings.

    It ends before a retrieval token, at the end of the turn, or after `max_tokens`. ConfigError for a model without
    reflection tokens; PromptTooLong if the context has no room for the segment.
    """
    (prompt,) = prompts
    facts = await model.load()
    ids = {mark: model.token_id(mark) for mark in MARKS}
    if missing := [mark for mark, id in ids.items() if id is None]:
        raise ConfigError(f"{model.name} has no token {missing[0]}: give --reflection choices for a model without them")
    by_id = {id: mark for mark, id in ids.items()}
    context = await model.tokenize_marked(str(prompt), SPELLED)
    num_prompt = len(context)
    if num_prompt + settings.max_tokens + 1 > facts.context:
        raise PromptTooLong(
            f"the prompt has {num_prompt} tokens and the segment may have {settings.max_tokens}: the model's context is "
            f"{facts.context}, so retrieve smaller chunks or lower segment_tokens"
        )
    groups: dict[str, dict[str, float]] = {}
    words: list[int] = []
    logprobs: list[float] = []
    is_last = False

    def read(name: str, logprobs_V: Any) -> None:
        groups.setdefault(name, {mark: float(logprobs_V[ids[mark]]) for mark in GROUPS[name]})

    while True:
        logprobs_V = await model.next_logprobs(context)
        if not words and settings.has_passage:
            read("relevance", logprobs_V)
        token = int(np.argmax(logprobs_V))
        mark = by_id.get(token)
        is_last = token in model.end_ids
        if is_last or mark in RETRIEVAL_WORTH or len(context) - num_prompt >= settings.max_tokens:
            break
        for name in ("relevance", "support", "utility"):
            if mark in GROUPS[name]:
                read(name, logprobs_V)
        context.append(token)
        if mark is None:
            words.append(token)
            logprobs.append(float(logprobs_V[token]))
    for name in ("support", "utility", "retrieval"):
        read(name, logprobs_V)
    mean = math.fsum(logprobs) / len(logprobs) if logprobs else -math.inf
    reading = (((PROBABILITY, mean if logprobs else -1e9),), *(tuple(groups.get(name, {}).items()) for name in GROUPS))
    text = await model.detokenize(words) if words else ""
    used = Usage(prompt_tokens=num_prompt, completion_tokens=len(context) - num_prompt)
    return Completion(assistant(text), "stop" if is_last else "length", used, reading)


def reading_of(text: str, finish_reason: str, top_logprobs: Sequence[Sequence[tuple[str, float]]]) -> SegmentReading:
    """The reading that `decode_segment` put in a Completion."""
    ((_, mean),), *groups = top_logprobs
    return SegmentReading(
        text, mean, {name: dict(group) for name, group in zip(GROUPS, groups, strict=True)}, finish_reason == "stop"
    )


def best_mark(logprobs: Mapping[str, float]) -> str:
    """The most probable token of a group, the first of equals."""
    return max(logprobs, key=lambda mark: logprobs[mark])
