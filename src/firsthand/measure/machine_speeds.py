"""Measures how fast this machine reads memory and multiplies matrices: upper bounds for a model's speed.

Each number is the best of several short trials with each number of threads up to the given one: other programs only
slow a trial down, and beside a busy core one thread may do more than two that wait for each other. Results are kept in
our home folder, by machine and number of threads, so that a planner need not measure again. Not included: GPUs, and
memory read by several processes at once. Torch is imported only to measure products.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from firsthand.measure.machine import Machine, describe, free_bytes, is_busy
from firsthand.system.home import data_home

_FORMAT = 2
_READ_BYTES = 512 << 20
_AGAIN_S = 3600
"""Seconds before a doubtful measurement is repeated."""
_SLOW_S = 0.5
"""Seconds of one product from which on smaller matrices are multiplied instead."""


@dataclass(frozen=True)
class Speeds:
    """The highest speeds seen on this machine, in 10^9 bytes or operations a second, with up to this many threads."""

    threads: int
    read_gb_s: float
    """Reading memory much larger than the caches."""
    float32_gflop_s: float
    """Products of float32 matrices; a multiplication and an addition count as two operations."""
    bfloat16_gflop_s: float | None = None
    int8_gop_s: float | None = None
    """Products of int8 matrices summed in int32: by torch or by our kernels, whichever is faster."""
    date: str = ""
    load: float = 0.0
    """Load average of the machine during the measurement."""

    @property
    def is_sound(self) -> bool:
        """True if every number is finite and positive, which a file may violate."""
        optional = [each for each in (self.bfloat16_gflop_s, self.int8_gop_s) if each is not None]
        above_0 = [self.threads, self.read_gb_s, self.float32_gflop_s, *optional]
        numbers = all(type(each) in (int, float) and math.isfinite(each) for each in (*above_0, self.load))
        return numbers and min(above_0) > 0 <= self.load and isinstance(self.date, str)

    def line(self) -> str:
        """Returns the speeds in one sentence."""
        others = [("bfloat16", self.bfloat16_gflop_s), ("int8", self.int8_gop_s)]
        products = [f"float32 {self.float32_gflop_s:.0f}"]
        products += [f"{name} {value:.0f}" for name, value in others if value is not None]
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        does = f"{self.read_gb_s:.1f} GB/s read, 10^9 operations/s multiplied: {', '.join(products)}"
        return f"with {threads}: {does}"


def speeds(
    threads: int | None = None,
    *,
    at_least: Mapping[str, float] | None = None,
    home: Path | None = None,
) -> Speeds:
    """Returns this machine's speeds with that many threads (None: one per core), measured now unless known.

    Takes a few seconds to measure. A measurement beside other work, or below what the machine was seen to do
    (`at_least`, by field), is repeated after an hour, and the better of the two is kept: noise only makes a machine
    look slower.
    """
    machine = describe()
    threads = threads or machine.cores
    path = _path(machine, threads, home)
    known = _read(path)
    if known is not None:
        doubtful = is_busy(known.load, machine.cores) or is_below(known, at_least or {})
        if not doubtful or _age_s(path) < _AGAIN_S:
            return known
    return save_speeds(measure(threads), home=home)


def save_speeds(found: Speeds, *, home: Path | None = None) -> Speeds:
    """Keep measured speeds, each only if it exceeds the known one; returns the known speeds."""
    machine = describe()
    path = _path(machine, found.threads, home)
    known = _read(path)
    best = found if known is None else faster_of(known, found)
    _write(path, machine, best)
    return best


def is_below(known: Speeds, at_least: Mapping[str, float]) -> bool:
    """True if a speed is less than the machine was seen to do, and so was measured wrongly."""
    return any((getattr(known, name) or 0.0) < value for name, value in at_least.items())


def faster_of(one: Speeds, other: Speeds) -> Speeds:
    """Returns the greater of each speed, with the date and load of the quieter measurement."""
    quieter = min(one, other, key=lambda each: each.load)
    return replace(
        quieter,
        read_gb_s=max(one.read_gb_s, other.read_gb_s),
        float32_gflop_s=max(one.float32_gflop_s, other.float32_gflop_s),
        bfloat16_gflop_s=_greater(one.bfloat16_gflop_s, other.bfloat16_gflop_s),
        int8_gop_s=_greater(one.int8_gop_s, other.int8_gop_s),
    )


def measure(threads: int, *, ours: bool = False) -> Speeds:
    """Measure this machine's speeds with up to that many threads.

    `ours` also times our own products of 8-bit blocks, which are compiled first: closer to what an engine can reach
    where torch's int8 products are slow or use other instructions.
    """
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    read = measure_bandwidth(threads)
    products = measure_products(threads, ours=ours)
    return Speeds(threads, read, date=date, load=describe().load, **products)


def measure_bandwidth(threads: int, *, size_bytes: int = _READ_BYTES, trials: int = 6) -> float:
    """Returns the GB/s of reading memory: the best of several ways, with any number of threads up to `threads`."""
    import numpy as np

    size_bytes = max(1 << 20, min(size_bytes, free_bytes() // 4))
    words = np.ones(size_bytes // 8, dtype=np.int64)
    ways: list[tuple[Callable[[Any], Any], Any]] = [
        (np.bitwise_or.reduce, words),  # a plain loop that releases the GIL
        (np.bitwise_xor.reduce, words),
        (np.sum, words.view(np.float32)),
    ]
    seconds = []
    for count in counts(threads):
        with ThreadPoolExecutor(count) as pool:
            seconds += [best_of(_spread(pool, read, np.array_split(values, count)), trials) for read, values in ways]
    return words.nbytes / min(seconds) / 1e9


def measure_products(threads: int, *, size: int = 1024, trials: int = 6, ours: bool = False) -> dict[str, float]:
    """Returns 10^9 operations/s of square matrix products, by the field of Speeds.

    Each thread multiplies its own matrices, so that none waits for another within a product. Where one product would
    take half a second or more, as bfloat16 and int8 do without instructions for them, matrices of a quarter of the
    size are multiplied.
    """
    operations = 2 * size**3 / 1e9
    try:
        import torch
    except ImportError:
        return {"float32_gflop_s": operations / _numpy_seconds(size, trials)}
    found: dict[str, float] = {}
    with torch_threads(1):
        ways = [*_products_in_time(size), *([("int8_gop_s", _our_product(size), operations)] if ours else [])]
        for count in counts(threads):
            with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                for name, multiply, operations in ways:
                    seconds = best_of(_spread(pool, multiply, range(count)), trials)
                    found[name] = max(found.get(name, 0.0), count * operations / seconds)
    return found


def counts(threads: int) -> list[int]:
    """Returns the numbers of threads to try: powers of two below `threads`, and `threads`."""
    return [*(1 << power for power in range((threads - 1).bit_length())), threads]


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Sets torch's number of threads inside the context."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def best_of(function: Callable[[], object], trials: int) -> float:
    """Returns the seconds of the fastest of several calls, after one warm-up call."""
    function()
    seconds = []
    for _ in range(trials):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _spread(pool: ThreadPoolExecutor, work: Callable[[Any], object], parts: Sequence[Any]) -> Callable[[], object]:
    """Returns a function that does the work for all parts at once, each in a thread."""
    return lambda: list(pool.map(work, parts))


def _products_in_time(size: int) -> list[tuple[str, Callable[[Any], object], float]]:
    """Returns torch's products with their 10^9 operations: smaller ones where a whole one takes `_SLOW_S` or more."""
    whole, quarter = _torch_products(size), size // 4
    smaller = _torch_products(quarter) if quarter >= 128 else whole  # whole ones are quick
    found = []
    for (name, multiply), (_, small) in zip(whole, smaller, strict=True):
        is_slow = small is not multiply and 4**3 * best_of(lambda: small(0), 1) >= _SLOW_S  # noqa: B023
        chosen, rows = (small, quarter) if is_slow else (multiply, size)
        found.append((name, chosen, 2 * rows**3 / 1e9))
    return found


def _torch_products(size: int) -> list[tuple[str, Callable[[Any], object]]]:
    """Returns torch's square products, by the field of Speeds; int8 only where torch supports it."""
    import torch

    left, right = torch.ones(size, size), torch.ones(size, size)
    a, b = left.bfloat16(), right.bfloat16()
    c, d = left.to(torch.int8), right.to(torch.int8)
    ways: list[tuple[str, Callable[[Any], object]]] = [
        ("float32_gflop_s", lambda _: left @ right),
        ("bfloat16_gflop_s", lambda _: a @ b),
        ("int8_gop_s", lambda _: torch._int_mm(c, d)),
    ]
    try:
        torch._int_mm(c[:32, :32], d[:32, :32])
    except (RuntimeError, NotImplementedError, AttributeError):
        return ways[:2]
    return ways


def _our_product(size: int) -> Callable[[Any], object]:
    """Returns our product of 8-bit activations with 8-bit blocks, run in the calling thread."""
    import numpy as np

    from firsthand.kernels.products.blockwise import from_values
    from firsthand.kernels.products.blockwise_products import product
    from firsthand.nn.quant import BlockLinear

    rows = np.ones((size, size), dtype=np.float32)
    tiles = BlockLinear(from_values(rows), None).tiles
    return lambda _: product(rows, tiles)


def _numpy_seconds(size: int, trials: int) -> float:
    import numpy as np

    left = np.ones((size, size), dtype=np.float32)
    return best_of(lambda: left @ left, trials)


def _greater(one: float | None, other: float | None) -> float | None:
    return max((each for each in (one, other) if each is not None), default=None)


def _path(machine: Machine, threads: int, home: Path | None) -> Path:
    return (home or data_home()) / "machine" / f"{machine.key}-{threads}.json"


def _read(path: Path) -> Speeds | None:
    """Returns the speeds in a file; None if there is no such file, or if it is not ours."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        found = Speeds(**body["speeds"]) if body["version"] == _FORMAT else None
        return found if found is not None and found.is_sound else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return math.inf


def _write(path: Path, machine: Machine, found: Speeds) -> None:
    """Save the speeds; does nothing if the home folder is not writable."""
    body = {"version": _FORMAT, "machine": machine.to_json(), "speeds": asdict(found)}
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(body, indent=2), encoding="utf-8")
        part.replace(path)
