"""Curves of training runs and sweeps: metrics by step or time, several runs on one plot, samples and files."""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any
from urllib.parse import urlencode

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from firsthand.errors import ConfigError, FirsthandError
from firsthand.message import Json
from firsthand.runs.curve_envelope import PARTS, Envelope, envelope, state
from firsthand.runs.index import RunInfo
from firsthand.runs.run_folder import Run
from firsthand.runs.track import Track
from firsthand.studio.live_events import MOST_TOPICS, marks_of
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.rendering import page
from firsthand.studio.sweep_facts import MIN_RUNS, axes_of, importances
from firsthand.studio.views.query_values import number_of, text_of

MAX_RUNS = 40
MAX_POINTS = 4000
POINTS, POINTS_OF_MANY = 1500, 1000
"""Points of a curve on the page: two for each pixel of a plot that is alone or one of two, and of one among more."""
MAX_SAMPLES = 50
MAX_SETTINGS, MAX_NAME_CHARS = 1000, 200
"""Settings of a run that are compared, and characters of a dotted name."""
LONG, MAX_AHEAD, MAX_NAMES_AHEAD = 10_000, 20, 4
"""Steps from which curves are made before they are asked for; of that many runs, which stay open; of that many metrics."""
AHEAD_AFTER_S = 0.3
MAX_THREADS = 2
"""More wait for each other: SQLite computes outside the interpreter's lock, and a page is drawn meanwhile."""


def routes(runs: OpenRuns, curves: KeptCurves) -> list[Route]:
    """The page, and the numbers that it draws."""

    def chosen(request: Request) -> list[Run]:
        ids = list(dict.fromkeys(request.query_params.getlist("run")))
        if len(ids) > MAX_RUNS:
            raise ConfigError(f"{len(ids)} runs are too many for one plot: choose {MAX_RUNS} at most")
        return runs.several(ids)

    def show(request: Request) -> Response:
        found = chosen(request)
        seen = marks_of([f"run:{run.id}" for run in found[:MOST_TOPICS]], runs)
        tracks = [(run, Track(run)) for run in found]
        named = [track.names() for _, track in tracks]
        names = list(dict.fromkeys(name for each in named for name in each))
        points, parts = points_of(names), parts_of(request)
        facts = [(run, flat(run.config)) for run in found]
        keys = [key for key in dict.fromkeys(k for _, each in facts for k in each)]
        differing = [key for key in keys if len({str(each.get(key)) for _, each in facts}) > 1]
        axes, target, ranking = [], "", []
        if len(found) >= MIN_RUNS and names:
            last = [last_values(track) for _, track in tracks]
            axes = axes_of([each for _, each in facts], last)
            results = [axis["name"] for axis in axes if not axis["is_setting"]]
            likely = [*(name for name in results if "loss" in name), *results, ""]  # no result where the last are NaN
            target = text_of(request, "target") or likely[0]
            ranking = importances(axes, target)
        source = source_of(found, points)
        made = page(
            request,
            "curves",
            source=source,
            asked=source + "".join(f"&with={each}" for each in parts),
            axes=axes,
            target=target,
            ranking=ranking,
            shared=shared_files(tracks),
            title="Curves",
            seen=seen,
            runs=found,
            names=names,
            facts=facts,
            facts_json={run.id: {key: str(each[key])[:80] for key in differing if key in each} for run, each in facts},
            shown_facts=differing if len(found) > 1 else keys,
            texts=[(run, text) for run, track in tracks for text in track.texts()[-MAX_SAMPLES:]],
            artifacts=[(run, file) for run, track in tracks for file in track.artifacts()],
        )
        for run, each in zip(found, named, strict=True):  # the page will ask for them
            curves.begin(run, each, points // 2, parts)
        return made

    def numbers(request: Request) -> Response:
        points = number_of(request, "points", 1000, least=10, most=MAX_POINTS)
        wanted = set(request.query_params.getlist("metric"))
        parts = frozenset(request.query_params.getlist("with"))
        if not parts.issubset(PARTS):
            raise ConfigError(f"with is {min(parts.difference(PARTS))[:40]!r}: it is one of {', '.join(PARTS)}")
        asked = []
        for run in chosen(request):
            names = Track(run).names()
            asked += curves.begin(run, [name for name in names if not wanted or name in wanted], points // 2, parts)
        body = b", ".join(each.result() for each in asked)
        return Response(b'{"curves": [' + body + b"]}", media_type="application/json")

    return [Route("/curves", show), Route("/curves.json", numbers)]


def points_of(names: Sequence[str]) -> int:
    """The points of each curve on a page of metrics with these names."""
    return POINTS if len(names) < 3 else POINTS_OF_MANY


def source_of(runs: Sequence[Run], points: int) -> str:
    """The address of the numbers of runs."""
    return "/curves.json?" + urlencode([*(("run", run.id) for run in runs), ("points", points)])


def parts_of(request: Request) -> list[str]:
    """The parts of curves that the page draws as its address says; its script asks the same."""
    try:
        is_smooth = float(text_of(request, "smooth") or 0) > 0
    except ValueError:
        is_smooth = False
    means = is_smooth or bool(text_of(request, "group"))
    return ["means"] * means + ["at"] * (text_of(request, "x") == "time")


def last_values(track: Track) -> dict[str, float]:
    """The last value of each metric that has one."""
    return {name: value for name in track.names() if (value := track.last(name)) is not None}


def shared_files(tracks: list[tuple[Run, Track]]) -> dict[str, list[str]]:
    """SHA-256 of files that several of the runs keep, each with the runs, in the order in which they kept it."""
    found: dict[str, list[str]] = {}
    for run, track in sorted(tracks, key=lambda each: each[0].created_at):
        for file in track.artifacts():
            if run.id not in found.setdefault(file.sha256, []):
                found[file.sha256].append(run.id)
    return {digest: ids for digest, ids in found.items() if len(ids) > 1}


class KeptCurves:
    """Envelopes of curves as JSON, made by threads of its own, and again when something was logged.

    Where the list of runs was shown, the curves of its newest finished runs are made ahead, one after another.
    """

    def __init__(self, most: int = 400) -> None:
        self._most = most
        self._asked_ahead: frozenset[str] = frozenset()
        self._closed = threading.Event()
        self._kept: dict[tuple[object, ...], Future[bytes]] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(MAX_THREADS, "curves")  # its threads begin with the first curve

    def begin(self, run: Run, names: Iterable[str], columns: int, parts: Collection[str]) -> list[Future[bytes]]:
        """The curves of a run by those names: JSON objects, which are being made or are there."""
        now, parts = state(run.database), frozenset(parts)
        found = []
        with self._lock:
            for name in names:
                key = (run.path, name, columns, parts, now)
                made = self._kept.get(key)
                if made is None:
                    made = self._kept[key] = self._pool.submit(_made, run, name, columns, parts)
                    made.add_done_callback(partial(self._forget_failed, key))
                    while len(self._kept) > self._most:
                        self._kept.pop(next(iter(self._kept)), None)
                found.append(made)
        return found

    def ahead(self, infos: Iterable[RunInfo], runs: OpenRuns) -> None:
        """Begins with the curves of the newest of these runs that are long and finished, once the list is drawn."""
        long = [info.id for info in infos if info.num_steps >= LONG and info.status != "running"][:MAX_AHEAD]
        if self._asked_ahead.issuperset(long):
            return
        self._asked_ahead = frozenset(long)
        threading.Thread(target=self._make_ahead, args=(long, runs), daemon=True, name="curves-ahead").start()

    def _make_ahead(self, ids: list[str], runs: OpenRuns) -> None:
        self._closed.wait(AHEAD_AFTER_S)
        for id in ids:
            with suppress(
                FirsthandError, RuntimeError, CancelledError
            ):  # such a run says so on its page; a closed pool
                run = runs.get(id)
                names = Track(run).names()[:MAX_NAMES_AHEAD]
                for name in names:
                    if self._closed.is_set():
                        return
                    self.begin(run, [name], points_of(names) // 2, ())[0].exception()  # one at a time: pages come first

    def close(self) -> None:
        """Make no more."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _forget_failed(self, key: tuple[object, ...], made: Future[bytes]) -> None:
        if made.cancelled() or made.exception() is not None:
            self._kept.pop(key, None)


def _made(run: Run, name: str, columns: int, parts: Collection[str]) -> bytes:
    named = json.dumps({"run": run.id, "name": name})  # either may hold lone surrogates, which UTF-8 has no bytes for
    numbers = orjson.dumps(curve_body(envelope(Track(run), name, columns, parts), parts))  # what is not finite is null
    return named[:-1].encode() + b", " + numbers[1:]


def curve_body(curve: Envelope, parts: Collection[str]) -> Json:
    """Steps and values of a curve, and the parts; no means where they are the values."""
    body: Json = {"steps": curve.steps, "values": curve.values}
    if "at" in parts:
        body["at"] = [round(each, 3) for each in curve.at]
    if "means" in parts and curve.means is not curve.values:
        body["means"] = curve.means
    return body


def flat(config: Any) -> dict[str, Any]:
    """The values of nested settings by dotted names of at most MAX_NAME_CHARS: the first MAX_SETTINGS of them."""
    found: dict[str, Any] = {}
    pending: list[tuple[str, Any]] = [("", config)]
    while pending and len(found) < MAX_SETTINGS:
        name, value = pending.pop()
        if not isinstance(value, dict):
            found[name] = value
            continue
        inner = list(islice(value.items(), MAX_SETTINGS))
        pending += [
            ((f"{name}.{str(key)[:MAX_NAME_CHARS]}" if name else str(key))[:MAX_NAME_CHARS], held)
            for key, held in reversed(inner)
        ]
    return found
