"""Preference learning: opens the model and its comparisons, joins a pair loss to `fit`, and saves what it trained."""

# P pairs, S streams of comparisons

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from firsthand.errors import ConfigError, DataError
from firsthand.hub import model_lookup
from firsthand.message import Json
from firsthand.nn import weights
from firsthand.nn.decoder import Decoder
from firsthand.system.plurals import count_of
from firsthand.tokens import pretrained
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.train.agent_heads import value_head
from firsthand.train.bits_per_byte import mean_loss
from firsthand.train.data_order import StreamBatches, split
from firsthand.train.objective import Comparisons, Objective
from firsthand.train.preference_data import Kind, mismatched, prompt_of, read_comparisons
from firsthand.train.preference_settings import PreferenceConfig
from firsthand.train.processes import from_all, is_first
from firsthand.train.reference_policy import ReferencePolicy
from firsthand.train.reward_scores import RewardModel
from firsthand.train.stream_logprobs import stream_logprobs
from firsthand.train.streams import Stream
from firsthand.train.training_run import TrainingRun

EVALUATIONS = 10
"""Evaluations on the held-out comparisons, spread over a run."""


class PairNumbers(NamedTuple):
    """Log-probs of chosen and rejected answers, pair by pair; all P."""

    chosen: Tensor
    rejected: Tensor
    chosen_reference: Tensor
    rejected_reference: Tensor
    chosen_length: Tensor
    rejected_length: Tensor

    @property
    def ratios(self) -> tuple[Tensor, Tensor]:
        """log(pi / ref) of whole answers, chosen and rejected."""
        return self.chosen - self.chosen_reference, self.rejected - self.rejected_reference

    @property
    def mean_ratios(self) -> tuple[Tensor, Tensor]:
        """log(pi / ref) per token of the answers, chosen and rejected."""
        chosen, rejected = self.ratios
        return chosen / self.chosen_length, rejected / self.rejected_length

    @property
    def means(self) -> tuple[Tensor, Tensor]:
        """Mean log-probs of the answers' tokens, chosen and rejected."""
        return self.chosen / self.chosen_length, self.rejected / self.rejected_length


def in_pairs(found: Comparisons) -> PairNumbers:
    """Chosen and rejected answers by pair. DataError unless each comparison has one of both."""
    is_chosen_S = found.label > 0
    order_chosen, order_rejected = (
        torch.nonzero(is_S).squeeze(1)[found.pair[is_S].argsort()] for is_S in (is_chosen_S, ~is_chosen_S)
    )
    if not torch.equal(found.pair[order_chosen], found.pair[order_rejected]):
        raise DataError(
            "a comparison has not one chosen and one rejected answer: give lines with `chosen` and `rejected`"
        )
    return PairNumbers(
        *(
            each_S[order]
            for each_S in (found.logprob, found.reference, found.length)
            for order in (order_chosen, order_rejected)
        )
    )


PairLoss = Callable[[PairNumbers], Tensor]
Rewards = Callable[[PairNumbers], tuple[Tensor, Tensor]]
"""The rewards that a loss compares: of the chosen and of the rejected answers, each of shape (pairs,), in nats."""


class WatchedPairLoss:
    """A pair loss that keeps what it saw since it was last asked, for the metrics.

    A pair is in order if `rewards`, which the loss compares, are higher for the chosen answer. Log-ratios are told only with
    a reference, without one mean log-probs per token.
    """

    def __init__(self, loss: PairLoss, rewards: Rewards = lambda pairs: pairs.ratios, *, has_reference: bool = True):
        self.loss, self.rewards, self.has_reference = loss, rewards, has_reference
        self._rows: list[Tensor] = []

    def __call__(self, found: Comparisons) -> Tensor:
        """The loss of each pair."""
        pairs = in_pairs(found)
        chosen, rejected = self.rewards(pairs)
        numbers = pairs.ratios if self.has_reference else pairs.means
        told = torch.stack([*numbers, (chosen > rejected).to(chosen.dtype), pairs.chosen], dim=1)
        self._rows.append(told.detach())
        return self.loss(pairs)

    def metrics(self, step: int) -> dict[str, float]:
        """Mean log-ratios to the reference, or log-probs, of chosen and rejected answers, the share in order, and more."""
        told = "log_ratio" if self.has_reference else "mean_logprob"
        names = (f"chosen_{told}", f"rejected_{told}", "pair_accuracy", "chosen_logprob")
        rows = from_all(self._rows)  # a process has seen its own pairs alone
        means = torch.cat(rows).mean(0).tolist() if rows else []
        self._rows.clear()
        return dict(zip(names, means, strict=False))


def train_preferences(
    run: TrainingRun,
    config: PreferenceConfig,
    loss: PairLoss,
    rewards: Rewards = lambda pairs: pairs.ratios,
    *,
    needs_reference: bool = True,
) -> Path:
    """Train on pairs of a JSONL file; returns the folder of the trained model.

    `rewards` are what the loss compares. With `needs_reference` the log-probs of the model before training are computed
    first.
    """
    path, model, examples, held_out = opened(run, config, "pair", has_reference=needs_reference)
    if needs_reference:
        examples, held_out = (
            with_references(model, each, run.loop.micro_tokens, run.dtype) for each in (examples, held_out)
        )
    watched = WatchedPairLoss(loss, rewards, has_reference=needs_reference)
    batches = StreamBatches(examples, config.comparisons.batch_size, seed=run.loop.seed)
    unseen = [each for example in held_out for each in example]

    def evaluate(step: int) -> dict[str, float]:
        found = watched.metrics(step)
        if unseen and _is_evaluated(step, run.loop.steps):
            asked = WatchedPairLoss(loss, rewards, has_reference=needs_reference)
            found["held_out_loss"] = held_out_loss(run, model, unseen, asked)
            found["held_out_pair_accuracy"] = asked.metrics(step)["pair_accuracy"]
        return found

    run.fit(
        model, batches, objective=Objective(pair=1.0, pair_loss=watched), optimizer=config.optimizer,
        schedule=config.schedule, evaluate=evaluate,
    )  # fmt: skip
    return run.save(model, pretrained.load(path), base=path, adapter=config.adapter, named=config.comparisons.model)


def _is_evaluated(step: int, steps: int) -> bool:
    """True for about `EVALUATIONS` steps of a run, the last among them."""
    return step == steps or not step % max(1, steps // EVALUATIONS)


def held_out_loss(
    run: TrainingRun, model: Decoder, streams: Sequence[Stream], loss: Callable[[Comparisons], Tensor]
) -> float:
    """The mean loss of comparisons that are not trained on."""
    objective = Objective(pair=1.0, pair_loss=loss)
    return mean_loss(model, streams, objective, micro_tokens=run.loop.micro_tokens, dtype=run.dtype)


class OpenedComparisons(NamedTuple):
    """The model's path, the model, and the comparisons to train on and those held out."""

    path: Path
    model: Decoder
    examples: list[list[Stream]]
    held_out: list[list[Stream]]


def opened(run: TrainingRun, config: PreferenceConfig, *kinds: Kind, has_reference: bool = False) -> OpenedComparisons:
    """Open the model and its comparisons, and print their numbers. DataError for a line that is not of these kinds."""
    run.expect_steps()
    if not config.data:
        raise ConfigError("give a JSONL file of comparisons, as in `firsthand train dpo pairs.jsonl --model MODEL`")
    path = model_lookup.resolve(config.comparisons.model)
    tokenizer, context = pretrained.load(path), weights.open_checkpoint(path).architecture.max_position
    chat = ChatTemplate(tokenizer, tokenizer.chat_template)
    found, num_skipped, num_undecided = read_comparisons(
        Path(config.data), tokenizer, chat, context=context, too_long=config.comparisons.too_long, kinds=kinds
    )
    places, held = split(
        range(len(found)), config.comparisons.holdout, seed=run.loop.seed, key=lambda at: prompt_of(found[at][0])
    )
    print(
        count_of(len(found), "comparison", ",")
        + (f"; {num_skipped} longer than the context, or alike within it, and left out" if num_skipped else "")
        + (f"; {num_undecided} without a preference and left out" if num_undecided else "")
        + (f"; {len(held)} held out" if held else "")
    )
    model = run.prepared(path, config.adapter, has_reference=has_reference)
    return OpenedComparisons(path, model, [found[at] for at in places], [found[at] for at in held])


def with_references(
    model: Decoder, examples: Sequence[Sequence[Stream]], micro_tokens: int, dtype: torch.dtype = torch.float32
) -> list[list[Stream]]:
    """The streams with the log-probs of the model as it is, in the arithmetic of the passes to come."""
    every = [each for example in examples for each in example]
    numbers = iter(stream_logprobs(model, every, micro_tokens=micro_tokens, dtype=dtype))
    return [
        [replace(each, reference=next(numbers).logprobs.astype(np.float32)) for each in example] for example in examples
    ]


@dataclass
class KtoBatches:
    """Batches of single answers whose references hold KTO's baseline z0, an estimate of KL(pi || ref) with current weights.

    Both sides of the loss read log(pi / ref) - z0, so z0 is added to the reference's log-prob of the last token: one
    number for the whole batch, whatever its micro-batches. It is 0 for a batch in which all rows have one prompt, or
    no answer fits the context after another prompt.
    """

    batches: StreamBatches
    model: Decoder
    before: ReferencePolicy
    micro_tokens: int
    dtype: torch.dtype = torch.float32
    baseline: float = 0.0
    """z0 of the last batch."""

    def __iter__(self) -> Iterator[list[Stream]]:
        """Yields the streams of each step."""
        for rows in self.batches:
            raised, self.baseline = self.raised(rows)
            yield raised

    def raised(self, rows: Sequence[Stream]) -> tuple[list[Stream], float]:
        """The streams with z0 in their references, and z0."""
        others = mismatched(rows, context=self.model.architecture.max_position)
        baseline = max(0.0, self._mean_ratio(others)) if others else 0.0
        return [replace(row, reference=_raised(row, baseline)) for row in rows], baseline

    def _mean_ratio(self, others: Sequence[Stream]) -> float:
        """The mean log(pi / ref) of these answers."""
        numbers = partial(stream_logprobs, streams=others, micro_tokens=self.micro_tokens, dtype=self.dtype)
        now = numbers(self.model)
        with self.before.there() as reference:
            before = numbers(reference)
        ratios = [
            float(((a.logprobs - b.logprobs) * other.ce).sum())
            for a, b, other in zip(now, before, others, strict=True)
            if other.ce is not None
        ]
        return float(np.mean(ratios))

    def state(self) -> Json:
        """The position of the batches."""
        return self.batches.state()

    def load(self, state: Json) -> None:
        """Continue from a position."""
        self.batches.load(state)


def _raised(row: Stream, by: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    assert row.reference is not None and row.ce is not None
    last = int(np.flatnonzero(row.ce)[-1])
    raised = row.reference.copy()
    raised[last] += by / row.ce[last]
    return raised


def train_kto(run: TrainingRun, config: PreferenceConfig, loss: Callable[[Comparisons], Tensor]) -> Path:
    """Train on single answers that are desirable or not; returns the folder of the trained model."""
    path, model, *opened_parts = opened(run, config, "pair", "single", has_reference=True)
    # a pair is one desirable and one undesirable answer
    examples, held_out = ([[each] for example in part for each in example] for part in opened_parts)
    if len({prompt_of(each) for (each,) in examples}) < 2:
        raise DataError(
            f"all answers of {config.data} have one prompt, and KTO's baseline needs answers to others: give two or more"
        )
    before = ReferencePolicy(model, is_fresh=config.adapter.begin_with is None)
    with before.there() as reference:
        examples, held_out = (
            with_references(reference, each, run.loop.micro_tokens, run.dtype) for each in (examples, held_out)
        )
    inner = StreamBatches(examples, config.comparisons.batch_size, seed=run.loop.seed)
    batches = KtoBatches(inner, model, before, run.loop.micro_tokens, run.dtype)
    unseen = [replace(each, pair=at) for at, (each,) in enumerate(held_out)]

    def evaluate(step: int) -> dict[str, float]:
        found = {"kto_baseline": batches.baseline}
        if unseen and _is_evaluated(step, run.loop.steps):
            found["held_out_loss"] = held_out_loss(run, model, batches.raised(unseen)[0], loss)
        return found

    run.fit(
        model, batches, objective=Objective(pair=1.0, pair_loss=loss), optimizer=config.optimizer,
        schedule=config.schedule, evaluate=evaluate,
    )  # fmt: skip
    return run.save(model, pretrained.load(path), base=path, adapter=config.adapter, named=config.comparisons.model)


def train_reward_model(
    run: TrainingRun, config: PreferenceConfig, loss: Callable[[Comparisons], Tensor]
) -> tuple[Path, float | None]:
    """Train a reward model on ranked answers; returns its folder, and the share of held-out pairs it orders right.

    Scores are shifted so that the best answers of the training data have mean 0 (InstructGPT, section 3.5).
    DataError for answers that are judged alone.
    """
    path, model, examples, held_out = opened(run, config, "pair", "ranking")
    head = value_head(model)
    batches = StreamBatches(examples, config.comparisons.batch_size, seed=run.loop.seed)
    run.fit(
        model, batches, objective=Objective(pair=1.0, pair_loss=loss), optimizer=config.optimizer,
        schedule=config.schedule, values=head,
    )  # fmt: skip
    trained = RewardModel(model.eval(), head)
    trained.mean = float(np.mean(trained.scores([example[0].ids for example in examples])))
    folder = run.save(model, pretrained.load(path), base=path, adapter=config.adapter, named=config.comparisons.model)
    if is_first():
        trained.save_head(folder)
    return folder, ordered_right(trained, held_out) if held_out else None


def ordered_right(trained: RewardModel, examples: Sequence[Sequence[Stream]]) -> float:
    """The share of pairs of answers, the better first, that a reward model orders right."""
    scored = iter(trained.scores([each.ids for example in examples for each in example]))
    rows = [[next(scored) for _ in example] for example in examples]
    return float(np.mean([a > b for row in rows for at, a in enumerate(row) for b in row[at + 1 :]]))
