"""Logs what a process uses, beside its other metrics: cores, memory, free disk, GPU memory.

The values stand at the step that was logged last, as `system/...`. Reading them takes well under a millisecond.
"""

from __future__ import annotations

import resource
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from firsthand.errors import StoreError
from firsthand.runs.track import Track

GIB = float(2**30)


@contextmanager
def watch_system(track: Track, *, every_s: float = 10.0) -> Iterator[None]:
    """Log what this process uses at the beginning, every `every_s` seconds, and at the end of the block."""
    stopped = threading.Event()
    clock = _Clock()

    def watch() -> None:
        while not stopped.wait(every_s):
            log()

    def log() -> None:
        with suppress(StoreError):  # a full disk is reported by the loop itself
            track.log(system_metrics(track.run.path, clock), step=track.step)

    log()
    thread = threading.Thread(target=watch, daemon=True, name="system-metrics")
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        log()


class _Clock:
    """Time and CPU time since the last look."""

    def __init__(self) -> None:
        self._before = time.monotonic(), time.process_time()

    def cores(self) -> float:
        """The mean number of cores that this process used since the last call."""
        now = time.monotonic(), time.process_time()
        elapsed, used = now[0] - self._before[0], now[1] - self._before[1]
        self._before = now
        return used / elapsed if elapsed > 0 else 0.0


def system_metrics(folder: Path, clock: _Clock) -> dict[str, float]:
    """Cores and memory in use by this process, and the free space, in GiB, on the disk of a folder."""
    found = {
        "system/cores": clock.cores(),
        "system/memory_gib": _resident_bytes() / GIB,
        "system/disk_free_gib": shutil.disk_usage(folder).free / GIB,
    }
    torch = sys.modules.get("torch")  # only what the loop itself has imported
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        found["system/gpu_memory_gib"] = torch.cuda.memory_allocated() / GIB
    return found


def _resident_bytes() -> float:
    """Memory of this process: now on Linux, the most so far elsewhere."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return float(pages * resource.getpagesize())
    except (OSError, ValueError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return float(peak if sys.platform == "darwin" else peak * 1024)
