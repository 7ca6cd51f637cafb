"""A TokenModel whose tokens are bytes and whose answers are given, and handlers of the server called without a server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

from firsthand.message import Message
from firsthand.model import Completion, Delta, ModelFacts, Scored, TokenRating
from firsthand.serve.admission.active_request import ActiveRequest
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.admission.api_keys import Client
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.http.replies import Reply
from firsthand.serve.models.served_models import ServedModels
from firsthand.serve.openai.openai_settings import OpenAISettings
from firsthand.serve.openai.openai_state import OpenAIState
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry
from firsthand.serve.telemetry.telemetry_settings import TelemetrySettings


class SpelledModel:
    """Gives `deltas` to every prompt, and notes what it was asked."""

    name, fingerprint, is_alive = "spelled", "fp", True
    path = Path("/nowhere/models/spelled")

    def __init__(self, *deltas: Delta, thinks: bool = False, recommended: Mapping[str, float] | None = None):
        self.deltas = deltas
        self.facts = ModelFacts(100, 256, "hermes", thinks, "avx", recommended or {})
        self.asked: list[dict[str, Any]] = []

    async def complete(self, prompt: Any, sampling: Any, *, tools: Any = (), n: int = 1) -> list[Completion]:
        return [each.completion for each in self.deltas if each.completion is not None]

    async def stream(self, prompt: Any, sampling: Any, *, tools: Any = ()) -> AsyncGenerator[Delta, None]:
        for delta in self.deltas:
            yield delta

    async def score(self, prompt: Any, continuations: Sequence[str]) -> Scored:
        raise NotImplementedError

    async def load(self) -> ModelFacts:
        return self.facts

    async def stream_many(self, prompt: Any, sampling: Any, **options: Any) -> AsyncGenerator[Delta, None]:
        self.asked.append({"prompt": prompt, "sampling": sampling, **options})
        for delta in self.deltas:
            yield delta

    async def tokenize(self, prompt: Any, tools: Any = (), *, template: Any = None) -> list[int]:
        if isinstance(prompt, str):
            return list(prompt.encode())
        shown = "".join(f"{each.role[0]}:{each.text};" for each in prompt if isinstance(each, Message))
        return list((shown + "".join(f"[{tool.name}]" for tool in tools) + str(template or "")).encode())

    async def detokenize(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode()

    def spell(self, ids: Sequence[int]) -> list[bytes]:
        return [bytes([id]) for id in ids]

    async def rate(self, ids: Sequence[int], top: int = 0, **options: Any) -> list[TokenRating]:
        self.asked.append({"rate": list(ids), "top": top, **options})
        best = ((122, -0.25), (121, -2.0))
        return [TokenRating(id, -float(place), best[:top]) for place, id in enumerate(ids[1:], 1)]

    async def counters(self) -> Mapping[str, float]:
        return {"running": 2.0}


def state_of(model: Any, **settings: Any) -> OpenAIState:
    """The state of routes that serve the model as `demo`, loaded."""
    models = ServedModels(model, name="demo")
    models.state, models.facts = "ready", getattr(model, "facts", None)
    telemetry = ServerTelemetry(TelemetrySettings(log="none", log_texts=settings.pop("log_texts", False)))
    return OpenAIState(models, Admission(), telemetry, OpenAISettings(**settings))


def request_with(body: Any, *, client: str = "ann", **limits: Any) -> ActiveRequest:
    """A request of a client, whose id is r1."""
    who = Client(client, ClientLimits(**limits))
    return ActiveRequest("r1", who, "/x", "application/json", json.dumps(body).encode())


def answered(handler: Any, state: OpenAIState, request: ActiveRequest | Any, **limits: Any) -> Any:
    """The JSON of a whole answer, or the events of a stream."""
    made = request if isinstance(request, ActiveRequest) else request_with(request, **limits)

    async def run() -> Any:
        answer = await handler(state, made)
        if isinstance(answer, Reply):
            assert answer.status == 200
            return json.loads(answer.content)
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        await answer({}, None, send)
        return events_of(b"".join(each.get("body", b"") for each in sent))

    return asyncio.run(run())


def events_of(stream: bytes) -> list[Any]:
    """The events of a stream: JSON, and a text where it is none."""
    found = [line.removeprefix("data: ") for line in stream.decode().split("\n") if line.startswith("data: ")]
    return [json.loads(each) if each.startswith("{") else each for each in found]
