"""Speed of a memory's file: acknowledged writes, searches among 100,000 facts, and eight processes that write one file.

python bench/memory.py                 # minutes; run it on a quiet machine
python bench/memory.py --facts 10000
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from firsthand.memories.semantic import semantic
from firsthand.memory import MemoryItem

WRITER = """
import asyncio, sys
from firsthand.memories.semantic import semantic
from firsthand.memory import MemoryItem
async def main():
    memory = semantic(sys.argv[1])
    for n in range(int(sys.argv[3])):
        await memory.write(MemoryItem.of(f"{sys.argv[2]} says number {n}", {}))
asyncio.run(main())
"""
ATTRIBUTES = (
    "home town",
    "employer",
    "favourite tea",
    "car",
    "dentist",
    "landlord",
    "teacher",
    "club",
    "phone",
    "desk",
)


def fact(rng: random.Random, number: int) -> MemoryItem:
    """A fact about one of 20,000 people."""
    person, attribute = f"Person{rng.randrange(20_000)}", rng.choice(ATTRIBUTES)
    value = f"Value{rng.randrange(50_000)}"
    given = {"subject": person, "attribute": attribute, "value": value, "time": number}
    return MemoryItem.of(f"The {attribute} of {person} is {value}, as they said on the phone.", given)


def spread(seconds: list[float]) -> str:
    """Median and 95th percentile in milliseconds."""
    ordered = sorted(seconds)
    return f"median {statistics.median(ordered) * 1e3:.2f} ms, p95 {ordered[int(len(ordered) * 0.95)] * 1e3:.2f} ms"


async def main() -> None:
    """Print the three figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--facts", type=int, default=100_000)
    parser.add_argument("--folder", default=None, help="a folder on the disk to measure")
    given = parser.parse_args()
    rng = random.Random(0)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = str(Path(folder) / "facts.db")
        memory = semantic(path, max_items=10 * given.facts)
        writes = []
        for number in range(given.facts):
            item = fact(rng, number)
            began = time.perf_counter()
            await memory.write(item)
            writes.append(time.perf_counter() - began)
        print(f"write acknowledged, file of 0 to {given.facts:,} facts: {spread(writes)}")
        print(f"the last 1,000 of them: {spread(writes[-1000:])}")
        wall, cpu = [], []
        for _ in range(300):
            query = f"What is the {rng.choice(ATTRIBUTES)} of Person{rng.randrange(20_000)}?"
            began, used = time.perf_counter(), time.process_time()
            await memory.search(query, 5)
            wall.append(time.perf_counter() - began)
            cpu.append(time.process_time() - used)
        print(f"search among {given.facts:,} facts: CPU {spread(cpu)}; wall {spread(wall)}")
        shared = str(Path(folder) / "shared.db")
        semantic(shared)
        began = time.perf_counter()
        start = [sys.executable, "-c", WRITER, shared]
        writers = [subprocess.Popen([*start, f"writer{n}", "250"]) for n in range(8)]
        assert all(writer.wait() == 0 for writer in writers)
        texts = [item.text for item in await semantic(shared).list()]
        lost, doubled = 8 * 250 - len(set(texts)), len(texts) - len(set(texts))
        print(f"8 processes, 2,000 writes: {time.perf_counter() - began:.1f} s, {lost} lost, {doubled} doubled")


if __name__ == "__main__":
    asyncio.run(main())
