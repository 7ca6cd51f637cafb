"""Spans of other programs: what is received, refused, redacted, kept, and how broken traces are arranged."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import random
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import otlp_requests as otlp
from firsthand.errors import ConfigError, DataError, StoreError
from firsthand.ingest import otlp_door, redaction, span_writer
from firsthand.ingest.as_trace import trace_of
from firsthand.ingest.incoming_span import IncomingSpan, StoredSpan
from firsthand.ingest.otlp_json import decode_json
from firsthand.ingest.otlp_protobuf import decode_protobuf
from firsthand.ingest.redaction import FAILED, PUT, Redactor
from firsthand.ingest.span_tree import BACKWARDS, LOOP, NO_PARENT, UNFINISHED, arranged
from firsthand.ingest.span_writer import SpanWriter, WriteOutcome, inflated
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from firsthand.ingest.translate import content_of, dialects_of, facts_of
from firsthand.message import ToolCall, ToolResult
from firsthand.studio.access import Access
from firsthand.studio.incoming_rows import incoming_spans_json
from firsthand.studio.studio_app import create_app

PORT = 8123
JSON = {"content-type": "application/json"}
PROTOBUF = {"content-type": "application/x-protobuf"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    made = TraceStore(tmp_path, create=True)
    yield made
    made.close()


@pytest.fixture
def writer(store: TraceStore) -> Iterator[SpanWriter]:
    made = SpanWriter(store, SpanPreparer(Redactor()))
    yield made
    made.close()


@pytest.fixture
def client(tmp_path: Path, writer: SpanWriter) -> Iterator[TestClient]:
    access = Access()
    access.port = PORT
    with TestClient(create_app(tmp_path, access, writer=writer), base_url=f"http://127.0.0.1:{PORT}") as made:
        yield made


def kept(store: TraceStore, *spans: dict[str, Any], redactor: Redactor | None = None) -> int:
    """Keep spans without a server."""
    decoded, _ = decode_json(otlp.as_json(*spans))
    return store.add(SpanPreparer(redactor or Redactor()).prepared(decoded))


def spans_of(store: TraceStore, trace: int = 1) -> list[StoredSpan]:
    return store.spans(f"{trace:032x}")


def one(**attributes: Any) -> IncomingSpan:
    """A span with these attributes, by their real names."""
    return IncomingSpan("1" * 32, "1" * 16, "", "call", otlp.START, otlp.START + 10, attributes)


# -- received --


def test_protobuf_and_json_give_the_same_spans() -> None:
    held = otlp.span(
        1, 2, 3, "ask", error="bad", events={"exception": {"type": "E"}}, text="ä\u202e", number=-5, share=0.5, yes=True,
        several=["a", 1, {"deep": [True]}],
    )  # fmt: skip
    (from_json,), _ = decode_json(otlp.as_json(held))
    (from_protobuf,), _ = decode_protobuf(otlp.as_protobuf(held))
    assert from_json == from_protobuf
    assert from_json.attributes["several"] == ["a", 1, {"deep": [True]}] and from_json.attributes["number"] == -5
    assert (from_json.parent_id, from_json.error, from_json.scope) == (f"{3:016x}", "bad", "tests")
    assert from_json.events == [{"name": "exception", "at_ns": otlp.START, "attributes": {"type": "E"}}]


@pytest.mark.slow
@pytest.mark.parametrize("path", otlp_door.PATHS)
@pytest.mark.parametrize("coding", ["", "gzip", "deflate"])
def test_a_request_is_answered_when_its_spans_are_in_the_file(
    client: TestClient, tmp_path: Path, path: str, coding: str
) -> None:
    pack = {"": bytes, "gzip": gzip.compress, "deflate": zlib.compress}[coding]
    headers = {"content-encoding": coding} if coding else {}
    for kind, body in ((JSON, otlp.as_json(otlp.span(1, 2))), (PROTOBUF, otlp.as_protobuf(otlp.span(2, 2)))):
        answer = client.post(path, content=pack(body), headers=headers | kind)
        assert answer.status_code == 200 and answer.headers["content-type"] == kind["content-type"]
    with sqlite3.connect(tmp_path / "traces" / "traces.sqlite") as other:  # another connection sees what is committed
        assert other.execute("SELECT count(*) FROM spans").fetchone() == (2,)


def test_spans_without_valid_ids_are_told_as_rejected(client: TestClient) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    spans = (otlp.span(1, 2), otlp.span(0, 2), otlp.span(1, 0))
    answer = client.post("/v1/traces", content=otlp.as_json(*spans), headers=JSON).json()
    assert answer["partialSuccess"]["rejectedSpans"] == "2"
    raw = client.post("/v1/traces", content=otlp.as_protobuf(*spans), headers=PROTOBUF).content
    assert ExportTraceServiceResponse.FromString(raw).partial_success.rejected_spans == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": f"evil.example:{PORT}"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": f"http://127.0.0.1:{PORT}"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-encoding": "br"}, 415),
        ({"content-encoding": "gzip, gzip"}, 415),
        ({"content-length": "999999999999"}, 413),
    ],
)
def test_what_is_no_request_of_a_program_is_refused_before_its_body(
    client: TestClient, store: TraceStore, headers: dict[str, str], status: int
) -> None:
    answer = client.post("/v1/traces", content=otlp.as_json(otlp.span(1, 2)), headers=JSON | headers)
    assert answer.status_code == status and answer.json()["message"]
    assert store.database.read("SELECT count(*) FROM spans") == [(0,)]


def test_spans_are_posted_and_read_nowhere_here(client: TestClient) -> None:
    assert client.get("/v1/traces").status_code == 405
    assert client.options("/v1/traces").headers.get("access-control-allow-origin") is None
    assert client.get("/traces").status_code == 401, "pages need a session"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Bearer right"}, 200),
        ({"authorization": "Basic " + base64.b64encode(b"pk-lf-x:right").decode()}, 200),
        ({"authorization": "Basic " + base64.b64encode(b"right:wrong").decode()}, 401),
        ({"authorization": "Basic !!"}, 401),
        ({"x-api-key": "right"}, 200),
    ],
)
def test_a_key_is_asked_for_where_there_is_one(
    tmp_path: Path, writer: SpanWriter, headers: dict[str, str], status: int
) -> None:
    access = Access()
    access.port = PORT
    with TestClient(
        create_app(tmp_path, access, writer=writer, ingest_key="right"), base_url=f"http://127.0.0.1:{PORT}"
    ) as client:
        assert client.post("/v1/traces", content=otlp.as_json(), headers=JSON | headers).status_code == status


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"resourceSpans": 1}', b"\xff", b"[" * 100_000, b'{"a":' * 50_000, b"1" * 10_000],
)
def test_a_body_that_is_no_request_is_one_sentence(client: TestClient, body: bytes) -> None:
    answer = client.post("/v1/traces", content=body, headers=JSON)
    assert (
        (answer.status_code == 400 and "was expected" in answer.json()["message"])
        or "JSON" in answer.text
        or ("UTF-8" in answer.text or "deep" in answer.text)
    )
    if body:
        assert client.post("/v1/traces", content=b"\xff" + body, headers=PROTOBUF).status_code == 400


def test_odd_json_is_read_as_far_as_it_means_something() -> None:
    odd: dict[str, Any] = otlp.span(1, 2)
    odd |= {"attributes": [None, {"key": 5, "value": None}, {"key": "a"}, {"key": "a", "value": {"intValue": "x"}}]}
    odd |= {
        "events": {},
        "links": [1],
        "status": [],
        "startTimeUnixNano": -5,
        "endTimeUnixNano": 1 << 70,
        "kind": "SERVER",
    }
    (span,), rejected = decode_json(json.dumps(otlp.request(odd, None, [])).encode())  # type: ignore[arg-type]
    assert rejected == 2 and span.attributes == {"5": None, "a": None, "a#2": "x"}
    assert span.start_ns == 0 and span.end_ns == (1 << 64) - 1


def test_a_bomb_is_refused_at_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_writer, "MAX_REQUEST_BYTES", 1000)
    assert inflated(gzip.compress(bytes(1000)), "gzip") == bytes(1000)
    assert inflated(gzip.compress(b"a") + gzip.compress(b"b"), "gzip") == b"ab"
    for bomb in (gzip.compress(bytes(1001)), gzip.compress(bytes(600)) * 2):
        with pytest.raises(DataError, match="larger"):
            inflated(bomb, "gzip")
    with pytest.raises(DataError, match="cut short"):
        inflated(gzip.compress(bytes(1000))[:-9], "gzip")
    with pytest.raises(DataError, match="no gzip"):
        inflated(b"plain", "gzip")


def test_a_body_that_arrives_in_pieces_is_bounded_too(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_door, "MAX_REQUEST_BYTES", 1000)
    assert client.post("/v1/traces", content=iter([bytes(600), bytes(600)]), headers=JSON).status_code == 413


def test_a_full_queue_and_a_store_that_fails_are_answers_to_retry(
    client: TestClient, store: TraceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> int:
        raise StoreError("the disk is full")

    body = otlp.as_json(otlp.span(1, 2))
    with monkeypatch.context() as patched:
        patched.setattr(store, "add", full)
        answer = client.post("/v1/traces", content=body, headers=JSON)
        assert answer.status_code == 503 and answer.headers["retry-after"] and "disk" in answer.json()["message"]
    with monkeypatch.context() as patched:
        patched.setattr(span_writer, "MAX_WAITING", 0)
        assert client.post("/v1/traces", content=body, headers=JSON).status_code == 503
    assert client.post("/v1/traces", content=body, headers=JSON).status_code == 200


def test_one_request_that_cannot_be_kept_does_not_spoil_others(
    store: TraceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes: dict[str, WriteOutcome] = {}
    ended = threading.Event()
    held = threading.Event()
    add = store.add

    def picky(spans: Any) -> int:
        if any(each.span.name == "poison" for each in spans):
            raise ValueError("poison")
        return add(spans)

    monkeypatch.setattr(store, "add", picky)
    writer = SpanWriter(store, SpanPreparer(Redactor()))
    first = decode_json(otlp.as_json(otlp.span(9, 9)))

    def slow() -> Any:
        held.wait(10)  # until all others wait
        return first

    writer.submit_spans(slow, 1, lambda outcome: None)
    for number, name in enumerate(("good", "poison", "fine"), 1):

        def done(outcome: WriteOutcome, name: str = name) -> None:
            outcomes[name] = outcome
            if len(outcomes) == 3:
                ended.set()

        writer.submit(otlp.as_json(otlp.span(number, number, name=name)), "json", "", done)
    held.set()
    assert ended.wait(10)
    writer.close()
    assert outcomes["good"].num_kept == outcomes["fine"].num_kept == 1
    assert outcomes["poison"].problem and not outcomes["poison"].retry
    assert not writer.submit(b"", "json", "", lambda outcome: None), "a closed writer takes nothing"


# -- kept --


def test_a_span_is_kept_once_however_often_it_is_sent(store: TraceStore) -> None:
    a, b = otlp.span(1, 2, llm__token_count__prompt=5, openinference__span__kind="LLM"), otlp.span(1, 3, 2)
    assert kept(store, a, b) == 2
    assert kept(store, b, a, otlp.span(1, 4, 2), b) == 1
    summary = store.summary(f"{1:032x}")
    assert (summary.num_spans, summary.prompt_tokens) == (3, 5)


def test_another_span_under_a_known_id_is_kept_beside_the_first(store: TraceStore) -> None:
    kept(store, otlp.span(1, 2, name="first"))
    assert kept(store, otlp.span(1, 2, name="second"), otlp.span(1, 2, name="third")) == 2
    assert [(each.span.name, each.copy) for each in spans_of(store)] == [("first", 0), ("second", 1), ("third", 2)]
    assert store.summary(f"{1:032x}").num_spans == 3


def test_a_span_that_has_ended_takes_the_place_of_its_beginning(store: TraceStore) -> None:
    begun = otlp.span(1, 2, name="job") | {"endTimeUnixNano": "0"}
    kept(store, begun, otlp.span(1, 3, 2, error="no"))
    assert arranged(spans_of(store))[0].remarks == (UNFINISHED,)
    kept(store, otlp.span(1, 2, name="job", took_s=5.0))
    (job, _), summary = spans_of(store)[::-1], store.summary(f"{1:032x}")
    assert job.span.end_ns - job.span.start_ns == 5 * otlp.SECOND
    assert (summary.num_spans, summary.num_errors, summary.duration_s) == (2, 1, 5.0)


def test_the_summary_is_the_same_in_every_order(tmp_path: Path) -> None:
    spans = [
        otlp.span(
            1, 1, name="root", took_s=9, openinference__span__kind="CHAIN", input__value="in", output__value="out"
        ),
        otlp.span(
            1, 2, 1, "ask", start_s=1, openinference__span__kind="LLM", input__value="x", llm__token_count__prompt=7
        ),
        otlp.span(1, 3, 1, "use", start_s=2, error="broke", session__id="s", user__id="u"),
    ]
    found = set()
    for number, order in enumerate(([0, 1, 2], [2, 1, 0], [1, 2, 0])):
        made = TraceStore(tmp_path / str(number), create=True)
        for index in order:
            kept(made, spans[index])
        summary = dataclasses.replace(made.summary(f"{1:032x}"), changed=0, arrived_s=0.0)
        found.add(summary.row())
        made.close()
    assert len(found) == 1
    assert (summary.name, summary.input, summary.output, summary.session, summary.user) == (
        "root",
        "in",
        "out",
        "s",
        "u",
    )
    assert (summary.num_spans, summary.num_errors, summary.prompt_tokens, summary.duration_s) == (3, 1, 7, 9.0)


def test_a_trace_whose_root_has_not_come_says_so(store: TraceStore) -> None:
    kept(store, otlp.span(1, 3, 2, name="late child"))
    assert not store.summary(f"{1:032x}").has_root and store.summary(f"{1:032x}").name == "late child"
    kept(store, otlp.span(1, 2, name="root"))
    assert store.summary(f"{1:032x}").has_root and store.summary(f"{1:032x}").name == "root"


def test_large_and_odd_values_come_back_as_they_came(store: TraceStore) -> None:
    long = "x\u200b\u202e<b>" * 200_000
    kept(store, otlp.span(1, 2, text=long, none=None, lone="\ud800", big=(1 << 63) - 1))
    held = spans_of(store)[0].span
    assert (
        held.attributes["text"] == long
        and held.attributes["lone"] == "\ud800"
        and held.attributes["big"] == (1 << 63) - 1
    )
    late = otlp.span(2, 2) | {"startTimeUnixNano": str((1 << 64) - 2), "endTimeUnixNano": str((1 << 64) - 1)}
    kept(store, late)
    assert spans_of(store, 2)[0].span.end_ns == (1 << 64) - 1


# -- arranged --


def placed(*spans: dict[str, Any]) -> list[tuple[str, int, tuple[str, ...]]]:
    decoded, _ = decode_json(otlp.as_json(*spans))
    stored = [StoredSpan(number, each, "span") for number, each in enumerate(decoded)]
    return [(each.stored.span.name, each.depth, each.remarks) for each in arranged(stored)]


def test_children_lie_under_their_parents_by_their_start() -> None:
    found = placed(
        otlp.span(1, 3, 2, "b", start_s=2), otlp.span(1, 4, 3, "c", start_s=3), otlp.span(1, 5, 2, "a", start_s=1),
        otlp.span(1, 2, name="root"),
    )  # fmt: skip
    assert found == [("root", 0, ()), ("a", 1, ()), ("b", 1, ()), ("c", 2, ())]


def test_missing_parents_loops_and_clocks_are_shown_with_a_remark() -> None:
    found = placed(
        otlp.span(1, 2, 9, "orphan"), otlp.span(1, 3, 4, "x", start_s=1), otlp.span(1, 4, 5, "y", start_s=0.5),
        otlp.span(1, 5, 3, "z", start_s=2), otlp.span(1, 6, 6, "self", start_s=3),
        otlp.span(1, 7, 6, "back", took_s=-1.0, start_s=4), otlp.span(1, 8, 4, "under"),
    )  # fmt: skip
    assert found == [
        ("orphan", 0, (NO_PARENT,)), ("y", 0, (LOOP,)), ("under", 1, ()), ("x", 1, ()), ("z", 2, ()), ("self", 0, (LOOP,)),
        ("back", 1, (BACKWARDS,)),
    ]  # fmt: skip


@pytest.mark.slow
def test_thirty_three_thousand_siblings_and_a_chain_of_twenty_thousand_are_whole() -> None:
    siblings = [StoredSpan(0, IncomingSpan("1" * 32, "r", "", "root", 1, 2), "chain")]
    siblings += [StoredSpan(n, IncomingSpan("1" * 32, str(n), "r", "s", n, n), "tool") for n in range(1, 33_001)]
    columns = incoming_spans_json("wide", siblings)["columns"]
    assert len(columns["label"]) == 33_002 and columns["parent"].count(1) == 33_000 and columns["start"][2] == 0
    chain = [StoredSpan(n, IncomingSpan("1" * 32, str(n), str(n - 1), "s", 1, 2), "span") for n in range(20_000)]
    assert arranged(chain[::-1])[-1].depth == 19_999


def test_a_failure_shows_at_everything_above_it() -> None:
    decoded, _ = decode_json(
        otlp.as_json(otlp.span(1, 1), otlp.span(1, 2, 1), otlp.span(1, 3, 2, error=""), otlp.span(1, 4, 1))
    )
    columns = incoming_spans_json("t", [StoredSpan(n, each, "span") for n, each in enumerate(decoded)])["columns"]
    by_ref = dict(zip(columns["ref"], columns["trouble"], strict=True))
    assert by_ref == {"": 1, "span:0": 1, "span:1": 1, "span:2": 1, "span:3": 0}


# -- redacted --

SECRETS = {
    "openai": "sk-proj-abcdefghijklmnop0123",
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "github": "ghp_" + "a1" * 15,
    "slack": "xoxb-123456789012-abcdef",
    "google": "AIza" + "x" * 35,
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "pem": "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIE\n-----END RSA PRIVATE KEY-----",
    "cut pem": "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg",
    "hf": "hf_" + "q" * 30,
    "url": "postgres://admin:hunter2@db/x",
    "named": '{"password": "hunter22"}',
    "escaped": '"{\\"api_key\\": \\"hunter22\\"}"',
    "header": "Authorization: Bearer abcdef123456",
    "basic": "Basic dXNlcjpodW50ZXIyMg==",
}  # fmt: skip


@pytest.mark.parametrize("kind", SECRETS)
def test_secrets_are_replaced_in_every_place_before_disk(store: TraceStore, tmp_path: Path, kind: str) -> None:
    secret = SECRETS[kind]
    text = f"before {secret} after"
    span = otlp.span(1, 2, name=text, error=text, events={text: {"note": text}}, prompt=text, several=[{"deep": text}])
    kept(store, span)
    store.database.read("PRAGMA wal_checkpoint(TRUNCATE)")
    raw = (tmp_path / "traces" / "traces.sqlite").read_bytes()
    for part in ("hunter2", "MIIE", secret[-9:] if kind not in ("url", "pem", "named", "escaped") else "hunter2"):
        assert part.encode() not in raw
    held = spans_of(store)[0].span
    assert PUT in held.attributes["prompt"] and held.attributes["prompt"].startswith("before") and held.redactions >= 5
    assert store.summary(f"{1:032x}").redactions == held.redactions


@pytest.mark.parametrize(
    "words, rare, found",
    [
        (redaction.HINTS, "JA-_x", lambda text: redaction._hint_in_bytes(text.encode())),
        (redaction._NAMED_WORDS, "zwkb", lambda text: redaction._named_in_bytes(text.encode())),
        (redaction._NAMED_WORDS, "zwkb", redaction._has_named),
    ],
)
def test_one_search_finds_exactly_the_texts_that_hold_one_of_many_words(
    words: tuple[str, ...], rare: str, found: Callable[[str], bool]
) -> None:
    draws = random.Random(3)
    texts = [*words, *(f"{rare}{word}{rare}" for word in words), ""]
    for _ in range(4000):
        word = draws.choice(words)
        place = draws.randrange(len(word))
        cut = draws.choice((word[:place], word[place:], word[:place] + draws.choice(rare) + word[place + 1 :], word))
        texts.append(draws.choice(("", rare, "x")) + cut + draws.choice(("", rare, word[:place])))
    wrong = [text for text in texts if found(text) != any(word in text for word in words)]
    assert wrong == [] and 1000 < sum(map(found, texts)) < len(texts) - 1000


def test_a_body_has_the_same_bytes_with_and_without_orjson(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("orjson")
    odd: list[Any] = [
        '"\\/\b\f\n\r\t\x00\x1b\x7f\x85\u2028é漢🙂',
        True,
        0,
        -1,
        2**63,
        2**70,
        1e16,
        float("nan"),
        "\ud800",
        None,
        [1.5],
        {"a": [None]},
    ]
    spans = [
        IncomingSpan("1" * 32, "2" * 16, "", "n", 1, 2, {"k": value, "é": "t"}, scope="s", kind=3) for value in odd
    ]
    fast = [redaction._dumps(span) for span in spans]
    monkeypatch.setattr(redaction, "_dumps_fast", None)
    assert fast == [redaction._dumps(span) for span in spans] and None not in fast


@pytest.mark.parametrize(
    "name",
    [
        "http.request.header.authorization",
        "db.password",
        "OPENAI_API_KEY",
        "x-api-key",
        "client_secret",
        "Set-Cookie",
        "a[password]",
    ],
)
def test_values_of_secret_names_are_replaced(name: str) -> None:
    span = one(**{name: "plain words", "kept": "plain words"}, nested={name: ["x"], "fine": 1})
    Redactor().redact(span)
    assert span.attributes == {name: PUT, "kept": "plain words", "nested": {name: PUT, "fine": 1}}


@pytest.mark.parametrize(
    "text",
    [
        "the basic understanding of tokens", "llm.token_count.prompt 12", "bearer authentication", "sk-short", "my secret",
        "https://example.org/a@b?c=d", "eyJust words", "AKIAlower", "max_tokens: 500", "2026-11-27T00:00:00",
    ],
)  # fmt: skip
def test_ordinary_text_is_kept(text: str) -> None:
    span = one(prompt=text, **{"gen_ai.usage.input_tokens": 12, "llm.token_count.prompt": 5, "max_tokens": 7})
    before = json.dumps(span.attributes)
    assert json.loads(Redactor().redact(span))["attributes"] == span.attributes
    assert json.dumps(span.attributes) == before and span.redactions == 0


def test_own_patterns_apply_to_names_values_and_resources() -> None:
    redactor = Redactor([r"ACME-\d+"])
    span = one(**{"ACME-1": "x ACME-22 y", "n": ["ACME-3"]})
    redactor.redact(span)
    assert span.attributes == {PUT: f"x {PUT} y", "n": [PUT]} and span.redactions == 3
    assert redactor.redact_resource({"host": "ACME-4", "api_key": "z"}) == {"host": PUT, "api_key": PUT}
    for wrong in ("(", "a*", ""):
        with pytest.raises(ConfigError):
            Redactor([wrong])


def test_redaction_that_fails_keeps_nothing_of_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    redactor = Redactor(["ACME"])

    class Broken:
        def subn(self, put: str, text: str) -> tuple[str, int]:
            if "trouble" in text:
                raise RecursionError
            return text, 0

    redactor._own = [Broken()]  # type: ignore[list-item]
    span = one(a="trouble and words", b="fine", c={"deep": "trouble"})
    body = redactor.redact(span)
    assert span.attributes == {"a": FAILED, "b": "fine", "c": {"deep": FAILED}} and b"trouble" not in body
    monkeypatch.setattr(redactor, "_may_hold_secrets", lambda *args: 1 / 0)
    span = one(a="words")
    assert b"words" not in redactor.redact(span) and span.attributes == {"redacted": FAILED} and span.name == FAILED


def test_a_value_nested_too_deep_to_be_gone_through_is_not_kept() -> None:
    deep: object = SECRETS["openai"]
    for _ in range(80):
        deep = [deep]
    span = one(deep=deep, fine="words")
    assert SECRETS["openai"].encode() not in Redactor().redact(span)
    assert span.attributes == {"deep": FAILED, "fine": "words"} and span.redactions == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit", ["://", "-----BEGIN PRIVATE KEY-----", "sk-", "password=", "eyJ", "a://b:", "bearer ", "secret:\\", "x"]
)
def test_long_texts_made_to_slow_the_rules_down_end(unit: str) -> None:
    span = one(prompt=unit * (400_000 // len(unit)) + " AKIAIOSFODNN7EXAMPLE")  # a square of this would be minutes
    Redactor().redact(span)
    assert "AKIA" not in span.attributes["prompt"]


# -- read --

CHAT = [{"role": "user", "parts": [{"type": "text", "content": "hi"}]}]
CALL = {"type": "tool_call", "id": "c1", "name": "w", "arguments": {"q": 1}}
SAID = [{"role": "assistant", "parts": [CALL], "finish_reason": "stop"}]
OPENAI_CALL = {"id": "c1", "type": "function", "function": {"name": "w", "arguments": '{"q": 1}'}}
LANGFUSE = "langfuse.observation."
SPANS: dict[str, dict[str, Any]] = {
    "GenAI": {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "m",
        "gen_ai.response.model": "m-1", "gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 4,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "gen_ai.conversation.id": "s", "user.id": "u", "gen_ai.input.messages": json.dumps(CHAT),
        "gen_ai.output.messages": json.dumps(SAID), "gen_ai.usage.cost": 0.5,
    },
    "OpenInference": {
        "openinference.span.kind": "LLM", "llm.model_name": "m-1", "llm.token_count.prompt": 10,
        "llm.token_count.completion": 4, "llm.token_count.prompt_details.cache_read": 3, "llm.cost.total": 0.5,
        "session.id": "s", "user.id": "u",
        "llm.input_messages.0.message.role": "user", "llm.input_messages.0.message.contents.0.message_content.text": "hi",
        "llm.input_messages.0.message.contents.0.message_content.type": "text",
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.tool_calls.0.tool_call.id": "c1",
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "w",
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments": '{"q": 1}',
    },
    "OpenLLMetry": {
        "llm.request.type": "chat", "gen_ai.response.model": "m-1", "gen_ai.usage.prompt_tokens": 10,
        "gen_ai.usage.completion_tokens": 4, "gen_ai.usage.cache_read_input_tokens": 3, "gen_ai.usage.cost": 0.5,
        "gen_ai.system": "openai", "traceloop.association.properties.session_id": "s",
        "traceloop.association.properties.user_id": "u", "gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": "hi",
        "gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.tool_calls.0.name": "w",
        "gen_ai.completion.0.tool_calls.0.id": "c1", "gen_ai.completion.0.tool_calls.0.arguments": '{"q": 1}',
    },
    "Langfuse": {
        LANGFUSE + "type": "generation", LANGFUSE + "model.name": "m-1",
        LANGFUSE + "usage_details": '{"input": 7, "output": 4, "input_cached_tokens": 3}',
        LANGFUSE + "cost_details": '{"input": 0.2, "output": 0.3}', "session.id": "s", "langfuse.user.id": "u",
        LANGFUSE + "input": '[{"role": "user", "content": "hi"}]',
        LANGFUSE + "output": json.dumps({"role": "assistant", "content": None, "tool_calls": [OPENAI_CALL]}),
    },
}  # fmt: skip


@pytest.mark.parametrize("dialect", SPANS)
def test_every_dialect_says_the_same(dialect: str) -> None:
    span = one(**SPANS[dialect])
    facts, held = facts_of(span), content_of(span)
    assert dialect in dialects_of(span)
    assert (facts.what, facts.model, facts.session, facts.user) == ("generate", "m-1", "s", "u")
    assert (facts.prompt_tokens, facts.completion_tokens, facts.cached_tokens, facts.cost_usd) == (10, 4, 3, 0.5)
    assert [(each.role, each.text) for each in held.asked] == [("user", "hi")]
    assert held.answered[0].role == "assistant" and held.answered[0].tool_calls == (ToolCall("c1", "w", {"q": 1}),)


TOOLS: dict[str, dict[str, Any]] = {
    "GenAI": {
        "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "w", "gen_ai.tool.call.arguments": '{"q": 1}',
        "gen_ai.tool.call.result": "rain",
    },
    "OpenInference": {
        "openinference.span.kind": "TOOL", "tool.name": "w", "input.value": '{"q": 1}', "output.value": "rain",
    },
    "OpenLLMetry": {
        "traceloop.span.kind": "tool", "traceloop.entity.name": "w", "traceloop.entity.input": '{"q": 1}',
        "traceloop.entity.output": "rain",
    },
}  # fmt: skip


@pytest.mark.parametrize("dialect", TOOLS)
def test_tools_of_every_dialect_are_tool_calls(dialect: str) -> None:
    span = one(**TOOLS[dialect])
    facts, held = facts_of(span), content_of(span)
    assert facts.what == "tool" and (held.tool, held.arguments, held.result) == ("w", {"q": 1}, "rain")


def test_messages_of_older_conventions_come_as_events() -> None:
    span = one(**{"gen_ai.system": "openai", "gen_ai.operation.name": "chat"})
    span.events = [
        {"name": "gen_ai.system.message", "at_ns": 0, "attributes": {"content": "be brief"}},
        {"name": "gen_ai.user.message", "at_ns": 0, "attributes": {"content": "hi"}},
        {"name": "gen_ai.tool.message", "at_ns": 0, "attributes": {"content": "42", "id": "c1"}},
        {"name": "gen_ai.choice", "at_ns": 0, "attributes": {"message": '{"role": "assistant", "content": "yo"}'}},
    ]
    held = content_of(span)
    assert [(each.role, each.text) for each in held.asked] == [("system", "be brief"), ("user", "hi"), ("tool", "42")]
    assert [each.text for each in held.answered] == ["yo"]


@pytest.mark.slow
@pytest.mark.parametrize("dialect", SPANS)
@pytest.mark.parametrize(
    "bad", [None, 5, True, [], {}, "", "{", "[" * 5000, '{"role": {}}', [[None]], float("nan"), "\ud800"]
)
def test_attributes_of_any_type_lose_no_span(store: TraceStore, dialect: str, bad: Any) -> None:
    span = one(**dict.fromkeys(SPANS[dialect], bad))
    store.add(SpanPreparer(Redactor()).prepared([span]))
    stored = store.spans("1" * 32)
    assert len(stored) == 1 and len(stored[0].span.attributes) == len(SPANS[dialect])
    trace_of("1" * 32, stored).to_json()
    incoming_spans_json("t", stored)


def test_generations_of_one_conversation_share_its_messages() -> None:
    first = one(**SPANS["OpenInference"])
    second = one(**SPANS["OpenInference"])
    second.span_id, second.start_ns = "2" * 16, first.start_ns + 5
    second.attributes |= {
        "llm.input_messages.1.message.role": "assistant",
        "llm.input_messages.1.message.tool_calls.0.tool_call.id": "c1",
        "llm.input_messages.1.message.tool_calls.0.tool_call.function.name": "w",
        "llm.input_messages.1.message.tool_calls.0.tool_call.function.arguments": '{"q": 1}',
        "llm.input_messages.2.message.role": "tool",
        "llm.input_messages.2.message.content": "rain",
        "llm.input_messages.2.message.tool_call_id": "c1",
        "llm.output_messages.0.message.content": "It rains.",
    }
    del second.attributes["llm.output_messages.0.message.tool_calls.0.tool_call.id"]
    del second.attributes["llm.output_messages.0.message.tool_calls.0.tool_call.function.name"]
    tool = one(**TOOLS["OpenInference"])
    tool.span_id, tool.start_ns = "3" * 16, first.start_ns + 2
    trace = trace_of(
        "t", [StoredSpan(0, second, "generate"), StoredSpan(1, tool, "tool"), StoredSpan(2, first, "generate")]
    )
    assert [node.parent for node in trace.nodes] == [None, 0, 1, 2]
    assert trace.nodes[2].message.parts == (ToolResult("c1", "", "rain"),)
    assert [(call.kind, call.at, call.nodes) for call in trace.calls] == [
        ("generate", 0, (1,)), ("tool", 1, ()), ("generate", 2, (3,)),
    ]  # fmt: skip
    assert trace.answer == "It rains."


def test_a_call_that_a_framework_and_its_sdk_record_is_one_call() -> None:
    outer, between, inner, later = (one(**SPANS["OpenInference"]) for _ in range(4))
    for number, (span, parent) in enumerate(((outer, ""), (between, "0"), (inner, "1"), (later, "")), 0):
        span.span_id, span.parent_id, span.start_ns = str(number), parent, span.start_ns + number
    whats = ("generate", "chain", "generate", "generate")
    stored = [StoredSpan(0, span, what) for span, what in zip((outer, between, inner, later), whats, strict=True)]  # type: ignore[arg-type]
    assert [call.detail["span"] for call in trace_of("t", stored).calls if call.kind == "generate"] == ["0", "3"]


# -- gRPC --


def test_spans_come_over_grpc(store: TraceStore, writer: SpanWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
        ExportTraceServiceResponse,
    )

    from firsthand.ingest.otlp_grpc import serve_grpc

    port, end = serve_grpc(writer, 0, "right")
    try:
        with pytest.raises(ConfigError, match="grpc-port"):
            serve_grpc(writer, port)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            export = channel.unary_unary(
                "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
                request_serializer=ExportTraceServiceRequest.SerializeToString,
                response_deserializer=ExportTraceServiceResponse.FromString,
            )
            request = ExportTraceServiceRequest.FromString(otlp.as_protobuf(otlp.span(1, 2, name="a"), otlp.span(0, 1)))
            with pytest.raises(grpc.RpcError) as refused:
                export(request, metadata=[("authorization", "Bearer wrong")])
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
            answer = export(request, metadata=[("authorization", "Bearer right")], timeout=30)
            assert answer.partial_success.rejected_spans == 1 and [each.span.name for each in spans_of(store)] == ["a"]
            monkeypatch.setattr(span_writer, "MAX_WAITING", 0)
            with pytest.raises(grpc.RpcError) as full:
                export(request, metadata=[("x-api-key", "right")], timeout=30)
            assert full.value.code() == grpc.StatusCode.UNAVAILABLE
    finally:
        end()
