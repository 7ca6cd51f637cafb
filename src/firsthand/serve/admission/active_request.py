"""One request under way: its client, its body, and the reason if it is cancelled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Scope

from firsthand.message import Json
from firsthand.serve.admission.api_keys import Client
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.http.request_body import parse_object
from firsthand.serve.telemetry.request_spans import RequestSpan

_SCOPE_KEY = "firsthand.request"


@dataclass(eq=False)
class ActiveRequest:
    """A request from its first byte to the end of its answer."""

    id: str
    """Made by the server: what is kept of the request goes by it, so no two have one."""
    client: Client
    route: str
    """The pattern of its path, such as `/v1/responses/{id}`; `other` if it has none."""
    content_type: str | None = None
    body: bytes = b""
    started_s: float = field(default_factory=time.monotonic)
    task: asyncio.Task[None] | None = None
    cancelled: Refusal | None = None
    """The reason, if it is cancelled."""
    client_left: bool = False
    """True once the client has closed the connection before it had its answer."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Fields of its line in the request log."""
    path_params: Mapping[str, str] = field(default_factory=dict)
    """The variable parts of its path, by name."""
    span: RequestSpan | None = None
    """Its OpenTelemetry span, if it is recorded."""
    error_json: Callable[[Refusal], Json] = Refusal.to_json
    """The body of an error response, in the shape that the route's clients read."""
    named: str = ""
    """The client's own X-Request-Id, for the response's header and the log alone; `id` without one."""

    def json(self) -> Json:
        """The body as a JSON object; a Refusal if it is not one."""
        return parse_object(self.body, self.content_type)

    def cancel(self, reason: Refusal) -> None:
        """Cancel its task. The client gets the reason: as the status, or as the last event of a stream that has begun."""
        if self.cancelled is None and self.task is not None and not self.task.done():
            self.cancelled = reason
            self.task.cancel()


def attach(scope: Scope, request: ActiveRequest) -> None:
    """Make the request available to the ASGI app that gets this scope."""
    scope[_SCOPE_KEY] = request


def request_of(scope: Scope) -> ActiveRequest:
    """The request that an ASGI app is called for, with its client, limits and notes. KeyError outside a server."""
    request: ActiveRequest = scope[_SCOPE_KEY]
    return request
