"""The Studio in a real browser: flows, keys, live changes, the policy, accessibility; a message on the console fails."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import make_run
from firsthand.message import assistant, user
from firsthand.model import Usage
from firsthand.runs import store
from firsthand.runs.track import Track
from firsthand.trace import Call, Node, Score, Trace

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
AXE_SHA256 = "39bed7d72308f6d620789c169d699bfd7e8da80f65b545821a6b2215c3e83107"
CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="chromium is not installed"),
]


def until(is_so: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The first true value, or a failure after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := is_so():
                return found
        except Exception:  # an element that htmx has just replaced
            pass
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    make_run.make(folder)
    for lr in (1, 2):
        with store.create(folder, {"lr": lr}, f"fit{lr}") as run:
            track = Track(run)
            for step in range(200):
                track.log({"loss": lr / (step + 1), "reward": step / 200}, step=step)
            track.flush()
    calls = tuple(
        Call(f"{n % 50}:{n // 50}", "generate", 0, n / 1000, 0.001, "0" * 64, Usage(5, 0, 2)) for n in range(20_000)
    )
    with store.create(folder, {}, "large") as run:
        run.append(
            Trace("large", "quiz", "many", {"name": "a"}, 0, 0, "2026-11-27T00:00:00+00:00", 20.0,
                  (Node(None, user("q")), Node(0, assistant("a"))), calls, answer="a", scores=(Score("exact", 1.0),))
        )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def address(home: Path) -> Iterator[Callable[[], str]]:
    """A function that returns an address with a fresh code; the first comes from the command, the rest on Enter."""
    command = [sys.executable, "-m", "firsthand", "studio", "--no-open", "--port", "0"]
    environment = {**os.environ, "FIRSTHAND_HOME": str(home)}
    leader, follower = os.openpty()
    process = subprocess.Popen(
        command, stdin=follower, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    assert process.stdout is not None
    first = re.search(r"http://\S+", process.stdout.readline())
    assert first is not None
    waiting = [first[0]]
    process.stdout.readline()

    def fresh() -> str:
        if waiting:
            return waiting.pop()
        os.write(leader, b"\n")
        assert process.stdout is not None
        return until(lambda: re.search(r"http://\S+", process.stdout.readline()))[0]  # type: ignore[union-attr,no-any-return]

    yield fresh
    process.terminate()
    assert process.wait(20) in (0, -15, 143)
    os.close(leader)
    os.close(follower)


def start_browser(width: int = 1280) -> Any:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--window-size={width},900",
        "--disable-dev-shm-usage",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))


@pytest.fixture(scope="module")
def opened(address: Callable[[], str]) -> Iterator[tuple[Any, str]]:
    browser = start_browser()
    url = address()
    browser.get(url)
    yield browser, url.partition("/enter")[0]
    browser.quit()


@contextlib.contextmanager
def studio_in_browser(home: Path, *words: str) -> Iterator[tuple[Any, str]]:
    """A browser at the first page of a Studio over a home, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "firsthand", "studio", "--no-open", "--port", "0", *words], stdout=subprocess.PIPE,
        text=True, stdin=subprocess.DEVNULL, env={**os.environ, "FIRSTHAND_HOME": str(home)},
    )  # fmt: skip
    assert process.stdout is not None
    address = re.search(r"http://\S+", process.stdout.readline())
    assert address is not None
    made = start_browser()
    made.get(address[0])
    yield made, address[0].partition("/enter")[0]
    made.quit()
    process.terminate()
    assert process.wait(20) in (0, -15, 143)


def find(browser: Any, selector: str) -> list[Any]:
    return list(browser.find_elements("css selector", selector))


def text(browser: Any, selector: str = "main") -> str:
    return str(browser.find_element("css selector", selector).text)


def press(browser: Any, *keys: str) -> None:
    for key in keys:
        webdriver.ActionChains(browser).send_keys(key).perform()


def axe_script() -> str:
    """The accessibility checker axe-core from the npm registry, kept in the cache of the tests."""
    kept = Path.home() / ".cache" / "firsthand-tests" / "axe-core-4.11.0.tgz"
    if not kept.is_file():
        try:
            with urllib.request.urlopen(
                "https://registry.npmjs.org/axe-core/-/axe-core-4.11.0.tgz", timeout=60
            ) as answer:
                body = answer.read()
        except OSError:
            pytest.skip("the npm registry cannot be reached")
        assert hashlib.sha256(body).hexdigest() == AXE_SHA256
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.with_suffix(".part").write_bytes(body)
        kept.with_suffix(".part").rename(kept)
    with tarfile.open(kept) as packed:
        member = packed.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()


def violations(browser: Any, axe: str) -> list[str]:
    """The rules of axe-core that the page breaks, with the first elements of each."""
    browser.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
    browser.execute_script(axe)
    return list(
        browser.execute_async_script(
            "const done = arguments[arguments.length - 1]; axe.run().then(r => done(r.violations.map(v => "
            "v.id + ': ' + v.nodes.map(n => n.target.join(' ')).slice(0, 3).join(', '))))"
        )
    )


def run_id(home: Path, name: str) -> str:
    return next(info.id for info in store.list_runs(home) if name in info.id)


def test_a_filter_is_typed_and_stands_in_the_address(browser: Any, base: str, home: Path) -> None:
    browser.get(base)
    assert len(find(browser, "tr[data-row]")) == 4
    press(browser, "/")
    press(browser, "has:curves")
    until(lambda: len(find(browser, "tr[data-row]")) == 2 and "has%3Acurves" in browser.current_url)
    browser.refresh()
    assert len(find(browser, "tr[data-row]")) == 2
    browser.back()
    until(lambda: "has" not in browser.current_url and len(find(browser, "tr[data-row]")) == 4)


def test_a_facet_is_a_click_and_a_second_click_takes_it_back(browser: Any, base: str, home: Path) -> None:
    browser.get(f"{base}/runs/{run_id(home, 'fixture')}")
    until(lambda: "vs. direct" in text(browser))
    facet = next(each for each in find(browser, "[data-term]") if each.text.startswith("react"))
    facet.click()
    until(lambda: "agent%3Dreact" in browser.current_url)
    assert "20 attempts" in text(browser, "#table")
    next(each for each in find(browser, "[data-term]") if each.text.startswith("react")).click()
    until(lambda: "80 attempts" in text(browser, "#table"))


def test_keys_move_open_and_go_back(browser: Any, base: str, home: Path) -> None:
    browser.get(f"{base}/runs/{run_id(home, 'fixture')}?sort=task")
    press(browser, "j", "j", "k", "j")
    assert [row.get_attribute("class") for row in find(browser, "tr[data-row]")[:3]] == ["", "here", ""]
    press(browser, webdriver.Keys.ENTER)
    until(lambda: "/attempts/" in browser.current_url)
    first = browser.current_url
    press(browser, "n")
    until(lambda: browser.current_url != first)
    press(browser, "p")
    until(lambda: browser.current_url == first)
    press(browser, "?")
    assert find(browser, "dialog[open]")
    press(browser, webdriver.Keys.ESCAPE)
    until(lambda: not find(browser, "dialog[open]"))
    press(browser, "g", "r")
    until(lambda: browser.current_url == f"{base}/")


def test_marked_runs_are_compared(browser: Any, base: str) -> None:
    browser.get(f"{base}/?sort=created")
    press(browser, "j", "x", "c")
    until(lambda: "/compare?run=" in browser.current_url)
    assert "95% CI" in text(browser) and len(find(browser, "tr[data-row]")) > 0


def test_a_tree_of_twenty_thousand_spans_draws_what_is_in_view(browser: Any, base: str, home: Path) -> None:
    browser.get(f"{base}/runs/{run_id(home, 'large')}/attempts/large?view=tree")
    until(lambda: "20,051 spans" in text(browser, "#tree-count"))
    assert 10 < len(find(browser, "#tree .span")) < 80
    browser.execute_script("document.getElementById('tree').scrollTop = 1e9")
    until(lambda: find(browser, "#tree .span")[-1].get_attribute("aria-posinset") == "20051")
    press(browser, "[")
    until(lambda: find(browser, "#tree .span")[0].get_attribute("aria-setsize") == "51")
    press(browser, "]")
    browser.find_element("id", "tree-search").send_keys("49")
    until(lambda: text(browser, "#tree-count").startswith("1 of"))
    press(browser, webdriver.Keys.ESCAPE)
    press(browser, "j", "j")
    until(lambda: "span=" in browser.current_url)


def test_a_span_shows_its_contents_and_is_kept_in_the_address(browser: Any, base: str, home: Path) -> None:
    run = run_id(home, "fixture")
    browser.get(f"{base}/runs/{run}?filter=agent%3Dreact")
    browser.get(find(browser, "tr[data-row] a")[0].get_attribute("href").partition("?")[0] + "?view=tree")
    until(lambda: find(browser, "#tree .generate"))
    find(browser, "#tree .generate")[0].click()
    until(lambda: "prompt tokens" in text(browser, "#span"))
    browser.refresh()
    until(lambda: "prompt tokens" in text(browser, "#span"))


def test_a_run_that_goes_on_is_shown_without_a_reload(browser: Any, base: str, home: Path) -> None:
    with store.create(home, {}, "growing") as run:
        browser.get(f"{base}/runs/{run.id}")
        browser.execute_script("window.stays = true")
        for number in range(3):
            run.append(
                Trace(f"grown{number}", "quiz", f"t{number}", {"name": "a"}, 0, 0, "2026-11-27T00:00:00+00:00", 1.0,
                      answer="a", scores=(Score("exact", 1.0),))
            )  # fmt: skip
            until(lambda: len(find(browser, "tr[data-row]")) == number + 1)  # noqa: B023
        assert browser.execute_script("return window.stays")


def test_curves_of_two_runs_share_a_plot_and_settings_stay_in_the_address(browser: Any, base: str, home: Path) -> None:
    browser.get(f"{base}/curves?run={run_id(home, 'fit1')}&run={run_id(home, 'fit2')}")
    until(lambda: len(find(browser, ".plot canvas")) == 2)
    assert "lr" in text(browser)
    browser.find_element("name", "metric").send_keys("loss")
    browser.find_element("name", "logy").click()
    until(lambda: len(find(browser, ".plot canvas")) == 1 and "logy=1" in browser.current_url)
    browser.refresh()
    until(lambda: len(find(browser, ".plot canvas")) == 1)
    assert browser.find_element("name", "metric").get_attribute("value") == "loss"


def test_a_note_is_written_in_the_form(browser: Any, base: str, home: Path) -> None:
    run = run_id(home, "fixture")
    browser.get(f"{base}/runs/{run}?filter=agent%3Dcot")
    find(browser, "tr[data-row] a")[0].click()
    until(lambda: find(browser, "form.note"))
    browser.find_element("name", "text").send_keys("seen by a person")
    browser.find_element("css selector", "form.note button").click()
    until(lambda: "seen by a person" in text(browser, "dl.facts"))


def test_nothing_is_wider_than_a_phone_and_both_themes_work(browser: Any, base: str, home: Path) -> None:
    browser.set_window_size(500, 900)
    try:
        run = run_id(home, "fixture")
        attempt = f"/runs/{run_id(home, 'large')}/attempts/large"
        for path in ("/", f"/runs/{run}", attempt, f"{attempt}?view=tree", f"/compare?run={run}", "/curves"):
            browser.get(base + path)
            wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert browser.execute_script(wide) <= 0, path
        before = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        browser.find_element("css selector", "[data-theme]:not(html)").click()
        assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") != before
        browser.find_element("css selector", "[data-theme]:not(html)").click()
    finally:
        browser.set_window_size(1280, 900)


def test_a_script_in_a_trace_does_not_run(browser: Any, base: str, home: Path) -> None:
    evil = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"
    with store.create(home, {}, "scripted") as run:
        run.append(
            Trace("scripted", "quiz", evil, {"name": evil}, 0, 0, "2026-11-27T00:00:00+00:00", 1.0,
                  (Node(None, user(evil)), Node(0, assistant(evil))),
                  (Call(":0", "generate", 0, 0.0, 1.0, "0" * 64, Usage(1, 0, 1), (1,)),), answer=evil)
        )  # fmt: skip
    for path in (
        f"/runs/{run.id}",
        f"/runs/{run.id}/attempts/scripted",
        f"/runs/{run.id}/attempts/scripted?view=tree&span=1",
    ):
        browser.get(base + path)
        until(lambda: "window.hacked" in browser.page_source)
        time.sleep(0.2)  # time in which it would have run
        assert browser.execute_script("return window.hacked") is None


def test_a_second_browser_needs_a_code_of_its_own(address: Callable[[], str], base: str) -> None:
    other = start_browser()
    try:
        other.get(f"{base}/")
        assert "code works once" in other.page_source
        other.get(address())
        assert "Runs" in other.title
    finally:
        other.quit()


def test_the_pages_are_accessible(browser: Any, base: str, home: Path) -> None:
    axe = axe_script()
    run = run_id(home, "fixture")
    for path in (
        "/",
        f"/runs/{run}",
        f"/runs/{run_id(home, 'large')}/attempts/large",
        f"/compare?run={run}",
        "/curves",
    ):
        browser.get(base + path)
        until(lambda: "Scores are computed" not in browser.page_source)
        assert violations(browser, axe) == [], path
