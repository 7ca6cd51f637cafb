"""Error responses in OpenAI's shape: a status, one sentence, and the field at fault."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from firsthand.errors import (
    ConfigError,
    DataError,
    FirsthandError,
    GrammarIgnored,
    GrammarUnchecked,
    LimitExceeded,
    MissingExtra,
    ModelError,
    PromptTooLong,
    QueueFull,
    TemplateError,
    TransientError,
    UnknownName,
)
from firsthand.message import Json

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "invalid_request_error",
    411: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}
_MOST_CHARS = 1000


class Refusal(Exception):
    """A request that is refused, with the response that says why."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    def to_json(self) -> Json:
        """The `error` object that OpenAI's clients read."""
        message = " ".join(self.message[: 4 * _MOST_CHARS].split())[:_MOST_CHARS]
        kind = KINDS.get(self.status, "server_error")
        return {"error": {"message": message, "type": kind, "param": self.param, "code": self.code}}

    def body(self) -> bytes:
        """The JSON as bytes."""
        return json.dumps(self.to_json()).encode()


def bad(message: str, param: str | None = None, code: str | None = None) -> Refusal:
    """A 400 that names the field."""
    return Refusal(400, message, param=param, code=code)


@contextmanager
def in_names_of(names: Mapping[str, str]) -> Iterator[None]:
    """Refusals of the chat behind another interface, in that interface's names: `names` has them by the chat's own.

    A name may be a path; the longest that a field's path begins with is replaced, in the message too.
    """
    try:
        yield
    except Refusal as refusal:
        field = refusal.param or ""
        known = [name for name in names if field == name or field.startswith(f"{name}.")]
        if known:
            theirs = max(known, key=len)
            ours = names[theirs]
            refusal.param = ours + field.removeprefix(theirs)
            refusal.message = re.sub(rf"(?<![\w.]){re.escape(theirs)}(?!\w)", lambda _: ours, refusal.message)
        raise


def refusal_of(error: Exception) -> Refusal:
    """The Refusal for an error. An error that is not a FirsthandError is a bug, and its text is not sent."""
    match error:
        case Refusal():
            return error
        case PromptTooLong():
            return bad(str(error), "messages", "context_length_exceeded")
        case ConfigError() | TemplateError() | LimitExceeded():
            return bad(str(error))
        case QueueFull():
            return Refusal(429, str(error), code="queue_full", headers={"retry-after": "1"})
        case TransientError():
            wait_s = max(1, round(error.retry_after_s or 1))
            return Refusal(503, str(error), code="try_again", headers={"retry-after": str(wait_s)})
        case UnknownName():
            return Refusal(404, str(error))
        case MissingExtra() | DataError():
            return Refusal(501, str(error))
        case GrammarIgnored():
            return Refusal(502, str(error), code="grammar_ignored")
        case GrammarUnchecked():
            return bad(str(error), code="grammar_unchecked")
        case ModelError(refused_as=int(status)):
            code = "upstream_refused" if status == 502 else None
            return Refusal(
                status, str(error), param=error.refused_field, code=code, headers={"x-should-retry": "false"}
            )
        case FirsthandError():
            return Refusal(500, str(error))
        case _:
            return Refusal(500, "the server met a bug of its own; its log has the details", code="internal_error")
