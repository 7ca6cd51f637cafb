"""What this machine is: its processor, cores, memory and load, as far as the speed of a model depends on them.

Left out: how fast it is (`speeds`), and GPUs. Nothing here imports torch.
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
from typing import TYPE_CHECKING

from firsthand import __version__
from firsthand.message import Json

if TYPE_CHECKING:
    pass

_X86 = frozenset(("avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8"))
_ARM = frozenset(("asimd", "asimddp", "i8mm", "bf16", "sve"))


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
        return is_busy(self.load, self.cores)

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


def is_busy(load: float, cores: int | None = None) -> bool:
    """Whether other work would have spoiled a measurement that was made under such a load."""
    return load > 0.5 * (cores or usable_cores())


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


def free_bytes() -> int:
    """Bytes of memory that nobody uses, or else all there are."""
    return _pages("SC_AVPHYS_PAGES") or _pages("SC_PHYS_PAGES") or 1 << 30


def _pages(name: str) -> int:
    if name not in getattr(os, "sysconf_names", {}):
        return 0
    return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")
