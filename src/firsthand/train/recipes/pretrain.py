"""Pretrain a fresh model on text: tokenizer, documents packed without attention between them, cross-entropy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand.errors import ConfigError
from firsthand.train.recipe_settings import LoopSettings, ModelSettings, OptimizerSettings
from firsthand.train.schedules import ScheduleSettings

if TYPE_CHECKING:
    from firsthand.train.training_run import TrainingRun

EXAMPLES = """
firsthand train pretrain book.txt --steps 500
firsthand train pretrain src/ --suffixes .py --exclude tests --optimizer muon model.layers=6 model.hidden_size=256
firsthand train pretrain texts.jsonl --config pretrain.toml optimizer.lr=3e-3
"""


@dataclass(frozen=True)
class Config:
    """Text, tokenizer, model and optimizer."""

    data: tuple[str, ...] = field(metadata={"positional": True})
    """Text files, folders of them, or .jsonl files with a field `text`."""
    suffixes: tuple[str, ...] = ()
    """In folders, only files with these endings, such as `.py,.md`, packed with gzip (`.md.gz`) or not."""
    exclude: tuple[str, ...] = ()
    """In folders, leave out paths and folder names that match these patterns, such as `test*`."""
    tokenizer: str = ""
    """The model whose tokenizer to take; by default one is trained on the text."""
    vocab_size: int = 4096
    """Tokens of a tokenizer that is trained."""
    tokens: Path | None = None
    """Folder of a token file, written once from the texts, which are read one by one, and memory-mapped: for a corpus larger
    than memory. A folder that holds one already is read in place of the texts, with the documents held out that were."""
    batch_tokens: int = 8192
    """Tokens that are predicted in a step."""
    holdout: float = 0.02
    """The fraction of documents that is held out for the bits per byte."""
    eval_every: int = 100
    """Steps between evaluations on the held-out documents; the last step has one."""
    model: ModelSettings = field(default_factory=ModelSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=lambda: ScheduleSettings(warmup_steps=-1))
    loop: LoopSettings = field(default_factory=LoopSettings)

    def __post_init__(self) -> None:
        for name, least in (("batch_tokens", 1), ("eval_every", 1), ("vocab_size", 259)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}: expected {least} or more")
        if not 0 <= self.holdout < 1:
            raise ConfigError(f"holdout is {self.holdout}: expected a fraction from 0 to below 1")
        if self.loop.steps < 1:
            raise ConfigError("steps is 0: expected 1 or more")


def pretrain(config: Config, run: TrainingRun) -> Path:
    """Train on the documents; returns the folder of the model."""
    from firsthand.nn.decoder import Decoder, initialise
    from firsthand.train import documents
    from firsthand.train.bits_per_byte import held_out_loss
    from firsthand.train.objective import Objective
    from firsthand.train.pretraining_texts import in_memory, in_token_file

    context = config.model.context
    texts = (in_memory if config.tokens is None else in_token_file)(config, run)
    print(texts)
    model = initialise(Decoder(config.model.architecture(texts.tokenizer.vocab_size)), seed=config.loop.seed)
    model = model.to(run.device)
    pieces = documents.whole_pieces(texts.unseen, context)

    def evaluate(step: int) -> dict[str, float]:
        if not pieces or (step % config.eval_every and step != config.loop.steps):
            return {}
        found = held_out_loss(model, pieces, texts.unseen.num_bytes, micro_tokens=config.loop.micro_tokens)
        return {"held_out_loss": found.loss, "bits_per_byte": found.bits_per_byte}

    run.fit(
        model, texts.batches(config.batch_tokens, context, config.loop.seed), objective=Objective(ce=1.0),
        optimizer=config.optimizer, schedule=config.schedule, evaluate=evaluate,
    )  # fmt: skip
    return run.save(model, texts.tokenizer, base=texts.source)
