"""Several processes of torch.distributed as threads of this one, for the tests of training together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import torch
from torch import distributed


@contextmanager
def threaded() -> Iterator[Any]:
    """torch's group whose processes are threads."""
    from torch.testing._internal.distributed import multi_threaded_pg

    multi_threaded_pg.ProcessLocalGroup.reset()
    multi_threaded_pg._install_threaded_pg()
    torch._C._distributed_c10d._set_thread_isolation_mode(True)
    try:
        yield multi_threaded_pg
    finally:
        torch._C._distributed_c10d._set_thread_isolation_mode(False)
        multi_threaded_pg._uninstall_threaded_pg()


def in_processes(count: int, act: Callable[[int], Any]) -> list[Any]:
    """What each process returns."""
    store, found, errors = distributed.HashStore(), [None] * count, []

    def one(number: int) -> None:
        try:
            distributed.init_process_group("threaded", rank=number, world_size=count, store=store)
            found[number] = act(number)
            distributed.destroy_process_group()
        except BaseException as error:
            errors.append(error)
            group.ProcessLocalGroup.exception_handle(error)

    with threaded() as group:
        threads = [Thread(target=one, args=(number,), daemon=True) for number in range(count)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(30)
            assert not each.is_alive(), "the processes wait for each other without end"
    if errors:
        raise errors[0]
    return found
