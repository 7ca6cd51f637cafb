"""Webhooks, search services and the output of code: what is sent, what is shown, and each failure in its own words."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from answering_server import answer, refused, served
from firsthand.errors import ToolError
from firsthand.tools.python import output_of, shortened, unfenced
from firsthand.tools.web import webhook
from firsthand.tools.web.addresses import Rules
from firsthand.tools.web.webhook import call_webhook
from firsthand.tools.web_search import MAX_BYTES, SERVICES, _ask, _request, _shown, web_search


def test_a_webhook_is_posted_to_with_its_query_and_headers_and_tried_three_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhook, "FIRST_WAIT_S", 0.0001)

    def called(answers: list[bytes], **more: Any) -> tuple[str, list[str]]:
        async def work(port: int, rules: Rules) -> str:
            return await call_webhook(f"http://127.0.0.1:{port}/hook?token=t&x=%20", b'{"n": 1}', rules, **more)

        return served(answers, work)

    said, (request,) = called([answer()], content_type="text/x", headers=((b"x-key", b"k"),))
    port = request.split("host: 127.0.0.1:")[1].split("\r")[0]
    assert said == "" and request == (
        f"POST /hook?token=t&x=%20 HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nuser-agent: firsthand\r\ncontent-type: text/x\r\n"
        'content-length: 8\r\nconnection: close\r\nx-key: k\r\n\r\n{"n": 1}'
    )
    said, (request,) = called([answer(status="299 X")])
    assert said == "" and "content-type: application/json\r\n" in request
    said, came = called([answer(status="300 X", location="/y"), answer(status="500 X"), answer(status="202 A")])
    assert (said, len(came)) == ("", 3)
    said, came = called([answer(status="503 X"), answer(status="300 Y")])
    assert (said, len(came)) == ("it answers with status 300", 3)
    said, came = called([b"nonsense\r\n\r\n"])
    assert said.startswith("RemoteProtocolError: ") and len(came) == 3

    async def inward(port: int, rules: Rules) -> str:
        return await call_webhook(f"http://127.0.0.1:{port}/", b"", Rules(ports=rules.ports))

    said, came = served([answer()], inward)
    assert "is at 127.0.0.1, which is no public address" in said and came == []


def test_a_search_service_is_chosen_by_what_is_set_and_asked_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in SERVICES.values():
        monkeypatch.delenv(each.variable, raising=False)
    known = "BRAVE_API_KEY for brave, TAVILY_API_KEY for tavily, SEARXNG_URL for searxng"
    ask = f"set one of the environment variables {known}"
    assert refused(web_search) == f"no search service is set up: {ask}"
    assert refused(web_search, service="bing") == f"no search service 'bing' is known: {ask}"
    needs = "tavily needs the environment variable TAVILY_API_KEY: set it, or leave web_search out"
    assert refused(web_search, service="tavily") == needs == refused(web_search, service="tavily", url="http://h/")
    brave, tavily, searxng = (_request(name, "http://h/s", "KEY", "a b", 7) for name in SERVICES)
    assert (brave.method, str(brave.url), brave.headers["x-subscription-token"]) == (
        "GET",
        "http://h/s?q=a+b&count=7",
        "KEY",
    )
    assert (tavily.method, str(tavily.url), tavily.headers["authorization"]) == ("POST", "http://h/s", "Bearer KEY")
    assert json.loads(tavily.content) == {"query": "a b", "max_results": 7}
    assert (searxng.method, str(searxng.url)) == ("GET", "http://h/s?q=a+b&format=json") and "KEY" not in str(
        searxng.headers
    )
    results: Any = [
        {"title": "<b>T</b>", "url": "u", "content": "c" * 1_001},
        "odd",
        {"title": None, "content": "d"},
        {"url": "w"},
    ]
    shown = f"T\nu\n{'c' * 1_000}\n\n\n\nd"
    assert _shown({"results": results}, SERVICES["searxng"], 2) == shown
    assert (
        _shown({"results": []}, SERVICES["tavily"], 2)
        == "(nothing was found: try other words)"
        == _shown([], SERVICES["brave"], 2)
    )

    async def found(port: int, rules: Rules) -> Any:
        for name, value in (("TAVILY_API_KEY", " "), ("SEARXNG_URL", f" http://127.0.0.1:{port}/ ")):
            monkeypatch.setenv(name, value)
        tool = web_search(service="searxng")
        assert (tool.effect, tool.timeout_s, tool.origin) == ("read", 25.0, "the web")
        with pytest.raises(ToolError, match=r"query is 'a' and k is 21: give words, and 1 to 20"):
            await tool({"query": "a", "k": 21})
        for given in ({"query": " ", "k": 1}, {"query": "a", "k": 0}):
            with pytest.raises(ToolError, match="give words, and 1 to 20"):
                await tool(given)
        there = web_search(service="searxng", url=f"http://127.0.0.1:{port}/other")
        return [await tool({"query": "x" * 401, "k": 20}), await tool({"query": "a"}), await there({"query": "b"})]

    many = answer(json.dumps({"results": [{"title": f"t{n}"} for n in range(9)]}).encode())
    (first, five, _), came = served([many], found)
    assert (first.count("t"), five.split()) == (9, ["t0", "t1", "t2", "t3", "t4"])
    assert [each.split(" ")[1] for each in came] == [
        f"/search?q={'x' * 400}&format=json", "/search?q=a&format=json", "/other?q=b&format=json",
    ]  # fmt: skip


def test_a_blank_key_is_none_and_the_first_service_with_a_key_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def set_keys(brave: str | None, tavily: str | None, searxng: str | None) -> None:
        for variable, value in zip(
            ("BRAVE_API_KEY", "TAVILY_API_KEY", "SEARXNG_URL"), (brave, tavily, searxng), strict=True
        ):
            monkeypatch.delenv(variable, raising=False)
            if value is not None:
                monkeypatch.setenv(variable, value)

    async def asked(port: int, rules: Rules) -> Any:
        there, shown = f"http://127.0.0.1:{port}", []
        for keys, given in (
            ((" ", "", f"{there}//"), {}), ((" B ", " ", there), {"url": f"{there}/b"}),
            ((None, "T\n", there), {"url": f"{there}/t"}), (("B", "T", there), {"service": "searxng"}),
            ((None, None, None), {"service": "searxng", "url": f"{there}/s"}),
            (("B", "T", there), {"service": "tavily", "url": f"{there}/t2"}),
        ):  # fmt: skip
            set_keys(*keys)
            shown.append(await web_search(**given)({"query": " é ", "k": 1}))
        return shown

    body = {
        "web": {"results": [{"title": "b", "url": "u", "description": "d"}]},
        "results": [{"title": "t", "content": "c"}],
    }
    shown, came = served([answer(json.dumps(body).encode())], asked)
    one, other = "b\nu\nd", "t\n\nc"
    assert shown == [other, one, other, other, other, other]
    assert [each.split(" HTTP")[0] for each in came] == [
        "GET /search?q=+%C3%A9+&format=json", "GET /b?q=+%C3%A9+&count=1", "POST /t", "GET /search?q=+%C3%A9+&format=json",
        "GET /s?q=+%C3%A9+&format=json", "POST /t2",
    ]  # fmt: skip
    heads = [each.lower() for each in came]
    assert "x-subscription-token: b\r\n" in heads[1] and "authorization: bearer t\r\n" in heads[2]
    assert "content-type: application/json\r\n" in heads[2]
    set_keys(" ", "", None)
    assert refused(web_search).startswith("no search service is set up: set one of")
    assert refused(web_search, url="http://h/").startswith("no search service is set up: set one of")
    assert refused(web_search, service="brave").startswith("brave needs the environment variable BRAVE_API_KEY: set it")


@pytest.mark.slow
def test_what_a_search_service_answers_wrongly_is_told_without_the_key() -> None:
    def asked(*answers: bytes) -> Any:
        async def work(port: int, rules: Rules) -> Any:
            return await _ask(_request("brave", f"http://127.0.0.1:{port}/", "SECRET", "q", 3), "brave")

        return served([*answers], work)[0]

    assert asked(answer(b'{"a": 1}')) == {"a": 1}
    space = b" " * (MAX_BYTES - 1)
    assert asked(answer(space + b"5")) == 5
    for body, said in (
        (answer(space + b"55"), f"brave gave no answer that can be read: it sent more than {MAX_BYTES} bytes"),
        (answer(b"{}", "401 X"), "brave answers with status 401: the key is not accepted"),
        (answer(b"{}", "403 X"), "brave answers with status 403: the key is not accepted"),
        (answer(b"{}", "429 X"), "brave answers with status 429: too many searches: wait a while"),
        (answer(b"{}", "201 X"), "brave answers with status 201: no results"),
        (answer(b"{}", "302 X", location="/y"), "brave answers with status 302: no results"),
        (answer(b"no"), "brave does not answer with JSON"),
        (b"nonsense\r\n\r\n", "brave cannot be asked: RemoteProtocolError"),
    ):
        assert refused(asked, body) == said


@pytest.mark.parametrize("service", ["brave", "tavily", "searxng"])
def test_a_search_that_cannot_be_asked_is_told_by_the_kind_of_fault_alone(
    service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def asked(address: str) -> str:
        return refused(lambda: asyncio.run(_ask(_request(service, address, "SECRET", "q", 3), service)))

    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert asked("http://127.0.0.1:1/") == f"{service} cannot be asked: ConnectError"
    assert asked("ftp://127.0.0.1/") == f"{service} cannot be asked: UnsupportedProtocol"
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    assert asked("https://127.0.0.1:1/") == f"{service} cannot be asked: FileNotFoundError"


# -- Python and the shell --


def test_an_output_is_shown_with_the_reason_why_the_run_ended() -> None:
    from firsthand.sandbox.sandbox import Outcome

    def outcome(out: str = "", err: str = "", ended: Any = "done", status: int | None = 0) -> Outcome:
        return Outcome(ended, status, out, err, 0.5, None, None, "bubblewrap")

    assert output_of(outcome("42", "3 warnings\n")) == "42\n3 warnings" and output_of(outcome("", "3\n")) == "3"
    assert output_of(outcome("42")) == "42" and output_of(outcome("a\n\n", "b")) == "a\n\nb"
    assert output_of(outcome("a\n", "b\n")) == "a\nb" and output_of(outcome(" \n")) == "(no output)"
    stopped = "it did not finish within its time and was stopped: use a faster method or smaller numbers"
    for given, said in (
        (outcome("a", "", "error", 3), "a\nit ended with exit status 3"),
        (outcome("a", "trace", "error", 1), "a\ntrace"),
        (outcome("", "", "timeout", None), stopped),
        (outcome("a", "b", "memory", None), "a\nb\nit used too much memory and was stopped: work on smaller pieces"),
        (outcome("", "", "output", None), "it printed too much and was stopped: print only what is needed"),
        (outcome("a", "b", "killed", -11), "a\nb\nit was ended by signal 11"),
    ):
        assert refused(output_of, given) == said
    assert shortened("ab \n", 2) == "ab" and shortened("abcde", 3) == "a\n[3 characters left out]\ne"
    assert (
        unfenced(" ```py\nx\n  y\n ``` \n") == "x\n  y"
        and unfenced("```") == "```"
        and unfenced("``\nx\n```") == "``\nx\n```"
    )


def test_an_output_is_told_with_why_it_ended_and_with_neither_side_of_a_fence_lost() -> None:
    def told(ended: str, status: int | None, out: str = "", err: str = "") -> str:
        outcome: Any = SimpleNamespace(ended=ended, ok=ended == "done", exit_status=status, stdout=out, stderr=err)
        try:
            return f"given: {output_of(outcome)}"
        except ToolError as error:
            return str(error)

    assert told("done", 0, " a\n", "b\n\n") == "given:  a\nb" and told("done", 0, " \n") == "given: (no output)"
    assert told("error", 3) == "it ended with exit status 3" and told("error", 3, "", "Boom\n") == "Boom"
    assert told("error", None, "x\n") == "x\nit ended with exit status None" and told("error", 1, "x", "y") == "x\ny"
    assert told("killed", -9, "x\n") == "x\nit was ended by signal 9"
    assert told("killed", None, "", "y") == "y\nit was ended by signal 0"
    for ended, why in (
        ("timeout", "it did not finish within its time and was stopped: use a faster method or smaller numbers"),
        ("memory", "it used too much memory and was stopped: work on smaller pieces"),
        ("output", "it printed too much and was stopped: print only what is needed"),
    ):
        assert told(ended, None) == why and told(ended, None, "x", "y") == f"x\ny\n{why}"
    exact, more = "x" * 8_000, "a" * 4_000 + "b" + "c" * 4_000
    assert told("done", 0, exact, "\n") == f"given: {exact}"
    assert told("done", 0, more) == f"given: {'a' * 4_000}\n[1 characters left out]\n{'c' * 4_000}"
    assert shortened("abcdef", 5) == "ab\n[2 characters left out]\nef" and shortened(" a ", 2) == " a"
    code = {
        "```py\nx\n\n  y\n```": "x\n\n  y", " \n```\nx\n ``` \n": "x", "```\n```": "", "```": "```", " x \n": " x \n",
        "": "",
        "```x```": "```x```", "x\n```": "x\n```", "```\nx\n```y": "```\nx\n```y", "~~~\nx\n~~~": "~~~\nx\n~~~",
        "```a\n```b\nx\n```\n```": "```b\nx\n```",
    }  # fmt: skip
    assert {text: unfenced(text) for text in code} == code
