"""OpenAI's interface as an app: chats, completions, responses, embeddings, vLLM's routes and Anthropic's messages beside
them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from firsthand.message import Json
from firsthand.serve.admission.active_request import ActiveRequest, request_of
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.anthropic.anthropic_errors import anthropic_error
from firsthand.serve.anthropic.anthropic_messages import count_tokens, messages
from firsthand.serve.http.mounted_app import MountedApp
from firsthand.serve.http.refusals import Refusal, refusal_of
from firsthand.serve.http.replies import Events, Reply, note_bug, refused, reply
from firsthand.serve.http.request_body import ClientLeft
from firsthand.serve.http.status_routes import STATUS_ROUTES
from firsthand.serve.models.served_models import ServedModels
from firsthand.serve.openai.adapter_routes import load_adapter, unload_adapter
from firsthand.serve.openai.chat_completions import chat_completions
from firsthand.serve.openai.completions import completions
from firsthand.serve.openai.embeddings import embeddings
from firsthand.serve.openai.openai_settings import OpenAISettings
from firsthand.serve.openai.openai_state import OpenAIState
from firsthand.serve.openai.openapi import description
from firsthand.serve.openai.responses import delete_response, get_response, responses
from firsthand.serve.openai.tokenize import detokenize, tokenize
from firsthand.serve.telemetry.request_spans import Operation
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry

Handler = Callable[[OpenAIState, ActiveRequest], Awaitable[Reply | Events]]


async def list_models(state: OpenAIState, request: ActiveRequest) -> Reply:
    """The models that are served, and their adapters."""
    names = sorted(state.models.names.items(), key=lambda each: each[1] is not None)
    models = [_model(state.models, name, parent) for name, parent in names]
    pages = {"has_more": False, "first_id": names[0][0], "last_id": names[-1][0]}
    return reply({"object": "list", "data": models, **pages})


async def get_model(state: OpenAIState, request: ActiveRequest) -> Reply:
    """A model that is served, or an adapter."""
    name = request.path_params["id"]
    state.models.check_name(name)
    return reply(_model(state.models, name, state.models.names[name]))


def _model(models: ServedModels, name: str, parent: str | None) -> Json:
    body: Json = {"id": name, "object": "model", "created": models.created, "owned_by": "firsthand"}
    body |= {
        "type": "model",
        "display_name": name,
        "created_at": f"{datetime.fromtimestamp(models.created, UTC):%FT%TZ}",
    }
    if parent is not None:
        body |= {"parent": parent, "root": models.adapters[name].name}
    if models.facts is not None and (parent or name == models.name):
        body["max_model_len"] = models.facts.context
    return body


async def openapi(state: OpenAIState, request: ActiveRequest) -> Reply:
    """This description, in OpenAPI 3.1."""
    known = {
        path: (method, inspect.getdoc(handler) or "") for path, (method, handler) in routes(state.settings).items()
    }
    by_id = {
        path: {method: inspect.getdoc(handler) or "" for method, handler in handlers.items()}
        for path, handlers in ROUTES_BY_ID.items()
    }
    return reply(description(STATUS_ROUTES | known, by_id, has_keys=bool(state.admission.keys.clients)))


ROUTES: dict[str, tuple[str, Handler]] = {
    "/openapi.json": ("GET", openapi),
    "/v1/models": ("GET", list_models),
    "/v1/chat/completions": ("POST", chat_completions),
    "/v1/completions": ("POST", completions),
    "/v1/embeddings": ("POST", embeddings),
    "/v1/responses": ("POST", responses),
    "/v1/messages": ("POST", messages),
    "/v1/messages/count_tokens": ("POST", count_tokens),
    "/tokenize": ("POST", tokenize),
    "/detokenize": ("POST", detokenize),
}
RESPONSE = "/v1/responses/{id}"
MODEL = "/v1/models/{id}"
ROUTES_BY_ID: dict[str, dict[str, Handler]] = {
    RESPONSE: {"GET": get_response, "DELETE": delete_response},
    MODEL: {"GET": get_model},
}
"""The handlers of a stored response and of a model, by method. A model's id may have slashes."""
ADAPTER_ROUTES: dict[str, tuple[str, Handler]] = {
    "/v1/load_lora_adapter": ("POST", load_adapter),
    "/v1/unload_lora_adapter": ("POST", unload_adapter),
}
"""These exist only if the operator named a folder of adapters."""
OPERATIONS = {
    "/v1/chat/completions": Operation("chat", "chatcmpl-"),
    "/v1/responses": Operation("chat", "resp_"),
    "/v1/messages": Operation("chat", "msg_"),
    "/v1/completions": Operation("text_completion", "cmpl-"),
    "/v1/embeddings": Operation("embeddings"),
}


def routes(settings: OpenAISettings) -> dict[str, tuple[str, Handler]]:
    """Method and handler of each route."""
    return ROUTES if settings.adapter_root is None else ROUTES | ADAPTER_ROUTES


def openai_app(
    models: ServedModels,
    admission: Admission,
    telemetry: ServerTelemetry,
    settings: OpenAISettings | None = None,
    *,
    prefix: str = "",
) -> MountedApp:
    """OpenAI's interface to the models."""
    state = OpenAIState(models, admission, telemetry, settings or OpenAISettings())
    known = routes(state.settings)
    starlette_routes = [
        Route(path, _Endpoint(state, handler), methods=[method]) for path, (method, handler) in known.items()
    ]
    starlette_routes += [
        Route(path.replace("{id}", "{id:path}") if path == MODEL else path, _Endpoint(state, each), methods=[method])
        for path, handlers in ROUTES_BY_ID.items()
        for method, each in handlers.items()
    ]
    app = Starlette(routes=starlette_routes, exception_handlers={404: _not_found, 405: _wrong_method})
    app.router.redirect_slashes = False

    def route_of(path: str) -> str | None:
        if path in known:
            return path
        if re.fullmatch("/v1/models/.+", path):
            return MODEL
        return RESPONSE if re.fullmatch("/v1/responses/[^/]+", path) else None

    return MountedApp(
        app,
        prefix,
        route_of=route_of,
        check_ready=models.check_ready,
        work_methods=frozenset({"POST"}),
        operations={prefix + route: operation for route, operation in OPERATIONS.items()},
        error_jsons={prefix + route: anthropic_error for route in ROUTES if route.startswith("/v1/messages")},
    )


class _Endpoint:
    """A handler as an ASGI application."""

    def __init__(self, state: OpenAIState, handler: Handler):
        self._state, self._handler = state, handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; an error becomes a refusal, and a bug goes to the log."""
        request = request_of(scope)
        request.path_params = scope.get("path_params", {})
        answer: Reply | Events
        try:
            answer = await self._handler(self._state, request)
        except ClientLeft:
            raise
        except Exception as error:
            refusal = refusal_of(error)
            request.notes["error"] = refusal.message
            if refusal.code == "internal_error":
                note_bug(request, error)
            answer = refused(refusal, request)
        await answer(scope, receive, send)


async def _not_found(request: Request, error: Exception) -> Response:
    path = request.url.path[:200]
    return _plain(request, Refusal(404, f"there is nothing at {path}: GET /openapi.json tells what there is"))


async def _wrong_method(request: Request, error: Exception) -> Response:
    path = request.url.path.removeprefix(request.scope.get("root_path", ""))
    known: Mapping[str, tuple[str, Handler]] = ROUTES | ADAPTER_ROUTES
    allowed = known[path][0] if path in known else "GET"
    text = f"{request.method[:20]} is not taken here: use {allowed}"
    return _plain(request, Refusal(405, text, headers={"allow": allowed}))


def _plain(request: Request, refusal: Refusal) -> Response:
    answer = refused(refusal, request_of(request.scope))
    return Response(answer.content, answer.status, answer.headers, answer.kind)
