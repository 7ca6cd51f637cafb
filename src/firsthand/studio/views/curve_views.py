"""Curves of training runs and sweeps: metrics by step or time, several runs on one plot, samples and files."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from firsthand.errors import ConfigError
from firsthand.runs.curve_envelope import Envelope, envelope, state
from firsthand.runs.run_folder import Run
from firsthand.runs.track import Track
from firsthand.studio.live_events import MOST_TOPICS, marks_of
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.rendering import page
from firsthand.studio.sweep_facts import MIN_RUNS, axes_of, importances
from firsthand.studio.views.query_values import number_of, text_of

MAX_RUNS = 40
MAX_POINTS = 4000
MAX_SAMPLES = 50
MAX_THREADS = 4


def routes(runs: OpenRuns) -> list[Route]:
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
        names = list(dict.fromkeys(name for _, track in tracks for name in track.names()))
        facts = [(run, flat(run.config)) for run in found]
        keys = [key for key in dict.fromkeys(k for _, each in facts for k in each)]
        differing = [key for key in keys if len({str(each.get(key)) for _, each in facts}) > 1]
        axes, target, ranking = [], "", []
        if len(found) >= MIN_RUNS and names:
            last = [
                {name: value for name in track.names() if (value := track.last(name)) is not None}
                for _, track in tracks
            ]
            axes = axes_of([each for _, each in facts], last)
            results = [axis["name"] for axis in axes if not axis["is_setting"]]
            target = text_of(request, "target") or next((name for name in results if "loss" in name), results[0])
            ranking = importances(axes, target)
        return page(
            request,
            "curves",
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

    def numbers(request: Request) -> Response:
        points = number_of(request, "points", 1000, least=10, most=MAX_POINTS)
        wanted = set(request.query_params.getlist("metric"))
        with ThreadPoolExecutor(MAX_THREADS) as pool:  # SQLite computes outside the interpreter's lock
            found = pool.map(lambda run: curves.of(run, wanted, points // 2), chosen(request))
            return Response(f'{{"curves": [{", ".join(filter(None, found))}]}}', media_type="application/json")

    curves = KeptCurves()
    return [Route("/curves", show), Route("/curves.json", numbers)]


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
    """Envelopes of curves as JSON, made again when something was logged."""

    def __init__(self, most: int = 400) -> None:
        self._most = most
        self._kept: dict[tuple[object, ...], str] = {}

    def of(self, run: Run, wanted: Collection[str], columns: int) -> str:
        """The curves of a run, those of the wanted names if there are any, as JSON objects with commas between them."""
        track, now = Track(run), state(run.database)
        found = []
        for name in track.names():
            if wanted and name not in wanted:
                continue
            key = (run.path, name, columns, now)
            text = self._kept.get(key)
            if text is None:
                text = json.dumps({"run": run.id, "name": name} | curve_json(envelope(track, name, columns)))
                self._kept[key] = text
                while len(self._kept) > self._most:
                    self._kept.pop(next(iter(self._kept)), None)
            found.append(text)
        return ", ".join(found)


def curve_json(curve: Envelope) -> dict[str, Any]:
    """Steps, values and means (null where one is not finite), and times of a curve; no means where they are the values."""
    body = {
        "steps": list(curve.steps),
        "values": [value if math.isfinite(value) else None for value in curve.values],
        "at": [round(each, 3) for each in curve.at],
    }
    if curve.means is not curve.values:
        body["means"] = [value if math.isfinite(value) else None for value in curve.means]
    return body


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """The values of nested settings by dotted names."""
    if not isinstance(config, dict):
        return {prefix: config}
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found
