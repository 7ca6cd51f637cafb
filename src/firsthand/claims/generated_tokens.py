"""Runs prompts of token ids through our engine: the answers, and the steps that it took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from firsthand.nn.decoder import Decoder


def generated(
    model: Decoder, prompts: Sequence[tuple[int, ...]], tokens: int, **settings: Any
) -> tuple[list[tuple[int, ...]], int]:
    """The greedy answers to prompts that are sent together, in their order, and the number of engine steps."""
    from firsthand.engine.core.engine import Engine
    from firsthand.engine.core.engine_config import EngineConfig
    from firsthand.engine.core.sequence import Request
    from firsthand.model import Sampling

    engine = Engine(
        model, EngineConfig(**{"kv_memory_bytes": 1 << 25, "kv_cache": "float32", "threads": 1, **settings})
    )
    sampling = Sampling(temperature=0.0, max_tokens=tokens, seed=0)
    found: dict[int, list[int]] = {engine.add(Request(prompt, sampling)): [] for prompt in prompts}
    steps = 0
    while engine.has_work:
        steps += 1
        for output in engine.step():
            found[output.request_id].extend(output.token_ids)
    return [tuple(each) for each in found.values()], steps
