"""A model of 100,000 parameters that writes the reviews of `toy_reviews` at random: the policy before any preference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from firsthand.benchmarks.toy_reviews import BLAME, JOINING, NEUTRAL, PRAISE, SUBJECTS, VERBS, random_review
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
firsthand train toy_writer --out writer
firsthand train ppo toy_reviews --model writer/model --max-tokens 16 --lr 1e-3 --kl 0.1 --steps 60
"""


@dataclass(frozen=True)
class Config:
    """Size of a batch, optimizer and loop."""

    batch_size: int = 64
    """Reviews of a step."""
    optimizer: OptimizerSettings = field(
        default_factory=lambda: OptimizerSettings(optimizer="muon", lr=5e-3, weight_decay=0.0)
    )
    schedule: ScheduleSettings = field(default_factory=lambda: ScheduleSettings(warmup_steps=20))
    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=150, checkpoint_every=0))


class Reviews:
    """Batches of fresh reviews; each depends on the seed and its number alone."""

    def __init__(self, config: Config, tokenizer: Tokenizer):
        self.config, self.tokenizer, self.drawn = config, tokenizer, 0

    def __iter__(self) -> Iterator[list[Stream]]:
        """Yields the streams of each step."""
        while True:
            rng = Random(derive_seed("toy writer", self.config.loop.seed, self.drawn))
            self.drawn += 1
            yield [self._review(rng) for _ in range(self.config.batch_size)]

    def _review(self, rng: Random) -> Stream:
        prompt = self.tokenizer.encode(f"the {rng.choice(SUBJECTS)} {rng.choice(VERBS)}")
        reply = self.tokenizer.encode(random_review(rng))
        return answer_stream(prompt, reply, self.tokenizer)

    def state(self) -> Json:
        """The number of batches so far."""
        return {"drawn": self.drawn}

    def load(self, state: Json) -> None:
        """Continue from a state."""
        self.drawn = int(state["drawn"])


def toy_writer(config: Config, run: TrainingRun) -> Path:
    """Train the model from fresh weights; returns its folder."""
    from firsthand.train.objective import Objective
    from firsthand.train.toy_tasks.toy_models import toy_model

    words = [f" {word}" for word in (*SUBJECTS, *VERBS, *PRAISE, *BLAME, *NEUTRAL, *JOINING)]
    model, tokenizer = toy_model(["the", *words], seed=config.loop.seed, context=64)
    run.fit(
        model, Reviews(config, tokenizer), objective=Objective(ce=1.0), optimizer=config.optimizer,
        schedule=config.schedule,
    )  # fmt: skip
    return run.save(model, tokenizer)
