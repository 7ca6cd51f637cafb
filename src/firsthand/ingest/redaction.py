"""Redacts spans before they are kept: secrets by the names of attributes, by their known shapes, and by one's own
patterns.

It runs in the one writer, so spans of every sender pass it. A cheap look at the whole span comes first: only one that
may hold a secret is gone through value by value. Whatever fails while a value is looked at puts `[redacted: error]`
in its place: the value is never kept as it came.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from firsthand.errors import ConfigError, DataError
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.literal_search import literal_search, literal_search_in_bytes, literals_within, shortest_of
from firsthand.ingest.login_texts import (
    USER_FLAGS,
    is_basic,
    may_hold_login,
    may_hold_login_in_bytes,
    takes_password,
    without_logins,
)
from firsthand.ingest.named_pairs import VALUES, pair_name
from firsthand.ingest.secret_shapes import SHAPES
from firsthand.ingest.secret_statements import (
    may_hold_statement,
    may_hold_statement_in_bytes,
    without_stated_secrets,
)
from firsthand.ingest.secret_texts import (
    PUT,
    is_plain_word,
    is_token,
    may_hold_token,
    may_hold_token_in_bytes,
    without_named_values,
)
from firsthand.message import Json
from firsthand.safety.redact import Redact
from firsthand.system.json_values import values_in_text
from firsthand.system.secret_names import SPELLINGS, WORDS, is_password_name, is_secret_name, paired_patterns

FAILED = "[redacted: error]"
MAX_DEPTH = 64
MAX_VALUES = 200_000
"""JSON values of a text that is read as JSON; names in a text of more are found as in any text."""
MAX_VALUES_OF_REQUEST = 500_000
"""JSON values that are decoded in the texts of one request; further texts are searched as text."""
MAX_BODY_BYTES = 400 << 20
"""Of a span as it is kept: no more is read back."""
_SCHEME = re.compile(
    r"(?i)(?<![A-Za-z0-9])(?:bearer\s{1,4}[A-Za-z0-9+/=_.~-]{16,}|basic\s{1,4}[A-Za-z0-9+/]{8,}={1,2})"
)
"""A header's value without the header's name."""
_ESCAPED = re.compile(r"\\(?:/|u00[2-7])")
"""JSON's escapes of letters that need none."""
_JSON_LINE = re.compile(r"(?m)^[ \t]{0,8}(?:data:[ \t]{0,4})?(?P<json>[{\[].*)")
_NAMED_WORDS = ("passw", "bearer", "basic ", *SPELLINGS)
"""One of these is in lower case in every text in which a rule finds a name, or that has a secret name as a key."""


class Redactor:
    """The rules of one writer.

    Args:
        patterns: Regular expressions of one's own, applied to every text of every span; ConfigError for one that is none.
        defaults: Leave the built-in rules on.
    """

    def __init__(self, patterns: Sequence[str] = (), *, defaults: bool = True):
        for pattern in patterns:
            if _is_expression(pattern) and re.match(pattern, "") is not None:
                raise ConfigError(f"redact is {pattern!r}: it matches the empty text, and so everything")
        self._own = [Redact(pattern).expression for pattern in patterns]
        self._defaults = defaults
        self._shapes = [(_cores(words), re.compile(pattern)) for words, pattern in SHAPES.values()] if defaults else []
        self._secret_names: dict[str, bool] = {}

    def redact(self, span: IncomingSpan, budget: DecodedValues | None = None) -> bytes:
        """Redact a span in place; returns its body as JSON, ready to be kept. Spans of one request share a budget.

        If the rules themselves fail, all that the span says is replaced. DataError for a span that is too large to be kept.
        """
        try:
            body = self._redacted(span, budget)
        except MemoryError:
            raise  # the sender is told: what is acknowledged is kept
        except Exception:
            span.name, span.scope, span.error = FAILED, "", None if span.error is None else FAILED
            span.attributes, span.events, span.links = {"redacted": FAILED}, [], []
            span.redactions = 1
            return _dumps(span) or b"{}"
        if len(body) > MAX_BODY_BYTES:
            raise DataError(f"a span would take more than {MAX_BODY_BYTES >> 20} MiB as JSON: shorten its texts")
        return body

    def redact_resource(self, resource: Json, budget: DecodedValues | None = None) -> Json:
        """The attributes of a program, redacted."""
        try:
            return self._safely(resource, _Count(budget))
        except MemoryError:
            raise
        except Exception:
            return {"redacted": FAILED}

    def _redacted(self, span: IncomingSpan, budget: DecodedValues | None = None) -> bytes:
        body = _dumps(span)
        if body is not None and not self._may_hold_secrets(span, body):
            return body
        del body  # it may be large
        found = _Count(budget)
        span.name = self._text(span.name, found)
        span.scope = self._text(span.scope, found)
        span.error = None if span.error is None else self._text(span.error, found)
        span.attributes = self._safely(span.attributes, found)
        span.events = [self._safely(each, found) for each in span.events]
        span.links = [self._safely(each, found) for each in span.links]
        span.redactions = found.number
        body = _dumps(span)
        if body is None:
            raise ValueError("the span is no JSON")
        return body

    def _may_hold_secrets(self, span: IncomingSpan, body: bytes) -> bool:
        """False only where no rule can match anything in the span."""
        if self._own:
            return True
        if not self._defaults:
            return False
        if self._has_secret_name(span):
            return True
        beside = span.name if span.error is None else f"{span.name}\n{span.error}"
        return _has_any_hint(beside.encode("utf-8", "surrogatepass")) or _has_any_hint(body)

    def _has_secret_name(self, span: IncomingSpan) -> bool:
        """True if the span has a value under a secret name, however deep, or a header of one as its name and value."""
        names = self._secret_names
        pending: list[Any] = [span.attributes, *span.events, *span.links]
        while pending:
            held = pending.pop()
            if isinstance(held, list):
                pending += [each for each in held if isinstance(each, dict | list)]
                continue
            for key, value in held.items():
                known = names.get(key)
                if known or (known is None and self._is_secret_name(key)):
                    return True
                if isinstance(value, dict | list):
                    pending.append(value)
            if pair_name(held, self._is_secret_name) is not None:
                return True
        return False

    def _is_secret_name(self, name: str) -> bool:
        known = self._secret_names.get(name)
        if known is None:
            known = is_secret_name(name)
            if len(self._secret_names) < 10_000 and len(name) <= 200:
                self._secret_names[name] = known
        return known

    def _safely(self, value: Json, found: _Count) -> Json:
        """The object with each of its values redacted, those that fail replaced one by one."""
        kept: Json = {}
        pair = pair_name(value, self._is_secret_name)
        for key, held in value.items():
            name = self._text(key, found) if isinstance(key, str) else key
            try:
                kept[name] = self._named(pair if pair and key in VALUES else key, held, found, 0)
            except MemoryError:
                raise
            except Exception:  # whatever it was, the value is not kept as it came
                kept[name] = FAILED
                found.number += 1
        return kept

    def _value(self, value: Any, found: _Count, depth: int) -> Any:
        if isinstance(value, str):
            return self._text(value, found)
        if depth > MAX_DEPTH:
            raise ValueError("too deep")
        if isinstance(value, dict):
            pair = pair_name(value, self._is_secret_name)
            return {
                self._text(key, found): self._named(pair if pair and key in VALUES else key, held, found, depth + 1)
                for key, held in value.items()
            }
        return self._list(value, found, depth) if isinstance(value, list) else value

    def _list(self, value: list[Any], found: _Count, depth: int) -> list[Any]:
        """A list, of headers as pairs say: what follows a secret name is its value, unless it is the name of a field."""
        kept = [self._value(each, found, depth + 1) for each in value]
        if not self._defaults:
            return kept
        is_curl = any(isinstance(each, str) and each.endswith("curl") for each in value)
        before = value[: value.index("-p")] if "-p" in value else []
        is_login = takes_password(" ".join(each[:80] for each in before[:8] if isinstance(each, str)))
        for index in range(len(value) - 1):
            name, held = value[index], value[index + 1]
            if not (isinstance(name, str) and isinstance(held, str) and len(name) <= _LONGEST_NAME):
                continue
            if kept[index + 1] == PUT:
                continue
            if is_curl and name in USER_FLAGS and ":" in held:
                kept[index + 1] = f"{held.partition(':')[0]}:{PUT}"
                found.number += 1
            elif (
                (self._is_secret_name(name) and not is_plain_word(held))
                or is_token(name, held)
                or (is_login and name == "-p" and not held.startswith("-"))
            ):
                kept[index + 1] = PUT
                found.number += 1
        return kept

    def _named(self, key: str, value: Any, found: _Count, depth: int) -> Any:
        if self._defaults and value not in ("", None) and self._is_secret_name(key) and not _is_count(key, value):
            found.number += 1
            return PUT
        if self._defaults and (
            is_token(key, value) or (isinstance(value, str) and key[-4:].lower() == "auth" and is_basic(value))
        ):
            found.number += 1
            return PUT
        return self._value(value, found, depth)

    def _text(self, text: str, found: _Count) -> str:
        try:
            for expression in self._own:
                text, times = expression.subn(PUT, text)
                found.number += times
            if not self._defaults or len(text) < _SHORTEST:
                return text
            hints = _hints_within(text)
            for words, pattern in self._shapes:
                if any(word in text for word in _ADDRESS) if words is _ADDRESS else not hints.isdisjoint(words):
                    text, times = pattern.subn(PUT, text)
                    found.number += times
            has_named = _has_named(text.lower())
            if has_named or _ESCAPED.search(text) is not None:
                decoded = self._json(text, found)
                if decoded is not None:
                    return decoded
                text = self._json_lines(text, found)
            if has_named:
                for rule in (without_named_values, without_logins, without_stated_secrets):
                    text, times = rule(text)
                    found.number += times
                text, times = _SCHEME.subn(PUT, text)
                found.number += times
            return text
        except MemoryError:
            raise
        except Exception:
            found.number += 1
            return FAILED

    def _json(self, text: str, found: _Count) -> str | None:
        """A text that is JSON, without its secrets; None for any other text."""
        if text.lstrip()[:1] not in ("{", "[", '"'):
            return None
        left = min(MAX_VALUES, found.budget.left)
        number = values_in_text(text, left)
        if number > left:
            return None
        found.budget.left -= number
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return None
        inside = _Count(found.budget)
        kept = self._value(value, inside, 0)
        found.number += inside.number
        return json.dumps(kept, ensure_ascii=False) if inside.number else text

    def _json_lines(self, text: str, found: _Count) -> str:
        """A text without the secrets of those of its lines that are JSON, as logs and streams of events have them."""
        if _JSON_LINE.search(text) is None:
            return text
        lines = text.split("\n")
        for index, line in enumerate(lines):
            match = _JSON_LINE.match(line)
            if match is not None and (_has_named(line.lower()) or _ESCAPED.search(line) is not None):
                kept = self._json(match["json"], found)
                lines[index] = line if kept is None else line[: match.start("json")] + kept
        return "\n".join(lines)


class DecodedValues:
    """The JSON values that the texts of one request may still hold to be decoded."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_VALUES_OF_REQUEST


class _Count:
    """The number of values that were replaced in one span."""

    __slots__ = ("budget", "number")

    def __init__(self, budget: DecodedValues | None = None) -> None:
        self.number = 0
        self.budget = budget or DecodedValues()


_LONGEST_NAME = 100
_SHORTEST = 8
"""No rule matches a text that is shorter."""
_ADDRESS = SHAPES["password in a URL"][0]
HINTS = tuple(dict.fromkeys(word for words, _ in SHAPES.values() for word in words if "://" not in words))
_ALONE = ("passw", "bearer", "basic ", *WORDS)
_has_word, _word_in_bytes = literal_search(_ALONE, "zwkb"), literal_search_in_bytes(_ALONE, "zwkb")
_RARE = "JA-_Zx~9."
_hints_within, _hint_in_bytes = literals_within(HINTS, _RARE), literal_search_in_bytes(HINTS, _RARE)
_PAIRED = [re.compile(pattern).search for pattern in paired_patterns()]
_PAIRED_IN_BYTES = [re.compile(pattern.encode()).search for pattern in paired_patterns()]
_ESCAPED_IN_BYTES = re.compile(rb"\\\\u00[2-7]")
_KELVIN = "\u212a".encode()
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode
_encode_ascii = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_SMALL = 1 << 20


def _cores(words: tuple[str, ...]) -> tuple[str, ...]:
    """The hints within a shape's words; those of an address as they are."""
    return (
        words
        if words is _ADDRESS
        else tuple(each for each in shortest_of(HINTS) if any(each in word for word in words))
    )


def _has_named(text: str) -> bool:
    """True if a text in lower case holds one of _NAMED_WORDS."""
    if _has_word(text) or any(search(text) for search in _PAIRED):
        return True
    if may_hold_login(text) or may_hold_statement(text) or may_hold_token(text):
        return True
    return "%" in text and ("%5f" in text or "%2d" in text)


def _named_in_bytes(raw: bytes) -> bool:
    """The same of a text in UTF-8."""
    if _word_in_bytes(raw) or any(search(raw) for search in _PAIRED_IN_BYTES):
        return True
    if may_hold_login_in_bytes(raw) or may_hold_statement_in_bytes(raw) or may_hold_token_in_bytes(raw):
        return True
    return b"%" in raw and (b"%5f" in raw or b"%2d" in raw)


def _has_any_hint(raw: bytes) -> bool:
    """True if a rule may match something in a text, or in the texts of JSON, in UTF-8: a copy of a long text in a `str` with
    one emoji takes four times as much."""
    if _hint_in_bytes(raw) or _named_in_bytes(raw.lower()):
        return True
    if (b"@" in raw or b"%40" in raw) and (b"://" in raw or b":\\" in raw or b"%3A%2F" in raw or b"%3a%2f" in raw):
        return True
    if _ESCAPED_IN_BYTES.search(raw) is not None:
        return True
    return _KELVIN in raw or b"\\u212a" in raw  # the one letter beyond ASCII that becomes one within it in lower case


def _fast_encoder() -> Callable[[Any], bytes] | None:
    try:
        import orjson
    except ImportError:
        return None
    return orjson.dumps


_dumps_fast = _fast_encoder()
_SAME_IN_BOTH = frozenset((str, int, bool))
"""Values that orjson writes as `json` does, byte for byte; it has another form for floats, and none for NaN."""


def _is_same_in_both(attributes: Json) -> bool:
    return _SAME_IN_BOTH.issuperset(map(type, attributes.values()))


def _dumps(span: IncomingSpan) -> bytes | None:
    """The body of a span as JSON, a long one in ASCII: what is there in between takes a byte for each of its characters."""
    try:
        if _dumps_fast is not None and not span.events and not span.links and _is_same_in_both(span.attributes):
            try:
                return _dumps_fast(span.body())
            except (TypeError, ValueError):  # a lone surrogate, or more than 64 bits
                pass
        text = _encode_ascii(span.body())
        if len(text) < _SMALL and "\\u" in text:
            return _encode(span.body()).encode("utf-8", "surrogatepass")
        return text.encode("ascii")
    except (TypeError, ValueError, RecursionError):
        return None


def _is_count(name: str, value: Any) -> bool:
    """True for a count or a switch, such as a number of secrets found: it holds none. A password may be a number."""
    return isinstance(value, bool) or (isinstance(value, int | float) and not is_password_name(name))


def _is_expression(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False  # Redact says what is wrong
    return True
