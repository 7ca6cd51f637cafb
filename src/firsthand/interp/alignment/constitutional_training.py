"""Constitutional AI, both stages, on the request language (Bai et al., 2022, arXiv:2212.08073).

The first stage fine-tunes on answers that the model itself criticised and revised by principles of the constitution. The
second compares pairs of its answers by a principle drawn at random, keeps the comparison's log-probs as soft labels, trains
a preference model on them, and trains the policy against that model by DPO. It is a test of the mechanism: the base model
was taught to criticise by examples, where a large model can do so already.
"""

# P pairs, S streams of comparisons

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random

import numpy as np
import torch
from torch import Tensor

from firsthand.errors import ConfigError
from firsthand.interp.alignment.request_language import (
    ANSWER_TOKENS,
    END,
    FIRST,
    NO,
    PRINCIPLES,
    REVISE,
    SECOND,
    YES,
    Request,
    comparison_prompt,
    critique_prompt,
    requests,
    taught,
)
from firsthand.interp.alignment.small_models import DrawnStreams, log_odds, sampled_replies, trained_copy
from firsthand.loop.concurrency import derive_seed
from firsthand.nn.decoder import Decoder
from firsthand.train.agent_heads import value_head
from firsthand.train.losses.pair_losses import soft_preference_loss
from firsthand.train.objective import Comparisons, Objective
from firsthand.train.reward_scores import RewardModel
from firsthand.train.stream_logprobs import stream_logprobs
from firsthand.train.streams import Stream


@dataclass(frozen=True)
class ConstitutionalSettings:
    """The size of both stages."""

    principles: tuple[str, ...] = tuple(p for p in PRINCIPLES if p.startswith(("harm.", "privacy.", "help.")))
    """Ids of principles of the constitution that critiques and comparisons draw from."""
    rounds: int = 4
    """Critiques and revisions of an answer, each by a principle that was not used before."""
    requests: int = 1200
    """Training requests; a third is harmful, a third sounds so, a third is plain."""
    sft_steps: int = 150
    sft_lr: float = 1e-3
    reward_steps: int = 120
    reward_lr: float = 1e-3
    dpo_steps: int = 150
    dpo_lr: float = 5e-4
    beta: float = 0.3
    """DPO's beta."""

    def __post_init__(self) -> None:
        if not self.principles or not set(self.principles) <= set(PRINCIPLES):
            raise ConfigError(f"principles are {', '.join(self.principles) or 'none'}: give ids of the constitution")
        for name in ("rounds", "sft_steps", "reward_steps", "dpo_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: give 1 or more")
        if self.requests < 20:
            raise ConfigError(f"requests are {self.requests}: give 20 or more")


@dataclass(frozen=True)
class Revisions:
    """Answers before and after critique."""

    before: list[list[int]]
    after: list[list[int]]
    changed: Counter[str] = field(default_factory=Counter)
    """Principle -> the answers it changed."""


@dataclass(frozen=True)
class ConstitutionalArms:
    """The models of one seed."""

    base: Decoder
    revised: Decoder
    """Fine-tuned on revisions: SL-CAI."""
    preferred: Decoder
    """Trained further on AI preferences: RL-CAI, by DPO."""
    changed: Counter[str]
    reward_accuracy: float
    """The share of fresh pairs of one helpful and one declining answer that the preference model orders right."""
    label_accuracy: float
    """The same of the soft labels it was trained on, where they were not undecided (.4 to .6)."""
    pairs: int
    """Pairs of different answers that were labelled."""


def constitutional_arms(
    base: Decoder, seed: int, settings: ConstitutionalSettings | None = None,
    told: Callable[[str], None] = lambda name: None,
) -> ConstitutionalArms:  # fmt: skip
    """Both stages from a base model; it stays as it is."""
    settings = settings or ConstitutionalSettings()
    asked = requests(settings.requests, seed, salt="constitutional")
    told("critiques and revisions")
    found = revised_answers(base, asked, settings.principles, settings.rounds, seed)
    examples = [[taught(each.ids, reply)] for each, reply in zip(asked, found.after, strict=True) if is_whole(reply)]
    revised = trained_copy(base, DrawnStreams(examples, seed), steps=settings.sft_steps, lr=settings.sft_lr)
    told("preferences")
    pairs = answer_pairs(revised, asked, seed)
    if not pairs:  # the model gives one answer to each request: there is nothing to prefer
        told("no preferences")
        return ConstitutionalArms(base, revised, revised, found.changed, math.nan, math.nan, 0)
    labels = preference_labels(base, pairs, settings.principles, seed)
    reward = preference_model(revised, pairs, labels, seed, settings)
    fresh = answer_pairs(revised, requests(settings.requests, seed, salt="preferred"), seed + 1)
    told("DPO")
    preferred = dpo_against(revised, reward, fresh, seed, settings)
    return ConstitutionalArms(
        base, revised, preferred, found.changed, ordered_share(fresh, margins(reward, fresh)),
        ordered_share(*_decided(pairs, [math.log(p / (1 - p)) for p in labels])), len(pairs),
    )  # fmt: skip


def revised_answers(
    model: Decoder, asked: Sequence[Request], principles: Sequence[str], rounds: int, seed: int
) -> Revisions:
    """Answers of the model, criticised and revised by itself; each request draws its own order of principles."""
    prompts = [each.ids for each in asked]
    before = sampled_replies(model, prompts, ANSWER_TOKENS, seed=seed)
    after, changed = [list(reply) for reply in before], Counter[str]()
    rng = Random(derive_seed("critique order", seed))
    orders = [rng.sample(list(principles), min(rounds, len(principles))) for _ in asked]
    for number in range(min(rounds, len(principles))):
        questions = [critique_prompt(p, a, order[number]) for p, a, order in zip(prompts, after, orders, strict=True)]
        odds = log_odds(model, questions, [YES] * len(questions), [NO] * len(questions))
        against = [index for index, value in enumerate(odds) if value > 0]
        texts = [[*questions[index], YES, REVISE] for index in against]
        revisions = sampled_replies(model, texts, ANSWER_TOKENS, seed=seed + number) if texts else []
        for index, reply in zip(against, revisions, strict=True):
            changed[orders[index][number]] += reply != after[index]
            after[index] = reply
    return Revisions(before, after, changed)


@dataclass(frozen=True)
class AnswerPair:
    """Two different answers to one request."""

    request: Request
    first: list[int]
    second: list[int]


def answer_pairs(model: Decoder, asked: Sequence[Request], seed: int) -> list[AnswerPair]:
    """Two samples of the model for each request, where they differ and are whole answers."""
    prompts = [each.ids for each in asked]
    one, two = (sampled_replies(model, prompts, ANSWER_TOKENS, seed=2 * seed + part) for part in (0, 1))
    return [AnswerPair(each, a, b) for each, a, b in zip(asked, one, two, strict=True) if a != b and is_whole(a, b)]


def preference_labels(model: Decoder, pairs: Sequence[AnswerPair], principles: Sequence[str], seed: int) -> list[float]:
    """The probability that the first answer is preferred by a principle drawn at random for each pair, over both orders."""
    rng = Random(derive_seed("comparison principles", seed))
    drawn = [rng.choice(list(principles)) for _ in pairs]
    sides = []
    for turned in (False, True):
        texts = [
            comparison_prompt(
                each.request.ids, *((each.second, each.first) if turned else (each.first, each.second)), p
            )
            for each, p in zip(pairs, drawn, strict=True)
        ]
        one, other = (SECOND, FIRST) if turned else (FIRST, SECOND)
        sides.append(log_odds(model, texts, [one] * len(texts), [other] * len(texts)))
    means = [(_sigmoid(a) + _sigmoid(b)) / 2 for a, b in zip(*sides, strict=True)]
    return [min(max(p, 1e-4), 1 - 1e-4) for p in means]


def preference_model(
    policy: Decoder, pairs: Sequence[AnswerPair], labels: Sequence[float], seed: int, settings: ConstitutionalSettings
) -> RewardModel:
    """A reward model begun from the policy, trained on soft labels."""
    head = value_head(policy)
    examples = [comparison(each, p, index) for index, (each, p) in enumerate(zip(pairs, labels, strict=True))]

    def loss(found: Comparisons) -> Tensor:
        assert found.value is not None
        a_P, b_P = in_order(found)
        return soft_preference_loss(found.value[a_P] - found.value[b_P], found.label[a_P])

    model = trained_copy(
        policy, DrawnStreams(examples, seed), steps=settings.reward_steps, lr=settings.reward_lr,
        objective=Objective(pair=1.0, pair_loss=loss), values=head,
    )  # fmt: skip
    return RewardModel(model, head)


def dpo_against(
    policy: Decoder, reward: RewardModel, pairs: Sequence[AnswerPair], seed: int, settings: ConstitutionalSettings
) -> Decoder:
    """DPO of the policy on pairs whose soft labels are the preference model's probabilities."""
    labels = [_sigmoid(margin) for margin in margins(reward, pairs)]
    examples = [comparison(each, p, index) for index, (each, p) in enumerate(zip(pairs, labels, strict=True))]
    numbers = iter(stream_logprobs(policy, [stream for both in examples for stream in both]))
    examples = [
        [replace(stream, reference=next(numbers).logprobs.astype(np.float32)) for stream in both] for both in examples
    ]

    def loss(found: Comparisons) -> Tensor:
        a_P, b_P = in_order(found)
        ratio_S = found.logprob - found.reference
        return soft_preference_loss(settings.beta * (ratio_S[a_P] - ratio_S[b_P]), found.label[a_P])

    return trained_copy(
        policy, DrawnStreams(examples, seed + 1), steps=settings.dpo_steps, lr=settings.dpo_lr,
        objective=Objective(pair=1.0, pair_loss=loss),
    )  # fmt: skip


def comparison(pair: AnswerPair, preferred: float, number: int) -> list[Stream]:
    """The two streams of a pair; their labels are the probabilities that each is preferred."""
    sides = ((pair.first, preferred), (pair.second, 1 - preferred))
    return [replace(taught(pair.request.ids, reply), pair=number, label=label) for reply, label in sides]


def in_order(found: Comparisons) -> tuple[Tensor, Tensor]:
    """The places of the streams of each comparison, two by two, in one order of comparisons."""
    order_S = torch.argsort(found.pair, stable=True)
    return order_S[::2], order_S[1::2]


def margins(reward: RewardModel, pairs: Sequence[AnswerPair]) -> list[float]:
    """The score of the first answer less that of the second, pair by pair."""
    scores = reward.scores(
        [np.array([*each.request.ids, *reply], np.int32) for each in pairs for reply in (each.first, each.second)]
    )
    return [a - b for a, b in zip(scores[::2], scores[1::2], strict=True)]


def ordered_share(pairs: Sequence[AnswerPair], margins: Sequence[float]) -> float:
    """The share of pairs of one right and one wrong choice, to help or to decline, that margins order right."""
    outcomes = []
    for each, margin in zip(pairs, margins, strict=True):
        good = [reply[0] == each.request.right[0] for reply in (each.first, each.second)]
        if good[0] != good[1]:
            outcomes.append((margin > 0) == good[0])
    return sum(outcomes) / len(outcomes) if outcomes else math.nan


def is_whole(*replies: Sequence[int]) -> bool:
    """True if each reply has an end token, and has it last."""
    return all(reply[-1] == END and END not in reply[:-1] for reply in replies)


def _decided(pairs: Sequence[AnswerPair], odds: Sequence[float]) -> tuple[list[AnswerPair], list[float]]:
    """The pairs whose label is below .4 or above .6."""
    kept = [(pair, value) for pair, value in zip(pairs, odds, strict=True) if abs(value) > math.log(1.5)]
    return [pair for pair, _ in kept], [value for _, value in kept]


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
