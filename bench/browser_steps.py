"""Milliseconds of a browser step, by what it does: `python bench/browser_steps.py [--errands N] [--level L]`.

A step is an action of the optimal player in the browser and the page that it reads after it. `get` and `post` load another
page, a post by way of a redirect; the others stay on theirs. A reset is a visit's new browser context with its first page.
Processor time is that of all the browser's processes that are still there at the end.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from firsthand.worlds.browsing import chromium
from firsthand.worlds.browsing.browser_pool import BrowserPool
from firsthand.worlds.browsing.chromium import Chromium, PageView
from firsthand.worlds.browsing.errands import make_errand
from firsthand.worlds.browsing.pages import SiteVisit
from firsthand.worlds.browsing.site import Answer

MAX_STEPS = 20


class CountedVisit(SiteVisit):
    """A visit that counts its requests by method."""

    asked: str = ""

    def answer(self, method: str, path: str, given: Mapping[str, str]) -> Answer:
        """The page, counted."""
        self.asked = self.asked or method.lower()
        return super().answer(method, path, given)


def step(browser: Chromium, page: PageView, action: str) -> None:
    """Carry out an action in text."""
    verb, _, rest = action.partition("[")
    number, _, text = rest.partition("] ")
    element = page.elements[int(number.rstrip("]")) - 1]
    if verb == "click":
        browser.click(element)
    else:
        (browser.type if verb == "type" else browser.select)(element, text)


def errand(pool: BrowserPool, index: int, level: int, times: Mapping[str, list[float]]) -> Chromium:
    """One errand by the optimal player; returns the browser that did it."""
    visit = CountedVisit(make_errand(0, index, level))
    browser = pool.take()
    began = time.perf_counter()
    browser.clean()
    browser.visit(pool.server.begin(visit))
    page, dialog = browser.seen(PageView("", "", ()))
    times["reset"].append(1000 * (time.perf_counter() - began))
    for _ in range(MAX_STEPS):
        if visit.is_done:
            break
        visit.asked = ""
        action = "accept" if dialog is not None else visit.optimal(page)
        began = time.perf_counter()
        browser.answer(True) if dialog is not None else step(browser, page, action)
        page, dialog = browser.seen(page)
        took = 1000 * (time.perf_counter() - began)
        times[visit.asked or action.partition("[")[0]].append(took)
        times["all steps"].append(took)
    assert visit.result()["right"], f"errand {index} was not done"
    pool.give_back(browser)
    return browser


def cpu_s(group: int) -> float:
    """Processor seconds of the processes of a group."""
    ticks = 0
    for each in Path("/proc").glob("[0-9]*/stat"):
        try:
            told = each.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        ticks += int(told[11]) + int(told[12]) if int(told[2]) == group else 0
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--errands", type=int, default=16)
    parser.add_argument("--level", type=int, default=2)
    parser.add_argument("--browser", default="")
    given = parser.parse_args()
    chromium.BROWSERS = (given.browser,) if given.browser else chromium.BROWSERS
    pool, times = BrowserPool(), defaultdict[str, list[float]](list)
    errand(pool, 0, given.level, defaultdict(list))  # warm up
    for index in range(given.errands):
        browser = errand(pool, index, given.level, times)
    print(f"{chromium.ready()}, {given.errands} errands of level {given.level}, load {os.getloadavg()[0]:.1f}")
    for kind, found in times.items():
        print(
            f"{kind:<10} {len(found):>4}  median {statistics.median(found):6.1f} ms  mean {statistics.mean(found):6.1f}"
        )
    print(f"processor time of the browser {cpu_s(browser.devtools.pid):.1f} s")
    pool.close()
