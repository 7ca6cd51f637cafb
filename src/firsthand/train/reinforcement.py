"""Reinforcement learning on rollouts: opens the policy, joins an algorithm to `fit`, and saves what it trained."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ConfigError
from firsthand.hub import model_lookup
from firsthand.nn import weights
from firsthand.nn.decoder import Decoder
from firsthand.providers.local import Local
from firsthand.tokens import pretrained
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.train.conversations import encode_conversations, read_conversations
from firsthand.train.data_order import order
from firsthand.train.episodes import Episode, Graded
from firsthand.train.fit import MetricSink, Saver, fit
from firsthand.train.objective import Objective
from firsthand.train.optimizers import optimizer_for
from firsthand.train.policy_streams import importance_metrics
from firsthand.train.rollout_batches import RolloutBatches, RolloutMetrics, RolloutPlan
from firsthand.train.rollout_settings import PolicySettings, PolicyView, RolloutSettings
from firsthand.train.stream_logprobs import stream_logprobs
from firsthand.train.streams import Stream

Floats = NDArray[np.float64]
StreamsOf = Callable[[Graded, PolicyView], Sequence[Stream]]


@dataclass
class Policy:
    """The model in training, its value head, and a copy from before: a `PolicyView`."""

    model: Decoder
    objective: Objective
    micro_tokens: int = 4096
    value_head: nn.Module | None = None
    before: Decoder | None = field(default=None, repr=False)

    def references(self, episodes: Sequence[Episode]) -> list[Floats]:
        """Log-probs under the policy before training."""
        assert self.before is not None, "the recipe did not ask for a reference"
        found = stream_logprobs(
            self.before, [each.ids for each in episodes], policy_logprobs=self.objective.policy_logprobs,
            micro_tokens=self.micro_tokens,
        )  # fmt: skip
        return [each.logprobs for each in found]

    def values(self, episodes: Sequence[Episode]) -> list[Floats]:
        """The value before each token."""
        found = stream_logprobs(
            self.model, [each.ids for each in episodes], values=self.value_head, micro_tokens=self.micro_tokens
        )
        return [each.values for each in found if each.values is not None]


def train_policy(
    benchmark: str,
    sampled: RolloutSettings,
    training: PolicySettings,
    streams: StreamsOf,
    objective: Objective,
    *,
    recipe: str = "policy",
    has_values: bool = False,
    needs_reference: bool = False,
    dynamic: bool = False,
    mixed_in: Path | None = None,
    mixed_batch: int = 0,
    track: MetricSink | None = None,
    checkpoint: Saver | None = None,
) -> Path:
    """Train the policy on rollouts of a benchmark's tasks; returns the folder of the trained model.

    `streams` makes those of a batch from its graded episodes. With `has_values` a linear value head is trained beside the
    policy, and with `needs_reference` a copy of the policy before training is kept. `mixed_batch` conversations of the JSONL
    file `mixed_in` are added to each batch, for their cross-entropy.
    """
    if not benchmark or not sampled.model:
        raise ConfigError(
            "give a benchmark and --model MODEL, a folder with float weights, as in the examples of --help"
        )
    path = model_folder(sampled.model)
    torch.manual_seed(training.seed)
    model = weights.load(path).to(training.device)
    policy = Policy(model, objective, training.micro_tokens)
    if has_values:
        policy.value_head = value_head(model)
    if needs_reference or objective.ref_kl:
        policy.before = copy.deepcopy(model).eval()
    local, agent = open_agent(path, sampled)
    try:
        named = catalog.benchmark(benchmark)
        tasks = list(named.tasks(training.seed))
        kept = len(tasks) - sampled.held_out
        if kept < 1:
            raise ConfigError(
                f"held_out is {sampled.held_out}, and {named.name} has {len(tasks)} tasks: leave some to train on"
            )

        def make(graded: Graded) -> tuple[list[Stream], dict[str, float]]:
            found = importance_metrics(graded.episodes, sampled.importance_cap) if sampled.correct_to_model else {}
            return [*streams(graded, policy), *_drawn(mixed, mixed_batch, training.seed, batches.rounds)], found

        mixed = [] if mixed_in is None else encoded_file(mixed_in, path, model)
        plan = RolloutPlan(
            prompts=sampled.prompts, group_size=sampled.group_size, seed=training.seed, concurrency=sampled.concurrency,
            score=sampled.score, updates=sampled.updates, minibatches=sampled.minibatches, dynamic=dynamic,
        )  # fmt: skip
        batches = RolloutBatches(model, agent, named, tasks[:kept], plan, make)
        batches.watch_held_out(tasks[kept:], every=sampled.eval_every)
        if sampled.reward_model is not None:
            from firsthand.train.reward_scores import RewardModel

            batches.rescore = RewardModel.load(sampled.reward_model).rescored
        is_exact = sampled.weights == "float32" and training.dtype == "float32"
        whole = model if policy.value_head is None else nn.ModuleDict({"model": model, "values": policy.value_head})
        fit(
            model, batches, objective=objective, optimizer=optimizer_for(whole, training),
            schedule=training.over(training.steps), steps=training.steps, values=policy.value_head,
            track=RolloutMetrics(batches, track, exact=is_exact, has_cuts=sampled.has_cuts), checkpoint=checkpoint,
            micro_tokens=training.micro_tokens, clip_norm=training.clip_norm, dtype=getattr(torch, training.dtype),
        )  # fmt: skip
    finally:
        local.close()
    return save_beside(model, path, training.out or path.with_name(f"{path.name}-{recipe}"))


def encoded_file(file: Path, model_path: Path, model: Decoder) -> list[Stream]:
    """The conversations of a JSONL file as streams for cross-entropy."""
    tokenizer = pretrained.load(model_path)
    context = model.architecture.max_position
    chat = ChatTemplate(tokenizer, tokenizer.chat_template, max_tokens=context)
    return encode_conversations(read_conversations(file), tokenizer, chat, context=context).streams


def _drawn(streams: Sequence[Stream], count: int, seed: int, batch: int) -> list[Stream]:
    """The streams that are mixed into a batch: `count` in a seeded order, pass after pass."""
    if not streams:
        return []
    places = range((batch - 1) * count, batch * count)
    return [streams[order(seed, place // len(streams), len(streams))[place % len(streams)]] for place in places]


def value_head(model: Decoder) -> nn.Linear:
    """A linear value head that begins at 0, on the model's device."""
    head = nn.Linear(model.architecture.hidden_size, 1, device=model.embed.weight.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def model_folder(name: str) -> Path:
    """The folder of a model with float weights. ConfigError for a GGUF file, which has blocks and is not trained."""
    path = Path(name) if Path(name).exists() else model_lookup.resolve(name)
    if not path.is_dir():
        raise ConfigError(
            f"{name} is a file: training needs a folder with config.json and float weights in safetensors"
        )
    return path


def open_agent(path: Path, sampled: RolloutSettings) -> tuple[Local, Agent]:
    """The policy as an agent on our engine. Tool calls are sampled without a grammar."""
    config = EngineConfig(
        weights=sampled.weights,  # type: ignore[arg-type]
        kv_cache="float32" if sampled.weights == "float32" else "auto",
        max_sequences=min(256, sampled.concurrency),
        max_batch_tokens=2048,
    )
    local = Local(path, config=config, free_calls=True)
    pattern, options = catalog.pattern(sampled.pattern)
    tools = tuple(tool for text in sampled.tools for tool in catalog.tools(text))
    return local, Agent(sampled.pattern, local, pattern, options, tools, sampled.sampling)


def save_beside(model: Decoder, source: Path, folder: Path) -> Path:
    """Writes the model with the tokenizer and templates of the folder it came from; returns the folder."""
    if folder.resolve() == source.resolve():
        raise ConfigError(f"out is {folder}, the model's own folder: give another")
    weights.save(model, folder)
    for file in source.iterdir():
        if file.is_file() and file.suffix in (".json", ".jinja", ".txt", ".model") and not _is_weights(file):
            shutil.copy2(file, folder / file.name)
    return folder


def _is_weights(file: Path) -> bool:
    return file.name == "config.json" or file.name.endswith(".safetensors.index.json")
