"""Several processes that train together, as `torchrun` starts them: who this one is, and what goes from each to all.

Everything here does nothing, or returns what it was given, in a run of one process. The processes share the run's folder,
in which the first one alone writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

from firsthand.errors import ConfigError

T = TypeVar("T")
UNTIL_LOST = timedelta(hours=2)
"""A process may take this long for its rollouts before the others give it up."""


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes that `torchrun` started, within the block; gloo on CPUs, NCCL where each has a GPU.

    Does nothing in a process that was started alone, or that has joined a group already.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or distributed.is_initialized():
        yield
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']} and {missing[0]} is not set: start the processes with "
            "`torchrun --nproc-per-node N -m firsthand train ...`, or unset WORLD_SIZE"
        )
    on_gpus = torch.cuda.is_available() and torch.cuda.device_count() > local_rank()
    if on_gpus:
        torch.cuda.set_device(local_rank())
    distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo", timeout=UNTIL_LOST)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def ranks() -> int:
    """The number of processes."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if ranks() > 1 else 0


def local_rank() -> int:
    """The number of this process on its machine, which is that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_first() -> bool:
    """True for the process that writes: the first, or the only one."""
    return rank() == 0


def from_all(own: Sequence[T]) -> list[T]:
    """The items of every process, those of the first one first."""
    if ranks() == 1:
        return list(own)
    every: list[list[T]] = [[] for _ in range(ranks())]
    distributed.all_gather_object(every, list(own))
    return [item for each in every for item in each]


def from_first(own: T) -> T:
    """The value that the first process gave."""
    given = [own]
    if ranks() > 1:
        distributed.broadcast_object_list(given, src=0)
    return given[0]


def together() -> None:
    """Wait until every process is here."""
    if ranks() > 1:
        distributed.barrier()
