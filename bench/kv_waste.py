"""How much of the memory for keys and values in use holds nothing, by lengths of texts and by size of a block.

    python bench/kv_waste.py

The scheduler and its pool run with a made-up model, so the numbers are exact and the same on every machine. A slot counts as
used if some sequence under way has a token in it, however many share it; wasted are the other slots of blocks that
somebody uses. They lie in the last block of each text, half a block on average: (size - 1) / 2 positions of a text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

from firsthand.engine.core.scheduler import Scheduler
from firsthand.engine.core.sequence import Sequence
from firsthand.engine.memory.blocks import BlockPool

BLOCK_SIZES = (16, 8, 32)
VOCAB = 50_000


@dataclass(frozen=True)
class Mix:
    """Requests that wait when the scheduler begins."""

    name: str
    prompt: Callable[[Random], int]
    """The length of a prompt."""
    answer: Callable[[Random], int]
    """The length of an answer."""
    n: tuple[int, ...] = (1,)
    """How many answers of one prompt, each equally often."""
    requests: int = 400


MIXES = (
    Mix(
        "prompts of 60 to 2,000, answers of 20 to 399, a quarter of them three of one prompt",
        lambda rng: rng.choice([60, 150, 300, 900, 2000]),
        lambda rng: rng.randrange(20, 400),
        n=(1, 1, 1, 3),
        requests=120,
    ),
    Mix("prompts of 60, answers of 20 to 399", lambda _: 60, lambda rng: rng.randrange(20, 400)),
    Mix(
        "prompts of 50 to 300, answers of 64 to 128, a quarter of them four of one prompt",
        lambda rng: rng.choice([50, 100, 200, 300]),
        lambda rng: rng.randrange(64, 129),
        n=(1, 1, 1, 4),
    ),
    Mix(
        "the 32 chats of `firsthand bench`: prompts of 50 to 300, answers of 64 to 128",
        lambda rng: rng.randint(50, 300),
        lambda rng: rng.randint(64, 128),
        requests=32,
    ),
    Mix(
        "prompts of 1,000 to 3,000, answers of 64 to 400",
        lambda rng: rng.randint(1000, 3000),
        lambda rng: rng.randint(64, 400),
        requests=60,
    ),
)


@dataclass(frozen=True)
class Waste:
    """What a mix leaves empty, over all its steps."""

    share: float
    """Of the positions in used blocks, those that hold nothing."""
    positions: float
    """Positions of an average text under way, those shared with another counted for both."""
    asked: int
    """Answers that were asked for."""
    answers: int
    """Answers that ran to their end."""


def waste(mix: Mix, block_size: int, *, seed: int = 5, positions: int = 64_000) -> Waste:
    """Serve a mix to its end with memory for so many positions."""
    rng = Random(seed)
    pool = BlockPool(positions // block_size, block_size)
    scheduler = Scheduler(pool, max_batch_tokens=512, max_sequences=64)
    leads = [_request(number, mix, rng) for number in range(mix.requests)]
    asked = sum(1 + len(lead.followers) for lead in leads)
    for lead in leads:
        scheduler.add(lead)
    used = allocated = texts = tokens = answers = 0
    while scheduler.has_work:
        answers += _step(scheduler, rng)
        filled = Counter[int]()
        for line in scheduler.running:
            tokens += line.num_computed
            for place, block in enumerate(line.table):
                filled[block] = max(filled[block], min(line.num_computed - place * block_size, block_size))
        texts += len(scheduler.running)
        used += sum(filled.values())
        allocated += pool.num_used * block_size
    pool.check()
    return Waste(1 - used / allocated, tokens / texts, asked, answers)


def _request(number: int, mix: Mix, rng: Random) -> Sequence:
    prompt = [rng.randrange(VOCAB) for _ in range(mix.prompt(rng))]
    lines = [
        Sequence(number, index, list(prompt), len(prompt), max_tokens=mix.answer(rng)) for index in range(rng.choice(mix.n))
    ]  # fmt: skip
    lines[0].followers = lines[1:]
    return lines[0]


def _step(scheduler: Scheduler, rng: Random) -> int:
    """Let every answer under way have a token; returns how many ended."""
    ended = 0
    for chunk in scheduler.plan().chunks:
        scheduler.advance(chunk)
        if not chunk.logit_positions:
            continue
        members = [chunk.sequence, *chunk.sequence.followers]
        scheduler.fork(chunk.sequence)
        for member in members:
            member.append(rng.randrange(VOCAB))
            if member.num_answer >= member.max_tokens:
                scheduler.finish(member)
                ended += 1
    return ended


def table(mixes: Iterable[Mix] = MIXES) -> list[str]:
    """The lines of docs/engine.md, with a row for each mix of lengths."""
    lines = [
        f"| lengths in tokens | tokens of a live text | {' | '.join(f'blocks of {size}' for size in BLOCK_SIZES)} |",
        "|---|---|" + "---|" * len(BLOCK_SIZES),
    ]
    for mix in mixes:
        found = [waste(mix, size) for size in BLOCK_SIZES]
        shares = " | ".join(f"{100 * each.share:.2f} %" for each in found)
        lines.append(f"| {mix.name} | {found[0].positions:.0f} | {shares} |")
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
