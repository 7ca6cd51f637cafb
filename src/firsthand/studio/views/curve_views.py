"""Curves of training runs and sweeps: metrics by step or time, several runs on one plot, samples and files."""

from __future__ import annotations

import math
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from firsthand.errors import ConfigError
from firsthand.runs.run_folder import Run
from firsthand.runs.track import Curve, Track
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.rendering import json_answer, page
from firsthand.studio.views.query_values import number_of

MAX_RUNS = 40
MAX_POINTS = 4000
MAX_SAMPLES = 50


def routes(runs: OpenRuns) -> list[Route]:
    """The page, and the numbers that it draws."""

    def chosen(request: Request) -> list[Run]:
        ids = list(dict.fromkeys(request.query_params.getlist("run")))
        if len(ids) > MAX_RUNS:
            raise ConfigError(f"{len(ids)} runs are too many for one plot: choose {MAX_RUNS} at most")
        return runs.several(ids)

    def show(request: Request) -> Response:
        found = chosen(request)
        tracks = [(run, Track(run)) for run in found]
        names = list(dict.fromkeys(name for _, track in tracks for name in track.names()))
        facts = [(run, flat(run.config)) for run in found]
        keys = [key for key in dict.fromkeys(k for _, each in facts for k in each)]
        differing = [key for key in keys if len({str(each.get(key)) for _, each in facts}) > 1]
        return page(
            request,
            "curves",
            title="Curves",
            runs=found,
            names=names,
            facts=facts,
            shown_facts=differing if len(found) > 1 else keys,
            texts=[(run, text) for run, track in tracks for text in track.texts()[-MAX_SAMPLES:]],
            artifacts=[(run, file) for run, track in tracks for file in track.artifacts()],
        )

    def numbers(request: Request) -> Response:
        points = number_of(request, "points", 1000, least=10, most=MAX_POINTS)
        wanted = set(request.query_params.getlist("metric"))
        found = []
        for run in chosen(request):
            track = Track(run)
            for name in track.names():
                if not wanted or name in wanted:
                    found.append({"run": run.id, "name": name} | curve_json(track.curve(name).thinned(points)))
        return json_answer({"curves": found})

    return [Route("/curves", show), Route("/curves.json", numbers)]


def curve_json(curve: Curve) -> dict[str, Any]:
    """Steps, values (null where one is not finite) and times of a curve."""
    return {
        "steps": list(curve.steps),
        "values": [value if math.isfinite(value) else None for value in curve.values],
        "at": [round(each, 3) for each in curve.at],
    }


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """The values of nested settings by dotted names."""
    if not isinstance(config, dict):
        return {prefix: config}
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found
