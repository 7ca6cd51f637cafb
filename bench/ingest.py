"""Spans received a second: OTLP over HTTP into the Studio, acknowledged after they are on disk; and what a kill -9 takes.

    python bench/ingest.py [--spans 200000] [--batch 512] [--connections 8] [--kill 25]

A process of its own sends requests that were encoded before the clock starts, each of `--batch` spans of 1.1 kB with two
messages, as OpenTelemetry's SDK would; gzip is off, as by default there. The rate counts acknowledged spans by the clock,
from the first request to the last answer. `--kill N` sends SIGKILL to the server in the middle, N times each over
a fresh home, and counts what is missing of what was acknowledged.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue

TEXT = "the quick brown fox jumps over it " * 9


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spans", type=int, default=200_000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--kill", type=int, default=0)
    parser.add_argument("--sender", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.sender:
        send(args.sender, args.spans, args.batch, args.connections)
        return
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}: {' '.join(sys.argv)}\n")
    if not args.kill:
        measure(args.spans, args.batch, args.connections)
        return
    found = [kill_once(args.spans, args.batch, args.connections) for _ in range(args.kill)]
    lost = sum(max(0, acknowledged - kept) for acknowledged, kept in found)
    told, written = sum(each[0] for each in found), sum(each[1] for each in found)
    print(f"{len(found)} kills: {told:,} spans acknowledged, {written:,} in the files")
    print(f"acknowledged and lost: {lost:,}")


def measure(spans: int, batch: int, connections: int) -> None:
    """Print the rate of one sending, and the server's processor time for a span."""
    with tempfile.TemporaryDirectory() as home, studio(Path(home)) as (process, url):
        before = cpu_s(process.pid)
        with sender(url, spans, batch, connections) as sending:
            rest = list(sending.stdout or ())
        used = cpu_s(process.pid) - before
        result = json.loads(rest[-1])
        rate = result["acknowledged"] / result["seconds"]
        print(f"{result['acknowledged']:,} spans in {result['seconds']:.2f} s: {rate:,.0f} spans/s")
        each_us = 1e6 * used / result["acknowledged"]
        print(f"server: {used:.2f} s of CPU, {each_us:.1f} us a span; in the file: {count(Path(home)):,}")


def kill_once(spans: int, batch: int, connections: int) -> tuple[int, int]:
    """The number of spans that were acknowledged before a kill in the middle, and of those in the file."""
    with tempfile.TemporaryDirectory() as home, studio(Path(home)) as (process, url):
        with sender(url, spans, batch, connections) as sending:
            lines = iter(sending.stdout or ())
            for line in lines:
                if line.startswith("kept") and int(line.split()[1]) * batch > spans // 2:
                    process.kill()
                    break
            rest = list(lines)
        return json.loads(rest[-1])["acknowledged"], count(Path(home))


def sender(url: str, spans: int, batch: int, connections: int) -> subprocess.Popen[str]:
    """A process that sends, ready to begin."""
    command = [sys.executable, __file__, "--sender", url, "--spans", str(spans), "--batch", str(batch)]
    made = subprocess.Popen([*command, "--connections", str(connections)], stdout=subprocess.PIPE, text=True)
    assert made.stdout is not None and made.stdout.readline().startswith("ready")
    return made


def send(url: str, spans: int, batch: int, connections: int) -> None:
    """Send so many spans, a few requests at a time, and print what was acknowledged."""
    import httpx

    bodies: SimpleQueue[bytes] = SimpleQueue()
    for number in range(spans // batch):
        bodies.put(request(number, batch))
    print("ready", flush=True)
    lock = threading.Lock()
    acknowledged = 0

    def work() -> None:
        nonlocal acknowledged
        headers = {"content-type": "application/x-protobuf"}
        with httpx.Client(trust_env=False, timeout=60) as client:
            while True:
                try:
                    body = bodies.get_nowait()
                    status = client.post(f"{url}/v1/traces", content=body, headers=headers).status_code
                except (Empty, httpx.HTTPError):
                    return
                if status == 200:
                    with lock:
                        acknowledged += 1
                        if acknowledged % 10 == 0:
                            print("kept", acknowledged, flush=True)

    began = time.perf_counter()
    threads = [threading.Thread(target=work) for _ in range(connections)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    seconds = time.perf_counter() - began
    print(json.dumps({"acknowledged": acknowledged * batch, "seconds": seconds}), flush=True)


def request(number: int, batch: int) -> bytes:
    """A request of traces of 50 spans each, as OpenTelemetry's SDK encodes it."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    made = ExportTraceServiceRequest()
    of_resource = made.resource_spans.add()
    of_resource.resource.attributes.add(key="service.name").value.string_value = "bench"
    spans = of_resource.scope_spans.add().spans
    for index in range(batch):
        trace, place = divmod(number * batch + index, 50)
        span = spans.add(
            name="chat m", kind=3, trace_id=(trace + 1).to_bytes(16, "big"), span_id=(place + 1).to_bytes(8, "big")
        )
        if place:
            span.parent_span_id = (1).to_bytes(8, "big")
        span.start_time_unix_nano = 1_795_000_000_000_000_000 + (trace * 50 + place) * 1000
        span.end_time_unix_nano = span.start_time_unix_nano + 500
        texts = {
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "m",
            "gen_ai.response.model": "m", "gen_ai.response.id": f"chatcmpl-{trace}-{place}",
            "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": TEXT}]}]),
            "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": TEXT}]}]),
        }  # fmt: skip
        for key, text in texts.items():
            span.attributes.add(key=key).value.string_value = text
        for key, value in {"gen_ai.usage.input_tokens": 300, "gen_ai.usage.output_tokens": 60}.items():
            span.attributes.add(key=key).value.int_value = value
    encoded: bytes = made.SerializeToString()
    return encoded


@contextmanager
def studio(home: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The Studio over an empty home, ready to receive."""
    command = [sys.executable, "-m", "firsthand", "studio", "--no-open", "--home", str(home)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    url = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
    process.stdout.readline()
    assert url is not None
    host, _, port = url[0].rpartition("/")[2].partition(":")
    while True:
        try:
            socket.create_connection((host, int(port))).close()
            break
        except OSError:  # the address is told before it is listened on
            time.sleep(0.05)
    try:
        yield process, url[0]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def count(home: Path) -> int:
    """The number of spans in the file."""
    from firsthand.ingest.trace_store import TraceStore

    store = TraceStore(home)
    found = store.database.read("SELECT count(*) FROM spans")[0][0]
    store.close()
    return int(found)


def cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
