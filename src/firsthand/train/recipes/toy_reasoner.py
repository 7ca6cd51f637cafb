"""A model of 100,000 parameters that can reason step by step and seldom does: the beginning for reinforcement learning.

It is fine-tuned on rows of `recurrence`: first mostly on answers with their steps, so that it learns them, then mostly on
answers alone, so that it guesses. `firsthand train grpo recurrence --model FOLDER` makes it think again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from firsthand.benchmarks.recurrence import MODULUS, solution, states
from firsthand.loop.concurrency import derive_seed
from firsthand.message import Json
from firsthand.train.recipe_settings import LoopSettings, OptimizerSettings
from firsthand.train.schedules import ScheduleSettings
from firsthand.train.streams import Stream
from firsthand.train.toy_tasks.answer_streams import answer_stream

if TYPE_CHECKING:
    from firsthand.tokens.tokenizer import Tokenizer
    from firsthand.train.training_run import TrainingRun

EXAMPLES = """
firsthand train toy_reasoner --out reasoner
firsthand train grpo recurrence --model reasoner/model --max-tokens 12 --lr 1e-3 --steps 60
"""


@dataclass(frozen=True)
class Config:
    """The rows, and the share of answers with steps."""

    length: int = 8
    """Digits of a row."""
    stepwise: float = 0.1
    """The share of answers with their steps in the last fifth of training."""
    stepwise_before: float = 0.7
    """That share before."""
    batch_size: int = 64
    """Rows of a step."""
    optimizer: OptimizerSettings = field(
        default_factory=lambda: OptimizerSettings(optimizer="muon", lr=5e-3, weight_decay=0.0)
    )
    schedule: ScheduleSettings = field(default_factory=lambda: ScheduleSettings(warmup_steps=20))
    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=300, checkpoint_every=0))


class Rows:
    """Batches of fresh rows; each depends on the seed and its number alone."""

    def __init__(self, config: Config, tokenizer: Tokenizer):
        self.config, self.tokenizer, self.drawn = config, tokenizer, 0

    def __iter__(self) -> Iterator[list[Stream]]:
        """Yields the streams of each step."""
        while True:
            rng = Random(derive_seed("toy reasoner", self.config.loop.seed, self.drawn))
            self.drawn += 1
            yield [self._row(rng) for _ in range(self.config.batch_size)]

    def _row(self, rng: Random) -> Stream:
        is_late = self.drawn > self.config.loop.steps * 4 // 5
        digits = "".join(str(rng.randrange(MODULUS)) for _ in range(self.config.length))
        is_stepwise = rng.random() < (self.config.stepwise if is_late else self.config.stepwise_before)
        answer = solution(digits) if is_stepwise else states(digits)[-1]
        prompt, reply = self.tokenizer.encode(f"{digits}=?"), self.tokenizer.encode(answer)
        return answer_stream(prompt, reply, self.tokenizer)

    def state(self) -> Json:
        """The number of batches so far."""
        return {"drawn": self.drawn}

    def load(self, state: Json) -> None:
        """Continue from a state."""
        self.drawn = int(state["drawn"])


def toy_reasoner(config: Config, run: TrainingRun) -> Path:
    """Train the model from fresh weights; returns its folder."""
    from firsthand.train.objective import Objective
    from firsthand.train.toy_tasks.toy_models import toy_model

    pieces = [*map(str, range(MODULUS)), "=", "?", ":"]
    model, tokenizer = toy_model(pieces, seed=config.loop.seed, context=4 * config.length + 16)
    run.fit(
        model, Rows(config, tokenizer), objective=Objective(ce=1.0), optimizer=config.optimizer, schedule=config.schedule
    )  # fmt: skip
    return run.save(model, tokenizer)
