"""Cost of a tapped request beside an untapped one, by the modules and by the compiled step, on one model.

`python bench/taps.py MODEL [--layer 8] [--tokens 48] [--prompt 64] [--repeats 5] [--threads 1]`. Each turn is one request,
greedy, in an engine of its own: untapped by the compiled step; untapped by the modules (blocks of 24 slots, which the
compiled step does not take); tapped by a linear monitor, which reads one site; and tapped by an edit. Turns alternate.
Reported: milliseconds a token, of wall time or with one thread of CPU time, median and range, and ratios to the modules.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from firsthand.engine.compute.request_taps import RequestTaps
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.sequence import Request
from firsthand.hub.fetch_model import fetch_model
from firsthand.model import Sampling
from firsthand.nn.activation_monitor import ActivationMonitor
from firsthand.nn.weights import load


def turn(engine: Engine, args: argparse.Namespace, taps: RequestTaps | None, clock: Callable[[], float]) -> float:
    """Milliseconds a token of one request."""
    prompt = tuple(range(100, 100 + args.prompt))
    began = clock()
    engine.add(Request(prompt, Sampling(temperature=0, max_tokens=args.tokens), taps=taps))
    while engine.has_work:
        engine.step()
    seconds = clock() - began
    engine.scheduler.restart()  # no turn finds the last one's prefix
    return 1000 * seconds / (args.tokens + args.prompt)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    for name, default in (("layer", 8), ("tokens", 48), ("prompt", 64), ("repeats", 5), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.threads == 1 else time.perf_counter
    path, site = fetch_model(args.model), f"blocks.{args.layer}.resid.post"
    engines = {
        block: Engine(load(path), EngineConfig(block_size=block, threads=args.threads, kv_memory_bytes=64 << 20))
        for block in (16, 24)
    }
    monitor = ActivationMonitor(site, torch.randn(engines[16].architecture.hidden_size))
    found: list[float] = []
    reads = RequestTaps({site: lambda values, positions, index: found.extend(monitor.scores(values))}, edits=False)
    edits = RequestTaps({site: lambda values, positions, index: values * 1.0})
    ways: dict[str, tuple[int, RequestTaps | None]] = {
        "untapped, modules": (24, None), "read by a monitor, modules": (24, reads), "edited, modules": (24, edits),
        "untapped, compiled": (16, None), "read by a monitor, beside compiled": (16, reads),
    }  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(args.repeats + 1):
        for name, (block, taps) in ways.items():
            spent = turn(engines[block], args, taps, clock)
            if repeat:
                times[name].append(spent)
    base = statistics.median(times["untapped, modules"])
    for name, each in times.items():
        middle = statistics.median(each)
        print(f"{name:<36} {middle:7.2f} ms a token ({min(each):.2f} to {max(each):.2f})  {middle / base:.2f}x")


if __name__ == "__main__":
    main()
