"""`ollama:NAME` asks Ollama's own address over its OpenAI protocol, and sends it no key of anyone's."""

from __future__ import annotations

import asyncio

import pytest

from firsthand import catalog
from firsthand.errors import ConfigError, Unreachable
from firsthand.message import user
from firsthand.model import Sampling
from firsthand.providers.ollama import OllamaModel
from test_providers_openai import Server, chat, serving


def test_ollamas_address_is_asked_and_no_key_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with serving(Server()) as server:
        server.reply(chat("hello"))
        host = server.url.removesuffix("/v1")
        for name, environment in ((f"ollama:llama3.2:3b@{host}", ""), ("ollama:llama3.2:3b", host)):
            monkeypatch.setenv("OLLAMA_HOST", environment)
            model = catalog.model(name)
            (completion,) = asyncio.run(model.complete((user("hi"),), Sampling(max_tokens=4)))
            assert completion.message.text == "hello" and model.name == name
        assert server.paths == ["/v1/chat/completions"] * 2
        assert [asked["model"] for asked in server.asked] == ["llama3.2:3b"] * 2
        assert not any("sk-secret" in str(headers) for headers in server.headers)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("", "http://localhost:11434/v1"),
        ("box", "http://box:11434/v1"),
        ("box:8080", "http://box:8080/v1"),
        ("0.0.0.0", "http://127.0.0.1:11434/v1"),
        ("0.0.0.0:5000", "http://127.0.0.1:5000/v1"),
        ("https://box.example/", "https://box.example/v1"),
        ("http://box:1/v1", "http://box:1/v1"),
        (":8080", "http://127.0.0.1:8080/v1"),
        ("http://:8080", "http://127.0.0.1:8080/v1"),
        ("http://box", "http://box/v1"),
        ("box/", "http://box:11434/v1"),
        ("box/ollama", "http://box:11434/ollama/v1"),
        ("box:80/ollama/", "http://box:80/ollama/v1"),
        ("box:0", "http://box:11434/v1"),
        ("Box", "http://box:11434/v1"),
        ("[::1]", "http://[::1]:11434/v1"),
        ("[::1]:9000", "http://[::1]:9000/v1"),
        ("[::1]/ollama", "http://[::1]:11434/ollama/v1"),
        ("[::]:9000", "http://[::1]:9000/v1"),
        ("http://[::1]", "http://[::1]/v1"),
        ("https://0.0.0.0:1/0.0.0.0", "https://127.0.0.1:1/0.0.0.0/v1"),
        ("10.0.0.0", "http://10.0.0.0:11434/v1"),
        ("110.0.0.0:5", "http://110.0.0.0:5/v1"),
        ("0.0.0.0.example", "http://0.0.0.0.example:11434/v1"),
    ],
)
def test_the_host_is_read_as_ollamas_client_reads_it(host: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", host)
    model = catalog.model("ollama:m")
    assert model.fingerprint == f"openai:m@{address}" and model.name == "ollama:m"


def test_the_user_of_the_host_goes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "ann:0.0.0.0@0.0.0.0")
    assert OllamaModel("m")._base_url == "http://ann:0.0.0.0@127.0.0.1:11434/v1"


@pytest.mark.parametrize("host", ["::1", "fe80::1", "box:x", "box:70000", "[::1", "ann:secret#@box"])
def test_a_host_that_is_no_address_is_refused_without_its_password(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", host)
    with pytest.raises(ConfigError, match="OLLAMA_HOST is no address: give HOST") as refused:
        catalog.model("ollama:m")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("name", ["ollama:m@localhost:11434", "ollama:m@", "ollama:", "ollama:m@ftp://x"])
def test_what_is_no_address_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"no address after the @|names no model"):
        catalog.model(name)


def test_a_server_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    with pytest.raises(Unreachable, match="ollama:m lost or refused the connection"):
        asyncio.run(catalog.model("ollama:m").complete((user("hi"),), Sampling(max_tokens=4)))
