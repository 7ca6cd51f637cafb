"""Every family is served by the engine with the log-probs of its whole pass, by the compiled step where it can."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine_tiny import drain, logprobs, plain_logprobs, tokens
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.sequence import Request
from firsthand.formats.fields import Fields
from firsthand.model import Sampling
from firsthand.nn.architecture import Architecture
from firsthand.nn.decoder import Decoder, initialise
from firsthand.nn.model_config import config_architecture

torch.set_num_threads(1)
CONFIG = EngineConfig(
    kv_memory_bytes=1 << 20, kv_cache="float32", weights="float32", max_sequences=4, max_batch_tokens=7
)
BASE: dict[str, Any] = dict(
    vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
    head_dim=16, max_position_embeddings=256,
)  # fmt: skip
GPT: dict[str, Any] = dict(vocab_size=96, n_embd=32, n_layer=2, n_head=2, n_positions=256)
LATENT: dict[str, Any] = dict(
    kv_lora_rank=24, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=12, n_routed_experts=8, num_experts_per_tok=3,
    moe_intermediate_size=32, first_k_dense_replace=1, n_shared_experts=1, n_group=4, topk_group=2,
)  # fmt: skip
NARROW = dict(num_attention_heads=4, head_dim=8)
"""By the modules: `test_compiled_experts.py` has experts in the compiled step, which takes long to compile."""
QWEN = dict(num_experts=6, num_experts_per_tok=3, moe_intermediate_size=32)
FAMILIES: dict[str, tuple[dict[str, Any], str | None]] = {
    "gpt2": (GPT, "its norm is 'layer'"),
    "gemma": (BASE, None),
    "gemma2": (BASE | dict(sliding_window=8), "its attention_softcap is 50.0"),
    "phi3": (BASE | dict(num_key_value_heads=2), None),
    "smollm3": (BASE | dict(no_rope_layers=[0, 1]), None),
    "stablelm": (BASE | dict(num_key_value_heads=2), "its norm is 'layer'"),
    "starcoder2": (BASE | dict(sliding_window=8), "its norm is 'layer'"),
    "olmo2": (BASE, "its qk_norm_over is 'projection'"),
    "bloom": (dict(vocab_size=96, hidden_size=32, n_layer=2, n_head=2), "its norm is 'layer'"),
    "mpt": (dict(vocab_size=96, d_model=32, n_layers=2, n_heads=2), "its norm is 'layer_no_bias'"),
    "mixtral": (BASE | NARROW | dict(num_local_experts=4), "head_dim 8"),
    "qwen2_moe": (BASE | NARROW | QWEN | dict(shared_expert_intermediate_size=16), "head_dim 8"),
    "qwen3_moe": (BASE | NARROW | QWEN, "head_dim 8"),
    "deepseek_v2": (BASE | LATENT, "its rotary_dim is 8"),
    "deepseek_v3": (BASE | LATENT | dict(q_lora_rank=20), "its rotary_dim is 8"),
    "gpt_oss": (BASE | dict(num_local_experts=4, num_experts_per_tok=2, sliding_window=8), "its has_sinks is True"),
}
PROMPT = (3, 14, 15, 92, 65, 35, 89, 79, 32, 38, 46, 26)


def architecture(family: str) -> Architecture:
    return config_architecture({"model_type": family, **FAMILIES[family][0]}, Path("config.json"))


def made(family: str) -> Decoder:
    model = initialise(Decoder(architecture(family)), seed=2, std=0.3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_is_served_with_the_log_probs_of_its_whole_pass(family: str) -> None:
    model = made(family)
    engine = Engine(model, CONFIG)
    reason = engine.stats().not_compiled
    expected_reason = FAMILIES[family][1]
    assert reason is None if expected_reason is None else expected_reason in (reason or "compiled")
    for prompt in (
        PROMPT,
        PROMPT[:5],
        PROMPT,
    ):  # in chunks, beside each other, and with a shared prefix
        engine.add(Request(prompt, Sampling(max_tokens=6)))
    found = drain(engine)
    assert len(found) == 3
    for (_, _), outputs in found.items():
        ids = list(tokens(outputs))
        prompt = PROMPT[:5] if len(ids) and outputs[0].request_id == sorted(key[0] for key in found)[1] else PROMPT
        rows = plain_logprobs(model, [*prompt, *ids])[len(prompt) - 1 : -1]
        expected = [float(row[token]) for row, token in zip(rows, ids, strict=True)]
        assert logprobs(outputs) == pytest.approx(expected, abs=1e-4)
        assert ids == [int(row.argmax()) for row in rows]


def test_experts_are_packed_like_any_other_matrix_and_the_router_is_not() -> None:
    model = made("qwen2_moe")
    engine = Engine(model, replace(CONFIG, weights="float16"))
    names = {type(module).__name__ for module in model.layers[0].mlp.experts.modules()}
    assert "DenseLinear" in names and "Linear" not in names
    assert isinstance(model.layers[0].mlp.router.weight, torch.nn.Parameter)
    engine.add(Request(PROMPT, Sampling(max_tokens=4)))
    [outputs] = drain(engine).values()
    rows = plain_logprobs(model, [*PROMPT, *tokens(outputs)])[len(PROMPT) - 1 : -1]
    assert list(tokens(outputs)) == [int(row.argmax()) for row in rows]


def test_the_latent_cache_holds_rank_and_rope_of_a_token_whatever_the_number_of_heads() -> None:
    a = architecture("deepseek_v3")
    assert a.kv_bytes_per_token(2) == a.num_layers * 2 * (24 + 8) * 2
    assert Fields({}, "x").numbers("absent") is None
