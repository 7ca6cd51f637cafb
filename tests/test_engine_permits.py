"""Which tokens may come: allowed ids, bad words, the least length; beside grammars, guesses, preemption and company."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from engine_tiny import VOCAB, drain, tiny_engine, tokens
from firsthand import grammar
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.sequence import Request
from firsthand.engine.decoding.constraint import ids_of
from firsthand.engine.decoding.token_filter import TokenFilter
from firsthand.errors import ConfigError, FirsthandError
from firsthand.model import Sampling
from firsthand.providers.request_preparation import bad_sequences
from firsthand.sampling import MAX_ALLOWED, MAX_BAD_WORDS
from grammar_tiny import answers, engine, request, tokenizer

HOT = Sampling(max_tokens=60, temperature=1.2, seed=3)
EVEN = tuple(range(0, VOCAB, 2))
BAD = (*((a, b) for a in range(0, VOCAB, 3) for b in range(0, VOCAB, 4)), (5,), (7, 9, 11))


def ids(runner: Engine, *requests: Request) -> list[list[tuple[int, ...]]]:
    """The tokens of each answer of each request; they run together."""
    added = [runner.add(each) for each in requests]
    found = drain(runner)
    assert not any(output.error for outputs in found.values() for output in outputs)
    return [[tokens(found[id, index]) for index in range(each.n)] for id, each in zip(added, requests, strict=True)]


def holds(answer: tuple[int, ...], sequence: tuple[int, ...]) -> bool:
    size = len(sequence)
    return any(answer[at : at + size] == sequence for at in range(len(answer) - size + 1))


def limited() -> list[Request]:
    """Requests of every kind of limit, greedy and not, several answers each."""
    cold = replace(HOT, temperature=0.0)
    prompt = (1, 2, 3, 4) * 8
    found = []
    for at, sampling in enumerate((HOT, cold, replace(HOT, top_k=5), replace(HOT, top_p=0.8, frequency_penalty=0.5))):
        found += [
            Request((at, *prompt), replace(sampling, allowed_token_ids=EVEN), n=3),
            Request((at, *prompt), sampling, n=2, bad_sequences=BAD),
            Request((at, *prompt), replace(sampling, min_tokens=30), n=2, stop_ids=frozenset(range(40))),
            Request((at, *prompt), replace(sampling, allowed_token_ids=EVEN, min_tokens=9), bad_sequences=BAD,
                    stop_ids=frozenset({4, 8, 10})),
        ]  # fmt: skip
    return found


@cache
def alone() -> list[list[tuple[int, ...]]]:
    """What each of them answers with an engine to itself."""
    return [ids(tiny_engine(), each)[0] for each in limited()]


def check(asked: Request, found: list[tuple[int, ...]]) -> None:
    """That the answers of a request hold nothing that it forbids."""
    sampling = asked.sampling
    for answer in found:
        if sampling.allowed_token_ids:
            assert set(answer) <= set(EVEN)
        assert not any(holds(answer, bad) for bad in asked.bad_sequences)
        assert len(answer) >= sampling.min_tokens and not set(answer[: sampling.min_tokens]) & asked.stop_ids


@pytest.mark.slow
def test_no_answer_holds_what_its_request_forbids_and_without_the_limit_it_would() -> None:
    freely_bad = 0
    for each, found in zip(limited(), alone(), strict=True):
        sampling = each.sampling
        free = Request(each.prompt, replace(sampling, allowed_token_ids=None, min_tokens=0), n=each.n)
        freely = ids(tiny_engine(), replace(free, stop_ids=each.stop_ids))[0]
        assert freely != found
        check(each, found)
        freely_bad += sum(holds(answer, bad) for answer in freely for bad in each.bad_sequences)
    assert freely_bad > 10


@pytest.mark.slow
def test_models_that_run_by_their_modules_are_held_to_it_too() -> None:
    """As on a GPU, where tokens are drawn on the device unless something is forbidden."""
    runner = tiny_engine(block_size=8, graphs="on")
    assert runner.runner.fused is None
    for each, found in zip(limited()[:6], ids(runner, *limited()[:6]), strict=True):
        check(each, found)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{"speculation": "prompt_lookup", "speculate_below": 200}, {"kv_memory_bytes": 1 << 17, "max_batch_tokens": 72}],
    ids=["guesses", "preemption"],
)
def test_company_guesses_and_preemption_change_nothing(settings: dict[str, Any]) -> None:
    runner = tiny_engine(**settings)
    assert ids(runner, *limited()) == alone()
    stats = runner.stats()
    assert stats.preemptions > 0 or stats.accepted_tokens > 0


def test_a_bad_word_is_forbidden_only_where_it_would_be_completed() -> None:
    permits = TokenFilter(10, bad=[(1, 2), (1, 3, 4), (5,), (1, 2)])
    everything = set(range(10))

    def after(*answer: int) -> set[int]:
        return everything - set(ids_of(permits.after([1, 3, *answer], 2, None)).tolist())

    assert after() == {5} and after(1) == {2, 5} and after(1, 3) == {4, 5} and after(3) == {5}


def test_a_mask_is_what_the_lists_say() -> None:
    rng = random.Random(0)
    for _ in range(200):
        size = rng.choice([1, 31, 32, 33, 70])
        every = range(size)
        allowed = None if rng.random() < 0.3 else [rng.randrange(size) for _ in range(rng.randint(1, 40))]
        ends = rng.sample(every, rng.randint(0, size))
        bad = [tuple(rng.choices(every, k=rng.randint(1, 3))) for _ in range(rng.randint(0, 20))]
        answer = rng.choices(every, k=rng.randint(0, 6))
        permits = TokenFilter(size, allowed=allowed, bad=bad, min_tokens=3, ends=ends)
        expected = {
            token for token in (every if allowed is None else allowed)
            if not (len(answer) < 3 and token in ends)
            and not any(tuple([*answer, token])[-len(word) :] == word for word in bad)
        }  # fmt: skip
        if expected:
            assert set(ids_of(permits.after([0, *answer], 1, None)).tolist()) == expected
        else:
            with pytest.raises(ConfigError, match=f"no token may follow the {len(answer)} of the answer"):
                permits.after([0, *answer], 1, None)


# -- words --


def test_words_are_forbidden_at_the_beginning_and_within_with_a_space_and_without() -> None:
    spell = tokenizer().encode
    found = bad_sequences(tokenizer(), ["sum", " yes", "\n"])
    assert {tuple(spell(text)) for text in ("sum", " sum", "yes", " yes", "\n", " \n")} == set(found)
    assert bad_sequences(tokenizer(), ()) == ()
    with pytest.raises(ConfigError, match="has no tokens in this model's vocabulary"):
        bad_sequences(Mute(), ["x"])  # type: ignore[arg-type]


class Mute:
    """A tokenizer whose normaliser leaves nothing of a text."""

    def encode_runs(self, runs: object, *, continuing: bool = False) -> list[int]:
        return []


def test_a_bad_word_that_names_a_control_token_is_text() -> None:
    assert not any(set(each) & tokenizer().special_ids for each in bad_sequences(tokenizer(), ["<|im_end|>"]))


# -- beside grammars --


def test_a_grammar_goes_on_until_there_are_enough_tokens_and_its_own_end_wins() -> None:
    least = replace(HOT, min_tokens=12)
    forms = {
        "a+": grammar.regex("a+"), "yes": grammar.choice(["yes"]), "object": grammar.json_schema({"type": "object"}),
        "no": grammar.choice(["no", "not"]),
    }  # fmt: skip
    asked = {name: request(form, sampling=least, n=3) for name, form in forms.items()}
    found = dict(zip(asked, answers(engine(), list(asked.values())), strict=True))
    short = answers(engine(), [request(forms["a+"], replace(HOT, seed=seed)) for seed in range(8)])
    assert min(len(answer[0][0]) for answer in short) < 12, "without min_tokens some end earlier"
    assert all(len(tokenizer().encode(text)) >= 12 or last.finish_reason == "length" for text, last in found["object"])
    assert all(len(text) >= 12 and last.error is None for text, last in found["a+"])
    assert [(text, last.finish_reason, last.error) for text, last in found["yes"]] == [("yes", "stop", None)] * 3
    assert {text for text, _ in found["no"]} <= {"no", "not"} and all(not last.error for _, last in found["no"])


def test_a_text_is_spelled_otherwise_where_a_request_forbids_the_tokens_that_a_grammar_would_force() -> None:
    form = grammar.choice(["get_weather", "get_weather now"])
    runner = engine()
    with pytest.raises(ConfigError, match="compile it with forcing=False"):
        runner.add(replace(request(form, HOT), bad_sequences=((5,),)))
    whole = tuple(tokenizer().encode("get_weather"))
    letters = tuple(id for id in range(tokenizer().vocab_size) if len(tokenizer().token_bytes(id)) == 1)
    ends = tuple(tokenizer().eos_ids)
    for limit in ({"sampling": replace(HOT, allowed_token_ids=letters + ends)},
                  {"sampling": HOT, "bad_sequences": ((whole[0],),)}):  # fmt: skip
        [found] = ids(runner, request(form, **limit))  # type: ignore[arg-type]
        said = tokenizer().decode([id for id in found[0] if id not in ends])
        assert said in ("get_weather", "get_weather now") and whole[0] not in found[0]
    city = {"$defs": {"city": {"enum": ["Paris", "Rome"]}}, "type": "object", "required": ["city"],
            "properties": {"city": {"$ref": "#/$defs/city"}}, "additionalProperties": False}  # fmt: skip
    spelled = request(grammar.json_schema(city), replace(HOT, allowed_token_ids=letters))
    [[(text, last)]] = answers(runner, [spelled])
    assert json.loads(text)["city"] in ("Paris", "Rome") and last.finish_reason == "stop"
    [[(text, last)]] = answers(runner, [request(form, replace(HOT, allowed_token_ids=letters))])
    assert text.startswith("get_weather") and last.finish_reason == "stop", "the end of a whole text is always allowed"


# -- what cannot be --


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"allowed_token_ids": ()}, r"allowed_token_ids is \(\): give None for all tokens, or 1 to"),
        ({"allowed_token_ids": tuple(range(MAX_ALLOWED + 1))}, "allowed_token_ids is 262145 values"),
        ({"bad_words": ("",)}, "bad_words is .* words of 1 to 256 characters"),
        ({"bad_words": ("x" * 257,)}, "words of 1 to 256 characters"),
        ({"bad_words": ("x",) * (MAX_BAD_WORDS + 1)}, "bad_words is 1025 values: give at most 1024"),
        ({"min_tokens": -1}, "min_tokens is -1"),
    ],
)
def test_settings_that_cannot_be_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Sampling(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Request((1,), Sampling(allowed_token_ids=(1, VOCAB))), f"token 1 of allowed_token_ids is {VOCAB}"),
        (Request((1,), Sampling(allowed_token_ids=(-1,))), "token 0 of allowed_token_ids is -1"),
        (Request((1,), Sampling(allowed_token_ids=tuple(range(10**5)))), f"token {VOCAB} of allowed_token_ids"),
        (Request((1,), bad_sequences=((),)), "bad sequence 0 is empty"),
        (Request((1,), bad_sequences=((1, 10**30),)), "token 1 of bad sequence 0"),
        (Request((1,), bad_sequences=((1,),) * 10**5), "there are 100000 bad_sequences"),
        (Request((1,), Sampling(bad_words=("x",))), "bad_words that were not encoded"),
    ],
)
def test_requests_that_cannot_be_are_refused(asked: Request, said: str) -> None:
    with pytest.raises(FirsthandError, match=said):
        tiny_engine().add(asked)


def test_an_answer_to_which_nothing_is_left_ends_with_an_error_and_others_go_on() -> None:
    runner = tiny_engine()
    good = Request((1, 2, 3), Sampling(max_tokens=20))
    stuck = Request((1, 2, 3), Sampling(max_tokens=20, allowed_token_ids=(5, 6)), bad_sequences=((5,), (6,)))
    late = Request((1, 2, 3), Sampling(max_tokens=20, allowed_token_ids=(5,)), bad_sequences=((5, 5),), n=2)
    short = Request((1, 2), Sampling(max_tokens=9, min_tokens=3, allowed_token_ids=(5,)), stop_ids=frozenset({5}))
    added = [runner.add(each) for each in (stuck, good, late, short)]
    found = drain(runner)
    errors = {at: found[added[at], 0][-1].error for at in range(4)}
    assert all(isinstance(errors[at], ConfigError) for at in (0, 2, 3)) and errors[1] is None
    assert "no token may follow the 0 of the answer" in str(errors[0]) and "the 1 of the answer" in str(errors[2])
    assert tokens(found[added[1], 0]) == ids(tiny_engine(), good)[0][0]
    assert runner.stats().used_blocks == 0


def test_as_many_ids_as_there_may_be_are_as_good_as_few() -> None:
    many = TokenFilter(MAX_ALLOWED, allowed=range(1, MAX_ALLOWED), bad=[(at,) for at in range(0, 10**5)])
    assert np.array_equal(ids_of(many.after([1], 1, None)), np.arange(10**5, MAX_ALLOWED))
