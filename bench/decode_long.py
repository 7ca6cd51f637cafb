"""Where the time of decoding one answer goes after a long context, against a short one: processor time of one thread.

    python bench/decode_long.py MODEL.gguf [--contexts 256 8127] [--kv-cache int8]

For each context a prompt of random tokens is computed, then steps of one answer are timed. Three parts of a step are timed
by themselves, on the engine's own memory: `head` in the step; `attention` and `products` alone, all layers in turn, so that
keys, values and weights come from where they come from in a step. What a call of Python costs is measured on a single
position and on a matrix of 16 outputs, and taken off. `rest` is what remains of the step: norms, rotation, rounding, new
keys and values, sampling. A multiplication and an addition of attention are two operations. Bytes a second are those of keys
and values over the time of attention, and those of weights over the time of products and head; beside them stands what one
thread reads of memory much larger than the caches. Processor time, so other programs disturb it only through the caches and
the memory that they share. For models whose layers all see everything.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np
import torch

from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.sequence import Request, Sequence
from firsthand.kernels.attention.paged_attention import Layout, PackedChunk, compiled_attention
from firsthand.kernels.products.blockwise import from_values
from firsthand.kernels.products.blockwise_products import product
from firsthand.kernels.products.float_products import dense_product
from firsthand.measure.measurements import markdown_table
from firsthand.measure.workloads import random_ids
from firsthand.model import Sampling
from firsthand.nn import weights
from firsthand.nn.quant import BlockLinear, DenseLinear

BEFORE = 3
"""Steps that are not timed."""


@dataclass(frozen=True)
class Step:
    """What one step of decoding takes, in ms, and the bytes that it reads."""

    context: int
    whole: float
    attention: float
    products: float
    head: float
    attention_operations: int
    kv_bytes: int
    body_bytes: int
    head_bytes: int

    @property
    def rest(self) -> float:
        """All that was not timed by itself."""
        return self.whole - self.attention - self.products - self.head


def milliseconds(call: Callable[[], object]) -> float:
    """Processor time of a call."""
    began = time.process_time()
    call()
    return 1e3 * (time.process_time() - began)


def decode(engine: Engine, context: int, turns: int, seed: int) -> Step:
    """The parts of a step after a prompt of that length: medians over turns, in each of which every part is timed once."""
    prompt = random_ids(Random(f"context {context} {seed}"), context, engine.architecture.vocab_size)
    request = engine.add(Request(prompt, Sampling(max_tokens=BEFORE + turns + 2)))
    while not any(output.request_id == request for output in engine.step()):
        pass
    for _ in range(BEFORE):
        engine.step()
    [sequence] = engine.scheduler.running
    layers = [linear for name, linear in matrices(engine) if name != "lm_head"]
    [head] = [linear for name, linear in matrices(engine) if name == "lm_head"]
    multiply_all = products(layers)
    taken = defaultdict(list)
    for _ in range(turns):
        whole, its_head = timed_step(engine)
        taken["whole"].append(whole)
        taken["head"].append(its_head)
        taken["attention"].append(milliseconds(attention(engine, sequence, sequence.num_computed)))
        taken["call of attention"].append(milliseconds(attention(engine, sequence, 1)))
        taken["products"].append(milliseconds(multiply_all))
    median = {part: statistics.median(values) for part, values in taken.items()}
    a = engine.architecture
    operations = 4 * a.num_layers * a.num_heads * a.head_dim * sequence.num_computed
    kv_bytes = sum(pages.bytes_per_token for pages in engine.runner.pages) * sequence.num_computed
    engine.abort(request)
    return Step(
        context,
        median["whole"],
        median["attention"] - median["call of attention"],
        median["products"] - len(layers) * call_of_product(turns),
        median["head"],
        operations,
        kv_bytes,
        sum(linear.tiles.memory.nbytes for linear in layers),
        head.tiles.memory.nbytes,
    )


def timed_step(engine: Engine) -> tuple[float, float]:
    """What one step took, and the head in it."""
    logits, heads = engine.runner.logits, []

    def timed_logits(*args):
        began = time.process_time()
        found = logits(*args)
        heads.append(1e3 * (time.process_time() - began))
        return found

    engine.runner.logits = timed_logits  # type: ignore[method-assign]
    try:
        return milliseconds(engine.step), sum(heads)
    finally:
        engine.runner.logits = logits  # type: ignore[method-assign]


def attention(engine: Engine, sequence: Sequence, end: int) -> Callable[[], None]:
    """Attention of the token before `end` in all layers; its own keys and values are overwritten by random ones."""
    a = engine.architecture
    random = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, n, a.head_dim, generator=random) for n in (a.num_heads, a.num_kv_heads, a.num_kv_heads))
    layout = Layout([PackedChunk(end - 1, end, list(sequence.table))], engine.pool.block_size, 1)

    def call() -> None:
        for pages in engine.runner.pages:
            compiled_attention(q, k, v, pages, layout, scale=a.attention_scale, window=None)

    return call


def products(linears: list[BlockLinear | DenseLinear]) -> Callable[[], object]:
    """Products of one row with all of these matrices, one after another."""
    rows = np.random.default_rng(0).standard_normal((1, max(each.in_features for each in linears)), dtype=np.float32)
    calls = [(multiply(each), np.ascontiguousarray(rows[:, : each.in_features]), each.tiles) for each in linears]
    return lambda: [call(x, tiles) for call, x, tiles in calls]


def call_of_product(turns: int) -> float:
    """What calling a product from Python takes, by one that has nearly nothing to do."""
    tiny = BlockLinear(from_values(np.ones((16, 32), dtype=np.float32)), None).tiles
    few = np.ones((1, 32), dtype=np.float32)
    return statistics.median(milliseconds(lambda: [product(few, tiny) for _ in range(100)]) / 100 for _ in range(turns))


def multiply(linear: BlockLinear | DenseLinear) -> Callable:
    """The function that multiplies with such weights."""
    return product if isinstance(linear, BlockLinear) else dense_product


def matrices(engine: Engine) -> list[tuple[str, BlockLinear | DenseLinear]]:
    """The model's matrices, in the order of a step."""
    modules = engine.runner.model.named_modules()
    return [(name, module) for name, module in modules if isinstance(module, BlockLinear | DenseLinear)]


def reading(turns: int) -> float:
    """GB/s of this thread's processor time, of memory much larger than the caches: the best of several turns."""
    words = np.ones(1 << 26, dtype=np.int64)
    taken = []
    for _ in range(max(turns // 2, 3)):
        began = time.process_time()
        np.bitwise_or.reduce(words)
        taken.append(time.process_time() - began)
    return words.nbytes / min(taken) / 1e9


def row(step: Step) -> list[str]:
    """A line of the table."""
    parts = (step.whole, step.attention, step.products, step.head, step.rest)
    speeds = (step.kv_bytes / step.attention, (step.body_bytes + step.head_bytes) / (step.products + step.head))
    return [
        f"{step.context:,}",
        *(f"{part:.2f}" for part in parts),
        f"{step.attention_operations / step.attention / 1e6:.0f}",
        f"{step.kv_bytes / 1e6:.1f}",
        *(f"{speed / 1e6:.1f}" for speed in speeds),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a GGUF file, or a folder")
    parser.add_argument("--contexts", type=int, nargs="+", default=[256, 8127])
    parser.add_argument("--steps", type=int, default=24, help="that are timed")
    parser.add_argument("--rounds", type=int, default=1, help="the contexts in turn, so many times")
    parser.add_argument("--weights", default="auto")
    parser.add_argument("--kv-cache", default="auto")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = EngineConfig(threads=1, weights=args.weights, kv_cache=args.kv_cache)
    engine = Engine(weights.load(args.model, keep_blocks=args.weights in ("auto", "int8")), config)
    if engine.runner.fused is None or any(engine.architecture.windows):
        parser.error("this model does not run in the compiled step, or has layers with a window")
    longest = engine.architecture.max_position - BEFORE - args.steps - 2
    decode(engine, 32, 2, -1)  # compiles
    with torch.inference_mode():
        steps = [
            decode(engine, min(n, longest), args.steps, turn) for turn in range(args.rounds) for n in args.contexts
        ]
    parts = ("whole step", "attention", "products", "head", "rest")
    header = ["context", *(f"{part}, ms" for part in parts), "attention, 10^9 operations/s"]
    header += ["keys and values, MB", "of them, GB/s", "of weights, GB/s"]
    print(markdown_table(header, [row(step) for step in steps]))
    print(
        f"\nOne thread reads {reading(args.steps):.1f} GB/s of memory; weights {engine.weights}, {args.kv_cache} keys."
    )
    for turn in range(args.rounds):
        mine = steps[turn * len(args.contexts) : (turn + 1) * len(args.contexts)]
        first, last = mine[0], mine[-1]
        grown = (last.whole - first.whole, last.attention - first.attention)
        print(
            f"Round {turn + 1}: {last.context:,} against {first.context:,} is {last.whole / first.whole:.2f}x; of the "
            f"{grown[0]:.2f} ms more attention alone tells {grown[1]:.2f}."
        )


if __name__ == "__main__":
    main()
