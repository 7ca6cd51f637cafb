"""What this machine is and how fast it can read memory and multiply: the limits that a model's speed is held against.

Every number is the best of several short trials, since whatever else is running can only slow a trial down. They are kept
in our home, for this machine and number of threads, so that a planner need not measure twice. Left out: GPUs, and what
memory does when several processes read it at once. Nothing here imports torch until products are measured.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firsthand import __version__
from firsthand.home import data_home
from firsthand.message import Json

if TYPE_CHECKING:
    from collections.abc import Iterator

_FORMAT = 1
_X86 = frozenset(("avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8"))
_ARM = frozenset(("asimd", "asimddp", "i8mm", "bf16", "sve"))
_READ_BYTES = 512 << 20


@dataclass(frozen=True)
class Machine:
    """A computer, as far as the speed of a model depends on it."""

    cpu: str
    cores: int
    """That this process may use."""
    flags: tuple[str, ...]
    """Instruction sets that matter to a model."""
    memory_bytes: int
    system: str
    versions: tuple[tuple[str, str], ...]
    """Of Python, ourselves, torch, numba and numpy; those that are not installed are left out."""
    load: float
    """Processes that wanted a core, on average over the last minute. What is measured beside them is too slow."""

    @property
    def key(self) -> str:
        """Sixteen hex digits that are the same for the same hardware."""
        parts = (self.cpu, str(self.cores), *self.flags, str(self.memory_bytes >> 28))
        return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]

    @property
    def is_busy(self) -> bool:
        """Whether other work would have spoiled a measurement."""
        return self.load > 0.5 * self.cores

    def line(self) -> str:
        """The machine in a sentence, for people."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions)
        flags = f" ({', '.join(self.flags)})" if self.flags else ""
        return (
            f"{self.cpu}, {self.cores} cores{flags}, {self.memory_bytes / 2**30:.0f} GiB, {self.system}; {versions}; "
            f"load {self.load:.1f}"
        )

    def to_json(self) -> Json:
        """The facts as a JSON object."""
        return {**asdict(self), "flags": list(self.flags), "versions": dict(self.versions), "key": self.key}


@dataclass(frozen=True)
class Speeds:
    """The most this machine was seen to do, in 10^9 bytes or operations a second, with this many threads."""

    threads: int
    read_gb_s: float
    """Reading memory far larger than the caches."""
    float32_gflop_s: float
    """Products of float32 matrices; a multiplication and an addition are two."""
    bfloat16_gflop_s: float | None = None
    int8_gop_s: float | None = None
    """Products of int8 matrices, summed in int32."""
    date: str = ""
    load: float = 0.0
    """Of the machine while it was measured."""

    def line(self) -> str:
        """The speeds in a sentence, for people."""
        others = [("bfloat16", self.bfloat16_gflop_s), ("int8", self.int8_gop_s)]
        products = [f"float32 {self.float32_gflop_s:.0f}"]
        products += [f"{name} {value:.0f}" for name, value in others if value is not None]
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        does = f"{self.read_gb_s:.1f} GB/s read, 10^9 operations/s multiplied: {', '.join(products)}"
        return f"with {threads}: {does}"


def describe() -> Machine:
    """This machine, now."""
    flags, cpu = _cpu()
    names = ("torch", "numba", "numpy")
    versions = [("Python", platform.python_version()), ("firsthand", __version__)]
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            versions.append((name, metadata.version(name)))
    return Machine(
        cpu=cpu,
        cores=usable_cores(),
        flags=flags,
        memory_bytes=_memory_bytes(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        versions=tuple(versions),
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0,
    )


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def speeds(threads: int | None = None, *, fresh: bool = False, home: Path | None = None) -> Speeds:
    """What this machine can do with that many threads (None: one a core), measured now unless it is known already.

    Takes about two seconds where it must be measured. A measurement beside other work is taken again an hour later, and the
    better of the two is kept: noise only ever makes a machine look slower.
    """
    machine = describe()
    threads = threads or machine.cores
    path = (home or data_home()) / "machine" / f"{machine.key}-{threads}.json"
    known = _read(path)
    if known is not None and not fresh and (known.load <= 0.5 * machine.cores or _age_s(path) < 3600):
        return known
    found = measure(threads)
    if known is not None and not fresh:
        found = _better(known, found)
    _write(path, machine, found)
    return found


def measure(threads: int) -> Speeds:
    """What this machine can do with that many threads, measured now."""
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    read = measure_bandwidth(threads)
    products = measure_flops(threads)
    return Speeds(threads, read, date=date, load=describe().load, **products)


def measure_bandwidth(threads: int, *, size_bytes: int = _READ_BYTES, trials: int = 6) -> float:
    """GB/s of reading memory, by the fastest of several ways to read it all: the best of `trials` of each."""
    import numpy as np

    size_bytes = max(1 << 20, min(size_bytes, _free_bytes() // 4))
    words = np.ones(size_bytes // 8, dtype=np.int64)
    ways: list[tuple[Callable[[Any], Any], Any]] = [
        (np.bitwise_or.reduce, words),  # as plain a loop as there is, and numpy lets go of the interpreter in it
        (np.bitwise_xor.reduce, words),
        (np.sum, words.view(np.float32)),
    ]
    with ThreadPoolExecutor(threads) as pool:
        seconds = [best_of(_spread(pool, read, np.array_split(values, threads)), trials) for read, values in ways]
    return words.nbytes / min(seconds) / 1e9


def measure_flops(threads: int, *, size: int = 1024, trials: int = 6) -> dict[str, float]:
    """10^9 operations/s of square matrix products, as the fields of Speeds: float32, and what else torch multiplies here."""
    operations = 2 * size**3 / 1e9
    try:
        import torch
    except ImportError:
        return {"float32_gflop_s": operations / _numpy_seconds(size, trials)}
    left, right = torch.ones(size, size), torch.ones(size, size)
    found: dict[str, float] = {}
    with torch_threads(threads), torch.inference_mode():
        found["float32_gflop_s"] = operations / best_of(lambda: left @ right, trials)
        a, b = left.bfloat16(), right.bfloat16()
        found["bfloat16_gflop_s"] = operations / best_of(lambda: a @ b, trials)
        with suppress(RuntimeError, NotImplementedError):
            c, d = left.to(torch.int8), right.to(torch.int8)
            found["int8_gop_s"] = operations / best_of(lambda: torch._int_mm(c, d), trials)
    return found


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """torch with that many threads; afterwards it has as many as before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def best_of(function: Callable[[], object], trials: int) -> float:
    """Seconds of the fastest of several calls, after one that does not count."""
    function()
    seconds = []
    for _ in range(trials):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def memory_in_use() -> int:
    """Bytes of memory that this process holds now; where the system does not say, the most it ever held."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    try:
        import resource
    except ImportError:
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _spread(pool: ThreadPoolExecutor, read: Callable[[Any], object], parts: Sequence[Any]) -> Callable[[], object]:
    """What reads all parts at once, each in a thread."""
    return lambda: list(pool.map(read, parts))


def _numpy_seconds(size: int, trials: int) -> float:
    import numpy as np

    left = np.ones((size, size), dtype=np.float32)
    return best_of(lambda: left @ left, trials)


def _better(one: Speeds, other: Speeds) -> Speeds:
    """The greater of each speed, with the date and load of the quieter measurement."""
    quieter = min(one, other, key=lambda each: each.load)
    return replace(
        quieter,
        read_gb_s=max(one.read_gb_s, other.read_gb_s),
        float32_gflop_s=max(one.float32_gflop_s, other.float32_gflop_s),
        bfloat16_gflop_s=_greater(one.bfloat16_gflop_s, other.bfloat16_gflop_s),
        int8_gop_s=_greater(one.int8_gop_s, other.int8_gop_s),
    )


def _greater(one: float | None, other: float | None) -> float | None:
    return max((each for each in (one, other) if each is not None), default=None)


def _read(path: Path) -> Speeds | None:
    """The speeds in a file; None if there is no such file, or one that we did not write."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        found = Speeds(**body["speeds"]) if body["version"] == _FORMAT else None
        return found if found is None or found.read_gb_s > 0 < found.float32_gflop_s else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return math.inf


def _write(path: Path, machine: Machine, found: Speeds) -> None:
    """Keep the speeds; a home that cannot be written is no reason to fail."""
    body = {"version": _FORMAT, "machine": machine.to_json(), "speeds": asdict(found)}
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(body, indent=2), encoding="utf-8")
        part.replace(path)


def _cpu() -> tuple[tuple[str, ...], str]:
    """The flags that matter and the name of the processor."""
    text = ""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    facts: dict[str, str] = {}
    for line in text.split("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        facts[name.strip().lower()] = value.strip()
    has = set((facts.get("flags") or facts.get("features") or "").split())
    name = facts.get("model name") or platform.processor() or platform.machine() or "unknown CPU"
    return tuple(sorted((_X86 | _ARM) & has)), name


def _memory_bytes() -> int:
    return _pages("SC_PHYS_PAGES")


def _free_bytes() -> int:
    return _pages("SC_AVPHYS_PAGES") or _pages("SC_PHYS_PAGES") or 1 << 30


def _pages(name: str) -> int:
    if name not in getattr(os, "sysconf_names", {}):
        return 0
    return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")
