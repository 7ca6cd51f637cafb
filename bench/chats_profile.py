"""Where the time of the 32-chats job goes, and what the machine would allow: processor time of one thread.

    python bench/chats_profile.py MODEL.gguf [--rows 1 8 23 32 256]

Prints three tables as Markdown. The first says what the steps of the job cost, those with pieces of prompts apart: hidden
states (the compiled step), the head, and the Python around them. The second multiplies the model's own matrices by so many
rows, layer after layer as a step does, and gives billions of operations a second by shape and kind of weights. Beside it are
`in cache`, our loop over one tile that stays in the first-level cache, which no reading of weights slows, and torch's
bfloat16 and float32 products of the same shapes, which are the rivals'. The third adds the products up. Processor time, so
other programs disturb it only through the caches and the memory that they share.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from firsthand.engine.compute.runner import Runner
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.kernels.products import blockwise_products, rounded_rows, tiled_weights
from firsthand.measure.workloads import QUICK, WorkloadSizes, rate, serving_jobs
from firsthand.nn import weights
from firsthand.nn.quant import BlockLinear

TURNS = 3


@dataclass
class Cost:
    """What steps of one kind took."""

    steps: int = 0
    rows: int = 0
    hidden_s: float = 0.0
    head_s: float = 0.0
    step_s: float = 0.0
    """All of the step, the two above among it."""


@dataclass
class Meter:
    """A runner that keeps account of its processor time; otherwise the runner it stands for."""

    runner: Runner
    costs: dict[str, Cost] = field(default_factory=lambda: defaultdict(Cost))
    cost: Cost = field(default_factory=Cost)

    def __getattr__(self, name: str):
        return getattr(self.runner, name)

    def hidden(self, chunks) -> Tensor:
        """As the runner's."""
        rows = sum(chunk.end - chunk.start for chunk in chunks)
        is_decode = rows == len(chunks)
        self.cost = self.costs["decoding" if is_decode else "with pieces of prompts"]
        self.cost.steps, self.cost.rows = self.cost.steps + 1, self.cost.rows + rows
        began = time.process_time()
        found = self.runner.hidden(chunks)
        self.cost.hidden_s += time.process_time() - began
        return found

    def logits(self, *args):
        """As the runner's."""
        began = time.process_time()
        found = self.runner.logits(*args)
        self.cost.head_s += time.process_time() - began
        return found


def profile(engine: Engine, sizes: WorkloadSizes) -> dict[str, Cost]:
    """What the steps of the chats cost, by kind."""
    job = serving_jobs(sizes, vocab=engine.architecture.vocab_size, seed=1)[f"{sizes.chats} chats"]
    meter = Meter(engine.runner)
    engine.runner = meter  # type: ignore[assignment]
    step = engine.step

    def timed() -> list:
        began = time.process_time()
        outputs = step()
        meter.cost.step_s += time.process_time() - began
        return outputs

    engine.step = timed  # type: ignore[method-assign]
    rate(engine, job)
    engine.step, engine.runner = step, meter.runner  # type: ignore[method-assign]
    return meter.costs


def matrices(engine: Engine) -> dict[tuple[str, str], list[BlockLinear]]:
    """The blockwise matrices of the model by shape and kind of weights."""
    found: dict[tuple[str, str], list[BlockLinear]] = defaultdict(list)
    for name, module in engine.runner.model.named_modules():
        if isinstance(module, BlockLinear):
            kind = tiled_weights.KINDS[module.tiles.kind]
            what = f"{kind.bits} bits / {kind.block}{', minimums' if kind.has_minimums else ''}"
            place = "head" if name == "lm_head" else f"{module.out_features} x {module.in_features}"
            found[place, what].append(module)
    return found


def speed(call: Callable[[], None], operations: float) -> float:
    """Billions of operations a second of this thread's processor time: the median of a few turns."""
    call()
    seconds = []
    for _ in range(TURNS):
        began, calls = time.thread_time(), 0
        while time.thread_time() - began < 0.05:
            call()
            calls += 1
        seconds.append((time.thread_time() - began) / calls)
    return operations / statistics.median(seconds) / 1e9


def ours(linears: list[BlockLinear], rows: int) -> float:
    """Our products of all these matrices, one after another, so that weights come from where they come from in a step."""
    x = np.random.default_rng(0).standard_normal((rows, linears[0].in_features), dtype=np.float32)
    operations = 2.0 * rows * sum(each.out_features * each.in_features for each in linears)
    return speed(lambda: [blockwise_products.product(x, each.tiles) for each in linears] and None, operations)


def in_cache(linear: BlockLinear, rows: int) -> float:
    """Our loop over the matrix's first tile again and again, as if every tile were that one."""
    entry = np.array(linear.tiles.entry(), dtype=np.int64)
    entry[3] = 0  # bytes from one tile to the next
    width, outputs = linear.in_features, 16 * linear.tiles.num_tiles
    x = np.random.default_rng(0).standard_normal((rows, width), dtype=np.float32)
    records = np.empty(rows * width // rounded_rows.BLOCK * rounded_rows.RECORD, dtype=np.uint8)
    out = np.empty((rows, outputs), dtype=np.float32)
    return speed(lambda: blockwise_products._product(entry, x, records, out), 2.0 * rows * outputs * width)


def torchs(linears: list[BlockLinear], rows: int, dtype: torch.dtype) -> float:
    """torch's products of as many matrices of that shape."""
    outputs, inputs = linears[0].out_features, linears[0].in_features
    made = [torch.randn(outputs, inputs, dtype=dtype) for _ in range(min(len(linears), 12))]
    x = torch.randn(rows, inputs, dtype=dtype)
    with torch.inference_mode():
        return speed(
            lambda: [torch.nn.functional.linear(x, each) for each in made] and None,
            2.0 * rows * outputs * inputs * len(made),
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a GGUF file")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 23, 32, 256])
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    sizes = QUICK if args.quick else WorkloadSizes()
    engine = Engine(weights.load(args.model, keep_blocks=True), EngineConfig(threads=1))
    rate(engine, serving_jobs(QUICK, vocab=engine.architecture.vocab_size, seed=0)["8 chats"])  # compiles
    print(
        "| steps | number | rows each | hidden states, s | head, s | Python around, s | ms a row |\n" + "|---" * 7 + "|"
    )
    costs = profile(engine, sizes)
    for kind, cost in costs.items():
        rest = cost.step_s - cost.hidden_s - cost.head_s
        print(
            f"| {kind} | {cost.steps} | {cost.rows / cost.steps:.0f} | {cost.hidden_s:.2f} | {cost.head_s:.2f} | "
            f"{rest:.2f} | {1e3 * cost.step_s / cost.rows:.2f} |",
            flush=True,
        )
    print("\n| matrices | weights | rows | ours | in cache | torch bfloat16 | torch float32 |\n" + "|---" * 7 + "|")
    seconds_a_row: dict[str, dict[int, float]] = {"body": defaultdict(float), "head": defaultdict(float)}
    for (place, what), linears in matrices(engine).items():
        weights_in_all = sum(each.out_features * each.in_features for each in linears)
        for rows in args.rows:
            found = ours(linears, rows)
            part = seconds_a_row["head" if place == "head" else "body"]
            part[rows] += 2 * weights_in_all / found / 1e9
            others = (torchs(linears, rows, dtype) for dtype in (torch.bfloat16, torch.float32))
            numbers = [found, in_cache(linears[0], rows), *others]
            print(
                f"| {len(linears)} of {place} | {what} | {rows} | {' | '.join(f'{number:.0f}' for number in numbers)} |",
                flush=True,
            )
    print("\n| rows | products of the body, ms a row | of the head, ms a row |\n|---|---|---|")
    for rows in args.rows:
        body, head = seconds_a_row["body"][rows], seconds_a_row["head"][rows]
        print(f"| {rows} | {1e3 * body:.3f} | {1e3 * head:.3f} |")


if __name__ == "__main__":
    main()
