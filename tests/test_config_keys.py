"""Every key of transformers' configuration classes is read or has a reason not to be, and published files open."""

from __future__ import annotations

import functools
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers import CONFIG_MAPPING

from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats.fields import Fields
from firsthand.nn.families import bart, bert, t5
from firsthand.nn.families.spellings import SPELLINGS, respelled
from firsthand.nn.model_config import built, config_architecture, encoder_decoder_architecture
from firsthand.nn.model_config import families as decoder_families

FILE = Path("models/config.json")
DECODERS = [kind for family in decoder_families() for kind in family.MODEL_TYPES]
ENCODERS, SEQ2SEQ = list(bert.MODEL_TYPES), [*t5.MODEL_TYPES, *bart.MODEL_TYPES]
SHARED = frozenset(transformers.PretrainedConfig().to_dict()) | {"bos_token_id", "eos_token_id", "pad_token_id"}
"""Keys of every class: names, labels, and what a call returns; and ids of tokens, which a prompt or generation states."""
UNREAD = {
    "dropout, of which inference has none": {
        "attention_dropout", "attention_probs_dropout_prob", "hidden_dropout", "hidden_dropout_prob", "resid_pdrop",
        "embd_pdrop", "attn_pdrop", "emb_pdrop", "residual_dropout", "embedding_dropout", "dropout", "dropout_rate",
        "activation_dropout", "qa_dropout", "seq_classif_dropout", "encoder_layerdrop", "decoder_layerdrop",
    },
    "initial values, which the file's weights replace": {
        "initializer_range", "initializer_factor", "init_std", "init_device",
    },
    "losses and outputs of training": {"router_aux_loss_coef", "router_jitter_noise", "output_router_logits"},
    "heads of other tasks": {
        "summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels", "summary_first_dropout",
        "classifier_dropout", "num_nextn_predict_layers",
    },
    "the way of computing, with the same result": {
        "use_cache", "pretraining_tp", "slow_but_exact", "reorder_and_upcast_attn", "attn_impl",
    },
    "worked out of other keys by transformers": {"qk_head_dim", "_sliding_window_pattern"},
    "of generation": {"decoder_start_token_id", "forced_eos_token_id"},
    "tensors say it: the file would hold others": {
        "add_cross_attention", "is_decoder", "decoder_vocab_size", "type_vocab_size",
    },
    "no module of transformers reads it": {
        "learned_pos_emb", "embedding_fraction", "norm_type", "sinusoidal_pos_embds", "attn_uses_sequence_id",
    },
}  # fmt: skip
"""Keys that are not read, by reason; `test_config_sweep` runs both sides with each of them changed."""
OF_KIND: dict[str, set[str]] = {
    "qwen2_moe": {"sliding_window", "max_window_layers", "layer_types"},  # of use_sliding_window, which is refused
    "smollm3": {"sliding_window"},  # likewise
    # transformers runs no model of other values:
    "deepseek_v2": {"num_key_value_heads", "head_dim"},
    "deepseek_v3": {"num_key_value_heads", "head_dim"},
    # the tensors of a file say it:
    **{kind: {"tie_word_embeddings"} for kind in (*ENCODERS, *SEQ2SEQ)},
}


def read(values: dict[str, Any]) -> Any:
    """Our architecture of a config.json; the sentence, if it is refused."""
    kind, values = values["model_type"], deepcopy(values)
    try:
        if kind in ENCODERS:
            return built(lambda: bert.from_config(respelled(Fields(values, "c"))), FILE)
        make = encoder_decoder_architecture if kind in SEQ2SEQ else config_architecture
        return make(values, FILE)
    except (ModelFileError, ConfigError) as error:
        return str(error)


@functools.cache
def defaults(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = CONFIG_MAPPING[kind]().to_dict()
    return found | {"num_experts_per_tok": 2} if kind.startswith("deepseek") else found


NO_KIND: dict[str, Any] = {"rope_type": "no such kind"}
NO_KIND |= {"attn_type": "no such kind", "full_attention": dict(NO_KIND)}
WINDOW = {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1, "layer_types": None}

GROUPS = {"topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2}


def others(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value * 2, value + 1, 1, 4]
    if isinstance(value, str):
        return ["no such kind"]
    if isinstance(value, list):
        return [[*value[:-1], "no such kind"], value[:-1], [0]]
    return [True, 3, 4, 0.5, ["no such kind"]] if value is None else [NO_KIND]


def is_read(kind: str, key: str) -> bool:
    """True if some value of the key changes our architecture, or is refused by name, with any flag turned."""
    base = defaults(kind)
    yarn = {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}}
    turns = [{}, WINDOW, {"sliding_window": 7, "layer_types": None}, yarn, {"no_rope_layers": None}, GROUPS]
    for turn in turns:
        plain = read(base | turn)
        for value in others(base.get(key)):
            changed = read(base | turn | {key: value})
            if changed != plain and (not isinstance(changed, str) or key in changed):
                return True
    return False


@pytest.mark.parametrize("kind", [*DECODERS, *ENCODERS, *SEQ2SEQ])
def test_each_key_of_transformers_is_read_or_is_known_not_to_matter(kind: str) -> None:
    reasons = frozenset(OF_KIND.get(kind, ())).union(*UNREAD.values())
    unread = {key for key in defaults(kind) if key not in SHARED | reasons and not is_read(kind, key)}
    assert not unread


@pytest.mark.parametrize("kind", [*DECODERS, *ENCODERS, *SEQ2SEQ])
def test_second_names_are_those_of_transformers(kind: str) -> None:
    theirs = getattr(CONFIG_MAPPING[kind], "attribute_map", {})
    ours = {frozenset(pair) for pair in SPELLINGS.get(kind, {}).items()}
    assert ours == {frozenset(pair) for pair in theirs.items()} - {
        frozenset(("num_mtp_layers", "num_nextn_predict_layers"))
    }


LLAMA3 = {
    "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}  # fmt: skip
COMMON: dict[str, Any] = {
    "initializer_range": 0.02, "use_cache": True, "attention_dropout": 0.0, "torch_dtype": "bfloat16",
    "transformers_version": "4.43.0", "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "hidden_size": 4096, "intermediate_size": 14336, "vocab_size": 128256, "max_position_embeddings": 131072,
}  # fmt: skip
GPT: dict[str, Any] = {
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-5,
    "bos_token_id": 50256,
    "eos_token_id": 50256,
}
BERT: dict[str, Any] = {
    "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 384,
    "initializer_range": 0.02, "intermediate_size": 1536, "layer_norm_eps": 1e-12, "max_position_embeddings": 512,
    "num_attention_heads": 12, "num_hidden_layers": 6, "pad_token_id": 0, "type_vocab_size": 2, "vocab_size": 30522,
    "position_embedding_type": "absolute", "gradient_checkpointing": False, "classifier_dropout": None, "use_cache": True,
}  # fmt: skip
LATENT: dict[str, Any] = {
    "first_k_dense_replace": 3, "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "v_head_dim": 128, "moe_intermediate_size": 2048, "n_group": 8, "n_routed_experts": 256, "n_shared_experts": 1,
    "num_experts_per_tok": 8, "num_key_value_heads": 32, "routed_scaling_factor": 2.5, "moe_layer_freq": 1, "ep_size": 1,
    "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config"}, "pretraining_tp": 1, "aux_loss_alpha": 0.001,
    "seq_aux": True, "rms_norm_eps": 1e-6, "attention_bias": False,
}  # fmt: skip
YARN = {
    "beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0,
    "original_max_position_embeddings": 4096, "type": "yarn",
}  # fmt: skip
LONG = {"long_factor": [1.0 + each / 9 for each in range(48)], "short_factor": [1.0] * 48}
GEMMA: dict[str, Any] = {
    "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "attention_bias": False, "cache_implementation": "hybrid",
    "vocab_size": 256000, "max_position_embeddings": 8192, "pad_token_id": 0, "rms_norm_eps": 1e-6,
}  # fmt: skip
SEQ: dict[str, Any] = {
    "is_encoder_decoder": True, "use_cache": True, "task_specific_params": {"summarization": {"num_beams": 4}},
}  # fmt: skip
T5: dict[str, Any] = {
    "d_ff": 2048, "d_kv": 64, "d_model": 512, "decoder_start_token_id": 0, "dropout_rate": 0.1, "eos_token_id": 1,
    "initializer_factor": 1.0, "layer_norm_epsilon": 1e-6, "num_heads": 8, "num_layers": 6, "output_past": True,
    "pad_token_id": 0, "relative_attention_num_buckets": 32, "vocab_size": 32128, "n_positions": 512, **SEQ,
}  # fmt: skip
BART: dict[str, Any] = {
    "_num_labels": 3, "activation_dropout": 0.1, "activation_function": "gelu", "add_bias_logits": False,
    "add_final_layer_norm": False, "attention_dropout": 0.1, "classif_dropout": 0.1, "d_model": 768, "decoder_layers": 6,
    "decoder_attention_heads": 12, "decoder_ffn_dim": 3072, "decoder_layerdrop": 0.0, "decoder_start_token_id": 2,
    "dropout": 0.1, "encoder_attention_heads": 12, "encoder_ffn_dim": 3072, "encoder_layerdrop": 0.0, "encoder_layers": 6,
    "eos_token_id": 2, "forced_eos_token_id": 2, "gradient_checkpointing": False, "init_std": 0.02,
    "max_position_embeddings": 1024, "no_repeat_ngram_size": 3, "normalize_before": False, "normalize_embedding": True,
    "num_beams": 4, "num_hidden_layers": 6, "pad_token_id": 1, "scale_embedding": False, "vocab_size": 50265, **SEQ,
}  # fmt: skip
PUBLISHED: dict[str, dict[str, Any]] = {
    "Llama 2": COMMON | {"model_type": "llama", "pretraining_tp": 1, "rope_scaling": None, "vocab_size": 32000},
    "Llama 3.1": COMMON | {
        "model_type": "llama", "attention_bias": False, "mlp_bias": False, "pretraining_tp": 1, "rope_theta": 500000.0,
        "rope_scaling": LLAMA3, "eos_token_id": [128001, 128008, 128009],
    },
    "Llama 3.2": COMMON | {
        "model_type": "llama", "head_dim": 64, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "rope_scaling": LLAMA3 | {"factor": 32.0}, "rope_theta": 500000.0, "tie_word_embeddings": True,
    },
    "SmolLM2": COMMON | {
        "model_type": "llama", "hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3,
        "is_llama_config": True, "rope_interleaved": False, "rope_theta": 100000, "tie_word_embeddings": True,
        "transformers.js_config": {},
    },
    "Mistral": COMMON | {"model_type": "mistral", "rope_theta": 10000.0, "sliding_window": 4096, "vocab_size": 32000},
    "Mistral 0.3": COMMON | {"model_type": "mistral", "rope_theta": 1000000.0, "sliding_window": None, "head_dim": None},
    "Mixtral": COMMON | {
        "model_type": "mixtral", "num_experts_per_tok": 2, "num_local_experts": 8, "output_router_logits": False,
        "rope_theta": 1000000.0, "router_aux_loss_coef": 0.02, "sliding_window": None, "vocab_size": 32000,
    },
    "Qwen2": COMMON | {
        "model_type": "qwen2", "max_window_layers": 28, "rope_theta": 1000000.0, "sliding_window": 131072,
        "use_sliding_window": False, "rms_norm_eps": 1e-6,
    },
    "Qwen2.5": COMMON | {
        "model_type": "qwen2", "max_window_layers": 70, "rope_theta": 1000000.0, "sliding_window": 131072,
        "use_sliding_window": False, "use_mrope": False, "tie_word_embeddings": True,
    },
    "Qwen3": COMMON | {
        "model_type": "qwen3", "attention_bias": False, "head_dim": 128, "max_window_layers": 36, "rope_scaling": None,
        "rope_theta": 1000000, "sliding_window": None, "use_sliding_window": False,
    },
    "Qwen3-MoE": COMMON | {
        "model_type": "qwen3_moe", "decoder_sparse_step": 1, "head_dim": 128, "max_window_layers": 48, "mlp_only_layers": [],
        "moe_intermediate_size": 768, "norm_topk_prob": True, "num_experts": 128, "num_experts_per_tok": 8,
        "output_router_logits": False, "rope_scaling": None, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.001,
        "sliding_window": None, "use_sliding_window": False, "attention_bias": False,
    },
    "Qwen1.5-MoE": COMMON | {
        "model_type": "qwen2_moe", "decoder_sparse_step": 1, "max_window_layers": 21, "moe_intermediate_size": 1408,
        "norm_topk_prob": False, "num_experts": 60, "num_experts_per_tok": 4, "output_router_logits": False,
        "rope_theta": 1000000.0, "shared_expert_intermediate_size": 5632, "sliding_window": 32768,
        "use_sliding_window": False, "router_aux_loss_coef": 0.001,
    },
    "Gemma": COMMON | GEMMA | {"model_type": "gemma", "hidden_act": "gelu_pytorch_tanh", "rope_scaling": None},
    "Gemma 2": COMMON | GEMMA | {
        "model_type": "gemma2", "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "hidden_act":
        "gelu_pytorch_tanh", "query_pre_attn_scalar": 256, "rope_theta": 10000.0, "sliding_window": 4096,
    },
    "Gemma 3": COMMON | GEMMA | {
        "model_type": "gemma3_text", "attn_logit_softcapping": None, "final_logit_softcapping": None,
        "query_pre_attn_scalar": 256, "rope_local_base_freq": 10000, "rope_scaling": None, "rope_theta": 1000000,
        "sliding_window": 512, "sliding_window_pattern": 6,
    },
    "Gemma 3 12B": COMMON | GEMMA | {
        "model_type": "gemma3_text", "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024,
    },
    "Phi-3": COMMON | {
        "model_type": "phi3", "embd_pdrop": 0.0, "num_key_value_heads": 32, "hidden_size": 3072, "resid_pdrop": 0.0,
        "original_max_position_embeddings": 4096, "rope_scaling": None, "rope_theta": 10000.0, "sliding_window": 2047,
    },
    "Phi-3.5": COMMON | {
        "model_type": "phi3", "embd_pdrop": 0.0, "num_key_value_heads": 32, "hidden_size": 3072, "resid_pdrop": 0.0,
        "original_max_position_embeddings": 4096, "rope_scaling": {"type": "longrope", **LONG}, "rope_theta": 10000.0,
        "sliding_window": 262144, "attention_bias": False,
    },
    "Phi-3 of 2024": COMMON | {
        "model_type": "phi3", "num_key_value_heads": 32, "hidden_size": 3072, "original_max_position_embeddings": 4096,
        "rope_scaling": {"type": "su", **LONG}, "sliding_window": 262144,
    },
    "Phi-4-mini": COMMON | {
        "model_type": "phi3", "num_attention_heads": 24, "hidden_size": 3072, "original_max_position_embeddings": 4096,
        "partial_rotary_factor": 0.75, "rope_scaling": {"type": "longrope", **LONG}, "sliding_window": 262144,
        "full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": False, "mlp_bias": False, "attention_bias": False,
    },
    "Phi-4": COMMON | {
        "model_type": "phi3", "num_key_value_heads": 10, "num_attention_heads": 40, "hidden_size": 5120,
        "rope_theta": 250000, "original_max_position_embeddings": 16384, "rope_scaling": None, "sliding_window": None,
        "embd_pdrop": 0.0,
    },
    "OLMo 2": COMMON | {
        "model_type": "olmo2", "attention_bias": False, "rms_norm_eps": 1e-6, "rope_scaling": None, "rope_theta": 500000,
    },
    "DeepSeek-V2-Lite": COMMON | LATENT | {
        "model_type": "deepseek_v2", "q_lora_rank": None, "norm_topk_prob": False, "scoring_func": "softmax", "n_group": 1,
        "topk_method": "greedy", "topk_group": 1, "rope_scaling": YARN | {"mscale": 0.707, "mscale_all_dim": 0.707},
    },
    "DeepSeek-V3": COMMON | LATENT | {
        "model_type": "deepseek_v3", "norm_topk_prob": True, "scoring_func": "sigmoid", "topk_method": "noaux_tc",
        "topk_group": 4, "rope_scaling": YARN, "num_nextn_predict_layers": 1, "rope_theta": 10000,
    },
    "Moonlight": COMMON | LATENT | {
        "model_type": "deepseek_v3", "q_lora_rank": None, "rms_norm_eps": 1e-5, "topk_method": "noaux_tc", "n_group": 1,
        "topk_group": 1, "norm_topk_prob": True, "scoring_func": "sigmoid", "rope_theta": 50000.0,
    },
    "gpt-oss": COMMON | {
        "model_type": "gpt_oss", "attention_bias": True, "experts_per_token": 4, "head_dim": 64,
        "initial_context_length": 4096, "layer_types": ["sliding_attention", "full_attention"] * 16,
        "num_experts_per_tok": 4, "num_local_experts": 32, "output_router_logits": False, "rope_scaling": {
            "beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096,
            "rope_type": "yarn", "truncate": False,
        }, "rope_theta": 150000, "router_aux_loss_coef": 0.9, "sliding_window": 128, "swiglu_limit": 7.0,
    },
    "SmolLM3": COMMON | {
        "model_type": "smollm3", "attention_bias": False, "layer_types": ["full_attention"] * 32, "max_window_layers": 28,
        "mlp_bias": False, "no_rope_layer_interval": 4, "no_rope_layers": [1, 1, 1, 0] * 8, "pretraining_tp": 2,
        "rope_scaling": None, "rope_theta": 5000000.0, "sliding_window": None, "use_sliding_window": False,
    },
    "StableLM 2": COMMON | {
        "model_type": "stablelm", "hidden_dropout": 0.0, "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.25,
        "qk_layernorm": False, "rope_theta": 10000, "use_parallel_residual": False, "use_qkv_bias": True,
    },
    "StarCoder2": COMMON | {
        "model_type": "starcoder2", "activation_function": "gelu_pytorch_tanh", "embedding_dropout": 0.1, "hidden_act":
        "gelu_pytorch_tanh", "layer_norm_epsilon": 1e-5, "mlp_type": "default", "norm_epsilon": 1e-5, "norm_type":
        "layer_norm", "residual_dropout": 0.1, "rope_theta": 999999.4420358813, "sliding_window": 4096, "use_bias": True,
        "attention_softmax_in_fp32": True, "scale_attention_softmax_in_fp32": True, "scale_attn_weights": True,
    },
    "GPT-2": GPT | {
        "model_type": "gpt2", "activation_function": "gelu_new", "attn_pdrop": 0.1, "embd_pdrop": 0.1, "n_ctx": 1024,
        "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024, "resid_pdrop": 0.1, "vocab_size": 50257,
        "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True, "summary_type":
        "cls_index", "summary_use_proj": True, "task_specific_params": {"text-generation": {"do_sample": True}},
    },
    "BLOOM": GPT | {
        "model_type": "bloom", "apply_residual_connection_post_layernorm": False, "attention_dropout": 0.0,
        "attention_softmax_in_fp32": True, "bias_dropout_fusion": True, "hidden_dropout": 0.0, "masked_softmax_fusion": True,
        "n_embed": 1024, "n_inner": None, "n_layer": 24, "num_attention_heads": 16, "offset_alibi": 100, "pretraining_tp": 1,
        "skip_bias_add": True, "skip_bias_add_qkv": False, "seq_length": 2048, "unk_token_id": 0, "vocab_size": 250880,
    },
    "MPT": {
        "model_type": "mpt", "d_model": 4096, "n_heads": 32, "n_layers": 32, "expansion_ratio": 4, "max_seq_len": 2048,
        "emb_pdrop": 0, "resid_pdrop": 0, "embedding_fraction": 1.0, "learned_pos_emb": True, "logit_scale": None,
        "init_config": {"init_nonlinearity": "relu", "name": "kaiming_normal_"}, "init_device": "cpu", "no_bias": True,
        "norm_type": "low_precision_layernorm", "tokenizer_name": "EleutherAI/gpt-neox-20b", "use_cache": False,
        "verbose": 0, "vocab_size": 50432, "attn_config": {
            "alibi": True, "alibi_bias_max": 8, "attn_impl": "torch", "attn_pdrop": 0, "attn_type": "multihead_attention",
            "attn_uses_sequence_id": False, "clip_qkv": None, "prefix_lm": False, "qk_ln": False, "softmax_scale": None,
        },
    },
    "MiniLM": BERT | {"model_type": "bert"},
    "BGE": BERT | {"model_type": "bert", "hidden_size": 768, "id2label": {"0": "LABEL_0"}, "num_hidden_layers": 12},
    "E5, of many languages": BERT | {
        "model_type": "xlm-roberta", "pad_token_id": 1, "type_vocab_size": 1, "vocab_size": 250037, "output_past": True,
        "max_position_embeddings": 514, "layer_norm_eps": 1e-5,
    },
    "all-mpnet": BERT | {"model_type": "mpnet", "relative_attention_num_buckets": 32, "max_position_embeddings": 514},
    "DistilBERT": {
        "model_type": "distilbert", "activation": "gelu", "attention_dropout": 0.1, "dim": 768, "dropout": 0.1,
        "hidden_dim": 3072, "initializer_range": 0.02, "max_position_embeddings": 512, "n_heads": 12, "n_layers": 6,
        "pad_token_id": 0, "qa_dropout": 0.1, "seq_classif_dropout": 0.2, "sinusoidal_pos_embds": False,
        "tie_weights_": True, "vocab_size": 30522,
    },
    "T5": T5 | {"model_type": "t5"},
    "T5 v1.1 and Flan-T5": T5 | {
        "model_type": "t5", "feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_new", "is_gated_act": True,
        "num_decoder_layers": 8, "relative_attention_max_distance": 128, "tie_word_embeddings": False,
    },
    "BART": BART | {"model_type": "bart", "classifier_dropout": 0.0},
    "Marian": BART | {
        "model_type": "marian", "activation_function": "swish", "bad_words_ids": [[58100]], "decoder_start_token_id": 58100,
        "decoder_vocab_size": 58101, "vocab_size": 58101, "pad_token_id": 58100, "eos_token_id": 0, "forced_eos_token_id": 0,
        "max_length": 512, "scale_embedding": True, "share_encoder_decoder_embeddings": True,
        "static_position_embeddings": True, "extra_pos_embeddings": 0,
        "normalize_embedding": False,
    },
}  # fmt: skip
"""config.json as published, some sizes aside."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_open(name: str) -> None:
    found = read(PUBLISHED[name])
    assert not isinstance(found, str), found


HARMLESS: dict[str, dict[str, Any]] = {
    "unsloth": {
        "unsloth_fixed": True, "unsloth_version": "2025.6.1", "unsloth_training_args": {"r": 16}, "dtype": "bfloat16",
        "quantization_config": None, "_name_or_path": "unsloth/a-model", "use_cache": False,
    },
    "axolotl": {
        "attn_implementation": "flash_attention_2", "_attn_implementation": "flash_attention_2",
        "_attn_implementation_autoset": True, "_flash_attn_2_enabled": True, "axolotl_config_path": "a.yml",
        "gradient_checkpointing": True, "model_max_length": 4096,
    },
    "mergekit": {"_name_or_path": "/merge", "merge_method": "slerp", "torch_dtype": "float16", "architectures": None},
    "vLLM": {"kv_cache_quant_algo": None, "compression_config": None, "max_model_len": 4096, "runner": "auto"},
    "a trainer": {
        "problem_type": "multi_label_classification", "id2label": {"0": "a"}, "label2id": {"a": 0}, "num_labels": 1,
        "output_attentions": True, "output_hidden_states": True, "return_dict": False, "torchscript": True,
    },
}  # fmt: skip
"""Keys of tools, without effect on logits."""


@pytest.mark.parametrize("name", ["Llama 3.1", "Qwen2.5", "Gemma 3", "DeepSeek-V3", "gpt-oss", "MPT", "BGE", "T5"])
def test_keys_that_tools_leave_do_not_change_a_model(name: str) -> None:
    plain = read(PUBLISHED[name])
    for tool, keys in HARMLESS.items():
        assert read(PUBLISHED[name] | keys) == plain, tool


def test_a_compressed_folder_is_refused_for_its_method() -> None:
    for method in ("compressed-tensors", "bitsandbytes", "fp8"):
        found = read(
            PUBLISHED["Llama 3.1"] | {"quantization_config": {"quant_method": method, "format": "pack-quantized"}}
        )
        assert f"quantization_config is '{method}': expected gptq or awq" in found


@pytest.mark.parametrize("given", [True, False, None])
def test_a_truncation_of_yarn_that_is_null_is_none(given: bool | None) -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}
    plain = PUBLISHED["Llama 2"] | {"rope_scaling": None}
    stated = read(plain | {"rope_parameters": yarn | {"truncate": given}})
    assert stated.ropes[0].truncate is bool(given)
    assert read(plain | {"rope_parameters": yarn}).ropes[0].truncate
