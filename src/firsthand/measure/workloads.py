"""The workloads of `firsthand bench` and bench/engine.py: serving jobs, and how a workload gives metrics.

Serving jobs are plain prompts with answer lengths: any engine can run them, and bench/ gives the same ones to other
engines. Prompts are random token ids, so that no cache helps by accident; the same seed gives the same ids. Workloads
that need prefix caching are in `agent_workloads.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Generic, TypeVar

from torch import nn

from firsthand.engine.core.engine import Engine
from firsthand.engine.core.outputs import Output
from firsthand.engine.core.sequence import Request
from firsthand.message import Json
from firsthand.model import Sampling
from firsthand.nn.quant import BlockLinear, DenseLinear

Ids = tuple[int, ...]
S = TypeVar("S")
"""The type a workload runs on: an Engine, or a TextEmbedder."""


@dataclass(frozen=True)
class WorkloadSizes:
    """Sizes of all workloads."""

    prefill: int = 512
    """Tokens of the prompt whose prefill is timed."""
    context: int = 200
    """Tokens of the prompts before decoding is timed."""
    new_tokens: int = 64
    """Tokens decoded while timing."""
    streams: tuple[int, ...] = (1, 8, 32)
    """Numbers of sequences decoded together."""
    chats: int = 32
    """Conversations that arrive at once."""
    chat_prompt: tuple[int, int] = (50, 300)
    """Shortest and longest of their prompts, in tokens."""
    chat_answer: tuple[int, int] = (64, 128)
    """Shortest and longest of their answers, in tokens."""
    short: int = 256
    long: int = 8192
    """Contexts whose decoding is compared; the longer one is cut to the model's context."""
    prefix: int = 1024
    branches: int = 32
    suffix: int = 32
    """Branches that share a prefix, and the tokens of each one's suffix and answer."""
    turn: int = 300
    answer: int = 64
    next_turn: int = 60
    """Prompt and answer of an agent's first turn, and the new tokens of its second."""
    breadth: int = 5
    steps: int = 3
    proposals: int = 8
    problem: int = 512
    thought: int = 48
    question: int = 24
    """A tree of thoughts (Yao et al., 2023): states kept, steps, proposals for each state; tokens of the problem, of a
    thought, and of the question that values a thought."""
    examples: int = 250
    tasks: int = 100
    question_tokens: tuple[int, int] = (20, 60)
    choices: int = 4
    choice_tokens: tuple[int, int] = (2, 8)
    """Multiple choice with the lengths of five-shot ARC-Easy: tokens of the examples, number of questions, tokens of a
    question (shortest and longest), choices of each, tokens of a choice."""
    documents: int = 400
    words: tuple[int, int] = (4, 190)
    """Number of texts to embed, and the shortest and longest in words."""


QUICK = WorkloadSizes(
    prefill=128,
    context=32,
    new_tokens=12,
    chats=8,
    chat_prompt=(20, 60),
    chat_answer=(8, 16),
    short=64,
    long=512,
    prefix=128,
    branches=8,
    suffix=8,
    turn=60,
    answer=10,
    next_turn=20,
    breadth=2,
    steps=2,
    proposals=4,
    problem=64,
    thought=8,
    question=8,
    examples=40,
    tasks=6,
    question_tokens=(8, 16),
    documents=24,
    words=(4, 60),
)
"""A smoke run: every workload, too short for meaningful numbers."""


@dataclass(frozen=True)
class ServingJob:
    """Prompts that arrive at once, each with the length of its answer in tokens."""

    name: str
    prompts: tuple[Ids, ...]
    max_tokens: tuple[int, ...]

    @property
    def positions(self) -> int:
        """KV positions that it needs, if nothing is shared."""
        return sum(map(len, self.prompts)) + sum(self.max_tokens)

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt with its answer."""
        return max(len(prompt) + new for prompt, new in zip(self.prompts, self.max_tokens, strict=True))

    def to_json(self) -> Json:
        """Returns the job as a JSON object."""
        return {"name": self.name, "prompts": [list(ids) for ids in self.prompts], "max_tokens": list(self.max_tokens)}


@dataclass(frozen=True)
class Timing:
    """The duration of a job."""

    first_s: float
    """Seconds until every answer had its first token."""
    total_s: float
    output_tokens: int
    decode_tokens: int
    """Tokens generated after every answer had its first."""

    @property
    def decode_s(self) -> float:
        """Seconds after every answer had its first token."""
        return self.total_s - self.first_s


@dataclass(frozen=True)
class Metric:
    """One number that a workload gives."""

    name: str
    unit: str
    meaning: str
    """A sentence for readers of the table."""


@dataclass(frozen=True)
class Workload(Generic[S]):
    """Something to run on an engine, and the metrics it gives."""

    figures: tuple[Metric, ...]
    positions: int
    """KV positions that it needs."""
    longest: int
    """Tokens of its longest sequence."""
    measure: Callable[[S, int], Sequence[float]]
    """Runs it on the engine or embedder with prompts of a seed; returns a value for each metric."""
    needs_kernels: bool = False
    """True if it measures our kernels alone, so that the model must run in them."""

    @property
    def name(self) -> str:
        """The name of its first metric."""
        return self.figures[0].name


def serving(sizes: WorkloadSizes, *, vocab: int) -> list[Workload[Engine]]:
    """Returns the serving jobs as workloads, for a model with this vocabulary size."""
    return [_serving(name, sizes, vocab) for name in serving_jobs(sizes, vocab=vocab, seed=0)]


def serving_jobs(sizes: WorkloadSizes, *, vocab: int, seed: int) -> dict[str, ServingJob]:
    """Returns the jobs that any engine can run, by the name of their metric."""
    random = Random(f"serving {seed}")
    prefill = ServingJob(f"prefill {sizes.prefill}", (random_ids(random, sizes.prefill, vocab),), (2,))
    jobs = [prefill]
    for count in sizes.streams:
        prompts = tuple(random_ids(random, sizes.context, vocab) for _ in range(count))
        jobs.append(ServingJob(f"decode {count}", prompts, (sizes.new_tokens + 1,) * count))
    lengths = Random("lengths of chats")  # independent of the seed, so that rounds can be compared
    shapes = [(lengths.randint(*sizes.chat_prompt), lengths.randint(*sizes.chat_answer)) for _ in range(sizes.chats)]
    prompts = tuple(random_ids(random, length, vocab) for length, _ in shapes)
    jobs.append(ServingJob(f"{sizes.chats} chats", prompts, tuple(new for _, new in shapes)))
    return {job.name: job for job in jobs}


def random_ids(random: Random, count: int, vocab: int) -> Ids:
    """Returns token ids from the middle of the vocabulary, away from special tokens."""
    return tuple(random.randrange(vocab // 8, vocab - vocab // 8) for _ in range(count))


def run(engine: Engine, job: ServingJob, *, after_step: Callable[[], None] = lambda: None) -> Timing:
    """Run a job to its end, its prompts arriving at once."""
    started = first = last = time.perf_counter()
    for prompt, new in zip(job.prompts, job.max_tokens, strict=True):
        engine.add(Request(prompt, Sampling(max_tokens=new)))
    begun: set[tuple[int, int]] = set()
    output_tokens = tokens_at_first = 0
    while engine.has_work:
        outputs = raise_errors(engine.step())
        last = time.perf_counter()
        output_tokens += sum(len(output.token_ids) for output in outputs)
        after_step()
        if len(begun) < len(job.prompts):
            begun |= {(output.request_id, output.index) for output in outputs}
            first, tokens_at_first = last, output_tokens
    return Timing(first - started, last - started, output_tokens, output_tokens - tokens_at_first)


def rate(engine: Engine, job: ServingJob, *, after_step: Callable[[], None] = lambda: None) -> float:
    """Returns the tokens/s that a serving job measures."""
    kind = job.name.split()[0]
    if kind == "decode":  # prompts first, so that all answers start in the same step, as in other engines
        run(engine, ServingJob("", job.prompts, (1,) * len(job.prompts)))
    timing = run(engine, job, after_step=after_step)
    if kind == "prefill":
        return len(job.prompts[0]) / timing.first_s
    return timing.decode_tokens / timing.decode_s if kind == "decode" else timing.output_tokens / timing.total_s


@dataclass
class KVWaste:
    """KV positions that running sequences have allocated and do not use, summed over the ends of steps."""

    allocated: int = 0
    used: int = 0

    @property
    def percent(self) -> float:
        """Percent of the allocated positions; 0 if there were none."""
        return 100 * (1 - self.used / self.allocated) if self.allocated else 0.0

    def look(self, engine: Engine) -> None:
        """Add the engine's current sequences. Blocks that two of them share count for each."""
        pool = engine.pool
        for sequence in engine.scheduler.running:
            for part, blocks in pool.split(sequence.table):
                gone = sum(block == part.null_block for block in blocks)  # blocks behind a window were released
                self.allocated += (len(blocks) - gone) * pool.block_size
                self.used += sequence.num_computed - gone * pool.block_size


def raise_errors(outputs: list[Output]) -> list[Output]:
    """Returns the outputs; raises the first error among them."""
    for output in outputs:
        if output.error is not None:
            raise output.error
    return outputs


def _serving(name: str, sizes: WorkloadSizes, vocab: int) -> Workload[Engine]:
    """Returns one of the serving jobs as a workload."""
    job = serving_jobs(sizes, vocab=vocab, seed=0)[name]
    meaning = {
        "prefill": f"a prompt of {sizes.prefill} tokens, until the first token of its answer",
        "decode": f"{len(job.prompts)} at a time, each after {sizes.context} tokens, which are not in the time",
    }.get(
        name.split()[0],
        "answers of {}-{} tokens to prompts of {}-{}, all arriving at once, prompts included in the time".format(
            *sizes.chat_answer, *sizes.chat_prompt
        ),
    )

    def measure(engine: Engine, seed: int) -> list[float]:
        return [rate(engine, serving_jobs(sizes, vocab=vocab, seed=seed)[name])]

    def measure_chats(engine: Engine, seed: int) -> list[float]:
        waste = KVWaste()
        found = rate(engine, serving_jobs(sizes, vocab=vocab, seed=seed)[name], after_step=lambda: waste.look(engine))
        return [found, waste.percent]

    figure = Metric(name, "tokens/s", meaning)
    if not name.endswith("chats"):
        return Workload((figure,), job.positions, job.longest, measure)
    unused = Metric(f"{name}: KV waste", "%", "KV cache that is allocated and not used, at the ends of all steps")
    return Workload((figure, unused), job.positions, job.longest, measure_chats)


def weights_read(engine: Engine) -> tuple[int, int]:
    """Returns the weights one decode step uses and their bytes: all but the embedding table."""
    parameters = size_bytes = 0
    for module in engine.runner.model.modules():
        if isinstance(module, (BlockLinear, DenseLinear)):
            parameters += module.in_features * module.out_features
            size_bytes += module.tiles.memory.nbytes
        elif isinstance(module, nn.Linear):
            parameters += module.weight.numel()
            size_bytes += module.weight.nbytes
    return parameters, size_bytes
