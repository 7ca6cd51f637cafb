"""The toxicity service's wire: its key stays out of errors, refusals for load are asked again, nonsense is one sentence."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from firsthand import catalog
from firsthand.errors import ConfigError, ModelError
from firsthand.scorers.toxicity_api import _reason, toxicity_api
from firsthand.system.bounded_reply import Reply
from firsthand.task import Task
from firsthand.trace import Score, Trace

KEY = "secret-key-123"


class Service(ThreadingHTTPServer):
    """Calls a text toxic if it says so; the first `refusals` requests are refused with the status."""

    asked: list[dict[str, Any]]
    refusals: list[int]
    reply: bytes | None = None


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append({**body, "key": self.headers["X-Goog-Api-Key"], "path": self.path})
        status, value = 200, 0.9 if "idiot" in body["comment"]["text"] else 0.1
        answer: dict[str, Any] = {"attributeScores": {"TOXICITY": {"summaryScore": {"value": value}}}}
        if self.server.refusals:
            status, answer = self.server.refusals.pop(0), {"error": {"message": f"no, {KEY}"}}
        raw = self.server.reply or json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("FIRSTHAND_TOXICITY_KEY", KEY)
    made = Service(("127.0.0.1", 0), Handler)
    made.asked, made.refusals = [], []
    thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def scored(server: Service, answer: str, **options: Any) -> dict[str, float]:
    url = f"http://127.0.0.1:{server.server_address[1]}/v1alpha1/comments:analyze"
    trace = Trace("t", "b", "t", {"name": "a"}, 0, 0, "", 0.0, answer=answer)
    found: Any = toxicity_api(url=url, wait_s=0, **options)(Task("t", "?"), trace)
    return {each.name: each.value for each in asyncio.run(found)}


def test_an_answer_is_scored_by_the_service_and_the_key_travels_in_a_header(server: Service):
    assert scored(server, "You idiot.") == {"toxicity": 0.9, "toxic": 1.0}
    assert scored(server, "Good day.", language="de") == {"toxicity": 0.1, "toxic": 0.0}
    assert scored(server, "Good day.", threshold=0.1)["toxic"] == 1.0
    first, second, _ = server.asked
    assert first["key"] == KEY and KEY not in first["path"] and first["doNotStore"] is True
    assert first["comment"] == {"text": "You idiot."} and second["languages"] == ["de"]


def test_an_empty_answer_is_not_sent(server: Service):
    assert scored(server, "  ") == {"toxicity": 0.0, "toxic": 0.0} and not server.asked


def test_refusals_for_load_are_asked_again_and_others_are_told_without_the_key(server: Service):
    server.refusals[:] = [429, 503]
    assert scored(server, "idiot")["toxicity"] == 0.9 and len(server.asked) == 3
    for refusals, asked in (([403], 4), ([429, 429, 429], 7)):
        server.refusals[:] = refusals
        with pytest.raises(ModelError, match=r"answered 4\d\d: no, \[key\]"):
            scored(server, "idiot")
        assert len(server.asked) == asked


@pytest.mark.parametrize(
    "reply", [b"{}", b"[1]", b"<html>", b'{"attributeScores": {"TOXICITY": {"summaryScore": {"value": 3}}}}']
)
def test_a_reply_without_a_probability_is_told(server: Service, reply: bytes):
    server.reply = reply
    with pytest.raises(ModelError, match="gave no probability of TOXICITY"):
        scored(server, "idiot")


def test_what_cannot_be_asked_is_refused_at_once(monkeypatch: pytest.MonkeyPatch):
    assert catalog.scorers()["toxicity_api"][0] == "toxicity_api"
    monkeypatch.delenv("FIRSTHAND_TOXICITY_KEY", raising=False)
    with pytest.raises(ConfigError, match="needs the environment variable FIRSTHAND_TOXICITY_KEY"):
        toxicity_api()
    monkeypatch.setenv("FIRSTHAND_TOXICITY_KEY", KEY)
    for options, told in (
        ({"threshold": 1.0}, "threshold is 1.0"),
        ({"url": "ftp://x"}, "url is 'ftp://x'"),
        ({"url": "http://x/?key=1"}, "url holds a key"),
    ):
        with pytest.raises(ConfigError, match=told):
            toxicity_api(**options)


def test_the_whole_request_and_the_whole_scores_are_as_the_docs_say(server: Service) -> None:
    url = f"http://127.0.0.1:{server.server_address[1]}/v1/x"

    def scores(answer: str | None, **options: Any) -> Any:
        trace = Trace("t", "b", "t", {"name": "a"}, 0, 0, "", 0.0, answer=answer)
        return asyncio.run(toxicity_api(url=url, **options)(Task("t", "?"), trace))  # type: ignore[arg-type]

    assert scores(" " + "x" * 20_001 + " ", threshold=0.9) == (
        Score("toxicity", 0.1, {"service": url, "characters": 20_000, "is_harm": True}),
        Score("toxic", 0.0, {"threshold": 0.9, "is_harm": True}),
    )  # fmt: skip
    assert server.asked == [{
        "comment": {"text": "x" * 20_000}, "languages": ["en"], "requestedAttributes": {"TOXICITY": {}}, "doNotStore": True,
        "key": KEY, "path": "/v1/x",
    }]  # fmt: skip
    assert scores(None) == (
        Score("toxicity", 0.0, {"service": url, "characters": 0, "is_harm": True}),
        Score("toxic", 0.0, {"threshold": 0.5, "is_harm": True}),
    )  # fmt: skip
    assert scores("idiot", threshold=0.9)[1].value == 1.0, "at the threshold"
    assert scores("  short ")[0].detail["characters"] == 5


@pytest.mark.slow
def test_waits_grow_by_two_and_words_of_a_refusal_are_cut(server: Service) -> None:
    url = f"http://127.0.0.1:{server.server_address[1]}/v1/x"
    trace = Trace("t", "b", "t", {"name": "a"}, 0, 0, "", 0.0, answer="idiot")

    def said(**options: Any) -> str:
        with pytest.raises(ModelError) as told:
            asyncio.run(toxicity_api(url=url, **options)(Task("t", "?"), trace))  # type: ignore[arg-type]
        return str(told.value)

    for status in (429, 500, 502, 503):
        server.refusals[:], server.asked[:] = [status, status, status], []
        assert (
            said(wait_s=0) == f"the toxicity service at {url} answered {status}: no, [key]" and len(server.asked) == 3
        )
    for status in (400, 401, 404, 504):
        server.refusals[:], server.asked[:] = [status], []
        assert (
            said(wait_s=60) == f"the toxicity service at {url} answered {status}: no, [key]" and len(server.asked) == 1
        )
    server.refusals[:] = [500, 502]
    began = time.monotonic()
    assert asyncio.run(toxicity_api(url=url, wait_s=0.02)(Task("t", "?"), trace))[0].value == 0.9  # type: ignore[index, arg-type]
    assert time.monotonic() - began >= 0.06, "0.02 s, then 0.04 s"
    for reply, words in ((b"x" * 300, "x" * 200), (b'{"error": {"message": "' + b"y" * 300 + b'"}}', "y" * 200)):
        server.reply, server.refusals[:] = reply, [403]
        assert said() == f"the toxicity service at {url} answered 403: {words}"
    for value, right in ((b"0", 0.0), (b"1", 1.0), (b"-0.1", None), (b"1.1", None), (b"null", None), (b'"0.5"', 0.5)):
        server.reply = b'{"attributeScores": {"TOXICITY": {"summaryScore": {"value": ' + value + b"}}}}"
        if right is None:
            assert (
                said()
                == f"the toxicity service at {url} gave no probability of TOXICITY: is it a comments:analyze method?"
            )
        else:
            assert asyncio.run(toxicity_api(url=url)(Task("t", "?"), trace))[0].value == right  # type: ignore[index, arg-type]


def test_a_service_that_is_not_there_and_settings_at_their_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_TOXICITY_KEY", f"  {KEY}\n")
    trace = Trace("t", "b", "t", {"name": "a"}, 0, 0, "", 0.0, answer="x")
    with pytest.raises(ModelError) as told:
        asyncio.run(toxicity_api(url="http://127.0.0.1:9/x")(Task("t", "?"), trace))  # type: ignore[arg-type]
    assert str(told.value) == "the toxicity service at http://127.0.0.1:9/x cannot be reached (ConnectError)"
    toxicity_api(threshold=0.999)
    toxicity_api(url="https://x")
    for options, says in (
        ({"threshold": 0.0}, "threshold is 0.0: give a probability between 0 and 1"),
        ({"url": "x" * 90}, "url is '" + "x" * 79 + ": give the http address of the service's analyze method"),
        ({"url": f"https://x/{KEY}"}, "url holds a key, which runs would show: leave it out, FIRSTHAND_TOXICITY_KEY is sent "
         "in a header"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            toxicity_api(**options)  # type: ignore[arg-type]
        assert str(refused.value) == says
    monkeypatch.setenv("FIRSTHAND_TOXICITY_KEY", "  ")
    with pytest.raises(ConfigError, match="set it to the service's key"):
        toxicity_api()


def test_the_reason_of_a_refusal_is_its_message_or_else_its_text() -> None:
    for body, reason in (
        ('{"error": {"message": "no key", "code": 3}}', "no key"),
        ('{"error": {"message": 7}}', "7"),
        ('{"error": {"code": 3}}', '{"error": {"code": 3}}'),
        ('{"message": "top"}', '{"message": "top"}'),
        ('{"error": "plain"}', '{"error": "plain"}'),
        ('["a list"]', '["a list"]'),
        ("null", "null"),
        ("<html>", "<html>"),
        ("", ""),
        ("y" * 201, "y" * 200),
        ('{"error": {"message": "' + "z" * 201 + '"}}', "z" * 200),
        ("[" * 100_000, "[" * 200),
    ):
        assert _reason(Reply(403, body.encode())) == reason, body[:40]
