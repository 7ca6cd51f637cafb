"""MemGPT's nested key-value task: follow a key to its value, and on while the value is a key (Packer et al., 2023).

140 pairs of UUIDs, about 8k tokens. With `paging` they lie behind the tool `archival_memory_search`, whose results come in
pages of ten, as in the authors' code; without it the prompt shows the first `shown` pairs, all of them by default. With m
of n pairs shown in random order, a reader who makes no mistake answers h hops with `no_paging_accuracy(n, m, h)`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random
from uuid import UUID

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.long_context.lengths import LazyTasks
from firsthand.benchmarks.sources.datasets import Source, find, read
from firsthand.errors import ConfigError, DataError, reason_of
from firsthand.loop.concurrency import derive_seed
from firsthand.message import Json
from firsthand.scorers.contained import contains_value
from firsthand.system.ordinary_file import read_ordinary_text
from firsthand.task import Task
from firsthand.tool import Tool, tool

KEYS, PAGE, MAX_HOPS = 140, 10, 6
RULE = (
    "If a value itself is also a key, return the value of that key (do a nested lookup). For "
    "example, if the value of 'x' is "
    "'y', but 'y' is also a key, return the value of key 'y'."
)
Pairs = Mapping[str, str]


def nested_kv(
    *, hops: str = "0-4", keys: int = KEYS, examples: int = 30, paging: bool = True, shown: int = 0, data: str = ""
) -> Benchmark:
    """Return the benchmark: `examples` questions for each number of `hops`, over `keys` pairs.

    `data` is a folder with the authors' pairs and orderings (`kv-retrieval-140_keys.jsonl`, `random_orderings_...jsonl`).
    """
    found = re.fullmatch(r"(\d)(?:-(\d))?", hops)
    low, high = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if not low <= high <= MAX_HOPS:
        raise ConfigError(f"hops is {hops!r}: give numbers from 0 to {MAX_HOPS}, such as 2 or 0-4")
    if not (MAX_HOPS < keys <= 10_000 and 1 <= examples <= 1_000 and 0 <= shown <= keys):
        raise ConfigError(
            f"keys is {keys}, examples {examples} and shown {shown}: give {MAX_HOPS + 1} to 10,000 keys, 1 "
            f"to 1,000 examples "
            "and no more keys shown than there are"
        )
    if paging and shown:
        raise ConfigError(f"shown is {shown}: it is for paging=false, where the prompt shows pairs")
    authors = authors_pairs(Path(data).expanduser(), high) if data else None
    if authors is not None and keys != len(authors.pairs):
        raise ConfigError(f"keys is {keys}, and the authors' file has {len(authors.pairs)}: leave keys out")
    slots = [(hop, index) for hop in range(low, high + 1) for index in range(examples)]
    origin = "the authors' pairs and orderings" if authors else "generated from the seed"
    reach = "behind archival_memory_search, ten a page" if paging else f"{shown or keys} of them in the prompt"
    return Benchmark(
        name="nested_kv",
        tasks=lambda seed: LazyTasks(slots, partial(_task, keys, paging, shown, authors, seed)),
        scorers=(contains_value,),
        description="Follow a key through pairs of random identifiers until the value is no key (Packer et al., 2023).",
        protocol=f"{origin}: {keys} pairs, {reach}; {examples} questions for each of {hops} hops; the answer "
        f"contains the value",
        licence="Apache-2.0" if authors else "none needed: generated",
        environment=(lambda task: PairPages(task.metadata["pairs"])) if paging else None,
        options={"hops": hops, "keys": keys, "examples": examples, "paging": paging, "shown": shown},
    )


def no_paging_accuracy(keys: int, shown: int, hops: int) -> float:
    """Return the chance that all `hops` + 1 pairs of a question are among `shown` of `keys` pairs: C(n-h-1, m-h-1) / C(n,
    m)."""
    needed = hops + 1
    return math.comb(keys - needed, shown - needed) / math.comb(keys, shown) if shown >= needed else 0.0


@dataclass(frozen=True)
class AuthorsPairs:
    """The authors' pairs in order, and for each number of hops the indices that are nested."""

    pairs: tuple[tuple[str, str], ...]
    orderings: Mapping[int, tuple[tuple[int, ...], ...]]


def authors_pairs(folder: Path, hops: int) -> AuthorsPairs:
    """Return the authors' data for up to `hops` hops; DataError if it is not there or not as they wrote it."""
    name = "kv-retrieval-140_keys.jsonl"
    path = find(folder, name, f"data/{name}")
    if path is None:
        raise DataError(
            f"data is {str(folder)!r}, which has no {name}: put paper_experiments/nested_kv_task/data there"
        )
    rows = read(path, Source(name, 500, "MIT", "", "", "", lambda row: row), "the authors' file")
    pairs = rows.rows[0].get("ordered_kv_records")
    if not isinstance(pairs, list) or not all(
        isinstance(p, list) and len(p) == 2 and all(isinstance(t, str) for t in p) for p in pairs
    ):
        raise DataError(f"{rows.where(0)}: 'ordered_kv_records' was expected to be pairs of texts")
    orderings = {}
    for hop in range(1, hops + 1):
        name = f"random_orderings_100_samples_140_indices_{hop}_levels.jsonl"
        found = find(folder, name, f"data/{name}")
        if found is None:
            raise DataError(f"data is {str(folder)!r}, which has no {name}: put the authors' folder there")
        orderings[hop] = tuple(
            _ordering(line, found, number, len(pairs)) for number, line in enumerate(_lines(found), 1)
        )
    return AuthorsPairs(tuple((key, value) for key, value in pairs), orderings)


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in read_ordinary_text(path).splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {reason_of(error)}") from None


def _ordering(line: str, path: Path, number: int, count: int) -> tuple[int, ...]:
    try:
        indices = json.loads(line)
    except ValueError:
        indices = None
    if not (isinstance(indices, list) and indices and all(type(i) is int and 0 <= i < count for i in indices)):
        raise DataError(f"{path}, line {number}: a list of indices below {count} was expected")
    return tuple(indices)


@dataclass(frozen=True)
class PairPages:
    """Environment with the pairs and the search tool of the authors' code: text search, ten results a page."""

    pairs: Pairs

    @property
    def tools(self) -> Sequence[Tool]:
        """The search tool."""

        @tool(effect="read")
        def archival_memory_search(query: str, page: int = 0) -> str:
            """Search archival memory for a text.

            Args:
                query: The text to look for.
                page: The page of results, from 0.
            """
            return search_page(self.pairs, query, page)

        return (archival_memory_search,)

    async def open(self) -> None:
        """Do nothing: there is no state."""

    async def final_state(self) -> Json:
        """Return no state."""
        return {}

    async def close(self) -> None:
        """Do nothing: there is no state."""


def search_page(pairs: Pairs, query: str, page: int) -> str:
    """Return a page of the pairs that contain a text, as the authors' tool writes it."""
    lines = [f"Key-value pair: key = {key}, value = {value}" for key, value in pairs.items()]
    found = [line for line in lines if query.casefold() in line.casefold()]
    shown = found[max(0, page) * PAGE : (max(0, page) + 1) * PAGE]
    if not shown:
        return "No results found."
    pages = math.ceil(len(found) / PAGE) - 1
    body = json.dumps([f"memory: {line}" for line in shown])
    return f"Showing {len(shown)} of {len(found)} results (page {page}/{pages}): {body}"


def _task(keys: int, paging: bool, shown: int, authors: AuthorsPairs | None, seed: int, slot: tuple[int, int]) -> Task:
    hops, index = slot
    rng = Random(derive_seed("nested_kv", seed, keys, hops, index))
    if authors is None:
        named = [str(UUID(int=rng.getrandbits(128), version=4)) for _ in range(2 * keys)]
        pairs, chain = list(zip(named[::2], named[1::2], strict=True)), tuple(rng.sample(range(keys), hops + 1))
    else:
        pairs = list(authors.pairs)
        chain = authors.orderings[hops][index % len(authors.orderings[hops])] if hops else (rng.randrange(len(pairs)),)
    for here, after in pairwise(chain):
        pairs[here] = (pairs[here][0], pairs[after][0])
    asked, value = pairs[chain[0]][0], pairs[chain[-1]][1]
    question = (
        f"Your task is to provide the value for the following key: {asked}. Answer only with the value, nothing else."
    )
    if paging:
        prompt = (
            "I've given you a list of key-value pairs which you can find in your archival memory, all keys and values are "
            f"128-bit UUIDs, and your task is to return the value associated with the specified key. {RULE} {question}"
        )
    else:
        rng.shuffle(pairs)
        listed = ",\n".join(f'"{key}": "{value}"' for key, value in pairs[: shown or keys])
        prompt = (
            "Below is a JSON object containing key-value pairings, all keys and values are 128-bit UUIDs, "
            "and your task is to "
            f"return the value associated with the specified key. {RULE}\n\nJSON data: {{\n{listed}\n}}\n\n{question}"
        )
    metadata = {"hops": hops, "stratum": f"{hops} hops"} | ({"pairs": dict(pairs)} if paging else {})
    return Task(
        f"hops{hops}-{index:03d}", prompt, verbatim=True, metadata=metadata, secret={"answer": value},
        sampling={"max_tokens": 64, "temperature": 0.0},
    )  # fmt: skip
