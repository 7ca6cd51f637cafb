"""Describes this machine: processor, cores, memory and load, as far as a model's speed depends on them.

Not included: its speed (`machine_speeds.py`) and GPUs. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from firsthand import __version__
from firsthand.message import Json

_X86 = frozenset(("avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8"))
_ARM = frozenset(("asimd", "asimddp", "i8mm", "bf16", "sve"))


@dataclass(frozen=True)
class Machine:
    """A computer, as far as a model's speed depends on it."""

    cpu: str
    cores: int
    """Cores that this process may use."""
    flags: tuple[str, ...]
    """Instruction sets that matter to a model."""
    memory_bytes: int
    system: str
    versions: tuple[tuple[str, str], ...]
    """Versions of Python, firsthand, torch, numba and numpy, if installed."""
    load: float
    """Load average over the last minute. Measurements beside other work are too slow."""

    @property
    def key(self) -> str:
        """Sixteen hex digits, equal for equal hardware."""
        parts = (self.cpu, str(self.cores), *self.flags, str(self.memory_bytes >> 28))
        return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]

    @property
    def is_busy(self) -> bool:
        """True if other work would spoil a measurement."""
        return is_busy(self.load, self.cores)

    def line(self) -> str:
        """Returns the machine in one sentence."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions)
        flags = f" ({', '.join(self.flags)})" if self.flags else ""
        return (
            f"{self.cpu}, {self.cores} cores{flags}, {self.memory_bytes / 2**30:.0f} GiB, {self.system}; {versions}; "
            f"load {self.load:.1f}"
        )

    def to_json(self) -> Json:
        """Returns the facts as a JSON object."""
        return {**asdict(self), "flags": list(self.flags), "versions": dict(self.versions), "key": self.key}


def describe() -> Machine:
    """Returns this machine's facts now."""
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
    """Returns the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_busy(load: float, cores: int | None = None) -> bool:
    """True if a measurement under this load was spoiled by other work."""
    return load > 0.5 * (cores or usable_cores())


def memory_in_use() -> int:
    """Returns this process's resident memory in bytes; where the system does not say, its peak."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    try:
        import resource
    except ImportError:
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _cpu() -> tuple[tuple[str, ...], str]:
    """Returns the flags that matter and the processor's name."""
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


def free_bytes() -> int:
    """Returns the bytes of free memory, or else of all memory."""
    return _pages("SC_AVPHYS_PAGES") or _pages("SC_PHYS_PAGES") or 1 << 30


def _pages(name: str) -> int:
    if name not in getattr(os, "sysconf_names", {}):
        return 0
    return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")
