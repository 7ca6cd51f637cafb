"""A small model that acts in a world as a random player does: the beginning for learning from its own attempts.

Random players act in the tasks of a world with text actions. A vocabulary is trained on what was said, and fresh weights
learn to write the random player's actions, won or lost. So the model knows the grammar of the world, and wins as often as
chance does. `firsthand train rejection WORLD` and `train grpo WORLD` then teach it by its own rewards.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand.errors import ConfigError, TrainingError
from firsthand.message import Message
from firsthand.system import interruption
from firsthand.train.recipe_settings import LoopSettings, ModelSettings, OptimizerSettings
from firsthand.train.schedules import ScheduleSettings

if TYPE_CHECKING:
    from firsthand.benchmark import Benchmark
    from firsthand.trace import Trace
    from firsthand.train.training_run import TrainingRun

EXAMPLES = """
firsthand train toy_player agentbench_kg:level=1:about=book.book:rounds=8:tasks=2000 --out player
firsthand train rejection agentbench_kg:level=1:about=book.book:rounds=8:tasks=2000 --model player/model \\
    --pattern thought_action:thought=false --max-tokens 48 --optimizer muon --lr 2e-3 --steps 60 --out winner
"""
AT_ONCE = 32


@dataclass(frozen=True)
class Config:
    """The world, how often it is played, and the model."""

    benchmark: str = field(default="", metadata={"positional": True})
    """The world: a benchmark with text actions, such as agentbench_kg:level=1."""
    attempts: int = 600
    """Attempts of the random player, each at a task of its own as far as there are tasks."""
    won: bool = False
    """Learn from the attempts that earned 1, and from no others."""
    vocab_size: int = 768
    """Tokens of the vocabulary at most."""
    batch_size: int = 16
    """Attempts of a step."""
    model: ModelSettings = field(
        default_factory=lambda: ModelSettings(layers=2, hidden_size=64, heads=4, context=1024, tie_embeddings=False)
    )
    optimizer: OptimizerSettings = field(
        default_factory=lambda: OptimizerSettings(optimizer="muon", lr=5e-3, weight_decay=0.0)
    )
    schedule: ScheduleSettings = field(default_factory=lambda: ScheduleSettings(warmup_steps=20))
    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=200, checkpoint_every=0))

    def __post_init__(self) -> None:
        for name in ("attempts", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: expected 1 or more")


def toy_player(config: Config, run: TrainingRun) -> Path:
    """Train the model from fresh weights on random play; returns its folder."""
    from firsthand import catalog
    from firsthand.nn.decoder import Decoder, initialise
    from firsthand.tokens.templates.chat_template import ChatTemplate
    from firsthand.train.bpe import train_tokenizer
    from firsthand.train.conversations import Conversation, encode_conversations
    from firsthand.train.data_order import StreamBatches
    from firsthand.train.objective import Objective
    from firsthand.train.toy_tasks.toy_models import STD

    if not config.benchmark:
        raise ConfigError("name the world to play, as in `firsthand train toy_player agentbench_kg:level=1`")
    played = interruption.run(
        random_play(catalog.benchmark(config.benchmark), config.attempts, config.loop.seed, config.won)
    )
    texts = (message.text for messages in played for message in messages)
    tokenizer = train_tokenizer(texts, run.folder / "tokenizer", vocab_size=config.vocab_size, across_words=True)
    model = initialise(
        Decoder(config.model.architecture(tokenizer.vocab_size)), seed=config.loop.seed, std=STD
    )  # fmt: skip
    said = [
        Conversation(f"attempt {number}", messages, tuple(message.role == "assistant" for message in messages))
        for number, messages in enumerate(played)
    ]
    chat = ChatTemplate(tokenizer, tokenizer.chat_template)
    encoded = encode_conversations(said, tokenizer, chat, context=config.model.context, too_long="cut")
    print(encoded)
    run.fit(
        model, StreamBatches([[stream] for stream in encoded.streams], config.batch_size, seed=config.loop.seed),
        objective=Objective(ce=1.0), optimizer=config.optimizer, schedule=config.schedule,
    )  # fmt: skip
    return run.save(model, tokenizer, base=run.folder / "tokenizer")


async def random_play(benchmark: Benchmark, attempts: int, seed: int, won: bool = False) -> list[tuple[Message, ...]]:
    """The messages of attempts of the random player, without thoughts; with `won` of those that earned 1.

    TrainingError if an attempt fails, or none is left.
    """
    from firsthand.worlds.players import play

    tasks = benchmark.tasks(seed)
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> Trace:
        async with gate:
            trace = await play(
                benchmark, tasks[number % len(tasks)], "random", seed=seed + number // len(tasks), thought=False
            )
        if trace.error is not None:
            raise TrainingError(f"the random player failed at {trace.task_id}: {trace.error.message}")
        return trace

    traces = await asyncio.gather(*map(one, range(attempts)))
    kept = [trace for trace in traces if not won or trace.value() == 1]
    if not kept:
        raise TrainingError(f"none of {attempts} attempts of the random player won: give more with --attempts")
    return [trace.messages(len(trace.nodes) - 1) for trace in kept]
