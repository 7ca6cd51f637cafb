"""Headless Chromium, driven by selenium, with no way out but the proxy that it is given.

Browsers are kept between attempts, because one takes a second to start; each attempt has its own browser for as long as
it lasts, and finds it without cookies, storage or further windows. One that crashed or hangs is thrown away.
"""

from __future__ import annotations

import atexit
import os
import shutil
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from firsthand.errors import ConfigError, MissingExtra
from firsthand.worlds.browsing.site_server import SiteServer

PAGE_TIMEOUT_S = 10
SCRIPT_TIMEOUT_S = 5
DIALOG_TIMEOUT_S = 3
MAX_RUNNING = 4
"""Browsers that run at a time; further attempts wait for one."""
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
    "--window-size=1000,1400",
    "--proxy-bypass-list=<-loopback>",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)
PREFERENCES = {
    "download_restrictions": 3,
    "profile.default_content_setting_values.notifications": 2,
    "profile.default_content_setting_values.popups": 2,
    "credentials_enable_service": False,
}
_TURNED = "return window.firsthandSaw === undefined && document.readyState === 'complete'"
_ELEMENTS = """
const found = [], words = [];
const shown = e => { const b = e.getBoundingClientRect(); return b.width > 0 && b.height > 0 && !e.disabled; };
for (const e of document.querySelectorAll('a[href], button, input:not([type=hidden]), select, textarea')) {
  if (!shown(e)) continue;
  const kind = e.tagName === 'INPUT' ? (e.type === 'checkbox' ? 'check box' : 'text field')
    : {A: 'link', BUTTON: 'button', SELECT: 'choice', TEXTAREA: 'text field'}[e.tagName];
  const label = e.getAttribute('aria-label') || e.innerText || e.name || '';
  const bare = e.tagName === 'BUTTON' || e.tagName === 'A';
  const value = e.type === 'checkbox' ? (e.checked ? 'yes' : 'no') : bare ? '' : e.value;
  const options = e.tagName === 'SELECT' ? [...e.options].map(o => o.text) : [];
  const leads = e.tagName === 'A' || (e.tagName === 'BUTTON' && e.form !== null);
  found.push([e, kind, label.trim(), value || '', options, leads]);
}
window.firsthandSaw = true;
return [document.title, document.body ? document.body.innerText : '', found];
"""


class PageElement(NamedTuple):
    """Something on the page that can be used."""

    handle: Any
    kind: str
    """`link`, `button`, `text field`, `check box` or `choice`."""
    label: str
    value: str
    options: tuple[str, ...]
    leads: bool
    """True if a click on it leads to another page."""


class PageView(NamedTuple):
    """The page: its title, its text, and what can be used on it."""

    title: str
    text: str
    elements: tuple[PageElement, ...]


class Chromium:
    """One browser, with the proxy of the site server."""

    def __init__(self, port: int) -> None:
        """Start it; ConfigError if Chromium or its driver is not installed."""
        webdriver = _selenium()
        options = webdriver.ChromeOptions()
        options.binary_location = ready()
        for flag in (*FLAGS, f"--proxy-server=http://127.0.0.1:{port}"):
            options.add_argument(flag)
        if os.geteuid() == 0:  # Chromium's own sandbox cannot be made by root; the pages are ours
            options.add_argument("--no-sandbox")
        options.add_experimental_option("prefs", PREFERENCES)
        options.set_capability("unhandledPromptBehavior", "ignore")
        service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
        self.driver = webdriver.Chrome(options=options, service=service)
        self.driver.set_page_load_timeout(PAGE_TIMEOUT_S)
        self.driver.set_script_timeout(SCRIPT_TIMEOUT_S)

    def visit(self, address: str) -> None:
        """Open a page."""
        self.driver.get(address)

    def dialog(self) -> str | None:
        """The text of the dialog that is open; None if there is none."""
        from selenium.common.exceptions import NoAlertPresentException

        try:
            return str(self.driver.switch_to.alert.text)
        except NoAlertPresentException:
            return None

    def answer(self, accept: bool) -> None:
        """Accept or dismiss the dialog; if it is accepted, wait for the page that it may lead to."""
        alert = self.driver.switch_to.alert
        alert.accept() if accept else alert.dismiss()
        if accept:
            self._wait_for_page(DIALOG_TIMEOUT_S)

    def view(self) -> PageView:
        """The page as it is now."""
        title, text, found = self.driver.execute_script(_ELEMENTS)
        return PageView(
            title, text, tuple(PageElement(e, k, label, v, tuple(o), leads) for e, k, label, v, o, leads in found)
        )

    def seen(self, before: PageView) -> tuple[PageView, str | None]:
        """The page now and no dialog, or the page `before` and the text of the dialog that is open."""
        from selenium.common.exceptions import UnexpectedAlertPresentException

        try:
            return self.view(), None
        except UnexpectedAlertPresentException:
            return before, self.dialog() or ""

    def click(self, element: PageElement) -> None:
        """Click an element, and wait for the page that it leads to; TimeoutError if none comes."""
        element.handle.click()
        if element.leads and not self._wait_for_page(PAGE_TIMEOUT_S):
            raise TimeoutError(f"the page did not load within {PAGE_TIMEOUT_S} s")

    def _wait_for_page(self, seconds: float) -> bool:
        """True as soon as another page is there, or a dialog; False if neither comes in time."""
        from selenium.common.exceptions import UnexpectedAlertPresentException

        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if self.driver.execute_script(_TURNED):
                    return True
            except UnexpectedAlertPresentException:
                return True
            time.sleep(0.005)
        return False

    def type(self, element: PageElement, text: str) -> None:
        """Put a text into a field, in place of what it held."""
        element.handle.clear()
        element.handle.send_keys("".join(letter for letter in text if letter.isprintable()))

    def select(self, element: PageElement, option: str) -> None:
        """Choose an option by its text."""
        from selenium.webdriver.support.ui import Select

        Select(element.handle).select_by_visible_text(option)

    def clean(self) -> None:
        """Forget the last visit: dialog, cookies, storage, and all windows but one."""
        if self.dialog() is not None:
            self.answer(accept=False)
        self.driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
        first, *others = self.driver.window_handles
        for other in others:
            self.driver.switch_to.window(other)
            self.driver.close()
        self.driver.switch_to.window(first)
        self.driver.get("about:blank")

    def quit(self) -> None:
        """End the browser and its driver."""
        try:
            self.driver.quit()
        except Exception:  # it has crashed; its driver is ended all the same
            self.driver.service.stop()


class BrowserPool:
    """Browsers, at most MAX_RUNNING at a time, and the site server that they all use."""

    def __init__(self, start: Callable[[int], Chromium] = Chromium) -> None:
        """Start nothing yet; `start` makes a browser for the proxy's port."""
        self._start, self._lock = start, threading.Lock()
        self._places = threading.BoundedSemaphore(MAX_RUNNING)
        self._idle: list[Chromium] = []
        self._server: SiteServer | None = None

    @property
    def server(self) -> SiteServer:
        """The site server, started at the first use."""
        with self._lock:
            if self._server is None:
                self._server = SiteServer()
                atexit.register(self.close)
            return self._server

    def take(self) -> Chromium:
        """A clean browser, once fewer than MAX_RUNNING are in use. It blocks, so call it in a thread of its own."""
        port = self.server.port
        self._places.acquire()
        with self._lock:
            if self._idle:
                return self._idle.pop()
        try:
            return self._start(port)
        except BaseException:
            self._places.release()
            raise

    def give_back(self, browser: Chromium) -> None:
        """Keep the browser for the next attempt, if it still works."""
        try:
            browser.clean()
        except Exception:  # crashed or hanging
            self.end(browser)
            return
        with self._lock:
            self._idle.append(browser)
        self._places.release()

    def end(self, browser: Chromium) -> None:
        """End a browser that was taken."""
        try:
            browser.quit()
        finally:
            self._places.release()

    def close(self) -> None:
        """End all browsers that wait, and the server."""
        with self._lock:
            idle, self._idle, server, self._server = self._idle, [], self._server, None
        for browser in idle:
            browser.quit()
        if server is not None:
            server.close()


def ready() -> str:
    """The path of Chromium; a FirsthandError that names what is missing."""
    _selenium()
    browser = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
    if browser is None or shutil.which("chromedriver") is None:
        missing = "chromedriver" if browser else "Chromium"
        raise ConfigError(
            f"web browsing needs {missing}, which is not installed: apt-get install chromium chromium-driver"
        )
    return browser


def _selenium() -> Any:
    try:
        from selenium import webdriver
    except ImportError:
        raise MissingExtra("selenium", "browse", "web browsing") from None
    return webdriver
