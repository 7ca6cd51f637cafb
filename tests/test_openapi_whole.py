"""The OpenAPI document of small sets of routes, compared whole, and the routes of the app that it tells of."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from firsthand import __version__
from firsthand.serve.admission.active_request import ActiveRequest, attach
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.admission.api_keys import Client, Keys
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.anthropic.anthropic_errors import anthropic_error
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.http.request_body import ClientLeft
from firsthand.serve.models.served_models import ServedModels
from firsthand.serve.openai.openai_app import OPERATIONS, _Endpoint, _model, openai_app, routes
from firsthand.serve.openai.openai_settings import OpenAISettings
from firsthand.serve.openai.openapi import _answer, _object, _of_one, _operation, description
from firsthand.serve.telemetry.request_spans import Operation
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry
from firsthand.serve.telemetry.telemetry_settings import TelemetrySettings
from replica_scripted import Adaptable
from spelled_model import SpelledModel, answered, request_with, state_of

SAID = {
    "400": "The request is malformed or not supported; `param` names the field.",
    "401": "The API key is missing or wrong.", "404": "There is no such model or path.",
    "405": "The path takes another method.", "408": "The body did not arrive in time.", "413": "The body is too large.",
    "415": "The body is not JSON.", "421": "The Host header names another server.",
    "429": "Too many requests are under way: try again after Retry-After seconds.", "500": "The model failed.",
    "501": "This needs a model that is not served.", "502": "The model gave no answer, or not the required one.",
    "503": "The server is loading or stopping.", "504": "The answer took too long.",
}  # fmt: skip


def shown(*fields: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"type": "object", "required": list(fields)}}}


def refusals(shape: str, codes: Any) -> dict[str, Any]:
    problem = {"application/json": {"schema": {"$ref": f"#/components/schemas/{shape}"}}}
    return {code: {"description": SAID[code], "content": problem} for code in codes}


def test_an_operation_has_its_body_its_answer_and_the_refusals_of_its_kind() -> None:
    few = ("400", "401", "405", "421")
    assert _operation("/version", "S.") == {
        "summary": "S.",
        "responses": {"200": {"description": "The answer.", "content": shown("version")}, **refusals("Error", few)},
    }
    assert _operation("/health", "S.")["responses"] == {
        "200": {"description": "The answer.", "content": shown("status")}, **refusals("Error", few),
        "503": {"description": "Not ready: loading, draining or failed.", "content": shown("status")},
    }  # fmt: skip
    assert _operation("/v1/messages/count_tokens", "C.") == {
        "summary": "C.",
        "requestBody": {"required": True,
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/CountRequest"}}}},
        "responses": {"200": {"description": "The answer.", "content": shown("input_tokens")},
                      **refusals("MessagesError", SAID)},
    }  # fmt: skip
    lora = _operation("/v1/unload_lora_adapter", "U.")["responses"]
    assert lora["403"]["description"] == "The API key does not allow this." and len(lora) == len(SAID) + 2
    fields = {
        "/v1/chat/completions": ("id", "object", "created", "model", "choices", "usage"),
        "/v1/completions": ("id", "object", "created", "model", "choices", "usage"),
        "/v1/responses": ("id", "object", "status", "output", "usage"),
        "/v1/messages": ("id", "type", "role", "content", "model", "stop_reason", "usage"),
        "/v1/embeddings": ("object", "data", "model", "usage"), "/tokenize": ("count", "max_model_len", "tokens"),
        "/detokenize": ("prompt",), "/v1/models": ("object", "data"), "/openapi.json": ("openapi", "paths"),
        "/v1/load_lora_adapter": ("status", "id"),
    }  # fmt: skip
    for at, (path, names) in enumerate(fields.items()):
        content = shown(*names) | ({"text/event-stream": {}} if at < 4 else {})
        assert _answer(path) == {"description": "The answer.", "content": content}, path
    assert _answer("/metrics") == {
        "description": "Prometheus's text format.", "content": {"text/plain": {"schema": {"type": "string"}}},
    }  # fmt: skip
    assert _object(["a", "b"]) == {"type": "object", "required": ["a", "b"]}


def test_an_operation_by_id_has_the_fields_of_its_method() -> None:
    for path, method, fields in (
        ("/v1/responses/{id}", "GET", ("id", "object", "status", "output", "usage")),
        ("/v1/responses/{id}", "DELETE", ("id", "object", "deleted")),
        ("/v1/models/{id}", "GET", ("id", "object", "created", "owned_by")),
    ):
        assert _of_one(path, method, "S.") == {
            "summary": "S.",
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
            "responses": {"200": {"description": "The answer.", "content": shown(*fields)},
                          **refusals("Error", ("400", "401", "404", "405", "421"))},
        }  # fmt: skip


def test_a_document_holds_its_routes_its_errors_and_its_keys() -> None:
    health = {"/health": ("GET", "H."), "/health/live": ("GET", "L."), "/version": ("GET", "V.")}
    by_id = {"/v1/responses/{id}": {"GET": "G.", "DELETE": "D."}}
    body = description(health, by_id, has_keys=False)
    schemas = body["components"].pop("schemas")
    assert body == {
        "openapi": "3.1.0",
        "info": {"title": "firsthand serve", "version": __version__},
        "paths": {
            **{path: {"get": _operation(path, summary)} for path, (_, summary) in health.items()},
            "/v1/responses/{id}": {"get": _of_one("/v1/responses/{id}", "GET", "G."),
                                   "delete": _of_one("/v1/responses/{id}", "DELETE", "D.")},
        },
        "components": {},
    }  # fmt: skip
    error = schemas["Error"]["properties"]["error"]
    assert schemas["Error"]["required"] == ["error"] and error["required"] == ["message", "type", "param", "code"]
    assert error["properties"] == {"message": {"type": "string"}, "type": {"type": "string"},
                                   "param": {"type": ["string", "null"]}, "code": {"type": ["string", "null"]}}  # fmt: skip
    theirs = schemas["MessagesError"]
    assert theirs["required"] == ["type", "error"] and theirs["properties"]["type"] == {"const": "error"}
    texts = {"type": {"type": "string"}, "message": {"type": "string"}}
    assert theirs["properties"]["error"] == {"type": "object", "required": ["type", "message"], "properties": texts}
    assert {"ChatRequest", "CountRequest", "UnloadAdapterRequest", "ResponsesRequest"} < set(schemas)
    assert {value["$ref"].rpartition("/")[2] for value in _refs(schemas)} <= set(schemas)
    keyed = description(health, {}, has_keys=True)
    assert keyed["security"] == [{"key": []}] and keyed["paths"]["/health/live"]["get"]["security"] == []
    assert keyed["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    assert "security" not in keyed["paths"]["/version"]["get"] and list(keyed["paths"]) == list(health)


def _refs(body: Any) -> list[dict[str, str]]:
    if isinstance(body, list):
        return [found for each in body for found in _refs(each)]
    if not isinstance(body, dict):
        return []
    return ([body] if "$ref" in body else []) + [found for each in body.values() for found in _refs(each)]


# -- the app --


def app_of(model: Any, *, prefix: str = "", **settings: Any) -> Any:
    models = ServedModels(model, name="demo")
    models.state = "ready"
    return openai_app(
        models, Admission(), ServerTelemetry(TelemetrySettings(log="none")), OpenAISettings(**settings), prefix=prefix
    )


def asked(app: Any, method: str, path: str, body: Any = None, root: str = "") -> tuple[int, dict[str, str], Any, Any]:
    content = b"" if body is None else json.dumps(body).encode()
    request = ActiveRequest("r1", Client("ann", ClientLimits()), path, "application/json", content)
    route = app.route_of(path.removeprefix(root))
    request.error_json = app.error_jsons.get(route and root + route, request.error_json)
    scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": b"", "root_path": root}
    attach(scope, request)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app.app(scope, None, send))
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, json.loads(b"".join(each.get("body", b"") for each in sent[1:])), request


def test_paths_have_routes_and_what_is_none_is_refused_in_the_shape_of_its_route(tmp_path: Path) -> None:
    app = app_of(SpelledModel())
    for path, route in (
        ("/v1/models", "/v1/models"), ("/v1/models/a/b", "/v1/models/{id}"), ("/v1/models/", None),
        ("/v1/responses/x", "/v1/responses/{id}"), ("/v1/responses/x/y", None), ("/v1/responses", "/v1/responses"),
        ("/v1/load_lora_adapter", None), ("/tokenize", "/tokenize"), ("/", None),
    ):  # fmt: skip
        assert app.route_of(path) == route, path
    adapters = app_of(SpelledModel(), adapter_root=tmp_path, prefix="/p")
    assert adapters.route_of("/v1/load_lora_adapter") == "/v1/load_lora_adapter"
    assert set(routes(OpenAISettings(adapter_root=tmp_path))) - set(routes(OpenAISettings())) == {
        "/v1/load_lora_adapter", "/v1/unload_lora_adapter",
    }  # fmt: skip
    assert app.work_methods == {"POST"} and app.prefix == "" and adapters.prefix == "/p"
    assert app.error_jsons == {"/v1/messages": anthropic_error, "/v1/messages/count_tokens": anthropic_error}
    assert set(adapters.error_jsons) == {"/p/v1/messages", "/p/v1/messages/count_tokens"}
    assert adapters.operations == {f"/p{route}": each for route, each in OPERATIONS.items()}
    assert {
        "/v1/chat/completions": Operation("chat", "chatcmpl-"), "/v1/responses": Operation("chat", "resp_"),
        "/v1/messages": Operation("chat", "msg_"), "/v1/completions": Operation("text_completion", "cmpl-"),
        "/v1/embeddings": Operation("embeddings", ""),
    } == OPERATIONS  # fmt: skip
    for made, method, path, root, status, message, allow in (
        (app, "GET", "/none", "", 404, "there is nothing at /none: GET /openapi.json tells what there is", None),
        (app, "GET", "/v1/completions", "", 405, "GET is not taken here: use POST", "POST"),
        (app, "POST", "/v1/models", "", 405, "POST is not taken here: use GET", "GET"),
        (app, "PUT", "/v1/models/x", "", 405, "PUT is not taken here: use GET", "GET"),
        (adapters, "GET", "/p/v1/load_lora_adapter", "/p", 405, "GET is not taken here: use POST", "POST"),
        (app, "GET", "/v1/models/", "", 404, "there is no model '' here: demo", None),
    ):
        found = asked(made, method, path, root=root)
        assert found[0] == status and found[1].get("allow") == allow, path
        assert found[2]["error"]["message"] == message and found[1]["content-type"] == "application/json"
    theirs = asked(app, "GET", "/v1/messages")
    assert theirs[0] == 405 and theirs[2] == {
        "type": "error", "error": {"type": "invalid_request_error", "message": "GET is not taken here: use POST"},
    }  # fmt: skip
    fine = asked(app, "POST", "/tokenize", {"prompt": "ab"})
    assert (fine[0], fine[2]) == (200, {"count": 2, "max_model_len": 100, "tokens": [97, 98]})
    missing = asked(app, "GET", "/v1/responses/resp_9")
    assert missing[0] == 404 and missing[2]["error"]["code"] == "response_not_found"
    assert missing[3].notes == {"error": missing[2]["error"]["message"]} and missing[3].path_params == {"id": "resp_9"}
    gone = asked(app, "DELETE", "/v1/responses/resp_9")
    assert gone[0] == 404 and "'resp_9'" in gone[2]["error"]["message"]


def test_an_error_of_a_handler_is_refused_and_a_bug_goes_to_the_log_alone() -> None:
    def ended(error: Exception) -> Any:
        async def handler(state: Any, request: Any) -> Any:
            raise error

        request = request_with({})
        request.error_json = anthropic_error
        scope: dict[str, Any] = {}
        attach(scope, request)
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(_Endpoint(None, handler)(scope, None, send))  # type: ignore[arg-type]
        return sent[0]["status"], json.loads(sent[1]["body"])["error"], request.notes

    status, error, notes = ended(Refusal(429, "too many"))
    assert (status, error, notes) == (429, {"type": "rate_limit_error", "message": "too many"}, {"error": "too many"})
    status, error, notes = ended(KeyError("secret"))
    assert status == 500 and "secret" not in error["message"] and notes["error"] == error["message"]
    assert "KeyError: 'secret'" in notes["traceback"]
    with pytest.raises(ClientLeft):
        ended(ClientLeft())


def test_models_are_listed_with_their_adapters_below_them(tmp_path: Path) -> None:
    from firsthand.serve.openai.openai_app import get_model, list_models, openapi

    model = Adaptable("base")
    model.put_adapter("zeta", "/a/folder-z")
    model.put_adapter("alpha", "/a/folder-a")
    state = state_of(model)
    state.models.created = 86_400 + 61

    def body(name: str, *more: Any) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": 86_461, "owned_by": "firsthand", "type": "model",
                "display_name": name, "created_at": "1970-01-02T00:01:01Z", **dict(more)}  # fmt: skip

    zeta, alpha = (
        body(name, ("parent", "demo"), ("root", root)) for name, root in (("zeta", "folder-z"), ("alpha", "folder-a"))
    )
    demo = body("demo")
    listed = answered(list_models, state, {})
    assert listed == {"object": "list", "data": [demo, zeta, alpha], "has_more": False, "first_id": "demo",
                      "last_id": "alpha"}  # fmt: skip
    state.models.facts = asyncio.run(model.load())
    request = request_with({})
    for name, expected in (("demo", demo), ("alpha", alpha)):
        request.path_params = {"id": name}
        assert answered(get_model, state, request) == expected | {"max_model_len": 64}
        parent = None if name == "demo" else "demo"
        assert _model(state.models, name, parent) == expected | {"max_model_len": 64}
    assert "max_model_len" not in _model(state.models, "vec", None)
    request.path_params = {"id": "none"}
    with pytest.raises(Refusal, match="there is no model 'none' here: zeta and alpha and demo"):
        answered(get_model, state, request)
    keyed = state_of(model, adapter_root=tmp_path)
    keyed.admission.keys = Keys((Client("ann", ClientLimits(), b"x"),))
    paths = answered(openapi, keyed, {})
    assert paths["security"] == [{"key": []}] and "/v1/load_lora_adapter" in paths["paths"]
    assert paths["paths"]["/health/live"]["get"]["summary"] == "200 while the server's event loop runs."
    assert paths["paths"]["/v1/models"]["get"]["summary"] == "The models that are served, and their adapters."
    one = paths["paths"]["/v1/responses/{id}"]
    assert one["get"]["summary"] == "A stored response."
    assert one["delete"]["summary"] == "Delete a stored response; those that continue it stay."
