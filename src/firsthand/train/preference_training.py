"""Preference learning: opens the model and its comparisons, joins a pair loss to `fit`, and saves what it trained."""

# P pairs, S streams of comparisons

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from firsthand.errors import ConfigError, DataError
from firsthand.message import Json
from firsthand.nn import weights
from firsthand.nn.decoder import Decoder
from firsthand.tokens import pretrained
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.train.data_order import StreamBatches
from firsthand.train.fit import MetricSink, Saver, fit
from firsthand.train.objective import Comparisons, Objective
from firsthand.train.optimizers import optimizer_for
from firsthand.train.preference_data import mismatched, read_comparisons
from firsthand.train.preference_settings import PreferenceSettings
from firsthand.train.reinforcement import model_folder, save_beside, value_head
from firsthand.train.reward_scores import RewardModel
from firsthand.train.stream_logprobs import stream_logprobs
from firsthand.train.streams import Stream


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


class PairMetrics:
    """A pair loss that keeps what it saw, and adds it to the metrics of `fit`."""

    def __init__(self, loss: PairLoss, track: MetricSink | None):
        self.loss, self.track = loss, track
        self._rows: list[Tensor] = []

    def __call__(self, found: Comparisons) -> Tensor:
        """The loss of each pair."""
        pairs = in_pairs(found)
        chosen, rejected = (each.detach() for each in pairs.ratios)
        told = [chosen, rejected, (chosen > rejected).to(chosen.dtype), pairs.chosen.detach()]
        self._rows.append(torch.stack(told, dim=1))
        return self.loss(pairs)

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Log everything together."""
        names = ("chosen_log_ratio", "rejected_log_ratio", "pair_accuracy", "chosen_logprob")
        means = torch.cat(self._rows).mean(0).tolist() if self._rows else []
        self._rows.clear()
        if self.track is not None:
            self.track.log({**metrics, **dict(zip(names, means, strict=False))}, step=step)


def train_preferences(
    data: str, training: PreferenceSettings, loss: PairLoss, *, recipe: str, needs_reference: bool = True,
    track: MetricSink | None = None, checkpoint: Saver | None = None,
) -> Path:  # fmt: skip
    """Train on pairs of a JSONL file; returns the folder of the trained model.

    With `needs_reference` the log-probs of the model before training are computed first.
    """
    path, model, examples = opened(data, training)
    if needs_reference:
        examples = with_references(model, examples, training.micro_tokens)
    watched = PairMetrics(loss, track)
    batches = StreamBatches(examples, training.batch_size, seed=training.seed)
    _fit(model, batches, Objective(pair=1.0, pair_loss=watched), training, watched, checkpoint)
    return save_beside(model, path, training.out or path.with_name(f"{path.name}-{recipe}"))


def opened(data: str, training: PreferenceSettings) -> tuple[Path, Decoder, list[list[Stream]]]:
    """The model's folder, the model, and the comparisons to train on."""
    if not data or not training.model:
        raise ConfigError("give a JSONL file of comparisons and --model MODEL, a folder with float weights")
    path = model_folder(training.model)
    torch.manual_seed(training.seed)
    model = weights.load(path).to(training.device)
    tokenizer, context = pretrained.load(path), model.architecture.max_position
    chat = ChatTemplate(tokenizer, tokenizer.chat_template, max_tokens=context)
    examples, _ = read_comparisons(Path(data), tokenizer, chat, context=context, too_long=training.too_long)
    if training.held_out >= len(examples):
        raise ConfigError(f"held_out is {training.held_out}, and {data} has {len(examples)} comparisons")
    return path, model, examples


def with_references(model: Decoder, examples: Sequence[Sequence[Stream]], micro_tokens: int) -> list[list[Stream]]:
    """The streams with the log-probs of the model as it is."""
    numbers = iter(
        stream_logprobs(model, [each for example in examples for each in example], micro_tokens=micro_tokens)
    )
    return [[replace(each, reference=next(numbers).logprobs) for each in example] for example in examples]


def _fit(
    model: Decoder, batches: StreamBatches | KtoBatches, objective: Objective, training: PreferenceSettings,
    track: MetricSink | None, checkpoint: Saver | None, head: nn.Module | None = None,
) -> None:  # fmt: skip
    whole = model if head is None else nn.ModuleDict({"model": model, "values": head})
    fit(
        model, batches, objective=objective, optimizer=optimizer_for(whole, training), values=head,
        schedule=training.over(training.steps), steps=training.steps, track=track, checkpoint=checkpoint,
        micro_tokens=training.micro_tokens, clip_norm=training.clip_norm, dtype=getattr(torch, training.dtype),
    )  # fmt: skip


@dataclass
class KtoBatches:
    """Batches of single answers whose references hold KTO's baseline z0, an estimate of KL(pi || ref) with current weights.

    Both sides of the loss read log(pi / ref) - z0, so z0 is added to the reference's log-prob of the last token: one
    number for the whole batch, whatever its micro-batches.
    """

    batches: StreamBatches
    model: Decoder
    before: Decoder
    micro_tokens: int

    def __iter__(self) -> Iterator[list[Stream]]:
        """Yields the streams of each step."""
        for rows in self.batches:
            others = mismatched(rows)
            now, before = (
                stream_logprobs(each, others, micro_tokens=self.micro_tokens) for each in (self.model, self.before)
            )
            ratios = [
                float(((a.logprobs - b.logprobs) * other.ce).sum())
                for a, b, other in zip(now, before, others, strict=True)
                if other.ce is not None
            ]
            z0 = max(0.0, float(np.mean(ratios)))
            yield [replace(row, reference=_raised(row, z0)) for row in rows]

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


def train_kto(
    data: str, training: PreferenceSettings, loss: Callable[[Comparisons], Tensor], *,
    track: MetricSink | None = None, checkpoint: Saver | None = None,
) -> Path:  # fmt: skip
    """Train on single answers that are desirable or not; returns the folder of the trained model."""
    path, model, examples = opened(data, training)
    if any(len(example) > 1 for example in examples):  # a pair is one desirable and one undesirable answer
        alone = [each for example in examples for each in example]
        examples = [[replace(each, pair=index)] for index, each in enumerate(alone)]
    before = copy.deepcopy(model).eval()
    examples = with_references(before, examples, training.micro_tokens)
    inner = StreamBatches(examples, training.batch_size, seed=training.seed)
    batches = KtoBatches(inner, model, before, training.micro_tokens)
    _fit(model, batches, Objective(pair=1.0, pair_loss=loss), training, track, checkpoint)
    return save_beside(model, path, training.out or path.with_name(f"{path.name}-kto"))


def train_reward_model(
    data: str, training: PreferenceSettings, loss: Callable[[Comparisons], Tensor], *,
    track: MetricSink | None = None, checkpoint: Saver | None = None,
) -> tuple[Path, float | None]:  # fmt: skip
    """Train a reward model on ranked answers; returns its folder, and the share of held-out pairs it orders right.

    Scores are shifted so that the first answers of the training data have mean 0 (InstructGPT, section 3.5).
    """
    path, model, examples = opened(data, training)
    kept = len(examples) - training.held_out
    head = value_head(model)
    batches = StreamBatches(examples[:kept], training.batch_size, seed=training.seed)
    _fit(model, batches, Objective(pair=1.0, pair_loss=loss), training, track, checkpoint, head)
    reward_model = RewardModel(model.eval(), head)
    reward_model.mean = float(np.mean(reward_model.scores([example[0].ids for example in examples[:kept]])))
    folder = save_beside(model, path, training.out or path.with_name(f"{path.name}-reward"))
    accuracy = None
    if training.held_out:
        scored = iter(reward_model.scores([each.ids for example in examples[kept:] for each in example]))
        rows = [[next(scored) for _ in example] for example in examples[kept:]]
        accuracy = float(np.mean([a > b for row in rows for at, a in enumerate(row) for b in row[at + 1 :]]))
    return reward_model.save(folder), accuracy
