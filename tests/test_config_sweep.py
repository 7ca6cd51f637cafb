"""Each key of config.json that changes transformers' output is followed or refused by name, in every family that is read."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import encoder_decoders
import families
import pytest
import torch
import transformers
from torch import Tensor

from firsthand.errors import ModelFileError
from firsthand.nn.encoder import Together
from firsthand.nn.encoder_decoder_weights import load_encoder_decoder
from firsthand.nn.families import bart, bert, t5
from firsthand.nn.model_config import families as decoder_families
from firsthand.nn.weights import load, load_encoder
from thorough import THOROUGH

torch.set_num_threads(1)
ENCODER: dict[str, Any] = dict(
    vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    max_position_embeddings=40,
)  # fmt: skip
DISTIL = dict(vocab_size=97, dim=32, hidden_dim=48, n_layers=2, n_heads=4, max_position_embeddings=40)
ENCODERS = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "distilbert": "DistilBert",
    "mpnet": "MPNet",
}
STANDS_FOR = {"transformer_2017": "marian"}
QUICK = ("bloom", "distilbert")
SLOW = ("llama", "mpt", "gemma2", "phi3_long", "olmo2", "smollm3", "bert", "t5_gated")
"""The others are swept with FIRSTHAND_THOROUGH=1 alone."""
TWICE = {
    "gpt2_untied", "gemma2_scaled", "bloom_six_heads", "mpt_clipped", "qwen2_moe_dense_layer", "stablelm_biased",
    "llama_dynamic",
}  # fmt: skip
NAMES = [
    name
    for name in (*families.TESTED_ELSEWHERE, *families.FAMILIES, *ENCODERS, *encoder_decoders.MODELS)
    if name not in TWICE
]
EXCEPT = {
    ("mpt", "alibi_bias_max"): "followed, as by its authors' code and llama.cpp; transformers passes it over",
    ("bart", "decoder_start_token_id"): "null: no model differs, only the token that generation begins with",
    ("transformer_2017", "decoder_start_token_id"): "likewise",
}

CHOICES: dict[str, list[Any]] = {
    "hidden_act": ["relu", "gelu", "silu", "gelu_new", "quick_gelu"],
    "hidden_activation": ["relu", "gelu", "silu"],
    "activation_function": ["relu", "gelu", "silu", "tanh"],
    "activation": ["relu", "gelu", "silu"],
    "feed_forward_proj": ["relu", "gelu", "gated-gelu", "gated-silu", "gated-relu", "gated-gelu_new", "silu"],
    "dense_act_fn": ["gelu", "silu"],
    "topk_method": ["greedy", "group_limited_greedy", "noaux_tc"],
    "scoring_func": ["softmax", "sigmoid"],
    "position_embedding_type": ["relative_key", "relative_key_query", "rotary"],
    "experts_implementation": ["eager"],
    "layer_types": [["sliding_attention"] * 2, ["full_attention"] * 2, ["full_attention", "sliding_attention"]],
    "no_rope_layers": [[0, 1, 0, 1, 0]],
    "mlp_only_layers": [[0], [1]],
    "attn_type": ["multiquery_attention", "grouped_query_attention"],
    "norm_type": ["rmsnorm", "layernorm"],
    "logit_scale": [0.5, "inv_sqrt_d_model"],
    "n_inner": [40], "head_dim": [8, 16], "sliding_window": [0, 5], "q_lora_rank": [12], "clip_qkv": [0.3],
    "softmax_scale": [0.3], "n_group": [1, 2, 4], "topk_group": [1, 2], "attn_logit_softcapping": [0.5],
    "final_logit_softcapping": [0.5], "swiglu_limit": [0.1], "use_bidirectional_attention": [True, "all"],
}  # fmt: skip
OURS = {
    "n_routed_experts": ["num_experts", "groups of a token"], "kv_lora_rank": ["head_dim"],
    "topk_group": ["groups of a token"],
    "num_experts_per_tok": ["per_token"], "n_group": ["num_groups"], "is_causal": ["both directions"],
    "tie_word_embeddings": ["embeddings of their own"],
}  # fmt: skip
"""What errors call a key."""
TENSORS = ("missing:", "surplus:", "misshapen:")
EXTRA: dict[str, list[Any]] = {
    "is_causal": [False], "head_dim": [8, 32], "attention_chunk_size": [4], "sliding_window": [5], "layer_types": [
        ["full_attention", "chunked_attention"], ["sliding_attention"] * 2], "use_sliding_window": [True],
    "per_layer_config": [{"0": {"rms_norm_eps": 0.5, "layer_norm_epsilon": 0.5, "layer_norm_eps": 0.5}}],
    "hidden_act": ["relu"], "attention_bias": [True], "mlp_bias": [True], "n_ctx": [64], "multi_query": [True],
    "relative_attention_max_distance": [40], "position_embedding_type": ["relative_key"],
}  # fmt: skip
"""Keys that modules ask for though their configuration class may not have them."""
ROPE: list[dict[str, Any]] = [  # dynamic scaling is left out: it is fixed for the longest text, not for this one
    {"rope_theta": 100.0},
    {"rope_type": "linear", "factor": 3.0},
    {"type": "linear", "factor": 3.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8, "attention_factor": 1.5},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8, "mscale": 0.5, "mscale_all_dim": 0.7},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8, "beta_fast": 9.0, "beta_slow": 2.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8, "truncate": False},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8, "beta_fast": 9.0, "truncate": None},
    {"rope_type": "yarn", "factor": 4.0},
    {"rope_type": "yarn", "original_max_position_embeddings": 8},
    {
        "rope_type": "llama3", "factor": 4.0, "original_max_position_embeddings": 8, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    },
    {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    {"rope_type": "proportional", "factor": 4.0},
    {"partial_rotary_factor": 0.5},
]  # fmt: skip
TOP = [
    {"rope_theta": 300.0}, {"partial_rotary_factor": 0.5}, {"original_max_position_embeddings": 8},
    *({"rope_scaling": rope} for rope in ROPE[1:]),
]  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A tiny model of transformers in a folder, and both sides' way from a folder to numbers."""

    name: str
    theirs: Any
    folder: Path
    ours: Callable[[Path], Tensor]
    run: Callable[[Any], Tensor]

    @property
    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "config.json").read_text())
        return found


def subject(name: str, folder: Path) -> Subject:
    if name in encoder_decoders.MODELS:
        theirs = encoder_decoders.reference(name)
        ours, run = _ours_seq2seq, _theirs_seq2seq
    elif name in ENCODERS:
        torch.manual_seed(0)
        kind, ends = ENCODERS[name], dict(bos_token_id=None, eos_token_id=None)
        config = getattr(transformers, f"{kind}Config")(**(DISTIL if name == "distilbert" else ENCODER), **ends)
        theirs = getattr(transformers, f"{kind}Model")._from_config(config, attn_implementation="eager").eval()
        ours, run = _ours_encoder, _theirs_encoder
    else:
        theirs = families.reference(name)
        ours, run = _ours_decoder, _theirs_decoder
    _stir(theirs)
    theirs.save_pretrained(folder)
    return Subject(name, theirs, folder, ours, run)


@torch.no_grad()
def _stir(model: Any) -> None:
    """Random norms and biases, so that none can be forgotten."""
    generator = torch.Generator().manual_seed(1)
    for label, parameter in model.named_parameters():
        if "embed_positions" not in label:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)


IDS = [int(each) for each in torch.randint(5, 60, (24,), generator=torch.Generator().manual_seed(3))]


def _ours_decoder(folder: Path) -> Tensor:
    return families.logprobs(load(folder), IDS)


def _theirs_decoder(model: Any) -> Tensor:
    return families.reference_logprobs(model, IDS)


@torch.no_grad()
def _ours_encoder(folder: Path) -> Tensor:
    return load_encoder(folder)(torch.tensor(IDS), torch.arange(len(IDS)), Together([len(IDS)]))


@torch.no_grad()
def _theirs_encoder(model: Any) -> Tensor:
    found: Tensor = model(torch.tensor([IDS])).last_hidden_state[0]
    return found


def _ours_seq2seq(folder: Path) -> Tensor:
    model = load_encoder_decoder(folder)
    return torch.cat(encoder_decoders.logprobs(model))


def _theirs_seq2seq(model: Any) -> Tensor:
    start = getattr(model.config, "decoder_start_token_id", None)
    start = model.config.pad_token_id if start is None else start
    return torch.cat(encoder_decoders.reference_logprobs(model, start))


def values_for(key: str, value: Any) -> list[Any]:
    """Other values of a key, of its own type; for null some that it might have."""
    if key in CHOICES:
        return [each for each in CHOICES[key] if each != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value * 2 or 3, value + 1, value // 2]
    if isinstance(value, float):
        return [value * 2 + 0.1]
    if isinstance(value, list):
        return [value[::-1]] if value[::-1] != value else []
    return [True, 3, 0.5] if value is None else []


def edits(config: dict[str, Any], theirs: Any, *, shared: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """A key to look for in an error, and config.json with it changed, removed or null."""
    keys = {**type(theirs.config)().to_dict(), **config}
    passed = {"model_type", "architectures", "transformers_version", "dtype"}
    if not shared:
        passed |= set(transformers.PretrainedConfig().to_dict()) - {"is_encoder_decoder"}
    for key, default in keys.items():
        if key in passed:
            continue
        value = config.get(key, default)
        if isinstance(value, dict):
            for inner, each in value.items():
                yield inner, {**config, key: {**value, inner: None}}
                yield inner, {**config, key: {other: kept for other, kept in value.items() if other != inner}}
                more = each if isinstance(each, dict) else {inner: each}
                for name, old in more.items():
                    for new in values_for(name, old):
                        yield name, {**config, key: {**value, inner: {**each, name: new} if more is each else new}}
                if isinstance(each, dict) and key == "rope_parameters":
                    for rope in ROPE:
                        yield inner, {**config, key: {**value, inner: {**each, **rope}}}
            if key == "rope_parameters":
                for rope in (ROPE[1], ROPE[3]):
                    yield key, {**config, key: rope}
            if key == "rope_parameters" and not any(isinstance(each, dict) for each in value.values()):
                for rope in ROPE:
                    yield key, {**config, key: {**value, **rope}}
        for new in values_for(key, value):
            yield key, {**config, key: new}
        if key in config:
            yield key, {other: each for other, each in config.items() if other != key}
            yield key, {**config, key: None}
    for key, news in EXTRA.items():
        for new in news if key not in keys else ():
            yield key, {**config, key: new}
    for old, new in (getattr(theirs.config, "attribute_map", None) or {}).items():
        for other in values_for(old, config.get(new, 4)):
            yield old, {**config, old: other}
        if new in config:
            yield old, {**{k: v for k, v in config.items() if k != new}, old: config[new]}
    if "rope_parameters" in config:
        old_style = {key: each for key, each in config.items() if key != "rope_parameters"}
        for base in (config, old_style):
            for top in TOP:
                yield "rope", {**base, **top}


def is_small(config: dict[str, Any]) -> bool:
    """True if a model of this configuration is made in milliseconds."""
    layers = [
        each
        for key, each in config.items()
        if re.search(r"^(n|num|num_hidden|num_decoder|encoder|decoder)_layers?$", key) and type(each) is int
    ]
    widths = [each for key, each in config.items() if re.search(r"size|dim$|rank$|embd$|^d_|inner$|experts$", key)]
    return max(layers) <= 16 and max(each for each in widths if type(each) is int) <= 300


def remade(of: Subject, config: dict[str, Any]) -> tuple[Any, bool] | None:
    """transformers' model of another config.json, and whether it holds the first one's weights; None if it makes none."""
    kind = type(of.theirs)
    try:
        made = kind.config_class.from_dict(deepcopy(config))
        if not is_small(made.to_dict()):
            return None
        model = kind._from_config(made).eval()  # with attention as users have it
    except Exception:  # of many kinds: transformers makes no such model
        return None
    state = of.theirs.state_dict()
    shapes = {name: each.shape for name, each in model.state_dict().items()}
    tied = model.config.tie_word_embeddings == of.theirs.config.tie_word_embeddings
    if tied and shapes == {name: each.shape for name, each in state.items()}:
        model.load_state_dict(state)
        return model, True
    _stir(model)
    return model, False


def verdict(of: Subject, key: str, config: dict[str, Any], base: Tensor, place: Path) -> str:
    """`followed`, `same` where nothing changes, `refused`, `not theirs`, or what is wrong."""
    found_theirs = remade(of, config)
    if found_theirs is None:
        return "not theirs"
    model, kept = found_theirs
    try:
        expected = of.run(model)
    except Exception:  # as above: it runs no such model
        return "not theirs"
    if kept:
        for each in of.folder.iterdir():
            if each.suffix == ".safetensors" and not (place / each.name).exists():
                (place / each.name).symlink_to(each)
    else:
        for each in list(place.iterdir()):
            each.unlink()
        model.save_pretrained(place)
        (place / "config.json").unlink()
    (place / "config.json").write_text(json.dumps(config))
    try:
        found = of.ours(place)
    except ModelFileError as error:
        said = re.sub(r"^\S*config.json", "", str(error))
        named = any(each in said for each in (key, *OURS.get(key, ()), *TENSORS))
        return "refused" if named else f"refused without its name: {str(error)[-160:]}"
    except Exception as error:
        return f"ended by {error!r}"[:200]
    finally:
        if not kept:
            for each in list(place.iterdir()):
                each.unlink()
    if not kept and not bool(expected.isfinite().all()):
        return "not finite"
    gap = float((found - expected).abs().max()) if found.shape == expected.shape else float("inf")
    moved = float((expected - base).abs().max()) if expected.shape == base.shape else float("inf")
    if gap <= 1e-4:
        return "followed" if moved > 1e-3 else "same"
    return f"another model by {gap:.1e}: transformers' output moved by {moved:.1e}"


def difference(config: dict[str, Any], changed: dict[str, Any]) -> str:
    gone = [key for key in config if key not in changed]
    more = {key: each for key, each in changed.items() if key not in config or config[key] != each}
    return f"{more} without {gone}" if gone else str(more)


def sweep(name: str, folder: Path) -> Iterator[tuple[str, str, str]]:
    of = subject(name, folder / "base")
    base, place = of.run(of.theirs), folder / "place"
    place.mkdir()
    config = of.config
    seen = set()
    for key, changed in edits(config, of.theirs, shared=name in ("llama", "bert", "t5")):
        text = json.dumps(changed, sort_keys=True)
        if text in seen:
            continue
        seen.add(text)
        yield key, difference(config, changed), verdict(of, key, changed, base, place)


def cases() -> list[Any]:
    names = NAMES if THOROUGH else [*QUICK, *SLOW]
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", cases())
def test_each_key_is_followed_as_by_transformers_or_refused_by_name(name: str, tmp_path: Path) -> None:
    found = list(sweep(name, tmp_path))
    wrong = [each for each in found if each[2] not in ("followed", "same", "refused", "not theirs")]
    assert not [each for each in wrong if (name, each[0]) not in EXCEPT]
    verdicts = [verdict for _, _, verdict in found]
    assert verdicts.count("followed") > 3 and verdicts.count("refused") > 3 and verdicts.count("same") > 3


def test_each_family_that_is_read_is_swept() -> None:
    read = {kind for family in decoder_families() for kind in family.MODEL_TYPES}
    read |= {*bert.MODEL_TYPES, *t5.MODEL_TYPES, *bart.MODEL_TYPES}
    assert read <= {STANDS_FOR.get(name, name) for name in NAMES}


def main() -> None:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for name in sys.argv[1:] or NAMES:
        with tempfile.TemporaryDirectory() as folder:
            for key, change, found in sweep(name, Path(folder)):
                print(f"{name}\t{key}\t{change[:150]}\t{found}", flush=True)


if __name__ == "__main__":
    main()
