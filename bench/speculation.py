"""What guesses buy and cost: tokens per step and per second with prompt look-up, or a draft model, beside none.

    python bench/speculation.py MODEL.gguf [--draft SMALLER.gguf] [--batch 1 4 8] [--threads N]

Each text is answered without and with guesses, in turn, `--rounds` times, by one engine; the table gives medians of tokens
per second from the first token on. `repeats` are tasks whose answer quotes the prompt, as an agent does that edits a file
or reports a log; `free` are answers that have nothing to copy from. The first answer of a batch is greedy, the others are
sampled. Answers must be equal token for token, and their log-probs bit for bit where the engine promises it: the command
fails if they are not. On a busy machine `--threads 1 --cpu-time` measures the work done and not the wait for a core.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.sequence import Request
from firsthand.message import Message, Text
from firsthand.model import Sampling
from firsthand.nn import weights
from firsthand.tokens import pretrained
from firsthand.tokens.templates.chat_template import ChatTemplate

CODE = '''def total_price(items, tax_rate):
    """Return the price of all items with tax."""
    subtotal = 0.0
    for item in items:
        if item.quantity <= 0:
            raise ValueError("quantity must be positive")
        subtotal += item.price * item.quantity
    tax = subtotal * tax_rate
    return round(subtotal + tax, 2)


def discount(items, percent):
    """Return the items with a discount on each price."""
    result = []
    for item in items:
        price = item.price * (1 - percent / 100)
        result.append(Item(item.name, price, item.quantity))
    return result
'''
STORY = (
    "The harbour of Lisbon was quiet that morning. Three fishing boats lay at the pier, and an old man named Tomas mended "
    "his nets beside them. He had worked on the sea for fifty years, and he knew every rock between the lighthouse and the "
    "cape. When the storm of 1987 came, he was the only one who brought his boat back, with two boys from the village on "
    "board. Since then nobody in the harbour started a voyage without asking Tomas about the weather first."
)
PEOPLE = "Anna, 31, Berlin; Bela, 45, Budapest; Carlos, 22, Madrid; Dana, 38, Prague; Erik, 51, Oslo; Fatima, 29, Rabat"
LOG = """$ ls src
engine.py  runner.py  sampler.py  scheduler.py
$ wc -l src/engine.py
451 src/engine.py
$ grep -n "def step" src/engine.py
241:    def step(self) -> list[Output]:
"""
TEXTS = {
    "repeats: quote": f"Repeat the following text word for word:\n\n{STORY}",
    "repeats: edit": f"Copy the following text, but write Porto instead of Lisbon:\n\n{STORY}",
    "repeats: code": f"Rename `discount` to `reduced` in this file and give the whole file.\n\n```python\n{CODE}```",
    "repeats: JSON": f"Turn these people into a JSON list with the fields name, age and city: {PEOPLE}.",
    "repeats: log": f"Here is the log of a shell.\n\n{LOG}\nGive it again as a numbered list of commands with their output.",
    "free: story": "Write a story about a girl who finds a map in her grandfather's attic.",
    "free: explanation": "Explain how a bicycle stays upright.",
    "free: essay": "Write a short essay on why cities grew during the nineteenth century.",
}


Clock = Callable[[], float]


@dataclass(frozen=True)
class Timing:
    """One run of some equal requests."""

    answers: tuple[tuple[tuple[int, ...], tuple[float, ...]], ...]
    """Tokens and log-probs."""
    seconds: float
    """From the first token on."""
    steps: int
    drafted: int
    accepted: int

    @property
    def decoded(self) -> int:
        """Tokens after the first of each answer."""
        return sum(len(ids) - 1 for ids, _ in self.answers)


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    text: str
    batch: int
    tokens: int
    acceptance: float | None
    """Share of the guesses that were right."""
    tokens_per_step: float
    """Of each answer, where 1 is no guess at all."""
    plain_tokens_per_s: float
    tokens_per_s: float
    ratio: float
    ratio_low: float
    ratio_high: float


def measure(
    engine: Engine, ids: tuple[int, ...], stop_ids: frozenset[int], *, batch: int, max_tokens: int, clock: Clock
) -> Timing:
    """Answer one prompt `batch` times together; every answer but the first is sampled, so that they go different ways."""
    before = engine.stats()
    sampling = [Sampling(max_tokens=max_tokens, temperature=0.7 * (i > 0), seed=i) for i in range(batch)]
    requests = [engine.add(Request(ids, way, stop_ids=stop_ids)) for way in sampling]
    tokens: dict[int, list[int]] = {request_id: [] for request_id in requests}
    logprobs: dict[int, list[float]] = {request_id: [] for request_id in requests}
    started, first_steps = 0.0, 0
    while engine.has_work:
        for output in engine.step():
            if output.error is not None:
                raise output.error
            tokens[output.request_id] += output.token_ids
            logprobs[output.request_id] += output.logprobs
        if not started and all(tokens.values()):
            started, first_steps = clock(), engine.stats().steps
    seconds = clock() - started
    now = engine.stats()
    return Timing(
        tuple((tuple(tokens[i]), tuple(logprobs[i])) for i in requests),
        seconds,
        now.steps - first_steps,
        now.drafted_tokens - before.drafted_tokens,
        now.accepted_tokens - before.accepted_tokens,
    )


def compare(plain: list[Timing], guessed: list[Timing], name: str, batch: int, *, bits: bool) -> Row:
    """The two sides of a text; raises AssertionError if an answer differs."""
    for timing in (*plain, *guessed):
        for (ids, logprobs), (expected_ids, expected) in zip(timing.answers, plain[0].answers, strict=True):
            assert ids == expected_ids, f"{name}: guesses changed an answer"
            assert not bits or logprobs == expected, f"{name}: guesses changed a log-prob"
    rates = [[timing.decoded / timing.seconds for timing in side] for side in (plain, guessed)]
    ratios = sorted(after / before for before, after in zip(*rates, strict=True))
    last = guessed[-1]
    return Row(
        text=name,
        batch=batch,
        tokens=last.decoded,
        acceptance=last.accepted / last.drafted if last.drafted else None,
        tokens_per_step=last.decoded / (last.decoded - last.accepted),
        plain_tokens_per_s=statistics.median(rates[0]),
        tokens_per_s=statistics.median(rates[1]),
        ratio=statistics.median(ratios),
        ratio_low=ratios[0],
        ratio_high=ratios[-1],
    )


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| text | answers | tokens | right guesses | tokens a step | tokens/s without | with | ratio (range) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        right = "none made" if row.acceptance is None else f"{row.acceptance:.0%}"
        lines.append(
            f"| {row.text} | {row.batch} | {row.tokens} | {right} | {row.tokens_per_step:.2f} "
            f"| {row.plain_tokens_per_s:.0f} | {row.tokens_per_s:.0f} "
            f"| {row.ratio:.2f} ({row.ratio_low:.2f}-{row.ratio_high:.2f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure in turn and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--draft", type=Path, help="guess with this model instead of prompt look-up")
    parser.add_argument(
        "--keep-blocks", action="store_true", help="compute with the file's own blocks (int8), not float16"
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--draft-tokens", type=int, default=EngineConfig.draft_tokens)
    parser.add_argument("--speculate-below", type=int, default=EngineConfig.speculate_below)
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--cpu-time", action="store_true", help="CPU time of the engine's thread; needs --threads 1")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    parser.add_argument("--quick", action="store_true", help="two texts, two rounds")
    args = parser.parse_args()
    if args.cpu_time and args.threads != 1:
        parser.error("--cpu-time needs --threads 1: the time of other threads would not count")
    clock = time.thread_time if args.cpu_time else time.perf_counter
    tokenizer = pretrained.load(args.model)
    chat = ChatTemplate(tokenizer, tokenizer.chat_template)
    config = EngineConfig(
        threads=args.threads,
        speculation="off" if args.draft else "prompt_lookup",
        draft_tokens=args.draft_tokens,
        speculate_below=args.speculate_below,
    )
    engine = Engine(
        weights.load(args.model, keep_blocks=args.keep_blocks),
        config,
        draft=weights.load(args.draft, keep_blocks=args.keep_blocks) if args.draft else None,
    )
    speculator = engine.speculator
    texts = list(TEXTS.items())[:: 5 if args.quick else 1]
    rounds = 2 if args.quick else args.rounds
    rows: list[Row] = []
    for batch in args.batch:
        for name, text in texts:
            ids = tuple(chat.encode([Message("user", (Text(text),))]))
            sides: dict[bool, list[Timing]] = {False: [], True: []}
            for number in range(rounds + 1):
                for guessing in (False, True):
                    engine.speculator = speculator if guessing else None
                    timing = measure(
                        engine, ids, tokenizer.eos_ids, batch=batch, max_tokens=args.max_tokens, clock=clock
                    )
                    if number:  # the first warms up
                        sides[guessing].append(timing)
            exact = engine.weights == "int8" or (engine.weights == "float16" and args.threads == 1)
            rows.append(compare(sides[False], sides[True], name, batch, bits=exact))
            print(f"{name}, {batch}: {rows[-1].ratio:.2f}x", flush=True)
    how = f"draft model {args.draft.name}" if args.draft else "prompt look-up"
    machine = f"{platform.processor() or platform.machine()}, {args.threads} threads, load {os.getloadavg()[0]:.1f}"
    print(
        f"\n{args.model.name} ({engine.weights}), {how}, {machine}, {rounds} rounds in turn, medians of "
        f"{'CPU time' if args.cpu_time else 'wall time'}; "
        f"draft_tokens {args.draft_tokens}, speculate_below {args.speculate_below}\n"
    )
    print(table(rows))
    if args.json:
        args.json.write_text(
            json.dumps({"machine": machine, "how": how, "rows": [asdict(row) for row in rows]}, indent=1)
        )


if __name__ == "__main__":
    main()
