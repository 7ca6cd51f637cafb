"""The Studio: from the command to the first page, its memory, and its pages over large runs; beside other products.

    python bench/studio.py start [--rival-python VENV/bin/python]     # those of arize-phoenix mlflow trackio it has
    python bench/studio.py pages [--attempts 100000] [--calls 10]     # a run of a million calls
    python bench/studio.py trace [--calls 100000]
    python bench/studio.py curves [--runs 20] [--steps 50000]
    python bench/studio.py spans [--spans 1000000] [--calls 50] [--home FOLDER]    # traces of other programs, over a week

`start` is by the clock, from the start of a process in an empty folder to the first page that is answered, the median of
rounds in turn; memory is the resident set of the process and its children then. The others are medians over requests of a
client on this machine, by the clock and by the server's processor time. With `--home`, `spans` and `curves` write their data
where none is yet, and measure what is there: a first call fills, a second one measures. `--browser` adds the time until
Chromium has drawn the curves, or the first rows of the tree, from the start of the navigation.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx

from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from firsthand.message import Json
from firsthand.model import Usage
from firsthand.runs import store
from firsthand.runs.track import Track
from firsthand.trace import Call, Score, Trace

START_WITHIN_S = 300.0
RIVALS: dict[str, tuple[str, str, int, dict[str, str]]] = {
    "Phoenix": ("phoenix", "serve", 6006, {"PHOENIX_WORKING_DIR": "{folder}", "PHOENIX_GRPC_PORT": "14317"}),
    "MLflow": ("mlflow", "server --port {port} --backend-store-uri sqlite:///{folder}/m.db", 15000, {}),
    "trackio": ("trackio", "show", 17860, {"TRACKIO_DIR": "{folder}", "GRADIO_SERVER_PORT": "{port}"}),
    "Inspect view": ("inspect", "view start --port {port} --log-dir {folder}", 17575, {}),
}
"""Name -> program beside the rival's Python, its words, port and environment."""
STARTED_AT = "2026-11-27T00:00:00+00:00"
WATCH = """new MutationObserver((_, watcher) => {
  if (!document.querySelector("#plots canvas, #tree .span")) return;
  watcher.disconnect();
  requestAnimationFrame(() => requestAnimationFrame(() => { window.drawnAt = performance.now(); }));
}).observe(document, { childList: true, subtree: true });"""
"""Notes the time of the frame after the one with plots, or with rows of a tree, from the start of the navigation."""
SETTLE_S = 2.0
"""Chromium is still starting when it takes its first address: pages are asked for later, and whether they are drawn is."""


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("start", "pages", "trace", "curves", "spans"))
    parser.add_argument("--rival-python", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--attempts", type=int, default=100_000)
    parser.add_argument("--calls", type=int)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument("--home", type=Path, help="where the data of spans and curves is kept between calls")
    parser.add_argument("--browser", action="store_true", help="with curves and trace: draw them in Chromium too")
    args = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}: {' '.join(sys.argv)}\n")
    if args.what == "start":
        measure_start(args.rival_python, args.rounds)
    elif args.what == "pages":
        measure_pages(args.attempts, args.calls or 10, args.rounds)
    elif args.what == "trace":
        measure_trace(args.calls or 100_000, args.rounds, is_drawn=args.browser)
    elif args.what == "spans":
        measure_spans(args.spans, args.calls or 50, args.rounds, args.home)
    else:
        measure_curves(args.runs, args.steps, args.rounds, args.home, is_drawn=args.browser)


class Started:
    """The Studio in a process of its own over a folder."""

    def __init__(self, home: Path):
        command = [sys.executable, "-m", "firsthand", "studio", "--no-open", "--port", "0"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
            env={**os.environ, "FIRSTHAND_HOME": str(home)},
        )  # fmt: skip
        assert self.process.stdout is not None
        found = re.search(r"http://\S+", self.process.stdout.readline())
        assert found is not None
        self.client = httpx.Client(base_url=found[0].partition("/enter")[0], timeout=300)
        while True:
            try:
                self.client.get(found[0], follow_redirects=True).raise_for_status()
                return
            except httpx.ConnectError:
                time.sleep(0.01)

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()

    def cpu_s(self) -> float:
        """The seconds of processor time that the server has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def ask(self, name: str, path: str, rounds: int, **query: str) -> None:
        """Print the time of a page: the first request, then the median."""
        times, size, before = [], 0, 0.0
        for number in range(rounds + 1):
            if number == 1:
                before = self.cpu_s()
            began = time.perf_counter()
            answer = self.client.get(path, params=query or None)
            times.append(1000 * (time.perf_counter() - began))
            answer.raise_for_status()
            size = len(answer.content)
        cpu_ms = 1000 * (self.cpu_s() - before) / rounds
        print(f"| {name} | {times[0]:.0f} | {statistics.median(times[1:]):.0f} | {cpu_ms:.0f} | {size / 1024:.0f} |")


def table() -> None:
    """Print the head of a table of pages."""
    print("| page | first, ms | then, ms | processor, ms | KiB |")
    print("|---|---|---|---|---|")


def measure_start(rival: Path | None, rounds: int) -> None:
    """Print the time to the first page, and the memory, of each product."""
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for name, start in products(rival).items():
            with tempfile.TemporaryDirectory() as folder:
                found.setdefault(name, []).append(start(Path(folder)))
    print("| | first page, s | memory, MB |")
    print("|---|---|---|")
    for name, each in found.items():
        print(f"| {name} | {statistics.median(s for s, _ in each):.2f} | {statistics.median(m for _, m in each):.0f} |")


def products(rival: Path | None) -> dict[str, Callable[[Path], tuple[float, float]]]:
    """Name -> a function that starts the product in a folder and returns seconds and MB."""
    made: dict[str, Callable[[Path], tuple[float, float]]] = {"firsthand studio": start_own}
    here = None if rival is None else rival.parent
    for name, (program, words, port, environment) in RIVALS.items():
        if here is not None and (here / program).exists():
            made[name] = partial(start_other, str(here / program), words, port, environment)
    return made


def start_own(folder: Path) -> tuple[float, float]:
    """Start the Studio."""
    began = time.perf_counter()
    with Started(folder) as studio:
        return time.perf_counter() - began, resident_mb(studio.process.pid)


def start_other(program: str, words: str, port: int, environment: dict[str, str], folder: Path) -> tuple[float, float]:
    """Start another product over an empty folder and wait for its page."""
    command = [program, *words.format(folder=folder, port=port).split()]
    added = {name: value.format(folder=folder, port=port) for name, value in environment.items()}
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, env={**os.environ, **added}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        while True:
            try:
                answer = httpx.get(f"http://127.0.0.1:{port}/", timeout=5, follow_redirects=True, trust_env=False)
                if answer.status_code < 500:
                    return time.perf_counter() - began, resident_mb(process.pid)
            except httpx.HTTPError:
                assert process.poll() is None, f"{command[0]} ended"
                assert time.perf_counter() - began < START_WITHIN_S, f"{command[0]} has no page"
                time.sleep(0.02)
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def resident_mb(pid: int) -> float:
    """The resident memory of a process and its descendants."""
    children: dict[int, list[int]] = {}
    sizes: dict[int, int] = {}
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            try:
                fields = (each / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(each.name))
            sizes[int(each.name)] = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    waiting, total = [pid], 0
    while waiting:
        each_pid = waiting.pop()
        total += sizes.get(each_pid, 0)
        waiting += children.get(each_pid, [])
    return total / 1e6


def trace(number: int, calls: int) -> Trace:
    """An attempt with so many calls."""
    made = tuple(
        Call(f"{n % 40}.{n % 7}:{n}", "generate" if n % 3 else "tool", None, n / 100, 0.01, "0" * 64, Usage(400, 100, 50),
             detail={} if n % 3 else {"name": f"tool{n % 5}", "arguments": {"q": n}, "result": "x" * 200})
        for n in range(calls)
    )  # fmt: skip
    return Trace(
        f"id{number:08d}", f"bench{number % 3}", f"task{number // 12}", {"name": f"agent{number % 4}"}, number % 12 // 4, 0,
        STARTED_AT, calls / 100, calls=made, answer=str(number), scores=(Score("exact", float(number % 5 > 1)),),
    )  # fmt: skip


def measure_pages(attempts: int, calls: int, rounds: int) -> None:
    """Print the times of the pages of a run with many attempts."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with store.create(Path(folder), {"model": "m"}, "large") as run:
            for number in range(4):
                run.add_agent(f"agent{number}", {"name": f"agent{number}"})
            for number in range(attempts):
                run.append(trace(number, calls))
            run.finish("done")
            id, place = run.id, f"id{attempts // 2:08d}"
        print(f"{attempts:,} attempts of {calls} calls each, written in {time.perf_counter() - began:.0f} s\n")
        table()
        with Started(Path(folder)) as studio:
            studio.ask("runs", "/", rounds)
            studio.ask("attempts, first page with facets", f"/runs/{id}", rounds)
            studio.ask("filter score<0.5 agent=agent1", f"/runs/{id}", rounds, filter="score<0.5 agent=agent1")
            studio.ask("filter by a word", f"/runs/{id}", rounds, filter="task77")
            studio.ask("sorted by tokens", f"/runs/{id}", rounds, sort="-tokens")
            studio.ask("leaderboard", f"/runs/{id}/board", rounds)
            studio.ask("one attempt", f"/runs/{id}/attempts/{place}", rounds)
            studio.ask("two agents compared", "/compare", rounds, run=id)


def measure_trace(calls: int, rounds: int, *, is_drawn: bool) -> None:
    """Print the times of the pages of one attempt with many calls."""
    with tempfile.TemporaryDirectory() as folder:
        with store.create(Path(folder), {}, "long") as run:
            run.append(trace(0, calls))
            id = run.id
        print(f"one attempt of {calls:,} calls\n")
        base = f"/runs/{id}/attempts/id00000000"
        if is_drawn:
            with Started(Path(folder)) as studio:
                draw(studio, f"{base}?view=tree", rounds)
        table()
        with Started(Path(folder)) as studio:
            studio.ask("tree", base, rounds, view="tree")
            studio.ask("its spans", f"{base}/spans.json", rounds)
            studio.ask("one span", f"{base}/span", rounds, ref=f"call:{calls // 2}")


@contextmanager
def kept(home: Path | None) -> Iterator[Path]:
    """A folder for data: one that stays, or one that goes at the end."""
    if home is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    else:
        home.mkdir(parents=True, exist_ok=True)
        yield home


def measure_spans(spans: int, each: int, rounds: int, home: Path | None) -> None:
    """Print the times of the pages of received traces, which came over a week."""
    traces = max(1, spans // each)
    with kept(home) as folder:
        if not any(folder.iterdir()):
            began = time.perf_counter()
            taken = TraceStore(folder, create=True)
            preparer = SpanPreparer(Redactor())
            for first in range(0, traces, 100):
                numbers = range(first, min(first + 100, traces))
                taken.add(preparer.prepared(span for number in numbers for span in received(number, traces, each)))
            taken.close()
            print(f"{traces * each:,} spans in {traces:,} traces, written in {time.perf_counter() - began:.0f} s\n")
            if home is not None:
                return
        table()
        with Started(folder) as studio:
            studio.ask("traces, first page with facets", "/traces", rounds)
            studio.ask("filter has:error tokens>2000", "/traces", rounds, filter="has:error tokens>2000")
            studio.ask("filter model=m3", "/traces", rounds, filter="model=m3")
            studio.ask("filter by a word", "/traces", rounds, filter="parcel77")
            studio.ask("sorted by tokens", "/traces", rounds, sort="-tokens")
            studio.ask("sessions", "/traces/by/sessions", rounds)
            studio.ask("the week by days", "/traces/by/days", rounds)
            studio.ask("one trace", f"/traces/{traces // 2 + 1:032x}", rounds)
            studio.ask("its spans", f"/traces/{traces // 2 + 1:032x}/spans.json", rounds)


def received(number: int, traces: int, each: int) -> Iterator[IncomingSpan]:
    """The spans of one trace: a root, and calls of a model and of tools below it."""
    begun = 1_795_000_000_000_000_000 + number * (7 * 86_400_000_000_000 // traces)
    resource: Json = {"service.name": f"service{number % 4}"}
    for place in range(each):
        attributes: Json = {"session.id": f"chat{number // 6}", "user.id": f"user{number % 300}"} if not place else {
            "gen_ai.operation.name": "chat", "gen_ai.request.model": f"m{number % 7}",
            "gen_ai.usage.input_tokens": 40 + number % 90, "gen_ai.usage.output_tokens": 12,
            "gen_ai.input.messages": json.dumps([{"role": "user", "content": f"parcel{number} {'x' * 300}"}]),
        }  # fmt: skip
        parent, name = (f"{1:016x}", "chat") if place else ("", f"answer {number % 11}")
        yield IncomingSpan(
            f"{number + 1:032x}", f"{place + 1:016x}", parent, name,
            begun + place * 1_000_000, begun + (place + 1 + number % 50) * 1_000_000, attributes, resource=resource,
            error="it failed" if place == each - 1 and not number % 9 else None,
        )  # fmt: skip


def measure_curves(runs: int, steps: int, rounds: int, home: Path | None, *, is_drawn: bool) -> None:
    """Print the times of the numbers of many curves, and of their drawing."""
    with kept(home) as folder:
        if not any(folder.iterdir()):
            for number in range(runs):
                with store.create(folder, {"lr": number}, f"fit{number}") as run:
                    track = Track(run)
                    for step in range(steps):
                        track.log({"loss": number + 1 / (step + 1)}, step=step)
                    track.flush()
            print(f"{runs} curves of {steps:,} points are written")
            if home is not None:
                return
        query = "&".join(f"run={info.id}" for info in store.list_runs(folder))
        with Started(folder) as studio:
            if is_drawn:
                draw(studio, f"/curves?{query}", rounds)
            table()
            studio.ask("page", f"/curves?{query}", rounds)
            studio.ask("numbers, 1,500 points each", f"/curves.json?{query}&points=1500", rounds)


def draw(studio: Started, path: str, rounds: int) -> None:
    """Print the time from a navigation until Chromium has drawn plots or a tree: the first one, then the median."""
    from studio_screens import chromium, until

    times = []
    with chromium() as browser:
        browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
        browser.get(str(studio.client.base_url.join("/static/none/none")))
        for cookie in studio.client.cookies.jar:
            browser.add_cookie({"name": cookie.name, "value": cookie.value, "path": "/"})
        time.sleep(SETTLE_S)
        for _ in range(rounds + 1):
            browser.get("about:blank")
            browser.get(str(studio.client.base_url.join(path)))
            time.sleep(SETTLE_S)
            times.append(until(lambda: browser.execute_script("return window.drawnAt ?? null")))
    print(f"drawn {times[0]:.0f} ms after the first navigation, then {statistics.median(times[1:]):.0f} ms (median)\n")


if __name__ == "__main__":
    main()
