"""Carries out an experiment on a Ray cluster: what may travel there, and how a worker is made from a run's settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.cluster.spread.distribute import distribute
from firsthand.cluster.spread.ray_workers import WorkerSpec, expect_cluster, on_ray
from firsthand.cluster.spread.run_worker import Worker, about
from firsthand.errors import ConfigError
from firsthand.experiment.named_agents import make_agents, may_ask
from firsthand.experiment.settings import RunSettings, settings_from_json
from firsthand.message import Json
from firsthand.rollout import Place
from firsthand.runs.run_folder import Run
from firsthand.system.home import data_home
from firsthand.trace import Trace


def check_cluster(settings: RunSettings, agents: Sequence[Agent]) -> None:
    """Raise ConfigError if no cluster answers, or if the run would differ there; MissingExtra without Ray."""
    expect_cluster(address_of(settings))
    if may_ask(agents):
        raise ConfigError(
            "a tool asks before it is called, and on a cluster nobody can be asked: allow or deny it, "
            "as in --approve irreversible=deny"
        )
    for name in settings.model:
        if is_local(name) and not Path(name).is_absolute() and Path(name).exists():
            raise ConfigError(
                f"the model {name!r} lies in this folder, and model files do not travel: give its absolute path, "
                f"{str(Path(name).absolute())!r}, under which each machine of the cluster has a copy"
            )


async def execute_on_cluster(
    run: Run,
    settings: RunSettings,
    places: Sequence[Place],
    *,
    on_trace: Callable[[Trace], None],
    on_notice: Callable[[str], None],
    redo_errors: bool,
) -> None:
    """Attempt all places that the run has no trace of, on the cluster that `settings.on` names.

    As `runs.execute.execute`; `on_notice` is given a sentence for each lost worker and each long wait.
    """
    spec = worker_spec(settings, places)
    folder = Path.cwd() if uses_files(settings) else None
    with on_ray(address_of(settings), spec, folder=folder, home=data_home().absolute(), say=on_notice) as fleet:
        await distribute(
            run,
            places,
            fleet,
            seed=settings.seed,
            concurrency=settings.concurrency,
            on_trace=on_trace,
            on_lost=on_notice,
            redo_errors=redo_errors,
        )


def worker_spec(settings: RunSettings, places: Sequence[Place]) -> WorkerSpec:
    """The workers of a run with these settings: what they are built from, and the agents and benchmarks they must have."""
    agents = {place.agent.name: place.agent for place in places}
    benchmarks = {place.benchmark.name: place.benchmark for place in places if isinstance(place.benchmark, Benchmark)}
    return WorkerSpec(
        build=build_worker,
        settings=settings.to_json(),
        expected=about(agents, benchmarks),
        count=settings.workers,
        gpus=any(map(is_local, settings.model)),
    )


def build_worker(settings: Json) -> Worker:
    """A worker for attempts of a run with these settings; Ray imports this function by name on each machine."""
    made = settings_from_json(settings)
    return Worker(make_agents(made), made.made_benchmarks())


def address_of(settings: RunSettings) -> str | None:
    """The address in `--on ray:ADDRESS`, or None."""
    return (settings.on or "").partition(":")[2] or None


def is_local(name: str) -> bool:
    """True if a model of that name runs in the process that opens it."""
    prefix, colon, _ = name.partition(":")
    return not colon or prefix == "hf" or prefix not in catalog.names("provider")


def uses_files(settings: RunSettings) -> bool:
    """True if a name is a relative path that exists here, so that workers need the working folder."""
    guarded = (*settings.guard, settings.memory or "")
    named = (*settings.benchmarks, *settings.pattern, *settings.tools, *guarded, *settings.model)
    words = {word.strip() for text in named for word in re.split(r"[:,()=]", text)}
    return any(word and not Path(word).is_absolute() and Path(word).exists() for word in words)
