"""Toolformer: the model proposes tool calls in texts, keeps those that help it to predict, and is trained on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand.errors import ConfigError
from firsthand.train.recipe_settings import LoopSettings, OptimizerSettings
from firsthand.train.schedules import ScheduleSettings

if TYPE_CHECKING:
    from firsthand.train.training_run import TrainingRun

EXAMPLES = """
firsthand train toolformer texts.jsonl --model MODEL --tools calculator --places 20 --samples 10 --threshold 0.5
firsthand run BENCHMARK --model RUN/model --pattern direct,toolformer --tools calculator
"""


@dataclass(frozen=True)
class Config:
    """Toolformer (Schick et al., 2023, arXiv:2302.04761)."""

    data: str = field(default="", metadata={"positional": True})
    """A .jsonl file: each line has a `text`."""
    model: str = "smollm2"
    """The model to begin with, which must know the form ` [tool(input)]`: a name, a .gguf file, or a folder."""
    tools: tuple[str, ...] = ("calculator",)
    """Tools that only read, such as `calculator`."""
    places: int = 5
    """k: at most so many places of a text are tried (20 for the paper's calculator)."""
    start_probability: float = 0.05
    """tau_s: only places where a call begins with a higher probability (0 for the paper's calculator)."""
    samples: int = 5
    """m: calls that are sampled at a place (10 for the paper's calculator)."""
    threshold: float = 1.0
    """tau_f: the weighted loss must fall by this much for a call to be kept (0.5 for the paper's calculator)."""
    most: int = 25_000
    """Texts with calls that are trained on, at most."""
    corrupt: bool = False
    """Give each call another call's result. It is the control: next to none should be kept."""
    batch_size: int = 128
    """Texts of a step."""
    holdout: float = 0.1
    """The fraction of texts that is held out for the loss with and without calls."""
    eval_every: int = 50
    """Steps between evaluations on the held-out texts; the last step has one."""
    optimizer: OptimizerSettings = field(default_factory=lambda: OptimizerSettings(lr=1e-5, weight_decay=0.0))
    schedule: ScheduleSettings = field(default_factory=lambda: ScheduleSettings(schedule="constant", warmup_steps=-1))
    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=2000))

    def __post_init__(self) -> None:
        for name, good, expected in (
            ("places", self.places >= 1, "1 or more"),
            ("samples", 1 <= self.samples <= 64, "from 1 to 64"),
            ("start_probability", 0 <= self.start_probability < 1, "from 0 to below 1"),
            ("threshold", self.threshold > 0, "above 0"),
            ("most", self.most >= 1, "1 or more"),
            ("batch_size", self.batch_size >= 1, "1 or more"),
            ("eval_every", self.eval_every >= 1, "1 or more"),
            ("holdout", 0 < self.holdout < 1, "above 0 and below 1"),
        ):
            if not good:
                raise ConfigError(f"{name} is {getattr(self, name)}: expected {expected}")


def toolformer(config: Config, run: TrainingRun) -> Path:
    """Annotate, filter and fine-tune, as the paper's section 2 does; returns the model's folder.

    Every judged call is a line of `calls.jsonl` in the run's folder.
    """
    from firsthand.train.data_order import StreamBatches
    from firsthand.train.objective import Objective
    from firsthand.train.toolformer.annotated_texts import annotated, opened_texts

    with opened_texts(config, run) as texts:
        streams = annotated(texts, config, run)

        def evaluate(step: int) -> dict[str, float]:
            return texts.evaluated() if not step % config.eval_every or step == config.loop.steps else {}

        run.fit(
            texts.model, StreamBatches([[each] for each in streams], config.batch_size, seed=config.loop.seed),
            objective=Objective(ce=1.0), optimizer=config.optimizer, schedule=config.schedule, evaluate=evaluate,
        )  # fmt: skip
        return run.save(texts.model, texts.tokenizer, base=texts.path)
