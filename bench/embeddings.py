"""Speed of embedding beside sentence-transformers, on documents of mixed length, and how far the vectors agree.

    python bench/embeddings.py MODEL_FOLDER CORPUS --rival-python /path/to/venv/bin/python

CORPUS is a text file, or .jsonl or .jsonl.gz with a `text` in each line; documents of 4 to 190 words are cut out of it,
drawn with a fixed seed. The rival needs `pip install sentence-transformers` in a virtual environment of its own; it is asked
at each of `--batch-sizes`, sorts by length itself, and has 32 as its default. Both load once and then work in turn.
`--calls 32 1` measures streaming too: both get the texts in calls of so many, in the order in which they come.
`--bfloat16` adds both at that precision; every difference is to the float32 vectors of the rival.
Tokenisation is part of the time. Without --rival-python only our column is printed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

OURS = """
import json, sys, time
import numpy as np, torch
torch.set_num_threads(int(sys.argv[2]))
from firsthand.embed.embedding import load
model = load(sys.argv[1], threads=int(sys.argv[2]), precision=sys.argv[4])
def embed(texts, setting):
    return model.embed(texts).vectors
"""
THEIRS = """
import json, sys, time
import numpy as np, torch
torch.set_num_threads(int(sys.argv[2]))
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu", model_kwargs={"dtype": getattr(torch, sys.argv[4])})
def embed(texts, setting):
    return model.encode(texts, batch_size=setting, normalize_embeddings=True, show_progress_bar=False)
"""
SERVE = """
texts = json.load(open(sys.argv[3]))
def work(setting):
    if setting >= 0:
        return embed(texts, setting)
    return np.concatenate([embed(texts[at : at - setting], 32) for at in range(0, len(texts), -setting)])
embed(texts[:64], 32)
print("ready", flush=True)
for line in sys.stdin:
    setting, target = json.loads(line)
    wall, cpu = time.perf_counter(), time.process_time()
    vectors = work(setting)
    print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]), flush=True)
    np.save(target, vectors)
    print("saved", flush=True)
"""


RIVAL = "sentence-transformers"


class Worker:
    """A process that has a model loaded and embeds the same texts whenever it is asked."""

    def __init__(self, python: str, script: str, model: str, threads: int, texts: Path, precision: str):
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        command = [python, "-c", script + SERVE, model, str(threads), str(texts), precision]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.expect("ready")

    def expect(self, word: str) -> None:
        line = self.said()
        assert line == word, f"the worker said {line!r}"

    def said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def run(self, setting: int, target: Path) -> tuple[float, float]:
        """Seconds on the clock and of the processor."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([setting, str(target)]) + "\n")
        self.process.stdin.flush()
        wall_s, cpu_s = json.loads(self.said())
        self.expect("saved")
        return wall_s, cpu_s


def documents(corpus: Path, count: int, longest: int) -> list[str]:
    """Pieces of 4 to `longest` words, from a corpus."""
    rng = random.Random(0)
    data = corpus.read_bytes()
    text = (gzip.decompress(data) if corpus.suffix == ".gz" else data).decode()
    sources = [json.loads(line)["text"] for line in text.splitlines()] if ".jsonl" in corpus.name else [text]
    words = [text.split() for text in sources]
    found = []
    while len(found) < count:
        chosen, length = rng.choice(words), rng.randint(4, longest)
        start = rng.randrange(max(1, len(chosen) - length))
        found.append(" ".join(chosen[start : start + length]))
    return found


def row(
    name: str,
    runs: list[tuple[float, float]],
    against: list[list[tuple[float, float]] | None],
    count: int,
    difference: str,
) -> str:
    """A line of the table: medians, and the medians of the ratios of runs of one round."""
    wall = [count / each for each, _ in runs]
    spent = [count / each for _, each in runs]
    cells = [f"{statistics.median(wall):.1f} ({min(wall):.1f}-{max(wall):.1f})", f"{statistics.median(spent):.1f}"]
    for ours in against:
        pairs = list(zip(runs, ours, strict=True)) if ours else []
        ratios = [statistics.median(theirs[i] / mine[i] for theirs, mine in pairs) for i in (0, 1)] if pairs else []
        cells.append(", ".join(f"{ratio:.2f}x" for ratio in ratios))
    return f"| {name} | {' | '.join([*cells, difference])} |"


def main() -> None:
    """Measure in turn and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--rival-python")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32, 16, 8, 4])
    parser.add_argument("--calls", type=int, nargs="*", default=[], help="texts in a call, for streaming")
    parser.add_argument("--bfloat16", action="store_true", help="both rounded to bfloat16 too")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--longest", type=int, default=190, help="words")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.json"
        texts.write_text(json.dumps(documents(args.corpus, args.texts, args.longest)))
        pairs = [("float32", ""), ("bfloat16", ", bfloat16")][: 2 if args.bfloat16 else 1]
        workers = {
            f"firsthand{said}": Worker(sys.executable, OURS, args.model, args.threads, texts, kind)
            for kind, said in pairs
        }
        if args.rival_python:
            for kind, said in pairs:
                workers[f"{RIVAL}{said}"] = Worker(args.rival_python, THEIRS, args.model, args.threads, texts, kind)
        runs: dict[tuple[str, int], list[tuple[float, float]]] = {}
        vectors = Path(folder) / "vectors.npy"
        found: dict[str, np.ndarray] = {}
        for _ in range(args.rounds):
            for name, worker in workers.items():
                sizes = [0] if name.startswith("firsthand") else args.batch_sizes
                for size in [*sizes, *(-each for each in args.calls)]:
                    runs.setdefault((name, size), []).append(worker.run(size, vectors))
                    if size >= 0:
                        found[name] = np.load(vectors)
    machine = f"{platform.processor() or platform.machine()}, {args.threads} threads, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}, {args.texts} texts of 4 to {args.longest} words, {args.rounds} rounds in turn, median (range)\n")
    mine = [name for name in workers if name.startswith("firsthand")]
    print(
        "| embedder | texts/s | texts a CPU second |"
        + "".join(f" {name} vs. it, in CPU time |" for name in mine)
        + " difference |"
    )
    print("|---" * (4 + len(mine)) + "|")
    for (name, size), each in runs.items():
        how = f", calls of {-size}" if size < 0 else f", batch_size={size}" if size else ""
        against = [runs[ours, min(size, 0)] for ours in mine] if name.startswith(RIVAL) else [None] * len(mine)
        difference = f"{np.abs(found[name] - found[RIVAL]).max():.1e}" if RIVAL in found and size >= 0 else ""
        print(row(name + how, each, against, args.texts, difference))


if __name__ == "__main__":
    main()
