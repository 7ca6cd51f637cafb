"""Devices: which one to use, its memory, and the share of it for the KV cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch
from torch import Tensor

from firsthand.engine.core.engine_config import default_kv_bytes
from firsthand.engine.memory.available_memory import free_bytes
from firsthand.errors import ConfigError, ModelError


def pick_device(name: str) -> str:
    """Returns `cpu`, `cuda` or `cuda:N` unchanged, and for `auto` `cuda` if there is a GPU. ConfigError if it is
    missing."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not name.startswith("cuda"):
        return name
    if torch.version.cuda is None:
        raise ConfigError(
            f"device is {name!r}, and there is no CUDA here: torch was built without CUDA (it is {torch.__version__}); "
            "install torch's CUDA build (https://pytorch.org/get-started), or leave it at cpu"
        )
    if not torch.cuda.is_available():
        raise ConfigError(
            f"device is {name!r}, and there is no CUDA here: torch finds no GPU that it can use; leave it at cpu"
        )
    index = name.partition(":")[2]
    if index and int(index) >= torch.cuda.device_count():
        raise ConfigError(f"device is {name!r}, and there are {torch.cuda.device_count()} GPUs here, from cuda:0 on")
    return name


def device_line(device: str) -> str:
    """Returns a GPU's part of the machine's description; empty for the CPU."""
    return "" if device == "cpu" else f"; computed on {torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"


def torch_name(device: torch.device) -> str:
    """Returns torch's version and device: a GPU's name, or the vector instructions torch uses on the CPU."""
    is_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if is_gpu else torch.backends.cpu.get_cpu_capability()
    return f"torch {torch.__version__} on {name}"


class Gpu(Protocol):
    """The part of `torch.cuda` that reports memory."""

    def mem_get_info(self, device: torch.device) -> tuple[int, int]:
        """Returns the free and the total bytes of a device."""


def kv_bytes_on(device: torch.device, gpu: Gpu = torch.cuda) -> int:
    """Returns the default size of the KV cache in bytes. Call it once the weights are on the device.

    On a GPU it is half of the free memory; the rest is for activations, graphs, and adapters loaded later.
    """
    if device.type != "cuda":
        return default_kv_bytes()
    free_bytes, _ = gpu.mem_get_info(device)
    return free_bytes // 2


def on_device_of(tensor: Tensor) -> AbstractContextManager[None]:
    """Launches kernels on the tensor's GPU while the context is open, in any thread; does nothing on the CPU."""
    made: AbstractContextManager[None] = torch.cuda.device_of(tensor)  # type: ignore[no-untyped-call]
    return made


def free_bytes_on(device: torch.device) -> int | None:
    """Returns the bytes of a device's memory that can be allocated now; None if unknown."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_bytes()


@contextmanager
def explain_out_of_memory(what: str) -> Iterator[None]:
    """Raises ModelError naming `what` if an allocation inside the context fails."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "DefaultCPUAllocator" not in reason:
            raise
        raise ModelError(f"there is no memory for {what}: {reason or type(error).__name__}") from error
