"""A server with a real model, killed with SIGKILL under load: what its clients see, and that nobody else sees anything."""

from __future__ import annotations

import json
import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from served import until
from test_serve_process import process
from tiny import write_model

pytestmark = pytest.mark.slow

SHORT, LONG = 12, 1500


@dataclass
class Client:
    """A client with one streamed answer, and what it has seen of it."""

    url: str
    number: int
    max_tokens: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str | None = None
    is_whole: bool = False
    """Whether the stream ended with its last line."""
    error: Exception | None = None

    def run(self) -> None:
        body = {"messages": [{"role": "user", "content": f"Question {self.number}"}], "stream": True, "logprobs": True}
        body |= {"max_tokens": self.max_tokens, "temperature": 1.0, "seed": self.number, "ignore_eos": True}
        address = f"{self.url}/v1/chat/completions"
        try:
            with (
                httpx.Client(timeout=100) as session,
                session.stream("POST", address, json={**body, "return_token_ids": True}) as answer,
            ):
                assert answer.status_code == 200
                for line in answer.iter_lines():
                    self.read(line)
        except (httpx.TransportError, AssertionError, ValueError) as error:
            self.error = error

    def read(self, line: str) -> None:
        """Take in a line, all of which are whole."""
        if line.startswith("data: {"):
            choice = json.loads(line[6:])["choices"][0]
            self.ids += choice.get("token_ids", [])
            self.logprobs += [token["logprob"] for token in (choice.get("logprobs") or {}).get("content", [])]
            self.finish_reason = choice["finish_reason"] or self.finish_reason
        self.is_whole |= line == "data: [DONE]"


def begin(clients: list[Client]) -> list[threading.Thread]:
    threads = [threading.Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()
    return threads


def check_whole(client: Client, expected: Client) -> None:
    assert client.error is None and client.is_whole and client.finish_reason == "length"
    assert len(client.ids) == client.max_tokens
    assert (client.ids, client.logprobs) == (expected.ids, expected.logprobs), "to the bit"


def test_killed_under_streams_it_leaves_errors_or_whole_answers_others_alone_and_its_port_free(tmp_path: Path) -> None:
    write_model(tmp_path / "m", max_position=2048)
    words = ("m", "--threads", "1", "--kv-memory-mb", "8")
    home = {"XDG_DATA_HOME": str(tmp_path / "home")}
    with (
        process(*words, "--log", "other.jsonl", cwd=tmp_path, **home) as (bystander, other_url),
        process(*words, "--log", "log.jsonl", cwd=tmp_path, **home) as (victim, url),
    ):
        expected = [Client(other_url, number, SHORT if number < 2 else LONG) for number in range(6)]
        for thread in begin(expected):
            thread.join()
        for client in expected:
            check_whole(client, client)
        hit = [Client(url, client.number, client.max_tokens) for client in expected]
        spared = [Client(other_url, client.number, client.max_tokens) for client in expected]
        threads = begin(hit + spared)
        for thread in threads[:2]:  # their connections are closed too: the last line is not yet the end of a body
            thread.join()
        until(lambda: all(len(client.ids) > 5 for client in hit[2:]), 60)
        victim.send_signal(signal.SIGKILL)
        assert victim.wait(10) == -signal.SIGKILL
        for thread in threads:
            thread.join()
        for client, whole in zip(hit[:2], expected[:2], strict=True):
            check_whole(client, whole)
        for client, whole in zip(hit[2:], expected[2:], strict=True):
            assert isinstance(client.error, httpx.TransportError), "it is told that something went wrong"
            assert str(client.error) and not client.is_whole and client.finish_reason is None
            assert 5 < len(client.ids) < LONG and client.ids == whole.ids[: len(client.ids)]
            assert client.logprobs == whole.logprobs[: len(client.logprobs)]
        for client, whole in zip(spared, expected, strict=True):
            check_whole(client, whole)
        assert bystander.poll() is None
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health")
        port = int(url.rpartition(":")[2])
        with process(*words, "--log", "log.jsonl", cwd=tmp_path, port=port, **home) as (_, again):
            assert again == url
            clients = [Client(url, number, SHORT) for number in range(2)]
            for thread in begin(clients):
                thread.join()
            for client, whole in zip(clients, expected, strict=False):
                check_whole(client, whole)
    events = [json.loads(line)["event"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [event for event in events if event != "request"] == ["ready", "ready"]
    assert 2 <= events.count("request") <= 4  # the killed one may not have noted its last answers yet
