"""Distil a teacher into a smaller model: the student learns the teacher's distribution of each token of an answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from firsthand.errors import ConfigError
from firsthand.hub import model_lookup
from firsthand.train.recipe_settings import LoopSettings, OptimizerSettings
from firsthand.train.schedules import ScheduleSettings

if TYPE_CHECKING:
    from torch import Tensor

    from firsthand.nn.decoder import Decoder
    from firsthand.train.objective import SoftLoss
    from firsthand.train.streams import PackedStreams
    from firsthand.train.training_run import TrainingRun

EXAMPLES = """
firsthand train distill chats.jsonl --teacher big/model --model small/model
firsthand train distill chats.jsonl --teacher big/model --model small/model --divergence jsd --hard 0.1
"""


@dataclass(frozen=True)
class Config:
    """Conversations, teacher and student, which must have one tokenizer."""

    data: str = field(metadata={"positional": True})
    """A .jsonl file of conversations, as `firsthand train sft` reads them; the teacher is asked about their answers."""
    teacher: str = ""
    """The model to learn from: a name, a .gguf file or a folder."""
    model: str = ""
    """The student to begin with."""
    divergence: Literal["forward", "reverse", "jsd"] = "forward"
    """KL(teacher || student), KL(student || teacher), or the generalised Jensen-Shannon divergence between them."""
    beta: float = 0.5
    """Of jsd: the teacher's share of the mixture."""
    temperature: float = 1.0
    """Both distributions are softened by it."""
    hard: float = 0.0
    """Weight of the cross-entropy on the data's own tokens, beside 1 - hard for the divergence."""
    epochs: float = 3.0
    """Passes over the data, if `steps` is 0."""
    batch_size: int = 16
    """Conversations of a step."""
    context: int = 0
    """Longest conversation in tokens; 0 is the models' context."""
    holdout: float = 0.05
    """The fraction of conversations that is held out for the divergence."""
    eval_every: int = 50
    """Steps between evaluations on the held-out conversations; the last step has one."""
    optimizer: OptimizerSettings = field(default_factory=lambda: OptimizerSettings(lr=3e-4, weight_decay=0.0))
    schedule: ScheduleSettings = field(default_factory=lambda: ScheduleSettings(warmup_steps=-1))
    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=0))

    def __post_init__(self) -> None:
        for name, good, expected in (
            ("teacher", bool(self.teacher), "the model to learn from, as in --teacher MODEL"),
            ("model", bool(self.model), "the student to begin with, as in --model MODEL"),
            ("beta", 0 < self.beta < 1, "above 0 and below 1"),
            ("temperature", 0 < self.temperature < 1e3, "above 0"),
            ("hard", 0 <= self.hard < 1, "from 0 to below 1"),
            ("epochs", self.epochs > 0 or self.loop.steps > 0, "above 0"),
            ("batch_size", self.batch_size >= 1, "1 or more"),
            ("eval_every", self.eval_every >= 1, "1 or more"),
            ("context", self.context >= 0, "0 or more"),
            ("holdout", 0 <= self.holdout < 1, "from 0 to below 1"),
        ):
            if not good:
                raise ConfigError(f"{name} is {getattr(self, name)!r}: expected {expected}")


def soft_loss(teacher: Decoder, config: Config) -> SoftLoss:
    """The divergence from a frozen teacher, which reads the same packed streams as the student."""
    from firsthand.train.losses.distillation import forward_kl, generalised_jsd, reverse_kl
    from firsthand.train.step_loss import logits_of

    functions: dict[str, Callable[..., Tensor]] = {
        "forward": forward_kl, "reverse": reverse_kl, "jsd": partial(generalised_jsd, beta=config.beta),
    }  # fmt: skip
    function, size = functions[config.divergence], teacher.architecture.vocab_size

    def loss(batch: PackedStreams, rows_M: Tensor, logits_MV: Tensor) -> Tensor:
        shared = min(size, logits_MV.shape[-1])  # rows of padding differ between models of one tokenizer
        taught_MV = logits_of(teacher, batch, rows_M)
        return function(logits_MV[:, :shared], taught_MV[:, :shared], temperature=config.temperature)

    return loss


def distill(config: Config, run: TrainingRun) -> Path:
    """Train the student; returns its folder."""
    from firsthand.nn import weights
    from firsthand.tokens import pretrained
    from firsthand.tokens.templates.chat_template import ChatTemplate
    from firsthand.train import conversations
    from firsthand.train.bits_per_byte import mean_loss
    from firsthand.train.data_order import StreamBatches, split
    from firsthand.train.objective import Objective

    base, source = model_lookup.resolve(config.model), model_lookup.resolve(config.teacher)
    tokenizer = pretrained.load(base)
    if tokenizer.fingerprint != pretrained.load(source).fingerprint:
        raise ConfigError(
            f"{config.teacher} and {config.model} have different tokenizers, so their distributions cannot be compared: let "
            "the teacher answer (`firsthand run`, `firsthand data --as sft`) and train with `firsthand train sft`"
        )
    longest = min(weights.open_checkpoint(each).architecture.max_position for each in (base, source))
    encoded = conversations.encode_conversations(
        conversations.read_conversations(Path(config.data)), tokenizer, ChatTemplate(tokenizer, tokenizer.chat_template),
        context=min(config.context or longest, longest),
    )  # fmt: skip
    trained, held_out = split(encoded.streams, config.holdout, seed=config.loop.seed)
    print(encoded)
    run.expect_same("teacher", source)
    model = weights.load(base, device=str(run.device))
    teacher = weights.load(source, device=str(run.device)).requires_grad_(False).eval()
    steps = config.loop.steps or math.ceil(config.epochs * len(trained) / config.batch_size)
    soft = soft_loss(teacher, config)

    def evaluate(step: int) -> dict[str, float]:
        if not held_out or (step % config.eval_every and step != steps):
            return {}
        divergence = mean_loss(
            model, held_out, Objective(soft=1.0, soft_loss=soft), micro_tokens=config.loop.micro_tokens
        )
        return {"held_out_loss": divergence}

    run.fit(
        model, StreamBatches([[stream] for stream in trained], config.batch_size, seed=config.loop.seed),
        objective=Objective(ce=config.hard, soft=1 - config.hard, soft_loss=soft),
        optimizer=config.optimizer, schedule=config.schedule, steps=steps, evaluate=evaluate,
    )  # fmt: skip
    return run.save(model, tokenizer, base=base)
