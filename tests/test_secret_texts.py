"""Secrets of known names in texts, in the shapes in which programs write them, and the ordinary texts that stay whole."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.redaction import MAX_VALUES_OF_REQUEST, DecodedValues, Redactor
from firsthand.ingest.secret_texts import PUT, without_named_values
from firsthand.ingest.trace_store import SpanPreparer
from firsthand.system.secret_names import SECRET_NAMES

SECRET = "hunter2hunter2"


def kept(value: Any, name: str = "a") -> Any:
    span = IncomingSpan("1" * 32, "2" * 16, "", "n", 1, 2, {name: value})
    return json.loads(Redactor().redact(span))["attributes"][name]


@pytest.mark.parametrize("name", [each for each in SECRET_NAMES if "cookie" not in each])
def test_what_an_attribute_of_a_secret_name_loses_a_text_loses_too(name: str) -> None:
    assert kept("x", name) == PUT
    for spelled in (
        name,
        name.upper(),
        name.replace("_", "-"),
        name.title().replace("_", ""),
        f"my_{name}",
        f"{name}s",
    ):
        assert kept(f"run {spelled}={SECRET} now") == f"run {spelled}={PUT} now", spelled
        assert kept(f"{{'{spelled}': '{SECRET}'}}") == f"{{'{spelled}': '{PUT}'}}", spelled


@pytest.mark.parametrize(
    "text",
    [
        "{'dbPassword': '%s'}", "https://x.example/?userPassword=%s", "Server=db;Uid=sa;Pwd=%s;", "password => '%s'",
        "password := %s", "--db-password %s", "-password '%s'", "<password>%s</password>",
        "<Db:Password a='1'>%s</Db:Password>",
        "<password><![CDATA[%s]]></password>", "client_secret%%3D%s&x=1", "%%22password%%22%%3A%%22%s%%22",
        "passwords: ['%s']",
        "GET /\r\nCookie: sid=%s\r\n", "{'Set-Cookie': 'sid=%s; Path=/'}", "[('x-api-key', '%s')]",
        "['curl', 'x-api-key', '%s']",
        "(b'authorization', b'%s')",
        "{'name': 'Authorization', 'value': '%s'}", '<input name="password" value="%s">',
        "&quot;password&quot;: &quot;%s&quot;",
        "os.environ['DB_PASSWORD'] = '%s'", "password: str = '%s'", "Authorization: Digest username=\"a\", response=\"%s\"",
        "password2=%s", "password_prod=%s", "Bearer\t%s12345678", 'a {\\"password\\": \\"%s\\"}', "password: \"\"\"%s\"\"\"",
        "redis://:%s@host", "https://bob:p@%s@host/x", "https://bob:pa/%s@host/x", "postgres:\\/\\/bob:%s@db\\/x",
        "https%%3A%%2F%%2Fbob%%3A%s%%40host",
    ],
)  # fmt: skip
def test_a_secret_is_found_whatever_parts_it_from_its_name(text: str) -> None:
    said = kept(text % SECRET)
    assert SECRET not in said and PUT in said


@pytest.mark.parametrize(
    "secret", ["Tr(0ub4dor&3", "(xyzzyxyzzy", "[abc]def", "a:b:c:d:e", "ab;cd;ef", "ab,cd,ef", 'ab"cd"ef', "«äöü»ß"]
)
def test_a_value_is_replaced_whole_whatever_signs_it_has(secret: str) -> None:
    assert kept(f"password={secret} end") == f"password={PUT} end"


def test_a_value_in_base64_is_not_taken_for_a_type() -> None:
    for value in ("aGVsbG8gd29ybGQ=", "first_part=second", "aGVsbG8gd29ybA=="):
        assert kept(f"password: {value} and more") == f"password: {PUT} and more"
    assert kept('password: str | None = "a b"') == f'password: str | None = "{PUT}"'


@pytest.mark.parametrize("open", ['"', "'", "`", '\\"', '\\\\\\"'])
def test_a_quoted_value_is_replaced_up_to_its_quote(open: str) -> None:
    assert kept(f"x password: {open}correct horse, battery{open}, user: bob") == (
        f"x password: {open}{PUT}{open}, user: bob"
    )
    assert kept(f"x password: {open}a\\{open}b c{open} d") == f"x password: {open}{PUT}{open} d"
    assert kept(f"x password: {open}never closed; a b") == f"x password: {open}{PUT}"


def test_lines_of_json_are_read_as_json() -> None:
    assert kept('data: {"password": "a b c d"}\n\ndata: [DONE]') == f'data: {{"password": "{PUT}"}}\n\ndata: [DONE]'
    assert kept('{"a":1}\n{"x":{"password":"(x\\" y"}}\n') == f'{{"a":1}}\n{{"x": {{"password": "{PUT}"}}}}\n'


def test_letters_and_slashes_that_json_escapes_hide_nothing() -> None:
    assert SECRET not in kept(json.dumps({"url": f"postgres://bob:{SECRET}@db/x"}).replace("/", "\\/"))
    escaped = "".join(f"\\u{ord(each):04x}" for each in "sk-" + "a" * 20)
    assert json.loads(kept(f'{{"k": "{escaped}"}}')) == {"k": PUT}
    assert kept(f'["\\u0070assword={SECRET}"]') == f'["password={PUT}"]'


def test_headers_as_pairs_and_as_a_flat_list_are_replaced() -> None:
    for headers in ([["x-api-key", SECRET]], ["accept", "*/*", "x-api-key", SECRET]):
        for value in (headers, json.dumps({"headers": headers})):
            said = json.dumps(kept(value))
            assert SECRET not in said and PUT in said and "x-api-key" in said
    assert kept(["username", "password", "email"]) == ["username", "password", "email"]
    assert kept(["password", "remember_me"]) == ["password", "remember_me"]


@pytest.mark.parametrize(
    "text",
    [
        "PWD=/home/ada/project", "OLDPWD=/tmp/abcdef",
        "cd; PWD=/tmp/abcdef", "the cookie: chocolate chip", "my password is abcdef", "secretary=abcdefgh",
        "http://localhost:3000/@vite/client", "https://h:443/@user", "fields = ['username', 'password', 'email']",
        '{"required": ["password", "email"], "note": "the secret"}', "<label for=\"password\">Password</label>",
        "password_policy=required_always", "max_tokens: 500000", "first_pass=completed", "if (!password) return null",
        "monkey=abcdefgh", '{"keys": "secret", "b": "c:\\\\d\\/e"}', "std::password::hash", "first token: abcdefgh",
        "mail a@b.example, see http://x.example", "secret: [redacted]",
    ],
)  # fmt: skip
def test_ordinary_texts_stay_as_they_are(text: str) -> None:
    assert kept(text) == text


def test_letters_that_become_two_in_lower_case_shift_nothing() -> None:
    assert without_named_values(f"İİİ password={SECRET} İ") == (f"İİİ password={PUT} İ", 1)
    assert without_named_values("api_\u212aey=abcdefgh") == (f"api_\u212aey={PUT}", 1)


def test_texts_beyond_the_values_of_a_request_are_searched_and_not_decoded() -> None:
    redactor, budget = Redactor(), DecodedValues()
    budget.left = 4
    texts = [json.dumps({"password": "a b", "x": "sk\\u002d" + "a" * 20}) for _ in range(3)]
    said = [
        json.loads(redactor.redact(IncomingSpan("1" * 32, "2" * 16, "", "n", 1, 2, {"a": each}), budget))["attributes"][
            "a"
        ]
        for each in texts
    ]
    assert budget.left == 0 and all(json.loads(each)["password"] == PUT for each in said)
    assert not any("a b" in each for each in said)


def test_the_spans_and_programs_of_one_request_share_its_values() -> None:
    body = json.dumps({"password": "a b"})
    span = IncomingSpan("1" * 32, "2" * 16, "", "n", 1, 2, {"a": body}, resource={"r": body})
    seen: list[DecodedValues | None] = []

    class Watched(Redactor):
        def redact(self, span: IncomingSpan, budget: DecodedValues | None = None) -> bytes:
            seen.append(budget)
            return super().redact(span, budget)

    redactor = Watched()
    SpanPreparer(redactor).prepared([span, replace(span, span_id="3" * 16, attributes={"a": body})])
    SpanPreparer(redactor).prepared([replace(span, attributes={"a": body})])
    first, second, other = seen
    assert first is second and first is not other and first is not None and other is not None
    assert first.left == MAX_VALUES_OF_REQUEST - 3 and other.left == MAX_VALUES_OF_REQUEST - 2
