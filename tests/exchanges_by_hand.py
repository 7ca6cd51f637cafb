"""Requests that go through the admission middleware of a server without a connection."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from firsthand.serve.admission.admission_middleware import AdmissionMiddleware
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.http.mounted_app import MountedApp
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry
from firsthand.serve.telemetry.telemetry_settings import TelemetrySettings

HOST = (b"host", b"127.0.0.1")


class Exchanges:
    """A middleware around one app, and what came of its requests."""

    def __init__(self, app: Any, *, log: str = "none", admission: Admission | None = None, **about: Any):
        self.telemetry = ServerTelemetry(TelemetrySettings(log=log))
        self.admission = admission or Admission()
        fallback = MountedApp(app, route_of=lambda path: None, **about)
        mounted = MountedApp(app, "/a", route_of=lambda path: path, **about)
        self.middleware = AdmissionMiddleware([mounted], fallback, self.admission, self.telemetry)

    def ask(self, body: bytes = b"{}", *, path: str = "/a/x", method: str = "POST", headers: Any = (HOST,),
            version: str = "1.1", leaves: bool = False) -> tuple[int, dict[str, str], bytes]:  # fmt: skip
        sent: list[dict[str, Any]] = []

        async def main() -> None:
            coming = [{"type": "http.request", "body": body, "more_body": False}]
            gone = asyncio.Event()
            if leaves:
                gone.set()

            async def receive() -> dict[str, Any]:
                if coming:
                    return coming.pop()
                await gone.wait()
                return {"type": "http.disconnect"}

            async def send(message: Any) -> None:
                sent.append(message)

            scope = {"type": "http", "http_version": version, "method": method, "path": path, "headers": list(headers)}
            await asyncio.wait_for(self.middleware(scope, receive, send), 20)

        asyncio.run(main())
        if not sent:
            return 0, {}, b""
        fields = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], fields, b"".join(each.get("body", b"") for each in sent[1:])

    def refused(self, **asked: Any) -> tuple[int, str, str | None]:
        status, fields, body = self.ask(**asked)
        return status, json.loads(body)["error"]["message"], fields.get("connection")


async def start(send: Any, body: bytes = b"ok", *, more: bool = False) -> None:
    """Answer 201 with a header."""
    await send({"type": "http.response.start", "status": 201, "headers": [(b"x-own", b"1")]})
    await send({"type": "http.response.body", "body": body, "more_body": more})
