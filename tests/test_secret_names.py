"""Tests of names whose values are secrets in received traces, as programs write them, and of JSON in a text."""

import json
from typing import Any

import pytest

from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.redaction import PUT, Redactor

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
        "token",
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


def test_a_text_of_many_json_values_is_searched_and_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firsthand.ingest.redaction.MAX_VALUES", 100)
    few, many = ({"password": "ab cd ef gh ij", "x": [0] * count} for count in (96, 98))
    assert "gh ij" not in kept({"b": json.dumps(few)})
    decoded: list[str] = []
    monkeypatch.setattr("firsthand.ingest.redaction.json.loads", lambda text: decoded.append(text) or {})
    kept({"b": json.dumps(many)})
    assert decoded == []
    kept({"b": json.dumps(few)})
    assert len(decoded) == 1
    assert SECRET not in kept({"b": json.dumps(many | {"api_key": SECRET})})
