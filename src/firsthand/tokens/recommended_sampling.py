"""The sampling settings that a model's authors recommend, from its generation_config.json or the metadata of its GGUF."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from firsthand.errors import ConfigError
from firsthand.sampling import Sampling

FOLDER = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "max_new_tokens": "max_tokens",
}
"""Keys of generation_config.json that vLLM takes too, and ours."""
GGUF = {
    "general.sampling.temp": "temperature",
    "general.sampling.top_p": "top_p",
    "general.sampling.top_k": "top_k",
    "general.sampling.min_p": "min_p",
    "general.sampling.penalty_repeat": "repetition_penalty",
}
"""Keys of a GGUF's metadata, as llama.cpp writes them."""


def recommended(values: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, float]:
    """Fields of a Sampling with the values that files give under `keys`; what no Sampling takes is left out."""
    found: dict[str, float] = {}
    for key, name in keys.items():
        value = values.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            continue
        if name in ("top_k", "max_tokens"):
            value = int(value)
        stated: dict[str, Any] = {name: value}
        try:
            Sampling(**stated)
        except ConfigError:
            continue
        found[name] = value
    return found
