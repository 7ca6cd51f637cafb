"""Log-probs of prompts: bounded before anything is computed, charged as tokens, and written in pieces."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from firsthand.message import assistant
from firsthand.model import Completion, Delta, Usage
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.http.replies import long_event, long_reply, pieces, reply
from firsthand.serve.openai.chat_completions import chat_completions
from firsthand.serve.openai.completions import completions
from firsthand.serve.openai.logprob_cells import MAX_CELLS, check_cells
from spelled_model import SpelledModel, answered, state_of


def test_more_log_probs_of_prompts_than_a_request_may_have_are_refused_before_any_is_computed() -> None:
    ids = [1] * 1000
    for fields in (
        {"prompt": [ids] * 4, "n": 13, "prompt_logprobs": 20}, {"prompt": [ids] * 4, "n": 13, "echo": True, "logprobs": 20},
        {"prompt": [ids] * 4, "n": 13, "echo": True, "logprobs": 20, "stream": True},
        {"prompt": ["x" * 1000] * 4, "n": 13, "prompt_logprobs": 20, "max_tokens": 3},
        {"prompt": [ids] * 8, "n": 6, "echo": True, "logprobs": 20, "prompt_logprobs": 1},
    ):  # fmt: skip
        model = SpelledModel()
        with pytest.raises(Refusal) as refused:
            answered(completions, state_of(model), {"max_tokens": 0, "echo": True, **fields})
        assert (refused.value.status, model.asked) == (400, []) and "log-probs of its prompts" in refused.value.message
    model = SpelledModel()
    with pytest.raises(Refusal) as refused:
        text = "x" * (MAX_CELLS // 21)
        answered(
            chat_completions, state_of(model), {"messages": [{"role": "user", "content": text}], "prompt_logprobs": 20}
        )
    assert refused.value.param == "prompt_logprobs" and model.asked == []
    check_cells(MAX_CELLS, "logprobs")
    with pytest.raises(Refusal):
        check_cells(MAX_CELLS + 1, "logprobs")


def test_what_harnesses_ask_of_prompts_is_answered_and_charged_as_tokens() -> None:
    state = state_of(SpelledModel())
    charged: list[int] = []
    state.admission.charge = lambda client, tokens: charged.append(tokens)
    body = answered(completions, state, {"prompt": [[1] * 900] * 8, "max_tokens": 0, "echo": True, "logprobs": 5})
    assert len(body["choices"]) == 8 and charged == [900] * 8
    body = answered(
        completions, state, {"prompt": [1, 2, 3], "max_tokens": 0, "echo": True, "prompt_logprobs": 2, "n": 2}
    )
    assert [len(each["prompt_logprobs"]) for each in body["choices"]] == [3, 3] and charged[8:] == [3]
    model = SpelledModel(Delta("", Completion(assistant(""), "stop", Usage()), index=0))
    state = state_of(model)
    state.admission.charge = lambda client, tokens: charged.append(tokens)
    chat = {"messages": [{"role": "user", "content": "Hi"}], "prompt_logprobs": 20}
    assert len(answered(chat_completions, state, chat)["prompt_logprobs"]) in charged


def test_a_long_reply_is_the_same_json_in_pieces_that_are_small() -> None:
    rows = [
        None,
        *({str(n): {"logprob": -n / 3, "rank": n, "decoded_token": f'é"\n{n}'} for n in range(21)} for _ in range(99)),
    ]
    long: dict[str, Any] = {
        "id": "é",
        "choices": [{"rows": rows, "text": "t" * 9000, "logprobs": {"a": [[1.5] * 3000], "b": {}}}],
    }
    for body in (long, {}, {"a": []}, {"a": [None, True, 1, "x"]}, {"a": [[], {}] * 2000}):
        parts = list(pieces(body))
        assert "".join(parts) == json.dumps(body, ensure_ascii=False)
        assert asyncio.run(long_reply(body)).content == reply(body).content
        assert asyncio.run(long_event(body)) == b"data: " + reply(body).content + b"\n\n"
        assert max(part.count(", ") for part in parts) < 1024
    assert len(list(pieces({"a": [0] * 1022}))) == 1 < len(list(pieces({"a": [0] * 1023})))
