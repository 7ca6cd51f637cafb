"""A browser's visits from start to end: what a program that stands in for Chromium is started with and told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.worlds.browsing import chromium
from firsthand.worlds.browsing.browse_world import BrowseWorld
from firsthand.worlds.browsing.chromium import FLAGS, PREFERENCES, CannotUse, Chromium, PageElement, PageView
from firsthand.worlds.browsing.devtools import DevTools, DevToolsError
from firsthand.worlds.world import InvalidAction, WorldEnvironment

PROGRAM = f"""#!{sys.executable} -IS
import json, os, sys
folder = os.path.dirname(sys.argv[0])
given = next(each for each in sys.argv if each.startswith("--user-data-dir="))
preferences = open(given.split("=", 1)[1] + "/Default/Preferences").read()
open(folder + "/started", "w").write(json.dumps([sys.argv, preferences, os.getpgrp() == os.getpid()]))
log = open(folder + "/told", "w", buffering=1)
held, made = b"", {{"Context": 0, "Target": 0, "Session": 0}}
def say(body):
    os.write(4, json.dumps(body).encode() + b"\\0")
def one_more(kind):
    made[kind] += 1
    return kind + str(made[kind])
def event(session, method, **params):
    say({{"method": "Page." + method, "params": params, "sessionId": session}})
while read := os.read(3, 65536):
    *whole, held = (held + read).split(b"\\0")
    for each in map(json.loads, whole):
        log.write(json.dumps([each["method"], each["params"], each.get("sessionId")]) + "\\n")
        method, url, result = each["method"], each["params"].get("url", ""), {{}}
        if method == "Browser.close":
            sys.exit()
        if method == "Target.createBrowserContext":
            result = {{"browserContextId": one_more("Context")}}
        if method == "Target.createTarget":
            result = {{"targetId": one_more("Target")}}
        if method == "Target.attachToTarget":
            result = {{"sessionId": one_more("Session")}}
        if method == "Page.navigate" and "wrong" in url:
            result = {{"errorText": "net::ERR_FAILED"}}
        elif method == "Page.navigate":
            frame = "Target" + str(made["Target"])
            event(each["sessionId"], "frameStartedNavigating", frameId=frame)
            event(each["sessionId"], "frameStartedLoading", frameId=frame)
            event(each["sessionId"], "frameStoppedLoading", frameId=frame)
        if method == "Page.handleJavaScriptDialog":
            event("Session1", "javascriptDialogOpening", message="of the page before")
        say({{"id": each["id"], "result": result}})
"""


def program(folder: Path) -> Path:
    path = folder / "google-chrome"
    path.write_text(PROGRAM)
    path.chmod(0o755)
    return path


def told(folder: Path) -> list[list[Any]]:
    return [json.loads(line) for line in (folder / "told").read_text().splitlines()]


def begun(number: int) -> list[list[Any]]:
    """What opens the browser context of this number."""
    context, target, session = f"Context{number}", f"Target{number}", f"Session{number}"
    size = {"width": 1000, "height": 1400}
    return [
        ["Target.createBrowserContext", {}, None],
        ["Browser.setDownloadBehavior", {"behavior": "deny", "browserContextId": context}, None],
        ["Target.createTarget", {"url": "about:blank", "browserContextId": context, **size}, None],
        ["Target.attachToTarget", {"targetId": target, "flatten": True}, None],
        ["Page.enable", {}, session],
        ["Inspector.enable", {}, session],
    ]


def test_a_browser_opens_a_context_for_each_attempt_and_forgets_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = program(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert chromium.ready() == str(path)
    browser = Chromium(4321)
    try:
        profile = browser.devtools.profile
        given, preferences, leads = json.loads((tmp_path / "started").read_text())
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        assert given == [
            str(path), *FLAGS, "--window-size=1000,1400", "--proxy-server=http://127.0.0.1:4321", *sandbox,
            "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        assert json.loads(preferences) == PREFERENCES and leads is True
        assert profile.name.startswith("firsthand-chromium-")
        assert (browser._context, browser._target, browser._session) == ("Context1", "Target1", "Session1")
        assert (browser._dialog, browser._loading, browser._crashed) == (None, False, False)
        assert list(browser.devtools._listeners) == ["Session1"]
        browser.visit("http://a.test/é")
        assert browser._loading is False and browser._started is True
        with pytest.raises(ConnectionError, match=r"^the page did not load: net::ERR_FAILED$"):
            browser.visit("http://wrong.test/")
        browser._dialog, browser._crashed = "Sure?", True
        browser.clean()
        assert (browser._context, browser._target, browser._session) == ("Context2", "Target2", "Session2")
        assert (browser._dialog, browser._loading, browser._crashed) == (None, False, False)
        browser.answer(True)
        assert list(browser.devtools._listeners) == ["Session2"]
        browser.devtools.call("Browser.getVersion")
        assert browser._dialog is None, "the page before is not heard any more"
        assert told(tmp_path) == [
            ["Browser.getVersion", {}, None],
            *begun(1),
            ["Page.navigate", {"url": "http://a.test/é"}, "Session1"],
            ["Page.navigate", {"url": "http://wrong.test/"}, "Session1"],
            ["Target.disposeBrowserContext", {"browserContextId": "Context1"}, None],
            *begun(2),
            ["Page.handleJavaScriptDialog", {"accept": True}, "Session2"],
            ["Browser.getVersion", {}, None],
        ]
    finally:
        browser.quit()
    assert told(tmp_path)[-1] == ["Browser.close", {}, None] and not profile.exists()
    with pytest.raises(ChildProcessError):
        os.waitpid(browser.devtools.pid, os.WNOHANG)
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"^web browsing needs Chromium, which is not installed: apt-get install "):
        Chromium(1)


class Calls:
    """Keeps what a Chromium asks for, and how long it waits."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked = list(answers), list[Any]()

    def send(self, method: str, session: str = "", **given: Any) -> int:
        self.asked.append((method, session, given))
        return len(self.asked)

    def wait(self, number: int, timeout_s: float = 5.0, unless: Any = lambda: False) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return None if unless() else answer

    def call(self, method: str, session: str = "", *, timeout_s: float = 5.0, **given: Any) -> Any:
        self.asked.append((method, session, given, timeout_s))
        return {}

    def until(self, holds: Any, timeout_s: float) -> None:
        self.asked.append(("until", timeout_s))
        if not holds():
            raise TimeoutError


def opened(*answers: Any) -> tuple[Chromium, Calls]:
    browser, calls = Chromium.__new__(Chromium), Calls(*answers)
    browser.devtools = calls  # type: ignore[assignment]
    browser._session, browser._target, browser._dialog = "s", "frame", None
    browser._loading = browser._crashed = browser._started = False
    return browser, calls


def test_a_script_gives_its_value_or_tells_what_broke_it() -> None:
    def value(given: object) -> dict[str, Any]:
        return {"result": {"value": given}}

    browser, calls = opened(value(0), {"result": {"type": "undefined"}}, value(3))
    assert browser.run("a") == 0 and browser.run("b", wait=True) is None and browser.run("c", wait=False) == 3
    assert calls.asked == [
        ("Runtime.evaluate", "s", {"expression": name, "returnByValue": True, "awaitPromise": waits})
        for name, waits in (("a", False), ("b", True), ("c", False))
    ]
    broken = {"exceptionDetails": {"exception": {"description": "E" * 301}}, "result": {"value": 1}}
    browser, _ = opened(broken, {"exceptionDetails": {}}, DevToolsError("gone"), DevToolsError("moved"), value(1))
    for said in ("E" * 300, "", "gone"):
        with pytest.raises(DevToolsError) as error:
            browser.run("x")
        assert str(error.value) == said
    browser._loading = True
    assert browser.run("x") is None, "the page that was asked has gone"
    browser._dialog = ""
    assert browser.run("x") is None, "a dialog without a text is one too"


def test_a_page_is_waited_for_ten_seconds_and_twenty_times() -> None:
    browser, calls = opened()
    browser._load()
    with pytest.raises(TimeoutError, match=r"^the page did not load within 10 s$"):
        browser.visit("http://a.test/")
    assert calls.asked == [("until", 10), ("Page.navigate", "s", {"url": "http://a.test/"}, 10), ("until", 10)]
    assert (browser._loading, browser._started) == (True, False)
    for name, state in (("_dialog", ""), ("_crashed", True)):
        browser, calls = opened()
        browser._loading = True
        setattr(browser, name, state)
        browser._load()
        assert calls.asked == [("until", 10)], "what stops the page ends the waiting"
    before, shown = PageView("before", "", ()), {"result": {"value": ["T", "x", []]}}
    nothing = {"result": {}}
    browser, calls = opened(nothing, *[nothing] * 19, shown)
    assert browser.seen(before, "look") == (PageView("T", "x", ()), None)
    assert [each[2]["expression"] for each in calls.asked if each[0] != "until"] == ["0", *["look"] * 20]
    browser, calls = opened(nothing, *[nothing] * 20, shown)
    with pytest.raises(TimeoutError, match=r"^20 pages came one after the other$"):
        browser.seen(before)
    assert len(calls.answers) == 1


def test_a_drag_goes_four_pixels_past_the_middle_and_a_short_one_twice_as_far() -> None:
    def ends(*, onto: list[float], start: list[float]) -> list[tuple[Any, ...]]:
        answers = [{"result": {"value": onto}}, {"result": {"value": start}}]
        browser, calls = opened(*answers, *[{}] * 20)
        target, element = PageElement(7, "item", "b", "", ()), PageElement(4, "item", "a", "", ())
        browser.drag(element, target)
        assert [each[2]["expression"][-3:] for each in calls.asked[:2]] == ["(7)", "(4)"]
        events = [each[2] for each in calls.asked[2:]]
        return [(each["type"], round(each["x"], 3), round(each["y"], 3), each["buttons"]) for each in events]

    moved = ends(onto=[40.0, 2.0], start=[10.0, 42.0])  # 50 px long, so 4 px are 0.08 of it
    way = [("mouseMoved", 10 + part * 32.4 / 8, 42 - part * 43.2 / 8, 1) for part in range(1, 9)]
    assert moved == [
        ("mouseMoved", 10, 42, 0), ("mousePressed", 10, 42, 0),
        *((kind, round(x, 3), round(y, 3), held) for kind, x, y, held in way), ("mouseReleased", 42.4, -1.2, 0),
    ]  # fmt: skip
    assert ends(onto=[13.0, 20.0], start=[10.0, 20.0])[-1] == ("mouseReleased", 16, 20, 0), "3 px, twice"
    assert ends(onto=[10.0, 20.0], start=[10.0, 20.0])[-1] == ("mouseReleased", 10, 20, 0)
    browser, calls = opened({"result": {"value": None}}, {"result": {"value": [1, 2]}})
    browser.drag(PageElement(0, "item", "", "", ()), PageElement(1, "item", "", "", ()))
    assert len(calls.asked) == 2, "nothing is pressed where one of them cannot be met"


class Site:
    """A site that keeps what is done with it."""

    clicks, verbs, view, is_done = ("link",), (), "the view", False

    def __init__(self, kept: list[Any]) -> None:
        self.kept = kept

    def begin(self, browser: Any) -> None:
        self.kept.append(("begin", browser.name))

    def follow(self, browser: Any) -> None:
        self.kept.append(("follow", browser.name))


class Browser:
    """A browser by name; `wrong` is raised by its visits."""

    def __init__(self, name: str, kept: list[Any], wrong: Exception | None = None) -> None:
        self.name, self.kept, self.wrong = name, kept, wrong

    def visit(self, address: str) -> None:
        self.kept.append(("visit", self.name, address))
        if self.wrong is not None:
            raise self.wrong

    def seen(self, before: PageView, script: str) -> tuple[PageView, str | None]:
        self.kept.append(("seen", self.name, before.title, script))
        return PageView(f"page of {self.name}", "", (PageElement(0, "link", "Go", "", ()),)), None


class Pool:
    """A pool that hands out the given browsers in order."""

    def __init__(self, kept: list[Any], *browsers: Browser) -> None:
        self.kept, self.browsers, self.server = kept, list(browsers), self

    def begin(self, site: Any) -> str:
        self.kept.append(("served", type(site).__name__))
        return "http://here/"

    def take(self) -> Browser:
        return self.browsers.pop(0)

    def give_back(self, browser: Browser) -> None:
        self.kept.append(("back", browser.name))

    def end(self, what: Any) -> None:
        self.kept.append(("end", getattr(what, "name", what)))


def world_of(*browsers: tuple[str, Exception | None]) -> tuple[BrowseWorld, list[Any]]:
    kept: list[Any] = []
    pool = Pool(kept, *(Browser(name, kept, wrong) for name, wrong in browsers))
    return BrowseWorld(lambda: Site(kept), pool), kept  # type: ignore[arg-type, return-value]


def test_a_visit_begins_in_another_browser_where_the_first_has_died_and_gives_it_back() -> None:
    world, kept = world_of(("a", ConnectionError("dead")), ("b", None))
    asyncio.run(world.open())
    shown = [("visit", "b", "http://here/"), ("begin", "b"), ("seen", "b", "", "the view")]
    assert kept == [("served", "Site"), ("visit", "a", "http://here/"), ("end", "a"), *shown]
    assert world._page.title == "page of b" and world._dialog is None and world.ending is None
    kept.clear()
    asyncio.run(world.close())
    asyncio.run(world.close())
    assert kept == [("end", "http://here/"), ("back", "b"), ("end", "http://here/")], "a browser is given back once"
    world, kept = world_of(("a", OSError("dead")), ("b", TimeoutError("late")))
    with pytest.raises(TimeoutError, match=r"^late$"):
        asyncio.run(world.open())
    asyncio.run(world.close())
    assert kept[-2:] == [("end", "http://here/"), ("back", "b")]
    world, kept = world_of(("a", None))
    asyncio.run(world.open())
    kept.clear()
    asyncio.run(world.close())
    kept.clear()
    world.pool.browsers.append(Browser("late", kept))  # type: ignore[attr-defined]
    world._visit()
    assert kept == [("back", "late")] and world._browser is None, "one that comes after the end is not used"


def test_a_world_that_is_closed_while_it_waits_for_its_first_browser_gives_that_back_unused() -> None:
    world, kept = world_of()

    def take() -> Browser:
        asyncio.run(world.close())
        return Browser("late", kept)

    world.pool.take = take  # type: ignore[assignment, method-assign]
    asyncio.run(world.open())
    assert kept == [("served", "Site"), ("end", "http://here/"), ("back", "late")]


def test_an_act_is_followed_by_the_site_even_where_it_could_not_be_done() -> None:
    world, kept = world_of(("a", None))
    asyncio.run(world.open())
    kept.clear()
    threads: list[int] = []

    def act(browser: Any) -> None:
        threads.append(threading.get_ident())
        kept.append(("act", browser.name))

    followed = [("seen", "a", "page of a", "the view"), ("follow", "a")]
    assert asyncio.run(world._use(act)) == "Page: page of a\n\nElements:\n[1] link 'Go'"
    assert kept == [("act", "a"), *followed] and threads != [threading.get_ident()]
    kept.clear()

    def covered(browser: Any) -> None:
        raise CannotUse("it is hidden")

    with pytest.raises(InvalidAction) as error:
        asyncio.run(world._use(covered))
    assert str(error.value) == "the browser could not do that (it is hidden): look at the page again"
    assert kept == followed and world.ending is None
    kept.clear()

    def breaks(browser: Any) -> None:
        raise DevToolsError("no such page")

    assert asyncio.run(world._use(breaks)) == "The browser failed (DevToolsError)."
    assert (kept, world.ending) == ([], "browser crashed")
    asyncio.run(world.close())
    assert kept == [("end", "http://here/"), ("end", "a")], "a crashed one is ended and not kept"
    world.pool.browsers.append(Browser("c", kept))  # type: ignore[attr-defined]
    asyncio.run(world.open())
    assert world.ending is None and kept[-1] == ("seen", "c", "", "the view"), "the next attempt begins anew"


class Timed(Site):
    """A site whose page ends the errand by itself, before it is followed for the third time."""

    def follow(self, browser: Any) -> None:
        super().follow(browser)
        self.is_done = self.kept.count(("follow", browser.name)) == 3

    def result(self) -> dict[str, Any]:
        return {"done": self.is_done}


def test_a_look_and_the_result_are_of_the_page_as_it_is_now() -> None:
    world, kept = world_of(("a", None))
    world.visit = lambda: Timed(kept)  # type: ignore[assignment, return-value]
    environment = WorldEnvironment(world, rounds=9)
    asyncio.run(environment.open())
    world._page = PageView("a page of before", "", ())
    kept.clear()
    assert asyncio.run(environment.act("look")) == "Page: page of a\n\nElements:\n[1] link 'Go'"
    assert kept == [("seen", "a", "a page of before", "the view"), ("follow", "a")]
    state = asyncio.run(environment.final_state())
    assert (state["ended"], state["result"]) == ("stopped", {"done": False}) and len(kept) == 4
    state = asyncio.run(environment.final_state())
    assert (state["ended"], state["result"]) == ("done", {"done": True}), "it ended after the last action"
    kept.clear()
    asyncio.run(world.result())
    assert kept == [], "what is done stays as it is"
    world.site.is_done = False  # type: ignore[misc]
    asyncio.run(environment.close())
    assert asyncio.run(world.result()) == {"done": False}, "a closed one has no page"


@pytest.mark.parametrize("looked", [False, True])
def test_a_browser_that_dies_after_the_last_action_ends_the_attempt_and_is_not_asked_again(looked: bool) -> None:
    world, kept = world_of(("a", None))
    world.visit = lambda: Timed(kept)  # type: ignore[assignment, return-value]
    asyncio.run(world.open())
    asked: list[str] = []

    def dies(*given: Any) -> Any:
        asked.append("seen")
        raise ConnectionError("the browser has ended")

    world._browser.seen = dies  # type: ignore[union-attr, method-assign]
    if looked:
        assert asyncio.run(world.look()) == "The browser failed (ConnectionError)."
    assert asyncio.run(world.result()) == {"done": False}
    assert (world.ending, asked) == ("browser crashed", ["seen"])
    asyncio.run(world.close())
    assert asyncio.run(world.result()) == {"done": False} and kept[-1] == ("end", "a")


def test_answers_are_kept_for_their_number_and_only_while_they_are_waited_for(tmp_path: Path) -> None:
    with contextlib.closing(DevTools(str(program(tmp_path)), [], {})) as devtools:
        first, second = devtools.send("One", a=1), devtools.send("Two", "s")
        assert (first, second) == (2, 3), "the first was asked at the start"
        assert all(each.daemon for each in threading.enumerate() if each.name == "chromium")
        assert devtools.wait(second) == {} and devtools._asked == {first}
        assert devtools.wait(first) == {} and devtools._asked == set()
        assert devtools.wait(first, unless=lambda: True) is None
        with pytest.raises(TimeoutError, match=r"^the browser did not answer within 0\.02 s$"):
            devtools.wait(first, 0.02)
        heard: list[Any] = []
        devtools.listen("", lambda *event: heard.append(event))
        devtools.listen("x", lambda *event: heard.append(("x", *event)))
        devtools._asked.add(9)
        for message in (
            {"id": 8, "result": {"n": 1}},
            {"id": 9, "error": {"message": "m" * 301}},
            {"method": "A", "params": {"n": 2}},
            {"method": "B", "sessionId": "x"},
            {"method": "C", "sessionId": "y"},
        ):
            devtools._take(message)
        assert heard == [("A", {"n": 2}), ("x", "B", {})] and list(devtools._answers) == [9]
        with pytest.raises(DevToolsError) as error:
            devtools.wait(9)
        assert str(error.value) == "m" * 300 and devtools._answers == {}
        devtools._asked.add(10)
        devtools._take({"id": 10, "error": {"code": 3}})
        with pytest.raises(DevToolsError, match=r"^\{'code': 3\}$"):
            devtools.wait(10)
        assert told(tmp_path)[1:] == [["One", {"a": 1}, None], ["Two", {}, "s"]]
    for _ in range(2):
        with pytest.raises(ConnectionError, match=r"^the browser has ended$"):
            devtools.send("Three")
