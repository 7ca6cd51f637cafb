"""Speed of the engine beside llama.cpp: prefill of 512 tokens, and decoding for 1, 8 and 32 sequences.

    python bench/engine.py MODEL.gguf --rival-python /path/to/venv/bin/python

The rival needs `pip install llama-cpp-python` in a virtual environment of its own (it is built from source). Ours and theirs
run in turn, each in a fresh process, `--rounds` times; the table gives medians and the range. llama-cpp-python's Python API
decodes one sequence at a time, so it has no rows for 8 and 32. Without --rival-python only our column is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys

FIGURES = ["prefill 512", "decode 1", "decode 8", "decode 32"]
NEW_TOKENS = 64
OURS = """
import json, sys, time
from firsthand.engine.engine import Engine, EngineConfig
from firsthand.engine.sequence import Request
from firsthand.model import Sampling
from firsthand.nn import weights
model, threads, new = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
engine = Engine(weights.load(model), EngineConfig(threads=threads))
def run(count, length, tokens, salt):
    for i in range(count):
        prompt = tuple(100 + (i * 977 + j * 31 + salt * 7919) % 40000 for j in range(length))
        engine.add(Request(prompt, Sampling(max_tokens=tokens)))
    started = last = time.perf_counter()
    first, outputs = None, 0
    while engine.has_work:
        outputs += len(engine.step())
        last = time.perf_counter()
        if first is None and outputs >= count:
            first = last
    return first - started, last - first
run(1, 512, 4, 0), run(32, 8, 4, 1)
found = {"prefill 512": 512 / run(1, 512, 2, 2)[0]}
for count in (1, 8, 32):
    found[f"decode {count}"] = count * (new - 1) / run(count, 16, new, 10 + count)[1]
print(json.dumps(found))
"""
THEIRS = """
import json, sys, time
from llama_cpp import Llama
model, threads, new = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
llm = Llama(model, n_ctx=2048, n_batch=512, n_threads=threads, n_threads_batch=threads, verbose=False)
def prefill(salt, length):
    llm.reset()
    started = time.perf_counter()
    llm.eval([100 + (j * 31 + salt * 7919) % 40000 for j in range(length)])
    return time.perf_counter() - started
prefill(0, 512)
found = {"prefill 512": 512 / prefill(2, 512)}
prefill(11, 16)
started = time.perf_counter()
for _ in range(new - 1):
    llm.eval([llm.sample(temp=0.0)])
found["decode 1"] = (new - 1) / (time.perf_counter() - started)
print(json.dumps(found))
"""


def measure(python: str, script: str, model: str, threads: int) -> dict[str, float]:
    """Tokens per second by figure, from a fresh process."""
    command = [python, "-c", script, model, str(threads), str(NEW_TOKENS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def cell(values: list[float]) -> str:
    """A median and its range."""
    return f"{statistics.median(values):.0f} ({min(values):.0f}-{max(values):.0f})" if values else ""


def main() -> None:
    """Measure in turn and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rival-python")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    for _ in range(args.rounds):
        ours.append(measure(sys.executable, OURS, args.model, args.threads))
        if args.rival_python:
            theirs.append(measure(args.rival_python, THEIRS, args.model, args.threads))
    print(f"{platform.processor() or platform.machine()}, {args.threads} threads, load {os.getloadavg()[0]:.1f}, "
          f"{args.rounds} rounds in turn, tokens/s, median (range)\n")  # fmt: skip
    print("| figure | firsthand | llama.cpp | ratio |\n|---|---|---|---|")
    for figure in FIGURES:
        mine = [each[figure] for each in ours]
        rival = [each[figure] for each in theirs if figure in each]
        ratio = f"{statistics.median(mine) / statistics.median(rival):.2f}x" if rival else ""
        print(f"| {figure} | {cell(mine)} | {cell(rival)} | {ratio} |")


if __name__ == "__main__":
    main()
