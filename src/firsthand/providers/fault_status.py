"""Reads the HTTP status that an error in a reply of success stands for, by the number or the names that it states.

Gateways that have begun an answer can send no status any more, and put the error into the body or the stream. LiteLLM writes
its numbers as texts; OpenAI and most others give names in `code` or `type`, whose spelling differs.
"""

from __future__ import annotations

import re
from typing import Any

_STATUSES = (
    (401, r"authenticat|unauthori[sz]ed|(invalid|incorrect)_api_key"),
    (403, r"permission|forbidden|access_denied"),
    (404, r"not_found"),
    (400, r"invalid|bad_request|unsupported|not_supported|unprocessable|validation|context_length|too_long|too_large"),
    (429, r"rate_limit|too_many_requests|throttl|resource_exhausted|queue_full"),
    (504, r"time_?out|timed_out|deadline"),
    (503, r"overload|unavailable|try_again|at_capacity|over_capacity|busy"),
    (500, r"server_error|internal|^api_error$|upstream|bad_gateway|provider_error|connection_error|engine_dead"),
)
"""Statuses and the words of the names that stand for them; the first that fits, so that `invalid_timeout` is a 400."""
_NAME_CHARS = 100


def stated_status(error: Any) -> int | None:
    """The status from 400 to 599 that an error states as a number; None if it states none."""
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, str) and re.fullmatch(r"[45][0-9]{2}", code):
        code = int(code)
    return code if type(code) is int and 400 <= code < 600 else None


def named_status(error: Any) -> tuple[int | None, str]:
    """The status that an error's `code`, or else its `type`, stands for, and its name; (None, a name or "") if unknown."""
    fields = [error.get(key) for key in ("code", "type")] if isinstance(error, dict) else []
    names = [each[:_NAME_CHARS] for each in fields if isinstance(each, str) and each]
    for name in names:
        spelled = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
        for status, words in _STATUSES:
            if re.search(words, spelled):
                return status, name
    return None, names[0] if names else ""
