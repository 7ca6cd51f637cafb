"""Segments with reflections and marginalised answers, decoded from a model that is a table of distributions."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError, PromptTooLong
from firsthand.model import Usage
from firsthand.retrieval.marginal.marginal_answer import MarginalSettings, decode_marginal
from firsthand.retrieval.reflection.critique import (
    CONTINUE_EVIDENCE,
    FULLY,
    IRRELEVANT,
    MARKS,
    NO_RETRIEVAL,
    PARTIALLY,
    RELEVANT,
    RETRIEVAL,
    UTILITIES,
)
from firsthand.retrieval.reflection.token_reflections import (
    GROUPS,
    SPELLED,
    SegmentSettings,
    best_mark,
    decode_segment,
    reading_of,
)

END, WORDS = 40, 20


class Table:
    """A model in this process whose next distribution is a function of the ids so far."""

    name = "table"
    end_ids = frozenset({END, END + 1})

    def __init__(self, next_of: Callable[[Sequence[int]], Any], prompts: dict[str, list[int]], context: int = 99):
        self.next_of, self.prompts, self.context = next_of, prompts, context
        self.asked: list[tuple[int, ...]] = []
        self.spelled: Any = None

    async def load(self) -> Any:
        return SimpleNamespace(context=self.context)

    def token_id(self, mark: str) -> int | None:
        return MARKS.index(mark)

    async def tokenize(self, prompt: Any) -> list[int]:
        return self.prompts[prompt]

    async def tokenize_marked(self, text: str, marks: Sequence[str]) -> list[int]:
        self.spelled = marks
        return list(self.prompts[text])

    async def next_logprobs(self, ids: Sequence[int]) -> Any:
        self.asked.append(tuple(ids))
        return self.next_of(ids)

    async def rate(self, ids: Sequence[int]) -> Any:
        self.asked.append(tuple(ids))
        return [SimpleNamespace(logprob=float(self.next_of(ids[:at])[ids[at]])) for at in range(1, len(ids))]

    async def detokenize(self, ids: Sequence[int]) -> str:
        return " ".join(f"w{id}" for id in ids)

    def spell(self, ids: Sequence[int]) -> list[bytes]:
        return [f"<{id}>".encode() for id in ids]


def scripted(first: int, *tokens: int) -> Callable[[Sequence[int]], Any]:
    """The tokens one after the other; every log-prob tells the step it is of: -step - id / 100, the chosen one -step / 8."""

    def next_of(ids: Sequence[int]) -> Any:
        step = len(ids) - first + 1
        row = -step - np.arange(50) / 100
        row[tokens[step - 1]] = -step / 8
        return row

    return next_of


def at_step(name: str, step: int, chosen: int = -1) -> dict[str, float]:
    """The log-probs of a group at a step of a script."""
    ids = {mark: MARKS.index(mark) for mark in GROUPS[name]}
    return {mark: pytest.approx(-step / 8 if id == chosen else -step - id / 100) for mark, id in ids.items()}


def segment(model: Table, *settings: Any) -> tuple[Any, Any]:
    made = asyncio.run(decode_segment(SegmentSettings(*settings), model, ["p"]))  # type: ignore[arg-type]
    assert made.top_logprobs is not None
    return made, reading_of(made.message.text, made.finish_reason, made.top_logprobs)


def used(prompt: int, made: int) -> Usage:
    return Usage(prompt_tokens=prompt, completion_tokens=made)


def mark(name: str) -> int:
    return MARKS.index(name)


def test_each_reflection_is_read_where_the_model_writes_it_first() -> None:
    steps = (mark(IRRELEVANT), WORDS, WORDS + 3, mark(PARTIALLY), mark(FULLY), mark(UTILITIES[3]), mark(RETRIEVAL))
    model = Table(scripted(3, *steps), {"p": [7, 8, 9]})
    made, reading = segment(model, 10, True)
    assert reading.groups == {
        "retrieval": at_step("retrieval", 7, mark(RETRIEVAL)),
        "relevance": at_step("relevance", 1, mark(IRRELEVANT)),
        "support": at_step("support", 4, mark(PARTIALLY)),
        "utility": at_step("utility", 6, mark(UTILITIES[3])),
    }
    assert (reading.text, reading.is_last, made.finish_reason) == ("w20 w23", False, "length")
    assert reading.mean_logprob == pytest.approx(-(2 + 3) / 8 / 2)  # of the words alone, the second and third steps
    assert made.usage == used(3, 6) and model.spelled == SPELLED
    assert model.asked == [(7, 8, 9, *steps[:number]) for number in range(7)]
    assert best_mark(reading.groups["support"]) == PARTIALLY and best_mark({"a": -1.0, "b": -1.0, "c": -2.0}) == "a"


def test_reflections_that_are_not_written_are_read_where_the_segment_ends() -> None:
    for ending, last in ((END, True), (END + 1, True), (mark(NO_RETRIEVAL), False), (mark(CONTINUE_EVIDENCE), False)):
        _, reading = segment(Table(scripted(1, WORDS + 1, ending), {"p": [7]}), 9, False)
        assert (reading.text, reading.is_last, reading.mean_logprob) == ("w21", last, -1 / 8)
        assert reading.groups == {
            "retrieval": at_step("retrieval", 2, ending),
            "relevance": {},
            "support": at_step("support", 2),
            "utility": at_step("utility", 2),
        }
    # with a passage that the model does not judge, its relevance is read at the first step
    _, reading = segment(Table(scripted(1, WORDS + 1, END), {"p": [7]}), 9, True)
    assert reading.groups["relevance"] == at_step("relevance", 1)
    # a model may write of relevance though it was given no passage; then it is read there
    _, reading = segment(Table(scripted(1, WORDS, mark(RELEVANT), END), {"p": [7]}), 9, False)
    assert reading.groups["relevance"] == at_step("relevance", 2, mark(RELEVANT))


def test_a_segment_ends_at_its_tokens_and_needs_room_for_them_and_one_more() -> None:
    steps = scripted(2, WORDS, mark(FULLY), WORDS + 2, WORDS + 3)
    made, reading = segment(Table(steps, {"p": [1, 2]}, context=6), 3, False)
    assert (reading.text, made.finish_reason, made.usage) == ("w20 w22", "length", used(2, 3))
    assert reading.mean_logprob == pytest.approx(-(1 + 3) / 8 / 2)
    made, reading = segment(Table(steps, {"p": [1, 2]}, context=3), 0, False)
    assert (reading.text, reading.mean_logprob, made.usage) == ("", -1e9, used(2, 0))
    assert reading.groups["retrieval"] == at_step("retrieval", 1)
    with pytest.raises(PromptTooLong) as short:
        segment(Table(steps, {"p": [1, 2]}, context=5), 3, False)
    assert str(short.value) == (
        "the prompt has 2 tokens and the segment may have 3: the model's context is 5, so retrieve smaller chunks or lower "
        "segment_tokens"
    )

    class Lacks(Table):
        def token_id(self, mark: str) -> int | None:
            return None if mark in (IRRELEVANT, UTILITIES[4]) else MARKS.index(mark)

    with pytest.raises(ConfigError) as lacks:
        segment(Lacks(steps, {"p": [1, 2]}), 3, False)
    assert str(lacks.value) == "table has no token [Irrelevant]: give --reflection choices for a model without them"
    assert SegmentSettings(7, True).to_json() == {
        "decoder": "self_rag_segment",
        "max_tokens": 7,
        "has_passage": True,
    }


# -- marginal answers --

A, B = 0, 1
CHANCES = {  # of token A, of token B and of the end, by document and answer so far
    ((5,), ()): (0.6, 0.3, 0.1),
    ((5,), (A,)): (0.05, 0.05, 0.9),
    ((5,), (B,)): (0.05, 0.05, 0.9),
    ((6, 6), ()): (0.1, 0.8, 0.1),
    ((6, 6), (A,)): (0.2, 0.4, 0.4),
    ((6, 6), (B,)): (0.1, 0.2, 0.7),
}


def of_document(ids: Sequence[int]) -> Any:
    start = 1 if ids[0] == 5 else 2
    if len(ids) < start:  # within a prompt, whose own tokens are no part of an answer
        return np.full(END + 2, -77.0)
    row = np.full(END + 2, -np.inf)
    row[[A, B, END]] = np.log(CHANCES[tuple(ids[:start]), tuple(ids[start:])])
    return row


def decoded(prior: tuple[float, float], decoder: Any, max_tokens: int = 2, context: int = 99, **more: Any) -> Any:
    model = Table(of_document, {"one": [5], "two": [6, 6]}, context)
    settings = MarginalSettings(decoder, tuple(map(math.log, prior)), max_tokens, **more)
    return asyncio.run(decode_marginal(settings, model, ["one", "two"])), model  # type: ignore[arg-type]


def test_rag_token_decodes_the_mixture_and_tells_the_log_prob_of_each_of_its_tokens() -> None:
    made, model = decoded((0.75, 0.25), "rag_token")
    # first token: A .75 * .6 + .25 * .1 = .475, B .425; then the end: .75 * .9 + .25 * .4 = .775
    assert (made.message.text, made.finish_reason) == ("w0", "stop")
    assert [[text for text, _ in each] for each in made.top_logprobs] == [["<0>"], ["<40>"]]
    assert [math.exp(each[0][1]) for each in made.top_logprobs] == pytest.approx([0.475, 0.775])
    assert made.usage == used(3, 4)
    assert model.asked == [(5,), (6, 6), (5, A), (6, 6, A)]
    cut, _ = decoded((0.25, 0.75), "rag_token", max_tokens=1)
    assert (cut.message.text, cut.finish_reason, cut.usage) == ("w1", "length", used(3, 2))
    assert math.exp(cut.top_logprobs[0][0][1]) == pytest.approx(0.25 * 0.3 + 0.75 * 0.8)


def test_rag_sequence_puts_the_answers_log_prob_on_its_first_token() -> None:
    # greedy beams: "A end" of the first document (.54), "B end" of the second (.56); each is then scored under the other
    made, model = decoded((0.5, 0.5), "rag_sequence")
    joint = {A: 0.5 * 0.6 * 0.9 + 0.5 * 0.1 * 0.4, B: 0.5 * 0.3 * 0.9 + 0.5 * 0.8 * 0.7}
    assert joint[A] < joint[B]
    assert (made.message.text, made.finish_reason) == ("w1", "stop")
    assert made.top_logprobs == ((("<1>", pytest.approx(math.log(joint[B]))),), (("<40>", 0.0),))
    assert made.usage == used(3, 4 + 2 * 2)
    assert sorted(model.asked[-2:]) == [(5, B, END), (6, 6, A, END)]
    fast, _ = decoded((0.5, 0.5), "rag_sequence", decoding="fast")
    assert fast.top_logprobs[0][0][1] == pytest.approx(math.log(0.5 * 0.8 * 0.7)) and fast.usage == used(3, 4)
    first, _ = decoded((0.9, 0.1), "rag_sequence")
    assert first.message.text == "w0"
    assert first.top_logprobs[0][0][1] == pytest.approx(math.log(0.9 * 0.54 + 0.1 * 0.04))
    two, _ = decoded((0.5, 0.5), "rag_sequence", beams=2, decoding="fast")
    # with two beams both documents find both answers, so that nothing is missing
    assert two.top_logprobs[0][0][1] == pytest.approx(math.log(joint[B]))


def test_the_longest_prompt_and_the_answer_fit_the_context() -> None:
    assert decoded((0.5, 0.5), "rag_token", context=4)[0].message.text == "w1"  # A .35, B .55
    with pytest.raises(PromptTooLong) as short:
        decoded((0.5, 0.5), "rag_token", context=3)
    assert str(short.value) == (
        "a document's prompt has 2 tokens and the answer may have 2: the model's context is 3, so retrieve smaller chunks "
        "or lower max_tokens"
    )
    assert MarginalSettings("rag_token", (-1.0, -2.0), 9, 3, "fast").to_json() == {
        "decoder": "rag_token",
        "document_logprobs": [-1.0, -2.0],
        "max_tokens": 9,
        "beams": 3,
        "decoding": "fast",
    }
    plain = MarginalSettings("rag_sequence", (), 1)
    assert (plain.beams, plain.decoding) == (1, "thorough")
