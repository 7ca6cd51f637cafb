"""The application of a server: several apps behind one admission, with one telemetry. Any ASGI server can run it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from starlette.types import Receive, Scope, Send

from firsthand.errors import ConfigError
from firsthand.serve.admission.admission_middleware import AdmissionMiddleware
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.http.mounted_app import MountedApp
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.http.replies import refused
from firsthand.serve.http.status_routes import status_app
from firsthand.serve.models.served_models import ServedModels
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry


class ServerApp:
    """An ASGI application: the routes of the server itself, and the apps.

    `http.server.serve` loads the models and runs the apps' lifespans. Under another ASGI server await `models.load()`.
    """

    def __init__(
        self, models: ServedModels, admission: Admission, telemetry: ServerTelemetry, apps: Sequence[MountedApp]
    ):
        prefixes = [app.prefix for app in apps if app.prefix]
        if len(set(prefixes)) < len(prefixes):
            raise ConfigError(f"two apps have the same prefix: {', '.join(sorted(prefixes))}; give each its own")
        self.models, self.admission, self.telemetry = models, admission, telemetry
        self.apps = (status_app(models, admission, telemetry), *apps)
        fallback = MountedApp(_not_found, work_methods=frozenset({"POST"}))
        self._admitted = AdmissionMiddleware(self.apps, fallback, admission, telemetry)

    @property
    def is_ready(self) -> bool:
        """True if a request that came now would be answered."""
        return self.models.is_ready and not self.admission.is_draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or run the lifespan of an ASGI server."""
        if scope["type"] == "http":
            await self._admitted(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
        else:
            await send({"type": "websocket.close"})

    async def _run_lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        async with self.lifespan():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """The lifespans of all apps."""
        async with AsyncExitStack() as stack:
            for app in self.apps:
                if app.lifespan is not None:
                    await stack.enter_async_context(app.lifespan())
            yield


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    text = f"there is nothing at {scope['path'][:200]}: GET /openapi.json tells what there is"
    await refused(Refusal(404, text))(scope, receive, send)
