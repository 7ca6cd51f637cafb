"""Hasty hands and odd orders in the Studio: double clicks, held keys, Enter in a field, facets of like names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import test_studio_browser
from firsthand.runs import store
from firsthand.task import Task
from firsthand.trace import Score, Trace
from test_studio_browser import find, press, run_id, studio_in_browser, text, until, webdriver

pytestmark = test_studio_browser.pytestmark
AGENTS = ("cot", "cot_sc")
LONG = "I am the scripted model, and this is another answer entirely. " * 12


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slips")
    for name in ("earlier", "quiz"):
        with store.create(folder, {"benchmark": ["quiz"]}, name) as run:
            run.add_tasks("quiz", [Task(f"t{n:02d}", f"{n}?", secret={"answer": "a"}) for n in range(12)])
            for agent in AGENTS:
                run.add_agent(agent, {"name": agent})
            for number in range(12):
                agent, scores = AGENTS[number % 2], (Score("exact", float(number < 8)),)
                run.append(
                    Trace(f"{name}{number:02d}", "quiz", f"t{number:02d}", {"name": agent}, 0, 0,
                          "2026-11-27T00:00:00+00:00", 1.0, answer="a", scores=scores)
                )  # fmt: skip
            run.finish("done")
    (folder / "other.json").write_text(json.dumps({"": LONG}))
    return folder


@pytest.fixture(scope="module")
def opened(home: Path) -> Iterator[tuple[Any, str]]:
    with studio_in_browser(home, "--model", f"scripted:echo,scripted:{home}/other.json") as found:
        yield found


def asked_rounds(browser: Any, base: str, prompt: str) -> Any:
    """The arena page with a prompt typed; the page counts the rounds that it asks for, and its button is returned."""
    browser.get(f"{base}/arena")
    browser.execute_script(
        "window.rounds = []; const own = fetch; window.fetch = async (path, ...rest) => {"
        " const wait_ms = window.wait_ms ?? 0, answer = await own(path, ...rest);"
        " if (path === '/arena/rounds') rounds.push((await answer.clone().json()).round);"
        " if (wait_ms) await new Promise((go) => setTimeout(go, wait_ms)); return answer; }"
    )
    browser.find_element("name", "prompt").send_keys(prompt)
    return find(browser, "#ask button")[0]


def vote_for_the_other(browser: Any) -> str:
    """The side that was voted for once both answers were there: that of the long answer."""
    until(lambda: find(browser, "[data-vote=a]:not(:disabled)"))
    side = "a" if LONG[:20] in text(browser, "#text-a") else "b"
    find(browser, f"[data-vote={side}]")[0].click()
    until(lambda: "u undoes it" in text(browser, "#said"))
    return side


def last_vote(home: Path) -> tuple[str, str]:
    """The agent that the last vote is for, and the id of the task."""
    with store.open_run(run_id(home, "arena"), home) as run:
        vote, rows = run.preferences()[-1], {row.id: row for row in run.rows()}
        winner = rows[vote.a if vote.winner == "a" else vote.b]
        return winner.agent, run.trace(winner.place).task_id


def test_a_double_click_asks_one_round_and_the_vote_is_for_the_answer_that_was_shown(
    browser: Any, base: str, home: Path
) -> None:
    for number in range(2):
        button = asked_rounds(browser, base, f"prompt {number}")
        webdriver.ActionChains(browser).double_click(button).perform()
        browser.find_element("name", "prompt").send_keys(webdriver.Keys.CONTROL, webdriver.Keys.ENTER)
        side = vote_for_the_other(browser)
        assert len(browser.execute_script("return rounds")) == 1
        press(browser, "r")
        until(lambda side=side: "other.json" in text(browser, f"#name-{side}"))
        assert "other.json" in last_vote(home)[0]


def test_a_corrected_prompt_replaces_the_round_that_is_under_way(browser: Any, base: str, home: Path) -> None:
    button = asked_rounds(browser, base, "a prompt with a tpyo")
    button.click()
    until(lambda: text(browser, "#text-a") and text(browser, "#text-b"))
    field = browser.find_element("name", "prompt")
    field.clear()
    field.send_keys("corrected", webdriver.Keys.CONTROL, webdriver.Keys.ENTER)
    until(lambda: len(browser.execute_script("return rounds")) == 2)
    side = vote_for_the_other(browser)
    assert text(browser, f"#text-{'b' if side == 'a' else 'a'}") == "corrected"
    press(browser, "r")
    until(lambda: "other.json" in text(browser, f"#name-{side}"))
    assert "other.json" in last_vote(home)[0]


def test_the_names_of_a_round_are_not_written_on_the_next_one(browser: Any, base: str) -> None:
    button = asked_rounds(browser, base, "the first")
    button.click()
    vote_for_the_other(browser)
    browser.execute_script("window.wait_ms = 1500")
    press(browser, "r")
    browser.execute_script("window.wait_ms = 0")
    field = browser.find_element("name", "prompt")
    field.clear()
    field.send_keys("the second", webdriver.Keys.CONTROL, webdriver.Keys.ENTER)
    until(lambda: len(browser.execute_script("return rounds")) == 2)
    browser.execute_async_script("setTimeout(arguments[0], 1600)")
    assert {text(browser, "#name-a"), text(browser, "#name-b")} == {"Model A", "Model B"}
    until(lambda: find(browser, "[data-vote=a]:not(:disabled)"))  # and its vote is still to come


def test_a_double_click_on_run_starts_one_run_and_another_click_after_it_one_more(
    browser: Any, base: str, home: Path
) -> None:
    def num_runs(kind: str) -> int:
        return len([*home.glob(f"runs/*{kind}*")])

    before = num_runs("playground")
    browser.get(f"{base}/playground")
    browser.find_element("name", "prompt").send_keys("one question")
    slow = {"offline": False, "latency": 900, "downloadThroughput": 200_000, "uploadThroughput": 200_000}
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", slow)
    press_twice = (
        "const run = document.querySelector('form.ask button'); run.click(); setTimeout(() => run.click(), 400)"
    )
    try:
        browser.execute_script(press_twice)
        until(lambda: "/runs/" in browser.current_url)
    finally:
        fast = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        browser.execute_cdp_cmd("Network.emulateNetworkConditions", fast)
    browser.execute_async_script("setTimeout(arguments[0], 500)")
    assert num_runs("playground") == before + 1
    browser.back()
    until(lambda: find(browser, "form.ask button"))
    field = browser.find_element("name", "prompt")
    field.clear()
    field.send_keys("one question")
    find(browser, "form.ask button")[0].click()
    until(lambda: num_runs("playground") == before + 2)


def queue_of(browser: Any, base: str, home: Path, name: str) -> str:
    """The address of the first item of a new queue of all twelve attempts."""
    browser.get(f"{base}/queues?run={run_id(home, 'quiz')}")
    browser.find_element("name", "name").send_keys(name)
    browser.find_element("css selector", "form.ask button").click()
    until(lambda: "0 of 12 finished" in text(browser))
    browser.get(f"{base}/queues/{name}/next")
    return str(browser.current_url)


def test_enter_among_the_words_keeps_the_label_that_is_there(browser: Any, base: str, home: Path) -> None:
    item = queue_of(browser, base, home, "words")
    press(browser, "3")
    until(lambda: "1 of 12 rated" in text(browser))
    second = browser.current_url
    browser.get(item)
    find(browser, "form.rate [name=text]")[0].send_keys("very good", webdriver.Keys.ENTER)
    until(lambda: browser.current_url == second)
    browser.get(item)
    assert find(browser, "[aria-pressed=true]")[0].text == "3 yes"
    assert find(browser, "form.rate [name=text]")[0].get_attribute("value") == "very good"


def test_enter_among_the_words_of_what_has_no_label_asks_for_one(browser: Any, base: str, home: Path) -> None:
    queue_of(browser, base, home, "bare")
    find(browser, "form.rate [name=text]")[0].send_keys("will think", webdriver.Keys.ENTER)
    until(lambda: "choose a label with them" in text(browser, ".problem"))
    assert "0 of 12 rated" in text(browser) and not find(browser, "[aria-pressed=true]")
    assert find(browser, "form.rate [name=text]")[0].get_attribute("value") == "will think"
    find(browser, "[data-press='2']")[0].click()
    until(lambda: "1 of 12 rated" in text(browser))
    assert all("400" in line["message"] for line in browser.get_log("browser"))


def type_filter(browser: Any, words: str, shown: int) -> None:
    """Type a filter, and wait until so many rows are shown."""
    field = find(browser, "[data-filter] input[type=search]")[0]
    field.clear()
    field.send_keys(words)
    until(lambda: len(find(browser, "tr[data-row]")) == shown)


def test_a_typed_filter_is_that_of_the_data_set_and_the_queue_that_are_made(
    browser: Any, base: str, home: Path
) -> None:
    run = run_id(home, "quiz")
    browser.get(f"{base}/runs/{run}?filter=agent%3Dcot")
    type_filter(browser, "is:wrong", 4)
    link = browser.find_element("link text", "let people rate these")
    until(lambda: link.get_attribute("href") == f"{base}/queues?run={run}&filter=is%3Awrong")
    next(each for each in find(browser, "details summary") if "data set" in each.text).click()
    find(browser, "form[action='/data-sets'] [name=name]")[0].send_keys("wrong ones")
    browser.execute_script("htmx.ajax('GET', location.href, {source: '#table', target: '#table', swap: 'innerHTML'})")
    browser.execute_async_script("setTimeout(arguments[0], 500)")
    assert find(browser, "form[action='/data-sets'] [name=name]")[0].get_attribute("value") == "wrong ones"
    find(browser, "form[action='/data-sets'] button")[0].click()
    until(lambda: "4 tasks, version 1" in text(browser))
    browser.get(f"{base}/runs/{run}?filter=is%3Awrong")
    field = find(browser, "[data-filter] input[type=search]")[0]
    field.send_keys(*[webdriver.Keys.BACKSPACE] * 8)
    until(lambda: len(find(browser, "tr[data-row]")) == 12)
    link = browser.find_element("link text", "let people rate these")
    assert link.get_attribute("href") == f"{base}/queues?run={run}", "no filter is no filter"
    own = find(browser, "form[action='/data-sets'] [name=filter]")[0]
    browser.execute_script("arguments[0].value = 'epoch=0'", own)
    browser.execute_script("htmx.ajax('GET', location.href, {source: '#table', target: '#table', swap: 'innerHTML'})")
    browser.execute_async_script("setTimeout(arguments[0], 500)")
    assert own.get_attribute("value") == "epoch=0", "a change of the run leaves what was written by hand"


def click_facet(browser: Any, term: str, filter: str) -> None:
    """Click a facet, and wait for the filter."""
    until(lambda: find(browser, f"[data-term='{term}']"))[0].click()
    until(lambda: find(browser, "[data-filter] input[type=search]")[0].get_attribute("value") == filter)


def test_a_facet_adds_and_takes_whole_terms(browser: Any, base: str, home: Path) -> None:
    address = f"{base}/runs/{run_id(home, 'quiz')}"
    for before, term, after in (
        ("", "agent=cot", "agent=cot"),
        ("agent=cot", "agent=cot", ""),
        ("agent=cot_sc", "agent=cot", "agent=cot_sc agent=cot"),
        ("agent=cot_sc  epoch=0 agent=cot", "agent=cot", "agent=cot_sc epoch=0"),
        ("-agent=cot", "agent=cot", "agent=cot"),
        ('"a  agent=cot b" agent=cot', "agent=cot", '"a  agent=cot b"'),
        ('task="x ""agent=cot y" ', "agent=cot", 'task="x ""agent=cot y" agent=cot'),
    ):
        browser.get(address)
        shown = "document.querySelector('[data-filter] input[type=search]').value = arguments[0]"
        until(lambda term=term: find(browser, f"[data-term='{term}']"))
        browser.execute_script(shown, before)
        click_facet(browser, term, after)


def test_a_held_key_rates_one_attempt_and_moves_through_rows(browser: Any, base: str, home: Path) -> None:
    queue_of(browser, base, home, "held")

    def hold(key: str, times: int) -> None:
        for number in range(times):
            key_down = {"type": "keyDown", "key": key, "text": key, "autoRepeat": number > 0}
            browser.execute_cdp_cmd("Input.dispatchKeyEvent", key_down)
            browser.execute_async_script("setTimeout(arguments[0], 100)")
        browser.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": "keyUp", "key": key})

    hold("3", 8)
    assert "1 of 12 rated" in text(browser)
    hold("3", 1)
    until(lambda: "2 of 12 rated" in text(browser))
    browser.get(f"{base}/runs/{run_id(home, 'quiz')}?sort=task")
    hold("j", 4)
    assert "t03" in text(browser, "tr.here")
    hold("x", 4)
    assert len(find(browser, "tr[data-row] input:checked")) == 1
    hold("x", 1)


def test_marks_of_runs_and_marks_of_attempts_are_compared_each_with_their_own(
    browser: Any, base: str, home: Path
) -> None:
    run, earlier = run_id(home, "quiz"), run_id(home, "earlier")

    def mark(*numbers: int) -> None:
        for number in numbers:
            until(lambda number=number: find(browser, "[data-mark] input[type=checkbox]")[number].click() is None)

    browser.get(f"{base}/")
    mark(0)
    browser.get(f"{base}/runs/{run}")
    assert text(browser, ".live") == "" and not find(browser, "[data-compare]")[0].is_displayed()
    mark(0)
    press(browser, "c")
    assert text(browser, ".live") == "1 marked: two attempts are compared"
    assert len(find(browser, "tr[data-row] input:checked")) == 1, "and the mark is still there"
    browser.get(f"{base}/runs/{earlier}")
    assert text(browser, ".live") == "", "attempts of another run have marks of their own"
    browser.get(f"{base}/runs/{run}")
    mark(1)
    find(browser, "tr[data-row] th a")[0].click()
    until(lambda: "/attempts/" in browser.current_url and text(browser, ".live") == "2 marked")
    press(browser, "c")
    until(lambda: "/compare/attempts?" in browser.current_url and f"run_b={run}" in browser.current_url)
    browser.get(f"{base}/")
    assert text(browser, ".live") == "1 marked"
    mark(1)
    find(browser, "[data-compare]")[0].click()
    until(lambda: "/compare?run=" in browser.current_url)
    assert browser.current_url.count("run=") == 2


def test_the_table_follows_the_last_of_what_was_typed_over_a_slow_line(browser: Any, base: str, home: Path) -> None:
    browser.get(f"{base}/runs/{run_id(home, 'quiz')}")
    until(lambda: not find(browser, "#boards p.soft") or "computed" not in text(browser, "#boards"))
    slow = {"offline": False, "latency": 900, "downloadThroughput": 200_000, "uploadThroughput": 200_000}
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", slow)
    try:
        for piece in ("agent", "=cot", " ", "is:right", " ", "t02"):
            find(browser, "[data-filter] input[type=search]")[0].send_keys(piece)
            browser.execute_async_script("setTimeout(arguments[0], 350)")
        until(lambda: text(browser, ".total") == "1 attempt", 12)
        until(lambda: browser.current_url.endswith("filter=agent%3Dcot+is%3Aright+t02&sort="), 12)
    finally:
        fast = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        browser.execute_cdp_cmd("Network.emulateNetworkConditions", fast)
