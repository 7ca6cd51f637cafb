"""Key-value retrieval: the value of one key in a JSON object of random identifiers (Liu et al., 2023).

The task needs retrieval and no language, so a curve over positions shows how well a model reads each part of its context:
`firsthand summary last --by position`. The authors' files (75, 140 and 300 keys, 500 objects each) are used if found; else
objects are generated from the seed as the authors generated theirs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple
from uuid import UUID

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.long_context.lengths import LazyTasks
from firsthand.benchmarks.lost_in_middle import parse_positions
from firsthand.benchmarks.protocols.protocol import Item, Protocol, choose, make_task, whole
from firsthand.benchmarks.sources.datasets import Rows, Source, find, read, text_field
from firsthand.errors import ConfigError, DataError
from firsthand.loop.concurrency import derive_seed
from firsthand.message import Json
from firsthand.scorers.contained import contains_value
from firsthand.task import Task

PROTOCOLS = {
    "paper": Protocol(
        "Liu et al. (2023), key-value retrieval, their prompt continued, 100 tokens",
        query="Extract the value corresponding to the specified key in the JSON object below.\n\nJSON data:\n{records}\n\n"
        'Key: "{key}"\nCorresponding value:',
        scorers=(contains_value,),
        continuation=None,
        max_tokens=100,
    ),
    "chat": Protocol(
        "the same prompt as a message in the model's own chat template, as the paper prompts GPT-3.5 and Claude",
        query="Extract the value corresponding to the specified key in the JSON object below.\n\nJSON data:\n{records}\n\n"
        'Key: "{key}"\nCorresponding value:',
        scorers=(contains_value,),
        continuation=None,
        max_tokens=100,
        chat=True,
    ),
    "query-aware": Protocol(
        "the paper's query-aware contextualisation: the key stands before and after the data",
        query="Extract the value corresponding to the specified key in the JSON object below.\n\n"
        'Key: "{key}"\n\nJSON data:\n{records}\n\nKey: "{key}"\nCorresponding value:',
        scorers=(contains_value,),
        continuation=None,
        max_tokens=100,
    ),
}
POSITIONS: Mapping[int, str] = {75: "0,24,49,74", 140: "0,34,69,104,139", 300: "0,49,99,149,199,249,299"}
"""Number of keys -> positions of the queried key: the paper's for 140, spread alike for 75 and 300."""
EXAMPLES = 500


class KeyValue(NamedTuple):
    """A key with its value."""

    key: str
    value: str


class KeyValueObject(NamedTuple):
    """An object's pairs, and the pair that is queried."""

    pairs: tuple[KeyValue, ...]
    queried: KeyValue


def kv_retrieval(
    *, protocol: str = "", keys: int = 75, positions: str = "", examples: int = EXAMPLES, data: str = ""
) -> Benchmark:
    """Return the benchmark: `examples` objects of `keys` pairs, each queried with its key at each of `positions` (from 0).

    `data` is a folder with the authors' files, or `generated`. 75 keys are about 6,000 tokens, 300 about 24,000.
    """
    name, chosen = choose("kv_retrieval", PROTOCOLS, protocol)
    if not (2 <= keys <= 10_000 and 1 <= examples <= 10_000):
        raise ConfigError(f"keys is {keys} and examples {examples}: give 2 to 10,000 keys and 1 to 10,000 examples")
    places = parse_positions(positions or POSITIONS.get(keys, f"0,{keys // 2},{keys - 1}"), keys)
    rows = _rows(keys, data)
    count = min(examples, len(rows.rows)) if rows else examples
    slots = [
        (index, place) for index in range(count) for place in reversed(places)
    ]  # prompts in this order share prefixes
    origin = f"{keys} keys, {rows.origin}" if rows else f"{keys} keys, generated from the seed as by the authors"
    return Benchmark(
        name=name,
        tasks=lambda seed: LazyTasks(slots, partial(_task, chosen, rows, keys, seed)),
        scorers=chosen.scorers,
        description="The value of one key in a JSON object of random identifiers (Liu et al., 2023).",
        protocol=f"{origin}; the key at {', '.join(map(str, places))}; {count} objects; {chosen.describe()}",
        licence="MIT" if rows else "none needed: generated",
        options={"keys": keys, "positions": list(places), "sha256": rows.sha256 if rows else "", "protocol": protocol},
    )


def draw(keys: int, seed: int, index: int) -> KeyValueObject:
    """Generate an object of random version 4 UUIDs, the same on any machine."""
    rng = Random(derive_seed("kv_retrieval", seed, keys, index))
    identifiers = [str(UUID(int=rng.getrandbits(128), version=4)) for _ in range(2 * keys)]
    pairs = tuple(map(KeyValue, identifiers[::2], identifiers[1::2]))
    return KeyValueObject(pairs, rng.choice(pairs))


def shown(pairs: tuple[KeyValue, ...]) -> str:
    """Return the object as text in the authors' format, one pair per line."""
    return "{" + ",\n ".join(f'"{key}": "{value}"' for key, value in pairs) + "}"


def _task(protocol: Protocol, rows: Rows | None, keys: int, seed: int, slot: tuple[int, int]) -> Task:
    index, place = slot
    problem = _read(rows.rows[index], rows.where(index), keys) if rows else draw(keys, seed, index)
    pairs = [pair for pair in problem.pairs if pair != problem.queried]
    pairs.insert(place, problem.queried)
    item = Item(
        f"kv{keys}-{index:03d}-at-{place:03d}",
        {
            "question": f"What is the value of {problem.queried.key}?",
            "records": shown(tuple(pairs)),
            "key": problem.queried.key,
        },
        secret={"answers": [problem.queried.value]},
        metadata={"position": place, "keys": keys, "cluster": f"kv{keys}-{index:03d}"},
    )
    return whole(make_task(item, protocol))


def _rows(keys: int, data: str) -> Rows | None:
    """Return the authors' rows, or None to generate objects."""
    name = f"kv-retrieval-{keys}_keys.jsonl"
    root = Path(data or os.environ.get("FIRSTHAND_DATA") or ".").expanduser()
    path = None if data == "generated" else find(root, f"longctx/{name}", f"kv_retrieval_data/{name}")
    if path is None:
        if data not in ("", "generated"):
            raise DataError(
                f"data is {data!r}, which has no {name}.gz: put the file of github.com/nelson-liu/lost-in-the-middle there, "
                "or give data=generated"
            )
        return None
    source = Source(name, EXAMPLES, "MIT", "", "", "", lambda row: row)
    rows = read(path, source, "the authors' file")
    for index, row in enumerate(rows.rows):
        _read(row, rows.where(index), keys)
    return rows


def _read(row: Json, where: str, keys: int) -> KeyValueObject:
    found = row.get("ordered_kv_records")
    good = isinstance(found, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(each, str) for each in pair) for pair in found
    )
    if not good or len(found or ()) != keys:
        raise DataError(f"{where}: 'ordered_kv_records' was expected to be {keys} pairs of texts")
    pairs = tuple(KeyValue(*pair) for pair in found or ())
    queried = KeyValue(text_field(row, "key", where), text_field(row, "value", where))
    if queried not in pairs or len({pair.key for pair in pairs}) != keys:
        raise DataError(f"{where}: the queried key is not among the pairs, or a key occurs twice")
    return KeyValueObject(pairs, queried)
