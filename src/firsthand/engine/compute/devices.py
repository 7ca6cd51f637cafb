"""Which device a model is computed on, its memory, and how much of it is for keys and values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch
from torch import Tensor

from firsthand._moved import old_names
from firsthand.engine.core.engine_config import default_kv_bytes
from firsthand.engine.memory.available_memory import free_bytes
from firsthand.errors import ConfigError, ModelError


def pick_device(name: str) -> str:
    """`cpu`, `cuda` or `cuda:N` as it came, and `auto` as `cuda` where there is one; ConfigError for what is not there."""
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
    """What to add to a machine's description for a GPU; nothing for the CPU."""
    return "" if device == "cpu" else f"; computed on {torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"


def torch_name(device: torch.device) -> str:
    """Torch and what it computes on: a GPU by its name, a CPU by the vector instructions that torch uses."""
    is_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if is_gpu else torch.backends.cpu.get_cpu_capability()
    return f"torch {torch.__version__} on {name}"


class Gpu(Protocol):
    """What tells how much memory a GPU has, as `torch.cuda` does."""

    def mem_get_info(self, device: torch.device) -> tuple[int, int]:
        """The bytes of a device that nobody has, and all."""


def kv_bytes_on(device: torch.device, gpu: Gpu = torch.cuda) -> int:
    """Memory for keys and values where nobody says how much; to be asked once the weights are on the device.

    On a GPU it is half of what is free there. The rest is for what a step computes, graphs, and adapters that come later.
    """
    if device.type != "cuda":
        return default_kv_bytes()
    free_bytes, _ = gpu.mem_get_info(device)
    return free_bytes // 2


def on_device_of(tensor: Tensor) -> AbstractContextManager[None]:
    """Inside it kernels are launched on the tensor's GPU, whichever thread this is; on the CPU it does nothing."""
    made: AbstractContextManager[None] = torch.cuda.device_of(tensor)  # type: ignore[no-untyped-call]
    return made


def free_bytes_on(device: torch.device) -> int | None:
    """Bytes of a device's memory that can be had now; None where nobody says."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_bytes()


@contextmanager
def explain_out_of_memory(what: str) -> Iterator[None]:
    """Inside it, memory that cannot be had is a ModelError that says what it was for."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "DefaultCPUAllocator" not in reason:
            raise
        raise ModelError(f"there is no memory for {what}: {reason or type(error).__name__}") from error


__getattr__ = old_names(__name__, {"allocating": "explain_out_of_memory"})
