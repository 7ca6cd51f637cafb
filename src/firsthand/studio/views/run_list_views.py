"""The first page: all runs, with facets, a typed filter and a choice of columns."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from firsthand.studio.live_events import marks_of
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.rendering import is_part, page
from firsthand.studio.run_list import SORTABLE, run_page
from firsthand.studio.run_notes import RunNotes
from firsthand.studio.studio_store import StudioStore
from firsthand.studio.views.curve_views import KeptCurves
from firsthand.studio.views.query_values import number_of, text_of


def routes(runs: OpenRuns, store: StudioStore, curves: KeptCurves) -> list[Route]:
    """The list, and its rows alone for htmx. The curves of listed runs are made ahead."""
    kept = RunNotes(store)

    def show(request: Request) -> Response:
        seen = marks_of(["runs"], runs)
        filter_text, sort = text_of(request, "filter"), text_of(request, "sort")
        start = number_of(request, "start", 0)
        problems: list[str] = []
        infos = runs.infos(problems.append)
        notes = {run: note.text for run, note in kept.all().items()}
        found = run_page(infos, filter_text, sort, start, notes=notes)
        values: dict[str, Any] = {
            "found": found,
            "notes": notes,
            "problems": problems,
            "filter": filter_text,
            "sort": sort,
            "num_runs": len(infos),
            "sortable": SORTABLE,
        }
        curves.ahead(found.rows, runs)
        if is_part(request):
            name = "parts/run_rows" if start else "parts/run_table"
            return page(request, name, **values)
        return page(request, "runs", title="Runs", seen=seen, home=str(runs.home), **values)

    return [Route("/", show)]
