"""Batches of an RL recipe: rollouts made with the current weights when the next batch is asked for.

The rollouts are `firsthand.rollout.rollouts` of an agent whose local model gets the trainer's weights before each batch.
Which tasks come, and every random number of their attempts, depends on the seed and the number of the batch alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.errors import ConfigError, DataError, TrainingError
from firsthand.loop.concurrency import derive_seed
from firsthand.message import Json
from firsthand.nn.decoder import Decoder
from firsthand.providers.local import Local
from firsthand.rollout import Place, rollouts
from firsthand.system import interruption
from firsthand.task import Task
from firsthand.trace import Trace
from firsthand.train.data_order import streams_digest
from firsthand.train.episodes import Graded, grade
from firsthand.train.kept_rollouts import KeptRollouts
from firsthand.train.processes import from_all, rank, ranks
from firsthand.train.rollout_settings import RolloutSettings
from firsthand.train.samplers import EngineSampler, Sampler, weights_digest
from firsthand.train.streams import Stream

MAX_GAP = 1e-4
"""The largest difference of log-probs between sampler and trainer that float32 arithmetic explains."""
MAX_GAP_SHARE = 1e-3
"""With cuts (top-k, top-p): the largest share of tokens beyond `MAX_GAP`."""
MAX_ROUNDS = 10
"""Batches of rollouts in a row without any difference of rewards, after which training stops."""


MakeStreams = Callable[[Graded], tuple[list[Stream], Mapping[str, float]]]
"""The graded episodes of a batch -> its streams, and further metrics."""


class RolloutBatches:
    """The `Batches` of an RL recipe. `metrics` are those of the last rollouts."""

    def __init__(
        self, policy: Decoder, agent: Agent, benchmark: Benchmark, tasks: Sequence[Task], sampled: RolloutSettings,
        make_streams: MakeStreams, *, seed: int = 0, dynamic: bool = False, held_out: Sequence[Task] = (),
        sampler: Sampler | None = None, kept: KeptRollouts | None = None, mixed: Sequence[Stream] = (),
    ):  # fmt: skip
        """`dynamic` makes further rollouts until a batch has its number of tasks whose rewards differ (DAPO).

        The agent's model takes the policy's weights by `sampler`, by default as a local model does. Finished rollouts are
        `kept` until a checkpoint covers them. Processes that train together share the rollouts of each round. A resumed run
        knows the tasks, and the streams that are `mixed` into its batches, by digests.
        """
        if sampler is None and not isinstance(agent.model, Local):
            raise ConfigError(f"the policy is {agent.model.name}: rollouts to train on need a local model or a sampler")
        if sampler is None:
            assert isinstance(agent.model, Local)
            sampler = EngineSampler(agent.model, policy)
        if not tasks:
            raise ConfigError(f"the benchmark {benchmark.name} has no tasks to train on")
        self.policy, self.agent, self.benchmark, self.plan = policy, agent, benchmark, sampled
        self.tasks, self.make_streams = tuple(tasks), make_streams
        self.seed, self.dynamic, self.held_out = seed, dynamic, tuple(held_out)
        self.sampler, self.kept = sampler, kept
        self.metrics: dict[str, float] = {}
        self.on_policy = True
        """True if the batch that was yielded last is the first of its rollouts, before any update by them."""
        self.rounds = 0
        """Rounds of rollouts so far, of `prompts` tasks each."""
        self.batches_made = 0
        """Batches of rollouts so far; with dynamic sampling a batch takes several rounds."""
        self.rescore: Callable[[Graded], Graded] | None = None
        """Replaces the rewards of episodes, as a reward model does."""
        self._data = {"tasks": tasks_digest([*tasks, *held_out]), "mixed": streams_digest(mixed)}
        self._digest = ""
        self._order: tuple[int, list[int]] | None = None
        """A pass over the tasks and its order."""
        self._covered = 0
        """Rounds before the last state that was asked for, as a checkpoint does."""
        self._pending: list[list[Stream]] = []

    def __iter__(self) -> Iterator[list[Stream]]:
        """Yields the streams of each step."""
        with interruption.Runner() as runner:
            while True:
                self.on_policy = not self._pending
                if not self._pending:
                    self._pending = self._split(self._fresh(runner))
                yield self._pending.pop(0)

    def _fresh(self, runner: interruption.Runner) -> list[Stream]:
        """The streams of new rollouts, none of them if no group's rewards differ."""
        began = time.perf_counter()
        runner.run(self.sampler.send(self.rounds + 1))
        if self.kept is not None:
            self._digest = f"{weights_digest(self.policy)} {self._data['tasks']}"
        held_out = self.evaluate(runner)
        graded = self._round(runner)
        if self.dynamic:
            graded = self._varied(runner, graded)
        self.batches_made += 1
        streams, more = self.make_streams(graded)
        self.metrics = {**graded.metrics, **more, **held_out, "rollout_s": time.perf_counter() - began}
        return streams

    def evaluate(self, runner: interruption.Runner) -> dict[str, float]:
        """Mean reward and length of one rollout of each held-out task, if an evaluation is due."""
        if not self.held_out or self.batches_made % self.plan.eval_every:
            return {}
        places = [Place(self.agent, self.benchmark, task, self.rounds) for task in self.held_out]
        metrics = grade(runner.run(self._made(places, "held-out")), score=self.plan.score).metrics
        return {f"held_out_{name}": metrics[name] for name in ("reward", "answer_tokens")}

    def _round(self, runner: interruption.Runner) -> Graded:
        tasks = [self._task(self.rounds * self.plan.prompts + index) for index in range(self.plan.prompts)]
        epochs = range(self.rounds * self.plan.group_size, (self.rounds + 1) * self.plan.group_size)
        unique = {task.id: task for task in tasks}.values()
        places = [Place(self.agent, self.benchmark, task, epoch) for task in unique for epoch in epochs]
        self.rounds += 1
        label = f"#{self.rounds}" if self.dynamic else ""
        traces = runner.run(self._made(places, "round"))
        graded = grade(traces, score=self.plan.score, label=label, agents=self.plan.agent_scores)
        return graded if self.rescore is None else self.rescore(graded)

    def _varied(self, runner: interruption.Runner, graded: Graded) -> Graded:
        """The episodes of `prompts` groups whose rewards differ, from as many rounds as that takes.

        Yu et al. (2025), arXiv:2503.14476, equation 11.
        """
        kept: dict[str, list[int]] = {}
        episodes, made, rounds = list(graded.episodes), graded, 1
        while True:
            kept = {}
            for index, each in enumerate(episodes):
                kept.setdefault(each.group, []).append(index)
            kept = {group: rows for group, rows in kept.items() if len({episodes[row].reward for row in rows}) > 1}
            if len(kept) >= self.plan.prompts or rounds == MAX_ROUNDS:
                break
            made, rounds = self._round(runner), rounds + 1
            episodes = [episodes[row] for rows in kept.values() for row in rows] + list(made.episodes)
        if not kept:
            raise TrainingError(
                f"{rounds} rounds of {self.plan.prompts} tasks had no group whose rewards differ (mean reward "
                f"{made.metrics['reward']:g}): the tasks are too hard or too easy for this model, or the reward is constant"
            )
        rows = [row for group in list(kept)[: self.plan.prompts] for row in kept[group]]
        metrics = graded.metrics | {"sampled_rounds": float(rounds)}
        return Graded(tuple(episodes[row] for row in rows), metrics)

    async def _made(self, places: Sequence[Place], label: str) -> list[Trace]:
        """The attempts at places, those of this process made here and the others by the others."""
        done: dict[str, Trace] = {}
        if self.kept is not None:
            self.kept.drop_before(label, self._covered)
            done = self.kept.begin(label, self.rounds, self._digest)
        own = places[rank() :: ranks()]
        traces = [done[place.id] for place in own if place.id in done]
        async for trace in rollouts(own, seed=self.seed, concurrency=self.plan.concurrency, done=done):
            if self.kept is not None:
                self.kept.add(trace)
            traces.append(trace)
        return from_all(traces)

    def _task(self, index: int) -> Task:
        """The task at a place of the endless order: a new permutation of all tasks in each pass."""
        passes, place = divmod(index, len(self.tasks))
        if self._order is None or self._order[0] != passes:
            order = list(range(len(self.tasks)))
            random.Random(derive_seed("order of tasks", self.seed, passes)).shuffle(order)
            self._order = (passes, order)
        return self.tasks[self._order[1][place]]

    def _split(self, streams: list[Stream]) -> list[list[Stream]]:
        """The minibatches of all passes over the streams; a comparison or group may be divided, a stream never."""
        batches: list[list[Stream]] = []
        for each in range(self.plan.updates):
            order = list(range(len(streams)))
            if self.plan.minibatches > 1:
                random.Random(derive_seed("minibatches", self.seed, self.rounds, each)).shuffle(order)
            size = max(1, math.ceil(len(order) / self.plan.minibatches))
            parts = [order[start : start + size] for start in range(0, len(order), size)] or [[]]
            batches += [[streams[row] for row in rows] for rows in parts]
        return batches

    def state(self) -> Json:
        """The number of rounds, digests of the data, and the streams and metrics of rollouts that are not used up."""
        self._covered = self.rounds
        made = {"rounds": self.rounds, "batches": self.batches_made}
        pending = [[_to_json(each) for each in batch] for batch in self._pending]
        return {**made, **self._data, "pending": pending, "metrics": self.metrics}

    def load(self, state: Json) -> None:
        """Continue from a state. DataError if the tasks, or the texts that are mixed in, are not what they were."""
        for name, told in (("tasks", f"the tasks of {self.benchmark.name}"), ("mixed", "the texts that are mixed in")):
            if state.get(name, self._data[name]) != self._data[name]:  # checkpoints of 0.26 and before have none
                raise DataError(
                    f"{told} are not what the run began with: give the same, or begin the run anew in another folder"
                )
        self.rounds, self.batches_made = int(state["rounds"]), int(state["batches"])
        self._pending = [[Stream(**each) for each in batch] for batch in state["pending"]]
        self.metrics = {str(name): float(value) for name, value in state.get("metrics", {}).items()}


def tasks_digest(tasks: Iterable[Task]) -> str:
    """A hash of what tasks ask and what their scorers compare with, in their order."""
    found = hashlib.sha256()
    for task in tasks:
        said = [message.to_json() for message in task.conversation]
        body = [task.id, task.prompt, list(task.choices), task.context, said, dict(task.secret)]
        found.update(f"{json.dumps(_plain(body), sort_keys=True)}\n".encode())
    return found.hexdigest()


def question_of(task: Task, *, metadata: bool = True) -> str:
    """Everything that an agent is asked by a task, without its id and its answer: equal for tasks that ask the same."""
    said = [message.to_json() for message in task.conversation]
    asked = [task.prompt, task.choices, task.context, task.requests, said, task.metadata if metadata else {}]
    return json.dumps(_plain(asked), sort_keys=True)


def _plain(value: object) -> Any:
    """JSON data of a value, whatever its keys; of an unknown type its name, since a repr may have an address."""
    match value:
        case Mapping():
            return {json.dumps(_plain(key), sort_keys=True): _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case set() | frozenset():
            return sorted(json.dumps(_plain(each), sort_keys=True) for each in value)
        case bytes():
            return value.hex()
        case None | str() | int() | float():
            return value
    return type(value).__name__


def _to_json(stream: Stream) -> Json:
    return {
        name: value.tolist() if hasattr(value, "tolist") else value
        for name, value in vars(stream).items()
        if value is not None
    }


class GapCheck:
    """Compares the log-probs of sampler and trainer on every fresh batch, before any update by it.

    In reference mode (float32 weights and cache) TrainingError if they differ by more than `MAX_GAP`. Elsewhere, and where
    several updates use the same rollouts, the difference is only logged, as `sampler_gap`.
    """

    def __init__(self, batches: RolloutBatches, *, is_exact: bool, has_cuts: bool):
        self.batches, self.is_exact, self.has_cuts = batches, is_exact, has_cuts

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Check the metrics of a step."""
        if not (self.is_exact and self.batches.on_policy and "sampler_gap" in metrics):
            return
        # rounding may put a token at the edge of a cut on its other side: some tokens of a million
        is_off = metrics.get("gap_share", 1.0) > MAX_GAP_SHARE if self.has_cuts else metrics["sampler_gap"] > MAX_GAP
        if is_off:
            raise TrainingError(
                f"step {step}: log-probs of sampler and trainer differ by {metrics['sampler_gap']:.2g}, and float32 "
                f"explains {MAX_GAP:g}: the rollouts are not of these weights, or of another distribution than was told"
            )
