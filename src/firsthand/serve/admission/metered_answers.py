"""Meters the answers of a model: latencies, tokens, the request's span and log line, and the client's allowance.

An answer that its client leaves before the end, or that an error ends, is charged for what was made of it until then.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager

from firsthand.loop.prompt_size import BYTES_PER_TOKEN, estimated_size, estimated_usage
from firsthand.message import Message
from firsthand.model import Completion, Delta, Prompt, Usage
from firsthand.serve.admission.active_request import ActiveRequest
from firsthand.serve.admission.api_keys import Client
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry


async def metered(
    answers: AsyncGenerator[Delta, None],
    request: ActiveRequest,
    admission: Admission | None,
    telemetry: ServerTelemetry,
    prompt: Prompt | Sequence[int] = "",
) -> AsyncGenerator[Delta, None]:
    """The same pieces, metered. Closing the iterator closes `answers`, which aborts them.

    Without an `admission` nothing is charged here: the turns of a served agent are charged by its sessions.
    """
    metrics, begun = telemetry.metrics, time.monotonic()
    last: dict[int, float] = {}
    made = _Unfinished(prompt)

    def spend(usage: Usage) -> None:
        telemetry.count_usage(request.notes, usage)
        if admission is not None:
            admission.charge(request.client, usage.total_tokens)

    try:
        async with aclosing(answers):
            async for delta in answers:
                if delta.token_ids or delta.num_held or (delta.text and not delta.completion):
                    now = time.monotonic()
                    if delta.index in last:
                        metrics.between_tokens.observe(now - last[delta.index])
                    else:
                        if not last:
                            request.notes["ttft_ms"] = round(1000 * (now - begun), 1)
                        metrics.first_token.observe(now - begun)
                    last[delta.index] = now
                if delta.completion is not None:
                    spend(made.ended(delta.completion))
                made.add(delta)
                if delta.completion is not None and request.span is not None:
                    request.span.answered(delta.completion, delta.waited_s)
                yield delta
    except Exception:
        if made.has_begun and admission is not None:  # else it was refused
            spend(made.usage())
        raise
    except BaseException:  # the client left, or its time was over
        if admission is not None:
            spend(made.usage())
        raise


@contextmanager
def charged(admission: Admission, client: Client, num_tokens: int) -> Iterator[None]:
    """Charge a client for what the block computes: also if it is cut off, but not if it refuses to compute it."""
    try:
        yield
    except Exception:
        raise
    except BaseException:
        admission.charge(client, num_tokens)
        raise
    admission.charge(client, num_tokens)


class _Unfinished:
    """The tokens of the answers that have no completion yet, and of their prompt."""

    def __init__(self, prompt: Prompt | Sequence[int]):
        self._prompt = prompt
        self._prompt_tokens: int | None = None
        self._by_index: dict[int, tuple[int, int, int]] = {}
        """Tokens, those that are held back, and bytes of text, so far."""
        self.has_begun = False

    def add(self, delta: Delta) -> None:
        """Count a piece."""
        self.has_begun = True
        if delta.prompt_tokens is not None and self._prompt_tokens is None:
            self._prompt_tokens = delta.prompt_tokens
        if delta.completion is not None:
            self._by_index.pop(delta.index, None)
            if delta.completion.usage.prompt_tokens:
                self._prompt_tokens = 0
            return
        ids, held, size = self._by_index.get(delta.index, (0, 0, 0))
        piece = delta.text if delta.call is None else delta.text + (delta.call.name or "") + delta.call.arguments
        size += len(piece.encode("utf-8", "surrogatepass"))
        if delta.token_ids or delta.num_held:  # not a further piece of the same tokens
            held = delta.num_held
        self._by_index[delta.index] = ids + len(delta.token_ids), held, size

    def ended(self, completion: Completion) -> Usage:
        """The usage of an answer at its end: an estimate, from bytes, where the endpoint states none."""
        if completion.usage.total_tokens:
            return completion.usage
        prompt = _size(self._prompt) if self._prompt_tokens is None else self._prompt_tokens
        self._prompt_tokens = 0  # the prompt is charged once for all answers
        [estimated] = estimated_usage([completion], prompt)
        return estimated.usage

    def usage(self) -> Usage:
        """The usage that no completion reported, estimated from bytes where the model counts no tokens."""
        prompt = _size(self._prompt) if self._prompt_tokens is None else self._prompt_tokens
        return Usage(
            prompt, 0, sum(ids + held or -(-size // BYTES_PER_TOKEN) for ids, held, size in self._by_index.values())
        )


def _size(prompt: Prompt | Sequence[int]) -> int:
    if isinstance(prompt, str):
        return estimated_size(prompt)
    messages = [each for each in prompt if isinstance(each, Message)]
    return estimated_size(messages) if messages else len(prompt)
