"""An ASGI app on a server, with the facts about it that admission and telemetry need.

Any ASGI app can be mounted under a prefix. It gets the paths below it, with `root_path` set as ASGI says, once the server
has checked host, key, limits and body. `request_of(scope)` in `admission/active_request.py` gives it the client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import NamedTuple

from starlette.types import ASGIApp

from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.telemetry.request_spans import Operation


def _always_ready() -> None:
    """The check of an app that needs no model."""


def _one_route(path: str) -> str:
    return "/"


@dataclass(frozen=True)
class MountedApp:
    """An ASGI app under a prefix."""

    app: ASGIApp
    prefix: str = ""
    """Such as `/mcp`. Several apps may share the empty one; each of them gets the paths that its `route_of` knows."""
    route_of: Callable[[str], str | None] = _one_route
    """The pattern of a path below the prefix, for metrics, log and spans: as few as the app has routes. None if unknown."""
    check_ready: Callable[[], None] = _always_ready
    """Raises a Refusal while the app cannot answer."""
    open_routes: frozenset[str] = frozenset()
    """Routes that need no key, and are not logged."""
    untraced_routes: frozenset[str] = frozenset()
    """Routes without a span: machines poll them every few seconds."""
    work_methods: frozenset[str] | None = None
    """Methods whose requests begin work: they get 503 while the server drains or a model loads, and 429 while the client's
    tokens of the minute are spent. None: all of them. Whatever its method, a request holds a slot, has a time limit, and
    has its body read within bounds."""
    free_requests: frozenset[str] = frozenset()
    """Method and route, such as `GET /metrics`, of requests that hold no slot: what an operator needs, or what the app
    bounds itself."""
    most_values: int | None = None
    """The most JSON values of a body, for apps whose SDK decodes it; None where the app bounds them itself."""
    operations: Mapping[str, Operation] = field(default_factory=dict)
    """The GenAI operation of a route, for its spans."""
    error_jsons: Mapping[str, Callable[[Refusal], Json]] = field(default_factory=dict)
    """Bodies of error responses, of routes whose clients do not read OpenAI's shape."""
    lifespan: Callable[[], AbstractAsyncContextManager[object]] | None = None
    """Entered before the server's first request and left after its last one."""

    def __post_init__(self) -> None:
        if self.prefix and (not self.prefix.startswith("/") or self.prefix.endswith("/")):
            raise ConfigError(f"prefix is {self.prefix!r}: give a path such as '/mcp', or nothing")


class Target(NamedTuple):
    """The app and the route of a request."""

    app: MountedApp
    route: str
    """With the prefix; `other` if the app has no such route."""


def find_app(apps: Sequence[MountedApp], path: str, fallback: MountedApp) -> Target:
    """The app with the longest prefix of a path; the fallback if there is none."""
    best: MountedApp | None = None
    for app in apps:
        if app.prefix and (path == app.prefix or path.startswith(app.prefix + "/")):
            best = app if best is None or len(app.prefix) > len(best.prefix) else best
    if best is not None:
        route = best.route_of(path.removeprefix(best.prefix) or "/")
        return Target(best, "other" if route is None else best.prefix + route.rstrip("/"))
    for app in apps:
        if not app.prefix and (route := app.route_of(path)) is not None:
            return Target(app, route)
    return Target(fallback, "other")
