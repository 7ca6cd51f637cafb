"""Fine-tune a model on conversations (SFT): cross-entropy on the assistant's tokens alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from firsthand.errors import ConfigError
from firsthand.hub import model_lookup
from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.recipe_settings import LoopSettings, OptimizerSettings
from firsthand.train.schedules import ScheduleSettings

if TYPE_CHECKING:
    from firsthand.train.training_run import TrainingRun

EXAMPLES = """
firsthand train sft chats.jsonl --model smollm2 --epochs 2
firsthand train sft chats.jsonl --model RUN/model --show 2 optimizer.lr=1e-4
firsthand train sft chats.jsonl --adapter lora --base-weights nf4 --lr 1e-3
"""


@dataclass(frozen=True)
class Config:
    """Conversations, model and optimizer."""

    data: str = field(metadata={"positional": True})
    """A .jsonl file: each line has `messages`, or `prompt` and `completion`, or `text`."""
    model: str = "smollm2"
    """The model to begin with: a name, a .gguf file, a folder, or `hf:ORG/NAME`."""
    epochs: float = 3.0
    """Passes over the data, if `steps` is 0."""
    batch_size: int = 16
    """Conversations of a step."""
    context: int = 0
    """Longest conversation in tokens; 0 is the model's context."""
    too_long: Literal["skip", "cut", "refuse"] = "skip"
    """Longer conversations are left out and counted, cut to their beginning, or an error."""
    last_only: bool = False
    """Train on the last answer of each conversation, not on all of them."""
    holdout: float = 0.05
    """The fraction of conversations that is held out for the loss."""
    eval_every: int = 50
    """Steps between evaluations on the held-out conversations; the last step has one."""
    show: int = 0
    """Print so many conversations first, the tokens that are trained on between ⟦ and ⟧."""
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    optimizer: OptimizerSettings = field(default_factory=lambda: OptimizerSettings(lr=1e-4, weight_decay=0.0))
    schedule: ScheduleSettings = field(default_factory=lambda: ScheduleSettings(warmup_steps=-1))
    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=0))

    def __post_init__(self) -> None:
        for name, good, expected in (
            ("epochs", self.epochs > 0 or self.loop.steps > 0, "above 0"),
            ("batch_size", self.batch_size >= 1, "1 or more"),
            ("eval_every", self.eval_every >= 1, "1 or more"),
            ("context", self.context >= 0, "0 or more"),
            ("holdout", 0 <= self.holdout < 1, "from 0 to below 1"),
        ):
            if not good:
                raise ConfigError(f"{name} is {getattr(self, name)}: expected {expected}")


def sft(config: Config, run: TrainingRun) -> Path:
    """Train on the assistant's tokens; returns the folder of the model, with an adapter merged and also saved by itself."""
    from firsthand.nn import weights
    from firsthand.tokens import pretrained
    from firsthand.tokens.templates.chat_template import ChatTemplate
    from firsthand.train import conversations
    from firsthand.train.bits_per_byte import held_out_loss
    from firsthand.train.data_order import StreamBatches, split
    from firsthand.train.objective import Objective

    base = model_lookup.resolve(config.model)
    tokenizer = pretrained.load(base)
    chat = ChatTemplate(tokenizer, tokenizer.chat_template)
    longest = weights.open_checkpoint(base).architecture.max_position
    encoded = conversations.encode_conversations(  # before the model loads: a wrong line is told at once
        conversations.read_conversations(Path(config.data)), tokenizer, chat,
        context=min(config.context or longest, longest),
        too_long=config.too_long, last_only=config.last_only,
    )  # fmt: skip
    trained, held_out = split(encoded.streams, config.holdout, seed=config.loop.seed)
    print(encoded)
    for stream in encoded.streams[: config.show]:
        print(conversations.with_marks(stream, tokenizer))
    model = run.prepared(base, config.adapter)
    steps = config.loop.steps or math.ceil(config.epochs * len(trained) / config.batch_size)

    def evaluate(step: int) -> dict[str, float]:
        if not held_out or (step % config.eval_every and step != steps):
            return {}
        return {"held_out_loss": held_out_loss(model, held_out, 1, micro_tokens=config.loop.micro_tokens).loss}

    run.fit(
        model, StreamBatches([[stream] for stream in trained], config.batch_size, seed=config.loop.seed),
        objective=Objective(ce=1.0), optimizer=config.optimizer, schedule=config.schedule, steps=steps, evaluate=evaluate,
    )  # fmt: skip
    return run.save(model, tokenizer, base=base, adapter=config.adapter, named=config.model)
