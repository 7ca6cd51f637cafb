"""Messages a second through the bus: our file, our Redis and NATS stores, and Redis streams by their own client.

    python bench/bus.py --messages 20000 --batch 100 --rounds 3

Each row publishes all messages, and then a group of one subscriber fetches and acknowledges them. Redis and NATS are started
on free ports (Debian's redis-server and nats-server). Rows take turns in each round; the medians are printed, with the ratio
to Redis streams used directly (XADD in a pipeline, XREADGROUP, XACK). Then a board: writes of one key, each naming the
version that it follows, and reads of it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from firsthand.messaging.nats_messaging import NatsMessaging
from firsthand.messaging.redis_messaging import RedisMessaging
from firsthand.messaging.sqlite_messaging import SqliteMessaging
from messaging_servers import nats_server, redis_server

Times = tuple[float, float]


def through(bus: Any, texts: list[str], batch: int) -> Times:
    """Seconds to publish, and to fetch and acknowledge, all texts through one of our stores."""
    bus.subscribe("g", "t.>")
    began = time.perf_counter()
    for start in range(0, len(texts), batch):
        bus.publish("t.a", texts[start : start + batch])
    published, seen = time.perf_counter(), 0
    while seen < len(texts):
        found = bus.fetch("g", limit=batch)
        seen += bus.acknowledge("g", [each.message.offset for each in found])
    return published - began, time.perf_counter() - published


def streams(client: Any, name: str, texts: list[str], batch: int) -> Times:
    """The same through Redis streams by their own client."""
    client.xgroup_create(name, "g", id="0", mkstream=True)
    began = time.perf_counter()
    for start in range(0, len(texts), batch):
        pipe = client.pipeline()
        for text in texts[start : start + batch]:
            pipe.xadd(name, {"payload": text})
        pipe.execute()
    published, seen = time.perf_counter(), 0
    while seen < len(texts):
        ((_, found),) = client.xreadgroup("g", "me", {name: ">"}, count=batch)
        client.xack(name, "g", *(id for id, _ in found))
        seen += len(found)
    return published - began, time.perf_counter() - published


def on_board(board: Any, writes: int) -> Times:
    """Seconds to write one key so often, each time after the version before, and to read it as often."""
    began = time.perf_counter()
    for version in range(writes):
        board.write("plan", f"step {version}", writer="ann", expected=version)
    written = time.perf_counter()
    for _ in range(writes):
        assert board.read("plan").version == writes
    return written - began, time.perf_counter() - written


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chars", type=int, default=200)
    parser.add_argument("--writes", type=int, default=2_000, help="writes and reads of the board")
    args = parser.parse_args()
    texts = [f"{number:0{args.chars}d}" for number in range(args.messages)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in ("redis", "nats"):
            (folder / name).mkdir()
        redis_address = stack.enter_context(redis_server(folder / "redis"))
        nats_address = stack.enter_context(nats_server(folder / "nats"))
        import redis

        client = redis.Redis.from_url(redis_address)

        def ours(open_store: Callable[[str], Any]) -> Callable[[str], Times]:
            def run(name: str) -> Times:
                with open_store(name) as bus:
                    return through(bus, texts, args.batch)

            return run

        rows: dict[str, Callable[[str], Times]] = {
            "Redis streams, by redis-py": lambda name: streams(client, f"s{name}", texts, args.batch),
            "firsthand, a file": ours(lambda name: SqliteMessaging(folder / f"{name}.db")),
            "firsthand, Redis": ours(lambda name: RedisMessaging(redis_address, name=name)),
            "firsthand, NATS": ours(lambda name: NatsMessaging(nats_address, name=name)),
        }
        times: dict[str, list[Times]] = {row: [] for row in rows}
        boards: dict[str, list[Times]] = {row: [] for row in list(rows)[1:]}
        stores: list[Callable[[str], Any]] = [
            lambda name: SqliteMessaging(folder / f"{name}.db"),
            lambda name: RedisMessaging(redis_address, name=name),
            lambda name: NatsMessaging(nats_address, name=name),
        ]
        for number in range(args.rounds):
            for index, (row, run) in enumerate(rows.items()):
                times[row].append(run(f"r{number}-{index}"))
            for row, open_store in zip(boards, stores, strict=True):
                with open_store(f"b{number}") as board:
                    boards[row].append(on_board(board, args.writes))
    first = next(iter(rows))
    whole = {row: statistics.median(sum(each) for each in found) for row, found in times.items()}
    print("| store | published a second | fetched and acknowledged a second | both, against Redis streams |")
    print("|---|---|---|---|")
    for row, found in times.items():
        rates = [args.messages / statistics.median(each[part] for each in found) for part in (0, 1)]
        print(f"| {row} | {rates[0]:,.0f} | {rates[1]:,.0f} | {whole[first] / whole[row]:.2f} |")
    print("\n| board | writes a second | reads a second |\n|---|---|---|")
    for row, found in boards.items():
        rates = [args.writes / statistics.median(each[part] for each in found) for part in (0, 1)]
        print(f"| {row} | {rates[0]:,.0f} | {rates[1]:,.0f} |")


if __name__ == "__main__":
    main()
