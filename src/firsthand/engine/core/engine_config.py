"""How an engine uses the machine: `EngineConfig`, and the memory it takes if nobody says how much."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from firsthand.engine.memory.available_memory import free_bytes
from firsthand.errors import ConfigError
from firsthand.system.field_types import check_kinds, shown

MAX_THREADS = 1024


def default_kv_bytes() -> int:
    """The smaller of 2 GiB and a quarter of this machine's memory that is free; `devices.kv_bytes_on` says it of a GPU."""
    return min(2 << 30, (free_bytes() or 4 << 30) // 4)


@dataclass(frozen=True)
class EngineConfig:
    """How an engine uses the machine; none of it changes an answer but `weights` and `kv_cache`."""

    block_size: int = 16
    """Positions of a block. The compiled kernel takes multiples of 16."""
    max_batch_tokens: int = 512
    """Tokens of one step: all answers under way, then pieces of prompts."""
    max_sequences: int = 64
    """Answers computed at the same time."""
    max_waiting: int = 20_000
    """Requests that may wait; more are refused with QueueFull."""
    max_live_tokens: int = 1 << 25
    """Prompt tokens of all requests that wait or run, a prompt counted for each of its answers; more are refused too."""
    kv_memory_bytes: int | None = None
    """Memory for keys and values; None is the smaller of 2 GiB and a quarter of what is free, and on CUDA half of what the
    device has free once the weights are there."""
    device: str = "cpu"
    """Where the model is loaded to: `cpu`, `cuda` or `cuda:N`. On CUDA weights are kept in bfloat16, or in float32 where
    `weights` says so. Whoever hands a loaded model to an engine has chosen already."""
    graphs: Literal["auto", "on", "off"] = "auto"
    """Whether decode steps of a model that runs by its modules are padded to fixed shapes: `auto` on CUDA, where each shape
    is captured in a CUDA graph once. On a CPU `on` buys nothing, and is there to test what a GPU does."""
    threads: int | None = None
    """Threads of torch, for the whole process; None leaves them as they are. More than there are idle cores is far slower
    than fewer, since torch's threads wait for each other by spinning."""
    weights: Literal["auto", "int8", "float16", "float32"] = "auto"
    """How the linear layers are kept. `auto`: in the blocks of the file where it has them, else as `float16` where that
    works. `int8` rounds to 8 bits in blocks of 32; with it and with a file's own blocks activations are rounded to 8 bits
    as well. `float32` leaves the model as it is, beside a copy for the compiled step."""
    kv_cache: Literal["auto", "float32", "float16", "int8"] = "auto"
    """How keys and values are kept. `auto`: in float16, or as the model computes where its weights are not rounded either;
    `float16` takes half of float32's memory, `int8` a quarter."""
    speculation: Literal["off", "prompt_lookup"] = "off"
    """`prompt_lookup` guesses from repetitions in prompt and answer. A draft model is given to the engine instead."""
    draft_tokens: int = 7
    """At most this many guesses for an answer in one step. Eight rows are a tile of the compiled kernels."""
    speculate_below: int = 8
    """Guesses fill a step up to this many rows, so with as many answers under way there are none: a row is cheap while
    reading the weights takes longer than computing with them."""

    max_adapters: int = 8
    """LoRA adapters beside the model at the same time, those counted that were unloaded and still answer."""
    max_adapter_rank: int = 256
    """The highest rank of any of an adapter's matrices."""
    adapter_memory_bytes: int = 1 << 30
    """Memory of all adapters together. On the CPU they are kept in float16, beside float32 weights in float32."""

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
