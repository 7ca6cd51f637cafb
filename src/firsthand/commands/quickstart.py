"""Fetch a small model, run four agents on two benchmarks, and compare the reasoning patterns' scores and costs."""

from __future__ import annotations

from dataclasses import dataclass

from firsthand import catalog
from firsthand.commands import run
from firsthand.errors import ConfigError
from firsthand.hub.fetch_model import fetch_model
from firsthand.system.plurals import count_of
from firsthand.system.terminal import console

EXAMPLES = """
firsthand quickstart
firsthand quickstart --limit 5
firsthand quickstart --model path/to/model.gguf --seed 1
"""
BENCHMARKS = ("arithmetic:levels=1-2", "arc_easy")
PATTERNS = ("direct", "cot", "self_consistency:samples=5", "react")


@dataclass(frozen=True)
class Config:
    """The size of the quickstart run."""

    model: str = "smollm2"
    """The model; SmolLM2-135M-Instruct by default, 98 MB, fetched once."""
    limit: int = 24
    """Only the first N tasks of each benchmark."""
    seed: int = 0
    """The same seed gives the same tokens."""
    max_tokens: int = 96
    """At most this many new tokens in one answer."""
    concurrency: int = 16
    """Max concurrent attempts."""
    json: bool = False
    """Print the leaderboard as JSON for programs."""

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ConfigError(f"limit is {self.limit}: give 1 or more")


def main(config: Config) -> int:
    """Fetch, run, and print the leaderboard."""
    if config.model.partition(":")[0] not in catalog.names(
        "provider"
    ):  # a model that another program serves is not fetched
        fetch_model(config.model, shown=not config.json)
    settings = run.Config(
        benchmarks=BENCHMARKS,
        model=(config.model,),
        pattern=PATTERNS,
        limit=config.limit,
        seed=config.seed,
        max_tokens=config.max_tokens,
        concurrency=config.concurrency,
        name="quickstart",
        json=config.json,
    )
    if not config.json:
        console(stderr=True).print(
            f"{len(PATTERNS)} agents x {count_of(config.limit, 'task')} x {len(BENCHMARKS)} benchmarks, as in\n"
            f"  {settings.command()}",
            markup=False,
            soft_wrap=True,
        )
    return run.main(settings)
