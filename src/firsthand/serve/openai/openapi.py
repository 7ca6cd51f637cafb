"""GET /openapi.json: the OpenAPI description, generated from the classes that read the requests."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from firsthand import __version__
from firsthand.message import Json
from firsthand.serve.anthropic.messages_schema import CountRequest, MessagesRequest
from firsthand.serve.openai.adapter_routes import LoadAdapterRequest, UnloadAdapterRequest
from firsthand.serve.openai.request_schema import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    TokenizeRequest,
    Wire,
)
from firsthand.serve.openai.responses_schema import ResponsesRequest

BODIES: dict[str, type[Wire]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/embeddings": EmbeddingRequest,
    "/v1/responses": ResponsesRequest,
    "/v1/messages": MessagesRequest,
    "/v1/messages/count_tokens": CountRequest,
    "/tokenize": TokenizeRequest,
    "/detokenize": DetokenizeRequest,
    "/v1/load_lora_adapter": LoadAdapterRequest,
    "/v1/unload_lora_adapter": UnloadAdapterRequest,
}
_REFUSALS = {
    "400": "The request is malformed or not supported; `param` names the field.",
    "401": "The API key is missing or wrong.",
    "403": "The API key does not allow this.",
    "404": "There is no such model or path.",
    "405": "The path takes another method.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
    "421": "The Host header names another server.",
    "429": "Too many requests are under way: try again after Retry-After seconds.",
    "500": "The model failed.",
    "501": "This needs a model that is not served.",
    "502": "The model gave no answer, or not the required one.",
    "503": "The server is loading or stopping.",
    "504": "The answer took too long.",
}
_RETURNS: dict[str, list[str]] = {
    "/v1/chat/completions": ["id", "object", "created", "model", "choices", "usage"],
    "/v1/completions": ["id", "object", "created", "model", "choices", "usage"],
    "/v1/embeddings": ["object", "data", "model", "usage"],
    "/v1/responses": ["id", "object", "status", "output", "usage"],
    "/v1/messages": ["id", "type", "role", "content", "model", "stop_reason", "usage"],
    "/v1/messages/count_tokens": ["input_tokens"],
    "/tokenize": ["count", "max_model_len", "tokens"],
    "/detokenize": ["prompt"],
    "/v1/load_lora_adapter": ["status", "id"],
    "/v1/unload_lora_adapter": ["status", "id"],
    "/v1/models": ["object", "data"],
    "/health": ["status"],
    "/health/live": ["status"],
    "/version": ["version"],
    "/openapi.json": ["openapi", "paths"],
}


def description(routes: dict[str, tuple[str, str]], by_id: dict[str, dict[str, str]], *, has_keys: bool) -> Json:
    """The OpenAPI document (3.1) of routes, as path to method and summary.

    `by_id` are routes with an id in their path and several methods, as path to the summary of each method.
    """
    kinds = [(kind, "validation") for kind in BODIES.values()]
    _, defined = models_json_schema(kinds, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    schemas = defined["$defs"]
    schemas["Error"] = {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                    "param": {"type": ["string", "null"]},
                    "code": {"type": ["string", "null"]},
                },
            }
        },
    }
    schemas["MessagesError"] = {
        "type": "object",
        "required": ["type", "error"],
        "properties": {
            "type": {"const": "error"},
            "error": {
                "type": "object",
                "required": ["type", "message"],
                "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    }
    paths = {path: {method.lower(): _operation(path, summary)} for path, (method, summary) in routes.items()}
    for path, methods in by_id.items():
        paths[path] = {method.lower(): _of_one(path, method, summary) for method, summary in methods.items()}
    body: Json = {
        "openapi": "3.1.0",
        "info": {"title": "firsthand serve", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if has_keys:
        body["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        body["security"] = [{"key": []}]
        for path in ("/health", "/health/live"):
            paths[path]["get"]["security"] = []
    return body


def _operation(path: str, summary: str) -> Json:
    operation: Json = {"summary": summary, "responses": {"200": _answer(path)}}
    if path in BODIES:
        schema = {"$ref": f"#/components/schemas/{BODIES[path].__name__}"}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    shape = "MessagesError" if path.startswith("/v1/messages") else "Error"
    problem = {"application/json": {"schema": {"$ref": f"#/components/schemas/{shape}"}}}
    codes = _REFUSALS if path in BODIES else {code: _REFUSALS[code] for code in ("400", "401", "405", "421")}
    if "lora" not in path:
        codes = {code: text for code, text in codes.items() if code != "403"}
    operation["responses"] |= {code: {"description": text, "content": problem} for code, text in codes.items()}
    if path == "/health":
        shown = {"application/json": {"schema": _object(["status"])}}
        operation["responses"]["503"] = {"description": "Not ready: loading, draining or failed.", "content": shown}
    return operation


def _of_one(path: str, method: str, summary: str) -> Json:
    """The operation of a method on a stored response, or on a model."""
    fields = ["id", "object", "deleted"] if method == "DELETE" else _RETURNS["/v1/responses"]
    if path.startswith("/v1/models"):
        fields = ["id", "object", "created", "owned_by"]
    shown = {"application/json": {"schema": _object(fields)}}
    problem = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    refusals = {
        code: {"description": _REFUSALS[code], "content": problem} for code in ("400", "401", "404", "405", "421")
    }
    return {
        "summary": summary,
        "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
        "responses": {"200": {"description": "The answer.", "content": shown}} | refusals,
    }


def _answer(path: str) -> Json:
    if path == "/metrics":
        return {"description": "Prometheus's text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    content: dict[str, Any] = {"application/json": {"schema": _object(_RETURNS[path])}}
    if path in ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"):
        content["text/event-stream"] = {}
    return {"description": "The answer.", "content": content}


def _object(required: list[str]) -> Json:
    return {"type": "object", "required": required}
