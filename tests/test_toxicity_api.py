"""The toxicity service's wire: its key stays out of errors, refusals for load are asked again, nonsense is one sentence."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from firsthand import catalog
from firsthand.errors import ConfigError, ModelError
from firsthand.scorers.toxicity_api import toxicity_api
from firsthand.task import Task
from firsthand.trace import Trace

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
