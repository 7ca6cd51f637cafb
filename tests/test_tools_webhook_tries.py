"""The tries of a webhook, its waits and faults, and the choice of a search service by its key or address."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import httpcore
import pytest

from answering_server import answer, refused, served
from firsthand.declaration import Declaration
from firsthand.errors import ToolError
from firsthand.tools.web import webhook
from firsthand.tools.web.addresses import Rules
from firsthand.tools.web.webhook import call_webhook
from firsthand.tools.web_search import SERVICES, Service, _shown, web_search


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the webhook would have waited."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(round(seconds, 9))

    monkeypatch.setattr(webhook, "asyncio", SimpleNamespace(timeout=asyncio.timeout, sleep=sleep))
    return found


def test_a_webhook_waits_four_times_longer_before_each_try_and_not_after_the_last(waits: list[float]) -> None:
    def called(*answers: bytes) -> tuple[str, int]:
        waits.clear()
        hook = lambda port, rules: call_webhook(f"http://127.0.0.1:{port}/", "é".encode(), rules)  # noqa: E731
        said, came = served([*answers], hook)
        assert all(each.endswith("content-length: 2\r\nconnection: close\r\n\r\né") for each in came)
        return said, len(came)

    down, up = answer(status="500 X"), answer(status="200 X")
    assert called(up) == ("", 1) and waits == []
    assert called(down, up) == ("", 2) and waits == [0.2]
    assert called(down, down, up) == ("", 3) and waits == [0.2, 0.8]
    assert called(down, down, answer(status="429 X"), up) == ("it answers with status 429", 3) and waits == [0.2, 0.8]


def test_faults_of_the_network_are_tried_again_and_what_may_not_be_called_is_not(
    waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def called(*errors: Exception | None) -> tuple[str, int]:
        waits.clear()
        left = list(errors)

        async def resolver(host: str, port: int) -> list[str]:
            assert (host, port) == ("hook.example", 80)
            error = left.pop(0)
            if error is None:
                await asyncio.Event().wait()
            assert error is not None
            raise error

        said = asyncio.run(call_webhook("http://hook.example/x", b"{}", Rules(), resolver))
        return said, len(errors) - len(left)

    lost = httpcore.ReadError("x" * 300)
    assert called(lost, lost, lost) == (f"ReadError: {'x' * 189}", 3) and waits == [0.2, 0.8]
    kinds = httpcore.ConnectTimeout("late"), httpcore.RemoteProtocolError("odd"), httpcore.ConnectError("no")
    assert called(*kinds) == ("ConnectError: no", 3)
    assert called(kinds[2], kinds[0], kinds[1]) == ("RemoteProtocolError: odd", 3)
    assert called(kinds[1], kinds[2], kinds[0]) == ("ConnectTimeout: late", 3)
    assert called(lost, ToolError("never"), lost) == ("never", 2) and waits == [0.2]
    said, tries = called(OSError(-2, "no such host"))
    assert (said, tries, waits) == ("the host 'hook.example' is not known: no such host", 1, [])
    with pytest.raises(KeyError):
        called(KeyError("a mistake of ours"))
    monkeypatch.setattr(webhook, "TIMEOUT_S", 0.02)
    assert called(None, None, None) == ("TimeoutError: ", 3)
    assert called(None, lost, ToolError("never")) == ("never", 3)
    assert asyncio.run(call_webhook("ftp://h/", b"", Rules())).startswith("'ftp://h/' is no URL that can be fetched")


# -- search services --


def test_the_services_are_asked_where_and_as_their_makers_say() -> None:
    assert list(SERVICES) == ["brave", "tavily", "searxng"]
    brave = "https://api.search.brave.com/res/v1/web/search"
    assert SERVICES["brave"] == Service("BRAVE_API_KEY", brave, ("web", "results"), "description")
    assert SERVICES["tavily"] == Service("TAVILY_API_KEY", "https://api.tavily.com/search", ("results",), "content")
    assert SERVICES["searxng"] == Service("SEARXNG_URL", "", ("results",), "content")


def test_the_first_service_that_is_set_up_is_asked_and_an_empty_key_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def set_up(brave: str = "", tavily: str = "", searxng: str = "") -> None:
        for each, value in zip(SERVICES.values(), (brave, tavily, searxng), strict=True):
            monkeypatch.setenv(each.variable, value)

    set_up()
    nothing = "no search service is set up: set one of the environment variables BRAVE_API_KEY for brave, "
    assert refused(web_search, url="http://h/").startswith(nothing) and refused(web_search, service="").startswith(
        nothing
    )
    missing = "searxng needs the environment variable SEARXNG_URL: set it, or leave web_search out"
    assert refused(web_search, service="searxng") == missing
    needs = "brave needs the environment variable BRAVE_API_KEY: set it, or leave web_search out"
    assert refused(web_search, service="brave", url="http://h/") == needs
    set_up(brave=" ")
    assert refused(web_search, service="brave") == needs and refused(web_search).startswith(nothing), (
        "blanks are no key"
    )

    def found(port: int, rules: Rules, **given: Any) -> Any:
        tool = web_search(url=f"http://127.0.0.1:{port}/own", **given)
        assert (tool.name, tool.effect, tool.origin) == ("web_search", "read", "the web")
        assert tool.declares == Declaration(
            tells=given["service"] or next(name for name in SERVICES if keys.get(name, "").strip())
        )
        assert tool.spec.parameters["required"] == ["query"]
        return tool({"query": " a b ", "k": 1})

    results = [{"title": "T", "url": "u", "content": "c", "description": "d"}] * 2
    body = b'{"web": {"results": %s}, "results": %s}' % ((str(results).replace("'", '"').encode(),) * 2)
    for keys, service, shown, path, header in (
        ({"brave": "B\n", "tavily": "T"}, None, "T\nu\nd", "GET /own?q=+a+b+&count=1", "x-subscription-token: b\r"),
        ({"brave": " ", "tavily": "T", "searxng": "http://s"}, None, "T\nu\nc", "POST /own ", "authorization: bearer t\r"),
        ({"brave": "B", "tavily": "T"}, "tavily", "T\nu\nc", "POST /own ", "authorization: bearer t\r"),
        ({"brave": "B"}, "searxng", "T\nu\nc", "GET /own?q=+a+b+&format=json ", "host: 127.0.0.1:"),
        ({"searxng": "http://s"}, None, "T\nu\nc", "GET /own?q=+a+b+&format=json ", "host: 127.0.0.1:"),
    ):  # fmt: skip
        set_up(**keys)  # type: ignore[arg-type]
        said, (came,) = served([answer(body)], lambda port, rules, s=service: found(port, rules, service=s))  # type: ignore[misc]
        assert said == shown and came.startswith(path) and header in came.lower(), service
        assert ("\r\nx-sub" in came.lower()) == ("count=1" in path)
    set_up(tavily="T")
    for query, k in (("q" * 101, 0), ("\n", 21)):
        said = refused(web_search(), {"query": query, "k": k})
        assert said == f"query is {query[:100]!r} and k is {k}: give words, and 1 to 20"


def test_results_are_shown_from_where_each_service_puts_them() -> None:
    brave, tavily = SERVICES["brave"], SERVICES["tavily"]
    one = {"title": "T", "url": "u", "description": "<b>d</b>", "content": 5}
    assert _shown({"web": {"results": [one, one]}}, brave, 1) == "T\nu\nd"
    assert _shown({"results": [None, one, one]}, tavily, 2) == "T\nu\n5\n\nT\nu\n5"
    assert _shown({"results": [{"title": "a", "content": None, "url": 0}]}, tavily, 9) == "a\n\n"
    for body in ({"results": [one]}, {"web": [one]}, {"web": {"results": {"0": one}}}, {"web": None}, None, "web"):
        assert _shown(body, brave, 3) == "(nothing was found: try other words)"
