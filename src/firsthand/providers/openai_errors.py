"""Converts faults of an endpoint, OpenAI-compatible or another, to our errors: one sentence, and what to do.

Texts from outside are cut to one line, and keys and passwords in them are hidden. No network here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from firsthand.errors import ConfigError, ModelError, PromptTooLong, TransientError, Unreachable, nearest
from firsthand.message import Json
from firsthand.providers.endpoint_secrets import hide
from firsthand.providers.fault_status import named_status, stated_status
from firsthand.providers.finish_reasons import FailedAnswer
from firsthand.providers.openai_wire import Unreadable, clip

_TOO_LONG = re.compile(
    r"context[ _]?(length|window|size)|maximum (context|input|sequence)|(prompt|input|request) is too long|"
    r"too many (input |prompt )?tokens|max_model_len|longer than the (model|maximum)|exceed context limit|"
    r"exceeds the maximum number of tokens",
    re.IGNORECASE,
)
_NO_MONEY = ("insufficient_quota", "billing_not_active", "billing_hard_limit_reached", "billing_error")
_NO_CREDIT = re.compile(r"credit balance is too low|insufficient balance", re.IGNORECASE)
_PAYMENT_REQUIRED = 402
_TOO_MUCH_ASKED = frozenset({429, 503, 529})
"""Statuses by which an endpoint says that it is asked too much, by this client or by all."""
_REQUEST_FAULTS = (400, 413, 415, 422)
"""Statuses at which what was asked is at fault."""
_FILTERED = "its content filter took the prompt: change the prompt, or the filter's settings on its side"
_KEY_AT_FAULT = re.compile(r"(?<![\w.'\"`])api[ _-]?key(?![\w'\"`])", re.IGNORECASE)
"""Words at which it is the key all the same: Google and xAI answer 400. Quoted or behind a dot it is a tool's own field."""

_UNKNOWN_FIELD = re.compile(
    r"unsupported|not support|unknown|unrecogni[sz]ed|unexpected|extra (input|field)|not (permitted|allowed|accepted)|"
    r"no such (field|parameter)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Endpoint:
    """The endpoint that errors name, and the secrets that they must not show."""

    name: str
    model: str
    secrets: tuple[str, ...]
    timeout_s: float
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that the key is read from."""
    address_hint: str = "most end in /v1"
    """An example of a right address."""

    def too_slow(self) -> TransientError:
        """Returns the error for an answer that timed out."""
        return TransientError(f"{self.name} gave no answer within {self.timeout_s:g} s: try again, or raise timeout_s")

    def too_long(self, max_tokens: int) -> ModelError:
        """Returns the error for a stream that went on for longer than an answer of so many tokens takes."""
        return ModelError(
            f"{self.name} did not end an answer of at most {max_tokens:,} tokens in the time that is given to so many: use "
            "an endpoint that is faster and keeps to max_tokens, or raise timeout_s"
        )

    def garbled(self, error: ModelError) -> ModelError:
        """Returns the error for a reply that could not be parsed, or whose generation failed."""
        if isinstance(error, FailedAnswer):
            return self._failed(error)
        said = str(error)
        if isinstance(error, Unreadable):
            said = error.with_words(self.quote(error.words, error.most))
        return ModelError(f"{self.name} could not be understood: {self.hide(said)}")

    def _failed(self, failed: FailedAnswer) -> ModelError:
        """Returns the error for a generation that failed: that of its status if it has one, else one that may pass."""
        error = failed.error
        if (code := stated_status(error)) is not None:
            return self.status(code, error, {})
        reason = self.quote(failed.reason or ("an error" if error else "neither text nor a reason"), 80)
        return self._told(f"{self.name} ended an answer with {reason}", named_status(error)[0] or 500, error)

    def no_stream(self, kind: str, advice: str) -> ModelError:
        """Returns the error for a reply of another content type than a stream's."""
        return ModelError(f"{self.name} sent {self.quote(kind, 80)!r} where a stream was expected: {advice}")

    def unreachable(self, error: BaseException) -> ModelError:
        """Returns the error for a request that got no reply, or an incomplete one."""
        causes: list[BaseException] = []
        cause: BaseException | None = error
        while cause is not None and cause not in causes:
            causes.append(cause)
            cause = cause.__cause__
        ours = next((each for each in causes if isinstance(each, ModelError)), None)
        if ours is not None:
            return self.garbled(ours)
        kinds = {kind.__name__ for each in causes for kind in type(each).__mro__}
        if "ConnectTimeout" in kinds:
            return Unreachable(f"{self.name} could not be reached in time: check that the server runs and its address")
        if kinds & {"TimeoutException", "TimeoutError"}:
            return self.too_slow()
        detail = next((str(each) for each in reversed(causes[:2]) if str(each)), type(error).__name__)
        detail = self.quote(detail)
        if kinds & {"RequestError", "APIConnectionError", "SSLError", "OSError", "EndOfStream"}:
            return Unreachable(f"{self.name} lost or refused the connection ({detail}): check that the server runs")
        return ModelError(f"{self.name} could not be asked ({type(error).__name__}: {detail}): check its address")

    def reported(self, reply: Json, *, begun: bool = False) -> ModelError:
        """Returns the error in the body of a reply or stream event with a success status.

        One without a number or a known name may pass if an answer has `begun`, since its request was accepted.
        """
        error = reply.get("error")
        if (code := stated_status(error)) is not None:
            return self.status(code, error, {})
        status, name = named_status(error)
        answered = f"{self.name} answered with {self.quote(name, 80) or 'an error'}"
        return self._told(answered, status or (500 if begun else 400), error)

    def status(self, status: int, body: Any, headers: Mapping[str, str], known: Sequence[str] = ()) -> ModelError:
        """Returns the error for a status, with the endpoint's message; `known` are the models it lists."""
        return self._told(f"{self.name} answered {status}", status, body, headers, known)

    def _told(
        self, answered: str, status: int, body: Any, headers: Mapping[str, str] | None = None, known: Sequence[str] = ()
    ) -> ModelError:
        """Returns the error for a status, in a sentence that begins with what the endpoint `answered`."""
        message = self.quote(_error_text(body))
        answered += f" ({message})" if message else ""
        marks = {str(body.get(field)) for field in ("code", "type")} if isinstance(body, dict) else set()
        overflow = {"context_length_exceeded", "exceed_context_size_error"} & marks or _TOO_LONG.search(message)
        if overflow and status in (400, 413, 422, 500):
            return PromptTooLong(f"{answered}: shorten the conversation, or ask for fewer tokens")
        if status == _PAYMENT_REQUIRED or marks & set(_NO_MONEY) or _NO_CREDIT.search(message):
            return _lasting(ModelError(f"{answered}: the account has no credit left; top it up or use another key"))
        if (status in (408, 409, 425, 429) or status >= 500) and not _is_final(status, headers or {}):
            is_for_all = status in _TOO_MUCH_ASKED
            return TransientError(
                f"{answered}: it may pass, try again", retry_after_s(headers or {}), is_for_all=is_for_all
            )
        is_filtered = status in _REQUEST_FAULTS and "content_filter" in marks
        error = ModelError(f"{answered}: {_FILTERED if is_filtered else self._advice(status, known)}")
        if status not in _REQUEST_FAULTS or _KEY_AT_FAULT.search(message):
            return _lasting(error)
        field = body.get("param") if isinstance(body, dict) else None
        return _lasting(error, status, self.quote(field, 80) if isinstance(field, str) and field else None)

    def hide(self, text: str) -> str:
        """Returns the text without our secrets, in any escapes."""
        return hide(text, self.secrets)

    def quote(self, words: object, most: int = 300) -> str:
        """Returns words from outside as one short line. Secrets are hidden first: a part of one could not be found."""
        return clip(hide(str(words), self.secrets, 4 * most), most)

    def _advice(self, status: int, known: Sequence[str]) -> str:
        if status == 401:
            return f"set {self.key_variable} to a key that it takes"
        if status == 403:
            return f"ask for access to {self.model!r}, or use another key or model"
        if status == 404 and known:
            known = [self.quote(name, 80) for name in known]
            close = nearest(self.model, known)
            more = f" and {len(known) - 10} more" if len(known) > 10 else ""
            return (f"did you mean {close!r}? " if close else "") + f"it has {', '.join(known[:10])}{more}"
        if status in (404, 405) or status < 400:
            return f"check the model's name and the address ({self.address_hint})"
        if status >= 500:
            return "it says that a try again meets the same fault"
        return "change what it refuses, such as a sampling setting or a tool that it does not know"


def _lasting(error: ModelError, status: int = 502, field: str | None = None) -> ModelError:
    """Returns the error, with the status and the field that a client of ours is told."""
    error.refused_as, error.refused_field = status, field
    return error


def _is_final(status: int, headers: Mapping[str, str]) -> bool:
    """Returns True if a server, or one behind it, says that a try again meets the same fault."""
    return status >= 500 and headers.get("x-should-retry", "").strip().lower() == "false"


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Returns the seconds of Retry-After-Ms, or of Retry-After (a number or a date); None if missing or invalid."""
    given = headers.get("retry-after", "").strip()[:100]
    with suppress(ValueError):  # OpenAI and Azure state it beside, to the millisecond
        if math.isfinite(milliseconds := float(headers.get("retry-after-ms", "").strip()[:100])):
            return max(milliseconds / 1000, 0.0)
    try:
        seconds = float(given)
    except ValueError:
        try:
            date = parsedate_to_datetime(given)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        seconds = (date - (now or datetime.now(UTC))).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def shown_address(base_url: str) -> str:
    """Returns the URL without user and password; ConfigError if it is invalid."""
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
    except ValueError:  # also for an invalid port or host
        parts, host, port = urlsplit(""), "", None
    printable = base_url.isprintable() and " " not in base_url
    if parts.scheme not in ("http", "https") or not host or not printable or parts.query or parts.fragment:
        bare = re.sub(r"//.*@", "//***@", base_url, flags=re.DOTALL)  # first: a password may be long, or hold a ?
        shown = clip(bare.partition("?")[0], 100)
        raise ConfigError(f"'{shown}' is not a base URL: give one such as http://localhost:8000/v1, without ? or #")
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}{'' if port is None else f':{port}'}{parts.path}"


def checked_key(key: str, *, required: bool, variable: str = "OPENAI_API_KEY", provider: str = "openai") -> str:
    """Returns the API key; ConfigError if it is invalid, or empty where one is required."""
    if required and not key:
        raise ConfigError(
            f"{variable} is not set: export it, or name an endpoint of your own, {provider}:MODEL@BASE_URL"
        )
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"{variable} has invalid characters: copy it again, without line breaks")
    return key


def split_address(provider: str, rest: str, example: str) -> tuple[str, str | None]:
    """Returns model and address of `MODEL` or `MODEL@BASE_URL`; `example` is an address of the expected form.

    What follows the `@` is an address: ConfigError for anything else, which would be sent to another endpoint with the key.
    """
    at = max(rest.rfind("@http://"), rest.rfind("@https://"))
    if at >= 0:
        return rest[:at], rest[at + 1 :]
    if "@" in rest:
        name, _, address = rest.rpartition("@")
        raise ConfigError(
            f"{provider}:{clip(rest, 120)} has {clip(address, 80)!r} after the @, where an address was expected: "
            f"write {provider}:{clip(name, 80) or 'NAME'}@{example}, with http:// or https://; a name with @ in "
            "it needs its address too"
        )
    return rest, None


def refuses_field(field: str, status: int, body: Any) -> bool:
    """Returns True if an endpoint says that a request's field is one that it does not know or take."""
    if status not in _REQUEST_FAULTS:
        return False
    text = _error_text(body)
    is_named = (isinstance(body, dict) and body.get("param") == field) or re.search(rf"\b{field}\b", text) is not None
    return is_named and _UNKNOWN_FIELD.search(text) is not None


def _place(errors: list[Any]) -> str:
    """Returns the field that FastAPI names for the first error, without the part of the request that it stands in."""
    place = errors[0].get("loc")
    names = [str(each) for each in place if each != "body"] if isinstance(place, list) else []
    return ".".join(names)[:80]


def _error_text(body: Any) -> str:
    """Returns the message in an error's body, in the formats that servers use."""
    if isinstance(body, dict):
        inner = body.get("error")
        return _error_text(next((body[key] for key in ("message", "detail") if body.get(key)), inner if inner else ""))
    if isinstance(body, list):
        text = _error_text(body[0].get("msg")) if body and isinstance(body[0], dict) else ""
        return f"{field}: {text}" if text and (field := _place(body)) else text
    text = body if isinstance(body, str) else ""
    return "an HTML page" if text.lstrip()[:5].lower() in ("<!doc", "<html") else text
