"""A policy in training on replicas of our engine, each a process of a Ray cluster, for recipes with `--sampler ray:N`.

Weights and adapters are written below the run's folder before each batch, and every replica loads them between two steps, so
all machines need that folder under the same path. An answer depends on its request and seed alone, so the rollouts are
those of the engine in this process.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from firsthand.cluster.replicas.fleet import Fleet
from firsthand.cluster.replicas.replicated_model import ReplicatedModel
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.model import Completion, Delta, Model, Prompt, Sampling, Scored, ToolSpec
from firsthand.nn.decoder import Decoder
from firsthand.nn.lora import Adapter
from firsthand.system.new_file import replacing
from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.adapters.save_adapter import write_adapter
from firsthand.train.processes import rank


class ReplicaPolicy:
    """A Model that replicas compute, and that takes weights and adapters as a `Local` does."""

    def __init__(self, replicas: ReplicatedModel, policy: Decoder, folder: Path, settings: AdapterSettings):
        """`folder` is the run's; `settings` those of the adapters in training."""
        self.replicas, self.policy = replicas, policy
        self.folder = folder.resolve() / "sampler" / f"process-{rank()}"
        self._settings = settings.config(0)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.replicas.name

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the model with the weights that were loaded last."""
        return self.replicas.fingerprint

    async def complete(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = (), n: int = 1
    ) -> list[Completion]:
        """Returns `n` answers."""
        return await self.replicas.complete(prompt, sampling, tools=tools, n=n)

    def stream(self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = ()) -> AsyncIterator[Delta]:
        """Yields one answer, piece by piece."""
        return self.replicas.stream(prompt, sampling, tools=tools)

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> Scored:
        """Returns the likelihood of each continuation."""
        return await self.replicas.score(prompt, continuations)

    def expect_adapter(self, name: str) -> Model:
        """Returns the model with an adapter that `update_adapter` loads before it is asked."""
        return self.replicas.expect_adapter(name)

    async def update(self, state: Mapping[str, Tensor], version: int) -> None:
        """Write the weights and have every replica load them; the file before them is removed."""
        from safetensors.torch import save_file

        await self.replicas.load()
        self.folder.mkdir(parents=True, exist_ok=True)
        before = set(self.folder.glob("weights-*.safetensors"))
        file = self.folder / f"weights-{version}.safetensors"
        with replacing(file) as part:
            save_file({name: value.detach().cpu().contiguous().clone() for name, value in state.items()}, part)
        await self.replicas.load_weights(file, version)
        for each in before - {file}:
            each.unlink(missing_ok=True)

    async def update_adapter(self, name: str, adapter: Adapter, version: int) -> None:
        """Write an adapter and have every replica load it in place of the one under that name."""
        await self.replicas.load()
        place = self.folder / re.sub(r"[^A-Za-z0-9._-]", "-", name)
        write_adapter(adapter, self.policy, place, base=self.name, config=self._settings)
        await self.replicas.load_adapter(name, place, version=version, replace=True)

    def close(self) -> None:
        """End the replicas."""
        self.replicas.close()


def replica_settings(model: Path, engine: EngineConfig) -> Json:
    """The settings of replicas (`open_replica`) that compute as this engine does; on GPUs each has one of its own."""
    usual = EngineConfig()
    changed = {name: value for name, value in asdict(engine).items() if value != getattr(usual, name)}
    if engine.device != "cpu":
        changed = {name: value for name, value in changed.items() if name != "kv_memory_bytes"} | {"device": "cuda"}
    return {"model": str(model.absolute()), "embedder": None, "engine": changed, "free_calls": True}


def open_on_ray(
    sampler: str, model: Path, engine: EngineConfig, policy: Decoder, folder: Path, settings: AdapterSettings
) -> ReplicaPolicy:
    """The policy on the replicas that `ray:N` or `ray:N@HOST:PORT` asks for. MissingExtra without Ray."""
    from firsthand.cluster.replicas.ray_replicas import open_ray

    if not model.exists():
        raise ConfigError(f"no model in {model}")
    count, _, address = sampler.removeprefix("ray:").partition("@")
    described = replica_settings(model, engine)
    gpus = 0 if engine.device == "cpu" else 1
    starter = open_ray(described, int(count), address=address or None, cpus=None, gpus=gpus)
    # the event loop stands still while the trainer computes: silence is no sign, and Ray tells when a replica is lost
    fleet = Fleet(starter, int(count), silent_s=math.inf)
    return ReplicaPolicy(ReplicatedModel(fleet, model.name), policy, folder, settings)
