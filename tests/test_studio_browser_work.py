"""What people do in the Studio, in a real browser: vote, try, rate, group, brush, save; a message on the console fails."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from firsthand.runs import store
from firsthand.runs.track import Track
from firsthand.studio.demo_home import demo_home
from firsthand.studio.run_export import exported
from firsthand.trace import Failure, Score, Trace
from sae_tiny import autoencoder_of
from test_studio_browser import (
    CHROMIUM,
    DRIVER,
    axe_script,
    find,
    press,
    studio_in_browser,
    text,
    until,
    violations,
    webdriver,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="chromium is not installed"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    with demo_home() as demo:
        shutil.copytree(demo / "runs", folder / "runs", ignore=shutil.ignore_patterns("index*"))
    for number in range(4):
        with store.create(folder, {"lr": 10.0**-number, "kind": "ab"[number % 2]}, f"sweep{number}") as run:
            track = Track(run)
            for step in range(20):
                track.log({"loss": (number + 1) / (step + 1)}, step=step)
            track.flush()
    for name, answer in (("amber", "It is four, as two and two are four."), ("cobalt", "Four.")):
        (folder / f"{name}.json").write_text(json.dumps({"": answer}))
    autoencoder_of(folder)
    return folder


@pytest.fixture(scope="module")
def opened(home: Path) -> Iterator[tuple[Any, str]]:
    models = ",".join(f"scripted:{home}/{name}.json" for name in ("amber", "cobalt"))
    with studio_in_browser(home, "--model", models) as found:
        yield found


def run_id(home: Path, name: str) -> str:
    return next(info.id for info in store.list_runs(home) if name in info.id)


def test_a_battle_by_keys_with_an_undo_and_the_names_at_the_end(browser: Any, base: str, home: Path) -> None:
    browser.get(f"{base}/arena")
    browser.find_element("name", "prompt").send_keys("2 + 2?", webdriver.Keys.CONTROL, webdriver.Keys.ENTER)
    until(lambda: find(browser, "[data-vote]:not(:disabled)"))
    assert "amber" not in browser.page_source and "cobalt" not in browser.page_source
    shown = {text(browser, "#text-a"), text(browser, "#text-b")}
    assert shown == {"It is four, as two and two are four.", "Four."}
    press(browser, "1")
    until(lambda: "u undoes it" in text(browser, "#said"))
    press(browser, "u")
    until(lambda: "taken back" in text(browser, "#said"))
    press(browser, "2")
    until(lambda: find(browser, "#reasons:not([hidden])"))
    find(browser, "[data-reason=clear]")[0].click()
    assert "amber" not in browser.page_source
    press(browser, "r")
    until(lambda: "amber" in text(browser, "#duel") and "cobalt" in text(browser, "#duel"))
    with store.open_run(run_id(home, "arena"), home) as run:
        (vote,) = run.preferences()
        assert (vote.winner, (vote.detail or {})["reasons"]) == ("b", ["clear"])
    browser.get(f"{base}/arena/board")
    assert "Last votes" in text(browser) and "B is better" in text(browser)


def test_a_prompt_is_tried_and_its_run_appears(browser: Any, base: str) -> None:
    browser.get(f"{base}/playground")
    for box in find(browser, "[name=model]:not(:checked)"):
        box.click()
    browser.find_element("name", "prompt").send_keys("2 + 2?")
    browser.find_element("css selector", "form.ask button").click()
    until(lambda: "/runs/" in browser.current_url)
    until(lambda: browser.refresh() or len(find(browser, "tr[data-row]")) == 2)
    row = next(each for each in find(browser, "tr[data-row]") if "amber" in each.text)  # whichever model ended first
    row.find_element("tag name", "a").click()
    assert "It is four" in until(lambda: "/attempts/" in browser.current_url and text(browser, "main"))


def test_an_attempt_goes_into_a_data_set_and_a_queue_is_rated_by_keys(browser: Any, base: str, home: Path) -> None:
    run = run_id(home, "demo")
    browser.get(f"{base}/queues?run={run}&filter=agent%3Dreact")
    browser.find_element("name", "name").send_keys("look")
    browser.find_element("css selector", "form.ask button").click()
    until(lambda: "0 of 12 finished" in text(browser))
    press(browser, "n")
    until(lambda: find(browser, "form.rate"))
    press(browser, "3")
    until(lambda: "1 of 12 rated" in text(browser))
    press(browser, "1")
    until(lambda: "2 of 12 rated" in text(browser))
    browser.get(f"{base}/runs/{run}?filter=agent%3Dreact")
    find(browser, "tr[data-row] a")[0].click()
    until(lambda: find(browser, "form[action='/data-sets'] [name=name]"))[0].send_keys("kept")
    find(browser, "form[action='/data-sets'] button")[0].click()
    until(lambda: "1 task, version 1" in text(browser))


def test_the_second_of_two_tabs_that_rate_one_attempt_is_told_and_keeps_its_words(
    browser: Any, base: str, home: Path
) -> None:
    run = run_id(home, "demo")
    browser.get(f"{base}/queues?run={run}&filter=agent%3Dcot")
    browser.find_element("name", "name").send_keys("tabs")
    browser.find_element("css selector", "form.ask button").click()
    until(lambda: "0 of 12 finished" in text(browser))
    browser.get(f"{base}/queues/tabs/next")
    url, first = browser.current_url, browser.current_window_handle
    browser.switch_to.new_window("tab")
    second = browser.current_window_handle
    browser.get(url)
    find(browser, "[name=text]")[0].send_keys("words of the second tab")
    browser.switch_to.window(first)
    press(browser, "3")
    until(lambda: "1 of 12 rated" in text(browser))
    browser.switch_to.window(second)
    find(browser, "[data-press='1']")[0].click()
    until(lambda: "Another tab has rated this attempt 1 meanwhile" in text(browser, ".problem"))
    assert find(browser, "[name=text]")[0].get_attribute("value") == "words of the second tab"
    assert find(browser, "[data-press='3']")[0].get_attribute("aria-pressed") == "true", "what was kept is shown"
    find(browser, "[data-press='1']")[0].click()
    until(lambda: "1 of 12 rated" in text(browser) and browser.current_url != url)
    browser.close()
    browser.switch_to.window(first)
    with store.open_run(run, home) as opened:
        place = url.rpartition("/")[2].partition("?")[0]
        kept = [each for each in opened.trace(place).attempt_scores if each.name.startswith("note.")]
    assert (kept[-1].value, kept[-1].detail["text"]) == (0.0, "words of the second tab")
    refused = [line["message"] for line in browser.get_log("browser")]
    assert all("409" in message for message in refused)


def test_three_questions_of_a_newcomer_are_answered_by_clicks(browser: Any, base: str, home: Path) -> None:
    for day, wrong in (("yesterday", ("t1",)), ("today", ("t1", "t3"))):
        with store.create(home, {"benchmarks": ["quiz"], "model": "m"}, day) as run:
            run.add_agent("cot", {"name": "cot"})
            for number in range(6):
                task, error = f"t{number}", Failure("model", "the endpoint is gone") if number == 5 else None
                scores = () if error else (Score("exact", float(task not in wrong)),)
                answer = None if error else f"{day} {task}"
                run.append(
                    Trace(f"{day}{number}", "quiz", task, {"name": "cot"}, 0, 0, "2026-11-27T00:00:00+00:00", 1.0,
                          answer=answer, scores=scores, error=error, stop_reason="error" if error else "done")
                )  # fmt: skip
            run.finish("done")
    cookies = {each["name"]: each["value"] for each in browser.get_cookies()}
    with httpx.Client(base_url=base, cookies=cookies, headers={"origin": base}, timeout=60, trust_env=False) as client:
        client.post("/data-sets", data={"name": "sums", "run": run_id(home, "demo"), "filter": "agent=cot"})
        for number, prompt in enumerate(("You add.", "You add. Check it.")):
            client.post("/prompts", data={"name": "adder", "text": prompt, "after": str(number) if number else ""})
            model = f"scripted:{home}/amber.json"
            data = {"model": model, "check": "numeric", "prompt": f"adder@{number + 1}"}
            assert client.post("/data-sets/sums/run", data=data).status_code == 303
    until(
        lambda: (
            len(
                [
                    each
                    for each in store.list_runs(home)
                    if each.config.get("prompt") == "adder" and each.num_traces >= 12
                ]
            )
            == 2
        )
    )
    clicks = 0

    def click(words: str) -> None:
        nonlocal clicks
        clicks += 1
        until(lambda: browser.find_element("partial link text", words).click() is None)  # again if it was replaced

    browser.get(base)
    click("today")
    click("what changed since")
    until(lambda: "1 task changed" in text(browser))
    assert text(browser, "tr[data-row]").startswith("quiz / t3 ▼ worse 1 0"), "which items got worse since yesterday"
    assert clicks == 2

    browser.get(base)
    clicks = 0
    row = next(each for each in find(browser, "tr[data-row]") if "today" in each.text)
    row.find_element("css selector", "a.trouble").click()
    until(lambda: "1 attempt" in text(browser, "#table") and "has%3Aerror" in browser.current_url)
    click("t5")
    until(lambda: "the endpoint is gone" in text(browser, ".problem"))
    assert clicks + 1 == 2, "why this attempt failed"

    browser.get(base)
    clicks = 0
    click("Prompts")
    click("adder")
    assert [row.text.split()[0] for row in find(browser, "tr[data-row]")] == ["2", "1"]
    find(browser, "main form button")[0].click()
    until(lambda: "95% CI" in text(browser))
    assert "inconclusive" in text(browser, "td.verdict"), "which prompt is better"
    assert "is undecided: 12 tasks show" in text(browser), "and what would tell"
    first = browser.find_element("css selector", "caption").text
    assert clicks + 1 == 3 and first.index(" against ") > 0


def test_a_run_is_noted_and_the_second_of_two_tabs_keeps_its_words(browser: Any, base: str, home: Path) -> None:
    run = run_id(home, "demo")
    browser.get(f"{base}/runs/{run}")
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    for tab, words in ((browser.current_window_handle, "the first of /all j k"), (first, "of the other tab")):
        browser.switch_to.window(tab)
        if tab != first:
            browser.get(f"{base}/runs/{run}")
        find(browser, "details.run-note summary")[0].click()
        until(lambda: find(browser, "#run-note")[0].is_displayed())
        find(browser, "#run-note")[0].send_keys(words)  # the keys of the page are words here
        find(browser, "details.run-note button")[0].click()
        until(lambda tab=tab: ("is there already" if tab == first else "by human") in text(browser))
        if tab != first:
            browser.close()
    assert find(browser, "#run-note")[0].get_property("value") == "of the other tab"
    assert "the first of /all j k" in text(browser, "details.run-note pre")
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    browser.get(f"{base}/?filter=note:first")
    assert "the first of /all j k" in text(browser, "#table")
    assert all("400" in line["message"] for line in browser.get_log("browser"))


def test_columns_are_chosen_and_a_view_is_saved(browser: Any, base: str, home: Path) -> None:
    browser.get(f"{base}/?filter=has%3Acurves")
    find(browser, ".columns summary")[0].click()
    until(lambda: find(browser, "[data-chooser] [name=tokens]"))[0].click()
    until(lambda: "hide=tokens" in browser.current_url)
    assert not find(browser, "th[data-column=tokens]")[0].is_displayed()
    press(browser, "v")
    find(browser, "#save-view [name=name]")[0].send_keys("curves")
    press(browser, webdriver.Keys.ENTER)
    until(lambda: browser.current_url == f"{base}/views")
    browser.find_element("link text", "curves").click()
    until(lambda: "hide=tokens" in browser.current_url and len(find(browser, "tr[data-row]")) == 6)
    assert not find(browser, "th[data-column=tokens]")[0].is_displayed()
    browser.execute_script("localStorage.clear()")


def test_curves_are_grouped_and_axes_are_brushed(browser: Any, base: str, home: Path) -> None:
    runs = "&".join(f"run={run_id(home, f'sweep{number}')}" for number in range(4))
    browser.get(f"{base}/curves?{runs}")
    until(lambda: find(browser, "#parallel path"))
    assert len(find(browser, "#parallel path")) == 4 and "lr" in text(browser, "#parallel ~ div table")
    browser.find_element("xpath", "//select[@name='group']/option[text()='kind']").click()
    until(lambda: "group=kind" in browser.current_url and "mean of 2" in text(browser, "#plots"))
    grip = find(browser, "#parallel [data-axis=lr]")[0]
    browser.execute_script("arguments[0].scrollIntoView()", grip)
    webdriver.ActionChains(browser).move_to_element_with_offset(grip, 0, -100).click_and_hold().move_by_offset(
        0, 90
    ).release().perform()
    until(lambda: "of 4 runs:" in text(browser, "#chosen") and "brush.lr" in browser.current_url)
    chosen = text(browser, "#chosen")
    browser.refresh()
    until(lambda: text(browser, "#chosen") == chosen and "group=kind" in browser.current_url)


def test_pages_of_work_are_accessible_and_not_wider_than_a_phone(browser: Any, base: str, home: Path) -> None:
    axe, run = axe_script(), run_id(home, "demo")
    sweep = "&".join(f"run={run_id(home, f'sweep{number}')}" for number in range(4))
    with store.open_run(run, home) as opened:
        one, other = (next(each.place for each in opened.rows() if each.agent == agent) for agent in ("cot", "react"))
    pair = f"/compare/attempts?run_a={run}&a={one}&run_b={run}&b={other}"
    pages = (
        "/arena",
        "/arena/board",
        "/playground",
        "/queues",
        "/data-sets",
        "/prompts",
        "/views",
        f"/compare?run={run}",
        f"/compare/grid?run={run}",
        pair,
    )
    for path in (*pages, f"/curves?{sweep}"):
        browser.get(base + path)
        assert violations(browser, axe) == [], path
    browser.set_window_size(500, 900)
    try:
        for path in (*pages, f"/curves?{sweep}"):
            browser.get(base + path)
            wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert browser.execute_script(wide) <= 0, path
    finally:
        browser.set_window_size(1280, 900)


def test_an_export_opens_from_a_disk_and_its_policy_is_kept(browser: Any, home: Path, tmp_path: Path) -> None:
    with store.open_run(run_id(home, "demo"), home) as run:
        (tmp_path / "run.html").write_text(exported(run)[0])
    browser.get((tmp_path / "run.html").as_uri())
    assert "36 attempts" in text(browser) and find(browser, "table.list")
    background = "return getComputedStyle(document.querySelector('.list')).borderTopWidth"
    assert browser.execute_script(background) == "1px", "its style sheet is allowed"


def test_a_text_shows_its_features_and_one_of_them_opens_beside_it(browser: Any, base: str, home: Path) -> None:
    browser.get(base)
    next(each for each in find(browser, ".top nav a") if each.text == "Features").click()
    until(lambda: "autoencoder" in text(browser))
    press(browser, "j", webdriver.Keys.ENTER)
    until(lambda: "Features that fire on a text" in text(browser))
    press(browser, "/")
    press(browser, "nowhere-at-all")
    until(lambda: "0 features found" in text(browser) and "nowhere" in browser.current_url)
    browser.back()
    until(lambda: len(find(browser, "tr[data-row]")) == 5)
    field = browser.find_element("css selector", "textarea")
    field.send_keys("What is 12 + 30? The answer is 42.")
    field.submit()
    until(lambda: "/live?text=" in browser.current_url and find(browser, "a.token"))
    browser.find_element("css selector", "tr[data-row] a").click()
    shown = browser.find_element("css selector", "tr[data-row] a").text
    until(lambda: f"Feature {shown}" in text(browser, "#feature"))
    assert "Nearest features" in text(browser, "#feature") and "/live?text=" in browser.current_url
    find(browser, "a.token")[1].click()
    until(lambda: "at=2" in browser.current_url and find(browser, "a.token[aria-current]"))
    browser.back()
    until(lambda: "at=2" not in browser.current_url)
    live = browser.current_url
    for address in (f"{base}/features", f"{base}/features/small", live, f"{base}/features/small/{shown}"):
        for width, theme in ((390, "dark"), (1280, "light")):
            browser.set_window_size(width, 900)
            browser.execute_script(f"localStorage.setItem('theme', '{theme}')")
            browser.get(address)
            assert not browser.execute_script("return document.documentElement.scrollWidth > innerWidth"), (
                address,
                width,
            )
    axe = axe_script()
    for address in (f"{base}/features", f"{base}/features/small", live, f"{base}/features/small/{shown}"):
        browser.get(address)
        assert violations(browser, axe) == [], address
