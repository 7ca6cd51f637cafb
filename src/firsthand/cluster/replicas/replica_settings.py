"""Settings of a server's replicas."""

from __future__ import annotations

from dataclasses import dataclass

from firsthand.errors import ConfigError


@dataclass(frozen=True)
class ReplicaSettings:
    """Replicas of a model on a Ray cluster."""

    replicas: int | None = None
    """Replicas of the engine behind this one address, each a process on a Ray cluster (see docs/replicas.md)."""
    address: str | None = None
    """The Ray cluster of the replicas: HOST:PORT, or auto for the one this machine is in. By default one is started here."""
    replica_cpus: float | None = None
    """CPUs that Ray reserves for each replica; by default replicas share those of their machines."""
    replica_gpus: float = 0.0
    """GPUs that Ray reserves for each replica."""

    def __post_init__(self) -> None:
        reserved = {"replica_cpus": self.replica_cpus, "replica_gpus": self.replica_gpus}
        if self.replicas is None:
            for name, value in {"address": self.address, **reserved}.items():
                if value:
                    raise ConfigError(f"{name} is for replicas: say how many, as in --replicas 2")
        elif not 1 <= self.replicas <= 1000:
            raise ConfigError(f"replicas is {self.replicas}: give 1 to 1000")
        for name, number in reserved.items():
            if number is not None and not 0 <= number <= 1024:
                raise ConfigError(f"{name} is {number}: give a number from 0 to 1024")
