"""The table of families: how far our log-probs are from those of transformers on a tiny random model of each.

    python bench/families.py

For each family a random model is made by transformers, with norms and biases that are random too. `theirs to ours` loads
what it saved, `ours to theirs` is transformers on what we save, `GGUF` is our file of it read again. The differences are the
largest of all positions and tokens. `steps` says what computes the engine's steps. The tests hold each to 1e-4.
"""

from __future__ import annotations

import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import encoder_decoders
import torch
import transformers
from torch import Tensor

from firsthand.errors import ConfigError
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.compiled_decoder import why_not_compiled
from firsthand.nn.decoder import Decoder
from firsthand.nn.encoder_decoder_weights import load_encoder_decoder, save_encoder_decoder
from firsthand.nn.gguf_writer import save_gguf
from firsthand.nn.weights import load, save

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
    "smollm3": ("SmolLM3ForCausal", dict(num_hidden_layers=5)),
    "stablelm": ("StableLmForCausal", dict(rope_parameters=dict(
        rope_type="default", rope_theta=1e4, partial_rotary_factor=0.25))),
    "stablelm_biased": ("StableLmForCausal", dict(use_qkv_bias=True, rope_parameters=dict(
        rope_type="default", rope_theta=1e4, partial_rotary_factor=0.5))),
    "starcoder2": ("Starcoder2ForCausal", {}),
    "starcoder2_window": ("Starcoder2ForCausal", dict(sliding_window=8, use_bias=False, tie_word_embeddings=False)),
    "llama_dynamic": ("LlamaForCausal", dict(max_position_embeddings=32, rope_parameters=dict(
        rope_type="dynamic", rope_theta=1e4, factor=2.0))),
}  # fmt: skip
LENGTH = {"llama_dynamic": 64}
"""Dynamic scaling is fixed for the longest text, and so is compared at it."""
TESTED_ELSEWHERE: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausal", {}),
    "mistral": ("MistralForCausal", dict(sliding_window=8)),
    "qwen2": ("Qwen2ForCausal", {}),
    "qwen3": ("Qwen3ForCausal", dict(head_dim=32)),
    "gemma3_text": (
        "Gemma3ForCausal",
        dict(head_dim=32, sliding_window=8, num_hidden_layers=7, query_pre_attn_scalar=32),
    ),
}
"""In `tests/test_nn_weights.py`, with more settings of each."""
NO_GGUF = {"llama_dynamic": "ropes", "starcoder2_window": "windows",
           "mpt_clipped": "attention_scale", "gpt_oss": "ropes", "gemma2_scaled": "attention_scale"}  # fmt: skip


def config_of(name: str) -> Any:
    """The model's configuration."""
    kind, changes = (FAMILIES | TESTED_ELSEWHERE)[name]
    base = kind.removesuffix("ForCausal").removesuffix("LMHead") + ("Text" if kind.startswith("Gemma3") else "")
    own = any(key in changes for key in ("n_embd", "n_layer", "d_model"))
    ends = dict(bos_token_id=None, eos_token_id=None, pad_token_id=None)
    return getattr(transformers, f"{base}Config")(**{**({} if own else SIZES), **deepcopy(changes)}, **ends)


def reference(name: str, *, seed: int = 0) -> Any:
    """A transformers model with random weights whose norms and biases are random too, so that none can be forgotten."""
    kind, config = (FAMILIES | TESTED_ELSEWHERE)[name][0], config_of(name)
    torch.manual_seed(seed)
    model_class = getattr(transformers, f"{kind}Model" if kind.endswith("Head") else f"{kind}LM")
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


def gap(one: Tensor, other: Tensor) -> str:
    return f"{float((one - other).abs().max()):.0e}"


def decoder_row(name: str, folder: Path) -> list[str]:
    theirs, ids = reference(name), text(name)
    theirs.save_pretrained(folder / "theirs")
    ours, expected = load(folder / "theirs"), reference_logprobs(theirs, ids)
    save(ours, folder / "ours")
    back = transformers.AutoModelForCausalLM.from_pretrained(folder / "ours", attn_implementation="eager").eval()
    try:
        save_gguf(ours, folder / "ours.gguf", dtype="F32")
        in_gguf = gap(logprobs(load(folder / "ours.gguf"), ids), expected)
    except ConfigError:
        in_gguf = "not expressible"
    reason = why_not_compiled(ours)
    steps = "compiled" if reason is None or "multiples" in reason else "modules"
    return [name, gap(logprobs(ours, ids), expected), gap(reference_logprobs(back, ids), expected), in_gguf, steps]


def encoder_decoder_row(name: str, folder: Path) -> list[str]:
    theirs = encoder_decoders.reference(name)
    theirs.save_pretrained(folder / "theirs")
    ours = load_encoder_decoder(folder / "theirs")
    start = ours.architecture.decoder_start
    expected = torch.cat(encoder_decoders.reference_logprobs(theirs, start))
    save_encoder_decoder(ours, folder / "ours")
    back = torch.cat(encoder_decoders.reference_logprobs(type(theirs).from_pretrained(folder / "ours").eval(), start))
    return [
        name,
        gap(torch.cat(encoder_decoders.logprobs(ours)), expected),
        gap(back, expected),
        "none",
        "modules",
    ]


def main() -> None:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    print("| model | theirs to ours | ours to theirs | GGUF | steps |\n|---|---|---|---|---|")
    jobs = [(name, decoder_row) for name in (*TESTED_ELSEWHERE, *FAMILIES)]
    jobs += [(name, encoder_decoder_row) for name in encoder_decoders.MODELS]
    for name, make in jobs:
        with tempfile.TemporaryDirectory() as folder:
            print("| " + " | ".join(make(name, Path(folder))) + " |", flush=True)


if __name__ == "__main__":
    main()
