"""Graded rollouts: what a policy sampled, token by token, with its reward. Every RL algorithm makes its streams from these.

Numpy only. Ids, masks and log-probs are those recorded when the tokens were sampled (`Trace.samples`): nothing is encoded
again, and tokens of prompts, tool results and observations have the mask 0.
"""

# T tokens of an episode

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from firsthand.errors import ModelError, TrainingError
from firsthand.trace import Score, Trace, TrainingSample
from firsthand.train.advantages import is_constant

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Episode:
    """One branch of a rollout. Arrays have an entry for each token, 0 for those that were not sampled."""

    ids: NDArray[np.int32]
    mask: Floats
    """1 for a sampled token; less where several branches of one rollout share it, so that it counts once."""
    own: Floats
    """Log-prob under the model's own distribution when it was sampled."""
    behaviour: Floats
    """Log-prob under the distribution that was sampled, after temperature and cuts."""
    reward: float
    group: str
    """The task: rollouts of one task form a group."""
    source: str
    """Id of the trace."""
    shaped: Floats | None = None
    """A reward of each token in place of the one at the end, as PPO's with its KL term."""
    importance: Floats | None = None
    """Factors of the advantages that correct for a sampler of other arithmetic; None if there is nothing to correct."""
    adapter: str = ""
    """The agent whose adapter sampled the tokens that count, where agents have one each."""

    @property
    def rollout(self) -> tuple[str, str]:
        """Equal for the branches of one rollout; where agents have an adapter each, for one agent's branches of it."""
        return self.group, self.source

    @property
    def sampled(self) -> NDArray[np.int64]:
        """The places of the sampled tokens."""
        return np.flatnonzero(self.mask)

    @property
    def longest(self) -> int:
        """Tokens of the longest sampled message: of the most sampled tokens in a row."""
        edges = np.flatnonzero(np.diff(self.mask != 0, prepend=False, append=False))
        return int((edges[1::2] - edges[::2]).max(initial=0))

    def with_reward(self, reward: float) -> Episode:
        """The same episode with another reward."""
        return replace(self, reward=reward)


@dataclass(frozen=True)
class Graded:
    """The episodes of a step, and what became of its rollouts."""

    episodes: tuple[Episode, ...]
    metrics: dict[str, float]


def grade(
    traces: Sequence[Trace],
    *,
    score: str | None = None,
    label: str = "",
    agents: Mapping[str, str | None] = MappingProxyType({}),
) -> Graded:
    """Returns the episodes of traces with their rewards, `score` or the first score of each attempt: of harm its negative.

    `label` is added to the name of each task's group. `agents` have an adapter each, and the name of the score that is
    their reward: at the messages of the branch if it is there, else of the attempt; None is `score`. Each then has episodes
    and groups of its own, and tokens that no agent sampled count nothing. A rollout that failed, or whose reward raised or
    is not a number, gives no episode and is counted. TrainingError, with the first reason, if none is left; ModelError if
    the model reports no tokens, or not the distribution that it sampled from.
    """
    episodes: list[Episode] = []
    failures: Counter[str] = Counter()
    reason = ""
    lengths, rewards = [], []
    for trace in sorted(traces, key=lambda each: (each.task_id, each.epoch)):
        reward, why = _reward(trace, score)
        if reward is None:
            failures["rollouts_failed" if trace.error else "rewards_failed"] += 1
            reason = reason or why
            continue
        try:
            made = _episodes(trace, reward, trace.task_id + label, agents)
        except _NoReward as error:
            failures["rewards_failed"] += 1
            reason = reason or str(error)
            continue
        episodes += made
        rewards.append(reward)
        lengths.append(sum(float(each.mask.sum()) for each in made))
    if not rewards:
        raise TrainingError(f"none of {len(traces)} rollouts has a reward: {reason or 'there are none'}")
    groups: dict[str, list[float]] = {}
    for each in episodes:
        groups.setdefault(each.group, []).append(each.reward)
    flat = sum(is_constant(np.array(values)) for values in groups.values())
    metrics = {
        "reward": float(np.mean(rewards)),
        "reward_std": float(np.std(rewards)),
        "answer_tokens": float(np.mean(lengths)),
        "rollouts": float(len(rewards)),
        "groups": float(len(groups)),
        "groups_of_equal_rewards": float(flat),
        "rollouts_failed": float(failures["rollouts_failed"]),
        "rewards_failed": float(failures["rewards_failed"]),
        "rollouts_cut": float(sum(trace.stop_reason == "tokens" or _was_cut(trace) for trace in traces)),
    }
    return Graded(tuple(episodes), metrics | _means_of_scores(traces) | _means_of_agents(episodes, agents))


class _NoReward(Exception):
    """A rollout has no reward for one of its agents; the message says why."""


def _means_of_agents(episodes: Sequence[Episode], agents: Mapping[str, str | None]) -> dict[str, float]:
    """The mean reward and length of each agent's episodes. TrainingError for an agent that never sampled."""
    found: dict[str, float] = {}
    for agent in agents:
        own = [each for each in episodes if each.adapter == agent]
        if not own:
            raise TrainingError(
                f"no branch of the rollouts belongs to the agent {agent!r}: name agents as the pattern names its branches, "
                "such as worker in orchestrate, or lead for what is outside of them"
            )
        found[f"agent.{agent}.reward"] = float(np.mean([each.reward for each in own]))
        found[f"agent.{agent}.tokens"] = float(np.mean([each.mask.sum() for each in own]))
    return found


def _means_of_scores(traces: Sequence[Trace]) -> dict[str, float]:
    """The mean of each score where attempts have several, such as the parts of a reward."""
    found: dict[str, list[float]] = {}
    for trace in traces:
        for each in trace.attempt_scores if trace.error is None else ():
            if not each.failed and np.isfinite(each.value):
                found.setdefault(each.name, []).append(each.value)
    return {f"score.{name}": float(np.mean(values)) for name, values in found.items()} if len(found) > 1 else {}


def _reward(trace: Trace, name: str | None) -> tuple[float | None, str]:
    """The reward of a rollout, or None and the reason."""
    if trace.error is not None:
        return None, f"rollout {trace.task_id} failed with {trace.error.kind}: {trace.error.message}"
    found = trace.score(name) if name is not None else next(iter(trace.attempt_scores), None)
    if found is None:
        given = ", ".join(score.name for score in trace.attempt_scores) or "none"
        return None, f"rollout {trace.task_id} has no score {name or ''!r}: its scores are {given}"
    if found.failed:
        return None, f"the reward {found.name} of {trace.task_id} failed with {found.failure}"
    if not np.isfinite(found.value):
        return None, f"the reward {found.name} of {trace.task_id} is {found.value}: a finite number was expected"
    return _rewarded(found), ""


def _rewarded(score: Score) -> float:
    """The value that training raises: the score's, or of harm its negative."""
    return -float(score.value) if score.is_harm else float(score.value)


def _was_cut(trace: Trace) -> bool:
    """True if an answer ended at max_tokens."""
    return any("length" in call.detail.get("finish_reasons", ()) for call in trace.calls if call.kind == "generate")


def _episodes(trace: Trace, reward: float, group: str, agents: Mapping[str, str | None]) -> list[Episode]:
    samples = list(trace.samples())
    times = Counter(node for sample in samples for node, _, _ in sample.spans)
    if not agents:
        return [_episode(trace, sample, times, reward, group) for sample in samples]
    made = []
    for sample in samples:
        for agent, score in agents.items():
            spans = tuple(span for span in sample.spans if _adapter(trace, span[0]) == agent)
            if spans:
                own = _reward_of_part(trace, sample, score, reward)
                episode = _episode(trace, replace(sample, spans=spans), times, own, f"{group}/{agent}")
                made.append(replace(episode, adapter=agent))
    return made


def _adapter(trace: Trace, node: int) -> str:
    sampled = trace.nodes[node].message.sampled
    return "" if sampled is None else sampled.adapter


def _reward_of_part(trace: Trace, sample: TrainingSample, name: str | None, whole: float) -> float:
    """An agent's reward in a branch: the mean of the named scores at its messages, else the attempt's score of that name."""
    if name is None:
        return whole
    at_nodes = [_rewarded(each) for each in sample.scores if each.name == name and not each.failed]
    if at_nodes and np.isfinite(at_nodes).all():
        return float(np.mean(at_nodes))
    reward, why = _reward(trace, name)
    if reward is None:
        raise _NoReward(why)
    return reward


def _episode(trace: Trace, sample: TrainingSample, times: Counter[int], reward: float, group: str) -> Episode:
    if sample.behaviour_logprobs is None:
        raise ModelError(
            f"trace {trace.id} has no log-probs of the distribution that was sampled: "
            f"{trace.agent.get('model', 'its model')} does not report them, so train on rollouts of a local model"
        )
    mask: Floats = np.zeros(len(sample.token_ids))
    for node, start, stop in sample.spans:
        mask[start:stop] = 1 / times[node]
    return Episode(
        ids=np.array(sample.token_ids, dtype=np.int32),
        mask=mask,
        own=np.array(sample.logprobs),
        behaviour=np.array(sample.behaviour_logprobs),
        reward=reward,
        group=group,
        source=trace.id,
    )
