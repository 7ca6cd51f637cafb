"""The memory that checks take together."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from firsthand.errors import SandboxError
from firsthand.sandbox.memory_share import MemoryShare, machine_bytes


def never() -> bool:
    return False


def test_a_check_waits_until_its_memory_fits_and_none_overtakes_it() -> None:
    share, order = MemoryShare(10), []

    def check(size: int) -> None:
        with share.take(size, never):
            order.append((size, share.taken_bytes))

    with share.take(4, never), share.take(6, lambda: True):
        assert share.taken_bytes == 10, "what fits runs at once"
    with share.take(6, never):
        threads = []
        for size in (5, 1):
            threads.append(threading.Thread(target=check, args=(size,), daemon=True))
            threads[-1].start()
            ends = time.monotonic() + 10
            while len(share._queue) < len(threads) and time.monotonic() < ends:
                pass
        assert order == [], "1 would fit, and waits behind 5"
    for thread in threads:
        thread.join(10)
    assert order[0] == (5, 5) and order[1][0] == 1 and share.taken_bytes == 0


def test_a_check_larger_than_the_machine_runs_alone() -> None:
    share = MemoryShare(10)
    with share.take(40, never):
        assert share.taken_bytes == 40
        with pytest.raises(SandboxError, match="closed before"), share.take(1, lambda: True):
            pass
    with pytest.raises(ValueError), share.take(10, never):
        raise ValueError
    assert share.taken_bytes == 0 and not share._queue, "an error gives it back"


def test_a_containers_limit_is_the_machine(tmp_path: Path) -> None:
    whole = machine_bytes(tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    assert machine_bytes(tmp_path) == whole > 2**26
    (tmp_path / "memory.max").write_text("67108864\n")
    assert machine_bytes(tmp_path) == 2**26
