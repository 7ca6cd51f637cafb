"""Browsers that are kept between attempts, at most a few at a time, and the server of the sites that they visit."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable

from firsthand.worlds.browsing.chromium import Chromium
from firsthand.worlds.browsing.site_server import SiteServer

MAX_RUNNING = 4
"""Browsers that run at a time; further attempts wait for one."""


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
