"""Views that are long, searched or live in two tabs, in a real browser; a message on the console fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import test_studio_browser
from firsthand.message import assistant, user
from firsthand.model import Usage
from firsthand.runs import store
from firsthand.trace import Call, Node, Score, Trace
from test_studio_browser import find, press, run_id, studio_in_browser, text, until, webdriver

pytestmark = test_studio_browser.pytestmark
MANY = 650


def attempt(number: int, name: str = "many") -> Trace:
    """An attempt that ended; its first message is a number in words of its own."""
    nodes = (Node(None, user(f"question-{number}-asked")), Node(0, assistant("a")))
    calls = (
        Call(":0", "generate", 0, 0.0, 1.0, "0" * 64, Usage(5, 0, 2), (1,)),
        Call("1:0", "tool", 1, 1.0, 1.0, "0" * 64, detail={"name": "look", "arguments": {"in": "the attic"}}),
    )  # fmt: skip
    return Trace(
        f"{name}{number:04d}", "quiz", f"t{number:04d}", {"name": "a"}, 0, 0, "2026-11-27T00:00:00+00:00", 2.0, nodes, calls,
        answer="a", scores=(Score("exact", 1.0),),
    )  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("views")
    with store.create(folder, {}, "many") as run:
        for number in range(MANY):
            run.append(attempt(number))
        run.finish("done")
    return folder


@pytest.fixture(scope="module")
def opened(home: Path) -> Iterator[tuple[Any, str]]:
    with studio_in_browser(home) as found:
        yield found


def test_rows_of_a_long_table_are_in_the_page_while_they_are_near(browser: Any, base: str, home: Path) -> None:
    browser.get(f"{base}/runs/{run_id(home, 'many')}?sort=task")

    def names() -> list[str]:
        script = (
            "return [...document.querySelectorAll('tr[data-row] th a')].map(each => each.textContent.split(' ').pop())"
        )
        return list(browser.execute_script(script))

    def at_the_end() -> bool:
        browser.execute_script("window.scrollTo(0, document.body.scrollHeight)")
        return f"t{MANY - 1:04d}" in names()

    until(at_the_end, 120)
    until(lambda: len(names()) < 400 and "t0000" not in names())  # what is far from view is not in the page
    widths = "return [...document.querySelectorAll('thead th')].map(each => each.offsetWidth)"
    before = browser.execute_script(widths)
    browser.execute_script("window.scrollTo(0, 0)")
    until(lambda: names()[:2] == ["t0000", "t0001"])
    assert browser.execute_script(widths) == before, "columns keep their width while rows come and go"
    press(browser, "j", "j")
    assert text(browser, "tr.here").split()[2] == "t0001"
    press(browser, "x")
    browser.execute_script("window.scrollTo(0, document.body.scrollHeight)")
    until(lambda: "t0001" not in names())
    browser.execute_script("window.scrollTo(0, 0)")
    until(lambda: "t0001" in names())
    assert find(browser, "tr.here input")[0].is_selected(), "a mark comes back with its row"
    press(browser, "x")


def test_search_kind_and_folds_of_a_tree_stand_in_the_address(browser: Any, base: str, home: Path) -> None:
    browser.get(f"{base}/runs/{run_id(home, 'many')}/attempts/many0007?view=tree")
    until(lambda: len(find(browser, "#tree .span")) == 4)
    browser.find_element("id", "tree-search").send_keys("Question-7-asked")
    until(lambda: text(browser, "#tree-count") == "1 of 4 spans" and "find=Question-7-asked" in browser.current_url)
    assert [each.get_attribute("class") for each in find(browser, "#tree .span")] == ["span attempt", "span generate"]
    browser.refresh()
    until(lambda: text(browser, "#tree-count") == "1 of 4 spans")
    browser.find_element("id", "tree-search").clear()
    browser.find_element("id", "tree-search").send_keys("attic")
    until(lambda: [each.get_attribute("class") for each in find(browser, "#tree .span")][-1] == "span tool")
    browser.find_element("css selector", "#tree-kind option:nth-child(2)").click()
    until(lambda: text(browser, "#tree-count") == "0 of 4 spans" and "kind=generate" in browser.current_url)
    browser.get(f"{base}/runs/{run_id(home, 'many')}/attempts/many0007?view=tree&kind=tool")
    until(lambda: text(browser, "#tree-count") == "1 of 4 spans")
    browser.get(f"{base}/runs/{run_id(home, 'many')}/attempts/many0007?view=tree")
    until(lambda: len(find(browser, "#tree .span")) == 4)
    press(browser, "[")
    until(lambda: len(find(browser, "#tree .span")) == 3 and "fold=all" in browser.current_url)
    browser.refresh()
    until(lambda: len(find(browser, "#tree .span")) == 3)
    press(browser, "]")
    until(lambda: len(find(browser, "#tree .span")) == 4 and "fold" not in browser.current_url)


def test_two_tabs_follow_one_run_and_keep_their_row(browser: Any, base: str, home: Path) -> None:
    with store.create(home, {}, "live") as run:
        run.append(attempt(0, "live"))
        first = browser.current_window_handle
        browser.get(f"{base}/runs/{run.id}")
        press(browser, "j")
        assert "t0000" in text(browser, "tr.here")
        browser.switch_to.new_window("tab")
        second = browser.current_window_handle
        browser.get(f"{base}/runs/{run.id}?filter=t0001")
        assert find(browser, "tr[data-row]") == []
        run.append(attempt(1, "live"))
        until(lambda: len(find(browser, "tr[data-row]")) == 1)
        browser.switch_to.window(first)
        until(lambda: len(find(browser, "tr[data-row]")) == 2)
        assert "t0000" in text(browser, "tr.here"), "the row under the keys stays it when the table comes anew"
        browser.switch_to.window(second)
        browser.close()
        browser.switch_to.window(first)
        press(browser, webdriver.Keys.ENTER)
        until(lambda: "/attempts/live0000" in browser.current_url)
        browser.back()
        until(lambda: browser.current_url.endswith(run.id))
        browser.forward()
        until(lambda: "/attempts/live0000" in browser.current_url)
