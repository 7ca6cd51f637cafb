"""The Studio as an ASGI app over a data home."""

from __future__ import annotations

import sys
import traceback
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from firsthand.agent import Agent
from firsthand.errors import FirsthandError, UnknownName
from firsthand.ingest.otlp_door import OtlpDoor
from firsthand.ingest.span_writer import SpanWriter
from firsthand.studio.access import Access, AccessMiddleware
from firsthand.studio.arena_rounds import ArenaRounds
from firsthand.studio.incoming_traces import IncomingTraces
from firsthand.studio.live_events import CountedStream, OpenStreams, changes
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.playground import Playground
from firsthand.studio.rendering import STATIC, is_part, page
from firsthand.studio.studio_pages import OWN_PAGES, StudioPage
from firsthand.studio.studio_store import SqliteStore, StudioStore
from firsthand.studio.views import (
    account_views,
    arena_views,
    attempt_views,
    collection_views,
    comparison_views,
    curve_views,
    incoming_views,
    playground_views,
    prompt_views,
    queue_views,
    run_list_views,
    run_views,
    saved_views,
)

_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def create_app(
    home: Path,
    access: Access,
    agents: Mapping[str, Agent] | None = None,
    store: StudioStore | None = None,
    *,
    writer: SpanWriter | None = None,
    ingest_key: str | None = None,
    pages: Sequence[StudioPage] = (),
) -> Starlette:
    """The app that shows the runs and traces under `home` to whom `access` lets in.

    `agents` answer in the arena and the playground, by name. `store` keeps what people make here; by default a file of
    the data home. With a `writer` it takes spans by OTLP too, from whoever shows the `ingest_key` if there is one.
    `pages` of other rooms come after the Studio's own.
    """
    store = store or SqliteStore(home)
    runs = OpenRuns(home)
    traces = IncomingTraces(home)
    rounds = ArenaRounds(home, agents or {})
    playground = Playground(home, agents or {})
    curves = curve_views.KeptCurves()
    files: dict[str, bytes] = {}
    """Those of `static`, some 200 kB, so that a page does not wait for a thread that computes."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await playground.stop()
        rounds.close()
        curves.close()
        runs.close()
        store.close()

    streams = OpenStreams()

    async def events(request: Request) -> Response:
        topics = request.query_params.getlist("topic")
        told = changes(
            topics,
            runs,
            traces,
            seen=request.query_params.get("seen", ""),
            may_go_on=lambda: access.lets_in(request),
        )
        account = getattr(request.scope.get("firsthand.user"), "name", "")  # one reader where there are no accounts
        return CountedStream(told, streams, account)

    async def static(request: Request) -> Response:
        name = request.path_params["name"]
        file = STATIC / name
        if "/" in name or name.startswith(".") or file.suffix not in _TYPES or file not in STATIC.iterdir():
            return PlainTextResponse("There is no such file.\n", 404)
        if name not in files:
            files[name] = file.read_bytes()
        kept = {"cache-control": "public, max-age=31536000, immutable"}
        return Response(files[name], media_type=_TYPES[file.suffix], headers=kept)

    door = (
        [] if writer is None else [Middleware(OtlpDoor, writer=writer, is_own_host=access.is_own_host, key=ingest_key)]
    )
    app = Starlette(
        routes=[
            *run_list_views.routes(runs, store, curves),
            *run_views.routes(runs, store, playground.problems),
            *attempt_views.routes(runs),
            *comparison_views.routes(runs),
            *curve_views.routes(runs, curves),
            *incoming_views.routes(runs, traces),
            *arena_views.routes(runs, rounds),
            *playground_views.routes(runs, playground),
            *queue_views.routes(runs, store),
            *collection_views.routes(runs, traces, store, playground),
            *prompt_views.routes(runs, store),
            *saved_views.routes(store),
            *(account_views.routes(access, access.accounts) if access.accounts is not None else ()),
            *(route for each in pages for route in each.routes),
            Route("/events", events),
            Route("/static/{digest}/{name}", static),
        ],
        middleware=[*door, Middleware(AccessMiddleware, access=access)],
        lifespan=lifespan,
        exception_handlers={FirsthandError: _told, 404: _not_found, 500: _broken},
    )
    app.state.pages = (*OWN_PAGES, *pages)
    app.state.runs, app.state.traces, app.state.playground, app.state.curves = runs, traces, playground, curves
    return app


def _told(request: Request, error: Exception) -> Response:
    """An error of ours is its sentence, and 404 if something was not found; htmx gets the sentence alone."""
    status = 404 if isinstance(error, UnknownName) else 400
    if is_part(request):
        return page(request, "parts/problem", problem=str(error), status=200)
    return page(request, "problem", problem=str(error), status=status, title="Problem")


def _not_found(request: Request, error: Exception) -> Response:
    return page(
        request, "problem", problem=f"There is no page {request.scope['path']!r}.", status=404, title="Not found"
    )


def _broken(request: Request, error: Exception) -> Response:
    print("".join(traceback.format_exception(error)), file=sys.stderr)
    return PlainTextResponse("The Studio failed at this page; its terminal says more.\n", 500)
