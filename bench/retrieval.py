"""The index of chunks: speed and recall of searches beside other stores, filters, growth, and kills during ingest.

    python bench/retrieval.py store [--count 100000] [--rival-python VENV/bin/python]
    python bench/retrieval.py filters [--count 100000]
    python bench/retrieval.py million [--counts 10000,100000,1000000] [--ann]
    python bench/retrieval.py ingest-kill [--kills 30] [--count 100000]

Chunks are synthetic: vectors in clusters of Zipf sizes with few strong directions, texts of 79 words of a Zipf vocabulary of
60,000. Times are of the processor (all threads of the process), so that a busy machine counts little; medians over queries.
"hybrid" is by vector and by terms, 100 hits each, fused by reciprocal rank. The rivals need a virtual environment of their
own: `pip install chromadb lancedb pandas langchain-core llama-index-core numpy`; each stores the same vectors with its
defaults and searches by vector with the same filter.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.document import Document
from firsthand.retrieval.retriever import Filter, Hit
from firsthand.retrieval.store.sqlite_index import SqliteIndex, open_index

DIMENSION, VOCABULARY, WORDS, PER_DOCUMENT = 384, 60_000, 79, 10
HEADER = IndexHeader("synthetic", "synthetic", DIMENSION, "synthetic")
SHARES = {"100 %": 10_000, "10 %": 1000, "1 %": 100, "0.1 %": 10}
"""Filters: the chunks whose "share", uniform from 0 to 9,999, is below this."""


class Corpus:
    """Synthetic chunks that are made again with equal seeds."""

    def __init__(self, count: int, seed: int = 0):
        self.count = count
        rng = np.random.default_rng(seed)
        spread = np.r_[np.ones(40), np.full(DIMENSION - 40, 0.15)]
        self.centres = rng.normal(size=(500, DIMENSION)) * spread
        self.spread = spread
        self.cluster = 1 / np.arange(1, 501)
        self.cluster /= self.cluster.sum()
        frequency = 1 / np.arange(1, VOCABULARY + 1)
        self.cumulative = np.cumsum(frequency / frequency.sum())

    def vectors(self, count: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        rows = self.centres[rng.choice(500, size=count, p=self.cluster)]
        rows = rows + 0.5 * rng.normal(size=(count, DIMENSION)) * self.spread
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def words(self, count: int, seed: int) -> list[str]:
        drawn = np.searchsorted(self.cumulative, np.random.default_rng(seed).random(count))
        return [f"w{word}" for word in drawn.tolist()]

    def documents(self, first: int = 0) -> Iterator[IndexedDocument]:
        for number in range(first, -(-self.count // PER_DOCUMENT)):
            yield self.document(number)

    def document(self, number: int) -> IndexedDocument:
        words = self.words(WORDS * PER_DOCUMENT, 1_000_003 + number)
        texts = [" ".join(words[n * WORDS : (n + 1) * WORDS]) + "\n" for n in range(PER_DOCUMENT)]
        share = random.Random(number).randrange(10_000)
        meta = {"share": share, "language": "en" if share % 2 else "de"}
        document, chunks, at = Document(f"d{number}", "".join(texts), meta=meta), [], 0
        for text in texts:
            chunks.append(Chunk(document.id, at, at + len(text), text, meta=meta))
            at += len(text)
        return IndexedDocument(document, chunks, self.vectors(PER_DOCUMENT, 2_000_003 + number))

    def queries(self, count: int) -> list[tuple[np.ndarray, str]]:
        vectors = self.vectors(count, 99)
        return [(vectors[n], " ".join(self.words(4, 500 + n))) for n in range(count)]


def milliseconds(work: Callable[[int], object], count: int) -> tuple[float, float]:
    """Median and 95th percentile of processor time; the first two calls do not count."""
    work(0), work(1)
    times = []
    for number in range(count):
        began = time.process_time()
        work(number)
        times.append(1e3 * (time.process_time() - began))
    return statistics.median(times), float(np.percentile(times, 95))


def exact(corpus: Corpus, queries: list[tuple[np.ndarray, str]], below: int) -> list[set[str]]:
    """The documents and starts of the best 10 chunks, by float32 vectors."""
    kept, names = [], []
    for each in corpus.documents():
        if each.document.meta["share"] < below:
            kept.append(each.vectors)
            names += [f"{each.document.id}:{chunk.start}" for chunk in each.chunks]
    if not names:
        raise SystemExit(f"no chunk of {corpus.count} passes: give a larger --count")
    rows = np.concatenate(kept)
    return [{names[n] for n in np.argsort(-(rows @ vector), kind="stable")[:10]} for vector, _ in queries]


def recall(found: list[set[str]], expected: list[set[str]]) -> float:
    pairs = [(len(a & b), len(b)) for a, b in zip(found, expected, strict=True) if b]
    return sum(hit for hit, _ in pairs) / max(1, sum(size for _, size in pairs))


def names_of(hits: list[Hit]) -> set[str]:
    return {f"{hit.chunk.document}:{hit.chunk.start}" for hit in hits}


def built(corpus: Corpus, path: Path) -> tuple[SqliteIndex, float]:
    """The index of a corpus, and the processor's seconds of storing it, without those of making it."""
    index, made = open_index(path, HEADER), 0.0

    def documents() -> Iterator[IndexedDocument]:
        nonlocal made
        for number in range(-(-corpus.count // PER_DOCUMENT)):
            began = time.process_time()
            document = corpus.document(number)
            made += time.process_time() - began
            yield document

    began = time.process_time()
    receipt = index.put(documents())
    assert not receipt.failed
    return index, time.process_time() - began - made


def store(options: argparse.Namespace, folder: Path) -> None:
    """One query over all chunks: ours by vector, by terms and hybrid, with and without a filter, and the rivals."""
    corpus = Corpus(options.count)
    queries = corpus.queries(options.queries)
    index, seconds = built(corpus, folder / "ours.index")
    index.close()
    began = time.process_time()
    index = open_index(folder / "ours.index", read_only=True)
    index.search_vectors(queries[0][0], 10, {})
    loaded = time.process_time() - began
    size = (folder / "ours.index").stat().st_size / 1e6
    print(f"ours: stored in {seconds:.1f} s, loaded in {loaded:.2f} s of processor time, {size:.0f} MB")
    print(f"\n| {options.count} chunks | filter | recall@10 | ms CPU | p95 |\n|---|---|---|---|---|")
    for title, below in (("none", None), ("10 %", 1000)):
        where: Filter = {} if below is None else {"share": {"max": below - 1}}
        expected = exact(corpus, queries, 10_000 if below is None else below)
        found = [names_of(index.search_vectors(vector, 10, where)) for vector, _ in queries]
        searches: dict[str, Callable[[int], object]] = {
            "vectors": lambda n, where=where: index.search_vectors(queries[n][0], 10, where),
            "terms": lambda n, where=where: index.search_terms(queries[n][1], 10, where),
            "hybrid": lambda n, where=where: index.search_hybrid(*queries[n], 10, where),
        }
        for name, search in searches.items():
            median, tail = milliseconds(search, len(queries))
            said = f"{recall(found, expected):.4f}" if name == "vectors" else ""
            print(f"| ours, {name} | {title} | {said} | {median:.2f} | {tail:.2f} |", flush=True)
    if options.rival_python:
        save(corpus, queries, folder)
        for rival in options.rivals.split(","):
            for title, below in (("none", 10_000), ("10 %", 1000)):
                script = Path(__file__).parent / "rivals" / "retrieval_stores.py"
                command = [options.rival_python, str(script), rival, str(folder), str(below)]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    print(f"| {rival} | {title} | failed: {done.stderr.strip().splitlines()[-1][:100]} | | |")
                    continue
                body = json.loads(done.stdout.strip().splitlines()[-1])
                expected = exact(corpus, queries, below)
                found = [set(each) for each in body["found"]]
                hit = recall(found, expected[: len(found)])  # a slow one was asked less often
                print(
                    f"| {rival}, vectors | {title} | {hit:.4f} | {body['median']:.2f} | {body['p95']:.2f} |", flush=True
                )


def save(corpus: Corpus, queries: list[tuple[np.ndarray, str]], folder: Path) -> None:
    """Vectors, texts and queries for the rivals."""
    documents = list(corpus.documents())
    np.save(folder / "vectors.npy", np.concatenate([each.vectors for each in documents]))
    np.save(folder / "queries.npy", np.array([vector for vector, _ in queries]))
    with (folder / "chunks.jsonl").open("w") as file:
        for each in documents:
            for chunk in each.chunks:
                name = f"{each.document.id}:{chunk.start}"
                file.write(json.dumps({"id": name, "text": chunk.text, "share": each.document.meta["share"]}) + "\n")


def filters(options: argparse.Namespace, folder: Path) -> None:
    """Recall and time of searches by vector where a filter passes 100, 10, 1 and 0.1 % of the chunks."""
    corpus = Corpus(options.count)
    queries = corpus.queries(options.queries)
    index, _ = built(corpus, folder / "ours.index")
    print(f"| {options.count} chunks, filter passes | recall@10 | ms CPU | p95 | first ms |\n|---|---|---|---|---|")
    for title, below in SHARES.items():
        where: Filter = {"share": {"max": below - 1}}
        began = time.process_time()
        found = [names_of(index.search_vectors(queries[0][0], 10, where))]
        first = 1e3 * (time.process_time() - began)
        found += [names_of(index.search_vectors(vector, 10, where)) for vector, _ in queries[1:]]
        median, tail = milliseconds(lambda n, where=where: index.search_vectors(queries[n][0], 10, where), len(queries))
        score = recall(found, exact(corpus, queries, below))
        print(f"| {title} | {score:.4f} | {median:.2f} | {tail:.2f} | {first:.2f} |", flush=True)


def million(options: argparse.Namespace, folder: Path) -> None:
    """Ingest, size, load time, memory and search time as the index grows; with --ann the side file too."""
    more = " side file CPU s | side file ms | side file recall@10 |" if options.ann else ""
    print(f"| chunks | ingest CPU s | file MB | load CPU s | memory MB | vectors ms | terms ms | hybrid ms |{more}")
    print("|---" * (11 if options.ann else 8) + "|")
    for count in map(int, options.counts.split(",")):
        command = [sys.executable, __file__, "one", "--count", str(count), "--queries", str(options.queries)]
        subprocess.run([*command, "--folder", str(folder), *(["--ann"] if options.ann else [])], check=True)


def one(options: argparse.Namespace, folder: Path) -> None:
    """One row of `million`, in a process of its own."""
    corpus, path = Corpus(options.count), folder / f"{options.count}.index"
    index, seconds = built(corpus, path)
    index.close()
    before = resident()
    began = time.process_time()
    index = open_index(path, read_only=True)
    queries = corpus.queries(options.queries)
    index.search_vectors(queries[0][0], 10, {})
    loaded, memory = time.process_time() - began, resident() - before
    times = [
        milliseconds(search, len(queries))[0]
        for search in (
            lambda n: index.search_vectors(queries[n][0], 10, {}),
            lambda n: index.search_terms(queries[n][1], 10, {}),
            lambda n: index.search_hybrid(*queries[n], 10, {}),
        )
    ]
    cells = [f"{options.count}", f"{seconds:.1f}", f"{path.stat().st_size / 1e6:.0f}", f"{loaded:.2f}", f"{memory:.0f}"]
    cells += [f"{each:.2f}" for each in times]
    if options.ann:
        cells += by_side_file(index, queries)
    print(f"| {' | '.join(cells)} |", flush=True)
    index.close()
    for each in folder.glob(f"{path.name}*"):
        each.unlink()


def by_side_file(index: SqliteIndex, queries: list[tuple[np.ndarray, str]]) -> list[str]:
    """Seconds of building the approximate side file, milliseconds of a search by it, and its recall of the exact hits."""
    exact_hits = [names_of(index.search_vectors(vector, 10, {})) for vector, _ in queries]
    began = time.process_time()
    index.build_ann()
    built_s = time.process_time() - began
    index._search.ann_rows = 0  # used at any size here
    median, _ = milliseconds(lambda n: index.search_vectors(queries[n][0], 10, {}), len(queries))
    found = [names_of(index.search_vectors(vector, 10, {})) for vector, _ in queries]
    return [f"{built_s:.1f}", f"{median:.2f}", f"{recall(found, exact_hits):.4f}"]


def resident() -> float:
    """Memory of the process in MB."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def ingest_kill(options: argparse.Namespace, folder: Path) -> None:
    """Kill an ingest at random moments; after each kill nothing acknowledged is lost and `verify` is clean."""
    path, rng, told, kills = folder / "killed.index", random.Random(options.seed), 0, 0
    total = -(-options.count // PER_DOCUMENT)
    while True:
        command = [sys.executable, __file__, "ingest", "--count", str(options.count), "--folder", str(folder)]
        ingest = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert ingest.stdout is not None and ingest.stdout.readline() == "ready\n"
        timer = threading.Timer(rng.uniform(0.05, options.most_s), ingest.kill) if kills < options.kills else None
        if timer:
            timer.start()
        lines = [line.split() for line in ingest.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        killed = ingest.wait() != 0
        if timer:
            timer.cancel()
        acknowledged = max([told, *(int(line[0]) for line in lines)])
        kills += killed
        with open_index(path) as index:
            there, faults = len(index.hashes()), index.verify() if options.verify_each or not killed else []
        lost = acknowledged - there
        print(
            f"kill {kills}: acknowledged {acknowledged}, there {there}, lost {max(lost, 0)}, faults {len(faults)}",
            flush=True,
        )
        assert lost <= 0 and not faults, faults[:3]
        told = there
        if not killed:
            break
    assert told == total, f"{told} of {total} documents are there"
    print(f"{kills} kills over {options.count} chunks: nothing acknowledged was lost, verify is clean")


def ingest(options: argparse.Namespace, folder: Path) -> None:
    """The process that `ingest-kill` kills: says how many documents are acknowledged after each put of 20."""
    corpus = Corpus(options.count)
    index = open_index(folder / "killed.index", HEADER)
    print("ready", flush=True)
    total = -(-options.count // PER_DOCUMENT)
    for first in range(len(index.hashes()) // 20 * 20, total, 20):
        index.put(corpus.document(number) for number in range(first, min(total, first + 20)))
        print(min(total, first + 20), flush=True)


WORK = {
    "store": store,
    "filters": filters,
    "million": million,
    "one": one,
    "ingest-kill": ingest_kill,
    "ingest": ingest,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=WORK)
    parser.add_argument("--count", type=int, default=100_000, help="chunks")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--counts", default="10000,100000,1000000")
    parser.add_argument("--ann", action="store_true", help="with million: build the approximate side file (faiss) too")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--most-s", type=float, default=10.0, help="the latest moment of a kill")
    parser.add_argument("--verify-each", action="store_true", help="recount after each kill, not only at the end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rival-python", help="a Python with the rivals' packages")
    parser.add_argument("--rivals", default="chroma,lancedb,langchain,llamaindex")
    parser.add_argument("--folder", help="where to write; a temporary folder if missing")
    options = parser.parse_args()
    if options.work not in ("one", "ingest"):
        print(
            f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}: {' '.join(sys.argv)}\n"
        )
    if options.folder:
        WORK[options.work](options, Path(options.folder))
        return
    with tempfile.TemporaryDirectory() as folder:
        WORK[options.work](options, Path(folder))


if __name__ == "__main__":
    main()
