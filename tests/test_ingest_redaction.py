"""Redaction of spans: each part of a span, and each rule with what it leaves alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.redaction import FAILED, PUT, Redactor

KEY = "sk-" + "a" * 20


def redacted(redactor: Redactor | None = None, **changes: Any) -> IncomingSpan:
    span = IncomingSpan("1" * 32, "2" * 16, "", "n", 1, 2)
    for name, value in changes.items():
        setattr(span, name, value)
    (redactor or Redactor()).redact(span)
    return span


def test_each_part_of_a_span_is_redacted_and_each_replacement_is_counted() -> None:
    span = redacted(
        name=f"call {KEY}", scope=f"s {KEY}", error=f"password={KEY[3:]} and Bearer {'t' * 16}",
        attributes={
            "llm.api_key": "short", "x[Authorization]": ["a"], "token_count.secret": 5, "password": "", "cookie": None,
            "deep": [{"Client-Secret": {"x": 1}, "ok": [KEY, 1, None]}], KEY: "v", "kept": "plain text",
        },
        events=[{"name": f"e {KEY}", "at_ns": 1, "attributes": {"secret": "s"}}], links=[{"trace_id": KEY}],
    )  # fmt: skip
    assert (span.name, span.scope, span.error) == (f"call {PUT}", f"s {PUT}", f"password={PUT} and {PUT}")
    assert span.attributes == {
        "llm.api_key": PUT, "x[Authorization]": PUT, "token_count.secret": 5, "password": "", "cookie": None,
        "deep": [{"Client-Secret": PUT, "ok": [PUT, 1, None]}], PUT: "v", "kept": "plain text",
    }  # fmt: skip
    assert span.events == [{"name": f"e {PUT}", "at_ns": 1, "attributes": {"secret": PUT}}]
    assert span.links == [{"trace_id": PUT}]
    assert span.redactions == 2 + 2 + 5 + 2 + 1
    assert redacted(name="calm", attributes={"a": 1}).redactions == 0
    among = redacted(attributes={"a": [KEY, json.dumps({"password": "a", "secret": "b"}), KEY]})
    hidden = json.dumps({"password": PUT, "secret": PUT})
    assert (among.attributes, among.redactions) == ({"a": [PUT, hidden, PUT]}, 4)
    assert json.loads(Redactor().redact(IncomingSpan("1", "2", "", "n", 1, 2, {"a": KEY}, kind=3))) == {
        "attributes": {"a": PUT}, "kind": 3,
    }  # fmt: skip


def test_each_rule_takes_its_secret_and_no_more() -> None:
    texts = {
        "a sk-" + "x" * 15: None, f"a {KEY}!": f"a {PUT}!", "pk-lf-" + "1" * 8: PUT, "rk_live_" + "1" * 10: PUT,
        "sk_test_" + "1" * 9: None,
        "AKIA" + "A" * 16: PUT, "AKIA" + "A" * 17: None, "ghs_" + "1" * 20: PUT, "github_pat_" + "1" * 20: PUT,
        "glpat-" + "1" * 16: PUT,
        "xoxb-" + "1" * 10: PUT, "AIza" + "1" * 30: PUT, "hf_" + "1" * 20: PUT, "hf_" + "1" * 19: None,
        "npm_" + "1" * 30: PUT,
        "pypi-" + "1" * 30: PUT, f"eyJ{'a' * 8}.{'b' * 8}.c": PUT, "http://me:word@h/x": f"http://{PUT}@h/x",
        "http://me@h/": None,
        "-----BEGIN RSA PRIVATE KEY-----\nx\n-----END RSA PRIVATE KEY-----y": f"{PUT}y",
        "-----BEGIN PRIVATE KEY-----\nx": PUT,
        'say "api-key": "abcdef", then': f'say "api-key": "{PUT}", then', "api_key=abcde": None,
        "secret : abcdef": f"secret : {PUT}",
        "Authorization: Bearer abcdef": f"Authorization: Bearer {PUT}", "basic " + "a" * 8 + "==": PUT,
        "basic " + "a" * 8: None,
        "monkey=abcdefgh": None, "my password is abcdef": None, "the secretary=abcdef": None,
    }  # fmt: skip
    shown = {text: redacted(attributes={"a": text}).attributes["a"] for text in texts}
    assert shown == {text: text if put is None else put for text, put in texts.items()}
    off = Redactor(defaults=False)
    assert redacted(off, attributes={"password": KEY}).attributes == {"password": KEY}
    own = Redactor([r"\bID-\d+"], defaults=False)
    assert redacted(own, name="ID-1 ID-2", attributes={"ID-3": ["ID-4 x", KEY]}).attributes == {PUT: [f"{PUT} x", KEY]}
    assert own.redact_resource({"host": "ID-5"}) == {"host": PUT}
    for pattern in ("x*", "(?:)"):
        with pytest.raises(ConfigError, match="it matches the empty text, and so everything"):
            Redactor([pattern])
    with pytest.raises(ConfigError, match="redact"):
        Redactor(["("])
    nested: Any = KEY
    for _ in range(66):
        nested = [nested]
    assert redacted(attributes={"a": nested, "b": KEY}).attributes == {"a": FAILED, "b": PUT}
    broken = redacted(name=KEY, error="e", scope="s", events=[5], attributes={"a": 1})
    assert (broken.name, broken.scope, broken.error, broken.attributes) == (FAILED, "", FAILED, {"redacted": FAILED})
    assert (broken.events, broken.links, broken.redactions) == ([], [], 1)


def test_of_a_span_with_a_value_nested_without_end_all_others_are_kept() -> None:
    deep: Any = "end"
    for _ in range(200_000):
        deep = [deep]
    kind = IncomingSpan("1" * 32, "2" * 16, "", f"n {KEY}", 1, 2, {"deep": deep, "a": KEY, "b": "plain"}, error="e")
    body = Redactor().redact(kind)
    assert json.loads(body) == {"attributes": {"deep": FAILED, "a": PUT, "b": "plain"}}
    assert (kind.name, kind.error, kind.redactions) == (f"n {PUT}", "e", 3)
    off = IncomingSpan("1" * 32, "2" * 16, "", KEY, 1, 2, {"deep": {"x": deep}, "a": KEY})
    assert json.loads(Redactor(defaults=False).redact(off)) == {"attributes": {"deep": FAILED, "a": KEY}}
    assert (off.name, off.redactions) == (KEY, 1)
    event = IncomingSpan("1" * 32, "2" * 16, "", "n", 1, 2, {"a": 1}, [{"name": "e", "attributes": {"deep": deep}}])
    assert json.loads(Redactor().redact(event)) == {
        "attributes": {"a": 1}, "events": [{"name": "e", "attributes": FAILED}],
    }  # fmt: skip


def test_keys_of_common_services_are_known_by_their_beginning() -> None:
    keys = [
        "gsk_" + "a1" * 26, "xai-" + "aB1" * 26, "nvapi-" + "aB1_" * 16, "pplx-" + "aB1" * 16, "tvly-dev-" + "abcdEF12" * 4,
        "r8_" + "aB12" * 9 + "a", "lsv2_pt_" + "a1" * 16 + "_" + "b2" * 5, "lsv2_sk_" + "a1" * 16 + "_" + "b2" * 5,
        "SG." + "a" * 22 + "." + "b" * 43, "dckr_pat_" + "aB1" * 9, "dckr_oat_" + "aB1" * 9, "dop_v1_" + "a1" * 32,
        "doo_v1_" + "a1" * 32, "AGE-SECRET-KEY-1" + "Q" * 58,
    ]  # fmt: skip
    for key in keys:
        assert redacted(attributes={"a": f"it is {key}, yes"}).attributes == {"a": f"it is {PUT}, yes"}, key
        assert redacted(attributes={"a": f"x{key} {key[:14]}"}).attributes == {"a": f"x{key} {key[:14]}"}, key
    for kind in ("services", "triggers", "workflows"):
        hook = f"https://hooks.slack.com/{kind}"
        assert redacted(attributes={"a": f"{hook}/T0/B0/XX done"}).attributes == {"a": f"{hook}{PUT} done"}
        assert redacted(attributes={"a": f"{hook}/T0/B0"}).attributes == {"a": f"{hook}/T0/B0"}
    escaped = r"https:\/\/hooks.slack.com\/services"
    assert redacted(attributes={"a": f"see {escaped}\\/T0\\/B0\\/XX"}).attributes == {"a": f"see {escaped}{PUT}"}
    calm = "r8_model, SG.a.b, do_v1_x, xai-grok, gsk_short, pplx-70b-online, tvly-search"
    assert redacted(attributes={"a": calm}).attributes == {"a": calm}
