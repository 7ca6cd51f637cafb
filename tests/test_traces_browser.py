"""The pages of received traces in a real browser: a trace that comes while the list is open, keys, the tree."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import otlp_requests as otlp
import test_studio_browser
from test_studio_browser import until
from traces_server import StartedServer, started

pytestmark = test_studio_browser.pytestmark
HEADERS = {"content-type": "application/json"}


def send(server: StartedServer, trace: int, name: str) -> None:
    spans = (
        otlp.span(trace, 1, name=name, start_s=trace, took_s=2),
        otlp.span(
            trace,
            2,
            1,
            "use a tool",
            start_s=trace,
            error="<b>no</b>",
            openinference__span__kind="TOOL",
            tool__name="look",
        ),
    )
    body = json.dumps(otlp.request(*spans)).encode()
    answer = httpx.post(f"{server.url}/v1/traces", content=body, headers=HEADERS, trust_env=False, timeout=30)
    assert answer.status_code == 200


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, StartedServer]]:
    with started(Path(tmp_path_factory.mktemp("browser"))) as server:
        browser = test_studio_browser.start_browser()
        browser.get(server.page)
        yield browser, server
        browser.quit()


def texts(browser: Any, css: str) -> list[str]:
    return [each.text for each in browser.find_elements("css selector", css)]


def test_a_trace_appears_while_the_list_is_open_and_opens_as_a_tree(opened: tuple[Any, StartedServer]) -> None:
    browser, server = opened
    browser.get(f"{server.url}/traces")
    assert texts(browser, "h2")[0] == "No traces yet"
    send(server, 1, "first question")
    until(lambda: texts(browser, "#table tr[data-row] th a") == ["first question"])
    assert texts(browser, "tr[data-row] th a") == ["first question"]
    send(server, 2, "second question")
    until(lambda: texts(browser, "tr[data-row] th a") == ["second question", "first question"])
    browser.find_element("css selector", "body").send_keys("j")
    browser.find_element("css selector", "body").send_keys("\ue007")  # Enter
    until(lambda: "/traces/" in browser.current_url)
    assert texts(browser, "h1") == ["second question"]
    browser.find_element("link text", "tree").click()
    until(lambda: len(texts(browser, "#tree .span")) == 3)
    assert [each.split("\n")[0] for each in texts(browser, "#tree .what")][-1].endswith("use a tool look")
    for _ in range(3):
        browser.find_element("css selector", "body").send_keys("j")
    until(lambda: "<b>no</b>" in browser.find_element("id", "span").text)
    browser.find_element("css selector", "body").send_keys("n")
    until(lambda: texts(browser, "h1") == ["first question"])
    browser.back()
    until(lambda: texts(browser, "h1") == ["second question"])
    assert browser.get_log("browser") == []


def test_every_page_of_traces_is_accessible_and_not_wider_than_a_phone(opened: tuple[Any, StartedServer]) -> None:
    browser, server = opened
    axe = test_studio_browser.axe_script()
    send(server, 3, "third question")
    trace = f"/traces/{3:032x}"
    pages = ("/traces", trace, f"{trace}?view=tree", f"{trace}?view=raw", "/traces/by/sessions", "/traces/by/days")
    for path in pages:
        browser.get(server.url + path)
        assert test_studio_browser.violations(browser, axe) == [], path
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
        )
        wide = browser.execute_script("return document.documentElement.scrollWidth - innerWidth")
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        assert wide <= 0, path
