"""One run: its boards with intervals and verdicts, and its attempts in a filtered, sorted table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from firsthand.errors import ConfigError
from firsthand.runs.attempts import harms
from firsthand.runs.run_folder import Run
from firsthand.show import board as board_module
from firsthand.show import heatmap
from firsthand.show.board import Board, attempts_of, leaderboard, reducers_of
from firsthand.show.feed_lines import FeedLines
from firsthand.show.scatter import scatter
from firsthand.stats.stored_figures import own_figures
from firsthand.studio.attempt_query import SORTABLE, AttemptQuery
from firsthand.studio.live_events import marks_of
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.rendering import is_part, page, part
from firsthand.studio.run_list import earlier_run
from firsthand.studio.run_notes import RunNotes
from firsthand.studio.studio_store import StudioStore
from firsthand.studio.views.arena_views import voter_of
from firsthand.studio.views.form_fields import posted
from firsthand.studio.views.query_values import number_of, text_of

MAX_LINES = 200
"""Steps of an attempt under way that are shown, the last ones."""


def routes(runs: OpenRuns, store: StudioStore, problems: Mapping[str, str] = MappingProxyType({})) -> list[Route]:
    """The page, its boards, its rows and its note. `problems` are those of trials that ended early, by run."""
    boards, notes = KeptBoards(), RunNotes(store)

    def show(request: Request) -> Response:
        return shown(request)

    def shown(request: Request, draft: str | None = None, refusal: str = "") -> Response:
        run = runs.get(request.path_params["run"])
        seen = marks_of([f"run:{run.id}"], runs)
        filter_text, sort = text_of(request, "filter"), text_of(request, "sort")
        start = number_of(request, "start", 0)
        query = AttemptQuery.parse(filter_text, sort)
        found = query.page(run.database, start)
        values: dict[str, Any] = {"run": run, "found": found, "filter": filter_text, "sort": sort, "sortable": SORTABLE}
        values["harms"] = harms(run.database)
        if is_part(request):
            if start:
                return page(request, "parts/attempt_rows", **values)
            return page(request, "parts/attempt_table", facets=query.facets(run.database), **values)
        info = run.info
        return page(
            request,
            "run",
            title=run.id,
            info=info,
            earlier=earlier_run(info, runs.infos()),
            seen=seen,
            problem=problems.get(run.id, ""),
            note=notes.get(run.id),
            draft=draft,
            refusal=refusal,
            agents=run.agents(),
            facets=query.facets(run.database),
            **values,
        )

    def board(request: Request) -> Response:
        run = runs.get(request.path_params["run"])
        found, problems = boards.of(run)
        sections = [(each, scatter(each), ()) for each in found]
        return page(
            request, "parts/boards", sections=sections, problems=problems, boards_module=board_module, heat=heatmap
        )

    def under_way(request: Request) -> Response:
        run = runs.get(request.path_params["run"])
        return page(request, "parts/under_way", run=run, attempts=under_way_of(run), most=MAX_LINES)

    def note(request: Request, form: dict[str, str]) -> Response:
        run = runs.get(request.path_params["run"])
        version = form.get("version", "")
        try:
            if not (version.isascii() and version.isdecimal() and len(version) < 9):
                raise ConfigError(f"version is {version[:40]!r}: a whole number was expected")
            notes.keep(run.id, form.get("text", ""), voter_of(request), int(version))
        except ConfigError as error:  # the page again, with the words that were not kept
            answer = shown(request, form.get("text", ""), str(error))
            answer.status_code = 400
            return answer
        return RedirectResponse(f"/runs/{part(run.id)}", 303)

    base = "/runs/{run}"
    return [
        Route(base, show),
        Route(f"{base}/note", posted(note), methods=["POST"]),
        Route(f"{base}/board", board),
        Route(f"{base}/under-way", under_way),
    ]


@dataclass(frozen=True)
class UnderWay:
    """An attempt that goes on."""

    place: str
    title: str
    began: float
    """When it began: seconds since 1970."""
    lines: tuple[str, ...]
    """Its steps so far, a line each."""


def under_way_of(run: Run) -> list[UnderWay]:
    """The attempts of a run that go on, the oldest first; none if no process works on it."""
    if run.status != "running":
        return []
    told, steps = FeedLines(), run.feed.under_way()
    lines: dict[str, list[str]] = {}
    began: dict[str, float] = {}
    for step in steps:
        began.setdefault(step.place, step.at)
        lines.setdefault(step.place, []).extend(line.partition("  ")[2] for line in told.of(step))
    return [UnderWay(place, each[0], began[place], tuple(each[1:])) for place, each in lines.items() if each]


class KeptBoards:
    """The boards of the runs that were asked for last, made again when a run has changed."""

    def __init__(self, most: int = 16) -> None:
        self._most = most
        self._kept: dict[str, tuple[object, tuple[list[Board], list[str]]]] = {}

    def of(self, run: Run) -> tuple[list[Board], list[str]]:
        """The boards of a run, and sentences about figures that could not be computed."""
        state = run.database.read(
            "SELECT (SELECT coalesce(max(seq), 0) FROM traces), (SELECT coalesce(max(seq), 0) FROM scores)"
        )
        kept = self._kept.get(run.id)
        if kept is None or kept[0] != (run, state):
            self._kept.pop(run.id, None)
            kept = self._kept[run.id] = ((run, state), boards_of(run))
            while len(self._kept) > self._most:
                self._kept.pop(next(iter(self._kept)), None)
        return kept[1]


def boards_of(run: Run) -> tuple[list[Board], list[str]]:
    """The boards of a run as `firsthand show RUN` prints them, and sentences about figures that could not be computed."""
    problems: list[str] = []
    figures = own_figures(problems.append, run)
    attempts = attempts_of(run, figures)
    if not attempts:
        return [], problems
    budget = str(run.config.get("equal_budget"))
    found = leaderboard(
        attempts,
        budget=float(budget) if budget.isdecimal() else None,
        clusters=run.clusters(),
        figures=figures,
        order=run.agents(),
        protocols=run.protocols,
        reducers=reducers_of(run),
        retried=run.retried(),
    )
    return found, problems
