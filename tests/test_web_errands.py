"""Web browsing: errands and their pages without a browser, the proxy, Mind2Web's steps, and real runs in Chromium (slow)."""

import asyncio
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.benchmarks.agentbench_wb import agentbench_wb
from firsthand.errors import ConfigError, DataError
from firsthand.patterns.direct import direct
from firsthand.patterns.thought_action import thought_action
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.trace import Trace
from firsthand.worlds.browsing.browse_world import BrowseWorld
from firsthand.worlds.browsing.browser_pool import MAX_RUNNING, BrowserPool
from firsthand.worlds.browsing.chromium import BROWSERS, Chromium, PageElement, PageView, ready
from firsthand.worlds.browsing.errands import SITE_KINDS, Errand, ErrandStep, make_errand
from firsthand.worlds.browsing.mind2web import operation_f1, parse_choice, read_steps
from firsthand.worlds.browsing.page_elements import PageElements
from firsthand.worlds.browsing.pages import SiteVisit
from firsthand.worlds.browsing.site import Answer
from firsthand.worlds.browsing.site_server import SiteServer
from firsthand.worlds.players import play
from firsthand.worlds.world import InvalidAction, WorldEnvironment
from loopback import serve

NO_CHROMIUM = not any(map(shutil.which, BROWSERS))


class Walk:
    """Follows an errand's steps on the pages' HTML, as a browser would, by labels."""

    def __init__(self, errand: Errand) -> None:
        self.visit = SiteVisit(errand)
        self.filled: dict[str, str] = {}
        self.go("/")

    def go(self, address: str) -> None:
        asked = urlsplit(address)
        self.page = self.visit.get(asked.path, dict(parse_qsl(asked.query)))
        self.filled = {}

    def do(self, step: ErrandStep) -> None:
        if step.verb != "click":
            assert f'aria-label="{step.label}"' in self.page
            self.filled[step.label] = step.value
            return
        if found := re.search(
            rf'<a href="([^"]*)"(?: aria-label="{step.label}")?>(?:{step.label}|\d+|Cart)</a>', self.page
        ):
            links = re.findall(r'<a href="([^"]*)"(?: aria-label="([^"]*)")?>([^<]*)</a>', self.page)
            address = next((href for href, label, text in links if step.label in (label, text)), None)
            if address is not None:
                assert found
                return self.go(address)
        if step.label == "Subscribe":
            self.filled["Subscribe"] = "yes"
            return
        for action, body in re.findall(r'<form method="post" action="([^"]*)"[^>]*>(.*?)</form>', self.page):
            button = re.search(r"<button([^>]*)>([^<]*)</button>", body)
            assert button
            label = re.search(r'aria-label="([^"]*)"', button[1])
            if step.label in (button[2], label and label[1]):
                return self.go(self.visit.post(action, self.form(body, button[1])))
        raise AssertionError(f"there is no {step.label}")

    def form(self, body: str, button: str) -> dict[str, str]:
        given = {}
        for tag in re.findall(r"<(?:input|select)[^>]*>", body):
            attributes = dict(re.findall(r'([\w-]+)="([^"]*)"', tag))
            value = self.filled.get(attributes.get("aria-label", ""), attributes.get("value", ""))
            if attributes.get("type") != "checkbox" or attributes["aria-label"] in self.filled:
                given[attributes["name"]] = value
        if named := re.search(r'name="(\w+)" value="([^"]*)"', button):
            given[named[1]] = named[2]
        return given


@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_steps_of_every_errand_lead_to_its_goal_and_not_before(level: int):
    for index in range(24):
        errand = make_errand(index, index, level)
        walk = Walk(errand)
        for step in errand.steps:
            assert not walk.visit.is_done, errand.task
            walk.do(step)
        assert walk.visit.is_right, (errand.task, walk.visit.sent, errand.goal)
        assert len(errand.steps) < 20


@pytest.mark.parametrize("kind", SITE_KINDS)
def test_something_else_sent_is_done_and_wrong(kind: str):
    errand = make_errand(0, SITE_KINDS.index(kind), 2)
    visit = SiteVisit(errand)
    path = {"form": "/part0", "table": "/archive", "cart": "/order", "calendar": "/book"}[kind]
    assert visit.post(path, {"x": "<script>"}) == "/done" and visit.is_done and not visit.is_right
    sent = dict(visit.sent or {})
    assert visit.post(path, {}) == "/" and visit.sent == sent, "an errand ends once"
    assert "Thank you" in visit.get("/", {})


def test_what_a_visitor_types_is_shown_as_text_and_odd_addresses_are_answered():
    visit = SiteVisit(make_errand(0, 0, 3))
    visit.post("/part0", {"Name": '"><script>alert(1)</script>'})
    assert "<script>" not in visit.get("/", {"part": "0"})
    for index in range(4):
        visit = SiteVisit(make_errand(0, index, 2))
        for query in ({"page": "-1"}, {"page": "9" * 400}, {"month": "99"}, {"day": "2027-13-45"}, {"part": "²"}):
            assert "</html>" in visit.get("/nowhere", query)
    cart = SiteVisit(make_errand(0, 2, 1))
    cart.post("/add", {"name": "no such thing"})
    name = cart.errand.data["goods"][0]["name"]
    cart.post("/add", {"name": name, "quantity": "99999999999"})
    assert cart.cart == {}
    cart.post("/add", {"name": name, "quantity": "2"})
    assert cart.cart == {name: 2}
    cart.post("/remove", {"name": name})
    assert cart.cart == {}


def test_errands_are_equal_for_a_seed_to_the_byte():
    made = json.dumps([make_errand(7, index, level) for index in range(8) for level in (1, 2, 3)])
    assert hashlib.sha256(made.encode()).hexdigest()[:16] == "18fe53041daf32f7"


@pytest.fixture
def server() -> Iterator[SiteServer]:
    made = SiteServer()
    yield made
    made.close()


def asked(server: SiteServer, method: str, address: str, body: str = "") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request(method, address, body, {"Content-Type": "application/x-www-form-urlencoded"})
    answer = connection.getresponse()
    read = answer.status, answer.read().decode()
    connection.close()
    return read


def test_the_proxy_serves_open_visits_and_nothing_else(server: SiteServer):
    visit = SiteVisit(make_errand(0, 0, 1))
    address = server.begin(visit)
    assert "Contact" in asked(server, "GET", address)[1]
    for other in (
        "http://example.com/", "http://127.0.0.1:22/", f"https://{urlsplit(address).netloc}/", "/", "http://0.site.test/",
        address.replace("http:", "ftp:"),
    ):  # fmt: skip
        assert asked(server, "GET", other)[0] == 403
    assert asked(server, "CONNECT", "example.com:443")[0] == 403 and server.refused == 7
    assert asked(server, "POST", f"{address}part0", "Name=Ann&Subscribe=yes")[0] == 303
    assert visit.sent is not None and visit.sent["Name"] == "Ann"
    assert asked(server, "POST", f"{address}part0", "x" * 70_000)[0] == 413
    server.end(address)
    assert asked(server, "GET", address)[0] == 403


def test_actions_that_do_not_fit_the_page_are_told_without_a_browser():
    world = BrowseWorld(partial(SiteVisit, make_errand(0, 0, 1)), BrowserPool())
    world.site, world._dialog, world._crashed = world.visit(), None, False
    link, field = (
        PageElement(0, "link", "Next", "", ()),
        PageElement(0, "text field", "Name", "", ()),
    )
    choice = PageElement(0, "choice", "Hour", "", ("09:00",))
    world._page = PageView("t", "text", (link, field, choice))

    def told(action: str) -> str:
        with pytest.raises(InvalidAction) as error:
            call = world.read(action)
            asyncio.run(getattr(world, call.name)(**call.arguments))
        return str(error.value)

    assert "is no action: write click[n]" in told("go home") and "there is no element 9" in told("click[9]")
    assert "there is no element 0" in told("click[0]") and "element 2 is a text field: use type[2]" in told("click[2]")
    assert "element 1 is a link: use click[1]" in told("type[1] x") and "no option of Hour" in told("select[3] noon")
    assert "300 characters" in told("type[2] " + "x" * 300) and "no dialog is open" in told("accept")
    world._dialog = "Sure?"
    assert "a dialog is open (Sure?)" in told("click[1]") and world.admissible() == ["accept", "dismiss"]
    assert world.optimal() == "accept"


class Hangs:
    """A browser in which no page ever loads."""

    def click(self, element: PageElement) -> None:
        raise TimeoutError("the page did not load within 10 s")


def test_a_page_that_never_loads_ends_the_attempt_in_words():
    world = BrowseWorld(partial(SiteVisit, make_errand(0, 0, 1)), BrowserPool())
    world.site, world._dialog, world._crashed = world.visit(), None, False
    world._browser = Hangs()  # type: ignore[assignment]
    world._page = PageView("t", "text", (PageElement(0, "link", "Next", "", ()),))
    environment = WorldEnvironment(world, rounds=3)
    said = asyncio.run(environment.act("click[1]"))
    assert said.startswith("The browser failed (TimeoutError).") and environment.ended == "browser crashed"
    assert environment.tools == () and environment.rounds == 1


class Idle:
    """A browser that shows one page. It says how many are in use, and fails at its first page if it is `broken`."""

    in_use = most = made = 0
    lock = threading.Lock()

    def __init__(self, broken: bool = False):
        self.broken = broken
        Idle.made += 1

    def visit(self, address: str) -> None:
        with Idle.lock:
            Idle.in_use += 1
            Idle.most = max(Idle.most, Idle.in_use)
        time.sleep(0.01)
        if self.broken:
            raise ConnectionError("it has died")

    def seen(self, before: PageView, script: str) -> tuple[PageView, str | None]:
        return PageView("t", "text", ()), None

    def clean(self) -> None:
        with Idle.lock:
            Idle.in_use -= 1

    quit = clean


@pytest.mark.slow
def test_attempts_wait_for_a_browser_and_none_is_lost_to_one_that_died_or_to_a_cancellation():
    broken = iter([False, True])
    Idle.in_use = Idle.most = Idle.made = 0
    pool = BrowserPool(lambda port: Idle(next(broken, False)))  # type: ignore[arg-type, return-value]
    worlds = [BrowseWorld(partial(SiteVisit, make_errand(0, index, 1)), pool) for index in range(24)]

    async def attempt(world: BrowseWorld) -> str:
        try:
            await world.open()
            await asyncio.sleep(0.005)
            return world.render()
        finally:
            await world.close()

    async def all_at_once() -> list[str | BaseException]:
        running = [asyncio.create_task(attempt(world)) for world in worlds]
        await asyncio.sleep(0.02)
        for task in running[16:]:
            task.cancel()
        return await asyncio.gather(*running, return_exceptions=True)

    ends = asyncio.run(all_at_once())
    assert all(str(end).startswith("Page: t") for end in ends[:16])
    assert all(isinstance(end, asyncio.CancelledError) for end in ends[16:])
    assert Idle.most == MAX_RUNNING and Idle.made == MAX_RUNNING + 1
    for _ in range(MAX_RUNNING):  # every place is free again
        assert asyncio.run(asyncio.wait_for(attempt(worlds[0]), 5)).startswith("Page: t")
    pool.close()


HTML = """<html backend_node_id="1"><button backend_node_id="2" aria_label="Search"><span>Find</span></button>
<input backend_node_id="3" placeholder="City"><div backend_node_id="4">Hello <b>there</b></div></html>"""


def session() -> dict[str, object]:
    step = {
        "cleaned_html": HTML,
        "operation": {"op": "TYPE", "value": "New York"},
        "pos_candidates": [{"backend_node_id": "3"}],
        "neg_candidates": [{"backend_node_id": "2"}, {"backend_node_id": "4"}, {"backend_node_id": "99"}],
    }
    gone = {**step, "pos_candidates": []}
    return {
        "annotation_id": "a1",
        "confirmed_task": "Find a hotel",
        "actions": [step, gone],
        "action_reprs": ["typed", "clicked"],
    }


def test_mind2webs_steps_are_choices_among_elements(tmp_path: Path):
    path = tmp_path / "test_task_0.json"
    path.write_text(json.dumps([session()]))
    steps = read_steps(tmp_path, 0)
    assert len(steps) == 1 and steps[0].choices[steps[0].right] == "<input City>"
    assert sorted(steps[0].choices) == ["<button Search> Find", "<div> Hello there", "<input City>"]
    benchmark = agentbench_wb(data=str(path))
    letter = "BCDEF"[steps[0].right]

    def scores(text: str) -> tuple[float | None, float | None]:
        agent = Agent("a", Scripted([text]), direct)
        trace = asyncio.run(rollout(agent, benchmark.tasks(0)[0], benchmark=benchmark))
        return trace.value(), trace.value("element")

    assert scores(f"Answer: {letter}.\nAction: TYPE\nValue: new york") == (1, 1)
    assert scores(f"Answer: {letter}.\nAction: TYPE\nValue: York") == (0, 1)
    assert scores("Answer: A.\nAction: CLICK\nValue:") == (0, 0) and scores("I do not know") == (0, 0)
    assert parse_choice("answer: (C)\naction: select\nvalue: x") == (1, "SELECT", "x")
    assert operation_f1("TYPE", "New", steps[0]) == pytest.approx(0.8)
    assert PageElements("<p backend_node_id='1'>" + "x" * 9000)["1"].endswith("x") and PageElements("<<<>") == {}
    path.write_text(json.dumps([{**session(), "actions": [{"operation": {}}]}]))
    with pytest.raises(DataError, match="step 1"):
        read_steps(tmp_path, 1)
    with pytest.raises(DataError, match="has no steps of Mind2Web"):
        path.write_text("[]")
        read_steps(tmp_path, 0)
    with pytest.raises(ConfigError, match="level is 0"):
        agentbench_wb(level=0)


def test_the_grammar_offers_each_element_what_can_be_done_to_it() -> None:
    world = BrowseWorld(partial(SiteVisit, make_errand(0, 0, 1)), BrowserPool())
    assert world.form == "(look)"
    world.site, world._crashed, world._dialog = world.visit(), False, None
    kinds = ("text field", "choice", "button", "check box", "text field")
    elements = tuple(PageElement(place, kind, "x", "", ("a",)) for place, kind in enumerate(kinds))
    world._page = PageView("Form", "", elements)
    assert world.form is not None
    written = (("click", ""), ("type", " hi"), ("select", " a"), ("drag", " 2"), ("hover", ""))
    taken = [f"{verb}[{n}]{rest}" for verb, rest in written for n in range(7)]
    assert [each for each in taken if re.fullmatch(world.form, each)] == [
        "click[3]", "click[4]", "type[1] hi", "type[5] hi", "select[2] a"
    ]  # fmt: skip
    assert "drag" not in [move.__name__ for move in world.moves]
    with pytest.raises(InvalidAction, match="is no action: write click"):
        world.read("drag[1] 2")
    assert WorldEnvironment(world, rounds=3).version == world.form, "the grammar changes with the page"


def test_the_headless_shell_is_taken_before_the_whole_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="apt-get install chromium-headless-shell, or chromium"):
        ready()
    for name in ("chromium", "chromium-headless-shell"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
        assert ready() == str(tmp_path / name)


browsed = [
    pytest.mark.slow,
    pytest.mark.skipif(NO_CHROMIUM, reason="chromium is not installed"),
]


def attempt(benchmark: Benchmark, task: int, *actions: str) -> tuple[dict[str, object], list[str]]:
    agent = Agent("a", Scripted([f"Action: {each}" for each in actions]), thought_action, {"constrained": False})
    trace = asyncio.run(rollout(agent, benchmark.tasks(0)[task], benchmark=benchmark))
    assert trace.error is None
    return trace.final_state, [call.detail["result"] for call in trace.calls if call.kind == "tool"]


class TestChromium:
    """Real pages in a real browser."""

    pytestmark = browsed

    def test_errands_are_done_refused_and_survived_in_one_browser(self) -> None:
        benchmark = agentbench_wb(level=1, tasks=8, rounds=8)
        pool = benchmark.environment(benchmark.tasks(0)[0]).world.pool  # type: ignore[misc, union-attr]
        for task in benchmark.tasks(0)[:4]:
            trace = asyncio.run(play(benchmark, task, "optimal"))
            assert trace.value() == 1 and trace.final_state["ended"] == "done", task.id
        state, seen = attempt(
            benchmark, 1, "look", "click[5]", "click[1]", "dismiss", "click[1]", "type[1] x", "accept", "иди"
        )
        assert "Page: Orders" in seen[0] and "A dialog asks: Archive order" in seen[1]
        assert "a dialog is open" in seen[2] and "Page: Orders" in seen[3]
        assert "element 1 is a button" in seen[5] and "no dialog is open" in seen[6]
        assert state["ended"] == "rounds" and state["invalid_actions"] == 4
        environment = benchmark.environment(benchmark.tasks(0)[0])  # type: ignore[misc]
        asyncio.run(self.crash(environment))
        assert asyncio.run(play(benchmark, benchmark.tasks(0)[2], "optimal")).value() == 1, "the next task starts clean"
        pool.close()

    def test_more_attempts_at_once_than_browsers_lose_none(self) -> None:
        benchmark = agentbench_wb(level=1, tasks=12)

        async def at_once() -> list[Trace]:
            return list(await asyncio.gather(*(play(benchmark, task, "optimal") for task in benchmark.tasks(0))))

        traces = asyncio.run(at_once())
        assert [trace.error for trace in traces] == [None] * 12 and all(trace.value() == 1 for trace in traces)

    def test_downloads_windows_and_alerts_of_a_page_leave_nothing_for_the_next_task(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        benchmark = agentbench_wb(level=1, tasks=8, rounds=8)
        first, second = (benchmark.environment(task) for task in benchmark.tasks(0)[:2])  # type: ignore[misc]
        script = (
            "const a = document.createElement('a'); a.href = URL.createObjectURL(new Blob(['x'])); a.download = 'x.exe';"
            "a.click(); window.open('/'); setTimeout(() => alert('Buy now!'), 0)"
        )

        async def visit() -> tuple[str, str, list[str]]:
            await first.open()
            browser = first.world._browser  # type: ignore[attr-defined]
            browser.run(script)
            await asyncio.sleep(0.3)
            told = await first.act("click[1]" if "[1] link" in first.world.render() else "type[1] x")  # type: ignore[attr-defined]
            answered = await first.act("accept")  # type: ignore[attr-defined]
            await first.close()
            await second.open()
            assert second.world._browser is browser  # type: ignore[attr-defined]
            pages = [
                each for each in browser.devtools.call("Target.getTargets")["targetInfos"] if each["type"] == "page"
            ]
            windows = [each for each in pages if each.get("browserContextId") == browser._context]
            await second.close()
            return told, answered, windows

        told, answered, windows = asyncio.run(visit())
        assert "dialog" in told and "Buy now!" in told and "Page: " in answered
        assert len(windows) == 1 and not [path for path in tmp_path.rglob("x.exe*")]
        first.world.pool.close()  # type: ignore[attr-defined]

    async def crash(self, environment: object) -> None:
        """A browser that tries to leave, then one that dies in the middle of an attempt."""
        await environment.open()  # type: ignore[attr-defined]
        world = environment.world  # type: ignore[attr-defined]
        browser = world._browser
        script = (
            "const get = u => fetch(u, {mode: 'no-cors'}).then(() => 'yes', () => 'no');"
            f"Promise.all(['http://127.0.0.1:{world.pool.server.port}/', 'http://localhost/', 'http://example.com/', "
            "'https://1.1.1.1/'].map(get))"
        )
        before = world.pool.server.refused  # Chromium itself calls home, in vain
        reached = browser.run(script, wait=True)
        assert reached[3] == "no" and world.pool.server.refused >= before + 3, reached
        browser.run(
            "const a = document.createElement('a'); a.download = 'firsthand-never.bin';"
            "a.href = 'data:application/octet-stream,x'; document.body.append(a); a.click(); a.remove()"
        )
        assert "Page:" in await environment.act("look")  # type: ignore[attr-defined]
        places = (Path.cwd(), Path.home(), Path.home() / "Downloads")
        assert not any((place / "firsthand-never.bin").exists() for place in places), "downloads are refused"
        os.kill(browser.devtools.pid, signal.SIGKILL)
        observed = await environment.act("type[1] x")  # type: ignore[attr-defined]
        assert "The browser failed" in observed and environment.ended == "browser crashed"  # type: ignore[attr-defined]
        await environment.close()  # type: ignore[attr-defined]

    def test_a_hostile_page_reaches_no_file_and_no_other_server(self) -> None:
        pool = BrowserPool()
        with serve() as other:
            port = other.url.rsplit(":", 1)[1]

            class Hostile:
                def __init__(self, script: str) -> None:
                    self.script = script.replace("OTHER", port)

                first = "/"

                def answer(self, method: str, path: str, given: dict[str, str]) -> Answer:
                    if method == "POST":
                        return Answer(303, location=f"http://127.0.0.1:{port}/")
                    if path == "/redirected":
                        return Answer(
                            200, f"<meta http-equiv=refresh content='0;url=http://127.0.0.1:{port}/'>".encode()
                        )
                    return Answer(200, f"<body>here<script>{self.script}</script>".encode())

            for script in HOSTILE_SCRIPTS:
                browser = pool.take()
                assert len(windows_of(browser)) == 1, script
                browser.visit(pool.server.begin(Hostile(script)))  # type: ignore[arg-type]
                time.sleep(0.4)
                for window in windows_of(browser):
                    assert not window["url"].startswith(("file:", "view-source:file:")), script
                    assert "root:" not in source_of(browser, window["targetId"]), script
                assert other.asked == [], script
                pool.give_back(browser)
        pool.close()


def windows_of(browser: Chromium) -> list[dict[str, Any]]:
    """The pages that are open in the browser's context."""
    found = browser.devtools.call("Target.getTargets")["targetInfos"]
    return [each for each in found if each["type"] == "page" and each.get("browserContextId") == browser._context]


def source_of(browser: Chromium, target: str) -> str:
    """The HTML of a page."""
    session = browser.devtools.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    asked = {"expression": "document.documentElement.outerHTML", "returnByValue": True}
    told = browser.devtools.call("Runtime.evaluate", session, **asked)
    return str(told["result"].get("value", ""))


HOSTILE_SCRIPTS = [
    "location.href = 'file:///etc/passwd'",
    "window.open('file:///etc/passwd')",
    'document.body.innerHTML = \'<iframe src="file:///etc/passwd"></iframe><object data="file:///etc/passwd">\'',
    "location.href = 'http://127.0.0.1:OTHER/'",
    "window.open('http://127.0.0.1:OTHER/')",
    'document.body.innerHTML = \'<img src="http://127.0.0.1:OTHER/x"><iframe src="//127.0.0.1:OTHER/"></iframe>\'',
    "fetch('http://127.0.0.1:OTHER/', {mode: 'no-cors'}); navigator.sendBeacon('http://127.0.0.1:OTHER/', 'x')",
    "new WebSocket('ws://127.0.0.1:OTHER/'); new EventSource('http://127.0.0.1:OTHER/')",
    "location.href = 'data:text/html,<script>location=\"http://127.0.0.1:OTHER/\"</scr' + 'ipt>'",
    "location.href = '/redirected'",
    "const f = document.createElement('form'); f.method = 'post'; document.body.append(f); f.submit()",
    "location.href = 'blob:null/x'; location.href = 'chrome://settings'; location.href = 'view-source:file:///etc/passwd'",
]
"""What a page could run to read files or to reach another server of this machine."""
