"""Fields of forms and values of queries as they are read: kinds, pieces, bytes that are no text, and limits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.requests import Request

from firsthand.errors import ConfigError
from firsthand.studio.views.form_fields import fields_of, form_of
from firsthand.studio.views.playground_views import _decimal, _whole
from firsthand.studio.views.query_values import number_of, text_of
from firsthand.studio.views.queue_views import rater_of

FORM = "application/x-www-form-urlencoded"


def sent(pieces: Sequence[bytes], kind: str | None = FORM) -> Request:
    """A request whose body comes in pieces."""
    left = list(pieces)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    headers = [] if kind is None else [(b"content-type", kind.encode())]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


def queried(query: str, **scope: Any) -> Request:
    return Request({"type": "http", "method": "GET", "headers": [], "query_string": query.encode(), **scope})


def told(work: Any, *given: Any, **named: Any) -> str:
    with pytest.raises(ConfigError) as error:
        work(*given, **named)
    return str(error.value)


def test_a_form_is_read_in_pieces_with_all_its_fields_in_their_order() -> None:
    pieces = [b"b=2&a=&b=", b"", b"%C3%A9+x&c=\xff;1&d", b"=%ff"]
    found = [("b", "2"), ("a", ""), ("b", "é x"), ("c", "\ufffd;1"), ("d", "\ufffd")]
    for kind in (FORM, f" {FORM} ", f"{FORM} ; charset=utf-8", f"{FORM};boundary=x"):
        assert asyncio.run(fields_of(sent(pieces, kind))) == found, kind
    assert asyncio.run(form_of(sent(pieces))) == {"b": "é x", "a": "", "c": "\ufffd;1", "d": "\ufffd"}
    assert asyncio.run(form_of(sent([b""]))) == {} == asyncio.run(form_of(sent([b"&&"])))
    for kind in ("multipart/form-data", "application/json", "", None, f"x{FORM}", f"text/plain;{FORM}"):
        assert told(asyncio.run, form_of(sent([b"a=1"], kind))) == "the Studio expects the fields of a form"


def test_a_form_ends_at_its_bytes_in_all_and_at_forty_fields() -> None:
    for most in (2048, 4096):
        body = b"a=" + b"x" * (most - 2)
        for pieces in ([body], [body[:1000], body[1000:]]):
            assert asyncio.run(form_of(sent(pieces), most)) == {"a": "x" * (most - 2)}
            says = f"the form has more than {most // 1024} KiB"
            assert told(asyncio.run, form_of(sent([*pieces, b"y"]), most)) == says
            assert told(asyncio.run, fields_of(sent([b"z", *pieces]), most)) == says
    assert len(asyncio.run(form_of(sent([b"a=" + b"x" * 65_534])))["a"]) == 65_534
    assert told(asyncio.run, form_of(sent([b"a=" + b"x" * 65_535]))) == "the form has more than 64 KiB"
    assert len(asyncio.run(fields_of(sent([b"&".join([b"a=1"] * 40)])))) == 40
    assert told(asyncio.run, fields_of(sent([b"&".join([b"a=1"] * 41)]))) == "the form has more than 40 fields"


def test_texts_and_numbers_of_a_query_are_bounded() -> None:
    assert text_of(queried("a=%20x%20&a=y+&b="), "a") == "y " and text_of(queried("a=1"), "b") == ""
    assert text_of(queried("a=" + "%C3%A9" * 2000), "a") == "é" * 2000
    assert told(text_of, queried("a=" + "x" * 2001), "a") == "a has 2,001 characters: at most 2,000 are read"
    for text, number in (
        ("", 7), ("0", 2), ("-0", 2), ("1", 2), ("2", 2), ("003", 3), ("9", 9), ("10", 9), ("-5", 2), ("9" * 15, 9),
        ("-" + "9" * 14, 2),
    ):  # fmt: skip
        assert number_of(queried(f"n={text}"), "n", 7, 2, 9) == number, text
    assert number_of(queried(""), "n", 1, 2, 9) == 1, "a default is what it is"
    assert number_of(queried("n=" + "9" * 15), "n", 0) == 1 << 40 and number_of(queried("n=-3"), "n", 5) == 0
    for text in ("9" * 16, "--5", "-", "1.0", "+1", "%C2%B2", "%D9%A3", "1e3", "x", " 1", "1_0"):
        said = told(number_of, queried(f"n={text}"), "n", 7, 2, 9)
        assert said.startswith("n is '") and said.endswith("': a whole number was expected"), text
    assert told(number_of, queried("n=" + "x" * 50), "n", 7) == f"n is '{'x' * 40}': a whole number was expected"


def test_numbers_of_a_trial_may_be_left_out_or_be_nothing() -> None:
    given = {"a": " 12 ", "b": "", "c": "0", "d": "9" * 12, "e": " 0.5 ", "f": "1e-3", "g": "  "}
    assert [_whole(given, name) for name in "abcdgz"] == [12, None, 0, 999_999_999_999, None, None]
    assert [_decimal(given, name) for name in "abcefgz"] == [12.0, None, 0.0, 0.5, 0.001, None, None]
    for text in ("9" * 13, "-1", "1.5", "²", "٣", "x" * 50):
        assert told(_whole, {"n": f" {text}"}, "n") == f"n is {text[:40]!r}: a whole number was expected"
    for text in ("0,5", "one", "x" * 50):
        assert told(_decimal, {"n": f"{text} "}, "n") == f"n is {text[:40]!r}: a number was expected"


def test_the_account_rates_whatever_name_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    from firsthand.studio.accounts import User

    monkeypatch.setenv("LOGNAME", "me")
    signed = {"firsthand.user": User("ada", "annotator")}
    for query, scope, given, rater in (
        ("as=eve", {}, "", "human:eve"), ("as=eve", {}, " bob ", "human: bob "), ("", {}, "", "human:me"),
        ("as=eve", signed, "bob", "human:ada"), ("as=" + "x" * 99, signed, "", "human:ada"), ("as=é", {}, "", "human:é"),
    ):  # fmt: skip
        assert rater_of(queried(query.replace("é", "%C3%A9"), **scope), given) == rater
    for name in ("n" * 61, "a\nb", "\u202e"):
        says = f"{name[:60]!r} is no name of a rater: give up to 60 characters on one line"
        assert told(rater_of, queried("as=eve"), name) == says
