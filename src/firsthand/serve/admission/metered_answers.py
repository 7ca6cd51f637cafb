"""Meters the answers of a model: latencies, tokens, the request's span and log line, and the client's allowance."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from firsthand.model import Delta
from firsthand.serve.admission.active_request import ActiveRequest
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry


async def metered(
    answers: AsyncGenerator[Delta, None], request: ActiveRequest, admission: Admission, telemetry: ServerTelemetry
) -> AsyncGenerator[Delta, None]:
    """The same pieces, metered. Closing the iterator closes `answers`, which aborts them."""
    metrics, begun = telemetry.metrics, time.monotonic()
    last: dict[int, float] = {}
    async with aclosing(answers):
        async for delta in answers:
            if delta.token_ids or (delta.text and not delta.completion):
                now = time.monotonic()
                if delta.index in last:
                    metrics.between_tokens.observe(now - last[delta.index])
                else:
                    if not last:
                        request.notes["ttft_ms"] = round(1000 * (now - begun), 1)
                    metrics.first_token.observe(now - begun)
                last[delta.index] = now
            if delta.completion is not None:
                telemetry.count_usage(request.notes, delta.completion.usage)
                admission.charge(request.client, delta.completion.usage.total_tokens)
                if request.span is not None:
                    request.span.answered(delta.completion, delta.waited_s)
            yield delta
