"""Reinforcement learning on rollouts: opens the policy, joins an algorithm to `fit`, and saves what it trained."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark, made_tasks
from firsthand.engine.compute.devices import Gpu, kv_bytes_on
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ConfigError
from firsthand.hub import model_lookup
from firsthand.nn.decoder import Decoder
from firsthand.nn.routed_lora import choose
from firsthand.providers.local import Local
from firsthand.system.plurals import count_of
from firsthand.task import Task
from firsthand.tokens import pretrained
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.train.agent_heads import choose_head, value_heads
from firsthand.train.conversations import encode_conversations, read_conversations
from firsthand.train.data_order import order
from firsthand.train.endpoint_sampler import EndpointSampler
from firsthand.train.episodes import Episode, Graded
from firsthand.train.frozen_models import files_digest, weight_files
from firsthand.train.kept_rollouts import KeptRollouts
from firsthand.train.objective import Objective
from firsthand.train.policy_streams import corrected, importance_metrics
from firsthand.train.reference_policy import ReferencePolicy
from firsthand.train.replica_policy import ReplicaPolicy, open_on_ray
from firsthand.train.reward_scores import RewardModel, expect_reads
from firsthand.train.rollout_batches import GapCheck, RolloutBatches, question_of
from firsthand.train.rollout_settings import PolicyConfig, PolicyView, RolloutSettings
from firsthand.train.samplers import EngineSampler, Sampler
from firsthand.train.stream_logprobs import StreamNumbers, stream_logprobs
from firsthand.train.streams import Stream
from firsthand.train.training_run import TrainingRun

Floats = NDArray[np.float64]
StreamsOf = Callable[[Graded, PolicyView], Sequence[Stream]]


@dataclass
class Policy:
    """The model in training, its value head, and the policy from before: a `PolicyView`."""

    model: Decoder
    objective: Objective
    micro_tokens: int = 4096
    value_head: nn.Module | None = None
    before: ReferencePolicy | None = field(default=None, repr=False)
    dtype: torch.dtype = torch.float32
    """Of the forward pass, as in training."""

    def references(self, episodes: Sequence[Episode]) -> list[Floats]:
        """Log-probs under the policy before training, each episode's under the agent that made it."""
        assert self.before is not None, "the recipe did not ask for a reference"
        with self.before.there() as model:
            return [each.logprobs for each in self._numbers(model, episodes, chosen=bool(self.before.beginning))]

    def own(self, episodes: Sequence[Episode]) -> list[Floats]:
        """Log-probs under the policy as it is."""
        return [each.logprobs for each in self._numbers(self.model, episodes)]

    def values(self, episodes: Sequence[Episode]) -> list[Floats]:
        """The value before each token."""
        found = self._numbers(self.model, episodes, values=self.value_head)
        return [each.values for each in found if each.values is not None]

    def _numbers(
        self, model: Decoder, episodes: Sequence[Episode], *, values: nn.Module | None = None, chosen: bool = True
    ) -> list[StreamNumbers]:
        """The numbers of each episode, with the adapter of its agent if agents have their own and they are `chosen`."""
        found: dict[int, StreamNumbers] = {}
        for agent in dict.fromkeys(each.adapter for each in episodes):
            rows = [row for row, each in enumerate(episodes) if each.adapter == agent]
            if agent and chosen:
                choose(model, agent)
            if agent:
                choose_head(values, agent)
            numbers = stream_logprobs(
                model, [episodes[row].ids for row in rows], values=values, micro_tokens=self.micro_tokens,
                dtype=self.dtype, policy_logprobs=None if values is not None else self.objective.policy_logprobs,
            )  # fmt: skip
            found |= dict(zip(rows, numbers, strict=True))
        return [found[row] for row in range(len(episodes))]


def train_policy(
    run: TrainingRun,
    config: PolicyConfig,
    streams: StreamsOf,
    objective: Objective,
    *,
    has_values: bool = False,
    values_from: Path | None = None,
    needs_reference: bool = False,
    dynamic: bool = False,
    mixed_in: Path | None = None,
    mixed_batch: int = 0,
) -> Path:
    """Train the policy on rollouts of a benchmark's tasks; returns the folder of the trained model.

    `streams` makes those of a batch from its graded episodes. With `has_values` a linear value head is trained beside the
    policy, which begins at 0 or as that of the reward model in `values_from`; with `needs_reference` a copy of the policy
    before training is kept. `mixed_batch` conversations of the JSONL file `mixed_in` are added to each
    batch, for their cross-entropy.
    """
    run.expect_steps()
    sampled, seed = config.rollouts, run.loop.seed
    if not config.benchmark:
        raise ConfigError(
            "name the benchmark whose tasks are asked, as in `firsthand train grpo arithmetic --model MODEL`"
        )
    named, tasks, held_out = _tasks(config.benchmark, sampled, seed)
    catalog.pattern(sampled.pattern)
    for text in sampled.tools:
        catalog.tools_and_sources(text)
    path = model_lookup.resolve(sampled.model)
    if sampled.reward_model is not None:
        expect_reads(sampled.reward_model, path)
    agents = tuple(sampled.agent_scores)
    if config.adapter.dropout:
        raise ConfigError(
            f"dropout is {config.adapter.dropout:g}: the trainer's log-probs would not be the sampler's, so leave it at 0"
        )
    needs_reference = needs_reference or bool(objective.ref_kl)
    model = run.prepared(path, config.adapter, agents=agents, has_reference=needs_reference)
    policy = Policy(model, objective, run.loop.micro_tokens, dtype=run.dtype)
    begun = None if values_from is None else reward_head(model, values_from)
    policy.value_head = value_heads(model, agents, begun) if has_values else None
    if needs_reference:
        policy.before = ReferencePolicy(model, is_fresh=config.adapter.begin_with is None)
    local, agent = open_agent(path, sampled, device=run.device)
    if sampled.reward_model is not None:
        run.expect_same("reward model", sampled.reward_model)
    reward_model = (
        None if sampled.reward_model is None else RewardModel.load(sampled.reward_model, device=str(run.device))
    )
    replicas: ReplicaPolicy | None = None
    sampler: Sampler
    if sampled.is_endpoint:
        sampler = EndpointSampler(sampled.sampler, model, run.folder, config.adapter)
    elif sampled.sampler == "local":
        sampler = EngineSampler(local, model)
    else:
        replicas = open_on_ray(sampled.sampler, path, local.config, model, run.folder, config.adapter)
        sampler = EngineSampler(replicas, model)
    agent = replace(agent, model=sampler.model)
    is_corrected = sampled.correct_to_trainer == "on" or (
        sampled.correct_to_trainer == "auto" and not sampled.correct_to_model
        and (sampled.is_endpoint or config.adapter.base_weights == "blocks")
    )  # fmt: skip
    mixed = [] if mixed_in is None else encoded_file(mixed_in, path, model)

    def make(graded: Graded) -> tuple[list[Stream], dict[str, float]]:
        found = importance_metrics(graded.episodes, sampled.importance_cap) if sampled.correct_to_model else {}
        if is_corrected:
            graded, before = corrected(graded, policy.own(graded.episodes), sampled), graded
            found = {name: value for name, value in graded.metrics.items() if name not in before.metrics}
        return [*streams(graded, policy), *_drawn(mixed, mixed_batch, seed, batches.rounds)], found

    kept: KeptRollouts | None = None
    if run.loop.checkpoint_every:
        is_frozen = config.adapter.adapter != "none"
        kept = KeptRollouts(run.folder / "rollouts", base=files_digest(weight_files(path)) if is_frozen else "")
    batches = RolloutBatches(
        model, agent, named, tasks, sampled, make, seed=seed, dynamic=dynamic, held_out=held_out, sampler=sampler, kept=kept,
        mixed=mixed,
    )  # fmt: skip
    batches.rescore = None if reward_model is None else reward_model.rescored
    is_exact = sampled.weights == "float32" and run.loop.dtype == "float32" and not is_corrected
    is_exact = is_exact and (not path.is_file() or config.adapter.base_weights in ("nf4", "int4"))
    try:
        run.fit(
            model, batches, objective=objective, optimizer=config.optimizer, schedule=config.schedule,
            values=policy.value_head, evaluate=lambda step: batches.metrics,
            sinks=[GapCheck(batches, is_exact=is_exact, has_cuts=sampled.has_cuts)],
        )  # fmt: skip
    finally:
        local.close()
        if replicas is not None:
            replicas.close()
            shutil.rmtree(replicas.folder, ignore_errors=True)
    shutil.rmtree(run.folder / "rollouts", ignore_errors=True)
    return run.save(model, pretrained.load(path), base=path, adapter=config.adapter, named=sampled.model)


def _tasks(benchmark: str, sampled: RolloutSettings, seed: int) -> tuple[Benchmark, list[Task], list[Task]]:
    """The benchmark, its tasks to train on, and those held out: the last ones. ConfigError if none is left to train on."""
    named = catalog.benchmark(benchmark)
    tasks = list(made_tasks(named, seed))
    if len(tasks) <= sampled.held_out:
        raise ConfigError(
            f"held_out is {sampled.held_out}, and {named.name} has {len(tasks)} tasks: leave some to train on"
        )
    held_out = tasks[len(tasks) - sampled.held_out :]
    tasks = _apart(named, tasks[: len(tasks) - sampled.held_out], held_out) if held_out else tasks
    kept = len(tasks)
    if kept < sampled.prompts:
        told = f"{named.name} has {count_of(kept, 'task')} to train on, and prompts is {sampled.prompts}"
        print(f"{told}: a round of rollouts asks at most {kept}")
    return named, tasks, held_out


def _apart(named: Benchmark, tasks: Sequence[Task], held_out: Sequence[Task]) -> list[Task]:
    """The tasks that do not ask what a held-out one asks; prints how many do. ConfigError if all do.

    Tasks with environments are all kept, since an environment may make each another problem. What shares its prompt alone
    with a held-out task is kept and told.
    """
    own = {question_of(task) for task in held_out if named.environment is None}
    found = [task for task in tasks if question_of(task) not in own]
    if not found:
        raise ConfigError(
            f"held_out is {len(held_out)}, and all other tasks of {named.name} ask what one of these asks "
            f"({count_of(len(own), 'different question')}): hold out fewer, or give a benchmark of more questions"
        )
    if left_out := len(tasks) - len(found):
        print(f"{named.name}: {count_of(left_out, 'task')} not trained on, since a held-out task asks the same")
    prompts = {question_of(task, metadata=False) for task in found}
    if alike := sum(question_of(task, metadata=False) in prompts for task in held_out):
        how = "metadata" if named.environment is None else "environments"
        print(
            f"{named.name}: {alike} of {len(held_out)} held-out tasks have a prompt that is trained on with other {how}"
        )
    return found


def reward_head(model: Decoder, reward_model: Path) -> nn.Linear:
    """The head of a reward model less its mean, for values to begin as. ConfigError if it has another hidden size."""
    given = RewardModel.load(reward_model)
    if given.head.in_features != model.architecture.hidden_size:
        raise ConfigError(
            f"the reward model in {reward_model} has the hidden size {given.head.in_features}, and the policy "
            f"{model.architecture.hidden_size}: train the reward model from the policy, or take value_init zero"
        )
    with torch.no_grad():
        given.head.bias.sub_(given.mean)
    return given.head


def open_agent(
    path: Path, sampled: RolloutSettings, *, device: torch.device | None = None, gpu: Gpu = torch.cuda
) -> tuple[Local, Agent]:
    """The policy as an agent on our engine, on the trainer's device. Tool calls are sampled without a grammar.

    On a GPU the KV cache has a quarter of what is free beside the policy: gradients and optimizer are still to come.
    """
    on_gpu = device is not None and device.type == "cuda"
    config = EngineConfig(
        device=str(device) if on_gpu else "cpu",
        kv_memory_bytes=kv_bytes_on(device, gpu) // 2 if device is not None and on_gpu else None,
        weights=sampled.weights,
        kv_cache="float32" if sampled.weights == "float32" else "auto",
        max_sequences=min(256, sampled.concurrency),
        max_batch_tokens=2048,
    )
    local = Local(path, config=config, free_calls=True)
    pattern, options = catalog.pattern(sampled.pattern)
    tools = tuple(tool for text in sampled.tools for tool in catalog.tools_and_sources(text))
    return local, Agent(sampled.pattern, local, pattern, options, tools, sampled.sampling)


def encoded_file(file: Path, model_path: Path, model: Decoder) -> list[Stream]:
    """The conversations of a JSONL file as streams for cross-entropy. Prints how many there are, and what was left out."""
    tokenizer = pretrained.load(model_path)
    context = model.architecture.max_position
    chat = ChatTemplate(tokenizer, tokenizer.chat_template, max_tokens=context)
    encoded = encode_conversations(read_conversations(file), tokenizer, chat, context=context)
    print(f"{file}: {encoded}")
    return encoded.streams


def _drawn(streams: Sequence[Stream], count: int, seed: int, batch: int) -> list[Stream]:
    """The streams that are mixed into a batch: `count` in a seeded order, pass after pass."""
    if not streams:
        return []
    places = range((batch - 1) * count, batch * count)
    return [streams[order(seed, place // len(streams), len(streams))[place % len(streams)]] for place in places]
