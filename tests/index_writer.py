"""A process that writes an index until it is killed, and says on stdout what was acknowledged: `index_writer.py PATH SEED`.

A line is "put ID VERSION" or "delete ID", written after the call has returned. Document N of version V is `version(N, V)`.
"""

from __future__ import annotations

import random
import sys

from firsthand.retrieval.chunk_index import IndexedDocument
from firsthand.retrieval.store.sqlite_index import open_index
from index_tiny import HEADER, lines


def version(number: int, version: int) -> IndexedDocument:
    texts = [f"document {number} line {n} of version {version}\n" for n in range(1 + (number + version) % 9)]
    return lines(f"d{number}", texts, seed=100 * number + version, meta={"number": number, "version": version})


def main(path: str, seed: int) -> None:
    index, rng = open_index(path, HEADER), random.Random(seed)
    versions: dict[int, int] = {}
    print("ready", flush=True)
    while True:
        number = rng.randrange(40)
        if versions.get(number) is not None and rng.random() < 0.25:
            print(f"begin {number} gone", flush=True)
            index.delete([f"d{number}"])
            del versions[number]
            print(f"delete {number} gone", flush=True)
            continue
        made = rng.randrange(1000)
        print(f"begin {number} {made}", flush=True)
        index.put([version(number, made)])
        versions[number] = made
        print(f"put {number} {made}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
