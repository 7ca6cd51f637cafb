"""Headers of the environment that OpenAI's SDK adds to every request: to whom they go, and to whom they do not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("openai", reason="needs the SDK: pip install 'firsthand[openai]'")

import httpx

from firsthand.message import user
from firsthand.model import Sampling
from firsthand.providers.ollama import open_model as open_ollama
from firsthand.providers.openai import open_model

OWN = {"openai-organization": "org-private", "openai-project": "proj-private", "x-secret": "custom-secret"}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[httpx.Request]:
    """The requests of a test in whose environment an organisation, a project and headers are set."""
    for name in ("OPENAI_BASE_URL", "OLLAMA_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-key")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-private")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-private")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Secret: custom-secret\nno header")
    found: list[httpx.Request] = []

    async def answered(transport: Any, request: httpx.Request) -> httpx.Response:
        found.append(request)
        choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}}
        return httpx.Response(200, json={"choices": [choice]}, request=request)

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", answered)
    return found


def headers(model: Any, sent: list[httpx.Request]) -> tuple[str, dict[str, str]]:
    """The authorization, and those of our headers, that a question is sent with."""
    assert asyncio.run(model.complete([user("q")], Sampling()))[0].message.text == "hi"
    found = sent.pop().headers
    return found.get("authorization", ""), {name: found[name] for name in OWN if name in found}


@pytest.mark.slow
def test_headers_of_the_environment_go_to_no_address_in_a_name(
    sent: list[httpx.Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    for elsewhere in (
        "http://elsewhere.example/v1", "https://api.openai.com.example/v1", "https://example/api.openai.com",
        "http://api.openai.com/v1", "https://xapi.openai.com/v1",
    ):  # fmt: skip
        assert headers(open_model(f"m@{elsewhere}"), sent) == ("Bearer sk-key", {}), elsewhere
    assert headers(open_ollama("m"), sent)[1] == {}
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "authorization: Bearer another\nX-Secret: s")
    assert headers(open_model("m@http://elsewhere.example/v1"), sent) == ("Bearer sk-key", {})


def test_headers_of_the_environment_go_to_openai_and_to_the_address_of_the_environment(
    sent: list[httpx.Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("m", "m@https://api.openai.com/v1", "m@https://eu.api.openai.com/v1"):
        assert headers(open_model(name), sent) == ("Bearer sk-key", OWN), name
    monkeypatch.setenv("OPENAI_BASE_URL", "https://gateway.example/v1/")
    for name in ("m", "m@https://gateway.example/v1"):
        assert headers(open_model(name), sent) == ("Bearer sk-key", OWN), name
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer gateway")
    assert headers(open_model("m"), sent)[0] == "Bearer gateway"
