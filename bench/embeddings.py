"""Speed of embedding beside sentence-transformers, on documents of mixed length, and how far the vectors agree.

    python bench/embeddings.py MODEL_FOLDER CORPUS --rival-python /path/to/venv/bin/python

CORPUS is a text file, or .jsonl or .jsonl.gz with a `text` in each line; documents of 4 to 190 words are cut out of it,
drawn with a fixed seed. The rival needs `pip install sentence-transformers` in a virtual environment of its own; it is asked
at each of `--batch-sizes`, sorts by length itself, and has 32 as its default. Both load once and then work in turn.
`--calls 32 1` measures streaming too: both get the texts in calls of so many, in the order in which they come.
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
model = load(sys.argv[1], threads=int(sys.argv[2]))
def embed(texts, setting):
    return model.embed(texts).vectors
"""
THEIRS = """
import json, sys, time
import numpy as np, torch
torch.set_num_threads(int(sys.argv[2]))
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu")
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


class Worker:
    """A process that has a model loaded and embeds the same texts whenever it is asked."""

    def __init__(self, python: str, script: str, model: str, threads: int, texts: Path):
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        command = [python, "-c", script + SERVE, model, str(threads), str(texts)]
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
    name: str, runs: list[tuple[float, float]], ours: list[tuple[float, float]], count: int, difference: str
) -> str:
    """A line of the table: medians, and the median of the ratios of neighbouring runs."""
    wall = [count / each for each, _ in runs]
    spent = [count / each for _, each in runs]
    ratios = [theirs[0] / mine[0] for theirs, mine in zip(runs, ours, strict=True)]
    cpu_ratios = [theirs[1] / mine[1] for theirs, mine in zip(runs, ours, strict=True)]
    times = f"{statistics.median(ratios):.2f}x | {statistics.median(cpu_ratios):.2f}x" if runs is not ours else " | "
    return (
        f"| {name} | {statistics.median(wall):.1f} ({min(wall):.1f}-{max(wall):.1f}) | {statistics.median(spent):.1f} "
        f"| {times} | {difference} |"
    )


def main() -> None:
    """Measure in turn and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--rival-python")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32, 16, 8, 4])
    parser.add_argument("--calls", type=int, nargs="*", default=[], help="texts in a call, for streaming")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--longest", type=int, default=190, help="words")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.json"
        texts.write_text(json.dumps(documents(args.corpus, args.texts, args.longest)))
        mine = Worker(sys.executable, OURS, args.model, args.threads, texts)
        rival = Worker(args.rival_python, THEIRS, args.model, args.threads, texts) if args.rival_python else None
        sizes = args.batch_sizes if rival else []
        ours: list[tuple[float, float]] = []
        theirs: dict[int, list[tuple[float, float]]] = {size: [] for size in sizes}
        streams: dict[int, list[tuple[float, float]]] = {size: [] for size in args.calls}
        their_streams: dict[int, list[tuple[float, float]]] = {size: [] for size in args.calls if rival}
        vectors, others = Path(folder) / "ours.npy", Path(folder) / "theirs.npy"
        for _ in range(args.rounds):
            ours.append(mine.run(0, vectors))
            for size in sizes:
                assert rival is not None
                theirs[size].append(rival.run(size, others))
            for size in args.calls:
                streams[size].append(mine.run(-size, vectors))
                if rival:
                    their_streams[size].append(rival.run(-size, others))
        difference = f"{np.abs(np.load(vectors) - np.load(others)).max():.1e}" if rival else ""
    machine = f"{platform.processor() or platform.machine()}, {args.threads} threads, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}, {args.texts} texts of 4 to {args.longest} words, {args.rounds} rounds in turn, median (range)\n")
    print("| embedder | texts/s | texts a CPU second | ours against it | in CPU time | largest difference |")
    print("|---|---|---|---|---|---|")
    print(row("firsthand", ours, ours, args.texts, ""))
    for size, runs in theirs.items():
        print(row(f"sentence-transformers, batch_size={size}", runs, ours, args.texts, difference))
    for size, runs in streams.items():
        print(row(f"firsthand, calls of {size}", runs, runs, args.texts, ""))
        if rival:
            print(row(f"sentence-transformers, calls of {size}", their_streams[size], runs, args.texts, difference))


if __name__ == "__main__":
    main()
