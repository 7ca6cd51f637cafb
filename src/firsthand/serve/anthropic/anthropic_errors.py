"""Error responses in Anthropic's shape."""

from __future__ import annotations

from firsthand.message import Json
from firsthand.serve.http.refusals import Refusal

_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def anthropic_error(refusal: Refusal) -> Json:
    """The body that Anthropic's clients read."""
    kind = _KINDS.get(refusal.status, "invalid_request_error" if refusal.status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": refusal.to_json()["error"]["message"]}}
