"""What a grammar costs in tokens per second, and what jump-ahead wins back: constrained answers beside free ones.

    python bench/grammar.py MODEL.gguf [--batch 1 8] [--threads N]

Each text is answered free, under its grammar token by token, and under its grammar with jump-ahead, in turn, `--rounds`
times, by one engine; tokens per second count from the first token on. `any words` is a grammar that forbids nothing but
control tokens, so it shows what masks cost and nothing else. Under a grammar the last two must be equal token for token:
the command fails if they are not. On a busy machine `--threads 1 --cpu-time` counts the work of all threads, masks
included, and not the wait for a core.
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

from firsthand import grammar
from firsthand.engine.core import step
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.scheduler import Scheduler
from firsthand.engine.core.sequence import Request
from firsthand.engine.decoding.constraint import CompiledGrammar, Grammars
from firsthand.grammar import Grammar
from firsthand.message import Message, Text
from firsthand.model import Sampling
from firsthand.nn import weights
from firsthand.tokens import pretrained
from firsthand.tokens.templates.chat_template import ChatTemplate

PERSON = {
    "type": "object",
    "properties": {
        "full_name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "occupation": {"type": "string", "maxLength": 60},
        "is_retired": {"type": "boolean"},
    },
    "required": ["full_name", "age", "occupation", "is_retired"],
    "additionalProperties": False,
}
REVIEW = {
    "type": "object",
    "properties": {
        "reasoning": {"type": "string", "minLength": 200, "maxLength": 800},
        "score": {"type": "integer", "minimum": 1, "maximum": 5},
    },
    "required": ["reasoning", "score"],
    "additionalProperties": False,
}
CASES: dict[str, tuple[str, Grammar]] = {
    "any words": ("Explain how a bicycle stays upright.", grammar.regex(r"(?s:.*)")),
    "a long string": (
        "Review the book Moby Dick as JSON, with your reasoning and a score.",
        grammar.json_schema(REVIEW),
    ),
    "records": (
        "Invent six people as a JSON list with their full name, age, occupation, and whether they are retired.",
        grammar.json_schema({"type": "array", "minItems": 6, "maxItems": 6, "items": PERSON}),
    ),
}
SIDES = ("free", "masks", "jump")


@dataclass(frozen=True)
class Timing:
    """One run of some equal requests."""

    answers: tuple[tuple[int, ...], ...]
    seconds: float
    """From the first token on."""
    forced: int

    @property
    def rate(self) -> float:
        """Tokens per second after the first of each answer."""
        return sum(len(ids) - 1 for ids in self.answers) / self.seconds


@dataclass(frozen=True)
class Row:
    """A line of the table: rates are medians, ratios those of runs next to each other."""

    text: str
    batch: int
    tokens: int
    free: float
    masks: float
    jump: float
    masks_ratio: float
    masks_low: float
    masks_high: float
    jump_ratio: float
    forced_share: float


def measure(
    engine: Engine,
    ids: tuple[int, ...],
    stop_ids: frozenset[int],
    compiled: CompiledGrammar | None,
    *,
    batch: int,
    max_tokens: int,
    clock: Callable[[], float],
) -> Timing:
    """Answer one prompt `batch` times together; every answer but the first is sampled, so that they go different ways."""
    before = engine.stats().forced_tokens
    sampling = [Sampling(max_tokens=max_tokens, temperature=0.7 * (i > 0), seed=i) for i in range(batch)]
    asked = [engine.add(Request(ids, way, stop_ids=stop_ids, grammar=compiled)) for way in sampling]
    tokens: dict[int, list[int]] = {request_id: [] for request_id in asked}
    started = 0.0
    while engine.has_work:
        for output in engine.step():
            if output.error is not None:
                raise output.error
            tokens[output.request_id] += output.token_ids
        if not started and all(tokens.values()):
            started = clock()
    return Timing(tuple(tuple(tokens[i]) for i in asked), clock() - started, engine.stats().forced_tokens - before)


def compare(name: str, batch: int, runs: dict[str, list[Timing]]) -> Row:
    """The sides of a text; raises AssertionError if jump-ahead changed an answer."""
    assert all(run.answers == runs["masks"][0].answers for side in ("masks", "jump") for run in runs[side]), name
    rates = {side: [run.rate for run in runs[side]] for side in SIDES}
    masks = sorted(after / before for before, after in zip(rates["free"], rates["masks"], strict=True))
    jumps = [after / before for before, after in zip(rates["free"], rates["jump"], strict=True)]
    count = sum(map(len, runs["jump"][0].answers))
    return Row(
        name,
        batch,
        count,
        *(statistics.median(rates[side]) for side in SIDES),
        masks_ratio=statistics.median(masks),
        masks_low=masks[0],
        masks_high=masks[-1],
        jump_ratio=statistics.median(jumps),
        forced_share=runs["jump"][0].forced / count,
    )


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| text | answers | tokens | forced | tokens/s free | masks | and jump-ahead | masks/free (range) | jump/free |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row.text} | {row.batch} | {row.tokens} | {row.forced_share:.0%} | {row.free:.0f} | {row.masks:.0f} "
            f"| {row.jump:.0f} | {row.masks_ratio:.2f} ({row.masks_low:.2f}-{row.masks_high:.2f}) | {row.jump_ratio:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure in turn and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--max-tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--cpu-time", action="store_true", help="CPU time of the process; needs --threads 1")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    args = parser.parse_args()
    if args.cpu_time and args.threads != 1:
        parser.error("--cpu-time needs --threads 1: threads that wait for each other spin")
    clock = time.process_time if args.cpu_time else time.perf_counter
    tokenizer = pretrained.load(args.model)
    chat = ChatTemplate(tokenizer, tokenizer.chat_template)
    engine = Engine(weights.load(args.model, keep_blocks=True), EngineConfig(threads=args.threads))
    compiled = {name: Grammars(tokenizer).compile(each) for name, (_, each) in CASES.items()}
    jump_ahead = step.jump_ahead
    rows: list[Row] = []
    for batch in args.batch:
        for name, (text, _) in CASES.items():
            ids = tuple(chat.encode([Message("user", (Text(text),))]))
            runs: dict[str, list[Timing]] = {side: [] for side in SIDES}
            for number in range(args.rounds + 1):
                for side in SIDES:
                    step.jump_ahead = jump_ahead if side == "jump" else _stay
                    used = None if side == "free" else compiled[name]
                    timing = measure(
                        engine, ids, tokenizer.eos_ids, used, batch=batch, max_tokens=args.max_tokens, clock=clock
                    )
                    if number:  # the first warms up
                        runs[side].append(timing)
            rows.append(compare(name, batch, runs))
            print(f"{name}, {batch}: {rows[-1].masks_ratio:.2f}, {rows[-1].jump_ratio:.2f}", flush=True)
    machine = f"{platform.processor() or platform.machine()}, {args.threads} threads, load {os.getloadavg()[0]:.1f}"
    print(
        f"\n{args.model.name} ({engine.weights}), {machine}, {args.rounds} rounds in turn, medians of "
        f"{'CPU time' if args.cpu_time else 'wall time'}\n"
    )
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1))


def _stay(scheduler: Scheduler) -> None:
    """No jump-ahead."""


if __name__ == "__main__":
    main()
