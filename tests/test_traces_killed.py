"""What was acknowledged is there after kill -9, in the hot store and while segments are sealed; very large requests."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

import otlp_requests as otlp
from firsthand.ingest.cold_segments import SEGMENTS, read_sealed, remove_orphans
from firsthand.ingest.trace_store import TraceStore
from thorough import repetitions
from traces_server import started

pytestmark = pytest.mark.slow
KILLS = repetitions(25, 3)
HEADERS = {"content-type": "application/x-protobuf"}


def send(url: str, sender: int, round_: int, sent: set[tuple[int, int]], acknowledged: set[tuple[int, int]]) -> None:
    """Send requests of 20 spans until the server is gone, noting what it acknowledged."""
    with httpx.Client(trust_env=False, timeout=10) as client:
        for number in range(1, 100_000):
            trace = (round_ * 10 + sender) * 100_000 + number
            body = otlp.as_protobuf(
                *(otlp.span(trace, span, min(span - 1, 1), text="x" * 200) for span in range(1, 21))
            )
            held = {(trace, span) for span in range(1, 21)}
            sent |= held
            try:
                if client.post(f"{url}/v1/traces", content=body, headers=HEADERS).status_code == 200:
                    acknowledged |= held
            except httpx.HTTPError:
                return


def test_nothing_that_was_acknowledged_is_lost_under_kill_9(tmp_path: Path) -> None:
    sent: set[tuple[int, int]] = set()
    acknowledged: set[tuple[int, int]] = set()
    draws = random.Random(7)
    for kill in range(KILLS):
        before = len(acknowledged)
        with started(tmp_path) as server:
            threads = [
                threading.Thread(target=send, args=(server.url, sender, kill, sent, acknowledged)) for sender in (1, 2)
            ]
            for each in threads:
                each.start()
            end = time.monotonic() + 60
            while len(acknowledged) < before + 200 + draws.randrange(400):
                assert time.monotonic() < end, "the server acknowledges"
                time.sleep(0.001)
            server.process.send_signal(signal.SIGKILL)
            for each in threads:
                each.join()
        store = TraceStore(tmp_path)
        rows = store.database.read("SELECT trace, span FROM spans")
        kept = {(int(trace, 16), int(span, 16)) for trace, span in rows}
        assert acknowledged <= kept <= sent and len(rows) == len(kept)
        counts = dict(store.database.read("SELECT trace, num_spans FROM traces"))
        assert counts == dict(store.database.read("SELECT trace, count(*) FROM spans GROUP BY 1")), (
            "lists agree with spans"
        )
        assert store.database.read("PRAGMA integrity_check") == [("ok",)]
        store.close()


SEALER = """
import sys, time
from pathlib import Path
sys.path[:0] = [sys.argv[2]]
import otlp_requests as otlp
from firsthand.ingest.otlp_json import decode_json
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.cold_segments import remove_orphans, seal
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
store = TraceStore(Path(sys.argv[1]), create=True)
remove_orphans(store)
preparer = SpanPreparer(Redactor())
first = int(sys.argv[3])
for trace in range(first, first + 100_000):
    decoded, _ = decode_json(otlp.as_json(*(otlp.span(trace, span, text="x" * 500) for span in range(1, 31))))
    store.add(preparer.prepared(decoded))
    print("kept", trace, flush=True)
    if trace % 3 == 0:
        print("sealed", seal(store, -1.0), flush=True)
"""


def test_every_span_is_in_one_place_when_sealing_is_killed(tmp_path: Path) -> None:
    pytest.importorskip("duckdb", reason="duckdb is not installed")
    draws = random.Random(3)
    kept: list[int] = []
    orphans = 0
    for kill in range(KILLS):
        command = [sys.executable, "-c", SEALER, str(tmp_path), str(Path(__file__).parent), str(kill * 100_000 + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            sealed = 0
            for line in process.stdout:
                word, number = line.split()
                if word == "kept":
                    kept.append(int(number))
                sealed += word == "sealed"
                if sealed >= 2 and number and draws.random() < 0.4:
                    break
            time.sleep(draws.random() * 0.05)  # somewhere within what comes next
            process.kill()
            rest = process.stdout.read()
            kept += [int(line.split()[1]) for line in rest.splitlines() if line.startswith("kept ")]
        store = TraceStore(tmp_path)
        store.read_sealed = read_sealed
        orphans += remove_orphans(store)
        rows = store.database.read("SELECT file FROM segments")
        assert all((store.folder / SEGMENTS / name).is_file() for (name,) in rows) and rows
        for trace in kept[-20:] + draws.sample(kept, min(5, len(kept))):
            assert sorted(each.span.span_id for each in store.spans(f"{trace:032x}")) == [
                f"{n:016x}" for n in range(1, 31)
            ]
        total = sum(count for (count,) in store.database.read("SELECT num_spans FROM segments"))
        total += store.database.read("SELECT count(*) FROM spans")[0][0]
        assert total == store.database.read("SELECT sum(num_spans) FROM traces")[0][0] >= 30 * len(kept)
        store.close()


def test_a_text_of_a_hundred_megabytes_is_kept_and_shown_cut(tmp_path: Path) -> None:
    text = "<b>\u202e" * 20_000_000
    body = json.dumps(otlp.request(otlp.span(1, 1, text="@")), ensure_ascii=False).replace("@", text).encode()
    assert len(body) > 100 << 20
    with started(tmp_path) as server, httpx.Client(trust_env=False, timeout=120) as client:
        headers = {"content-type": "application/json"}
        assert client.post(f"{server.url}/v1/traces", content=body, headers=headers).status_code == 200
        too_long = client.post(f"{server.url}/v1/traces", content=body + body[: 30 << 20], headers=headers)
        assert too_long.status_code == 413
        client.get(server.page, follow_redirects=True)
        trace = f"{server.url}/traces/{1:032x}"
        for page in ("/traces", f"/traces/{1:032x}", f"/traces/{1:032x}?view=raw", f"/traces/{1:032x}/span?ref=span:0"):
            shown = client.get(server.url + page)
            assert shown.status_code == 200 and len(shown.content) < 40 << 20 and "<b>" not in shown.text
        with client.stream("GET", f"{trace}/copy/spans.json") as answer:
            size = sum(len(piece) for piece in answer.iter_bytes())
        assert size > len(text), "the download has all of it"
    store = TraceStore(tmp_path)
    assert store.spans(f"{1:032x}")[0].span.attributes["text"] == text
    store.close()
