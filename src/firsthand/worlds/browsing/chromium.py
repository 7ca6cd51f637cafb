"""Headless Chromium, driven over the DevTools protocol, with no way out but the proxy that it is given.

Browsers are kept between attempts, because one takes half a second to start. Each attempt has its own browser for as long
as it lasts, and in it a browser context of its own: no cookies, storage or windows of the one before. A browser that
crashed or hangs is thrown away. Clicks and keys are input events of the browser, which pages trust as they do a person's.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import unicodedata
from typing import Any, NamedTuple

from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.worlds.browsing.devtools import DevTools, DevToolsError

PAGE_TIMEOUT_S = 10
MAX_PAGES = 20
"""Pages that may follow each other by themselves after an action."""
BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome", "chromium-browser")
"""Programs, in the order of preference: the headless shell loads a page in a third of the time (docs/worlds.md)."""
FEATURES_OFF = (
    "SpareRendererForSitePerProcess",  # one site is all that a browser reaches: a renderer for others costs 0.3 s
    "IsolateOrigins",
    "site-per-process",
    "RenderDocument",  # a page takes the frame of the one before it
    "PaintHolding",  # nobody looks at the screen: a page need not wait for its first paint
    "DeferRendererTasksAfterInput",
    "HttpsUpgrades",  # the sites have no TLS
    "ThirdPartyStoragePartitioning",
    "OptimizationHints",
    "Translate",
    "MediaRouter",
    "LazyFrameLoading",
    "LensOverlay",
)
FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--mute-audio",
    "--no-default-browser-check",
    "--disable-breakpad",
    "--disable-renderer-backgrounding",
    "--disable-back-forward-cache",
    "--disable-default-apps",
    "--disable-component-extensions-with-background-pages",
    "--disable-client-side-phishing-detection",
    "--disable-hang-monitor",
    "--disable-ipc-flooding-protection",
    "--disable-field-trial-config",
    "--metrics-recording-only",
    "--password-store=basic",
    "--disable-site-isolation-trials",
    f"--disable-features={','.join(FEATURES_OFF)}",
    "--proxy-bypass-list=<-loopback>",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)
PREFERENCES: Json = {
    "download_restrictions": 3,
    "profile": {"default_content_setting_values": {"notifications": 2, "popups": 2}},
    "credentials_enable_service": False,
}
WIDTH, HEIGHT = 1000, 1400
STEPS = 8
PAST_PX = 4
"""Moves of the mouse in a drag, and how far past the middle it ends: a list moves its items where the middle is crossed."""
KEY_CODES = {
    "Enter": 13, "Delete": 46, "Tab": 9, "Escape": 27, "Backspace": 8,
    "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40,
}  # fmt: skip
"""The keys that can be pressed by name."""
WRITTEN_AS = r"""e => ({date: 'YYYY-MM-DD', time: 'HH:MM of 24 hours', 'datetime-local': 'YYYY-MM-DDTHH:MM',
  month: 'YYYY-MM', week: 'YYYY-Www', color: '#rrggbb', number: 'digits, with a point before decimals',
  range: `${e.min || 0} to ${e.max || 100}`})[e.tagName === 'INPUT' ? e.type : '']"""
"""A function of a field: the one form that the browser takes in it; undefined where any text is taken."""
FORM_CONTROLS = r"""(() => {
const elements = [], found = [];
const shown = e => { const b = e.getBoundingClientRect(); return b.width > 0 && b.height > 0 && !e.matches(':disabled'); };
for (const e of document.querySelectorAll('a[href], button, input:not([type=hidden]), select, textarea')) {
  if (!shown(e)) continue;
  const kind = e.tagName === 'INPUT' ? (e.type === 'checkbox' ? 'check box' : 'text field')
    : {A: 'link', BUTTON: 'button', SELECT: 'choice', TEXTAREA: 'text field'}[e.tagName];
  const label = e.getAttribute('aria-label') || e.innerText || e.name || '';
  const bare = e.tagName === 'BUTTON' || e.tagName === 'A';
  const value = e.type === 'checkbox' ? (e.checked ? 'yes' : 'no') : bare ? '' : e.value;
  const options = e.tagName === 'SELECT' ? [...e.options].filter(o => !o.matches(':disabled')).map(o => o.text) : [];
  found.push([elements.push(e) - 1, kind, label.trim(), value || '', options]);
}
window.firsthandElements = elements;
return [document.title, document.body ? document.body.innerText : '', found];
})()"""
_PLACE = r"""(number => {
const e = (window.firsthandElements || [])[number];
if (!e || !e.isConnected) return 'it is no longer on the page';
const seen = () => [...e.getClientRects()].find(b => b.width > 0 && b.height > 0);
let b = seen();
if (!b) return 'it is hidden';
if (b.top < 0 || b.left < 0 || b.bottom > innerHeight || b.right > innerWidth) {
  e.scrollIntoView({block: 'center', inline: 'center', behavior: 'instant'});
  b = seen();
}
for (const [across, down] of [[.5, .5], [.1, .5], [.9, .5], [.5, .1], [.5, .9]]) {
  const x = b.left + across * b.width, y = b.top + down * b.height, hit = document.elementFromPoint(x, y);
  if (hit && (hit === e || e.contains(hit))) return [x, y];
}
return 'another element covers it';
})"""
_HOLD = (
    r"""((number, text) => {
const e = (window.firsthandElements || [])[number], form = ("""
    + WRITTEN_AS
    + r""")(e || {});
if (!e || !e.isConnected) return 'it is no longer on the page';
if (e.matches(':disabled')) return 'it is disabled';
if (['button', 'checkbox', 'file', 'image', 'radio', 'reset', 'submit'].includes(e.type)) return 'it takes no text';
if (e.readOnly && !['color', 'range'].includes(e.type)) return 'it cannot be written to';
if (!form && e.maxLength >= 0 && text.length > e.maxLength) return `it takes at most ${e.maxLength} characters`;
if (e.tagName !== 'TEXTAREA' && text.includes('\n')) return 'it has one line, and the text has a line break';
if (form) {
  const trial = e.cloneNode();
  trial.value = text;
  const held = trial.value.toLowerCase();
  if (e.type === 'range' ? !text || +held !== +text : text && !(e.type === 'color' ? held === text.toLowerCase() : held))
    return `a field of type ${e.type} takes ${form}`;
}
e.scrollIntoView({block: 'center', inline: 'center', behavior: 'instant'});
e.focus();
if (e.tagName === 'TEXTAREA' || ['text', 'search', 'password', 'email', 'tel', 'url', 'number'].includes(e.type)) {
  e.select();
  return 'typed';
}
e.value = text;
for (const kind of ['input', 'change']) e.dispatchEvent(new Event(kind, {bubbles: true}));
return 'set';
})"""
)
_CHOOSE = r"""((number, option) => {
const e = (window.firsthandElements || [])[number];
if (!e || !e.isConnected) return 'it is no longer on the page';
if (e.matches(':disabled')) return 'it is disabled';
const chosen = [...e.options].find(o => o.text === option && !o.matches(':disabled'));
if (!chosen) return 'it has no such option any more';
e.focus();
chosen.selected = true;
for (const kind of ['input', 'change']) e.dispatchEvent(new Event(kind, {bubbles: true}));
return 'set';
})"""
"""Functions of an element's number. What is no list and neither `typed` nor `set` is the reason why it cannot be done."""


class CannotUse(Exception):
    """The element cannot be used now; the text says why."""


class PageElement(NamedTuple):
    """Something on the page that can be used."""

    number: int
    """Its place among the page's elements, from 0."""
    kind: str
    """`link`, `button`, `text field`, `check box` or `choice`; in MiniWoB++ also `radio button` and `thing`."""
    label: str
    value: str
    options: tuple[str, ...]


class PageView(NamedTuple):
    """The page: its title, its text, and what can be used on it."""

    title: str
    text: str
    elements: tuple[PageElement, ...]


class Chromium:
    """One browser with one page, and the proxy of the site server."""

    def __init__(self, port: int) -> None:
        """Start it; ConfigError if Chromium is not installed."""
        root = (
            ["--no-sandbox"] if os.geteuid() == 0 else []
        )  # root cannot make Chromium's own sandbox; the pages are ours
        flags = [*FLAGS, f"--window-size={WIDTH},{HEIGHT}", f"--proxy-server=http://127.0.0.1:{port}", *root]
        self.devtools = DevTools(ready(), flags, PREFERENCES)
        self._begin()

    def _begin(self) -> None:
        """Open an empty page in a browser context of its own."""
        call = self.devtools.call
        self._dialog: str | None = None
        self._loading, self._crashed = False, False
        self._context = call("Target.createBrowserContext")["browserContextId"]
        call("Browser.setDownloadBehavior", behavior="deny", browserContextId=self._context)
        self._target = call(
            "Target.createTarget", url="about:blank", browserContextId=self._context, width=WIDTH, height=HEIGHT
        )["targetId"]
        self._session = call("Target.attachToTarget", targetId=self._target, flatten=True)["sessionId"]
        self.devtools.listen(self._session, self._hear)
        for room in ("Page", "Inspector"):
            call(f"{room}.enable", self._session)

    def _hear(self, method: str, told: Json) -> None:
        """Take in an event of the page. A page is on its way from the request until loading has stopped."""
        if method == "Page.javascriptDialogOpening":
            self._dialog = str(told.get("message", ""))
        elif method == "Page.javascriptDialogClosed":
            self._dialog = None
        elif method == "Inspector.targetCrashed":
            self._crashed = True
        elif told.get("frameId") == self._target:
            if method in ("Page.frameRequestedNavigation", "Page.frameStartedNavigating"):
                self._loading = told.get("disposition", "currentTab") == "currentTab"
                self._started = False
            elif method == "Page.frameStartedLoading":
                self._started = True
            elif method == "Page.frameStoppedLoading" and self._loading and self._started:
                self._loading = False

    def visit(self, address: str) -> None:
        """Open a page; TimeoutError if it does not load."""
        self._loading, self._started = True, False
        told = self.devtools.call("Page.navigate", self._session, timeout_s=PAGE_TIMEOUT_S, url=address)
        if "errorText" in told:
            raise ConnectionError(f"the page did not load: {told['errorText']}")
        self._load()

    def _load(self) -> None:
        """Wait for a page that is on its way, or for a dialog."""
        try:
            self.devtools.until(lambda: not self._loading or self._stopped(), PAGE_TIMEOUT_S)
        except TimeoutError:
            raise TimeoutError(f"the page did not load within {PAGE_TIMEOUT_S} s") from None

    def _stopped(self) -> bool:
        return self._dialog is not None or self._crashed

    def run(self, script: str, *, wait: bool = False) -> Any:
        """The value of an expression in the page, with `wait` that of its promise; None if a dialog or a new page comes."""
        sent = self.devtools.send(
            "Runtime.evaluate", self._session, expression=script, returnByValue=True, awaitPromise=wait
        )
        try:
            told = self.devtools.wait(sent, unless=self._stopped)
        except DevToolsError:
            if not self._loading:
                raise
            return None
        if self._crashed:
            raise ConnectionError("the page has crashed")
        if told is None:
            return None
        if "exceptionDetails" in told:
            raise DevToolsError(str(told["exceptionDetails"].get("exception", {}).get("description", ""))[:300])
        return told["result"].get("value")

    def seen(self, before: PageView, script: str = FORM_CONTROLS) -> tuple[PageView, str | None]:
        """The page now and no dialog, or the page `before` and the text of the dialog that is open."""
        told = self.run("0")  # after this answer, a page that an action has asked for is known to be on its way
        for _ in range(MAX_PAGES):
            told = None if self._loading else self.run(script)
            if self._dialog is not None:
                return before, self._dialog
            if told is not None and not self._loading:
                break
            self._load()
        else:
            raise TimeoutError(f"{MAX_PAGES} pages came one after the other")
        title, text, found = told
        return PageView(title, text, tuple(PageElement(n, k, label, v, tuple(o)) for n, k, label, v, o in found)), None

    def click(self, element: PageElement) -> None:
        """Click an element, in its middle if nothing covers that; CannotUse says why not. A dialog stops it."""
        if (point := self._point(element)) is not None:
            self._mouse(("mouseMoved", *point), ("mousePressed", *point), ("mouseReleased", *point))

    def hover(self, element: PageElement) -> None:
        """Move the mouse over an element."""
        if (point := self._point(element)) is not None:
            self._mouse(("mouseMoved", *point))

    def drag(self, element: PageElement, onto: PageElement) -> None:
        """Press the mouse on an element, move it onto another one, and release it there."""
        target, start = self._point(onto), self._point(element)
        if target is None or start is None:
            return
        (x, y), (to_x, to_y) = start, target
        beyond = 1 + PAST_PX / max(math.hypot(to_x - x, to_y - y), PAST_PX)
        to_x, to_y = x + beyond * (to_x - x), y + beyond * (to_y - y)
        way = [(x + part * (to_x - x) / STEPS, y + part * (to_y - y) / STEPS) for part in range(1, STEPS + 1)]
        self._mouse(("mouseMoved", x, y))
        self._mouse(("mousePressed", x, y))
        for place in way:  # one by one, or the page sees the last alone
            self._mouse(("mouseMoved", *place), held=True)
        self._mouse(("mouseReleased", to_x, to_y))

    def press(self, key: str) -> None:
        """Press and release a key of KEY_CODES."""
        self._press_all([key])

    def _point(self, element: PageElement) -> tuple[float, float] | None:
        """A place where an element can be met, None if a dialog or a new page comes; CannotUse if there is none."""
        place = self.run(f"{_PLACE}({element.number})")
        if isinstance(place, str):
            raise CannotUse(place)
        return None if place is None else (place[0], place[1])

    def _mouse(self, *events: tuple[str, float, float], held: bool = False) -> None:
        """Send mouse events; `held` says that the left button is down while the mouse moves."""
        for kind, x, y in events:
            button = {} if kind == "mouseMoved" and not held else {"button": "left", "clickCount": 1}
            last = self.devtools.send(
                "Input.dispatchMouseEvent", self._session, type=kind, x=x, y=y, buttons=int(held), **button
            )
        self.devtools.wait(last, unless=self._stopped)

    def type(self, element: PageElement, text: str) -> None:
        """Put a text into a field, in place of what it held; CannotUse if the field does not take it as it is."""
        written = text.replace("\r\n", "\n").replace("\r", "\n")
        if unknown := next(
            (each for each in written if each != "\n" and unicodedata.category(each) in ("Cc", "Cs")), None
        ):
            raise CannotUse(f"no key types {unknown!a}")
        held = self.run(f"{_HOLD}({element.number}, {json.dumps(written)})")
        if held == "typed":
            self._press_all(["Enter" if each == "\n" else each for each in written] or ["Delete"])
        elif held not in ("set", None):
            raise CannotUse(held)

    def _press_all(self, keys: list[str]) -> None:
        """Press and release keys one after the other: letters, or a key by its name."""
        for key in keys:
            code = KEY_CODES.get(key, ord(key.upper()) if key.isascii() and key.isalnum() and len(key) == 1 else 0)
            text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
            known = {"key": key, "windowsVirtualKeyCode": code}
            self.devtools.send("Input.dispatchKeyEvent", self._session, type="keyDown", **known, text=text)
            last = self.devtools.send("Input.dispatchKeyEvent", self._session, type="keyUp", **known)
        self.devtools.wait(last, unless=self._stopped)

    def select(self, element: PageElement, option: str) -> None:
        """Choose an option by its text."""
        if (told := self.run(f"{_CHOOSE}({element.number}, {json.dumps(option)})")) not in ("set", None):
            raise CannotUse(told)

    def answer(self, accept: bool) -> None:
        """Accept or dismiss the dialog that is open."""
        self._dialog = None
        self.devtools.call("Page.handleJavaScriptDialog", self._session, accept=accept)

    def clean(self) -> None:
        """Forget the last visit with its context, and open another."""
        self.devtools.forget(self._session)
        self.devtools.call("Target.disposeBrowserContext", browserContextId=self._context)
        self._begin()

    def quit(self) -> None:
        """End the browser."""
        self.devtools.close()


def ready() -> str:
    """The path of Chromium; ConfigError if it is not installed."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise ConfigError(
            "web browsing needs Chromium, which is not installed: apt-get install chromium-headless-shell, or chromium"
        )
    return browser
