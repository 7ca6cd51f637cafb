"""The compiled step is the decoder: same model, every family's arithmetic, the same bits however it is cut."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine_tiny import drain, logprobs, tiny_model
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.sequence import Request
from firsthand.errors import ConfigError
from firsthand.kernels.attention.kv_pages import Layout, PackedChunk
from firsthand.model import Sampling
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.compiled_decoder import Cache, CompiledDecoder, why_not_compiled
from firsthand.nn.decoder import Decoder, initialise
from firsthand.nn.quant import Mode, pack

pytest.importorskip("numba")

LLAMA = tiny_model().architecture
ARCHITECTURES = {
    "llama": LLAMA,
    "qwen2": replace(LLAMA, qkv_bias=True, tie_embeddings=False),
    "qwen3": replace(LLAMA, qk_norm=True),
    "mistral": replace(LLAMA, windows=(5, 5)),
    "gemma3": replace(
        LLAMA, qk_norm=True, norm_placement="sandwich", norm_unit_offset=True, activation="gelu_tanh", embed_scale=5.65,
        windows=(6, None), ropes=(Rope(), Rope(theta=1e6)), attention_scale=0.3,
    ),
    "biases, exact gelu and a soft cap": replace(
        LLAMA, qkv_bias=True, o_bias=True, mlp_bias=True, activation="gelu", logit_softcap=3.0
    ),
    "yarn, wide heads": replace(
        LLAMA, head_dim=48, num_heads=2, num_kv_heads=1,
        ropes=(Rope(kind="yarn", factor=4, original_max_position=64, attention_factor=1.1),) * 2,
    ),
    "odd tiles": replace(LLAMA, vocab_size=97, intermediate_size=96, head_dim=48, num_heads=2, num_kv_heads=1, qk_norm=True),
}  # fmt: skip
FLOATS = ARCHITECTURES | {
    "rows that are no multiple of 32": replace(LLAMA, vocab_size=97, intermediate_size=80, num_heads=3, num_kv_heads=1)
}
IDS = [int(x) for x in np.random.default_rng(0).integers(0, 96, 41)]


def packed(architecture: Architecture, weights: Mode = "int8") -> Decoder:
    model = initialise(Decoder(architecture), seed=3, std=0.3)
    torch.manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.3)
            elif "norm" in name:  # each its own, as one that is ignored, or taken for another, shows only then
                parameter += torch.randn(parameter.shape) * 0.3
    pack(model.eval().requires_grad_(False), weights)
    return model


def compute(
    fused: CompiledDecoder, cuts: list[int], blocks: list[int] | None = None, cache: Cache | None = None
) -> np.ndarray:
    """All hidden states, computed in pieces."""
    a = fused.model.architecture
    cache = cache or Cache.empty(a, 8, 16, torch.float32, torch.device("cpu"))
    parts = []
    for start, end in zip([0, *cuts], [*cuts, len(IDS)], strict=True):
        layout = Layout([PackedChunk(start, end, blocks or [4, 1, 6])], 16, threads=fused.threads)
        parts.append(fused.hidden(IDS[start:end], layout, cache, range(end - start)))
    return np.concatenate(parts)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_hidden_states_and_logits_agree_with_the_modules(name: str) -> None:
    model = packed(ARCHITECTURES[name])
    fused = CompiledDecoder(model)
    hidden_ND = compute(fused, [])
    with torch.inference_mode():
        expected_ND = model(torch.tensor(IDS), torch.arange(len(IDS)), Packed([len(IDS)]))
        expected_NV = model.logits(expected_ND)
    # equal but for roundings to 8 bits that fall on the other side: few, and each a small step
    assert np.abs(hidden_ND - expected_ND.numpy()).mean() < 2e-3 * expected_ND.abs().max().item()
    logits = fused.logits(expected_ND.numpy())
    torch.testing.assert_close(logits.values, expected_NV, atol=1e-4, rtol=1e-4)
    assert logits.best == expected_NV.argmax(-1).tolist()
    np.testing.assert_allclose(logits.normalisers, expected_NV.logsumexp(-1).numpy(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("weights", ["float16", "float32"])
@pytest.mark.parametrize("name", FLOATS)
def test_weights_that_are_floats_agree_with_the_modules_closely(name: str, weights: Mode) -> None:
    model = packed(FLOATS[name], weights)
    fused = CompiledDecoder(model)
    hidden_ND = compute(fused, [])
    with torch.inference_mode():
        expected_ND = model(torch.tensor(IDS), torch.arange(len(IDS)), Packed([len(IDS)]))
        expected_NV = model.logits(expected_ND)
    np.testing.assert_allclose(hidden_ND, expected_ND.numpy(), atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(fused.logits(hidden_ND).values, expected_NV, atol=2e-4, rtol=1e-4)


def test_blocks_and_floats_may_stand_side_by_side() -> None:
    model = packed(ARCHITECTURES["qwen2"], "float32")
    pack(model.layers[0].attention, "int8")
    pack(model.layers[1].mlp, "int8")
    pack(model.layers[0].mlp, "float16")
    fused = CompiledDecoder(model)
    hidden_ND = compute(fused, [])
    with torch.inference_mode():
        expected_ND = model(torch.tensor(IDS), torch.arange(len(IDS)), Packed([len(IDS)]))
    assert np.abs(hidden_ND - expected_ND.numpy()).mean() < 2e-3 * expected_ND.abs().max().item()
    np.testing.assert_array_equal(compute(CompiledDecoder(model, threads=2), [7, 20]), hidden_ND)


@pytest.mark.parametrize("weights", ["int8", "float16", "float32"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_pieces_places_and_threads_change_no_bit(name: str, weights: Mode) -> None:
    model = packed(ARCHITECTURES[name], weights)
    whole = compute(CompiledDecoder(model), [])
    np.testing.assert_array_equal(compute(CompiledDecoder(model), [1, 2, 17, 30]), whole)
    np.testing.assert_array_equal(compute(CompiledDecoder(model), [16], blocks=[0, 5, 7]), whole)
    np.testing.assert_array_equal(compute(CompiledDecoder(model, threads=3), [40]), whole)


def test_many_steps_of_three_threads_give_the_bits_of_one() -> None:
    """Threads that come late, or twice, or not at all, change nothing."""
    model = packed(LLAMA)
    cuts = list(range(1, len(IDS)))
    expected = compute(CompiledDecoder(model), cuts)
    fused = CompiledDecoder(model, threads=3)
    for _ in range(10):
        np.testing.assert_array_equal(compute(fused, cuts), expected)


@pytest.mark.parametrize(("kv_cache", "dtype"), [("float32", torch.float32), ("auto", torch.float16)])
def test_an_engines_logprobs_are_those_of_one_plain_forward(kv_cache: str, dtype: torch.dtype) -> None:
    model = packed(LLAMA)
    engine = Engine(
        model, EngineConfig(kv_memory_bytes=1 << 20, max_batch_tokens=9, max_sequences=4, kv_cache=kv_cache)
    )
    assert engine.runner.fused is not None and engine.weights == "int8"
    engine.add(Request(tuple(IDS[:20]), Sampling(max_tokens=12, temperature=0.9, seed=1)))
    [outputs] = drain(engine).values()
    answer = [token for output in outputs for token in output.token_ids]
    ids = [*IDS[:20], *answer]
    cache = Cache.empty(LLAMA, 8, 16, dtype, torch.device("cpu"))
    fused = CompiledDecoder(model)
    logits = fused.logits(fused.hidden(ids, Layout([PackedChunk(0, len(ids), [0, 1])], 16), cache, range(len(ids))))
    rows = list(logits.rows())
    assert logprobs(outputs) == tuple(rows[19 + i].logprob(token) for i, token in enumerate(answer))


@pytest.mark.parametrize("weights", ["int8", "float16", "float32"])
def test_new_weights_are_used_and_old_ones_forgotten(weights: Mode) -> None:
    first, second = tiny_model(1), tiny_model(2)
    state = {name: value.clone() for name, value in second.state_dict().items()}
    engine = Engine(first, EngineConfig(weights=weights, kv_memory_bytes=1 << 20))
    other = Engine(second, EngineConfig(weights=weights, kv_memory_bytes=1 << 20))
    engine.load(state, version=2)
    for each in (engine, other):
        each.add(Request(tuple(IDS), Sampling(max_tokens=5)))
    [ours], [theirs] = drain(engine).values(), drain(other).values()
    assert logprobs(ours) == logprobs(theirs)


def test_models_that_do_not_fit_say_why() -> None:
    assert why_not_compiled(packed(LLAMA)) is None
    assert why_not_compiled(tiny_model()) is None
    assert why_not_compiled(tiny_model().to(torch.bfloat16)) == "it is not float32 on the CPU"

    class Own(Decoder):
        def logits(self, hidden_MD: torch.Tensor) -> torch.Tensor:
            return -super().logits(hidden_MD)

    assert why_not_compiled(Own(LLAMA)) == "it overrides Decoder's forward or logits"
    strange = tiny_model()
    strange.layers[0].mlp.up_proj = torch.nn.Identity()
    assert why_not_compiled(strange) == "it has an unsupported layer: Identity"
    narrow = packed(replace(LLAMA, head_dim=8, num_heads=4, num_kv_heads=2))
    assert "head_dim 8" in (why_not_compiled(narrow) or "")
    with pytest.raises(ConfigError, match="head_dim 8"):
        CompiledDecoder(narrow)
    engine = Engine(narrow, EngineConfig(kv_memory_bytes=1 << 20))  # its modules serve it all the same
    engine.add(Request(tuple(IDS), Sampling(max_tokens=3)))
    [outputs] = drain(engine).values()
    assert sum(len(output.token_ids) for output in outputs) == 3


def test_an_engine_for_floats_refuses_a_model_in_blocks() -> None:
    with pytest.raises(ConfigError, match="blockwise"):
        Engine(packed(LLAMA), EngineConfig(weights="float16"))
