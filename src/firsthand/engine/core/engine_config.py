"""`EngineConfig`: memory, batch, queue and precision limits of an engine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from firsthand.engine.memory.available_memory import free_bytes
from firsthand.errors import ConfigError
from firsthand.system.field_types import check_kinds, shown

MAX_THREADS = 1024


def default_kv_bytes() -> int:
    """Returns the smaller of 2 GiB and a quarter of the free memory. For a GPU see `devices.kv_bytes_on`."""
    return min(2 << 30, (free_bytes() or 4 << 30) // 4)


@dataclass(frozen=True)
class EngineConfig:
    """Limits and precision of an engine. Only `weights` and `kv_cache` change answers."""

    block_size: int = 16
    """Positions in a KV block. The compiled kernel needs a multiple of 16."""
    max_batch_tokens: int = 512
    """Tokens in one step: first one for each running answer, then chunks of prompts."""
    max_sequences: int = 64
    """Sequences that run at the same time."""
    max_waiting: int = 20_000
    """Requests that may wait; further ones are refused with QueueFull."""
    max_live_tokens: int = 1 << 25
    """Prompt tokens of all waiting and running requests, a prompt counted once per answer; further requests are
    refused."""
    kv_memory_bytes: int | None = None
    """Bytes of the KV cache. None: the smaller of 2 GiB and a quarter of the free memory; on CUDA half of the memory
    that is free once the weights are loaded."""
    device: str = "cpu"
    """`cpu`, `cuda` or `cuda:N`. On CUDA weights are bfloat16, or float32 if `weights` says so. Ignored for a model
    that is already loaded."""
    graphs: Literal["auto", "on", "off"] = "auto"
    """Pads decode steps to fixed shapes for models that run by their modules. `auto`: on CUDA, where each shape is
    captured in a CUDA graph once. `on` with a CPU is for tests."""
    threads: int | None = None
    """torch's threads, for the whole process; None leaves them unchanged. More threads than idle cores is much slower
    than fewer, since torch's threads spin while they wait for each other."""
    weights: Literal["auto", "int8", "float16", "float32"] = "auto"
    """Format of the linear layers. `auto`: the file's own quantised blocks if it has them, else `float16` where
    supported. `int8`: 8 bits in blocks of 32; with it, and with a file's own blocks, activations are rounded to 8 bits
    too. `float32`: unchanged, plus a copy for the compiled step."""
    kv_cache: Literal["auto", "float32", "float16", "int8"] = "auto"
    """Format of the KV cache. `auto`: float16 if the weights are rounded too, else the model's dtype. `float16` takes
    half of float32's memory, `int8` a quarter."""
    speculation: Literal["off", "prompt_lookup"] = "off"
    """`prompt_lookup` drafts tokens from repetitions in prompt and answer. Pass a draft model to the engine instead."""
    draft_tokens: int = 7
    """Most draft tokens for one answer in one step. Eight rows are one tile of the compiled kernels."""
    speculate_below: int = 8
    """Draft tokens fill a step up to this many rows, so with as many running answers there are none: an extra row is
    cheap only while reading the weights takes longer than computing with them."""

    max_adapters: int = 8
    """LoRA adapters in memory at the same time, including unloaded ones that requests still use."""
    max_adapter_rank: int = 256
    """Largest rank of any adapter matrix."""
    adapter_memory_bytes: int = 1 << 30
    """Bytes of all adapters together. On the CPU they are kept in float16, with float32 weights in float32."""

    def __post_init__(self) -> None:
        check_kinds(self)
        checks = [
            ("block_size", 1 <= self.block_size <= 1024, "from 1 to 1024"),
            ("max_sequences", self.max_sequences >= 1, "1 or more"),
            (
                "max_batch_tokens",
                self.max_batch_tokens > self.max_sequences,
                f"above max_sequences ({shown(self.max_sequences)})",
            ),
            ("max_waiting", self.max_waiting >= 1, "1 or more"),
            ("max_live_tokens", self.max_live_tokens >= 1, "1 or more"),
            ("kv_memory_bytes", self.kv_memory_bytes is None or self.kv_memory_bytes > 0, "None or above 0"),
            ("device", re.fullmatch(r"cpu|cuda(:\d{1,3})?", self.device) is not None, "cpu, cuda or cuda:N"),
            ("threads", self.threads is None or 1 <= self.threads <= MAX_THREADS, f"None or 1 to {MAX_THREADS}"),
            ("draft_tokens", 1 <= self.draft_tokens <= 256, "from 1 to 256"),
            ("max_adapters", self.max_adapters >= 0, "0 (none) or more"),
            ("max_adapter_rank", 1 <= self.max_adapter_rank <= 4096, "from 1 to 4096"),
            ("adapter_memory_bytes", self.adapter_memory_bytes > 0, "above 0"),
            ("speculate_below", self.speculate_below >= 0, "0 (never) or more"),
        ]
        checks += [
            (name, value < 1 << 62, "less than 2^62") for name, value in vars(self).items() if isinstance(value, int)
        ]
        for field, good, expected in checks:
            if not good:
                raise ConfigError(f"{field} is {shown(getattr(self, field))}: give {expected}")
