"""Train the generator of Self-RAG: answers with reflection tokens, written without a critic's help afterwards."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand.errors import ConfigError, DataError
from firsthand.hub import model_lookup
from firsthand.system.plurals import count_of
from firsthand.train.recipe_settings import LoopSettings, OptimizerSettings
from firsthand.train.schedules import ScheduleSettings

if TYPE_CHECKING:
    from firsthand.train.training_run import TrainingRun

EXAMPLES = """
firsthand rag label answers.jsonl --index docs --model CRITIC --out labelled.jsonl
firsthand train selfrag labelled.jsonl --model smollm2
firsthand run BENCHMARK --model RUN/model --pattern self_rag:index=docs
"""


@dataclass(frozen=True)
class Config:
    """Self-RAG's generator (Asai et al., 2023, arXiv:2310.11511)."""

    data: str = field(metadata={"positional": True})
    """A .jsonl file: each line has `instruction` and `output` with reflection tokens, as `firsthand rag label` writes."""
    model: str = "smollm2"
    """The model to begin with; reflection tokens that it lacks are added to its vocabulary."""
    epochs: float = 3.0
    """Passes over the data, if `steps` is 0."""
    batch_size: int = 128
    """Answers of a step."""
    holdout: float = 0.05
    """The fraction of answers that is held out for the loss."""
    eval_every: int = 50
    """Steps between evaluations on the held-out answers; the last step has one."""
    optimizer: OptimizerSettings = field(default_factory=lambda: OptimizerSettings(lr=2e-5, weight_decay=0.0))
    schedule: ScheduleSettings = field(default_factory=lambda: ScheduleSettings(warmup_steps=-1))
    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=0))

    def __post_init__(self) -> None:
        for name, good, expected in (
            ("epochs", self.epochs > 0 or self.loop.steps > 0, "above 0"),
            ("batch_size", self.batch_size >= 1, "1 or more"),
            ("eval_every", self.eval_every >= 1, "1 or more"),
            ("holdout", 0 <= self.holdout < 1, "from 0 to below 1"),
        ):
            if not good:
                raise ConfigError(f"{name} is {getattr(self, name)}: expected {expected}")


def selfrag(config: Config, run: TrainingRun) -> Path:
    """Train on outputs, reflection tokens included and passages left out; returns the model's folder."""
    from firsthand.nn import weights
    from firsthand.retrieval.reflection.token_reflections import SPELLED
    from firsthand.tokens import pretrained
    from firsthand.train.added_tokens import with_added_tokens
    from firsthand.train.bits_per_byte import held_out_loss
    from firsthand.train.data_order import StreamBatches, split
    from firsthand.train.objective import Objective
    from firsthand.train.reflected_texts import encode_reflected, read_reflected

    base = model_lookup.resolve(config.model)
    texts = read_reflected(Path(config.data))
    model, tokenizer = with_added_tokens(weights.load(base, device=str(run.device)), pretrained.load(base), SPELLED)
    context = model.architecture.max_position
    streams = [encode_reflected(each, tokenizer) for each in texts]
    fitting = [stream for stream in streams if len(stream) <= context]
    if not fitting:
        raise DataError(
            f"no answer of {config.data} fits the model's context of {context} tokens: label smaller chunks"
        )
    print(
        f"{count_of(len(fitting), 'answer', ',')}; {len(streams) - len(fitting)} longer than the context and left out"
    )
    trained, held_out = split(fitting, config.holdout, seed=config.loop.seed)
    steps = config.loop.steps or math.ceil(config.epochs * len(trained) / config.batch_size)

    def evaluate(step: int) -> dict[str, float]:
        if not held_out or (step % config.eval_every and step != steps):
            return {}
        return {"held_out_loss": held_out_loss(model, held_out, 1, micro_tokens=config.loop.micro_tokens).loss}

    run.fit(
        model, StreamBatches([[stream] for stream in trained], config.batch_size, seed=config.loop.seed),
        objective=Objective(ce=1.0), optimizer=config.optimizer, schedule=config.schedule, steps=steps, evaluate=evaluate,
    )  # fmt: skip
    return run.save(model, tokenizer)
