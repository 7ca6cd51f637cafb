"""Routes of the server itself: health, version, metrics."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from firsthand import __version__
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.http.mounted_app import MountedApp
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.http.replies import Reply, refused, reply
from firsthand.serve.models import replica_status
from firsthand.serve.models.served_models import ServedModels
from firsthand.serve.telemetry.metrics import CONTENT_TYPE
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry

OPEN_ROUTES = frozenset(("/health", "/health/live"))
"""Routes without a key: they tell nothing but whether the server answers."""
STATUS_ROUTES: dict[str, tuple[str, str]] = {
    "/health": (
        "GET",
        "200 if a request that came now would be answered, else 503 with the state; and each replica's state.",
    ),
    "/health/live": ("GET", "200 while the server's event loop runs."),
    "/version": ("GET", "The version of firsthand."),
    "/metrics": ("GET", "The metrics, in Prometheus's text format."),
}
"""Method and summary of each route."""


class StatusRoutes:
    """Answers the routes of the server itself."""

    def __init__(self, models: ServedModels, admission: Admission, telemetry: ServerTelemetry):
        self._models, self._admission, self._telemetry = models, admission, telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for one of the routes."""
        path, method = scope["path"], scope["method"]
        if method not in ("GET", "HEAD"):
            refusal = Refusal(405, f"{method[:20]} is not taken here: use GET", headers={"allow": "GET"})
            answer = refused(refusal)
        elif path == "/health":
            answer = self._health()
        elif path == "/health/live":
            answer = reply({"status": "ok"})
        elif path == "/version":
            answer = reply({"version": __version__})
        else:
            answer = await self._metrics()
        await answer(scope, receive, send)

    @property
    def is_ready(self) -> bool:
        """True if a request that came now would be answered."""
        return self._models.is_ready and not self._admission.is_draining

    def _health(self) -> Reply:
        models = self._models
        if self._admission.is_draining:
            state = "draining"
        else:
            state = "ok" if self.is_ready else "failed" if models.state == "ready" else models.state
        replicas = replica_status.health(models.model or models.embedder)
        return reply({"status": state, **replicas}, status=200 if self.is_ready else 503)

    async def _metrics(self) -> Reply:
        models, telemetry = self._models, self._telemetry
        text = telemetry.metrics.text(await models.counters(), ready=self.is_ready, in_flight=self._admission.in_flight)
        text += replica_status.metrics(models.model or models.embedder)
        text += telemetry.spans.metrics() if telemetry.spans else ""
        return Reply(text.encode(), kind=CONTENT_TYPE)


def status_app(models: ServedModels, admission: Admission, telemetry: ServerTelemetry) -> MountedApp:
    """The routes as an app at the root."""
    return MountedApp(
        StatusRoutes(models, admission, telemetry),
        route_of=lambda path: path if path in STATUS_ROUTES else None,
        open_routes=OPEN_ROUTES,
        untraced_routes=OPEN_ROUTES | {"/metrics"},
        work_methods=frozenset(),
        free_requests=frozenset(f"{method} {route}" for route in STATUS_ROUTES for method in ("GET", "HEAD")),
    )
