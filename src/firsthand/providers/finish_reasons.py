"""Reads the reason for which an endpoint ended an answer, whatever the vendor: OpenAI's, Anthropic's and Google's API.

The reasons that end an answer are a closed list. Any other one, such as `error` or `abort`, or an error beside the answer,
says that the generation failed: what there is of it is not the model's answer.
"""

from __future__ import annotations

from typing import Any

from firsthand.errors import ModelError
from firsthand.model import FinishReason

_NAMES: dict[FinishReason, tuple[str, ...]] = {
    "stop": ("stop", "stop_sequence", "stop_token", "end_turn", "end", "eos", "eos_token", "end_of_text", "endoftext",
             "end_of_turn", "stop_str", "complete", "completed", "done", "finish", "finished", "stopped", "normal"),
    "length": ("length", "max_tokens", "max_new_tokens", "max_length", "max_output_tokens", "model_length",
               "token_limit", "model_context_window_exceeded", "continuation", "repetition"),
    "tool_calls": ("tool_calls", "tool_call", "tool_use", "function_call", "function_calls"),
    "content_filter": (
        "content_filter", "content_filtered", "guardrail_intervened", "sensitive", "refusal", "safety", "recitation",
        "blocklist", "prohibited_content", "spii", "language", "escalation", "model_armor", "image_safety",
        "image_prohibited_content", "image_recitation"),
}  # fmt: skip
"""The names of each reason, in small letters. Gateways pass on those of another vendor."""
_REASONS = {name: reason for reason, names in _NAMES.items() for name in names}
_NO_REASON = frozenset({"", "none", "null", "unknown"})
"""Words of gateways that were given no reason."""


class FailedAnswer(ModelError):
    """A generation that failed on the endpoint's side in a reply of success. `Endpoint.garbled` makes it the user's error,
    which is tried again where that may help."""

    def __init__(self, reason: Any, error: Any = None):
        self.reason, self.error = reason, error
        super().__init__("a generation failed")


def finish_reason(given: Any, *, has_answer: bool, calls: bool = False, error: Any = None) -> FinishReason:
    """Returns why an answer ended; FailedAnswer if it was not made to its end.

    `has_answer` is True if there is any text or call, `calls` if there is a call. Servers that give no reason are believed
    if there is an answer. `error` is one that the reply holds beside the answer.
    """
    if error:
        raise FailedAnswer(given, error)
    name = _name(given)
    if given is None or name in _NO_REASON:
        if not has_answer:
            raise FailedAnswer(given)
        reason: FinishReason | None = "stop"
    else:
        reason = _REASONS.get(name)
    if reason is None:
        raise FailedAnswer(given)
    if reason == "tool_calls" and not has_answer:
        raise FailedAnswer(f"{given}, but no call")
    return "tool_calls" if calls and reason == "stop" else reason


def _name(given: Any) -> str:
    """Returns a reason in small letters with underscores, and without the name of Google's enumeration.

    Google's OpenAI-compatible API adds its own reason, as in `content_filter: RECITATION`.
    """
    if not isinstance(given, str):
        return "not a text"
    name = "_".join(given.partition(":")[0].lower().replace("-", " ").split())
    return name.removeprefix("finishreason.").removeprefix("finish_reason_")
