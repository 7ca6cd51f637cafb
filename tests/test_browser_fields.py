"""Fields and choices of a page take a text as it is, or the agent is told why not: nothing is swallowed."""

import asyncio
import shutil
from collections.abc import Mapping
from random import Random

import pytest

from firsthand.worlds.browsing.browse_world import BrowseWorld
from firsthand.worlds.browsing.browser_pool import BrowserPool
from firsthand.worlds.browsing.chromium import BROWSERS, FORM_CONTROLS, CannotUse, PageElement, PageView
from firsthand.worlds.browsing.miniwob_pages import VISIBLE
from firsthand.worlds.browsing.site import Answer
from firsthand.worlds.world import InvalidAction
from test_told_browser import FIELD, chromium

PAGE = """<div id="wrap"><textarea id="area"></textarea><input id="line"><input id="short" maxlength="3">
<input type="date" id="date"><input type="time" id="time"><input type="number" id="number" maxlength="2">
<input type="range" id="range" min="-9" max="9"><input type="color" id="color"><input type="month" id="month" readonly>
<input type="file" id="file">
<input type="reset" value="Again" id="reset"><fieldset disabled><input id="off"></fieldset>
<select id="choice"><option>B</option><option>b</option><option value="1">c</option><option value="2">c</option>
<option disabled>d</option><optgroup disabled><option>e</option></optgroup></select></div>"""


class Fields:
    """A `Site` of one page."""

    first, view, is_done = "/", VISIBLE, False
    clicks = ("button", "thing", "text field")
    verbs = ()

    def answer(self, method: str, path: str, given: Mapping[str, str]) -> Answer:
        return Answer(200, f"<title>t</title><body>{PAGE}".encode())

    def begin(self, browser: object) -> None: ...

    follow = begin

    def result(self) -> dict[str, object]:
        return {}

    def optimal(self, page: PageView) -> str:
        return "look"

    def random_words(self, page: PageView, rng: Random) -> str:
        return "x"


def test_a_line_break_is_a_key_and_every_other_character_is_typed_or_refused() -> None:
    browser, told = chromium("typed")
    browser.type(FIELD, "a\r\nb\u00a0\u200d")
    assert [given["key"] for _, given in told.sent[1:]][::2] == ["a", "Enter", "b", "\u00a0", "\u200d"]
    assert told.sent[0][1]["expression"].endswith('(5, "a\\nb\\u00a0\\u200d")')
    for odd, name in (("\t", r"\\t"), ("\x00", r"\\x00"), ("\ud800", r"\\ud800")):
        with pytest.raises(CannotUse, match=f"^no key types '{name}'$"):
            browser.type(FIELD, f"a{odd}")


def test_an_option_is_taken_in_its_own_letters_first_and_in_others_where_one_alone_is_meant() -> None:
    chosen: list[str] = []

    class Browser:
        def select(self, element: PageElement, option: str) -> None:
            chosen.append(option)

        def seen(self, before: PageView, script: str) -> tuple[PageView, None]:
            return before, None

    world = BrowseWorld(Fields, BrowserPool())  # type: ignore[arg-type]
    world.site, world._dialog, world._crashed, world._browser = Fields(), None, False, Browser()  # type: ignore[assignment]
    world._page = PageView("t", "", (PageElement(0, "choice", "Which", "", ("AB", "ab", "Cd", "Cd")),))
    for option in ("ab", " AB ", "cD"):
        asyncio.run(world.select(1, option))
    assert chosen == ["ab", "AB", "Cd"]
    with pytest.raises(InvalidAction, match="'aB' is more than one option of Which: there are AB, ab, Cd, Cd"):
        asyncio.run(world.select(1, "aB"))


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="chromium is not installed")
def test_fields_take_what_they_show_or_say_why_not() -> None:
    pool = BrowserPool()
    world = BrowseWorld(Fields, pool)  # type: ignore[arg-type]

    async def visit() -> None:
        await world.open()
        browser = world._browser
        assert browser is not None

        def element(name: str) -> PageElement:
            number = browser.run(f"firsthandElements.indexOf(document.getElementById('{name}'))")
            return PageElement(number, "", "", "", ())

        def held(name: str) -> str:
            return str(browser.run(f"document.getElementById('{name}').value"))

        shown = {each.label.split(" ")[0]: each for each in world._page.elements}
        assert shown["date"].label == "date (date: YYYY-MM-DD)" and shown["range"].label == "range (range: -9 to 9)"
        assert shown["file"].kind == "thing" and shown["reset"].kind == "button" and "off" not in shown
        assert shown["choice"].options == ("B", "b", "c", "c") and shown["line"].label == "line"
        for name, text, value in (
            ("area", "one\ntwo \N{WOMAN}\u200d\N{PERSONAL COMPUTER}\u00a0x", None), ("line", "a b", None),
            ("short", "abc", None),
            ("date", "2012-10-21", None), ("time", "01:28", None), ("number", "-12.5", None), ("number", "1e3", None),
            ("range", "7", None), ("range", "7.0", "7"), ("color", "#FF00aa", "#ff00aa"), ("date", "", None),
            ("number", "", None),
        ):  # fmt: skip
            browser.type(element(name), text)
            assert held(name) == (text if value is None else value), name
        for name, text, why in (
            ("line", "a\nb", "it has one line, and the text has a line break"),
            ("short", "abcd", "it takes at most 3 characters"),
            ("date", "10/21/2012", "a field of type date takes YYYY-MM-DD"), ("date", "2012-13-01", "takes YYYY-MM-DD"),
            ("time", "1:28 AM", "a field of type time takes HH:MM of 24 hours"), ("number", "12,5", "digits, with a point"),
            ("number", "five", "digits"), ("range", "10", "a field of type range takes -9 to 9"),
            ("range", "-10", "-9 to 9"),
            ("range", "", "-9 to 9"), ("color", "1", "takes #rrggbb"), ("month", "2024-03", "it cannot be written to"),
            ("file", "/etc/passwd", "it takes no text"), ("reset", "x", "it takes no text"),
        ):  # fmt: skip
            before = held(name)
            with pytest.raises(CannotUse, match=why):
                browser.type(element(name), text)
            assert held(name) == before, name
        browser.select(element("choice"), "c")
        assert held("choice") == "1"  # the first of two
        for option in ("d", "e", "C"):
            with pytest.raises(CannotUse, match="it has no such option any more"):
                browser.select(element("choice"), option)
        assert held("choice") == "1"
        browser.run("for (const id of ['line', 'choice']) document.getElementById(id).disabled = true")
        for use in (browser.type, browser.select):
            with pytest.raises(CannotUse, match="it is disabled"):
                use(element("line" if use == browser.type else "choice"), "b")
        page, _ = browser.seen(world._page, FORM_CONTROLS)
        assert "off" not in [each.label for each in page.elements]
        browser.run("document.getElementById('choice').disabled = false")
        page, _ = browser.seen(world._page, FORM_CONTROLS)
        assert [each.options for each in page.elements if each.kind == "choice"] == [("B", "b", "c", "c")]
        await world.close()

    asyncio.run(visit())
    pool.close()
