"""A small model that writes the ledgers of `toy_ledgers` and the form of calls, and knows no sum: before Toolformer.

Its texts are plain ledgers; copies of rows of numbers, for without copying no result could help; notes in brackets that tell
the last number of a ledger; and ledgers with a call of the calculator at any place, of numbers and an operator at chance. So
it has seen how a call is written, and never a result of one. `ledgers.jsonl` in its folder has plain texts to annotate.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from firsthand.benchmarks.toy_ledgers import LIMIT, NAMES, random_ledger
from firsthand.loop.concurrency import derive_seed
from firsthand.message import Json
from firsthand.system.new_file import write_new
from firsthand.tokens.calls.inline_call import ARROW, END, START, InlineCall
from firsthand.train.recipe_settings import LoopSettings, OptimizerSettings
from firsthand.train.schedules import ScheduleSettings
from firsthand.train.streams import Stream

if TYPE_CHECKING:
    from firsthand.tokens.tokenizer import Tokenizer
    from firsthand.train.training_run import TrainingRun

EXAMPLES = """
firsthand train toy_bookkeeper --out bookkeeper
firsthand train toolformer bookkeeper/ledgers.jsonl --model bookkeeper/model --places 2 --threshold 0.5 --lr 1e-3 \\
    --batch-size 64 --steps 200 --out caller
firsthand run toy_ledgers --model caller/model --pattern direct,toolformer --tools calculator --max-tokens 24
"""
WORDS = ("has", "gets", "loses", "left")


@dataclass(frozen=True)
class Config:
    """The shares of kinds of texts, and the size of a batch."""

    notes: float = 0.3
    """Ledgers with a note that tells their last number, before the ledger or before that number."""
    copies: float = 0.2
    """Rows of numbers that repeat."""
    calls: float = 0.25
    """Ledgers with a call at chance."""
    texts: int = 2000
    """Plain ledgers in `ledgers.jsonl`."""
    batch_size: int = 128
    """Texts of a step."""
    optimizer: OptimizerSettings = field(
        default_factory=lambda: OptimizerSettings(optimizer="muon", lr=5e-3, weight_decay=0.0)
    )
    schedule: ScheduleSettings = field(default_factory=lambda: ScheduleSettings(warmup_steps=20))
    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=600, checkpoint_every=0))


class BaseTexts:
    """Batches of fresh texts; each depends on the seed and its number alone."""

    def __init__(self, config: Config, tokenizer: Tokenizer):
        self.config, self.tokenizer, self.drawn = config, tokenizer, 0

    def __iter__(self) -> Iterator[list[Stream]]:
        """Yields the streams of each step."""
        while True:
            rng = Random(derive_seed("toy bookkeeper", self.config.loop.seed, self.drawn))
            self.drawn += 1
            yield [text_stream(base_text(rng, self.config), self.tokenizer) for _ in range(self.config.batch_size)]

    def state(self) -> Json:
        """The number of batches so far."""
        return {"drawn": self.drawn}

    def load(self, state: Json) -> None:
        """Continue from a state."""
        self.drawn = int(state["drawn"])


def text_stream(text: str, tokenizer: Tokenizer) -> Stream:
    """A text and its end token, of which all count."""
    ids = [*tokenizer.encode(text), *([] if tokenizer.eos_id is None else [tokenizer.eos_id])]
    return Stream(np.array(ids, np.int32), ce=np.ones(len(ids), np.float32))


def base_text(rng: Random, config: Config) -> str:
    """A text of a kind that is drawn."""
    ledger, kind = random_ledger(rng), rng.random()
    if kind < config.copies:
        row = "".join(f" {rng.randrange(LIMIT)}" for _ in range(rng.randint(3, 7)))
        return row * rng.randint(2, 3)
    if kind < config.copies + config.notes:
        numbers = [rng.randrange(LIMIT) for _ in range(2)]
        note = InlineCall("note", _input(numbers, rng)).written(str(ledger.left))
        return note + ledger.text if rng.random() < 0.5 else f"{ledger.opening}{note} {ledger.left}"
    if kind < config.copies + config.notes + config.calls:
        words = ledger.text.split(" ")
        place = rng.randint(5, len(words) - 1)  # two numbers are known there
        call = InlineCall("calculator", _input([int(word) for word in words[:place] if word.isdigit()], rng))
        return " ".join(words[:place]) + call.written() + "".join(f" {word}" for word in words[place:])
    return ledger.text


def _input(numbers: Sequence[int], rng: Random) -> str:
    """Two of the numbers and an operator, at chance."""
    first, second = rng.sample(list(numbers), 2)
    return f" {first} {rng.choice('+-')} {second}"


def toy_bookkeeper(config: Config, run: TrainingRun) -> Path:
    """Train the model from fresh weights, and write the plain texts; returns the model's folder."""
    from firsthand.train.objective import Objective
    from firsthand.train.toy_tasks.toy_models import toy_model

    rng = Random(derive_seed("ledgers to annotate", config.loop.seed))
    lines = [json.dumps({"text": random_ledger(rng).text}) + "\n" for _ in range(config.texts)]
    write_new(run.folder / "ledgers.jsonl", "".join(lines))
    pieces = [
        *(f" {number}" for number in range(LIMIT)), *NAMES, *(f" {word}" for word in WORDS), " +", " -", START, ARROW, END,
        "calculator(", "note(", ")",
    ]  # fmt: skip
    model, tokenizer = toy_model(pieces, seed=config.loop.seed, context=64)
    run.fit(
        model, BaseTexts(config, tokenizer), objective=Objective(ce=1.0), optimizer=config.optimizer,
        schedule=config.schedule,
    )  # fmt: skip
    return run.save(model, tokenizer)
