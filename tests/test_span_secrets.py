"""Redaction and search of literals part by part: what is looked at, what is replaced and counted, and what fails."""

from __future__ import annotations

import json
from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.ingest import redaction
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.literal_search import _pattern, literal_search
from firsthand.ingest.redaction import (
    FAILED,
    HINTS,
    MAX_DEPTH,
    PUT,
    Redactor,
    _Count,
    _dumps,
    _fast_encoder,
    _is_count,
    _is_expression,
)
from firsthand.system.secret_names import SECRET_NAMES

KEY = "sk-" + "a" * 20


def span(**changes: Any) -> IncomingSpan:
    made = IncomingSpan("1" * 32, "2" * 16, "", "n", 1, 2)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


class Broken(str):
    """A text that cannot be looked at."""

    def lower(self) -> str:
        raise ValueError("no")


# -- literals --


def test_a_text_is_found_by_any_of_many_literals() -> None:
    contains = literal_search(["axb", "xc", "pq", "xcy", "q.r"], "xq")
    texts = {"axb": True, "_axb_": True, "xc": True, "zxcz": True, "pq": True, "q.r": True, "a xb": False, "xb": False,
             "ax": False, "qxr": False, "p": False, "": False, "x c": False, "AXB": False}  # fmt: skip
    assert {text: contains(text) for text in texts} == texts
    assert not literal_search([], "x")("anything") and literal_search(["ab"], "")("xaby")
    assert literal_search(["a"], "z")("ba") and not literal_search(["aa"], "a")("aba")
    # grouped by the rare character that is preferred: its place within each literal stays
    assert _pattern("x", ["axb", "xc"]) == r"x(?=[bc])(?:(?<=ax)b|c)" and _pattern("q", ["pq"]) == "q(?:(?<=pq))"
    assert _pattern("-", ["a-.", "-+"]) == r"\-(?=[\+\.])(?:(?<=a\-)\.|\+)"
    every = literal_search(HINTS, "JA-_x")
    assert all(every(f"..{hint}..") for hint in HINTS) and not every("sk lf AKI hf gh p_ eY")


# -- names and values --


def test_a_name_says_whether_its_value_is_a_secret() -> None:
    redactor = Redactor()
    for name in (*SECRET_NAMES, "x.API_KEY", "a[password]", "llm.invocation[secret]", "my_password", "db-api-key",
                 "my_api_key", "x_secret", "a.b_access_token", "user_private_key", "proxyauthorization",
                 "DB_PASSWORD", "x[My_Secret]",
                 "Client-Secret"):  # fmt: skip
        assert redactor._is_secret_name(name), name
    for name in (
        "key",
        "token",
        "password.length",
        "a[password].n",
        "cookie_count",
        "",
    ):
        assert not redactor._is_secret_name(name), name
    assert redactor._secret_names["x.API_KEY"] is True and redactor._secret_names["key"] is False
    assert redactor._is_secret_name("x" * 195 + ".secret") and "x" * 195 + ".secret" not in redactor._secret_names
    redactor._secret_names["key"] = True
    assert redactor._is_secret_name("key"), "what is known is not asked again"
    assert [_is_count("api_key", each) for each in (0, 1.5, True, "1", None, [1])] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]


def test_each_value_of_an_object_is_redacted_and_counted() -> None:
    redactor, found = Redactor(), _Count()
    given = {
        "password": "x", "secret": ["y"], "cookie": "", "api_key": None, "passwd": 5, f"a {KEY}": "plain",
        "list": [KEY, {"password": 7, "id_token": "z", "n": {"secret": "", KEY: 1}}, 3, None],
    }  # fmt: skip
    assert redactor._safely(given, found) == {
        "password": PUT, "secret": PUT, "cookie": "", "api_key": None, "passwd": PUT, f"a {PUT}": "plain",
        "list": [PUT, {"password": PUT, "id_token": PUT, "n": {"secret": "", PUT: 1}}, 3, None],
    }  # fmt: skip
    assert found.number == 8
    for depth, value in ((MAX_DEPTH, "kept"), (MAX_DEPTH + 1, FAILED)):
        nested: Any = 1
        for _ in range(depth):
            nested = [nested]
        found = _Count()
        made = redactor._safely({"deep": nested, "b": "c"}, found)
        assert (
            (made["deep"] == FAILED) is (value == FAILED) and found.number == int(value == FAILED) and made["b"] == "c"
        )
    assert redactor._value({"password": "x"}, _Count(), MAX_DEPTH) == {"password": PUT}
    assert redactor._value("text", _Count(), MAX_DEPTH + 1) == "text"
    for value in ([1], {"a": 1}):
        with pytest.raises(ValueError, match="too deep"):
            redactor._value(value, _Count(), MAX_DEPTH + 1)
    found = _Count()
    assert redactor._named("token", {"secret": "s"}, found, 3) == {"secret": PUT} and found.number == 1
    assert redactor._named("secret", {"k": "s"}, found, 3) == PUT and found.number == 2
    plain = Redactor(defaults=False)
    assert plain._safely({"password": "x"}, found) == {"password": "x"} and plain._named("secret", "s", found, 0) == "s"
    assert redactor.redact_resource({"api_key": "k", "host": KEY}) == {"api_key": PUT, "host": PUT}
    assert redactor.redact_resource({5: 1}) == {5: FAILED}, "a name that is no text"  # type: ignore[dict-item]
    assert redactor.redact_resource([]) == {"redacted": FAILED}  # type: ignore[arg-type]


def test_texts_are_redacted_by_own_rules_shapes_and_names_in_turn() -> None:
    def text(given: str, *patterns: str, defaults: bool = True) -> tuple[str, int]:
        found = _Count()
        return Redactor(patterns, defaults=defaults)._text(given, found), found.number

    assert text("ID-1 ID-2", r"ID-\d") == (f"{PUT} {PUT}", 2) and text("ID-1", r"ID-\d", defaults=False) == (PUT, 1)
    assert text("a=sk-1", "sk-1") == (f"a={PUT}", 1), "a text that is too short for the others"
    assert text("a://:b@h") == (f"a://{PUT}@h", 1)
    assert text("secret=x") == ("secret=x", 0) and text("secret=abcdef") == (f"secret={PUT}", 1)
    assert text(f"{KEY} and {KEY} and hf_{'b' * 20}") == (f"{PUT} and {PUT} and {PUT}", 3)
    assert text(f"PASSWORD: abcdef, Bearer {'t' * 16}") == (f"PASSWORD: {PUT}, {PUT}", 2)
    assert text('{\\"api_key\\": \\"abcdef\\"}') == (f'{{\\"api_key\\": \\"{PUT}\\"}}', 1)
    assert text("sk-abc") == ("sk-abc", 0) and text(KEY, defaults=False) == (KEY, 0)
    assert text(Broken("a password")) == (FAILED, 1) and text(Broken("short")) == ("short", 0)


def test_only_a_span_that_may_hold_a_secret_is_gone_through() -> None:
    def may(redactor: Redactor | None = None, **changes: Any) -> bool:
        made = span(**changes)
        return (redactor or Redactor())._may_hold_secrets(made, _dumps(made) or b"")

    assert not may(attributes={"a": "calm", "n": 1}, error="fine", scope="s", events=[{"name": "e"}])
    for changes in ({"attributes": {"x.api_key": 1}}, {"attributes": {"a": KEY}}, {"attributes": {"a": {"Password": 1}}},
                    {"error": KEY}, {"error": "my SECRET"}, {"name": "Bearer x"}, {"name": "ghp_"}, {"scope": "hf_"},
                    {"events": [{"name": "apikey"}]}, {"links": [{"x": "private-key"}]},
                    {"attributes": {"u": "http://a:b@c"}}):  # fmt: skip
        assert may(**changes), changes
    assert not may(attributes={"u": "http://a", "v": "b c"}) and not may(attributes={"u": "a@b"})
    assert not may(error="a@b", attributes={"u": "http://a"}), "an address and its password are one text"
    assert (
        may(error="http://a@b") and may(name="api_\u212aey") and may(attributes={"a": "x" * (1 << 20) + "api_\u212aey"})
    )
    assert (
        may(Redactor(["zzz"]))
        and may(Redactor(["zzz"], defaults=False))
        and not may(Redactor(defaults=False), name=KEY)
    )
    known = Redactor()
    known._secret_names["odd"] = True
    assert may(known, attributes={"odd": 1}) and not may(attributes={"odd": 1})
    calm = span(attributes={"a": "é", "f": 0.5}, kind=2)
    body = Redactor()._redacted(calm)
    assert body == '{"attributes":{"a":"é","f":0.5},"kind":2}'.encode() and calm.redactions == 0
    held = span(
        name=KEY, scope=KEY, error=KEY, attributes={"a": KEY}, events=[{"e": KEY}], links=[{"l": KEY}, {"m": 1}]
    )
    assert json.loads(Redactor()._redacted(held)) == {
        "attributes": {"a": PUT}, "events": [{"e": PUT}], "links": [{"l": PUT}, {"m": 1}], "scope": PUT,
    }  # fmt: skip
    assert (held.name, held.error, held.redactions) == (PUT, PUT, 6)
    lone = span(attributes={"a": "\ud800"})
    assert Redactor()._redacted(lone) == b'{"attributes":{"a":"\xed\xa0\x80"}}'
    with pytest.raises(ValueError, match="the span is no JSON"):
        Redactor()._redacted(span(attributes={"a": object()}))
    failed = span(attributes={"a": object()}, error=None, scope="s", events=[1])
    assert json.loads(Redactor().redact(failed)) == {"attributes": {"redacted": FAILED}}
    assert (failed.name, failed.scope, failed.error, failed.events, failed.redactions) == (FAILED, "", None, [], 1)


def test_a_span_is_written_the_same_with_and_without_the_fast_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = [
        span(attributes={"a": "é\n\"", "b": True, "c": -5}), span(attributes={"a": 0.1, "n": None}),
        span(attributes={"a": "\ud800"}), span(attributes={"a": 1 << 70}),
        span(attributes={"a": [1, {"b": 2}]}, events=[{"e": float("nan")}]), span(links=[{}], kind=1),
        span(attributes={"z": 1, "a": "b", "m": False}, scope="s", kind=3), span(attributes={"b": 1, "a": 0.5}),
        span(attributes={"a": object()}),
    ]  # fmt: skip
    fast = [_dumps(each) for each in spans]
    monkeypatch.setattr(redaction, "_dumps_fast", None)
    assert [_dumps(each) for each in spans] == fast and fast[0] == (
        '{"attributes":{"a":"é\\n\\"","b":true,"c":-5}}'.encode()
    )
    assert fast[-1] is None and fast[4] == b'{"attributes":{"a":[1,{"b":2}]},"events":[{"e":NaN}]}'
    assert fast[5:8] == [
        b'{"attributes":{},"links":[{}],"kind":1}', b'{"attributes":{"z":1,"a":"b","m":false},"scope":"s","kind":3}',
        b'{"attributes":{"b":1,"a":0.5}}',
    ], "in the order in which they were sent"  # fmt: skip
    encoder = _fast_encoder()
    assert encoder is None or encoder({"b": "é", "a": [2, 1]}) == '{"b":"é","a":[2,1]}'.encode()
    calls: list[Any] = []
    monkeypatch.setattr(redaction, "_dumps_fast", lambda body: calls.append(body) or b"fast")
    told = [_dumps(each) for each in (spans[0], spans[1], span(events=[{}]), span(links=[{}]))]
    assert told[0] == b"fast" and b"fast" not in told[1:] and len(calls) == 1


def test_a_rule_of_one_s_own_matches_something() -> None:
    assert _is_expression("a") and _is_expression("") and not _is_expression("(")
    for pattern in ("", "a*", "x?", "^"):
        with pytest.raises(ConfigError) as refused:
            Redactor(["fine", pattern])
        assert str(refused.value) == f"redact is {pattern!r}: it matches the empty text, and so everything"
    made = Redactor(["b+", "A"], defaults=False)
    assert (
        made._text("abbA", _Count()) in (f"a{PUT}{PUT}", f"{PUT}{PUT}{PUT}")
        and made._shapes == []
        and not made._defaults
    )
