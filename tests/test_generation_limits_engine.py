"""What a model folder's generation settings forbid, in the engine: the outputs of transformers' `generate`."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_decoders import reference
from transformers import LlamaConfig, LlamaForCausalLM

from engine_tiny import VOCAB, drain, tiny_engine, tokens
from firsthand.engine.compute.device_weights import load_weights
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.sequence import Request
from firsthand.engine.decoding.constraint import ids_of
from firsthand.engine.decoding.repeated_ngrams import RepeatedNgrams
from firsthand.engine.decoding.token_filter import TokenFilter
from firsthand.errors import ConfigError
from firsthand.grammar import regex
from firsthand.model import Sampling
from firsthand.tokens.generation_limits import GenerationLimits, generation_limits
from grammar_tiny import engine as engine_of_texts
from grammar_tiny import request as request_of_text

torch.set_num_threads(1)
SIZE, START, END = 61, 60, 1
CONFIG = EngineConfig(kv_memory_bytes=1 << 20, kv_cache="float32", weights="float32", threads=1)
HOT = Sampling(max_tokens=60, temperature=1.2, seed=3)


def llama() -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    return LlamaForCausalLM(LlamaConfig(vocab_size=SIZE, initializer_range=0.4, **sizes)).eval()


def theirs(made: Any, text: tuple[int, ...], ends: list[int], **stated: Any) -> list[int]:
    """The tokens that `generate` adds, greedily."""
    ids, start = torch.tensor([text]), made.config.is_encoder_decoder
    with torch.no_grad():
        found = made.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False, num_beams=1, eos_token_id=ends,
            pad_token_id=0, use_cache=False, forced_eos_token_id=None,
            **({"decoder_start_token_id": START} if start else {}), **stated,
        )  # fmt: skip
    return list(found[0, 1 if start else len(text) :].tolist())


@pytest.mark.parametrize("name", ["transformer_2017", "llama"])
def test_greedy_outputs_under_limits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    has_sources, text = name == "transformer_2017", (5, 17, 44, 9, 5, 17, 44)
    made = reference(name) if has_sources else llama()
    made.save_pretrained(tmp_path)
    runner = Engine(load_weights(tmp_path, CONFIG), CONFIG)
    prompt, found = ((START,) if has_sources else text), []
    free = theirs(made, text, [END])
    ends = [END, next((token for token in free if token != free[0]), free[0])]
    cases: tuple[dict[str, Any], ...] = (
        *({"no_repeat_ngram_size": n, "min_new_tokens": 40} for n in (1, 2, 3)), {"min_new_tokens": 40},
        {"min_length": 13}, {"min_new_tokens": 6}, {"min_length": 20, "min_new_tokens": 4},
        {"bad_words_ids": [[prompt[-1], free[0]], *([free[0], token] for token in range(0, SIZE, 2))]},
    )  # fmt: skip
    for stated in cases:
        (tmp_path / "generation_config.json").write_text(json.dumps(stated))
        expected = theirs(made, text, ends, **stated)
        limits = generation_limits(tmp_path, vocab_size=SIZE, ends=ends, has_sources=has_sources)
        bad = tuple(words for words in limits.forbidden if len(words) > 1)  # their pad is a token like others
        sampling = Sampling(max_tokens=40, temperature=0.0)
        rule = TokenFilter.of(
            sampling, runner.architecture.vocab_size, ends=ends, limits=replace(limits, forbidden=bad)
        )
        source = text if has_sources else ()
        runner.add(Request(prompt, sampling, stop_ids=frozenset(ends), source=source, token_filter=rule))
        [outputs] = drain(runner).values()
        assert list(tokens(outputs)) == expected, stated
        found.append(expected)
    assert found[0] != found[3] and theirs(made, text, ends) not in found[3:], "each limit changes something"


def test_repeated_ngrams_are_those_of_the_whole_text_and_answers_share_those_of_their_prompt() -> None:
    rng = random.Random(0)
    for n in (1, 2, 3, 5):
        prompt = [rng.randrange(3) for _ in range(rng.choice([1, 2, 30]))]
        first = RepeatedNgrams(n, len(prompt))
        for answer in (first, RepeatedNgrams(n, len(prompt), beside=first)):
            text = list(prompt)
            for _ in range(25):
                before = [tuple(text[at : at + n]) for at in range(len(text) - n + 1)]
                expected = {token for token in range(3) if (*text[len(text) - n + 1 :], token) in before}
                assert set(answer.after(text)) == (expected if len(text) >= n else set()), (n, text)
                text += [rng.randrange(3) for _ in range(rng.choice([1, 1, 4]))]


def test_no_sampled_answer_repeats_an_ngram_whatever_the_engine_does_meanwhile() -> None:
    prompt = tuple(random.Random(0).sample(range(VOCAB), 12)) * 2
    rule = TokenFilter(VOCAB, limits=GenerationLimits(ngram=2))
    asked = [Request(prompt, replace(HOT, temperature=heat), n=2, token_filter=rule) for heat in (0.0, 0.3, 1.2)]
    settings: list[dict[str, Any]] = [
        {}, {"graphs": "on"}, {"speculation": "prompt_lookup"}, {"kv_memory_bytes": 1 << 17, "max_batch_tokens": 72}
    ]  # fmt: skip
    found = []
    for changes in settings:
        runner = tiny_engine(**changes)
        for each in asked:
            runner.add(each)
        found.append([tokens(outputs) for _, outputs in sorted(drain(runner).items())])
    for answer in found[0] + found[1]:
        begun = [*itertools.pairwise(prompt)]
        pairs = [*itertools.pairwise((prompt[-1], *answer))]
        assert len(answer) == 60 and len(set(pairs)) == len(pairs) and not set(pairs) & set(begun)
    assert found[2] == found[3] == found[0]


def test_a_grammar_may_repeat_and_a_token_that_alone_is_left_too() -> None:
    runner = engine_of_texts()
    size = runner.architecture.vocab_size
    rule = TokenFilter(size, limits=GenerationLimits(ngram=1))
    asked = request_of_text(regex("[ab]{12}"), Sampling(max_tokens=30, temperature=0.0))
    runner.add(replace(asked, token_filter=rule))
    [outputs] = drain(runner).values()
    assert outputs[-1].error is None and outputs[-1].finish_reason == "stop"
    only = TokenFilter(9, allowed=(4,), limits=GenerationLimits(ngram=1))
    assert ids_of(only.after([4, 4], 1, None, {4})).tolist() == [4]
    assert 4 not in ids_of(TokenFilter(9, limits=GenerationLimits(ngram=1)).after([4, 4], 1, None, {4}))


def test_the_least_length_counts_the_prompt_and_what_is_forbidden_may_begin_there() -> None:
    limits = GenerationLimits(((3, 4), (8,)), min_length=4)
    rule = TokenFilter(9, bad=[(5, 6)], ends=(1,), limits=limits)

    def allowed(*tokens: int, num_prompt: int) -> set[int]:
        return set(ids_of(rule.after(tokens, num_prompt, None)).tolist())

    assert allowed(2, 3, num_prompt=2) == {0, 2, 3, 5, 6, 7} and allowed(2, 5, 3, num_prompt=3) == {0, 2, 3, 5, 6, 7}
    assert allowed(2, 2, 2, 5, num_prompt=4) == {0, 1, 2, 3, 4, 5, 6, 7}, (
        "a request's own words are those of its answer"
    )
    assert allowed(2, 2, 2, 5, num_prompt=3) == {0, 1, 2, 3, 4, 5, 7}
    short = TokenFilter(9, ends=(1,), limits=GenerationLimits(min_length=4))
    assert [short.binds(answer, prompt) for answer, prompt in ((0, 3), (1, 3), (0, 4), (3, 0))] == [
        True,
        False,
        False,
        True,
    ]
    least = TokenFilter(9, ends=(1,), min_tokens=1, limits=GenerationLimits(min_tokens=3))
    assert [least.binds(answer, 9) for answer in (2, 3)] == [True, False]
    with pytest.raises(ConfigError, match=r"min_tokens, the model's generation_config\.json leave none together"):
        TokenFilter(9, allowed=(8,), limits=limits).after([2], 1, None)
