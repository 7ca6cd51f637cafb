"""Families beyond Llama's against transformers, in both directions, and through GGUF files of our own."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from firsthand.nn.blocks.attention import Packed
from firsthand.nn.decoder import Decoder
from firsthand.nn.gguf_writer import save_gguf
from firsthand.nn.matrices import num_active_parameters, num_parameters
from firsthand.nn.weights import architecture_of, load, save

torch.set_num_threads(1)
SIZES: dict[str, Any] = dict(
    vocab_size=97,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
)
GPT = dict(vocab_size=97, n_embd=64, n_layer=2, n_head=4, n_positions=128)
LONG = dict(
    rope_type="longrope", rope_theta=1e4, short_factor=[1.0 + i / 9 for i in range(8)],
    long_factor=[1.5 + i for i in range(8)], original_max_position_embeddings=16, factor=8.0,
)  # fmt: skip
QWEN = dict(num_experts=6, num_experts_per_tok=3, moe_intermediate_size=32)
LATENT: dict[str, Any] = dict(
    kv_lora_rank=24, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=12, num_key_value_heads=4, n_routed_experts=8,
    num_experts_per_tok=3, moe_intermediate_size=32, first_k_dense_replace=1, n_shared_experts=2, head_dim=8,
)  # fmt: skip
YARN = dict(
    rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=32, mscale=0.707, mscale_all_dim=0.707
)  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2LMHead", GPT),
    "gpt2_untied": ("GPT2LMHead", GPT | dict(n_inner=80, tie_word_embeddings=False)),
    "gemma": ("GemmaForCausal", dict(head_dim=32, num_key_value_heads=1)),
    "gemma2": ("Gemma2ForCausal", dict(head_dim=32, query_pre_attn_scalar=32, sliding_window=8)),
    "gemma2_scaled": ("Gemma2ForCausal", dict(head_dim=32, query_pre_attn_scalar=48, sliding_window=8)),
    "phi3": ("Phi3ForCausal", dict(sliding_window=8)),
    "phi3_partial": ("Phi3ForCausal", dict(rope_parameters=dict(
        rope_type="default", rope_theta=1e4, partial_rotary_factor=0.5))),
    "phi3_long": ("Phi3ForCausal", dict(rope_parameters=LONG, original_max_position_embeddings=16)),
    "olmo2": ("Olmo2ForCausal", {}),
    "bloom": ("BloomForCausal", dict(vocab_size=97, hidden_size=64, n_layer=2, n_head=4)),
    "bloom_six_heads": ("BloomForCausal", dict(vocab_size=97, hidden_size=96, n_layer=2, n_head=6)),
    "mpt": ("MptForCausal", dict(vocab_size=97, d_model=64, n_layers=2, n_heads=4, max_seq_len=128)),
    "mpt_clipped": ("MptForCausal", dict(vocab_size=97, d_model=96, n_layers=2, n_heads=6, max_seq_len=128,
        attn_config=dict(clip_qkv=0.5, softmax_scale=0.2, alibi_bias_max=8))),
    "mixtral": ("MixtralForCausal", dict(num_local_experts=4, num_experts_per_tok=2, sliding_window=8)),
    "qwen2_moe": ("Qwen2MoeForCausal", QWEN | dict(shared_expert_intermediate_size=48)),
    "qwen2_moe_dense_layer": ("Qwen2MoeForCausal", QWEN | dict(shared_expert_intermediate_size=48, mlp_only_layers=[0])),
    "qwen3_moe": ("Qwen3MoeForCausal", QWEN | dict(head_dim=32, norm_topk_prob=True)),
    "deepseek_v2": ("DeepseekV2ForCausal", LATENT | dict(q_lora_rank=None, rope_parameters=YARN)),
    "deepseek_v2_groups": ("DeepseekV2ForCausal", LATENT | dict(q_lora_rank=20, topk_method="group_limited_greedy",
        n_group=4, topk_group=2, routed_scaling_factor=1.7)),
    "deepseek_v3": ("DeepseekV3ForCausal", LATENT | dict(q_lora_rank=20, n_group=4, topk_group=2,
        rope_parameters=YARN | dict(mscale=1.0, mscale_all_dim=1.0))),
    "gpt_oss": ("GptOssForCausal", dict(num_local_experts=4, num_experts_per_tok=2, head_dim=16, sliding_window=8,
        intermediate_size=32)),
    "llama_dynamic": ("LlamaForCausal", dict(max_position_embeddings=32, rope_parameters=dict(
        rope_type="dynamic", rope_theta=1e4, factor=2.0))),
}  # fmt: skip
LENGTH = {"llama_dynamic": 64}
"""Dynamic scaling is fixed for the longest text, and so is compared at it."""
NO_GGUF = {"gpt2_untied": "", "qwen2_moe_dense_layer": "layers", "phi3_partial": "", "llama_dynamic": "ropes",
           "mpt_clipped": "attention_scale", "gpt_oss": "ropes", "gemma2_scaled": "attention_scale"}  # fmt: skip


def reference(name: str, *, seed: int = 0) -> Any:
    """A transformers model with random weights whose norms and biases are random too, so that none can be forgotten."""
    kind, changes = FAMILIES[name]
    kind = f"{kind}LM" if kind.endswith("ForCausal") else kind
    base = kind.removesuffix("ForCausalLM").removesuffix("LMHead")
    own = any(key in changes for key in ("n_embd", "n_layer", "d_model"))
    sizes = {} if own else SIZES
    ends = dict(bos_token_id=None, eos_token_id=None, pad_token_id=None)
    config = getattr(transformers, f"{base}Config")(**{**sizes, **deepcopy(changes)}, **ends)
    torch.manual_seed(seed)
    model_class = getattr(transformers, f"{kind}Model" if kind.endswith("Head") else kind)
    model = model_class._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for label, parameter in model.named_parameters():
            is_router = ".gate.weight" in label or "router.weight" in label
            parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.dim() > 1 and not is_router else 0.3))
        for label, buffer in model.named_buffers():
            if "correction_bias" in label:
                buffer.copy_(torch.randn_like(buffer) * 0.3)
    return model


def logprobs(model: Decoder, ids: list[int]) -> Tensor:
    with torch.no_grad():
        hidden_ND = model(torch.tensor(ids), torch.arange(len(ids)), Packed([len(ids)]))
        return model.logits(hidden_ND).log_softmax(-1)


def reference_logprobs(model: Any, ids: list[int]) -> Tensor:
    with torch.no_grad():
        result: Tensor = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        return result


def text(name: str) -> list[int]:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 97, (LENGTH.get(name, 40),), generator=generator).tolist()


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_is_transformers_in_both_directions_and_in_gguf(name: str, tmp_path: Path) -> None:
    theirs, ids = reference(name), text(name)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load(tmp_path / "theirs")
    a = ours.architecture
    assert sum(p.numel() for p in ours.parameters()) == num_parameters(a) >= num_active_parameters(a)
    expected = reference_logprobs(theirs, ids)
    assert expected.std() > 0.3, "the model says something"
    torch.testing.assert_close(logprobs(ours, ids), expected, atol=1e-4, rtol=0)

    save(ours, tmp_path / "ours")
    assert architecture_of(tmp_path / "ours") == a
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", attn_implementation="eager").eval()
    assert type(back) is type(theirs)
    torch.testing.assert_close(reference_logprobs(back, ids), expected, atol=1e-4, rtol=0)

    if name not in NO_GGUF:
        save_gguf(ours, tmp_path / "ours.gguf", dtype="F32")
        torch.testing.assert_close(logprobs(load(tmp_path / "ours.gguf"), ids), expected, atol=1e-4, rtol=0)
