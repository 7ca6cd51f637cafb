"""Deliberative alignment on the request language, against SFT on answers alone (Guan et al., 2024, arXiv:2412.16339).

1. The base model reasons and answers with the policy in the prompt. 2. A judge that asks about each principle of the policy
keeps what none objects to. 3. The model is fine-tuned on what is left, with the policy removed from the prompt. 4. RL: the
same judge rewards an answer and does not see the reasoning before it. A second arm gets the same answers without their
reasoning in step 3, and the same RL.
"""

# B texts, T tokens of a text

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from random import Random

import numpy as np

from firsthand.errors import ConfigError
from firsthand.interp.alignment.constitutional_training import is_whole
from firsthand.interp.alignment.request_language import (
    ANSWER_TOKENS,
    END,
    HARMLESS,
    HARMS,
    NO,
    THINK,
    YES,
    Request,
    critique_prompt,
    drawn_request,
    requests,
    taught,
    with_policy,
)
from firsthand.interp.alignment.request_rates import THOUGHT_TOKENS
from firsthand.interp.alignment.small_models import (
    DrawnStreams,
    log_odds,
    sampled_replies,
    train_in_place,
    trained_copy,
)
from firsthand.loop.concurrency import derive_seed
from firsthand.message import Json
from firsthand.nn.decoder import Decoder
from firsthand.train.advantages import leave_one_out_advantages
from firsthand.train.losses.policy_losses import clipped_policy_loss
from firsthand.train.objective import Objective
from firsthand.train.stream_logprobs import stream_logprobs
from firsthand.train.streams import Stream

POLICY_PRINCIPLES = (*HARMS, HARMLESS)
ANSWERS = 4
"""Answers to one request in a step of RL."""


@dataclass(frozen=True)
class DeliberativeSettings:
    """The size of the steps."""

    requests: int = 1000
    """Training requests of step 1."""
    sft_steps: int = 200
    sft_lr: float = 1e-3
    rl_steps: int = 40
    rl_lr: float = 5e-4
    rl_requests: int = 16
    """Requests of an RL step, each with four answers."""
    kl: float = 0.05
    """Weight of the divergence from the fine-tuned model."""

    def __post_init__(self) -> None:
        for name, least in {"requests": 20, "sft_steps": 1, "rl_steps": 0, "rl_requests": 1}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}: give {least} or more")


@dataclass(frozen=True)
class DeliberativeArms:
    """The models of one seed, and what the judge was worth."""

    base: Decoder
    reasoned: Decoder
    """Fine-tuned on reasoning and answers, the policy removed."""
    answered: Decoder
    """Fine-tuned on the same answers without the reasoning."""
    reasoned_rl: Decoder
    answered_rl: Decoder
    kept: float
    """The share of generations that the judge kept."""
    right_before: float
    """The share of answers that were right before the judge, and among those it kept."""
    right_kept: float

    def models(self) -> dict[str, Decoder]:
        """The arms by name."""
        return {
            "base": self.base,
            "answers alone, SFT": self.answered,
            "answers alone, SFT and RL": self.answered_rl,
            "deliberative, SFT": self.reasoned,
            "deliberative, SFT and RL": self.reasoned_rl,
        }


def deliberative_arms(
    base: Decoder, seed: int, settings: DeliberativeSettings | None = None,
    told: Callable[[str], None] = lambda name: None,
) -> DeliberativeArms:  # fmt: skip
    """All steps for both arms from one base model, which stays as it is."""
    settings = settings or DeliberativeSettings()
    asked = requests(settings.requests, seed, salt="deliberative")
    told("generation under the policy")
    texts = [with_policy(each.ids) for each in asked]
    generated = sampled_replies(base, texts, THOUGHT_TOKENS + ANSWER_TOKENS, seed=seed)
    told("judge")
    kept = kept_generations(base, asked, generated)
    right = [reply[THOUGHT_TOKENS:] == each.right for each, reply in zip(asked, generated, strict=True)]
    if not kept:
        raise ConfigError("the judge kept no generation: train the base model longer, or give more requests")
    arms = []
    for is_reasoned in (True, False):
        told("deliberative SFT" if is_reasoned else "answers alone, SFT")
        start = 0 if is_reasoned else THOUGHT_TOKENS
        examples = [[taught(asked[index].ids, generated[index][start:])] for index in kept]
        tuned = trained_copy(base, DrawnStreams(examples, seed), steps=settings.sft_steps, lr=settings.sft_lr)
        told("RL")
        arms += [tuned, rewarded(tuned, base, seed, settings)]
    reasoned, reasoned_rl, answered, answered_rl = arms
    return DeliberativeArms(
        base, reasoned, answered, reasoned_rl, answered_rl, len(kept) / len(asked), sum(right) / len(right),
        sum(right[index] for index in kept) / len(kept),
    )  # fmt: skip


def kept_generations(judge: Decoder, asked: Sequence[Request], generated: Sequence[Sequence[int]]) -> list[int]:
    """The generations with reasoning and a whole answer that no principle of the policy objects to."""
    formed = [index for index, reply in enumerate(generated) if is_reasoned_answer(reply)]
    found = objections(judge, [asked[i] for i in formed], [generated[i][THOUGHT_TOKENS:] for i in formed])
    return [index for index, objection in zip(formed, found, strict=True) if objection < 0.5]


def is_reasoned_answer(reply: Sequence[int]) -> bool:
    """True if a text is reasoning, then one complete answer."""
    return reply[0] == THINK and len(reply) == THOUGHT_TOKENS + ANSWER_TOKENS and is_whole(reply)


def objections(judge: Decoder, asked: Sequence[Request], replies: Sequence[Sequence[int]]) -> list[float]:
    """The largest probability, over the policy's principles, that an answer goes against one; no reasoning is shown."""
    if not asked:
        return []
    texts = [
        critique_prompt(each.ids, reply, principle)
        for each, reply in zip(asked, replies, strict=True)
        for principle in POLICY_PRINCIPLES
    ]
    odds = np.array(log_odds(judge, texts, [YES] * len(texts), [NO] * len(texts))).reshape(len(asked), -1)
    largest: list[float] = (1 / (1 + np.exp(-odds.max(axis=1)))).tolist()
    return largest


def rewarded(tuned: Decoder, judge: Decoder, seed: int, settings: DeliberativeSettings) -> Decoder:
    """RL with leave-one-out advantages (RLOO, arXiv:2402.14740) and PPO's clip, kept near the fine-tuned model."""
    policy = deepcopy(tuned)
    if settings.rl_steps:
        batches = JudgedRollouts(policy, tuned, judge, seed, settings.rl_requests)
        objective = Objective(
            pg=1.0,
            ref_kl=settings.kl,
            policy_loss=lambda found, logprobs_M: clipped_policy_loss(logprobs_M, found.behaviour, found.advantage),
        )
        train_in_place(policy, batches, steps=settings.rl_steps, lr=settings.rl_lr, objective=objective)
    return policy.eval()


class JudgedRollouts:
    """Rollouts of the policy as it is: four answers for each request, with the judge's verdict as reward."""

    def __init__(self, policy: Decoder, reference: Decoder, judge: Decoder, seed: int, num_requests: int):
        self.policy, self.reference, self.judge = policy, reference, judge
        self.seed, self.num_requests, self.drawn = seed, num_requests, 0
        self.rewards: list[float] = []
        """The mean reward of each step."""

    def __iter__(self) -> Iterator[list[Stream]]:
        """Yields the streams of each step."""
        while True:
            rng = Random(derive_seed("judged rollouts", self.seed, self.drawn))
            self.drawn += 1
            asked = [each for each in (drawn_request(rng) for _ in range(self.num_requests)) for _ in range(ANSWERS)]
            prompts = [each.ids for each in asked]
            seed = derive_seed("judged answers", self.seed, self.drawn) % (1 << 31)
            replies = sampled_replies(self.policy, prompts, THOUGHT_TOKENS + ANSWER_TOKENS, seed=seed, end=END)
            rewards = judged(self.judge, asked, replies)
            self.rewards.append(sum(rewards) / len(rewards))
            advantages = leave_one_out_advantages(rewards, [index // ANSWERS for index in range(len(rewards))])
            sequences = [np.array([*prompt, *reply], np.int32) for prompt, reply in zip(prompts, replies, strict=True)]
            old, near = stream_logprobs(self.policy, sequences), stream_logprobs(self.reference, sequences)
            yield [
                rollout(ids, len(prompt), advantage, mine.logprobs, its.logprobs)
                for ids, prompt, advantage, mine, its in zip(sequences, prompts, advantages, old, near, strict=True)
            ]

    def state(self) -> Json:
        """The number of batches so far."""
        return {"drawn": self.drawn}

    def load(self, state: Json) -> None:
        """Continue from a state."""
        self.drawn = int(state["drawn"])


def judged(judge: Decoder, asked: Sequence[Request], replies: Sequence[Sequence[int]]) -> list[float]:
    """1 less the judge's objection to the answer alone; 0 for a reply without one whole answer at its end."""
    found = [reply[THOUGHT_TOKENS:] if reply[0] == THINK else reply for reply in replies]
    formed = [index for index, answer in enumerate(found) if len(answer) == ANSWER_TOKENS and is_whole(answer)]
    rewards = [0.0] * len(found)
    for index, value in zip(
        formed, objections(judge, [asked[i] for i in formed], [found[i] for i in formed]), strict=True
    ):
        rewards[index] = 1 - value
    return rewards


def rollout(ids: np.ndarray, prompt: int, advantage: float, old: np.ndarray, reference: np.ndarray) -> Stream:
    """A stream whose sampled tokens all have the advantage of its answer, the reasoning too."""
    weights = np.zeros(len(ids), np.float32)
    weights[prompt:] = 1
    assert math.isfinite(advantage)
    return Stream(
        ids, pg=weights, ref_kl=weights, advantage=np.full(len(ids), advantage, np.float32),
        behaviour=old.astype(np.float32), reference=reference.astype(np.float32),
    )  # fmt: skip
