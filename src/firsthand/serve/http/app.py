"""The application: routes, and what each needs around it. `make_app` gives an ASGI application that anything can run."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from firsthand import __version__
from firsthand.message import Json
from firsthand.serve.http.admission import Gate
from firsthand.serve.http.refusals import Refusal, refusal_of
from firsthand.serve.http.replies import Events, Reply, note_bug, refused, reply
from firsthand.serve.http.request_body import ClientLeft
from firsthand.serve.models import replica_status
from firsthand.serve.models.adapter_routes import load_adapter, unload_adapter
from firsthand.serve.models.served_model import Asked, Door, adapters
from firsthand.serve.openai.chat_completions import chat_completions
from firsthand.serve.openai.completions import completions
from firsthand.serve.openai.embeddings import embeddings
from firsthand.serve.openai.openapi import description
from firsthand.serve.openai.responses import delete_response, get_response, responses
from firsthand.serve.openai.tokenize import detokenize, tokenize
from firsthand.serve.telemetry.metrics import CONTENT_TYPE

Handler = Callable[[Door, Asked], Awaitable[Reply | Events]]


async def health(door: Door, asked: Asked) -> Reply:
    """200 if a request that came now would be answered, else 503 with the state; and the state of each replica."""
    state = "ok" if door.is_ready else "failed" if door.state == "ready" else door.state
    return reply(
        {"status": state, **replica_status.health(door.model or door.embedder)}, status=200 if door.is_ready else 503
    )


async def live(door: Door, asked: Asked) -> Reply:
    """200 as long as the server's loop runs."""
    return reply({"status": "ok"})


async def version(door: Door, asked: Asked) -> Reply:
    """The version of firsthand."""
    return reply({"version": __version__})


async def models(door: Door, asked: Asked) -> Reply:
    """The models that are served."""
    data: list[Json] = []
    for name, parent in sorted(door.names.items(), key=lambda each: each[1] is not None):
        data.append({"id": name, "object": "model", "created": door.created, "owned_by": "firsthand"})
        if parent is not None:
            data[-1] |= {"parent": parent, "root": adapters(door.model)[name].name}
        if door.facts is not None and (parent or name == door.name):
            data[-1]["max_model_len"] = door.facts.context
    return reply({"object": "list", "data": data})


async def metrics(door: Door, asked: Asked) -> Reply:
    """What is counted, in Prometheus's text format."""
    text = door.metrics.text(await door.counters(), ready=door.is_ready) + replica_status.metrics(
        door.model or door.embedder
    )
    return Reply((text + (door.spans.metrics() if door.spans else "")).encode(), kind=CONTENT_TYPE)


async def openapi(door: Door, asked: Asked) -> Reply:
    """This description, in OpenAPI 3.1."""
    told = {path: (method, inspect.getdoc(handler) or "") for path, (method, handler) in routes(door).items()}
    kept = {method: inspect.getdoc(handler) or "" for method, handler in RESPONSE_ROUTES.items()}
    return reply(description(told, {RESPONSE: kept}, has_keys=bool(door.keys.clients)))


ROUTES: dict[str, tuple[str, Handler]] = {
    "/health": ("GET", health),
    "/health/live": ("GET", live),
    "/version": ("GET", version),
    "/metrics": ("GET", metrics),
    "/openapi.json": ("GET", openapi),
    "/v1/models": ("GET", models),
    "/v1/chat/completions": ("POST", chat_completions),
    "/v1/completions": ("POST", completions),
    "/v1/embeddings": ("POST", embeddings),
    "/v1/responses": ("POST", responses),
    "/tokenize": ("POST", tokenize),
    "/detokenize": ("POST", detokenize),
}


RESPONSE = "/v1/responses/{id}"
RESPONSE_ROUTES: dict[str, Handler] = {"GET": get_response, "DELETE": delete_response}
"""What may be done with a response that was kept, by method."""

ADAPTER_ROUTES: dict[str, tuple[str, Handler]] = {
    "/v1/load_lora_adapter": ("POST", load_adapter),
    "/v1/unload_lora_adapter": ("POST", unload_adapter),
}
"""Those that are there only if the operator named a folder of adapters."""


def routes(door: Door) -> dict[str, tuple[str, Handler]]:
    """What a server answers at which path."""
    return ROUTES if door.settings.adapter_root is None else ROUTES | ADAPTER_ROUTES


def make_app(door: Door) -> ASGIApp:
    """The server as an ASGI application. Whoever runs it awaits `door.warm_up()`."""
    known = routes(door)
    served = [Route(path, _endpoint(door, handler), methods=[method]) for path, (method, handler) in known.items()]
    served += [Route(RESPONSE, _endpoint(door, each), methods=[method]) for method, each in RESPONSE_ROUTES.items()]
    inner = Starlette(routes=served, exception_handlers={404: _not_found, 405: _wrong_method})
    inner.router.redirect_slashes = False
    return Gate(inner, door, frozenset(known))


class _endpoint:  # noqa: N801 - a function with two arguments more
    """A handler as an ASGI application."""

    def __init__(self, door: Door, handler: Handler):
        self._door, self._handler = door, handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; an error becomes a refusal, and a bug goes to the log."""
        asked: Asked = scope.get("firsthand") or Asked("", self._door.keys.anyone, scope["path"])
        asked.path = scope.get("path_params", {})
        answer: Reply | Events
        try:
            answer = await self._handler(self._door, asked)
        except ClientLeft:
            raise
        except Exception as error:
            refusal = refusal_of(error)
            asked.notes["error"] = refusal.message
            if refusal.code == "internal_error":
                note_bug(asked, error)
            answer = refused(refusal)
        await answer(scope, receive, send)


async def _not_found(request: Request, error: Exception) -> Response:
    return _plain(Refusal(404, f"there is nothing at {request.url.path[:200]}: GET /openapi.json tells what there is"))


async def _wrong_method(request: Request, error: Exception) -> Response:
    known = ROUTES | ADAPTER_ROUTES
    allowed = known[request.url.path][0] if request.url.path in known else "GET"
    return _plain(Refusal(405, f"{request.method[:20]} is not taken here: use {allowed}", headers={"allow": allowed}))


def _plain(refusal: Refusal) -> Response:
    return Response(refusal.body(), refusal.status, refusal.headers, "application/json")
