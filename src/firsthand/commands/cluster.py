"""What `firsthand run --on ray` adds: what may travel to a cluster, and what a worker there makes of a run's settings."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand import catalog
from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.rollout import Place
from firsthand.trace import Trace

if TYPE_CHECKING:
    from firsthand.cluster.spread.run_worker import Worker
    from firsthand.commands.run import Config
    from firsthand.runs.store import Run


def check(config: Config, asks: bool) -> None:
    """An error if the cluster is not there, or the run could not be the same on it."""
    from firsthand.cluster.spread.ray_workers import expect_cluster

    expect_cluster(address_of(config))
    if asks:
        raise ConfigError(
            "a tool asks before it is called, and on a cluster nobody can be asked: allow or deny it, "
            "as in --approve irreversible=deny"
        )
    for name in config.model:
        if is_local(name) and not Path(name).is_absolute() and Path(name).exists():
            raise ConfigError(
                f"the model {name!r} lies in this folder, and model files do not travel: give its absolute path, "
                f"{str(Path(name).absolute())!r}, under which each machine of the cluster has a copy"
            )


def spread(
    run: Run,
    config: Config,
    places: Sequence[Place],
    on_trace: Callable[[Trace], None],
    say: Callable[[str], None],
    *,
    redo_errors: bool,
) -> None:
    """Carry out a run on the cluster that `config.on` names. `say` is told what the user should know meanwhile."""
    from firsthand.cluster.spread.distribute import distribute
    from firsthand.cluster.spread.ray_workers import WorkerSpec, on_ray
    from firsthand.cluster.spread.run_worker import about
    from firsthand.system.home import data_home

    agents = {place.agent.name: place.agent for place in places}
    benchmarks = {place.benchmark.name: place.benchmark for place in places}
    spec = WorkerSpec(
        target=f"{__name__}:{build_worker.__name__}",
        settings=asdict(config),
        expected=about(agents, benchmarks),
        count=config.workers,
        gpus=any(map(is_local, config.model)),
    )
    folder = Path.cwd() if uses_files(config) else None
    with on_ray(address_of(config), spec, folder=folder, home=data_home().absolute(), say=say) as fleet:
        asyncio.run(
            distribute(
                run,
                places,
                fleet,
                seed=config.seed,
                concurrency=config.concurrency,
                on_trace=on_trace,
                on_lost=say,
                redo_errors=redo_errors,
            )
        )


def build_worker(settings: Json) -> Worker:
    """The worker that carries out attempts of a run with these settings."""
    from firsthand.cluster.spread.run_worker import Worker
    from firsthand.commands.lineup import make_agents
    from firsthand.commands.run import build_settings

    config = build_settings(settings)
    return Worker(make_agents(config), [catalog.benchmark(text) for text in config.benchmarks])


def address_of(config: Config) -> str | None:
    """The address in `--on ray:ADDRESS`."""
    return (config.on or "").partition(":")[2] or None


def is_local(name: str) -> bool:
    """Whether a model of that name runs in the process that opens it."""
    prefix, colon, _ = name.partition(":")
    return not colon or prefix == "hf" or prefix not in catalog.names("provider")


def uses_files(config: Config) -> bool:
    """Whether something that is named lies in the folder the run is started from, so that workers need that folder."""
    named = (*config.benchmarks, *config.pattern, *config.tools, *config.model)
    words = {word.strip() for text in named for word in re.split(r"[:,()=]", text)}
    return any(word and not Path(word).is_absolute() and Path(word).exists() for word in words)
