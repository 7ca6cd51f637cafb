"""GGUF metadata that changes what a model computes is read by its family, or refused by name unless it has no effect."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from firsthand.formats.fields import Fields
from firsthand.nn.architecture import Architecture

OFF: dict[str, tuple[float, ...]] = {
    "embedding_scale": (0, 1), "residual_scale": (0, 1), "logit_scale": (0, 1), "attention.output_scale": (0, 1),
    "attention.clamp_kqv": (0,), "attention.max_alibi_bias": (0,), "attention.temperature_scale": (0,),
    "attn_logit_softcapping": (0,), "final_logit_softcapping": (0,), "router_logit_softcapping": (0,),
    "rope.scaling.factor": (0, 1), "rope.scale_linear": (0, 1), "rope.scaling.attn_factor": (1,),
    "rope.scaling.alpha": (0,), "rope.scaling.yarn_log_multiplier": (0,), "rope.scaling.yarn_ext_factor": (-1, 1),
    "rope.scaling.yarn_attn_factor": (1,), "expert_weights_scale": (0, 1), "expert_group_count": (0, 1),
    "leading_dense_block_count": (0,), "interleave_moe_layer_step": (0, 1), "nextn_predict_layers": (0,),
    "use_parallel_residual": (0,), "moe_every_n_layers": (0, 1), "attention.shared_kv_layers": (0,),
    "swiglu_clamp_exp": (0,), "swiglu_clamp_shexp": (0,),
}  # fmt: skip
"""Values that have no effect, of keys that llama.cpp knows."""
GATES = {"softmax": 1, "sigmoid": 2, "softmax_of_chosen": 3}
"""llama.cpp's numbers of gating functions; 0 states none."""


class Asked(dict[str, Any]):
    """Metadata that remembers which of its keys were asked for."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)


def refuse_unread(metadata: Asked, fields: Fields, a: Architecture) -> None:
    """Raise ModelFileError for a key that the family did not ask for and that states another model than `a`."""
    window, longest = "attention.sliding_window", max(a.max_position, 1)
    fine: dict[str, tuple[Any, ...]] = {
        **OFF,
        "attention.scale": (0, a.attention_scale),
        "rope.freq_base_swa": tuple({rope.theta for rope in a.ropes}),
        "rope.dimension_count_swa": (a.rotated,),
        "attention.key_length_swa": (a.head_dim,),
        **({window + "_pattern": _patterns(a)} if any(a.windows) else {}),
    }
    if a.experts is not None:
        fine |= {"expert_weights_norm": (a.experts.renormalise,), "expert_gating_func": (0, GATES[a.experts.score])}
    unread = {
        key: metadata.get(fields.prefix + key) for key in (*fine, window) if fields.prefix + key not in metadata.asked
    }
    if type(unread.get(window)) is int and unread[window] >= longest:  # as good as none
        del unread[window]
    for key, value in unread.items():
        if value is not None and not any(_is_same(value, each) for each in fine.get(key, (0,))):
            raise fields.error(
                key, value, "no such setting, or one without effect: this family's models do not have it"
            )


def _is_same(value: Any, other: Any) -> bool:
    if isinstance(value, float) and isinstance(other, int | float):  # GGUF has single precision
        return math.isclose(value, other, rel_tol=1e-6)
    return bool(value == other)


def _patterns(a: Architecture) -> tuple[Any, ...]:
    """The ways to state the layers that have a window: one flag each, or a period whose last layer has none."""
    flags = [window is not None for window in a.windows]
    periods = (
        each
        for each in range(a.num_layers + 2)
        if flags == [not each or i % each < each - 1 for i in range(len(flags))]
    )
    return (flags, *periods)
