"""State that the OpenAI routes share: models, admission and telemetry of the server, and memory of earlier requests."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from firsthand.message import Message, assistant, canonical
from firsthand.model import Delta, Prompt, Sampling, ToolSpec
from firsthand.serve.admission.active_request import ActiveRequest
from firsthand.serve.admission.metered_answers import metered
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.models.served_models import ServedModel, ServedModels
from firsthand.serve.openai.openai_settings import OpenAISettings
from firsthand.serve.openai.sampled_turns import SampledTurns
from firsthand.serve.openai.stored_responses import ResponseStore
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry


class OpenAIState:
    """The state of the OpenAI routes of one server."""

    def __init__(
        self, models: ServedModels, admission: Admission, telemetry: ServerTelemetry, settings: OpenAISettings
    ):
        self.models, self.admission, self.telemetry, self.settings = models, admission, telemetry, settings
        self.sampled_turns = SampledTurns()
        self.responses = ResponseStore(max_responses=settings.stored_responses, max_bytes=settings.stored_bytes)
        self.adapter_lock = asyncio.Lock()
        """Held while an adapter is read: one at a time, so that readers do not take all threads."""

    @property
    def log_texts(self) -> bool:
        """True if prompts and answers go into the log."""
        return self.telemetry.settings.log_texts

    def answers(
        self,
        request: ActiveRequest,
        served: ServedModel,
        prompt: Prompt | Sequence[int],
        sampling: Sampling,
        *,
        tools: Sequence[ToolSpec] = (),
        n: int = 1,
        priority: int = 0,
        user: str = "",
        owner: str = "",
        first: int = 0,
        **options: Any,
    ) -> AsyncGenerator[Delta, None]:
        """The pieces of `n` answers as they come, metered. Closing the iterator aborts what is under way.

        `first` is the place of the first of them among the answers of the request.
        """
        if request.span is not None:
            request.span.called(served.name, prompt, sampling, n)
        run = f"{request.client.name}/{user}"[:256]
        owner = owner or canonical([request.client.name, served.name, user])
        pieces = served.stream(prompt, sampling, tools=tools, n=n, priority=priority, run=run, owner=owner, **options)
        admission = None if served.charges_turns else self.admission
        answers = metered(pieces, request, admission, self.telemetry, prompt)
        return _noted(answers, request, first, n) if self.log_texts else answers

    def options(
        self, request: ActiveRequest, served: ServedModel, salt: str | None, template: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The cache salt and the template's variables as options of `answers` and `rate`; only those that are set."""
        if self.settings.private_caches and served.tokens is not None:
            salt = f"{request.client.name}/{salt or ''}"
        return ({"cache_salt": salt} if salt else {}) | ({"template": template} if template else {})


async def _noted(
    answers: AsyncGenerator[Delta, None], request: ActiveRequest, first: int, n: int
) -> AsyncGenerator[Delta, None]:
    """The same pieces; at their end the answers are in the request's log line, of one left early the text until then."""
    texts: defaultdict[int, list[str]] = defaultdict(list)
    whole: dict[int, Message] = {}
    try:
        async with aclosing(answers):
            async for delta in answers:
                texts[delta.index].append(delta.text)
                if delta.completion is not None:
                    whole[delta.index] = delta.completion.message
                yield delta
    finally:
        if texts:
            noted = request.notes.setdefault("answers", [])
            noted += [None] * (first + n - len(noted))
            for index, pieces in texts.items():
                noted[first + index] = (whole.get(index) or assistant("".join(pieces))).to_json()
