"""What vLLM's users send to say which tokens may come and what of them is shown: a model of ours behind the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from firsthand.engine.core.engine_config import EngineConfig
from firsthand.providers.local import Local
from firsthand.providers.request_preparation import bad_sequences
from served import Running, serving
from test_serve_local import HI, ask, complete, post
from tiny import write_model


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = write_model(tmp_path_factory.mktemp("model") / "m")
    with serving(Local(folder, config=EngineConfig(kv_memory_bytes=1 << 22, threads=1)), name="tiny") as running:
        yield running


@pytest.mark.slow
def test_min_tokens_holds_beside_grammars_and_tools_and_a_grammars_own_end_wins(local: Running) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    hot: dict[str, Any] = dict(max_tokens=24, temperature=1.5)
    for seed in range(3):
        form = {"min_tokens": 9, "guided_regex": "a+", "return_token_ids": True}
        assert len(complete(local, prompt="Hi", seed=seed, extra_body=form, **hot).choices[0].token_ids) >= 9
        least = {"min_tokens": 20, "return_token_ids": True}
        assert ask(local, tools=tools, seed=seed, extra_body=least, **hot).usage.completion_tokens >= 20
    whole = complete(local, prompt="Hi", extra_body={"min_tokens": 20, "guided_choice": ["42"]}, **hot).choices[0]
    assert (whole.text, whole.finish_reason) == ("42", "stop")


@pytest.mark.slow
def test_tokens_and_words_can_be_ruled_out(local: Running) -> None:
    base: dict[str, Any] = dict(prompt="The answer", max_tokens=30, temperature=1.3, seed=2, n=2)
    few = list(range(40, 60))
    for choice in complete(local, **base, extra_body={"allowed_token_ids": few, "return_token_ids": True}).choices:
        assert set(choice.token_ids) <= set(few) and len(choice.token_ids) == 30
    free = complete(local, **base, extra_body={"return_token_ids": True}).choices
    tokenizer = local.models.model._loaded.tokenizer
    words = [tokenizer.decode([id]).strip() for choice in free for id in choice.token_ids]
    words = [word for word in words if word.isascii() and word]
    bad = bad_sequences(tokenizer, words)
    limited = complete(local, **base, extra_body={"bad_words": words, "return_token_ids": True}).choices

    def held(choices: Any) -> int:
        spelled = [" ".join(map(str, ["", *choice.token_ids, ""])) for choice in choices]
        return sum(" ".join(map(str, ["", *each, ""])) in text for each in bad for text in spelled)

    assert held(free) > 3 and held(limited) == 0
    streamed = ["", ""]
    for piece in complete(local, stream=True, **base, extra_body={"bad_words": words}):
        streamed[piece.choices[0].index] += piece.choices[0].text
    assert streamed == [choice.text for choice in limited] != [choice.text for choice in free]
    form = {"guided_choice": ["yes", "no"], "allowed_token_ids": [tokenizer.id_of(letter) for letter in "noe"]}
    assert complete(local, prompt="Hi", extra_body=form).choices[0].text == "no"
    form = {"guided_choice": ["aaa"], "bad_words": ["aaa"], "allowed_token_ids": [tokenizer.id_of("a")]}
    with pytest.raises(openai.BadRequestError, match="no token may follow the 2 of the answer"):
        complete(local, prompt="Hi", extra_body=form)


def test_control_tokens_and_what_ended_an_answer_are_shown_where_that_is_asked_for(local: Running) -> None:
    tokenizer = local.models.model._loaded.tokenizer
    begin, end = (tokenizer.id_of(name) for name in ("<|im_start|>", "<|im_end|>"))

    def said(**fields: Any) -> str:
        """What an answer of two tokens says, of which the second ends it."""
        bias = {str(begin): 100, str(end): 50}
        options: dict[str, Any] = dict(messages=HI, max_tokens=9, temperature=0, logit_bias=bias)
        options["extra_body"] = {"presence_penalty": 100, **fields}
        whole = ask(local, **options).choices[0]
        assert whole.finish_reason == "stop"
        pieces = [p.choices[0] for p in ask(local, stream=True, **options)]
        assert "".join(p.delta.content or "" for p in pieces) == whole.message.content
        return str(whole.message.content)

    assert said() == ""
    assert said(skip_special_tokens=False) == "<|im_start|>"
    assert said(skip_special_tokens=False, include_stop_str_in_output=True) == "<|im_start|><|im_end|>"
    assert said(skip_special_tokens=False, stop=["im_"]) == "<|"
    assert said(skip_special_tokens=False, stop=["im_"], include_stop_str_in_output=True) == "<|im_"
    free = complete(local, prompt="Hi", max_tokens=9, temperature=0, extra_body={"return_token_ids": True}).choices[0]
    ids = free.token_ids
    at = next(place for place, id in enumerate(ids) if id not in ids[:place] and tokenizer.token_bytes(id).isascii())
    by_token = {"stop_token_ids": [ids[at]]}
    base: dict[str, Any] = dict(prompt="Hi", max_tokens=9, temperature=0)
    assert complete(local, **base, extra_body=by_token).choices[0].text == tokenizer.decode(ids[:at])
    shown = complete(local, **base, extra_body={**by_token, "include_stop_str_in_output": True}).choices[0]
    assert shown.text == tokenizer.decode(ids[: at + 1])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"allowed_token_ids": []}, "allowed_token_ids is an empty list"),
        ({"allowed_token_ids": [10**6]}, "allowed_token_ids holds 1000000: the model's tokens go from 0"),
        ({"allowed_token_ids": [-1]}, "allowed_token_ids"),
        ({"allowed_token_ids": [True]}, "allowed_token_ids"),
        ({"allowed_token_ids": list(range(10**5))}, "allowed_token_ids holds 99999"),
        ({"allowed_token_ids": [0] * (2**18 + 1)}, "allowed_token_ids is a list"),
        ({"bad_words": ["x"] * 10**4}, "bad_words is a list"),
        ({"bad_words": [""]}, "bad_words.0"),
        ({"bad_words": "x"}, "bad_words"),
        ({"bad_words": ["x" * 257]}, "bad_words.0"),
        ({"skip_special_tokens": 0}, "skip_special_tokens"),
        ({"include_stop_str_in_output": "yes"}, "include_stop_str_in_output"),
        ({"allowed_token_ids": [40], "min_tokens": 3, "stop_token_ids": [40]}, "no token may follow the 0 of the answer"),
    ],
)  # fmt: skip
def test_limits_that_cannot_be_are_refused_by_name(local: Running, fields: dict[str, Any], said: str) -> None:
    answer = post(local, "/v1/completions", prompt="Hi", max_tokens=4, **fields)
    assert answer.status_code == 400 and said in answer.json()["error"]["message"], answer.text
    assert len(answer.content) < 1000


def test_a_thousand_bad_words_and_ten_thousand_ids_are_taken(local: Running) -> None:
    many = {"bad_words": [f"word {number}" for number in range(1024)], "allowed_token_ids": [*range(3, 300)] * 300}
    assert post(local, "/v1/completions", prompt="Hi", max_tokens=4, **many).status_code == 200
