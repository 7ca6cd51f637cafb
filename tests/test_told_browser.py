"""What a Chromium is told, word by word, and when a page counts as loaded: a stand-in records the protocol."""

from typing import Any

import pytest

from firsthand.worlds.browsing.chromium import CannotUse, Chromium, PageElement, PageView


class ToldBrowser:
    """Keeps what a Chromium sends, and answers scripts in order."""

    def __init__(self, *values: object) -> None:
        self.values, self.sent = list(values), []

    def send(self, method: str, session: str = "", **given: Any) -> int:
        self.sent.append((method, given))
        return len(self.sent)

    def wait(self, number: int, timeout_s: float = 5.0, unless: Any = None) -> Any:
        if self.sent[number - 1][0] != "Runtime.evaluate":
            return {}
        value = self.values.pop(0)
        return None if value is None else {"result": {"value": value}}

    def call(self, method: str, session: str = "", **given: Any) -> Any:
        self.send(method, session, **given)
        return {}

    def until(self, holds: Any, timeout_s: float) -> None:
        if not holds():
            raise TimeoutError("late")


def chromium(*values: object) -> tuple[Chromium, ToldBrowser]:
    browser, told = Chromium.__new__(Chromium), ToldBrowser(*values)
    browser.devtools = told  # type: ignore[assignment]
    browser._session, browser._target, browser._dialog = "s", "frame", None
    browser._loading = browser._crashed = browser._started = False
    return browser, told


BUTTON, FIELD = PageElement(2, "button", "Go", "", ()), PageElement(5, "text field", "Name", "", ())


def test_a_browser_is_told_clicks_drags_and_keys():
    browser, told = chromium([10, 20])
    browser.click(BUTTON)
    assert told.sent[0][1]["expression"].endswith("(2)")
    left = {"button": "left", "clickCount": 1}
    assert [given for _, given in told.sent[1:]] == [
        {"type": "mouseMoved", "x": 10, "y": 20, "buttons": 0},
        {"type": "mousePressed", "x": 10, "y": 20, "buttons": 0, **left},
        {"type": "mouseReleased", "x": 10, "y": 20, "buttons": 0, **left},
    ]
    browser, told = chromium([30, 0], [0, 0])  # the target is asked for first
    browser.drag(BUTTON, FIELD)
    moves = [given for method, given in told.sent if method == "Input.dispatchMouseEvent"]
    assert [each["type"] for each in moves] == ["mouseMoved", "mousePressed", *["mouseMoved"] * 8, "mouseReleased"]
    assert [round(each["x"], 2) for each in moves[2:]] == [round(34 * part / 8, 2) for part in range(1, 9)] + [34]
    assert (
        {each["buttons"] for each in moves[2:10]} == {1} and moves[2]["button"] == "left" and moves[0]["buttons"] == 0
    )
    for target, start in ((None, [0, 0]), ([30, 0], None), (None, None)):  # a dialog came: nothing is pressed
        browser, told = chromium(target, start)
        browser.drag(BUTTON, FIELD)
        assert [method for method, _ in told.sent] == ["Runtime.evaluate"] * 2
    browser, told = chromium([1, 2])
    browser.hover(BUTTON)
    assert len(told.sent) == 2 and told.sent[1][1]["type"] == "mouseMoved"
    browser, told = chromium("it is hidden")
    with pytest.raises(CannotUse, match="it is hidden"):
        browser.click(BUTTON)
    browser, told = chromium(None)
    browser.click(BUTTON)
    assert len(told.sent) == 1
    browser, told = chromium("typed")
    browser.type(FIELD, "aB1é")
    keys = [
        (given["type"], given["key"], given["windowsVirtualKeyCode"], given.get("text")) for _, given in told.sent[1:]
    ]
    assert keys == [
        ("keyDown", "a", 65, "a"), ("keyUp", "a", 65, None), ("keyDown", "B", 66, "B"), ("keyUp", "B", 66, None),
        ("keyDown", "1", 49, "1"), ("keyUp", "1", 49, None), ("keyDown", "é", 0, "é"), ("keyUp", "é", 0, None),
    ]  # fmt: skip
    browser, told = chromium("typed")
    browser.type(FIELD, "")
    assert [given["key"] for _, given in told.sent[1:]] == ["Delete", "Delete"] and told.sent[1][1]["text"] == ""
    browser, told = chromium()
    browser.press("Enter")
    assert told.sent[0][1] == {"type": "keyDown", "key": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
    browser, told = chromium("set")
    browser.type(FIELD, "x")
    assert len(told.sent) == 1
    browser, told = chromium("it cannot be written to", "set", "gone")
    with pytest.raises(CannotUse, match="it cannot be written to"):
        browser.type(FIELD, "x")
    browser.select(FIELD, 'o"p')
    assert told.sent[-1][1]["expression"].endswith('(5, "o\\"p")')
    with pytest.raises(CannotUse, match="gone"):
        browser.select(FIELD, "x")


def test_a_page_is_seen_once_it_has_stopped_loading_and_a_dialog_keeps_the_page_before():
    browser, _ = chromium(0, ["Title", "Text", [[0, "choice", "Hour", "9", ["9", "10"]]]])
    before = PageView("old", "", ())
    assert browser.seen(before) == (
        PageView("Title", "Text", (PageElement(0, "choice", "Hour", "9", ("9", "10")),)),
        None,
    )
    browser, _ = chromium(0, None)
    browser._hear("Page.javascriptDialogOpening", {"message": "Sure?"})
    assert browser.seen(before) == (before, "Sure?")
    browser._hear("Page.javascriptDialogClosed", {})
    assert browser._dialog is None and not browser._stopped()
    browser._hear("Page.frameRequestedNavigation", {"frameId": "other"})
    assert not browser._loading
    browser._hear("Page.frameRequestedNavigation", {"frameId": "frame", "disposition": "newTab"})
    assert not browser._loading
    browser._hear("Page.frameStartedNavigating", {"frameId": "frame"})
    browser._hear("Page.frameStoppedLoading", {"frameId": "frame"})
    assert browser._loading  # it has not started yet
    with pytest.raises(TimeoutError, match="the page did not load within 10 s"):
        browser._load()
    browser._hear("Page.frameStartedLoading", {"frameId": "frame"})
    browser._hear("Page.frameStoppedLoading", {"frameId": "frame"})
    assert not browser._loading
    browser._hear("Inspector.targetCrashed", {})
    assert browser._stopped()
    with pytest.raises(ConnectionError, match="the page has crashed"):
        chromium_run = browser.run
        browser.devtools.values.append(1)  # type: ignore[attr-defined]
        chromium_run("1")
    browser, told = chromium()
    browser._dialog = "Sure?"
    browser.answer(False)
    assert browser._dialog is None and told.sent[-1] == ("Page.handleJavaScriptDialog", {"accept": False})


def test_only_the_end_of_loading_of_its_own_frame_ends_a_page_s_loading():
    browser, _ = chromium()
    browser._loading = browser._started = True
    for method, frame in (
        ("Page.frameNavigated", "frame"), ("Page.frameStoppedLoading", "other"), ("Page.frameStartedLoading", "frame"),
        ("Page.frameStoppedLoading", None), ("Page.loadEventFired", "frame"),
    ):  # fmt: skip
        browser._hear(method, {} if frame is None else {"frameId": frame})
        assert browser._loading, method
    browser._hear("Page.frameStartedNavigating", {"frameId": "frame", "disposition": "currentTab"})
    assert (browser._loading, browser._started) == (True, False), "another page begins"
    browser._hear("Page.frameStartedLoading", {"frameId": "other"})
    assert not browser._started
    browser._hear("Page.frameStartedLoading", {"frameId": "frame"})
    browser._hear("Page.frameStoppedLoading", {"frameId": "frame"})
    assert (browser._loading, browser._started) == (False, True)
    browser._hear("Page.javascriptDialogOpening", {})
    assert browser._dialog == "" and browser._stopped() and not browser._crashed


class MovingBrowser(ToldBrowser):
    """Hears of another page while the scripts of these numbers are answered; the page has come when it is waited for."""

    def __init__(self, leaving: tuple[int, ...], *values: object) -> None:
        super().__init__(*values)
        self.leaving, self.scripts, self.waits, self.hear = leaving, 0, 0, lambda method, told: None

    def wait(self, number: int, timeout_s: float = 5.0, unless: Any = None) -> Any:
        if self.scripts in self.leaving:
            self.hear("Page.frameStartedNavigating", {"frameId": "frame"})
        self.scripts += 1
        return super().wait(number, timeout_s, unless)

    def until(self, holds: Any, timeout_s: float) -> None:
        self.waits += 1
        for method in ("Page.frameStartedLoading", "Page.frameStoppedLoading"):
            self.hear(method, {"frameId": "frame"})
        super().until(holds, timeout_s)


@pytest.mark.parametrize(("leaving", "waits"), [((), 0), ((0,), 1), ((1,), 1), ((1, 2), 2), ((0, 2), 1)])
def test_a_page_that_is_being_left_is_not_told_as_the_page_now(leaving: tuple[int, ...], waits: int):
    """The first script asks for nothing; each further one reads the page there is."""
    reads = [[f"page {number}", "", []] for number in range(5)]
    browser, _ = chromium()
    told = MovingBrowser(leaving, 0, *reads)
    browser.devtools, told.hear = told, browser._hear  # type: ignore[assignment]
    last = next(number for number in range(1, 9) if number not in leaving) if 0 not in leaving else 1
    assert browser.seen(PageView("old", "", ())) == (PageView(f"page {last - 1}", "", ()), None)
    assert (told.waits, told.scripts) == (waits, last + 1) and not browser._loading
