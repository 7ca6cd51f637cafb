"""Traces that other programs sent: the list, sessions and users, and one trace as conversation, tree and JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from firsthand.errors import ConfigError, UnknownName
from firsthand.ingest.as_trace import question_of
from firsthand.ingest.incoming_span import MOST_NS
from firsthand.ingest.task_rows import task_row
from firsthand.studio.branch_conversation import conversation
from firsthand.studio.incoming_query import SORTABLE, IncomingQuery
from firsthand.studio.incoming_rows import ShownSpans, downloaded_spans, incoming_detail, shown_spans
from firsthand.studio.incoming_traces import IncomingTraces
from firsthand.studio.live_events import marks_of
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.rendering import is_part, json_answer, page
from firsthand.studio.span_search import spans_holding
from firsthand.studio.trace_copies import as_examples
from firsthand.studio.views.query_values import number_of, text_of

VIEWS = ("conversation", "tree", "raw")
GROUPS = ("session", "user", "day")
MAX_RAW_CHARS = 2_000_000


def routes(runs: OpenRuns, traces: IncomingTraces) -> list[Route]:
    """The pages, the spans of a trace, and its copies."""

    def show_list(request: Request) -> Response:
        seen = marks_of(["traces"], runs, traces)
        filter_text, sort = text_of(request, "filter"), text_of(request, "sort")
        query = IncomingQuery.parse(filter_text, sort)
        store = traces.store
        if store is None:
            given: dict[str, Any] = {"found": None, "filter": "", "sort": "", "seen": seen}
            return page(request, "incoming", title="Traces", base=_base(request), **given)
        found = query.page(store, number_of(request, "start", 0))
        total = store.database.read("SELECT count(1) FROM traces")[0][0]
        values = {
            "found": found,
            "filter": filter_text,
            "sort": sort,
            "num_traces": total,
            "scores": store.scores_of([each.trace for each in found.rows]),
            "sortable": SORTABLE,
            "when": _when,
            "seen": seen,
        }
        if is_part(request) and found.start:
            return page(request, "parts/incoming_rows", **values)
        values["facets"] = query.facets(store)
        if is_part(request):
            return page(request, "parts/incoming_table", **values)
        return page(request, "incoming", title="Traces", base=_base(request), **values)

    def show_groups(request: Request) -> Response:
        by = request.path_params["by"].removesuffix("s")
        if by not in GROUPS:
            raise UnknownName(f"traces are grouped by sessions, users or days, not by {by[:40]!r}")
        filter_text = text_of(request, "filter")
        query = IncomingQuery.parse(filter_text)
        store, start = traces.store, number_of(request, "start", 0)
        if by == "day":
            days = query.days(store, start) if store is not None else []
            return page(
                request, "incoming_days", title="Days", base=_base(request), days=days, filter=filter_text, start=start
            )
        rows = query.groups(store, by, start) if store is not None else []
        return page(
            request,
            "incoming_groups",
            title=f"{by.capitalize()}s",
            by=by,
            rows=rows,
            filter=filter_text,
            when=_when,
            start=start,
        )

    def show(request: Request) -> Response:
        kept = traces.get(request.path_params["trace"])
        view = text_of(request, "view") or "conversation"
        if view not in VIEWS:
            raise ConfigError(f"view is {view[:40]!r}: it is one of {', '.join(VIEWS)}")
        filter_text, sort = text_of(request, "filter"), text_of(request, "sort")
        store = traces.store
        assert store is not None
        before, after = IncomingQuery.parse(filter_text, sort).beside(store, kept.summary)
        leaf = number_of(request, "leaf", -1, least=-1)
        raw = shown_spans(kept.spans, MAX_RAW_CHARS) if view == "raw" else ShownSpans("", 0)
        return page(
            request,
            "incoming_trace",
            title=kept.summary.name or kept.summary.trace,
            one=kept.summary,
            trace=kept.trace,
            question=question_of(kept.spans),
            view=view,
            views=VIEWS,
            failed_row=kept.failed_row,
            said=conversation(kept.trace, None if leaf < 0 else leaf) if view == "conversation" else None,
            before=before,
            after=after,
            filter=filter_text,
            sort=sort,
            raw=raw,
            num_spans=len(kept.spans),
            scores=store.scores(kept.summary.trace),
            when=_when,
        )

    def rows(request: Request) -> Response:
        return Response(traces.get(request.path_params["trace"]).rows, media_type="application/json")

    def span(request: Request) -> Response:
        kept = traces.get(request.path_params["trace"])
        return page(request, "parts/span", detail=incoming_detail(kept.spans, text_of(request, "ref")))

    def search(request: Request) -> Response:
        return json_answer(spans_holding(traces.get(request.path_params["trace"]).spans, text_of(request, "words")))

    def copy(request: Request) -> Response:
        kind = request.path_params["kind"]
        kept = traces.get(request.path_params["trace"])
        headers = {"content-disposition": f'attachment; filename="{kind}"'}
        if kind == "spans.json":
            return StreamingResponse(downloaded_spans(kept.spans), media_type="application/json", headers=headers)
        if kind == "example.jsonl":
            return PlainTextResponse(as_examples("traces", kept.trace), headers=headers)
        if kind == "task.jsonl":
            line = json.dumps(task_row(kept.summary.trace, kept.spans), ensure_ascii=True)
            return PlainTextResponse(line + "\n", headers=headers)
        raise UnknownName(f"a trace is copied as spans.json, task.jsonl or example.jsonl, not as {kind[:40]!r}")

    base = "/traces/{trace}"
    return [
        Route("/traces", show_list),
        Route("/traces/by/{by}", show_groups),
        Route(base, show),
        Route(f"{base}/spans.json", rows),
        Route(f"{base}/spans/found", search),
        Route(f"{base}/span", span),
        Route(f"{base}/copy/{{kind:str}}", copy),
    ]


def _base(request: Request) -> str:
    """The address that programs send to."""
    return f"http://{request.headers.get('host', '127.0.0.1')}"


def _when(ns: int) -> str:
    """The time in UTC; `unknown` where no span has said one, as a summary then has bounds that no time can have."""
    if not 0 <= ns < MOST_NS:
        return "unknown"
    try:
        return datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "unknown"
