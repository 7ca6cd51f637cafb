"""Builds an engine's parts from a model and a config: KV cache, runner, adapters, scheduler, speculator."""

from __future__ import annotations

from dataclasses import dataclass

from firsthand.engine.compute.adapter_slots import AdapterSlots
from firsthand.engine.compute.devices import free_bytes_on, kv_bytes_on
from firsthand.engine.compute.packing import block_bytes, kv_dtype, pack_model
from firsthand.engine.compute.runner import Runner
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.scheduler import SHARED_PROMPT_TOKENS, Scheduler
from firsthand.engine.decoding.drafts import speculator
from firsthand.engine.decoding.speculative import Drafter, Speculator
from firsthand.engine.memory.blocks import BlockPool
from firsthand.engine.memory.window_pool import SlidingWindowPool, open_pool
from firsthand.nn.decoder import Decoder
from firsthand.nn.quant import Mode


@dataclass(frozen=True)
class EngineParts:
    """The parts of one engine. Runner and scheduler address blocks of the same KV cache."""

    weights: Mode
    """The format of the packed weights."""
    pool: BlockPool | SlidingWindowPool
    runner: Runner
    adapters: AdapterSlots
    scheduler: Scheduler
    speculator: Speculator | None


def assemble(model: Decoder, config: EngineConfig, draft: Decoder | Drafter | None) -> EngineParts:
    """Packs the model, and a draft model, in place and returns the engine's parts.

    Raises ConfigError if the config does not fit the model, or if the KV cache has no room for two blocks.
    """
    architecture = model.architecture
    weights = pack_model(model.eval().requires_grad_(False), config)
    dtype = kv_dtype(config, weights, model.embed.weight)
    draft_bytes, draft_dtype = 0, dtype
    if isinstance(draft, Decoder):  # its KV cache has as many positions as the model's
        mode = pack_model(draft.eval().requires_grad_(False), config)
        draft_dtype = kv_dtype(config, mode, draft.embed.weight)
        draft_bytes = block_bytes(draft.architecture, config, draft_dtype)
    pool = open_pool(
        architecture.windows,
        config,
        memory_bytes=config.kv_memory_bytes or kv_bytes_on(model.embed.weight.device),
        layer_bytes=block_bytes(architecture, config, dtype) // architecture.num_layers,
        extra_bytes=draft_bytes,
        max_position=architecture.max_position,
        free_bytes=free_bytes_on(model.embed.weight.device),
    )
    runner = Runner(
        model,
        num_blocks=pool.num_blocks,
        block_size=config.block_size,
        kv_dtype=dtype,
        num_window_blocks=pool.window_pool.num_blocks if isinstance(pool, SlidingWindowPool) else None,
        graphs={"auto": None, "on": True, "off": False}[config.graphs],
    )
    _zero_null_blocks(runner, pool)
    return EngineParts(
        weights,
        pool,
        runner,
        AdapterSlots(model, config, tiles_of=weights if runner.fused else None),
        Scheduler(
            pool,
            max_batch_tokens=config.max_batch_tokens,
            max_sequences=config.max_sequences,
            shared_prompt_tokens=SHARED_PROMPT_TOKENS if model.embed.weight.device.type == "cpu" else None,
        ),
        speculator(draft, config, architecture, num_blocks=pool.num_blocks, kv_dtype=draft_dtype),
    )


def _zero_null_blocks(runner: Runner, pool: BlockPool | SlidingWindowPool) -> None:
    """Zero the null block of windowed layers: attention reads it with weight 0, and NaN times 0 is NaN."""
    for kind, pages in zip(runner.cache.spans[:, 0], runner.pages, strict=True):
        if pool.pools[kind].window is not None:
            for tensor in pages.tensors:
                tensor[0].zero_()
