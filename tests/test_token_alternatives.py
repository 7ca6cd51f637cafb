"""Alternatives of each token by their exact bytes, and offsets that point into the text."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from firsthand.cluster.replicas.replica_messages import delta_json, delta_of
from firsthand.cluster.replicas.resume import ShownAnswer
from firsthand.engine.core.outputs import Output
from firsthand.message import assistant
from firsthand.model import Completion, Delta, ModelFacts, TokenRating, Usage
from firsthand.providers.local_completions import AnswerInProgress
from firsthand.serve.openai.chat_completions import chat_completions
from firsthand.serve.openai.completions import completions
from firsthand.tokens.incremental_decoding import StopStrings
from spelled_model import SpelledModel, answered, state_of
from test_tokens_space_prefix import made

WORDS = {1: b"<s>", 2: b"</s>", 3: b" The", 4: b" no", 5: b"no", 6: b"\xf0\x9f", 7: b"\xa6", 8: b"\x9c"}
HI = [{"role": "user", "content": "Hi"}]


class Words(SpelledModel):
    """A SentencePiece model of a few words."""

    def __init__(self, *deltas: Delta) -> None:
        super().__init__(*deltas)
        self.facts = ModelFacts(100, 9, None, False, hidden_ids=(1, 2), strips_space=True)

    def spell(self, ids: Sequence[int]) -> list[bytes]:
        return [WORDS[id] for id in ids]

    async def tokenize(self, prompt: Any, tools: Any = (), *, template: Any = None) -> list[int]:
        return [1, 3, 4]

    async def detokenize(self, ids: Sequence[int]) -> str:
        return b"".join(WORDS[id] for id in ids if id > 2).decode().removeprefix(" ")

    async def rate(self, ids: Sequence[int], top: int = 0, **options: Any) -> list[TokenRating]:
        return [TokenRating(id, -1.0, ((6, -0.5), (7, -0.75))[:top]) for id in ids[1:]]


def piece(text: str, ids: Sequence[int], *tops: Sequence[int]) -> Delta:
    top = tuple(tuple((WORDS[id].decode("utf-8", "replace"), -0.25 * id) for id in ids) for ids in tops)
    return Delta(
        text, token_ids=tuple(ids), logprobs=(-2.0,) * len(ids), top_logprobs=top, top_ids=tuple(map(tuple, tops))
    )


END = Delta("", Completion(assistant(" no"), "stop", Usage(3, 1)))


def test_alternatives_of_a_chat_have_the_bytes_of_their_tokens() -> None:
    body = {"messages": HI, "logprobs": True, "top_logprobs": 2}
    model = Words(piece(" no", [4], [4, 5]), piece("", [6], [6, 7]), END)
    found = answered(chat_completions, state_of(model), body)["choices"][0]["logprobs"]["content"]
    assert [[each["bytes"] for each in token["top_logprobs"]] for token in found] == [
        [list(WORDS[4]), list(WORDS[5])], [list(WORDS[6]), list(WORDS[7])],
    ]  # fmt: skip
    assert [each["token"] for each in found[0]["top_logprobs"]] == [" no", "no"]
    *events, _ = answered(chat_completions, state_of(model), body | {"stream": True})
    told = [each["choices"][0]["logprobs"] for each in events if each["choices"][0]["logprobs"]]
    assert [token for each in told for token in each["content"]] == found


def test_alternatives_of_a_completion_are_told_apart() -> None:
    model = Words(piece(" no", [4], [4, 5]), piece("", [6], [6, 7, 8]), END)
    found = answered(completions, state_of(model), {"prompt": "x", "logprobs": 3})["choices"][0]["logprobs"]
    assert found["tokens"] == [" no", r"bytes:\xf0\x9f"]
    assert [list(each) for each in found["top_logprobs"]] == [
        ["no", " no"], [r"bytes:\x9c", r"bytes:\xa6", r"bytes:\xf0\x9f"],
    ]  # fmt: skip


@pytest.mark.parametrize("prompt", ["The no", [1, 3, 4], [3, 1, 4]])
@pytest.mark.parametrize("stream", [False, True])
def test_offsets_of_an_echo_and_its_answer_point_into_the_text(prompt: Any, stream: bool) -> None:
    model = Words(piece(" no", [4], [4]), piece("no", [2, 5], [2], [5]), END)
    body = {"prompt": prompt, "echo": True, "logprobs": 1, "stream": stream}
    got = answered(completions, state_of(model), body)
    parts = [each["choices"][0] for each in got if isinstance(each, dict)] if stream else got["choices"]
    text = "".join(each["text"] for each in parts)
    offsets = [at for each in parts for at in each["logprobs"]["text_offset"]]
    assert text == "The no nono"
    assert offsets == ([0, 3, 3, 6, 9, 9] if prompt == [3, 1, 4] else [0, 0, 3, 6, 9, 9])


def test_an_echo_of_a_vocabulary_that_strips_no_space_begins_with_it() -> None:
    model = Words(piece("no", [5], [5]), END)
    model.facts = replace(model.facts, strips_space=False)
    body = {"prompt": [1, 3, 4], "echo": True, "logprobs": 1}
    assert answered(completions, state_of(model), body)["choices"][0]["logprobs"]["text_offset"] == [0, 0, 4, 7]


def test_offsets_count_special_tokens_that_are_shown() -> None:
    model = Words(piece("</s>no", [2, 5], [2], [5]), END)
    body = {"prompt": "x", "logprobs": 1, "skip_special_tokens": False}
    assert answered(completions, state_of(model), body)["choices"][0]["logprobs"]["text_offset"] == [0, 4]


def test_an_answer_under_way_notes_alternatives_by_text_and_id() -> None:
    one = made()
    yes, spaced, byte = (one.id_of(name) or 0 for name in ("yes", "▁yes", "<0xF0>"))
    answer = AnswerInProgress(StopStrings(one, ()))
    answer.add(Output(0, 0, (yes,), (-1.0,), False, top_logprobs=(((spaced, -0.5), (yes, -1.0), (byte, -2.0)),)), one)
    assert answer.top_logprobs == [((" yes", -0.5), ("yes", -1.0), ("\ufffd", -2.0))]
    assert answer.top_ids == [(spaced, yes, byte)]


def test_ids_of_alternatives_travel_between_replicas() -> None:
    whole = piece(" no", [4, 5], [4, 5], [5])
    assert delta_of(delta_json(whole)) == whole
    assert asyncio.run(Words().load()).hidden_ids == (1, 2) and replace(whole).top_ids == ((4, 5), (5,))
    shown = ShownAnswer()
    shown.rest(piece(" no", [4], [4, 5]))
    shown.restart()
    rest = shown.rest(whole)
    assert rest is not None and (rest.token_ids, rest.top_ids) == ((5,), ((5,),))
