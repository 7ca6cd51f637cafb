"""Settings that the recipes of reinforcement learning share, as dataclasses for their `Config`. No torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from firsthand.errors import ConfigError
from firsthand.sampling import Sampling
from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.episodes import Episode
from firsthand.train.importance import ImportanceMode
from firsthand.train.recipe_settings import LoopSettings, OptimizerSettings
from firsthand.train.schedules import ScheduleSettings

Floats = NDArray[np.float64]


def policy_optimizer() -> OptimizerSettings:
    """AdamW at 1e-6 (DeepSeekMath) without decay; a model of 100,000 parameters takes 3e-4."""
    return OptimizerSettings(lr=1e-6, beta2=0.999, weight_decay=0.0)


def policy_schedule() -> ScheduleSettings:
    """A constant rate."""
    return ScheduleSettings(schedule="constant")


def policy_loop() -> LoopSettings:
    """200 steps."""
    return LoopSettings(steps=200, checkpoint_every=20)


class PolicyConfig(Protocol):
    """The settings that every recipe of reinforcement learning has."""

    @property
    def benchmark(self) -> str: ...
    @property
    def rollouts(self) -> RolloutSettings: ...
    @property
    def adapter(self) -> AdapterSettings: ...
    @property
    def optimizer(self) -> OptimizerSettings: ...
    @property
    def schedule(self) -> ScheduleSettings: ...


class PolicyView(Protocol):
    """Log-probs and values that an algorithm may ask for when it makes its streams. Every array is T of one episode."""

    def references(self, episodes: Sequence[Episode]) -> list[Floats]:
        """Log-probs under the policy before training, of the distribution that is trained."""
        ...

    def values(self, episodes: Sequence[Episode]) -> list[Floats]:
        """The value head's value before each token."""
        ...


@dataclass(frozen=True)
class RolloutSettings:
    """The policy, what it is asked, and how it is sampled."""

    model: str = "smollm2"
    """The policy to train: a name, a .gguf file, or a folder."""
    pattern: str = "direct"
    """The pattern of the agent that makes the rollouts, with its options."""
    tools: tuple[str, ...] = ()
    """Its tools, MCP servers too; calls are sampled without a grammar, so that the sampled distribution is the model's."""
    prompts: int = 32
    """Tasks of a batch."""
    group_size: int = 16
    """Rollouts of each task of a batch (16: DeepSeek-R1; DeepSeekMath has 64)."""
    temperature: float = 1.0
    """Of the rollouts; the distribution after temperature and cuts is what is trained."""
    top_k: int = 0
    """Keep this many of the most probable tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of most probable tokens whose probability reaches this."""
    max_tokens: int = 512
    """At most this many new tokens of one answer."""
    score: str | None = None
    """The score of the benchmark that is the reward; its first one if not given."""
    reward_model: Path | None = None
    """A reward model's folder, whose score is the reward in place of the benchmark's."""
    updates: int = 1
    """Passes over the rollouts of a batch."""
    minibatches: int = 1
    """Optimizer steps of each pass."""
    held_out: int = 0
    """The last so many tasks, and others that ask the same, are not trained on: one rollout of each of the last is scored
    every `eval_every` batches."""
    eval_every: int = 20
    """Batches between two evaluations on the held-out tasks."""
    correct_to_model: bool = False
    """Train the model's own distribution at temperature 1 in place of the sampled one, by importance weights."""
    importance_cap: float = 3.0
    """The largest importance weight."""
    importance_mode: ImportanceMode = "token"
    """Importance weights by token or by answer, cut at the cap or, with `mask`, dropped above it."""
    weights: Literal["auto", "int8", "float16", "float32"] = "float32"
    """Weights of the sampling engine. `float32` is the reference mode: log-probs must equal the trainer's."""
    concurrency: int = 256
    """Rollouts at a time."""
    sampler: str = "local"
    """The sampler of rollouts: `local`, the engine of this process; `ray:N` or `ray:N@HOST:PORT`, N replicas of it on a Ray
    cluster; or `openai:NAME@URL`, an endpoint that returns token ids and log-probs and takes adapters (`firsthand serve
    MODEL --adapter-root FOLDER`, vLLM)."""
    correct_to_trainer: Literal["auto", "on", "off"] = "auto"
    """Correct for a sampler of other arithmetic by importance weights between the trainer's log-probs and its own. `auto`
    does so where the sampler is an endpoint, or the base keeps a GGUF file's blocks."""
    agents: tuple[str, ...] = ()
    """Agents of a rollout that have an adapter each, called as the pattern names its branches, such as `lead,worker` for
    orchestrate; `worker=SCORE` makes a score of the benchmark the reward of that agent alone."""

    def __post_init__(self) -> None:
        for name in ("prompts", "group_size", "updates", "minibatches", "eval_every", "concurrency"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: expected 1 or more")
        if self.held_out < 0 or not self.importance_cap > 0:
            raise ConfigError(
                f"held_out is {self.held_out} and importance_cap {self.importance_cap}: expected 0 or more"
            )
        if self.temperature == 0:
            raise ConfigError("temperature is 0: all rollouts of a task would be equal; give one above 0, such as 1")
        _ = self.sampling
        named = list(self.agent_scores)
        if len(named) < len(self.agents) or not all(
            re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_ -]*", each) for each in named
        ):
            raise ConfigError(
                f"agents are {', '.join(self.agents)}: give each name once, in letters, digits, spaces and - _"
            )
        if self.is_endpoint and (self.temperature != 1 or self.has_cuts or self.correct_to_model):
            raise ConfigError(
                f"sampler is {self.sampler}, whose log-probs are the model's own: leave temperature at 1, without top_k, "
                "top_p and correct_to_model"
            )
        if not re.fullmatch(r"local|ray:[1-9]\d{0,2}(@.+)?|openai:.+@https?://.+", self.sampler):
            raise ConfigError(
                f"sampler is {self.sampler!r:.100}: give local, ray:N, ray:N@HOST:PORT, or openai:NAME@http://HOST:PORT/v1"
            )
        if self.correct_to_trainer == "on" and self.correct_to_model:
            raise ConfigError("correct_to_model and correct_to_trainer are both given: give one of them")

    @property
    def is_endpoint(self) -> bool:
        """True if rollouts come from a server whose arithmetic is its own."""
        return self.sampler.startswith("openai:")

    @property
    def agent_scores(self) -> dict[str, str | None]:
        """The agents with an adapter each, and the score that is the reward of each; None is that of the run."""
        parts = (each.partition("=") for each in self.agents)
        return {name.strip(): score or None for name, _, score in parts}

    @property
    def sampling(self) -> Sampling:
        """The sampling settings of the rollouts."""
        return Sampling(max_tokens=self.max_tokens, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)

    @property
    def has_cuts(self) -> bool:
        """True if some tokens cannot be sampled."""
        return self.top_k > 0 or self.top_p < 1


def expect_groups(settings: RolloutSettings) -> None:
    """ConfigError for groups of one rollout, whose advantages within the group would all be 0."""
    if settings.group_size < 2:
        raise ConfigError(f"group_size is {settings.group_size}: rollouts of a task are compared, so give 2 or more")
