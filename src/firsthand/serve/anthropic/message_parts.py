"""Parts of Anthropic's answers, the same whole and streamed."""

from __future__ import annotations

from collections.abc import Sequence

from firsthand.message import Json, ToolCall
from firsthand.model import Completion, Usage
from firsthand.serve.admission.active_request import ActiveRequest
from firsthand.serve.openai.chat_completions import ChatJob

_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


def message_json(request: ActiveRequest, job: ChatJob, content: Sequence[Json], ended: Json, usage: Json) -> Json:
    """The message object; `ended` has the reasons of `ended_json`, which are null while it is written."""
    return {
        "id": f"msg_{request.id}",
        "type": "message",
        "role": "assistant",
        "model": job.served.name,
        "content": list(content),
        **ended,
        "usage": {**usage, "service_tier": "standard"},
    }


def ended_json(job: ChatJob, completion: Completion) -> Json:
    """The reason that an answer ended for."""
    reason, stopped = _REASONS[completion.finish_reason], completion.stop_string
    if completion.finish_reason == "stop" and stopped is not None:
        reason = "stop_sequence"
    if completion.finish_reason == "length" and _ended_by_context(job, completion):
        reason = "model_context_window_exceeded"
    return {"stop_reason": reason, "stop_sequence": stopped if reason == "stop_sequence" else None}


def _ended_by_context(job: ChatJob, completion: Completion) -> bool:
    """True if a model that runs here stopped before its limit; an endpoint may have a limit of its own."""
    return 0 < completion.usage.completion_tokens < job.sampling.max_tokens and job.served.facts is not None


def usage_json(usage: Usage) -> Json:
    """The counts: those of the prompt apart by what the cache had, what it took, and the rest."""
    return {
        "input_tokens": max(0, usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens),
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }


def tool_use_id(mark: str) -> str:
    """The id of the call of this mark."""
    return f"toolu_{mark}"


def tool_input(call: ToolCall, text: str) -> Json:
    """The arguments of a call. The text of broken ones is one field, as Anthropic's documentation wraps it."""
    return call.arguments if call.invalid is None else {"INVALID_JSON": text}
