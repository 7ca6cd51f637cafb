"""Mixtures of experts by the compiled step: the numbers of their modules, alone and in a batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters_tiny import adapter as random_adapter
from engine_tiny import drain, in_blocks_of_4_bits, logprobs, plain_logprobs, tokens
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.sequence import Request
from firsthand.model import Sampling
from firsthand.nn.architecture import Architecture
from firsthand.nn.compiled_decoder import why_not_compiled
from firsthand.nn.decoder import Decoder, initialise
from firsthand.nn.model_config import config_architecture
from firsthand.nn.quant import pack

torch.set_num_threads(1)
CONFIG = EngineConfig(
    kv_memory_bytes=1 << 20, kv_cache="float32", weights="float32", max_sequences=4, max_batch_tokens=24
)
BASE: dict[str, Any] = dict(
    vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
    head_dim=16, max_position_embeddings=256,
)  # fmt: skip
QWEN: dict[str, Any] = BASE | dict(num_experts=20, num_experts_per_tok=3, moe_intermediate_size=32)
SHARED = dict(shared_expert_intermediate_size=64, norm_topk_prob=False)
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("mixtral", BASE | dict(num_local_experts=4, num_experts_per_tok=2, sliding_window=9)),
    "qwen3": ("qwen3_moe", QWEN | dict(norm_topk_prob=True)),
    "one expert a token": ("qwen3_moe", QWEN | dict(num_experts_per_tok=1, norm_topk_prob=False)),
    "a shared expert": ("qwen2_moe", QWEN | SHARED),
    "a dense layer": ("qwen2_moe", QWEN | SHARED | dict(mlp_only_layers=[0], intermediate_size=160)),
}
PROMPTS = [tuple((37 * i + 11 * j) % 96 for i in range(length)) for j, length in enumerate((40, 5, 1, 17))]


def made(kind: str, **changes: Any) -> Decoder:
    family, config = KINDS[kind]
    a = config_architecture({"model_type": family, **config}, Path("config.json"))
    a = replace(a, **changes)
    model = initialise(Decoder(a), seed=2, std=0.3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def answers(engine: Engine, prompts: list[tuple[int, ...]]) -> list[tuple[list[int], tuple[float, ...]]]:
    for prompt in prompts:
        engine.add(Request(prompt, Sampling(max_tokens=8, temperature=0.0)))
    found = drain(engine)
    return [(list(tokens(found[key])), logprobs(found[key])) for key in sorted(found)]


def assert_is_the_whole_pass(model: Decoder, found: Any, tolerance: float) -> None:
    for prompt, (ids, scores) in zip(PROMPTS, found, strict=True):
        rows = plain_logprobs(model, [*prompt, *ids])[len(prompt) - 1 : -1]
        assert scores == pytest.approx([float(row[i]) for row, i in zip(rows, ids, strict=True)], abs=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_has_the_log_probs_of_the_modules(kind: str) -> None:
    model = made(kind)
    engine = Engine(model, replace(CONFIG, threads=2))
    assert engine.stats().not_compiled is None
    found = answers(engine, PROMPTS)
    torch.set_num_threads(1)
    assert_is_the_whole_pass(model, found, 1e-4)
    for ids, _ in found:
        assert len(ids) == 8
    assert answers(Engine(model, CONFIG), PROMPTS[:1]) == found[:1], "a row's bits depend on its batch"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["qwen3", "a dense layer"])
def test_weights_in_blocks_and_halves_give_the_numbers_of_their_modules(kind: str) -> None:
    packed = (
        (in_blocks_of_4_bits(made(kind)), 2e-3),
        (pack(made(kind), "int8"), 2e-3),
        (pack(made(kind), "float16"), 2e-4),
    )
    for model, tolerance in packed:
        engine = Engine(model, replace(CONFIG, weights="auto", kv_cache="float32"))
        assert engine.stats().not_compiled is None
        assert_is_the_whole_pass(model, answers(engine, PROMPTS), tolerance)


@pytest.mark.slow
def test_rows_with_an_adapter_go_through_the_modules_and_others_through_the_step() -> None:
    model = made("qwen3")
    engine = Engine(model, CONFIG)
    plain = answers(engine, PROMPTS[:1])
    engine.load_adapter("own", random_adapter(model, 3, only="attention", scale=4.0))
    engine.add(Request(PROMPTS[0], Sampling(max_tokens=8, temperature=0.0), adapter="own"))
    [outputs] = drain(engine).values()
    assert list(tokens(outputs)) != plain[0][0]
    assert answers(engine, PROMPTS[:1]) == plain
    modules = Engine(made("qwen3"), CONFIG)
    modules.load_adapter("own", random_adapter(modules.runner.model, 3, only="attention", scale=4.0))
    modules.tap({"embed": lambda values: values})
    modules.add(Request(PROMPTS[0], Sampling(max_tokens=8, temperature=0.0), adapter="own"))
    [expected] = drain(modules).values()
    assert list(tokens(outputs)) == list(tokens(expected))
    assert logprobs(outputs) == pytest.approx(logprobs(expected), abs=1e-4)


@pytest.mark.slow
def test_a_token_that_is_not_a_number_spoils_no_other_row() -> None:
    model = made("a shared expert")
    with torch.no_grad():
        model.embed.weight = torch.nn.Parameter(model.embed.weight.clone())
        model.embed.weight[PROMPTS[2][0]] = torch.nan
    clean = [prompt for prompt in PROMPTS if PROMPTS[2][0] not in prompt]
    engine = Engine(model, CONFIG)
    alone = answers(engine, clean)
    engine.add(Request(PROMPTS[2], Sampling(max_tokens=8, temperature=0.0)))
    ids = [engine.add(Request(prompt, Sampling(max_tokens=8, temperature=0.0))) for prompt in clean]
    found = drain(engine)
    assert [(list(tokens(found[i, 0])), logprobs(found[i, 0])) for i in ids] == alone
    [spoiled] = [outputs for (request, _), outputs in found.items() if request not in ids]
    assert spoiled[-1].error is not None


def settings(**changes: Any) -> Architecture:
    a = made("qwen3").architecture
    assert a.experts is not None
    return replace(a, experts=replace(a.experts, **changes))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"score": "softmax_of_chosen"}, None),
        ({"score": "sigmoid"}, "its router's score is sigmoid"),
        ({"num_groups": 4, "groups_per_token": 2}, "its router chooses 2 of 4 groups"),
        ({"has_correction": True}, "its experts or its router have biases"),
        ({"has_bias": True}, "its experts or its router have biases"),
        ({"width": 24}, "its widths (64, 24, 64) are not multiples of 16, or head_dim 16 is not one of 16"),
    ],
)
def test_experts_that_the_step_does_not_know_are_named(changes: dict[str, Any], reason: str | None) -> None:
    pytest.importorskip("numba")
    assert why_not_compiled(Decoder(settings(**changes))) == reason


def test_an_unused_width_of_dense_layers_does_not_matter() -> None:
    pytest.importorskip("numba")
    assert why_not_compiled(made("qwen3", intermediate_size=33)) is None
