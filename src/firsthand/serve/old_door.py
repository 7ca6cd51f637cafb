"""The server's Python interface of firsthand 0.6: `serve.door`, `.settings`, `.server` and `.app` lead here until 0.10.0.

New code uses ServerApp, AdmissionSettings, OpenAISettings, TelemetrySettings, ClientLimits and ListenAddress.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from firsthand.model import Embedder, Model
from firsthand.serve.admission.admission_settings import AdmissionSettings, ClientLimits
from firsthand.serve.admission.api_keys import Keys
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.http.app import ServerApp
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.models.served_models import ServedModels
from firsthand.serve.openai.openai_app import openai_app
from firsthand.serve.openai.openai_settings import OpenAISettings
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry
from firsthand.serve.telemetry.telemetry_settings import TelemetrySettings

Limits = ClientLimits


@dataclass(frozen=True)
class Settings:
    """All settings in one."""

    limits: ClientLimits = ClientLimits()  # noqa: RUF009 - frozen
    max_requests: int = AdmissionSettings.max_requests
    body_s: float = AdmissionSettings.body_s
    stall_s: float = AdmissionSettings.stall_s
    drain_s: float = AdmissionSettings.drain_s
    hosts: tuple[str, ...] = AdmissionSettings.allow_host
    stored_responses: int = OpenAISettings.stored_responses
    stored_bytes: int = OpenAISettings.stored_bytes
    private_caches: bool = OpenAISettings.private_caches
    log_texts: bool = TelemetrySettings.log_texts
    adapter_root: Path | None = OpenAISettings.adapter_root


class Door(ServerApp):
    """A ServerApp with the OpenAI routes."""

    def __init__(
        self,
        model: Model | None,
        settings: Settings,
        keys: Keys,
        embedder: Embedder | None = None,
        name: str = "",
        log_target: Path | str | None = None,
    ):
        models = ServedModels(model, embedder, name=name)
        log = "none" if log_target is None else str(log_target)
        telemetry = ServerTelemetry(TelemetrySettings(log=log, log_texts=settings.log_texts))
        admitted = AdmissionSettings(
            settings.max_requests, settings.body_s, settings.stall_s, settings.drain_s, settings.hosts
        )
        admission = Admission(keys, admitted, mean_request_s=telemetry.metrics.mean_request_s)
        openai = OpenAISettings(
            settings.stored_responses, settings.stored_bytes, settings.private_caches, settings.adapter_root
        )
        super().__init__(models, admission, telemetry, [openai_app(models, admission, telemetry, openai)])

    async def warm_up(self) -> None:
        """Load the models."""
        await self.models.load(self.telemetry.log.write)


def Address(  # noqa: N802 - it was a class
    host: str = ListenAddress.host,
    port: int = ListenAddress.port,
    certificate: Path | None = None,
    private_key: Path | None = None,
) -> ListenAddress:
    """A ListenAddress."""
    return ListenAddress(host, port, certificate, private_key)


def make_app(door: Door) -> Door:
    """The door, which is an ASGI application itself."""
    return door
