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
    **dict.fromkeys((*ENCODERS, *SEQ2SEQ), {"tie_word_embeddings"}),
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
    assert ours == {frozenset(pair) for pair in theirs.items()} - {frozenset(("num_mtp_layers", "num_nextn_predict_layers"))}
