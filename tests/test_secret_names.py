"""Tests of names whose values are secrets in received traces, as programs write them, and of JSON in a text."""

import json
from typing import Any

import pytest

from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.redaction import PUT, Redactor
from firsthand.system.secret_names import SPELLINGS

SECRET = "hunter2hunter2hunter2"


def kept(attributes: dict[str, Any]) -> str:
    return Redactor().redact(IncomingSpan("1" * 32, "2" * 16, "", "n", 1, 2, attributes)).decode()


@pytest.mark.parametrize(
    "name",
    ["accessToken", "refreshToken", "clientSecret", "privateKey", "secretAccessKey", "sessionToken", "authToken", "APIKey",
     "x-auth-token", "pwd", "headers.authorization[0]", "headers.authorization.0", "db.password.0", "api_key.value",
     "connectionString", "OPENAI_API_KEY", "apiKey", "user.passWord", "passwords", "api key", "X-Amz-Session-Token",
     "proxy_authorization", "AWSSecretAccessKey", "db/password", "credentials", "Cookie"],
)  # fmt: skip
def test_a_secret_is_known_by_its_name_however_it_is_written(name: str) -> None:
    said = [
        kept(each) for each in ({name: SECRET}, {"a": {name: [SECRET]}}, {"body": json.dumps({name: {"x": SECRET}})})
    ]
    assert not [each for each in said if SECRET in each] and all(PUT in each for each in said)


@pytest.mark.parametrize("text", ["hu nter2 secret words", "äbcdefgh2", 'ab"cd efgh', "2"])
def test_a_secret_of_any_characters_in_json_is_replaced(text: str) -> None:
    for ascii_only in (True, False):
        body = json.dumps({"a": [{"password": text, "user": "eve"}]}, ensure_ascii=ascii_only)
        assert json.loads(json.loads(kept({"b": body}))["attributes"]["b"]) == {"a": [{"password": PUT, "user": "eve"}]}


@pytest.mark.parametrize("scheme", ["Bearer", "Basic", "Token", "ApiKey"])
def test_a_header_in_a_text_is_replaced_whatever_its_scheme(scheme: str) -> None:
    assert SECRET not in kept({"note": f"sent authorization: {scheme} {SECRET}"})


def test_a_header_as_name_and_value_is_replaced() -> None:
    assert SECRET not in kept({"b": json.dumps([{"name": "Authorization", "value": SECRET}])})
    assert SECRET not in kept({"b": [{"key": "x-api-key", "value": SECRET}]})
    assert SECRET in kept({"b": [{"name": "Accept", "value": SECRET}]})


def test_a_number_is_a_password_under_its_name_alone() -> None:
    assert "12345678901" not in kept({"password": 12345678901})
    assert json.loads(kept({"secrets": 3, "token_count.secret": 5}))["attributes"] == {
        "secrets": 3,
        "token_count.secret": 5,
    }
    assert json.loads(kept({"has_password": True}))["attributes"] == {"has_password": True}


def test_ordinary_names_and_texts_are_kept_as_they_are() -> None:
    names = (
        "tokens",
        "max_tokens",
        "llm.token.0",
        "key",
        "secretary",
        "value",
        "0",
        "author",
        "passed",
        "cookies_n",
    )
    attributes = dict.fromkeys(names, SECRET) | {"body": '{ "a" : 1,  "note": "the secret is out" }'}
    assert json.loads(kept(attributes))["attributes"] == attributes


def test_a_token_is_a_secret_where_its_value_is_no_word() -> None:
    value = "Zq9" + "aB3x" * 4
    for name in ("token", "Token", "request.token", "bot[token]"):
        for held in ({name: value}, {"a": [{name: value}]}, {"body": json.dumps({"x": {name: value}})}):
            said = kept(held)
            assert value not in said and PUT in said, (name, held)
    ordinary: dict[str, Any] = {
        "token": " internationalisation", "a": {"token": "12345678901234567"}, "b": {"token": "a1" * 7 + "b"},
        "c": {"token": "<|reserved_special_token_250|>"}, "tokens": value, "next_token": value, "page.first_token": value,
        "d": [{"token": "a b1 c d e f g h i j k l"}, {"token": 7}], "body": json.dumps({"token": "Ġhello", "logprob": -1}),
    }  # fmt: skip
    assert json.loads(kept(ordinary))["attributes"] == ordinary
    assert PUT in kept({"token": "a1" * 8}), "16 characters are a secret"


def test_a_text_of_many_json_values_is_searched_and_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firsthand.ingest.redaction.MAX_VALUES", 100)
    few, many = ({"password": "ab cd ef gh ij", "x": [0] * count} for count in (98, 99))
    assert "gh ij" not in kept({"b": json.dumps(few)})
    decoded: list[str] = []
    monkeypatch.setattr("firsthand.ingest.redaction.json.loads", lambda text: decoded.append(text) or {})
    kept({"b": json.dumps(many)})
    assert decoded == []
    kept({"b": json.dumps(few)})
    assert len(decoded) == 1
    assert SECRET not in kept({"b": json.dumps(many | {"api_key": SECRET})})


@pytest.mark.parametrize(
    "name", [*SPELLINGS, "session__token", "session:token", "Session - Token", "id\u00a0token", "pass\nword"]
)
def test_the_quick_look_finds_a_secret_name_alone_wherever_it_stands(name: str) -> None:
    held = {name: SECRET}
    for attributes, events, links in (
        ({"a": {"b": held}}, [], []),
        ({"a": [1, [held]]}, [], []),
        ({"a": [{"name": name, "value": SECRET}]}, [], []),
        ({}, [{"name": "e", "at_ns": 1, "attributes": held}], []),
        ({}, [], [{"trace_id": "1", "span_id": "2", "attributes": {"a": held}}]),
    ):
        span = IncomingSpan("1" * 32, "2" * 16, "", "n", 1, 2, attributes, events, links)
        said = Redactor().redact(span).decode()
        assert SECRET not in said and PUT in said and span.redactions == 1


@pytest.mark.parametrize("name", ["pass_word", "Pass-Phrase", "pass phrase", "db.pass_word"])
def test_a_parted_name_of_a_password_in_json_within_a_text_is_found(name: str) -> None:
    assert SECRET not in kept({"body": json.dumps({name: SECRET})})


def test_a_span_nested_deeper_than_is_searched_is_kept_where_it_has_no_secret() -> None:
    deep: Any = "bottom"
    for _ in range(200):
        deep = {"a": [deep]}
    assert "bottom" in kept({"deep": deep})
